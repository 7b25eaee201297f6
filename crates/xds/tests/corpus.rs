//! Everything that the fuzzer found worth keeping is lived through again; `tests/fuzz/README.md` says how it is found.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use std::path::Path;

#[path = "../../../tests/fuzz/drive/stream.rs"]
mod drive;

#[test]
fn streams_live_through_the_whole_corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus/stream");
    let files: Vec<_> = std::fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 50, "the corpus is missing");
    for file in files {
        drive::live(&std::fs::read(file).unwrap());
    }
}
