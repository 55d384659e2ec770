//! Whether the API server accepts a resource: the CRD's schema without its CEL rules.

use crate::api::{DatasetImportJob, crd};
use regex::Regex;
use serde_json::Value;
use std::collections::HashSet;
use std::sync::LazyLock;

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let crd = crd();
    serde_json::to_value(crd.spec.versions[0].schema.as_ref().unwrap()).unwrap()["openAPIV3Schema"].clone()
});

/// The rules that the resource breaks.
pub(super) fn violations(resource: &DatasetImportJob) -> Vec<String> {
    let mut violations = Vec::new();
    check(&SCHEMA, &serde_json::to_value(resource).unwrap(), "", &mut violations);
    violations
}

fn check(schema: &Value, value: &Value, at: &str, violations: &mut Vec<String>) {
    for (keyword, rule) in schema.as_object().unwrap() {
        if !follows(keyword, rule, value, at, violations) {
            violations.push(format!("{at}: {value} against {keyword} {rule}"));
        }
    }
}

/// Whether the value follows this rule. Checks nested values too.
fn follows(keyword: &str, rule: &Value, value: &Value, at: &str, violations: &mut Vec<String>) -> bool {
    let length = || value.as_str().map(|text| u64::try_from(text.chars().count()).unwrap());
    match keyword {
        "type" => match rule.as_str().unwrap() {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_i64(),
            other => panic!("unknown type {other}"),
        },
        "properties" => {
            for (name, schema) in rule.as_object().unwrap() {
                if let Some(value) = value.get(name) {
                    check(schema, value, &format!("{at}.{name}"), violations);
                }
            }
            true
        }
        "items" => {
            for (i, value) in value.as_array().into_iter().flatten().enumerate() {
                check(rule, value, &format!("{at}[{i}]"), violations);
            }
            true
        }
        "required" => rule.as_array().unwrap().iter().all(|name| value.get(name.as_str().unwrap()).is_some()),
        "enum" => rule.as_array().unwrap().contains(value),
        "minLength" => length() >= rule.as_u64(),
        "maxLength" => length() <= rule.as_u64(),
        "minimum" => value.as_f64() >= rule.as_f64(),
        "maximum" => value.as_f64() <= rule.as_f64(),
        "maxItems" => value.as_array().map(|items| items.len() as u64) <= rule.as_u64(),
        "pattern" => Regex::new(rule.as_str().unwrap()).unwrap().is_match(value.as_str().unwrap_or_default()),
        "format" => match rule.as_str().unwrap() {
            "int32" => value.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
            "int64" => value.is_i64(),
            "date-time" => {
                static TIME: LazyLock<Regex> =
                    LazyLock::new(|| Regex::new(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$").unwrap());
                TIME.is_match(value.as_str().unwrap_or_default())
            }
            other => panic!("unknown format {other}"),
        },
        "x-kubernetes-list-map-keys" => {
            let key =
                |item: &Value| rule.as_array().unwrap().iter().map(|k| item[k.as_str().unwrap()].to_string()).collect();
            let keys: Vec<Vec<String>> = value.as_array().into_iter().flatten().map(key).collect();
            keys.iter().collect::<HashSet<_>>().len() == keys.len()
        }
        "description" | "title" | "default" | "x-kubernetes-list-type" | "x-kubernetes-validations" => true,
        other => panic!("unknown rule {other}"),
    }
}

#[test]
fn schema_rejects_what_the_api_server_rejects() {
    let good = serde_json::to_value(super::scenario::Scenario::new().resource).unwrap();
    let violations_of = |pointer: &str, bad: Value| {
        let mut resource = good.clone();
        *resource.pointer_mut(pointer).unwrap() = bad;
        violations(&serde_json::from_value(resource).unwrap()).len()
    };
    assert_eq!(violations_of("/spec/backoffLimit", 3.into()), 0);
    let condition = |type_: &str, reason: &str| {
        serde_json::json!({ "type": type_, "status": "True", "reason": reason, "message": "",
            "lastTransitionTime": "2025-06-15T00:00:00Z" })
    };
    let conditions = |all: &[Value]| serde_json::json!({ "conditions": all });
    assert_eq!(
        violations_of("/status", conditions(&[condition("Ready", "Queued"), condition("Stalled", "Queued")])),
        0
    );
    for (pointer, bad) in [
        ("/spec/backoffLimit", (-1).into()),
        ("/spec/roleArn", "arn:aws:iam::1:role/Reader".into()),
        ("/spec/dataSource/dataLocation", "".into()),
        ("/spec/roleArn", format!("arn:aws:iam::123456789012:role/{}", "x".repeat(256)).into()),
        ("/status", serde_json::json!({ "completionTime": "-009999-01-02T01:59:59Z" })),
        ("/status", conditions(&[condition("Ready", "Queued"), condition("Ready", "Queued")])),
    ] {
        assert!(violations_of(pointer, bad.clone()) > 0, "{pointer}: {bad}");
    }
}
