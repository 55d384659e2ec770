//! Credentials are planted wherever they could leak from; then everything that the operator tells is
//! searched for them.

use crate::env::personalize_local::{SESSION_TOKEN, TEMPORARY_ACCESS_KEY, TEMPORARY_SECRET_KEY};
use crate::env::{Bed, Operator, eventually, text};
use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Everything: the deepest log of the operator's own and of all that it is built on.
const ALL: &str = "--log-level=trace";

/// Nothing of this is in the log, the statuses, the events or the metrics.
#[track_caller]
fn kept(bed: &Bed, operator: &Operator, secrets: &[&str]) {
    let told = [
        ("log", operator.log()),
        ("status", text(&bed.kubectl(&["get", "datasetimportjobs", "-o", "jsonpath={.items[*].status}"]))),
        ("events", text(&bed.kubectl(&["get", "events", "-o", "json"]))),
        ("metrics", operator.get("/metrics").map(|(_, text)| text).unwrap_or_default()),
    ];
    for secret in secrets {
        for (place, text) in &told {
            let line = text.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "the {place} tells {secret}");
        }
    }
    assert!(!told[0].1.is_empty());
}

fn write(path: &Path, text: &str) -> String {
    fs::write(path, text).unwrap();
    path.display().to_string()
}

#[test]
fn credentials_in_the_environment_and_in_what_the_service_says_show_nowhere() {
    let bed = Bed::new();
    let env = [
        ("AWS_ACCESS_KEY_ID", TEMPORARY_ACCESS_KEY),
        ("AWS_SECRET_ACCESS_KEY", TEMPORARY_SECRET_KEY),
        ("AWS_SESSION_TOKEN", SESSION_TOKEN),
    ];
    let error =
        |message: String| json!({"error": {"code": "InvalidInputException", "message": message, "status": 400}});
    // Each shape in which a service, or what stands before it, has been seen to repeat them.
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
        let name = format!("refused-{number}-");
        let operation = if number % 2 == 0 { "CreateDatasetImportJob" } else { "DescribeDatasetImportJob" };
        bed.service.fault(&json!({"operation": operation, "name": name, "count": 0, "action": error(shape.clone())}));
    }
    // A job of somebody else, who wrote secrets into it.
    bed.service.put_job(&json!({
        "name": "taken", "datasetArn": crate::env::dataset_arn("d9"), "status": "ACTIVE",
        "dataLocation": format!("https://user:{TEMPORARY_SECRET_KEY}@h/x.csv"), "roleArn": TEMPORARY_SECRET_KEY,
        "tags": [{"tagKey": "secretAccessKey", "tagValue": TEMPORARY_SECRET_KEY}, {"tagKey": TEMPORARY_ACCESS_KEY, "tagValue": SESSION_TOKEN}],
    }));
    bed.service.durations(600_000, 600_000);
    let operator = bed.operator_with(&env, &[ALL]);
    for number in 0..shapes.len() {
        bed.import(&format!("refused-{number}"), &format!("d{number}"), json!({}));
    }
    bed.import("conflict", "d9", json!({"jobName": "taken"}));
    bed.import("nightly", "d10", json!({}));
    bed.import("failed", "d11", json!({}));
    let job = eventually("the job exists", || bed.status("failed").job_name);
    bed.service.finish_as(&job, &json!({"failed": shapes[0]}));
    bed.until("failed", "ImportFailed");
    bed.service.durations(1, 1);
    bed.until("nightly", "ImportSucceeded");
    bed.until("conflict", "JobNameConflict");
    for number in 0..shapes.len() {
        let reason = bed.until_told(&format!("refused-{number}"), "InvalidInputException");
        assert!(reason.contains("[redacted]"), "{reason}");
    }
    kept(&bed, &operator, &[TEMPORARY_ACCESS_KEY, TEMPORARY_SECRET_KEY, SESSION_TOKEN]);
}

