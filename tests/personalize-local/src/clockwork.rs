//! Moves jobs on as time passes, and reads their data when they are due.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;

use crate::{csv_check, job::Job, job::Outcome, schema::Columns, source, world::World};

/// How often due jobs are looked for.
const TICK: Duration = Duration::from_millis(20);

/// The world, shared by the server, the clockwork and the library's handle.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) world: Arc<Mutex<World>>,
    pub(crate) data: PathBuf,
}

impl Shared {
    /// The world as of now.
    pub(crate) fn lock(&self) -> MutexGuard<'_, World> {
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        world.advance(now_ms());
        world
    }
}

/// Milliseconds since the epoch.
pub(crate) fn now_ms() -> i64 {
    Timestamp::now().as_millisecond()
}

/// Everything needed to judge a job's data without the lock.
struct Check {
    arn: String,
    location: String,
    incremental: bool,
    kind: String,
    schema: String,
    refused: Vec<String>,
}

/// Runs until aborted.
pub(crate) async fn run(shared: Shared) {
    loop {
        tokio::time::sleep(TICK).await;
        for check in due(&shared) {
            let shared = shared.clone();
            tokio::task::spawn_blocking(move || {
                let outcome = match judge(&check, &shared.data) {
                    Ok(()) => Outcome::Active,
                    Err(reason) => Outcome::Failed(reason),
                };
                let mut world = shared.lock();
                // It may have been finished by hand in the meantime.
                if let Some(job) = world.job_mut(&check.arn).filter(|job| job.checking) {
                    job.end(outcome, now_ms());
                    tracing::info!(job = %job.name, status = %job.status, reason = job.failure_reason, "import ended");
                }
            });
        }
    }
}

fn due(shared: &Shared) -> Vec<Check> {
    let mut world = shared.lock();
    let (now, durations) = (now_ms(), world.durations);
    let World { jobs, datasets, refusals, .. } = &mut *world;
    let about = |job: &Job| {
        let dataset = datasets.iter().find(|dataset| dataset.arn == job.dataset_arn);
        Check {
            arn: job.arn.clone(),
            location: job.data_location.clone(),
            incremental: job.import_mode == "INCREMENTAL",
            kind: dataset.map(|dataset| dataset.kind.clone()).unwrap_or_default(),
            schema: dataset.map(|dataset| dataset.schema.clone()).unwrap_or_default(),
            refused: refusals.buckets.clone(),
        }
    };
    let due = jobs.iter_mut().filter(|job| job.is_due(now, durations));
    due.map(|job| {
        job.checking = true;
        about(job)
    })
    .collect()
}

fn judge(check: &Check, data: &Path) -> Result<(), String> {
    let source = source::parse(&check.location).ok_or("Invalid Data location.")?;
    if check.refused.contains(&source.bucket) {
        return Err(source::no_access(&source.bucket));
    }
    let files = source::files(&source, data, check.incremental)?;
    csv_check::check(&files, &check.kind, &Columns::parse(&check.schema)?)
}
