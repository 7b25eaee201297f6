//! Real Envoys that connect by TLS and get their secrets by SDS.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rcgen::KeyPair;
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::envoy::{Envoy, Setup};
use testkit::load::{Load, Plan, Reply};
use testkit::wire::{Credentials, Wire};
use testkit::{backend::Backend, ports, wait};

use crate::mesh::{Mesh, PATIENCE};
use crate::raw::get_where;

/// A server with TLS, and the files of its clients.
pub struct Guarded {
    pub mesh: Mesh,
    pub tls: SocketAddr,
    pub state: TempDir,
    clients: TempDir,
}

impl Guarded {
    pub async fn start(files: &[(&str, &str)], arguments: &[&str]) -> Guarded {
        Guarded::start_by(&[], files, arguments).await
    }

    /// The same by another program, as in [`Mesh::start_by`].
    pub async fn start_by(program: &[&str], files: &[(&str, &str)], arguments: &[&str]) -> Guarded {
        let (state, clients) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let listen = ports::local().unwrap().to_string();
        let mut all = vec!["--xds-tls-listen", &listen, "--state-dir", state.path().to_str().unwrap()];
        all.extend(arguments);
        let mut mesh = Mesh::start_by(program, files, &all).await;
        let tls = mesh.server.address("xds-tls", PATIENCE).await.unwrap();
        Guarded { mesh, tls, state, clients }
    }

    pub fn root(&self) -> String {
        self.state.path().join("ca/root-cert.pem").to_str().unwrap().to_owned()
    }

    /// Makes a token with the binary, as an operator does; the file that it is in.
    pub fn token(&self, identity: &str) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_pointsman"))
            .args(["token", "create", "--identity", identity, "--state-dir", self.state.path().to_str().unwrap()])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let path = self.clients.path().join(format!("{}.token", identity.replace('/', "-")));
        std::fs::write(&path, output.stdout).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Gets a certificate by a token, as an agent does; the files of chain and key.
    pub async fn certificate(&self, identity: &str) -> (String, String) {
        let token = std::fs::read_to_string(self.token(identity)).unwrap();
        let roots = std::fs::read_to_string(self.root()).unwrap();
        let credentials = Credentials { roots, name: "localhost".to_owned(), certificate: None };
        let wire = Wire::connect_tls(self.tls, &credentials).await.unwrap().with_token(token.trim()).unwrap();
        let key = KeyPair::generate().unwrap();
        let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
        let request = proto::auth::IstioCertificateRequest { csr, ..Default::default() };
        let method = "/istio.v1.auth.IstioCertificateService/CreateCertificate";
        let answer: proto::auth::IstioCertificateResponse = wire.call(method, request).await.unwrap();
        let write = |end: &str, text: String| {
            let path = self.clients.path().join(format!("{}.{end}", identity.replace('/', "-")));
            let beside = path.with_extension("new");
            std::fs::write(&beside, text).unwrap();
            std::fs::rename(beside, &path).unwrap();
            path.to_str().unwrap().to_owned()
        };
        // The key first: Envoy reads both when one of them is renamed, and keeps what it has while they do not match.
        let private = write("key", key.serialize_pem());
        (write("pem", answer.cert_chain[..answer.cert_chain.len() - 1].concat()), private)
    }

    /// Renews a certificate again and again, as an agent does.
    async fn renew(&self, identity: &str, every: Duration) {
        loop {
            tokio::time::sleep(every).await;
            self.certificate(identity).await;
        }
    }

    /// The bootstrap of an Envoy called `pod`, with these arguments more.
    pub fn bootstrap(&self, pod: &str, arguments: &[&str]) -> Value {
        let (xds, root) = (self.tls.to_string(), self.root());
        let mut all = vec!["--pod", pod, "--interception", "none", "--xds", &xds, "--xds-ca", &root];
        all.extend(arguments);
        self.mesh.bootstrap(&all)
    }
}

/// How a listener or a cluster gets its secrets: from the stream of everything else.
fn by_sds() -> Value {
    let from = json!({ "ads": {}, "resource_api_version": "V3" });
    json!({
        "tls_certificate_sds_secret_configs": [{ "name": "default", "sds_config": from }],
        "validation_context_sds_secret_config": { "name": "ROOTCA", "sds_config": from },
    })
}

