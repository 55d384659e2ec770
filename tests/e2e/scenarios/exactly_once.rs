//! Exactly once: crashes, lost answers, adoption, conflicts, two operators.

use crate::env::{Bed, Operator, eventually};
use crate::invariants::{accepted, judge};
use serde_json::{Value, json};

fn one(bed: &Bed) {
    let ledger = bed.service.ledger();
    assert_eq!(accepted(&ledger).len(), 1, "{:?}", accepted(&ledger));
    assert_eq!(judge(&ledger, &bed.writes()), Vec::<String>::new());
}

/// Kills the operator as soon as the condition holds, and starts another in its place.
fn kill_when(bed: &Bed, operator: Operator, what: &str, condition: impl Fn() -> bool) -> Operator {
    eventually(what, || condition().then_some(()));
    operator.kill();
    bed.operator(&[])
}

#[test]
fn killed_while_create_is_under_way() {
    let bed = Bed::new();
    // The service has the call and answers nothing, so that the kill meets that moment.
    bed.service.fault(
        &json!({"operation": "CreateDatasetImportJob", "count": 1, "action": {"silenceBeforeHeaders": {"effect": false}}}),
    );
    let operator = bed.operator(&[]);
    bed.import("nightly", "d0", json!({}));
    let _operator =
        kill_when(&bed, operator, "the call is under way", || bed.service.calls("CreateDatasetImportJob") == 1);
    assert!(bed.status("nightly").dataset_import_job_arn.is_none() || accepted(&bed.service.ledger()).len() == 1);
    bed.until("nightly", "ImportSucceeded");
    one(&bed);
}

#[test]
fn killed_between_create_and_status() {
    let bed = Bed::new();
    bed.service.fault(
        &json!({"operation": "CreateDatasetImportJob", "count": 1, "action": {"silenceAfterHeaders": {"effect": true}}}),
    );
    let operator = bed.operator(&[]);
    bed.import("nightly", "d0", json!({}));
    let _operator =
        kill_when(&bed, operator, "the service has taken the job", || accepted(&bed.service.ledger()).len() == 1);
    bed.until("nightly", "ImportSucceeded");
    one(&bed);
}

#[test]
fn every_kind_of_lost_answer_is_looked_up() {
    let bed = Bed::new();
    let _operator = bed.operator(&[]);
    let actions: [Value; 10] = [
        json!({"error": {"code": "InternalFailure", "status": 500}}),
        json!({"errorAfter": {"code": "InternalFailure", "status": 500}}),
        json!({"errorAfter": {"code": "ServiceUnavailable", "status": 503}}),
        json!("resetBefore"),
        json!("resetAfter"),
        json!({"silenceBeforeHeaders": {"effect": false}}),
        json!({"silenceAfterHeaders": {"effect": true}}),
        json!("cutBody"),
        json!("garbage"),
        json!("noArn"),
    ];
    for (i, action) in actions.iter().enumerate() {
        let name = format!("lost-{i}");
        bed.service.fault(&json!({"operation": "CreateDatasetImportJob", "name": name, "count": 1, "action": action}));
        bed.import(&name, &format!("d{i}"), json!({}));
    }
    for i in 0..actions.len() {
        bed.until(&format!("lost-{i}"), "ImportSucceeded");
    }
    let ledger = bed.service.ledger();
    assert_eq!(accepted(&ledger).len(), actions.len());
    assert_eq!(judge(&ledger, &bed.writes()), Vec::<String>::new());
}

#[test]
fn a_resource_made_anew_adopts_its_job_in_flight_and_finished() {
    let bed = Bed::new();
    bed.service.durations(100, 3000);
    let _operator = bed.operator(&[]);
    bed.import("nightly", "d0", json!({}));
    bed.until("nightly", "Importing");
    let first = bed.get("nightly").and_then(|j| j.metadata.uid);
    bed.delete("nightly");
    bed.import("nightly", "d0", json!({}));
    assert_ne!(bed.get("nightly").and_then(|j| j.metadata.uid), first);
    bed.until("nightly", "ImportSucceeded");
    eventually("an event tells of the adoption", || {
        bed.events("nightly").contains(&"Adopted".to_owned()).then_some(())
    });
    bed.delete("nightly");
    bed.import("nightly", "d0", json!({}));
    bed.until("nightly", "ImportSucceeded");
    one(&bed);
}

