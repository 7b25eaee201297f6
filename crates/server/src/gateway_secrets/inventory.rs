//! Which secrets there are, and what each has, without any of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use world::{PairState, SecretList, SecretParts};

use super::TlsSecrets;

/// What there is, by namespace and name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Inventory(BTreeMap<(Arc<str>, Arc<str>), Entry>);

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    /// The end of the certificate, where there is one.
    expires: Option<SystemTime>,
    has_authorities: bool,
}

impl Inventory {
    pub(super) fn of(secrets: &TlsSecrets) -> Self {
        let entries = secrets.iter().map(|(name, secret)| {
            let entry = Entry { expires: secret.expires(), has_authorities: secret.authorities().is_some() };
            (name.clone(), entry)
        });
        Self(entries.collect())
    }

    /// What that is at this time, and when it is something else.
    pub(crate) fn at(&self, now: SystemTime) -> (SecretList, Option<SystemTime>) {
        let state = |expires: SystemTime| if expires < now { PairState::Expired } else { PairState::Holds };
        let list = self.0.iter().map(|(name, entry)| {
            let parts = SecretParts { pair: entry.expires.map(state), has_authorities: entry.has_authorities };
            (name.clone(), parts)
        });
        (list.collect(), self.0.values().filter_map(|entry| entry.expires).filter(|expires| *expires >= now).min())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use identity::TlsSecret;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn secret(last_year: i32) -> TlsSecret {
        let key = KeyPair::generate().unwrap();
        let mut certificate = CertificateParams::new(["shop.test".to_owned()]).unwrap();
        certificate.not_after = date_time_ymd(last_year, 1, 1);
        let chain = certificate.self_signed(&key).unwrap().pem();
        TlsSecret::new(Some(&chain), Some(&key.serialize_pem()), None).unwrap()
    }

    #[test]
    fn a_certificate_is_over_after_its_last_second_and_the_next_end_is_what_is_waited_for() {
        let authorities = CertificateParams::default().self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
        let all = [
            ("early", secret(2030)),
            ("late", secret(2040)),
            ("authorities", TlsSecret::new(None, None, Some(&authorities)).unwrap()),
        ];
        let name = |name: &str| (Arc::from("edge"), Arc::from(name));
        let inventory = Inventory::of(&all.into_iter().map(|(of, secret)| (name(of), Arc::new(secret))).collect());
        let ends = [1_893_456_000, 2_208_988_800].map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds));
        let second = Duration::from_secs(1);
        for (now, states, next) in [
            (ends[0], [PairState::Holds, PairState::Holds], Some(ends[0])),
            (ends[0] + second, [PairState::Expired, PairState::Holds], Some(ends[1])),
            (ends[1] + second, [PairState::Expired, PairState::Expired], None),
        ] {
            let (list, due) = inventory.at(now);
            let pair = |of: &str| list[&name(of)].pair;
            assert_eq!(([pair("early"), pair("late")], due), (states.map(Some), next));
            assert_eq!(list[&name("authorities")], SecretParts { pair: None, has_authorities: true });
        }
    }
}
