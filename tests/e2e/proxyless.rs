//! gRPC's own clients and servers with mutual TLS and without a proxy, by certificates in files that the binary keeps fresh.
//!
//! ```text
//!   pointsman certificate ─▶ files ◀─ gRPC client ══mTLS══▶ gRPC server ─▶ files ◀─ pointsman certificate
//!                                           └══════mTLS══▶ Envoy ─▶ app
//! ```

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use identity::{Authority, KeyType, Lifetimes, PrivateKey, Serial, SpiffeId, Subject, TlsSecret};
use serde_json::Value;
use tempfile::TempDir;
use testkit::backend::Backend;
use testkit::envoy::Setup;
use testkit::grpc_client::{Answers, GrpcClient};
use testkit::grpc_language::Language::{self, Go, Python};
use testkit::grpc_server::GrpcServer;
use testkit::load::{Plan, Reply};
use testkit::process::Process;
use testkit::{ports, wait};

use crate::identity::Guarded;
use crate::mesh::PATIENCE;

pub const METHOD: &str = "/shop.Orders/Get";
const TIMEOUT: Duration = Duration::from_secs(10);
const STRICT: &str = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
                      metadata: {name: all, namespace: default}\nspec: {mtls: {mode: STRICT}}\n";

/// Nobody has the account that a server is expected to have.
const ELSEWHERE: &str = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
    metadata: {name: server, namespace: default}\nspec:\n  host: server\n  trafficPolicy: {tls: {mode: ISTIO_MUTUAL, \
    subjectAltNames: ['spiffe://cluster.local/ns/x/sa/y']}}\n";

/// Certificates of one workload, kept by the binary.
pub struct Keeper {
    process: Process,
    pub directory: PathBuf,
}

impl Keeper {
    pub fn start(bed: &Guarded, place: &Path, account: &str) -> Keeper {
        let directory = place.join(account);
        let (xds, token) = (bed.tls.to_string(), bed.token(&format!("default/{account}")));
        let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
        command.args(["certificate", "--xds", &xds, "--xds-ca", &bed.root(), "--token-file", &token, "--out"]);
        command.arg(&directory).env("NO_COLOR", "1");
        let process = Process::spawn("the keeper", command, place.join(format!("{account}.log"))).unwrap();
        Keeper { process, directory }
    }

    fn text(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.directory.join(name)).ok()
    }

    /// Waits for another certificate than this one.
    pub async fn other_than(&self, before: Option<&str>, within: Duration) -> String {
        wait::until("another certificate", within, async || {
            match self.text("cert-chain.pem").filter(|chain| Some(chain.as_str()) != before) {
                Some(chain) => Ok(chain),
                None => Err(self.process.output()),
            }
        })
        .await
        .unwrap()
    }
}

/// A control plane with a gRPC server of account `server` under STRICT, whose pod is at an address of its own.
struct Bed {
    guarded: Guarded,
    place: TempDir,
    server: SocketAddr,
    /// The service's port.
    port: u16,
    keepers: Vec<Keeper>,
    clients_are: Language,
    _server: GrpcServer,
}

impl Bed {
    /// With a server of the one language, and clients of the other.
    async fn start((server_is, clients_are): (Language, Language), policies: &str) -> Bed {
        let place = TempDir::with_prefix("pointsman-proxyless-").unwrap();
        let server = ports::pod(ports::local().unwrap().port()).unwrap();
        let port = ports::local().unwrap().port();
        let files = [("mesh.yaml", &*objects("server", port, server)), ("policies.yaml", policies)];
        let guarded = Guarded::start(&files, &["--workload-cert-ttl", "20"]).await;
        let mut keepers = Vec::new();
        for account in ["server", "client", "other"] {
            let keeper = Keeper::start(&guarded, place.path(), account);
            keeper.other_than(None, PATIENCE).await;
            keepers.push(keeper);
        }
        let bootstrap = bootstrap(&guarded, &keepers[0].directory, "server", &server.ip().to_string());
        let running = GrpcServer::start_in(server_is, server, "server", &bootstrap).unwrap();
        Bed { guarded, place, server, port, keepers, clients_are, _server: running }
    }

    fn target(&self) -> String {
        format!("xds:///server.default.svc.cluster.local:{}", self.port)
    }

