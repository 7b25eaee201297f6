//! Every field of AuthorizationPolicy and RequestAuthentication that the other tests do not have, met by a real Envoy with
//! a request that it lets in and one that it keeps out.

use serde_json::{Value, json};
use testkit::authorizer::Authorizer;

use super::*;
use crate::tokens::issuer::Issuer;

const ISSUER: &str = "https://issuer.test";

/// What comes back for a request in the clear: status, and the whole answer.
async fn ask(to: SocketAddr, path: &str, headers: &[(&str, &str)], body: &str) -> (String, String) {
    let mut text = format!("POST {path} HTTP/1.1\r\nhost: shop.test\r\nconnection: close\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    text += &format!("content-length: {}\r\n\r\n{body}", body.len());
    let answer = exchange(Ipv4Addr::LOCALHOST, to, text.as_bytes()).await.unwrap();
    (answer.split(' ').nth(1).unwrap_or(&answer).to_owned(), answer)
}

/// A policy that allows: for each path what else a rule says.
fn allowed(port: u16, rules: &[(&str, &str)]) -> String {
    let rule = |(path, more): &(&str, &str)| {
        format!("    - {{to: [{{operation: {{paths: [/{path}], ports: ['{port}']}}}}], {more}}}\n")
    };
    rules.iter().map(rule).collect()
}

/// Rules about tokens, headers made of them, addresses, and what filters have noted.
fn about_requests() -> Vec<(&'static str, &'static str)> {
    vec![
        ("not-principal", "from: [{source: {notRequestPrincipals: ['https://issuer.test/bob']}}]"),
        ("not-any-principal", "from: [{source: {requestPrincipals: ['*'], notRequestPrincipals: ['*/bob']}}]"),
        ("audience", "when: [{key: request.auth.audiences, values: [shop]}]"),
        ("not-audience", "when: [{key: request.auth.audiences, notValues: [bank]}]"),
        ("presenter", "when: [{key: request.auth.presenter, values: [app*]}]"),
        ("token-principal", "when: [{key: request.auth.principal, values: ['https://issuer.test/alice']}]"),
        ("spaces", "when: [{key: 'request.auth.claims[permissions]', values: [write]}]"),
        ("no-spaces", "when: [{key: 'request.auth.claims[others]', values: [write]}]"),
        ("claim-header", "when: [{key: 'request.headers[x-user]', values: [alice]}]"),
        ("remote", "when: [{key: remote.ip, values: [192.0.2.0/24]}]"),
        ("not-remote", "when: [{key: remote.ip, notValues: [192.0.2.0/24]}]"),
        ("remote-blocks", "from: [{source: {remoteIpBlocks: [192.0.2.0/24], notRemoteIpBlocks: [192.0.2.7]}}]"),
        ("peer", "when: [{key: source.ip, values: [127.0.0.0/8]}]"),
        ("not-peer", "when: [{key: source.ip, notValues: [127.0.0.0/8]}]"),
        // What the dry run of a policy that denies has noted.
        (
            "noted",
            "when: [{key: 'experimental.envoy.filters.http.rbac[istio_dry_run_deny_shadow_engine_result]', values: [denied]}]",
        ),
        (
            "not-noted",
            "when: [{key: 'experimental.envoy.filters.http.rbac[istio_dry_run_deny_shadow_engine_result]', notValues: [denied]}]",
        ),
    ]
}

/// Rules about who the peer is, and how it has called.
fn about_peers() -> Vec<(&'static str, &'static str)> {
    vec![
        ("account", "when: [{key: source.serviceAccount, values: [bank/teller]}]"),
        ("not-account", "when: [{key: source.serviceAccount, notValues: [bank/teller]}]"),
        ("own-account", "from: [{source: {serviceAccounts: [web]}}]"),
        ("domain", "when: [{key: source.trustDomain, values: [cluster.local]}]"),
        ("domain-alias", "when: [{key: source.trustDomain, values: [old.example]}]"),
        ("not-domain", "from: [{source: {notTrustDomains: [cluster.local]}}]"),
        ("not-domain-alias", "from: [{source: {notTrustDomains: [old.example]}}]"),
        ("not-alias", "from: [{source: {notPrincipals: [old.example/ns/bank/sa/teller]}}]"),
        ("not-other-domain", "from: [{source: {notTrustDomains: [other.example]}}]"),
        ("sni", "when: [{key: connection.sni, values: [one.example, '*.two.example']}]"),
        ("not-sni", "when: [{key: connection.sni, notValues: [one.example]}]"),
    ]
}

fn custom(provider: &str, selector: &str, operation: &str) -> String {
    let rules = format!("[{{to: [{{operation: {{{operation}}}}}]}}]");
    let spec = format!(
        "  selector: {{matchLabels: {{{selector}}}}}\n  action: CUSTOM\n  provider: {{name: {provider}}}\n  rules: {rules}"
    );
    policy(provider, "default", &spec)
}

/// Providers that are told more than headers, and that change routes.
fn fuller_providers(authorizer: SocketAddr) -> String {
    let (http, grpc) = (ports::local().unwrap().port(), ports::local().unwrap().port());
    let by_http = |name: &str, more: &str| {
        format!("    - name: {name}\n      envoyExtAuthzHttp: {{service: authz.example, port: {http}, {more}}}\n")
    };
    let by_grpc = |name: &str, more: &str| {
        format!("    - name: {name}\n      envoyExtAuthzGrpc: {{service: authz.example, port: {grpc}, {more}}}\n")
    };
    let known = "includeRequestHeadersInCheck: [x-user]";
    let decided = "headersToUpstreamOnAllow: [x-decided-by]";
    let providers = [
        by_http("body", "includeRequestBodyInCheck: {maxRequestBytes: 64}"),
        by_http("part", "includeRequestBodyInCheck: {maxRequestBytes: 16, allowPartialMessage: true}"),
        by_grpc("grpc-body", "includeRequestBodyInCheck: {maxRequestBytes: 64}"),
        by_grpc("grpc-bytes", "includeRequestBodyInCheck: {maxRequestBytes: 64, packAsBytes: true}"),
        by_http("additional", "includeAdditionalHeadersInCheck: {x-user: welcome}, pathPrefix: /check"),
        by_http("older", "includeHeadersInCheck: [x-user], headersToDownstreamOnAllow: [x-decided-by]"),
        by_http("clear", &format!("{known}, {decided}, clearRouteCache: true")),
        by_http("keep", &format!("{known}, {decided}")),
        by_grpc("grpc-clear", "clearRouteCache: true"),
        by_grpc("grpc-keep", "clearRouteCache: false"),
    ];
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: authz, namespace: default}}\n\
         spec:\n  hosts: [authz.example]\n  resolution: STATIC\n  ports:\n  \
         - {{number: {http}, name: http, protocol: HTTP, targetPort: {port}}}\n  \
         - {{number: {grpc}, name: grpc, protocol: GRPC, targetPort: {port}}}\n  endpoints: [{{address: {}}}]\n\
         ---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: |\n    \
         extensionProviders:\n{}",
        authorizer.ip(),
        providers.concat(),
        port = authorizer.port(),
    )
}

