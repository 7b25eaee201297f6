//! What clients refer to is taken from the workloads only when no client can use it any more, under load.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Instant;

use serde_json::Value;
use testkit::backend::Backend;
use testkit::envoy::Envoy;
use testkit::load::{Load, Plan};
use testkit::{ports, wait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::mesh::{Mesh, PATIENCE, Variant, answering, pod};

const CLIENT: &str = "sidecar~127.0.0.1~client.elsewhere~elsewhere.svc.cluster.local";

/// A way to the control plane whose direction to the client can be shut: what is published does not arrive, and the client
/// goes on with what it has.
struct Gate {
    address: SocketAddr,
    is_open: watch::Sender<bool>,
}

impl Gate {
    async fn before(server: SocketAddr) -> Gate {
        let address = ports::local().unwrap();
        let listener = TcpListener::bind(address).await.unwrap();
        let is_open = watch::Sender::new(true);
        let seen = is_open.subscribe();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, server, seen.clone()));
            }
        });
        Gate { address, is_open }
    }

    fn shut(&self) {
        self.is_open.send_replace(false);
    }

    fn open(&self) {
        self.is_open.send_replace(true);
    }
}

async fn carry(client: TcpStream, server: SocketAddr, mut is_open: watch::Receiver<bool>) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let there = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
        if is_open.wait_for(|is_open| *is_open).await.is_err() || to_client.write_all(&buffer[..count]).await.is_err() {
            break;
        }
    }
    there.abort();
}

/// A workload that has two ports, `old` and `new`, with an app at each; its proxy; and the proxy of a client of another
/// namespace, which alone sees the services: so nobody else opens a port for them on this machine.
struct Pair {
    mesh: Mesh,
    old: Backend,
    new: Backend,
    /// The workload's address.
    pod: SocketAddr,
    server: Envoy,
    _client: Envoy,
    gate: Gate,
}

/// Two ports of a workload: of the app on 127.0.0.1, as its proxy has them on the pod's address, too.
struct Ports {
    old: SocketAddr,
    new: SocketAddr,
    pod: SocketAddr,
}

impl Ports {
    fn reserve() -> Ports {
        let (old, new) = (ports::local().unwrap(), ports::local().unwrap());
        Ports { old, new, pod: ports::pod(old.port()).unwrap() }
    }

    /// The pod, and a service with these ports.
    fn service(&self, ports: &[(u16, SocketAddr)]) -> String {
        let list: Vec<_> = ports
            .iter()
            .map(|(port, target)| format!("{{name: http-{port}, port: {port}, targetPort: {}}}", target.port()))
            .collect();
        format!("{}{}", service("reviews", &list.join(", ")), pod("reviews-1", "app: reviews", self.pod))
    }
}

fn service(name: &str, ports: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: default\n  \
         annotations: {{networking.istio.io/exportTo: elsewhere}}\nspec:\n  selector: {{app: {name}}}\n  ports: [{ports}]\n"
    )
}

impl Pair {
    async fn start(variant: Variant, ports: &Ports, objects: &str) -> Pair {
        let old = Backend::start("old", ports.old).unwrap();
        let new = Backend::start("new", ports.new).unwrap();
        let mesh = Mesh::start(&[("objects.yaml", objects)]).await;
        let gate = Gate::before(mesh.xds).await;
        let ip = ports.pod.ip().to_string();
        let server = mesh.envoy(variant, &["--pod", "reviews-1", "--ip", &ip, "--interception", "none"]).await;
        let xds = gate.address.to_string();
        let arguments = ["--pod", "client", "-n", "elsewhere", "--interception", "none", "--xds", &xds];
        let client = mesh.envoy(variant, &arguments).await;
        Pair { mesh, old, new, pod: ports.pod, server, _client: client, gate }
    }

    /// Whether the workload's proxy listens on this port of the pod.
    async fn listens(&self, port: u16) -> bool {
        let wanted = SocketAddr::new(self.pod.ip(), port);
        self.server.listeners().await.unwrap().values().any(|address| *address == wanted)
    }

    async fn until_it_listens(&self, port: u16, wanted: bool) {
        let what = format!("the listener on port {port} to be {}", if wanted { "there" } else { "gone" });
        let ask = async || if self.listens(port).await == wanted { Ok(()) } else { Err("not yet") };
        wait::until(&what, PATIENCE, ask).await.unwrap();
    }

    fn status(&self, what: &[&str]) -> String {
        let admin = self.mesh.admin.to_string();
        let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
        let output = command.arg("status").args(what).args(["--admin", &admin]).output().unwrap();
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
    }

    /// Whether the end of a hold has been published.
    async fn is_released(&self) -> bool {
        let changes = self.mesh.get("/api/v1/changes").await;
        let newest = &changes["changes"][0]["objects"][0];
        newest["change"] == "released"
    }

