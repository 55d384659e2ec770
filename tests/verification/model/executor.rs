//! Performs the effects of a reconciliation on the modelled API server and service.

use crate::config::Mutation;
use crate::protocol::ProtocolModel;
use crate::state::{ActiveReconciliation, CreateCall, ModelJob, ModelState, Snapshot, at, timing};
use kube::ResourceExt;
use personalize_operator::api::Tag;
use personalize_operator::import::{Admission, AfterWrite, Effect, LocalState, Next, ObservedJob, Outcome};
use personalize_operator::personalize::{ACTIVE, DataDeletion, Dataset, ErrorKind, Job, JobSummary, ServiceError};
use personalize_operator::reconciliation::{Failure, Interrupted, Observation, Reconciliation};
use std::sync::Arc;

/// What goes wrong with an effect.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// The response to a write is lost. The write may be applied.
    ResponseLost { applied: bool },
    /// A read fails, or does not find the dataset.
    ReadFails,
    /// A lookup finds a job without its tags.
    TagsMissing,
}

fn active_dataset() -> Dataset {
    Dataset { status: ACTIVE.into(), ..Dataset::default() }
}

fn error(kind: ErrorKind) -> ServiceError {
    ServiceError::unanswered(kind, kind.label(), "")
}

/// The visible job under the name of this attempt.
fn visible_job(state: &ModelState, r: usize, attempt: i32) -> Option<&ModelJob> {
    state.jobs.iter().find(|job| job.visible && (job.resource, job.attempt) == (r, attempt))
}

impl ProtocolModel {
    /// The watch delivers the resource, or its deletion.
    pub(crate) fn watch(&self, state: &mut ModelState, o: usize, r: usize) {
        let (live, now) = (state.live[r].clone(), state.now());
        let operator = state.operator(o);
        let old = operator.cache[r].as_ref().and_then(|old| old.resource().uid());
        let new = live.as_ref().and_then(|live| live.resource().uid());
        if let Some(deleted) = old.filter(|old| Some(old) != new.as_ref()) {
            let _ = operator.queue.forget(&deleted, now);
            operator.local[r] = LocalState::default();
        }
        if let Some(live) = &live {
            operator.queue.observe(live.resource(), operator.local[r].trust(live.resource()));
        }
        operator.cache[r] = live;
    }

    /// A reconciliation starts with the resource in the cache.
    pub(crate) fn start(&self, state: &mut ModelState, o: usize, r: usize) {
        let operator = state.operator(o);
        if operator.active[r].is_some() {
            return;
        }
        let Some(cached) = &operator.cache[r] else { return };
        let reconciliation = Reconciliation::new(cached.resource().clone(), operator.local[r].clone());
        operator.active[r] = Some(ActiveReconciliation { reconciliation, awaits_create: false, listed_deletion: 0 });
        self.advance(state, o, r);
    }

    /// Continues through effects that no other event can influence: they ask only this operator, or for something that
    /// never changes in this model.
    fn advance(&self, state: &mut ModelState, o: usize, r: usize) {
        let now = state.now();
        let (may_fail, bypass_queue) = (state.budget.failed_reads > 0, self.has(Mutation::BypassQueue));
        let no_deletions = self.config.budget.data_deletions == 0 || self.has(Mutation::SkipDataDeletions);
        let deletions_started = state.data_deletions.0;
        loop {
            let operator = state.operator(o);
            let Some(active) = operator.active[r].as_mut().filter(|active| !active.awaits_create) else { return };
            let observation = match active.reconciliation.next(now, &timing()) {
                Next::Perform(Effect::CheckNamespace) => Observation::Namespace(Ok(())),
                Next::Perform(Effect::CheckData) => Observation::Data(None),
                Next::Perform(Effect::DescribeDataset) if !may_fail => Observation::Dataset(Ok(active_dataset())),
                Next::Perform(Effect::ListDataDeletions) if no_deletions => {
                    active.listed_deletion = deletions_started;
                    Observation::DataDeletions(Ok(Vec::new()))
                }
                Next::Perform(_) => return,
                Next::TryAdmit => {
                    let uid = active.reconciliation.uid();
                    let queue = &mut Arc::make_mut(&mut state.operators[o]).queue;
                    // A reconciliation may start at any time here, so no wake-up is modelled.
                    for deleted in queue.deleted_jobs(now) {
                        let named = |job: &&ModelJob| self.imports[job.resource].job_name(job.attempt) == deleted.name;
                        let found = state.jobs.iter().filter(|job| job.visible).find(named);
                        queue.deleted_job_polled(&deleted.uid, found.map(|job| !job.has_ended()), now);
                    }
                    let _ = queue.take_freed();
                    let admission = queue.try_admit(&uid, now);
                    Observation::Admission(if bypass_queue { Admission::Admitted } else { admission })
                }
                Next::FindNewerImport => {
                    Observation::NewerImport(operator.queue.newer_import(&active.reconciliation.uid()))
                }
                Next::Finish(outcome) => return self.finish(state, o, r, &outcome),
            };
            self.apply(state, o, r, observation);
        }
    }

