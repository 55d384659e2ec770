//! values.schema.json and the templates reject wrong values, and the operator accepts all others.

use super::helm::{merged, read, render};
use super::values::args;
use clap::Parser;
use k8s_openapi::api::apps::v1::DeploymentStrategy;
use k8s_openapi::api::core::v1::{Affinity, PodSecurityContext, SecurityContext};
use personalize_operator::cli::Cli;
use schemars::schema_for;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

fn schema() -> Value {
    serde_json::from_str(&read("charts/personalize-operator/values.schema.json")).unwrap()
}

#[test]
fn wrong_value_is_rejected_with_a_message_that_names_it() {
    for (values, words) in [
        (json!({"replica": 2}), ["replica", "not allowed"]),
        (json!({"image": {"tagg": "1"}}), ["/image", "tagg"]),
        (json!({"metrics": {"serviceMonitor": {"intervall": "1m"}}}), ["/metrics/serviceMonitor", "intervall"]),
        (json!({"replicas": "two"}), ["/replicas", "want integer"]),
        (json!({"image": {"digest": "latest"}}), ["/image/digest", "sha256"]),
        (json!({"imports": {"pollMin": 15}}), ["/imports/pollMin", "want string"]),
        (json!({"imports": {"pollMin": "15"}}), ["/imports/pollMin", "does not match pattern"]),
        (json!({"tenancy": {"unlisted": "Shut"}}), ["/tenancy/unlisted", "'Open', 'Closed'"]),
        (json!({"aws": {"accounts": {"12": "arn:aws:iam::123456789012:role/x"}}}), ["/aws/accounts", "12"]),
        (json!({"aws": {"accounts": {"123456789012": "x"}}}), ["/aws/accounts/123456789012", "arn:"]),
        (
            json!({"aws": {"accountsConfig": {"accounts": {"123456789012": {"role": "x"}}}}}),
            ["/aws/accountsConfig/accounts/123456789012", "role"],
        ),
        (json!({"watchNamespaces": ["Team_A"]}), ["/watchNamespaces/0", "does not match pattern"]),
        (json!({"port": 80}), ["/port", "want 1,024"]),
        (json!({"imagePullSecrets": ["name"]}), ["/imagePullSecrets/0", "want object"]),
        (json!({"extraArgs": ["verbose"]}), ["/extraArgs/0", "does not match pattern"]),
        (
            json!({"metrics": {"service": {"enabled": false}, "serviceMonitor": {"enabled": true}}}),
            ["metrics.serviceMonitor.enabled", "metrics.service.enabled"],
        ),
        (json!({"leaderElection": {"enabled": false}}), ["leaderElection.enabled", "Recreate"]),
        (
            json!({"leaderElection": {"enabled": false}, "replicas": 2, "strategy": {"type": "Recreate"}}),
            ["leaderElection.enabled", "replicas 1"],
        ),
        (json!({"securityContext": {"readonlyRootFilesystem": true}}), ["/securityContext", "readonlyRootFilesystem"]),
        (
            json!({"podSecurityContext": {"seccompProfile": {"typ": "x"}}}),
            ["/podSecurityContext/seccompProfile", "typ"],
        ),
        (json!({"strategy": {"rollingUpdate": {"maxsurge": 1}}}), ["/strategy/rollingUpdate", "maxsurge"]),
        (json!({"affinity": {"podAntiAffinity": {"required": []}}}), ["/affinity/podAntiAffinity", "required"]),
        (json!({"imports": {"pollMin": null}}), ["/imports", "missing property 'pollMin'"]),
        (json!({"aws": null}), ["missing property", "'aws'"]),
        (json!({"extraArgs": ["--identity=me"]}), ["extraArgs", "--identity: each pod uses its own name"]),
        (json!({"extraArgs": ["--accounts-config-map=a"]}), ["extraArgs", "aws.accountsConfig.existingConfigMap"]),
        (json!({"extraArgs": ["--listen=0.0.0.0:1"]}), ["extraArgs", "--listen: set port"]),
        (json!({"drainTimeout": "30s"}), ["drainTimeout", "terminationGracePeriodSeconds"]),
        (json!({"serviceAccount": {"create": false}}), ["serviceAccount.create=false", "serviceAccount.name"]),
        (json!({"fullnameOverride": "1st"}), ["begin with a digit", "fullnameOverride"]),
        (
            json!({"podDisruptionBudget": {"enabled": true, "maxUnavailable": ""}}),
            ["podDisruptionBudget needs", "minAvailable or maxUnavailable"],
        ),
        (
            json!({"podDisruptionBudget": {"enabled": true, "minAvailable": 1}}),
            ["minAvailable=1 and replicas=1", "no node can be drained"],
        ),
        (
            json!({"podDisruptionBudget": {"enabled": true, "minAvailable": "51%"}, "replicas": 2}),
            ["minAvailable=51% and replicas=2", "no node can be drained"],
        ),
        (
            json!({"podDisruptionBudget": {"enabled": true, "maxUnavailable": "0%"}}),
            ["maxUnavailable=0%", "no node can be drained"],
        ),
        (
            json!({"metrics": {"serviceMonitor": {"enabled": true}, "podMonitor": {"enabled": true}}}),
            ["metrics.podMonitor.enabled", "counted twice"],
        ),
    ] {
        let error = render(&values).expect_err(&values.to_string());
        assert!(words.iter().all(|word| error.contains(word)), "{values}: {error}");
    }
}

