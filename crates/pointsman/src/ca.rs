//! `pointsman ca`: the authority that signs certificates, and the rotation of its root.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Subcommand;
use serde_json::json;
use server::view::{Authority, Failure};

use crate::ask::Admin;
use crate::config::Format;
use crate::output::say;
use crate::table::table;

/// The stage in which a rotation can still be given up.
const DISTRIBUTING: &str = "distributing";
const STATUS: &str = "/api/v1/authority";
const ACTIONS: &str = "/api/v1/authority/actions";
/// How often it is asked whether somebody still lacks something.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// So many nodes are listed as text.
const MOST_LISTED: usize = 50;

/// Show the authority that signs certificates, and rotate its root.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Examples:
  pointsman ca status
  pointsman ca roots > root-cert.pem
  pointsman ca rotate
  pointsman ca rotate --wait 0 --force --reason 'the last node is being rebuilt'

A rotation hands out both roots, waits until every connected node has accepted them, lets the new root sign, waits until
every node has a certificate of it, and takes the old root away. It goes on where it was when it is called again, also
after a restart of the server.

Exit codes: 0 done, 1 nodes lack something (the output says which), 2 the command could not run.")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    admin: Admin,
    /// How the result is printed.
    #[arg(long, short, global = true, value_enum, default_value = "text")]
    output: Format,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Who signs, what is trusted, how far a rotation is, and who lacks what.
    Status,
    /// What clients should trust now, as PEM: during a rotation both roots.
    Roots,
    /// Replace the root, stage by stage.
    Rotate {
        /// So many seconds each stage is waited for.
        #[arg(long, default_value_t = 300, value_name = "SECONDS")]
        wait: u64,
        /// Go on when that is over although nodes lack something: they may be cut off.
        #[arg(long)]
        force: bool,
        /// End one stage only.
        #[arg(long)]
        step: bool,
        #[command(flatten)]
        why: Why,
    },
    /// Give a rotation up, while the new root has signed nothing.
    Abort {
        #[command(flatten)]
        why: Why,
    },
}

#[derive(clap::Args, Clone, Debug)]
struct Why {
    /// Who does this; kept in the audit log.
    #[arg(long, env = "USER", default_value = "")]
    actor: String,
    /// Why; kept in the audit log.
    #[arg(long, default_value = "")]
    reason: String,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(carry_out(arguments))
}

async fn carry_out(arguments: &Arguments) -> Result<ExitCode> {
    let Arguments { command, admin, output } = arguments;
    match command {
        Command::Status => print(&admin.ask::<Authority>(STATUS).await?, *output)?,
        Command::Roots => say!("{}", admin.ask::<Authority>(STATUS).await?.roots.trim_end()),
        Command::Rotate { wait, force, step, why } => {
            let rotation = Rotation { admin, output: *output, wait: Duration::from_secs(*wait), force: *force, why };
            return rotation.run(*step).await;
        }
        Command::Abort { why } => match act(admin, "abort", "", false, why).await? {
            Ok(authority) => print(&authority, *output)?,
            Err(failure) => return Ok(refused(&failure)),
        },
    }
    Ok(ExitCode::SUCCESS)
}

/// A rotation that is driven from here.
struct Rotation<'a> {
    admin: &'a Admin,
    output: Format,
    wait: Duration,
    force: bool,
    why: &'a Why,
}

impl Rotation<'_> {
    async fn run(&self, one_step: bool) -> Result<ExitCode> {
        let mut authority = self.admin.ask::<Authority>(STATUS).await?;
        if authority.stage.is_empty() {
            match act(self.admin, "begin", "", false, self.why).await? {
                Ok(begun) => authority = begun,
                Err(failure) => return Ok(refused(&failure)),
            }
            tracing::info!(stage = authority.stage, "both roots are handed out");
            if one_step {
                print(&authority, self.output)?;
                return Ok(ExitCode::SUCCESS);
            }
        }
        let before = authority.issuer.fingerprint.clone();
        let mut is_decided = authority.stage != DISTRIBUTING;
        while !authority.stage.is_empty() {
            match self.advance(&authority.stage).await? {
                Ok(next) => authority = next,
                Err(lacking) => {
                    print(&lacking, self.output)?;
                    return Ok(ExitCode::from(1));
                }
            }
            match &*authority.stage {
                "" if !is_decided && authority.issuer.fingerprint == before => {
                    tracing::error!("somebody has given the rotation up; the old root signs as before");
                    print(&authority, self.output)?;
                    return Ok(ExitCode::from(1));
                }
                "" => tracing::info!("the old root is retired"),
                stage => tracing::info!(stage, "the new root signs"),
            }
            is_decided = true;
            if one_step {
                break;
            }
        }
        print(&authority, self.output)?;
        Ok(ExitCode::SUCCESS)
    }

    /// Ends a stage as soon as nobody lacks anything; by force when the wait is over. Else the last picture.
    async fn advance(&self, stage: &str) -> Result<std::result::Result<Authority, Authority>> {
        let begun = Instant::now();
        let mut told = usize::MAX;
        loop {
            let is_over = begun.elapsed() >= self.wait;
            match act(self.admin, "advance", stage, self.force && is_over, self.why).await? {
                Ok(next) => return Ok(Ok(next)),
                Err(failure) => tracing::debug!(error = failure.error, "not yet"),
            }
            let now = self.admin.ask::<Authority>(STATUS).await?;
            if now.stage != stage {
                // Somebody else was faster.
                return Ok(Ok(now));
            }
            if is_over {
                return Ok(Err(now));
            }
            if now.lacking.len() != std::mem::replace(&mut told, now.lacking.len()) {
                let (lacking, settles) = (now.lacking.len(), now.settles_in_seconds);
                tracing::info!(stage, nodes = now.nodes, lacking, settles_in_seconds = settles, "waiting");
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }
}

async fn act(
    admin: &Admin,
    action: &str,
    stage: &str,
    force: bool,
    why: &Why,
) -> Result<std::result::Result<Authority, Failure>> {
    let Why { actor, reason } = why;
    let body = json!({ "action": action, "stage": stage, "force": force, "actor": actor, "reason": reason });
    admin.post(ACTIONS, &body).await
}

fn refused(failure: &Failure) -> ExitCode {
    say!("{}\n    {}", failure.error, failure.hint);
    ExitCode::from(1)
}

fn print(authority: &Authority, output: Format) -> Result<()> {
    if output == Format::Json {
        say!("{}", serde_json::to_string(authority)?);
        return Ok(());
    }
    let Authority { issuer, trusted, stage, since, nodes, lacking, settles_in_seconds, .. } = authority;
    say!("signs      {} until {}", issuer.fingerprint, issuer.not_after);
    for root in trusted {
        say!("trusted    {root}");
    }
    match since {
        Some(since) => say!("rotation   {stage} since {since}"),
        None => say!("rotation   none"),
    }
    if *settles_in_seconds > 0 {
        say!("settles    for {settles_in_seconds} s more");
    }
    say!("nodes      {nodes}, of which {} lack something", lacking.len());
    if !lacking.is_empty() {
        let rows = lacking.iter().take(MOST_LISTED);
        let rows = rows.map(|node| [node.id.clone(), node.identity.clone(), node.reason.clone()]);
        table(["NODE", "IDENTITY", "LACKS"], rows.collect());
    }
    if lacking.len() > MOST_LISTED {
        say!("and {} more; -o json lists all", lacking.len() - MOST_LISTED);
    }
    Ok(())
}
