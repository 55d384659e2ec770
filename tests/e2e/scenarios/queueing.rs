//! The queue: the quota, the datasets, fairness, restarts.

use crate::env::{Bed, eventually};
use crate::invariants::{accepted, judge};
use serde_json::{Value, json};

/// The most jobs that ran at once, by the stand-in's own count of its jobs' times.
fn most_at_once(jobs: &[Value]) -> usize {
    let span = |j: &Value| (j["createdMs"].as_i64().unwrap(), j["updatedMs"].as_i64().unwrap());
    let spans: Vec<_> = jobs.iter().map(span).collect();
    spans.iter().map(|(start, _)| spans.iter().filter(|(s, e)| s <= start && start < e).count()).max().unwrap_or(0)
}

#[test]
fn twenty_imports_never_run_more_than_five_at_once_and_go_by_age() {
    let bed = Bed::new();
    bed.service.durations(200, 400);
    for i in 0..20 {
        bed.import(&format!("r{i:02}"), &format!("d{i}"), json!({}));
    }
    let operator = bed.operator(&[]);
    let queued = bed.until("r19", "Queued");
    assert!(queued.conditions[0].message.contains("5 imports"), "{}", queued.conditions[0].message);
    for i in 0..20 {
        bed.until(&format!("r{i:02}"), "ImportSucceeded");
    }
    let ledger = bed.service.ledger();
    assert_eq!(accepted(&ledger).len(), 20);
    assert!(most_at_once(&bed.service.jobs()) <= 5);
    let refused = ledger.iter().filter(|l| l["errorCode"] == "LimitExceededException").count();
    assert_eq!(refused, 0, "the quota is kept, not run into");
    assert_eq!(judge(&ledger, &bed.writes()), Vec::<String>::new());
    assert!(operator.stop());
}

#[test]
fn two_datasets_take_one_import_at_a_time_each_in_order() {
    let bed = Bed::new();
    bed.service.durations(100, 200);
    let _operator = bed.operator(&[]);
    for i in 0..8 {
        bed.import(&format!("r{i}"), &format!("d{}", i % 2), json!({}));
    }
    for i in 0..8 {
        bed.until(&format!("r{i}"), "ImportSucceeded");
    }
    let jobs = bed.service.jobs();
    for dataset in ["d0", "d1"] {
        let of: Vec<Value> = jobs
            .iter()
            .filter(|j| j["datasetArn"].as_str().unwrap().ends_with(&format!("/{dataset}")))
            .cloned()
            .collect();
        assert_eq!(of.len(), 4);
        assert_eq!(most_at_once(&of), 1, "{dataset}");
    }
    assert_eq!(judge(&bed.service.ledger(), &bed.writes()), Vec::<String>::new());
}

#[test]
fn the_queue_is_right_after_a_restart() {
    let bed = Bed::new();
    bed.service.durations(100, 600_000);
    let operator = bed.operator(&[]);
    for i in 0..12 {
        bed.import(&format!("r{i:02}"), &format!("d{i}"), json!({}));
    }
    eventually("five run", || (bed.service.running() == 5).then_some(()));
    operator.kill();
    let _operator = bed.operator(&[]);
    bed.until("r11", "Queued");
    assert_eq!(bed.service.running(), 5);
    bed.service.durations(100, 200);
    for i in 0..12 {
        bed.until(&format!("r{i:02}"), "ImportSucceeded");
    }
    let ledger = bed.service.ledger();
    assert_eq!(accepted(&ledger).len(), 12);
    assert_eq!(ledger.iter().filter(|l| l["errorCode"] == "LimitExceededException").count(), 0);
    assert_eq!(judge(&ledger, &bed.writes()), Vec::<String>::new());
}

#[test]
fn jobs_started_elsewhere_count_and_a_stuck_head_holds_nobody_up() {
    let bed = Bed::new();
    let foreign = |i: u32| {
        json!({"name": format!("foreign-{i}"), "datasetArn": crate::env::dataset_arn(&format!("d{}", 20 + i)), "dataLocation": "s3://bucket/interactions.csv",
               "roleArn": crate::env::ROLE, "status": "CREATE IN_PROGRESS", "hold": true})
    };
    (0..5).for_each(|i| bed.service.put_job(&foreign(i)));
    let _operator = bed.operator(&[]);
    bed.import("a-suspended", "d0", json!({"suspend": true}));
    bed.import("b-busy-dataset", "d20", json!({}));
    bed.import("c-free", "d1", json!({}));
    bed.until("b-busy-dataset", "Queued");
    let full = bed.until("c-free", "Queued");
    eventually("it says that the quota is full", || {
        bed.status("c-free").conditions[0].message.contains("as many imports as it allows").then_some(())
    });
    assert_eq!(full.dataset_import_job_arn, None);
    // One ends, of another dataset: the head that can't go holds nobody up.
    bed.service.finish("foreign-4");
    bed.until("c-free", "ImportSucceeded");
    assert_eq!(accepted(&bed.service.ledger()).len(), 1);
    (0..4).for_each(|i| bed.service.finish(&format!("foreign-{i}")));
    bed.until("b-busy-dataset", "ImportSucceeded");
}

#[test]
fn regions_have_quotas_of_their_own() {
    let bed = Bed::new();
    bed.service.durations(100, 600_000);
    let _operator = bed.operator(&["--max-in-flight=1"]);
    bed.import("here", "d0", json!({}));
    bed.import("there", "d0", json!({"datasetArn": crate::env::dataset_arn("d0").replace("eu-west-1", "us-east-1")}));
    bed.until("here", "Importing");
    bed.until("there", "Importing");
    bed.service.durations(1, 1);
    bed.until("there", "ImportSucceeded");
}

#[test]
fn with_a_quota_of_one_a_head_whose_dataset_is_busy_elsewhere_holds_nobody_up() {
    let bed = Bed::new();
    bed.service.put_job(&json!({"name": "foreign", "datasetArn": crate::env::dataset_arn("d20"), "status": "CREATE IN_PROGRESS", "hold": true}));
    let _operator = bed.operator(&["--max-in-flight=1", "--backoff-min=5s", "--backoff-max=5s"]);
    bed.import("a-busy-dataset", "d20", json!({}));
    bed.until("a-busy-dataset", "Queued");
    bed.import("b-free", "d1", json!({}));
    bed.until("b-free", "ImportSucceeded");
    bed.service.finish("foreign");
    bed.until("a-busy-dataset", "ImportSucceeded");
}

#[test]
fn a_deleted_head_makes_room_for_the_next() {
    let bed = Bed::new();
    bed.service.durations(100, 600_000);
    let _operator = bed.operator(&["--max-in-flight=1"]);
    bed.import("a", "d0", json!({}));
    bed.until("a", "Importing");
    bed.import("b", "d1", json!({}));
    bed.until("b", "Queued");
    bed.delete("a");
    bed.until("b", "Importing");
}
