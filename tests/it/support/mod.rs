//! What the integration tests stand on: temporary git repositories, the real engine, a real registry, the sandbox racks, and
//! the binary in a scrubbed environment. Everything is found through ordinary settings, and gone when the test ends.

pub mod engine;
pub mod front;
pub mod repo;
pub mod sandbox;
pub mod services;
pub mod terminal;
pub mod tokens;
pub mod world;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a program did.
pub struct Done {
    /// Its exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Done {
    /// Asserts the exit code and shows everything when it is another.
    #[track_caller]
    pub fn code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Asserts that standard error has this text.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "`{text}` is missing in stderr:\n{}", self.stderr);
        self
    }
}

/// A run of the binary: only the variables that are set here, over PATH.
pub struct Offbuild {
    directory: PathBuf,
    env: BTreeMap<String, String>,
}

impl Offbuild {
    /// The binary in a directory, with a home of its own below `home`.
    pub fn new(directory: &Path, home: &Path) -> Self {
        let mut env = BTreeMap::from([
            ("PATH".to_owned(), format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())),
            ("HOME".to_owned(), home.display().to_string()),
            ("DOCKER_CONFIG".to_owned(), home.join(".docker").display().to_string()),
            ("NO_COLOR".to_owned(), "1".to_owned()),
        ]);
        if let Ok(host) = std::env::var("DOCKER_HOST") {
            env.insert("DOCKER_HOST".to_owned(), host);
        }
        Self { directory: directory.to_owned(), env }
    }

    /// Sets a variable.
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.insert(name.to_owned(), value.into());
        self
    }

    /// Sets several variables.
    pub fn envs(mut self, vars: impl IntoIterator<Item = (String, String)>) -> Self {
        self.env.extend(vars);
        self
    }

    /// Works in another directory.
    pub fn directory(mut self, directory: &Path) -> Self {
        directory.clone_into(&mut self.directory);
        self
    }

    /// The command, ready to be spawned.
    pub fn command(&self, args: &[&str]) -> Command {
        self.prepared(Command::new(env!("CARGO_BIN_EXE_offbuild")), args)
    }

    fn prepared(&self, mut command: Command, args: &[&str]) -> Command {
        command.args(args).current_dir(&self.directory).env_clear().envs(&self.env).stdin(Stdio::null());
        command
    }

    /// Runs it.
    pub fn run(&self, args: &[&str]) -> Done {
        Self::done(self.command(args))
    }

    /// Runs a line of the shell that ends up in it: limits, signals.
    pub fn shell(&self, line: &str) -> Done {
        Self::done(self.prepared(Command::new("sh"), &["-c", line]))
    }

    fn done(mut command: Command) -> Done {
        let output = command.output().expect("the binary was built with the tests");
        Done {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Runs a program of the test itself and returns its standard output.
#[track_caller]
pub fn sh(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?} failed:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

/// A name nobody else uses.
pub fn unique() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("it{}n{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}
