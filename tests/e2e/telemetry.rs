//! What Envoy reports about its traffic, counted as evidence for a run, beside what really happened.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rollout::{Evidence, Observation, Revision, Tally};
use serde_json::Value;
use server::{Config, Deadlines, Listen, Reports, RunTargets, Server, Telemetry};
use testkit::envoy::{Envoy, Setup};
use testkit::load::{Load, Plan, Window};
use testkit::ports;
use testkit::prometheus::Prometheus;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use world::api::delivery::{AnalysisProfile, Bounds, EvidenceSource, MetricKind, MetricSpec};
use world::{Change, Hostname};

use crate::mesh::{PATIENCE, Reviews, SUBSETS, answering, split};

/// How often everything reports.
const INTERVAL: Duration = Duration::from_millis(200);
const ERRORS: &str = "error-rate";
const PROMISE: &str = "slo";

/// A server in this process, so that evidence can be asked for as a run does.
struct Bed {
    telemetry: Arc<Telemetry>,
    xds: SocketAddr,
    shutdown: CancellationToken,
    run: JoinHandle<()>,
    reviews: Reviews,
}

/// All that was reported of one metric.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Counted {
    candidate: Tally,
    stable: Tally,
}

impl Bed {
    /// Serves `reviews`, half of it by each version.
    async fn start(deadlines: Deadlines) -> Bed {
        let reviews = Reviews::start();
        let xds = ports::local().unwrap();
        let config = Config { xds_listen: vec![Listen::Tcp(xds)], deadlines, ..Config::default() };
        let plane = plane::Plane::new(world::Settings::default(), compile::Options::default());
        let server = Server::bind(config, plane).await.unwrap();
        let (telemetry, input, shutdown) = (server.telemetry(), server.input(), CancellationToken::new());
        let stop = shutdown.clone();
        let run = tokio::spawn(async move { server.run(stop).await.unwrap() });
        let text = format!("{}---\n{SUBSETS}---\n{}", reviews.objects(), split(50, 50));
        let parsed = source::text::parse("mesh.yaml", text.as_bytes(), &source::Options::default());
        assert!(parsed.problems.is_empty(), "{:#?}", parsed.problems);
        let changes = parsed.objects.into_iter().map(Change::Apply).collect();
        input.apply(changes, Vec::new(), Instant::now()).await.unwrap();
        input.set_synced().await.unwrap();
        Bed { telemetry, xds, shutdown, run, reviews }
    }

