//! Namespaces with roles of their own.

use super::{
    ASSUME_ROLE, Account, CONFIG_MAP, NAMESPACE_TAG, annotate_namespace, calls_for, configure, env_with, external_id,
    start, sts,
};
use crate::env::proxy::Fault;
use crate::env::{TestEnv, eventually, text};
use crate::faults::CREATE;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Output};

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

    // Her job is followed under her role even after her Namespace is deleted.
    env.service.set_durations(1, 600_000);
    let last = account.import("own-last", "mallory/d0").to_string();
    let applied = as_mallory(&["apply"], Some(&last));
    assert!(applied.status.success(), "{}", text(&applied));
    eventually("her new import runs", || (ready(&mallory, "own-last") == "Importing").then_some(()));
    let deleted = env.control_plane.kubectl(&["delete", "namespace", &mallory], None).unwrap();
    assert!(deleted.status.success(), "{}", text(&deleted));
    let before = polls();
    eventually("the job is polled", || (polls() > before + 1).then_some(()));

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
