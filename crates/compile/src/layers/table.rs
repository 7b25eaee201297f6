//! The virtual hosts of one route configuration, with every domain given to exactly one of them.
//!
//! Envoy refuses a route configuration in which two virtual hosts have a domain in common, so a claim that loses is
//! left out and reported. Exchanging one host costs that host's domains, whatever the size of the table.
//!
//! What comes out is one resource with all hosts as its parts; or, for clients that take them separately, a resource for
//! each host, called `<route configuration>/<host>`, and a route configuration that says so. A domain that goes from one
//! host to another changes both in one edit.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use proto::ResourceType;
use snapshot::{Cell, Edit, Name, Parts};
use world::{Few, Problem};

use super::encode;
use super::output::{HostPart, Rank};
use crate::{Audience, HostDelivery};

/// One route configuration in the making.
#[derive(Debug)]
pub(super) struct Table {
    name: Name,
    hosts: BTreeMap<Name, HostPart>,
    /// Who would like to have each domain; the first has it.
    claims: HashMap<Arc<str>, Few<(Rank, Name)>>,
    /// Domains that more than one host would like to have.
    contested: BTreeSet<Arc<str>>,
    encoded: Encoded,
    /// Hosts that must be encoded again.
    stale: BTreeSet<Name>,
}

/// The hosts that have domains, by name.
#[derive(Debug)]
enum Encoded {
    Inline(Parts),
    /// They are in the layer.
    Separate(BTreeSet<Name>),
}

impl Table {
    /// A table without hosts, but with something that takes every request that no host takes.
    pub(super) fn new(name: Name, delivery: HostDelivery, catch_all: Option<HostPart>) -> Self {
        let encoded = match delivery {
            HostDelivery::Inline => Encoded::Inline(Parts::default()),
            HostDelivery::Separate => Encoded::Separate(BTreeSet::new()),
        };
        let mut table = Self {
            name,
            hosts: BTreeMap::new(),
            claims: HashMap::new(),
            contested: BTreeSet::new(),
            encoded,
            stale: BTreeSet::new(),
        };
        if let Some(host) = catch_all {
            table.set(host);
        }
        table
    }

    /// Puts a virtual host in, in place of the one of the same name.
    pub(super) fn set(&mut self, host: HostPart) {
        if self.hosts.get(&host.name) == Some(&host) {
            return;
        }
        let kept = self.hosts.get(&host.name).is_some_and(|old| old.domains == host.domains && old.rank == host.rank);
        if !kept {
            self.drop_claims(&host.name.clone());
            for domain in &host.domains {
                self.claims.entry(domain.clone()).or_default().insert((host.rank, host.name.clone()));
                self.judge(domain);
            }
        }
        self.stale.insert(host.name.clone());
        self.hosts.insert(host.name.clone(), host);
    }

    /// Takes a virtual host out.
    pub(super) fn remove(&mut self, name: &Name) {
        self.drop_claims(name);
        if self.hosts.remove(name).is_some() {
            self.stale.insert(name.clone());
        }
    }

    /// Whether no unit contributes a host any more.
    pub(super) fn is_empty(&self) -> bool {
        self.hosts.values().all(|host| host.rank == Rank::CatchAll)
    }

    fn drop_claims(&mut self, name: &Name) {
        let Some(old) = self.hosts.get(name) else { return };
        let (rank, domains) = (old.rank, old.domains.clone());
        for domain in &domains {
            if let Some(claimants) = self.claims.get_mut(domain) {
                claimants.remove(&(rank, name.clone()));
                if claimants.is_empty() {
                    self.claims.remove(domain);
                }
            }
            self.judge(domain);
        }
    }

    /// Whoever claims the domain now may have won or lost it: their parts are encoded again.
    fn judge(&mut self, domain: &Arc<str>) {
        let claimants = self.claims.get(domain);
        match claimants.map_or(0, Few::len) {
            0 | 1 => self.contested.remove(domain),
            _ => self.contested.insert(domain.clone()),
        };
        self.stale.extend(claimants.into_iter().flatten().map(|(_, name)| name.clone()));
    }

