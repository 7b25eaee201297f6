//! The objects about rollouts that are in force, as a latest value: who lists or watches them asks nobody, and the world
//! is never gone over for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;
use world::{Change, Kind, Object, ObjectRef, World};

/// The objects in order, each with its generation.
pub(crate) type Catalogued = BTreeMap<ObjectRef, (Arc<Object>, i64)>;

/// Keeps the list up to date.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    objects: watch::Sender<Catalogued>,
}

impl Catalog {
    /// Where the list is seen.
    pub(super) fn subscribe(&self) -> watch::Receiver<Catalogued> {
        self.objects.subscribe()
    }

    /// The object that a change is about, if it is one of those that are listed.
    pub(super) fn concerned(change: &Change) -> Option<ObjectRef> {
        let reference = match change {
            Change::Apply(object) => &object.reference,
            Change::Remove(reference) => reference,
        };
        let listed = [Kind::DeploymentIntent, Kind::AnalysisProfile, Kind::Freeze, Kind::RolloutRun];
        listed.contains(&reference.kind).then(|| reference.clone())
    }

    /// These are as the world has them now.
    pub(super) fn update(&self, changed: &[ObjectRef], world: &World) {
        self.objects.send_if_modified(|objects| {
            for reference in changed {
                match world.object(reference) {
                    Some(object) => {
                        objects.insert(reference.clone(), (object.clone(), world.generation(reference)));
                    }
                    None => _ = objects.remove(reference),
                }
            }
            !changed.is_empty()
        });
    }
}
