//! Names that are made of two parts, `<parent>/<own>`, and the other names under which such a resource may be asked
//! for.
//!
//! Virtual hosts that are delivered on their own are the only resources of this kind: `80/reviews.default:80` belongs to
//! the route configuration `80`, and is asked for on demand by any domain that it serves, as `80/reviews`.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use crate::cell::put_field_head;
use crate::{Cell, Name};

/// The part before the last slash, which is where Envoy cuts (`source/extensions/config_subscription/grpc/watch_map.cc`
/// of 1.40); `None` without one, and for an `xdstp` name, in which slashes mean something else.
pub fn parent(name: &str) -> Option<&str> {
    let (parent, _) = name.rsplit_once('/')?;
    (!name.starts_with("xdstp:")).then_some(parent)
}

/// A `resources` entry of a delta response with the full names by which the resource was asked for added as
/// `Resource.aliases`: made anew, because clients differ in them.
pub fn with_aliases<'a>(entry: &[u8], asked: impl IntoIterator<Item = &'a Name>) -> Bytes {
    // After the tag, the length ends with the first byte below 128.
    let head = entry.iter().skip(1).position(|byte| *byte < 0x80).map_or(entry.len(), |at| at + 2);
    let mut resource = BytesMut::from(&entry[head..]);
    for name in asked {
        put_field_head(&mut resource, 4, name.len());
        resource.put_slice(name.as_bytes());
    }
    let mut buffer = BytesMut::with_capacity(resource.len() + 8);
    put_field_head(&mut buffer, 2, resource.len());
    buffer.put_slice(&resource);
    buffer.freeze()
}

/// The resources of one type by parent and alias.
#[derive(Debug, Default)]
pub(crate) struct Aliases {
    by_parent: HashMap<Box<str>, HashMap<Name, Name>>,
}

impl Aliases {
    pub(crate) fn of<'a>(cells: impl Iterator<Item = &'a Arc<Cell>>) -> Self {
        let mut by_parent: HashMap<Box<str>, HashMap<Name, Name>> = HashMap::new();
        for cell in cells.filter(|cell| !cell.aliases().is_empty()) {
            let Some(parent) = parent(cell.name()) else { continue };
            if !by_parent.contains_key(parent) {
                by_parent.insert(parent.into(), HashMap::new());
            }
            let Some(known) = by_parent.get_mut(parent) else { continue };
            known.extend(cell.aliases().iter().map(|alias| (alias.clone(), cell.name().clone())));
        }
        Self { by_parent }
    }

    /// The name of the resource that `<parent>/<alias>` stands for. An alias may be a pattern, as domains of virtual
    /// hosts are; of several that match, Envoy's order decides: the exact one, the longest with `*` in front, the
    /// longest with `*` at the end, `*` alone. A port that no pattern has is passed over.
    pub(crate) fn resolve(&self, name: &str) -> Option<&Name> {
        let parent = parent(name)?;
        let (known, alias) = (self.by_parent.get(parent)?, &name[parent.len() + 1..]);
        let port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let without_port = alias.rsplit_once(':').filter(|(_, after)| port(after)).map(|(before, _)| before);
        [Some(alias), without_port]
            .into_iter()
            .flatten()
            .find_map(|alias| find(known, alias))
            .or_else(|| known.get("*"))
    }
}

fn find<'a>(known: &'a HashMap<Name, Name>, alias: &str) -> Option<&'a Name> {
    if let Some(exact) = known.get(alias) {
        return Some(exact);
    }
    let starts = || (1..alias.len()).filter(|at| alias.is_char_boundary(*at));
    let ending = starts().find_map(|at| known.get(format!("*{}", &alias[at..]).as_str()));
    ending.or_else(|| starts().rev().find_map(|at| known.get(format!("{}*", &alias[..at]).as_str())))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use prost::Message;
    use proto::ResourceType;
    use proto::pb::envoy::service::discovery::v3::DeltaDiscoveryResponse;

    use super::*;

    fn resolve(name: &str) -> Option<String> {
        let cell = |own: &str, aliases: &[&str]| {
            let cell = Cell::new(ResourceType::VirtualHost, format!("80/{own}").into(), b"");
            Arc::new(cell.also_known_as(aliases.iter().map(|alias| Name::from(*alias))))
        };
        let cells = [
            cell("exact", &["a.test", "b.test:81"]),
            cell("wide", &["*.test"]),
            cell("narrow", &["*.b.test"]),
            cell("start", &["www.*"]),
            cell("rest", &["*"]),
        ];
        Aliases::of(cells.iter()).resolve(name).map(|name| name.to_string())
    }

    #[test]
    fn an_alias_leads_to_the_resource_that_envoy_would_choose() {
        for (asked, found) in [
            ("80/a.test", "80/exact"),
            ("80/a.test:8080", "80/exact"),
            ("80/b.test:81", "80/exact"),
            ("80/b.test", "80/wide"),
            ("80/x.b.test", "80/narrow"),
            ("80/www.b.test", "80/narrow"),
            ("80/www.example", "80/start"),
            ("80/elsewhere", "80/rest"),
            ("80/", "80/rest"),
            ("80/ümlaut:x", "80/rest"),
        ] {
            assert_eq!(resolve(asked).as_deref(), Some(found), "{asked}");
        }
    }

    #[test]
    fn an_entry_keeps_what_it_says_when_aliases_are_added() {
        for len in [0, 100, 20_000] {
            let cell = Cell::new(ResourceType::VirtualHost, "80/a".into(), &vec![7; len]);
            let entry = with_aliases(cell.delta_entry(), [&Name::from("80/a.test"), &Name::from("80/b.test")]);
            let [resource] = &DeltaDiscoveryResponse::decode(entry).unwrap().resources[..] else { panic!("one") };
            assert_eq!(resource.aliases, ["80/a.test", "80/b.test"]);
            assert_eq!((&*resource.name, resource.version.clone()), ("80/a", cell.version().to_string()));
            assert_eq!(resource.resource.as_ref().unwrap().value, vec![7; len]);
        }
    }

    #[test]
    fn a_name_without_a_known_parent_leads_nowhere() {
        assert_eq!(resolve("81/a.test"), None);
        assert_eq!(resolve("a.test"), None);
        assert_eq!(parent("a/b/c"), Some("a/b"));
        assert_eq!(parent("a"), None);
        assert_eq!(parent("xdstp://a/b/c"), None);
    }
}
