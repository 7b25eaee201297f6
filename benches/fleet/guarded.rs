//! The same over mutual TLS: what a connected node costs, and what all of them at once do.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use swarm::TlsFiles;
use swarm::report::PhaseReport;
use swarm::scenario::{Connect, Scenario, Variant};
use tempfile::TempDir;
use testkit::wire::{Credentials, Wire};

use crate::figures::Figures;
use crate::fleet::scenario;
use crate::rounds::{connect_of, server_cpu};
use crate::row::{Row, Target, Unit};
use crate::server::Server;

/// Whom all nodes of a swarm are: what they say of themselves must agree.
const IDENTITY: &str = "ns-0/default";
/// Connects a second, where they do not come all at once.
const RATE: f64 = 200.0;
/// For whatever is still going on to end.
const REST: Duration = Duration::from_secs(2);
/// Bare handshakes in each of the rounds.
const HANDSHAKES: u32 = 100;

/// Where to connect by TLS, and with what.
pub struct Guarded {
    pub address: SocketAddr,
    pub files: TlsFiles,
    /// The server's state; removed at the end.
    _state: TempDir,
}

impl Guarded {
    /// A server, and a certificate of its authority that all nodes use.
    async fn start(services: u32) -> Result<(Server, Guarded)> {
        let directory = TempDir::new()?;
        let (server, address) = Server::guarded_mesh(services, directory.path(), &[]).await?;
        let files = certificate(directory.path(), address).await?;
        Ok((server, Guarded { address, files, _state: directory }))
    }
}

/// Gets a certificate as an agent does, by a join token; the files that it is in.
async fn certificate(state: &Path, address: SocketAddr) -> Result<TlsFiles> {
    let made = Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .args(["token", "create", "--once", "--identity", IDENTITY, "--state-dir"])
        .arg(state)
        .output()?;
    anyhow::ensure!(made.status.success(), "no token: {}", String::from_utf8_lossy(&made.stderr));
    let authorities = state.join("ca/root-cert.pem");
    let credentials =
        Credentials { roots: std::fs::read_to_string(&authorities)?, name: "localhost".to_owned(), certificate: None };
    let wire = Wire::connect_tls(address, &credentials).await?.with_token(String::from_utf8(made.stdout)?.trim())?;
    let key = KeyPair::generate()?;
    let csr = CertificateParams::default().serialize_request(&key)?.pem()?;
    let request = proto::auth::IstioCertificateRequest { csr, ..Default::default() };
    let answer: proto::auth::IstioCertificateResponse =
        wire.call("/istio.v1.auth.IstioCertificateService/CreateCertificate", request).await?;
    let (chain, private) = (state.join("node.pem"), state.join("node.key"));
    std::fs::write(&chain, answer.cert_chain[..answer.cert_chain.len() - 1].concat())?;
    std::fs::write(&private, key.serialize_pem())?;
    Ok(TlsFiles { authorities, certificate: Some((chain, private)), server_name: Some("localhost".to_owned()) })
}

/// Per connected node over mutual TLS.
pub async fn memory() -> Result<Vec<Row>> {
    let scenario = scenario("memory")?;
    let (ours, guarded) = Guarded::start(1000).await?;
    // One node has everything compiled and encoded: the rest is what nodes add to that.
    let first = Scenario { nodes: 1, ..scenario.clone() };
    let mut one = ours.swarm_over_tls(&first, &guarded)?;
    one.connect(&connect_of(&first))?;
    std::thread::sleep(REST);
    let shared = ours.resident()?;
    let mut swarm = ours.swarm_over_tls(&scenario, &guarded)?;
    let connected = swarm.connect(&Connect { rate: Some(RATE), ..connect_of(&scenario) })?;
    anyhow::ensure!(connected.reached == connected.wanted, "only {} nodes got everything", connected.reached);
    std::thread::sleep(REST);
    let per_node = (ours.resident()? - shared) / scenario.nodes as f64;
    let title =
        format!("memory, {} delta nodes with a full-size Node, mutual TLS, at {RATE}/s, 1000 services", scenario.nodes);
    Ok(vec![
        Row::new(&title, "RSS per node", Unit::Bytes, Figures::new([per_node]))
            .target(Target::AtMost(45.0 * 1024.0))
            .remark(format!("{:.1} MB with one node", shared / 1e6)),
    ])
}

