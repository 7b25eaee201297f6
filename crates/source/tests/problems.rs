//! What is said about each kind of bad input, word for word.
//!
//! Every file in `problems/` holds cases: a line `=== what is wrong`, the manifest, a line `>>>`, and what is expected.
//! `UPDATE_EXPECTED=1 cargo test` writes what is said now; read the difference before you commit it.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::fmt::Write;
use std::path::Path;

use source::text::{Options, parse};

/// Problems as `check` prints them, then what became of the objects.
fn judge(manifest: &str) -> String {
    let parsed = parse("mesh.yaml", manifest.as_bytes(), &Options::default());
    let mut said = String::new();
    for problem in &parsed.problems {
        writeln!(said, "{problem}").unwrap();
    }
    for object in &parsed.objects {
        writeln!(said, "applied: {} ({})", object.reference, object.meta.location.as_ref().unwrap()).unwrap();
    }
    for reference in &parsed.others {
        writeln!(said, "passed over: {reference}").unwrap();
    }
    // A short form of the sentence that most errors end with.
    said.replace("the object is not applied; the last good version, if there is one, stays in force", "REFUSED").replace(
        "the document is skipped, and objects that the file defined before stay in force until all of it can be read",
        "SKIPPED",
    )
}

fn check(file: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/problems").join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    let (head, cases) = text.split_once("=== ").unwrap();
    let mut written = head.to_owned();
    let mut wrong = Vec::new();
    for case in cases.split("\n=== ") {
        let (name, rest) = case.split_once('\n').unwrap();
        let (manifest, expected) = rest.split_once(">>>\n").unwrap();
        let said = judge(manifest);
        if said.trim_end() != expected.trim_end() {
            wrong.push(format!("{name}\nexpected:\n{expected}\nsaid:\n{said}"));
        }
        write!(written, "=== {name}\n{manifest}>>>\n{}\n\n", said.trim_end()).unwrap();
    }
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(&path, written.trim_end().to_owned() + "\n").unwrap();
    } else {
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

#[test]
fn text_that_cannot_be_read_is_told_with_its_place() {
    check("text.txt");
}

#[test]
fn kinds_and_identities_that_make_no_sense_are_told() {
    check("identity.txt");
}

#[test]
fn fields_that_do_not_fit_their_type_are_told_with_their_path() {
    check("fields.txt");
}

#[test]
fn virtual_services_are_checked() {
    check("virtual_service.txt");
}

#[test]
fn destination_rules_are_checked() {
    check("destination_rule.txt");
}

#[test]
fn service_entries_and_workload_entries_are_checked() {
    check("service_entry.txt");
}

#[test]
fn gateways_are_checked() {
    check("gateway.txt");
}

#[test]
fn authorization_policies_are_checked_and_in_force() {
    check("authorization_policy.txt");
}

#[test]
fn secrets_of_gateways_are_checked_and_never_shown() {
    check("secret.txt");
}

#[test]
fn peer_authentications_are_checked() {
    check("peer_authentication.txt");
}

#[test]
fn kubernetes_objects_are_checked() {
    check("kubernetes.txt");
}

#[test]
fn raw_resources_are_checked_against_envoys_api() {
    check("xds_resource.txt");
}

#[test]
fn deployment_intents_are_checked() {
    check("deployment_intent.txt");
}

#[test]
fn profiles_runs_and_freezes_are_checked() {
    check("delivery.txt");
}

#[test]
fn rules_for_tokens_that_cannot_be_followed_are_told() {
    check("tokens.txt");
}

#[test]
fn rate_limits_are_checked() {
    check("rate_limit_policy.txt");
}
