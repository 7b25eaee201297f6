//! Choices of the operator that hold for everything that is compiled.

/// What happens to the share of traffic whose destination does not exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MissingDestination {
    /// It is answered with 503 and the reason.
    #[default]
    Unavailable,
    /// It goes to the route's other destinations in proportion to their weights; 503 only when there is none.
    Reweight,
}

/// What happens to traffic for which no service is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutboundPolicy {
    /// It goes to its original destination.
    #[default]
    AllowAny,
    /// It is refused.
    RegistryOnly,
}

/// The options of a compiler.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// What a route to nowhere does.
    pub missing_destination: MissingDestination,
    /// What unknown destinations do.
    pub outbound_policy: OutboundPolicy,
    /// With a label key such as `version`: a subset that no DestinationRule defines stands for the endpoints whose
    /// label of this key has the subset's name as its value, provided there is at least one such endpoint.
    pub infer_subsets: Option<String>,
}
