//! Known attacks on HTTP/2, against the server: what each may do before its connection ends, and that nobody else
//! notices. What the machine below keeps is tested with it.

use proto::ResourceType;
use testkit::wire::node;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::fixture::{NODE, REVIEWS, Running, SOON, config, eventually, serving};

#[allow(dead_code)]
#[path = "../../../../tests/fuzz/drive/frames.rs"]
mod frames;

use frames::{END_HEADERS, PREFACE, frame, rst_stream};

/// The beginning of a call that is served here.
fn call(stream: u32) -> Vec<u8> {
    let path = b"/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
    let mut block = vec![0x83, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
    block.extend_from_slice(path);
    block.extend([0x0f, 0x10, 16]);
    block.extend_from_slice(b"application/grpc");
    frame(1, END_HEADERS, stream, &block)
}

fn reset(stream: u32) -> Vec<u8> {
    rst_stream(stream, 8)
}

async fn connect(server: &Running) -> TcpStream {
    let mut socket = TcpStream::connect(server.tcp()).await.unwrap();
    socket.write_all(&[PREFACE, &frame(4, 0, 0, &[])].concat()).await.unwrap();
    socket
}

/// Writes and reads until the server hangs up; the code of its GOAWAY.
async fn code_after(mut socket: TcpStream, attack: Vec<u8>) -> Option<u32> {
    let (mut reading, mut writing) = socket.split();
    let mut said = Vec::new();
    let write = async {
        // The server may hang up before it has read it all.
        let _ = writing.write_all(&attack).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = write => {}
        ended = tokio::time::timeout(SOON, reading.read_to_end(&mut said)) => {
            let _ = ended.expect("the connection ends");
        }
    }
    let goaway = said.windows(17).rfind(|bytes| bytes[..9] == [0, 0, 8, 7, 0, 0, 0, 0, 0])?;
    Some(u32::from_be_bytes(goaway[13..].try_into().unwrap()))
}

/// That one connection was closed for its resets. It may be told of the end a moment before that is counted.
async fn is_counted(server: &Running) {
    let closed = || server.metric(r#"pointsman_connections_closed{reason="resets"}"#);
    eventually(closed, |count| *count == Some(1.0)).await;
}

async fn is_served(server: &Running) {
    let mut stream = server.wire().await.sotw(node(NODE, "client"));
    stream.subscribe(ResourceType::Cluster, &[]).await;
    assert!(!stream.next(SOON).await.unwrap().resources.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_resets_its_streams_as_fast_as_it_opens_them_loses_its_connection() {
    let server = serving(config(), REVIEWS).await;
    let attack = (0..20_000).flat_map(|n| [call(2 * n + 1), reset(2 * n + 1)].concat()).collect();
    let code = code_after(connect(&server).await, attack).await;
    // A client that goes on writing may be told by TCP alone.
    assert!(code.is_none_or(|code| code == 11), "{code:?}");
    is_counted(&server).await;
    let open = || server.metric(r#"pointsman_streams{service="ads",variant="delta"}"#);
    eventually(open, |count| *count == Some(0.0)).await;
    let opened = r#"pointsman_streams_ended{service="ads",variant="delta",code="-"}"#;
    assert!(server.metric(opened).await.is_none_or(|count| count <= 1_100.0));
    is_served(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_makes_the_server_reset_its_streams_loses_its_connection_as_well() {
    let server = serving(config(), REVIEWS).await;
    // No more window is a fault of the stream.
    let attack = (0..20_000).flat_map(|n| [call(2 * n + 1), frame(8, 0, 2 * n + 1, &[0; 4])].concat()).collect();
    let code = code_after(connect(&server).await, attack).await;
    assert!(code.is_none_or(|code| code == 11), "{code:?}");
    is_counted(&server).await;
    is_served(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_block_without_an_end_ends_its_connection() {
    let server = serving(config(), REVIEWS).await;
    let mut attack = frame(1, 0, 1, &[]);
    (0..200).for_each(|_| attack.extend(frame(9, 0, 1, &[0; 1_000])));
    let code = code_after(connect(&server).await, attack).await;
    assert!(code.is_none_or(|code| code == 11), "{code:?}");
    is_served(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_pings_and_reads_nothing_is_not_read_either() {
    let server = serving(config(), REVIEWS).await;
    let mut socket = connect(&server).await;
    let pings = frame(6, 0, 0, b"12345678").repeat(1_000);
    let mut written = 0;
    // What both sockets and the server take is some megabytes; a server that goes on reading takes any number.
    let second = std::time::Duration::from_secs(1);
    while let Ok(count) = tokio::time::timeout(second, socket.write(&pings[written % 17..])).await {
        written += count.unwrap();
        assert!(written < 100 << 20, "the server reads on");
    }
    is_served(&server).await;
}
