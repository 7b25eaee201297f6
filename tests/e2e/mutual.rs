//! Mutual TLS between workloads that know nothing of it, in network namespaces that imitate pods.
//!
//! ```text
//!   client pod: load ──REDIRECT──▶ Envoy :15001 ══mTLS══▶ web pod: REDIRECT ──▶ Envoy :15006 ──▶ app
//!                                          └──in the clear──▶ bare pod: app
//!   outside: callers without a proxy
//! ```
//!
//! The Envoys prove who they are by join tokens, and get certificates that hold 20 seconds. They reach the server's TLS
//! listener over a Unix socket that the test relays. Skipped, with the reason printed, where the machine does not allow
//! namespaces.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use testkit::backend::Backend;
use testkit::envoy::{Envoy, Setup};
use testkit::load::{Load, Plan, Reply};
use testkit::netns::{Availability, Lab, Namespace};
use testkit::wait;
use tokio::net::{TcpStream, UnixListener};
use tokio::task::JoinSet;

use crate::identity::Guarded;
use crate::mesh::PATIENCE;

/// The user that Envoy runs as, whose traffic is not intercepted.
const PROXY: u32 = 1337;
/// Ports of the apps: of HTTP, of TCP, and of a port that nobody declares.
const PORTS: [u16; 3] = [8080, 9090, 9091];
/// Virtual addresses of the services, which no interface has.
const WEB: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
const BARE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 2);

/// Namespaces, apps and Envoys of one test.
struct Pods {
    client: Envoy,
    web: Envoy,
    server: Guarded,
    /// How Envoys reach the server.
    socket: PathBuf,
    root: PathBuf,
    _apps: Vec<Backend>,
    _relay: JoinSet<()>,
    _directory: TempDir,
    lab: Lab,
}

impl Pods {
    async fn start() -> Pods {
        let lab = Lab::new(&["client", "web", "bare", "outside", "spare"]).unwrap();
        for name in ["client", "web", "spare"] {
            // A pod's only route leads to the switch, as virtual addresses have to leave by some interface.
            let routed = lab.namespace(name).command("ip").args(["route", "add", "default", "dev", "eth0"]).output();
            let routed = routed.unwrap();
            assert!(routed.status.success(), "{routed:?}");
        }
        let app = |name: &str, port: u16| {
            let place = lab.namespace(name);
            Backend::start_in(Some(place), name, (place.address(), port).into()).unwrap()
        };
        let mut apps: Vec<_> = PORTS.iter().map(|port| app("web", *port)).collect();
        apps.push(app("bare", PORTS[0]));
        apps.extend(PORTS.iter().map(|port| app("spare", *port)));
        let server = Guarded::start(&[("mesh.yaml", &objects(&lab))], &["--workload-cert-ttl", "20"]).await;
        // The Envoys are of another user, who may not look into the state directory.
        let directory = TempDir::with_prefix("pointsman-relay-").unwrap();
        open(directory.path(), 0o755);
        let root = directory.path().join("root.pem");
        std::fs::copy(server.root(), &root).unwrap();
        open(&root, 0o644);
        let socket = directory.path().join("xds.sock");
        let relay = relay(&socket, server.tls);
        let client = proxy(&server, lab.namespace("client"), &socket, &root).await;
        let web = proxy(&server, lab.namespace("web"), &socket, &root).await;
        let (_apps, _relay, _directory) = (apps, relay, directory);
        Pods { client, web, server, socket, root, _apps, _relay, _directory, lab }
    }

    /// Says what workloads take.
    fn say(&self, policies: &[&str]) {
        let object = |(at, spec): (usize, &&str)| {
            let namespace = if at == 0 { "istio-system" } else { "default" };
            format!(
                "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
                 metadata: {{name: p{at}, namespace: {namespace}}}\nspec: {spec}\n"
            )
        };
        self.server.mesh.write("policies.yaml", &policies.iter().enumerate().map(object).collect::<String>());
    }

