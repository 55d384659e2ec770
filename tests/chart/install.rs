//! A release's life on a real API server: the pods that its Deployment makes are run as they are specified.

use crate::env::personalize_local::{ACCESS_KEY, SECRET_KEY};
use crate::env::{TestEnv, eventually, shared_control_plane, text};
use crate::helm::{chart, file, helm, merged, read};
use crate::node::{Image, Node};
use control_plane::ControlPlane;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

const CRD: &str = "crd/datasetimportjobs.personalize-operator.io";

/// A namespace with the restricted Pod Security level, where a release lives and its pods run.
struct Home {
    env: TestEnv,
    node: Node,
}

impl Home {
    fn new(control_plane: &'static ControlPlane) -> Self {
        let env = TestEnv::on(control_plane);
        restrict(control_plane, &env.namespace);
        let node = Node::start(&control_plane.kubeconfig(), &env.namespace, &env.dir().join("node"), images());
        let keys = [
            format!("--from-literal=AWS_ACCESS_KEY_ID={ACCESS_KEY}"),
            format!("--from-literal=AWS_SECRET_ACCESS_KEY={SECRET_KEY}"),
        ];
        let secret = env.kubectl(&["create", "secret", "generic", "aws", &keys[0], &keys[1]]);
        assert!(secret.status.success(), "{}", text(&secret));
        Self { env, node }
    }

    fn helm(&self, args: &[&str]) -> Output {
        let kubeconfig = self.env.control_plane.kubeconfig().display().to_string();
        let common = ["--kubeconfig", &kubeconfig, "--namespace", &self.env.namespace];
        helm(&self.env.dir().join("helm"), &[args, &common].concat())
    }

    /// Runs helm, which has to succeed.
    fn must(&self, args: &[&str]) -> String {
        let output = self.helm(args);
        assert!(output.status.success(), "helm {args:?}: {}\n{}", text(&output), self.state());
        text(&output)
    }

    /// What a person would look at next.
    fn state(&self) -> String {
        let events = self.env.kubectl(&["get", "events,pods", "-o", "wide"]);
        format!("{}\n{}", text(&events), self.node.logs())
    }

    /// A file with values for this home: the stand-in's address, and timings fit for tests.
    fn values(&self, more: &Value) -> String {
        let values = json!({
            "aws": {"endpointUrl": self.env.service.url(), "credentialsSecret": {"name": "aws"}},
            "leaderElection": {"leaseDuration": "3s"},
            "imports": {"pollMin": "200ms", "pollMax": "500ms", "grace": "1s", "backoffMin": "200ms"},
            "livenessProbe": {"periodSeconds": 2},
            "readinessProbe": {"periodSeconds": 1},
        });
        let file = self.env.dir().join("values.json");
        fs::write(&file, merged(values, more).to_string()).unwrap();
        file.display().to_string()
    }

    fn install(&self, command: &str, release: &str, chart: &Path, more: &Value) -> String {
        let values = self.values(more);
        let chart = chart.display().to_string();
        self.must(&[command, release, &chart, "--values", &values, "--wait", "--timeout", "5m"])
    }

    fn is_there(&self, what: &[&str]) -> bool {
        self.env.kubectl(&[&["get"], what].concat()).status.success()
    }
}

fn restrict(control_plane: &ControlPlane, namespace: &str) {
    let label = ["label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted"];
    assert!(control_plane.kubectl(&label, None).unwrap().status.success());
}

/// The images of this version and of a next one, which holds the same program.
fn images() -> HashMap<String, Image> {
    let image = Image {
        binary: PathBuf::from(env!("CARGO_BIN_EXE_personalize-operator")),
        entrypoint: "/personalize-operator".into(),
        user: 65532,
    };
    let version = env!("CARGO_PKG_VERSION");
    [version, "next"].map(|tag| (format!("localhost/personalize-operator:{tag}"), image.clone())).into()
}

/// A copy of the chart whose CRD has one more column for `kubectl get`.
fn next_chart(dir: &Path) -> PathBuf {
    let copy = dir.join("next-chart");
    let copied = std::process::Command::new("cp").arg("-r").args([&chart(), &copy]).status().unwrap();
    assert!(copied.success());
    let file = copy.join("files/datasetimportjobs.yaml");
    let crd = fs::read_to_string(&file).unwrap();
    let column = "  - additionalPrinterColumns:\n    - jsonPath: .spec.roleArn\n      name: Role\n      type: string\n";
    let changed = crd.replacen("  - additionalPrinterColumns:\n", column, 1);
    assert_ne!(crd, changed);
    fs::write(file, changed).unwrap();
    copy
}

