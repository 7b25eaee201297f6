//! Envoy's command operators (`%REQ(x-user)%`) in header values.
//!
//! Envoy refuses a route whose header value holds a `%` that begins no operator it knows, so a plain `100%` would stop
//! everything else in the same response.

/// Whether Envoy would take the value: every `%` belongs to `%%` or to a known operator. Operators and which of them
/// take arguments: `docs/root/configuration/advanced/substitution_formatter.rst` of Envoy 1.40.
pub(super) fn is_valid(value: &str) -> bool {
    let mut rest = value;
    while let Some(at) = rest.find('%') {
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            rest = after;
            continue;
        }
        match operator(rest) {
            Some(after) => rest = after,
            None => return false,
        }
    }
    true
}

/// The value with every `%` doubled, which Envoy sends as it was.
pub(super) fn literal(value: &str) -> String {
    value.replace('%', "%%")
}

/// Reads `NAME`, `NAME(arguments)`, either with `:length`, and the closing `%`; the rest of the text.
fn operator(text: &str) -> Option<&str> {
    let end = text.find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))?;
    let (name, mut rest) = text.split_at(end);
    let mut arguments = None;
    if let Some(after) = rest.strip_prefix('(') {
        let close = after.find(')')?;
        arguments = Some(&after[..close]);
        rest = &after[close + 1..];
    }
    if let Some(after) = rest.strip_prefix(':') {
        let digits = after.find(|c: char| !c.is_ascii_digit())?;
        if !(1..=5).contains(&digits) {
            return None;
        }
        rest = &after[digits..];
    }
    let given = arguments.is_some_and(|text| !text.is_empty());
    let known = (WITHOUT_ARGUMENTS.contains(&name) && arguments.is_none())
        || (WITH_ARGUMENTS.contains(&name) && given)
        || (MAYBE_WITH_ARGUMENTS.contains(&name) && (given || arguments.is_none()));
    if known { rest.strip_prefix('%') } else { None }
}

const WITH_ARGUMENTS: [&str; 9] = [
    "REQ",
    "RESP",
    "TRAILER",
    "REQUEST_HEADER",
    "RESPONSE_HEADER",
    "RESPONSE_TRAILER",
    "DYNAMIC_METADATA",
    "FILTER_STATE",
    "ENVIRONMENT",
];

const MAYBE_WITH_ARGUMENTS: [&str; 1] = ["START_TIME"];

const WITHOUT_ARGUMENTS: [&str; 43] = [
    "PROTOCOL",
    "REQUEST_DURATION",
    "RESPONSE_CODE",
    "RESPONSE_CODE_DETAILS",
    "RESPONSE_FLAGS",
    "RESPONSE_FLAGS_LONG",
    "CONNECTION_TERMINATION_DETAILS",
    "BYTES_RECEIVED",
    "BYTES_SENT",
    "DURATION",
    "ROUTE_NAME",
    "VIRTUAL_CLUSTER_NAME",
    "HOSTNAME",
    "STREAM_ID",
    "CONNECTION_ID",
    "REQUESTED_SERVER_NAME",
    "UPSTREAM_HOST",
    "UPSTREAM_CLUSTER",
    "UPSTREAM_LOCAL_ADDRESS",
    "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    "UPSTREAM_LOCAL_PORT",
    "UPSTREAM_REMOTE_ADDRESS",
    "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    "UPSTREAM_REMOTE_PORT",
    "UPSTREAM_REQUEST_ATTEMPT_COUNT",
    "UPSTREAM_TRANSPORT_FAILURE_REASON",
    "DOWNSTREAM_LOCAL_ADDRESS",
    "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_LOCAL_PORT",
    "DOWNSTREAM_LOCAL_SUBJECT",
    "DOWNSTREAM_LOCAL_URI_SAN",
    "DOWNSTREAM_REMOTE_ADDRESS",
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_REMOTE_PORT",
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS",
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_PEER_SUBJECT",
    "DOWNSTREAM_PEER_ISSUER",
    "DOWNSTREAM_PEER_URI_SAN",
    "DOWNSTREAM_PEER_SERIAL",
    "DOWNSTREAM_PEER_FINGERPRINT_256",
    "DOWNSTREAM_PEER_CERT",
    "DOWNSTREAM_TLS_VERSION",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_that_envoy_knows_are_valid() {
        for value in [
            "plain",
            "100%%",
            "%REQ(x-user)%",
            "a %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% b %START_TIME%",
            "%START_TIME(%s)%",
            "%REQ(:authority):10%",
        ] {
            assert!(is_valid(value), "{value}");
        }
    }

    #[test]
    fn everything_else_with_a_percent_sign_is_not() {
        for value in
            ["100%", "%", "%20%", "%req(x)%", "%REQ%", "%REQ()%", "%UNKNOWN%", "%PROTOCOL(x)%", "%REQ(x", "%%%"]
        {
            assert!(!is_valid(value), "{value}");
            assert!(is_valid(&literal(value)), "{value}");
        }
    }
}
