//! Files on a real disk. Every wait is for an update, with a deadline; nothing sleeps.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::ops::ControlFlow;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use source::watch::{Options, Seen, Watch, load, open};
use tempfile::TempDir;
use tokio::sync::mpsc;
use world::{Change, Problem};

const DEADLINE: Duration = Duration::from_secs(120);

/// A service whose label tells its versions apart.
fn service(name: &str, version: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, labels: {{v: '{version}'}}}}\n\
         spec: {{ports: [{{port: 80}}]}}\n---\n"
    )
}

/// A watch, and what follows from all its updates so far.
struct Watched {
    updates: mpsc::Receiver<Seen>,
    // Dropped after the updates, so that its thread does not wait for room among them.
    _watch: Watch,
    versions: BTreeMap<String, String>,
    problems: Vec<Problem>,
    removals: usize,
}

impl Watched {
    fn start(paths: &[PathBuf], options: Options) -> Self {
        let (first, opened) = open(paths, options, None, None);
        let (sender, updates) = mpsc::channel(1);
        let deliver = move |seen| match sender.blocking_send(seen) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        };
        let _watch = opened.start(deliver).unwrap();
        let (versions, problems) = (BTreeMap::new(), Vec::new());
        let mut watched = Self { updates, _watch, versions, problems, removals: 0 };
        watched.take(first.changes, &first.problems);
        watched
    }

    fn take(&mut self, changes: Vec<Change>, problems: &[Problem]) {
        for change in changes {
            match change {
                Change::Apply(object) => {
                    let version = object.meta.labels["v"].clone();
                    self.versions.insert(object.reference.name.to_string(), version);
                }
                Change::Remove(reference) => {
                    self.removals += 1;
                    self.versions.remove(&*reference.name);
                }
            }
        }
        self.problems = problems.to_vec();
    }

    async fn next(&mut self) -> Seen {
        let seen = tokio::time::timeout(DEADLINE, self.updates.recv()).await.expect("an update in time").unwrap();
        self.take(seen.update.changes.clone(), &seen.update.problems);
        seen
    }

    /// Waits until what is in force is this.
    async fn until(&mut self, wanted: &[(&str, &str)]) {
        let wanted: BTreeMap<String, String> =
            wanted.iter().map(|(name, version)| ((*name).to_owned(), (*version).to_owned())).collect();
        while self.versions != wanted {
            self.next().await;
        }
    }

    async fn until_problems(&mut self, count: usize) {
        while self.problems.len() != count {
            self.next().await;
        }
    }
}

/// No polling within a test's time: what is seen is seen through notifications.
fn notified() -> Options {
    Options { poll: Duration::from_secs(3600), ..Options::default() }
}

/// The same, for a test that changes several files and may be held up for a second in between.
fn patient() -> Options {
    Options { quiet: Duration::from_secs(1), removal_delay: Duration::from_secs(2), ..notified() }
}

fn directory() -> (TempDir, PathBuf) {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("mesh");
    fs::create_dir(&path).unwrap();
    (temporary, path)
}

/// As editors and `kubectl` do it: a new file renamed over the old one.
fn replace(path: &Path, text: &str) {
    let beside = path.with_file_name(".new");
    fs::write(&beside, text).unwrap();
    fs::rename(&beside, path).unwrap();
}

