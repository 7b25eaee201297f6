//! Gateways: hosts, splits under load, TLS by files and by SNI, TCP.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use testkit::envoy::Envoy;
use testkit::load::{Load, Plan};
use testkit::stats::{FALSE_ALARM, assert_split};
use testkit::{ports, wait};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::mesh::{Mesh, PATIENCE, Reviews, SUBSETS, Variant, answering, marked};
use crate::raw::{assert_connections_split, client_hello, get, get_where, name_behind, name_settled, name_where};
use crate::tcp::Database;

/// The proxy that the Gateways of these tests select.
async fn ingress(mesh: &Mesh, variant: Variant) -> Envoy {
    mesh.envoy(variant, &["--kind", "gateway", "--pod", "ingress", "--label", "istio=ingressgateway"]).await
}

/// A Gateway with these servers, in YAML's flow style.
fn gateway(name: &str, servers: &[String]) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: {name}, namespace: default}}\n\
         spec:\n  selector: {{istio: ingressgateway}}\n  servers:\n{}",
        servers.iter().map(|server| format!("    - {server}\n")).collect::<String>()
    )
}

fn http_server(port: u16, hosts: &str) -> String {
    format!("{{port: {{number: {port}, name: http, protocol: HTTP}}, hosts: [{hosts}]}}")
}

/// A VirtualService; `spec` is what follows `gateways`.
fn routes(name: &str, hosts: &str, gateways: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: default}}\n\
         spec:\n  hosts: [{hosts}]\n  gateways: [{gateways}]\n  {spec}\n"
    )
}

/// All HTTP traffic to one subset of `reviews`.
fn to(subset: &str) -> String {
    format!("http: [{{route: [{{destination: {{host: reviews, subset: {subset}}}}}]}}]")
}

/// The split of `reviews`, marked.
fn split(v1: u64, v2: u64) -> String {
    let route = format!(
        "http: [{{headers: {{response: {{set: {{x-mark: {v1}/{v2}}}}}}}, route: [\
         {{destination: {{host: reviews, subset: v1}}, weight: {v1}}}, \
         {{destination: {{host: reviews, subset: v2}}, weight: {v2}}}]}}]"
    );
    routes("shop", "shop.example.com", "main", &route)
}

async fn a_gateway_splits_and_follows_weights_under_load(variant: Variant) {
    let reviews = Reviews::start();
    let entry = ports::local().unwrap();
    let main = gateway("main", &[http_server(entry.port(), "shop.example.com")]);
    let files = [
        ("reviews.yaml", &*reviews.objects()),
        ("rule.yaml", SUBSETS),
        ("gateway.yaml", &main),
        ("shop.yaml", &split(80, 20)),
    ];
    let mesh = Mesh::start(&files).await;
    let _ingress = ingress(&mesh, variant).await;
    let plan = Plan::get(entry, "shop.example.com", "/").timeout(Duration::from_secs(10));
    answering(plan.clone()).await;
    let load = Load::start(plan.per_second(800.0).connections(8)).unwrap();
    let begun = Instant::now();
    for (v1, v2) in [(80, 20), (50, 50), (0, 100), (100, 0)] {
        let written = mesh.write("shop.yaml", &split(v1, v2));
        let since = marked(&load, written, &format!("{v1}/{v2}")).await;
        load.next(800, PATIENCE).await.unwrap();
        assert_split(&load.since(since).await.by_backend(), &[("v1", v1), ("v2", v2)], FALSE_ALARM);
    }
    load.since(begun).await.assert_no_failures();
}

#[tokio::test]
async fn a_gateway_splits_and_follows_weights_under_load_by_delta() {
    a_gateway_splits_and_follows_weights_under_load(Variant::Delta).await;
}

#[tokio::test]
async fn a_gateway_splits_and_follows_weights_under_load_by_state_of_the_world() {
    a_gateway_splits_and_follows_weights_under_load(Variant::StateOfTheWorld).await;
}

