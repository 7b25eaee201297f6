//! Rotating the root: who lacks what, and whether the next stage may begin.
//!
//! The stages are [`identity::Rotation`]'s, the steps on disk [`Issuer`]'s. This asks the streams what their clients
//! have accepted, and refuses to go on while somebody lacks something.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use identity::{Rotation, Stage, Trusting};

use crate::discovery::Roster;
use crate::listen::Peer;
use crate::trust::{Actor, Caller, Issuer, ServerCertificate, StepError, Trust};
use crate::view;

/// Clients that have left are waited for so long: they may be on their way back.
const RETURNING: Duration = Duration::from_secs(60);

/// What a stream knows of its client's part in the trust of the mesh.
#[derive(Clone, Debug)]
pub(crate) struct ClientTrust {
    /// Who it is.
    pub(crate) caller: Arc<Caller>,
    /// From where.
    pub(crate) peer: Peer,
    /// What it has, as far as its stream knows.
    pub(crate) trusting: Trusting,
}

/// Conducts rotations of the root.
#[derive(Clone, Debug)]
pub(crate) struct Rotator {
    issuer: Arc<Issuer>,
    /// What the listeners show, which follows the issuer.
    certificate: Arc<ServerCertificate>,
    roster: Arc<Roster>,
    /// How long a stream may take to answer.
    patience: Duration,
    /// A stage, and the server, must be so old before the next stage begins: clients that were cut off come back
    /// within this time.
    settle: Duration,
    started: Instant,
}

/// Why nothing was done.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// Somebody lacks something; the picture says who.
    Lacking(Box<view::Authority>),
    Step(StepError),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Lacking(status) => match status.lacking.len() {
                0 => write!(f, "the stage settles for {} s more", status.settles_in_seconds),
                count => write!(f, "{count} nodes lack something before the next stage"),
            },
            Refusal::Step(error) => error.fmt(f),
        }
    }
}

/// One client, put together of its streams.
struct Client {
    trust: ClientTrust,
    left: Option<Duration>,
}

impl Rotator {
    pub(crate) fn new(trust: &Trust, roster: Arc<Roster>, patience: Duration, settle: Duration) -> Self {
        let (issuer, certificate) = (trust.issuer.clone(), trust.certificate.clone());
        Self { issuer, certificate, roster, patience, settle, started: Instant::now() }
    }

    /// The authority, and who lacks what.
    pub(crate) async fn status(&self) -> view::Authority {
        let clients = self.clients().await;
        let (signer, now) = (self.issuer.signer(), SystemTime::now());
        let rotation = signer.rotation();
        let lack = |client: &Client| match rotation {
            Some(rotation) => rotation.lack(&client.trust.trusting, now, self.issuer.ttl()),
            None => lack_without_rotation(&client.trust.trusting),
        };
        let lacking = clients.iter().filter_map(|(node, client)| {
            let reason = lack(client)?;
            let reason = match client.left {
                None => reason.to_owned(),
                // Without a rotation nobody waits for whoever has left.
                Some(_) if rotation.is_none() => return None,
                Some(ago) => format!("left {} s ago and {reason}", ago.as_secs()),
            };
            let ClientTrust { caller, peer, .. } = &client.trust;
            Some(view::LackingNode {
                id: node.clone(),
                identity: caller.id.to_string(),
                address: peer.to_string(),
                reason,
            })
        });
        let authority = signer.authority();
        view::Authority {
            issuer: view::Root { fingerprint: authority.fingerprint(), not_after: authority.not_after().into() },
            trusted: authority.roots().iter().map(identity::fingerprint).collect(),
            roots: signer.roots().to_owned(),
            stage: rotation.map_or_else(String::new, |rotation| name(rotation.stage).to_owned()),
            begun: rotation.map(|rotation| time(rotation.begun)),
            since: rotation.map(|rotation| time(rotation.since)),
            nodes: clients.values().filter(|client| client.left.is_none()).count(),
            lacking: lacking.collect(),
            settles_in_seconds: rotation.map_or(0, |rotation| self.settles_in(rotation, now)),
        }
    }

    /// Begins a rotation.
    pub(crate) async fn begin(&self, actor: Actor) -> Result<view::Authority, Refusal> {
        self.step(move |issuer| issuer.begin_rotation(&actor)).await
    }

