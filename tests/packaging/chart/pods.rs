//! Runs the pods of a namespace as processes, on a machine without containers and without root.
//!
//! kube-controller-manager creates the pods. Each one runs with its arguments, environment and projected volumes in a
//! user and mount namespace, whose read-only root holds only what the image holds. Once the paths of its probes answer, the
//! pod is reported as ready. When it is deleted, the process gets SIGTERM and the grace period.
//!
//! There is no kubelet: pods stay unscheduled, probes have no timing, and nothing is restarted. There is no network either:
//! pods listen on a loopback address where their arguments say 0.0.0.0, and /etc/hosts resolves the names of Services.

use super::helm::documents;
use crate::env::{block_on, eventually, http};
use control_plane::{ChildGuard, ControlPlane};
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Builds the container's root and replaces itself with the container's process. All steps share one PID, so that
/// signals reach the operator.
const ENTER: &str = r#"
set -eu
root=$1 binary=$2 hosts=$3 mounts=$4; shift 4
add_file() { mkdir -p "$root${2%/*}"; : > "$root$2"; mount --bind "$1" "$root$2"; }
mount -t tmpfs -o mode=755 tmpfs "$root"
for dir in /proc /dev; do mkdir "$root$dir"; mount --rbind "$dir" "$root$dir"; done
# The binary of an image is static. The one of the tests needs its libraries.
for file in $(ldd "$binary" | grep -o '/[^ )]*') /etc/ssl/certs/ca-certificates.crt; do add_file "$file" "$file"; done
add_file "$binary" /personalize-operator
add_file "$hosts" /etc/hosts
while IFS='|' read -r source target; do mkdir -p "$root$target"; mount --bind "$source" "$root$target"; done < "$mounts"
mount -o remount,bind,ro "$root"
exec unshare --user --map-user=65532 --map-group=65532 --root="$root" --wd=/ /personalize-operator "$@"
"#;

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How a container ended.
#[derive(Debug, Clone)]
pub struct Exit {
    pub pod: String,
    /// `None` if a signal ended it, such as SIGKILL after the grace period.
    pub code: Option<i32>,
}

/// Runs the pods of one namespace until it is dropped.
pub struct Pods {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    logs: PathBuf,
    exits: Arc<Mutex<Vec<Exit>>>,
}

impl Pods {
    /// Runs the pods of `namespace`, with their files in `dir`.
    pub fn run(control_plane: &'static ControlPlane, client: &Client, namespace: &str, dir: &Path) -> Self {
        let tried = Command::new("unshare").args(["--user", "--map-root-user", "--mount", "true"]).output();
        assert!(
            tried.as_ref().is_ok_and(|output| output.status.success()),
            "`unshare --user --map-root-user --mount true` fails, but this test needs user namespaces: {tried:?}"
        );
        let logs = dir.join("logs");
        fs::create_dir_all(&logs).unwrap();
        let (stop, exits) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let mut runner = Runner {
            control_plane,
            api: Api::namespaced(client.clone(), namespace),
            namespace: namespace.into(),
            dir: dir.into(),
            exits: Arc::clone(&exits),
            running: HashMap::new(),
        };
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                runner.sync();
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        Self { stop, thread: Some(thread), logs, exits }
    }

    /// The containers that have ended so far.
    pub fn exits(&self) -> Vec<Exit> {
        self.exits.lock().unwrap().clone()
    }

    /// The logs of all containers.
    pub fn logs(&self) -> String {
        let entries = fs::read_dir(&self.logs).unwrap();
        let logs = entries.map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap_or_default());
        logs.collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Pods {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic in the thread has printed its message already.
            let _ = thread.join();
        }
    }
}

struct Runner {
    control_plane: &'static ControlPlane,
    api: Api<Pod>,
    namespace: String,
    dir: PathBuf,
    exits: Arc<Mutex<Vec<Exit>>>,
    running: HashMap<String, Running>,
}

/// A pod whose container was started.
struct Running {
    name: String,
    address: String,
    process: ChildGuard,
    grace_period: Duration,
    ready: bool,
    ended: bool,
}

/// The items of a list, which may be absent.
fn items(list: &Value) -> &[Value] {
    list.as_array().map_or(&[], Vec::as_slice)
}

fn string(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is not a string"))
}

fn field(pod: &Value, path: &str) -> String {
    string(pod.pointer(&format!("/{}", path.replace('.', "/"))).unwrap()).to_owned()
}

