//! Arguments that `serve` and `check` share: what to read, and how to compile it.

use std::path::PathBuf;

use clap::ValueEnum;
use compile::{MissingDestination, Options, OutboundPolicy};
use identity::TrustDomain;
use world::Settings;

/// What to read and how to compile it.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Compilation {
    /// The DNS domain of the cluster.
    #[arg(long, default_value = "cluster.local")]
    pub(crate) domain: String,
    /// The namespace whose rules hold for the whole mesh.
    #[arg(long, default_value = "istio-system", value_name = "NAMESPACE")]
    pub(crate) root_namespace: String,
    /// Within which workloads have their names: the first part of their SPIFFE ids [default: the domain].
    #[arg(long, value_name = "NAME")]
    pub(crate) trust_domain: Option<TrustDomain>,
    /// A trust domain whose names mean the same workloads, such as the one before a move; may be repeated. Certificates
    /// in its names that an authority of --ca-root has signed are accepted.
    #[arg(long, value_name = "NAME")]
    pub(crate) trust_domain_alias: Vec<TrustDomain>,
    /// Leave it to DestinationRules whether clients begin mutual TLS of the mesh. Without it they do towards every
    /// workload that says that it takes it.
    #[arg(long)]
    pub(crate) no_auto_mtls: bool,
    /// Take subsets that no DestinationRule defines from this label of the pods, such as `version`.
    #[arg(long, value_name = "LABEL")]
    pub(crate) infer_subsets: Option<String>,
    /// What happens to the share of traffic whose destination does not exist.
    #[arg(long, value_enum, default_value = "503")]
    pub(crate) missing_destination: Missing,
    /// What happens to traffic for which no service is known.
    #[arg(long, value_enum, default_value = "allow-any")]
    pub(crate) outbound_policy: Outbound,
    /// Largest regular expression that is sent, in RE2's instructions: at most what the runtime of every Envoy says at
    /// re2.max_program_size.error_level.
    #[arg(long, default_value_t = Options::DEFAULT_REGEX_INSTRUCTIONS, value_name = "NUMBER")]
    pub(crate) max_regex_instructions: u32,
}

/// What happens to the share of traffic whose destination does not exist.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Missing {
    /// It is answered with 503 and the reason.
    #[value(name = "503")]
    Unavailable,
    /// It goes to the route's other destinations.
    Reweight,
}

/// What happens to traffic for which no service is known.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Outbound {
    /// It goes to its original destination.
    AllowAny,
    /// It is refused.
    RegistryOnly,
}

impl Compilation {
    /// The settings of the world.
    pub(crate) fn settings(&self) -> Settings {
        let trust_domain = self.trust_domain.as_ref().map_or(self.domain.as_str(), TrustDomain::as_str);
        Settings {
            domain: self.domain.as_str().into(),
            root_namespace: self.root_namespace.as_str().into(),
            trust_domain: trust_domain.into(),
            trust_domain_aliases: self.aliases(trust_domain).map(|alias| alias.as_str().into()).collect(),
        }
    }

    /// The names that mean the same as `trust_domain`, each once.
    pub(crate) fn aliases(&self, trust_domain: &str) -> impl Iterator<Item = &TrustDomain> {
        let is_first = |at: usize, alias: &TrustDomain| !self.trust_domain_alias[..at].contains(alias);
        let others =
            self.trust_domain_alias.iter().enumerate().filter(move |(_, alias)| alias.as_str() != trust_domain);
        others.filter(move |(at, alias)| is_first(*at, alias)).map(|(_, alias)| alias)
    }

    /// The options of the compiler.
    pub(crate) fn options(&self) -> Options {
        Options {
            missing_destination: match self.missing_destination {
                Missing::Unavailable => MissingDestination::Unavailable,
                Missing::Reweight => MissingDestination::Reweight,
            },
            outbound_policy: match self.outbound_policy {
                Outbound::AllowAny => OutboundPolicy::AllowAny,
                Outbound::RegistryOnly => OutboundPolicy::RegistryOnly,
            },
            auto_mtls: !self.no_auto_mtls,
            infer_subsets: self.infer_subsets.clone(),
            max_regex_instructions: self.max_regex_instructions,
        }
    }
}

/// The files to read.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Files {
    /// A file or directory of YAML or JSON; may be repeated, or be given several paths.
    #[arg(long, short, required = true, num_args = 1.., value_name = "PATH")]
    pub(crate) config: Vec<PathBuf>,
    /// A directory with secrets of gateways as plain files, `<namespace>/<name>/tls.crt`, `tls.key` and `ca.crt`, as
    /// Kubernetes mounts a Secret; may be repeated. They are watched like everything else.
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) secret_dir: Vec<PathBuf>,
    /// The namespace of objects that name none.
    #[arg(long, default_value = "default", value_name = "NAMESPACE")]
    pub(crate) default_namespace: String,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

impl Files {
    /// How these files are read and watched.
    pub(crate) fn watch_options(&self) -> source::watch::Options {
        let mut options = source::watch::Options::default();
        options.text.default_namespace = self.default_namespace.as_str().into();
        options.secrets.clone_from(&self.secret_dir);
        options
    }
}
