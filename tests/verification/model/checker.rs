//! The model: which actions there are, what each does, and what must always hold.

use crate::executor::Fault;
use crate::rules::{Rules, UserAction};
use crate::state::{ModelState, Names, Snapshot, has_ended, timing};
use personalize_operator::personalize::ErrorKind;
use stateright::{Model, Property};

/// What may happen next. Operators and resources go by number.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// The operator's watch delivers the resource as it is now, or that it is gone.
    Watch(usize, usize),
    /// The operator takes up the resource as its cache has it.
    Start(usize, usize),
    /// The pass goes on by a step, which fares like this.
    Step(usize, usize, Fault),
    /// A create call reaches the service; its answer may be lost.
    Arrive(usize, bool),
    /// A create call is refused.
    Reject(usize, ErrorKind),
    /// The sender of a call waits no longer; the call is still on its way.
    TimeOut(usize),
    /// A call that nobody waits for is lost.
    Drop(usize),
    /// A job shows.
    BecomeVisible(usize),
    /// A job ends.
    End(usize, bool),
    /// The clock passes the grace.
    Tick,
    /// The operator dies and starts anew.
    Crash(usize),
    /// The lease goes to this operator; the other one's passes are frozen where they are.
    TakeOver(usize),
    /// A person or another program does something.
    Act(usize, UserAction),
}

/// The model under these rules.
#[derive(Clone, Debug)]
pub(crate) struct ProtocolModel {
    pub(crate) rules: Rules,
    pub(crate) names: Names,
}

impl ProtocolModel {
    pub(crate) fn new(rules: Rules) -> Self {
        let names = Names::new(&rules);
        Self { rules, names }
    }
}

impl Model for ProtocolModel {
    type State = ModelState;
    type Action = Action;

    fn init_states(&self) -> Vec<ModelState> {
        vec![ModelState::new(&self.rules)]
    }

    fn actions(&self, state: &ModelState, actions: &mut Vec<Action>) {
        for (o, operator) in state.operators.iter().enumerate() {
            for r in 0..state.live.len() {
                if operator.leads && operator.cache[r] != state.live[r] {
                    actions.push(Action::Watch(o, r));
                }
                match &operator.active[r] {
                    None if operator.leads && operator.cache[r].is_some() => actions.push(Action::Start(o, r)),
                    Some(run) if !run.awaits_create => {
                        actions.extend(self.faults(state, o, r).iter().map(|fault| Action::Step(o, r, *fault)));
                    }
                    _ => {}
                }
            }
            if state.left.crashes > 0 && operator.leads {
                actions.push(Action::Crash(o));
            }
            if state.left.handovers > 0 && !operator.leads && !self.rules.both_lead {
                actions.push(Action::TakeOver(o));
            }
        }
        for (c, call) in state.calls.iter().enumerate() {
            actions.push(Action::Arrive(c, false));
            if !call.awaited {
                actions.push(Action::Drop(c));
                continue;
            }
            if state.left.losses > 0 {
                actions.extend([Action::Arrive(c, true), Action::TimeOut(c)]);
            }
            if state.left.rejections > 0 {
                actions
                    .extend([ErrorKind::QuotaExceeded, ErrorKind::InvalidInput].map(|class| Action::Reject(c, class)));
            }
        }
        for (j, job) in state.jobs.iter().enumerate() {
            if !job.visible {
                actions.push(Action::BecomeVisible(j));
            }
            if !has_ended(job) {
                actions.push(Action::End(j, true));
                if state.left.failures > 0 {
                    actions.push(Action::End(j, false));
                }
            }
        }
        let on_time = state.calls.is_empty()
            && state.jobs.iter().all(|job| job.visible)
            && (!self.rules.both_lead || state.active().all(|run| !run.reconciliation.has_recorded_intent()));
        if state.left.ticks > 0 && (on_time || !self.rules.timely) {
            actions.push(Action::Tick);
        }
        if state.left.user_actions > 0 {
            let resources = 0..state.live.len();
            actions.extend(
                resources
                    .flat_map(|r| self.rules.user_actions.iter().map(move |user_action| Action::Act(r, *user_action))),
            );
        }
    }

    fn next_state(&self, last: &ModelState, action: Action) -> Option<ModelState> {
        let mut state = last.clone();
        match action {
            Action::Watch(o, r) => self.watch(&mut state, o, r),
            Action::Start(o, r) => self.start(&mut state, o, r),
            Action::Step(o, r, fault) => {
                match fault {
                    Fault::None => {}
                    Fault::AnswerLost { .. } => state.left.losses -= 1,
                    Fault::ReadFails | Fault::TagsMissing => state.left.reads -= 1,
                }
                self.step(&mut state, o, r, fault)?;
            }
            Action::Arrive(c, lost) => {
                state.left.losses -= u8::from(lost);
                self.arrive(&mut state, c, lost);
            }
            Action::Reject(c, class) => {
                state.left.rejections -= 1;
                self.reject(&mut state, c, class);
            }
            Action::TimeOut(c) => {
                state.left.losses -= 1;
                self.time_out(&mut state, c);
            }
            Action::Drop(c) => {
                state.calls.remove(c);
            }
            Action::BecomeVisible(j) => state.jobs[j].visible = true,
            Action::End(j, well) => {
                state.left.failures -= u8::from(!well);
                Self::end_job(&mut state, j, well);
            }
            Action::Tick => {
                state.left.ticks -= 1;
                state.clock += 1;
            }
            Action::Crash(o) => {
                state.left.crashes -= 1;
                state.calls.iter_mut().filter(|call| call.operator == o).for_each(|call| call.awaited = false);
                let started = state.started(&self.rules, true);
                *state.operator(o) = started;
            }
            Action::TakeOver(o) => {
                state.left.handovers -= 1;
                // The one that starts was standing by; what it had under way before is gone.
                state.calls.iter_mut().filter(|call| call.operator == o).for_each(|call| call.awaited = false);
                state.operator(1 - o).leads = false;
                let started = state.started(&self.rules, true);
                *state.operator(o) = started;
            }
            Action::Act(r, user_action) => {
                state.left.user_actions -= 1;
                self.user_action(&mut state, r, user_action)?;
            }
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("A: nothing is accepted twice", |_, state: &ModelState| {
                state.accepted.windows(2).all(|pair| pair[0] != pair[1])
            }),
            Property::always(
                "A: another attempt needs a failed one, and a person or a limit",
                |_, state: &ModelState| !state.unrequested,
            ),
            Property::always("C: no foreign job is adopted", |_, state: &ModelState| {
                let told = |(r, live): (usize, &Option<Snapshot>)| {
                    let Some(live) = live else { return false };
                    let attempts = live.resource().status.as_ref().and_then(|s| s.attempts).unwrap_or(0);
                    attempts > 0
                        && state.jobs.iter().any(|job| job.resource == r && job.attempt == attempts && job.foreign)
                };
                state.tampered || !state.live.iter().enumerate().any(told)
            }),
            Property::always("H: no older import lands after a newer one", |_, state: &ModelState| !state.out_of_order),
            Property::always("one import at a time per dataset", |_, state: &ModelState| !state.overlapped),
            Property::always(
                "B: once nothing goes wrong, every import is finished",
                |model: &Self, state: &ModelState| state.active().next().is_some() || model.finishes(state),
            ),
        ]
    }
}

/// The timing of the modelled operators.
pub(crate) fn timing_of(rules: &Rules) -> personalize_operator::import::timing::Timing {
    timing(rules.grace)
}
