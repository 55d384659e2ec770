//! What is to come true from any state on, once nothing goes wrong any more.

use crate::checker::ProtocolModel;
use crate::executor::Fault;
use crate::rules::{Budget, Mutation, UserAction};
use crate::state::{ModelJob, ModelState, has_ended};
use personalize_operator::api::conditions::Reason;
use personalize_operator::personalize::{ACTIVE, CREATE_FAILED};

impl ProtocolModel {
    /// The import of every resource comes to its end once nothing goes wrong any more.
    pub(crate) fn finishes(&self, state: &ModelState) -> bool {
        let mut state = state.clone();
        let mut rules = self.rules.clone();
        rules.mutation = Mutation::default();
        let fair = Self { rules, names: self.names.clone() };
        state.left = Budget::default();
        if !state.operators.iter().any(|operator| operator.leads) {
            let started = state.started(&self.rules, true);
            *state.operator(0) = started;
        }
        for r in 0..state.live.len() {
            if state.live[r].as_ref().is_some_and(|live| live.resource().spec.suspend) {
                let _ = fair.user_action(&mut state, r, UserAction::Suspend);
            }
        }
        for _ in 0..8 {
            if (0..state.live.len()).all(|r| self.finished(&state, r)) {
                return true;
            }
            fair.round(&mut state);
        }
        false
    }

    fn round(&self, state: &mut ModelState) {
        let resources = state.live.len();
        for (o, r) in (0..2).flat_map(|o| (0..resources).map(move |r| (o, r))) {
            if !state.operators[o].leads {
                continue;
            }
            self.watch(state, o, r);
            self.start(state, o, r);
            for _ in 0..100 {
                while !state.calls.is_empty() {
                    self.arrive(state, 0, false);
                }
                if self.step(state, o, r, Fault::None).is_none() {
                    break;
                }
            }
        }
        state.jobs.iter_mut().for_each(|job| job.visible = true);
        for j in 0..state.jobs.len() {
            if !has_ended(&state.jobs[j]) {
                Self::end_job(state, j, true);
            }
        }
        state.clock += 1;
    }

    fn finished(&self, state: &ModelState, r: usize) -> bool {
        let Some(live) = &state.live[r] else { return true };
        let status = live.resource().status.clone().unwrap_or_default();
        let has = |what: &str| {
            state.jobs.iter().any(|job| job.resource == r && job.status == what && !job.foreign && job.visible)
        };
        let attempts = status.attempts.unwrap_or(0);
        let taken_by_another = |job: &ModelJob| job.resource == r && job.foreign;
        match Reason::of(&status) {
            // A job that somebody's status claimed is believed to be the one that was submitted.
            Some(Reason::ImportSucceeded) => has(ACTIVE) || state.tampered,
            // Neither the limit nor a person's wish for another attempt goes unused.
            Some(Reason::ImportFailed) => {
                has(CREATE_FAILED) && attempts > self.rules.backoff_limit && attempts >= state.pending_request[r]
            }
            Some(Reason::JobNameConflict) => state.jobs.iter().any(taken_by_another),
            Some(Reason::Superseded) => state.jobs.iter().any(|job| job.resource > r && job.status == ACTIVE),
            Some(Reason::JobNotFound) => state.tampered,
            _ => false,
        }
    }
}
