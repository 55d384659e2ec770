//! Every fault, added over HTTP: what the client observes, and what the ledger records.

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

use crate::{CREATE, DESCRIBE, client, client_with, create, env, error_code, impatient_client, job_arn, status};

async fn add_fault(service: &Service, fault: &Value) {
    let (code, response) = env::http("POST", &format!("{}/_local/faults", service.url()), &fault.to_string()).await;
    assert_eq!(code, 201, "{response}");
}

async fn list_faults(service: &Service) -> Vec<Value> {
    let (_, response) = env::http("GET", &format!("{}/_local/faults", service.url()), "").await;
    serde_json::from_str(&response).unwrap()
}

/// The label of an action. The match is exhaustive, so that a new action does not compile without a test.
fn label(action: &Action) -> &'static str {
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
async fn lost_response_is_recorded_with_whether_the_job_exists() {
    let env = env::start().await;
    let (impatient, client) = (impatient_client(&env.service.url()), client(&env.service.url()));
    env.service.hold("");
    // The fault, the HTTP status that the client receives (0 for none), and whether the job exists.
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
    for (number, (action, http_status, exists)) in cases.into_iter().enumerate() {
        let name = format!("job-{number}");
        add_fault(&env.service, &json!({"operation": CREATE, "name": name, "action": action})).await;
        let fault: Fault = serde_json::from_value(list_faults(&env.service).await.remove(0)).unwrap();
        let times_out = label(&fault.action).starts_with("silence") || label(&fault.action) == "delay";
        assert!(create(if times_out { &impatient } else { &client }, &name).await.is_err(), "{action} is an error");
        // A client may time out before the stand-in has read the request.
        env::eventually("the fault has fired", || env.service.faults().is_empty().then_some(())).await;
        let entry = env.service.ledger().pop().unwrap();
        assert_eq!(entry.fault.as_deref(), Some(label(&fault.action)));
        assert_eq!((entry.http_status, entry.dataset_import_job_arn.is_some()), (http_status, exists), "{action}");
        assert_eq!(status(&client, &name).await.is_ok(), exists, "{action}");
        env.service.finish(&name, Outcome::Active);
    }
    add_fault(&env.service, &json!({"operation": CREATE, "action": "noArn"})).await;
    assert_eq!(create(&client, "no-arn").await, Ok(None));
    assert_eq!(env.service.ledger().pop().unwrap().dataset_import_job_arn, Some(job_arn("no-arn")));
}

#[tokio::test]
async fn faults_hide_remove_or_misreport_an_existing_job() {
    let env = env::start().await;
    let (client, service) = (client(&env.service.url()), &env.service);
    service.hold("");
    let not_found = Err("ResourceNotFoundException".to_owned());
    add_fault(service, &json!({"operation": CREATE, "action": {"notFoundFor": {"lookups": 2}}})).await;
    create(&client, "late").await.unwrap();
    assert_eq!([status(&client, "late").await, status(&client, "late").await], [not_found.clone(), not_found.clone()]);
    assert!(status(&client, "late").await.is_ok());
    add_fault(service, &json!({"operation": CREATE, "action": {"notFoundFor": {"ms": 3_600_000}}})).await;
    create(&client, "later").await.unwrap();
    assert_eq!(status(&client, "later").await, not_found);
    assert_eq!(
        create(&client, "later").await,
        Err("ResourceAlreadyExistsException".to_owned()),
        "it exists although it is hidden"
    );
    add_fault(service, &json!({"operation": DESCRIBE, "action": {"status": "CREATE THINKING"}})).await;
    assert_eq!(status(&client, "late").await.unwrap(), "CREATE THINKING");
    // This fault fires only on a finished job.
    add_fault(service, &json!({"operation": DESCRIBE, "action": "statusGoesBack"})).await;
    assert_eq!(status(&client, "late").await.unwrap(), "CREATE PENDING");
    service.finish("late", Outcome::Active);
    assert_eq!(status(&client, "late").await.unwrap(), "CREATE IN_PROGRESS");
    assert_eq!(status(&client, "late").await.unwrap(), "ACTIVE");
    add_fault(service, &json!({"operation": DESCRIBE, "action": "vanish"})).await;
    assert_eq!([status(&client, "late").await, status(&client, "late").await], [not_found.clone(), not_found]);
    let fired: Vec<_> = service.ledger().into_iter().filter_map(|entry| entry.fault).collect();
    assert_eq!(fired, ["notFoundFor", "notFoundFor", "status", "statusGoesBack", "vanish"]);
}

