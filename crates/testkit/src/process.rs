//! A child process with its output in a file, which ends with its owner.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rustix::process::{Pid, Signal};

use crate::wait;

/// A running (or ended) child. Dropping it kills it and waits until it is gone.
///
/// The child is signalled only as long as it has not been waited for, so that its process id cannot have passed to
/// another process.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, with standard output and standard error appended to the file `log` and no standard input.
    /// `name` is for error messages.
    ///
    /// # Errors
    /// If the file cannot be opened or the program cannot be started.
    pub fn spawn(name: impl Into<String>, mut command: Command, log: impl Into<PathBuf>) -> Result<Process> {
        let (name, log) = (name.into(), log.into());
        let file = OpenOptions::new().create(true).append(true).open(&log);
        let file = file.with_context(|| format!("could not open \"{}\" for the output of {name}", log.display()))?;
        command.stdin(Stdio::null()).stderr(file.try_clone()?).stdout(file);
        let child = command.spawn().with_context(|| format!("could not start {name} as {command:?}"))?;
        Ok(Process { name, child, log })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the process has printed so far; empty if the file cannot be read.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The file that takes the output.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// How the process ended; `None` while it runs.
    ///
    /// # Errors
    /// If the system cannot tell.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("could not ask for the state of {}", self.name))
    }

    /// An error with the last lines of output if the process has ended.
    ///
    /// # Errors
    /// See above.
    pub fn expect_running(&mut self) -> Result<()> {
        match self.ended()? {
            None => Ok(()),
            Some(status) => Err(anyhow!("{} has ended ({status}); its last words:\n{}", self.name, self.last_words())),
        }
    }

    /// The last lines that were printed, for error messages.
    pub fn last_words(&self) -> String {
        const LINES: usize = 20;
        let output = self.output();
        let lines: Vec<_> = output.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }

    /// Sends SIGTERM. Does nothing if the process has ended.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn terminate(&mut self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// Sends SIGINT, as Ctrl-C does. Does nothing if the process has ended.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn interrupt(&mut self) -> Result<()> {
        self.signal(Signal::INT)
    }

    /// Sends SIGKILL. Does nothing if the process has ended.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::KILL)
    }

    /// Sends a signal, for instance SIGHUP or SIGSTOP. Does nothing if the process has ended.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.ended()?.is_some() {
            return Ok(());
        }
        let pid = Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal)
            .with_context(|| format!("could not send {signal:?} to {}", self.name))
    }

    /// Waits until the process has ended, and says how.
    ///
    /// # Errors
    /// If it runs on after `within`.
    pub async fn exited(&mut self, within: Duration) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        let status = wait::until(&what, within, async || match self.ended() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err("it is running".to_owned()),
            Err(error) => Err(format!("{error:#}")),
        });
        Ok(status.await?)
    }

    /// The CPU time that the process has used so far, of all its threads; `None` once it has ended.
    pub fn cpu_time(&self) -> Option<Duration> {
        let mut total = Duration::ZERO;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.pid())).ok()? {
            // A thread may end between the listing and the reading.
            let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).unwrap_or_default();
            let nanos = text.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0);
            total += Duration::from_nanos(nanos);
        }
        Some(total)
    }

    /// The resident memory in bytes (`VmRSS`); `None` once the process has ended.
    pub fn resident_bytes(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kibibytes * 1024)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if the process is gone already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::process::ExitStatusExt;

    use super::*;

    const SOON: Duration = Duration::from_secs(120);

    fn shell(script: &str) -> (Process, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        (Process::spawn("the shell", command, directory.path().join("log")).unwrap(), directory)
    }

    fn is_alive(pid: u32) -> bool {
        Path::new(&format!("/proc/{pid}")).exists()
    }

    #[tokio::test]
    async fn output_and_exit_code_are_kept() {
        let (mut process, _directory) = shell("echo out; echo err >&2; exit 3");
        assert_eq!(process.exited(SOON).await.unwrap().code(), Some(3));
        assert_eq!(process.output(), "out\nerr\n");
        let message = process.expect_running().unwrap_err().to_string();
        assert!(message.contains("the shell has ended (exit status: 3)") && message.ends_with("out\nerr"), "{message}");
    }

    #[tokio::test]
    async fn a_signal_reaches_the_child() {
        let (mut process, _directory) = shell("exec sleep 600");
        assert_eq!(process.ended().unwrap(), None);
        process.terminate().unwrap();
        assert_eq!(process.exited(SOON).await.unwrap().signal(), Some(15));
        process.kill().unwrap();
    }

    #[tokio::test]
    async fn a_child_that_goes_on_is_an_error_at_the_deadline() {
        let (mut process, _directory) = shell("exec sleep 600");
        let error = process.exited(Duration::from_millis(30)).await.unwrap_err();
        assert!(error.to_string().contains("the end of the shell, in vain; last seen: it is running"), "{error}");
    }

    #[test]
    fn a_panic_takes_the_child_along() {
        let (process, _directory) = shell("exec sleep 600");
        let pid = process.pid();
        assert!(is_alive(pid));
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _owned = process;
            std::panic::resume_unwind(Box::new("a test failed"));
        }));
        assert!(panicked.is_err() && !is_alive(pid));
    }

    #[tokio::test]
    async fn cost_is_read_from_proc() {
        let (process, _directory) = shell("exec sleep 600");
        // Right after its start a process has next to no memory.
        let grown = async || match process.resident_bytes() {
            Some(bytes) if bytes > 500_000 => Ok(()),
            other => Err(format!("{other:?}")),
        };
        wait::until("memory in use", SOON, grown).await.unwrap();
        assert!(process.cpu_time().unwrap() < SOON);
    }
}
