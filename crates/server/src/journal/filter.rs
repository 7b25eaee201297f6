//! Which events somebody wants to see.

use std::collections::VecDeque;

use crate::view::{Event, EventKind};

/// Generations in which the object changed that are remembered.
const GENERATIONS: usize = 64;

/// Empty texts stand for everything. What happens to responses is known by generation, not by object: those of
/// generations in which the object changed pass.
#[derive(Clone, Debug, Default)]
pub(crate) struct EventFilter {
    /// `virtualservice/default/reviews`.
    object: String,
    /// A node's id.
    node: String,
    /// Names of kinds of events.
    kinds: Vec<EventKind>,
    generations: VecDeque<u64>,
}

impl EventFilter {
    /// Events about this object, this node, and of these kinds.
    pub(crate) fn new(object: String, node: String, kinds: Vec<EventKind>) -> Self {
        Self { object, node, kinds, generations: VecDeque::new() }
    }

    /// Whether an event passes. Told of all, in order.
    pub(crate) fn takes(&mut self, event: &Event) -> bool {
        if event.kind == EventKind::Lost {
            return true;
        }
        let of_object = self.object.is_empty() || self.is_of_object(event);
        let of_node = self.node.is_empty() || event.node_id.is_empty() || event.node_id == self.node;
        of_object && of_node && (self.kinds.is_empty() || self.kinds.contains(&event.kind))
    }

    fn is_of_object(&mut self, event: &Event) -> bool {
        let names_it = event.objects.contains(&self.object);
        match event.kind {
            EventKind::Published => {
                // Of a publication with more objects than are named, it may be one.
                let may_be = names_it || event.count > event.objects.len();
                if may_be {
                    if self.generations.len() == GENERATIONS {
                        self.generations.pop_front();
                    }
                    self.generations.push_back(event.generation);
                }
                may_be
            }
            EventKind::Sent | EventKind::Accepted | EventKind::Waiting => self.generations.contains(&event.generation),
            EventKind::WaitExpired => names_it || self.generations.contains(&event.generation),
            EventKind::Held | EventKind::Released => names_it,
            EventKind::Rejected | EventKind::Isolated | EventKind::Cleared => {
                names_it || event.objects.is_empty() && self.generations.contains(&event.generation)
            }
            EventKind::Connected | EventKind::Disconnected => false,
            EventKind::Lost => true,
        }
    }
}
