//! Names of workloads.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Bytes of a trust domain, and of a SPIFFE id (SPIFFE-ID 2.3, 2.4).
const MAX_TRUST_DOMAIN: usize = 255;
/// Bytes of a namespace or a service account: what Kubernetes allows for a DNS subdomain.
const MAX_PART: usize = 253;

/// Why a text is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is no {what}: {reason}")]
pub struct InvalidName {
    text: String,
    what: &'static str,
    reason: &'static str,
}

/// Within which names are unique and one authority signs, such as `cluster.local`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(Arc<str>);

/// A service account of a namespace: who a workload is within its trust domain. Displayed as `namespace/account`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Workload {
    namespace: Arc<str>,
    service_account: Arc<str>,
}

/// `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`, the form that Istio gives to workloads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// The workload in it.
    pub workload: Workload,
}

impl TrustDomain {
    /// The name as a text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TrustDomain {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let invalid = |reason| InvalidName { text: shortened(text), what: "trust domain", reason };
        if text.is_empty() || text.len() > MAX_TRUST_DOMAIN {
            return Err(invalid("it must have from 1 to 255 characters"));
        }
        if !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b)) {
            return Err(invalid("only lower case letters, digits, dots, dashes and underscores may stand in it"));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Workload {
    /// The service account `service_account` of `namespace`.
    ///
    /// # Errors
    /// One of them is no name that Kubernetes would take: a slash or a line's end could change what the whole means.
    pub fn new(namespace: &str, service_account: &str) -> Result<Self, InvalidName> {
        part(namespace, "namespace")?;
        part(service_account, "service account")?;
        Ok(Self { namespace: namespace.into(), service_account: service_account.into() })
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The service account.
    pub fn service_account(&self) -> &str {
        &self.service_account
    }

    /// Its name in a trust domain.
    pub fn within(self, trust_domain: &TrustDomain) -> SpiffeId {
        SpiffeId { trust_domain: trust_domain.clone(), workload: self }
    }
}

/// From `namespace/account`.
impl FromStr for Workload {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let reason = "it has the form NAMESPACE/SERVICE-ACCOUNT";
        let (namespace, service_account) =
            text.split_once('/').ok_or_else(|| InvalidName { text: shortened(text), what: "identity", reason })?;
        Self::new(namespace, service_account)
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.service_account)
    }
}

impl FromStr for SpiffeId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let reason = "it has the form spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT";
        let invalid = || InvalidName { text: shortened(text), what: "SPIFFE id of a workload", reason };
        let parts: Vec<_> = text.strip_prefix("spiffe://").ok_or_else(invalid)?.split('/').collect();
        let [trust_domain, "ns", namespace, "sa", service_account] = parts[..] else { return Err(invalid()) };
        Ok(Self { trust_domain: trust_domain.parse()?, workload: Workload::new(namespace, service_account)? })
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Workload { namespace, service_account } = &self.workload;
        write!(f, "spiffe://{}/ns/{namespace}/sa/{service_account}", self.trust_domain)
    }
}

fn part(text: &str, what: &'static str) -> Result<(), InvalidName> {
    let invalid = |reason| InvalidName { text: shortened(text), what, reason };
    if text.is_empty() || text.len() > MAX_PART {
        return Err(invalid("it must have from 1 to 253 characters"));
    }
    let is_fine = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    if !text.bytes().all(|b| is_fine(b) || b"-.".contains(&b)) {
        return Err(invalid("only lower case letters, digits, dots and dashes may stand in it"));
    }
    if !text.bytes().next().is_some_and(is_fine) || !text.bytes().last().is_some_and(is_fine) {
        return Err(invalid("it must begin and end with a letter or a digit"));
    }
    Ok(())
}

/// What is said of a text that may come from anybody.
fn shortened(text: &str) -> String {
    text.chars().take(100).collect::<String>().escape_debug().to_string()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_written() {
        let text = "spiffe://cluster.local/ns/shop/sa/front-end.v2";
        let id: SpiffeId = text.parse().unwrap();
        assert_eq!((id.workload.namespace(), id.workload.service_account()), ("shop", "front-end.v2"));
        assert_eq!(id.to_string(), text);
        assert_eq!(id.workload.to_string().parse::<Workload>().unwrap(), id.workload);
    }

    #[test]
    fn what_could_mean_something_else_is_refused() {
        for text in [
            "",
            "spiffe://",
            "https://cluster.local/ns/a/sa/b",
            "spiffe://cluster.local/ns/a/sa/b/c",
            "spiffe://cluster.local/ns/a/sa/",
            "spiffe://cluster.local/ns//sa/b",
            "spiffe://cluster.local/ns/../sa/b",
            "spiffe://cluster.local/ns/a\r\nx: y/sa/b",
            "spiffe://cluster.local/ns/a%2fb/sa/c",
            "spiffe://Cluster.Local/ns/a/sa/b",
            "spiffe://user@cluster.local/ns/a/sa/b",
            "spiffe://cluster.local:80/ns/a/sa/b",
            "spiffe://cluster.local/ns/-a/sa/b",
        ] {
            assert!(text.parse::<SpiffeId>().is_err(), "{text}");
        }
        let error = Workload::new(&"x".repeat(254), "b").unwrap_err().to_string();
        assert!(error.len() < 300, "{error}");
        assert!(!Workload::new("a\nb", "c").unwrap_err().to_string().contains('\n'));
    }
}