/// Everybody connects at once: over mutual TLS, and without, beside what the handshakes alone cost.
pub async fn storm() -> Result<Vec<Row>> {
    let scenario = Scenario { variant: Variant::Delta, ..scenario("storm")? };
    let title = format!("connect storm, {} delta nodes, mutual TLS, 1000 services", scenario.nodes);
    let (ours, guarded) = Guarded::start(1000).await?;
    let handshakes = handshakes(&guarded)?;
    let connect = connect_of(&scenario);
    // The first has everything compiled.
    let first = Scenario { nodes: 1, ..scenario.clone() };
    ours.swarm(&first)?.connect(&connect_of(&first))?;
    let plain = ours.swarm(&scenario)?.connect(&connect)?;
    let report = ours.swarm_over_tls(&scenario, &guarded)?.connect(&connect)?;
    let cpu = |report: &PhaseReport| Figures::new(server_cpu(report));
    let least = cpu(&plain).median() + handshakes.median();
    let handshake = format!("of it {:.0} µs the bare handshake", handshakes.median() * 1e6);
    let not_synced = Figures::new([(report.wanted - report.reached) as f64]);
    let last = |report: &PhaseReport| Figures::new(report.synced.as_ref().map(|span| span.last / 1e3));
    Ok(vec![
        Row::new(&title, "nodes not synced", Unit::Number, not_synced).target(Target::AtMost(0.0)),
        Row::new(&title, "server CPU per node", Unit::Seconds, cpu(&report))
            .beside("without TLS, and the bare handshake", Figures::new([least]))
            .target(Target::TimesAtMost(1.5))
            .remark(handshake),
        Row::new(&title, "connect → synced, last", Unit::Seconds, last(&report)).beside("without TLS", last(&plain)),
    ])
}

/// Seconds that the server's side of a handshake costs with these certificates, in memory; one figure for each round.
fn handshakes(guarded: &Guarded) -> Result<Figures> {
    let (server, client) = configs(guarded)?;
    let mut rounds = Vec::new();
    for _ in 0..crate::fleet::ROUNDS {
        let mut took = Duration::ZERO;
        for _ in 0..HANDSHAKES {
            took += handshake(&server, &client)?;
        }
        rounds.push(took.as_secs_f64() / f64::from(HANDSHAKES));
    }
    Ok(Figures::new(rounds))
}

/// The server's part of the time of one.
fn handshake(server: &Arc<ServerConfig>, client: &Arc<ClientConfig>) -> Result<Duration> {
    let mut client = ClientConnection::new(client.clone(), ServerName::try_from("localhost")?)?;
    let mut bytes = Vec::new();
    let begun = Instant::now();
    let mut server = ServerConnection::new(server.clone())?;
    let mut took = begun.elapsed();
    while server.is_handshaking() || client.is_handshaking() {
        bytes.clear();
        while client.wants_write() {
            client.write_tls(&mut bytes)?;
        }
        let begun = Instant::now();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest)?;
            server.process_new_packets()?;
        }
        let mut answer = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut answer)?;
        }
        took += begun.elapsed();
        let mut rest = &answer[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest)?;
            client.process_new_packets()?;
        }
    }
    client.writer().write_all(b"x")?;
    bytes.clear();
    client.write_tls(&mut bytes)?;
    server.read_tls(&mut &bytes[..])?;
    server.process_new_packets()?;
    server.reader().read_exact(&mut [0])?;
    Ok(took)
}

fn configs(guarded: &Guarded) -> Result<(Arc<ServerConfig>, Arc<ClientConfig>)> {
    let authorities = &guarded.files.authorities;
    let (chain, key) = guarded.files.certificate.as_ref().context("the nodes have no certificate")?;
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(authorities)? {
        roots.add(root?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    // A server of another authority, of the same kind of keys: the handshake costs the same.
    let own = KeyPair::generate()?;
    let certificate = CertificateParams::new(["localhost".to_owned()])?.self_signed(&own)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?;
    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::from_pem_slice(own.serialize_pem().as_bytes())?,
        )?;
    server.send_tls13_tickets = 0;
    let mut trusting = RootCertStore::empty();
    trusting.add(certificate.der().clone())?;
    let chain = CertificateDer::pem_file_iter(chain)?.collect::<Result<Vec<_>, _>>()?;
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(trusting)
        .with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    Ok((Arc::new(server), Arc::new(client)))
}
