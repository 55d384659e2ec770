//! The test environment: a stand-in with accounts, datasets and data.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use personalize_local::{Config, OPERATIONS, Seed, Service};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub(crate) const DATASET: &str = "arn:aws:personalize:eu-west-1:111122223333:dataset/shop/INTERACTIONS";

/// A stand-in on a free port. Its data and its ledger are in a temporary directory.
pub(crate) struct TestEnv {
    pub(crate) service: Service,
    pub(crate) dir: tempfile::TempDir,
}

fn seed() -> Seed {
    Seed::from_yaml(include_str!("../seed.yaml")).unwrap()
}

pub(crate) fn config(dir: &Path) -> Config {
    let mut config = Config::new(seed(), dir.join("data"));
    config.ledger = Some(dir.join("ledger.jsonl"));
    config
}

/// Waits until a condition holds; fails after two minutes.
pub(crate) async fn eventually<T>(condition: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(Instant::now() < deadline, "timed out waiting until {condition}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Sends a request to `/_local/`, and returns the status and body of the response.
pub(crate) async fn http(method: &str, url: &str, body: &str) -> (u16, String) {
    let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = tokio::net::TcpStream::connect(host).await.unwrap();
    let head = format!("{method} /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
    let head = format!("{head}content-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Declared errors that only a fault can cause: it is not documented when the service returns them.
const FAULT_ONLY_ERRORS: [(&str, &str); 6] = [
    ("TagResource", "ResourceInUseException"),
    ("TagResource", "LimitExceededException"),
    ("UntagResource", "ResourceInUseException"),
    ("ListTagsForResource", "ResourceInUseException"),
    ("CreateDataDeletionJob", "ResourceInUseException"),
    ("CreateDataDeletionJob", "LimitExceededException"),
];

/// Operations that never succeeded, and declared errors that never occurred, according to the ledger. Errors caused by
/// faults count only for `FAULT_ONLY_ERRORS`.
pub(crate) fn uncovered(service: &Service) -> Vec<String> {
    let ledger = service.ledger();
    let mut uncovered = Vec::new();
    for operation in OPERATIONS {
        for expected in operation.errors.iter().map(|error| Some(*error)).chain([None]) {
            let fault_only = expected.is_some_and(|error| FAULT_ONLY_ERRORS.contains(&(operation.name, error)));
            let covers = |entry: &&personalize_local::LedgerEntry| {
                let matches = entry.operation == operation.name && entry.error_code.as_deref() == expected;
                matches && entry.http_status != 0 && (fault_only || entry.fault.is_none())
            };
            if !ledger.iter().any(|entry| covers(&entry)) {
                uncovered.push(format!("{} {}", operation.name, expected.unwrap_or("success")));
            }
        }
    }
    uncovered
}

pub(crate) async fn start() -> TestEnv {
    let dir = tempfile::tempdir().unwrap();
    write_data(dir.path());
    let service = Service::start(config(dir.path())).await.unwrap();
    TestEnv { service, dir }
}

/// Writes the objects in `s3://bucket`.
pub(crate) fn write_data(dir: &Path) {
    let bucket = dir.join("data/bucket");
    fs::create_dir_all(bucket.join("folder")).unwrap();
    let rows = |header: &str, row: &str, count: usize| format!("{header}\n{}", format!("{row}\n").repeat(count));
    let header = "USER_ID,ITEM_ID,TIMESTAMP";
    fs::write(bucket.join("interactions.csv"), rows(header, "u,i,1700000000", 1000)).unwrap();
    let (milliseconds, long_id) = ("u,i,1700000000000", format!("{},i,1700000000", "u".repeat(257)));
    fs::write(bucket.join("milliseconds.csv"), rows(header, milliseconds, 1000)).unwrap();
    fs::write(bucket.join("long.csv"), rows(header, &long_id, 1000)).unwrap();
    fs::write(bucket.join("null.csv"), rows(header, "u,,1700000000", 1000)).unwrap();
    fs::write(bucket.join("words.csv"), rows(header, "u,i,yesterday", 1000)).unwrap();
    fs::write(bucket.join("latin.csv"), [header.as_bytes(), b"\nm\xfcller,i,1700000000\n"].concat()).unwrap();
    // A sparse file: only its size is read.
    fs::File::create(bucket.join("huge.csv")).unwrap().set_len((1 << 30) + 1).unwrap();
    fs::write(bucket.join("few.csv"), rows(header, "u,i,1700000000", 999)).unwrap();
    fs::write(bucket.join("no-item.csv"), rows("USER_ID,TIMESTAMP", "u,1700000000", 1000)).unwrap();
    fs::write(bucket.join("quoted.csv"), rows("\"USER_ID\",ITEM_ID,TIMESTAMP", "u,i,1700000000", 1000)).unwrap();
    fs::write(bucket.join("lines.csv"), rows(header, "u,\"i\n\",1700000000", 1000)).unwrap();
    fs::create_dir_all(bucket.join("mixed")).unwrap();
    fs::write(bucket.join("mixed/a.csv"), rows(header, "u,i,1700000000", 1000)).unwrap();
    fs::write(bucket.join("mixed/b.csv"), rows("ITEM_ID,USER_ID,TIMESTAMP", "i,u,1700000000", 1000)).unwrap();
    fs::write(bucket.join("folder/a.csv"), rows(header, "u,i,1700000000", 500)).unwrap();
    fs::write(bucket.join("folder/b.csv"), rows(header, "u,i,1700000000", 500)).unwrap();
}
