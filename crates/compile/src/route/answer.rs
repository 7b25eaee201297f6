//! Answers that the proxy gives itself: redirects, direct responses, and refusals with their reason.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proto::pb::envoy::config::core::v3::DataSource;
use proto::pb::envoy::config::core::v3::data_source::Specifier;
use proto::pb::envoy::config::route::v3::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};
use proto::pb::envoy::config::route::v3::{DirectResponseAction, RedirectAction, route};
use world::api::istio::{DirectResponse, Redirect};

use super::configuration::MAX_BODY_BYTES;
use super::headers::is_sendable;

/// Why an answer cannot be given: the field below the entry, and what is wrong with it.
pub(super) type Refused = (&'static str, String);

/// A status without a body.
pub(super) fn status(status: u32) -> route::Action {
    route::Action::DirectResponse(DirectResponseAction { status, body: None, body_format: None })
}

/// 503 with the reason as its body.
pub(super) fn refusal(reason: &str) -> route::Action {
    let mut reason = reason.to_owned();
    // Names in it come from users, who may write long ones; Envoy refuses more than this.
    while reason.len() >= MAX_BODY_BYTES as usize {
        reason.pop();
    }
    reason.push('\n');
    with_body(503, Some(Specifier::InlineString(reason)))
}

fn with_body(status: u32, body: Option<Specifier>) -> route::Action {
    let body = body.map(|specifier| DataSource { specifier: Some(specifier), watched_directory: None });
    route::Action::DirectResponse(DirectResponseAction { status, body, body_format: None })
}

/// `http[].directResponse`.
///
/// # Errors
/// Why it cannot be done.
pub(super) fn direct(text: &DirectResponse) -> Result<route::Action, Refused> {
    if !(200..600).contains(&text.status) {
        let message = format!("status {} is not within 200 to 599", text.status);
        return Err((".directResponse.status", message));
    }
    let body = match text.body.as_ref().map(|body| (&body.string, &body.bytes)) {
        None | Some((None, None)) => None,
        Some((Some(text), None)) => Some(Specifier::InlineString(text.clone())),
        Some((None, Some(encoded))) => {
            let decoded = STANDARD
                .decode(encoded.trim())
                .map_err(|error| (".directResponse.body.bytes", format!("not valid base64: {error}")))?;
            Some(Specifier::InlineBytes(decoded))
        }
        Some((Some(_), Some(_))) => {
            return Err((".directResponse.body", "only one of string and bytes can be given".to_owned()));
        }
    };
    let bytes = match &body {
        Some(Specifier::InlineString(text)) => text.len(),
        Some(Specifier::InlineBytes(bytes)) => bytes.len(),
        Some(Specifier::Filename(_) | Specifier::EnvironmentVariable(_)) | None => 0,
    };
    if bytes > MAX_BODY_BYTES as usize {
        let message = format!("{bytes} bytes are more than the {MAX_BODY_BYTES} that are allowed");
        return Err((".directResponse.body", message));
    }
    Ok(with_body(text.status, body))
}

/// `http[].redirect`, for requests that came to `port`.
///
/// # Errors
/// Why it cannot be done.
pub(super) fn redirect(text: &Redirect, port: u16) -> Result<route::Action, Refused> {
    let sendable = |field: &'static str, value: &Option<String>| match value {
        Some(value) if !is_sendable(value) => Err((field, "not a valid header value".to_owned())),
        Some(value) => Ok(value.clone()),
        None => Ok(String::new()),
    };
    let host_redirect = sendable(".redirect.authority", &text.authority)?;
    let path = sendable(".redirect.uri", &text.uri)?;
    let prefix = sendable(".redirect.prefixRewrite", &text.prefix_rewrite)?;
    let scheme = sendable(".redirect.scheme", &text.scheme)?;
    let response_code = match text.redirect_code {
        None | Some(0 | 301) => RedirectResponseCode::MovedPermanently,
        Some(302) => RedirectResponseCode::Found,
        Some(303) => RedirectResponseCode::SeeOther,
        Some(307) => RedirectResponseCode::TemporaryRedirect,
        Some(308) => RedirectResponseCode::PermanentRedirect,
        Some(other) => {
            let message = format!("{other} is not one of 301, 302, 303, 307 and 308");
            return Err((".redirect.redirectCode", message));
        }
    };
    let target_port = match (text.port, text.derive_port.as_deref()) {
        (Some(port), _) => Some(port),
        (None, Some("FROM_REQUEST_PORT")) => Some(port),
        (None, None | Some("" | "FROM_PROTOCOL_DEFAULT")) => None,
        (None, Some(other)) => {
            let message = format!("\"{other}\" is neither FROM_PROTOCOL_DEFAULT nor FROM_REQUEST_PORT");
            return Err((".redirect.derivePort", message));
        }
    };
    // The scheme's own port goes unsaid where the host is replaced; where the request's host stays, it may carry
    // another port that must be replaced.
    let default_port = if scheme == "https" { 443 } else { 80 };
    let unsaid = target_port == Some(default_port) && !host_redirect.is_empty();
    let path_rewrite_specifier = if !path.is_empty() {
        Some(PathRewriteSpecifier::PathRedirect(path))
    } else if !prefix.is_empty() {
        Some(PathRewriteSpecifier::PrefixRewrite(prefix))
    } else {
        None
    };
    Ok(route::Action::Redirect(RedirectAction {
        host_redirect,
        port_redirect: target_port.filter(|_| !unsaid).map(u32::from).unwrap_or(0),
        response_code: response_code.into(),
        strip_query: false,
        scheme_rewrite_specifier: (!scheme.is_empty()).then_some(SchemeRewriteSpecifier::SchemeRedirect(scheme)),
        path_rewrite_specifier,
    }))
}
