//! Load over the admin HTTP API: what was reported, and what is asked for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRef, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use load::{Ask, Policy};

use super::audit::Deed;
use super::http::failure;
use crate::LoadReports;
use crate::view::{ClusterLoad, LoadSettings, Loads, NodeLoad};

/// The longest interval that can be asked for.
const LONGEST: Duration = Duration::from_secs(3600);

/// The routes below `/api/v1/load`.
pub(super) fn routes<S>() -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    Arc<LoadReports>: FromRef<S>,
{
    Router::new()
        .route("/api/v1/load", get(all))
        .route("/api/v1/load/settings", get(settings).put(set))
        .route("/api/v1/load/{cluster}", get(one))
}

async fn all(State(loads): State<Arc<LoadReports>>) -> Json<Loads> {
    let clusters = loads.table().clusters(Instant::now());
    Json(Loads { clusters: clusters.into_iter().map(ClusterLoad::from).collect(), settings: view(&loads.policy()) })
}

async fn one(State(loads): State<Arc<LoadReports>>, Path(cluster): Path<String>) -> Response {
    let now = Instant::now();
    let (load, nodes) = {
        let table = loads.table();
        (table.cluster(&cluster, now), table.nodes(&cluster, now))
    };
    match load {
        Some(load) => {
            let nodes = nodes.into_iter().map(NodeLoad::from).collect();
            Json(ClusterLoad { nodes, ..ClusterLoad::from(load) }).into_response()
        }
        None => failure(
            StatusCode::NOT_FOUND,
            format!("no client has reported traffic of a cluster \"{cluster}\""),
            "GET /api/v1/load lists the clusters that have traffic; clients report only what they are asked for: see \
             /api/v1/load/settings",
        ),
    }
}

async fn settings(State(loads): State<Arc<LoadReports>>) -> Json<LoadSettings> {
    Json(view(&loads.policy()))
}

async fn set(
    State(loads): State<Arc<LoadReports>>,
    Extension(deed): Extension<Deed>,
    body: Result<Json<LoadSettings>, JsonRejection>,
) -> Response {
    let hint = "send {\"interval_seconds\": 5, \"endpoints\": false}; 0 seconds turns reports off";
    let Json(wanted) = match body {
        Ok(wanted) => wanted,
        Err(rejection) => return failure(StatusCode::BAD_REQUEST, rejection.body_text(), hint),
    };
    let interval = match Duration::try_from_secs_f64(wanted.interval_seconds) {
        Ok(Duration::ZERO) => None,
        Ok(interval) if (Ask::SHORTEST..=LONGEST).contains(&interval) => Some(interval),
        Ok(_) | Err(_) => {
            let error = format!(
                "interval_seconds is {}, which is neither 0 nor from {} to {}",
                wanted.interval_seconds,
                Ask::SHORTEST.as_secs_f64(),
                LONGEST.as_secs()
            );
            return failure(StatusCode::BAD_REQUEST, error, hint);
        }
    };
    deed.is(
        &format!("ask for load every {} s, endpoints {}", wanted.interval_seconds, wanted.endpoints),
        "load/settings".to_owned(),
    );
    loads.change_policy(|policy| {
        policy.interval = interval;
        policy.endpoints = wanted.endpoints;
    });
    tracing::info!(
        interval_seconds = wanted.interval_seconds,
        endpoints = wanted.endpoints,
        "load reports are asked for"
    );
    Json(view(&loads.policy())).into_response()
}

fn view(policy: &Policy) -> LoadSettings {
    let interval_seconds = policy.interval.map_or(0.0, |interval| interval.as_secs_f64());
    LoadSettings { interval_seconds, endpoints: policy.endpoints }
}
