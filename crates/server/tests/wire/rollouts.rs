//! Rollouts on the admin API, and their webhooks.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use serde_json::{Value, json};
use server::view::{Failure, Rollout, Rollouts};

use crate::fixture::{Running, SOON, config, eventually, start};

const PATH: &str = "/api/v1/rollouts/shop/web";

fn pods(versions: &[&str]) -> String {
    let pod = |(at, version): (usize, &&str)| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: web-{version}, namespace: shop, labels: {{app: web, \
             version: {version}}}}}\nspec: {{containers: [{{name: app}}]}}\nstatus: {{podIP: 10.1.0.{}, phase: Running}}\n",
            at + 1
        )
    };
    versions.iter().enumerate().map(pod).collect()
}

fn objects(versions: &[&str], more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: shop}}\nspec:\n  selector: {{app: web}}\n  \
         ports: [{{name: http, port: 80, targetPort: 8080}}]\n{}---\n\
         apiVersion: delivery.pointsman.dev/v1alpha1\nkind: DeploymentIntent\nmetadata: {{name: web, namespace: shop}}\n\
         spec:\n  service: {{name: web}}\n  analysis: {{warmup: 1ms, profiles: []}}\n  drain: {{timeout: 1ms}}\n  \
         strategy: {{canary: {{steps: [{{setWeight: 10}}, {{pause: {{}}}}, {{setWeight: 100}}]}}}}\n{more}",
        pods(versions)
    )
}

/// A server that has read this. That no profile is named is a warning.
async fn conducting(config: server::Config, yaml: &str) -> Running {
    let running = start(config).await;
    say(&running, yaml).await;
    running.input.set_synced().await.unwrap();
    running.ready().await;
    running
}

async fn say(server: &Running, yaml: &str) {
    let parsed = source::text::parse("mesh.yaml", yaml.as_bytes(), &source::Options::default());
    assert!(parsed.problems.iter().all(|p| p.severity == world::Severity::Warning), "{:#?}", parsed.problems);
    let changes = parsed.objects.into_iter().map(world::Change::Apply).collect();
    server.input.apply(changes, Vec::new(), Instant::now()).await.unwrap();
}

async fn act(server: &Running, body: &Value) -> (u16, Value) {
    let admin = server.addresses.admin.unwrap();
    testkit::http::post_json(admin, &format!("{PATH}/actions"), body).await.unwrap()
}

