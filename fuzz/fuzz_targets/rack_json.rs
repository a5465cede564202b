#![no_main]
#[path = "../../tests/it/fuzz/wire.rs"]
#[allow(dead_code, reason = "each target runs one of them")]
mod wire;
thread_local!(static RACK: wire::Rack = wire::Rack::new());
libfuzzer_sys::fuzz_target!(|data: &[u8]| { RACK.with(|rack| rack.json(data)); });
