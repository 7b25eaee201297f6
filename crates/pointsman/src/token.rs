//! `pointsman token`: join tokens, for clients that have no certificate yet.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Subcommand;
use identity::{TokenId, Uses, Workload};
use serde_json::json;
use server::StateDirectory;

use crate::config::Format;
use crate::output::say;
use crate::table::table;

/// Make, list and revoke join tokens. A server with the same state directory takes them at once.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// The server's state directory.
    #[arg(long, global = true, value_name = "DIRECTORY")]
    state_dir: Option<PathBuf>,
    /// How the result is printed.
    #[arg(long, short, global = true, value_enum, default_value = "text")]
    output: Format,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Make a token and print it; it is shown this once.
    Create {
        /// For whom it stands.
        #[arg(long, value_name = "NAMESPACE/SERVICE-ACCOUNT")]
        identity: Workload,
        /// How many seconds it holds.
        #[arg(long, default_value_t = 3600, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
        ttl: u64,
        /// Let it be used once only: for one call, such as the one for a certificate.
        #[arg(long)]
        once: bool,
    },
    /// List the tokens that there are, without their secrets.
    List,
    /// Revoke a token: no call begins by it any more, and streams by it end.
    Revoke {
        /// Its id: the part between the underscores.
        id: TokenId,
    },
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let directory = arguments.state_dir.as_ref().context("say which state directory: --state-dir DIRECTORY")?;
    // A directory that no server uses would make tokens that nobody takes.
    let state = StateDirectory::existing(directory).context("cannot use the state directory")?;
    match &arguments.command {
        Command::Create { identity, ttl, once } => {
            let uses = if *once { Uses::Once } else { Uses::Many };
            let token = state.create_token(identity, uses, Duration::from_secs(*ttl)).context("cannot make a token")?;
            match arguments.output {
                Format::Text => say!("{}", token.reveal()),
                Format::Json => say!("{}", json!({ "id": token.id(), "token": token.reveal() })),
            }
        }
        Command::List => {
            let records = state.list_tokens().context("cannot list the tokens")?;
            match arguments.output {
                Format::Json => {
                    let records = records.iter().map(|record| {
                        let (id, identity, uses) = (&record.id, &record.identity, record.uses);
                        json!({ "id": id, "identity": identity, "uses": uses, "created": record.created, "expires": record.expires })
                    });
                    say!("{}", serde_json::Value::Array(records.collect()));
                }
                Format::Text => {
                    let rows = records.iter().map(|record| {
                        let uses = if record.uses == Uses::Once { "once" } else { "many" };
                        [record.id.to_string(), record.identity.clone(), uses.to_owned(), record.expires.to_string()]
                    });
                    table(["ID", "IDENTITY", "USES", "EXPIRES"], rows.collect());
                }
            }
        }
        Command::Revoke { id } => {
            if !state.revoke_token(id).context("cannot revoke the token")? {
                tracing::warn!(%id, "there is no such token");
                return Ok(ExitCode::from(1));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
