//! TLS, and who may connect.

use std::path::Path;
use std::time::Duration;

use identity::{KeyType, SpiffeId, Uses};
use proto::auth::{IstioCertificateRequest, IstioCertificateResponse};
use proto::pb::envoy::extensions::transport_sockets::tls::v3::{Secret, secret};
use rcgen::{CertificateParams, KeyPair, SanType};
use server::{AuthoritySource, CertificateSource, Config, Listen, StateDirectory, TlsSettings};
use tempfile::TempDir;
use testkit::wire::{Credentials, ResourceType, Wire, WireError, node, unpack};
use tonic::{Code, Status};

use crate::fixture::{NODE, REVIEWS, Running, SOON, config, eventually, serving};

const CREATE: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";
pub const OTHER_NODE: &str = "sidecar~10.9.0.2~client-1.bank~bank.svc.cluster.local";

pub fn settings(state: &Path) -> TlsSettings {
    TlsSettings {
        listen: vec![Listen::Tcp(([127, 0, 0, 1], 0).into())],
        users: Default::default(),
        state_directory: state.to_owned(),
        trust_domain: "cluster.local".parse().unwrap(),
        trust_domain_aliases: Vec::new(),
        authority: AuthoritySource::Own,
        certificate: CertificateSource::Signed { names: vec!["istiod.istio-system.svc".to_owned()] },
        key_type: KeyType::EcdsaP256,
        workload_ttl: Duration::from_secs(3600),
        rotation_settle: Duration::ZERO,
        service_accounts: None,
        token_review: None,
    }
}

/// A server with TLS, and its state directory.
pub struct Guarded {
    pub running: Running,
    pub state: TempDir,
}

impl Guarded {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut TlsSettings)) -> Self {
        let state = TempDir::new().unwrap();
        let mut settings = settings(state.path());
        change(&mut settings);
        let running = serving(Config { tls: Some(settings), ..config() }, REVIEWS).await;
        Self { running, state }
    }

    pub fn address(&self) -> std::net::SocketAddr {
        match &self.running.addresses.xds_tls[0] {
            Listen::Tcp(address) => *address,
            Listen::Unix(_) => unreachable!("TLS is served over TCP"),
        }
    }

    pub fn credentials(&self) -> Credentials {
        let roots = std::fs::read_to_string(self.state.path().join("ca/root-cert.pem")).unwrap();
        Credentials { roots, name: "istiod.istio-system.svc".to_owned(), certificate: None }
    }

    pub async fn wire(&self) -> Wire {
        Wire::connect_tls(self.address(), &self.credentials()).await.unwrap()
    }

    pub async fn wire_with(&self, certificate: (String, String)) -> anyhow::Result<Wire> {
        Wire::connect_tls(self.address(), &Credentials { certificate: Some(certificate), ..self.credentials() }).await
    }

    pub fn token(&self, identity: &str, uses: Uses) -> String {
        let state = StateDirectory::open(self.state.path()).unwrap();
        state.create_token(&identity.parse().unwrap(), uses, Duration::from_secs(60)).unwrap().reveal()
    }

    /// A server with the same root for another trust domain.
    pub async fn elsewhere(&self, aliases: &[&str]) -> Self {
        let state = TempDir::new().unwrap();
        std::fs::create_dir(state.path().join("ca")).unwrap();
        for file in ["ca/root-cert.pem", "ca/root-key.pem"] {
            std::fs::copy(self.state.path().join(file), state.path().join(file)).unwrap();
        }
        let mut settings = settings(state.path());
        settings.trust_domain = "elsewhere".parse().unwrap();
        settings.trust_domain_aliases = aliases.iter().map(|alias| alias.parse().unwrap()).collect();
        let running = serving(Config { tls: Some(settings), ..config() }, REVIEWS).await;
        Self { running, state }
    }

    /// The same after a restart.
    pub async fn restarted(self) -> Self {
        let Self { running, state } = self;
        running.stop().await.unwrap();
        let running = serving(Config { tls: Some(settings(state.path())), ..config() }, REVIEWS).await;
        Self { running, state }
    }

    /// A certificate and its key, by a join token.
    pub async fn certificate(&self, identity: &str) -> (String, String) {
        let wire = self.wire().await.with_token(&self.token(identity, Uses::Once)).unwrap();
        let key = KeyPair::generate().unwrap();
        let chain = create(&wire, &request(&key, "spiffe://cluster.local/ns/kube-system/sa/admin")).await.unwrap();
        (chain[..chain.len() - 1].concat(), key.serialize_pem())
    }
}

