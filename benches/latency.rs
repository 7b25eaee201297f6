//! How long a change of weights takes from the file to the traffic, through real Envoys.
//!
//! Three ways of the same change (all traffic to one version, then all to the other), in turn, on the same machine:
//!
//! ```text
//!   VirtualService ──▶ pointsman ──delta──▶ Envoy ─┐
//!   VirtualService ──▶ pointsman ──sotw───▶ Envoy ─┼─▶ v1, v2
//!   RouteConfiguration ───(inotify)───────▶ Envoy ─┘     the floor: Envoy's own file subscription
//! ```
//!
//! A file is written beside its place and renamed into it; the clock starts just before the rename, and stops when the
//! first request that the new route answered is finished. Each change has a mark of its own, which the route sets as a
//! response header. Only the Envoy whose turn it is has traffic.

#![allow(missing_docs, clippy::disallowed_methods, clippy::unwrap_used)]

mod figures;
#[path = "../tests/e2e/mesh.rs"]
#[allow(dead_code, reason = "made for the tests")]
mod mesh;

use std::fs;
use std::net::SocketAddr;
use std::time::Instant;

use figures::{Figures, Table, time, verdict};
use mesh::{Mesh, PATIENCE, Reviews, SUBSETS, Variant, answering};
use serde_json::json;
use tempfile::TempDir;
use testkit::envoy::Envoy;
use testkit::load::{Load, Plan, Rate};

/// Changes of one run for each way.
const CHANGES: usize = 50;
const RUNS: usize = 5;
/// Requests before each change, so that everything is warm.
const BEFORE: usize = 100;
/// What p99 may be, beside twice the floor's.
const TARGET: f64 = 0.050;

/// One way from a file to an Envoy.
struct Way {
    name: &'static str,
    plan: Plan,
    source: Source,
    _client: Envoy,
    _reviews: Reviews,
    /// Seconds from file to traffic, by run.
    took: Vec<Vec<f64>>,
    failures: usize,
}

enum Source {
    Pointsman(Box<Mesh>),
    File(TempDir),
}

impl Way {
    async fn pointsman(name: &'static str, variant: Variant) -> Way {
        let reviews = Reviews::start();
        let (objects, routes) = (reviews.objects(), virtual_service(0));
        let files = [("reviews.yaml", &*objects), ("rule.yaml", SUBSETS), ("routes.yaml", &*routes)];
        let mesh = Mesh::start_with(&files, &["--log", "warn"]).await;
        let client = mesh.client(variant, "client").await;
        Way::new(name, reviews, Source::Pointsman(Box::new(mesh)), client)
    }

    async fn file(name: &'static str) -> Way {
        let reviews = Reviews::start();
        let directory = TempDir::with_prefix("pointsman-bench-").unwrap();
        fs::write(directory.path().join("routes.json"), route_configuration(0)).unwrap();
        let client = Envoy::start(bootstrap(directory.path().to_str().unwrap(), &reviews)).await.unwrap();
        Way::new(name, reviews, Source::File(directory), client)
    }

    fn new(name: &'static str, reviews: Reviews, source: Source, client: Envoy) -> Way {
        let plan = reviews.plan();
        Way { name, plan, source, _client: client, _reviews: reviews, took: Vec::new(), failures: 0 }
    }

    /// Renames the next version into place, and returns the moment just before.
    fn write(&self, change: usize) -> Instant {
        match &self.source {
            Source::Pointsman(mesh) => mesh.write("routes.yaml", &virtual_service(change)),
            Source::File(directory) => {
                let next = directory.path().join("next");
                fs::write(&next, route_configuration(change)).unwrap();
                let before = Instant::now();
                fs::rename(next, directory.path().join("routes.json")).unwrap();
                before
            }
        }
    }

    /// Makes one change and notes how long it took. Returns the pauses between requests.
    async fn turn(&mut self, change: usize, run: usize) -> Vec<f64> {
        // One request after the other: timers, which tick in milliseconds, would be coarser than what is measured.
        let load = Load::start(self.plan.clone().rate(Rate::Unlimited).connections(1)).unwrap();
        load.next(BEFORE, PATIENCE).await.unwrap();
        let mark = change.to_string();
        let written = self.write(change);
        let sample = load.first(written, PATIENCE, |sample| sample.mark() == Some(&mark)).await.unwrap();
        assert_eq!(sample.backend(), Some(version(change)), "{}: the new route leads elsewhere", self.name);
        let all = load.stop().await;
        self.failures += all.failures().count();
        self.took.resize(run + 1, Vec::new());
        self.took[run].push((sample.finished() - written).as_secs_f64());
        let begun: Vec<Instant> = all.samples().iter().map(|sample| sample.begun).collect();
        begun.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect()
    }

    fn all(&self) -> Figures {
        Figures::new(self.took.iter().flatten().copied())
    }
}

/// Where the traffic goes after a change.
fn version(change: usize) -> &'static str {
    if change.is_multiple_of(2) { "v1" } else { "v2" }
}

