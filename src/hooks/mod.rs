//! Hooks: the app's own programs around build and release.
//!
//! [`HookRunner`] is the port, `process` its adapter. A hook is a value ([`HookCommand`]) before it runs.

pub mod process;

use crate::event::Progress;
use crate::secret::Secret;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A hook, ready to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookCommand {
    /// The program, absolute, or a name looked up in `PATH`.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its working directory: the app's.
    pub directory: PathBuf,
    /// Variables set over the inherited environment.
    pub env: BTreeMap<String, String>,
    /// Variables whose values must not be seen.
    pub secret_env: BTreeMap<String, Secret>,
    /// How long it may take.
    pub timeout: Duration,
}

impl HookCommand {
    /// Program and arguments as people would type them in the hook's directory.
    #[must_use]
    pub fn shown(&self) -> String {
        let program = self.program.strip_prefix(&self.directory).unwrap_or(&self.program);
        let words = std::iter::once(program.display().to_string()).chain(self.args.iter().cloned());
        words.collect::<Vec<_>>().join(" ")
    }
}

/// How a hook failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum HookError {
    /// It could not be started.
    #[error("cannot start `{program}`: {message}")]
    Start {
        /// The program.
        program: String,
        /// The system's reason.
        message: String,
    },
    /// It ended with another code than 0.
    #[error("`{program}` exited with code {code}")]
    Exit {
        /// The program.
        program: String,
        /// Its code.
        code: i32,
        /// Its last lines of output.
        tail: Vec<String>,
    },
    /// A signal ended it.
    #[error("`{program}` was ended by signal {signal}")]
    Signal {
        /// The program.
        program: String,
        /// The signal's number.
        signal: i32,
    },
    /// It took longer than it may, and its process group was ended.
    #[error("`{program}` did not end within {}s", limit.as_secs())]
    Timeout {
        /// The program.
        program: String,
        /// The limit.
        limit: Duration,
    },
    /// The run was asked to stop, and its process group was ended.
    #[error("cancelled")]
    Cancelled,
}

/// Runs hooks.
#[async_trait::async_trait]
pub trait HookRunner: Send + Sync {
    /// Runs the hook in its own process group, streams its output line by line, and returns when the whole group is gone.
    async fn run(&self, hook: &HookCommand, progress: &Progress, cancel: &CancellationToken) -> Result<(), HookError>;
}
