//! What stands at a gateway: certificates from plain files and of the mesh, TLS towards others, and policies.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::json;
use tempfile::TempDir;
use testkit::backend::Backend;
use testkit::envoy::Setup;
use testkit::load::Plan;
use testkit::{ports, wait};

use crate::authorization::get;
use crate::gateway_secrets::{Authority, answers, ask, written};
use crate::identity::Guarded;
use crate::mesh::{Mesh, PATIENCE, Variant};
use crate::tokens::issuer::{Documents, Issuer};

/// A directory in which secrets stand as Kubernetes mounts them: files are links through `..data`, which is replaced as a
/// whole.
struct Mounted(TempDir);

impl Mounted {
    fn new() -> Mounted {
        Mounted(TempDir::new().unwrap())
    }

    fn path(&self) -> &str {
        self.0.path().to_str().unwrap()
    }

    /// From now on the secret of this name in namespace `default` has these files.
    fn put(&self, name: &str, files: &[(&str, &str)]) {
        let folder = self.0.path().join("default").join(name);
        fs::create_dir_all(&folder).unwrap();
        let version = format!("..{}", fs::read_dir(&folder).unwrap().count());
        fs::create_dir(folder.join(&version)).unwrap();
        for (file, text) in files {
            fs::write(folder.join(&version).join(file), text).unwrap();
        }
        symlink(&version, folder.join("..data_tmp")).unwrap();
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
        for (file, _) in files.iter().filter(|(file, _)| !folder.join(file).is_symlink()) {
            symlink(format!("..data/{file}"), folder.join(file)).unwrap();
        }
    }

    fn put_pair(&self, name: &str, (chain, key): &(String, String)) {
        self.put(name, &[("tls.crt", chain), ("tls.key", key)]);
    }
}

/// A host that an app on this machine answers for.
fn entry(host: &str, port: u16, address: SocketAddr) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {host}, namespace: default}}\n\
         spec: {{hosts: [{host}], ports: [{{number: {port}, name: http, protocol: HTTP}}], resolution: STATIC, \
         endpoints: [{{address: 127.0.0.1, ports: {{http: {}}}}}]}}\n---\n",
        address.port()
    )
}

