//! Files and directories on disk, read once and then watched.
//!
//! One thread of its own looks and reads, so that neither a slow disk nor a file of fifty megabytes holds up anything
//! else; its owner is the [`Watch`]. It hands each update over itself, so that nothing else has to wake up on the way.
//! What it may decide is only when to read: what follows from the bytes is
//! [`Files`]' to say.
//!
//! When a file is read:
//! - At once when it was closed by a writer or renamed into place (inotify). There is no debounce.
//! - When a writer keeps it open: once it has not changed for [`Options::quiet`], so that a half-written file is not
//!   mistaken for a broken one.
//! - After any event that cannot be tied to one file (`..data` was swapped, a directory moved), and every
//!   [`Options::poll`] in any case: every file whose inode, length or times differ. That covers network file systems,
//!   exhausted inotify limits, and directories that were deleted and made again.
//!
//! Removals wait until nothing has happened for [`Options::removal_delay`]: replacing a directory file by file, or
//! moving an object between files, never takes it away in between. A configured path that is gone as a whole, or comes
//! back empty under another inode (an unmounted volume), removes nothing and is reported until it is back.

mod driver;
mod secret_roots;

use std::convert::Infallible;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use world::{Acceptance, Refusal, Submission};

use crate::{Files, LastGood, Shelf, Update, text};
use driver::{Driver, Signal};

/// How files are watched.
#[derive(Clone, Debug)]
pub struct Options {
    /// How they are read.
    pub text: text::Options,
    /// Every so often all files are compared with what is known of them.
    pub poll: Duration,
    /// How long an open file must stay unchanged before it is read without having been closed.
    pub quiet: Duration,
    /// How long nothing must have happened before objects that no file holds any more are removed.
    pub removal_delay: Duration,
    /// Directories with secrets of gateways as plain files, `<namespace>/<name>/tls.crt` and so on.
    pub secrets: Vec<PathBuf>,
}

/// What a look at files does with those that are being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writers {
    /// Reads them as they are.
    Ignored,
    /// Leaves them until their writer is done.
    Awaited,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            text: text::Options::default(),
            poll: Duration::from_secs(2),
            quiet: Duration::from_millis(50),
            removal_delay: Duration::from_millis(100),
            secrets: Vec::new(),
        }
    }
}

/// An update and the moment when its cause was seen.
#[derive(Clone, Debug)]
pub struct Seen {
    /// What changed.
    pub update: Update,
    /// When the first event that led to it arrived, before anything was read.
    pub at: Instant,
}

/// Files that are watched. What happens to them waits until [`Opened::start`].
pub struct Opened {
    driver: Driver,
    signals: SyncSender<Signal>,
    inbox: Receiver<Signal>,
}

impl Opened {
    /// Gives every update to `deliver`, on a thread of its own, until that breaks off or the watch is dropped. While
    /// `deliver` waits, changes on disk add up and come as one update.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(self, deliver: impl FnMut(Seen) -> ControlFlow<()> + Send + 'static) -> std::io::Result<Watch> {
        let Self { driver, signals, inbox } = self;
        let (running, ended) = oneshot::channel();
        let run = move || {
            // Dropped with the thread, also when that panics.
            let _running: oneshot::Sender<Infallible> = running;
            driver.run(&inbox, deliver);
        };
        let thread = std::thread::Builder::new().name("pointsman-files".to_owned()).spawn(run)?;
        Ok(Watch { signals, ended, thread: Some(thread) })
    }
}

/// A running watch. Dropping it ends the thread and waits for it, at most as long as one file takes to read and one
/// update to be delivered.
#[derive(Debug)]
pub struct Watch {
    signals: SyncSender<Signal>,
    ended: oneshot::Receiver<Infallible>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Returns when the thread has ended: nobody wanted its updates any more, or it panicked. Cancel safe; may be
    /// asked again until it has returned.
    pub async fn ended(&mut self) {
        // Nothing is ever sent: this is the sender's end.
        let _ = (&mut self.ended).await;
    }
}

/// Takes the answer to a submission.
pub type Reply = oneshot::Sender<Result<Acceptance, Refusal>>;

/// A submission on its way.
#[derive(Debug)]
struct Submitted {
    submission: Submission,
    time: String,
    reply: Reply,
}

impl Watch {
    /// Hands a submission made at `time` (RFC 3339) to the thread, behind everything that is known to have happened on
    /// the disk by now. It is answered once what was taken has been delivered. Does not wait: when the thread has more
    /// to do than can queue up, or has ended, the answer says so.
    pub fn submit(&self, submission: Submission, time: String, reply: Reply) {
        let submitted = Submitted { submission, time, reply };
        let (refusal, signal) = match self.signals.try_send(Signal::Submitted(Box::new(submitted))) {
            Ok(()) => return,
            Err(TrySendError::Full(signal)) => (Refusal::Busy, signal),
            Err(TrySendError::Disconnected(signal)) => (Refusal::Nobody, signal),
        };
        if let Signal::Submitted(submitted) = signal {
            // Whoever no longer waits for the answer has gone.
            let _ = submitted.reply.send(Err(refusal));
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Blocks while events fill the channel, which the thread takes out as soon as it has delivered.
        let _ = self.signals.send(Signal::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Reads all manifests of `paths` (files, or directories with their `*.yaml`, `*.yml` and `*.json` at any depth) once.
/// Blocks on the disk.
pub fn load(paths: &[PathBuf], options: &Options) -> (Files, Update) {
    let mut driver = Driver::new(paths, options.clone(), None, None);
    let update = driver.load();
    (driver.into_files(), update)
}

/// Like [`load`], and from then on notes changes, which [`Opened::start`] reports. Nothing that happens between the two
/// is missed. Blocks on the disk until the first load is done.
///
/// A path that does not exist is a problem of the update, not an error: it is taken up once it appears.
///
/// What the shelf keeps stands beside the files; without one nothing is taken that is submitted. With `last_good` the last
/// good version of a policy is remembered from one start to the next.
pub fn open(
    paths: &[PathBuf],
    options: Options,
    shelf: Option<Shelf>,
    last_good: Option<LastGood>,
) -> (Update, Opened) {
    let (signals, inbox) = driver::signals();
    let mut driver = Driver::new(paths, options, shelf, last_good);
    driver.subscribe(&signals);
    let first = driver.load();
    (first, Opened { driver, signals, inbox })
}
