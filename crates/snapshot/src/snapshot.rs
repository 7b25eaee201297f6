//! What one node receives: a stack of layers.

use std::collections::HashSet;
use std::sync::Arc;

use proto::ResourceType;

use crate::layer::Step;
use crate::{Body, Cell, Layer, Name, Version};

/// The stack of layers of one node. Names are unique over the stack: should two layers hold the same one, the first
/// layer's counts. Cloning is cheap.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    layers: Arc<[Arc<Layer>]>,
}

/// What differs in one type between two snapshots.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// New and changed resources, in order of name within each layer.
    pub changed: Vec<Arc<Cell>>,
    /// Names that are gone.
    pub removed: Vec<Name>,
    /// What was compared layer by layer, if it was.
    steps: Vec<Step>,
}

impl Changes {
    /// The delta entries of `changed`, in one body; shared with all who ask for the same changes.
    pub fn delta_body(&self) -> Body {
        match self.steps.is_empty() {
            true => Body::join(self.changed.iter().map(|cell| cell.delta_entry())),
            false => self.steps.iter().fold(Body::default(), |body, step| body.chain(step.delta_body())),
        }
    }
}

/// A reference to a resource that is not in the snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dangling {
    /// The resource that refers.
    pub from: (ResourceType, Name),
    /// What it refers to.
    pub to: (ResourceType, Name),
}

impl Snapshot {
    /// Stacks layers.
    pub fn new(layers: impl IntoIterator<Item = Arc<Layer>>) -> Self {
        Self { layers: layers.into_iter().collect() }
    }

    /// The layers, first to last.
    pub fn layers(&self) -> &[Arc<Layer>] {
        &self.layers
    }

    /// Whether both are made of the very same layers.
    pub fn same_as(&self, other: &Snapshot) -> bool {
        // Mostly one is a clone of the other.
        Arc::ptr_eq(&self.layers, &other.layers)
            || self.layers.len() == other.layers.len()
                && self.layers.iter().zip(other.layers.iter()).all(|(a, b)| Arc::ptr_eq(a, b))
    }

    /// Whether both have the very same resources of a type. False for some that are equal: it looks at no resource.
    pub fn is_same_in(&self, resource_type: ResourceType, other: &Snapshot) -> bool {
        let is_same = |(a, b): (&Arc<Layer>, &Arc<Layer>)| {
            Arc::ptr_eq(a, b) || a.identity(resource_type) == b.identity(resource_type)
        };
        self.layers.len() == other.layers.len() && self.layers.iter().zip(other.layers.iter()).all(is_same)
    }

    /// The resource of this type and name.
    pub fn get(&self, resource_type: ResourceType, name: &str) -> Option<&Arc<Cell>> {
        self.layers.iter().find_map(|layer| layer.get(resource_type, name))
    }

    /// All resources of a type: in order of name within each layer.
    pub fn iter(&self, resource_type: ResourceType) -> impl Iterator<Item = &Arc<Cell>> {
        self.layers.iter().flat_map(move |layer| layer.iter(resource_type))
    }

    /// The resources of a type whose name begins with `parent` and a slash: in order of name within each layer.
    pub fn under(&self, resource_type: ResourceType, parent: &str) -> impl Iterator<Item = &Arc<Cell>> {
        self.layers.iter().flat_map(move |layer| layer.under(resource_type, parent))
    }

    /// What stands before the last slash in the names of a type, in order within each layer; may repeat between layers.
    pub fn parents(&self, resource_type: ResourceType) -> impl Iterator<Item = &str> {
        self.layers.iter().flat_map(move |layer| layer.parents(resource_type))
    }

    /// The resource that the alias `name` stands for, such as `80/reviews` for the virtual host with that domain.
    pub fn by_alias(&self, resource_type: ResourceType, name: &str) -> Option<&Arc<Cell>> {
        self.layers.iter().find_map(|layer| layer.by_alias(resource_type, name))
    }

    /// How many resources of a type there are.
    pub fn len(&self, resource_type: ResourceType) -> usize {
        self.layers.iter().map(|layer| layer.len(resource_type)).sum()
    }

    /// Whether there is no resource at all.
    pub fn is_empty(&self) -> bool {
        self.layers.iter().all(|layer| layer.is_empty())
    }

