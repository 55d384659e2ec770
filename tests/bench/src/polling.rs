//! The poll schedule: calls of a job against the delay until its end is seen.

use crate::plot::{Panel, Plot};
use crate::random::Random;
use crate::report::Report;
use personalize_operator::import::Timing;
use std::error::Error;
use std::time::Duration;

/// How many jobs of each distribution are simulated.
const JOBS: usize = 2000;

/// A poll schedule: from the age of a job to the interval until its next poll, in seconds.
type Schedule<'a> = &'a dyn Fn(f64) -> f64;

/// How long imports take, in minutes.
struct Distribution {
    name: &'static str,
    sample: fn(&mut Random) -> f64,
}

const DISTRIBUTIONS: [Distribution; 6] = [
    Distribution { name: "always 10 min", sample: |_| 10.0 },
    Distribution { name: "always 60 min", sample: |_| 60.0 },
    Distribution { name: "always 6 h", sample: |_| 360.0 },
    Distribution { name: "log-normal around 15 min", sample: |random| 15.0 * (0.25 * random.normal()).exp() },
    Distribution { name: "log-normal around 60 min", sample: |random| 60.0 * (0.25 * random.normal()).exp() },
    Distribution {
        name: "bimodal: 10 min or 60 min",
        sample: |random| if random.uniform() < 0.5 { 10.0 } else { 60.0 } * (0.05 * random.normal()).exp(),
    },
];

impl Distribution {
    /// Durations in seconds. The service's clock is not in step with polls, so each is spread over half a minute.
    fn durations(&self) -> Vec<f64> {
        let mut random = Random::new();
        (0..JOBS)
            .map(|_| ((self.sample)(&mut random) * 60.0 + 30.0 * random.uniform()).clamp(300.0, 21_600.0))
            .collect()
    }
}

/// The mean number of polls of a job, and the mean delay in seconds until its end is seen.
fn simulate(durations: &[f64], schedule: Schedule<'_>) -> (f64, f64) {
    let (mut polls, mut delay) = (0_u32, 0.0);
    for duration in durations {
        let mut age = 0.0;
        while age < *duration {
            age += schedule(age);
            polls += 1;
        }
        delay += age - duration;
    }
    let jobs = f64::from(u32::try_from(durations.len()).unwrap_or(u32::MAX));
    (f64::from(polls) / jobs, delay / jobs)
}

/// Runs the measurement.
pub(crate) fn measure() -> Result<Report, Box<dyn Error>> {
    let timing = Timing::default();
    let (mut rows, mut panels) = (Vec::new(), Vec::new());
    for distribution in DISTRIBUTIONS {
        let durations = distribution.durations();
        let own = simulate(&durations, &|age| timing.poll(Duration::from_secs_f64(age), None).as_secs_f64());
        let fixed = |interval: f64| simulate(&durations, &|_| interval);
        let swap = |(polls, delay): (f64, f64)| (delay, polls);
        let every_30_s = fixed(30.0);
        rows.push((distribution.name.to_owned(), vec![own.0, own.1, every_30_s.0, every_30_s.1]));
        panels.push(Panel {
            title: distribution.name.to_owned(),
            lines: vec![
                ("fixed interval", [30.0, 60.0, 120.0].map(|interval| swap(fixed(interval))).to_vec()),
                ("operator", vec![swap(own)]),
            ],
        });
    }
    let plot = Plot { axes: ("mean delay in seconds", "polls of a job"), across: 3, panels };
    Ok(Report {
        columns: &["polls", "delay in s", "30 s: polls", "30 s: delay"],
        rows,
        plot: ("polling.svg", plot.svg()?),
    })
}
