//! Virtual hosts as resources of their own: what they cost, and how they come and go in a real Envoy.

use std::time::{Duration, Instant};

use prost::Message;
use serde_json::json;
use testkit::backend::Backend;
use testkit::load::{Load, Plan};
use testkit::stats::{FALSE_ALARM, assert_split};
use testkit::wire::{Delta, ResourceType, Wire, WireError, node};
use testkit::{ports, wait};

use crate::mesh::{Mesh, PATIENCE, Reviews, SUBSETS, Variant, answering, marked, pod, split};
use crate::raw::{get, get_where};

/// A mesh of so many services with one address each, all on port 80; and a VirtualService for each but the first.
fn services(count: usize) -> String {
    let mut text = String::new();
    for number in 0..count {
        text += &format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: service-{number:05}, namespace: default}}\n\
             spec: {{clusterIP: 10.{}.{}.{}, ports: [{{name: http, port: 80}}]}}\n",
            number / 65536,
            number / 256 % 256,
            number % 256
        );
        if number > 0 {
            text += &weights(number, 80);
        }
    }
    text
}

fn weights(number: usize, first: u32) -> String {
    let host = format!("service-{number:05}");
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {host}, namespace: default}}\n\
         spec:\n  hosts: [{host}]\n  http:\n    - route:\n        - {{destination: {{host: {host}}}, weight: {first}}}\n        \
         - {{destination: {{host: service-00000}}, weight: {}}}\n",
        100 - first
    )
}

/// The next response, acknowledged: the resources' names, and its bytes.
async fn take(stream: &mut Delta, within: Duration) -> Result<(Vec<String>, usize), WireError> {
    let response = stream.next(within).await?;
    stream.ack(&response).await;
    let bytes = response.encoded_len();
    Ok((response.resources.into_iter().map(|resource| resource.name).collect(), bytes))
}

/// A stream of a client that says it is Envoy, once it has been sent everything.
async fn envoys_stream(mesh: &Mesh) -> Delta {
    let mut who = node("sidecar~127.0.0.9~raw.default~default.svc.cluster.local", "raw");
    who.user_agent_name = "envoy".to_owned();
    let mut stream = Wire::connect(format!("http://{}", mesh.xds)).await.unwrap().delta(who);
    for (kind, names) in [
        (ResourceType::Cluster, &[][..]),
        (ResourceType::Listener, &[]),
        (ResourceType::Route, &["80"]),
        (ResourceType::VirtualHost, &[]),
    ] {
        stream.subscribe(kind, names).await;
        take(&mut stream, PATIENCE).await.unwrap();
    }
    stream
}

#[tokio::test]
async fn a_weight_change_sends_one_virtual_host_however_many_services_there_are() {
    let mut costs = Vec::new();
    for count in [100, 1_000, 5_000] {
        let all = services(count);
        let mesh = Mesh::start(&[("services.yaml", &all)]).await;
        let mut stream = envoys_stream(&mesh).await;
        assert_eq!(stream.held(ResourceType::VirtualHost).len(), count + 1);
        mesh.write("services.yaml", &all.replace(&weights(42, 80), &weights(42, 30)));
        let (names, bytes) = take(&mut stream, PATIENCE).await.unwrap();
        assert_eq!(names, ["80/service-00042.default.svc.cluster.local:80"]);
        stream.exchange().silence(Duration::from_millis(300)).await.unwrap();
        costs.push(bytes);
    }
    assert!(costs.iter().all(|bytes| *bytes == costs[0] && *bytes <= 1_500), "bytes by size of the mesh: {costs:?}");
}

/// A Service with a label for its pods.
fn service(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\nspec:\n  \
         selector: {{app: {name}}}\n  ports: [{{name: http, port: {port}, targetPort: web}}]\n"
    )
}

fn entry(name: &str, hosts: &str, port: u16, backend: &Backend) -> String {
    let address = backend.address();
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}, namespace: default}}\n\
         spec:\n  hosts: [{hosts}]\n  resolution: STATIC\n  location: MESH_INTERNAL\n  \
         ports: [{{number: {port}, name: http, protocol: HTTP, targetPort: {}}}]\n  endpoints: [{{address: {}}}]\n",
        address.port(),
        address.ip()
    )
}