/// An object with these resources for the clients of one app, as a file.
fn resources(app: &str, resources: &[Value]) -> String {
    let object = json!({
        "apiVersion": "networking.pointsman.dev/v1alpha1",
        "kind": "XdsResource",
        "metadata": { "name": app, "namespace": "default" },
        "spec": { "selector": { "matchLabels": { "app": app } }, "resources": resources },
    });
    object.to_string()
}

/// A listener that leads everything to a cluster, and says whom it heard by TLS.
fn listener(name: &str, address: SocketAddr, cluster: &str, tls: Option<Value>) -> Value {
    let mut chain = json!({ "filters": [{ "name": "envoy.filters.network.http_connection_manager", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [
            { "match": { "prefix": "/" }, "route": { "cluster": cluster } },
        ] }] },
        "http_filters": [{ "name": "envoy.filters.http.router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
        } }],
    } }] });
    if let Some(common) = tls {
        let heard = json!({ "header": { "key": "x-heard", "value": "%DOWNSTREAM_PEER_URI_SAN%" } });
        chain["filters"][0]["typed_config"]["route_config"]["response_headers_to_add"] = json!([heard]);
        chain["transport_socket"] = json!({ "name": "envoy.transport_sockets.tls", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "require_client_certificate": true,
            "common_tls_context": common,
        } });
    }
    json!({
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
        "name": name,
        "address": { "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } },
        "filter_chains": [chain],
    })
}

/// A cluster of one address. Over TLS every request has a connection of its own, so that new certificates are used as
/// they come.
fn cluster(name: &str, address: SocketAddr, tls: Option<Value>) -> Value {
    let mut cluster = json!({
        "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        "name": name, "type": "STATIC", "connect_timeout": "1s",
        "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": [{ "endpoint": {
            "address": { "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } },
        } }] }] },
    });
    if let Some(common) = tls {
        cluster["typed_extension_protocol_options"] = json!({ "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "common_http_protocol_options": { "max_requests_per_connection": 1 },
            "explicit_http_config": { "http_protocol_options": {} },
        } });
        cluster["transport_socket"] = json!({ "name": "envoy.transport_sockets.tls", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "common_tls_context": common,
        } });
    }
    cluster
}

/// Two Envoys that get their secrets by SDS over the stream of everything else, and speak mutual TLS to each other with
/// them: what comes to `front` goes through `back` to an app. Every request has a connection of its own between them.
struct Pair {
    server: Guarded,
    front: Envoy,
    back: Envoy,
    /// Where the front takes requests.
    address: SocketAddr,
    /// The file with the token of the back, which has no other proof.
    token: String,
    _app: Backend,
}

/// How the front of a pair proves who it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FrontProof {
    Token,
    /// Its agent has to renew it, see [`Guarded::renew`].
    Certificate,
}

impl Pair {
    async fn start(proof: FrontProof, arguments: &[&str]) -> Pair {
        let app = Backend::start("app", ports::local().unwrap()).unwrap();
        let (inbound, address) = (ports::local().unwrap(), ports::local().unwrap());
        let of_back = [cluster("app", app.address(), None), listener("in", inbound, "app", Some(by_sds()))];
        let of_front = [cluster("back", inbound, Some(by_sds())), listener("out", address, "back", None)];
        let files = [("back.yaml", resources("back", &of_back)), ("front.yaml", resources("front", &of_front))];
        let files: Vec<_> = files.iter().map(|(name, text)| (*name, &**text)).collect();
        let server = Guarded::start(&files, arguments).await;

        let by_token = async |name: &str| {
            let (token, label) = (server.token(&format!("default/{name}")), format!("app={name}"));
            let proof = ["--token-file", &*token, "--service-account", name, "--label", &*label];
            (Setup::new(server.bootstrap(name, &proof)).start().await.unwrap(), token.clone())
        };
        let (back, token) = by_token("back").await;
        let front = match proof {
            FrontProof::Token => by_token("front").await.0,
            FrontProof::Certificate => {
                let (chain, key) = server.certificate("default/front").await;
                let sds = server.clients.path().join("front-sds.json");
                let proof = ["--client-cert", &*chain, "--client-key", &*key, "--client-sds", sds.to_str().unwrap()];
                let who = ["--service-account", "front", "--label", "app=front", "--state-of-the-world"];
                Setup::new(server.bootstrap("front", &[&proof[..], &who].concat())).start().await.unwrap()
            }
        };
        let pair = Pair { server, front, back, address, token, _app: app };
        assert_eq!(pair.ask().await.header("x-heard"), Some("spiffe://cluster.local/ns/default/sa/front"));
        pair.server.mesh.synced(2).await;
        pair
    }

