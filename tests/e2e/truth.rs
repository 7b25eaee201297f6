//! What the command line says about who runs what, with real Envoys: states, refusals, departures, and waiting.

use std::net::TcpListener;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use testkit::wait;

use crate::mesh::{Mesh, PATIENCE, Reviews, SUBSETS, Variant, answering, split};

const NODE: &str = "sidecar~127.0.0.1~client.default~default.svc.cluster.local";

/// Runs the command with the admin address of the mesh.
fn pointsman(mesh: &Mesh, arguments: &[&str]) -> Output {
    let admin = mesh.admin.to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
    command.args(arguments).args(["--admin", &admin]).env_remove("POINTSMAN_LOG").output().unwrap()
}

/// The exit code and standard output.
fn said(mesh: &Mesh, arguments: &[&str]) -> (i32, String) {
    let output = pointsman(mesh, arguments);
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    assert!(!text.contains("panicked"), "{text}");
    (output.status.code().unwrap(), text)
}

async fn mesh_with(more: &[(&str, &str)]) -> (Reviews, Mesh) {
    let reviews = Reviews::start();
    let objects = reviews.objects();
    let routes = split(80, 20);
    let mut files = vec![("reviews.yaml", &*objects), ("rule.yaml", SUBSETS), ("routes.yaml", &*routes)];
    files.extend(more);
    let mesh = Mesh::start(&files).await;
    (reviews, mesh)
}

async fn a_generation_is_followed_to_a_real_envoy(variant: Variant) {
    let (reviews, mesh) = mesh_with(&[]).await;
    let (code, text) = said(&mesh, &["wait", "--for=accepted", "vs/default/reviews", "--timeout", "30s"]);
    assert_eq!((code, text.trim()), (0, "\"virtualservice/default/reviews\" generation 1 concerns no connected node"));
    let _client = mesh.client(variant, "client").await;
    answering(reviews.plan()).await;
    let (code, text) = said(&mesh, &["wait", "--for=synced", "--timeout", "30s"]);
    assert_eq!((code, text.trim()), (0, "all 1 nodes run what they are to have"));
    for (generation, weight) in [(2, 50), (3, 10)] {
        mesh.write("routes.yaml", &split(weight, 100 - weight));
        let wanted = generation.to_string();
        let arguments = ["wait", "--for=accepted", "virtualservice/default/reviews", "--generation", &wanted];
        let (code, text) = said(&mesh, &arguments);
        let all = format!(
            "\"virtualservice/default/reviews\" generation {generation} is accepted by all 1 nodes that it concerns"
        );
        assert_eq!((code, text.trim()), (0, &*all));
        let (code, text) = said(&mesh, &["status", "virtualservice/default/reviews"]);
        let head = format!("VirtualService default/reviews, generation {generation}, from ");
        assert!(code == 0 && text.starts_with(&head) && text.contains(": accepted\n"), "{text}");
        let row = text.lines().find(|line| line.starts_with(NODE)).unwrap();
        assert_eq!(row.split_whitespace().collect::<Vec<_>>()[1..], ["accepted", &wanted], "{text}");
    }
    let (code, text) = said(&mesh, &["status", "node", NODE]);
    assert!(code == 0 && text.contains(": synced\n"), "{text}");
    let row = text.lines().find(|line| line.starts_with("virtualservice/default/reviews")).unwrap();
    assert_eq!(row.split_whitespace().collect::<Vec<_>>()[1..], ["accepted", "3"], "{text}");
    let (_, json) = said(&mesh, &["status", "node", NODE, "-o", "json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["connections"][0]["id"], &json["connections"][0]["sync"]), (&NODE.into(), &"synced".into()));
    let changes = mesh.get("/api/v1/changes").await;
    let last = &changes["changes"][0];
    assert_eq!((&last["accepted"], &last["outstanding"], &last["last_node"]), (&1.into(), &0.into(), &NODE.into()));
}

#[tokio::test]
async fn a_generation_is_followed_to_a_real_envoy_by_delta() {
    a_generation_is_followed_to_a_real_envoy(Variant::Delta).await;
}

#[tokio::test]
async fn a_generation_is_followed_to_a_real_envoy_by_state_of_the_world() {
    a_generation_is_followed_to_a_real_envoy(Variant::StateOfTheWorld).await;
}

#[tokio::test]
async fn a_wait_for_what_envoy_refuses_ends_with_1_and_envoys_own_words() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let unlucky = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: unlucky, namespace: default}}\nspec:\n  \
         selector: {{app: reviews}}\n  ports: [{{name: http, port: {}, targetPort: web}}]\n",
        taken.local_addr().unwrap().port()
    );
    let (reviews, mesh) = mesh_with(&[]).await;
    let _client = mesh.client(Variant::Delta, "client").await;
    answering(reviews.plan()).await;
    mesh.write("unlucky.yaml", &unlucky);
    let refused = || said(&mesh, &["wait", "--for=accepted", "service/default/unlucky", "--timeout", "2s"]);
    // The file may not have been read within the first time.
    let text = wait::until("the refusal to be told", PATIENCE, async || match refused() {
        (1, text) if text.contains("was rejected") => Ok(text),
        (_, text) => Err(text),
    })
    .await
    .unwrap();
    assert!(
        text.starts_with("not within 2s: \"service/default/unlucky\" generation 1 is accepted by 0 of 1 nodes"),
        "{text}"
    );
    assert!(text.contains(NODE) && text.contains("cannot bind"), "{text}");
    let (code, text) = said(&mesh, &["status", "svc/default/unlucky"]);
    assert!(code == 0 && text.contains(": rejected\n") && text.contains("cannot bind"), "{text}");
    // Nobody else is to blame.
    let (code, text) = said(&mesh, &["wait", "--for=accepted", "vs/default/reviews", "--timeout", "10s"]);
    assert_eq!(code, 0, "{text}");
    let rejected = mesh.get("/api/v1/objects?state=rejected").await;
    let names: Vec<_> = rejected["objects"].as_array().unwrap().iter().map(|object| &object["name"]).collect();
    assert_eq!(names, ["unlucky"]);
}

