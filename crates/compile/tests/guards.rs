//! Whom the guards of a workload ask, and what they need for that.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use std::sync::Arc;

use compile::{Audience, Compiler, ControlPlane, HostDelivery, Interception, Options, Proxy, Secrets};
use proto::ResourceType;
use serde_json::Value;
use snapshot::Snapshot;
use world::{Change, Labels, Problem, Settings, World};

fn compiled(yaml: &str, secrets: Secrets, reached_at: Option<&str>) -> (Snapshot, Vec<Problem>) {
    let parsed = source::text::parse("test.yaml", yaml.as_bytes(), &source::Options::default());
    assert_eq!(parsed.problems, []);
    let mut world = World::new(Settings::default());
    parsed.objects.into_iter().for_each(|object| drop(world.apply(Change::Apply(object))));
    let audience = Audience {
        proxy: Proxy::Sidecar { interception: Interception::Redirect, http_proxy_port: None },
        namespace: "default".into(),
        labels: Arc::new(Labels::from([("app".to_owned(), "shop".to_owned())])),
        addresses: vec!["10.0.0.1".parse().unwrap()],
        hosts: HostDelivery::Inline,
        lacks: proto::Extensions::default(),
        secrets,
        control_plane: reached_at.map(|at| ControlPlane::parse(at, None).unwrap()),
    };
    let mut compiler = Compiler::new(Options::default());
    let (id, _) = compiler.add(&world, &audience);
    let snapshot = compiler.snapshot(id);
    assert_eq!(snapshot.dangling(), []);
    let problems = compiler.problems();
    (snapshot, problems)
}

fn json(snapshot: &Snapshot, of: ResourceType, name: &str) -> Option<Value> {
    let cell = snapshot.get(of, name)?;
    let checked = proto::wire::check(of.type_url(), &cell.value());
    assert!(checked.is_ok(), "{checked:#?}");
    Some(proto::descriptor::to_json(of.type_url(), &cell.value()))
}

const LIMIT: &str = "\
apiVersion: v1
kind: Service
metadata: {name: shop, namespace: default}
spec: {selector: {app: shop}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: policy.pointsman.dev/v1alpha1
kind: RateLimitPolicy
metadata: {name: shop, namespace: default}
spec: {limits: [{name: all, requests: 1, per: 1s, scope: Global}]}
";
const CLUSTER: &str = "pointsman-limits";

#[test]
fn limits_are_asked_about_by_the_proxys_own_certificate_where_it_says_how_it_reaches_us() {
    let by_bootstrap = |secrets| {
        let (snapshot, _) = compiled(LIMIT, secrets, None);
        let listener = json(&snapshot, ResourceType::Listener, "virtualInbound").unwrap().to_string();
        assert!(listener.contains("xds-grpc") && !listener.contains(CLUSTER), "{listener}");
        assert_eq!(json(&snapshot, ResourceType::Cluster, CLUSTER), None);
    };
    by_bootstrap(Secrets::None);
    by_bootstrap(Secrets::Stream);
    for (secrets, at, kind, name) in [
        (Secrets::Stream, "10.1.1.1:15012", "STATIC", "10.1.1.1"),
        (Secrets::Agent, "istiod.istio-system.svc:15012", "STRICT_DNS", "istiod.istio-system.svc"),
    ] {
        let (snapshot, _) = compiled(LIMIT, secrets, Some(at));
        let listener = json(&snapshot, ResourceType::Listener, "virtualInbound").unwrap().to_string();
        assert!(listener.contains(CLUSTER) && !listener.contains("xds-grpc"), "{listener}");
        let cluster = json(&snapshot, ResourceType::Cluster, CLUSTER).unwrap();
        // The default is not written.
        assert_eq!(cluster["type"].as_str().unwrap_or("STATIC"), kind, "{cluster}");
        let common = &cluster["transport_socket"]["typed_config"]["common_tls_context"];
        let peers =
            &common["combined_validation_context"]["default_validation_context"]["match_typed_subject_alt_names"];
        assert_eq!(peers[0]["matcher"]["exact"], name, "{cluster}");
        assert_eq!(cluster.to_string().contains("sds-grpc"), secrets == Secrets::Agent);
        // Whoever has nothing to ask needs no way.
        let (snapshot, _) = compiled(&LIMIT.replace("Global", "Local"), secrets, Some(at));
        assert_eq!(json(&snapshot, ResourceType::Cluster, CLUSTER), None);
    }
}

/// A policy of tokens or limits, and a workload with these ports.
fn about_requests(kind: &str, selector: &str, ports: &str) -> String {
    let (group, rest) = match kind {
        "RequestAuthentication" => ("security.istio.io/v1", "jwtRules: [{issuer: a, jwksUri: 'http://a.test/'}]"),
        _ => ("policy.pointsman.dev/v1alpha1", "limits: [{name: all, requests: 1, per: 1s}]"),
    };
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: shop, namespace: default}}\n\
         spec: {{selector: {{app: shop}}, ports: [{ports}]}}\n---\napiVersion: {group}\nkind: {kind}\n\
         metadata: {{name: policy, namespace: default}}\nspec: {{{selector}{rest}}}\n"
    )
}