fn object(kind: &str, name: &str, spec: &serde_json::Value) -> String {
    let group = match kind {
        "AuthorizationPolicy" | "RequestAuthentication" => "security.istio.io/v1",
        "RateLimitPolicy" => "policy.pointsman.dev/v1alpha1",
        _ => "networking.istio.io/v1",
    };
    let metadata = json!({"name": name, "namespace": "default"});
    format!("{}\n---\n", json!({"apiVersion": group, "kind": kind, "metadata": metadata, "spec": spec}))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_from_plain_files_is_replaced_under_load_without_a_failed_handshake() {
    let app = Backend::start("app", ports::local().unwrap()).unwrap();
    let (at, files, secrets) = (ports::local().unwrap(), TempDir::new().unwrap(), Mounted::new());
    let (first, second) = (Authority::new("one"), Authority::new("two"));
    let (staff, strangers) = (Authority::new("staff"), Authority::new("strangers"));
    let server = |name: &str, tls: serde_json::Value| {
        let port = json!({"number": at.port(), "name": name, "protocol": "HTTPS"});
        json!({"port": port, "hosts": [format!("{name}.test")], "tls": tls})
    };
    let simple = server("shop", json!({"mode": "SIMPLE", "credentialName": "shop"}));
    let mutual =
        server("staff", json!({"mode": "MUTUAL", "credentialNames": ["staff"], "caCertCredentialName": "people"}));
    let mesh = entry("app.test", 80, app.address())
        + &object("Gateway", "main", &json!({"selector": {"istio": "ingressgateway"}, "servers": [simple, mutual]}))
        + &object(
            "VirtualService",
            "app",
            &json!({"hosts": ["shop.test", "staff.test"], "gateways": ["main"],
                    "http": [{"route": [{"destination": {"host": "app.test"}}]}]}),
        );
    let before = first.pair("shop.test");
    secrets.put_pair("shop", &before);
    secrets.put_pair("staff", &first.pair("staff.test"));
    let fired = staff.pair("fired");
    secrets.put("people", &[("ca.crt", &staff.pem), ("ca.crl", &staff.revoking(&fired.0))]);
    let server = Guarded::start(&[("mesh.yaml", &mesh)], &["--secret-dir", secrets.path()]).await;
    let token = server.token("default/gateway");
    let proof = ["--kind", "gateway", "--label", "istio=ingressgateway", "--token-file", &*token];
    let envoy = Setup::new(server.bootstrap("ingress", &proof)).start().await.unwrap();

    let write = |name: &str, text: &str| written(&files, name, text);
    let (old, new) = (write("first.pem", &first.pem), write("second.pem", &second.pem));
    let either = write("both.pem", &format!("{}{}", first.pem, second.pem));
    let answers = async |roots: &str| answers(at, roots, &envoy).await;
    answers(&old).await;
    // Who must show a certificate is let in with one of the right authority that is not revoked, and with no other.
    for (pair, is_let_in) in [(staff.pair("me"), true), (strangers.pair("me"), false), (fired, false)] {
        let (certificate, key) = pair;
        let (certificate, key) = (write("me.pem", &certificate), write("me.key", &key));
        let asked = ask(at, "staff.test", &old, &["--cert", &certificate, "--key", &key]);
        assert_eq!(asked.as_deref() == Ok("200"), is_let_in, "{asked:?}");
    }
    assert!(ask(at, "staff.test", &old, &[]).is_err());

    let (is_over, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let client = {
        let (is_over, asked) = (is_over.clone(), asked.clone());
        std::thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                assert_eq!(ask(at, "shop.test", &either, &[]).as_deref(), Ok("200"));
                asked.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    // A pair that does not fit is told with the name of the file, and the old one stays.
    let after = second.pair("shop.test");
    secrets.put_pair("shop", &(before.0.clone(), after.1.clone()));
    let wrong = format!("{}/default/shop/tls.key", secrets.path());
    let is_told = |answer: &serde_json::Value| answer.to_string().contains(&wrong);
    server.mesh.get_where("/api/v1/problems", "the broken pair to be reported", is_told).await;
    answers(&old).await;
    secrets.put_pair("shop", &after);
    answers(&new).await;
    server.mesh.get_where("/api/v1/problems", "it to be mended", |answer| !is_told(answer)).await;
    let least = asked.load(Ordering::Relaxed) + 10;
    wait::until("the client to go on", PATIENCE, async || {
        let now = asked.load(Ordering::Relaxed);
        if now >= least { Ok(()) } else { Err(now.to_string()) }
    })
    .await
    .unwrap();
    is_over.store(true, Ordering::Relaxed);
    client.join().unwrap();
    let log = server.mesh.server.output();
    for (_, key) in [&before, &after] {
        assert!(!log.contains(key.lines().nth(2).unwrap()), "{log}");
    }
    envoy.stop().await.unwrap();
}

/// A sidecar speaks mutual TLS of the mesh to the gateway, which begins TLS with a certificate from a secret to a bank
/// that lets in nobody else; and the gateway knows by the first who may ask for what.
#[tokio::test(flavor = "multi_thread")]
async fn traffic_of_the_mesh_leaves_by_a_gateway_that_begins_tls_with_a_secret() {
    let (bank, clients) = (Authority::new("bank"), Authority::new("clients"));
    let vault = Documents::start_tls(&bank.pair("bank.test"), Some(&clients.pem)).await;
    vault.set("/pay", 200, "paid");
    vault.set("/steal", 200, "stolen");
    let (service, outside) = (ports::local().unwrap().port(), ports::local().unwrap());
    let gateway = ports::pod(ports::local().unwrap().port()).unwrap();
    let of_gateway = json!({"matchLabels": {"istio": "egressgateway"}});
    let mesh = entry("bank.test", outside.port(), vault.address)
        + &format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: egress, namespace: default}}\n\
             spec: {{selector: {{istio: egressgateway}}, ports: [{{name: http, port: {service}, targetPort: {port}}}]}}\n\
             ---\napiVersion: v1\nkind: Pod\n\
             metadata: {{name: egress, namespace: default, labels: {{istio: egressgateway}}}}\n\
             spec: {{serviceAccountName: gateway, containers: [{{name: proxy}}]}}\n\
             status: {{podIP: {ip}, phase: Running}}\n---\n",
            ip = gateway.ip(),
            port = gateway.port(),
        )
        + &object(
            "Gateway",
            "egress",
            &json!({"selector": {"istio": "egressgateway"}, "servers": [{
                "port": {"number": service, "name": "mesh", "protocol": "HTTPS"},
                "hosts": ["bank.test"], "tls": {"mode": "ISTIO_MUTUAL"},
            }]}),
        )
        + &object(
            "VirtualService",
            "bank",
            &json!({"hosts": ["bank.test"], "gateways": ["mesh", "egress"], "http": [
                {"match": [{"gateways": ["mesh"]}], "route": [{"destination": {"host": "egress"}}]},
                {"match": [{"gateways": ["egress"]}], "route": [{"destination": {"host": "bank.test"}}]},
            ]}),
        )
        + &object(
            "DestinationRule",
            "egress",
            &json!({"host": "egress", "trafficPolicy": {"tls": {"mode": "ISTIO_MUTUAL", "sni": "bank.test"}}}),
        )
        + &object(
            "DestinationRule",
            "bank",
            &json!({"host": "bank.test", "trafficPolicy": {"tls": {
                "mode": "MUTUAL", "credentialName": "bank", "sni": "bank.test", "subjectAltNames": ["bank.test"],
            }}}),
        )
        + &object(
            "AuthorizationPolicy",
            "payers",
            &json!({"selector": of_gateway, "rules": [{
                "from": [{"source": {"principals": ["cluster.local/ns/default/sa/client"]}}],
                "to": [{"operation": {"paths": ["/pay"]}}],
            }]}),
        );
    let secrets = Mounted::new();
    let (chain, key) = clients.pair("egress");
    secrets.put("bank", &[("tls.crt", &chain), ("tls.key", &key), ("ca.crt", &bank.pem)]);
    let server = Guarded::start(&[("mesh.yaml", &mesh)], &["--secret-dir", secrets.path()]).await;
    let (token, ip) = (server.token("default/gateway"), gateway.ip().to_string());
    let proof = ["--kind", "gateway", "--label", "istio=egressgateway", "--ip", &ip, "--token-file", &*token];
    let egress = Setup::new(server.bootstrap("egress", &proof)).start().await.unwrap();
    let mut callers = Vec::new();
    for name in ["client", "thief"] {
        let token = server.token(&format!("default/{name}"));
        // Each binds the service's ports on an address of this machine: one after the other.
        let proof = ["--service-account", name, "--token-file", &*token];
        let sidecar = Setup::new(server.bootstrap(name, &proof)).start().await.unwrap();
        let plan = |path: &str| Plan::get(outside, "bank.test", path).timeout(PATIENCE);
        let expected = if name == "client" { 200 } else { 403 };
        wait::until(&format!("{name} to be answered {expected}"), PATIENCE, async || match plan("/pay").once().await {
            Ok(reply) if reply.status == expected => Ok(()),
            Ok(reply) => Err(format!("{reply:?}\n{}", egress.log())),
            Err(error) => Err(format!("{error:#}")),
        })
        .await
        .unwrap();
        assert_eq!(plan("/steal").once().await.unwrap().status, 403);
        sidecar.stop().await.unwrap();
        callers.push(name);
    }
    assert_eq!(callers.len(), 2);
    // Nobody gets in without a certificate of the mesh.
    let roots = server.root();
    let at = SocketAddr::from(([127, 0, 0, 1], gateway.port()));
    assert!(ask(at, "bank.test", &roots, &["--insecure"]).is_err());
    assert!(vault.asked() >= 1);
    egress.stop().await.unwrap();
}