    /// What comes back from an address for a caller in this pod.
    fn ask(&self, from: &str, to: (Ipv4Addr, u16)) -> Result<Reply, String> {
        ask(self.lab.namespace(from), to)
    }

    /// Waits until what comes back is as wanted.
    async fn until(&self, from: &str, to: (Ipv4Addr, u16), wanted: impl Fn(&Result<Reply, String>) -> bool) {
        wait::until(&format!("{from} to get what it should from {to:?}"), PATIENCE, async || {
            let got = self.ask(from, to);
            if wanted(&got) { Ok(()) } else { Err(format!("{got:?}")) }
        })
        .await
        .unwrap();
    }

    /// Requests from the client pod, none of which may take long.
    fn load(&self, to: (Ipv4Addr, u16), per_second: f64) -> Load {
        let plan = Plan::get(to.into(), "web", "/").per_second(per_second).connections(4);
        Load::start_in(Some(self.lab.namespace("client")), plan.timeout(Duration::from_secs(10))).unwrap()
    }

    /// Waits until everybody has settled what policies say.
    async fn nothing_under_way(&self) {
        let is_settled = |object: &serde_json::Value| object["waiting"].as_array().is_none_or(Vec::is_empty);
        let path = "/api/v1/objects/peerauthentication/istio-system/p0";
        self.server.mesh.get_where(path, "the policy to be settled", is_settled).await;
    }

    fn web(&self) -> Ipv4Addr {
        self.lab.namespace("web").address()
    }
}

fn open(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Carries what comes to a Unix socket to an address, until it is dropped.
fn relay(socket: &Path, to: SocketAddr) -> JoinSet<()> {
    let listener = UnixListener::bind(socket).unwrap();
    open(socket, 0o666);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut streams = JoinSet::new();
        while let Ok((mut near, _)) = listener.accept().await {
            streams.spawn(async move {
                if let Ok(mut far) = TcpStream::connect(to).await {
                    // Either side may go at any time.
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                }
            });
        }
    });
    tasks
}

/// Sends one request from a thread of its own, because a thread stays in the namespace that it has entered.
fn ask(place: &Namespace, (address, port): (Ipv4Addr, u16)) -> Result<Reply, String> {
    let place = place.clone();
    let host = if address == BARE { "bare" } else { "web" };
    let plan = Plan::get((address, port).into(), host, "/echo").timeout(Duration::from_secs(5));
    let asking = std::thread::spawn(move || {
        place.enter().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(plan.once()).map_err(|error| format!("{error:#}"))
    });
    tokio::task::block_in_place(|| asking.join().unwrap())
}

/// Puts an Envoy that intercepts into a pod; its account is called like it.
async fn proxy(server: &Guarded, place: &Namespace, socket: &Path, root: &Path) -> Envoy {
    let (name, ip) = (place.name(), place.address().to_string());
    let (xds, token) = (format!("unix:{}", socket.display()), server.token(&format!("default/{name}")));
    let arguments = ["--pod", name, "--ip", &ip, "--interception", "redirect", "--service-account", name];
    let secured =
        ["--xds", &xds, "--xds-ca", root.to_str().unwrap(), "--xds-name", "localhost", "--token-file", &token];
    let mut bootstrap = server.mesh.bootstrap(&[&arguments[..], &secured].concat());
    // The test has to reach the admin interface from outside of the namespace: by a Unix socket of the harness.
    bootstrap.as_object_mut().unwrap().remove("admin");
    let envoy = Setup::new(bootstrap).in_namespace(place).as_user(PROXY).start().await.unwrap();
    place.intercept(PROXY).unwrap();
    envoy
}

