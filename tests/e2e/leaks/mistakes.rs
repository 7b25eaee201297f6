//! What is said about keys and tokens that cannot be used.

use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;
use testkit::leaks::Secrets;

use super::{Shown, command, secret_of};
use crate::gateway_secrets::{Authority, written};

/// A server that cannot start says why, and nothing of what it has read.
#[test]
fn what_is_wrong_with_keys_and_tokens_is_said_without_them() {
    let (folder, mut secrets, mut shown) = (TempDir::new().unwrap(), Secrets::default(), Shown::default());
    let authority = Authority::new("one");
    let (pair, other) = (authority.pair("shop.test"), authority.pair("other.test"));
    secrets.add_key("the key", &pair.1);
    secrets.add_key("the other key", &other.1);
    let write = |name: &str, text: &str| written(&folder, name, text);
    let lines: Vec<&str> = pair.1.lines().collect();
    // Half of it, without its end, with a letter more, with another label, without any, and somewhere in a line.
    let broken = [
        lines[..2].join("\n"),
        format!("{}\n{}\n{}\n", lines[0], lines[1], lines[4]),
        pair.1.replacen(lines[1], &format!("{}!", lines[1]), 1),
        pair.1.replace("PRIVATE KEY", "CERTIFICATE"),
        lines[1..4].join("\n"),
        pair.1.replace('\n', " "),
        other.1.clone(),
    ];
    let chain = write("chain.pem", &pair.0);
    let roots = write("roots.pem", &authority.pem);
    let objects = TempDir::new().unwrap();
    let config = objects.path().to_str().unwrap().to_owned();
    for (number, text) in broken.iter().enumerate() {
        let key = write(&format!("key-{number}"), text);
        let state = TempDir::new().unwrap();
        let kept = state.path().to_str().unwrap();
        let serve =
            ["serve", "--config", &*config, "--log", "trace", "--xds-listen", "127.0.0.1:0", "--admin-listen", "none"];
        let tls = ["--xds-tls-listen", "127.0.0.1:0", "--state-dir", kept];
        let serve = [&serve[..], &tls].concat();
        let mut fails = |what: &str, more: &[&str]| {
            let (code, said) = command(&[&serve[..], more].concat());
            assert_eq!(code, Some(2), "{what} {number}: {}", String::from_utf8_lossy(&said));
            shown.add(format!("{what} {number}"), said);
        };
        fails("--tls-key", &["--tls-cert", &chain, "--tls-key", &key]);
        let plugged = ["--ca-cert", &*roots, "--ca-key", &*key, "--ca-chain", &*roots, "--ca-root", &*roots];
        fails("--ca-key", &plugged);
        fails("--jwks", &["--jwks", &key, "--jwt-issuer", "issuer"]);
        fails("--kubeconfig", &["--token-review", "--kubeconfig", &key]);
        // A root of ours whose key is broken, and tokens that are none.
        let ca = state.path().join("ca");
        std::fs::create_dir_all(&ca).unwrap();
        std::fs::write(ca.join("root-cert.pem"), &pair.0).unwrap();
        std::fs::write(ca.join("root-key.pem"), text).unwrap();
        std::fs::set_permissions(ca.join("root-key.pem"), std::fs::Permissions::from_mode(0o600)).unwrap();
        fails("the root's key", &[]);
        for authorities in [&key, &roots] {
            let proof = ["--client-cert", &*chain, "--client-key", &*key];
            let ask = ["certificate", "--xds", "127.0.0.1:9", "--xds-ca", authorities, "--out", kept, "--once"];
            let (code, said) = command(&[&ask[..], &proof].concat());
            assert_eq!(code, Some(2), "{}", String::from_utf8_lossy(&said));
            shown.add("certificate", said);
        }

        for (kind, document) in documents(&pair.0, text) {
            let file = write("document.yaml", &document);
            for form in ["text", "json"] {
                let (_, said) = command(&["check", "--config", &file, "--log", "trace", "-o", form]);
                shown.add(format!("check of {kind} {number}"), said);
            }
        }
    }
    println!("{} places", shown.0.len());
    shown.assert_without(&secrets);
}

/// Documents with a key in the right place, and where it does not belong.
fn documents(chain: &str, key: &str) -> Vec<(&'static str, String)> {
    let quoted = serde_json::to_string(key).unwrap();
    let secret = |data: &str| {
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: s, namespace: default}}\ntype: kubernetes.io/tls\n{data}\n"
        )
    };
    let chain_text = serde_json::to_string(chain).unwrap();
    vec![
        ("a pair", secret_of("s", &(chain.to_owned(), key.to_owned()))),
        ("a pair the wrong way round", secret_of("s", &(key.to_owned(), chain.to_owned()))),
        ("what is no base64", secret(&format!("data: {{tls.crt: {chain_text}, tls.key: {quoted}}}"))),
        ("a list", secret(&format!("stringData: {{tls.crt: {chain_text}, tls.key: [{quoted}]}}"))),
        ("a text", secret(&format!("stringData: {quoted}"))),
        ("broken YAML", secret(&format!("stringData: {{tls.key: {quoted}"))),
        ("a key without quotes", secret(&format!("stringData:\n  tls.key: {key}\n  tls.crt: x"))),
        ("another type", secret(&format!("stringData: {{ca.crt: {quoted}}}"))),
    ]
}