    /// The first answer that is one.
    async fn ask(&self) -> Reply {
        get_where(self.address, "back", "/", |reply| reply.status == 200).await
    }

    fn load(&self, per_second: f64) -> Load {
        Load::start(Plan::get(self.address, "back", "/").per_second(per_second).connections(2)).unwrap()
    }

    async fn stop(self) {
        self.front.stop().await.unwrap();
        self.back.stop().await.unwrap();
    }
}

/// One Envoy proves who it is by a certificate, the other by a token. Certificates hold 8 seconds and are replaced under
/// load.
#[tokio::test(flavor = "multi_thread")]
async fn envoys_get_their_secrets_and_trust_each_other_while_they_are_replaced() {
    let pair = Pair::start(FrontProof::Certificate, &["--workload-cert-ttl", "8"]).await;
    let Pair { server, front, back, .. } = &pair;
    let load = pair.load(50.0);
    let updates = |envoy| async move { wait_for_updates(envoy, 4).await };
    // Its stream ends with each of its certificates, and it comes back with the next one.
    tokio::select! {
        _ = async { tokio::join!(updates(front), updates(back)) } => {}
        () = server.renew("default/front", Duration::from_secs(3)) => {}
    }
    let log = server.mesh.server.output();
    assert!(log.contains("the certificate of a client is over"), "{log}");
    let window = load.stop().await;
    window.assert_no_failures();
    assert!(window.len() > 100, "{window}");

    // Nothing that somebody may see holds a key.
    let state = std::fs::read_to_string(server.state.path().join("ca/root-key.pem")).unwrap();
    let secret = state.lines().nth(1).unwrap();
    let nodes = server.mesh.get("/api/v1/nodes").await;
    for node in nodes["nodes"].as_array().unwrap() {
        let config = server.mesh.get(&format!("/api/v1/nodes/{}/config", node["id"].as_str().unwrap())).await;
        let text = config.to_string();
        assert!(text.contains("[redacted]") && !text.contains("PRIVATE KEY"), "{text}");
    }
    let bearer = std::fs::read_to_string(&pair.token).unwrap();
    let log = server.mesh.server.output();
    for secret in [secret, "PRIVATE KEY", bearer.trim(), bearer.trim().rsplit_once('_').unwrap().1] {
        assert!(!log.contains(secret), "{secret}");
    }
    pair.stop().await;
}

/// Certificates of 20 seconds for three minutes: each is replaced after 10 seconds, give or take a tenth.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_replaced_for_three_minutes_without_a_failed_request() {
    const SPAN: Duration = Duration::from_secs(180);
    let pair = Pair::start(FrontProof::Certificate, &["--workload-cert-ttl", "20"]).await;
    let load = pair.load(20.0);
    tokio::select! {
        () = tokio::time::sleep(SPAN) => {}
        () = pair.server.renew("default/front", Duration::from_secs(8)) => {}
    }
    let window = load.stop().await;
    window.assert_no_failures();
    assert!(window.len() > 3_000, "{window}");
    for (name, envoy) in [("front", &pair.front), ("back", &pair.back)] {
        let count = updates(envoy).await.unwrap();
        println!("{name} went through {count} certificates");
        assert!(count >= 15, "{name} went through {count} certificates");
    }
    pair.stop().await;
}

/// How often an Envoy took a certificate by SDS.
async fn updates(envoy: &Envoy) -> Result<u64, String> {
    let stats = envoy.stats().await.map_err(|error| format!("{error:#}"))?;
    let updates = stats.iter().filter(|(name, _)| name.ends_with("ssl_context_update_by_sds"));
    Ok(updates.map(|(_, value)| *value).max().unwrap_or(0))
}

