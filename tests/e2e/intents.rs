//! Intents that are handed to the server instead of being written to a file, by the command line and over gRPC, and the
//! tokens that the command line brings.

use std::process::{Command, Output, Stdio};

use proto::delivery::intents_client::IntentsClient;
use proto::delivery::{ActRequest, DeleteRequest, Reference, Verb};
use serde_json::Value;
use tempfile::TempDir;
use testkit::load::Load;
use testkit::wait;

use crate::mesh::{Mesh, PATIENCE, Reviews, Variant, answering};

const ROLLOUT: &str = "/api/v1/rollouts/default/reviews";
const OBJECT: &str = "/api/v1/intents/deploymentintent/default/reviews";
const TOKEN: &str = "token-of-the-tests-0123";

const INTENT: &str = "apiVersion: delivery.pointsman.dev/v1alpha1\nkind: DeploymentIntent\n\
    metadata: {name: reviews, namespace: default}\nspec:\n  service: {name: reviews}\n  \
    analysis: {warmup: 100ms, profiles: []}\n  drain: {timeout: 1s}\n  \
    strategy: {canary: {steps: [{setWeight: 25}, {pause: {}}, {setWeight: 100}]}}\n";

/// Runs the command line against the server, with a text on standard input.
fn pointsman(mesh: &Mesh, arguments: &[&str], input: &str) -> Output {
    let admin = mesh.admin.to_string();
    let mut child = Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .args(arguments)
        .args(["--admin", &admin])
        .env("POINTSMAN_ADMIN_TOKEN", TOKEN)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Who refuses its arguments reads nothing.
    let _ = std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes());
    child.wait_with_output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&*output.stdout, &*output.stderr].concat()).into_owned()
}

async fn until(mesh: &Mesh, path: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    mesh.get_where(path, what, wanted).await
}

#[tokio::test]
async fn an_applied_intent_moves_traffic_survives_a_kill_and_its_deletion_takes_traffic_back() {
    let reviews = Reviews::start();
    let state = TempDir::with_prefix("pointsman-state-").unwrap();
    let objects = reviews.objects_of(&[("v1", &reviews.v1)]);
    let arguments = ["--state-dir", state.path().to_str().unwrap()];
    let mut mesh = Mesh::start_with(&[("reviews.yaml", &objects)], &arguments).await;
    let _client = mesh.envoy(Variant::Delta, &["--pod", "client", "--interception", "none"]).await;
    answering(reviews.plan()).await;

    let wrong = pointsman(&mesh, &["rollout", "apply", "-f", "-"], &INTENT.replace("25", "250"));
    assert!(wrong.status.code() == Some(1) && said(&wrong).contains("steps[0].setWeight"), "{}", said(&wrong));
    let dry = pointsman(&mesh, &["rollout", "apply", "-f", "-", "--dry-run"], INTENT);
    assert!(dry.status.success() && said(&dry).contains("created, generation 1 (dry run)"), "{}", said(&dry));
    let applied = pointsman(&mesh, &["rollout", "apply", "-f", "-"], INTENT);
    assert!(applied.status.success() && said(&applied).contains("created, generation 1"), "{}", said(&applied));
    until(&mesh, ROLLOUT, "stable to be known", |rollout| rollout["stable"] == "v1").await;

    let load = Load::start(reviews.plan().per_second(300.0).connections(8)).unwrap();
    mesh.write("reviews.yaml", &reviews.objects());
    let waits = |rollout: &Value| rollout["phase"] == "Waiting" && rollout["weight"]["acknowledged"] == 25.0;
    until(&mesh, ROLLOUT, "the run to wait at 25 %", waits).await;
    load.next(200, PATIENCE).await.unwrap();
    assert!(reviews.v2.requests() > 0);

    // Killed, it comes back with the intent, its generation and its run.
    mesh.server.kill().await.unwrap();
    mesh.restart().await;
    mesh.synced(1).await;
    let object = mesh.get(OBJECT).await;
    assert_eq!((&object["applied"], &object["generation"]), (&true.into(), &1.into()), "{object}");
    until(&mesh, ROLLOUT, "the run to wait again", waits).await;

    let mut intents = IntentsClient::connect(format!("http://{}", mesh.admin)).await.unwrap();
    let act = ActRequest {
        namespace: "default".to_owned(),
        name: "reviews".to_owned(),
        verb: Verb::Pause.into(),
        expected_run: "reviews-1".to_owned(),
        ..ActRequest::default()
    };
    assert_eq!(intents.act(act).await.unwrap().into_inner().configured_percent, 25.0);

    let (kind, namespace, name) = ("DeploymentIntent".to_owned(), "default".to_owned(), "reviews".to_owned());
    let reference = Some(Reference { kind, namespace, name });
    intents.delete(DeleteRequest { reference, ..DeleteRequest::default() }).await.unwrap();
    until(&mesh, ROLLOUT, "stable to have everything", |rollout| rollout["weight"]["acknowledged"] == 0.0).await;
    let before = reviews.v2.requests();
    load.next(200, PATIENCE).await.unwrap();
    assert!(reviews.v2.requests() <= before + 8, "at most what was under way");
    mesh.server.kill().await.unwrap();
    mesh.restart().await;
    let (status, _) = testkit::http::ask_json(mesh.admin, OBJECT).await.unwrap();
    assert_eq!(status, 404, "it stays deleted");
    let trail = std::fs::read_to_string(state.path().join("audit/admin.jsonl")).unwrap();
    assert_eq!(trail.lines().filter(|line| line.contains("answered")).count(), 5, "{trail}");
    drop(load);
}

