//! What must happen after any state, once nothing goes wrong any more.

use crate::config::{Budget, Config, UserAction};
use crate::executor::Fault;
use crate::protocol::ProtocolModel;
use crate::state::{ModelJob, ModelState};
use personalize_operator::api::conditions::Reason;
use personalize_operator::personalize::{ACTIVE, CREATE_FAILED};

impl ProtocolModel {
    /// Whether every import finishes if the protocol is intact and nothing goes wrong from this state on.
    pub(crate) fn finishes(&self, state: &ModelState) -> bool {
        let intact = Self { config: Config { mutation: None, ..self.config.clone() }, imports: self.imports.clone() };
        let mut state = state.clone();
        state.budget = Budget::default();
        state.data_deletions.1 = false;
        for r in 0..state.live.len() {
            if state.live[r].as_ref().is_some_and(|live| live.resource().spec.suspend) {
                let _ = intact.user_action(&mut state, r, UserAction::Suspend);
            }
        }
        for _ in 0..8 {
            if (0..state.live.len()).all(|r| self.has_finished(&state, r)) {
                return true;
            }
            intact.run_once(&mut state);
        }
        false
    }

    /// Each leader reconciles each resource to the end, each job succeeds, and the grace period passes.
    fn run_once(&self, state: &mut ModelState) {
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
            if !state.jobs[j].has_ended() {
                Self::end_job(state, j, ACTIVE);
            }
        }
        state.clock += 1;
    }

    /// Whether the import has finished, and for a reason that is true.
    fn has_finished(&self, state: &ModelState, r: usize) -> bool {
        let Some(live) = &state.live[r] else { return true };
        let status = live.resource().status.clone().unwrap_or_default();
        let any_job =
            |condition: fn(&ModelJob) -> bool| state.jobs.iter().any(|job| job.resource == r && condition(job));
        let attempts = status.attempts.unwrap_or(0);
        match Reason::of(&status) {
            // The operator believes that the job of a forged status is the one that it submitted.
            Some(Reason::ImportSucceeded) => {
                state.status_forged || any_job(|job| job.status == ACTIVE && !job.foreign && job.visible)
            }
            // Neither the limit nor a user's retry request is left unused.
            Some(Reason::ImportFailed) => {
                any_job(|job| job.status == CREATE_FAILED && !job.foreign && job.visible)
                    && attempts > self.config.backoff_limit
                    && attempts >= state.pending_request[r]
            }
            Some(Reason::JobNameConflict) => any_job(|job| job.foreign),
            Some(Reason::Superseded) => state.jobs.iter().any(|job| job.resource > r && job.status == ACTIVE),
            Some(Reason::JobNotFound) => state.status_forged,
            _ => false,
        }
    }
}
