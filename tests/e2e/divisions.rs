//! What Envoy does with the assignments of rollouts: weights, directed requests, stickiness, copies, connections, and
//! what happens when a revision is gone. The runs are put into the server by hand, as who conducts them does.

mod bed;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::backend::Backend;
use testkit::envoy::Envoy;
use testkit::grpc_client::GrpcClient;
use testkit::grpc_language::Language;
use testkit::load::{Load, Plan};
use testkit::stats::{FALSE_ALARM, assert_split, binomial_tail};
use testkit::tcp_backend::TcpBackend;
use testkit::{ports, wait};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use world::Kind;

use bed::{Bed, canary, route, run_of, weights, with};

use crate::mesh::{PATIENCE, Reviews, Variant, answering, marked, pod};
use crate::raw::{assert_connections_split, name_where};

async fn a_canary_walks_to_the_end_and_no_request_fails(variant: Variant) {
    let reviews = Reviews::start();
    let bed = Bed::start(&format!("{}---\n{}", reviews.objects(), route("begin")), canary(0.0)).await;
    let _client = bed.sidecar(variant).await;
    answering(reviews.plan()).await;
    assert_eq!(reviews.v2.requests(), 0, "nothing reaches a candidate without weight");
    let load = Load::start(reviews.plan().per_second(800.0).connections(8)).unwrap();
    let begun = Instant::now();
    for (percent, parts, count) in [(1.0, 1, 2000), (5.0, 5, 800), (25.0, 25, 400), (50.0, 50, 400), (100.0, 100, 400)]
    {
        let mark = format!("at-{parts}");
        let applied = bed.apply(&route(&mark), Some(canary(percent))).await;
        let since = marked(&load, applied, &mark).await;
        load.next(count, PATIENCE).await.unwrap();
        let window = load.window(since, Instant::now()).await;
        let all = [("v2", parts), ("v1", 100 - parts)];
        assert_split(&window.by_backend(), &all, FALSE_ALARM);
    }
    // Back at once, as a rollback is.
    let applied = bed.apply(&route("back"), Some(canary(0.0))).await;
    let since = marked(&load, applied, "back").await;
    load.next(200, PATIENCE).await.unwrap();
    assert_split(&load.window(since, Instant::now()).await.by_backend(), &[("v1", 100), ("v2", 0)], FALSE_ALARM);
    load.since(begun).await.assert_no_failures();
}

#[tokio::test]
async fn a_canary_walks_to_the_end_and_no_request_fails_by_delta() {
    a_canary_walks_to_the_end_and_no_request_fails(Variant::Delta).await;
}

#[tokio::test]
async fn a_canary_walks_to_the_end_and_no_request_fails_by_state_of_the_world() {
    a_canary_walks_to_the_end_and_no_request_fails(Variant::StateOfTheWorld).await;
}

async fn a_run_begins_and_ends_under_load_and_no_request_fails(variant: Variant) {
    let reviews = Reviews::start();
    let bed = Bed::start(&format!("{}---\n{}", reviews.objects(), route("before")), None).await;
    let client = bed.sidecar(variant).await;
    answering(reviews.plan()).await;
    let load = Load::start(reviews.plan().per_second(500.0).connections(8)).unwrap();
    let begun = Instant::now();
    load.next(100, PATIENCE).await.unwrap();
    for (percent, share) in [(0.0, 0), (30.0, 30), (100.0, 100)] {
        let mark = format!("at-{share}");
        let applied = bed.apply(&route(&mark), Some(canary(percent))).await;
        let since = marked(&load, applied, &mark).await;
        load.next(300, PATIENCE).await.unwrap();
        let window = load.window(since, Instant::now()).await;
        assert_split(&window.by_backend(), &[("v2", share), ("v1", 100 - share)], FALSE_ALARM);
    }
    // Its clusters go with it, once nothing leads there.
    bed.remove(Kind::RolloutRun, "run").await;
    client.stat_where("cluster_manager.cluster_removed", PATIENCE, |removed| removed >= 2).await.unwrap();
    load.next(100, PATIENCE).await.unwrap();
    load.since(begun).await.assert_no_failures();
}

