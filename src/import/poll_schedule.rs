//! When to poll a running job: a pure function of its age and of how long earlier imports took.
//!
//! Polls are dense where the job is likely to end and sparse elsewhere. If a job of age `t` ends with the rate `h` (the
//! hazard), polls with the density `sqrt(c * h)` are the fewest for a mean delay. A delay counts relative to the age, so
//! `c` falls with `1 / t`.
//!
//! ```
//! use personalize_operator::import::{PollSchedule, Timing};
//! use std::time::Duration;
//!
//! let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
//! let schedule = PollSchedule::new(&Timing::default(), &[minutes(60); 10]);
//! assert_eq!(schedule.interval(minutes(10)), minutes(5), "long before the expected end");
//! assert!(schedule.interval(minutes(60)) < minutes(1), "around the expected end");
//! ```

use super::timing::Timing;
use crate::personalize::{ACTIVE, JobSummary};
use std::time::Duration;

/// The most imports that the schedule learns from: the newest ones.
const MAX_HISTORY: usize = 20;

/// How dense polls are. More cost more calls, and show the end sooner. The more is known of earlier imports, the fewer polls
/// there are, and the nearer to the end: so they are up to twice as dense.
const PRECISION: f64 = 11.0;

/// What is expected without history: the weight, the median in units of the maximum interval (5 minutes by default) and
/// the shape. Few jobs fail early; most take 10 minutes; some take hours.
const PRIOR: [(f64, f64, f64); 3] = [(0.02, 0.25, 2.0), (0.78, 2.0, 5.0), (0.2, 6.0, 1.0)];

/// The weight of the prior beside one earlier import.
const PRIOR_WEIGHT: f64 = 0.1;

/// The least and the greatest spread of durations around an earlier one, as a factor in logarithms.
const SPREAD: (f64, f64) = (0.1, 0.3);

/// The number of steps that an integral over the maximum interval has.
const STEPS: u32 = 100;

/// Jobs that are expected to end around a moment: a log-logistic distribution of their durations.
#[derive(Debug, Clone, Copy)]
struct Ends {
    weight: f64,
    median: f64,
    shape: f64,
}

impl Ends {
    /// The part of the jobs that are still running at this age.
    fn running(self, age: f64) -> f64 {
        self.weight / (1.0 + (age / self.median).powf(self.shape))
    }

    /// The jobs that end while the age grows by the factor e, if their rate stays.
    fn ending(self, age: f64) -> f64 {
        let running = self.running(age);
        running * (1.0 - running / self.weight) * self.shape
    }
}

/// The schedule of the polls of one job.
#[derive(Debug, Clone)]
pub struct PollSchedule {
    ends: Vec<Ends>,
    precision: f64,
    min: Duration,
    max: Duration,
}

impl PollSchedule {
    /// The schedule of a job, by the durations of earlier imports into its dataset.
    #[must_use]
    pub fn new(timing: &Timing, history: &[Duration]) -> Self {
        let unit = timing.poll_max.as_secs_f64();
        let prior =
            PRIOR.map(|(weight, median, shape)| Ends { weight: weight * PRIOR_WEIGHT, median: median * unit, shape });
        let ends = prior.into_iter().chain(around(history)).collect();
        let count = f64::from(u32::try_from(history.len().max(1)).unwrap_or(u32::MAX));
        Self { ends, precision: PRECISION * (2.0 - 1.0 / count), min: timing.poll_min, max: timing.poll_max }
    }

    /// The schedule with this many times as many polls where the intervals are within their bounds.
    #[must_use]
    pub fn with_density(mut self, factor: f64) -> Self {
        self.precision *= factor;
        self
    }

    /// The schedule of this many jobs that one list polls together: a poll costs each of them less. The square root
    /// would keep the price of a shorter delay. Polls are somewhat denser, and show the ends sooner.
    #[must_use]
    pub fn shared_by(self, jobs: u32) -> Self {
        self.with_density(f64::from(jobs.max(1)).powf(2.0 / 3.0))
    }

    /// The interval until the next poll of a job of this age.
    #[must_use]
    pub fn interval(&self, age: Duration) -> Duration {
        let (step, mut missing) = (self.max / STEPS, 1.0);
        for i in 0..STEPS {
            let passed = step * i;
            let polls = self.density((age.saturating_add(passed + step / 2)).as_secs_f64()) * step.as_secs_f64();
            if polls >= missing {
                return (passed + step.mul_f64(missing / polls)).max(self.min).min(self.max);
            }
            missing -= polls;
        }
        self.max
    }

    /// Polls per second at this age in seconds.
    fn density(&self, age: f64) -> f64 {
        let sum = |part: fn(Ends, f64) -> f64| self.ends.iter().map(|ends| part(*ends, age)).sum::<f64>();
        let hazard = sum(Ends::ending) / sum(Ends::running);
        if hazard > 0.0 { self.precision * hazard.sqrt() / age } else { 0.0 }
    }
}

/// A job is expected to take about as long as an earlier one. The nearest other durations say how exactly.
fn around(history: &[Duration]) -> impl Iterator<Item = Ends> {
    let logs: Vec<f64> = history.iter().map(|duration| duration.as_secs_f64().max(1e-3).ln()).collect();
    let count = f64::from(u32::try_from(logs.len()).unwrap_or(u32::MAX));
    let nearest = logs.len().isqrt();
    let spread = |log: &f64| {
        let mut distances: Vec<f64> = logs.iter().map(|other| (log - other).abs()).collect();
        distances.sort_by(f64::total_cmp);
        // The first distance is that to itself.
        let distance = distances.get(nearest).copied().unwrap_or_default();
        distance.clamp(SPREAD.0 / count.sqrt(), SPREAD.1)
    };
    // The standard deviation of a log-logistic distribution in logarithms is 1.81 / shape.
    let ends = |log: &f64| Ends { weight: 1.0, median: log.exp(), shape: 1.81 / spread(log) };
    logs.iter().map(ends).collect::<Vec<_>>().into_iter()
}

