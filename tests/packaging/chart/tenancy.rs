//! The chart's ValidatingAdmissionPolicy: it enforces the operator's rule at admission.

use super::helm::{of_kind, read, resources};
use crate::env::{TestEnv, eventually, shared_control_plane, text};
use personalize_operator::api::DatasetImportJobSpec;
use personalize_operator::controller::namespace_policy::{
    ALLOWED_DATA_LOCATIONS, ALLOWED_DATASET_ARNS, ALLOWED_ROLE_ARNS, DefaultPolicy, PATTERN_CHARACTERS, denial,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::{Command, Output};

/// Installs the policy for namespaces with this label, and waits until it is effective.
fn policy(name: &str, unlisted: &str) {
    let selector = json!({"matchLabels": {"tenancy-test": name}});
    let values = json!({
        "fullnameOverride": name,
        "tenancy": {"unlisted": unlisted, "admissionPolicy": {"namespaceSelector": selector}},
    });
    let rendered = resources(&values);
    let kinds = ["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"];
    let list: Vec<&Value> = kinds.into_iter().flat_map(|kind| of_kind(&rendered, kind)).collect();
    let roles: Vec<&Value> =
        of_kind(&rendered, "ClusterRole").into_iter().filter(|r| r["metadata"]["name"] != name).collect();
    assert_eq!((list.len(), roles.len()), (2, 2));
    let applied = kubectl(&["apply", "-f", "-"], &[list, roles].concat());
    assert!(applied.status.success(), "{}", text(&applied));
    let policy = format!("{name}-tenancy");
    let status = eventually("the policy's types are checked", || {
        let got =
            shared_control_plane().kubectl(&["get", "validatingadmissionpolicy", &policy, "-o", "json"], None).unwrap();
        let got: Value = serde_json::from_slice(&got.stdout).unwrap();
        (got["status"]["observedGeneration"] == got["metadata"]["generation"]).then(|| got["status"].clone())
    });
    assert!(status["typeChecking"]["expressionWarnings"].is_null(), "{status}");
    // A namespace without any permission shows when the policy is effective.
    let probe = namespace(&format!("{name}-probe"), name, &[(ALLOWED_ROLE_ARNS, "none")]);
    create_namespaces(std::slice::from_ref(&probe));
    let import = import_in(&probe, TestEnv::manifest("probe", "d0", json!({})));
    eventually("the policy is effective", || {
        let tried = kubectl(&DRY_RUN, &[&import]);
        text(&tried).contains("is not permitted in this namespace").then_some(())
    });
}

const DRY_RUN: [&str; 4] = ["create", "--dry-run=server", "-f", "-"];

/// Runs kubectl once for all of these objects, because it starts slowly.
fn kubectl(args: &[&str], objects: &[&Value]) -> Output {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    shared_control_plane().kubectl(args, Some(&list.to_string())).unwrap()
}

fn namespace(name: &str, label: &str, annotations: &[(&str, &str)]) -> Value {
    let annotations: BTreeMap<_, _> = annotations.iter().copied().collect();
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {
        "name": format!("{name}-{}", std::process::id()),
        "labels": {"tenancy-test": label},
        "annotations": annotations,
    }})
}

fn create_namespaces(namespaces: &[Value]) {
    let created = kubectl(&["create", "-f", "-"], &namespaces.iter().collect::<Vec<_>>());
    assert!(created.status.success(), "{}", text(&created));
}

/// Creates a namespace and returns its name.
fn create_namespace(name: &str, annotations: &[(&str, &str)]) -> String {
    let namespace = namespace(name, name, annotations);
    create_namespaces(std::slice::from_ref(&namespace));
    namespace["metadata"]["name"].as_str().unwrap().to_owned()
}

fn import_in(namespace: &Value, mut import: Value) -> Value {
    import["metadata"]["namespace"] = namespace["metadata"]["name"].clone();
    import
}