#[tokio::test]
async fn a_gateway_serves_the_hosts_that_it_and_its_virtual_services_name_and_no_others() {
    let reviews = Reviews::start();
    let entry = ports::local().unwrap();
    let hosts = "shop.example.com, '*.apps.example.com', elsewhere/hidden.example.com, free.example.com";
    let main = gateway("main", &[http_server(entry.port(), hosts)]);
    let direct = |body: &str| format!("http: [{{directResponse: {{status: 200, body: {{string: {body}}}}}}}]");
    let by_gateway = "http: [{match: [{gateways: [mesh]}], directResponse: {status: 418}}, \
                      {match: [{gateways: [main]}], directResponse: {status: 200, body: {string: at-main}}}]";
    let objects = [
        reviews.objects(),
        format!("---\n{SUBSETS}"),
        format!("---\n{main}"),
        routes("shop", "shop.example.com", "main", &to("v1")),
        routes("apps", "'*.apps.example.com'", "main", &to("v2")),
        routes("one-app", "one.apps.example.com", "main, mesh", &direct("one")),
        routes("two-app", "two.apps.example.com", "default/main, mesh", by_gateway),
        routes("hidden", "hidden.example.com", "main", &to("v1")),
        routes("unbound", "free.example.com", "mesh", &to("v1")),
        routes("lost", "stranger.example.org", "main", &to("v1")),
    ];
    let mesh = Mesh::start(&[("all.yaml", &objects.concat())]).await;
    let _ingress = ingress(&mesh, Variant::Delta).await;
    let port = entry.port();
    get_where(entry, "shop.example.com", "/", |answer| answer.backend() == "v1").await;
    for (host, status, by) in [
        ("shop.example.com", 200, "v1"),
        (&*format!("shop.example.com:{port}"), 200, "v1"),
        ("SHOP.example.com", 200, "v1"),
        ("any.apps.example.com", 200, "v2"),
        ("deep.er.apps.example.com", 200, "v2"),
        ("one.apps.example.com", 200, "one"),
        ("two.apps.example.com", 200, "at-main"),
        ("apps.example.com", 404, ""),
        ("hidden.example.com", 404, ""),
        ("free.example.com", 404, ""),
        ("stranger.example.org", 404, ""),
        ("reviews.default.svc.cluster.local", 404, ""),
    ] {
        let answer = get(entry, host, "/").await.unwrap();
        let said = if answer.backend().is_empty() { answer.body() } else { answer.backend() };
        assert_eq!((answer.status, said), (status, by), "{host}: {answer:?}");
    }
    // Those that nobody can reach are told.
    let problems = mesh.get("/api/v1/problems").await.to_string();
    assert!(problems.contains("no server of Gateway default/main is open to this object"), "{problems}");
}

#[tokio::test]
async fn hosts_come_and_go_at_a_gateway_while_others_are_served() {
    let reviews = Reviews::start();
    let entry = ports::local().unwrap();
    let objects = format!("{}---\n{SUBSETS}", reviews.objects());
    let servers = |hosts: &str| gateway("main", &[http_server(entry.port(), hosts)]);
    let shop = routes("shop", "shop.example.com", "main", &to("v1"));
    let files = [("all.yaml", &*objects), ("gateway.yaml", &*servers("shop.example.com")), ("shop.yaml", &*shop)];
    let mesh = Mesh::start(&files).await;
    let _ingress = ingress(&mesh, Variant::Delta).await;
    let plan = Plan::get(entry, "shop.example.com", "/").timeout(Duration::from_secs(10));
    answering(plan.clone()).await;
    let load = Load::start(plan.per_second(400.0)).unwrap();
    let begun = Instant::now();
    mesh.write("gateway.yaml", &servers("shop.example.com, new.example.com"));
    mesh.write("new.yaml", &routes("new", "new.example.com", "main", &to("v2")));
    get_where(entry, "new.example.com", "/", |answer| answer.backend() == "v2").await;
    // A second port, served by a second Gateway, and gone again.
    let other = ports::local().unwrap();
    mesh.write("other.yaml", &gateway("other", &[http_server(other.port(), "'*'")]));
    mesh.write("new.yaml", &routes("new", "new.example.com", "main, other", &to("v2")));
    get_where(other, "new.example.com", "/", |answer| answer.backend() == "v2").await;
    mesh.remove("other.yaml");
    wait::until("the port to be closed", PATIENCE, async || match get(other, "new.example.com", "/").await {
        Err(_) => Ok(()),
        Ok(answer) => Err(format!("{answer:?}")),
    })
    .await
    .unwrap();
    mesh.remove("new.yaml");
    get_where(entry, "new.example.com", "/", |answer| answer.status == 404).await;
    load.next(50, PATIENCE).await.unwrap();
    let window = load.since(begun).await;
    window.assert_no_failures();
    assert_split(&window.by_backend(), &[("v1", 1)], FALSE_ALARM);
}

