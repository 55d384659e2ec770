//! Child processes that can't outlive their parent.

use std::io;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The shell starts a watcher and then becomes the program, under the same PID. The watcher reads a pipe whose other end
/// the parent holds. When the pipe ends, it kills the program's process group, which includes the watcher.
const GUARD: &str = r#"exec 3<&0; (cat <&3 >/dev/null 2>&1; kill -9 -$$ 2>/dev/null) >/dev/null 2>&1 & exec 3<&-; exec "$@" </dev/null"#;

/// A child process that ends when its parent ends, even if the parent is killed. Dropping the guard kills the child and
/// the children of the child.
#[derive(Debug)]
pub struct ChildGuard {
    child: Child,
    pipe: Option<ChildStdin>,
}

impl ChildGuard {
    /// Starts a program. `configure` sets its environment, directory and output.
    ///
    /// The program gets a process group of its own. So Ctrl-C in a terminal reaches only the parent, which can then stop
    /// its children in order.
    ///
    /// # Errors
    /// When the shell can't be started. If the program can't be started, the child exits with status 126 or 127.
    pub fn spawn(program: &std::path::Path, args: &[String], configure: impl FnOnce(&mut Command)) -> io::Result<Self> {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new("sh");
        command.arg("-c").arg(GUARD).arg("sh").arg(program).args(args);
        command.stdin(Stdio::piped()).process_group(0);
        configure(&mut command);
        let mut child = command.spawn()?;
        let pipe = child.stdin.take();
        Ok(Self { child, pipe })
    }

    /// The PID of the program.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The child, for its pipes and its exit status.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Sends a signal to the program.
    ///
    /// # Errors
    /// When the process has ended.
    pub fn signal(&self, signal: rustix::process::Signal) -> io::Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    /// Sends SIGTERM, waits up to `timeout`, then kills the program.
    ///
    /// # Errors
    /// When waiting for the process fails.
    pub fn stop(&mut self, timeout: Duration) -> io::Result<ExitStatus> {
        // Sending fails if the process has already ended. That is fine.
        let _ = self.signal(rustix::process::Signal::TERM);
        let deadline = Instant::now() + timeout;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.kill()
    }

    /// Kills the program.
    ///
    /// # Errors
    /// When waiting for the process fails.
    pub fn kill(&mut self) -> io::Result<ExitStatus> {
        self.child.kill()?;
        self.child.wait()
    }
}

impl Drop for ChildGuard {
    fn drop(&mut self) {
        let _ = self.kill();
        // Closing the pipe makes the watcher kill the rest of the process group.
        drop(self.pipe.take());
    }
}
