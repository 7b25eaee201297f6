//! Metrics that somebody else answers.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use evidence::{Count, Question, Variables};
use rollout::{Observation, Time};
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
    wanted: Vec<Wanted>,
    asking: JoinSet<(usize, Answer)>,
    asked: HashSet<usize>,
    /// What came since it was taken.
    answers: BTreeMap<String, Observation>,
    /// Metrics that cannot be asked for, and why.
    hopeless: BTreeMap<String, Observation>,
}

/// One metric, and when it is asked for next.
#[derive(Debug)]
struct Wanted {
    metric: String,
    interval: Duration,
    form: Form,
    due: Instant,
}

#[derive(Debug)]
enum Form {
    /// A number.
    Number(Question),
    /// Counts of candidate and stable; what both were when they were known last, and when that was.
    Counts { of: Box<[Question; 2]>, last: Option<(Time, [Count; 2])> },
}

/// What somebody has said. Nothing when he says that he knows nothing.
#[derive(Debug)]
enum Answer {
    Number(Result<Option<f64>, String>),
    Counts(Time, Result<Option<[Count; 2]>, String>),
}

impl Providers {
    /// Of the metrics that have one, asked for from now on.
    pub(super) fn new(metrics: &[MetricSpec], prometheus: Option<&str>, variables: &Variables) -> Self {
        let due = Instant::now();
        let (mut wanted, mut hopeless) = (Vec::new(), BTreeMap::new());
        for spec in metrics {
            let form = match spec.is_counted() {
                true => Question::of_both(spec, prometheus, variables)
                    .map(|both| both.map(|both| Form::Counts { of: Box::new(both), last: None })),
                false => Question::new(spec, prometheus, variables).map(|question| question.map(Form::Number)),
            };
            match form {
                Ok(Some(form)) => {
                    wanted.push(Wanted { metric: spec.name.clone(), interval: spec.interval, form, due });
                }
                Ok(None) => {}
                Err(words) => {
                    hopeless.insert(spec.name.clone(), Observation::ProviderError(words));
                }
            }
        }
        let (asking, asked) = (JoinSet::new(), HashSet::new());
        Self { wanted, asking, asked, answers: BTreeMap::new(), hopeless }
    }

    /// Asks whoever is due.
    pub(super) fn ask(&mut self, now: Instant) {
        for (at, wanted) in self.wanted.iter_mut().enumerate() {
            if wanted.due <= now && self.asked.insert(at) {
                wanted.due = now + wanted.interval.min(LONGEST);
                match &wanted.form {
                    Form::Number(question) => {
                        let question = question.clone();
                        self.asking.spawn(async move { (at, Answer::Number(number(&question).await)) });
                    }
                    Form::Counts { of, .. } => {
                        let of = of.clone();
                        self.asking
                            .spawn(async move { (at, Answer::Counts(super::reports::now(), counts(&of).await)) });
                    }
                }
            }
        }
    }

