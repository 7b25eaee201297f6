//! The filter that speaks HTTP.

use std::sync::LazyLock;
use std::time::Duration;

use proto::pb::envoy::config::accesslog::v3::{AccessLog, access_log};
use proto::pb::envoy::config::core::v3::grpc_service::EnvoyGrpc;
use proto::pb::envoy::config::core::v3::{ApiVersion, GrpcService, Http1ProtocolOptions, grpc_service};
use proto::pb::envoy::config::listener::v3::Filter;
use proto::pb::envoy::config::route::v3::RouteConfiguration;
use proto::pb::envoy::extensions::access_loggers::file::v3::FileAccessLog;
use proto::pb::envoy::extensions::access_loggers::grpc::v3::{CommonGrpcAccessLogConfig, HttpGrpcAccessLogConfig};
use proto::pb::envoy::extensions::filters::http::cors::v3::Cors;
use proto::pb::envoy::extensions::filters::http::fault::v3::HttpFault;
use proto::pb::envoy::extensions::filters::http::grpc_stats::v3::FilterConfig as GrpcStats;
use proto::pb::envoy::extensions::filters::http::grpc_stats::v3::filter_config::PerMethodStatSpecifier;
use proto::pb::envoy::extensions::filters::http::grpc_web::v3::GrpcWeb;
use proto::pb::envoy::extensions::filters::http::router::v3::Router;
use proto::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    ForwardClientCertDetails, PathWithEscapedSlashesAction, RouteSpecifier, SetCurrentClientCertDetails, UpgradeConfig,
};
use proto::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, Rds, RequestIdExtension,
};
use proto::pb::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig;
use proto::{Extension, Extensions};
use world::api::mesh_config::{ForwardClientCertificate, GatewayTopology, MeshConfig, Normalization};

use crate::pack::{ads, any, boolean, duration, http_filter, network_filter};

/// What the proxy calls itself towards those who call the workload or the mesh. Outbound it stays Envoy's `envoy`.
const SERVER_NAME: &str = "istio-envoy";

/// Where requests come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// From the sidecar's own workload.
    Outbound,
    /// To the sidecar's own workload.
    Inbound,
    /// From outside, at a gateway: the peer's address is the client's.
    Gateway,
    /// From a gRPC client without a proxy, which knows few of the settings and refuses some.
    Grpc,
    /// To a gRPC server without a proxy, of which the same holds.
    GrpcServer,
}

/// Where routes come from.
#[derive(Clone, Debug)]
pub(crate) enum Routes<'a> {
    /// The route configuration of this name, over ADS.
    Discovered(&'a str),
    /// These.
    Inline(Box<RouteConfiguration>),
}

/// How requests are read, by the mesh configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    /// What becomes of their paths.
    pub(crate) paths: Normalization,
    /// What gateways believe of whom they are from.
    pub(crate) topology: GatewayTopology,
}

impl Reading {
    /// As the mesh configuration has it; Istio's defaults without one.
    pub(crate) fn of(config: Option<&MeshConfig>) -> Self {
        config.map_or_else(Self::default, |config| Self {
            paths: config.path_normalization.normalization,
            topology: config.default_config.gateway_topology,
        })
    }
}

/// All that a connection manager depends on.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionManagerInput<'a> {
    /// Where requests come from.
    pub(crate) side: Side,
    /// Names its statistics, not empty and without the `;` that ends it (dashboards rely on that end).
    pub(crate) stat_prefix: &'a str,
    /// Where routes come from.
    pub(crate) routes: Routes<'a>,
    /// Extensions that the client was built without: their filters are left out.
    pub(crate) lacks: Extensions,
    /// Whether gRPC-Web is translated to gRPC.
    pub(crate) grpc_web: bool,
    /// How requests are read. (gRPC has its own way.)
    pub(crate) reading: Reading,
    /// Filters that requests pass first, in this order: those that authenticate and authorise.
    pub(crate) guards: &'a [HttpFilter],
    /// File that requests are logged to, such as `/dev/stdout`; none are logged without it.
    pub(crate) access_log: Option<&'a str>,
}

