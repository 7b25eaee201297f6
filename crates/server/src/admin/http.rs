//! The admin API over HTTP.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRef, OriginalUri, Path, Query, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use proto::ResourceType;
use tokio_util::sync::CancellationToken;
use world::{ObjectPathError, ObjectRef};

use super::{Condition, Intents, NodeFilter, ObjectFilter, Page, Views, authority, intents, load, rollouts};
use crate::journal::EventFilter;
use crate::metrics::Metrics;
use crate::plane_task::PlaneHandle;
use crate::rollouts::RolloutsHandle;
use crate::rotation::Rotator;
use crate::view::{self, EventKind, Failure, ObjectState};
use crate::{Deadlines, LoadReports, Stopped};

/// A client that asks to wait for longer asks again.
const MOST_WAITED: Duration = Duration::from_secs(60);
/// How often an event stream says that it is alive when nothing happens.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

const NODE_STATES: [(&str, view::Sync); 5] = [
    ("synced", view::Sync::Synced),
    ("pending", view::Sync::Pending),
    ("rejected", view::Sync::Rejected),
    ("unknown", view::Sync::Unknown),
    ("disconnected", view::Sync::Disconnected),
];
const RESOURCE_STATES: [(&str, view::ResourceState); 3] = [
    ("accepted", view::ResourceState::Accepted),
    ("pending", view::ResourceState::Pending),
    ("rejected", view::ResourceState::Rejected),
];

const START_PAGE: &str = "\
pointsman

/healthz                     200 while the process runs
/readyz                      200 once the configuration has been read, 503 before and while shutting down
/metrics                     OpenMetrics
/api/v1/nodes                nodes and how far they are        ?id_prefix=&state=&limit=&after=
/api/v1/nodes/{id}           one node and its objects
/api/v1/nodes/{id}/config    what a node was sent              ?type=cds,lds
/api/v1/objects              objects and where they arrived    ?kind=&namespace=&name=&state=&limit=&after=
/api/v1/objects/{kind}/{namespace}/{name}
                             one object and its nodes          ?state=&limit=&after=
/api/v1/problems             everything that is wrong
/api/v1/changes              the last changes, with their times
/api/v1/changes/{generation} one change in full
/api/v1/events               what happens, as server-sent events  ?object=&node=&event=&after=
/api/v1/wait                 answers when something is so      ?for=accepted&object=&generation=&timeout=
                                                               ?for=synced&node=&timeout=
/api/v1/load                 what clients report about their traffic
/api/v1/load/{cluster}       one cluster, by client
/api/v1/load/settings        what clients are asked for; PUT changes it
/api/v1/rollouts             intents with their runs
/api/v1/rollouts/{namespace}/{name}
                             one, by the name of the intent or of a run
/api/v1/rollouts/{namespace}/{name}/events
                             the same whenever it is different, as server-sent events
/api/v1/rollouts/{namespace}/{name}/actions
                             POST promotes, pauses, aborts ...
/api/v1/authority            who signs certificates, what is trusted, which nodes lack something
/api/v1/authority/actions    POST begins a rotation of the root, advances it, or aborts it
/api/v1/intents              intents, profiles, freezes, runs     ?kind=&namespace=&name=
                             POST applies manifests               ?dry_run=&expected_generation=&actor=&reason=
/api/v1/intents/check        POST says what applying would come to
/api/v1/intents/events       the same whenever something is different, as server-sent events
/api/v1/intents/{kind}/{namespace}/{name}
                             one; PUT applies it, DELETE ends it
";

/// What it answers from.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) views: Views,
    pub(crate) plane: PlaneHandle,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) draining: CancellationToken,
    pub(crate) deadlines: Deadlines,
    pub(crate) loads: Arc<LoadReports>,
    pub(crate) rollouts: RolloutsHandle,
    pub(crate) intents: Intents,
    /// Conducts rotations of the root; only where there is an authority.
    pub(crate) rotator: Option<Rotator>,
}

impl FromRef<Admin> for Option<Rotator> {
    fn from_ref(admin: &Admin) -> Self {
        admin.rotator.clone()
    }
}

impl FromRef<Admin> for Intents {
    fn from_ref(admin: &Admin) -> Self {
        admin.intents.clone()
    }
}

impl FromRef<Admin> for rollouts::Outlook {
    fn from_ref(admin: &Admin) -> Self {
        Self::new(admin.rollouts.clone(), admin.plane.clone())
    }
}

impl FromRef<Admin> for CancellationToken {
    fn from_ref(admin: &Admin) -> Self {
        admin.draining.clone()
    }
}

