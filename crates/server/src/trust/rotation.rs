//! The steps by which a root of our own is replaced, and what is kept of each before it counts.

use std::sync::PoisonError;
use std::time::SystemTime;

use identity::{Rotation, Stage};

use super::{AuthoritySource, Issuer, StateError};

/// Who goes a step, for the log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Actor {
    /// Who, in their own words.
    pub(crate) name: String,
    /// Why.
    pub(crate) reason: String,
    /// Clients that lacked something, when it was gone all the same.
    pub(crate) forced_over: Option<usize>,
}

/// Why a step is not gone.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StepError {
    /// The authority is somebody else's.
    #[error("the authority is plugged in: it is replaced by replacing its files")]
    PluggedIn,
    /// There is a rotation already.
    #[error("a rotation is under way")]
    UnderWay,
    /// The rotation is in another stage than the one that is to end, or there is none.
    #[error("the rotation is not in this stage any more")]
    Moved,
    /// Certificates of the new root are in use.
    #[error("the new root has begun to sign: the rotation cannot be given up any more")]
    TooLate,
    /// What it needs cannot be read or written. Everything is as it was.
    #[error(transparent)]
    State(#[from] StateError),
}

impl Issuer {
    /// Makes the next root and distributes it beside the one that signs. Blocks on the disk.
    pub(crate) fn begin_rotation(&self, actor: &Actor) -> Result<(), StepError> {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.source != AuthoritySource::Own {
            return Err(StepError::PluggedIn);
        }
        let signer = self.signer();
        if signer.rotation().is_some() {
            return Err(StepError::UnderWay);
        }
        let rotation = signer.prepare_next(&self.state, &self.trust_domain, self.key_type)?;
        self.step("rotation-begun", &rotation, actor)?;
        self.state.keep_rotation(&rotation)?;
        self.reopen()?;
        tracing::info!(from = rotation.from, to = rotation.to, by = actor.name, "rotation of the root begun");
        Ok(())
    }

    /// Ends the stage, if it is this one, and begins the next. Blocks on the disk.
    pub(crate) fn advance_rotation(&self, stage: Stage, actor: &Actor) -> Result<(), StepError> {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let signer = self.signer();
        let rotation = signer.rotation().filter(|rotation| rotation.stage == stage).ok_or(StepError::Moved)?;
        let next = rotation.next(SystemTime::now()).ok_or(StepError::Moved)?;
        let event = match next.stage {
            Stage::Distributing => "rotation-begun",
            Stage::Reissuing => "issuer-switched",
            Stage::Retiring => "root-retired",
        };
        self.step(event, &next, actor)?;
        self.state.keep_rotation(&next)?;
        self.reopen()?;
        tracing::info!(event, from = next.from, to = next.to, by = actor.name, "rotation of the root");
        Ok(())
    }

    /// Gives the rotation up, while the new root has signed nothing. Blocks on the disk.
    pub(crate) fn abort_rotation(&self, actor: &Actor) -> Result<(), StepError> {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let signer = self.signer();
        let rotation = signer.rotation().ok_or(StepError::Moved)?;
        if rotation.stage != Stage::Distributing {
            return Err(StepError::TooLate);
        }
        self.step("rotation-aborted", rotation, actor)?;
        self.state.end_rotation()?;
        self.reopen()?;
        tracing::info!(to = rotation.to, by = actor.name, "rotation of the root given up");
        Ok(())
    }

    /// What cannot be booked is not done.
    fn step(&self, event: &str, rotation: &Rotation, actor: &Actor) -> Result<(), StateError> {
        let Rotation { from, to, .. } = rotation;
        let mut more = vec![("from", from.clone()), ("to", to.clone()), ("by", actor.name.clone())];
        more.extend((!actor.reason.is_empty()).then(|| ("reason", actor.reason.clone())));
        more.extend(actor.forced_over.map(|lacking| ("forced_over", lacking.to_string())));
        self.record(event, &more)
    }
}
