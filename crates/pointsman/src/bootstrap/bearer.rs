//! The bearer token of an Envoy.
//!
//! It is a secret of Envoy's, which a filter in the cluster of the server puts into every call: Envoy's `/config_dump` shows
//! secrets as `[redacted]`, but the `initial_metadata` of a gRPC service as it is (seen with 1.40).

use serde_json::{Value, json};

/// What the secret is called.
const SECRET: &str = "xds-token";

/// Has the Envoy of this bootstrap bring the token in every call over its first cluster.
pub(super) fn bring(bootstrap: &mut Value, token: &str) {
    let value = json!({ "secret": { "inline_string": format!("Bearer {token}") } });
    bootstrap["static_resources"]["secrets"] = json!([{ "name": SECRET, "generic_secret": value }]);
    let http = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let options = &mut bootstrap["static_resources"]["clusters"][0]["typed_extension_protocol_options"][http];
    options["http_filters"] = json!([
        { "name": "envoy.filters.http.credential_injector", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.credential_injector.v3.CredentialInjector",
            "overwrite": true,
            "credential": { "name": "envoy.http.injected_credentials.generic", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.http.injected_credentials.generic.v3.Generic",
                "credential": { "name": SECRET },
                "header": "authorization",
            } },
        } },
        { "name": "envoy.filters.http.upstream_codec", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec",
        } },
    ]);
}