    fn client(&self, account: &str) -> GrpcClient {
        let directory = self.place.path().join(account);
        let bootstrap = bootstrap(&self.guarded, &directory, account, "127.0.0.1");
        GrpcClient::start_in(self.clients_are, &self.target(), &bootstrap).unwrap()
    }

    /// A client with these files, which it has from nobody in this mesh.
    fn stranger(&self, name: &str, secret: &TlsSecret) -> GrpcClient {
        let directory = self.place.path().join(name);
        let (chain, key) = secret.pair().unwrap();
        let roots = self.keepers[0].text("root-cert.pem").unwrap();
        std::fs::create_dir_all(&directory).unwrap();
        for (name, text) in [("cert-chain.pem", chain), ("key.pem", key), ("root-cert.pem", &roots)] {
            std::fs::write(directory.join(name), text).unwrap();
        }
        // It proves nothing to the control plane, which has no secrets for it either.
        let kept = directory.to_str().unwrap();
        let bootstrap = self.guarded.mesh.bootstrap(&["--kind", "grpc", "--pod", name, "--certificates", kept]);
        GrpcClient::start_in(self.clients_are, &self.target(), &bootstrap).unwrap()
    }
}

pub fn bootstrap(bed: &Guarded, certificates: &Path, account: &str, ip: &str) -> Value {
    let certificates = certificates.to_str().unwrap();
    let kind = ["--kind", "grpc", "--ip", ip, "--service-account", account];
    bed.bootstrap(account, &[&kind[..], &["--certificates", certificates, "--certificates-every", "1"]].concat())
}

/// A service, and its one pod, which says that it takes mutual TLS; the account is called like it.
fn objects(name: &str, port: u16, at: SocketAddr) -> String {
    let (ip, target) = (at.ip(), at.port());
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\nspec:\n  selector: {{app: {name}}}\n  \
         ports: [{{name: grpc, port: {port}, targetPort: {target}}}]\n---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  \
         namespace: default\n  labels: {{app: {name}, security.istio.io/tlsMode: istio}}\nspec: {{serviceAccountName: {name}, \
         containers: []}}\nstatus: {{podIP: {ip}, phase: Running}}\n"
    )
}

fn policy(name: &str, app: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: default}}\n\
         spec:\n  selector: {{matchLabels: {{app: {app}}}}}\n{spec}"
    )
}

pub fn id(account: &str) -> String {
    format!("spiffe://cluster.local/ns/default/sa/{account}")
}

/// Calls until all calls are answered, or all fail, as wanted.
pub async fn until(client: &mut GrpcClient, method: &str, what: &str, wanted: impl Fn(&Answers) -> bool) -> Answers {
    wait::until(what, PATIENCE, async || {
        let answers = client.call(method, 5, Duration::from_secs(3), &[]).await.unwrap();
        if wanted(&answers) { Ok(answers) } else { Err(format!("{answers:?}; {}", client.log())) }
    })
    .await
    .unwrap()
}

fn is_answered(answers: &Answers) -> bool {
    answers.errors.is_empty() && answers.by_backend.values().sum::<u64>() == 5
}

fn fails_with<'a>(status: &'a str) -> impl Fn(&Answers) -> bool + 'a {
    move |answers| answers.by_backend.is_empty() && answers.errors.keys().all(|error| error.starts_with(status))
}

/// A certificate of this name by the authority with this certificate and key.
fn signed(root: &str, key: &str, id: &str) -> TlsSecret {
    let now = SystemTime::now();
    let authority = Authority::own(root, key).unwrap();
    let (own, id): (_, SpiffeId) = (PrivateKey::generate(KeyType::EcdsaP256).unwrap(), id.parse().unwrap());
    let lifetime = Lifetimes::new(now).next(now, Duration::from_secs(600));
    let issued = authority.issue(Subject::Workload(&id), &own, &lifetime, Serial::from_random([7; 16])).unwrap();
    TlsSecret::new(Some(&issued.chain.concat()), Some(&own.to_pem()), Some(root)).unwrap()
}

