//! An error is a kind, a message, its causes and what to do next. The kind alone decides the exit code.

use std::fmt;

/// What kind of thing went wrong; each has one exit code (see the README's table).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Something in the run failed: a build, a hook, a release.
    Failed,
    /// The command line or the configuration is wrong. Nothing was touched.
    Config,
    /// The engine, a registry, a rack or the repository cannot be used. Nothing was deployed.
    Unusable,
    /// A guard refused: stale or diverged commit, dirty inputs, protected rack, held target.
    Refused,
    /// Another run holds the lock.
    Locked,
    /// Stopped by INT.
    Interrupted,
    /// Stopped by TERM.
    Terminated,
}

impl Kind {
    /// The process's exit code.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Config => 2,
            Self::Unusable => 3,
            Self::Refused => 4,
            Self::Locked => 5,
            Self::Interrupted => 130,
            Self::Terminated => 143,
        }
    }
}

/// An error as the user sees it.
#[derive(Debug, Clone)]
pub struct Error {
    /// Decides the exit code.
    pub kind: Kind,
    /// What failed, on which app and rack: lower case, names in backticks. May span lines (an excerpt).
    pub message: String,
    /// Why, outermost first.
    pub causes: Vec<String>,
    /// What to do next; ends with the command to run where there is one.
    pub hint: Option<String>,
}

/// A result with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind` with a message.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), causes: Vec::new(), hint: None }
    }

    /// A [`Kind::Config`] error.
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(Kind::Config, message)
    }

    /// A [`Kind::Unusable`] error.
    pub fn unusable(message: impl Into<String>) -> Self {
        Self::new(Kind::Unusable, message)
    }

    /// A [`Kind::Failed`] error.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    /// A [`Kind::Refused`] error.
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(Kind::Refused, message)
    }

    /// Adds a cause below those there are.
    #[must_use]
    pub fn because(mut self, cause: impl fmt::Display) -> Self {
        self.causes.push(cause.to_string());
        self
    }

    /// Adds an error and everything below it as causes.
    #[must_use]
    pub fn caused_by(mut self, error: &(dyn std::error::Error + 'static)) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            let text = error.to_string();
            // Many crates repeat their source in their own text.
            if !self.causes.iter().any(|cause| cause.contains(&text)) {
                self.causes.push(text);
            }
            next = error.source();
        }
        self
    }

    /// Says what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The message and its causes in one line, as events carry it.
    #[must_use]
    pub fn one_line(&self) -> String {
        let mut line = self.message.clone();
        for cause in &self.causes {
            line.push_str(": ");
            line.push_str(cause);
        }
        line
    }
}

/// Several lines: message, causes, hint.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for cause in &self.causes {
            write!(f, "\n  because: {}", cause.replace('\n', "\n           "))?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  next: {}", hint.replace('\n', "\n        "))?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}
