//! Credentials are planted wherever they could leak from, and must appear in no output of the operator.

use crate::env::personalize_local::{SESSION_TOKEN, TEMPORARY_ACCESS_KEY, TEMPORARY_SECRET_KEY};
use crate::env::{OperatorProcess, REGION, ROLE, TestEnv, dataset_arn, eventually, text};
use crate::invariants::secrets::leaks;
use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The most verbose log of the operator and of its dependencies.
const TRACE: &str = "--log-level=trace";

/// No secret is in the log, a status, an event or a metric.
#[track_caller]
fn assert_no_leak(env: &TestEnv, operator: &OperatorProcess, secrets: &[&str]) {
    let log = operator.log();
    assert!(!log.is_empty());
    let outputs = [
        ("the log", log),
        ("a status", text(&env.kubectl(&["get", "datasetimportjobs", "-o", "jsonpath={.items[*].status}"]))),
        ("an event", text(&env.kubectl(&["get", "events", "-o", "json"]))),
        ("a metric", operator.metrics()),
    ];
    assert_eq!(leaks(&outputs, secrets), Vec::<String>::new());
}

fn write(path: &Path, text: &str) -> String {
    fs::write(path, text).unwrap();
    path.display().to_string()
}

#[test]
fn credentials_in_the_environment_and_in_service_responses_do_not_leak() {
    let env = TestEnv::new();
    let vars = [
        ("AWS_ACCESS_KEY_ID", TEMPORARY_ACCESS_KEY),
        ("AWS_SECRET_ACCESS_KEY", TEMPORARY_SECRET_KEY),
        ("AWS_SESSION_TOKEN", SESSION_TOKEN),
    ];
    let error =
        |message: String| json!({"error": {"code": "InvalidInputException", "message": message, "status": 400}});
    // The shapes in which a service, or a proxy in front of it, may repeat credentials.
    let shapes = [
        format!("user {TEMPORARY_ACCESS_KEY} with {TEMPORARY_SECRET_KEY} and {SESSION_TOKEN}"),
        format!(
            "The canonical request was 'POST\\n/\\n\\nhost:h\\nx-amz-security-token:{SESSION_TOKEN}\\n\\nhost;x-amz-date'"
        ),
        format!("{{\"SecretAccessKey\":\"{TEMPORARY_SECRET_KEY}\",\"SessionToken\" : \"{SESSION_TOKEN}\"}}"),
        format!("https://{TEMPORARY_ACCESS_KEY}:{TEMPORARY_SECRET_KEY}@h/?X-Amz-Security-Token={SESSION_TOKEN}&x=1"),
        format!("Authorization: Bearer {SESSION_TOKEN}"),
    ];
    for (number, shape) in shapes.iter().enumerate() {
        let name = format!("rejected-{number}-");
        let operation = if number % 2 == 0 { "CreateDatasetImportJob" } else { "DescribeDatasetImportJob" };
        env.service
            .inject_fault(&json!({"operation": operation, "name": name, "count": 0, "action": error(shape.clone())}));
    }
    // A foreign job with secrets in its fields.
    env.service.put_job(&json!({
        "name": "taken", "datasetArn": dataset_arn("d9"), "status": "ACTIVE",
        "dataLocation": format!("https://user:{TEMPORARY_SECRET_KEY}@h/x.csv"), "roleArn": TEMPORARY_SECRET_KEY,
        "tags": [{"tagKey": "secretAccessKey", "tagValue": TEMPORARY_SECRET_KEY}, {"tagKey": TEMPORARY_ACCESS_KEY, "tagValue": SESSION_TOKEN}],
    }));
    env.service.set_durations(600_000, 600_000);
    let operator = env.start_operator_with(&vars, &[TRACE]);
    for number in 0..shapes.len() {
        env.import(&format!("rejected-{number}"), &format!("d{number}"), json!({}));
    }
    env.import("conflict", "d9", json!({"jobName": "taken"}));
    env.import("nightly", "d10", json!({}));
    env.import("failed", "d11", json!({}));
    let job = eventually("the job exists", || env.status("failed").job_name);
    env.service.finish_job_with(&job, &json!({"failed": shapes[0]}));
    env.wait_for_reason("failed", "ImportFailed");
    env.service.set_durations(1, 1);
    env.wait_for_reason("nightly", "ImportSucceeded");
    env.wait_for_reason("conflict", "JobNameConflict");
    for number in 0..shapes.len() {
        let reason = env.wait_for_message(&format!("rejected-{number}"), "InvalidInputException");
        assert!(reason.contains("[redacted]"), "{reason}");
    }
    assert_no_leak(&env, &operator, &[TEMPORARY_ACCESS_KEY, TEMPORARY_SECRET_KEY, SESSION_TOKEN]);
}

