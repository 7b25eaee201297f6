//! Sidecars without interception: TCP and TLS, services outside of the mesh, the explicit proxy, what reaches a workload.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use testkit::backend::Backend;
use testkit::load::{Load, Plan};
use testkit::ports;
use testkit::stats::{FALSE_ALARM, assert_split};
use testkit::tcp_backend::TcpBackend;

use crate::mesh::{Mesh, PATIENCE, Reviews, SUBSETS, Variant, answering, marked, pod, split};
use crate::raw::{assert_connections_split, client_hello, get, get_where, name_behind, name_settled, name_where};

/// Two versions of a TCP service with Service, Pods and subsets.
pub struct Database {
    _v1: TcpBackend,
    _v2: TcpBackend,
    /// Where clients on this machine reach it: the port of the Service on 127.0.0.1.
    pub address: SocketAddr,
    /// Service, Pods and DestinationRule.
    pub objects: String,
}

impl Database {
    /// Starts both; `port` is the name of the Service's port, which tells its protocol.
    pub fn start(port_name: &str) -> Database {
        let start = |name: &str| {
            let address = ports::pod(ports::local().unwrap().port()).unwrap();
            TcpBackend::start(name, address).unwrap()
        };
        let (v1, v2) = (start("v1"), start("v2"));
        let address = ports::local().unwrap();
        let port = address.port();
        let mut objects = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: db, namespace: default}}\nspec:\n  \
             selector: {{app: db}}\n  ports: [{{name: {port_name}, port: {port}, targetPort: web}}]\n"
        );
        for (version, backend) in [("v1", &v1), ("v2", &v2)] {
            objects += &pod(&format!("db-{version}"), &format!("app: db, version: {version}"), backend.address());
        }
        objects += &format!("---\n{}", SUBSETS.replace("reviews", "db"));
        Database { _v1: v1, _v2: v2, address, objects }
    }

    /// The destinations of a `tcp` or `tls` route.
    pub fn weights(&self, v1: u64, v2: u64) -> String {
        let port = self.address.port();
        let destination = |subset: &str, weight: u64| {
            format!("{{destination: {{host: db, subset: {subset}, port: {{number: {port}}}}}, weight: {weight}}}")
        };
        format!("[{}, {}]", destination("v1", v1), destination("v2", v2))
    }
}

fn routes(hosts: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: db, namespace: default}}\n\
         spec:\n  hosts: [{hosts}]\n  {spec}\n"
    )
}

async fn connections_are_split_and_none_fails_when_weights_change(variant: Variant) {
    let db = Database::start("tcp");
    let tcp = |v1, v2| routes("db", &format!("tcp: [{{route: {}}}]", db.weights(v1, v2)));
    let mesh = Mesh::start(&[("db.yaml", &db.objects), ("routes.yaml", &tcp(80, 20))]).await;
    let _client = mesh.client(variant, "client").await;
    name_where(db.address, b"hello", |_| true).await;
    assert_connections_split(db.address, b"hello", &[("v1", 80), ("v2", 20)]).await;
    // Connections all the while, over several changes.
    let address = db.address;
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let steady = async move {
        let mut opened = 0;
        while stopped.try_recv().is_err() {
            name_behind(address, b"steady").await.unwrap_or_else(|e| panic!("connection {opened} failed: {e}"));
            opened += 1;
        }
        opened
    };
    let change = async {
        for (v1, v2, name) in [(0, 100, "v2"), (100, 0, "v1"), (0, 1, "v2")] {
            mesh.write("routes.yaml", &tcp(v1, v2));
            name_settled(db.address, b"hello", name).await;
        }
        stop.send(()).unwrap();
    };
    let (opened, ()) = tokio::join!(steady, change);
    assert!(opened > 50, "only {opened} connections were opened meanwhile");
    assert_connections_split(db.address, b"hello", &[("v1", 0), ("v2", 1)]).await;
}

#[tokio::test]
async fn connections_are_split_and_none_fails_when_weights_change_by_delta() {
    connections_are_split_and_none_fails_when_weights_change(Variant::Delta).await;
}