#[test]
fn all_manifests_below_a_directory_are_loaded_and_nothing_else() {
    let (_temporary, dir) = directory();
    fs::create_dir_all(dir.join("deep/er")).unwrap();
    fs::create_dir(dir.join(".hidden")).unwrap();
    fs::write(dir.join("a.yaml"), service("a", "1")).unwrap();
    fs::write(dir.join("deep/b.yml"), service("b", "1")).unwrap();
    fs::write(dir.join("deep/er/c.json"), r#"{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "c"}}"#)
        .unwrap();
    fs::write(dir.join("notes.txt"), "not: [a manifest").unwrap();
    fs::write(dir.join(".hidden/d.yaml"), service("d", "1")).unwrap();
    fs::write(dir.join(".e.yaml"), service("e", "1")).unwrap();
    symlink(&dir, dir.join("loop")).unwrap();
    let (files, update) = load(&[dir], &Options::default());
    let mut names: Vec<_> = files.objects().map(|o| o.reference.to_string()).collect();
    names.sort();
    assert_eq!(names, ["Namespace c", "Service default/a", "Service default/b"]);
    assert_eq!(update.changes.len(), 3);
}

#[tokio::test]
async fn a_written_file_is_seen_within_milliseconds() {
    let (_temporary, dir) = directory();
    fs::write(dir.join("a.yaml"), service("a", "0")).unwrap();
    let mut watched = Watched::start(std::slice::from_ref(&dir), patient());
    let mut times = Vec::new();
    for round in 1..=20 {
        let version = round.to_string();
        let written = Instant::now();
        fs::write(dir.join("a.yaml"), service("a", &version)).unwrap();
        let seen = watched.next().await;
        times.push(written.elapsed());
        assert!(seen.at >= written);
        assert_eq!(watched.versions["a"], version, "one write is one update");
    }
    times.sort();
    println!("write to update: median {:?}, slowest {:?}", times[10], times[19]);
    // Far above what it takes on any machine, below a debounce and a poll.
    assert!(times[10] < patient().quiet, "{times:?}");
}

#[tokio::test]
async fn files_come_change_and_go() {
    let (_temporary, dir) = directory();
    let mut watched = Watched::start(std::slice::from_ref(&dir), notified());
    assert_eq!(watched.versions.len(), 0);
    fs::write(dir.join("a.yaml"), service("a", "1")).unwrap();
    watched.until(&[("a", "1")]).await;
    replace(&dir.join("a.yaml"), &service("a", "2"));
    watched.until(&[("a", "2")]).await;
    fs::create_dir(dir.join("sub")).unwrap();
    fs::write(dir.join("sub/b.yaml"), service("b", "1")).unwrap();
    watched.until(&[("a", "2"), ("b", "1")]).await;
    fs::write(dir.join("sub/b.yaml"), service("b", "2")).unwrap();
    watched.until(&[("a", "2"), ("b", "2")]).await;
    fs::remove_file(dir.join("a.yaml")).unwrap();
    watched.until(&[("b", "2")]).await;
    fs::rename(dir.join("sub"), dir.join("other")).unwrap();
    fs::write(dir.join("other/c.yaml"), service("c", "1")).unwrap();
    watched.until(&[("b", "2"), ("c", "1")]).await;
    assert_eq!(watched.removals, 1, "only a went; b moved with its directory");
    fs::remove_dir_all(dir.join("other")).unwrap();
    watched.until(&[]).await;
}

#[tokio::test]
async fn an_object_that_moves_to_another_file_is_not_removed_in_between() {
    let (_temporary, dir) = directory();
    fs::write(dir.join("z.yaml"), service("a", "1") + &service("b", "1")).unwrap();
    let mut watched = Watched::start(std::slice::from_ref(&dir), patient());
    fs::write(dir.join("z.yaml"), service("b", "2")).unwrap();
    fs::write(dir.join("y.yaml"), service("a", "2")).unwrap();
    watched.until(&[("a", "2"), ("b", "2")]).await;
    fs::write(dir.join("z.yaml"), service("b", "3")).unwrap();
    watched.until(&[("a", "2"), ("b", "3")]).await;
    assert_eq!(watched.removals, 0);
}

#[tokio::test]
async fn a_mounted_config_map_is_swapped_as_a_whole() {
    let (_temporary, dir) = directory();
    let publish = |revision: &str, version: &str| {
        let real = dir.join(format!("..{revision}"));
        fs::create_dir(&real).unwrap();
        fs::write(real.join("a.yaml"), service("a", version)).unwrap();
        fs::write(real.join("b.yaml"), service("b", version)).unwrap();
        symlink(format!("..{revision}"), dir.join("..data_tmp")).unwrap();
        fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
    };
    publish("2026_01", "1");
    symlink("..data/a.yaml", dir.join("a.yaml")).unwrap();
    symlink("..data/b.yaml", dir.join("b.yaml")).unwrap();
    let mut watched = Watched::start(std::slice::from_ref(&dir), notified());
    watched.until(&[("a", "1"), ("b", "1")]).await;
    for (revision, version) in [("2026_02", "2"), ("2026_03", "3")] {
        publish(revision, version);
        watched.until(&[("a", version), ("b", version)]).await;
    }
    fs::remove_dir_all(dir.join("..2026_02")).unwrap();
    publish("2026_04", "4");
    watched.until(&[("a", "4"), ("b", "4")]).await;
    assert_eq!(watched.removals, 0);
    assert_eq!(watched.problems, []);
}

#[tokio::test]
async fn a_directory_that_disappears_keeps_what_it_said_until_it_is_back() {
    let (_temporary, dir) = directory();
    fs::write(dir.join("a.yaml"), service("a", "1")).unwrap();
    fs::write(dir.join("b.yaml"), service("b", "1")).unwrap();
    let mut watched = Watched::start(std::slice::from_ref(&dir), patient());
    fs::rename(&dir, dir.with_file_name("away")).unwrap();
    watched.until_problems(1).await;
    assert!(watched.problems[0].message.starts_with("the path cannot be read: "), "{}", watched.problems[0]);
    assert_eq!(watched.versions.len(), 2);
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("b.yaml"), service("b", "2")).unwrap();
    fs::write(dir.join("a.yaml"), service("a", "2")).unwrap();
    watched.until(&[("a", "2"), ("b", "2")]).await;
    watched.until_problems(0).await;
    assert_eq!(watched.removals, 0);
    // It is watched again, and what is really gone goes.
    fs::remove_file(dir.join("a.yaml")).unwrap();
    watched.until(&[("b", "2")]).await;
}

