//! The library's handle of a running stand-in.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, atomic::AtomicBool},
};

use axum::http::Uri;
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{
    Dataset, DeletionJob, Fault, Job, LedgerEntry, Outcome, Seed, SeedJob, StartError,
    app::AppState,
    clock::{self, now_ms},
    server,
    store::{
        Store,
        ledger::Ledger,
        state_file::{self, StateFile},
    },
};

/// How to start the stand-in.
#[derive(Debug, Clone)]
pub struct Config {
    /// The address to listen on; `127.0.0.1:0` picks a free port.
    pub listen: SocketAddr,
    /// The accounts, datasets and jobs that exist at the start.
    pub seed: Seed,
    /// `s3://bucket/key` is read from `data/bucket/key`.
    pub data: PathBuf,
    /// The file that the ledger is appended to, if any.
    pub ledger: Option<PathBuf>,
    /// The file that persists the state across restarts, if any.
    pub state: Option<PathBuf>,
    /// The STS that `/_local/sts` forwards requests to, if any: `http://HOST:PORT`.
    pub sts: Option<Uri>,
}

impl Config {
    /// A stand-in on a free port of the loopback interface, without ledger file, state file and STS.
    pub fn new(seed: Seed, data: impl Into<PathBuf>) -> Self {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self { listen, seed, data: data.into(), ledger: None, state: None, sts: None }
    }
}

/// A running stand-in. Dropping it stops the server and closes its connections.
#[derive(Debug)]
pub struct Service {
    app: AppState,
    address: SocketAddr,
    tasks: Vec<JoinHandle<()>>,
}

impl Service {
    /// Starts the server on the current tokio runtime.
    ///
    /// # Errors
    /// If the address can't be bound, a file can't be used, or the seed is invalid.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let Config { listen, seed, data, ledger, state, sts } = config;
        let opened = Ledger::open(ledger.as_deref());
        let ledger = opened.map_err(|source| StartError::File { path: ledger.unwrap_or_default(), source })?;
        let mut store = Store::new(&seed, ledger, now_ms())?;
        if let Some(path) = &state {
            state_file::load(path, &mut store)?;
            store.state_file = Some(StateFile::new(path));
        }
        let listen_error = |source| StartError::Listen { address: listen, source };
        let listener = TcpListener::bind(listen).await.map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        tracing::info!(
            "listening on http://{address}: {} accounts, {} datasets, {} jobs; dashboard at http://{address}/_local/",
            store.accounts.len(),
            store.datasets.len(),
            store.jobs.len()
        );
        let app =
            AppState { store: Arc::new(Mutex::new(store)), data, sts, stopping: Arc::new(AtomicBool::new(false)) };
        let tasks = vec![
            tokio::spawn(server::run(listener, server::router(app.clone()))),
            tokio::spawn(clock::run(app.clone())),
        ];
        Ok(Self { app, address, tasks })
    }

    /// The endpoint, `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The latest 10,000 requests, oldest first. The ledger file has all requests.
    pub fn ledger(&self) -> Vec<LedgerEntry> {
        self.app.lock().ledger.latest().cloned().collect()
    }

    /// All jobs, in the order of creation.
    pub fn jobs(&self) -> Vec<Job> {
        self.app.lock().jobs.clone()
    }

    /// All data deletion jobs, in the order of creation.
    pub fn deletions(&self) -> Vec<DeletionJob> {
        self.app.lock().deletions.clone()
    }

    /// Adds a fault at the end of the list.
    pub fn add_fault(&self, fault: Fault) {
        self.app.lock().faults.push(fault);
    }

    /// The faults that are still pending.
    pub fn faults(&self) -> Vec<Fault> {
        self.app.lock().faults.clone()
    }

    /// Removes all faults.
    pub fn clear_faults(&self) {
        self.app.lock().faults.clear();
    }

    /// Adds a dataset, or replaces the dataset with the same ARN.
    ///
    /// # Errors
    /// If its ARN or schema is invalid, with the reason.
    pub fn add_dataset(&self, dataset: &Dataset) -> Result<(), String> {
        self.app.lock().add_dataset(dataset, now_ms())
    }

    /// Sets the status of a dataset; `false` if the dataset does not exist.
    pub fn set_dataset_status(&self, arn: &str, status: &str) -> bool {
        self.app.lock().set_dataset_status(arn, status, now_ms())
    }

    /// Finishes a job now, by name or ARN; `false` if the job does not exist.
    pub fn finish(&self, name_or_arn: &str, outcome: Outcome) -> bool {
        self.app.lock().finish(name_or_arn, outcome, now_ms())
    }

    /// Holds all jobs whose name contains `name`, including future ones, in their current state. The empty string
    /// matches every job.
    pub fn hold(&self, name: &str) {
        self.app.lock().hold(name);
    }

    /// Releases held jobs whose name contains `name`; the time in their current state restarts.
    pub fn release(&self, name: &str) {
        self.app.lock().release(name, now_ms());
    }

    /// Starts a job on behalf of another client, and returns its ARN.
    ///
    /// # Errors
    /// If a job with this name exists or the dataset ARN is invalid.
    pub fn start_job(&self, job: &SeedJob) -> Result<String, String> {
        self.app.lock().start_job(job, now_ms())
    }

    /// Stops the server, and returns once the port is free. Threads that read data stop at the next record.
    pub async fn stop(mut self) {
        self.app.stop();
        for task in std::mem::take(&mut self.tasks) {
            task.abort();
            // The only error is the abort itself.
            let _ = task.await;
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.app.stop();
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}
