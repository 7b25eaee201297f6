//! One bad object among two hundred, of every type: real Envoys keep its last good form, and everything else goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::{Value, json};
use testkit::envoy::Envoy;
use testkit::{ports, wait};

use crate::mesh::{Mesh, PATIENCE, Variant};

/// Objects that there are, numbered from 0.
const COUNT: usize = 201;

/// The one that is bad.
const BAD: usize = 77;

/// What the objects are made into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Clusters,
    Listeners,
    Routes,
    Assignments,
    /// Virtual hosts of one route configuration, apart or within it.
    Hosts,
}

/// What an object says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Good(u32),
    /// Rules of descriptors let it pass, Envoy does not.
    Bad(u32),
}

impl Kind {
    /// What Envoy says of the bad form.
    fn words(self) -> &'static str {
        match self {
            Kind::Clusters | Kind::Assignments => "malformed IP address: nowhere",
            Kind::Listeners => "Didn't find a registered implementation",
            Kind::Routes => "missing ]",
            Kind::Hosts => "max program size",
        }
    }

    fn short(self, variant: Variant) -> &'static str {
        match (self, variant) {
            (Kind::Clusters, _) => "cds",
            (Kind::Listeners, _) => "lds",
            (Kind::Assignments, _) => "eds",
            (Kind::Routes, _) | (Kind::Hosts, Variant::StateOfTheWorld) => "rds",
            (Kind::Hosts, Variant::Delta) => "vhds",
        }
    }

    fn object_kind(self) -> &'static str {
        if self == Kind::Hosts { "virtualservice" } else { "xdsresource" }
    }

    /// The object of this number. Wherever its form is in Envoy's configuration stands [`mark`].
    fn object(self, number: usize, form: Form) -> String {
        let name = name(number);
        let (mark, is_good) = match form {
            Form::Good(revision) => (mark(number, revision), true),
            Form::Bad(revision) => (mark(number, revision), false),
        };
        let address = if is_good { "127.0.0.1" } else { "nowhere" };
        let endpoint = json!({ "endpoint": { "address": {
            "socket_address": { "address": address, "port_value": 1 },
        } } });
        let resource = match self {
            Kind::Clusters => json!({
                "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
                "name": name, "alt_stat_name": mark, "type": "STATIC",
                "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": [endpoint] }] },
            }),
            Kind::Assignments => json!({
                "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
                "cluster_name": name,
                "endpoints": [{ "locality": { "sub_zone": mark }, "lb_endpoints": [endpoint] }],
            }),
            Kind::Listeners => {
                let filter = if is_good {
                    json!({ "@type": "type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo" })
                } else {
                    json!({ "@type": "type.googleapis.com/envoy.config.core.v3.Locality" })
                };
                listener(number, &mark, json!({ "name": "filter", "typed_config": filter }))
            }
            Kind::Routes => {
                let expression = if is_good { "/a" } else { "[" };
                json!({
                    "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
                    "name": name,
                    "virtual_hosts": [{ "name": mark, "domains": ["*"], "routes": [{
                        "match": { "safe_regex": { "regex": expression } },
                        "direct_response": { "status": 200 },
                    }] }],
                })
            }
            Kind::Hosts => {
                let length = if is_good { 4 } else { 400 };
                return format!(
                    "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: \
                     default}}\nspec:\n  hosts: [{name}]\n  http:\n    - match: [{{uri: {{regex: \"/[a-z]{{{length}}}\"}}}}]\n      \
                     headers: {{response: {{set: {{x-mark: {mark}}}}}}}\n      directResponse: {{status: 200}}\n---\n"
                );
            }
        };
        xds_resource(&name, &resource)
    }

    /// What the objects need to be asked for.
    fn support(self, number: usize, port: u16) -> String {
        let name = name(number);
        let ads = json!({ "ads": {}, "resource_api_version": "V3" });
        match self {
            Kind::Clusters | Kind::Listeners => String::new(),
            Kind::Assignments => xds_resource(
                &format!("{name}-cluster"),
                &json!({
                    "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
                    "name": name, "type": "EDS", "eds_cluster_config": { "eds_config": ads },
                }),
            ),
            Kind::Routes => {
                let manager = json!({
                    "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                    "stat_prefix": name,
                    "rds": { "route_config_name": name, "config_source": ads },
                    "http_filters": [{
                        "name": "envoy.filters.http.router",
                        "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
                    }],
                });
                let listener = listener(number, "lab", json!({ "name": "filter", "typed_config": manager }));
                xds_resource(&format!("{name}-listener"), &listener)
            }
            Kind::Hosts => format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\nspec: {{clusterIP: \
                 10.0.1.{}, ports: [{{name: http, port: {port}}}]}}\n---\n",
                number + 1
            ),
        }
    }
}