#[tokio::test]
async fn a_directory_deleted_file_by_file_with_its_root_keeps_what_it_said() {
    let (_temporary, dir) = directory();
    fs::write(dir.join("a.yaml"), service("a", "1")).unwrap();
    let mut watched = Watched::start(std::slice::from_ref(&dir), notified());
    fs::remove_dir_all(&dir).unwrap();
    watched.until_problems(1).await;
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("c.yaml"), service("c", "1")).unwrap();
    while !watched.versions.contains_key("c") {
        assert_eq!(watched.versions["a"], "1", "nothing goes before the directory speaks again");
        watched.next().await;
    }
    // Now it does, and no longer of a.
    watched.until(&[("c", "1")]).await;
    assert_eq!(watched.problems, []);
}

#[tokio::test]
async fn a_path_that_does_not_exist_yet_is_taken_up_when_it_appears() {
    let (_temporary, dir) = directory();
    let path = dir.join("later/mesh.yaml");
    let options = Options { poll: Duration::from_millis(20), ..Options::default() };
    let mut watched = Watched::start(std::slice::from_ref(&path), options);
    assert_eq!(watched.problems.len(), 1);
    fs::create_dir(dir.join("later")).unwrap();
    fs::write(&path, service("a", "1")).unwrap();
    watched.until(&[("a", "1")]).await;
    assert_eq!(watched.problems, []);
}

#[tokio::test]
async fn a_half_written_file_is_not_mistaken_for_a_broken_one() {
    let (_temporary, dir) = directory();
    let path = dir.join("a.yaml");
    fs::write(&path, service("a", "1")).unwrap();
    let mut watched = Watched::start(std::slice::from_ref(&dir), patient());
    let text = service("a", "2") + &service("b", "2");
    let (first, second) = text.split_at(text.len() - 20);
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(first.as_bytes()).unwrap();
    file.write_all(second.as_bytes()).unwrap();
    drop(file);
    let seen = watched.next().await;
    assert_eq!(seen.update.changes.len(), 2, "one update, with the whole file");
    assert_eq!(watched.problems, []);
    // A writer that never closes is read when it pauses.
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(service("a", "3").as_bytes()).unwrap();
    file.flush().unwrap();
    watched.until(&[("a", "3")]).await;
}

