//! The stand-in service of one test: the real program, with a seed of its own.

use crate::env::{ACCOUNT, dataset_arn, eventually, http};
use control_plane::{Tethered, tether};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

pub const ACCESS_KEY: &str = "AKIATESTTESTTESTTEST";
pub const SECRET_KEY: &str = "a-secret-that-must-not-show/+anywhere+01";
/// Another account, which the key above is no good for.
pub const OTHER_ACCOUNT: &str = "210987654321";
pub const OTHER_ACCESS_KEY: &str = "ASIAOTHEROTHEROTHERO";
/// A key of the first account that is as temporary as the other account's.
pub const TEMPORARY_ACCESS_KEY: &str = "ASIATEMPTEMPTEMPTEMP";
pub const TEMPORARY_SECRET_KEY: &str = "TempSecretThatMustNotShow/0+anywhere0123";
pub const SESSION_TOKEN: &str = "IQoJb3JpZ2luX2VjEJr//////////wEaCWV1LXdlc3QtMSJGMEQCIGxThisTokenMustNotShowAnywhere0123456789/AbCdEfGhIjKlMnOpQrStUvWxYz+ThisTokenMustNotShow==";
pub const UNREADABLE: &str = "s3://locked/interactions.csv";

const SCHEMA: &str = r#"{"type":"record","name":"Interactions","namespace":"com.amazonaws.personalize.schema","fields":[{"name":"USER_ID","type":"string"},{"name":"ITEM_ID","type":"string"},{"name":"TIMESTAMP","type":"long"}],"version":"1.0"}"#;

/// A running stand-in. It ends with the test.
pub struct Service {
    _process: Tethered,
    url: String,
    ledger: PathBuf,
}

/// The stand-in beside the test's own program.
fn program() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let path = own.parent().unwrap().parent().unwrap().join("personalize-local");
    assert!(path.is_file(), "{} is missing: run `cargo build --workspace --bins` first", path.display());
    path
}

impl Service {
    /// Starts it with 30 datasets `d0` … `d29` that are ACTIVE, in each of two regions and in another
    /// account, and a CSV of 1500 interactions.
    pub fn start(dir: &Path) -> Self {
        let data = dir.join("data/bucket");
        fs::create_dir_all(&data).unwrap();
        let row = |i: u32| format!("user{},item{},{}\n", i % 70, i % 30, 1_700_000_000 + i);
        fs::write(
            data.join("interactions.csv"),
            format!("USER_ID,ITEM_ID,TIMESTAMP\n{}", (0..1500).map(row).collect::<String>()),
        )
        .unwrap();
        fs::write(data.join("few.csv"), "USER_ID,ITEM_ID,TIMESTAMP\nu,i,1700000000\n").unwrap();
        fs::write(data.join("no-item.csv"), "USER_ID,TIMESTAMP\nu,1700000000\n").unwrap();
        let datasets: Vec<Value> = (0..30)
            .flat_map(|i| {
                let arn = dataset_arn(&format!("d{i}"));
                [arn.replace("eu-west-1", "us-east-1"), arn.replace(ACCOUNT, OTHER_ACCOUNT), arn]
            })
            .map(|arn| json!({"arn": arn, "type": "Interactions", "status": "ACTIVE", "schema": SCHEMA}))
            .collect();
        let temporary = |id: &str| json!({"id": id, "secret": TEMPORARY_SECRET_KEY, "sessionToken": SESSION_TOKEN});
        let own = json!({"id": ACCESS_KEY, "secret": SECRET_KEY});
        let seed = json!({
            "accounts": [
                {"id": ACCOUNT, "accessKeys": [own, temporary(TEMPORARY_ACCESS_KEY)]},
                {"id": OTHER_ACCOUNT, "accessKeys": [temporary(OTHER_ACCESS_KEY)]},
            ],
            "datasets": datasets,
            "durations": {"pendingMs": 300, "inProgressMs": 500},
            "refusals": {"buckets": ["locked"]},
        });
        fs::write(dir.join("seed.yaml"), seed.to_string()).unwrap();
        let (ledger, out) = (dir.join("ledger.jsonl"), dir.join("service.out"));
        let arg = |name: &str, path: &Path| [name.to_owned(), path.display().to_string()];
        let args: Vec<String> = ["--listen".to_owned(), "127.0.0.1:0".to_owned()]
            .into_iter()
            .chain(arg("--seed", &dir.join("seed.yaml")))
            .chain(arg("--data", &dir.join("data")))
            .chain(arg("--ledger", &ledger))
            .collect();
        let log = fs::File::create(dir.join("service.log")).unwrap();
        let stdout = fs::File::create(&out).unwrap();
        let process = tether(&program(), &args, |command| {
            command.stdout(stdout).stderr(log);
        })
        .unwrap();
        let url = eventually("the stand-in listens", || {
            let told = fs::read_to_string(&out).ok()?;
            let at = told.find("http://")?;
            told[at..].contains('\n').then(|| told[at..].trim().to_owned())
        });
        Self { _process: process, url, ledger }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn ledger(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.ledger).unwrap_or_default();
        // The last line may be half written.
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// How often this operation was called.
    pub fn calls(&self, operation: &str) -> usize {
        self.ledger().iter().filter(|line| line["operation"] == operation).count()
    }

    fn local(&self, method: &str, path: &str, body: &Value) -> String {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (status, answer) = http(method, &format!("{}/_local/{path}", self.url), &body).unwrap();
        assert!(status < 300, "{path}: {status} {answer}");
        answer
    }

    pub fn fault(&self, fault: &Value) {
        self.local("POST", "faults", fault);
    }

    pub fn clear_faults(&self) {
        self.local("DELETE", "faults", &Value::Null);
    }

    /// Jobs take so long from now on, in milliseconds; those under way, too.
    pub fn durations(&self, pending: u64, in_progress: u64) {
        self.local("POST", "durations", &json!({"pendingMs": pending, "inProgressMs": in_progress}));
    }

    pub fn jobs(&self) -> Vec<Value> {
        serde_json::from_str(&self.local("GET", "jobs", &Value::Null)).unwrap()
    }

    pub fn running(&self) -> usize {
        self.jobs().iter().filter(|j| j["status"] != "ACTIVE" && j["status"] != "CREATE FAILED").count()
    }

    /// Makes a job that somebody else started.
    pub fn put_job(&self, job: &Value) {
        self.local("POST", "jobs", job);
    }

    /// Ends a job well, now.
    pub fn finish(&self, name: &str) {
        self.finish_as(name, &json!("active"));
    }

    /// Ends a job as told, now.
    pub fn finish_as(&self, name: &str, outcome: &Value) {
        self.local("POST", "jobs/finish", &json!({"job": name, "outcome": outcome}));
    }

    /// The next look at the job finds that it never was.
    pub fn vanish(&self, name: &str) {
        self.fault(&json!({"operation": "DescribeDatasetImportJob", "name": name, "action": "vanish"}));
    }

    pub fn put_dataset(&self, name: &str, status: &str) {
        self.local(
            "POST",
            "datasets",
            &json!({"arn": dataset_arn(name), "type": "Interactions", "status": status, "schema": SCHEMA}),
        );
    }
}
