//! The search for what is at fault among the units of a refused response.
//!
//! ```text
//!            ┌──────────── refused ────────────┐
//!            ▼                                 │
//!   guilty: one unit of these ──▶ try half ────┤ the other half may be innocent: to the pool
//!            ▲    │                            │
//!            │    └─▶ just one: a culprit      └─ accepted: the fault is in the other half
//!            │                                              │
//!            ├──────────────────────────────────────────────┘
//!            └── refused ── try all of the pool, once nothing is guilty
//! ```
//!
//! So k faults among n units take about k·(log₂(n) + 1) responses, and no set is tried twice. A unit that changes
//! meanwhile leaves; the rest of a guilty set is not guilty any more then, because that unit may have been the fault.
//!
//! A client that refuses everything would be sent two responses for each unit that way. So after some refusals in a row
//! a sample is tried, one by one, from all over what is left: if all of that is refused, the search is given up. If any is
//! accepted, the search goes on, however many faults there are next to one another.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Unit;

/// Refused trials after one another before a sample is tried: to halve a thousand units down to one takes ten.
const REFUSALS_IN_A_ROW: u32 = 12;
/// Units of a sample. Where half of all units are at fault, one sample in 250 is refused as a whole.
const SAMPLE: usize = 8;

/// What has not been told apart yet.
#[derive(Debug, Default)]
pub(crate) struct Search {
    /// Sets with a fault in each. The last is looked at first.
    guilty: Vec<Guilty>,
    /// Units of which nothing is known.
    pool: BTreeSet<Unit>,
    /// Sets of one unit each, to be tried before everything else. The last comes first.
    sample: Vec<BTreeSet<Unit>>,
    /// Units that could not be tried without others. Once one of them has changed, or the client has accepted anything, the
    /// rest may be.
    stuck: BTreeSet<Unit>,
    trial: Option<Trial>,
    refusals: u32,
}

/// Units of which at least one is at fault.
#[derive(Debug)]
struct Guilty {
    /// To try first: half of them, or those that the client does not name.
    first: BTreeSet<Unit>,
    rest: BTreeSet<Unit>,
    /// `first` could not be sent by itself, so it became `rest`.
    is_turned: bool,
    /// The client's words about them.
    message: Arc<str>,
}

/// A response that only brings suspects.
#[derive(Debug)]
struct Trial {
    nonce: String,
    /// Units with a fault among them if the response is accepted, and the client's words; with no words, nothing is
    /// known of them.
    rest: BTreeSet<Unit>,
    message: Option<Arc<str>>,
}

/// What a search has found out.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Findings {
    /// Units at fault, with the client's words.
    pub(crate) culprits: Vec<(Unit, Arc<str>)>,
    /// The search was given up: these were not told apart.
    pub(crate) untried: Vec<Unit>,
}

impl Search {
    /// The units to try next.
    pub(crate) fn candidate(&self) -> Option<&BTreeSet<Unit>> {
        match (self.sample.last(), self.guilty.last()) {
            (Some(one), _) => Some(one),
            (None, Some(guilty)) => Some(&guilty.first),
            (None, None) => Some(&self.pool).filter(|pool| !pool.is_empty()),
        }
    }

    /// The response that is a trial at the moment.
    pub(crate) fn trial(&self) -> Option<&str> {
        self.trial.as_ref().map(|trial| &*trial.nonce)
    }

    /// Notes that these units of the candidate are sent with the response `nonce`.
    pub(crate) fn depart(&mut self, nonce: &str, sent: &BTreeSet<Unit>) {
        self.lose_trial();
        if let Some(one) = self.sample.pop() {
            self.pool.extend(one.into_iter().filter(|unit| !sent.contains(unit)));
            self.trial = Some(Trial { nonce: nonce.to_owned(), rest: BTreeSet::new(), message: None });
            return;
        }
        let (rest, message) = match self.guilty.pop() {
            Some(Guilty { first, rest, message, .. }) => {
                (first.into_iter().filter(|unit| !sent.contains(unit)).chain(rest).collect(), Some(message))
            }
            None => {
                self.pool.retain(|unit| !sent.contains(unit));
                (BTreeSet::new(), None)
            }
        };
        self.trial = Some(Trial { nonce: nonce.to_owned(), rest, message });
    }

    /// Notes that the client accepted the response `nonce`.
    pub(crate) fn accept(&mut self, nonce: &str) -> Findings {
        if let Some(Trial { rest, message, .. }) = self.trial.take_if(|trial| trial.nonce == nonce) {
            self.refusals = 0;
            self.pool.extend(self.sample.drain(..).flatten());
            match message {
                Some(message) => self.divide(rest, &BTreeSet::new(), message),
                None => self.pool.extend(rest),
            }
        }
        self.settle()
    }

