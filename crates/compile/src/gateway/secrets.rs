//! Secrets that a server names, and that are not there, or do not have what it needs.

use world::api::istio::ServerTls;
use world::{Object, PairState, Problem, SecretState};

use super::GatewayInput;
use super::ports::field;
use super::tls::Ended;
use crate::security::{authorities_of, secret_of};

/// What such a server does.
const SHUT: &str = "a gateway that connects now opens the server after 15 seconds without it, and refuses every handshake until \
     it is there; one that has it goes on with it";
/// What a server does whose authorities are not there.
const NOBODY: &str =
    "a gateway that connects now refuses every handshake until they are there; one that has them goes on with them";

/// What is wrong with the secrets that a server asks for. Nothing while nobody has said which there are.
pub(super) fn problems(
    input: &GatewayInput<'_>,
    gateway: &Object,
    index: usize,
    tls: &ServerTls,
    ended: &Ended,
) -> Vec<Problem> {
    let shown = if tls.credential_names.is_empty() { "tls.credentialName" } else { "tls.credentialNames" };
    let namespace = &input.audience.namespace;
    let problem = |part: &str, message: String, consequence: &str, hint: String| {
        Problem::error(&gateway.reference, field(index, part), message)
            .consequence(consequence)
            .hint(hint)
            .at(gateway.meta.location.clone())
    };
    let mut problems = Vec::new();
    for name in ended.shown().iter().map(|name| secret_of(name)) {
        let pair = match (input.secrets)(name) {
            SecretState::Untold => continue,
            SecretState::Missing => {
                Err(format!("there is no Secret \"{name}\" in the namespace \"{namespace}\" that can be used"))
            }
            SecretState::There(parts) => {
                parts.pair.ok_or_else(|| format!("the Secret \"{namespace}/{name}\" has no certificate with its key"))
            }
        };
        match pair {
            Ok(PairState::Holds) => {}
            Ok(PairState::Expired) => problems.push(problem(
                shown,
                format!("the certificate of the Secret \"{namespace}/{name}\" has expired"),
                "clients that look at it refuse the connection",
                format!("Renew the certificate in the Secret \"{namespace}/{name}\"."),
            )),
            Err(message) => problems.push(problem(
                shown,
                message,
                SHUT,
                format!("Give the Secret \"{namespace}/{name}\" a certificate (tls.crt) and its key (tls.key): the namespace is that of the gateway's workload."),
            )),
        }
    }
    if let Some(name) = ended.authorities().map(secret_of) {
        let own = authorities_of(name);
        let states = [(input.secrets)(&own), (input.secrets)(name)];
        let has = |state: &SecretState| match state {
            SecretState::Untold => true,
            SecretState::Missing => false,
            SecretState::There(parts) => parts.has_authorities,
        };
        if !states.iter().any(has) {
            problems.push(problem(
                if tls.ca_cert_credential_name.is_some() { "tls.caCertCredentialName" } else { shown },
                format!("neither the Secret \"{namespace}/{own}\" nor \"{namespace}/{name}\" has authorities that clients are verified by"),
                NOBODY,
                format!("Put them into one of the two as ca.crt (\"{own}\" may also have them as cacert)."),
            ));
        }
    }
    problems
}
