//! `pointsman import`: intents from the objects of Flagger and Argo Rollouts.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde_json::json;
use source::import::{Imported, Weight, import};

use crate::config::Format;
use crate::output::say;

/// Print the deployment intents that Flagger's Canaries and Argo's Rollouts come to, and what is lost on the way.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Examples:
  pointsman import canary.yaml metric-templates.yaml > intent.yaml
  kubectl get rollouts,analysistemplates,destinationrules -o yaml | pointsman import - --strict > intents.yaml

Manifests go to standard output; what is lost goes to standard error, one line each: file:line field: what is lost, and
what to do about it. A line that begins with note: says what is said in another way. Name the files of MetricTemplates,
AnalysisTemplates and DestinationRules, too: what the objects refer to is looked for there.

Exit codes: 0 done, 1 with --strict if anything is lost, 2 if a file cannot be read.")]
pub(crate) struct Arguments {
    /// Files in YAML or JSON; `-` is standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Exit with 1 if anything is lost; notes are not.
    #[arg(long)]
    strict: bool,
    /// How the result is printed: text is YAML; json has manifests and remarks in one object.
    #[arg(long, short, value_enum, default_value = "text")]
    output: Format,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let files = arguments.files.iter().map(|path| {
        let bytes = match path.to_str() {
            Some("-") => {
                let mut bytes = Vec::new();
                std::io::Read::read_to_end(&mut std::io::stdin(), &mut bytes).map(|_| bytes)
            }
            _ => std::fs::read(path),
        };
        let name = path.display().to_string();
        bytes.map(|bytes| (name, bytes)).with_context(|| format!("cannot read \"{}\"", path.display()))
    });
    let imported = import(&files.collect::<Result<Vec<_>>>()?);
    match arguments.output {
        Format::Json => {
            let objects: Vec<_> = imported.manifests.iter().map(|manifest| &manifest.object).collect();
            let result = json!({"objects": objects, "remarks": imported.remarks});
            say!("{}", serde_json::to_string_pretty(&result)?);
        }
        Format::Text => print(&imported)?,
    }
    let is_lossy = imported.remarks.iter().any(|remark| remark.weight == Weight::Lost);
    Ok(if arguments.strict && is_lossy { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn print(imported: &Imported) -> Result<()> {
    use std::io::Write;
    for manifest in &imported.manifests {
        say!("---\n# From {}.\n{}", manifest.origin, serde_saphyr::to_string(&manifest.object)?.trim_end());
    }
    let mut errors = std::io::stderr().lock();
    for remark in &imported.remarks {
        // Standard error may be a pipe that nobody reads any more.
        let _ = writeln!(errors, "{remark}");
    }
    if imported.manifests.is_empty() {
        let _ = writeln!(errors, "there is no Canary of flagger.app and no Rollout of argoproj.io in the files");
    }
    Ok(())
}
