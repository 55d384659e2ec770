//! One container, as a process in namespaces of its own, and its probes.

use super::Image;
use super::kubelet::Failure;
use super::volumes::Context;
use crate::env::http;
use control_plane::{Tethered, tether};
use k8s_openapi::api::core::v1::{ContainerPort, Pod, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use rustix::process::Signal;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// Makes a root that holds what the image would, and what the pod mounts, and turns into the container's
/// process: all of it under one PID, so that a signal to the first reaches the last.
const ENTER: &str = r#"
set -eu
root=$1 files=$2 mounts=$3 read_only=$4 user=$5; shift 5
mount -t tmpfs -o mode=755 tmpfs "$root"
mkdir "$root/proc" "$root/dev"
mount --rbind /proc "$root/proc"
mount --rbind /dev "$root/dev"
while IFS='|' read -r source target; do
    mkdir -p "$root${target%/*}"
    : > "$root$target"
    mount --bind "$source" "$root$target"
done < "$files"
while IFS='|' read -r source target mode; do
    mkdir -p "$root$target"
    mount --bind "$source" "$root$target"
    if [ "$mode" = ro ]; then mount -o remount,bind,ro "$root$target"; fi
done < "$mounts"
if [ "$read_only" = true ]; then mount -o remount,bind,ro "$root"; fi
exec unshare --user --map-user="$user" --map-group="$user" --root="$root" --wd=/ "$@"
"#;

/// That it ended, with this status unless a signal ended it.
pub(super) struct Ended {
    pub(super) code: Option<i32>,
}

/// A container that was started.
pub(super) struct Container {
    process: Tethered,
    pub(super) started: String,
    since: Instant,
    readiness: Judged,
    liveness: Judged,
}

/// What a probe has found so far.
#[derive(Default)]
struct Judged {
    asked: Option<Instant>,
    asking: Option<JoinHandle<bool>>,
    /// Answers of one kind in a row: how many, and whether they were good.
    row: (i32, bool),
    verdict: bool,
}

impl Container {
    pub(super) async fn start(image: &Image, context: &Context, hosts: &str, log: &Path) -> Result<Self, Failure> {
        let spec = context.pod.spec.clone().unwrap_or_default().containers.remove(0);
        let (of_pod, own) = (
            context.pod.spec.as_ref().and_then(|s| s.security_context.clone()).unwrap_or_default(),
            spec.security_context.clone().unwrap_or_default(),
        );
        let user = own.run_as_user.or(of_pod.run_as_user).unwrap_or(image.user);
        if user == 0 && own.run_as_non_root.or(of_pod.run_as_non_root) == Some(true) {
            return Err("container has runAsNonRoot and image will run as root".into());
        }
        let (root, files, mounts) = (context.dir.join("root"), context.dir.join("files"), context.dir.join("mounts"));
        fs::create_dir_all(&root)?;
        fs::write(context.dir.join("hosts"), hosts)?;
        let mut lines = String::new();
        for (source, target) in image_files(image)? {
            lines += &format!("{source}|{target}\n");
        }
        lines += &format!("{}|/etc/hosts\n", context.dir.join("hosts").display());
        fs::write(&files, lines)?;
        let mut lines = String::new();
        for (source, target, read_only) in context.mounts().await? {
            lines += &format!("{}|{target}|{}\n", source.display(), if read_only { "ro" } else { "rw" });
        }
        fs::write(&mounts, lines)?;
        let environment = context.environment().await?;
        let path = |path: &Path| path.display().to_string();
        let mut args: Vec<String> =
            ["--user", "--map-root-user", "--mount", "--propagation=private", "sh", "-c", ENTER, "container"]
                .map(String::from)
                .to_vec();
        let read_only = own.read_only_root_filesystem.unwrap_or(false).to_string();
        args.extend([path(&root), path(&files), path(&mounts), read_only, user.to_string()]);
        args.extend(spec.command.unwrap_or_else(|| vec![image.entrypoint.clone()]));
        for arg in spec.args.unwrap_or_default() {
            if arg.contains("$(") {
                return Err("the node of these tests does not expand variables in arguments".into());
            }
            args.push(arg.replace("0.0.0.0", &context.address));
        }
        let log = File::create(log)?;
        let err = log.try_clone()?;
        let process = tether(Path::new("unshare"), &args, |command| {
            command.env_clear().envs(environment).current_dir("/").stdout(log).stderr(err);
        })?;
        let judged = Judged::default;
        let started = jiff::Timestamp::now().to_string();
        Ok(Self { process, started, since: Instant::now(), readiness: judged(), liveness: judged() })
    }

    pub(super) fn ended(&mut self) -> Option<Ended> {
        let status = self.process.child().try_wait().ok().flatten()?;
        Some(Ended { code: status.code().filter(|_| status.signal().is_none()) })
    }

    pub(super) fn terminate(&self) {
        // One that has ended needs no signal.
        let _ = self.process.signal(Signal::TERM);
    }

    pub(super) fn kill(&mut self) {
        let _ = self.process.signal(Signal::KILL);
    }

    pub(super) fn ready(&self) -> bool {
        self.readiness.verdict
    }

    /// Asks what is due, and kills the container that its liveness probe finds dead.
    pub(super) async fn probe(&mut self, pod: &Pod, address: &str) -> Result<(), Failure> {
        let spec = pod.spec.clone().unwrap_or_default().containers.remove(0);
        let ports = spec.ports.unwrap_or_default();
        match &spec.readiness_probe {
            None => self.readiness.verdict = true,
            Some(probe) => self.readiness.follow(probe, &ports, address, self.since).await?,
        }
        if let Some(probe) = &spec.liveness_probe {
            self.liveness.follow(probe, &ports, address, self.since).await?;
            let (times, good) = self.liveness.row;
            if !good && times >= probe.failure_threshold.unwrap_or(3) {
                self.kill();
            }
        }
        Ok(())
    }
}

impl Judged {
    async fn follow(
        &mut self,
        probe: &Probe,
        ports: &[ContainerPort],
        address: &str,
        since: Instant,
    ) -> Result<(), Failure> {
        let seconds = |value: Option<i32>, default: u64| {
            Duration::from_secs(value.and_then(|v| u64::try_from(v).ok()).filter(|v| *v > 0).unwrap_or(default))
        };
        if self.asking.as_ref().is_some_and(JoinHandle::is_finished)
            && let Some(asking) = self.asking.take()
        {
            let good = asking.await.unwrap_or(false);
            self.row = if self.row.1 == good { (self.row.0 + 1, good) } else { (1, good) };
            if good && self.row.0 >= probe.success_threshold.unwrap_or(1) {
                self.verdict = true;
            }
            if !good && self.row.0 >= probe.failure_threshold.unwrap_or(3) {
                self.verdict = false;
            }
        }
        let delay = Duration::from_secs(u64::try_from(probe.initial_delay_seconds.unwrap_or(0)).unwrap_or(0));
        let due = self.asked.is_none_or(|at| at.elapsed() >= seconds(probe.period_seconds, 10));
        if self.asking.is_some() || since.elapsed() < delay || !due {
            return Ok(());
        }
        let get = probe.http_get.as_ref().ok_or("the node of these tests plays probes by HTTP")?;
        let port = match &get.port {
            IntOrString::Int(port) => Some(*port),
            IntOrString::String(name) => ports.iter().find(|p| p.name.as_ref() == Some(name)).map(|p| p.container_port),
        };
        let port = port.ok_or("a probe of a port that the container does not name")?;
        let url = format!("http://{address}:{port}{}", get.path.as_deref().unwrap_or("/"));
        let patience = seconds(probe.timeout_seconds, 1);
        self.asked = Some(Instant::now());
        self.asking = Some(tokio::spawn(async move {
            let asked = tokio::task::spawn_blocking(move || http("GET", &url, ""));
            let answer = tokio::time::timeout(patience, asked).await;
            matches!(answer, Ok(Ok(Some((200..=399, _)))))
        }));
        Ok(())
    }
}

/// What the image holds, with what the binary needs if it is linked dynamically, and the certificates.
fn image_files(image: &Image) -> Result<Vec<(String, String)>, Failure> {
    let binary = image.binary.display().to_string();
    let linked = Command::new("ldd").arg(&image.binary).stdin(Stdio::null()).output()?;
    let linked = String::from_utf8_lossy(&linked.stdout).into_owned();
    let libraries = linked.split_whitespace().filter(|word| word.starts_with('/') && !word.ends_with(':'));
    let mut files = vec![(binary, image.entrypoint.clone())];
    for library in libraries {
        files.push((fs::canonicalize(library)?.display().to_string(), library.to_owned()));
    }
    let certificates = "/etc/ssl/certs/ca-certificates.crt";
    if let Ok(source) = fs::canonicalize(certificates) {
        files.push((source.display().to_string(), certificates.into()));
    }
    Ok(files)
}
