//! Memory and work over the number of finished imports: the operator as a process, against a real API server.

use crate::cluster::{Cluster, Outcome, create, create_waiting, manifest, name};
use crate::plot::{Panel, Plot};
use crate::process::{Process, Service, build};
use crate::report::{Report, as_f64};
use futures::{StreamExt, TryStreamExt};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use personalize_operator::api::DatasetImportJob;
use personalize_operator::api::conditions::Reason;
use serde_json::json;
use std::net::TcpListener;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::time::sleep;

/// The numbers of finished imports. With `BENCH_LARGE=1` there is one more, which takes minutes to create, and the plot.
const SIZES: [u64; 2] = [1_000, 10_000];
const LARGE: u64 = 100_000;

/// How many imports wait when the operator is started for the second time.
const WAITING: u64 = 1_000;

/// How many imports are edited while the operator runs.
const EDITS: u64 = 200;

/// Measures each size in a namespace of its own.
pub(crate) fn measure() -> Outcome<Report> {
    let (operator, runtime) = (build(&[])?, Runtime::new()?);
    let cluster = Cluster::start(&runtime)?;
    let mut points = Vec::new();
    let is_large = std::env::var_os("BENCH_LARGE").is_some();
    for size in SIZES.into_iter().chain(is_large.then_some(LARGE)) {
        let namespace = format!("finished-{size}");
        let api = cluster.create_namespace(&namespace)?;
        runtime.block_on(create(&api, &namespace, size))?;
        let silent = TcpListener::bind("127.0.0.1:0")?;
        silent.set_nonblocking(true)?;
        let process = Process::start(&operator, &cluster.kubeconfig(), &namespace, silent.local_addr()?, None)?;
        let mut numbers = runtime.block_on(measure_start(&process, &api, size))?;
        numbers.push(f64::from(u8::from(silent.accept().is_ok())));
        drop(process);
        runtime.block_on(create_waiting(&api, size + 2, WAITING))?;
        let service = Service::start()?;
        let process = Process::start(&operator, &cluster.kubeconfig(), &namespace, service.address, None)?;
        numbers.extend(runtime.block_on(measure_first_submission(&process, &service))?);
        points.push((as_f64(size), numbers));
    }
    let line = |title: &str, name, column: usize| Panel {
        title: title.into(),
        lines: vec![(name, points.iter().map(|(size, numbers)| (*size, numbers[column])).collect())],
        dots: Vec::new(),
    };
    let panels = vec![line("Memory", "MiB", 0), line("An edit of a finished import", "ms of CPU", 3)];
    let plot = Plot { axes: ("finished imports", ""), across: 2, panels };
    let rows = points.iter().map(|(size, numbers)| (format!("{size} finished"), numbers.clone())).collect();
    let columns = &[
        "MiB",
        "peak MiB",
        "start CPU s",
        "edit CPU ms",
        "reconciles",
        "writes",
        "AWS calls",
        "first create s",
        "MiB, waiting",
    ];
    Ok(Report { columns, rows, plot: is_large.then_some(("memory.svg", plot.svg()?)) })
}

/// Annotates some of the imports.
async fn edit(api: &Api<DatasetImportJob>, count: u64) -> Outcome<()> {
    let patch = &Patch::Merge(json!({ "metadata": { "annotations": { "example.org/note": "edited" } } }));
    let one = |i: u64| async move {
        api.patch(&name(i * count / EDITS), &PatchParams::default(), patch).await?;
        Outcome::Ok(())
    };
    futures::stream::iter(0..EDITS).map(one).buffer_unordered(8).try_collect().await
}

/// Waits until a new import is suspended.
async fn wait_until_suspended(api: &Api<DatasetImportJob>, i: u64) -> Outcome<()> {
    api.create(&PostParams::default(), &manifest(i, true)?).await?;
    loop {
        let status = api.get_status(&name(i)).await?.status.unwrap_or_default();
        if Reason::of(&status) == Some(Reason::Suspended) {
            return Ok(());
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// The time from the initial list to the first submission, and the memory then.
async fn measure_first_submission(process: &Process, service: &Service) -> Outcome<Vec<f64>> {
    process.wait_until_ready().await;
    let ready = Instant::now();
    service.wait_until_accepted().await?;
    Ok(vec![ready.elapsed().as_secs_f64(), process.mebibytes("VmRSS:")?])
}

/// Measures a start and edits over this many finished imports.
async fn measure_start(process: &Process, api: &Api<DatasetImportJob>, size: u64) -> Outcome<Vec<f64>> {
    process.wait_until_ready().await;
    // Its status is written after all events before it are handled.
    wait_until_suspended(api, size).await?;
    let (start, peak) = (process.cpu_seconds()?, process.mebibytes("VmHWM:")?);
    edit(api, size).await?;
    wait_until_suspended(api, size + 1).await?;
    let (reconciles, requests) = ("controller_runtime_reconcile_total", "rest_client_requests_total");
    Ok(vec![
        process.mebibytes("VmRSS:")?,
        peak,
        start,
        (process.cpu_seconds()? - start) * 1000.0 / as_f64(EDITS),
        process.metric(reconciles, "")?,
        process.metric(requests, "method=\"PUT\"")? + process.metric(requests, "method=\"PATCH\"")?,
    ])
}
