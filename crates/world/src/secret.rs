//! Which secrets there are for proxies: certificates with keys that somebody made for them.

use std::collections::BTreeMap;
use std::sync::Arc;

/// What the name of a Secret ends with that has authorities only, as Istio calls it.
pub const AUTHORITIES_SUFFIX: &str = "-cacert";

/// The secrets that there are, by namespace and name.
pub type SecretList = BTreeMap<(Arc<str>, Arc<str>), SecretParts>;

/// What a secret has. What it is nobody learns here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecretParts {
    /// A certificate with its key, if there is one.
    pub pair: Option<PairState>,
    /// Certificates of authorities.
    pub has_authorities: bool,
}

/// Whether a certificate holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PairState {
    /// It does, or will.
    Holds,
    /// Its time is over.
    Expired,
}

/// What is known of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretState {
    /// Nobody has said which secrets there are.
    Untold,
    /// There is none of that name in that namespace, or none that could be read.
    Missing,
    /// It is there.
    There(SecretParts),
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{Key, Settings, World};

    const HOLDS: SecretParts = SecretParts { pair: Some(PairState::Holds), has_authorities: false };
    const OVER: SecretParts = SecretParts { pair: Some(PairState::Expired), has_authorities: false };

    fn name(name: &str) -> (Arc<str>, Arc<str>) {
        ("edge".into(), name.into())
    }

    fn key(of: &str) -> Key {
        Key::Secret("edge".into(), of.into())
    }

    #[test]
    fn what_comes_goes_or_is_over_touches_who_has_asked_about_it() {
        let mut world = World::new(Settings::default());
        let (edge, one) = name("one");
        assert_eq!(world.secret(&edge, &one), SecretState::Untold);
        let all = SecretList::from([(name("one"), HOLDS), (name("two"), HOLDS)]);
        assert_eq!(world.set_secrets(all.clone()), BTreeSet::from([Key::Secrets]), "whoever has asked about any");
        assert_eq!(world.secret(&edge, &one), SecretState::There(HOLDS));
        assert_eq!(world.secret(&one, &edge), SecretState::Missing);
        assert!(world.set_secrets(all).is_empty());
        let others = SecretList::from([(name("one"), OVER), (name("three"), HOLDS)]);
        assert_eq!(world.set_secrets(others), BTreeSet::from([key("one"), key("two"), key("three")]));
    }
}
