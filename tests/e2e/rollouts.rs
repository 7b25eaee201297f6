//! Deployment intents carried out: real Envoys, real load, people who promote and abort, and a server that is killed.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::backend::Backend;
use testkit::load::{Load, Plan};
use testkit::ports;
use testkit::stats::{FALSE_ALARM, assert_split};

use crate::mesh::{Mesh, PATIENCE, Reviews, Variant, answering, pod};

const ROLLOUT: &str = "/api/v1/rollouts/default/reviews";

/// Steps that somebody promotes, with as little time between them as may be.
pub fn intent(steps: &[&str], more: &str) -> String {
    let steps: String = steps.iter().map(|step| format!("        - {step}\n")).collect();
    format!(
        "apiVersion: delivery.pointsman.dev/v1alpha1\nkind: DeploymentIntent\n\
         metadata: {{name: reviews, namespace: default}}\nspec:\n  service: {{name: reviews}}\n  \
         analysis: {{warmup: 100ms, profiles: []}}\n  drain: {{timeout: 1s}}\n{more}  strategy:\n    canary:\n      steps:\n{steps}"
    )
}

const STEPS: [&str; 9] = [
    "setWeight: 1",
    "pause: {}",
    "setWeight: 5",
    "pause: {}",
    "setWeight: 25",
    "pause: {}",
    "setWeight: 50",
    "pause: {}",
    "setWeight: 100",
];

/// A server with a service, an intent and one client; the state is in a directory of its own.
pub struct Stage {
    pub mesh: Mesh,
    pub reviews: Reviews,
    _client: testkit::envoy::Envoy,
    state: TempDir,
}

impl Stage {
    /// With v1 alone, all of whose traffic is its own.
    pub async fn start(intent: &str) -> Stage {
        let reviews = Reviews::start();
        let state = TempDir::with_prefix("pointsman-state-").unwrap();
        let objects = reviews.objects_of(&[("v1", &reviews.v1)]);
        let arguments = ["--state-dir", state.path().to_str().unwrap()];
        let mesh = Mesh::start_with(&[("reviews.yaml", &objects), ("intent.yaml", intent)], &arguments).await;
        let arguments = ["--pod", "client", "--interception", "none", "--load-reports"];
        let client = mesh.envoy(Variant::Delta, &arguments).await;
        answering(reviews.plan()).await;
        Stage { mesh, reviews, _client: client, state }
    }

    /// v2 appears.
    pub fn deploy(&self) {
        self.mesh.write("reviews.yaml", &self.reviews.objects());
    }

    pub async fn until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.mesh.get_where(ROLLOUT, what, wanted).await
    }

    /// Waits until every node has this weight, and nothing but time or somebody is missing for the next step.
    pub async fn at(&self, percent: f64) -> Value {
        self.until(&format!("{percent} % to be acknowledged"), |rollout| {
            rollout["weight"]["acknowledged"] == percent && rollout["weight"]["configured"] == percent
        })
        .await
    }

    async fn act(&self, body: Value) -> (u16, Value) {
        testkit::http::post_json(self.mesh.admin, &format!("{ROLLOUT}/actions"), &body).await.unwrap()
    }

    /// Promotes as soon as the run waits in this step.
    async fn promote(&self, step: usize) {
        self.until(&format!("step {step} to wait"), |rollout| rollout["step"] == step && rollout["phase"] == "Waiting")
            .await;
        let (status, answer) = self.act(json!({"verb": "promote", "expectedStep": step, "actor": "test"})).await;
        assert_eq!(status, 200, "{answer}");
    }

    pub fn load(&self, per_second: f64) -> Load {
        Load::start(self.reviews.plan().per_second(per_second).connections(8)).unwrap()
    }
}