#[tokio::test]
async fn policies_stand_guard_at_a_gateway() {
    let app = Backend::start("app", ports::local().unwrap()).unwrap();
    let at = ports::local().unwrap();
    let issuer = Issuer::new("https://issuer.test");
    let selector = json!({"matchLabels": {"istio": "ingressgateway"}});
    let to =
        |path: &str| json!({"destination": {"host": "app.test"}, "headers": {"response": {"set": {"x-way": path}}}});
    let mesh = entry("app.test", 80, app.address())
        + &object(
            "Gateway",
            "main",
            &json!({"selector": {"istio": "ingressgateway"}, "servers": [
                {"port": {"number": at.port(), "name": "http", "protocol": "HTTP"}, "hosts": ["shop.test"]},
            ]}),
        )
        + &object(
            "VirtualService",
            "shop",
            &json!({"hosts": ["shop.test"], "gateways": ["main"], "http": [
                {"match": [{"headers": {"@request.auth.claims.group": {"exact": "staff"}}}], "route": [to("staff")]},
                {"route": [to("all")]},
            ]}),
        )
        + &object(
            "RequestAuthentication",
            "tokens",
            &json!({"selector": selector, "jwtRules": [{"issuer": issuer.name, "jwks": issuer.key_set()}]}),
        )
        + &object(
            "AuthorizationPolicy",
            "open",
            &json!({"selector": selector, "action": "ALLOW", "rules": [
                {"to": [{"operation": {"paths": ["/public/*", "/limited"]}}]},
                {"to": [{"operation": {"paths": ["/staff"]}}],
                 "when": [{"key": "request.auth.claims[group]", "values": ["staff"]}]},
            ]}),
        )
        + &object(
            "AuthorizationPolicy",
            "banned",
            &json!({"selector": selector, "action": "DENY", "rules": [
                {"from": [{"source": {"remoteIpBlocks": ["127.0.0.9"]}}]},
                {"to": [{"operation": {"paths": ["/public/secret"]}}]},
            ]}),
        )
        + &object(
            "RateLimitPolicy",
            "few",
            &json!({"selector": selector, "limits": [
                {"name": "few", "requests": 2, "per": "1h", "match": {"paths": ["/limited"]}},
            ]}),
        );
    let mesh = Mesh::start(&[("mesh.yaml", &mesh)]).await;
    let arguments = ["--kind", "gateway", "--pod", "ingress", "--label", "istio=ingressgateway"];
    let _ingress = mesh.envoy(Variant::Delta, &arguments).await;
    let shop = |path: &str| get(path).host("shop.test");
    wait::until("the gateway to answer", PATIENCE, async || match shop("/public/").answer(at).await {
        Ok((200, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await
    .unwrap();
    for (sent, status) in [
        (shop("/public/a"), 200),
        (shop("/public/secret"), 403),
        (shop("/other"), 403),
        (shop("/staff"), 403),
        (shop("/public/a").from(9), 403),
        // Who it is says the connection, not the header.
        (shop("/public/a").from(9).headers(&[("x-forwarded-for", "127.0.0.1")]), 403),
        (shop("/public/a").headers(&[("x-forwarded-for", "127.0.0.9")]), 200),
        (shop("/limited"), 200),
        (shop("/limited"), 200),
        (shop("/limited"), 429),
    ] {
        let (found, text) = sent.answer(at).await.unwrap();
        assert_eq!(found, status, "{sent:?}: {text}");
    }
    let asked = async |path: &str, token: &str| {
        let plan =
            Plan::get(at, "shop.test", path).timeout(PATIENCE).header("authorization", &format!("Bearer {token}"));
        let reply = plan.once().await.unwrap();
        (reply.status, reply.header("x-way").unwrap_or_default().to_owned())
    };
    let (staff, guest) = (issuer.token(json!({"group": "staff"})), issuer.token(json!({"group": "guests"})));
    assert_eq!(asked("/staff", &staff).await, (200, "staff".to_owned()));
    assert_eq!(asked("/public/a", &staff).await, (200, "staff".to_owned()));
    assert_eq!(asked("/public/a", &guest).await, (200, "all".to_owned()));
    assert_eq!(asked("/staff", &guest).await.0, 403);
    assert_eq!(asked("/public/a", &Issuer::new(&issuer.name).token(json!({}))).await.0, 401);
    mesh.assert_no_problems().await;
}
