//! `--state FILE`: after a crash, the stand-in still has everything that a client received a response for.

use std::{
    fs,
    io::Write,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use aws_sdk_personalize::types::Tag;
use personalize_local::{Action, Fault, LedgerEntry, Seed, SeedJob, Service};
use serde_json::json;

use crate::{CREATE, client, create, create_from, create_pipe, env, job_arn, process, status, wait_until_finished};

#[tokio::test]
async fn killed_process_restarts_with_jobs_tags_datasets_and_ledger() {
    let dir = tempfile::tempdir().unwrap();
    env::write_data(dir.path());
    let slow = ["--pending-ms", "300", "--in-progress-ms", "300"];
    let mut first = process::start(dir.path(), &slow).await;
    let before = client(&first.url);
    let local = async |url: &str, path: &str, body: serde_json::Value| {
        let (code, response) = env::http("POST", &format!("{url}/_local/{path}"), &body.to_string()).await;
        assert!(code < 300, "{path}: {response}");
    };
    local(&first.url, "holds", json!({"name": "held"})).await;
    create(&before, "done").await.unwrap();
    assert_eq!(wait_until_finished(&before, "done").await.0, "ACTIVE");
    let tag = Tag::builder().tag_key("a").tag_value("b").build().unwrap();
    before.tag_resource().resource_arn(job_arn("done")).tags(tag.clone()).send().await.unwrap();
    before.tag_resource().resource_arn(env::DATASET).tags(tag.clone()).send().await.unwrap();
    let added = env::DATASET.replace("shop", "later");
    local(&first.url, "datasets", json!({"arn": added, "status": "CREATE PENDING"})).await;
    let described = async |client: &aws_sdk_personalize::Client, arn: &str| {
        client.describe_dataset().dataset_arn(arn).send().await.unwrap().dataset.unwrap()
    };
    let datasets = [described(&before, env::DATASET).await, described(&before, &added).await];
    let token = {
        create(&before, "held").await.unwrap();
        let page = before.list_dataset_import_jobs().max_results(1).send().await.unwrap();
        page.next_token.unwrap()
    };
    // Kill the process right after the response of this create.
    assert_eq!(create(&before, "running").await, Ok(Some(job_arn("running"))));
    first.child.kill().unwrap();

    let mut second = process::start(dir.path(), &slow).await;
    let after = client(&second.url);
    assert_eq!(create(&after, "running").await, Err("ResourceAlreadyExistsException".to_owned()));
    assert_eq!(status(&after, "held").await.unwrap(), "CREATE PENDING");
    assert_eq!(status(&after, "done").await.unwrap(), "ACTIVE");
    for arn in [job_arn("done"), env::DATASET.to_owned()] {
        let tags = after.list_tags_for_resource().resource_arn(arn).send().await.unwrap().tags.unwrap();
        assert_eq!(tags, vec![tag.clone()]);
    }
    assert_eq!([described(&after, env::DATASET).await, described(&after, &added).await], datasets);
    let page = after.list_dataset_import_jobs().next_token(token).send().await.unwrap();
    let names: Vec<_> = page.dataset_import_jobs.unwrap().into_iter().map(|job| job.job_name.unwrap()).collect();
    assert_eq!(names, ["held", "running"], "the page token is still valid");
    assert_eq!(wait_until_finished(&after, "running").await.0, "ACTIVE", "a running import continues");
    let stopped = second.child.stop(std::time::Duration::from_secs(60)).unwrap();
    assert!(stopped.success(), "SIGTERM shuts it down cleanly: {stopped}");

    let third = process::start(dir.path(), &slow).await;
    assert_eq!(described(&client(&third.url), &added).await, datasets[1], "a second restart changes nothing");
    drop(third);

    let ledger = fs::read_to_string(dir.path().join("ledger.jsonl")).unwrap();
    let ledger: Vec<LedgerEntry> = ledger.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(ledger.is_sorted_by_key(|entry| entry.time.clone()), "all runs append to the ledger in order");
    let accepted: Vec<_> = ledger.iter().filter_map(|entry| entry.dataset_import_job_arn.clone()).collect();
    assert_eq!(accepted, [job_arn("done"), job_arn("held"), job_arn("running")]);
    assert_eq!(ledger.iter().filter(|entry| entry.operation == CREATE).count(), 4);
    let log = fs::read_to_string(dir.path().join("log")).unwrap();
    let expected = [
        "CreateDatasetImportJob done (account 111122223333, eu-west-1): job accepted",
        "job done: CREATE IN_PROGRESS",
        "job done: ACTIVE, 1000 records read",
    ];
    let positions = expected.map(|line| log.find(line).unwrap_or_else(|| panic!("{line} is not in\n{log}")));
    assert!(positions.is_sorted(), "{log}");
}

#[tokio::test]
async fn restart_preserves_every_status_that_a_client_has_seen() {
    let dir = tempfile::tempdir().unwrap();
    env::write_data(dir.path());
    let seed = env::config(dir.path()).seed;
    let start = async |jobs: &[SeedJob], pending_ms| {
        let mut config = env::config(dir.path());
        config.state = Some(dir.path().join("state.json"));
        config.seed = Seed { jobs: jobs.to_vec(), ..seed.clone() };
        config.seed.durations.pending_ms = pending_ms;
        config.seed.durations.in_progress_ms = 3_600_000;
        Service::start(config).await.unwrap()
    };
    let [early, late] = ["early", "late"].map(|name| SeedJob::new(name, env::DATASET));
    let not_found = Err("ResourceNotFoundException".to_owned());
    let first = start(std::slice::from_ref(&early), 0).await;
    let before = client(&first.url());
    create(&before, "slow").await.unwrap();
    assert_eq!(status(&before, "slow").await.unwrap(), "CREATE IN_PROGRESS");
    create(&before, "gone").await.unwrap();
    for name in ["gone", "early"] {
        first.add_fault(Fault::on("DescribeDatasetImportJob", Action::Vanish).named(name));
        assert_eq!(status(&before, name).await, not_found);
    }
    first.stop().await;
    // CREATE PENDING now takes an hour: an unsaved status would go back.
    let second = start(&[early, late], 3_600_000).await;
    let after = client(&second.url());
    assert_eq!(status(&after, "slow").await.unwrap(), "CREATE IN_PROGRESS");
    for name in ["gone", "early"] {
        assert_eq!(status(&after, name).await, not_found, "{name} does not reappear");
    }
    assert_eq!(status(&after, "late").await.unwrap(), "ACTIVE", "a job that is new in the seed is added");
}

#[tokio::test]
async fn request_fails_while_the_state_file_cannot_be_written() {
    let dir = tempfile::tempdir().unwrap();
    env::write_data(dir.path());
    let mut config = env::config(dir.path());
    let state_dir = dir.path().join("state");
    fs::create_dir(&state_dir).unwrap();
    config.state = Some(state_dir.join("state.json"));
    let service = Service::start(config).await.unwrap();
    service.hold("");
    let client = client(&service.url());
    create(&client, "saved").await.unwrap();
    fs::remove_dir_all(&state_dir).unwrap();
    assert_eq!(create(&client, "unsaved").await, Err("InternalServerException".to_owned()));
    let entry = service.ledger().pop().unwrap();
    assert_eq!(
        (entry.http_status, entry.dataset_import_job_arn),
        (500, Some(job_arn("unsaved"))),
        "indeterminate for the client"
    );
    let hold = env::http("POST", &format!("{}/_local/holds", service.url()), r#"{"name": "x"}"#).await;
    assert_eq!(hold.0, 500, "{}", hold.1);
    fs::create_dir(&state_dir).unwrap();
    assert_eq!(status(&client, "unsaved").await.unwrap(), "CREATE PENDING");
    assert!(fs::read_to_string(state_dir.join("state.json")).unwrap().contains("unsaved"), "the write is retried");
}

/// Writes to a pipe until its reader closes it, and counts the bytes.
fn feed_endlessly(pipe: PathBuf) -> (Arc<AtomicU64>, std::thread::JoinHandle<()>) {
    let written = Arc::new(AtomicU64::new(0));
    let count = written.clone();
    let writer = std::thread::spawn(move || {
        let mut pipe = fs::File::options().write(true).open(pipe).unwrap();
        let rows = "u,i,1700000000\n".repeat(1000);
        let mut next = "USER_ID,ITEM_ID,TIMESTAMP\n";
        while pipe.write_all(next.as_bytes()).is_ok() {
            count.fetch_add(next.len() as u64, Ordering::Relaxed);
            next = &rows;
        }
    });
    (written, writer)
}

async fn wait_until_read(written: &AtomicU64) {
    let enough = || (written.load(Ordering::Relaxed) > 1 << 20).then_some(());
    env::eventually("the data is being read", enough).await;
}

#[tokio::test]
async fn sigterm_stops_the_process_while_it_reads_data() {
    let dir = tempfile::tempdir().unwrap();
    env::write_data(dir.path());
    let bucket = dir.path().join("data/bucket");
    let (written, writer) = feed_endlessly(create_pipe(&bucket.join("endless.csv")));
    create_pipe(&bucket.join("never-written.csv"));
    let mut process = process::start(dir.path(), &["--pending-ms", "0", "--in-progress-ms", "0"]).await;
    let client = client(&process.url);
    for name in ["endless", "never-written"] {
        create_from(&client, name, &format!("s3://bucket/{name}.csv"), env::DATASET).await.unwrap();
    }
    wait_until_read(&written).await;
    let stopped = process.child.stop(std::time::Duration::from_secs(60)).unwrap();
    assert!(stopped.success(), "{stopped}");
    writer.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_service_no_longer_changes_the_state_file() {
    let dir = tempfile::tempdir().unwrap();
    env::write_data(dir.path());
    let (written, writer) = feed_endlessly(create_pipe(&dir.path().join("data/bucket/endless.csv")));
    let mut config = env::config(dir.path());
    let state = dir.path().join("state.json");
    config.state = Some(state.clone());
    let first = Service::start(config.clone()).await.unwrap();
    create_from(&client(&first.url()), "endless", "s3://bucket/endless.csv", env::DATASET).await.unwrap();
    wait_until_read(&written).await;
    first.stop().await;
    fs::remove_file(dir.path().join("data/bucket/endless.csv")).unwrap();
    // The writer finishes once the reader of the first service has stopped.
    tokio::task::spawn_blocking(move || writer.join().unwrap()).await.unwrap();
    assert!(fs::read_to_string(&state).unwrap().contains("CREATE IN_PROGRESS"), "the import has not finished");
    let second = Service::start(config).await.unwrap();
    let (status, reason) = wait_until_finished(&client(&second.url()), "endless").await;
    assert_eq!(status, "CREATE FAILED", "the second service reads the data again");
    assert!(reason.ends_with("Insufficient privileges for accessing data in Amazon S3."), "{reason}");
}

#[tokio::test]
async fn dropped_handle_stops_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(env::config(dir.path())).await.unwrap();
    let address: std::net::SocketAddr = service.url().trim_start_matches("http://").parse().unwrap();
    assert!(tokio::net::TcpStream::connect(address).await.is_ok());
    drop(service);
    env::eventually("the port is closed", || std::net::TcpStream::connect(address).is_err().then_some(())).await;
}
