//! What the check of the data before an import takes: reads of S3, memory, and time until the import is submitted.

use crate::cluster::{Cluster, Outcome, import};
use crate::plot::{Panel, Plot};
use crate::process::{Process, S3, Service, build};
use crate::report::{Report, as_f64};
use kube::api::PostParams;
use std::time::Instant;
use tokio::runtime::Runtime;

/// The sets of data: a name, the number of files, and the size of each in KiB.
const SETS: [(&str, u64, usize); 4] = [
    ("1 file of 64 KiB", 1, 64),
    ("1 file of 100 MiB", 1, 100 << 10),
    ("100 files of 1 MiB", 100, 1 << 10),
    ("10,000 files of 64 KiB", 10_000, 64),
];

/// Measures each set with an operator of its own.
pub(crate) fn measure() -> Outcome<Report> {
    let (operator, runtime) = (build(&[])?, Runtime::new()?);
    let cluster = Cluster::start(&runtime)?;
    let mut rows = Vec::new();
    for (i, (name, files, kibibytes)) in (0..).zip(SETS) {
        let (s3, service, namespace) = (S3::start()?, Service::start()?, format!("data-{i}"));
        let bytes = contents(kibibytes << 10);
        (0..files).try_for_each(|file| s3.put(&format!("data/{file:05}.csv"), &bytes))?;
        let api = cluster.create_namespace(&namespace)?;
        let process = Process::start(&operator, &cluster.kubeconfig(), &namespace, service.address, Some(&s3))?;
        let numbers = runtime.block_on(async {
            process.wait_until_ready().await;
            let started = Instant::now();
            api.create(&PostParams::default(), &import(0, "s3://shop-data/data/", false)?).await?;
            service.wait_until_accepted().await?;
            let seconds = started.elapsed().as_secs_f64();
            Outcome::Ok(vec![seconds, process.mebibytes("VmHWM:")?])
        })?;
        let calls = [s3.count("LIST BUCKET")?, s3.count("GET OBJECT")?].map(as_f64);
        rows.push((name.to_owned(), [numbers, calls.to_vec()].concat()));
    }
    let files = |column: usize| rows.iter().zip(SETS).skip(1).map(move |((_, row), set)| (as_f64(set.1), row[column]));
    let line = |title: &str, name, column| Panel {
        title: title.into(),
        lines: Vec::new(),
        dots: vec![(name, files(column).collect())],
    };
    let panels = vec![line("Calls", "reads of S3", 3), line("Memory", "peak MiB", 1)];
    let plot = Plot { axes: ("files", ""), across: 2, panels };
    let columns = &["s", "peak MiB", "lists", "reads"];
    Ok(Report { columns, plot: Some(("preflight.svg", plot.svg()?)), rows })
}

/// A CSV file of about this many bytes that breaks no rule.
fn contents(bytes: usize) -> Vec<u8> {
    let mut csv = String::from("USER_ID,ITEM_ID,TIMESTAMP\n");
    for i in 0_u32.. {
        if csv.len() >= bytes {
            break;
        }
        csv += &format!("user{i},item{},{}\n", i % 100, 1_700_000_000 + i);
    }
    csv.into_bytes()
}