#[test]
fn policies_about_requests_tell_of_ports_that_may_carry_something_else() {
    const HTTP: &str = "{name: http, port: 80}";
    const TCP: &str = "{name: tcp, port: 81}";
    const ANY: &str = "{name: any, port: 82}";
    let undeclared = "nobody declares the protocol of port 82 of Service default/shop";
    let no_http = "a workload of Service default/shop that this is for serves no HTTP";
    for kind in ["RequestAuthentication", "RateLimitPolicy"] {
        for (selector, ports, told) in [
            ("", vec![HTTP], vec![]),
            ("", vec![HTTP, TCP], vec![]),
            ("", vec![HTTP, ANY], vec![undeclared]),
            ("", vec![TCP], vec![]),
            ("selector: {matchLabels: {app: shop}}, ", vec![TCP], vec![no_http]),
            ("selector: {matchLabels: {app: shop}}, ", vec![TCP, ANY], vec![undeclared]),
            ("selector: {matchLabels: {app: other}}, ", vec![TCP, ANY], vec![]),
        ] {
            let (_, problems) = compiled(&about_requests(kind, selector, &ports.join(", ")), Secrets::None, None);
            let is_of_policy =
                |problem: &Problem| problem.object.as_ref().is_some_and(|object| object.to_string().starts_with(kind));
            let of_policy = problems.iter().filter(|problem| is_of_policy(problem));
            let found: Vec<_> =
                of_policy.map(|p| &*p.message).filter(|said| !said.contains("http://a.test/")).collect();
            assert_eq!(found, told, "{kind} {selector} {ports:?}");
        }
    }
}

const PROVIDER: &str = "\
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    extensionProviders:
      - name: judge
        envoyExtAuthzGrpc: {service: judge.default.svc.cluster.local, port: 9000}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: asked, namespace: default}
spec: {action: CUSTOM, provider: {name: judge}, rules: [{}]}
---
apiVersion: v1
kind: Service
metadata: {name: judge, namespace: default}
spec: {selector: {app: judge}, ports: [{name: PORT, port: 9000}]}
";

#[test]
fn a_provider_by_grpc_whose_port_is_not_declared_so_is_told_of() {
    for (port, rule, is_told) in [
        ("grpc-judge", "", false),
        ("http2", "", false),
        ("http", "", true),
        ("judge", "", true),
        ("tcp", "", true),
        ("http", "{http: {h2UpgradePolicy: UPGRADE}}", false),
        ("tcp", "{http: {h2UpgradePolicy: UPGRADE}}", true),
    ] {
        let mut yaml = PROVIDER.replace("PORT", port);
        if !rule.is_empty() {
            yaml += &format!(
                "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: judge, namespace: default}}\n\
                 spec: {{host: judge, trafficPolicy: {{connectionPool: {rule}}}}}\n"
            );
        }
        let (_, problems) = compiled(&yaml, Secrets::None, None);
        let told = problems.iter().any(|problem| problem.message.contains("not declared as HTTP/2"));
        assert_eq!(told, is_told, "{port} {rule}: {problems:#?}");
    }
}

/// The messages of problems of an object, in order.
fn said_of<'p>(problems: &'p [Problem], object: &str) -> Vec<&'p str> {
    let is_of = |problem: &&Problem| problem.object.as_ref().is_some_and(|found| found.to_string() == object);
    problems.iter().filter(is_of).map(|problem| &*problem.message).collect()
}