#[tokio::test]
async fn a_canary_that_people_promote_reaches_the_end_and_no_request_fails() {
    let stage = Stage::start(&intent(&STEPS, "")).await;
    let load = stage.load(800.0);
    let begun = Instant::now();
    stage.deploy();
    for (at, percent) in [1_u32, 5, 25, 50].into_iter().enumerate() {
        stage.at(f64::from(percent)).await;
        // What was on its way with other weights has arrived by then.
        let since = Instant::now() + Duration::from_millis(200);
        tokio::time::sleep_until(since.into()).await;
        load.next(2_000, PATIENCE).await.unwrap();
        let window = load.window(since, Instant::now()).await;
        let (v1, v2) = (u64::from(100 - percent), u64::from(percent));
        assert_split(&window.by_backend(), &[("v1", v1), ("v2", v2)], FALSE_ALARM);
        stage.promote(2 * at + 1).await;
    }
    let rollout = stage.until("the run to have completed", |rollout| rollout["phase"] == "Completed").await;
    assert_eq!(rollout["nodes"]["concerned"], 1, "{rollout}");
    let rollout = stage.until("v1 to be left", |rollout| rollout["safe_to_scale_down"] == json!(["v1"])).await;
    assert_eq!(rollout["runs"][0]["candidate"], "v2", "{rollout}");
    let since = Instant::now();
    load.next(500, PATIENCE).await.unwrap();
    assert_split(&load.window(since, Instant::now()).await.by_backend(), &[("v2", 1)], FALSE_ALARM);
    load.since(begun).await.assert_no_failures();
}

#[tokio::test]
async fn a_run_that_selects_nobody_waits_and_divides_the_traffic_of_who_is_selected_then() {
    let selected = "  attach: {clients: {matchLabels: {app: shop}}}\n";
    let stage = Stage::start(&intent(&["setWeight: 50", "pause: {}", "setWeight: 100"], selected)).await;
    let load = stage.load(300.0);
    let begun = Instant::now();
    stage.deploy();
    let missed = |rollout: &Value| rollout["hold"]["reason"] == "NoClientMatches";
    let rollout = stage.until("somebody to be missed", missed).await;
    assert_eq!((&rollout["phase"], &rollout["nodes"]["concerned"]), (&json!("Preparing"), &json!(1)), "{rollout}");
    let is_told = |rollout: &Value| {
        rollout["problems"].as_array().unwrap().iter().any(|problem| problem["field"] == "spec.attach.clients")
    };
    assert!(is_told(&rollout), "{rollout}");
    let mut conditions = rollout["conditions"].as_array().unwrap().iter();
    assert!(conditions.any(|is| is["kind"] == "Blocked" && is["status"] == true), "{rollout}");
    load.next(300, PATIENCE).await.unwrap();
    assert_eq!(stage.reviews.v2.requests(), 0, "the client is none of those that are selected");

    // What the world learns of the client's workload makes it one of them.
    stage.mesh.write(
        "client.yaml",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: client, namespace: default, labels: {app: shop}}\n\
         spec: {containers: [{name: app}]}\nstatus: {podIP: 10.1.1.1, phase: Running}\n",
    );
    stage.at(50.0).await;
    stage.until("nobody to be missed any more", |rollout| !is_told(rollout)).await;
    stage.promote(1).await;
    stage.until("the run to have completed", |rollout| rollout["phase"] == "Completed").await;
    assert!(stage.reviews.v2.requests() > 0);
    load.since(begun).await.assert_no_failures();
}

#[tokio::test]
async fn the_variant_that_somebody_names_wins_a_test_and_no_request_fails() {
    let test = "apiVersion: delivery.pointsman.dev/v1alpha1\nkind: DeploymentIntent\n\
                metadata: {name: reviews, namespace: default}\nspec:\n  service: {name: reviews}\n  \
                analysis: {warmup: 100ms, profiles: []}\n  drain: {timeout: 1s}\n  strategy:\n    type: AB\n    \
                ab: {variants: [{name: old, revision: v1, share: 40}, {name: blue, revision: v2, share: 30}, \
                {name: red, revision: v3, share: 30}]}\n";
    let stage = Stage::start(test).await;
    let v3 = Backend::start("v3", ports::pod(ports::local().unwrap().port()).unwrap()).unwrap();
    let load = stage.load(300.0);
    let begun = Instant::now();
    let Reviews { v1, v2, .. } = &stage.reviews;
    stage.mesh.write("reviews.yaml", &stage.reviews.objects_of(&[("v1", v1), ("v2", v2), ("v3", &v3)]));
    let waits = |rollout: &Value| rollout["step"] == 1 && rollout["phase"] == "Waiting";
    let rollout = stage.until("the test to wait for its end", waits).await;
    let since = Instant::now();
    load.next(600, PATIENCE).await.unwrap();
    let window = load.window(since, Instant::now()).await;
    assert_split(&window.by_backend(), &[("v1", 40), ("v2", 30), ("v3", 30)], FALSE_ALARM);
    assert_eq!(stage.act(json!({"verb": "promote"})).await.0, 409, "of two revisions one has to be named");
    // Not the one that would have everything without a name.
    let (name, winner) = if rollout["candidate"] == "v2" { ("red", "v3") } else { ("blue", "v2") };
    let (status, answer) = stage.act(json!({"verb": "promote", "variant": name, "expectedStep": 1})).await;
    assert_eq!(status, 200, "{answer}");
    let has_won = |rollout: &Value| rollout["phase"] == "Completed" && rollout["candidate"] == winner;
    stage.until("the winner to have everything", has_won).await;
    let since = Instant::now();
    load.next(500, PATIENCE).await.unwrap();
    assert_split(&load.window(since, Instant::now()).await.by_backend(), &[(winner, 1)], FALSE_ALARM);
    load.since(begun).await.assert_no_failures();
}

