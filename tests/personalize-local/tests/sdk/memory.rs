//! Reading streams: a gigabyte takes the memory of a megabyte.

use std::{fs, io::Write, path::Path};

use crate::{bed, client, create_from, ended, pipe, process};

/// The most memory that a process has had resident, in kB.
fn peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Items of at least so many bytes, written to whatever this is. Long records make the most of the time.
fn write(to: &Path, bytes: usize) {
    let text = "a thing that is good for many things, and cheap; ".repeat(380);
    let block = format!("an-item,Garden|House,\"{text}\"\n").repeat(50);
    let mut file = fs::File::options().create(true).append(true).open(to).unwrap();
    writeln!(file, "ITEM_ID,CATEGORY,DESCRIPTION").unwrap();
    for _ in 0..bytes.div_ceil(block.len()) {
        file.write_all(block.as_bytes()).unwrap();
    }
}

#[tokio::test]
async fn a_gigabyte_takes_the_memory_of_a_megabyte() {
    let dir = tempfile::tempdir().unwrap();
    let bucket = dir.path().join("data/bucket");
    fs::create_dir_all(&bucket).unwrap();
    write(&bucket.join("small.csv"), 1 << 20);
    // A pipe needs no disk, and its writer knows that all of it was read.
    let large = pipe(&bucket.join("large.csv"));
    let process = process::start(dir.path(), &["--pending-ms", "0", "--in-progress-ms", "0"]).await;
    let items = bed::DATASET.replace("INTERACTIONS", "ITEMS");
    let field = |name: &str, mark: &str| serde_json::json!({"name": name, "type": "string", mark: true});
    let fields = [field("ITEM_ID", "id"), field("CATEGORY", "categorical"), field("DESCRIPTION", "textual")];
    let dataset = serde_json::json!({"arn": items, "schema": {"type": "record", "name": "Items", "fields": fields}});
    let (code, told) = bed::http("POST", &format!("{}/_local/datasets", process.url), &dataset.to_string()).await;
    assert_eq!(code, 201, "{told}");
    let client = client(&process.url);
    let import = async |name: &str| {
        create_from(&client, name, &format!("s3://bucket/{name}.csv"), &items).await.unwrap();
        assert_eq!(ended(&client, name).await, ("ACTIVE".to_owned(), String::new()));
        peak(process.guard.pid())
    };
    let small = import("small").await;
    let writer = std::thread::spawn(move || write(&large, 1 << 30));
    let large = import("large").await;
    writer.join().unwrap();
    println!("1 MB took {small} kB, 1 GB took {large} kB");
    assert!(large < small + (10 << 10), "1 MB took {small} kB, 1 GB took {large} kB");
}
