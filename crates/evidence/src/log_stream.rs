//! One stream of the access log service.

use std::sync::Arc;

use proto::pb::envoy::data::accesslog::v3::{AccessLogCommon, AccessLogType, HttpAccessLogEntry, ResponseFlags};
use proto::pb::envoy::data::accesslog::v3::{HttpResponseProperties, TcpAccessLogEntry};
use proto::pb::envoy::service::accesslog::v3::StreamAccessLogsMessage;
use proto::pb::envoy::service::accesslog::v3::stream_access_logs_message::LogEntries;
use proto::pb::google::protobuf;

use crate::{Interest, Stat, Sums};

/// The server's end of one stream, which says nothing to the client. An Envoy has as many of them as worker threads.
///
/// Every entry is a request that has ended, and is sent once. Entries of the first message after a cluster became of
/// interest are not counted for it: some of them may be older.
#[derive(Debug, Default)]
pub struct LogStream {
    /// The generation of the interest at the last message.
    generation: Option<u64>,
}

impl LogStream {
    /// A stream on which nothing was said yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// What the entries count for the clusters of interest; each cluster at most once, in order of first mention.
    pub fn handle(&mut self, message: &StreamAccessLogsMessage, interest: &Interest) -> Vec<(Arc<str>, Sums)> {
        let counted = self.generation.replace(interest.generation());
        let mut sums = Vec::new();
        match &message.log_entries {
            Some(LogEntries::HttpLogs(logs)) => {
                for entry in &logs.log_entry {
                    if let Some(sum) = slot(entry.common_properties.as_ref(), interest, counted, &mut sums) {
                        http(entry, sum);
                    }
                }
            }
            Some(LogEntries::TcpLogs(logs)) => {
                for entry in &logs.log_entry {
                    if let Some(sum) = slot(entry.common_properties.as_ref(), interest, counted, &mut sums) {
                        tcp(entry, sum);
                    }
                }
            }
            None => {}
        }
        sums
    }
}

/// Where an entry is counted, if it is.
fn slot<'a>(
    common: Option<&AccessLogCommon>,
    interest: &Interest,
    counted: Option<u64>,
    sums: &'a mut Vec<(Arc<str>, Sums)>,
) -> Option<&'a mut Sums> {
    let common = common?;
    let wanted = interest.by_stat_name(&common.upstream_cluster)?;
    // Entries that tell of a request's beginning, or of its progress, come beside the one of its end.
    let ends = matches!(common.access_log_type(), AccessLogType::NotSet | AccessLogType::DownstreamEnd);
    let is_counted = counted.is_some_and(|generation| wanted.since <= generation);
    if !ends || !is_counted || wanted.excludes(&common.route_name) {
        return None;
    }
    let at = match sums.iter().position(|(cluster, _)| *cluster == wanted.cluster) {
        Some(at) => at,
        None => {
            sums.push((wanted.cluster.clone(), Sums::default()));
            sums.len() - 1
        }
    };
    Some(&mut sums[at].1)
}

fn http(entry: &HttpAccessLogEntry, sums: &mut Sums) {
    let (Some(common), Some(response)) = (&entry.common_properties, &entry.response) else { return };
    // A caller that goes before there is an answer says nothing about the upstream.
    let Some(code) = response.response_code.filter(|code| code.value >= 100) else { return };
    sums.count(Stat::Answered, 1);
    if code.value >= 500 {
        sums.count(Stat::Failed, 1);
    }
    sums.count(Stat::Code(u16::try_from(code.value).unwrap_or(u16::MAX)), 1);
    sums.count(Stat::Retried, common.upstream_request_attempt_count.saturating_sub(1).into());
    if let Some(status) = grpc_status(response) {
        sums.count(Stat::Grpc(status), 1);
    }
    if let Some(micros) = common.duration.as_ref().and_then(micros) {
        sums.time(rounded(micros), 1);
    }
}

/// A connection counts as a request that was answered, or not.
fn tcp(entry: &TcpAccessLogEntry, sums: &mut Sums) {
    let flags = entry.common_properties.as_ref().and_then(|common| common.response_flags.as_ref());
    sums.count(Stat::Answered, 1);
    if flags.is_some_and(has_failed) {
        sums.count(Stat::Failed, 1);
        sums.count(Stat::Code(503), 1);
    }
}

/// Whether there was no connection to the upstream, or it broke.
fn has_failed(flags: &ResponseFlags) -> bool {
    flags.no_healthy_upstream
        || flags.upstream_connection_failure
        || flags.upstream_connection_termination
        || flags.upstream_remote_reset
        || flags.upstream_overflow
        || flags.upstream_retry_limit_exceeded
        || flags.no_cluster_found
}

/// In the trailers, or in the headers of an answer that has nothing else; the logger must be told to log either.
fn grpc_status(response: &HttpResponseProperties) -> Option<u16> {
    let find = |from: &std::collections::HashMap<String, String>| from.get("grpc-status")?.parse().ok();
    find(&response.response_trailers).or_else(|| find(&response.response_headers))
}

fn micros(duration: &protobuf::Duration) -> Option<u64> {
    let seconds = u64::try_from(duration.seconds).ok()?;
    let nanos = u64::try_from(duration.nanos).ok()?;
    Some(seconds.saturating_mul(1_000_000).saturating_add(nanos / 1000))
}

/// To two significant digits, downwards, so that there are few different ones: what Envoy's own histograms do.
fn rounded(micros: u64) -> u64 {
    let unit = 10_u64.pow(micros.checked_ilog10().unwrap_or_default().saturating_sub(1));
    micros / unit * unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_kept_to_two_digits() {
        for (exact, kept) in [(0, 0), (7, 7), (42, 42), (999, 990), (250_000, 250_000), (1_234_567, 1_200_000)] {
            assert_eq!(rounded(exact), kept, "{exact}");
        }
        assert_eq!(rounded(u64::MAX), 18_000_000_000_000_000_000);
    }
}
