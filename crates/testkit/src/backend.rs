//! A sample HTTP service that says who it is: HTTP/1.1, HTTP/2 without TLS, and gRPC, all on one address.
//!
//! Every response carries the header `x-backend` with the service's name.
//!
//! | request | response |
//! |---|---|
//! | `/echo`, any path that ends in `/echo`, or with the header `x-echo` | the request as it arrived, as JSON (below) |
//! | `/status/NNN` | that status |
//! | `/delay/MS` | 200 after so many milliseconds, at most 60,000 |
//! | `content-type: application/grpc…` | any unary method: the request message, sent back with status OK |
//! | anything else | 200, the name and a newline |
//!
//! With [`Backend::fail_every`] a share of all requests that are not gRPC is answered 503 instead.
//!
//! The JSON of an echo: `backend`, `method`, `authority` (from `:authority` or `host`), `path` (with the query),
//! `version` (`HTTP/1.1`, `HTTP/2.0`), `peer` (address), `headers` (an object; repeated headers are joined by `, `)
//! and `body` (as text).
//!
//! The service runs on a thread of its own. Dropping it cuts every connection, like a crash; [`Backend::drain`] ends it
//! politely.

mod answer;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::netns::Namespace;
use crate::worker::{StopSignal, Worker};

/// How long an idle connection is kept when the service drains. A client may be writing a request at the very moment; it
/// is answered, and told to close the connection, instead of being cut off.
const IDLE_GRACE: Duration = Duration::from_millis(200);

/// A running sample service.
#[derive(Debug)]
pub struct Backend {
    name: String,
    address: SocketAddr,
    requests: Arc<AtomicU64>,
    faults: Arc<Faults>,
    worker: Worker,
}

/// Answers that are bad on purpose.
#[derive(Debug, Default)]
struct Faults {
    /// One in so many; none if it is 0.
    every: AtomicU64,
    /// Requests that could have been answered badly.
    considered: AtomicU64,
    /// Those that were.
    failed: AtomicU64,
}

impl Backend {
    /// Starts a service called `name` on `address`; port 0 takes any free port. It accepts connections on return.
    ///
    /// # Errors
    /// If the address cannot be bound, or the name cannot be a header value.
    pub fn start(name: &str, address: SocketAddr) -> io::Result<Backend> {
        Backend::start_in(None, name, address)
    }

    /// Starts a service in a network namespace: see [`Backend::start`].
    ///
    /// # Errors
    /// As there, and if the namespace cannot be entered.
    pub fn start_in(place: Option<&Namespace>, name: &str, address: SocketAddr) -> io::Result<Backend> {
        let requests = Arc::new(AtomicU64::new(0));
        let header = http::HeaderValue::from_str(name).map_err(io::Error::other)?;
        let faults = Arc::new(Faults::default());
        let service =
            Arc::new(Service { name: name.to_owned(), header, requests: requests.clone(), faults: faults.clone() });
        let (worker, address) = Worker::start("backend", place, move |stop| {
            let listener = bind(address)?;
            Ok((listener.local_addr()?, service.serve(listener, stop)))
        })?;
        Ok(Backend { name: name.to_owned(), address, requests, faults, worker })
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many requests have arrived so far.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Answers one in so many of the requests to come with 503, evenly spread; none if it is 0.
    pub fn fail_every(&self, requests: u64) {
        self.faults.every.store(requests, Ordering::Relaxed);
    }

    /// How many requests were answered with 503 because of [`Backend::fail_every`].
    pub fn failed(&self) -> u64 {
        self.faults.failed.load(Ordering::Relaxed)
    }

    /// Accepts no more connections, answers the requests under way and those that still come within 0.2 seconds (HTTP/1.1
    /// connections are closed after that, HTTP/2 clients get GOAWAY), and ends. Returns whether that was done `within`
    /// this time; the rest is cut.
    pub async fn drain(self, within: Duration) -> bool {
        self.worker.drain(within).await
    }
}

/// Binds an address inside a worker. One that this process has just given up may be taken for a moment: a child process
/// that another thread starts has every socket of this one until it becomes another program.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    const LONGEST: Duration = Duration::from_secs(10);
    let deadline = Instant::now() + LONGEST;
    let listener = loop {
        match std::net::TcpListener::bind(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1));
            }
            bound => break bound?,
        }
    };
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// What all connections of a backend share.
struct Service {
    name: String,
    header: http::HeaderValue,
    requests: Arc<AtomicU64>,
    faults: Arc<Faults>,
}

impl Faults {
    /// Whether this request is to fail.
    fn strike(&self) -> bool {
        let every = self.every.load(Ordering::Relaxed);
        if every == 0 {
            return false;
        }
        let strikes = self.considered.fetch_add(1, Ordering::Relaxed) % every == every - 1;
        if strikes {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
        strikes
    }
}

impl Service {
    async fn serve(self: Arc<Self>, listener: TcpListener, mut stop: StopSignal) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.wait() => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        connections.spawn(self.clone().serve_connection(stream, peer, stop.clone()));
                    }
                    // Out of descriptors, or the client has gone: others may still get through.
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                },
                Some(_) = connections.join_next() => {}
            }
        }
        // What the kernel has accepted already would be reset when the socket is closed.
        while let Ok(Ok((stream, peer))) = tokio::time::timeout(Duration::ZERO, listener.accept()).await {
            connections.spawn(self.clone().serve_connection(stream, peer, stop.clone()));
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
    }

    async fn serve_connection(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, mut stop: StopSignal) {
        // Without it, Nagle's algorithm delays the second of two small writes by up to 40 ms.
        let _ = stream.set_nodelay(true);
        let protocol = auto::Builder::new(TokioExecutor::new());
        let draining = stop.clone();
        let connection = protocol.serve_connection(
            TokioIo::new(stream),
            service_fn(move |request| {
                self.requests.fetch_add(1, Ordering::Relaxed);
                self.clone().answer(request, peer, draining.clone())
            }),
        );
        tokio::pin!(connection);
        // How a connection ends is the client's business; it is not an error of the service.
        tokio::select! {
            _ = connection.as_mut() => return,
            () = stop.wait() => {}
        }
        if tokio::time::timeout(IDLE_GRACE, connection.as_mut()).await.is_err() {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

#[cfg(test)]
mod tests;
