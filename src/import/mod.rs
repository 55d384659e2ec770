//! The core: what to do next for one resource. It is pure: no client, no clock, no async.
//!
//! The service has no client token and no way to stop an import, so a job must be submitted exactly once whatever
//! crashes. The name of the job is derived from the resource ([`request`]), so a lost answer can always be looked up:
//!
//! ```text
//!  Kubernetes                                   Amazon Personalize
//!  ----------                                   ------------------
//!  (not suspended, permitted, admitted)
//!                                               the dataset is ACTIVE, no other job imports into it,
//!                                               an INCREMENTAL import has a FULL one to add to,
//!                                               no newer import has succeeded,
//!                                               the data in S3 passes the check and the guard,
//!                                               no users are being deleted from the dataset group
//!  read the resource live
//!  (it is not deleted or changed)
//!  write the intent into the status             (a compare-and-swap: a conflict starts over)
//!                                               describe the derived name
//!                                                 it exists, the tags prove it is ours -> adopt it
//!                                                 it exists, it is not ours            -> JobNameConflict
//!                                                 NotFound                             -> create it, once
//!  write the job's ARN into the status          <- accepted
//!  remove the intent, back off                  <- rejected
//!  keep the intent                              <- no usable answer: describe the name again; resubmit only
//!                                                  after the grace period, through the same steps
//! ```
//!
//! [`plan`](mod@plan) decides, [`phase`] says how far an import has come, [`trust`] whether a status is trusted,
//! [`poll_schedule`] when to poll, [`timing`] when to try again, [`idle`] whether there is nothing to do, and
//! [`local_state`] what the process remembers. `submit` is the protocol above, `data` what the data has to fulfil, `adopt`
//! finds existing jobs, `ownership` says whose they are, `poll` follows a running job, and `outcome` builds the status and its
//! messages.

pub mod admission;
mod adopt;
mod data;
pub mod idle;
pub mod local_state;
mod outcome;
mod ownership;
pub mod phase;
pub mod plan;
mod poll;
pub mod poll_schedule;
pub mod request;
mod submit;
#[cfg(test)]
mod tests;
pub mod timing;
pub mod trust;

pub use admission::{Admission, CooldownCause, Key};
pub use idle::is_idle;
pub use local_state::{AccessVersion, IdleState, LocalState, UserInputs};
pub use outcome::{JOB_RUNNING, POLL_FAILED};
pub use phase::Phase;
pub use plan::{AfterWrite, DataCheck, Effect, Next, Observations, ObservedJob, Outcome, Requeue, plan};
pub use poll_schedule::PollSchedule;
pub use request::ImportRequest;
pub use timing::{Backoff, Severity, Timing};
pub use trust::{MANAGER, Trust, compact_managed_fields};
