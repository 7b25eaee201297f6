//! The admin API over HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{FromRef, OriginalUri, Path, Query, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use proto::ResourceType;
use tokio_util::sync::CancellationToken;

use super::{ObjectFilter, Views, load};
use crate::metrics::Metrics;
use crate::plane_task::PlaneHandle;
use crate::view::Failure;
use crate::{Deadlines, LoadReports, Stopped};

const START_PAGE: &str = "\
pointsman

/healthz                     200 while the process runs
/readyz                      200 once the configuration has been read, 503 before and while shutting down
/metrics                     OpenMetrics
/api/v1/nodes                connected nodes          ?id_prefix=
/api/v1/nodes/{id}/config    what a node was sent     ?type=cds,lds
/api/v1/objects              objects and their nodes  ?kind=&namespace=&name=
/api/v1/problems             everything that is wrong
/api/v1/load                 what clients report about their traffic
/api/v1/load/{cluster}       one cluster, by client
/api/v1/load/settings        what clients are asked for; PUT changes it
";

#[derive(Clone)]
struct Admin {
    views: Views,
    plane: PlaneHandle,
    metrics: Arc<Metrics>,
    draining: CancellationToken,
    deadlines: Deadlines,
    loads: Arc<LoadReports>,
}

impl FromRef<Admin> for Arc<LoadReports> {
    fn from_ref(admin: &Admin) -> Self {
        admin.loads.clone()
    }
}

/// Everything that the admin port serves.
pub(crate) fn router(
    views: Views,
    plane: PlaneHandle,
    metrics: Arc<Metrics>,
    draining: CancellationToken,
    deadlines: Deadlines,
    loads: Arc<LoadReports>,
) -> Router {
    Router::new()
        .route("/", get(async || START_PAGE))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text))
        .route("/api/v1/nodes", get(nodes))
        .route("/api/v1/nodes/{id}/config", get(node_config))
        .route("/api/v1/objects", get(objects))
        .route("/api/v1/problems", get(problems))
        .merge(load::routes())
        .fallback(async |OriginalUri(uri): OriginalUri| {
            failure(
                StatusCode::NOT_FOUND,
                format!("there is nothing at \"{}\"", uri.path()),
                "GET / lists what there is",
            )
        })
        .method_not_allowed_fallback(async |method: Method, OriginalUri(uri): OriginalUri| {
            let error = format!("{method} is not possible at \"{}\"", uri.path());
            failure(
                StatusCode::METHOD_NOT_ALLOWED,
                error,
                "GET / lists what there is; what is not listed with another method is read-only",
            )
        })
        .with_state(Admin { views, plane, metrics, draining, deadlines, loads })
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

async fn nodes(State(admin): State<Admin>, Query(query): Query<BTreeMap<String, String>>) -> Response {
    match parameters(query, ["id_prefix"]) {
        Ok([id_prefix]) => Json(admin.views.nodes(&id_prefix).await).into_response(),
        Err(response) => *response,
    }
}

async fn node_config(
    State(admin): State<Admin>,
    Path(id): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    let wanted = match parameters(query, ["type"]).and_then(|[types]| resource_types(&types)) {
        Ok(wanted) => wanted,
        Err(response) => return *response,
    };
    let takes = move |resource_type| wanted.is_empty() || wanted.contains(&resource_type);
    match admin.views.node_config(&id, takes).await {
        Some(config) => Json(config).into_response(),
        None => {
            let error = format!("no stream of a node \"{id}\" is open");
            failure(StatusCode::NOT_FOUND, error, "GET /api/v1/nodes lists the nodes that are connected")
        }
    }
}

async fn objects(State(admin): State<Admin>, Query(query): Query<BTreeMap<String, String>>) -> Response {
    match parameters(query, ["kind", "namespace", "name"]) {
        Ok([kind, namespace, name]) => answer(admin.views.objects(ObjectFilter { kind, namespace, name }).await),
        Err(response) => *response,
    }
}

async fn problems(State(admin): State<Admin>) -> Response {
    answer(admin.views.problems().await)
}

fn answer<T: serde::Serialize>(view: Result<T, Stopped>) -> Response {
    match view {
        Ok(view) => Json(view).into_response(),
        Err(Stopped) => {
            failure(StatusCode::SERVICE_UNAVAILABLE, Stopped.to_string(), "ask again when it has been restarted")
        }
    }
}

/// The values of the parameters that are known, empty where one is not given.
fn parameters<const N: usize>(
    mut query: BTreeMap<String, String>,
    known: [&str; N],
) -> Result<[String; N], Box<Response>> {
    let values = known.map(|name| query.remove(name).unwrap_or_default());
    match query.keys().next() {
        None => Ok(values),
        Some(unknown) => {
            let error = format!("the parameter \"{unknown}\" is not known here");
            Err(Box::new(failure(StatusCode::BAD_REQUEST, error, &format!("known parameters: {}", known.join(", ")))))
        }
    }
}

/// Types by short names or type URLs, separated by commas.
fn resource_types(text: &str) -> Result<Vec<ResourceType>, Box<Response>> {
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    let find = |name: &str| {
        let short = ResourceType::ALL.into_iter().find(|known| known.short().eq_ignore_ascii_case(name));
        short.or_else(|| ResourceType::from_type_url(name)).ok_or_else(|| {
            let known: Vec<_> = ResourceType::ALL.iter().map(|known| known.short()).collect();
            let hint = format!("known types: {}, or their type URLs", known.join(", "));
            Box::new(failure(StatusCode::BAD_REQUEST, format!("there is no type \"{name}\""), &hint))
        })
    };
    names.map(find).collect()
}

pub(super) fn failure(status: StatusCode, error: String, hint: &str) -> Response {
    (status, Json(Failure { error, hint: hint.to_owned() })).into_response()
}
