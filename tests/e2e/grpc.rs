//! gRPC: clients with their own xDS resolver, in each language that there is, and gRPC through Envoy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use testkit::backend::Backend;
use testkit::grpc_client::{Answers, GrpcClient};
use testkit::grpc_language::Language;
use testkit::grpc_server::GrpcServer;
use testkit::load::{Load, Plan};
use testkit::stats::{FALSE_ALARM, assert_split, sample_size};
use testkit::{ports, wait};

use crate::mesh::{Mesh, PATIENCE, Reviews, SUBSETS, Variant, answering, marked, split};

/// Any method will do: the sample service answers them all.
const METHOD: &str = "/shop.Reviews/Get";
const TIMEOUT: Duration = Duration::from_secs(10);

/// Files whose port of `reviews` is called `grpc`.
fn objects(reviews: &Reviews) -> String {
    format!("{}---\n{SUBSETS}", reviews.objects().replace("name: http,", "name: grpc,"))
}

/// A client of `reviews` by its full name, with the bootstrap that the binary writes.
fn client(language: Language, mesh: &Mesh, reviews: &Reviews) -> GrpcClient {
    let bootstrap = mesh.bootstrap(&["--kind", "grpc", "--pod", "client", "--label", "app=client"]);
    let target = format!("xds:///reviews.default.svc.cluster.local:{}", reviews.address.port());
    GrpcClient::start_in(language, &target, &bootstrap).unwrap()
}

async fn call(client: &mut GrpcClient, count: u64, headers: &[(&str, &str)]) -> Answers {
    client.call(METHOD, u32::try_from(count).unwrap(), TIMEOUT, headers).await.unwrap()
}

/// Calls until one backend alone answers so many calls in a row that the old split cannot have done it.
async fn settled(client: &mut GrpcClient, name: &str) {
    wait::until(&format!("{name} alone to answer"), PATIENCE, async || {
        let answers = call(client, 30, &[]).await;
        if answers.errors.is_empty() && answers.by_backend.keys().eq([name]) {
            Ok(())
        } else {
            Err(format!("{answers:?}"))
        }
    })
    .await
    .unwrap();
}

async fn a_client_follows_a_split_and_its_changes(language: Language) {
    let reviews = Reviews::start();
    let mesh = Mesh::start(&[("reviews.yaml", &objects(&reviews)), ("routes.yaml", &split(100, 0))]).await;
    let mut client = client(language, &mesh, &reviews);
    let calls = sample_size(&[80, 20], &[50, 50], FALSE_ALARM, 0.999);
    let mut all = vec![call(&mut client, 50, &[]).await];
    for (v1, v2) in [(80, 20), (0, 100), (100, 0), (20, 80)] {
        mesh.write("routes.yaml", &split(v1, v2));
        // Each differs from the one before in who answers at all.
        let shares = [("v1", v1), ("v2", v2)].into_iter().filter(|(_, weight)| *weight > 0);
        let names: Vec<_> = shares.map(|(name, _)| name).collect();
        answered_by(&mut client, &names, &mut all).await;
        if v1 * v2 > 0 {
            let answers = call(&mut client, calls, &[]).await;
            assert_split(&answers.by_backend, &[("v1", v1), ("v2", v2)], FALSE_ALARM);
            all.push(answers);
        }
    }
    assert_none_failed(&all);
}

#[tokio::test]
async fn a_grpc_client_follows_a_split_and_its_changes() {
    a_client_follows_a_split_and_its_changes(Language::Python).await;
}

#[tokio::test]
async fn a_grpc_client_follows_a_split_and_its_changes_in_go() {
    a_client_follows_a_split_and_its_changes(Language::Go).await;
}

/// Calls, and keeps what came of it, until these backends and no others answer; once if there are none of them.
async fn answered_by(client: &mut GrpcClient, names: &[&str], all: &mut Vec<Answers>) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answers = call(client, 30, &[]).await;
        let done = names.is_empty() || answers.by_backend.keys().eq(names);
        all.push(answers);
        if done {
            return;
        }
        assert!(Instant::now() < deadline, "{names:?} never answer alone: {:?}", all.last());
    }
}

fn assert_none_failed(all: &[Answers]) {
    assert_failed_only(all, |_| false);
}

fn assert_failed_only(all: &[Answers], may: impl Fn(&str) -> bool) {
    let failed: Vec<_> = all.iter().filter(|answers| answers.errors.keys().any(|error| !may(error))).collect();
    assert!(failed.is_empty(), "{failed:?}");
}

