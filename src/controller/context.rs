//! What this process remembers of each resource between passes. All of it can be lost.

use crate::queue::Uid;
use crate::reconciliation::Remembered;
use std::collections::HashMap;
use std::sync::Mutex;

/// The memories of all resources, by UID.
#[derive(Debug, Default)]
pub(crate) struct Memories(Mutex<HashMap<Uid, Remembered>>);

impl Memories {
    pub(crate) fn recall(&self, uid: &str) -> Remembered {
        self.0.lock().ok().and_then(|all| all.get(uid).cloned()).unwrap_or_default()
    }

    pub(crate) fn keep(&self, uid: &str, remembered: Remembered) {
        if let Ok(mut all) = self.0.lock() {
            all.insert(uid.to_owned(), remembered);
        }
    }

    pub(crate) fn forget(&self, uid: &str) {
        if let Ok(mut all) = self.0.lock() {
            all.remove(uid);
        }
    }
}
