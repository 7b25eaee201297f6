//! What there is to conduct by: intents, endpoints and freezes, as the world has them at one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use world::api::delivery::{DeploymentIntent, Freeze, MetricSpec, parse_time};
use world::{Hostname, Kind, ObjectRef, Protocol};

use crate::event::Endpoints;
use crate::{Revision, Time};

/// Everything that is wanted and that there is, as far as it concerns rollouts. A later picture replaces it as a whole.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Picture {
    /// Every DeploymentIntent, by its reference.
    pub intents: BTreeMap<ObjectRef, Wish>,
    /// What is seen of the service of each intent, and of each that is gone while traffic is still divided for it.
    pub sights: BTreeMap<ObjectRef, Sight>,
    /// The same by what is in force of an intent, where that asks for another service, port or label than the intent
    /// does now.
    pub held: BTreeMap<ObjectRef, Sight>,
    /// Every Freeze.
    pub freezes: BTreeMap<ObjectRef, Freeze>,
    /// The namespace whose freezes concern every service.
    pub root_namespace: Arc<str>,
}

/// One intent.
#[derive(Clone, Debug, PartialEq)]
pub struct Wish {
    /// What it says.
    pub spec: DeploymentIntent,
    /// The metrics of the profiles that it names, by profile.
    pub profiles: BTreeMap<String, Vec<MetricSpec>>,
    /// It has an error that keeps it from being carried out: another governs its service, or something that it names
    /// does not exist. What was accepted of it before goes on.
    pub is_refused: bool,
}

/// What is seen of a service, by a label.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sight {
    /// The namespace and the name by which a run finds it; `None` when there is no such service.
    pub service: Option<(Arc<str>, Arc<str>)>,
    /// Its host, and the ports that the intent is about, with what they carry; none without a service.
    pub ports: Option<(Hostname, Vec<(u16, Protocol)>)>,
    /// The ports whose endpoints are counted, as the intent or the run says; all when it says none.
    pub limited_to: Vec<u16>,
    /// The label by whose values they are counted.
    pub label: String,
    /// Endpoints by the value of the label. Revisions without any are missing, endpoints without the label too.
    pub endpoints: BTreeMap<Revision, Endpoints>,
}

impl Picture {
    /// The reason of the first freeze that holds runs of this service now, in words; and when that may change by itself.
    pub(super) fn frozen(&self, service: (&str, &str), now: Time) -> (Option<String>, Option<Time>) {
        let (mut reason, mut next) = (None, None::<Time>);
        for (reference, freeze) in self.freezes.iter().filter(|(reference, freeze)| {
            let is_near = *reference.namespace == *service.0 || reference.namespace == self.root_namespace;
            is_near && freeze.active && (freeze.services.is_empty() || freeze.services.iter().any(|n| n == service.1))
        }) {
            // A time that cannot be read was refused by the source; what is not refused here holds rather than not.
            let at =
                |text: &Option<String>| text.as_deref().and_then(|text| parse_time(text).ok()).map(Time::from_millis);
            let (from, until) = (at(&freeze.from), at(&freeze.until));
            for edge in [from, until].into_iter().flatten().filter(|edge| *edge > now) {
                next = Some(next.map_or(edge, |next| next.min(edge)));
            }
            let holds = from.is_none_or(|from| now >= from) && until.is_none_or(|until| now < until);
            if holds && reason.is_none() {
                let Freeze { reason: words, .. } = freeze;
                reason = Some(match words.is_empty() {
                    true => format!("{reference}"),
                    false => format!("{reference}: {words}"),
                });
            }
        }
        (reason, next)
    }
}

/// The RolloutRun of this name.
pub(super) fn run_reference(namespace: &str, name: &str) -> ObjectRef {
    ObjectRef::new(Kind::RolloutRun, namespace, name)
}

/// The names in a list, for a sentence.
pub(super) fn listed<'a>(revisions: impl Iterator<Item = &'a Revision>) -> String {
    let names: BTreeSet<&str> = revisions.map(Revision::as_str).collect();
    names.into_iter().collect::<Vec<_>>().join(", ")
}
