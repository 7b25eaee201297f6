//! A set of resources that all nodes with equal inputs share.

use std::collections::HashMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, OnceLock};

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use proto::ResourceType;

use crate::alias::{Aliases, parent};
use crate::{Body, Cell, Name, Version};

const TYPES: usize = ResourceType::ALL.len();

/// Resources of every type by name. Immutable; [`Layer::edit`] makes the next one.
#[derive(Debug, Default)]
pub struct Layer {
    generation: u64,
    /// Shared with the layer before where nothing changed, with all that was built for it.
    kinds: [Arc<KindSet>; TYPES],
}

#[derive(Debug, Default)]
struct KindSet {
    cells: OrdMap<Name, Arc<Cell>>,
    version: Version,
    /// How many of them have a TTL.
    ttls: usize,
    all_sotw: OnceLock<Body>,
    all_delta: OnceLock<Body>,
    aliases: OnceLock<Aliases>,
    /// Delta bodies by the content version that they start from.
    steps: Mutex<HashMap<Version, Step>>,
}

/// What happened to one type between two layers.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) changed: Arc<[Arc<Cell>]>,
    pub(crate) removed: Arc<[Name]>,
    /// Made for whoever wants all of it: most of those who fell behind want little.
    delta_body: Arc<OnceLock<Body>>,
}

impl Layer {
    /// An empty layer.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Counts the edits that led here.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Begins the next layer.
    pub fn edit(self: &Arc<Self>) -> Edit {
        let kinds = std::array::from_fn(|i| Draft::of(&self.kinds[i]));
        Edit { base: self.clone(), kinds, changed: [false; TYPES] }
    }

    /// The resource of this type and name.
    pub fn get(&self, resource_type: ResourceType, name: &str) -> Option<&Arc<Cell>> {
        self.kind(resource_type).cells.get(name)
    }

    /// All resources of a type, in order of name.
    pub fn iter(&self, resource_type: ResourceType) -> impl Iterator<Item = &Arc<Cell>> {
        self.kind(resource_type).cells.values()
    }

    /// The resources of a type whose name begins with `parent` and a slash, in order of name. Costs their number.
    pub fn under(&self, resource_type: ResourceType, parent: &str) -> impl Iterator<Item = &Arc<Cell>> {
        let prefix = format!("{parent}/");
        let from = (Bound::Included(&*prefix), Bound::Unbounded);
        let cells = self.kind(resource_type).cells.range::<_, str>(from);
        cells.take_while(move |(name, _)| name.starts_with(&prefix)).map(|(_, cell)| cell)
    }

    /// The resource that the alias `name` stands for. The first question after a change costs the number of aliases.
    pub fn by_alias(&self, resource_type: ResourceType, name: &str) -> Option<&Arc<Cell>> {
        let kind = self.kind(resource_type);
        let aliases = kind.aliases.get_or_init(|| Aliases::of(kind.cells.values()));
        kind.cells.get(aliases.resolve(name)?)
    }

    /// What stands before the last slash in the names of a type, each once and in order. Costs their number, not that of
    /// the resources.
    pub fn parents(&self, resource_type: ResourceType) -> impl Iterator<Item = &str> {
        let cells = &self.kind(resource_type).cells;
        let mut next = cells.get_min().map(|(name, _)| name);
        std::iter::from_fn(move || {
            loop {
                let name = next?;
                let parent = parent(name);
                // The character after the slash: what follows is behind all that this parent has.
                let behind = parent.map(|parent| format!("{parent}0"));
                let from = match &behind {
                    Some(behind) => Bound::Included(&**behind),
                    None => Bound::Excluded(&**name),
                };
                next = cells.range::<_, str>((from, Bound::Unbounded)).next().map(|(name, _)| name);
                if parent.is_some() {
                    return parent;
                }
            }
        })
    }

    /// How many resources of a type there are.
    pub fn len(&self, resource_type: ResourceType) -> usize {
        self.kind(resource_type).cells.len()
    }

    /// Whether there is no resource of any type.
    pub fn is_empty(&self) -> bool {
        self.kinds.iter().all(|kind| kind.cells.is_empty())
    }

    /// The version of all resources of a type together.
    pub fn version(&self, resource_type: ResourceType) -> Version {
        self.kind(resource_type).version
    }

    /// Whether any resource of a type has a TTL.
    pub(crate) fn has_ttl(&self, resource_type: ResourceType) -> bool {
        self.kind(resource_type).ttls > 0
    }

    /// Names the set of resources of a type: equal for layers that share the very same set, for as long as one of them
    /// is alive.
    pub fn identity(&self, resource_type: ResourceType) -> usize {
        Arc::as_ptr(&self.kinds[resource_type.index()]) as usize
    }

    /// What `from` has of a type under names that this layer has not, in order of name. Costs what differs when one was
    /// made from the other by editing.
    pub fn gone<'a>(&'a self, from: &'a Layer, resource_type: ResourceType) -> impl Iterator<Item = &'a Arc<Cell>> {
        self.differences(from, resource_type).filter_map(|item| match item {
            DiffItem::Remove(_, cell) => Some(cell),
            DiffItem::Add(..) | DiffItem::Update { .. } => None,
        })
    }

    /// Names of a type that are new, gone, or of another version since `from`, in order. Costs what differs.
    pub fn changed_names<'a>(&'a self, from: &'a Layer, resource_type: ResourceType) -> impl Iterator<Item = &'a Name> {
        self.differences(from, resource_type).filter_map(|item| match item {
            DiffItem::Add(name, _) | DiffItem::Remove(name, _) => Some(name),
            DiffItem::Update { old: (_, old), new: (name, new) } => (!new.says_the_same(old)).then_some(name),
        })
    }

