//! The AWS SDK for Rust against the stand-in: an import, its faults, and a restart.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may")]

mod bed;

use std::time::{Duration, Instant};

use aws_sdk_personalize::{
    Client,
    config::{BehaviorVersion, Credentials, Region, retry::RetryConfig, timeout::TimeoutConfig},
    error::ProvideErrorMetadata,
    types::DataSource,
};
use personalize_local::{Action, Dataset, Fault, Outcome, SeedJob, Service};

const CREATE: &str = "CreateDatasetImportJob";
const DESCRIBE: &str = "DescribeDatasetImportJob";

fn client(service: &Service) -> Client {
    let config = aws_sdk_personalize::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-west-1"))
        .credentials_provider(Credentials::new("AKIALOCAL", "local-secret", None, None, "test"))
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().operation_timeout(Duration::from_millis(500)).build())
        .endpoint_url(service.url());
    Client::from_conf(config.build())
}

/// Creates a job; the error code, or `-` for an error without one.
async fn create(client: &Client, name: &str) -> Result<Option<String>, String> {
    let request = client.create_dataset_import_job().job_name(name).dataset_arn(bed::DATASET);
    let source = DataSource::builder().data_location("s3://bucket/interactions.csv").build();
    let answer = request.data_source(source).role_arn("arn:aws:iam::111122223333:role/import").send().await;
    answer.map(|made| made.dataset_import_job_arn).map_err(|error| error.code().unwrap_or("-").to_owned())
}

fn arn(name: &str) -> String {
    format!("arn:aws:personalize:eu-west-1:111122223333:dataset-import-job/{name}")
}

async fn status(client: &Client, name: &str) -> Result<String, String> {
    let answer = client.describe_dataset_import_job().dataset_import_job_arn(arn(name)).send().await;
    let job = answer.map_err(|error| error.code().unwrap_or("-").to_owned())?.dataset_import_job.unwrap();
    Ok(job.status.unwrap())
}

