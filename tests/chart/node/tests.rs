//! The node keeps pods to what they specify: what passes here would pass on a real one.

use super::{Image, Node};
use crate::bed::{Bed, eventually, text};
use serde_json::{Value, json};
use std::fs;
use std::process::Command;

/// Tells who it is, tries to write where it must not, and ends.
const TRIES: &str = r#"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
static void try(const char *path) { printf("%s %s\n", path, open(path, O_CREAT | O_WRONLY, 0600) < 0 ? "closed" : "open"); }
int main(void) {
    printf("user %d group %d\n", (int)getuid(), (int)getgid());
    printf("told %s\n", getenv("TOLD") ? getenv("TOLD") : "nothing");
    try("/here");
    try("/secret/key");
    try("/secret/new");
    try("/scratch/new");
    printf("sees %s\n", access("/usr", F_OK) ? "itself" : "the machine");
    return 3;
}
"#;

fn pod(name: &str, edit: &Value) -> Value {
    let mut container = json!({
        "name": "tries",
        "image": "tries:1",
        "env": [{"name": "TOLD", "valueFrom": {"secretKeyRef": {"name": "told", "key": "key"}}}],
        "securityContext": {"readOnlyRootFilesystem": true, "runAsNonRoot": true},
        "volumeMounts": [{"name": "secret", "mountPath": "/secret"}, {"name": "scratch", "mountPath": "/scratch"}],
    });
    container.as_object_mut().unwrap().extend(edit.as_object().unwrap().clone());
    let volumes = json!([{"name": "secret", "secret": {"secretName": "told"}}, {"name": "scratch", "emptyDir": {}}]);
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "restartPolicy": "Never", "automountServiceAccountToken": false, "containers": [container], "volumes": volumes,
    }})
}

#[test]
fn a_pod_is_kept_to_its_specification() {
    let bed = Bed::new();
    let (source, binary) = (bed.dir().join("tries.c"), bed.dir().join("tries"));
    fs::write(&source, TRIES).unwrap();
    let compiled = Command::new("cc").args(["-static", "-o"]).arg(&binary).arg(&source).output().unwrap();
    assert!(compiled.status.success(), "{}", text(&compiled));
    let image = Image { binary, entrypoint: "/tries".into(), user: 65532 };
    let images = [("tries:1".to_owned(), image)].into();
    let node = Node::start(&bed.plane.kubeconfig(), &bed.namespace, &bed.dir().join("node"), images);
    assert!(bed.kubectl(&["create", "secret", "generic", "told", "--from-literal=key=a-secret"]).status.success());
    eventually("the namespace has its ServiceAccount", || {
        bed.kubectl(&["get", "serviceaccount", "default"]).status.success().then_some(())
    });
    let status = |name: &str, path: &str| text(&bed.kubectl(&["get", "pod", name, "-o", &format!("jsonpath={path}")]));

    bed.apply(&pod("tries", &json!({})));
    eventually("it has ended", || (status("tries", "{.status.phase}") == "Failed").then_some(()));
    assert_eq!(status("tries", "{.status.containerStatuses[0].state.terminated.exitCode}"), "3");
    let told = node.logs();
    for line in [
        "user 65532 group 65532",
        "told a-secret",
        "/here closed",
        "/secret/key closed",
        "/secret/new closed",
        "/scratch/new open",
        "sees itself",
    ] {
        assert!(told.contains(line), "{line}: {told}");
    }
    for (name, edit, why) in [
        ("absent", json!({"image": "tries:2"}), "has no image"),
        ("root", json!({"securityContext": {"runAsNonRoot": true, "runAsUser": 0}}), "will run as root"),
        (
            "keyless",
            json!({"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "told", "key": "x"}}}]}),
            "no value",
        ),
        ("unplayed", json!({"lifecycle": {"preStop": {"sleep": {"seconds": 1}}}}), "does not play lifecycle"),
    ] {
        bed.apply(&pod(name, &edit));
        let path = "{.status.containerStatuses[0].state.waiting.message}";
        eventually(&format!("{name} is refused"), || status(name, path).contains(why).then_some(()));
    }
}
