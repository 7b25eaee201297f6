//! What a workload takes, by all `PeerAuthentication`s that concern it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use world::api::istio::{PeerAuthentication, PeerMtls, PeerMtlsMode};
use world::{Location, Object, ObjectRef, Policies, Problem, Severity, Spec};

/// Which connections a port takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mtls {
    /// Those in the clear; TLS goes to the workload as it is.
    Disable,
    /// Mutual TLS of the mesh, and all others.
    #[default]
    Permissive,
    /// Mutual TLS of the mesh.
    Strict,
}

/// A mode, and who said it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Stated {
    /// The mode.
    pub(crate) mode: Mtls,
    /// The policy, where it was read, and which field of it; none for the default.
    origin: Option<(ObjectRef, Option<Location>, String)>,
}

impl Stated {
    /// The policy.
    pub(crate) fn origin(&self) -> Option<&ObjectRef> {
        self.origin.as_ref().map(|(object, ..)| object)
    }

    /// An error at the field that says the mode; none for the default.
    pub(crate) fn error(&self, message: &str, consequence: &str) -> Option<Problem> {
        let (object, location, field) = self.origin.as_ref()?;
        Some(Problem::error(object, field, message).consequence(consequence).at(location.clone()))
    }

    /// A warning there.
    pub(crate) fn warning(&self, message: &str, consequence: &str) -> Option<Problem> {
        self.error(message, consequence).map(|problem| Problem { severity: Severity::Warning, ..problem })
    }
}

/// What a workload takes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Peer {
    whole: Stated,
    ports: BTreeMap<u16, Stated>,
}

impl Peer {
    /// Joins the levels: the mesh's policy, the namespace's and the workload's own, of each the oldest. Each overrides the
    /// one before unless it leaves the mode unset; only the last may speak of single ports. Policies of the root
    /// namespace that select workloads have no effect (`ComposePeerAuthentication` of Istio's
    /// `pilot/pkg/security/authn`).
    pub(crate) fn of(policies: &Policies<'_>) -> Self {
        let mut peer = Self::default();
        let levels = [&policies.mesh, &policies.namespace, &policies.workload];
        for (object, spec) in levels.into_iter().filter_map(|level| of_object(level.first()?)) {
            if let Some(mode) = mode(spec.mtls) {
                peer.whole = stated(object, mode, "spec.mtls.mode".to_owned());
            }
        }
        let Some((object, spec)) = policies.workload.first().and_then(|object| of_object(object)) else { return peer };
        for (port, mtls) in &spec.port_level_mtls {
            let Ok(number) = port.parse() else { continue };
            let own = mode(Some(*mtls)).map(|mode| stated(object, mode, format!("spec.portLevelMtls[{port}].mode")));
            peer.ports.insert(number, own.unwrap_or_else(|| peer.whole.clone()));
        }
        peer
    }

    /// What a workload takes on the way to the last of these, when the others held before it and clients may still go by
    /// them. Between plaintext and TLS there is no mode but PERMISSIVE that both kinds of clients get along with; from
    /// PERMISSIVE to STRICT nothing is to be waited for, because whoever can begin TLS does so already.
    pub(crate) fn through(mut moments: Vec<Self>) -> Self {
        let Some(last) = moments.pop() else { return Self::default() };
        let at = |of: &dyn Fn(&Self) -> &Stated| {
            let newest = of(&last);
            let is_plain = |stated: &Stated| stated.mode == Mtls::Disable;
            let differs = moments.iter().any(|moment| is_plain(of(moment)) != is_plain(newest));
            Stated { mode: if differs { Mtls::Permissive } else { newest.mode }, origin: newest.origin.clone() }
        };
        let ports: BTreeSet<u16> = moments.iter().chain([&last]).flat_map(Self::ports).collect();
        let whole = at(&|moment| &moment.whole);
        let ports = ports.into_iter().map(|port| (port, at(&|moment| moment.at(port)))).collect();
        Self { whole, ports }
    }

    /// The mode of a port of the workload.
    pub(crate) fn at(&self, port: u16) -> &Stated {
        self.ports.get(&port).unwrap_or(&self.whole)
    }

    /// The mode of ports of which nothing else is said.
    pub(crate) fn elsewhere(&self) -> &Stated {
        &self.whole
    }

    /// The ports that have modes of their own, in order.
    pub(crate) fn ports(&self) -> impl Iterator<Item = u16> {
        self.ports.keys().copied()
    }

    /// Every mode that is said, and who said it.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Stated> {
        [&self.whole].into_iter().chain(self.ports.values())
    }
}

fn of_object<'w>(object: &&'w Arc<Object>) -> Option<(&'w Object, &'w PeerAuthentication)> {
    match &object.spec {
        Spec::PeerAuthentication(spec) => Some((object, spec)),
        _ => None,
    }
}

fn stated(object: &Object, mode: Mtls, field: String) -> Stated {
    Stated { mode, origin: Some((object.reference.clone(), object.meta.location.clone(), field)) }
}

