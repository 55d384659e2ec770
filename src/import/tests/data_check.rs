//! The check of the data before the intent.

use super::scenario::{FAILURE, Scenario};
use crate::api::conditions::{DATA_CHECKED, Reason};
use crate::api::{DatasetImportJobSpec, Guard, ImportedData, Preflight, RECONCILE_REQUESTED_AT, RELEASE_GUARD};
use crate::import::request::imported_data;
use crate::import::timing::{after, since};
use crate::import::{DataCheck, ImportRequest};
use crate::personalize::{ACTIVE, ErrorKind, JobSummary, ServiceError};
use crate::preflight::{Report, Schema};
use crate::testing::{job_summary, service_error, spec, timing};
use jiff::Timestamp;
use proptest::prelude::*;

fn invalid() -> Result<Report, ServiceError> {
    Ok(Report::of(Schema::parse("", None, None).unwrap_err()))
}

fn scenario(enforced: bool, report: Result<Report, ServiceError>) -> Scenario {
    let data = report.as_ref().map(|report| report.data.clone()).map_err(Clone::clone);
    Scenario { data: Some(DataCheck { enforced, data, report: Some(report) }), ..Scenario::new() }
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
    scenario.data = self::scenario(true, Ok(Report::default())).data;
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

fn data(bytes: i64) -> ImportedData {
    ImportedData { files: 1, bytes, fingerprint: format!("of-{bytes}") }
}

/// A FULL import of this many bytes with this guard, after one of the others.
fn guarded(guard: Guard, bytes: i64, last: Option<i64>) -> Scenario {
    let mut scenario = Scenario::with(DatasetImportJobSpec { guard: Some(guard), ..spec() });
    scenario.data = Some(DataCheck { enforced: false, data: Ok(data(bytes)), report: None });
    if let Some(last) = last {
        let older = since(Timestamp::UNIX_EPOCH, scenario.now) / 2;
        let created = Some(after(Timestamp::UNIX_EPOCH, older));
        let mut summary = |name: &str, import_mode: Option<&str>, age: u32, bytes| {
            let created = created.map(|at| at - std::time::Duration::from_secs(60) * age);
            let import_mode = import_mode.map(str::to_owned);
            scenario.other_jobs.push(JobSummary { created, import_mode, ..job_summary(name, ACTIVE) });
            scenario.requested_at.insert(name.into(), Ok(None));
            scenario.imported.insert(name.into(), data(bytes));
        };
        summary("older", Some("FULL"), 9, 1_000_000);
        summary("last", Some("FULL"), 5, last);
        summary("increment", Some("INCREMENTAL"), 1, 1);
    }
    scenario
}

const HALF: Guard = Guard { min_bytes: None, max_shrink_percent: Some(50) };

#[test]
fn guard_holds_data_that_has_shrunk_until_it_is_released_and_no_other_data() {
    let mut scenario = guarded(HALF, 499, Some(1000));
    scenario.reconcile_until_idle();
    assert_eq!((scenario.reason(), scenario.conditions()), (Reason::GuardTripped, FAILURE.map(String::from)));
    let message = crate::api::conditions::ready_message(&scenario.status()).to_owned();
    for part in ["499 bytes in 1 file, the last import had 1000 bytes in 1 file", "release-guard to of-499"] {
        assert!(message.contains(part), "{message}");
    }
    scenario.annotate(RELEASE_GUARD, "of-498");
    scenario.reconcile_until_idle();
    assert!(scenario.accepted.is_empty(), "other data is released");
    scenario.annotate(RELEASE_GUARD, "of-499");
    scenario.reconcile_until_idle();
    assert_eq!((scenario.accepted.len(), scenario.status().data), (1, Some(data(499))));
    let mut large_enough = guarded(HALF, 500, Some(1000));
    large_enough.reconcile_until_idle();
    assert_eq!(large_enough.accepted.len(), 1);
}

#[test]
fn data_of_unknown_size_is_held() {
    let mut scenario = guarded(HALF, 0, None);
    scenario.data =
        Some(DataCheck { enforced: false, data: Err(service_error(ErrorKind::AccessDenied)), report: None });
    scenario.reconcile_until_idle();
    assert_eq!((scenario.reason(), scenario.accepted.len()), (Reason::AccessDenied, 0));
}

#[test]
fn data_that_was_not_submitted_is_listed_rarely_and_submitted_when_it_has_changed() {
    for mut scenario in [guarded(HALF, 1, Some(1000)), scenario(true, invalid())] {
        for _ in 0..6 {
            scenario.reconcile_until_idle();
            scenario.wait();
        }
        let (reason, finished) = (scenario.reason(), scenario.reconcile());
        assert!(finished.requeue_after.unwrap() <= timing().list_interval(), "before the backoff ends");
        assert_eq!(scenario.lists, 0, "not at each reconcile");
        let checked = scenario.data.clone();
        for lists in 1..=3 {
            scenario.now = after(scenario.now, timing().list_interval());
            scenario.data.as_mut().unwrap().report = None;
            scenario.reconcile();
            scenario.reconcile();
            assert_eq!((scenario.lists, scenario.reason()), (lists, reason));
        }
        scenario.listed.push(Err(service_error(ErrorKind::Indeterminate)));
        scenario.data = checked.map(|check| DataCheck { data: Ok(data(1001)), report: None, ..check });
        scenario.now = after(scenario.now, timing().list_interval());
        scenario.reconcile();
        assert!(scenario.accepted.is_empty(), "a list that fails changes nothing");
        scenario.now = after(scenario.now, timing().list_interval());
        scenario.reconcile();
        assert_eq!(
            (scenario.accepted.len(), scenario.lists),
            (1, 6),
            "{reason:?}: and once more after the create call"
        );
    }
}

#[test]
fn data_that_changes_while_it_is_submitted_is_reported_once() {
    let mut scenario = scenario(false, Ok(Report::default()));
    scenario.listed.push(Ok(data(7)));
    scenario.reconcile_until_idle();
    assert_eq!((scenario.accepted.len(), scenario.lists), (1, 1));
    assert_eq!(data_checked(&scenario), Some(("Unknown".into(), "DataChanged".into())));
    assert_eq!(scenario.status().data, Some(ImportedData::default()), "what was listed before");
    let mut same = self::scenario(false, Ok(Report::default()));
    same.reconcile_until_idle();
    assert_eq!((same.lists, data_checked(&same)), (1, Some(("True".into(), "DataValid".into()))));
    assert_eq!(same.written.len() + 1, scenario.written.len(), "unchanged data costs no write");
}

#[test]
fn guard_does_not_change_the_request() {
    let with = |guard| ImportRequest::new("shop", "nightly", &DatasetImportJobSpec { guard, ..spec() }).unwrap();
    assert_eq!(with(None).hash(), with(Some(HALF)).hash());
}

#[test]
fn tag_of_the_data_is_left_out_of_a_full_set() {
    let mut request = ImportRequest::new("shop", "nightly", &spec()).unwrap();
    let tag = request.create_input(1, Some(&data(7))).tags.pop().unwrap();
    assert_eq!(tag.tag_value, "bytes=7 files=1 fingerprint=of-7");
    request.tags = (0..47).map(|i| crate::api::Tag { tag_key: format!("k{i}"), ..tag.clone() }).collect();
    assert_eq!(request.create_input(1, Some(&data(7))).tags.len(), 50);
}

proptest! {
    #[test]
    fn guard_holds_only_data_that_shrank(
        last in 1000_i64..1 << 50, part in 0_i64..500, growth in 1000_i64..5000, max in 0..=50_i32,
    ) {
        let guard = Guard { min_bytes: None, max_shrink_percent: Some(max) };
        let submits = |bytes: i64, last| {
            let mut scenario = guarded(guard, bytes, last);
            scenario.reconcile_until_idle();
            scenario.accepted.len() == 1
        };
        prop_assert!(!submits(last / 1000 * part, Some(last)), "truncated or half-uploaded");
        prop_assert!(!submits(0, Some(last)), "empty");
        prop_assert!(submits(last / 1000 * growth + last % 1000, Some(last)), "grown");
        prop_assert!(submits(last / 1000 * part, None), "the first");
        let least = Guard { min_bytes: Some(last), max_shrink_percent: None };
        for (bytes, held) in [(last - 1, true), (last, false)] {
            let mut scenario = guarded(least, bytes, None);
            scenario.reconcile_until_idle();
            prop_assert_eq!(scenario.accepted.is_empty(), held);
        }
    }

    #[test]
    fn data_survives_its_tag(files in 0..i64::MAX, bytes in 0..i64::MAX, fingerprint in "[0-9a-f]{32}") {
        let data = ImportedData { files, bytes, fingerprint };
        let request = ImportRequest::new("shop", "nightly", &spec()).unwrap();
        prop_assert_eq!(imported_data(&request.create_input(1, Some(&data)).tags), Some(data));
        prop_assert_eq!(imported_data(&request.create_input(1, None).tags), None);
    }
}
