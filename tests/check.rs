//! The command `check`: exit status and output, and what it reads of S3.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "check/s3.rs"]
mod s3;

use s3::S3;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::Ordering;

const SCHEMA: &str = r#"{"type": "record", "name": "Users", "fields": [
    {"name": "USER_ID", "type": "string"}, {"name": "AGE", "type": ["null", "int"]}]}"#;

/// A directory with a schema and these files.
fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("schema.json"), SCHEMA).unwrap();
    fs::create_dir(dir.path().join("data")).unwrap();
    for (name, content) in files {
        fs::write(dir.path().join("data").join(name), content).unwrap();
    }
    dir
}

fn check(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_personalize-operator"));
    command.current_dir(dir).arg("check").args(arguments).env_clear().output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn valid_files_exit_with_0() {
    let dir = directory(&[("a.csv", "USER_ID,AGE\nu,30\n"), ("b.csv", "USER_ID,AGE\nv,\n")]);
    for location in ["data", "data/", "data/a.csv"] {
        let output = check(dir.path(), &[location, "--schema", "schema.json"]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        assert!(text(&output).starts_with("valid: "), "without colours where there is no terminal: {}", text(&output));
    }
}

#[test]
fn long_read_shows_a_progress_bar_on_a_terminal_only() {
    const IN_TERMINAL: &str = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
    let long = format!("USER_ID,AGE\n{}", "user,30\n".repeat(3 << 20));
    let dir = directory(&[("long.csv", &long), ("short.csv", "USER_ID,AGE\nu,30\n")]);
    let program = env!("CARGO_BIN_EXE_personalize-operator");
    let on_terminal = |file: &str| {
        let mut python = Command::new("python3");
        python.current_dir(dir.path()).args(["-c", IN_TERMINAL, program, "check", file, "--schema", "schema.json"]);
        let output = python.env("TERM", "xterm").output().unwrap();
        assert!(output.status.success() && text(&output).contains("valid"), "{}", text(&output));
        text(&output)
    };
    let shown = on_terminal("data/long.csv");
    assert!(shown.contains("of 24.00 MiB") && shown.contains('█'), "{shown:?}");
    assert!(!on_terminal("data/short.csv").contains("left"));
    let piped = check(dir.path(), &["data/long.csv", "--schema", "schema.json"]);
    assert!(text(&piped).starts_with("valid: ") && piped.stderr.is_empty(), "{}", text(&piped));
}

#[test]
fn invalid_files_exit_with_1_and_show_no_value() {
    let dir = directory(&[("a.csv", "USER_ID,AGE\nu,hunter2\n"), ("b.csv", "USER_ID\nv\n")]);
    let output = check(dir.path(), &["data", "--schema", "schema.json"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let expected =
        "error: a.csv, line 2, column AGE: expected a whole number of 32 bits (int), found text of 7 characters";
    assert!(text(&output).contains(expected), "{}", text(&output));
    assert!(!text(&output).contains("hunter2"));
    let json = check(dir.path(), &["data", "--schema", "schema.json", "--output", "json"]);
    assert_eq!(json.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((&report["valid"], &report["files"]), (&Value::Bool(false), &Value::from(2)));
    let rules: Vec<_> = report["findings"].as_array().unwrap().iter().map(|finding| &finding["rule"]).collect();
    assert_eq!(rules, ["WrongType", "MissingColumn", "Header"]);
    assert_eq!(report["findings"][0]["line"], 2);
}

#[test]
fn what_can_not_be_checked_exits_with_2() {
    let dir = directory(&[("a.csv", "USER_ID,AGE\nu,30\n")]);
    let signature = "9f3c1d2e4b5a69788796a5b4c3d2e1f00112233445566778899aabbccddeeff0";
    let presigned = format!("https://bucket.example/a.csv?X-Amz-Signature={signature}");
    for arguments in [
        &["data/missing.csv", "--schema", "schema.json"][..],
        &[&presigned, "--schema", "schema.json"],
        &["data", "--schema", &presigned],
        &["data", "--schema", "missing.json"],
        &["data"],
        &["data", "--schema", "schema.json", "--type", "PLANETS"],
    ] {
        let output = check(dir.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        assert!(!text(&output).contains(signature), "{}", text(&output));
    }
    fs::write(dir.path().join("schema.json"), "{").unwrap();
    assert_eq!(check(dir.path(), &["data", "--schema", "schema.json"]).status.code(), Some(1), "a broken schema");
}

/// Checks a location in S3, which has to be valid.
fn check_s3(s3: &S3, location: &str) {
    let dir = directory(&[]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_personalize-operator"));
    command.current_dir(dir.path()).args(["check", location, "--schema", "schema.json"]).env_clear();
    command.envs([("AWS_ENDPOINT_URL_S3", s3.url.as_str()), ("AWS_REGION", "eu-west-1")]);
    command.envs([("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "secret")]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
}

#[test]
fn large_file_in_s3_takes_one_listing_eight_reads_and_896_kibibytes() {
    let s3 = S3::start(1, format!("USER_ID,AGE\n{}", "user,30\n".repeat(1 << 20)).into_bytes());
    check_s3(&s3, "s3://bucket/users.csv");
    let reads = s3.counts.reads.lock().unwrap();
    let (calls, bytes) = reads["/bucket/users.csv"];
    assert_eq!((s3.counts.lists.load(Ordering::SeqCst), calls), (1, 8));
    assert_eq!(bytes, 896 << 10);
}

#[test]
fn folder_of_ten_thousand_files_takes_ten_listings_and_300_reads_of_which_four_at_once() {
    let s3 = S3::start(10_000, b"USER_ID,AGE\nuser,30\n".to_vec());
    check_s3(&s3, "s3://bucket/users/");
    assert_eq!(s3.counts.lists.load(Ordering::SeqCst), 10);
    assert!(s3.counts.reads.lock().unwrap().values().map(|(calls, _)| calls).sum::<usize>() <= 300);
    assert!(s3.counts.at_once.load(Ordering::SeqCst) <= 4);
}