    /// The bootstrap of an Envoy that reports by all that it has.
    fn bootstrap(&self) -> Value {
        let (xds, admin) = (self.xds.to_string(), ports::local().unwrap().to_string());
        let interval = INTERVAL.as_secs_f64().to_string();
        let output = Command::new(env!("CARGO_BIN_EXE_pointsman"))
            .args(["bootstrap", "--pod", "client", "--interception", "none", "--xds", &xds, "--admin", &admin])
            .args(["--load-reports", "--metrics-interval", &interval])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    async fn envoy(&self) -> Envoy {
        self.envoy_of(self.bootstrap()).await
    }

    async fn envoy_of(&self, bootstrap: Value) -> Envoy {
        let envoy = Setup::new(bootstrap).start().await.unwrap();
        answering(self.plan()).await;
        envoy
    }

    fn plan(&self) -> Plan {
        self.reviews.plan().per_second(400.0).connections(4)
    }

    fn open(&self, source: EvidenceSource, metrics: Vec<MetricSpec>) -> Reports {
        self.open_with(source, metrics, None)
    }

    fn open_with(&self, source: EvidenceSource, metrics: Vec<MetricSpec>, prometheus: Option<String>) -> Reports {
        let host = Hostname::new("reviews.default.svc.cluster.local");
        let port = self.reviews.address.port();
        let (candidate, stable) = (Revision::new("v2"), Revision::new("v1"));
        let mut wanted = RunTargets::new(&format!("{source:?}"), &host, &[port], &candidate, &stable);
        wanted.interval = INTERVAL;
        wanted.targets.source = source;
        wanted.targets.metrics = metrics;
        wanted.prometheus = prometheus;
        self.telemetry.open(wanted)
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.run.await.unwrap();
    }
}

/// What is asked by default, and the same as a promise to callers.
fn errors() -> Vec<MetricSpec> {
    let mut metrics = AnalysisProfile::envoy_default().metrics;
    metrics.push(MetricSpec { name: PROMISE.to_owned(), slo: Some(0.01), ..MetricSpec::default() });
    metrics
}

async fn next(reports: &mut Reports) -> Evidence {
    tokio::time::timeout(PATIENCE, reports.next()).await.unwrap().unwrap()
}

/// Waits until counting has begun: some reports after the first that came from a proxy.
async fn begun(reports: &mut Reports) {
    let mut heard = 0;
    while heard < 8 {
        heard += u32::from(next(reports).await.reporters > 0);
    }
}

fn of(evidence: &Evidence, metric: &str) -> Counted {
    match &evidence.metrics[metric] {
        Observation::Counts { candidate, stable, .. } => Counted { candidate: *candidate, stable: *stable },
        other => panic!("{metric}: {other:?}"),
    }
}

/// Adds up what comes until it is at least `requests`, and a little longer, lest there is more.
async fn sum(reports: &mut Reports, metrics: &[&str], requests: u64) -> Vec<Counted> {
    let mut sums = vec![Counted::default(); metrics.len()];
    let mut quiet = 0;
    let deadline = Instant::now() + PATIENCE;
    while quiet < 8 && Instant::now() < deadline {
        let evidence = next(reports).await;
        for (sum, metric) in sums.iter_mut().zip(metrics) {
            let counted = of(&evidence, metric);
            sum.candidate.add(counted.candidate);
            sum.stable.add(counted.stable);
        }
        let is_enough = sums.iter().all(|sum| sum.candidate.total + sum.stable.total >= requests);
        quiet += u32::from(is_enough);
    }
    sums
}

/// What callers saw of one version.
fn seen(window: &Window, backend: &str) -> Tally {
    let own = || window.samples().iter().filter(|sample| sample.backend() == Some(backend));
    let bad = own().filter(|sample| sample.status().is_some_and(|status| status >= 500)).count();
    Tally::new(own().count() as u64, bad as u64)
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sources_count_what_really_happened() {
    let bed = Bed::start(Deadlines::default()).await;
    let _envoy = bed.envoy().await;
    let mut by_metrics = bed.open(EvidenceSource::MetricsService, errors());
    let mut by_loads = bed.open(EvidenceSource::Lrs, errors());
    let mut by_either = bed.open(EvidenceSource::Auto, errors());
    for reports in [&mut by_metrics, &mut by_loads, &mut by_either] {
        begun(reports).await;
    }
    let (v1, v2) = (&bed.reviews.v1, &bed.reviews.v2);
    v2.fail_every(20);
    let before = (v1.requests(), v2.requests());
    let load = Load::start(bed.plan()).unwrap();
    load.next(2000, PATIENCE).await.unwrap();
    let window = load.stop().await;
    // Istio's default retries go to the other requests' endpoints, too: the backends know every attempt.
    let attempts = Counted {
        candidate: Tally::new(v2.requests() - before.1, v2.failed()),
        stable: Tally::new(v1.requests() - before.0, 0),
    };
    assert!(attempts.candidate.bad > 20, "{attempts:?}");
    let all = attempts.candidate.total + attempts.stable.total;
    let answers = Counted { candidate: seen(&window, "v2"), stable: seen(&window, "v1") };
    let answered = answers.candidate.total + answers.stable.total;
    assert_eq!(sum(&mut by_metrics, &[ERRORS, PROMISE], answered).await, [attempts, answers], "by metrics");
    assert_eq!(sum(&mut by_loads, &[ERRORS], all).await, [attempts], "by load reports");
    assert_eq!(sum(&mut by_either, &[ERRORS, PROMISE], answered).await, [attempts, answers], "by either");
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_answers_are_told_from_quick_ones() {
    let bed = Bed::start(Deadlines::default()).await;
    let _envoy = bed.envoy().await;
    let slow = MetricSpec {
        name: "slow".to_owned(),
        kind: MetricKind::LatencyFraction,
        latency_ms: Some(300),
        ..MetricSpec::default()
    };
    let mut reports = bed.open(EvidenceSource::Auto, vec![slow]);
    begun(&mut reports).await;
    let quick = Load::start(bed.plan().per_second(200.0)).unwrap();
    let delayed = Plan::get(bed.reviews.address, "reviews", "/delay/350").per_second(20.0).connections(10);
    let delayed = Load::start(delayed).unwrap();
    delayed.next(40, PATIENCE).await.unwrap();
    let (quick, delayed) = (quick.stop().await, delayed.stop().await);
    // Requests that took longer than that for other reasons, on a machine that is busy, are slow as well, seen from Envoy
    // or not; those that were quick for the caller were quick for Envoy.
    let limit = Duration::from_millis(300);
    let slow_for_callers = quick.samples().iter().filter(|sample| sample.took >= limit).count() + delayed.len();
    let all = (quick.len() + delayed.len()) as u64;
    let [counted] = sum(&mut reports, &["slow"], all).await[..] else { panic!() };
    assert_eq!(counted.candidate.total + counted.stable.total, all);
    let slow = counted.candidate.bad + counted.stable.bad;
    assert!((delayed.len() as u64..=slow_for_callers as u64).contains(&slow), "{counted:?}, {slow_for_callers}");
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_without_any_endpoint_are_the_candidates_errors() {
    let bed = Bed::start(Deadlines::default()).await;
    let _envoy = bed.envoy().await;
    let mut reports = bed.open(EvidenceSource::Auto, errors());
    begun(&mut reports).await;
    let Bed { telemetry, xds, shutdown, run, reviews } = bed;
    let Reviews { v1, v2, address } = reviews;
    drop(v2);
    let plan = Plan::get(address, "reviews", "/").per_second(200.0).connections(2);
    let load = Load::start(plan).unwrap();
    load.next(400, PATIENCE).await.unwrap();
    let window = load.stop().await;
    let stable = Tally::new(v1.requests(), 0);
    let failed = window.failures().count() as u64;
    assert!(failed > 100, "{window}");
    let [answers] = sum(&mut reports, &[PROMISE], window.len() as u64).await[..] else { panic!() };
    assert_eq!(answers.candidate, Tally::new(failed, failed));
    assert!(answers.stable.total <= stable.total && answers.stable.bad == 0, "{answers:?}");
    drop((telemetry, xds));
    shutdown.cancel();
    run.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_counts_twice_when_envoy_starts_again_or_connects_again() {
    // Every connection is given up after a second.
    let age = Some(Duration::from_secs(1));
    let bed = Bed::start(Deadlines { connection_age: age, ..Deadlines::default() }).await;
    let envoy = bed.envoy().await;
    let mut reports = [EvidenceSource::MetricsService, EvidenceSource::Lrs].map(|source| bed.open(source, errors()));
    for reports in &mut reports {
        begun(reports).await;
    }
    let before = (bed.reviews.v1.requests(), bed.reviews.v2.requests());
    let load = Load::start(bed.plan()).unwrap();
    load.next(2000, PATIENCE).await.unwrap();
    let connected_again = (bed.reviews.v1.requests(), bed.reviews.v2.requests());
    drop(envoy);
    let _envoy = bed.envoy().await;
    load.next(1000, PATIENCE).await.unwrap();
    load.stop().await;
    let attempts = Counted {
        candidate: Tally::new(bed.reviews.v2.requests() - before.1, 0),
        stable: Tally::new(bed.reviews.v1.requests() - before.0, 0),
    };
    let half = (connected_again.0 + connected_again.1 - before.0 - before.1) / 2;
    for (reports, source) in reports.iter_mut().zip(["metrics", "loads"]) {
        let [counted] = sum(reports, &[ERRORS], half).await[..] else { panic!() };
        assert!(counted.candidate.total <= attempts.candidate.total, "{source}: {counted:?}, {attempts:?}");
        assert!(counted.stable.total <= attempts.stable.total, "{source}: {counted:?}, {attempts:?}");
        let share = |counted: Counted| (counted.candidate.total + counted.stable.total) as f64;
        println!("{source}: {:.0} of {:.0} requests were counted", share(counted), share(attempts));
        assert!(share(counted) > share(attempts) / 2.0, "{source}: {counted:?}, {attempts:?}");
    }
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_is_told_from_rest() {
    let bed = Bed::start(Deadlines::default()).await;
    let mut reports = bed.open(EvidenceSource::Auto, errors());
    for _ in 0..3 {
        assert_eq!(next(&mut reports).await.reporters, 0, "nobody is there");
    }
    let envoy = bed.envoy().await;
    begun(&mut reports).await;
    let resting = next(&mut reports).await;
    assert_eq!(of(&resting, ERRORS), Counted::default());
    drop(envoy);
    let deadline = Instant::now() + PATIENCE;
    while next(&mut reports).await.reporters > 0 {
        assert!(Instant::now() < deadline, "the proxy has gone");
    }
    bed.stop().await;
}

/// The next counts of candidate and stable that somebody else provides.
async fn counted(reports: &mut Reports, deadline: Instant) -> [Tally; 2] {
    loop {
        let counted = next(reports).await.metrics.remove("counted");
        if let Some(Observation::Since { candidate, stable, .. }) = counted {
            return [candidate, stable];
        }
        assert!(Instant::now() < deadline, "nothing is counted: {counted:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_prometheus_and_any_url_answer_for_metrics_of_their_own() {
    let bed = Bed::start(Deadlines::default()).await;
    let bootstrap = bed.bootstrap();
    let admin = &bootstrap["admin"]["address"]["socket_address"];
    let admin = format!("{}:{}", admin["address"].as_str().unwrap(), admin["port_value"]).parse().unwrap();
    let _envoy = bed.envoy_of(bootstrap).await;
    let prometheus = Prometheus::start(admin, "/stats/prometheus").await.unwrap();
    let address = format!("http://{}", prometheus.address());
    let metric = |name: &str, kind, query: Option<&str>| MetricSpec {
        name: name.to_owned(),
        kind,
        query: query.map(str::to_owned),
        range: Some(Bounds { min: Some(0.0), max: None }),
        interval: Duration::from_secs(1),
        ..MetricSpec::default()
    };
    let answers = "sum({__name__=~'envoy_cluster_.*upstream_rq_completed', __name__!~'.*external.*', \
                   envoy_cluster_name=~'outbound.*[|]{{revision}}[|].*'})";
    let failed = answers.replace("upstream_rq_completed'", "upstream_rq_xx', envoy_response_code_class='5'");
    let good = format!("({answers} - ({failed} or vector(0)))");
    let labelled = |name: &str, query: &str| format!("label_replace({query}, 'count', '{name}', '', '')");
    let counts = format!("{} or {}", labelled("good", &good), labelled("total", answers));
    let web = |name: &str, url: &str, path: &str| MetricSpec {
        url: Some(url.to_owned()),
        json_path: Some(path.to_owned()),
        ..metric(name, MetricKind::Web, None)
    };
    let quarter = format!("{address}/api/v1/query?query=vector(0.25)");
    let metrics = vec![
        metric("answers", MetricKind::PromQuery, Some(answers)),
        metric("nothing", MetricKind::PromQuery, Some("no_such_metric")),
        metric("nonsense", MetricKind::PromQuery, Some("sum(")),
        metric("unknown", MetricKind::PromQuery, Some("up{pod='{{pod}}'}")),
        web("quarter", &quarter, "$.data.result[0].value[1]"),
        web("nowhere", &quarter, "$.data.result[9]"),
        web("refused", &format!("http://{}/", ports::local().unwrap()), "$"),
        MetricSpec { range: None, slo: Some(0.01), ..metric("counted", MetricKind::PromQuery, Some(&counts)) },
    ];
    let load = Load::start(bed.plan()).unwrap();
    load.next(500, PATIENCE).await.unwrap();
    let window = load.stop().await;
    // Since its start this Envoy has had all the requests that the version had. Those of probes, which are given up
    // at any moment, may not have been answered.
    let requests = seen(&window, "v2").total as f64..=bed.reviews.v2.requests() as f64;
    let mut reports = bed.open_with(EvidenceSource::Auto, metrics, Some(address));
    let deadline = Instant::now() + PATIENCE;
    let mut last = BTreeMap::new();
    let are_all = |last: &BTreeMap<String, Observation>| match last.get("answers") {
        Some(Observation::Value(answers)) => requests.contains(answers) && last.len() == 7,
        _ => false,
    };
    while !are_all(&last) {
        assert!(Instant::now() < deadline, "{requests:?} requests: {last:#?}");
        last.extend(next(&mut reports).await.metrics);
    }
    assert_eq!(last.get("quarter"), Some(&Observation::Value(0.25)));
    assert_eq!(last.get("nothing"), None, "that there is no such series is no error");
    for (metric, part) in [
        ("nonsense", "parse error"),
        ("unknown", "nothing is known of {{pod}}"),
        ("nowhere", "the answer has nothing at \"$.data.result[9]\""),
        ("refused", "cannot be asked: Connection refused"),
    ] {
        let Some(Observation::ProviderError(words)) = last.get(metric) else { panic!("{metric}: {last:#?}") };
        assert!(words.contains(part), "{metric}: {words}");
    }
    // What counts is a difference between two answers: of requests that nobody has made before, each is in it once.
    let is_quiet = |tallies: &[Tally; 2]| tallies.iter().all(|tally| tally.total == 0);
    while !is_quiet(&counted(&mut reports, deadline).await) {}
    let before = bed.reviews.v2.requests();
    let load = Load::start(bed.plan()).unwrap();
    load.next(500, PATIENCE).await.unwrap();
    let window = load.stop().await;
    let requests = seen(&window, "v2").total as u64..=bed.reviews.v2.requests() as u64 - before as u64;
    let deadline = Instant::now() + PATIENCE;
    let mut sums = [Tally::default(); 2];
    while !requests.contains(&sums[0].total) {
        let more = counted(&mut reports, deadline).await;
        sums.iter_mut().zip(more).for_each(|(sum, more)| sum.add(more));
        assert!(sums[0].total <= *requests.end(), "{sums:?}, {requests:?}");
    }
    assert!(sums[1].total > 0 && sums.iter().all(|sum| sum.bad == 0), "{sums:?}");
    bed.stop().await;
}
