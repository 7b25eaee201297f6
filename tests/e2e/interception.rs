//! Transparent interception, in network namespaces that imitate pods.
//!
//! ```text
//!   client pod: load ──REDIRECT──▶ Envoy :15001 ──▶ v1 pod: REDIRECT ──▶ Envoy :15006 ──▶ app
//!                                            └────▶ v2 pod: the same
//!   outside: services without a proxy, some of them unknown to the mesh
//! ```
//!
//! All Envoys reach the server over one Unix socket, which network namespaces do not part. Skipped, with the reason
//! printed, where the machine does not allow namespaces.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use testkit::backend::Backend;
use testkit::envoy::{Envoy, Setup};
use testkit::load::{Load, Plan, Window};
use testkit::netns::{Availability, Lab, Namespace};
use testkit::stats::{FALSE_ALARM, assert_split};
use testkit::wait;

use crate::mesh::{Mesh, PATIENCE, SUBSETS, Variant, marked, split};

/// The user that Envoy runs as, whose traffic is not intercepted.
const PROXY: u32 = 1337;
/// The port of the app on its pod.
const APP: u16 = 8080;
/// The virtual address and port of the service, which no interface has.
const SERVICE: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 96, 0, 1), 80);

/// Namespaces, apps and Envoys of one test.
struct Pods {
    client_proxy: Envoy,
    server_proxies: Vec<Envoy>,
    apps: Vec<Backend>,
    // Dropped after what runs in it.
    mesh: Mesh,
    _directory: TempDir,
    lab: Lab,
}

impl Pods {
    async fn start(variant: Variant, more: &str, arguments: &[&str]) -> Pods {
        let lab = Lab::new(&["client", "v1", "v2", "outside"]).unwrap();
        // A pod's only route leads to the switch, as virtual addresses have to leave by some interface.
        for name in ["client", "v1", "v2"] {
            let routed = lab.namespace(name).command("ip").args(["route", "add", "default", "dev", "eth0"]).output();
            let routed = routed.unwrap();
            assert!(routed.status.success(), "{routed:?}");
        }
        let apps = ["v1", "v2"].map(|name| {
            let place = lab.namespace(name);
            Backend::start_in(Some(place), name, (place.address(), APP).into()).unwrap()
        });
        let objects = objects(&lab);
        let directory = TempDir::with_prefix("pointsman-socket-").unwrap();
        let socket = directory.path().join("xds.sock");
        let listen = format!("unix:{}", socket.display());
        let arguments = [&["--xds-listen", &*listen], arguments].concat();
        let files = [
            ("objects.yaml", &*objects),
            ("rule.yaml", SUBSETS),
            ("routes.yaml", &*split(80, 20)),
            ("more.yaml", more),
        ];
        let mesh = Mesh::start_with(&files, &arguments).await;
        // The Envoys are of another user.
        let open = |path: &std::path::Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap()
        };
        open(directory.path(), 0o755);
        open(&socket, 0o666);
        let client_proxy = proxy(&mesh, variant, &listen, lab.namespace("client"), "client").await;
        let mut server_proxies = Vec::new();
        for name in ["v1", "v2"] {
            server_proxies.push(proxy(&mesh, variant, &listen, lab.namespace(name), &format!("reviews-{name}")).await);
        }
        Pods { client_proxy, server_proxies, apps: apps.into(), mesh, _directory: directory, lab }
    }

    /// Requests from the client pod, as any user but the proxy's.
    fn load(&self, plan: Plan) -> Load {
        Load::start_in(Some(self.lab.namespace("client")), plan.timeout(Duration::from_secs(10))).unwrap()
    }

    /// So many requests from the client pod, none of which may fail.
    async fn requests(&self, plan: Plan, count: usize) -> Window {
        let window = self.load(plan).next(count, PATIENCE).await.unwrap();
        window.assert_no_failures();
        window
    }

    /// Waits until a request from the client pod is answered as the plan expects.
    async fn answering(&self, plan: Plan) {
        wait::until("an answer in the client pod", PATIENCE, async || {
            match self.load(plan.clone().connections(1)).next(1, PATIENCE).await {
                Ok(window) if window.failures().next().is_none() => Ok(()),
                Ok(window) => Err(window.to_string()),
                Err(late) => Err(late.to_string()),
            }
        })
        .await
        .unwrap();
    }
}

