//! Istio's mesh configuration, as far as it has a meaning here: who can be asked about requests, and how these are read.
//!
//! It is the text under the key `mesh` of the ConfigMap `istio` in the root namespace.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use crate::text::duration;

/// The mesh configuration.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct MeshConfig {
    pub extension_providers: Vec<ExtensionProvider>,
    pub path_normalization: PathNormalization,
    pub default_config: ProxyConfig,
    /// What the server was told by an argument; only compared with that.
    pub trust_domain: String,
    /// The same.
    pub trust_domain_aliases: Vec<String>,
}

/// `pathNormalization`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct PathNormalization {
    pub normalization: Normalization,
}

/// What proxies do to the path of a request before they look at it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Normalization {
    /// Nothing.
    None,
    /// They take out `.` and `..` (RFC 3986), and make backslashes slashes. Istio's default, whose other name it has.
    #[default]
    #[serde(alias = "DEFAULT")]
    Base,
    /// That, and they make one slash of several.
    MergeSlashes,
    /// That, after they have decoded `%2F` and `%5C`.
    DecodeAndMergeSlashes,
}

/// `defaultConfig`, as far as the control plane carries it out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct ProxyConfig {
    pub gateway_topology: GatewayTopology,
}

/// `defaultConfig.gatewayTopology`: what is in front of gateways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayTopology {
    /// How many proxies in front of a gateway are trusted to say in `X-Forwarded-For` from whom they have a request.
    pub num_trusted_proxies: u32,
    /// What becomes of the certificate that others say the client has.
    pub forward_client_cert_details: ForwardClientCertificate,
}

/// `forwardClientCertDetails`: what a gateway does with `X-Forwarded-Client-Cert`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ForwardClientCertificate {
    /// It takes it out.
    Sanitize,
    /// It passes it on, if the client has shown a certificate of its own.
    ForwardOnly,
    /// It adds the client's certificate to it, if there is one.
    AppendForward,
    /// It says whose certificate the client has instead. Istio's default, whose other name it has.
    #[default]
    #[serde(alias = "UNDEFINED")]
    SanitizeSet,
    /// It passes it on whoever the client is.
    AlwaysForwardOnly,
}

/// `extensionProviders[]`: exactly one of its forms. Only those are known here that decide about requests.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct ExtensionProvider {
    pub name: String,
    pub envoy_ext_authz_http: Option<ExtAuthzHttp>,
    pub envoy_ext_authz_grpc: Option<ExtAuthzGrpc>,
}

/// `envoyExtAuthzHttp`: a service that answers 200 to a copy of the request, or refuses it. Names of headers may have a
/// star at either end.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct ExtAuthzHttp {
    /// `<host>` or `<namespace>/<host>`.
    pub service: String,
    pub port: u16,
    #[serde(deserialize_with = "duration")]
    pub timeout: Option<Duration>,
    /// Whether requests pass when nobody answers.
    pub fail_open: bool,
    /// Status of requests that are refused because nobody answers, such as `"503"`.
    pub status_on_error: String,
    pub path_prefix: String,
    pub include_request_headers_in_check: Vec<String>,
    /// The older name of `includeRequestHeadersInCheck`.
    pub include_headers_in_check: Vec<String>,
    pub include_additional_headers_in_check: BTreeMap<String, String>,
    pub include_request_body_in_check: Option<RequestBody>,
    pub headers_to_upstream_on_allow: Vec<String>,
    pub headers_to_downstream_on_deny: Vec<String>,
    pub headers_to_downstream_on_allow: Vec<String>,
    pub clear_route_cache: bool,
}

/// `envoyExtAuthzGrpc`: a service that speaks Envoy's `envoy.service.auth.v3.Authorization`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct ExtAuthzGrpc {
    /// `<host>` or `<namespace>/<host>`.
    pub service: String,
    pub port: u16,
    #[serde(deserialize_with = "duration")]
    pub timeout: Option<Duration>,
    /// Whether requests pass when nobody answers.
    pub fail_open: bool,
    /// Status of requests that are refused because nobody answers, such as `"503"`.
    pub status_on_error: String,
    pub include_request_body_in_check: Option<RequestBody>,
    pub clear_route_cache: bool,
}

/// `includeRequestBodyInCheck`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct RequestBody {
    pub max_request_bytes: u32,
    pub allow_partial_message: bool,
    pub pack_as_bytes: bool,
}

