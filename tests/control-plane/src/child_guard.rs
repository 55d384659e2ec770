//! Child processes that can't outlive their parent, however it dies.

use std::io;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A shell's two lines: a watcher that reads a pipe whose other end the parent holds, and kills the
/// process once the pipe ends; then the process itself, under the shell's own PID.
const TETHER: &str =
    r#"exec 3<&0; (cat <&3 >/dev/null 2>&1; kill -9 $$ 2>/dev/null) >/dev/null 2>&1 & exec 3<&-; exec "$@" </dev/null"#;

/// A process that dies with its parent, even when that is killed. Dropping it kills it.
#[derive(Debug)]
pub struct ChildGuard {
    child: Child,
    rope: Option<ChildStdin>,
}

impl ChildGuard {
    /// Starts a program on a tether, in a process group of its own, so that Ctrl-C in a terminal reaches
    /// only the parent, which can then stop its children in order. Environment, directory and output are
    /// taken from `configure`.
    ///
    /// # Errors
    /// When the shell can't be started. A program that can't be started shows as exit status 126 or 127.
    pub fn spawn(program: &std::path::Path, args: &[String], configure: impl FnOnce(&mut Command)) -> io::Result<Self> {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new("sh");
        command.arg("-c").arg(TETHER).arg("sh").arg(program).args(args);
        command.stdin(Stdio::piped()).process_group(0);
        configure(&mut command);
        let mut child = command.spawn()?;
        let rope = child.stdin.take();
        Ok(Self { child, rope })
    }

    /// The PID of the program itself.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The child, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: rustix::process::Signal) -> io::Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    /// Asks the process to end, waits that long, then kills it.
    ///
    /// # Errors
    /// When it can't be waited for.
    pub fn stop(&mut self, patience: Duration) -> io::Result<ExitStatus> {
        // One that has ended already needs no signal.
        let _ = self.signal(rustix::process::Signal::TERM);
        let end = Instant::now() + patience;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.kill()
    }

    /// Kills the process.
    ///
    /// # Errors
    /// When it can't be waited for.
    pub fn kill(&mut self) -> io::Result<ExitStatus> {
        self.child.kill()?;
        self.child.wait()
    }
}

impl Drop for ChildGuard {
    fn drop(&mut self) {
        // Reap first: the watcher then finds nobody under this PID.
        let _ = self.kill();
        drop(self.rope.take());
    }
}
