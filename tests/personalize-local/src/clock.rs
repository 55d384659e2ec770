//! Advances jobs as time passes, and reads their data when their time in `CREATE IN_PROGRESS` is over.

use std::time::Duration;

use jiff::Timestamp;

use crate::{
    app::AppState,
    data::{
        csv_check::{self, CheckError},
        schema::{Columns, DatasetType},
        source,
    },
    sanitize::one_line,
    store::{
        Store,
        job::{Job, Outcome},
    },
};

/// How often jobs are checked.
const TICK: Duration = Duration::from_millis(20);

/// Milliseconds since the epoch.
pub(crate) fn now_ms() -> i64 {
    Timestamp::now().as_millisecond()
}

/// A copy of everything that reading a job's data needs, so that the store is not locked meanwhile.
struct DataCheck {
    job_arn: String,
    location: String,
    incremental: bool,
    dataset_type: String,
    schema: String,
    refused_buckets: Vec<String>,
}

/// Runs until aborted.
pub(crate) async fn run(app: AppState) {
    loop {
        tokio::time::sleep(TICK).await;
        for check in take_due_jobs(&app) {
            let app = app.clone();
            tokio::task::spawn_blocking(move || {
                let (outcome, detail) = match check_data(&check, &app) {
                    Ok(records) => (Outcome::Active, format!(", {records} records read")),
                    Err(CheckError::Failed(reason)) => (Outcome::Failed(reason), String::new()),
                    Err(CheckError::Stopped) => return,
                };
                let mut store = app.lock();
                // A request to /_local/ may have finished the job meanwhile.
                if let Some(job) = store.job_mut(&check.job_arn).filter(|job| job.checking) {
                    job.finish(outcome, now_ms());
                    let reason = job.failure_reason.as_deref().map(|reason| format!(": {}", one_line(reason)));
                    tracing::info!("job {}: {}{}", job.name, job.status, reason.unwrap_or(detail));
                }
            });
        }
    }
}

/// Marks the jobs that are due as being checked, and returns their checks.
fn take_due_jobs(app: &AppState) -> Vec<DataCheck> {
    let mut store = app.lock();
    let (now, durations) = (now_ms(), store.durations);
    let Store { jobs, datasets, refusals, .. } = &mut *store;
    let check = |job: &Job| {
        let dataset = datasets.iter().find(|dataset| dataset.arn == job.dataset_arn);
        DataCheck {
            job_arn: job.arn.clone(),
            location: job.data_location.clone(),
            incremental: job.import_mode == "INCREMENTAL",
            dataset_type: dataset.map(|dataset| dataset.type_name.clone()).unwrap_or_default(),
            schema: dataset.map(|dataset| dataset.schema.clone()).unwrap_or_default(),
            refused_buckets: refusals.buckets.clone(),
        }
    };
    let due = jobs.iter_mut().filter(|job| job.is_due(now, durations));
    due.map(|job| {
        job.checking = true;
        check(job)
    })
    .collect()
}

/// Returns the number of records in the data, or why the import fails.
fn check_data(check: &DataCheck, app: &AppState) -> Result<u64, CheckError> {
    let DataCheck { location, incremental, dataset_type, schema, refused_buckets, .. } = check;
    let location = source::parse(location).ok_or_else(|| "Invalid Data location.".to_owned())?;
    if refused_buckets.contains(&location.bucket) {
        return Err(source::access_denied(dataset_type).into());
    }
    let files = source::files(&location, &app.data, dataset_type, *incremental)?;
    let columns = Columns::parse(schema, DatasetType::from_name(dataset_type))?;
    csv_check::check(&files, dataset_type, *incremental, &columns, &app.stopping)
}
