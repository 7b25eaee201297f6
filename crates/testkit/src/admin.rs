//! A client for an admin interface, over TCP or a Unix socket: one connection per request.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;

/// An admin interface that takes longer than this to answer hangs.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

/// Where an admin interface is.
#[derive(Clone, Debug)]
pub(crate) enum Admin {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Admin {
    /// The body of a response with status 200.
    pub(crate) async fn get(&self, path: &str) -> Result<Bytes> {
        self.expect_ok(Method::GET, path, Bytes::new()).await
    }

    /// Sends a POST without a body; returns the body of a response with status 200.
    pub(crate) async fn post(&self, path: &str) -> Result<Bytes> {
        self.expect_ok(Method::POST, path, Bytes::new()).await
    }

    /// Sends a PUT with a JSON body; returns the body of a response with status 200.
    pub(crate) async fn put(&self, path: &str, body: Bytes) -> Result<Bytes> {
        self.expect_ok(Method::PUT, path, body).await
    }

    /// The status and the body of the answer to a GET.
    pub(crate) async fn ask(&self, path: &str) -> Result<(StatusCode, Bytes)> {
        self.answer(Method::GET, path, Bytes::new()).await
    }

    /// The status and the body of the answer to a POST with a JSON body.
    pub(crate) async fn post_body(&self, path: &str, body: Bytes) -> Result<(StatusCode, Bytes)> {
        self.answer(Method::POST, path, body).await
    }

    async fn answer(&self, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Bytes)> {
        let answer = tokio::time::timeout(TIMEOUT, self.exchange(method, path, body)).await;
        answer.with_context(|| format!("no answer to \"{path}\" within {TIMEOUT:?}"))?
    }

    async fn expect_ok(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes> {
        let (status, body) = self.answer(method, path, body).await?;
        if status != StatusCode::OK {
            bail!("\"{path}\" was answered with {status}: {}", String::from_utf8_lossy(&body).trim_end());
        }
        Ok(body)
    }

    async fn exchange(&self, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Bytes)> {
        let unreachable = || format!("could not reach the admin interface at {self:?}");
        match self {
            Admin::Tcp(address) => {
                exchange(TcpStream::connect(address).await.with_context(unreachable)?, method, path, body).await
            }
            Admin::Unix(path_of_socket) => {
                exchange(UnixStream::connect(path_of_socket).await.with_context(unreachable)?, method, path, body).await
            }
        }
    }
}

async fn exchange<S>(stream: S, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Bytes)>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "admin")
        .header("content-type", "application/json")
        .body(Full::new(body))?;
    let (response, _driver) = send(stream, request).await?;
    let status = response.status();
    Ok((status, response.into_body().collect().await?.to_bytes()))
}

/// Sends a request over a connection of its own, which lives as long as what is returned beside the answer.
pub(crate) async fn send<S>(
    stream: S,
    request: Request<Full<Bytes>>,
) -> Result<(hyper::Response<Incoming>, JoinSet<hyper::Result<()>>)>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    Ok((sender.send_request(request).await?, driver))
}
