//! Limits that real Envoys keep, by themselves and together.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use testkit::backend::Backend;
use testkit::envoy::{Envoy, Setup};
use testkit::load::{Load, Plan};
use testkit::{ports, wait};

use crate::identity::Guarded;
use crate::mesh::{Mesh, PATIENCE, Variant, pod};

/// An app on 127.0.0.1 behind the inbound listeners of its sidecars: one for each pod.
struct Shop {
    mesh: Mesh,
    pods: Vec<SocketAddr>,
    _proxies: Vec<Envoy>,
    _app: Backend,
}

impl Shop {
    async fn start(pods: usize, policy: &str) -> Shop {
        let web = ports::local().unwrap();
        let app = Backend::start("shop", web).unwrap();
        let pods: Vec<SocketAddr> = (0..pods).map(|_| ports::pod(web.port()).unwrap()).collect();
        let mesh = Mesh::start(&[("objects.yaml", &objects(&pods)), ("policy.yaml", policy)]).await;
        let mut proxies = Vec::new();
        for (at, address) in pods.iter().enumerate() {
            let (name, ip) = (format!("shop-{at}"), address.ip().to_string());
            let arguments = ["--pod", &*name, "--ip", &ip, "--interception", "none"];
            proxies.push(mesh.envoy(Variant::Delta, &arguments).await);
        }
        for address in &pods {
            answering(get(*address, "/ready")).await;
        }
        mesh.assert_no_problems().await;
        Shop { mesh, pods, _proxies: proxies, _app: app }
    }
}

/// A service, and its pods at these addresses.
fn objects(pods: &[SocketAddr]) -> String {
    let mut objects = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: shop, namespace: default}}\nspec:\n  \
         selector: {{app: shop}}\n  ports: [{{name: http, port: {}, targetPort: web}}]\n",
        ports::local().unwrap().port(),
    );
    for (at, address) in pods.iter().enumerate() {
        objects += &pod(&format!("shop-{at}"), "app: shop", *address);
    }
    objects
}

/// Waits until a request is answered with 200.
async fn answering(plan: Plan) {
    wait::until("an answer with 200", PATIENCE, async || match plan.once().await {
        Ok(reply) if reply.status == 200 => Ok(()),
        Ok(reply) => Err(reply.status.to_string()),
        Err(error) => Err(format!("{error:#}")),
    })
    .await
    .unwrap();
}

fn get(address: SocketAddr, path: &str) -> Plan {
    Plan::get(address, "shop", path).timeout(Duration::from_secs(10))
}

fn policy(limits: &str) -> String {
    format!(
        "apiVersion: policy.pointsman.dev/v1alpha1\nkind: RateLimitPolicy\nmetadata: {{name: shop, namespace: default}}\n\
         spec:\n  selector: {{matchLabels: {{app: shop}}}}\n  limits:\n{limits}"
    )
}

/// The statuses of so many requests, one after the other.
async fn statuses(plan: &Plan, count: usize) -> Vec<u16> {
    let mut found = Vec::new();
    for _ in 0..count {
        found.push(plan.once().await.unwrap().status);
    }
    found
}

/// Requests a second that pass of what these loads send, over `span`, once `after` is over.
async fn passing(loads: &[Load], after: Duration, span: Duration) -> f64 {
    let from = Instant::now() + after;
    tokio::time::sleep_until((from + span).into()).await;
    let mut passed = 0;
    for load in loads {
        let window = load.window(from, from + span).await;
        let by_status = window.by_status();
        assert!(by_status.keys().all(|status| matches!(status, 200 | 429)), "{window}");
        assert!(by_status[&429] > 0, "nothing was refused: {window}");
        passed += by_status[&200];
    }
    passed as f64 / span.as_secs_f64()
}

#[tokio::test]
async fn a_proxy_lets_pass_what_its_limit_says() {
    let text = policy("    - {name: all, requests: 50, per: 1s, burst: 5, match: {paths: [/limited]}}\n");
    let shop = Shop::start(1, &text).await;
    let load = Load::start(get(shop.pods[0], "/limited?size=1").per_second(250.0)).unwrap();
    let rate = passing(&[load], Duration::from_secs(1), Duration::from_secs(10)).await;
    assert!((47.5..=52.5).contains(&rate), "{rate} a second passed, at a limit of 50");
}

