//! The model: which actions there are, what each does, and what must always hold.

use crate::carry::Fate;
use crate::rules::{Deed, Rules};
use crate::world::{Names, Snapshot, World, over, policy};
use personalize_operator::personalize::ErrorKind;
use stateright::{Model, Property};

/// What may happen next. Operators and resources go by number.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// The operator's watch delivers the resource as it is now, or that it is gone.
    Watch(usize, usize),
    /// The operator takes up the resource as its cache has it.
    Begin(usize, usize),
    /// The pass goes on by a step, which fares like this.
    Effect(usize, usize, Fate),
    /// A create call reaches the service; its answer may be lost.
    Arrive(usize, bool),
    /// A create call is refused.
    Refuse(usize, ErrorKind),
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
        let names = Names::new(&rules);
        Self { rules, names }
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
                        actions.extend(self.fates(world, o, r).iter().map(|fate| Action::Effect(o, r, *fate)));
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
                actions
                    .extend([ErrorKind::QuotaExceeded, ErrorKind::InvalidInput].map(|class| Action::Refuse(c, class)));
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
            Action::Effect(o, r, fate) => {
                match fate {
                    Fate::Well => {}
                    Fate::Lost { .. } => world.left.losses -= 1,
                    Fate::Unread | Fate::TagsUnread => world.left.reads -= 1,
                }
                self.step(&mut world, o, r, fate)?;
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
            Property::always("A: another attempt needs a failed one, and a person or a limit", |_, world: &World| {
                !world.unasked
            }),
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
pub(crate) fn delays(rules: &Rules) -> personalize_operator::import::timing::Timing {
    policy(rules.grace)
}
