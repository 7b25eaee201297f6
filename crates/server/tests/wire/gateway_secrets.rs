//! Secrets of gateways go to whoever proved to be a gateway of their namespace, and to nobody else.

use std::sync::Arc;
use std::time::Duration;

use identity::{TlsSecret, Uses};
use proto::pb::envoy::extensions::transport_sockets::tls::v3::{Secret, secret};
use proto::pb::envoy::service::discovery::v3::DeltaDiscoveryResponse;
use rcgen::{CertificateParams, KeyPair};
use server::TlsSecrets;
use server::view::Problems;
use testkit::wire::{Delta, ResourceType, Wire, node, unpack};

use crate::fixture::{SOON, eventually};
use crate::identity::Guarded;

const GATEWAY: &str = "router~10.0.0.9~edge-1.edge~edge.svc.cluster.local";
const SIDECAR: &str = "sidecar~10.0.0.9~edge-1.edge~edge.svc.cluster.local";

fn pair(name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([name.to_owned()]).unwrap().self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

fn secrets<const N: usize>(all: [(&str, &str, TlsSecret); N]) -> TlsSecrets {
    all.into_iter().map(|(namespace, name, secret)| ((namespace.into(), name.into()), Arc::new(secret))).collect()
}

fn tls((chain, key): &(String, String)) -> TlsSecret {
    TlsSecret::new(Some(chain), Some(key), None).unwrap()
}

/// Names of the secrets in a response, and all of their texts.
fn content(response: &DeltaDiscoveryResponse) -> (Vec<&str>, String) {
    let names = response.resources.iter().map(|resource| &*resource.name).collect();
    let texts = response.resources.iter().map(|resource| {
        match unpack::<Secret>(resource.resource.iter()).unwrap().remove(0).r#type.unwrap() {
            secret::Type::TlsCertificate(pair) => format!("{:?}{:?}", pair.certificate_chain, pair.private_key),
            secret::Type::ValidationContext(context) => format!("{:?}", context.trusted_ca),
            other => panic!("{other:?}"),
        }
    });
    (names, texts.collect())
}

fn holds(text: &str, pem: &str) -> bool {
    text.contains(&format!("{:?}", pem.as_bytes()).trim_matches(['[', ']']).to_owned())
        || text.contains(&format!("{:?}", bytes::Bytes::from(pem.to_owned())))
}