#[tokio::test]
async fn a_run_begins_and_ends_under_load_and_no_request_fails_by_delta() {
    a_run_begins_and_ends_under_load_and_no_request_fails(Variant::Delta).await;
}

#[tokio::test]
async fn a_run_begins_and_ends_under_load_and_no_request_fails_by_state_of_the_world() {
    a_run_begins_and_ends_under_load_and_no_request_fails(Variant::StateOfTheWorld).await;
}

#[tokio::test]
async fn directed_requests_reach_their_revision_and_all_others_do_not() {
    let reviews = Reviews::start();
    let matches = json!([
        {"header": {"name": "x-qa", "prefix": "ye"}},
        {"cookie": {"name": "qa", "exact": "1.0"}},
        {"query": {"name": "preview", "present": true}, "method": "GET"},
        {"path": {"suffix": ".beta"}, "query": {"name": "old", "present": false}},
        {"path": {"exact": "/exact"}},
    ]);
    let run = with(canary(0.0), "routes", json!([{"name": "qa", "matches": matches, "to": "v2"}]));
    let bed = Bed::start(&format!("{}---\n{}", reviews.objects(), route("begin")), run).await;
    let _client = bed.sidecar(Variant::Delta).await;
    answering(reviews.plan()).await;
    let plan = |path: &str| Plan::get(reviews.address, "reviews", path).timeout(PATIENCE);
    let asked = [
        (plan("/").header("x-qa", "yes"), "v2"),
        (plan("/").header("x-qa", "no"), "v1"),
        (plan("/").header("cookie", "a=b; qa=1.0; c=d"), "v2"),
        (plan("/").header("cookie", "qa=1.0"), "v2"),
        (plan("/").header("cookie", "qa=1x0"), "v1"),
        (plan("/").header("cookie", "noqa=1.0"), "v1"),
        (plan("/").header("cookie", "qa=1.01"), "v1"),
        (plan("/?a=b&preview"), "v2"),
        (plan("/?preview=1"), "v2"),
        (plan("/?preview=1").method(http::Method::POST), "v1"),
        (plan("/?previews=1"), "v1"),
        (plan("/x.beta"), "v2"),
        (plan("/x.beta?older=1"), "v2"),
        (plan("/x.beta?a=b&old=1"), "v1"),
        (plan("/x.beta?old"), "v1"),
        (plan("/x?a=.beta"), "v1"),
        (plan("/exact?x=y"), "v2"),
        (plan("/exact/not"), "v1"),
    ];
    for (plan, wanted) in asked {
        let reply = plan.once().await.unwrap();
        assert_eq!((reply.status, reply.backend()), (200, wanted), "{plan:?}");
    }
}

/// Who is sent to the candidate, of so many users that are known by a header.
async fn users_of_candidate(reviews: &Reviews, users: usize) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    for user in 0..users {
        let plan = reviews.plan().header("x-user", &format!("user-{user}"));
        let first = plan.once().await.unwrap();
        assert_eq!(first.status, 200);
        let again = plan.once().await.unwrap();
        assert_eq!(first.backend(), again.backend(), "user {user}");
        if first.backend() == "v2" {
            found.insert(user);
        }
    }
    found
}

#[tokio::test]
async fn users_stay_where_they_are_by_a_hash_and_only_move_towards_the_candidate() {
    const USERS: usize = 400;
    let reviews = Reviews::start();
    let sticky = json!({"mode": "Hash", "key": [{"header": "x-user"}, {"sourceIp": true}]});
    let at = |percent| with(canary(percent), "stickiness", sticky.clone());
    let bed = Bed::start(&format!("{}---\n{}", reviews.objects(), route("begin")), at(0.0)).await;
    let _client = bed.sidecar(Variant::Delta).await;
    answering(reviews.plan()).await;
    let watch = Load::start(reviews.plan().per_second(50.0).connections(1)).unwrap();
    let mut before = BTreeSet::new();
    for percent in [5.0, 20.0, 50.0, 80.0, 100.0] {
        let mark = format!("at-{percent}");
        let applied = bed.apply(&route(&mark), Some(at(percent))).await;
        marked(&watch, applied, &mark).await;
        let now = users_of_candidate(&reviews, USERS).await;
        assert!(before.is_subset(&now), "at {percent}%: {:?} came back", before.difference(&now).collect::<Vec<_>>());
        if percent < 100.0 {
            let p = binomial_tail(now.len() as u64, USERS as u64, percent / 100.0);
            assert!(p >= FALSE_ALARM, "{} of {USERS} users at {percent}%", now.len());
        } else {
            assert_eq!(now.len(), USERS);
        }
        before = now;
    }
}

