//! AuthorizationPolicy, carried out by a real Envoy in front of a workload.
//!
//! The workload has an address of its own, on which its sidecar binds its ports; the apps listen on 127.0.0.1. Requests
//! come from chosen addresses.

mod fields;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};
use testkit::authorizer::Authorizer;
use testkit::backend::Backend;
use testkit::envoy::{Envoy, Setup};
use testkit::tcp_backend::TcpBackend;
use testkit::{ports, wait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use crate::identity::Guarded;
use crate::mesh::{Mesh, PATIENCE, Variant};

/// A workload with a port for HTTP and one for TCP, behind its sidecar.
struct Workload {
    web: SocketAddr,
    database: SocketAddr,
    sidecar: Envoy,
    mesh: Mesh,
    _apps: (Backend, TcpBackend),
}

impl Workload {
    /// `policies` become a file when the ports are known.
    async fn start(more: &str, policies: impl FnOnce(u16, u16) -> String) -> Workload {
        let (web, database) = (ports::local().unwrap(), ports::local().unwrap());
        let apps = (Backend::start("web", web).unwrap(), TcpBackend::start("database", database).unwrap());
        let pod = ports::pod(web.port()).unwrap().ip();
        let objects = objects(pod, web, database);
        let policies = policies(web.port(), database.port());
        let files = [("objects.yaml", &*objects), ("more.yaml", more), ("policies.yaml", &*policies)];
        let mesh = Mesh::start(&files).await;
        let arguments = ["--pod", "web", "--ip", &pod.to_string(), "--interception", "none", "--label", "app=web"];
        let sidecar = mesh.envoy(Variant::Delta, &arguments).await;
        mesh.synced(1).await;
        let (web, database) = ((pod, web.port()).into(), (pod, database.port()).into());
        Workload { web, database, sidecar, mesh, _apps: apps }
    }
}

/// The Service and the Pod of the workload.
fn objects(pod: IpAddr, web: SocketAddr, database: SocketAddr) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: default}}\n\
         spec:\n  selector: {{app: web}}\n  ports:\n    \
         - {{name: http, port: 80, targetPort: {web}}}\n    - {{name: tcp, port: 81, targetPort: {database}}}\n\
         ---\napiVersion: v1\nkind: Pod\nmetadata: {{name: web, namespace: default, labels: {{app: web}}}}\n\
         spec: {{containers: [{{name: app}}]}}\nstatus: {{podIP: {pod}, phase: Running}}\n",
        web = web.port(),
        database = database.port(),
    )
}

/// A request as it goes over the wire.
#[derive(Clone, Debug)]
pub struct Sent {
    from: Ipv4Addr,
    method: &'static str,
    host: &'static str,
    path: String,
    headers: &'static [(&'static str, &'static str)],
}

pub fn get(path: impl Into<String>) -> Sent {
    Sent { from: Ipv4Addr::LOCALHOST, method: "GET", host: "web.example", path: path.into(), headers: &[] }
}

impl Sent {
    pub fn method(self, method: &'static str) -> Self {
        Self { method, ..self }
    }

    pub fn host(self, host: &'static str) -> Self {
        Self { host, ..self }
    }

    pub fn from(self, last: u8) -> Self {
        Self { from: Ipv4Addr::new(127, 0, 0, last), ..self }
    }

    pub fn headers(self, headers: &'static [(&'static str, &'static str)]) -> Self {
        Self { headers, ..self }
    }

    /// Status, headers and body of the answer, as text.
    pub async fn answer(&self, address: SocketAddr) -> io::Result<(u16, String)> {
        let Sent { method, host, path, .. } = self;
        let mut text =
            format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: 0\r\n");
        for (name, value) in self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        let answer = exchange(self.from, address, format!("{text}\r\n").as_bytes()).await?;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        status.map(|status| (status, answer.clone())).ok_or_else(|| io::Error::other(answer))
    }
}

