//! What all DestinationRules together say about one host to one client.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::istio::{DestinationRule, TrafficPolicy};
use crate::{Labels, Location, Object, ObjectRef, Spec};

/// A subset that traffic can be sent to.
#[derive(Clone, Debug, PartialEq)]
pub struct Subset {
    /// Its name, part of the cluster's name.
    pub name: Arc<str>,
    /// Labels that its endpoints carry.
    pub labels: Labels,
    /// Overlays the rule's own policy.
    pub policy: Option<TrafficPolicy>,
    /// The rule that defines it.
    pub origin: ObjectRef,
}

/// The merged rule for one host. The default is "no rule".
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EffectiveRule {
    /// The first `trafficPolicy` in order of age.
    pub policy: Option<TrafficPolicy>,
    /// The rule that `policy` comes from.
    pub policy_origin: Option<ObjectRef>,
    /// Subsets of all rules for the host; of two with one name the older rule's wins.
    pub subsets: Vec<Subset>,
    /// The rules that took part, oldest first.
    pub origins: Vec<ObjectRef>,
    /// Where those of them were read of which it is known.
    pub locations: BTreeMap<ObjectRef, Location>,
}

impl EffectiveRule {
    /// Joins rules of one host in one namespace, which must come oldest first.
    pub(crate) fn merge<'a>(rules: impl IntoIterator<Item = &'a Arc<Object>>) -> Self {
        let mut merged = EffectiveRule::default();
        for object in rules {
            let Spec::DestinationRule(rule) = &object.spec else { continue };
            merged.add(&object.reference, rule);
            if let Some(location) = &object.meta.location {
                merged.locations.insert(object.reference.clone(), location.clone());
            }
        }
        merged
    }

    fn add(&mut self, origin: &ObjectRef, rule: &DestinationRule) {
        if self.policy.is_none() {
            self.policy.clone_from(&rule.traffic_policy);
            self.policy_origin = rule.traffic_policy.is_some().then(|| origin.clone());
        }
        for subset in &rule.subsets {
            if self.subset(&subset.name).is_none() {
                self.subsets.push(Subset {
                    name: subset.name.as_str().into(),
                    labels: subset.labels.clone(),
                    policy: subset.traffic_policy.clone(),
                    origin: origin.clone(),
                });
            }
        }
        self.origins.push(origin.clone());
    }

    /// The subset of this name.
    pub fn subset(&self, name: &str) -> Option<&Subset> {
        self.subsets.iter().find(|s| &*s.name == name)
    }
}
