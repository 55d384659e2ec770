//! The successful imports: which data each dataset holds, and since when.

use super::Queue;
use super::dataset::DatasetQueue;
use super::entry::{Entry, QueueState};
use super::pool::Pool;
use super::stats::LastSuccess;
use crate::import::Key;
use crate::personalize::DatasetArn;
use jiff::Timestamp;
use std::collections::HashMap;
use std::time::Duration;

impl Queue {
    /// Job name -> when the import was requested, for the successful imports into this dataset whose resources are in
    /// the queue and whose jobs were created after this moment. There may be others.
    #[must_use]
    pub fn requested_at(&self, dataset: &DatasetArn, created_after: Timestamp) -> HashMap<&str, Timestamp> {
        let successes = self.dataset(dataset).into_iter().flat_map(|dataset| dataset.successes_since(created_after));
        let requested_at = |entry: &Entry| match entry.state {
            QueueState::Succeeded(at) => Some(at),
            _ => None,
        };
        self.entries_at(successes).filter_map(|e| Some((e.succeeded_job.as_deref()?, requested_at(e)?))).collect()
    }

    /// The resource of the newest import that has replaced the data of this one.
    #[must_use]
    pub fn newer_import(&self, uid: &str) -> Option<Key> {
        let own = self.entries.get(uid)?;
        let newer = self.dataset(own.dataset())?.newer_than(own.job_created?);
        self.entries_at(newer).find(|entry| !entry.is_deleted()).map(|entry| entry.place.key.clone())
    }

    /// The resources whose status still says that the dataset holds their data, which this import has replaced.
    #[must_use]
    pub fn replaced_by(&self, uid: &str) -> Vec<Key> {
        let own = self.entries.get(uid).filter(|entry| entry.is_full_success() && !entry.is_deleted());
        let Some((own, created)) = own.and_then(|own| Some((own, own.job_created?))) else { return Vec::new() };
        let current = self.dataset(own.dataset()).into_iter().flat_map(DatasetQueue::current);
        let replaced = self.entries_at(current).filter(|entry| entry.job_created.is_some_and(|other| other < created));
        replaced.map(|entry| entry.place.key.clone()).collect()
    }

    /// The resources whose status still says that the dataset holds their data, although a newer import has replaced it.
    #[must_use]
    pub fn replaced(&self) -> Vec<Key> {
        let current = self.pools.values().flat_map(Pool::datasets).flat_map(|(_, dataset)| dataset.current());
        let replaced = self.entries_at(current).filter(|entry| self.newer_import(&entry.place.uid).is_some());
        replaced.map(|entry| entry.place.key.clone()).collect()
    }

    /// The last successful import into each dataset, of those whose resources exist.
    #[must_use]
    pub fn last_successes(&self) -> Vec<LastSuccess> {
        let last = |(dataset, imports): (&DatasetArn, &DatasetQueue)| {
            let full = self.entries_at(imports.full_successes()).find(|entry| !entry.is_deleted());
            let increment = self.entries_at(imports.increments()).find(|entry| !entry.is_deleted());
            let last = increment.into_iter().chain(full).max_by_key(|entry| entry.ended)?;
            let max_age = Some(last.max_data_age).filter(|seconds| *seconds > 0);
            Some(LastSuccess {
                dataset: dataset.clone(),
                ended: Timestamp::from_second(last.ended.into()).unwrap_or_default(),
                max_age: max_age.map(|seconds| Duration::from_secs(seconds.into())),
            })
        };
        self.pools.values().flat_map(Pool::datasets).filter_map(last).collect()
    }
}
