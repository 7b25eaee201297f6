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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// What a route to nowhere does.
    pub missing_destination: MissingDestination,
    /// What unknown destinations do.
    pub outbound_policy: OutboundPolicy,
    /// Whether clients that can begin mutual TLS of the mesh by themselves, towards endpoints that take it, where no
    /// DestinationRule says anything.
    pub auto_mtls: bool,
    /// With a label key such as `version`: a subset that no DestinationRule defines stands for the endpoints whose
    /// label of this key has the subset's name as its value, provided there is at least one such endpoint.
    pub infer_subsets: Option<String>,
    /// How many instructions a regular expression may compile to. Envoy refuses a response with a larger one, unless
    /// its runtime raises `re2.max_program_size.error_level`: so this is at most what every client's runtime says.
    pub max_regex_instructions: u32,
}

impl Options {
    /// What Envoy takes when its runtime says nothing (1.40).
    pub const DEFAULT_REGEX_INSTRUCTIONS: u32 = 100;
}

impl Default for Options {
    fn default() -> Self {
        Self {
            missing_destination: MissingDestination::default(),
            outbound_policy: OutboundPolicy::default(),
            auto_mtls: true,
            infer_subsets: None,
            max_regex_instructions: Self::DEFAULT_REGEX_INSTRUCTIONS,
        }
    }
}