async fn until(server: &Running, wanted: impl Fn(&Rollout) -> bool) -> Rollout {
    eventually(|| server.json::<Rollout>(PATH), wanted).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_intent_is_shown_from_its_first_revision_to_the_end_of_its_run() {
    let server = conducting(config(), &objects(&["v1"], "")).await;
    let rollout = until(&server, |rollout| rollout.stable == "v1").await;
    assert_eq!((&*rollout.phase, &*rollout.service, &*rollout.run), ("Idle", "shop/web", ""));
    assert_eq!(act(&server, &json!({"verb": "abort"})).await.0, 409, "there is nothing to abort");

    say(&server, &objects(&["v1", "v2"], "")).await;
    let rollout = until(&server, |rollout| rollout.phase == "Waiting").await;
    assert_eq!((rollout.weight.configured, rollout.weight.acknowledged), (10.0, 10.0));
    assert_eq!((rollout.step, rollout.steps, &*rollout.candidate), (Some(1), 3, "v2"));
    assert_eq!(rollout.endpoints.len(), 2);

    // Two people at once: the second one sees another step than there is.
    let promote = json!({"verb": "promote", "expectedStep": 1, "actor": "alice", "reason": "fine"});
    assert_eq!(act(&server, &promote).await.0, 200);
    let (status, answer) = act(&server, &promote).await;
    assert_eq!(status, 409, "{answer}");
    let rollout = until(&server, |rollout| rollout.phase == "Completed").await;
    let action = &rollout.actions[0];
    assert_eq!((&*action.verb, &*action.actor, &*action.reason), ("promote", "alice", "fine"));
    let promoted = rollout.conditions.iter().find(|condition| condition.kind == "Promoted").unwrap();
    assert_eq!(promoted.status, Some(true));
    assert!(rollout.conditions.iter().all(|condition| condition.since.is_some()), "{:?}", rollout.conditions);
    assert_eq!(promoted.since, Some(rollout.since), "since the run ended");
    let by_run: Rollout = server.json("/api/v1/rollouts/shop/web-1").await;
    assert_eq!(by_run.intent, "web");
    let all: Rollouts = server.json("/api/v1/rollouts").await;
    assert_eq!(all.rollouts.len(), 1);
    let (status, text) = server.get("/api/v1/rollouts/shop/nothing").await;
    assert_eq!(status, 404);
    assert!(serde_json::from_str::<Failure>(&text).unwrap().error.contains("shop/nothing"), "{text}");
}

/// What a webhook was told, and what it answers: nothing at all when there is no answer.
#[derive(Clone, Default)]
struct Hook {
    told: Arc<Mutex<Vec<Value>>>,
    hangs: bool,
}

impl Hook {
    async fn start(hangs: bool) -> (Self, String) {
        let hook = Self { hangs, ..Self::default() };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let answer = async |State(hook): State<Hook>, body: String| {
            hook.told.lock().unwrap().push(serde_json::from_str(&body).unwrap());
            if hook.hangs {
                std::future::pending::<()>().await;
            }
        };
        let router = Router::new().route("/", post(answer)).with_state(hook.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (hook, url)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_that_hangs_is_an_error_and_news_are_posted() {
    let (gate, gate_url) = Hook::start(true).await;
    let (news, news_url) = Hook::start(false).await;
    let more = format!(
        "  gates: [{{phase: PreRun, url: \"{gate_url}\", insecure: true, timeout: 1s, retries: 1, onError: Fail}}]\n  \
         notify: [{{url: \"{news_url}\", events: [Phase]}}]\n"
    );
    let server = conducting(config(), &objects(&["v1"], &more)).await;
    until(&server, |rollout| rollout.stable == "v1").await;
    say(&server, &objects(&["v1", "v2"], &more)).await;
    let rollout = until(&server, |rollout| rollout.phase == "RolledBack").await;
    assert!(rollout.reason.contains("could not be asked: there was no answer within 1 s"), "{}", rollout.reason);
    assert_eq!(rollout.weight.configured, 0.0);
    let asked = gate.told.lock().unwrap().clone();
    assert_eq!(asked.len(), 2, "once more after the error");
    assert_eq!(
        (&asked[0]["candidate"], &asked[0]["run"], &asked[0]["phase"]),
        (&json!("v2"), &json!("web-1"), &json!("PreRun"))
    );
    let heard = || async { news.told.lock().unwrap().clone() };
    let heard =
        eventually(heard, |told| told.iter().any(|news| news["text"].as_str().unwrap().contains("RolledBack"))).await;
    assert!(heard.iter().all(|news| news["event"] == "Phase" && news["intent"] == "web"), "{heard:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_that_approves_lets_the_run_begin() {
    let (gate, url) = Hook::start(false).await;
    let more = format!("  gates: [{{phase: PreRun, url: \"{url}\", insecure: true}}]\n");
    let server = conducting(config(), &objects(&["v1"], &more)).await;
    until(&server, |rollout| rollout.stable == "v1").await;
    say(&server, &objects(&["v1", "v2"], &more)).await;
    until(&server, |rollout| rollout.phase == "Waiting").await;
    assert_eq!(gate.told.lock().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_force_is_there_before_anybody_is_served_again() {
    let directory = tempfile::TempDir::new().unwrap();
    let with_state = || server::Config { state: Some(directory.path().to_owned()), ..config() };
    let server = conducting(with_state(), &objects(&["v1"], "")).await;
    until(&server, |rollout| rollout.stable == "v1").await;
    say(&server, &objects(&["v1", "v2"], "")).await;
    until(&server, |rollout| rollout.phase == "Waiting").await;
    server.stop().await.unwrap();
    let server = conducting(with_state(), &objects(&["v1", "v2"], "")).await;
    let rollout: Rollout = server.json(PATH).await;
    assert_eq!((rollout.weight.configured, &*rollout.run), (10.0, "web-1"));
    let object: Value = server.json("/api/v1/objects/rolloutrun/shop/web-1").await;
    assert!(object["generation"].as_i64().unwrap() >= 3, "{object}");
    tokio::time::timeout(SOON, async {
        until(&server, |rollout| rollout.hold.as_ref().is_some_and(|hold| hold.reason == "Waiting")).await
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_intent_that_cannot_run_says_why_where_its_rollout_is_looked_at() {
    let unknown = objects(&["v1"], "").replace("service: {name: web}", "service: {name: wbe}");
    let server = conducting(config(), &unknown).await;
    let says = |rollout: &Rollout| {
        let accepted = rollout.conditions.iter().find(|condition| condition.kind == "Accepted").unwrap();
        (rollout.problems[0].field.clone(), accepted.status, accepted.reason.clone())
    };
    let rollout = until(&server, |rollout| !rollout.problems.is_empty()).await;
    let why = "there is no service \"wbe\" in namespace \"shop\"";
    assert_eq!(says(&rollout), ("spec.service.name".to_owned(), Some(false), why.to_owned()));
    assert_eq!(
        (&*rollout.phase, &*rollout.problems[0].severity, &*rollout.problems[0].file),
        ("Idle", "error", "mesh.yaml")
    );
    let all: Rollouts = server.json("/api/v1/rollouts").await;
    assert_eq!(all.rollouts[0].problems, rollout.problems);

    // In the middle of a run a typo is told, too, and the run goes on as it was.
    say(&server, &objects(&["v1"], "")).await;
    until(&server, |rollout| rollout.stable == "v1" && rollout.problems.iter().all(|p| p.severity == "warning")).await;
    say(&server, &objects(&["v1", "v2"], "")).await;
    until(&server, |rollout| rollout.phase == "Waiting").await;
    say(&server, &objects(&["v1", "v2"], "").replace("profiles: []", "profiles: [mine]")).await;
    let rollout = until(&server, |rollout| rollout.problems.iter().any(|p| p.severity == "error")).await;
    let why = "there is no AnalysisProfile \"mine\"";
    assert_eq!(says(&rollout), ("spec.analysis.profiles[0]".to_owned(), Some(false), why.to_owned()));
    assert_eq!((&*rollout.phase, rollout.weight.configured), ("Waiting", 10.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expression_that_envoy_would_refuse_starts_no_run_and_an_edit_to_one_is_not_taken() {
    let route = |regex: &str| {
        objects(&["v1", "v2"], "").replace(
            "{setWeight: 10}",
            &format!(
                "{{headerRoute: {{name: qa, match: [{{header: {{name: x, regex: \"{regex}\"}}}}]}}}}, {{setWeight: 10}}"
            ),
        )
    };
    let stable = "  revisions: {stable: v1}\n";
    let server = conducting(config(), &format!("{}{stable}", route("[a-z]{500}"))).await;
    let is_refused = |rollout: &Rollout| {
        let mut conditions = rollout.conditions.iter();
        conditions.any(|condition| condition.kind == "Accepted" && condition.status == Some(false))
            && rollout.problems.iter().any(|problem| problem.field.ends_with("header.regex"))
    };
    let rollout = until(&server, is_refused).await;
    assert_eq!((&*rollout.run, &*rollout.stable), ("", ""), "nothing was ever in force");
    say(&server, &format!("{}{stable}", route("a+"))).await;
    let rollout = until(&server, |rollout| rollout.phase == "Waiting").await;
    assert_eq!((rollout.weight.configured, rollout.problems.len()), (10.0, 0), "{:?}", rollout.problems);
    say(&server, &format!("{}{stable}", route("[a-z]{500}"))).await;
    let rollout = until(&server, is_refused).await;
    assert_eq!((&*rollout.phase, rollout.weight.configured, &*rollout.run), ("Waiting", 10.0, "web-1"));
}
