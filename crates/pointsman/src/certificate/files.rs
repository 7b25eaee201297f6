//! Certificate, key and roots in files that change all at once.
//!
//! ```text
//!   cert-chain.pem ─▶ ..data/cert-chain.pem      ..data ─▶ ..1790000000_000000000/cert-chain.pem
//!   key.pem        ─▶ ..data/key.pem                                             /key.pem
//!   root-cert.pem  ─▶ ..data/root-cert.pem                                       /root-cert.pem
//! ```
//!
//! New files come into a directory of their own, and then one rename leads all three names there, as Kubernetes does with
//! its volumes. The directory before that stays for those who have begun to read.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use identity::{ClientCertificate, TlsSecret};

/// The certificate and its intermediates, as Istio's agents call it.
pub(crate) const CHAIN: &str = "cert-chain.pem";
/// The key.
pub(crate) const KEY: &str = "key.pem";
/// What is trusted.
pub(crate) const ROOTS: &str = "root-cert.pem";

const CURRENT: &str = "..data";
const NEXT: &str = "..data.new";

/// The directory.
pub(super) struct Files {
    directory: PathBuf,
}

/// What is in the files.
pub(super) struct Kept {
    pub(super) secret: TlsSecret,
    pub(super) certificate: ClientCertificate,
    /// When it came here.
    pub(super) made: SystemTime,
}

impl Kept {
    fn of(secret: TlsSecret, made: SystemTime) -> Option<Self> {
        let certificate = ClientCertificate::read_pem(secret.pair()?.0).ok()?;
        Some(Self { secret, certificate, made })
    }

    /// How long it still holds; zero when it is over.
    pub(super) fn left(&self, now: SystemTime) -> Duration {
        self.certificate.not_after.duration_since(now).unwrap_or_default()
    }
}

