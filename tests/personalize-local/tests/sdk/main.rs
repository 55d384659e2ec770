//! The AWS SDK for Rust as the client: every operation and error, every fault, crash and restart, and data that does
//! not fit into memory.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

#[path = "../env/mod.rs"]
mod env;
mod faults;
mod limits;
mod memory;
mod operations;
mod process;
mod raw_http;
mod restart;

use std::{
    fmt::Debug,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use aws_sdk_personalize::{
    Client,
    config::{BehaviorVersion, Builder, Credentials, Region, retry::RetryConfig, timeout::TimeoutConfig},
    error::{ProvideErrorMetadata, SdkError},
    types::DataSource,
};

const CREATE: &str = "CreateDatasetImportJob";
const DESCRIBE: &str = "DescribeDatasetImportJob";
const ROLE: &str = "arn:aws:iam::111122223333:role/import";

/// The configuration of a client without retries, with a generous timeout.
fn config_builder(url: &str, credentials: Credentials) -> Builder {
    aws_sdk_personalize::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-west-1"))
        .credentials_provider(credentials)
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().operation_timeout(Duration::from_secs(120)).build())
        .endpoint_url(url)
}

fn client(url: &str) -> Client {
    client_with(url, Credentials::new("AKIALOCAL", "local-secret", None, None, "test"))
}

fn client_with(url: &str, credentials: Credentials) -> Client {
    Client::from_conf(config_builder(url, credentials).build())
}

/// A client with a timeout of one second, for responses that never arrive.
fn impatient_client(url: &str) -> Client {
    let timeout = TimeoutConfig::builder().operation_timeout(Duration::from_secs(1)).build();
    let credentials = Credentials::new("AKIALOCAL", "local-secret", None, None, "test");
    Client::from_conf(config_builder(url, credentials).timeout_config(timeout).build())
}

/// The error code; `-` for an error without one.
fn error_code<T: Debug, E: ProvideErrorMetadata, R>(result: Result<T, SdkError<E, R>>) -> String {
    result.err().map_or_else(|| "no error".to_owned(), |error| error.code().unwrap_or("-").to_owned())
}

/// Creates a job. The error is the error code; `-` for an error without one.
async fn create(client: &Client, name: &str) -> Result<Option<String>, String> {
    create_from(client, name, "s3://bucket/interactions.csv", env::DATASET).await
}

async fn create_from(client: &Client, name: &str, location: &str, dataset: &str) -> Result<Option<String>, String> {
    let request = client.create_dataset_import_job().job_name(name).dataset_arn(dataset).role_arn(ROLE);
    let result = request.data_source(DataSource::builder().data_location(location).build()).send().await;
    result.map(|output| output.dataset_import_job_arn).map_err(|error| error.code().unwrap_or("-").to_owned())
}

/// Creates a named pipe.
fn create_pipe(path: &Path) -> PathBuf {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    path.to_owned()
}

fn job_arn(name: &str) -> String {
    format!("arn:aws:personalize:eu-west-1:111122223333:dataset-import-job/{name}")
}

async fn status(client: &Client, name: &str) -> Result<String, String> {
    let result = client.describe_dataset_import_job().dataset_import_job_arn(job_arn(name)).send().await;
    let job = result.map_err(|error| error.code().unwrap_or("-").to_owned())?.dataset_import_job.unwrap();
    Ok(job.status.unwrap())
}

/// Waits until a job has finished, and returns its status and `failureReason`.
async fn wait_until_finished(client: &Client, name: &str) -> (String, String) {
    let mut polls = 0;
    loop {
        let output = client.describe_dataset_import_job().dataset_import_job_arn(job_arn(name)).send().await.unwrap();
        let job = output.dataset_import_job.unwrap();
        let status = job.status.unwrap();
        if status == "ACTIVE" || status == "CREATE FAILED" {
            return (status, job.failure_reason.unwrap_or_default());
        }
        polls += 1;
        assert!(polls < 6000, "{name} stays {status}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
