//! Who the imitated nodes say they are: sidecars as Istio names them.

use std::net::Ipv4Addr;
use std::sync::{Arc, LazyLock};

use prost::Message;
use proto::pb::envoy::config::core::v3::node::UserAgentVersionType;
use proto::pb::envoy::config::core::v3::{BuildVersion, Extension, Locality, Node};
use proto::pb::envoy::r#type::v3::SemanticVersion;
use proto::pb::google::protobuf::value::Kind;
use proto::pb::google::protobuf::{Struct, Value};

use crate::scenario::{NodeSize, Scenario};

/// The `Node` of one imitated sidecar, encoded in two parts.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// What it alone says: its id, `sidecar~10.0.0.1~pod-0.default~default.svc.cluster.local` and on, and its metadata.
    pub(crate) own: Vec<u8>,
    /// What all say.
    pub(crate) shared: Arc<[u8]>,
}

impl Identity {
    /// The node with this index.
    pub(crate) fn of(scenario: &Scenario, index: usize) -> Self {
        let namespace = &scenario.namespaces[index % scenario.namespaces.len().max(1)];
        let pod = format!("pod-{index}");
        // 10.0.0.1 and on; a swarm is smaller than that network.
        let address = Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 1).to_bits() + (index as u32 & 0x00ff_ffff));
        let id = format!("sidecar~{address}~{pod}.{namespace}~{namespace}.svc.{}", scenario.domain);
        let labels = scenario.labels.iter().map(|(name, value)| (name.as_str(), text(value)));
        let metadata = structure([
            ("NAME", text(&pod)),
            ("NAMESPACE", text(namespace)),
            ("SERVICE_ACCOUNT", text("default")),
            ("CLUSTER_ID", text("Kubernetes")),
            ("ISTIO_VERSION", text("1.27.0")),
            ("INSTANCE_IPS", text(&address.to_string())),
            ("LABELS", Value { kind: Some(Kind::StructValue(structure(labels))) }),
        ]);
        let own = Node {
            id,
            cluster: format!("swarm.{namespace}"),
            metadata: Some(metadata),
            locality: Some(Locality { region: "region".to_owned(), zone: "zone".to_owned(), ..Locality::default() }),
            user_agent_name: "envoy".to_owned(),
            user_agent_version_type: Some(UserAgentVersionType::UserAgentBuildVersion(BuildVersion {
                version: Some(SemanticVersion { major_number: 1, minor_number: 40, patch: 0 }),
                metadata: None,
            })),
            ..Node::default()
        };
        let shared = match scenario.node {
            NodeSize::Small => Arc::from([]),
            NodeSize::Full => Arc::clone(&EXTENSIONS),
        };
        Self { own: own.encode_to_vec(), shared }
    }
}

/// How many extensions an Envoy 1.40 lists.
const COUNT: usize = 516;

/// A list of extensions as large as that of an Envoy 1.40, 61 KB. Names follow Envoy's pattern and none of them exists, so
/// that no server takes a node for one that has the extension.
static EXTENSIONS: LazyLock<Arc<[u8]>> = LazyLock::new(|| {
    const CATEGORIES: [&str; 4] =
        ["envoy.filters.http", "envoy.filters.network", "envoy.matching.http.input", "envoy.access_loggers"];
    let extensions = (0..COUNT).map(|index| {
        let category = CATEGORIES[index % CATEGORIES.len()];
        Extension {
            name: format!("{category}.imitated_{index:03}"),
            category: category.to_owned(),
            type_urls: vec![format!("envoy.extensions.{}.imitated_{index:03}.v3.Imitated", &category[6..])],
            ..Extension::default()
        }
    });
    Node { extensions: extensions.collect(), ..Node::default() }.encode_to_vec().into()
});

fn text(text: &str) -> Value {
    Value { kind: Some(Kind::StringValue(text.to_owned())) }
}

fn structure<'a>(fields: impl IntoIterator<Item = (&'a str, Value)>) -> Struct {
    Struct { fields: fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_node_is_a_sidecar_of_its_namespace() {
        let scenario = Scenario {
            namespaces: vec!["shop".to_owned(), "blog".to_owned()],
            labels: [("app".to_owned(), "front".to_owned())].into(),
            ..Scenario::default()
        };
        let identity = Identity::of(&scenario, 257);
        let node = Node::decode(&*identity.own).unwrap();
        assert_eq!(node.id, "sidecar~10.0.1.2~pod-257.blog~blog.svc.cluster.local");
        let fields = node.metadata.unwrap().fields;
        assert_eq!(fields["NAMESPACE"], text("blog"));
        let Some(Kind::StructValue(labels)) = &fields["LABELS"].kind else { panic!("{fields:?}") };
        assert_eq!(labels.fields["app"], text("front"));
    }

    #[test]
    fn a_full_node_is_as_large_as_a_real_one() {
        let identity = Identity::of(&Scenario { node: NodeSize::Full, ..Scenario::default() }, 0);
        let bytes = identity.own.len() + identity.shared.len();
        assert!((58_000..64_000).contains(&bytes), "{bytes}");
        assert_eq!(Node::decode(&*identity.shared).unwrap().extensions.len(), COUNT);
        let small = Identity::of(&Scenario::default(), 0);
        assert!(small.own.len() + small.shared.len() < 700, "{}", small.own.len());
    }
}
