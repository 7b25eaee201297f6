//! What is done with a request: answered, changed, sent on, repeated, delayed, copied, kept away from what fails.

use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::backend::Backend;
use testkit::envoy::Envoy;
use testkit::load::{Load, Method, Plan, Rate, Reply};
use testkit::stats::{FALSE_ALARM, assert_split, binomial_tail};
use testkit::{ports, wait};

use crate::mesh::{Mesh, PATIENCE, Reviews, SUBSETS, Variant, answering, pod};

/// A VirtualService of `reviews` with these entries, each a YAML flow mapping without its braces.
fn routes(entries: &[&str]) -> String {
    let head = "apiVersion: networking.istio.io/v1\nkind: VirtualService\n\
                metadata: {name: reviews, namespace: default}\nspec:\n  hosts: [reviews]\n  http:\n";
    let entries = entries.iter().map(|entry| format!("    - {{{entry}}}\n"));
    head.to_owned() + &entries.collect::<String>()
}

const TO_V1: &str = "route: [{destination: {host: reviews, subset: v1}}]";

/// A server with both subsets and these entries; the last one sends everything else to v1.
async fn start(reviews: &Reviews, entries: &[&str]) -> (Mesh, Envoy) {
    let objects = reviews.objects();
    let entries: Vec<&str> = entries.iter().copied().chain([TO_V1]).collect();
    let files = [("reviews.yaml", &*objects), ("rule.yaml", SUBSETS), ("routes.yaml", &routes(&entries))];
    let mesh = Mesh::start(&files).await;
    let client = mesh.client(Variant::Delta, "client").await;
    answering(reviews.plan()).await;
    mesh.assert_no_problems().await;
    (mesh, client)
}

fn get(reviews: &Reviews, path: &str) -> Plan {
    Plan::get(reviews.address, "reviews", path).timeout(PATIENCE)
}

async fn once(plan: Plan) -> Reply {
    plan.once().await.unwrap()
}

/// What the backend saw.
async fn seen(plan: Plan) -> Value {
    once(plan.header("x-echo", "1")).await.json().unwrap()
}

#[tokio::test]
async fn redirects_and_direct_responses_are_answered_without_a_backend() {
    let reviews = Reviews::start();
    let entries = [
        "match: [{uri: {exact: /moved}}], redirect: {uri: /new/home, authority: shop.example}",
        "match: [{uri: {prefix: /old/}}], redirect: {prefixRewrite: /new/, redirectCode: 308}",
        "match: [{uri: {exact: /secure}}], redirect: {scheme: https, authority: shop.example, redirectCode: 302}",
        "match: [{uri: {exact: /port}}], redirect: {authority: shop.example, port: 8443, redirectCode: 307}",
        "match: [{uri: {exact: /teapot}}], directResponse: {status: 418, body: {string: \"short and stout\"}}, \
         headers: {response: {set: {x-mark: teapot}}}",
        "match: [{uri: {exact: /empty}}], directResponse: {status: 204}",
    ];
    let (_mesh, _client) = start(&reviews, &entries).await;
    let before = reviews.v1.requests();
    for (path, status, location) in [
        ("/moved?a=1", 301, "http://shop.example/new/home?a=1"),
        ("/old/x/y?a=1", 308, "http://reviews/new/x/y?a=1"),
        ("/secure", 302, "https://shop.example/secure"),
        ("/port", 307, "http://shop.example:8443/port"),
    ] {
        let reply = once(get(&reviews, path)).await;
        assert_eq!((reply.status, reply.header("location")), (status, Some(location)), "for {path}");
    }
    let teapot = once(get(&reviews, "/teapot")).await;
    assert_eq!((teapot.status, teapot.body(), teapot.header("x-mark")), (418, "short and stout", Some("teapot")));
    let empty = once(get(&reviews, "/empty")).await;
    assert_eq!((empty.status, empty.body()), (204, ""));
    assert_eq!(reviews.v1.requests(), before, "no backend was asked");
}