async fn calls_do_not_fail_while_subsets_come_and_go(language: Language) {
    let reviews = Reviews::start();
    let only_v1 = SUBSETS.replace("    - {name: v2, labels: {version: v2}}\n", "");
    let service = reviews.objects().replace("name: http,", "name: grpc,");
    let files = [
        ("reviews.yaml", &*service),
        ("rule.yaml", &*only_v1),
        (
            "routes.yaml",
            &*split(100, 0).replace("        - {destination: {host: reviews, subset: v2}, weight: 0}\n", ""),
        ),
    ];
    let mesh = Mesh::start(&files).await;
    let mut client = client(language, &mesh, &reviews);
    let mut all = vec![call(&mut client, 50, &[]).await];
    for (file, text, names) in [
        ("rule.yaml", SUBSETS.to_owned(), &[][..]),
        ("routes.yaml", split(0, 100), &["v2"]),
        ("routes.yaml", files[2].1.to_owned(), &["v1"]),
        ("rule.yaml", only_v1.clone(), &[]),
    ] {
        mesh.write(file, &text);
        answered_by(&mut client, names, &mut all).await;
    }
    // gRPC-Go sends calls to a cluster that a route names for the first time some microseconds before it knows it
    // (`ClientConn.updateResolverStateAndUnlock` of 1.85 gives the selector to calls before it gives the cluster to the balancer).
    let is_its_own = |error: &str| error.starts_with("UNAVAILABLE: unknown cluster selected for RPC");
    assert_failed_only(&all, |error| language == Language::Go && is_its_own(error));
}

#[tokio::test]
async fn calls_of_a_grpc_client_do_not_fail_while_subsets_come_and_go() {
    calls_do_not_fail_while_subsets_come_and_go(Language::Python).await;
}

#[tokio::test]
async fn calls_of_a_grpc_client_do_not_fail_while_subsets_come_and_go_in_go() {
    calls_do_not_fail_while_subsets_come_and_go(Language::Go).await;
}

async fn calls_do_not_fail_while_endpoints_come_and_go(language: Language) {
    let reviews = Reviews::start();
    let of = |versions: &[(&str, &Backend)]| reviews.objects_of(versions).replace("name: http,", "name: grpc,");
    let (v1, v2) = (("v1", &reviews.v1), ("v2", &reviews.v2));
    let mesh = Mesh::start(&[("reviews.yaml", &of(&[v1]))]).await;
    let mut client = client(language, &mesh, &reviews);
    let mut all = vec![call(&mut client, 50, &[]).await];
    for (versions, names) in
        [(&[v1, v2][..], &["v1", "v2"][..]), (&[v2], &["v2"]), (&[v1, v2], &["v1", "v2"]), (&[v1], &["v1"])]
    {
        mesh.write("reviews.yaml", &of(versions));
        answered_by(&mut client, names, &mut all).await;
    }
    assert_none_failed(&all);
}

#[tokio::test]
async fn calls_of_a_grpc_client_do_not_fail_while_endpoints_come_and_go() {
    calls_do_not_fail_while_endpoints_come_and_go(Language::Python).await;
}

#[tokio::test]
async fn calls_of_a_grpc_client_do_not_fail_while_endpoints_come_and_go_in_go() {
    calls_do_not_fail_while_endpoints_come_and_go(Language::Go).await;
}

async fn a_client_is_routed_by_header(language: Language) {
    let reviews = Reviews::start();
    let routes = "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: default}
spec:
  hosts: [reviews]
  http:
    - match: [{headers: {end-user: {exact: jason}}}]
      route: [{destination: {host: reviews, subset: v2}}]
    - match: [{uri: {exact: /shop.Reviews/Refused}}]
      fault: {abort: {grpcStatus: PERMISSION_DENIED, percentage: {value: 100}}}
      route: [{destination: {host: reviews, subset: v1}}]
    - route: [{destination: {host: reviews, subset: v1}}]
";
    let mesh = Mesh::start(&[("reviews.yaml", &objects(&reviews)), ("routes.yaml", routes)]).await;
    let mut client = client(language, &mesh, &reviews);
    for (headers, name) in [(&[("end-user", "jason")][..], "v2"), (&[("end-user", "jane")], "v1"), (&[], "v1")] {
        let answers = call(&mut client, 20, headers).await;
        assert_eq!(
            answers,
            Answers { by_backend: [(name.to_owned(), 20)].into(), ..Answers::default() },
            "{headers:?}"
        );
    }
}

#[tokio::test]
async fn a_grpc_client_is_routed_by_header() {
    a_client_is_routed_by_header(Language::Python).await;
}

#[tokio::test]
async fn a_grpc_client_is_routed_by_header_in_go() {
    a_client_is_routed_by_header(Language::Go).await;
}

