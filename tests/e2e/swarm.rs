//! The swarm against the real server, and against what is no server.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output, Stdio};

use ::swarm::scenario::{Change, Connect, Endpoints, Hold, NodeSize, Phase, Reconnect, Scenario, Trigger, Variant};
use ::swarm::{Options, Report, run};

use crate::mesh::{Mesh, PATIENCE};

/// Services in the mesh of these tests.
const SERVICES: usize = 20;

fn services() -> String {
    let one = |index: usize| {
        format!(
            "apiVersion: v1
kind: Service
metadata: {{ name: svc-{index}, namespace: default }}
spec: {{ clusterIP: 10.96.0.{}, ports: [{{ name: http, port: 80 }}] }}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{ name: svc-{index}, namespace: default, labels: {{ kubernetes.io/service-name: svc-{index} }} }}
addressType: IPv4
ports: [{{ name: http, port: 8080 }}]
endpoints: [{{ addresses: [10.1.0.{index}] }}, {{ addresses: [10.1.1.{index}] }}]
",
            index + 1
        )
    };
    (0..SERVICES).map(one).collect::<Vec<_>>().join("---\n")
}

fn split(weight: u32) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{ name: svc-0, namespace: default }}
spec:
  hosts: [svc-0]
  http:
  - route:
    - {{ destination: {{ host: svc-0 }}, weight: {weight} }}
    - {{ destination: {{ host: svc-1 }}, weight: {} }}
",
        100 - weight
    )
}

/// A mesh whose file `routes.yaml` can be replaced by `even.yaml` or `odd.yaml` of another directory.
struct Bed {
    mesh: Mesh,
    other: tempfile::TempDir,
}

impl Bed {
    async fn start() -> Bed {
        let mesh = Mesh::start(&[("services.yaml", &services()), ("routes.yaml", &split(50))]).await;
        let other = tempfile::tempdir().unwrap();
        std::fs::write(other.path().join("even.yaml"), split(60)).unwrap();
        std::fs::write(other.path().join("odd.yaml"), split(61)).unwrap();
        Bed { mesh, other }
    }

    fn change(&self) -> Change {
        let from = ["even.yaml", "odd.yaml"].map(|name| self.other.path().join(name)).into();
        let trigger = Trigger::Rename { file: self.mesh.files.path().join("routes.yaml"), from };
        Change { timeout_seconds: PATIENCE.as_secs_f64(), ..Change::by(trigger) }
    }

    /// Goes through a scenario; the server's process is watched.
    async fn run(&mut self, scenario: Scenario) -> Report {
        let pid = self.mesh.server.process().pid();
        let options = Options { server_pid: Some(pid), ..Options::new(self.mesh.xds) };
        tokio::task::spawn_blocking(move || run(&scenario, options, |_| ())).await.unwrap().unwrap()
    }

    /// Bytes of responses that the server has handed out, by type.
    async fn sent(&self) -> BTreeMap<&'static str, u64> {
        let mut sent = BTreeMap::new();
        for kind in ["cds", "eds", "lds", "rds", "vhds"] {
            let bytes = self.mesh.metric(&format!("pointsman_sent_bytes{{type=\"{kind}\"}}")).await;
            sent.extend((bytes > 0).then_some((kind, bytes)));
        }
        sent
    }
}

fn connect() -> Phase {
    Phase::Connect(Connect { timeout_seconds: PATIENCE.as_secs_f64(), ..Connect::default() })
}

async fn all_nodes_get_and_acknowledge_a_change(variant: Variant) {
    const NODES: usize = 200;
    let mut bed = Bed::start().await;
    // What the swarm's own first node takes is counted by the server alone: this run has nothing else.
    let alone = Scenario { nodes: 1, node: NodeSize::Full, variant, phases: vec![connect()], ..Scenario::default() };
    bed.run(alone.clone()).await;
    let twice = bed.sent().await;

    let phases = vec![connect(), Phase::Change(Change { repeat: 3, ..bed.change() })];
    let report = bed.run(Scenario { nodes: NODES, phases, ..alone }).await;
    assert!(report.is_complete(), "{report}");
    let [connect, change] = &report.phases[..] else { panic!("{report}") };
    let eds = connect.types["eds"];
    assert_eq!(eds.resources, (NODES * SERVICES) as u64, "{report}");
    let synced = connect.synced.as_ref().unwrap();
    assert!(0.0 < synced.first && synced.first <= synced.p50 && synced.p99 <= synced.last, "{report}");

    let routes = match variant {
        Variant::Sotw => "rds",
        Variant::Delta => "vhds",
    };
    assert_eq!(change.types[routes].responses, 3 * NODES as u64, "{report}");
    assert_eq!(change.types.keys().collect::<Vec<_>>(), [routes], "{report}");
    let (arrived, acknowledged) = (change.arrived.as_ref().unwrap(), change.acknowledged.as_ref().unwrap());
    assert!(arrived.first > 0.0 && acknowledged.first > arrived.first, "{report}");
    assert!((arrived.count, acknowledged.count) == (NODES, NODES), "{report}");
    let server = change.server.unwrap();
    assert!(server.cpu_seconds > 0.0 && server.rss_bytes_after > 1 << 20, "{report}");

    // The first run sent everything twice, to its first node and to the only other one; so did this run's first node.
    let sent = bed.sent().await;
    for (kind, bytes) in &sent {
        let of_phases: u64 = report.phases.iter().filter_map(|phase| phase.types.get(*kind)).map(|t| t.bytes).sum();
        let before = twice[kind];
        assert_eq!(of_phases + before / 2, bytes - before, "{kind}: {sent:?} after {twice:?}\n{report}");
    }
}

