//! What no SDK would send, and what people look at: odd requests, the ledger, the page, `--help`.

use std::process::Command;

use personalize_local::{Entry, Service};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{bed, client, create, status};

/// An answer: status, request id, error code.
type Answer = (u16, String, String);

/// Sends a request as it is, unsigned unless a header signs it.
async fn send(service: &Service, line: &str, headers: &[&str], body: &str) -> Answer {
    let host = service.url().trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(&host).await.unwrap();
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let head = format!("{line} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}");
    stream.write_all(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let id = head.lines().find_map(|line| line.strip_prefix("x-amzn-requestid: ")).unwrap_or_default();
    let code =
        serde_json::from_str::<Value>(body).unwrap_or_default()["__type"].as_str().unwrap_or_default().to_owned();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), id.to_owned(), code)
}

#[tokio::test]
async fn whatever_comes_is_answered_in_the_services_way_and_is_in_the_ledger() {
    let bed = bed::start().await;
    let json = "content-type: application/x-amz-json-1.1";
    let target = "x-amz-target: AmazonPersonalize.ListSchemas";
    let long = format!("{{\"nextToken\": \"{}\"}}", "x".repeat(3 << 20));
    let unsigned = "MissingAuthenticationTokenException";
    for (line, headers, body, status, code) in [
        ("GET /", &[][..], "", 400, unsigned),
        ("POST /foo", &[json, target], "{}", 400, unsigned),
        ("PUT /", &[json, target], "{}", 400, unsigned),
        ("POST /", &[json, target], &long, 413, "RequestEntityTooLargeException"),
    ] {
        let (told, id, error) = send(&bed.service, line, headers, body).await;
        assert_eq!((told, error.as_str()), (status, code), "{line}");
        let entry = bed.service.ledger().pop().unwrap();
        assert_eq!((entry.http_status, entry.error_code.as_deref()), (status, Some(code)), "{line}");
        assert_eq!(entry.request_id, id, "{line}");
    }
    assert_eq!(send(&bed.service, "GET /_local/nonsense", &[], "").await.0, 404);
    assert_eq!(bed.service.ledger().len(), 4, "the control is no part of the service");
}

#[tokio::test]
async fn the_ledger_names_the_request_and_the_resource() {
    let bed = bed::start().await;
    let client = client(&bed.service.url());
    let tag = aws_sdk_personalize::types::Tag::builder().tag_key("a").tag_value("").build().unwrap();
    client.tag_resource().resource_arn(bed::DATASET).tags(tag).send().await.unwrap();
    assert_eq!(bed.service.ledger().pop().unwrap().arn.as_deref(), Some(bed::DATASET));
    client.list_solutions().send().await.unwrap_err();
    let elsewhere = "x-amz-target: AmazonForecast.ListDatasets";
    send(&bed.service, "POST /", &["content-type: application/x-amz-json-1.1", elsewhere], "{}").await;
    let ledger = bed.service.ledger();
    let targets: Vec<_> = ledger.iter().map(|entry| entry.target.as_deref()).collect();
    assert_eq!(targets, [None, Some("AmazonPersonalize.ListSolutions"), Some("AmazonForecast.ListDatasets")]);
    let uuid = regex::Regex::new("^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$").unwrap();
    let mut ids: Vec<_> = ledger.iter().map(|entry| entry.request_id.as_str()).collect();
    assert!(ids.iter().all(|id| uuid.is_match(id)), "{ids:?}");
    ids.dedup_by_key(|id| id[9..23].to_owned());
    assert_eq!(ids.len(), 3, "the middle of the id is as random as the rest");
    let file = std::fs::read_to_string(bed.dir.path().join("ledger.jsonl")).unwrap();
    let written: Vec<Entry> = file.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(written, ledger);
}

#[tokio::test]
async fn the_page_shows_accounts_datasets_jobs_and_their_states() {
    let bed = bed::start().await;
    let client = client(&bed.service.url());
    bed.service.hold("nightly");
    create(&client, "nightly").await.unwrap();
    status(&client, "nightly").await.unwrap();
    let (code, page) = bed::http("GET", &format!("{}/_local/", bed.service.url()), "").await;
    assert_eq!(code, 200);
    for shown in [
        "<td>111122223333<td>3<td>1<td>1",
        "<td>444455556666<td>1<td>0<td>0",
        bed::DATASET,
        "<span class=good>ACTIVE</span>",
        "<b>nightly</b>",
        "<span class=busy>CREATE PENDING (held)</span>",
        "2 accounts, 4 datasets, 1 jobs (1 running, 0 failed), 2 requests since the start.",
        "<td>CreateDatasetImportJob<td>nightly<td>200",
    ] {
        assert!(page.contains(shown), "{shown} is not on the page:\n{page}");
    }
}

#[test]
fn help_names_every_option() {
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
    // The eight, --help and --version.
    assert_eq!(options.count(), 10, "an option that this test does not know:\n{help}");
}