#[test]
fn credentials_in_broken_files_and_programs_do_not_leak() {
    let env = TestEnv::new();
    let path = |name: &str| env.dir().join(name);
    let secrets = format!("{TEMPORARY_ACCESS_KEY} {TEMPORARY_SECRET_KEY} {SESSION_TOKEN}");
    let program = |name: &str, script: &str| {
        let script = write(&path(&format!("{name}.sh")), script);
        write(&path(name), &format!("[default]\ncredential_process = sh {script}\n"))
    };
    let json = format!(
        "{{\\\"Version\\\":1,\\\"SecretAccessKey\\\":\\\"{TEMPORARY_SECRET_KEY}\\\",\\\"SessionToken\\\":\\\"{SESSION_TOKEN}\\\"}}"
    );
    let cases = [
        ("AWS_CONFIG_FILE", program("prints-no-json", &format!("echo '{secrets}'"))),
        ("AWS_CONFIG_FILE", program("prints-half", &format!("echo \"{json}\""))),
        (
            "AWS_CONFIG_FILE",
            program(
                "fails",
                &format!("echo '{secrets}'; echo 'aws_secret_access_key={TEMPORARY_SECRET_KEY} {secrets}' >&2; exit 3"),
            ),
        ),
        (
            "AWS_SHARED_CREDENTIALS_FILE",
            write(&path("no-section"), &format!("aws_secret_access_key {TEMPORARY_SECRET_KEY}\n{secrets}\n")),
        ),
        (
            "AWS_SHARED_CREDENTIALS_FILE",
            write(
                &path("no-key"),
                &format!(
                    "[default]\naws_secret_access_key = {TEMPORARY_SECRET_KEY}\naws_session_token = {SESSION_TOKEN}\n{secrets}\n"
                ),
            ),
        ),
    ];
    for (number, (variable, file)) in cases.iter().enumerate() {
        let vars = [("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", ""), (*variable, file.as_str())];
        let operator = env.start_operator_with(&vars, &[TRACE]);
        let name = format!("nightly-{number}");
        env.import(&name, &format!("d{number}"), json!({}));
        env.wait_for_reason(&name, "CredentialsRefused");
        assert_no_leak(&env, &operator, &[TEMPORARY_ACCESS_KEY, TEMPORARY_SECRET_KEY, SESSION_TOKEN]);
        assert!(operator.stop());
    }
}

