//! What keeps somebody out stays in force whatever is written instead: live, over restarts, and from the beginning.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use source::watch::{Options, open};
use source::{Content, Files, LastGood};
use tempfile::TempDir;
use world::api::istio::{Action, PeerMtlsMode, Rule};
use world::api::mesh_config::Normalization;
use world::{Change, Object, Spec};

/// The manifest of an object called `shop/x`.
fn manifest(kind: &str, spec: &str) -> String {
    let group = match kind {
        "RateLimitPolicy" => "policy.pointsman.dev/v1alpha1",
        "Gateway" | "DestinationRule" => "networking.istio.io/v1",
        _ => "security.istio.io/v1",
    };
    format!("apiVersion: {group}\nkind: {kind}\nmetadata: {{name: x, namespace: shop}}\nspec: {spec}\n---\n")
}

fn mesh(providers: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\n\
         data:\n  mesh: |\n    extensionProviders: {providers}\n---\n"
    )
}

fn text(text: &str) -> Content {
    Content::Text(text.as_bytes().to_vec())
}

/// The specifications in force when a file says these things one after the other.
fn in_force(versions: &[&str]) -> Vec<Spec> {
    let mut files = Files::new(source::Options::default());
    for version in versions {
        files.apply("a.yaml", text(version));
    }
    files.objects().map(|object| object.spec.clone()).collect()
}

#[test]
fn a_field_that_nobody_knows_leaves_the_last_good_version_in_force() {
    let labels = "{matchLabels: {app: web}}";
    for (kind, good, bad) in [
        ("PeerAuthentication", "{mtls: {mode: STRICT}}", "{mTLS: {mode: STRICT}}"),
        ("PeerAuthentication", "{mtls: {mode: STRICT}}", "{selector: {matchLabel: {app: web}}, mtls: {mode: DISABLE}}"),
        ("PeerAuthentication", "{mtls: {mode: STRICT}}", "{}\nspecs: {mtls: {mode: STRICT}}"),
        (
            "RequestAuthentication",
            r#"{jwtRules: [{issuer: "https://a.test", audiences: [shop]}]}"#,
            r#"{jwtRules: [{issuer: "https://a.test", audience: [shop]}]}"#,
        ),
        (
            "RateLimitPolicy",
            "{limits: [{name: a, requests: 1, per: 1s, match: {paths: [/a]}}]}",
            "{limits: [{name: a, requests: 1, per: 1s, match: {path: [/a]}}]}",
        ),
        (
            "RateLimitPolicy",
            &format!("{{selector: {labels}, limits: [{{name: a, requests: 1, per: 1s}}]}}"),
            "{selector: {matchLabel: {app: web}}, limits: [{name: a, requests: 1, per: 1s}]}",
        ),
        ("AuthorizationPolicy", &format!("{{selector: {labels}, action: DENY}}"), "{selectors: {}, action: DENY}"),
        (
            "DestinationRule",
            "{host: a.test, trafficPolicy: {tls: {mode: SIMPLE, subjectAltNames: [a.test]}}}",
            "{host: a.test, trafficPolicy: {tls: {mode: SIMPLE, subjectAltName: [a.test]}}}",
        ),
        (
            "Gateway",
            "{servers: [{port: {number: 443, name: https, protocol: HTTPS}, hosts: [a.test], \
             tls: {mode: MUTUAL, credentialName: a, subjectAltNames: [a]}}]}",
            "{servers: [{port: {number: 443, name: https, protocol: HTTPS}, hosts: [a.test], \
             tls: {mode: MUTUAL, credentialName: a, subjectAltName: [a]}}]}",
        ),
    ] {
        let (good, bad) = (manifest(kind, good), manifest(kind, bad));
        let wanted = in_force(&[&good]);
        assert_eq!(wanted.len(), 1, "{good}");
        assert_eq!(in_force(&[&good, &bad]), wanted, "{bad}");
        // It holds as long as it stands there, and ends when it is mended or gone.
        assert_eq!(in_force(&[&good, &bad, ""]), []);
        assert_eq!(in_force(&[&bad, &good]), wanted, "{good}");
    }
}

