//! From pods to containers, and from containers to the status of pods.

use super::container::{Container, Ended};
use super::volumes::{self, Context};
use super::{Exit, Image};
use k8s_openapi::api::core::v1::{Binding, Node, ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, ResourceExt};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub(super) type Failure = Box<dyn std::error::Error + Send + Sync>;

pub(super) struct Kubelet {
    kubeconfig: PathBuf,
    namespace: String,
    dir: PathBuf,
    images: HashMap<String, Image>,
    exits: Arc<Mutex<Vec<Exit>>>,
    client: Option<(Client, http::Uri)>,
    beaten: Option<Instant>,
    pods: HashMap<String, Played>,
    addresses: u16,
}

/// A pod that this node runs.
struct Played {
    address: String,
    container: Option<Container>,
    /// Why the container does not run, and until when.
    waiting: Option<(&'static str, String, Instant)>,
    finished: Option<i32>,
    restarts: i32,
    terminating: Option<Instant>,
    killed: bool,
    told: Value,
}

impl Kubelet {
    pub(super) fn new(
        kubeconfig: &Path,
        namespace: &str,
        dir: &Path,
        images: HashMap<String, Image>,
        exits: Arc<Mutex<Vec<Exit>>>,
    ) -> Self {
        std::fs::create_dir_all(dir.join("logs")).unwrap();
        Self {
            kubeconfig: kubeconfig.into(),
            namespace: namespace.into(),
            dir: dir.into(),
            images,
            exits,
            client: None,
            beaten: None,
            pods: HashMap::new(),
            addresses: 0,
        }
    }

    fn name(&self) -> String {
        format!("node-of-{}", self.namespace)
    }

