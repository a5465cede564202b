//! What people and programs get to see of a run.

#[cfg(test)]
pub(crate) mod samples;
pub mod state;
pub mod text;
