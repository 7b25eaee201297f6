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
//! The floor's file holds the very route configuration that Pointsman's Envoy says it has, so both Envoys do the same
//! with it. A file is written beside its place and renamed into it; the clock starts just before the rename, and stops when the
//! first request that the new route answered is finished. Each change has a mark of its own, which the route sets as a
//! response header. Only the Envoy whose turn it is has traffic.

#![allow(missing_docs, clippy::disallowed_methods, clippy::unwrap_used)]

mod figures;
#[path = "../tests/e2e/mesh.rs"]
#[allow(dead_code, reason = "made for the tests")]
mod mesh;
mod probe;

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use figures::{Figures, Table, time, verdict};
use mesh::{Mesh, Reviews, SUBSETS, Variant, answering};
use probe::Probe;
use serde_json::json;
use tempfile::TempDir;
use testkit::envoy::Envoy;
use testkit::wait;

/// Changes of one run for each way.
const CHANGES: usize = 50;
const RUNS: usize = 5;
/// Between the beginnings of two requests: short against what is measured, long enough for the machine to be mostly idle.
const PAUSE: Duration = Duration::from_micros(250);
/// Requests before each change, so that connections are warm.
const BEFORE: usize = 100;
/// What p99 may be, beside twice the floor's.
const TARGET: f64 = 0.050;

/// One way from a file to an Envoy.
struct Way {
    name: &'static str,
    source: Source,
    client: Envoy,
    reviews: Reviews,
    /// Seconds from file to traffic, by run.
    took: Vec<Vec<f64>>,
    failures: usize,
}

enum Source {
    Pointsman(Box<Mesh>),
    File { directory: TempDir, routes: [String; 2] },
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

    /// The floor, with the routes of `other` before and after its first change.
    async fn file(name: &'static str, other: &Way) -> Way {
        let before = other.routes(0).await;
        other.write(1);
        let routes = [before, other.routes(1).await];
        let reviews = Reviews::start();
        let directory = TempDir::with_prefix("pointsman-bench-").unwrap();
        fs::write(directory.path().join("routes.json"), response(&routes[0])).unwrap();
        let port = other.reviews.address.port();
        let client = Envoy::start(bootstrap(directory.path().to_str().unwrap(), &reviews, port)).await.unwrap();
        Way::new(name, reviews, Source::File { directory, routes }, client)
    }

    /// The route configuration that the Envoy has, once it is that of a change.
    async fn routes(&self, change: usize) -> String {
        let mark = mark(change);
        let path = "/config_dump?resource=dynamic_route_configs";
        wait::until("the new routes", Duration::from_secs(10), async || {
            let dump = self.client.get_json(path).await.map_err(|error| format!("{error:#}"))?;
            let mut configurations =
                dump["configs"].as_array().into_iter().flatten().map(|c| c["route_config"].to_string());
            configurations.find(|text| text.contains(&mark)).ok_or(dump.to_string())
        })
        .await
        .unwrap()
    }

    fn new(name: &'static str, reviews: Reviews, source: Source, client: Envoy) -> Way {
        Way { name, source, client, reviews, took: Vec::new(), failures: 0 }
    }

    /// Renames the next version into place, and returns the moment just before.
    fn write(&self, change: usize) -> Instant {
        match &self.source {
            Source::Pointsman(mesh) => mesh.write("routes.yaml", &virtual_service(change)),
            Source::File { directory, routes } => {
                let next = directory.path().join("next");
                // Odd changes are like change 1, even ones like change 0, but for the mark.
                let like = change % 2;
                fs::write(&next, response(&routes[like].replace(&mark(like), &mark(change)))).unwrap();
                let before = Instant::now();
                fs::rename(next, directory.path().join("routes.json")).unwrap();
                before
            }
        }
    }

    /// Makes one change and notes how long it took. Returns the pauses between requests.
    fn turn(&mut self, change: usize, run: usize) -> Vec<f64> {
        let probe = Probe::start(self.reviews.address, "reviews", PAUSE);
        probe.answered(BEFORE);
        let written = self.write(change);
        let sample = probe.first(&mark(change));
        assert_eq!(sample.backend, version(change), "{}: the new route leads elsewhere", self.name);
        let all = probe.stop();
        self.failures += all.iter().filter(|sample| sample.status != 200).count();
        self.took.resize(run + 1, Vec::new());
        self.took[run].push((sample.finished - written).as_secs_f64());
        all.windows(2).map(|pair| (pair[1].begun - pair[0].begun).as_secs_f64()).collect()
    }

