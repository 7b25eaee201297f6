//! A gateway's certificates come from `Secret`s, and are replaced without a failed handshake.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use testkit::envoy::{Envoy, Setup};
use testkit::{backend::Backend, ports, wait};

use crate::identity::Guarded;
use crate::mesh::PATIENCE;

/// Signs certificates for the gateway's names.
pub struct Authority {
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let (mut params, key) = (CertificateParams::default(), KeyPair::generate().unwrap());
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A list that says which of its certificates (the chain of a pair) is revoked.
    pub fn revoking(&self, chain: &str) -> String {
        use rustls::pki_types::{CertificateDer, pem::PemObject};
        let der = CertificateDer::from_pem_slice(chain.as_bytes()).unwrap();
        let serial = serial_of(&der);
        let time = rcgen::date_time_ymd(2020, 1, 1);
        let revoked = rcgen::RevokedCertParams {
            serial_number: serial.into(),
            revocation_time: time,
            reason_code: None,
            invalidity_date: None,
        };
        let list = rcgen::CertificateRevocationListParams {
            this_update: time,
            next_update: rcgen::date_time_ymd(2090, 1, 1),
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    pub fn pair(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

/// The serial number in a certificate's DER: behind the headers of certificate, content and version.
fn serial_of(der: &[u8]) -> Vec<u8> {
    let at = der.windows(5).position(|bytes| bytes == [0xa0, 0x03, 0x02, 0x01, 0x02]).unwrap() + 5;
    assert_eq!(der[at], 0x02, "an integer follows the version");
    der[at + 2..at + 2 + usize::from(der[at + 1])].to_vec()
}

fn secret(name: &str, parts: &[(&str, &str)]) -> String {
    let parts: serde_json::Map<_, _> = parts.iter().map(|(name, text)| ((*name).to_owned(), (*text).into())).collect();
    let object = serde_json::json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": { "name": name, "namespace": "default" }, "stringData": parts,
    });
    format!("{object}\n")
}

/// What a client gets: the status and the certificate's text as `curl -v` shows it, or why it gets nothing.
pub fn ask(entry: SocketAddr, host: &str, roots: &str, more: &[&str]) -> Result<String, String> {
    let (at, url) = (format!("{host}:{}:127.0.0.1", entry.port()), format!("https://{host}:{}/", entry.port()));
    let mut command = Command::new("curl");
    command.args(["-sS", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "10", "--cacert", roots]);
    let output = command.args(["--resolve", &at]).args(more).arg(url).output().unwrap();
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).unwrap())
    } else {
        Err(String::from_utf8(output.stderr).unwrap())
    }
}

