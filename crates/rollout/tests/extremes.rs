//! Runs whose intents say the largest and the smallest that can be written, over counts and times of the same kind:
//! whatever somebody writes, the machine that carries out everybody's runs goes on.
//!
//! `ROLLOUT_SEED=17 cargo test --test extremes` lives one of these lives again.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

#[path = "support/bed.rs"]
mod bed;
#[path = "support/random.rs"]
mod random;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bed::{Bed, intent, plan, revision};
use random::Random;
use rollout::{Effect, Endpoints, Event, Evidence, GateAnswer, Observation, Part, Run, Tally, Time, Verb};
use world::api::delivery::{Amount, BlueGreen, DeploymentIntent, MetricKind, OnMetricError, Switch, Weight};

/// One of each strategy, with everything in it that a number or a time says something about.
const INTENTS: &[&str] = &[
    r#","strategy":{"canary":{"steps":[{"requireEndpoints":{"absolute":1,"percentOfStable":1}},{"setWeight":20},{"pause":{"duration":"30s"}},{"setWeight":60},{"analysis":{"minDuration":"1s","maxDuration":"1s","minRequests":1}},{"setWeight":100}]}},"gates":[{"phase":"PreStep","url":"https://a"},{"phase":"Rollback","url":"https://b"}]"#,
    r#","strategy":{"type":"BlueGreen","blueGreen":{"delay":"10s","switch":{"ramp":"1m"}}},"rollback":{"mode":"Ramp","ramp":"20s"}"#,
    r#","strategy":{"type":"Rolling","rolling":{"batch":1,"settle":"10s"}},"gates":[{"phase":"PrePromote","url":"https://a"}]"#,
    r#","strategy":{"type":"AB","ab":{"endAt":"9999-12-31T23:59:59Z","variants":[{"name":"a","revision":"v1","share":50},{"name":"b","revision":"v2","share":50}],"winner":"BySignal"}},"gates":[{"phase":"PreRun","url":"https://a"}]"#,
    r#","strategy":{"type":"Mirror","mirror":{"duration":"30s"}}"#,
];

const NUMBERS: [u32; 5] = [1, 2, 100, u32::MAX - 1, u32::MAX];

/// The longest is what Go's 64 bits of nanoseconds hold, and what a manifest's text is cut down to here.
fn span(random: &mut Random) -> Duration {
    let spans = [
        Duration::from_nanos(1),
        Duration::from_secs(1),
        Duration::from_secs(3_600),
        Duration::from_secs(2_000_000 * 3_600),
        Duration::from_nanos(i64::MAX as u64),
        Duration::from_nanos(u64::MAX),
    ];
    *random.pick(&spans)
}

fn extreme(random: &mut Random) -> DeploymentIntent {
    let mut spec = intent(random.pick::<&str>(INTENTS));
    let number = |random: &mut Random| *random.pick(&NUMBERS);
    spec.progress_deadline = span(random);
    spec.drain.timeout = span(random);
    spec.history_limit = number(random);
    spec.rollback.window = number(random);
    spec.rollback.ramp = spec.rollback.ramp.map(|_| span(random));
    spec.safety.ack_timeout = span(random);
    spec.safety.max_nacks = number(random);
    spec.safety.min_healthy_endpoints = *random.pick(&[1, 4, u32::MAX]);
    spec.safety.capacity_ratio = *random.pick(&[0.0, 1.0, 100.0]);
    spec.safety.ack_quorum = *random.pick(&[Weight::FULL, Weight::from_ppm(500_000)]);
    let analysis = &mut spec.analysis;
    for time in [
        &mut analysis.warmup,
        &mut analysis.max_step_duration,
        &mut analysis.no_traffic_timeout,
        &mut analysis.telemetry_timeout,
    ] {
        *time = span(random);
    }
    (analysis.alpha, analysis.beta) = (*random.pick(&[1e-6, 0.2]), *random.pick(&[1e-6, 0.2]));
    analysis.min_requests = *random.pick(&[0, 1, u64::MAX]);
    for gate in &mut spec.gates {
        (gate.timeout, gate.retries) = (span(random), number(random));
    }
    let strategy = &mut spec.strategy;
    for step in strategy.canary.iter_mut().flat_map(|canary| &mut canary.steps) {
        if let Some(pause) = &mut step.pause {
            pause.duration = Some(span(random));
        }
        if let Some(analysis) = &mut step.analysis {
            analysis.min_duration = Some(span(random));
            analysis.max_duration = Some(span(random));
            analysis.min_requests = Some(*random.pick(&[0, 1, u64::MAX]));
        }
        if let Some(needed) = &mut step.require_endpoints {
            (needed.absolute, needed.percent_of_stable) = (Some(*random.pick(&[1, u32::MAX])), Some(number(random)));
        }
    }
    if let Some(BlueGreen { delay, switch, keep_previous, .. }) = &mut strategy.blue_green {
        (*delay, *switch, *keep_previous) = (span(random), Switch::Ramp(span(random)), span(random));
    }
    if let Some(rolling) = &mut strategy.rolling {
        rolling.batch = *random.pick(&[Amount::Count(1), Amount::Count(u32::MAX), Amount::Share(Weight::from_ppm(1))]);
        rolling.max_unavailable = *random.pick(&[Amount::Count(0), Amount::Count(u32::MAX)]);
        rolling.settle = span(random);
    }
    if let Some(mirror) = &mut strategy.mirror {
        mirror.duration = span(random);
    }
    spec
}

