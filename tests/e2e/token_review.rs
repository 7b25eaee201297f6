//! Tokens of a cluster's service accounts: a client and an Envoy that prove themselves by them, once with an imitated API
//! server and once with a real kube-apiserver.

use std::process::Command;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use rcgen::KeyPair;
use serde_json::json;
use tempfile::TempDir;
use testkit::api_server::{ApiServer, Says};
use testkit::envoy::Setup;
use testkit::kubernetes::Kubernetes;
use testkit::netns::Availability;
use testkit::wait;
use testkit::wire::{Credentials, ResourceType, Wire, WireError, node};
use tonic::Code;

use crate::identity::Guarded;
use crate::mesh::{PATIENCE, Reviews};

/// Puts files where a pod has those of its service account, and only the server sees them.
const AS_IN_A_POD: &str = "mount -t tmpfs none /var/run && mkdir -p /var/run/secrets/kubernetes.io \
    && cp -r \"$1\" /var/run/secrets/kubernetes.io/serviceaccount && shift && exec \"$@\"";
/// What a server needs of a cluster.
const RIGHTS: &str = include_str!("../../deploy/rbac/token-review.yaml");

/// Tokens of one cluster.
struct Tokens {
    /// Of the account `default/client`, for the audience `istio-ca`, bound to the pod `client-1`.
    client: String,
    /// Of the same account for nobody in particular.
    unaddressed: String,
    /// One that the cluster has never signed, though it says so.
    forged: String,
}

/// A server that asks the cluster of this kubeconfig.
async fn serve(kubeconfig: &str) -> (Guarded, TempDir) {
    let files = TempDir::new().unwrap();
    let path = files.path().join("kubeconfig");
    std::fs::write(&path, kubeconfig).unwrap();
    let reviews = Reviews::start();
    let arguments = ["--token-review", "--kubeconfig", path.to_str().unwrap()];
    (Guarded::start(&[("reviews.yaml", &reviews.objects())], &arguments).await, files)
}

async fn wire(server: &Guarded, token: &str) -> Wire {
    let roots = std::fs::read_to_string(server.root()).unwrap();
    let credentials = Credentials { roots, name: "localhost".to_owned(), certificate: None };
    Wire::connect_tls(server.tls, &credentials).await.unwrap().with_token(token).unwrap()
}

/// A server that asks the cluster that it finds by itself, started by this program.
async fn serve_by(program: &[&str]) -> Guarded {
    let reviews = Reviews::start();
    Guarded::start_by(program, &[("reviews.yaml", &reviews.objects())], &["--token-review"]).await
}

/// What a server says that ends because it finds no cluster, with this environment and these arguments.
fn refused(environment: &[(&str, &str)], arguments: &[&str]) -> String {
    let state = TempDir::new().unwrap();
    let output = Command::new("timeout")
        .args(["60", env!("CARGO_BIN_EXE_pointsman"), "serve", "--config", state.path().to_str().unwrap()])
        .args(["--xds-listen", "127.0.0.1:0", "--xds-tls-listen", "127.0.0.1:0", "--admin-listen", "none"])
        .args(["--state-dir", state.path().join("state").to_str().unwrap(), "--token-review"])
        .args(arguments)
        .env_remove("KUBECONFIG")
        .env_remove("KUBERNETES_SERVICE_HOST")
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    said
}

/// How a stream of this pod ends, if it does.
async fn code(server: &Guarded, token: &str, pod: &str) -> Option<Code> {
    let id = format!("sidecar~10.9.0.1~{pod}~default.svc.cluster.local");
    let mut stream = wire(server, token).await.sotw(node(&id, "client"));
    stream.subscribe(ResourceType::Cluster, &[]).await;
    match stream.next(PATIENCE).await {
        Ok(_) => None,
        Err(WireError::Refused(status)) => Some(status.code()),
        Err(error) => panic!("{error}"),
    }
}

