//! Data is streamed: an import of a gigabyte needs as little memory as one of a megabyte.

use std::{fs, io::Write, path::Path};

use crate::{client, create_from, create_pipe, env, process, wait_until_finished};

/// The peak resident memory of a process in kB.
fn peak_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Writes at least this many bytes of items to a file or pipe. Long records keep the test fast.
fn write_items(to: &Path, bytes: usize) {
    let text = "a thing that is good for many things, and cheap; ".repeat(380);
    let block = format!("an-item,Garden|House,\"{text}\"\n").repeat(50);
    let mut file = fs::File::options().create(true).append(true).open(to).unwrap();
    writeln!(file, "ITEM_ID,CATEGORY,DESCRIPTION").unwrap();
    for _ in 0..bytes.div_ceil(block.len()) {
        file.write_all(block.as_bytes()).unwrap();
    }
}

#[tokio::test]
async fn import_of_a_gigabyte_uses_as_little_memory_as_one_of_a_megabyte() {
    let dir = tempfile::tempdir().unwrap();
    let bucket = dir.path().join("data/bucket");
    fs::create_dir_all(&bucket).unwrap();
    write_items(&bucket.join("small.csv"), 1 << 20);
    // A pipe needs no disk space, and its writer finishes only when everything was read.
    let large = create_pipe(&bucket.join("large.csv"));
    let process = process::start(dir.path(), &["--pending-ms", "0", "--in-progress-ms", "0"]).await;
    let items = env::DATASET.replace("INTERACTIONS", "ITEMS");
    let field = |name: &str, attribute: &str| serde_json::json!({"name": name, "type": "string", attribute: true});
    let fields = [field("ITEM_ID", "id"), field("CATEGORY", "categorical"), field("DESCRIPTION", "textual")];
    let dataset = serde_json::json!({"arn": items, "schema": {"type": "record", "name": "Items", "fields": fields}});
    let (code, body) = env::http("POST", &format!("{}/_local/datasets", process.url), &dataset.to_string()).await;
    assert_eq!(code, 201, "{body}");
    let client = client(&process.url);
    let import = async |name: &str| {
        create_from(&client, name, &format!("s3://bucket/{name}.csv"), &items).await.unwrap();
        assert_eq!(wait_until_finished(&client, name).await, ("ACTIVE".to_owned(), String::new()));
        peak_memory(process.child.pid())
    };
    let small = import("small").await;
    let writer = std::thread::spawn(move || write_items(&large, 1 << 30));
    let large = import("large").await;
    writer.join().unwrap();
    println!("1 MB took {small} kB, 1 GB took {large} kB");
    assert!(large < small + (10 << 10), "1 MB took {small} kB, 1 GB took {large} kB");
}
