//! TLS that a gateway begins with certificates from a secret, as a DestinationRule asks for it.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;
use std::sync::Arc;

use compile::{Audience, Compiler, HostDelivery, Interception, Options, Proxy, Secrets};
use proto::ResourceType;
use serde_json::{Value, json};
use world::{Change, Problem, Settings, World};

const BANK: &str = "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: bank}, spec: {hosts: [bank.test], \
    ports: [{number: 443, name: https, protocol: HTTP}], resolution: DNS, subjectAltNames: [spiffe://bank/teller]}}\n---\n";

const GATEWAY: Proxy = Proxy::Gateway;
const SIDECAR: Proxy = Proxy::Sidecar { interception: Interception::Redirect, http_proxy_port: None };

/// What of the TLS context towards the bank says who is who, and what is wrong with the rule: for this proxy, with this
/// `tls`.
fn compiled(proxy: Proxy, secrets: Secrets, tls: &str) -> (Value, Vec<Problem>) {
    let rule = "apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: bank}";
    let rule = format!("{{{rule}, spec: {{host: bank.test, trafficPolicy: {{tls: {tls}}}}}}}");
    let parsed = source::text::parse("test.yaml", format!("{BANK}{rule}").as_bytes(), &source::Options::default());
    assert!(parsed.problems.is_empty(), "{:#?}", parsed.problems);
    let mut world = World::new(Settings::default());
    parsed.objects.into_iter().for_each(|object| drop(world.apply(Change::Apply(object))));
    let audience = Audience {
        proxy,
        namespace: "default".into(),
        labels: Arc::default(),
        addresses: Vec::new(),
        hosts: HostDelivery::Inline,
        lacks: proto::Extensions::default(),
        secrets,
        control_plane: None,
    };
    let mut compiler = Compiler::new(Options::default());
    let (id, _) = compiler.add(&world, &audience);
    let snapshot = compiler.snapshot(id);
    assert_eq!(snapshot.dangling(), []);
    let bytes = snapshot.get(ResourceType::Cluster, "outbound|443||bank.test").unwrap().value();
    assert_eq!(proto::wire::check(ResourceType::Cluster.type_url(), &bytes), Ok(()));
    let cluster = proto::descriptor::to_json(ResourceType::Cluster.type_url(), &bytes);
    let problems: BTreeSet<Problem> = compiler.problems().into_iter().collect();
    (cluster["transport_socket"]["typed_config"].clone(), problems.into_iter().collect())
}

fn secret(name: &str) -> Value {
    json!({"name": name, "sds_config": {"ads": {}, "resource_api_version": "V3"}})
}

/// The names that the bank's certificate may have, each once.
fn names(tls: &Value) -> BTreeSet<&str> {
    let own = &tls["common_tls_context"]["combined_validation_context"]["default_validation_context"];
    let matchers = own["match_typed_subject_alt_names"].as_array();
    matchers.into_iter().flatten().map(|san| san["matcher"]["exact"].as_str().unwrap()).collect()
}

#[test]
fn a_gateway_asks_for_the_certificates_by_the_name_of_their_secret() {
    let (tls, problems) = compiled(GATEWAY, Secrets::Stream, "{mode: MUTUAL, credentialName: bank, sni: bank.test}");
    assert_eq!(problems, []);
    let common = &tls["common_tls_context"];
    assert_eq!(common["tls_certificate_sds_secret_configs"], json!([secret("kubernetes://bank")]));
    let validation = &common["combined_validation_context"]["validation_context_sds_secret_config"];
    assert_eq!(*validation, secret("kubernetes://bank-cacert"));
    assert_eq!(tls["sni"], "bank.test");
    // The rule names nobody, the service does.
    assert_eq!(names(&tls), BTreeSet::from(["spiffe://bank/teller"]));

    let tls = "{mode: SIMPLE, credentialName: bank, subjectAltNames: [a.test]}";
    let (tls, problems) = compiled(GATEWAY, Secrets::Agent, tls);
    assert_eq!(problems, []);
    assert!(tls["common_tls_context"]["tls_certificate_sds_secret_configs"].is_null());
    assert_eq!(names(&tls), BTreeSet::from(["a.test"]));

    let tls = "{mode: MUTUAL, credentialName: bank, insecureSkipVerify: true}";
    let common = &compiled(GATEWAY, Secrets::Stream, tls).0["common_tls_context"];
    assert_eq!(common["tls_certificate_sds_secret_configs"], json!([secret("kubernetes://bank")]));
    assert!(common["combined_validation_context"].is_null());
}

#[test]
fn files_are_verified_by_the_names_of_the_service_where_the_rule_has_none() {
    let (tls, problems) = compiled(GATEWAY, Secrets::None, "{mode: SIMPLE, caCertificates: /ca.pem}");
    assert_eq!(problems, []);
    let validation = &tls["common_tls_context"]["validation_context"];
    assert_eq!(validation["trusted_ca"], json!({"filename": "/ca.pem"}));
    let names = validation["match_typed_subject_alt_names"].as_array().unwrap();
    assert!(names.iter().all(|name| name["matcher"]["exact"] == "spiffe://bank/teller"), "{names:?}");
}

#[test]
fn whoever_gets_no_secrets_is_told_so() {
    for (proxy, secrets, name, expected) in [
        (
            GATEWAY,
            Secrets::None,
            "bank",
            "error: test.yaml:3:1: DestinationRule default/bank: \
          spec.trafficPolicy.tls.credentialName: a gateway gets no secrets because it has not proved who it is",
        ),
        (
            GATEWAY,
            Secrets::Stream,
            "../bank",
            "error: test.yaml:3:1: DestinationRule default/bank: \
          spec.trafficPolicy.tls.credentialName: \"../bank\" is no name of a Secret; connections to the host fail",
        ),
        (
            SIDECAR,
            Secrets::Stream,
            "bank",
            "warning: test.yaml:3:1: DestinationRule default/bank: \
          spec.trafficPolicy.tls.credentialName: sidecars get no secrets, only gateways do; sidecars use plaintext",
        ),
    ] {
        let is_gateway = proxy == GATEWAY;
        let (tls, problems) = compiled(proxy, secrets, &format!("{{mode: SIMPLE, credentialName: {name}}}"));
        let said = problems.iter().map(Problem::to_string).collect::<String>();
        assert!(said.starts_with(expected), "{said}");
        // Where TLS was asked for of somebody who could have it, nothing goes in the clear.
        assert_eq!(tls["common_tls_context"].is_object(), is_gateway);
    }
}
