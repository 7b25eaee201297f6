//! The directory with what must outlive the process and stay secret.
//!
//! ```text
//! ca/root-cert.pem  ca/root-key.pem     the root, if it is our own
//! ca/crossed.pem                        certificates of its key by the roots before it
//! ca/next/...                           the same three of the root that is to follow, while roots are rotated
//! ca/rotation.json                      how far that is
//! tokens/<id>.json                      join tokens, hashed; used ones are gone
//! audit/issued.jsonl                    what was signed; audit/issued.jsonl.1 is older
//! audit/authority.jsonl                 what was done to the authority
//! audit/tokens.jsonl                    join tokens that were made and revoked
//! ```
//!
//! Directories have mode 0700 and files 0600. Files appear whole or not at all: they are written beside their place and
//! renamed. So a full disk leaves what was there.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use identity::{InvalidToken, JoinRecord, JoinToken, Rotation, TokenId, Uses, Workload};

use super::audit::AuditLog;
use super::random;
use crate::view::Timestamp;

const PRIVATE: u32 = 0o600;

/// What of TLS and identities cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file cannot be read or written.
    #[error("cannot {what} \"{path}\": {source}")]
    File {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Others could read a secret.
    #[error(
        "\"{path}\" can be read by others than its owner; make it private with chmod 600, and think of its key as known"
    )]
    NotPrivate {
        /// The file.
        path: PathBuf,
    },
    /// A root without its key: a new one would take every client's trust away, so none is made.
    #[error(
        "there is the root certificate \"{certificate}\", but its key \"{key}\" is not there: put the key back; or, if it is \
         lost, move the certificate away, and a new root is made, which no client trusts before it is told"
    )]
    NoKey {
        /// The certificate.
        certificate: PathBuf,
        /// Where the key should be.
        key: PathBuf,
    },
    /// A key or certificate makes no sense.
    #[error("{whose}: {source}")]
    Identity {
        /// Which, in words.
        whose: String,
        /// Why.
        source: identity::Error,
    },
    /// Something else that was set cannot be used.
    #[error("{0}")]
    Settings(String),
    /// The system has no random bytes.
    #[error("the system gives no random bytes")]
    Randomness,
}

/// The directory.
#[derive(Clone, Debug)]
pub struct StateDirectory {
    path: PathBuf,
}

