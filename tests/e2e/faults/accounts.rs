//! Accounts: with which role each call is signed. The STS is that of moto, and the stand-in checks trust policies,
//! signatures and sessions.

use super::service::{error, ready_state};
use super::{CREATE, DESCRIBE};
use crate::env::moto::Moto;
use crate::env::personalize_local::{ACCESS_KEY, SCHEMA, SECRET_KEY};
use crate::env::proxy::Fault;
use crate::env::{ACCOUNT, OperatorProcess, TestEnv, eventually, shared_control_plane, text};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

pub(super) const CONFIG_MAP: &str = "--accounts-config-map=accounts";
pub(super) const ASSUME_ROLE: &str = "personalize-operator.io/assume-role-arn";
const NAMESPACE_TAG: &str = "personalize-operator.io/namespace";

/// One of many accounts: every third one is in the same partition.
#[derive(Clone, Copy)]
pub(super) struct Account(pub(super) usize);

impl Account {
    pub(super) fn id(self) -> String {
        format!("{}", 100_000_000_000 + self.0)
    }

    pub(super) fn partition(self) -> &'static str {
        ["aws", "aws-cn", "aws-us-gov"][self.0 % 3]
    }

    pub(super) fn region(self) -> &'static str {
        ["eu-west-1", "cn-north-1", "us-gov-west-1"][self.0 % 3]
    }

    pub(super) fn other_region(self) -> &'static str {
        ["us-east-1", "cn-northwest-1", "us-gov-east-1"][self.0 % 3]
    }

    pub(super) fn role(self, name: &str) -> String {
        format!("arn:{}:iam::{}:role/{name}", self.partition(), self.id())
    }

    /// How messages name a role.
    fn named(self, role: &str) -> String {
        format!("{} for account {} in {}", self.role(role), self.id(), self.region())
    }

    /// The ARN of a session of a role.
    pub(super) fn session(self, role: &str, session: &str) -> String {
        format!("arn:{}:sts::{}:assumed-role/{role}/{session}", self.partition(), self.id())
    }

    /// A dataset `GROUP/NAME`, or of the group `shop`.
    pub(super) fn dataset(self, name: &str) -> String {
        let path = if name.contains('/') { name.to_owned() } else { format!("shop/{name}") };
        format!("arn:{}:personalize:{}:{}:dataset/{path}", self.partition(), self.region(), self.id())
    }

    /// The same dataset in another region.
    pub(super) fn dataset_abroad(self, name: &str) -> String {
        self.dataset(name).replace(self.region(), self.other_region())
    }

    pub(super) fn import(self, name: &str, dataset: &str) -> Value {
        self.import_into(name, &self.dataset(dataset))
    }

    pub(super) fn import_into(self, name: &str, dataset_arn: &str) -> Value {
        TestEnv::manifest(name, "", json!({"datasetArn": dataset_arn, "roleArn": self.role("Reader")}))
    }
}

/// An environment with these accounts behind an STS. The roles `Importer`, `Successor` and `Abroad` of each demand an
/// external ID.
pub(super) fn env_with(accounts: &[Account]) -> (Moto, TestEnv) {
    let moto = Moto::start();
    let dataset = |account: &Account| {
        let own = ["d0", "d1", "vault/d0", "mallory/d0"].map(|name| account.dataset(name));
        own.into_iter()
            .chain([account.dataset_abroad("d0")])
            .map(|arn| json!({"arn": arn, "type": "Interactions", "schema": SCHEMA}))
    };
    let external_ids = |account: &Account| {
        let (account, id) = (*account, external_id(*account));
        let others = ["Successor", "Abroad"].map(|role| (account.role(role), format!("{role}-{id}")));
        others.into_iter().chain([(account.role("Importer"), id)])
    };
    let external_ids: BTreeMap<String, String> = accounts.iter().flat_map(external_ids).collect();
    let own = json!({"id": ACCOUNT, "accessKeys": [{"id": ACCESS_KEY, "secret": SECRET_KEY}]});
    let seeded = accounts.iter().map(|account| json!({"id": account.id()})).chain([own]);
    let settings = json!({
        "accounts": seeded.collect::<Vec<_>>(),
        "datasets": accounts.iter().flat_map(dataset).collect::<Vec<Value>>(),
        "refusals": {"externalIds": external_ids},
    });
    let env = TestEnv::with_sts(shared_control_plane(), &settings, Some(&moto.url));
    (moto, env)
}

