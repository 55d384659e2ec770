//! Many resources at once.

use super::{DESCRIBE, another_plane, passes};
use crate::env::{Bed, block_on, eventually, install_crd};
use crate::invariants::{accepted, judge, writes_after};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::api::{ListParams, PostParams};
use personalize_operator::api::conditions::{self, Reason};
use personalize_operator::api::{DatasetImportJob, DatasetImportJobStatus};
use personalize_operator::import::request::ImportRequest;
use serde_json::json;
use std::collections::HashSet;
use std::time::Duration;

/// The most memory that an operator may take here, in kB.
const MOST_MEMORY: u64 = 250_000;

/// The operator's flags here: on a busy machine a thousand passes take a while, and none must be taken
/// for lost. Who waits looks by itself at twice the longest backoff; a thousand that do so every second
/// would leave no time for others.
const PATIENT: [&str; 8] = [
    "--backoff-max=5m",
    "--identity=one",
    "--concurrency=32",
    "--lease-duration=60s",
    "--kube-timeout=30s",
    "--aws-connect-timeout=30s",
    "--aws-read-timeout=30s",
    "--aws-timeout=30s",
];

/// Makes resources through the API itself, many at once, with this status if there is one.
fn make(bed: &Bed, count: usize, status: fn(&DatasetImportJob) -> Option<DatasetImportJobStatus>) {
    let api = bed.api();
    let params = PostParams { field_manager: Some("personalize-operator".into()), ..PostParams::default() };
    let one = move |i: usize| {
        let (api, params) = (api.clone(), params.clone());
        async move {
            let manifest = Bed::manifest(&format!("r{i:05}"), &format!("d{}", i % 30), json!({}));
            let made = api.create(&params, &serde_json::from_value(manifest).unwrap()).await?;
            if let Some(status) = status(&made) {
                let job = DatasetImportJob { status: Some(status), ..made };
                api.replace_status(&job.name_any(), &params, &job).await?;
            }
            Ok::<_, kube::Error>(())
        }
    };
    block_on(futures::stream::iter(0..count).map(one).buffer_unordered(24).try_collect::<()>()).unwrap();
}

fn finished(job: &DatasetImportJob) -> Option<DatasetImportJobStatus> {
    let now = jiff::Timestamp::from_second(1_790_000_000).unwrap();
    let request = ImportRequest::new(&job.namespace()?, &job.name_any(), &job.spec).unwrap();
    let mut status = DatasetImportJobStatus {
        status: Some("ACTIVE".into()),
        job_name: Some(request.job_name(1)),
        dataset_import_job_arn: Some(request.job_arn(1).0),
        attempts: Some(1),
        completion_time: Some(Time(now)),
        ..DatasetImportJobStatus::default()
    };
    conditions::set(&mut status, 1, Reason::ImportSucceeded, "the data is in the dataset", now);
    Some(status)
}

/// The memory that a process takes, in kB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn fault_72_10_000_finished_resources_at_start() {
    // Its audit log would be read by every other test.
    let plane = another_plane("masses");
    install_crd(plane);
    let bed = Bed::on(plane);
    make(&bed, 10_000, finished);
    let before = std::fs::metadata(plane.audit_log()).unwrap().len();
    assert!(before > 20_000 * 1000, "the audit log tells of them all: {before} bytes");
    let operator = bed.operator(&PATIENT);
    bed.import("last", "d29", json!({"suspend": true}));
    bed.until("last", "Suspended");
    assert_eq!(bed.service.ledger().len(), 0, "no call to AWS");
    let writes = writes_after(&plane.audit_log(), before, &bed.namespace);
    assert!(!writes.is_empty());
    assert!(writes.iter().all(|w| w["objectRef"]["name"] == "last"), "no write");
    bed.judged_by(judge(&bed.service.ledger(), &writes));
    let memory = resident(operator.pid());
    assert!(memory < MOST_MEMORY, "{memory} kB for 10,000 resources");
    operator.kill();
    plane.shutdown();
}

/// The jobs that were asked about, from this line of the ledger on.
fn asked_about(bed: &Bed, from: usize) -> usize {
    // To read a ledger of thousands of lines again and again would slow down what is waited for.
    std::thread::sleep(Duration::from_millis(500));
    let ledger = bed.service.ledger();
    let described = ledger[from..].iter().filter(|l| l["operation"] == DESCRIBE);
    described.filter_map(|l| l["jobName"].as_str()).collect::<HashSet<_>>().len()
}

#[test]
fn fault_73_1_000_waiting_never_over_the_quota_oldest_first() {
    let bed = Bed::new();
    bed.service.durations(600_000, 600_000);
    make(&bed, 1000, |_| None);
    let operator = bed.operator(&PATIENT);
    for part in 1..=10 {
        eventually("each is looked for once", || (asked_about(&bed, 0) >= part * 100).then_some(()));
    }
    eventually("the quota is used", || (bed.service.running() == 5).then_some(()));
    assert!(operator.stop());
    let calls = bed.service.ledger().len();
    let operator = bed.operator(&PATIENT);
    eventually("each had a pass", || (passes(&operator) >= 1000).then_some(()));
    let again = asked_about(&bed, calls);
    assert!(again <= 5, "a restart asks about those in flight, not about {again}");

    bed.service.durations(50, 50);
    eventually("twenty more are made", || (bed.accepted() >= 25).then_some(()));
    let ledger = bed.service.ledger();
    let refused = ledger.iter().filter(|l| l["errorCode"] == "LimitExceededException").count();
    assert_eq!(refused, 0, "the quota is kept, not run into");
    let api = bed.api();
    let all = block_on(async move { api.list(&ListParams::default()).await.unwrap() });
    let mut line: Vec<(jiff::Timestamp, String)> =
        all.iter().map(|job| (job.creation_timestamp().unwrap().0, job.name_any())).collect();
    line.sort();
    for (i, made) in accepted(&ledger).iter().enumerate() {
        let place = line.iter().position(|(_, name)| made.job_name.starts_with(&format!("{name}-"))).unwrap();
        line.remove(place);
        // Before it may be those whose datasets are busy, and those that go at the same moment.
        assert!(i < 5 || place < 15, "{} went before {place} older ones", made.job_name);
    }
    let memory = resident(operator.pid());
    assert!(memory < MOST_MEMORY, "{memory} kB for 1,000 waiting");
    // The books are read one after the other: nothing may be added to them meanwhile.
    operator.kill();
    bed.judged();
}
