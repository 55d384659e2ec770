//! values.yaml, its schema, its README and the operator's flags agree.

use super::helm::{compare, of_kind, read, resources};
use clap::{CommandFactory, Parser};
use personalize_operator::cli::{Cli, Command};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Write;

fn defaults() -> Value {
    serde_yaml::from_str(&read("charts/personalize-operator/values.yaml")).unwrap()
}

#[test]
fn schema_lists_exactly_the_values_of_values_yaml() {
    let schema: Value = serde_json::from_str(&read("charts/personalize-operator/values.schema.json")).unwrap();
    assert_schema_matches("", &defaults(), &schema, &schema["definitions"]);
}

fn assert_schema_matches(path: &str, values: &Value, schema: &Value, definitions: &Value) {
    let shared = schema["$ref"].as_str().map(|name| &definitions[name.trim_start_matches("#/definitions/")]);
    let schema = shared.unwrap_or(schema);
    let Some(properties) = schema["properties"].as_object() else { return };
    assert_eq!(schema["additionalProperties"], false, "{path} must reject unknown keys");
    let present: BTreeSet<_> = values.as_object().unwrap().keys().collect();
    // A Kubernetes type has fields without a default.
    let optional = |key: &str| ["successThreshold", "claims"].contains(&key) || shared.is_some();
    let known: BTreeSet<_> = properties.keys().filter(|key| present.contains(key) || !optional(key)).collect();
    assert_eq!(known, present, "the schema and values.yaml, at {path:?}");
    for (key, value) in values.as_object().unwrap() {
        assert_schema_matches(&format!("{path}/{key}"), value, &properties[key], definitions);
    }
}

/// Flags without a value in the chart: their defaults come from the pod.
const POD_FLAGS: [&str; 2] = ["identity", "lease-namespace"];

#[test]
fn each_flag_has_a_chart_value_with_the_same_default() {
    let values = json!({"watchNamespaces": ["a"], "aws": {"accounts": {"123456789012": "arn:aws:iam::123456789012:role/x"},
            "accountsConfig": {"existingConfigMap": "accounts"}}});
    let (plain, all) = (args(&json!({})), args(&values));
    for flag in Cli::command().find_subcommand("run").unwrap().get_arguments() {
        let Some(long) = flag.get_long().filter(|long| *long != "help" && !POD_FLAGS.contains(long)) else { continue };
        let value =
            |args: &[String]| args.iter().find_map(|arg| Some(arg.strip_prefix(&format!("--{long}="))?.to_owned()));
        assert!(value(&all).is_some(), "no value of the chart sets --{long}");
        let default = flag.get_default_values().first().map(|value| value.to_string_lossy().into_owned());
        // The chart derives the lease name from the release.
        if long != "lease-name" {
            assert_eq!(value(&plain), default, "the default of --{long}");
        }
    }
}

pub fn args(values: &Value) -> Vec<String> {
    let deployment = of_kind(&resources(values), "Deployment")[0].clone();
    let args = &deployment["spec"]["template"]["spec"]["containers"][0]["args"];
    args.as_array().unwrap().iter().map(|arg| arg.as_str().unwrap().to_owned()).collect()
}

#[test]
fn extra_argument_overrides_a_chart_value() {
    let args = args(&json!({"extraArgs": ["--poll-min=7s", "--log-format=text", "--max-in-flight=2"]}));
    let Command::Run(run) = Cli::try_parse_from(std::iter::once("x".to_owned()).chain(args)).unwrap().command else {
        panic!("the chart must start `run`");
    };
    assert_eq!((run.imports.poll_min, run.imports.max_in_flight), (std::time::Duration::from_secs(7), 2));
    assert_eq!(run.log_format, personalize_operator::cli::LogFormat::Text);
}

#[test]
fn off_without_quotation_marks_turns_the_check_of_the_data_off() {
    // Helm reads a plain `off` as `false`.
    for value in [json!("off"), json!(false)] {
        let args = args(&json!({"imports": {"preflight": value}}));
        assert!(args.contains(&"--preflight=off".to_owned()), "{args:?}");
    }
}

