//! The loop of a reconciliation: plan, perform, apply.

use super::{Finished, Interrupted, Observation, Reconciliation};
use crate::import::{Effect, Next, Timing};
use crate::queue::Queue;
use jiff::Timestamp;
use std::future::Future;
use std::sync::Mutex;

/// The most effects of one reconciliation, more than any needs.
const MAX_EFFECTS: usize = 1000;

/// Performs effects: everything that a reconciliation needs from outside. The controller, the unit tests and the fuzz
/// targets have an executor each; the model checker runs its own loop.
pub trait Executor {
    /// Why an effect could not be performed.
    type Error;

    /// The time.
    fn now(&self) -> Timestamp;

    /// A number in 0..1 that spreads delays.
    fn jitter(&self) -> f64;

    /// Performs one effect of this reconciliation.
    fn perform(
        &mut self,
        reconciliation: &Reconciliation,
        effect: Effect,
    ) -> impl Future<Output = Result<Observation, Self::Error>> + Send;
}

/// Why a reconciliation stopped before its end.
#[derive(Debug, PartialEq, Eq)]
pub enum Stopped<E> {
    /// The reconciliation can't continue.
    Interrupted(Interrupted),
    /// It exceeded the limit of effects.
    EffectLimit,
    /// An effect could not be performed.
    Executor(E),
}

/// Runs a reconciliation to its end.
///
/// # Errors
/// When it stops before its end. The caller then calls [`Reconciliation::fail`].
pub async fn drive<E: Executor>(
    reconciliation: &mut Reconciliation,
    executor: &mut E,
    queue: &Mutex<Queue>,
    timing: &Timing,
) -> Result<Finished, Stopped<E::Error>> {
    for _ in 0..MAX_EFFECTS {
        let now = executor.now();
        let observation = match reconciliation.next(now, timing) {
            Next::Finish(outcome) => {
                let jitter = || executor.jitter();
                return Ok(reconciliation.finish(&outcome, now, timing, jitter, &mut Queue::lock(queue)));
            }
            Next::TryAdmit => Observation::Admission(Queue::lock(queue).try_admit(&reconciliation.uid(), now)),
            Next::FindNewerImport => Observation::NewerImport(Queue::lock(queue).newer_import(&reconciliation.uid())),
            Next::Perform(effect) => {
                reconciliation.note(&effect);
                executor.perform(reconciliation, effect).await.map_err(Stopped::Executor)?
            }
        };
        reconciliation.apply(observation, executor.now(), &mut Queue::lock(queue)).map_err(Stopped::Interrupted)?;
    }
    Err(Stopped::EffectLimit)
}
