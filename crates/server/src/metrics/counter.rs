//! A counter whose name is written as it is.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// Counts up. The OpenMetrics format would add `_total` to the name of a counter; Istio's counters have none, and
/// dashboards ask for the names as they are, so this one is written with the type `unknown`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counter {
    value: Arc<AtomicU64>,
}

impl Counter {
    /// Counts `more`.
    pub(crate) fn add(&self, more: u64) {
        self.value.fetch_add(more, Ordering::Relaxed);
    }
}

impl TypedMetric for Counter {
    const TYPE: MetricType = MetricType::Unknown;
}

impl EncodeMetric for Counter {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        // A gauge is written as a name and a value, which is all that is wanted here.
        encoder.encode_gauge(&self.value.load(Ordering::Relaxed))
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}