#[tokio::test]
async fn revisions_by_another_label_take_over_and_no_request_under_way_is_lost() {
    let steps = ["setWeight: 50", "pause: {}", "setWeight: 100"];
    let labelled =
        |label: &str, stable: &str| intent(&steps, &format!("  revisions: {{label: {label}, stable: {stable}}}\n"));
    let stage = Stage::start(&labelled("version", "v1")).await;
    let Reviews { v1, v2, .. } = &stage.reviews;
    let service = stage.reviews.objects_of(&[]);
    let both = [
        pod("reviews-v1", "app: reviews, version: v1, release: r1", v1.address()),
        pod("reviews-v2", "app: reviews, version: v2, release: r2", v2.address()),
    ];
    stage.mesh.write("reviews.yaml", &format!("{service}{}", both.concat()));
    stage.at(50.0).await;
    let (load, begun) = (stage.load(300.0), Instant::now());
    let slow = Plan::get(stage.reviews.address, "reviews", "/delay/1500").timeout(Duration::from_secs(10));
    let slow = Load::start(slow.per_second(50.0).connections(100)).unwrap();
    slow.next(50, PATIENCE).await.unwrap();
    stage.mesh.write("intent.yaml", &labelled("release", "r1"));
    let runs_again = |rollout: &Value| rollout["candidate"] == "r2" && rollout["weight"]["acknowledged"] == 50.0;
    stage.until("a run by the other label", runs_again).await;
    load.next(600, PATIENCE).await.unwrap();
    slow.next(100, PATIENCE).await.unwrap();
    load.since(begun).await.assert_no_failures();
    slow.since(begun).await.assert_no_failures();
}

#[tokio::test]
async fn a_revision_that_appears_gets_no_request_before_its_run_says_so_and_none_after_an_abort() {
    let stage = Stage::start(&intent(&["pause: {}", "setWeight: 50", "pause: {}", "setWeight: 100"], "")).await;
    let load = stage.load(500.0);
    let begun = Instant::now();
    stage.deploy();
    stage.until("the run to wait", |rollout| rollout["step"] == 0 && rollout["phase"] == "Waiting").await;
    load.next(500, PATIENCE).await.unwrap();
    assert_eq!(stage.reviews.v2.requests(), 0, "nobody has said that it may");
    stage.promote(0).await;
    stage.at(50.0).await;
    load.next(100, PATIENCE).await.unwrap();
    let abort = json!({"verb": "abort", "reason": "it is slow", "actor": "alice", "id": "one"});
    let (status, answer) = stage.act(abort.clone()).await;
    assert_eq!(status, 200, "{answer}");
    let rollout = stage.until("the run to have gone back", |rollout| rollout["phase"] == "RolledBack").await;
    assert_eq!(rollout["reason"], "aborted by alice: it is slow");
    assert_eq!(stage.act(abort).await.0, 200, "the same again does nothing");
    tokio::time::sleep(Duration::from_millis(200)).await;
    let before = stage.reviews.v2.requests();
    load.next(500, PATIENCE).await.unwrap();
    assert_eq!(stage.reviews.v2.requests(), before);
    load.since(begun).await.assert_no_failures();
    // It is tried again when somebody says so, and not before.
    let (status, answer) = stage.act(json!({"verb": "retry"})).await;
    assert_eq!(status, 200, "{answer}");
    let again = |rollout: &Value| rollout["run"] == "reviews-2" && rollout["attempt"] == 2;
    stage.until("a second attempt", again).await;
}

