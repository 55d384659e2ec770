//! How a reconciliation ends: what it remembers, when it runs again, and what it releases.

use super::Reconciliation;
use crate::api::conditions::{Reason, State};
use crate::import::timing::{after, since, spread};
use crate::import::{Admission, Outcome, Requeue, Severity, Timing, UserInputs};
use crate::queue::Queue;
use jiff::Timestamp;
use kube::ResourceExt;
use std::time::Duration;

/// After this many errors in a row, other resources no longer wait for this one.
const MAX_ERRORS_BEFORE_SKIP: u32 = 6;

/// How a reconciliation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// When to reconcile again; `None` if only a change of the resource requires it.
    pub requeue_after: Option<Duration>,
    /// Whether other resources may be admissible now.
    pub frees_others: bool,
}

/// How a reconciliation could not finish.
#[derive(Debug, Clone, Copy, Default)]
pub struct Failure {
    /// Its status write may have been applied.
    pub write_unconfirmed: bool,
    /// How long the API server asked to wait before the request is repeated.
    pub retry_after: Duration,
}

impl Reconciliation {
    /// Finishes: sets the backoff and releases the admission. `jitter` returns numbers in 0..1, another one
    /// for each delay.
    pub fn finish(
        &mut self,
        outcome: &Outcome,
        now: Timestamp,
        timing: &Timing,
        jitter: impl Fn() -> f64,
        queue: &mut Queue,
    ) -> Finished {
        if outcome.confirmed {
            self.confirm_status(queue);
        } else if self.local.trust(&self.resource).is_trusted() {
            // From now on another status under the operator's name is not its own.
            self.local.confirm(&self.resource);
        }
        let delay = self.schedule(outcome.requeue, now, timing, jitter());
        let list = self.local.next_list(timing).map(|at| since(now, at));
        let requeue_after = delay.into_iter().chain(list).min();
        let released = self.release_admission(outcome, now, timing, jitter(), queue);
        let is_deleted = self.resource.metadata.deletion_timestamp.is_some();
        Finished { requeue_after, frees_others: released || self.written_outcome.is_some() || is_deleted }
    }

    fn schedule(&mut self, requeue: Requeue, now: Timestamp, timing: &Timing, jitter: f64) -> Option<Duration> {
        let local = &mut self.local;
        local.errors.reset();
        local.finished_before = true;
        local.note_intent(self.resource.status.as_ref(), now);
        local.note_retry(self.resource.status.as_ref(), now, timing);
        local.note_data(self.resource.status.as_ref(), &self.observations, now);
        local.next_poll = if let Requeue::At(at) = requeue { Some(at) } else { None };
        if requeue == Requeue::AwaitChange {
            local.durations = Vec::new();
        }
        let delay = match requeue {
            Requeue::AwaitChange => None,
            Requeue::At(at) => Some(since(now, at)),
            // Many resources that wait from the same moment on are spread.
            Requeue::After(delay) => Some(spread(delay, jitter)),
            Requeue::Backoff(severity) => {
                local.backoff_inputs = Some(UserInputs::of(&self.resource));
                return Some(local.backoff.fail(now, |failures| timing.backoff(severity, failures, jitter)));
            }
        };
        // A reconciliation that runs before the backoff is over, for instance because of our own write, does not end
        // it.
        if local.backoff.until().is_none_or(|until| requeue != Requeue::At(until)) {
            local.backoff.end_delay();
            local.backoff_inputs = None;
            // Waiting in the queue between two rejections does not reset their count.
            let reason = self.resource.status.as_ref().and_then(Reason::of);
            if requeue == Requeue::AwaitChange || reason.is_none_or(|reason| reason.state() != State::Failed) {
                local.backoff.reset();
            }
        }
        delay
    }

    /// Releases the admission. Returns true if other resources may now be admissible.
    fn release_admission(
        &self,
        outcome: &Outcome,
        now: Timestamp,
        timing: &Timing,
        jitter: f64,
        queue: &mut Queue,
    ) -> bool {
        let (Some(request), Some(uid)) = (self.request(), self.resource.uid()) else { return false };
        // The watch may have delivered the resource during the reconciliation, with the trust from before it.
        let changed = self.update_queue(queue);
        let asks = matches!(self.observations.admission, Some(Admission::Pending { .. }));
        let left_line = queue.set_asks(&uid, asks);
        let reason = self.resource.status.as_ref().and_then(Reason::of);
        if reason == Some(Reason::WaitingForFullImport) && matches!(self.observations.jobs, Some(Ok(_))) {
            queue.found_no_full_import(&uid);
        }
        let released = queue.release(&uid);
        queue.set_requeue_at(&uid, self.local.backoff.until().max(self.local.retry.map(|(_, at)| at)));
        if let Some(cause) = outcome.cooldown {
            let delay = |failures| timing.backoff(Severity::Transient, failures, jitter);
            queue.start_cooldown(request.dataset.account_region(), cause, now, delay);
        }
        released || changed || left_line
    }

    /// Ends a reconciliation that could not finish: sets its backoff, and releases the admission unless its status
    /// write may have been applied. `jitter` is in 0..1.
    pub fn fail(
        &mut self,
        failure: Failure,
        now: Timestamp,
        timing: &Timing,
        jitter: f64,
        queue: &mut Queue,
    ) -> Finished {
        let local = &mut self.local;
        local.write_unconfirmed |= failure.write_unconfirmed;
        let delay = |failures| timing.backoff(Severity::Transient, failures, jitter).max(failure.retry_after);
        let delay = local.errors.fail(now, delay);
        let skip = local.errors.failures() >= MAX_ERRORS_BEFORE_SKIP;
        let uid = self.resource.uid().unwrap_or_default();
        let frees_others = queue.requeue_failed(&uid, after(now, delay), skip, local.write_unconfirmed);
        Finished { requeue_after: Some(delay), frees_others }
    }
}