/// The connection manager, with its HTTP filters in Istio's order: guards, gRPC-Web, gRPC statistics, fault, CORS, router.
pub(crate) fn connection_manager(input: &ConnectionManagerInput<'_>) -> HttpConnectionManager {
    let route_specifier = match &input.routes {
        Routes::Discovered(name) => {
            RouteSpecifier::Rds(Rds { config_source: Some(ads()), route_config_name: (*name).to_owned() })
        }
        Routes::Inline(routes) => RouteSpecifier::RouteConfig((**routes).clone()),
    };
    let bare = HttpConnectionManager {
        stat_prefix: format!("{};", input.stat_prefix),
        http_filters: filters(input),
        route_specifier: Some(route_specifier),
        ..HttpConnectionManager::default()
    };
    if matches!(input.side, Side::Grpc | Side::GrpcServer) {
        return bare;
    }
    let Reading { paths, topology } = input.reading;
    let trusted = if input.side == Side::Gateway { topology.num_trusted_proxies } else { 0 };
    let unescaped = PathWithEscapedSlashesAction::UnescapeAndForward;
    let escaped = if paths == Normalization::DecodeAndMergeSlashes { unescaped } else { Default::default() };
    HttpConnectionManager {
        server_name: if input.side == Side::Outbound { "" } else { SERVER_NAME }.to_owned(),
        stream_idle_timeout: Some(duration(Duration::ZERO)),
        access_log: input.access_log.map(file_access_log).into_iter().collect(),
        use_remote_address: Some(boolean(input.side == Side::Gateway)),
        forward_client_cert_details: match input.side {
            Side::Outbound | Side::Grpc | Side::GrpcServer => ForwardClientCertDetails::Sanitize,
            Side::Inbound => ForwardClientCertDetails::AppendForward,
            Side::Gateway => forwarded(topology.forward_client_cert_details),
        }
        .into(),
        set_current_client_cert_details: match input.side {
            Side::Outbound | Side::Grpc | Side::GrpcServer => None,
            Side::Inbound | Side::Gateway => Some(SetCurrentClientCertDetails {
                subject: Some(boolean(true)),
                dns: true,
                uri: true,
                ..SetCurrentClientCertDetails::default()
            }),
        },
        upgrade_configs: vec![UpgradeConfig { upgrade_type: "websocket".to_owned(), ..UpgradeConfig::default() }],
        xff_num_trusted_hops: trusted,
        normalize_path: Some(boolean(paths >= Normalization::Base)),
        merge_slashes: paths >= Normalization::MergeSlashes,
        path_with_escaped_slashes_action: escaped.into(),
        request_id_extension: Some(REQUEST_ID.clone()),
        http_protocol_options: (input.side != Side::Gateway).then(|| OLD_HTTP.clone()),
        ..bare
    }
}

fn forwarded(details: ForwardClientCertificate) -> ForwardClientCertDetails {
    match details {
        ForwardClientCertificate::Sanitize => ForwardClientCertDetails::Sanitize,
        ForwardClientCertificate::ForwardOnly => ForwardClientCertDetails::ForwardOnly,
        ForwardClientCertificate::AppendForward => ForwardClientCertDetails::AppendForward,
        ForwardClientCertificate::SanitizeSet => ForwardClientCertDetails::SanitizeSet,
        ForwardClientCertificate::AlwaysForwardOnly => ForwardClientCertDetails::AlwaysForwardOnly,
    }
}

/// What the connection manager is called as a network filter.
pub(crate) const CONNECTION_MANAGER: &str = "envoy.filters.network.http_connection_manager";

/// [`connection_manager`] as a network filter.
pub(crate) fn connection_manager_filter(input: &ConnectionManagerInput<'_>) -> Filter {
    network_filter(CONNECTION_MANAGER, &connection_manager(input))
}

/// HTTP/1.0, which need not name a host. Whatever is told apart as HTTP is for the connection manager, as it would else go
/// around all that policies ask of requests.
static OLD_HTTP: LazyLock<Http1ProtocolOptions> = LazyLock::new(|| Http1ProtocolOptions {
    accept_http_10: true,
    default_host_for_http_10: "localhost".to_owned(),
    ..Http1ProtocolOptions::default()
});

