//! The audit logs: a line of JSON for each certificate, written before the certificate is handed out, and one for each
//! step of the authority.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use super::StateError;

/// Bytes after which the log is put aside, once, and begun anew.
const MAX_BYTES: u64 = 64 << 20;

/// The log, open for writing.
#[derive(Debug)]
pub(crate) struct AuditLog {
    path: PathBuf,
    file: Mutex<Option<(File, u64)>>,
}

impl AuditLog {
    /// The log at this place, which need not exist.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, file: Mutex::new(None) }
    }

    /// Adds a line, which ends with its end.
    ///
    /// # Errors
    /// [`StateError::File`] when it was not written whole; the next line is tried in a new file handle.
    pub(crate) fn append(&self, line: &str) -> Result<(), StateError> {
        let mut held = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let appended = self.open(held.take()).and_then(|(mut file, len)| {
            file.write_all(line.as_bytes())?;
            Ok((file, len + line.len() as u64))
        });
        match appended {
            Ok(open) => {
                *held = Some(open);
                Ok(())
            }
            Err(source) => Err(StateError::File { what: "write the audit log", path: self.path.clone(), source }),
        }
    }

    /// Reads the lines that may have been written since `since`, oldest first, and older ones with them: a file counts or
    /// does not. What is no text is passed over.
    ///
    /// # Errors
    /// When a file that is there cannot be read to its end.
    pub(crate) fn each_since(&self, since: SystemTime, mut with: impl FnMut(&str)) -> io::Result<()> {
        for path in [self.set_aside(), self.path.clone()] {
            let file = match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened?,
            };
            if file.metadata()?.modified()? < since {
                continue;
            }
            for line in BufReader::new(file).split(b'\n') {
                with(std::str::from_utf8(&line?).unwrap_or_default());
            }
        }
        Ok(())
    }

    fn set_aside(&self) -> PathBuf {
        self.path.with_extension("jsonl.1")
    }

    fn open(&self, held: Option<(File, u64)>) -> io::Result<(File, u64)> {
        if let Some((file, len)) = held
            && len < MAX_BYTES
        {
            return Ok((file, len));
        }
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o600);
        let file = options.open(&self.path)?;
        let len = file.metadata()?.len();
        if len < MAX_BYTES {
            return Ok((file, len));
        }
        fs::rename(&self.path, self.set_aside())?;
        Ok((options.open(&self.path)?, 0))
    }
}
