//! From text to changes: manifests in YAML or JSON become [`world::Object`]s and [`world::Problem`]s, and directories
//! of such files become a stream of [`world::Change`]s.
//!
//! Seven parts, each usable alone:
//! - [`text`] reads one file's bytes. It is pure: no file is opened, nothing panics, every oddity is a problem with
//!   file, line, object and field.
//! - [`Files`] remembers what each file said and turns the next version into the changes between the two. It is pure
//!   too, and keeps the last good version of what can no longer be read.
//! - [`Shelf`] keeps objects that were handed over instead of written to a file, and refuses what a file would not be
//!   taken for.
//! - [`LastGood`] keeps the last good versions of policies over restarts.
//! - [`watch`] does the IO: it finds the files, notices changes, reads, and feeds [`Files`].
//! - [`crds`] says the same about our own kinds to an API server, so that it refuses what would be refused here.
//! - [`import`] turns the objects of Flagger and Argo Rollouts into our own.
//!
//! What this crate deliberately does not do: relate objects to one another. A route to a service that does not exist
//! is the compiler's to report. The invariant: what is in force is always what some file said, in a version that was
//! valid as a whole; only what keeps somebody out, and never was valid, is in force in a version that lets nobody in.

mod applied;
pub mod crds;
#[allow(clippy::disallowed_methods, reason = "this module is the IO")]
mod disk;
pub mod files;
pub mod import;
#[allow(clippy::disallowed_methods, reason = "this module is the IO")]
mod last_good;
mod secret_folders;
pub mod text;
mod validate;
#[allow(clippy::disallowed_methods, reason = "this module owns the thread that looks at the disk and the clock")]
pub mod watch;

pub use applied::{Shelf, ShelfError};
pub use files::{Content, Files, TlsSecrets, Update};
pub use last_good::LastGood;
pub(crate) use secret_folders::SecretFolders;
pub use text::{Options, Parsed};
