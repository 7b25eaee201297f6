//! The authority on the admin API.

use axum::extract::{FromRef, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use identity::Stage;

use super::audit::Deed;
use super::http::failure;
use crate::rotation::{self, Refusal, Rotator};
use crate::trust::{Actor, StepError};
use crate::view;

/// Of an actor or a reason so many characters are taken.
const LONGEST: usize = 1000;

/// The routes, for a router whose state has what conducts rotations, if there is an authority.
pub(super) fn routes<S>() -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    Option<Rotator>: FromRef<S>,
{
    Router::new().route("/api/v1/authority", get(status)).route("/api/v1/authority/actions", post(act))
}

async fn status(State(rotator): State<Option<Rotator>>) -> Response {
    match rotator {
        Some(rotator) => Json(rotator.status().await).into_response(),
        None => none(),
    }
}

async fn act(State(rotator): State<Option<Rotator>>, Extension(deed): Extension<Deed>, body: String) -> Response {
    let Some(rotator) = rotator else { return none() };
    let request = match serde_json::from_str::<view::AuthorityRequest>(&body) {
        Ok(request) => request,
        Err(error) => {
            let hint = r#"such as {"action": "advance", "stage": "distributing", "actor": "alice"}"#;
            return failure(StatusCode::BAD_REQUEST, format!("this is no action: {error}"), hint);
        }
    };
    let view::AuthorityRequest { action, stage, force, actor, reason } = request;
    if [&actor, &reason].iter().any(|text| text.chars().count() > LONGEST) {
        let error = format!("a text of an action has more than {LONGEST} characters");
        return failure(StatusCode::BAD_REQUEST, error, "say it in fewer words");
    }
    deed.by(&actor, &reason);
    deed.is(&action, "authority".to_owned());
    let name = if actor.is_empty() { "somebody".to_owned() } else { actor };
    let actor = Actor { name, reason, forced_over: None };
    let stage = [Stage::Distributing, Stage::Reissuing].into_iter().find(|known| rotation::name(*known) == stage);
    let done = match (&*action, stage) {
        ("begin", _) => rotator.begin(actor).await,
        ("abort", _) => rotator.abort(actor).await,
        ("advance", Some(stage)) => rotator.advance(stage, force, actor).await,
        ("advance", None) => {
            let error = "advance from which stage?".to_owned();
            return failure(StatusCode::BAD_REQUEST, error, r#"say "stage": "distributing" or "reissuing""#);
        }
        (other, _) => {
            let error = format!("\"{}\" is not an action", other.escape_debug());
            return failure(StatusCode::BAD_REQUEST, error, "known: begin, advance, abort");
        }
    };
    if let Err(refusal) = &done {
        deed.is_refused(&refusal.to_string());
    }
    match done {
        Ok(authority) => Json(authority).into_response(),
        Err(Refusal::Lacking(status)) => {
            let error = Refusal::Lacking(status).to_string();
            failure(StatusCode::CONFLICT, error, "GET /api/v1/authority says who; \"force\": true goes on all the same")
        }
        Err(Refusal::Step(StepError::State(error))) => {
            tracing::error!(%error, action, "a step of the authority failed: everything is as it was");
            let hint = "look at the state directory, its permissions and the space that is left, then try again";
            failure(StatusCode::INTERNAL_SERVER_ERROR, error.to_string(), hint)
        }
        Err(Refusal::Step(error)) => {
            failure(StatusCode::CONFLICT, error.to_string(), "GET /api/v1/authority says where it is")
        }
    }
}

fn none() -> Response {
    let error = "this server has no authority: it serves nothing over TLS".to_owned();
    failure(StatusCode::NOT_FOUND, error, "start it with --xds-tls-listen and --state-dir")
}
