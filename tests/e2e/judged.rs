//! Runs that are judged by what callers were told, call by call.

use testkit::load::{Load, Plan};

use crate::mesh::{Mesh, PATIENCE, Reviews, Variant, answering};

const ROLLOUT: &str = "/api/v1/rollouts/default/reviews";
const METHOD: &str = "/shop.Reviews/Get";

const INTENT: &str = "\
apiVersion: delivery.pointsman.dev/v1alpha1
kind: AnalysisProfile
metadata: {name: statuses, namespace: default}
spec: {metrics: [{name: grpc-errors, kind: ErrorRate, classify: grpcServerError}]}
---
apiVersion: delivery.pointsman.dev/v1alpha1
kind: DeploymentIntent
metadata: {name: reviews, namespace: default}
spec:
  service: {name: reviews}
  analysis: {warmup: 100ms, source: AccessLog, profiles: [statuses]}
  drain: {timeout: 1s}
  strategy: {canary: {steps: [{setWeight: 20}, {pause: {}}, {setWeight: 100}]}}
";

/// The HTTP status of every answer is 200. No proxy has anything in its bootstrap but where its configuration comes from.
#[tokio::test]
async fn a_candidate_whose_calls_fail_in_their_trailers_goes_back_by_the_logs_of_its_callers() {
    let reviews = Reviews::start();
    let grpc = |objects: String| objects.replace("name: http,", "name: grpc,");
    let objects = grpc(reviews.objects_of(&[("v1", &reviews.v1)]));
    let mesh = Mesh::start(&[("reviews.yaml", &objects), ("intent.yaml", INTENT)]).await;
    let _client = mesh.client(Variant::Delta, "client").await;
    let plan = Plan::grpc(reviews.address, "reviews", METHOD, b"hello").timeout(PATIENCE);
    answering(plan.clone()).await;
    let load = Load::start(plan.per_second(300.0).connections(4)).unwrap();
    reviews.v2.fail_every(2);
    mesh.write("reviews.yaml", &grpc(reviews.objects()));
    let over = |rollout: &serde_json::Value| rollout["phase"] == "RolledBack";
    let rollout = mesh.get_where(ROLLOUT, "the run to have gone back", over).await;
    assert!(rollout["reason"].as_str().unwrap().contains("grpc-errors failed"), "{rollout}");
    let counted = &rollout["analysis"]["metrics"][0]["counted"];
    let [total, bad] = [&counted["candidate"][0], &counted["candidate"][1]].map(|count| count.as_u64().unwrap());
    assert!(bad > 0 && bad < total && counted["stable"][1] == 0, "{counted}");
    let by_status = load.stop().await.by_status();
    assert_eq!(by_status.keys().collect::<Vec<_>>(), [&200]);
    // Once the intent is gone nobody is asked to log any more.
    mesh.remove("intent.yaml");
    mesh.write("reviews.yaml", &objects);
    mesh.get_where(
        "/api/v1/nodes/sidecar~127.0.0.1~client.default~default.svc.cluster.local/config",
        "no logs",
        |config| !config.to_string().contains("access_loggers"),
    )
    .await;
}
