//! What the client asked for, of one type (rules P-29 to P-37).

use std::collections::BTreeSet;

use proto::{ResourceType, xdstp};
use snapshot::Name;

use super::interest::Interest;
use super::name_pool::NamePool;
use super::name_set::NameSet;
use crate::Variant;

/// The name that means all resources.
const WILDCARD: &str = "*";

/// The subscribed names of one type.
#[derive(Debug, Default)]
pub(crate) struct Subscription {
    interest: Interest,
    /// The wildcard is there because nothing was ever named, not because it was asked for by name.
    legacy: bool,
    ever_named: bool,
}

/// What one request did to a subscription.
#[derive(Debug, Default)]
pub(crate) struct Amendment {
    /// Names that were asked for, and whether they had been subscribed already: then too they must be sent again.
    pub(crate) subscribed: Vec<(Name, bool)>,
    /// Names given up that were subscribed by name.
    pub(crate) unsubscribed: Vec<Name>,
    /// The wildcard was asked for, newly or once more.
    pub(crate) wildcard_asked: bool,
    /// The wildcard was there before.
    pub(crate) wildcard_before: bool,
    /// Collections that were asked for, newly or once more.
    pub(crate) collections_asked: Vec<Name>,
    /// Collections were given up.
    pub(crate) collections_dropped: bool,
}

impl Amendment {
    /// Whether nothing was asked for or given up.
    pub(crate) fn is_empty(&self, subscription: &Subscription) -> bool {
        self.subscribed.is_empty()
            && self.unsubscribed.is_empty()
            && !self.wildcard_asked
            && self.collections_asked.is_empty()
            && !self.collections_dropped
            && self.wildcard_before == subscription.interest.wildcard
    }
}

impl Subscription {
    /// Whether it is a few names and nothing else: then looking for each of them costs less than looking for all that
    /// has changed since a client that many changes did not concern was told of one.
    pub(crate) fn is_short(&self) -> bool {
        const FEW: usize = 32;
        !self.wildcard() && self.interest.collections.is_empty() && self.interest.names.len() <= FEW
    }

    /// Whether all resources are subscribed.
    pub(crate) fn wildcard(&self) -> bool {
        self.interest.wildcard
    }

    /// Names subscribed one by one, in order.
    pub(crate) fn names(&self) -> &NameSet {
        &self.interest.names
    }

    /// What is subscribed.
    pub(crate) fn interest(&self) -> &Interest {
        &self.interest
    }

    pub(crate) fn covers(&self, name: &str) -> bool {
        self.interest.covers(name)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.interest.is_empty()
    }

    /// Names and collections that were asked for one by one.
    pub(crate) fn len(&self) -> usize {
        self.interest.len()
    }

    /// Replaces the whole set, as a state-of-the-world request does. `None` when it stays the same.
    pub(crate) fn replace(
        &mut self,
        resource_type: ResourceType,
        asked: &[String],
        pool: &NamePool,
        intern: impl Fn(&str) -> Name,
    ) -> Option<Amendment> {
        let wildcard_before = self.interest.wildcard;
        let explicit = asked.iter().any(|name| name == WILDCARD);
        self.ever_named |= !asked.is_empty();
        self.legacy = !self.ever_named && empty_means_all(resource_type, Variant::StateOfTheWorld);
        self.interest.wildcard = explicit || self.legacy;
        let wildcard_asked = self.interest.wildcard && !wildcard_before;
        let is_known = |name: &String| {
            let name = xdstp::canonical(name);
            self.interest.names.contains(&*name) || self.interest.collections.contains(&*name)
        };
        let same = self.interest.wildcard == wildcard_before
            && asked.len() == self.len() + usize::from(explicit)
            && asked.iter().all(|name| name == WILDCARD || is_known(name));
        if same {
            return None;
        }
        let mut next = Vec::new();
        let mut collections = NameSet::default();
        let mut collections_asked = Vec::new();
        let mut added = Vec::new();
        for name in asked.iter().filter(|name| *name != WILDCARD) {
            let name = xdstp::canonical(name);
            if xdstp::is_collection(&name) {
                let name: Name = name.as_ref().into();
                if !self.interest.collections.contains(&name) {
                    collections_asked.push(name.clone());
                }
                collections.insert(name, pool);
            } else if let Some(kept) = self.interest.names.get(&*name) {
                next.push(kept.clone());
            } else {
                added.push(intern(&name));
            }
        }
        next.sort_unstable();
        added.sort_unstable();
        added.dedup();
        let names = self.interest.names.iter();
        let unsubscribed: Vec<_> = names.filter(|name| next.binary_search(name).is_err()).cloned().collect();
        self.interest.names.change(added.clone(), unsubscribed.clone(), Some(pool));
        let collections_dropped = !self.interest.collections.is_subset(&collections);
        self.interest.collections = collections;
        let subscribed = added.into_iter().map(|name| (name, false)).collect();
        Some(Amendment {
            subscribed,
            unsubscribed,
            wildcard_asked,
            wildcard_before,
            collections_asked,
            collections_dropped,
        })
    }

