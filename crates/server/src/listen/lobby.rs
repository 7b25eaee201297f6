//! Connections that are open: how many there may be, and which have not said anything yet.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

/// Gives every connection a seat. A connection is silent until it has begun its first stream; silent connections are
/// the first to go when seats or file descriptors run out, the oldest first, so those that say nothing cannot keep
/// out those that do.
#[derive(Debug)]
pub(crate) struct Lobby {
    capacity: usize,
    seats: Mutex<Seats>,
}

#[derive(Debug, Default)]
struct Seats {
    taken: usize,
    next: u64,
    silent: BTreeMap<u64, CancellationToken>,
}

/// One connection's place; free again when dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    lobby: Arc<Lobby>,
    number: u64,
    cut_off: CancellationToken,
}

impl Lobby {
    /// A lobby with `capacity` seats.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, seats: Mutex::default() }
    }

    /// A seat for a new connection, which `cut_off` can close. When all are taken, the oldest silent connection is
    /// cut off; `None` when there is no silent one either.
    pub(crate) fn take_seat(self: &Arc<Self>, cut_off: CancellationToken) -> Option<Seat> {
        let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        if seats.taken >= self.capacity && !seats.cut_off_oldest_silent() {
            return None;
        }
        seats.taken += 1;
        seats.next += 1;
        let number = seats.next;
        seats.silent.insert(number, cut_off.clone());
        Some(Seat { lobby: self.clone(), number, cut_off })
    }

    /// Closes the connection that has been silent for longest. Returns whether there was one.
    pub(crate) fn cut_off_oldest_silent(&self) -> bool {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner).cut_off_oldest_silent()
    }

    /// Connections that are open.
    pub(crate) fn taken(&self) -> usize {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner).taken
    }
}

impl Seats {
    fn cut_off_oldest_silent(&mut self) -> bool {
        match self.silent.pop_first() {
            Some((_, cut_off)) => {
                cut_off.cancel();
                true
            }
            None => false,
        }
    }
}

impl Seat {
    /// The connection's number: unique in the server's life, in order of arrival.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Ends the connection at once when cancelled.
    pub(crate) fn cut_off(&self) -> &CancellationToken {
        &self.cut_off
    }

    /// The connection has begun its first stream.
    pub(crate) fn has_spoken(&self) {
        self.lobby.seats.lock().unwrap_or_else(PoisonError::into_inner).silent.remove(&self.number);
    }

    /// Whether the connection has not begun a stream yet.
    pub(crate) fn is_silent(&self) -> bool {
        self.lobby.seats.lock().unwrap_or_else(PoisonError::into_inner).silent.contains_key(&self.number)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.lobby.seats.lock().unwrap_or_else(PoisonError::into_inner);
        seats.taken -= 1;
        seats.silent.remove(&self.number);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_silent_connection_makes_room_and_one_that_spoke_stays() {
        let lobby = Arc::new(Lobby::new(2));
        let spoke = lobby.take_seat(CancellationToken::new()).unwrap();
        spoke.has_spoken();
        let silent = lobby.take_seat(CancellationToken::new()).unwrap();
        let late = lobby.take_seat(CancellationToken::new()).unwrap();
        assert!(silent.cut_off().is_cancelled());
        assert!(!spoke.cut_off().is_cancelled());
        assert!(!late.cut_off().is_cancelled());
    }

    #[test]
    fn without_a_silent_connection_a_full_lobby_takes_nobody_in() {
        let lobby = Arc::new(Lobby::new(1));
        let spoke = lobby.take_seat(CancellationToken::new()).unwrap();
        spoke.has_spoken();
        assert!(lobby.take_seat(CancellationToken::new()).is_none());
        drop(spoke);
        assert_eq!(lobby.taken(), 0);
        assert!(lobby.take_seat(CancellationToken::new()).is_some());
    }
}