async fn a_missing_service_is_refused_and_appears(language: Language) {
    let reviews = Reviews::start();
    let mesh = Mesh::start(&[("routes.yaml", &split(100, 0))]).await;
    let mut client = client(language, &mesh, &reviews);
    let answers = client.call(METHOD, 1, Duration::from_secs(2), &[]).await.unwrap();
    let refused = answers.errors.keys().all(|e| e.starts_with("UNAVAILABLE") || e.starts_with("DEADLINE_EXCEEDED"));
    assert!(answers.by_backend.is_empty() && refused, "{answers:?}");
    mesh.write("reviews.yaml", &objects(&reviews));
    settled(&mut client, "v1").await;
    // And other services are not in the way of it.
    mesh.remove("routes.yaml");
    wait::until("both versions to answer", PATIENCE, async || {
        let answers = call(&mut client, 20, &[]).await;
        if answers.by_backend.len() == 2 { Ok(()) } else { Err(format!("{answers:?}")) }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_service_that_does_not_exist_is_refused_and_appears_when_it_is_made() {
    a_missing_service_is_refused_and_appears(Language::Python).await;
}

#[tokio::test]
async fn a_service_that_does_not_exist_is_refused_and_appears_when_it_is_made_in_go() {
    a_missing_service_is_refused_and_appears(Language::Go).await;
}

/// A server serves only once it has the listener that it asked for by the address that it listens on; Go says `[::]` for
/// `0.0.0.0`.
async fn a_server_that_listens_on_all_addresses_serves(language: Language) {
    let mut everywhere = vec![IpAddr::from(Ipv4Addr::UNSPECIFIED)];
    // Not every machine has the other family.
    if std::net::TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok() {
        everywhere.push(Ipv6Addr::UNSPECIFIED.into());
    }
    for ip in everywhere {
        let pod = ports::pod(ports::local().unwrap().port()).unwrap();
        let objects = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: server, namespace: default}}\nspec:\n  \
             selector: {{app: server}}\n  ports: [{{name: grpc, port: 80, targetPort: web}}]\n{}",
            crate::mesh::pod("server", "app: server", pod)
        );
        let mesh = Mesh::start(&[("mesh.yaml", &objects)]).await;
        let of_pod = mesh.bootstrap(&["--kind", "grpc", "--pod", "server", "--ip", &pod.ip().to_string()]);
        let server = GrpcServer::start_in(language, (ip, pod.port()).into(), "everywhere", &of_pod).unwrap();
        let bootstrap = mesh.bootstrap(&["--kind", "grpc", "--pod", "client"]);
        let target = "xds:///server.default.svc.cluster.local:80";
        let mut client = GrpcClient::start_in(language, target, &bootstrap).unwrap();
        wait::until(&format!("the server at {ip} to serve"), PATIENCE, async || {
            let answers = call(&mut client, 5, &[]).await;
            let is_served = answers.errors.is_empty() && answers.by_backend.keys().eq(["everywhere"]);
            if is_served { Ok(()) } else { Err(format!("{answers:?}; {}; {}", client.log(), server.log())) }
        })
        .await
        .unwrap();
    }
}

#[tokio::test]
async fn a_grpc_server_that_listens_on_all_addresses_serves() {
    a_server_that_listens_on_all_addresses_serves(Language::Python).await;
}

#[tokio::test]
async fn a_grpc_server_that_listens_on_all_addresses_serves_in_go() {
    a_server_that_listens_on_all_addresses_serves(Language::Go).await;
}

async fn grpc_through_envoy_follows_a_split(variant: Variant) {
    let reviews = Reviews::start();
    let mesh = Mesh::start(&[("reviews.yaml", &objects(&reviews)), ("routes.yaml", &split(80, 20))]).await;
    let _client = mesh.client(variant, "client").await;
    let plan = Plan::grpc(reviews.address, "reviews", METHOD, b"hello").timeout(TIMEOUT);
    answering(plan.clone()).await;
    let load = Load::start(plan.per_second(800.0).connections(8)).unwrap();
    let begun = Instant::now();
    for (v1, v2) in [(80, 20), (0, 100), (50, 50)] {
        let since = marked(&load, mesh.write("routes.yaml", &split(v1, v2)), &format!("{v1}/{v2}")).await;
        load.next(800, PATIENCE).await.unwrap();
        assert_split(&load.since(since).await.by_backend(), &[("v1", v1), ("v2", v2)], FALSE_ALARM);
    }
    load.since(begun).await.assert_no_failures();
}

#[tokio::test]
async fn grpc_through_envoy_follows_a_split_by_delta() {
    grpc_through_envoy_follows_a_split(Variant::Delta).await;
}

#[tokio::test]
async fn grpc_through_envoy_follows_a_split_by_state_of_the_world() {
    grpc_through_envoy_follows_a_split(Variant::StateOfTheWorld).await;
}