#[tokio::test]
async fn all_delta_nodes_get_and_acknowledge_a_change_and_bytes_are_the_servers() {
    all_nodes_get_and_acknowledge_a_change(Variant::Delta).await;
}

#[tokio::test]
async fn all_state_of_the_world_nodes_get_and_acknowledge_a_change_and_bytes_are_the_servers() {
    all_nodes_get_and_acknowledge_a_change(Variant::Sotw).await;
}

async fn odd_nodes_keep_to_their_manners(variant: Variant) {
    let mut bed = Bed::start().await;
    let phases = vec![connect(), Phase::Change(bed.change()), Phase::Hold(Hold { seconds: 0.3 })];
    let scenario = Scenario {
        nodes: 100,
        variant,
        nack: "10%".parse().unwrap(),
        slow: "10%".parse().unwrap(),
        silent: "10%".parse().unwrap(),
        phases,
        ..Scenario::default()
    };
    let report = bed.run(scenario).await;
    assert!(report.is_complete(), "{report}");
    let [connect, change, hold] = &report.phases[..] else { panic!("{report}") };
    assert_eq!((connect.wanted, connect.reached, connect.connected), (70, 70, 100), "{report}");
    assert!(connect.refused >= 10 && connect.ends.is_empty(), "{report}");
    assert_eq!((change.wanted, change.reached), (70, 70), "{report}");
    assert_eq!(hold.connected, 100, "nobody was thrown out: {report}");
}

#[tokio::test]
async fn nodes_that_refuse_or_never_read_or_say_nothing_do_not_hold_up_delta_nodes() {
    odd_nodes_keep_to_their_manners(Variant::Delta).await;
}

#[tokio::test]
async fn nodes_that_refuse_or_never_read_or_say_nothing_do_not_hold_up_state_of_the_world_nodes() {
    odd_nodes_keep_to_their_manners(Variant::Sotw).await;
}

#[tokio::test]
async fn nodes_that_come_back_with_versions_are_hardly_sent_anything() {
    let mut bed = Bed::start().await;
    let with = |versions| Phase::Reconnect(Reconnect { versions, repeat: 2, ..Reconnect::default() });
    let phases = vec![connect(), with(true), with(false)];
    let report = bed.run(Scenario { nodes: 50, phases, ..Scenario::default() }).await;
    assert!(report.is_complete(), "{report}");
    let [connect, versions, anew] = &report.phases[..] else { panic!("{report}") };
    assert_eq!((versions.repetitions, versions.synced.as_ref().unwrap().count), (2, 50), "{report}");
    assert_eq!(versions.types.get("cds").map_or(0, |t| t.resources), 0, "{report}");
    assert!(versions.bytes_per_node < connect.bytes_per_node / 2.0, "{report}");
    assert!((anew.bytes_per_node - connect.bytes_per_node).abs() < 1.0, "{report}");
}

#[tokio::test]
async fn nodes_may_ask_for_a_few_assignments_only() {
    let mut bed = Bed::start().await;
    let endpoints = Endpoints { each: Some(3), ..Endpoints::default() };
    let report = bed.run(Scenario { nodes: 20, endpoints, phases: vec![connect()], ..Scenario::default() }).await;
    assert!(report.is_complete(), "{report}");
    assert_eq!(report.phases[0].types["eds"].resources, 60, "{report}");
}

