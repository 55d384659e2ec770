//! The stand-in service of one test: the real `personalize-local` with a seed for this test.

use super::{ACCOUNT, dataset_arn, eventually, http};
use control_plane::ChildGuard;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

pub const ACCESS_KEY: &str = "AKIATESTTESTTESTTEST";
pub const SECRET_KEY: &str = "a-secret-that-must-not-show/+anywhere+01";
/// Another account. The key above is not valid for it.
pub const OTHER_ACCOUNT: &str = "210987654321";
pub const OTHER_ACCESS_KEY: &str = "ASIAOTHEROTHEROTHERO";
/// A temporary key of the first account.
pub const TEMPORARY_ACCESS_KEY: &str = "ASIATEMPTEMPTEMPTEMP";
pub const TEMPORARY_SECRET_KEY: &str = "TempSecretThatMustNotShow/0+anywhere0123";
pub const SESSION_TOKEN: &str = "IQoJb3JpZ2luX2VjEJr//////////wEaCWV1LXdlc3QtMSJGMEQCIGxThisTokenMustNotShowAnywhere0123456789/AbCdEfGhIjKlMnOpQrStUvWxYz+ThisTokenMustNotShow==";
/// Data that the service may not read.
pub const UNREADABLE: &str = "s3://locked/interactions.csv";

pub const SCHEMA: &str = r#"{"type":"record","name":"Interactions","namespace":"com.amazonaws.personalize.schema","fields":[{"name":"USER_ID","type":"string"},{"name":"ITEM_ID","type":"string"},{"name":"TIMESTAMP","type":"long"}],"version":"1.0"}"#;

/// A running stand-in. It stops when the test ends.
pub struct PersonalizeLocal {
    _process: ChildGuard,
    url: String,
    ledger: PathBuf,
}

/// The stand-in's program, next to the test binary.
fn program() -> PathBuf {
    let test_binary = std::env::current_exe().unwrap();
    let path = test_binary.parent().unwrap().parent().unwrap().join("personalize-local");
    assert!(path.is_file(), "{} is missing: run `cargo build --workspace --bins` first", path.display());
    path
}

