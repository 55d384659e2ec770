//! Every fault, added over HTTP as a person would, with what a client sees and what the ledger says.

use std::{
    io,
    time::{Duration, Instant},
};

use aws_sdk_personalize::{Client, config::Credentials, types::Tag};
use personalize_local::{Action, Fault, Outcome, Service};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{CREATE, DESCRIBE, arn, bed, client, client_of, code, create, hasty, status};

async fn add(service: &Service, fault: &Value) {
    let (code, answer) = bed::http("POST", &format!("{}/_local/faults", service.url()), &fault.to_string()).await;
    assert_eq!(code, 201, "{answer}");
}

async fn listed(service: &Service) -> Vec<Value> {
    let (_, answer) = bed::http("GET", &format!("{}/_local/faults", service.url()), "").await;
    serde_json::from_str(&answer).unwrap()
}

/// Lists the kinds so that the compiler asks for a new one to be tested.
fn kind(action: &Action) -> &'static str {
    match action {
        Action::Error { .. }
        | Action::ErrorAfter { .. }
        | Action::Delay { .. }
        | Action::SilenceBeforeHeaders { .. }
        | Action::SilenceAfterHeaders { .. }
        | Action::CutBody
        | Action::Garbage
        | Action::ResetBefore
        | Action::ResetAfter
        | Action::NoArn
        | Action::NotFoundFor { .. }
        | Action::Status(_)
        | Action::StatusGoesBack
        | Action::FailureReason { .. }
        | Action::Vanish => action.label(),
    }
}

#[tokio::test]
async fn an_answer_is_lost_in_every_way_and_the_ledger_knows_whether_the_job_exists() {
    let bed = bed::start().await;
    let (hasty, client) = (hasty(&bed.service.url()), client(&bed.service.url()));
    bed.service.hold("");
    // The fault, the status that leaves for the client (0 if none does), and whether the job exists.
    let cases = [
        (json!({"error": {"code": "InternalServerException", "message": "oops", "status": 500}}), 500, false),
        (json!({"error": {"code": "ThrottlingException"}}), 400, false),
        (json!({"errorAfter": {}}), 500, true),
        (json!({"errorAfter": {"code": "ServiceUnavailableException", "status": 503}}), 503, true),
        (json!("resetBefore"), 0, false),
        (json!("resetAfter"), 0, true),
        (json!("cutBody"), 200, true),
        (json!("garbage"), 200, true),
        (json!({"silenceBeforeHeaders": {}}), 0, true),
        (json!({"silenceBeforeHeaders": {"effect": false}}), 0, false),
        (json!({"silenceAfterHeaders": {}}), 200, true),
        (json!({"silenceAfterHeaders": {"effect": false}}), 200, false),
        (json!({"delay": {"ms": 60_000}}), 200, true),
    ];
    for (number, (action, seen, exists)) in cases.into_iter().enumerate() {
        let name = format!("job-{number}");
        add(&bed.service, &json!({"operation": CREATE, "name": name, "action": action})).await;
        let fault: Fault = serde_json::from_value(listed(&bed.service).await.remove(0)).unwrap();
        let endless = kind(&fault.action).starts_with("silence") || kind(&fault.action) == "delay";
        assert!(create(if endless { &hasty } else { &client }, &name).await.is_err(), "{action} is an error");
        // Who gives up may do so before the request is even read.
        bed::eventually("the fault has fired", || bed.service.faults().is_empty().then_some(())).await;
        let entry = bed.service.ledger().pop().unwrap();
        assert_eq!(entry.fault.as_deref(), Some(kind(&fault.action)));
        assert_eq!((entry.http_status, entry.dataset_import_job_arn.is_some()), (seen, exists), "{action}");
        assert_eq!(status(&client, &name).await.is_ok(), exists, "{action}");
        bed.service.finish(&name, Outcome::Active);
    }
    add(&bed.service, &json!({"operation": CREATE, "action": "noArn"})).await;
    assert_eq!(create(&client, "no-arn").await, Ok(None));
    assert_eq!(bed.service.ledger().pop().unwrap().dataset_import_job_arn, Some(arn("no-arn")));
}

