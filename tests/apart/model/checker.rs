//! The model: which actions there are, what each does, and what must always hold.

use crate::rules::{Deed, Rules};
use crate::world::{Names, Snapshot, World, over, policy, resource};
use kube::ResourceExt;
use personalize_operator::api::{DatasetImportJob, DatasetImportJobStatus, RETRY_REQUESTED_AT};
use personalize_operator::conditions::Reason;
use personalize_operator::personalize::{ACTIVE, CREATE_FAILED, CREATE_PENDING, Class};
use stateright::{Model, Property};

/// What may happen next. Operators and resources go by number.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// The operator's watch delivers the resource as it is now, or that it is gone.
    Watch(usize, usize),
    /// The operator takes up the resource as its cache has it.
    Begin(usize, usize),
    /// The pass goes on by a step.
    Step(usize, usize),
    /// The pass goes on by a write whose effect or answer is lost.
    StepLost(usize, usize, bool),
    /// A create call reaches the service; its answer may be lost.
    Arrive(usize, bool),
    /// A create call is refused.
    Refuse(usize, Class),
    /// The sender of a call waits no longer; the call is still on its way.
    GiveUp(usize),
    /// A call that nobody waits for is lost.
    Drop(usize),
    /// A job shows.
    Show(usize),
    /// A job ends.
    End(usize, bool),
    /// The clock passes the grace.
    Tick,
    /// The operator dies and starts anew.
    Crash(usize),
    /// The lease goes to this operator; the other one's passes are frozen where they are.
    Lead(usize),
    /// A person or another program does something.
    Do(usize, Deed),
}

/// The model under these rules.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    pub(crate) rules: Rules,
    pub(crate) names: Names,
}

impl Checked {
    pub(crate) fn new(rules: Rules) -> Self {
        let names = Names::new(rules.resources);
        Self { rules, names }
    }

    fn deed(&self, world: &mut World, r: usize, deed: Deed) -> Option<()> {
        let edit = |world: &World, change: fn(&mut DatasetImportJob)| {
            let mut job = world.live[r].as_ref()?.job().clone();
            change(&mut job);
            Some(job)
        };
        match deed {
            Deed::MakeJob if world.taken(r, 1) => return None,
            Deed::MakeJob => {
                let made = crate::world::Made { resource: r, attempt: 1, foreign: true, status: ACTIVE, visible: true };
                world.jobs.push(made);
            }
            Deed::Delete => {
                world.live[r].take()?;
            }
            Deed::Apply if world.live[r].is_some() => return None,
            Deed::Apply => {
                world.versions[r] += 1;
                let incarnation = u8::try_from(world.versions[r]).unwrap_or(u8::MAX);
                world.live[r] = Some(Snapshot::new(resource(r, incarnation, world.versions[r], false)));
            }
            Deed::Suspend => {
                let job = edit(world, |job| {
                    job.spec.suspend = !job.spec.suspend;
                    job.metadata.generation = job.metadata.generation.map(|g| g + 1);
                })?;
                world.write(r, job, None);
            }
            Deed::Retry => {
                let job = edit(world, |job| {
                    job.annotations_mut().insert(RETRY_REQUESTED_AT.into(), "now".into());
                })?;
                world.write(r, job, None);
            }
            Deed::Wipe => {
                let job = edit(world, |job| {
                    job.status = Some(DatasetImportJobStatus::default());
                    job.metadata.managed_fields = None;
                })?;
                world.write(r, job, None);
            }
            Deed::Forge => {
                let mut job = edit(world, |_| {})?;
                let arn = self.names.0[r].0.job_arn(1).0;
                let status = DatasetImportJobStatus {
                    status: Some(ACTIVE.into()),
                    attempts: Some(1),
                    dataset_import_job_arn: Some(arn),
                    ..DatasetImportJobStatus::default()
                };
                job.status = Some(status);
                world.write(r, job, Some("somebody"));
                world.meddled = true;
            }
        }
        Some(())
    }

    /// The service carries a create call out; true if it accepts.
    pub(crate) fn accept(&self, world: &mut World, r: usize, attempt: i32) -> bool {
        let taken = world.taken(r, attempt);
        if self.rules.unique_names && taken {
            return false;
        }
        world.accepted.push((r, attempt));
        world.accepted.sort_unstable();
        world.overlapped |= world.jobs.iter().any(|job| job.resource != r && !job.foreign && !over(job));
        if !taken {
            let lag = world.left.lags > 0;
            world.left.lags -= u8::from(lag);
            let made =
                crate::world::Made { resource: r, attempt, foreign: false, status: CREATE_PENDING, visible: !lag };
            world.jobs.push(made);
            world.jobs.sort_by_key(|job| (job.resource, job.attempt, job.foreign));
        }
        true
    }