#[test]
fn a_release_is_installed_tested_upgraded_rolled_back_and_uninstalled() {
    // No CRD was installed here yet. The control_plane ends with the process.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let control_plane = Box::leak(Box::new(ControlPlane::start(dir.path()).unwrap()));
    let home = Home::new(control_plane);
    let (env, next) = (&home.env, next_chart(home.env.dir()));
    let notes = home.install("install", "imports", &chart(), &json!({}));
    let manifest = notes.split("apply -f - <<EOF\n").nth(1).and_then(|rest| rest.split("EOF").next()).unwrap();
    let manifest: Value = serde_yaml::from_str(manifest).unwrap();
    assert!(env.try_apply(&manifest).status.success(), "what the notes tell to apply is taken: {notes}");
    env.delete("interactions");
    let tested = home.must(&["test", "imports", "--timeout", "5m"]);
    assert!(tested.contains("Phase:          Succeeded"), "{tested}");

    env.import("first", "d0", json!({}));
    env.wait_for_reason("first", "ImportSucceeded");
    eventually("its events are told", || env.event_reasons("first").contains(&"Submitted".to_owned()).then_some(()));

    // An upgrade in mid-import, with a new CRD and a new image.
    env.service.set_durations(1000, 600_000);
    env.import("second", "d1", json!({}));
    env.wait_for_reason("second", "Importing");
    let more = json!({"replicas": 2, "image": {"tag": "next"}, "podDisruptionBudget": {"enabled": true}});
    home.install("upgrade", "imports", &next, &more);
    let columns =
        text(&env.kubectl(&["get", CRD, "-o", "jsonpath={.spec.versions[0].additionalPrinterColumns[*].name}"]));
    assert!(columns.contains("Role"), "{columns}");
    assert_eq!(text(&env.kubectl(&["get", "deployment", "-o", "jsonpath={.items[0].status.readyReplicas}"])), "2");
    env.service.set_durations(0, 0);
    env.wait_for_reason("second", "ImportSucceeded");

    home.must(&["rollback", "imports", "1", "--wait", "--timeout", "5m"]);
    let columns =
        text(&env.kubectl(&["get", CRD, "-o", "jsonpath={.spec.versions[0].additionalPrinterColumns[*].name}"]));
    assert!(!columns.contains("Role") && columns.contains("Status"), "{columns}");

    home.must(&["uninstall", "imports", "--wait", "--timeout", "5m"]);
    eventually("the pods are gone", || {
        text(&env.kubectl(&["get", "pods", "-o", "name"])).trim().is_empty().then_some(())
    });
    for gone in ["deployment", "service", "role", "rolebinding", "poddisruptionbudget"] {
        assert!(text(&env.kubectl(&["get", gone, "-o", "name"])).trim().is_empty(), "{gone}");
    }
    let wide =
        ["get", "clusterrole,clusterrolebinding,validatingadmissionpolicy", "-l", "app.kubernetes.io/instance=imports"];
    assert!(text(&env.control_plane.kubectl(&wide, None).unwrap()).contains("No resources found"));
    for kept in [vec![CRD], vec!["dij", "first"], vec!["dij", "second"]] {
        assert!(home.is_there(&kept), "{kept:?} stays");
    }
    let exits = home.node.exits();
    assert!(exits.len() >= 4, "{exits:?}");
    assert!(exits.iter().all(|exit| exit.code == Some(0) && !exit.killed), "each stopped by itself in time: {exits:?}");

    // Installed again under its name, it takes the CRD over by itself. An import that is part of the release is
    // waited for, and an upgrade keeps what the install was told.
    let within = TestEnv::manifest("within", "d3", json!({}));
    home.install("install", "imports", &chart(), &json!({"replicas": 2, "extraObjects": [within]}));
    assert_eq!(env.status("within").status.as_deref(), Some("ACTIVE"), "--wait waited for it");
    let chart_dir = chart().display().to_string();
    let set = ["--reset-then-reuse-values", "--set", "concurrency=3", "--wait", "--timeout", "5m"];
    home.must(&[&["upgrade", "imports", &chart_dir], set.as_slice()].concat());
    let spec = text(&env.kubectl(&["get", "deployment", "-o", "jsonpath={.items[0].spec}"]));
    assert!(spec.contains("\"replicas\":2") && spec.contains("--concurrency=3"), "{spec}");
    home.must(&["uninstall", "imports", "--wait", "--timeout", "5m"]);

    // Installed again under another name, it takes the CRD over when told to, and imports nothing again.
    let (values, again) = (home.values(&json!({"crds": {"keep": false}})), chart().display().to_string());
    let install = ["install", "again", &again, "--values", &values, "--wait", "--timeout", "5m"];
    let refused = home.helm(&install);
    assert!(text(&refused).contains("invalid ownership metadata"), "{}", text(&refused));
    home.must(&[install.as_slice(), &["--take-ownership"]].concat());
    env.import("third", "d2", json!({}));
    env.wait_for_reason("third", "ImportSucceeded");
    assert_eq!(env.service.call_count("CreateDatasetImportJob"), 4);
    home.must(&["uninstall", "again", "--wait", "--timeout", "5m"]);
    eventually("the CRD is gone, which was not to be kept", || (!home.is_there(&[CRD])).then_some(()));
    kustomize(env.control_plane);
    control_plane.shutdown();
}