#[test]
fn policies_that_are_not_what_they_seem_for_a_workload_are_told_of() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: shop, namespace: default}\n\
                   spec: {selector: {app: shop}, ports: [{name: http, port: 80, targetPort: 8080}, {name: tcp, port: 81}]}\n";
    let tokens = "---\napiVersion: security.istio.io/v1\nkind: RequestAuthentication\n\
                  metadata: {name: tokens, namespace: default}\nspec: {jwtRules: [{issuer: a, jwksUri: 'http://a.test/'}]}\n";
    let asks = "it asks for a token, and no RequestAuthentication is for a workload that this is for";
    let closes = "it asks only about requests, and port 81 of Service default/shop has none";
    let port = "port 80 is that of Service default/shop; behind it the workload has 8080";
    for (kind, spec, more, told) in [
        ("AuthorizationPolicy", "{rules: [{from: [{source: {requestPrincipals: ['*']}}]}]}", "", vec![asks]),
        ("AuthorizationPolicy", "{rules: [{}, {when: [{key: request.auth.presenter, values: [a]}]}]}", "", vec![asks]),
        ("AuthorizationPolicy", "{rules: [{from: [{source: {requestPrincipals: ['*']}}]}]}", tokens, vec![]),
        ("AuthorizationPolicy", "{rules: [{from: [{source: {principals: ['*']}}]}]}", "", vec![]),
        ("AuthorizationPolicy", "{action: DENY, rules: [{to: [{operation: {paths: [/a]}}]}]}", "", vec![closes]),
        (
            "AuthorizationPolicy",
            "{action: DENY, rules: [{to: [{operation: {paths: [/a], ports: ['1']}}, {operation: {hosts: [a]}}]}]}",
            "",
            vec![closes],
        ),
        (
            "AuthorizationPolicy",
            "{action: DENY, rules: [{when: [{key: 'request.headers[a]', values: [b]}]}]}",
            "",
            vec![closes],
        ),
        (
            "AuthorizationPolicy",
            "{action: DENY, rules: [{to: [{operation: {paths: [/a], ports: ['8080']}}]}]}",
            "",
            vec![],
        ),
        (
            "AuthorizationPolicy",
            "{action: DENY, rules: [{from: [{source: {namespaces: [a]}}], to: [{operation: {paths: [/a]}}]}]}",
            "",
            vec![],
        ),
        ("AuthorizationPolicy", "{action: DENY, rules: [{}]}", "", vec![]),
        ("AuthorizationPolicy", "{rules: [{to: [{operation: {paths: [/a]}}]}]}", "", vec![]),
        (
            "PeerAuthentication",
            "{selector: {matchLabels: {app: shop}}, portLevelMtls: {80: {mode: STRICT}}}",
            "",
            vec![port],
        ),
        (
            "PeerAuthentication",
            "{selector: {matchLabels: {app: shop}}, portLevelMtls: {8080: {mode: STRICT}}}",
            "",
            vec![],
        ),
        (
            "PeerAuthentication",
            "{selector: {matchLabels: {app: shop}}, portLevelMtls: {81: {mode: STRICT}}}",
            "",
            vec![],
        ),
        (
            "PeerAuthentication",
            "{selector: {matchLabels: {app: shop}}, portLevelMtls: {90: {mode: STRICT}}}",
            "",
            vec![],
        ),
    ] {
        let yaml = format!(
            "{service}{more}---\napiVersion: security.istio.io/v1\nkind: {kind}\n\
             metadata: {{name: x, namespace: default}}\nspec: {spec}\n"
        );
        let (_, problems) = compiled(&yaml, Secrets::Stream, None);
        assert_eq!(said_of(&problems, &format!("{kind} default/x")), told, "{spec}");
    }
}

/// What is doubtful in these objects, and what is wrong between them.
fn world_of(yaml: &str) -> World {
    let parsed = source::text::parse("test.yaml", yaml.as_bytes(), &source::Options::default());
    assert_eq!(parsed.problems, []);
    let mut world = World::new(Settings::default());
    parsed.objects.into_iter().for_each(|object| drop(world.apply(Change::Apply(object))));
    world
}

