//! `pointsman load`: what clients report about their traffic.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use http::Method;
use serde_json::{Value, json};
use server::view::{self, Failure};

use crate::ask::{Admin, encoded};
use crate::config::Format;
use crate::output::say;
use crate::table::table;

/// Show what clients report about their traffic, and say how often they shall.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Examples:
  pointsman load --every 2
  pointsman load
  pointsman load 'outbound|9080|v2|reviews.default.svc.cluster.local' -o json
  pointsman load --every 0

Numbers are attempts: a retry is a request. Envoy reports when its bootstrap was made with --load-reports.")]
pub(crate) struct Arguments {
    /// One cluster, with the clients that send to it; without it, all clusters that have traffic.
    cluster: Option<String>,
    /// From now on clients report every so many seconds; 0 for not at all.
    #[arg(long, value_name = "SECONDS")]
    every: Option<f64>,
    /// With --every: clients break their numbers down to endpoints.
    #[arg(long, requires = "every")]
    endpoints: bool,
    #[command(flatten)]
    admin: Admin,
    /// How the result is printed.
    #[arg(long, short, value_enum, default_value = "text")]
    output: Format,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    let answer = runtime.block_on(ask(arguments))?;
    if arguments.output == Format::Json {
        say!("{}", serde_json::to_string_pretty(&answer)?);
        return Ok(ExitCode::SUCCESS);
    }
    let unexpected = "the server answered something unexpected";
    if arguments.every.is_some() {
        settings(&serde_json::from_value(answer).context(unexpected)?);
    } else if arguments.cluster.is_some() {
        let load: view::ClusterLoad = serde_json::from_value(answer).context(unexpected)?;
        clusters(std::slice::from_ref(&load));
        say!();
        nodes(&load.nodes);
    } else {
        let all: view::Loads = serde_json::from_value(answer).context(unexpected)?;
        clusters(&all.clusters);
        if all.clusters.is_empty() {
            settings(&all.settings);
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn ask(arguments: &Arguments) -> Result<Value> {
    let admin = &arguments.admin;
    let (path, body) = match (arguments.every, &arguments.cluster) {
        (Some(every), _) => {
            let body = json!({ "interval_seconds": every, "endpoints": arguments.endpoints });
            ("/api/v1/load/settings".to_owned(), Some(body))
        }
        (None, Some(cluster)) => (format!("/api/v1/load/{}", encoded(cluster)), None),
        (None, None) => ("/api/v1/load".to_owned(), None),
    };
    match body {
        Some(body) => match admin.call(Method::PUT, &path, body.to_string()).await? {
            Ok(answer) => Ok(answer),
            Err(Failure { error, hint, .. }) => bail!("{error}\n    {hint}"),
        },
        None => admin.ask(&path).await,
    }
}

fn settings(settings: &view::LoadSettings) {
    if settings.interval_seconds == 0.0 {
        say!("clients are not asked for load; `pointsman load --every SECONDS` asks them");
    } else {
        let detail = if settings.endpoints { ", by endpoint" } else { "" };
        say!("clients are asked for load every {} s{detail}", settings.interval_seconds);
    }
}

fn clusters(clusters: &[view::ClusterLoad]) {
    let rows = clusters.iter().map(|load| {
        [
            load.cluster.clone(),
            format!("{:.1}", load.requests_per_second),
            percent(load.error_share),
            load.in_progress.to_string(),
            load.reporting_nodes.to_string(),
            load.successful.to_string(),
            load.errors.to_string(),
        ]
    });
    table(["CLUSTER", "REQUESTS/S", "ERRORS", "OPEN", "NODES", "SUCCESSFUL", "FAILED"], rows.collect());
}

fn nodes(nodes: &[view::NodeLoad]) {
    let rows = nodes.iter().map(|load| {
        [
            load.node_id.clone(),
            format!("{:.1}", load.requests_per_second),
            percent(load.error_share),
            load.in_progress.to_string(),
            format!("{:.1} s", load.age_seconds),
        ]
    });
    table(["NODE", "REQUESTS/S", "ERRORS", "OPEN", "AGE"], rows.collect());
}

fn percent(share: Option<f64>) -> String {
    share.map_or("-".to_owned(), |share| format!("{:.2} %", share * 100.0))
}
