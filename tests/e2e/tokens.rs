//! Tokens of requests: RequestAuthentication with real Envoys, tokens that are signed here, and key sets that are
//! fetched from a server of the test.

mod broken;
pub mod issuer;

use std::net::SocketAddr;

use serde_json::{Value, json};
use testkit::backend::Backend;
use testkit::envoy::Envoy;
use testkit::load::{Plan, Reply};
use testkit::{ports, wait};

use crate::gateway_secrets::Authority;
use crate::mesh::{Mesh, PATIENCE, Variant};
use issuer::{Documents, Issuer, now};

/// A workload with a proxy in front of it: requests to `address` pass the proxy.
struct Workload {
    mesh: Mesh,
    address: SocketAddr,
    _app: Backend,
    proxy: Envoy,
}

impl Workload {
    /// With these RequestAuthentications.
    async fn start(variant: Variant, policies: &str, arguments: &[&str]) -> Workload {
        let local = ports::local().unwrap();
        let pod = ports::pod(local.port()).unwrap();
        let app = Backend::start("app", local).unwrap();
        let port = local.port();
        let objects = format!(
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: shop\n  namespace: default\n  \
             annotations: {{networking.istio.io/exportTo: elsewhere}}\nspec:\n  selector: {{app: shop}}\n  \
             ports: [{{name: http, port: {port}, targetPort: {port}}}]\n\
             ---\napiVersion: v1\nkind: Pod\nmetadata: {{name: shop-1, namespace: default, labels: {{app: shop}}}}\n\
             spec: {{containers: [{{name: app}}]}}\nstatus: {{podIP: {}, phase: Running}}\n",
            pod.ip()
        );
        let mesh = Mesh::start_with(&[("objects.yaml", &objects), ("policies.yaml", policies)], arguments).await;
        let ip = pod.ip().to_string();
        let proxy = mesh.envoy(variant, &["--pod", "shop-1", "--ip", &ip, "--interception", "none"]).await;
        let workload = Workload { mesh, address: pod, _app: app, proxy };
        workload.answers(workload.plan(), 200).await;
        workload
    }

    fn plan(&self) -> Plan {
        Plan::get(self.address, "shop", "/echo").timeout(PATIENCE)
    }

    fn with(&self, token: &str) -> Plan {
        self.plan().header("authorization", &format!("Bearer {token}"))
    }

    /// Waits until a request is answered with this status.
    async fn answers(&self, plan: Plan, status: u16) -> Reply {
        wait::until(&format!("an answer with status {status}"), PATIENCE, async || match plan.once().await {
            Ok(reply) if reply.status == status => Ok(reply),
            Ok(reply) => Err(format!("{reply:?}")),
            Err(error) => Err(format!("{error:#}")),
        })
        .await
        .unwrap()
    }

    async fn problems_where(&self, what: &str, wanted: impl Fn(&str) -> bool) {
        self.mesh.get_where("/api/v1/problems", what, |problems| wanted(&problems.to_string())).await;
    }
}

/// A RequestAuthentication in namespace `default` for the shop, with these rules.
fn policy(name: &str, rules: &[Value]) -> String {
    let object = json!({
        "apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "shop"}}, "jwtRules": rules},
    });
    format!("---\n{object}\n")
}

/// What the app has seen.
fn seen(reply: &Reply) -> Value {
    serde_json::from_str(reply.body()).unwrap()
}