#[test]
fn admission_policy_and_operator_make_the_same_decision() {
    policy("open", "Open");
    policy("closed", "Closed");
    let datasets = ["d0", "d00", "d-1.x", "D0", "a/b/c"].map(|name| json!({"datasetArn": arn(name)}));
    let locations =
        ["s3://bucket/a.csv", "s3://bucket/", "s3://bucket2/a.csv", "https://bucket/a b(c).csv", "s3://büro/ä.csv"]
            .map(|location| json!({"dataSource": {"dataLocation": location}}));
    let roles = ["Reader", "path/Reader", "Read+er,=@x"]
        .map(|role| json!({"roleArn": format!("arn:aws:iam::123456789012:role/{role}")}));
    let edits: Vec<Value> = [datasets.as_slice(), &locations, &roles].concat();
    let many = (0..300).map(|i| arn(&format!("other{i}"))).chain([arn("d0")]).collect::<Vec<_>>().join("\n");
    let (exact, dotted) = (arn("d0"), arn("d-1.x"));
    let cases: Vec<Vec<(&str, &str)>> = vec![
        vec![],
        vec![(ALLOWED_DATASET_ARNS, "")],
        vec![(ALLOWED_DATASET_ARNS, &exact)],
        vec![(ALLOWED_DATASET_ARNS, "*")],
        vec![(ALLOWED_DATASET_ARNS, "arn:aws:personalize:*:dataset/shop/d*")],
        vec![(ALLOWED_DATASET_ARNS, "arn:aws:personalize:*:dataset/shop/d?")],
        vec![(ALLOWED_DATASET_ARNS, "arn:aws:personalize:.*")],
        vec![(ALLOWED_DATASET_ARNS, "nothing, \t*/D0\n,,")],
        vec![(ALLOWED_DATASET_ARNS, "nothing\u{b}*")],
        vec![(ALLOWED_DATASET_ARNS, "nothing\u{a0}*")],
        vec![(ALLOWED_DATASET_ARNS, &dotted)],
        vec![(ALLOWED_DATASET_ARNS, "*d-1*x")],
        vec![(ALLOWED_DATASET_ARNS, "*/d(0)")],
        vec![(ALLOWED_DATASET_ARNS, "(?i)*d0")],
        vec![(ALLOWED_DATASET_ARNS, &many)],
        vec![(ALLOWED_DATA_LOCATIONS, "s3://bucket/*")],
        vec![(ALLOWED_DATA_LOCATIONS, "s3://bucket")],
        vec![(ALLOWED_DATA_LOCATIONS, "https://*b*.csv,*/ä.csv")],
        vec![(ALLOWED_DATA_LOCATIONS, "s3://b*")],
        vec![(ALLOWED_ROLE_ARNS, "arn:aws:iam::123456789012:role/Reader")],
        vec![(ALLOWED_ROLE_ARNS, "*role/Read+er,*=@x")],
        vec![(ALLOWED_ROLE_ARNS, "*"), (ALLOWED_DATASET_ARNS, "*d0*"), (ALLOWED_DATA_LOCATIONS, "s3://bucket/*")],
        vec![("personalize-operator.io/allowed-anything", "none")],
    ];
    for (label, unlisted) in [("open", DefaultPolicy::Allow), ("closed", DefaultPolicy::Deny)] {
        let namespaces: Vec<Value> =
            (0..).zip(&cases).map(|(number, case)| namespace(&format!("{label}-{number}"), label, case)).collect();
        create_namespaces(&namespaces);
        let imports: Vec<(&Vec<(&str, &str)>, Value)> = cases
            .iter()
            .zip(&namespaces)
            .flat_map(|(case, namespace)| edits.iter().map(move |edit| (case, namespace, edit)))
            .enumerate()
            .map(|(i, (case, namespace, edit))| {
                (case, import_in(namespace, TestEnv::manifest(&format!("v{i}"), "d0", edit.clone())))
            })
            .collect();
        let output = text(&kubectl(&DRY_RUN, &imports.iter().map(|(_, import)| import).collect::<Vec<_>>()));
        for (case, import) in &imports {
            let annotations = case.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            let spec: DatasetImportJobSpec = serde_json::from_value(import["spec"].clone()).unwrap();
            let name = import["metadata"]["name"].as_str().unwrap();
            let accepted = output.contains(&format!("/{name} created"));
            let rejected = output.contains(&format!("\"{name}\" is forbidden"));
            assert!(accepted != rejected, "{name} is either accepted or rejected: {output}");
            let denial = denial(&annotations, unlisted, &spec);
            assert_eq!(accepted, denial.is_none(), "{name} {unlisted:?} {case:?} {spec:?}: {denial:?}\n{output}");
        }
    }
}

fn arn(dataset: &str) -> String {
    crate::env::dataset_arn(dataset)
}

#[test]
fn policy_allows_the_pattern_characters_of_the_operator() {
    let template = read("charts/personalize-operator/templates/admission-policy.yaml");
    let set: String = template.split("^[a-zA-Z0-9").nth(1).unwrap().split("]+$").next().unwrap().to_owned();
    let sorted = |text: &str| {
        let mut all: Vec<char> = text.chars().collect();
        all.sort_unstable();
        all
    };
    assert_eq!(sorted(&set), sorted(PATTERN_CHARACTERS));
}

#[test]
fn built_in_roles_get_their_usual_rights_except_on_the_status() {
    policy("roles", "Open");
    let namespace = create_namespace("roles", &[]);
    for role in ["view", "edit", "admin"] {
        let user = format!("--user={role}-of-{namespace}");
        let bind = ["-n", &namespace, "create", "rolebinding", role, &format!("--clusterrole={role}"), &user];
        assert!(shared_control_plane().kubectl(&bind, None).unwrap().status.success());
    }
    let may = |role: &str, verb: &str, subresource: &str| {
        let (user, subresource) = (format!("--as={role}-of-{namespace}"), format!("--subresource={subresource}"));
        let resource = "datasetimportjobs.personalize-operator.io";
        let args = ["-n", &namespace, "auth", "can-i", verb, resource, &user, &subresource];
        shared_control_plane().kubectl(&args, None).unwrap().status.success()
    };
    for (role, edits) in [("view", false), ("edit", true), ("admin", true)] {
        eventually("the role can list", || may(role, "list", "").then_some(()));
        for verb in ["create", "update", "patch", "delete"] {
            if edits {
                eventually("the role can edit", || may(role, verb, "").then_some(()));
            } else {
                assert!(!may(role, verb, ""), "{role} {verb}");
            }
        }
        assert!(may(role, "get", "status"), "{role}");
        assert!(
            !may(role, "update", "status") && !may(role, "patch", "status"),
            "only the operator writes the status: {role}"
        );
    }
}