/// What kind of service is asked.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum ExternalAuthorization<'a> {
    Http(&'a ExtAuthzHttp),
    Grpc(&'a ExtAuthzGrpc),
}

impl MeshConfig {
    /// The provider of this name; the first of several.
    pub fn provider(&self, name: &str) -> Option<&ExtensionProvider> {
        self.extension_providers.iter().find(|provider| provider.name == name)
    }
}

impl ExtensionProvider {
    /// The service that decides about requests. `None` for providers of something else, and for those with two forms.
    pub fn authorization(&self) -> Option<ExternalAuthorization<'_>> {
        match (&self.envoy_ext_authz_http, &self.envoy_ext_authz_grpc) {
            (Some(http), None) => Some(ExternalAuthorization::Http(http)),
            (None, Some(grpc)) => Some(ExternalAuthorization::Grpc(grpc)),
            (None, None) | (Some(_), Some(_)) => None,
        }
    }

    /// What is wrong with it: fields (such as `envoyExtAuthzHttp.port`), and what with each. One with any of that cannot
    /// be asked.
    pub fn mistakes(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        if self.name.is_empty() {
            found.push(("name".to_owned(), "the provider has no name".to_owned()));
        }
        if self.envoy_ext_authz_http.is_some() && self.envoy_ext_authz_grpc.is_some() {
            found.push((String::new(), "a provider is one thing only".to_owned()));
        }
        let Some(authorization) = self.authorization() else { return found };
        let form = authorization.field();
        let mut add = |field: &str, message: String| found.push((format!("{form}.{field}"), message));
        if authorization.service().is_empty() {
            add("service", "the service is missing".to_owned());
        }
        if authorization.port() == 0 {
            add("port", "the port is missing".to_owned());
        }
        if let Err(why) = authorization.status_on_error() {
            add("statusOnError", why);
        }
        if authorization.body().is_some_and(|body| body.max_request_bytes == 0) {
            add("includeRequestBodyInCheck.maxRequestBytes", "it is not a number of bytes".to_owned());
        }
        if let ExternalAuthorization::Http(http) = authorization {
            if !http.path_prefix.is_empty() && !http.path_prefix.starts_with('/') {
                add("pathPrefix", "it does not begin with a slash".to_owned());
            }
            let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
            for (name, value) in &http.include_additional_headers_in_check {
                let printable = |b: u8| b == b'\t' || (b >= b' ' && b != 0x7f);
                if name.is_empty() || !name.bytes().all(token) || !value.bytes().all(printable) {
                    add("includeAdditionalHeadersInCheck", format!("{name:?} is not a header"));
                }
            }
        }
        found
    }
}

impl<'a> ExternalAuthorization<'a> {
    /// The field that says so.
    pub fn field(self) -> &'static str {
        match self {
            Self::Http(_) => "envoyExtAuthzHttp",
            Self::Grpc(_) => "envoyExtAuthzGrpc",
        }
    }

    /// `<host>` or `<namespace>/<host>`.
    pub fn service(self) -> &'a str {
        match self {
            Self::Http(http) => &http.service,
            Self::Grpc(grpc) => &grpc.service,
        }
    }

    /// The port of the service.
    pub fn port(self) -> u16 {
        match self {
            Self::Http(http) => http.port,
            Self::Grpc(grpc) => grpc.port,
        }
    }

    /// Which part of bodies is sent along.
    pub fn body(self) -> Option<&'a RequestBody> {
        match self {
            Self::Http(http) => http.include_request_body_in_check.as_ref(),
            Self::Grpc(grpc) => grpc.include_request_body_in_check.as_ref(),
        }
    }

    /// The status of requests that are refused because nobody answers, if it is said.
    ///
    /// # Errors
    /// If it is none of those that Envoy knows (`envoy/type/v3/http_status.proto`).
    pub fn status_on_error(self) -> Result<Option<u16>, String> {
        let text = match self {
            Self::Http(http) => &http.status_on_error,
            Self::Grpc(grpc) => &grpc.status_on_error,
        };
        if text.is_empty() {
            return Ok(None);
        }
        match text.parse() {
            Ok(
                code @ (100
                | 102
                | 103
                | 200..=208
                | 226
                | 300..=305
                | 307
                | 308
                | 400..=417
                | 421..=424
                | 426
                | 428
                | 429
                | 431
                | 500..=508
                | 510
                | 511),
            ) => Ok(Some(code)),
            Ok(_) | Err(_) => Err(format!("\"{text}\" is not a status of HTTP that Envoy knows")),
        }
    }
}
