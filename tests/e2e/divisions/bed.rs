//! A server that is fed by the test, the route of its service, and runs.

use std::cell::Cell;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};
use server::{Config, Input, Listen, Server};
use testkit::envoy::{Envoy, Setup};
use testkit::ports;
use tokio_util::sync::CancellationToken;
use world::{Change, Kind, Meta, Object, ObjectRef, Settings, Spec};

use crate::mesh::Variant;

/// A server in this process, that is fed by the test.
pub struct Bed {
    input: Input,
    xds: SocketAddr,
    shutdown: CancellationToken,
    /// How many runs were put in force.
    runs: Cell<i64>,
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Bed {
    pub async fn start(manifests: &str, run: impl Into<Option<Value>>) -> Bed {
        let config = Config {
            xds_listen: vec![Listen::Tcp(ports::local().unwrap())],
            virtual_hosts: compile::HostDelivery::Separate,
            ..Config::default()
        };
        let plane = plane::Plane::new(Settings::default(), compile::Options::default());
        let server = Server::bind(config, plane).await.unwrap();
        let Listen::Tcp(xds) = server.addresses().xds[0].clone() else { panic!("a TCP address was asked for") };
        let (input, shutdown) = (server.input(), CancellationToken::new());
        tokio::spawn(server.run(shutdown.clone()));
        let bed = Bed { input, xds, shutdown, runs: Cell::new(0) };
        bed.apply(manifests, run.into()).await;
        bed.input.set_synced().await.unwrap();
        bed
    }

    /// Takes objects in, and a run; returns the moment before.
    pub async fn apply(&self, manifests: &str, run: Option<Value>) -> Instant {
        let parsed = source::text::parse("test.yaml", manifests.as_bytes(), &source::Options::default());
        assert!(parsed.problems.is_empty(), "{:#?}", parsed.problems);
        let mut changes: Vec<_> = parsed.objects.into_iter().map(Change::Apply).collect();
        if let Some(spec) = run {
            self.runs.set(self.runs.get() + 1);
            let reference = ObjectRef::new(Kind::RolloutRun, "default", "run");
            let meta = Meta { generation: self.runs.get(), ..Meta::default() };
            let spec = Spec::RolloutRun(serde_json::from_value(spec).unwrap());
            changes.push(Change::Apply(Object { reference, meta, spec }.into()));
        }
        let before = Instant::now();
        self.input.apply(changes, Vec::new(), before).await.unwrap();
        before
    }

    pub async fn remove(&self, kind: Kind, name: &str) {
        let gone = Change::Remove(ObjectRef::new(kind, "default", name));
        self.input.apply(vec![gone], Vec::new(), Instant::now()).await.unwrap();
    }

    pub fn bootstrap(&self, arguments: &[&str]) -> Value {
        let (xds, admin) = (self.xds.to_string(), ports::local().unwrap().to_string());
        let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
        let output = command.args(["bootstrap", "--admin", &admin, "--xds", &xds]).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    pub async fn client(&self, variant: Variant, arguments: &[&str]) -> Envoy {
        let state_of_the_world = (variant == Variant::StateOfTheWorld).then_some("--state-of-the-world");
        let arguments: Vec<_> = arguments.iter().copied().chain(state_of_the_world).collect();
        Setup::new(self.bootstrap(&arguments)).start().await.unwrap()
    }

    pub async fn sidecar(&self, variant: Variant) -> Envoy {
        self.client(variant, &["--pod", "client", "--interception", "none"]).await
    }
}

/// The route of `reviews` with a mark, which is how a change is seen to have arrived.
pub fn route(mark: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: reviews, namespace: default}}\n\
         spec:\n  hosts: [reviews]\n  http:\n    - headers: {{response: {{set: {{x-mark: {mark}}}}}}}\n      \
         route: [{{destination: {{host: reviews}}}}]\n"
    )
}

pub fn run_of(service: &str, split: Value) -> Value {
    json!({
        "service": {"name": service}, "label": "version", "stable": "v1", "candidate": "v2",
        "assignment": {
            "version": 1, "split": split, "routes": [], "mirror": null, "stickiness": {}, "fallback": null,
        },
    })
}

pub fn weights(candidate: f64) -> Value {
    json!({"Weights": [["v2", candidate], ["v1", 100.0 - candidate]]})
}

pub fn canary(candidate: f64) -> Value {
    run_of("reviews", weights(candidate))
}

pub fn with(mut run: Value, part: &str, value: Value) -> Value {
    run["assignment"][part] = value;
    run
}
