//! A sample TCP service that says who it is: each line that it reads comes back with its name in front.
//!
//! It never speaks first, so that it also works behind listeners that look at the first bytes of a connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::backend::bind;
use crate::netns::Namespace;
use crate::worker::{StopSignal, Worker};

/// A longer line ends the connection.
const LONGEST_LINE: u64 = 1 << 20;

/// A running sample TCP service. Dropping it cuts every connection.
#[derive(Debug)]
pub struct TcpBackend {
    address: SocketAddr,
    connections: Arc<AtomicU64>,
    // Held for its drop.
    _worker: Worker,
}

impl TcpBackend {
    /// Starts a service called `name` on `address`; port 0 takes any free port. To the line `hello` it answers
    /// `<name> hello`. It accepts connections on return.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub fn start(name: &str, address: SocketAddr) -> io::Result<TcpBackend> {
        TcpBackend::start_in(None, name, address)
    }

    /// Starts a service in a network namespace: see [`TcpBackend::start`].
    ///
    /// # Errors
    /// As there, and if the namespace cannot be entered.
    pub fn start_in(place: Option<&Namespace>, name: &str, address: SocketAddr) -> io::Result<TcpBackend> {
        let connections = Arc::new(AtomicU64::new(0));
        let (name, count): (Arc<str>, _) = (name.into(), connections.clone());
        let (worker, address) = Worker::start("tcp-backend", place, move |stop| {
            let listener = bind(address)?;
            Ok((listener.local_addr()?, serve(name, count, listener, stop)))
        })?;
        Ok(TcpBackend { address, connections, _worker: worker })
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections were accepted so far.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

async fn serve(name: Arc<str>, count: Arc<AtomicU64>, listener: TcpListener, mut stop: StopSignal) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.wait() => return,
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                count.fetch_add(1, Ordering::Relaxed);
                connections.spawn(answer(name.clone(), stream));
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn answer(name: Arc<str>, mut stream: TcpStream) -> io::Result<()> {
    let (reader, mut writer) = stream.split();
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = format!("{name} ").into_bytes();
        let start = line.len();
        (&mut reader).take(LONGEST_LINE).read_until(b'\n', &mut line).await?;
        if line.len() == start || line.last() != Some(&b'\n') {
            return Ok(());
        }
        writer.write_all(&line).await?;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::{BufRead, BufReader, Write};
    use std::net::{Ipv4Addr, TcpStream};

    use super::*;

    #[test]
    fn each_line_comes_back_with_the_name() {
        let backend = TcpBackend::start("db-v2", (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let mut stream = TcpStream::connect(backend.address()).unwrap();
        stream.write_all(b"one\ntwo\n").unwrap();
        let lines: Vec<_> = BufReader::new(stream).lines().take(2).map(Result::unwrap).collect();
        assert_eq!(lines, ["db-v2 one", "db-v2 two"]);
        assert_eq!(backend.connections(), 1);
    }
}