/// Writes a file; its path.
pub fn written(folder: &TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Waits until a client who trusts these roots gets an answer of shop.test.
pub async fn answers(entry: SocketAddr, roots: &str, envoy: &Envoy) {
    wait::until("the gateway to answer", PATIENCE, async || {
        let roots = roots.to_owned();
        let asked = tokio::task::spawn_blocking(move || ask(entry, "shop.test", &roots, &[])).await.unwrap();
        if asked.as_deref() == Ok("200") { Ok(()) } else { Err(format!("{asked:?}\n{}", envoy.log())) }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateways_certificate_is_replaced_under_load_without_a_failed_handshake() {
    let app = Backend::start("app", ports::local().unwrap()).unwrap();
    let (entry, files) = (ports::local().unwrap(), TempDir::new().unwrap());
    let (first, second, clients) = (Authority::new("one"), Authority::new("two"), Authority::new("staff"));
    let mesh = format!(
        "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: app, namespace: default}}
spec: {{hosts: [app.test], ports: [{{number: 80, name: http, protocol: HTTP}}], resolution: STATIC, \
         endpoints: [{{address: 127.0.0.1, ports: {{http: {app}}}}}]}}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: main, namespace: default}}
spec:
  selector: {{istio: ingressgateway}}
  servers:
  - {{port: {{number: {port}, name: https, protocol: HTTPS}}, hosts: [shop.test], tls: {{mode: SIMPLE, credentialName: shop}}}}
  - {{port: {{number: {port}, name: mutual, protocol: HTTPS}}, hosts: [staff.test], tls: {{mode: MUTUAL, credentialName: staff}}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: app, namespace: default}}
spec: {{hosts: [shop.test, staff.test], gateways: [main], http: [{{route: [{{destination: {{host: app.test}}}}]}}]}}
",
        app = app.address().port(),
        port = entry.port(),
    );
    let shop = |(chain, key): (String, String)| secret("shop", &[("tls.crt", &chain), ("tls.key", &key)]);
    let staff = first.pair("staff.test");
    let staff_file = secret("staff", &[("cert", &staff.0), ("key", &staff.1)])
        + "---\n"
        + &secret("staff-cacert", &[("cacert", &clients.pem)]);
    let before = first.pair("shop.test");
    let all = [("mesh.yaml", &*mesh), ("shop.yaml", &shop(before.clone())), ("staff.yaml", &staff_file)];
    let server = Guarded::start(&all, &["--log", "trace"]).await;
    let token = server.token("default/gateway");
    let proof = ["--kind", "gateway", "--label", "istio=ingressgateway", "--token-file", &*token];
    let envoy = Setup::new(server.bootstrap("ingress", &proof)).start().await.unwrap();

    let write = |name: &str, text: &str| written(&files, name, text);
    let (old, new) = (write("first.pem", &first.pem), write("second.pem", &second.pem));
    let either = write("both.pem", &format!("{}{}", first.pem, second.pem));
    let answers = async |roots: &str| answers(entry, roots, &envoy).await;
    answers(&old).await;
    // Who must show a certificate, and does, is let in; others are not.
    let (certificate, key) = clients.pair("me");
    let (certificate, key) = (write("me.pem", &certificate), write("me.key", &key));
    let shown = ["--cert", &*certificate, "--key", &*key];
    assert_eq!(ask(entry, "staff.test", &old, &shown).as_deref(), Ok("200"));
    assert!(ask(entry, "staff.test", &old, &[]).is_err());

    let (is_over, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..2)
        .map(|_| {
            let (is_over, asked, either) = (is_over.clone(), asked.clone(), either.clone());
            std::thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    assert_eq!(ask(entry, "shop.test", &either, &[]).as_deref(), Ok("200"));
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let more = async || {
        let least = asked.load(Ordering::Relaxed) + 20;
        wait::until("clients to go on", PATIENCE, async || {
            let now = asked.load(Ordering::Relaxed);
            if now >= least { Ok(()) } else { Err(now.to_string()) }
        })
        .await
        .unwrap();
    };
    more().await;
    // A pair that does not fit is refused, and the old one stays.
    server.mesh.write("shop.yaml", &shop((before.0.clone(), staff.1.clone())));
    server
        .mesh
        .get_where("/api/v1/problems", "the broken pair to be reported", |answer| {
            answer.to_string().contains("does not belong to the certificate")
        })
        .await;
    answers(&old).await;
    let after = second.pair("shop.test");
    server.mesh.write("shop.yaml", &shop(after.clone()));
    answers(&new).await;
    more().await;
    is_over.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(|client| client.join().unwrap());

    // No key is anywhere that somebody may see, in whatever form: not in the most talkative log, not in an answer.
    let nodes = server.mesh.get("/api/v1/nodes").await;
    let id = nodes["nodes"][0]["id"].as_str().unwrap();
    let node = format!("/api/v1/nodes/{id}");
    let config = format!("{node}/config");
    let paths = ["/api/v1/nodes", &node, &config, "/api/v1/problems", "/api/v1/objects", "/api/v1/changes"];
    let paths = paths.into_iter().chain(["/api/v1/authority", "/api/v1/load", "/api/v1/rollouts", "/metrics"]);
    let mut shown = vec![server.mesh.server.output()];
    for path in paths {
        shown.push(testkit::http::get(server.mesh.admin, path).await.unwrap());
    }
    for file in ["issued.jsonl", "authority.jsonl"] {
        shown.extend(std::fs::read_to_string(server.state.path().join("audit").join(file)));
    }
    let root = std::fs::read_to_string(server.state.path().join("ca/root-key.pem")).unwrap();
    let bearer = std::fs::read_to_string(&token).unwrap();
    assert!(shown[0].contains("TRACE"), "the log is as talkative as it can be");
    for text in &shown {
        for key in [&before.1, &after.1, &staff.1, &root] {
            assert!(!forms(key).iter().any(|form| text.contains(form)), "{text}");
        }
        assert!(!text.contains(bearer.trim().rsplit_once('_').unwrap().1), "{text}");
    }
    envoy.stop().await.unwrap();
}

/// What would give a key away: a line of its text, and bytes from its middle as hexadecimal digits and as a list.
fn forms(key: &str) -> Vec<String> {
    use rustls::pki_types::PrivateKeyDer;
    use rustls::pki_types::pem::PemObject;
    let der = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    // In PKCS#8 of P-256 the secret number begins at byte 36.
    let secret = &der.secret_der()[40..56];
    let hex = secret.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let list = secret.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
    let line = key.lines().nth(2).unwrap().to_owned();
    vec![line.clone(), hex.clone(), hex.to_uppercase(), list, format!("{:?}", line.as_bytes())]
}
