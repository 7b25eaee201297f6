//! What attackers try with identities, and what happens when the state directory fails.

use std::net::TcpStream;

use identity::Uses;
use rcgen::KeyPair;
use server::{Config, Limits, Listen};
use tempfile::TempDir;
use testkit::wire::{ResourceType, Wire, node};
use tonic::Code;

use crate::fixture::{NODE, REVIEWS, SOON, config, serving};
use crate::identity::{Guarded, OTHER_NODE, clusters, create, own, request, settings};

/// So many connections that prove nothing.
const STRANGERS: usize = 10_000;
/// So many connections may be open.
const SEATS: usize = 500;

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_connections_that_prove_nothing_keep_nobody_out() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let state = TempDir::new().unwrap();
    let limits = Limits { max_connections: Some(SEATS), ..Limits::default() };
    let running = serving(Config { tls: Some(settings(state.path())), limits, ..config() }, REVIEWS).await;
    let server = Guarded { running, state };
    let certificate = server.certificate("default/client").await;
    let wire = server.wire_with(certificate.clone()).await.unwrap();
    let mut stream = wire.delta(node(NODE, "client"));
    stream.subscribe(ResourceType::Cluster, &[]).await;
    let first = stream.next(SOON).await.unwrap();
    stream.ack(&first).await;

    let address = server.address();
    let strangers = tokio::task::spawn_blocking(move || {
        (0..STRANGERS).map(|_| TcpStream::connect(address).unwrap()).collect::<Vec<_>>()
    });
    let strangers = strangers.await.unwrap();
    // Who was there goes on, and who has a proof comes in.
    assert!(clusters(&server.wire_with(certificate).await.unwrap(), NODE).await.is_ok());
    let token = server.token("default/client", Uses::Once);
    assert!(clusters(&server.wire().await.with_token(&token).unwrap(), NODE).await.is_ok());
    server.running.apply(&REVIEWS.replace("reviews", "ratings")).await;
    assert!(!stream.next(SOON).await.unwrap().resources.is_empty());
    assert!(server.running.metric("pointsman_connections").await.unwrap() <= SEATS as f64);
    drop(strangers);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_signs_nothing_and_takes_nothing_away() {
    let server = Guarded::start().await;
    let wire = server.wire().await.with_token(&server.token("default/client", Uses::Many)).unwrap();
    let mut stream = wire.delta(node(NODE, "client"));
    stream.subscribe(ResourceType::Secret, &["default", "ROOTCA"]).await;
    let first = stream.next(SOON).await.unwrap();
    stream.ack(&first).await;
    // The log that is open goes on; the next one finds no room.
    let log = server.state.path().join("audit/issued.jsonl");
    std::fs::remove_file(&log).unwrap();
    std::os::unix::fs::symlink("/dev/full", &log).unwrap();
    let server = server.restarted().await;
    let wire = server.wire().await.with_token(&server.token("default/client", Uses::Many)).unwrap();
    let csr = request(&KeyPair::generate().unwrap(), "spiffe://cluster.local/ns/default/sa/client");
    let refused = create(&wire, &csr).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(!refused.message().contains("audit"), "clients are told nothing of the server's files: {refused}");
    // Who has a certificate still gets configuration by it.
    assert!(clusters(&server.wire_with(own(&first)).await.unwrap(), NODE).await.is_ok());
    std::fs::remove_file(&log).unwrap();
    assert!(create(&wire, &csr).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_could_mean_something_else_are_nobodys() {
    let server = Guarded::start().await;
    let certificate = server.certificate("default/client").await;
    let wire = server.wire_with(certificate).await.unwrap();
    for id in [
        "sidecar~10.9.0.1~client-1.default\r\nx: y~d",
        "sidecar~10.9.0.1~client-1.default/../bank~d",
        "sidecar~10.9.0.1~client-1.bank\0default~d",
        "sidecar~10.9.0.1~client-1.default.bank~d",
        "sidecar~10.9.0.1~client-1.DEFAULT~d",
    ] {
        assert_eq!(clusters(&wire, id).await.unwrap_err().0, Code::PermissionDenied, "{id:?}");
    }
    for token in ["", " ", "pmj_", "pmj_../../ca/root-key.pem_AAAA", "a.b.c", &"x".repeat(60_000)] {
        let Ok(wire) = server.wire().await.with_token(token) else { continue };
        assert_eq!(clusters(&wire, NODE).await.unwrap_err().0, Code::Unauthenticated, "{token:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_serves_users_that_are_somebody_and_tokens_and_nobody_else() {
    let sockets = TempDir::new().unwrap();
    let (known, unknown) = (sockets.path().join("known.sock"), sockets.path().join("unknown.sock"));
    let me = rustix::process::getuid().as_raw();
    let start = async |path: &std::path::Path, user: u32| {
        let path = path.to_owned();
        Guarded::start_with(|settings| {
            settings.listen.push(Listen::Unix(path));
            settings.users.insert(user, "default/client".parse().unwrap());
        })
        .await
    };
    let server = start(&known, me).await;
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&known).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o666);
    let wire = Wire::connect(format!("unix:{}", known.display())).await.unwrap();
    let mut stream = wire.delta(node(NODE, "client"));
    stream.subscribe(ResourceType::Secret, &["default", "ROOTCA"]).await;
    let (chain, key) = own(&stream.next(SOON).await.unwrap());
    assert!(clusters(&server.wire_with((chain, key)).await.unwrap(), NODE).await.is_ok());
    assert_eq!(clusters(&wire, OTHER_NODE).await.unwrap_err().0, Code::PermissionDenied);
    let issued = std::fs::read_to_string(server.state.path().join("audit/issued.jsonl")).unwrap();
    assert!(issued.contains(&format!("unix:uid={me}")) && issued.contains("unix-user"), "{issued}");

    let server = start(&unknown, me + 1).await;
    let wire = Wire::connect(format!("unix:{}", unknown.display())).await.unwrap();
    assert_eq!(clusters(&wire, NODE).await.unwrap_err().0, Code::Unauthenticated);
    let wire = wire.with_token(&server.token("default/client", Uses::Many)).unwrap();
    assert!(clusters(&wire, NODE).await.is_ok());
}