    pub(crate) fn end(world: &mut World, j: usize, well: bool) {
        let r = world.jobs[j].resource;
        world.jobs[j].status = if well { ACTIVE } else { CREATE_FAILED };
        let newer = |job: &crate::world::Made| job.resource > r && job.status == ACTIVE && !job.foreign;
        world.out_of_order |= well && world.jobs.iter().any(newer);
    }

    /// The import of every resource comes to its end once nothing goes wrong any more.
    fn finishes(&self, world: &World) -> bool {
        let mut world = world.clone();
        let mut rules = self.rules.clone();
        rules.breaks = crate::rules::Breaks::default();
        let fair = Self { rules, names: self.names.clone() };
        world.left = crate::rules::Budget::default();
        if !world.operators.iter().any(|operator| operator.leads) {
            let started = world.started(&self.rules, true);
            *world.operator(0) = started;
        }
        for r in 0..world.live.len() {
            if world.live[r].as_ref().is_some_and(|live| live.job().spec.suspend) {
                let _ = fair.deed(&mut world, r, Deed::Suspend);
            }
        }
        for _ in 0..8 {
            if (0..world.live.len()).all(|r| self.finished(&world, r)) {
                return true;
            }
            fair.fair_round(&mut world);
        }
        false
    }

    fn fair_round(&self, world: &mut World) {
        let resources = world.live.len();
        for (o, r) in (0..2).flat_map(|o| (0..resources).map(move |r| (o, r))) {
            if !world.operators[o].leads {
                continue;
            }
            self.watch(world, o, r);
            self.begin(world, o, r);
            for _ in 0..100 {
                while !world.calls.is_empty() {
                    self.arrive(world, 0, false);
                }
                if self.step(world, o, r, None).is_none() {
                    break;
                }
            }
        }
        world.jobs.iter_mut().for_each(|job| job.visible = true);
        for j in 0..world.jobs.len() {
            if !over(&world.jobs[j]) {
                Self::end(world, j, true);
            }
        }
        world.clock += 1;
    }

    fn finished(&self, world: &World, r: usize) -> bool {
        let Some(live) = &world.live[r] else { return true };
        let status = live.job().status.clone().unwrap_or_default();
        let has = |what: &str| {
            world.jobs.iter().any(|job| job.resource == r && job.status == what && !job.foreign && job.visible)
        };
        match Reason::of(&status) {
            Some(Reason::ImportSucceeded) => has(ACTIVE),
            Some(Reason::ImportFailed) => has(CREATE_FAILED),
            Some(Reason::JobNameConflict) => world.jobs.iter().any(|job| job.resource == r && job.foreign),
            Some(Reason::Superseded) => world.jobs.iter().any(|job| job.resource > r && job.status == ACTIVE),
            Some(Reason::JobNotFound) => world.meddled,
            _ => false,
        }
    }
}

