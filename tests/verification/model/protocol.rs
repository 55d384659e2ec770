//! The model: which actions are possible, what each one does, and what must hold in every state.

use crate::config::{Config, Mutation, UserAction};
use crate::executor::Fault;
use crate::state::{Import, ModelState, Snapshot};
use personalize_operator::personalize::{ACTIVE, CREATE_FAILED, ErrorKind};
use stateright::{Model, Property};

/// What may happen next. Operators, resources, calls and jobs are numbered from 0; where there are two numbers, the
/// operator comes first.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// The operator's watch delivers the resource, or its deletion.
    Watch(usize, usize),
    /// The operator starts to reconcile the resource, from its cache.
    Start(usize, usize),
    /// The reconciliation performs its next effect, with this fault.
    Step(usize, usize, Fault),
    /// A create call arrives at the service, and its response at the operator.
    Arrive(usize),
    /// A create call arrives at the service, and its response is lost.
    LoseResponse(usize),
    /// The service rejects a create call.
    Reject(usize, ErrorKind),
    /// The sender of a create call times out. The call may still arrive.
    TimeOut(usize),
    /// A create call whose sender has timed out or crashed never arrives.
    Drop(usize),
    /// A job becomes visible.
    BecomeVisible(usize),
    /// A job ends with this status.
    End(usize, &'static str),
    /// Another program starts a data deletion job in the dataset group.
    StartDataDeletion,
    /// It ends.
    EndDataDeletion,
    /// More time than the grace period passes.
    Tick,
    /// The operator crashes and restarts.
    Crash(usize),
    /// The lease goes to this operator. Reconciliations of the other one are frozen where they are.
    TakeOver(usize),
    /// The leader ends in order, and this operator takes over: none of its create calls may still arrive.
    TakeOverCleanly(usize),
    /// A user or another program does something to the resource.
    Act(usize, UserAction),
}

/// The model of this configuration.
#[derive(Clone, Debug)]
pub(crate) struct ProtocolModel {
    pub(crate) config: Config,
    pub(crate) imports: Vec<Import>,
}

impl ProtocolModel {
    pub(crate) fn new(config: Config) -> Self {
        let imports = (0..config.resources).map(|r| Import::new(&config, r)).collect();
        Self { config, imports }
    }

    pub(crate) fn has(&self, mutation: Mutation) -> bool {
        self.config.mutation == Some(mutation)
    }
}

impl Model for ProtocolModel {
    type State = ModelState;
    type Action = Action;

    fn init_states(&self) -> Vec<ModelState> {
        vec![ModelState::new(&self.config)]
    }

