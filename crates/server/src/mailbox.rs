//! A way to tell one task something now and then.
//!
//! Thousands of streams look for mail whenever they are woken, and next to never have any. So looking costs one load,
//! and an empty box holds no memory for what may come.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// A new mailbox that holds at most `capacity` entries: where they come in, and where they are taken out.
pub(crate) fn mailbox<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared { has_mail: AtomicBool::new(false), state: Mutex::new(State::new(capacity)) });
    (Sender { shared: shared.clone() }, Receiver { shared, is_listening: false })
}

/// Puts mail into the box.
#[derive(Debug)]
pub(crate) struct Sender<T> {
    shared: Arc<Shared<T>>,
}

/// Takes mail out. What is in the box when this is dropped is dropped with it.
#[derive(Debug)]
pub(crate) struct Receiver<T> {
    shared: Arc<Shared<T>>,
    is_listening: bool,
}

#[derive(Debug)]
struct Shared<T> {
    has_mail: AtomicBool,
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    mail: VecDeque<T>,
    capacity: usize,
    reader: Option<Waker>,
    is_closed: bool,
}

impl<T> State<T> {
    fn new(capacity: usize) -> Self {
        Self { mail: VecDeque::new(), capacity, reader: None, is_closed: false }
    }
}

impl<T> Shared<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<T> {
        let mut state = self.state();
        let mail = state.mail.pop_front();
        if state.mail.is_empty() {
            state.mail = VecDeque::new();
            self.has_mail.store(false, Ordering::Release);
        }
        mail
    }
}

impl<T> Sender<T> {
    /// Sends, and wakes the reader.
    ///
    /// # Errors
    /// The box is full, or nobody reads it any more: what was to be sent comes back.
    pub(crate) fn send(&self, mail: T) -> Result<(), T> {
        let mut state = self.shared.state();
        if state.is_closed || state.mail.len() >= state.capacity {
            return Err(mail);
        }
        state.mail.push_back(mail);
        self.shared.has_mail.store(true, Ordering::Release);
        let reader = state.reader.clone();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
        Ok(())
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<T> Receiver<T> {
    /// The next entry. When there is none, `cx` is woken for the next one and for all after it, so it must be of the
    /// same task each time.
    pub(crate) fn poll(&mut self, cx: &Context<'_>) -> Poll<T> {
        if !std::mem::replace(&mut self.is_listening, true) {
            self.shared.state().reader = Some(cx.waker().clone());
        }
        self.take().map_or(Poll::Pending, Poll::Ready)
    }

    /// The next entry, if there is one.
    pub(crate) fn take(&self) -> Option<T> {
        if self.shared.has_mail.load(Ordering::Acquire) { self.shared.take() } else { None }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.is_closed = true;
        // Whoever waits for an answer to what is in it learns that none will come.
        let (mail, reader) = (std::mem::take(&mut state.mail), state.reader.take());
        drop(state);
        drop((mail, reader));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Rings(AtomicUsize);

    impl Wake for Rings {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::AcqRel);
        }
    }

    #[test]
    fn the_reader_is_woken_for_each_entry_and_takes_them_in_order() {
        let rings = Arc::new(Rings::default());
        let waker = Waker::from(rings.clone());
        let cx = Context::from_waker(&waker);
        let (sender, mut receiver) = mailbox(8);
        sender.send(1).unwrap();
        assert_eq!(receiver.poll(&cx), Poll::Ready(1), "it was there before anybody listened");
        assert_eq!(receiver.poll(&cx), Poll::Pending);
        sender.send(2).unwrap();
        sender.clone().send(3).unwrap();
        assert_eq!(rings.0.load(Ordering::Acquire), 2);
        assert_eq!(receiver.poll(&cx), Poll::Ready(2));
        assert_eq!(receiver.take(), Some(3));
        assert_eq!(receiver.take(), None);
        sender.send(4).unwrap();
        assert_eq!(rings.0.load(Ordering::Acquire), 3, "listening once is enough");
    }

    #[test]
    fn a_full_box_and_one_without_a_reader_give_back_what_was_sent() {
        let (sender, receiver) = mailbox(1);
        let (kept, given) = (Arc::new(()), Arc::new(()));
        sender.send(kept.clone()).unwrap();
        assert!(sender.send(given.clone()).is_err());
        drop(receiver);
        assert_eq!(Arc::strong_count(&kept), 1, "what nobody reads is dropped");
        assert!(sender.send(given.clone()).is_err());
        assert_eq!(Arc::strong_count(&given), 1);
    }
}