#[tokio::test]
async fn browsers_stay_where_their_first_request_went_by_a_cookie() {
    const BROWSERS: u64 = 300;
    let reviews = Reviews::start();
    let sticky = json!({"mode": "Cookie", "cookie": {"name": "pm-rev", "ttl": "1h", "secure": false}});
    let at = |percent| with(canary(percent), "stickiness", sticky.clone());
    let bed = Bed::start(&format!("{}---\n{}", reviews.objects(), route("begin")), at(30.0)).await;
    let _client = bed.sidecar(Variant::Delta).await;
    answering(reviews.plan()).await;
    let mut browsers: Vec<(String, String)> = Vec::new();
    for _ in 0..BROWSERS {
        let first = reviews.plan().once().await.unwrap();
        let cookies = first.headers("set-cookie");
        let [cookie] = &cookies[..] else { panic!("one cookie is set: {cookies:?}") };
        let (pair, attributes) = cookie.split_once("; ").unwrap();
        assert_eq!(attributes, "Max-Age=3600; Path=/; SameSite=Lax; HttpOnly");
        assert!(pair.len() > "pm-rev=".len() + 30, "{pair}");
        browsers.push((pair.to_owned(), first.backend().to_owned()));
    }
    let of_candidate = browsers.iter().filter(|(_, backend)| backend == "v2").count() as u64;
    assert!(binomial_tail(of_candidate, BROWSERS, 0.3) >= FALSE_ALARM, "{of_candidate} of {BROWSERS}");
    let watch = Load::start(reviews.plan().per_second(50.0).connections(1)).unwrap();
    for percent in [30.0, 60.0] {
        let mark = format!("at-{percent}");
        let applied = bed.apply(&route(&mark), Some(at(percent))).await;
        marked(&watch, applied, &mark).await;
        let mut moved = 0;
        for (pair, backend) in &mut browsers {
            let plan = reviews.plan().header("cookie", &format!("other=1; {pair}"));
            let reply = plan.once().await.unwrap();
            assert!(reply.headers("set-cookie").is_empty(), "the cookie stays");
            if reply.backend() != backend.as_str() {
                assert_eq!((percent, reply.backend()), (60.0, "v2"), "{pair} was on {backend}");
                *backend = "v2".to_owned();
                moved += 1;
            }
        }
        let of_candidate = browsers.iter().filter(|(_, backend)| backend == "v2").count() as u64;
        assert!(binomial_tail(of_candidate, BROWSERS, percent / 100.0) >= FALSE_ALARM, "{of_candidate} at {percent}%");
        assert_eq!(moved > 0, percent > 30.0);
    }
}

#[tokio::test]
async fn copies_of_a_share_reach_the_candidate_and_its_answers_nobody() {
    let reviews = Reviews::start();
    let mirror = json!({"to": "v2", "share": 25, "matches": [{"header": {"name": "x-copy", "present": true}}]});
    let bed = Bed::start(&reviews.objects(), with(canary(0.0), "mirror", mirror)).await;
    let _client = bed.sidecar(Variant::Delta).await;
    answering(reviews.plan()).await;
    assert_eq!(reviews.v2.requests(), 0);
    let plan = reviews.plan().header("x-copy", "1").per_second(500.0).connections(8);
    let window = Load::start(plan).unwrap();
    let window = {
        window.next(2000, PATIENCE).await.unwrap();
        window.stop().await
    };
    window.assert_no_failures();
    assert_split(&window.by_backend(), &[("v1", 100), ("v2", 0)], FALSE_ALARM);
    let total = window.len() as u64;
    let copies = wait::until("the last copies", PATIENCE, async || {
        let before = reviews.v2.requests();
        tokio::time::sleep(Duration::from_millis(50)).await;
        if reviews.v2.requests() == before { Ok(before) } else { Err(before) }
    });
    let copies = copies.await.unwrap();
    assert!(binomial_tail(copies, total, 0.25) >= FALSE_ALARM, "{copies} copies of {total} requests");
}

