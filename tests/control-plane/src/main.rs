//! `control-plane`: a real Kubernetes control plane for people and scripts.

use clap::{Parser, Subcommand};
use control_plane::{ControlPlane, paths_of};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc;

/// A real Kubernetes control plane on loopback, without root or containers.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start etcd, kube-apiserver and kube-controller-manager, and run until SIGTERM or Ctrl-C.
    Up {
        /// The directory for kubeconfig, audit.log, logs and data.
        #[arg(long)]
        dir: PathBuf,
        /// Also stop when standard input ends, so that the control plane can't outlive the process that started it.
        #[arg(long)]
        until_stdin_closes: bool,
        /// Don't build or start kube-controller-manager. Garbage collection, namespace deletion and service accounts'
        /// defaults then don't work.
        #[arg(long)]
        without_controller_manager: bool,
    },
    /// Print the paths of programs, one per line, and build the missing ones first.
    ///
    /// Programs are etcd, kube-apiserver, kube-controller-manager, kubectl, helm, promtool, argocd-lua and kstatus.
    Path {
        /// The programs.
        #[arg(required = true)]
        programs: Vec<String>,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Up { dir, until_stdin_closes, without_controller_manager } => {
            up(dir, until_stdin_closes, !without_controller_manager)
        }
        Command::Path { programs } => print_paths(&programs),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "control-plane: {error}");
            ExitCode::FAILURE
        }
    }
}

fn print_line(line: &str) {
    let mut out = std::io::stdout();
    // A closed standard output is no reason to stop.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn print_paths(programs: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    for path in paths_of(&programs.iter().map(String::as_str).collect::<Vec<_>>())? {
        print_line(&path.display().to_string());
    }
    Ok(())
}

fn up(dir: PathBuf, until_stdin_closes: bool, controller_manager: bool) -> Result<(), Box<dyn std::error::Error>> {
    // `None` means stop.
    let (sender, events) = mpsc::channel();
    let on_signal = sender.clone();
    ctrlc::set_handler(move || {
        let _ = on_signal.send(None);
    })?;
    if until_stdin_closes {
        let on_end = sender.clone();
        std::thread::spawn(move || {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            let _ = on_end.send(None);
        });
    }
    // Starting may take minutes. It runs in a thread, so that a signal ends it at once; its children end with this process.
    std::thread::spawn(move || {
        let start =
            if controller_manager { ControlPlane::start } else { ControlPlane::start_without_controller_manager };
        let _ = sender.send(Some(start(&dir)));
    });
    if let Some(started) = events.recv()? {
        let control_plane = started?;
        print_line(&format!("ready: export KUBECONFIG={}", control_plane.kubeconfig().display()));
        events.recv()?;
    }
    Ok(())
}
