//! The fault catalogue: each fault is a test named by its number, and after each the judge looks at
//! the service's ledger and the API server's audit log. docs/faults.md tells where each one is.

mod catalog;
mod clocks;
mod crash;
mod crd;
mod host;
mod kubernetes;
mod leadership;
mod limits;
mod network;
mod panic;
mod resource_lifecycle;
mod scale;
mod service;
mod webhook;

use crate::env::proxy::{Call, Fate, Proxy};
use crate::env::{Bed, Operator, eventually, install_crd, plane};
use control_plane::ControlPlane;
use std::sync::{Mutex, MutexGuard};

const STATUS: &str = "PUT datasetimportjobs/status";
const CREATE: &str = "CreateDatasetImportJob";
const DESCRIBE: &str = "DescribeDatasetImportJob";

type Mine = MutexGuard<'static, Option<&'static ControlPlane>>;

/// A control plane that may be stopped, restored and changed for all who are on it, with a bed on it.
/// A test has it to itself as long as it holds the guard.
fn rough_plane() -> (Mine, &'static ControlPlane, Bed) {
    static ROUGH: Mutex<Option<&'static ControlPlane>> = Mutex::new(None);
    let mut mine = ROUGH.lock().unwrap_or_else(|poisoned| {
        // A test that failed may have left it in any state.
        ROUGH.clear_poison();
        let mut mine = poisoned.into_inner();
        mine.take().into_iter().for_each(ControlPlane::shutdown);
        mine
    });
    let rough = *mine.get_or_insert_with(|| another_plane("rough"));
    install_crd(rough);
    (mine, rough, Bed::on(rough))
}

/// Another control plane, whose files go with those of the shared one.
fn another_plane(name: &str) -> &'static ControlPlane {
    let kubeconfig = plane().kubeconfig();
    let dir = tempfile::Builder::new().prefix(name).tempdir_in(kubeconfig.parent().unwrap()).unwrap();
    // Beds keep their control plane for good; it ends with the process.
    Box::leak(Box::new(ControlPlane::start(&dir.keep()).unwrap()))
}

/// The first call that fits has this fate; all others pass.
fn once(proxy: &Proxy, fate: Fate, fits: impl Fn(&Call) -> bool + Send + 'static) {
    let mut fate = Some(fate);
    proxy.rule(move |call| if fits(call) { fate.take().unwrap_or(Fate::Pass) } else { Fate::Pass });
}

/// The first so many calls that fit have this fate; all others pass.
fn times(proxy: &Proxy, count: usize, fate: Fate, fits: impl Fn(&Call) -> bool + Send + 'static) {
    let mut left = count;
    proxy.rule(move |call| {
        if left > 0 && fits(call) {
            left -= 1;
            return fate.clone();
        }
        Fate::Pass
    });
}

/// The service's answer about a job that it does not know, in its place.
fn not_found() -> Fate {
    let told = r#"{"__type":"ResourceNotFoundException","message":"as ordered"}"#;
    Fate::Answer(400, vec![("x-amzn-errortype", "ResourceNotFoundException".into())], told.into())
}

/// Waits until the operator says that it is not ready.
fn is_not_ready(operator: &Operator) {
    eventually("it says that it is not ready", || operator.get("/readyz").filter(|(status, _)| *status == 503));
}

/// How many errors of this kind the operator counts.
fn errors(operator: &Operator, kind: &str) -> u64 {
    let (_, metrics) = operator.get("/metrics").unwrap_or_default();
    let begin = format!("personalize_operator_errors_total{{error=\"{kind}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&begin)?.parse().ok()).unwrap_or(0)
}

/// How many passes the operator has ended so far.
fn passes(operator: &Operator) -> u64 {
    let (_, metrics) = operator.get("/metrics").unwrap_or_default();
    let of = |l: &&str| l.starts_with("controller_runtime_reconcile_total{");
    metrics.lines().filter(of).filter_map(|l| l.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

/// Waits until the operator knows that it leads no more.
fn leads_no_more(operator: &Operator) {
    eventually("it leads no more", || {
        let (_, metrics) = operator.get("/metrics")?;
        metrics.contains("leader_election_master_status{name=\"personalize-operator\"} 0").then_some(())
    });
}

/// The import that the tests make.
fn nightly(bed: &Bed) {
    bed.import("nightly", "d0", serde_json::json!({}));
}

/// The one import has been made, once, and its resource tells so.
fn made_once(bed: &Bed) {
    bed.until("nightly", "ImportSucceeded");
    assert_eq!(bed.accepted(), 1);
    bed.judged_settled();
}

/// An operator behind a proxy is killed by it; another takes its place, and the import is made once.
fn killed_and_replaced(fate: Fate, fits: impl Fn(&Call) -> bool + Send + 'static) -> (Bed, Proxy) {
    let bed = Bed::new();
    let proxy = bed.proxy();
    once(&proxy, fate, fits);
    let operator: Operator = bed.operator_behind(&proxy, &[]);
    nightly(&bed);
    operator.ended();
    proxy.pass();
    let _operator = bed.operator_behind(&proxy, &[]);
    made_once(&bed);
    let calls = proxy.calls();
    let first = |fits: &dyn Fn(&Call) -> bool| calls.iter().position(fits);
    let intended = first(&|call| call.label == STATUS && call.body.contains("\"submission\""));
    assert!(intended < first(&|call| call.label == CREATE), "nothing is sent before its intent");
    (bed, proxy)
}
