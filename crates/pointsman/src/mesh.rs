//! `pointsman mesh`: the ordinary server over a mesh that is made up, for benchmarks.
//!
//! Files cannot carry what the benchmarks ask for: 100,000 services, or 10,000 changed endpoints a second. So the objects
//! are made in memory and enter by the door that files use; world, compiler and streams are those of `serve`. What is
//! changed, and when, is said over HTTP: see [`control`].

mod churn;
mod control;
mod objects;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use server::{Config, Listen};

use self::control::Control;
pub(crate) use self::control::now_ns;
use self::objects::{Mesh, Split};
use crate::config::Compilation;
use crate::output::say;
use crate::serve::{self, VirtualHosts};
use crate::tls::Tls;

/// Serve xDS from a mesh that is made up, and change it on request.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "For benchmarks: benches/README.md explains it. Examples:
  pointsman mesh --services 1000 --control 127.0.0.1:15099
  curl -X POST 'http://127.0.0.1:15099/weight?service=3&value=40'
  curl -X POST 'http://127.0.0.1:15099/churn?rate=1000&seconds=10&services=1000'")]
pub(crate) struct Arguments {
    /// How many services.
    #[arg(long, default_value_t = 1000, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    services: u32,
    /// How many endpoints each service has.
    #[arg(long, default_value_t = 10, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=1000))]
    endpoints: u32,
    /// How many namespaces the services are spread over: `ns-0`, `ns-1`, and so on.
    #[arg(long, default_value_t = 1, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    namespaces: u32,
    /// What the VirtualService of each service splits its traffic over.
    #[arg(long, value_enum, default_value = "neighbours")]
    split: Split,
    #[command(flatten)]
    compilation: Compilation,
    /// Where xDS is served: IP:PORT or unix:PATH; may be repeated.
    #[arg(long, default_value = "127.0.0.1:15010", value_name = "ADDRESS")]
    xds_listen: Vec<Listen>,
    #[command(flatten)]
    tls: Tls,
    /// Where the admin interface and the metrics are served, or `none`.
    #[arg(long, default_value = "127.0.0.1:15014", value_name = "ADDRESS|none")]
    admin_listen: String,
    /// How Envoys on aggregated delta streams get virtual hosts.
    #[arg(long, value_enum, default_value = "separate", value_name = "FORM")]
    virtual_hosts: VirtualHosts,
    /// Where changes are asked for.
    #[arg(long, default_value = "127.0.0.1:15099", value_name = "ADDRESS")]
    control: SocketAddr,
}

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode> {
    let Arguments { services, endpoints, namespaces, split, .. } = arguments;
    let mesh = Mesh { services, endpoints, namespaces, split };
    let config = Config {
        xds_listen: arguments.xds_listen.clone(),
        tls: arguments.tls.settings(&arguments.compilation)?,
        admin_listen: serve::admin_address(&arguments.admin_listen)?,
        virtual_hosts: arguments.virtual_hosts.delivery(),
        ..Config::default()
    };
    serve::run_with(config, &arguments.compilation, async move |serve::Entry { input, .. }, shutdown| {
        let listener = tokio::net::TcpListener::bind(arguments.control)
            .await
            .with_context(|| format!("cannot listen at {} for the control", arguments.control))?;
        let begun = Instant::now();
        let objects = mesh.objects();
        let count = objects.len();
        if input.apply(objects, Vec::new(), begun).await.is_err() || input.set_synced().await.is_err() {
            return Ok(());
        }
        tracing::info!(objects = count, took_ms = begun.elapsed().as_millis() as u64, "mesh made");
        say!("control listening on {}", listener.local_addr()?);
        let mut signals = serve::Signals::new()?;
        let ended = async {
            tokio::select! {
                () = signals.any() => {}
                () = shutdown.cancelled() => {}
            }
        };
        tokio::select! {
            served = Control::new(mesh, input.clone()).serve(listener) => served,
            () = ended => Ok(()),
        }
    })
}