impl StateDirectory {
    /// Opens the directory, and makes it if it is not there.
    ///
    /// # Errors
    /// [`StateError::File`] when it cannot be made or written to.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let this = Self { path: path.to_owned() };
        for directory in [this.path.clone(), this.tokens(), this.path.join("audit")] {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&directory);
            made.map_err(|source| StateError::File { what: "make the directory", path: directory, source })?;
        }
        Ok(this)
    }

    /// Opens a directory that there is.
    ///
    /// # Errors
    /// [`StateError::Settings`] when there is none, and as for [`StateDirectory::open`].
    pub fn existing(path: &Path) -> Result<Self, StateError> {
        if !path.is_dir() {
            let message = format!(
                "there is no directory \"{}\": name the one that the server is started with (serve --state-dir)",
                path.display()
            );
            return Err(StateError::Settings(message));
        }
        Self::open(path)
    }

    /// Makes a join token for `workload` that holds from now for `ttl`, and keeps its hash.
    ///
    /// # Errors
    /// [`StateError`] when it cannot be kept or booked; then there is none.
    pub fn create_token(&self, workload: &Workload, uses: Uses, ttl: Duration) -> Result<JoinToken, StateError> {
        let token = JoinToken::from_random(random()?, random()?);
        let record = token.record(workload, uses, SystemTime::now(), ttl);
        let text = serde_json::to_string(&record).expect("texts and numbers can always be written as JSON");
        self.book_token("created", token.id(), Some(&record))?;
        write_private(&self.token(token.id()), &text)?;
        Ok(token)
    }

    /// The join tokens that there are, also expired ones, in order of their ids.
    ///
    /// # Errors
    /// [`StateError::File`] when the directory cannot be read. Files that are no records are left out.
    pub fn list_tokens(&self) -> Result<Vec<JoinRecord>, StateError> {
        let failed = |source| StateError::File { what: "list", path: self.tokens(), source };
        let mut records = Vec::new();
        for entry in fs::read_dir(self.tokens()).map_err(failed)? {
            let text = fs::read(entry.map_err(failed)?.path()).unwrap_or_default();
            records.extend(serde_json::from_slice::<JoinRecord>(&text).ok());
        }
        records.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(records)
    }

    /// Revokes a join token. False if there is none of this id.
    ///
    /// # Errors
    /// [`StateError::File`] when it cannot be removed; then it still holds. What cannot be booked is revoked all the
    /// same, and said.
    pub fn revoke_token(&self, id: &TokenId) -> Result<bool, StateError> {
        let path = self.token(id);
        if path.exists()
            && let Err(error) = self.book_token("revoked", id, None)
        {
            tracing::warn!(%error, %id, "the audit log lacks that a token is revoked");
        }
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(StateError::File { what: "remove", path, source }),
        }
    }

    /// Adds a line about a join token to the audit log.
    fn book_token(&self, event: &str, id: &TokenId, record: Option<&JoinRecord>) -> Result<(), StateError> {
        let mut line = serde_json::json!({
            "time": Timestamp::from(SystemTime::now()).to_string(),
            "event": event,
            "id": id,
            "uid": fs::metadata("/proc/self").map(|process| process.uid()).ok(),
        });
        if let Some(JoinRecord { identity, uses, expires, .. }) = record {
            line["identity"] = serde_json::json!(identity);
            line["uses"] = serde_json::json!(uses);
            line["expires"] = serde_json::json!(expires);
        }
        AuditLog::new(self.path.join("audit/tokens.jsonl")).append(&format!("{line}\n"))
    }

    /// For whom a join token stands, and its record. One that can be used once is used by this.
    pub(super) fn redeem(&self, token: &JoinToken, now: SystemTime) -> Result<(Workload, JoinRecord), InvalidToken> {
        let path = self.token(token.id());
        let text = fs::read(&path).map_err(|_| InvalidToken::Unknown)?;
        let record: JoinRecord = serde_json::from_slice(&text).map_err(|_| InvalidToken::Unknown)?;
        let workload = record.verify(token, now)?;
        // Of several who try at one time, one removes the file.
        if record.uses == Uses::Once && fs::remove_file(&path).is_err() {
            return Err(InvalidToken::Unknown);
        }
        Ok((workload, record))
    }

    /// Whether a join token for many uses is still there. When that cannot be found out, it counts as there: a directory
    /// that is away for a moment must not cut everybody off.
    pub(super) fn has_token(&self, id: &TokenId) -> bool {
        !matches!(fs::metadata(self.token(id)), Err(error) if error.kind() == io::ErrorKind::NotFound)
    }

    /// Certificate and key of the root, if there is one.
    pub(super) fn root(&self) -> Result<Option<(String, String)>, StateError> {
        Self::root_in(&self.authority())
    }

    /// Certificate and key of the root that is to follow, and its certificates by the roots before it.
    pub(super) fn next_root(&self) -> Result<Option<(String, String, Vec<String>)>, StateError> {
        let next = self.authority().join("next");
        let Some((certificate, key)) = Self::root_in(&next)? else { return Ok(None) };
        Ok(Some((certificate, key, sections(&read(&next.join("crossed.pem"))?))))
    }

    /// Certificates of the root's key by the roots before it, the newest first; none if there was no root before it.
    pub(super) fn crossed(&self) -> Result<Vec<String>, StateError> {
        let path = self.authority().join("crossed.pem");
        if path.exists() { Ok(sections(&read(&path)?)) } else { Ok(Vec::new()) }
    }

    /// Keeps the root that is to follow, instead of one that was kept before.
    pub(super) fn keep_next_root(&self, certificate: &str, key: &str, crossed: &str) -> Result<(), StateError> {
        let next = self.authority().join("next");
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&next);
        made.map_err(|source| StateError::File { what: "make the directory", path: next.clone(), source })?;
        write_private(&next.join("root-key.pem"), key)?;
        write_private(&next.join("root-cert.pem"), certificate)?;
        write_private(&next.join("crossed.pem"), crossed)
    }

    /// How far a rotation of the root is, if there is one.
    pub(super) fn rotation(&self) -> Result<Option<Rotation>, StateError> {
        let path = self.rotation_file();
        if !path.exists() {
            return Ok(None);
        }
        let broken = |error| StateError::Settings(format!("\"{}\" cannot be understood: {error}", path.display()));
        serde_json::from_str(&read(&path)?).map(Some).map_err(broken)
    }

    /// Keeps how far a rotation of the root is.
    pub(super) fn keep_rotation(&self, rotation: &Rotation) -> Result<(), StateError> {
        let text = serde_json::to_string(rotation).expect("texts and numbers can always be written as JSON");
        write_private(&self.rotation_file(), &text)
    }

    /// The rotation of the root is given up; the root that was to follow is gone.
    pub(super) fn end_rotation(&self) -> Result<(), StateError> {
        let (path, next) = (self.rotation_file(), self.authority().join("next"));
        // Without it what else is there does not count.
        fs::remove_file(&path).map_err(|source| StateError::File { what: "remove", path, source })?;
        fs::remove_dir_all(&next).map_err(|source| StateError::File { what: "remove", path: next, source })
    }

    /// The root that was to follow takes the place of the root. What was done of that before it was broken off is not
    /// done again.
    pub(super) fn promote_next_root(&self) -> Result<(), StateError> {
        for file in ["crossed.pem", "root-key.pem", "root-cert.pem"] {
            let (from, to) = (self.authority().join("next").join(file), self.authority().join(file));
            match fs::rename(&from, &to) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(StateError::File { what: "rename", path: from, source: error });
                }
                Ok(()) | Err(_) => {}
            }
        }
        sync(&self.authority())?;
        let path = self.rotation_file();
        fs::remove_file(&path).map_err(|source| StateError::File { what: "remove", path, source })?;
        // Empty by now; it would not be in the way.
        let _ = fs::remove_dir(self.authority().join("next"));
        Ok(())
    }

    fn root_in(place: &Path) -> Result<Option<(String, String)>, StateError> {
        let (certificate, key) = (place.join("root-cert.pem"), place.join("root-key.pem"));
        match fs::metadata(&key) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && certificate.exists() => {
                return Err(StateError::NoKey { certificate, key });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Ok(metadata) if metadata.mode() & 0o077 != 0 => return Err(StateError::NotPrivate { path: key }),
            // What keeps it from being read will be said below.
            Ok(_) | Err(_) => {}
        }
        Ok(Some((read(&certificate)?, read(&key)?)))
    }

    /// Keeps a root, unless there is one by now. Then [`StateDirectory::root`] has it.
    pub(super) fn keep_root(&self, certificate: &str, key: &str) -> Result<(), StateError> {
        let (place, beside) = (self.authority(), self.path.join(format!(".ca.{}", std::process::id())));
        let failed = |source| StateError::File { what: "make the directory", path: beside.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&beside).map_err(failed)?;
        write_private(&beside.join("root-key.pem"), key)?;
        write_private(&beside.join("root-cert.pem"), certificate)?;
        // Both appear at once; a directory that is there and not empty is not replaced.
        match fs::rename(&beside, &place) {
            Ok(()) => Ok(()),
            Err(_) if place.join("root-key.pem").exists() => {
                let _ = fs::remove_dir_all(&beside);
                Ok(())
            }
            Err(source) => Err(StateError::File { what: "keep the root in", path: place, source }),
        }
    }

    /// Where the audit log is.
    pub(super) fn audit_log(&self) -> PathBuf {
        self.path.join("audit/issued.jsonl")
    }

    /// Where the log of what was done to the authority is.
    pub(super) fn authority_log(&self) -> PathBuf {
        self.path.join("audit/authority.jsonl")
    }

    fn authority(&self) -> PathBuf {
        self.path.join("ca")
    }

    fn rotation_file(&self) -> PathBuf {
        self.authority().join("rotation.json")
    }

    fn tokens(&self) -> PathBuf {
        self.path.join("tokens")
    }

    fn token(&self, id: &TokenId) -> PathBuf {
        self.tokens().join(format!("{id}.json"))
    }
}

