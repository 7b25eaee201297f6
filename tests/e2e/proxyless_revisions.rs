//! gRPC without a proxy where one revision of a service takes mutual TLS and the other does not.

use std::net::SocketAddr;

use tempfile::TempDir;
use testkit::grpc_client::GrpcClient;
use testkit::grpc_language::Language::{self, Go, Python};
use testkit::grpc_server::GrpcServer;
use testkit::ports;

use crate::identity::Guarded;
use crate::mesh::{PATIENCE, SUBSETS, split};
use crate::proxyless::{Keeper, METHOD, bootstrap, id, until};

/// STRICT for one revision.
const STRICT: &str = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
                      metadata: {name: v2, namespace: default}\n\
                      spec: {selector: {matchLabels: {version: v2}}, mtls: {mode: STRICT}}\n";

/// A service, and a pod of each revision; the second says that it takes mutual TLS.
fn objects(port: u16, [v1, v2]: [SocketAddr; 2]) -> String {
    let pod = |version: &str, labels: &str, at: SocketAddr| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: reviews-{version}\n  namespace: default\n  \
             labels: {{app: reviews, version: {version}{labels}}}\nspec: {{serviceAccountName: server, containers: []}}\n\
             status: {{podIP: {}, phase: Running}}\n",
            at.ip()
        )
    };
    let service = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: reviews, namespace: default}}\nspec:\n  \
         selector: {{app: reviews}}\n  ports: [{{name: grpc, port: {port}, targetPort: {}}}]\n",
        v1.port()
    );
    service + &pod("v1", "", v1) + &pod("v2", ", security.istio.io/tlsMode: istio", v2)
}

async fn each_revision_is_called_as_it_takes_it(clients_are: Language) {
    let place = TempDir::with_prefix("pointsman-revisions-").unwrap();
    let (port, inside) = (ports::local().unwrap().port(), ports::local().unwrap().port());
    let at = [ports::pod(inside).unwrap(), ports::pod(inside).unwrap()];
    let service = objects(port, at);
    let files =
        [("mesh.yaml", &*service), ("strict.yaml", STRICT), ("rule.yaml", SUBSETS), ("routes.yaml", &split(50, 50))];
    let guarded = Guarded::start(&files, &[]).await;
    let mut kept = Vec::new();
    for account in ["server", "client"] {
        let keeper = Keeper::start(&guarded, place.path(), account);
        keeper.other_than(None, PATIENCE).await;
        kept.push(keeper);
    }
    let ip = at[0].ip().to_string();
    let plain = guarded.mesh.bootstrap(&["--kind", "grpc", "--pod", "reviews-v1", "--ip", &ip]);
    let _v1 = GrpcServer::start(at[0], "v1", &plain).unwrap();
    let ip = at[1].ip().to_string();
    let _v2 = GrpcServer::start(at[1], "v2", &bootstrap(&guarded, &kept[0].directory, "server", &ip)).unwrap();
    let target = format!("xds:///reviews.default.svc.cluster.local:{port}");
    let secured = bootstrap(&guarded, &kept[1].directory, "client", "127.0.0.1");
    let mut client = GrpcClient::start_in(clients_are, &target, &secured).unwrap();
    for (v1, v2, answering) in [(0, 100, &["v2"][..]), (100, 0, &["v1"]), (0, 100, &["v2"])] {
        guarded.mesh.write("routes.yaml", &split(v1, v2));
        let answers = until(&mut client, METHOD, &format!("{answering:?} to answer"), |answers| {
            answers.errors.is_empty() && answers.by_backend.keys().eq(answering)
        })
        .await;
        let proved: Vec<_> = answers.by_peer.keys().cloned().collect();
        assert_eq!(proved, if v2 > 0 { vec![id("client")] } else { Vec::new() });
    }
    // Half of the calls have to be made by TLS, and half without.
    guarded.mesh.write("routes.yaml", &split(50, 50));
    until(&mut client, METHOD, "both to answer", |answers| answers.errors.is_empty() && answers.by_backend.len() == 2)
        .await;
}

#[tokio::test]
async fn a_grpc_client_calls_each_revision_as_it_takes_it() {
    each_revision_is_called_as_it_takes_it(Python).await;
}

#[tokio::test]
async fn a_grpc_client_calls_each_revision_as_it_takes_it_in_go() {
    each_revision_is_called_as_it_takes_it(Go).await;
}