    fn differences<'a>(
        &'a self,
        from: &'a Layer,
        resource_type: ResourceType,
    ) -> impl Iterator<Item = DiffItem<'a, 'a, Name, Arc<Cell>>> {
        let (old, new) = (&from.kind(resource_type).cells, &self.kind(resource_type).cells);
        let is_same = old.ptr_eq(new);
        (!is_same).then(|| old.diff(new)).into_iter().flatten()
    }

    /// Every entry of a type for a state-of-the-world response; built once.
    pub(crate) fn all_sotw(&self, resource_type: ResourceType) -> &Body {
        let kind = self.kind(resource_type);
        kind.all_sotw.get_or_init(|| {
            let entries: Vec<_> = kind.cells.values().map(|cell| cell.sotw_entry()).collect();
            Body::join(&entries)
        })
    }

    /// Every entry of a type for a delta response; built once.
    pub(crate) fn all_delta(&self, resource_type: ResourceType) -> &Body {
        let kind = self.kind(resource_type);
        kind.all_delta.get_or_init(|| Body::join(kind.cells.values().map(|cell| cell.delta_entry())))
    }

    /// What changed of a type since `from`; built once for each starting content.
    pub(crate) fn step(&self, from: &Layer, resource_type: ResourceType) -> Step {
        let (old, new) = (from.kind(resource_type), self.kind(resource_type));
        let mut steps = new.steps.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        steps.entry(old.version).or_insert_with(|| Step::between(&old.cells, &new.cells)).clone()
    }

    fn kind(&self, resource_type: ResourceType) -> &KindSet {
        &self.kinds[resource_type.index()]
    }
}

impl Step {
    fn between(old: &OrdMap<Name, Arc<Cell>>, new: &OrdMap<Name, Arc<Cell>>) -> Self {
        let mut changed = Vec::new();
        let mut removed = Vec::new();
        if !old.ptr_eq(new) {
            // The comparison passes over shared subtrees, so it costs what changed.
            for item in old.diff(new) {
                match item {
                    DiffItem::Add(_, cell) => changed.push(cell.clone()),
                    DiffItem::Remove(name, _) => removed.push(name.clone()),
                    DiffItem::Update { old: (_, old), new: (_, new) } => {
                        if !new.says_the_same(old) {
                            changed.push(new.clone());
                        }
                    }
                }
            }
        }
        Self { changed: changed.into(), removed: removed.into(), delta_body: Arc::default() }
    }

    /// The delta entries of what changed, in one shared body.
    pub(crate) fn delta_body(&self) -> &Body {
        self.delta_body.get_or_init(|| Body::join(self.changed.iter().map(|cell| cell.delta_entry())))
    }
}

/// A layer in the making.
#[derive(Debug)]
pub struct Edit {
    base: Arc<Layer>,
    kinds: [Draft; TYPES],
    changed: [bool; TYPES],
}

/// The resources of one type in the making.
#[derive(Debug)]
struct Draft {
    cells: OrdMap<Name, Arc<Cell>>,
    version: Version,
    ttls: usize,
}

impl Draft {
    fn of(kind: &KindSet) -> Self {
        Self { cells: kind.cells.clone(), version: kind.version, ttls: kind.ttls }
    }

    fn count(&mut self, cell: &Cell) {
        self.version = self.version.plus(cell.member());
        self.ttls += usize::from(cell.ttl().is_some());
    }

    fn discount(&mut self, cell: &Cell) {
        self.version = self.version.minus(cell.member());
        self.ttls -= usize::from(cell.ttl().is_some());
    }
}

impl Edit {
    /// Puts a resource in. One that is there already with the same content stays as it is, so that what has been
    /// sent need not be looked at again.
    pub fn set(&mut self, cell: Cell) {
        let at = cell.resource_type().index();
        let draft = &mut self.kinds[at];
        if let Some(old) = draft.cells.get(cell.name()).cloned() {
            if old.is_same_as(&cell) {
                return;
            }
            draft.discount(&old);
        }
        draft.count(&cell);
        draft.cells.insert(cell.name().clone(), Arc::new(cell));
        self.changed[at] = true;
    }

    /// Takes a resource out, if it is there.
    pub fn remove(&mut self, resource_type: ResourceType, name: &str) {
        let at = resource_type.index();
        let draft = &mut self.kinds[at];
        if let Some(old) = draft.cells.remove(name) {
            draft.discount(&old);
            self.changed[at] = true;
        }
    }

    /// The resource as it stands now.
    pub fn get(&self, resource_type: ResourceType, name: &str) -> Option<&Arc<Cell>> {
        self.kinds[resource_type.index()].cells.get(name)
    }

    /// The next layer; the very same one when nothing changed.
    pub fn finish(self) -> Arc<Layer> {
        if !self.changed.contains(&true) {
            return self.base;
        }
        let mut kinds = self.base.kinds.clone();
        for ((kind, Draft { cells, version, ttls }), changed) in kinds.iter_mut().zip(self.kinds).zip(self.changed) {
            if changed {
                *kind = Arc::new(KindSet { cells, version, ttls, ..KindSet::default() });
            }
        }
        Arc::new(Layer { generation: self.base.generation + 1, kinds })
    }
}
