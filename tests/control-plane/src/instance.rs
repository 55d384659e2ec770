//! One running control plane, and the one that the tests of a process share.

use crate::binaries::{path_of, tail};
use crate::certificates::Authority;
use crate::child_guard::ChildGuard;
use crate::{Error, io};
use rustix::process::Signal;
use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How long a part may take to come up; these machines can be slow.
const PATIENCE: Duration = Duration::from_secs(120);

/// A part of the control plane that can be stopped, restarted and paused by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Component {
    /// etcd.
    Etcd,
    /// kube-apiserver.
    ApiServer,
    /// kube-controller-manager.
    ControllerManager,
}

impl Component {
    fn program(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
        }
    }
}

/// A control plane. Dropping it stops it.
#[derive(Debug)]
pub struct ControlPlane {
    dir: PathBuf,
    authority: Authority,
    kubectl: PathBuf,
    ports: [u16; 3],
    parts: Mutex<HashMap<Component, ChildGuard>>,
    /// A directory that goes with the instance.
    _own: Option<tempfile::TempDir>,
}

impl ControlPlane {
    /// Starts etcd, kube-apiserver and kube-controller-manager, with all their files in `dir`, and
    /// waits until they are ready. Blocks; builds the programs first where they are missing.
    ///
    /// # Errors
    /// When a program can't be had, or a part doesn't get ready.
    pub fn start(dir: &Path) -> Result<Self, Error> {
        Self::start_in(dir, None)
    }

    /// Starts an instance in a directory that is removed with it.
    ///
    /// # Errors
    /// As [`ControlPlane::start`].
    pub fn temporary() -> Result<Self, Error> {
        let own = tempfile::Builder::new().prefix("control-plane-").tempdir().map_err(io("a temporary directory"))?;
        let dir = own.path().to_owned();
        Self::start_in(&dir, Some(own))
    }

    fn start_in(dir: &Path, own: Option<tempfile::TempDir>) -> Result<Self, Error> {
        fs::create_dir_all(dir).map_err(io(dir.display().to_string()))?;
        let dir = dir.canonicalize().map_err(io("the directory"))?;
        for program in ["etcd", "kubectl", "kube-apiserver", "kube-controller-manager"] {
            path_of(program)?;
        }
        let authority = Authority::create(&dir.join("pki"))?;
        fs::write(dir.join("audit-policy.yaml"), AUDIT_POLICY).map_err(io("the audit policy"))?;
        let kubectl = path_of("kubectl")?;
        let mut instance = Self { dir, authority, kubectl, ports: [0; 3], parts: Mutex::default(), _own: own };
        let mut tries = 0;
        loop {
            instance.ports = free_ports()?;
            tries += 1;
            match instance.bring_up() {
                // Somebody may have taken a port in between.
                Err(Error::NotReady { .. }) if tries < 3 => instance.stop_all(),
                outcome => return outcome.map(|()| instance),
            }
        }
    }

    fn bring_up(&self) -> Result<(), Error> {
        let server = self.server();
        self.authority.kubeconfig(&self.kubeconfig(), &server, "admin", &["system:masters"])?;
        let manager = self.dir.join("controller-manager.kubeconfig");
        self.authority.kubeconfig(&manager, &server, "system:kube-controller-manager", &["system:masters"])?;
        self.start_component(Component::Etcd)?;
        self.start_component(Component::ApiServer)?;
        self.start_component(Component::ControllerManager)
    }

    /// The URL of the API server.
    #[must_use]
    pub fn server(&self) -> String {
        format!("https://127.0.0.1:{}", self.ports[2])
    }

    /// The administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// The audit log: a JSON line for every write, and for reads of the operator's own resources.
    #[must_use]
    pub fn audit_log(&self) -> PathBuf {
        self.dir.join("audit.log")
    }