impl FromRef<Admin> for Arc<LoadReports> {
    fn from_ref(admin: &Admin) -> Self {
        admin.loads.clone()
    }
}

/// Everything that the admin port serves over HTTP.
pub(crate) fn router(admin: Admin) -> Router {
    routes().with_state(admin)
}

/// The same without what it answers from.
fn routes() -> Router<Admin> {
    Router::new()
        .route("/", get(async || START_PAGE))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text))
        .route("/api/v1/nodes", get(nodes))
        .route("/api/v1/nodes/{id}/config", get(node_config))
        .route("/api/v1/nodes/{id}", get(node))
        .route("/api/v1/objects", get(objects))
        .route("/api/v1/objects/{*path}", get(object))
        .route("/api/v1/changes", get(changes))
        .route("/api/v1/changes/{generation}", get(change))
        .route("/api/v1/events", get(events))
        .route("/api/v1/wait", get(wait))
        .route("/api/v1/problems", get(problems))
        .merge(authority::routes())
        .merge(load::routes())
        .merge(rollouts::routes())
        .merge(intents::routes())
        .fallback(async |OriginalUri(uri): OriginalUri| {
            Refusal::new(
                StatusCode::NOT_FOUND,
                format!("there is nothing at \"{}\"", uri.path()),
                "GET / lists what there is",
            )
        })
        .method_not_allowed_fallback(async |method: Method, OriginalUri(uri): OriginalUri| {
            let error = format!("{method} is not possible at \"{}\"", uri.path());
            Refusal::new(
                StatusCode::METHOD_NOT_ALLOWED,
                error,
                "GET / lists what there is; what is not listed with another method is read-only",
            )
        })
}

async fn readyz(State(admin): State<Admin>) -> Response {
    if admin.draining.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n").into_response()
    } else if !admin.plane.is_synced() {
        (StatusCode::SERVICE_UNAVAILABLE, "not synchronised yet: the configuration is still being read\n")
            .into_response()
    } else {
        "ready\n".into_response()
    }
}

async fn metrics_text(State(admin): State<Admin>) -> Response {
    // While the plane compiles for long, its numbers are those of the last time; everything else is always new.
    if let Ok(Ok(counts)) = tokio::time::timeout(admin.deadlines.inspect, admin.plane.counts()).await {
        admin.metrics.set_counts(counts);
    }
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], admin.metrics.text()).into_response()
}

async fn nodes(State(admin): State<Admin>, Query(query): Query<BTreeMap<String, String>>) -> Result<Response, Refusal> {
    let [id_prefix, state, limit, after] = parameters(query, ["id_prefix", "state", "limit", "after"])?;
    let state = one_of("state", &state, &NODE_STATES)?;
    let filter = NodeFilter { id_prefix, state };
    Ok(Json(admin.views.nodes(filter, page(&limit, after)?).await).into_response())
}

async fn node(State(admin): State<Admin>, Path(id): Path<String>) -> Result<Response, Refusal> {
    match admin.views.node(&id).await {
        Ok(None) => Err(unknown_node(&id)),
        Ok(Some(node)) => Ok(Json(node).into_response()),
        Err(stopped) => Err(refusal_of(stopped)),
    }
}

