#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| diagctl::fuzz::config_cache(data));
