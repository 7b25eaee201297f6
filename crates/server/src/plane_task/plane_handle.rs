//! The way to ask the plane.

use std::collections::HashSet;
use std::sync::Arc;

use plane::{Held, MemberId, NodeError, ObjectView, Plane};
use rollout::Picture;
use tokio::sync::{mpsc, oneshot, watch};
use world::{Kind, ObjectRef, Problem, Severity};

use super::{Attachment, Catalogued, Question};
use crate::Stopped;
use crate::jwks::Wanted;
use crate::quotas::Table;

/// Asks the plane's task. Cloning is cheap.
#[derive(Clone, Debug)]
pub(crate) struct PlaneHandle {
    ask: mpsc::Sender<Question>,
    synced: watch::Receiver<bool>,
    picture: watch::Receiver<Picture>,
    catalogued: watch::Receiver<Catalogued>,
    key_sets: watch::Receiver<Wanted>,
    limits: watch::Receiver<Arc<Table>>,
}

/// How much of what there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) services: usize,
    pub(crate) virtual_services: usize,
    pub(crate) objects: usize,
    pub(crate) audiences: usize,
    pub(crate) errors: usize,
    pub(crate) warnings: usize,
}

impl Counts {
    pub(super) fn of(plane: &Plane) -> Self {
        let world = plane.world();
        let problems = plane.problems();
        let errors = problems.iter().filter(|problem| problem.severity == Severity::Error).count();
        let is_virtual_service = |kind: &Kind| *kind == Kind::VirtualService;
        Self {
            services: world.hosts().count(),
            virtual_services: world.objects().filter(|object| is_virtual_service(&object.reference.kind)).count(),
            objects: world.objects().count(),
            audiences: plane.audiences(),
            errors,
            warnings: problems.len() - errors,
        }
    }
}

impl PlaneHandle {
    pub(super) fn new(
        ask: mpsc::Sender<Question>,
        synced: watch::Receiver<bool>,
        picture: watch::Receiver<Picture>,
        catalogued: watch::Receiver<Catalogued>,
        key_sets: watch::Receiver<Wanted>,
        limits: watch::Receiver<Arc<Table>>,
    ) -> Self {
        Self { ask, synced, picture, catalogued, key_sets, limits }
    }

    /// The key sets that are to be fetched, as they are at any time.
    pub(crate) fn key_sets(&self) -> watch::Receiver<Wanted> {
        self.key_sets.clone()
    }

    /// What rollouts go by, as it is seen at any time.
    pub(crate) fn picture(&self) -> watch::Receiver<Picture> {
        self.picture.clone()
    }

    /// The objects about rollouts that are in force, as they are at any time.
    pub(crate) fn catalogued(&self) -> watch::Receiver<Catalogued> {
        self.catalogued.clone()
    }

    /// The limits that proxies ask about, as they are at any time.
    pub(crate) fn limits(&self) -> watch::Receiver<Arc<Table>> {
        self.limits.clone()
    }

    /// Whether everything that the sources had at the start is in.
    pub(crate) fn is_synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// Waits for [`PlaneHandle::is_synced`]. Never returns when the plane's task ends before.
    pub(crate) async fn synced(&mut self) {
        if self.synced.wait_for(|synced| *synced).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Attaches a node to the audience that it belongs to, which may have to be compiled first.
    pub(crate) async fn attach(&self, node: plane::Node) -> Result<Result<Attachment, NodeError>, Stopped> {
        self.question(|reply| Question::Attach { node: Box::new(node), reply }).await
    }

    /// Every object, and every name that has a problem, in order.
    pub(crate) async fn objects(&self) -> Result<Vec<ObjectView>, Stopped> {
        self.question(|reply| Question::Objects { reply }).await
    }

    /// One object, or a name that has a problem.
    pub(crate) async fn object(&self, reference: ObjectRef) -> Result<Option<ObjectView>, Stopped> {
        self.question(|reply| Question::Object { reference, reply }).await
    }

    /// The generation of an object, 0 when there is none. What was said before the question is published.
    pub(crate) async fn generation(&self, reference: ObjectRef) -> Result<i64, Stopped> {
        self.question(|reply| Question::Generation { reference, reply }).await
    }

    /// The members whose traffic a run divides; `None` where it does not choose.
    pub(crate) async fn attached(&self, run: ObjectRef) -> Result<Option<HashSet<MemberId>>, Stopped> {
        self.question(|reply| Question::Attached { run, reply }).await
    }

    /// Every problem, in order.
    pub(crate) async fn problems(&self) -> Result<Vec<Problem>, Stopped> {
        self.question(|reply| Question::Problems { reply }).await
    }

    /// Ports of workloads that are gone and that are still kept, in order.
    pub(crate) async fn held(&self) -> Result<Vec<Held>, Stopped> {
        self.question(|reply| Question::Held { reply }).await
    }

    /// Returns when everything that was said before is published.
    pub(crate) async fn is_reached(&self) -> Result<(), Stopped> {
        let nothing = ObjectRef::new(Kind::Other("".into()), "", "");
        self.generation(nothing).await.map(|_| ())
    }

    /// How much of what there is.
    pub(crate) async fn counts(&self) -> Result<Counts, Stopped> {
        self.question(|reply| Question::Counts { reply }).await
    }

    async fn question<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Question) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.ask.send(question(reply)).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }
}
