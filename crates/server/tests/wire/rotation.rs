//! The root is replaced, and nobody trusts too little at any moment.

use std::time::Duration;

use identity::Uses;
use proto::pb::envoy::config::core::v3::data_source::Specifier;
use proto::pb::envoy::extensions::transport_sockets::tls::v3::{Secret, secret};
use proto::pb::envoy::service::discovery::v3::DeltaDiscoveryResponse;
use rcgen::KeyPair;
use serde_json::json;
use server::view::Authority;
use testkit::wire::{Credentials, Delta, ResourceType, Wire, node, unpack};

use crate::fixture::{NODE, REVIEWS, SOON, config, eventually, serving};
use crate::identity::{Guarded, clusters, create, own, request};

async fn status(server: &Guarded) -> Authority {
    server.running.json("/api/v1/authority").await
}

/// Does something to the authority; the answer's status, and its text.
async fn act(server: &Guarded, body: serde_json::Value) -> (u16, String) {
    let admin = server.running.addresses.admin.unwrap();
    let (status, answer) = testkit::http::post_json(admin, "/api/v1/authority/actions", &body).await.unwrap();
    (status, answer.to_string())
}

async fn advance(server: &Guarded, stage: &str) -> (u16, String) {
    act(server, json!({ "action": "advance", "stage": stage, "actor": "alice" })).await
}

/// The roots of a response, if there are any in it.
fn roots(response: &DeltaDiscoveryResponse) -> Option<String> {
    let found = response.resources.iter().find(|resource| resource.name == "ROOTCA")?;
    let secret = unpack::<Secret>(found.resource.iter()).unwrap().remove(0);
    let Some(secret::Type::ValidationContext(context)) = secret.r#type else { panic!("these are no roots") };
    match context.trusted_ca.unwrap().specifier {
        Some(Specifier::InlineBytes(bytes)) => Some(String::from_utf8(bytes).unwrap()),
        other => panic!("{other:?}"),
    }
}

fn count(pem: &str) -> usize {
    pem.matches("BEGIN CERTIFICATE").count()
}

