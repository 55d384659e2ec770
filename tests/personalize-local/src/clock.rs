//! Moves jobs on as time passes, and reads their data when they are due.

use std::{
    ops::{Deref, DerefMut},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::http::Uri;
use jiff::Timestamp;

use crate::{
    csv_check::{self, Ended},
    job::{Job, Outcome},
    schema::{Columns, Kind},
    source, state_file,
    text::one_line,
    world::World,
};

/// How often due jobs are looked for.
const TICK: Duration = Duration::from_millis(20);

/// The world, locked. Whatever changed is in the state file before anybody else sees it.
pub(crate) struct Locked<'a>(MutexGuard<'a, World>);

impl Deref for Locked<'_> {
    type Target = World;

    fn deref(&self) -> &World {
        &self.0
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut World {
        &mut self.0
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // Whoever has an answer to give asks by itself whether this went well.
        state_file::keep(&mut self.0);
    }
}

/// The world, shared by the server, the clockwork and the library's handle.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) world: Arc<Mutex<World>>,
    pub(crate) data: PathBuf,
    pub(crate) sts: Option<Uri>,
    /// Set once, when the stand-in stops: whoever reads data gives up.
    pub(crate) stopping: Arc<AtomicBool>,
}

impl Shared {
    /// The world as of now.
    pub(crate) fn lock(&self) -> Locked<'_> {
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        world.advance(now_ms());
        Locked(world)
    }

    /// From here on nothing changes, in memory or in the state file, which another stand-in may use by now.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.lock().state = None;
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
                let (outcome, read) = match judge(&check, &shared) {
                    Ok(records) => (Outcome::Active, format!(", {records} records read")),
                    Err(Ended::Failed(reason)) => (Outcome::Failed(reason), String::new()),
                    Err(Ended::Stopped) => return,
                };
                let mut world = shared.lock();
                // It may have been finished by hand in the meantime.
                if let Some(job) = world.job_mut(&check.arn).filter(|job| job.checking) {
                    job.end(outcome, now_ms());
                    let reason = job.failure_reason.as_deref().map(|reason| format!(": {}", one_line(reason)));
                    tracing::info!("job {}: {}{}", job.name, job.status, reason.unwrap_or(read));
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

/// How many records the import takes over, or why it fails.
fn judge(check: &Check, shared: &Shared) -> Result<u64, Ended> {
    let Check { location, incremental, kind, schema, refused, .. } = check;
    let source = source::parse(location).ok_or_else(|| "Invalid Data location.".to_owned())?;
    if refused.contains(&source.bucket) {
        return Err(source::no_access(kind).into());
    }
    let files = source::files(&source, &shared.data, kind, *incremental)?;
    csv_check::check(&files, kind, *incremental, &Columns::parse(schema, Kind::of(kind))?, &shared.stopping)
}