impl Model for Checked {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(&self.rules)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        for (o, operator) in world.operators.iter().enumerate() {
            for r in 0..world.live.len() {
                if operator.leads && operator.cache[r] != world.live[r] {
                    actions.push(Action::Watch(o, r));
                }
                match &operator.runs[r] {
                    None if operator.leads && operator.cache[r].is_some() => actions.push(Action::Begin(o, r)),
                    Some(run) if run.waits.is_none() => {
                        actions.push(Action::Step(o, r));
                        if world.left.losses > 0 && self.writes(world, o, r) {
                            actions.extend([Action::StepLost(o, r, true), Action::StepLost(o, r, false)]);
                        }
                    }
                    _ => {}
                }
            }
            if world.left.crashes > 0 && operator.leads {
                actions.push(Action::Crash(o));
            }
            if world.left.handovers > 0 && !operator.leads && !self.rules.both_lead {
                actions.push(Action::Lead(o));
            }
        }
        for (c, call) in world.calls.iter().enumerate() {
            actions.push(Action::Arrive(c, false));
            if !call.awaited {
                actions.push(Action::Drop(c));
                continue;
            }
            if world.left.losses > 0 {
                actions.extend([Action::Arrive(c, true), Action::GiveUp(c)]);
            }
            if world.left.refusals > 0 {
                actions.extend([Class::QuotaExceeded, Class::InvalidInput].map(|class| Action::Refuse(c, class)));
            }
        }
        for (j, job) in world.jobs.iter().enumerate() {
            if !job.visible {
                actions.push(Action::Show(j));
            }
            if !over(job) {
                actions.push(Action::End(j, true));
                if world.left.failures > 0 {
                    actions.push(Action::End(j, false));
                }
            }
        }
        let on_time = world.calls.is_empty()
            && world.jobs.iter().all(|job| job.visible)
            && (!self.rules.both_lead || world.runs().all(|run| !run.pass.has_begun()));
        if world.left.ticks > 0 && (on_time || !self.rules.timely) {
            actions.push(Action::Tick);
        }
        if world.left.deeds > 0 {
            let resources = 0..world.live.len();
            actions.extend(resources.flat_map(|r| self.rules.deeds.iter().map(move |deed| Action::Do(r, *deed))));
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        match action {
            Action::Watch(o, r) => self.watch(&mut world, o, r),
            Action::Begin(o, r) => self.begin(&mut world, o, r),
            Action::Step(o, r) => self.step(&mut world, o, r, None)?,
            Action::StepLost(o, r, applied) => {
                world.left.losses -= 1;
                self.step(&mut world, o, r, Some(applied))?;
            }
            Action::Arrive(c, lost) => {
                world.left.losses -= u8::from(lost);
                self.arrive(&mut world, c, lost);
            }
            Action::Refuse(c, class) => {
                world.left.refusals -= 1;
                self.refuse(&mut world, c, class);
            }
            Action::GiveUp(c) => {
                world.left.losses -= 1;
                self.give_up(&mut world, c);
            }
            Action::Drop(c) => {
                world.calls.remove(c);
            }
            Action::Show(j) => world.jobs[j].visible = true,
            Action::End(j, well) => {
                world.left.failures -= u8::from(!well);
                Self::end(&mut world, j, well);
            }
            Action::Tick => {
                world.left.ticks -= 1;
                world.clock += 1;
            }
            Action::Crash(o) => {
                world.left.crashes -= 1;
                world.calls.iter_mut().filter(|call| call.operator == o).for_each(|call| call.awaited = false);
                let started = world.started(&self.rules, true);
                *world.operator(o) = started;
            }
            Action::Lead(o) => {
                world.left.handovers -= 1;
                // The one that starts was standing by; what it had under way before is gone.
                world.calls.iter_mut().filter(|call| call.operator == o).for_each(|call| call.awaited = false);
                world.operator(1 - o).leads = false;
                let started = world.started(&self.rules, true);
                *world.operator(o) = started;
            }
            Action::Do(r, deed) => {
                world.left.deeds -= 1;
                self.deed(&mut world, r, deed)?;
            }
        }
        (world != *last).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("A: nothing is accepted twice", |_, world: &World| {
                world.accepted.windows(2).all(|pair| pair[0] != pair[1])
            }),
            Property::always(
                "A: another attempt needs a failed one, and a person or a limit",
                |model: &Self, world: &World| {
                    let asked = model.rules.deeds.contains(&Deed::Retry);
                    world.accepted.iter().all(|(_, attempt)| *attempt == 1 || asked)
                },
            ),
            Property::always("C: no foreign job is adopted", |_, world: &World| {
                let told = |(r, live): (usize, &Option<Snapshot>)| {
                    let Some(live) = live else { return false };
                    let attempts = live.job().status.as_ref().and_then(|s| s.attempts).unwrap_or(0);
                    attempts > 0
                        && world.jobs.iter().any(|job| job.resource == r && job.attempt == attempts && job.foreign)
                };
                world.meddled || !world.live.iter().enumerate().any(told)
            }),
            Property::always("H: no older import lands after a newer one", |_, world: &World| !world.out_of_order),
            Property::always("one import at a time per dataset", |_, world: &World| !world.overlapped),
            Property::always("B: once nothing goes wrong, every import is finished", |model: &Self, world: &World| {
                world.runs().next().is_some() || model.finishes(world)
            }),
        ]
    }
}

/// The policy of the modelled operators.
pub(crate) fn delays(rules: &Rules) -> personalize_operator::schedule::Policy {
    policy(rules.grace)
}
