//! Everything that the admin API answers, in all of its forms.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use http::Method;
use prost::Message;
use proto::pb::envoy::service::status::v3::{ClientStatusRequest, ClientStatusResponse};
use serde_json::Value;
use testkit::http::Caller;
use testkit::wire::Wire;

use super::{READ_TOKEN, Shown, WRITE_TOKEN};

/// How long a stream of events is listened to once it says nothing new.
const QUIET: Duration = Duration::from_millis(200);

/// Every route that the start page lists, with every parameter that it may have, as it should be and otherwise; and a
/// `Secret` where objects are taken.
pub(super) async fn ask_everything(shown: &mut Shown, admin: SocketAddr, secret: &str) {
    let reader = Caller::new(admin).with_token(READ_TOKEN).unwrap();
    let get = async |path: &str| {
        let (_, body) = reader.call(Method::GET, path, "").await.unwrap();
        body.to_vec()
    };
    let names = async |path: &str, of: &str, name: &str| -> Vec<String> {
        let answer: Value = serde_json::from_slice(&get(path).await).unwrap();
        let all = answer[of].as_array().unwrap_or_else(|| panic!("{path}: {answer}"));
        all.iter().map(|one| one[name].to_string().trim_matches('"').to_owned()).collect()
    };
    let nodes = names("/api/v1/nodes", "nodes", "id").await;
    assert_eq!(nodes.len(), 3, "{nodes:?}");
    let mut objects = names("/api/v1/objects", "objects", "object").await;
    assert!(objects.len() >= 5, "{objects:?}");
    objects.push("secret/default/shop".to_owned());
    let changes = names("/api/v1/changes", "changes", "generation").await;
    let start = String::from_utf8(get("/").await).unwrap();
    let mut path = "";
    let mut asked = 0;
    for line in start.lines() {
        let words = line.split_whitespace();
        let mut queries = Vec::new();
        for (at, word) in words.enumerate() {
            match word.as_bytes()[0] {
                b'/' if at == 0 => {
                    path = word;
                    queries.push(String::new());
                }
                b'?' => queries.extend(variants(&word[1..])),
                _ => {}
            }
        }
        for place in places(path, &nodes, &objects, &changes) {
            for query in &queries {
                let whole = format!("{place}{query}");
                asked += 1;
                if path.ends_with("/events") {
                    shown.add(whole.clone(), events(&reader, &whole).await);
                } else {
                    shown.add(whole.clone(), get(&whole).await);
                }
            }
        }
    }
    assert!(asked > 100, "{asked} questions");
    // Whoever hands over what is not taken is told so, without what it is.
    let writer = Caller::new(admin).with_token(WRITE_TOKEN).unwrap();
    for (method, path) in [
        (Method::POST, "/api/v1/intents"),
        (Method::POST, "/api/v1/intents?dry_run=true"),
        (Method::POST, "/api/v1/intents/check"),
        (Method::PUT, "/api/v1/intents/deploymentintent/default/shop"),
        (Method::PUT, "/api/v1/load/settings"),
        (Method::POST, "/api/v1/authority/actions"),
        (Method::POST, "/api/v1/rollouts/default/app/actions"),
        (Method::DELETE, "/api/v1/intents/deploymentintent/default/shop"),
    ] {
        let (status, body) = writer.call(method.clone(), path, secret.to_owned()).await.unwrap();
        assert!(status.is_client_error(), "{method} {path}: {status} {}", String::from_utf8_lossy(&body));
        shown.add(format!("{method} {path}"), body.to_vec());
    }
    for token in ["", READ_TOKEN, super::FOREIGN_TOKEN] {
        let caller = Caller::new(admin).with_token(token).unwrap();
        let (_, body) = caller.call(Method::POST, "/api/v1/intents", secret.to_owned()).await.unwrap();
        shown.add("a refused call", body.to_vec());
    }
}

/// The paths that a template stands for.
fn places(path: &str, nodes: &[String], objects: &[String], changes: &[String]) -> Vec<String> {
    let named = |template: &str, values: &[&str]| values.iter().map(|value| path.replace(template, value)).collect();
    let all = |template: &str, values: &[String]| {
        values
            .iter()
            .map(String::as_str)
            .chain(["..%2f..%2fca%2froot-key.pem"])
            .map(|value| path.replace(template, value))
            .collect()
    };
    match path.find('{').map(|at| &path[at..]) {
        None => vec![path.to_owned()],
        Some("{id}" | "{id}/config") => all("{id}", nodes),
        Some("{kind}/{namespace}/{name}") => all("{kind}/{namespace}/{name}", objects),
        Some("{namespace}/{name}" | "{namespace}/{name}/events" | "{namespace}/{name}/actions") => {
            named("{namespace}/{name}", &["default/app", "default/none"])
        }
        Some("{generation}") => all("{generation}", changes),
        Some("{cluster}") => named("{cluster}", &["xds-grpc", "outbound%7C80%7C%7Capp.test"]),
        Some(other) => panic!("say what \"{other}\" stands for"),
    }
}

/// Each parameter as it should be and otherwise, all of them, and one that there is not.
fn variants(documented: &str) -> Vec<String> {
    let pairs: Vec<(String, String)> = documented
        .split('&')
        .map(|pair| pair.split_once('=').unwrap())
        .map(|(name, value)| (name.to_owned(), if value.is_empty() { sample(name) } else { value }.to_owned()))
        .collect();
    let written: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut all = vec![format!("?{}", written.join("&")), "?nonsense=1".to_owned()];
    all.extend(written.iter().map(|pair| format!("?{pair}")));
    all.extend(pairs.iter().map(|(name, _)| format!("?{name}=%00nonsense")));
    all
}

