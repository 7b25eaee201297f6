//! Who may call the admin API, what is recorded of it, and attempts to get around both.

use std::net::SocketAddr;
use std::path::PathBuf;

use http::{HeaderName, HeaderValue, Method};
use proto::admin::admin_client::AdminClient;
use proto::admin::{ListNodesRequest, ListObjectsRequest};
use proto::delivery::intents_client::IntentsClient;
use proto::delivery::{ApplyRequest, DeleteRequest, ListRequest, Reference};
use serde_json::Value;
use server::{AdminAccess, Config, Error, Server};
use tempfile::TempDir;
use testkit::http::Caller;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::fixture::{REVIEWS, SOON, config, eventually, serving};
use crate::intents::{Kept, intent};

const WRITE: &str = "write-token-0123456789";
const READ: &str = "read-token-0123456789";

/// A state directory with tokens, and a configuration that uses them.
struct Locked {
    directory: TempDir,
    config: Config,
}

impl Locked {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let access = AdminAccess {
            tokens: Some(file("write", &format!("ops {WRITE}\n"))),
            read_tokens: Some(file("read", &format!("{READ}\n"))),
            is_open: false,
        };
        let state = Some(directory.path().join("state"));
        let config = Config { admin_access: access, state, ..config() };
        Self { directory, config }
    }

    fn trail(&self) -> PathBuf {
        self.directory.path().join("state/audit/admin.jsonl")
    }

    /// The lines of the audit trail.
    fn lines(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.trail()).unwrap_or_default();
        assert!(!text.contains(WRITE) && !text.contains(READ), "{text}");
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn caller(address: SocketAddr, token: &str) -> Caller {
    let caller = Caller::new(address);
    if token.is_empty() { caller } else { caller.with_token(token).unwrap() }
}

