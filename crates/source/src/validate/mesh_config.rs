//! Istio's mesh configuration: the providers that policies ask.

use world::api::mesh_config::MeshConfig;

use super::Findings;

/// What is done about a provider with a mistake.
const REFUSES: &str = "it is not asked; everything that policies with this provider match is refused";

pub(super) fn mesh_config(spec: &MeshConfig, findings: &mut Findings) {
    let providers = &spec.extension_providers;
    for (at, provider) in providers.iter().enumerate() {
        let field = format!("data.mesh.extensionProviders[{at}]");
        for (part, why) in provider.mistakes() {
            findings.in_force(format!("{field}.{part}").trim_end_matches('.'), why, REFUSES);
        }
        if providers[..at].iter().any(|other| other.name == provider.name) {
            let message = format!("there are several providers \"{}\"", provider.name);
            findings.warning(format_args!("{field}.name"), message, "the first of them counts");
        }
    }
}
