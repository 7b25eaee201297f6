//! Which requests a match takes: every kind of condition, as real Envoy judges it.

use testkit::envoy::Envoy;
use testkit::load::{Method, Plan};
use testkit::{ports, wait};

use crate::mesh::{Mesh, PATIENCE, Reviews, SUBSETS, Variant, answering};

/// The shape of Istio's own example: who is logged in as jason gets v2, everybody else v1.
const JASON: &str = "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: reviews
spec:
  hosts:
    - reviews
  http:
    - match:
        - headers:
            end-user:
              exact: jason
      route:
        - destination:
            host: reviews
            subset: v2
    - route:
        - destination:
            host: reviews
            subset: v1
";

async fn jason_gets_v2_and_everybody_else_v1(variant: Variant) {
    let reviews = Reviews::start();
    let objects = reviews.objects();
    let mesh = Mesh::start(&[("reviews.yaml", &objects), ("rule.yaml", SUBSETS), ("routes.yaml", JASON)]).await;
    let _client = mesh.client(variant, "client").await;
    answering(reviews.plan()).await;
    for (user, version) in [(Some("jason"), "v2"), (Some("jasmin"), "v1"), (Some("Jason"), "v1"), (None, "v1")] {
        let plan = match user {
            Some(user) => reviews.plan().header("end-user", user),
            None => reviews.plan(),
        };
        for _ in 0..20 {
            assert_eq!(plan.once().await.unwrap().backend(), version, "for {user:?}");
        }
    }
}

#[tokio::test]
async fn jason_gets_v2_and_everybody_else_v1_by_delta() {
    jason_gets_v2_and_everybody_else_v1(Variant::Delta).await;
}

#[tokio::test]
async fn jason_gets_v2_and_everybody_else_v1_by_state_of_the_world() {
    jason_gets_v2_and_everybody_else_v1(Variant::StateOfTheWorld).await;
}

/// A VirtualService with one entry for each condition. Each entry has its own path, so that none stands in another's
/// way, except those about the path; each says its name as `x-mark`. OTHER is a port that the service does not have.
struct Entries {
    text: String,
}

impl Entries {
    fn new() -> Entries {
        let head = "apiVersion: networking.istio.io/v1\nkind: VirtualService\n\
                    metadata: {name: reviews, namespace: default}\nspec:\n  hosts: [reviews]\n  http:\n";
        Entries { text: head.to_owned() }
    }

    /// An entry `name` with these matches (YAML flow, without the brackets).
    fn of(mut self, name: &str, matches: &str) -> Entries {
        self.text += &format!(
            "    - match: [{matches}]\n      headers: {{response: {{set: {{x-mark: {name}}}}}}}\n      \
             route: [{{destination: {{host: reviews}}}}]\n"
        );
        self
    }

    /// An entry with one condition beside its path, which is `/name`.
    fn beside_path(self, name: &str, condition: &str) -> Entries {
        self.of(name, &format!("{{uri: {{exact: /{name}}}, {condition}}}"))
    }

    /// The last entry, for everything else.
    fn end(mut self) -> String {
        self.text +=
            "    - headers: {response: {set: {x-mark: none}}}\n      route: [{destination: {host: reviews}}]\n";
        self.text
    }
}

/// A server with these entries, and a client that carries the label `app: client`.
async fn start(reviews: &Reviews, routes: &str) -> (Mesh, Envoy) {
    let objects = reviews.objects();
    let mesh = Mesh::start(&[("reviews.yaml", &objects), ("routes.yaml", routes)]).await;
    let arguments = ["--pod", "client", "--label", "app=client", "--interception", "none"];
    let client = mesh.envoy(Variant::Delta, &arguments).await;
    answering(reviews.plan()).await;
    mesh.assert_no_problems().await;
    (mesh, client)
}

