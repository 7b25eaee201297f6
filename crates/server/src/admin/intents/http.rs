//! Intents over HTTP.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::rejection::StringRejection;
use axum::extract::{FromRef, Path, Query, State};
use axum::http::StatusCode;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use world::{Application, Deletion, ObjectRef, Refusal, Submission};

use super::{IntentFilter, Intents, kind_named, taken};
use crate::admin::audit::Deed;
use crate::admin::http::{Refusal as Failed, parameters};
use crate::{Stopped, view};

const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The routes, for a router whose state has them.
pub(in crate::admin) fn routes<S>() -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    Intents: FromRef<S>,
{
    Router::new()
        .route("/api/v1/intents", get(all).post(apply))
        .route("/api/v1/intents/events", get(events))
        .route("/api/v1/intents/{kind}/{namespace}/{name}", get(one).put(put).delete(delete))
        .route("/api/v1/intents/check", post(check))
}

type Parameters = Query<BTreeMap<String, String>>;

async fn all(State(intents): State<Intents>, Query(query): Parameters) -> Result<Response, Failed> {
    let filter = filter(query)?;
    Ok(Json(intents.list(&filter).await.map_err(unavailable)?).into_response())
}

async fn one(State(intents): State<Intents>, Path(path): Path<[String; 3]>) -> Result<Response, Failed> {
    let reference = reference(&path)?;
    match intents.one(&reference).await {
        Ok(Some(object)) => Ok(Json(object).into_response()),
        Ok(None) => Err(refused(&Refusal::NotFound(reference))),
        Err(stopped) => Err(unavailable(stopped)),
    }
}

/// What an action on an object says beside the object.
struct Asked {
    expected_generation: Option<i64>,
    is_dry_run: bool,
}

/// What the query says, of which the deed takes actor and reason.
fn asked(query: BTreeMap<String, String>, deed: &Deed) -> Result<Asked, Failed> {
    let known = ["expected_generation", "dry_run", "actor", "reason"];
    let [expected, dry_run, actor, reason] = parameters(query, known)?;
    deed.by(&actor, &reason);
    let bad = |error: String, hint: &str| Failed::new(StatusCode::BAD_REQUEST, error, hint);
    let expected_generation = match &*expected {
        "" => None,
        text => Some(text.parse().map_err(|_| {
            bad(format!("expected_generation=\"{text}\" is no number"), "0 for an object that must not exist")
        })?),
    };
    let is_dry_run = match &*dry_run {
        "" | "false" => false,
        "true" => true,
        text => return Err(bad(format!("dry_run=\"{text}\" is neither true nor false"), "dry_run=true")),
    };
    Ok(Asked { expected_generation, is_dry_run })
}

async fn apply(
    State(intents): State<Intents>,
    Extension(deed): Extension<Deed>,
    Query(query): Parameters,
    body: Result<String, StringRejection>,
) -> Result<Response, Failed> {
    let Asked { expected_generation, is_dry_run } = asked(query, &deed)?;
    let document = document(body)?;
    submit(&intents, &deed, Submission::Apply(Application { document, only: None, expected_generation, is_dry_run }))
        .await
}

/// What [`apply`] would answer, for whoever may only read.
async fn check(
    State(intents): State<Intents>,
    Query(query): Parameters,
    body: Result<String, StringRejection>,
) -> Result<Response, Failed> {
    let [] = parameters(query, [])?;
    let application = Application { document: document(body)?, is_dry_run: true, ..Application::default() };
    submit(&intents, &Deed::default(), Submission::Apply(application)).await
}

async fn put(
    State(intents): State<Intents>,
    Extension(deed): Extension<Deed>,
    Path(path): Path<[String; 3]>,
    Query(query): Parameters,
    body: Result<String, StringRejection>,
) -> Result<Response, Failed> {
    let Asked { expected_generation, is_dry_run } = asked(query, &deed)?;
    let only = Some(reference(&path)?);
    let document = document(body)?;
    submit(&intents, &deed, Submission::Apply(Application { document, only, expected_generation, is_dry_run })).await
}

async fn delete(
    State(intents): State<Intents>,
    Extension(deed): Extension<Deed>,
    Path(path): Path<[String; 3]>,
    Query(query): Parameters,
) -> Result<Response, Failed> {
    let Asked { expected_generation, is_dry_run } = asked(query, &deed)?;
    let reference = reference(&path)?;
    submit(&intents, &deed, Submission::Delete(Deletion { reference, expected_generation, is_dry_run })).await
}

async fn submit(intents: &Intents, deed: &Deed, submission: Submission) -> Result<Response, Failed> {
    deed.is_submission(&submission);
    match intents.submit(submission).await {
        Ok(acceptance) => {
            deed.has_taken(&acceptance);
            Ok(Json(taken(&acceptance)).into_response())
        }
        Err(refusal) => {
            deed.is_refused(&refusal.to_string());
            Err(refused(&refusal))
        }
    }
}

async fn events(State(intents): State<Intents>, Query(query): Parameters) -> Result<Response, Failed> {
    let feed = intents.watch(filter(query)?);
    let events = futures_util::stream::unfold(feed, async |mut feed| {
        let event = feed.next().await?;
        Some((sse::Event::default().event(event.change.as_str()).json_data(&event), feed))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

fn filter(query: BTreeMap<String, String>) -> Result<IntentFilter, Failed> {
    let known = parameters(query, ["kind", "namespace", "name"]);
    let [kind, namespace, name] = known?;
    let kind = match &*kind {
        "" => None,
        text => Some(kind_named(text).map_err(bad_kind)?),
    };
    Ok(IntentFilter { kind, namespace, name })
}

fn reference([kind, namespace, name]: &[String; 3]) -> Result<ObjectRef, Failed> {
    Ok(ObjectRef::new(kind_named(kind).map_err(bad_kind)?, namespace, name))
}

fn bad_kind(error: String) -> Failed {
    Failed::new(StatusCode::BAD_REQUEST, error, "such as /api/v1/intents/deploymentintent/shop/web")
}

fn document(body: Result<String, StringRejection>) -> Result<String, Failed> {
    body.map_err(|rejection| {
        Failed::new(rejection.status(), rejection.body_text(), "send manifests in YAML or JSON, of at most 2 MB")
    })
}

/// Why it was not taken.
fn refused(refusal: &Refusal) -> Failed {
    let status = match refusal {
        Refusal::Invalid(_) => StatusCode::BAD_REQUEST,
        Refusal::NotFound(_) => StatusCode::NOT_FOUND,
        Refusal::Owned { .. } | Refusal::Moved { .. } | Refusal::NoState => StatusCode::CONFLICT,
        Refusal::NotStored(_) | Refusal::Busy | Refusal::Nobody => StatusCode::SERVICE_UNAVAILABLE,
    };
    let problems = match refusal {
        Refusal::Invalid(problems) => problems.iter().map(view::Problem::from).collect(),
        _ => Vec::new(),
    };
    Failed::new(status, refusal.to_string(), refusal.hint()).with_problems(problems)
}

fn unavailable(stopped: Stopped) -> Failed {
    Failed::new(StatusCode::SERVICE_UNAVAILABLE, stopped.to_string(), "ask again when it has been restarted")
}