    /// Applies additions, then removals, as a delta request asks for them; in this order because Istio's clients say
    /// `+* -*` for "connected, nothing yet" (rule P-32).
    pub(crate) fn amend(
        &mut self,
        resource_type: ResourceType,
        first: bool,
        subscribe: &[String],
        unsubscribe: &[String],
        pool: &NamePool,
        intern: impl Fn(&str) -> Name,
    ) -> Amendment {
        let mut amendment = Amendment { wildcard_before: self.interest.wildcard, ..Amendment::default() };
        if first && subscribe.is_empty() && unsubscribe.is_empty() && empty_means_all(resource_type, Variant::Delta) {
            (self.interest.wildcard, self.legacy) = (true, true);
            amendment.wildcard_asked = true;
        }
        let mut added = Vec::new();
        for name in subscribe {
            if name == WILDCARD {
                (self.interest.wildcard, self.legacy) = (true, false);
                amendment.wildcard_asked = true;
                continue;
            }
            let name = xdstp::canonical(name);
            if xdstp::is_collection(&name) {
                let name: Name = name.as_ref().into();
                self.interest.collections.insert(name.clone(), pool);
                amendment.collections_asked.push(name);
                continue;
            }
            let known = self.interest.names.get(&*name).cloned();
            let already = known.is_some();
            let name = known.unwrap_or_else(|| intern(&name));
            if !already {
                added.push(name.clone());
            }
            amendment.subscribed.push((name, already));
        }
        let mut removed = BTreeSet::new();
        let mut collections_dropped = BTreeSet::new();
        for name in unsubscribe {
            if name == WILDCARD {
                (self.interest.wildcard, self.legacy) = (false, false);
                amendment.wildcard_asked = false;
                continue;
            }
            let name = xdstp::canonical(name);
            let name: Name = name.as_ref().into();
            if self.interest.collections.contains(&name) {
                collections_dropped.insert(name);
            } else {
                removed.insert(name);
            }
        }
        let names = &mut self.interest.names;
        if !removed.is_empty() {
            // What the same request asks for is given up, too.
            amendment.subscribed.retain(|(name, _)| !removed.contains(name));
            added.sort_unstable();
            let was_subscribed = |name: &&Name| names.contains(*name) || added.binary_search(name).is_ok();
            amendment.unsubscribed = removed.iter().filter(was_subscribed).cloned().collect();
            added.retain(|name| !removed.contains(name));
            removed.retain(|name| names.contains(name));
        }
        names.change(added, removed.into_iter().collect(), Some(pool));
        for name in &collections_dropped {
            self.interest.collections.change(Vec::new(), vec![name.clone()], Some(pool));
        }
        amendment.collections_asked.retain(|name| !collections_dropped.contains(name));
        amendment.collections_dropped = !collections_dropped.is_empty();
        amendment
    }

    /// Counts names that the client says it holds as subscribed, of those that nothing covers (rule P-49).
    pub(crate) fn insert(&mut self, mut names: Vec<Name>, pool: &NamePool) {
        names.retain(|name| !self.covers(name));
        self.interest.names.change(names, Vec::new(), Some(pool));
    }
}

/// Whether a first request without names means everything (rule P-30). Envoy relies on it for listeners, clusters and
/// scoped routes, and in delta for the virtual hosts of a route configuration that is not on demand.
fn empty_means_all(resource_type: ResourceType, variant: Variant) -> bool {
    match resource_type {
        ResourceType::Cluster | ResourceType::Listener | ResourceType::ScopedRoute => true,
        ResourceType::VirtualHost => variant == Variant::Delta,
        ResourceType::Runtime
        | ResourceType::Secret
        | ResourceType::Endpoints
        | ResourceType::Route
        | ResourceType::ExtensionConfig => false,
    }
}
