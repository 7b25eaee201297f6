//! Invented tokens, of which each is worth a question to the API server.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use testkit::wait;
use testkit::wire::{ResourceType, Wire, WireError, node};
use tokio::task::JoinSet;
use tonic::Code;

use crate::fixture::{NODE, eventually};
use crate::token_review::Reviewed;

/// Longer than any of these tests: what waits is answered when the test says so.
const PATIENCE: Duration = Duration::from_secs(300);
/// Invented tokens, and connections that bring them.
const TOKENS: usize = 10_000;
const CONNECTIONS: usize = 100;
/// Questions that are asked at one time, and those that wait: of anybody, and of those who proved somebody before.
const AT_ONCE: usize = 32;
const OPEN: usize = 768;
const RESERVED: usize = 256;

const HONEST: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

async fn start() -> Reviewed {
    Reviewed::start_with(|_, review| review.patience = PATIENCE).await
}

/// Tokens with the issuer, audience and times of the cluster's own, that it has not signed.
fn invented(reviewed: &Reviewed) -> impl Iterator<Item = String> {
    let real = reviewed.cluster.token("default:client", "istio-ca");
    let claims = real.rsplit_once('.').unwrap().0.to_owned();
    (0..).map(move |number: u64| format!("{claims}.{}", BASE64_URL_SAFE_NO_PAD.encode(number.to_be_bytes())))
}

async fn wire_from(reviewed: &Reviewed, address: IpAddr) -> Wire {
    Wire::connect_tls_from(address, reviewed.server.address(), &reviewed.server.credentials()).await.unwrap()
}

/// How a stream with this token ends, if it does.
async fn code(wire: &Wire, token: &str) -> Option<Code> {
    let mut stream = wire.with_token(token).unwrap().sotw(node(NODE, "client"));
    stream.subscribe(ResourceType::Cluster, &[]).await;
    match stream.next(PATIENCE).await {
        Ok(_) => None,
        Err(WireError::Refused(status)) => Some(status.code()),
        Err(error) => panic!("{error}"),
    }
}

/// Waits until so many questions were given up because of others.
async fn crowded(reviewed: &Reviewed, count: usize) {
    wait::until("questions to be given up", PATIENCE, async || match reviewed.reviews("crowded").await {
        seen if seen == count as f64 => Ok(()),
        seen => Err(format!("{seen} of {count}")),
    })
    .await
    .unwrap();
}

/// Streams with as many tokens as are asked about at one time, and the answers kept back.
async fn occupied(reviewed: &Reviewed, tokens: &mut impl Iterator<Item = String>) -> JoinSet<Option<Code>> {
    reviewed.api.hold();
    let before = reviewed.api.asked();
    let mut streams = JoinSet::new();
    let wire = reviewed.server.wire().await;
    for token in tokens.take(AT_ONCE) {
        let wire = wire.clone();
        streams.spawn(async move { code(&wire, &token).await });
    }
    eventually(|| async { reviewed.api.asked() - before }, |asked| *asked == AT_ONCE as u64).await;
    streams
}

#[tokio::test(flavor = "multi_thread")]
async fn who_invents_ten_thousand_tokens_keeps_nobody_at_another_address_out() {
    let reviewed = start().await;
    let mut tokens = invented(&reviewed);
    let mut streams = occupied(&reviewed, &mut tokens).await;
    for _ in 0..CONNECTIONS {
        let wire = reviewed.server.wire().await;
        for token in tokens.by_ref().take(TOKENS / CONNECTIONS) {
            let wire = wire.clone();
            streams.spawn(async move { code(&wire, &token).await });
        }
    }
    let rest = TOKENS - OPEN;
    crowded(&reviewed, rest).await;
    // Somebody whom nobody has seen yet: one of the many makes room.
    let (wire, token) = (wire_from(&reviewed, HONEST).await, reviewed.known("default:client"));
    let honest = tokio::spawn(async move { code(&wire, &token).await });
    crowded(&reviewed, rest + 1).await;
    reviewed.api.release();
    assert_eq!(honest.await.unwrap(), None, "let in");
    let mut ends = std::collections::BTreeMap::new();
    while let Some(end) = streams.join_next().await {
        *ends.entry(format!("{:?}", end.unwrap())).or_insert(0) += 1;
    }
    let asked = OPEN + AT_ONCE - 1;
    let expected = [("Some(Unauthenticated)", asked), ("Some(Unavailable)", rest + 1)];
    assert_eq!(ends, expected.map(|(end, count)| (end.to_owned(), count)).into());
    assert_eq!(reviewed.api.asked(), asked as u64 + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_invents_tokens_at_many_addresses_keeps_nobody_out_who_was_proved_before() {
    let reviewed = start().await;
    let wire = wire_from(&reviewed, HONEST).await;
    assert_eq!(code(&wire, &reviewed.known("default:client")).await, None);
    let mut tokens = invented(&reviewed);
    let mut streams = occupied(&reviewed, &mut tokens).await;
    let addresses = (0..1000).map(|number: u32| Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 1).to_bits() + number));
    for (address, token) in addresses.zip(tokens) {
        let wire = wire_from(&reviewed, address.into()).await;
        streams.spawn(async move { code(&wire, &token).await });
    }
    let rest = 1000 - OPEN;
    crowded(&reviewed, rest).await;
    // Strangers that are as modest as each of these have no place; whoever was proved before has one.
    let stranger = wire_from(&reviewed, Ipv4Addr::new(127, 0, 0, 3).into()).await;
    assert_eq!(code(&stranger, &reviewed.known("default:client")).await, Some(Code::Unavailable));
    let mut honest = JoinSet::new();
    for _ in 0..RESERVED {
        let (wire, token) = (wire.clone(), reviewed.known("default:client"));
        honest.spawn(async move { code(&wire, &token).await });
    }
    reviewed.api.release();
    while let Some(end) = honest.join_next().await {
        assert_eq!(end.unwrap(), None, "let in");
    }
    assert_eq!(reviewed.reviews("crowded").await, rest as f64 + 1.0, "they have needed nobody's place");
    assert_eq!(streams.join_all().await.len(), 1000 + AT_ONCE);
    assert_eq!(code(&stranger, &reviewed.known("default:client")).await, None, "when they are gone");
}
