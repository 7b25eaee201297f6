//! One connection with one discovery stream on it: a socket, HTTP/2 and the scanner, without opinions.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, getsockopt, recvmsg, send, sockopt};
use nix::sys::time::TimeSpec;

use crate::address::Address;
use crate::clock::{self, Nanos};
use crate::error::Error;
use crate::http2::{Event, Incoming, Outgoing, ProtocolError};
use crate::scan::{Received, ScanError, Scanner};
use crate::scenario::Variant;
use crate::swarm::Options;
use crate::tls::{Session, Tls};

/// Bytes handed to the kernel at once.
const WRITE: usize = 256 << 10;
/// Bytes taken from the kernel at once.
const READ: usize = 256 << 10;

/// What all connections of a swarm begin with.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) address: Address,
    /// The compressed headers of a request.
    pub(crate) headers: Vec<u8>,
    pub(crate) tls: Option<Tls>,
}

impl Target {
    /// Of a swarm that speaks this variant.
    ///
    /// # Errors
    /// If certificates cannot be used.
    pub(crate) fn new(options: &Options, variant: Variant) -> Result<Self, Error> {
        let address = options.server.clone();
        let authority = address.authority();
        let tls = options.tls.as_ref().map(|files| Tls::load(files, authority)).transpose()?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let headers = headers(variant, scheme, authority, options.token.as_deref());
        Ok(Self { headers, tls, address })
    }
}

/// Buffers that all connections of a thread use in turn.
#[derive(Debug)]
pub(crate) struct Buffers {
    read: Vec<u8>,
    write: Vec<u8>,
    plain: Vec<u8>,
    control: Vec<u8>,
}

