//! `pointsman`: the command line.
//!
//! Arguments, wiring, signals and exit codes; everything else is in the crates below. Exit codes: 0 done, 1 the
//! command found something wrong (`check` with errors, `wait` in vain, `import --strict` with losses, a run that does not take an action, `ca rotate` with nodes that lack something, `demo` with failed requests, `swarm` with nodes that did not get
//! everything), 2 it could not run, 130 `demo` or `swarm` was interrupted.

#![allow(
    clippy::disallowed_methods,
    reason = "the binary is part of the shell: it reads the clock and the environment"
)]

mod ask;
mod bootstrap;
mod ca;
mod certificate;
mod check;
mod config;
mod crds;
mod demo;
mod floor;
mod import;
mod load_command;
mod mesh;
mod output;
mod rollout;
mod serve;
mod status;
mod swarm;
mod table;
mod tls;
mod token;
mod wait;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

/// Thousands of clients that come and go leave holes all over the heap of glibc, which keeps their pages. This one gives
/// them back within a second or two; `.cargo/config.toml` says how.
#[cfg(unix)]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// An xDS control plane that turns Istio and Kubernetes objects into Envoy configuration.
#[derive(Parser)]
#[command(name = "pointsman", version, about, max_term_width = 100)]
#[command(after_help = "Examples:
  pointsman check --config mesh/
  pointsman serve --config mesh/
  pointsman bootstrap --pod reviews-1 --interception none > envoy.json
  pointsman status
  pointsman wait --for=accepted virtualservice/default/reviews

Exit codes: 0 done, 1 the command found something wrong, 2 it could not run, 130 the demo was interrupted.")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// What to log: error, warn, info, debug, trace, or a filter such as `info,server=debug`.
    #[arg(long, global = true, default_value = "info", env = "POINTSMAN_LOG", value_name = "FILTER")]
    log: String,
    /// Log as JSON, one object a line.
    #[arg(long, global = true)]
    log_json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Serve xDS from files and watch them.
    Serve(Box<serve::Arguments>),
    /// Read files and say what is wrong with them; exits with 1 if there are errors.
    Check(check::Arguments),
    /// Show the nodes and objects of a running server.
    Status(status::Arguments),
    /// Wait until objects are accepted by all nodes that they concern; exits with 1 if they are not in time.
    Wait(wait::Arguments),
    /// Show rollouts and act on them.
    Rollout(rollout::Arguments),
    /// Show what clients report about their traffic, and say how often they shall.
    Load(load_command::Arguments),
    /// Make, list and revoke join tokens, by which clients prove who they are.
    Token(token::Arguments),
    /// Show the authority that signs certificates, and rotate its root.
    Ca(ca::Arguments),
    /// Get a workload's certificate and keep it fresh in files, for gRPC without a proxy and for virtual machines.
    Certificate(certificate::Arguments),
    /// Print a bootstrap configuration for an Envoy or a gRPC client.
    Bootstrap(Box<bootstrap::Arguments>),
    /// Print the CustomResourceDefinitions of Pointsman's own kinds.
    Crds(crds::Arguments),
    /// Print the intents that Flagger's Canaries and Argo's Rollouts come to, and what is lost on the way.
    Import(import::Arguments),
    /// Move real traffic between two versions of a service with real Envoys, and count what fails.
    Demo(demo::Arguments),
    /// Serve xDS from a mesh that is made up, and change it on request: for benchmarks.
    #[command(hide = true)]
    Mesh(Box<mesh::Arguments>),
    /// Send what a server has sent, to any number of clients, at the least cost: for benchmarks.
    #[command(hide = true)]
    Floor(floor::Arguments),
    /// Imitate thousands of sidecars against any xDS server, and say what they saw and what they cost it.
    Swarm(Box<swarm::Arguments>),
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            // Standard error may be a pipe that nobody reads any more.
            let _ = writeln!(std::io::stderr(), "pointsman: {}", output::plain(&output::causes(&error)));
            ExitCode::from(2)
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode> {
    start_logging(&arguments)?;
    match arguments.command {
        Command::Serve(arguments) => serve::run(*arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Wait(arguments) => wait::run(&arguments),
        Command::Rollout(arguments) => rollout::run(arguments),
        Command::Load(arguments) => load_command::run(&arguments),
        Command::Token(arguments) => token::run(&arguments),
        Command::Ca(arguments) => ca::run(&arguments),
        Command::Certificate(arguments) => certificate::run(&arguments),
        Command::Bootstrap(arguments) => bootstrap::run(&arguments),
        Command::Crds(arguments) => crds::run(&arguments),
        Command::Import(arguments) => import::run(&arguments),
        Command::Demo(arguments) => demo::run(arguments),
        Command::Mesh(arguments) => mesh::run(*arguments),
        Command::Floor(arguments) => floor::run(&arguments),
        Command::Swarm(arguments) => swarm::run(*arguments),
    }
}

/// Logs go to standard error; results go to standard output.
fn start_logging(arguments: &Arguments) -> Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(&arguments.log).with_context(|| {
        format!("--log \"{}\" is neither a level nor a filter such as info,server=debug", arguments.log)
    })?;
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    if arguments.log_json {
        builder.json().init();
    } else {
        builder.with_target(false).init();
    }
    Ok(())
}