fn tally(random: &mut Random) -> Tally {
    let total = *random.pick(&[0, 1, 1_000, u64::MAX / 2, u64::MAX]);
    Tally::new(total, *random.pick(&[0, 1, total / 2, u64::MAX]))
}

/// What reports could say at worst, about every kind of metric.
fn evidence(bed: &Bed, random: &mut Random) -> Evidence {
    let part = |random: &mut Random| Part { endpoint: random.next(), tally: tally(random) };
    let counts = Observation::Counts {
        candidate: tally(random),
        stable: tally(random),
        parts: (0..random.below(4)).map(|_| part(random)).collect(),
    };
    let number = *random.pick(&[0.0, f64::MAX, f64::INFINITY, f64::NEG_INFINITY, f64::NAN]);
    let value = match random.chance(0.5) {
        true => Observation::Value(number),
        false => Observation::ProviderError("it is gone".to_owned()),
    };
    Evidence {
        from: *random.pick(&[Time::default(), bed.time()]),
        until: *random.pick(&[bed.time(), Time::from_millis(u64::MAX)]),
        reporters: *random.pick(&NUMBERS),
        metrics: BTreeMap::from([("error-rate".to_owned(), counts), ("value".to_owned(), value)]),
    }
}

fn live(seed: u64) {
    let mut random = Random::new(seed);
    let mut plan = plan(extreme(&mut random));
    for metrics in plan.profiles.values_mut() {
        let mut value = metrics[0].clone();
        (value.name, value.kind, value.query) =
            ("value".to_owned(), MetricKind::Threshold, Some("error-rate".to_owned()));
        value.interval = span(&mut random);
        value.failure_limit = *random.pick(&NUMBERS);
        value.on_error = OnMetricError::Fail;
        metrics[0].slo = *random.pick(&[None, Some(f64::MIN_POSITIVE), Some(0.499)]);
        metrics[0].tolerance.ratio = *random.pick(&[1.0, 1e6]);
        metrics.push(value);
    }
    let mut bed = Bed::new(plan, 3);
    for _ in 0..random.below(60) {
        match random.below(10) {
            0..=3 => bed.deliver_all(),
            4 => {
                let most = u64::MAX / 2 - bed.now;
                let millis = *random.pick(&[1, 1_000, 60_000, 3_600_000, most]);
                bed.pass(millis.min(most));
            }
            5 => {
                let evidence = evidence(&bed, &mut random);
                bed.tell(Event::Evidence(evidence));
            }
            6 => _ = bed.act(random.pick(&[Verb::Promote, Verb::SkipStep, Verb::Abort, Verb::Retry]).clone()),
            7 => {
                let counts = *random.pick(&[0, 4, 5_000]);
                bed.endpoints.insert(revision("v2"), Endpoints { healthy: counts, total: counts });
                bed.tell_endpoints();
            }
            8 => {
                let answers = [GateAnswer::Approved, GateAnswer::NotYet, GateAnswer::Failed("x".to_owned())];
                bed.gates = random.pick(&answers).clone();
            }
            _ => bed.crash(),
        }
        // What is shown of it is reckoned from the same numbers.
        let (explanation, hold) = (bed.run.explain(), bed.run.hold());
        serde_json::to_value((explanation, hold)).unwrap();
    }
}

#[test]
fn nothing_that_can_be_written_or_counted_ends_in_a_panic() {
    let lives = match std::env::var("ROLLOUT_SEED") {
        Ok(seed) => seed.parse().unwrap()..=seed.parse().unwrap(),
        Err(_) => 0..=600,
    };
    for seed in lives {
        let lived = catch_unwind(AssertUnwindSafe(|| live(seed)));
        assert!(lived.is_ok(), "ROLLOUT_SEED={seed} lives this life again");
    }
}

/// The gate's question is the driver's while it tries: it takes pauses, too.
#[test]
fn a_gate_is_given_up_only_after_all_of_its_attempts_and_the_pauses_between_them() {
    let spec = intent(r#","gates":[{"phase":"PreRun","url":"https://a","timeout":"1s","retries":10}]"#);
    let mut run = Run::start(Time::from_millis(0), plan(spec));
    let mut asked = 0;
    let endpoints = ["v1", "v2"].map(|name| (revision(name), Endpoints { healthy: 4, total: 4 }));
    run.handle(Time::from_millis(0), Event::Endpoints(endpoints.into()));
    // Eleven attempts of one second, and ten pauses of five at most.
    for second in 0..=61 {
        run.handle_timeout(Time::from_millis(second * 1_000));
        while let Some(effect) = run.poll_effect() {
            match effect {
                Effect::Commit(record) => run.handle(run.record().now, Event::Committed(record.sequence)),
                Effect::Publish(assignment) => {
                    let standing = rollout::Standing { version: assignment.version, ..Default::default() };
                    run.handle(run.record().now, Event::Standing(standing));
                }
                Effect::AskGate(_) => asked += 1,
                Effect::Notify(_) | Effect::LoadReports { .. } | Effect::StartRun(_) | Effect::SafeToScaleDown(_) => {}
            }
        }
    }
    assert_eq!(asked, 1);
    assert!(run.record().gates.is_empty(), "{:?}", run.record().gates);
}
