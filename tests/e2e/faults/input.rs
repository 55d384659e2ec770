//! Input that is refused, and text that is shown.

use super::{CREATE, assert_imported_once, import_nightly};
use crate::env::{TestEnv, dataset_arn, eventually, text};
use personalize_operator::import::ImportRequest;
use serde_json::{Value, json};

#[test]
fn fault_71_every_invalid_field_is_rejected_at_admission() {
    let env = TestEnv::new();
    let _operator = env.start_operator(&[]);
    let location = |location: &str| json!({"dataSource": {"dataLocation": location}});
    let tags = |tags: &[(&str, &str)]| {
        let tags: Vec<Value> = tags.iter().map(|(k, v)| json!({"tagKey": k, "tagValue": v})).collect();
        json!({"tags": tags})
    };
    let many: Vec<String> = (0..48).map(|i| format!("k{i}")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|k| (k.as_str(), "v")).collect();
    for (edit, field) in [
        (json!({"jobName": "x".repeat(64)}), "spec.jobName"),
        (json!({"jobName": "line\r\nbreak"}), "spec.jobName"),
        (json!({"jobName": "-first"}), "spec.jobName"),
        (json!({"jobName": ""}), "spec.jobName"),
        (json!({"datasetArn": "arn:aws:s3:::bucket"}), "spec.datasetArn"),
        (json!({"datasetArn": "arn:aws:personalize:::dataset/shop/d0"}), "spec.datasetArn"),
        (json!({"datasetArn": "arn:aws:personalize:eu-west-1:1234:dataset/shop/d0"}), "spec.datasetArn"),
        (json!({"datasetArn": "arn:aws:personalize:eu-west-1:123456789012:schema/shop"}), "spec.datasetArn"),
        (json!({"datasetArn": format!("{}{}", dataset_arn("d"), "x".repeat(200))}), "spec.datasetArn"),
        (json!({"datasetArn": null}), "spec.datasetArn"),
        (json!({"roleArn": "someone"}), "spec.roleArn"),
        (json!({"roleArn": "arn:aws:iam::123456789012:user/Reader"}), "spec.roleArn"),
        (json!({"roleArn": null}), "spec.roleArn"),
        (location("ftp://bucket/x.csv"), "spec.dataSource.dataLocation"),
        (location("s3://"), "spec.dataSource.dataLocation"),
        (location("s3://bucket/line\r\nbreak.csv"), "spec.dataSource.dataLocation"),
        (location(&format!("s3://{}", "x".repeat(252))), "spec.dataSource.dataLocation"),
        (json!({"dataSource": null}), "spec.dataSource"),
        (json!({"importMode": "PARTIAL"}), "spec.importMode"),
        (json!({"publishAttributionMetricsToS3": "yes"}), "spec.publishAttributionMetricsToS3"),
        (json!({"suspend": "yes"}), "spec.suspend"),
        (json!({"backoffLimit": -1}), "spec.backoffLimit"),
        (json!({"backoffLimit": 101}), "spec.backoffLimit"),
        (tags(&[("a", "1"), ("a", "2")]), "spec.tags"),
        (tags(&[("", "1")]), "spec.tags[0].tagKey"),
        (tags(&[("aws:a", "1")]), "spec.tags[0].tagKey"),
        (tags(&[("personalize-operator.io/name", "1")]), "spec.tags[0].tagKey"),
        (tags(&[("a\"b", "1")]), "spec.tags[0].tagKey"),
        (tags(&[("a", "line\nbreak")]), "spec.tags[0].tagValue"),
        (tags(&[("a", &"x".repeat(257))]), "spec.tags[0].tagValue"),
        (tags(&many), "spec.tags"),
        (json!({"jobname": "a typing error"}), "spec.jobname"),
    ] {
        let rejected = env.try_apply(&TestEnv::manifest("bad", "d0", edit.clone()));
        assert!(!rejected.status.success() && text(&rejected).contains(field), "{edit}: {}", text(&rejected));
    }
    assert!(env.get("bad").is_none());
    import_nightly(&env);
    assert_imported_once(&env);
}

