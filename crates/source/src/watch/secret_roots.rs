//! Directories of secrets on disk.
//!
//! They are small and change seldom, so each look goes through all of them. A folder whose files have changed is read when
//! they look the same once more, so that a pair of which one half was replaced is not read in between.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use world::{Location, Problem, Severity};

use super::Writers;
use crate::disk::{self, Root, Stamp};
use crate::files::KEPT;
use crate::secret_folders::Folder;
use crate::text::{PARTS, Parts};
use crate::{Content, SecretFolders};

/// What Kubernetes lets a whole Secret have.
const MAX_BYTES: usize = 1 << 20;

/// What a folder's files look like, in the order of [`PARTS`].
type Stamps = [Option<Stamp>; PARTS.len()];

/// What was seen of a folder.
#[derive(Debug, Default)]
struct Seen {
    /// What its files looked like last.
    last: Option<Stamps>,
    /// What they looked like when they were read.
    read: Option<Stamps>,
}

/// The configured directories.
#[derive(Debug)]
pub(super) struct SecretRoots {
    roots: Vec<Root>,
    /// Device and inode of each when it was last found.
    identities: Vec<Option<(u64, u64)>>,
    seen: BTreeMap<Folder, Seen>,
    folders: SecretFolders,
}

/// What a look has led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Everything is read.
    Complete,
    /// Something is being written: look again soon.
    Again,
}

/// What a list of a root says.
#[derive(Debug, PartialEq)]
enum Listing {
    /// All that there is.
    Whole(BTreeSet<Folder>),
    /// Some of it: the root was moved or replaced, or got or lost a namespace, while it was listed.
    Partial(BTreeSet<Folder>),
    /// Nothing, and why: what it held stays.
    Missing(String),
}

impl SecretRoots {
    pub(super) fn new(paths: &[PathBuf]) -> Self {
        let roots: Vec<_> = paths.iter().map(|path| Root::new(path)).collect();
        let identities = vec![None; roots.len()];
        Self { roots, identities, seen: BTreeMap::new(), folders: SecretFolders::default() }
    }

    /// The directories, as notifications name them.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.roots.iter().map(|root| &*root.path)
    }

    /// Whether something at this path may be a secret's.
    pub(super) fn covers(&self, path: &Path) -> bool {
        self.paths().any(|root| path.starts_with(root))
    }

    /// What is known of them.
    pub(super) fn folders(&self) -> &SecretFolders {
        &self.folders
    }

    /// Goes through all of them.
    pub(super) fn look(&mut self, writers: Writers) -> Look {
        let (mut found, mut problems) = (BTreeSet::new(), Vec::new());
        let mut kept = BTreeSet::new();
        let mut look = Look::Complete;
        for at in 0..self.roots.len() {
            let before = disk::stamp(&self.roots[at].path);
            let listed = folders(at, &self.roots[at], &mut problems);
            match self.weigh(at, before, listed) {
                Listing::Whole(all) => found.extend(all),
                Listing::Partial(all) => {
                    kept.insert(at);
                    found.extend(all);
                    look = Look::Again;
                }
                Listing::Missing(why) => {
                    kept.insert(at);
                    problems.push(general(&self.roots[at].name, &why));
                }
            }
        }
        let is_there = |folder: &Folder| kept.contains(&folder.root) || found.contains(folder);
        self.folders.retain(is_there);
        self.seen.retain(|folder, _| is_there(folder));
        self.folders.set_misplaced(problems);
        for folder in found {
            if self.look_at(&folder, writers) == Look::Again {
                look = Look::Again;
            }
        }
        look
    }

    /// What a list of a root is worth, which looked like this `before` it was listed.
    fn weigh(&mut self, at: usize, before: Option<Stamp>, listed: io::Result<BTreeSet<Folder>>) -> Listing {
        let all = match listed {
            Ok(all) => all,
            Err(error) => return Listing::Missing(format!("the path cannot be read: {error}")),
        };
        if before.is_none() || disk::stamp(&self.roots[at].path) != before {
            return Listing::Partial(all);
        }
        let identity = before.map(|stamp| stamp.identity());
        let had_some = self.seen.keys().any(|folder| folder.root == at);
        if all.is_empty() && had_some && identity != self.identities[at] {
            // An unmounted volume leaves an empty directory.
            return Listing::Missing("it is another directory now, and empty".to_owned());
        }
        self.identities[at] = identity;
        Listing::Whole(all)
    }

    fn look_at(&mut self, folder: &Folder, writers: Writers) -> Look {
        let directory = self.roots[folder.root].path.join(&*folder.namespace).join(&*folder.name);
        let now = stamps(&directory);
        let seen = self.seen.entry(folder.clone()).or_default();
        let was = seen.last.replace(now);
        if seen.read == Some(now) {
            return Look::Complete;
        }
        if writers == Writers::Awaited && was != Some(now) {
            return Look::Again;
        }
        let read = read(&directory);
        if stamps(&directory) != now {
            return Look::Again;
        }
        seen.read = Some(now);
        self.folders.take(folder, read);
        Look::Complete
    }
}

