//! Metrics that somebody else answers.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use evidence::{Question, Variables};
use rollout::Observation;
use tokio::task::JoinSet;
use world::api::delivery::MetricSpec;

use crate::fetch::{Fetch, authorities_of_the_system};

/// How long a provider may take at most; less when it is asked more often.
const PATIENCE: Duration = Duration::from_secs(10);
/// No profile may say more; a run that began before there was a bound may, and its due time must be one.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// The providers of one run's metrics. Each is asked at its metric's interval, and never twice at a time.
#[derive(Debug)]
pub(super) struct Providers {
    questions: Vec<(Question, Instant)>,
    asking: JoinSet<(usize, Option<Observation>)>,
    asked: HashSet<usize>,
    /// What came since it was taken.
    answers: BTreeMap<String, Observation>,
    /// Metrics that cannot be asked for, and why.
    hopeless: BTreeMap<String, Observation>,
}

impl Providers {
    /// Of the metrics that have one, asked for from now on.
    pub(super) fn new(metrics: &[MetricSpec], prometheus: Option<&str>, variables: &Variables) -> Self {
        let now = Instant::now();
        let (mut questions, mut hopeless) = (Vec::new(), BTreeMap::new());
        for spec in metrics {
            match Question::new(spec, prometheus, variables) {
                Ok(Some(question)) => questions.push((question, now)),
                Ok(None) => {}
                Err(words) => {
                    hopeless.insert(spec.name.clone(), Observation::ProviderError(words));
                }
            }
        }
        let (asking, asked) = (JoinSet::new(), HashSet::new());
        Self { questions, asking, asked, answers: BTreeMap::new(), hopeless }
    }

    /// Asks whoever is due.
    pub(super) fn ask(&mut self, now: Instant) {
        for (at, (question, due)) in self.questions.iter_mut().enumerate() {
            if *due <= now && self.asked.insert(at) {
                *due = now + question.interval.min(LONGEST);
                self.asking.spawn(ask(at, question.clone()));
            }
        }
    }

    /// Waits for an answer, and keeps it. Never comes back when nobody is asked.
    pub(super) async fn answered(&mut self) {
        match self.asking.join_next().await {
            Some(Ok((at, answer))) => {
                self.asked.remove(&at);
                if let (Some((question, _)), Some(answer)) = (self.questions.get(at), answer) {
                    self.answers.insert(question.metric.clone(), answer);
                }
            }
            // Tasks are neither cancelled nor panic; one that did would not be asked again.
            Some(Err(_)) => {}
            None => std::future::pending().await,
        }
    }

    /// What came since this was called last.
    pub(super) fn take(&mut self) -> BTreeMap<String, Observation> {
        let mut answers = std::mem::take(&mut self.answers);
        answers.extend(self.hopeless.iter().map(|(metric, answer)| (metric.clone(), answer.clone())));
        answers
    }
}

/// Nothing when the provider answers that it knows nothing.
async fn ask(at: usize, question: Question) -> (usize, Option<Observation>) {
    let answer = match Fetch::new(&question.url, authorities_of_the_system()) {
        Ok(fetch) => match fetch.get(question.interval.min(PATIENCE)).await {
            Ok(body) => question.answer(&body),
            Err(error) => Err(error.to_string()),
        },
        Err(error) => Err(error.to_string()),
    };
    let observation = match answer {
        Ok(value) => value.map(Observation::Value),
        Err(words) => Some(Observation::ProviderError(words)),
    };
    (at, observation)
}