pub(super) fn external_id(account: Account) -> String {
    format!("id-{}", account.0)
}

pub(super) fn settings(account: Account) -> Value {
    json!({
        "roleArn": account.role("Importer"), "externalId": external_id(account),
        "sessionName": format!("session-{}", account.0), "sessionTags": {"team": format!("t{}", account.0)},
        "tagNamespace": account.0.is_multiple_of(2),
    })
}

/// Applies the ConfigMap with these settings of accounts.
pub(super) fn configure(env: &TestEnv, accounts: impl IntoIterator<Item = (Account, Value)>) {
    let accounts: BTreeMap<String, Value> = accounts.into_iter().map(|(a, settings)| (a.id(), settings)).collect();
    apply_document(env, &json!({"accounts": accounts}).to_string());
}

fn apply_document(env: &TestEnv, document: &str) {
    env.apply(&json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "accounts"}, "data": {"accounts.yaml": document},
    }));
}

pub(super) fn start(env: &TestEnv, flags: &[&str]) -> OperatorProcess {
    env.start_operator_with(&[("AWS_ENDPOINT_URL_STS", &sts(env))], &[&[CONFIG_MAP], flags].concat())
}

fn sts(env: &TestEnv) -> String {
    format!("{}/_local/sts", env.service.url())
}

pub(super) fn annotate_namespace(env: &TestEnv, namespace: &str, annotation: &str) {
    let annotated = env.kubectl(&["annotate", "--overwrite", "namespace", namespace, annotation]);
    assert!(annotated.status.success(), "{}", text(&annotated));
}

fn calls_for(env: &TestEnv, account: Account) -> Vec<Value> {
    env.service.ledger().into_iter().filter(|call| call["account"] == account.id()).collect()
}

/// The notes of the events about the ConfigMap.
fn config_map_events(env: &TestEnv) -> String {
    events(env, "involvedObject.kind=ConfigMap,involvedObject.name=accounts")
}

/// The notes of the events about an import.
fn import_events(env: &TestEnv, name: &str) -> String {
    events(env, &format!("involvedObject.kind=DatasetImportJob,involvedObject.name={name}"))
}

fn events(env: &TestEnv, selector: &str) -> String {
    let args = [
        "get",
        "events",
        "--field-selector",
        selector,
        "-o",
        "jsonpath={range .items[*]}{.reason}: {.message}{\"\\n\"}{end}",
    ];
    text(&env.kubectl(&args))
}

fn is_valid(operator: &OperatorProcess) -> bool {
    operator.metrics().contains("personalize_operator_accounts_config_valid 1")
}

#[test]
fn fault_114_wrong_external_id_and_throttled_account_delay_no_other() {
    let accounts: Vec<Account> = (0..50).map(Account).collect();
    let (_moto, env) = env_with(&accounts);
    let (wrong, throttled) = (Account(0), Account(1));
    let wrong_settings = {
        let mut settings = settings(wrong);
        settings["externalId"] = json!("another");
        settings
    };
    let others = || accounts[1..].iter().map(|account| (*account, settings(*account)));
    configure(&env, others().chain([(wrong, wrong_settings)]));
    let refusal = error("ThrottlingException", "Rate exceeded", 400);
    env.service.inject_fault(&json!({"account": throttled.id(), "count": 0, "action": refusal}));
    let denied = Account(2);
    let denial = error("AccessDeniedException", "injected", 400);
    env.service.inject_fault(&json!({"account": denied.id(), "operation": CREATE, "action": denial}));
    // An account that waits for another one would wait for minutes.
    let backoff = Duration::from_secs(280);
    let flags = ["--backoff-min=280s", "--backoff-max=280s", "--aws-timeout=60s", "--aws-read-timeout=60s"];
    let _operator = start(&env, &flags);
    let started = Instant::now();
    let imports: Vec<Value> = accounts.iter().map(|a| a.import(&format!("a{}", a.0), "d0")).collect();
    env.apply(&json!({"apiVersion": "v1", "kind": "List", "items": imports}));
    for account in &accounts[2..] {
        env.wait_for_reason(&format!("a{}", account.0), "ImportSucceeded");
    }
    assert!(started.elapsed() < backoff, "{:?}", started.elapsed());
    let denial = format!("injected (called with the role {})", denied.named("Importer"));
    eventually("an event names the denied role", || import_events(&env, "a2").contains(&denial).then_some(()));
    let (_, message) = ready_state(&env.wait_for_reason("a1", "Throttled"));
    let at = format!("for account {} in {}", throttled.id(), throttled.region());
    assert!(message.contains(&at) && message.contains(&throttled.role("Importer")), "{message}");
    assert!(calls_for(&env, throttled).len() <= 10, "{}", calls_for(&env, throttled).len());

    let message = env.wait_for_message("a0", "can't be assumed");
    assert!(
        message.contains(&format!("the role {}", wrong.named("Importer"))) && message.contains("external ID"),
        "{message}"
    );
    assert_eq!(calls_for(&env, wrong).len(), 0, "no call is made with other credentials");
    configure(&env, others().chain([(wrong, settings(wrong))]));
    let changed = Timestamp::now();
    env.wait_for_reason("a0", "ImportSucceeded");
    let first = time(&calls_for(&env, wrong)[0]);
    assert!(first.duration_since(changed).as_secs() < 30, "changed at {changed}, first call at {first}");

    for account in &accounts {
        let calls = calls_for(&env, *account);
        let mut tags = json!({"team": format!("t{}", account.0)});
        if account.0.is_multiple_of(2) {
            tags[NAMESPACE_TAG] = json!(env.namespace);
        }
        let expected = (account.session("Importer", &format!("session-{}", account.0)), tags);
        for call in &calls {
            let signed = (call["caller"].as_str().unwrap().to_owned(), call["sessionTags"].clone());
            assert_eq!((signed, call["region"].as_str().unwrap()), (expected.clone(), account.region()), "{call}");
        }
    }
    env.check_invariants();
}