#[test]
fn fault_76_text_from_outside_can_not_inject_log_lines_or_metrics() {
    let env = TestEnv::new();
    let nasty = "x\"} 1\npersonalize_operator_injected 1\n{\"level\":\"ERROR\",\"message\":\"forged\"}";
    env.service.inject_fault(&json!({"operation": CREATE, "name": "nasty", "count": 1, "action": {"error": {"code": "InvalidInputException", "message": nasty, "status": 400}}}));
    env.service.inject_fault(&json!({"operation": "DescribeDatasetImportJob", "name": "nightly", "count": 1, "skip": 2, "action": {"status": nasty}}));
    env.service.inject_fault(&json!({"operation": "DescribeDataset", "count": 1, "action": {"error": {"code": nasty, "message": nasty, "status": 400}}}));
    let operator = env.start_operator(&[]);
    env.import("nasty", "d1", json!({"tags": [{"tagKey": "a=b", "tagValue": "level:ERROR + @c d"}]}));
    import_nightly(&env);
    env.wait_for_reason("nightly", "ImportSucceeded");
    env.wait_for_reason("nasty", "ImportSucceeded");
    let metrics = operator.metrics();
    assert!(!metrics.contains("injected"), "{metrics}");
    for line in operator.log().lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: an injected line: {line}"));
        assert_ne!(line["message"], "forged");
    }
    for message in env.status("nasty").conditions.into_iter().map(|c| c.message) {
        assert!(!message.contains('\n'));
    }
    env.check_invariants();
}

#[test]
fn fault_87_paths_survive_redaction_and_locations_with_credentials_are_rejected() {
    let env = TestEnv::new();
    let path = "shop-data/Exports/2026/11/24/InteractionsFull";
    let location = |location: &str| json!({"dataSource": {"dataLocation": location}});
    let words = format!("Column SESSION_TOKEN has a null value in {path}");
    let rejection = json!({"error": {"code": "InvalidInputException", "message": words, "status": 400}});
    env.service.inject_fault(&json!({"operation": CREATE, "name": "nightly", "count": 0, "action": rejection}));
    let operator = env.start_operator(&[]);
    env.import("nightly", "d0", location(&format!("s3://{path}")));
    env.wait_for_message("nightly", &words);
    eventually("the log has the message", || operator.log().contains(&words).then_some(()));
    for bad in [
        "https://AKIAIOSFODNN7EXAMPLE:secret@bucket.s3.amazonaws.com/x.csv",
        "https://user:pass/word@bucket.s3.amazonaws.com/x.csv",
        "https://bucket.s3.amazonaws.com/x.csv?AWSAccessKeyId=AKIAIOSFODNN7EXAMPLE",
        "https://bucket.s3.amazonaws.com/x.csv?X-Amz-Security-Token=IQoJb3JpZ2luX2VjEJr",
        "https://bucket.s3.amazonaws.com/x.csv?X-Amz-Signature=0123abcd",
        "https://bucket.s3.amazonaws.com/x.csv?t=IQoJb3JpZ2luX2VjEJrIQoJb3JpZ2luX2VjEJr",
        "s3://bucket/new/the password 0123456789abcdef.csv",
    ] {
        let rejected = env.try_apply(&TestEnv::manifest("bad", "d1", location(bad)));
        let message = text(&rejected);
        assert!(!rejected.status.success() && message.contains("must not contain credentials"), "{bad}: {message}");
    }
    for good in [
        "s3://bucket/by:team/a@b.csv",
        "https://s3.amazonaws.com:443/b/a@b.csv",
        "s3://bucket/token=full/password:x.csv",
        "s3://b/new password.csv",
    ] {
        env.apply(&TestEnv::manifest("good", "d1", location(good)));
        env.delete("good");
    }
    env.delete("nightly");
    env.check_invariants();
}

