//! IP addresses as text.

use std::io::Write;
use std::net::IpAddr;

/// Longest text of an IPv6 address: eight groups of four digits, or with an IPv4 tail.
const LONGEST: usize = 45;

/// Room for one address.
pub(super) struct Buffer {
    bytes: [u8; LONGEST],
}

impl Buffer {
    /// An empty one.
    pub(super) fn new() -> Self {
        Self { bytes: [0; LONGEST] }
    }

    /// The text of `ip`, as its `Display` gives it.
    pub(super) fn write(&mut self, ip: IpAddr) -> &[u8] {
        let len = match ip {
            IpAddr::V4(ip) => self.dotted(ip.octets()),
            IpAddr::V6(ip) => {
                let mut rest = &mut self.bytes[..];
                let written = write!(rest, "{ip}");
                debug_assert!(written.is_ok(), "no address is longer than {LONGEST} bytes");
                LONGEST - rest.len()
            }
        };
        &self.bytes[..len]
    }

    /// Several times faster than the formatting machinery, which matters at thousands of endpoints.
    fn dotted(&mut self, octets: [u8; 4]) -> usize {
        let mut at = 0;
        let mut push = |byte| {
            self.bytes[at] = byte;
            at += 1;
        };
        for (index, octet) in octets.into_iter().enumerate() {
            if index > 0 {
                push(b'.');
            }
            if octet >= 100 {
                push(b'0' + octet / 100);
            }
            if octet >= 10 {
                push(b'0' + octet / 10 % 10);
            }
            push(b'0' + octet % 10);
        }
        at
    }
}