#[tokio::test]
async fn a_broken_file_is_a_problem_and_changes_nothing() {
    let (_temporary, dir) = directory();
    let path = dir.join("a.yaml");
    fs::write(&path, service("a", "1")).unwrap();
    let mut watched = Watched::start(std::slice::from_ref(&dir), notified());
    fs::write(&path, "kind: [").unwrap();
    watched.until_problems(2).await;
    assert_eq!(watched.versions["a"], "1");
    fs::write(&path, service("a", "1")).unwrap();
    watched.until_problems(0).await;
    assert_eq!(watched.removals, 0);
}

#[tokio::test]
async fn polling_alone_sees_everything_too() {
    let (_temporary, dir) = directory();
    let target = dir.with_file_name("target.yaml");
    fs::write(&target, service("a", "1")).unwrap();
    symlink(&target, dir.join("a.yaml")).unwrap();
    let options = Options { poll: Duration::from_millis(20), ..Options::default() };
    let mut watched = Watched::start(std::slice::from_ref(&dir), options);
    watched.until(&[("a", "1")]).await;
    // Nothing in the watched directory changes here.
    fs::write(&target, service("a", "2")).unwrap();
    watched.until(&[("a", "2")]).await;
}

#[test]
fn a_file_above_the_limit_is_told_and_not_read() {
    let (_temporary, dir) = directory();
    fs::File::create(dir.join("a.yaml")).unwrap().set_len(65 << 20).unwrap();
    let (_, update) = load(&[dir], &Options::default());
    assert_eq!(update.changes, []);
    assert_eq!(
        update.problems[0].message,
        "the file cannot be read: it has 68157440 bytes, more than the limit of 67108864"
    );
}

#[tokio::test]
async fn dropping_a_watch_ends_its_thread_even_when_nobody_takes_updates() {
    let (_temporary, dir) = directory();
    let watched = Watched::start(std::slice::from_ref(&dir), notified());
    for round in 0..50 {
        fs::write(dir.join("a.yaml"), service("a", &round.to_string())).unwrap();
    }
    let started = Instant::now();
    drop(watched);
    assert!(started.elapsed() < DEADLINE);
}

#[tokio::test]
async fn a_watch_whose_updates_nobody_wants_ends_by_itself() {
    let (_temporary, dir) = directory();
    let (_, opened) = open(std::slice::from_ref(&dir), notified(), None, None);
    let mut watch = opened.start(|_| ControlFlow::Break(())).unwrap();
    fs::write(dir.join("a.yaml"), service("a", "1")).unwrap();
    tokio::time::timeout(DEADLINE, watch.ended()).await.expect("the thread ends");
}

#[tokio::test]
async fn what_happens_before_a_watch_is_started_is_not_missed() {
    let (_temporary, dir) = directory();
    let (first, opened) = open(std::slice::from_ref(&dir), notified(), None, None);
    assert_eq!(first.changes, []);
    fs::write(dir.join("a.yaml"), service("a", "1")).unwrap();
    let (sender, mut updates) = mpsc::channel(1);
    let deliver = move |seen| match sender.blocking_send(seen) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    };
    let _watch = opened.start(deliver).unwrap();
    let seen: Seen = tokio::time::timeout(DEADLINE, updates.recv()).await.unwrap().unwrap();
    assert_eq!(seen.update.changes.len(), 1);
    drop(updates);
}

/// A certificate and its key.
fn pair() -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(["shop.test".to_owned()]).unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

/// The newest secrets and problems of a watch.
struct Secrets {
    updates: mpsc::Receiver<Seen>,
    _watch: Watch,
    _config: TempDir,
    now: source::Update,
}

