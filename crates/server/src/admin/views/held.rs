//! Ports of workloads that are gone and that are still kept, in words.

use plane::Held;
use world::ObjectRef;

use super::Views;
use crate::view;

impl Views {
    /// What is kept now. Nothing is said about it while the plane is too busy to answer.
    pub(super) async fn held(&self) -> Vec<Held> {
        tokio::time::timeout(self.patience, self.plane.held()).await.ok().and_then(Result::ok).unwrap_or_default()
    }
}

/// Tells nodes what they keep, and what others keep for them.
pub(super) fn tell_nodes(nodes: &mut [view::Node], held: &[Held]) {
    for node in nodes.iter_mut().filter(|node| node.disconnected.is_none()) {
        let concerns = |ids: &[String]| ids.binary_search(&node.id).is_ok();
        let of_node = held.iter().filter(|held| concerns(&held.kept_by) || concerns(&held.missing));
        node.waiting = of_node.map(words).collect();
    }
}

/// What is kept of an object.
pub(super) fn of_object(reference: &ObjectRef, held: &[Held]) -> Vec<String> {
    held.iter().filter(|held| held.object == *reference).map(words).collect()
}

fn words(held: &Held) -> String {
    format!("{held}, for {:.1} s", held.since.elapsed().as_secs_f64())
}
