//! `pointsman check`: everything that is wrong with files, without serving them.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use plane::Plane;
use serde_json::json;
use world::{Change, Problem, Severity};

use crate::config::{Compilation, Files, Format};
use crate::output::say;

/// Read files and say what is wrong with them; exits with 1 if there are errors.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Examples:
  pointsman check --config mesh/
  pointsman check --config mesh/ --infer-subsets version -o json | jq '.problems[].message'")]
pub(crate) struct Arguments {
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    compilation: Compilation,
    /// How the result is printed.
    #[arg(long, short, value_enum, default_value = "text")]
    output: Format,
    /// Also list the objects that have no meaning for traffic and were passed over.
    #[arg(long, short)]
    verbose: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let (files, update) = source::watch::load(&arguments.files.config, &arguments.files.watch_options());
    let applied = |change: &&Change| matches!(change, Change::Apply(_));
    let objects = update.changes.iter().filter(applied).count();
    let mut plane = Plane::new(arguments.compilation.settings(), arguments.compilation.options());
    plane.apply(update.changes, update.problems.to_vec());
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let problems = plane.check(u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
    let errors = problems.iter().filter(|p| p.severity == Severity::Error).count();
    let others: BTreeSet<_> = files.others().map(|(file, object)| (file.clone(), object.clone())).collect();
    match arguments.output {
        Format::Json => {
            let others: Vec<_> = others.iter().map(|(file, object)| json!({"file": file, "object": object})).collect();
            let result = json!({"objects": objects, "errors": errors, "problems": problems, "passed_over": others});
            say!("{}", serde_json::to_string_pretty(&result)?);
        }
        Format::Text => print(objects, errors, &problems, if arguments.verbose { Some(others) } else { None }),
    }
    Ok(if errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(
    objects: usize,
    errors: usize,
    problems: &[Problem],
    others: Option<BTreeSet<(std::sync::Arc<str>, world::ObjectRef)>>,
) {
    let mut last_hint = "";
    for problem in problems {
        // One manifest often mends several problems in a row: it is printed once.
        let repeated = !problem.hint.is_empty() && problem.hint == last_hint && problem.hint.lines().count() > 1;
        last_hint = &problem.hint;
        match repeated {
            false => say!("{problem}\n"),
            true => say!("{}\n    As above.\n", Problem { hint: String::new(), ..problem.clone() }),
        }
    }
    for (file, object) in others.iter().flatten() {
        say!("passed over: {file}: {object}");
    }
    say!("{objects} objects, {errors} errors, {} warnings", problems.len() - errors);
}