/// A service with a proxy and one without, whose connections do not last, so that new certificates are used as they come.
fn objects(lab: &Lab) -> String {
    let [http, tcp, any] = PORTS;
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec:\n  clusterIP: {WEB}\n  selector: {{app: web}}\n  \
         ports:\n  - {{name: http, port: 80, targetPort: {http}}}\n  - {{name: tcp, port: 90, targetPort: {tcp}}}\n  \
         - {{name: any, port: 91, targetPort: {any}}}\n\
         ---\napiVersion: v1\nkind: Service\nmetadata: {{name: bare}}\nspec:\n  clusterIP: {BARE}\n  \
         selector: {{app: bare}}\n  ports: [{{name: http, port: 80, targetPort: {http}}}]\n\
         ---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: web}}\n\
         spec: {{host: web, trafficPolicy: {{connectionPool: {{http: {{maxRequestsPerConnection: 10}}}}}}}}\n"
    );
    for (name, label) in [("client", ""), ("web", ", security.istio.io/tlsMode: istio"), ("bare", "")] {
        text += &pod(lab, name, &format!("app: {name}{label}"));
    }
    text
}

/// A pod whose account is called like it.
fn pod(lab: &Lab, name: &str, labels: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{{labels}}}}}\n\
         spec: {{serviceAccountName: {name}, containers: []}}\nstatus: {{podIP: {}, phase: Running}}\n",
        lab.namespace(name).address()
    )
}

/// The header in which a proxy says who called.
fn caller(reply: &Reply) -> Option<String> {
    let echo = reply.json().unwrap();
    echo["headers"]["x-forwarded-client-cert"].as_str().map(str::to_owned)
}

fn is_answered(got: &Result<Reply, String>) -> bool {
    got.as_ref().is_ok_and(|reply| reply.status == 200)
}

fn is_in_the_clear(got: &Result<Reply, String>) -> bool {
    got.as_ref().is_ok_and(|reply| reply.status == 200 && caller(reply).is_none())
}

fn is_proved(got: &Result<Reply, String>) -> bool {
    got.as_ref().is_ok_and(|reply| reply.status == 200 && caller(reply).is_some())
}

