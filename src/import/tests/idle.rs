//! Idle resources: nothing is to be done for them until they change.

use super::scenario::Scenario;
use crate::api::conditions::{Reason, whole_seconds};
use crate::api::{RETRY_REQUESTED_AT, SUSPEND};
use crate::import::{IdleState, Key, LocalState, MANAGER, is_idle};
use crate::personalize::{ACTIVE, CREATE_FAILED};
use crate::testing::{set_status_manager, timing};

fn newer_import() -> Option<Key> {
    Some(Key { namespace: "shop".into(), name: "newer".into() })
}

impl Scenario {
    fn is_idle(&self, newer_import: Option<Key>) -> bool {
        let trust = self.local.trust(&self.resource);
        is_idle(&self.resource, trust, newer_import, &self.local, self.now, &timing())
    }
}

/// An import whose job has ended.
fn ended(job_status: &str) -> Scenario {
    let mut scenario = Scenario::new();
    scenario.reconcile_until_idle();
    assert!(!scenario.is_idle(None), "its job runs");
    let name = scenario.request().job_name(1);
    scenario.set_job_status(&name, job_status);
    scenario.wait();
    scenario.reconcile_until_idle();
    scenario
}

#[test]
fn ended_import_is_idle_also_after_a_restart() {
    for end in [ACTIVE, CREATE_FAILED] {
        let mut scenario = ended(end);
        assert!(scenario.is_idle(None));
        scenario.crash();
        assert!(scenario.is_idle(None));
        scenario.resource.metadata.generation = Some(2);
        assert!(!scenario.is_idle(None), "an edit is to be recorded");
        scenario.reconcile_until_idle();
        assert!(scenario.is_idle(None));
        scenario.resource.metadata.deletion_timestamp = Some(whole_seconds(scenario.now));
        assert!(!scenario.is_idle(None), "it frees its place");
    }
}

#[test]
fn import_whose_data_was_replaced_is_idle_once_its_status_says_so() {
    let scenario = ended(ACTIVE);
    assert!(!scenario.is_idle(newer_import()));
    assert!(ended(CREATE_FAILED).is_idle(newer_import()), "it has no data");
}

#[test]
fn idle_resource_is_reconciled_on_request() {
    let mut scenario = ended(CREATE_FAILED);
    scenario.annotate(RETRY_REQUESTED_AT, "1");
    assert!(!scenario.is_idle(None));
    let mut suspended = Scenario::new();
    suspended.annotate(SUSPEND, "true");
    assert!(!suspended.is_idle(None), "its status does not say so yet");
    suspended.reconcile_until_idle();
    assert_eq!(suspended.reason(), Reason::Suspended);
    assert!(suspended.is_idle(None));
    suspended.annotate(SUSPEND, "false");
    assert!(!suspended.is_idle(None));
}

#[test]
fn idle_resource_is_reconciled_when_somebody_else_writes_its_status() {
    let mut scenario = ended(ACTIVE);
    set_status_manager(&mut scenario.resource, "kubectl-edit");
    scenario.crash();
    assert!(!scenario.is_idle(None));
    set_status_manager(&mut scenario.resource, MANAGER);
    assert!(scenario.is_idle(None));
    scenario.local = LocalState::from(IdleState::new(&scenario.resource, &scenario.local));
    assert!(scenario.is_idle(None));
    scenario.resource.status.as_mut().unwrap().completion_time = None;
    assert!(!scenario.is_idle(None), "forged under the operator's own name");
}

#[test]
fn final_status_that_an_editor_touched_is_verified_once() {
    for end in [ACTIVE, CREATE_FAILED] {
        let mut scenario = ended(end);
        let (reads, status) = (scenario.reads, scenario.status());
        scenario.crash();
        scenario.reconcile_untrusted();
        assert!(scenario.reads > reads);
        let (reads, version) = (scenario.reads, scenario.resource.metadata.resource_version.clone());
        scenario.crash();
        assert!(scenario.is_idle(None), "the operator has applied it");
        scenario.reconcile_until_idle();
        assert_eq!((scenario.reads, scenario.status()), (reads, status));
        assert_eq!(scenario.resource.metadata.resource_version, version);
    }
}
