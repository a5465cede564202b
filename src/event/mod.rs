//! What happens in a run, as values: the one thing between doing and showing.
//!
//! Everything a report needs is a field of an [`Event`]; the journal is the events, one JSON line each. Adapters see only
//! a [`Progress`], the handle through which they tell about the step they are in. Every text passes the redactor in `stream`,
//! so no sink can show a secret. Sending never blocks and never fails: a report that lags cannot delay a deploy.

mod class;
mod evidence;
mod lines;
mod step;
mod stream;

use crate::names::{AppName, BuildId, CommitId, Digest, Fingerprint, ReleaseId, RunId, ServiceName, Target};
use crate::secret::Secret;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

pub use class::FailureClass;
pub use evidence::{EnvChange, Evidence, LogOf, Moment, ProcessSeen, Suspect};
pub use lines::Lines;
pub use step::{Stage, Step};
pub use stream::{Acks, Events, Progress, Received};

/// The version of what leaves the program: journal lines, `--events`, `--format json`.
pub const FORMAT_VERSION: u32 = 1;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "an event of an offbuild run")]
pub struct Event {
    /// Counts up from 0 within a run; the order of events.
    pub seq: u64,
    /// When, UTC.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub time: OffsetDateTime,
    /// What.
    #[serde(flatten)]
    pub kind: EventKind,
    /// A value a hook asked to be masked (`::add-mask::`), for the one report that tells the CI runner. Never written.
    #[serde(skip)]
    pub mask: Option<Secret>,
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum StepOutcome {
    /// Well.
    Done,
    /// It failed.
    Failed {
        /// The class.
        class: FailureClass,
        /// What failed and why, one line or a short excerpt.
        message: String,
        /// What to do next.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hint: Option<String>,
    },
    /// The rack went back to the release it had.
    RolledBack {
        /// What the rack said.
        message: String,
    },
    /// Stopped by a signal or by another failure.
    Cancelled,
}

/// How a target ended; each ends in exactly one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum TargetOutcome {
    /// The release of this run is live.
    Deployed {
        /// The release.
        release: ReleaseId,
    },
    /// Staged and, by request (`--no-promote`), not promoted.
    Staged {
        /// The release.
        release: ReleaseId,
    },
    /// What runs there is what this commit asks for.
    UpToDate,
    /// A step failed.
    Failed {
        /// The step.
        stage: Stage,
        /// The class.
        class: FailureClass,
        /// What and why.
        message: String,
        /// What to do next.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hint: Option<String>,
    },
    /// What was live before is live again.
    RolledBack {
        /// What the rack said, or whom it went back with.
        message: String,
        /// The group it went back with; `None` when the rack rolled the promote back.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        group: Option<String>,
    },
    /// Something it comes after did not end well.
    Blocked {
        /// What it waited for: an app, a target or a rack.
        by: String,
    },
    /// Somebody rolled it back by hand, and its inputs have not changed since.
    Held {
        /// The commit it was rolled back from, when known.
        from: Option<CommitId>,
    },
    /// The live commit is newer than this one.
    Stale {
        /// What is live.
        live: CommitId,
    },
    /// Stopped while something of it ran.
    Cancelled,
    /// Nothing of it was begun.
    NotAttempted {
        /// Why.
        why: String,
    },
}

impl TargetOutcome {
    /// True when the target ended as asked.
    #[must_use]
    pub fn is_good(&self) -> bool {
        matches!(self, Self::Deployed { .. } | Self::Staged { .. } | Self::UpToDate)
    }

    /// The word of the final table: `deployed`, `failed(build)`, …
    #[must_use]
    pub fn word(&self) -> String {
        match self {
            Self::Deployed { .. } => "deployed".to_owned(),
            Self::Staged { .. } => "staged".to_owned(),
            Self::UpToDate => "up-to-date".to_owned(),
            Self::Failed { class, .. } => format!("failed({})", class.name()),
            Self::RolledBack { .. } => "rolled-back".to_owned(),
            Self::Blocked { by } => format!("blocked({by})"),
            Self::Held { .. } => "held".to_owned(),
            Self::Stale { .. } => "stale".to_owned(),
            Self::Cancelled => "cancelled".to_owned(),
            Self::NotAttempted { .. } => "not-attempted".to_owned(),
        }
    }
}

