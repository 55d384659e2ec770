//! Admission: every invalid field is rejected by a sentence that names it, through the real kubectl.

use crate::env::{TestEnv, text};
use serde_json::{Value, json};

#[test]
fn invalid_field_is_rejected_by_a_sentence_that_names_it() {
    let env = TestEnv::new();
    let tag = |key: &str, value: &str| json!({"tagKey": key, "tagValue": value});
    let many: Vec<Value> = (0..48).map(|i| tag(&format!("k{i}"), "v")).collect();
    let too_many: Vec<Value> = (0..51).map(|i| tag(&format!("k{i}"), "v")).collect();
    let long = |n: usize| "x".repeat(n);
    let dataset = |s: &str| json!({"datasetArn": s});
    let location = |s: &str| json!({"dataSource": {"dataLocation": s}});
    let role = |s: &str| json!({"roleArn": s});
    let tags = |t: Value| json!({"tags": t});
    // The patterns of the service are explained by a sentence, too.
    let sentences = [
        ("datasetArn must be the ARN of a dataset with its region", dataset("nonsense")),
        (
            "datasetArn must be the ARN of a dataset with its region",
            dataset("arn:aws:personalize:::dataset/shop/ITEMS"),
        ),
        ("roleArn must be the ARN of an IAM role", role("arn:aws:iam::123456789012:user/x")),
        ("roleArn must be the ARN of an IAM role", role("arn:aws:iam::123456789012:role/x\n")),
        ("dataLocation must be where the CSV data is", location("ftp://bucket/file")),
        ("dataLocation must be where the CSV data is", location("s3://")),
        ("dataLocation must not contain control characters", location("s3://bucket/a\r\nb")),
        ("jobName must begin with a letter or digit and consist of", json!({"jobName": "-begins-with-a-dash"})),
        ("jobName must begin with a letter or digit and consist of", json!({"jobName": "has a space"})),
        ("tagKey must consist of letters, digits, spaces", tags(json!([tag("a*b", "v")]))),
        ("tagKey must not begin with aws:", tags(json!([tag("aws:x", "v")]))),
        ("tagValue must consist of letters, digits, spaces", tags(json!([tag("k", "a\nb")]))),
        ("backoffLimit can't be used together with jobName", json!({"jobName": "fixed", "backoffLimit": 1})),
    ];
    for (sentence, edit) in sentences {
        let rejected = env.try_apply(&TestEnv::manifest("wrong", "d0", edit.clone()));
        let message = text(&rejected);
        assert!(
            !rejected.status.success() && message.contains(sentence),
            "{edit} is not rejected with {sentence}: {message}"
        );
    }
    let cases = [
        ("datasetArn", dataset("")),
        ("datasetArn", dataset("nonsense")),
        ("datasetArn", dataset("arn:aws:personalize:::dataset/shop/ITEMS")),
        ("datasetArn", dataset("arn:aws:personalize:eu-west-1::dataset/shop/ITEMS")),
        ("datasetArn", dataset("arn:aws:personalize:eu-west-1:12345:dataset/shop/ITEMS")),
        ("datasetArn", dataset("arn:aws:personalize:eu-west-1:123456789012:schema/shop")),
        ("datasetArn", dataset("arn:aws:personalize:eu-west-1:123456789012:dataset/shop\r\n")),
        ("datasetArn", dataset(&format!("arn:aws:personalize:eu-west-1:123456789012:dataset/{}", long(250)))),
        ("datasetArn", json!({"datasetArn": null})),
        ("datasetArn", json!({"datasetArn": 7})),
        ("dataSource", json!({"dataSource": null})),
        ("dataLocation", json!({"dataSource": {}})),
        ("dataLocation", location("")),
        ("dataLocation", location("ftp://bucket/file")),
        ("dataLocation", location("s3://")),
        ("dataLocation", location("s3://bucket/a\r\nb")),
        ("dataLocation", location(&format!("s3://{}", long(256)))),
        ("roleArn", json!({"roleArn": null})),
        ("roleArn", role("")),
        ("roleArn", role("arn:aws:iam::123:role/x")),
        ("roleArn", role("arn:aws:iam::123456789012:user/x")),
        ("roleArn", role("arn:aws:iam::123456789012:role/x\n")),
        ("roleArn", role(&format!("arn:aws:iam::123456789012:role/{}", long(256)))),
        ("jobName", json!({"jobName": ""})),
        ("jobName", json!({"jobName": long(64)})),
        ("jobName", json!({"jobName": "-begins-with-a-dash"})),
        ("jobName", json!({"jobName": "has a space"})),
        ("jobName", json!({"jobName": "line\r\nbreak"})),
        ("importMode", json!({"importMode": "PARTIAL"})),
        ("importMode", json!({"importMode": "full"})),
        ("publishAttributionMetricsToS3", json!({"publishAttributionMetricsToS3": "yes"})),
        ("tags", tags(json!(many))),
        ("tags", tags(json!(too_many))),
        ("tags", tags(json!([tag("a", "1"), tag("a", "2")]))),
        ("tagKey", tags(json!([tag("", "v")]))),
        ("tagKey", tags(json!([tag(&long(129), "v")]))),
        ("tagKey", tags(json!([tag("aws:x", "v")]))),
        ("tagKey", tags(json!([tag("personalize-operator.io/name", "v")]))),
        ("tagKey", tags(json!([tag("a*b", "v")]))),
        ("tagKey", tags(json!([{"tagValue": "v"}]))),
        ("tagValue", tags(json!([tag("k", &long(257))]))),
        ("tagValue", tags(json!([tag("k", "a\nb")]))),
        ("tagValue", tags(json!([{"tagKey": "k"}]))),
        ("suspend", json!({"suspend": "no"})),
        ("backoffLimit", json!({"backoffLimit": -1})),
        ("backoffLimit", json!({"backoffLimit": 101})),
        ("backoffLimit", json!({"jobName": "fixed", "backoffLimit": 1})),
        ("datasetArn", json!({"datasetArn": 1})),
        ("dataLocation", json!({"dataSource": {"dataLocation": ["s3://bucket/a"]}})),
        ("roleArn", json!({"roleArn": 1})),
        ("jobName", json!({"jobName": 1})),
        ("importMode", json!({"importMode": 1})),
        ("tags", json!({"tags": {"a": "b"}})),
        ("tagKey", json!({"tags": [{"tagKey": 1, "tagValue": "v"}]})),
        ("tagValue", json!({"tags": [{"tagKey": "k", "tagValue": 1}]})),
        ("backoffLimit", json!({"backoffLimit": "one"})),
        ("nonesuch", json!({"nonesuch": 1})),
    ];
    for (field, edit) in cases {
        let rejected = env.try_apply(&TestEnv::manifest("wrong", "d0", edit.clone()));
        let message = text(&rejected);
        assert!(!rejected.status.success(), "{edit} was accepted");
        assert!(message.contains(field), "{edit} is rejected without naming {field}: {message}");
    }
    let valid = json!({
        "jobName": long(63),
        "importMode": "INCREMENTAL",
        "publishAttributionMetricsToS3": true,
        "tags": (0..46).map(|i| tag(&format!("k{i}"), "Ünïcödé + = @ / _ . : -")).collect::<Vec<_>>(),
        "suspend": true,
    });
    env.apply(&TestEnv::manifest("valid", "d0", valid));
    env.apply(&TestEnv::manifest("valid-too", "d0", json!({"backoffLimit": 100, "suspend": true})));
}