impl Secrets {
    fn start(directory: &Path) -> Secrets {
        let config = TempDir::new().unwrap();
        let options = Options { secrets: vec![directory.to_owned()], ..Options::default() };
        let (now, opened) = open(&[config.path().to_owned()], options, None, None);
        let (sender, updates) = mpsc::channel(1);
        let deliver = move |seen| match sender.blocking_send(seen) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        };
        Secrets { updates, _watch: opened.start(deliver).unwrap(), _config: config, now }
    }

    async fn until(&mut self, wanted: impl Fn(&source::Update) -> bool) {
        while !wanted(&self.now) {
            let next = tokio::time::timeout(DEADLINE, self.updates.recv()).await;
            self.now = next.unwrap_or_else(|_| panic!("{:#?}", self.now.problems)).unwrap().update;
        }
    }
}

fn key_of<'a>(update: &'a source::Update, name: &str) -> Option<&'a str> {
    let (_, secret) = update.secrets.iter().find(|(reference, _)| &*reference.name == name)?;
    Some(secret.pair()?.1)
}

/// Whether all that is wrong is this.
fn says(update: &source::Update, parts: &[&str]) -> bool {
    let said: String = update.problems.iter().map(ToString::to_string).collect();
    update.problems.len() == 1 && parts.iter().all(|part| said.contains(part))
}

#[tokio::test]
async fn secrets_of_plain_files_follow_their_directories_and_keep_their_last_good_form() {
    let directory = TempDir::new().unwrap();
    let (first, second) = (pair(), pair());
    let folder = directory.path().join("edge/shop");
    // As Kubernetes mounts it.
    let mount = |version: &str, (chain, key): (&str, &str)| {
        fs::create_dir_all(folder.join(version)).unwrap();
        fs::write(folder.join(version).join("tls.crt"), chain).unwrap();
        fs::write(folder.join(version).join("tls.key"), key).unwrap();
        symlink(version, folder.join("..data_tmp")).unwrap();
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    };
    mount("..1", (&first.0, &first.1));
    symlink("..data/tls.crt", folder.join("tls.crt")).unwrap();
    symlink("..data/tls.key", folder.join("tls.key")).unwrap();
    let mut watched = Secrets::start(directory.path());
    assert_eq!((key_of(&watched.now, "shop"), watched.now.problems.len()), (Some(&*first.1), 0));

    mount("..2", (&second.0, &first.1));
    let place = folder.join("tls.key").display().to_string();
    watched.until(|now| says(now, &["Secret edge/shop", &place, "does not belong to the certificate"])).await;
    assert_eq!(key_of(&watched.now, "shop"), Some(&*first.1));
    let shown = format!("{:?}", watched.now);
    assert!(!shown.contains(first.1.lines().nth(1).unwrap()), "{shown}");
    mount("..3", (&second.0, &second.1));
    watched.until(|now| key_of(now, "shop") == Some(&*second.1) && now.problems.is_empty()).await;

    // One that was not there, written file by file.
    let other = directory.path().join("edge/other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("cert"), &first.0).unwrap();
    watched.until(|now| says(now, &["Secret edge/other", "without its key"])).await;
    fs::write(other.join("key"), &first.1).unwrap();
    watched.until(|now| key_of(now, "other") == Some(&*first.1) && now.problems.is_empty()).await;
    fs::remove_dir_all(&other).unwrap();
    watched.until(|now| now.secrets.len() == 1 && now.problems.is_empty()).await;

    // A file in the wrong place, and then everything gone.
    fs::write(directory.path().join("edge/tls.crt"), &first.0).unwrap();
    watched.until(|now| says(now, &["edge/tls.crt", "<namespace>/<name>"])).await;
    let away = directory.path().with_extension("away");
    fs::rename(directory.path(), &away).unwrap();
    watched.until(|now| says(now, &["the path cannot be read"])).await;
    assert_eq!(key_of(&watched.now, "shop"), Some(&*second.1));
    fs::rename(&away, directory.path()).unwrap();
    watched.until(|now| says(now, &["<namespace>/<name>"])).await;
}
