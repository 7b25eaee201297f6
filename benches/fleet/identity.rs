//! What identities cost: making a certificate, beside the bare library, and replacing those of a fleet.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use identity::{Authority, KeyType, Lifetimes, PrivateKey, Serial, SpiffeId, Subject};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use tempfile::TempDir;
use testkit::wire::{Credentials, Delta, ResourceType, Wire, node};
use tokio::task::JoinSet;

use crate::figures::Figures;
use crate::fleet::ROUNDS;
use crate::row::{Row, Target, Unit};
use crate::server::Server;

/// Certificates in each of the rounds.
const BATCH: u32 = 500;
/// Nodes whose certificates are replaced.
const NODES: u32 = 2000;
/// How long certificates hold, in seconds: all are replaced within one minute.
const TTL: &str = "60";
/// Of what a certificate costs beyond being made: a core-second for a thousand.
const BEYOND: f64 = 1e-3;
/// How long a node may wait for what it is to get.
const PATIENCE: Duration = Duration::from_secs(90);

/// A key and a certificate for it, again and again, on one core; and the same by the library alone.
pub async fn issuance() -> Result<Vec<Row>> {
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    let (authority, issuer) = authorities()?;
    let id: SpiffeId = "spiffe://cluster.local/ns/shop/sa/front".parse()?;
    for _ in 0..ROUNDS {
        ours.push(rate(|| issue(&authority, &id))?);
        bare.push(rate(|| issue_bare(&issuer, &id))?);
    }
    Ok(vec![
        Row::new(
            "certificates with their keys, ECDSA on P-256",
            "per second and core",
            Unit::Number,
            Figures::new(ours),
        )
        .beside("rcgen alone", Figures::new(bare))
        .target(Target::TimesAtLeast(0.8)),
    ])
}

fn authorities() -> Result<(Authority, Issuer<'static, KeyPair>)> {
    let lifetime = Lifetimes::new(SystemTime::now()).next(SystemTime::now(), Duration::from_secs(86_400));
    let key = PrivateKey::generate(KeyType::EcdsaP256)?;
    let root = Authority::new_root(&"cluster.local".parse()?, key, &lifetime, Serial::from_random([1; 16]))?;
    let issuer = Issuer::from_ca_cert_pem(&root.certificate_pem(), KeyPair::from_pem(&root.key_pem())?)?;
    Ok((root, issuer))
}

/// So many a second.
fn rate(make: impl Fn() -> Result<String>) -> Result<f64> {
    let begun = Instant::now();
    for _ in 0..BATCH {
        std::hint::black_box(make()?);
    }
    Ok(f64::from(BATCH) / begun.elapsed().as_secs_f64())
}

fn issue(authority: &Authority, id: &SpiffeId) -> Result<String> {
    let key = PrivateKey::generate(KeyType::EcdsaP256)?;
    let lifetime = Lifetimes::new(SystemTime::now()).next(SystemTime::now(), Duration::from_secs(3600));
    let issued = authority.issue(Subject::Workload(id), &key, &lifetime, Serial::from_random([7; 16]))?;
    Ok(issued.chain.concat() + &key.to_pem())
}

fn issue_bare(issuer: &Issuer<'static, KeyPair>, id: &SpiffeId) -> Result<String> {
    let (key, mut params) = (KeyPair::generate()?, CertificateParams::default());
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.subject_alt_names = vec![SanType::URI(id.to_string().try_into()?)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params.signed_by(&key, issuer)?.pem() + &key.serialize_pem())
}

/// Every node of a fleet gets another certificate within one minute, over the stream that it has.
pub async fn replaced() -> Result<Vec<Row>> {
    let (authority, _) = authorities()?;
    let id: SpiffeId = "spiffe://cluster.local/ns/ns-0/sa/default".parse()?;
    let signing = (0..ROUNDS).map(|_| rate(|| issue(&authority, &id)).map(|rate| 1.0 / rate));
    let signing = Figures::new(signing.collect::<Result<Vec<_>>>()?);

    let state = TempDir::new()?;
    let (server, address) = Server::guarded_mesh(100, state.path(), &["--workload-cert-ttl", TTL]).await?;
    let token = token(state.path())?;
    let roots = std::fs::read_to_string(state.path().join("ca/root-cert.pem"))?;
    let credentials = Credentials { roots, name: "localhost".to_owned(), certificate: None };
    let mut first = JoinSet::new();
    for number in 0..NODES {
        let (credentials, token) = (credentials.clone(), token.clone());
        first.spawn(async move {
            let wire = Wire::connect_tls(address, &credentials).await?.with_token(&token)?;
            let place = format!("10.{}.{}.1~pod-{number}", number / 250, number % 250);
            let mut stream = wire.delta(node(&format!("sidecar~{place}.ns-0~ns-0.svc.cluster.local"), "default"));
            stream.subscribe(ResourceType::Secret, &["default", "ROOTCA"]).await;
            take(&mut stream).await?;
            anyhow::Ok((wire, stream))
        });
    }
    let mut nodes = Vec::new();
    while let Some(connected) = first.join_next().await {
        nodes.push(connected??);
    }
    let (before, begun) = (server.cpu()?, Instant::now());
    let mut second = JoinSet::new();
    for (wire, mut stream) in nodes {
        second.spawn(async move {
            take(&mut stream).await?;
            anyhow::Ok((wire, stream))
        });
    }
    let (mut kept, mut failed) = (Vec::new(), 0.0);
    while let Some(taken) = second.join_next().await {
        match taken? {
            Ok(node) => kept.push(node),
            Err(_) => failed += 1.0,
        }
    }
    let (cpu, took) = (server.cpu()? - before, begun.elapsed().as_secs_f64());
    let title = format!("certificates of {NODES} nodes that are replaced within a minute, over SDS and TLS");
    let per_certificate = Figures::new([cpu / f64::from(NODES)]);
    Ok(vec![
        Row::new(&title, "nodes without a new one", Unit::Number, Figures::new([failed])).target(Target::AtMost(0.0)),
        Row::new(&title, "first certificates → last replaced", Unit::Seconds, Figures::new([took]))
            .target(Target::AtMost(60.0)),
        Row::new(&title, "server CPU per certificate", Unit::Seconds, per_certificate)
            .target(Target::AtMost(signing.median() + BEYOND))
            .beside("making it, alone", signing),
    ])
}

/// Takes the next secrets and says so.
async fn take(stream: &mut Delta) -> Result<()> {
    let response = stream.next(PATIENCE).await.map_err(|error| anyhow::anyhow!("{error}"))?;
    stream.ack(&response).await;
    Ok(())
}

fn token(state: &Path) -> Result<String> {
    let made = Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .args(["token", "create", "--identity", "ns-0/default", "--state-dir"])
        .arg(state)
        .output()?;
    anyhow::ensure!(made.status.success(), "no token: {}", String::from_utf8_lossy(&made.stderr));
    Ok(String::from_utf8(made.stdout).context("the token is no text")?.trim().to_owned())
}
