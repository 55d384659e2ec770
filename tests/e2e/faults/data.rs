//! Data that breaks a rule, and S3 that can't be read, before an import is submitted.

use super::CREATE;
use crate::env::proxy::Fault;
use crate::env::s3::S3;
use crate::env::{OperatorProcess, TestEnv, eventually};
use crate::invariants::secrets::leaks;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpListener;
use tokio::sync::watch;

/// A value of the data that nothing may show.
const VALUE: &str = "PlantedValueOfTheData";

const HEADER: &str = "USER_ID,ITEM_ID,TIMESTAMP\n";

/// Interactions in milliseconds, with the planted value in each column.
fn milliseconds() -> String {
    format!("{HEADER}{}", format!("{VALUE}1,{VALUE}2,1700000000000\n").repeat(1500))
}

fn good() -> String {
    interactions(1500)
}

fn interactions(count: usize) -> String {
    format!("{HEADER}{}", format!("{VALUE}1,{VALUE}2,1700000000\n").repeat(count))
}

fn operator(env: &TestEnv, s3: &str, preflight: &str) -> OperatorProcess {
    let preflight = format!("--preflight={preflight}");
    env.start_operator_with(&[("AWS_ENDPOINT_URL_S3", s3)], &[&preflight])
}

/// A spec that imports this object.
fn object(key: &str) -> Value {
    json!({"dataSource": {"dataLocation": format!("s3://bucket/{key}")}})
}

/// Nothing that the operator has written contains a value of the data.
fn assert_no_value_shows(env: &TestEnv, operator: &OperatorProcess, name: &str) {
    let events = env.kubectl(&["get", "events", "-o", "json"]);
    let outputs = [
        ("a status", json!(env.status(name)).to_string()),
        ("an event", String::from_utf8(events.stdout).unwrap()),
        ("a log", operator.log()),
        ("a metric", operator.metrics()),
    ];
    assert_eq!(leaks(&outputs, &[VALUE]), Vec::<String>::new());
}

/// The status and the message of the condition DataChecked.
fn data_checked(env: &TestEnv, name: &str) -> (String, String) {
    let conditions = env.status(name).conditions;
    let checked = conditions.into_iter().find(|c| c.type_ == "DataChecked");
    checked.map(|c| (c.status, c.message)).unwrap_or_default()
}

#[test]
fn fault_124_invalid_data_is_not_imported_until_the_object_is_replaced() {
    let env = TestEnv::new();
    let s3 = S3::start(env.dir());
    let operator = operator(&env, s3.url(), "enforce");
    s3.put("new.csv", &milliseconds());
    env.import("nightly", "d0", object("new.csv"));
    let status = env.wait_for_reason("nightly", "DataInvalid");
    let message = data_checked(&env, "nightly").1;
    assert!(message.contains("new.csv, line 2, column TIMESTAMP"), "{message}");
    assert!(message.contains("13 digits, like milliseconds (1500 times)"), "{message}");
    assert!(status.submission.is_none() && env.service.call_count(CREATE) == 0);
    // It holds no place: a later import into the same account continues.
    env.import("other", "d1", json!({}));
    env.wait_for_reason("other", "ImportSucceeded");
    assert_no_value_shows(&env, &operator, "nightly");
    s3.put("new.csv", &good());
    env.wait_for_reason("nightly", "ImportSucceeded");
    assert_eq!(data_checked(&env, "nightly").0, "True");
    assert_eq!(env.accepted_count(), 2);
    assert_no_value_shows(&env, &operator, "nightly");
    env.check_invariants_settled();
}

#[test]
fn fault_125_invalid_data_is_imported_with_a_condition_if_the_check_only_warns() {
    let env = TestEnv::new();
    let s3 = S3::start(env.dir());
    let operator = operator(&env, s3.url(), "warn");
    s3.put("new.csv", &milliseconds());
    env.import("nightly", "d0", object("new.csv"));
    // The service finds out later.
    env.wait_for_reason("nightly", "ImportFailed");
    assert_eq!(data_checked(&env, "nightly").0, "False");
    eventually("an event reports it", || {
        env.event_reasons("nightly").contains(&"DataInvalid".to_owned()).then_some(())
    });
    assert_no_value_shows(&env, &operator, "nightly");
    let mut off = object("new.csv");
    off["preflight"] = json!("Off");
    env.import("unchecked", "d1", off);
    env.wait_for_reason("unchecked", "ImportFailed");
    assert_eq!(data_checked(&env, "unchecked").0, "");
    // The data is valid, but whether the service may decrypt it is unknown.
    s3.put_encrypted("encrypted.csv", &good());
    env.import("encrypted", "d2", object("encrypted.csv"));
    env.wait_for_reason("encrypted", "ImportSucceeded");
    let (status, message) = data_checked(&env, "encrypted");
    assert!(status == "True" && message.contains("allows kms:Decrypt to"), "{status}: {message}");
    assert_no_value_shows(&env, &operator, "encrypted");
    env.check_invariants_settled();
}