#[test]
fn credentials_in_files_and_programs_that_are_broken_show_nowhere() {
    let bed = Bed::new();
    let place = |name: &str| bed.dir().join(name);
    let secrets = format!("{TEMPORARY_ACCESS_KEY} {TEMPORARY_SECRET_KEY} {SESSION_TOKEN}");
    let program = |name: &str, script: &str| {
        let script = write(&place(&format!("{name}.sh")), script);
        write(&place(name), &format!("[default]\ncredential_process = sh {script}\n"))
    };
    let json = format!(
        "{{\\\"Version\\\":1,\\\"SecretAccessKey\\\":\\\"{TEMPORARY_SECRET_KEY}\\\",\\\"SessionToken\\\":\\\"{SESSION_TOKEN}\\\"}}"
    );
    let cases = [
        ("AWS_CONFIG_FILE", program("says-no-json", &format!("echo '{secrets}'"))),
        ("AWS_CONFIG_FILE", program("says-half", &format!("echo \"{json}\""))),
        (
            "AWS_CONFIG_FILE",
            program(
                "fails",
                &format!("echo '{secrets}'; echo 'aws_secret_access_key={TEMPORARY_SECRET_KEY} {secrets}' >&2; exit 3"),
            ),
        ),
        (
            "AWS_SHARED_CREDENTIALS_FILE",
            write(&place("no-section"), &format!("aws_secret_access_key {TEMPORARY_SECRET_KEY}\n{secrets}\n")),
        ),
        (
            "AWS_SHARED_CREDENTIALS_FILE",
            write(
                &place("no-key"),
                &format!(
                    "[default]\naws_secret_access_key = {TEMPORARY_SECRET_KEY}\naws_session_token = {SESSION_TOKEN}\n{secrets}\n"
                ),
            ),
        ),
    ];
    for (number, (variable, file)) in cases.iter().enumerate() {
        let env = [("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", ""), (*variable, file.as_str())];
        let operator = bed.operator_with(&env, &[ALL]);
        let name = format!("nightly-{number}");
        bed.import(&name, &format!("d{number}"), json!({}));
        bed.until(&name, "CredentialsRefused");
        kept(&bed, &operator, &[TEMPORARY_ACCESS_KEY, TEMPORARY_SECRET_KEY, SESSION_TOKEN]);
        assert!(operator.stop());
    }
}

#[test]
fn credentials_in_urls_and_kubeconfigs_show_nowhere() {
    let bed = Bed::new();
    // Nobody listens there.
    let endpoint = format!("http://{TEMPORARY_ACCESS_KEY}:{TEMPORARY_SECRET_KEY}@127.0.0.1:1/?token={SESSION_TOKEN}");
    let operator = bed.operator_with(&[("AWS_ENDPOINT_URL_PERSONALIZE", &endpoint)], &[ALL]);
    bed.import("nightly", "d0", json!({}));
    bed.until("nightly", "ServiceUnavailable");
    kept(&bed, &operator, &[TEMPORARY_ACCESS_KEY, TEMPORARY_SECRET_KEY, SESSION_TOKEN]);
    assert!(operator.stop());

    let server = bed.plane.server();
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
        ("a token that is refused", insecure.clone(), token.clone()),
        ("a password in the URL", with_userinfo, token.clone()),
        ("a password in the proxy's URL", proxied, token),
        ("a program that says half", insecure.clone(), exec(half.clone())),
        (
            "a program that fails",
            insecure.clone(),
            exec(format!("{half}; echo 'token: {SESSION_TOKEN} {TEMPORARY_SECRET_KEY}' >&2; exit 3")),
        ),
        (
            "a key that is none",
            insecure,
            json!({"client-certificate-data": SESSION_TOKEN, "client-key-data": TEMPORARY_SECRET_KEY}),
        ),
    ];
    for (what, cluster, user) in cases {
        let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "x",
            "clusters": [{"name": "x", "cluster": cluster}], "users": [{"name": "x", "user": user}],
            "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}]});
        let file = write(&bed.dir().join("kubeconfig"), &config.to_string());
        let mut operator =
            bed.operator_unready_with(&[("KUBECONFIG", &file), ("PERSONALIZE_OPERATOR_LOG_LEVEL", "trace")]);
        eventually(what, || (operator.has_ended() || operator.log().contains("lease")).then_some(()));
        kept(&bed, &operator, &[TEMPORARY_ACCESS_KEY, TEMPORARY_SECRET_KEY, SESSION_TOKEN]);
    }
}

/// Serves whoever asks an error that repeats all that was sent, its headers included, in XML, JSON and plain text.
/// Tells its URL, and counts who asked.
fn echo() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut sent = Vec::new();
            let mut part = [0; 4096];
            stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            // The whole head and what follows at once; who sends waits for the answer then.
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
            // Who has given up needs no answer.
            let _ = write!(
                stream,
                "HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
        }
    });
    (url, asked)
}

