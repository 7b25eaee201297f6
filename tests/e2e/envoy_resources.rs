//! Resources that are written down as they are (`XdsResource`) in real Envoys: runtime values, filter configurations,
//! scoped routes, clusters on demand, `xdstp` names, TTLs.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::envoy::{Envoy, Setup};
use testkit::load::{Plan, Reply};
use testkit::{ports, wait};

use crate::mesh::{Mesh, PATIENCE, Variant};

const MANAGER: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

fn ads() -> Value {
    json!({ "ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s" })
}

/// An object with these resources, as a file.
fn object(name: &str, spec: Value) -> String {
    let object = json!({
        "apiVersion": "networking.pointsman.dev/v1alpha1",
        "kind": "XdsResource",
        "metadata": { "name": name, "namespace": "default" },
        "spec": spec,
    });
    object.to_string()
}

fn resources(name: &str, resources: &[Value]) -> String {
    object(name, json!({ "resources": resources }))
}

/// A resource with its type.
fn of(message: &str, mut fields: Value) -> Value {
    fields["@type"] = format!("type.googleapis.com/{message}").into();
    fields
}

/// A listener with an HTTP connection manager.
fn listener(name: &str, address: SocketAddr, mut manager: Value) -> Value {
    manager["@type"] = MANAGER.into();
    manager["stat_prefix"] = name.into();
    let filters = manager["http_filters"].as_array().cloned().unwrap_or_default();
    manager["http_filters"] = filters
        .into_iter()
        .chain([json!({
            "name": "envoy.filters.http.router",
            "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
        })])
        .collect();
    of(
        "envoy.config.listener.v3.Listener",
        json!({
            "name": name,
            "address": { "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } },
            "filter_chains": [{ "filters": [{
                "name": "envoy.filters.network.http_connection_manager", "typed_config": manager,
            }] }],
        }),
    )
}

/// A route configuration that answers everything with this text.
fn answering(name: &str, text: &str) -> Value {
    json!({ "name": name, "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [{
        "match": { "prefix": "/" },
        "direct_response": { "status": 200, "body": { "inline_string": text } },
    }] }] })
}

fn routes(name: &str, text: &str) -> Value {
    of("envoy.config.route.v3.RouteConfiguration", answering(name, text))
}

async fn reply_where(plan: &Plan, wanted: impl Fn(&Reply) -> bool) -> Reply {
    wait::until("the wanted answer", PATIENCE, async || match plan.once().await {
        Ok(reply) if wanted(&reply) => Ok(reply),
        Ok(reply) => Err(format!("{reply:?}")),
        Err(error) => Err(format!("{error:#}")),
    })
    .await
    .unwrap()
}

/// A sidecar's bootstrap of this variant.
fn bootstrap(mesh: &Mesh, variant: Variant) -> Value {
    let mut all = vec!["--pod", "client", "--interception", "none"];
    if variant == Variant::StateOfTheWorld {
        all.push("--state-of-the-world");
    }
    mesh.bootstrap(&all)
}

/// With a layer of runtime values from the control plane, above the static one.
fn with_runtime(mut bootstrap: Value) -> Value {
    let layer = json!({ "name": "lab", "rtds_layer": { "name": "lab", "rtds_config": ads() } });
    bootstrap["layered_runtime"]["layers"].as_array_mut().unwrap().insert(1, layer);
    bootstrap
}

/// What a runtime key is now; empty when nothing sets it.
async fn runtime(envoy: &Envoy, key: &str) -> String {
    let all = envoy.get_json("/runtime").await.unwrap();
    all["entries"][key]["final_value"].as_str().unwrap_or_default().to_owned()
}

async fn runtime_is(envoy: &Envoy, key: &str, wanted: &str) {
    wait::until(&format!("{key} to be {wanted:?}"), PATIENCE, async || match runtime(envoy, key).await {
        value if value == wanted => Ok(()),
        value => Err(value),
    })
    .await
    .unwrap();
}

