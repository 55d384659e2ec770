//! Requests that no SDK sends, and the outputs for people: ledger, dashboard, `--help`.

use std::process::Command;

use personalize_local::{LedgerEntry, Service};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{client, create, env, status};

/// HTTP status, request ID and error code of a response.
type ErrorResponse = (u16, String, String);

/// Sends a request without signing it.
async fn send(service: &Service, line: &str, headers: &[&str], body: &str) -> ErrorResponse {
    let host = service.url().trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(&host).await.unwrap();
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let head = format!("{line} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}");
    stream.write_all(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    let id = head.lines().find_map(|line| line.strip_prefix("x-amzn-requestid: ")).unwrap_or_default();
    let code =
        serde_json::from_str::<Value>(body).unwrap_or_default()["__type"].as_str().unwrap_or_default().to_owned();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), id.to_owned(), code)
}

#[tokio::test]
async fn malformed_request_gets_an_api_error_and_a_ledger_entry() {
    let env = env::start().await;
    let json = "content-type: application/x-amz-json-1.1";
    let target = "x-amz-target: AmazonPersonalize.ListSchemas";
    let too_long = format!("{{\"nextToken\": \"{}\"}}", "x".repeat(3 << 20));
    let unsigned = "MissingAuthenticationTokenException";
    for (line, headers, body, status, code) in [
        ("GET /", &[][..], "", 400, unsigned),
        ("POST /foo", &[json, target], "{}", 400, unsigned),
        ("PUT /", &[json, target], "{}", 400, unsigned),
        ("POST /", &[json, target], &too_long, 413, "RequestEntityTooLargeException"),
    ] {
        let (actual, id, error) = send(&env.service, line, headers, body).await;
        assert_eq!((actual, error.as_str()), (status, code), "{line}");
        let entry = env.service.ledger().pop().unwrap();
        assert_eq!((entry.http_status, entry.error_code.as_deref()), (status, Some(code)), "{line}");
        assert_eq!(entry.request_id, id, "{line}");
    }
    assert_eq!(send(&env.service, "GET /_local/nonsense", &[], "").await.0, 404);
    assert_eq!(env.service.ledger().len(), 4, "requests to /_local/ are not in the ledger");
}

#[tokio::test]
async fn ledger_entry_has_request_id_target_and_resource_arn() {
    let env = env::start().await;
    let client = client(&env.service.url());
    let tag = aws_sdk_personalize::types::Tag::builder().tag_key("a").tag_value("").build().unwrap();
    client.tag_resource().resource_arn(env::DATASET).tags(tag).send().await.unwrap();
    assert_eq!(env.service.ledger().pop().unwrap().arn.as_deref(), Some(env::DATASET));
    client.list_solutions().send().await.unwrap_err();
    let other_service = "x-amz-target: AmazonForecast.ListDatasets";
    send(&env.service, "POST /", &["content-type: application/x-amz-json-1.1", other_service], "{}").await;
    let ledger = env.service.ledger();
    let targets: Vec<_> = ledger.iter().map(|entry| entry.target.as_deref()).collect();
    assert_eq!(targets, [None, Some("AmazonPersonalize.ListSolutions"), Some("AmazonForecast.ListDatasets")]);
    let uuid = regex::Regex::new("^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$").unwrap();
    let mut ids: Vec<_> = ledger.iter().map(|entry| entry.request_id.as_str()).collect();
    assert!(ids.iter().all(|id| uuid.is_match(id)), "{ids:?}");
    ids.dedup_by_key(|id| id[9..23].to_owned());
    assert_eq!(ids.len(), 3, "the middle of the request ID is random, too");
    let file = std::fs::read_to_string(env.dir.path().join("ledger.jsonl")).unwrap();
    let in_file: Vec<LedgerEntry> = file.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(in_file, ledger);
}

#[tokio::test]
async fn dashboard_shows_accounts_datasets_jobs_and_requests() {
    let env = env::start().await;
    let client = client(&env.service.url());
    env.service.hold("nightly");
    create(&client, "nightly").await.unwrap();
    status(&client, "nightly").await.unwrap();
    let (code, page) = env::http("GET", &format!("{}/_local/", env.service.url()), "").await;
    assert_eq!(code, 200);
    for expected in [
        "<td>111122223333<td>3<td>1<td>1",
        "<td>444455556666<td>1<td>0<td>0",
        env::DATASET,
        "<span class=good>ACTIVE</span>",
        "<b>nightly</b>",
        "<span class=busy>CREATE PENDING (held)</span>",
        "2 accounts, 4 datasets, 1 jobs (1 running, 0 failed), 2 requests since the start.",
        "<td>CreateDatasetImportJob<td>nightly<td>200",
    ] {
        assert!(page.contains(expected), "{expected} is not on the page:\n{page}");
    }
}

#[test]
fn help_and_readme_list_every_option() {
    let output = Command::new(env!("CARGO_BIN_EXE_personalize-local")).arg("--help").output().unwrap();
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).unwrap();
    let readme = include_str!("../../README.md");
    for option in ["--listen", "--seed", "--data", "--ledger", "--state", "--sts", "--pending-ms", "--in-progress-ms"] {
        assert!(help.contains(option) && readme.contains(&format!("`{option} ")), "{option} is not in\n{help}");
    }
    let options = help
        .lines()
        .filter(|line| line.trim_start().trim_start_matches("-h, ").trim_start_matches("-V, ").starts_with("--"));
    // Eight options, --help and --version.
    assert_eq!(options.count(), 10, "this test must list the new option:\n{help}");
}
