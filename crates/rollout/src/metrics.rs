//! The metrics of a run, each under a name of its own.
//!
//! Profiles are written apart from each other, so two of them may have a metric of the same name: `success-rate` of the
//! profile `background` is another one than that of `last-step`. Within a run a metric is called `profile/metric`; those
//! of the built-in profile, which cannot clash, by their names alone.

use std::collections::BTreeMap;

use world::api::delivery::{DEFAULT_PROFILE, MetricSpec};

use crate::Plan;

/// Metrics by their profile.
pub type Profiles = BTreeMap<String, Vec<MetricSpec>>;

/// The metrics of `profile`, under the names that a run knows them by; none when there is no such profile.
pub(crate) fn of_profile(profiles: &Profiles, profile: &str) -> Vec<MetricSpec> {
    let named = |metric: &MetricSpec| MetricSpec { name: named(profile, &metric.name), ..metric.clone() };
    profiles.get(profile).into_iter().flatten().map(named).collect()
}

fn named(profile: &str, metric: &str) -> String {
    if profile == DEFAULT_PROFILE { metric.to_owned() } else { format!("{profile}/{metric}") }
}

impl Plan {
    /// Every metric that the run is judged by, or may be in a later step, under the names that its evidence has to have.
    pub fn metrics(&self) -> Vec<MetricSpec> {
        self.profiles.keys().flat_map(|profile| of_profile(&self.profiles, profile)).collect()
    }

    /// Those of the profiles that the whole run is judged by.
    pub(crate) fn own_metrics(&self) -> Vec<MetricSpec> {
        self.spec.analysis.profiles.iter().flat_map(|profile| of_profile(&self.profiles, profile)).collect()
    }
}
