//! Namespaces that are limited to some datasets, roles and data locations.

use crate::env::{TestEnv, dataset_arn, eventually, text};
use serde_json::json;
use std::process::Command;

fn limit_namespace(env: &TestEnv, annotation: &str) {
    let annotated = env.kubectl(&["annotate", "--overwrite", "namespace", &env.namespace, annotation]);
    assert!(annotated.status.success(), "{}", text(&annotated));
}

#[test]
fn import_outside_the_limits_of_its_namespace_waits_until_it_is_allowed() {
    let env = TestEnv::new();
    limit_namespace(&env, &format!("personalize-operator.io/allowed-dataset-arns={}", dataset_arn("d1")));
    limit_namespace(&env, "personalize-operator.io/allowed-data-locations=s3://bucket/*");
    let _operator = env.start_operator(&[]);
    env.import("denied", "d0", json!({}));
    let status = env.wait_for_reason("denied", "NotPermitted");
    let message = &status.conditions[0].message;
    assert!(message.contains("spec.datasetArn") && message.contains("allowed-dataset-arns"), "{message}");
    env.import("elsewhere", "d1", json!({"dataSource": {"dataLocation": "s3://payroll/all.csv"}}));
    let status = env.wait_for_reason("elsewhere", "NotPermitted");
    assert!(status.conditions[0].message.contains("spec.dataSource.dataLocation"), "{status:?}");
    assert_eq!(env.service.ledger().len(), 0, "no call is made");
    env.import("allowed", "d1", json!({}));
    env.wait_for_reason("allowed", "ImportSucceeded");
    limit_namespace(&env, &format!("personalize-operator.io/allowed-dataset-arns={}*", dataset_arn("d")));
    env.wait_for_reason("denied", "ImportSucceeded");
    assert_eq!(env.accepted_count(), 2);
}

#[test]
fn namespace_without_limits_is_denied_in_a_closed_cluster() {
    let env = TestEnv::new();
    let _operator = env.start_operator(&["--unlisted-namespaces=closed"]);
    env.import("nightly", "d0", json!({}));
    env.wait_for_reason("nightly", "NotPermitted");
    for list in ["allowed-dataset-arns=arn:*", "allowed-role-arns=*", "allowed-data-locations=s3://bucket/*"] {
        assert_eq!(env.service.ledger().len(), 0);
        limit_namespace(&env, &format!("personalize-operator.io/{list}"));
    }
    env.wait_for_reason("nightly", "ImportSucceeded");
}

#[test]
fn namespace_editor_can_not_bypass_its_limits() {
    let env = TestEnv::new();
    limit_namespace(&env, "personalize-operator.io/allowed-dataset-arns=");
    let kubeconfig = env.dir().join("dana.kubeconfig");
    env.control_plane.kubeconfig_for(&format!("dana-{}", env.namespace), &[], &kubeconfig).unwrap();
    for role in ["edit", "dij-edit"] {
        let name = format!("{}-{role}", env.namespace);
        let user = format!("--user=dana-{}", env.namespace);
        if role != "edit" {
            let verbs = "--verb=get,list,watch,create,update,patch,delete";
            let made =
                env.kubectl(&["create", "role", role, verbs, "--resource=datasetimportjobs.personalize-operator.io"]);
            assert!(made.status.success(), "{}", text(&made));
        }
        let role_flag = if role == "edit" { "--clusterrole=edit".to_owned() } else { format!("--role={role}") };
        let bound = env.kubectl(&["create", "rolebinding", &name, &role_flag, &user]);
        assert!(bound.status.success(), "{}", text(&bound));
    }
    let as_dana = |args: &[&str], input: Option<&str>| {
        let mut command = Command::new(control_plane::path_of("kubectl").unwrap());
        command
            .env("KUBECONFIG", &kubeconfig)
            .env("KUBECACHEDIR", env.dir().join("kube-cache"))
            .args(["-n", &env.namespace])
            .args(args);
        if let Some(input) = input {
            let file = env.dir().join("as-dana.json");
            std::fs::write(&file, input).unwrap();
            command.arg("-f").arg(file);
        }
        command.output().unwrap()
    };
    let _operator = env.start_operator(&[]);
    let manifest = TestEnv::manifest("nightly", "d0", json!({})).to_string();
    eventually("the role applies", || as_dana(&["apply"], Some(&manifest)).status.success().then_some(()));
    env.wait_for_reason("nightly", "NotPermitted");
    let unlimited = "personalize-operator.io/allowed-dataset-arns=*";
    for (what, args) in [
        ("the limits", vec!["annotate", "--overwrite", "namespace", &env.namespace, unlimited]),
        (
            "the status",
            vec!["patch", "dij", "nightly", "--subresource=status", "--type=merge", "-p", "{\"status\":{}}"],
        ),
    ] {
        let tried = as_dana(&args, None);
        assert!(!tried.status.success() && text(&tried).contains("orbidden"), "{what}: {}", text(&tried));
    }
    // The limits are on the namespace. The same annotation on the resource has no effect.
    let annotated = as_dana(&["annotate", "dij", "nightly", unlimited, "personalize-operator.io/adopt=true"], None);
    assert!(annotated.status.success(), "{}", text(&annotated));
    let requested = as_dana(&["annotate", "dij", "nightly", "personalize-operator.io/reconcile-requested-at=1"], None);
    assert!(requested.status.success(), "{}", text(&requested));
    eventually("the resource is reconciled", || {
        (env.status("nightly").last_handled_reconcile_at.as_deref() == Some("1")).then_some(())
    });
    env.wait_for_reason("nightly", "NotPermitted");
    assert_eq!(env.service.ledger().len(), 0);
}