    /// Writes a kubeconfig for a user with these groups, by certificate.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn kubeconfig_for(&self, user: &str, groups: &[&str], path: &Path) -> Result<(), Error> {
        self.authority.kubeconfig(path, &self.server(), user, groups)
    }

    /// Runs kubectl as the administrator, with `input` on its standard input.
    ///
    /// # Errors
    /// When it can't be run; that it fails is in the output.
    pub fn kubectl(&self, args: &[&str], input: Option<&str>) -> Result<Output, Error> {
        use std::io::Write;
        let mut command = Command::new(&self.kubectl);
        command.arg("--kubeconfig").arg(self.kubeconfig()).args(args).env("HOME", &self.dir);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(io("kubectl"))?;
        if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
            // A kubectl that refuses its arguments doesn't read.
            let _ = stdin.write_all(input.as_bytes());
        }
        child.wait_with_output().map_err(io("kubectl"))
    }

    fn log(&self, part: Component) -> PathBuf {
        self.dir.join(format!("{}.log", part.program()))
    }

    fn with<T>(
        &self,
        part: Component,
        act: impl FnOnce(&mut ChildGuard) -> std::io::Result<T>,
    ) -> Result<Option<T>, Error> {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.get_mut(&part).map(act).transpose().map_err(io(part.program()))
    }

    /// Starts a part that was stopped, on the port it had, and waits until it is ready.
    ///
    /// # Errors
    /// When it doesn't get ready.
    pub fn start_component(&self, part: Component) -> Result<(), Error> {
        let log = OpenOptions::new().create(true).append(true).open(self.log(part)).map_err(io("a log"))?;
        let err = log.try_clone().map_err(io("a log"))?;
        let child = ChildGuard::spawn(&path_of(part.program())?, &self.args(part), |command| {
            command.stdout(log).stderr(err).current_dir(&self.dir);
        });
        let child = child.map_err(io(part.program()))?;
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).insert(part, child);
        if part == Component::ApiServer { self.wait_ready(part) } else { Ok(()) }
    }

    fn wait_ready(&self, part: Component) -> Result<(), Error> {
        let end = Instant::now() + PATIENCE;
        loop {
            if self.kubectl(&["get", "--raw", "/readyz", "--request-timeout=5s"], None)?.status.success() {
                return Ok(());
            }
            let ended = self.with(part, |child| child.child().try_wait())?.flatten().is_some();
            if ended || Instant::now() > end {
                let log = self.log(part);
                let tail = tail(&fs::read_to_string(&log).unwrap_or_default());
                return Err(Error::NotReady { part: part.program(), log, tail });
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Stops a part. Stop the API server before etcd: without etcd it takes minutes to end.
    ///
    /// # Errors
    /// When it can't be stopped.
    pub fn stop_component(&self, part: Component) -> Result<(), Error> {
        let child = self.parts.lock().unwrap_or_else(PoisonError::into_inner).remove(&part);
        if let Some(mut child) = child {
            child.stop(Duration::from_secs(5)).map_err(io(part.program()))?;
        }
        Ok(())
    }

    /// Halts a part as it is: it neither answers nor closes anything.
    ///
    /// # Errors
    /// When it is gone.
    pub fn pause(&self, part: Component) -> Result<(), Error> {
        self.with(part, |child| child.signal(Signal::STOP)).map(drop)
    }

    /// Lets a halted part go on.
    ///
    /// # Errors
    /// When it is gone.
    pub fn resume(&self, part: Component) -> Result<(), Error> {
        self.with(part, |child| child.signal(Signal::CONT)).map(drop)
    }

    /// Copies etcd's data while the API server and etcd are stopped for it, and starts them again.
    ///
    /// # Errors
    /// When the parts can't be stopped, copied or started.
    pub fn snapshot(&self, to: &Path) -> Result<(), Error> {
        self.offline(|data| copy(data, to))
    }

    /// Puts etcd's data back to a snapshot.
    ///
    /// # Errors
    /// As [`ControlPlane::snapshot`].
    pub fn restore(&self, from: &Path) -> Result<(), Error> {
        self.offline(|data| {
            fs::remove_dir_all(data)?;
            copy(from, data)
        })
    }

    fn offline(&self, act: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<(), Error> {
        self.stop_component(Component::ApiServer)?;
        self.stop_component(Component::Etcd)?;
        act(&self.dir.join("etcd")).map_err(io("etcd's data"))?;
        self.start_component(Component::Etcd)?;
        self.start_component(Component::ApiServer)
    }

    /// Stops all parts, as dropping it does.
    pub fn shutdown(&self) {
        self.stop_all();
    }

    fn stop_all(&self) {
        for part in [Component::ControllerManager, Component::ApiServer, Component::Etcd] {
            // What can't be stopped is killed when it is dropped.
            let _ = self.stop_component(part);
        }
    }

    fn args(&self, part: Component) -> Vec<String> {
        let [client, peer, secure] = self.ports;
        let file = |name: &str| self.authority.file(name);
        match part {
            Component::Etcd => vec![
                format!("--data-dir={}", self.dir.join("etcd").display()),
                format!("--listen-client-urls=http://127.0.0.1:{client}"),
                format!("--advertise-client-urls=http://127.0.0.1:{client}"),
                format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
                format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"),
                format!("--initial-cluster=default=http://127.0.0.1:{peer}"),
                "--unsafe-no-fsync".into(),
                "--log-level=warn".into(),
            ],
            Component::ApiServer => vec![
                format!("--etcd-servers=http://127.0.0.1:{client}"),
                "--bind-address=127.0.0.1".into(),
                "--advertise-address=127.0.0.1".into(),
                "--endpoint-reconciler-type=none".into(),
                format!("--secure-port={secure}"),
                format!("--tls-cert-file={}", file("apiserver.crt")),
                format!("--tls-private-key-file={}", file("apiserver.key")),
                format!("--client-ca-file={}", file("ca.crt")),
                format!("--service-account-key-file={}", file("service-account.pub")),
                format!("--service-account-signing-key-file={}", file("service-account.key")),
                "--service-account-issuer=https://kubernetes.default.svc".into(),
                "--service-cluster-ip-range=10.0.0.0/24".into(),
                "--authorization-mode=RBAC".into(),
                format!("--audit-policy-file={}", self.dir.join("audit-policy.yaml").display()),
                format!("--audit-log-path={}", self.audit_log().display()),
                // In megabytes. A log that is rotated away can't be judged.
                "--audit-log-maxsize=100000".into(),
            ],
            Component::ControllerManager => vec![
                format!("--kubeconfig={}", self.dir.join("controller-manager.kubeconfig").display()),
                format!("--service-account-private-key-file={}", file("service-account.key")),
                format!("--root-ca-file={}", file("ca.crt")),
                "--leader-elect=false".into(),
                "--secure-port=0".into(),
                "--use-service-account-credentials=false".into(),
            ],
        }
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.stop_all();
    }
}

/// What the audit log holds; later judgement reads it, so the operator's own group is told in full.
/// Of members of the group `audited`, everything is told.
const AUDIT_POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- level: RequestResponse
  verbs: [create, update, patch, delete, deletecollection]
  resources: [{group: personalize-operator.io}, {group: events.k8s.io}]
- level: Metadata
  userGroups: [audited]
- level: Metadata
  resources: [{group: personalize-operator.io}, {group: coordination.k8s.io}, {group: events.k8s.io}]
- level: Metadata
  verbs: [create, update, patch, delete, deletecollection]
- level: None
";

fn free_ports() -> Result<[u16; 3], Error> {
    // All are held until all are known, so that they differ.
    let bind = || TcpListener::bind("127.0.0.1:0").map_err(io("a free port"));
    let held = [bind()?, bind()?, bind()?];
    let mut ports = [0; 3];
    for (port, listener) in ports.iter_mut().zip(&held) {
        *port = listener.local_addr().map_err(io("a free port"))?.port();
    }
    Ok(ports)
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// The instance that all tests of this process share, in `parent`/control-plane-PID; it ends with the
/// process, however that ends. What earlier processes left in `parent` is removed.
///
/// # Errors
/// When it could not be started; every caller is told the same.
pub fn shared(parent: &Path) -> Result<&'static ControlPlane, &'static Error> {
    static SHARED: OnceLock<Result<ControlPlane, Error>> = OnceLock::new();
    SHARED
        .get_or_init(|| {
            sweep(parent);
            ControlPlane::start(&parent.join(format!("control-plane-{}", std::process::id())))
        })
        .as_ref()
}

/// Removes the directories of processes that are gone.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix("control-plane-").and_then(|pid| pid.parse::<i32>().ok());
        let Some(owner) = owner.and_then(rustix::process::Pid::from_raw) else { continue };
        if rustix::process::test_kill_process(owner).is_err() {
            // Another process may sweep at the same time.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