/// A gateway whose routes look at what its provider has said.
fn gateway(entry: u16) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: main, namespace: default}}\nspec:\n  \
         selector: {{istio: ingressgateway}}\n  servers: [{{port: {{number: {entry}, name: http, protocol: HTTP}}, hosts: [shop.test]}}]\n\
         ---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: shop, namespace: default}}\n\
         spec:\n  hosts: [shop.test]\n  gateways: [main]\n  http:\n    \
         - {{match: [{{headers: {{x-decided-by: {{exact: authorizer}}}}}}], directResponse: {{status: 200, body: {{string: decided}}}}}}\n    \
         - {{directResponse: {{status: 200, body: {{string: undecided}}}}}}\n"
    )
}

/// The objects of the bed.
struct Objects {
    issuer: Issuer,
    authorizer: SocketAddr,
    entry: SocketAddr,
}

impl Objects {
    fn new() -> Self {
        let (authorizer, entry) = (ports::local().unwrap(), ports::local().unwrap());
        Self { issuer: Issuer::new(ISSUER), authorizer, entry }
    }

    fn text(&self, web: u16, database: u16) -> String {
        let rules = allowed(web, &about_requests()) + &allowed(web, &about_peers());
        let asked = ["body", "part", "grpc-body", "grpc-bytes", "additional", "older"];
        let paths = asked.map(|name| format!("/{name}")).join(", ");
        let rest = format!(
            "    - to: [{{operation: {{paths: [{paths}, /dry, /echo], ports: ['{web}']}}}}]\n    \
             - to: [{{operation: {{ports: ['{database}']}}}}]\n      \
             when: [{{key: source.serviceAccount, values: [bank/teller]}}, {{key: connection.sni, notValues: [one.example]}}]\n"
        );
        let dry = |name: &str, action: &str, port: u16, path: &str| {
            let spec = format!(
                "  selector: {{matchLabels: {{app: web}}}}\n  action: {action}\n  \
                 rules: [{{to: [{{operation: {{{path}ports: ['{port}']}}}}]}}]"
            );
            let tried = format!("name: {name}, annotations: {{istio.io/dry-run: 'true'}}");
            policy(name, "default", &spec).replace(&format!("name: {name}"), &tried)
        };
        let tokens = json!({
            "apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication",
            "metadata": {"name": "tokens", "namespace": "default"},
            "spec": {"selector": {"matchLabels": {"app": "web"}}, "jwtRules": [{
                "issuer": ISSUER, "jwks": self.issuer.key_set(), "spaceDelimitedClaims": ["permissions"],
                "outputClaimToHeaders": [{"header": "x-user", "claim": "sub"}],
            }]},
        });
        let mut all = vec![
            policy("fields", "default", &format!("  selector: {{matchLabels: {{app: web}}}}\n  rules:\n{rules}{rest}")),
            dry("tried-deny", "DENY", web, "paths: [/noted, /not-noted], "),
            dry("tried-allow", "ALLOW", web, "paths: [/dry], "),
            policy(
                "marked",
                "default",
                &format!(
                    "  selector: {{matchLabels: {{app: web}}}}\n  action: AUDIT\n  \
                     rules: [{{to: [{{operation: {{paths: [/echo], ports: ['{web}']}}}}]}}]"
                ),
            ),
            format!("---\n{tokens}\n"),
            fuller_providers(self.authorizer),
            gateway(self.entry.port()),
        ];
        all.extend(asked.map(|name| custom(name, "app: web", &format!("paths: [/{name}], ports: ['{web}']"))));
        let routed = ["clear", "keep", "grpc-clear", "grpc-keep"];
        all.extend(routed.map(|name| custom(name, "istio: ingressgateway", &format!("paths: [/{name}]"))));
        all.concat()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_of_the_policies_lets_in_and_keeps_out() {
    let (web, database) = (ports::local().unwrap(), ports::local().unwrap());
    let _apps = (Backend::start("web", web).unwrap(), TcpBackend::start("database", database).unwrap());
    let pod = ports::pod(web.port()).unwrap().ip();
    let bed = Objects::new();
    let _authorizer = Authorizer::start(bed.authorizer, []).unwrap();
    let (own, policies) = (objects(pod, web, database), bed.text(web.port(), database.port()));
    let files = [("objects.yaml", &*own), ("policies.yaml", &*policies)];
    let server = Guarded::start(&files, &["--trust-domain-alias", "old.example"]).await;
    let ip = pod.to_string();
    let start = async |name: &str, more: &[&str]| {
        let token = server.token(&format!("default/{name}"));
        let proof = ["--token-file", &*token, "--service-account", name];
        let setup = Setup::new(server.bootstrap(name, &[&proof[..], more].concat()));
        setup.argument("--component-log-level").argument("rbac:debug").start().await.unwrap()
    };
    let sidecar = start("web", &["--label", "app=web", "--ip", &ip]).await;
    let _ingress = start("ingress", &["--kind", "gateway", "--label", "istio=ingressgateway"]).await;
    let (to_web, to_database) = ((pod, web.port()).into(), (pod, database.port()).into());
    until(to_web, &get("/unheard-of"), 403).await;
    let problems = server.mesh.get("/api/v1/problems").await;
    let is_error = |problem: &&Value| problem["severity"] == "error";
    let errors: Vec<_> = problems["problems"].as_array().unwrap().iter().filter(is_error).collect();
    assert!(errors.is_empty(), "{errors:#?}");

    requests(&bed.issuer, to_web).await;
    providers_with_bodies(to_web).await;
    routes_that_depend_on_the_decision(bed.entry).await;
    peers(&server, to_web, to_database).await;

    // Tried are one request of two (the other is not denied), and every connection.
    let stats = sidecar.stats().await.unwrap();
    let sum = |start: &str, end: &str| -> u64 {
        let of = stats.iter().filter(|(name, _)| name.starts_with(start) && name.ends_with(end));
        of.map(|stat| stat.1).sum()
    };
    assert!(sum("http.", "istio_dry_run_allow_.shadow_allowed") >= 1, "{stats:#?}");
    assert!(sum("http.", "istio_dry_run_allow_.shadow_denied") > 10, "{stats:#?}");
    assert!(sum("tcp.", "istio_dry_run_allow_.shadow_denied") >= 1, "{stats:#?}");
    // What AUDIT has marked the next filter sees, and nothing else is.
    let log = sidecar.log();
    let is_marked = |request: &&str| {
        let hint = request.split("access_log_hint").nth(1).unwrap_or_default();
        hint.split("}").next().unwrap_or_default().contains("bool_value: true")
    };
    let marked: Vec<_> = log.split("checking request").filter(is_marked).collect();
    assert!(!marked.is_empty(), "nothing is marked");
    assert!(marked.iter().all(|request| request.contains("'/echo'")), "{marked:#?}");
    assert_eq!(sidecar.stat("listener_manager.lds.update_rejected").await.unwrap(), 0);
}

/// Tokens, addresses, and what filters have noted.
async fn requests(issuer: &Issuer, to: SocketAddr) {
    let token = |claims: Value| format!("Bearer {}", issuer.token(claims));
    let (alice, bob) = (token(json!({})), token(json!({"sub": "bob", "aud": ["bank", "x"]})));
    let app = token(json!({"azp": "app-7", "permissions": "read write", "others": "read write", "aud": ["x", "shop"]}));
    let [alice, bob, app] = [&alice, &bob, &app].map(|token| vec![("authorization", &**token)]);
    let nobody = vec![];
    let client = |address: &'static str| vec![("x-forwarded-for", address)];
    for (path, headers, wanted) in [
        ("/not-principal", &alice, "200"),
        ("/not-principal", &bob, "403"),
        ("/not-principal", &nobody, "200"),
        ("/not-any-principal", &alice, "200"),
        ("/not-any-principal", &bob, "403"),
        ("/not-any-principal", &nobody, "403"),
        ("/audience", &alice, "200"),
        ("/audience", &app, "200"),
        ("/audience", &bob, "403"),
        ("/not-audience", &alice, "200"),
        ("/not-audience", &bob, "403"),
        ("/presenter", &app, "200"),
        ("/presenter", &alice, "403"),
        ("/token-principal", &alice, "200"),
        ("/token-principal", &bob, "403"),
        ("/spaces", &app, "200"),
        ("/spaces", &alice, "403"),
        ("/no-spaces", &app, "403"),
        ("/claim-header", &alice, "200"),
        ("/claim-header", &bob, "403"),
        ("/claim-header", &vec![("x-user", "alice")], "403"),
        ("/remote", &client("192.0.2.9"), "200"),
        ("/remote", &client("203.0.113.9"), "403"),
        ("/not-remote", &client("192.0.2.9"), "403"),
        ("/not-remote", &client("203.0.113.9"), "200"),
        ("/remote-blocks", &client("192.0.2.9"), "200"),
        ("/remote-blocks", &client("192.0.2.7"), "403"),
        ("/peer", &client("192.0.2.9"), "200"),
        ("/not-peer", &client("192.0.2.9"), "403"),
        ("/noted", &nobody, "200"),
        ("/not-noted", &nobody, "403"),
        ("/dry", &nobody, "200"),
    ] {
        let (found, answer) = ask(to, path, headers, "").await;
        assert_eq!(found, wanted, "{path} with {headers:?}: {answer}");
    }
    let (_, answer) = ask(to, "/echo", &app, "").await;
    assert!(answer.contains(r#""x-user":"alice""#), "{answer}");
    let (_, answer) = ask(to, "/echo", &[("x-user", "root")], "").await;
    assert!(answer.starts_with("HTTP/1.1 200") && !answer.contains("root"), "{answer}");
}

/// What providers are told beside the headers of the request, and what their answer adds to the client's.
async fn providers_with_bodies(to: SocketAddr) {
    let long = "welcome, but at great length, which is more than sixty-four bytes are, and so too much";
    let welcome = [("x-user", "welcome")];
    for (path, headers, body, wanted) in [
        ("/body", &[][..], "welcome", "200"),
        ("/body", &[], "go away", "401"),
        ("/body", &[], long, "413"),
        // A header that it is not told.
        ("/body", &welcome, "", "401"),
        ("/part", &[], long, "200"),
        ("/part", &[], "go away", "401"),
        ("/grpc-body", &[], "welcome", "200"),
        ("/grpc-body", &[], "go away", "401"),
        ("/grpc-body", &[], long, "413"),
        ("/grpc-bytes", &[], "welcome", "200"),
        ("/grpc-bytes", &[], "go away", "401"),
        // Said by the provider's own settings; what the client says does not count.
        ("/additional", &[], "", "200"),
        ("/additional", &[("x-user", "stranger")], "", "200"),
        ("/older", &welcome, "", "200"),
        ("/older", &[], "", "401"),
    ] {
        let (found, answer) = ask(to, path, headers, body).await;
        assert_eq!(found, wanted, "{path} with {headers:?}: {answer}");
        let is_told = answer.contains("x-decided-by: authorizer");
        assert_eq!(is_told, path == "/older" && found == "200", "{path}: {answer}");
    }
}

/// Whether what a provider has added counts for the choice of the route.
async fn routes_that_depend_on_the_decision(entry: SocketAddr) {
    let welcome = [("x-user", "welcome")];
    for (path, by) in
        [("/clear", "decided"), ("/keep", "undecided"), ("/grpc-clear", "decided"), ("/grpc-keep", "undecided")]
    {
        let (_, answer) = ask(entry, path, &welcome, "").await;
        assert!(answer.ends_with(&format!("\r\n\r\n{by}")), "{path}: {answer}");
        assert_eq!(ask(entry, path, &[], "").await.0, "401", "{path}");
    }
}

/// Who the peer is by its certificate, and which name it has asked for.
async fn peers(server: &Guarded, web: SocketAddr, database: SocketAddr) {
    let teller = Peer::new(server, "bank/teller").await;
    wait::until("mutual TLS", PATIENCE, async || match &*teller.status(web, "/domain").await {
        "200" => Ok(()),
        other => Err(other.to_owned()),
    })
    .await
    .unwrap();
    let own = Peer::new(server, "default/web").await;
    // For the teller, the workload's own account, and in the clear.
    for (path, wanted) in [
        ("/account", ["200", "403", "403"]),
        ("/not-account", ["403", "200", "200"]),
        ("/own-account", ["403", "200", "403"]),
        ("/domain", ["200", "200", "403"]),
        // Aliases are of principals; a domain is compared as the certificate has it.
        ("/domain-alias", ["403", "403", "403"]),
        ("/not-domain", ["403", "403", "200"]),
        ("/not-domain-alias", ["200", "200", "200"]),
        ("/not-alias", ["403", "200", "200"]),
        ("/not-other-domain", ["200", "200", "200"]),
    ] {
        let in_the_clear = ask(web, path, &[], "").await.0;
        let found = [teller.status(web, path).await, own.status(web, path).await, in_the_clear];
        assert_eq!(found, wanted, "{path}");
    }
    for (name, sni, not_sni) in
        [("one.example", "200", "403"), ("a.two.example", "200", "200"), ("three.example", "403", "200")]
    {
        let found = [own.status_by_name(name, web, "/sni").await, own.status_by_name(name, web, "/not-sni").await];
        assert_eq!(found, [sni, not_sni], "{name}");
    }
    for (peer, name, is_let_in) in [(&teller, "web", true), (&own, "web", false), (&teller, "one.example", false)] {
        let answer = peer.exchange_by_name(name, database, b"hello\n".to_vec(), 8).await;
        assert_eq!(answer.starts_with("database"), is_let_in, "{name}: {answer}");
    }
}
