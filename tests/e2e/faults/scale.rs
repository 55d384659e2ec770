//! Many resources.

use super::{DESCRIBE, reconcile_count, start_control_plane};
use crate::env::{OperatorProcess, TestEnv, block_on, eventually, install_crd};
use crate::invariants::{accepted_creates, check_logs, resource_writes_after};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::api::{ListParams, PostParams};
use personalize_operator::api::conditions::{self, Reason};
use personalize_operator::api::{DatasetImportJob, DatasetImportJobStatus};
use personalize_operator::import::request::ImportRequest;
use serde_json::json;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// Limit for the memory of the operator in these tests: docs/installation.md promises it for 10,000 resources.
const MAX_MEMORY_KB: u64 = 200_000;

/// Resources with annotations of 250 KiB. Kept in memory, they would use more than the limit.
const LARGE: usize = 200;
const MAX_MEMORY_WITH_LARGE_RESOURCES_KB: u64 = 100_000;

/// On a busy machine a thousand reconciles take a while, and none may time out. A waiting resource is reconciled after
/// twice the maximum backoff; a thousand of them every second would leave no time for anything else.
const FLAGS: [&str; 8] = [
    "--backoff-max=5m",
    "--identity=one",
    "--concurrency=32",
    "--lease-duration=60s",
    "--kube-timeout=30s",
    "--aws-connect-timeout=30s",
    "--aws-read-timeout=30s",
    "--aws-timeout=30s",
];

/// Creates resources concurrently through the API, with this annotation, and with a status if the function returns one.
pub(super) fn create(
    env: &TestEnv,
    count: usize,
    annotation: &str,
    status: fn(&DatasetImportJob) -> Option<DatasetImportJobStatus>,
) {
    let annotation: Arc<str> = annotation.into();
    let api = env.api();
    let params = PostParams { field_manager: Some("personalize-operator".into()), ..PostParams::default() };
    let one = move |i: usize| {
        let (api, params, annotation) = (api.clone(), params.clone(), Arc::clone(&annotation));
        async move {
            let mut manifest = TestEnv::manifest(&format!("r{i:05}"), &format!("d{}", i % 30), json!({}));
            manifest["metadata"]["annotations"] = json!({"example.org/notes": *annotation});
            let created = api.create(&params, &serde_json::from_value(manifest).unwrap()).await?;
            if let Some(status) = status(&created) {
                let resource = DatasetImportJob { status: Some(status), ..created };
                api.replace_status(&resource.name_any(), &params, &resource).await?;
            }
            Ok::<_, kube::Error>(())
        }
    };
    block_on(futures::stream::iter(0..count).map(one).buffer_unordered(24).try_collect::<()>()).unwrap();
}