    /// Waits for an answer, and keeps it. Never comes back when nobody is asked.
    pub(super) async fn answered(&mut self) {
        match self.asking.join_next().await {
            Some(Ok((at, answer))) => {
                self.asked.remove(&at);
                let Some(wanted) = self.wanted.get_mut(at) else { return };
                if let Some(observation) = wanted.observe(answer) {
                    let before = self.answers.remove(&wanted.metric);
                    self.answers.insert(wanted.metric.clone(), joined(before, observation));
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

impl Wanted {
    /// What an answer says; the first counts only say where counting begins, and so do those that are less than before.
    fn observe(&mut self, answer: Answer) -> Option<Observation> {
        match (answer, &mut self.form) {
            (Answer::Number(Err(words)) | Answer::Counts(_, Err(words)), _) => Some(Observation::ProviderError(words)),
            (Answer::Number(Ok(value)), _) => value.map(Observation::Value),
            (Answer::Counts(at, Ok(Some(now))), Form::Counts { last, .. }) => {
                let (from, before) = last.replace((at, now))?;
                let [candidate, stable] = [now[0].since(before[0])?, now[1].since(before[1])?];
                Some(Observation::Since { from, candidate, stable })
            }
            (Answer::Counts(..), _) => None,
        }
    }
}

/// Counts that nobody has taken yet are counts still; of numbers the newest one counts.
fn joined(before: Option<Observation>, new: Observation) -> Observation {
    match (before, new) {
        (
            Some(Observation::Since { from, candidate: mut all_candidate, stable: mut all_stable }),
            Observation::Since { candidate, stable, .. },
        ) => {
            all_candidate.add(candidate);
            all_stable.add(stable);
            Observation::Since { from, candidate: all_candidate, stable: all_stable }
        }
        (_, new) => new,
    }
}

async fn number(question: &Question) -> Result<Option<f64>, String> {
    question.answer(&body(question).await?)
}

/// Nothing unless both are known.
async fn counts(of: &[Question; 2]) -> Result<Option<[Count; 2]>, String> {
    let [candidate, stable] = of;
    let (one, other) = tokio::join!(body(candidate), body(stable));
    Ok(candidate.count(&one?)?.zip(stable.count(&other?)?).map(|(candidate, stable)| [candidate, stable]))
}

async fn body(question: &Question) -> Result<String, String> {
    let fetch = Fetch::new(&question.url, authorities_of_the_system()).map_err(|error| error.to_string())?;
    fetch.get(question.interval.min(PATIENCE)).await.map_err(|error| error.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rollout::Tally;

    use super::*;

    fn counting() -> Wanted {
        let spec = MetricSpec {
            kind: world::api::delivery::MetricKind::Web,
            url: Some("http://counts/{{revision}}".to_owned()),
            slo: Some(0.01),
            ..MetricSpec::default()
        };
        let variables = [("candidate", "v2"), ("stable", "v1")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        Providers::new(&[spec], None, &variables).wanted.remove(0)
    }

    fn answer(second: u64, candidate: [u64; 2], stable: [u64; 2]) -> Answer {
        let count = |[good, total]: [u64; 2]| Count { total, good };
        Answer::Counts(Time::from_millis(second * 1_000), Ok(Some([count(candidate), count(stable)])))
    }

    #[test]
    fn requests_are_those_between_two_answers_and_each_is_counted_once() {
        let mut wanted = counting();
        assert_eq!(wanted.observe(answer(1, [90, 100], [900, 1_000])), None, "nobody knows since when");
        let first = wanted.observe(answer(61, [95, 110], [990, 1_100])).unwrap();
        let since =
            |second, candidate, stable| Observation::Since { from: Time::from_millis(second), candidate, stable };
        assert_eq!(first, since(1_000, Tally::new(10, 5), Tally::new(100, 10)));
        // An answer that does not come makes the next one longer; one without anything changes nothing.
        let words = "timeout".to_owned();
        assert_eq!(
            wanted.observe(Answer::Counts(Time::from_millis(0), Err(words.clone()))),
            Some(Observation::ProviderError(words))
        );
        assert_eq!(wanted.observe(Answer::Counts(Time::from_millis(0), Ok(None))), None);
        let second = wanted.observe(answer(181, [96, 111], [991, 1_101])).unwrap();
        assert_eq!(second, since(61_000, Tally::new(1, 0), Tally::new(1, 0)));
        // What nobody has taken yet is not lost.
        assert_eq!(joined(Some(first), second), since(1_000, Tally::new(11, 5), Tally::new(101, 10)));
        // Whoever counts was started anew: that is where counting begins.
        assert_eq!(wanted.observe(answer(241, [1, 1], [2_000, 2_200])), None);
        assert_eq!(
            wanted.observe(answer(301, [2, 2], [2_001, 2_201])),
            Some(since(241_000, Tally::new(1, 0), Tally::new(1, 0)))
        );
    }
}
