//! The servers. Each has one thread, one connection per client, and sends the newest number's message once the
//! last one was acknowledged.

use std::convert::Infallible;
use std::io::{BufRead, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Status, Streaming};

/// A way of sending.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// tonic's server, with a codec that copies encoded bytes into its buffer.
    Tonic,
    /// hyper's server and a body whose chunks are shared, fed through a channel by the task of the stream.
    Body,
    /// The `h2` crate; the connection's task drives its streams itself.
    H2,
    /// This repository's `http2`, driven in the same way.
    Http2,
}

/// A message: its head, made for each stream, and what is shared.
const SHARED_FROM: usize = 16 * 1024;
const HEAD: usize = 150;

impl Way {
    pub const ALL: [Way; 4] = [Way::Tonic, Way::Body, Way::H2, Way::Http2];

    pub fn name(self) -> &'static str {
        match self {
            Way::Tonic => "tonic's codec",
            Way::Body => "body of shared pieces, hyper",
            Way::H2 => "streams of the h2 crate",
            Way::Http2 => "our http2",
        }
    }
}

/// What the connections share.
struct Shared {
    /// The part of a message that all streams share.
    body: Bytes,
    number: watch::Receiver<u64>,
    clients: usize,
    acknowledged: AtomicUsize,
}

impl Shared {
    /// The chunks of a message. Small ones are one chunk.
    fn message(&self) -> Vec<Bytes> {
        let len = HEAD + self.body.len();
        let is_small = len < SHARED_FROM;
        let mut head = BytesMut::with_capacity(5 + if is_small { len } else { HEAD });
        head.put_u8(0);
        head.put_u32(u32::try_from(len).unwrap());
        head.put_bytes(1, HEAD);
        if is_small {
            head.put_slice(&self.body);
            return vec![head.freeze()];
        }
        vec![head.freeze(), self.body.clone()]
    }

    fn acknowledge(&self) {
        let count = self.acknowledged.fetch_add(1, Ordering::Relaxed) + 1;
        // The first messages of all clients come before the first acknowledgements.
        if count > self.clients && count.is_multiple_of(self.clients) {
            say("acknowledged");
        }
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}

/// Serves as `way clients bytes` says, until standard input ends.
pub fn run(asked: &str) {
    let (asked, bytes) = asked.rsplit_once(' ').unwrap();
    let (name, clients) = asked.rsplit_once(' ').unwrap();
    let way = Way::ALL.into_iter().find(|way| way.name() == name).unwrap();
    let (next, number) = watch::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            line.unwrap();
            next.send_modify(|number| *number += 1);
        }
        std::process::exit(0);
    });
    let bytes: usize = bytes.parse().unwrap();
    let body = vec![2; bytes - HEAD].into();
    let clients = clients.parse().unwrap();
    let shared = Arc::new(Shared { body, number, clients, acknowledged: AtomicUsize::new(0) });
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(serve(way, shared));
}

async fn serve(way: Way, shared: Arc<Shared>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    say(&listener.local_addr().unwrap().port().to_string());
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        socket.set_nodelay(true).unwrap();
        let shared = shared.clone();
        tokio::spawn(async move {
            match way {
                Way::Tonic => serve_hyper(socket, move |request| tonic_call(request, shared.clone())).await,
                Way::Body => serve_hyper(socket, move |request| body_call(request, shared.clone())).await,
                Way::H2 => serve_h2(socket, shared).await,
                Way::Http2 => serve_http2(socket, shared).await,
            }
        });
    }
}

async fn serve_hyper<F, R, B>(socket: TcpStream, call: F)
where
    F: FnMut(Request<Incoming>) -> R + Send + 'static,
    R: Future<Output = Response<B>> + Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    let call = std::sync::Mutex::new(call);
    let service = hyper::service::service_fn(move |request| {
        let answer = (call.lock().unwrap())(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(socket), service)
        .await;
}

/// Splits gRPC messages off. What they say does not matter here.
#[derive(Default)]
struct Incomings {
    buffer: BytesMut,
}

impl Incomings {
    fn add(&mut self, mut data: &[u8], shared: &Shared) {
        // What the product does, too: a message that comes alone and whole is not copied.
        while let Some([_, a, b, c, d]) = data.first_chunk().filter(|_| self.buffer.is_empty()) {
            let Some(rest) = data.get(5 + u32::from_be_bytes([*a, *b, *c, *d]) as usize..) else { break };
            data = rest;
            shared.acknowledge();
        }
        if data.is_empty() {
            return;
        }
        self.buffer.extend_from_slice(data);
        while let Some([_, a, b, c, d]) = self.buffer.first_chunk() {
            let len = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
            if self.buffer.len() < 5 + len {
                return;
            }
            self.buffer.advance(5 + len);
            shared.acknowledge();
        }
        self.buffer = BytesMut::new();
    }
}

// tonic

struct Copying(Arc<Shared>);
struct Counting(Arc<Shared>);

impl Codec for Copying {
    type Encode = ();
    type Decode = ();
    type Encoder = Copying;
    type Decoder = Counting;

    fn encoder(&mut self) -> Copying {
        Copying(self.0.clone())
    }

    fn decoder(&mut self) -> Counting {
        Counting(self.0.clone())
    }
}

impl Encoder for Copying {
    type Item = ();
    type Error = Status;

    fn encode(&mut self, (): (), buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(HEAD + self.0.body.len());
        buffer.put_bytes(1, HEAD);
        buffer.put_slice(&self.0.body);
        Ok(())
    }
}

impl Decoder for Counting {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        buffer.advance(buffer.remaining());
        self.0.acknowledge();
        Ok(Some(()))
    }
}

