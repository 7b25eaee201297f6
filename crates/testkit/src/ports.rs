//! Addresses that nothing else on this machine uses, also not another test process.
//!
//! Why not port 0: a process under test often has to be *told* its port (Envoy's listeners, a server that is restarted
//! on the same port). Why not "bind port 0, look, close": the kernel's ephemeral range starts at 32768, so the port may be
//! taken by any outgoing connection before it is used; and Envoy binds with `SO_REUSEPORT`, so that two Envoys that were
//! given one port by accident do not fail but share the traffic.
//!
//! Ports come from below the ephemeral range, were free when handed out, and are reserved until the process ends by an
//! abstract Unix socket of that name: the kernel drops it with the process, and its scope is the network namespace,
//! exactly as for the port itself.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixListener;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::net::TcpSocket;

/// Handed-out ports are in `FIRST..END`: clear of well-known ports and of Linux's ephemeral range (32768-60999).
const FIRST: u32 = 16_000;
const END: u32 = 32_768;

/// The sockets that stand for the addresses that this process was given.
static RESERVED: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());

/// How many candidates this process has looked at, of ports and of addresses.
static LOOKED_AT_PORTS: AtomicU32 = AtomicU32::new(0);
static LOOKED_AT_ADDRESSES: AtomicU32 = AtomicU32::new(0);

/// A free TCP address with this IP. It is not given to anybody else before this process ends.
///
/// # Errors
/// If every port is taken, or `ip` is not an address of this machine.
pub fn tcp(ip: Ipv4Addr) -> io::Result<SocketAddr> {
    let size = END - FIRST;
    for _ in 0..size {
        let step = LOOKED_AT_PORTS.fetch_add(1, Ordering::Relaxed);
        // Test processes that run at once start far from each other, so that they seldom meet.
        let port = FIRST + spread().wrapping_add(step) % size;
        let address = SocketAddr::from((ip, u16::try_from(port).expect("END is below 65536")));
        if reserve(address)? {
            return Ok(address);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, format!("every port of {ip} from {FIRST} to {} is taken", END - 1)))
}

/// A free TCP port on 127.0.0.1: see [`tcp`].
///
/// # Errors
/// As for [`tcp`].
pub fn local() -> io::Result<SocketAddr> {
    tcp(Ipv4Addr::LOCALHOST)
}

/// A loopback address of its own (127.x.y.z) for something that imitates a pod, with the given port free on it.
/// Several pods can thus serve the same port, as in Kubernetes.
///
/// # Errors
/// If no address has this port free, for instance because the port needs privileges.
pub fn pod(port: u16) -> io::Result<SocketAddr> {
    const ATTEMPTS: u32 = 4_096;
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let step = LOOKED_AT_ADDRESSES.fetch_add(1, Ordering::Relaxed);
        // 127.64.0.0 to 127.127.255.255, without .0 and .255 in the last place.
        let number = spread().wrapping_mul(61).wrapping_add(step) % (64 * 256 * 254);
        let [high, middle, low] = [number / (256 * 254), number / 254 % 256, number % 254];
        let byte = |value: u32| u8::try_from(value).expect("reduced below 256 above");
        let ip = Ipv4Addr::new(127, byte(64 + high), byte(middle), byte(1 + low));
        match reserve(SocketAddr::from((ip, port))) {
            Ok(true) => return Ok(SocketAddr::from((ip, port))),
            Ok(false) => {}
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| io::Error::new(io::ErrorKind::AddrInUse, format!("port {port} is taken everywhere"))))
}

/// Reserves the address if it is free; `false` if it is reserved or in use.
fn reserve(address: SocketAddr) -> io::Result<bool> {
    let name = std::os::unix::net::SocketAddr::from_abstract_name(format!("pointsman-testkit/{address}"))?;
    let reservation = match UnixListener::bind_addr(&name) {
        Ok(reservation) => reservation,
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Ok(false),
        Err(error) => return Err(error),
    };
    match try_bind(address) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Ok(false),
        Err(error) => return Err(error),
    }
    RESERVED.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(reservation);
    Ok(true)
}

/// Binds the address and lets it go again. The socket does not listen: a child process that another thread starts at this
/// very moment has it for a while, and one that listens would keep the address from whoever it is for.
fn try_bind(address: SocketAddr) -> io::Result<()> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)
}

/// Where in the range this process starts. Neighbouring process ids land far apart.
fn spread() -> u32 {
    std::process::id().wrapping_mul(2_654_435_761) >> 8
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn ports_are_below_the_ephemeral_range_and_never_given_twice() {
        let given: BTreeSet<_> = (0..200).map(|_| local().unwrap()).collect();
        assert_eq!(given.len(), 200);
        assert!(given.iter().all(|address| address.port() < 32_768 && address.ip() == Ipv4Addr::LOCALHOST));
    }

    #[test]
    fn a_port_in_use_is_not_given() {
        let address = local().unwrap();
        let next = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), address.port()));
        let _socket = TcpListener::bind(next).unwrap();
        assert!(!reserve(next).unwrap());
    }

    #[test]
    fn what_another_process_was_given_is_not_given_here() {
        // The reservation alone counts, as the other process has not bound the port yet.
        let address = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 3), 16_001));
        let name = format!("pointsman-testkit/{address}");
        let theirs = std::os::unix::net::SocketAddr::from_abstract_name(name).unwrap();
        let _theirs = UnixListener::bind_addr(&theirs).unwrap();
        assert!(!reserve(address).unwrap());
    }

    #[test]
    fn pods_share_a_port_on_addresses_of_their_own() {
        let given: BTreeSet<_> = (0..50).map(|_| pod(8_080).unwrap()).collect();
        assert_eq!(given.len(), 50);
        assert!(given.iter().all(|address| address.port() == 8_080 && address.ip().is_loopback()));
    }

    #[test]
    fn an_address_of_another_machine_is_an_error() {
        tcp(Ipv4Addr::new(192, 0, 2, 1)).unwrap_err();
    }
}