    /// Notes that the client refused the response `nonce`, in which these units were new. `named` are those that its
    /// words seem to mean; they are tried last. Without words they may all be innocent.
    pub(crate) fn refuse(
        &mut self,
        nonce: &str,
        units: BTreeSet<Unit>,
        named: &BTreeSet<Unit>,
        message: Option<Arc<str>>,
    ) -> Findings {
        let is_trial = self.trial.as_ref().is_some_and(|trial| trial.nonce == nonce);
        if is_trial {
            self.lose_trial();
            self.refusals += 1;
            if self.refusals == REFUSALS_IN_A_ROW + SAMPLE as u32 {
                self.refusals = 0;
                let untried = self.take_all().chain(units).collect();
                return Findings { culprits: Vec::new(), untried };
            }
        }
        match message {
            Some(message) => self.divide(units, named, message),
            None => self.pool.extend(units),
        }
        let findings = self.settle();
        if is_trial && self.refusals == REFUSALS_IN_A_ROW {
            self.take_sample();
        }
        findings
    }

    /// Takes units from all over what is left, to be tried one by one.
    fn take_sample(&mut self) {
        self.pool = self.take_all().collect();
        let every = self.pool.len().div_ceil(SAMPLE).max(1);
        let chosen: Vec<_> = self.pool.iter().step_by(every).cloned().collect();
        for unit in &chosen {
            self.pool.remove(unit);
        }
        self.sample = chosen.into_iter().map(|unit| BTreeSet::from([unit])).collect();
    }

    /// Everything that was to be tried.
    fn take_all(&mut self) -> impl Iterator<Item = Unit> + use<> {
        let guilty = std::mem::take(&mut self.guilty).into_iter();
        let guilty = guilty.flat_map(|guilty| guilty.first.into_iter().chain(guilty.rest));
        guilty.chain(std::mem::take(&mut self.pool)).chain(std::mem::take(&mut self.sample).into_iter().flatten())
    }

    /// Forgets the trial: its answer tells nothing about the rest, or will not come in time.
    pub(crate) fn lose_trial(&mut self) {
        if let Some(trial) = self.trial.take() {
            self.pool.extend(trial.rest);
        }
    }

    /// The candidate cannot be sent by itself: what it is cut from is tried the other way round first. Returns units that
    /// cannot be tried at all.
    pub(crate) fn skip(&mut self) -> BTreeSet<Unit> {
        if let Some(one) = self.sample.pop() {
            self.stuck.extend(one.iter().cloned());
            return one;
        }
        match self.guilty.last_mut() {
            Some(guilty) if !guilty.is_turned => {
                guilty.is_turned = true;
                std::mem::swap(&mut guilty.first, &mut guilty.rest);
                return BTreeSet::new();
            }
            Some(_) | None => {}
        }
        let units = match self.guilty.pop() {
            Some(guilty) => guilty.first.into_iter().chain(guilty.rest).collect(),
            None => std::mem::take(&mut self.pool),
        };
        self.stuck.extend(units.iter().cloned());
        units
    }

    /// Takes units out that are not what was refused any more. Returns units that could not be tried because of them, and
    /// will be now.
    pub(crate) fn forget(&mut self, gone: &BTreeSet<Unit>) -> BTreeSet<Unit> {
        let is_touched = |guilty: &mut Guilty| guilty.first.iter().chain(&guilty.rest).any(|unit| gone.contains(unit));
        for guilty in self.guilty.extract_if(.., is_touched) {
            self.pool.extend(guilty.first.into_iter().chain(guilty.rest));
        }
        self.pool.retain(|unit| !gone.contains(unit));
        self.sample.retain(|one| one.is_disjoint(gone));
        if let Some(trial) = &mut self.trial
            && trial.rest.iter().any(|unit| gone.contains(unit))
        {
            trial.rest.retain(|unit| !gone.contains(unit));
            trial.message = None;
        }
        if self.stuck.is_disjoint(gone) {
            return BTreeSet::new();
        }
        let freed: BTreeSet<_> = std::mem::take(&mut self.stuck).difference(gone).cloned().collect();
        self.pool.extend(freed.iter().cloned());
        freed
    }

    /// Tries again what could not be tried. Returns those units.
    pub(crate) fn unstick(&mut self) -> BTreeSet<Unit> {
        let freed = std::mem::take(&mut self.stuck);
        self.pool.extend(freed.iter().cloned());
        freed
    }

    fn divide(&mut self, units: BTreeSet<Unit>, named: &BTreeSet<Unit>, message: Arc<str>) {
        if units.is_empty() {
            return;
        }
        let (mut rest, mut first): (BTreeSet<_>, BTreeSet<_>) =
            units.into_iter().partition(|unit| named.contains(unit));
        if rest.is_empty() || first.is_empty() {
            let all: Vec<_> = rest.into_iter().chain(first).collect();
            let (upper, lower) = all.split_at(all.len() / 2);
            (first, rest) = (upper.iter().cloned().collect(), lower.iter().cloned().collect());
        }
        self.guilty.push(Guilty { first, rest, is_turned: false, message });
    }