fn weights(change: usize) -> [u32; 2] {
    if change.is_multiple_of(2) { [100, 0] } else { [0, 100] }
}

fn virtual_service(change: usize) -> String {
    let [v1, v2] = weights(change);
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: reviews, namespace: default}}\n\
         spec:\n  hosts: [reviews]\n  http:\n    - headers: {{response: {{set: {{x-mark: \"{change}\"}}}}}}\n      \
         route:\n        - {{destination: {{host: reviews, subset: v1}}, weight: {v1}}}\n        \
         - {{destination: {{host: reviews, subset: v2}}, weight: {v2}}}\n"
    )
}

/// The same route as Envoy would have it.
fn route_configuration(change: usize) -> String {
    let [v1, v2] = weights(change);
    json!({
        "version_info": change.to_string(),
        "resources": [{
            "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            "name": "routes",
            "virtual_hosts": [{
                "name": "reviews",
                "domains": ["*"],
                "routes": [{
                    "match": {"prefix": "/"},
                    "route": {"weighted_clusters": {"clusters": [
                        {"name": "v1", "weight": v1}, {"name": "v2", "weight": v2},
                    ]}},
                    "response_headers_to_add": [{
                        "header": {"key": "x-mark", "value": change.to_string()},
                        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                    }],
                }],
            }],
        }],
    })
    .to_string()
}

/// An Envoy that reads its routes from a file of this directory, and is told to watch the directory for moves.
fn bootstrap(directory: &str, reviews: &Reviews) -> serde_json::Value {
    let socket = |address: SocketAddr| json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}});
    let cluster = |name: &str, backend: SocketAddr| {
        json!({
            "name": name,
            "type": "STATIC",
            "connect_timeout": "10s",
            "load_assignment": {"cluster_name": name, "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": socket(backend)}}]},
            ]},
        })
    };
    json!({
        "node": {"id": "floor", "cluster": "floor"},
        "static_resources": {
            "clusters": [cluster("v1", reviews.v1.address()), cluster("v2", reviews.v2.address())],
            "listeners": [{
                "name": "listener",
                "address": socket(reviews.address),
                "filter_chains": [{"filters": [{
                    "name": "envoy.filters.network.http_connection_manager",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.\
                                  HttpConnectionManager",
                        "stat_prefix": "floor",
                        "http_filters": [{
                            "name": "envoy.filters.http.router",
                            "typed_config": {
                                "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
                            },
                        }],
                        "rds": {
                            "route_config_name": "routes",
                            "config_source": {
                                "resource_api_version": "V3",
                                "path_config_source": {
                                    "path": format!("{directory}/routes.json"),
                                    "watched_directory": {"path": directory},
                                },
                            },
                        },
                    },
                }]}],
            }],
        },
    })
}

#[tokio::main]
async fn main() {
    let mut ways = [
        Way::file("Envoy's own file subscription (floor)").await,
        Way::pointsman("pointsman, delta", Variant::Delta).await,
        Way::pointsman("pointsman, state of the world", Variant::StateOfTheWorld).await,
    ];
    for way in &ways {
        answering(way.plan.clone()).await;
    }
    let mut pauses = Vec::new();
    let mut change = 0;
    for run in 0..RUNS {
        for at in 0..CHANGES {
            change += 1;
            for turn in 0..ways.len() {
                // Nobody is always first.
                let way = &mut ways[(turn + at) % 3];
                pauses.extend(way.turn(change, run).await);
            }
        }
    }
    print(&ways, &Figures::new(pauses));
}

fn print(ways: &[Way], pauses: &Figures) {
    let floor = ways[0].all();
    let mut table = Table::new(
        &format!(
            "Latency: file renamed → first request under the new weights ({RUNS} runs of {CHANGES} changes each, \
             interleaved; targets: p99 ≤ 2 × floor and < 50 ms)"
        ),
        [
            "way",
            "p50",
            "p90",
            "p99",
            "max",
            "p99 of the runs: min / median / max",
            "p50 / floor",
            "p99 / floor",
            "failed",
            "reached",
        ],
    );
    for (at, way) in ways.iter().enumerate() {
        let all = way.all();
        let of_runs = Figures::new(way.took.iter().map(|run| Figures::new(run.iter().copied()).percentile(99.0)));
        let p99 = all.percentile(99.0);
        let is_reached = p99 <= 2.0 * floor.percentile(99.0) && p99 < TARGET;
        table.row([
            way.name.to_owned(),
            time(all.median()),
            time(all.percentile(90.0)),
            time(p99),
            time(all.max()),
            format!("{} / {} / {}", time(of_runs.min()), time(of_runs.median()), time(of_runs.max())),
            format!("{:.2}", all.median() / floor.median()),
            format!("{:.2}", p99 / floor.percentile(99.0)),
            way.failures.to_string(),
            if at == 0 { "-" } else { verdict(is_reached) }.to_owned(),
        ]);
    }
    table.print();
    println!(
        "\nResolution: one request follows the other; one was begun every {} (median; p99 {}).",
        time(pauses.median()),
        time(pauses.percentile(99.0))
    );
}
