//! Measures what the operator costs, in counts and ratios: they are the same on every machine.
//!
//! `bench [NAME]...` runs these measurements, or all but the flame graph. Each prints a table, writes `target/bench/NAME.json` and draws a
//! plot that `docs/performance.md` shows. `limits.json` bounds the counts, and a test compares them.

mod cluster;
mod events;
mod flame_graph;
mod memory;
mod plot;
mod polling;
mod preflight;
mod process;
mod random;
mod report;
mod resources;
mod scheduling;
mod timeline;

use clap::Parser;
use report::Report;
use std::error::Error;

/// A measurement and its name.
type Measurement = (&'static str, fn() -> Result<Report, Box<dyn Error>>);

const MEASUREMENTS: [Measurement; 6] = [
    ("polling", polling::measure),
    ("scheduling", scheduling::measure),
    ("events", events::measure),
    ("memory", memory::measure),
    ("preflight", preflight::measure),
    (FLAME_GRAPH, flame_graph::measure),
];

/// It needs `perf`, so it runs only by its name.
const FLAME_GRAPH: &str = "flame-graph";

#[derive(Parser)]
#[command(about = "Measures what the operator costs")]
struct Args {
    /// The measurements to run [default: all but the flame graph].
    names: Vec<String>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    for (name, measure) in MEASUREMENTS {
        let is_default = args.names.is_empty() && name != FLAME_GRAPH;
        if is_default || args.names.iter().any(|wanted| wanted == name) {
            let report = measure()?;
            report.print(name);
            report.write_json(name)?;
            report.draw()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_count_exceeds_its_limit() {
        for (name, measure) in MEASUREMENTS.into_iter().filter(|(name, _)| report::has_limits(name)) {
            let violations = measure().unwrap().violations(name);
            assert!(violations.is_empty(), "{name}: {violations:#?}");
        }
    }
}