#[tokio::test(flavor = "multi_thread")]
async fn workloads_speak_mutual_tls_as_policies_say_while_certificates_are_replaced() {
    if !Availability::or_skip("workloads speak mutual TLS as policies say while certificates are replaced") {
        return;
    }
    let pods = Pods::start().await;
    let web = pods.web();
    // Nobody says anything: those who can prove who they are do, and everybody is let in.
    pods.until("client", (WEB, 80), is_proved).await;
    let heard = caller(&pods.ask("client", (WEB, 80)).unwrap()).unwrap();
    for part in ["By=spiffe://cluster.local/ns/default/sa/web", "URI=spiffe://cluster.local/ns/default/sa/client"] {
        assert!(heard.contains(part), "{heard}");
    }
    pods.until("client", (WEB, 90), is_in_the_clear).await;
    pods.until("client", (WEB, 91), is_answered).await;
    pods.until("client", (BARE, 80), is_in_the_clear).await;
    for port in PORTS {
        assert!(is_in_the_clear(&pods.ask("outside", (web, port))), "{port}");
    }

    // Only those who prove it: the change costs them nothing.
    let load = pods.load((WEB, 80), 50.0);
    load.next(100, PATIENCE).await.unwrap();
    pods.say(&["{mtls: {mode: STRICT}}"]);
    for port in PORTS {
        pods.until("outside", (web, port), Result::is_err).await;
    }
    pods.until("client", (WEB, 80), is_proved).await;
    for port in [90, 91] {
        assert!(is_answered(&pods.ask("client", (WEB, port))), "{port}");
    }
    // Whoever has no proxy can neither prove anything nor be asked to.
    assert!(is_in_the_clear(&pods.ask("client", (BARE, 80))));
    // Certificates that hold 20 seconds are replaced after 10, give or take a tenth.
    for envoy in [&pods.client, &pods.web] {
        let received = "sds.default.update_success";
        let before = envoy.stat(received).await.unwrap();
        envoy.stat_where(received, Duration::from_secs(60), |now| now >= before + 3).await.unwrap();
    }
    load.next(100, PATIENCE).await.unwrap();
    let window = load.stop().await;
    window.assert_no_failures();
    assert!(window.len() > 500, "{window}");

    // One port takes what is in the clear and nothing else, against what the mesh says.
    pods.say(&[
        "{mtls: {mode: STRICT}}",
        "{selector: {matchLabels: {app: web}}, portLevelMtls: {8080: {mode: DISABLE}}}",
    ]);
    pods.until("outside", (web, PORTS[0]), is_in_the_clear).await;
    pods.until("client", (WEB, 80), is_in_the_clear).await;
    assert!(pods.ask("outside", (web, PORTS[1])).is_err());
    assert!(is_answered(&pods.ask("client", (WEB, 90))));

    // The workload may take both again.
    pods.say(&["{mtls: {mode: STRICT}}", "{selector: {matchLabels: {app: web}}, mtls: {mode: PERMISSIVE}}"]);
    pods.until("outside", (web, PORTS[1]), is_in_the_clear).await;
    pods.until("client", (WEB, 80), is_proved).await;
    let problems = pods.server.mesh.get("/api/v1/problems").await;
    assert_eq!(problems["problems"].as_array().map(Vec::len), Some(0), "{problems}");
    pods.client.stop().await.unwrap();
    pods.web.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn workloads_go_from_plaintext_to_tls_and_back_without_a_failed_request() {
    if !Availability::or_skip("workloads go from plaintext to TLS and back without a failed request") {
        return;
    }
    let pods = Pods::start().await;
    pods.until("client", (WEB, 80), is_proved).await;
    pods.until("client", (WEB, 90), is_answered).await;
    let loads = [80, 90, 91].map(|port| pods.load((WEB, port), 60.0));
    for mode in ["DISABLE", "STRICT", "DISABLE", "PERMISSIVE"] {
        pods.say(&[&format!("{{mtls: {{mode: {mode}}}}}")]);
        let is_there = if mode == "DISABLE" { is_in_the_clear } else { is_proved };
        pods.until("client", (WEB, 80), is_there).await;
        // Whoever has no proxy sees when the workload has turned, too.
        match mode {
            "STRICT" => pods.until("outside", (pods.web(), PORTS[1]), Result::is_err).await,
            _ => pods.until("outside", (pods.web(), PORTS[1]), is_in_the_clear).await,
        }
        pods.nothing_under_way().await;
        for load in &loads {
            load.next(60, PATIENCE).await.unwrap();
        }
    }
    for load in loads {
        let window = load.stop().await;
        window.assert_no_failures();
        assert!(window.len() > 500, "{window}");
    }
    pods.client.stop().await.unwrap();
    pods.web.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_gets_workloads_of_other_accounts_and_loses_them_without_a_failed_request() {
    if !Availability::or_skip("a service gets workloads of other accounts and loses them without a failed request") {
        return;
    }
    let pods = Pods::start().await;
    let spare = proxy(&pods.server, pods.lab.namespace("spare"), &pods.socket, &pods.root).await;
    pods.say(&["{mtls: {mode: STRICT}}"]);
    pods.until("client", (WEB, 80), is_proved).await;
    let load = pods.load((WEB, 80), 200.0);
    for _ in 0..8 {
        let joined = pods.server.mesh.write("spare.yaml", &pod(&pods.lab, "spare", JOINING));
        load.first(joined, PATIENCE, |sample| sample.backend() == Some("spare")).await.unwrap();
        load.next(100, PATIENCE).await.unwrap();
        pods.server.mesh.remove("spare.yaml");
        load.next(300, PATIENCE).await.unwrap();
    }
    let window = load.stop().await;
    window.assert_no_failures();
    assert!(window.by_backend()["spare"] > 100, "{window}");
    for envoy in [pods.client, pods.web, spare] {
        envoy.stop().await.unwrap();
    }
}

/// The labels of a pod that becomes one of the service.
const JOINING: &str = "app: web, security.istio.io/tlsMode: istio";