impl Runner {
    /// Starts new pods, stops deleted ones, and reports changes in the others.
    fn sync(&mut self) {
        let api = self.api.clone();
        let Ok(list) = block_on(async move { api.list(&ListParams::default()).await }) else { return };
        let pods: Vec<Value> = list.items.into_iter().map(|pod| serde_json::to_value(pod).unwrap()).collect();
        let exits = Arc::clone(&self.exits);
        let record = |running: &Running, code| exits.lock().unwrap().push(Exit { pod: running.name.clone(), code });
        self.running.retain(|uid, running| {
            let exists = pods.iter().any(|pod| pod["metadata"]["uid"] == **uid);
            if !exists && !running.ended {
                let status = running.process.stop(running.grace_period).unwrap();
                record(running, status.code());
            }
            exists
        });
        for pod in &pods {
            let uid = field(pod, "metadata.uid");
            let Some(running) = self.running.get_mut(&uid) else {
                let started = self.start(pod, &pods);
                self.running.insert(uid, started);
                continue;
            };
            if running.ended {
                continue;
            }
            let mut status = json!({"podIP": running.address, "podIPs": [{"ip": running.address}]});
            if let Some(exit) = running.process.child().try_wait().unwrap() {
                record(running, exit.code());
                running.ended = true;
                status["phase"] = if exit.success() { "Succeeded" } else { "Failed" }.into();
            } else {
                let ready = probes_answer(pod, &running.address);
                if ready == running.ready {
                    continue;
                }
                running.ready = ready;
                status["phase"] = "Running".into();
                status["conditions"] = json!([{"type": "Ready", "status": if ready { "True" } else { "False" }}]);
            }
            let (api, name) = (self.api.clone(), running.name.clone());
            let patch = Patch::Merge(json!({"status": status}));
            // The pod may be gone by now.
            let _ = block_on(async move { api.patch_status(&name, &PatchParams::default(), &patch).await });
        }
    }

