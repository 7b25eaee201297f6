//! The analysis beside rules like those of Flagger and Argo Rollouts, on the same made-up traffic.
//!
//! Seeded: the same tables every time. How long it takes to notice a bad candidate; how whole runs end; how often a healthy
//! one is taken back; and both together, with the rules tuned for each traffic to be exactly as fast as the analysis, then
//! met with bursts that neither was tuned for. Says at the end where the analysis is worse.
//!
//! The rules are written down from what the tools document, not the tools themselves: counters scraped every 5 seconds,
//! rates over a window, Flagger's failures adding up and taking effect a tick later, Argo's failures beyond a limit
//! taking effect at once. Beside absolute bounds both may compare with stable, as a query of theirs could.
#![allow(missing_docs, clippy::disallowed_methods)]

#[path = "../crates/rollout/tests/support/random.rs"]
mod random;
#[path = "../crates/rollout/tests/support/traffic.rs"]
mod traffic;

use std::collections::BTreeMap;

use random::Random;
use rollout::{Effect, Endpoints, Event, Evidence, Observation, Phase, Plan, Revision, Run, Standing, Time};
use traffic::{Bursts, Incident, STABLE_PODS, Second, Traffic, fails_after, judge, quantile, raw_fails_after};
use world::api::delivery::{AnalysisProfile, DEFAULT_PROFILE, DeploymentIntent};