/// Sends each request once, and compares which entry took it.
async fn assert_taken(cases: Vec<(Plan, &str)>) {
    let mut wrong = Vec::new();
    for (plan, wanted) in cases {
        let reply = plan.once().await.unwrap();
        let taken = reply.header("x-mark").unwrap_or("nobody");
        if taken != wanted {
            wrong.push(format!("{taken} instead of {wanted} (status {}) took {plan:?}", reply.status));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn paths_match_as_a_whole_by_prefix_and_by_expression() {
    let reviews = Reviews::start();
    let routes = Entries::new()
        .of("exact", "{uri: {exact: /exact}}")
        .of("exact-case", "{uri: {exact: /Any/Case}, ignoreUriCase: true}")
        .of("prefix", "{uri: {prefix: /pre}}")
        .of("prefix-case", "{uri: {prefix: /Upper}, ignoreUriCase: true}")
        .of("regex", "{uri: {regex: \"/item/[0-9]+(/.*)?\"}}")
        .of("either", "{uri: {exact: /one}}, {uri: {exact: /two}}")
        .end();
    let (_mesh, _client) = start(&reviews, &routes).await;
    let get = |path: &str| Plan::get(reviews.address, "reviews", path);
    let cases = [
        ("/exact", "exact"),
        ("/exact?with=query", "exact"),
        ("/exact/below", "none"),
        ("/Exact", "none"),
        ("/any/case", "exact-case"),
        ("/ANY/CASE", "exact-case"),
        ("/any/case/below", "none"),
        ("/prefix", "prefix"),
        ("/pre/fix", "prefix"),
        ("/Pre", "none"),
        ("/upper/x", "prefix-case"),
        ("/UPPER", "prefix-case"),
        ("/item/42", "regex"),
        ("/item/42/parts?all", "regex"),
        ("/item/x42", "none"),
        ("/an/item/42", "none"),
        ("/one", "either"),
        ("/two", "either"),
        ("/", "none"),
    ];
    assert_taken(cases.map(|(path, taken)| (get(path), taken)).to_vec()).await;
}

#[tokio::test]
async fn headers_and_query_parameters_match_by_every_kind_of_pattern() {
    let reviews = Reviews::start();
    let routes = Entries::new()
        .beside_path("h-exact", "headers: {x-a: {exact: one}}")
        .beside_path("h-prefix", "headers: {x-a: {prefix: \"on\"}}")
        .beside_path("h-regex", "headers: {x-a: {regex: \"o.e|two\"}}")
        .beside_path("h-present", "headers: {x-a: {}}")
        .beside_path("h-both", "headers: {x-a: {exact: one}, X-B: {exact: two}}")
        .beside_path("without-present", "withoutHeaders: {x-a: {}}")
        .beside_path("without-exact", "withoutHeaders: {x-a: {exact: one}}")
        .beside_path("without-regex", "withoutHeaders: {x-a: {regex: \"o.*\"}}")
        .beside_path("q-exact", "queryParams: {a: {exact: one}}")
        .beside_path("q-prefix", "queryParams: {a: {prefix: \"on\"}}")
        .beside_path("q-regex", "queryParams: {a: {regex: \"o.e\"}}")
        .beside_path("q-present", "queryParams: {a: {}}")
        .end();
    let (_mesh, _client) = start(&reviews, &routes).await;
    let get = |path: &str| Plan::get(reviews.address, "reviews", path);
    let with = |path: &str, a: &str| get(path).header("x-a", a);
    assert_taken(vec![
        (with("/h-exact", "one"), "h-exact"),
        (with("/h-exact", "One"), "none"),
        (with("/h-exact", "ones"), "none"),
        (get("/h-exact"), "none"),
        (with("/h-prefix", "ones"), "h-prefix"),
        (with("/h-prefix", "xone"), "none"),
        (with("/h-regex", "one"), "h-regex"),
        (with("/h-regex", "two"), "h-regex"),
        (with("/h-regex", "one-two"), "none"),
        (with("/h-present", "x"), "h-present"),
        (get("/h-present"), "none"),
        (with("/h-both", "one").header("x-b", "two"), "h-both"),
        (with("/h-both", "one").header("x-b", "three"), "none"),
        (with("/h-both", "one"), "none"),
        (get("/without-present"), "without-present"),
        (with("/without-present", "x"), "none"),
        (get("/without-exact"), "without-exact"),
        (with("/without-exact", "two"), "without-exact"),
        (with("/without-exact", "one"), "none"),
        (get("/without-regex"), "without-regex"),
        (with("/without-regex", "two"), "without-regex"),
        (with("/without-regex", "one"), "none"),
        (get("/q-exact?a=one"), "q-exact"),
        (get("/q-exact?b=x&a=one"), "q-exact"),
        (get("/q-exact?a=ones"), "none"),
        (get("/q-exact"), "none"),
        (get("/q-prefix?a=ones"), "q-prefix"),
        (get("/q-prefix?a=xone"), "none"),
        (get("/q-regex?a=o2e"), "q-regex"),
        (get("/q-regex?a=o2es"), "none"),
        (get("/q-present?a=anything"), "q-present"),
        (get("/q-present?b"), "none"),
    ])
    .await;
}

#[tokio::test]
async fn methods_authorities_and_schemes_match() {
    let reviews = Reviews::start();
    let routes = Entries::new()
        .beside_path("method", "method: {exact: POST}")
        .beside_path("methods", "method: {regex: \"PUT|DELETE\"}")
        .beside_path("authority", "authority: {exact: reviews.default}")
        .beside_path("authorities", "authority: {prefix: reviews.default.svc}")
        .beside_path("http", "scheme: {exact: http}")
        .beside_path("https", "scheme: {exact: https}")
        .end();
    let (_mesh, _client) = start(&reviews, &routes).await;
    let get = |path: &str| Plan::get(reviews.address, "reviews", path);
    let at = |host: &str, path: &str| Plan::get(reviews.address, host, path);
    assert_taken(vec![
        (get("/method").method(Method::POST), "method"),
        (get("/method"), "none"),
        (get("/methods").method(Method::PUT), "methods"),
        (get("/methods").method(Method::DELETE), "methods"),
        (get("/methods").method(Method::PATCH), "none"),
        (at("reviews.default", "/authority"), "authority"),
        (at("reviews", "/authority"), "none"),
        (at("reviews.default.svc", "/authorities"), "authorities"),
        (at("reviews.default.svc.cluster.local", "/authorities"), "authorities"),
        (at("reviews.default", "/authorities"), "none"),
        (get("/http"), "http"),
        (get("/https"), "none"),
    ])
    .await;
}

#[tokio::test]
async fn conditions_on_the_client_and_its_port_decide_who_gets_a_route() {
    let reviews = Reviews::start();
    let (port, other) = (reviews.address.port(), ports::local().unwrap().port());
    let routes = Entries::new()
        .beside_path("port", &format!("port: {port}"))
        .beside_path("other-port", &format!("port: {other}"))
        .beside_path("labels", "sourceLabels: {app: client}")
        .beside_path("other-labels", "sourceLabels: {app: batch}")
        .beside_path("namespace", "sourceNamespace: default")
        .beside_path("other-namespace", "sourceNamespace: shop")
        .beside_path("mesh", "gateways: [mesh]")
        .beside_path("gateway", "gateways: [edge]")
        .end();
    let (mesh, client) = start(&reviews, &routes).await;
    let get = |path: &str| Plan::get(reviews.address, "reviews", path);
    assert_taken(vec![
        (get("/port"), "port"),
        (get("/other-port"), "none"),
        (get("/labels"), "labels"),
        (get("/other-labels"), "none"),
        (get("/namespace"), "namespace"),
        (get("/other-namespace"), "none"),
        (get("/mesh"), "mesh"),
        (get("/gateway"), "none"),
    ])
    .await;
    // Another client of the same server, elsewhere and with another label. Both would listen on the same address.
    client.stop().await.unwrap();
    let arguments = ["--pod", "batch", "-n", "shop", "--label", "app=batch", "--interception", "none"];
    let _client = mesh.envoy(Variant::Delta, &arguments).await;
    let get = |path: &str| Plan::get(reviews.address, "reviews.default", path);
    answering(get("/")).await;
    assert_taken(vec![
        (get("/labels"), "none"),
        (get("/other-labels"), "other-labels"),
        (get("/namespace"), "none"),
        (get("/other-namespace"), "other-namespace"),
    ])
    .await;
}

#[tokio::test]
async fn the_first_entry_that_matches_takes_the_request_also_after_a_change() {
    let reviews = Reviews::start();
    let wide = "{uri: {prefix: /a}}";
    let narrow = "{uri: {prefix: /a/b}}";
    let (mesh, _client) = start(&reviews, &Entries::new().of("narrow", narrow).of("wide", wide).end()).await;
    let get = |path: &str| Plan::get(reviews.address, "reviews", path);
    assert_taken(vec![(get("/a/b/c"), "narrow"), (get("/a/c"), "wide"), (get("/b"), "none")]).await;
    mesh.write("routes.yaml", &Entries::new().of("wide", wide).of("narrow", narrow).end());
    wait::until("the wide entry to come first", PATIENCE, async || match get("/a/b/c").once().await {
        Ok(reply) if reply.header("x-mark") == Some("wide") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await
    .unwrap();
}
