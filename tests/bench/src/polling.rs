//! The poll schedule: polls of a job against the delay until its end is seen.

use crate::plot::{Panel, Plot};
use crate::random::Random;
use crate::report::Report;
use personalize_operator::import::{PollSchedule, Timing};
use std::error::Error;
use std::time::Duration;

/// How many datasets of each distribution are simulated. Each has its own size.
const DATASETS: usize = 20;
/// How many imports into a dataset the operator knows.
const HISTORY: usize = 20;
/// How many further imports into it are simulated.
const JOBS: usize = 50;
/// The mean delay of polls every 30 seconds.
const DELAY: f64 = 15.0;
/// How many jobs run at once in one account and region where the operator reads one list for all of them.
const AT_ONCE: u32 = 5;
/// The densities of polls along a curve; 1 is what the operator uses.
const DENSITIES: [f64; 11] = [0.35, 0.5, 0.7, 1.0, 1.5, 2.25, 3.5, 6.0, 10.0, 20.0, 40.0];

/// How long imports take: name, and durations in minutes.
type Distribution = (&'static str, fn(&mut Random) -> f64);

const DISTRIBUTIONS: [Distribution; 9] = [
    ("constant, 5 min", |_| 5.0),
    ("constant, 10 min", |_| 10.0),
    ("constant, 60 min", |_| 60.0),
    ("constant, 5 h", |_| 300.0),
    ("log-normal, 15 min ± 10 %", |random| 15.0 * (0.1 * random.normal()).exp()),
    ("log-normal, 60 min ± 10 %", |random| 60.0 * (0.1 * random.normal()).exp()),
    ("log-normal, 60 min ± 30 %", |random| 60.0 * (0.3 * random.normal()).exp()),
    ("bimodal, 10 and 60 min", |random| bimodal(random, 10.0, 60.0)),
    ("bimodal, 20 min and 5 h", |random| bimodal(random, 20.0, 300.0)),
];

fn bimodal(random: &mut Random, short: f64, long: f64) -> f64 {
    let around = if random.uniform() < 0.5 { short } else { long };
    around * (0.03 * random.normal()).exp()
}

/// A dataset: earlier imports and further ones, in seconds.
struct Dataset {
    history: Vec<Duration>,
    jobs: Vec<f64>,
}

impl Dataset {
    /// A dataset of its own size, from 10 % smaller to 10 % larger. Durations vary by half a minute at least.
    fn sample((_, minutes): Distribution, random: &mut Random) -> Self {
        let size = 0.9 + 0.2 * random.uniform();
        let mut duration = || (60.0 * size * minutes(random) + 30.0 * random.uniform()).clamp(270.0, 21_600.0);
        let history = (0..HISTORY).map(|_| Duration::from_secs_f64(duration())).collect();
        Self { history, jobs: (0..JOBS).map(|_| duration()).collect() }
    }
}

/// The ages at which a job is polled, until it has run this long.
fn times(until: f64, interval: impl Fn(f64) -> f64) -> Vec<f64> {
    std::iter::successors(Some(interval(0.0)), |age| (*age < until).then(|| age + interval(*age))).collect()
}

fn schedule_times(until: f64, schedule: &PollSchedule) -> Vec<f64> {
    times(until, |age| schedule.interval(Duration::from_secs_f64(age)).as_secs_f64())
}

/// The mean number of polls of a job, and the mean delay in seconds until its end is seen.
fn simulate(datasets: &[Dataset], times_of: impl Fn(&Dataset) -> Vec<f64>) -> (f64, f64) {
    let (mut polls, mut delay, mut jobs) = (0.0, 0.0, 0.0);
    for dataset in datasets {
        let times = times_of(dataset);
        for duration in &dataset.jobs {
            let last = times.partition_point(|at| at < duration).min(times.len() - 1);
            polls += f64::from(u32::try_from(last + 1).unwrap_or(u32::MAX));
            delay += times[last] - duration;
            jobs += 1.0;
        }
    }
    (polls / jobs, delay / jobs)
}

/// Polls at a mean delay of 15 s, between the points of a curve of delays and polls.
fn at_delay(curve: &[(f64, f64)]) -> f64 {
    let between = |pair: &[(f64, f64)]| {
        let ((from, more), (to, fewer)) = if pair[0].0 < pair[1].0 { (pair[0], pair[1]) } else { (pair[1], pair[0]) };
        let part = (DELAY.ln() - from.ln()) / (to.ln() - from.ln());
        (from <= DELAY && DELAY <= to).then(|| (more.ln() + part * (fewer.ln() - more.ln())).exp())
    };
    let lowest = curve.windows(2).filter_map(between).fold(f64::INFINITY, f64::min);
    // Where the fewest polls have a shorter delay, they count.
    if lowest.is_finite() { lowest } else { curve.iter().map(|point| point.1).fold(f64::INFINITY, f64::min) }
}

/// The fewest polls at a mean delay of 15 s for who knows the distribution of one dataset: (∫ √(f S))² / 2 / delay, where
/// f is the density of the durations and S the part that is longer.
fn floor((_, minutes): Distribution) -> f64 {
    const SAMPLES: u32 = 20_000;
    let mut random = Random::new(2);
    let mut durations: Vec<f64> = (0..SAMPLES).map(|_| 60.0 * minutes(&mut random) + 30.0 * random.uniform()).collect();
    durations.sort_by(f64::total_cmp);
    let count_to = |at: f64| f64::from(u32::try_from(durations.partition_point(|d| *d <= at)).unwrap_or(u32::MAX));
    let width = 30.0;
    let first = durations[0] - 1.0;
    let bins =
        (1..).map(|i| first + width * f64::from(i)).take_while(|end| end - width < durations[durations.len() - 1]);
    let sum: f64 = bins
        .map(|end| {
            let ended = (count_to(end) - count_to(end - width)) / f64::from(SAMPLES);
            let running = 1.0 - count_to(end - width / 2.0) / f64::from(SAMPLES);
            (ended * width * running).sqrt()
        })
        .sum();
    // The last poll of a job comes half an interval late on average.
    sum * sum / 2.0 / DELAY + 0.5
}

/// Runs the measurement.
pub(crate) fn measure() -> Result<Report, Box<dyn Error>> {
    let timing = Timing::default();
    let (mut rows, mut panels) = (Vec::new(), Vec::new());
    for distribution in DISTRIBUTIONS {
        let mut random = Random::new(1);
        let datasets: Vec<Dataset> = (0..DATASETS).map(|_| Dataset::sample(distribution, &mut random)).collect();
        let longest = datasets.iter().flat_map(|dataset| &dataset.jobs).copied().fold(0.0, f64::max);
        let fixed = |interval: f64| simulate(&datasets, |_| times(longest, |_| interval));
        // The Step Functions of the AWS solution: 60 s, and 2 % more after each poll.
        let exponential = simulate(&datasets, |_| times(longest, |age| 60.0 + 0.02 * age));
        let curve = |with_history: bool| {
            DENSITIES.map(|density| {
                let schedule = |history: &[Duration]| PollSchedule::new(&timing, history).with_density(density);
                let new = schedule_times(longest, &schedule(&[]));
                simulate(&datasets, |dataset| {
                    if with_history { schedule_times(longest, &schedule(&dataset.history)) } else { new.clone() }
                })
            })
        };
        let (first, known) = (curve(false), curve(true));
        let swapped = |points: &[(f64, f64)]| points.iter().map(|(polls, delay)| (*delay, *polls)).collect::<Vec<_>>();
        let (first_curve, known_curve) = (swapped(&first), swapped(&known));
        // One list for all, and a poll of each job that has started or ended.
        let share = |(polls, delay): (f64, f64)| (polls / f64::from(AT_ONCE) + 2.0, delay);
        let shared_curve = swapped(&first.map(share));
        let schedule = PollSchedule::new(&timing, &[]).shared_by(AT_ONCE);
        let shared = share(simulate(&datasets, |_| schedule_times(longest, &schedule)));
        let used = DENSITIES.iter().position(|density| *density == 1.0).unwrap_or(0);
        let numbers = vec![
            fixed(30.0).0,
            first[used].0,
            first[used].1,
            at_delay(&first_curve),
            shared.0,
            shared.1,
            at_delay(&shared_curve),
            known[used].0,
            known[used].1,
            at_delay(&known_curve),
            floor(distribution),
        ];
        rows.push((distribution.0.to_owned(), numbers));
        panels.push(Panel {
            title: distribution.0.to_owned(),
            lines: vec![
                ("every 30, 60, 120 s", swapped(&[fixed(30.0), fixed(60.0), fixed(120.0)])),
                ("first import", first_curve),
                ("five first imports at once", shared_curve),
                ("20 earlier imports", known_curve),
            ],
            dots: vec![
                ("as used", swapped(&[first[used], shared, known[used]])),
                ("60 s, then 2 % more", swapped(&[exponential])),
            ],
        });
    }
    let plot = Plot { axes: ("mean delay in seconds", "polls of a job"), across: 3, panels };
    let columns = &[
        "every 30 s",
        "first",
        "first delay",
        "first at 15 s",
        "5 at once",
        "5 delay",
        "5 at 15 s",
        "known",
        "known delay",
        "known at 15 s",
        "floor at 15 s",
    ];
    Ok(Report { columns, rows, plot: Some(("polling.svg", plot.svg()?)) })
}
