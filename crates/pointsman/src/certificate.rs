//! `pointsman certificate`: gets a workload's certificate from the certificate service, and keeps it fresh in files.
//!
//! ```text
//!   files ──in force?──▶ wait until half of its life is over ──▶ ask ──▶ put key, chain and roots, all at once ─┐
//!     ▲                                                           │ no answer: keep what is there, ask again   │
//!     └───────────────────────────────────────────────────────────┴────────────────────────────────────────────┘
//! ```
//!
//! The key is made here and never leaves the machine. Invariant: whoever reads the files never finds a key that is not the
//! certificate's; and what is in force stays there until there is something better.

mod authority;
pub(crate) mod files;

use std::hash::{BuildHasher, Hasher};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use identity::Lifetime;

use crate::output::causes;
use crate::serve::Signals;
use authority::Authority;
use files::{Files, Kept};

/// The shortest and the longest pause before it is asked again after a failure.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// At most so long it is slept without a look at the clock, which may have been set forward.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// Get a workload's certificate and keep it fresh in files, until a signal ends it.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Examples:
  pointsman certificate --xds pointsman.example:15012 --xds-ca root-cert.pem --token-file token --out /run/certificates
  pointsman bootstrap --kind grpc --xds pointsman.example:15012 --xds-ca root-cert.pem --certificates /run/certificates

Writes cert-chain.pem, key.pem (mode 0600) and root-cert.pem; all three change at the same moment. The certificate is
renewed at half its life, proved by itself; as long as there is none, by the token or the certificate that is given. When
the server is away the files stay as they are, and it is asked again.

Exit codes: 0 done or ended by a signal, 2 it could not run, or there is no certificate with --once.")]
pub(crate) struct Arguments {
    /// Where the certificate service listens: HOST:PORT or unix:PATH.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) xds: String,
    /// The authorities (PEM) that have signed for the server, beside those in root-cert.pem once that is there.
    #[arg(long, value_name = "FILE")]
    pub(crate) xds_ca: Option<PathBuf>,
    /// The name in the server's certificate [default: the host of --xds].
    #[arg(long, value_name = "NAME")]
    pub(crate) xds_name: Option<String>,
    /// Prove who the workload is by the bearer token in this file, which is read again each time.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Prove who the workload is by this certificate chain (PEM).
    #[arg(long, value_name = "FILE", requires = "client_key")]
    pub(crate) client_cert: Option<PathBuf>,
    /// The key of --client-cert (PEM).
    #[arg(long, value_name = "FILE", requires = "client_cert")]
    pub(crate) client_key: Option<PathBuf>,
    /// The directory of the files; made if it is not there.
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) out: PathBuf,
    /// Ask for certificates that hold so many seconds, 90 days at most [default: as long as the server says]. The server may
    /// give them for less; that is told.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=7_776_000))]
    pub(crate) ttl: Option<u32>,
    /// Get one certificate and end.
    #[arg(long)]
    pub(crate) once: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        tokio::select! {
            done = keep(arguments) => done,
            () = signals.any() => Ok(()),
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn keep(arguments: &Arguments) -> Result<()> {
    let files = Files::open(&arguments.out)?;
    let authority = Authority::new(arguments)?;
    if arguments.once {
        return renew(&authority, &files, None).await.map(drop);
    }
    let mut kept = files.read();
    if let Some(kept) = &kept {
        tracing::info!(id = %kept.certificate.id, "a certificate is there already");
    }
    let (mut failures, now) = (0, SystemTime::now());
    let mut due = kept.as_ref().map_or(now, |kept| renewal(kept, now));
    loop {
        sleep_until(due).await;
        match renew(&authority, &files, kept.as_ref()).await {
            Ok(new) => {
                failures = 0;
                due = renewal(&new, SystemTime::now());
                kept = Some(new);
            }
            Err(error) => {
                failures += 1;
                let now = SystemTime::now();
                let left = kept.as_ref().map_or(Duration::ZERO, |kept| kept.left(now));
                let pause = pause(failures, left);
                due = now + pause;
                let (error, again_in_seconds, holds_for_seconds) = (causes(&error), pause.as_secs(), left.as_secs());
                if left.is_zero() {
                    tracing::error!(error, again_in_seconds, "there is no certificate in force");
                } else {
                    tracing::warn!(
                        error,
                        again_in_seconds,
                        holds_for_seconds,
                        "the certificate is not renewed; the one that is there stays in force"
                    );
                }
            }
        }
    }
}

/// Gets a certificate for a new key and puts it into the files.
async fn renew(authority: &Authority, files: &Files, kept: Option<&Kept>) -> Result<Kept> {
    let new = authority.ask(kept.filter(|kept| !kept.left(SystemTime::now()).is_zero()), files).await?;
    let kept = files.put(&new).context("cannot write the files")?;
    let (id, holds_for_seconds) = (&kept.certificate.id, kept.left(SystemTime::now()).as_secs());
    if let Some(asked_for_seconds) =
        authority.ttl().map(u64::from).filter(|asked| *asked > holds_for_seconds + asked / 10 + 1)
    {
        tracing::warn!(asked_for_seconds, holds_for_seconds, "the server gives certificates for less than was asked");
    }
    tracing::info!(%id, holds_for_seconds, directory = %files.directory().display(), "there is a new certificate");
    Ok(kept)
}

/// When to renew: at half its life, give or take a tenth; a certificate that was made in the future is of a clock that
/// was wrong.
fn renewal(kept: &Kept, now: SystemTime) -> SystemTime {
    let made = kept.made.min(now);
    let random = std::hash::RandomState::new().build_hasher().finish();
    Lifetime { not_before: made, made, not_after: kept.certificate.not_after }.rotation(random)
}

/// How long to wait after so many failures in a row, when what is there holds so long: longer each time, and a tenth of
/// that at most.
fn pause(failures: u32, left: Duration) -> Duration {
    let growing = SHORTEST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(6)).min(LONGEST_PAUSE);
    if left.is_zero() { growing } else { growing.min(left / 10).max(SHORTEST_PAUSE) }
}

async fn sleep_until(moment: SystemTime) {
    while let Ok(left) = moment.duration_since(SystemTime::now()) {
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LONGEST_SLEEP)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_leave_time_to_try_again() {
        let seconds = |failures, left| pause(failures, Duration::from_secs(left)).as_secs();
        assert_eq!([1, 2, 3, 7, 40].map(|failures| seconds(failures, 0)), [1, 2, 4, 60, 60]);
        assert_eq!([1, 4, 40].map(|failures| seconds(failures, 100)), [1, 8, 10]);
        assert_eq!(seconds(40, 3), 1);
    }
}