pub(super) fn succeeded(resource: &DatasetImportJob) -> Option<DatasetImportJobStatus> {
    let now = jiff::Timestamp::from_second(1_790_000_000).unwrap();
    let request = ImportRequest::new(&resource.namespace()?, &resource.name_any(), &resource.spec).unwrap();
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

fn assert_bounded_memory(operator: &OperatorProcess) {
    let memory = operator.resident_memory_kb();
    assert!(memory < MAX_MEMORY_KB, "{memory} kB");
}

#[test]
fn fault_72_start_with_10_000_finished_resources_makes_no_call_and_no_write() {
    // A separate control plane, because its large audit log would delay the other tests.
    let control_plane = start_control_plane("scale");
    install_crd(control_plane);
    let env = TestEnv::on(control_plane);
    let without_resources = env.start_operator(&FLAGS).resident_memory_kb();
    create(&env, 10_000, "", succeeded);
    let before = std::fs::metadata(control_plane.audit_log()).unwrap().len();
    assert!(before > 20_000 * 1000, "the audit log contains all creates: {before} bytes");
    let operator = env.start_operator(&FLAGS);
    env.import("last", "d29", json!({"suspend": true}));
    env.wait_for_reason("last", "Suspended");
    assert_eq!(env.service.ledger().len(), 0, "no call to the service");
    let writes = resource_writes_after(&control_plane.audit_log(), before, &env.namespace);
    assert!(!writes.is_empty());
    assert!(writes.iter().all(|w| w["objectRef"]["name"] == "last"), "no write");
    env.assert_no_violations(check_logs(&env.service.ledger(), &writes));
    let memory = operator.resident_memory_kb();
    assert!(
        memory < without_resources + 10_000 * 2,
        "2 kB for each finished resource: {without_resources} and {memory} kB"
    );
    operator.kill();
    control_plane.shutdown();
}

#[test]
fn fault_105_what_users_attach_to_resources_uses_no_memory_and_is_kept() {
    let control_plane = start_control_plane("large");
    install_crd(control_plane);
    let env = TestEnv::on(control_plane);
    let notes = "x".repeat(250 * 1024);
    create(&env, LARGE, &notes, succeeded);
    let before = std::fs::metadata(control_plane.audit_log()).unwrap().len();
    let operator = env.start_operator(&FLAGS);
    let mut manifest = TestEnv::manifest("last", "d9", json!({}));
    let attached = json!({
        "annotations": {"example.org/notes": notes},
        "labels": {"team": "shop"},
        "finalizers": ["example.org/keep"],
    });
    manifest["metadata"].as_object_mut().unwrap().extend(attached.as_object().unwrap().clone());
    let api = env.api();
    let last = serde_json::from_value(manifest).unwrap();
    block_on(async move { api.create(&PostParams::default(), &last).await }).unwrap();
    env.wait_for_reason("last", "ImportSucceeded");
    let kept = serde_json::to_value(env.get("last").unwrap().metadata).unwrap();
    for (field, value) in attached.as_object().unwrap() {
        assert_eq!(kept[field], *value, "a status write keeps {field}");
    }
    let peak = operator.peak_memory_kb();
    assert!(peak < MAX_MEMORY_WITH_LARGE_RESOURCES_KB, "{peak} kB");
    let writes = resource_writes_after(&control_plane.audit_log(), before, &env.namespace);
    env.assert_no_violations(check_logs(&env.service.ledger(), &writes));
    operator.kill();
    control_plane.shutdown();
}

/// How many jobs were described, from this line of the ledger on.
fn described_jobs(env: &TestEnv, from: usize) -> usize {
    // Reading a ledger of thousands of lines without a pause would delay the operator.
    std::thread::sleep(Duration::from_millis(500));
    let ledger = env.service.ledger();
    let described = ledger[from..].iter().filter(|l| l["operation"] == DESCRIBE);
    described.filter_map(|l| l["jobName"].as_str()).collect::<HashSet<_>>().len()
}

#[test]
fn fault_73_1_000_waiting_imports_keep_the_quota_and_go_oldest_first() {
    let env = TestEnv::new();
    env.service.set_durations(600_000, 600_000);
    create(&env, 1000, "", |_| None);
    let operator = env.start_operator(&FLAGS);
    for part in 1..=10 {
        eventually("every job was looked up", || (described_jobs(&env, 0) >= part * 100).then_some(()));
    }
    eventually("the quota is used up", || (env.service.running_count() == 5).then_some(()));
    assert!(operator.stop());
    let calls = env.service.ledger().len();
    let operator = env.start_operator(&FLAGS);
    eventually("every resource was reconciled", || (reconcile_count(&operator) >= 1000).then_some(()));
    let looked_up = described_jobs(&env, calls);
    assert!(looked_up <= 5, "a restart looks up the running jobs only, not {looked_up}");

    env.service.set_durations(50, 50);
    eventually("20 more jobs are created", || (env.accepted_count() >= 25).then_some(()));
    let ledger = env.service.ledger();
    let rejected = ledger.iter().filter(|l| l["errorCode"] == "LimitExceededException").count();
    assert_eq!(rejected, 0, "no create exceeds the quota");
    let api = env.api();
    let all = block_on(async move { api.list(&ListParams::default()).await.unwrap() });
    let mut waiting: Vec<(jiff::Timestamp, String)> =
        all.iter().map(|resource| (resource.creation_timestamp().unwrap().0, resource.name_any())).collect();
    waiting.sort();
    for (i, create) in accepted_creates(&ledger).iter().enumerate() {
        let older = waiting.iter().position(|(_, name)| create.job_name.starts_with(&format!("{name}-"))).unwrap();
        waiting.remove(older);
        // Resources whose datasets are busy, and those that are submitted at the same time, may be older.
        assert!(i < 5 || older < 15, "{} was created before {older} older ones", create.job_name);
    }
    assert_bounded_memory(&operator);
    // The logs are read one after the other, so no operator may add to them.
    operator.kill();
    env.check_invariants();
}