/// Puts an Envoy that intercepts into a pod.
async fn proxy(mesh: &Mesh, variant: Variant, xds: &str, place: &Namespace, pod: &str) -> Envoy {
    let ip = place.address().to_string();
    let mut arguments = vec!["--pod", pod, "--ip", &ip, "--interception", "redirect", "--xds", xds];
    if variant == Variant::StateOfTheWorld {
        arguments.push("--state-of-the-world");
    }
    let mut bootstrap = mesh.bootstrap(&arguments);
    // The test has to reach the admin interface from outside of the namespace: by a Unix socket of the harness.
    bootstrap.as_object_mut().unwrap().remove("admin");
    let envoy = Setup::new(bootstrap).in_namespace(place).as_user(PROXY).start().await.unwrap();
    place.intercept(PROXY).unwrap();
    envoy
}

/// A Service with a virtual address, and the Pods behind it.
fn objects(lab: &Lab) -> String {
    let (address, port) = SERVICE;
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: reviews, namespace: default}}\nspec:\n  clusterIP: {address}\n  \
         selector: {{app: reviews}}\n  ports: [{{name: http, port: {port}, targetPort: {APP}}}]\n"
    );
    for name in ["v1", "v2"] {
        text += &format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: reviews-{name}, namespace: default, \
             labels: {{app: reviews, version: {name}}}}}\nspec: {{containers: [{{name: app}}]}}\n\
             status: {{podIP: {}, phase: Running}}\n",
            lab.namespace(name).address()
        );
    }
    text
}

async fn intercepted_traffic_is_split_between_pods(variant: Variant) {
    let pods = Pods::start(variant, "", &[]).await;
    let service = Plan::get(SERVICE.into(), "reviews", "/");
    pods.answering(service.clone()).await;
    // By the virtual address, through 15001 and 15006.
    let load = pods.load(service.clone().per_second(600.0));
    let begun = Instant::now();
    for (v1, v2) in [(80, 20), (0, 100), (50, 50)] {
        let since = marked(&load, pods.mesh.write("routes.yaml", &split(v1, v2)), &format!("{v1}/{v2}")).await;
        load.next(600, PATIENCE).await.unwrap();
        assert_split(&load.since(since).await.by_backend(), &[("v1", v1), ("v2", v2)], FALSE_ALARM);
    }
    let all = load.since(begun).await;
    all.assert_no_failures();
    drop(load);
    // Every request has passed both proxies.
    let sent = pods.client_proxy.stats().await.unwrap();
    let sent: u64 = sent
        .iter()
        .filter(|(name, _)| name.starts_with("cluster.outbound|80|v") && name.ends_with(".upstream_rq_200"))
        .map(|s| s.1)
        .sum();
    let mut taken = 0;
    for proxy in &pods.server_proxies {
        taken += proxy.stat(&format!("cluster.inbound|{APP}||;.upstream_rq_200")).await.unwrap();
    }
    let answered: u64 = pods.apps.iter().map(Backend::requests).sum();
    assert!(
        sent >= all.len() as u64 && taken >= all.len() as u64 && answered >= all.len() as u64,
        "{} requests, of which {sent} left by the client's proxy, {taken} came by the servers' proxies, {answered} reached the apps",
        all.len()
    );
}

#[tokio::test]
async fn intercepted_traffic_is_split_between_pods_by_delta() {
    if Availability::or_skip("intercepted traffic is split between pods, by delta") {
        intercepted_traffic_is_split_between_pods(Variant::Delta).await;
    }
}

#[tokio::test]
async fn intercepted_traffic_is_split_between_pods_by_state_of_the_world() {
    if Availability::or_skip("intercepted traffic is split between pods, by state of the world") {
        intercepted_traffic_is_split_between_pods(Variant::StateOfTheWorld).await;
    }
}