/// A client that gets its secrets over its stream.
async fn subscriber(server: &Guarded) -> Delta {
    let wire = server.wire().await.with_token(&server.token("default/client", Uses::Many)).unwrap();
    let mut stream = wire.delta(node(NODE, "client"));
    stream.subscribe(ResourceType::Secret, &["default", "ROOTCA"]).await;
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn each_stage_waits_for_those_whom_the_next_one_would_cut_off() {
    // Certificates are replaced within five seconds of the switch.
    let server = Guarded::start_with(|settings| settings.workload_ttl = Duration::from_secs(100)).await;
    let before = server.credentials();
    let mut stream = subscriber(&server).await;
    let first = stream.next(SOON).await.unwrap();
    assert_eq!(count(&roots(&first).unwrap()), 1);
    stream.ack(&first).await;

    let (code, text) = act(&server, json!({ "action": "begin", "actor": "alice" })).await;
    assert_eq!(code, 200, "{text}");
    let both = stream.next(SOON).await.unwrap();
    assert_eq!(both.resources.len(), 1, "the certificate is the same as before");
    assert_eq!(count(&roots(&both).unwrap()), 2);
    let waiting = status(&server).await;
    assert_eq!((&*waiting.stage, waiting.nodes, waiting.trusted.len()), ("distributing", 1, 2));
    assert!(waiting.lacking[0].reason.contains("both roots"), "{waiting:?}");
    let (code, text) = advance(&server, "distributing").await;
    assert!(code == 409 && text.contains("1 nodes lack"), "{code} {text}");
    stream.ack(&both).await;
    eventually(|| async { advance(&server, "distributing").await.0 }, |code| *code == 200).await;
    assert_eq!(advance(&server, "distributing").await.0, 409, "that stage is over");
    assert_eq!(act(&server, json!({ "action": "abort" })).await.0, 409, "the new root signs");

    // Who signs now is another; what is trusted is the same.
    let reissued = stream.next(SOON).await.unwrap();
    assert_eq!(roots(&reissued), None);
    let (chain, key) = own(&reissued);
    assert_ne!(own(&first).0, chain);
    assert!(status(&server).await.lacking[0].reason.contains("accepted a certificate"));
    assert_eq!(advance(&server, "reissuing").await.0, 409);
    // Whoever knows one of the roots only is let in, and lets the server in; so is who has a certificate of either.
    let after = Credentials { roots: status(&server).await.roots, ..before.clone() };
    for credentials in [&before, &after] {
        let certificates = [own(&first), (chain.clone(), key.clone())];
        for certificate in certificates {
            let wire = Wire::connect_tls(server.address(), &credentials.clone().showing(certificate)).await.unwrap();
            assert!(clusters(&wire, NODE).await.is_ok());
        }
    }
    stream.ack(&reissued).await;
    eventually(|| async { advance(&server, "reissuing").await.0 }, |code| *code == 200).await;

    let last = stream.next(SOON).await.unwrap();
    let only = roots(&last).unwrap();
    assert_eq!((count(&only), last.resources.len()), (1, 1));
    assert_ne!(only, before.roots);
    let done = status(&server).await;
    assert_eq!((&*done.stage, done.trusted.len(), done.roots), ("", 1, only.clone()));
    // The old root's certificates count no more; the server is still recognised by those who know the old root only.
    let refused = Wire::connect_tls(server.address(), &before.clone().showing(own(&first))).await;
    let refused = match refused {
        Ok(wire) => clusters(&wire, NODE).await.is_err(),
        Err(_) => true,
    };
    assert!(refused);
    for roots in [before.roots.clone(), only] {
        let credentials = Credentials { roots, ..before.clone() }.showing((chain.clone(), key.clone()));
        assert!(clusters(&Wire::connect_tls(server.address(), &credentials).await.unwrap(), NODE).await.is_ok());
    }
    // Every step is in the log, with who took it, and no key is.
    let log = std::fs::read_to_string(server.state.path().join("audit/authority.jsonl")).unwrap();
    for event in ["rotation-begun", "issuer-switched", "root-retired"] {
        assert!(log.contains(event), "{log}");
    }
    assert!(log.contains("alice") && !log.contains("PRIVATE"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_goes_on_after_a_restart_and_a_last_step_that_was_broken_off_is_finished() {
    let server = Guarded::start().await;
    let old = status(&server).await.issuer.fingerprint;
    assert_eq!(act(&server, json!({ "action": "begin" })).await.0, 200);
    let distributing = status(&server).await;
    let server = server.restarted().await;
    assert_eq!(status(&server).await, distributing);
    assert_eq!(advance(&server, "distributing").await.0, 200);
    let reissuing = status(&server).await;
    assert_ne!(reissuing.issuer.fingerprint, old);
    let server = server.restarted().await;
    assert_eq!(status(&server).await, reissuing);

    // As if the process had been killed between the renaming of two files.
    let ca = server.state.path().join("ca");
    let kept = std::fs::read_to_string(ca.join("rotation.json")).unwrap();
    std::fs::write(ca.join("rotation.json"), kept.replace("reissuing", "retiring")).unwrap();
    std::fs::rename(ca.join("next/root-key.pem"), ca.join("root-key.pem")).unwrap();
    let server = server.restarted().await;
    let done = status(&server).await;
    assert_eq!((&*done.stage, done.issuer.fingerprint, done.trusted.len()), ("", reissuing.issuer.fingerprint, 1));
    assert!(!ca.join("rotation.json").exists() && !ca.join("next").exists());
    // And the next one can begin.
    assert_eq!(act(&server, json!({ "action": "begin" })).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_is_given_up_leaves_the_root_as_it_was() {
    let server = Guarded::start().await;
    let mut stream = subscriber(&server).await;
    let first = stream.next(SOON).await.unwrap();
    stream.ack(&first).await;
    let before = status(&server).await;
    assert_eq!(act(&server, json!({ "action": "abort" })).await.0, 409, "there is none");
    assert_eq!(act(&server, json!({ "action": "begin" })).await.0, 200);
    assert_eq!(act(&server, json!({ "action": "begin" })).await.0, 409, "there is one");
    let both = stream.next(SOON).await.unwrap();
    stream.ack(&both).await;
    assert_eq!(act(&server, json!({ "action": "abort" })).await.0, 200);
    assert_eq!(roots(&stream.next(SOON).await.unwrap()), roots(&first));
    let after = status(&server).await;
    assert_eq!((after.issuer, after.trusted), (before.issuer, before.trusted));
    for body in [json!({}), json!({ "action": "explode" }), json!({ "action": "advance" }), json!([1])] {
        assert_eq!(act(&server, body).await.0, 400);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_are_waited_for_until_they_ask_for_a_certificate_again_and_force_goes_on_without_them() {
    let server = Guarded::start().await;
    let wire = server.wire().await.with_token(&server.token("default/client", Uses::Many)).unwrap();
    let csr = request(&KeyPair::generate().unwrap(), "spiffe://cluster.local/ns/default/sa/client");
    assert_eq!(create(&wire, &csr).await.unwrap().len(), 2);
    // A server that comes back still knows who has what.
    let server = server.restarted().await;
    let wire = server.wire().await.with_token(&server.token("default/client", Uses::Many)).unwrap();
    let mut stream = wire.delta(node(NODE, "client"));
    stream.subscribe(ResourceType::Cluster, &[]).await;
    stream.next(SOON).await.unwrap();
    // Times are kept by the second.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(act(&server, json!({ "action": "begin" })).await.0, 200);
    assert!(status(&server).await.lacking[0].reason.contains("asks for a certificate"));
    let chain = create(&wire, &csr).await.unwrap();
    assert_eq!(count(chain.last().unwrap()), 2, "the last are the roots");
    assert_eq!(advance(&server, "distributing").await.0, 200);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let lacking = status(&server).await.lacking;
    assert!(lacking.is_empty() || lacking[0].reason.contains("certificate of the new root"), "{lacking:?}");
    let forced =
        json!({ "action": "advance", "stage": "reissuing", "force": true, "actor": "bob", "reason": "it burns" });
    assert_eq!(act(&server, forced).await.0, 200);
    let log = std::fs::read_to_string(server.state.path().join("audit/authority.jsonl")).unwrap();
    assert!(log.contains("bob") && log.contains("it burns"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_cannot_be_kept_is_not_taken() {
    let server = Guarded::start().await;
    let before = status(&server).await;
    // Nothing can be written where a directory stands, whoever asks.
    let log = server.state.path().join("audit/authority.jsonl");
    std::fs::create_dir(&log).unwrap();
    let (code, text) = act(&server, json!({ "action": "begin" })).await;
    assert!(code == 500 && text.contains("audit"), "{code} {text}");
    assert_eq!(status(&server).await, before);
    std::fs::remove_dir(&log).unwrap();
    let kept = server.state.path().join("ca/rotation.json");
    std::fs::create_dir_all(kept.join("in the way")).unwrap();
    assert_eq!(act(&server, json!({ "action": "begin" })).await.0, 500);
    assert_eq!(status(&server).await, before);
    assert!(server.certificate("default/client").await.0.contains("BEGIN"), "the old root goes on signing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_lasts_until_those_who_were_cut_off_may_be_back() {
    let server = Guarded::start_with(|settings| settings.rotation_settle = Duration::from_secs(3600)).await;
    assert_eq!(act(&server, json!({ "action": "begin" })).await.0, 200);
    let (code, text) = advance(&server, "distributing").await;
    assert!(code == 409 && text.contains("settles for"), "{code} {text}");
    assert!(status(&server).await.settles_in_seconds > 3000);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tls_there_is_no_authority() {
    let running = serving(config(), REVIEWS).await;
    let (code, text) = running.get("/api/v1/authority").await;
    assert!(code == 404 && text.contains("--xds-tls-listen"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_intermediate_is_replaced_by_replacing_its_files() {
    let files = tempfile::TempDir::new().unwrap();
    let root = rcgen_root("the root");
    let write = |name: &str| {
        let (certificate, key) = intermediate(&root, name);
        for (file, text) in [("chain", &certificate), ("cert", &certificate), ("key", &key), ("root", &root.0.pem())] {
            std::fs::write(files.path().join(file), text).unwrap();
        }
    };
    write("one");
    let path = |name: &str| files.path().join(name);
    let source = server::AuthoritySource::PluggedIn {
        certificate: path("cert"),
        key: path("key"),
        chain: path("chain"),
        roots: path("root"),
    };
    let server = Guarded::start_with(|settings| settings.authority = source).await;
    let before = status(&server).await.issuer.fingerprint;
    // Half of a change is none.
    std::fs::write(path("key"), "junk").unwrap();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(status(&server).await.issuer.fingerprint, before);
    write("two");
    eventually(|| async { status(&server).await.issuer.fingerprint }, |now| *now != before).await;
    let (code, text) = act(&server, json!({ "action": "begin" })).await;
    assert!(code == 409 && text.contains("plugged in"), "{text}");
}

type Root = (rcgen::Certificate, rcgen::Issuer<'static, KeyPair>);

fn authority_params(name: &str) -> rcgen::CertificateParams {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    params
}

fn rcgen_root(name: &str) -> Root {
    let key = KeyPair::generate().unwrap();
    let params = authority_params(name);
    let certificate = params.self_signed(&key).unwrap();
    (certificate, rcgen::Issuer::new(params, key))
}

fn intermediate(root: &Root, name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    (authority_params(name).signed_by(&key, &root.1).unwrap().pem(), key.serialize_pem())
}

trait Showing {
    fn showing(self, certificate: (String, String)) -> Self;
}

impl Showing for Credentials {
    fn showing(self, certificate: (String, String)) -> Self {
        Self { certificate: Some(certificate), ..self }
    }
}