/// Answers every request like S3 without a permission.
fn denying_s3() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 8192]);
            let body = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>";
            let length = body.len();
            let head = format!("HTTP/1.1 403 Forbidden\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
            let _ = stream.write_all(format!("{head}{body}").as_bytes());
        }
    });
    url
}

#[test]
fn fault_126_data_that_may_not_be_read_stops_no_import_unless_the_check_is_enforced() {
    let env = TestEnv::new();
    let operator = operator(&env, &denying_s3(), "warn");
    for (name, dataset) in [("nightly", "d0"), ("weekly", "d1")] {
        env.import(name, dataset, json!({}));
        env.wait_for_reason(name, "ImportSucceeded");
        let (status, message) = data_checked(&env, name);
        assert_eq!(status, "Unknown");
        assert!(message.contains("AccessDenied"), "{message}");
    }
    let logged = operator.log().lines().filter(|line| line.contains("data can't be checked before its import")).count();
    assert_eq!(logged, 1, "it is logged once");
    env.import("enforced", "d2", json!({"preflight": "Enforce"}));
    let message = env.wait_for_message("enforced", "checking the data in S3");
    assert!(message.contains("AccessDenied"), "{message}");
    assert_eq!(env.accepted_count(), 2);
    env.patch("enforced", &json!({"spec": {"preflight": "Off"}}));
    env.wait_for_reason("enforced", "ImportSucceeded");
    env.check_invariants_settled();
}

#[test]
fn fault_131_truncated_empty_and_half_uploaded_exports_are_held_until_they_are_whole_or_released() {
    let env = TestEnv::new();
    let s3 = S3::start(env.dir());
    let _operator = operator(&env, s3.url(), "warn");
    let guarded = |name: &str| {
        let mut spec = object(name);
        spec["guard"] = json!({"maxShrinkPercent": 30});
        spec
    };
    // The first import is not compared. Its resource does not have to stay.
    s3.put("whole.csv", &good());
    env.import("first", "d0", guarded("whole.csv"));
    env.wait_for_reason("first", "ImportSucceeded");
    let bytes = env.status("first").data.map(|data| data.bytes);
    assert_eq!(bytes, i64::try_from(good().len()).ok());
    env.delete("first");
    // What can't be listed is not imported, whatever the check says.
    let mut elsewhere = guarded("whole.csv");
    elsewhere["dataSource"]["dataLocation"] = json!("https://bucket.example.com/whole.csv");
    env.import("elsewhere", "d1", elsewhere);
    let message = env.wait_for_reason("elsewhere", "InvalidInput").message.unwrap();
    assert!(message.contains("the location does not start with s3://"), "{message}");
    env.delete("elsewhere");
    for (name, content) in [("truncated", interactions(1000)), ("empty", String::new()), ("half", HEADER.to_owned())] {
        let key = format!("{name}.csv");
        s3.put(&key, &content);
        env.import(name, "d0", guarded(&key));
        let message = env.wait_for_reason(name, "GuardTripped").message.unwrap();
        assert!(message.contains(&format!("{} bytes in 1 file, the last import had", content.len())), "{message}");
    }
    assert_eq!(env.accepted_count(), 1);
    // The release of other data changes nothing.
    let release = |fingerprint: &str| {
        env.annotate("truncated", &format!("personalize-operator.io/release-guard={fingerprint}"));
    };
    release("0123456789abcdef0123456789abcdef");
    let message = env.wait_for_reason("truncated", "GuardTripped").message.unwrap();
    assert_eq!(env.accepted_count(), 1);
    release(message.rsplit(' ').next().unwrap());
    env.wait_for_reason("truncated", "ImportSucceeded");
    // The export is repaired.
    s3.put("half.csv", &good());
    env.wait_for_reason("half", "ImportSucceeded");
    assert_eq!(env.accepted_count(), 3);
    env.check_invariants_settled();
}

#[test]
fn fault_132_object_that_is_replaced_while_its_import_is_submitted_is_reported() {
    let env = TestEnv::new();
    let s3 = S3::start(env.dir());
    s3.put("new.csv", &good());
    let proxy = env.start_proxy();
    let (release, held) = watch::channel(false);
    proxy.inject(move |call| if call.label == CREATE { Fault::HoldUntil(held.clone()) } else { Fault::None });
    let flags = ["--preflight=warn", "--grace=120s"];
    let _operator = env.spawn_operator_behind_with(&proxy, &[("AWS_ENDPOINT_URL_S3", s3.url())], &flags);
    env.import("nightly", "d0", object("new.csv"));
    eventually("create is called", || (proxy.count(CREATE) == 1).then_some(()));
    // A pipeline replaces the object while the operator waits for the answer.
    s3.put("new.csv", &good().replace("1700000000", "1700000001"));
    release.send(true).unwrap();
    eventually("the change is reported", || (data_checked(&env, "nightly").0 == "Unknown").then_some(()));
    let message = data_checked(&env, "nightly").1;
    assert!(message.contains("changed while its import was submitted"), "{message}");
    eventually("an event reports it", || {
        env.event_reasons("nightly").contains(&"DataChanged".to_owned()).then_some(())
    });
    env.wait_for_reason("nightly", "ImportSucceeded");
    env.check_invariants_settled();
}
