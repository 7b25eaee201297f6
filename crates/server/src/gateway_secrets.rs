//! Certificates and keys of gateways, as their sources say them.
//!
//! They come by a way of their own, not through the plane: nothing that is compiled, compared or shown ever has them.
//! Streams of gateways follow them and take what their identity may have. The plane learns their [`Inventory`] only.

mod inventory;

use std::collections::BTreeMap;
use std::sync::Arc;

use identity::TlsSecret;
use tokio::sync::watch;

pub(crate) use inventory::Inventory;

/// All secrets, by namespace and name.
pub type TlsSecrets = BTreeMap<(Arc<str>, Arc<str>), Arc<TlsSecret>>;

/// The secrets that there are now; clones are the same.
#[derive(Clone, Debug)]
pub struct GatewaySecrets {
    current: Arc<watch::Sender<Arc<TlsSecrets>>>,
    /// `None` until somebody has said which there are.
    inventory: Arc<watch::Sender<Option<Arc<Inventory>>>>,
}

impl Default for GatewaySecrets {
    /// None yet.
    fn default() -> Self {
        Self { current: Arc::new(watch::Sender::new(Arc::default())), inventory: Arc::new(watch::Sender::new(None)) }
    }
}

impl GatewaySecrets {
    /// Replaces all of them. Whoever has one that is different gets it at once; whoever has one that is gone keeps it
    /// until it connects anew.
    pub fn replace(&self, secrets: TlsSecrets) {
        let inventory = Some(Arc::new(Inventory::of(&secrets)));
        self.inventory.send_if_modified(|known| {
            let is_different = *known != inventory;
            *known = inventory;
            is_different
        });
        self.current.send_if_modified(|current| {
            let is_different = **current != secrets;
            if is_different {
                *current = Arc::new(secrets);
            }
            is_different
        });
    }

    /// What there is now, and what follows.
    pub(crate) fn follow(&self) -> watch::Receiver<Arc<TlsSecrets>> {
        self.current.subscribe()
    }

    /// Which there are, for those who must not have them.
    pub(crate) fn inventory(&self) -> watch::Receiver<Option<Arc<Inventory>>> {
        self.inventory.subscribe()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn no_key_is_shown_by_what_holds_it() {
        let key = rcgen::KeyPair::generate().unwrap();
        let chain = rcgen::CertificateParams::new(["shop".to_owned()]).unwrap().self_signed(&key).unwrap().pem();
        let mut keys = testkit::leaks::Secrets::default();
        keys.add_key("shop", &key.serialize_pem());
        keys.add_text("password", "correct-horse-battery");
        let secret = TlsSecret::new(Some(&chain), Some(&key.serialize_pem()), None).unwrap();
        let secrets = GatewaySecrets::default();
        secrets.replace(TlsSecrets::from([(("edge".into(), "shop".into()), Arc::new(secret))]));
        let quotas = crate::QuotaStore::Redis("redis://a:correct-horse-battery@127.0.0.1".to_owned());
        let config = crate::Config { quotas, ..Default::default() };
        for shown in [format!("{secrets:?}"), format!("{:?}", secrets.follow()), format!("{config:#?}")] {
            assert_eq!(keys.in_bytes(shown.as_bytes()), [], "{shown}");
        }
    }
}