/// When the service got a call.
pub(super) fn time(call: &Value) -> Timestamp {
    call["time"].as_str().unwrap().parse().unwrap()
}

#[test]
fn fault_114_wrong_external_id_expired_session_and_throttling_delay_no_poll_of_another_account() {
    // The polls of jobs are regular.
    let interval = Duration::from_secs(6);
    let accounts: Vec<Account> = (0..50).map(Account).collect();
    let (_moto, env) = env_with(&accounts);
    let (wrong, throttled, expired) = (Account(0), Account(1), Account(2));
    configure(&env, accounts.iter().map(|account| (*account, settings(*account))));
    env.service.set_durations(1, 6_000_000);
    let flags = ["--poll-min=6s", "--poll-max=6s", "--aws-timeout=60s", "--aws-read-timeout=60s"];
    let _operator = start(&env, &flags);
    let apply_imports = |accounts: &[Account], prefix: &str, dataset: &str| {
        let imports: Vec<Value> = accounts.iter().map(|a| a.import(&format!("{prefix}{}", a.0), dataset)).collect();
        env.apply(&json!({"apiVersion": "v1", "kind": "List", "items": imports}));
    };
    apply_imports(&accounts, "a", "d0");
    for account in &accounts {
        env.wait_for_reason(&format!("a{}", account.0), "Importing");
    }

    let begin = Timestamp::now();
    let mut wrong_settings = settings(wrong);
    wrong_settings["externalId"] = json!("another");
    configure(&env, accounts[1..].iter().map(|a| (*a, settings(*a))).chain([(wrong, wrong_settings)]));
    let refusal = error("ThrottlingException", "Rate exceeded", 400);
    env.service.inject_fault(&json!({"account": throttled.id(), "count": 0, "action": refusal}));
    env.service.expire_sessions(&expired.id());
    // In each of the three accounts one job runs, and another import is submitted.
    apply_imports(&accounts[..3], "b", "d1");
    env.wait_for_message("a0", "can't be assumed");
    let at = format!("throttling requests for account {} in {}", throttled.id(), throttled.region());
    let message = env.wait_for_message("a1", &at);
    assert!(message.contains(&throttled.role("Importer")), "{message}");
    env.wait_for_reason("b0", "CredentialsRefused");
    env.wait_for_reason("b1", "Throttled");
    env.wait_for_reason("b2", "Importing");
    let staged = Timestamp::now();
    let is_poll = |call: &Value, account: &Account| call["operation"] == DESCRIBE && call["account"] == account.id();
    let polls_of = |ledger: &[Value], account: &Account| -> Vec<Timestamp> {
        ledger.iter().filter(|call| is_poll(call, account)).map(time).collect()
    };
    eventually("each job is polled four times since then", || {
        let ledger = env.service.ledger();
        let is_polled = |account| polls_of(&ledger, account).iter().filter(|at| **at > staged).count() >= 4;
        accounts[3..].iter().all(is_polled).then_some(())
    });
    let (ledger, end) = (env.service.ledger(), Timestamp::now());
    for account in &accounts[3..] {
        let mut polls = polls_of(&ledger, account);
        polls.push(end);
        let gaps = polls.windows(2).filter(|pair| pair[1] > begin);
        let longest = gaps.map(|pair| pair[1].duration_since(pair[0]).unsigned_abs()).max().unwrap();
        assert!(longest <= 2 * interval, "{longest:?} between two polls in {}: {polls:?}", account.id());
    }
    let is_expired = |call: &&Value| call["errorCode"] == "ExpiredTokenException";
    assert!(ledger.iter().any(|call| is_expired(&call)), "a session has expired");
    let is_throttled = |call: &&Value| call["account"] == throttled.id() && time(call) > begin;
    assert!(ledger.iter().any(|call| is_throttled(&call)), "an account is throttled");

    env.service.clear_faults();
    configure(&env, accounts.iter().map(|account| (*account, settings(*account))));
    env.service.set_durations(1, 1);
    let names = (0..50).map(|i| format!("a{i}")).chain((0..3).map(|i| format!("b{i}")));
    names.for_each(|name| drop(env.wait_for_reason(&name, "ImportSucceeded")));
    assert_eq!(env.accepted_count(), 53);
    env.check_invariants_settled();
}