#[tokio::test]
async fn a_host_that_goes_is_gone_and_its_neighbours_stay() {
    let reviews = Reviews::start();
    let objects = reviews.objects();
    let other = Backend::start("other", ports::pod(ports::local().unwrap().port()).unwrap()).unwrap();
    let port = reviews.address.port();
    let other_entry = entry("other", "other.test", port, &other);
    let mesh = Mesh::start(&[("reviews.yaml", &objects), ("other.yaml", &other_entry)]).await;
    let _client = mesh.client(Variant::Delta, "client").await;
    get_where(reviews.address, "other.test", "/", |reply| reply.backend() == "other").await;
    answering(reviews.plan()).await;
    let load = Load::start(reviews.plan().per_second(500.0)).unwrap();
    let begun = Instant::now();
    mesh.remove("other.yaml");
    // What takes the rest without interception.
    get_where(reviews.address, "other.test", "/", |reply| reply.status == 502).await;
    mesh.write("other.yaml", &other_entry);
    get_where(reviews.address, "other.test", "/", |reply| reply.backend() == "other").await;
    mesh.synced(1).await;
    load.since(begun).await.assert_no_failures();
}

#[tokio::test]
async fn a_domain_goes_from_one_host_to_another_under_load_and_no_request_fails() {
    let port = ports::local().unwrap();
    let backend = |name| Backend::start(name, ports::pod(ports::local().unwrap().port()).unwrap()).unwrap();
    let (first, second) = (backend("first"), backend("second"));
    // Both want the domain of one address; the one whose name comes first has it.
    let both = |name: &str, backend: &Backend| {
        entry(name, &format!("{name}.test"), port.port(), backend)
            .replace("spec:\n", "spec:\n  addresses: [240.1.2.3]\n")
    };
    let mesh = Mesh::start(&[("second.yaml", &both("second", &second))]).await;
    let _client = mesh.client(Variant::Delta, "client").await;
    let shared = Plan::get(port, "240.1.2.3", "/").timeout(Duration::from_secs(10));
    answering(shared.clone()).await;
    let load = Load::start(shared.per_second(800.0).connections(8)).unwrap();
    let begun = Instant::now();
    for _ in 0..5 {
        mesh.write("first.yaml", &both("first", &first));
        get_where(port, "240.1.2.3", "/", |reply| reply.backend() == "first").await;
        mesh.remove("first.yaml");
        get_where(port, "240.1.2.3", "/", |reply| reply.backend() == "second").await;
    }
    load.since(begun).await.assert_no_failures();
}

#[tokio::test]
async fn a_new_port_serves_from_its_first_connection() {
    let reviews = Reviews::start();
    let objects = reviews.objects();
    let mesh = Mesh::start(&[("reviews.yaml", &objects)]).await;
    let _client = mesh.client(Variant::Delta, "client").await;
    answering(reviews.plan()).await;
    let ratings = Backend::start("ratings", ports::pod(ports::local().unwrap().port()).unwrap()).unwrap();
    for round in 0..5 {
        let address = ports::local().unwrap();
        let name = format!("ratings-{round}");
        let text = service(&name, address.port()) + &pod(&name, &format!("app: {name}"), ratings.address());
        mesh.write(&format!("{name}.yaml"), &text);
        // Until the listener is open, connections are refused; the first that is not must be answered well.
        let reply = wait::until("the listener to be open", PATIENCE, async || get(address, &name, "/").await);
        let reply = reply.await.unwrap();
        assert_eq!((reply.status, reply.backend()), (200, "ratings"), "{reply:?}");
    }
}

