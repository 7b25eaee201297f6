#![allow(clippy::unwrap_used)]

use std::fs;

use tempfile::TempDir;

use super::*;

fn intent(name: &str, generation: i64) -> Entry {
    let (namespace, name) = ("shop".to_owned(), name.to_owned());
    Entry::Intent(Box::new(IntentRecord { namespace, name, generation, ..IntentRecord::default() }))
}

#[test]
fn what_is_written_is_there_after_the_store_was_closed() {
    let directory = TempDir::new().unwrap();
    let (mut store, stored) = Store::open(Some(directory.path())).unwrap();
    assert_eq!(stored, Stored::default());
    store.write(&[intent("a", 1), intent("b", 1)]).unwrap();
    store.write(&[intent("a", 2)]).unwrap();
    let token = store.fence();
    drop(store);
    let (store, stored) = Store::open(Some(directory.path())).unwrap();
    assert!(store.fence() > token, "every writer has a newer token");
    let generations: Vec<_> = stored.intents.iter().map(|record| (&*record.name, record.generation)).collect();
    assert_eq!(generations, [("a", 2), ("b", 1)]);
    assert_eq!(stored_runs(store.database.as_ref().unwrap()), 0);
}

#[test]
fn a_second_server_on_the_same_state_is_refused_with_the_way_out() {
    let directory = TempDir::new().unwrap();
    let first = Store::open(Some(directory.path())).unwrap();
    let error = Store::open(Some(directory.path())).unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    assert!(error.to_string().contains("--state-dir"), "{error}");
    drop(first);
    Store::open(Some(directory.path())).unwrap();
}

#[test]
fn a_writer_with_an_older_token_is_refused() {
    let directory = TempDir::new().unwrap();
    let (mut old, _) = Store::open(Some(directory.path())).unwrap();
    // What an error of the disk does: the file is let go of, and somebody else takes it.
    old.database = None;
    let (new, _) = Store::open(Some(directory.path())).unwrap();
    assert!(matches!(old.write(&[intent("a", 1)]), Err(WriteError::Failed(_))), "it is open elsewhere");
    drop(new);
    assert!(matches!(old.write(&[intent("a", 1)]), Err(WriteError::Fenced(_))), "somebody has had it");
    let (_, stored) = Store::open(Some(directory.path())).unwrap();
    assert_eq!(stored, Stored::default());
}

#[test]
fn a_damaged_state_and_one_of_a_newer_version_are_told_apart() {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join(FILE), b"this is no database, whatever it is").unwrap();
    let error = Store::open(Some(directory.path())).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    assert!(error.to_string().contains("move it away"), "{error}");

    let directory = TempDir::new().unwrap();
    let (store, _) = Store::open(Some(directory.path())).unwrap();
    let change = store.database.as_ref().unwrap().begin_write().unwrap();
    change.open_table(META).unwrap().insert("format", FORMAT + 1).unwrap();
    change.commit().unwrap();
    drop(store);
    let error = Store::open(Some(directory.path())).unwrap_err();
    assert!(matches!(error, StoreError::Newer { found, .. } if found == FORMAT + 1), "{error}");

    let directory = TempDir::new().unwrap();
    let (store, _) = Store::open(Some(directory.path())).unwrap();
    let change = store.database.as_ref().unwrap().begin_write().unwrap();
    change.open_table(RUNS).unwrap().insert("shop/a-1", b"{".as_slice()).unwrap();
    change.commit().unwrap();
    drop(store);
    let error = Store::open(Some(directory.path())).unwrap_err();
    assert!(error.to_string().contains("shop/a-1"), "{error}");
}

#[test]
fn without_a_directory_nothing_survives() {
    let (mut store, _) = Store::open(None).unwrap();
    store.write(&[intent("a", 1)]).unwrap();
    drop(store);
    assert_eq!(Store::open(None).unwrap().1, Stored::default());
}
