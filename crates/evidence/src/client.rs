//! Who a stream of metrics or access logs is from.

use std::sync::Arc;

use proto::pb::envoy::config::core::v3::Node;

/// Why a stream must be closed: INVALID_ARGUMENT.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The first message names no node. Envoy names itself in the first message of a stream, and never again.
    #[error("the first message of a stream of metrics or access logs must hold an identifier whose node has an id")]
    NoNode,
}

/// The client of one stream.
#[derive(Debug, Default)]
pub struct Client {
    node: Option<Arc<str>>,
}

impl Client {
    /// Who the client is, as the first message says; what later ones say does not matter.
    ///
    /// # Errors
    /// [`Refusal::NoNode`].
    pub fn identify(&mut self, said: Option<&Node>) -> Result<&Arc<str>, Refusal> {
        if self.node.is_none() {
            let id = said.map(|node| &*node.id).filter(|id| !id.is_empty()).ok_or(Refusal::NoNode)?;
            self.node = Some(id.into());
        }
        self.node().ok_or(Refusal::NoNode)
    }

    /// Who the client is; `None` before the first message.
    pub fn node(&self) -> Option<&Arc<str>> {
        self.node.as_ref()
    }
}