    /// The version of all resources of a type together.
    pub fn version(&self, resource_type: ResourceType) -> Version {
        self.layers.iter().fold(Version::default(), |sum, layer| sum.plus(layer.version(resource_type)))
    }

    /// Whether any resource of a type has a TTL: then clients that know of TTLs are not sent the shared sections below.
    pub fn has_ttl(&self, resource_type: ResourceType) -> bool {
        self.layers.iter().any(|layer| layer.has_ttl(resource_type))
    }

    /// The version of all resources of a type together if some of them were in another form, or not there.
    pub fn version_with<'a>(
        &self,
        resource_type: ResourceType,
        forms: impl IntoIterator<Item = (&'a Name, Option<&'a Arc<Cell>>)>,
    ) -> Version {
        forms.into_iter().fold(self.version(resource_type), |sum, (name, form)| {
            let sum = self.get(resource_type, name).map_or(sum, |cell| sum.minus(cell.member()));
            form.map_or(sum, |form| sum.plus(form.member()))
        })
    }

    /// The `resources` section of a state-of-the-world response with every resource of a type; shared.
    pub fn all_sotw(&self, resource_type: ResourceType) -> Body {
        self.layers.iter().fold(Body::default(), |body, layer| body.chain(layer.all_sotw(resource_type)))
    }

    /// The `resources` section of a delta response with every resource of a type; shared.
    pub fn all_delta(&self, resource_type: ResourceType) -> Body {
        self.layers.iter().fold(Body::default(), |body, layer| body.chain(layer.all_delta(resource_type)))
    }

    /// What differs in a type since `from`. Costs what changed when both stacks were made from the same layers by
    /// editing, and the size of both otherwise.
    pub fn changes(&self, from: &Snapshot, resource_type: ResourceType) -> Changes {
        if self.layers.len() != from.layers.len() {
            return self.changes_between_other_stacks(from, resource_type);
        }
        let mut changes = Changes::default();
        for (old, new) in from.layers.iter().zip(self.layers.iter()) {
            if Arc::ptr_eq(old, new) || old.version(resource_type) == new.version(resource_type) {
                continue;
            }
            let step = new.step(old, resource_type);
            changes.changed.extend(step.changed.iter().cloned());
            changes.removed.extend(step.removed.iter().filter(|n| self.get(resource_type, n).is_none()).cloned());
            changes.steps.push(step);
        }
        changes
    }

    fn changes_between_other_stacks(&self, from: &Snapshot, resource_type: ResourceType) -> Changes {
        let is_new =
            |cell: &&Arc<Cell>| from.get(resource_type, cell.name()).is_none_or(|old| !cell.says_the_same(old));
        let changed: Vec<_> = self.iter(resource_type).filter(is_new).cloned().collect();
        let gone = |cell: &&Arc<Cell>| self.get(resource_type, cell.name()).is_none();
        let removed = from.iter(resource_type).filter(gone).map(|cell| cell.name().clone()).collect();
        Changes { changed, removed, steps: Vec::new() }
    }

    /// The same for these names only. Costs their number, however much else differs.
    pub fn changes_of<'n>(
        &self,
        from: &Snapshot,
        resource_type: ResourceType,
        names: impl Iterator<Item = &'n Name>,
    ) -> Changes {
        let mut changes = Changes::default();
        for name in names {
            match (from.get(resource_type, name), self.get(resource_type, name)) {
                (Some(old), Some(new)) if new.says_the_same(old) => {}
                (_, Some(new)) => changes.changed.push(new.clone()),
                (Some(_), None) => changes.removed.push(name.clone()),
                (None, None) => {}
            }
        }
        changes
    }

    /// Every reference that leads nowhere: none in a closed snapshot.
    pub fn dangling(&self) -> Vec<Dangling> {
        let mut found = Vec::new();
        let mut seen = HashSet::new();
        for resource_type in ResourceType::ALL {
            for cell in self.iter(resource_type) {
                for (to_type, to_name) in cell.references() {
                    if self.get(*to_type, to_name).is_none() && seen.insert((cell.name().clone(), to_name.clone())) {
                        found.push(Dangling {
                            from: (resource_type, cell.name().clone()),
                            to: (*to_type, to_name.clone()),
                        });
                    }
                }
            }
        }
        found
    }
}
