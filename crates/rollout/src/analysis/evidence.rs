//! What was counted in a stretch of time.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Time;

/// Requests and how many of them were bad.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// All that ended.
    pub total: u64,
    /// Those that failed, or were slow; never more than `total`.
    pub bad: u64,
}

impl Tally {
    /// `bad` of `total`; more bad ones than there are count as all of them.
    pub fn new(total: u64, bad: u64) -> Self {
        Self { total, bad: bad.min(total) }
    }

    /// The share of bad ones; `None` without requests.
    pub fn rate(self) -> Option<f64> {
        (self.total > 0).then(|| self.bad as f64 / self.total as f64)
    }

    /// Adds what was counted elsewhere.
    pub fn add(&mut self, other: Tally) {
        self.total = self.total.saturating_add(other.total);
        self.bad = self.bad.saturating_add(other.bad.min(other.total));
    }
}

/// What one endpoint of stable counted, by a key that stays with it, such as a hash of its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Whose.
    pub endpoint: u64,
    /// What.
    pub tally: Tally,
}

/// What is known of one metric.
#[derive(Clone, Debug, PartialEq)]
pub enum Observation {
    /// Requests of the weighted route in both arms. Requests that header routes send, and copies, are not
    /// exchangeable with them and do not belong here.
    Counts {
        /// Of the candidate.
        candidate: Tally,
        /// Of stable.
        stable: Tally,
        /// Of stable's endpoints, if they are told apart.
        parts: Vec<Part>,
    },
    /// Requests in both arms as somebody else counted them: since `from`, which may be long before the report begins.
    Since {
        /// When it was counted last.
        from: Time,
        /// Of the candidate.
        candidate: Tally,
        /// Of stable.
        stable: Tally,
    },
    /// One number, compared with a range.
    Value(f64),
    /// The provider did not answer, in its words. Neither good nor bad.
    ProviderError(String),
}

/// One report: everything counted from `from` to `until`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evidence {
    /// Where the stretch begins. Stretches do not overlap and come in order.
    pub from: Time,
    /// Where it ends.
    pub until: Time,
    /// How many connected proxies took part; with none, nothing was heard at all.
    pub reporters: u32,
    /// By the name of the metric.
    pub metrics: BTreeMap<String, Observation>,
}

impl Evidence {
    /// Without what others have counted since before `begin`: of such counts nobody can say which part came later.
    pub(crate) fn counted_after(&self, begin: Time) -> Cow<'_, Self> {
        let is_older = |seen: &Observation| matches!(seen, Observation::Since { from, .. } if *from < begin);
        if !self.metrics.values().any(is_older) {
            return Cow::Borrowed(self);
        }
        let mut left = self.clone();
        left.metrics.retain(|_, seen| !is_older(seen));
        Cow::Owned(left)
    }
}