fn name(number: usize) -> String {
    format!("lab-{number:03}")
}

/// What tells which form of which object stands somewhere.
fn mark(number: usize, revision: u32) -> String {
    format!("lab-{number:03}@{revision}")
}

/// A listener that takes no port.
fn listener(number: usize, stat_prefix: &str, filter: Value) -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
        "name": name(number), "stat_prefix": stat_prefix, "bind_to_port": false,
        "address": { "socket_address": { "address": "127.0.0.1", "port_value": 1000 + number } },
        "filter_chains": [{ "filters": [filter] }],
    })
}

fn xds_resource(name: &str, resource: &Value) -> String {
    let object = json!({
        "apiVersion": "networking.pointsman.dev/v1alpha1",
        "kind": "XdsResource",
        "metadata": { "name": name, "namespace": "default" },
        "spec": { "resources": [resource] },
    });
    format!("{object}\n---\n")
}

/// The objects, as they are to be and as they were last good.
struct Lab {
    kind: Kind,
    variant: Variant,
    mesh: Mesh,
    forms: Vec<Form>,
    /// The newest good revision of each object.
    good: Vec<u32>,
}

impl Lab {
    async fn start(kind: Kind, variant: Variant) -> Lab {
        let port = ports::local().unwrap().port();
        let support: String = (0..COUNT).map(|number| kind.support(number, port)).collect();
        let forms = vec![Form::Good(1); COUNT];
        let objects = text(kind, &forms);
        let arguments = ["--max-regex-instructions", "32768"];
        let mesh = Mesh::start_with(&[("support.yaml", &support), ("lab.yaml", &objects)], &arguments).await;
        Lab { kind, variant, mesh, forms, good: vec![1; COUNT] }
    }

    /// Makes all good that are not bad, in this revision, and these bad, in one change.
    fn write(&mut self, revision: u32, newly_bad: &[usize]) {
        for (number, form) in self.forms.iter_mut().enumerate() {
            if newly_bad.contains(&number) {
                *form = Form::Bad(revision);
            } else if matches!(form, Form::Good(_)) {
                (*form, self.good[number]) = (Form::Good(revision), revision);
            }
        }
        self.mesh.write("lab.yaml", &text(self.kind, &self.forms));
    }

    /// Makes one other.
    fn set(&mut self, number: usize, revision: u32) {
        (self.forms[number], self.good[number]) = (Form::Good(revision), revision);
        self.mesh.write("lab.yaml", &text(self.kind, &self.forms));
    }

    fn bad(&self) -> BTreeSet<String> {
        let all = self.forms.iter().enumerate();
        all.filter(|(_, form)| matches!(form, Form::Bad(_))).map(|(number, _)| name(number)).collect()
    }

    /// An Envoy whose bootstrap says nothing about regular expressions, so that its default holds.
    async fn envoy(&self, pod: &str) -> Envoy {
        let mut arguments = vec!["--pod", pod, "--interception", "none"];
        if self.variant == Variant::StateOfTheWorld {
            arguments.push("--state-of-the-world");
        }
        let mut bootstrap = self.mesh.bootstrap(&arguments);
        bootstrap.as_object_mut().unwrap().remove("layered_runtime");
        Envoy::start(bootstrap).await.unwrap()
    }

    /// Waits until an Envoy serves every object in its last good form, and none of `absent`.
    async fn shows(&self, envoy: &Envoy, absent: &[usize]) {
        let good = self.good.iter().enumerate().filter(|(number, _)| !absent.contains(number));
        let wanted: BTreeSet<String> = good.map(|(number, revision)| mark(number, *revision)).collect();
        let what = format!("{:?} in their last good form by {:?}", self.kind, self.variant);
        wait::until(&what, PATIENCE, async || {
            let mut found = BTreeSet::new();
            marks(&envoy.config_dump().await.unwrap(), &mut found);
            let missing: Vec<_> = wanted.difference(&found).take(5).collect();
            let surplus: Vec<_> = found.difference(&wanted).take(5).collect();
            match missing.is_empty() && surplus.is_empty() {
                true => Ok(()),
                false => Err(format!("missing {missing:?}, surplus {surplus:?}")),
            }
        })
        .await
        .unwrap();
    }

