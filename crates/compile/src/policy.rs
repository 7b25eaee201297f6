//! Which traffic policy holds for one port of a host or of a subset.
//!
//! Three levels, as in Istio: a part of the subset's policy replaces the same part of the rule's policy, whole. At
//! either level `portLevelSettings` for the port stand in for all of that level's policy: what they leave out is not
//! inherited from beside them but has its default, as Istio's reference says of them. (A subset's port settings
//! therefore also hide what the rule says.)

use world::api::istio::{ClientTls, ConnectionPool, LoadBalancer, OutlierDetection, PortTrafficPolicy, TrafficPolicy};
use world::{EffectiveRule, Location, ObjectRef, Problem, Subset};

/// The policy for `port` of the host that `rule` is about, or of one of its subsets. It has no port level settings.
pub fn effective(rule: &EffectiveRule, subset: Option<&Subset>, port: u16) -> TrafficPolicy {
    let policy = Policy::new(rule, subset, port);
    TrafficPolicy {
        load_balancer: policy.load_balancer.map(|part| part.value.clone()),
        connection_pool: policy.connection_pool.map(|part| part.value.clone()),
        outlier_detection: policy.outlier_detection.map(|part| part.value.clone()),
        tls: policy.tls.map(|part| part.value.clone()),
        port_level_settings: Vec::new(),
    }
}

/// The same without copying, and with the place where each part was written.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Policy<'a> {
    pub(crate) load_balancer: Option<Part<'a, LoadBalancer>>,
    pub(crate) connection_pool: Option<Part<'a, ConnectionPool>>,
    pub(crate) outlier_detection: Option<Part<'a, OutlierDetection>>,
    pub(crate) tls: Option<Part<'a, ClientTls>>,
}

impl<'a> Policy<'a> {
    pub(crate) fn new(rule: &'a EffectiveRule, subset: Option<&'a Subset>, port: u16) -> Self {
        let origin = rule.policy_origin.as_ref().or(rule.origins.first());
        let mut policy = match &rule.policy {
            Some(policy) => Level::of(policy, port).read(Place::new(rule, origin, None)),
            None => Self::default(),
        };
        let own = subset.and_then(|subset| Some((subset, subset.policy.as_ref()?)));
        if let Some((subset, own)) = own {
            let level = Level::of(own, port);
            let over = level.read(Place::new(rule, Some(&subset.origin), Some(&subset.name)));
            policy = match level {
                Level::Port(..) => over,
                Level::All(_) => Self {
                    load_balancer: over.load_balancer.or(policy.load_balancer),
                    connection_pool: over.connection_pool.or(policy.connection_pool),
                    outlier_detection: over.outlier_detection.or(policy.outlier_detection),
                    tls: over.tls.or(policy.tls),
                },
            };
        }
        policy
    }

    /// Whether nothing is asked for.
    pub(crate) fn is_default(&self) -> bool {
        let Self { load_balancer, connection_pool, outlier_detection, tls } = self;
        load_balancer.is_none() && connection_pool.is_none() && outlier_detection.is_none() && tls.is_none()
    }
}

/// What one level says of a port.
#[derive(Clone, Copy)]
enum Level<'a> {
    All(&'a TrafficPolicy),
    Port(usize, &'a PortTrafficPolicy),
}

impl<'a> Level<'a> {
    fn of(policy: &'a TrafficPolicy, port: u16) -> Self {
        let mut settings = policy.port_level_settings.iter().enumerate();
        match settings.find(|(_, settings)| settings.port.number == port) {
            Some((index, settings)) => Level::Port(index, settings),
            None => Level::All(policy),
        }
    }

    fn read(self, place: Place<'a>) -> Policy<'a> {
        let (load_balancer, connection_pool, outlier_detection, tls, place) = match self {
            Level::All(p) => (&p.load_balancer, &p.connection_pool, &p.outlier_detection, &p.tls, place),
            Level::Port(index, p) => {
                let place = Place { port_setting: Some(index), ..place };
                (&p.load_balancer, &p.connection_pool, &p.outlier_detection, &p.tls, place)
            }
        };
        Policy {
            load_balancer: load_balancer.as_ref().map(|value| Part { value, name: "loadBalancer", place }),
            connection_pool: connection_pool.as_ref().map(|value| Part { value, name: "connectionPool", place }),
            outlier_detection: outlier_detection.as_ref().map(|value| Part { value, name: "outlierDetection", place }),
            tls: tls.as_ref().map(|value| Part { value, name: "tls", place }),
        }
    }
}

/// One part of a policy and where it was written.
#[derive(Debug)]
pub(crate) struct Part<'a, T> {
    pub(crate) value: &'a T,
    name: &'static str,
    place: Place<'a>,
}

// Derived, both would ask the same of `T`.
impl<T> Clone for Part<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Part<'_, T> {}

impl<T> Part<'_, T> {
    /// An error at `field` of this part (`""` for the part itself), such as `consistentHash.maglev.tableSize`.
    pub(crate) fn error(&self, field: &str, message: impl Into<String>, consequence: impl Into<String>) -> Problem {
        let dot = if field.is_empty() { "" } else { "." };
        let field = format!("{}.{}{dot}{field}", self.place, self.name);
        let unknown = ObjectRef::new(world::Kind::DestinationRule, "", "");
        let object = self.place.object;
        let mut problem = Problem::error(object.unwrap_or(&unknown), field, message)
            .consequence(consequence)
            .at(self.place.location.cloned());
        problem.object = object.cloned();
        problem
    }

    /// The same as a warning.
    pub(crate) fn warning(&self, field: &str, message: impl Into<String>, consequence: impl Into<String>) -> Problem {
        Problem { severity: world::Severity::Warning, ..self.error(field, message, consequence) }
    }
}

/// Where a policy was written. Displayed as the path of its field; a subset is named, because its index is its rule's.
#[derive(Clone, Copy, Debug)]
struct Place<'a> {
    object: Option<&'a ObjectRef>,
    location: Option<&'a Location>,
    subset: Option<&'a str>,
    port_setting: Option<usize>,
}

impl<'a> Place<'a> {
    fn new(rule: &'a EffectiveRule, object: Option<&'a ObjectRef>, subset: Option<&'a str>) -> Self {
        let location = object.and_then(|object| rule.locations.get(object));
        Self { object, location, subset, port_setting: None }
    }
}

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("spec.")?;
        if let Some(subset) = self.subset {
            write!(f, "subsets[{subset}].")?;
        }
        f.write_str("trafficPolicy")?;
        match self.port_setting {
            Some(index) => write!(f, ".portLevelSettings[{index}]"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
