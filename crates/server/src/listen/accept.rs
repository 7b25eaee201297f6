//! Accepting connections, also when the process is short of file descriptors.

use std::io;
use std::time::Duration;

use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use super::{Listener, Peer, Socket};

/// How long accepting rests when nothing could be freed. Without a rest the loop would spin: the connection that
/// cannot be accepted stays ready.
const REST: Duration = Duration::from_millis(100);

/// Hands every connection to `take` until `stop` is cancelled. When file descriptors run out, `make_room` is asked to
/// close something, which need not have happened when it returns; accepting goes on a little later.
pub(crate) async fn accept_until(
    stop: CancellationToken,
    listener: Listener,
    mut take: impl FnMut(Socket, Peer),
    mut make_room: impl FnMut() -> bool,
) {
    let mut is_short = false;
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, peer)) => {
                if is_short {
                    is_short = false;
                    tracing::info!("connections are accepted again");
                }
                take(socket, peer);
            }
            Err(error) if is_shortage(&error) => {
                let found_room = make_room();
                if !is_short {
                    is_short = true;
                    tracing::warn!(
                        %error,
                        closing_silent = found_room,
                        "connections cannot be accepted; a higher limit on open files (ulimit -n) would help"
                    );
                }
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(if found_room { REST / 20 } else { REST }) => {}
                }
            }
            // The peer was gone before its turn came; the next one is not affected.
            Err(error) => tracing::debug!(%error, "a connection was lost before it was accepted"),
        }
    }
}

fn is_shortage(error: &io::Error) -> bool {
    let shortages = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    shortages.iter().any(|shortage| error.raw_os_error() == Some(shortage.raw_os_error()))
}