/// Definitions of durations in the schema: the name, a flag of that type, four valid extremes, and invalid values.
const DURATIONS: [(&str, &str, [&str; 4], &[&str]); 4] = [
    (
        "duration",
        "poll-min",
        ["1ms", "7999h9999m99999s999999999ms", "1h30m", "366m"],
        &["0s", "0h0m", "99999h", "10", "-1s", "5x"],
    ),
    ("leaseDuration", "lease-duration", ["1s", "3600s", "60m", "1h"], &["500ms", "1500ms", "3601s", "61m", "0s"]),
    ("watchTimeout", "watch-timeout", ["1s", "290s", "4m", "99s"], &["500ms", "291s", "5m", "10m", "0s"]),
    (
        "grace",
        "grace",
        ["2s", "7999h9999m99999s999999999ms", "1s1000ms", "1m"],
        &["0s", "1s", "1s999ms", "1999ms", "0h0m01s", "99999h", "10"],
    ),
];

/// The `turn`th extreme value wherever the schema sets a limit.
fn extreme(schema: &Value, turn: usize) -> Value {
    if let Some(name) = schema["$ref"].as_str() {
        let of = DURATIONS.iter().find(|(definition, ..)| name == format!("#/definitions/{definition}"));
        return of.map(|(_, _, valid, _)| valid[turn].into()).unwrap_or_default();
    }
    if let Some(of) = schema["enum"].as_array() {
        return of[turn % of.len()].clone();
    }
    if schema["type"] == "integer" {
        return schema[["minimum", "maximum"][turn % 2]].clone();
    }
    let properties = schema["properties"].as_object().into_iter().flatten();
    let known = properties.map(|(key, schema)| (key.clone(), extreme(schema, turn)));
    let known: Map<String, Value> = known.filter(|(_, value)| !value.is_null()).collect();
    if known.is_empty() { Value::Null } else { known.into() }
}

#[test]
fn operator_accepts_the_extreme_values_of_the_schema() {
    for turn in 0..4 {
        // The limit of drainTimeout is another value.
        let drain = ["1ms", "3599s"][turn % 2];
        let args = args(&merged(extreme(&schema(), turn), &json!({"drainTimeout": drain})));
        assert!(args.iter().any(|arg| arg == &format!("--watch-timeout={}", DURATIONS[2].2[turn])), "{args:?}");
        let parsed = Cli::try_parse_from(std::iter::once("x".to_owned()).chain(args));
        parsed.unwrap_or_else(|e| panic!("{turn}: {e}"));
    }
}