#[test]
fn fault_115_session_that_expires_early_is_renewed() {
    let (expires, other) = (Account(3), Account(4));
    let (_moto, env) = env_with(&[expires, other]);
    configure(&env, [expires, other].map(|account| (account, settings(account))));
    env.service.set_durations(1, 600_000);
    let _operator = start(&env, &[]);
    env.apply(&expires.import("expires", "d0"));
    env.apply(&other.import("other", "d0"));
    env.wait_for_reason("expires", "Importing");
    env.wait_for_reason("other", "Importing");
    env.service.expire_sessions(&expires.id());
    // The service knows no account of a call with an expired session.
    let is_expired = |call: &Value| call["errorCode"] == "ExpiredTokenException";
    eventually("polls succeed again", || {
        let ledger = env.service.ledger();
        let last = ledger.iter().rposition(is_expired)?;
        (ledger[last..].iter().filter(|call| call["account"] == expires.id()).count() > 2).then_some(())
    });
    let refused = format!("the session of the role {} is refused (ExpiredTokenException)", expires.named("Importer"));
    eventually("an event names the refused session", || {
        import_events(&env, "expires").contains(&refused).then_some(())
    });
    assert!(!import_events(&env, "other").contains("is refused"), "{}", import_events(&env, "other"));
    env.service.set_durations(1, 1);
    env.wait_for_reason("expires", "ImportSucceeded");
    env.wait_for_reason("other", "ImportSucceeded");
    let expired = env.service.ledger().into_iter().filter(is_expired).collect::<Vec<_>>();
    assert!(expired.len() <= 2 && expired.iter().all(|call| call["arn"].as_str().unwrap().contains(&expires.id())));
    assert_eq!(env.accepted_count(), 2);
    env.check_invariants_settled();
}

#[test]
fn fault_116_invalid_configuration_is_refused_by_name_and_the_last_valid_one_stays_active() {
    let (good, bad) = (Account(3), Account(6));
    let (_moto, env) = env_with(&[good, bad]);
    configure(&env, [(good, settings(good))]);
    // A refusal and a correction act at once.
    let operator = start(&env, &["--rejected-min=1h", "--rejected-max=1h"]);
    assert!(is_valid(&operator));
    env.apply(&bad.import("bad", "d0"));
    env.wait_for_message("bad", "no role is configured");
    let named = format!("the ConfigMap {}/accounts is refused", env.namespace);
    let refused = |document: &str, expected: &str| {
        apply_document(&env, document);
        eventually(&format!("an event has {expected:?}"), || config_map_events(&env).contains(expected).then_some(()));
        assert!(!is_valid(&operator) && operator.log().contains("is refused"), "{document}");
        let message = env.wait_for_message("bad", expected);
        assert!(message.contains(&named) && message.contains("no role is configured"), "{message}");
        env.wait_for_reason("bad", "AccessDenied");
    };
    let id = bad.id();
    refused(&format!("accounts: {{'{id}': {{roleArm: x}}}}"), &format!("accounts.{id}: unknown field `roleArm`"));
    refused(&format!("accounts:\n  '{id}': {{}}\n  '{id}': {{}}\n"), &format!("{id} is given twice"));
    let malformed = format!("accounts.{id}.roleArn: \"Importer\" must be the ARN of a role of this account");
    refused(&format!("accounts: {{'{id}': {{roleArn: Importer}}}}"), &malformed);

    env.apply(&good.import("good", "d0"));
    env.wait_for_reason("good", "ImportSucceeded");

    configure(&env, [good, bad].map(|account| (account, settings(account))));
    env.wait_for_reason("bad", "ImportSucceeded");
    assert!(is_valid(&operator) && config_map_events(&env).contains("AccountsActive"));
    env.check_invariants_settled();
}

