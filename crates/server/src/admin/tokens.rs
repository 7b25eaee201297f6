//! The tokens that open the admin API, read from files that may change.
//!
//! A file has one token a line, after its name if it has one: `TOKEN`, or `NAME TOKEN`. Lines that are empty or begin
//! with `#` are passed over. Names are for the audit trail. Only hashes are kept.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Digest, SHA256, digest};

/// A shorter token could be guessed.
const SHORTEST: usize = 16;
/// A file may have so many bytes.
const MAX_BYTES: u64 = 1 << 20;
/// Whether a file has changed is looked at so often.
const EVERY: Duration = Duration::from_secs(1);

/// A file of tokens.
#[derive(Debug)]
pub(super) struct TokenFile {
    path: PathBuf,
    /// What a token without a name is called.
    role: &'static str,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    tokens: Vec<(String, Digest)>,
    /// Device, inode, length and times of the file.
    stamp: Option<[i64; 6]>,
    looked: Instant,
}

impl TokenFile {
    /// Reads a file. Blocks on the disk.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(super) fn open(path: &Path, role: &'static str) -> Result<Self, String> {
        let stamp = stamp(path);
        let tokens = read(path, role)?;
        if tokens.is_empty() {
            return Err(format!("\"{}\" has no token: write one of at least {SHORTEST} characters", path.display()));
        }
        if fs::metadata(path).is_ok_and(|metadata| metadata.mode() & 0o077 != 0) {
            tracing::warn!(path = %path.display(), "tokens of the admin API can be read by others than their owner");
        }
        Ok(Self { path: path.to_owned(), role, held: Mutex::new(Held { tokens, stamp, looked: Instant::now() }) })
    }

    /// The name of this token, if the file has it. Takes the same time wherever two tokens differ.
    ///
    /// A file that has changed is read again. One that has no token any more opens to nobody; one that cannot be read
    /// leaves what there was.
    pub(super) fn name_of(&self, token: &[u8]) -> Option<String> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.looked.elapsed() >= EVERY {
            held.looked = Instant::now();
            let now = stamp(&self.path);
            if now != held.stamp {
                self.read_again(&mut held, now);
            }
        }
        let given = digest(&SHA256, token);
        let mut found = None;
        for (name, known) in &held.tokens {
            // Every token is looked at, so that the time does not say which was right.
            if verify_slices_are_equal(known.as_ref(), given.as_ref()).is_ok() {
                found = Some(name.clone());
            }
        }
        found
    }

    fn read_again(&self, held: &mut Held, now: Option<[i64; 6]>) {
        let path = self.path.display();
        match read(&self.path, self.role) {
            Ok(tokens) => {
                tracing::info!(%path, tokens = tokens.len(), "tokens of the admin API are read again");
                (held.tokens, held.stamp) = (tokens, now);
            }
            Err(error) => {
                held.stamp = now;
                tracing::warn!(%path, error, "tokens of the admin API stay as they were");
            }
        }
    }
}

fn stamp(path: &Path) -> Option<[i64; 6]> {
    let metadata = fs::metadata(path).ok()?;
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let (device, inode, length) = (signed(metadata.dev()), signed(metadata.ino()), signed(metadata.len()));
    Some([device, inode, length, metadata.mtime(), metadata.mtime_nsec(), metadata.ctime_nsec()])
}

fn read(path: &Path, role: &'static str) -> Result<Vec<(String, Digest)>, String> {
    let shown = path.display();
    let metadata = fs::metadata(path).map_err(|error| format!("cannot read the tokens in \"{shown}\": {error}"))?;
    if !metadata.is_file() || metadata.len() > MAX_BYTES {
        return Err(format!("\"{shown}\" is no file of tokens: it is no file, or has more than {MAX_BYTES} bytes"));
    }
    let text = fs::read_to_string(path).map_err(|error| format!("cannot read the tokens in \"{shown}\": {error}"))?;
    let mut tokens = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        // What is wrong is said without the words: one of them may be a token.
        let (name, token) = match words[..] {
            [] => continue,
            [first, ..] if first.starts_with('#') => continue,
            [token] => (role, token),
            [name, token] => (name, token),
            [..] => return Err(format!("line {number} of \"{shown}\" is neither TOKEN nor NAME TOKEN")),
        };
        if token.len() < SHORTEST {
            return Err(format!("line {number} of \"{shown}\" has a token of fewer than {SHORTEST} characters"));
        }
        tokens.push((name.to_owned(), digest(&SHA256, token.as_bytes())));
    }
    Ok(tokens)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const LONG: &str = "0123456789abcdef";

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens");
        fs::write(&path, text).unwrap();
        (directory, path)
    }

    #[test]
    fn tokens_have_names_and_comments_are_passed_over() {
        let (_directory, path) = file(&format!("# of the team\n\nalice {LONG}1\n  {LONG}2\r\n"));
        let tokens = TokenFile::open(&path, "write").unwrap();
        assert_eq!(tokens.name_of(format!("{LONG}1").as_bytes()).as_deref(), Some("alice"));
        assert_eq!(tokens.name_of(format!("{LONG}2").as_bytes()).as_deref(), Some("write"));
        for wrong in ["", "alice", LONG, "# of the team", &format!("{LONG}1 "), &format!("alice {LONG}1")] {
            assert_eq!(tokens.name_of(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused_without_the_token_in_the_words() {
        for (text, part) in
            [("", "no token"), ("# x\n", "no token"), ("secret", "line 1"), ("a b secretsecret", "NAME TOKEN")]
        {
            let (_directory, path) = file(text);
            let error = TokenFile::open(&path, "write").unwrap_err();
            assert!(error.contains(part) && !error.contains("secret"), "{error}");
        }
        assert!(TokenFile::open(Path::new("/nowhere/tokens"), "write").unwrap_err().contains("/nowhere/tokens"));
        assert!(TokenFile::open(Path::new("/dev/zero"), "write").unwrap_err().contains("no file"));
    }

    #[test]
    fn a_file_that_changes_counts_from_then_on_and_one_that_is_gone_leaves_what_there_was() {
        let (_directory, path) = file(&format!("{LONG}1"));
        let tokens = TokenFile::open(&path, "write").unwrap();
        let has = |token: &str| {
            // As if the last look were long ago.
            tokens.held.lock().unwrap().looked -= 2 * EVERY;
            tokens.name_of(token.as_bytes()).is_some()
        };
        fs::remove_file(&path).unwrap();
        assert!(has(&format!("{LONG}1")));
        fs::write(&path, format!("{LONG}2")).unwrap();
        assert!(!has(&format!("{LONG}1")) && has(&format!("{LONG}2")));
        fs::write(&path, "short").unwrap();
        assert!(has(&format!("{LONG}2")));
        fs::write(&path, "# nobody").unwrap();
        assert!(!has(&format!("{LONG}2")));
    }
}