    fn apply(&self, state: &mut ModelState, o: usize, r: usize, observation: Observation) {
        let now = state.now();
        let operator = state.operator(o);
        let Some(active) = operator.active[r].as_mut() else { return };
        let result = active.reconciliation.apply(observation, now, &mut operator.queue);
        if result == Err(Interrupted::Deleted) {
            // The watch delivers the deletion.
            let uid = active.reconciliation.uid();
            operator.active[r] = None;
            operator.queue.release(&uid);
        }
    }

    fn finish(&self, state: &mut ModelState, o: usize, r: usize, outcome: &Outcome) {
        let now = state.now();
        let operator = state.operator(o);
        let Some(mut active) = operator.active[r].take() else { return };
        active.reconciliation.finish(outcome, now, &timing(), || 0.0, &mut operator.queue);
        Self::keep_local_state(state, o, r, active);
    }

    fn fail(&self, state: &mut ModelState, o: usize, r: usize, write_unconfirmed: bool) {
        let now = state.now();
        let operator = state.operator(o);
        let Some(mut active) = operator.active[r].take() else { return };
        let failure = Failure { write_unconfirmed, ..Failure::default() };
        active.reconciliation.fail(failure, now, &timing(), 0.0, &mut operator.queue);
        Self::keep_local_state(state, o, r, active);
    }

    /// Keeps the local state without its backoffs: a delay of zero never matters, and without the number of failures
    /// more states are equal.
    fn keep_local_state(state: &mut ModelState, o: usize, r: usize, active: ActiveReconciliation) {
        let operator = state.operator(o);
        let uid = active.reconciliation.resource().uid();
        operator.queue.set_requeue_at(uid.as_deref().unwrap_or_default(), None);
        if operator.cache[r].as_ref().is_none_or(|cached| cached.resource().uid() != uid) {
            return;
        }
        let mut local = active.reconciliation.into_local();
        local.backoff.reset();
        local.backoff_inputs = None;
        local.retry = None;
        local.errors.reset();
        operator.local[r] = local;
    }

