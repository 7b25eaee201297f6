//! What a client says on a stream: who it is, what it wants, and whether it took what it was sent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use proto::pb::envoy::config::core::v3 as core;
use proto::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use proto::pb::google::rpc::Status;
use proto::{ResourceType, xdstp};
use snapshot::{Name, Snapshot, Version};

use super::Stream;
use super::interest::Interest;
use super::substream::Applied;
use crate::{Node, Outcome, Refusal, Service, Settings};

impl Stream {
    pub(super) fn handle_sotw(&mut self, now: Instant, request: DiscoveryRequest) -> Result<(), Refusal> {
        self.identify(request.node)?;
        let Some(resource_type) = self.resource_type(&request.type_url)? else { return Ok(()) };
        self.check_names(resource_type, None, request.resource_names.iter())?;
        let snapshot = self.snapshot.clone();
        let first = self.substreams[resource_type.index()].is_none();
        let pool = self.settings.names.clone();
        let substream = self.substream(resource_type);
        substream.returning |= first && !request.version_info.is_empty();
        let amendment = substream
            .subscription
            .replace(resource_type, &request.resource_names, &pool, |name| intern(&snapshot, resource_type, name));
        self.acknowledge(now, resource_type, &request.response_nonce, request.error_detail, &request.version_info);
        if let Some(amendment) = amendment {
            let substream = self.substream(resource_type);
            substream.follow(amendment, BTreeMap::new());
            self.report_subscription(resource_type);
        }
        self.wake_hosts_of(resource_type);
        Ok(())
    }

    pub(super) fn handle_delta(&mut self, now: Instant, request: DeltaDiscoveryRequest) -> Result<(), Refusal> {
        self.identify(request.node)?;
        let Some(resource_type) = self.resource_type(&request.type_url)? else { return Ok(()) };
        let first = self.substreams[resource_type.index()].is_none();
        let subscribed = self.substreams[resource_type.index()].as_ref().map(|s| s.subscription.interest());
        let claimed = if first { Some(request.initial_resource_versions.keys()) } else { None };
        let asked = request.resource_names_subscribe.iter().chain(claimed.into_iter().flatten());
        self.check_names(resource_type, subscribed, asked)?;
        let names_nothing =
            request.resource_names_subscribe.is_empty() && request.resource_names_unsubscribe.is_empty() && !first;
        self.acknowledge(now, resource_type, &request.response_nonce, request.error_detail, "");
        if names_nothing {
            self.wake_hosts_of(resource_type);
            return Ok(());
        }
        let snapshot = self.snapshot.clone();
        let pool = self.settings.names.clone();
        let substream = self.substream(resource_type);
        let amendment = substream.subscription.amend(
            resource_type,
            first,
            &request.resource_names_subscribe,
            &request.resource_names_unsubscribe,
            &pool,
            |name| intern(&snapshot, resource_type, name),
        );
        // Rule P-49: versions from an earlier stream come with the first request of a type, and only then.
        let mut claims = BTreeMap::new();
        if first {
            let names = substream.subscription.names();
            let claim = |(name, version): (String, String)| {
                let name = xdstp::canonical(&name);
                let known = names.get(&*name).cloned();
                (known.unwrap_or_else(|| intern(&snapshot, resource_type, &name)), Version::parse(&version))
            };
            claims = request.initial_resource_versions.into_iter().map(claim).collect();
            substream.subscription.insert(claims.keys().cloned().collect(), &pool);
        }
        if !claims.is_empty() && self.service == Service::Aggregated {
            self.returning_until.get_or_insert(now + self.settings.order_wait);
        }
        let substream = self.substream(resource_type);
        let changed = first || !amendment.is_empty(&substream.subscription);
        if changed {
            substream.follow(amendment, claims);
            self.report_subscription(resource_type);
        }
        self.wake_hosts_of(resource_type);
        Ok(())
    }

    /// Binds the stream to the node of its first message (rules P-07 to P-09).
    fn identify(&mut self, node: Option<core::Node>) -> Result<(), Refusal> {
        let node = node.filter(|node| !node.id.is_empty());
        match (&mut self.node, node) {
            (None, None) => Err(Refusal::invalid("the first request of a stream must hold a node with an id")),
            (None, Some(node)) => {
                let node = Arc::new(Node::from_message(node));
                self.node = Some(node.clone());
                self.outcomes.push_back(Outcome::Identified(node));
                Ok(())
            }
            (Some(known), Some(node)) => {
                let parameters = crate::node::parameters(&node);
                if known.dynamic_parameters != parameters {
                    Arc::make_mut(known).dynamic_parameters = parameters;
                    self.outcomes.push_back(Outcome::ParametersChanged(known.clone()));
                }
                Ok(())
            }
            (Some(_), None) => Ok(()),
        }
    }