    /// Encodes what changed and puts it into the layer.
    pub(super) fn finish(&mut self, audience: &Audience, edit: &mut Edit, problems: &mut Vec<Problem>) {
        for stale in std::mem::take(&mut self.stale) {
            let host = self.hosts.get(&stale);
            let domains: Vec<_> =
                host.iter().flat_map(|host| &host.domains).filter(|d| self.has_won(&stale, d)).collect();
            let host = host.filter(|_| !domains.is_empty());
            let encoded = match &mut self.encoded {
                Encoded::Inline(parts) => host.map(|host| {
                    encode::virtual_host_part(host, &domains).map(|part| {
                        let bytes = part.bytes().clone();
                        parts.set(stale.clone(), part);
                        bytes
                    })
                }),
                Encoded::Separate(there) => host.map(|host| {
                    encode::virtual_host_cell(resource_name(&self.name, &stale), host, &domains).map(|cell| {
                        there.insert(stale.clone());
                        let bytes = cell.value();
                        edit.set(cell);
                        bytes
                    })
                }),
            };
            match encoded {
                Some(Ok(bytes)) => {
                    // What was built is at the end of what is sent: one copy serves both.
                    if let Some(host) = self.hosts.get_mut(&stale) {
                        host.rest = bytes.slice(bytes.len() - host.rest.len()..);
                    }
                    continue;
                }
                Some(Err(problem)) => problems.push(*problem),
                None => {}
            }
            self.encoded.remove(&self.name, &stale, edit);
        }
        let name = self.name.clone();
        edit.set(match &self.encoded {
            Encoded::Inline(parts) => {
                let head = encode::route_head(&name, audience, HostDelivery::Inline);
                Cell::composite(ResourceType::Route, name, head, parts.clone())
            }
            Encoded::Separate(there) => {
                // Envoy keeps a listener back until the first host of its routes has come: if there is none, it must not
                // wait for one.
                let delivery = if there.is_empty() { HostDelivery::Inline } else { HostDelivery::Separate };
                Cell::new(ResourceType::Route, name.clone(), &encode::route_head(&name, audience, delivery))
            }
        });
    }

    /// Takes all that `finish` has put in out of the layer.
    pub(super) fn take_out(&mut self, edit: &mut Edit) {
        edit.remove(ResourceType::Route, &self.name);
        if let Encoded::Separate(there) = &self.encoded {
            there.iter().for_each(|host| edit.remove(ResourceType::VirtualHost, &resource_name(&self.name, host)));
        }
    }

    fn has_won(&self, name: &Name, domain: &str) -> bool {
        self.winner(domain) == Some(name)
    }

    fn winner(&self, domain: &str) -> Option<&Name> {
        self.claims.get(domain)?.first().map(|(_, name)| name)
    }

    /// Claims that lost, for objects that should know: a catch-all gives way silently.
    pub(super) fn conflicts(&self) -> impl Iterator<Item = Problem> + '_ {
        let table = &self.name;
        let contested = self.contested.iter().filter_map(|domain| self.claims.get_key_value(domain));
        contested.flat_map(move |(domain, all)| {
            let winner = all.first().map(|(_, name)| name.clone()).unwrap_or_default();
            all.iter().skip(1).filter(|(rank, _)| *rank != Rank::CatchAll).filter_map(move |(_, name)| {
                let owner = self.hosts.get(name)?.owner.as_ref()?;
                let message = format!("domain \"{domain}\" of route configuration \"{table}\" belongs to \"{winner}\"");
                Some(
                    Problem::warning(owner, "", message)
                        .consequence(format!("requests for \"{domain}\" do not reach \"{name}\""))
                        .hint("Use another host name, or remove one of the two."),
                )
            })
        })
    }
}

impl Encoded {
    /// Takes out a host that is gone, or has no domains any more.
    fn remove(&mut self, table: &Name, host: &Name, edit: &mut Edit) {
        match self {
            Encoded::Inline(parts) => parts.remove(host),
            Encoded::Separate(there) => {
                if there.remove(host) {
                    edit.remove(ResourceType::VirtualHost, &resource_name(table, host));
                }
            }
        }
    }
}

/// The name of a host that is a resource of its own, as Envoy wants it: it takes what is before the last slash for the
/// route configuration. Neither part has a slash, because neither host names nor port names may.
fn resource_name(table: &Name, host: &Name) -> Name {
    format!("{table}/{host}").into()
}