#[tokio::test]
async fn connections_are_split_and_none_fails_when_weights_change_by_state_of_the_world() {
    connections_are_split_and_none_fails_when_weights_change(Variant::StateOfTheWorld).await;
}

/// A ServiceEntry; `spec` follows `hosts`.
fn entry(name: &str, hosts: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}, namespace: default}}\n\
         spec:\n  hosts: [{hosts}]\n  {spec}\n"
    )
}

fn tcp_backend(name: &str) -> TcpBackend {
    TcpBackend::start(name, ports::pod(ports::local().unwrap().port()).unwrap()).unwrap()
}

fn backend(name: &str) -> Backend {
    Backend::start(name, ports::pod(ports::local().unwrap().port()).unwrap()).unwrap()
}

/// One endpoint of a ServiceEntry, for its port called `port`.
fn endpoint(address: SocketAddr, port: &str) -> String {
    format!("{{address: {}, ports: {{{port}: {}}}}}", address.ip(), address.port())
}

#[tokio::test]
async fn tls_is_routed_by_server_name() {
    let (a, b, c) = (tcp_backend("a"), tcp_backend("b"), tcp_backend("c"));
    let port = ports::local().unwrap();
    let number = port.port();
    let tls = |name: &str, host: &str, backend: &TcpBackend| {
        let endpoint = endpoint(backend.address(), "tls");
        let ports = format!("ports: [{{number: {number}, name: tls, protocol: TLS}}]");
        entry(name, host, &format!("{ports}\n  resolution: STATIC\n  endpoints: [{endpoint}]"))
    };
    let destination = |host: &str, weight: u64| format!("{{destination: {{host: {host}}}, weight: {weight}}}");
    let spec = format!(
        "tls: [{{match: [{{port: {number}, sniHosts: [split.example.com]}}], route: [{}, {}]}}, \
         {{match: [{{port: {number}, sniHosts: [alias.example.com]}}], route: [{}]}}]",
        destination("a.example.com", 80),
        destination("b.example.com", 20),
        destination("c.example.com", 100)
    );
    let objects = [
        tls("a", "a.example.com", &a),
        tls("b", "b.example.com", &b),
        tls("c", "c.example.com", &c),
        tls("split", "split.example.com, alias.example.com", &c),
        format!("---\n{}", routes("split.example.com, alias.example.com", &spec)),
    ];
    let mesh = Mesh::start(&[("all.yaml", &objects.concat())]).await;
    let _client = mesh.client(Variant::Delta, "client").await;
    name_where(port, &client_hello("a.example.com"), |name| name == "a").await;
    for (host, name) in [("a.example.com", "a"), ("b.example.com", "b"), ("alias.example.com", "c")] {
        assert_eq!(name_behind(port, &client_hello(host)).await.unwrap(), name, "{host}");
    }
    assert_connections_split(port, &client_hello("split.example.com"), &[("a", 80), ("b", 20)]).await;
    let refused = name_behind(port, &client_hello("stranger.example.com")).await;
    assert!(refused.is_err(), "{refused:?}");
}

