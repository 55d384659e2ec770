//! `--state FILE`: jobs, datasets' states and tags survive a restart.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    StartError,
    clockwork::Shared,
    job::{Job, Tag},
    world::World,
};

/// How often a changed state is written.
const INTERVAL: Duration = Duration::from_millis(50);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct State {
    jobs: Vec<Job>,
    datasets: Vec<DatasetState>,
    holds: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DatasetState {
    arn: String,
    status: String,
    tags: Vec<Tag>,
}

/// Takes over what an earlier run left. A missing file is an empty state.
pub(crate) fn load(path: &Path, world: &mut World) -> Result<(), StartError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(StartError::File { path: path.to_owned(), source }),
    };
    let state: State =
        serde_json::from_str(&text).map_err(|source| StartError::State { path: path.to_owned(), source })?;
    world.jobs = state.jobs;
    world.holds = state.holds;
    for saved in state.datasets {
        if let Some(dataset) = world.datasets.iter_mut().find(|dataset| dataset.arn == saved.arn) {
            dataset.status = saved.status;
            dataset.tags = saved.tags;
        }
    }
    Ok(())
}

/// Writes the state whenever it has changed, until aborted.
pub(crate) async fn keep(path: PathBuf, shared: Shared) {
    let mut written = None;
    loop {
        {
            let world = shared.lock();
            if written != Some(world.revision) {
                written = Some(world.revision);
                save(&path, &world);
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Replaces the file in one step, so that a crash leaves the old or the new one.
pub(crate) fn save(path: &Path, world: &World) {
    let dataset = |dataset: &crate::world::KnownDataset| DatasetState {
        arn: dataset.arn.clone(),
        status: dataset.status.clone(),
        tags: dataset.tags.clone(),
    };
    let state = State {
        jobs: world.jobs.clone(),
        datasets: world.datasets.iter().map(dataset).collect(),
        holds: world.holds.clone(),
    };
    let fresh = path.with_extension("new");
    let saved = serde_json::to_vec(&state)
        .map_err(std::io::Error::from)
        .and_then(|bytes| fs::write(&fresh, bytes))
        .and_then(|()| fs::rename(&fresh, path));
    if let Err(error) = saved {
        tracing::error!(path = %path.display(), %error, "the state can't be written");
    }
}
