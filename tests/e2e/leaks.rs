//! No key and no token is anywhere that somebody may see: everything that shows anything is asked, and searched.

mod admin;
mod mistakes;

use std::path::{Path, PathBuf};
use std::process::Command;

use proto::pb::envoy::config::core::v3::data_source::Specifier;
use proto::pb::envoy::extensions::transport_sockets::tls::v3::{Secret, secret};
use serde_json::Value;
use tempfile::TempDir;
use testkit::envoy::Setup;
use testkit::leaks::Secrets;
use testkit::wire::{Credentials, Delta, ResourceType, Wire, node, unpack};
use testkit::{ports, wait};

use crate::gateway_secrets::{Authority, written};
use crate::identity::Guarded;
use crate::mesh::PATIENCE;

const WRITE_TOKEN: &str = "write-correct-horse-battery-staple";
const READ_TOKEN: &str = "read-incorrect-donkey-accumulator";
const REDIS_PASSWORD: &str = "hunter2-of-the-quota-store";
/// Somebody shows it who has it from elsewhere.
const FOREIGN_TOKEN: &str = "pmj_0011223344556677_TvQ0YhC2mnWq8qk1o5b3eJz7m9r4x6s8u0w2y4A6C8E";

/// Texts and bytes that somebody may see, with where that was.
#[derive(Default)]
struct Shown(Vec<(String, Vec<u8>)>);

impl Shown {
    fn add(&mut self, place: impl Into<String>, text: impl Into<Vec<u8>>) {
        self.0.push((place.into(), text.into()));
    }

    /// Asserts that none of them holds a secret.
    fn assert_without(&self, secrets: &Secrets) {
        let mut wrong = Vec::new();
        for (place, bytes) in &self.0 {
            wrong.extend(secrets.in_bytes(bytes).into_iter().map(|leak| format!("{place}: {leak:#?}")));
        }
        assert!(wrong.is_empty(), "of {} places {} show a secret:\n{}", self.0.len(), wrong.len(), wrong.join("\n"));
    }
}

/// A workload, its gateway with a certificate, and a rollout.
fn objects(entry: u16) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: app, namespace: default}}
spec: {{hosts: [app.test], ports: [{{number: 80, name: http, protocol: HTTP}}], resolution: STATIC, \
         endpoints: [{{address: 127.0.0.1, ports: {{http: 9}}}}]}}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: main, namespace: default}}
spec:
  selector: {{istio: ingressgateway}}
  servers:
  - {{port: {{number: {entry}, name: https, protocol: HTTPS}}, hosts: [shop.test], tls: {{mode: SIMPLE, credentialName: shop}}}}
  - {{port: {{number: {entry}, name: lost, protocol: HTTPS}}, hosts: [lost.test], tls: {{mode: SIMPLE, credentialName: lost}}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: app, namespace: default}}
spec: {{hosts: [shop.test], gateways: [main], http: [{{route: [{{destination: {{host: app.test}}}}]}}]}}
---
apiVersion: networking.pointsman.dev/v1alpha1
kind: RateLimitPolicy
metadata: {{name: all, namespace: default}}
spec: {{limits: [{{name: all, requests: 5, per: 1h, scope: Global}}]}}
---
apiVersion: delivery.pointsman.dev/v1alpha1
kind: DeploymentIntent
metadata: {{name: app, namespace: default}}
spec: {{service: app, revisionLabel: version}}
"
    )
}

/// A `Secret` as tools print it.
fn secret_of(name: &str, (chain, key): &(String, String)) -> String {
    let object = serde_json::json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": { "name": name, "namespace": "default" }, "stringData": { "tls.crt": chain, "tls.key": key },
    });
    format!("{object}\n")
}

/// The key that a workload is given by SDS.
async fn key_by_sds(server: &Guarded, identity: &str, id: &str) -> (Delta, String) {
    let (chain, key) = server.certificate(identity).await;
    let read = |path: &str| std::fs::read_to_string(path).unwrap();
    let certificate = Some((read(&chain), read(&key)));
    let credentials = Credentials { roots: read(&server.root()), name: "localhost".to_owned(), certificate };
    let wire = Wire::connect_tls(server.tls, &credentials).await.unwrap();
    let mut stream = wire.delta(node(id, "worker"));
    stream.subscribe(ResourceType::Secret, &["default"]).await;
    let response = stream.next(PATIENCE).await.unwrap();
    stream.ack(&response).await;
    let secret = unpack::<Secret>(response.resources[0].resource.iter()).unwrap().remove(0);
    let Some(secret::Type::TlsCertificate(pair)) = secret.r#type else { panic!("{:?}", response.nonce) };
    let key = match pair.private_key.and_then(|source| source.specifier) {
        Some(Specifier::InlineBytes(bytes)) => String::from_utf8(bytes).unwrap(),
        Some(Specifier::InlineString(text)) => text,
        other => panic!("no key but {}", other.is_some()),
    };
    (stream, key)
}