    /// An address of this process's own.
    fn address(&mut self) -> String {
        self.addresses += 1;
        let process = std::process::id() % 60_000;
        let node = self.namespace.bytes().fold(0_u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
        format!("127.{}.{}.{}", 16 + process % 200, node, 1 + self.addresses % 250)
    }

    async fn client(&mut self) -> Result<(Client, http::Uri), Failure> {
        if self.client.is_none() {
            let file = Kubeconfig::read_from(&self.kubeconfig)?;
            let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
            let url = config.cluster_url.clone();
            self.client = Some((Client::try_from(config)?, url));
        }
        self.client.clone().ok_or_else(|| "no client".into())
    }

    pub(super) async fn pass(&mut self) -> Result<(), Failure> {
        let (client, server) = self.client().await?;
        self.beat(&client).await?;
        let api: Api<Pod> = Api::namespaced(client.clone(), &self.namespace);
        let pods = api.list(&ListParams::default()).await?.items;
        self.pods.retain(|uid, _| pods.iter().any(|pod| pod.metadata.uid.as_ref() == Some(uid)));
        for pod in &pods {
            let spec = pod.spec.clone().unwrap_or_default();
            match spec.node_name {
                None if pod.metadata.deletion_timestamp.is_none() && runs_here(&spec.node_selector) => {
                    self.bind(&api, pod).await?;
                }
                Some(node) if node == self.name() => self.play(&client, &server, &api, pod, &pods).await?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Without a heartbeat the node's pods would be evicted.
    async fn beat(&mut self, client: &Client) -> Result<(), Failure> {
        if self.beaten.is_some_and(|at| at.elapsed() < Duration::from_secs(5)) {
            return Ok(());
        }
        let nodes: Api<Node> = Api::all(client.clone());
        if nodes.get_opt(&self.name()).await?.is_none() {
            let node = json!({"metadata": {"name": self.name(), "labels": {"kubernetes.io/os": "linux"}}});
            nodes.create(&PostParams::default(), &serde_json::from_value(node)?).await?;
        }
        let now = jiff::Timestamp::now().to_string();
        let ready =
            json!({"type": "Ready", "status": "True", "reason": "Played", "message": "", "lastHeartbeatTime": now});
        let patch = json!({"status": {"conditions": [ready]}});
        nodes.patch_status(&self.name(), &PatchParams::default(), &Patch::Merge(&patch)).await?;
        self.beaten = Some(Instant::now());
        Ok(())
    }

    /// There is no scheduler.
    async fn bind(&self, api: &Api<Pod>, pod: &Pod) -> Result<(), Failure> {
        let target = ObjectReference { kind: Some("Node".into()), name: Some(self.name()), ..Default::default() };
        let binding = Binding {
            metadata: kube::api::ObjectMeta { name: pod.metadata.name.clone(), ..Default::default() },
            target,
        };
        let _: Value = api.create_subresource("binding", &pod.name_any(), &PostParams::default(), &binding).await?;
        Ok(())
    }

    async fn play(
        &mut self,
        client: &Client,
        server: &http::Uri,
        api: &Api<Pod>,
        pod: &Pod,
        all: &[Pod],
    ) -> Result<(), Failure> {
        let uid = pod.uid().unwrap_or_default();
        if !self.pods.contains_key(&uid) {
            let address = self.address();
            self.pods.insert(uid.clone(), Played::new(address));
        }
        let Some(mut played) = self.pods.remove(&uid) else { return Ok(()) };
        played.collect(pod, &self.exits);
        if pod.metadata.deletion_timestamp.is_some() {
            if played.terminated(pod) {
                let own = Preconditions { uid: Some(uid), ..Preconditions::default() };
                let at_once =
                    DeleteParams { grace_period_seconds: Some(0), preconditions: Some(own), ..DeleteParams::default() };
                api.delete(&pod.name_any(), &at_once).await?;
                return Ok(());
            }
        } else if played.may_start() {
            match self.start(client, server, pod, all, &played).await {
                Ok(container) => {
                    played.container = Some(container);
                    played.waiting = None;
                }
                Err(why) => {
                    let until = Instant::now() + Duration::from_secs(1);
                    played.waiting = Some(("CreateContainerConfigError", why.to_string(), until));
                }
            }
        }
        let outcome = match &mut played.container {
            Some(container) => container.probe(pod, &played.address).await,
            None => Ok(()),
        };
        let status = played.status(pod);
        if status != played.told {
            api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(&json!({"status": status})))
                .await?;
            played.told = status;
        }
        self.pods.insert(uid, played);
        outcome
    }

    async fn start(
        &self,
        client: &Client,
        server: &http::Uri,
        pod: &Pod,
        all: &[Pod],
        played: &Played,
    ) -> Result<Container, Failure> {
        volumes::refuse_what_is_not_played(pod)?;
        let wanted =
            pod.spec.iter().flat_map(|spec| &spec.containers).find_map(|c| c.image.clone()).unwrap_or_default();
        let image = self.images.get(&wanted).ok_or_else(|| format!("this node has no image {wanted:?}"))?;
        let services: Api<Service> = Api::namespaced(client.clone(), &self.namespace);
        let hosts = self.hosts(pod, &services.list(&ListParams::default()).await?.items, all, &played.address);
        let context = Context {
            client: client.clone(),
            pod: pod.clone(),
            address: played.address.clone(),
            server: (server.host().unwrap_or_default().into(), server.port_u16().unwrap_or(443)),
            dir: self.dir.join(pod.uid().unwrap_or_default()).join(played.restarts.to_string()),
        };
        let log = self.dir.join("logs").join(format!("{}-{}", pod.name_any(), played.restarts));
        Container::start(image, &context, &hosts, &log).await
    }

    /// What stands for DNS and the routing of Services: the name of each leads to a ready pod of it.
    fn hosts(&self, pod: &Pod, services: &[Service], all: &[Pod], own: &str) -> String {
        let mut hosts = format!("127.0.0.1\tlocalhost\n{own}\t{}\n", pod.name_any());
        for service in services {
            let Some(spec) = &service.spec else { continue };
            let Some(selector) = &spec.selector else { continue };
            let behind = all.iter().find(|pod| {
                let ready = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
                let ready = ready.into_iter().any(|c| c.type_ == "Ready" && c.status == "True");
                ready && selector.iter().all(|(key, value)| pod.labels().get(key) == Some(value))
            });
            // A port that is not the container's own, or leads nowhere, is not played.
            let address = behind
                .filter(|pod| spec.ports.iter().flatten().all(|port| leads_to(pod, port)))
                .and_then(|pod| pod.status.as_ref()?.pod_ip.clone());
            if let Some(address) = address {
                hosts += &format!("{address}\t{}.{}.svc\n", service.name_any(), self.namespace);
            }
        }
        hosts
    }
}

/// Whether a Service's port is that of a container of the pod, under the same number.
fn leads_to(pod: &Pod, port: &ServicePort) -> bool {
    let ports = pod.spec.iter().flat_map(|spec| &spec.containers).flat_map(|c| c.ports.iter().flatten());
    let target = match &port.target_port {
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            ports.into_iter().find(|p| p.name.as_ref() == Some(name)).map(|p| p.container_port)
        }
        None => Some(port.port),
    };
    target == Some(port.port)
}

fn runs_here(selector: &Option<std::collections::BTreeMap<String, String>>) -> bool {
    selector.iter().flatten().all(|(key, value)| key == "kubernetes.io/os" && value == "linux")
}

impl Played {
    fn new(address: String) -> Self {
        Self {
            address,
            container: None,
            waiting: None,
            finished: None,
            restarts: 0,
            terminating: None,
            killed: false,
            told: Value::Null,
        }
    }

    fn may_start(&self) -> bool {
        let over = self.waiting.as_ref().is_none_or(|(_, _, until)| Instant::now() >= *until);
        self.container.is_none() && self.finished.is_none() && over
    }

    /// Notes a container that has ended, by itself or by its liveness probe.
    fn collect(&mut self, pod: &Pod, exits: &Mutex<Vec<Exit>>) {
        let Some(container) = &mut self.container else { return };
        let Some(Ended { code }) = container.ended() else { return };
        self.container = None;
        exits.lock().unwrap().push(Exit { pod: pod.name_any(), code, killed: self.killed });
        let never = pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()) == Some("Never");
        if never || self.terminating.is_some() {
            self.finished = Some(code.unwrap_or(137));
        } else {
            self.restarts += 1;
            let until = Instant::now() + Duration::from_secs(1);
            self.waiting = Some(("CrashLoopBackOff", format!("the container ended: {code:?}"), until));
        }
    }

    /// Stops the container as the pod's grace period says; true once nothing runs any more.
    fn terminated(&mut self, pod: &Pod) -> bool {
        let Some(container) = &mut self.container else { return true };
        let grace = u64::try_from(pod.metadata.deletion_grace_period_seconds.unwrap_or(30)).unwrap_or(0);
        match self.terminating {
            None => {
                container.terminate();
                self.terminating = Some(Instant::now() + Duration::from_secs(grace));
            }
            Some(end) if Instant::now() >= end && !self.killed => {
                self.killed = true;
                container.kill();
            }
            Some(_) => {}
        }
        false
    }

    fn status(&self, pod: &Pod) -> Value {
        let spec = pod.spec.clone().unwrap_or_default();
        let container = spec.containers.first();
        let ready = self.container.as_ref().is_some_and(Container::ready) && self.terminating.is_none();
        let state = match (&self.container, self.finished, &self.waiting) {
            (Some(container), ..) => json!({"running": {"startedAt": container.started}, "waiting": null}),
            (None, Some(code), _) => json!({"terminated": {"exitCode": code}, "running": null, "waiting": null}),
            (None, None, Some((reason, message, _))) => {
                json!({"waiting": {"reason": reason, "message": message}, "running": null})
            }
            (None, None, None) => json!({"waiting": {"reason": "ContainerCreating"}}),
        };
        let phase = match (&self.container, self.finished) {
            (_, Some(0)) => "Succeeded",
            (_, Some(_)) => "Failed",
            (Some(_), None) => "Running",
            (None, None) if self.restarts > 0 => "Running",
            (None, None) => "Pending",
        };
        let condition = |kind: &str, holds: bool| json!({"type": kind, "status": if holds { "True" } else { "False" }});
        json!({
            "phase": phase,
            "podIP": self.address,
            "podIPs": [{"ip": self.address}],
            "conditions": [
                condition("PodScheduled", true),
                condition("Initialized", true),
                condition("ContainersReady", ready),
                condition("Ready", ready),
            ],
            "containerStatuses": [{
                "name": container.map(|c| c.name.clone()),
                "image": container.and_then(|c| c.image.clone()),
                "imageID": "",
                "ready": ready,
                "started": self.container.is_some(),
                "restartCount": self.restarts,
                "state": state,
            }],
        })
    }
}
