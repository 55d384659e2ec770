//! Where the CPU time of a start goes: a flame graph of the operator beside many finished and waiting imports.

use crate::cluster::{Cluster, Outcome, create, create_waiting};
use crate::process::{Process, Service, build};
use crate::report::{Report, as_f64};
use inferno::collapse::Collapse;
use inferno::collapse::perf::{Folder, Options};
use inferno::flamegraph;
use std::io::BufReader;
use std::process::{Child, Command, Stdio};
use tokio::runtime::Runtime;

const FINISHED: u64 = 10_000;
const WAITING: u64 = 1_000;

/// Frames that are narrower are left out, in percent of the width.
const MIN_WIDTH: f64 = 0.4;

/// What the table shows: a name, and parts of the names of the functions that belong to it. A stack may count twice.
const BLOCKS: [(&str, &[&str]); 6] = [
    ("decoding objects", &["serde_json::de::", "serde_value::de::"]),
    ("allocations", &["malloc", "_int_free", "realloc", "unlink_chunk"]),
    ("system calls", &["entry_SYSCALL", "do_syscall_64"]),
    ("reading responses", &["hyper::proto", "rustls::"]),
    ("the queue", &["personalize_operator::queue"]),
    ("reconciles", &["personalize_operator::controller::reconciler"]),
];

/// Records a start until the first submission. Needs the program `perf`.
pub(crate) fn measure() -> Outcome<Report> {
    let operator = build(&[
        ("CARGO_PROFILE_RELEASE_STRIP", "false"),
        ("CARGO_PROFILE_RELEASE_DEBUG", "line-tables-only"),
        ("RUSTFLAGS", "-C force-frame-pointers=yes"),
    ])?;
    let (runtime, namespace) = (Runtime::new()?, "start");
    let cluster = Cluster::start(&runtime)?;
    let api = cluster.create_namespace(namespace)?;
    runtime.block_on(create(&api, namespace, FINISHED))?;
    runtime.block_on(create_waiting(&api, FINISHED, WAITING))?;

    let (service, directory) = (Service::start()?, tempfile::tempdir()?);
    let samples = directory.path().join("perf.data");
    let process = Process::start(&operator, &cluster.kubeconfig(), namespace, service.address, None)?;
    let mut perf = record(process.guard.pid(), &samples)?;
    runtime.block_on(service.wait_until_accepted())?;
    let cpu = process.cpu_seconds()?;
    // perf ends with the process.
    drop(process);
    perf.wait()?;

    let script = Command::new("perf").args(["script", "--input"]).arg(&samples).stderr(Stdio::null()).output()?;
    let mut folded = Vec::new();
    Folder::from(Options::default()).collapse(BufReader::new(script.stdout.as_slice()), &mut folded)?;
    let folded = String::from_utf8(folded)?;
    let mut options = flamegraph::Options::default();
    options.title = format!("CPU time from the start to the first submission: {FINISHED} finished, {WAITING} waiting");
    options.count_name = "samples".into();
    options.min_width = MIN_WIDTH;
    let mut svg = Vec::new();
    flamegraph::from_lines(&mut options, folded.lines(), &mut svg)?;
    let rows = BLOCKS.map(|(name, parts)| (name.to_owned(), vec![share(&folded, parts)]));
    let total = ("CPU seconds".to_owned(), vec![cpu]);
    let rows = rows.into_iter().chain([total]).collect();
    Ok(Report { columns: &["% of CPU"], rows, plot: Some(("start.svg", String::from_utf8(svg)?)) })
}

/// Samples the stacks of a process until it ends.
fn record(pid: u32, samples: &std::path::Path) -> Outcome<Child> {
    let mut perf = Command::new("perf");
    perf.args(["record", "--quiet", "--freq=997", "--event=cpu-clock", "--call-graph=fp", "--output"]).arg(samples);
    perf.args(["--pid", &pid.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
    perf.spawn().map_err(|error| format!("perf, of linux-tools, does not start: {error}").into())
}

/// The part of the samples, in percent, in whose stacks a function contains one of these.
fn share(folded: &str, parts: &[&str]) -> f64 {
    let stacks = || folded.lines().filter_map(|line| line.rsplit_once(' '));
    let count = |(_, samples): (&str, &str)| samples.parse::<u64>().unwrap_or(0);
    let all: u64 = stacks().map(count).sum();
    let with: u64 = stacks().filter(|(stack, _)| parts.iter().any(|part| stack.contains(part))).map(count).sum();
    100.0 * as_f64(with) / as_f64(all.max(1))
}