#[tokio::test]
async fn an_import_passes_through_its_states() {
    let bed = bed::start().await;
    let client = client(&bed.service);
    assert_eq!(create(&client, "a").await, Ok(Some(arn("a"))));
    let (mut seen, start) = (Vec::new(), Instant::now());
    while seen.last().is_none_or(|last| last != "ACTIVE") && start.elapsed() < Duration::from_secs(5) {
        let status = status(&client, "a").await.unwrap();
        if seen.last() != Some(&status) {
            seen.push(status);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(seen, ["CREATE PENDING", "CREATE IN_PROGRESS", "ACTIVE"]);
    assert!(bed.dir.path().join("ledger.jsonl").exists());
    assert_eq!(bed.service.ledger()[0].dataset_import_job_arn, Some(arn("a")));
}

#[tokio::test]
async fn an_answer_is_lost_in_every_way_and_the_ledger_knows_whether_the_job_exists() {
    let bed = bed::start().await;
    let client = client(&bed.service);
    bed.service.hold("");
    let error = |after: bool| {
        let (code, message, status) = ("InternalServerException".to_owned(), "oops".to_owned(), 500);
        if after { Action::ErrorAfter { code, message, status } } else { Action::Error { code, message, status } }
    };
    let cases = [
        (error(false), false),
        (error(true), true),
        (Action::ResetBefore, false),
        (Action::ResetAfter, true),
        (Action::CutBody, true),
        (Action::Garbage, true),
        (Action::SilenceBeforeHeaders { effect: true }, true),
        (Action::SilenceBeforeHeaders { effect: false }, false),
        (Action::SilenceAfterHeaders { effect: true }, true),
        (Action::Delay { ms: 5_000 }, true),
    ];
    for (number, (action, exists)) in cases.into_iter().enumerate() {
        let (name, label) = (format!("job-{number}"), action.label());
        bed.service.add_fault(Fault::on(CREATE, action).named(&name));
        assert!(create(&client, &name).await.is_err(), "{label} is an error");
        assert!(bed.service.faults().is_empty(), "{label} has fired");
        let entry = bed.service.ledger().pop().unwrap();
        assert_eq!((entry.fault.as_deref(), entry.dataset_import_job_arn.is_some()), (Some(label), exists));
        assert_eq!(status(&client, &name).await.is_ok(), exists, "{label}");
        bed.service.finish(&name, Outcome::Active);
    }
    bed.service.add_fault(Fault::on(CREATE, Action::NoArn));
    assert_eq!(create(&client, "no-arn").await, Ok(None));
}

#[tokio::test]
async fn a_job_misbehaves_after_it_was_made() {
    let bed = bed::start().await;
    let (client, service) = (client(&bed.service), &bed.service);
    service.add_fault(Fault::on(CREATE, Action::NotFoundFor { ms: 0, lookups: 2 }));
    create(&client, "late").await.unwrap();
    let not_found = Err("ResourceNotFoundException".to_owned());
    assert_eq!([status(&client, "late").await, status(&client, "late").await], [not_found.clone(), not_found.clone()]);
    assert!(status(&client, "late").await.is_ok());
    service.add_fault(Fault::on(DESCRIBE, Action::Status("CREATE THINKING".to_owned())));
    assert_eq!(status(&client, "late").await.unwrap(), "CREATE THINKING");
    service.finish("late", Outcome::Active);
    service.add_fault(Fault::on(DESCRIBE, Action::StatusGoesBack));
    assert_eq!(status(&client, "late").await.unwrap(), "CREATE IN_PROGRESS");
    assert_eq!(status(&client, "late").await.unwrap(), "ACTIVE");
    let reason = Action::FailureReason { text: "\u{1b}[31m".to_owned(), length: Some(100_000) };
    service.add_fault(Fault::on(DESCRIBE, reason));
    assert_eq!(status(&client, "late").await.unwrap(), "CREATE FAILED");
    assert_eq!(service.jobs()[0].failure_reason.as_ref().unwrap().chars().count(), 100_000);
    service.add_fault(Fault::on(DESCRIBE, Action::Vanish));
    assert_eq!([status(&client, "late").await, status(&client, "late").await], [not_found.clone(), not_found]);
}

#[tokio::test]
async fn others_use_the_same_quota_and_a_dataset_can_be_away() {
    let bed = bed::start().await;
    let (client, service) = (client(&bed.service), &bed.service);
    for number in 0..5 {
        let mut job = SeedJob::new(format!("theirs-{number}"), bed::DATASET);
        (job.status, job.hold) = ("CREATE IN_PROGRESS".to_owned(), true);
        service.start_job(&job).unwrap();
    }
    assert_eq!(create(&client, "mine").await, Err("LimitExceededException".to_owned()));
    assert!(service.finish("theirs-0", Outcome::Failed("gone".to_owned())));
    assert!(service.set_dataset_status(bed::DATASET, "DELETE PENDING"));
    assert_eq!(create(&client, "mine").await, Err("ResourceInUseException".to_owned()));
    service.add_dataset(&Dataset::new(bed::DATASET)).unwrap();
    assert!(create(&client, "mine").await.is_ok());
}

#[tokio::test]
async fn jobs_survive_a_restart_on_the_same_port() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = bed::config(dir.path());
    config.state = Some(dir.path().join("state.json"));
    let service = Service::start(config.clone()).await.unwrap();
    service.hold("kept");
    create(&client(&service), "kept").await.unwrap();
    config.listen = service.url().trim_start_matches("http://").parse().unwrap();
    service.stop().await;
    let service = Service::start(config.clone()).await.unwrap();
    let client = client(&service);
    assert_eq!(status(&client, "kept").await.unwrap(), "CREATE PENDING");
    drop(service);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(tokio::net::TcpStream::connect(config.listen).await.is_err(), "dropping it stops the server");
}