async fn failure_reason(client: &Client, name: &str) -> String {
    let output = client.describe_dataset_import_job().dataset_import_job_arn(job_arn(name)).send().await.unwrap();
    output.dataset_import_job.unwrap().failure_reason.unwrap()
}

#[tokio::test]
async fn failure_reason_of_ten_megabytes_or_with_control_characters_is_returned() {
    let env = env::start().await;
    let (client, service) = (client(&env.service.url()), &env.service);
    service.hold("");
    for (name, fault) in [
        ("long", json!({"text": "no ", "length": 10 << 20})),
        ("odd", json!({"text": "\u{1b}[31mred\u{0}\r\n<script>\u{202e}"})),
    ] {
        create(&client, name).await.unwrap();
        add_fault(service, &json!({"operation": DESCRIBE, "name": name, "action": {"failureReason": fault}})).await;
    }
    let long = failure_reason(&client, "long").await;
    assert_eq!((long.len(), &long[..6]), (10 << 20, "no no "));
    assert_eq!(failure_reason(&client, "odd").await, "\u{1b}[31mred\u{0}\r\n<script>\u{202e}");
    assert_eq!(
        failure_reason(&client, "odd").await,
        "\u{1b}[31mred\u{0}\r\n<script>\u{202e}",
        "the reason is permanent"
    );
    let fired = service.ledger().into_iter().filter(|entry| entry.fault.as_deref() == Some("failureReason")).count();
    assert_eq!(fired, 2);
    let (_, page) = env::http("GET", &format!("{}/_local/", service.url()), "").await;
    assert!(page.len() < 20_000 && page.contains("no no no"), "the page shows only the beginning: {}", page.len());
    assert!(page.contains(r"\u{1b}[31mred\u{0}\r\n&lt;script&gt;"), "{page}");
}

/// Sends one unsigned request, and returns the bytes of the response, how the connection ended, and the time to the
/// first byte. Stops when the connection ends or no byte arrives: for `first` until the first byte, for `more` after
/// it. The request need not be signed, because faults also apply to error responses.
async fn send_raw(service: &Service, [first, more]: [Duration; 2]) -> (String, io::Result<()>, Duration) {
    let host = service.url().trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(&host).await.unwrap();
    let head = format!("POST / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
    let head = format!("{head}content-type: application/x-amz-json-1.1\r\n");
    let head = format!("{head}x-amz-target: AmazonPersonalize.ListSchemas\r\ncontent-length: 2\r\n\r\n{{}}");
    let started = Instant::now();
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut read, mut first_byte) = (Vec::new(), None);
    let ended = loop {
        match timeout(if first_byte.is_none() { first } else { more }, stream.read_buf(&mut read)).await {
            Err(_) | Ok(Ok(0)) => break Ok(()),
            Ok(Ok(_)) => first_byte = first_byte.or(Some(started.elapsed())),
            Ok(Err(error)) => break Err(error),
        }
    };
    (String::from_utf8(read).unwrap(), ended, first_byte.unwrap_or_default())
}

#[tokio::test]
async fn connection_fault_has_its_documented_effect_on_the_wire() {
    let env = env::start().await;
    let service = &env.service;
    // `limit` is a generous timeout for expected bytes, `silence` how long to wait for bytes that must not arrive.
    let (limit, silence) = (Duration::from_secs(120), Duration::from_secs(2));
    let body = r#"{"__type":"MissingAuthenticationTokenException","message":"Missing Authentication Token"}"#;
    let split = |response: &str| {
        let (head, body) = response.split_once("\r\n\r\n").unwrap_or((response, ""));
        (head.to_lowercase(), body.to_owned())
    };
    let length = format!("content-length: {}", body.len());
    for reset in ["resetBefore", "resetAfter"] {
        add_fault(service, &json!({"action": reset})).await;
        let (response, ended, _) = send_raw(service, [limit, limit]).await;
        let kind = ended.map_err(|error| error.kind());
        assert_eq!((response.as_str(), kind), ("", Err(io::ErrorKind::ConnectionReset)), "{reset} is a TCP reset");
    }
    add_fault(service, &json!({"action": {"silenceBeforeHeaders": {}}})).await;
    assert_eq!(send_raw(service, [silence, limit]).await.0, "");
    add_fault(service, &json!({"action": {"silenceAfterHeaders": {}}})).await;
    let (head, sent) = split(&send_raw(service, [limit, silence]).await.0);
    assert!(head.starts_with("http/1.1 400") && head.contains(&length) && sent.is_empty(), "{head}\n{sent}");
    add_fault(service, &json!({"action": "cutBody"})).await;
    let (head, half) = split(&send_raw(service, [limit, limit]).await.0);
    assert!(head.contains(&length), "{head}");
    assert_eq!(half, body[..body.len() / 2]);
    add_fault(service, &json!({"action": "garbage"})).await;
    let (head, garbage) = split(&send_raw(service, [limit, limit]).await.0);
    assert!(head.starts_with("http/1.1 400") && serde_json::from_str::<Value>(&garbage).is_err(), "{garbage}");
    add_fault(service, &json!({"action": {"delay": {"ms": 1200}}})).await;
    let (response, _, first_byte) = send_raw(service, [limit, limit]).await;
    assert_eq!(split(&response).1, body);
    assert!(first_byte >= Duration::from_millis(1200), "the response arrived after {first_byte:?}");
}

