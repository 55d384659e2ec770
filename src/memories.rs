//! What this process remembers of each resource between passes. All of it can be lost.

use crate::api::{DatasetImportJob, DatasetImportJobStatus};
use crate::decide::Memory;
use crate::queue::{Uid, version};
use jiff::Timestamp;
use kube::ResourceExt;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Mutex;

/// The field manager of everything the operator writes.
pub(crate) const MANAGER: &str = "personalize-operator";

/// What is remembered of one resource.
#[derive(Debug, Clone, Default)]
pub(crate) struct Remembered {
    /// For the decision.
    pub(crate) memory: Memory,
    /// How many passes in a row ended in a setback.
    pub(crate) setbacks: u32,
    /// How many passes in a row ended in an error.
    pub(crate) errors: u32,
    /// When the next look at the running job is due.
    pub(crate) due: Option<Timestamp>,
    /// The version that this process wrote last; an older one from the cache is stale.
    written: u64,
    /// A digest of the status that this process wrote last.
    own_status: Option<u64>,
    /// A write went wrong in a way that leaves open whether it took effect.
    pub(crate) unsure: bool,
}

impl Remembered {
    /// Takes note of a status that this process has written.
    pub(crate) fn wrote(&mut self, job: &DatasetImportJob) {
        self.written = version(job);
        self.own_status = Some(digest(job.status.as_ref()));
        self.unsure = false;
    }

    /// Whether the resource as the cache has it is older than what this process knows.
    pub(crate) fn outdates(&self, job: &DatasetImportJob) -> bool {
        self.unsure || version(job) < self.written
    }

    /// Whether the status was written by this operator alone.
    ///
    /// What this process wrote it knows again. For what an earlier one wrote, the API server keeps
    /// the books: a field of the status with another manager was touched by somebody else.
    pub(crate) fn proves(&self, job: &DatasetImportJob) -> bool {
        if let Some(own) = self.own_status {
            return own == digest(job.status.as_ref());
        }
        job.managed_fields()
            .iter()
            .filter(|entry| entry.subresource.as_deref() == Some("status"))
            .all(|entry| entry.manager.as_deref() == Some(MANAGER))
    }
}

fn digest(status: Option<&DatasetImportJobStatus>) -> u64 {
    let mut hasher = DefaultHasher::new();
    serde_json::to_string(&status).unwrap_or_default().hash(&mut hasher);
    hasher.finish()
}

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
