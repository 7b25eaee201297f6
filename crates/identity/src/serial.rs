//! Serial numbers.

use std::fmt;

/// A certificate's number: 126 random bits, never 0. Displayed as hexadecimal digits, as `openssl x509` shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Serial([u8; 16]);

impl Serial {
    /// Of random bytes. Numbers must be positive (RFC 5280, 4.1.2.2), so the first bit is not used.
    pub fn from_random(mut bytes: [u8; 16]) -> Self {
        // The second bit is set: the number is never 0, and always as long.
        bytes[0] = bytes[0] & 0x7f | 0x40;
        Self(bytes)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_positive_whatever_was_drawn() {
        assert_eq!(Serial::from_random([0; 16]).to_string(), format!("40{}", "00".repeat(15)));
        assert_eq!(Serial::from_random([0xff; 16]).to_string(), format!("7f{}", "ff".repeat(15)));
    }
}