#[test]
fn policies_for_nobody_are_told_of_where_workloads_are_known() {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: shop, namespace: default, labels: {app: shop, v: a}}\n---\n\
               apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: vm, namespace: old}\n\
               spec: {address: 10.0.0.9, labels: {app: vm}}\n---\n";
    let gateway = "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: edge, namespace: default}\n\
                   spec: {selector: {istio: edge}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}\n---\n";
    let no_label = "no workload in namespace default has the labels app=other";
    for (objects, namespace, selector, told) in [
        (pod, "default", "{app: shop}", vec![]),
        (pod, "default", "{app: other}", vec![no_label]),
        (pod, "default", "{app: shop, v: b}", vec!["no workload in namespace default has the labels app=shop, v=b"]),
        (pod, "default", "{}", vec![]),
        (pod, "old", "{app: vm}", vec![]),
        (pod, "old", "{app: shop}", vec!["no workload in namespace old has the labels app=shop"]),
        (pod, "elsewhere", "{}", vec!["there is no workload in namespace elsewhere"]),
        (pod, "istio-system", "{}", vec![]),
        (pod, "istio-system", "{app: vm}", vec![]),
        (pod, "istio-system", "{app: other}", vec!["no workload in the mesh has the labels app=other"]),
        (gateway, "default", "{app: other}", vec![]),
        ("", "default", "{app: other}", vec![]),
    ] {
        for (kind, spec) in [
            ("security.istio.io/v1\nkind: AuthorizationPolicy", "rules: [{}]"),
            ("security.istio.io/v1\nkind: RequestAuthentication", "jwtRules: [{issuer: a, jwksUri: 'http://a.test/'}]"),
            ("policy.pointsman.dev/v1alpha1\nkind: RateLimitPolicy", "limits: [{name: all, requests: 1, per: 1s}]"),
        ] {
            let yaml = format!(
                "{objects}apiVersion: {kind}\nmetadata: {{name: x, namespace: {namespace}}}\n\
                 spec: {{selector: {{matchLabels: {selector}}}, {spec}}}\n"
            );
            let problems = world_of(&yaml).idle_policies(&[]);
            let found: Vec<_> = problems.iter().map(|problem| &*problem.message).collect();
            assert_eq!(found, told, "{kind} {namespace} {selector}");
        }
    }
    let edge = format!(
        "{pod}{gateway}apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: x, namespace: default}}\nspec: {{selector: {{matchLabels: {{istio: edge}}}}, rules: [{{}}]}}\n"
    );
    assert_eq!(world_of(&edge).idle_policies(&[]), []);
    let clients = (Arc::from("default"), Labels::from([("app".to_owned(), "new".to_owned())]));
    let new = edge.replace("istio: edge}}, rules", "app: new}}, rules");
    assert_eq!(world_of(&new).idle_policies(&[]).len(), 1);
    assert_eq!(world_of(&new).idle_policies(&[(&clients.0, &clients.1)]), []);
}

/// A mesh configuration with these lines, beside a service.
fn configured(lines: &str) -> String {
    format!(
        "{}---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: |\n    {}\n",
        &LIMIT[..LIMIT.find("---").unwrap()],
        lines.replace('\n', "\n    ")
    )
}

#[test]
fn paths_are_normalized_as_the_mesh_configuration_has_it() {
    for (word, normalized, merged, unescaped) in [
        ("", true, false, false),
        ("DEFAULT", true, false, false),
        ("NONE", false, false, false),
        ("BASE", true, false, false),
        ("MERGE_SLASHES", true, true, false),
        ("DECODE_AND_MERGE_SLASHES", true, true, true),
    ] {
        let lines =
            if word.is_empty() { String::new() } else { format!("pathNormalization: {{normalization: {word}}}") };
        let (snapshot, _) = compiled(&configured(&lines), Secrets::None, None);
        for name in ["virtualInbound", "0.0.0.0_80"] {
            let text = json(&snapshot, ResourceType::Listener, name).unwrap().to_string();
            assert_eq!(text.contains(r#""normalize_path":true"#), normalized, "{word} {name}: {text}");
            assert_eq!(text.contains(r#""merge_slashes":true"#), merged, "{word} {name}: {text}");
            assert_eq!(text.contains("UNESCAPE_AND_FORWARD"), unescaped, "{word} {name}: {text}");
        }
    }
}

#[test]
fn a_trust_domain_that_the_server_does_not_have_is_told_of_with_the_argument() {
    let told = |lines: &str| -> Vec<String> {
        world_of(&configured(lines))
            .problems()
            .into_iter()
            .map(|problem| format!("{} {}", problem.message, problem.hint))
            .collect()
    };
    assert_eq!(told("trustDomain: cluster.local\ntrustDomainAliases: [cluster.local]"), [""; 0]);
    let found = told("trustDomain: td\ntrustDomainAliases: [old]");
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.iter().any(|said| said.contains("not \"td\" Start the server with --trust-domain td")), "{found:?}");
    assert!(found.iter().any(|said| said.contains("\"old\" is no alias") && said.contains("--trust-domain-alias old")));
}