#[tokio::test]
async fn actions_that_make_no_sense_are_refused_and_change_nothing() {
    let stage = Stage::start(&intent(&STEPS, "")).await;
    let (status, answer) = stage.act(json!({"verb": "promote"})).await;
    assert_eq!(status, 409, "there is no run yet: {answer}");
    stage.deploy();
    stage.until("step 1 to wait", |rollout| rollout["step"] == 1 && rollout["phase"] == "Waiting").await;
    for (body, expected, words) in [
        (json!({"verb": "promote", "expectedStep": 3}), 409, "not in step 3"),
        (json!({"verb": "roll-back-to", "revision": "v9"}), 409, "not among those that completed runs left"),
        (json!({"verb": "roll-back-to"}), 400, "which revision"),
        (json!({"verb": "explode"}), 400, "\"explode\""),
        (json!({"verb": "promote", "step": 3}), 400, "unknown field"),
        (json!({"verb": "promote", "reason": "x".repeat(2_000)}), 400, "more than 1000"),
        (json!("promote"), 400, "no action"),
    ] {
        let (status, answer) = stage.act(body.clone()).await;
        assert_eq!(status, expected, "{body}: {answer}");
        assert!(answer["error"].as_str().unwrap().contains(words), "{body}: {answer}");
    }
    let rollout = stage.mesh.get(ROLLOUT).await;
    assert_eq!((&rollout["step"], &rollout["weight"]["configured"]), (&json!(1), &json!(1.0)), "{rollout}");
    assert_eq!(rollout["actions"], json!([]));
}

#[tokio::test]
async fn a_server_that_is_killed_goes_on_where_it_was() {
    let mut stage = Stage::start(&intent(&STEPS, "")).await;
    let load = stage.load(500.0);
    let begun = Instant::now();
    stage.deploy();
    let mut promoted = 0;
    // Each time at another moment of a step.
    for (at, millis) in [0, 30, 90, 250].into_iter().enumerate() {
        stage.promote(2 * at + 1).await;
        promoted += 1;
        tokio::time::sleep(Duration::from_millis(millis)).await;
        let before = stage.mesh.get(ROLLOUT).await["weight"]["acknowledged"].clone();
        stage.mesh.server.kill().await.unwrap();
        load.next(100, PATIENCE).await.unwrap();
        stage.mesh.restart().await;
        let after = stage.mesh.get(ROLLOUT).await["weight"]["configured"].clone();
        assert!(after.as_f64() >= before.as_f64(), "{after} after {before}");
        stage.mesh.synced(1).await;
    }
    assert_eq!(promoted, 4);
    stage.until("the run to have completed", |rollout| rollout["phase"] == "Completed").await;
    load.since(begun).await.assert_no_failures();
    assert!(stage.state.path().join("rollouts.redb").exists());
}

#[tokio::test]
async fn a_new_revision_in_mid_run_replaces_the_candidate() {
    let mut stage = Stage::start(&intent(&STEPS, "")).await;
    stage.deploy();
    stage.at(1.0).await;
    let v3 =
        testkit::backend::Backend::start("v3", testkit::ports::pod(testkit::ports::local().unwrap().port()).unwrap())
            .unwrap();
    let load = stage.load(300.0);
    let begun = Instant::now();
    let reviews = &stage.reviews;
    let all = reviews.objects_of(&[("v1", &reviews.v1), ("v2", &reviews.v2), ("v3", &v3)]);
    stage.mesh.write("reviews.yaml", &all);
    let rollout = stage.until("the run of v3", |rollout| rollout["candidate"] == "v3").await;
    assert_eq!(rollout["runs"][1]["phase"], "Superseded", "{rollout}");
    stage
        .until("v3 to have its share", |rollout| {
            rollout["candidate"] == "v3" && rollout["weight"]["acknowledged"] == 1.0
        })
        .await;
    let before = stage.reviews.v2.requests();
    load.next(500, PATIENCE).await.unwrap();
    assert_eq!(stage.reviews.v2.requests(), before, "v2 gets nothing any more");
    load.since(begun).await.assert_no_failures();
    // A deleted intent takes traffic back.
    stage.mesh.remove("intent.yaml");
    stage.until("the run to have gone back", |rollout| rollout["phase"] == "RolledBack").await;
    let before = v3.requests();
    load.next(300, PATIENCE).await.unwrap();
    assert!(v3.requests() <= before + 8, "at most what was under way");
    stage.mesh.server.kill().await.unwrap();
    stage.mesh.restart().await;
    stage.mesh.synced(1).await;
    load.next(300, PATIENCE).await.unwrap();
    assert!(v3.requests() <= before + 8, "nor after a restart");
    load.since(begun).await.assert_no_failures();
}