#[tokio::test]
async fn a_switch_of_blue_and_green_is_at_once_and_after_a_preview() {
    let reviews = Reviews::start();
    let preview =
        json!([{"name": "preview", "to": "v2", "matches": [{"header": {"name": "x-preview", "exact": "1"}}]}]);
    let bed =
        Bed::start(&format!("{}---\n{}", reviews.objects(), route("blue")), with(canary(0.0), "routes", preview)).await;
    let _client = bed.sidecar(Variant::Delta).await;
    answering(reviews.plan()).await;
    assert_eq!(reviews.plan().header("x-preview", "1").once().await.unwrap().backend(), "v2");
    let load = Load::start(reviews.plan().per_second(500.0).connections(8)).unwrap();
    let begun = Instant::now();
    load.next(200, PATIENCE).await.unwrap();
    let applied = bed.apply(&route("green"), Some(canary(100.0))).await;
    let since = marked(&load, applied, "green").await;
    load.next(300, PATIENCE).await.unwrap();
    assert_split(&load.window(since, Instant::now()).await.by_backend(), &[("v2", 100), ("v1", 0)], FALSE_ALARM);
    assert_split(&load.window(begun, applied).await.by_backend(), &[("v1", 100), ("v2", 0)], FALSE_ALARM);
    load.since(begun).await.assert_no_failures();
}

#[tokio::test]
async fn without_a_living_endpoint_of_the_candidate_its_requests_go_to_the_fallback() {
    let Reviews { v1, v2, address } = Reviews::start();
    let reviews = Reviews { v1, v2, address };
    let run = with(canary(50.0), "fallback", json!("v1"));
    let bed = Bed::start(&format!("{}---\n{}", reviews.objects(), route("begin")), run).await;
    let _client = bed.sidecar(Variant::Delta).await;
    answering(reviews.plan()).await;
    let connections = 8;
    let load = Load::start(reviews.plan().per_second(500.0).connections(connections)).unwrap();
    let window = load.next(500, PATIENCE).await.unwrap();
    assert_split(&window.by_backend(), &[("v1", 50), ("v2", 50)], FALSE_ALARM);
    let begun = Instant::now();
    // Nobody tells the server: the endpoint is still listed.
    let Reviews { v1, v2, .. } = reviews;
    drop(v2);
    let dead = Instant::now();
    load.next(1000, PATIENCE).await.unwrap();
    let under_way = load.window(begun, dead + Duration::from_millis(20)).await.failures().count();
    assert!(under_way <= connections, "{under_way} requests were under way");
    let after = load.since(dead + Duration::from_millis(20)).await;
    after.assert_no_failures();
    assert_split(&after.by_backend(), &[("v1", 100), ("v2", 0)], FALSE_ALARM);
    drop(v1);
}

#[tokio::test]
async fn a_candidate_whose_endpoints_are_taken_away_gets_nothing_and_no_request_fails() {
    let reviews = Reviews::start();
    let bed = Bed::start(&format!("{}---\n{}", reviews.objects(), route("begin")), canary(50.0)).await;
    let _client = bed.sidecar(Variant::Delta).await;
    answering(reviews.plan()).await;
    let load = Load::start(reviews.plan().per_second(500.0).connections(8)).unwrap();
    let begun = Instant::now();
    load.next(300, PATIENCE).await.unwrap();
    bed.remove(Kind::Pod, "reviews-v2").await;
    wait::until("all requests to reach v1", PATIENCE, async || {
        let window = load.next(60, PATIENCE).await.unwrap();
        if window.by_backend().contains_key("v2") { Err(window.to_string()) } else { Ok(()) }
    })
    .await
    .unwrap();
    load.since(begun).await.assert_no_failures();
}

