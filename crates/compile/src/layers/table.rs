//! The virtual hosts of one route configuration, with every domain given to exactly one of them.
//!
//! Envoy refuses a route configuration in which two virtual hosts have a domain in common, so a claim that loses is
//! left out and reported. Exchanging one host costs that host's domains, whatever the size of the table.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use proto::ResourceType;
use snapshot::{Cell, Name, Part, Parts};
use world::Problem;

use super::encode;
use super::output::{HostPart, Rank};

/// One route configuration in the making.
#[derive(Debug, Default)]
pub(super) struct Table {
    hosts: BTreeMap<Name, HostPart>,
    /// Who would like to have each domain; the first has it.
    claims: HashMap<Arc<str>, BTreeSet<(Rank, Name)>>,
    /// Domains that more than one host would like to have.
    contested: BTreeSet<Arc<str>>,
    parts: Parts,
    /// Hosts whose part must be encoded again.
    stale: BTreeSet<Name>,
}

impl Table {
    /// A table without hosts, but with something that takes every request that no host takes.
    pub(super) fn new(catch_all: Option<HostPart>) -> Self {
        let mut table = Self::default();
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
        match claimants.map_or(0, BTreeSet::len) {
            0 | 1 => self.contested.remove(domain),
            _ => self.contested.insert(domain.clone()),
        };
        self.stale.extend(claimants.into_iter().flatten().map(|(_, name)| name.clone()));
    }

    /// Encodes what changed and returns the resource. `head` is the encoded configuration without virtual hosts.
    pub(super) fn finish(&mut self, name: &Name, head: Bytes, problems: &mut Vec<Problem>) -> Cell {
        for stale in std::mem::take(&mut self.stale) {
            let Some(host) = self.hosts.get(&stale) else {
                self.parts.remove(&stale);
                continue;
            };
            let domains: Vec<_> = host.domains.iter().filter(|domain| self.winner(domain) == Some(&stale)).collect();
            if domains.is_empty() {
                self.parts.remove(&stale);
                continue;
            }
            match encode::virtual_host_field(host, &domains) {
                Ok(bytes) => {
                    let part = Part::new(bytes)
                        .referring_to(host.references.iter().cloned())
                        .from_objects(host.origins.iter().cloned());
                    self.parts.set(stale, part);
                }
                Err(problem) => {
                    self.parts.remove(&stale);
                    problems.push(*problem);
                }
            }
        }
        Cell::composite(ResourceType::Route, name.clone(), head, self.parts.clone())
    }

    fn winner(&self, domain: &str) -> Option<&Name> {
        self.claims.get(domain)?.first().map(|(_, name)| name)
    }

    /// Claims that lost, for objects that should know: a catch-all gives way silently.
    pub(super) fn conflicts<'t>(&'t self, table: &'t str) -> impl Iterator<Item = Problem> + 't {
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
