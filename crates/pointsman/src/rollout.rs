//! `pointsman rollout`: how traffic moves, and what people do about it.

mod apply;
mod lists;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use server::view;

use crate::ask::{Admin, encoded};
use crate::config::Format;
use crate::output::say;

/// Show rollouts and act on them.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Examples:
  pointsman rollout list
  pointsman rollout status shop/reviews
  pointsman rollout watch shop/reviews
  pointsman rollout promote shop/reviews --expected-step 3 --reason 'looks good'
  pointsman rollout promote shop/checkout --variant blue-button
  pointsman rollout abort reviews -n shop
  pointsman rollout rollback-to shop/reviews v1
  pointsman rollout apply -f intent.yaml --dry-run
  pointsman rollout delete shop/reviews

NAME is an intent, or a run of it such as reviews-4, as NAMESPACE/NAME, or as NAME in the namespace of -n.

Exit codes: 0 done, 1 the run does not take the action or the server the objects (the output says why), or `watch` saw it
go back, 2 the command
could not run, 130 `watch` was interrupted.")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    admin: Admin,
    /// The namespace of names without one.
    #[arg(long, short, global = true, default_value = "default")]
    namespace: String,
    /// How the result is printed.
    #[arg(long, short, global = true, value_enum, default_value = "text")]
    output: Format,
}

#[derive(clap::Subcommand, Clone, Debug)]
enum Command {
    /// All intents with their runs.
    List,
    /// One: phase, weights, nodes, endpoints, what it waits for.
    Status(Target),
    /// The same, again and again until the run is over.
    Watch(Target),
    /// Go on: whatever the run waits for has happened.
    Promote {
        /// Which rollout.
        #[arg(value_name = "NAME")]
        name: String,
        /// The variant of an A/B test that has won, by its name or its revision.
        #[arg(long, value_name = "VARIANT", default_value = "")]
        variant: String,
        #[command(flatten)]
        why: Why,
    },
    /// Everything to the candidate, without further steps.
    PromoteFull(Act),
    /// Stay where it is; going back stays possible.
    Pause(Act),
    /// The opposite of pausing.
    Resume(Act),
    /// Everything back to stable.
    Abort(Act),
    /// Once more: the step, if it is blocked; the run, if it has gone back.
    Retry(Act),
    /// Leave the current step out.
    Skip(Act),
    /// Everything to a revision that was good before.
    RollbackTo {
        /// Which rollout.
        #[arg(value_name = "NAME")]
        name: String,
        /// Where to.
        #[arg(value_name = "REVISION")]
        revision: String,
        #[command(flatten)]
        why: Why,
    },
    /// The runs of an intent, and what happened in them.
    History(Target),
    /// Every number that the verdict on the candidate rests on.
    Explain(Target),
    /// Have the server keep intents, profiles and freezes; it needs a state directory.
    Apply {
        /// A file with one or more objects, - for standard input. All of them are taken, or none.
        #[arg(long, short, value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        how: How,
    },
    /// Take away an object that was applied; a run of an intent goes back to stable.
    Delete {
        /// Which object.
        #[arg(value_name = "NAME")]
        name: String,
        /// What it is.
        #[arg(long, default_value = "DeploymentIntent", value_name = "KIND")]
        kind: String,
        #[command(flatten)]
        how: How,
    },
}

#[derive(clap::Args, Clone, Debug)]
struct How {
    /// Change nothing, and say what would be.
    #[arg(long)]
    dry_run: bool,
    /// Refuse if the object is not at this generation any more, 0 if it exists; only for a single object.
    #[arg(long, value_name = "GENERATION")]
    expected_generation: Option<i64>,
    /// Who does this; recorded in the audit trail.
    #[arg(long, env = "USER", default_value = "")]
    actor: String,
    /// Why; recorded in the audit trail.
    #[arg(long, default_value = "")]
    reason: String,
}

#[derive(clap::Args, Clone, Debug)]
struct Target {
    /// Which rollout.
    #[arg(value_name = "NAME")]
    name: String,
}

#[derive(clap::Args, Clone, Debug)]
struct Act {
    /// Which rollout.
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    why: Why,
}

#[derive(clap::Args, Clone, Debug)]
struct Why {
    /// Refuse if the run is not in this step any more; steps count from 0.
    #[arg(long, value_name = "STEP")]
    expected_step: Option<usize>,
    /// Who does this; recorded with the run.
    #[arg(long, env = "USER", default_value = "")]
    actor: String,
    /// Why; recorded with the run.
    #[arg(long, default_value = "")]
    reason: String,
    /// A second action with the same id does nothing.
    #[arg(long, default_value = "")]
    id: String,
}

impl Why {
    fn request(self, verb: &str, revision: String) -> view::RolloutRequest {
        let Why { expected_step, actor, reason, id } = self;
        view::RolloutRequest { verb: verb.to_owned(), revision, id, expected_step, actor, reason, ..Default::default() }
    }
}

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(carry_out(arguments))
}

