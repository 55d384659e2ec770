//! A running control plane, and the one that the tests of a process share.

use crate::binaries::{path_of, paths_of, tail};
use crate::certificates::CertificateAuthority;
use crate::child_guard::ChildGuard;
use crate::{Error, io};
use rustix::process::Signal;
use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How long a component may take to become ready on a slow machine.
const READY_TIMEOUT: Duration = Duration::from_secs(120);

/// A component of the control plane. Each one can be stopped, started and paused alone.
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
    authority: CertificateAuthority,
    kubectl: PathBuf,
    ports: [u16; 3],
    components: Mutex<HashMap<Component, ChildGuard>>,
    /// Removes the directory of a temporary instance.
    _temporary: Option<tempfile::TempDir>,
}

impl ControlPlane {
    /// Starts etcd, kube-apiserver and kube-controller-manager, with all their files in `dir`, and waits until the API
    /// server is ready. Blocks. Builds missing programs first.
    ///
    /// # Errors
    /// When a program is not available, or a component doesn't become ready.
    pub fn start(dir: &Path) -> Result<Self, Error> {
        Self::start_in(dir, None, true)
    }

    /// Starts etcd and kube-apiserver only.
    ///
    /// # Errors
    /// As [`ControlPlane::start`].
    pub fn start_without_controller_manager(dir: &Path) -> Result<Self, Error> {
        Self::start_in(dir, None, false)
    }

    /// Starts an instance in a temporary directory, which is removed when the instance is dropped.
    ///
    /// # Errors
    /// As [`ControlPlane::start`].
    pub fn temporary() -> Result<Self, Error> {
        let temporary =
            tempfile::Builder::new().prefix("control-plane-").tempdir().map_err(io("a temporary directory"))?;
        let dir = temporary.path().to_owned();
        Self::start_in(&dir, Some(temporary), true)
    }

    fn start_in(dir: &Path, temporary: Option<tempfile::TempDir>, controller_manager: bool) -> Result<Self, Error> {
        fs::create_dir_all(dir).map_err(io(dir.display().to_string()))?;
        let dir = dir.canonicalize().map_err(io(dir.display().to_string()))?;
        let mut programs = vec!["kubectl", "etcd", "kube-apiserver"];
        if controller_manager {
            programs.push("kube-controller-manager");
        }
        let kubectl = paths_of(&programs)?.remove(0);
        let authority = CertificateAuthority::create(&dir.join("pki"))?;
        fs::write(dir.join("audit-policy.yaml"), AUDIT_POLICY).map_err(io("the audit policy"))?;
        let mut instance =
            Self { dir, authority, kubectl, ports: [0; 3], components: Mutex::default(), _temporary: temporary };
        let mut attempts = 0;
        loop {
            instance.ports = free_ports()?;
            attempts += 1;
            match instance.start_components(controller_manager) {
                // Another process may have taken a port since it was found free.
                Err(Error::NotReady { .. }) if attempts < 3 => instance.shutdown(),
                result => return result.map(|()| instance),
            }
        }
    }

    fn start_components(&self, controller_manager: bool) -> Result<(), Error> {
        let server = self.server();
        self.authority.kubeconfig(&self.kubeconfig(), &server, "admin", &["system:masters"])?;
        self.start_component(Component::Etcd)?;
        self.start_component(Component::ApiServer)?;
        if !controller_manager {
            return Ok(());
        }
        let manager = self.dir.join("controller-manager.kubeconfig");
        self.authority.kubeconfig(&manager, &server, "system:kube-controller-manager", &["system:masters"])?;
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

    /// Writes a kubeconfig with a client certificate for a user in these groups.
    ///
    /// # Errors
    /// When a file can't be written.
    pub fn kubeconfig_for(&self, user: &str, groups: &[&str], path: &Path) -> Result<(), Error> {
        self.authority.kubeconfig(path, &self.server(), user, groups)
    }

    /// Runs kubectl as the administrator, with `input` on its standard input.
    ///
    /// # Errors
    /// When kubectl can't be started. Its own errors are in the output.
    pub fn kubectl(&self, args: &[&str], input: Option<&str>) -> Result<Output, Error> {
        use std::io::Write;
        let mut command = Command::new(&self.kubectl);
        command.arg("--kubeconfig").arg(self.kubeconfig()).args(args).env("HOME", &self.dir);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(io("kubectl"))?;
        if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
            // kubectl doesn't read its input if it rejects its arguments.
            let _ = stdin.write_all(input.as_bytes());
        }
        child.wait_with_output().map_err(io("kubectl"))
    }

