//! `--state FILE` persists the state across restarts and crashes.
//!
//! The file is replaced before the lock on the store is released, so a restarted stand-in never contradicts a response
//! that a client has received. Faults and durations are not saved: they belong to a test, not to the service.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    Principal, Store, StoredDataset,
    deletion::DeletionJob,
    job::{Job, Tag},
    seed::Dataset,
};
use crate::StartError;

/// The file, and the revision of the store that it contains.
#[derive(Debug)]
pub(crate) struct StateFile {
    path: PathBuf,
    saved_revision: Option<u64>,
    /// The latest attempt to write the file failed.
    failing: bool,
}

impl StateFile {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), saved_revision: None, failing: false }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SavedState {
    jobs: Vec<Job>,
    #[serde(default)]
    deletions: Vec<DeletionJob>,
    #[serde(default)]
    vanished: Vec<String>,
    datasets: Vec<SavedDataset>,
    sessions: Vec<Principal>,
    holds: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SavedDataset {
    arn: String,
    status: String,
    tags: Vec<Tag>,
    created_ms: i64,
    updated_ms: i64,
    /// Its declaration, if it was added after the seed.
    added: Option<Dataset>,
}

/// Loads the state of an earlier run. A missing file is an empty state.
pub(crate) fn load(path: &Path, store: &mut Store) -> Result<(), StartError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(StartError::File { path: path.to_owned(), source }),
    };
    let SavedState { mut jobs, deletions, vanished, datasets, sessions, holds } =
        serde_json::from_str(&text).map_err(|source| StartError::State { path: path.to_owned(), source })?;
    // Add the jobs of the seed that the earlier run did not have.
    let mut seeded = std::mem::take(&mut store.jobs);
    seeded.retain(|job| !vanished.contains(&job.arn) && jobs.iter().all(|known| known.arn != job.arn));
    jobs.extend(seeded);
    (store.jobs, store.deletions, store.vanished, store.holds) = (jobs, deletions, vanished, holds);
    for Principal { account, arn, key, session_tags, .. } in sessions {
        store.add_temporary_key(&account, Some(arn), session_tags, key);
    }
    for saved in datasets {
        let SavedDataset { arn, status, tags, created_ms, updated_ms, added } = saved;
        if let Some(added) = &added {
            store.put_dataset(added, created_ms).map_err(StartError::SeedContent)?;
        }
        // Skip a dataset that was removed from the seed.
        if let Some(dataset) = store.datasets.iter_mut().find(|dataset| dataset.arn == arn) {
            (dataset.status, dataset.tags) = (status, tags);
            (dataset.created_ms, dataset.updated_ms) = (created_ms, updated_ms);
            dataset.added = added;
        }
    }
    Ok(())
}

/// Writes the state if there is a file for it and something has changed; `false` if the write fails.
pub(crate) fn save_if_changed(store: &mut Store) -> bool {
    let revision = store.revision;
    let Some(file) = store.state_file.as_ref().filter(|file| file.saved_revision != Some(revision)) else {
        return true;
    };
    let path = file.path.clone();
    let saved = save(&path, store);
    let Some(file) = &mut store.state_file else { return true };
    match saved {
        Ok(()) => {
            file.saved_revision = Some(revision);
            file.failing = false;
            true
        }
        Err(error) => {
            // Every access to the store retries the write. Log only the first failure.
            if !file.failing {
                tracing::error!(path = %path.display(), %error, "failed to write the state file");
            }
            file.failing = true;
            false
        }
    }
}

/// Replaces the file atomically, so that a crash leaves the old or the new version.
fn save(path: &Path, store: &Store) -> std::io::Result<()> {
    let dataset = |dataset: &StoredDataset| SavedDataset {
        arn: dataset.arn.clone(),
        status: dataset.status.clone(),
        tags: dataset.tags.clone(),
        created_ms: dataset.created_ms,
        updated_ms: dataset.updated_ms,
        added: dataset.added.clone(),
    };
    let state = SavedState {
        jobs: store.jobs.clone(),
        deletions: store.deletions.clone(),
        vanished: store.vanished.clone(),
        datasets: store.datasets.iter().map(dataset).collect(),
        sessions: store.principals.values().filter(|principal| principal.issued_by_sts).cloned().collect(),
        holds: store.holds.clone(),
    };
    let temporary = path.with_extension("new");
    fs::write(&temporary, serde_json::to_vec(&state)?)?;
    fs::rename(&temporary, path)
}
