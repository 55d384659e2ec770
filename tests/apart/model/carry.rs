//! Carrying out the steps of a pass on the modelled parts, as `reconcile` does on the real ones.

use crate::checker::{Checked, delays};
use crate::world::{Call, Made, Run, Snapshot, World, at};
use kube::ResourceExt;
use personalize_operator::api::Tag;
use personalize_operator::import::plan::{Effect, ObservedJob, Outcome};
use personalize_operator::personalize::{ACTIVE, ErrorKind, Job, JobSummary, ServiceError};
use personalize_operator::queue::Admission;
use personalize_operator::reconciliation::Reconciliation;

/// How a step fares.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fate {
    /// As it should.
    Well,
    /// It writes, and the answer is lost, after its effect or with it.
    Lost { applied: bool },
    /// It reads, and gets no answer, or none that says that the dataset is there.
    Unread,
    /// It reads whose job it is, and finds the job without its tags.
    TagsUnread,
}

fn failure(kind: ErrorKind) -> ServiceError {
    ServiceError::unanswered(kind, kind.label(), "")
}

/// The job that reads show under the name of this attempt.
fn shown(world: &World, r: usize, attempt: i32) -> Option<&Made> {
    world.jobs.iter().find(|job| job.visible && (job.resource, job.attempt) == (r, attempt))
}

impl Checked {
    /// The watch delivers a resource.
    pub(crate) fn watch(&self, world: &mut World, o: usize, r: usize) {
        let (live, now) = (world.live[r].clone(), world.now());
        let operator = world.operator(o);
        let gone = operator.cache[r].as_ref().and_then(|old| old.job().uid());
        let new = live.as_ref().and_then(|live| live.job().uid());
        if let Some(gone) = gone.filter(|gone| Some(gone) != new.as_ref()) {
            let _ = operator.queue.forget(&gone, now);
            operator.remembered[r] = Default::default();
        }
        if let Some(live) = &live {
            operator.queue.observe(live.job(), operator.remembered[r].proves(live.job()));
        }
        operator.cache[r] = live;
    }

    /// A pass begins with what the cache has.
    pub(crate) fn begin(&self, world: &mut World, o: usize, r: usize) {
        let operator = world.operator(o);
        if operator.runs[r].is_some() {
            return;
        }
        let Some(cached) = &operator.cache[r] else { return };
        let pass = Reconciliation::new(cached.job().clone(), operator.remembered[r].clone());
        operator.runs[r] = Some(Run { pass, waits: None });
        self.settle(world, o, r);
    }

    /// Carries out what needs no other part, or one that never changes here.
    fn settle(&self, world: &mut World, o: usize, r: usize) {
        let now = world.now();
        let policy = delays(&self.rules);
        let reads_fail = world.left.reads > 0;
        loop {
            let operator = world.operator(o);
            let Some(run) = operator.runs[r].as_mut().filter(|run| run.waits.is_none()) else { return };
            match run.pass.next(now, &policy) {
                Effect::AskPermission => run.pass.permitted(Ok(())),
                Effect::DescribeDataset if !reads_fail => run.pass.saw_dataset(Ok(ACTIVE.into())),
                Effect::TakeTurn => {
                    let uid = run.pass.job().uid().unwrap_or_default();
                    let turn = operator.queue.try_admit(&uid, now);
                    run.pass.turned(if self.rules.breaks.no_queue { Admission::Admitted } else { turn });
                }
                Effect::Outcome(rest) if rest.status.is_none() => {
                    self.rest(world, o, r, &rest);
                    return;
                }
                _ => return,
            }
        }
    }

    fn rest(&self, world: &mut World, o: usize, r: usize, rest: &Outcome) {
        let (now, policy) = (world.now(), delays(&self.rules));
        let operator = world.operator(o);
        let Some(mut run) = operator.runs[r].take() else { return };
        if rest.verified {
            run.pass.verified(&mut operator.queue);
        }
        run.pass.rested(rest.again, now, &policy, 0.0);
        run.pass.leave_queue(rest.refusal, now, &policy, 0.0, &mut operator.queue);
        let uid = run.pass.job().uid().unwrap_or_default();
        // Delays of nothing never bind: forgetting them keeps equal states equal.
        operator.queue.postpone(&uid, None);
        self.keep(world, o, r, run);
    }

    fn keep(&self, world: &mut World, o: usize, r: usize, run: Run) {
        let operator = world.operator(o);
        let uid = run.pass.job().uid();
        if operator.cache[r].as_ref().is_none_or(|cached| cached.job().uid() != uid) {
            return;
        }
        let mut remembered = run.pass.end();
        remembered.setbacks = 0;
        remembered.errors = 0;
        remembered.memory.pause = None;
        operator.remembered[r] = remembered;
    }