/// The only specification in force when nothing else was ever said.
fn from_the_beginning(text: &str) -> Spec {
    let mut found = in_force(&[text]);
    assert_eq!(found.len(), 1, "{text}");
    found.remove(0)
}

/// Action, labels, and for each rule whether it is in doubt.
fn policy(spec: &str) -> (Action, Option<String>, Vec<bool>) {
    let Spec::AuthorizationPolicy(policy) = from_the_beginning(&manifest("AuthorizationPolicy", spec)) else {
        panic!()
    };
    let app = policy.selector.and_then(|selector| selector.match_labels.get("app").cloned());
    let everything = Rule { is_garbled: true, ..Rule::default() };
    for rule in policy.rules.iter().filter(|rule| rule.is_garbled) {
        assert_eq!(*rule, everything, "nothing narrows a rule of which a part is not understood");
    }
    (policy.action, app, policy.rules.iter().map(|rule| rule.is_garbled).collect())
}

#[test]
fn a_policy_that_was_never_understood_refuses() {
    let web = || Some("web".to_owned());
    for (spec, wanted) in [
        // A rule that cannot be read, beside one that can.
        (
            "{selector: {matchLabels: {app: web}}, action: DENY, rules: [{to: [{operation: {methods: GET}}]}, {}]}",
            (Action::Deny, web(), vec![true, false]),
        ),
        ("{action: ALLOW, rules: [{to: [{operation: {methods: GET}}]}, {}]}", (Action::Allow, None, vec![true, false])),
        // An action that is none.
        ("{selector: {matchLabels: {app: web}}, action: Deny, rules: [{}]}", (Action::Deny, web(), vec![true])),
        ("{Action: DENY, rules: [{}]}", (Action::Deny, None, vec![true])),
        // Nobody knows for whom: for all, and what allows, allows nothing.
        ("{selector: {matchLabel: {app: web}}, action: DENY, rules: [{}]}", (Action::Deny, None, vec![false])),
        ("{selector: {matchLabels: {app: \"*\"}}, action: DENY, rules: [{}]}", (Action::Deny, None, vec![false])),
        ("{selector: {matchLabel: {app: web}}, action: ALLOW, rules: [{}]}", (Action::Allow, None, vec![])),
        ("{selectors: {matchLabels: {app: web}}, rules: [{}]}", (Action::Allow, None, vec![])),
        // No rules where rules are to be.
        ("{selector: {matchLabels: {app: web}}, action: DENY, rule: [{}]}", (Action::Deny, web(), vec![true])),
        ("{action: DENY, rules: all}", (Action::Deny, None, vec![true])),
        ("all", (Action::Deny, None, vec![true])),
        ("{action: CUSTOM, provider: [], rules: [{}]}", (Action::Custom, None, vec![false])),
    ] {
        assert_eq!(policy(spec), wanted, "{spec}");
    }
    // What marks only, or is for something else, is left out.
    for spec in ["{action: AUDIT, rules: all}", "{action: DENY, rules: all, targetRefs: [{kind: Gateway, name: a}]}"] {
        assert_eq!(in_force(&[&manifest("AuthorizationPolicy", spec)]), [], "{spec}");
    }
    // A version that never was, and metadata that do not fit.
    let good = manifest("AuthorizationPolicy", "{action: DENY, rules: [{}]}");
    for bad in [good.replace("/v1", "/v7"), good.replace("namespace: shop", "namespace: shop, labels: [a]")] {
        assert_eq!(from_the_beginning(&bad), from_the_beginning(&good), "{bad}");
    }
}