#[tokio::test]
async fn a_file_owns_what_it_defines_and_without_a_state_directory_nothing_is_kept() {
    let mesh = Mesh::start(&[("intent.yaml", INTENT)]).await;
    for (arguments, part) in [
        (&["rollout", "apply", "-f", "-"][..], "--state-dir"),
        (&["rollout", "delete", "reviews"], "--state-dir"),
        (&["rollout", "apply", "-f", "/nowhere/at/all.yaml"], "cannot read"),
    ] {
        let output = pointsman(&mesh, arguments, INTENT);
        assert!(!output.status.success() && said(&output).contains(part), "{arguments:?}: {}", said(&output));
    }
    let state = TempDir::with_prefix("pointsman-state-").unwrap();
    let arguments = ["--state-dir", state.path().to_str().unwrap()];
    let mesh = Mesh::start_with(&[("intent.yaml", INTENT)], &arguments).await;
    for arguments in [&["rollout", "apply", "-f", "-"][..], &["rollout", "delete", "reviews"]] {
        let output = pointsman(&mesh, arguments, INTENT);
        assert!(output.status.code() == Some(1) && said(&output).contains("intent.yaml"), "{}", said(&output));
    }
}

#[tokio::test]
async fn commands_bring_their_token_and_watch_goes_on_over_a_restart() {
    let reviews = Reviews::start();
    let state = TempDir::with_prefix("pointsman-state-").unwrap();
    let tokens = state.path().join("tokens");
    std::fs::write(&tokens, format!("tests {TOKEN}\n")).unwrap();
    let tokens = tokens.to_str().unwrap();
    let arguments = ["--state-dir", state.path().to_str().unwrap(), "--admin-token-file", tokens];
    let intent = INTENT.replace("{pause: {}}, ", "");
    let objects = reviews.objects_of(&[("v1", &reviews.v1)]);
    let mut mesh = Mesh::start_with(&[("reviews.yaml", &objects), ("intent.yaml", &intent)], &arguments).await;
    let bare = Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .args(["status", "--admin", &mesh.admin.to_string()])
        .env_remove("POINTSMAN_ADMIN_TOKEN")
        .output()
        .unwrap();
    assert!(bare.status.code() == Some(2) && said(&bare).contains("--token-file"), "{}", said(&bare));
    let listed = Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .args(["rollout", "list", "--admin", &mesh.admin.to_string(), "--token-file", tokens])
        .output()
        .unwrap();
    assert!(listed.status.success() && said(&listed).contains("default/reviews"), "{}", said(&listed));

    let told = state.path().join("told");
    let mut watch = Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .args(["rollout", "watch", "reviews", "-o", "json", "--admin", &mesh.admin.to_string()])
        .env("POINTSMAN_ADMIN_TOKEN", TOKEN)
        .stdout(std::fs::File::create(&told).unwrap())
        .spawn()
        .unwrap();
    let lines = || -> Vec<Value> {
        let text = std::fs::read_to_string(&told).unwrap();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    let begun = wait::until("the watch to show something", PATIENCE, async || match lines().len() {
        0 => Err("nothing yet".to_owned()),
        _ => Ok(()),
    });
    begun.await.unwrap();
    mesh.server.kill().await.unwrap();
    mesh.restart().await;
    mesh.write("reviews.yaml", &reviews.objects());
    let ended =
        wait::until("the watch to see the end of the run", PATIENCE, async || match watch.try_wait().unwrap() {
            Some(status) => Ok(status),
            None => Err("it goes on".to_owned()),
        });
    assert_eq!(ended.await.unwrap().code(), Some(0));
    let told = lines();
    assert!(told.len() > 2 && told[0]["phase"] == "Idle", "{told:#?}");
    assert_eq!(told.last().unwrap()["phase"], "Completed");
    assert!(told.windows(2).all(|pair| pair[0] != pair[1]), "nothing is told twice");
}
