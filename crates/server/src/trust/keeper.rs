//! The task that keeps certificates and key sets fresh.

use std::time::{Duration, SystemTime};

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::Trust;

/// How often it is looked whether something is due.
const EVERY: Duration = Duration::from_secs(1);

/// Replaces what is due until `stop` is cancelled.
pub(crate) async fn keep(trust: Trust, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let (certificate, issuer, gate) = (trust.certificate.clone(), trust.issuer.clone(), trust.gate.clone());
        // Files are looked at where blocking hurts nobody. It cannot fail but by a panic, which was reported then.
        let looking = move || {
            issuer.refresh();
            certificate.refresh(SystemTime::now());
            gate.end_revoked();
        };
        let _ = tokio::task::spawn_blocking(looking).await;
        if let Some(accounts) = trust.gate.accounts() {
            tokio::select! {
                () = stop.cancelled() => return,
                () = accounts.refresh() => {}
            }
        }
    }
}
