//! Clients that nobody here wrote: boto3 and the AWS CLI, in an environment of their own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may")]

mod bed;
mod python;

use std::{path::PathBuf, process::Command};

#[tokio::test(flavor = "multi_thread")]
async fn boto3_calls_every_operation_and_meets_every_error() {
    let bed = bed::start().await;
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/clients/boto3_client.py");
    let printed = python::done(Command::new(python::venv().join("python")).arg(script).arg(bed.service.url()));
    assert!(printed.contains("as expected"), "{printed}");
    let lines = std::fs::read_to_string(bed.dir.path().join("ledger.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), bed.service.ledger().len(), "the file has what the library has");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_aws_cli_imports_and_waits_its_turn() {
    let bed = bed::start().await;
    let aws = |arguments: &[&str]| {
        let mut command = Command::new(python::venv().join("aws"));
        command.args([
            "personalize",
            "--region",
            "eu-west-1",
            "--output",
            "text",
            "--endpoint-url",
            &bed.service.url(),
        ]);
        command.env("AWS_ACCESS_KEY_ID", "AKIALOCAL").env("AWS_SECRET_ACCESS_KEY", "local-secret");
        command.env("AWS_CONFIG_FILE", "/dev/null").env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null");
        command.args(arguments);
        command
    };
    let mut create = aws(&["create-dataset-import-job", "--job-name", "cli", "--dataset-arn", bed::DATASET]);
    create.args(["--data-source", "dataLocation=s3://bucket/interactions.csv"]);
    create.args(["--role-arn", "arn:aws:iam::111122223333:role/import", "--query", "datasetImportJobArn"]);
    let arn = python::done(&mut create).trim().to_owned();
    assert_eq!(arn, "arn:aws:personalize:eu-west-1:111122223333:dataset-import-job/cli");
    let mut describe = aws(&["describe-dataset-import-job", "--dataset-import-job-arn", &arn]);
    describe.args(["--query", "datasetImportJob.jobName"]);
    assert_eq!(python::done(&mut describe).trim(), "cli");
    let listed = python::done(aws(&["list-dataset-import-jobs"]).args(["--query", "datasetImportJobs[].jobName"]));
    assert_eq!(listed.trim(), "cli");
    let refused = create.output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("ResourceAlreadyExistsException"));
}