#[test]
fn schema_and_operator_reject_the_same_durations() {
    for (definition, flag, _, invalid) in DURATIONS {
        for value in invalid {
            assert!(Cli::try_parse_from(["x", "run", &format!("--{flag}={value}")]).is_err(), "--{flag}={value}");
            let values = match definition {
                "leaseDuration" => json!({"leaderElection": {"leaseDuration": value}}),
                "watchTimeout" => json!({"kubernetes": {"watchTimeout": value}}),
                "grace" => json!({"imports": {"grace": value}}),
                _ => json!({"imports": {"pollMin": value}}),
            };
            let error = render(&values).expect_err(value);
            assert!(error.contains("does not match pattern"), "{value}: {error}");
        }
    }
}

/// Null for each value that the schema does not require.
fn nulls(schema: &Value) -> Value {
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let properties = schema["properties"].as_object().into_iter().flatten();
    let chosen = properties.filter_map(|(key, schema)| match required.contains(&json!(key)) {
        false => Some((key.clone(), Value::Null)),
        true if schema["properties"].is_object() => Some((key.clone(), nulls(schema))),
        true => None,
    });
    chosen.collect::<Map<_, _>>().into()
}

#[test]
fn value_that_is_not_required_may_be_null() {
    let enabled = json!({"enabled": true});
    let all_enabled = json!({
        "networkPolicy": enabled, "podDisruptionBudget": enabled,
        "metrics": {"podMonitor": enabled, "prometheusRule": enabled, "dashboard": enabled},
    });
    let values = merged(nulls(&schema()), &all_enabled);
    for nullable in ["/podLabels", "/livenessProbe", "/commonLabels", "/aws/accounts", "/securityContext"] {
        assert_eq!(values.pointer(nullable), Some(&Value::Null), "{nullable}");
    }
    render(&values).unwrap_or_else(|e| panic!("{e}"));
}

/// Follows a reference into `$defs`.
fn resolved<'a>(field: &'a Value, all: &'a Value) -> &'a Value {
    let reference = |schema: &Value| schema["$ref"].as_str().map(str::to_owned);
    let of_list = |list: &str| field[list].as_array().into_iter().flatten().find_map(reference);
    let name = reference(field).or_else(|| of_list("allOf")).or_else(|| of_list("anyOf"));
    name.map_or(field, |name| &all[name.trim_start_matches("#/$defs/")])
}

/// Both schemas have the same fields, at every depth that the chart's schema describes.
fn assert_same_fields(path: &str, own: &Value, definitions: &Value, theirs: &Value, all: &Value) {
    let own = own["$ref"].as_str().map_or(own, |name| &definitions[name.trim_start_matches("#/definitions/")]);
    let Some(properties) = own["properties"].as_object() else { return };
    let fields = theirs["properties"].as_object().unwrap_or_else(|| panic!("{path}: {theirs}"));
    assert_eq!(properties.keys().collect::<BTreeSet<_>>(), fields.keys().collect::<BTreeSet<_>>(), "{path}");
    for (key, own) in properties {
        assert_same_fields(&format!("{path}.{key}"), own, definitions, resolved(&fields[key], all), all);
    }
}

#[test]
fn kubernetes_types_in_the_schema_have_the_fields_of_the_api() {
    let definitions = schema()["definitions"].take();
    for (name, theirs) in [
        ("podSecurityContext", schema_for!(PodSecurityContext)),
        ("securityContext", schema_for!(SecurityContext)),
        ("affinity", schema_for!(Affinity)),
        ("strategy", schema_for!(DeploymentStrategy)),
    ] {
        let theirs = theirs.to_value();
        assert!(definitions[name]["properties"].is_object(), "{name}");
        assert_same_fields(name, &definitions[name], &definitions, &theirs, &theirs["$defs"]);
    }
}