async fn a_server_under_strict_takes_workloads_of_the_mesh_only(languages: (Language, Language)) {
    let bed = Bed::start(languages, STRICT).await;
    let mut client = bed.client("client");
    let answers = until(&mut client, METHOD, "the client to be answered", is_answered).await;
    assert_eq!(answers.by_peer.keys().collect::<Vec<_>>(), [&id("client")]);

    let mut bare = GrpcClient::start(&bed.server.to_string(), None).unwrap();
    until(&mut bare, METHOD, "plaintext to be refused", fails_with("UNAVAILABLE")).await;

    let state = bed.guarded.state.path();
    let read = |name: &str| std::fs::read_to_string(state.join(name)).unwrap();
    let (root, key) = (read("ca/root-cert.pem"), read("ca/root-key.pem"));
    let foreign = signed(&root, &key, "spiffe://elsewhere.example/ns/default/sa/client");
    let mut foreign = bed.stranger("foreign", &foreign);
    until(&mut foreign, METHOD, "another trust domain to be refused", fails_with("PERMISSION_DENIED")).await;

    let now = SystemTime::now();
    let lifetime = Lifetimes::new(now).next(now, Duration::from_secs(600));
    let own = PrivateKey::generate(KeyType::EcdsaP256).unwrap();
    let key = own.to_pem();
    let elsewhere =
        Authority::new_root(&"cluster.local".parse().unwrap(), own, &lifetime, Serial::from_random([9; 16])).unwrap();
    let unsigned = signed(&elsewhere.certificate_pem(), &key, &id("client"));
    let mut unsigned = bed.stranger("unsigned", &unsigned);
    until(&mut unsigned, METHOD, "another authority to be refused", fails_with("UNAVAILABLE")).await;

    // A server of another account than is expected is no server to the client.
    bed.guarded.mesh.write("rule.yaml", ELSEWHERE);
    until(&mut client, METHOD, "a server of another account to be refused", fails_with("UNAVAILABLE")).await;
    bed.guarded.mesh.remove("rule.yaml");
    until(&mut client, METHOD, "the client to be answered again", is_answered).await;
}

#[tokio::test]
async fn a_grpc_server_under_strict_takes_workloads_of_the_mesh_only() {
    a_server_under_strict_takes_workloads_of_the_mesh_only((Python, Python)).await;
}

#[tokio::test]
async fn a_grpc_server_under_strict_takes_workloads_of_the_mesh_only_in_go() {
    a_server_under_strict_takes_workloads_of_the_mesh_only((Go, Go)).await;
}

#[tokio::test]
async fn a_grpc_server_in_python_under_strict_takes_clients_in_go() {
    a_server_under_strict_takes_workloads_of_the_mesh_only((Python, Go)).await;
}

#[tokio::test]
async fn a_grpc_server_in_go_under_strict_takes_clients_in_python() {
    a_server_under_strict_takes_workloads_of_the_mesh_only((Go, Python)).await;
}

async fn a_server_carries_out_policies(languages: (Language, Language)) {
    let bed = Bed::start(languages, STRICT).await;
    let (mut client, mut other) = (bed.client("client"), bed.client("other"));
    for client in [&mut client, &mut other] {
        until(client, METHOD, "everybody to be answered", is_answered).await;
    }
    let allow = policy(
        "allow",
        "server",
        "  rules:\n    - from: [{source: {principals: [cluster.local/ns/default/sa/client]}}]\n",
    );
    bed.guarded.mesh.write("policies.yaml", &format!("{STRICT}{allow}"));
    until(&mut other, METHOD, "the other principal to be refused", fails_with("PERMISSION_DENIED")).await;
    until(&mut client, METHOD, "the principal to be answered", is_answered).await;

    let deny = policy(
        "deny",
        "server",
        "  action: DENY\n  rules:\n    - to: [{operation: {paths: [/shop.Orders/Delete*]}}]\n",
    );
    bed.guarded.mesh.write("policies.yaml", &format!("{STRICT}{allow}{deny}"));
    until(&mut client, "/shop.Orders/Delete", "the path to be refused", fails_with("PERMISSION_DENIED")).await;
    until(&mut client, METHOD, "other paths to be answered", is_answered).await;

    // Every field that it knows is taken, and what it does not know lets nothing through and is told.
    let every = policy(
        "every",
        "server",
        "  rules:\n    - from: [{source: {namespaces: [d*t], serviceAccounts: [other], trustDomains: ['*'], ipBlocks: [127.0.0.0/8], \
         notPrincipals: ['*/sa/root']}}]\n      to: [{operation: {hosts: ['*'], notHosts: [nobody], methods: [POST], \
         paths: ['/shop.Orders/{*}'], notPaths: ['*Delete'], notPorts: ['1']}}]\n      when: [{key: 'request.headers[x-a]', \
         values: [b*]}, {key: 'request.headers[x-c]', notValues: [d]}]\n    - when: [{key: 'request.auth.claims[a]', values: [b]}]\n",
    );
    bed.guarded.mesh.write("policies.yaml", &format!("{STRICT}{allow}{deny}{every}"));
    wait::until("the new rule to let the other principal in", PATIENCE, async || {
        let answers = other.call(METHOD, 5, Duration::from_secs(3), &[("x-a", "bc")]).await.unwrap();
        if is_answered(&answers) { Ok(()) } else { Err(format!("{answers:?}; {}", other.log())) }
    })
    .await
    .unwrap();
    assert!(fails_with("PERMISSION_DENIED")(&other.call(METHOD, 5, TIMEOUT, &[("x-a", "x")]).await.unwrap()));
    bed.guarded
        .mesh
        .get_where("/api/v1/problems", "the problem to be told", |problems| {
            problems.to_string().contains("gRPC servers without a proxy do not know tokens")
        })
        .await;
}