static REQUEST_ID: LazyLock<RequestIdExtension> = LazyLock::new(|| RequestIdExtension {
    typed_config: Some(any(&UuidRequestIdConfig {
        use_request_id_for_trace_sampling: Some(boolean(true)),
        ..UuidRequestIdConfig::default()
    })),
});

fn filters(input: &ConnectionManagerInput<'_>) -> Vec<HttpFilter> {
    static GRPC_WEB: LazyLock<HttpFilter> = LazyLock::new(|| http_filter("envoy.filters.http.grpc_web", &GrpcWeb {}));
    static GRPC_STATS: LazyLock<HttpFilter> = LazyLock::new(|| {
        let stats = GrpcStats {
            emit_filter_state: true,
            per_method_stat_specifier: Some(PerMethodStatSpecifier::StatsForAllMethods(boolean(false))),
            ..GrpcStats::default()
        };
        http_filter("envoy.filters.http.grpc_stats", &stats)
    });
    static FAULT: LazyLock<HttpFilter> =
        LazyLock::new(|| http_filter("envoy.filters.http.fault", &HttpFault::default()));
    static CORS: LazyLock<HttpFilter> = LazyLock::new(|| http_filter("envoy.filters.http.cors", &Cors {}));
    static ROUTER: LazyLock<HttpFilter> =
        LazyLock::new(|| http_filter("envoy.filters.http.router", &Router::default()));

    if input.side == Side::GrpcServer {
        return input.guards.iter().chain([&*ROUTER]).cloned().collect();
    }
    if input.side == Side::Grpc {
        // A client that does not know the fault filter may do without it instead of refusing the listener (gRFC A39).
        let fault = HttpFilter { is_optional: true, ..FAULT.clone() };
        return input.guards.iter().cloned().chain([fault, ROUTER.clone()]).collect();
    }
    let grpc_web = input.grpc_web.then_some((Extension::GrpcWeb, &*GRPC_WEB));
    let all = [(Extension::GrpcStats, &*GRPC_STATS), (Extension::Fault, &*FAULT), (Extension::Cors, &*CORS)];
    let known = grpc_web.into_iter().chain(all).filter(|(extension, _)| !input.lacks.contains(*extension));
    input.guards.iter().chain(known.map(|(_, filter)| filter)).chain([&*ROUTER]).cloned().collect()
}

/// The cluster of the server in the bootstrap, ours and Istio's.
const SERVER: &str = "xds-grpc";
/// What the logs are called, which the server does not look at.
const LOG_NAME: &str = "pointsman";

/// Logs every request to the server, with its gRPC status: every second, or whenever 16 KiB are full, as is Envoy's default.
pub(crate) fn server_access_log() -> AccessLog {
    const STATUS: &str = "grpc-status";
    let to = EnvoyGrpc { cluster_name: SERVER.to_owned(), ..EnvoyGrpc::default() };
    let grpc_service =
        GrpcService { target_specifier: Some(grpc_service::TargetSpecifier::EnvoyGrpc(to)), ..GrpcService::default() };
    let common = CommonGrpcAccessLogConfig {
        log_name: LOG_NAME.to_owned(),
        grpc_service: Some(grpc_service),
        transport_api_version: ApiVersion::V3.into(),
        ..CommonGrpcAccessLogConfig::default()
    };
    let config = HttpGrpcAccessLogConfig {
        common_config: Some(common),
        // An answer that is nothing but a status has it in its headers.
        additional_response_headers_to_log: vec![STATUS.to_owned()],
        additional_response_trailers_to_log: vec![STATUS.to_owned()],
        ..HttpGrpcAccessLogConfig::default()
    };
    AccessLog {
        name: Extension::AccessLogService.name().to_owned(),
        config_type: Some(access_log::ConfigType::TypedConfig(any(&config))),
        filter: None,
    }
}

fn file_access_log(path: &str) -> AccessLog {
    let file = FileAccessLog { path: path.to_owned(), access_log_format: None };
    AccessLog {
        name: "envoy.access_loggers.file".to_owned(),
        config_type: Some(access_log::ConfigType::TypedConfig(any(&file))),
        filter: None,
    }
}
