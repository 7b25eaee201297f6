//! A running server with a small mesh, and ways to talk to it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use server::view::{Event, EventKind};
use server::{Addresses, Config, Deadlines, Error, Input, Listen, Server, Telemetry};
use testkit::wire::Wire;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use world::Change;

/// Longer than anything takes, also on a machine that is ten times slower than usual.
pub const SOON: Duration = Duration::from_secs(120);

pub const NODE: &str = "sidecar~10.9.0.1~client-1.default~default.svc.cluster.local";

pub const REVIEWS: &str = "
apiVersion: v1
kind: Service
metadata: { name: reviews, namespace: default }
spec: { clusterIP: 10.1.0.1, ports: [{ name: http, port: 80, targetPort: 8080 }] }
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: reviews-1, namespace: default, labels: { kubernetes.io/service-name: reviews } }
addressType: IPv4
ports: [{ name: http, port: 8080 }]
endpoints: [{ addresses: [10.2.0.1], conditions: { ready: true } }]
";

pub const RATINGS: &str = "
apiVersion: v1
kind: Service
metadata: { name: ratings, namespace: default }
spec: { clusterIP: 10.1.0.2, ports: [{ name: http, port: 80 }] }
";

pub const RETRIES: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: { name: reviews, namespace: default }
spec:
  hosts: [reviews]
  http: [{ name: all, timeout: 3s, route: [{ destination: { host: reviews } }] }]
";

pub const CLUSTER: &str = "outbound|80||reviews.default.svc.cluster.local";

/// The objects of a text, as the file source says them.
pub fn changes(yaml: &str) -> Vec<Change> {
    let parsed = source::text::parse("mesh.yaml", yaml.as_bytes(), &source::Options::default());
    assert!(parsed.problems.is_empty(), "{:#?}", parsed.problems);
    parsed.objects.into_iter().map(Change::Apply).collect()
}

/// A server; it is told to end when this is dropped.
pub struct Running {
    pub addresses: Addresses,
    pub input: Input,
    pub telemetry: Arc<Telemetry>,
    pub secrets: server::GatewaySecrets,
    pub shutdown: CancellationToken,
    pub run: JoinHandle<Result<(), Error>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

pub fn config() -> Config {
    Config {
        xds_listen: vec![Listen::Tcp(([127, 0, 0, 1], 0).into())],
        admin_listen: Some(([127, 0, 0, 1], 0).into()),
        deadlines: deadlines(),
        ..Config::default()
    }
}

/// Streams are waited for as long as it takes: a node that a busy machine lets answer late is still one that is there. And
/// a server that ends only at its deadline has not ended soon.
pub fn deadlines() -> Deadlines {
    Deadlines { inspect: SOON, drain: 2 * SOON, ..Deadlines::default() }
}

/// A server that has read nothing yet.
pub async fn start(config: Config) -> Running {
    let plane = plane::Plane::new(world::Settings::default(), compile::Options::default());
    let server = Server::bind(config, plane).await.unwrap();
    let (addresses, input, telemetry) = (server.addresses().clone(), server.input(), server.telemetry());
    let secrets = server.gateway_secrets();
    let shutdown = CancellationToken::new();
    let run = tokio::spawn(server.run(shutdown.clone()));
    Running { addresses, input, telemetry, secrets, shutdown, run }
}

/// A server that has read this.
pub async fn serving(config: Config, yaml: &str) -> Running {
    let running = start(config).await;
    running.apply(yaml).await;
    running.input.set_synced().await.unwrap();
    running.ready().await;
    running
}

impl Running {
    pub async fn apply(&self, yaml: &str) {
        self.input.apply(changes(yaml), Vec::new(), Instant::now()).await.unwrap();
    }

    /// Waits until streams are served.
    pub async fn ready(&self) {
        let deadline = Instant::now() + SOON;
        while self.get("/readyz").await.0 != 200 {
            assert!(Instant::now() < deadline, "the server does not become ready");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub fn xds(&self) -> String {
        match &self.addresses.xds[0] {
            Listen::Tcp(address) => format!("http://{address}"),
            Listen::Unix(path) => format!("unix:{}", path.display()),
        }
    }

    pub fn tcp(&self) -> std::net::SocketAddr {
        match &self.addresses.xds[0] {
            Listen::Tcp(address) => *address,
            Listen::Unix(path) => panic!("{} is not a TCP address", path.display()),
        }
    }

    pub async fn wire(&self) -> Wire {
        Wire::connect(self.xds()).await.unwrap()
    }

    /// Asks the admin port; path and query as they go over the wire.
    pub async fn get(&self, path: &str) -> (u16, String) {
        self.ask("GET", path).await
    }

    pub async fn ask(&self, method: &str, path: &str) -> (u16, String) {
        let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
        let uri = format!("http://{}{path}", self.addresses.admin.unwrap());
        let request = http::Request::builder().method(method).uri(uri).body(Empty::new()).unwrap();
        let response = tokio::time::timeout(SOON, client.request(request)).await.unwrap().unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    /// Listens to server-sent events.
    pub async fn events(&self, path: &str, last_event_id: Option<u64>) -> Events {
        let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
        let uri = format!("http://{}{path}", self.addresses.admin.unwrap());
        let mut request = http::Request::builder().uri(uri);
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id.to_string());
        }
        let response = client.request(request.body(Empty::new()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Events { body: response.into_body(), text: String::new() }
    }

    pub async fn json<T: serde::de::DeserializeOwned>(&self, path: &str) -> T {
        let (status, text) = self.get(path).await;
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    /// The value of one line of the metrics, by its name with labels.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        let (_, text) = self.get("/metrics").await;
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }

    /// Ends the server and waits for it.
    pub async fn stop(mut self) -> Result<(), Error> {
        self.shutdown.cancel();
        tokio::time::timeout(SOON, &mut self.run).await.unwrap().unwrap()
    }
}

/// A stream of events.
pub struct Events {
    body: hyper::body::Incoming,
    text: String,
}

impl Events {
    /// The next event.
    pub async fn next(&mut self) -> Event {
        loop {
            if let Some((frame, rest)) = self.text.split_once("\n\n") {
                let data = frame.lines().find_map(|line| line.strip_prefix("data: ")).map(str::to_owned);
                let id = frame.lines().find_map(|line| line.strip_prefix("id: ")).map(|id| id.parse().unwrap());
                self.text = rest.to_owned();
                // Comments keep the connection alive.
                let Some(data) = data else { continue };
                let event: Event = serde_json::from_str(&data).unwrap();
                assert_eq!(id.unwrap_or(0), event.id, "{data}");
                return event;
            }
            let frame = tokio::time::timeout(SOON, self.body.frame()).await.unwrap().unwrap().unwrap();
            self.text += std::str::from_utf8(frame.data_ref().unwrap()).unwrap();
        }
    }

    /// The next event of this kind.
    pub async fn until(&mut self, kind: EventKind) -> Event {
        loop {
            let event = self.next().await;
            if event.kind == kind {
                return event;
            }
        }
    }
}

/// Waits for an answer that `is_right`, and returns it.
pub async fn eventually<T, F: Future<Output = T>>(mut ask: impl FnMut() -> F, is_right: impl Fn(&T) -> bool) -> T
where
    T: std::fmt::Debug,
{
    let deadline = Instant::now() + SOON;
    loop {
        let answer = ask().await;
        if is_right(&answer) {
            return answer;
        }
        assert!(Instant::now() < deadline, "still {answer:#?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub fn socket_path(directory: &tempfile::TempDir) -> PathBuf {
    directory.path().join("xds.sock")
}