async fn every_flaw_of_a_token_is_refused_and_no_token_passes(variant: Variant) {
    let issuer = Issuer::new("https://issuer.test");
    let documents = Documents::start().await;
    documents.set("/keys", 200, &issuer.key_set());
    let rule = json!({
        "issuer": issuer.name, "audiences": ["shop"], "jwksUri": documents.url("/keys"),
        "outputClaimToHeaders": [{"header": "x-user", "claim": "sub"}, {"header": "x-tier", "claim": "account.tier"}],
        "outputPayloadToHeader": "x-payload",
    });
    let workload = Workload::start(variant, &policy("tokens", &[rule]), &[]).await;

    let good = json!({"account": {"tier": "gold"}});
    let reply = workload.answers(workload.with(&issuer.token(good)), 200).await;
    let headers = &seen(&reply)["headers"];
    assert_eq!((&headers["x-user"], &headers["x-tier"]), (&json!("alice"), &json!("gold")), "{headers}");
    assert!(headers["x-payload"].is_string() && headers["authorization"].is_null(), "{headers}");

    // Nobody can say by a header what only a token may say.
    let forged = workload.plan().header("x-user", "root").once().await.unwrap();
    assert_eq!(forged.status, 200);
    assert!(seen(&forged)["headers"]["x-user"].is_null(), "{}", forged.body());

    let (hour, token) = (3600, issuer.token(json!({})));
    let [head, payload, signature] = token.split('.').collect::<Vec<_>>().try_into().unwrap();
    let payload_of = |claims: Value| issuer.token(claims).split('.').nth(1).unwrap().to_owned();
    let other = Issuer::new(&issuer.name);
    for (flaw, status, token) in [
        ("expired", 401, issuer.token(json!({"exp": now() - hour}))),
        ("not yet valid", 401, issuer.token(json!({"nbf": now() + hour}))),
        ("for another audience", 403, issuer.token(json!({"aud": "bank"}))),
        ("for nobody", 403, issuer.token(json!({"aud": null}))),
        ("of another issuer", 401, issuer.token(json!({"iss": "https://elsewhere.test"}))),
        ("without algorithm", 401, issuer::unsigned(&json!({"iss": issuer.name, "aud": "shop", "sub": "alice"}))),
        ("tampered with", 401, format!("{head}.{}.{signature}", payload_of(json!({"sub": "root"})))),
        ("with half a signature", 401, format!("{head}.{payload}.{}", &signature[..signature.len() / 2])),
        ("without a signature", 401, format!("{head}.{payload}.")),
        ("signed by somebody else", 401, other.token(json!({}))),
        ("signed by a secret that is the public key", 401, issuer.token_by_public_key()),
        ("garbage", 401, "not.a.token".to_owned()),
        ("no token at all", 200, String::new()),
    ] {
        let reply = workload.with(&token).once().await.unwrap();
        assert_eq!(reply.status, status, "a token that is {flaw}: {reply:?}");
    }
    assert_eq!(workload.plan().once().await.unwrap().status, 200, "no token");

    // A browser asks first, without a token.
    let preflight = workload.with("not.a.token").method(http::Method::OPTIONS);
    let preflight = preflight.header("origin", "http://a.test").header("access-control-request-method", "GET");
    assert_eq!(preflight.once().await.unwrap().status, 200);
    workload.mesh.assert_no_problems().await;
}

#[tokio::test]
async fn every_flaw_of_a_token_is_refused_and_no_token_passes_by_delta() {
    every_flaw_of_a_token_is_refused_and_no_token_passes(Variant::Delta).await;
}

#[tokio::test]
async fn every_flaw_of_a_token_is_refused_and_no_token_passes_by_state_of_the_world() {
    every_flaw_of_a_token_is_refused_and_no_token_passes(Variant::StateOfTheWorld).await;
}

#[tokio::test]
async fn tokens_of_several_issuers_are_found_in_headers_parameters_and_cookies() {
    let (first, second, third) =
        (Issuer::new("https://first.test"), Issuer::new("https://second.test"), Issuer::new("third@example.com"));
    let documents = Documents::start().await;
    documents.set("/second/keys", 200, &second.key_set());
    // The second tells the place of its keys itself, the third's are written down.
    let second = second.called(&documents.url("/second"));
    let place = json!({"issuer": second.name, "jwks_uri": documents.url("/second/keys")}).to_string();
    documents.set("/second/.well-known/openid-configuration", 200, &place);
    documents.set("/first", 200, &first.key_set());
    let policies = [
        policy("first", &[json!({"issuer": first.name, "jwksUri": documents.url("/first")})]),
        policy(
            "others",
            &[
                json!({
                    "issuer": second.name, "forwardOriginalToken": true,
                    "fromHeaders": [{"name": "x-token", "prefix": "Token "}], "fromParams": ["token"],
                }),
                json!({"issuer": third.name, "jwks": third.key_set(), "fromCookies": ["session"],
                       "forwardOriginalToken": true}),
            ],
        ),
    ];
    let workload = Workload::start(Variant::Delta, &policies.concat(), &[]).await;
    let to = |path: &str| Plan::get(workload.address, "shop", path).timeout(PATIENCE);
    let [one, two, three] = [&first, &second, &third].map(|issuer| issuer.token(json!({})));
    let stripped = workload.answers(workload.with(&one), 200).await;
    assert!(seen(&stripped)["headers"]["authorization"].is_null());
    let reply = to(&format!("/echo?access_token={one}&page=2")).once().await.unwrap();
    assert_eq!((reply.status, &seen(&reply)["path"]), (200, &json!("/echo?page=2")));
    let reply = to("/echo").header("x-token", &format!("Token {two}")).once().await.unwrap();
    assert_eq!(reply.status, 200);
    assert!(seen(&reply)["headers"]["x-token"].is_string(), "it was to be forwarded");
    for (place, plan, status) in [
        ("parameter", to(&format!("/echo?token={two}")), 200),
        ("cookie", to("/echo").header("cookie", &format!("a=b; session={three}")), 200),
        ("another's place", to("/echo").header("x-token", &format!("Token {one}")), 401),
        ("another's place", to(&format!("/echo?token={three}")), 401),
        ("another's place", to("/echo").header("cookie", &format!("session={two}")), 401),
        ("a place where nobody looks", to("/echo").header("x-other", &one), 200),
        ("nowhere", to("/echo"), 200),
    ] {
        assert_eq!(plan.once().await.unwrap().status, status, "a token in a {place}");
    }
    workload.mesh.assert_no_problems().await;
}

