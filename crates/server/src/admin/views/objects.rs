//! Objects and the nodes that they concern.

use plane::ObjectView;
use world::{Kind, ObjectRef};

use super::{Page, Views, by_id, held};
use crate::admin::index::Index;
use crate::discovery::Roster;
use crate::view::{ObjectState, ResourceState};
use crate::{Stopped, view};

/// Which objects to list. An empty text stands for all.
#[derive(Clone, Debug, Default)]
pub(crate) struct ObjectFilter {
    /// `VirtualService` or `virtualservice`.
    pub(crate) kind: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) state: Option<ObjectState>,
}

impl ObjectFilter {
    fn takes(&self, reference: &ObjectRef) -> bool {
        (self.kind.is_empty() || self.kind.eq_ignore_ascii_case(reference.kind.as_str()))
            && (self.namespace.is_empty() || self.namespace == *reference.namespace)
            && (self.name.is_empty() || self.name == *reference.name)
    }
}

impl Views {
    /// The objects, and where they have arrived.
    pub(crate) async fn objects(&self, filter: ObjectFilter, page: Page) -> Result<view::Objects, Stopped> {
        let objects = self.plane.objects().await?;
        let reports = Roster::inspect(self.roster.identified(), false, self.patience).await;
        let held = self.held().await;
        let work = move || {
            let index = Index::new(by_id(reports), None);
            let mut wanted: Vec<_> = objects.iter().filter(|object| filter.takes(&object.reference)).collect();
            wanted.sort_by_cached_key(|object| place(&object.reference.path()));
            let is_after =
                |object: &&&ObjectView| page.after.is_empty() || place(&object.reference.path()) > place(&page.after);
            let mut shown: Vec<view::Object> = wanted
                .iter()
                .filter(is_after)
                .map(|object| {
                    let waiting = held::of_object(&object.reference, &held);
                    view::Object { waiting, ..index.describe(object) }
                })
                .filter(|object| filter.state.is_none_or(|state| object.state == state))
                .take(page.limit.saturating_add(1))
                .collect();
            let has_more = shown.len() > page.limit;
            shown.truncate(page.limit);
            let last = shown.last().filter(|_| has_more);
            let next = last.map(|o| reference(&o.kind, &o.namespace, &o.name).path()).unwrap_or_default();
            view::Objects { objects: shown, silent_nodes: index.silent_nodes(), next }
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| Stopped)
    }

    /// One object with all of its nodes; `None` when there is none of that name, no node holds anything of it, and
    /// nothing is kept of it.
    pub(crate) async fn object(
        &self,
        reference: ObjectRef,
        state: Option<ResourceState>,
        page: Page,
    ) -> Result<Option<view::ObjectNodes>, Stopped> {
        let (object, index) = self.look_at(&reference).await?;
        let path = reference.path();
        let waiting = held::of_object(&reference, &self.held().await);
        if object.is_none() && !index.knows(&path) && waiting.is_empty() {
            return Ok(None);
        }
        // Somebody still holds something of an object that is gone.
        let gone = || ObjectView { object: None, generation: 0, reference, problems: Vec::new() };
        let object = object.unwrap_or_else(gone);
        let mut nodes: Vec<_> = index
            .object_nodes(&path)
            .filter(|node| page.after.is_empty() || node.node_id > page.after)
            .filter(|node| state.is_none_or(|state| node.state == state))
            .take(page.limit.saturating_add(1))
            .collect();
        let has_more = nodes.len() > page.limit;
        nodes.truncate(page.limit);
        let next = nodes.last().filter(|_| has_more).map(|node| node.node_id.clone()).unwrap_or_default();
        let silent_nodes = index.silent_nodes();
        let object = view::Object { waiting, ..index.describe(&object) };
        Ok(Some(view::ObjectNodes { object, nodes, silent_nodes, next }))
    }

    /// One object, and how everybody stands to it. The plane is asked first: what it says of the object was published
    /// before the streams are asked.
    pub(super) async fn look_at(&self, reference: &ObjectRef) -> Result<(Option<ObjectView>, Index), Stopped> {
        let object = self.plane.object(reference.clone()).await?;
        let reports = Roster::inspect(self.roster.identified(), false, self.patience).await;
        let path = reference.path();
        let index = tokio::task::spawn_blocking(move || Index::new(by_id(reports), Some(std::slice::from_ref(&path))))
            .await
            .map_err(|_| Stopped)?;
        Ok((object, index))
    }

    /// Names of objects that somebody may have meant who said this one.
    pub(super) async fn similar(&self, reference: &ObjectRef) -> Result<Vec<String>, Stopped> {
        let objects = self.plane.objects().await?;
        let is_similar = |other: &ObjectRef| {
            other.name == reference.name || other.kind == reference.kind && other.namespace == reference.namespace
        };
        let mut names: Vec<_> =
            objects.iter().map(|object| &object.reference).filter(|other| is_similar(other)).collect();
        names.sort_by_key(|other| other.name != reference.name);
        Ok(names.into_iter().take(5).map(ObjectRef::path).collect())
    }
}

/// The object of this kind, however its letters are.
pub(crate) fn reference(kind: &str, namespace: &str, name: &str) -> ObjectRef {
    ObjectRef::new(Kind::named(kind), namespace, name)
}

/// Where a path stands in the order of kind, namespace and name.
fn place(path: &str) -> (String, String, String) {
    let mut parts = path.splitn(3, '/').map(str::to_owned);
    let mut next = || parts.next().unwrap_or_default();
    match (next(), next(), next()) {
        (kind, name, none) if none.is_empty() => (kind, String::new(), name),
        all => all,
    }
}
