//! What may happen in a model, how often, and what of the protocol is broken on purpose.

use crate::state::GRACE;
use std::time::Duration;

/// How often each kind of thing may still happen.
#[derive(Clone, Debug, PartialEq, Hash, Default)]
pub(crate) struct Budget {
    /// Ticks of the clock, each longer than the grace.
    pub(crate) ticks: u8,
    /// Operators that crash and start anew.
    pub(crate) crashes: u8,
    /// Handovers of the lease; the old leader's passes are frozen where they are.
    pub(crate) handovers: u8,
    /// Answers of either server that are lost, or come after nobody waits for them.
    pub(crate) losses: u8,
    /// Creates that the service refuses.
    pub(crate) rejections: u8,
    /// Reads of either server that fail.
    pub(crate) reads: u8,
    /// Jobs that can't be read for a while after they were made.
    pub(crate) delays: u8,
    /// Jobs that end with CREATE FAILED.
    pub(crate) failures: u8,
    /// Deeds of a person, or of a foreign actor.
    pub(crate) user_actions: u8,
}

/// Parts of the protocol that are left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Mutation {
    /// The intent is not written.
    pub(crate) no_intent: bool,
    /// Nothing is looked up before a create.
    pub(crate) no_lookup: bool,
    /// The API server takes a status whatever version it was made from.
    pub(crate) no_compare_and_swap: bool,
    /// A lost answer counts as a refusal.
    pub(crate) no_indeterminate: bool,
    /// Whose job it is isn't asked.
    pub(crate) no_ownership: bool,
    /// The queue lets everybody go.
    pub(crate) no_queue: bool,
    /// Jobs don't print_actions how old their imports are.
    pub(crate) no_requested_at: bool,
    /// The status doesn't keep which wish for another attempt was handled.
    pub(crate) no_handled_retry: bool,
}

/// A foreign user_action.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum UserAction {
    /// A job is made elsewhere, under the next name of the resource that is free.
    CreateForeignJob,
    /// The resource is deleted.
    Delete,
    /// It is applied again.
    Apply,
    /// `spec.suspend` is flipped.
    Suspend,
    /// The status is emptied.
    ClearStatus,
    /// The status is replaced by one that claims success.
    ForgeSuccess,
    /// The status is replaced by one that claims that the first job failed.
    ForgeFailure,
    /// An annotation asks for another attempt.
    Retry,
}

/// One model.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) resources: usize,
    /// Both operators believe that they lead, all the time; otherwise one does, as the lease has it.
    pub(crate) both_lead: bool,
    /// The service takes a name once, as it is understood to do. Where it doesn't, the protocol alone
    /// has to keep a job from being made twice.
    pub(crate) unique_names: bool,
    /// Within the grace every call arrives or is lost, what was made can be read, and a pass that has
    /// recorded its intent gets to its create.
    pub(crate) timely: bool,
    /// The oldest resource begins suspended.
    pub(crate) suspended: bool,
    /// How many more jobs each resource allows after one that failed.
    pub(crate) backoff_limit: i32,
    pub(crate) grace: Duration,
    pub(crate) user_actions: &'static [UserAction],
    pub(crate) budget: Budget,
    pub(crate) mutation: Mutation,
}

impl Rules {
    /// A service that takes a name once, and no promise about time.
    pub(crate) fn untimely() -> Self {
        Self {
            resources: 1,
            both_lead: false,
            unique_names: true,
            timely: false,
            suspended: false,
            backoff_limit: 0,
            grace: GRACE,
            user_actions: &[],
            budget: Budget::default(),
            mutation: Mutation::default(),
        }
    }

    /// Names that don't help, and the promise that calls arrive within the grace.
    pub(crate) fn timely() -> Self {
        Self { unique_names: false, timely: true, ..Self::untimely() }
    }
}
