//! Whose credentials a call is made with: the operator's own by IRSA or EKS Pod Identity, and those of a
//! role for each other account. STS and the Pod Identity agent are stand-ins that speak their protocols
//! to the real SDK; that the credentials they give are good is for the service to say.

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

/// What STS or the agent was asked.
#[derive(Debug, Clone)]
struct Asked {
    head: String,
    body: String,
}

impl Asked {
    fn form(&self, name: &str) -> String {
        let pairs = self.body.split('&').filter_map(|pair| pair.split_once('='));
        let value = pairs.into_iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value);
        value.replace("%3A", ":").replace("%2F", "/")
    }
}

/// A stand-in for STS (POST) and the Pod Identity agent (GET).
struct Issuer {
    url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    refuses: Arc<AtomicBool>,
}

impl Issuer {
    /// Gives out these credentials; the thread ends with the process.
    fn start(account: &'static str, key: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (asked, refuses) = (Arc::<Mutex<Vec<Asked>>>::default(), Arc::<AtomicBool>::default());
        let (log, refuse) = (Arc::clone(&asked), Arc::clone(&refuses));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let Some(request) = request(&stream) else { continue };
                let refused = refuse.load(Ordering::SeqCst);
                let (status, kind, body) = if request.head.starts_with("GET") {
                    ("200 OK", "application/json", agent_answer(account, key))
                } else if refused {
                    ("403 Forbidden", "text/xml", REFUSAL.to_owned())
                } else {
                    ("200 OK", "text/xml", sts_answer(&request.form("Action"), account, key))
                };
                log.lock().unwrap().push(request);
                let _ = write!(
                    &stream,
                    "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
            }
        });
        Self { url, asked, refuses }
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn request(mut stream: &TcpStream) -> Option<Asked> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return Some(Asked { head: head.into(), body: body.into() });
            }
        }
        let read = stream.read(&mut chunk).ok().filter(|n| *n > 0)?;
        bytes.extend_from_slice(&chunk[..read]);
    }
}

const REFUSAL: &str = "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>User: arn:aws:iam::123456789012:user/x is not authorized to perform: sts:AssumeRole</Message></Error><RequestId>r</RequestId></ErrorResponse>";

fn sts_answer(action: &str, account: &str, key: &str) -> String {
    format!(
        "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result>\
         <AssumedRoleUser><Arn>arn:aws:sts::{account}:assumed-role/Importer/s</Arn><AssumedRoleId>A:s</AssumedRoleId></AssumedRoleUser>\
         <Credentials><AccessKeyId>{key}</AccessKeyId><SecretAccessKey>{TEMPORARY_SECRET_KEY}</SecretAccessKey>\
         <SessionToken>{SESSION_TOKEN}</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></{action}Result>\
         <ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></{action}Response>"
    )
}

fn agent_answer(account: &str, key: &str) -> String {
    let expires = "2099-01-01T00:00:00Z";
    json!({"AccessKeyId": key, "SecretAccessKey": TEMPORARY_SECRET_KEY, "Token": SESSION_TOKEN, "AccountId": account, "Expiration": expires}).to_string()
}

fn other() -> Issuer {
    Issuer::start(OTHER_ACCOUNT, OTHER_ACCESS_KEY)
}

fn elsewhere(dataset: &str) -> Value {
    json!({"datasetArn": dataset_arn(dataset).replace(ACCOUNT, OTHER_ACCOUNT)})
}

fn message(env: &TestEnv, name: &str) -> String {
    env.status(name).conditions[0].message.clone()
}

fn keeps_secrets(env: &TestEnv, log: &str) {
    let told = format!("{log}{}", env.audited_writes().iter().map(Value::to_string).collect::<String>());
    for secret in [SECRET_KEY, TEMPORARY_SECRET_KEY, SESSION_TOKEN] {
        assert!(!told.contains(secret));
    }
}