/// How long the newest of these jobs took, of those that succeeded.
pub(crate) fn durations(jobs: &[JobSummary]) -> Vec<Duration> {
    let succeeded = jobs.iter().filter(|job| job.status == ACTIVE);
    let mut times: Vec<_> = succeeded.filter_map(|job| job.created.zip(job.updated)).collect();
    times.sort_unstable_by(|a, b| b.cmp(a));
    times.truncate(MAX_HISTORY);
    times.into_iter().map(|(created, updated)| super::timing::since(created, updated)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{job_summary, timing};
    use jiff::Timestamp;
    use proptest::prelude::*;

    const fn minutes(minutes: u64) -> Duration {
        Duration::from_secs(60 * minutes)
    }

    fn schedule(history: &[Duration]) -> PollSchedule {
        PollSchedule::new(&timing(), history)
    }

    /// The number of polls of a job, and the delay until its end is seen.
    fn follow(schedule: &PollSchedule, duration: Duration) -> (u32, Duration) {
        let (mut age, mut polls) = (Duration::ZERO, 0);
        while age < duration {
            age += schedule.interval(age);
            polls += 1;
        }
        (polls, age - duration)
    }

    #[test]
    fn first_import_takes_few_polls() {
        let schedule = schedule(&[]);
        assert!(follow(&schedule, minutes(10)).0 <= 14);
        assert!(schedule.interval(minutes(10)) <= Duration::from_secs(45));
        assert!(follow(&schedule, minutes(60)).0 <= 34);
    }

    #[test]
    fn few_polls_show_the_end_of_an_import_that_takes_as_long_as_earlier_ones() {
        for duration in [minutes(8), minutes(10), minutes(25), minutes(60)] {
            let history: Vec<_> = (0..10).map(|i| duration + Duration::from_secs(3 * i)).collect();
            let (polls, delay) = follow(&schedule(&history), duration + Duration::from_secs(20));
            assert!(u64::from(polls) <= 6 + duration.as_secs() / 300, "{duration:?}: {polls} polls");
            assert!(delay <= duration / 20, "{duration:?}: {delay:?}");
        }
    }

    #[test]
    fn import_between_two_usual_durations_is_polled_rarely() {
        let bimodal = schedule(&[10, 11, 10, 60, 61, 60, 59, 10].map(minutes));
        let at = |age| bimodal.interval(minutes(age));
        assert!(at(10) < minutes(1) && at(59) < minutes(3), "{:?} {:?}", at(10), at(59));
        assert!(at(25) > minutes(3), "{:?}", at(25));
    }

    #[test]
    fn one_outlier_changes_little() {
        let mut history = vec![minutes(10); 10];
        let usual = schedule(&history).interval(minutes(10));
        history[3] = minutes(600);
        assert!(schedule(&history).interval(minutes(10)) < usual * 2);
    }

    #[test]
    fn only_the_newest_successes_count() {
        let job = |i: i64, status: &str| JobSummary {
            created: Some(Timestamp::from_second(10_000 * i).unwrap()),
            updated: Some(Timestamp::from_second(10_000 * i + 60 * i).unwrap()),
            ..job_summary("job", status)
        };
        let mut jobs: Vec<_> = (1..=30).map(|i| job(i, ACTIVE)).collect();
        jobs.extend([job(40, "CREATE FAILED"), job(41, "CREATE IN_PROGRESS"), job_summary("job", ACTIVE)]);
        let expected: Vec<_> = (11..=30).rev().map(minutes).collect();
        assert_eq!(durations(&jobs), expected);
    }

    proptest! {
        #[test]
        fn interval_is_within_its_bounds(
            age in 0_u64..1 << 40,
            history in proptest::collection::vec(0_u64..1 << 40, 0..30),
            bounds in (1_u64..1 << 30, 1_u64..1 << 30),
        ) {
            let (min, max) = (Duration::from_millis(bounds.0.min(bounds.1)), Duration::from_millis(bounds.0.max(bounds.1)));
            let timing = Timing { poll_min: min, poll_max: max, ..timing() };
            let history: Vec<_> = history.into_iter().map(Duration::from_secs).collect();
            let interval = PollSchedule::new(&timing, &history).interval(Duration::from_secs(age));
            prop_assert!((min..=max).contains(&interval));
        }

        #[test]
        fn schedule_depends_on_the_ratios_of_durations_alone(age in 1_u64..20_000, history in proptest::collection::vec(60_u64..20_000, 0..20)) {
            let scaled = Timing { poll_min: timing().poll_min / 60, poll_max: timing().poll_max / 60, ..timing() };
            let whole: Vec<_> = history.iter().copied().map(Duration::from_secs).collect();
            let parts: Vec<_> = whole.iter().map(|duration| *duration / 60).collect();
            let whole = schedule(&whole).interval(Duration::from_secs(age)).as_secs_f64();
            let part = PollSchedule::new(&scaled, &parts).interval(Duration::from_secs(age) / 60).as_secs_f64() * 60.0;
            prop_assert!((whole - part).abs() < 0.1, "{whole} {part}");
        }
    }
}
