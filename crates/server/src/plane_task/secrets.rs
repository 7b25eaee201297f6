//! Which secrets there are for gateways, as the plane learns it: when it changes, and when a certificate is over.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::sync::watch;
use world::SecretList;

use super::until;
use crate::gateway_secrets::Inventory;
use crate::trust::look_at;

/// Follows the inventory.
#[derive(Debug)]
pub(super) struct Secrets {
    inventory: watch::Receiver<Option<Arc<Inventory>>>,
    /// When it is to be looked at again, because a certificate may be over.
    due: Option<Instant>,
    told: Option<SecretList>,
}

impl Secrets {
    pub(super) fn new(inventory: watch::Receiver<Option<Arc<Inventory>>>) -> Self {
        Self { inventory, due: None, told: None }
    }

    /// Waits until [`Secrets::take`] may have something.
    pub(super) async fn changed(&mut self) {
        let due = self.due;
        tokio::select! {
            Ok(()) = self.inventory.changed() => self.inventory.mark_changed(),
            () = until(due) => {}
            // Nobody will say anything else, and nothing is due.
            else => std::future::pending().await,
        }
    }

    /// What there is, if that is something else than before.
    pub(super) fn take(&mut self) -> Option<SecretList> {
        let is_due = self.due.is_some_and(|due| due <= Instant::now());
        // While it is not known whether anything follows, what is there counts.
        if !is_due && !self.inventory.has_changed().unwrap_or(false) {
            return None;
        }
        let inventory = self.inventory.borrow_and_update().clone()?;
        let (list, next) = inventory.at(SystemTime::now());
        // A certificate is over after its last second.
        self.due = next.map(|end| look_at(end + std::time::Duration::from_secs(1)));
        let is_other = self.told.as_ref() != Some(&list);
        self.told = Some(list);
        self.told.clone().filter(|_| is_other)
    }
}
