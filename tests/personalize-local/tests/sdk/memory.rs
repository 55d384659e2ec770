//! Reading streams: a large file takes the memory of a small one.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
};

use crate::{bed, client, create_from, ended, process};

/// The most memory that a process has had resident, in kB.
fn peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Interactions of at least so many bytes.
fn write(path: &Path, bytes: usize) {
    let block = "a-user,an-item,1700000000\n".repeat(40_000);
    let mut file = File::create(path).unwrap();
    writeln!(file, "USER_ID,ITEM_ID,TIMESTAMP").unwrap();
    for _ in 0..bytes.div_ceil(block.len()) {
        file.write_all(block.as_bytes()).unwrap();
    }
}

/// Imports a small and a large file, and gives the peaks of memory after each, in kB.
async fn peaks(small: usize, large: usize) -> (u64, u64) {
    let dir = tempfile::tempdir().unwrap();
    let bucket = dir.path().join("data/bucket");
    fs::create_dir_all(&bucket).unwrap();
    write(&bucket.join("small.csv"), small);
    write(&bucket.join("large.csv"), large);
    let process = process::start(dir.path(), &["--pending-ms", "0", "--in-progress-ms", "0"]).await;
    let client = client(&process.url);
    let mut peaks = Vec::new();
    for name in ["small", "large"] {
        create_from(&client, name, &format!("s3://bucket/{name}.csv")).await.unwrap();
        assert_eq!(ended(&client, name).await, ("ACTIVE".to_owned(), String::new()));
        peaks.push(peak(process.tethered.pid()));
    }
    drop(process);
    bed::eventually("the files are gone", || fs::remove_dir_all(&bucket).is_ok().then_some(())).await;
    (peaks[0], peaks[1])
}

#[tokio::test]
async fn a_file_twelve_times_as_large_takes_no_more_memory() {
    let (small, large) = peaks(5 << 20, 60 << 20).await;
    assert!(large < small + (10 << 10), "5 MB took {small} kB, 60 MB took {large} kB");
}

/// Once by hand: 18 MB after 5 MB of data, 20 MB after a gigabyte.
/// `cargo test -p personalize-local --test sdk -- --ignored --nocapture`
#[tokio::test]
#[ignore = "writes and reads a gigabyte"]
async fn a_gigabyte_takes_no_more_memory() {
    let (small, large) = peaks(5 << 20, 1 << 30).await;
    println!("5 MB took {small} kB, 1 GB took {large} kB");
    assert!(large < small + (10 << 10));
}