#[tokio::test]
async fn what_the_mesh_does_not_know_passes_through_to_where_it_was_going() {
    if !Availability::or_skip("what the mesh does not know passes through to where it was going") {
        return;
    }
    let entry = "\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: known, namespace: default}
spec:
  hosts: [known.example.com]
  ports: [{number: 9090, name: http, protocol: HTTP}]
  resolution: NONE
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: known, namespace: default}
spec:
  hosts: [known.example.com]
  http: [{headers: {response: {set: {x-mark: known}}}, route: [{destination: {host: known.example.com}}]}]
";
    let pods = Pods::start(Variant::Delta, entry, &[]).await;
    let (outside, v1) = (pods.lab.namespace("outside"), pods.lab.namespace("v1"));
    let stranger = Backend::start_in(Some(outside), "stranger", (outside.address(), 9999).into()).unwrap();
    let known = Backend::start_in(Some(outside), "known", (outside.address(), 9090).into()).unwrap();
    pods.answering(Plan::get(SERVICE.into(), "reviews", "/")).await;
    // An address and port that nothing is known of, and the same port of the service at another address.
    for (address, name) in [(stranger.address(), "stranger"), (known.address(), "known")] {
        let window = pods.requests(Plan::get(address, "stranger.example.org", "/"), 20).await;
        assert_eq!(window.by_backend(), [(name.to_owned(), 20)].into(), "{address}");
    }
    pods.client_proxy.stat_where("cluster.PassthroughCluster;.upstream_cx_total", PATIENCE, |n| n > 0).await.unwrap();
    // A host of a ServiceEntry that resolves nothing goes to the address that the client chose, by its route.
    let window = pods.requests(Plan::get(known.address(), "known.example.com:9090", "/"), 20).await;
    assert_eq!(window.by_backend(), [("known".to_owned(), 20)].into());
    assert!(window.samples().iter().all(|sample| sample.mark() == Some("known")), "{window}");
    // A pod by its own address: nobody's route, but its proxy takes it in.
    let before = pods.server_proxies[0].stat(&format!("cluster.inbound|{APP}||;.upstream_rq_200")).await.unwrap();
    let window = pods.requests(Plan::get((v1.address(), APP).into(), "whatever", "/"), 20).await;
    assert_eq!(window.by_backend(), [("v1".to_owned(), 20)].into());
    let name = format!("cluster.inbound|{APP}||;.upstream_rq_200");
    pods.server_proxies[0].stat_where(&name, PATIENCE, |count| count >= before + 20).await.unwrap();
    // A client without a proxy reaches the pod too, and a port that no service declares passes to the app.
    let side_door = Backend::start_in(Some(v1), "side-door", (v1.address(), 8081).into()).unwrap();
    for (address, name) in [(SocketAddr::from((v1.address(), APP)), "v1"), (side_door.address(), "side-door")] {
        let load = Load::start_in(Some(outside), Plan::get(address, "whatever", "/")).unwrap();
        let window = load.next(20, PATIENCE).await.unwrap();
        window.assert_no_failures();
        assert_eq!(window.by_backend(), [(name.to_owned(), 20)].into(), "{address}");
    }
}

#[tokio::test]
async fn what_the_mesh_does_not_know_is_refused_when_only_the_registry_counts() {
    if !Availability::or_skip("what the mesh does not know is refused when only the registry counts") {
        return;
    }
    let pods = Pods::start(Variant::Delta, "", &["--outbound-policy", "registry-only"]).await;
    let outside = pods.lab.namespace("outside");
    let stranger = Backend::start_in(Some(outside), "stranger", (outside.address(), 9999).into()).unwrap();
    pods.answering(Plan::get(SERVICE.into(), "reviews", "/")).await;
    let window = pods.load(Plan::get(stranger.address(), "stranger", "/")).next(10, PATIENCE).await.unwrap();
    assert_eq!((window.failures().count(), stranger.requests()), (10, 0), "{window}");
    pods.requests(Plan::get(SERVICE.into(), "reviews", "/"), 20).await;
}
