//! A stand-in with data, for the tests.

#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use personalize_local::{Config, OPERATIONS, Seed, Service};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub(crate) const DATASET: &str = "arn:aws:personalize:eu-west-1:111122223333:dataset/shop/INTERACTIONS";

/// A stand-in on a free port, with `s3://bucket/...` in a directory that goes with it.
pub(crate) struct Bed {
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

/// Waits for a condition with a generous limit.
pub(crate) async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(120);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "gave up waiting: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Status and body of a request to `/_local/`.
pub(crate) async fn http(method: &str, url: &str, body: &str) -> (u16, String) {
    let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = tokio::net::TcpStream::connect(host).await.unwrap();
    let head = format!("{method} /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
    let head = format!("{head}content-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Errors that the model declares and that no rule of the stand-in leads to: nothing says when the service gives them.
const BY_FAULT_ONLY: [(&str, &str); 4] = [
    ("TagResource", "ResourceInUseException"),
    ("TagResource", "LimitExceededException"),
    ("UntagResource", "ResourceInUseException"),
    ("ListTagsForResource", "ResourceInUseException"),
];

/// Operations that never went well and errors of the service model that never came, by the ledger. An error that a
/// fault made counts for those only that have no rule.
pub(crate) fn not_met(service: &Service) -> Vec<String> {
    let ledger = service.ledger();
    let mut not_met = Vec::new();
    for operation in OPERATIONS {
        for wanted in operation.errors.iter().map(|error| Some(*error)).chain([None]) {
            let any = wanted.is_some_and(|error| BY_FAULT_ONLY.contains(&(operation.name, error)));
            let met = |entry: &&personalize_local::Entry| {
                let ours = entry.operation == operation.name && entry.error_code.as_deref() == wanted;
                ours && entry.http_status != 0 && (any || entry.fault.is_none())
            };
            if !ledger.iter().any(|entry| met(&entry)) {
                not_met.push(format!("{} {}", operation.name, wanted.unwrap_or("going well")));
            }
        }
    }
    not_met
}

pub(crate) async fn start() -> Bed {
    let dir = tempfile::tempdir().unwrap();
    write_data(dir.path());
    let service = Service::start(config(dir.path())).await.unwrap();
    Bed { service, dir }
}

/// The objects in `s3://bucket`.
pub(crate) fn write_data(dir: &Path) {
    let bucket = dir.join("data/bucket");
    fs::create_dir_all(bucket.join("folder")).unwrap();
    let rows = |header: &str, row: &str, count: usize| format!("{header}\n{}", format!("{row}\n").repeat(count));
    let header = "USER_ID,ITEM_ID,TIMESTAMP";
    fs::write(bucket.join("interactions.csv"), rows(header, "u,i,1700000000", 1000)).unwrap();
    let (million, long) = ("u,i,1700000000000", format!("{},i,1700000000", "u".repeat(257)));
    fs::write(bucket.join("milliseconds.csv"), rows(header, million, 1000)).unwrap();
    fs::write(bucket.join("long.csv"), rows(header, &long, 1000)).unwrap();
    fs::write(bucket.join("null.csv"), rows(header, "u,,1700000000", 1000)).unwrap();
    fs::write(bucket.join("words.csv"), rows(header, "u,i,yesterday", 1000)).unwrap();
    fs::write(bucket.join("latin.csv"), [header.as_bytes(), b"\nm\xfcller,i,1700000000\n"].concat()).unwrap();
    // Sparse: nothing but its size is ever looked at.
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