#[test]
fn credentials_in_urls_and_kubeconfigs_do_not_leak() {
    let env = TestEnv::new();
    // The port is closed.
    let endpoint = format!("http://{TEMPORARY_ACCESS_KEY}:{TEMPORARY_SECRET_KEY}@127.0.0.1:1/?token={SESSION_TOKEN}");
    let operator = env.start_operator_with(&[("AWS_ENDPOINT_URL_PERSONALIZE", &endpoint)], &[TRACE]);
    env.import("nightly", "d0", json!({}));
    env.wait_for_reason("nightly", "ServiceUnavailable");
    assert_no_leak(&env, &operator, &[TEMPORARY_ACCESS_KEY, TEMPORARY_SECRET_KEY, SESSION_TOKEN]);
    assert!(operator.stop());

    let server = env.control_plane.server();
    let insecure = json!({"server": server, "insecure-skip-tls-verify": true});
    let with_userinfo = json!({"server": server.replace("//", &format!("//{TEMPORARY_ACCESS_KEY}:{TEMPORARY_SECRET_KEY}@")), "insecure-skip-tls-verify": true});
    let proxied = json!({"server": server, "insecure-skip-tls-verify": true, "proxy-url": format!("ftp://{TEMPORARY_ACCESS_KEY}:{TEMPORARY_SECRET_KEY}@127.0.0.1:1")});
    let token = json!({"token": SESSION_TOKEN});
    let exec = |script: String| {
        json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "sh", "args": ["-c", script],
               "env": [{"name": "SECRET", "value": TEMPORARY_SECRET_KEY}], "interactiveMode": "Never"}})
    };
    let half = format!(
        "echo '{{\"kind\":\"ExecCredential\",\"status\":{{\"token\":\"{SESSION_TOKEN}\",\"expirationTimestamp\":\"{TEMPORARY_SECRET_KEY}\"'"
    );
    let cases: [(&str, Value, Value); 6] = [
        ("a rejected token", insecure.clone(), token.clone()),
        ("a password in the URL", with_userinfo, token.clone()),
        ("a password in the proxy's URL", proxied, token),
        ("a program that prints half of its output", insecure.clone(), exec(half.clone())),
        (
            "a program that fails",
            insecure.clone(),
            exec(format!("{half}; echo 'token: {SESSION_TOKEN} {TEMPORARY_SECRET_KEY}' >&2; exit 3")),
        ),
        (
            "an invalid key",
            insecure,
            json!({"client-certificate-data": SESSION_TOKEN, "client-key-data": TEMPORARY_SECRET_KEY}),
        ),
    ];
    for (what, cluster, user) in cases {
        let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "x",
            "clusters": [{"name": "x", "cluster": cluster}], "users": [{"name": "x", "user": user}],
            "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}]});
        let file = write(&env.dir().join("kubeconfig"), &config.to_string());
        let mut operator =
            env.spawn_operator_with(&[("KUBECONFIG", &file), ("PERSONALIZE_OPERATOR_LOG_LEVEL", "trace")], &[]);
        eventually(what, || (operator.has_exited() || operator.log().contains("lease")).then_some(()));
        assert_no_leak(&env, &operator, &[TEMPORARY_ACCESS_KEY, TEMPORARY_SECRET_KEY, SESSION_TOKEN]);
    }
}

/// Serves errors that repeat the whole request with its headers, in turn as XML, JSON and plain text. Returns the URL
/// and the number of requests.
fn serve_echo() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&requests);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut sent = Vec::new();
            let mut part = [0; 4096];
            stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            // Read until the client waits for the response.
            while let Ok(length @ 1..) = stream.read(&mut part) {
                sent.extend_from_slice(&part[..length]);
            }
            let number = count.fetch_add(1, Ordering::SeqCst);
            let sent = String::from_utf8_lossy(&sent).into_owned();
            let escaped = sent.replace('&', "&amp;").replace('<', "&lt;");
            let body = match number % 3 {
                0 => format!(
                    "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>not with {escaped}</Message></Error></ErrorResponse>"
                ),
                1 => json!({"Code": "AccessDenied", "Message": sent, "code": "AccessDenied", "message": sent})
                    .to_string(),
                _ => sent,
            };
            // The client may have given up.
            let _ = write!(
                stream,
                "HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
        }
    });
    (url, requests)
}

/// A web identity token like those that an API server signs.
const WEB_TOKEN: &str =
    "eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOlsic3RzLmFtYXpvbmF3cy5jb20iXX0.ThisSignatureMustNotShowAnywhere0123456789";
/// The token for container credentials. Nothing in it looks secret; only its header reveals it.
const CONTAINER_TOKEN: &str = "TokenOfAContainerThatMustNotShow";