    /// Ends `stage` and begins the next one, if nobody lacks anything, or if it is forced.
    pub(crate) async fn advance(
        &self,
        stage: Stage,
        force: bool,
        mut actor: Actor,
    ) -> Result<view::Authority, Refusal> {
        let status = self.status().await;
        if !status.lacking.is_empty() || status.settles_in_seconds > 0 {
            if !force {
                return Err(Refusal::Lacking(Box::new(status)));
            }
            actor.forced_over = Some(status.lacking.len());
        }
        self.step(move |issuer| issuer.advance_rotation(stage, &actor)).await
    }

    /// Gives a rotation up whose new root has signed nothing.
    pub(crate) async fn abort(&self, actor: Actor) -> Result<view::Authority, Refusal> {
        self.step(move |issuer| issuer.abort_rotation(&actor)).await
    }

    async fn step(
        &self,
        step: impl FnOnce(&Issuer) -> Result<(), StepError> + Send + 'static,
    ) -> Result<view::Authority, Refusal> {
        let (issuer, certificate) = (self.issuer.clone(), self.certificate.clone());
        let stepping = move || {
            step(&issuer)?;
            // Before the next step, after which somebody may know the new root only.
            certificate.refresh(SystemTime::now());
            Ok(())
        };
        let done = tokio::task::spawn_blocking(stepping).await;
        // It cannot be broken off but by a panic, after which it is not known where it stands.
        done.unwrap_or(Err(StepError::Moved)).map_err(Refusal::Step)?;
        Ok(self.status().await)
    }

    fn settles_in(&self, rotation: &Rotation, now: SystemTime) -> u64 {
        let age = now.duration_since(time(rotation.since).time()).unwrap_or_default().min(self.started.elapsed());
        self.settle.saturating_sub(age).as_secs_f64().ceil() as u64
    }

    /// The clients that have proved who they are, by node, with those that have left a moment ago.
    async fn clients(&self) -> BTreeMap<String, Client> {
        let mut clients = BTreeMap::new();
        let entries = self.roster.identified();
        let entries = entries.into_iter().filter(|entry| entry.connection.channel.is_some()).collect();
        for (entry, report) in Roster::inspect(entries, false, self.patience).await {
            // Who does not answer in time is busy with what it was sent; it has not accepted it.
            let trust = report.and_then(|report| report.trust).map(|trust| self.with_request(trust));
            if let Some(trust) = trust {
                add(&mut clients, entry.id(), trust, None);
            }
        }
        for departed in self.roster.departed() {
            let left = departed.ended.0.elapsed();
            if left < RETURNING
                && let Some(trust) = &departed.report.trust
            {
                add(&mut clients, &departed.node.id, self.with_request(trust.clone()), Some(left));
            }
        }
        clients
    }

    fn with_request(&self, mut trust: ClientTrust) -> ClientTrust {
        trust.trusting.requested = self.issuer.requested(&trust.caller.id, trust.peer);
        trust
    }
}

/// Adds what one more stream of a node knows.
fn add(clients: &mut BTreeMap<String, Client>, node: &str, trust: ClientTrust, left: Option<Duration>) {
    let Some(client) = clients.get_mut(node) else {
        clients.insert(node.to_owned(), Client { trust, left });
        return;
    };
    let both = |one: Option<bool>, other: Option<bool>| match (one, other) {
        (Some(one), Some(other)) => Some(one && other),
        (one, other) => one.or(other),
    };
    let (known, new) = (&mut client.trust.trusting, trust.trusting);
    known.roots = both(known.roots, new.roots);
    known.certificate = both(known.certificate, new.certificate);
    known.proof = both(known.proof, new.proof);
    known.requested = known.requested.max(new.requested);
}

/// What a client has not got yet of what everybody is to have, when nothing is being rotated: as after the files of a
/// plugged-in authority were replaced.
fn lack_without_rotation(client: &Trusting) -> Option<&'static str> {
    if client.roots == Some(false) {
        Some("has not accepted the newest roots yet")
    } else if client.certificate == Some(false) {
        Some("has not accepted a certificate of who signs now")
    } else {
        None
    }
}

/// A stage's name, as the admin API has it.
pub(crate) fn name(stage: Stage) -> &'static str {
    match stage {
        Stage::Distributing => "distributing",
        Stage::Reissuing => "reissuing",
        Stage::Retiring => "retiring",
    }
}

fn time(seconds: u64) -> view::Timestamp {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(SystemTime::UNIX_EPOCH).into()
}
