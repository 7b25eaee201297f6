//! What a stream says about itself: while it lives to those who ask, and in the end to the books.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use proto::ResourceType;
use xds::Node;

use super::{End, StreamTask};
use crate::discovery::node::distribution_version;
use crate::discovery::roster::{Departed, Inspection, Report};
use crate::discovery::witness;
use crate::plane_task::Attachment;
use crate::rotation::ClientTrust;

impl StreamTask {
    /// Answers whoever asked how the stream stands.
    pub(super) fn report(&self, inspection: Inspection) {
        let newest = self.attachment.as_ref().map(Attachment::newest);
        let report = Report {
            summaries: self.machine.summary(),
            standings: self.machine.standings(),
            holdings: if inspection.with_holdings { self.machine.holdings() } else { Vec::new() },
            missing: if inspection.with_holdings { self.machine.missing() } else { Vec::new() },
            generation: newest.as_ref().map_or(0, |newest| newest.generation),
            member: self.attachment.as_ref().map(Attachment::member),
            settled: self.attachment.as_ref().and_then(Attachment::settled_generation),
            target: newest.map(|newest| self.with_secrets(&newest.snapshot)),
            trust: self.trust(),
            now: (Instant::now(), SystemTime::now()),
        };
        // Whoever asked may have lost patience.
        let _ = inspection.reply.send(report);
    }

    /// What it holds of certificates and authorities.
    fn trust(&self) -> Option<ClientTrust> {
        let standings = self.machine.standings();
        let held = standings.iter().filter(|standing| standing.resource_type() == ResourceType::Secret);
        let held: Vec<_> = held.flat_map(xds::Standing::holdings).collect();
        Some(self.secrets.as_ref()?.trust(self.machine.wants(ResourceType::Secret), &held))
    }

    /// How it stood in the end, without what would keep snapshots alive.
    fn depart(&self, node: &Arc<Node>, reason: &str) {
        let now = (Instant::now(), SystemTime::now());
        let generation = self.target.as_ref().map_or(0, |target| target.generation);
        let report = Report {
            summaries: self.machine.summary(),
            standings: Vec::new(),
            holdings: Vec::new(),
            missing: Vec::new(),
            target: None,
            generation,
            member: self.attachment.as_ref().map(Attachment::member),
            settled: self.attachment.as_ref().and_then(Attachment::settled_generation),
            trust: self.trust(),
            now,
        };
        self.place.depart(Departed {
            node: node.clone(),
            address: self.connection.peer.to_string(),
            opened: self.connection.opened,
            ended: now,
            reason: reason.to_owned(),
            service: self.service,
            variant: self.variant,
            report,
        });
        witness::tell_end(&self.discovery.journal, node, generation, reason);
    }

    /// Books the end of the stream.
    pub(in crate::discovery) fn finish(self, end: &End) {
        let code = match end {
            End::Gone => None,
            End::Status(status) => Some(status.code()),
        };
        let message = match end {
            End::Gone => "the client left",
            End::Status(status) => status.message(),
        };
        let (stream, seconds) = (self.place.number(), self.opened.elapsed().as_secs_f64());
        match &self.node {
            Some(node) => {
                tracing::info!(node = node.id, peer = %self.connection.peer, stream, seconds, ?code, message, "node disconnected");
                self.discovery.metrics.node_gone(distribution_version(node));
                // A stream that its client closes in good order ends with a status that says nothing.
                self.depart(node, if message.is_empty() { "the client left" } else { message });
            }
            None => {
                tracing::debug!(peer = %self.connection.peer, stream, ?code, message, "stream ended without a node")
            }
        }
        self.discovery.metrics.stream_ended(&self.label, code);
    }
}