/// A web identity's token, as a cluster's API server signs them.
const WEB_TOKEN: &str =
    "eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOlsic3RzLmFtYXpvbmF3cy5jb20iXX0.ThisSignatureMustNotShowAnywhere0123456789";
/// The token of a container's credentials: no shape gives it away, only the header that it is in.
const CONTAINER_TOKEN: &str = "TokenOfAContainerThatMustNotShow";

#[test]
fn tokens_for_credentials_show_nowhere_even_if_who_gives_those_repeats_them() {
    let bed = Bed::new();
    let (url, asked) = echo();
    let credentials = format!("{url}/credentials");
    let token = write(&bed.dir().join("token"), WEB_TOKEN);
    let container = write(&bed.dir().join("container-token"), CONTAINER_TOKEN);
    let none = [("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", "")];
    let web = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.as_str()),
        ("AWS_ROLE_ARN", crate::env::ROLE),
        ("AWS_ENDPOINT_URL_STS", &url),
        ("AWS_REGION", crate::env::REGION),
    ];
    let told = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", credentials.as_str()),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", CONTAINER_TOKEN),
    ];
    let filed = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", credentials.as_str()),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &container),
    ];
    for (number, env) in [&web[..], &told[..], &filed[..]].into_iter().enumerate() {
        let before = asked.load(Ordering::SeqCst);
        let env: Vec<(&str, &str)> = none.iter().chain(env).copied().collect();
        let operator = bed.operator_with(&env, &[ALL, "--aws-timeout=20s", "--aws-read-timeout=20s"]);
        let name = format!("nightly-{number}");
        bed.import(&name, &format!("d{number}"), json!({}));
        bed.until(&name, "CredentialsRefused");
        eventually("each kind of answer was given", || (asked.load(Ordering::SeqCst) >= before + 3).then_some(()));
        kept(&bed, &operator, &[WEB_TOKEN, CONTAINER_TOKEN, "ThisSignatureMustNotShowAnywhere"]);
        assert!(operator.stop());
    }
    bed.judged();
}

#[test]
fn a_password_of_the_environments_proxy_shows_nowhere() {
    const PASSWORD: &str = "PasswordOfAProxyThatMustNotShow";
    let bed = Bed::new();
    let authorization = BASE64_STANDARD.encode(format!("operator:{PASSWORD}"));
    let secrets = [PASSWORD, &authorization];
    // On the way to the service, with and without TLS. The proxy repeats all that it was told.
    let (url, asked) = echo();
    let through = url.replace("//", &format!("//operator:{PASSWORD}@"));
    for (number, (variable, endpoint)) in
        [("HTTP_PROXY", "http://personalize.example"), ("ALL_PROXY", "https://personalize.example")]
            .into_iter()
            .enumerate()
    {
        let before = asked.load(Ordering::SeqCst);
        let env = [(variable, through.as_str()), ("AWS_ENDPOINT_URL_PERSONALIZE", endpoint)];
        let operator = bed.operator_with(&env, &[ALL, "--aws-timeout=20s", "--aws-read-timeout=20s"]);
        bed.import(&format!("nightly-{number}"), &format!("d{number}"), json!({}));
        for _ in 0..3 {
            // What is refused is tried again only after a while, or when a person asks.
            let seen = asked.load(Ordering::SeqCst);
            let now = format!("personalize-operator.io/reconcile-requested-at={seen}");
            bed.annotate(&format!("nightly-{number}"), &now);
            eventually("the proxy is asked", || (asked.load(Ordering::SeqCst) > seen).then_some(()));
        }
        assert!(asked.load(Ordering::SeqCst) >= before + 3, "each kind of answer was given");
        eventually("it is told", || (!bed.status(&format!("nightly-{number}")).conditions.is_empty()).then_some(()));
        kept(&bed, &operator, &secrets);
        assert!(operator.stop());
    }
    // On the way to the API server.
    for proxy in ["http", "https", "socks5", "ftp", "a b"] {
        let proxy = format!("{proxy}://operator:{PASSWORD}@127.0.0.1:1");
        let mut operator =
            bed.operator_unready_with(&[("HTTPS_PROXY", &proxy), ("PERSONALIZE_OPERATOR_LOG_LEVEL", "trace")]);
        eventually(&proxy, || (operator.has_ended() || operator.log().contains("lease")).then_some(()));
        kept(&bed, &operator, &secrets);
    }
    bed.judged();
}
