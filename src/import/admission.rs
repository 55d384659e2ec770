//! The queue's answer to a resource that wants to submit.
//!
//! ```
//! use personalize_operator::import::Key;
//!
//! let key = Key { namespace: "shop".into(), name: "nightly".into() };
//! assert_eq!(key.to_string(), "shop/nightly");
//! ```

use jiff::Timestamp;
use std::fmt;

/// The namespace and name of a resource.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Whether a resource may submit its import now.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Admission {
    /// Submit now. The quota and the dataset are reserved until the reservation is released or the import ends.
    Admitted,
    /// Wait.
    Pending {
        /// The message for users.
        message: String,
        /// When to ask again, if time alone can end the wait.
        until: Option<Timestamp>,
    },
}

/// Why the service accepts no import for now in an account and region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CooldownCause {
    /// The quota of running imports is used up.
    Quota,
    /// The service throttles requests.
    Throttled,
}
