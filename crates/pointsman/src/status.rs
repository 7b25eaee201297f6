//! `pointsman status`: what a running server knows of its nodes and objects.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::{Context, Result};
use server::view;

use crate::config::Format;
use crate::output::say;

/// Show the nodes and objects of a running server.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Examples:
  pointsman status
  pointsman status nodes -o json
  pointsman status objects --admin 127.0.0.1:15014")]
pub(crate) struct Arguments {
    /// What to show.
    #[arg(value_enum, default_value = "all")]
    what: What,
    /// The admin interface of the server.
    #[arg(long, default_value = "127.0.0.1:15014", value_name = "IP:PORT")]
    admin: SocketAddr,
    /// How the result is printed.
    #[arg(long, short, value_enum, default_value = "text")]
    output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// Nodes and objects.
    All,
    /// Who is connected, and what each was sent, accepted and refused.
    Nodes,
    /// What is configured, who has it, and what is wrong with it.
    Objects,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    let mut json = serde_json::Map::new();
    if arguments.what != What::Objects {
        let value = runtime.block_on(get(arguments.admin, "/api/v1/nodes"))?;
        match arguments.output {
            Format::Json => json.extend(value.as_object().cloned().unwrap_or_default()),
            Format::Text => nodes(&serde_json::from_value(value).context("the server answered something unexpected")?),
        }
    }
    if arguments.what != What::Nodes {
        let value = runtime.block_on(get(arguments.admin, "/api/v1/objects"))?;
        match arguments.output {
            Format::Json => json.extend(value.as_object().cloned().unwrap_or_default()),
            Format::Text => {
                if arguments.what == What::All {
                    say!();
                }
                objects(&serde_json::from_value(value).context("the server answered something unexpected")?);
            }
        }
    }
    if arguments.output == Format::Json {
        say!("{}", serde_json::to_string_pretty(&json)?);
    }
    Ok(ExitCode::SUCCESS)
}

async fn get(admin: SocketAddr, path: &str) -> Result<serde_json::Value> {
    testkit::http::get_json(admin, path)
        .await
        .with_context(|| format!("cannot ask http://{admin}{path} (is `pointsman serve` running there?)"))
}

/// One row a node, one below it for each refusal.
fn nodes(view: &view::Nodes) {
    let rows = view.nodes.iter().map(|node| {
        let types: Vec<_> = node.subscriptions.iter().map(progress).collect();
        [node.id.clone(), state(node.sync).to_owned(), node.user_agent_version.clone(), types.join(", ")]
    });
    table(["NODE", "STATE", "VERSION", "TYPES"], rows.collect());
    for node in &view.nodes {
        for subscription in &node.subscriptions {
            // What was mended meanwhile is history, which the admin API still tells.
            let in_force = |rejection: &&view::Rejection| {
                subscription.refused_count > 0 || rejection.version == subscription.sent_version
            };
            if let Some(rejection) = subscription.last_rejection.as_ref().filter(in_force) {
                say!("{} refused {}: {}", node.id, subscription.r#type, rejection.message);
            }
            for waiting in &subscription.waiting {
                say!("{} {}: {waiting}", node.id, subscription.r#type);
            }
        }
    }
}

fn state(sync: view::Sync) -> &'static str {
    match sync {
        view::Sync::Synced => "synced",
        view::Sync::Pending => "pending",
        view::Sync::Rejected => "refused",
        view::Sync::Unknown => "silent",
        view::Sync::Disconnected => "gone",
    }
}

/// `rds 3`: three subscribed; `cds all*`: a star while the newest version is not accepted yet.
fn progress(subscription: &view::Subscription) -> String {
    let count = if subscription.wildcard { "all".to_owned() } else { subscription.subscribed_count.to_string() };
    let star = if subscription.sent_version == subscription.accepted_version { "" } else { "*" };
    format!("{} {count}{star}", subscription.r#type)
}

/// One row an object, one below it for each problem and refusal.
fn objects(view: &view::Objects) {
    let rows = view.objects.iter().map(|object| {
        let of = |count: usize| if count == 0 { "-".to_owned() } else { count.to_string() };
        [
            format!("{} {}/{}", object.kind, object.namespace, object.name),
            of(object.accepted_nodes.len()),
            of(object.pending_nodes.len()),
            of(object.rejected_nodes.len()),
            of(object.problems.len()),
        ]
    });
    table(["OBJECT", "ACCEPTED", "PENDING", "REFUSED", "PROBLEMS"], rows.collect());
    for object in &view.objects {
        for problem in &object.problems {
            say!("{} {}/{}: {}: {}", object.kind, object.namespace, object.name, problem.field, problem.message);
        }
        for rejection in &object.rejected_nodes {
            say!("{} refused {}: {}", rejection.node_id, rejection.resource, rejection.message);
        }
    }
    for node in &view.silent_nodes {
        say!("{node} did not answer in time; what it has is not in the numbers above");
    }
}

/// Prints columns as wide as their widest cell.
pub(crate) fn table<const N: usize>(head: [&str; N], rows: Vec<[String; N]>) {
    let width = |at: usize| rows.iter().map(|row| row[at].len()).chain([head[at].len()]).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |cells: [&str; N]| {
        let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        say!("{}", padded.collect::<Vec<_>>().join("  ").trim_end());
    };
    line(head);
    for row in &rows {
        line(std::array::from_fn(|at| row[at].as_str()));
    }
}