    /// Waits until exactly the bad objects are said to be refused, with Envoy's words, by these nodes.
    async fn tells(&self, nodes: &[&str]) {
        let wanted = self.bad();
        let answer = self.mesh.get_where("/api/v1/objects?state=rejected", "the bad to be told", |answer| {
            let objects = answer["objects"].as_array().unwrap();
            let names: BTreeSet<_> = objects.iter().map(|object| object["name"].as_str().unwrap().to_owned()).collect();
            names == wanted && objects.iter().all(|object| object["rejected"] == nodes.len())
        });
        for object in answer.await["objects"].as_array().unwrap() {
            let refusals = object["rejected_nodes"].as_array().unwrap();
            let by: BTreeSet<_> =
                refusals.iter().map(|refusal| refusal["node_id"].as_str().unwrap().to_owned()).collect();
            assert_eq!(by, nodes.iter().map(|pod| node(pod)).collect(), "{object}");
            for refusal in refusals {
                assert!(refusal["message"].as_str().unwrap().contains(self.kind.words()), "{object}");
            }
            let path = format!("{}/default/{}", self.kind.object_kind(), object["name"].as_str().unwrap());
            let status = self.status(&path);
            assert!(status.contains(": rejected\n") && status.contains(self.kind.words()), "{status}");
            assert!(nodes.iter().all(|pod| status.contains(&node(pod))), "{status}");
        }
    }

