//! `pointsman floor`: what sending the same bytes costs at least, for benchmarks.
//!
//! It takes down what a server sends to one client, and then sends the very same frames to any number of clients, over
//! the `h2` crate, with shared buffers, on one thread, and without knowing anything about a client. It keeps no versions,
//! acknowledges nothing, and orders nothing: it bounds what a control plane over that crate can reach, and is none.

mod control;
mod fan_out;
mod recorder;
mod recording;

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::{Context, Result};
use tokio::net::TcpListener;
use tokio::task::LocalSet;

use self::control::post_to as post;
use self::fan_out::FanOut;
use self::recording::Variant;
use crate::output::say;
use crate::serve::Signals;

/// Send what a server has sent, to any number of clients, at the least cost.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "For benchmarks: benches/README.md explains it. Example, beside `pointsman mesh`:
  pointsman floor --like 127.0.0.1:15010 --like-control 127.0.0.1:15099 --xds-listen 127.0.0.1:15011 \\
    --control 127.0.0.1:15098")]
pub(crate) struct Arguments {
    /// The xDS address of the server whose bytes are sent.
    #[arg(long, value_name = "ADDRESS")]
    like: String,
    /// The control of that server, a `pointsman mesh`.
    #[arg(long, value_name = "ADDRESS")]
    like_control: SocketAddr,
    /// Which form of the protocol.
    #[arg(long, value_enum, default_value = "delta")]
    variant: Variant,
    /// Where streams are served.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS")]
    xds_listen: SocketAddr,
    /// Where changes are asked for: POST /weight, and POST /churn?rate=&seconds=&width=.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS")]
    control: SocketAddr,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    LocalSet::new().block_on(&runtime, serve(arguments))
}

async fn serve(arguments: &Arguments) -> Result<ExitCode> {
    let mut signals = Signals::new()?;
    let Arguments { like, like_control, variant, .. } = arguments;
    // The same changes as the benchmarks ask the server for.
    let changes = [
        ("weight", *like_control, "/weight?service=0".to_owned()),
        ("endpoints", *like_control, "/churn?rate=100&seconds=0.01&services=1".to_owned()),
    ];
    let recording =
        recorder::record(like, *variant, &changes).await.context("cannot take down what the server sends")?;
    let fan_out = FanOut::new(*variant, recording);
    let listener = TcpListener::bind(arguments.xds_listen).await.context("cannot listen for streams")?;
    let control = TcpListener::bind(arguments.control).await.context("cannot listen for the control")?;
    for (change, bytes) in fan_out.changes() {
        tracing::info!(change, bytes, "taken down");
    }
    say!("xds listening on {}", listener.local_addr()?);
    say!("control listening on {}", control.local_addr()?);
    tokio::select! {
        ended = fan_out.clone().accept(listener) => ended?,
        ended = control::serve(control, fan_out) => ended?,
        () = signals.any() => {}
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests;
