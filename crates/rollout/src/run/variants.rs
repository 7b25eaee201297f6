//! Who wins an A/B test: the candidate, unless somebody names another variant.

use std::collections::BTreeSet;

use world::api::delivery::{StrategyType, Variant};

use super::Run;
use crate::steps::Step;
use crate::{Phase, Revision, Stage};

impl Run {
    fn variants(&self) -> &[Variant] {
        let strategy = &self.record.plan.spec.strategy;
        let test = strategy.ab.as_ref().filter(|_| strategy.kind == StrategyType::Ab);
        test.map_or(&[], |test| &test.variants)
    }

    fn listed_variants(&self) -> String {
        let named = self.variants().iter().map(|variant| format!("{} ({})", variant.name, variant.revision));
        named.collect::<Vec<_>>().join(", ")
    }

    /// The revision of a variant, by the variant's name or its own.
    ///
    /// # Errors
    /// There is none; which there are.
    pub(crate) fn winner(&self, named: &str) -> Result<Revision, String> {
        let variants = self.variants();
        let by_name = variants.iter().find(|variant| variant.name == named);
        let found = by_name.or_else(|| variants.iter().find(|variant| variant.revision == named));
        match found {
            Some(variant) => Ok(Revision::new(&variant.revision)),
            None if variants.is_empty() => Err("only an A/B test has variants".to_owned()),
            None => Err(format!("there is no variant \"{named}\": the variants are {}", self.listed_variants())),
        }
    }

    /// Why it takes a name to end the test: more than one variant could take everything from stable.
    pub(super) fn lacks_winner(&self) -> Option<String> {
        let Phase::Step { index, .. } = self.record.phase else { return None };
        if !matches!(self.steps.get(index), Some(Step::Variants | Step::End { .. })) {
            return None;
        }
        let stable = self.record.plan.stable.as_str();
        let all = self.variants().iter().map(|variant| variant.revision.as_str());
        let possible: BTreeSet<&str> = all.filter(|revision| *revision != stable).collect();
        (possible.len() > 1).then(|| format!("name the variant that wins: {}", self.listed_variants()))
    }

    /// Why this variant cannot win now.
    pub(super) fn cannot_win(&self, named: &str) -> Option<String> {
        let winner = match self.winner(named) {
            Ok(winner) => winner,
            Err(hint) => return Some(hint),
        };
        let Phase::Step { index, stage } = self.record.phase else {
            return Some("a variant wins while the test goes on".to_owned());
        };
        if !matches!((self.steps.get(index), stage), (Some(Step::End { .. }), Stage::Waiting)) {
            return Some("a variant wins while the test waits for its end".to_owned());
        }
        let plan = &self.record.plan;
        if winner == plan.stable || winner == plan.candidate {
            return None;
        }
        // It is left to a run of its own, for which nothing may hold it back.
        if let Some(hint) = self.is_kept_back() {
            return Some(hint.to_owned());
        }
        let needed = plan.spec.safety.min_healthy_endpoints.max(1);
        let healthy = self.healthy(&winner);
        (healthy < needed).then(|| format!("\"{winner}\" has {healthy} healthy endpoints of at least {needed}"))
    }
}
