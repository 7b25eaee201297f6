//! Files and directories on disk, read once and then watched.
//!
//! One thread of its own looks and reads, so that neither a slow disk nor a file of fifty megabytes holds up anything
//! else; its owner is the [`Watch`]. What it may decide is only when to read: what follows from the bytes is
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

use std::path::PathBuf;
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::{Files, Update, text};
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
    /// Updates that may wait to be taken. When that many wait, the thread waits too: changes on disk add up meanwhile
    /// and come as one update.
    pub waiting: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            text: text::Options::default(),
            poll: Duration::from_secs(2),
            quiet: Duration::from_millis(50),
            removal_delay: Duration::from_millis(100),
            waiting: 16,
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

/// A running watch. Dropping it ends the thread and waits for it, at most as long as one file takes to read.
#[derive(Debug)]
pub struct Watch {
    updates: mpsc::Receiver<Seen>,
    signals: SyncSender<Signal>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// The next update, once there is one. `None` when the thread has ended, which it does only by itself when it
    /// panicked. Cancel safe.
    pub async fn next(&mut self) -> Option<Seen> {
        self.updates.recv().await
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.updates.close();
        // A full channel is no loss: the thread wakes from it and finds its receiver closed.
        let _ = self.signals.try_send(Signal::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Reads all manifests of `paths` (files, or directories with their `*.yaml`, `*.yml` and `*.json` at any depth) once.
/// Blocks on the disk.
pub fn load(paths: &[PathBuf], options: &Options) -> (Files, Update) {
    let mut driver = Driver::new(paths, options.clone());
    let update = driver.load();
    (driver.into_files(), update)
}

/// Like [`load`], and from then on reports changes. Nothing that happens between the two is missed. Blocks on the disk
/// until the first load is done.
///
/// A path that does not exist is a problem of the update, not an error: it is taken up once it appears.
///
/// # Errors
/// When the thread cannot be started.
pub fn watch(paths: &[PathBuf], options: Options) -> std::io::Result<(Update, Watch)> {
    let (sender, updates) = mpsc::channel(options.waiting.max(1));
    let (signals, inbox) = driver::signals();
    let mut driver = Driver::new(paths, options);
    driver.subscribe(&signals);
    let first = driver.load();
    let thread =
        std::thread::Builder::new().name("pointsman-files".to_owned()).spawn(move || driver.run(&inbox, &sender))?;
    Ok((first, Watch { updates, signals, thread: Some(thread) }))
}
