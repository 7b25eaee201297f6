//! `pointsman demo`: the main job, on one machine, with real traffic.
//!
//! ```text
//!   load ──▶ client-side Envoy ──(split)──▶ server-side Envoy v1 ──▶ sample service v1
//!                    ▲                 └──▶ server-side Envoy v2 ──▶ sample service v2
//!                    └── all three configured by `pointsman serve` from a directory of YAML
//! ```
//!
//! The demo rewrites one weight in one file per step and watches what the traffic does. Then it leaves the weights to a
//! deployment intent: a healthy v2 goes through its steps to the end, and a v3 with errors is caught and taken back.

mod delivery;
mod mesh;
mod table;
mod walk;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::output::say;
use mesh::Mesh;
use walk::Walk;

/// Move real traffic between two versions of a service with real Envoys, and count what fails.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Examples:
  make demo
  make demo DEMO_SECONDS=20

The demo finds Envoy through ENVOY_BIN; `make demo` sets it. Exits with 1 if a request failed that v3 did not fail, a split
was off, v2 did not get through, or v3 did.")]
pub(crate) struct Arguments {
    /// How long the walk by hand takes; 0 takes 30 seconds. What follows takes about a minute.
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    seconds: u64,
}

/// Without a wish.
const USUAL_SECONDS: u64 = 30;

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let seconds = if arguments.seconds == 0 { USUAL_SECONDS } else { arguments.seconds };
    runtime.block_on(async {
        tokio::select! {
            // Signals are listened for before anything is started that would be left behind.
            biased;
            // Whatever was started is owned by the future that is dropped here, and ends with it.
            () = interrupted() => {
                say!("\nInterrupted; everything that was started is stopped.");
                Ok(ExitCode::from(130))
            }
            result = walk(Duration::from_secs(seconds)) => result,
        }
    })
}

async fn interrupted() {
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminate => {}
    }
}

async fn walk(length: Duration) -> Result<ExitCode> {
    say!("Starting two versions of a sample service, three Envoys and Pointsman...");
    let mut mesh = Mesh::start().await?;
    mesh.describe();
    let report = Walk::new(length).run(&mut mesh).await?;
    report.print();
    let delivered = delivery::run(&mut mesh).await?;
    mesh.stop().await?;
    delivered.print();
    Ok(if report.is_good() && delivered.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
