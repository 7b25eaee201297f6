//! What a route does with its requests.

use std::sync::Arc;
use std::time::Duration;

use proto::pb::envoy::config::route::v3::route;
use proto::pb::envoy::config::route::v3::route_action::{HashPolicy, RequestMirrorPolicy};

use super::retry;
use super::rewrite::Change;
use crate::flat;

/// Bytes that most forwarding actions fit into.
const ROOM: usize = 384;

/// `Route.action`.
#[derive(Clone, Debug)]
pub(super) enum Action {
    /// This field: the client answers itself.
    Answer(Vec<u8>),
    /// `Route.route`: it sends them on.
    Forward {
        /// The fields of `RouteAction`, but for a change of the path, which depends on the match.
        fields: Vec<u8>,
        /// Where the change of a prefix belongs among them. That of an expression (32) is behind all of them: only gRPC
        /// clients, which change no paths, have more (36).
        prefix_at: usize,
    },
}

/// All that a forwarding action may say beside where to.
#[derive(Clone, Debug, Default)]
pub(super) struct Forwarding<'a> {
    /// Replaces the request's authority.
    pub(super) host: Option<&'a str>,
    /// Bounds the whole exchange; `None` for no bound.
    pub(super) timeout: Option<Duration>,
    pub(super) retries: Option<retry::Policy>,
    pub(super) hash: &'a [HashPolicy],
    pub(super) mirrors: &'a [RequestMirrorPolicy],
    /// Whether the client is gRPC's.
    pub(super) grpc: bool,
}

impl Action {
    /// The client's own answer.
    pub(super) fn answer(answer: &route::Action) -> Self {
        let mut field = Vec::with_capacity(answer.encoded_len());
        answer.encode(&mut field);
        Action::Answer(field)
    }

    /// To this cluster, with Envoy's defaults for everything.
    pub(super) fn to(cluster: &str) -> Self {
        let mut fields = Vec::new();
        flat::bytes(&mut fields, 1, cluster.as_bytes());
        Action::Forward { prefix_at: fields.len(), fields }
    }

    /// To these clusters alike, with defaults for everything: `ClusterWeight` has a name 1 and a weight 2.
    pub(super) fn to_all(clusters: &[Arc<str>]) -> Self {
        let mut fields = Vec::new();
        flat::message(&mut fields, 3, |out| {
            for cluster in clusters {
                flat::message(out, 1, |out| {
                    flat::text(out, 1, cluster);
                    flat::wrapped(out, 2, 1);
                });
            }
        });
        Action::Forward { prefix_at: fields.len(), fields }
    }

    /// To the clusters that `write_clusters` writes, which are `RouteAction.cluster_specifier`; after them
    /// host_rewrite_literal 6, timeout 8, retry_policy 9, hash_policy 15, max_grpc_timeout 23, request_mirror_policies
    /// 30, max_stream_duration 36 (its max_stream_duration 1).
    ///
    /// No timeout unless one is given; and then it bounds the one that a gRPC request brings along. For Envoy the bound
    /// is the older field, as in Istio: any `max_stream_duration` makes Envoy ignore `timeout`
    /// (`FilterUtility::finalTimeout` in `source/common/router/router.cc` of 1.40), and its own bound ends requests with
    /// 408 instead of 504.
    pub(super) fn forward(parts: &Forwarding<'_>, write_clusters: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut fields = Vec::with_capacity(ROOM);
        let out = &mut fields;
        write_clusters(out);
        let prefix_at = out.len();
        if let Some(host) = parts.host {
            flat::bytes(out, 6, host.as_bytes());
        }
        let timeout = parts.timeout.unwrap_or(Duration::ZERO);
        if !parts.grpc {
            flat::duration(out, 8, timeout);
        }
        if let Some(retries) = &parts.retries {
            retries.write(out, 9);
        }
        for policy in parts.hash {
            flat::built(out, 15, policy);
        }
        if !parts.grpc {
            flat::duration(out, 23, timeout);
        }
        for policy in parts.mirrors {
            flat::built(out, 30, policy);
        }
        if parts.grpc && !timeout.is_zero() {
            flat::message(out, 36, |out| flat::duration(out, 1, timeout));
        }
        Action::Forward { fields, prefix_at }
    }

    /// Writes the action of a route that changes the path by `change`: an answer as it is, else `Route.route` 2 with
    /// prefix_rewrite 5 or regex_rewrite 32 inside.
    pub(super) fn write(&self, out: &mut Vec<u8>, change: Option<&Change<'_>>) {
        match self {
            Action::Answer(field) => out.extend_from_slice(field),
            Action::Forward { fields, prefix_at } => flat::message(out, 2, |out| {
                let (before, after) = fields.split_at(*prefix_at);
                out.extend_from_slice(before);
                if let Some(Change::Prefix(prefix)) = change {
                    flat::text(out, 5, prefix);
                }
                out.extend_from_slice(after);
                if let Some(change) = change {
                    change.write_regex(out, 32);
                }
            }),
        }
    }
}
