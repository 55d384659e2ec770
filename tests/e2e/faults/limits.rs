//! How much is asked of a service that has no room, says too much, or takes its time.

use super::service::{error, fault, ready};
use super::{CREATE, DESCRIBE, made_once, nightly};
use crate::env::proxy::Fate;
use crate::env::{Bed, ROLE, dataset_arn, eventually};
use crate::invariants::of_operator;
use personalize_operator::import::request::ImportRequest;
use regex::Regex;
use serde_json::{Value, json};

/// The seconds between one create that was refused with this code and the next.
fn gaps(bed: &Bed, code: &str) -> Vec<f64> {
    let ledger = bed.service.ledger();
    let of = ledger.iter().filter(|l| l["operation"] == CREATE && l["errorCode"] == code);
    let times: Vec<jiff::Timestamp> = of.map(|l| l["time"].as_str().unwrap().parse().unwrap()).collect();
    times.windows(2).map(|w| w[1].duration_since(w[0]).as_secs_f64()).collect()
}

/// The names of the jobs that were refused with this code, in order.
fn refusals(bed: &Bed, code: &str) -> Vec<String> {
    let ledger = bed.service.ledger();
    let of = ledger.iter().filter(|l| l["operation"] == CREATE && l["errorCode"] == code);
    of.map(|l| l["jobName"].as_str().unwrap().to_owned()).collect()
}

/// Three imports meet a service that has no room, and then has. They may all find that out at once; from then on
/// the first in the line tries for all, ever more rarely.
fn one_tries_for_all(bed: &Bed, code: &str, message: &str, make_room: impl FnOnce()) {
    for (name, dataset) in [("a", "d0"), ("b", "d1"), ("c", "d2")] {
        bed.import(name, dataset, json!({}));
    }
    let _operator = bed.operator(&[]);
    for name in ["a", "b", "c"] {
        bed.until_told(name, message);
        assert_eq!(ready(&bed.status(name)).0, "Unknown", "waiting is not failing");
    }
    eventually("it is tried again and again", || (gaps(bed, code).len() >= 7).then_some(()));
    let gaps = gaps(bed, code);
    // Each delay is spread over half to the whole of its length; a slow machine only adds to it.
    assert!(gaps[2] >= 0.4 && gaps[3..].iter().all(|gap| *gap >= 0.5), "{gaps:?}");
    let refused = refusals(bed, code);
    assert!(refused[3..].iter().all(|name| name.starts_with("a-")), "the first in the line tries: {refused:?}");
    make_room();
    for name in ["a", "b", "c"] {
        bed.until(name, "ImportSucceeded");
    }
    assert_eq!(bed.accepted(), 3);
    bed.judged_settled();
}

#[test]
fn fault_35_limit_exceeded_as_quota() {
    let bed = Bed::new();
    // Others use all that the service allows.
    for i in 10..15 {
        bed.service.put_job(&json!({"name": format!("theirs-{i}"), "datasetArn": dataset_arn(&format!("d{i}")),
            "status": "CREATE IN_PROGRESS", "hold": true}));
    }
    one_tries_for_all(&bed, "LimitExceededException", "imports", || {
        (10..15).for_each(|i| bed.service.finish(&format!("theirs-{i}")));
    });
}

#[test]
fn fault_36_throttling_exception() {
    let bed = Bed::new();
    bed.service.fault(&fault(CREATE, 0, &error("ThrottlingException", "Rate exceeded", 400)));
    one_tries_for_all(&bed, "ThrottlingException", "the service slows", || bed.service.clear_faults());
}

/// Listings are answered with no job and with this token for the next page, made of how many there were. Tells how
/// many pages each of the first two tries read, and how many jobs a listing may have, as the log tells it.
fn endless(token: fn(usize) -> String) -> ([usize; 2], usize) {
    let bed = Bed::new();
    let proxy = bed.proxy();
    proxy.rule(move |call| match call.label.as_str() {
        "ListDatasetImportJobs" => {
            let page = json!({"datasetImportJobs": [], "nextToken": token(call.nth)});
            Fate::Answer(200, vec![], page.to_string())
        }
        _ => Fate::Pass,
    });
    let operator = bed.operator_behind(&proxy, &[]);
    nightly(&bed);
    bed.until_told("nightly", "other imports");
    assert_eq!(ready(&bed.status("nightly")).0, "Unknown");
    let tries = || {
        let calls = proxy.calls();
        let pages: Vec<_> = calls.iter().filter(|call| call.label == "ListDatasetImportJobs").collect();
        // A try begins where no token is given.
        pages
            .iter()
            .enumerate()
            .filter(|(_, call)| !call.body.contains("nextToken"))
            .map(|(i, _)| i)
            .collect::<Vec<_>>()
    };
    eventually("it has begun a third time", || (tries().len() > 2).then_some(()));
    let begins = tries();
    assert_eq!(bed.service.calls(CREATE), 0, "without a whole list nothing is submitted");
    proxy.pass();
    made_once(&bed);
    let bound = Regex::new(r"within (\d+) jobs").unwrap();
    let bound = bound.captures(&operator.log()).unwrap()[1].parse().unwrap();
    ([begins[1] - begins[0], begins[2] - begins[1]], bound)
}

#[test]
fn fault_59_endless_pagination() {
    // Each page promises another.
    let (pages, jobs) = endless(|nth| format!("page-{nth}"));
    assert_eq!(pages, [jobs / 100; 2], "each try ends at the bound");
}

#[test]
fn fault_59_a_page_that_leads_back_to_itself() {
    let (pages, _) = endless(|_| "the same".into());
    assert_eq!(pages, [2, 2], "no token is followed twice");
}

#[test]
fn fault_60_pending_for_days() {
    let bed = Bed::new();
    let manifest = Bed::manifest("nightly", "d0", json!({}));
    let spec = serde_json::from_value(manifest["spec"].clone()).unwrap();
    let request = ImportRequest::new(&bed.namespace, "nightly", &spec).unwrap();
    // Its job was taken three days ago and still waits.
    let created = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(72);
    bed.service.put_job(&json!({
        "name": request.job_name(1), "datasetArn": dataset_arn("d0"), "dataLocation": "s3://bucket/interactions.csv",
        "roleArn": ROLE, "status": "CREATE PENDING", "createdAt": created, "hold": true, "tags": request.own_tags(),
    }));
    let _operator = bed.operator(&["--poll-min=100ms", "--poll-max=1s"]);
    nightly(&bed);
    let pending = bed.until("nightly", "Pending");
    let looks = || {
        let ledger = bed.service.ledger();
        let of = |l: &&Value| l["operation"] == DESCRIBE && l["errorCode"].is_null();
        ledger.iter().filter(of).map(|l| l["time"].as_str().unwrap().parse().unwrap()).collect::<Vec<jiff::Timestamp>>()
    };
    eventually("it is looked at again and again", || (looks().len() >= 4).then_some(()));
    let gaps: Vec<f64> = looks().windows(2).map(|w| w[1].duration_since(w[0]).as_secs_f64()).collect();
    assert!(gaps.iter().all(|gap| *gap > 0.9), "at its age it is looked at as rarely as may be: {gaps:?}");
    assert_eq!(of_operator(&bed.writes()).count(), 1, "a look that brings nothing new writes nothing");
    assert_eq!(bed.status("nightly"), pending);
    bed.service.finish(&request.job_name(1));
    bed.until("nightly", "ImportSucceeded");
    assert_eq!(bed.service.calls(CREATE), 0, "it is never sent again");
    bed.judged_settled();
}