/// What a command prints, and how it ends.
fn command(arguments: &[&str]) -> (Option<i32>, Vec<u8>) {
    // A server that starts, and should not, ends by that.
    let output = Command::new("timeout")
        .args(["60", env!("CARGO_BIN_EXE_pointsman")])
        .args(arguments)
        .env("POINTSMAN_ADMIN_TOKEN", READ_TOKEN)
        .output()
        .unwrap();
    (output.status.code(), [output.stdout, output.stderr].concat())
}

/// All files below a directory.
fn files(of: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(of).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_and_no_token_is_anywhere_that_somebody_may_see() {
    let clients = TempDir::new().unwrap();
    let entry = ports::local().unwrap().port();
    let authority = Authority::new("one");
    let (pair, other) = (authority.pair("shop.test"), authority.pair("other.test"));
    let (mesh, shop) = (objects(entry), secret_of("shop", &pair));
    let writers = written(&clients, "writers", &format!("alice {WRITE_TOKEN}\n"));
    let readers = written(&clients, "readers", &format!("{READ_TOKEN}\n"));
    // Nobody is there: it is tried again and again, and said.
    let redis = format!("redis://pointsman:{REDIS_PASSWORD}@{}/", ports::local().unwrap());
    let arguments = ["--admin-token-file", &*writers, "--admin-read-token-file", &*readers, "--redis", &*redis];
    let arguments = [&arguments[..], &["--log", "trace", "--ca-settle", "0"]].concat();
    let server = Guarded::start(&[("mesh.yaml", &*mesh), ("shop.yaml", &*shop)], &arguments).await;
    let admin = server.mesh.admin;

    let mut secrets = Secrets::default();
    secrets.add_key("the gateway's key", &pair.1);
    secrets.add_key("a key that fits no certificate", &other.1);
    let root = |path: &str| std::fs::read_to_string(server.state.path().join(path)).unwrap();
    secrets.add_key("the root's key", &root("ca/root-key.pem"));
    for (name, text) in [("writer", WRITE_TOKEN), ("reader", READ_TOKEN), ("redis", REDIS_PASSWORD)] {
        secrets.add_text(name, text);
    }
    let after_id = |token: &str| token.trim().splitn(3, '_').nth(2).unwrap().to_owned();
    secrets.add_text("a token of elsewhere", &after_id(FOREIGN_TOKEN));

    // A gateway and a workload by tokens, a client by its certificate, and one who shows a token that nobody made.
    let mut envoys = Vec::new();
    for (name, kind, label) in [("ingress", "gateway", "istio=ingressgateway"), ("web", "sidecar", "app=web")] {
        let token = server.token(&format!("default/{name}"));
        secrets.add_text(&format!("the token of {name}"), &after_id(&std::fs::read_to_string(&token).unwrap()));
        let proof = ["--kind", kind, "--label", label, "--token-file", &*token, "--service-account", name];
        let more = ["--load-reports", "--metrics-interval", "1"];
        let bootstrap = server.bootstrap(name, &[&proof[..], &more].concat());
        envoys.push(Setup::new(bootstrap).start().await.unwrap());
    }
    let worker = "sidecar~127.0.0.1~worker.default~default.svc.cluster.local";
    let (_stream, workload) = key_by_sds(&server, "default/worker", worker).await;
    secrets.add_key("the key of a workload", &workload);
    let roots = std::fs::read_to_string(server.root()).unwrap();
    let credentials = Credentials { roots, name: "localhost".to_owned(), certificate: None };
    let stranger = Wire::connect_tls(server.tls, &credentials).await.unwrap().with_token(FOREIGN_TOKEN).unwrap();
    let mut refused = stranger.delta(node(worker, "worker"));
    refused.subscribe(ResourceType::Cluster, &[]).await;
    let refusal = refused.next(PATIENCE).await.unwrap_err();

    // The gateway has its certificate, as everybody else could see.
    wait::until("the gateway to have its certificate", PATIENCE, async || {
        let certificates = envoys[0].get("/certs").await.map_err(|error| format!("{error:#}"))?;
        if certificates.contains("shop.test") { Ok(()) } else { Err(certificates) }
    })
    .await
    .unwrap();
    // The next root is there.
    let address = admin.to_string();
    let token_file = ["--admin", &*address, "--token-file", &*writers];
    let rotate = command(&[&["ca", "rotate", "--step", "--force", "--wait", "30"][..], &token_file].concat());
    assert_eq!(rotate.0, Some(0), "{}", String::from_utf8_lossy(&rotate.1));
    secrets.add_key("the next root's key", &root("ca/next/root-key.pem"));

    let mut shown = Shown::default();
    shown.add("the answer to a stranger", format!("{refusal:?} {refusal}"));
    shown.add("ca rotate", rotate.1);
    // A pair that does not fit, among the files and handed over.
    let mixed = secret_of("shop", &(pair.0.clone(), other.1.clone()));
    server.mesh.write("shop.yaml", &mixed);
    admin::ask_everything(&mut shown, admin, &mixed).await;
    admin::call_everything(&mut shown, admin, &server.mesh.xds.to_string(), &mixed).await;

    let ids = ["router~127.0.0.1~ingress.default~default.svc.cluster.local", worker];
    let mut commands = vec![vec!["status"], vec!["status", "nodes"], vec!["status", "objects"], vec!["load"]];
    commands.extend([vec!["rollout", "list"], vec!["ca", "status"], vec!["wait", "--for=synced", "--timeout", "1"]]);
    commands.extend(ids.map(|id| vec!["status", "node", id]));
    commands.extend(["gateway/default/main", "secret/default/shop"].map(|object| vec!["status", object]));
    for mut arguments in commands {
        let place = arguments.join(" ");
        arguments.extend(["--admin", &*address]);
        shown.add(place.clone(), command(&arguments).1);
        if place != "wait --for=synced --timeout 1" {
            arguments.extend(["-o", "json"]);
            shown.add(format!("{place} -o json"), command(&arguments).1);
        }
    }
    let state = server.state.path().to_str().unwrap();
    shown.add("token list", command(&["token", "list", "-o", "json", "--state-dir", state]).1);

    for envoy in &envoys {
        for path in
            ["/config_dump?include_eds", "/certs", "/clusters", "/listeners", "/server_info", "/stats", "/init_dump"]
        {
            shown.add(format!("Envoy's {path}"), envoy.get(path).await.unwrap());
        }
        shown.add("Envoy's log", envoy.log());
    }
    for file in files(server.state.path()) {
        // Only their owner can read them, and nothing is in them but one key.
        let path = file.strip_prefix(server.state.path()).unwrap().to_str().unwrap();
        let own = ["ca/root-key.pem", "ca/next/root-key.pem"].contains(&path);
        let (name, bytes) = (file.display().to_string(), std::fs::read(&file).unwrap());
        let found = secrets.in_bytes(&bytes);
        assert_eq!(found.len(), usize::from(own), "{name}: {found:#?}");
    }
    let log = server.mesh.server.output();
    assert!(log.contains("TRACE") && log.contains("does not belong to the certificate"), "the log says everything");
    shown.add("the log", log);
    println!("{} places, {} bytes", shown.0.len(), shown.0.iter().map(|(_, bytes)| bytes.len()).sum::<usize>());
    secrets.add_text("any key at all", "PRIVATE KEY-----");
    shown.assert_without(&secrets);
}

/// The token is in the bootstrap, and Envoy brings it.
#[tokio::test(flavor = "multi_thread")]
async fn an_envoy_shows_that_it_has_a_token_and_not_which() {
    let server = Guarded::start(&[], &[]).await;
    let token = server.token("default/web");
    let bootstrap = server.bootstrap("web", &["--token-file", &*token, "--service-account", "web"]);
    let text = std::fs::read_to_string(&token).unwrap();
    assert!(bootstrap.to_string().contains(text.trim()), "the bootstrap has it");
    let envoy = Setup::new(bootstrap).start().await.unwrap();
    let dump: Value = envoy.config_dump().await.unwrap();
    let dump = dump.to_string();
    assert!(dump.contains("xds-token") && dump.contains("[redacted]") && !dump.contains(text.trim()), "{dump}");
    server.mesh.synced(1).await;
    envoy.stop().await.unwrap();
}
