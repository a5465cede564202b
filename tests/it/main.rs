//! The integration tests: the binary in a scrubbed environment against real services on loopback.

mod answers;
mod changes;
mod completion;
mod demo;
mod dependencies;
mod deploy;
mod engine;
mod explain;
mod faults;
mod fuzz;
mod hooks;
mod journal;
mod layers;
mod rack;
mod readme;
mod reference;
mod registry;
mod resume;
mod sandbox;
mod secrets;
#[allow(dead_code, reason = "each area uses its part of what the tests stand on")]
mod support;
mod unhappy;