#[test]
fn a_mode_that_was_never_understood_is_strict() {
    for (spec, app) in [
        ("{selector: {matchLabels: {app: web}}, mtls: {mode: strict}}", Some("web")),
        ("{selector: {matchLabels: {app: web}}, mtls: {mode: DISABLE}, portLevelMtls: {http: {}}}", Some("web")),
        ("{selector: {matchLabel: {app: web}}, mtls: {mode: DISABLE}}", None),
        ("{mTLS: {mode: PERMISSIVE}}", None),
        ("[]", None),
    ] {
        let Spec::PeerAuthentication(found) = from_the_beginning(&manifest("PeerAuthentication", spec)) else {
            panic!()
        };
        assert_eq!(found.mtls.unwrap().mode, PeerMtlsMode::Strict, "{spec}");
        assert!(found.port_level_mtls.is_empty(), "{spec}");
        let labels = found.selector.map(|selector| selector.match_labels);
        assert_eq!(labels.as_ref().and_then(|labels| labels.get("app")).map(String::as_str), app, "{spec}");
    }
}

#[test]
fn a_rule_for_tokens_with_a_mistake_costs_its_own_issuer_only() {
    let rules = r#"{jwtRules: [
        {issuer: "https://good.test", audiences: [shop]},
        {issuer: "https://bad.test", jwks: "{}", fromHeaders: [{name: x-token}, {name: "a b"}], fromParams: [t, ""],
         fromCookies: [c, "a=b"], outputPayloadToHeader: x-payload,
         outputClaimToHeaders: [{header: x-user, claim: ""}, {header: "", claim: sub}]},
        {issuer: "https://odd.test", audience: [shop]},
        {issuer: [], jwks: 1}]}"#;
    let Spec::RequestAuthentication(found) = from_the_beginning(&manifest("RequestAuthentication", rules)) else {
        panic!()
    };
    let [good, bad, odd, nameless] = &*found.jwt_rules else { panic!("{found:?}") };
    assert_eq!(
        (good.is_garbled, &*good.issuer, &*good.audiences),
        (false, "https://good.test", &["shop".to_owned()][..])
    );
    assert!(bad.is_garbled && bad.key_source().is_none());
    assert_eq!(bad.issuer, "https://bad.test");
    // Where its tokens are, and which headers nobody may send, is known all the same.
    assert_eq!(bad.from_headers.iter().map(|from| &*from.name).collect::<Vec<_>>(), ["x-token"]);
    assert_eq!((&*bad.from_params, &*bad.from_cookies), (&["t".to_owned()][..], &["c".to_owned()][..]));
    assert_eq!(bad.output_payload_to_header, "x-payload");
    let [claim] = &*bad.output_claim_to_headers else { panic!("{bad:?}") };
    assert!(claim.header == "x-user" && !claim.claim.is_empty());
    assert_eq!((odd.is_garbled, &*odd.issuer), (true, "https://odd.test"));
    assert_eq!((nameless.is_garbled, &*nameless.issuer), (true, ""));
    for spec in [r#"{jwtRule: [{issuer: "https://a.test"}]}"#, "{jwtRules: all}"] {
        let Spec::RequestAuthentication(found) = from_the_beginning(&manifest("RequestAuthentication", spec)) else {
            panic!()
        };
        assert!(matches!(&*found.jwt_rules, [rule] if rule.is_garbled && rule.issuer.is_empty()), "{spec}");
    }
}

#[test]
fn a_provider_with_a_mistake_costs_only_itself() {
    let good = "{name: good, envoyExtAuthzGrpc: {service: a.test, port: 9000}}";
    let with = |port: &str| mesh(&format!("[{good}, {{name: bad, envoyExtAuthzGrpc: {{service: b.test, {port}}}}}]"));
    for bad in [r#"port: "9000""#, "port: 9000, failOpn: false"] {
        let Spec::MeshConfig(found) = from_the_beginning(&with(bad)) else { panic!() };
        assert!(found.provider("good").unwrap().authorization().is_some());
        assert!(found.provider("bad").unwrap().authorization().is_none(), "{bad}");
        assert_eq!(in_force(&[&with("port: 9000"), &with(bad)]), in_force(&[&with("port: 9000")]), "{bad}");
    }
}

