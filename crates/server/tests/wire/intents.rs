//! Intents over gRPC and HTTP: applied, refused, watched, acted on and deleted.

use std::ops::ControlFlow;
use std::time::Instant;

use http::Method;
use prost::Message;
use proto::delivery::intents_client::IntentsClient;
use proto::delivery::{
    ActRequest, ApplyRequest, Change, DeleteRequest, Effect, GetRequest, ListRequest, Object, Reference, Refusal, Verb,
    WatchRequest, WatchResponse,
};
use proto::pb::google::rpc;
use serde_json::{Value, json};
use server::view::{Failure, IntentObject, Intents, IntentsTaken};
use server::{Config, Server, Submitted};
use source::Shelf;
use tempfile::TempDir;
use testkit::http::Caller;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::fixture::{Running, SOON, config, eventually};

fn mesh(versions: &[&str]) -> String {
    let pod = |(at, version): (usize, &&str)| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: web-{version}, namespace: shop, labels: {{app: web, \
             version: {version}}}}}\nspec: {{containers: [{{name: app}}]}}\nstatus: {{podIP: 10.1.0.{}, phase: Running}}\n",
            at + 1
        )
    };
    let pods: String = versions.iter().enumerate().map(pod).collect();
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: shop}}\nspec:\n  selector: {{app: web}}\n  \
         ports: [{{name: http, port: 80, targetPort: 8080}}]\n{pods}"
    )
}

pub fn intent(weight: u32) -> String {
    format!(
        "apiVersion: delivery.pointsman.dev/v1alpha1\nkind: DeploymentIntent\nmetadata: {{name: web, namespace: shop}}\n\
         spec:\n  service: {{name: web}}\n  analysis: {{warmup: 1ms, profiles: []}}\n  drain: {{timeout: 1ms}}\n  \
         strategy: {{canary: {{steps: [{{setWeight: {weight}}}, {{pause: {{}}}}, {{setWeight: 100}}]}}}}\n"
    )
}

/// A server with somebody who keeps what is handed over, in this directory, beside one file.
pub struct Kept {
    pub server: Running,
    pub files: TempDir,
}