fn mode(mtls: Option<PeerMtls>) -> Option<Mtls> {
    match mtls?.mode {
        PeerMtlsMode::Unset => None,
        PeerMtlsMode::Disable => Some(Mtls::Disable),
        PeerMtlsMode::Permissive => Some(Mtls::Permissive),
        PeerMtlsMode::Strict => Some(Mtls::Strict),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use world::{Kind, Labels, Meta};

    use super::*;

    fn policy(name: &str, spec: &str) -> Arc<Object> {
        Arc::new(Object {
            reference: ObjectRef::new(Kind::PeerAuthentication, "shop", name),
            meta: Meta { labels: Arc::new(Labels::new()), ..Meta::default() },
            spec: Spec::PeerAuthentication(serde_json::from_str(spec).unwrap()),
        })
    }

    fn mode_of(word: &str) -> String {
        format!(r#"{{"mtls": {{"mode": "{word}"}}}}"#)
    }

    /// The mode elsewhere and who said it, for the policies of mesh, namespace and workload; empty for none.
    fn joined(levels: [&str; 3]) -> (Mtls, Option<String>, Peer) {
        let names = ["mesh", "namespace", "workload"];
        let all: Vec<_> = names.iter().zip(levels).filter(|(_, spec)| !spec.is_empty()).collect();
        let all: Vec<_> = all.into_iter().map(|(name, spec)| (*name, policy(name, spec))).collect();
        let of = |wanted: &str| all.iter().filter(|(name, _)| *name == wanted).map(|(_, object)| object).collect();
        let policies =
            Policies { mesh: of("mesh"), namespace: of("namespace"), workload: of("workload"), ..Policies::default() };
        let peer = Peer::of(&policies);
        let origin = peer.elsewhere().origin().map(|origin| origin.name.to_string());
        (peer.elsewhere().mode, origin, peer)
    }

    #[test]
    fn the_narrowest_level_that_says_something_counts() {
        let (strict, disable, unset) = (&*mode_of("STRICT"), &*mode_of("DISABLE"), &*mode_of("UNSET"));
        for (levels, mode, origin) in [
            (["", "", ""], Mtls::Permissive, None),
            ([strict, "", ""], Mtls::Strict, Some("mesh")),
            ([strict, disable, ""], Mtls::Disable, Some("namespace")),
            ([strict, disable, strict], Mtls::Strict, Some("workload")),
            ([strict, unset, "{}"], Mtls::Strict, Some("mesh")),
            ([disable, strict, unset], Mtls::Strict, Some("namespace")),
            (["{}", "{}", "{}"], Mtls::Permissive, None),
        ] {
            let (found, said_by, _) = joined(levels);
            assert_eq!((found, said_by.as_deref()), (mode, origin), "{levels:?}");
        }
    }

    #[test]
    fn ports_follow_the_workloads_own_policy_and_inherit_what_they_leave_unset() {
        let ports = r#""portLevelMtls": {"80": {"mode": "DISABLE"}, "81": {}, "x": {"mode": "STRICT"}, "70000": {}}"#;
        let of_workload = format!("{{{ports}}}");
        let (_, _, peer) = joined([&mode_of("STRICT"), "", &of_workload]);
        assert_eq!(peer.ports().collect::<Vec<_>>(), [80, 81]);
        assert_eq!([80, 81, 82].map(|port| peer.at(port).mode), [Mtls::Disable, Mtls::Strict, Mtls::Strict]);
        assert_eq!(&*peer.at(80).origin().unwrap().name, "workload");
        assert_eq!(peer.at(80).error("", "").unwrap().field, "spec.portLevelMtls[80].mode");
        // Other levels may not speak of ports.
        let (_, _, peer) = joined(["", &of_workload, ""]);
        assert_eq!(peer.ports().count(), 0);
    }

    #[test]
    fn between_plaintext_and_tls_both_are_taken() {
        let of = |word: &str| {
            let policy = policy(word, &mode_of(word));
            Peer::of(&Policies { namespace: vec![&policy], ..Policies::default() })
        };
        for (moments, mode) in [
            (&["STRICT"][..], Mtls::Strict),
            (&["PERMISSIVE", "STRICT"], Mtls::Strict),
            (&["STRICT", "PERMISSIVE"], Mtls::Permissive),
            (&["DISABLE", "STRICT"], Mtls::Permissive),
            (&["STRICT", "DISABLE"], Mtls::Permissive),
            (&["DISABLE", "STRICT", "DISABLE"], Mtls::Permissive),
            (&["DISABLE", "DISABLE"], Mtls::Disable),
        ] {
            let peer = Peer::through(moments.iter().map(|word| of(word)).collect());
            assert_eq!(peer.elsewhere().mode, mode, "{moments:?}");
            let newest = peer.elsewhere().origin().unwrap();
            assert_eq!(&*newest.name, *moments.last().unwrap());
        }
        // A port that has a mode of its own in one moment only.
        let with_port =
            policy("ports", r#"{"mtls": {"mode": "STRICT"}, "portLevelMtls": {"80": {"mode": "DISABLE"}}}"#);
        let before = Peer::of(&Policies { workload: vec![&with_port], ..Policies::default() });
        let peer = Peer::through(vec![before, of("STRICT")]);
        assert_eq!([80, 81].map(|port| peer.at(port).mode), [Mtls::Permissive, Mtls::Strict]);
    }

    #[test]
    fn the_oldest_policy_of_a_level_counts() {
        let (old, young) = (policy("old", &mode_of("STRICT")), policy("young", &mode_of("DISABLE")));
        let policies = Policies { namespace: vec![&old, &young], ..Policies::default() };
        assert_eq!(Peer::of(&policies).elsewhere().mode, Mtls::Strict);
        // Even if it says nothing.
        let silent = policy("silent", "{}");
        let policies = Policies { namespace: vec![&silent, &young], ..Policies::default() };
        assert_eq!(Peer::of(&policies).elsewhere().mode, Mtls::Permissive);
    }

    #[test]
    fn policies_of_the_root_namespace_that_select_workloads_have_no_effect() {
        let selecting = policy("selecting", &mode_of("STRICT"));
        let policies = Policies { mesh_selected: vec![&selecting], ..Policies::default() };
        assert_eq!(Peer::of(&policies), Peer::default());
    }
}