impl PersonalizeLocal {
    /// Starts it with 30 ACTIVE datasets `d0` … `d29`, in two regions and in another account, and a CSV of 1500
    /// interactions. `settings` are added to its seed. Requests to STS are forwarded to `sts`.
    pub fn start(dir: &Path, settings: &Value, sts: Option<&str>) -> Self {
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
        let permanent = json!({"id": ACCESS_KEY, "secret": SECRET_KEY});
        let mut seed = json!({
            "accounts": [
                {"id": ACCOUNT, "accessKeys": [permanent, temporary(TEMPORARY_ACCESS_KEY)]},
                {"id": OTHER_ACCOUNT, "accessKeys": [temporary(OTHER_ACCESS_KEY)]},
            ],
            "datasets": datasets,
            "durations": {"pendingMs": 300, "inProgressMs": 500},
            "refusals": {"buckets": ["locked"]},
        });
        if let (Some(seed), Value::Object(settings)) = (seed.as_object_mut(), settings.clone()) {
            seed.extend(settings);
        }
        fs::write(dir.join("seed.yaml"), seed.to_string()).unwrap();
        let (ledger, out) = (dir.join("ledger.jsonl"), dir.join("service.out"));
        let arg = |name: &str, path: &Path| [name.to_owned(), path.display().to_string()];
        let args: Vec<String> = ["--listen".to_owned(), "127.0.0.1:0".to_owned()]
            .into_iter()
            .chain(arg("--seed", &dir.join("seed.yaml")))
            .chain(arg("--data", &dir.join("data")))
            .chain(arg("--ledger", &ledger))
            .chain(sts.map(|url| format!("--sts={url}")))
            .collect();
        let log = fs::File::create(dir.join("service.log")).unwrap();
        let stdout = fs::File::create(&out).unwrap();
        let process = ChildGuard::spawn(&program(), &args, |command| {
            command.stdout(stdout).stderr(log);
        })
        .unwrap();
        let url = eventually("the stand-in listens", || {
            let output = fs::read_to_string(&out).ok()?;
            let start = output.find("http://")?;
            output[start..].contains('\n').then(|| output[start..].trim().to_owned())
        });
        Self { _process: process, url, ledger }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// One JSON object per request so far.
    pub fn ledger(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.ledger).unwrap_or_default();
        // The last line may be incomplete.
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    pub fn call_count(&self, operation: &str) -> usize {
        self.ledger().iter().filter(|line| line["operation"] == operation).count()
    }

    /// Calls the control endpoints under `/_local/`.
    fn control(&self, method: &str, path: &str, body: &Value) -> String {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (status, response) = http(method, &format!("{}/_local/{path}", self.url), &body).unwrap();
        assert!(status < 300, "{path}: {status} {response}");
        response
    }

    pub fn inject_fault(&self, fault: &Value) {
        self.control("POST", "faults", fault);
    }

    /// The service rejects every import into this dataset.
    pub fn reject_imports_into(&self, dataset: &str) {
        let rejection = json!({"error": {"code": "InvalidInputException", "message": "injected", "status": 400}});
        let (operation, name) = ("CreateDatasetImportJob", dataset_arn(dataset));
        self.inject_fault(&json!({"operation": operation, "name": name, "count": 0, "action": rejection}));
    }

    /// The injected faults that are not used up.
    pub fn faults(&self) -> Vec<Value> {
        serde_json::from_str(&self.control("GET", "faults", &Value::Null)).unwrap()
    }

    pub fn clear_faults(&self) {
        self.control("DELETE", "faults", &Value::Null);
    }

    /// Sets how long jobs take, in milliseconds. This also applies to running jobs.
    pub fn set_durations(&self, pending: u64, in_progress: u64) {
        self.control("POST", "durations", &json!({"pendingMs": pending, "inProgressMs": in_progress}));
    }

    pub fn jobs(&self) -> Vec<Value> {
        serde_json::from_str(&self.control("GET", "jobs", &Value::Null)).unwrap()
    }

    pub fn running_count(&self) -> usize {
        self.jobs().iter().filter(|j| j["status"] != "ACTIVE" && j["status"] != "CREATE FAILED").count()
    }

    /// Creates a job without the operator.
    pub fn put_job(&self, job: &Value) {
        self.control("POST", "jobs", job);
    }

    /// Makes a job succeed now.
    pub fn finish_job(&self, name: &str) {
        self.finish_job_with(name, &json!("active"));
    }

    pub fn finish_job_with(&self, name: &str, outcome: &Value) {
        self.control("POST", "jobs/finish", &json!({"job": name, "outcome": outcome}));
    }

    /// Expires the sessions that STS issued for this account.
    pub fn expire_sessions(&self, account: &str) {
        self.control("POST", "sessions/expire", &json!({"account": account}));
    }

    /// The next describe call removes the job and returns not found.
    pub fn vanish_job(&self, name: &str) {
        self.inject_fault(&json!({"operation": "DescribeDatasetImportJob", "name": name, "action": "vanish"}));
    }

    /// Starts a data deletion job in the dataset group of this name. It runs until it is finished.
    pub fn start_data_deletion(&self, name: &str, group: &str) {
        let group = dataset_arn("").replace(":dataset/shop/", &format!(":dataset-group/{group}"));
        self.control("POST", "deletions", &json!({"name": name, "datasetGroupArn": group}));
    }

    pub fn finish_data_deletion(&self, name: &str) {
        self.control("POST", "deletions/finish", &json!({"job": name, "outcome": "active"}));
    }

    pub fn data_deletions(&self) -> Vec<Value> {
        serde_json::from_str(&self.control("GET", "deletions", &Value::Null)).unwrap()
    }

    pub fn put_dataset(&self, name: &str, status: &str) {
        self.control(
            "POST",
            "datasets",
            &json!({"arn": dataset_arn(name), "type": "Interactions", "status": status, "schema": SCHEMA}),
        );
    }
}