#[tokio::test]
async fn a_job_misbehaves_after_it_was_made() {
    let bed = bed::start().await;
    let (client, service) = (client(&bed.service.url()), &bed.service);
    service.hold("");
    let not_found = Err("ResourceNotFoundException".to_owned());
    add(service, &json!({"operation": CREATE, "action": {"notFoundFor": {"lookups": 2}}})).await;
    create(&client, "late").await.unwrap();
    assert_eq!([status(&client, "late").await, status(&client, "late").await], [not_found.clone(), not_found.clone()]);
    assert!(status(&client, "late").await.is_ok());
    add(service, &json!({"operation": CREATE, "action": {"notFoundFor": {"ms": 3_600_000}}})).await;
    create(&client, "later").await.unwrap();
    assert_eq!(status(&client, "later").await, not_found);
    assert_eq!(
        create(&client, "later").await,
        Err("ResourceAlreadyExistsException".to_owned()),
        "it exists all the same"
    );
    add(service, &json!({"operation": DESCRIBE, "action": {"status": "CREATE THINKING"}})).await;
    assert_eq!(status(&client, "late").await.unwrap(), "CREATE THINKING");
    // It waits for a job that has ended: going back needs something to go back from.
    add(service, &json!({"operation": DESCRIBE, "action": "statusGoesBack"})).await;
    assert_eq!(status(&client, "late").await.unwrap(), "CREATE PENDING");
    service.finish("late", Outcome::Active);
    assert_eq!(status(&client, "late").await.unwrap(), "CREATE IN_PROGRESS");
    assert_eq!(status(&client, "late").await.unwrap(), "ACTIVE");
    add(service, &json!({"operation": DESCRIBE, "action": "vanish"})).await;
    assert_eq!([status(&client, "late").await, status(&client, "late").await], [not_found.clone(), not_found]);
    let fired: Vec<_> = service.ledger().into_iter().filter_map(|entry| entry.fault).collect();
    assert_eq!(fired, ["notFoundFor", "notFoundFor", "status", "statusGoesBack", "vanish"]);
}

async fn reason(client: &Client, name: &str) -> String {
    let answer = client.describe_dataset_import_job().dataset_import_job_arn(arn(name)).send().await.unwrap();
    answer.dataset_import_job.unwrap().failure_reason.unwrap()
}

#[tokio::test]
async fn a_failure_reason_has_ten_megabytes_or_control_characters() {
    let bed = bed::start().await;
    let (client, service) = (client(&bed.service.url()), &bed.service);
    service.hold("");
    for (name, fault) in [
        ("long", json!({"text": "no ", "length": 10 << 20})),
        ("odd", json!({"text": "\u{1b}[31mred\u{0}\r\n<script>\u{202e}"})),
    ] {
        create(&client, name).await.unwrap();
        add(service, &json!({"operation": DESCRIBE, "name": name, "action": {"failureReason": fault}})).await;
    }
    let long = reason(&client, "long").await;
    assert_eq!((long.len(), &long[..6]), (10 << 20, "no no "));
    assert_eq!(reason(&client, "odd").await, "\u{1b}[31mred\u{0}\r\n<script>\u{202e}");
    assert_eq!(reason(&client, "odd").await, "\u{1b}[31mred\u{0}\r\n<script>\u{202e}", "the job has it for good");
    let fired = service.ledger().into_iter().filter(|entry| entry.fault.as_deref() == Some("failureReason")).count();
    assert_eq!(fired, 2);
    let (_, page) = bed::http("GET", &format!("{}/_local/", service.url()), "").await;
    assert!(page.len() < 20_000 && page.contains("no no no"), "the page shows the beginning only: {}", page.len());
    assert!(page.contains(r"\u{1b}[31mred\u{0}\r\n&lt;script&gt;"), "{page}");
}

/// What comes over the wire for one request, until the connection ends or nothing comes for so long: at first, and
/// after the first of it. Tells when that was, too. The request is unsigned: a fault spoils that answer as well as any.
async fn raw(service: &Service, [first, more]: [Duration; 2]) -> (String, io::Result<()>, Duration) {
    let host = service.url().trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(&host).await.unwrap();
    let head = format!("POST / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
    let head = format!("{head}content-type: application/x-amz-json-1.1\r\n");
    let head = format!("{head}x-amz-target: AmazonPersonalize.ListSchemas\r\ncontent-length: 2\r\n\r\n{{}}");
    let begun = Instant::now();
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut read, mut came) = (Vec::new(), None);
    let ended = loop {
        match timeout(if came.is_none() { first } else { more }, stream.read_buf(&mut read)).await {
            Err(_) | Ok(Ok(0)) => break Ok(()),
            Ok(Ok(_)) => came = came.or(Some(begun.elapsed())),
            Ok(Err(error)) => break Err(error),
        }
    };
    (String::from_utf8(read).unwrap(), ended, came.unwrap_or_default())
}

