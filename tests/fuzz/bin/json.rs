#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| bursar_fuzz::targets::json::run(data));
