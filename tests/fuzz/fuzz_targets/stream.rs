#![no_main]

#[path = "../drive/stream.rs"]
mod drive;

libfuzzer_sys::fuzz_target!(|data: &[u8]| drive::live(data));
