//! The life of a release on a real API server, with the pods that its Deployment creates.

use super::helm::{chart, file, helm, merged, read};
use super::pods::Pods;
use crate::env::personalize_local::{ACCESS_KEY, SECRET_KEY};
use crate::env::{TestEnv, eventually, shared_control_plane, text};
use control_plane::{ControlPlane, KUBERNETES_VERSIONS};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const CRD: &str = "crd/datasetimportjobs.personalize-operator.io";

/// A namespace with the restricted Pod Security level, for a release and its pods.
struct Home {
    env: TestEnv,
    pods: Pods,
}

impl Home {
    fn new(control_plane: &'static ControlPlane) -> Self {
        let env = TestEnv::on(control_plane);
        let label = ["label", "namespace", &env.namespace, "pod-security.kubernetes.io/enforce=restricted"];
        assert!(control_plane.kubectl(&label, None).unwrap().status.success());
        let pods = Pods::run(control_plane, &env.client, &env.namespace, &env.dir().join("pods"));
        let keys = [
            format!("--from-literal=AWS_ACCESS_KEY_ID={ACCESS_KEY}"),
            format!("--from-literal=AWS_SECRET_ACCESS_KEY={SECRET_KEY}"),
        ];
        let secret = env.kubectl(&["create", "secret", "generic", "aws", &keys[0], &keys[1]]);
        assert!(secret.status.success(), "{}", text(&secret));
        Self { env, pods }
    }

    fn helm(&self, args: &[&str]) -> Output {
        let kubeconfig = self.env.control_plane.kubeconfig().display().to_string();
        let common = ["--kubeconfig", &kubeconfig, "--namespace", &self.env.namespace];
        helm(&self.env.dir().join("helm"), &[args, &common].concat())
    }

    /// Runs helm, which must succeed.
    fn must(&self, args: &[&str]) -> String {
        let output = self.helm(args);
        let state = || text(&self.env.kubectl(&["get", "events,pods", "-o", "wide"]));
        assert!(output.status.success(), "helm {args:?}: {}\n{}\n{}", text(&output), state(), self.pods.logs());
        text(&output)
    }

