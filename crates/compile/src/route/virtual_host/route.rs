//! One route, written at once.

use proto::pb::envoy::r#type::v3::FractionalPercent;
use world::ObjectRef;

use crate::flat;
use crate::route::action::Action;
use crate::route::rewrite::Change;

/// Runtime key of a route's share of requests, for those whose destination is missing and for those that nobody is to
/// take; nobody sets it, the default value counts.
const MISSING_RUNTIME_KEY: &str = "pointsman.missing";

/// The parts of an Envoy `Route`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route<'r> {
    /// Its name; may be empty.
    pub(super) name: &'r str,
    /// Fields of `RouteMatch` up to 7.
    pub(super) conditions: &'r [u8],
    /// Its field 13.
    pub(super) claims: &'r [u8],
    /// The share of the matching requests that it takes; `None` for all.
    pub(super) share: Option<&'r FractionalPercent>,
    /// What happens to them.
    pub(super) action: &'r Action,
    /// How their path changes.
    pub(super) change: Option<Change<'r>>,
    /// The object that it is said to come from.
    pub(super) origin: Option<&'r ObjectRef>,
    /// Fields 9 to 13.
    pub(super) fields: &'r [u8],
    /// Prefix of the route's own statistics; none when empty.
    pub(super) stat_prefix: &'r str,
}

impl Route<'_> {
    /// Writes it as one of `VirtualHost.routes`: match 1 (with runtime_fraction 9 and dynamic_metadata 13), action, metadata 4, the given fields,
    /// name 14, stat_prefix 19.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        flat::message(out, 3, |out| {
            flat::message(out, 1, |out| {
                out.extend_from_slice(self.conditions);
                if let Some(share) = self.share {
                    // `RuntimeFractionalPercent`: default_value 1, runtime_key 2.
                    flat::message(out, 9, |out| {
                        flat::built(out, 1, share);
                        flat::text(out, 2, MISSING_RUNTIME_KEY);
                    });
                }
                out.extend_from_slice(self.claims);
            });
            self.action.write(out, self.change.as_ref());
            if let Some(origin) = self.origin {
                flat::message(out, 4, |out| write_provenance(out, origin));
            }
            out.extend_from_slice(self.fields);
            flat::text(out, 14, self.name);
            flat::text(out, 19, self.stat_prefix);
        });
    }
}

/// Istio's `istio.config` metadata: the path of the object in the Kubernetes API.
///
/// Entries of `Metadata.filter_metadata` (1) have a key 1 and a `Struct` 2; those of `Struct.fields` (1) a key 1 and a
/// `Value` 2, whose string is 3.
fn write_provenance(out: &mut Vec<u8>, object: &ObjectRef) {
    let before = "/apis/networking.istio.io/v1/namespaces/";
    let path = [before, &object.namespace, "/virtual-service/", &object.name];
    flat::message(out, 1, |out| {
        flat::text(out, 1, "istio");
        flat::message(out, 2, |out| {
            flat::message(out, 1, |out| {
                flat::text(out, 1, "config");
                flat::message(out, 2, |out| flat::pieces(out, 3, &path));
            });
        });
    });
}