#[test]
fn tokens_that_the_credentials_endpoint_repeats_do_not_leak() {
    let env = TestEnv::new();
    let (url, requests) = serve_echo();
    let credentials = format!("{url}/credentials");
    let token = write(&env.dir().join("token"), WEB_TOKEN);
    let container = write(&env.dir().join("container-token"), CONTAINER_TOKEN);
    let none = [("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", "")];
    let web = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.as_str()),
        ("AWS_ROLE_ARN", ROLE),
        ("AWS_ENDPOINT_URL_STS", &url),
        ("AWS_REGION", REGION),
    ];
    let inline = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", credentials.as_str()),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", CONTAINER_TOKEN),
    ];
    let from_file = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", credentials.as_str()),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &container),
    ];
    for (number, vars) in [&web[..], &inline[..], &from_file[..]].into_iter().enumerate() {
        let before = requests.load(Ordering::SeqCst);
        let vars: Vec<(&str, &str)> = none.iter().chain(vars).copied().collect();
        let operator = env.start_operator_with(&vars, &[TRACE]);
        let name = format!("nightly-{number}");
        env.import(&name, &format!("d{number}"), json!({}));
        env.wait_for_reason(&name, "CredentialsRefused");
        eventually("each kind of response was sent", || (requests.load(Ordering::SeqCst) >= before + 3).then_some(()));
        assert_no_leak(&env, &operator, &[WEB_TOKEN, CONTAINER_TOKEN, "ThisSignatureMustNotShowAnywhere"]);
        assert!(operator.stop());
    }
    env.check_invariants();
}

#[test]
fn password_of_a_proxy_in_the_environment_does_not_leak() {
    const PASSWORD: &str = "PasswordOfAProxyThatMustNotShow";
    let env = TestEnv::new();
    let authorization = BASE64_STANDARD.encode(format!("operator:{PASSWORD}"));
    let secrets = [PASSWORD, &authorization];
    // A proxy to the service, with and without TLS. It repeats all that it receives.
    let (url, requests) = serve_echo();
    let through = url.replace("//", &format!("//operator:{PASSWORD}@"));
    for (number, (variable, endpoint)) in
        [("HTTP_PROXY", "http://personalize.example"), ("ALL_PROXY", "https://personalize.example")]
            .into_iter()
            .enumerate()
    {
        let before = requests.load(Ordering::SeqCst);
        let vars = [(variable, through.as_str()), ("AWS_ENDPOINT_URL_PERSONALIZE", endpoint)];
        let operator = env.start_operator_with(&vars, &[TRACE]);
        env.import(&format!("nightly-{number}"), &format!("d{number}"), json!({}));
        for _ in 0..3 {
            // A rejected call is retried only after a while, or on request.
            let seen = requests.load(Ordering::SeqCst);
            let now = format!("personalize-operator.io/reconcile-requested-at={seen}");
            env.annotate(&format!("nightly-{number}"), &now);
            eventually("the proxy is called", || (requests.load(Ordering::SeqCst) > seen).then_some(()));
        }
        assert!(requests.load(Ordering::SeqCst) >= before + 3, "each kind of response was sent");
        let name = format!("nightly-{number}");
        eventually("the status has conditions", || (!env.status(&name).conditions.is_empty()).then_some(()));
        assert_no_leak(&env, &operator, &secrets);
        assert!(operator.stop());
    }
    // A proxy to the API server.
    for proxy in ["http", "https", "socks5", "ftp", "a b"] {
        let proxy = format!("{proxy}://operator:{PASSWORD}@127.0.0.1:1");
        let mut operator =
            env.spawn_operator_with(&[("HTTPS_PROXY", &proxy), ("PERSONALIZE_OPERATOR_LOG_LEVEL", "trace")], &[]);
        eventually(&proxy, || (operator.has_exited() || operator.log().contains("lease")).then_some(()));
        assert_no_leak(&env, &operator, &secrets);
    }
    env.check_invariants();
}