#[tokio::test]
async fn each_fault_is_on_the_wire_what_it_is_called() {
    let bed = bed::start().await;
    let service = &bed.service;
    // A generous limit for what comes, and how long what must not come is waited for.
    let (limit, silence) = (Duration::from_secs(120), Duration::from_secs(2));
    let body = r#"{"__type":"MissingAuthenticationTokenException","message":"Missing Authentication Token"}"#;
    let parts = |answer: &str| {
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
        (head.to_lowercase(), body.to_owned())
    };
    let length = format!("content-length: {}", body.len());
    for reset in ["resetBefore", "resetAfter"] {
        add(service, &json!({"action": reset})).await;
        let (answer, ended, _) = raw(service, [limit, limit]).await;
        let kind = ended.map_err(|error| error.kind());
        assert_eq!((answer.as_str(), kind), ("", Err(io::ErrorKind::ConnectionReset)), "{reset} is a TCP reset");
    }
    add(service, &json!({"action": {"silenceBeforeHeaders": {}}})).await;
    assert_eq!(raw(service, [silence, limit]).await.0, "");
    add(service, &json!({"action": {"silenceAfterHeaders": {}}})).await;
    let (head, silent) = parts(&raw(service, [limit, silence]).await.0);
    assert!(head.starts_with("http/1.1 400") && head.contains(&length) && silent.is_empty(), "{head}\n{silent}");
    add(service, &json!({"action": "cutBody"})).await;
    let (head, half) = parts(&raw(service, [limit, limit]).await.0);
    assert!(head.contains(&length), "{head}");
    assert_eq!(half, body[..body.len() / 2]);
    add(service, &json!({"action": "garbage"})).await;
    let (head, garbage) = parts(&raw(service, [limit, limit]).await.0);
    assert!(head.starts_with("http/1.1 400") && serde_json::from_str::<Value>(&garbage).is_err(), "{garbage}");
    add(service, &json!({"action": {"delay": {"ms": 1200}}})).await;
    let (answer, _, came) = raw(service, [limit, limit]).await;
    assert_eq!(parts(&answer).1, body);
    assert!(came >= Duration::from_millis(1200), "the answer came after {came:?}");
}

#[tokio::test]
async fn a_fault_of_an_account_hits_that_account() {
    let bed = bed::start().await;
    let (ours, service) = (client(&bed.service.url()), &bed.service);
    let theirs = client_of(&service.url(), Credentials::new("AKIAOTHERS", "other-secret", None, None, "test"));
    add(service, &json!({"account": "444455556666", "action": {"error": {"code": "Theirs"}}})).await;
    assert_eq!(code(ours.list_schemas().send().await), "no error");
    assert_eq!(code(theirs.list_schemas().send().await), "Theirs");
    assert_eq!(code(theirs.list_schemas().send().await), "no error");
}

#[tokio::test]
async fn a_job_that_can_not_be_found_has_no_tags_either() {
    let bed = bed::start().await;
    let (client, service) = (client(&bed.service.url()), &bed.service);
    add(service, &json!({"operation": CREATE, "action": {"notFoundFor": {"lookups": 3}}})).await;
    create(&client, "late").await.unwrap();
    let tag = Tag::builder().tag_key("a").tag_value("b").build().unwrap();
    let (arn, none) = (arn("late"), "ResourceNotFoundException");
    assert_eq!(code(client.tag_resource().resource_arn(&arn).tags(tag).send().await), none);
    assert_eq!(code(client.untag_resource().resource_arn(&arn).tag_keys("a").send().await), none);
    assert_eq!(code(client.list_tags_for_resource().resource_arn(&arn).send().await), none);
    assert_eq!(client.list_tags_for_resource().resource_arn(&arn).send().await.unwrap().tags, Some(Vec::new()));
}

#[tokio::test]
async fn faults_are_addressed_counted_listed_and_cleared() {
    let bed = bed::start().await;
    let (client, service) = (client(&bed.service.url()), &bed.service);
    let error = |code: &str| json!({"error": {"code": code}});
    add(service, &json!({"account": "444455556666", "count": 0, "action": error("Theirs")})).await;
    add(service, &json!({"operation": DESCRIBE, "name": "job/a", "skip": 1, "count": 2, "action": error("Mine")}))
        .await;
    add(service, &json!({"operation": DESCRIBE, "name": "job/a", "action": error("Last")})).await;
    let mut seen = Vec::new();
    for name in ["a", "b", "a", "a", "a", "a"] {
        seen.push(status(&client, name).await.unwrap_err());
    }
    // The first look is skipped by the second fault, so the third has it; b is nobody's.
    let none = "ResourceNotFoundException";
    assert_eq!(seen, ["Last", none, "Mine", "Mine", none, none]);
    assert_eq!(listed(service).await.len(), 1, "the other account's stays");
    let url = format!("{}/_local/faults", service.url());
    assert_eq!(bed::http("DELETE", &url, "").await.0, 204);
    assert!(listed(service).await.is_empty());
    for typo in [
        json!({"operation": "CreateImportJob", "action": "garbage"}),
        json!({"action": "explode"}),
        json!({"operation": "ListSchemas", "action": "vanish"}),
        json!({"operation": "ListSchemas", "name": "a", "action": "garbage"}),
        json!({"action": {"error": {"code": "X", "status": 99}}}),
        json!({"acount": "1", "action": "garbage"}),
    ] {
        let (code, answer) = bed::http("POST", &url, &typo.to_string()).await;
        assert!((400..500).contains(&code), "{typo}: {answer}");
    }
    assert!(listed(service).await.is_empty());
}
