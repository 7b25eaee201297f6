//! The crates keep to the picture in ARCHITECTURE.md.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Crates that touch the outside world, and the crates that only they may list.
const SHELL: [&str; 5] = ["source", "server", "pointsman", "testkit", "swarm"];
const IO_CRATES: [&str; 8] = ["tokio", "tonic", "hyper", "kube", "tokio-util", "axum", "notify", "nix"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The names under `[section]` of a crate's manifest.
fn dependencies(directory: &str, section: &str) -> BTreeSet<String> {
    let manifest = std::fs::read_to_string(root().join("crates").join(directory).join("Cargo.toml")).unwrap();
    let mut inside = false;
    let mut names = BTreeSet::new();
    for line in manifest.lines() {
        if let Some(header) = line.strip_prefix('[') {
            inside = header.trim_end_matches(']') == section;
        } else if inside && line.contains('=') {
            let name = line.split(['.', '=', ' ']).next().unwrap();
            names.insert(name.to_owned());
        }
    }
    names
}

/// The table under "Crates" of ARCHITECTURE.md: crate → crates of ours that it may depend on.
fn allowed() -> BTreeMap<String, BTreeSet<String>> {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let section = text.split("\n## ").find(|s| s.starts_with("Crates\n")).expect("a section called Crates");
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let names = cells[2].split(',').map(|n| n.trim().trim_matches('`').to_owned());
        (cells[0].trim_matches('`').to_owned(), names.filter(|n| n != "-").collect())
    })
    .collect()
}

#[test]
fn every_crate_depends_on_what_the_table_allows_and_nothing_else() {
    let allowed = allowed();
    let directories: BTreeSet<_> = std::fs::read_dir(root().join("crates"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let listed: BTreeSet<_> = allowed.keys().cloned().collect();
    assert_eq!(directories, listed, "the table in ARCHITECTURE.md lists exactly the crates that there are");
    for (directory, may) in &allowed {
        let ours: BTreeSet<_> = dependencies(directory, "dependencies").intersection(&listed).cloned().collect();
        assert_eq!(&ours, may, "dependencies of crate `{directory}`, left as they are, right as the table has them");
    }
}

#[test]
fn only_shell_crates_list_crates_that_do_io() {
    for directory in allowed().keys().filter(|d| !SHELL.contains(&d.as_str())) {
        let listed = dependencies(directory, "dependencies");
        let forbidden: Vec<_> = IO_CRATES.iter().filter(|io| listed.contains(**io)).collect();
        // The generated service stubs of our own API need tonic; they are behind a feature that only shells turn on.
        let forbidden: Vec<_> = forbidden.into_iter().filter(|io| directory != "proto" || **io != "tonic").collect();
        assert!(forbidden.is_empty(), "crate `{directory}` must not list {forbidden:?}");
    }
}