#[tokio::test]
async fn paths_authorities_and_headers_are_rewritten() {
    let reviews = Reviews::start();
    let entries = [
        "match: [{uri: {prefix: /shop/}}], rewrite: {uri: /}, route: [{destination: {host: reviews, subset: v1}}]",
        "match: [{uri: {prefix: /api}}], rewrite: {uri: /v2/api}, route: [{destination: {host: reviews, subset: v1}}]",
        "match: [{uri: {exact: /whole}}], rewrite: {uri: /other}, route: [{destination: {host: reviews, subset: v1}}]",
        "match: [{uri: {prefix: /user/}}], rewrite: {uriRegexRewrite: {match: \"/user/([0-9]+)/(.*)\", \
         rewrite: \"/\\\\2/of/\\\\1\"}}, route: [{destination: {host: reviews, subset: v1}}]",
        "match: [{uri: {exact: /host}}], rewrite: {authority: internal.example}, \
         route: [{destination: {host: reviews, subset: v1}}]",
        "match: [{uri: {exact: /headers}}], \
         headers: {request: {set: {x-set: new}, add: {x-add: more}, remove: [x-gone]}, \
         response: {set: {x-out: set}, add: {x-backend: envoy}, remove: [content-type]}}, \
         route: [{destination: {host: reviews, subset: v1}, headers: {request: {set: {x-dest: v1}}}}]",
    ];
    let (_mesh, _client) = start(&reviews, &entries).await;
    for (path, wanted) in [
        ("/shop/cart?a=1", "/cart?a=1"),
        ("/api/items", "/v2/api/items"),
        ("/whole", "/other"),
        ("/user/42/orders/last", "/orders/last/of/42"),
        ("/untouched", "/untouched"),
    ] {
        assert_eq!(seen(get(&reviews, path)).await["path"], wanted, "for {path}");
    }
    let host = seen(get(&reviews, "/host")).await;
    assert_eq!((&host["authority"], &host["path"]), (&"internal.example".into(), &"/host".into()));
    assert_eq!(seen(get(&reviews, "/")).await["authority"], "reviews");

    let request = get(&reviews, "/headers").header("x-set", "old").header("x-add", "one").header("x-gone", "x");
    let reply = once(request.header("x-echo", "1")).await;
    let headers = &reply.json().unwrap()["headers"];
    assert_eq!(headers["x-set"], "new", "{headers}");
    assert_eq!(headers["x-add"].as_str().unwrap().replace(", ", ","), "one,more", "{headers}");
    assert_eq!((&headers["x-gone"], &headers["x-dest"]), (&Value::Null, &"v1".into()), "{headers}");
    assert_eq!((reply.header("x-out"), reply.header("content-type")), (Some("set"), None));
    assert_eq!(reply.headers("x-backend"), ["v1", "envoy"]);
}

#[tokio::test]
async fn timeouts_and_retries_are_kept() {
    let reviews = Reviews::start();
    let entries = [
        "match: [{uri: {exact: /delay/2000}}], timeout: 100ms, route: [{destination: {host: reviews, subset: v1}}]",
        "match: [{uri: {exact: /status/503}}], retries: {attempts: 3, retryOn: \"503\", backoff: 1ms}, \
         route: [{destination: {host: reviews, subset: v1}}]",
        "match: [{uri: {exact: /status/500}}], retries: {attempts: 3, retryOn: \"503\", backoff: 1ms}, \
         route: [{destination: {host: reviews, subset: v1}}]",
        "match: [{uri: {exact: /status/502}}], retries: {attempts: 0}, \
         route: [{destination: {host: reviews, subset: v1}}]",
        "match: [{uri: {exact: /delay/400}}], timeout: 5s, \
         retries: {attempts: 2, perTryTimeout: 100ms, retryOn: reset, backoff: 1ms}, \
         route: [{destination: {host: reviews, subset: v1}}]",
    ];
    let (_mesh, _client) = start(&reviews, &entries).await;
    let late = once(get(&reviews, "/delay/2000")).await;
    assert_eq!(late.status, 504);
    assert!((Duration::from_millis(95)..Duration::from_millis(1500)).contains(&late.took), "{:?}", late.took);
    // The backend tells how often it was asked. The slow request above was seen already.
    for (path, status, tries) in [("/status/503", 503, 4), ("/status/500", 500, 1), ("/status/502", 502, 1)] {
        let before = reviews.v1.requests();
        assert_eq!(once(get(&reviews, path)).await.status, status, "for {path}");
        assert_eq!(reviews.v1.requests() - before, tries, "for {path}");
    }
    let before = reviews.v1.requests();
    let reply = once(get(&reviews, "/delay/400")).await;
    assert_eq!((reply.status, reviews.v1.requests() - before), (504, 3), "each try may take 100 ms: {reply:?}");
}

