//! Which streams of a connection something has happened to.
//!
//! One task serves a connection with all its streams. When it is woken it should look at the streams that have news
//! and at no others: a client may have opened thousands.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Wake, Waker};

use http2::StreamId;

/// The streams of one connection that were woken.
#[derive(Debug, Default)]
pub(super) struct Woken {
    streams: Mutex<Vec<StreamId>>,
    task: OnceLock<Waker>,
    is_called: AtomicBool,
}

/// Wakes the task on behalf of nobody in particular.
#[derive(Debug)]
struct Call(Arc<Woken>);

/// Wakes the task on behalf of one stream.
#[derive(Debug)]
pub(super) struct Mark {
    stream: StreamId,
    is_set: AtomicBool,
    woken: Arc<Woken>,
}

impl Woken {
    /// Says which task serves the connection; it stays the same.
    pub(super) fn served_by(&self, task: &Waker) {
        self.task.get_or_init(|| task.clone());
    }

    /// The mark of a stream, set: a new stream has to be looked at.
    pub(super) fn mark(self: &Arc<Self>, stream: StreamId) -> Arc<Mark> {
        let mark = Arc::new(Mark { stream, is_set: AtomicBool::new(false), woken: self.clone() });
        mark.set();
        mark
    }

    /// Puts the streams that were woken, in order of waking, into `streams`, which must be empty.
    pub(super) fn take(&self, streams: &mut Vec<StreamId>) {
        std::mem::swap(&mut *self.streams.lock().unwrap_or_else(PoisonError::into_inner), streams);
    }

    /// A waker for what concerns the whole connection. It counts as used from the start: what is waited for may have
    /// happened before.
    pub(super) fn call(self: &Arc<Self>) -> Waker {
        self.is_called.store(true, Ordering::Release);
        Waker::from(Arc::new(Call(self.clone())))
    }

    /// Whether such a waker was used since this was asked last.
    pub(super) fn was_called(&self) -> bool {
        self.is_called.load(Ordering::Acquire) && self.is_called.swap(false, Ordering::AcqRel)
    }

    fn wake_task(&self) {
        if let Some(task) = self.task.get() {
            task.wake_by_ref();
        }
    }
}

impl Mark {
    /// Has the stream looked at next time, without waking the task.
    pub(super) fn set(&self) {
        if !self.is_set.swap(true, Ordering::AcqRel) {
            self.woken.streams.lock().unwrap_or_else(PoisonError::into_inner).push(self.stream);
        }
    }

    /// The stream is being looked at: from here on it can be woken again.
    pub(super) fn clear(&self) {
        self.is_set.store(false, Ordering::Release);
    }
}

impl Wake for Mark {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.set();
        self.woken.wake_task();
    }
}

impl Wake for Call {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.is_called.store(true, Ordering::Release);
        self.0.wake_task();
    }
}
