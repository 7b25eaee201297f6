//! What the tests that runs are judged by are worth: how often halves of stable call each other bad.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use rollout::Explanation;
use world::ObjectRef;

use super::label::JudgedLabel;

/// Of each counted metric of each run that goes on.
#[derive(Debug, Default)]
pub(crate) struct Judged {
    trials: Family<JudgedLabel, Gauge>,
    false_alarms: Family<JudgedLabel, Gauge>,
    trim: Family<JudgedLabel, Gauge>,
    /// The metrics that there are numbers of, by intent.
    shown: Mutex<BTreeMap<ObjectRef, BTreeSet<String>>>,
}

impl Judged {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "pointsman_rollout_comparisons",
            "Comparisons between random halves of stable's endpoints by the test of a rollout, by its metric",
            self.trials.clone(),
        );
        registry.register(
            "pointsman_rollout_false_alarms",
            "Comparisons that called one half worse than the other",
            self.false_alarms.clone(),
        );
        registry.register(
            "pointsman_rollout_trim_seconds",
            "Length of the best stretch that is deleted from the evidence against a candidate",
            self.trim.clone(),
        );
    }

    /// What is known of the run of `intent`; of metrics that are not in it, nothing is known any more.
    pub(crate) fn set(&self, intent: &ObjectRef, explained: &Explanation) {
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let counted = explained.metrics.iter().filter_map(|metric| Some((&metric.name, metric.counted.as_ref()?)));
        let names: BTreeSet<String> = counted.clone().map(|(name, _)| name.clone()).collect();
        self.keep(intent, names);
        for (name, counted) in counted {
            let label = label(intent, name);
            self.trials.get_or_create(&label).set(number(counted.trials));
            self.false_alarms.get_or_create(&label).set(number(counted.false_alarms));
            // A minute at most, in whole seconds.
            self.trim.get_or_create(&label).set(counted.trim_seconds as i64);
        }
    }

    /// The run of `intent` is over.
    pub(crate) fn forget(&self, intent: &ObjectRef) {
        self.keep(intent, BTreeSet::new());
    }

    fn keep(&self, intent: &ObjectRef, names: BTreeSet<String>) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match names.is_empty() {
            true => shown.remove(intent).unwrap_or_default(),
            false => shown.insert(intent.clone(), names.clone()).unwrap_or_default(),
        };
        for name in before.difference(&names) {
            let label = label(intent, name);
            self.trials.remove(&label);
            self.false_alarms.remove(&label);
            self.trim.remove(&label);
        }
    }
}

fn label(intent: &ObjectRef, metric: &str) -> JudgedLabel {
    JudgedLabel { namespace: intent.namespace.to_string(), intent: intent.name.to_string(), metric: metric.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rollout::{Evidence, Judge, Observation, Part, Tally, Time};
    use world::Kind;
    use world::api::delivery::{AnalysisPolicy, AnalysisProfile};

    use super::*;

    #[test]
    fn comparisons_are_shown_while_their_run_goes_on() {
        let mut judge =
            Judge::new(Time::from_millis(0), 1, &AnalysisPolicy::default(), &AnalysisProfile::envoy_default().metrics);
        let tally = Tally::new(100, 0);
        let parts = (0..2).map(|endpoint| Part { endpoint, tally }).collect();
        let counts = Observation::Counts { candidate: tally, stable: Tally::new(200, 0), parts };
        judge.observe(&Evidence {
            from: Time::from_millis(0),
            until: Time::from_millis(1_000),
            reporters: 1,
            metrics: BTreeMap::from([("error-rate".to_owned(), counts)]),
        });
        let (judged, mut registry) = (Judged::default(), Registry::default());
        judged.register(&mut registry);
        let text = || {
            let mut text = String::new();
            let written = prometheus_client::encoding::text::encode(&mut text, &registry);
            assert!(written.is_ok());
            text
        };
        let intent = ObjectRef::new(Kind::DeploymentIntent, "shop", "web");
        judged.set(&intent, &judge.explain());
        let label = "{namespace=\"shop\",intent=\"web\",metric=\"error-rate\"}";
        for line in ["comparisons{} 2", "false_alarms{} 0", "trim_seconds{} 10"] {
            let line = format!("pointsman_rollout_{}\n", line.replace("{}", label));
            assert!(text().contains(&line), "{line} in {}", text());
        }
        judged.forget(&intent);
        assert!(!text().contains("error-rate"), "{}", text());
    }
}
