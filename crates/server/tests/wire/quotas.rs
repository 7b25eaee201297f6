//! The rate limit service: limits that all proxies share.

use std::time::Instant;

use proto::pb::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use proto::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use proto::pb::envoy::service::ratelimit::v3::rate_limit_response::rate_limit::Unit;
use proto::pb::envoy::service::ratelimit::v3::rate_limit_response::{Code as Verdict, DescriptorStatus};
use proto::pb::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use proto::pb::google::protobuf::UInt64Value;
use server::{Config, QuotaStore};
use testkit::redis::Redis;
use testkit::wire::Wire;
use tonic::{Code, Status};

use crate::fixture::{SOON, config, serving};

const ASK: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";

const POLICY: &str = "
apiVersion: policy.pointsman.dev/v1alpha1
kind: RateLimitPolicy
metadata: { name: shop, namespace: default }
spec:
  limits:
    - { name: minute, requests: 10, per: 1m, scope: Global, by: [{ client: Identity }] }
    - { name: looked-at, requests: 1, per: 1h, scope: Global, dryRun: true }
    - { name: second, requests: 20, per: 1s, scope: Global }
    - { name: proxy, requests: 1, per: 1s }
";

fn descriptor(limit: &str, client: Option<&str>) -> RateLimitDescriptor {
    let entry = |key: &str, value: &str| Entry { key: key.to_owned(), value: value.to_owned() };
    let entries = [entry("limit", limit)].into_iter().chain(client.map(|client| entry("client", client)));
    RateLimitDescriptor { entries: entries.collect(), ..RateLimitDescriptor::default() }
}

async fn ask(wire: &Wire, descriptors: Vec<RateLimitDescriptor>) -> Result<RateLimitResponse, Status> {
    let request = RateLimitRequest { domain: "pointsman".to_owned(), descriptors, hits_addend: 0 };
    wire.call(ASK, request).await
}

async fn one(wire: &Wire, limit: &str, client: Option<&str>) -> DescriptorStatus {
    ask(wire, vec![descriptor(limit, client)]).await.unwrap().statuses.remove(0)
}

/// The answer of a server that has its counts in a Redis. That may take longer than it has on a busy machine; a question
/// without an answer may be counted all the same, and is asked again.
async fn answered(wire: &Wire, limit: &str, client: Option<&str>, unanswered: &mut u32) -> DescriptorStatus {
    let deadline = Instant::now() + SOON;
    loop {
        match ask(wire, vec![descriptor(limit, client)]).await {
            Ok(mut answer) => return answer.statuses.remove(0),
            Err(status) => assert_eq!(status.code(), Code::Unavailable),
        }
        assert!(Instant::now() < deadline, "nobody can say");
        *unanswered += 1;
    }
}

/// Asks for 13 where 10 are allowed in a minute, then for another client.
async fn reaches_its_limit(wire: &Wire) {
    let (mut allowed, mut unanswered) = (0, 0);
    for at in 0..13 {
        let status = answered(wire, "default/shop/minute", Some("a"), &mut unanswered).await;
        allowed += u32::from(status.code() == Verdict::Ok);
        // A window can end while this runs.
        assert!(at > 0 || (9 - unanswered.min(9)..=9).contains(&status.limit_remaining), "{status:?}");
    }
    assert!((10 - unanswered.min(10)..13).contains(&allowed), "{allowed} of 13, {unanswered} not answered");
    unanswered = 0;
    let status = answered(wire, "default/shop/minute", Some("b"), &mut unanswered).await;
    assert_eq!(status.code(), Verdict::Ok);
    assert!((9 - unanswered.min(9)..=9).contains(&status.limit_remaining), "{status:?}");
    let limit = status.current_limit.unwrap();
    assert_eq!((&*limit.name, limit.requests_per_unit, limit.unit()), ("default/shop/minute", 10, Unit::Minute));
    assert!((0..=60).contains(&status.duration_until_reset.unwrap().seconds));
}

