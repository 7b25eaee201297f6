//! The counters of Envoy's that evidence is made of, by their names.

/// One number that Envoy keeps of a cluster. Names are those of Envoy 1.40; what each counts was seen there.
///
/// An answer is what went to the caller: the upstream's, or Envoy's own when there was none (no healthy endpoint, no
/// connection, timeout, overflow). An answer that led to a retry did not go there; it is counted beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stat {
    /// `upstream_rq_completed`: answers.
    Answered,
    /// `upstream_rq_5xx`: answers of 500 or more.
    Failed,
    /// `upstream_rq_503`: answers with this status.
    Code(u16),
    /// `upstream_rq_retry`: attempts that were followed by another.
    Retried,
    /// `retry.upstream_rq_completed`: those among them that were answered at all.
    RetriedAnswered,
    /// `retry.upstream_rq_5xx`: those with 500 or more.
    RetriedFailed,
    /// `retry.upstream_rq_503`: those with this status.
    RetriedCode(u16),
    /// `grpc.14`: answers to gRPC requests with this gRPC status, if the client has the filter `grpc_stats`.
    Grpc(u16),
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// A counter.
    Counter(Stat),
    /// `upstream_rq_time`: from the end of the request to the end of the answer, in milliseconds.
    Time,
}

/// The cluster and the number behind a full name such as `cluster.outbound|80|v1|reviews.default.svc.cluster.local.upstream_rq_503`;
/// `None` for numbers that are of no use here. The name of a cluster has dots itself, so it is what is left of the
/// known endings; that a name such as `cluster.x.zone.a.b.upstream_rq_503` leads to no cluster is for the caller to find.
pub(crate) fn parse(name: &str) -> Option<(&str, Named)> {
    let (head, leaf) = name.strip_prefix("cluster.")?.rsplit_once('.')?;
    if let Some(cluster) = head.strip_suffix(".grpc") {
        return Some((cluster, Named::Counter(Stat::Grpc(leaf.parse().ok()?))));
    }
    let kind = leaf.strip_prefix("upstream_rq_")?;
    if let Some(cluster) = head.strip_suffix(".retry") {
        let stat = match kind {
            "completed" => Stat::RetriedAnswered,
            "5xx" => Stat::RetriedFailed,
            code => Stat::RetriedCode(status(code)?),
        };
        return Some((cluster, Named::Counter(stat)));
    }
    let named = match kind {
        "time" => Named::Time,
        "completed" => Named::Counter(Stat::Answered),
        "5xx" => Named::Counter(Stat::Failed),
        "retry" => Named::Counter(Stat::Retried),
        code => Named::Counter(Stat::Code(status(code)?)),
    };
    Some((head, named))
}

fn status(text: &str) -> Option<u16> {
    (text.len() == 3).then(|| text.parse().ok()).flatten().filter(|code| (100..=999).contains(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: &str = "outbound|80|v1|reviews.default.svc.cluster.local";

    #[test]
    fn a_name_is_taken_apart_from_its_end() {
        for (ending, expected) in [
            ("upstream_rq_completed", Named::Counter(Stat::Answered)),
            ("upstream_rq_5xx", Named::Counter(Stat::Failed)),
            ("upstream_rq_503", Named::Counter(Stat::Code(503))),
            ("upstream_rq_retry", Named::Counter(Stat::Retried)),
            ("retry.upstream_rq_completed", Named::Counter(Stat::RetriedAnswered)),
            ("retry.upstream_rq_5xx", Named::Counter(Stat::RetriedFailed)),
            ("retry.upstream_rq_503", Named::Counter(Stat::RetriedCode(503))),
            ("grpc.14", Named::Counter(Stat::Grpc(14))),
            ("upstream_rq_time", Named::Time),
        ] {
            assert_eq!(parse(&format!("cluster.{CLUSTER}.{ending}")), Some((CLUSTER, expected)), "{ending}");
        }
    }

    #[test]
    fn what_looks_alike_is_something_else() {
        for name in [
            "cluster.x.upstream_rq_2xx",
            "cluster.x.upstream_rq_retry_success",
            "cluster.x.upstream_rq_total",
            "cluster.x.upstream_rq_99",
            "cluster.x.upstream_rq_",
            "cluster.x.grpc.success",
            "cluster.x.upstream_cx_total",
            "cluster.upstream_rq_completed",
            "http.x.upstream_rq_completed",
            "cluster.",
            "",
        ] {
            assert_eq!(parse(name), None, "{name}");
        }
        // Counted a second time for callers inside and outside: of a cluster that nobody has heard of.
        assert_eq!(parse("cluster.x.external.upstream_rq_503").map(|(cluster, _)| cluster), Some("x.external"));
    }
}
