//! A disk that is full when a run decides something: nothing is published that is not stored.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::load::Load;
use testkit::netns::Availability;
use testkit::pointsman::Pointsman;
use testkit::ports;

use crate::mesh::{Mesh, PATIENCE, Reviews, Variant, answering};
use crate::rollouts::intent;

const ROLLOUT: &str = "/api/v1/rollouts/default/reviews";
/// Mounts a small disk over the state directory, where only the server sees it, and another for the trail of calls: a
/// call that cannot be recorded is refused, and here the question is what follows when it can be.
const WITH_DISK: &str = "mount -t tmpfs -o size=4m none \"$1\" && mkdir -m 700 \"$1/audit\" \
    && mount -t tmpfs -o size=4m,mode=700 none \"$1/audit\" && shift && exec \"$@\"";

/// A server whose state is on a disk of its own, and where that disk is seen from outside.
async fn start(files: &TempDir, state: &TempDir) -> (Mesh, PathBuf) {
    let (xds, admin) = (ports::local().unwrap(), ports::local().unwrap());
    let (xds_listen, admin_listen) = (xds.to_string(), admin.to_string());
    let (config, directory) = (files.path().to_str().unwrap(), state.path().to_str().unwrap());
    let mut server = Pointsman::start(
        "unshare",
        [
            ["--mount", "--propagation", "private", "sh", "-c", WITH_DISK, "sh", directory].as_slice(),
            &[env!("CARGO_BIN_EXE_pointsman"), "serve", "--config", config, "--state-dir", directory],
            &["--xds-listen", &xds_listen, "--admin-listen", &admin_listen],
        ]
        .concat(),
    )
    .unwrap();
    server.address("admin", PATIENCE).await.unwrap();
    let disk = PathBuf::from(format!("/proc/{}/root{directory}", server.process().pid()));
    // The mesh has a directory of its own; the server reads the one that it was given.
    let mesh = Mesh { files: TempDir::new().unwrap(), server, xds, admin };
    mesh.ready().await;
    (mesh, disk)
}

async fn act(mesh: &Mesh, body: &Value) -> (u16, Value) {
    testkit::http::post_json(mesh.admin, &format!("{ROLLOUT}/actions"), body).await.unwrap()
}

#[tokio::test]
async fn with_a_full_disk_nothing_is_published_and_the_run_goes_on_when_there_is_room() {
    if !Availability::or_skip("a state directory on a disk of its own") {
        return;
    }
    let reviews = Reviews::start();
    let (files, state) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let write = |name: &str, text: &str| std::fs::write(files.path().join(name), text).unwrap();
    write("reviews.yaml", &reviews.objects_of(&[("v1", &reviews.v1)]));
    write("intent.yaml", &intent(&["pause: {}", "setWeight: 50", "pause: {}", "setWeight: 100"], ""));
    let (mesh, disk) = start(&files, &state).await;
    let _client = mesh.client(Variant::Delta, "client").await;
    answering(reviews.plan()).await;
    write("reviews.yaml", &reviews.objects());
    mesh.get_where(ROLLOUT, "the run to wait", |rollout| rollout["step"] == 0 && rollout["phase"] == "Waiting").await;

    let filler = disk.join("filler");
    let mut file = File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    drop(file);
    // The store has some room of its own; records grow with every action.
    let is_blocked = |rollout: &Value| rollout["hold"]["reason"] == "CommitFailed";
    for number in 0.. {
        assert!(number < 90, "the disk is not full");
        let action = json!({"verb": "resume", "id": format!("{number}"), "reason": "x".repeat(990)});
        let (status, rollout) = act(&mesh, &action).await;
        assert_eq!(status, 200, "{rollout}");
        if is_blocked(&rollout) {
            break;
        }
    }
    let (status, rollout) = act(&mesh, &json!({"verb": "promote", "expectedStep": 0})).await;
    assert_eq!(status, 200, "{rollout}");
    let load = Load::start(reviews.plan().per_second(300.0).connections(4)).unwrap();
    // Longer than it waits until it tries again.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let rollout = mesh.get_where(ROLLOUT, "the run to say why", is_blocked).await;
    let words = rollout["hold"]["text"].as_str().unwrap();
    assert!(words.contains("cannot be stored, nothing is published"), "{words}");
    let blocked = rollout["conditions"].as_array().unwrap().iter().find(|condition| condition["kind"] == "Blocked");
    assert_eq!(blocked.map(|blocked| &blocked["status"]), Some(&json!(true)), "{rollout}");
    assert_eq!(rollout["weight"]["acknowledged"], 0.0, "{rollout}");
    assert_eq!(reviews.v2.requests(), 0, "nobody has heard of what is not stored");

    std::fs::remove_file(filler).unwrap();
    let half =
        |rollout: &Value| rollout["weight"]["acknowledged"] == 50.0 && rollout["hold"]["reason"] != "CommitFailed";
    mesh.get_where(ROLLOUT, "the run to go on", half).await;
    load.next(100, PATIENCE).await.unwrap();
    load.stop().await.assert_no_failures();
    assert!(reviews.v2.requests() > 0);
}
