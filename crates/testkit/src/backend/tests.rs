//! Tests of the sample service over real connections.

#![allow(clippy::unwrap_used)]

use std::net::{Ipv4Addr, TcpStream};
use std::time::Instant;

use bytes::Bytes;
use http::{Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use super::*;

/// Longer than anything takes.
const SOON: Duration = Duration::from_secs(120);
const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Sends one request on a connection of its own, by HTTP/1.1 or HTTP/2 as the request says.
async fn send(backend: &Backend, request: Request<Full<Bytes>>) -> Response<Bytes> {
    let stream = TokioIo::new(tokio::net::TcpStream::connect(backend.address()).await.unwrap());
    let mut connections = JoinSet::new();
    let response = if request.version() == Version::HTTP_2 {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        connections.spawn(connection);
        sender.send_request(request).await.unwrap()
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        connections.spawn(connection);
        sender.send_request(request).await.unwrap()
    };
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap();
    assert_eq!(head.headers["x-backend"], backend.name());
    let mut response = Response::from_parts(head, Bytes::new());
    if let Some(trailers) = body.trailers() {
        response.extensions_mut().insert(trailers.clone());
    }
    *response.body_mut() = body.to_bytes();
    response
}

fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).header("host", "reviews").body(Full::default()).unwrap()
}

#[tokio::test]
async fn says_its_name_in_body_and_header_and_counts() {
    let backend = Backend::start("reviews-v1", ANY).unwrap();
    let response = send(&backend, get("/anything")).await;
    assert_eq!((response.status(), &response.body()[..]), (StatusCode::OK, &b"reviews-v1\n"[..]));
    send(&backend, get("/")).await;
    assert_eq!(backend.requests(), 2);
}

#[tokio::test]
async fn echoes_the_request_as_it_arrived() {
    let backend = Backend::start("v1", ANY).unwrap();
    let request = Request::post("/api/echo?q=1")
        .header("host", "reviews:9080")
        .header("x-user", "ann")
        .header("x-user", "bob")
        .body(Full::from("hello"))
        .unwrap();
    let echoed: Value = serde_json::from_slice(send(&backend, request).await.body()).unwrap();
    assert_eq!(echoed["path"], "/api/echo?q=1");
    assert_eq!(echoed["headers"], json!({"content-length": "5", "host": "reviews:9080", "x-user": "ann, bob"}));
    assert_eq!((&echoed["method"], &echoed["authority"]), (&json!("POST"), &json!("reviews:9080")));
    assert_eq!((&echoed["version"], &echoed["body"]), (&json!("HTTP/1.1"), &json!("hello")));

    let mut request = Request::get("http://reviews/rewritten").header("x-echo", "1").body(Full::default()).unwrap();
    *request.version_mut() = Version::HTTP_2;
    let echoed: Value = serde_json::from_slice(send(&backend, request).await.body()).unwrap();
    assert_eq!((&echoed["path"], &echoed["authority"]), (&json!("/rewritten"), &json!("reviews")));
    assert_eq!(echoed["version"], "HTTP/2.0");
}

#[tokio::test]
async fn answers_the_asked_status_and_refuses_nonsense() {
    let backend = Backend::start("v1", ANY).unwrap();
    for (path, status) in
        [("/status/503", 503), ("/status/404", 404), ("/status/99999", 400), ("/status/x", 400), ("/delay/-1", 400)]
    {
        assert_eq!(send(&backend, get(path)).await.status().as_u16(), status, "{path}");
    }
}

#[tokio::test]
async fn delays_as_long_as_asked() {
    let backend = Backend::start("v1", ANY).unwrap();
    let before = Instant::now();
    send(&backend, get("/delay/50")).await;
    assert!(before.elapsed() >= Duration::from_millis(50));
}

#[tokio::test]
async fn returns_the_message_of_any_grpc_call() {
    let backend = Backend::start("v1", ANY).unwrap();
    let mut request = Request::post("http://echo/any.Service/Method").header("content-type", "application/grpc");
    request = request.header("te", "trailers").version(Version::HTTP_2);
    let framed = Bytes::from_static(b"\0\0\0\0\x05hello");
    let response = send(&backend, request.body(Full::new(framed.clone())).unwrap()).await;
    assert_eq!(*response.body(), framed);
    assert_eq!(response.extensions().get::<http::HeaderMap>().unwrap()["grpc-status"], "0");
}

#[tokio::test]
async fn draining_finishes_what_is_under_way_and_refuses_the_rest() {
    let backend = Backend::start("v1", ANY).unwrap();
    let address = backend.address();
    let mut tasks = JoinSet::new();
    let stream = TokioIo::new(tokio::net::TcpStream::connect(address).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
    tasks.spawn(connection);
    let response = sender.send_request(get("/delay/200"));
    let drained = async {
        let arrived = async || if backend.requests() == 1 { Ok(()) } else { Err("no request") };
        crate::wait::until("the request", SOON, arrived).await.unwrap();
        backend.drain(SOON).await
    };
    let (response, drained) = tokio::join!(response, drained);
    assert_eq!(response.unwrap().status(), StatusCode::OK);
    assert!(drained);
    TcpStream::connect(address).unwrap_err();
}

#[tokio::test]
async fn a_share_of_answers_is_bad_when_that_is_wanted() {
    let backend = Backend::start("v1", ANY).unwrap();
    backend.fail_every(3);
    let mut bad = 0;
    for _ in 0..9 {
        bad += u64::from(send(&backend, get("/")).await.status() == StatusCode::SERVICE_UNAVAILABLE);
    }
    assert_eq!((bad, backend.failed(), backend.requests()), (3, 3, 9));
    backend.fail_every(0);
    assert_eq!(send(&backend, get("/")).await.status(), StatusCode::OK);
}