#[tokio::test]
async fn clusters_that_come_later_are_acknowledged_when_they_are_warm() {
    let mut bed = Bed::start().await;
    let fresh = services().replace("svc-", "fresh-").replace("10.96.0.", "10.97.0.");
    let one_service = fresh.split("---\n").take(2).collect::<Vec<_>>().join("---\n");
    let with = bed.other.path().join("with.yaml");
    std::fs::write(&with, format!("{}---\n{one_service}", split(50))).unwrap();
    let trigger = Trigger::Rename { file: bed.mesh.files.path().join("routes.yaml"), from: vec![with] };
    let change = Change { expect: vec!["cds".parse().unwrap()], ..Change { trigger, ..bed.change() } };
    let phases = vec![connect(), Phase::Change(change)];
    let report = bed.run(Scenario { nodes: 50, phases, ..Scenario::default() }).await;
    assert!(report.is_complete(), "{report}");
    let types = &report.phases[1].types;
    assert_eq!((types["cds"].resources, types["eds"].resources), (50, 50), "{report}");
}

fn pointsman(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pointsman")).arg("swarm").args(arguments).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn the_command_prints_a_table_or_json_and_runs_scenarios() {
    let bed = Bed::start().await;
    let file = bed.other.path().join("scenario.yaml");
    std::fs::write(&file, "name: from a file\nnodes: 20\nphases:\n  - connect: { rate: 500, jitter: 50% }\n").unwrap();
    let (xds, file) = (bed.mesh.xds.to_string(), file.to_str().unwrap().to_owned());
    let table = tokio::task::spawn_blocking({
        let (xds, file) = (xds.clone(), file.clone());
        move || pointsman(&["--scenario", &file, "--server", &xds])
    });
    let table = table.await.unwrap();
    assert!(table.status.success(), "{}", stderr(&table));
    let text = String::from_utf8(table.stdout).unwrap();
    assert!(text.contains("from a file: 20 delta nodes") && text.contains("connect → synced"), "{text}");

    let json = tokio::task::spawn_blocking(move || pointsman(&["--nodes", "5", "--server", &xds, "-o", "json"]));
    let json = json.await.unwrap();
    let report: Report = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((report.nodes, report.phases[0].reached), (5, 5));
}

#[tokio::test]
async fn an_interrupted_swarm_says_what_it_knows() {
    let bed = Bed::start().await;
    let child = Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .args(["swarm", "--nodes", "5", "--hold", "600", "--server", &bed.mesh.xds.to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let output = tokio::task::spawn_blocking(move || {
        let mut child = child;
        let mut progress = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.starts_with("hold:") {
            line.clear();
            assert!(progress.read_line(&mut line).unwrap() > 0, "it ended by itself");
        }
        let interrupted = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        assert!(interrupted.success());
        child.wait_with_output().unwrap()
    });
    let output = output.await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(130), "{text}");
    assert!(text.contains("connect → synced") && text.contains("Interrupted"), "{text}");
}

#[test]
fn a_server_that_is_none_is_named_with_the_reason() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let http1 = answering(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n");
    let closing = answering(b"");
    for (server, expected) in [
        (nobody, "could not connect: Connection refused"),
        (http1, "does not speak HTTP/2 without an upgrade (it began with \"HTTP/1.1 400 Bad Request\")"),
        (closing, "closed the connection"),
    ] {
        let output = pointsman(&["--server", &server.to_string()]);
        let error = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(expected) && error.contains(&server.to_string()), "{error}");
    }
}

#[test]
fn what_cannot_be_run_is_refused_before_anything_is_connected() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("scenario.yaml");
    std::fs::write(&file, "nodes: 10\nphases:\n  - connect: {}\n  - hold: { second: 3 }\n").unwrap();
    let file = file.to_str().unwrap();
    for (arguments, expected) in [
        (&["--scenario", file][..], "phases[1].hold"),
        (&["--scenario", "/nowhere.yaml"], "/nowhere.yaml"),
        (&["--scenario", file, "--nodes", "3"], "cannot be used with"),
        (&["--nodes", "0"], "nodes: there must be at least one"),
        (&["--nodes", "100000000"], "ulimit -n"),
        (&["--slow", "ten"], "\"ten\" is no share"),
        (&["--server-pid", "2147483000"], "2147483000"),
        (&["--token", "/nowhere.token"], "/nowhere.token"),
        (&["--server", "15010"], "\"15010\" is not HOST:PORT"),
    ] {
        let output = pointsman(arguments);
        let error = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(expected), "{expected}\n{error}");
    }
}

/// A listener that answers every connection with these bytes and closes it.
fn answering(bytes: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // Ends with the test's process.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            // Closing with unread bytes would reset the connection, and the answer could get lost.
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(bytes);
        }
    });
    address
}