#[test]
fn fault_117_editor_of_one_namespace_gets_no_call_under_the_role_of_another() {
    let (account, foreign) = (Account(3), Account(6));
    let (_moto, mut env) = env_with(&[account, foreign]);
    let (mallory, guest) = (env.add_tenant("mallory"), env.add_tenant("guest"));
    let tagged = |account: Account| json!({"roleArn": account.role("Importer"), "externalId": external_id(account), "tagNamespace": true});
    configure(&env, [account, foreign].map(|account| (account, tagged(account))));
    annotate_namespace(&env, &env.namespace, &format!("{ASSUME_ROLE}={}", account.role("Victim")));
    annotate_namespace(&env, &mallory, &format!("{ASSUME_ROLE}={}", account.role("Mallory")));
    annotate_namespace(&env, &guest, &format!("{ASSUME_ROLE}={}", foreign.role("Guest")));
    env.service.set_durations(1, 600_000);
    let _operator = start(&env, &[]);
    env.apply(&account.import("nightly", "d0"));
    env.apply(&account.import("private", "vault/d0"));
    env.wait_for_reason("nightly", "Importing");
    env.wait_for_reason("private", "Importing");

    let as_mallory = user_of(&env, &mallory);
    let own = format!("{ASSUME_ROLE}={}", account.role("Victim"));
    let denied = as_mallory(&["annotate", "--overwrite", "namespace", &mallory, &own], None);
    assert!(!denied.status.success() && text(&denied).contains("orbidden"), "{}", text(&denied));
    let jobs = ["nightly", "private"].map(|name| env.status(name).job_name.unwrap());
    // The same name, the victim's dataset, an adoption, and a role on the resource.
    let own = account.import("own", "mallory/d0");
    let mut attacks = vec![account.import("nightly", "d0"), own, foreign.import("away", "d0")];
    for attack in &mut attacks {
        attack["metadata"]["annotations"] =
            json!({ASSUME_ROLE: account.role("Victim"), "personalize-operator.io/adopt": "true"});
    }
    attacks.push({
        let mut taken = account.import("taken", "mallory/d0");
        taken["spec"]["jobName"] = json!("mallory-job");
        taken
    });
    let list = json!({"apiVersion": "v1", "kind": "List", "items": attacks}).to_string();
    let applied = as_mallory(&["apply"], Some(&list));
    assert!(applied.status.success(), "{}", text(&applied));
    let in_namespace = |namespace: &str, name: &str, path: &str| {
        let args = ["-n", namespace, "get", "dij", name, "-o", &format!("jsonpath={path}")];
        text(&env.control_plane.kubectl(&args, None).unwrap())
    };
    let ready =
        |namespace: &str, name: &str| in_namespace(namespace, name, "{.status.conditions[?(@.type=='Ready')].reason}");
    eventually("mallory's own import runs", || (ready(&mallory, "own") == "Importing").then_some(()));
    eventually("mallory may not import elsewhere", || (ready(&mallory, "away") == "NotPermitted").then_some(()));
    eventually("the victim's dataset is in use", || (ready(&mallory, "nightly") == "Queued").then_some(()));
    let guest_import = account.import("visit", "d1").to_string();
    let applied = env.control_plane.kubectl(&["-n", &guest, "apply", "-f", "-"], Some(&guest_import)).unwrap();
    assert!(applied.status.success(), "{}", text(&applied));
    eventually("a guest may not import there", || (ready(&guest, "visit") == "NotPermitted").then_some(()));
    let message = in_namespace(&guest, "visit", "{.status.conditions[?(@.type=='Ready')].message}");
    assert!(message.contains(ASSUME_ROLE) && message.contains(&account.id()), "{message}");

    // Her job is followed under her role even after the resource is deleted.
    let deleted = as_mallory(&["delete", "dij", "own"], None);
    assert!(deleted.status.success(), "{}", text(&deleted));
    let polls = || {
        let ledger = env.service.ledger();
        ledger.iter().filter(|call| call["jobName"].as_str().is_some_and(|name| name.starts_with("own-"))).count()
    };
    let before = polls();
    eventually("the job is polled", || (polls() > before).then_some(()));
    env.service.set_durations(1, 1);
    env.wait_for_reason("nightly", "ImportSucceeded");
    env.wait_for_reason("private", "ImportSucceeded");
    eventually("mallory's next import ends", || (ready(&mallory, "nightly") == "ImportSucceeded").then_some(()));
    eventually("her last one ends", || (ready(&mallory, "taken") == "ImportSucceeded").then_some(()));

    let ledger = env.service.ledger();
    let mut of_dataset = BTreeMap::<(&str, &str), usize>::new();
    for call in &ledger {
        let role = match call["sessionTags"][NAMESPACE_TAG].as_str().unwrap_or_default() {
            namespace if namespace == env.namespace => "Victim",
            namespace if namespace == mallory => "Mallory",
            _ => panic!("{call}"),
        };
        assert_eq!(call["caller"], account.session(role, "personalize-operator"), "{call}");
        // Who makes it follows from the job, or from the dataset or its group, that only one of them uses.
        let is_hers = |name: &str| name.starts_with("own-") || name == "mallory-job" || name.starts_with("taken");
        let job = call["jobName"].as_str().unwrap_or_default();
        let about = ["datasetArn", "arn"].map(|key| call[key].as_str().unwrap_or_default()).join(" ");
        let expected = if jobs[0] == job && call["operation"] == CREATE || jobs[1] == job || about.contains("/vault") {
            Some("Victim")
        } else if is_hers(job) || about.contains("/mallory") {
            Some("Mallory")
        } else {
            None
        };
        assert!(expected.is_none_or(|expected| expected == role), "only {expected:?} may make the call {call}");
        if let (Some(expected), "") = (expected, job) {
            *of_dataset.entry((expected, call["operation"].as_str().unwrap())).or_default() += 1;
        }
    }
    for operation in ["DescribeDataset", "ListDatasetImportJobs", "ListDataDeletionJobs"] {
        for role in ["Victim", "Mallory"] {
            assert!(of_dataset.contains_key(&(role, operation)), "{role} calls {operation}: {of_dataset:?}");
        }
    }
    env.check_invariants();
}