pub fn request(key: &KeyPair, name: &str) -> String {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(name.try_into().unwrap())];
    params.serialize_request(key).unwrap().pem().unwrap()
}

pub async fn create(wire: &Wire, csr: &str) -> Result<Vec<String>, Status> {
    let request = IstioCertificateRequest { csr: csr.to_owned(), ..IstioCertificateRequest::default() };
    wire.call::<_, IstioCertificateResponse>(CREATE, request).await.map(|answer| answer.cert_chain)
}

/// How a stream of this node ends, or its first clusters.
pub async fn clusters(wire: &Wire, id: &str) -> Result<usize, (Code, String)> {
    let mut stream = wire.sotw(node(id, "client"));
    stream.subscribe(ResourceType::Cluster, &[]).await;
    match stream.next(SOON).await {
        Ok(response) => Ok(response.resources.len()),
        Err(WireError::Refused(status)) => Err((status.code(), status.message().to_owned())),
        Err(error) => panic!("{error}"),
    }
}

pub fn id_of(chain: &str) -> SpiffeId {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    identity::ClientCertificate::read(&CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()).unwrap().id
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_token_leads_to_a_certificate_and_that_to_configuration() {
    let server = Guarded::start().await;
    let (chain, key) = server.certificate("default/client").await;
    assert_eq!(id_of(&chain).to_string(), "spiffe://cluster.local/ns/default/sa/client", "never what was asked for");
    let wire = server.wire_with((chain, key)).await.unwrap();
    assert!(clusters(&wire, NODE).await.unwrap() > 0);
    let audit = std::fs::read_to_string(server.state.path().join("audit/issued.jsonl")).unwrap();
    let entry: identity::Issuance = serde_json::from_str(audit.lines().next().unwrap()).unwrap();
    assert_eq!((&*entry.id, &*entry.proof), ("spiffe://cluster.local/ns/default/sa/client", "join-token"));
    let signed = "pointsman_certificates_signed{reason=\"request\"}";
    assert_eq!(server.running.metric(signed).await, Some(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_anything_who_proves_nothing() {
    let server = Guarded::start().await;
    let wire = server.wire().await;
    let (code, message) = clusters(&wire, NODE).await.unwrap_err();
    assert_eq!(code, Code::Unauthenticated);
    assert!(message.contains("bearer token"), "{message}");
    let key = KeyPair::generate().unwrap();
    assert_eq!(create(&wire, &request(&key, "spiffe://a/ns/b/sa/c")).await.unwrap_err().code(), Code::Unauthenticated);
    for token in ["junk", "pmj_0000000000000000_AAAA", "eyJhbGciOiJub25lIn0.e30."] {
        let (code, message) = clusters(&wire.with_token(token).unwrap(), NODE).await.unwrap_err();
        assert_eq!((code, &*message), (Code::Unauthenticated, "the bearer token proves nothing here"), "{token}");
    }
    // What others may ask without TLS is not there for strangers.
    for method in
        ["/pointsman.admin.v1.Admin/ListNodes", "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats"]
    {
        let refused = wire.call::<_, IstioCertificateResponse>(method, IstioCertificateRequest::default()).await;
        assert_eq!(refused.unwrap_err().code(), Code::Unauthenticated, "{method}");
    }
    let token = server.token("default/client", Uses::Many);
    let admin = wire.with_token(&token).unwrap();
    let refused = admin
        .call::<_, IstioCertificateResponse>("/pointsman.admin.v1.Admin/ListNodes", IstioCertificateRequest::default());
    assert_eq!(refused.await.unwrap_err().code(), Code::Unimplemented);
    // Whether the server is well may be asked by everybody.
    let health =
        wire.call::<_, IstioCertificateResponse>("/grpc.health.v1.Health/Check", IstioCertificateRequest::default());
    assert_ne!(health.await.err().map(|status| status.code()), Some(Code::Unauthenticated));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_not_who_it_says_is_refused_and_nobody_hears_of_it() {
    let server = Guarded::start().await;
    let wire = server.wire().await.with_token(&server.token("default/client", Uses::Many)).unwrap();
    assert!(clusters(&wire, NODE).await.unwrap() > 0);
    let (code, message) = clusters(&wire, OTHER_NODE).await.unwrap_err();
    assert_eq!(code, Code::PermissionDenied);
    assert!(!message.contains("default") && !message.contains("bank"), "the reason is for the log: {message}");
    let nodes: server::view::Nodes = server.running.json("/api/v1/nodes").await;
    assert!(nodes.nodes.iter().all(|node| node.id != OTHER_NODE), "{nodes:#?}");
    let certificate = server.certificate("bank/vault").await;
    let wire = server.wire_with(certificate).await.unwrap();
    assert!(clusters(&wire, OTHER_NODE).await.unwrap() > 0);
    assert_eq!(clusters(&wire, NODE).await.unwrap_err().0, Code::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_used_up_or_revoked_lets_nobody_in() {
    let server = Guarded::start().await;
    let once = server.wire().await.with_token(&server.token("default/client", Uses::Once)).unwrap();
    assert!(clusters(&once, NODE).await.is_ok());
    assert_eq!(clusters(&once, NODE).await.unwrap_err().0, Code::Unauthenticated);
    let token = server.token("default/client", Uses::Many);
    let many = server.wire().await.with_token(&token).unwrap();
    assert!(clusters(&many, NODE).await.is_ok());
    let state = StateDirectory::open(server.state.path()).unwrap();
    let id = state.list_tokens().unwrap()[0].id.clone();
    assert!(state.revoke_token(&id).unwrap());
    assert_eq!(clusters(&many, NODE).await.unwrap_err().0, Code::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_strangers_end_in_the_handshake_or_at_the_first_call() {
    let (server, other) = (Guarded::start().await, Guarded::start().await);
    // By another authority.
    let foreign = other.certificate("default/client").await;
    let refused = match server.wire_with(foreign).await {
        // With TLS 1.3 a client learns of it with what it reads first.
        Ok(wire) => clusters(&wire, NODE).await.is_err(),
        Err(_) => true,
    };
    assert!(refused);
    // By the same root, for another trust domain.
    let elsewhere = server.elsewhere(&[]).await;
    let wire = elsewhere.wire_with(server.certificate("default/client").await).await.unwrap();
    let (code, message) = clusters(&wire, NODE).await.unwrap_err();
    assert_eq!(code, Code::Unauthenticated);
    assert!(message.contains("trust domain"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_in_an_alias_stands_for_the_same_workload_of_the_trust_domain() {
    let server = Guarded::start().await;
    let moved = server.elsewhere(&["other", "cluster.local"]).await;
    let wire = moved.wire_with(server.certificate("default/client").await).await.unwrap();
    assert!(clusters(&wire, NODE).await.unwrap() > 0);
    assert_eq!(clusters(&wire, OTHER_NODE).await.unwrap_err().0, Code::PermissionDenied);
    let chain =
        create(&wire, &request(&KeyPair::generate().unwrap(), "spiffe://cluster.local/ns/a/sa/b")).await.unwrap();
    assert_eq!(id_of(&chain[0]).to_string(), "spiffe://elsewhere/ns/default/sa/client");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_has_expired_lets_nobody_in() {
    let server = Guarded::start_with(|settings| settings.workload_ttl = Duration::from_secs(6)).await;
    let certificate = server.certificate("default/client").await;
    let wire = server.wire_with(certificate.clone()).await.unwrap();
    assert!(clusters(&wire, NODE).await.is_ok());
    let ask = || async {
        match server.wire_with(certificate.clone()).await {
            Ok(wire) => clusters(&wire, NODE).await.is_err(),
            Err(_) => true,
        }
    };
    assert!(eventually(ask, |refused| *refused).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_signed_is_refused_with_the_right_status() {
    let server = Guarded::start().await;
    let wire = server.wire().await.with_token(&server.token("default/client", Uses::Many)).unwrap();
    for csr in ["", "junk", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"] {
        assert_eq!(create(&wire, csr).await.unwrap_err().code(), Code::InvalidArgument);
    }
    let key = KeyPair::generate().unwrap();
    let metadata = proto::pb::google::protobuf::Struct {
        fields: [("ImpersonatedIdentity".to_owned(), Default::default())].into(),
    };
    let csr = request(&key, "spiffe://cluster.local/ns/default/sa/client");
    let asked = IstioCertificateRequest { csr: csr.clone(), metadata: Some(metadata), ..Default::default() };
    let refused = wire.call::<_, IstioCertificateResponse>(CREATE, asked).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    // Longer than the operator allows is cut, and the root comes last.
    let asked = IstioCertificateRequest { csr, validity_duration: i64::MAX, ..Default::default() };
    let chain = wire.call::<_, IstioCertificateResponse>(CREATE, asked).await.unwrap().cert_chain;
    assert!(chain.len() >= 2);
    assert_eq!(*chain.last().unwrap(), server.credentials().roots);
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_for_whoever_proved_to_be_their_owner_and_are_replaced_in_time() {
    let server = Guarded::start_with(|settings| settings.workload_ttl = Duration::from_secs(10)).await;
    let wire = server.wire().await.with_token(&server.token("default/client", Uses::Many)).unwrap();
    let mut stream = wire.delta(node(NODE, "client"));
    stream.subscribe(ResourceType::Secret, &["default", "ROOTCA"]).await;
    let first = stream.next(SOON).await.unwrap();
    stream.ack(&first).await;
    let (chain, key) = own(&first);
    assert_eq!(id_of(&chain).to_string(), "spiffe://cluster.local/ns/default/sa/client");
    assert!(first.resources.iter().any(|resource| resource.name == "ROOTCA"));
    // It is good for what it says.
    assert!(clusters(&server.wire_with((chain, key.clone())).await.unwrap(), NODE).await.is_ok());
    let second = stream.next(SOON).await.unwrap();
    stream.ack(&second).await;
    let (next_chain, next_key) = own(&second);
    assert_eq!(id_of(&next_chain).to_string(), "spiffe://cluster.local/ns/default/sa/client");
    assert_ne!(next_key, key);
    assert_eq!(second.resources.len(), 1, "what it trusts is the same as before");
    // Nobody else is shown the key.
    let secret = key.lines().nth(1).unwrap();
    for path in [format!("/api/v1/nodes/{NODE}/config"), "/api/v1/nodes".to_owned(), "/metrics".to_owned()] {
        let (status, text) = server.running.get(&path).await;
        assert_eq!(status, 200, "{text}");
        assert!(!text.contains(secret) && !text.contains(next_key.lines().nth(1).unwrap()), "{path}");
    }
}

/// The workload's own certificate and key of a response.
pub fn own(response: &proto::pb::envoy::service::discovery::v3::DeltaDiscoveryResponse) -> (String, String) {
    use proto::pb::envoy::config::core::v3::data_source::Specifier;
    let found = response.resources.iter().find(|resource| resource.name == "default").unwrap();
    let secret = unpack::<Secret>(found.resource.iter()).unwrap().remove(0);
    let Some(secret::Type::TlsCertificate(certificate)) = secret.r#type else { panic!("it is no certificate") };
    let text = |source: Option<proto::pb::envoy::config::core::v3::DataSource>| match source.unwrap().specifier {
        Some(Specifier::InlineBytes(bytes)) => String::from_utf8(bytes).unwrap(),
        other => panic!("{other:?}"),
    };
    (text(certificate.certificate_chain), text(certificate.private_key))
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tls_there_are_no_secrets() {
    let server = Guarded::start().await;
    let wire = server.running.wire().await;
    let mut stream = wire.delta(node(NODE, "client"));
    stream.subscribe(ResourceType::Secret, &["default", "ROOTCA"]).await;
    let answer = stream.next(SOON).await.unwrap();
    assert_eq!(answer.resources, []);
    let key = KeyPair::generate().unwrap();
    let refused = create(&wire, &request(&key, "spiffe://a/ns/b/sa/c")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_booked_is_not_signed_and_what_was_stays() {
    let server = Guarded::start().await;
    // Nothing can be written where a directory stands, whoever asks.
    std::fs::create_dir(server.state.path().join("audit/issued.jsonl")).unwrap();
    let wire = server.wire().await.with_token(&server.token("default/client", Uses::Many)).unwrap();
    let key = KeyPair::generate().unwrap();
    let refused = create(&wire, &request(&key, "spiffe://a/ns/b/sa/c")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(clusters(&wire, NODE).await.is_ok(), "configuration needs no signature");
    std::fs::remove_dir(server.state.path().join("audit/issued.jsonl")).unwrap();
    assert!(create(&wire, &request(&key, "spiffe://a/ns/b/sa/c")).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_in_files_is_replaced_without_a_restart() {
    let files = TempDir::new().unwrap();
    let paths = (files.path().join("cert.pem"), files.path().join("key.pem"));
    let write = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(&paths.1, key.serialize_pem()).unwrap();
        std::fs::write(&paths.0, certificate.pem()).unwrap();
        Credentials { roots: certificate.pem(), name: name.to_owned(), certificate: None }
    };
    let first = write("one.test");
    let source = CertificateSource::Files { certificate: paths.0.clone(), key: paths.1.clone() };
    let server = Guarded::start_with(|settings| settings.certificate = source).await;
    let token = server.token("default/client", Uses::Many);
    let old = Wire::connect_tls(server.address(), &first).await.unwrap().with_token(&token).unwrap();
    assert!(clusters(&old, NODE).await.is_ok());
    // Half a change: the old one stays.
    std::fs::write(&paths.0, "junk").unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(Wire::connect_tls(server.address(), &first).await.is_ok());
    let second = write("two.test");
    eventually(|| async { Wire::connect_tls(server.address(), &second).await.is_ok() }, |new| *new).await;
    assert!(clusters(&old, NODE).await.is_ok(), "connections that are open go on");
}

/// A cluster that signs service account tokens with P-256.
pub struct Cluster {
    key: KeyPair,
}

impl Cluster {
    const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

    pub fn new() -> Self {
        Self { key: KeyPair::generate().unwrap() }
    }

    pub fn key_set(&self) -> String {
        use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
        let point = self.key.public_key_raw();
        let part = |range| BASE64_URL_SAFE_NO_PAD.encode(&point[range]);
        let (x, y) = (part(1..33), part(33..65));
        serde_json::json!({ "keys": [{ "kty": "EC", "crv": "P-256", "x": x, "y": y }] }).to_string()
    }

    pub fn token(&self, account: &str, audience: &str) -> String {
        self.token_for(account, audience, 600)
    }

    /// One that is over in so many seconds. No two are equal.
    pub fn token_for(&self, account: &str, audience: &str, seconds: i64) -> String {
        use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
        let claims = serde_json::json!({
            "iss": Self::ISSUER, "aud": [audience], "sub": format!("system:serviceaccount:{account}"),
            "exp": jsonwebtoken::get_current_timestamp().saturating_add_signed(seconds),
        });
        encode(&Header::new(Algorithm::ES256), &claims, &EncodingKey::from_ec_der(&self.key.serialize_der())).unwrap()
    }

    pub fn source(&self, keys: &str) -> Option<server::ServiceAccountSource> {
        Some(server::ServiceAccountSource {
            keys: keys.to_owned(),
            authorities: None,
            issuer: Self::ISSUER.to_owned(),
            audience: "istio-ca".to_owned(),
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_account_token_counts_while_its_key_is_in_the_file() {
    let (cluster, next) = (Cluster::new(), Cluster::new());
    let files = TempDir::new().unwrap();
    let path = files.path().join("jwks.json");
    std::fs::write(&path, cluster.key_set()).unwrap();
    let source = cluster.source(path.to_str().unwrap());
    let server = Guarded::start_with(|settings| settings.service_accounts = source).await;
    let wire = server.wire().await;
    let ask = async |token: String, id| clusters(&wire.with_token(&token).unwrap(), id).await;
    assert!(ask(cluster.token("default:client", "istio-ca"), NODE).await.is_ok());
    let other_account = ask(cluster.token("bank:vault", "istio-ca"), NODE).await.unwrap_err();
    assert_eq!(other_account.0, Code::PermissionDenied);
    for token in [cluster.token("default:client", "vault"), next.token("default:client", "istio-ca")] {
        assert_eq!(ask(token, NODE).await.unwrap_err().0, Code::Unauthenticated);
    }
    // The cluster signs with another key from now on.
    std::fs::write(&path, next.key_set()).unwrap();
    let ask_next = || ask(next.token("default:client", "istio-ca"), NODE);
    eventually(ask_next, |answer| answer.is_ok()).await.unwrap();
    assert!(ask(cluster.token("default:client", "istio-ca"), NODE).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_set_is_asked_for_at_its_url() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let cluster = Cluster::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let source = cluster.source(&format!("http://{}/openid/v1/jwks", listener.local_addr().unwrap()));
    let key_set = cluster.key_set();
    let serving = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 4096];
        let len = socket.read(&mut request).await.unwrap();
        assert!(request[..len].starts_with(b"GET /openid/v1/jwks HTTP/1.1\r\n"));
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", key_set.len());
        socket.write_all((head + &key_set).as_bytes()).await.unwrap();
    });
    let server = Guarded::start_with(|settings| settings.service_accounts = source).await;
    let wire = server.wire().await.with_token(&cluster.token("default:client", "istio-ca")).unwrap();
    // It is asked for after the start: until it is there nobody is let in.
    eventually(|| clusters(&wire, NODE), |answer| answer.is_ok()).await.unwrap();
    serving.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn load_is_reported_by_nodes_that_are_who_they_say() {
    use proto::pb::envoy::service::load_stats::v3::{LoadStatsRequest, LoadStatsResponse};
    const REPORT: &str = "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats";
    let state = TempDir::new().unwrap();
    let load = load::Policy::every(Duration::from_secs(1));
    let running = serving(Config { tls: Some(settings(state.path())), load, ..config() }, REVIEWS).await;
    let server = Guarded { running, state };
    let wire = server.wire().await.with_token(&server.token("default/client", Uses::Many)).unwrap();
    for (id, expected) in [(NODE, None), (OTHER_NODE, Some(Code::PermissionDenied))] {
        let mut stream = wire.open::<LoadStatsRequest, LoadStatsResponse>(REPORT);
        // One that need not be told its clusters is answered at once.
        let client_features = vec!["envoy.lrs.supports_send_all_clusters".to_owned()];
        let reporting = proto::pb::envoy::config::core::v3::Node { client_features, ..node(id, "client") };
        stream.send(LoadStatsRequest { node: Some(reporting), ..LoadStatsRequest::default() }).await;
        let code = match stream.next(SOON).await {
            Ok(_) => None,
            Err(WireError::Refused(status)) => Some(status.code()),
            Err(error) => panic!("{error}"),
        };
        assert_eq!(code, expected, "{id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_never_finish_the_handshake_keep_nobody_out() {
    let state = TempDir::new().unwrap();
    let limits = server::Limits { max_connections: Some(50), ..server::Limits::default() };
    let config = Config { tls: Some(settings(state.path())), limits, ..config() };
    let running = serving(config, REVIEWS).await;
    let server = Guarded { running, state };
    let token = server.token("default/client", Uses::Many);
    let mut silent = Vec::new();
    for _ in 0..500 {
        silent.push(tokio::net::TcpStream::connect(server.address()).await.unwrap());
    }
    let wire = server.wire().await.with_token(&token).unwrap();
    assert!(clusters(&wire, NODE).await.is_ok());
    let open = server.running.metric("pointsman_connections").await.unwrap();
    assert!(open <= 50.0, "{open}");
}

#[tokio::test(flavor = "multi_thread")]
async fn both_versions_of_tls_are_spoken_and_no_older_one() {
    let server = Guarded::start().await;
    let root = server.state.path().join("ca/root-cert.pem");
    // OpenSSL shares no code with the server.
    let speaks = |version: &str| {
        let mut client = std::process::Command::new("openssl");
        client.args(["s_client", "-brief", "-verify_return_error", "-alpn", "h2", version, "-connect"]);
        client.arg(server.address().to_string()).args(["-servername", "istiod.istio-system.svc", "-CAfile"]).arg(&root);
        let output = client.stdin(std::process::Stdio::null()).output().unwrap();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.success(), text)
    };
    for (version, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let (is_fine, text) = speaks(version);
        assert!(is_fine && text.contains(name) && text.contains("Verification: OK"), "{text}");
    }
    let (is_fine, text) = speaks("-tls1_1");
    assert!(!is_fine, "{text}");
}