fn sample(name: &str) -> &'static str {
    match name {
        "id_prefix" => "sidecar",
        "state" => "accepted",
        "limit" | "generation" | "expected_generation" => "1",
        "timeout" => "0",
        "after" => "0",
        "kind" => "gateway",
        "namespace" => "default",
        "name" => "main",
        "object" => "gateway/default/main",
        "node" => "router~127.0.0.1~ingress.default~default.svc.cluster.local",
        "event" => "accepted",
        "dry_run" => "true",
        "actor" | "reason" => "somebody",
        other => panic!("say what a value of \"{other}\" is like"),
    }
}

/// What a stream of events says until it says nothing new, or why there is none.
async fn events(reader: &Caller, path: &str) -> Vec<u8> {
    let mut said = Vec::new();
    match reader.events(path, "").await {
        Ok(mut events) => {
            while let Ok(Ok(Some(event))) = tokio::time::timeout(QUIET, events.next()).await {
                said.extend(format!("{event:?}\n").into_bytes());
            }
        }
        Err(error) => said.extend(format!("{error:#}").into_bytes()),
    }
    said
}

/// Every method of our own gRPC services, and the status of clients by Envoy's.
pub(super) async fn call_everything(shown: &mut Shown, admin: SocketAddr, xds: &str, secret: &str) {
    use proto::{admin as views, delivery};
    let own = proto::descriptor::pool().services().filter(|service| service.full_name().starts_with("pointsman."));
    let mut left: BTreeSet<String> = own
        .flat_map(|service| service.methods().map(|method| method.full_name().to_owned()).collect::<Vec<_>>())
        .collect();
    assert!(left.len() >= 10, "{left:?}");
    for address in [format!("http://{admin}"), format!("http://{xds}")] {
        let reader = Wire::connect(address.clone()).await.unwrap().with_token(READ_TOKEN).unwrap();
        let writer = reader.with_token(WRITE_TOKEN).unwrap();
        macro_rules! call {
            ($wire:expr, $method:expr, $request:expr => $response:ty) => {{
                let (service, name) = $method.rsplit_once('.').unwrap();
                let answer = $wire.call::<_, $response>(&format!("/{service}/{name}"), $request).await;
                let bytes = answer.map_or_else(
                    |status| format!("{status:?} {status}").into_bytes(),
                    |answer| [answer.encode_to_vec(), format!("{answer:?}").into_bytes()].concat(),
                );
                shown.add($method, bytes);
                left.remove($method);
            }};
        }
        macro_rules! listen {
            ($method:expr, $request:expr, $kind:ty => $response:ty) => {{
                let (service, name) = $method.rsplit_once('.').unwrap();
                let mut stream = reader.open::<$kind, $response>(&format!("/{service}/{name}"));
                stream.send($request).await;
                while let Ok(answer) = stream.next(QUIET).await {
                    shown.add($method, [answer.encode_to_vec(), format!("{answer:?}").into_bytes()].concat());
                }
                left.remove($method);
            }};
        }
        call!(reader, "pointsman.admin.v1.Admin.ListNodes", views::ListNodesRequest::default() => views::ListNodesResponse);
        for id in ["router~127.0.0.1~ingress.default~default.svc.cluster.local", "nobody"] {
            let request = views::GetNodeConfigRequest { node_id: id.to_owned(), ..Default::default() };
            call!(reader, "pointsman.admin.v1.Admin.GetNodeConfig", request => views::GetNodeConfigResponse);
        }
        call!(reader, "pointsman.admin.v1.Admin.ListObjects", views::ListObjectsRequest::default() => views::ListObjectsResponse);
        listen!("pointsman.admin.v1.Admin.WatchEvents", views::WatchEventsRequest { after: 1, ..Default::default() },
            views::WatchEventsRequest => views::Event);
        call!(reader, "pointsman.delivery.v1alpha1.Intents.List", delivery::ListRequest::default() => delivery::ListResponse);
        listen!("pointsman.delivery.v1alpha1.Intents.Watch", delivery::WatchRequest::default(),
            delivery::WatchRequest => delivery::WatchResponse);
        for kind in ["DeploymentIntent", "Secret"] {
            let reference =
                Some(delivery::Reference { kind: kind.into(), namespace: "default".into(), name: "shop".into() });
            let get = delivery::GetRequest { reference: reference.clone() };
            call!(reader, "pointsman.delivery.v1alpha1.Intents.Get", get => delivery::Object);
            let delete = delivery::DeleteRequest { reference, ..Default::default() };
            call!(writer, "pointsman.delivery.v1alpha1.Intents.Delete", delete => delivery::DeleteResponse);
        }
        for dry_run in [true, false] {
            let apply = delivery::ApplyRequest { document: secret.to_owned(), dry_run, ..Default::default() };
            call!(writer, "pointsman.delivery.v1alpha1.Intents.Apply", apply => delivery::ApplyResponse);
        }
        call!(writer, "pointsman.delivery.v1alpha1.Intents.Act", delivery::ActRequest::default() => delivery::Rollout);
        call!(reader, "envoy.service.status.v3.ClientStatusDiscoveryService.FetchClientStatus",
            ClientStatusRequest::default() => ClientStatusResponse);
    }
    assert!(left.is_empty(), "nobody has called {left:?}");
}