    fn fail(&self, world: &mut World, o: usize, r: usize) {
        let (now, policy) = (world.now(), delays(&self.rules));
        let operator = world.operator(o);
        if let Some(mut run) = operator.runs[r].take() {
            run.pass.failed(now, &policy, 0.0, &mut operator.queue);
            operator.queue.postpone(&run.pass.job().uid().unwrap_or_default(), None);
            self.keep(world, o, r, run);
        }
    }

    /// How the next step of this pass may fare.
    pub(crate) fn fates(&self, world: &World, o: usize, r: usize) -> &'static [Fate] {
        const WRITE: &[Fate] = &[Fate::Well, Fate::Lost { applied: true }, Fate::Lost { applied: false }];
        const READ: &[Fate] = &[Fate::Well, Fate::Unread];
        const PROOF: &[Fate] = &[Fate::Well, Fate::Unread, Fate::TagsUnread];
        let Some(run) = &world.operators[o].runs[r] else { return &[] };
        let (can_lose, can_miss) = (world.left.losses > 0, world.left.reads > 0);
        match run.pass.next(world.now(), &delays(&self.rules)) {
            Effect::RecordIntent(_) if can_lose && world.operators[o].leads => WRITE,
            Effect::Outcome(Outcome { status: Some(_), .. }) if can_lose => WRITE,
            Effect::DescribeJob { attempt, prove: true } if can_miss && shown(world, r, attempt).is_some() => PROOF,
            Effect::Refresh
            | Effect::DescribeDataset
            | Effect::ListJobs
            | Effect::DescribeJob { .. }
            | Effect::ReadAge { .. }
                if can_miss =>
            {
                READ
            }
            _ => &[Fate::Well],
        }
    }

    /// Goes on by one step.
    pub(crate) fn step(&self, world: &mut World, o: usize, r: usize, fate: Fate) -> Option<()> {
        let now = world.now();
        let leads = world.operators[o].leads;
        let run = world.operators[o].runs[r].as_ref().filter(|run| run.waits.is_none())?;
        let step = run.pass.next(now, &delays(&self.rules));
        match step {
            Effect::Refresh if fate == Fate::Unread => self.fail(world, o, r),
            Effect::Refresh => {
                let live = world.live[r].as_ref().map(|live| live.job().clone());
                let operator = world.operator(o);
                let run = operator.runs[r].as_mut()?;
                if !run.pass.refreshed(live, &mut operator.queue) {
                    let uid = run.pass.job().uid().unwrap_or_default();
                    operator.runs[r] = None;
                    // The watch tells when it is to be forgotten.
                    operator.queue.release(&uid);
                }
            }
            Effect::DescribeJob { attempt, prove } => {
                // Not even a broken protocol could go on from the service's word that the name is taken.
                let told = matches!(&run.pass.seen().create, Some(Err(f)) if f.kind == ErrorKind::AlreadyExists);
                let found = if self.rules.breaks.no_look && prove && !told {
                    Err(failure(ErrorKind::NotFound))
                } else {
                    self.describe(world, r, attempt, prove, fate)
                };
                world.operator(o).runs[r].as_mut()?.pass.looked_up(attempt, found, now);
            }
            Effect::DescribeDataset => {
                let status = if fate == Fate::Unread { Err(failure(ErrorKind::NotFound)) } else { Ok(ACTIVE.into()) };
                world.operator(o).runs[r].as_mut()?.pass.saw_dataset(status);
            }
            Effect::ListJobs => {
                let jobs =
                    if fate == Fate::Unread { Err(failure(ErrorKind::Indeterminate)) } else { Ok(self.list(world)) };
                let operator = world.operator(o);
                operator.runs[r].as_mut()?.pass.saw_jobs(jobs, &operator.queue);
            }
            Effect::ReadAge { job_name } => {
                let unread = fate == Fate::Unread;
                let tags = if unread { Err(failure(ErrorKind::Indeterminate)) } else { self.tags(world, &job_name) };
                world.operator(o).runs[r].as_mut()?.pass.saw_age(job_name, tags);
            }
            Effect::RecordIntent(_) | Effect::Create { .. } if !leads => self.fail(world, o, r),
            Effect::RecordIntent(status) => {
                let attempt = status.submission.as_ref().map(|s| s.attempt);
                if self.rules.breaks.no_intent {
                    let operator = world.operator(o);
                    let run = operator.runs[r].as_mut()?;
                    let unwritten = Snapshot::new(run.pass.with_status(*status)).job().clone();
                    run.pass.recorded(unwritten, attempt, &mut operator.queue);
                } else {
                    self.write(world, o, r, *status, attempt, fate)?;
                }
            }
            Effect::Create { attempt } => {
                world.operator(o).runs[r].as_mut()?.waits = Some(attempt);
                world.calls.push(Call { operator: o, resource: r, attempt, awaited: true });
            }
            Effect::Outcome(mut rest) if rest.status.is_some() => {
                if self.write(world, o, r, *rest.status.take()?, None, fate)? {
                    self.rest(world, o, r, &rest);
                }
            }
            Effect::AskPermission | Effect::TakeTurn | Effect::Outcome(_) => {}
        }
        self.settle(world, o, r);
        Some(())
    }

    /// Writes a status; true if it was written and its writer knows.
    fn write(
        &self,
        world: &mut World,
        o: usize,
        r: usize,
        mut status: personalize_operator::api::DatasetImportJobStatus,
        intent: Option<i32>,
        fate: Fate,
    ) -> Option<bool> {
        if self.rules.breaks.no_record_of_wishes {
            status.last_handled_retry_at = None;
        }
        let job = world.operators[o].runs[r].as_ref()?.pass.with_status(status);
        let applied = fate != Fate::Lost { applied: false };
        let written = if applied { world.put(r, &job, &self.rules) } else { None };
        let operator = world.operator(o);
        let run = operator.runs[r].as_mut()?;
        if matches!(fate, Fate::Lost { .. }) {
            run.pass.unsure();
            self.fail(world, o, r);
            return Some(false);
        }
        match written {
            Some(written) => run.pass.recorded(written.job().clone(), intent, &mut operator.queue),
            None => {
                run.pass.outrun();
                return Some(false);
            }
        }
        Some(true)
    }

    fn describe(
        &self,
        world: &World,
        r: usize,
        attempt: i32,
        prove: bool,
        fate: Fate,
    ) -> Result<ObservedJob, ServiceError> {
        if fate == Fate::Unread {
            return Err(failure(ErrorKind::Indeterminate));
        }
        let made = shown(world, r, attempt).ok_or_else(|| failure(ErrorKind::NotFound))?;
        let request = &self.names.0[r].0;
        let ours = !made.foreign || self.rules.breaks.no_proof;
        let tags: Vec<Tag> = if ours { request.own_tags() } else { Vec::new() };
        let job = Job {
            name: self.names.of(r, attempt),
            dataset: request.dataset.as_str().into(),
            data_location: request.data_location.clone(),
            role_arn: request.role_arn.clone(),
            import_mode: Some(request.import_mode.as_str().into()),
            publish_attribution_metrics_to_s3: None,
            status: made.status.into(),
            failure_reason: None,
            created: Some(at(0)),
            updated: Some(at(0)),
        };
        let tags = if fate == Fate::TagsUnread { Err(failure(ErrorKind::NotFound)) } else { Ok(tags) };
        Ok(ObservedJob { job, tags: prove.then_some(tags) })
    }

    fn tags(&self, world: &World, job_name: &str) -> Result<Vec<Tag>, ServiceError> {
        let named = |job: &&Made| self.names.of(job.resource, job.attempt) == job_name;
        let job = world.jobs.iter().find(named).ok_or_else(|| failure(ErrorKind::NotFound))?;
        Ok(if job.foreign || self.rules.breaks.no_age { Vec::new() } else { self.names.0[job.resource].0.own_tags() })
    }

    fn list(&self, world: &World) -> Vec<JobSummary> {
        let summary = |job: &Made| JobSummary {
            name: self.names.of(job.resource, job.attempt),
            status: job.status.into(),
            created: Some(at(0)),
            updated: Some(at(0)),
        };
        world.jobs.iter().filter(|job| job.visible).map(summary).collect()
    }

    fn answer(&self, world: &mut World, call: &Call, answer: Result<(), ServiceError>) {
        if !call.awaited {
            return;
        }
        let doubted = matches!(&answer, Err(failure) if failure.kind == ErrorKind::Indeterminate);
        let answer = if doubted && self.rules.breaks.no_doubt { Err(failure(ErrorKind::Throttled)) } else { answer };
        let operator = world.operator(call.operator);
        if let Some(run) = operator.runs[call.resource].as_mut() {
            run.waits = None;
            run.pass.created(call.attempt, answer, &mut operator.queue);
        }
        self.settle(world, call.operator, call.resource);
    }

    /// A create call reaches the service.
    pub(crate) fn arrive(&self, world: &mut World, c: usize, lost: bool) {
        let call = world.calls.remove(c);
        let accepted = self.accept(world, call.resource, call.attempt);
        let answer = match (lost, accepted) {
            (true, _) => Err(failure(ErrorKind::Indeterminate)),
            (false, true) => Ok(()),
            (false, false) => Err(failure(ErrorKind::AlreadyExists)),
        };
        self.answer(world, &call, answer);
    }

    /// The service refuses a create call.
    pub(crate) fn refuse(&self, world: &mut World, c: usize, kind: ErrorKind) {
        let call = world.calls.remove(c);
        self.answer(world, &call, Err(failure(kind)));
    }

    /// The sender waits no longer.
    pub(crate) fn give_up(&self, world: &mut World, c: usize) {
        let call = world.calls[c].clone();
        world.calls[c].awaited = false;
        self.answer(world, &call, Err(failure(ErrorKind::Indeterminate)));
    }
}
