//! What a node says about itself, against who it has proved to be.

use crate::Workload;

/// The parts of a node's first request that claim an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeClaims<'a> {
    /// `node.id`.
    pub id: &'a str,
    /// `node.metadata.NAMESPACE`.
    pub namespace: Option<&'a str>,
    /// `node.metadata.SERVICE_ACCOUNT`.
    pub service_account: Option<&'a str>,
}

/// What does not agree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node claims {what} \"{claimed}\" ({from}), but has proved to be {proved}")]
pub struct Disagreement {
    what: &'static str,
    claimed: String,
    from: &'static str,
    proved: Workload,
}

/// What a node belongs to that names no namespace, as the plane has it.
const DEFAULT_NAMESPACE: &str = "default";

impl NodeClaims<'_> {
    /// Whether everything that is claimed agrees with who it is. The namespace is in an id of Istio's form
    /// `<type>~<ip>~<pod>.<namespace>~<domain>`, in the metadata, or in both, and then both count; a node that names
    /// none belongs to `default`. The service account need not be claimed.
    ///
    /// # Errors
    /// The first thing that does not agree.
    pub fn agree_with(&self, proved: &Workload) -> Result<(), Disagreement> {
        let differs = |what, claimed: &str, from| Disagreement {
            what,
            claimed: claimed.chars().take(100).collect::<String>().escape_debug().to_string(),
            from,
            proved: proved.clone(),
        };
        let of_id = self.namespace_of_id();
        let namespaces = [(self.namespace, "metadata NAMESPACE"), (of_id, "node id")];
        for (claimed, from) in namespaces.into_iter().filter_map(|(claimed, from)| Some((claimed?, from))) {
            if claimed != proved.namespace() {
                return Err(differs("namespace", claimed, from));
            }
        }
        if self.namespace.is_none() && of_id.is_none() && proved.namespace() != DEFAULT_NAMESPACE {
            return Err(differs("namespace", DEFAULT_NAMESPACE, "because it names none"));
        }
        match self.service_account {
            Some(claimed) if claimed != proved.service_account() => {
                Err(differs("service account", claimed, "metadata SERVICE_ACCOUNT"))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn namespace_of_id(&self) -> Option<&str> {
        let mut parts = self.id.split('~');
        let (_, _, name, _) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        // Without a dot there is no namespace in it.
        parts.next().is_none().then(|| name.rsplit_once('.').map(|(_, namespace)| namespace)).flatten()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn agrees(id: &str, namespace: Option<&str>, service_account: Option<&str>) -> Result<(), String> {
        let proved = Workload::new("shop", "front").unwrap();
        NodeClaims { id, namespace, service_account }.agree_with(&proved).map_err(|error| error.to_string())
    }

    #[test]
    fn claims_agree_in_every_place_where_they_are_made() {
        let id = "sidecar~10.0.0.1~front-1.shop~shop.svc.cluster.local";
        agrees(id, None, None).unwrap();
        agrees(id, Some("shop"), Some("front")).unwrap();
        agrees("some name", Some("shop"), None).unwrap();
        let other = "sidecar~10.0.0.1~front-1.bank~bank.svc.cluster.local";
        assert!(agrees(other, Some("shop"), None).unwrap_err().contains("\"bank\" (node id)"));
        assert!(agrees(id, Some("bank"), None).unwrap_err().contains("\"bank\" (metadata NAMESPACE)"));
        assert!(agrees(id, None, Some("admin")).unwrap_err().contains("service account \"admin\""));
    }

    #[test]
    fn a_node_without_a_namespace_is_one_of_default() {
        for id in ["some name", "a~b~c", "sidecar~10.0.0.1~front-1~shop.svc.cluster.local"] {
            assert!(agrees(id, None, None).unwrap_err().contains("\"default\""), "{id}");
            let proved = Workload::new("default", "any").unwrap();
            NodeClaims { id, namespace: None, service_account: None }.agree_with(&proved).unwrap();
        }
    }
}
