//! Faults that can be ordered: what goes wrong with the next matching calls.

use serde::{Deserialize, Serialize};

/// A fault, and which calls it meets.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fault {
    /// The operation; none means all.
    #[serde(default)]
    pub operation: Option<String>,
    /// The caller's account; none means all.
    #[serde(default)]
    pub account: Option<String>,
    /// A part of the job's name or ARN, or of the dataset's ARN; none means all.
    #[serde(default)]
    pub name: Option<String>,
    /// How many calls it meets.
    #[serde(default = "once")]
    pub count: u32,
    /// What goes wrong.
    pub action: Action,
}

fn once() -> u32 {
    1
}

/// What goes wrong.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Action {
    /// An error, before the effect or after it.
    Error {
        /// The error code.
        code: String,
        /// The message.
        message: String,
        /// The HTTP status.
        status: u16,
        /// Whether the call takes effect all the same.
        #[serde(default)]
        after_effect: bool,
    },
    /// No answer for so long, then the right one.
    Delay {
        /// Milliseconds.
        ms: u64,
    },
    /// No answer at all, before the effect or after it.
    Silence {
        /// Whether the call takes effect all the same.
        #[serde(default)]
        after_effect: bool,
    },
    /// The connection breaks off within the body, after the effect.
    CutBody,
    /// The body is no JSON, after the effect.
    Garbage,
    /// Success with an empty object, after the effect.
    NoArn,
    /// Part of the answer is replaced: the members of the job (describe) or of the answer.
    Replace {
        /// Members and their values.
        members: serde_json::Map<String, serde_json::Value>,
    },
}

impl Fault {
    /// Whether it meets this call.
    #[must_use]
    pub fn meets(&self, operation: &str, account: &str, names: &[&str]) -> bool {
        self.count > 0
            && self.operation.as_deref().is_none_or(|o| o == operation)
            && self.account.as_deref().is_none_or(|a| a == account)
            && self.name.as_deref().is_none_or(|n| names.iter().any(|name| name.contains(n)))
    }
}
