//! Another attempt after a failed one.

use super::world::World;
use crate::api::conditions::Reason;
use crate::api::{DatasetImportJobSpec, RETRY_REQUESTED_AT};
use crate::import::request::tests::spec;
use crate::personalize::CREATE_FAILED;

#[test]
fn failed_jobs_are_retried_within_the_limit_and_not_beyond() {
    let mut world = World::with(DatasetImportJobSpec { backoff_limit: 2, ..spec() });
    for attempt in 1..=3 {
        world.later();
        world.settle();
        let name = world.request().job_name(attempt);
        world.end(&name, CREATE_FAILED);
        world.later();
        world.settle();
    }
    world.later();
    world.settle();
    assert_eq!(world.accepted, [1, 2, 3].map(|n| world.request().job_name(n)));
    assert_eq!((world.reason(), world.status().attempts), (Reason::ImportFailed, Some(3)));
    assert_eq!(world.status().failure_reason.as_deref(), Some("Invalid Data location."));
}

#[test]
fn a_new_retry_annotation_grants_one_more_attempt_and_never_fires_twice() {
    let mut world = World::new();
    world.annotate(RETRY_REQUESTED_AT, "before anything failed");
    for (attempt, value) in [(1, ""), (2, "first"), (3, "second")] {
        if !value.is_empty() {
            world.annotate(RETRY_REQUESTED_AT, value);
        }
        world.later();
        world.settle();
        world.later();
        world.settle();
        let name = world.request().job_name(attempt);
        assert_eq!(world.accepted.len(), usize::try_from(attempt).unwrap());
        world.end(&name, CREATE_FAILED);
        for _ in 0..3 {
            world.later();
            world.crash();
            world.settle();
        }
        assert_eq!(world.reason(), Reason::ImportFailed);
    }
    assert_eq!(world.accepted.len(), 3);
}

#[test]
fn a_fixed_name_can_not_be_retried_and_the_message_says_so() {
    let mut world = World::with(DatasetImportJobSpec { job_name: Some("fixed".into()), backoff_limit: 3, ..spec() });
    world.settle();
    world.end("fixed", CREATE_FAILED);
    world.annotate(RETRY_REQUESTED_AT, "please");
    world.later();
    world.settle();
    world.later();
    world.settle();
    assert_eq!((world.accepted.len(), world.reason()), (1, Reason::ImportFailed));
    assert!(world.status().conditions[0].message.contains("spec.jobName fixes the name"));
}
