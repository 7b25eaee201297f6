//! Endpoints of another service account, and the cluster that lists it.

use identity::Uses;
use proto::pb::envoy::config::cluster::v3::Cluster;
use proto::pb::envoy::config::core::v3::address::Address;
use proto::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use proto::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use proto::pb::envoy::service::discovery::v3::DeltaDiscoveryResponse;
use testkit::wire::{Delta, ResourceType, node, unpack};

use crate::fixture::{NODE, SOON, changes};
use crate::identity::Guarded;

const WEB: &str = "outbound|80||web.default.svc.cluster.local";
const OTHER: &str = "outbound|80||other.default.svc.cluster.local";

const MESH: &str = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: 10.1.0.1, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: other}
spec: {clusterIP: 10.1.0.2, selector: {app: other}, ports: [{name: http, port: 80, targetPort: 8080}]}
";

fn pod(name: &str, address: &str, account: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {{app: web, security.istio.io/tlsMode: istio}}}}, \
         spec: {{serviceAccountName: {account}, containers: []}}, status: {{podIP: {address}}}}}"
    )
}

/// The addresses of the endpoints of one assignment.
fn addresses(response: &DeltaDiscoveryResponse) -> Vec<String> {
    let found = unpack::<ClusterLoadAssignment>(response.resources.iter().filter_map(|r| r.resource.as_ref())).unwrap();
    let endpoints = found.into_iter().flat_map(|assignment| assignment.endpoints).flat_map(|group| group.lb_endpoints);
    let address = |endpoint| match endpoint {
        Some(HostIdentifier::Endpoint(endpoint)) => match endpoint.address.unwrap().address.unwrap() {
            Address::SocketAddress(socket) => socket.address,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    endpoints.map(|endpoint| address(endpoint.host_identifier)).collect()
}

async fn next(stream: &mut Delta, kind: ResourceType) -> DeltaDiscoveryResponse {
    let response = stream.next(SOON).await.unwrap();
    assert_eq!(response.type_url, kind.type_url(), "{response:?}");
    response
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_meets_a_new_account_before_its_cluster_admits_it_nor_loses_one_before_its_endpoints() {
    let server = Guarded::start().await;
    server.running.apply(MESH).await;
    server.running.apply(&pod("web-1", "10.3.0.1", "first")).await;
    let wire = server.wire().await.with_token(&server.token("default/client", Uses::Many)).unwrap();
    let mut stream = wire.delta(node(NODE, "client"));
    stream.subscribe(ResourceType::Cluster, &[]).await;
    let clusters = next(&mut stream, ResourceType::Cluster).await;
    let found = unpack::<Cluster>(clusters.resources.iter().filter_map(|r| r.resource.as_ref())).unwrap();
    assert!(found.iter().any(|cluster| cluster.name == WEB && !cluster.transport_socket_matches.is_empty()));
    stream.subscribe(ResourceType::Endpoints, &[WEB]).await;
    let endpoints = next(&mut stream, ResourceType::Endpoints).await;
    assert_eq!(addresses(&endpoints), ["10.3.0.1"]);
    stream.ack(&clusters).await;
    stream.ack(&endpoints).await;

    // The client warms: what it waits for is the assignment, and it acknowledges the cluster when it has come.
    server.running.apply(&pod("web-2", "10.3.0.2", "second")).await;
    let wider = next(&mut stream, ResourceType::Cluster).await;
    let old = next(&mut stream, ResourceType::Endpoints).await;
    assert_eq!(addresses(&old), ["10.3.0.1"]);
    stream.ack(&old).await;
    // Whatever else it asks for is answered, so that it is known that the assignment waits.
    stream.subscribe(ResourceType::Endpoints, &[OTHER]).await;
    let other = next(&mut stream, ResourceType::Endpoints).await;
    assert_eq!(other.resources.len(), 1);
    assert_eq!(other.resources[0].name, OTHER);
    stream.ack(&other).await;
    stream.ack(&wider).await;
    let joined = next(&mut stream, ResourceType::Endpoints).await;
    assert_eq!(addresses(&joined), ["10.3.0.1", "10.3.0.2"]);
    stream.ack(&joined).await;

    // The last of an account goes.
    let gone = changes(&pod("web-1", "10.3.0.1", "first")).into_iter().map(|change| match change {
        world::Change::Apply(object) => world::Change::Remove(object.reference.clone()),
        other => other,
    });
    server.running.input.apply(gone.collect(), Vec::new(), std::time::Instant::now()).await.unwrap();
    let left = next(&mut stream, ResourceType::Endpoints).await;
    assert_eq!(addresses(&left), ["10.3.0.2"]);
    let narrower = next(&mut stream, ResourceType::Cluster).await;
    assert!(narrower.resources.iter().any(|resource| resource.name == WEB));
    server.running.stop().await.unwrap();
}
