//! A request, or a connection, with all that a policy can ask about.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::Value;

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Peer {
    /// Nobody knows: the connection is in the clear.
    Plain,
    /// A workload, by trust domain, namespace and account.
    Workload(&'static str, &'static str, &'static str),
    /// Somebody with a certificate in this DNS name.
    Named(&'static str),
}

/// What arrives.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Request {
    pub(super) peer: Peer,
    pub(super) source: IpAddr,
    pub(super) remote: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) port: u16,
    pub(super) server_name: &'static str,
    /// With `:method`, `:authority` and `:path`; names in lower case.
    pub(super) headers: BTreeMap<&'static str, &'static str>,
    /// The payload of the token.
    pub(super) token: Option<Value>,
    /// What a filter of the name `envoy.filters.network.shop` noted under `table`.
    pub(super) noted: Option<Value>,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            peer: Peer::Plain,
            source: [10, 1, 2, 3].into(),
            remote: [10, 1, 2, 3].into(),
            destination: [10, 0, 0, 1].into(),
            port: 8080,
            server_name: "",
            headers: [(":method", "GET"), (":authority", "shop.example"), (":path", "/")].into(),
            token: None,
            noted: None,
        }
    }
}

impl Request {
    pub(super) fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// The path without query and fragment.
    pub(super) fn path(&self) -> Option<&'static str> {
        self.headers.get(":path").map(|path| path.split(['?', '#']).next().unwrap())
    }
}