/// Runs kubectl as a user who may edit in this namespace, and nothing else.
fn user_of<'a>(env: &'a TestEnv, namespace: &'a str) -> impl Fn(&[&str], Option<&str>) -> Output + 'a {
    let (user, kubeconfig) = (format!("user-{namespace}"), env.dir().join("user.kubeconfig"));
    env.control_plane.kubeconfig_for(&user, &[], &kubeconfig).unwrap();
    let verbs = "--verb=get,list,watch,create,update,patch,delete";
    let user_flag = format!("--user={user}");
    for args in [
        vec!["create", "role", "dij-edit", verbs, "--resource=datasetimportjobs.personalize-operator.io"],
        vec!["create", "rolebinding", "dij-edit", "--role=dij-edit", &user_flag],
        vec!["create", "rolebinding", "edit", "--clusterrole=edit", &user_flag],
    ] {
        let args: Vec<&str> = ["-n", namespace].into_iter().chain(args).collect();
        let made = env.control_plane.kubectl(&args, None).unwrap();
        assert!(made.status.success(), "{}", text(&made));
    }
    let run = move |args: &[&str], input: Option<&str>| {
        let mut command = Command::new(control_plane::path_of("kubectl").unwrap());
        command.env("KUBECONFIG", &kubeconfig).env("KUBECACHEDIR", env.dir().join("kube-cache"));
        command.args(["-n", namespace]).args(args);
        if let Some(input) = input {
            let file = env.dir().join("user.json");
            fs::write(&file, input).unwrap();
            command.arg("-f").arg(file);
        }
        command.output().unwrap()
    };
    eventually("the roles apply", || run(&["get", "dij"], None).status.success().then_some(()));
    run
}