#[tokio::test]
async fn services_outside_of_the_mesh_are_reached_by_address_and_by_name() {
    let (fixed, named) = (backend("static"), Backend::start("named", ports::local().unwrap()).unwrap());
    let raw = tcp_backend("raw");
    let (http, tcp) = (ports::local().unwrap(), ports::local().unwrap());
    let ports_of = |number: u16, name: &str, protocol: &str| {
        format!("ports: [{{number: {number}, name: {name}, protocol: {protocol}}}]")
    };
    let objects = [
        entry(
            "static",
            "static.example.com",
            &format!(
                "{}\n  location: MESH_EXTERNAL\n  resolution: STATIC\n  endpoints: [{}]",
                ports_of(http.port(), "http", "HTTP"),
                endpoint(fixed.address(), "http")
            ),
        ),
        entry(
            "named",
            "named.example.com",
            &format!(
                "{}\n  location: MESH_EXTERNAL\n  resolution: DNS\n  endpoints: [{{address: localhost, ports: {{http: {}}}}}]",
                ports_of(http.port(), "http", "HTTP"),
                named.address().port()
            ),
        ),
        entry(
            "raw",
            "raw.example.com",
            &format!(
                "{}\n  resolution: STATIC\n  endpoints: [{}]",
                ports_of(tcp.port(), "tcp", "TCP"),
                endpoint(raw.address(), "tcp")
            ),
        ),
        // Nothing to go to without interception: it must cost nobody else anything.
        entry(
            "nowhere",
            "nowhere.example.com",
            &format!("{}\n  resolution: NONE", ports_of(http.port(), "http", "HTTP")),
        ),
    ];
    let mesh = Mesh::start(&[("all.yaml", &objects.concat())]).await;
    let _client = mesh.client(Variant::Delta, "client").await;
    get_where(http, "static.example.com", "/", |reply| reply.backend() == "static").await;
    get_where(http, "named.example.com", "/", |reply| reply.backend() == "named").await;
    assert_eq!(name_behind(tcp, b"hello").await.unwrap(), "raw");
    let nowhere = get(http, "nowhere.example.com", "/").await.unwrap();
    assert_eq!(nowhere.status, 503, "{nowhere:?}");
    // It moves: the entry gets another address while it is used.
    let load = Load::start(Plan::get(http, "static.example.com", "/").per_second(300.0)).unwrap();
    let begun = Instant::now();
    let moved = backend("moved");
    let address = |backend: &Backend| backend.address().ip().to_string();
    let port = |backend: &Backend| format!("http: {}", backend.address().port());
    let text = objects.concat().replace(&address(&fixed), &address(&moved)).replace(&port(&fixed), &port(&moved));
    mesh.write("all.yaml", &text);
    load.first(begun, PATIENCE, |sample| sample.backend() == Some("moved")).await.unwrap();
    load.next(100, PATIENCE).await.unwrap();
    load.since(begun).await.assert_no_failures();
}

#[tokio::test]
async fn workload_entries_are_selected_into_subsets() {
    let (v1, v2) = (backend("v1"), backend("v2"));
    let address = ports::local().unwrap();
    let workload = |version: &str, backend: &Backend| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: vm-{version}, namespace: default}}\n\
             spec:\n  address: {}\n  ports: {{http: {}}}\n  labels: {{app: reviews, version: {version}}}\n",
            backend.address().ip(),
            backend.address().port()
        )
    };
    let service = entry(
        "reviews",
        "reviews.example.com",
        &format!(
            "ports: [{{number: {}, name: http, protocol: HTTP}}]\n  location: MESH_INTERNAL\n  resolution: STATIC\n  \
             workloadSelector: {{labels: {{app: reviews}}}}",
            address.port()
        ),
    );
    let host = |text: &str| {
        text.replace("host: reviews", "host: reviews.example.com").replace("[reviews]", "[reviews.example.com]")
    };
    let objects = [service, format!("---\n{}", host(SUBSETS)), workload("v1", &v1), workload("v2", &v2)];
    let mesh = Mesh::start(&[("all.yaml", &objects.concat()), ("routes.yaml", &host(&split(80, 20)))]).await;
    let _client = mesh.client(Variant::Delta, "client").await;
    let plan = Plan::get(address, "reviews.example.com", "/").timeout(Duration::from_secs(10));
    answering(plan.clone()).await;
    let load = Load::start(plan.per_second(800.0).connections(8)).unwrap();
    let begun = Instant::now();
    load.next(1000, PATIENCE).await.unwrap();
    assert_split(&load.since(begun).await.by_backend(), &[("v1", 80), ("v2", 20)], FALSE_ALARM);
    let since = marked(&load, mesh.write("routes.yaml", &host(&split(0, 100))), "0/100").await;
    // A workload leaves once nothing goes to it any more.
    mesh.write("all.yaml", &[&objects[0], &objects[1], &objects[3]].map(String::as_str).concat());
    load.next(400, PATIENCE).await.unwrap();
    assert_split(&load.since(since).await.by_backend(), &[("v1", 0), ("v2", 1)], FALSE_ALARM);
    load.since(begun).await.assert_no_failures();
}

