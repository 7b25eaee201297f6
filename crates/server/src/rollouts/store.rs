//! What rollouts must not forget: one file, every change of which is on the disk before anybody acts on it.
//!
//! Each opening takes a token above all before, and a writer whose token is not the newest is refused: a server that
//! lost its file to another publishes nothing more. The file is locked while it is open, so two servers with one state
//! directory do not come that far. Records are JSON by name; the format of the whole has a number.
//!
//! After an error of the disk the file is closed, and opened anew by the next attempt to write.

use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use redb::backends::InMemoryBackend;
use redb::{Database, DatabaseError, ReadableTable, StorageError, TableDefinition};
use rollout::{IntentRecord, Record, Stored};

/// The format that this version writes.
const FORMAT: u64 = 1;
const FILE: &str = "rollouts.redb";
const PRIVATE: u32 = 0o600;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const INTENTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("intents");
const RUNS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("runs");

/// Why the state cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory cannot be made, or the file not be opened.
    #[error("cannot open the state in \"{path}\": {source}", path = .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process has it open.
    #[error(
        "the state in \"{path}\" is in use by another process: stop it, or choose another directory with --state-dir",
        path = .path.display()
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It is not a state, or is damaged.
    #[error(
        "the state in \"{path}\" cannot be read ({words}): restore a copy of it, or move it away; rollouts then begin \
         anew from the revision that each intent names as stable",
        path = .path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        words: String,
    },
    /// A newer version has written it.
    #[error(
        "the state in \"{path}\" has format {found}, and this version reads up to {FORMAT}: use the version that \
         wrote it, or a newer one",
        path = .path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
    },
}

/// Why something is not durable.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    /// Somebody has opened the state since.
    #[error("another server has taken over the state (its token is {0})")]
    Fenced(u64),
    /// In the store's words.
    #[error("{0}")]
    Failed(String),
}

/// One record, or the end of one.
#[derive(Clone, Debug)]
pub(super) enum Entry {
    /// Of a run.
    Run {
        /// Its namespace.
        namespace: String,
        /// The record.
        record: Box<Record>,
    },
    /// Of an intent.
    Intent(Box<IntentRecord>),
    /// A run is forgotten.
    Forget {
        /// Its namespace.
        namespace: String,
        /// Its name.
        run: String,
    },
}

/// The open state.
#[derive(Debug)]
pub(super) struct Store {
    /// `None` after an error.
    database: Option<Database>,
    /// `None` for one that ends with the process.
    path: Option<PathBuf>,
    fence: u64,
}

impl Store {
    /// Opens the state in a directory, which is made if it is not there, and takes a new token. Without a directory
    /// nothing survives the process. Returns what is stored as well.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was changed then.
    pub(super) fn open(directory: Option<&Path>) -> Result<(Self, Stored), StoreError> {
        let path = directory.map(|directory| directory.join(FILE));
        if let (Some(directory), Some(path)) = (directory, &path) {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
            made.map_err(|source| StoreError::Open { path: path.clone(), source })?;
        }
        let database = open(path.as_deref())?;
        let named = path.clone().unwrap_or_else(|| PathBuf::from("memory"));
        let damaged = |words: String| StoreError::Damaged { path: named.clone(), words };
        let failed = |error: &dyn std::error::Error| damaged(error.to_string());
        let write = database.begin_write().map_err(|error| failed(&error))?;
        let (fence, stored);
        {
            let mut meta = write.open_table(META).map_err(|error| failed(&error))?;
            let known = |key| meta.get(key).map(|value| value.map(|value| value.value()));
            let format = known("format").map_err(|error| failed(&error))?.unwrap_or(FORMAT);
            if format > FORMAT {
                return Err(StoreError::Newer { path: named.clone(), found: format });
            }
            fence = known("fence").map_err(|error| failed(&error))?.unwrap_or(0) + 1;
            meta.insert("format", FORMAT).map_err(|error| failed(&error))?;
            meta.insert("fence", fence).map_err(|error| failed(&error))?;
            let intents = write.open_table(INTENTS).map_err(|error| failed(&error))?;
            let runs = write.open_table(RUNS).map_err(|error| failed(&error))?;
            stored = read(&intents, &runs).map_err(damaged)?;
        }
        write.commit().map_err(|error| failed(&error))?;
        Ok((Self { database: Some(database), path, fence }, stored))
    }

    /// The token.
    pub(super) fn fence(&self) -> u64 {
        self.fence
    }