/// How long a healthy candidate is watched, and a bad one at most.
const WATCH: u64 = 1_800;
/// So many lives make up a cell.
const BAD: u64 = 60;
const RUNS: u64 = 300;
const HEALTHY: u64 = 100;
/// Both tools look at counters that were scraped this often.
const SCRAPE: u64 = 5;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Tool {
    Flagger,
    Argo,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Bound {
    /// The share of errors may not be above this.
    Absolute(f64),
    /// Nor above stable's by more than this.
    Relative(f64),
}

/// One setting of one tool.
#[derive(Clone, Copy, Debug)]
struct Rule {
    tool: Tool,
    interval: u64,
    window: u64,
    limit: u64,
    bound: Bound,
}

/// Running sums at every second: total and bad of candidate, then of stable.
struct Sums(Vec<[u64; 4]>);

impl Sums {
    fn of(seconds: &[Second]) -> Self {
        let mut sums = vec![[0; 4]];
        for second in seconds {
            let last = sums[sums.len() - 1];
            let new = [second.candidate.total, second.candidate.bad, second.stable.total, second.stable.bad];
            sums.push(std::array::from_fn(|at| last[at] + new[at]));
        }
        Self(sums)
    }

    /// Shares of errors over the window that ends at the last scrape.
    fn rates(&self, now: u64, window: u64) -> [Option<f64>; 2] {
        let end = now / SCRAPE * SCRAPE;
        let (from, to) = (self.0[end.saturating_sub(window) as usize], self.0[end as usize]);
        [0, 2].map(|arm| {
            let total = to[arm] - from[arm];
            (total > 0).then(|| (to[arm + 1] - from[arm + 1]) as f64 / total as f64)
        })
    }
}

impl Rule {
    fn fails_after(&self, sums: &Sums) -> Option<u64> {
        let end = sums.0.len() as u64 - 1;
        let (mut failures, mut now) = (0, self.interval);
        while now <= end {
            if self.tool == Tool::Flagger && failures >= self.limit {
                return Some(now);
            }
            let is_bad = match (sums.rates(now, self.window), self.bound) {
                ([Some(candidate), _], Bound::Absolute(bound)) => candidate > bound,
                ([Some(candidate), Some(stable)], Bound::Relative(bound)) => candidate - stable > bound,
                // No traffic in the window counts as failed for Flagger, and as nothing here for Argo.
                _ => self.tool == Tool::Flagger,
            };
            failures += u64::from(is_bad);
            if self.tool == Tool::Argo && failures > self.limit {
                return Some(now);
            }
            now += self.interval;
        }
        None
    }

    /// Every setting that somebody might arrive at.
    fn all(tool: Tool) -> Vec<Self> {
        let bounds = [0.005, 0.01, 0.015, 0.02, 0.03].map(Bound::Absolute).into_iter();
        let bounds: Vec<_> = bounds.chain([0.005, 0.01, 0.02, 0.03].map(Bound::Relative)).collect();
        let limits: &[u64] = if tool == Tool::Flagger { &[1, 2, 3, 5] } else { &[0, 1, 2, 4] };
        let mut rules = Vec::new();
        for interval in [5, 10, 15, 30, 60] {
            for window in [10, 30, 60, 120] {
                for limit in limits.iter().copied() {
                    rules.extend(bounds.iter().map(|bound| Self { tool, interval, window, limit, bound: *bound }));
                }
            }
        }
        rules
    }

    fn describe(&self) -> String {
        let bound = match self.bound {
            Bound::Absolute(bound) => format!("errors > {:.1}%", bound * 100.0),
            Bound::Relative(bound) => format!("errors > stable's + {:.1} pp", bound * 100.0),
        };
        format!("{:?}-like: every {} s over {} s, limit {}, {bound}", self.tool, self.interval, self.window, self.limit)
    }
}

fn lives(traffic: &Traffic, runs: u64, seed: u64, seconds: u64) -> Vec<Vec<Second>> {
    let lives = (0..runs).map(|run| traffic.seconds(&mut Random::new(seed * 100_003 + run), seconds));
    lives.collect()
}

fn text(value: Option<u64>) -> String {
    value.map_or_else(|| "never".to_owned(), |seconds| seconds.to_string())
}

fn percent(found: &[Option<u64>]) -> f64 {
    100.0 * found.iter().filter(|found| found.is_some()).count() as f64 / found.len() as f64
}

/// Returns where a rule is faster.
fn detection() -> Vec<String> {
    let mut slower = Vec::new();
    let names = ["analysis", "analysis, untrimmed", "Flagger tutorial", "Flagger fastest", "Argo 60 s, limit 3"];
    println!(
        "\n## Seconds from the first bad request to the verdict, 10% weight, stable at 0.1% errors: median (p95)\n"
    );
    println!("| candidate | 5 rps | 20 rps | 100 rps | 1000 rps |\n|---|---|---|---|---|");
    let flagger = Rule { tool: Tool::Flagger, interval: 60, window: 60, limit: 5, bound: Bound::Absolute(0.01) };
    let fast = Rule { interval: 10, window: 30, limit: 1, ..flagger };
    let argo = Rule { tool: Tool::Argo, interval: 60, window: 60, limit: 3, bound: Bound::Absolute(0.01) };
    for errors in [0.05, 0.02] {
        let mut rows: [Vec<String>; 5] = Default::default();
        for (at, rps) in [5.0, 20.0, 100.0, 1_000.0].into_iter().enumerate() {
            let traffic = Traffic { rps, candidate_errors: errors, ..Traffic::default() };
            let lives = lives(&traffic, BAD, 1 + at as u64, WATCH);
            let sums: Vec<_> = lives.iter().map(|life| Sums::of(life)).collect();
            let by = |rule: &Rule| sums.iter().map(|sums| rule.fails_after(sums)).collect::<Vec<_>>();
            let found = [
                lives.iter().map(|life| fails_after(judge(0.01, |_| ()), life)).collect(),
                lives.iter().map(|life| raw_fails_after(judge(0.01, |_| ()), life)).collect(),
                by(&flagger),
                by(&fast),
                by(&argo),
            ];
            let mut own = None;
            for (which, (row, mut found)) in rows.iter_mut().zip(found).enumerate() {
                let median = quantile(&mut found, 0.5);
                row.push(format!("{} ({})", text(median), text(quantile(&mut found, 0.95))));
                match (which, own, median) {
                    (0, ..) => own = median,
                    (2.., Some(own), Some(median)) if median < own => {
                        let errors = errors * 100.0;
                        slower.push(format!("{rps} rps, {errors}% errors: {own} s, {} s for {}", median, names[which]));
                    }
                    _ => {}
                }
            }
        }
        for (name, row) in names.iter().zip(rows) {
            println!("| {:.0}% errors: {name} | {} |", errors * 100.0, row.join(" | "));
        }
    }
    slower
}

fn late_onset() {
    println!("\n## A candidate that fails after an hour of health, 5% errors, 10% weight: seconds, median (p95)\n");
    for rps in [20.0, 100.0] {
        let traffic = Traffic { rps, candidate_errors: 0.05, bad_from_second: 3_600, ..Traffic::default() };
        let mut found: Vec<_> = lives(&traffic, 40, 77, 3_600 + 900)
            .iter()
            .map(|life| fails_after(judge(0.01, |_| ()), life).map(|at| at.saturating_sub(3_600)))
            .collect();
        println!("{rps} rps: {} ({})", text(quantile(&mut found, 0.5)), text(quantile(&mut found, 0.95)));
    }
}

/// Kinds of harmless trouble, the first two for tuning, the others unseen.
fn troubles() -> Vec<(&'static str, Traffic)> {
    let of = |seconds, every_seconds, errors| Some(Bursts { seconds, every_seconds, errors });
    let base = Traffic::default();
    vec![
        ("even errors, 0.1% (tuned on)", base),
        ("bursts of 30% for 5 s every 10 min (tuned on)", Traffic { bursts: of(5.0, 600.0, 0.3), ..base }),
        ("even errors, 0.8%", Traffic { stable_errors: 0.008, candidate_errors: 0.008, ..base }),
        ("bursts of 100% for 3 s every 20 min", Traffic { bursts: of(3.0, 1_200.0, 1.0), ..base }),
        ("bursts of 10% for 30 s every 15 min", Traffic { bursts: of(30.0, 900.0, 0.1), ..base }),
        ("bursts of 5% for 2 min every hour", Traffic { bursts: of(120.0, 3_600.0, 0.05), ..base }),
        ("errors in groups of 10, 0.5%", Traffic { group: 10, stable_errors: 0.005, candidate_errors: 0.005, ..base }),
        ("both arms at 5% for 2 min", {
            let incident = Some(Incident { from_second: 600, until_second: 720, errors: 0.05 });
            Traffic { incident, ..base }
        }),
    ]
}

fn false_alarms() {
    println!("\n## Healthy candidates taken back within 30 min, in percent; analysis at alpha 0.01\n");
    println!("| trouble | 20 rps | 100 rps | 1000 rps |\n|---|---|---|---|");
    for (name, traffic) in troubles() {
        let rates = [20.0, 100.0, 1_000.0].map(|rps| {
            let lives = lives(&Traffic { rps, ..traffic }, HEALTHY, 500, WATCH);
            let found: Vec<_> = lives.iter().map(|life| fails_after(judge(0.01, |_| ()), life)).collect();
            format!("{:.1}", percent(&found))
        });
        println!("| {name} | {} |", rates.join(" | "));
    }
}

/// For each rate of requests the setting of each tool that takes the fewest healthy candidates back in the traffic
/// that it was tuned on, of those that are as fast as the analysis; then all of them in all traffic.
fn tuned() -> Vec<String> {
    let mut worse = Vec::new();
    for (rps, errors) in [(20.0, 0.05), (100.0, 0.05), (1_000.0, 0.05)] {
        let bad = lives(&Traffic { rps, candidate_errors: errors, ..Traffic::default() }, BAD, 900, WATCH);
        let mut ours: Vec<_> = bad.iter().map(|life| fails_after(judge(0.01, |_| ()), life)).collect();
        let time = quantile(&mut ours, 0.5).unwrap_or(WATCH);
        let bad: Vec<_> = bad.iter().map(|life| Sums::of(life)).collect();
        let healthy: Vec<_> = troubles()
            .into_iter()
            .map(|(name, t)| (name, lives(&Traffic { rps, ..t }, HEALTHY, 1_300, WATCH)))
            .collect();
        let sums: Vec<Vec<Sums>> =
            healthy.iter().map(|(_, lives)| lives.iter().map(|life| Sums::of(life)).collect()).collect();
        let alarms =
            |rule: &Rule, at: usize| percent(&sums[at].iter().map(|sums| rule.fails_after(sums)).collect::<Vec<_>>());
        println!("\n### {rps} rps, {:.0}% errors: as fast as the analysis ({time} s in the median)\n", errors * 100.0);
        let best = [Tool::Flagger, Tool::Argo].map(|tool| {
            let is_fast = |rule: &Rule| {
                let mut found: Vec<_> = bad.iter().map(|sums| rule.fails_after(sums)).collect();
                quantile(&mut found, 0.5).is_some_and(|median| median <= time)
            };
            let fast = Rule::all(tool).into_iter().filter(is_fast);
            fast.min_by(|a, b| (alarms(a, 0) + alarms(a, 1)).total_cmp(&(alarms(b, 0) + alarms(b, 1))))
        });
        for rule in best {
            println!("{}", rule.map_or_else(|| "no setting is as fast".to_owned(), |rule| rule.describe()));
        }
        println!(
            "\n| healthy candidates taken back, percent | analysis | Flagger-like | Argo-like |\n|---|---|---|---|"
        );
        for (at, (name, lives)) in healthy.iter().enumerate() {
            let found: Vec<_> = lives.iter().map(|life| fails_after(judge(0.01, |_| ()), life)).collect();
            let own = percent(&found);
            let others = best.map(|rule| rule.map(|rule| alarms(&rule, at)));
            let cells = others.map(|rate| rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}")));
            println!("| {name} | {own:.1} | {} |", cells.join(" | "));
            for (tool, rate) in ["Flagger", "Argo"].iter().zip(others) {
                if let Some(rate) = rate.filter(|rate| own > rate + 1.0) {
                    worse.push(format!("{rps} rps, {name}: {own:.1}% against {rate:.1}% of the {tool}-like rule"));
                }
            }
        }
    }
    worse
}

/// How a whole run of the default steps ends, after how many seconds, and how many requests the candidate failed.
fn whole_run(traffic: &Traffic, seed: u64) -> (Phase, u64, u64) {
    let (v1, v2) = (Revision::new("v1"), Revision::new("v2"));
    let plan = Plan {
        run: "sim".to_owned(),
        generation: 1,
        spec: DeploymentIntent::default(),
        profiles: BTreeMap::from([(DEFAULT_PROFILE.to_owned(), AnalysisProfile::envoy_default().metrics)]),
        stable: v1.clone(),
        candidate: v2.clone(),
        attempt: 1,
        is_fast: false,
        known_good: Vec::new(),
        lingering: Vec::new(),
        first_version: 1,
        fence: 1,
    };
    let mut random = Random::new(seed);
    let mut bursting = [0.0; STABLE_PODS + 1];
    let mut run = Run::start(Time::from_millis(0), plan);
    let endpoints = [(v1, STABLE_PODS as u32), (v2, STABLE_PODS as u32)];
    let endpoints = endpoints.map(|(r, count)| (r, Endpoints { healthy: count, total: count }));
    run.handle(Time::from_millis(0), Event::Endpoints(endpoints.into()));
    let mut failed = 0;
    for second in 0..7_200 {
        let now = Time::from_millis(second * 1_000);
        // A store that never fails, and nodes that accept at once.
        while let Some(effect) = run.poll_effect() {
            match effect {
                Effect::Commit(record) => run.handle(now, Event::Committed(record.sequence)),
                Effect::Publish(assignment) => {
                    let version = assignment.version;
                    let standing =
                        Standing { version, concerned: 9, accepted: 9, attached: 9, refused: Vec::new(), stale: 0 };
                    run.handle(now, Event::Standing(standing));
                }
                Effect::AskGate(_) | Effect::Notify(_) | Effect::LoadReports { .. } => {}
                Effect::StartRun(_) | Effect::SafeToScaleDown(_) => {}
            }
        }
        if run.record().phase.is_over() || run.record().phase == Phase::Draining {
            return (run.record().phase, second, failed);
        }
        let traffic = Traffic { share: run.record().weight().fraction(), ..*traffic };
        let counted = traffic.second(&mut random, second, &mut bursting);
        failed += counted.candidate.bad;
        let counts = Observation::Counts { candidate: counted.candidate, stable: counted.stable, parts: counted.parts };
        let until = Time::from_millis((second + 1) * 1_000);
        let metrics = BTreeMap::from([("error-rate".to_owned(), counts)]);
        run.handle(until, Event::Evidence(Evidence { from: now, until, reporters: 9, metrics }));
    }
    (run.record().phase, 7_200, failed)
}

fn whole_runs() {
    println!("\n## Whole runs of the default steps (1, 5, 10, 25, 50, 100%), {RUNS} of each\n");
    println!(
        "| candidate | rps | taken back, percent | median seconds | median failed requests |\n|---|---|---|---|---|"
    );
    for errors in [0.001, 0.02, 0.05, 0.5] {
        for rps in [20.0, 100.0, 1_000.0] {
            let traffic = Traffic { rps, candidate_errors: errors, ..Traffic::default() };
            let ends: Vec<_> = (0..RUNS).map(|seed| whole_run(&traffic, 31 + seed)).collect();
            let is_back = |phase: Phase| matches!(phase, Phase::RollingBack | Phase::RolledBack);
            let back = ends.iter().filter(|(phase, ..)| is_back(*phase)).count();
            let mut seconds: Vec<_> = ends.iter().map(|(_, seconds, _)| Some(*seconds)).collect();
            let mut failed: Vec<_> = ends.iter().map(|(_, _, failed)| Some(*failed)).collect();
            println!(
                "| {}% errors | {rps} | {:.1} | {} | {} |",
                errors * 100.0,
                100.0 * back as f64 / RUNS as f64,
                text(quantile(&mut seconds, 0.5)),
                text(quantile(&mut failed, 0.5))
            );
        }
    }
}

/// The whole trade: what each alpha costs in time and in false alarms.
fn curve() {
    println!("\n## The analysis at other alphas, 100 rps, 5% errors: median seconds, and percent taken back\n");
    println!(
        "| alpha | seconds | even errors | bursts of 30% for 5 s | bursts of 100% for 3 s |\n|---|---|---|---|---|"
    );
    let bad = lives(&Traffic { candidate_errors: 0.05, ..Traffic::default() }, BAD, 900, WATCH);
    let troubles = troubles();
    let healthy = [0, 1, 3].map(|at: usize| lives(&troubles[at].1, HEALTHY, 1_700, WATCH));
    for alpha in [0.2, 0.05, 0.01, 0.001, 0.000_01] {
        let mut found: Vec<_> = bad.iter().map(|life| fails_after(judge(alpha, |_| ()), life)).collect();
        let rates = healthy.each_ref().map(|lives| {
            let found: Vec<_> = lives.iter().map(|life| fails_after(judge(alpha, |_| ()), life)).collect();
            format!("{:.1}", percent(&found))
        });
        println!("| {alpha} | {} | {} |", text(quantile(&mut found, 0.5)), rates.join(" | "));
    }
}

fn main() {
    // Cargo says `--bench` when it measures, and nothing when it only tries whether benchmarks start.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    println!("# Simulated analysis: seeded, {BAD} bad and {HEALTHY} healthy lives a cell");
    let slower = detection();
    late_onset();
    whole_runs();
    false_alarms();
    curve();
    println!("\n## Rules tuned to be as fast");
    let worse = tuned();
    println!("\n## Where the analysis is worse: slower, or more healthy candidates taken back by over one point\n");
    slower.iter().chain(&worse).for_each(|line| println!("- {line}"));
}