impl Buffers {
    pub(crate) fn new() -> Self {
        Self {
            read: vec![0; READ],
            write: Vec::with_capacity(WRITE),
            plain: Vec::new(),
            control: cmsg_space!(TimeSpec),
        }
    }
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum End {
    #[error("could not connect: {}", .0.desc())]
    Connect(Errno),
    #[error("the connection broke: {}", .0.desc())]
    Broke(Errno),
    #[error("the server closed the connection")]
    Closed,
    #[error("the server ended the stream with gRPC status {code}{}", words(.message))]
    Status { code: u32, message: String },
    #[error("the server answered with HTTP status {0}")]
    Http(u16),
    #[error("the server reset the stream with HTTP/2 error {0}")]
    Reset(u32),
    #[error("the server ended the connection with HTTP/2 error {code}{}", words(.text))]
    GoAway { code: u32, text: String },
    #[error("TLS failed: {0}")]
    Tls(String),
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    #[error(transparent)]
    Scan(#[from] ScanError),
}

fn words(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

/// Something that a connection received.
#[derive(Debug)]
pub(crate) enum Happened {
    /// A response, whole.
    Response(Received),
    /// The answer to our ping.
    Pong,
}

/// Bytes that went through a socket.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) received: u64,
    pub(crate) sent: u64,
}

/// A socket with a stream on it.
#[derive(Debug)]
pub(crate) struct Connection {
    fd: OwnedFd,
    connected: bool,
    tls: Option<Session>,
    incoming: Incoming,
    scanner: Scanner,
    pub(crate) outgoing: Outgoing,
    /// Bytes that the kernel did not take.
    unsent: Vec<u8>,
}

impl Connection {
    /// On a socket that is about to be connected.
    ///
    /// # Errors
    /// If there is no TLS to be had.
    pub(crate) fn new(fd: OwnedFd, target: &Target, scanner: Scanner) -> Result<Self, End> {
        let tls = target.tls.as_ref().map(Tls::begin).transpose().map_err(|error| End::Tls(error.to_string()))?;
        Ok(Self {
            fd,
            connected: false,
            tls,
            incoming: Incoming::default(),
            scanner,
            outgoing: Outgoing::begin(&target.headers),
            unsent: Vec::new(),
        })
    }

    /// Whether there is something to send.
    pub(crate) fn wants_send(&self) -> bool {
        !self.outgoing.is_empty() || self.tls.as_ref().is_some_and(Session::wants_send)
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Hands everything to the kernel that may be sent; whether the kernel has to be asked again because it is full.
    ///
    /// # Errors
    /// If there is no connection, or no more.
    pub(crate) fn send(&mut self, buffers: &mut Buffers, traffic: &mut Traffic) -> Result<bool, End> {
        if !self.connected {
            let error = getsockopt(&self.fd, sockopt::SocketError).map_err(End::Connect)?;
            if error != 0 {
                return Err(End::Connect(Errno::from_raw(error)));
            }
        }
        loop {
            let bytes = if self.unsent.is_empty() {
                buffers.write.clear();
                self.outgoing.fill(&mut buffers.write, WRITE);
                if let Some(tls) = &mut self.tls {
                    tls.seal(&mut buffers.write).map_err(|error| End::Tls(error.to_string()))?;
                }
                buffers.write.as_slice()
            } else {
                self.unsent.as_slice()
            };
            if bytes.is_empty() {
                return Ok(false);
            }
            match send(self.fd.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT) {
                Ok(sent) => {
                    self.connected = true;
                    traffic.sent += sent as u64;
                    self.unsent = bytes[sent..].to_vec();
                }
                Err(Errno::EAGAIN) => {
                    self.unsent = bytes.to_vec();
                    return Ok(true);
                }
                Err(Errno::EINTR) => {}
                Err(error) if self.connected => return Err(End::Broke(error)),
                Err(error) => return Err(End::Connect(error)),
            }
        }
    }

    /// Takes what the kernel has; `happened` learns of it with the time at which it arrived.
    ///
    /// # Errors
    /// If the stream has ended, in whatever way. What came before that was reported.
    pub(crate) fn receive(
        &mut self,
        buffers: &mut Buffers,
        traffic: &mut Traffic,
        happened: &mut dyn FnMut(&mut Outgoing, Happened, Nanos),
    ) -> Result<(), End> {
        loop {
            let mut parts = [IoSliceMut::new(&mut buffers.read)];
            let flags = MsgFlags::MSG_DONTWAIT;
            let (length, stamp) =
                match recvmsg::<()>(self.fd.as_raw_fd(), &mut parts, Some(&mut buffers.control), flags) {
                    Ok(message) => (message.bytes, stamp(message.cmsgs().ok().into_iter().flatten())),
                    Err(Errno::EAGAIN) => return Ok(()),
                    Err(Errno::EINTR) => continue,
                    Err(error) if self.connected => return Err(End::Broke(error)),
                    Err(error) => return Err(End::Connect(error)),
                };
            if length == 0 {
                return Err(End::Closed);
            }
            traffic.received += length as u64;
            let (bytes, arrived) = (&buffers.read[..length], stamp.unwrap_or_else(clock::now));
            match &mut self.tls {
                None => self.read(bytes, arrived, happened)?,
                Some(tls) => {
                    buffers.plain.clear();
                    tls.open(bytes, &mut buffers.plain).map_err(|error| End::Tls(error.to_string()))?;
                    self.read(&buffers.plain, arrived, happened)?;
                }
            }
            if length < READ {
                return Ok(());
            }
        }
    }

    fn read(
        &mut self,
        mut bytes: &[u8],
        arrived: Nanos,
        happened: &mut dyn FnMut(&mut Outgoing, Happened, Nanos),
    ) -> Result<(), End> {
        while let Some(event) = self.incoming.next(&mut bytes)? {
            match event {
                Event::Data(mut part) => {
                    while let Some(received) = self.scanner.next(&mut part)? {
                        happened(&mut self.outgoing, Happened::Response(received), arrived);
                    }
                }
                Event::DataEnd { counted, end_stream } => {
                    self.outgoing.received(counted);
                    if end_stream {
                        return Err(End::Closed);
                    }
                }
                Event::Headers { outcome, end_stream } => {
                    if let Some(code) = outcome.grpc_status {
                        return Err(End::Status { code, message: outcome.grpc_message });
                    }
                    match outcome.http_status {
                        Some(200) | None if !end_stream => {}
                        Some(200) | None => return Err(End::Closed),
                        Some(status) => return Err(End::Http(status)),
                    }
                }
                Event::Settings { initial_window, max_frame } => self.outgoing.settings(initial_window, max_frame),
                Event::Ping(payload) => self.outgoing.pong(payload),
                Event::Pong => happened(&mut self.outgoing, Happened::Pong, arrived),
                Event::Window { stream, increment } => self.outgoing.window(stream, increment),
                Event::Reset(code) => return Err(End::Reset(code)),
                Event::GoAway { code: 0, last_stream: 1.., .. } => {}
                Event::GoAway { code, text, .. } => return Err(End::GoAway { code, text }),
            }
        }
        Ok(())
    }
}

/// When the last of the bytes arrived, by the kernel's clock. Unix sockets have no such stamp.
fn stamp(messages: impl Iterator<Item = ControlMessageOwned>) -> Option<Nanos> {
    messages.into_iter().find_map(|message| match message {
        ControlMessageOwned::ScmTimestampns(time) => {
            Some(u64::try_from(time.tv_sec()).ok()? * 1_000_000_000 + u64::try_from(time.tv_nsec()).ok()?)
        }
        _ => None,
    })
}

/// The compressed headers of a request for the aggregated service.
fn headers(variant: Variant, scheme: &str, authority: &str, token: Option<&str>) -> Vec<u8> {
    const SERVICE: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService";
    let method = match variant {
        Variant::Delta => "DeltaAggregatedResources",
        Variant::Sotw => "StreamAggregatedResources",
    };
    let mut block = Vec::new();
    crate::http2::put(&mut block, ":method", "POST");
    crate::http2::put(&mut block, ":scheme", scheme);
    crate::http2::put(&mut block, ":path", &format!("{SERVICE}/{method}"));
    crate::http2::put(&mut block, ":authority", authority);
    crate::http2::put(&mut block, "te", "trailers");
    crate::http2::put(&mut block, "content-type", "application/grpc");
    crate::http2::put(&mut block, "x-envoy-internal", "true");
    if let Some(token) = token {
        crate::http2::put(&mut block, "authorization", &format!("Bearer {token}"));
    }
    block
}