#[test]
fn a_stand_in_gives_way_to_a_good_version_and_never_takes_its_place() {
    let good = manifest("PeerAuthentication", "{mtls: {mode: DISABLE}}");
    let bad = manifest("PeerAuthentication", "{mtls: {mode: disable}}");
    let worse = manifest("PeerAuthentication", "{selector: {matchLabels: {app: web}}, mtls: 1}");
    let mut files = Files::new(source::Options::default());
    let now = |files: &Files| -> Vec<Spec> { files.objects().map(|object| object.spec.clone()).collect() };
    let of = |text: &str| in_force(&[text]);
    files.apply("a.yaml", text(&bad));
    files.apply("a.yaml", text(&worse));
    assert_eq!(now(&files), of(&worse));
    // In another file there is a good one.
    files.apply("b.yaml", text(&good));
    assert_eq!(now(&files), of(&good));
    // It moves to where the bad one stands.
    files.take("b.yaml", text(""));
    assert_eq!(now(&files), of(&good));
    files.settle();
    assert_eq!(now(&files), of(&good));
    files.apply("a.yaml", text(""));
    assert_eq!(now(&files), []);
    files.apply("a.yaml", text(&bad));
    let update = files.apply("a.yaml", Content::Gone);
    assert!(matches!(&*update.changes, [Change::Remove(_)]), "{update:?}");
    assert_eq!(now(&files), []);
}

/// A directory of manifests, and a state directory.
struct Stage {
    manifests: TempDir,
    state: TempDir,
}

impl Stage {
    fn new() -> Self {
        Self { manifests: TempDir::new().unwrap(), state: TempDir::new().unwrap() }
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.manifests.path().join(file), text).unwrap();
    }

    /// What is in force after a start.
    fn start(&self) -> Vec<Arc<Object>> {
        self.start_at(&[self.manifests.path()])
    }

    fn start_at(&self, paths: &[&Path]) -> Vec<Arc<Object>> {
        let paths: Vec<_> = paths.iter().map(|path| (*path).to_owned()).collect();
        let (update, _opened) = open(&paths, Options::default(), None, Some(LastGood::at(self.state.path())));
        let applied = |change| match change {
            Change::Apply(object) => object,
            Change::Remove(reference) => panic!("{reference} was never there"),
        };
        update.changes.into_iter().map(applied).collect()
    }
}

fn specs(objects: &[Arc<Object>]) -> Vec<Spec> {
    objects.iter().map(|object| object.spec.clone()).collect()
}