#[tokio::test]
async fn a_server_in_the_clear_redirects_to_https_if_it_says_so() {
    let reviews = Reviews::start();
    let entry = ports::local().unwrap();
    let port = entry.port();
    let server = |hosts: &str, tls: &str| {
        format!("{{port: {{number: {port}, name: http, protocol: HTTP}}, hosts: [{hosts}]{tls}}}")
    };
    let servers = [server("safe.example.com", ", tls: {httpsRedirect: true}"), server("plain.example.com", "")];
    let objects = [
        reviews.objects(),
        format!("---\n{SUBSETS}---\n"),
        gateway("main", &servers),
        routes("all", "safe.example.com, plain.example.com", "main", &to("v1")),
    ];
    let mesh = Mesh::start(&[("all.yaml", &objects.concat())]).await;
    let _ingress = ingress(&mesh, Variant::Delta).await;
    get_where(entry, "plain.example.com", "/", |answer| answer.backend() == "v1").await;
    let answer = get(entry, "safe.example.com", "/a?b=c").await.unwrap();
    let location = Some("https://safe.example.com/a?b=c");
    assert_eq!((answer.status, answer.header("location")), (301, location), "{answer:?}");
}

/// Whether there is an openssl; says what is skipped otherwise.
fn openssl_or_skip(what: &str) -> bool {
    let found =
        std::process::Command::new("openssl").arg("version").output().is_ok_and(|output| output.status.success());
    if !found {
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), "skipped: {what}: there is no openssl");
    }
    found
}

/// Makes a self-signed certificate `<name>.crt` with its key `<name>.key`.
fn certificate(directory: &Path, name: &str) -> (String, String) {
    let path = |extension: &str| directory.join(format!("{name}.{extension}")).to_str().unwrap().to_owned();
    let (certificate, key) = (path("crt"), path("key"));
    let output = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", &format!("/CN={name}"), "-out", &certificate, "-keyout", &key])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (certificate, key)
}

/// What came of a GET over TLS.
#[derive(Debug, PartialEq)]
struct Secured {
    status: u16,
    backend: String,
    /// Who the server says it is.
    subject: String,
}