    /// The 99th percentile of each run.
    fn p99_of_runs(&self) -> Figures {
        Figures::new(self.took.iter().map(|run| Figures::new(run.iter().copied()).percentile(99.0)))
    }

    fn all(&self) -> Figures {
        Figures::new(self.took.iter().flatten().copied())
    }
}

/// Where the traffic goes after a change.
fn version(change: usize) -> &'static str {
    if change.is_multiple_of(2) { "v1" } else { "v2" }
}

/// The response header that tells who routed.
fn mark(change: usize) -> String {
    format!("change-{change}")
}

fn weights(change: usize) -> [u32; 2] {
    if change.is_multiple_of(2) { [100, 0] } else { [0, 100] }
}

fn virtual_service(change: usize) -> String {
    let ([v1, v2], mark) = (weights(change), mark(change));
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: reviews, namespace: default}}\n\
         spec:\n  hosts: [reviews]\n  http:\n    - headers: {{response: {{set: {{x-mark: {mark}}}}}}}\n      \
         route:\n        - {{destination: {{host: reviews, subset: v1}}, weight: {v1}}}\n        \
         - {{destination: {{host: reviews, subset: v2}}, weight: {v2}}}\n"
    )
}

/// A route configuration as the content of a file.
fn response(routes: &str) -> String {
    let mut routes: serde_json::Value = serde_json::from_str(routes).unwrap();
    routes["name"] = json!("routes");
    // Its virtual hosts are in the dump, wherever they came from.
    if let Some(fields) = routes.as_object_mut() {
        fields.remove("vhds");
    }
    json!({"resources": [routes]}).to_string()
}

/// An Envoy that reads its routes from a file of this directory, and is told to watch the directory for moves.
/// Its clusters have the names that the routes use.
fn bootstrap(directory: &str, reviews: &Reviews, port: u16) -> serde_json::Value {
    let socket = |address: SocketAddr| json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}});
    let cluster = |subset: &str, backend: SocketAddr| {
        let name = format!("outbound|{port}|{subset}|reviews.default.svc.cluster.local");
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
    let delta = Way::pointsman("pointsman, delta", Variant::Delta).await;
    let sotw = Way::pointsman("pointsman, state of the world", Variant::StateOfTheWorld).await;
    let floor = Way::file("Envoy's own file subscription (floor)", &delta).await;
    let mut ways = [floor, delta, sotw];
    for way in &ways {
        answering(way.reviews.plan()).await;
    }
    let mut pauses = Vec::new();
    let mut change = 1;
    for run in 0..RUNS {
        for at in 0..CHANGES {
            change += 1;
            for turn in 0..ways.len() {
                // Nobody is always first.
                let way = &mut ways[(turn + at) % 3];
                pauses.extend(way.turn(change, run));
            }
        }
    }
    print(&ways, &Figures::new(pauses));
}

fn print(ways: &[Way], pauses: &Figures) {
    let floor = &ways[0];
    let mut table = Table::new(
        &format!(
            "Latency: file renamed → first request under the new weights ({RUNS} runs of {CHANGES} changes each, \
             interleaved; targets: p99 of {CHANGES} changes ≤ 2 × floor and < 50 ms)"
        ),
        [
            "way",
            "p50",
            "p90",
            "p99",
            "max",
            "p99 of one run: min / median / max",
            "p50 / floor",
            "p99 / floor",
            "p99 / floor, median run",
            "failed",
            "reached, all",
            "reached, median run",
        ],
    );
    for (at, way) in ways.iter().enumerate() {
        let all = way.all();
        let (p99, of_run) = (all.percentile(99.0), way.p99_of_runs());
        let ratio = p99 / floor.all().percentile(99.0);
        let ratio_of_run = of_run.median() / floor.p99_of_runs().median();
        let reached = |ratio: f64, p99: f64| match at {
            0 => "-".to_owned(),
            _ => verdict(ratio <= 2.0 && p99 < TARGET).to_owned(),
        };
        table.row([
            way.name.to_owned(),
            time(all.median()),
            time(all.percentile(90.0)),
            time(p99),
            time(all.max()),
            format!("{} / {} / {}", time(of_run.min()), time(of_run.median()), time(of_run.max())),
            format!("{:.2}", all.median() / floor.all().median()),
            format!("{ratio:.2}"),
            format!("{ratio_of_run:.2}"),
            way.failures.to_string(),
            reached(ratio, p99),
            reached(ratio_of_run, of_run.median()),
        ]);
    }
    table.print();
    println!(
        "\nResolution: a request was begun every {} (median; p99 {}).",
        time(pauses.median()),
        time(pauses.percentile(99.0))
    );
}