#[test]
fn namespace_editor_cannot_bypass_the_policy() {
    policy("edited", "Closed");
    let limits = [
        (ALLOWED_DATASET_ARNS, arn("d1")),
        (ALLOWED_ROLE_ARNS, "*".to_owned()),
        (ALLOWED_DATA_LOCATIONS, "s3://bucket/*".to_owned()),
    ];
    let limits: Vec<(&str, &str)> = limits.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let namespace = create_namespace("edited", &limits);
    let user = format!("dana-of-{namespace}");
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let kubeconfig = dir.path().join("kubeconfig");
    shared_control_plane().kubeconfig_for(&user, &["system:authenticated"], &kubeconfig).unwrap();
    let bind = ["-n", &namespace, "create", "rolebinding", "dana", "--clusterrole=edit", &format!("--user={user}")];
    assert!(shared_control_plane().kubectl(&bind, None).unwrap().status.success());
    let as_dana = |args: &[&str], input: &Value| {
        let file = dir.path().join("input.json");
        std::fs::write(&file, input.to_string()).unwrap();
        let mut command = Command::new(control_plane::path_of("kubectl").unwrap());
        command.env("KUBECONFIG", &kubeconfig).env("HOME", dir.path()).args(["-n", &namespace]).args(args);
        if !input.is_null() {
            command.arg("-f").arg(&file);
        }
        command.output().unwrap()
    };
    // An editor may import only because of the chart's aggregated role.
    let listed = TestEnv::manifest("listed", "d1", json!({}));
    eventually("an editor may import a listed dataset", || {
        as_dana(&["create"], &listed).status.success().then_some(())
    });

    let other = |edit: Value| TestEnv::manifest("other", "d1", edit);
    let elsewhere = json!({"datasetArn": arn("d2")});
    let data = json!({"dataSource": {"dataLocation": "s3://bucket2/x.csv"}});
    let mut annotated = other(elsewhere.clone());
    annotated["metadata"]["annotations"] = json!({(ALLOWED_DATASET_ARNS): "*"});
    let mut generated = other(elsewhere.clone());
    generated["metadata"] = json!({"generateName": "other-"});
    let mut moved = TestEnv::manifest("listed", "d2", json!({}));
    let free = format!("{ALLOWED_DATASET_ARNS}=*");
    for (how, args, input, why) in [
        ("creates another import", vec!["create"], other(elsewhere.clone()), "does not list it"),
        ("imports other data", vec!["create"], other(data), "does not list it"),
        ("applies another import", vec!["apply"], other(elsewhere.clone()), "does not list it"),
        ("applies another import server-side", vec!["apply", "--server-side"], other(elsewhere), "does not list it"),
        ("annotates the resource", vec!["create"], annotated, "does not list it"),
        ("generates the name", vec!["create"], generated, "does not list it"),
        ("edits a listed import", vec!["apply"], moved.clone(), "immutable"),
        (
            "writes the status",
            vec![
                "patch",
                "dij",
                "listed",
                "--subresource=status",
                "--type=merge",
                "-p",
                "{\"status\":{\"status\":\"ACTIVE\"}}",
            ],
            Value::Null,
            "orbidden",
        ),
        ("replaces a listed import", vec!["replace", "--force"], moved.take(), "does not list it"),
        (
            "annotates the namespace",
            vec!["annotate", "--overwrite", "namespace", &namespace, &free],
            Value::Null,
            "orbidden",
        ),
        (
            "labels the namespace",
            vec!["label", "--overwrite", "namespace", &namespace, "tenancy-test=x"],
            Value::Null,
            "orbidden",
        ),
        ("deletes the policy", vec!["delete", "validatingadmissionpolicy", "edited-tenancy"], Value::Null, "orbidden"),
        (
            "deletes the binding",
            vec!["delete", "validatingadmissionpolicybinding", "edited-tenancy"],
            Value::Null,
            "orbidden",
        ),
    ] {
        let tried = as_dana(&args, &input);
        assert!(!tried.status.success() && text(&tried).contains(why), "{how}: {}", text(&tried));
    }
    let list = ["-n", &namespace, "get", "dij", "-o", "jsonpath={.items[*].spec.datasetArn}"];
    let imported = text(&shared_control_plane().kubectl(&list, None).unwrap());
    assert!(imported.split_whitespace().all(|dataset| dataset == arn("d1")), "{imported}");
}
