//! Who signs, and what is trusted, between one change and the next.

use std::path::PathBuf;
use std::time::SystemTime;

use identity::{
    Authority, Issued, KeyType, Lifetime, Lifetimes, PluggedIn, PrivateKey, Rotation, Serial, Stage, Subject,
    TrustDomain,
};

use super::issuer::{ROOT_TTL, unusable};
use super::state_directory::read;
use super::{AuthoritySource, StateDirectory, StateError, random};

/// Certificates of a root by the roots before it are kept for so many of them.
const MOST_CROSSED: usize = 3;

/// An authority with what it hands out. It does not change: another one takes its place.
#[derive(Debug)]
pub(crate) struct Signer {
    authority: Authority,
    /// What is trusted, as PEM, in an order that does not depend on who signs.
    roots: String,
    /// Certificates (PEM) of the root's key by the roots before it: those who know only one of them accept the
    /// listeners' certificate by these.
    crossed: Vec<String>,
    rotation: Option<Rotation>,
}

impl Signer {
    /// What the files say now. A root of our own is made if there is none yet, and a rotation whose last step was broken
    /// off is finished.
    pub(super) fn open(
        source: &AuthoritySource,
        state: &StateDirectory,
        trust_domain: &TrustDomain,
        key_type: KeyType,
    ) -> Result<Self, StateError> {
        match source {
            AuthoritySource::Own => Self::own(state, trust_domain, key_type),
            AuthoritySource::PluggedIn { certificate, key, chain, roots } => {
                let (own, key, chain, roots) = (read(certificate)?, read(key)?, read(chain)?, read(roots)?);
                let files = PluggedIn { certificate: &own, key: &key, chain: &chain, roots: &roots };
                let authority = Authority::plugged_in(&files).map_err(|source| StateError::Identity {
                    whose: format!("the authority of \"{}\"", certificate.display()),
                    source,
                })?;
                Ok(Self::with(authority, Vec::new(), None))
            }
        }
    }

    fn own(state: &StateDirectory, trust_domain: &TrustDomain, key_type: KeyType) -> Result<Self, StateError> {
        let mut rotation = state.rotation()?;
        if rotation.as_ref().is_some_and(|rotation| rotation.stage == Stage::Retiring) {
            state.promote_next_root()?;
            rotation = None;
        }
        if state.root()?.is_none() {
            let made = new_root(trust_domain, key_type)?;
            state.keep_root(&made.certificate_pem(), &made.key_pem())?;
            tracing::info!(%trust_domain, "made a root of our own");
        }
        // Another process may have been faster.
        let (certificate, key) =
            state.root()?.ok_or_else(|| StateError::Settings("the root was removed".to_owned()))?;
        let root = own("the root in the state directory", &certificate, &key)?;
        let Some(rotation) = rotation else {
            return Ok(Self::with(root, state.crossed()?, None));
        };
        let broken = |reason: &str| StateError::Settings(format!("the rotation of the root cannot go on: {reason}"));
        let (certificate, key, crossed) = state.next_root()?.ok_or_else(|| broken("the next root is gone"))?;
        let next = own("the next root in the state directory", &certificate, &key)?;
        if (root.fingerprint(), next.fingerprint()) != (rotation.from.clone(), rotation.to.clone()) {
            return Err(broken("the roots in the state directory are not those that it began with"));
        }
        Ok(match rotation.stage {
            Stage::Distributing => {
                let authority = root.trusting(&[next.certificate().clone()]);
                Self::with(authority, state.crossed()?, Some(rotation))
            }
            Stage::Reissuing | Stage::Retiring => {
                // Who was cut off from the news accepts by the crossing what the new root signs.
                let authority = next.trusting(&[root.certificate().clone()]).behind(crossed.clone());
                Self::with(authority, crossed, Some(rotation))
            }
        })
    }

    fn with(authority: Authority, crossed: Vec<String>, rotation: Option<Rotation>) -> Self {
        let mut sorted = authority.roots().to_vec();
        sorted.sort_by_key(identity::fingerprint);
        let roots = sorted.iter().map(identity::pem_of).collect();
        Self { authority, roots, crossed, rotation }
    }

    /// Makes the root that is to follow, and keeps it. Nothing is different until it is distributed.
    pub(super) fn prepare_next(
        &self,
        state: &StateDirectory,
        trust_domain: &TrustDomain,
        key_type: KeyType,
    ) -> Result<Rotation, StateError> {
        let next = new_root(trust_domain, key_type)?;
        let mut crossed = vec![self.authority.cross_sign(&next, Serial::from_random(random()?)).map_err(unusable)?];
        crossed.extend(self.crossed.iter().take(MOST_CROSSED - 1).cloned());
        state.keep_next_root(&next.certificate_pem(), &next.key_pem(), &crossed.concat())?;
        Ok(Rotation::begin(self.authority.fingerprint(), next.fingerprint(), SystemTime::now()))
    }

    /// Who signs.
    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// What is trusted, as PEM: equal texts for equal roots.
    pub(crate) fn roots(&self) -> &str {
        &self.roots
    }

    /// The rotation that is under way.
    pub(crate) fn rotation(&self) -> Option<&Rotation> {
        self.rotation.as_ref()
    }

    /// Whether certificates of `other` are as good as those of this: the same key signs with the same intermediates.
    pub(crate) fn signs_like(&self, other: &Self) -> bool {
        self.authority.certificate() == other.authority.certificate()
    }

    /// A certificate for the listeners.
    pub(super) fn issue_server(
        &self,
        names: &[String],
        key: &PrivateKey,
        lifetime: &Lifetime,
        serial: Serial,
    ) -> Result<Issued, identity::Error> {
        let mut issued = self.authority.issue(Subject::Server(names), key, lifetime, serial)?;
        let missing: Vec<_> = self.crossed.iter().filter(|crossed| !issued.chain.contains(crossed)).cloned().collect();
        issued.chain.extend(missing);
        Ok(issued)
    }
}

/// The files of an authority that is plugged in.
pub(super) fn files(source: &AuthoritySource) -> Vec<PathBuf> {
    match source {
        AuthoritySource::Own => Vec::new(),
        AuthoritySource::PluggedIn { certificate, key, chain, roots } => {
            [certificate, key, chain, roots].map(PathBuf::clone).to_vec()
        }
    }
}

fn new_root(trust_domain: &TrustDomain, key_type: KeyType) -> Result<Authority, StateError> {
    let key = PrivateKey::generate(key_type).map_err(unusable)?;
    let now = SystemTime::now();
    let lifetime = Lifetimes::new(now).next(now, ROOT_TTL);
    Authority::new_root(trust_domain, key, &lifetime, Serial::from_random(random()?)).map_err(unusable)
}

fn own(whose: &str, certificate: &str, key: &str) -> Result<Authority, StateError> {
    Authority::own(certificate, key).map_err(|source| StateError::Identity { whose: whose.to_owned(), source })
}
