//! Where a client reaches the control plane, as it says itself.

use std::net::IpAddr;
use std::sync::Arc;

use world::Address;

/// Paths of Unix sockets are shorter than this, wherever Envoy runs (`sun_path`).
const LONGEST_PATH: usize = 107;
/// A DNS name as text.
const LONGEST_NAME: usize = 253;

/// Where a client reaches the control plane by TLS, and who it is to find there.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ControlPlane {
    pub(crate) address: Address,
    /// 0 for Unix sockets.
    pub(crate) port: u16,
    /// The name, or the IP address, that the server's certificate has to have.
    pub(crate) name: Arc<str>,
}

impl ControlPlane {
    /// Of `HOST:PORT` or `unix:PATH`; the certificate's name is the host unless it is given. `None` for anything else, and
    /// for what Envoy would not take.
    pub fn parse(text: &str, name: Option<&str>) -> Option<Self> {
        let (address, port, host) = match text.strip_prefix("unix:") {
            Some(path) => {
                let is_path = path.starts_with('/') && path.len() <= LONGEST_PATH && !path.contains('\0');
                (is_path.then(|| Address::Unix(path.into()))?, 0, None)
            }
            None => {
                let (host, port) = text.rsplit_once(':')?;
                let port = port.parse().ok().filter(|port| *port != 0)?;
                let host = host.trim_matches(['[', ']']);
                let address = match host.parse::<IpAddr>() {
                    Ok(ip) => Address::Ip(ip),
                    Err(_) => is_name(host).then(|| Address::Name(host.into()))?,
                };
                (address, port, Some(host))
            }
        };
        let name = name.or(host).filter(|name| is_name(name) || name.parse::<IpAddr>().is_ok())?;
        Some(Self { address, port, name: name.into() })
    }
}

fn is_name(text: &str) -> bool {
    let is_usual = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    !text.is_empty() && text.len() <= LONGEST_NAME && text.bytes().all(is_usual)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn addresses_and_names_are_told_apart() {
        for (text, name, address, port, expected) in [
            (
                "istiod.istio-system.svc:15012",
                None,
                Address::Name("istiod.istio-system.svc".into()),
                15012,
                "istiod.istio-system.svc",
            ),
            ("10.0.0.1:15012", None, Address::Ip([10, 0, 0, 1].into()), 15012, "10.0.0.1"),
            ("[::1]:1", Some("localhost"), Address::Ip("::1".parse().unwrap()), 1, "localhost"),
            ("unix:/run/xds.sock", Some("localhost"), Address::Unix("/run/xds.sock".into()), 0, "localhost"),
        ] {
            let found = ControlPlane::parse(text, name).unwrap();
            assert_eq!(found, ControlPlane { address, port, name: expected.into() }, "{text}");
        }
    }

    #[test]
    fn what_nobody_can_connect_to_is_nothing() {
        let long = format!("{}:1", "a".repeat(LONGEST_NAME + 1));
        for text in ["", "host", "host:", "host:0", "host:65536", ":1", "a b:1", "unix:", "unix:x", "a\n:1", &long] {
            assert_eq!(ControlPlane::parse(text, Some("localhost")), None, "{text}");
        }
        assert_eq!(ControlPlane::parse("unix:/run/xds.sock", None), None, "nobody says who is there");
        assert_eq!(ControlPlane::parse("10.0.0.1:1", Some("a b")), None);
    }
}
