//! `--state FILE`: what happened survives a restart, a kill included.
//!
//! The file is replaced before the lock on the world is given back, so no client has an answer that a restarted
//! stand-in would contradict. Faults and durations are not kept: they belong to a test, not to the service.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    StartError,
    job::{Job, Tag},
    seed::Dataset,
    world::{KnownDataset, Principal, World},
};

/// Where the state goes, and which revision of the world is there already.
#[derive(Debug)]
pub(crate) struct StateFile {
    path: PathBuf,
    written: Option<u64>,
    /// The latest try to write it failed.
    troubled: bool,
}

impl StateFile {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), written: None, troubled: false }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct State {
    jobs: Vec<Job>,
    #[serde(default)]
    vanished: Vec<String>,
    datasets: Vec<DatasetState>,
    sessions: Vec<Principal>,
    holds: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DatasetState {
    arn: String,
    status: String,
    tags: Vec<Tag>,
    created_ms: i64,
    updated_ms: i64,
    /// The whole of it, if it came after the seed.
    added: Option<Dataset>,
}

/// Takes over what an earlier run left. A missing file is an empty state.
pub(crate) fn load(path: &Path, world: &mut World) -> Result<(), StartError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(StartError::File { path: path.to_owned(), source }),
    };
    let State { mut jobs, vanished, datasets, sessions, holds } =
        serde_json::from_str(&text).map_err(|source| StartError::State { path: path.to_owned(), source })?;
    // Of the jobs in the seed, those are new that the earlier run did not have.
    let mut seeded = std::mem::take(&mut world.jobs);
    seeded.retain(|job| !vanished.contains(&job.arn) && jobs.iter().all(|known| known.arn != job.arn));
    jobs.extend(seeded);
    (world.jobs, world.vanished, world.holds) = (jobs, vanished, holds);
    for Principal { account, arn, key, .. } in sessions {
        world.learn_key(&account, Some(arn), key);
    }
    for saved in datasets {
        let DatasetState { arn, status, tags, created_ms, updated_ms, added } = saved;
        if let Some(added) = &added {
            world.put_dataset(added, created_ms).map_err(StartError::SeedContent)?;
        }
        // A dataset that the seed no longer has is gone.
        if let Some(dataset) = world.datasets.iter_mut().find(|dataset| dataset.arn == arn) {
            (dataset.status, dataset.tags) = (status, tags);
            (dataset.created_ms, dataset.updated_ms) = (created_ms, updated_ms);
            dataset.added = added;
        }
    }
    Ok(())
}

/// Writes the state if there is a file for it and something has changed; `false` if it can't be written.
pub(crate) fn keep(world: &mut World) -> bool {
    let revision = world.revision;
    let Some(file) = world.state.as_ref().filter(|file| file.written != Some(revision)) else { return true };
    let path = file.path.clone();
    let saved = save(&path, world);
    let Some(file) = &mut world.state else { return true };
    match saved {
        Ok(()) => {
            file.written = Some(revision);
            file.troubled = false;
            true
        }
        Err(error) => {
            // It is tried again with every look at the world: once is enough to tell.
            if !file.troubled {
                tracing::error!(path = %path.display(), %error, "the state can't be written");
            }
            file.troubled = true;
            false
        }
    }
}

/// Replaces the file in one step, so that a crash leaves the old or the new one.
fn save(path: &Path, world: &World) -> std::io::Result<()> {
    let dataset = |dataset: &KnownDataset| DatasetState {
        arn: dataset.arn.clone(),
        status: dataset.status.clone(),
        tags: dataset.tags.clone(),
        created_ms: dataset.created_ms,
        updated_ms: dataset.updated_ms,
        added: dataset.added.clone(),
    };
    let state = State {
        jobs: world.jobs.clone(),
        vanished: world.vanished.clone(),
        datasets: world.datasets.iter().map(dataset).collect(),
        sessions: world.keys.values().filter(|principal| principal.learnt).cloned().collect(),
        holds: world.holds.clone(),
    };
    let fresh = path.with_extension("new");
    fs::write(&fresh, serde_json::to_vec(&state)?)?;
    fs::rename(&fresh, path)
}