#[tokio::test]
async fn a_grpc_server_carries_out_policies() {
    a_server_carries_out_policies((Python, Python)).await;
}

#[tokio::test]
async fn a_grpc_server_carries_out_policies_in_go() {
    a_server_carries_out_policies((Go, Go)).await;
}

async fn certificates_are_replaced_under_load(languages: (Language, Language)) {
    let mut bed = Bed::start(languages, STRICT).await;
    let mut client = bed.client("client");
    until(&mut client, METHOD, "the client to be answered", is_answered).await;
    let (mut failed, mut seen, mut calls) = (Vec::new(), BTreeSet::new(), 0);
    let mut versions: Vec<BTreeSet<String>> = vec![BTreeSet::new(); 2];
    let deadline = Instant::now() + Duration::from_secs(90);
    // Certificates that hold 20 seconds are replaced after 10, give or take a tenth: the first ones and two more each.
    while versions.iter().any(|of_one| of_one.len() < 4) || seen.len() < 3 {
        assert!(Instant::now() < deadline, "{} {seen:?}", bed.keepers[0].process.output());
        let answers = client.call(METHOD, 100, TIMEOUT, &[]).await.unwrap();
        calls += 100;
        seen.extend(answers.by_certificate.into_keys());
        failed.extend(answers.errors);
        for (of_one, keeper) in versions.iter_mut().zip(&bed.keepers) {
            of_one.extend(keeper.text("cert-chain.pem"));
        }
    }
    assert!(failed.is_empty(), "{failed:?} of {calls}");
    let key = bed.keepers[0].directory.join("key.pem");
    assert_eq!(std::fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);

    // The server is away for a while: what is there stays, and it goes on when the server is back.
    bed.guarded.mesh.server.kill().await.unwrap();
    let before = bed.keepers[1].text("cert-chain.pem").unwrap();
    wait::until("the keeper to say so", PATIENCE, async || {
        let output = bed.keepers[1].process.output();
        if output.contains("the one that is there stays in force") { Ok(()) } else { Err(output) }
    })
    .await
    .unwrap();
    assert_eq!(bed.keepers[1].text("cert-chain.pem").as_ref(), Some(&before));
    bed.guarded.mesh.restart().await;
    bed.keepers[1].other_than(Some(&before), PATIENCE).await;
    for keeper in &mut bed.keepers {
        keeper.process.terminate().unwrap();
        let status = keeper.process.exited(PATIENCE).await.unwrap();
        assert_eq!(status.code(), Some(0), "{}", keeper.process.output());
        assert!(keeper.text("key.pem").is_some_and(|key| !keeper.process.output().contains(&key)));
    }
}

#[tokio::test]
async fn certificates_are_replaced_under_load_and_no_call_fails() {
    certificates_are_replaced_under_load((Python, Python)).await;
}

#[tokio::test]
async fn certificates_are_replaced_under_load_and_no_call_fails_in_go() {
    certificates_are_replaced_under_load((Go, Go)).await;
}

