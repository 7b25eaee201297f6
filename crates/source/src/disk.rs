//! The configured paths on disk: which manifests are there, whether they changed, and their bytes. And the files of the
//! state directory, as they are replaced.

use std::collections::BTreeMap;
use std::fs::{self, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::Content;

/// Directories below a root are followed to this depth, through symbolic links too; loops end here.
const MAX_DEPTH: usize = 16;

/// One configured path.
#[derive(Debug)]
pub(crate) struct Root {
    /// As it was given, for messages.
    pub(crate) name: Arc<str>,
    given: PathBuf,
    /// Absolute, as notifications name it; symbolic links are not resolved, for they may be swapped.
    pub(crate) path: PathBuf,
}

/// What tells two states of a file apart without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Of a file that was never looked at.
    pub(crate) const NEVER: Self = Self { device: 0, inode: 0, length: 0, modified: (0, 0), changed: (0, 0) };

    /// Which file or directory it is, whatever it holds.
    pub(crate) fn identity(&self) -> (u64, u64) {
        (self.device, self.inode)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.length == 0
    }
}

/// The stamp of what `path` leads to; `None` when it cannot be looked at.
pub(crate) fn stamp(path: &Path) -> Option<Stamp> {
    fs::metadata(path).ok().map(|metadata| Stamp::of(&metadata))
}

impl Root {
    pub(crate) fn new(given: &Path) -> Self {
        let path = std::path::absolute(given).unwrap_or_else(|_| given.to_owned());
        Self { name: given.to_string_lossy().into(), given: given.to_owned(), path }
    }

    /// The name of the file at absolute `path` below this root, as messages show it.
    pub(crate) fn name_of(&self, path: &Path) -> Option<Arc<str>> {
        let rest = path.strip_prefix(&self.path).ok()?;
        let shown = if rest.as_os_str().is_empty() { self.given.clone() } else { self.given.join(rest) };
        Some(shown.to_string_lossy().into())
    }

    /// Every manifest, by absolute path.
    ///
    /// # Errors
    /// When the root itself is not there or cannot be listed. What lies deeper and cannot be listed is passed over.
    pub(crate) fn manifests(&self) -> io::Result<BTreeMap<PathBuf, Stamp>> {
        let mut found = BTreeMap::new();
        let metadata = fs::metadata(&self.path)?;
        if metadata.is_dir() {
            walk(&self.path, 0, &mut found)?;
        } else {
            found.insert(self.path.clone(), Stamp::of(&metadata));
        }
        Ok(found)
    }

    /// Whether a file at absolute `path` would be one of [`Root::manifests`].
    pub(crate) fn takes(&self, path: &Path) -> bool {
        match path.strip_prefix(&self.path) {
            Ok(rest) if rest.as_os_str().is_empty() => !self.path.is_dir(),
            Ok(rest) => is_manifest(rest) && rest.iter().all(|part| !is_hidden(part)),
            Err(_) => false,
        }
    }
}

fn walk(directory: &Path, depth: usize, found: &mut BTreeMap<PathBuf, Stamp>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let Ok(entry) = entry else { continue };
        if is_hidden(&entry.file_name()) {
            continue;
        }
        let path = entry.path();
        // Follows symbolic links, unlike the entry's own metadata.
        let Ok(metadata) = fs::metadata(&path) else { continue };
        if metadata.is_dir() {
            if depth < MAX_DEPTH {
                // A directory below that vanishes meanwhile is seen by the next look.
                let _ = walk(&path, depth + 1, found);
            }
        } else if is_manifest(&path) {
            found.insert(path, Stamp::of(&metadata));
        }
    }
    Ok(())
}

fn is_manifest(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json")
}

/// Editors' swap files, `.git`, and the `..data` directories of mounted ConfigMaps, whose files are also linked from
/// beside them.
pub(crate) fn is_hidden(name: &std::ffi::OsStr) -> bool {
    name.as_encoded_bytes().first() == Some(&b'.')
}

/// The bytes of `path`. Of a file above `limit` just enough is read to show that it is.
pub(crate) fn read(path: &Path, limit: usize) -> Content {
    let attempt = || -> io::Result<Content> {
        // Looked at before it is opened: opening a pipe would wait for a writer.
        let metadata = fs::metadata(path)?;
        if !metadata.is_file() {
            return Ok(Content::Unreadable("it is not a regular file".to_owned()));
        }
        let limit = u64::try_from(limit).unwrap_or(u64::MAX);
        if metadata.len() > limit {
            return Ok(Content::Unreadable(format!("it has {} bytes, more than the limit of {limit}", metadata.len())));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
        fs::File::open(path)?.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
        Ok(Content::Text(bytes))
    };
    match attempt() {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Content::Gone,
        Err(error) => Content::Unreadable(error.to_string()),
    }
}

/// Replaces a file so that it has the old or the new content whatever happens, and the new one once this returns.
/// Mode 0600.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("json.new");
    // What a process that was killed has left would be in the way for ever.
    let _ = fs::remove_file(&beside);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        // The new name is durable when its directory is.
        path.parent().map_or(Ok(()), |directory| fs::File::open(directory)?.sync_all())
    })();
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}
