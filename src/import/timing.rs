//! When to poll and when to try again: pure functions from ages and failure counts to delays.
//!
//! ```
//! use jiff::Timestamp;
//! use personalize_operator::import::Backoff;
//! use std::time::Duration;
//!
//! let mut backoff = Backoff::default();
//! let delay = backoff.fail(Timestamp::UNIX_EPOCH, |failures| Duration::from_secs(10) * failures);
//! assert_eq!((delay, backoff.failures()), (Duration::from_secs(10), 1));
//! backoff.reset();
//! assert_eq!(backoff.until(), None);
//! ```

use super::poll_schedule::PollSchedule;
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// The delays, as they are configured.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Timing {
    /// The shortest interval between two polls of a running job.
    pub poll_min: Duration,
    /// The longest interval between two polls of a running job.
    pub poll_max: Duration,
    /// How long after a submission its job may still appear.
    pub grace: Duration,
    /// The delay after the first transient failure; it doubles with each further one.
    pub backoff_min: Duration,
    /// The longest delay after transient failures.
    pub backoff_max: Duration,
    /// The delay after the first rejection; it doubles with each further one.
    pub rejected_min: Duration,
    /// The longest delay after rejections.
    pub rejected_max: Duration,
    /// The delay before the first retry of a failed job; it doubles with each further one.
    pub retry_min: Duration,
    /// How often a waiting resource is reconciled if no event triggers it earlier.
    pub waiting: Duration,
}

impl Default for Timing {
    /// The defaults of the flags.
    fn default() -> Self {
        let secs = Duration::from_secs;
        Self {
            poll_min: secs(15),
            poll_max: secs(300),
            grace: secs(60),
            backoff_min: secs(5),
            backoff_max: secs(300),
            rejected_min: secs(120),
            rejected_max: secs(3600),
            retry_min: secs(10),
            waiting: secs(600),
        }
    }
}

/// Who has to act after a failure before another try can succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// No one: the failure is temporary.
    Transient,
    /// A user, often outside the manifest.
    NeedsUser,
}

impl Timing {
    /// The delay after this many failures in a row (from 1). `jitter` in 0..1 spreads it over its upper half.
    #[must_use]
    pub fn backoff(&self, severity: Severity, failures: u32, jitter: f64) -> Duration {
        let (min, max) = match severity {
            Severity::Transient => (self.backoff_min, self.backoff_max),
            Severity::NeedsUser => (self.rejected_min, self.rejected_max),
        };
        spread(exponential(min, max, failures), jitter)
    }

    /// The interval until the next poll of a job of this age, by the durations of earlier imports, if any are known.
    #[must_use]
    pub fn poll(&self, age: Duration, earlier: &[Duration]) -> Duration {
        PollSchedule::new(self, earlier).interval(age)
    }

    /// How often data that was not submitted is listed, to see whether it has changed: one call each time.
    #[must_use]
    pub fn list_interval(&self) -> Duration {
        self.poll_max / 5
    }

    /// The delay between CREATE FAILED and the next attempt, after this many attempts (from 1).
    #[must_use]
    pub fn retry(&self, attempts: i32) -> Duration {
        exponential(self.retry_min, self.rejected_max, attempts.max(1).unsigned_abs())
    }
}

/// Spreads a delay over its upper half. `jitter` is in 0..1.
pub(crate) fn spread(delay: Duration, jitter: f64) -> Duration {
    delay.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
}

fn exponential(min: Duration, max: Duration, failures: u32) -> Duration {
    let factor = 1_u32 << failures.saturating_sub(1).min(16);
    min.saturating_mul(factor).min(max)
}

/// A delay that grows with each failure in a row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Backoff {
    failures: u32,
    until: Option<Timestamp>,
}

impl Backoff {
    /// Counts a failure and returns the delay that follows it. `delay` maps the number of failures in a row (from 1) to
    /// a delay.
    pub fn fail(&mut self, now: Timestamp, delay: impl Fn(u32) -> Duration) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let delay = delay(self.failures);
        self.until = Some(after(now, delay));
        delay
    }

    /// Ends the delay, but keeps the count of failures in a row.
    pub(crate) fn end_delay(&mut self) {
        self.until = None;
    }

    /// Forgets the failures.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// The number of failures in a row.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// When the delay ends; `None` if there is none.
    #[must_use]
    pub fn until(&self) -> Option<Timestamp> {
        self.until
    }
}

/// The time between two moments; zero if `to` is not later.
#[must_use]
pub fn since(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

/// The moment this long after another; the latest possible one on overflow.
#[must_use]
pub fn after(from: Timestamp, delay: Duration) -> Timestamp {
    SignedDuration::try_from(delay).ok().and_then(|d| from.checked_add(d).ok()).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::timing;
    use proptest::prelude::*;

    const fn secs(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn backoff_keeps_counting_after_a_delay_ends_until_it_is_reset() {
        let mut backoff = Backoff::default();
        let delay = |failures: u32| secs(failures.into());
        assert_eq!(backoff.fail(Timestamp::UNIX_EPOCH, delay), secs(1));
        assert_eq!(backoff.until(), Some(after(Timestamp::UNIX_EPOCH, secs(1))));
        backoff.end_delay();
        assert_eq!((backoff.until(), backoff.failures()), (None, 1));
        assert_eq!(backoff.fail(Timestamp::UNIX_EPOCH, delay), secs(2));
        backoff.reset();
        assert_eq!(backoff.fail(Timestamp::UNIX_EPOCH, delay), secs(1));
    }

    proptest! {
        #[test]
        fn every_delay_is_within_its_bounds(failures: u32, jitter: f64, attempts: i32) {
            let timing = timing();
            prop_assert!(timing.backoff(Severity::Transient, failures, jitter) <= timing.backoff_max);
            prop_assert!(timing.backoff(Severity::NeedsUser, failures, jitter) >= timing.rejected_min / 2);
            prop_assert!(timing.retry(attempts) <= timing.rejected_max);
        }
    }
}