    /// What `pointsman status` prints of an object.
    fn status(&self, object: &str) -> String {
        let admin = self.mesh.admin.to_string();
        let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
        let output = command.args(["status", object, "--admin", &admin]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    async fn pushes(&self) -> u64 {
        self.mesh.metric(&format!("pilot_xds_pushes{{type=\"{}\"}}", self.kind.short(self.variant))).await
    }

    /// Waits until every response is answered; returns how many of the type there were.
    async fn rest(&self) -> u64 {
        wait::until("every response to be answered", PATIENCE, async || {
            let count = self.pushes().await;
            let nodes = self.mesh.get("/api/v1/nodes").await;
            let is_pending = nodes["nodes"].as_array().unwrap().iter().any(|node| node["sync"] == "pending");
            if is_pending || self.pushes().await != count { Err(nodes) } else { Ok(count) }
        })
        .await
        .unwrap()
    }

    /// One object changes a few times: each change is one response, none is refused, and nothing else is sent.
    async fn goes_on_quietly(&mut self, envoy: &Envoy, absent: &[usize], from: u32) {
        let (pushes, refused) = (self.rest().await, refusals(envoy).await);
        for revision in from..from + 3 {
            self.set(0, revision);
            self.shows(envoy, absent).await;
            self.rest().await;
        }
        assert_eq!(self.pushes().await, pushes + 3, "a response for each change, and none besides");
        assert_eq!(refusals(envoy).await, refused, "something is refused again");
    }
}

fn text(kind: Kind, forms: &[Form]) -> String {
    forms.iter().enumerate().map(|(number, form)| kind.object(number, *form)).collect()
}

fn node(pod: &str) -> String {
    format!("sidecar~127.0.0.1~{pod}.default~default.svc.cluster.local")
}

/// The marks in what Envoy serves, not in what it prepares or has refused.
fn marks(dump: &Value, found: &mut BTreeSet<String>) {
    match dump {
        Value::Array(values) => values.iter().for_each(|value| marks(value, found)),
        Value::Object(fields) => {
            let others = ["error_state", "warming_state", "draining_state", "dynamic_warming_clusters"];
            let fields = fields.iter().filter(|(name, _)| !others.contains(&name.as_str()));
            fields.for_each(|(_, value)| marks(value, found));
        }
        Value::String(text) if text.len() > 8 && text.starts_with("lab-") && text.as_bytes()[7] == b'@' => {
            found.insert(text.clone());
        }
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// How often an Envoy has refused anything.
async fn refusals(envoy: &Envoy) -> u64 {
    let stats: BTreeMap<String, u64> = envoy.stats().await.unwrap();
    stats.iter().filter(|(name, _)| name.ends_with("update_rejected")).map(|(_, count)| count).sum()
}

async fn what_is_bad_hurts_only_itself(kind: Kind, variant: Variant) {
    let mut lab = Lab::start(kind, variant).await;
    let client = lab.envoy("client").await;
    lab.shows(&client, &[]).await;

    // It becomes bad with the very change that brings something new of all others.
    lab.write(2, &[BAD]);
    lab.shows(&client, &[]).await;
    lab.tells(&["client"]).await;
    lab.write(3, &[]);
    lab.shows(&client, &[]).await;
    lab.goes_on_quietly(&client, &[], 4).await;
    lab.tells(&["client"]).await;

    // Bad from the first connect.
    let late = lab.envoy("late").await;
    lab.shows(&late, &[BAD]).await;
    lab.tells(&["client", "late"]).await;

    // The server goes and comes back, and with it others change.
    lab.mesh.server.kill().await.unwrap();
    lab.write(10, &[]);
    lab.mesh.restart().await;
    // Nobody knows the good form of a virtual host within a route configuration any more, and it must not hold up the
    // others: so this one goes. Everything else Envoy keeps by itself.
    let is_lost = kind == Kind::Hosts && variant == Variant::StateOfTheWorld;
    let lost: &[usize] = if is_lost { &[BAD] } else { &[] };
    lab.shows(&client, lost).await;
    lab.shows(&late, &[BAD]).await;
    lab.tells(&["client", "late"]).await;
    lab.write(11, &[]);
    lab.shows(&client, lost).await;
    lab.shows(&late, &[BAD]).await;

    // More of them, in one change.
    lab.write(12, &[10, 150]);
    lab.shows(&client, lost).await;
    lab.shows(&late, &[BAD]).await;
    lab.tells(&["client", "late"]).await;

    // Mended.
    lab.forms = vec![Form::Good(20); COUNT];
    lab.write(20, &[]);
    lab.shows(&client, &[]).await;
    lab.shows(&late, &[]).await;
    lab.mesh.synced(2).await;
    lab.tells(&[]).await;
}

#[tokio::test]
async fn a_bad_cluster_hurts_only_itself_by_delta() {
    what_is_bad_hurts_only_itself(Kind::Clusters, Variant::Delta).await;
}

#[tokio::test]
async fn a_bad_cluster_hurts_only_itself_by_state_of_the_world() {
    what_is_bad_hurts_only_itself(Kind::Clusters, Variant::StateOfTheWorld).await;
}

#[tokio::test]
async fn a_bad_listener_hurts_only_itself_by_delta() {
    what_is_bad_hurts_only_itself(Kind::Listeners, Variant::Delta).await;
}

#[tokio::test]
async fn a_bad_listener_hurts_only_itself_by_state_of_the_world() {
    what_is_bad_hurts_only_itself(Kind::Listeners, Variant::StateOfTheWorld).await;
}

#[tokio::test]
async fn a_bad_route_configuration_hurts_only_itself_by_delta() {
    what_is_bad_hurts_only_itself(Kind::Routes, Variant::Delta).await;
}

#[tokio::test]
async fn a_bad_route_configuration_hurts_only_itself_by_state_of_the_world() {
    what_is_bad_hurts_only_itself(Kind::Routes, Variant::StateOfTheWorld).await;
}

#[tokio::test]
async fn a_bad_assignment_hurts_only_itself_by_delta() {
    what_is_bad_hurts_only_itself(Kind::Assignments, Variant::Delta).await;
}

#[tokio::test]
async fn a_bad_assignment_hurts_only_itself_by_state_of_the_world() {
    what_is_bad_hurts_only_itself(Kind::Assignments, Variant::StateOfTheWorld).await;
}

#[tokio::test]
async fn a_bad_virtual_host_hurts_only_itself_by_delta() {
    what_is_bad_hurts_only_itself(Kind::Hosts, Variant::Delta).await;
}

#[tokio::test]
async fn a_bad_virtual_host_hurts_only_itself_by_state_of_the_world() {
    what_is_bad_hurts_only_itself(Kind::Hosts, Variant::StateOfTheWorld).await;
}
