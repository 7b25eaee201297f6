//! Ports whose protocol nobody declares: what is HTTP there is treated as such, the rest is passed on.
//!
//! ```text
//!   caller ──▶ client's Envoy ══mTLS══▶ web's Envoy ──▶ apps
//!   caller ────────in the clear───────▶
//! ```

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::{Value, json};
use testkit::backend::Backend;
use testkit::envoy::{Envoy, Setup};
use testkit::load::{Plan, Reply};
use testkit::tcp_backend::TcpBackend;
use testkit::{ports, wait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::authorization::{exchange, is_answered};
use crate::identity::Guarded;
use crate::mesh::PATIENCE;
use crate::tokens::issuer::Issuer;

/// What a server says before it is asked.
const GREETING: &str = "welcome";

/// A workload whose ports nobody declares, and a client of it.
struct Bed {
    /// Where the client's proxy leads to the ports of HTTP and of bytes.
    by_mesh: [SocketAddr; 2],
    /// Where the workload's proxy takes HTTP, bytes, and what a server begins.
    direct: [SocketAddr; 3],
    server: Guarded,
    _proxies: [Envoy; 2],
    _apps: (Backend, TcpBackend, JoinSet<()>),
}

impl Bed {
    async fn start(policies: &str) -> Bed {
        let apps: [SocketAddr; 3] = std::array::from_fn(|_| ports::local().unwrap());
        let services: [SocketAddr; 2] = std::array::from_fn(|_| ports::local().unwrap());
        let pod = ports::pod(apps[0].port()).unwrap().ip();
        let running = (
            Backend::start("web", apps[0]).unwrap(),
            TcpBackend::start("database", apps[1]).unwrap(),
            greeter(apps[2]).await,
        );
        let objects = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: default}}\nspec:\n  selector: {{app: web}}\n  \
             ports:\n  - {{name: any, port: {}, targetPort: {}}}\n  - {{name: other, port: {}, targetPort: {}}}\n  \
             - {{name: third, port: {}, targetPort: {}}}\n\
             ---\napiVersion: v1\nkind: Pod\n\
             metadata: {{name: web, namespace: default, labels: {{app: web, security.istio.io/tlsMode: istio}}}}\n\
             spec: {{serviceAccountName: web, containers: []}}\nstatus: {{podIP: {pod}, phase: Running}}\n",
            services[0].port(),
            apps[0].port(),
            services[1].port(),
            apps[1].port(),
            ports::local().unwrap().port(),
            apps[2].port(),
        );
        let server = Guarded::start(&[("objects.yaml", &objects), ("policies.yaml", policies)], &[]).await;
        let proxy = async |name: &str, more: &[&str]| {
            let token = server.token(&format!("default/{name}"));
            let proof = ["--token-file", &*token, "--service-account", name];
            Setup::new(server.bootstrap(name, &[&proof, more].concat())).start().await.unwrap()
        };
        let web = proxy("web", &["--ip", &pod.to_string(), "--label", "app=web"]).await;
        let client = proxy("client", &[]).await;
        server.mesh.synced(2).await;
        let direct = apps.map(|app| (pod, app.port()).into());
        Bed { by_mesh: services, direct, server, _proxies: [web, client], _apps: running }
    }

    /// A request with these headers, as often as it fails or is answered with 503 because certificates are on their way.
    async fn ask(&self, plan: &Plan) -> Reply {
        wait::until("an answer", PATIENCE, async || match plan.once().await {
            Ok(reply) if reply.status != 503 => Ok(reply),
            Ok(reply) => Err(format!("{reply:?}")),
            Err(error) => Err(format!("{error:#}")),
        })
        .await
        .unwrap()
    }
}

/// A server that speaks first.
async fn greeter(address: SocketAddr) -> JoinSet<()> {
    let listener = TcpListener::bind(address).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // The client may have gone.
            let _ = stream.write_all(GREETING.as_bytes()).await;
        }
    });
    tasks
}

/// Who checks tokens, and a limit.
fn policies(issuer: &Issuer) -> String {
    let rule = json!({
        "issuer": issuer.name, "jwks": issuer.key_set(),
        "outputClaimToHeaders": [{"header": "x-user", "claim": "sub"}],
    });
    let tokens = json!({
        "apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication",
        "metadata": {"name": "tokens", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "jwtRules": [rule]},
    });
    let limits = json!({
        "apiVersion": "policy.pointsman.dev/v1alpha1", "kind": "RateLimitPolicy",
        "metadata": {"name": "limits", "namespace": "default"},
        "spec": {"limits": [{"name": "two", "requests": 2, "per": "1h", "match": {"paths": ["/limited"]}}]},
    });
    format!("{tokens}\n---\n{limits}\n")
}