#[tokio::test]
async fn an_authorization_policy_goes_by_what_tokens_say() {
    let issuer = Issuer::new("https://issuer.test");
    let rules = [json!({"issuer": issuer.name, "jwks": issuer.key_set()})];
    let authorization = json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": "readers", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "shop"}}, "rules": [
            {"to": [{"operation": {"paths": ["/echo"]}}]},
            {"from": [{"source": {"requestPrincipals": [format!("{}/alice", issuer.name)]}}],
             "to": [{"operation": {"paths": ["/alice"]}}]},
            {"to": [{"operation": {"paths": ["/admin"]}}],
             "when": [{"key": "request.auth.claims[realm][roles]", "values": ["admin"]}]},
            {"to": [{"operation": {"paths": ["/scope"]}}],
             "when": [{"key": "request.auth.claims[scope]", "values": ["write"]}]},
        ]},
    });
    let policies = format!("{}---\n{authorization}\n", policy("tokens", &rules));
    let workload = Workload::start(Variant::Delta, &policies, &[]).await;
    for (path, claims, status) in [
        ("/alice", Some(json!({})), 200),
        ("/alice", Some(json!({"sub": "bob"})), 403),
        ("/alice", Some(json!({"exp": now() - 3600})), 401),
        ("/alice", None, 403),
        ("/admin", Some(json!({"realm": {"roles": ["user", "admin"]}})), 200),
        ("/admin", Some(json!({"realm": {"roles": ["user"]}})), 403),
        ("/admin", None, 403),
        ("/scope", Some(json!({"scope": "read write"})), 200),
        ("/scope", Some(json!({"scope": "read"})), 403),
    ] {
        let plan = Plan::get(workload.address, "shop", path).timeout(PATIENCE);
        let plan = match &claims {
            Some(claims) => plan.header("authorization", &format!("Bearer {}", issuer.token(claims.clone()))),
            None => plan,
        };
        let reply = plan.once().await.unwrap();
        assert_eq!(reply.status, status, "{path} with {claims:?}: {reply:?}");
    }
    workload.mesh.assert_no_problems().await;
}

#[tokio::test]
async fn keys_come_over_https_from_servers_that_the_operators_authority_has_signed_for() {
    let (authority, other) = (Authority::new("operator"), Authority::new("nobody"));
    let roots = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(roots.path(), &authority.pem).unwrap();
    let (known, unknown) = (Issuer::new("https://known.test"), Issuer::new("https://unknown.test"));
    let mut rules = Vec::new();
    let mut servers = Vec::new();
    for (issuer, authority) in [(&known, &authority), (&unknown, &other)] {
        let documents = Documents::start_tls(&authority.pair("127.0.0.1"), None).await;
        documents.set("/keys", 200, &issuer.key_set());
        rules.push(json!({"issuer": issuer.name, "jwksUri": documents.url("/keys")}));
        servers.push(documents);
    }
    let arguments = ["--jwks-ca", roots.path().to_str().unwrap()];
    let workload = Workload::start(Variant::Delta, &policy("tokens", &rules), &arguments).await;
    workload.answers(workload.with(&known.token(json!({}))), 200).await;
    // Nobody is believed whose certificate nobody vouches for, and it is told.
    workload
        .problems_where("the untrusted server to be told", |problems| problems.contains(&servers[1].url("/keys")))
        .await;
    assert_eq!(workload.with(&unknown.token(json!({}))).once().await.unwrap().status, 401);
    assert_eq!((servers[0].asked(), servers[1].asked()), (1, 0));
}

