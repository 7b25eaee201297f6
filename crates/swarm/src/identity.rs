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

/// Extensions by category that every build of Envoy for a mesh has and configuration is likely to name. A server may leave
/// out what a client does not list; what is imitated must be sent all that a real client is sent.
const USUAL: [(&str, &str, &[&str]); 5] = [
    (
        "envoy.filters.http",
        "envoy.filters.http.",
        &[
            "buffer",
            "compressor",
            "cors",
            "csrf",
            "custom_response",
            "decompressor",
            "dynamic_forward_proxy",
            "ext_authz",
            "ext_proc",
            "fault",
            "grpc_http1_bridge",
            "grpc_json_transcoder",
            "grpc_stats",
            "grpc_web",
            "header_mutation",
            "health_check",
            "jwt_authn",
            "local_ratelimit",
            "lua",
            "oauth2",
            "on_demand",
            "ratelimit",
            "rbac",
            "router",
            "set_filter_state",
            "set_metadata",
            "stateful_session",
            "tap",
            "wasm",
        ],
    ),
    (
        "envoy.filters.network",
        "envoy.filters.network.",
        &[
            "connection_limit",
            "direct_response",
            "ext_authz",
            "http_connection_manager",
            "local_ratelimit",
            "mongo_proxy",
            "ratelimit",
            "rbac",
            "redis_proxy",
            "set_filter_state",
            "sni_cluster",
            "tcp_proxy",
            "thrift_proxy",
            "wasm",
            "zookeeper_proxy",
        ],
    ),
    (
        "envoy.filters.listener",
        "envoy.filters.listener.",
        &["http_inspector", "local_ratelimit", "original_dst", "original_src", "proxy_protocol", "tls_inspector"],
    ),
    (
        "envoy.transport_sockets.upstream",
        "envoy.transport_sockets.",
        &["internal_upstream", "raw_buffer", "tls", "upstream_proxy_protocol"],
    ),
    ("envoy.access_loggers", "envoy.access_loggers.", &["file", "http_grpc", "open_telemetry", "stdout", "tcp_grpc"]),
];

/// A list of extensions as large as that of an Envoy 1.40, 61 KB: the usual ones, and names that fill it up.
static EXTENSIONS: LazyLock<Arc<[u8]>> = LazyLock::new(|| {
    let listed = |category: &str, name: String, type_urls: Vec<String>| Extension {
        name,
        category: category.to_owned(),
        type_urls,
        ..Extension::default()
    };
    let usual = USUAL.iter().flat_map(|(category, prefix, names)| {
        names.iter().map(move |name| listed(category, format!("{prefix}{name}"), Vec::new()))
    });
    let filling = (0..).map(|index| {
        let name = format!("envoy.matching.inputs.imitated_{index:03}");
        let type_url = format!("envoy.extensions.matching.inputs.imitated_{index:03}.v3.Imitated");
        listed("envoy.matching.http.input", name, vec![type_url])
    });
    let extensions = usual.chain(filling).take(COUNT).collect();
    Node { extensions, ..Node::default() }.encode_to_vec().into()
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
        let extensions = Node::decode(&*identity.shared).unwrap().extensions;
        assert_eq!(extensions.len(), COUNT);
        let lacking = proto::Extensions::lacking(extensions.iter().map(|extension| extension.name.as_str()));
        assert_eq!(lacking, proto::Extensions::default(), "it is sent what a real one is sent");
        let small = Identity::of(&Scenario::default(), 0);
        assert!(small.own.len() + small.shared.len() < 700, "{}", small.own.len());
    }
}