    /// Takes out the guilty sets of one.
    fn settle(&mut self) -> Findings {
        let mut findings = Findings::default();
        // A set of one is not divided, so there is nothing to try first.
        for guilty in self.guilty.extract_if(.., |guilty| guilty.first.is_empty()) {
            findings.culprits.extend(guilty.rest.into_iter().map(|unit| (unit, guilty.message.clone())));
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a search over `count` units of which those in `bad` are refused; returns what was found and in how many
    /// responses, the first one included.
    fn search(count: u32, bad: &[u32], named: impl Fn(u32) -> bool) -> (Vec<u32>, Vec<u32>, u32) {
        let unit = |at: u32| Unit { name: format!("{at:06}").into(), part: None };
        let number = |unit: &Unit| unit.name.parse::<u32>().unwrap_or_default();
        let mut search = Search::default();
        let (mut culprits, mut accepted, mut responses) = (Vec::new(), Vec::new(), 0);
        let mut sent: BTreeSet<Unit> = (0..count).map(unit).collect();
        loop {
            responses += 1;
            let nonce = responses.to_string();
            if responses > 1 {
                search.depart(&nonce, &sent);
            }
            let findings = if sent.iter().any(|unit| bad.contains(&number(unit))) {
                let named = sent.iter().filter(|unit| named(number(unit))).cloned().collect();
                search.refuse(&nonce, sent.clone(), &named, Some("no".into()))
            } else {
                accepted.extend(sent.iter().map(number));
                search.accept(&nonce)
            };
            culprits.extend(findings.culprits.iter().map(|(unit, _)| number(unit)));
            culprits.extend(findings.untried.iter().map(number));
            match search.candidate() {
                Some(units) => sent = units.clone(),
                None => break,
            }
        }
        culprits.sort_unstable();
        accepted.sort_unstable();
        (culprits, accepted, responses)
    }

    #[test]
    fn one_culprit_among_many_takes_the_logarithm_of_their_number() {
        for bad in [0, 1, 77, 128, 199] {
            let (culprits, accepted, responses) = search(200, &[bad], |_| false);
            assert_eq!(culprits, [bad]);
            assert_eq!(accepted.len(), 199, "everything else arrived");
            assert!(responses <= 10, "{responses} responses");
        }
    }

    #[test]
    fn several_culprits_are_all_found_and_the_rest_arrives() {
        let (culprits, accepted, responses) = search(200, &[3, 4, 100, 199], |_| false);
        assert_eq!(culprits, [3, 4, 100, 199]);
        assert_eq!(accepted.len(), 196);
        assert!(responses <= 4 * 9 + 1, "{responses} responses");
    }

    #[test]
    fn a_named_culprit_takes_one_more_response() {
        assert_eq!(search(200, &[7], |at| at == 7), (vec![7], (0..200).filter(|at| *at != 7).collect(), 2));
    }

    #[test]
    fn a_name_that_misleads_costs_time_but_not_the_truth() {
        let (culprits, accepted, _) = search(50, &[7], |at| at == 8);
        assert_eq!((culprits, accepted.len()), (vec![7], 49));
    }

    #[test]
    fn a_client_that_refuses_everything_is_not_asked_for_ever() {
        let all: Vec<_> = (0..1000).collect();
        let (culprits, accepted, responses) = search(1000, &all, |_| false);
        assert_eq!((culprits, accepted.len()), (all, 0), "nothing is lost track of");
        assert!(responses <= REFUSALS_IN_A_ROW + SAMPLE as u32 + 1, "{responses} responses");
    }

    #[test]
    fn many_culprits_next_to_one_another_are_not_taken_for_a_client_that_refuses_everything() {
        let bad: Vec<_> = (30..80).collect();
        let (culprits, accepted, _) = search(200, &bad, |_| false);
        assert_eq!((culprits, accepted.len()), (bad, 150), "all others arrived");
    }

    #[test]
    fn nothing_is_concluded_once_a_unit_has_changed() {
        let unit = |name: &str| Unit { name: name.into(), part: None };
        let both = BTreeSet::from([unit("a"), unit("b"), unit("c"), unit("d")]);
        let mut search = Search::default();
        search.refuse("1", both, &BTreeSet::new(), Some("no".into()));
        search.depart("2", &BTreeSet::from([unit("a"), unit("b")]));
        search.forget(&BTreeSet::from([unit("d")]));
        assert_eq!(search.accept("2"), Findings::default(), "d may have been at fault, so c is tried");
        assert_eq!(search.candidate(), Some(&BTreeSet::from([unit("c")])));
    }
}
