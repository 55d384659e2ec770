//! Whether this replica is ready: the answer of `/readyz`. And the queue that it leads.

use crate::queue::Queue;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, Weak};

#[derive(Debug, Default)]
struct State {
    /// Whether the API server serves DatasetImportJobs to the operator; `None` before its first answer.
    crd_served: Option<bool>,
    leading: bool,
    /// The watched namespaces whose initial list is not complete; the empty string stands for all namespaces.
    unsynced: BTreeSet<String>,
    stopping: bool,
    /// The queue of the current leadership.
    queue: Weak<Mutex<Queue>>,
}

/// The state that `/readyz` reports.
#[derive(Debug, Default)]
pub struct Readiness(Mutex<State>);

impl Readiness {
    fn update(&self, update: impl FnOnce(&mut State)) {
        if let Ok(mut state) = self.0.lock() {
            update(&mut state);
        }
    }

    /// Records whether the API server serves DatasetImportJobs to the operator.
    pub(crate) fn set_crd_served(&self, served: bool) {
        self.update(|state| state.crd_served = Some(served));
    }

    /// Records that this replica leads and has not listed these namespaces yet.
    pub(crate) fn set_leading(&self, namespaces: impl IntoIterator<Item = String>) {
        let unsynced = namespaces.into_iter().collect();
        self.update(|state| {
            state.leading = true;
            state.unsynced = unsynced;
        });
    }

    /// Records the queue of this leadership, for as long as it lives.
    pub(crate) fn set_queue(&self, queue: &Arc<Mutex<Queue>>) {
        self.update(|state| state.queue = Arc::downgrade(queue));
    }

    /// The queue, if this replica leads.
    pub(crate) fn queue(&self) -> Option<Arc<Mutex<Queue>>> {
        self.0.lock().ok().filter(|state| state.leading)?.queue.upgrade()
    }

    /// Records that this replica does not lead.
    pub(crate) fn set_standby(&self) {
        self.update(|state| {
            state.leading = false;
            state.unsynced.clear();
        });
    }

    /// Records that the initial list of this namespace is complete.
    pub(crate) fn mark_synced(&self, namespace: &str) {
        self.update(|state| {
            state.unsynced.remove(namespace);
        });
    }

    /// Whether this watched namespace is not listed yet.
    pub(crate) fn is_unsynced(&self, namespace: &str) -> bool {
        self.0.lock().is_ok_and(|state| state.unsynced.contains(namespace))
    }

    /// Whether all other watched namespaces are listed.
    pub(crate) fn is_last_unsynced(&self, namespace: &str) -> bool {
        self.0.lock().is_ok_and(|state| state.leading && state.unsynced.iter().all(|unsynced| unsynced == namespace))
    }

    /// Records that the process is shutting down.
    pub(crate) fn set_stopping(&self) {
        self.update(|state| state.stopping = true);
    }

    /// Whether this replica leads and has listed this namespace.
    pub(crate) fn is_listed(&self, namespace: &str) -> bool {
        let awaits = |state: &State| state.unsynced.contains("") || state.unsynced.contains(namespace);
        self.0.lock().is_ok_and(|state| state.leading && !awaits(&state))
    }

    /// Why this replica is not ready; `None` if it is.
    #[must_use]
    pub(crate) fn not_ready_reason(&self) -> Option<Cow<'static, str>> {
        let Ok(state) = self.0.lock() else { return Some("a thread panicked".into()) };
        if state.stopping {
            return Some("shutting down".into());
        }
        match state.crd_served {
            None => return Some("waiting for the first answer of the API server".into()),
            Some(false) => {
                return Some(
                    "DatasetImportJobs can't be listed: is the CRD installed, and may the operator list them?".into(),
                );
            }
            Some(true) => {}
        }
        // A standby replica is ready: it has nothing to list.
        if !state.leading || state.unsynced.is_empty() {
            return None;
        }
        if state.unsynced.contains("") {
            return Some("the initial list of DatasetImportJobs is not complete".into());
        }
        let namespaces = state.unsynced.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        Some(
            format!(
                "the initial list of DatasetImportJobs is not complete in {namespaces}; may the operator list them there? \
                 Imports of other namespaces continue after the grace period"
            )
            .into(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replica_is_ready_when_crd_is_served_and_initial_lists_are_complete() {
        let readiness = Readiness::default();
        assert!(readiness.not_ready_reason().is_some());
        readiness.set_crd_served(true);
        assert_eq!(readiness.not_ready_reason(), None);
        readiness.set_leading(["b".to_owned(), "a".to_owned()]);
        assert!(readiness.not_ready_reason().is_some_and(|reason| reason.contains("not complete in a, b")));
        assert!(!readiness.is_last_unsynced("b"));
        readiness.mark_synced("a");
        assert!(!readiness.is_unsynced("a") && readiness.is_last_unsynced("b"));
        assert!(readiness.is_listed("a") && !readiness.is_listed("b"));
        readiness.mark_synced("b");
        assert!(readiness.is_listed("b"));
        assert_eq!(readiness.not_ready_reason(), None);
        readiness.set_crd_served(false);
        assert!(readiness.not_ready_reason().is_some());
        readiness.set_crd_served(true);
        readiness.set_stopping();
        assert_eq!(readiness.not_ready_reason().as_deref(), Some("shutting down"));
    }
}
