//! What the fan-out sends, and when, over HTTP; the same requests as those of a made-up mesh.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};

use super::fan_out::FanOut;
use crate::mesh::now_ns;

/// What the thread of the streams is asked to do.
enum Order {
    Weight,
    Churn { rate: u32, lasting: Duration, width: usize },
}

type Orders = mpsc::Sender<(Order, oneshot::Sender<Value>)>;

#[derive(Deserialize)]
struct ChurnQuery {
    rate: u32,
    seconds: f64,
    /// How many streams a change concerns.
    width: usize,
}

/// Answers until dropped. Must run within a `LocalSet`.
pub(super) async fn serve(listener: TcpListener, fan_out: Rc<FanOut>) -> Result<()> {
    let (orders, mut taken) = mpsc::channel(16);
    let router = Router::new().route("/weight", post(weight)).route("/churn", post(churn)).with_state(orders);
    let carrying_out = async {
        while let Some((order, reply)) = taken.recv().await {
            let answer = carry_out(order, &fan_out).await;
            // Who asked may have gone.
            let _ = reply.send(answer);
        }
    };
    tokio::select! {
        ended = axum::serve(listener, router) => ended.context("the control ended"),
        () = carrying_out => Ok(()),
    }
}

async fn carry_out(order: Order, fan_out: &FanOut) -> Value {
    let begun_ns = now_ns();
    match order {
        Order::Weight => {
            let streams = fan_out.send("weight");
            json!({"committed_ns": begun_ns, "streams": streams})
        }
        Order::Churn { rate, lasting, width } => {
            let sent = fan_out.churn("endpoints", rate, lasting, width).await;
            json!({
                "changes": sent.changes,
                "deliveries": sent.deliveries,
                "skipped": sent.skipped,
                "begun_ns": begun_ns,
                "ended_ns": now_ns(),
                "last": BTreeMap::<u32, u64>::new(),
            })
        }
    }
}

async fn weight(State(orders): State<Orders>) -> Response {
    ask(&orders, Order::Weight).await
}

async fn churn(State(orders): State<Orders>, Query(query): Query<ChurnQuery>) -> Response {
    match Duration::try_from_secs_f64(query.seconds) {
        Ok(lasting) if lasting.as_secs() <= 3600 => {
            ask(&orders, Order::Churn { rate: query.rate, lasting, width: query.width }).await
        }
        _ => (StatusCode::BAD_REQUEST, "seconds is not between 0 and 3600\n").into_response(),
    }
}

async fn ask(orders: &Orders, order: Order) -> Response {
    let (reply, answer) = oneshot::channel();
    if orders.send((order, reply)).await.is_ok()
        && let Ok(answer) = answer.await
    {
        return Json(answer).into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, "the streams are gone\n").into_response()
}

/// Has a server make a change.
///
/// # Errors
/// Nobody answers, or not with status 200; the message holds the answer.
pub(super) async fn post_to(control: SocketAddr, path: &str) -> Result<()> {
    let mut socket = TcpStream::connect(control).await.with_context(|| format!("cannot connect to {control}"))?;
    let request = format!("POST {path} HTTP/1.1\r\nhost: {control}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    socket.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await?;
    if !answer.starts_with("HTTP/1.1 200 ") {
        bail!("{control} answered {}", answer.lines().next().unwrap_or("nothing"));
    }
    Ok(())
}
