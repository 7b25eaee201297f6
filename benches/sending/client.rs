//! Clients that count bytes: one thread, a minimal HTTP/2 of their own, no timers. They take every message whole
//! before they acknowledge it, and understand nothing of it.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Connected clients with one stream each.
pub struct Clients {
    clients: Vec<Client>,
}

struct Client {
    socket: TcpStream,
    /// The part of a frame that has been read: its head.
    head: [u8; 9],
    filled: usize,
    /// Bytes of the frame's payload that are to come, and whether they are of a message.
    payload: usize,
    is_data: bool,
    /// Bytes of the current message that have come, with gRPC's five.
    message: usize,
}

#[allow(dead_code)]
#[path = "../../tests/fuzz/drive/frames.rs"]
mod frames;

use frames::frame;

const HEAD: usize = 9;
const ACKNOWLEDGEMENT: usize = 100;

/// A gRPC message of zeros in DATA frames of at most 16 KiB.
fn message(len: usize) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend(u32::try_from(len).unwrap().to_be_bytes());
    bytes.resize(5 + len, 0);
    bytes.chunks(16 * 1024).flat_map(|chunk| frame(0, 0, 1, chunk)).collect()
}

/// A literal header field without indexing, its name and value as they are.
fn header(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        bytes.push(u8::try_from(text.len()).unwrap());
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

fn hello(first: usize) -> Vec<u8> {
    let mut bytes = frames::PREFACE.to_vec();
    // INITIAL_WINDOW_SIZE, and the connection's window: as much as there is.
    bytes.extend(frame(4, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]));
    bytes.extend(frame(8, 0, 0, &(0x7fff_ffffu32 - 65_535).to_be_bytes()));
    let headers = [
        header(":method", "POST"),
        header(":scheme", "http"),
        header(":path", "/push"),
        header(":authority", "bench"),
        header("content-type", "application/grpc"),
        header("te", "trailers"),
    ];
    bytes.extend(frame(1, 4, 1, &headers.concat()));
    bytes.extend(message(first));
    bytes
}

impl Clients {
    /// Connects so many, each with a first message of so many bytes.
    pub fn connect(port: u16, count: usize, first: usize) -> Clients {
        let hello = hello(first);
        let connect = |_| {
            let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
            socket.set_nodelay(true).unwrap();
            socket.write_all(&hello).unwrap();
            socket.set_nonblocking(true).unwrap();
            Client { socket, head: [0; HEAD], filled: 0, payload: 0, is_data: false, message: 0 }
        };
        Clients { clients: (0..count).map(connect).collect() }
    }

    /// Waits until each has got a message of so many bytes, and acknowledges it.
    pub fn wait_for_messages(&mut self, bytes: usize) {
        let acknowledgement = message(ACKNOWLEDGEMENT);
        let mut buffer = vec![0; 256 * 1024];
        let mut waiting: Vec<usize> = (0..self.clients.len()).collect();
        while !waiting.is_empty() {
            let before = waiting.len();
            waiting.retain(|at| {
                let client = &mut self.clients[*at];
                let is_whole = client.read(&mut buffer, bytes + 5);
                if is_whole {
                    client.message = 0;
                    client.socket.write_all(&acknowledgement).unwrap();
                }
                !is_whole
            });
            if waiting.len() == before {
                std::thread::sleep(Duration::from_micros(100));
            }
        }
    }
}

impl Client {
    /// Reads what there is. True once the message is whole.
    fn read(&mut self, buffer: &mut [u8], whole: usize) -> bool {
        loop {
            match self.socket.read(buffer) {
                Ok(0) => panic!("the server has closed a connection"),
                Ok(count) => self.take(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
            if self.message == whole {
                break;
            }
        }
        assert!(self.message <= whole, "a message of {} bytes; {whole} were to come", self.message);
        self.message == whole
    }

    fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.payload > 0 {
                let now = self.payload.min(bytes.len());
                self.message += if self.is_data { now } else { 0 };
                self.payload -= now;
                bytes = &bytes[now..];
                continue;
            }
            let now = (HEAD - self.filled).min(bytes.len());
            self.head[self.filled..self.filled + now].copy_from_slice(&bytes[..now]);
            self.filled += now;
            bytes = &bytes[now..];
            if self.filled == HEAD {
                self.filled = 0;
                self.begin_frame();
            }
        }
    }

    fn begin_frame(&mut self) {
        let [a, b, c, kind, flags, ..] = self.head;
        self.payload = u32::from_be_bytes([0, a, b, c]) as usize;
        self.is_data = kind == 0;
        assert!(kind != 7 && kind != 3, "the server has ended a stream or the connection");
        if kind == 4 && flags & 1 == 0 {
            self.socket.write_all(&frame(4, 1, 0, &[])).unwrap();
        }
    }
}