/// Whether an answer is there with all of its body, as far as its length is said. Envoy closes a connection a second after
/// answers of its own.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    length.is_some_and(|length: usize| body.len() >= length)
}

/// Sends bytes from an address of this machine, and returns the answer, or all that comes back until the other side closes.
pub async fn exchange(from: Ipv4Addr, to: SocketAddr, bytes: &[u8]) -> io::Result<String> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    let talk = async {
        let mut stream = socket.connect(to).await?;
        stream.write_all(bytes).await?;
        let mut answer = Vec::new();
        while !is_whole(&answer) {
            match stream.read_buf(&mut answer).await {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break,
                Err(error) => return Err(error),
            }
        }
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    tokio::time::timeout(PATIENCE, talk).await.map_err(io::Error::other)?
}

/// Whether a TCP service answers a line.
pub async fn is_answered(from: u8, to: SocketAddr) -> bool {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::new(127, 0, 0, from), 0).into()).unwrap();
    let talk = async {
        let mut stream = socket.connect(to).await?;
        stream.write_all(b"hello\n").await?;
        let mut answer = [0; 8];
        stream.read_exact(&mut answer).await.map(|_| answer == *b"database")
    };
    let answer: io::Result<bool> = tokio::time::timeout(PATIENCE, talk).await.unwrap();
    answer.unwrap_or(false)
}

