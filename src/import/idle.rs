//! Whether a resource is idle: nothing is to be done for it until it changes, or a newer import replaces its data.
//!
//! Years of finished imports are idle. The controller keeps none of them in memory, and reconciles none at a start.

use super::admission::Key;
use super::local_state::LocalState;
use super::plan::{Next, Observations, Outcome, Requeue, plan};
use super::timing::Timing;
use super::trust::Trust;
use crate::api::DatasetImportJob;
use jiff::Timestamp;

/// Whether planning would end without a call, a write, or a delay. `newer_import` is the resource whose newer import has
/// replaced the data of this one.
#[must_use]
pub fn is_idle(
    resource: &DatasetImportJob,
    trust: Trust,
    newer_import: Option<Key>,
    local: &LocalState,
    now: Timestamp,
    timing: &Timing,
) -> bool {
    let observations = Observations { newer_import: Some(newer_import), ..Observations::default() };
    // A resource that is marked for deletion frees its place for others when it is reconciled.
    let is_current = resource.metadata.deletion_timestamp.is_none() && !local.is_newer_than(resource);
    is_current
        && trust.is_trusted()
        && matches!(
            plan(resource, trust, &observations, local, now, timing),
            Next::Finish(Outcome { status: None, requeue: Requeue::AwaitChange, cooldown: None, .. })
        )
}
