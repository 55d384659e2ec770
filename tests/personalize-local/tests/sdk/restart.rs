//! `--state FILE`: a killed stand-in comes back with everything that a client had an answer for.

use std::fs;

use aws_sdk_personalize::types::Tag;
use personalize_local::{Entry, Service};
use serde_json::json;

use crate::{CREATE, arn, bed, client, create, ended, process, status};

#[tokio::test]
async fn a_killed_stand_in_comes_back_with_jobs_tags_datasets_and_ledger() {
    let dir = tempfile::tempdir().unwrap();
    bed::write_data(dir.path());
    let slow = ["--pending-ms", "300", "--in-progress-ms", "300"];
    let mut first = process::start(dir.path(), &slow).await;
    let before = client(&first.url);
    let local = async |url: &str, path: &str, body: serde_json::Value| {
        let (code, answer) = bed::http("POST", &format!("{url}/_local/{path}"), &body.to_string()).await;
        assert!(code < 300, "{path}: {answer}");
    };
    local(&first.url, "holds", json!({"name": "held"})).await;
    create(&before, "done").await.unwrap();
    assert_eq!(ended(&before, "done").await.0, "ACTIVE");
    let tag = Tag::builder().tag_key("a").tag_value("b").build().unwrap();
    before.tag_resource().resource_arn(arn("done")).tags(tag.clone()).send().await.unwrap();
    before.tag_resource().resource_arn(bed::DATASET).tags(tag.clone()).send().await.unwrap();
    let added = bed::DATASET.replace("shop", "later");
    local(&first.url, "datasets", json!({"arn": added, "status": "CREATE PENDING"})).await;
    let described = async |client: &aws_sdk_personalize::Client, arn: &str| {
        client.describe_dataset().dataset_arn(arn).send().await.unwrap().dataset.unwrap()
    };
    let datasets = [described(&before, bed::DATASET).await, described(&before, &added).await];
    let token = {
        create(&before, "held").await.unwrap();
        let page = before.list_dataset_import_jobs().max_results(1).send().await.unwrap();
        page.next_token.unwrap()
    };
    // The answer to this one has just arrived when the stand-in is killed.
    assert_eq!(create(&before, "running").await, Ok(Some(arn("running"))));
    first.tethered.kill().unwrap();

    let mut second = process::start(dir.path(), &slow).await;
    let after = client(&second.url);
    assert_eq!(create(&after, "running").await, Err("ResourceAlreadyExistsException".to_owned()));
    assert_eq!(status(&after, "held").await.unwrap(), "CREATE PENDING");
    assert_eq!(status(&after, "done").await.unwrap(), "ACTIVE");
    for arn in [arn("done"), bed::DATASET.to_owned()] {
        let tags = after.list_tags_for_resource().resource_arn(arn).send().await.unwrap().tags.unwrap();
        assert_eq!(tags, vec![tag.clone()]);
    }
    assert_eq!([described(&after, bed::DATASET).await, described(&after, &added).await], datasets);
    let rest = after.list_dataset_import_jobs().next_token(token).send().await.unwrap();
    let names: Vec<_> = rest.dataset_import_jobs.unwrap().into_iter().map(|job| job.job_name.unwrap()).collect();
    assert_eq!(names, ["held", "running"], "a list goes on where it was");
    assert_eq!(ended(&after, "running").await.0, "ACTIVE", "an import that ran goes on");
    let stopped = second.tethered.stop(std::time::Duration::from_secs(60)).unwrap();
    assert!(stopped.success(), "SIGTERM ends it in order: {stopped}");

    let third = process::start(dir.path(), &slow).await;
    assert_eq!(described(&client(&third.url), &added).await, datasets[1], "once more changes nothing");
    drop(third);

    let ledger = fs::read_to_string(dir.path().join("ledger.jsonl")).unwrap();
    let ledger: Vec<Entry> = ledger.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(ledger.is_sorted_by_key(|entry| entry.time.clone()), "one ledger, in order, over both runs");
    let accepted: Vec<_> = ledger.iter().filter_map(|entry| entry.dataset_import_job_arn.clone()).collect();
    assert_eq!(accepted, [arn("done"), arn("held"), arn("running")]);
    assert_eq!(ledger.iter().filter(|entry| entry.operation == CREATE).count(), 4);
    let log = fs::read_to_string(dir.path().join("log")).unwrap();
    let story = [
        "111122223333 in eu-west-1 asks CreateDatasetImportJob done: the job is accepted",
        "job done: CREATE IN_PROGRESS",
        "job done: ACTIVE, 1000 records read",
    ];
    let places = story.map(|line| log.find(line).unwrap_or_else(|| panic!("{line} is not in\n{log}")));
    assert!(places.is_sorted(), "{log}");
}

#[tokio::test]
async fn dropping_the_handle_stops_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(bed::config(dir.path())).await.unwrap();
    let address: std::net::SocketAddr = service.url().trim_start_matches("http://").parse().unwrap();
    assert!(tokio::net::TcpStream::connect(address).await.is_ok());
    drop(service);
    bed::eventually("the port is closed", || std::net::TcpStream::connect(address).is_err().then_some(())).await;
}