impl Files {
    pub(super) fn open(directory: &Path) -> Result<Self> {
        let made = DirBuilder::new().recursive(true).mode(0o755).create(directory);
        made.with_context(|| format!("cannot make the directory \"{}\"", directory.display()))?;
        Ok(Self { directory: directory.to_owned() })
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// What is trusted; `None` while there is nothing.
    pub(super) fn roots(&self) -> Option<String> {
        fs::read_to_string(self.directory.join(ROOTS)).ok()
    }

    /// What is there, if it fits together; whether it still holds is not looked at.
    pub(super) fn read(&self) -> Option<Kept> {
        let text = |name: &str| fs::read_to_string(self.directory.join(name)).ok();
        let secret = TlsSecret::new(Some(&text(CHAIN)?), Some(&text(KEY)?), Some(&text(ROOTS)?)).ok()?;
        let made = fs::metadata(self.directory.join(CHAIN)).and_then(|file| file.modified()).ok()?;
        Kept::of(secret, made)
    }

    /// Replaces what is there.
    ///
    /// # Errors
    /// What cannot be written; then the files are as they were.
    pub(super) fn put(&self, secret: &TlsSecret) -> Result<Kept> {
        let (chain, key) = secret.pair().context("there is no certificate")?;
        let roots = secret.authorities().context("there are no roots")?;
        let made = SystemTime::now();
        let kept = Kept::of(secret.clone(), made).context("the certificate names no workload")?;
        let age = made.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let name = format!("..{}_{:09}", age.as_secs(), age.subsec_nanos());
        let before = fs::read_link(self.directory.join(CURRENT)).ok();
        let place = self.directory.join(&name);
        DirBuilder::new().mode(0o755).create(&place)?;
        for (file, text, mode) in [(CHAIN, chain, 0o644), (KEY, key, 0o600), (ROOTS, roots, 0o644)] {
            let mut file = OpenOptions::new().create_new(true).write(true).mode(mode).open(place.join(file))?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
        }
        File::open(&place)?.sync_all()?;
        self.link(CURRENT, Path::new(&name))?;
        for file in [CHAIN, KEY, ROOTS] {
            let wanted = Path::new(CURRENT).join(file);
            if fs::read_link(self.directory.join(file)).ok().as_ref() != Some(&wanted) {
                self.link(file, &wanted)?;
            }
        }
        File::open(&self.directory)?.sync_all()?;
        self.forget(&[Some(PathBuf::from(name)), before]);
        Ok(kept)
    }

    /// Lets a name lead to `target`, whatever it was.
    fn link(&self, name: &str, target: &Path) -> std::io::Result<()> {
        let next = self.directory.join(NEXT);
        if next.is_symlink() {
            fs::remove_file(&next)?;
        }
        symlink(target, &next)?;
        fs::rename(next, self.directory.join(name))
    }

    /// Removes the directories of earlier files, but for these. One that cannot be removed is tried again next time.
    fn forget(&self, but: &[Option<PathBuf>]) {
        for entry in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let name = PathBuf::from(entry.file_name());
            let is_ours = entry.file_name().to_string_lossy().strip_prefix("..").is_some_and(|rest| {
                let parts = rest.split_once('_');
                parts.is_some_and(|(a, b)| [a, b].iter().all(|part| part.bytes().all(|byte| byte.is_ascii_digit())))
            });
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let is_old = is_ours && is_directory && !but.contains(&Some(name));
            if is_old && let Err(error) = fs::remove_dir_all(entry.path()) {
                tracing::debug!(%error, path = %entry.path().display(), "an old directory stays");
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use identity::{Authority, KeyType, Lifetimes, PrivateKey, Serial, SpiffeId, Subject};

    use super::*;

    fn secret(serial: u8) -> TlsSecret {
        let now = SystemTime::now();
        let key = PrivateKey::generate(KeyType::EcdsaP256).unwrap();
        let id: SpiffeId = "spiffe://cluster.local/ns/default/sa/web".parse().unwrap();
        let lifetime = Lifetimes::new(now).next(now, Duration::from_secs(100));
        let root = PrivateKey::generate(KeyType::EcdsaP256).unwrap();
        let authority =
            Authority::new_root(&"cluster.local".parse().unwrap(), root, &lifetime, Serial::from_random([serial; 16]))
                .unwrap();
        let issued =
            authority.issue(Subject::Workload(&id), &key, &lifetime, Serial::from_random([serial; 16])).unwrap();
        TlsSecret::new(Some(&issued.chain.concat()), Some(&key.to_pem()), Some(&authority.roots_pem())).unwrap()
    }

    #[test]
    fn what_is_put_is_read_and_the_one_before_is_kept_for_readers() {
        let place = tempfile::tempdir().unwrap();
        // Somebody left a file there.
        fs::write(place.path().join(CHAIN), "old").unwrap();
        let files = Files::open(place.path()).unwrap();
        assert!(files.read().is_none());
        let all: Vec<TlsSecret> = (1..=3).map(secret).collect();
        for secret in &all {
            files.put(secret).unwrap();
            let kept = files.read().unwrap();
            assert_eq!(kept.secret, *secret);
            assert!(kept.left(SystemTime::now()) > Duration::from_secs(90));
        }
        let mode = |name| fs::metadata(place.path().join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!([CHAIN, KEY, ROOTS].map(mode), [0o644, 0o600, 0o644]);
        let directories =
            fs::read_dir(place.path()).unwrap().filter(|entry| entry.as_ref().unwrap().file_type().unwrap().is_dir());
        assert_eq!(directories.count(), 2);
    }

    #[test]
    fn a_reader_never_finds_a_key_of_another_certificate() {
        let place = tempfile::tempdir().unwrap();
        let files = Files::open(place.path()).unwrap();
        let all: Vec<TlsSecret> = (1..=2).map(secret).collect();
        files.put(&all[0]).unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for at in 0..200 {
                    files.put(&all[at % 2]).unwrap();
                }
                done.store(true, std::sync::atomic::Ordering::Relaxed);
            });
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                // As careful readers do: through the one name that changes.
                let Ok(current) = fs::canonicalize(place.path().join(CURRENT)) else { continue };
                let text = |name| fs::read_to_string(current.join(name));
                let (Ok(chain), Ok(key)) = (text(CHAIN), text(KEY)) else { continue };
                assert!(TlsSecret::new(Some(&chain), Some(&key), None).is_ok());
            }
        });
    }
}
