//! What a client brings to prove who it is, until it says which node it is.

use std::pin::Pin;
use std::sync::Arc;

use http::{HeaderMap, header};
use tonic::Status;
use xds::Node;

use crate::trust::{Caller, Channel, Verdict};

/// Who a client is, or UNAUTHENTICATED, PERMISSION_DENIED, or UNAVAILABLE when that cannot be said now.
pub(super) enum Admitted {
    Known(Result<Arc<Caller>, Status>),
    /// Somebody else is being asked.
    Awaited(Admitting),
}

/// The same, once it is known.
pub(super) type Admitting = Pin<Box<dyn Future<Output = Result<Arc<Caller>, Status>> + Send>>;

/// The proof that a stream began with: the connection's certificate, and the head with a bearer token.
#[derive(Debug)]
pub(super) struct Proof {
    channel: Channel,
    /// The `authorization` of the head alone.
    headers: HeaderMap,
}

impl Proof {
    /// What the head of a stream on this channel brings; `None` when it brings nothing.
    pub(super) fn of(channel: &Channel, headers: &HeaderMap) -> Option<Self> {
        let token = headers.get(header::AUTHORIZATION).cloned();
        let kept = token.into_iter().map(|mut token| {
            // Not to be seen in `Debug`.
            token.set_sensitive(true);
            (header::AUTHORIZATION, token)
        });
        let kept = kept.collect();
        channel.has_proof(headers).then(|| Self { channel: channel.clone(), headers: kept })
    }

    /// Who the client is, if that may be this node. A join token for one use is used by this.
    pub(super) fn admit(self, node: &Arc<Node>) -> Admitted {
        match self.channel.caller(&self.headers) {
            Verdict::Known(caller) => Admitted::Known(admitted(caller, node)),
            Verdict::Awaited(proving) => {
                let node = node.clone();
                Admitted::Awaited(Box::pin(async move { admitted(proving.await, &node) }))
            }
        }
    }
}

fn admitted(caller: Result<Caller, Status>, node: &Node) -> Result<Arc<Caller>, Status> {
    let caller = caller?;
    caller.may_be(&node.id, &node.metadata)?;
    Ok(Arc::new(caller))
}
