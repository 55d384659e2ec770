//! The check of the data before the intent.

use super::scenario::{FAILURE, Scenario};
use crate::api::conditions::{DATA_CHECKED, Reason};
use crate::api::{DatasetImportJobSpec, Preflight, RECONCILE_REQUESTED_AT};
use crate::import::{DataCheck, ImportRequest};
use crate::personalize::{ErrorKind, ServiceError};
use crate::preflight::{Report, Schema};
use crate::testing::{service_error, spec};

fn invalid() -> Result<Report, ServiceError> {
    Ok(Report::of(Schema::parse("", None, None).unwrap_err()))
}

fn scenario(enforced: bool, report: Result<Report, ServiceError>) -> Scenario {
    Scenario { data: Some(DataCheck { enforced, report }), ..Scenario::new() }
}

/// The status and reason of the condition DataChecked.
fn data_checked(scenario: &Scenario) -> Option<(String, String)> {
    let conditions = scenario.status().conditions;
    conditions.into_iter().find(|c| c.type_ == DATA_CHECKED).map(|c| (c.status, c.reason))
}

#[test]
fn invalid_data_is_not_submitted_until_it_is_replaced() {
    let mut scenario = scenario(true, invalid());
    scenario.reconcile_until_idle();
    assert_eq!((scenario.reason(), scenario.conditions()), (Reason::DataInvalid, FAILURE.map(String::from)));
    assert_eq!(data_checked(&scenario), Some(("False".into(), "DataInvalid".into())));
    assert!(scenario.accepted.is_empty() && scenario.status().submission.is_none());
    let message = crate::api::conditions::ready_message(&scenario.status()).to_owned();
    assert!(message.contains("expected a schema in JSON"), "{message}");
    scenario.wait();
    scenario.reconcile_until_idle();
    assert_eq!(scenario.reason(), Reason::DataInvalid, "it is checked again");
    scenario.data = Some(DataCheck { enforced: true, report: Ok(Report::default()) });
    scenario.annotate(RECONCILE_REQUESTED_AT, "now");
    scenario.reconcile_until_idle();
    assert_eq!(scenario.accepted.len(), 1);
    assert_eq!(data_checked(&scenario), Some(("True".into(), "DataValid".into())));
}

#[test]
fn invalid_data_is_submitted_with_a_condition_if_the_check_only_warns() {
    let mut scenario = scenario(false, invalid());
    scenario.reconcile_until_idle();
    assert_eq!(scenario.accepted.len(), 1);
    assert_eq!(data_checked(&scenario), Some(("False".into(), "DataInvalid".into())));
}

#[test]
fn data_that_can_not_be_read_stops_only_an_enforced_check() {
    for kind in [ErrorKind::AccessDenied, ErrorKind::Indeterminate, ErrorKind::Credentials, ErrorKind::InvalidInput] {
        let mut warned = scenario(false, Err(service_error(kind)));
        warned.reconcile_until_idle();
        assert_eq!(warned.accepted.len(), 1, "{kind:?}");
        assert_eq!(data_checked(&warned), Some(("Unknown".into(), "NotChecked".into())));
        let mut enforced = scenario(true, Err(service_error(kind)));
        enforced.reconcile_until_idle();
        assert!(enforced.accepted.is_empty(), "{kind:?}");
    }
}

#[test]
fn unwanted_check_leaves_no_condition() {
    let mut scenario = Scenario::new();
    scenario.reconcile_until_idle();
    assert_eq!((scenario.accepted.len(), data_checked(&scenario)), (1, None));
}

#[test]
fn check_is_no_part_of_the_request() {
    let with = |preflight| {
        let spec = DatasetImportJobSpec { preflight, ..spec() };
        ImportRequest::new("shop", "nightly", &spec).unwrap().hash()
    };
    assert_eq!(with(None), with(Some(Preflight::Enforce)));
}