async fn node_config(
    State(admin): State<Admin>,
    Path(id): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Result<Response, Refusal> {
    let [types] = parameters(query, ["type"])?;
    let wanted = resource_types(&types)?;
    let takes = move |resource_type| wanted.is_empty() || wanted.contains(&resource_type);
    match admin.views.node_config(&id, takes).await {
        Some(config) => Ok(Json(config).into_response()),
        None => Err(unknown_node(&id)),
    }
}

async fn objects(
    State(admin): State<Admin>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Result<Response, Refusal> {
    let known = ["kind", "namespace", "name", "state", "limit", "after"];
    let [kind, namespace, name, state, limit, after] = parameters(query, known)?;
    let state = one_of("state", &state, &ObjectState::ALL.map(|state| (state.as_str(), state)))?;
    let filter = ObjectFilter { kind, namespace, name, state };
    Ok(answer(admin.views.objects(filter, page(&limit, after)?).await))
}

async fn object(
    State(admin): State<Admin>,
    Path(path): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Result<Response, Refusal> {
    let [state, limit, after] = parameters(query, ["state", "limit", "after"])?;
    let state = one_of("state", &state, &RESOURCE_STATES)?;
    let reference = object_reference(&path)?;
    match admin.views.object(reference.clone(), state, page(&limit, after)?).await {
        Ok(Some(object)) => Ok(Json(object).into_response()),
        Ok(None) => {
            let error = format!("there is no object \"{}\"", reference.path());
            Err(Refusal::new(StatusCode::NOT_FOUND, error, "GET /api/v1/objects lists those that there are"))
        }
        Err(stopped) => Err(refusal_of(stopped)),
    }
}

async fn changes(State(admin): State<Admin>) -> Response {
    Json(admin.views.changes()).into_response()
}

async fn change(State(admin): State<Admin>, Path(generation): Path<String>) -> Result<Response, Refusal> {
    let number = generation.parse().map_err(|_| {
        let error = format!("\"{generation}\" is not the number of a change");
        Refusal::new(StatusCode::BAD_REQUEST, error, "changes are numbered from 1; GET /api/v1/changes lists the last")
    })?;
    match admin.views.change(number) {
        Some(change) => Ok(Json(change).into_response()),
        None => {
            let error = format!("change {number} is not among the last");
            Err(Refusal::new(StatusCode::NOT_FOUND, error, "GET /api/v1/changes lists the last 256"))
        }
    }
}

/// Waits on the server's side, so that nobody has to ask again and again.
async fn wait(State(admin): State<Admin>, Query(query): Query<BTreeMap<String, String>>) -> Result<Response, Refusal> {
    let known = ["for", "object", "generation", "node", "timeout"];
    let [condition, object, generation, node, timeout] = parameters(query, known)?;
    let bad = |error: String, hint: &str| Refusal::new(StatusCode::BAD_REQUEST, error, hint);
    let seconds = number("timeout", &timeout, 10.0_f64)?;
    if !(0.0..=MOST_WAITED.as_secs_f64()).contains(&seconds) {
        let hint = format!("seconds from 0 to {}; ask again to wait for longer", MOST_WAITED.as_secs());
        return Err(bad(format!("a timeout of \"{timeout}\" is not possible"), &hint));
    }
    let condition = match (&*condition, object.is_empty()) {
        ("accepted", false) => Condition::Accepted {
            object: object_reference(&object)?,
            generation: number("generation", &generation, 0)?,
        },
        ("accepted", true) => {
            return Err(bad("nothing to wait for".to_owned(), "say object=virtualservice/default/reviews"));
        }
        ("synced", _) => Condition::Synced { node: Some(node).filter(|node| !node.is_empty()) },
        (other, _) => return Err(bad(format!("nobody can wait for \"{other}\""), "for=accepted or for=synced")),
    };
    Ok(answer(admin.views.wait(condition, Duration::from_secs_f64(seconds)).await))
}

async fn events(
    State(admin): State<Admin>,
    headers: HeaderMap,
    Query(query): Query<BTreeMap<String, String>>,
) -> Result<Response, Refusal> {
    let [object, node, kinds, after] = parameters(query, ["object", "node", "event", "after"])?;
    let known = EventKind::ALL.map(|kind| (kind.as_str(), kind));
    let kinds = kinds.split(',').map(str::trim).filter(|kind| !kind.is_empty());
    let kinds = kinds.map(|kind| one_of("event", kind, &known)).collect::<Result<Vec<_>, _>>()?;
    let object = if object.is_empty() { object } else { object_reference(&object)?.path() };
    // The header is what browsers and other clients of event streams send when they come back.
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
    let after = if after.is_empty() { last } else { &after };
    let after = if after.is_empty() { None } else { Some(number("after", after, 0)?) };
    let feed = admin.views.events(EventFilter::new(object, node, kinds.into_iter().flatten().collect()), after);
    let events = futures_util::stream::unfold(feed, async |mut feed| Some((sse(&*feed.next().await?), feed)));
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

/// An event as `text/event-stream` has it.
fn sse(event: &view::Event) -> Result<sse::Event, axum::Error> {
    let frame = sse::Event::default().event(event.kind.as_str()).json_data(event)?;
    // Without a number the client goes on remembering the one before.
    Ok(if event.id == 0 { frame } else { frame.id(event.id.to_string()) })
}

async fn problems(State(admin): State<Admin>) -> Response {
    answer(admin.views.problems().await)
}

fn answer<T: serde::Serialize>(view: Result<T, Stopped>) -> Response {
    match view {
        Ok(view) => Json(view).into_response(),
        Err(stopped) => refusal_of(stopped).into_response(),
    }
}

/// The values of the parameters that are known, empty where one is not given.
pub(super) fn parameters<const N: usize>(
    mut query: BTreeMap<String, String>,
    known: [&str; N],
) -> Result<[String; N], Refusal> {
    let values = known.map(|name| query.remove(name).unwrap_or_default());
    match query.keys().next() {
        None => Ok(values),
        Some(unknown) => {
            let error = format!("the parameter \"{unknown}\" is not known here");
            Err(Refusal::new(StatusCode::BAD_REQUEST, error, format!("known parameters: {}", known.join(", "))))
        }
    }
}

/// One of these values by its name; `None` for an empty text.
fn one_of<T: Copy>(parameter: &str, text: &str, known: &[(&str, T)]) -> Result<Option<T>, Refusal> {
    let found = known.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
    if found.is_none() && !text.is_empty() {
        let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
        let error = format!("there is no {parameter} \"{text}\"");
        return Err(Refusal::new(StatusCode::BAD_REQUEST, error, format!("known: {}", names.join(", "))));
    }
    Ok(found)
}

fn number<T: FromStr>(parameter: &str, text: &str, default: T) -> Result<T, Refusal> {
    if text.is_empty() {
        return Ok(default);
    }
    text.parse().map_err(|_| {
        let error = format!("{parameter}=\"{text}\" is not a number");
        Refusal::new(StatusCode::BAD_REQUEST, error, format!("such as {parameter}=10"))
    })
}

/// How much of a list is wanted.
fn page(limit: &str, after: String) -> Result<Page, Refusal> {
    let limit = number("limit", limit, Page::default().limit)?;
    if limit == 0 {
        let error = "a list of 0 entries says nothing".to_owned();
        return Err(Refusal::new(StatusCode::BAD_REQUEST, error, "limit=1 or more"));
    }
    Ok(Page { after, limit })
}

fn object_reference(path: &str) -> Result<ObjectRef, Refusal> {
    let hint = "GET /api/v1/objects lists the objects that there are";
    path.parse().map_err(|error: ObjectPathError| Refusal::new(StatusCode::BAD_REQUEST, error.to_string(), hint))
}

/// Types by short names or type URLs, separated by commas.
fn resource_types(text: &str) -> Result<Vec<ResourceType>, Refusal> {
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    let find = |name: &str| {
        let short = ResourceType::ALL.into_iter().find(|known| known.short().eq_ignore_ascii_case(name));
        short.or_else(|| ResourceType::from_type_url(name)).ok_or_else(|| {
            let known: Vec<_> = ResourceType::ALL.iter().map(|known| known.short()).collect();
            let hint = format!("known types: {}, or their type URLs", known.join(", "));
            Refusal::new(StatusCode::BAD_REQUEST, format!("there is no type \"{name}\""), hint)
        })
    };
    names.map(find).collect()
}

fn unknown_node(id: &str) -> Refusal {
    let error = format!("no stream of a node \"{id}\" is open");
    Refusal::new(StatusCode::NOT_FOUND, error, "GET /api/v1/nodes lists the nodes that are connected")
}

fn refusal_of(stopped: Stopped) -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, stopped.to_string(), "ask again when it has been restarted")
}

/// Answers with a failure.
pub(super) fn failure(status: StatusCode, error: String, hint: &str) -> Response {
    Refusal::new(status, error, hint).into_response()
}

/// Why something is not answered.
#[derive(Debug)]
pub(super) struct Refusal(Box<(StatusCode, Failure)>);

impl Refusal {
    pub(super) fn new(status: StatusCode, error: String, hint: impl Into<String>) -> Self {
        Self(Box::new((status, Failure { error, hint: hint.into(), problems: Vec::new() })))
    }

    /// The same with what is wrong with objects.
    pub(super) fn with_problems(mut self, problems: Vec<view::Problem>) -> Self {
        self.0.1.problems = problems;
        self
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, failure) = *self.0;
        (status, Json(failure)).into_response()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Whoever looks for everything that is served looks there.
    #[test]
    fn the_start_page_lists_every_route() {
        let shown = format!("{:?}", routes());
        let (shown, _) = shown.split_once("fallback_router").unwrap();
        let routes: Vec<&str> = shown.split('"').filter(|text| text.starts_with('/')).collect();
        assert!(routes.len() > 20, "{routes:?}");
        let listed: Vec<&str> = START_PAGE.lines().filter_map(|line| line.split_whitespace().next()).collect();
        for route in routes {
            let named = route.replace("{*path}", "{kind}/{namespace}/{name}");
            assert!(named == "/" || listed.contains(&&*named), "{route}");
        }
    }
}
