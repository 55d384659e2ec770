//! When to look again: pure functions from ages and setbacks to delays.

use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// The delays that the operator keeps; all of them are configurable.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Timing {
    /// The shortest time between two looks at a running job.
    pub poll_min: Duration,
    /// The longest time between two looks at a running job.
    pub poll_max: Duration,
    /// How long after a submission an unknown job may still appear.
    pub grace: Duration,
    /// The delay after a first passing failure; it doubles with each further one.
    pub backoff_min: Duration,
    /// The longest delay after passing failures.
    pub backoff_max: Duration,
    /// The delay after a first rejection; it doubles with each further one.
    pub rejected_min: Duration,
    /// The longest delay after rejections.
    pub rejected_max: Duration,
    /// The delay before a failed job's first retry; it doubles with each further one.
    pub retry_min: Duration,
    /// How often a waiting resource looks by itself, should a wake-up be lost.
    pub waiting: Duration,
}

/// How fast to try again after a setback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// Something that passes by itself.
    Transient,
    /// Something that a person has to mend, perhaps outside the manifest.
    NeedsUser,
}

impl Timing {
    /// The delay after so many setbacks in a row (from 1). `jitter` in 0..1 spreads it over half to
    /// the whole of its length.
    #[must_use]
    pub fn backoff(&self, pace: Severity, setbacks: u32, jitter: f64) -> Duration {
        let (min, max) = match pace {
            Severity::Transient => (self.backoff_min, self.backoff_max),
            Severity::NeedsUser => (self.rejected_min, self.rejected_max),
        };
        doubled(min, max, setbacks).mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
    }

    /// The delay between a CREATE FAILED and the next attempt, after so many attempts (from 1).
    #[must_use]
    pub fn retry(&self, attempts: i32) -> Duration {
        doubled(self.retry_min, self.rejected_max, attempts.max(1).unsigned_abs())
    }

    /// The time until the next look at a job of this age.
    ///
    /// The interval grows with the age. Where earlier imports show how long one takes (`typical`),
    /// looks are sparse before that and close around it.
    #[must_use]
    pub fn poll(&self, age: Duration, typical: Option<Duration>) -> Duration {
        let interval = |from: Duration| (from / 10).clamp(self.poll_min, self.poll_max);
        let Some(typical) = typical else {
            return interval(age);
        };
        let early = typical.mul_f64(0.8);
        let late = typical.mul_f64(1.2);
        if age < early {
            (early - age).clamp(self.poll_min, self.poll_max)
        } else if age < late {
            interval(typical / 4)
        } else {
            interval(age - late + typical / 4)
        }
    }
}

fn doubled(min: Duration, max: Duration, times: u32) -> Duration {
    let factor = 1_u32 << times.saturating_sub(1).min(16);
    min.saturating_mul(factor).min(max)
}

/// The time from one moment to a later one; nothing if it isn't later.
#[must_use]
pub fn since(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

/// The moment so long after another.
#[must_use]
pub fn after(from: Timestamp, delay: Duration) -> Timestamp {
    SignedDuration::try_from(delay).ok().and_then(|d| from.checked_add(d).ok()).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn secs(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    pub(crate) fn policy() -> Timing {
        Timing {
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

    #[test]
    fn looks_become_rarer_with_the_age_of_a_job() {
        let policy = policy();
        assert_eq!(policy.poll(secs(0), None), secs(15));
        assert_eq!(policy.poll(secs(1000), None), secs(100));
        assert_eq!(policy.poll(secs(1_000_000), None), secs(300));
    }

    #[test]
    fn looks_are_sparse_before_the_typical_end_and_close_around_it() {
        let policy = policy();
        let typical = Some(secs(1000));
        assert_eq!(policy.poll(secs(0), typical), secs(300));
        assert_eq!(policy.poll(secs(700), typical), secs(100));
        assert_eq!(policy.poll(secs(1000), typical), secs(25));
        assert_eq!(policy.poll(secs(100_000), typical), secs(300));
    }

    proptest! {
        #[test]
        fn every_delay_is_bounded(setbacks: u32, jitter: f64, attempts: i32, age in 0_u64..1 << 40, typical in proptest::option::of(0_u64..1 << 40)) {
            let policy = policy();
            prop_assert!(policy.backoff(Severity::Transient, setbacks, jitter) <= policy.backoff_max);
            prop_assert!(policy.backoff(Severity::NeedsUser, setbacks, jitter) >= policy.rejected_min / 2);
            prop_assert!(policy.retry(attempts) <= policy.rejected_max);
            let poll = policy.poll(secs(age), typical.map(secs));
            prop_assert!((policy.poll_min..=policy.poll_max).contains(&poll));
        }
    }
}
