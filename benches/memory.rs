//! What a mesh costs in memory: the real binary, with the files of the mesh, and one sidecar that was sent everything.

#![allow(missing_docs, clippy::disallowed_methods, clippy::unwrap_used)]

mod figures;
mod meshes;

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use figures::{Table, bytes, time, verdict};
use meshes::{Mesh, SIZES};
use proto::ResourceType;
use tempfile::TempDir;
use testkit::pointsman::Pointsman;
use testkit::wait;
use testkit::wire::{self, Delta, Wire};

const PATIENCE: Duration = Duration::from_secs(60);
/// Resident memory with 10,000 services and one audience.
const TARGET: f64 = 400e6;
/// Services of one file.
const PER_FILE: u32 = 100;

/// What was measured of one mesh.
struct Measured {
    text: u64,
    /// From the start of the process until it serves.
    start: Duration,
    /// Resident once everything is read and nobody is connected.
    read: u64,
    /// Resident once the client has acknowledged everything.
    served: u64,
    /// The most that was ever resident.
    peak: u64,
    /// Resources and the bytes of their messages, by type.
    sent: BTreeMap<&'static str, (usize, usize)>,
}

#[tokio::main]
async fn main() {
    let mut memory = Table::new(
        "Memory: `pointsman serve` with a mesh and one sidecar (RSS; target: below 400 MB at 10,000 services)",
        ["services", "files", "until served", "RSS, files read", "RSS, one sidecar", "peak RSS", "reached"],
    );
    let mut encoded = Table::new(
        "Encoded: what that sidecar was sent, as resources and bytes of their messages",
        ["services", "cds", "eds", "lds", "rds", "all", "bytes per service"],
    );
    for services in SIZES {
        let measured = measure(Mesh { services }).await;
        let is_reached = if services == 10_000 { verdict((measured.served as f64) < TARGET) } else { "-" };
        memory.row([
            services.to_string(),
            bytes(measured.text as f64),
            time(measured.start.as_secs_f64()),
            bytes(measured.read as f64),
            bytes(measured.served as f64),
            bytes(measured.peak as f64),
            is_reached.to_owned(),
        ]);
        let of = |kind: &str| match measured.sent.get(kind) {
            Some((count, size)) => format!("{count}, {}", bytes(*size as f64)),
            None => "-".to_owned(),
        };
        let all: usize = measured.sent.values().map(|(_, size)| size).sum();
        encoded.row([
            services.to_string(),
            of("cds"),
            of("eds"),
            of("lds"),
            of("rds"),
            bytes(all as f64),
            format!("{:.0}", all as f64 / f64::from(services)),
        ]);
    }
    memory.print();
    encoded.print();
}

async fn measure(mesh: Mesh) -> Measured {
    let files = TempDir::with_prefix("pointsman-bench-").unwrap();
    let mut text = 0;
    for first in (0..mesh.services).step_by(PER_FILE as usize) {
        let yaml = mesh.yaml_of(first..(first + PER_FILE).min(mesh.services));
        text += yaml.len() as u64;
        fs::write(files.path().join(format!("services-{first}.yaml")), yaml).unwrap();
    }
    let config = files.path().to_str().unwrap();
    let any = "127.0.0.1:0";
    let begin = Instant::now();
    let arguments = ["--log", "warn", "serve", "--config", config, "--xds-listen", any, "--admin-listen", any];
    let mut server = Pointsman::start(env!("CARGO_BIN_EXE_pointsman"), arguments).unwrap();
    let xds = server.address("xds", PATIENCE).await.unwrap();
    let admin = server.address("admin", PATIENCE).await.unwrap();
    wait::until("the server to be ready", PATIENCE, async || {
        testkit::http::get(admin, "/readyz").await.map_err(|error| format!("{error:#}"))
    })
    .await
    .unwrap();
    let start = begin.elapsed();
    let read = server.process().resident_bytes().unwrap();

    let node = wire::node(&meshes::node().id, "client");
    let mut client = Wire::connect(format!("http://{xds}")).await.unwrap().delta(node);
    let mut sent = BTreeMap::new();
    take(&mut client, ResourceType::Cluster, &[], &mut sent).await;
    let clusters: Vec<String> = client.held(ResourceType::Cluster).into_keys().collect();
    let by_eds: Vec<&str> = clusters.iter().map(String::as_str).filter(|name| name.starts_with("outbound|")).collect();
    take(&mut client, ResourceType::Endpoints, &by_eds, &mut sent).await;
    take(&mut client, ResourceType::Listener, &[], &mut sent).await;
    take(&mut client, ResourceType::Route, &["80"], &mut sent).await;
    let served = server.process().resident_bytes().unwrap();
    let peak = peak(server.process().pid());
    Measured { text, start, read, served, peak, sent }
}

/// Asks for resources of a type, and acknowledges the answer.
async fn take(
    client: &mut Delta,
    kind: ResourceType,
    names: &[&str],
    sent: &mut BTreeMap<&'static str, (usize, usize)>,
) {
    client.subscribe(kind, names).await;
    let response = client.next(PATIENCE).await.unwrap();
    assert_eq!(response.type_url, kind.type_url());
    assert!(!response.resources.is_empty());
    let size = response.resources.iter().filter_map(|entry| Some(entry.resource.as_ref()?.value.len())).sum();
    sent.insert(kind.short(), (response.resources.len(), size));
    client.ack(&response).await;
}

/// `VmHWM` of a process.
fn peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
}