/// A line there and back.
async fn echo(stream: &mut BufReader<TcpStream>) -> Result<String, String> {
    let exchange = async {
        stream.write_all(b"still\n").await?;
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        std::io::Result::Ok(line)
    };
    match tokio::time::timeout(PATIENCE, exchange).await {
        Ok(Ok(line)) if line.ends_with(" still\n") => Ok(line.split(' ').next().unwrap_or_default().to_owned()),
        other => Err(format!("{other:?}")),
    }
}

#[tokio::test]
async fn connections_are_divided_by_endpoints_and_open_ones_stay_open() {
    let start = |name: &str| TcpBackend::start(name, ports::pod(ports::local().unwrap().port()).unwrap()).unwrap();
    let (v1, v2) = (start("v1"), start("v2"));
    let address = ports::local().unwrap();
    let mut objects = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: db, namespace: default}}\nspec:\n  selector: {{app: db}}\n  \
         ports: [{{name: tcp, port: {}, targetPort: web}}]\n",
        address.port()
    );
    for (version, backend) in [("v1", &v1), ("v2", &v2)] {
        objects += &pod(&format!("db-{version}"), &format!("app: db, version: {version}"), backend.address());
    }
    let at = |percent| run_of("db", weights(percent));
    // There is no run at first: connections are older than it.
    let bed = Bed::start(&objects, None).await;
    let client = bed.sidecar(Variant::Delta).await;
    name_where(address, b"hello", |_| true).await;
    let mut open = BTreeMap::new();
    while open.len() < 2 {
        let mut stream = BufReader::new(TcpStream::connect(address).await.unwrap());
        open.insert(echo(&mut stream).await.unwrap(), stream);
    }
    let modified = "listener_manager.listener_modified";
    let listeners = client.stat(modified).await.unwrap();
    for (percent, parts) in [(20.0, 20), (40.0, 40), (100.0, 100), (0.0, 0), (75.0, 75)] {
        bed.apply("", Some(at(percent))).await;
        let cluster = format!("outbound|{}||db.default.svc.cluster.local", address.port());
        wait::until("the endpoints to be in use", PATIENCE, async || {
            let seen = localities(&client, &cluster).await;
            if seen == divided(parts) { Ok(()) } else { Err(format!("{seen:?}")) }
        })
        .await
        .unwrap();
        assert_connections_split(address, b"hello", &[("v2", parts), ("v1", 100 - parts)]).await;
        for (name, stream) in &mut open {
            assert_eq!(echo(stream).await.as_deref(), Ok(name.as_str()), "at {percent}%");
        }
    }
    assert_eq!(client.stat(modified).await.unwrap(), listeners, "no listener was changed");
}

/// Sub-zones of a cluster's endpoints with their weights in the configuration, in percent.
async fn localities(client: &Envoy, cluster: &str) -> BTreeMap<String, u64> {
    let dump = client.get_json("/config_dump?include_eds").await.unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let configs = dump["configs"].as_array().unwrap().iter();
    let dynamic = configs.filter_map(|config| config["dynamic_endpoint_configs"].as_array()).flatten();
    let assignments = dynamic.map(|config| &config["endpoint_config"]);
    let of_cluster = assignments.filter(|assignment| assignment["cluster_name"] == cluster);
    let localities = of_cluster.filter_map(|assignment| assignment["endpoints"].as_array()).flatten();
    localities
        .map(|l| (text(&l["locality"]["sub_zone"]), l["load_balancing_weight"].as_u64().unwrap_or(0) / 10_000))
        .collect()
}

fn divided(parts: u64) -> BTreeMap<String, u64> {
    let all = [("v2".to_owned(), parts), ("v1".to_owned(), 100 - parts)];
    all.into_iter().filter(|(_, parts)| *parts > 0).collect()
}

