//! The process around the decisions: readiness, and a panic that harms nobody else.

use crate::bed::{Bed, eventually, install_crd};
use clap::Parser;
use control_plane::ControlPlane;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use personalize_operator::api::Tag;
use personalize_operator::arn::{DatasetArn, JobArn};
use personalize_operator::config::{Cli, Command};
use personalize_operator::controller;
use personalize_operator::health::Health;
use personalize_operator::identity::Request;
use personalize_operator::metrics::Metrics;
use personalize_operator::personalize::{ACTIVE, Class, Failure, Job, JobSummary, Personalize};
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

#[test]
fn without_the_crd_it_is_not_ready_and_it_recovers_once_the_crd_is_there_again() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    // Beds keep their control plane for good; this one is stopped by hand at the end.
    let plane: &'static ControlPlane = Box::leak(Box::new(ControlPlane::start(dir.path()).unwrap()));
    let bed = Bed::on(plane);
    let operator = bed.operator_unready();
    eventually("it says what is missing", || operator.get("/readyz").filter(|(s, t)| *s == 503 && t.contains("CRD")));
    assert_eq!(operator.get("/healthz").map(|(s, _)| s), Some(200), "alive all the same");
    install_crd(plane);
    eventually("it is ready", || operator.ready().then_some(()));
    bed.import("nightly", "d0", json!({}));
    bed.until("nightly", "ImportSucceeded");
    let removed = bed.kubectl(&["delete", "crd", "datasetimportjobs.personalize-operator.io"]);
    assert!(removed.status.success());
    eventually("it is not ready any more", || (!operator.ready()).then_some(()));
    install_crd(plane);
    bed.import("nightly", "d0", json!({}));
    bed.until("nightly", "ImportSucceeded");
    eventually("it is ready again", || operator.ready().then_some(()));
    assert_eq!(crate::judge::accepted(&bed.service.ledger()).len(), 1, "the same manifest is the same import");
    plane.shutdown();
}

/// A service whose adapter panics on one dataset.
#[derive(Default)]
struct Panicky(Mutex<HashMap<String, Job>>);

impl Personalize for Panicky {
    async fn create(&self, request: &Request, job_name: &str) -> Result<JobArn, Failure> {
        let job = Job {
            name: job_name.into(),
            dataset: request.dataset.as_str().into(),
            data_location: request.data_location.clone(),
            role_arn: request.role_arn.clone(),
            import_mode: None,
            publish_attribution_metrics_to_s3: None,
            status: ACTIVE.into(),
            failure_reason: None,
            created: None,
            updated: None,
        };
        let arn = request.dataset.job(job_name);
        self.0.lock().unwrap().insert(arn.0.clone(), job);
        Ok(arn)
    }

    async fn job(&self, dataset: &DatasetArn, job: &JobArn) -> Result<Job, Failure> {
        assert!(!dataset.as_str().ends_with("/d13"), "as ordered");
        self.0
            .lock()
            .unwrap()
            .get(&job.0)
            .cloned()
            .ok_or_else(|| Failure::answered("ResourceNotFoundException", "", 400))
    }

    async fn tags(&self, _: &DatasetArn, _: &JobArn) -> Result<Vec<Tag>, Failure> {
        Err(Failure::unanswered(Class::InDoubt, "Unused", "not asked for here"))
    }

    async fn jobs(&self, _: &DatasetArn) -> Result<Vec<JobSummary>, Failure> {
        Ok(Vec::new())
    }

    async fn dataset_status(&self, _: &DatasetArn) -> Result<String, Failure> {
        Ok(ACTIVE.into())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_over_one_resource_harms_no_other() {
    let bed = Bed::new();
    let kubeconfig = Kubeconfig::read_from(bed.plane.kubeconfig()).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    let scope = format!("--watch-namespaces={}", bed.namespace);
    let cli = Cli::parse_from([
        "x",
        "run",
        &scope,
        "--leader-elect=false",
        "--backoff-min=50ms",
        "--backoff-max=50ms",
        "--poll-min=50ms",
    ]);
    let Command::Run(args) = cli.command else { panic!("run") };
    let (_order, stop) = watch::channel(false);
    let metrics = Arc::new(Metrics::default());
    let running = tokio::spawn(controller::run(
        Client::try_from(config).unwrap(),
        Arc::new(Panicky::default()),
        args.options("default"),
        Arc::new(Health::default()),
        Arc::clone(&metrics),
        stop,
    ));
    bed.import("bad", "d13", json!({}));
    let panicked = || metrics.expose().contains("personalize_operator_errors_total{error=\"Panicked\"}").then_some(());
    eventually("one panics", panicked);
    bed.import("good", "d1", json!({}));
    bed.until("good", "ImportSucceeded");
    assert!(!running.is_finished());
    running.abort();
}
