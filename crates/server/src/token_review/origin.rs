//! From where a token comes.

use std::net::{IpAddr, Ipv4Addr};

use crate::listen::Peer;

/// Whoever shares this shares its turns in the line: an IPv4 address, an IPv6 network of 64 bits (in which one host has
/// as many addresses as it likes), or a user of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Origin {
    V4(Ipv4Addr),
    /// The upper half of the address.
    V6(u64),
    User(Option<u32>),
}

impl From<Peer> for Origin {
    fn from(peer: Peer) -> Self {
        match peer {
            Peer::Tcp(address) => match address.ip().to_canonical() {
                IpAddr::V4(address) => Origin::V4(address),
                IpAddr::V6(address) => Origin::V6((address.to_bits() >> 64) as u64),
            },
            Peer::Unix { user } => Origin::User(user),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn origin(address: &str) -> Origin {
        Peer::Tcp(address.parse().unwrap()).into()
    }

    #[test]
    fn a_host_is_one_origin_whatever_addresses_of_its_network_and_ports_it_uses() {
        assert_eq!(origin("10.0.0.1:1"), origin("10.0.0.1:2"));
        assert_eq!(origin("10.0.0.1:1"), origin("[::ffff:10.0.0.1]:1"), "on a socket for both families");
        assert_ne!(origin("10.0.0.1:1"), origin("10.0.0.2:1"));
        assert_eq!(origin("[fd00::1]:1"), origin("[fd00::ffff:ffff:ffff:2]:1"));
        assert_ne!(origin("[fd00::1]:1"), origin("[fd00:0:0:1::1]:1"));
    }
}
