//! Whether the candidate is worse than stable, and how sure one can be of it.
//!
//! Requests are counted in two arms, candidate and stable, while both take traffic. The null hypothesis is that in
//! each short block of time both arms have the same share of bad requests, whatever that share is: it may drift, and
//! both may fail together. Given the bad requests of a block, how many of them are the candidate's then follows from
//! the traffic alone; if the candidate is worse by an odds ratio r, it follows with r in it. The ratio of the two
//! likelihoods, multiplied over blocks and mixed over a grid of r, is an e-process: under the null it exceeds 1/alpha at
//! any time ever with a chance of at most alpha, so it may be looked at after every block.
//!
//! Wald 1945; Robbins 1970; Johari, Pekelis and Walsh, "Always Valid Inference"; Lindon and Malek, "Anytime-Valid
//! Inference for Multinomial Count Data", arXiv 2011.03567; that requests are drawn without replacement only lowers the
//! expectation (Hoeffding 1963). What holds alpha is that requests within a block are exchangeable. Errors come in
//! bursts, too: the trimmed rule, the dispersion among stable's endpoints, what single endpoints of stable show, and the same
//! test between random halves of stable answer that as far as they can, and [`Explanation`] shows the numbers of all of them.

mod arms;
mod block;
mod calibration;
mod counted;
mod edited;
mod evidence;
mod explain;
mod grid;
mod halves;
mod judge;
mod past;
mod process;
mod threshold;
mod trim;
mod unaided;

pub use arms::Arms;
pub(crate) use edited::stricter;
pub use evidence::{Evidence, Observation, Part, Tally};
pub use explain::{
    CountedExplanation, Explanation, MetricExplanation, ProcessExplanation, RaiseExplanation, ThresholdExplanation,
};
pub use judge::{Absence, Failure, Judge, Verdict};