struct Pushing(Arc<Shared>);

impl tonic::server::StreamingService<()> for Pushing {
    type Response = ();
    type ResponseStream = tokio_stream::wrappers::ReceiverStream<Result<(), Status>>;
    type Future = std::future::Ready<Result<tonic::Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: tonic::Request<Streaming<()>>) -> Self::Future {
        let (send, receive) = mpsc::channel(1);
        let mut number = self.0.number.clone();
        let mut requests = request.into_inner();
        tokio::spawn(async move {
            let _ = requests.message().await;
            number.mark_changed();
            loop {
                tokio::select! {
                    changed = number.changed() => {
                        if changed.is_err() || send.send(Ok(())).await.is_err() {
                            return;
                        }
                    }
                    message = requests.message() => {
                        if !matches!(message, Ok(Some(()))) {
                            return;
                        }
                    }
                }
            }
        });
        std::future::ready(Ok(tonic::Response::new(tokio_stream::wrappers::ReceiverStream::new(receive))))
    }
}

async fn tonic_call(request: Request<Incoming>, shared: Arc<Shared>) -> Response<tonic::body::Body> {
    tonic::server::Grpc::new(Copying(shared.clone())).streaming(Pushing(shared), request).await
}

// A body of shared pieces

struct SharedBody {
    messages: mpsc::Receiver<Vec<Bytes>>,
    current: std::vec::IntoIter<Bytes>,
}

impl http_body::Body for SharedBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        loop {
            if let Some(chunk) = self.current.next() {
                return Poll::Ready(Some(Ok(http_body::Frame::data(chunk))));
            }
            match ready!(self.messages.poll_recv(cx)) {
                Some(chunks) => self.current = chunks.into_iter(),
                None => return Poll::Ready(None),
            }
        }
    }
}

async fn body_call(request: Request<Incoming>, shared: Arc<Shared>) -> Response<SharedBody> {
    let (send, messages) = mpsc::channel(1);
    let mut body = request.into_body();
    tokio::spawn(async move {
        let mut incomings = Incomings::default();
        let mut number = shared.number.clone();
        number.mark_changed();
        loop {
            tokio::select! {
                changed = number.changed() => {
                    if changed.is_err() || send.send(shared.message()).await.is_err() {
                        return;
                    }
                }
                frame = body.frame() => match frame {
                    Some(Ok(frame)) => incomings.add(&frame.into_data().unwrap_or_default(), &shared),
                    _ => return,
                },
            }
        }
    });
    Response::new(SharedBody { messages, current: Vec::new().into_iter() })
}

// The h2 crate

async fn serve_h2(socket: TcpStream, shared: Arc<Shared>) {
    let Ok(mut connection) = h2::server::handshake(socket).await else { return };
    let Some(Ok((request, mut respond))) = connection.accept().await else { return };
    let mut body = request.into_body();
    let mut send: h2::SendStream<Bytes> = respond.send_response(Response::new(()), false).unwrap();
    let mut incomings = Incomings::default();
    let mut number = shared.number.clone();
    number.mark_changed();
    loop {
        tokio::select! {
            // It never accepts a second stream; this is what moves the connection.
            _ = connection.accept() => return,
            data = body.data() => {
                let Some(Ok(data)) = data else { return };
                incomings.add(&data, &shared);
                let _ = body.flow_control().release_capacity(data.len());
            }
            _ = number.changed() => {
                for chunk in shared.message() {
                    send.send_data(chunk, false).unwrap();
                }
            }
        }
    }
}

// http2

async fn serve_http2(socket: TcpStream, shared: Arc<Shared>) {
    let mut http2 = http2::Connection::new(http2::Settings::default());
    let mut incomings = Incomings::default();
    let mut number = shared.number.clone();
    number.mark_changed();
    let mut stream = None;
    loop {
        tokio::select! {
            readable = socket.readable() => {
                readable.unwrap();
                let mut space = [0; 16 * 1024];
                let count = match socket.try_read(&mut space) {
                    Ok(0) => return,
                    Ok(count) => count,
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => 0,
                    Err(_) => return,
                };
                let mut bytes = &space[..count];
                while let Some(event) = http2.receive(&mut bytes) {
                    match event {
                        http2::Event::Request { stream: opened, .. } => {
                            http2.respond(opened, http::StatusCode::OK, &http::HeaderMap::new());
                            stream = Some(opened);
                        }
                        http2::Event::Data { stream, data } => {
                            incomings.add(data, &shared);
                            http2.release(stream, data.len());
                        }
                        _ => return,
                    }
                }
            }
            _ = number.changed(), if stream.is_some() => {
                for (stream, chunk) in stream.iter().flat_map(|stream| shared.message().into_iter().map(|c| (*stream, c))) {
                    http2.send(stream, chunk);
                }
            }
            _ = socket.writable(), if http2.pending_len() > 0 => {}
        }
        http2.pump();
        while http2.pending_len() > 0 {
            let slices: Vec<_> = http2.pending().take(64).map(std::io::IoSlice::new).collect();
            match socket.try_write_vectored(&slices) {
                Ok(count) => http2.written(count),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(_) => return,
            }
            http2.pump();
        }
    }
}