#[tokio::test]
async fn a_rolling_run_exchanges_endpoints_and_no_request_fails() {
    let backend = |name: &str| Backend::start(name, ports::pod(ports::local().unwrap().port()).unwrap()).unwrap();
    let (old, new) = ([backend("v1"), backend("v1")], [backend("v2"), backend("v2")]);
    let address = ports::local().unwrap();
    let mut objects = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: reviews, namespace: default}}\nspec:\n  \
         selector: {{app: reviews}}\n  ports: [{{name: http, port: {}, targetPort: web}}]\n",
        address.port()
    );
    for (version, backends) in [("v1", &old), ("v2", &new)] {
        for (at, backend) in backends.iter().enumerate() {
            objects +=
                &pod(&format!("{version}-{at}"), &format!("app: reviews, version: {version}"), backend.address());
        }
    }
    let counts = |new: u32, old: u32| run_of("reviews", json!({"Endpoints": [["v2", new], ["v1", old]]}));
    let bed = Bed::start(&format!("{objects}---\n{}", route("begin")), counts(0, 2)).await;
    let client = bed.sidecar(Variant::Delta).await;
    let plan = Plan::get(address, "reviews", "/").timeout(PATIENCE);
    answering(plan.clone()).await;
    let load = Load::start(plan.per_second(500.0).connections(8)).unwrap();
    let begun = Instant::now();
    let cluster = format!("outbound|{}||reviews.default.svc.cluster.local", address.port());
    for (new, old) in [(1, 2), (1, 1), (2, 1), (2, 0)] {
        bed.apply("", Some(counts(new, old))).await;
        let wanted: BTreeSet<_> =
            [("v2", new), ("v1", old)].into_iter().filter(|(_, n)| *n > 0).map(|(v, _)| v).collect();
        let since = wait::until("the members to be in use", PATIENCE, async || {
            let clusters = client.clusters().await.map_err(|error| error.to_string())?;
            let statuses = clusters["cluster_statuses"].as_array().unwrap().iter();
            let hosts = statuses.filter(|status| status["name"] == cluster.as_str());
            let count = hosts.filter_map(|status| status["host_statuses"].as_array()).flatten().count();
            if count == (new + old) as usize { Ok(Instant::now()) } else { Err(count.to_string()) }
        });
        let since = since.await.unwrap();
        load.next(300, PATIENCE).await.unwrap();
        let by_backend = load.since(since + Duration::from_millis(50)).await.by_backend();
        assert_eq!(by_backend.keys().map(String::as_str).collect::<BTreeSet<_>>(), wanted, "{by_backend:?}");
    }
    load.since(begun).await.assert_no_failures();
}

#[tokio::test]
async fn a_gateway_divides_what_it_is_attached_to() {
    let reviews = Reviews::start();
    let port = ports::local().unwrap().port();
    let edge = format!(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: edge, namespace: default}}\nspec:\n  \
         selector: {{istio: edge}}\n  servers: [{{port: {{number: {port}, name: http, protocol: HTTP}}, hosts: ['*']}}]\n"
    );
    let routes = route("begin").replace("hosts: [reviews]", "hosts: [shop.test]\n  gateways: [edge]");
    let attached = |gateways: Value, percent| {
        let mut run = canary(percent);
        run["attach"] = json!({"gateways": gateways});
        run
    };
    let objects = format!("{}---\n{edge}---\n{routes}", reviews.objects());
    let bed = Bed::start(&objects, attached(json!(["edge"]), 30.0)).await;
    let _gateway = bed.client(Variant::Delta, &["--kind", "gateway", "--pod", "edge", "--label", "istio=edge"]).await;
    let plan = Plan::get(SocketAddr::from(([127, 0, 0, 1], port)), "shop.test", "/").timeout(PATIENCE);
    answering(plan.clone()).await;
    let load = Load::start(plan.per_second(500.0).connections(4)).unwrap();
    let begun = Instant::now();
    let window = load.next(600, PATIENCE).await.unwrap();
    assert_split(&window.by_backend(), &[("v2", 30), ("v1", 70)], FALSE_ALARM);
    let routes = routes.replace("begin", "apart");
    let applied = bed.apply(&routes, Some(attached(json!(["another"]), 30.0))).await;
    let since = marked(&load, applied, "apart").await;
    load.next(300, PATIENCE).await.unwrap();
    let window = load.window(since, Instant::now()).await;
    assert_split(&window.by_backend(), &[("v1", 100), ("v2", 0)], FALSE_ALARM);
    load.since(begun).await.assert_no_failures();
}