#[tokio::test]
async fn clients_are_let_through_as_often_as_their_limit_says() {
    let server = serving(config(), POLICY).await;
    let wire = server.wire().await;
    reaches_its_limit(&wire).await;
    // A dry run counts and refuses nothing.
    for _ in 0..3 {
        assert_eq!(one(&wire, "default/shop/looked-at", None).await.code(), Verdict::Ok);
    }
    // One descriptor that is over makes the whole answer so.
    let both = vec![descriptor("default/shop/minute", Some("c")), descriptor("default/shop/minute", Some("a"))];
    let answer = ask(&wire, both).await.unwrap();
    assert_eq!(answer.overall_code(), Verdict::OverLimit);
    assert_eq!(answer.statuses[0].code(), Verdict::Ok);
    let (_, metrics) = server.get("/metrics").await;
    for line in [
        "pointsman_quota_requests{limit=\"default/shop/looked-at\",outcome=\"allowed\"} 1",
        "pointsman_quota_requests{limit=\"default/shop/looked-at\",outcome=\"dry_run\"} 2",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn what_is_not_limited_passes() {
    let server = serving(config(), POLICY).await;
    let wire = server.wire().await;
    // Gone, counted by proxies themselves, not ours, nothing at all.
    for limit in ["default/shop/gone", "default/shop/proxy", ""] {
        let status = one(&wire, limit, None).await;
        assert_eq!((status.code(), status.current_limit), (Verdict::Ok, None), "{limit}");
    }
    let nothing = ask(&wire, vec![RateLimitDescriptor::default()]).await.unwrap();
    assert_eq!(nothing.overall_code(), Verdict::Ok);
    assert_eq!(ask(&wire, Vec::new()).await.unwrap().overall_code(), Verdict::Ok);
    let foreign = RateLimitRequest { domain: "edge".to_owned(), ..RateLimitRequest::default() };
    let refused = wire.call::<_, RateLimitResponse>(ASK, foreign).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn hits_are_as_many_as_the_proxy_says_and_nobody_gives_any_back() {
    let server = serving(config(), POLICY).await;
    let wire = server.wire().await;
    let with = |hits: u64, is_negative_hits| RateLimitDescriptor {
        hits_addend: Some(UInt64Value { value: hits }),
        is_negative_hits,
        ..descriptor("default/shop/minute", Some("a"))
    };
    let remaining = async |hits| ask(&wire, vec![with(hits, false)]).await.unwrap().statuses[0].limit_remaining;
    assert_eq!(remaining(7).await, 3);
    assert_eq!(remaining(4).await, 3);
    let refused = ask(&wire, vec![with(7, true)]).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(remaining(0).await, 3);
    assert_eq!(remaining(u64::MAX).await, 3);
}

#[tokio::test]
async fn a_limit_that_changes_or_goes_is_another_at_once() {
    let server = serving(config(), POLICY).await;
    let wire = server.wire().await;
    assert_eq!(one(&wire, "default/shop/minute", Some("a")).await.limit_remaining, 9);
    server.apply(&POLICY.replace("requests: 10", "requests: 50")).await;
    let deadline = Instant::now() + SOON;
    while one(&wire, "default/shop/minute", Some("a")).await.current_limit.unwrap().requests_per_unit != 50 {
        assert!(Instant::now() < deadline, "the limit stays as it was");
    }
    assert!(one(&wire, "default/shop/minute", Some("a")).await.limit_remaining >= 45);
}

#[tokio::test]
async fn a_client_may_be_as_long_as_a_header() {
    let server = serving(config(), POLICY).await;
    let wire = server.wire().await;
    let long = "x".repeat(60_000);
    let other = format!("{long}y");
    assert_eq!(one(&wire, "default/shop/minute", Some(&long)).await.limit_remaining, 9);
    assert_eq!(one(&wire, "default/shop/minute", Some(&other)).await.limit_remaining, 9);
    assert_eq!(one(&wire, "default/shop/minute", Some(&long)).await.limit_remaining, 8);
}

#[tokio::test]
async fn replicas_count_together_in_a_redis() {
    let redis = Redis::start().await.unwrap();
    let shared = || Config { quotas: redis.url().parse::<QuotaStore>().unwrap(), ..config() };
    let (first, second) = (serving(shared(), POLICY).await, serving(shared(), POLICY).await);
    let (first, second) = (first.wire().await, second.wire().await);
    reaches_its_limit(&first).await;
    let (mut refused, mut unanswered) = (0, 0);
    for _ in 0..3 {
        let status = answered(&second, "default/shop/minute", Some("a"), &mut unanswered).await;
        refused += usize::from(status.code() == Verdict::OverLimit);
    }
    assert!(refused > 0, "the second replica knows nothing of the first");

    // As fast as both can: what passes is the rate, and one window at most.
    let (begun, mut passed) = (Instant::now(), 0);
    while passed < 60 {
        for wire in [&first, &second] {
            let status = answered(wire, "default/shop/second", None, &mut unanswered).await;
            passed += u32::from(status.code() == Verdict::Ok);
        }
    }
    let most = 20.0 * begun.elapsed().as_secs_f64() + 20.0;
    assert!(f64::from(passed) <= most, "{passed} passed where {most} may at 20 a second");
}

#[tokio::test]
async fn without_its_redis_nobody_can_say_and_it_recovers() {
    let mut redis = Redis::start().await.unwrap();
    let server = serving(Config { quotas: redis.url().parse().unwrap(), ..config() }, POLICY).await;
    let wire = server.wire().await;
    answered(&wire, "default/shop/minute", Some("a"), &mut 0).await;
    redis.kill().await.unwrap();
    let refused = ask(&wire, vec![descriptor("default/shop/minute", Some("a"))]).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    redis.restart().await.unwrap();
    let deadline = Instant::now() + SOON;
    while ask(&wire, vec![descriptor("default/shop/minute", Some("a"))]).await.is_err() {
        assert!(Instant::now() < deadline, "it does not find its Redis again");
    }
}
