//! Who owns a job, and what happens to a status that somebody else wrote.

use super::scenario::{FAILURE, Scenario};
use crate::api::conditions::Reason;
use crate::api::{ADOPT, DatasetImportJobStatus};
use crate::personalize::{ACTIVE, CREATE_FAILED, CREATE_PENDING, ErrorKind};
use crate::testing::service_error;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

#[test]
fn job_with_ownership_tags_is_adopted_by_a_new_resource() {
    for status in [CREATE_PENDING, ACTIVE, CREATE_FAILED] {
        let mut scenario = Scenario::new();
        let (name, tags) = (scenario.request().job_name(1), scenario.request().own_tags());
        scenario.add_job(&name, status, tags);
        scenario.reconcile_until_idle();
        assert!(scenario.accepted.is_empty());
        assert_eq!(scenario.status().status.as_deref(), Some(status));
        assert_eq!(scenario.status().attempts, Some(1));
    }
}

#[test]
fn recreated_resource_finds_its_last_attempt() {
    let mut scenario = Scenario::new();
    let (request, tags) = (scenario.request(), scenario.request().own_tags());
    scenario.add_job(&request.job_name(1), CREATE_FAILED, tags.clone());
    scenario.add_job(&request.job_name(2), ACTIVE, tags);
    scenario.reconcile_until_idle();
    assert!(scenario.accepted.is_empty());
    assert_eq!((scenario.status().attempts, scenario.reason()), (Some(2), Reason::ImportSucceeded));
}

#[test]
fn foreign_or_untagged_job_is_adopted_only_with_the_annotation() {
    let mut other = Scenario::new().request().own_tags();
    other[1].tag_value = "another".into();
    for tags in [vec![], other] {
        let mut scenario = Scenario::new();
        let name = scenario.request().job_name(1);
        scenario.add_job(&name, ACTIVE, tags);
        scenario.reconcile_until_idle();
        assert_eq!((scenario.reason(), scenario.conditions()), (Reason::JobNameConflict, FAILURE.map(String::from)));
        assert_eq!((scenario.accepted.len(), scenario.status().dataset_import_job_arn), (0, None));
        scenario.annotate(ADOPT, "true");
        scenario.reconcile_until_idle();
        assert_eq!(scenario.reason(), Reason::ImportSucceeded);
    }
}

#[test]
fn job_with_another_request_is_not_adopted_even_with_the_annotation() {
    let mut scenario = Scenario::new();
    let name = scenario.request().job_name(1);
    scenario.add_job(&name, ACTIVE, vec![]);
    scenario.jobs.get_mut(&name).unwrap().0.data_location = "s3://other/data.csv".into();
    scenario.annotate(ADOPT, "true");
    scenario.reconcile_until_idle();
    assert_eq!(scenario.reason(), Reason::JobNameConflict);
    let message = scenario.status().conditions[0].message.clone();
    assert!(message.contains("its request has another dataSource.dataLocation;"), "{message}");
}

#[test]
fn conflict_shows_no_value_of_the_other_job() {
    let mut scenario = Scenario::new();
    let name = scenario.request().job_name(1);
    scenario.add_job(&name, ACTIVE, vec![]);
    let job = &mut scenario.jobs.get_mut(&name).unwrap().0;
    job.dataset = "arn:aws:personalize:eu-west-1:123456789012:dataset/private/ITEMS".into();
    job.data_location = "s3://private/data.csv".into();
    job.role_arn = "arn:aws:iam::123456789012:role/Private".into();
    scenario.reconcile_until_idle();
    let message = scenario.status().conditions[0].message.clone();
    assert!(message.contains("another datasetArn, another dataSource.dataLocation, another roleArn;"), "{message}");
    assert!(!message.to_lowercase().contains("private"), "{message}");
}

#[test]
fn unreadable_tags_prove_no_ownership() {
    let mut scenario = Scenario::new();
    let (name, tags) = (scenario.request().job_name(1), scenario.request().own_tags());
    scenario.add_job(&name, ACTIVE, tags);
    scenario.tags_error = Some(service_error(ErrorKind::AccessDenied));
    scenario.reconcile_until_idle();
    assert_eq!(scenario.reason(), Reason::AccessDenied);
    assert_eq!(scenario.status().dataset_import_job_arn, None);
}

#[test]
fn forged_status_is_replaced_by_what_the_service_reports() {
    let mut scenario = Scenario::new();
    let request = scenario.request();
    let forged = DatasetImportJobStatus {
        status: Some(ACTIVE.into()),
        attempts: Some(7),
        dataset_import_job_arn: Some(request.job_arn(6).0),
        completion_time: Some(Time(scenario.now)),
        ..Default::default()
    };
    scenario.resource.status = Some(forged);
    scenario.reconcile_untrusted();
    assert_eq!(scenario.status().attempts, None);
    scenario.reconcile_until_idle();
    assert_eq!((scenario.accepted.len(), scenario.reason()), (1, Reason::Pending));
}

#[test]
fn forged_success_that_names_an_unknown_job_is_removed() {
    for (attempts, named) in [(None, 1), (Some(1), 1), (Some(5), 1), (Some(5), 5)] {
        let mut scenario = Scenario::new();
        scenario.resource.status = Some(DatasetImportJobStatus {
            status: Some(ACTIVE.into()),
            attempts,
            dataset_import_job_arn: Some(scenario.request().job_arn(named).0),
            completion_time: Some(Time(scenario.now)),
            ..Default::default()
        });
        scenario.reconcile_untrusted();
        assert_eq!((scenario.status().status, scenario.status().completion_time), (None, None));
        for _ in 0..3 {
            scenario.wait();
            scenario.reconcile_until_idle();
        }
        assert_eq!((scenario.reason(), scenario.accepted.len()), (Reason::JobNotFound, 0), "{attempts:?}");
    }
}
