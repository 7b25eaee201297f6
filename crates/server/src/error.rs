//! Why a server cannot be bound or had to end.

use std::io;
use std::path::PathBuf;

use crate::{Listen, StateError};

/// What keeps the server from serving.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be listened at: in use, not of this machine, or not permitted.
    #[error("cannot listen at {listen}: {source}")]
    Bind {
        /// Where.
        listen: Listen,
        /// Why.
        source: io::Error,
    },
    /// A process answers on the Unix socket.
    #[error("cannot listen at unix:{path}: another process is listening there; stop it, or choose another path")]
    SocketInUse {
        /// The socket's path.
        path: PathBuf,
    },
    /// Something that is not a socket has the path of the Unix socket.
    #[error("cannot listen at unix:{path}: the file exists and is not a socket; remove it, or choose another path")]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// Keys, certificates or the state directory cannot be used.
    #[error("cannot serve TLS: {0}")]
    Tls(#[from] StateError),
    /// The address of the store of quotas is none.
    #[error("cannot use the store of quotas: {0}")]
    Quotas(#[source] redis::RedisError),
    /// The descriptors for reflection could not be loaded.
    #[error("cannot offer gRPC reflection: {0}")]
    Reflection(String),
    /// The admin API cannot be served as it is to be.
    #[error("cannot serve the admin API: {0}")]
    Admin(String),
    /// What rollouts have to remember cannot be had.
    #[error(transparent)]
    State(#[from] crate::StoreError),
    /// A task that must not end has ended.
    #[error("the task \"{task}\" ended: {reason}")]
    TaskEnded {
        /// Its name, as in the task table of ARCHITECTURE.md.
        task: &'static str,
        /// The words of its panic.
        reason: String,
    },
}

/// The server no longer takes input: it has been shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server has been shut down")]
pub struct Stopped;
