//! What PeerAuthentications said a moment ago, by which the world answers for a while.
//!
//! Who sends and who is sent to hear of another mode in no particular order, so a change goes by steps: first workloads
//! take what is said now and what was said before, then clients are told what is said now, and at last workloads take
//! nothing else. Who goes from step to step, and when, is not decided here.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{World, age};
use crate::api::istio::PeerMtlsMode;
use crate::policies::{Selection, selection};
use crate::{Labels, Object, Policies, Spec};

/// All PeerAuthentications of one moment, by namespace; of each the oldest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PeerPolicies(BTreeMap<Arc<str>, Vec<Arc<Object>>>);

/// What was said before, as far as it still counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Former {
    /// What workloads take beside what is said now, oldest first.
    taken: Vec<PeerPolicies>,
    /// What clients are told instead of what is said now.
    told: Option<PeerPolicies>,
}

/// So many moments are remembered at most; the oldest makes room.
const MOST_MOMENTS: usize = 8;

impl PeerPolicies {
    /// Whether any of them says DISABLE: all other modes have in common what clients that can prove themselves do.
    pub fn disable_any(&self) -> bool {
        let says = |object: &Arc<Object>| match &object.spec {
            Spec::PeerAuthentication(spec) => {
                let modes = spec.mtls.iter().chain(spec.port_level_mtls.values()).map(|mtls| mtls.mode);
                modes.into_iter().any(|mode| mode == PeerMtlsMode::Disable)
            }
            _ => false,
        };
        self.0.values().flatten().any(says)
    }

    fn of(&self, root: &Arc<str>, namespace: &Arc<str>, labels: &Labels) -> Policies<'_> {
        let mut policies = Policies::default();
        for (of, is_root) in [(Some(root), true), ((namespace != root).then_some(namespace), false)] {
            for object in of.and_then(|of| self.0.get(of)).into_iter().flatten() {
                match selection(&object.spec) {
                    Some((_, Selection::All)) if is_root => policies.mesh.push(object),
                    Some((_, Selection::All)) => policies.namespace.push(object),
                    Some((_, Selection::Labels(wanted))) if wanted.iter().all(|(k, v)| labels.get(k) == Some(v)) => {
                        if is_root {
                            policies.mesh_selected.push(object)
                        } else {
                            policies.workload.push(object)
                        }
                    }
                    Some((_, Selection::Labels(_) | Selection::Nothing)) | None => {}
                }
            }
        }
        policies
    }
}

impl World {
    /// All PeerAuthentications as they are now.
    pub fn peer_policies(&self) -> PeerPolicies {
        let mut all: BTreeMap<Arc<str>, Vec<Arc<Object>>> = BTreeMap::new();
        for object in self.index.all_peer_authentications(&self.objects) {
            all.entry(object.reference.namespace.clone()).or_default().push(object.clone());
        }
        all.values_mut().for_each(|objects| objects.sort_by(|a, b| age(a).cmp(&age(b))));
        PeerPolicies(all)
    }

    /// From now on workloads take what these say, too, and clients are told nothing newer.
    pub fn go_on_with(&mut self, before: PeerPolicies) {
        if self.former.taken.len() >= MOST_MOMENTS {
            self.former.taken.remove(0);
        }
        if self.former.told.is_none() {
            self.former.told = Some(before.clone());
        }
        self.former.taken.push(before);
    }

    /// From now on clients are told what is said now.
    pub fn tell_clients(&mut self) {
        self.former.told = None;
    }

    /// From now on nothing counts but what is said now.
    pub fn forget_former(&mut self) {
        self.former = Former::default();
    }

    /// What a workload takes because it was said before, oldest first.
    pub(crate) fn formerly_taken(&self, namespace: &Arc<str>, labels: &Labels) -> impl Iterator<Item = Policies<'_>> {
        let root = &self.settings.root_namespace;
        self.former.taken.iter().map(move |moment| moment.of(root, namespace, labels))
    }

    /// What clients are told of a workload instead of what is said now, if it is something else.
    pub(crate) fn formerly_told(&self, namespace: &Arc<str>, labels: &Labels) -> Option<Policies<'_>> {
        let told = self.former.told.as_ref()?;
        Some(told.of(&self.settings.root_namespace, namespace, labels))
    }
}