/// A text file.
pub(super) fn read(path: &Path) -> Result<String, StateError> {
    fs::read_to_string(path).map_err(|source| StateError::File { what: "read", path: path.to_owned(), source })
}

/// The sections of a PEM file, each with its end.
fn sections(text: &str) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----\n";
    text.split_inclusive(END).filter(|section| section.ends_with(END)).map(str::to_owned).collect()
}

/// What was renamed in a directory is not undone by a loss of power.
fn sync(directory: &Path) -> Result<(), StateError> {
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|source| StateError::File { what: "write", path: directory.to_owned(), source })
}

/// Writes a file that its owner alone can read.
fn write_private(path: &Path, text: &str) -> Result<(), StateError> {
    let beside = path.with_extension("new");
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
    };
    // What a process that was killed has left would be in the way for ever.
    let _ = fs::remove_file(&beside);
    write().map_err(|source| {
        let _ = fs::remove_file(&beside);
        StateError::File { what: "write", path: path.to_owned(), source }
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn state() -> (tempfile::TempDir, StateDirectory) {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(&directory.path().join("state")).unwrap();
        (directory, state)
    }

    fn front() -> Workload {
        Workload::new("shop", "front").unwrap()
    }

    #[test]
    fn a_token_for_one_use_is_used_once_by_one() {
        let (_directory, state) = state();
        let token = state.create_token(&front(), Uses::Once, Duration::from_secs(60)).unwrap();
        let winners = std::thread::scope(|scope| {
            let tries: Vec<_> = (0..8).map(|_| scope.spawn(|| state.redeem(&token, SystemTime::now()))).collect();
            tries.into_iter().map(|one| one.join().unwrap()).filter(Result::is_ok).count()
        });
        assert_eq!(winners, 1);
        assert_eq!(state.redeem(&token, SystemTime::now()), Err(InvalidToken::Unknown));
    }

    #[test]
    fn a_token_for_many_uses_ends_when_it_is_revoked() {
        let (_directory, state) = state();
        let token = state.create_token(&front(), Uses::Many, Duration::from_secs(60)).unwrap();
        for _ in 0..3 {
            assert_eq!(state.redeem(&token, SystemTime::now()).map(|(who, _)| who), Ok(front()));
        }
        assert_eq!(state.list_tokens().unwrap()[0].id, *token.id());
        assert!(state.revoke_token(token.id()).unwrap());
        assert_eq!(state.redeem(&token, SystemTime::now()), Err(InvalidToken::Unknown));
        assert!(!state.revoke_token(token.id()).unwrap());
    }

    #[test]
    fn nothing_can_be_read_by_others() {
        let (directory, state) = state();
        state.create_token(&front(), Uses::Many, Duration::from_secs(60)).unwrap();
        state.keep_root("certificate", "key").unwrap();
        let mut seen = 0;
        let mut places = vec![directory.path().join("state")];
        while let Some(place) = places.pop() {
            assert_eq!(fs::metadata(&place).unwrap().mode() & 0o077, 0, "{}", place.display());
            seen += 1;
            if place.is_dir() {
                places.extend(fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().path()));
            }
        }
        assert_eq!(seen, 8, "four directories, a token, its line, certificate and key");
    }

    #[test]
    fn who_made_a_token_for_whom_and_that_it_was_revoked_is_booked() {
        let (directory, state) = state();
        let token = state.create_token(&front(), Uses::Once, Duration::from_secs(60)).unwrap();
        assert!(state.revoke_token(token.id()).unwrap() && !state.revoke_token(token.id()).unwrap());
        let log = read(&directory.path().join("state/audit/tokens.jsonl")).unwrap();
        let secret = token.reveal().split_once(&format!("{}_", token.id())).unwrap().1.to_owned();
        assert!(secret.len() > 20 && !log.contains(&secret), "the secret is in the log");
        let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let said: Vec<_> = lines.iter().map(|line| (line["event"].as_str(), line["identity"].as_str())).collect();
        assert_eq!(said, [(Some("created"), Some("shop/front")), (Some("revoked"), None)]);
        assert!(lines.iter().all(|line| line["id"] == token.id().to_string() && line["uid"].is_u64()));
    }

    #[test]
    fn a_directory_that_is_not_there_is_not_made_for_a_token() {
        let directory = tempfile::tempdir().unwrap();
        let wrong = directory.path().join("typo");
        let error = StateDirectory::existing(&wrong).unwrap_err().to_string();
        assert!(error.contains("typo") && error.contains("--state-dir"), "{error}");
        assert!(!wrong.exists());
        StateDirectory::existing(directory.path()).unwrap();
    }

    #[test]
    fn a_root_that_others_can_read_is_refused_and_one_that_is_there_stays() {
        let (directory, state) = state();
        assert!(state.root().unwrap().is_none());
        state.keep_root("certificate", "key").unwrap();
        state.keep_root("another", "another key").unwrap();
        assert_eq!(state.root().unwrap(), Some(("certificate".to_owned(), "key".to_owned())));
        let key = directory.path().join("state/ca/root-key.pem");
        fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        assert!(matches!(state.root(), Err(StateError::NotPrivate { path }) if path == key));
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        let error = StateDirectory::open(&file.join("state")).unwrap_err().to_string();
        assert!(error.contains("file/state"), "{error}");
    }
}