#[tokio::test]
async fn a_dead_endpoint_is_made_up_for_by_retries_and_left_out_by_outlier_detection() {
    let reviews = Reviews::start();
    // v1 serves; the second endpoint refuses connections, which Istio's default retries cover: a retry goes elsewhere.
    // In turns, because a dead endpoint never has a request under way, and the default balancer likes that.
    let nobody = ports::pod(ports::local().unwrap().port()).unwrap();
    let objects = reviews.objects_of(&[("v1", &reviews.v1)]) + &pod("reviews-v2", "app: reviews, version: v2", nobody);
    let rule = |more: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
             metadata: {{name: reviews, namespace: default}}\nspec:\n  host: reviews\n  \
             trafficPolicy: {{loadBalancer: {{simple: ROUND_ROBIN}}{more}}}\n"
        )
    };
    let mesh = Mesh::start(&[("reviews.yaml", &objects), ("rule.yaml", &rule(""))]).await;
    let client = mesh.client(Variant::Delta, "client").await;
    answering(reviews.plan()).await;
    let load = Load::start(reviews.plan().per_second(500.0)).unwrap();
    let window = load.next(500, PATIENCE).await.unwrap();
    window.assert_no_failures();
    assert_split(&window.by_backend(), &[("v1", 1)], FALSE_ALARM);
    let saved = client.stat(&stat(&reviews, "upstream_rq_retry_success")).await.unwrap();
    assert!(saved > 100, "every other of 500 requests needs a retry, but {saved} had one");

    // Without retries these requests fail, until outlier detection leaves the endpoint out.
    mesh.write("routes.yaml", &routes(&["retries: {attempts: 0}, route: [{destination: {host: reviews}}]"]));
    wait::until("requests to fail", PATIENCE, async || {
        let window = load.next(50, PATIENCE).await.unwrap();
        if window.failures().count() > 10 { Ok(()) } else { Err(window) }
    })
    .await
    .unwrap();
    let left_out = ", outlierDetection: {consecutive5xxErrors: 3, interval: 100ms, baseEjectionTime: 60s, \
                    maxEjectionPercent: 100}";
    mesh.write("rule.yaml", &rule(left_out));
    let ejected = stat(&reviews, "outlier_detection.ejections_active");
    client.stat_where(&ejected, PATIENCE, |count| count == 1).await.unwrap();
    load.next(500, PATIENCE).await.unwrap().assert_no_failures();
}

/// The name of a statistic of the cluster of all of `reviews`.
fn stat(reviews: &Reviews, name: &str) -> String {
    format!("cluster.outbound|{}||reviews.default.svc.cluster.local;.{name}", reviews.address.port())
}

#[tokio::test]
async fn faults_hit_their_share_of_requests() {
    let reviews = Reviews::start();
    let entries = [
        "match: [{uri: {exact: /abort}}], fault: {abort: {httpStatus: 418, percentage: {value: 30}}}, \
         route: [{destination: {host: reviews, subset: v1}}]",
        "match: [{uri: {exact: /delay}}], fault: {delay: {fixedDelay: 400ms, percentage: {value: 25}}}, \
         route: [{destination: {host: reviews, subset: v1}}]",
        "match: [{uri: {exact: /always}}], fault: {abort: {httpStatus: 503, percentage: {value: 100}}}, \
         route: [{destination: {host: reviews, subset: v1}}]",
    ];
    let (_mesh, _client) = start(&reviews, &entries).await;
    let load = Load::start(get(&reviews, "/abort").per_second(1000.0)).unwrap();
    let window = load.next(1000, PATIENCE).await.unwrap();
    let statuses = window.by_status().into_iter().map(|(status, count)| (status.to_string(), count)).collect();
    assert_split(&statuses, &[("418", 30), ("200", 70)], FALSE_ALARM);
    drop(load);
    // Envoy's timers may be early by a little; and half the delay is longer than any request without one takes on a
    // machine that is not overwhelmed.
    let load = Load::start(get(&reviews, "/delay").per_second(300.0).connections(120)).unwrap();
    let window = load.next(500, PATIENCE).await.unwrap();
    window.assert_no_failures();
    let delayed = window.samples().iter().filter(|sample| sample.took >= Duration::from_millis(200)).count() as u64;
    let chance = binomial_tail(delayed, window.len() as u64, 0.25);
    assert!(chance >= FALSE_ALARM, "{delayed} of {} were delayed, p = {chance:e}", window.len());
    drop(load);
    for _ in 0..10 {
        assert_eq!(once(get(&reviews, "/always")).await.status, 503);
        assert_eq!(once(get(&reviews, "/never")).await.status, 200);
    }
}

