//! `control-plane`: a real Kubernetes control plane for people and scripts.

use clap::{Parser, Subcommand};
use control_plane::{ControlPlane, path_of};
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
        /// Where kubeconfig, audit.log, logs and data go.
        #[arg(long)]
        dir: PathBuf,
        /// Stop when standard input ends, too: then it can't outlive who started it.
        #[arg(long)]
        until_stdin_closes: bool,
    },
    /// Print the path of a program (etcd, kube-apiserver, kube-controller-manager, kubectl, helm, promtool,
    /// argocd-lua or kstatus), building it first if need be.
    Path {
        /// The program.
        program: String,
    },
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Up { dir, until_stdin_closes } => up(&dir, until_stdin_closes),
        Command::Path { program } => path_of(&program).map(|path| say(&path.display().to_string())).map_err(Into::into),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "control-plane: {error}");
            ExitCode::FAILURE
        }
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout();
    // A reader that has gone away is no reason to stop.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn up(dir: &std::path::Path, until_stdin_closes: bool) -> Result<(), Box<dyn std::error::Error>> {
    let (stop, stopped) = mpsc::channel();
    let on_signal = stop.clone();
    ctrlc::set_handler(move || {
        let _ = on_signal.send(());
    })?;
    if until_stdin_closes {
        std::thread::spawn(move || {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            let _ = stop.send(());
        });
    }
    let control_plane = ControlPlane::start(dir)?;
    say(&format!("ready: export KUBECONFIG={}", control_plane.kubeconfig().display()));
    stopped.recv()?;
    drop(control_plane);
    Ok(())
}