#[tokio::test]
async fn a_node_that_left_is_told_with_what_it_accepted_last() {
    let (reviews, mesh) = mesh_with(&[]).await;
    let client = mesh.client(Variant::Delta, "client").await;
    answering(reviews.plan()).await;
    let (code, text) = said(&mesh, &["wait", "--for=synced", &format!("node/{NODE}"), "--timeout", "30s"]);
    assert_eq!(code, 0, "{text}");
    drop(client);
    let text = wait::until("the node to be gone", PATIENCE, async || match said(&mesh, &["status", "nodes"]) {
        (0, text) if text.contains("disconnected") => Ok(text),
        (_, text) => Err(text),
    })
    .await
    .unwrap();
    let line = text.lines().find(|line| line.contains("disconnected")).unwrap();
    assert!(
        line.starts_with(NODE) && line.contains(" s ago (") && line.ends_with("last accepted generation 1"),
        "{text}"
    );
    let (code, text) = said(&mesh, &["wait", "--for=synced", &format!("node/{NODE}"), "--timeout", "0"]);
    assert!(code == 1 && text.contains("no stream of a node") && text.contains("left at"), "{text}");
}

#[tokio::test]
async fn what_cannot_be_waited_for_or_shown_is_said_at_once_or_at_the_end_of_the_time() {
    let wrong = split(1, 1).replace("name: reviews", "name: wrong").replace("[reviews]", "[wrong]").replace("v2", "v3");
    let (_reviews, mesh) = mesh_with(&[
        ("wrong.yaml", &*wrong),
        (
            "broken.yaml",
            "apiVersion: v1\nkind: Service\nmetadata: {name: broken, namespace: default}\nspec: {ports: 7}\n",
        ),
    ])
    .await;
    let _client = mesh.client(Variant::Delta, "client").await;
    mesh.synced(1).await;
    for (arguments, code, text) in [
        (
            &["wait", "--for=accepted", "vs/default/nobody", "--timeout", "300ms"][..],
            1,
            "there is no object \"virtualservice/default/nobody\"; there are virtualservice/default/reviews",
        ),
        (&["wait", "--for=accepted", "vs/default/wrong", "--timeout", "0"], 1, "no DestinationRule"),
        (
            &["wait", "--for=accepted", "svc/default/broken", "--timeout", "0"],
            1,
            "\"service/default/broken\" could not be read",
        ),
        (
            &["wait", "--for=accepted", "vs/default/reviews", "--generation", "9", "--timeout", "0"],
            1,
            "is at generation 1, not at 9 yet",
        ),
        (&["wait", "--for=synced", "node/nobody", "--timeout", "0"], 1, "no stream of a node \"nobody\" is open"),
        (&["wait", "--for=accepted", "reviews"], 2, "is not KIND/NAMESPACE/NAME"),
        (&["wait", "--for=accepted", "toaster/default/a"], 2, "is of no kind that is known"),
        (&["wait", "--for=accepted"], 2, "which object?"),
        (&["wait", "--for=synced", "somebody"], 2, "is not node/ID"),
        (&["wait", "--for=rain", "a/b/c"], 2, "invalid value 'rain'"),
        (&["wait", "vs/default/reviews"], 2, "--for"),
        (&["wait", "--for=synced", "--timeout", "soon"], 2, "is not a time such as"),
        (&["status", "vs/default/nobody"], 2, "there is no object \"virtualservice/default/nobody\""),
        (&["status", "node", "../../etc/passwd"], 2, "no stream of a node \"../../etc/passwd\" is open"),
        (&["status", "weather"], 2, "KIND/NAMESPACE/NAME"),
    ] {
        let (got, said) = said(&mesh, arguments);
        assert_eq!(got, code, "{arguments:?}: {said}");
        assert!(said.contains(text), "{arguments:?} does not say \"{text}\": {said}");
    }
}

#[tokio::test]
async fn a_wait_outlasts_a_restart_of_the_server() {
    let (reviews, mut mesh) = mesh_with(&[]).await;
    let _client = mesh.client(Variant::Delta, "client").await;
    answering(reviews.plan()).await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
    let admin = mesh.admin.to_string();
    command.args(["wait", "--for=accepted", "vs/default/reviews", "--generation", "2", "--timeout", "60s"]);
    let waiting = command.args(["--admin", &admin]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    // It must have been answered once before the server goes.
    tokio::time::sleep(Duration::from_millis(500)).await;
    mesh.server.terminate(Duration::from_secs(15)).await.unwrap();
    mesh.restart().await;
    // Else it would be accepted by nobody, and that at once.
    mesh.synced(1).await;
    mesh.write("routes.yaml", &split(30, 70));
    let output = tokio::task::spawn_blocking(move || waiting.wait_with_output().unwrap()).await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("generation 2 is accepted by all"), "{text}");
}
