//! The loop of a reconciliation: plan, perform, apply.

use super::{Finished, Interrupted, Observation, Reconciliation};
use crate::import::{Effect, Next, Timing};
use crate::queue::Queue;
use jiff::Timestamp;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// More effects than any reconciliation needs.
const MAX_EFFECTS: usize = 1000;

/// Performs effects: everything that a reconciliation needs from outside. Only implementations differ between
/// production, tests and models; the loop is the same.
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
    /// It asks for more effects than any should.
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
                return Ok(reconciliation.finish(&outcome, now, timing, jitter, &mut lock(queue)));
            }
            Next::TryAdmit => Observation::Admission(lock(queue).try_admit(&reconciliation.uid(), now)),
            Next::Perform(effect) => executor.perform(reconciliation, effect).await.map_err(Stopped::Executor)?,
        };
        reconciliation.apply(observation, executor.now(), &mut lock(queue)).map_err(Stopped::Interrupted)?;
    }
    Err(Stopped::EffectLimit)
}

/// Locks the queue. A panic under the lock does no harm: the queue is an index of what was observed, and each entry is
/// replaced as a whole.
fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}