    fn actions(&self, state: &ModelState, actions: &mut Vec<Action>) {
        for (o, operator) in state.operators.iter().enumerate() {
            for r in 0..state.live.len() {
                if operator.leads && operator.cache[r] != state.live[r] {
                    actions.push(Action::Watch(o, r));
                }
                match &operator.active[r] {
                    None if operator.leads && operator.cache[r].is_some() => actions.push(Action::Start(o, r)),
                    Some(active) if !active.awaits_create => {
                        actions.extend(self.faults(state, o, r).iter().map(|fault| Action::Step(o, r, *fault)));
                    }
                    _ => {}
                }
            }
            if state.budget.crashes > 0 && operator.leads {
                actions.push(Action::Crash(o));
            }
            if state.budget.handovers > 0 && !operator.leads && !self.config.two_leaders {
                actions.push(Action::TakeOver(o));
                let other = &state.operators[1 - o];
                if other.queue.is_drained(state.now()) && other.active.iter().all(Option::is_none) {
                    actions.push(Action::TakeOverCleanly(o));
                }
            }
        }
        for (c, call) in state.calls.iter().enumerate() {
            actions.push(Action::Arrive(c));
            if !call.awaited {
                actions.push(Action::Drop(c));
                continue;
            }
            if state.budget.lost_responses > 0 {
                actions.extend([Action::LoseResponse(c), Action::TimeOut(c)]);
            }
            if state.budget.rejections > 0 {
                actions.extend([ErrorKind::QuotaExceeded, ErrorKind::InvalidInput].map(|kind| Action::Reject(c, kind)));
            }
        }
        for (j, job) in state.jobs.iter().enumerate() {
            if !job.visible {
                actions.push(Action::BecomeVisible(j));
            }
            if !job.has_ended() {
                actions.push(Action::End(j, ACTIVE));
                if state.budget.failed_jobs > 0 {
                    actions.push(Action::End(j, CREATE_FAILED));
                }
            }
        }
        let may_tick = !self.config.bounded_delays
            || state.calls.is_empty()
                && state.jobs.iter().all(|job| job.visible)
                && (!self.config.two_leaders
                    || state.active().all(|active| !active.reconciliation.has_recorded_intent()));
        if state.budget.ticks > 0 && may_tick {
            actions.push(Action::Tick);
        }
        match state.data_deletions {
            (_, true) => actions.push(Action::EndDataDeletion),
            (_, false) if state.budget.data_deletions > 0 => actions.push(Action::StartDataDeletion),
            (_, false) => {}
        }
        if state.budget.user_actions > 0 {
            for r in 0..state.live.len() {
                actions.extend(self.config.user_actions.iter().map(|user_action| Action::Act(r, *user_action)));
            }
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
                    Fault::ResponseLost { .. } => state.budget.lost_responses -= 1,
                    Fault::ReadFails | Fault::TagsMissing => state.budget.failed_reads -= 1,
                }
                self.step(&mut state, o, r, fault)?;
            }
            Action::Arrive(c) => self.arrive(&mut state, c, false),
            Action::LoseResponse(c) => {
                state.budget.lost_responses -= 1;
                self.arrive(&mut state, c, true);
            }
            Action::Reject(c, kind) => {
                state.budget.rejections -= 1;
                self.reject(&mut state, c, kind);
            }
            Action::TimeOut(c) => {
                state.budget.lost_responses -= 1;
                self.time_out(&mut state, c);
            }
            Action::Drop(c) => {
                state.calls.remove(c);
            }
            Action::BecomeVisible(j) => state.jobs[j].visible = true,
            Action::End(j, status) => {
                state.budget.failed_jobs -= u8::from(status == CREATE_FAILED);
                Self::end_job(&mut state, j, status);
            }
            Action::StartDataDeletion => {
                state.budget.data_deletions -= 1;
                state.data_deletions = (state.data_deletions.0 + 1, true);
            }
            Action::EndDataDeletion => state.data_deletions.1 = false,
            Action::Tick => {
                state.budget.ticks -= 1;
                state.clock += 1;
            }
            Action::Crash(o) => {
                state.budget.crashes -= 1;
                state.restart(o, !self.has(Mutation::SkipQuarantine));
            }
            Action::TakeOver(o) => {
                state.budget.handovers -= 1;
                state.operator(1 - o).leads = false;
                // A reconciliation of this operator that an earlier handover froze is gone.
                state.restart(o, !self.has(Mutation::SkipQuarantine));
            }
            Action::TakeOverCleanly(o) => {
                state.budget.handovers -= 1;
                state.operator(1 - o).leads = false;
                state.restart(o, false);
            }
            Action::Act(r, user_action) => {
                state.budget.user_actions -= 1;
                self.user_action(&mut state, r, user_action)?;
            }
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("A: no attempt is accepted twice", |_, state: &ModelState| {
                state.accepted.windows(2).all(|pair| pair[0] != pair[1])
            }),
            Property::always(
                "A: another attempt follows a failed one, within the limit or because a user requested it",
                |_, state: &ModelState| !state.disallowed_attempt,
            ),
            Property::always("C: no foreign job is adopted", |_, state: &ModelState| {
                let adopts_foreign_job = |(r, live): (usize, &Snapshot)| {
                    let attempts = live.resource().status.as_ref().and_then(|s| s.attempts).unwrap_or(0);
                    state.jobs.iter().any(|job| (job.resource, job.attempt) == (r, attempts) && job.foreign)
                };
                let mut live = state.live.iter().enumerate().filter_map(|(r, live)| Some((r, live.as_ref()?)));
                state.status_forged || !live.any(adopts_foreign_job)
            }),
            Property::always("H: no older import finishes after a newer one", |_, state: &ModelState| {
                !state.out_of_order
            }),
            Property::always("H: a dataset has one import at a time", |_, state: &ModelState| !state.overlapped),
            Property::always(
                "L: no import is accepted within a data deletion that had started when it was checked",
                |_, state: &ModelState| !state.accepted_in_deletion,
            ),
            Property::always(
                "B: every import finishes once nothing goes wrong any more",
                |model: &Self, state: &ModelState| state.active().next().is_some() || model.finishes(state),
            ),
        ]
    }
}
