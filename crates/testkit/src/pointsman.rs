//! The binary under test as a child process.
//!
//! It prints each address once that is bound, in a line that holds `<name> listening on <address>`, where the address is
//! `IP:PORT` or `unix:PATH`. That line is how a test learns which port 0 became, and that the server is there.

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tempfile::TempDir;

use crate::process::Process;
use crate::wait;

/// A running Pointsman. Dropping it kills it.
#[derive(Debug)]
pub struct Pointsman {
    // Dropped before the directory with its files.
    process: Process,
    binary: PathBuf,
    arguments: Vec<OsString>,
    directory: TempDir,
    runs: u32,
}

impl Pointsman {
    /// Starts `binary` (in an integration test `env!("CARGO_BIN_EXE_pointsman")`) with these arguments.
    ///
    /// # Errors
    /// If it cannot be started. That it ends at once for a bad argument is noticed by [`Pointsman::listening`].
    pub fn start<A: AsRef<OsStr>>(
        binary: impl Into<PathBuf>,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Pointsman> {
        let binary = binary.into();
        let arguments: Vec<_> = arguments.into_iter().map(|argument| argument.as_ref().to_owned()).collect();
        let directory = TempDir::with_prefix("pointsman-run-").context("could not make a directory for the log")?;
        let process = spawn(&binary, &arguments, directory.path(), 0)?;
        Ok(Pointsman { process, binary, arguments, directory, runs: 1 })
    }

    /// Waits until the line `<name> listening on <address>` appears, and returns the address as it is written.
    ///
    /// # Errors
    /// If it does not appear `within` this time, or the process ends before; the message holds the end of its output.
    pub async fn listening(&mut self, name: &str, within: Duration) -> Result<String> {
        let process = &mut self.process;
        let what = format!("\"{name} listening on\"");
        let found = wait::until(&what, within, async || {
            let output = process.output();
            match (address_in(&output, name), process.expect_running()) {
                (Some(address), _) => Ok(Ok(address.to_owned())),
                (None, Err(error)) => Ok(Err(error)),
                (None, Ok(())) => Err("no such line"),
            }
        });
        found.await.with_context(|| format!("the end of the output:\n{}", self.process.last_words()))?
    }

    /// The same, for an address with a port.
    ///
    /// # Errors
    /// As for [`Pointsman::listening`], or if it is a Unix socket.
    pub async fn address(&mut self, name: &str, within: Duration) -> Result<SocketAddr> {
        let address = self.listening(name, within).await?;
        address.parse().with_context(|| format!("\"{address}\" is not an IP with a port"))
    }

    /// The process: its id, its signals, its cost.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// What it has printed since it was started last, on standard output and standard error.
    pub fn output(&self) -> String {
        self.process.output()
    }

    /// Ends it by SIGTERM, and says how it ended.
    ///
    /// # Errors
    /// If it runs on after `within`.
    pub async fn terminate(&mut self, within: Duration) -> Result<ExitStatus> {
        self.process.terminate()?;
        self.process.exited(within).await
    }

    /// Ends it by SIGKILL, as a crash would.
    ///
    /// # Errors
    /// If the system refuses.
    pub async fn kill(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process.exited(Duration::from_secs(10)).await.map(drop)
    }

    /// Starts it again with the same arguments. With port 0 among them it gets other ports: use [`crate::ports`].
    ///
    /// # Errors
    /// If it still runs, or cannot be started.
    pub fn restart(&mut self) -> Result<()> {
        self.restart_with::<&str>(&[])
    }

    /// The same with more arguments, this time only.
    ///
    /// # Errors
    /// As for [`Pointsman::restart`].
    pub fn restart_with<A: AsRef<OsStr>>(&mut self, more: &[A]) -> Result<()> {
        if self.process.ended()?.is_none() {
            return Err(anyhow!("could not restart the server, because it still runs; end it first"));
        }
        let more = more.iter().map(|argument| argument.as_ref().to_owned());
        let arguments: Vec<_> = self.arguments.iter().cloned().chain(more).collect();
        self.process = spawn(&self.binary, &arguments, self.directory.path(), self.runs)?;
        self.runs += 1;
        Ok(())
    }
}

fn spawn(binary: &Path, arguments: &[OsString], directory: &Path, run: u32) -> Result<Process> {
    let mut command = Command::new(binary);
    command.args(arguments).env("NO_COLOR", "1");
    Process::spawn(format!("\"{}\"", binary.display()), command, directory.join(format!("output-{run}")))
}

/// The address in the first whole line that says what `name` listens on.
fn address_in<'a>(output: &'a str, name: &str) -> Option<&'a str> {
    const VERB: &str = " listening on ";
    // The last line may be only half written.
    let (whole, _) = output.rsplit_once('\n')?;
    whole.lines().find_map(|line| {
        let (before, after) = line.split_once(VERB)?;
        let is_it = before.split_whitespace().next_back() == Some(name);
        after.split_whitespace().next().filter(|_| is_it)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::process::ExitStatusExt;

    use super::*;

    const SOON: Duration = Duration::from_secs(120);

    #[test]
    fn addresses_are_read_from_whole_lines_only() {
        let output = "INFO pointsman: xds listening on 127.0.0.1:15010\nadmin listening on 127.0.0.1:1501";
        assert_eq!(address_in(output, "xds"), Some("127.0.0.1:15010"));
        assert_eq!(address_in(output, "admin"), None);
        assert_eq!(address_in(output, "ds"), None);
        assert_eq!(address_in("xds listening on unix:/run/x.sock (mode 0660)\n", "xds"), Some("unix:/run/x.sock"));
    }

    /// A stand-in with the same manners.
    fn stand_in(script: &str) -> Pointsman {
        Pointsman::start("/bin/sh", ["-c", script]).unwrap()
    }

    #[tokio::test]
    async fn addresses_are_awaited_and_signals_end_it() {
        let mut server = stand_in("echo starting; echo xds listening on 127.0.0.1:4242; exec sleep 600");
        assert_eq!(server.address("xds", SOON).await.unwrap(), "127.0.0.1:4242".parse().unwrap());
        assert!(server.restart().unwrap_err().to_string().contains("it still runs"));
        assert_eq!(server.terminate(SOON).await.unwrap().signal(), Some(15));
        server.restart().unwrap();
        server.listening("xds", SOON).await.unwrap();
        server.kill().await.unwrap();
        assert_eq!(server.output().lines().count(), 2, "the output is that of the last run");
    }

    #[tokio::test]
    async fn an_early_end_is_reported_with_its_reason() {
        let error = stand_in("echo bad argument >&2; exit 2").listening("xds", SOON).await.unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains("exit status: 2") && error.contains("bad argument"), "{error}");
    }

    #[tokio::test]
    async fn a_silent_server_is_reported_at_the_deadline() {
        let mut server = stand_in("echo thinking; exec sleep 600");
        let error = format!("{:#}", server.listening("xds", Duration::from_millis(100)).await.unwrap_err());
        assert!(error.contains("thinking") && error.contains("no such line"), "{error}");
    }
}