#[test]
fn change_of_an_immutable_field_is_rejected_and_the_message_says_how_to_import_again() {
    let env = TestEnv::new();
    env.import("nightly", "d0", json!({"suspend": true, "tags": [{"tagKey": "a", "tagValue": "b"}]}));
    for (field, edit) in [
        ("datasetArn", json!({"datasetArn": crate::env::dataset_arn("d1")})),
        ("dataSource", json!({"dataSource": {"dataLocation": "s3://bucket/other.csv"}})),
        ("roleArn", json!({"roleArn": "arn:aws:iam::123456789012:role/Other"})),
        ("jobName", json!({"jobName": "fixed"})),
        ("importMode", json!({"importMode": "INCREMENTAL"})),
        ("publishAttributionMetricsToS3", json!({"publishAttributionMetricsToS3": true})),
        ("tags", json!({"tags": [{"tagKey": "a", "tagValue": "c"}]})),
        ("tags", json!({"tags": null})),
    ] {
        let patch = json!({"spec": edit}).to_string();
        let rejected = env.kubectl(&["patch", "dij", "nightly", "--type=merge", "-p", &patch]);
        let message = text(&rejected);
        assert!(!rejected.status.success(), "{edit} was accepted");
        assert!(message.contains(&format!("{field} is immutable")) && message.contains("create"), "{message}");
    }
    env.patch("nightly", &json!({"spec": {"backoffLimit": 3}}));
}

#[test]
fn kubectl_explain_documents_every_field() {
    let env = TestEnv::new();
    let output = text(&env.kubectl(&["explain", "dij.spec", "--recursive"]));
    for field in [
        "datasetArn",
        "dataSource",
        "dataLocation",
        "roleArn",
        "jobName",
        "importMode",
        "publishAttributionMetricsToS3",
        "tags",
        "suspend",
        "backoffLimit",
        "-required-",
    ] {
        assert!(output.contains(field), "{field} in\n{output}");
    }
    for (field, sentence) in [
        ("dij.spec.datasetArn", "The ARN of the dataset"),
        ("dij.spec.roleArn", "Immutable."),
        ("dij.spec.tags.tagKey", "not beginning with aws:"),
        ("dij.status.completionTime", "When the import ended"),
    ] {
        let output = text(&env.kubectl(&["explain", field]));
        let joined = output.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(joined.contains(sentence), "{sentence} in\n{output}");
        // kubectl wraps lines itself. A line break in the source would leave short lines.
        let (_, description) = output.split_once("DESCRIPTION:").unwrap();
        let lines: Vec<&str> = description.lines().filter(|l| !l.trim().is_empty()).collect();
        let ragged = lines
            .windows(2)
            .find(|pair| pair[0].len() + 1 + pair[1].split_whitespace().next().map_or(0, str::len) < 78);
        assert_eq!(ragged, None, "{output}");
    }
}