/// Waits for the first answer with this status: the policies are there.
async fn until(address: SocketAddr, sent: &Sent, status: u16) {
    wait::until(&format!("{status} to {sent:?}"), PATIENCE, async || match sent.answer(address).await {
        Ok((found, _)) if found == status => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await
    .unwrap();
}

/// Asserts the status of every request, and tells all that are wrong.
async fn assert_statuses(address: SocketAddr, wanted: Vec<(Sent, u16)>) {
    let mut wrong = Vec::new();
    let count = wanted.len();
    for (sent, status) in wanted {
        match sent.answer(address).await {
            Ok((found, answer)) if found == status => {
                let is_denied = answer.ends_with("RBAC: access denied") || answer.contains("\r\nRBAC: access denied");
                if status == 403 && !is_denied {
                    wrong.push(format!("{sent:?}: {answer}"));
                }
            }
            other => wrong.push(format!("{sent:?}: not {status} but {other:?}")),
        }
    }
    assert!(wrong.is_empty(), "{} of {count} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

fn policy(name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: {name}, namespace: {namespace}}}\nspec:\n{spec}\n"
    )
}

/// What is let in, and what is kept out of that.
fn matrix(web: u16, database: u16) -> String {
    let allow = format!(
        "  selector: {{matchLabels: {{app: web}}}}
  rules:
    - to: [{{operation: {{methods: [GET, HEAD], paths: [/exact, /public/*, '*.html', '/users/{{*}}/orders', '/files/{{**}}']}}}}]
    - to: [{{operation: {{methods: [POST], paths: [/write]}}}}]
      when: [{{key: 'request.headers[X-Role]', values: [writer, admin-*], notValues: [admin-guest]}}]
    - from: [{{source: {{ipBlocks: [127.0.0.5, 10.0.0.0/8]}}}}]
      to: [{{operation: {{paths: [/by-address]}}}}]
    - from: [{{source: {{remoteIpBlocks: [192.0.2.0/24], notRemoteIpBlocks: [192.0.2.66]}}}}]
      to: [{{operation: {{paths: [/by-client]}}}}]
    - to: [{{operation: {{hosts: [api.example, '*.api.example'], paths: [/by-host]}}}}]
    - to: [{{operation: {{ports: ['{web}'], paths: [/by-port]}}}}]
    - to: [{{operation: {{paths: [/by-port-of-condition]}}}}]
      when: [{{key: destination.port, values: ['{web}']}}, {{key: destination.ip, values: [127.0.0.0/8]}}]
    - to: [{{operation: {{paths: [/by-other-port]}}}}]
      when: [{{key: destination.port, notValues: ['{web}']}}]
    - from: [{{source: {{principals: ['*']}}}}]
      to: [{{operation: {{paths: [/by-identity]}}}}]
    - from: [{{source: {{notNamespaces: [bank]}}}}]
      to: [{{operation: {{paths: [/by-no-identity]}}}}]
    - from: [{{source: {{requestPrincipals: ['*']}}}}]
      to: [{{operation: {{paths: [/by-token]}}}}]
    - from: [{{source: {{ipBlocks: [300.0.0.1]}}}}]
      to: [{{operation: {{paths: [/by-mistake]}}}}]
    - to: [{{operation: {{ports: ['{database}']}}}}]"
    );
    let deny = format!(
        "  action: DENY
  rules:
    - to: [{{operation: {{paths: [/public/admin*], notMethods: [HEAD], ports: ['{web}']}}}}]
    - to: [{{operation: {{hosts: [evil.example, '*.evil.example'], ports: ['{web}']}}}}]
    - from: [{{source: {{ipBlocks: [127.0.0.9]}}}}]
    - when: [{{key: 'request.headers[x-banned]', values: ['*']}}]
      to: [{{operation: {{ports: ['{web}']}}}}]
    - from: [{{source: {{notIpBlocks: [127.0.0.0/29, 127.0.0.16]}}}}]
      to: [{{operation: {{ports: ['{database}']}}}}]
    - to: [{{operation: {{paths: [/public/vault/*], notPaths: [/public/vault/lobby], ports: ['{web}']}}}}]"
    );
    let tried = "  action: DENY\n  rules: [{to: [{operation: {paths: [/public/tried]}}]}]";
    let elsewhere = "  selector: {matchLabels: {app: other}}\n  action: DENY\n  rules: [{}]";
    let marked = "  action: AUDIT\n  rules: [{}]";
    [
        policy("allow", "default", &allow),
        // One of the mesh's, without a selector.
        policy("deny", "istio-system", &deny),
        policy("tried", "default", tried)
            .replace("name: tried", "name: tried, annotations: {istio.io/dry-run: 'true'}"),
        policy("elsewhere", "default", elsewhere),
        policy("another-namespace", "bank", "  action: DENY\n  rules: [{}]"),
        policy("marked", "default", marked),
    ]
    .concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_let_in_or_refused_as_the_policies_say() {
    let workload = Workload::start("", matrix).await;
    until(workload.web, &get("/unheard-of"), 403).await;
    let wanted = vec![
        // Paths and methods.
        (get("/exact"), 200),
        (get("/exact?query=1"), 200),
        (get("/exact/"), 403),
        (get("/Exact"), 403),
        (get("/exact").method("HEAD"), 200),
        (get("/exact").method("POST"), 403),
        (get("/public/"), 200),
        (get("/public/a/b"), 200),
        (get("/public"), 403),
        (get("/anything.html"), 200),
        (get("/anything.html?x=.css"), 200),
        (get("/anything.htm"), 403),
        (get("/users/7/orders"), 200),
        (get("/users/a=b/orders"), 200),
        (get("/users//orders"), 403),
        (get("/users/7/8/orders"), 403),
        (get("/files/a/b/c"), 200),
        (get("/file"), 403),
        // Paths that are not what they seem.
        (get("/elsewhere/../exact"), 200),
        (get("/public/../secret"), 403),
        (get("/public/./admin"), 403),
        // What is denied of what is allowed.
        (get("/public/admin"), 403),
        (get("/public/admin/users"), 403),
        (get("/public/admin").method("HEAD"), 200),
        (get("/public/vault/gold"), 403),
        (get("/public/vault/lobby"), 200),
        (get("/exact").headers(&[("x-banned", "yes")]), 403),
        // Hosts, in any case.
        (get("/exact").host("evil.example"), 403),
        (get("/exact").host("EVIL.example"), 403),
        (get("/exact").host("very.evil.example"), 403),
        (get("/exact").host("notevil.example"), 200),
        (get("/by-host").host("api.example"), 200),
        (get("/by-host").host("Shop.API.example"), 200),
        (get("/by-host").host("web.example"), 403),
        // Headers.
        (get("/write").method("POST").headers(&[("x-role", "writer")]), 200),
        (get("/write").method("POST").headers(&[("X-Role", "admin-1")]), 200),
        (get("/write").method("POST").headers(&[("x-role", "admin-guest")]), 403),
        (get("/write").method("POST").headers(&[("x-role", "reader")]), 403),
        (get("/write").method("POST"), 403),
        (get("/write").method("PUT").headers(&[("x-role", "writer")]), 403),
        // Addresses, of the peer and of the client.
        (get("/by-address"), 403),
        (get("/by-address").from(5), 200),
        (get("/by-address").from(6), 403),
        (get("/exact").from(9), 403),
        (get("/by-client").headers(&[("x-forwarded-for", "192.0.2.7")]), 200),
        (get("/by-client").headers(&[("x-forwarded-for", "192.0.2.66")]), 403),
        (get("/by-client").headers(&[("x-forwarded-for", "192.0.2.7, 203.0.113.1")]), 403),
        (get("/by-client"), 403),
        // Ports.
        (get("/by-port"), 200),
        (get("/by-port-of-condition"), 200),
        (get("/by-other-port"), 403),
        // Who has not proved who he is, and what makes no sense.
        (get("/by-identity"), 403),
        (get("/by-no-identity"), 200),
        (get("/by-token"), 403),
        (get("/by-mistake"), 403),
        // A dry run refuses nothing.
        (get("/public/tried"), 200),
    ];
    assert!(wanted.len() >= 40);
    assert_statuses(workload.web, wanted).await;

    for (from, wanted) in [(1, true), (7, true), (8, false), (16, true), (9, false)] {
        assert_eq!(is_answered(from, workload.database).await, wanted, "from 127.0.0.{from}");
    }

    let stats = workload.sidecar.stats().await.unwrap();
    let is_tried = |name: &str| name.starts_with("http.") && name.ends_with("istio_dry_run_deny_.shadow_denied");
    let tried: u64 = stats.iter().filter(|(name, _)| is_tried(name)).map(|stat| stat.1).sum();
    assert_eq!(tried, 1, "the dry run has counted");

    // What changes takes effect, and what is gone no longer counts.
    workload.mesh.write("policies.yaml", &policy("nothing", "default", "  {}"));
    until(workload.web, &get("/exact"), 403).await;
    wait::until("connections to be refused", PATIENCE, async || {
        if is_answered(1, workload.database).await { Err("answered".to_owned()) } else { Ok(()) }
    })
    .await
    .unwrap();
    workload.mesh.remove("policies.yaml");
    until(workload.web, &get("/whatever"), 200).await;
}

/// Providers, their service, and a service that nobody is behind.
fn providers(authorizer: SocketAddr, nobody: SocketAddr) -> String {
    let entry = |name: &str, address: SocketAddr, ports: &[(&str, u16)]| {
        let ports: Vec<String> = ports
            .iter()
            .map(|(protocol, number)| {
                let port = address.port();
                format!("{{number: {number}, name: {protocol}, protocol: {protocol}, targetPort: {port}}}")
            })
            .collect();
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}, namespace: default}}\n\
             spec:\n  hosts: [{name}.example]\n  resolution: STATIC\n  ports: [{}]\n  \
             endpoints: [{{address: {}}}]\n",
            ports.join(", "),
            address.ip()
        )
    };
    let port = || ports::local().unwrap().port();
    let (http, grpc, down) = (port(), port(), port());
    [
        entry("authz", authorizer, &[("HTTP", http), ("GRPC", grpc)]),
        entry("down", nobody, &[("HTTP", down)]),
        format!(
            "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: |\n    \
             extensionProviders:\n    \
             - name: by-http\n      envoyExtAuthzHttp:\n        service: authz.example\n        port: {http}\n        \
             includeRequestHeadersInCheck: [x-user]\n        headersToUpstreamOnAllow: [x-decided-by]\n        \
             headersToDownstreamOnDeny: [x-reason]\n    \
             - name: by-grpc\n      envoyExtAuthzGrpc: {{service: authz.example, port: {grpc}, timeout: 5s}}\n    \
             - name: down\n      envoyExtAuthzHttp: {{service: down.example, port: {down}, statusOnError: \"503\"}}\n    \
             - name: down-and-open\n      envoyExtAuthzHttp: {{service: down.example, port: {down}, failOpen: true}}\n"
        ),
    ]
    .concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn providers_are_asked_over_http_and_grpc_and_fail_closed() {
    let authorizer = ports::local().unwrap();
    let nobody = ports::local().unwrap();
    let custom = |name: &str, provider: &str, operation: &str| {
        let rules = format!("[{{to: [{{operation: {{{operation}}}}}]}}]");
        let spec = format!("  action: CUSTOM\n  provider: {{name: {provider}}}\n  rules: {rules}");
        policy(name, "default", &spec)
    };
    let more = providers(authorizer, nobody);
    let workload = Workload::start(&more, |web, database| {
        [
            custom("web", "by-http", &format!("paths: [/http*], ports: ['{web}']")),
            custom("web-too", "by-grpc", &format!("paths: [/grpc*], ports: ['{web}']")),
            custom("database", "by-grpc", &format!("ports: ['{database}']")),
            custom("down", "down", &format!("paths: [/down], ports: ['{web}']")),
            custom("open", "down-and-open", &format!("paths: [/open], ports: ['{web}']")),
            custom("nobody", "nobody", &format!("paths: [/nobody], ports: ['{web}']")),
        ]
        .concat()
    })
    .await;
    let service = Authorizer::start(authorizer, []).unwrap();
    until(workload.web, &get("/nobody"), 403).await;
    until(workload.web, &get("/http").headers(&[("x-user", "welcome")]), 200).await;

    const WELCOME: &[(&str, &str)] = &[("x-user", "welcome")];
    const STRANGER: &[(&str, &str)] = &[("x-user", "stranger")];
    let asked = service.asked();
    for (sent, status) in [
        (get("/free"), 200),
        (get("/free").headers(STRANGER), 200),
        (get("/down"), 503),
        (get("/open"), 200),
        (get("/nobody").headers(WELCOME), 403),
    ] {
        let (found, answer) = sent.answer(workload.web).await.unwrap();
        assert_eq!(found, status, "{sent:?}: {answer}");
    }
    assert_eq!(service.asked(), asked, "it was not asked about any of those");
    for path in ["/http", "/grpc"] {
        let (status, answer) = get(format!("{path}/echo")).headers(WELCOME).answer(workload.web).await.unwrap();
        assert_eq!(status, 200, "{path}: {answer}");
        assert!(answer.contains(r#""x-decided-by":"authorizer""#), "{answer}");
        for headers in [STRANGER, &[]] {
            let (status, answer) = get(path).headers(headers).answer(workload.web).await.unwrap();
            assert_eq!(status, 401, "{path}: {answer}");
            assert!(answer.contains("x-reason: authorizer") && answer.contains("not welcome"), "{answer}");
        }
    }
    assert!(service.asked() >= asked + 6);
    // Connections, by gRPC only.
    let asked = service.asked();
    assert!(!is_answered(1, workload.database).await);
    assert_eq!(service.asked(), asked + 1);

    let problems = workload.mesh.get("/api/v1/problems").await.to_string();
    assert!(problems.contains("the mesh configuration has no provider \\\"nobody\\\""), "{problems}");
    drop(service);
    until(workload.web, &get("/grpc").headers(WELCOME), 403).await;
}

/// A client of the mesh: it speaks mutual TLS as sidecars do, with the certificate of an identity.
struct Peer(Arc<ClientConfig>);

/// Whom the client talks to does not matter here.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

impl Peer {
    async fn new(server: &Guarded, identity: &str) -> Peer {
        let (chain, key) = server.certificate(identity).await;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(chain).unwrap().collect();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
            .with_client_auth_cert(chain.unwrap(), PrivateKeyDer::from_pem_file(key).unwrap())
            .unwrap();
        config.alpn_protocols = vec![b"istio".to_vec()];
        Peer(Arc::new(config))
    }

    /// What comes back for these bytes, until the other side closes or `enough` has come.
    async fn exchange(&self, to: SocketAddr, bytes: Vec<u8>, enough: usize) -> String {
        self.exchange_by_name("web", to, bytes, enough).await
    }

    /// The same with this name of the server (SNI).
    async fn exchange_by_name(&self, name: &'static str, to: SocketAddr, bytes: Vec<u8>, enough: usize) -> String {
        let config = self.0.clone();
        let talk = move || {
            let name = ServerName::try_from(name).unwrap();
            let mut connection = ClientConnection::new(config, name).unwrap();
            let mut socket = std::net::TcpStream::connect(to).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut stream = rustls::Stream::new(&mut connection, &mut socket);
            let mut answer = Vec::new();
            let mut buffer = [0; 4096];
            if std::io::Write::write_all(&mut stream, &bytes).is_ok() {
                while answer.len() < enough && !is_whole(&answer) {
                    match std::io::Read::read(&mut stream, &mut buffer) {
                        Ok(0) | Err(_) => break,
                        Ok(count) => answer.extend(&buffer[..count]),
                    }
                }
            }
            String::from_utf8_lossy(&answer).into_owned()
        };
        tokio::task::spawn_blocking(talk).await.unwrap()
    }

    async fn status(&self, to: SocketAddr, path: &str) -> String {
        self.status_by_name("web", to, path).await
    }

    async fn status_by_name(&self, name: &'static str, to: SocketAddr, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n");
        let answer = self.exchange_by_name(name, to, request.into_bytes(), usize::MAX).await;
        answer.split(' ').nth(1).unwrap_or(&answer).to_owned()
    }
}

/// Who may do what, by the identity that the certificate proves.
fn by_identity(web: u16, database: u16) -> String {
    let sources = [
        ("principal", "principals: [cluster.local/ns/bank/sa/teller]"),
        ("suffix", "principals: ['*/sa/teller']"),
        ("prefix", "principals: [cluster.local/ns/bank/*]"),
        ("any", "principals: ['*']"),
        ("alias", "principals: [old.example/ns/bank/sa/teller]"),
        ("not-principal", "notPrincipals: [cluster.local/ns/bank/sa/teller]"),
        ("namespace", "namespaces: [bank]"),
        ("namespaces", "namespaces: ['ba*']"),
        ("not-namespace", "notNamespaces: [bank]"),
        ("account", "serviceAccounts: [bank/teller, web]"),
        ("not-account", "notServiceAccounts: [bank/teller]"),
        ("domain", "trustDomains: [cluster.local]"),
        ("other-domain", "trustDomains: [other.example]"),
    ];
    let mut rules = String::new();
    for (path, source) in sources {
        rules += &format!(
            "    - {{from: [{{source: {{{source}}}}}], to: [{{operation: {{paths: [/{path}], ports: ['{web}']}}}}]}}\n"
        );
    }
    rules += &format!(
        "    - to: [{{operation: {{ports: ['{database}']}}}}]\n      \
         when: [{{key: source.principal, values: [cluster.local/ns/bank/*]}}, {{key: source.namespace, values: [bank]}}]\n"
    );
    policy("by-identity", "default", &format!("  rules:\n{rules}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_peer_may_do_follows_from_the_identity_that_it_proves() {
    let (web, database) = (ports::local().unwrap(), ports::local().unwrap());
    let _apps = (Backend::start("web", web).unwrap(), TcpBackend::start("database", database).unwrap());
    let pod = ports::pod(web.port()).unwrap().ip();
    let (objects, policies) = (objects(pod, web, database), by_identity(web.port(), database.port()));
    let files = [("objects.yaml", &*objects), ("policies.yaml", &*policies)];
    let server = Guarded::start(&files, &["--trust-domain-alias", "old.example"]).await;
    let (token, ip) = (server.token("default/web"), pod.to_string());
    let proof = ["--token-file", &*token, "--service-account", "web", "--label", "app=web", "--ip", &ip];
    let _sidecar = Setup::new(server.bootstrap("web", &proof)).start().await.unwrap();
    let (to_web, to_database) = ((pod, web.port()).into(), (pod, database.port()).into());
    until(to_web, &get("/unheard-of"), 403).await;
    let teller = Peer::new(&server, "bank/teller").await;
    wait::until("mutual TLS", PATIENCE, async || {
        let status = teller.status(to_web, "/any").await;
        if status == "200" { Ok(()) } else { Err(status) }
    })
    .await
    .unwrap();
    let auditor = Peer::new(&server, "bank/auditor").await;
    let own = Peer::new(&server, "default/web").await;
    // For the teller, the auditor, the workload's own account, and in the clear.
    for (path, wanted) in [
        ("/principal", ["200", "403", "403", "403"]),
        ("/suffix", ["200", "403", "403", "403"]),
        ("/prefix", ["200", "200", "403", "403"]),
        ("/any", ["200", "200", "200", "403"]),
        ("/alias", ["200", "403", "403", "403"]),
        ("/not-principal", ["403", "200", "200", "200"]),
        ("/namespace", ["200", "200", "403", "403"]),
        ("/namespaces", ["200", "200", "403", "403"]),
        ("/not-namespace", ["403", "403", "200", "200"]),
        ("/account", ["200", "403", "200", "403"]),
        ("/not-account", ["403", "200", "200", "200"]),
        ("/domain", ["200", "200", "200", "403"]),
        ("/other-domain", ["403", "403", "403", "403"]),
    ] {
        let in_the_clear = get(path).answer(to_web).await.unwrap().0.to_string();
        let found = [
            teller.status(to_web, path).await,
            auditor.status(to_web, path).await,
            own.status(to_web, path).await,
            in_the_clear,
        ];
        assert_eq!(found, wanted, "{path}");
    }
    for (peer, is_let_in) in [(&teller, true), (&auditor, true), (&own, false)] {
        let answer = peer.exchange(to_database, b"hello\n".to_vec(), 8).await;
        assert_eq!(answer.starts_with("database"), is_let_in, "{answer}");
    }
    assert!(!is_answered(1, to_database).await, "in the clear");
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_are_normalized_as_the_mesh_says_before_policies_see_them() {
    let mesh = |word: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\n\
             data:\n  mesh: |\n    pathNormalization: {{normalization: {word}}}\n"
        )
    };
    let workload = Workload::start(&mesh("BASE"), |web, _| {
        let rule = format!("[{{to: [{{operation: {{paths: [/admin, /admin/*], ports: ['{web}']}}}}]}}]");
        policy("admin", "default", &format!("  action: DENY\n  rules: {rule}"))
    })
    .await;
    until(workload.web, &get("/admin"), 403).await;
    for (word, begins, wanted) in [
        ("BASE", "/x/../admin", [403, 200, 200]),
        ("MERGE_SLASHES", "//admin", [403, 403, 200]),
        ("DECODE_AND_MERGE_SLASHES", "/%2Fadmin", [403, 403, 403]),
    ] {
        workload.mesh.write("more.yaml", &mesh(word));
        until(workload.web, &get(begins), 403).await;
        let wanted = ["/x/../admin", "//admin", "/%2Fadmin"].map(get).into_iter().zip(wanted).collect();
        assert_statuses(workload.web, wanted).await;
    }
    workload.mesh.write("more.yaml", &mesh("NONE"));
    until(workload.web, &get("/x/../admin"), 200).await;
    until(workload.web, &get("/admin"), 403).await;
}
