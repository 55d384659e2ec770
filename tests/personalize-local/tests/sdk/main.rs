//! The AWS SDK for Rust against the stand-in: every operation and error, every fault, a kill and a restart, and data
//! that does not fit into memory.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may")]

#[path = "../env/mod.rs"]
mod bed;
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

/// A client that tries once; its limit stands for a person's patience.
fn settings(url: &str, credentials: Credentials) -> Builder {
    aws_sdk_personalize::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-west-1"))
        .credentials_provider(credentials)
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().operation_timeout(Duration::from_secs(120)).build())
        .endpoint_url(url)
}

fn client(url: &str) -> Client {
    client_of(url, Credentials::new("AKIALOCAL", "local-secret", None, None, "test"))
}

fn client_of(url: &str, credentials: Credentials) -> Client {
    Client::from_conf(settings(url, credentials).build())
}

/// A client that gives up soon, for answers that never come.
fn hasty(url: &str) -> Client {
    let limit = TimeoutConfig::builder().operation_timeout(Duration::from_secs(1)).build();
    let credentials = Credentials::new("AKIALOCAL", "local-secret", None, None, "test");
    Client::from_conf(settings(url, credentials).timeout_config(limit).build())
}

/// The service's error code; `-` for an error without one.
fn code<T: Debug, E: ProvideErrorMetadata, R>(answer: Result<T, SdkError<E, R>>) -> String {
    answer.err().map_or_else(|| "no error".to_owned(), |error| error.code().unwrap_or("-").to_owned())
}

/// Creates a job; the error code, or `-` for an error without one.
async fn create(client: &Client, name: &str) -> Result<Option<String>, String> {
    create_from(client, name, "s3://bucket/interactions.csv", bed::DATASET).await
}

async fn create_from(client: &Client, name: &str, location: &str, dataset: &str) -> Result<Option<String>, String> {
    let request = client.create_dataset_import_job().job_name(name).dataset_arn(dataset).role_arn(ROLE);
    let answer = request.data_source(DataSource::builder().data_location(location).build()).send().await;
    answer.map(|made| made.dataset_import_job_arn).map_err(|error| error.code().unwrap_or("-").to_owned())
}

/// A named pipe.
fn pipe(path: &Path) -> PathBuf {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    path.to_owned()
}

fn arn(name: &str) -> String {
    format!("arn:aws:personalize:eu-west-1:111122223333:dataset-import-job/{name}")
}

async fn status(client: &Client, name: &str) -> Result<String, String> {
    let answer = client.describe_dataset_import_job().dataset_import_job_arn(arn(name)).send().await;
    let job = answer.map_err(|error| error.code().unwrap_or("-").to_owned())?.dataset_import_job.unwrap();
    Ok(job.status.unwrap())
}

/// Waits until a job has ended; its status and failureReason.
async fn ended(client: &Client, name: &str) -> (String, String) {
    let mut tries = 0;
    loop {
        let answer = client.describe_dataset_import_job().dataset_import_job_arn(arn(name)).send().await.unwrap();
        let job = answer.dataset_import_job.unwrap();
        let status = job.status.unwrap();
        if status == "ACTIVE" || status == "CREATE FAILED" {
            return (status, job.failure_reason.unwrap_or_default());
        }
        tries += 1;
        assert!(tries < 6000, "{name} stays {status}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
