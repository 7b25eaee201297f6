//! `pointsman crds`: what a Kubernetes API server has to know of our own kinds.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::{Value, json};

use crate::config::Format;
use crate::output::say;

/// Print the CustomResourceDefinitions of Pointsman's own kinds.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Examples:
  pointsman crds | kubectl apply --server-side -f -
  pointsman crds -o json | jq '.items[].metadata.name'

With them an API server refuses most of what `pointsman check` refuses, and kubectl explain describes every field.")]
pub(crate) struct Arguments {
    /// How they are printed: text is YAML, one document each; json is one list.
    #[arg(long, short, value_enum, default_value = "text")]
    output: Format,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let definitions = source::crds::all();
    match arguments.output {
        Format::Json => {
            let list = json!({"apiVersion": "v1", "kind": "List", "items": definitions});
            say!("{}", serde_json::to_string_pretty(&list)?);
        }
        Format::Text => {
            for definition in &definitions {
                say!("---\n{}", yaml(definition)?.trim_end());
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn yaml(definition: &Value) -> Result<String> {
    Ok(serde_saphyr::to_string(definition)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::path::Path;

    use super::*;

    /// `UPDATE_EXPECTED=1 cargo test` writes the files; read the difference before you commit it.
    #[test]
    fn the_files_under_deploy_are_what_the_command_prints() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/crds");
        let mut names = Vec::new();
        for definition in source::crds::all() {
            let name = format!("{}.yaml", definition.pointer("/spec/names/plural").unwrap().as_str().unwrap());
            let text = yaml(&definition).unwrap();
            assert_eq!(serde_saphyr::from_str::<Value>(&text).unwrap(), definition, "{name} says the same as YAML");
            if std::env::var_os("UPDATE_EXPECTED").is_some() {
                std::fs::create_dir_all(&directory).unwrap();
                std::fs::write(directory.join(&name), &text).unwrap();
            }
            let written = std::fs::read_to_string(directory.join(&name)).unwrap();
            assert!(written == text, "deploy/crds/{name} is not what `pointsman crds` prints");
            names.push(name);
        }
        let files = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name());
        let mut files: Vec<_> = files.map(|name| name.into_string().unwrap()).collect();
        files.sort();
        assert_eq!(files, names);
    }
}
