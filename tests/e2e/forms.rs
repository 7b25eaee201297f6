//! The suites about routing, once more with virtual hosts inside their route configurations.
//!
//! By default Envoys on delta streams get virtual hosts separately, those on state-of-the-world streams inline. What is
//! left is delta with virtual hosts inline: these tests run the routing suites again in a process of their own in which
//! every server is told so.

use std::process::Command;

use crate::mesh::INLINE;

fn run_again(suite: &str) {
    if std::env::var_os(INLINE).is_some() {
        return;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args([&format!("{suite}::"), "--test-threads", "2", "--skip", "state_of_the_world"])
        .env(INLINE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(!text.contains("running 0 tests"), "there is no suite \"{suite}\"");
}

#[test]
fn splits_hold_with_inline_virtual_hosts() {
    run_again("splits");
}

#[test]
fn matches_hold_with_inline_virtual_hosts() {
    run_again("matches");
}

#[test]
fn actions_hold_with_inline_virtual_hosts() {
    run_again("actions");
}

#[test]
fn changes_hold_with_inline_virtual_hosts() {
    run_again("changes");
}

#[test]
fn gateways_hold_with_inline_virtual_hosts() {
    run_again("gateway");
}
