#![no_main]

#[path = "../drive/http2.rs"]
mod drive;

libfuzzer_sys::fuzz_target!(|data: &[u8]| drive::live(data));
