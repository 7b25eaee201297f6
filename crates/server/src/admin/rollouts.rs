//! Rollouts on the admin API.

mod outlook;

pub(super) use outlook::Outlook;

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::rejection::StringRejection;
use axum::extract::{FromRef, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use rollout::{ActError, Action, ActionError, Revision, Verb};
use tokio_util::sync::CancellationToken;

use super::audit::Deed;
use super::http::failure;
use crate::{Stopped, view};

/// However much happens, an event stream shows a rollout no more often than this.
const PAUSE: Duration = Duration::from_millis(50);
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Of an id, an actor or a reason so many characters are taken.
const LONGEST: usize = 1000;

/// The routes, for a router whose state has the outlook.
pub(super) fn routes<S>() -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    Outlook: FromRef<S>,
    CancellationToken: FromRef<S>,
{
    Router::new()
        .route("/api/v1/rollouts", get(all))
        .route("/api/v1/rollouts/{namespace}/{name}", get(one))
        .route("/api/v1/rollouts/{namespace}/{name}/events", get(events))
        .route("/api/v1/rollouts/{namespace}/{name}/actions", post(act))
}

async fn all(State(rollouts): State<Outlook>) -> Response {
    match rollouts.all().await {
        Ok(all) => Json(all).into_response(),
        Err(stopped) => unavailable(stopped),
    }
}

async fn one(State(rollouts): State<Outlook>, Path((namespace, name)): Path<(String, String)>) -> Response {
    match rollouts.one(&namespace, &name).await {
        Ok(Some(rollout)) => Json(rollout).into_response(),
        Ok(None) => unknown(&namespace, &name),
        Err(stopped) => unavailable(stopped),
    }
}

async fn act(
    State(rollouts): State<Outlook>,
    Extension(deed): Extension<Deed>,
    Path((namespace, name)): Path<(String, String)>,
    body: Result<String, StringRejection>,
) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(rejection) => return failure(rejection.status(), rejection.body_text(), "an action is a few words"),
    };
    let request = match serde_json::from_str::<view::RolloutRequest>(&body) {
        Ok(request) => request,
        Err(error) => {
            let hint = r#"such as {"verb": "promote", "actor": "alice", "reason": "looks good", "expectedStep": 2}"#;
            return failure(StatusCode::BAD_REQUEST, format!("this is no action: {error}"), hint);
        }
    };
    deed.by(&request.actor, &request.reason);
    deed.is(&request.verb, format!("deploymentintent/{namespace}/{name}"));
    let action = match action(request) {
        Ok(action) => action,
        Err((error, hint)) => return failure(StatusCode::BAD_REQUEST, error, hint),
    };
    match rollouts.act(&namespace, &name, action).await {
        Ok(Ok(rollout)) => Json(rollout).into_response(),
        Ok(Err(ActError::Unknown { .. })) => unknown(&namespace, &name),
        Ok(Err(error)) => {
            deed.is_refused(&error.to_string());
            let hint = match &error {
                ActError::Refused(ActionError::Moved { .. }) => "look at where it is now, and decide again",
                ActError::Over { .. } | ActError::Refused(ActionError::WrongRun { .. }) => "act on the current run",
                ActError::Refused(ActionError::IdTaken { .. }) => "give every action an id of its own",
                ActError::NoRun(_) => "a run begins when a revision appears",
                ActError::Refused(ActionError::NotNow { .. }) | ActError::Unknown { .. } => {
                    "GET the rollout says where it is"
                }
            };
            failure(StatusCode::CONFLICT, error.to_string(), hint)
        }
        Err(stopped) => unavailable(stopped),
    }
}

/// What somebody wants, as a run takes it.
///
/// # Errors
/// What is wrong with it, and a way out.
pub(crate) fn action(request: view::RolloutRequest) -> Result<Action, (String, &'static str)> {
    let view::RolloutRequest { verb, revision, variant, id, expected_step, actor, reason } = request;
    if [&id, &actor, &reason, &revision, &variant].iter().any(|text| text.chars().count() > LONGEST) {
        return Err((format!("a text of an action has more than {LONGEST} characters"), "say it in fewer words"));
    }
    if !variant.is_empty() && verb != "promote" {
        return Err((format!("\"{verb}\" takes no variant"), "promote names the variant that wins a test"));
    }
    let verb = match (&*verb, revision.is_empty()) {
        ("promote", true) if !variant.is_empty() => Verb::PromoteVariant(variant),
        ("promote", true) => Verb::Promote,
        ("promote-full", true) => Verb::PromoteFull,
        ("pause", true) => Verb::Pause,
        ("resume", true) => Verb::Resume,
        ("abort", true) => Verb::Abort,
        ("retry", true) => Verb::Retry,
        ("skip-step" | "skip", true) => Verb::SkipStep,
        ("roll-back-to" | "rollback-to", false) => Verb::RollbackTo(Revision::new(&revision)),
        ("roll-back-to" | "rollback-to", true) => {
            return Err(("roll-back-to which revision?".to_owned(), r#"say "revision""#));
        }
        (other, _) => {
            let known = "promote, promote-full, pause, resume, abort, retry, skip-step, roll-back-to with a revision";
            return Err((format!("\"{other}\" is not an action, or takes no revision"), known));
        }
    };
    let id = if id.is_empty() { fresh_id() } else { id };
    let actor = if actor.is_empty() { "somebody".to_owned() } else { actor };
    Ok(Action { id, run: String::new(), expected_step, actor, reason, verb })
}

/// Differs from every other of this process, and of any that was started at another time.
fn fresh_id() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static LAST: AtomicU64 = AtomicU64::new(0);
    let number = LAST.fetch_add(1, Ordering::Relaxed);
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{}-{number}", since.as_micros())
}

/// The rollout as it is, and again whenever anything about it is different. The id of an event stands for what it says:
/// who comes back with the last one is told only what is different from that, also by another process.
async fn events(
    State(rollouts): State<Outlook>,
    State(draining): State<CancellationToken>,
    headers: HeaderMap,
    Path((namespace, name)): Path<(String, String)>,
) -> Response {
    match rollouts.one(&namespace, &name).await {
        Ok(Some(_)) => {}
        Ok(None) => return unknown(&namespace, &name),
        Err(stopped) => return unavailable(stopped),
    }
    let mut news = rollouts.news();
    news.mark_changed();
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
    let start = (rollouts, news, draining, last);
    let stream = futures_util::stream::unfold(start, move |(rollouts, mut news, draining, shown)| {
        let (namespace, name) = (namespace.clone(), name.clone());
        async move {
            loop {
                tokio::select! {
                    changed = news.changed() => changed.ok()?,
                    () = draining.cancelled() => return None,
                }
                if !shown.is_empty() {
                    tokio::time::sleep(PAUSE).await;
                }
                let now = rollouts.one(&namespace, &name).await.ok()??;
                let text = serde_json::to_string(&now).ok()?;
                let id = format!("{:016x}", xxhash_rust::xxh3::xxh3_64(text.as_bytes()));
                if shown != id {
                    let frame = sse::Event::default().event("rollout").id(&id).data(text);
                    return Some((Ok::<_, Infallible>(frame), (rollouts, news, draining, id)));
                }
            }
        }
    });
    Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

fn unknown(namespace: &str, name: &str) -> Response {
    let error = format!("there is neither an intent nor a run \"{namespace}/{name}\"");
    failure(StatusCode::NOT_FOUND, error, "GET /api/v1/rollouts lists what there is")
}

fn unavailable(stopped: Stopped) -> Response {
    failure(StatusCode::SERVICE_UNAVAILABLE, stopped.to_string(), "ask again when it has been restarted")
}
