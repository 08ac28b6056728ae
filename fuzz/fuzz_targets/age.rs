#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| diagctl::fuzz::age(data));
