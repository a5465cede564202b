//! The integration tests: the binary in a scrubbed environment against real services on loopback.

mod hooks;
mod registry;
mod rack;
mod journal;
mod changes;
mod engine;
#[allow(dead_code, reason = "each area uses its part of what the tests stand on")]
mod support;
mod sandbox;