/// The line of the audit log of the certificate that this token leads to.
async fn signed(server: &Guarded, token: &str) -> serde_json::Value {
    let csr = rcgen::CertificateParams::default().serialize_request(&KeyPair::generate().unwrap()).unwrap();
    let request = proto::auth::IstioCertificateRequest { csr: csr.pem().unwrap(), ..Default::default() };
    let method = "/istio.v1.auth.IstioCertificateService/CreateCertificate";
    let answer: proto::auth::IstioCertificateResponse = wire(server, token).await.call(method, request).await.unwrap();
    assert!(answer.cert_chain.len() >= 2);
    let audit = std::fs::read_to_string(server.state.path().join("audit/issued.jsonl")).unwrap();
    serde_json::from_str(audit.lines().last().unwrap()).unwrap()
}

/// What holds of every cluster.
async fn holds(server: &Guarded, tokens: &Tokens) -> serde_json::Value {
    assert_eq!(code(server, &tokens.client, "client-1.default").await, None);
    assert_eq!(code(server, &tokens.client, "vault-1.bank").await, Some(Code::PermissionDenied));
    assert_eq!(code(server, &tokens.unaddressed, "client-1.default").await, Some(Code::Unauthenticated));
    assert_eq!(code(server, &tokens.forged, "client-1.default").await, Some(Code::Unauthenticated));
    let line = signed(server, &tokens.client).await;
    assert_eq!(line["id"], "spiffe://cluster.local/ns/default/sa/client");
    assert_eq!(line["pod"]["name"], "client-1");

    // An Envoy with the token in a file, as the kubelet puts it there.
    let files = TempDir::new().unwrap();
    let file = files.path().join("istio-token");
    std::fs::write(&file, &tokens.client).unwrap();
    let proof = ["--token-file", file.to_str().unwrap(), "--service-account", "client"];
    let envoy = Setup::new(server.bootstrap("client-1", &proof)).start().await.unwrap();
    server.mesh.synced(1).await;
    envoy.stop().await.unwrap();
    line
}

/// Nobody who reads along learns a token.
fn is_silent(server: &Guarded, tokens: &Tokens) {
    let log = server.mesh.server.output();
    for token in [&tokens.client, &tokens.unaddressed, &tokens.forged] {
        assert!(!log.contains(&**token) && !log.contains(token.rsplit('.').next().unwrap()), "{log}");
    }
}

/// While the API server is away who was proved goes on, and everybody else is told to try again.
async fn is_away(server: &Guarded, new: &str) {
    assert_eq!(code(server, new, "client-1.default").await, Some(Code::Unavailable));
    assert_eq!(server.mesh.metric("pointsman_token_reviews{outcome=\"failed\"}").await, 1);
    let log = server.mesh.server.output();
    assert!(log.contains("service account tokens cannot be proved"), "{log}");
}

/// A token of the form of a cluster's, signed by nobody.
fn unsigned(signature: &str, audience: &str) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({ "iss": "https://kubernetes.default.svc", "aud": [audience], "exp": now + 600,
                         "sub": "system:serviceaccount:default:client" });
    let part = |text: String| BASE64_URL_SAFE_NO_PAD.encode(text);
    let head = json!({ "alg": "RS256", "kid": "one" });
    format!("{}.{}.{}", part(head.to_string()), part(claims.to_string()), part(signature.to_owned()))
}

