//! Extensions of Envoy that configuration can do without.

use std::fmt;

/// One that a client may be built without: then what would name it is left out for that client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Extension {
    /// Translates gRPC-Web to gRPC.
    GrpcWeb,
    /// Counts gRPC calls.
    GrpcStats,
    /// Injects faults.
    Fault,
    /// Answers cross-origin requests.
    Cors,
    /// Sends logs of requests to a gRPC service.
    AccessLogService,
    /// Says something about a connection, for whoever carries it on.
    SetFilterState,
}

impl Extension {
    /// Every one.
    pub const ALL: [Extension; 6] = [
        Extension::GrpcWeb,
        Extension::GrpcStats,
        Extension::Fault,
        Extension::Cors,
        Extension::AccessLogService,
        Extension::SetFilterState,
    ];

    /// The name by which Envoy lists it in its node.
    pub fn name(self) -> &'static str {
        match self {
            Extension::GrpcWeb => "envoy.filters.http.grpc_web",
            Extension::GrpcStats => "envoy.filters.http.grpc_stats",
            Extension::Fault => "envoy.filters.http.fault",
            Extension::Cors => "envoy.filters.http.cors",
            Extension::AccessLogService => "envoy.access_loggers.http_grpc",
            Extension::SetFilterState => "envoy.filters.network.set_filter_state",
        }
    }
}

/// Some of them.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Extensions(u8);

impl Extensions {
    /// Those that a client lacks that lists what it has; a client that lists nothing is taken to have all.
    pub fn lacking<'a>(listed: impl IntoIterator<Item = &'a str>) -> Self {
        let (mut found, mut any) = (0, false);
        for name in listed {
            any = true;
            let known = Extension::ALL.iter().find(|extension| extension.name() == name);
            found |= known.map_or(0, |extension| extension.bit());
        }
        let all = Extension::ALL.iter().fold(0, |all, extension| all | extension.bit());
        Self(if any { all & !found } else { 0 })
    }

    /// Whether this one is among them.
    pub fn contains(self, extension: Extension) -> bool {
        self.0 & extension.bit() != 0
    }

    /// Each, in order.
    pub fn iter(self) -> impl Iterator<Item = Extension> {
        Extension::ALL.into_iter().filter(move |extension| self.contains(*extension))
    }
}

impl Extension {
    fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Debug for Extensions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_lacks_what_it_does_not_list_if_it_lists_anything() {
        assert_eq!(Extensions::lacking([]), Extensions::default());
        assert_eq!(Extensions::lacking(Extension::ALL.map(Extension::name)), Extensions::default());
        let lacking = Extensions::lacking(["envoy.filters.http.cors", "other", "envoy.filters.http.grpc_web"]);
        assert_eq!(
            lacking.iter().collect::<Vec<_>>(),
            [Extension::GrpcStats, Extension::Fault, Extension::AccessLogService, Extension::SetFilterState]
        );
        assert!(lacking.contains(Extension::Fault) && !lacking.contains(Extension::Cors));
    }
}
