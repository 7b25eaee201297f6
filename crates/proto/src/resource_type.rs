//! The kinds of resources that are discovered, and their type URLs.

use std::fmt;

macro_rules! resource_types {
    ($($(#[$doc:meta])* $name:ident = $message:literal,)*) => {
        /// A kind of xDS resource.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ResourceType { $($(#[$doc])* $name,)* }

        impl ResourceType {
            /// Every kind, in an order in which references point backwards: a kind refers only to earlier ones.
            pub const ALL: [ResourceType; [$($message),*].len()] = [$(ResourceType::$name),*];

            /// The type URL, `type.googleapis.com/` and the message's full name.
            pub fn type_url(self) -> &'static str {
                match self { $(ResourceType::$name => concat!("type.googleapis.com/", $message),)* }
            }

            /// The full name of the message.
            pub fn message_name(self) -> &'static str {
                match self { $(ResourceType::$name => $message,)* }
            }

            /// The kind with this type URL; `None` for an unknown one.
            pub fn from_type_url(url: &str) -> Option<Self> {
                match url.strip_prefix("type.googleapis.com/")? {
                    $($message => Some(ResourceType::$name),)*
                    _ => None,
                }
            }
        }
    };
}

resource_types! {
    /// RTDS: a layer of runtime values.
    Runtime = "envoy.service.runtime.v3.Runtime",
    /// SDS: certificates, keys, validation contexts.
    Secret = "envoy.extensions.transport_sockets.tls.v3.Secret",
    /// EDS: the endpoints of one cluster.
    Endpoints = "envoy.config.endpoint.v3.ClusterLoadAssignment",
    /// CDS: a cluster.
    Cluster = "envoy.config.cluster.v3.Cluster",
    /// VHDS: one virtual host of a route configuration.
    VirtualHost = "envoy.config.route.v3.VirtualHost",
    /// RDS: a route configuration.
    Route = "envoy.config.route.v3.RouteConfiguration",
    /// SRDS: a key for a route configuration.
    ScopedRoute = "envoy.config.route.v3.ScopedRouteConfiguration",
    /// ECDS: the configuration of one filter.
    ExtensionConfig = "envoy.config.core.v3.TypedExtensionConfig",
    /// LDS: a listener.
    Listener = "envoy.config.listener.v3.Listener",
}

impl ResourceType {
    /// Whether a first request without names means all resources (rule P-30), and a state-of-the-world response is the
    /// whole set (rule P-41). Scoped routes are so in Envoy 1.40: it drops the scopes that a response does not name.
    pub fn has_wildcard(self) -> bool {
        matches!(self, ResourceType::Cluster | ResourceType::Listener | ResourceType::ScopedRoute)
    }

    /// The short name that logs and metrics use: `cds`, `eds`, `lds`, `rds`, ...
    pub fn short(self) -> &'static str {
        match self {
            ResourceType::Runtime => "rtds",
            ResourceType::Secret => "sds",
            ResourceType::Endpoints => "eds",
            ResourceType::Cluster => "cds",
            ResourceType::VirtualHost => "vhds",
            ResourceType::Route => "rds",
            ResourceType::ScopedRoute => "srds",
            ResourceType::ExtensionConfig => "ecds",
            ResourceType::Listener => "lds",
        }
    }

    /// A dense index below `ResourceType::ALL.len()`.
    pub fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for ResourceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short())
    }
}
