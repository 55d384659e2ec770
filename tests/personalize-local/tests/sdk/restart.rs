//! `--state FILE`: a killed stand-in comes back with everything that a client had an answer for.

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
use personalize_local::{Action, Entry, Fault, Seed, SeedJob, Service};
use serde_json::json;

use crate::{CREATE, arn, bed, client, create, create_from, ended, pipe, process, status};

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
    first.guard.kill().unwrap();

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
    let stopped = second.guard.stop(std::time::Duration::from_secs(60)).unwrap();
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
async fn a_restart_contradicts_no_answer() {
    let dir = tempfile::tempdir().unwrap();
    bed::write_data(dir.path());
    let seed = bed::config(dir.path()).seed;
    let start = async |jobs: &[SeedJob], pending_ms| {
        let mut config = bed::config(dir.path());
        config.state = Some(dir.path().join("state.json"));
        config.seed = Seed { jobs: jobs.to_vec(), ..seed.clone() };
        config.seed.durations.pending_ms = pending_ms;
        config.seed.durations.in_progress_ms = 3_600_000;
        Service::start(config).await.unwrap()
    };
    let [early, late] = ["early", "late"].map(|name| SeedJob::new(name, bed::DATASET));
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
    // Pending takes an hour now: a status that was not kept would go back.
    let second = start(&[early, late], 3_600_000).await;
    let after = client(&second.url());
    assert_eq!(status(&after, "slow").await.unwrap(), "CREATE IN_PROGRESS");
    for name in ["gone", "early"] {
        assert_eq!(status(&after, name).await, not_found, "{name} does not come back");
    }
    assert_eq!(status(&after, "late").await.unwrap(), "ACTIVE", "what the seed has more is there");
}

#[tokio::test]
async fn what_can_not_be_kept_is_not_answered_as_if_it_were() {
    let dir = tempfile::tempdir().unwrap();
    bed::write_data(dir.path());
    let mut config = bed::config(dir.path());
    let place = dir.path().join("state");
    fs::create_dir(&place).unwrap();
    config.state = Some(place.join("state.json"));
    let service = Service::start(config).await.unwrap();
    service.hold("");
    let client = client(&service.url());
    create(&client, "kept").await.unwrap();
    fs::remove_dir_all(&place).unwrap();
    assert_eq!(create(&client, "lost").await, Err("InternalServerException".to_owned()));
    let entry = service.ledger().pop().unwrap();
    assert_eq!((entry.http_status, entry.dataset_import_job_arn), (500, Some(arn("lost"))), "the client is in doubt");
    let hold = bed::http("POST", &format!("{}/_local/holds", service.url()), r#"{"name": "x"}"#).await;
    assert_eq!(hold.0, 500, "{}", hold.1);
    fs::create_dir(&place).unwrap();
    assert_eq!(status(&client, "lost").await.unwrap(), "CREATE PENDING");
    assert!(
        fs::read_to_string(place.join("state.json")).unwrap().contains("lost"),
        "it is written when that is possible again"
    );
}

/// Feeds a pipe for ever, until its reader is gone; counts the bytes.
fn endless(pipe: PathBuf) -> (Arc<AtomicU64>, std::thread::JoinHandle<()>) {
    let fed = Arc::new(AtomicU64::new(0));
    let count = fed.clone();
    let writer = std::thread::spawn(move || {
        let mut pipe = fs::File::options().write(true).open(pipe).unwrap();
        let rows = "u,i,1700000000\n".repeat(1000);
        let mut next = "USER_ID,ITEM_ID,TIMESTAMP\n";
        while pipe.write_all(next.as_bytes()).is_ok() {
            count.fetch_add(next.len() as u64, Ordering::Relaxed);
            next = &rows;
        }
    });
    (fed, writer)
}

async fn is_read(fed: &AtomicU64) {
    let enough = || (fed.load(Ordering::Relaxed) > 1 << 20).then_some(());
    bed::eventually("the data is being read", enough).await;
}

#[tokio::test]
async fn the_process_ends_although_data_is_being_read() {
    let dir = tempfile::tempdir().unwrap();
    bed::write_data(dir.path());
    let bucket = dir.path().join("data/bucket");
    let (fed, writer) = endless(pipe(&bucket.join("endless.csv")));
    pipe(&bucket.join("never-written.csv"));
    let mut process = process::start(dir.path(), &["--pending-ms", "0", "--in-progress-ms", "0"]).await;
    let client = client(&process.url);
    for name in ["endless", "never-written"] {
        create_from(&client, name, &format!("s3://bucket/{name}.csv"), bed::DATASET).await.unwrap();
    }
    is_read(&fed).await;
    let stopped = process.guard.stop(std::time::Duration::from_secs(60)).unwrap();
    assert!(stopped.success(), "{stopped}");
    writer.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_stopped_leaves_the_state_alone() {
    let dir = tempfile::tempdir().unwrap();
    bed::write_data(dir.path());
    let (fed, writer) = endless(pipe(&dir.path().join("data/bucket/endless.csv")));
    let mut config = bed::config(dir.path());
    let state = dir.path().join("state.json");
    config.state = Some(state.clone());
    let first = Service::start(config.clone()).await.unwrap();
    create_from(&client(&first.url()), "endless", "s3://bucket/endless.csv", bed::DATASET).await.unwrap();
    is_read(&fed).await;
    first.stop().await;
    fs::remove_file(dir.path().join("data/bucket/endless.csv")).unwrap();
    // The reader of the first is gone when nobody takes what is written.
    tokio::task::spawn_blocking(move || writer.join().unwrap()).await.unwrap();
    assert!(fs::read_to_string(&state).unwrap().contains("CREATE IN_PROGRESS"), "the import has not ended");
    let second = Service::start(config).await.unwrap();
    let (ended, reason) = ended(&client(&second.url()), "endless").await;
    assert_eq!(ended, "CREATE FAILED", "the second reads anew");
    assert!(reason.ends_with("Insufficient privileges for accessing data in Amazon S3."), "{reason}");
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