/// Every `<namespace>/<name>` of a root.
fn folders(at: usize, root: &Root, problems: &mut Vec<Problem>) -> io::Result<BTreeSet<Folder>> {
    let mut found = BTreeSet::new();
    for (namespace, directory) in directories(&root.path)? {
        // What vanishes meanwhile is seen by the next look.
        let Ok(inner) = directories(&directory) else { continue };
        let place = |name: &str| format!("{}/{namespace}/{name}", root.name.trim_end_matches('/'));
        if let Some(part) = PARTS.into_iter().find(|part| directory.join(part).is_file()) {
            let problem =
                general(&place(part), "a file of a secret stands in <namespace>/<name>/, and this one does not");
            problems.push(Problem { consequence: "the file is passed over".to_owned(), ..problem });
        }
        for (name, _) in inner {
            let place = place(&name).into();
            found.insert(Folder { root: at, namespace: namespace.as_str().into(), name: name.into(), place });
        }
    }
    Ok(found)
}

/// The directories in a directory, those behind symbolic links too.
fn directories(path: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        let Ok(entry) = entry else { continue };
        if disk::is_hidden(&entry.file_name()) || !entry.path().is_dir() {
            continue;
        }
        if let Ok(name) = entry.file_name().into_string() {
            found.push((name, entry.path()));
        }
    }
    Ok(found)
}

fn stamps(directory: &Path) -> Stamps {
    PARTS.map(|part| disk::stamp(&directory.join(part)))
}

fn read(directory: &Path) -> Result<Parts, (&'static str, String)> {
    let mut parts = Parts::new();
    for part in PARTS {
        match disk::read(&directory.join(part), MAX_BYTES) {
            Content::Text(bytes) if bytes.is_empty() => {}
            Content::Text(bytes) => {
                let text = String::from_utf8(bytes).map_err(|_| (part, "it is not text in PEM form".to_owned()))?;
                parts.insert(part, text);
            }
            Content::Gone => {}
            Content::Unreadable(why) => return Err((part, why)),
        }
    }
    Ok(parts)
}

fn general(place: &str, message: &str) -> Problem {
    Problem {
        severity: Severity::Error,
        object: None,
        field: String::new(),
        message: message.to_owned(),
        consequence: KEPT.to_owned(),
        hint: String::new(),
        location: Some(Location { file: place.into(), line: 0, column: 0 }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods)]

    use super::*;

    #[test]
    fn a_directory_that_moves_while_it_is_listed_keeps_what_it_said() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secrets");
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(["shop.test".to_owned()]).unwrap().self_signed(&key).unwrap();
        fs::create_dir_all(path.join("edge/shop")).unwrap();
        fs::write(path.join("edge/shop/tls.crt"), certificate.pem()).unwrap();
        fs::write(path.join("edge/shop/tls.key"), key.serialize_pem()).unwrap();
        let mut roots = SecretRoots::new(std::slice::from_ref(&path));
        assert_eq!(roots.look(Writers::Ignored), Look::Complete);
        assert_eq!(roots.folders().definitions().count(), 1);

        // Entries whose path leads nowhere any more are passed over, so the list is empty and no error.
        let before = disk::stamp(&path);
        fs::rename(&path, directory.path().join("away")).unwrap();
        assert_eq!(roots.weigh(0, before, Ok(BTreeSet::new())), Listing::Partial(BTreeSet::new()));
        roots.look(Writers::Awaited);
        assert_eq!(roots.folders().definitions().count(), 1);

        // What is taken away below it is gone.
        fs::rename(directory.path().join("away"), &path).unwrap();
        assert_eq!(roots.look(Writers::Awaited), Look::Complete);
        fs::remove_dir_all(path.join("edge")).unwrap();
        assert_eq!(roots.look(Writers::Awaited), Look::Complete);
        assert_eq!(roots.folders().definitions().count(), 0);
    }
}