#[tokio::test]
async fn requests_are_told_apart_by_what_they_ask_and_who_asks() {
    let limits = "    - name: logins\n      requests: 2\n      per: 1h\n      match: {methods: [POST], paths: [/login, /api/*], hosts: [shop]}\n      \
                  by: [{header: x-user}, {client: Address}, {client: Identity}, {claim: sub}]\n    \
                  - {name: seen, requests: 1, per: 1h, dryRun: true, match: {paths: [/seen]}}\n    \
                  - {name: tier, requests: 1, per: 1h, match: {headers: {x-tier: [free, \"trial*\"]}}}\n";
    let shop = Shop::start(1, &policy(limits)).await;
    let post = |path: &str, user: Option<&str>| {
        let plan = get(shop.pods[0], path).method(http::Method::POST);
        user.map_or(plan.clone(), |user| plan.header("x-user", user))
    };
    assert_eq!(statuses(&post("/login", Some("a")), 3).await, [200, 200, 429]);
    assert_eq!(statuses(&post("/login?next=/", Some("b")), 3).await, [200, 200, 429]);
    // It is one limit, whatever was asked for.
    assert_eq!(statuses(&post("/api/orders", Some("a")), 1).await, [429]);
    // Those who do not say who they are do not get around it.
    assert_eq!(statuses(&post("/login", None), 3).await, [200, 200, 429]);
    assert_eq!(statuses(&post("/other", Some("a")), 3).await, [200, 200, 200]);
    assert_eq!(statuses(&get(shop.pods[0], "/login").header("x-user", "a"), 3).await, [200, 200, 200]);
    assert_eq!(statuses(&get(shop.pods[0], "/seen"), 3).await, [200, 200, 200]);
    assert_eq!(statuses(&get(shop.pods[0], "/").header("x-tier", "trial-7"), 2).await, [200, 429]);
    assert_eq!(statuses(&get(shop.pods[0], "/").header("x-tier", "gold"), 2).await, [200, 200]);
    let refused = post("/login", Some("a")).once().await.unwrap();
    assert_eq!(refused.header("x-ratelimit-remaining"), Some("0"), "{refused:?}");
    // Lifted, at once and without a new connection being refused.
    shop.mesh.remove("policy.yaml");
    answering(post("/login", Some("a"))).await;
}

/// Texts that are together, and some of them alone, more than Envoy takes as a regular expression.
fn many(begin: &str, end: &str) -> Vec<String> {
    (0..16).map(|at| format!("{begin}a-name-that-is-longer-than-most-others-are-{at}{end}")).collect()
}

#[tokio::test]
async fn a_limit_holds_for_as_many_values_as_it_may_have() {
    let (paths, hosts, tiers) = (many("/", ""), many("", ".test"), many("", "*"));
    let limits = format!(
        "    - {{name: paths, requests: 2, per: 1h, match: {{paths: {paths:?}}}, by: [{{header: x-user}}]}}\n    \
         - {{name: hosts, requests: 2, per: 1h, match: {{hosts: {hosts:?}, headers: {{x-tier: {tiers:?}}}}}}}\n    \
         - {{name: common, requests: 2, per: 1h, scope: Global, match: {{methods: [PUT], paths: {paths:?}}}}}\n"
    );
    let shop = Shop::start(1, &policy(&limits)).await;
    let address = shop.pods[0];
    let by = |at: usize, user: &str| get(address, &format!("{}?query=1", paths[at])).header("x-user", user);
    assert_eq!(statuses(&by(0, "a"), 1).await, [200]);
    assert_eq!(statuses(&by(15, "a"), 2).await, [200, 429]);
    assert_eq!(statuses(&by(15, "b"), 3).await, [200, 200, 429]);
    assert_eq!(statuses(&get(address, &format!("{}/", paths[0])).header("x-user", "a"), 3).await, [200; 3]);
    let to = |at: usize, tier: &str| {
        let host = format!("{}:80", hosts[at].to_uppercase());
        Plan::get(address, &host, "/").timeout(PATIENCE).header("x-tier", tier)
    };
    let tier = tiers[7].replace('*', "-and-more");
    assert_eq!(statuses(&to(0, "free"), 3).await, [200; 3]);
    assert_eq!(statuses(&get(address, "/").header("x-tier", &tier), 3).await, [200; 3]);
    assert_eq!(statuses(&get(address, "/"), 3).await, [200; 3]);
    assert_eq!(statuses(&to(0, &tier), 1).await, [200]);
    assert_eq!(statuses(&to(15, &tier), 2).await, [200, 429]);
    let put = |path: &str| get(address, path).method(http::Method::PUT).header("x-user", path);
    assert_eq!(statuses(&put(&paths[3]), 1).await, [200]);
    assert_eq!(statuses(&put(&paths[4]), 2).await, [200, 429]);
    assert_eq!(statuses(&put("/other"), 3).await, [200; 3]);
}

#[tokio::test]
async fn clients_of_a_sidecar_are_told_apart_by_their_connections_whatever_they_say() {
    let limits = "    - {name: each, requests: 2, per: 1h, match: {paths: [/limited]}, by: [{client: Address}]}\n";
    let shop = Shop::start(1, &policy(limits)).await;
    let mut found = Vec::new();
    for (from, headers) in [
        (5, &[("x-forwarded-for", "192.0.2.1")][..]),
        (5, &[("x-forwarded-for", "192.0.2.2")]),
        (5, &[("x-forwarded-for", "192.0.2.3, 192.0.2.4")]),
        (5, &[]),
        (6, &[("x-forwarded-for", "127.0.0.5")]),
        (6, &[]),
        (6, &[]),
    ] {
        let sent = crate::authorization::get("/limited").from(from).headers(headers);
        found.push(sent.answer(shop.pods[0]).await.unwrap().0);
    }
    assert_eq!(found, [200, 200, 429, 429, 200, 200, 429]);
}