impl Kept {
    pub async fn start(config: Config, state: &TempDir) -> Self {
        let files = TempDir::new().unwrap();
        std::fs::write(files.path().join("mesh.yaml"), mesh(&["v1"])).unwrap();
        let plane = plane::Plane::new(world::Settings::default(), compile::Options::default());
        let mut server = Server::bind(config, plane).await.unwrap();
        let (addresses, input, telemetry) = (server.addresses().clone(), server.input(), server.telemetry());
        let mut submitted = server.submitted().unwrap();
        let shelf = Shelf::open(state.path()).unwrap();
        let options = source::watch::Options::default();
        let (first, opened) = source::watch::open(&[files.path().to_owned()], options, Some(shelf), None);
        let secrets = server.gateway_secrets();
        let shutdown = CancellationToken::new();
        let run = tokio::spawn(server.run(shutdown.clone()));
        input.apply(first.changes, first.problems.to_vec(), Instant::now()).await.unwrap();
        input.set_synced().await.unwrap();
        let feeding = input.clone();
        let watch = opened.start(move |seen| {
            let told = feeding.apply_blocking(seen.update.changes, seen.update.problems.to_vec(), seen.at);
            if told.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        let watch = watch.unwrap();
        tokio::spawn(async move {
            while let Some(Submitted { submission, time, reply }) = submitted.recv().await {
                watch.submit(submission, time, reply);
            }
            // Joining its thread takes a moment.
            tokio::task::spawn_blocking(move || drop(watch)).await.unwrap();
        });
        let server = Running { addresses, input, telemetry, secrets, shutdown, run };
        server.ready().await;
        Self { server, files }
    }

    pub fn write(&self, name: &str, text: &str) {
        let next = self.files.path().join(format!(".{name}"));
        std::fs::write(&next, text).unwrap();
        std::fs::rename(next, self.files.path().join(name)).unwrap();
    }

    pub async fn client(&self) -> IntentsClient<Channel> {
        let address = format!("http://{}", self.server.addresses.admin.unwrap());
        IntentsClient::new(Endpoint::from_shared(address).unwrap().connect().await.unwrap())
    }

    pub fn caller(&self) -> Caller {
        Caller::new(self.server.addresses.admin.unwrap())
    }
}

fn apply(document: &str) -> ApplyRequest {
    ApplyRequest { document: document.to_owned(), ..ApplyRequest::default() }
}

fn web() -> Option<Reference> {
    let (kind, namespace, name) = ("DeploymentIntent".to_owned(), "shop".to_owned(), "web".to_owned());
    Some(Reference { kind, namespace, name })
}

fn deletion() -> DeleteRequest {
    DeleteRequest { reference: web(), ..DeleteRequest::default() }
}

async fn get(client: &mut IntentsClient<Channel>) -> Result<Object, Status> {
    Ok(client.get(GetRequest { reference: web() }).await?.into_inner())
}

/// Effect and generation of the only object.
async fn applied(client: &mut IntentsClient<Channel>, request: ApplyRequest) -> Result<(Effect, i64), Status> {
    let answer = client.apply(request).await?.into_inner();
    let [taken] = answer.objects.as_slice() else { panic!("{answer:?}") };
    assert_eq!(taken.reference, web());
    Ok((taken.effect(), taken.generation))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_intent_lives_from_apply_to_delete_over_grpc() {
    let state = TempDir::new().unwrap();
    let stage = Kept::start(config(), &state).await;
    let mut client = stage.client().await;
    assert_eq!(get(&mut client).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(applied(&mut client, apply(&intent(10))).await.unwrap(), (Effect::Created, 1));

    // It is in force as soon as it is answered.
    let object = get(&mut client).await.unwrap();
    assert!(object.applied && object.place.is_empty() && object.generation == 1, "{object:?}");
    let manifest: Value = serde_json::from_str(&object.manifest).unwrap();
    assert_eq!(manifest["spec"]["strategy"]["canary"]["steps"][0]["setWeight"], 10.0);
    assert_eq!(applied(&mut client, apply(&object.manifest)).await.unwrap(), (Effect::Unchanged, 1));

    // A run begins, and is acted on by whoever has seen where it is.
    stage.write("mesh.yaml", &mesh(&["v1", "v2"]));
    let rollout = async || get(&mut stage.client().await).await.unwrap().rollout.unwrap();
    let waiting = eventually(rollout, |rollout| rollout.phase == "Waiting").await;
    assert_eq!((&*waiting.run, waiting.step, waiting.configured_percent), ("web-1", Some(1), 10.0));
    let act = |verb: Verb, expected_step: u32, expected_run: &str| ActRequest {
        namespace: "shop".to_owned(),
        name: "web".to_owned(),
        verb: verb.into(),
        expected_step: Some(expected_step),
        expected_run: expected_run.to_owned(),
        actor: "alice".to_owned(),
        ..ActRequest::default()
    };
    for (wrong, code) in [
        (act(Verb::Promote, 0, ""), Code::Aborted),
        (act(Verb::Promote, 1, "web-7"), Code::Aborted),
        (act(Verb::Retry, 1, "web-1"), Code::FailedPrecondition),
        (act(Verb::RollBackTo, 1, "web-1"), Code::InvalidArgument),
        (act(Verb::Unspecified, 1, ""), Code::InvalidArgument),
        (ActRequest { name: "other".to_owned(), ..act(Verb::Promote, 1, "") }, Code::NotFound),
    ] {
        let status = client.act(wrong.clone()).await.unwrap_err();
        assert_eq!(status.code(), code, "{wrong:?}: {status:?}");
    }
    client.act(act(Verb::Promote, 1, "web-1")).await.unwrap();
    let done = eventually(rollout, |rollout| rollout.phase == "Completed").await;
    assert_eq!(done.conditions.len(), 5);
    assert!(done.conditions.iter().all(|condition| condition.since.is_some()), "{:?}", done.conditions);
    assert_eq!((&*done.actions[0].actor, &*done.actions[0].verb), ("alice", "promote"));
    let runs = ListRequest { kind: "RolloutRun".to_owned(), namespace: "shop".to_owned() };
    let runs = client.list(runs).await.unwrap().into_inner();
    let [run] = runs.objects.as_slice() else { panic!("{runs:?}") };
    assert!(!run.applied && run.reference.as_ref().unwrap().name == "web-1", "{run:?}");

    // Whoever has seen another generation changes nothing.
    let expecting = |generation| DeleteRequest { expected_generation: Some(generation), ..deletion() };
    assert_eq!(client.delete(expecting(2)).await.unwrap_err().code(), Code::Aborted);
    let dry = client.delete(DeleteRequest { dry_run: true, ..expecting(1) }).await.unwrap().into_inner();
    assert_eq!(dry.object.unwrap().effect(), Effect::Deleted);
    assert!(get(&mut client).await.is_ok());
    client.delete(expecting(1)).await.unwrap();
    assert_eq!(get(&mut client).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(client.delete(deletion()).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_told_with_its_fields_and_what_a_file_has_with_its_place() {
    let state = TempDir::new().unwrap();
    let stage = Kept::start(config(), &state).await;
    let mut client = stage.client().await;
    let wrong = intent(120).replace("warmup: 1ms", "warmup: soon");
    let wrong = format!("{}---\n{wrong}", intent(130).replace("name: web,", "name: other,"));
    let status = applied(&mut client, apply(&wrong)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let details = rpc::Status::decode(status.details()).unwrap();
    let refusal = Refusal::decode(&*details.details[0].value).unwrap();
    let fields: Vec<_> = refusal.problems.iter().map(|problem| &*problem.field).collect();
    assert!(fields.contains(&"spec.strategy.canary.steps[0].setWeight"), "{fields:?}");
    assert!(fields.contains(&"spec.analysis.warmup"), "{fields:?}");
    assert!(status.message().contains("spec.strategy.canary.steps[0].setWeight"), "{status:?}");

    stage.write("intent.yaml", &intent(30));
    let object = eventually(async || get(&mut stage.client().await).await.ok(), Option::is_some).await.unwrap();
    assert!(!object.applied && object.place.ends_with("intent.yaml:1:1"), "{object:?}");
    for status in
        [applied(&mut client, apply(&intent(40))).await.unwrap_err(), client.delete(deletion()).await.unwrap_err()]
    {
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert!(status.message().contains("intent.yaml"), "{status:?}");
    }
    // The same service under another name.
    let status = client.apply(apply(&intent(40).replace("name: web, namespace", "name: again, namespace"))).await;
    let status = status.unwrap_err();
    assert!(status.message().contains("already governed by DeploymentIntent shop/web"), "{status:?}");
    let status = client.get(GetRequest { reference: None }).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_watches_is_told_what_there_is_and_then_what_is_different() {
    let state = TempDir::new().unwrap();
    let stage = Kept::start(config(), &state).await;
    let mut client = stage.client().await;
    client.apply(apply(&intent(10))).await.unwrap();
    let wanted = WatchRequest { kind: "intents".to_owned(), namespace: "shop".to_owned(), name: String::new() };
    let mut events = client.watch(wanted).await.unwrap().into_inner();
    let mut next =
        async || -> WatchResponse { tokio::time::timeout(SOON, events.message()).await.unwrap().unwrap().unwrap() };
    let first = next().await;
    assert_eq!((first.change(), first.object.unwrap().reference), (Change::Added, web()));
    assert_eq!(next().await, WatchResponse { change: Change::Synced.into(), object: None });
    client.apply(apply(&intent(20))).await.unwrap();
    // What becomes of it is told as well, before or after.
    loop {
        let event = next().await;
        assert_eq!(event.change(), Change::Modified);
        if event.object.unwrap().generation == 2 {
            break;
        }
    }
    stage.write("mesh.yaml", &mesh(&["v1", "v2"]));
    loop {
        let event = next().await;
        assert_eq!(event.change(), Change::Modified);
        if event.object.unwrap().rollout.is_some_and(|rollout| rollout.phase == "Waiting") {
            break;
        }
    }
    client.delete(deletion()).await.unwrap();
    while next().await.change() != Change::Deleted {}
    stage.server.shutdown.cancel();
    // The server does not wait for those who watch.
    tokio::time::timeout(SOON, events.message()).await.unwrap().ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_is_had_over_http() {
    let state = TempDir::new().unwrap();
    let stage = Kept::start(config(), &state).await;
    let caller = stage.caller();
    let path = "/api/v1/intents/deploymentintent/shop/web";
    let call = async |method: Method, path: &str, body: String| {
        let (status, body) = caller.call(method, path, body).await.unwrap();
        (status.as_u16(), body)
    };
    let effect = |(status, body): (u16, bytes::Bytes)| {
        assert_eq!(status, 200, "{body:?}");
        let taken: IntentsTaken = serde_json::from_slice(&body).unwrap();
        (taken.objects[0].effect.clone(), taken.objects[0].generation)
    };
    let created = ("created".to_owned(), 1);
    assert_eq!(effect(call(Method::POST, "/api/v1/intents/check", intent(10)).await), created);
    assert_eq!(effect(call(Method::PUT, &format!("{path}?dry_run=true"), intent(10)).await), created);
    assert_eq!(call(Method::GET, path, String::new()).await.0, 404);
    let mut events = caller.events("/api/v1/intents/events?kind=deploymentintent", "").await.unwrap();
    assert_eq!(events.next().await.unwrap().unwrap().event, "synced");
    assert_eq!(effect(call(Method::POST, "/api/v1/intents?expected_generation=0", intent(10)).await), created);
    assert_eq!(events.next().await.unwrap().unwrap().event, "added");
    let (_, body) = call(Method::GET, path, String::new()).await;
    let object: IntentObject = serde_json::from_slice(&body).unwrap();
    assert!(object.applied);
    let again = call(Method::PUT, path, object.manifest.to_string()).await;
    assert_eq!(effect(again), ("unchanged".to_owned(), 1));
    let all: Intents = stage.server.json("/api/v1/intents?namespace=shop&name=web").await;
    assert_eq!(all.objects.len(), 1);
    for (method, path, body, status) in [
        (Method::PUT, "/api/v1/intents/deploymentintent/shop/other", intent(10), 400),
        (Method::PUT, "/api/v1/intents/pod/shop/web", intent(10), 400),
        (Method::PUT, &*format!("{path}?expected_generation=x"), intent(10), 400),
        (Method::PUT, &*format!("{path}?dry_run=perhaps"), intent(10), 400),
        (Method::PUT, &*format!("{path}?force=true"), intent(10), 400),
        (Method::PUT, &*format!("{path}?expected_generation=5"), intent(20), 409),
        (Method::POST, "/api/v1/intents", "x".repeat(3 << 20), 413),
        (Method::POST, "/api/v1/intents", json!({"kind": "List"}).to_string(), 400),
        (Method::DELETE, "/api/v1/intents/freeze/shop/web", String::new(), 404),
        (Method::DELETE, "/api/v1/intents", String::new(), 405),
        // Whatever stands in a path names an object, never a file.
        (Method::GET, "/api/v1/intents/freeze/..%2F..%2Fapplied.json/x", String::new(), 404),
        (Method::DELETE, "/api/v1/intents/freeze/%2e%2e/%2e%2e", String::new(), 404),
        (Method::GET, "/api/v1/intents/freeze/shop/../../../../etc/passwd", String::new(), 404),
        (Method::DELETE, "/api/v1/intents/freeze/a%0d%0aX-Evil:%201/b%00", String::new(), 404),
    ] {
        let (found, body) = call(method.clone(), path, body).await;
        assert_eq!(found, status, "{method} {path}: {body:?}");
        let failure: Failure = serde_json::from_slice(&body).unwrap();
        assert!(!failure.error.is_empty() && !failure.hint.is_empty(), "{failure:?}");
    }
    let (status, body) = call(Method::PUT, path, intent(120)).await;
    let failure: Failure = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, &*failure.problems[0].field), (400, "spec.strategy.canary.steps[0].setWeight"));
    let gone = call(Method::DELETE, &format!("{path}?expected_generation=1"), String::new()).await;
    assert_eq!(effect(gone), ("deleted".to_owned(), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_applied_is_there_after_a_restart_and_without_a_keeper_nothing_is_taken() {
    let state = TempDir::new().unwrap();
    let stage = Kept::start(config(), &state).await;
    let mut client = stage.client().await;
    client.apply(apply(&intent(10))).await.unwrap();
    client.apply(apply(&intent(20))).await.unwrap();
    let Kept { server, .. } = stage;
    server.stop().await.unwrap();
    let stage = Kept::start(config(), &state).await;
    assert_eq!(get(&mut stage.client().await).await.unwrap().generation, 2);

    let server = crate::fixture::serving(config(), crate::fixture::REVIEWS).await;
    let caller = Caller::new(server.addresses.admin.unwrap());
    let (status, body) = caller.call(Method::POST, "/api/v1/intents", intent(10)).await.unwrap();
    assert_eq!(status, 503, "{body:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_nothing_can_have_is_refused_in_few_words() {
    let state = TempDir::new().unwrap();
    let stage = Kept::start(config(), &state).await;
    let mut client = stage.client().await;
    let long = "x".repeat(6_000);
    let named =
        |name: &str| Some(Reference { kind: "DeploymentIntent".into(), namespace: "shop".into(), name: name.into() });
    let get = client.get(GetRequest { reference: named(&long) }).await.unwrap_err();
    let delete = DeleteRequest { reference: named(&long), ..DeleteRequest::default() };
    let delete = client.delete(delete).await.unwrap_err();
    let act =
        ActRequest { namespace: "shop".into(), name: long.clone(), verb: Verb::Abort.into(), ..ActRequest::default() };
    let act = client.act(act).await.unwrap_err();
    let list = client.list(ListRequest { kind: String::new(), namespace: long.clone() }).await.unwrap_err();
    for status in [get, delete, act, list] {
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains("longer than") && status.message().len() < 100, "{status}");
    }
    let short = client.get(GetRequest { reference: named(&"x".repeat(250)) }).await.unwrap_err();
    assert_eq!(short.code(), Code::NotFound, "{short}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_message_is_the_callers_mistake() {
    let state = TempDir::new().unwrap();
    let stage = Kept::start(config(), &state).await;
    let socket = tokio::net::TcpStream::connect(stage.server.addresses.admin.unwrap()).await.unwrap();
    let (requests, connection) = h2::client::handshake(socket).await.unwrap();
    let connection = tokio::spawn(connection);
    for method in ["Apply", "Get", "List", "Watch", "Act", "Delete"] {
        for bytes in [&[][..], &[0, 0, 0, 0, 9, 1], &[7, 0, 0, 0, 0], &[0, 0, 0, 0, 1, 0xff], b"GET / HTTP/1.1\r\n\r\n"]
        {
            let uri = format!("http://pointsman/pointsman.delivery.v1alpha1.Intents/{method}");
            let request = http::Request::post(uri).header("content-type", "application/grpc").body(()).unwrap();
            let mut ready = requests.clone().ready().await.unwrap();
            let (answer, mut send) = ready.send_request(request, false).unwrap();
            send.send_data(bytes.to_vec().into(), true).unwrap();
            let answer = tokio::time::timeout(SOON, answer).await.unwrap().unwrap();
            let status = Status::from_header_map(answer.headers()).unwrap();
            let is_refused = matches!(status.code(), Code::InvalidArgument | Code::OutOfRange);
            assert!(is_refused && !status.message().is_empty(), "{method} {bytes:?}: {status:?}");
        }
    }
    connection.abort();
    assert_eq!(get(&mut stage.client().await).await.unwrap_err().code(), Code::NotFound, "others are served");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_an_intent_from_running_is_told_wherever_its_rollout_is() {
    let state = TempDir::new().unwrap();
    let stage = Kept::start(config(), &state).await;
    let attached = intent(10).replace("service: {name: web}", "service: {name: web}\n  attach: {gateways: [edge]}");
    stage.write("intent.yaml", &attached);
    let is_told = |rollout: &proto::delivery::Rollout| {
        let mut accepted = rollout.conditions.iter().filter(|condition| condition.kind == "Accepted");
        accepted.all(|condition| condition.status == Some(false))
            && rollout.problems.iter().any(|problem| problem.field == "spec.attach.gateways[0]" && problem.line > 0)
    };
    let rollout = async || get(&mut stage.client().await).await.ok().and_then(|object| object.rollout);
    eventually(rollout, |rollout| rollout.as_ref().is_some_and(is_told)).await;
    let listed = stage.client().await.list(ListRequest::default()).await.unwrap().into_inner();
    assert!(listed.objects.iter().filter_map(|object| object.rollout.as_ref()).any(is_told), "{listed:?}");
    let watch = WatchRequest { kind: "DeploymentIntent".to_owned(), ..WatchRequest::default() };
    let mut events = stage.client().await.watch(watch).await.unwrap().into_inner();
    loop {
        let event = tokio::time::timeout(SOON, events.message()).await.unwrap().unwrap().unwrap();
        if event.object.and_then(|object| object.rollout).is_some_and(|rollout| is_told(&rollout)) {
            break;
        }
    }

    // With the Gateway it can be carried out, also when that comes later.
    let gateway = "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: edge, namespace: shop}\nspec:\n  \
                   selector: {app: edge}\n  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]\n";
    stage.write("gateway.yaml", gateway);
    let rollout = async || get(&mut stage.client().await).await.unwrap().rollout.unwrap();
    let accepted = |rollout: &proto::delivery::Rollout| rollout.stable == "v1" && !is_told(rollout);
    eventually(rollout, accepted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_winner_of_a_test_is_named_over_grpc_and_http() {
    let ab = "{type: AB, ab: {variants: [{name: a, revision: v1, share: 50}, {name: b, revision: v2, share: 30}, \
              {name: c, revision: v3, share: 20}]}}";
    let canary = "{canary: {steps: [{setWeight: 10}, {pause: {}}, {setWeight: 100}]}}";
    for over_grpc in [true, false] {
        let state = TempDir::new().unwrap();
        let stage = Kept::start(config(), &state).await;
        let mut client = stage.client().await;
        assert!(intent(10).contains(canary));
        client.apply(apply(&intent(10).replace(canary, ab))).await.unwrap();
        stage.write("mesh.yaml", &mesh(&["v1", "v2", "v3"]));
        let rollout = async || get(&mut stage.client().await).await.unwrap().rollout.unwrap();
        let test = eventually(rollout, |rollout| rollout.phase == "Waiting").await;
        let (name, winner) = if test.candidate == "v2" { ("c", "v3") } else { ("b", "v2") };
        if over_grpc {
            let act = |variant: &str| ActRequest {
                namespace: "shop".to_owned(),
                name: "web".to_owned(),
                verb: Verb::Promote.into(),
                variant: variant.to_owned(),
                expected_step: test.step,
                expected_run: test.run.clone(),
                ..ActRequest::default()
            };
            let moved = ActRequest { expected_step: Some(7), ..act(name) };
            assert_eq!(client.act(moved).await.unwrap_err().code(), Code::Aborted);
            let other = ActRequest { verb: Verb::Abort.into(), ..act(name) };
            assert_eq!(client.act(other).await.unwrap_err().code(), Code::InvalidArgument);
            for nobody in ["", "d"] {
                let status = client.act(act(nobody)).await.unwrap_err();
                assert_eq!(status.code(), Code::FailedPrecondition);
                assert!(status.message().contains("a (v1), b (v2), c (v3)"), "{status:?}");
            }
            client.act(act(name)).await.unwrap();
        } else {
            let admin = stage.server.addresses.admin.unwrap();
            let act = async |body: Value| {
                testkit::http::post_json(admin, "/api/v1/rollouts/shop/web/actions", &body).await.unwrap()
            };
            let (status, answer) = act(json!({"verb": "promote"})).await;
            assert!(status == 409 && answer.to_string().contains("a (v1), b (v2), c (v3)"), "{status} {answer}");
            assert_eq!(act(json!({"verb": "abort", "variant": name})).await.0, 400);
            let (status, answer) = act(json!({"verb": "promote", "variant": name, "actor": "alice"})).await;
            assert_eq!((status, &answer["actions"][0]["verb"]), (200, &json!(format!("promote {name}"))), "{answer}");
        }
        let won = |rollout: &proto::delivery::Rollout| rollout.phase == "Completed" && rollout.stable == *winner;
        let done = eventually(rollout, |rollout| rollout.phase == "Completed" && rollout.candidate == *winner).await;
        assert!(won(&done) || done.runs[0].candidate == *winner, "{done:?}");
        assert!(done.runs[1].reason.contains(&format!("\"{winner}\" has won the test")), "{done:?}");
    }
}