/// The server comes back with the other way to deliver virtual hosts: Envoy follows, and changes go on.
#[tokio::test]
async fn a_server_that_delivers_virtual_hosts_in_the_other_way_is_followed() {
    let reviews = Reviews::start();
    let objects = reviews.objects();
    let files = [("reviews.yaml", &*objects), ("rule.yaml", SUBSETS), ("routes.yaml", &split(80, 20))];
    let mut mesh = Mesh::start(&files).await;
    let _client = mesh.client(Variant::Delta, "client").await;
    answering(reviews.plan()).await;
    let load = Load::start(reviews.plan().per_second(1500.0).connections(8)).unwrap();
    for (form, weights) in [("inline", (50, 50)), ("separate", (10, 90)), ("inline", (90, 10))] {
        mesh.server.kill().await.unwrap();
        mesh.restart_with(&["--virtual-hosts", form]).await;
        mesh.synced(1).await;
        let written = mesh.write("routes.yaml", &split(weights.0, weights.1));
        let since = marked(&load, written, &format!("{}/{}", weights.0, weights.1)).await;
        load.next(400, PATIENCE).await.unwrap();
        let window = load.window(since, Instant::now()).await;
        window.assert_no_failures();
        assert_split(&window.by_backend(), &[("v1", weights.0), ("v2", weights.1)], FALSE_ALARM);
    }
}

/// A listener that asks for virtual hosts when a request needs one, and its route configuration.
fn on_demand(address: std::net::SocketAddr) -> [serde_json::Value; 2] {
    let ads = json!({ "ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s" });
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "on-demand",
        "rds": { "config_source": ads, "route_config_name": "lazy" },
        "http_filters": [
            { "name": "envoy.filters.http.on_demand", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.on_demand.v3.OnDemand" } },
            { "name": "envoy.filters.http.router", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" } },
        ],
    });
    [
        json!({
            "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
            "name": "on-demand",
            "address": { "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } },
            "filter_chains": [{ "filters": [{
                "name": "envoy.filters.network.http_connection_manager", "typed_config": manager,
            }] }],
        }),
        json!({
            "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            "name": "lazy",
            "vhds": { "config_source": ads },
        }),
    ]
}

fn lazy_host(name: &str, domain: &str) -> serde_json::Value {
    let name = format!("lazy/{name}");
    let body = format!("by {name}");
    json!({
        "@type": "type.googleapis.com/envoy.service.discovery.v3.Resource",
        "name": name,
        "resource": {
            "@type": "type.googleapis.com/envoy.config.route.v3.VirtualHost",
            "name": name,
            "domains": [domain],
            "routes": [{ "match": { "prefix": "/" }, "direct_response": {
                "status": 200, "body": { "inline_string": body } } }],
        },
    })
}

fn written(resources: &[serde_json::Value]) -> String {
    json!({
        "apiVersion": "networking.pointsman.dev/v1alpha1",
        "kind": "XdsResource",
        "metadata": { "name": "lazy", "namespace": "default" },
        "spec": { "resources": resources },
    })
    .to_string()
}

#[tokio::test]
async fn a_request_for_a_host_that_does_not_exist_is_answered_at_once_and_served_when_it_does() {
    let address = ports::local().unwrap();
    let [listener, routes] = on_demand(address);
    let known = lazy_host("a", "a.test");
    let before = written(&[listener.clone(), routes.clone(), known.clone()]);
    let mesh = Mesh::start(&[("lazy.json", &before)]).await;
    let _client = mesh.client(Variant::Delta, "client").await;
    let reply = get_where(address, "a.test", "/", |reply| reply.status == 200).await;
    assert_eq!(reply.body(), "by lazy/a");
    // Envoy keeps the request back until the server has said that there is no such host.
    let begun = Instant::now();
    let reply = get(address, "b.test", "/").await.unwrap();
    assert_eq!(reply.status, 404, "{reply:?}");
    assert!(begun.elapsed() < PATIENCE / 2, "{:?}", begun.elapsed());
    mesh.write("lazy.json", &written(&[listener, routes, known, lazy_host("b", "*.test")]));
    let reply = get_where(address, "b.test", "/", |reply| reply.status == 200).await;
    assert_eq!(reply.body(), "by lazy/b");
    assert_eq!(get(address, "a.test", "/").await.unwrap().body(), "by lazy/a");
}
