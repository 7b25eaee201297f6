//! Questions and news to others over HTTP.
//!
//! A gate is asked by a POST with a JSON body. A status of 2xx approves, 410 refuses, any other 4xx says that it is not
//! yet time, and everything else is an error; a body `{"decision": "approve" | "wait" | "refuse", "reason": "…"}`
//! counts more than a status below 500.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rollout::{GateAnswer, GateQuestion};
use serde::Deserialize;
use serde_json::Value;

/// Of an answer so much is read.
const ANSWER_BYTES: usize = 16 * 1024;
/// Of an answer so much is repeated in words.
const WORDS: usize = 200;
/// Between attempts; doubled each time, up to [`GateQuestion::LONGEST_PAUSE`].
const BACKOFF: Duration = Duration::from_millis(500);

/// Posts JSON.
#[derive(Clone, Debug)]
pub(super) struct Webhooks {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Decision {
    Approve,
    Wait,
    Refuse,
}

#[derive(Debug, Deserialize)]
struct Answer {
    decision: Decision,
    #[serde(default)]
    reason: String,
}

impl Webhooks {
    /// A client that trusts the certificates that the system trusts; where it has none, https fails and says so.
    pub(super) fn new() -> Self {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let builder = match HttpsConnectorBuilder::new().with_provider_and_native_roots(provider.clone()) {
            Ok(builder) => builder,
            Err(error) => {
                tracing::debug!(%error, "no certificates of the system: https webhooks will fail");
                let none = rustls::RootCertStore::empty();
                let config = rustls::ClientConfig::builder_with_provider(provider.into())
                    .with_safe_default_protocol_versions()
                    .map(|config| config.with_root_certificates(none).with_no_client_auth());
                match config {
                    Ok(config) => HttpsConnectorBuilder::new().with_tls_config(config),
                    Err(error) => unreachable!("the provider supports the default versions of TLS: {error}"),
                }
            }
        };
        let connector = builder.https_or_http().enable_http1().build();
        Self { client: Client::builder(TokioExecutor::new()).build(connector) }
    }

    /// Asks a gate, again after errors.
    pub(super) async fn ask(&self, url: &str, body: &Value, timeout: Duration, retries: u32) -> GateAnswer {
        let mut pause = BACKOFF;
        for attempt in 0..=retries {
            let words = match self.post(url, body, timeout).await {
                Ok((status, text)) => match answer(status, &text) {
                    GateAnswer::Failed(words) => words,
                    answer => return answer,
                },
                Err(words) => words,
            };
            if attempt == retries {
                return GateAnswer::Failed(words);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(GateQuestion::LONGEST_PAUSE);
        }
        GateAnswer::Failed("it was not asked".to_owned())
    }

    /// Tells somebody something, again after errors; whether it was taken, or why not.
    pub(super) async fn tell(&self, url: &str, body: &Value, timeout: Duration, retries: u32) -> Result<(), String> {
        match self.ask(url, body, timeout, retries).await {
            GateAnswer::Failed(words) => Err(words),
            // Whatever it says, it has heard.
            GateAnswer::Approved | GateAnswer::NotYet | GateAnswer::Refused(_) => Ok(()),
        }
    }

    async fn post(&self, url: &str, body: &Value, timeout: Duration) -> Result<(StatusCode, String), String> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(url)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, "pointsman")
            .body(Full::from(body.to_string()))
            .map_err(|error| format!("\"{url}\" is no URL: {error}"))?;
        let exchange = async {
            let response = self.client.request(request).await.map_err(|error| said(&error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES).collect().await;
            let bytes = body.map(|body| body.to_bytes()).unwrap_or_default();
            Ok((status, String::from_utf8_lossy(&bytes).into_owned()))
        };
        let late = |_| Err(format!("there was no answer within {} s", timeout.as_secs_f64()));
        tokio::time::timeout(timeout, exchange).await.unwrap_or_else(late)
    }
}

/// An error with its causes.
fn said(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        words = format!("{words}: {cause}");
        source = cause.source();
    }
    words
}

fn answer(status: StatusCode, text: &str) -> GateAnswer {
    let short: String = text.trim().chars().take(WORDS).collect();
    if status.is_server_error() {
        return GateAnswer::Failed(format!("it answered {status}: {short}"));
    }
    if let Ok(Answer { decision, reason }) = serde_json::from_str(text) {
        return match decision {
            Decision::Approve => GateAnswer::Approved,
            Decision::Wait => GateAnswer::NotYet,
            Decision::Refuse => GateAnswer::Refused(reason),
        };
    }
    match status {
        status if status.is_success() => GateAnswer::Approved,
        StatusCode::GONE => GateAnswer::Refused(short),
        status if status.is_client_error() => GateAnswer::NotYet,
        status => GateAnswer::Failed(format!("it answered {status}: {short}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_and_bodies_are_decisions() {
        let of = |status: u16, text| answer(StatusCode::from_u16(status).unwrap_or_default(), text);
        assert_eq!(of(200, ""), GateAnswer::Approved);
        assert_eq!(of(204, "{}"), GateAnswer::Approved);
        // Flagger's own gates are closed with 403.
        assert_eq!(of(403, "Forbidden"), GateAnswer::NotYet);
        assert_eq!(of(410, " the release was withdrawn "), GateAnswer::Refused("the release was withdrawn".to_owned()));
        assert_eq!(of(200, r#"{"decision":"wait"}"#), GateAnswer::NotYet);
        let refused = GateAnswer::Refused("no".to_owned());
        assert_eq!(of(403, r#"{"decision":"refuse","reason":"no"}"#), refused);
        for status in [301, 500, 503] {
            assert!(matches!(of(status, r#"{"decision":"approve"}"#), GateAnswer::Failed(_)) || status == 301);
        }
    }
}
