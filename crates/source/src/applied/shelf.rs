//! The file in which objects are kept that were handed over.
//!
//! It appears whole or not at all: written beside its place, made durable, and renamed. So a full disk leaves what was
//! there, and whoever was answered finds the object after any crash. Mode 0600: webhook URLs in it may be secret.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use world::{Acceptance, Change, Refusal, Submission};

use super::{Applied, Verdict};
use crate::disk;
use crate::files::Files;

const FILE: &str = "applied.json";

/// Why what was kept cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ShelfError {
    /// The directory cannot be made, or the file not be read.
    #[error("cannot read the applied objects in \"{path}\": {source}", path = .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is damaged, or of another version.
    #[error(
        "the applied objects in \"{path}\" cannot be read ({words}): restore a copy of the file, or move it away and \
         apply them again",
        path = .path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        words: String,
    },
}

/// What is kept, on the disk and in memory.
#[derive(Debug)]
pub struct Shelf {
    path: PathBuf,
    applied: Applied,
}

impl Shelf {
    /// Opens what is kept in a directory, which is made if it is not there. Blocks on the disk.
    ///
    /// # Errors
    /// [`ShelfError`]; nothing was changed then.
    pub fn open(directory: &Path) -> Result<Self, ShelfError> {
        let path = directory.join(FILE);
        let failed = |source| ShelfError::File { path: path.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let applied = match fs::read_to_string(&path) {
            Ok(text) => Applied::read(&text).map_err(|words| ShelfError::Damaged { path: path.clone(), words })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Applied::default(),
            Err(source) => return Err(ShelfError::File { path, source }),
        };
        Ok(Self { path, applied })
    }

    /// Puts everything that is kept into `files`.
    pub(crate) fn fill(&self, files: &mut Files) -> Vec<Change> {
        let options = files.options().clone();
        let mut changes = Vec::new();
        for (reference, parsed) in self.applied.parsed(&options) {
            changes.extend(files.put(&super::place(reference), parsed));
        }
        changes
    }

    /// Carries a submission out that was made at `time` (RFC 3339); what it changes in `files` is durable then.
    ///
    /// # Errors
    /// [`Refusal`]; nothing has changed.
    pub(crate) fn take(
        &mut self,
        submission: &Submission,
        time: &str,
        files: &mut Files,
    ) -> Result<(Vec<Change>, Acceptance), Refusal> {
        let Verdict { next, new, gone, acceptance } = self.applied.decide(submission, time, files)?;
        let Some(next) = next else { return Ok((Vec::new(), acceptance)) };
        disk::replace(&self.path, next.text().as_bytes()).map_err(|error| Refusal::NotStored(error.to_string()))?;
        self.applied = next;
        let mut changes = Vec::new();
        for (reference, parsed) in new {
            changes.extend(files.put(&super::place(&reference), parsed));
        }
        changes.extend(gone.into_iter().flat_map(|reference| files.withdraw(&super::place(&reference), &reference)));
        Ok((changes, acceptance))
    }
}
