//! Tests against a real Envoy with static configuration.

#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::backend::Backend;
use crate::load::{Load, Plan, Rate};
use crate::netns::{Availability, Lab};
use crate::{ports, stats};

const SOON: Duration = Duration::from_secs(120);
const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn socket(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

/// A bootstrap with one listener that splits requests over backends by weight.
fn split(listener: SocketAddr, backends: &[(&Backend, u32)]) -> Value {
    let clusters: Vec<_> = backends
        .iter()
        .map(|(backend, _)| {
            let endpoint = json!({"endpoint": {"address": socket(backend.address())}});
            let endpoints = json!({"cluster_name": backend.name(), "endpoints": [{"lb_endpoints": [endpoint]}]});
            json!({"name": backend.name(), "type": "STATIC", "load_assignment": endpoints})
        })
        .collect();
    let weights: Vec<_> =
        backends.iter().map(|(backend, weight)| json!({"name": backend.name(), "weight": weight})).collect();
    let route = json!({"match": {"prefix": "/"}, "route": {"weighted_clusters": {"clusters": weights}}});
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
        }],
    });
    let filter = json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": manager});
    let listener = json!({"name": "in", "address": socket(listener), "filter_chains": [{"filters": [filter]}]});
    json!({"static_resources": {"listeners": [listener], "clusters": clusters}})
}

#[tokio::test]
async fn a_weighted_split_of_a_real_envoy_fits_its_weights_and_no_others() {
    let (v1, v2) = (Backend::start("v1", ANY).unwrap(), Backend::start("v2", ANY).unwrap());
    let envoy = Envoy::start(split(ANY, &[(&v1, 80), (&v2, 20)])).await.unwrap();
    let address = envoy.listeners().await.unwrap()["in"];
    let requests = stats::sample_size(&[80, 20], &[75, 25], stats::FALSE_ALARM, 0.999);
    let load = Load::start(Plan::get(address, "any", "/").rate(Rate::Unlimited)).unwrap();
    let window = load.next(usize::try_from(requests).unwrap(), SOON).await.unwrap();
    window.assert_no_failures();
    stats::assert_split(&window.by_backend(), &[("v1", 80), ("v2", 20)], stats::FALSE_ALARM);
    let wrong = stats::fit(&window.by_backend(), &[("v1", 50), ("v2", 50)]);
    assert!(wrong.p < stats::FALSE_ALARM, "{wrong}");

    let total = load.stop().await.len() as u64;
    assert_eq!(envoy.stat("cluster.v1.upstream_rq_total").await.unwrap(), v1.requests());
    assert_eq!(v1.requests() + v2.requests(), total);
}

#[tokio::test]
async fn the_admin_interface_shows_configuration_and_endpoints() {
    let v1 = Backend::start("v1", ANY).unwrap();
    let mut envoy = Envoy::start(split(ANY, &[(&v1, 1)])).await.unwrap();
    let dump = envoy.config_dump().await.unwrap().to_string();
    assert!(dump.contains(&format!("\"port_value\":{}", v1.address().port())), "{dump}");
    let clusters = envoy.clusters().await.unwrap();
    assert_eq!(clusters["cluster_statuses"][0]["name"], "v1");
    assert!(envoy.get("/server_info").await.unwrap().contains("1.40.0"));
    assert!(envoy.post("/logging?level=info").await.unwrap().contains("main: info"));
    let error = envoy.get("/nothing").await.unwrap_err().to_string();
    assert!(error.starts_with("\"/nothing\" was answered with 404 Not Found"), "{error}");
    assert!(envoy.process().resident_bytes().unwrap() > 10_000_000);
    envoy.stop().await.unwrap();
}

#[tokio::test]
async fn a_bootstrap_with_an_admin_port_keeps_it() {
    let admin = ports::local().unwrap();
    let envoy = Envoy::start(json!({"admin": {"address": socket(admin)}})).await.unwrap();
    envoy.stat_where("server.live", SOON, |live| live == 1).await.unwrap();
    assert!(std::net::TcpStream::connect(admin).is_ok());
    assert!(envoy.listeners().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_refused_bootstrap_is_reported_with_envoys_words() {
    let error = format!("{:#}", Envoy::start(json!({"static_resources": {"clusters": [{}]}})).await.unwrap_err());
    assert!(error.contains("Envoy has ended") && error.contains("Name"), "{error}");
}

#[tokio::test]
async fn validation_tells_good_from_bad() {
    let v1 = Backend::start("v1", ANY).unwrap();
    Envoy::validate(&split(ANY, &[(&v1, 1)])).await.unwrap();
    let error = Envoy::validate(&split(ANY, &[])).await.unwrap_err().to_string();
    assert!(error.contains("Clusters"), "{error}");
}

#[tokio::test]
async fn a_dropped_envoy_is_gone_with_its_files() {
    let mut envoy = Envoy::start(json!({})).await.unwrap();
    let (pid, directory) = (envoy.process().pid(), envoy.directory().to_owned());
    assert!(Path::new(&format!("/proc/{pid}")).exists() && directory.exists());
    drop(envoy);
    assert!(!Path::new(&format!("/proc/{pid}")).exists() && !directory.exists());
}

#[tokio::test]
async fn an_envoy_in_a_namespace_serves_as_another_user_and_is_administered_from_here() {
    if !Availability::or_skip("an Envoy in a namespace serves as another user") {
        return;
    }
    let lab = Lab::new(&["pod"]).unwrap();
    let pod = lab.namespace("pod");
    pod.intercept(1_337).unwrap();
    let service = SocketAddr::from((Ipv4Addr::LOCALHOST, 8_080));
    let v1 = Backend::start_in(Some(pod), "v1", service).unwrap();
    // The load asks for an address that nobody has; interception brings it to the Envoy.
    let envoy = Setup::new(split((Ipv4Addr::UNSPECIFIED, 15_001).into(), &[(&v1, 1)]));
    let mut envoy = envoy.in_namespace(pod).as_user(1_337).start().await.unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", envoy.process().pid())).unwrap();
    assert!(status.contains("Name:\tenvoy") && status.contains("Uid:\t1337\t1337"), "{status}");
    let elsewhere = SocketAddr::from((Ipv4Addr::new(198, 18, 77, 99), 80));
    let load = Load::start_in(Some(pod), Plan::get(elsewhere, "any", "/")).unwrap();
    load.next(10, SOON).await.unwrap();
    let all = load.stop().await;
    all.assert_no_failures();
    assert_eq!(envoy.stat("cluster.v1.upstream_rq_total").await.unwrap(), all.len() as u64);
}