#[tokio::test]
async fn a_second_server_on_the_same_state_is_refused() {
    let stage = Stage::start(&intent(&STEPS, "")).await;
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .args(["serve", "--xds-listen", "127.0.0.1:0", "--admin-listen", "none", "--config"])
        .arg(stage.mesh.files.path())
        .arg("--state-dir")
        .arg(stage.state.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(words.contains("in use by another process") && words.contains("--state-dir"), "{words}");
}

#[tokio::test]
async fn a_candidate_that_fails_requests_goes_back_by_itself() {
    let steps = ["setWeight: 20", "pause: {}", "setWeight: 100"];
    let stage = Stage::start(&intent(&steps, "").replace(", profiles: []", "")).await;
    let plan = stage.reviews.plan().per_second(300.0).connections(8);
    let load = Load::start(plan).unwrap();
    // v2 answers half of its requests with an error.
    stage.reviews.v2.fail_every(2);
    stage.deploy();
    stage.at(20.0).await;
    let rollout = stage.until("the run to have gone back", |rollout| rollout["phase"] == "RolledBack").await;
    assert!(rollout["reason"].as_str().unwrap().contains("error-rate failed"), "{rollout}");
    let explained = &stage.mesh.get(ROLLOUT).await["analysis"]["metrics"][0]["counted"];
    assert!(explained["candidate"][1].as_u64() > Some(0), "{explained}");
    drop(load);
}

/// A switch leaves nothing of stable's to compare with but what was counted before it.
#[tokio::test]
async fn a_candidate_that_fails_a_third_of_its_requests_goes_back_after_a_switch() {
    let intent = "apiVersion: delivery.pointsman.dev/v1alpha1\nkind: DeploymentIntent\n\
         metadata: {name: reviews, namespace: default}\nspec:\n  service: {name: reviews}\n  \
         analysis: {warmup: 100ms}\n  drain: {timeout: 1s}\n  strategy: {type: BlueGreen}\n";
    let stage = Stage::start(intent).await;
    let load = stage.load(500.0);
    stage.reviews.v2.fail_every(3);
    stage.deploy();
    stage.at(100.0).await;
    let rollout = stage.until("the run to have gone back", |rollout| rollout["phase"] == "RolledBack").await;
    assert!(rollout["reason"].as_str().unwrap().contains("of stable's were while it had any"), "{rollout}");
    assert_eq!((&rollout["stable"], &rollout["weight"]["acknowledged"]), (&json!("v1"), &json!(0.0)), "{rollout}");
    drop(load);
}

/// Both revisions are members of one cluster, so what they did is told apart by the places of its endpoints.
#[tokio::test]
async fn a_rolling_run_is_judged_by_what_its_members_did() {
    let intent = "apiVersion: delivery.pointsman.dev/v1alpha1\nkind: DeploymentIntent\n\
         metadata: {name: reviews, namespace: default}\nspec:\n  service: {name: reviews}\n  \
         analysis: {warmup: 100ms}\n  drain: {timeout: 1s}\n  \
         strategy: {type: Rolling, rolling: {batch: 1, settle: 1s}}\n";
    let stage = Stage::start(intent).await;
    let load = stage.load(300.0);
    let begun = Instant::now();
    stage.deploy();
    let rollout = stage.until("the run to have completed", |rollout| rollout["phase"] == "Completed").await;
    let counted = &rollout["analysis"]["metrics"][0]["counted"]["candidate"];
    assert!(counted[0].as_u64() > Some(0) && counted[1] == 0, "{rollout}");
    load.since(begun).await.assert_no_failures();
}
