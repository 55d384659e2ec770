//! Whose job it is, and what a status is worth that somebody else wrote.

use super::world::{FAILURE, World, failure};
use crate::api::conditions::Reason;
use crate::api::{ADOPT, DatasetImportJobStatus};
use crate::personalize::{ACTIVE, CREATE_FAILED, CREATE_PENDING, ErrorKind};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

#[test]
fn an_own_job_is_adopted_by_a_resource_that_knows_nothing_of_it() {
    for status in [CREATE_PENDING, ACTIVE, CREATE_FAILED] {
        let mut world = World::new();
        let (name, tags) = (world.request().job_name(1), world.request().own_tags());
        world.make_job(&name, status, tags);
        world.settle();
        assert!(world.accepted.is_empty());
        assert_eq!(world.status().status.as_deref(), Some(status));
        assert_eq!(world.status().attempts, Some(1));
    }
}

#[test]
fn a_resource_made_anew_finds_its_last_attempt() {
    let mut world = World::new();
    let (request, tags) = (world.request(), world.request().own_tags());
    world.make_job(&request.job_name(1), CREATE_FAILED, tags.clone());
    world.make_job(&request.job_name(2), ACTIVE, tags);
    world.settle();
    assert!(world.accepted.is_empty());
    assert_eq!((world.status().attempts, world.reason()), (Some(2), Reason::ImportSucceeded));
}

#[test]
fn a_foreign_job_is_never_adopted_unasked() {
    let mut other = World::new().request().own_tags();
    other[1].tag_value = "another".into();
    for tags in [vec![], other] {
        let mut world = World::new();
        let name = world.request().job_name(1);
        world.make_job(&name, ACTIVE, tags);
        world.settle();
        assert_eq!((world.reason(), world.conditions()), (Reason::JobNameConflict, FAILURE.map(String::from)));
        assert_eq!((world.accepted.len(), world.status().dataset_import_job_arn), (0, None));
        world.annotate(ADOPT, "true");
        world.settle();
        assert_eq!(world.reason(), Reason::ImportSucceeded);
    }
}

#[test]
fn not_even_a_person_can_make_it_adopt_another_request() {
    let mut world = World::new();
    let name = world.request().job_name(1);
    world.make_job(&name, ACTIVE, vec![]);
    world.jobs.get_mut(&name).unwrap().0.data_location = "s3://other/data.csv".into();
    world.annotate(ADOPT, "true");
    world.settle();
    assert_eq!(world.reason(), Reason::JobNameConflict);
    let message = world.status().conditions[0].message.clone();
    assert!(message.contains("dataSource.dataLocation is s3://other/data.csv"), "{message}");
}

#[test]
fn tags_that_can_not_be_read_prove_nothing() {
    let mut world = World::new();
    let (name, tags) = (world.request().job_name(1), world.request().own_tags());
    world.make_job(&name, ACTIVE, tags);
    world.tags = Some(failure(ErrorKind::AccessDenied));
    world.settle();
    assert_eq!(world.reason(), Reason::AccessDenied);
    assert_eq!(world.status().dataset_import_job_arn, None);
}

#[test]
fn a_forged_status_is_replaced_by_what_the_service_tells() {
    let mut world = World::new();
    let request = world.request();
    let forged = DatasetImportJobStatus {
        status: Some(ACTIVE.into()),
        attempts: Some(7),
        dataset_import_job_arn: Some(request.job_arn(6).0),
        completion_time: Some(Time(world.now)),
        ..Default::default()
    };
    world.job.status = Some(forged);
    world.pass(false, 100);
    assert_eq!(world.status().attempts, None);
    world.settle();
    assert_eq!((world.accepted.len(), world.reason()), (1, Reason::Pending));
}

#[test]
fn a_forged_success_that_names_a_job_the_service_does_not_know_is_not_vouched_for() {
    for (attempts, named) in [(None, 1), (Some(1), 1), (Some(5), 1), (Some(5), 5)] {
        let mut world = World::new();
        world.job.status = Some(DatasetImportJobStatus {
            status: Some(ACTIVE.into()),
            attempts,
            dataset_import_job_arn: Some(world.request().job_arn(named).0),
            completion_time: Some(Time(world.now)),
            ..Default::default()
        });
        world.pass(false, 100);
        assert_eq!((world.status().status, world.status().completion_time), (None, None));
        for _ in 0..3 {
            world.later();
            world.settle();
        }
        assert_eq!((world.reason(), world.accepted.len()), (Reason::JobNotFound, 0), "{attempts:?}");
    }
}