/// Waits until a secret was updated so many times.
async fn wait_for_updates(envoy: &Envoy, count: u64) {
    wait::until("certificates to be replaced", PATIENCE, async || match updates(envoy).await? {
        updates if updates >= count => Ok(()),
        updates => Err(format!("{updates} updates")),
    })
    .await
    .unwrap();
}

/// An Envoy that says it is somebody else gets nothing, and is told so.
#[tokio::test(flavor = "multi_thread")]
async fn an_envoy_of_another_namespace_gets_nothing() {
    let server = Guarded::start(&[], &[]).await;
    let (chain, key) = server.certificate("bank/vault").await;
    let envoy = Setup::new(server.bootstrap("front", &["--client-cert", &chain, "--client-key", &key]));
    let envoy = envoy.start_unready().unwrap();
    wait::until("Envoy to say that it was refused", PATIENCE, async || {
        if envoy.log().replace("%20", " ").contains("the node is not the one that this identity may be") {
            Ok(())
        } else {
            Err(envoy.log())
        }
    })
    .await
    .unwrap();
    assert!(server.mesh.get("/api/v1/nodes").await["nodes"].as_array().unwrap().is_empty());
    let log = server.mesh.server.output();
    assert!(log.contains("spiffe://cluster.local/ns/bank/sa/vault"), "{log}");
    envoy.stop().await.unwrap();
}

/// The root is replaced under load, between Envoys that get their secrets by SDS: nobody trusts too little at any moment.
#[tokio::test(flavor = "multi_thread")]
async fn the_root_is_replaced_under_load_without_a_failed_request() {
    let mut pair = Pair::start(FrontProof::Token, &["--workload-cert-ttl", "60", "--ca-settle", "1"]).await;
    let old = std::fs::read_to_string(pair.server.root()).unwrap();
    let load = pair.load(50.0);
    // One stage, a restart of the server, and the rest.
    let admin = pair.server.mesh.admin.to_string();
    let rotate = |arguments: &[&str]| {
        let mut all = vec!["ca", "rotate", "--admin", &*admin, "--wait", "40", "--actor", "alice"];
        all.extend(arguments);
        let output = Command::new(env!("CARGO_BIN_EXE_pointsman")).args(all).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let shown = rotate(&["--step"]);
    assert!(shown.contains("distributing"), "{shown}");
    pair.server.mesh.server.terminate(PATIENCE).await.unwrap();
    pair.server.mesh.restart().await;
    pair.server.mesh.synced(2).await;
    let shown = rotate(&[]);
    assert!(shown.contains("rotation   none"), "{shown}");
    let window = load.stop().await;
    window.assert_no_failures();
    assert!(window.len() > 100, "{window}");

    let new = std::fs::read_to_string(pair.server.root()).unwrap();
    assert_ne!(old, new);
    assert_eq!(pair.ask().await.header("x-heard"), Some("spiffe://cluster.local/ns/default/sa/front"));
    for envoy in [&pair.front, &pair.back] {
        let certificates = envoy.get_json("/certs").await.unwrap().to_string();
        assert!(certificates.contains("cluster.local"), "{certificates}");
    }
    let log = std::fs::read_to_string(pair.server.state.path().join("audit/authority.jsonl")).unwrap();
    assert_eq!(log.lines().count(), 3, "{log}");
    assert!(log.contains("alice") && !log.contains("forced_over"), "{log}");
    pair.stop().await;
}

/// Whoever drives a rotation that somebody else gives up is told so, and not that it is done.
#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_is_given_up_meanwhile_has_not_succeeded() {
    let mut server = Guarded::start(&[], &["--ca-settle", "3600"]).await;
    let old = std::fs::read_to_string(server.root()).unwrap();
    let admin = server.mesh.admin.to_string();
    let ca = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
        command.arg("ca").args(arguments).args(["--admin", &*admin]);
        command
    };
    let driven = ca(&["rotate", "--wait", "600"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    // Only what waits can be given up.
    while !ca(&["abort"]).output().unwrap().status.success() {
        assert!(Instant::now() < deadline, "no rotation has begun");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let ended = driven.wait_with_output().unwrap();
    let log = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{log}");
    assert!(log.contains("given the rotation up") && !log.contains("retired"), "{log}");
    assert_eq!(std::fs::read_to_string(server.root()).unwrap(), old);
    server.mesh.server.terminate(PATIENCE).await.unwrap();
}