const README: &str = "\
# personalize-operator

The Helm chart of the operator for Amazon Personalize dataset imports. `make generate` writes this page; the table of
values comes from `values.yaml`.

    helm install personalize-operator charts/personalize-operator --namespace personalize-operator --create-namespace --wait
    helm test personalize-operator --namespace personalize-operator

The chart needs Kubernetes 1.31 or newer and Helm 3.17 or newer; its tests use Helm 4. The pods meet the restricted Pod
Security Standard.

## AWS credentials

IRSA: `--set serviceAccount.annotations.eks\\\\.amazonaws\\\\.com/role-arn=arn:aws:iam::123456789012:role/personalize-operator`.
EKS Pod Identity: associate the role with the ServiceAccount; no value is needed. Elsewhere: create a Secret with an access
key and set `aws.credentialsSecret.name`.

## Upgrading and uninstalling

The CustomResourceDefinition is part of the release, so `helm upgrade` also upgrades it. `helm uninstall` keeps it and all
`DatasetImportJob`s in the cluster, unless `crds.keep` is false. A later `helm install` with the same release name and
namespace takes it over. If the name or the namespace differs, or `kubectl apply` created the CustomResourceDefinition, add
`--take-ownership`.

## One team, one namespace

With `watchNamespaces` the operator gets a Role in each listed namespace and no ClusterRole. The CustomResourceDefinition is
still cluster-wide: if you may not install it, set `crds.enabled=false` and ask an administrator to install it.

## Many teams, one cluster

The annotations of a namespace limit its imports. `tenancy.unlisted` sets what namespaces without them may import:

| annotation | limits |
|---|---|
| `personalize-operator.io/allowed-dataset-arns` | `spec.datasetArn` |
| `personalize-operator.io/allowed-role-arns` | `spec.roleArn` |
| `personalize-operator.io/allowed-data-locations` | `spec.dataSource.dataLocation` |

Each annotation holds patterns, separated by commas or white space; `*` matches any run of characters, also an empty one.
Only users who may change Namespaces can set the annotations; the role `edit` can't. The API server rejects imports that they
don't allow (`tenancy.admissionPolicy.enabled`), and the operator never submits them. `docs/recipes/tenancy.md` is a
step-by-step guide.

## Values

| key | default | |
|---|---|---|
";

#[test]
fn readme_documents_each_value() {
    let mut text = README.to_owned();
    let defaults = defaults();
    let (mut path, mut comment): (Vec<(usize, String)>, Vec<String>) = Default::default();
    let mut documented = BTreeSet::new();
    for line in read("charts/personalize-operator/values.yaml").lines() {
        let indent = line.len() - line.trim_start().len();
        let line = line.trim_start();
        if let Some(text) = line.strip_prefix("# ") {
            comment.push(text.to_owned());
            continue;
        }
        let Some((key, _)) = line.split_once(':') else {
            comment.clear();
            continue;
        };
        path.retain(|(depth, _)| *depth < indent);
        path.push((indent, key.to_owned()));
        if !comment.is_empty() {
            let key = path.iter().map(|(_, key)| key.as_str()).collect::<Vec<_>>();
            let value = key.iter().fold(&defaults, |value, key| &value[*key]);
            let _ = writeln!(
                text,
                "| `{}` | `{}` | {} |",
                key.join("."),
                value.to_string().replace('|', "\\|"),
                comment.join(" ").replace('|', "\\|")
            );
            documented.insert(key.join("."));
        }
        comment.clear();
    }
    assert_documented("", &defaults, &documented);
    compare("charts/personalize-operator/README.md", &text);
}

/// A value, the value that contains it, or every value in it has a comment.
fn assert_documented(path: &str, value: &Value, documented: &BTreeSet<String>) {
    if documented.contains(path) {
        return;
    }
    let fields = value.as_object().filter(|fields| !fields.is_empty());
    let fields = fields.unwrap_or_else(|| panic!("{path} has no comment in values.yaml"));
    for (key, value) in fields {
        assert_documented(&if path.is_empty() { key.clone() } else { format!("{path}.{key}") }, value, documented);
    }
}