async fn gateway(server: &Guarded, identity: &str, id: &str, names: &[&str]) -> (Wire, Delta) {
    let wire = server.wire().await.with_token(&server.token(identity, Uses::Many)).unwrap();
    let mut stream = wire.delta(node(id, "edge"));
    stream.subscribe(ResourceType::Secret, names).await;
    (wire, stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_gets_the_secrets_of_its_namespace_and_what_replaces_them() {
    let server = Guarded::start().await;
    let (first, second, authorities) = (pair("shop.test"), pair("shop.test"), pair("authority").0);
    let own = |pair| ("edge", "shop", tls(pair));
    let trusted = || ("edge", "shop-cacert", TlsSecret::new(None, None, Some(&authorities)).unwrap());
    server.running.secrets.replace(secrets([own(&first), trusted(), ("bank", "vault", tls(&second))]));
    let names = ["kubernetes://shop", "kubernetes://shop-cacert", "kubernetes://vault", "kubernetes://bank/vault"];
    let (_wire, mut stream) = gateway(&server, "edge/gateway", GATEWAY, &names).await;
    let response = stream.next(SOON).await.unwrap();
    let (mut found, text) = content(&response);
    found.sort_unstable();
    assert_eq!(found, ["kubernetes://shop", "kubernetes://shop-cacert"]);
    assert!(holds(&text, &first.1) && holds(&text, &authorities), "{text}");
    stream.ack(&response).await;

    server.running.secrets.replace(secrets([own(&second), trusted()]));
    let response = stream.next(SOON).await.unwrap();
    let (found, text) = content(&response);
    assert_eq!(found, ["kubernetes://shop"], "the rest is the same");
    assert!(holds(&text, &second.1));
    stream.ack(&response).await;

    // What is taken away stays with whoever has it, and is not given to anybody else.
    server.running.secrets.replace(TlsSecrets::new());
    stream.exchange().silence(Duration::from_millis(200)).await.unwrap();
    let (_wire, mut late) = gateway(&server, "edge/gateway", GATEWAY, &["kubernetes://shop"]).await;
    assert_eq!(late.next(SOON).await.unwrap().resources, []);
    server.running.secrets.replace(secrets([own(&first)]));
    assert_eq!(content(&late.next(SOON).await.unwrap()).0, ["kubernetes://shop"], "it comes when it is there");
    // Nobody else is shown the key.
    for path in [format!("/api/v1/nodes/{GATEWAY}/config"), "/metrics".to_owned(), "/api/v1/problems".to_owned()] {
        let (status, text) = server.running.get(&path).await;
        assert_eq!(status, 200, "{text}");
        for key in [&first.1, &second.1] {
            assert!(!text.contains(key.lines().nth(1).unwrap()), "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_gets_them() {
    let server = Guarded::start().await;
    server.running.secrets.replace(secrets([("edge", "shop", tls(&pair("shop.test")))]));
    let names = ["kubernetes://shop", "kubernetes://edge/shop"];
    let elsewhere = "router~10.0.0.9~edge-1.bank~bank.svc.cluster.local";
    for (identity, id) in [("edge/gateway", SIDECAR), ("bank/gateway", elsewhere)] {
        let (_wire, mut stream) = gateway(&server, identity, id, &names).await;
        assert_eq!(stream.next(SOON).await.unwrap().resources, [], "{id}");
    }
    let mut plain = server.running.wire().await.delta(node(GATEWAY, "edge"));
    plain.subscribe(ResourceType::Secret, &names).await;
    assert_eq!(plain.next(SOON).await.unwrap().resources, []);
}

/// A node says of itself that it is a gateway; what its workload is, it does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_workload_that_says_it_is_a_gateway_gets_them_only_if_it_can_be_one() {
    const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: NAME, namespace: edge, labels: {app: NAME}}\n\
        spec: {serviceAccountName: NAME}\nstatus: {podIP: ADDRESS}\n---\n";
    let server = Guarded::start().await;
    server.running.secrets.replace(secrets([("edge", "shop", tls(&pair("shop.test")))]));
    let pods = POD.replace("NAME", "gateway").replace("ADDRESS", "10.0.0.9")
        + &POD.replace("NAME", "shop").replace("ADDRESS", "10.0.0.10");
    let gateways = "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: edge, namespace: edge}\n\
        spec:\n  selector: {app: gateway}\n  servers:\n  - port: {number: 443, name: https, protocol: HTTPS}\n    \
        hosts: ['*']\n    tls: {mode: SIMPLE, credentialName: shop}\n";
    server.running.apply(&format!("{pods}{gateways}")).await;
    for (identity, may) in [("edge/gateway", true), ("edge/shop", false), ("edge/unknown", true)] {
        let (_wire, mut stream) = gateway(&server, identity, GATEWAY, &["kubernetes://shop"]).await;
        let response = stream.next(SOON).await.unwrap();
        assert_eq!(!response.resources.is_empty(), may, "{identity}");
    }
}

const TWO_SERVERS: &str = "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: shop, namespace: edge}
spec:
  selector: {}
  servers:
  - port: {number: 443, name: shop, protocol: HTTPS}
    hosts: [shop.test]
    tls: {mode: SIMPLE, credentialName: shop}
  - port: {number: 443, name: bank, protocol: HTTPS}
    hosts: [bank.test]
    tls: {mode: MUTUAL, credentialName: bank}
";

/// Fields and messages of the problems of the Gateway, once they are as expected.
async fn problems(server: &Guarded, is_right: impl Fn(&[(String, String)]) -> bool) {
    let ask = async || {
        let all = server.running.json::<Problems>("/api/v1/problems").await.problems;
        let own = all.into_iter().filter(|problem| problem.object == "gateway/edge/shop");
        own.map(|problem| (problem.field, problem.message)).collect::<Vec<_>>()
    };
    eventually(ask, |found: &Vec<_>| is_right(found)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_that_a_server_names_and_does_not_have_are_problems_until_they_come() {
    let server = Guarded::start().await;
    server.running.secrets.replace(TlsSecrets::new());
    server.running.apply(TWO_SERVERS).await;
    // Nobody knows yet where a gateway would look.
    problems(&server, |found| {
        found.len() == 2 && found.iter().all(|(_, message)| message.starts_with("no namespace has a Secret"))
    })
    .await;
    let wire = server.wire().await.with_token(&server.token("edge/gateway", Uses::Many)).unwrap();
    let mut stream = wire.delta(node(GATEWAY, "edge"));
    stream.subscribe(ResourceType::Listener, &[]).await;
    let listeners = stream.next(SOON).await.unwrap();
    assert_eq!(listeners.resources.len(), 1, "what is missing closes no port");
    let says = |found: &[(String, String)], field: &str, text: &str| {
        found.iter().any(|(at, message)| at == field && message.contains(text))
    };
    let (shop, bank) = ("spec.servers[0].tls.credentialName", "spec.servers[1].tls.credentialName");
    problems(&server, |found| {
        found.len() == 3
            && says(found, shop, "no Secret \"shop\" in the namespace \"edge\"")
            && says(found, bank, "no Secret \"bank\"")
            && says(found, bank, "neither the Secret \"edge/bank-cacert\" nor \"edge/bank\"")
    })
    .await;

    // One comes; of the other there are the authorities only.
    let authorities = || TlsSecret::new(None, None, Some(&pair("authority").0)).unwrap();
    let shop_pair = pair("shop.test");
    let now = || secrets([("edge", "shop", tls(&shop_pair)), ("edge", "bank", authorities())]);
    server.running.secrets.replace(now());
    problems(&server, |found| found.len() == 1 && says(found, bank, "has no certificate with its key")).await;

    // In another namespace it is somebody else's, and what is over is said to be.
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["bank.test".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let over = (params.self_signed(&key).unwrap().pem(), key.serialize_pem());
    let mut all = now();
    all.extend(secrets([("bank", "bank", tls(&over))]));
    server.running.secrets.replace(all);
    problems(&server, |found| found.len() == 1 && says(found, bank, "has no certificate with its key")).await;
    let mut all = now();
    all.extend(secrets([("edge", "bank", tls(&over)), ("edge", "bank-cacert", authorities())]));
    server.running.secrets.replace(all);
    problems(&server, |found| found.len() == 1 && says(found, bank, "has expired")).await;

    let mut all = now();
    all.extend(secrets([("edge", "bank", tls(&pair("bank.test"))), ("edge", "bank-cacert", authorities())]));
    server.running.secrets.replace(all);
    problems(&server, <[_]>::is_empty).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_ends_while_the_server_runs_is_a_problem_then() {
    let server = Guarded::start().await;
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["shop.test".to_owned()]).unwrap();
    params.not_after = (std::time::SystemTime::now() + Duration::from_secs(2)).into();
    let soon = (params.self_signed(&key).unwrap().pem(), key.serialize_pem());
    server.running.secrets.replace(secrets([("edge", "shop", tls(&soon))]));
    server.running.apply(&TWO_SERVERS[..TWO_SERVERS.rfind("  - port").unwrap()]).await;
    let (_wire, mut stream) = gateway(&server, "edge/gateway", GATEWAY, &["kubernetes://shop"]).await;
    stream.next(SOON).await.unwrap();
    problems(&server, |found| matches!(found, [(_, message)] if message.contains("has expired"))).await;
}