#[test]
fn an_import_into_another_account_is_made_with_the_role_for_that_account() {
    let env = TestEnv::new();
    let sts = other();
    let operator = env.start_operator_with(
        &[("AWS_ENDPOINT_URL_STS", &sts.url)],
        &[&format!("--account-roles={OTHER_ACCOUNT}={ROLE}")],
    );
    env.import("home", "d0", json!({}));
    env.import("away", "d0", elsewhere("d0"));
    env.wait_for_reason("home", "ImportSucceeded");
    env.wait_for_reason("away", "ImportSucceeded");
    let mut accounts: Vec<String> = accepted_creates(&env.service.ledger()).into_iter().map(|a| a.account).collect();
    accounts.sort();
    assert_eq!(accounts, [ACCOUNT, OTHER_ACCOUNT]);
    let asked = sts.asked();
    assert_eq!(asked.len(), 1, "the session is used as long as it lives");
    assert_eq!(
        (asked[0].form("Action"), asked[0].form("RoleArn"), asked[0].form("RoleSessionName")),
        ("AssumeRole".into(), ROLE.into(), "personalize-operator".into())
    );
    let signed = format!("Credential={ACCESS_KEY}/");
    assert!(asked[0].head.contains(&signed) && asked[0].head.contains(&format!("/{REGION}/sts/")), "{}", asked[0].head);
    keeps_secrets(&env, &operator.log());
}

#[test]
fn a_role_that_can_not_be_assumed_is_told_and_the_import_is_made_once_it_can() {
    let env = TestEnv::new();
    let sts = other();
    sts.refuses.store(true, Ordering::SeqCst);
    let operator = env.start_operator_with(
        &[("AWS_ENDPOINT_URL_STS", &sts.url)],
        &[&format!("--account-roles={OTHER_ACCOUNT}={ROLE}")],
    );
    env.import("away", "d0", elsewhere("d0"));
    env.wait_for_reason("away", "CredentialsRefused");
    let told = message(&env, "away");
    assert!(
        told.contains(&format!("the role {ROLE} for account {OTHER_ACCOUNT} can't be assumed (AccessDenied)")),
        "{told}"
    );
    assert_eq!(env.service.ledger().len(), 0, "nothing was asked with other credentials");
    sts.refuses.store(false, Ordering::SeqCst);
    env.wait_for_reason("away", "ImportSucceeded");
    keeps_secrets(&env, &operator.log());
}

#[test]
fn an_account_that_no_credentials_are_for_is_told_in_status() {
    let env = TestEnv::new();
    // These credentials don't tell their account: the service does.
    let operator = env.start_operator(&[]);
    env.import("away", "d0", elsewhere("d0"));
    env.wait_for_reason("away", "AccessDenied");
    let told = message(&env, "away");
    assert!(told.contains(&format!("no role is configured for account {OTHER_ACCOUNT}")), "{told}");
    assert!(told.contains("--account-roles"), "{told}");
    operator.kill();
    // These do, so nothing needs to be asked.
    let calls = env.service.ledger().len();
    let _operator = env.start_operator_with(&[("AWS_ACCOUNT_ID", ACCOUNT)], &[]);
    env.import("far", "d1", elsewhere("d1"));
    env.wait_for_reason("far", "AccessDenied");
    let told = message(&env, "far");
    assert!(told.contains(&format!("the operator's credentials are of account {ACCOUNT}")), "{told}");
    assert_eq!(env.service.ledger().len(), calls);
    env.import("home", "d2", json!({}));
    env.wait_for_reason("home", "ImportSucceeded");
}

#[test]
fn web_identity_as_irsa_gives_it_is_enough() {
    let env = TestEnv::new();
    let sts = other();
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
    env.import("away", "d0", elsewhere("d0"));
    env.wait_for_reason("away", "ImportSucceeded");
    let asked = sts.asked();
    assert_eq!(asked[0].form("Action"), "AssumeRoleWithWebIdentity");
    assert_eq!(asked[0].form("WebIdentityToken"), "a.projected.token");
}

#[test]
fn eks_pod_identity_is_enough_and_the_basis_for_roles_in_other_accounts() {
    let env = TestEnv::new();
    let agent = Issuer::start(ACCOUNT, TEMPORARY_ACCESS_KEY);
    let sts = other();
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
    env.import("away", "d0", elsewhere("d0"));
    env.wait_for_reason("home", "ImportSucceeded");
    env.wait_for_reason("away", "ImportSucceeded");
    assert!(
        agent.asked()[0].head.to_ascii_lowercase().contains("authorization: a.pod.token"),
        "{}",
        agent.asked()[0].head
    );
    assert_eq!(sts.asked()[0].form("RoleArn"), ROLE);
}