#[tokio::test]
async fn copies_go_to_the_mirror_and_their_answers_to_nobody() {
    let reviews = Reviews::start();
    let to_v2 = "mirror: {host: reviews, subset: v2}, route: [{destination: {host: reviews, subset: v1}}]";
    let entries = [
        &*format!("match: [{{uri: {{prefix: /all}}}}], {to_v2}"),
        &*format!("match: [{{uri: {{prefix: /some}}}}], mirrorPercentage: {{value: 20}}, {to_v2}"),
        // The copy is refused by its backend; nobody hears of it.
        "match: [{uri: {exact: /status/200}}], mirrors: [{destination: {host: reviews, subset: v2}}], \
         route: [{destination: {host: reviews, subset: v1}}]",
    ];
    let (_mesh, _client) = start(&reviews, &entries).await;
    let mut copies = 0;
    for (path, share) in [("/all", 1.0), ("/some", 0.2), ("/status/200", 1.0), ("/none", 0.0)] {
        let before = reviews.v1.requests();
        let load = Load::start(get(&reviews, path).per_second(800.0)).unwrap();
        load.next(600, PATIENCE).await.unwrap();
        let all = load.stop().await;
        all.assert_no_failures();
        assert_split(&all.by_backend(), &[("v1", 1)], FALSE_ALARM);
        let requests = all.len() as u64;
        assert_eq!(reviews.v1.requests() - before, requests, "for {path}");
        if share == 0.0 || share == 1.0 {
            // A copy may arrive a little later than the answer.
            let wanted = copies + if share == 1.0 { requests } else { 0 };
            wait::until(&format!("{wanted} copies"), PATIENCE, async || match reviews.v2.requests() {
                count if count == wanted => Ok(()),
                count => Err(count),
            })
            .await
            .unwrap();
        } else {
            let chance = async || {
                let copied = reviews.v2.requests() - copies;
                match binomial_tail(copied, requests, share) {
                    chance if chance >= FALSE_ALARM => Ok(()),
                    chance => Err(format!("{copied} of {requests} were copied, p = {chance:e}")),
                }
            };
            wait::until("the right share of copies", Duration::from_secs(5), chance).await.unwrap();
            // Let the last ones arrive: the count stands still while as many requests pass as made it.
            wait::until("all copies", PATIENCE, async || {
                let count = reviews.v2.requests();
                let load = Load::start(get(&reviews, "/none")).unwrap();
                load.next(50, PATIENCE).await.unwrap();
                if reviews.v2.requests() == count { Ok(()) } else { Err(count) }
            })
            .await
            .unwrap();
        }
        copies = reviews.v2.requests();
    }
}

#[tokio::test]
async fn preflight_requests_are_answered_for_allowed_origins() {
    let reviews = Reviews::start();
    let entries = ["match: [{uri: {prefix: /cors}}], corsPolicy: {allowOrigins: [{exact: \"https://shop.example\"}, \
         {regex: \"https://[a-z]+\\\\.test\"}], allowMethods: [GET, PUT], allowHeaders: [x-a], exposeHeaders: [x-b], \
         maxAge: 24h, allowCredentials: true}, route: [{destination: {host: reviews, subset: v1}}]"];
    let (_mesh, _client) = start(&reviews, &entries).await;
    let preflight = |path: &str, origin: &str| {
        let plan = get(&reviews, path).method(Method::OPTIONS).header("origin", origin);
        plan.header("access-control-request-method", "PUT")
    };
    let before = reviews.v1.requests();
    for origin in ["https://shop.example", "https://abc.test"] {
        let reply = once(preflight("/cors", origin)).await;
        assert_eq!((reply.status, reply.header("access-control-allow-origin")), (200, Some(origin)), "{reply:?}");
        assert_eq!(reply.header("access-control-allow-methods").unwrap().replace(' ', ""), "GET,PUT");
        assert_eq!(reply.header("access-control-allow-headers"), Some("x-a"));
        assert_eq!(reply.header("access-control-max-age"), Some("86400"));
        assert_eq!(reply.header("access-control-allow-credentials"), Some("true"));
    }
    assert_eq!(reviews.v1.requests(), before, "preflight requests are answered by Envoy");
    // Not allowed: the application is asked, and no header allows anything.
    let foreign = once(preflight("/cors", "https://evil.example")).await;
    assert_eq!((foreign.backend(), foreign.header("access-control-allow-origin")), ("v1", None));
    let elsewhere = once(preflight("/elsewhere", "https://shop.example")).await;
    assert_eq!((elsewhere.backend(), elsewhere.header("access-control-allow-origin")), ("v1", None));
    // The request itself.
    let reply = once(get(&reviews, "/cors").header("origin", "https://shop.example")).await;
    assert_eq!((reply.backend(), reply.header("access-control-allow-origin")), ("v1", Some("https://shop.example")));
    assert_eq!(reply.header("access-control-expose-headers"), Some("x-b"));
}