#[test]
fn a_foreign_job_is_a_conflict_until_a_person_adopts_it() {
    let bed = Bed::new();
    let mut foreign = json!({
        "name": "weekly", "datasetArn": crate::env::dataset_arn("d0"), "dataLocation": "s3://bucket/interactions.csv",
        "roleArn": crate::env::ROLE,
    });
    bed.service.put_job(&foreign);
    let _operator = bed.operator(&[]);
    bed.import("weekly", "d0", json!({"jobName": "weekly"}));
    let status = bed.until("weekly", "JobNameConflict");
    assert_eq!(status.dataset_import_job_arn, None);
    bed.annotate("weekly", "personalize-operator.io/adopt=true");
    bed.until("weekly", "ImportSucceeded");
    foreign["name"] = "other".into();
    foreign["dataLocation"] = "s3://bucket/else.csv".into();
    bed.service.put_job(&foreign);
    bed.import("other", "d0", json!({"jobName": "other"}));
    bed.annotate("other", "personalize-operator.io/adopt=true");
    let status = bed.until("other", "JobNameConflict");
    assert!(status.conditions[0].message.contains("s3://bucket/else.csv"), "{}", status.conditions[0].message);
    assert_eq!(accepted(&bed.service.ledger()).len(), 0);
}

#[test]
fn two_resources_with_one_job_name_make_one_job() {
    let bed = Bed::new();
    let _operator = bed.operator(&[]);
    bed.import("a", "d0", json!({"jobName": "shared"}));
    bed.until("a", "ImportSucceeded");
    bed.import("b", "d0", json!({"jobName": "shared"}));
    let conflict = bed.until("b", "JobNameConflict");
    let told = &conflict.conditions[0].message;
    assert!(told.contains("belongs to the DatasetImportJob a"), "{told}");
    one(&bed);
}

#[test]
fn two_operators_at_once_make_one_job_each_time() {
    let bed = Bed::new();
    // Without election both work on everything: the protocol alone has to hold.
    let _both = [bed.operator(&["--leader-elect=false"]), bed.operator(&["--leader-elect=false"])];
    for i in 0..8 {
        bed.import(&format!("r{i}"), &format!("d{i}"), json!({}));
    }
    for i in 0..8 {
        bed.until(&format!("r{i}"), "ImportSucceeded");
    }
    let ledger = bed.service.ledger();
    assert_eq!(accepted(&ledger).len(), 8);
    let faults: Vec<String> = judge(&ledger, &bed.writes());
    assert_eq!(faults, Vec::<String>::new());
}

#[test]
fn of_two_replicas_one_leads_and_the_other_takes_over() {
    let bed = Bed::new();
    let first = bed.operator(&["--identity=first"]);
    let second = bed.operator(&["--identity=second"]);
    bed.import("a", "d0", json!({}));
    bed.until("a", "ImportSucceeded");
    assert!(second.ready(), "who stands by is ready");
    assert!(!second.log().contains("submitting the import"));
    first.kill();
    bed.import("b", "d1", json!({}));
    bed.until("b", "ImportSucceeded");
    assert!(second.log().contains("submitting the import"));
    assert_eq!(judge(&bed.service.ledger(), &bed.writes()), Vec::<String>::new());
}

#[test]
fn deleted_in_flight_it_is_gone_at_once_and_the_job_goes_on() {
    let bed = Bed::new();
    bed.service.durations(100, 600_000);
    let operator = bed.operator(&[]);
    bed.import("nightly", "d0", json!({}));
    bed.until("nightly", "Importing");
    bed.delete("nightly");
    assert!(bed.get("nightly").is_none());
    assert_eq!(bed.service.running(), 1);
    // The job counts: nothing else goes into its dataset.
    bed.import("other", "d0", json!({}));
    let queued = bed.until("other", "Queued");
    assert!(queued.conditions[0].message.contains("same dataset"), "{}", queued.conditions[0].message);
    bed.service.durations(1, 1);
    bed.until("other", "ImportSucceeded");
    assert!(operator.stop());
    assert_eq!(accepted(&bed.service.ledger()).len(), 2);
}

#[test]
fn a_restart_over_finished_resources_asks_and_writes_nothing() {
    let bed = Bed::new();
    let operator = bed.operator(&[]);
    for i in 0..5 {
        bed.import(&format!("good-{i}"), &format!("d{i}"), json!({}));
        bed.import(
            &format!("bad-{i}"),
            &format!("d{}", i + 10),
            json!({"dataSource": {"dataLocation": "s3://bucket/few.csv"}}),
        );
    }
    for i in 0..5 {
        bed.until(&format!("good-{i}"), "ImportSucceeded");
        bed.until(&format!("bad-{i}"), "ImportFailed");
    }
    assert!(operator.stop());
    let (calls, writes) = (bed.service.ledger().len(), bed.writes().len());
    let operator = bed.operator(&[]);
    // A resource that comes last is done when all before it were looked at.
    bed.import("last", "d20", json!({}));
    bed.until("last", "ImportSucceeded");
    let new = bed.service.ledger();
    let about_others = new[calls..]
        .iter()
        .filter(|line| !line.to_string().contains("last-") && !line.to_string().contains("/d20"))
        .count();
    assert_eq!(about_others, 0, "{:?}", &new[calls..]);
    let names = bed.writes()[writes..].iter().filter(|w| w["objectRef"]["name"] != "last").count();
    assert_eq!(names, 0);
    assert!(operator.stop());
}