async fn clients_without_a_proxy_follow_weights_headers_and_fallbacks(language: Language) {
    const METHOD: &str = "/shop.Reviews/Get";
    let reviews = Reviews::start();
    let qa = json!([{"name": "qa", "to": "v2", "matches": [{"header": {"name": "x-qa", "suffix": "s"}}]}]);
    let plain = |percent| with(canary(percent), "fallback", json!("v1"));
    let bed = Bed::start(&reviews.objects().replace("name: http,", "name: grpc,"), plain(0.0)).await;
    let bootstrap = bed.bootstrap(&["--kind", "grpc", "--pod", "client"]);
    let target = format!("xds:///reviews.default.svc.cluster.local:{}", reviews.address.port());
    let mut client = GrpcClient::start_in(language, &target, &bootstrap).unwrap();
    let answers = client.call(METHOD, 100, PATIENCE, &[]).await.unwrap();
    assert!(answers.errors.is_empty() && answers.by_backend.keys().eq(["v1"]), "{answers:?}");
    bed.apply("", Some(plain(30.0))).await;
    wait::until("v2 to answer", PATIENCE, async || {
        let answers = client.call(METHOD, 30, PATIENCE, &[]).await.unwrap();
        assert!(answers.errors.is_empty(), "{answers:?}");
        if answers.by_backend.contains_key("v2") { Ok(()) } else { Err(format!("{answers:?}")) }
    })
    .await
    .unwrap();
    bed.apply("", Some(with(plain(30.0), "routes", qa))).await;
    wait::until("all chosen requests to go to v2", PATIENCE, async || {
        let answers = client.call(METHOD, 20, PATIENCE, &[("x-qa", "yes")]).await.unwrap();
        assert!(answers.errors.is_empty(), "{answers:?}");
        if answers.by_backend.keys().eq(["v2"]) { Ok(()) } else { Err(format!("{answers:?}")) }
    })
    .await
    .unwrap();
    let answers = client.call(METHOD, 600, PATIENCE, &[]).await.unwrap();
    assert!(answers.errors.is_empty(), "{answers:?}");
    assert_split(&answers.by_backend, &[("v2", 30), ("v1", 70)], FALSE_ALARM);
    let Reviews { v2, .. } = reviews;
    drop(v2);
    wait::until("the fallback to answer for v2", PATIENCE, async || {
        let answers = client.call(METHOD, 100, PATIENCE, &[]).await.unwrap();
        if answers.errors.is_empty() { Ok(()) } else { Err(format!("{answers:?}")) }
    })
    .await
    .unwrap();
    let answers = client.call(METHOD, 200, PATIENCE, &[]).await.unwrap();
    assert!(answers.errors.is_empty() && answers.by_backend.keys().eq(["v1"]), "{answers:?}");
}

#[tokio::test]
async fn grpc_clients_without_a_proxy_follow_weights_headers_and_fallbacks() {
    clients_without_a_proxy_follow_weights_headers_and_fallbacks(Language::Python).await;
}

#[tokio::test]
async fn grpc_clients_without_a_proxy_follow_weights_headers_and_fallbacks_in_go() {
    clients_without_a_proxy_follow_weights_headers_and_fallbacks(Language::Go).await;
}

#[tokio::test]
async fn envoy_takes_the_routes_of_every_strategy() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../compile/tests/golden/rollout");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let golden: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let manager = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "all",
            "route_config": {
                "name": "all", "validate_clusters": false,
                "virtual_hosts": [{"name": "reviews", "domains": ["*"], "routes": golden["sidecar"]}],
            },
            "http_filters": [{
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
            }],
        });
        let listener = json!({
            "name": "all",
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": ports::local().unwrap().port()}},
            "filter_chains": [{"filters": [{
                "name": "envoy.filters.network.http_connection_manager", "typed_config": manager,
            }]}],
        });
        let bootstrap = json!({"static_resources": {"listeners": [listener]}});
        Envoy::validate(&bootstrap).await.unwrap_or_else(|error| panic!("{}: {error:#}", path.display()));
        seen += 1;
    }
    assert!(seen >= 10, "the golden files are there");
}
