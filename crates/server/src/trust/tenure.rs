//! How long a proof of identity holds.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::time::{Duration, Instant, SystemTime};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;

use super::Caller;

/// A clock that is set forward is noticed within this time.
const LONGEST: Duration = Duration::from_secs(60);

/// Tells a stream when the proof that it began with is over: because its time is, or because it was revoked.
pub(crate) struct Tenure {
    /// Until when it holds.
    until: SystemTime,
    /// When to look at the clock.
    look_at: Instant,
    revoked: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    /// Keeps the proof among those that are looked at.
    _lease: Option<Arc<CancellationToken>>,
}

impl fmt::Debug for Tenure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tenure").field("until", &self.until).finish_non_exhaustive()
    }
}

impl Tenure {
    /// Of a caller whose proof can be over before its connection is; `None` for others. Certificates are the connection's.
    pub(crate) fn of(caller: &Caller) -> Option<Box<Self>> {
        let until = caller.until?;
        let revoked = caller.lease.as_ref().map(|lease| Box::pin((**lease).clone().cancelled_owned()));
        Some(Box::new(Self { until, look_at: look_at(until), revoked, _lease: caller.lease.clone() }))
    }

    /// Why the stream must end, if it must.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, now: Instant) -> Option<Status> {
        if now >= self.look_at {
            if SystemTime::now() >= self.until {
                return Some(Status::unauthenticated("the bearer token has expired; connect again with another one"));
            }
            self.look_at = look_at(self.until);
        }
        let is_revoked = self.revoked.as_mut().is_some_and(|revoked| revoked.as_mut().poll(cx).is_ready());
        is_revoked.then(|| Status::unauthenticated("the bearer token was revoked"))
    }

    /// When it must be polled even if nothing happens.
    pub(crate) fn deadline(&self) -> Instant {
        self.look_at
    }
}

/// When to look at the clock next for a time that lies in the future.
pub(crate) fn look_at(until: SystemTime) -> Instant {
    Instant::now() + until.duration_since(SystemTime::now()).unwrap_or_default().min(LONGEST)
}
