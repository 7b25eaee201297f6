//! Envoy's rate limit service: what all proxies may let through together.
//!
//! Proxies send descriptors, as the compiler wrote them: the name of a limit, and what is counted apart. What the limit
//! is stands in a table that the plane keeps; the counts are in the [`Store`].

mod limits;
mod redis_store;
mod store;

pub(crate) use limits::{Limit, Limits, Table};
pub use store::QuotaStore;
pub(crate) use store::Store;

use std::sync::Arc;

use aws_lc_rs::digest;
use compile::rate_limit::{DOMAIN, LIMIT_KEY};
use proto::pb::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use proto::pb::envoy::service::ratelimit::v3::rate_limit_response::rate_limit::Unit;
use proto::pb::envoy::service::ratelimit::v3::rate_limit_response::{Code, DescriptorStatus, RateLimit};
use proto::pb::envoy::service::ratelimit::v3::rate_limit_service_server::{RateLimitService, RateLimitServiceServer};
use proto::pb::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use proto::pb::google::protobuf;
use quota::{Rate, Standing};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::metrics::{Metrics, Passage};
use crate::trust::Caller;

/// Longer keys are replaced by their hash: what is counted apart may be as long as a header.
const LONGEST_KEY: usize = 256;

/// Serves `envoy.service.ratelimit.v3.RateLimitService`.
#[derive(Clone, Debug)]
pub(crate) struct QuotaService {
    limits: watch::Receiver<Arc<Table>>,
    store: Arc<Store>,
    metrics: Arc<Metrics>,
}

impl QuotaService {
    /// The service, ready to be routed to.
    pub(crate) fn new(
        limits: watch::Receiver<Arc<Table>>,
        store: Arc<Store>,
        metrics: Arc<Metrics>,
    ) -> RateLimitServiceServer<Self> {
        RateLimitServiceServer::new(Self { limits, store, metrics })
    }

    /// How one descriptor stands. One that is not ours, or whose limit is gone, has no limit.
    async fn judge(
        &self,
        descriptor: &RateLimitDescriptor,
        hits: u64,
        caller: Option<&Caller>,
    ) -> Result<DescriptorStatus, Status> {
        let table = self.limits.borrow().clone();
        let named = descriptor.entries.first().filter(|entry| entry.key == LIMIT_KEY);
        let Some((name, limit)) = named.and_then(|entry| table.get(&entry.value)) else {
            self.metrics.asked_about_limit("", Passage::Unknown);
            return Ok(DescriptorStatus { code: Code::Ok.into(), ..DescriptorStatus::default() });
        };
        if let Some(caller) = caller
            && !limit.concerns(caller.id.workload.namespace())
        {
            tracing::warn!(identity = %caller.id, limit = name, "a proxy asked about a limit that is not for it");
            return Err(Status::permission_denied("the limit is of another namespace"));
        }
        // Whoever could give hits back could end everybody's limit. No configuration of ours asks for it.
        if descriptor.is_negative_hits {
            tracing::warn!(
                identity = caller.map(|caller| caller.id.to_string()),
                limit = name,
                "hits were to be given back"
            );
            return Err(Status::permission_denied("hits are not given back"));
        }
        let hits = descriptor.hits_addend.map_or(hits, |own| own.value);
        let standing = self.store.take(&key(name, descriptor), limit.rate, hits).await.map_err(|error| {
            self.metrics.asked_about_limit(name, Passage::Failed);
            Status::unavailable(error.to_string())
        })?;
        let passage = match (standing.is_allowed, limit.is_dry_run) {
            _ if standing.is_uncounted => Passage::Uncounted,
            (true, _) => Passage::Allowed,
            (false, true) => Passage::DryRun,
            (false, false) => Passage::Refused,
        };
        self.metrics.asked_about_limit(name, passage);
        Ok(status(name, limit, standing))
    }
}

#[tonic::async_trait]
impl RateLimitService for QuotaService {
    async fn should_rate_limit(
        &self,
        request: Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        let RateLimitRequest { domain, descriptors, hits_addend } = request.into_inner();
        if domain != DOMAIN {
            return Err(Status::invalid_argument(format!("the domain served here is \"{DOMAIN}\"")));
        }
        let hits = u64::from(hits_addend.max(1));
        let mut statuses = Vec::with_capacity(descriptors.len());
        for descriptor in &descriptors {
            statuses.push(self.judge(descriptor, hits, caller.as_ref()).await?);
        }
        let is_over = statuses.iter().any(|status| status.code == i32::from(Code::OverLimit));
        let overall = if is_over { Code::OverLimit } else { Code::Ok };
        Ok(Response::new(RateLimitResponse { overall_code: overall.into(), statuses, ..RateLimitResponse::default() }))
    }
}

/// What counts are kept under: the limit's name and what is counted apart.
fn key(name: &str, descriptor: &RateLimitDescriptor) -> String {
    let mut key = name.to_owned();
    for entry in &descriptor.entries[1..] {
        key.push('|');
        key.push_str(&entry.value);
    }
    if key.len() <= LONGEST_KEY {
        return key;
    }
    let hash = digest::digest(&digest::SHA256, key.as_bytes());
    let hex: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{name}|sha256:{hex}")
}

fn status(name: &str, limit: &Limit, standing: Standing) -> DescriptorStatus {
    let Standing { is_allowed, remaining, until_reset, .. } = standing;
    let code = if is_allowed || limit.is_dry_run { Code::Ok } else { Code::OverLimit };
    DescriptorStatus {
        code: code.into(),
        current_limit: Some(RateLimit {
            name: name.to_owned(),
            requests_per_unit: limit.rate.requests(),
            unit: unit(limit.rate).into(),
        }),
        limit_remaining: remaining,
        duration_until_reset: Some(protobuf::Duration {
            seconds: i64::try_from(until_reset.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(until_reset.subsec_nanos()).unwrap_or(0),
        }),
        quota: None,
    }
}

/// The unit that a window is one of; Envoy leaves the window out of its headers when it is none.
fn unit(rate: Rate) -> Unit {
    match (rate.window().as_secs(), rate.window().subsec_nanos()) {
        (1, 0) => Unit::Second,
        (60, 0) => Unit::Minute,
        (3600, 0) => Unit::Hour,
        (86_400, 0) => Unit::Day,
        (604_800, 0) => Unit::Week,
        _ => Unit::Unknown,
    }
}
