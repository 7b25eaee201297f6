//! `XdsResource`: every resource is what Envoy's API says it must be.

use std::collections::BTreeMap;

use proto::RawResource;
use world::api::pointsman::XdsResource;

use super::Findings;

pub(super) fn xds_resource(spec: &XdsResource, findings: &mut Findings) {
    if spec.resources.is_empty() {
        findings.error("spec.resources", "there is no resource");
    }
    if spec.ttl.is_some_and(|ttl| ttl.is_zero()) {
        findings.error("spec.ttl", "a TTL is longer than nothing").hint("Leave it out for resources that stay.");
    }
    let mut names = BTreeMap::new();
    for (at, value) in spec.resources.iter().enumerate() {
        let field = format!("spec.resources[{at}]");
        let resource = match RawResource::from_json(value) {
            Ok(resource) => resource,
            Err(wrong) => {
                for invalid in wrong {
                    let joint = if invalid.path.is_empty() || invalid.path.starts_with('[') { "" } else { "." };
                    findings.error(format_args!("{field}{joint}{}", invalid.path), invalid.reason).hint(invalid.hint);
                }
                continue;
            }
        };
        let (kind, name) = (resource.resource_type, resource.name);
        if let Some(first) = names.insert((kind, name.clone()), at) {
            let message = format!("{} \"{name}\" is in spec.resources[{first}] already", kind.message_name());
            findings.error(&field, message);
        }
    }
}
