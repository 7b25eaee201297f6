//! `pointsman rollout apply` and `delete`: objects that the server keeps.

use std::fmt::Write;
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use http::Method;
use server::view::{Failure, IntentsTaken};

use super::{How, problem_line};
use crate::ask::{Admin, encoded};
use crate::config::Format;
use crate::output::say;

/// Hands the objects of a file over: 0 when they were taken, 1 when they were refused.
pub(super) async fn apply(admin: &Admin, file: &Path, how: &How, output: Format) -> Result<ExitCode> {
    let document = if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
        text
    } else {
        std::fs::read_to_string(file).with_context(|| format!("cannot read \"{}\"", file.display()))?
    };
    let answer = admin.call(Method::POST, &format!("/api/v1/intents?{}", query(how)), document).await?;
    tell(answer, how, output)
}

/// Takes an object away: 0 when it is gone, 1 when that was refused.
pub(super) async fn delete(admin: &Admin, named: [&str; 3], how: &How, output: Format) -> Result<ExitCode> {
    let [kind, namespace, name] = named.map(encoded);
    let path = format!("/api/v1/intents/{kind}/{namespace}/{name}?{}", query(how));
    tell(admin.call(Method::DELETE, &path, String::new()).await?, how, output)
}

fn query(how: &How) -> String {
    let mut query = format!("dry_run={}", how.dry_run);
    if let Some(generation) = how.expected_generation {
        // Writing to a string does not fail.
        _ = write!(query, "&expected_generation={generation}");
    }
    for (name, value) in [("actor", &how.actor), ("reason", &how.reason)] {
        if !value.is_empty() {
            _ = write!(query, "&{name}={}", encoded(value));
        }
    }
    query
}

fn tell(answer: Result<IntentsTaken, Failure>, how: &How, output: Format) -> Result<ExitCode> {
    match (&answer, output) {
        (Ok(taken), Format::Json) => say!("{}", serde_json::to_string_pretty(taken)?),
        (Err(failure), Format::Json) => say!("{}", serde_json::to_string_pretty(failure)?),
        (Ok(taken), Format::Text) => {
            taken.warnings.iter().for_each(|warning| say!("{}", problem_line(warning)));
            let dry = if how.dry_run { " (dry run)" } else { "" };
            for object in &taken.objects {
                let (kind, namespace, name) = (&object.kind, &object.namespace, &object.name);
                say!("{kind} {namespace}/{name}: {}, generation {}{dry}", object.effect, object.generation);
            }
        }
        (Err(failure), Format::Text) => {
            if failure.problems.is_empty() {
                say!("{}", failure.error);
            }
            failure.problems.iter().for_each(|problem| say!("{}", problem_line(problem)));
            say!("    {}", failure.hint);
        }
    }
    Ok(if answer.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
