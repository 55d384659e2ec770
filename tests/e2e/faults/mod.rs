//! The fault catalogue. Each fault of docs/faults.md has a test named by its number, `fault_NN_…`, and each test ends
//! with a check of the invariants.

mod accounts;
mod catalog;
mod clocks;
mod crash;
mod crd;
mod data;
mod data_age;
mod data_deletions;
mod deletion;
mod host;
mod idle;
mod input;
mod kubernetes;
mod leadership;
mod limits;
mod network;
mod order;
mod panic;
mod permissions;
mod polls;
mod scale;
mod service;
mod status;
mod webhook;

use crate::env::proxy::{Call, Fault, Proxy};
use crate::env::{OperatorProcess, TestEnv, eventually, install_crd, shared_control_plane};
use control_plane::ControlPlane;
use std::sync::{Mutex, MutexGuard};

const STATUS: &str = "PUT datasetimportjobs/status";
const CREATE: &str = "CreateDatasetImportJob";
const DESCRIBE: &str = "DescribeDatasetImportJob";

type ControlPlaneGuard = MutexGuard<'static, Option<&'static ControlPlane>>;

/// A control plane that a test may stop, restore and change while it holds the guard, and an environment on it.
fn dedicated_control_plane() -> (ControlPlaneGuard, &'static ControlPlane, TestEnv) {
    static DEDICATED: Mutex<Option<&'static ControlPlane>> = Mutex::new(None);
    let mut guard = DEDICATED.lock().unwrap_or_else(|poisoned| {
        // A failed test may have left it in any state.
        DEDICATED.clear_poison();
        let mut guard = poisoned.into_inner();
        guard.take().into_iter().for_each(ControlPlane::shutdown);
        guard
    });
    let control_plane = *guard.get_or_insert_with(|| start_control_plane("dedicated"));
    install_crd(control_plane);
    (guard, control_plane, TestEnv::on(control_plane))
}

/// Starts another control plane. Its files are next to those of the shared one.
fn start_control_plane(name: &str) -> &'static ControlPlane {
    let kubeconfig = shared_control_plane().kubeconfig();
    let dir = tempfile::Builder::new().prefix(name).tempdir_in(kubeconfig.parent().unwrap()).unwrap();
    // An environment needs a static reference. The control plane stops with this process.
    Box::leak(Box::new(ControlPlane::start(&dir.keep()).unwrap()))
}

/// An error response of the service with this code, injected.
fn error_response(code: &str) -> Fault {
    let body = format!(r#"{{"__type":"{code}","message":"injected"}}"#);
    Fault::Respond(400, vec![("x-amzn-errortype", code.into())], body)
}

/// The service's response about a job that does not exist, injected.
fn job_not_found() -> Fault {
    error_response("ResourceNotFoundException")
}

/// Whether the call writes a status with an intent.
fn records_intent(call: &Call) -> bool {
    call.label == STATUS && call.body.contains("\"submission\"")
}

fn wait_until_unready(operator: &OperatorProcess) {
    eventually("the operator is not ready", || operator.get("/readyz").filter(|(status, _)| *status == 503));
}

/// Whether a status with this reason had no intent. The next attempt keeps the reason, and has an intent.
fn leaves_no_intent(env: &TestEnv, reason: &str) -> bool {
    let writes = env.audited_writes();
    let mut statuses = writes.iter().map(|write| &write["requestObject"]["status"]);
    statuses.any(|status| status["reason"] == reason && status["submission"].is_null())
}

/// The operator's counter of errors of this kind.
fn error_count(operator: &OperatorProcess, kind: &str) -> u64 {
    let series = format!("personalize_operator_errors_total{{error=\"{kind}\"}} ");
    operator.metrics().lines().find_map(|line| line.strip_prefix(&series)?.parse().ok()).unwrap_or(0)
}

/// How many reconciles the operator has finished.
fn reconcile_count(operator: &OperatorProcess) -> u64 {
    let metrics = operator.metrics();
    let series = metrics.lines().filter(|line| line.starts_with("controller_runtime_reconcile_total{"));
    series.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

/// Waits until the operator reports that it does not lead.
fn wait_until_not_leader(operator: &OperatorProcess) {
    eventually("the operator does not lead", || {
        let standby = "leader_election_master_status{name=\"personalize-operator\"} 0";
        operator.metrics().contains(standby).then_some(())
    });
}

/// Applies the import that most tests use.
fn import_nightly(env: &TestEnv) {
    env.import("nightly", "d0", serde_json::json!({}));
}

/// The import succeeds, exactly one create was accepted, and all invariants hold.
fn assert_imported_once(env: &TestEnv) {
    env.wait_for_reason("nightly", "ImportSucceeded");
    assert_eq!(env.accepted_count(), 1);
    env.check_invariants_settled();
}

/// The import and another one run, and both succeed after one create each. All invariants hold.
fn assert_imported_beside(env: &TestEnv, other: &str) {
    env.wait_for_reason(other, "Importing");
    env.service.set_durations(1, 1);
    env.wait_for_reason("nightly", "ImportSucceeded");
    env.wait_for_reason(other, "ImportSucceeded");
    assert_eq!(env.accepted_count(), 2);
    env.check_invariants_settled();
}

/// A fault kills the operator. A successor makes the import once.
fn kill_and_replace(fault: Fault, matches: impl Fn(&Call) -> bool + Send + 'static) -> (TestEnv, Proxy) {
    let env = TestEnv::new();
    let proxy = env.start_proxy();
    proxy.inject_once(fault, matches);
    let operator = env.spawn_operator_behind(&proxy, &[]);
    import_nightly(&env);
    operator.wait_for_exit();
    proxy.clear();
    let _operator = env.spawn_operator_behind(&proxy, &[]);
    assert_imported_once(&env);
    let calls = proxy.calls();
    let intent = calls.iter().position(records_intent);
    assert!(intent < calls.iter().position(|call| call.label == CREATE), "the intent is recorded before the create");
    (env, proxy)
}