fn layer(value: u32) -> Value {
    of("envoy.service.runtime.v3.Runtime", json!({ "name": "lab", "layer": { "lab.answer": value } }))
}

async fn runtime_values_follow_the_object(variant: Variant) {
    let mesh = Mesh::start(&[("lab.json", &resources("lab", &[layer(41)]))]).await;
    let envoy = Setup::new(with_runtime(bootstrap(&mesh, variant))).start().await.unwrap();
    runtime_is(&envoy, "lab.answer", "41").await;
    mesh.write("lab.json", &resources("lab", &[layer(42)]));
    runtime_is(&envoy, "lab.answer", "42").await;
    mesh.synced(1).await;
    mesh.assert_no_problems().await;
}

#[tokio::test]
async fn runtime_values_follow_the_object_by_delta() {
    runtime_values_follow_the_object(Variant::Delta).await;
}

#[tokio::test]
async fn runtime_values_follow_the_object_by_state_of_the_world() {
    runtime_values_follow_the_object(Variant::StateOfTheWorld).await;
}

async fn a_value_with_a_ttl_ends_with_the_server_and_not_before(variant: Variant) {
    let spec = |ttl: &str| json!({ "ttl": ttl, "resources": [layer(41)] });
    let mut mesh = Mesh::start(&[("lab.json", &object("lab", spec("3s")))]).await;
    let mut bootstrap = with_runtime(bootstrap(&mesh, variant));
    bootstrap["node"]["client_features"] = json!(["xds.config.supports-resource-ttl", "xds.config.resource-in-sotw"]);
    let envoy = Setup::new(bootstrap).start().await.unwrap();
    runtime_is(&envoy, "lab.answer", "41").await;
    // Two and a half TTLs with nothing but heartbeats.
    let until = Instant::now() + Duration::from_millis(7500);
    while Instant::now() < until {
        assert_eq!(runtime(&envoy, "lab.answer").await, "41");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(envoy.stat("runtime.load_error").await.unwrap(), 0);
    mesh.server.kill().await.unwrap();
    runtime_is(&envoy, "lab.answer", "").await;
    mesh.restart().await;
    runtime_is(&envoy, "lab.answer", "41").await;
    // The TTL alone is changed away: now it stays.
    mesh.write("lab.json", &resources("lab", &[layer(41)]));
    let path = "/api/v1/nodes/sidecar~127.0.0.1~client.default~default.svc.cluster.local/config?type=rtds";
    mesh.get_where(path, "the resource to be accepted", |config| config["resources"][0]["state"] == "accepted").await;
    mesh.synced(1).await;
}

#[tokio::test]
async fn a_value_with_a_ttl_ends_with_the_server_and_not_before_by_delta() {
    a_value_with_a_ttl_ends_with_the_server_and_not_before(Variant::Delta).await;
}

#[tokio::test]
async fn a_value_with_a_ttl_ends_with_the_server_and_not_before_by_state_of_the_world() {
    a_value_with_a_ttl_ends_with_the_server_and_not_before(Variant::StateOfTheWorld).await;
}

/// A filter that marks responses.
fn mark(value: &str) -> Value {
    of(
        "envoy.config.core.v3.TypedExtensionConfig",
        json!({ "name": "mark", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
        "mutations": { "response_mutations": [
            { "append": { "header": { "key": "x-mark", "value": value }, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD" } },
        ] },
    } }),
    )
}

async fn a_filter_is_configured_by_the_object_and_outlives_it(variant: Variant) {
    let address = ports::local().unwrap();
    let filter = json!({ "name": "mark", "config_discovery": {
        "config_source": ads(),
        "type_urls": ["type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation"],
    } });
    let manager = json!({ "route_config": answering("lab", "ok"), "http_filters": [filter] });
    let listener = resources("listener", &[listener("lab", address, manager)]);
    let mesh = Mesh::start(&[("listener.json", &listener), ("mark.json", &resources("mark", &[mark("one")]))]).await;
    let _envoy = Setup::new(bootstrap(&mesh, variant)).start().await.unwrap();
    let plan = Plan::get(address, "lab", "/").timeout(PATIENCE);
    reply_where(&plan, |reply| reply.header("x-mark") == Some("one")).await;
    mesh.write("mark.json", &resources("mark", &[mark("two")]));
    reply_where(&plan, |reply| reply.header("x-mark") == Some("two")).await;
    mesh.assert_no_problems().await;
    // Rule P-48: removing it would break the listener that names it.
    mesh.remove("mark.json");
    let told = mesh.get_where("/api/v1/problems", "a problem", |answer| !answer["problems"][0].is_null()).await;
    assert!(told.to_string().contains("names ECDS \\\"mark\\\", which is not served"), "{told}");
    for _ in 0..20 {
        let reply = plan.once().await.unwrap();
        assert_eq!((reply.status, reply.header("x-mark")), (200, Some("two")), "{reply:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_filter_is_configured_by_the_object_and_outlives_it_by_delta() {
    a_filter_is_configured_by_the_object_and_outlives_it(Variant::Delta).await;
}

#[tokio::test]
async fn a_filter_is_configured_by_the_object_and_outlives_it_by_state_of_the_world() {
    a_filter_is_configured_by_the_object_and_outlives_it(Variant::StateOfTheWorld).await;
}

fn scope(name: &str, key: &str, routes: &str) -> Value {
    of(
        "envoy.config.route.v3.ScopedRouteConfiguration",
        json!({
            "name": name, "route_configuration_name": routes, "key": { "fragments": [{ "string_key": key }] },
        }),
    )
}

async fn scoped_routes_choose_by_a_header(variant: Variant) {
    let address = ports::local().unwrap();
    let manager = json!({ "scoped_routes": {
        "name": "lab",
        "scope_key_builder": { "fragments": [{ "header_value_extractor": { "name": "x-team", "index": 0 } }] },
        "rds_config_source": ads(),
        "scoped_rds": { "scoped_rds_config_source": ads() },
    } });
    let first = [
        listener("lab", address, manager),
        scope("a", "a", "routes-a"),
        scope("b", "b", "routes-b"),
        routes("routes-a", "for a"),
        routes("routes-b", "for b"),
    ];
    let mesh = Mesh::start(&[("lab.json", &resources("lab", &first))]).await;
    let _envoy = Setup::new(bootstrap(&mesh, variant)).start().await.unwrap();
    let plan = |team: &str| Plan::get(address, "lab", "/").header("x-team", team).timeout(PATIENCE);
    reply_where(&plan("a"), |reply| reply.body() == "for a").await;
    reply_where(&plan("b"), |reply| reply.body() == "for b").await;
    assert_eq!(plan("c").once().await.unwrap().status, 404);
    mesh.assert_no_problems().await;
    let second = resources("more", &[scope("c", "c", "routes-c"), routes("routes-c", "for c")]);
    mesh.write("more.json", &second);
    reply_where(&plan("c"), |reply| reply.body() == "for c").await;
    assert_eq!(plan("a").once().await.unwrap().body(), "for a");
    mesh.remove("more.json");
    reply_where(&plan("c"), |reply| reply.status == 404).await;
    assert_eq!(plan("a").once().await.unwrap().body(), "for a");
}

#[tokio::test]
async fn scoped_routes_choose_by_a_header_by_delta() {
    scoped_routes_choose_by_a_header(Variant::Delta).await;
}

#[tokio::test]
async fn scoped_routes_choose_by_a_header_by_state_of_the_world() {
    scoped_routes_choose_by_a_header(Variant::StateOfTheWorld).await;
}

#[tokio::test]
async fn a_cluster_is_fetched_on_demand_and_one_that_does_not_exist_is_answered_at_once() {
    let reviews = crate::mesh::Reviews::start();
    let objects = reviews.objects();
    let address = ports::local().unwrap();
    let on_demand = json!({ "name": "envoy.filters.http.on_demand", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.on_demand.v3.OnDemand",
        "odcds": { "source": ads(), "timeout": "20s" },
    } });
    let by_header = json!({ "name": "lab", "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [
        { "match": { "prefix": "/" }, "route": { "cluster_header": "x-cluster" } },
    ] }] });
    let manager = json!({ "route_config": by_header, "http_filters": [on_demand] });
    let file = resources("lab", &[listener("lab", address, manager)]);
    let mesh = Mesh::start(&[("reviews.yaml", &objects), ("lab.json", &file)]).await;
    // Without a wildcard for clusters: each is asked for by its name.
    let mut bootstrap = bootstrap(&mesh, Variant::Delta);
    bootstrap["dynamic_resources"].as_object_mut().unwrap().remove("cds_config");
    let envoy = Setup::new(bootstrap).start().await.unwrap();
    let port = reviews.address.port();
    let name = format!("outbound|{port}||reviews.default.svc.cluster.local");
    let known = Plan::get(address, "lab", "/").header("x-cluster", &name).timeout(PATIENCE);
    let reply = reply_where(&known, |reply| reply.status == 200).await;
    assert!(["v1", "v2"].contains(&reply.backend()), "{reply:?}");
    let unknown = Plan::get(address, "lab", "/").header("x-cluster", "nobody").timeout(PATIENCE);
    let reply = unknown.once().await.unwrap();
    assert_eq!(reply.status, 503, "{reply:?}");
    assert!(reply.took < Duration::from_secs(10), "the answer that there is none ends the wait: {reply:?}");
    let clusters = envoy.clusters().await.unwrap().to_string();
    assert!(clusters.contains(&name), "{clusters}");
    assert!(!clusters.contains("PassthroughCluster"), "nothing but what was asked for: {clusters}");
}