    /// The faults that are possible at the next effect of this reconciliation.
    pub(crate) fn faults(&self, state: &ModelState, o: usize, r: usize) -> &'static [Fault] {
        const WRITE: &[Fault] =
            &[Fault::None, Fault::ResponseLost { applied: true }, Fault::ResponseLost { applied: false }];
        const READ: &[Fault] = &[Fault::None, Fault::ReadFails];
        const LOOKUP: &[Fault] = &[Fault::None, Fault::ReadFails, Fault::TagsMissing];
        let Some(active) = &state.operators[o].active[r] else { return &[] };
        let (may_lose, may_fail) = (state.budget.lost_responses > 0, state.budget.failed_reads > 0);
        let Next::Perform(effect) = active.reconciliation.next(state.now(), &timing()) else {
            return &[Fault::None];
        };
        match effect {
            Effect::WriteStatus { then: AfterWrite::Submit { .. }, .. } if !state.operators[o].leads => &[Fault::None],
            Effect::WriteStatus { .. } if may_lose => WRITE,
            Effect::DescribeJob { attempt, with_tags: true }
                if may_fail && visible_job(state, r, attempt).is_some() =>
            {
                LOOKUP
            }
            Effect::ReadResource
            | Effect::DescribeDataset
            | Effect::ListJobs
            | Effect::ListDataDeletions
            | Effect::DescribeJob { .. }
            | Effect::ListTags { .. }
                if may_fail =>
            {
                READ
            }
            _ => &[Fault::None],
        }
    }

    /// Performs the next effect. `None` if the reconciliation has ended or waits for a create call.
    pub(crate) fn step(&self, state: &mut ModelState, o: usize, r: usize, fault: Fault) -> Option<()> {
        let leads = state.operators[o].leads;
        let active = state.operators[o].active[r].as_ref().filter(|active| !active.awaits_create)?;
        let Next::Perform(effect) = active.reconciliation.next(state.now(), &timing()) else {
            // The clock has ticked since the reconciliation stopped at an effect.
            self.advance(state, o, r);
            return Some(());
        };
        state.operator(o).active[r].as_mut()?.reconciliation.note(&effect);
        match effect {
            Effect::ReadResource if fault == Fault::ReadFails => self.fail(state, o, r, false),
            Effect::WriteStatus { then: AfterWrite::Submit { .. }, .. } | Effect::CreateJob { .. } if !leads => {
                self.fail(state, o, r, false);
            }
            Effect::CreateJob { attempt } => {
                let active = state.operator(o).active[r].as_mut()?;
                active.awaits_create = true;
                let listed_deletion = active.listed_deletion;
                state.calls.push(CreateCall { operator: o, resource: r, attempt, awaited: true, listed_deletion });
            }
            Effect::WriteStatus { .. } if matches!(fault, Fault::ResponseLost { .. }) => {
                if fault == (Fault::ResponseLost { applied: true }) {
                    self.write_status(state, o, r, effect)?;
                }
                self.fail(state, o, r, true);
            }
            effect => {
                let observation = self.perform(state, o, r, effect, fault)?;
                self.apply(state, o, r, observation);
            }
        }
        self.advance(state, o, r);
        Some(())
    }

    /// Performs an effect and returns what it observed.
    fn perform(&self, state: &mut ModelState, o: usize, r: usize, effect: Effect, fault: Fault) -> Option<Observation> {
        let fails = fault == Fault::ReadFails;
        Some(match effect {
            Effect::ReadResource => {
                Observation::Resource(state.live[r].as_ref().map(|live| Box::new(live.resource().clone())))
            }
            Effect::CheckNamespace => Observation::Namespace(Ok(())),
            Effect::DescribeJob { attempt, with_tags } => {
                let observations = state.operators[o].active[r].as_ref()?.reconciliation.observations();
                // Even a mutated protocol looks up a job that the service reports as existing.
                let exists = matches!(&observations.create, Some(Err(e)) if e.kind == ErrorKind::AlreadyExists);
                let job = if self.has(Mutation::SkipLookup) && with_tags && !exists {
                    Err(error(ErrorKind::NotFound))
                } else {
                    self.describe_job(state, r, attempt, with_tags, fault)
                };
                Observation::Job { attempt, job }
            }
            Effect::DescribeDataset if fails => Observation::Dataset(Err(error(ErrorKind::NotFound))),
            Effect::DescribeDataset => Observation::Dataset(Ok(active_dataset())),
            Effect::ListJobs if fails => Observation::Jobs(Err(error(ErrorKind::Indeterminate))),
            Effect::ListJobs => Observation::Jobs(Ok(self.list_jobs(state))),
            Effect::ListDataDeletions if fails => Observation::DataDeletions(Err(error(ErrorKind::Indeterminate))),
            Effect::ListDataDeletions => {
                let (started, runs) = state.data_deletions;
                state.operator(o).active[r].as_mut()?.listed_deletion = started;
                let running = DataDeletion { name: "erasure".into(), status: "IN_PROGRESS".into() };
                Observation::DataDeletions(Ok(if runs { vec![running] } else { Vec::new() }))
            }
            Effect::ListTags { job_name } => {
                let tags = if fails { Err(error(ErrorKind::Indeterminate)) } else { self.list_tags(state, &job_name) };
                Observation::Tags { job_name, tags }
            }
            Effect::CheckData => Observation::Data(None),
            Effect::ListData => Observation::DataListed(Ok(personalize_operator::api::ImportedData::default())),
            Effect::WriteStatus { .. } => self.write_status(state, o, r, effect)?,
            Effect::ApplyStatus => {
                let resource = state.operators[o].active[r].as_ref()?.reconciliation.resource().clone();
                let applied = self.replace_status(state, r, &resource);
                Observation::StatusApplied(applied.map(|applied| Box::new(applied.resource().clone())))
            }
            Effect::CreateJob { .. } => return None,
        })
    }

    /// Writes a status by compare-and-swap.
    fn write_status(&self, state: &mut ModelState, o: usize, r: usize, effect: Effect) -> Option<Observation> {
        let Effect::WriteStatus { mut status, then } = effect else { return None };
        if self.has(Mutation::ForgetHandledRetry) {
            status.last_handled_retry_at = None;
        }
        let resource = state.operators[o].active[r].as_ref()?.reconciliation.with_status(*status);
        if self.has(Mutation::SkipIntent) && matches!(then, AfterWrite::Submit { .. }) {
            let unwritten = Snapshot::new(resource).resource().clone();
            return Some(Observation::StatusWritten { resource: Box::new(unwritten), then });
        }
        Some(match self.replace_status(state, r, &resource) {
            Some(written) => Observation::StatusWritten { resource: Box::new(written.resource().clone()), then },
            None => Observation::Conflict,
        })
    }

    fn describe_job(
        &self,
        state: &ModelState,
        r: usize,
        attempt: i32,
        with_tags: bool,
        fault: Fault,
    ) -> Result<ObservedJob, ServiceError> {
        if fault == Fault::ReadFails {
            return Err(error(ErrorKind::Indeterminate));
        }
        let job = visible_job(state, r, attempt).ok_or_else(|| error(ErrorKind::NotFound))?;
        let request = &self.imports[r].request;
        let owned = !job.foreign || self.has(Mutation::SkipOwnershipCheck);
        let tags: Vec<Tag> = if owned { request.own_tags() } else { Vec::new() };
        let tags = if fault == Fault::TagsMissing { Err(error(ErrorKind::NotFound)) } else { Ok(tags) };
        let job = Job {
            name: self.imports[r].job_name(attempt),
            dataset: request.dataset.as_str().into(),
            data_location: request.data_location.clone(),
            role_arn: request.role_arn.clone(),
            import_mode: Some(request.import_mode.as_str().into()),
            publish_attribution_metrics_to_s3: None,
            status: job.status.into(),
            failure_reason: None,
            created: Some(at(0)),
            updated: Some(at(0)),
        };
        Ok(ObservedJob { job, tags: with_tags.then_some(tags) })
    }

    fn list_tags(&self, state: &ModelState, job_name: &str) -> Result<Vec<Tag>, ServiceError> {
        let named = |job: &&ModelJob| self.imports[job.resource].job_name(job.attempt) == job_name;
        let job = state.jobs.iter().find(named).ok_or_else(|| error(ErrorKind::NotFound))?;
        let untagged = job.foreign || self.has(Mutation::OmitRequestedAt);
        Ok(if untagged { Vec::new() } else { self.imports[job.resource].request.own_tags() })
    }

    fn list_jobs(&self, state: &ModelState) -> Vec<JobSummary> {
        let summary = |job: &ModelJob| JobSummary {
            name: self.imports[job.resource].job_name(job.attempt),
            status: job.status.into(),
            created: Some(at(0)),
            updated: Some(at(0)),
            import_mode: None,
        };
        state.jobs.iter().filter(|job| job.visible).map(summary).collect()
    }

    /// The sender of a create call receives the answer, if it still waits.
    fn answer(&self, state: &mut ModelState, call: &CreateCall, answer: Result<(), ServiceError>) {
        if !call.awaited {
            return;
        }
        let indeterminate = matches!(&answer, Err(error) if error.kind == ErrorKind::Indeterminate);
        let answer = if indeterminate && self.has(Mutation::RejectLostResponse) {
            Err(error(ErrorKind::Throttled))
        } else {
            answer
        };
        let (o, r) = (call.operator, call.resource);
        if let Some(active) = state.operator(o).active[r].as_mut() {
            active.awaits_create = false;
            self.apply(state, o, r, Observation::Created { attempt: call.attempt, answer });
        }
        self.advance(state, o, r);
    }

    /// A create call arrives at the service.
    pub(crate) fn arrive(&self, state: &mut ModelState, c: usize, response_lost: bool) {
        let call = state.calls.remove(c);
        let accepted = self.create_job(state, call.resource, call.attempt);
        let (started, runs) = state.data_deletions;
        state.accepted_in_deletion |= accepted && runs && call.listed_deletion == started;
        let answer = match (response_lost, accepted) {
            (true, _) => Err(error(ErrorKind::Indeterminate)),
            (false, true) => Ok(()),
            (false, false) => Err(error(ErrorKind::AlreadyExists)),
        };
        self.answer(state, &call, answer);
    }

    /// The service rejects a create call.
    pub(crate) fn reject(&self, state: &mut ModelState, c: usize, kind: ErrorKind) {
        let call = state.calls.remove(c);
        self.answer(state, &call, Err(error(kind)));
    }

    /// The sender of a create call times out. The call may still arrive.
    pub(crate) fn time_out(&self, state: &mut ModelState, c: usize) {
        let call = state.calls[c].clone();
        state.calls[c].awaited = false;
        self.answer(state, &call, Err(error(ErrorKind::Indeterminate)));
    }
}
