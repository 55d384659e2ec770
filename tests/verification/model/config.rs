//! The configuration of a model: what may happen, how often, and how the protocol is mutated.

use crate::checker::from_env;

/// How often each kind of event may still happen.
#[derive(Clone, Debug, PartialEq, Hash, Default)]
pub(crate) struct Budget {
    /// Ticks of the clock. Each is longer than the grace period.
    pub(crate) ticks: u8,
    /// Crashes of an operator, which restarts at once.
    pub(crate) crashes: u8,
    /// Handovers of the lease. Reconciliations of the old leader are frozen where they are.
    pub(crate) handovers: u8,
    /// Responses of the API server or the service that are lost, or that come after a timeout.
    pub(crate) lost_responses: u8,
    /// Create calls that the service rejects.
    pub(crate) rejections: u8,
    /// Reads from the API server or the service that fail.
    pub(crate) failed_reads: u8,
    /// Jobs that can't be read at first.
    pub(crate) invisible_jobs: u8,
    /// Jobs that end with CREATE FAILED.
    pub(crate) failed_jobs: u8,
    /// Data deletion jobs that another program starts in the dataset group.
    pub(crate) data_deletions: u8,
    /// Actions of users or other programs.
    pub(crate) user_actions: u8,
}

impl Budget {
    /// The same number of every kind of event.
    pub(crate) fn of_each(n: u8) -> Self {
        Self {
            ticks: n,
            crashes: n,
            handovers: n,
            lost_responses: n,
            rejections: n,
            failed_reads: n,
            invisible_jobs: n,
            failed_jobs: n,
            data_deletions: 0,
            user_actions: n,
        }
    }

    /// With `MODEL_DEPTH=1`, one more of every kind of event that may happen.
    pub(crate) fn deepened(mut self) -> Self {
        let more: u8 = from_env("MODEL_DEPTH").unwrap_or(0);
        let Self {
            ticks,
            crashes,
            handovers,
            lost_responses,
            rejections,
            failed_reads,
            invisible_jobs,
            failed_jobs,
            data_deletions,
            user_actions,
        } = &mut self;
        let failures = [lost_responses, rejections, failed_reads, invisible_jobs, failed_jobs, data_deletions];
        for n in [ticks, crashes, handovers, user_actions].into_iter().chain(failures).filter(|n| **n > 0) {
            *n += more;
        }
        self
    }
}

/// What a mutated protocol does wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Mutation {
    /// Creates without a recorded intent.
    SkipIntent,
    /// Creates without a lookup.
    SkipLookup,
    /// Writes a status without compare-and-swap.
    OverwriteStatus,
    /// Treats a lost response to a create call as a rejection.
    RejectLostResponse,
    /// Treats every job as owned.
    SkipOwnershipCheck,
    /// Admits every resource at once.
    BypassQueue,
    /// Does not tag jobs with the time at which their resource was created.
    OmitRequestedAt,
    /// Does not record which retry request was handled.
    ForgetHandledRetry,
    /// Does not list data deletion jobs.
    SkipDataDeletions,
    /// Submits at once after another leader has ended in any way.
    SkipQuarantine,
}

/// What a user or another program does to a resource.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum UserAction {
    /// Creates a job under the first free name of the resource.
    CreateForeignJob,
    /// Deletes the resource.
    Delete,
    /// Applies the deleted resource again.
    Apply,
    /// Sets `spec.suspend`, or unsets it.
    Suspend,
    /// Empties the status.
    ClearStatus,
    /// Replaces the status by one that claims success, under the operator's own field manager.
    ForgeSuccess,
    /// Replaces the status by one that claims that the first job failed.
    ForgeFailure,
    /// Requests another attempt, by annotation.
    Retry,
}

impl UserAction {
    /// Every action.
    pub(crate) const ALL: &[Self] = &[
        Self::CreateForeignJob,
        Self::Delete,
        Self::Apply,
        Self::Suspend,
        Self::ClearStatus,
        Self::ForgeSuccess,
        Self::ForgeFailure,
        Self::Retry,
    ];
}

/// One model.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// How many resources there are. All of them import into one dataset.
    pub(crate) resources: usize,
    /// Both operators believe that they lead, all the time. Otherwise the holder of the lease does.
    pub(crate) two_leaders: bool,
    /// The service accepts a name once. Otherwise the protocol alone has to prevent a second job.
    pub(crate) unique_names: bool,
    /// Within the grace period every call arrives or is lost, every job becomes visible, and a reconciliation that has
    /// recorded its intent reaches its create call.
    pub(crate) bounded_delays: bool,
    /// The oldest resource starts suspended.
    pub(crate) oldest_suspended: bool,
    /// `spec.backoffLimit` of every resource.
    pub(crate) backoff_limit: i32,
    /// The actions that users may choose from.
    pub(crate) user_actions: &'static [UserAction],
    /// How often each kind of event may happen.
    pub(crate) budget: Budget,
    /// What the protocol does wrong.
    pub(crate) mutation: Option<Mutation>,
}

impl Config {
    /// The service accepts a name once; delays have no bound.
    pub(crate) fn unique_names() -> Self {
        Self {
            resources: 1,
            two_leaders: false,
            unique_names: true,
            bounded_delays: false,
            oldest_suspended: false,
            backoff_limit: 0,
            user_actions: &[],
            budget: Budget::default(),
            mutation: None,
        }
    }

    /// The service accepts a name any number of times; delays are shorter than the grace period.
    pub(crate) fn bounded_delays() -> Self {
        Self { unique_names: false, bounded_delays: true, ..Self::unique_names() }
    }
}
