//! What goes wrong, one test each: the whole message and the exit code, through the real binary in a scrubbed environment.
//!
//! What changes from run to run (paths, ports, ids, times) is replaced by its name in capitals; everything else is compared.

mod bench;
mod command_line;
mod configuration;
mod engine;
mod guards;
mod hooks;
mod hostile;
mod racks;
mod readme;
mod registries;
mod repository;
mod secrets;
mod tls;