    /// Writes `after`, of which the client hears only later, and which takes the old port from the workload.
    async fn take_the_old_port_away(&self, plan: Plan, after: &str) {
        let (old, new) = (self.old.address().port(), self.new.address().port());
        answering(plan.clone()).await;
        self.mesh.synced(2).await;
        let load = Load::start(plan.per_second(400.0)).unwrap();
        load.next(200, PATIENCE).await.unwrap().assert_no_failures();

        self.gate.shut();
        let begun = Instant::now();
        self.mesh.write("objects.yaml", after);
        let server = format!("sidecar~{}~reviews-1.default~default.svc.cluster.local", self.pod.ip());
        let path = format!("/api/v1/nodes/{server}");
        // The workload's proxy has all that was published, which is all but the end of the old port.
        let is_new = |generation: &Value| generation.as_u64().is_some_and(|generation| generation >= 2);
        self.mesh.get_where("/api/v1/changes", "the change", |all| is_new(&all["changes"][0]["generation"])).await;
        let has_it = |node: &Value| {
            let node = &node["connections"][0];
            node["sync"] == "synced" && is_new(&node["accepted_generation"])
        };
        self.mesh.get_where(&path, "the workload's proxy to be in step", has_it).await;
        self.until_it_listens(new, true).await;
        // Longer than requests may be under way: the port stays because of the client.
        let window = load.next(1600, PATIENCE).await.unwrap();
        window.assert_no_failures();
        let last = window.samples().last().unwrap();
        assert_eq!(last.backend(), Some("old"), "a closed port would have lost this request");
        assert!(begun.elapsed().as_secs_f64() > 3.0 && self.listens(old).await && !self.is_released().await);
        let why = format!(
            "waiting: inbound port {old} of default/reviews may still be used by 1 node ({CLIENT}): it has not"
        );
        for text in [self.status(&["node", &server]), self.status(&["service/default/reviews"])] {
            assert!(text.contains(&why), "{text}");
        }
        assert_eq!(self.mesh.metric("pointsman_waits{reason=\"still_used\"}").await, 1);

        self.gate.open();
        let is_new = |sample: &testkit::load::Sample| sample.backend() == Some("new");
        load.first(Instant::now(), PATIENCE, is_new).await.unwrap();
        assert!(self.listens(old).await, "requests may be under way");
        self.until_it_listens(old, false).await;
        assert!(self.is_released().await);
        load.next(400, PATIENCE).await.unwrap();
        let all = load.since(begun).await;
        all.assert_no_failures();
        assert_eq!(all.by_backend().keys().collect::<Vec<_>>(), ["new", "old"]);
        assert_eq!(self.mesh.metric("pointsman_waits_expired{reason=\"still_used\"}").await, 0);
        assert!(!self.status(&["service/default/reviews"]).contains("waiting"));
    }
}

async fn a_service_is_led_to_another_port_and_no_request_fails(variant: Variant) {
    let ports = Ports::reserve();
    let address = ports::local().unwrap();
    let pair = Pair::start(variant, &ports, &ports.service(&[(address.port(), ports.old)])).await;
    let plan = Plan::get(address, "reviews.default", "/");
    pair.take_the_old_port_away(plan, &ports.service(&[(address.port(), ports.new)])).await;
}

#[tokio::test]
async fn a_service_is_led_to_another_port_and_no_request_fails_by_delta() {
    a_service_is_led_to_another_port_and_no_request_fails(Variant::Delta).await;
}

#[tokio::test]
async fn a_service_is_led_to_another_port_and_no_request_fails_by_state_of_the_world() {
    a_service_is_led_to_another_port_and_no_request_fails(Variant::StateOfTheWorld).await;
}

/// Requests are for another service, whose routes lead to one port of this one, and then to another.
#[tokio::test]
async fn a_port_is_removed_together_with_the_routes_to_it_and_no_request_fails() {
    let ports = Ports::reserve();
    let address = ports::local().unwrap();
    let (first, second) = (ports::local().unwrap().port(), ports::local().unwrap().port());
    let front = service("front", &format!("{{name: http, port: {}}}", address.port()));
    let routes = |port: u16| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: front, namespace: default}}\n\
             spec:\n  hosts: [front]\n  exportTo: [elsewhere]\n  \
             http: [{{route: [{{destination: {{host: reviews, port: {{number: {port}}}}}}}]}}]\n"
        )
    };
    let before = ports.service(&[(first, ports.old), (second, ports.new)]) + &front + &routes(first);
    let after = ports.service(&[(second, ports.new)]) + &front + &routes(second);
    let pair = Pair::start(Variant::Delta, &ports, &before).await;
    pair.take_the_old_port_away(Plan::get(address, "front.default", "/"), &after).await;
}
