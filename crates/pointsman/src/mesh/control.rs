//! What changes in the mesh, and when, over HTTP.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;
use server::Input;
use tokio::net::TcpListener;
use tokio::sync::Mutex;

use super::churn::Churn;
use super::objects::{Mesh, Split};

const START_PAGE: &str = "\
POST /weight?service=3&value=40                    one VirtualService's split; without a value, another one each time
POST /churn?rate=1000&seconds=10&services=1000     changes of endpoints; answers when the last one has been made

Times are CLOCK_REALTIME in nanoseconds, taken just before a change is given to the server.
";

/// The control of a made-up mesh.
#[derive(Clone)]
pub(super) struct Control {
    mesh: Mesh,
    input: Input,
    /// Changes so far; also keeps one churn from mixing with another.
    turns: Arc<Mutex<Turns>>,
}

#[derive(Default)]
struct Turns {
    weights: u32,
    endpoints: u32,
}

#[derive(Deserialize)]
struct Weight {
    #[serde(default)]
    service: u32,
    value: Option<u8>,
}

#[derive(Deserialize)]
struct ChurnQuery {
    rate: u32,
    seconds: f64,
    services: Option<u32>,
}

impl Control {
    pub(super) fn new(mesh: Mesh, input: Input) -> Self {
        Self { mesh, input, turns: Arc::default() }
    }

    /// Answers until dropped.
    pub(super) async fn serve(self, listener: TcpListener) -> Result<()> {
        let router = Router::new()
            .route("/", get(async || START_PAGE))
            .route("/weight", post(weight))
            .route("/churn", post(churn))
            .with_state(self);
        axum::serve(listener, router).await.context("the control ended")
    }
}

/// CLOCK_REALTIME, in nanoseconds.
pub(crate) fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

async fn weight(State(control): State<Control>, Query(query): Query<Weight>) -> Response {
    let Control { mesh, input, turns } = control;
    if query.service >= mesh.services {
        return refused(format!("there is no service {}: the mesh has {}", query.service, mesh.services));
    }
    if mesh.split == Split::None {
        return refused("the mesh has no VirtualServices; start it with --split neighbours or subsets".to_owned());
    }
    if query.value.is_some_and(|value| value > 100) {
        return refused("the value is a percentage, from 0 to 100".to_owned());
    }
    let mut turns = turns.lock().await;
    turns.weights = turns.weights.wrapping_add(1);
    // 1 to 79, so that it always differs from the one before and from the first, 80.
    let value = query.value.unwrap_or((turns.weights % 79 + 1) as u8);
    let change = mesh.weight(query.service, value);
    let committed_ns = now_ns();
    match input.apply(vec![change], Vec::new(), Instant::now()).await {
        Ok(()) => Json(json!({"service": query.service, "value": value, "committed_ns": committed_ns})).into_response(),
        Err(stopped) => failed(&stopped),
    }
}

async fn churn(State(control): State<Control>, Query(query): Query<ChurnQuery>) -> Response {
    let Control { mesh, input, turns } = control;
    let services = query.services.unwrap_or(mesh.services);
    if services == 0 || services > mesh.services {
        return refused(format!("services={services} is not between 1 and {}", mesh.services));
    }
    let Some(lasting) = Duration::try_from_secs_f64(query.seconds).ok().filter(|lasting| lasting.as_secs() <= 3600)
    else {
        return refused("seconds is not between 0 and 3600".to_owned());
    };
    let Ok(mut turns) = turns.try_lock() else {
        return (StatusCode::CONFLICT, "another change is being made\n").into_response();
    };
    let churn = Churn { rate: query.rate, lasting, services };
    match churn.run(mesh, &input, &mut turns.endpoints).await {
        Ok(answer) => Json(answer).into_response(),
        Err(stopped) => failed(&stopped),
    }
}

fn refused(reason: String) -> Response {
    (StatusCode::BAD_REQUEST, format!("{reason}\n")).into_response()
}

fn failed(stopped: &server::Stopped) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{stopped}\n")).into_response()
}