    fn log(&self, component: Component) -> PathBuf {
        self.dir.join(format!("{}.log", component.program()))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Component, ChildGuard>> {
        self.components.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `action` with the component's process, if the component is started.
    fn with_process<T>(
        &self,
        component: Component,
        action: impl FnOnce(&mut ChildGuard) -> std::io::Result<T>,
    ) -> Result<Option<T>, Error> {
        self.lock().get_mut(&component).map(action).transpose().map_err(io(component.program()))
    }

    /// Starts a stopped component on its old port, and waits until the API server is ready.
    ///
    /// # Errors
    /// When the component can't be started or doesn't become ready.
    pub fn start_component(&self, component: Component) -> Result<(), Error> {
        let log = self.log(component);
        let out = OpenOptions::new().create(true).append(true).open(&log).map_err(io(log.display().to_string()))?;
        let err = out.try_clone().map_err(io(log.display().to_string()))?;
        let child = ChildGuard::spawn(&path_of(component.program())?, &self.args(component), |command| {
            command.stdout(out).stderr(err).current_dir(&self.dir);
        });
        self.lock().insert(component, child.map_err(io(component.program()))?);
        if component == Component::ApiServer { self.wait_until_ready(component) } else { Ok(()) }
    }

    fn wait_until_ready(&self, component: Component) -> Result<(), Error> {
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            if self.kubectl(&["get", "--raw", "/readyz", "--request-timeout=5s"], None)?.status.success() {
                return Ok(());
            }
            let ended = self.with_process(component, |child| child.child().try_wait())?.flatten().is_some();
            if ended || Instant::now() > deadline {
                let log = self.log(component);
                let tail = tail(&fs::read_to_string(&log).unwrap_or_default());
                return Err(Error::NotReady { component: component.program(), log, tail });
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Stops a component. Stop the API server before etcd: without etcd it takes minutes to stop.
    ///
    /// # Errors
    /// When waiting for the process fails.
    pub fn stop_component(&self, component: Component) -> Result<(), Error> {
        let child = self.lock().remove(&component);
        if let Some(mut child) = child {
            child.stop(Duration::from_secs(5)).map_err(io(component.program()))?;
        }
        Ok(())
    }

    /// Suspends a component with SIGSTOP. Its connections stay open, but it doesn't answer.
    ///
    /// # Errors
    /// When its process has ended.
    pub fn pause(&self, component: Component) -> Result<(), Error> {
        self.with_process(component, |child| child.signal(Signal::STOP)).map(drop)
    }

    /// Resumes a paused component.
    ///
    /// # Errors
    /// When its process has ended.
    pub fn resume(&self, component: Component) -> Result<(), Error> {
        self.with_process(component, |child| child.signal(Signal::CONT)).map(drop)
    }

    /// Stops the API server and etcd, copies etcd's data to `to`, and starts both again.
    ///
    /// # Errors
    /// When a component can't be stopped or started, or copying fails.
    pub fn snapshot(&self, to: &Path) -> Result<(), Error> {
        self.with_etcd_stopped(|data| copy(data, to))
    }

    /// Restores etcd's data from a snapshot.
    ///
    /// # Errors
    /// As [`ControlPlane::snapshot`].
    pub fn restore(&self, from: &Path) -> Result<(), Error> {
        self.with_etcd_stopped(|data| {
            fs::remove_dir_all(data)?;
            copy(from, data)
        })
    }

    fn with_etcd_stopped(&self, action: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<(), Error> {
        self.stop_component(Component::ApiServer)?;
        self.stop_component(Component::Etcd)?;
        action(&self.dir.join("etcd")).map_err(io("etcd's data"))?;
        self.start_component(Component::Etcd)?;
        self.start_component(Component::ApiServer)
    }

    /// Stops all components. Dropping the instance does the same.
    pub fn shutdown(&self) {
        for component in [Component::ControllerManager, Component::ApiServer, Component::Etcd] {
            // If stopping fails, dropping the guard kills the process.
            let _ = self.stop_component(component);
        }
    }

    fn args(&self, component: Component) -> Vec<String> {
        let [client, peer, secure] = self.ports;
        let file = |name: &str| self.authority.file(name);
        match component {
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
                // In megabytes. The tests need the whole log, so it must not rotate.
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
        self.shutdown();
    }
}

/// The tests check invariants against the audit log. So it has the full content of writes to the operator's resources and
/// events, and every request of the group `audited`.
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
    // All listeners stay open until all ports are known, so that the ports differ.
    let bind = || TcpListener::bind("127.0.0.1:0").map_err(io("a free port"));
    let listeners = [bind()?, bind()?, bind()?];
    let mut ports = [0; 3];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
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

/// The instance that all tests of this process share, in `parent`/control-plane-PID. It stops when the process ends.
/// Directories that earlier processes left in `parent` are removed.
///
/// # Errors
/// When the instance could not be started. Every caller gets the same error.
pub fn shared(parent: &Path) -> Result<&'static ControlPlane, &'static Error> {
    static SHARED: OnceLock<Result<ControlPlane, Error>> = OnceLock::new();
    SHARED
        .get_or_init(|| {
            remove_stale_dirs(parent);
            ControlPlane::start(&parent.join(format!("control-plane-{}", std::process::id())))
        })
        .as_ref()
}

/// Removes the directories of processes that have ended.
fn remove_stale_dirs(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix("control-plane-").and_then(|pid| pid.parse::<i32>().ok());
        let Some(owner) = owner.and_then(rustix::process::Pid::from_raw) else { continue };
        if rustix::process::test_kill_process(owner).is_err() {
            // Another process may remove it at the same time.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
