//! Secrets of gateways, from documents and plain files: `kubernetes://<name>` and `kubernetes://<name>-cacert`, as Istio names them.
//!
//! A gateway gets those of the namespace of its proved identity, whatever namespace the name says.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use identity::TlsSecret;
use proto::ResourceType;
use proto::pb::envoy::extensions::transport_sockets::tls::v3::{CertificateValidationContext, TlsCertificate, secret};
use snapshot::{Cell, Layer, Name};
use world::AUTHORITIES_SUFFIX;
use xds::Wants;

use super::follow::Follow;
use super::secrets::{cell, inline};
use crate::gateway_secrets::{GatewaySecrets, TlsSecrets};

const SCHEME: &str = "kubernetes://";
/// A gateway asks for some; whoever asks for thousands that are not there is not written up for each.
const MOST_NOTED: usize = 100;

/// What one gateway may have of them.
pub(super) struct Documents {
    namespace: Arc<str>,
    following: Follow<Arc<TlsSecrets>>,
    newest: Arc<TlsSecrets>,
    /// What was asked for when it was last looked at.
    asked: Option<Option<[(usize, u64); 2]>>,
    /// Names that lead nowhere, each written up once.
    noted: BTreeSet<Name>,
}

impl fmt::Debug for Documents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Documents").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl Documents {
    /// Those of a namespace.
    pub(super) fn new(secrets: &GatewaySecrets, namespace: &str) -> Self {
        let mut receiver = secrets.follow();
        let newest = receiver.borrow_and_update().clone();
        Self {
            namespace: namespace.into(),
            following: Follow::new(receiver),
            newest,
            asked: None,
            noted: BTreeSet::new(),
        }
    }

    /// Brings a layer to what is asked for now. True if it is different. What is gone stays in it while it is asked for:
    /// a gateway that serves goes on.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, wants: Wants<'_>, layer: &mut Arc<Layer>) -> bool {
        let mut are_others = false;
        while let Poll::Ready(newest) = self.following.poll(cx) {
            (self.newest, are_others) = (newest, true);
        }
        let asked = wants.fingerprint();
        if !are_others && self.asked == Some(asked) {
            return false;
        }
        self.asked = Some(asked);
        let Some(names) = wants.names() else { return false };
        let names: Vec<Name> = names.filter(|name| name.starts_with(SCHEME)).cloned().collect();
        let mut edit = layer.edit();
        let mut is_different = false;
        for name in &names {
            match self.find(name) {
                Some(found) => {
                    let held = edit.get(ResourceType::Secret, name);
                    if held.is_none_or(|held| held.version() != found.version()) {
                        edit.set(found);
                        is_different = true;
                    }
                }
                None => self.note(name),
            }
        }
        for held in layer.iter(ResourceType::Secret).filter(|held| held.name().starts_with(SCHEME)) {
            if !names.contains(held.name()) {
                edit.remove(ResourceType::Secret, held.name());
                is_different = true;
            }
        }
        if is_different {
            *layer = edit.finish();
        }
        is_different
    }

    fn find(&self, name: &str) -> Option<Cell> {
        let asked = name.strip_prefix(SCHEME)?;
        let secret = match asked.split_once('/') {
            None => asked,
            Some((namespace, secret)) if namespace == &*self.namespace => secret,
            Some(_) => return None,
        };
        let document = |secret: &str| self.newest.get(&(self.namespace.clone(), secret.into()));
        // Authorities may be a secret of their own, or a part of the one with the certificate.
        if let Some(base) = secret.strip_suffix(AUTHORITIES_SUFFIX) {
            let found = [secret, base].into_iter().filter_map(document).find_map(|found| verification(name, found));
            if found.is_some() {
                return found;
            }
        }
        document(secret).and_then(|found| certificate(name, found))
    }

    fn note(&mut self, name: &Name) {
        if self.noted.len() < MOST_NOTED && self.noted.insert(name.clone()) {
            tracing::warn!(
                name = &**name,
                namespace = &*self.namespace,
                "a gateway asks for a secret that there is not in its namespace"
            );
        }
    }
}

fn certificate(name: &str, secret: &TlsSecret) -> Option<Cell> {
    let (chain, key) = secret.pair()?;
    let pair =
        TlsCertificate { certificate_chain: inline(chain), private_key: inline(key), ..TlsCertificate::default() };
    Some(cell(name, secret::Type::TlsCertificate(pair), chain))
}

fn verification(name: &str, secret: &TlsSecret) -> Option<Cell> {
    let (authorities, revoked) = (secret.authorities()?, secret.revoked());
    let context = CertificateValidationContext {
        trusted_ca: inline(authorities),
        crl: revoked.and_then(inline),
        ..CertificateValidationContext::default()
    };
    let public = format!("{authorities}{}", revoked.unwrap_or_default());
    Some(cell(name, secret::Type::ValidationContext(context), &public))
}