#[tokio::test]
async fn a_grpc_client_calls_a_sidecar_under_strict_by_mutual_tls() {
    let place = TempDir::with_prefix("pointsman-proxyless-").unwrap();
    let local = ports::local().unwrap();
    let pod = ports::pod(local.port()).unwrap();
    let app = Backend::start("app", local).unwrap();
    let allow = policy(
        "allow",
        "web",
        "  rules:\n    - from: [{source: {principals: [cluster.local/ns/default/sa/client]}}]\n",
    );
    let port = ports::local().unwrap().port();
    let files = [("mesh.yaml", &*objects("web", port, pod)), ("policies.yaml", &*format!("{STRICT}{allow}"))];
    let guarded = Guarded::start(&files, &[]).await;
    let token = guarded.token("default/web");
    let ip = pod.ip().to_string();
    let proved = ["--ip", &ip, "--service-account", "web", "--token-file", &token];
    let envoy = Setup::new(guarded.bootstrap("web", &proved)).start().await.unwrap();
    let target = format!("xds:///web.default.svc.cluster.local:{port}");
    let mut clients = Vec::new();
    for account in ["client", "other"] {
        let keeper = Keeper::start(&guarded, place.path(), account);
        keeper.other_than(None, PATIENCE).await;
        let bootstrap = bootstrap(&guarded, &keeper.directory, account, "127.0.0.1");
        clients.push((GrpcClient::start_secured(&target, &bootstrap).unwrap(), keeper));
    }
    let [(client, _), (other, _)] = &mut clients[..] else { panic!("there are two clients") };
    until(client, METHOD, "the client to be answered", is_answered).await;
    until(other, METHOD, "another account to be refused", fails_with("PERMISSION_DENIED")).await;
    assert!(app.requests() >= 5);

    // One without certificates cannot reach it, and the policy has a problem that says so.
    let plain = guarded.mesh.bootstrap(&["--kind", "grpc", "--pod", "plain"]);
    let mut plain = GrpcClient::start_secured(&target, &plain).unwrap();
    until(&mut plain, METHOD, "plaintext to be refused", fails_with("UNAVAILABLE")).await;
    guarded
        .mesh
        .get_where("/api/v1/problems", "the problem to be told", |problems| {
            problems.to_string().contains("whose bootstrap names no certificate provider")
        })
        .await;
    envoy.stop().await.unwrap();
}

async fn a_sidecar_calls_a_server_under_strict(server: Language) {
    let bed = Bed::start((server, Python), STRICT).await;
    let token = bed.guarded.token("default/client");
    let proved = ["--service-account", "client", "--token-file", &token];
    let envoy = Setup::new(bed.guarded.bootstrap("caller", &proved)).start().await.unwrap();
    let plan = Plan::grpc(([127, 0, 0, 1], bed.port).into(), "server", METHOD, b"hello").timeout(TIMEOUT);
    let until = async |what: &str, wanted: &dyn Fn(&Reply) -> bool| {
        wait::until(what, PATIENCE, async || match plan.once().await {
            Ok(reply) if wanted(&reply) => Ok(()),
            Ok(reply) => Err(format!("{reply:?}")),
            Err(error) => Err(format!("{error:#}")),
        })
        .await
        .unwrap();
    };
    let caller = id("client");
    let is_answered = |reply: &Reply| reply.backend() == "server" && reply.header("x-peer") == Some(&caller);
    until("the sidecar's caller to be answered", &is_answered).await;
    for (account, wanted) in [
        ("other", &(|reply: &Reply| reply.header("grpc-status") == Some("7")) as &dyn Fn(&Reply) -> bool),
        ("client", &is_answered),
    ] {
        let rules =
            format!("  rules:\n    - from: [{{source: {{principals: [cluster.local/ns/default/sa/{account}]}}}}]\n");
        bed.guarded.mesh.write("policies.yaml", &format!("{STRICT}{}", policy("allow", "server", &rules)));
        until(&format!("the policy for \"{account}\" to count"), wanted).await;
    }
    // A server of another account than is expected is no server to the sidecar.
    bed.guarded.mesh.write("rule.yaml", ELSEWHERE);
    until("a server of another account to be refused", &|reply| reply.header("grpc-status") == Some("14")).await;
    bed.guarded.mesh.remove("rule.yaml");
    until("the sidecar's caller to be answered again", &is_answered).await;
    envoy.stop().await.unwrap();
}

#[tokio::test]
async fn a_sidecar_calls_a_grpc_server_under_strict_by_mutual_tls() {
    a_sidecar_calls_a_server_under_strict(Python).await;
}

#[tokio::test]
async fn a_sidecar_calls_a_grpc_server_under_strict_by_mutual_tls_in_go() {
    a_sidecar_calls_a_server_under_strict(Go).await;
}