#[test]
fn the_last_good_version_is_in_force_after_restarts() {
    let stage = Stage::new();
    let good = manifest("AuthorizationPolicy", "{action: DENY, rules: [{to: [{operation: {methods: [GET]}}]}]}");
    let bad = good.replace("[GET]", "GET");
    stage.write("a.yaml", &good);
    let wanted = specs(&stage.start());
    assert_eq!(wanted, in_force(&[&good]));
    let mode = fs::metadata(stage.state.path().join("last-good.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // Broken, and more than once, also so that nobody can say what it is, also unreadable, also elsewhere.
    for (file, other, text) in [
        ("a.yaml", "b.yaml", &*bad),
        ("a.yaml", "b.yaml", "kind: ["),
        ("b.yaml", "a.yaml", &bad),
        ("b.yaml", "a.yaml", "kind: ["),
    ] {
        let _ = fs::remove_file(stage.manifests.path().join(other));
        stage.write(file, text);
        for _ in 0..2 {
            let found = stage.start();
            assert_eq!(specs(&found), wanted, "{text}");
        }
    }
    // The directory is called by another name now.
    let link = stage.state.path().join("link");
    stage.write("b.yaml", &bad);
    std::os::unix::fs::symlink(stage.manifests.path(), &link).unwrap();
    assert_eq!(specs(&stage.start_at(&[&link])), wanted);
    // The directory cannot be reached just then.
    assert_eq!(specs(&stage.start_at(&[&stage.state.path().join("nothing"), &link])), wanted);
    // All that leads to it is gone.
    fs::remove_file(&link).unwrap();
    assert_eq!(specs(&stage.start_at(&[&link])), wanted);
    assert_eq!(specs(&stage.start_at(&[&link])), wanted);
    // It is mended.
    let other = good.replace("DENY", "ALLOW");
    stage.write("b.yaml", &other);
    let found = stage.start();
    assert_eq!(specs(&found), in_force(&[&other]));
    assert_eq!(found[0].meta.location.as_ref().unwrap().line, 1);
    // Deleted while nobody looks, it is gone.
    stage.write("b.yaml", "");
    assert_eq!(stage.start(), []);
    stage.write("b.yaml", &bad);
    assert_eq!(specs(&stage.start()), in_force(&[&bad]), "nothing good is known of it");
}

#[test]
fn what_is_kept_of_policies_may_be_lost_or_damaged_and_nobody_is_let_in() {
    let stage = Stage::new();
    let good = manifest("PeerAuthentication", "{mtls: {mode: DISABLE}}");
    stage.write("a.yaml", &good);
    assert_eq!(specs(&stage.start()), in_force(&[&good]));
    let bad = good.replace("DISABLE", "disable");
    stage.write("a.yaml", &bad);
    let kept = stage.state.path().join("last-good.json");
    let whole = fs::read_to_string(&kept).unwrap();
    for damaged in [&whole[..whole.len() / 2], "{}", "\0", r#"{"format": 2, "policies": []}"#] {
        fs::write(&kept, damaged).unwrap();
        assert_eq!(specs(&stage.start()), in_force(&[&bad]), "{damaged}");
    }
    // What is there and is no manifest of ours costs nothing else.
    fs::write(&kept, whole.replace(r#""policies":["#, r#""policies":[{"file":"/a","object":{"kind":"Pod"}},"#))
        .unwrap();
    assert_eq!(specs(&stage.start()), in_force(&[&good]));
    // It cannot be written.
    fs::remove_file(&kept).unwrap();
    fs::create_dir(&kept).unwrap();
    stage.write("a.yaml", &good);
    assert_eq!(specs(&stage.start()), in_force(&[&good]));
}

#[test]
fn a_limit_with_a_mistake_costs_only_itself_and_nothing_is_limited_by_what_nobody_understands() {
    let limits = |spec: &str| match &in_force(&[&manifest("RateLimitPolicy", spec)])[..] {
        [Spec::RateLimitPolicy(policy)] => {
            Some(policy.limits.iter().map(|limit| limit.name.clone()).collect::<Vec<_>>())
        }
        [] => None,
        other => panic!("{other:?}"),
    };
    let good = "{name: good, requests: 1, per: 1s}";
    for (spec, left) in [
        (format!("{{limits: [{good}, {{name: bad, requests: 1}}]}}"), Some(vec!["good".to_owned()])),
        (
            format!("{{limits: [{good}, {{name: bad, requests: 1, per: 1s, matsch: {{}}}}]}}"),
            Some(vec!["good".to_owned()]),
        ),
        (format!("{{limits: [{good}, {good}]}}"), Some(vec!["good".to_owned()])),
        (format!("{{selector: {{matchLabel: {{a: b}}}}, limits: [{good}]}}"), None),
        ("{limits: 5}".to_owned(), Some(vec![])),
    ] {
        assert_eq!(limits(&spec), left, "{spec}");
    }
}

#[test]
fn paths_of_a_mesh_configuration_that_nobody_understands_are_normalized_the_most() {
    let normalization = |lines: &str| {
        let object = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: |\n    {lines}\n"
        );
        match &in_force(&[&object])[..] {
            [Spec::MeshConfig(config)] => config.path_normalization.normalization,
            other => panic!("{other:?}"),
        }
    };
    for (lines, wanted) in [
        ("pathNormalization: {normalization: NONE}", Normalization::None),
        ("pathNormalization: {normalization: MERGE}", Normalization::DecodeAndMergeSlashes),
        ("pathNormalization: {normalisation: NONE}", Normalization::DecodeAndMergeSlashes),
        ("extensionProviders: 5\n    pathNormalization: {normalization: MERGE_SLASHES}", Normalization::MergeSlashes),
        ("extensionProviders: 5", Normalization::Base),
    ] {
        assert_eq!(normalization(lines), wanted, "{lines}");
    }
}
