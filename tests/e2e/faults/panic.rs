//! A panic in a reconcile.

use crate::env::{ACCOUNT, REGION, TestEnv, eventually};
use crate::invariants::check_logs;
use clap::Parser;
use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};
use personalize_operator::api::Tag;
use personalize_operator::cli::{Cli, Command};
use personalize_operator::controller;
use personalize_operator::controller::kube_client::KubeClient;
use personalize_operator::http::readiness::Readiness;
use personalize_operator::personalize::{
    ACTIVE, Caller, CreateJobInput, DataDeletion, Dataset, ErrorKind, Job, JobSummary, Personalize, Priority,
    ServiceError,
};
use personalize_operator::personalize::{DatasetArn, JobArn};
use personalize_operator::telemetry::metrics::{Format, Metrics};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

/// A service that panics for one dataset, and keeps a ledger.
#[derive(Default)]
struct PanickingService {
    jobs: Mutex<HashMap<String, Job>>,
    ledger: Mutex<Vec<Value>>,
}

impl Personalize for PanickingService {
    type Permit = ();

    async fn permit_create(&self, _: &Caller, _: &DatasetArn) -> Result<(), ServiceError> {
        Ok(())
    }

    async fn create_dataset_import_job(&self, (): (), input: &CreateJobInput) -> Result<JobArn, ServiceError> {
        let job = Job {
            name: input.job_name.clone(),
            dataset: input.dataset.as_str().into(),
            data_location: input.data_location.clone(),
            role_arn: input.role_arn.clone(),
            import_mode: None,
            publish_attribution_metrics_to_s3: None,
            status: ACTIVE.into(),
            failure_reason: None,
            created: None,
            updated: None,
        };
        let arn = input.dataset.job(&input.job_name);
        self.jobs.lock().unwrap().insert(arn.0.clone(), job);
        self.ledger.lock().unwrap().push(json!({
            "time": jiff::Timestamp::now(), "operation": "CreateDatasetImportJob", "account": ACCOUNT, "region": REGION,
            "jobName": input.job_name, "datasetArn": input.dataset.as_str(), "datasetImportJobArn": arn.0,
        }));
        Ok(arn)
    }

    async fn describe_dataset_import_job(
        &self,
        _: &Caller,
        dataset: &DatasetArn,
        job: &JobArn,
        _: Priority,
    ) -> Result<Job, ServiceError> {
        assert!(!dataset.as_str().ends_with("/d13"), "injected");
        self.jobs
            .lock()
            .unwrap()
            .get(&job.0)
            .cloned()
            .ok_or_else(|| ServiceError::answered("ResourceNotFoundException", "", 400))
    }

    async fn list_tags_for_resource(
        &self,
        _: &Caller,
        _: &DatasetArn,
        _: &JobArn,
        _: Priority,
    ) -> Result<Vec<Tag>, ServiceError> {
        Err(ServiceError::unanswered(ErrorKind::Indeterminate, "Unused", "not used here"))
    }

    async fn list_dataset_import_jobs(&self, _: &Caller, _: &DatasetArn) -> Result<Vec<JobSummary>, ServiceError> {
        Ok(Vec::new())
    }

    async fn list_data_deletion_jobs(&self, _: &Caller, _: &DatasetArn) -> Result<Vec<DataDeletion>, ServiceError> {
        Ok(Vec::new())
    }

    async fn describe_dataset(&self, _: &Caller, _: &DatasetArn) -> Result<Dataset, ServiceError> {
        Ok(Dataset { status: ACTIVE.into(), ..Dataset::default() })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_11_panic_in_one_reconcile_does_not_stop_the_others() {
    let env = TestEnv::new();
    let kubeconfig = Kubeconfig::read_from(env.control_plane.kubeconfig()).unwrap();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    // The user agent of the real binary, so that the audit log shows the writes as the operator's.
    config.headers.push((http::header::USER_AGENT, "personalize-operator/inside".parse().unwrap()));
    let scope = format!("--watch-namespaces={}", env.namespace);
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
    let (_stop, stopped) = watch::channel(false);
    let metrics = Arc::new(Metrics::default());
    let service = Arc::new(PanickingService::default());
    let running = tokio::spawn(controller::run(
        KubeClient::new(config, Arc::clone(&metrics)).unwrap(),
        Arc::clone(&service),
        args.options("default"),
        Arc::new(Readiness::default()),
        Arc::clone(&metrics),
        stopped,
    ));
    env.import("bad", "d13", json!({}));
    let none = "personalize_operator_errors_total{error=\"Panicked\"} 0";
    let panicked = || (!metrics.expose(Format::OpenMetrics).contains(none)).then_some(());
    eventually("one reconcile panics", panicked);
    env.import("good", "d1", json!({}));
    env.wait_for_reason("good", "ImportSucceeded");
    assert!(!running.is_finished());
    running.abort();
    let ledger = service.ledger.lock().unwrap().clone();
    assert_eq!(ledger.len(), 1);
    env.assert_no_violations(check_logs(&ledger, &env.audited_writes()));
}