async fn get_by_tls(address: SocketAddr, server_name: &str, host: &str) -> Result<Secured, String> {
    let mut client = Command::new("openssl")
        .args(["s_client", "-connect", &address.to_string(), "-servername", server_name, "-ign_eof", "-nocommands"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut input = client.stdin.take().unwrap();
    // If the handshake fails nobody reads this, which the output shows.
    let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    let _ = input.write_all(request.as_bytes()).await;
    let finished = tokio::time::timeout(Duration::from_secs(10), client.wait_with_output()).await;
    let output = finished.map_err(|_| "openssl did not end within 10 seconds".to_owned())?.unwrap();
    drop(input);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let after = |mark: &str| text.lines().find_map(|line| line.strip_prefix(mark)).map(|rest| rest.trim().to_owned());
    let Some(status) = after("HTTP/1.1 ") else {
        return Err(format!("{text}{}", String::from_utf8_lossy(&output.stderr)));
    };
    Ok(Secured {
        status: status[..3].parse().unwrap(),
        backend: after("x-backend: ").unwrap_or_default(),
        subject: after("subject=").unwrap_or_default().replace(' ', ""),
    })
}

#[tokio::test]
async fn tls_ends_at_a_gateway_with_certificates_from_files() {
    if !openssl_or_skip("TLS ends at a gateway with certificates from files") {
        return;
    }
    let reviews = Reviews::start();
    let entry = ports::local().unwrap();
    let certificates = tempfile::TempDir::with_prefix("pointsman-certificates-").unwrap();
    let server = |name: &str, host: &str| {
        let (certificate, key) = certificate(certificates.path(), name);
        format!(
            "{{port: {{number: {}, name: https-{name}, protocol: HTTPS}}, hosts: [{host}], \
             tls: {{mode: SIMPLE, serverCertificate: {certificate}, privateKey: {key}}}}}",
            entry.port()
        )
    };
    let objects = [
        reviews.objects(),
        format!("---\n{SUBSETS}---\n"),
        gateway("main", &[server("shop", "shop.example.com"), server("apps", "'*.apps.example.com'")]),
        routes("shop", "shop.example.com", "main", &to("v1")),
        routes("apps", "'*.apps.example.com'", "main", &to("v2")),
    ];
    let mesh = Mesh::start(&[("all.yaml", &objects.concat())]).await;
    let _ingress = ingress(&mesh, Variant::Delta).await;
    wait::until("an answer by TLS", PATIENCE, async || {
        match get_by_tls(entry, "shop.example.com", "shop.example.com").await {
            Ok(answer) if answer.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap();
    for (name, host, status, by, subject) in [
        ("shop.example.com", "shop.example.com", 200, "v1", "CN=shop"),
        ("one.apps.example.com", "one.apps.example.com", 200, "v2", "CN=apps"),
        // A host that the server of this name does not have.
        ("shop.example.com", "one.apps.example.com", 404, "", "CN=shop"),
    ] {
        let wanted = Secured { status, backend: by.to_owned(), subject: subject.to_owned() };
        assert_eq!(get_by_tls(entry, name, host).await, Ok(wanted), "{name}, {host}");
    }
    let refused = get_by_tls(entry, "stranger.example.org", "shop.example.com").await;
    assert!(refused.is_err(), "{refused:?}");
    assert!(get(entry, "shop.example.com", "/").await.is_err(), "plain HTTP is answered at a TLS port");
}

#[tokio::test]
async fn tls_passes_through_a_gateway_by_server_name() {
    let db = Database::start("tcp");
    let entry = ports::local().unwrap();
    let port = entry.port();
    let server = format!(
        "{{port: {{number: {port}, name: tls, protocol: TLS}}, hosts: ['*.db.example.com'], tls: {{mode: PASSTHROUGH}}}}"
    );
    let tls = |v1: u64, v2: u64| {
        let route = |name: &str, weights: String| {
            format!("{{match: [{{port: {port}, sniHosts: [{name}]}}], route: {weights}}}")
        };
        let both = [
            route("split.db.example.com", db.weights(v1, v2)),
            route("old.db.example.com", db.weights(100, 0)),
            route("'*.new.db.example.com'", db.weights(0, 100)),
        ];
        routes("db", "'*.db.example.com'", "main", &format!("tls: [{}]", both.join(", ")))
    };
    let objects = [db.objects.clone(), "---\n".to_owned(), gateway("main", &[server])].concat();
    let mesh = Mesh::start(&[("all.yaml", &objects), ("routes.yaml", &tls(80, 20))]).await;
    let _ingress = ingress(&mesh, Variant::Delta).await;
    name_where(entry, &client_hello("old.db.example.com"), |name| name == "v1").await;
    assert_eq!(name_behind(entry, &client_hello("a.new.db.example.com")).await.unwrap(), "v2");
    assert_connections_split(entry, &client_hello("split.db.example.com"), &[("v1", 80), ("v2", 20)]).await;
    for stranger in [client_hello("db.example.com"), client_hello("other.example.com"), b"no TLS".to_vec()] {
        let refused = name_behind(entry, &stranger).await;
        assert!(refused.is_err(), "{refused:?}");
    }
    mesh.write("routes.yaml", &tls(0, 100));
    name_settled(entry, &client_hello("split.db.example.com"), "v2").await;
    assert_connections_split(entry, &client_hello("split.db.example.com"), &[("v1", 0), ("v2", 100)]).await;
}

#[tokio::test]
async fn a_tcp_server_of_a_gateway_splits_connections() {
    let db = Database::start("tcp");
    let entry = ports::local().unwrap();
    let server = format!("{{port: {{number: {}, name: tcp, protocol: TCP}}, hosts: ['*']}}", entry.port());
    let tcp = |v1, v2| routes("db", "'*'", "main", &format!("tcp: [{{route: {}}}]", db.weights(v1, v2)));
    let objects = [db.objects.clone(), "---\n".to_owned(), gateway("main", &[server])].concat();
    let mesh = Mesh::start(&[("all.yaml", &objects), ("routes.yaml", &tcp(80, 20))]).await;
    let _ingress = ingress(&mesh, Variant::Delta).await;
    name_where(entry, b"hello", |_| true).await;
    assert_connections_split(entry, b"hello", &[("v1", 80), ("v2", 20)]).await;
    // It listens on all addresses, as gateways do.
    let elsewhere = SocketAddr::new(IpAddr::from([127, 0, 0, 9]), entry.port());
    name_behind(elsewhere, b"hello").await.unwrap();
}
