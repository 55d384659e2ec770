//! The library's handle on a running stand-in.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, atomic::AtomicBool},
};

use axum::http::Uri;
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{
    Dataset, Entry, Fault, Job, Outcome, Seed, SeedJob, StartError,
    clockwork::{self, Shared, now_ms},
    ledger::Ledger,
    server,
    state_file::{self, StateFile},
    world::World,
};

/// How to start the stand-in.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen; `127.0.0.1:0` picks a free port.
    pub listen: SocketAddr,
    /// What is known at the start.
    pub seed: Seed,
    /// `s3://bucket/key` is read from `data/bucket/key`.
    pub data: PathBuf,
    /// Where the ledger is appended, if anywhere.
    pub ledger: Option<PathBuf>,
    /// Where the state is kept across restarts, if anywhere.
    pub state: Option<PathBuf>,
    /// The STS that `/_local/sts` passes requests on to, if any: `http://HOST:PORT`.
    pub sts: Option<Uri>,
}

impl Config {
    /// On a free port of the loopback interface, with no files but the data.
    pub fn new(seed: Seed, data: impl Into<PathBuf>) -> Self {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self { listen, seed, data: data.into(), ledger: None, state: None, sts: None }
    }
}

/// A running stand-in. Dropping it stops the server and closes its connections.
#[derive(Debug)]
pub struct Service {
    shared: Shared,
    address: SocketAddr,
    tasks: Vec<JoinHandle<()>>,
}

impl Service {
    /// Starts serving on the current tokio runtime.
    ///
    /// # Errors
    /// When the address is taken, a file can't be used, or the seed contradicts itself.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let Config { listen, seed, data, ledger, state, sts } = config;
        let opened = Ledger::open(ledger.as_deref());
        let ledger = opened.map_err(|source| StartError::File { path: ledger.unwrap_or_default(), source })?;
        let mut world = World::new(&seed, ledger, now_ms())?;
        if let Some(path) = &state {
            state_file::load(path, &mut world)?;
            world.state = Some(StateFile::new(path));
        }
        let listening = |source| StartError::Listen { address: listen, source };
        let listener = TcpListener::bind(listen).await.map_err(listening)?;
        let address = listener.local_addr().map_err(listening)?;
        tracing::info!(
            "listening on http://{address}: {} accounts, {} datasets, {} jobs; http://{address}/_local/ shows them",
            world.accounts.len(),
            world.datasets.len(),
            world.jobs.len()
        );
        let shared =
            Shared { world: Arc::new(Mutex::new(world)), data, sts, stopping: Arc::new(AtomicBool::new(false)) };
        let tasks = vec![
            tokio::spawn(server::run(listener, server::router(shared.clone()))),
            tokio::spawn(clockwork::run(shared.clone())),
        ];
        Ok(Self { shared, address, tasks })
    }

    /// The endpoint, `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The latest 10,000 requests, the oldest first; the ledger's file has all.
    pub fn ledger(&self) -> Vec<Entry> {
        self.shared.lock().ledger.latest().cloned().collect()
    }

    /// Every job, in the order of creation.
    pub fn jobs(&self) -> Vec<Job> {
        self.shared.lock().jobs.clone()
    }

    /// Adds a fault after those that are there.
    pub fn add_fault(&self, fault: Fault) {
        self.shared.lock().faults.push(fault);
    }

    /// The faults that have not been spent.
    pub fn faults(&self) -> Vec<Fault> {
        self.shared.lock().faults.clone()
    }

    /// Removes all faults.
    pub fn clear_faults(&self) {
        self.shared.lock().faults.clear();
    }

    /// Adds a dataset, or replaces the one of the same ARN.
    ///
    /// # Errors
    /// When its ARN or schema is not one, with a sentence that says why.
    pub fn add_dataset(&self, dataset: &Dataset) -> Result<(), String> {
        self.shared.lock().add_dataset(dataset, now_ms())
    }

    /// Sets a dataset's status; `false` if there is no such dataset.
    pub fn set_dataset_status(&self, arn: &str, status: &str) -> bool {
        self.shared.lock().set_dataset_status(arn, status, now_ms())
    }

    /// Ends a job, by name or ARN, now; `false` if there is no such job.
    pub fn finish(&self, name_or_arn: &str, outcome: Outcome) -> bool {
        self.shared.lock().finish(name_or_arn, outcome, now_ms())
    }

    /// Jobs whose name contains this stay where they are, also those to come. The empty string is all jobs.
    pub fn hold(&self, name: &str) {
        self.shared.lock().hold(name);
    }

    /// Held jobs whose name contains this go on; the time in their present state starts anew.
    pub fn release(&self, name: &str) {
        self.shared.lock().release(name, now_ms());
    }

    /// Starts a job as if somebody else had, and gives its ARN.
    ///
    /// # Errors
    /// When the name is taken or the dataset ARN is not one.
    pub fn start_job(&self, job: &SeedJob) -> Result<String, String> {
        self.shared.lock().start_job(job, now_ms())
    }

    /// Stops the server, and returns when the port is free. What is read just now is given up at the next record.
    pub async fn stop(mut self) {
        self.shared.stop();
        for task in std::mem::take(&mut self.tasks) {
            task.abort();
            // Aborted on purpose: the error says no more than that.
            let _ = task.await;
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.shared.stop();
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}