    /// A values file with the address of the fake service and timings for tests.
    fn values(&self, more: &Value) -> String {
        let values = json!({
            "aws": {"endpointUrl": self.env.service.url(), "credentialsSecret": {"name": "aws"}},
            "leaderElection": {"leaseDuration": "3s"},
            "imports": {"pollMin": "200ms", "pollMax": "500ms", "grace": "2s", "backoffMin": "200ms"},
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

    fn exists(&self, what: &[&str]) -> bool {
        self.env.kubectl(&[&["get"], what].concat()).status.success()
    }

    /// What `kubectl get` prints of this resource by a JSONPath.
    fn field(&self, what: &str, path: &str) -> String {
        text(&self.env.kubectl(&["get", what, "-o", &format!("jsonpath={path}")]))
    }

    fn crd_columns(&self) -> String {
        self.field(CRD, "{.spec.versions[0].additionalPrinterColumns[*].name}")
    }
}

/// A copy of the chart with one change in one file.
fn changed_chart(dir: &Path, path: &str, from: &str, to: &str) -> PathBuf {
    let copy = dir.join("changed-chart");
    assert!(Command::new("cp").arg("-r").args([&chart(), &copy]).status().unwrap().success());
    let file = copy.join(path);
    let before = fs::read_to_string(&file).unwrap();
    let after = before.replacen(from, to, 1);
    assert_ne!(before, after);
    fs::write(&file, after).unwrap();
    copy
}

#[test]
fn release_is_installed_upgraded_rolled_back_and_reinstalled_without_repeating_an_import() {
    // This control plane has no CRD yet. It ends with the process.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let control_plane = Box::leak(Box::new(ControlPlane::start(dir.path()).unwrap()));
    let home = Home::new(control_plane);
    let env = &home.env;
    let notes = home.install("install", "imports", &chart(), &json!({}));
    assert!(notes.contains("WARNING: everybody with the built-in role edit or admin"), "{notes}");
    let manifest = notes.split("apply -f - <<EOF\n").nth(1).and_then(|rest| rest.split("EOF").next()).unwrap();
    let manifest: Value = serde_yaml::from_str(manifest).unwrap();
    assert!(env.try_apply(&manifest).status.success(), "the API server accepts the manifest in the notes: {notes}");
    env.delete("interactions");
    let tested = home.must(&["test", "imports", "--timeout", "5m"]);
    assert!(tested.contains("Phase:          Succeeded"), "{tested}");

    env.import("first", "d0", json!({}));
    env.wait_for_reason("first", "ImportSucceeded");
    eventually("the operator publishes events", || {
        env.event_reasons("first").contains(&"Submitted".to_owned()).then_some(())
    });

    // Upgrade the CRD and the image while an import runs.
    env.service.set_durations(0, 600_000);
    env.import("second", "d1", json!({}));
    env.wait_for_reason("second", "Importing");
    let columns = "  - additionalPrinterColumns:\n";
    let role = format!("{columns}    - jsonPath: .spec.roleArn\n      name: Role\n      type: string\n");
    let next = changed_chart(env.dir(), "files/datasetimportjobs.yaml", columns, &role);
    let more = json!({"replicas": 2, "image": {"tag": "next"}, "podDisruptionBudget": {"enabled": true}});
    home.install("upgrade", "imports", &next, &more);
    assert!(home.crd_columns().contains("Role"), "{}", home.crd_columns());
    // A replica that takes over is not ready until it has listed the resources.
    eventually("both replicas are ready", || {
        (home.field("deployment", "{.items[0].status.readyReplicas}") == "2").then_some(())
    });
    env.service.set_durations(0, 0);
    env.wait_for_reason("second", "ImportSucceeded");

    home.must(&["rollback", "imports", "1", "--wait", "--timeout", "5m"]);
    let columns = home.crd_columns();
    assert!(!columns.contains("Role") && columns.contains("Status"), "{columns}");

    home.must(&["uninstall", "imports", "--wait", "--timeout", "5m"]);
    eventually("all pods are deleted", || {
        text(&env.kubectl(&["get", "pods", "-o", "name"])).trim().is_empty().then_some(())
    });
    for kind in ["deployment", "service", "role", "rolebinding", "poddisruptionbudget"] {
        assert!(text(&env.kubectl(&["get", kind, "-o", "name"])).trim().is_empty(), "{kind}");
    }
    let cluster_wide =
        ["get", "clusterrole,clusterrolebinding,validatingadmissionpolicy", "-l", "app.kubernetes.io/instance=imports"];
    assert!(text(&env.control_plane.kubectl(&cluster_wide, None).unwrap()).contains("No resources found"));
    for remaining in [vec![CRD], vec!["dij", "first"], vec!["dij", "second"]] {
        assert!(home.exists(&remaining), "{remaining:?} survives the uninstall");
    }
    // One pod of the install, two of the upgrade, one of the rollback, and the pod of `helm test`.
    let exits = eventually("all containers have ended", || Some(home.pods.exits()).filter(|exits| exits.len() >= 5));
    assert!(exits.iter().all(|exit| exit.code == Some(0)), "each pod stops within its grace period: {exits:?}");

    // A reinstall under the same name takes over the CRD. `--wait` also waits for an import in the release, and an
    // upgrade keeps the values of the install.
    let within = TestEnv::manifest("within", "d3", json!({}));
    home.install("install", "imports", &chart(), &json!({"replicas": 2, "extraObjects": [within]}));
    assert_eq!(env.status("within").status.as_deref(), Some("ACTIVE"), "--wait waits for the import");
    let chart_dir = chart().display().to_string();
    let set = ["--reset-then-reuse-values", "--set", "concurrency=3", "--wait", "--timeout", "5m"];
    home.must(&[&["upgrade", "imports", &chart_dir], set.as_slice()].concat());
    let spec = home.field("deployment", "{.items[0].spec}");
    assert!(spec.contains("\"replicas\":2") && spec.contains("--concurrency=3"), "{spec}");
    home.must(&["uninstall", "imports", "--wait", "--timeout", "5m"]);

    // A reinstall under another name takes over the CRD only with --take-ownership, and repeats no import.
    let values = home.values(&json!({"crds": {"keep": false}}));
    let install = ["install", "again", &chart_dir, "--values", &values, "--wait", "--timeout", "5m"];
    let rejected = home.helm(&install);
    assert!(text(&rejected).contains("invalid ownership metadata"), "{}", text(&rejected));
    home.must(&[install.as_slice(), &["--take-ownership"]].concat());
    env.import("third", "d2", json!({}));
    env.wait_for_reason("third", "ImportSucceeded");
    assert_eq!(env.service.call_count("CreateDatasetImportJob"), 4);
    home.must(&["uninstall", "again", "--wait", "--timeout", "5m"]);
    eventually("the CRD is deleted with crds.keep=false", || (!home.exists(&[CRD])).then_some(()));
    kustomize(env);
    control_plane.shutdown();
}

/// Installs with `kubectl apply -k`. This comes after the release, because both bring the CRD.
fn kustomize(env: &TestEnv) {
    let (control_plane, namespace) = (env.control_plane, "personalize-operator");
    let config = file("config/default").display().to_string();
    let applied = control_plane.kubectl(&["apply", "--validate=strict", "-k", &config], None).unwrap();
    assert!(applied.status.success(), "{}", text(&applied));
    assert!(!text(&applied).contains("Warning"), "{}", text(&applied));
    let pods = Pods::run(control_plane, &env.client, namespace, &env.dir().join("kustomize"));
    let rollout = ["-n", namespace, "rollout", "status", "deployment/personalize-operator", "--timeout=5m"];
    let rolled_out = control_plane.kubectl(&rollout, None).unwrap();
    assert!(rolled_out.status.success(), "{}\n{}", text(&rolled_out), pods.logs());
    let labels = ["get", "namespace", namespace, "-o", "jsonpath={.metadata.labels}"];
    let labels = text(&control_plane.kubectl(&labels, None).unwrap());
    assert!(labels.contains("\"pod-security.kubernetes.io/enforce\":\"restricted\""), "{labels}");
    let deleted = control_plane.kubectl(&["delete", "--timeout=5m", "-k", &config], None).unwrap();
    assert!(deleted.status.success(), "{}", text(&deleted));
}

#[test]
fn namespaced_release_imports_with_roles_only_and_leaves_other_namespaces_alone() {
    let home = Home::new(shared_control_plane());
    let (env, other) = (&home.env, TestEnv::on(shared_control_plane()));
    let limit = "personalize-operator.io/allowed-dataset-arns=arn:aws:personalize:*:dataset/shop/d1";
    assert!(other.kubectl(&["annotate", "namespace", &other.namespace, limit]).status.success());
    let unwatched = TestEnv::on(shared_control_plane());
    unwatched.import("unseen", "d9", json!({}));
    let watched = json!({"crds": {"enabled": false}, "watchNamespaces": [env.namespace, other.namespace]});
    let notes = home.install("install", "team", &chart(), &watched);
    assert!(!notes.contains("WARNING"), "no built-in role gets permissions in a namespaced install: {notes}");
    let cluster_wide = ["get", "clusterrole,clusterrolebinding", "-l", "app.kubernetes.io/instance=team", "-o", "name"];
    assert!(text(&env.control_plane.kubectl(&cluster_wide, None).unwrap()).trim().is_empty());
    env.import("import", "d0", json!({}));
    env.wait_for_reason("import", "ImportSucceeded");
    // The Role lets the operator read the Namespace, so it knows the limits.
    other.import("listed", "d1", json!({}));
    other.wait_for_reason("listed", "ImportSucceeded");
    other.import("unlisted", "d2", json!({}));
    let status = other.wait_for_reason("unlisted", "NotPermitted");
    let message = status.conditions.iter().find(|c| c.type_ == "Ready").map(|c| c.message.clone()).unwrap_or_default();
    assert!(message.contains("does not list it"), "{message}");
    assert_eq!(unwatched.status("unseen").observed_generation, Some(-1));
    home.must(&["uninstall", "team", "--wait", "--timeout", "5m"]);
}

/// Installs a faulty chart. Its operator logs this, and the release never becomes ready.
fn never_ready(path: &str, from: &str, to: &str, log: &str) {
    let home = Home::new(shared_control_plane());
    let chart = changed_chart(home.env.dir(), path, from, to).display().to_string();
    let values = home.values(&json!({"crds": {"enabled": false}, "watchNamespaces": [home.env.namespace]}));
    home.must(&["install", "faulty", &chart, "--values", &values]);
    eventually(log, || home.pods.logs().contains(log).then_some(()));
    let upgraded = home.helm(&["upgrade", "faulty", &chart, "--values", &values, "--wait", "--timeout", "5s"]);
    assert!(!upgraded.status.success(), "{}", text(&upgraded));
}

#[test]
fn missing_permission_keeps_the_release_unready() {
    never_ready("templates/_helpers.tpl", "verbs: [get, list, watch]", "verbs: [get, watch]", "cannot list resource");
}

#[test]
fn wrong_path_of_the_readiness_probe_keeps_the_release_unready() {
    never_ready("templates/deployment.yaml", "path: /readyz", "path: /nowhere", "leading");
}

#[test]
fn chart_demands_the_oldest_version_of_kubernetes_that_is_tested() {
    let metadata: Value = serde_yaml::from_str(&read("charts/personalize-operator/Chart.yaml")).unwrap();
    assert_eq!(metadata["kubeVersion"], format!(">={}.0-0", KUBERNETES_VERSIONS[0]));
    let docs = read("docs/installation.md");
    assert!(docs.contains(&format!("It needs Kubernetes {} or newer.", KUBERNETES_VERSIONS[0])), "{docs}");
    let rows: Vec<&str> = docs.lines().filter(|line| line.contains("`make test")).collect();
    for version in KUBERNETES_VERSIONS {
        assert!(rows.iter().any(|row| row.contains(version)), "{version}: {rows:?}");
    }
}

#[test]
fn chart_and_crate_have_the_same_version() {
    let metadata: Value = serde_yaml::from_str(&read("charts/personalize-operator/Chart.yaml")).unwrap();
    assert_eq!(metadata["appVersion"], env!("CARGO_PKG_VERSION"));
    let images = metadata["annotations"]["artifacthub.io/images"].as_str().unwrap();
    assert!(images.contains(&format!("personalize-operator:{}", env!("CARGO_PKG_VERSION"))), "{images}");
}