#[test]
fn fault_118_role_changed_while_the_watch_is_silent_counts_for_the_create() {
    let account = Account(3);
    let (_moto, env) = env_with(&[account]);
    configure(&env, []);
    let assume =
        |role: &str| annotate_namespace(&env, &env.namespace, &format!("{ASSUME_ROLE}={}", account.role(role)));
    assume("Former");
    let proxy = env.start_proxy();
    proxy.inject(|call| if call.label == "WATCH namespaces" { Fault::HangBody } else { Fault::None });
    let vars = [("AWS_ENDPOINT_URL_STS", sts(&env))];
    let vars = vars.each_ref().map(|(name, value)| (*name, value.as_str()));
    let _operator = env.spawn_operator_behind_with(&proxy, &vars, &[CONFIG_MAP, "--watch-timeout=200s"]);
    eventually("the Namespaces are watched", || (proxy.count("WATCH namespaces") > 0).then_some(()));
    assume("Current");
    env.apply(&account.import("nightly", "d0"));
    env.wait_for_reason("nightly", "ImportSucceeded");
    let creates: Vec<Value> = calls_for(&env, account).into_iter().filter(|call| call["operation"] == CREATE).collect();
    let callers: Vec<&Value> = creates.iter().map(|call| &call["caller"]).collect();
    assert_eq!(callers, [&json!(account.session("Current", "personalize-operator"))]);
    env.check_invariants_settled();
}

#[test]
fn fault_119_config_map_that_is_missing_at_the_start_stops_all_calls_until_it_exists() {
    let account = Account(3);
    let (_moto, env) = env_with(&[account]);
    let operator = start(&env, &["--backoff-min=280s", "--backoff-max=280s"]);
    env.apply(&account.import("nightly", "d0"));
    env.wait_for_reason("nightly", "CredentialsRefused");
    let message = env.wait_for_message("nightly", "it does not exist");
    assert!(message.contains(&format!("the ConfigMap {}/accounts", env.namespace)), "{message}");
    assert_eq!(env.service.ledger().len(), 0, "no call is made with other credentials");
    assert!(!is_valid(&operator));
    configure(&env, [(account, settings(account))]);
    env.wait_for_reason("nightly", "ImportSucceeded");
    assert!(is_valid(&operator));
    // Without it the last configuration stays active.
    let deleted = env.kubectl(&["delete", "configmap", "accounts"]);
    assert!(deleted.status.success(), "{}", text(&deleted));
    eventually("the metric says so", || (!is_valid(&operator)).then_some(()));
    env.apply(&account.import("next", "d1"));
    env.wait_for_reason("next", "ImportSucceeded");
    env.check_invariants_settled();
}

#[test]
fn default_tags_label_every_job_and_change_nothing_else() {
    let account = Account(3);
    let (_moto, env) = env_with(&[account]);
    let configure = |owner: &str| {
        let accounts = json!({account.id(): settings(account)});
        apply_document(
            &env,
            &json!({"accounts": accounts, "defaultTags": {"owner": owner, "team": "default"}}).to_string(),
        );
    };
    configure("first");
    let operator = start(&env, &[]);
    let mut import = account.import("nightly", "d0");
    import["spec"]["tags"] = json!([{"tagKey": "team", "tagValue": "shop"}]);
    env.apply(&import);
    env.wait_for_reason("nightly", "ImportSucceeded");
    let value = |key: &str| {
        let jobs = env.service.jobs();
        let tags = jobs[0]["tags"].as_array().unwrap();
        let values: Vec<Value> =
            tags.iter().filter(|tag| tag["tagKey"] == key).map(|tag| tag["tagValue"].clone()).collect();
        values
    };
    assert_eq!((value("team"), value("owner")), (vec![json!("shop")], vec![json!("first")]));
    // The job still belongs to the resource when the defaults are others.
    configure("second");
    eventually("the change is active", || {
        (operator.log().matches("the configuration of accounts is active").count() >= 2).then_some(())
    });
    env.delete("nightly");
    env.apply(&import);
    env.wait_for_reason("nightly", "ImportSucceeded");
    assert_eq!((env.accepted_count(), value("owner")), (1, vec![json!("first")]));
    env.check_invariants_settled();
}
