//! One HTTP/2 connection.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::SystemTime;

use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

use super::{Connection, Discovery};
use crate::listen::{Peer, Seat, Socket};

/// What a client may have on the way to us on one stream, and on all of a connection. Requests are small and acted on
/// at once, so little is enough for full speed; a large one just takes a few more round trips.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Serves a connection until the client leaves, is cut off, has said nothing for too long, or the server's end is
/// reached.
pub(crate) async fn serve_connection(
    discovery: Arc<Discovery>,
    others: Routes,
    socket: Socket,
    peer: Peer,
    seat: Seat,
) {
    let metrics = discovery.metrics.clone();
    let draining = discovery.draining.clone();
    let deadlines = discovery.config.deadlines.clone();
    let connection = Arc::new(Connection { peer, seat, opened: SystemTime::now() });
    metrics.connection_opened();
    tracing::debug!(%peer, connection = connection.seat.number(), "connection opened");

    let builder = builder(&discovery);
    let for_calls = connection.clone();
    let service = service_fn(move |request| {
        let answer = discovery.clone().call(for_calls.clone(), others.clone(), request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let mut serving = pin!(builder.serve_connection(TokioIo::new(socket), service));
    let mut silence = pin!(tokio::time::sleep(deadlines.first_request));
    let (mut is_silence_over, mut is_draining) = (false, false);
    let seat = &connection.seat;
    loop {
        tokio::select! {
            ended = serving.as_mut() => {
                match ended {
                    Ok(()) => tracing::debug!(%peer, connection = seat.number(), "connection closed"),
                    Err(error) => tracing::debug!(%peer, connection = seat.number(), %error, "connection lost"),
                }
                break;
            }
            () = seat.cut_off().cancelled() => {
                tracing::debug!(%peer, connection = seat.number(), "connection cut off");
                metrics.connection_closed("cut_off");
                break;
            }
            () = silence.as_mut(), if !is_silence_over => {
                is_silence_over = true;
                if seat.is_silent() {
                    tracing::debug!(%peer, connection = seat.number(), "closing a connection that said nothing");
                    metrics.connection_closed("silent");
                    break;
                }
            }
            () = draining.cancelled(), if !is_draining => {
                is_draining = true;
                if seat.is_silent() {
                    break;
                }
                // GOAWAY: no new streams; those that are open end by themselves.
                serving.as_mut().graceful_shutdown();
            }
        }
    }
    metrics.connection_ended();
}

fn builder(discovery: &Discovery) -> http2::Builder<Tracked> {
    let Discovery { config, tasks, .. } = discovery;
    let mut builder = http2::Builder::new(Tracked { tasks: tasks.clone() });
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(config.deadlines.keepalive_interval)
        .keep_alive_timeout(config.deadlines.keepalive_timeout)
        .max_concurrent_streams(config.limits.max_streams_per_connection)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    builder
}

/// Spawns the streams of HTTP/2 where they are joined at the end.
#[derive(Clone, Debug)]
struct Tracked {
    tasks: TaskTracker,
}

impl<F> Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.tasks.spawn(future);
    }
}