#[tokio::test]
async fn fault_with_account_fires_only_for_that_account() {
    let env = env::start().await;
    let (client, service) = (client(&env.service.url()), &env.service);
    let other = client_with(&service.url(), Credentials::new("AKIAOTHERS", "other-secret", None, None, "test"));
    add_fault(service, &json!({"account": "444455556666", "action": {"error": {"code": "OtherAccount"}}})).await;
    assert_eq!(error_code(client.list_schemas().send().await), "no error");
    assert_eq!(error_code(other.list_schemas().send().await), "OtherAccount");
    assert_eq!(error_code(other.list_schemas().send().await), "no error");
}

#[tokio::test]
async fn hidden_job_has_no_tags() {
    let env = env::start().await;
    let (client, service) = (client(&env.service.url()), &env.service);
    add_fault(service, &json!({"operation": CREATE, "action": {"notFoundFor": {"lookups": 3}}})).await;
    create(&client, "late").await.unwrap();
    let tag = Tag::builder().tag_key("a").tag_value("b").build().unwrap();
    let (arn, not_found) = (job_arn("late"), "ResourceNotFoundException");
    assert_eq!(error_code(client.tag_resource().resource_arn(&arn).tags(tag).send().await), not_found);
    assert_eq!(error_code(client.untag_resource().resource_arn(&arn).tag_keys("a").send().await), not_found);
    assert_eq!(error_code(client.list_tags_for_resource().resource_arn(&arn).send().await), not_found);
    assert_eq!(client.list_tags_for_resource().resource_arn(&arn).send().await.unwrap().tags, Some(Vec::new()));
}

#[tokio::test]
async fn faults_are_matched_skipped_counted_listed_and_cleared() {
    let env = env::start().await;
    let (client, service) = (client(&env.service.url()), &env.service);
    let error = |code: &str| json!({"error": {"code": code}});
    add_fault(service, &json!({"account": "444455556666", "count": 0, "action": error("OtherAccount")})).await;
    add_fault(
        service,
        &json!({"operation": DESCRIBE, "name": "job/a", "skip": 1, "count": 2, "action": error("Second")}),
    )
    .await;
    add_fault(service, &json!({"operation": DESCRIBE, "name": "job/a", "action": error("Third")})).await;
    let mut errors = Vec::new();
    for name in ["a", "b", "a", "a", "a", "a"] {
        errors.push(status(&client, name).await.unwrap_err());
    }
    // The second fault skips the first request, so the third fault fires. No fault matches b.
    let not_found = "ResourceNotFoundException";
    assert_eq!(errors, ["Third", not_found, "Second", "Second", not_found, not_found]);
    assert_eq!(list_faults(service).await.len(), 1, "the fault of the other account is still pending");
    let url = format!("{}/_local/faults", service.url());
    assert_eq!(env::http("DELETE", &url, "").await.0, 204);
    assert!(list_faults(service).await.is_empty());
    for fault in [
        json!({"operation": "CreateImportJob", "action": "garbage"}),
        json!({"action": "explode"}),
        json!({"operation": "ListSchemas", "action": "vanish"}),
        json!({"operation": "ListSchemas", "name": "a", "action": "garbage"}),
        json!({"action": {"error": {"code": "X", "status": 99}}}),
        json!({"acount": "1", "action": "garbage"}),
    ] {
        let (code, response) = env::http("POST", &url, &fault.to_string()).await;
        assert!((400..500).contains(&code), "{fault}: {response}");
    }
    assert!(list_faults(service).await.is_empty());
}