#[tokio::test]
async fn a_hashed_header_keeps_each_user_at_one_endpoint() {
    let reviews = Reviews::start();
    let v3 = Backend::start("v3", ports::pod(ports::local().unwrap().port()).unwrap()).unwrap();
    let objects = reviews.objects() + &pod("reviews-v3", "app: reviews, version: v3", v3.address());
    let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
                metadata: {name: reviews, namespace: default}\nspec:\n  host: reviews\n  \
                trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x-user}}}\n";
    let mesh = Mesh::start(&[("reviews.yaml", &objects), ("rule.yaml", rule)]).await;
    let _client = mesh.client(Variant::Delta, "client").await;
    answering(reviews.plan()).await;
    let mut homes = std::collections::BTreeMap::new();
    for user in 0..60 {
        let user = format!("user-{user}");
        let plan = reviews.plan().header("x-user", &user);
        let home = once(plan.clone()).await.backend().to_owned();
        for _ in 0..4 {
            assert_eq!(once(plan.clone()).await.backend(), home, "{user} moved");
        }
        *homes.entry(home).or_insert(0) += 1;
    }
    assert!(homes.len() == 3 && homes.values().all(|users| *users >= 5), "users by endpoint: {homes:?}");
    // Without the header there is nothing to hash: all endpoints are used.
    let load = Load::start(reviews.plan().per_second(500.0)).unwrap();
    let window = load.next(300, PATIENCE).await.unwrap();
    window.assert_no_failures();
    assert_eq!(window.by_backend().len(), 3, "{window}");
}

#[tokio::test]
async fn a_full_connection_pool_refuses_what_is_too_much() {
    let reviews = Reviews::start();
    let objects = reviews.objects_of(&[("v1", &reviews.v1)]);
    let rule = |limits: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
             metadata: {{name: reviews, namespace: default}}\nspec:\n  host: reviews\n  \
             trafficPolicy: {{connectionPool: {{{limits}}}}}\n"
        )
    };
    let none = rule("http: {maxRequestsPerConnection: 0}");
    let no_retries = routes(&["retries: {attempts: 0}, route: [{destination: {host: reviews}}]"]);
    let mesh = Mesh::start(&[("reviews.yaml", &objects), ("rule.yaml", &none), ("routes.yaml", &no_retries)]).await;
    let client = mesh.client(Variant::Delta, "client").await;
    answering(reviews.plan()).await;
    // Ten requests at a time, each of which takes a while.
    let load = Load::start(get(&reviews, "/delay/50").rate(Rate::Unlimited).connections(10)).unwrap();
    load.next(60, PATIENCE).await.unwrap().assert_no_failures();
    mesh.write("rule.yaml", &rule("tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1}"));
    let limited = load.first(Instant::now(), PATIENCE, |sample| sample.status() == Some(503)).await.unwrap();
    let since = limited.finished();
    load.first(since, PATIENCE, |sample| sample.status() == Some(200)).await.unwrap();
    let overflow = stat(&reviews, "upstream_rq_pending_overflow");
    client.stat_where(&overflow, PATIENCE, |count| count > 0).await.unwrap();
    wait::until("a refusal that says why", PATIENCE, async || match once(get(&reviews, "/delay/50")).await {
        refused if refused.status == 503 && refused.header("x-envoy-overloaded") == Some("true") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await
    .unwrap();
    // And all pass once the limits are gone.
    mesh.write("rule.yaml", &none);
    wait::until("all requests to pass", PATIENCE, async || {
        let window = load.next(40, PATIENCE).await.unwrap();
        if window.failures().next().is_none() { Ok(()) } else { Err(window) }
    })
    .await
    .unwrap();
}