fn get(address: SocketAddr, path: &str) -> Plan {
    Plan::get(address, "web", path).timeout(PATIENCE)
}

/// The user whom the app was told of.
fn user(reply: &Reply) -> Value {
    let seen: Value = serde_json::from_str(reply.body()).unwrap();
    seen["headers"]["x-user"].clone()
}

/// The status and the rest of the answer to a request of old, with these lines.
async fn by_http_1_0(to: SocketAddr, path: &str, lines: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.0\r\n{lines}\r\n");
    let answer = exchange(Ipv4Addr::LOCALHOST, to, request.as_bytes()).await.unwrap();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("{answer}")), answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_and_limits_hold_on_ports_that_nobody_declares_and_bytes_pass() {
    let issuer = Issuer::new("https://issuer.test");
    let forged = format!("Bearer {}", Issuer::new(&issuer.name).token(json!({})));
    let good = format!("Bearer {}", issuer.token(json!({})));
    let bed = Bed::start(&policies(&issuer)).await;
    let problems = bed.server.mesh.get("/api/v1/problems").await.to_string();
    assert_eq!(problems.matches("nobody declares the protocol of port").count(), 6, "{problems}");

    for address in [bed.by_mesh[0], bed.direct[0]] {
        for plan in [get(address, "/echo"), get(address, "/echo").http2()] {
            let spoofed = bed.ask(&plan.clone().header("x-user", "root")).await;
            assert_eq!((spoofed.status, user(&spoofed)), (200, Value::Null), "{plan:?}: {spoofed:?}");
            let refused = bed.ask(&plan.clone().header("authorization", &forged)).await;
            assert_eq!(refused.status, 401, "{plan:?}: {refused:?}");
            let let_in = bed.ask(&plan.clone().header("authorization", &good)).await;
            assert_eq!((let_in.status, user(&let_in)), (200, json!("alice")), "{plan:?}: {let_in:?}");
        }
        for (lines, wanted) in [
            (format!("host: web\r\nauthorization: {forged}\r\n"), 401),
            (format!("host: web\r\nauthorization: {good}\r\n"), 200),
            ("host: web\r\n".to_owned(), 200),
        ] {
            let (status, answer) = by_http_1_0(address, "/echo", &lines).await;
            assert_eq!(status, wanted, "{address} {lines}: {answer}");
        }
        let mut statuses = Vec::new();
        for _ in 0..2 {
            statuses.push(bed.ask(&get(address, "/limited")).await.status);
        }
        statuses.push(by_http_1_0(address, "/limited", "host: web\r\n").await.0);
        statuses.push(bed.ask(&get(address, "/limited").http2()).await.status);
        assert_eq!(statuses, [200, 200, 429, 429], "{address}");
    }
    // It need not say for which host it is.
    let (status, answer) = by_http_1_0(bed.direct[0], "/echo", "").await;
    assert!(status == 200 && answer.contains("\"localhost\""), "{answer}");

    for address in [bed.by_mesh[1], bed.direct[1]] {
        assert!(is_answered(1, address).await, "bytes for {address}");
    }
    let mut stream = TcpStream::connect(bed.direct[2]).await.unwrap();
    let mut heard = [0; GREETING.len()];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut heard)).await.unwrap().unwrap();
    assert_eq!(heard, GREETING.as_bytes());

    // Nothing but mutual TLS is taken any more, so that is what carried the rest.
    let strict = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
                  metadata: {name: strict, namespace: default}\nspec: {mtls: {mode: STRICT}}\n";
    bed.server.mesh.write("strict.yaml", strict);
    wait::until("bytes in the clear to be refused", PATIENCE, async || {
        if is_answered(1, bed.direct[1]).await { Err("answered".to_owned()) } else { Ok(()) }
    })
    .await
    .unwrap();
    assert!(is_answered(1, bed.by_mesh[1]).await, "bytes by mutual TLS");
    let refused = bed.ask(&get(bed.by_mesh[0], "/echo").header("authorization", &forged)).await;
    assert_eq!(refused.status, 401, "{refused:?}");
}