async fn carry_out(arguments: Arguments) -> Result<ExitCode> {
    let Arguments { command, admin, namespace, output } = arguments;
    let path = |name: &str| path_of(&namespace, name);
    let act = async |name: &str, request: view::RolloutRequest| {
        let path = format!("{}/actions", path(name)?);
        match admin.post::<view::Rollout>(&path, &serde_json::to_value(&request)?).await? {
            Ok(rollout) => {
                print(&rollout, output, lists::summary)?;
                Ok(ExitCode::SUCCESS)
            }
            Err(failure) => {
                say!("{}\n    {}", failure.error, failure.hint);
                Ok(ExitCode::FAILURE)
            }
        }
    };
    match command {
        Command::List => {
            let all: view::Rollouts = admin.ask("/api/v1/rollouts").await?;
            match output {
                Format::Json => say!("{}", serde_json::to_string_pretty(&all)?),
                Format::Text => lists::all(&all),
            }
        }
        Command::Status(target) => print(&admin.ask(&path(&target.name)?).await?, output, lists::one)?,
        Command::History(target) => print(&admin.ask(&path(&target.name)?).await?, output, lists::history)?,
        Command::Explain(target) => print(&admin.ask(&path(&target.name)?).await?, output, lists::explain)?,
        Command::Watch(target) => return watch::watch(&admin, &path(&target.name)?, output).await,
        Command::Promote { name, variant, why } => {
            let request = view::RolloutRequest { variant, ..why.request("promote", String::new()) };
            return act(&name, request).await;
        }
        Command::PromoteFull(Act { name, why }) => {
            return act(&name, why.request("promote-full", String::new())).await;
        }
        Command::Pause(Act { name, why }) => return act(&name, why.request("pause", String::new())).await,
        Command::Resume(Act { name, why }) => return act(&name, why.request("resume", String::new())).await,
        Command::Abort(Act { name, why }) => return act(&name, why.request("abort", String::new())).await,
        Command::Retry(Act { name, why }) => return act(&name, why.request("retry", String::new())).await,
        Command::Skip(Act { name, why }) => return act(&name, why.request("skip-step", String::new())).await,
        Command::RollbackTo { name, revision, why } => {
            return act(&name, why.request("roll-back-to", revision)).await;
        }
        Command::Apply { file, how } => return apply::apply(&admin, &file, &how, output).await,
        Command::Delete { name, kind, how } => {
            let (namespace, name) = named(&namespace, &name)?;
            return apply::delete(&admin, [&kind, namespace, name], &how, output).await;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Namespace and name.
fn named<'a>(namespace: &'a str, name: &'a str) -> Result<(&'a str, &'a str)> {
    match name.split('/').collect::<Vec<_>>()[..] {
        [name] if !name.is_empty() => Ok((namespace, name)),
        [namespace, name] if !namespace.is_empty() && !name.is_empty() => Ok((namespace, name)),
        _ => bail!("\"{name}\" is neither NAME nor NAMESPACE/NAME"),
    }
}

/// The rollout of this name on the admin API.
fn path_of(namespace: &str, name: &str) -> Result<String> {
    let (namespace, name) = named(namespace, name)?;
    Ok(format!("/api/v1/rollouts/{}/{}", encoded(namespace), encoded(name)))
}

/// A problem as `check` prints it; of a document that was handed over it is the line alone that says where.
fn problem_line(problem: &view::Problem) -> String {
    let place = match (&*problem.file, problem.line) {
        ("", 0) => String::new(),
        ("", line) => format!("line {line}: "),
        (file, 0) => format!("{file}: "),
        (file, line) => format!("{file}:{line}: "),
    };
    let parts = [&problem.object, &problem.field].into_iter().filter(|part| !part.is_empty());
    let about: String = parts.map(|part| format!("{part}: ")).collect();
    let hint: String = problem.hint.lines().map(|line| format!("\n    {line}")).collect();
    format!("{}: {place}{about}{}; {}{hint}", problem.severity, problem.message, problem.consequence)
}

fn print(rollout: &view::Rollout, output: Format, text: impl Fn(&view::Rollout)) -> Result<()> {
    match output {
        Format::Json => say!("{}", serde_json::to_string_pretty(rollout)?),
        Format::Text => text(rollout),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn names_have_a_namespace_or_take_the_given_one() {
        assert_eq!(path_of("default", "a").unwrap(), "/api/v1/rollouts/default/a");
        assert_eq!(path_of("default", "shop/a-1").unwrap(), "/api/v1/rollouts/shop/a-1");
        for wrong in ["", "/", "a/", "/a", "a/b/c"] {
            assert!(path_of("default", wrong).is_err(), "{wrong}");
        }
    }
}