async fn channel(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

/// Adds a token to each call.
fn with(token: &str) -> impl Interceptor + Clone + use<> {
    let value: AsciiMetadataValue = format!("Bearer {token}").parse().unwrap();
    move |mut request: Request<()>| -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", value.clone());
        Ok(request)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_but_health_needs_a_token_and_what_changes_something_one_that_may_write() {
    let locked = Locked::new();
    let server = serving(locked.config.clone(), REVIEWS).await;
    let admin = server.addresses.admin.unwrap();
    let reading = [
        "/",
        "/metrics",
        "/api/v1/nodes",
        "/api/v1/objects",
        "/api/v1/problems",
        "/api/v1/changes",
        "/api/v1/load",
        "/api/v1/rollouts",
        "/api/v1/intents",
        "/api/v1/wait?for=synced&timeout=0",
    ];
    let status = async |token: &str, method: Method, path: &str| {
        caller(admin, token).call(method, path, "{}").await.unwrap().0.as_u16()
    };
    for path in ["/healthz", "/readyz"] {
        assert_eq!(status("", Method::GET, path).await, 200, "{path}");
    }
    let wrong = ["", "wrong", "write-token-012345678", "write-token-01234567890", "ops", "ops write-token-0123456789"];
    for path in reading {
        for token in wrong {
            assert_eq!(status(token, Method::GET, path).await, 401, "{path} with \"{token}\"");
        }
        for token in [READ, WRITE] {
            assert_eq!(status(token, Method::GET, path).await, 200, "{path}");
        }
    }
    // What is not there is not told to strangers either.
    assert_eq!(status("", Method::GET, "/nothing").await, 401);
    assert_eq!(status("", Method::GET, "/healthz/../api/v1/nodes").await, 401);
    let changing = [
        (Method::PUT, "/api/v1/load/settings"),
        (Method::POST, "/api/v1/rollouts/shop/web/actions"),
        (Method::POST, "/api/v1/intents"),
        (Method::PUT, "/api/v1/intents/freeze/shop/web"),
        (Method::DELETE, "/api/v1/intents/freeze/shop/web"),
        (Method::PATCH, "/api/v1/nodes"),
    ];
    for (method, path) in changing {
        assert_eq!(status("", method.clone(), path).await, 401, "{method} {path}");
        assert_eq!(status(READ, method.clone(), path).await, 403, "{method} {path}");
        assert!(![401, 403].contains(&status(WRITE, method.clone(), path).await), "{method} {path}");
    }
    // A token is one, in its own header, after the word for it.
    for (name, value) in [
        ("authorization", WRITE.to_owned()),
        ("authorization", format!("Basic {WRITE}")),
        ("authorization", format!("Bearer{WRITE}")),
        ("x-authorization", format!("Bearer {WRITE}")),
        ("cookie", format!("authorization=Bearer {WRITE}")),
    ] {
        let caller = Caller::new(admin).with_header(HeaderName::from_static(name), value.parse().unwrap());
        assert_eq!(caller.call(Method::GET, "/api/v1/nodes", "").await.unwrap().0, 401, "{name}: {value}");
    }
    let two = caller(admin, WRITE).with_token("another-token-0123456789").unwrap();
    assert_eq!(two.call(Method::GET, "/api/v1/nodes", "").await.unwrap().0, 401);
    // In the address it is none.
    assert_eq!(status("", Method::GET, &format!("/api/v1/nodes?token={WRITE}")).await, 401);
    // HTTP that says it were gRPC reaches nothing of HTTP.
    let disguised =
        Caller::new(admin).with_header(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    let (status, body) = disguised.call(Method::GET, "/api/v1/nodes", "").await.unwrap();
    assert!(status != 200 || body.is_empty(), "{status} {body:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_holds_over_grpc_on_both_ports() {
    let locked = Locked::new();
    let server = serving(locked.config.clone(), REVIEWS).await;
    let code = |result: Result<(), Status>| result.map_or_else(|status| status.code(), |()| Code::Ok);
    for address in [server.addresses.admin.unwrap(), server.tcp()] {
        let channel = channel(address).await;
        HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await.unwrap();
        let mut bare = AdminClient::new(channel.clone());
        let nodes = bare.list_nodes(ListNodesRequest::default()).await;
        assert_eq!(code(nodes.map(|_| ())), Code::Unauthenticated);
        for (token, expected) in [("nothing-that-is-known", Code::Unauthenticated), (READ, Code::Ok), (WRITE, Code::Ok)]
        {
            let mut admin = AdminClient::with_interceptor(channel.clone(), with(token));
            let objects = admin.list_objects(ListObjectsRequest::default()).await;
            assert_eq!(code(objects.map(|_| ())), expected, "{token}");
        }
        let mut reflection =
            tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient::new(channel.clone());
        let asked = reflection.server_reflection_info(tokio_stream::empty()).await;
        assert_eq!(code(asked.map(|_| ())), Code::Unauthenticated);
    }
    // Clients of xDS need none.
    let mut stream = server.wire().await.sotw(testkit::wire::node(crate::fixture::NODE, "client"));
    stream.subscribe(proto::ResourceType::Cluster, &[]).await;
    stream.next(crate::fixture::SOON).await.unwrap();

    let channel = channel(server.addresses.admin.unwrap()).await;
    let mut intents = IntentsClient::with_interceptor(channel, with(READ));
    intents.list(ListRequest::default()).await.unwrap();
    let apply = ApplyRequest { document: intent(10), ..ApplyRequest::default() };
    assert_eq!(intents.apply(apply).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(intents.delete(DeleteRequest::default()).await.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_can_be_changed_through_the_ports_for_clients() {
    let server = serving(config(), REVIEWS).await;
    let mut intents = IntentsClient::new(channel(server.tcp()).await);
    let apply = ApplyRequest { document: intent(10), ..ApplyRequest::default() };
    assert_eq!(intents.apply(apply).await.unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_changes_something_is_recorded_with_the_outcome() {
    let locked = Locked::new();
    let state = locked.directory.path().join("applied");
    std::fs::create_dir(&state).unwrap();
    let keeper = TempDir::new_in(&state).unwrap();
    let stage = Kept::start(locked.config.clone(), &keeper).await;
    let admin = stage.server.addresses.admin.unwrap();
    let writer = caller(admin, WRITE);
    let path = "/api/v1/intents?actor=alice&reason=a%0d%0ab";
    assert_eq!(writer.call(Method::POST, path, intent(10)).await.unwrap().0, 200);
    assert_eq!(writer.call(Method::POST, path, intent(120)).await.unwrap().0, 400);
    // Who may not is not recorded as somebody who has done something, nor is who only looks.
    caller(admin, READ).call(Method::POST, path, intent(10)).await.unwrap();
    caller(admin, "").call(Method::POST, path, intent(10)).await.unwrap();
    writer.call(Method::GET, "/api/v1/intents", "").await.unwrap();
    let mut grpc = IntentsClient::with_interceptor(channel(admin).await, with(WRITE));
    let reference = |name: &str| {
        Some(Reference { kind: "DeploymentIntent".to_owned(), namespace: "shop".to_owned(), name: name.to_owned() })
    };
    let delete =
        |name: &str| DeleteRequest { reference: reference(name), actor: "bob".to_owned(), ..Default::default() };
    grpc.delete(delete("nothing")).await.unwrap_err();
    grpc.delete(delete("web")).await.unwrap();

    let lines = locked.lines();
    let answered: Vec<_> = lines.iter().filter(|line| line["event"] == "answered").collect();
    let of = |field: &str| answered.iter().map(|line| line[field].as_str().unwrap_or("")).collect::<Vec<_>>();
    assert_eq!(of("outcome"), ["200", "400", "grpc 5", "200"]);
    assert_eq!(of("caller"), ["ops"; 4]);
    assert_eq!(of("actor"), ["alice", "alice", "bob", "bob"]);
    assert_eq!(of("what"), ["apply", "apply", "delete", "delete"]);
    assert_eq!(answered[0]["objects"][0], "deploymentintent/shop/web created, generation 1");
    assert_eq!(answered[0]["reason"], "a\r\nb");
    assert!(answered[1]["error"].as_str().unwrap().contains("setWeight"), "{}", answered[1]);
    assert!(answered[0]["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{}", answered[0]);
    // Each was recorded before anything was done.
    assert_eq!(lines.len(), 8);
    for pair in lines.chunks(2) {
        assert_eq!((&pair[0]["event"], &pair[0]["call"]), (&"asked".into(), &pair[1]["call"]), "{pair:?}");
    }
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(locked.trail()).unwrap());
    assert_eq!(mode & 0o077, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_hangs_up_before_the_answer_is_recorded_as_well() {
    let locked = Locked::new();
    let plane = plane::Plane::new(world::Settings::default(), compile::Options::default());
    let mut server = Server::bind(locked.config.clone(), plane).await.unwrap();
    let (mut submitted, admin) = (server.submitted().unwrap(), server.addresses().admin.unwrap());
    let shutdown = tokio_util::sync::CancellationToken::new();
    let run = tokio::spawn(server.run(shutdown.clone()));
    let writer = caller(admin, WRITE);
    let call = tokio::spawn(async move {
        writer.call(Method::POST, "/api/v1/intents?actor=eve", intent(10)).await.map(|_| ()).ok();
    });
    // Nobody answers it, and the caller leaves.
    let under_way = tokio::time::timeout(SOON, submitted.recv()).await.unwrap().unwrap();
    call.abort();
    let lines = eventually(async || locked.lines(), |lines| lines.len() == 2).await;
    assert_eq!((&lines[1]["actor"], &lines[1]["what"]), (&"eve".into(), &"apply".into()));
    assert_eq!(lines[1]["outcome"], "the caller hung up");
    drop(under_way);
    shutdown.cancel();
    run.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_recorded_is_not_done() {
    let locked = Locked::new();
    let keeper = TempDir::new().unwrap();
    let stage = Kept::start(locked.config.clone(), &keeper).await;
    let writer = caller(stage.server.addresses.admin.unwrap(), WRITE);
    // A directory in the place of the file.
    std::fs::create_dir(locked.trail()).unwrap();
    assert_eq!(writer.call(Method::POST, "/api/v1/intents", intent(10)).await.unwrap().0, 503);
    let (_, body) = writer.call(Method::GET, "/api/v1/intents", "").await.unwrap();
    assert_eq!(&*body, br#"{"objects":[]}"#);
    std::fs::remove_dir(locked.trail()).unwrap();
    assert_eq!(writer.call(Method::POST, "/api/v1/intents", intent(10)).await.unwrap().0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_others_in_a_browser_on_this_machine_reach_nothing() {
    let server = serving(config(), REVIEWS).await;
    let admin = server.addresses.admin.unwrap();
    let from = |name: &'static str, value: &str| {
        Caller::new(admin).with_header(HeaderName::from_static(name), value.parse().unwrap())
    };
    let settings = r#"{"interval_seconds": 5, "endpoints": false}"#;
    let put =
        async |caller: Caller| caller.call(Method::PUT, "/api/v1/load/settings", settings).await.unwrap().0.as_u16();
    assert_eq!(put(Caller::new(admin)).await, 200);
    assert_eq!(put(from("origin", &format!("http://{admin}"))).await, 200);
    for origin in ["http://evil.example", "null", "http://127.0.0.1:1"] {
        assert_eq!(put(from("origin", origin)).await, 403, "{origin}");
    }
    // A name that leads here because somebody else says so.
    for host in ["evil.example:15014", "localhost.evil.example"] {
        assert_eq!(put(from("host", host)).await, 403, "{host}");
        let (status, _) = from("host", host).call(Method::GET, "/api/v1/nodes", "").await.unwrap();
        assert_eq!(status, 403, "{host}");
    }
}

#[tokio::test]
async fn an_open_port_without_a_token_is_refused_unless_that_is_said() {
    let bind = async |listen: &str, is_open: bool| {
        let admin_access = AdminAccess { is_open, ..AdminAccess::default() };
        let config = Config { admin_listen: Some(listen.parse().unwrap()), admin_access, ..config() };
        let plane = plane::Plane::new(world::Settings::default(), compile::Options::default());
        Server::bind(config, plane).await.map(|_| ())
    };
    for address in ["0.0.0.0:0", "[::]:0"] {
        let Err(Error::Admin(words)) = bind(address, false).await else { panic!("{address}") };
        assert!(words.contains("--admin-token-file") && words.contains("--admin-without-token"), "{words}");
    }
    bind("0.0.0.0:0", true).await.unwrap();
    bind("127.0.0.1:0", false).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_never_asks_is_closed() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut config = config();
    // Long enough for those who ask whether the server is ready, also on a busy machine.
    config.deadlines.first_request = std::time::Duration::from_secs(2);
    let server = serving(config, REVIEWS).await;
    let mut sockets = Vec::new();
    for begin in [&b""[..], b"P", b"PRI * HT", b"GET / HTTP/1.1\r\nhost: x", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut socket = tokio::net::TcpStream::connect(server.addresses.admin.unwrap()).await.unwrap();
        socket.write_all(begin).await.unwrap();
        sockets.push((begin, socket));
    }
    for (begin, mut socket) in sockets {
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(crate::fixture::SOON, socket.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "{begin:?}");
    }
}