    fn start(&self, pod: &Value, all: &[Value]) -> Running {
        let [container] = items(&pod["spec"]["containers"]) else { panic!("the pod has several containers: {pod}") };
        let images = [env!("CARGO_PKG_VERSION"), "next"].map(|tag| format!("localhost/personalize-operator:{tag}"));
        assert!(images.iter().any(|image| container["image"] == **image), "no such image: {container}");
        for unsupported in ["command", "envFrom", "lifecycle", "startupProbe"] {
            assert!(container[unsupported].is_null(), "{unsupported} is not supported: {container}");
        }
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let address = format!("127.{}.{}.{}", 16 + std::process::id() % 48, number / 250, 1 + number % 250);
        let name = field(pod, "metadata.name");
        let dir = self.dir.join(field(pod, "metadata.uid"));
        fs::create_dir_all(dir.join("root")).unwrap();
        fs::write(dir.join("hosts"), self.hosts(all, &name, &address)).unwrap();
        fs::write(dir.join("mounts"), self.mounts(pod, container, &dir)).unwrap();

        let environment = self.environment(pod, container);
        let mut args: Vec<String> =
            ["--user", "--map-root-user", "--mount", "sh", "-c", ENTER, "sh"].map(String::from).into();
        args.push(dir.join("root").display().to_string());
        args.push(env!("CARGO_BIN_EXE_personalize-operator").into());
        args.extend(["hosts", "mounts"].map(|file| dir.join(file).display().to_string()));
        args.extend(items(&container["args"]).iter().map(|arg| string(arg).replace("0.0.0.0", &address)));
        let log = File::create(self.dir.join("logs").join(&name)).unwrap();
        let process = ChildGuard::spawn(Path::new("unshare"), &args, |command| {
            command.env_clear().envs(environment).stdout(log.try_clone().unwrap()).stderr(log);
        });
        let grace_period = pod["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap();
        Running {
            name,
            address,
            process: process.unwrap(),
            grace_period: Duration::from_secs(grace_period),
            ready: false,
            ended: false,
        }
    }

    /// Runs kubectl until it succeeds, as a kubelet waits for what a pod refers to.
    fn kubectl(&self, args: &[&str]) -> String {
        let args = [&["-n", self.namespace.as_str()], args].concat();
        eventually(&format!("kubectl {args:?} succeeds"), || {
            let output = self.control_plane.kubectl(&args, None).unwrap();
            output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
        })
    }

    fn get(&self, what: &[&str]) -> Value {
        documents(&self.kubectl(&[&["get", "-o", "yaml"], what].concat())).remove(0)
    }

    fn environment(&self, pod: &Value, container: &Value) -> HashMap<String, String> {
        let server = self.control_plane.server();
        let (host, port) = server.trim_start_matches("https://").split_once(':').unwrap();
        let known = [("PATH", PATH), ("KUBERNETES_SERVICE_HOST", host), ("KUBERNETES_SERVICE_PORT", port)];
        let mut environment: HashMap<_, _> = known.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        for variable in items(&container["env"]) {
            let (source, name) = (&variable["valueFrom"], string(&variable["name"]).to_owned());
            let value = match (&source["fieldRef"], &source["secretKeyRef"]) {
                (Value::Null, Value::Null) => string(&variable["value"]).to_owned(),
                (Value::Null, secret) => {
                    let decode = format!("go-template={{{{index .data {} | base64decode}}}}", secret["key"]);
                    self.kubectl(&["get", "secret", string(&secret["name"]), "-o", &decode])
                }
                (reference, _) => field(pod, string(&reference["fieldPath"])),
            };
            environment.insert(name, value);
        }
        environment
    }

    /// Writes the files of the container's volumes, and lists source and target of each mount.
    fn mounts(&self, pod: &Value, container: &Value, dir: &Path) -> String {
        let mut mounts = String::new();
        for mount in items(&container["volumeMounts"]) {
            let volume = items(&pod["spec"]["volumes"]).iter().find(|volume| volume["name"] == mount["name"]).unwrap();
            let source = dir.join(string(&mount["name"]));
            fs::create_dir_all(&source).unwrap();
            let write = |path: &Value, content: &str| fs::write(source.join(string(path)), content).unwrap();
            assert!(volume["projected"].is_object(), "only projected volumes are supported: {volume}");
            for projection in items(&volume["projected"]["sources"]) {
                let token = &projection["serviceAccountToken"]["path"];
                if !token.is_null() {
                    // Not bound to the pod: it has to outlive an unscheduled pod, which is deleted without a grace period.
                    write(token, self.kubectl(&["create", "token", string(&pod["spec"]["serviceAccountName"])]).trim());
                }
                let map = &projection["configMap"];
                if !map.is_null() {
                    let data = &self.get(&["configmap", string(&map["name"])])["data"];
                    for item in items(&map["items"]) {
                        write(&item["path"], string(&data[string(&item["key"])]));
                    }
                }
                for item in items(&projection["downwardAPI"]["items"]) {
                    write(&item["path"], &field(pod, string(&item["fieldRef"]["fieldPath"])));
                }
            }
            mounts += &format!("{}|{}\n", source.display(), string(&mount["mountPath"]));
        }
        mounts
    }

    /// The pod's /etc/hosts: the name of each Service leads to a ready pod that has its labels and its port.
    fn hosts(&self, all: &[Value], name: &str, address: &str) -> String {
        let mut hosts = format!("127.0.0.1\tlocalhost\n{address}\t{name}\n");
        for service in items(&self.get(&["services"])["items"]) {
            let (selector, port) = (&service["spec"]["selector"], &service["spec"]["ports"][0]);
            let serves = |pod: &&Value| {
                let labels = &pod["metadata"]["labels"];
                let mut ports = items(&pod["spec"]["containers"][0]["ports"]).iter();
                selector.as_object().is_some_and(|selector| selector.iter().all(|(key, value)| labels[key] == *value))
                    && ports.any(|p| p["name"] == port["targetPort"] && p["containerPort"] == port["port"])
            };
            let running = all.iter().filter(serves).filter_map(|pod| self.running.get(string(&pod["metadata"]["uid"])));
            if let Some(pod) = running.into_iter().find(|running| running.ready) {
                hosts += &format!("{}\t{}.{}.svc\n", pod.address, field(service, "metadata.name"), self.namespace);
            }
        }
        hosts
    }
}

/// Whether the paths of the container's probes answer; false if it has none.
fn probes_answer(pod: &Value, address: &str) -> bool {
    let container = &pod["spec"]["containers"][0];
    let probes = ["readinessProbe", "livenessProbe"].map(|probe| &container[probe]["httpGet"]);
    probes.iter().all(|get| {
        let port = items(&container["ports"]).iter().find(|port| port["name"] == get["port"]);
        port.is_some_and(|port| {
            let url = format!("http://{address}:{}{}", port["containerPort"], string(&get["path"]));
            http("GET", &url, "").is_some_and(|(status, _)| (200..400).contains(&status))
        })
    })
}