    /// Makes all of these durable, or none.
    ///
    /// # Errors
    /// [`WriteError::Fenced`] is final; anything else may be tried again.
    pub(super) fn write(&mut self, entries: &[Entry]) -> Result<(), WriteError> {
        let database = match self.database.take() {
            Some(database) => database,
            None => open(self.path.as_deref()).map_err(|error| WriteError::Failed(error.to_string()))?,
        };
        match write(&database, self.fence, entries) {
            Ok(()) => self.database = Some(database),
            // Such a database takes nothing more: it has to be opened anew.
            Err(WriteError::Failed(words)) => {
                self.database = self.path.is_none().then_some(database);
                return Err(WriteError::Failed(words));
            }
            Err(WriteError::Fenced(by)) => return Err(WriteError::Fenced(by)),
        }
        Ok(())
    }
}

/// Its owner alone can read it; makes an empty one if it is not there.
fn keep_private(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(PRIVATE).open(path)?;
    // It may be older than this rule, and somebody else's, whose business it is.
    let _ = file.set_permissions(Permissions::from_mode(PRIVATE));
    Ok(())
}

fn open(path: Option<&Path>) -> Result<Database, StoreError> {
    let opened = match path {
        Some(path) => {
            keep_private(path).map_err(|source| StoreError::Open { path: path.to_owned(), source })?;
            Database::create(path)
        }
        None => Database::builder().create_with_backend(InMemoryBackend::new()),
    };
    let path = path.map_or_else(|| PathBuf::from("memory"), Path::to_owned);
    opened.map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse { path },
        DatabaseError::Storage(StorageError::Io(source)) if source.kind() != io::ErrorKind::InvalidData => {
            StoreError::Open { path, source }
        }
        other => StoreError::Damaged { path, words: other.to_string() },
    })
}

fn read(
    intents: &impl ReadableTable<&'static str, &'static [u8]>,
    runs: &impl ReadableTable<&'static str, &'static [u8]>,
) -> Result<Stored, String> {
    let mut stored = Stored::default();
    for entry in intents.iter().map_err(|error| error.to_string())? {
        let (key, value) = entry.map_err(|error| error.to_string())?;
        let record = serde_json::from_slice(value.value());
        stored.intents.push(record.map_err(|error| format!("intent \"{}\": {error}", key.value()))?);
    }
    for entry in runs.iter().map_err(|error| error.to_string())? {
        let (key, value) = entry.map_err(|error| error.to_string())?;
        let record = serde_json::from_slice(value.value());
        let record = record.map_err(|error| format!("run \"{}\": {error}", key.value()))?;
        let namespace = key.value().split_once('/').map_or("", |(namespace, _)| namespace);
        stored.runs.push((namespace.to_owned(), record));
    }
    Ok(stored)
}

fn write(database: &Database, fence: u64, entries: &[Entry]) -> Result<(), WriteError> {
    let failed = |error: &dyn std::error::Error| WriteError::Failed(error.to_string());
    let write = database.begin_write().map_err(|error| failed(&error))?;
    {
        let meta = write.open_table(META).map_err(|error| failed(&error))?;
        let newest = meta.get("fence").map_err(|error| failed(&error))?.map_or(0, |value| value.value());
        if newest != fence {
            return Err(WriteError::Fenced(newest));
        }
        let mut intents = write.open_table(INTENTS).map_err(|error| failed(&error))?;
        let mut runs = write.open_table(RUNS).map_err(|error| failed(&error))?;
        for entry in entries {
            match entry {
                Entry::Run { namespace, record } => {
                    let text = serde_json::to_vec(record).map_err(|error| failed(&error))?;
                    let key = format!("{namespace}/{}", record.plan.run);
                    runs.insert(key.as_str(), text.as_slice()).map_err(|error| failed(&error))?;
                }
                Entry::Intent(record) => {
                    let text = serde_json::to_vec(record).map_err(|error| failed(&error))?;
                    let key = format!("{}/{}", record.namespace, record.name);
                    intents.insert(key.as_str(), text.as_slice()).map_err(|error| failed(&error))?;
                }
                Entry::Forget { namespace, run } => {
                    let key = format!("{namespace}/{run}");
                    runs.remove(key.as_str()).map_err(|error| failed(&error))?;
                }
            }
        }
    }
    write.commit().map_err(|error| failed(&error))
}

/// How many runs are stored.
#[cfg(test)]
fn stored_runs(database: &Database) -> usize {
    use redb::{ReadableDatabase, ReadableTableMetadata};
    let read = database.begin_read().unwrap_or_else(|error| panic!("{error}"));
    let runs = read.open_table(RUNS).unwrap_or_else(|error| panic!("{error}"));
    runs.len().unwrap_or_else(|error| panic!("{error}")) as usize
}

#[cfg(test)]
mod tests;