#[tokio::test]
async fn a_client_that_is_told_of_the_proxy_reaches_services_through_it() {
    let reviews = Reviews::start();
    let proxy = ports::local().unwrap();
    let objects = [reviews.objects(), format!("---\n{SUBSETS}"), format!("---\n{}", split(80, 20))].concat();
    let mesh = Mesh::start(&[("all.yaml", &objects)]).await;
    let port = proxy.port().to_string();
    let arguments = ["--pod", "client", "--interception", "none", "--http-proxy-port", &port];
    let _client = mesh.envoy(Variant::Delta, &arguments).await;
    let service = format!("reviews:{}", reviews.address.port());
    let plan = Plan::get(proxy, &service, "/").through_proxy().timeout(Duration::from_secs(10));
    answering(plan.clone()).await;
    let load = Load::start(plan.per_second(800.0)).unwrap();
    let window = load.next(1000, PATIENCE).await.unwrap();
    window.assert_no_failures();
    assert_split(&window.by_backend(), &[("v1", 80), ("v2", 20)], FALSE_ALARM);
    let full = format!("reviews.default.svc.cluster.local:{}", reviews.address.port());
    assert_eq!(Plan::get(proxy, &full, "/").through_proxy().once().await.unwrap().status, 200);
}

#[tokio::test]
async fn what_reaches_a_workload_passes_its_own_proxy() {
    // As in a pod: the app listens on 127.0.0.1, its proxy on the pod's address, both at the same port.
    let (web, line) = (ports::local().unwrap(), ports::local().unwrap());
    let _app = Backend::start("app", web).unwrap();
    let _lines = TcpBackend::start("lines", line).unwrap();
    let pod_web = ports::pod(web.port()).unwrap();
    let pod_line = SocketAddr::new(pod_web.ip(), line.port());
    let objects = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: app, namespace: default}}\nspec:\n  selector: {{app: app}}\n  \
         ports: [{{name: http, port: {}, targetPort: web}}, {{name: tcp, port: {}}}]\n{}",
        ports::local().unwrap().port(),
        line.port(),
        pod("app", "app: app", pod_web)
    );
    let mesh = Mesh::start(&[("all.yaml", &objects)]).await;
    let ip = pod_web.ip().to_string();
    let server = mesh.envoy(Variant::Delta, &["--pod", "app", "--ip", &ip, "--interception", "none"]).await;
    get_where(pod_web, "app", "/", |reply| reply.backend() == "app").await;
    assert_eq!(name_behind(pod_line, b"hello").await.unwrap(), "lines");
    // It was the proxy: it counts.
    let plan = Plan::get(pod_web, "app", "/status/418").expect_status(418);
    let load = Load::start(plan.per_second(200.0)).unwrap();
    load.next(100, PATIENCE).await.unwrap().assert_no_failures();
    drop(load);
    let name = format!("cluster.inbound|{}||;.upstream_rq_418", web.port());
    server.stat_where(&name, PATIENCE, |count| count >= 100).await.unwrap();
}

#[tokio::test]
async fn a_port_of_undeclared_protocol_carries_http_and_whatever_else() {
    let db = Database::start("web");
    let reviews = Reviews::start();
    // One Service whose HTTP requests are routed by path to pods that speak it, and whose other bytes go to the rest.
    let port = db.address.port();
    let spec = format!(
        "http: [{{match: [{{uri: {{prefix: /web}}}}], route: [{{destination: {{host: reviews, subset: v1}}}}]}}]\n  tcp: [{{route: {}}}]",
        db.weights(80, 20)
    );
    let objects = [
        db.objects.clone(),
        format!("---\n{}", reviews.objects()),
        format!("---\n{SUBSETS}"),
        format!("---\n{}", routes("db", &spec)),
    ];
    let mesh = Mesh::start(&[("all.yaml", &objects.concat())]).await;
    let _client = mesh.client(Variant::Delta, "client").await;
    name_where(db.address, b"hello", |_| true).await;
    assert_connections_split(db.address, b"hello", &[("v1", 80), ("v2", 20)]).await;
    let reply = get(db.address, &format!("db:{port}"), "/web/echo").await.unwrap();
    assert_eq!((reply.status, &reply.json().unwrap()["backend"]), (200, &"v1".into()), "{reply:?}");
    let none = get(db.address, &format!("db:{port}"), "/other").await.unwrap();
    assert_eq!(none.status, 404, "{none:?}");
}