const XDSTP: &str = "xdstp://lab";

/// Names under our own authority.
fn xdstp(message: &str, id: &str) -> String {
    format!("{XDSTP}/{message}/{id}")
}

#[tokio::test]
async fn xdstp_names_and_collections_reach_an_envoy() {
    let (one, two) = (ports::local().unwrap(), ports::local().unwrap());
    let route_name = xdstp("envoy.config.route.v3.RouteConfiguration", "routes?b=2&a=1");
    let manager = json!({ "rds": { "route_config_name": route_name, "config_source": ads() } });
    let member = |id: &str, address| {
        listener(&xdstp("envoy.config.listener.v3.Listener", &format!("front/{id}")), address, manager.clone())
    };
    let first = resources("lab", &[member("one", one), routes(&route_name, "from lab")]);
    let mesh = Mesh::start(&[("lab.json", &first)]).await;
    let mut bootstrap = bootstrap(&mesh, Variant::Delta);
    bootstrap["dynamic_resources"]["lds_resources_locator"] =
        xdstp("envoy.config.listener.v3.Listener", "front/*").into();
    let envoy = Setup::new(bootstrap).start().await.unwrap();
    let plan = |address| Plan::get(address, "lab", "/").timeout(PATIENCE);
    reply_where(&plan(one), |reply| reply.body() == "from lab").await;
    // Members come and go; nothing outside of the collection is there.
    mesh.write("more.json", &resources("more", &[member("two", two)]));
    reply_where(&plan(two), |reply| reply.body() == "from lab").await;
    let listeners = envoy.listeners().await.unwrap();
    assert!(listeners.keys().all(|name| name.starts_with(XDSTP)), "{listeners:?}");
    mesh.write("lab.json", &resources("lab", &[member("one", one), routes(&route_name, "from elsewhere")]));
    reply_where(&plan(two), |reply| reply.body() == "from elsewhere").await;
    mesh.remove("more.json");
    wait::until("the listener to be gone", PATIENCE, async || {
        let listeners = envoy.listeners().await.unwrap();
        if listeners.len() == 1 { Ok(()) } else { Err(format!("{listeners:?}")) }
    })
    .await
    .unwrap();
    assert_eq!(plan(one).once().await.unwrap().body(), "from elsewhere");
}
