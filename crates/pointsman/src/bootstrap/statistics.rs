//! What an Envoy reports by the metrics service, and which statistics it keeps for that.

use std::time::Duration;

use serde_json::{Value, json};

/// Has the Envoy of this bootstrap report every `interval` by `service`, which leads to the server.
pub(super) fn report(bootstrap: &mut Value, interval: Duration, service: Value) {
    bootstrap["stats_flush_interval"] = json!(format!("{}s", interval.as_secs_f64()));
    bootstrap["stats_sinks"] = json!([sink(service)]);
    bootstrap["stats_config"] = kept();
}

/// Deltas, so that what is lost while there is no connection is lost, and is not taken for what happened after it; names
/// as they are, because Envoy takes the first part of a cluster's name for all of it.
fn sink(mut service: Value) -> Value {
    service["initial_metadata"] = json!([{ "key": "pointsman-counters", "value": "deltas" }]);
    json!({ "name": "envoy.stat_sinks.metrics_service", "typed_config": {
        "@type": "type.googleapis.com/envoy.config.metrics.v3.MetricsServiceConfig",
        "transport_api_version": "V3",
        "grpc_service": service,
        "report_counters_as_deltas": true,
        "histogram_emit_mode": "HISTOGRAM",
    } })
}

/// Every flush sends every statistic that there is, and Envoy has more than a hundred for each cluster: those that are
/// read are kept, and those that tell how the proxy itself is.
fn kept() -> Value {
    let whole = ["server.", "cluster_manager.", "listener_manager.", "control_plane."];
    let whole = whole.map(|prefix| json!({ "prefix": prefix }));
    let of_clusters = [
        r"upstream_rq_(completed|5xx|retry|time|[1-5]\d\d)",
        r"retry\.upstream_rq_(completed|5xx|[1-5]\d\d)",
        r"grpc\.\d+",
        // What an operator asks for first.
        r"upstream_(cx_active|cx_none_healthy|rq_active)",
    ];
    let of_clusters = format!(r"cluster\..+\.({})", of_clusters.join("|"));
    let mut patterns = whole.to_vec();
    patterns.push(json!({ "safe_regex": { "regex": of_clusters } }));
    json!({
        "stats_matcher": { "inclusion_list": { "patterns": patterns } },
        "histogram_bucket_settings": [{
            "match": { "suffix": "upstream_rq_time" },
            "buckets": TIME_EDGES,
        }],
    })
}

/// Bounds of the buckets that times of requests are counted in, in milliseconds: a metric's `latencyMs` is exact when it
/// is one of them.
const TIME_EDGES: [u32; 31] = [
    1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 75, 100, 150, 200, 250, 300, 400, 500, 600, 750, 1000, 1500, 2000, 2500, 3000,
    5000, 7500, 10_000, 15_000, 30_000, 60_000,
];