/// Which of a program's two outputs a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Output {
    /// Standard output, or a stream that does not tell.
    Out,
    /// Standard error.
    Err,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum EventKind {
    /// The first event.
    RunStarted {
        /// [`FORMAT_VERSION`].
        version: u32,
        /// The run.
        run: RunId,
        /// The command line's verb: `deploy`, `build`, …
        command: String,
        /// HEAD.
        commit: CommitId,
        /// First line of HEAD's message.
        subject: String,
        /// The branch, when HEAD is on one.
        branch: Option<String>,
        /// Where CI shows this run, when it runs in CI.
        ci_url: Option<String>,
        /// Who runs it, `user@host`.
        #[serde(default)]
        by: String,
    },
    /// A target has its verdict.
    TargetPlanned {
        /// The target.
        target: Target,
        /// `deploy`, `up-to-date`, …
        verdict: String,
        /// The reasons, each one line.
        reasons: Vec<String>,
        /// The commit it was compared with.
        base: Option<CommitId>,
        /// Where that commit came from.
        base_source: String,
        /// The release that is live before this run.
        live_release: Option<ReleaseId>,
        /// A newer release of another build that is not live: racks build the next `env set` on it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        trap: Option<ReleaseId>,
    },
    /// An image is in the plan.
    ImagePlanned {
        /// The app.
        app: AppName,
        /// The service.
        service: ServiceName,
        /// The app's fingerprint.
        fingerprint: Fingerprint,
        /// `build`, `reuse`, `present`.
        action: String,
        /// The reference that will be pushed.
        reference: String,
    },
    /// The plan is made and the doing begins.
    PlanReady {
        /// Distinct builds to run.
        builds: usize,
        /// Targets to deploy.
        targets: usize,
        /// Builds in flight at most.
        jobs: usize,
    },
    /// A step began; written to disk before anything is done.
    StepStarted {
        /// The step.
        step: Step,
        /// What exactly: a command, an image, a release.
        detail: String,
    },
    /// One line of a step's output.
    Log {
        /// The step.
        step: Step,
        /// Which output.
        output: Output,
        /// The line, without its end.
        line: String,
    },
    /// A BuildKit step changed.
    BuildStep {
        /// The step.
        step: Step,
        /// BuildKit's name of it, as `[2/4] RUN …`.
        name: String,
        /// True when it came from the cache.
        cached: bool,
        /// True when it is over.
        done: bool,
        /// How long it took, milliseconds, when it is over.
        millis: Option<u64>,
        /// BuildKit's error, when it failed.
        error: Option<String>,
    },
    /// How far a transfer is, in bytes.
    Transfer {
        /// The step.
        step: Step,
        /// Bytes so far.
        current: u64,
        /// Bytes in all, when known.
        total: Option<u64>,
    },
    /// Something worth knowing that is no failure (a cache that could not be imported, a clipped log).
    Notice {
        /// The step, when it belongs to one.
        step: Option<Step>,
        /// What.
        message: String,
    },
    /// An image is in its repository and its digest was read back.
    ImagePushed {
        /// The app.
        app: AppName,
        /// The service.
        service: ServiceName,
        /// The reference with tag.
        reference: String,
        /// Its digest.
        digest: Digest,
        /// True when it was built by this run.
        built: bool,
    },
    /// A release was created on a rack, not live yet.
    ReleaseStaged {
        /// The target.
        target: Target,
        /// The rack's build.
        build: BuildId,
        /// The release.
        release: ReleaseId,
        /// What it is to go over, when that became active after the plan was made.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        over: Option<ReleaseId>,
    },
    /// A release that an earlier run staged is taken over: it is part of the plan, and nothing is staged for the target.
    ReleaseAdopted {
        /// The target.
        target: Target,
        /// The rack's build.
        build: BuildId,
        /// The release.
        release: ReleaseId,
        /// The run that staged it, or took it over before.
        from: RunId,
        /// The hooks of this release that have run to their end.
        done: Vec<Stage>,
        /// The hooks of this release that were cut short and run again.
        #[serde(default)]
        again: Vec<Stage>,
    },
    /// A copy of a release was made, to put right what the run or an earlier one left: promoted next when an app goes back with
    /// its group, and left where it is, as the rack's newest release, when it heals.
    ReleaseCopied {
        /// The target.
        target: Target,
        /// The release it is a copy of.
        of: ReleaseId,
        /// The copy.
        release: ReleaseId,
        /// The group it goes back with; `None` for a heal.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        group: Option<String>,
    },
    /// What the rack shows of a promote that did not end well.
    PromoteEvidence {
        /// The target.
        target: Target,
        /// The release that was promoted.
        release: ReleaseId,
        /// What was found.
        evidence: Box<Evidence>,
    },
    /// The status of an app on a rack was read during a promote.
    RackStatus {
        /// The target.
        target: Target,
        /// `running`, `updating`, `rollback`, …
        status: String,
        /// The active release, when there is one.
        release: Option<ReleaseId>,
    },
    /// A step ended; written to disk before anything else is begun.
    StepFinished {
        /// The step.
        step: Step,
        /// How long it took, milliseconds.
        millis: u64,
        /// How.
        #[serde(flatten)]
        outcome: StepOutcome,
    },
    /// A target has its outcome. One that was deployed and goes back with its group has another one later: the last one counts.
    TargetFinished {
        /// The target.
        target: Target,
        /// How long its steps in the lane took, milliseconds.
        millis: u64,
        /// What.
        #[serde(flatten)]
        outcome: TargetOutcome,
    },
    /// A signal asked the run to stop.
    Interrupted {
        /// `INT` or `TERM`.
        signal: String,
        /// True for the second one.
        now: bool,
    },
    /// The last event.
    RunFinished {
        /// The exit code.
        code: u8,
        /// How long the run took, milliseconds.
        millis: u64,
    },
}

/// The JSON Schema of an event line: of the journal and of `--events`.
#[must_use]
pub fn schema() -> serde_json::Value {
    // As events are written: a reader of an older journal knows more defaults than the schema tells.
    let settings = schemars::generate::SchemaSettings::draft2020_12().for_serialize();
    settings.into_generator().into_root_schema_for::<Event>().to_value()
}

impl EventKind {
    /// True for what the journal must have on disk before the run goes on.
    #[must_use]
    pub fn is_lifecycle(&self) -> bool {
        !matches!(self, Self::Log { .. } | Self::BuildStep { .. } | Self::Transfer { .. })
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod validating;
