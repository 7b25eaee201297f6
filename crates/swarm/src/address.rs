//! Where the server listens.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::str::FromStr;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrStorage, UnixAddr, bind, connect, setsockopt, socket,
    sockopt,
};

/// `HOST:PORT` or `unix:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// TCP.
    Tcp {
        /// As it was written; it names the server in requests and certificates.
        host: String,
        /// Where it leads.
        address: SocketAddr,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

/// Connections to one destination that one source address can have, below the usual 28,000 ephemeral ports.
const PER_SOURCE: usize = 14_000;

impl Address {
    /// The authority of requests.
    pub(crate) fn authority(&self) -> &str {
        match self {
            Self::Tcp { host, .. } => host,
            Self::Unix(_) => "localhost",
        }
    }

    /// Begins to connect, without waiting. Loopback connections come from several addresses when they are many, since one
    /// address has not enough ports.
    ///
    /// # Errors
    /// If the system refuses at once.
    pub(crate) fn connect(&self, index: usize) -> Result<OwnedFd, Errno> {
        let family = match self {
            Self::Tcp { address: SocketAddr::V4(_), .. } => AddressFamily::Inet,
            Self::Tcp { address: SocketAddr::V6(_), .. } => AddressFamily::Inet6,
            Self::Unix(_) => AddressFamily::Unix,
        };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd = socket(family, SockType::Stream, flags, None)?;
        let begun = match self {
            Self::Tcp { address, .. } => {
                setsockopt(&fd, sockopt::TcpNoDelay, &true)?;
                setsockopt(&fd, sockopt::ReceiveTimestampns, &true)?;
                if index >= PER_SOURCE && address.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST) {
                    let last = 1 + (index / PER_SOURCE) % 4;
                    setsockopt(&fd, sockopt::IpBindAddressNoPort, &true)?;
                    bind(fd.as_raw_fd(), &SockaddrIn::new(127, 0, 0, last as u8, 0))?;
                }
                connect(fd.as_raw_fd(), &SockaddrStorage::from(*address))
            }
            Self::Unix(path) => connect(fd.as_raw_fd(), &UnixAddr::new(path)?),
        };
        match begun {
            Ok(()) | Err(Errno::EINPROGRESS) => Ok(fd),
            Err(error) => Err(error),
        }
    }
}

impl FromStr for Address {
    type Err = String;

    /// Names are looked up once, here; of several addresses the first is taken.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        let mut found = text
            .to_socket_addrs()
            .map_err(|error| format!("\"{text}\" is not HOST:PORT or unix:PATH that can be found: {error}"))?;
        let address = found.next().ok_or_else(|| format!("no address was found for \"{text}\""))?;
        Ok(Self::Tcp { host: text.to_owned(), address })
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp { host: address.to_string(), address }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, .. } => f.write_str(host),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn addresses_are_written_as_they_are_read() {
        for text in ["127.0.0.1:15010", "[::1]:15010", "unix:/run/xds.sock"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        let error = "15010".parse::<Address>().unwrap_err();
        assert!(error.contains("\"15010\" is not HOST:PORT"), "{error}");
    }
}
