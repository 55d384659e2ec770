//! Which credentials sign a call: the operator's own from IRSA or EKS Pod Identity, or those of a role in another
//! account. Fakes of STS and of the Pod Identity agent speak their protocols with the real SDK. The fake service checks
//! the issued credentials.

use crate::env::personalize_local::{
    ACCESS_KEY, OTHER_ACCESS_KEY, OTHER_ACCOUNT, SECRET_KEY, SESSION_TOKEN, TEMPORARY_ACCESS_KEY, TEMPORARY_SECRET_KEY,
};
use crate::env::{ACCOUNT, REGION, TestEnv, dataset_arn};
use crate::invariants::accepted_creates;
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

const ROLE: &str = "arn:aws:iam::210987654321:role/Importer";

/// A request to STS or to the agent.
#[derive(Debug, Clone)]
struct Request {
    head: String,
    body: String,
}

impl Request {
    fn form(&self, name: &str) -> String {
        let pairs = self.body.split('&').filter_map(|pair| pair.split_once('='));
        let value = pairs.into_iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value);
        value.replace("%3A", ":").replace("%2F", "/")
    }
}

/// A fake of STS (POST) and of the Pod Identity agent (GET).
struct FakeIssuer {
    url: String,
    requests: Arc<Mutex<Vec<Request>>>,
    rejects: Arc<AtomicBool>,
}

impl FakeIssuer {
    /// Issues credentials with this key. The thread ends with the process.
    fn start(account: &'static str, key: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (requests, rejects) = (Arc::<Mutex<Vec<Request>>>::default(), Arc::<AtomicBool>::default());
        let (log, reject) = (Arc::clone(&requests), Arc::clone(&rejects));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let Some(request) = read_request(&stream) else { continue };
                let (status, kind, body) = if request.head.starts_with("GET") {
                    ("200 OK", "application/json", agent_response(account, key))
                } else if reject.load(Ordering::SeqCst) {
                    ("403 Forbidden", "text/xml", ACCESS_DENIED.to_owned())
                } else {
                    ("200 OK", "text/xml", sts_response(&request.form("Action"), account, key))
                };
                log.lock().unwrap().push(request);
                let _ = write!(
                    &stream,
                    "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
            }
        });
        Self { url, requests, rejects }
    }

    fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

fn read_request(mut stream: &TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return Some(Request { head: head.into(), body: body.into() });
            }
        }
        let read = stream.read(&mut chunk).ok().filter(|n| *n > 0)?;
        bytes.extend_from_slice(&chunk[..read]);
    }
}

const ACCESS_DENIED: &str = "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>User: arn:aws:iam::123456789012:user/x is not authorized to perform: sts:AssumeRole</Message></Error><RequestId>r</RequestId></ErrorResponse>";

fn sts_response(action: &str, account: &str, key: &str) -> String {
    format!(
        "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result>\
         <AssumedRoleUser><Arn>arn:aws:sts::{account}:assumed-role/Importer/s</Arn><AssumedRoleId>A:s</AssumedRoleId></AssumedRoleUser>\
         <Credentials><AccessKeyId>{key}</AccessKeyId><SecretAccessKey>{TEMPORARY_SECRET_KEY}</SecretAccessKey>\
         <SessionToken>{SESSION_TOKEN}</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></{action}Result>\
         <ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></{action}Response>"
    )
}

fn agent_response(account: &str, key: &str) -> String {
    let expires = "2099-01-01T00:00:00Z";
    json!({"AccessKeyId": key, "SecretAccessKey": TEMPORARY_SECRET_KEY, "Token": SESSION_TOKEN, "AccountId": account, "Expiration": expires}).to_string()
}

fn sts_of_other_account() -> FakeIssuer {
    FakeIssuer::start(OTHER_ACCOUNT, OTHER_ACCESS_KEY)
}

fn in_other_account(dataset: &str) -> Value {
    json!({"datasetArn": dataset_arn(dataset).replace(ACCOUNT, OTHER_ACCOUNT)})
}

fn ready_message(env: &TestEnv, name: &str) -> String {
    env.status(name).conditions[0].message.clone()
}

fn assert_no_secrets(env: &TestEnv, log: &str) {
    let output = format!("{log}{}", env.audited_writes().iter().map(Value::to_string).collect::<String>());
    for secret in [SECRET_KEY, TEMPORARY_SECRET_KEY, SESSION_TOKEN] {
        assert!(!output.contains(secret));
    }
}

