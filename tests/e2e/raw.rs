//! Single requests, and connections that carry other things than HTTP.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use testkit::load::{Plan, Reply};
use testkit::{stats, wait};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::mesh::PATIENCE;

/// The answer to one GET request.
pub async fn get(address: SocketAddr, host: &str, path: &str) -> Result<Reply, String> {
    Plan::get(address, host, path).timeout(PATIENCE).once().await.map_err(|error| format!("{error:#}"))
}

/// Asks until the answer is as wanted.
pub async fn get_where(address: SocketAddr, host: &str, path: &str, wanted: impl Fn(&Reply) -> bool) -> Reply {
    let what = format!("the wanted answer to http://{host}{path}");
    wait::until(&what, PATIENCE, async || match get(address, host, path).await {
        Ok(reply) if wanted(&reply) => Ok(reply),
        Ok(reply) => Err(format!("{reply:?}")),
        Err(error) => Err(error),
    })
    .await
    .unwrap()
}

/// Sends bytes and a newline on a new connection, and returns the first word of the line that comes back: the name of a
/// [`testkit::tcp_backend::TcpBackend`].
pub async fn name_behind(address: SocketAddr, bytes: &[u8]) -> Result<String, String> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(&[bytes, b"\n"].concat()).await?;
        let mut line = Vec::new();
        BufReader::new(stream).read_until(b'\n', &mut line).await?;
        io::Result::Ok(line)
    };
    match tokio::time::timeout(Duration::from_secs(10), exchange).await {
        Ok(Ok(line)) if line.is_empty() => Err("the connection was closed without an answer".to_owned()),
        Ok(Ok(line)) => Ok(String::from_utf8_lossy(line.split(|b| *b == b' ').next().unwrap_or(&line)).into_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer within 10 seconds".to_owned()),
    }
}

/// Connects until the named service answers.
pub async fn name_where(address: SocketAddr, bytes: &[u8], wanted: impl Fn(&str) -> bool) -> String {
    wait::until(&format!("the wanted service behind {address}"), PATIENCE, async || {
        match name_behind(address, bytes).await {
            Ok(name) if wanted(&name) => Ok(name),
            Ok(name) => Err(format!("answered by {name}")),
            Err(error) => Err(error),
        }
    })
    .await
    .unwrap()
}

/// Connects until so many connections in a row are answered by one service that the old split cannot have done it: with
/// a share of half, 30 in a row happen once in 10⁹.
pub async fn name_settled(address: SocketAddr, bytes: &[u8], name: &str) {
    const IN_A_ROW: usize = 30;
    wait::until(&format!("{name} alone behind {address}"), PATIENCE, async || {
        for number in 0..IN_A_ROW {
            match name_behind(address, bytes).await {
                Ok(by) if by == name => {}
                other => return Err(format!("after {number} in a row: {other:?}")),
            }
        }
        Ok(())
    })
    .await
    .unwrap();
}

/// Asserts that connections are split by weight, each answered. Opens as many as tell the weights from an even split.
pub async fn assert_connections_split(address: SocketAddr, bytes: &[u8], weights: &[(&str, u64)]) {
    let wanted: Vec<u64> = weights.iter().map(|(_, weight)| *weight).collect();
    let count = stats::sample_size(&wanted, &vec![1; wanted.len()], stats::FALSE_ALARM, 0.999);
    let mut counts = BTreeMap::new();
    for number in 0..count {
        match name_behind(address, bytes).await {
            Ok(name) => *counts.entry(name).or_insert(0) += 1,
            Err(error) => panic!("connection {number} of {count} failed: {error}; before: {counts:?}"),
        }
    }
    stats::assert_split(&counts, weights, stats::FALSE_ALARM);
}

/// The first message of a TLS client that names a server: a ClientHello of TLS 1.2 with the extension server_name
/// (RFC 5246, section 7.4.1.2; RFC 6066, section 3). No client is behind it, so nothing can follow.
pub fn client_hello(server_name: &str) -> Vec<u8> {
    let name = server_name.as_bytes();
    let u16s = |length: usize| u16::try_from(length).unwrap().to_be_bytes();
    // name_type host_name, then the name; a list of one.
    let entry = [&[0][..], &u16s(name.len()), name].concat();
    let list = [&u16s(entry.len())[..], &entry].concat();
    let extension = [&[0, 0][..], &u16s(list.len()), &list].concat();
    let mut hello = vec![3, 3];
    hello.extend([0x55; 32]); // random
    hello.push(0); // no session id
    hello.extend([0, 2, 0xc0, 0x2f]); // one cipher suite: TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
    hello.extend([1, 0]); // no compression
    hello.extend(u16s(extension.len()));
    hello.extend(extension);
    let handshake = [&[1, 0][..], &u16s(hello.len()), &hello].concat();
    [&[0x16, 3, 1][..], &u16s(handshake.len()), &handshake].concat()
}
