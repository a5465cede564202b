//! The integration tests: the binary in a scrubbed environment against real services on loopback.

mod hooks;
mod registry;
mod rack;
mod journal;
mod changes;