#[test]
fn fault_88_tenants_can_not_take_each_others_job_names_or_hide_text() {
    let env = TestEnv::new();
    let refused = |spec: Value, message: &str| {
        let applied = env.try_apply(&TestEnv::manifest("bad", "d0", spec.clone()));
        assert!(!applied.status.success() && text(&applied).contains(message), "{spec}: {}", text(&applied));
    };
    for invisible in
        ['\u{200b}', '\u{202e}', '\u{2066}', '\u{2028}', '\u{ad}', '\u{feff}', '\u{3164}', '\u{fe0f}', '\u{e0041}']
    {
        let location = format!("s3://b/x{invisible}vsc.csv");
        refused(json!({"dataSource": {"dataLocation": location}}), "dataLocation must not contain");
        refused(json!({"tags": [{"tagKey": format!("k{invisible}"), "tagValue": "v"}]}), "tagKey must");
        refused(json!({"tags": [{"tagKey": "k", "tagValue": format!("v{invisible}")}]}), "tagValue must");
    }
    for spaces in ["s3://b/a  b.csv", "s3://b/a\u{a0}b.csv", "s3://b/a.csv "] {
        refused(json!({"dataSource": {"dataLocation": spaces}}), "dataLocation must not contain white space");
    }
    env.import("victim", "d1", json!({"suspend": true}));
    let victim = ImportRequest::of(&env.get("victim").unwrap()).unwrap();
    for attempt in [1, 2, 100] {
        refused(json!({"jobName": victim.job_name(attempt)}), "jobName must not end like the names");
    }
    env.service.put_job(&json!({
        "name": "taken", "datasetArn": dataset_arn("d9"), "status": "ACTIVE", "dataLocation": "s3://private/x.csv",
        "roleArn": "arn:aws:iam::123456789012:role/Private",
    }));
    let _operator = env.start_operator(&[]);
    env.wait_for_reason("victim", "Suspended");
    env.import("nightly", "d1", json!({"jobName": "taken"}));
    let message =
        env.wait_for_message("nightly", "another datasetArn, another dataSource.dataLocation, another roleArn;");
    assert!(!message.contains("rivate") && !message.contains("d9"), "{message}");
    env.check_invariants_settled();
}

#[test]
fn fault_89_imports_that_can_never_work_are_rejected_at_admission() {
    let env = TestEnv::new();
    let refused = |spec: Value, message: &str| {
        let applied = env.try_apply(&TestEnv::manifest("bad", "d0", spec.clone()));
        assert!(!applied.status.success() && text(&applied).contains(message), "{spec}: {}", text(&applied));
    };
    for misspelt in [
        "interactions",
        "Interactions",
        "INTERACTION",
        "ITEM",
        "users",
        "USER",
        "Action_Interactions",
        "ACTIONINTERACTIONS",
    ] {
        refused(json!({"datasetArn": dataset_arn(misspelt)}), "datasetArn must end with a type of dataset");
    }
    for account in ["999999999999", "210987654321"] {
        let role = format!("arn:aws:iam::{account}:role/Reader");
        refused(json!({"roleArn": role}), "roleArn must be of the same account as datasetArn");
    }
    let china = "arn:aws-cn:personalize:cn-north-1:123456789012:dataset/shop/ITEMS";
    refused(json!({"datasetArn": china}), "roleArn must be of the same partition as datasetArn");
    for type_ in ["INTERACTIONS", "USERS", "ITEMS", "ACTIONS", "ACTION_INTERACTIONS"] {
        env.apply(&TestEnv::manifest("good", type_, json!({})));
        env.delete("good");
    }
    let role = "arn:aws-cn:iam::123456789012:role/Reader";
    env.apply(&TestEnv::manifest("good", "", json!({"datasetArn": china, "roleArn": role})));
    env.check_invariants();
}