#[test]
fn import_into_another_account_uses_the_role_for_that_account() {
    let env = TestEnv::new();
    let sts = sts_of_other_account();
    let operator = env.start_operator_with(
        &[("AWS_ENDPOINT_URL_STS", &sts.url)],
        &[&format!("--account-roles={OTHER_ACCOUNT}={ROLE}")],
    );
    env.import("home", "d0", json!({}));
    env.import("away", "d0", in_other_account("d0"));
    env.wait_for_reason("home", "ImportSucceeded");
    env.wait_for_reason("away", "ImportSucceeded");
    let mut accounts: Vec<String> = accepted_creates(&env.service.ledger()).into_iter().map(|a| a.account).collect();
    accounts.sort();
    assert_eq!(accounts, [ACCOUNT, OTHER_ACCOUNT]);
    let requests = sts.requests();
    assert_eq!(requests.len(), 1, "the session is reused until it expires");
    let request = &requests[0];
    assert_eq!(
        (request.form("Action"), request.form("RoleArn"), request.form("RoleSessionName")),
        ("AssumeRole".into(), ROLE.into(), "personalize-operator".into())
    );
    let signed = format!("Credential={ACCESS_KEY}/");
    assert!(request.head.contains(&signed) && request.head.contains(&format!("/{REGION}/sts/")), "{}", request.head);
    assert_no_secrets(&env, &operator.log());
}

#[test]
fn role_that_cannot_be_assumed_is_reported_and_the_import_runs_once_it_can() {
    let env = TestEnv::new();
    let sts = sts_of_other_account();
    sts.rejects.store(true, Ordering::SeqCst);
    let operator = env.start_operator_with(
        &[("AWS_ENDPOINT_URL_STS", &sts.url)],
        &[&format!("--account-roles={OTHER_ACCOUNT}={ROLE}")],
    );
    env.import("away", "d0", in_other_account("d0"));
    env.wait_for_reason("away", "CredentialsRefused");
    let message = ready_message(&env, "away");
    assert!(
        message.contains(&format!(
            "the role {ROLE} for account {OTHER_ACCOUNT} in {REGION} can't be assumed (AccessDenied"
        )),
        "{message}"
    );
    assert_eq!(env.service.ledger().len(), 0, "no call uses other credentials");
    sts.rejects.store(false, Ordering::SeqCst);
    env.wait_for_reason("away", "ImportSucceeded");
    assert_no_secrets(&env, &operator.log());
}

#[test]
fn account_without_credentials_is_reported_in_the_status() {
    let env = TestEnv::new();
    // These credentials don't include their account, so the service has to reject the call.
    let operator = env.start_operator(&[]);
    env.import("away", "d0", in_other_account("d0"));
    env.wait_for_reason("away", "AccessDenied");
    let message = ready_message(&env, "away");
    assert!(message.contains(&format!("no role is configured for account {OTHER_ACCOUNT}")), "{message}");
    assert!(message.contains("--account-roles"), "{message}");
    operator.kill();
    // With a known account, the operator needs no call.
    let calls = env.service.ledger().len();
    let _operator = env.start_operator_with(&[("AWS_ACCOUNT_ID", ACCOUNT)], &[]);
    env.import("far", "d1", in_other_account("d1"));
    env.wait_for_reason("far", "AccessDenied");
    let message = ready_message(&env, "far");
    assert!(message.contains(&format!("the operator's credentials are of account {ACCOUNT}")), "{message}");
    assert_eq!(env.service.ledger().len(), calls);
    env.import("home", "d2", json!({}));
    env.wait_for_reason("home", "ImportSucceeded");
}

#[test]
fn irsa_web_identity_is_sufficient() {
    let env = TestEnv::new();
    let sts = sts_of_other_account();
    let token = env.dir().join("token");
    fs::write(&token, "a.projected.token").unwrap();
    let _operator = env.start_operator_with(
        &[
            ("AWS_ENDPOINT_URL_STS", &sts.url),
            ("AWS_ACCESS_KEY_ID", ""),
            ("AWS_SECRET_ACCESS_KEY", ""),
            ("AWS_REGION", REGION),
            ("AWS_ROLE_ARN", ROLE),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().unwrap()),
        ],
        &[],
    );
    env.import("away", "d0", in_other_account("d0"));
    env.wait_for_reason("away", "ImportSucceeded");
    let requests = sts.requests();
    assert_eq!(requests[0].form("Action"), "AssumeRoleWithWebIdentity");
    assert_eq!(requests[0].form("WebIdentityToken"), "a.projected.token");
}

#[test]
fn eks_pod_identity_is_sufficient_and_can_assume_roles_in_other_accounts() {
    let env = TestEnv::new();
    let agent = FakeIssuer::start(ACCOUNT, TEMPORARY_ACCESS_KEY);
    let sts = sts_of_other_account();
    let token = env.dir().join("token");
    fs::write(&token, "a.pod.token").unwrap();
    let _operator = env.start_operator_with(
        &[
            ("AWS_ENDPOINT_URL_STS", &sts.url),
            ("AWS_ACCESS_KEY_ID", ""),
            ("AWS_SECRET_ACCESS_KEY", ""),
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &format!("{}/v1/credentials", agent.url)),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token.to_str().unwrap()),
        ],
        &[&format!("--account-roles={OTHER_ACCOUNT}={ROLE}")],
    );
    env.import("home", "d0", json!({}));
    env.import("away", "d0", in_other_account("d0"));
    env.wait_for_reason("home", "ImportSucceeded");
    env.wait_for_reason("away", "ImportSucceeded");
    let head = agent.requests()[0].head.to_ascii_lowercase();
    assert!(head.contains("authorization: a.pod.token"), "{head}");
    assert_eq!(sts.requests()[0].form("RoleArn"), ROLE);
}
