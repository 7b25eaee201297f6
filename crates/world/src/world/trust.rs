//! The trust domain in the mesh configuration, which the server has from its arguments: identities stand on it from the
//! beginning, and must not change with a file.

use crate::{Problem, World};

impl World {
    /// What the mesh configuration says of the trust domain that is not so.
    pub(super) fn trust_problems(&self) -> Vec<Problem> {
        let Some((config, object)) = self.mesh_config() else { return Vec::new() };
        let settings = self.settings();
        let error = |field: String, message: String, argument: &str, name: &str| {
            Problem::error(&object.reference, field, message)
                .consequence("it has no effect")
                .hint(format!("Start the server with {argument} {name}, or take the field out."))
                .at(object.meta.location.clone())
        };
        let own = &*settings.trust_domain;
        let is_wrong = !config.trust_domain.is_empty() && config.trust_domain != own;
        let domain = is_wrong.then(|| {
            let message = format!("the trust domain is \"{own}\", not \"{}\"", config.trust_domain);
            error("data.mesh.trustDomain".to_owned(), message, "--trust-domain", &config.trust_domain)
        });
        let is_known =
            |alias: &str| alias == own || settings.trust_domain_aliases.iter().any(|known| **known == *alias);
        let aliases = config.trust_domain_aliases.iter().enumerate().filter(|(_, alias)| !is_known(alias));
        let aliases = aliases.map(|(at, alias)| {
            let message = format!("\"{alias}\" is no alias of the trust domain");
            error(format!("data.mesh.trustDomainAliases[{at}]"), message, "--trust-domain-alias", alias)
        });
        domain.into_iter().chain(aliases).collect()
    }
}
