//! Policies that ask somebody else: RBAC in the shadow finds out who is to be asked, and a filter asks.
//!
//! ```text
//!   RBAC, not enforced ──(id of the policy that matched, as metadata)──▶ ext_authz, if it is one of this provider ──▶ …
//! ```
//!
//! A provider that cannot be asked refuses all that its policies match.

use std::sync::Arc;
use std::time::Duration;

use proto::pb::envoy::config::core::v3::grpc_service::{EnvoyGrpc, TargetSpecifier};
use proto::pb::envoy::config::core::v3::{ApiVersion, GrpcService, HeaderValue, HttpUri, http_uri};
use proto::pb::envoy::extensions::filters::http::ext_authz::v3::{
    AuthorizationRequest, AuthorizationResponse, BufferSettings, ExtAuthz, HttpService, ext_authz,
};
use proto::pb::envoy::extensions::filters::network::ext_authz::v3::ExtAuthz as NetworkExtAuthz;
use proto::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use proto::pb::envoy::r#type::matcher::v3::{ListStringMatcher, MetadataMatcher};
use proto::pb::envoy::r#type::v3::HttpStatus;
use world::ObjectRef;
use world::api::mesh_config::{ExtAuthzGrpc, ExtAuthzHttp, ExternalAuthorization, RequestBody};

use super::NETWORK_STAT_PREFIX;
use super::text::{is, noted, string, value};
use crate::pack::duration;

/// Prefix of what the shadow notes, and of the ids of its policies.
pub(super) const SHADOW_PREFIX: &str = "istio_ext_authz_";

/// How long Istio lets a proxy wait for a provider that says nothing of it.
const TIMEOUT: Duration = Duration::from_secs(600);

/// A provider that can be asked.
#[derive(Clone, Debug)]
pub(crate) struct ResolvedProvider<'a> {
    /// What the mesh configuration says of it, which has no mistakes.
    pub(crate) asks: ExternalAuthorization<'a>,
    /// The cluster that leads to it.
    pub(crate) cluster: Arc<str>,
    /// The host of its service.
    pub(crate) host: String,
    /// The mesh configuration.
    pub(crate) origin: &'a ObjectRef,
}

/// The id under which the shadow notes a rule for `provider`.
pub(super) fn policy_id(provider: &str, key: &str) -> String {
    format!("istio-ext-authz-{provider}-{key}")
}

impl ResolvedProvider<'_> {
    /// The filter that asks about requests, if `rbac` has noted one of the policies of the provider called `name`.
    pub(super) fn http(&self, name: &str, rbac: &str) -> ExtAuthz {
        let (fail_open, clear_route_cache, services, allowed_headers) = match self.asks {
            ExternalAuthorization::Http(http) => {
                let names = [&http.include_request_headers_in_check[..], &http.include_headers_in_check].concat();
                let service = ext_authz::Services::HttpService(self.http_service(http));
                (http.fail_open, http.clear_route_cache, service, headers(&names))
            }
            ExternalAuthorization::Grpc(grpc) => {
                let service = ext_authz::Services::GrpcService(self.grpc_service(grpc));
                (grpc.fail_open, grpc.clear_route_cache, service, None)
            }
        };
        ExtAuthz {
            transport_api_version: ApiVersion::V3.into(),
            failure_mode_allow: fail_open,
            // A provider with a status that does not exist is never asked.
            status_on_error: self.asks.status_on_error().ok().flatten().map(|code| HttpStatus { code: code.into() }),
            with_request_body: self.asks.body().map(buffer),
            clear_route_cache,
            allowed_headers,
            filter_enabled_metadata: Some(is_noted(name, rbac)),
            services: Some(services),
            ..ExtAuthz::default()
        }
    }

    /// The filter that asks about connections; `None` for providers that know requests only.
    pub(super) fn network(&self, name: &str, rbac: &str) -> Option<NetworkExtAuthz> {
        match self.asks {
            ExternalAuthorization::Http(_) => None,
            ExternalAuthorization::Grpc(grpc) => Some(NetworkExtAuthz {
                stat_prefix: NETWORK_STAT_PREFIX.to_owned(),
                grpc_service: Some(self.grpc_service(grpc)),
                failure_mode_allow: grpc.fail_open,
                transport_api_version: ApiVersion::V3.into(),
                filter_enabled_metadata: Some(is_noted(name, rbac)),
                ..NetworkExtAuthz::default()
            }),
        }
    }

    fn http_service(&self, http: &ExtAuthzHttp) -> HttpService {
        let header = |(key, value): (&String, &String)| HeaderValue {
            key: key.clone(),
            value: value.clone(),
            ..HeaderValue::default()
        };
        let headers_to_add: Vec<HeaderValue> = http.include_additional_headers_in_check.iter().map(header).collect();
        let response = AuthorizationResponse {
            allowed_upstream_headers: headers(&http.headers_to_upstream_on_allow),
            allowed_client_headers: headers(&http.headers_to_downstream_on_deny),
            allowed_client_headers_on_success: headers(&http.headers_to_downstream_on_allow),
            ..AuthorizationResponse::default()
        };
        HttpService {
            server_uri: Some(HttpUri {
                // Asked for and not used: the request goes to the cluster, with the path of the one in question.
                uri: format!("http://{}", self.host),
                timeout: Some(duration(http.timeout.unwrap_or(TIMEOUT))),
                http_upstream_type: Some(http_uri::HttpUpstreamType::Cluster(self.cluster.to_string())),
            }),
            path_prefix: http.path_prefix.clone(),
            authorization_request: (!headers_to_add.is_empty())
                .then(|| AuthorizationRequest { headers_to_add, ..AuthorizationRequest::default() }),
            authorization_response: (response != AuthorizationResponse::default()).then_some(response),
            ..HttpService::default()
        }
    }

    fn grpc_service(&self, grpc: &ExtAuthzGrpc) -> GrpcService {
        let envoy = EnvoyGrpc {
            cluster_name: self.cluster.to_string(),
            // Without it Envoy sends the cluster's name, whose bars are no part of an authority.
            authority: self.cluster.replace('|', "_."),
            ..EnvoyGrpc::default()
        };
        GrpcService {
            target_specifier: Some(TargetSpecifier::EnvoyGrpc(envoy)),
            timeout: Some(duration(grpc.timeout.unwrap_or(TIMEOUT))),
            ..GrpcService::default()
        }
    }
}

fn buffer(body: &RequestBody) -> BufferSettings {
    BufferSettings {
        max_request_bytes: body.max_request_bytes,
        allow_partial_message: body.allow_partial_message,
        pack_as_bytes: body.pack_as_bytes,
    }
}

/// Names of headers, with a star at either end, which Envoy compares in lower case; none when there are none.
fn headers(names: &[String]) -> Option<ListStringMatcher> {
    let patterns: Vec<_> = names.iter().filter_map(|name| value(&name.to_ascii_lowercase())).collect();
    (!patterns.is_empty()).then_some(ListStringMatcher { patterns })
}

/// Whether `rbac` has noted a policy of the provider called `name`.
fn is_noted(name: &str, rbac: &str) -> MetadataMatcher {
    let prefix = string(MatchPattern::Prefix(policy_id(name, "ns[")));
    let key = format!("{SHADOW_PREFIX}shadow_effective_policy_id");
    noted(rbac, &[&key], vec![is(prefix)]).metadata_matcher.unwrap_or_default()
}
