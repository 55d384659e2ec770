//! Whether the operator is fit to work: what `/readyz` answers.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Mutex;

#[derive(Debug, Default)]
struct State {
    crd: Option<bool>,
    leading: bool,
    cold: HashSet<String>,
    stopping: bool,
}

/// What is known of the operator's fitness.
#[derive(Debug, Default)]
pub struct Readiness(Mutex<State>);

impl Readiness {
    fn edit(&self, edit: impl FnOnce(&mut State)) {
        if let Ok(mut state) = self.0.lock() {
            edit(&mut state);
        }
    }

    /// Whether the API server serves the resource, and to us.
    pub(crate) fn crd(&self, served: bool) {
        self.edit(|state| state.crd = Some(served));
    }

    /// This replica leads, and its caches of these scopes are cold.
    pub(crate) fn leads(&self, scopes: impl IntoIterator<Item = String>) {
        let cold = scopes.into_iter().collect();
        self.edit(|state| {
            state.leading = true;
            state.cold = cold;
        });
    }

    /// This replica leads no more.
    pub(crate) fn stands_by(&self) {
        self.edit(|state| {
            state.leading = false;
            state.cold.clear();
        });
    }

    /// The cache of this scope holds everything.
    pub(crate) fn warm(&self, scope: &str) {
        self.edit(|state| {
            state.cold.remove(scope);
        });
    }

    /// The process was asked to stop.
    pub fn stop(&self) {
        self.edit(|state| state.stopping = true);
    }

    /// Whether the caches are complete, so that the queue knows all there is.
    pub(crate) fn is_warm(&self) -> bool {
        self.0.lock().is_ok_and(|state| state.leading && state.cold.is_empty())
    }

    /// What keeps the operator from being ready, if anything does.
    #[must_use]
    pub fn obstacle(&self) -> Option<Cow<'static, str>> {
        let Ok(state) = self.0.lock() else { return Some("a thread panicked".into()) };
        let obstacle = match *state {
            State { stopping: true, .. } => Some("stopping"),
            State { crd: None, .. } => Some("the API server was not reached yet"),
            State { crd: Some(false), .. } => {
                Some("DatasetImportJobs can't be listed: is the CRD installed, and may the operator list them?")
            }
            // A replica that stands by has nothing to warm up.
            State { leading: true, ref cold, .. } if cold.contains("") => Some("the cache is cold"),
            State { leading: true, ref cold, .. } if !cold.is_empty() => {
                let mut cold: Vec<&str> = cold.iter().map(String::as_str).collect();
                cold.sort_unstable();
                let cold = cold.join(", ");
                return Some(format!("the cache is cold: DatasetImportJobs were not listed yet in {cold}; may the operator list them there? Until then nothing is submitted anywhere, for the order of all is not known").into());
            }
            State { .. } => None,
        };
        obstacle.map(Cow::Borrowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_is_ready_once_the_crd_is_there_and_its_caches_are_warm() {
        let health = Readiness::default();
        assert!(health.obstacle().is_some());
        health.crd(true);
        assert_eq!(health.obstacle(), None);
        health.leads(["a".to_owned(), "b".to_owned()]);
        assert!(health.obstacle().is_some_and(|why| why.contains("listed yet in a, b")));
        health.warm("a");
        assert!(!health.is_warm());
        health.warm("b");
        assert!(health.is_warm());
        assert_eq!(health.obstacle(), None);
        health.crd(false);
        assert!(health.obstacle().is_some());
        health.crd(true);
        health.stop();
        assert_eq!(health.obstacle().as_deref(), Some("stopping"));
    }
}
