//! Policies that somebody breaks while the server is away, and policies that nobody ever understood.

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::load::Plan;

use super::issuer::Issuer;
use super::{Workload, policy, seen};
use crate::mesh::{PATIENCE, Variant};

/// A policy that refuses requests for these paths.
fn deny(name: &str, paths: &Value) -> String {
    let object = json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": {"app": "shop"}}, "action": "DENY",
            "rules": [{"to": [{"operation": {"paths": paths}}]}],
        },
    });
    format!("---\n{object}\n")
}

fn rule(issuer: &Issuer, claim: &str) -> Value {
    json!({
        "issuer": issuer.name, "audiences": ["shop"], "jwks": issuer.key_set(),
        "outputClaimToHeaders": [{"header": "x-user", "claim": claim}],
    })
}

#[tokio::test]
async fn what_is_broken_while_the_server_is_away_keeps_out_whom_it_kept_out() {
    let (careless, careful) = (Issuer::new("https://careless.test"), Issuer::new("https://careful.test"));
    let forger = Issuer::new("https://careless.test");
    let tokens = |claim: &str| policy("tokens", &[rule(&careless, claim), rule(&careful, "sub")]);
    let state = TempDir::new().unwrap();
    let good = deny("private", &json!(["/private"])) + &tokens("sub");
    let arguments = ["--state-dir", state.path().to_str().unwrap()];
    let mut workload = Workload::start(Variant::Delta, &good, &arguments).await;
    let get = |path: &str| Plan::get(workload.address, "shop", path).timeout(PATIENCE);
    let (private, first, second) = (get("/private"), get("/first"), get("/second"));
    let spoofed = workload.plan().header("x-user", "root");
    let forged = forger.token(json!({}));
    workload.answers(private.clone(), 403).await;

    workload.mesh.server.kill().await.unwrap();
    let broken = deny("private", &json!("/private")) + &tokens("");
    workload.mesh.write("policies.yaml", &(broken.clone() + &deny("first", &json!(["/first"]))));
    workload.mesh.restart().await;
    // The proxy has what the restarted server says.
    workload.answers(first, 403).await;
    assert_eq!(private.once().await.unwrap().status, 403);
    assert_eq!(workload.with(&forged).once().await.unwrap().status, 401);
    let reply = workload.with(&careless.token(json!({}))).once().await.unwrap();
    assert_eq!((reply.status, &seen(&reply)["headers"]["x-user"]), (200, &json!("alice")));
    workload
        .problems_where("both to be told", |problems| {
            problems.contains("operation.paths") && problems.contains("outputClaimToHeaders[0].claim")
        })
        .await;

    // Nobody knows what they said before.
    workload.mesh.server.kill().await.unwrap();
    std::fs::remove_file(state.path().join("last-good.json")).unwrap();
    workload.mesh.restart().await;
    workload.answers(workload.plan(), 403).await;
    assert_eq!(private.once().await.unwrap().status, 403);

    // One of them is mended; of the other the rule that makes sense is in force, and its neighbour lets nobody in.
    workload.mesh.write("policies.yaml", &(deny("private", &json!(["/private", "/second"])) + &tokens("")));
    workload.answers(second, 403).await;
    workload.answers(spoofed.clone(), 200).await;
    assert!(seen(&spoofed.once().await.unwrap())["headers"]["x-user"].is_null());
    for token in [&forged, &careless.token(json!({}))] {
        assert_eq!(workload.with(token).once().await.unwrap().status, 401);
    }
    let reply = workload.with(&careful.token(json!({}))).once().await.unwrap();
    assert_eq!((reply.status, &seen(&reply)["headers"]["x-user"]), (200, &json!("alice")));
}