#[tokio::test]
async fn clients_of_a_gateway_are_those_whom_trusted_proxies_tell_of() {
    let entry = ports::local().unwrap();
    let objects = format!(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: edge, namespace: default}}\nspec:\n  \
         selector: {{istio: edge}}\n  servers: [{{port: {{number: {}, name: http, protocol: HTTP}}, hosts: ['*']}}]\n\
         ---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: edge, namespace: default}}\n\
         spec: {{hosts: ['*'], gateways: [edge], http: [{{directResponse: {{status: 200}}}}]}}\n\
         ---\napiVersion: policy.pointsman.dev/v1alpha1\nkind: RateLimitPolicy\nmetadata: {{name: edge, namespace: default}}\n\
         spec:\n  selector: {{matchLabels: {{istio: edge}}}}\n  \
         limits: [{{name: each, requests: 2, per: 1h, match: {{paths: [/limited]}}, by: [{{client: Address}}]}}]\n",
        entry.port()
    );
    let topology = |trusted: u32| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: |\n    \
             defaultConfig: {{gatewayTopology: {{numTrustedProxies: {trusted}}}}}\n"
        )
    };
    let mine = [["192.0.2.1, 198.51.100.1"], ["192.0.2.2, 198.51.100.1"], ["192.0.2.3, 198.51.100.1"]];
    let others = [["192.0.2.1, 198.51.100.2"], ["198.51.100.3"]];
    // Without a trusted proxy all come from the same address.
    for (trusted, wanted) in [(0, [200, 200, 429, 429, 429]), (1, [200, 200, 429, 200, 200])] {
        let mesh = Mesh::start(&[("objects.yaml", &objects), ("mesh.yaml", &topology(trusted))]).await;
        let arguments = ["--kind", "gateway", "--pod", "edge", "--label", "istio=edge"];
        let _gateway = mesh.envoy(Variant::Delta, &arguments).await;
        answering(get(entry, "/ready")).await;
        let mut found = Vec::new();
        for [said] in mine.iter().chain(&others) {
            let plan = get(entry, "/limited").header("x-forwarded-for", said);
            found.push(plan.once().await.unwrap().status);
        }
        assert_eq!(found, wanted, "{trusted} trusted proxies");
        mesh.assert_no_problems().await;
    }
}

#[tokio::test]
async fn proxies_let_pass_together_what_their_limit_says() {
    let limits = "    - {name: all, requests: 60, per: 1s, scope: Global, match: {paths: [/limited]}}\n    \
                  - {name: strict, requests: 1000, per: 1s, scope: Global, onError: Deny, match: {paths: [/strict]}}\n";
    let mut shop = Shop::start(2, &policy(limits)).await;
    let load = |address: &SocketAddr| Load::start(get(*address, "/limited").per_second(120.0)).unwrap();
    let loads: Vec<Load> = shop.pods.iter().map(load).collect();
    let rate = passing(&loads, Duration::from_secs(2), Duration::from_secs(10)).await;
    assert!((57.0..=63.0).contains(&rate), "{rate} a second passed, at a limit of 60");
    let metric = "pointsman_quota_requests{limit=\"default/shop/all\",outcome=\"refused\"}";
    assert!(shop.mesh.metric(metric).await > 0);
    drop(loads);

    assert_eq!(statuses(&get(shop.pods[0], "/strict"), 1).await, [200]);
    shop.mesh.server.kill().await.unwrap();
    // Nobody can say any more how many there were.
    assert_eq!(statuses(&get(shop.pods[0], "/limited"), 100).await, [200; 100]);
    assert_eq!(statuses(&get(shop.pods[0], "/strict"), 2).await, [500, 500]);
}

/// The token is in the discovery stream alone, so the proxy asks by the certificate that it got there.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_has_a_token_keeps_a_common_limit_too() {
    let text =
        policy("    - {name: all, requests: 60, per: 1s, scope: Global, onError: Deny, match: {paths: [/limited]}}\n");
    let web = ports::local().unwrap();
    let _app = Backend::start("shop", web).unwrap();
    let address = ports::pod(web.port()).unwrap();
    let server = Guarded::start(&[("objects.yaml", &objects(&[address])), ("policy.yaml", &text)], &[]).await;
    let (token, ip) = (server.token("default/shop"), address.ip().to_string());
    let arguments = ["--ip", &*ip, "--token-file", &*token, "--service-account", "shop"];
    let proxy = Setup::new(server.bootstrap("shop-0", &arguments)).start().await.unwrap();
    // Who cannot ask answers with 500.
    answering(get(address, "/limited")).await;
    let load = Load::start(get(address, "/limited").per_second(240.0)).unwrap();
    let rate = passing(&[load], Duration::from_secs(2), Duration::from_secs(10)).await;
    assert!((57.0..=63.0).contains(&rate), "{rate} a second passed, at a limit of 60");
    let metric = "pointsman_quota_requests{limit=\"default/shop/all\",outcome=\"refused\"}";
    assert!(server.mesh.metric(metric).await > 0);
    server.mesh.assert_no_problems().await;
    proxy.stop().await.unwrap();
}
