//! Virtual hosts as Envoy has them: by route configuration, dropped without a word where there is none of that name.

use std::collections::{BTreeMap, BTreeSet};

/// The virtual hosts of the route configurations that have them apart.
#[derive(Default)]
pub struct Hosts {
    by_route: BTreeMap<String, Route>,
}

#[derive(Default)]
struct Route {
    /// An update has come for it: a new listener waits for the first.
    ready: bool,
    hosts: BTreeMap<String, String>,
}

impl Hosts {
    /// A route configuration came. What it had stays if it goes on to have it apart.
    pub fn route(&mut self, name: &str, value: &str) {
        if value.split(' ').any(|word| word == "vhds") {
            self.by_route.entry(name.to_owned()).or_default();
        } else {
            self.by_route.remove(name);
        }
    }

    pub fn drop_route(&mut self, name: &str) {
        self.by_route.remove(name);
    }

    /// Whether any route configuration wants virtual hosts.
    pub fn are_wanted(&self) -> bool {
        !self.by_route.is_empty()
    }

    pub fn is_ready(&self, route: &str) -> bool {
        self.by_route.get(route).is_none_or(|route| route.ready)
    }

    pub fn set(&mut self, name: &str, value: &str) {
        if let Some(route) = self.route_of(name) {
            route.ready = true;
            route.hosts.insert(name.to_owned(), value.to_owned());
        }
    }

    pub fn remove(&mut self, name: &str) {
        if let Some(route) = self.route_of(name) {
            route.ready = true;
            route.hosts.remove(name);
        }
    }

    fn route_of(&mut self, name: &str) -> Option<&mut Route> {
        self.by_route.get_mut(name.split('/').next().unwrap())
    }

    pub fn of<'a>(&'a self, route: &str) -> impl Iterator<Item = &'a String> + use<'a> {
        self.by_route.get(route).into_iter().flat_map(|route| route.hosts.values())
    }

    pub fn all(&self) -> BTreeMap<String, String> {
        self.by_route.values().flat_map(|route| route.hosts.clone()).collect()
    }

    /// Every domain with its route configuration. Two virtual hosts with one domain are an error: Envoy refuses them.
    pub fn domains(&self) -> Result<BTreeSet<String>, String> {
        let mut all = BTreeSet::new();
        for (route, of) in &self.by_route {
            for domain in of.hosts.values().flat_map(|value| domains(value)) {
                let domain = format!("{route} {domain}");
                if all.contains(&domain) {
                    return Err(format!("two virtual hosts have the domain {domain}: {:?}", of.hosts));
                }
                all.insert(domain);
            }
        }
        Ok(all)
    }
}

/// The domains that a published value names.
pub fn domains(value: &str) -> impl Iterator<Item = &str> {
    value.split(' ').filter_map(|word| word.strip_prefix("domain:"))
}
