//! One kept-alive connection of a load, opened again when it is closed.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::plan::Plan;
use super::sample::{Outcome, Sample};
use super::{Record, StopSignal};

/// Sends the plan's request until told to stop; finishes the one under way. `index` is the connection's place in the
/// record and in the schedule, which begins at `started`.
pub(super) async fn run(index: usize, started: Instant, plan: Arc<Plan>, record: Arc<Record>, mut stop: StopSignal) {
    let request = plan.request().expect("the plan was checked when the load was started");
    let mut schedule = plan.pause().map(|pause| {
        let offset = pause.mul_f64(index as f64 / plan.connections as f64);
        let mut schedule = tokio::time::interval_at((started + offset).into(), pause);
        schedule.set_missed_tick_behavior(MissedTickBehavior::Delay);
        schedule
    });
    let mut connection = Connection { plan: plan.clone(), record: record.clone(), sender: None, tasks: JoinSet::new() };
    let mut names = Vec::new();
    loop {
        if let Some(schedule) = &mut schedule {
            tokio::select! {
                biased;
                () = stop.wait() => return,
                _ = schedule.tick() => {}
            }
        } else if stop.is_set() {
            return;
        } else {
            // Without a schedule nothing else would give the other connections of this thread their turn for sure.
            tokio::task::yield_now().await;
        }
        let begun = Instant::now();
        record.book().under_way[index] = Some(begun);
        let outcome = match tokio::time::timeout(plan.timeout, connection.exchange(&request, &mut names)).await {
            Ok(outcome) => outcome,
            Err(_) => {
                connection.close();
                Outcome::Broken(format!("no answer within {:?}", plan.timeout).into())
            }
        };
        let expected = match &outcome {
            Outcome::Answer { status, grpc_status, .. } => {
                *status == plan.expected_status && (!plan.grpc || *grpc_status == Some(0))
            }
            Outcome::Broken(_) => false,
        };
        record.finish(index, Sample { begun, took: begun.elapsed(), outcome, expected });
    }
}

/// The sending half of an open connection.
enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

struct Connection {
    plan: Arc<Plan>,
    record: Arc<Record>,
    sender: Option<Sender>,
    /// The task that moves the bytes of the open connection.
    tasks: JoinSet<()>,
}

impl Connection {
    fn close(&mut self) {
        self.sender = None;
        self.tasks.abort_all();
    }

    /// Sends the request and reads the whole response. Backend names are shared through `names`.
    async fn exchange(&mut self, request: &Request<Full<Bytes>>, names: &mut Vec<Arc<str>>) -> Outcome {
        let result = match self.send(request).await {
            Ok(response) => read(response, names).await,
            Err(error) => Err(error),
        };
        result.unwrap_or_else(|reason| {
            self.close();
            Outcome::Broken(reason.into())
        })
    }

    async fn send(&mut self, request: &Request<Full<Bytes>>) -> Result<Response<Incoming>, String> {
        loop {
            let ready = match &mut self.sender {
                None => false,
                Some(Sender::Http1(sender)) => sender.ready().await.is_ok(),
                Some(Sender::Http2(sender)) => sender.ready().await.is_ok(),
            };
            if !ready {
                self.open().await.map_err(|error| format!("could not connect: {error}"))?;
            }
            let attempt = match self.sender.as_mut() {
                Some(Sender::Http1(sender)) => sender.try_send_request(request.clone()).await,
                Some(Sender::Http2(sender)) => sender.try_send_request(request.clone()).await,
                None => return Err("could not connect".to_owned()),
            };
            match attempt {
                Ok(response) => return Ok(response),
                Err(mut error) => {
                    // hyper gives the request back if none of it was written. Then a kept-alive connection was closed
                    // meanwhile; on a connection that was opened for this request it is a failure like any other.
                    let unwritten = error.take_message().is_some();
                    if !(ready && unwritten) {
                        return Err(describe(error.error()));
                    }
                    self.close();
                }
            }
        }
    }

    async fn open(&mut self) -> io::Result<()> {
        self.close();
        self.record.book().connects += 1;
        let stream = TcpStream::connect(self.plan.address).await?;
        // Requests are small and single: waiting for more to send only delays them.
        stream.set_nodelay(true)?;
        let stream = TokioIo::new(stream);
        if self.plan.is_http2() {
            let (sender, connection) =
                http2::handshake(TokioExecutor::new(), stream).await.map_err(io::Error::other)?;
            self.sender = Some(Sender::Http2(sender));
            // How a connection ends is seen by the request that it carries.
            self.tasks.spawn(async move { drop(connection.await) });
        } else {
            let (sender, connection) = http1::handshake(stream).await.map_err(io::Error::other)?;
            self.sender = Some(Sender::Http1(sender));
            self.tasks.spawn(async move { drop(connection.await) });
        }
        while self.tasks.try_join_next().is_some() {}
        Ok(())
    }
}

async fn read(response: Response<Incoming>, names: &mut Vec<Arc<str>>) -> Result<Outcome, String> {
    let (head, mut body) = response.into_parts();
    let mut grpc_status = parse_grpc_status(&head.headers);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| format!("the response broke off: {}", describe(&error)))?;
        if let Some(trailers) = frame.trailers_ref() {
            grpc_status = parse_grpc_status(trailers).or(grpc_status);
        }
    }
    let mut text = |header: &str| {
        head.headers.get(header).map(|value| {
            let value = String::from_utf8_lossy(value.as_bytes());
            names.iter().find(|known| ***known == *value).cloned().unwrap_or_else(|| {
                let value: Arc<str> = value.into();
                names.push(value.clone());
                value
            })
        })
    };
    let (backend, mark) = (text("x-backend"), text("x-mark"));
    Ok(Outcome::Answer { status: head.status.as_u16(), grpc_status, backend, mark })
}

fn parse_grpc_status(headers: &HeaderMap) -> Option<u16> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// The error with its causes, which hyper does not print by itself.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
