//! A stand-in with data, for the tests.

use std::{fs, path::Path};

use personalize_local::{Config, Seed, Service};

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

pub(crate) async fn start() -> Bed {
    let dir = tempfile::tempdir().unwrap();
    let bucket = dir.path().join("data/bucket");
    fs::create_dir_all(bucket.join("folder")).unwrap();
    let rows = |header: &str, row: &str, count: usize| format!("{header}\n{}", format!("{row}\n").repeat(count));
    let header = "USER_ID,ITEM_ID,TIMESTAMP";
    fs::write(bucket.join("interactions.csv"), rows(header, "u,i,1700000000", 1000)).unwrap();
    fs::write(bucket.join("few.csv"), rows(header, "u,i,1700000000", 999)).unwrap();
    fs::write(bucket.join("no-item.csv"), rows("USER_ID,TIMESTAMP", "u,1700000000", 1000)).unwrap();
    fs::write(bucket.join("folder/a.csv"), rows(header, "u,i,1700000000", 500)).unwrap();
    fs::write(bucket.join("folder/b.csv"), rows(header, "u,i,1700000000", 500)).unwrap();
    let service = Service::start(config(dir.path())).await.unwrap();
    Bed { service, dir }
}
