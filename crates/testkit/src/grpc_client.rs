//! A real gRPC client with its own xDS resolver, of any [`Language`].
//!
//! The client makes unary calls of any method and counts answers by the header `x-backend`; the sample service of
//! [`crate::backend`] answers them.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};

use crate::grpc_language::Language;

/// A running client with one channel. Dropping it kills it.
#[derive(Debug)]
pub struct GrpcClient {
    // Killed when dropped.
    _child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    directory: TempDir,
}

/// What came of a number of calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// Successful calls per backend; those of a service that does not say who it is under the empty name.
    pub by_backend: BTreeMap<String, u64>,
    /// Successful calls per identity that the service has seen; empty for services that do not tell.
    pub by_peer: BTreeMap<String, u64>,
    /// Successful calls per certificate of the client that the service has seen.
    pub by_certificate: BTreeMap<String, u64>,
    /// Failed calls per status and text, as in `UNAVAILABLE: no route`.
    pub errors: BTreeMap<String, u64>,
}

impl GrpcClient {
    /// Starts a client in Python with a channel to `target`: `xds:///NAME:PORT`, or `IP:PORT` without xDS. `bootstrap` is gRPC's
    /// xDS bootstrap as JSON; the address of the control plane is in `xds_servers[0].server_uri`.
    ///
    /// # Errors
    /// If the client cannot be had, or cannot be started.
    pub fn start(target: &str, bootstrap: Option<&Value>) -> Result<GrpcClient> {
        Self::start_with(Language::Python, &[target], bootstrap)
    }

    /// The same for a client that uses TLS where its control plane says so, with the certificates that `bootstrap` names.
    ///
    /// # Errors
    /// As for [`GrpcClient::start`].
    pub fn start_secured(target: &str, bootstrap: &Value) -> Result<GrpcClient> {
        Self::start_in(Language::Python, target, bootstrap)
    }

    /// The same in any language.
    ///
    /// # Errors
    /// As for [`GrpcClient::start`].
    pub fn start_in(language: Language, target: &str, bootstrap: &Value) -> Result<GrpcClient> {
        Self::start_with(language, &[target, "xds"], Some(bootstrap))
    }

    fn start_with(language: Language, arguments: &[&str], bootstrap: Option<&Value>) -> Result<GrpcClient> {
        let directory = TempDir::with_prefix("pointsman-grpc-").context("could not make a directory for the client")?;
        let mut command = language.command("client")?;
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        command.stderr(std::fs::File::create(directory.path().join("log"))?);
        if let Some(bootstrap) = bootstrap {
            command.env("GRPC_XDS_BOOTSTRAP_CONFIG", bootstrap.to_string());
        }
        let mut child = command.spawn().context("could not start the gRPC client")?;
        let orders = child.stdin.take().expect("standard input was asked for as a pipe");
        let answers = child.stdout.take().expect("standard output was asked for as a pipe");
        Ok(GrpcClient { _child: child, orders, answers: BufReader::new(answers).lines(), directory })
    }

    /// Makes `count` calls of `/package.Service/Method`, one after the other, each with this timeout and these headers.
    ///
    /// # Errors
    /// If the client ends or hangs. Failed calls are part of the result.
    pub async fn call(
        &mut self,
        method: &str,
        count: u32,
        timeout: Duration,
        headers: &[(&str, &str)],
    ) -> Result<Answers> {
        let metadata: Vec<_> = headers.iter().map(|(name, value)| [name, value]).collect();
        let timeout_seconds = timeout.as_secs_f64();
        let order = json!({"method": method, "count": count, "timeout_seconds": timeout_seconds, "metadata": metadata});
        self.orders.write_all(format!("{order}\n").as_bytes()).await.with_context(|| self.last_words())?;
        // Every call ends at its timeout; the rest is for the start of the client.
        let longest = timeout * count + Duration::from_secs(30);
        let answer = tokio::time::timeout(longest, self.answers.next_line()).await;
        let Some(answer) = answer.with_context(|| self.last_words())?? else { bail!(self.last_words()) };
        let answer: Value = serde_json::from_str(&answer).context("the gRPC client's answer is not JSON")?;
        let counts = |value: &Value| -> BTreeMap<String, u64> {
            let entries = value.as_object().into_iter().flatten();
            entries.map(|(name, count)| (name.clone(), count.as_u64().unwrap_or(0))).collect()
        };
        Ok(Answers {
            by_backend: counts(&answer["backends"]),
            by_peer: counts(&answer["peers"]),
            by_certificate: counts(&answer["certificates"]),
            errors: counts(&answer["errors"]),
        })
    }

    /// What the client has printed on standard error; with `GRPC_TRACE` (Python) or
    /// `GRPC_GO_LOG_SEVERITY_LEVEL` (Go) in the environment that is a lot.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.directory.path().join("log")).unwrap_or_default()).into_owned()
    }

    fn last_words(&self) -> String {
        format!("the gRPC client has ended or hangs; it said:\n{}", self.log())
    }
}

#[cfg(test)]
mod tests;
