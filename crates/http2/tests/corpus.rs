//! Everything that the fuzzer found worth keeping is lived through again; `tests/fuzz/README.md` says how it is found.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use std::path::Path;

use proptest::prelude::*;

#[path = "../../../tests/fuzz/drive/http2.rs"]
mod drive;

#[test]
fn connections_live_through_the_whole_corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus/http2");
    let files: Vec<_> = std::fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 50, "the corpus is missing");
    for file in files {
        drive::live(&std::fs::read(file).unwrap());
    }
}

proptest! {
    /// Other inputs each time, where no fuzzer is at hand.
    #[test]
    fn connections_live_through_what_is_made_up(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        drive::live(&bytes);
    }
}
