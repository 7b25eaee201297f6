//! Sets of resource types.

use proto::ResourceType;

/// Some types, a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Types(u16);

const _: () = assert!(ResourceType::ALL.len() <= u16::BITS as usize, "every type has a bit");

impl Types {
    pub(crate) fn contains(self, resource_type: ResourceType) -> bool {
        self.0 & bit(resource_type) != 0
    }

    pub(crate) fn insert(&mut self, resource_type: ResourceType) {
        self.0 |= bit(resource_type);
    }

    pub(crate) fn remove(&mut self, resource_type: ResourceType) {
        self.0 &= !bit(resource_type);
    }
}

fn bit(resource_type: ResourceType) -> u16 {
    1 << resource_type.index()
}