/// `kubectl apply -k` makes a working install, too. It comes after the release: both bring the CRD.
fn kustomize(control_plane: &'static ControlPlane) {
    let namespace = "personalize-operator";
    let config = file("config/default").display().to_string();
    let applied = control_plane.kubectl(&["apply", "--validate=strict", "-k", &config], None).unwrap();
    assert!(applied.status.success(), "{}", text(&applied));
    assert!(!text(&applied).contains("Warning"), "{}", text(&applied));
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let node = Node::start(&control_plane.kubeconfig(), namespace, dir.path(), images());
    let rollout = ["-n", namespace, "rollout", "status", "deployment/personalize-operator", "--timeout=5m"];
    let rolled = control_plane.kubectl(&rollout, None).unwrap();
    assert!(rolled.status.success(), "{}\n{}", text(&rolled), node.logs());
    let level = ["get", "namespace", namespace, "-o", "jsonpath={.metadata.labels}"];
    assert!(
        text(&control_plane.kubectl(&level, None).unwrap())
            .contains("\"pod-security.kubernetes.io/enforce\":\"restricted\"")
    );
    let deleted = control_plane.kubectl(&["delete", "--timeout=5m", "-k", &config], None).unwrap();
    assert!(deleted.status.success(), "{}", text(&deleted));
}

#[test]
fn a_namespaced_install_works_with_roles_alone() {
    let home = Home::new(shared_control_plane());
    let (env, other) = (&home.env, TestEnv::on(shared_control_plane()));
    let limited = "personalize-operator.io/allowed-dataset-arns=arn:aws:personalize:*:dataset/shop/d1";
    let limit = ["annotate", "namespace", &other.namespace, limited];
    assert!(other.kubectl(&limit).status.success());
    let unwatched = TestEnv::on(shared_control_plane());
    unwatched.import("unseen", "d9", json!({}));
    let watched = json!({"crds": {"enabled": false}, "watchNamespaces": [env.namespace, other.namespace]});
    home.install("install", "team", &chart(), &watched);
    let wide = ["get", "clusterrole,clusterrolebinding", "-l", "app.kubernetes.io/instance=team", "-o", "name"];
    assert!(text(&env.control_plane.kubectl(&wide, None).unwrap()).trim().is_empty());
    env.import("own", "d0", json!({}));
    env.wait_for_reason("own", "ImportSucceeded");
    // The Role lets the operator get the Namespace that it is in, so the limits are known.
    other.import("listed", "d1", json!({}));
    other.wait_for_reason("listed", "ImportSucceeded");
    other.import("unlisted", "d2", json!({}));
    let status = other.wait_for_reason("unlisted", "NotPermitted");
    let message = status.conditions.iter().find(|c| c.type_ == "Ready").map(|c| c.message.clone()).unwrap_or_default();
    assert!(message.contains("does not list it"), "{message}");
    assert_eq!(unwatched.status("unseen").observed_generation, Some(-1));
    home.must(&["uninstall", "team", "--wait", "--timeout", "5m"]);
}

/// A copy of the chart with a fault in one of its templates.
fn broken_chart(dir: &Path, template: &str, good: &str, bad: &str) -> PathBuf {
    let broken = dir.join("broken-chart");
    assert!(std::process::Command::new("cp").arg("-r").args([&chart(), &broken]).status().unwrap().success());
    let file = broken.join("templates").join(template);
    let whole = fs::read_to_string(&file).unwrap();
    let changed = whole.replacen(good, bad, 1);
    assert_ne!(whole, changed);
    fs::write(&file, changed).unwrap();
    broken
}

/// Tries to install a chart that can't become ready.
fn not_installed(home: &Home, chart: &Path) {
    let values = home.values(&json!({"crds": {"enabled": false}, "watchNamespaces": [home.env.namespace]}));
    let chart = chart.display().to_string();
    let tried = home.helm(&["install", "lame", &chart, "--values", &values, "--wait", "--timeout", "15s"]);
    assert!(!tried.status.success(), "{}", text(&tried));
}

#[test]
fn a_release_whose_operator_lacks_a_right_does_not_become_ready() {
    let home = Home::new(shared_control_plane());
    let good = "verbs: [get, list, watch]";
    not_installed(&home, &broken_chart(home.env.dir(), "_helpers.tpl", good, "verbs: [get, watch]"));
    eventually("the log tells which", || home.node.logs().contains("cannot list resource").then_some(()));
}

#[test]
fn a_release_whose_readiness_probe_asks_in_the_wrong_place_does_not_become_ready() {
    let home = Home::new(shared_control_plane());
    let broken = broken_chart(home.env.dir(), "deployment.yaml", "path: /readyz", "path: /nowhere");
    not_installed(&home, &broken);
    eventually("the operator itself is well", || home.node.logs().contains("leading").then_some(()));
}

#[test]
fn the_image_of_the_chart_is_of_this_version() {
    let about: Value = serde_yaml::from_str(&read("charts/personalize-operator/Chart.yaml")).unwrap();
    assert_eq!(about["appVersion"], env!("CARGO_PKG_VERSION"));
    assert!(
        read("charts/personalize-operator/Chart.yaml")
            .contains(&format!("personalize-operator:{}", env!("CARGO_PKG_VERSION")))
    );
}
