//! Following a job to its end, and the silence after it.

use super::outcome as verdict;
use super::ownership::Ownership;
use super::phase::attempts;
use super::plan::{Effect, Planner, Requeue};
use crate::api::conditions::Reason;
use crate::import::timing::{Severity, after, since};
use crate::personalize::{ErrorKind, Job, ServiceError};
use jiff::Timestamp;

impl Planner<'_> {
    /// The job is under way: look at it when a look is due.
    pub(super) fn follow(&self) -> Effect {
        let attempt = attempts(&self.recorded);
        match self.seen.lookups.get(&attempt) {
            // What appears under the name of a job that was lost is not for that its own.
            Some(Ok(found)) if self.is_lost() && !matches!(self.claim(found), Ownership::Owned) => {
                self.leave(Requeue::Backoff(Severity::NeedsUser))
            }
            Some(Ok(found)) => self.report(self.recorded.clone(), &found.job, attempt),
            Some(Err(failure)) => self.not_seen(failure),
            None => match self.wait_until() {
                Some(at) if !self.poked() => self.settled_until(at),
                _ => Effect::DescribeJob { attempt, prove: self.is_lost() },
            },
        }
    }

    fn is_lost(&self) -> bool {
        self.reason() == Some(Reason::JobNotFound)
    }

    /// The data is in the dataset, or the job failed for good: nothing is asked or written any more,
    /// but that the current generation was seen.
    pub(super) fn ended(&self) -> Effect {
        let mut status = self.recorded.clone();
        if let Some(reason) = self.reason()
            && status.observed_generation != Some(self.inputs.generation)
        {
            let message = ready_message(&status.conditions);
            crate::api::conditions::set(&mut status, self.inputs.generation, reason, &message, self.now);
            return self.record(status, Requeue::AwaitChange);
        }
        self.leave(Requeue::AwaitChange)
    }

    /// The job failed: another attempt is made if the limit allows it or a person asks for it.
    pub(super) fn failed(&self) -> Effect {
        let asked = self.inputs.retry_requested_at.is_some()
            && self.inputs.retry_requested_at != self.recorded.last_handled_retry_at;
        let allowed = attempts(&self.recorded) <= self.backoff_limit;
        if self.request.can_retry() && (asked || allowed) {
            return self.retry(self.recorded.clone());
        }
        self.ended()
    }

    /// When the next look at this job is due.
    pub(super) fn next_look(&self, job: &Job) -> Requeue {
        Requeue::At(self.after_look(self.now, job.created))
    }

    /// When the next look is due after one at this moment at a job that was created then.
    fn after_look(&self, looked: Timestamp, created: Option<Timestamp>) -> Timestamp {
        let age = created.map_or_else(Default::default, |created| since(created, looked));
        after(looked, self.policy.poll(age, self.memory.typical))
    }

    fn wait_until(&self) -> Option<Timestamp> {
        if let Some(until) = self.paused_until() {
            return Some(until);
        }
        let described = self.memory.described?;
        let created = self.recorded.creation_date_time.as_ref().map(|t| t.0);
        let due = self.after_look(described, created);
        (due > self.now).then_some(due)
    }

    /// Nothing is due, but an edit of the spec was seen.
    fn settled_until(&self, at: Timestamp) -> Effect {
        let Some(reason) = self.reason() else {
            return self.leave(Requeue::At(at));
        };
        self.settle_as(reason, &ready_message(&self.recorded.conditions), Requeue::At(at))
    }

    fn not_seen(&self, failure: &ServiceError) -> Effect {
        let reason = self.reason().filter(|r| *r != Reason::JobNotFound).unwrap_or(Reason::Submitting);
        let doing = "the job can't be followed for now";
        let message = match failure.kind {
            ErrorKind::NotFound => return self.vanished(),
            ErrorKind::Credentials => verdict::credentials(doing, failure),
            ErrorKind::AccessDenied | ErrorKind::InvalidInput => format!("{doing}: {failure}"),
            _ => format!("{doing}: the service can't be reached or slows the operator down ({})", failure.code),
        };
        // The job goes on in AWS whatever happens to a look at it: only the message tells.
        self.settle_as(reason, &message, Requeue::Backoff(Severity::Transient))
    }

    /// The service doesn't know the job. Soon after the submission that means nothing; later it is
    /// reported. It is never submitted again.
    fn vanished(&self) -> Effect {
        if self.settles().is_some_and(|settled| self.now < settled) {
            return self.leave(Requeue::Backoff(Severity::Transient));
        }
        let name = self.recorded.job_name.as_deref().unwrap_or_default();
        let message = format!(
            "the job {name} was submitted and the service does not know it any more; it is not submitted again: to import anew, delete this DatasetImportJob and create one with another name"
        );
        self.settle_as(Reason::JobNotFound, &message, Requeue::Backoff(Severity::NeedsUser))
    }
}

fn ready_message(conditions: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition]) -> String {
    conditions.iter().find(|c| c.type_ == crate::api::conditions::READY).map_or_else(String::new, |c| c.message.clone())
}
