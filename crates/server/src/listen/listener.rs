//! One socket that is listened at.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixSocket};

use super::{Peer, Socket};
use crate::{Error, Listen};

/// Owner and group may connect. Until the mode is set the process's umask holds, which gives others no write access
/// unless the operator wants it so.
const UNIX_MODE: u32 = 0o660;
/// Anybody may connect where peers are verified.
const VERIFIED_UNIX_MODE: u32 = 0o666;
/// Connections that may wait to be accepted; the kernel may take fewer (`net.core.somaxconn`). With the 128 that are
/// usual, the rest of a fleet that reconnects at once is put off by a second and more.
const BACKLOG: u32 = 4096;
/// A TCP connection that is silent for so long is asked by the kernel whether it is alive. HTTP/2 pings find out
/// earlier; this covers connections that have not got that far.
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);

/// A bound socket. A Unix socket's file is removed when this is dropped, if it is still the same file.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix { listener: UnixListener, file: SocketFile },
}

/// Identifies the file that was created, so that another process's is never removed.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Listener {
    /// Binds, in a runtime. The file of a Unix socket that nobody answers on any more is replaced.
    pub(crate) fn bind(listen: &Listen) -> Result<Self, Error> {
        let failed = |source| Error::Bind { listen: listen.clone(), source };
        match listen {
            Listen::Tcp(address) => {
                let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
                let listen = |socket: TcpSocket| {
                    // A port whose last connections are not quite forgotten can be taken again at once.
                    socket.set_reuseaddr(true)?;
                    socket.bind(*address)?;
                    socket.listen(BACKLOG)
                };
                socket.and_then(listen).map(Listener::Tcp).map_err(failed)
            }
            Listen::Unix(path) => {
                clear_the_way(path)?;
                let socket = UnixSocket::new_stream().map_err(failed)?;
                socket.bind(path).map_err(failed)?;
                let listener = socket.listen(BACKLOG).map_err(failed)?;
                let metadata = fs::symlink_metadata(path).map_err(failed)?;
                let file = SocketFile { path: path.clone(), device: metadata.dev(), inode: metadata.ino() };
                fs::set_permissions(path, fs::Permissions::from_mode(UNIX_MODE)).map_err(failed)?;
                Ok(Listener::Unix { listener, file })
            }
        }
    }

    /// The same, where who may be served is decided by what they prove: anybody may connect to the Unix socket.
    pub(crate) fn bind_for_all(listen: &Listen) -> Result<Self, Error> {
        let bound = Self::bind(listen)?;
        if let Listen::Unix(path) = listen {
            let opened = fs::set_permissions(path, fs::Permissions::from_mode(VERIFIED_UNIX_MODE));
            opened.map_err(|source| Error::Bind { listen: listen.clone(), source })?;
        }
        Ok(bound)
    }

    /// Where it really listens: with the port that was taken, when port 0 was asked for.
    pub(crate) fn address(&self) -> io::Result<Listen> {
        match self {
            Listener::Tcp(listener) => listener.local_addr().map(Listen::Tcp),
            Listener::Unix { file, .. } => Ok(Listen::Unix(file.path.clone())),
        }
    }

    /// The next connection. May be dropped while it waits without losing one.
    pub(crate) async fn accept(&self) -> io::Result<(Socket, Peer)> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                tune(&stream)?;
                Ok((Socket::Tcp(stream), Peer::Tcp(address)))
            }
            Listener::Unix { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                Ok((Socket::Unix(stream), Peer::Unix { user: None }))
            }
        }
    }
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, TCP_KEEPALIVE)?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(10))?;
    sockopt::set_tcp_keepcnt(stream, 3)?;
    Ok(())
}

/// Removes what a process that no longer lives has left behind.
fn clear_the_way(path: &Path) -> Result<(), Error> {
    let failed = |source| Error::Bind { listen: Listen::Unix(path.to_owned()), source };
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if !metadata.file_type().is_socket() {
        return Err(Error::NotASocket { path: path.to_owned() });
    }
    match UnixStream::connect(path) {
        // Only this error says that nobody listens; with any other the socket may be alive.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(failed),
        Ok(_) | Err(_) => Err(Error::SocketInUse { path: path.to_owned() }),
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == (self.device, self.inode));
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the socket's file could not be removed");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_socket_file_of_a_dead_process_is_replaced_and_removed_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("xds.sock");
        // Dropping a std listener leaves its file, as a killed process does.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let listener = Listener::bind(&Listen::Unix(path.clone())).unwrap();
        assert_eq!(fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o777, UNIX_MODE);
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_socket_that_somebody_answers_on_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("xds.sock");
        let _alive = Listener::bind(&Listen::Unix(path.clone())).unwrap();
        let refused = Listener::bind(&Listen::Unix(path.clone()));
        assert!(matches!(refused, Err(Error::SocketInUse { .. })), "{refused:?}");
        assert!(path.exists());
    }

    #[tokio::test]
    async fn a_file_that_is_not_a_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notes.txt");
        fs::write(&path, "mine").unwrap();
        let refused = Listener::bind(&Listen::Unix(path.clone()));
        assert!(matches!(refused, Err(Error::NotASocket { .. })), "{refused:?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }

    #[tokio::test]
    async fn a_socket_file_that_another_process_has_put_in_place_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("xds.sock");
        let first = Listener::bind(&Listen::Unix(path.clone())).unwrap();
        fs::remove_file(&path).unwrap();
        let _second = Listener::bind(&Listen::Unix(path.clone())).unwrap();
        drop(first);
        assert!(path.exists());
    }
}
