//! The node keeps pods to what they specify: what passes here would pass on a real one.

use super::{Image, Node};
use crate::env::{TestEnv, eventually, text};
use serde_json::{Value, json};
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

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

/// A node whose one image, `tries:1`, holds the program of this source.
fn node(env: &TestEnv, source: &str) -> Node {
    let (file, binary) = (env.dir().join("tries.c"), env.dir().join("tries"));
    fs::write(&file, source).unwrap();
    let compiled = Command::new("cc").args(["-static", "-o"]).arg(&binary).arg(&file).output().unwrap();
    assert!(compiled.status.success(), "{}", text(&compiled));
    let image = Image { binary, entrypoint: "/tries".into(), user: 65532 };
    let images = [("tries:1".to_owned(), image)].into();
    let node = Node::start(&env.control_plane.kubeconfig(), &env.namespace, &env.dir().join("node"), images);
    assert!(env.kubectl(&["create", "secret", "generic", "told", "--from-literal=key=a-secret"]).status.success());
    eventually("the namespace has its ServiceAccount", || {
        env.kubectl(&["get", "serviceaccount", "default"]).status.success().then_some(())
    });
    node
}

/// A field of a pod's status.
fn field(env: &TestEnv, name: &str, path: &str) -> String {
    text(&env.kubectl(&["get", "pod", name, "-o", &format!("jsonpath={{.status{path}}}")]))
}

#[test]
fn a_pod_is_kept_to_its_specification() {
    let env = TestEnv::new();
    let node = node(&env, TRIES);
    let status = |name: &str, path: &str| field(&env, name, path);

    env.apply(&pod("tries", &json!({})));
    eventually("it has ended", || (status("tries", ".phase") == "Failed").then_some(()));
    assert_eq!(status("tries", ".containerStatuses[0].state.terminated.exitCode"), "3");
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
        env.apply(&pod(name, &edit));
        let path = ".containerStatuses[0].state.waiting.message";
        eventually(&format!("{name} is refused"), || status(name, path).contains(why).then_some(()));
    }
}

/// Never ends by itself, listens to nobody, and goes on when it is told to stop.
const IDLES: &str = r#"
#include <signal.h>
#include <unistd.h>
int main(void) { signal(SIGTERM, SIG_IGN); for (;;) pause(); }
"#;

#[test]
fn a_pod_is_judged_by_its_probes_and_stopped_when_its_time_is_up() {
    let env = TestEnv::new();
    let node = node(&env, IDLES);
    let probe = json!({"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1, "failureThreshold": 2});
    let ports = json!([{"name": "http", "containerPort": 8080}]);
    env.apply(&pod("plain", &json!({})));
    env.apply(&pod("unready", &json!({"ports": ports, "readinessProbe": probe})));
    let mut sick = pod("sick", &json!({"ports": ports, "livenessProbe": probe}));
    sick["spec"]["restartPolicy"] = "Always".into();
    env.apply(&sick);
    let mut stubborn = pod("stubborn", &json!({}));
    stubborn["spec"]["terminationGracePeriodSeconds"] = 2.into();
    env.apply(&stubborn);
    let ready = |name: &str| field(&env, name, ".conditions[?(@.type==\"Ready\")].status");
    for name in ["plain", "stubborn"] {
        eventually("what has no probe is ready once it runs", || (ready(name) == "True").then_some(()));
    }
    let restarts = || field(&env, "sick", ".containerStatuses[0].restartCount").parse::<u32>().unwrap_or(0);
    eventually("what its liveness probe finds dead is begun anew, again and again", || (restarts() > 1).then_some(()));
    let exits = node.exits();
    assert!(exits.iter().filter(|exit| exit.pod == "sick").count() > 1, "{exits:?}");
    assert!(exits.iter().all(|exit| exit.pod == "sick" && exit.code.is_none()), "{exits:?}");
    assert_eq!((field(&env, "unready", ".phase"), ready("unready")), ("Running".into(), "False".into()));

    let told = Instant::now();
    let deleted = env.kubectl(&["delete", "pod", "stubborn", "--timeout=5m"]);
    assert!(deleted.status.success(), "{}", text(&deleted));
    assert!(told.elapsed() >= Duration::from_secs(2), "it had its grace period");
    let exits = node.exits();
    let end = exits.iter().find(|exit| exit.pod == "stubborn").unwrap();
    assert!(end.killed && end.code.is_none(), "{end:?}");
}