    /// The type that a request is about; `None` when it is unknown, which must not hurt the other types (rule P-05).
    fn resource_type(&mut self, type_url: &str) -> Result<Option<ResourceType>, Refusal> {
        match (self.service, type_url) {
            (Service::Only(own), "") => Ok(Some(own)),
            (Service::Only(own), url) if url == own.type_url() => Ok(Some(own)),
            (Service::Only(own), url) => Err(Refusal::invalid(format!(
                "type URL \"{url}\" asked for on the service of \"{}\"; ask for it on its own or on the aggregated service",
                own.type_url()
            ))),
            (Service::Aggregated, "") => {
                Err(Refusal::invalid("a request on the aggregated service must hold a type URL"))
            }
            (Service::Aggregated, url) => {
                let known = ResourceType::from_type_url(url);
                if known.is_none() {
                    self.outcomes.push_back(Outcome::UnknownType { type_url: url.to_owned() });
                }
                Ok(known)
            }
        }
    }

    /// Whether the stream may have these names of a type, beside those that it keeps.
    fn check_names<'n>(
        &self,
        resource_type: ResourceType,
        kept: Option<&Interest>,
        asked: impl Iterator<Item = &'n String>,
    ) -> Result<(), Refusal> {
        let mut asked = asked.peekable();
        if asked.peek().is_none() {
            return Ok(());
        }
        let (mut count, mut bytes) = kept.map_or((0, 0), |kept| (kept.len(), kept.bytes()));
        asked.for_each(|name| {
            count += 1;
            bytes += name.len();
        });
        let Settings { max_names, max_name_bytes, .. } = self.settings;
        if count > max_names {
            return Err(Refusal::exhausted(format!(
                "subscription to {count} names of one type; at most {max_names} are allowed"
            )));
        }
        let others = self.substreams.iter().flatten().filter(|other| other.resource_type() != resource_type);
        bytes += others.map(|other| other.subscription.interest().bytes()).sum::<usize>();
        if bytes > max_name_bytes {
            return Err(Refusal::exhausted(format!(
                "subscription to names of {bytes} bytes; at most {max_name_bytes} are allowed on a stream"
            )));
        }
        Ok(())
    }

    /// Books an acceptance or a rejection. Only a nonce that is awaited means either (rules P-12, P-21, P-22), and
    /// only an error means rejection (rule P-13).
    fn acknowledge(
        &mut self,
        now: Instant,
        resource_type: ResourceType,
        nonce: &str,
        error: Option<Status>,
        version: &str,
    ) {
        let grpc = self.node.as_ref().is_some_and(|node| node.is_grpc());
        let substream = self.substream(resource_type);
        let Some(mut index) = substream.flights.iter().position(|flight| flight.nonce == nonce) else {
            if error.is_some() {
                substream.heartbeats_refused(nonce);
            }
            return;
        };
        if let Some(error) = error {
            // Envoy 1.40 was seen to keep a rejection of clusters to itself while one of them warms, and to attach it
            // to the acknowledgement of the next response, whose version it names as the accepted one.
            let belongs_to_older = index > 0 && substream.flights[index].version.to_string() == version;
            let refused = if belongs_to_older { index - 1 } else { index };
            let applied = Applied::by(&error.message, grpc);
            let is_superseded = belongs_to_older && substream.flights[index].full_state;
            let error = (error.code, &*error.message);
            let outcomes = substream.reject(refused, error, applied, is_superseded, now);
            self.outcomes.extend(outcomes);
            if !belongs_to_older {
                self.substream(resource_type).flights.drain(..refused);
                self.forget_trusted_assignments();
                return;
            }
            index -= 1;
        }
        let (flight, outcomes) = self.substream(resource_type).accept(index, now);
        self.forget_trusted_assignments();
        self.outcomes.push_back(Outcome::Accepted {
            resource_type,
            nonce: flight.nonce,
            version: flight.version,
            after: now.saturating_duration_since(flight.sent_at),
        });
        self.outcomes.extend(outcomes);
    }

    fn report_subscription(&mut self, resource_type: ResourceType) {
        let subscription = &self.substream(resource_type).subscription;
        let (wildcard, names) = (subscription.wildcard(), subscription.len());
        self.outcomes.push_back(Outcome::Subscribed { resource_type, wildcard, names });
    }
}

/// The snapshot's own name where there is one, so that streams share it.
fn intern(snapshot: &Option<Snapshot>, resource_type: ResourceType, name: &str) -> Name {
    match snapshot.as_ref().and_then(|snapshot| snapshot.get(resource_type, name)) {
        Some(cell) => cell.name().clone(),
        None => name.into(),
    }
}
