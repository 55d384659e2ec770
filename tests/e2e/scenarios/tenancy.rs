//! A namespace that is limited to some datasets, roles and data locations.

use crate::env::{Bed, dataset_arn, eventually, text};
use crate::invariants::accepted;
use serde_json::json;
use std::process::Command;

fn limit(bed: &Bed, annotation: &str) {
    let done = bed.kubectl(&["annotate", "--overwrite", "namespace", &bed.namespace, annotation]);
    assert!(done.status.success(), "{}", text(&done));
}

#[test]
fn what_a_namespace_may_not_import_is_not_sent_until_an_administrator_allows_it() {
    let bed = Bed::new();
    limit(&bed, &format!("personalize-operator.io/allowed-dataset-arns={}", dataset_arn("d1")));
    limit(&bed, "personalize-operator.io/allowed-data-locations=s3://bucket/*");
    let _operator = bed.operator(&[]);
    bed.import("theirs", "d0", json!({}));
    let status = bed.until("theirs", "NotPermitted");
    let message = &status.conditions[0].message;
    assert!(message.contains("spec.datasetArn") && message.contains("allowed-dataset-arns"), "{message}");
    bed.import("elsewhere", "d1", json!({"dataSource": {"dataLocation": "s3://payroll/all.csv"}}));
    let status = bed.until("elsewhere", "NotPermitted");
    assert!(status.conditions[0].message.contains("spec.dataSource.dataLocation"), "{status:?}");
    assert_eq!(bed.service.ledger().len(), 0, "nothing at all is sent");
    bed.import("ours", "d1", json!({}));
    bed.until("ours", "ImportSucceeded");
    limit(&bed, &format!("personalize-operator.io/allowed-dataset-arns={}*", dataset_arn("d")));
    bed.until("theirs", "ImportSucceeded");
    assert_eq!(accepted(&bed.service.ledger()).len(), 2);
}

#[test]
fn in_a_closed_cluster_a_namespace_without_lists_may_import_nothing() {
    let bed = Bed::new();
    let _operator = bed.operator(&["--unlisted-namespaces=closed"]);
    bed.import("nightly", "d0", json!({}));
    bed.until("nightly", "NotPermitted");
    for list in ["allowed-dataset-arns=arn:*", "allowed-role-arns=*", "allowed-data-locations=s3://bucket/*"] {
        assert_eq!(bed.service.ledger().len(), 0);
        limit(&bed, &format!("personalize-operator.io/{list}"));
    }
    bed.until("nightly", "ImportSucceeded");
}

#[test]
fn who_may_only_edit_in_a_namespace_can_not_get_round_its_limits() {
    let bed = Bed::new();
    limit(&bed, "personalize-operator.io/allowed-dataset-arns=");
    let kubeconfig = bed.dir().join("dana.kubeconfig");
    bed.plane.kubeconfig_for(&format!("dana-{}", bed.namespace), &[], &kubeconfig).unwrap();
    for role in ["edit", "dij-edit"] {
        let name = format!("{}-{role}", bed.namespace);
        let user = format!("--user=dana-{}", bed.namespace);
        if role != "edit" {
            let verbs = "--verb=get,list,watch,create,update,patch,delete";
            let made =
                bed.kubectl(&["create", "role", role, verbs, "--resource=datasetimportjobs.personalize-operator.io"]);
            assert!(made.status.success(), "{}", text(&made));
        }
        let of = if role == "edit" { "--clusterrole=edit".to_owned() } else { format!("--role={role}") };
        let bound = bed.kubectl(&["create", "rolebinding", &name, &of, &user]);
        assert!(bound.status.success(), "{}", text(&bound));
    }
    let as_dana = |args: &[&str], input: Option<&str>| {
        let mut command = Command::new(control_plane::path_of("kubectl").unwrap());
        command
            .env("KUBECONFIG", &kubeconfig)
            .env("KUBECACHEDIR", bed.dir().join("kube-cache"))
            .args(["-n", &bed.namespace])
            .args(args);
        if let Some(input) = input {
            let file = bed.dir().join("as-dana.json");
            std::fs::write(&file, input).unwrap();
            command.arg("-f").arg(file);
        }
        command.output().unwrap()
    };
    let _operator = bed.operator(&[]);
    let manifest = Bed::manifest("nightly", "d0", json!({})).to_string();
    eventually("the role has arrived", || as_dana(&["apply"], Some(&manifest)).status.success().then_some(()));
    bed.until("nightly", "NotPermitted");
    let free = "personalize-operator.io/allowed-dataset-arns=*";
    for (what, args) in [
        ("the limits", vec!["annotate", "--overwrite", "namespace", &bed.namespace, free]),
        (
            "the status",
            vec!["patch", "dij", "nightly", "--subresource=status", "--type=merge", "-p", "{\"status\":{}}"],
        ),
    ] {
        let tried = as_dana(&args, None);
        assert!(!tried.status.success() && text(&tried).contains("orbidden"), "{what}: {}", text(&tried));
    }
    // The limits belong to the namespace: the same annotation on the resource means nothing.
    let own = as_dana(&["annotate", "dij", "nightly", free, "personalize-operator.io/adopt=true"], None);
    assert!(own.status.success(), "{}", text(&own));
    let asked = as_dana(&["annotate", "dij", "nightly", "personalize-operator.io/reconcile-requested-at=1"], None);
    assert!(asked.status.success(), "{}", text(&asked));
    eventually("it was looked at again", || {
        (bed.status("nightly").last_handled_reconcile_at.as_deref() == Some("1")).then_some(())
    });
    bed.until("nightly", "NotPermitted");
    assert_eq!(bed.service.ledger().len(), 0);
}