fn proves() -> Says {
    Says::Proves {
        user: "system:serviceaccount:default:client".to_owned(),
        audiences: vec!["istio-ca".to_owned()],
        pod: Some(("client-1".to_owned(), "11-22".to_owned())),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_imitated_api_server_says_whose_a_token_is() {
    let mut api = ApiServer::start().unwrap();
    let (server, _files) = serve(&api.kubeconfig()).await;
    let tokens = Tokens {
        client: unsigned("one signature of the cluster", "istio-ca"),
        unaddressed: unsigned("another signature of the cluster", "kubernetes"),
        forged: unsigned("a signature of somebody else", "istio-ca"),
    };
    api.say_of(&tokens.client, proves());
    let line = holds(&server, &tokens).await;
    assert_eq!(line["pod"]["uid"], "11-22");
    let new = unsigned("a third signature of the cluster", "istio-ca");
    api.say_of(&new, proves());
    api.stop();
    is_away(&server, &new).await;
    assert_eq!(code(&server, &tokens.client, "client-1.default").await, None);
    is_silent(&server, &tokens);
    api.restart().unwrap();
    wait::until("the token to be proved", PATIENCE, async || match code(&server, &new, "client-1.default").await {
        None => Ok(()),
        Some(code) => Err(format!("{code:?}")),
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cluster_is_found_by_the_files_that_the_environment_names() {
    let (api, files) = (ApiServer::start().unwrap(), TempDir::new().unwrap());
    let token = unsigned("one signature of the cluster", "istio-ca");
    api.say_of(&token, proves());
    // What several files define counts as the first says it, and one has what another lacks.
    let whole: serde_json::Value = serde_json::from_str(&api.kubeconfig()).unwrap();
    let mut first = whole.clone();
    first.as_object_mut().unwrap().remove("clusters");
    let mut second = whole;
    second["current-context"] = json!("stranger");
    second["users"] = json!([{ "name": "client", "user": { "token": "nobody" } }]);
    let mut paths = Vec::new();
    for (name, text) in [("first", &first), ("second", &second)] {
        let path = files.path().join(name);
        std::fs::write(&path, text.to_string()).unwrap();
        paths.push(path.to_str().unwrap().to_owned());
    }
    let variable = format!("KUBECONFIG=:{}:{}", paths[0], paths[1]);
    let server = serve_by(&["env", &variable]).await;
    assert_eq!(code(&server, &token, "client-1.default").await, None);
    assert_eq!(api.asked(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_in_a_pod_asks_the_cluster_of_the_pod() {
    if !Availability::or_skip("files where a pod has them") {
        return;
    }
    let (api, files) = (ApiServer::start().unwrap(), TempDir::new().unwrap());
    let token = unsigned("one signature of the cluster", "istio-ca");
    api.say_of(&token, proves());
    for (name, text) in api.service_account() {
        std::fs::write(files.path().join(name), text).unwrap();
    }
    let host = format!("KUBERNETES_SERVICE_HOST={}", api.address().ip());
    let port = format!("KUBERNETES_SERVICE_PORT={}", api.address().port());
    let directory = files.path().to_str().unwrap();
    let environment = ["env", "--unset=KUBECONFIG", &host, &port];
    let mounts = ["unshare", "--mount", "--propagation", "private", "sh", "-c", AS_IN_A_POD, "sh", directory];
    let server = serve_by(&[&environment[..], &mounts].concat()).await;
    assert_eq!(code(&server, &token, "client-1.default").await, None);
    assert_eq!(api.asked(), 1);
}

#[test]
fn what_leads_to_no_cluster_ends_the_server_with_what_is_wrong_and_where() {
    let api_server = ApiServer::start().unwrap();
    let files = TempDir::new().unwrap();
    let file = |name: &str, text: &str| {
        let path = files.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let changed = |name: &str, change: fn(&mut serde_json::Value)| {
        let mut config: serde_json::Value = serde_json::from_str(&api_server.kubeconfig()).unwrap();
        change(&mut config);
        file(name, &config.to_string())
    };
    let good = file("good", &api_server.kubeconfig());
    let junk = file("junk", "clusters: {");
    let missing = files.path().join("missing").to_str().unwrap().to_owned();
    let both = format!("{good}:{junk}");
    let no_context = changed("no-context", |config| drop(config.as_object_mut().unwrap().remove("current-context")));
    let no_token = changed("no-token", |config| config["users"][0]["user"] = json!({ "tokenFile": "/nowhere/token" }));
    let no_root = changed("no-root", |config| {
        config["clusters"][0]["cluster"] =
            json!({ "server": "https://127.0.0.1:1", "certificate-authority": "nowhere" });
    });
    let pod = ("KUBERNETES_SERVICE_HOST", "127.0.0.1");
    for (environment, arguments, expected) in [
        (vec![], vec![], vec!["no kubeconfig", "not in a pod", "environment variable"]),
        (vec![("KUBECONFIG", "")], vec![], vec!["no kubeconfig"]),
        (vec![("KUBECONFIG", &*missing)], vec![], vec![&*missing]),
        (vec![("KUBECONFIG", &*both)], vec![], vec![&*junk]),
        (vec![("KUBECONFIG", &*good)], vec!["--kube-context", "other"], vec!["\"other\"", "\"client\", \"stranger\""]),
        (vec![], vec!["--kube-context", "other"], vec!["no kubeconfig", "\"other\""]),
        (vec![], vec!["--kubeconfig", &no_context], vec!["no current context", "--kube-context", "\"client\""]),
        (vec![], vec!["--kubeconfig", &no_token], vec!["/nowhere/token"]),
        (vec![], vec!["--kubeconfig", &no_root], vec!["nowhere"]),
        (vec![pod, ("KUBERNETES_SERVICE_PORT", "https")], vec![], vec!["not in a pod", "port"]),
    ] {
        let said = refused(&environment, &arguments);
        for expected in expected {
            assert!(said.contains(expected), "{environment:?} {arguments:?}: {said}");
        }
        assert!(!said.contains("client-of-the-test"), "no credentials: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_api_server_says_whose_a_token_is() {
    let Some(mut cluster) = Kubernetes::start("tokens of a real kube-apiserver").await.unwrap() else { return };
    for namespace in ["istio-system", "default"] {
        // The API server makes one of them by itself, sooner or later.
        let _ = cluster.kubectl(["create", "namespace", namespace], "");
    }
    cluster.kubectl(["apply", "-f", "-"], RIGHTS).unwrap();
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: client-1, namespace: default}\n\
               spec: {serviceAccountName: client, containers: [{name: app, image: app}]}\n";
    cluster.kubectl(["create", "serviceaccount", "client", "-n", "default"], "").unwrap();
    cluster.kubectl(["apply", "--validate=false", "-f", "-"], pod).unwrap();
    let own = cluster.token("istio-system", "pointsman", "", None).unwrap();
    let (server, _files) = serve(&cluster.kubeconfig(&own)).await;
    let of_client = |audience: &str| cluster.token("default", "client", audience, Some("client-1")).unwrap();
    let tokens = Tokens {
        client: of_client("istio-ca"),
        unaddressed: of_client("vault"),
        forged: unsigned("a signature of somebody else", "istio-ca"),
    };
    let line = holds(&server, &tokens).await;
    let uid = cluster.kubectl(["get", "pod", "client-1", "-o", "jsonpath={.metadata.uid}"], "").unwrap();
    assert_eq!(line["pod"]["uid"], uid);

    // A server without the right to ask lets nobody in, and says what it needs.
    let (other, _files) = serve(&cluster.kubeconfig(&of_client("https://kubernetes.default.svc"))).await;
    assert_eq!(code(&other, &of_client("istio-ca"), "client-1.default").await, Some(Code::Unavailable));
    let log = other.mesh.server.output();
    assert!(log.contains("403") && log.contains("tokenreviews"), "{log}");

    // A token is over with its pod, though its time is not. What the API server knows of pods may be a moment old, and
    // what it says is remembered: so each try is with a token that was not shown before.
    let (mut bound, later) = ((0..5).map(|_| of_client("istio-ca")).collect::<Vec<_>>(), of_client("istio-ca"));
    cluster.kubectl(["delete", "pod", "client-1", "--force", "--grace-period=0"], "").unwrap();
    wait::until("a token to be over", PATIENCE, async || {
        let token = bound.pop().ok_or_else(|| "every token counts".to_owned());
        match code(&server, &token?, "client-1.default").await {
            Some(Code::Unauthenticated) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap();
    cluster.kill().await.unwrap();
    is_away(&server, &later).await;
    assert_eq!(code(&server, &tokens.client, "client-1.default").await, None, "remembered");
    is_silent(&server, &tokens);
}
