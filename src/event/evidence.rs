//! What is left to see of a promote that failed, was rolled back or ran out of time: as values, for every report to draw.
//!
//! Names of variables, never their values. Every text passes the redactor like those of any other event.

use crate::names::ReleaseId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a rack shows of a promote that did not end well. A part that is empty showed nothing, one that could not be read is
/// among `missing`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Evidence {
    /// The status of the app over time.
    pub timeline: Vec<Moment>,
    /// The app's processes, those of the new release first.
    pub processes: Vec<ProcessSeen>,
    /// The last lines of the new release's processes.
    pub logs: Vec<LogOf>,
    /// The last lines of the rack about the app.
    pub system: Vec<String>,
    /// How the environment differs from that of the release before.
    pub env: EnvChange,
    /// How the manifest differs from that of the release before: lines as `diff -u` writes them.
    pub manifest: Vec<String>,
    /// What it looks like.
    pub suspect: Suspect,
    /// The line that says so; empty when none does.
    pub because: String,
    /// What to do next.
    pub next: String,
    /// What could not be had, and why.
    pub missing: Vec<String>,
}

impl Evidence {
    /// Every text of others in it, to be redacted.
    pub(super) fn texts(&mut self) -> impl Iterator<Item = &mut String> {
        let Self { timeline, processes, logs, system, env, manifest, because, next, missing, suspect: _ } = self;
        let EnvChange { added, changed, removed } = env;
        let timeline = timeline.iter_mut().map(|moment| &mut moment.status);
        let processes = processes.iter_mut().flat_map(|seen| [&mut seen.id, &mut seen.service, &mut seen.release, &mut seen.status]);
        let logs = logs.iter_mut().flat_map(|log| std::iter::once(&mut log.source).chain(&mut log.lines));
        let names = added.iter_mut().chain(changed).chain(removed);
        let lines = system.iter_mut().chain(manifest).chain(missing).chain([because, next]);
        timeline.chain(processes).chain(logs).chain(names).chain(lines)
    }
}

/// One reading of the app's status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Moment {
    /// How long after the promote was sent, milliseconds.
    pub millis: u64,
    /// `updating`, `rollback`, …
    pub status: String,
    /// The active release.
    pub release: Option<ReleaseId>,
}

/// One process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProcessSeen {
    /// Its id on the rack.
    pub id: String,
    /// Its service.
    pub service: String,
    /// Its release, as the rack writes it.
    pub release: String,
    /// `running`, `pending`, `crashed`, …
    pub status: String,
}

/// What one process wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogOf {
    /// Who wrote it, as the rack names it: `service/web/PID`.
    pub source: String,
    /// The last lines.
    pub lines: Vec<String>,
}

/// Names of variables that differ between two releases.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct EnvChange {
    /// Those only the new one has.
    pub added: Vec<String>,
    /// Those with another value.
    pub changed: Vec<String>,
    /// Those only the old one had.
    pub removed: Vec<String>,
}

impl EnvChange {
    /// True when both releases have the same environment.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }
}

/// What a failed promote looks like: a guess, from the texts of the rack and the app.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Suspect {
    /// An image cannot be pulled.
    ImagePull,
    /// No room for the processes in the cluster.
    NoCapacity,
    /// A process needed more memory than it may have.
    OutOfMemory,
    /// A variable the app or its manifest needs is not set.
    MissingEnv,
    /// The command cannot be run.
    BadCommand,
    /// A process ends again and again.
    CrashLoop,
    /// The app listens on another port than the rack asks.
    WrongPort,
    /// The health check gets no good answer.
    Unhealthy,
    /// It was still going on when time ran out.
    StillGoing,
    /// Nothing tells.
    #[default]
    Unknown,
}

impl Suspect {
    /// What it looks like, for people.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::ImagePull => "an image that cannot be pulled",
            Self::NoCapacity => "no room in the cluster",
            Self::OutOfMemory => "out of memory",
            Self::MissingEnv => "a missing environment variable",
            Self::BadCommand => "a command that cannot be run",
            Self::CrashLoop => "a process that crashes",
            Self::WrongPort => "an app that listens on another port",
            Self::Unhealthy => "a failing health check",
            Self::StillGoing => "a roll that is slow, not broken: it was still going on when time ran out",
            Self::Unknown => "nothing the rack or the app says explains it",
        }
    }
}
