//! Which limits there are.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use compile::rate_limit::limit_name;
use quota::Rate;
use tokio::sync::watch;
use world::api::policy::LimitScope;
use world::{Change, Kind, Object, ObjectRef, Spec};

/// Every limit that proxies ask about, by its name in descriptors.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table(HashMap<String, Limit>);

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) rate: Rate,
    /// Count, but refuse nothing.
    pub(crate) is_dry_run: bool,
    /// Whose proxies may ask; everybody's when there is none.
    namespace: Option<Arc<str>>,
}

/// Keeps the table up to date with the policies.
#[derive(Debug)]
pub(crate) struct Limits {
    root_namespace: Arc<str>,
    policies: BTreeMap<ObjectRef, Arc<Object>>,
    table: watch::Sender<Arc<Table>>,
}

impl Table {
    /// The limit of this name, and the name as it is kept.
    pub(crate) fn get(&self, name: &str) -> Option<(&str, &Limit)> {
        self.0.get_key_value(name).map(|(name, limit)| (&**name, limit))
    }
}

impl Limit {
    /// Whether it can be for a workload of this namespace.
    pub(crate) fn concerns(&self, namespace: &str) -> bool {
        self.namespace.as_ref().is_none_or(|own| **own == *namespace)
    }
}

impl Limits {
    /// There are none.
    pub(crate) fn new(root_namespace: Arc<str>) -> Self {
        Self { root_namespace, policies: BTreeMap::new(), table: watch::Sender::default() }
    }

    /// Where the table is seen.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Table>> {
        self.table.subscribe()
    }

    /// Takes in what changes say about policies; the table is new before anything that is compiled from them is sent.
    pub(crate) fn note(&mut self, changes: &[Change]) {
        let mut has_changed = false;
        for change in changes {
            match change {
                Change::Apply(object) if object.reference.kind == Kind::RateLimitPolicy => {
                    self.policies.insert(object.reference.clone(), object.clone());
                }
                Change::Remove(reference) if reference.kind == Kind::RateLimitPolicy => {
                    self.policies.remove(reference);
                }
                Change::Apply(_) | Change::Remove(_) => continue,
            }
            has_changed = true;
        }
        if has_changed {
            self.table.send_replace(Arc::new(self.table()));
        }
    }

    fn table(&self) -> Table {
        let mut table = HashMap::new();
        for object in self.policies.values() {
            let Spec::RateLimitPolicy(spec) = &object.spec else { continue };
            let namespace = &object.reference.namespace;
            let namespace = (*namespace != self.root_namespace).then(|| namespace.clone());
            for limit in spec.limits.iter().filter(|limit| limit.scope == LimitScope::Global) {
                if let Some(rate) = limit.per.and_then(|per| Rate::new(limit.requests, per)) {
                    let limit_of = Limit { rate, is_dry_run: limit.dry_run, namespace: namespace.clone() };
                    table.insert(limit_name(object, limit), limit_of);
                }
            }
        }
        Table(table)
    }
}