#[tokio::test]
async fn keys_follow_their_server_and_outlive_it() {
    let issuer = Issuer::new("https://issuer.test");
    let next = Issuer::new(&issuer.name);
    let documents = Documents::start().await;
    documents.set("/keys", 503, "the secret of another service");
    let rules = policy("tokens", &[json!({"issuer": issuer.name, "jwksUri": documents.url("/keys")})]);
    let workload = Workload::start(Variant::Delta, &rules, &["--jwks-refresh-every", "1"]).await;
    let (old, new) = (issuer.token(json!({})), next.token(json!({})));

    // Without keys nothing holds, and requests without a token are no worse off.
    assert_eq!(workload.with(&old).once().await.unwrap().status, 401);
    assert_eq!(workload.plan().once().await.unwrap().status, 200);
    workload
        .problems_where("the failure to be told", |problems| {
            problems.contains("cannot be had") && problems.contains("503") && !problems.contains("secret")
        })
        .await;

    documents.set("/keys", 200, &issuer.key_set());
    workload.answers(workload.with(&old), 200).await;
    workload.problems_where("no problem", |problems| !problems.contains("RequestAuthentication")).await;

    documents.set("/keys", 200, &next.key_set());
    workload.answers(workload.with(&new), 200).await;
    workload.answers(workload.with(&old), 401).await;

    for (status, body) in [(500, ""), (200, "<html>"), (200, r#"{"keys":[]}"#)] {
        documents.set("/keys", status, body);
        let before = documents.asked();
        wait::until("another attempt", PATIENCE, async || match documents.asked() {
            asked if asked > before => Ok(()),
            asked => Err(format!("{asked} requests")),
        })
        .await
        .unwrap();
        workload.problems_where("the failure to be told", |problems| problems.contains("stay in force")).await;
        assert_eq!(workload.with(&new).once().await.unwrap().status, 200, "{status} {body}");
    }
    assert!(workload.mesh.metric("pointsman_key_sets{standing=\"stale\"}").await == 1);

    // A server that comes back asks before it serves anybody: nobody's token is refused meanwhile.
    documents.set("/keys", 200, &next.key_set());
    let mut workload = workload;
    workload.mesh.server.kill().await.unwrap();
    workload.mesh.restart().await;
    workload.mesh.synced(1).await;
    assert_eq!(workload.with(&new).once().await.unwrap().status, 200);
    assert_eq!(workload.proxy.stat("listener_manager.lds.update_rejected").await.unwrap(), 0);
}

#[tokio::test]
async fn a_gateway_routes_by_what_tokens_say() {
    let issuer = Issuer::new("https://issuer.test");
    let entry = ports::local().unwrap();
    let route = |name: &str, matches: &str| {
        format!(
            "    - {{match: [{{headers: {{{matches}}}}}], directResponse: {{status: 200, body: {{string: {name}}}}}}}\n"
        )
    };
    let objects = format!(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: main, namespace: default}}\nspec:\n  \
         selector: {{istio: ingressgateway}}\n  servers:\n    - {{port: {{number: {}, name: http, protocol: HTTP}}, hosts: [shop.test]}}\n\
         ---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: shop, namespace: default}}\n\
         spec:\n  hosts: [shop.test]\n  gateways: [main]\n  http:\n{}{}{}    - {{directResponse: {{status: 200, body: {{string: anybody}}}}}}\n\
         ---\n{}\n",
        entry.port(),
        route("admin", "'@request.auth.claims.realm.roles': {exact: admin}"),
        route("gold", "'@request.auth.claims[https://shop.test/tier]': {prefix: gold}"),
        route("member", "'@request.auth.claims.sub': {}"),
        json!({
            "apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication",
            "metadata": {"name": "tokens", "namespace": "istio-system"},
            "spec": {"jwtRules": [{"issuer": issuer.name, "jwks": issuer.key_set()}]},
        }),
    );
    let mesh = Mesh::start(&[("objects.yaml", &objects)]).await;
    let arguments = ["--kind", "gateway", "--pod", "ingress", "--label", "istio=ingressgateway"];
    let _ingress = mesh.envoy(Variant::Delta, &arguments).await;
    let plan = || Plan::get(entry, "shop.test", "/").timeout(PATIENCE);
    wait::until("the gateway to answer", PATIENCE, async || match plan().once().await {
        Ok(reply) if reply.body() == "anybody" => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await
    .unwrap();
    for (claims, by) in [
        (json!({"realm": {"roles": ["user", "admin"]}}), "admin"),
        (json!({"realm": {"roles": "admin"}}), "admin"),
        (json!({"realm": {"roles": ["administrator"]}, "https://shop.test/tier": "golden"}), "gold"),
        (json!({"https://shop.test/tier": "silver"}), "member"),
        (json!({"sub": null}), "anybody"),
    ] {
        let token = issuer.token(claims.clone());
        let reply = plan().header("authorization", &format!("Bearer {token}")).once().await.unwrap();
        assert_eq!((reply.status, reply.body()), (200, by), "{claims}");
    }
    let forged = plan().header("@request.auth.claims.sub", "root").once().await;
    assert!(forged.is_err() || forged.is_ok_and(|reply| reply.body() != "member"));
    mesh.assert_no_problems().await;
}
