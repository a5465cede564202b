//! What happens in a run, as values: the one thing between doing and showing.
//!
//! Everything a report needs is a field of an [`Event`]; the journal is the events, one JSON line each. Adapters see only
//! a [`Progress`], the handle through which they tell about the step they are in. Every text passes the redactor here,
//! so no sink can show a secret. Sending never blocks and never fails: a report that lags cannot delay a deploy.

use crate::names::{AppName, BuildId, CommitId, Digest, Fingerprint, RackName, ReleaseId, RunId, ServiceName, Target};
use crate::secret::{Redactor, Secret};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use time::OffsetDateTime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;

/// The version of what leaves the program: journal lines, `--events`, `--format json`.
pub const FORMAT_VERSION: u32 = 1;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Counts up from 0 within a run; the order of events.
    pub seq: u64,
    /// When, UTC.
    #[serde(with = "time::serde::rfc3339")]
    pub time: OffsetDateTime,
    /// What.
    #[serde(flatten)]
    pub kind: EventKind,
    /// A value a hook asked to be masked (`::add-mask::`), for the one report that tells the CI runner. Never written.
    #[serde(skip)]
    pub mask: Option<Secret>,
}

/// The stages an app or target goes through, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// `deploy/before_build.sh`.
    BeforeBuild,
    /// The image is built on the engine.
    Build,
    /// `deploy/after_build.sh`.
    AfterBuild,
    /// The image goes to its repository and its digest is read back.
    Push,
    /// An image that is in the registry already gets this commit's tag.
    Retag,
    /// A release is created on the rack without making it live.
    Stage,
    /// `deploy/before_release.sh`.
    BeforeRelease,
    /// The release is made live and awaited.
    Promote,
    /// `deploy/after_release.sh`.
    AfterRelease,
    /// `deploy/on_failure.sh`.
    OnFailure,
}

impl Stage {
    /// True for the stages that run the user's own commands.
    #[must_use]
    pub fn is_hook(self) -> bool {
        matches!(self, Self::BeforeBuild | Self::AfterBuild | Self::BeforeRelease | Self::AfterRelease | Self::OnFailure)
    }

    /// The stage's name for people, as the events spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BeforeBuild => "before_build",
            Self::Build => "build",
            Self::AfterBuild => "after_build",
            Self::Push => "push",
            Self::Retag => "retag",
            Self::Stage => "stage",
            Self::BeforeRelease => "before_release",
            Self::Promote => "promote",
            Self::AfterRelease => "after_release",
            Self::OnFailure => "on_failure",
        }
    }
}

/// Which step: a stage of an app, on a rack from [`Stage::Stage`] on, of one service for builds and pushes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Step {
    /// The app.
    pub app: AppName,
    /// The rack, for the stages of a lane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rack: Option<RackName>,
    /// The service, for builds and pushes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceName>,
    /// The stage.
    pub stage: Stage,
}

impl Step {
    /// `app`, `app@rack`, `app/service`: who the step is for.
    #[must_use]
    pub fn subject(&self) -> String {
        let mut text = self.app.to_string();
        if let Some(service) = &self.service {
            text = format!("{text}/{service}");
        }
        if let Some(rack) = &self.rack {
            text = format!("{text}@{rack}");
        }
        text
    }
}

/// Why a step or target failed: a closed list, so that reports and scripts can tell failures apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureClass {
    /// A hook ended with a code that is not 0.
    Hook,
    /// A hook ran out of time.
    HookTimeout,
    /// The image build failed.
    Build,
    /// The image build ran out of time.
    BuildTimeout,
    /// The push failed.
    Push,
    /// The tag exists with other content.
    TagConflict,
    /// The registry could not be used.
    Registry,
    /// The engine could not be used.
    Engine,
    /// The rack refused the login.
    RackLogin,
    /// The rack could not be reached.
    RackUnreachable,
    /// The rack refused or failed a call.
    Rack,
    /// The rack's own build failed.
    RackBuild,
    /// The rack's own build ran out of time.
    RackBuildTimeout,
    /// The promote was refused.
    Promote,
    /// The promote ran out of time; what is live was read and is said.
    PromoteTimeout,
    /// Another release overtook this one.
    Overtaken,
    /// A guard refused right before the promote.
    Guard,
}

impl FailureClass {
    /// The class as events spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hook => "hook",
            Self::HookTimeout => "hook-timeout",
            Self::Build => "build",
            Self::BuildTimeout => "build-timeout",
            Self::Push => "push",
            Self::TagConflict => "tag-conflict",
            Self::Registry => "registry",
            Self::Engine => "engine",
            Self::RackLogin => "rack-login",
            Self::RackUnreachable => "rack-unreachable",
            Self::Rack => "rack",
            Self::RackBuild => "rack-build",
            Self::RackBuildTimeout => "rack-build-timeout",
            Self::Promote => "promote",
            Self::PromoteTimeout => "promote-timeout",
            Self::Overtaken => "overtaken",
            Self::Guard => "guard",
        }
    }
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// The rack rolled the promote back.
    RolledBack {
        /// What the rack said.
        message: String,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Output {
    /// Standard output, or a stream that does not tell.
    Out,
    /// Standard error.
    Err,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// A target has its outcome.
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

impl EventKind {
    /// True for what the journal must have on disk before the run goes on.
    #[must_use]
    pub fn is_lifecycle(&self) -> bool {
        !matches!(self, Self::Log { .. } | Self::BuildStep { .. } | Self::Transfer { .. })
    }
}

/// Where events go: an ordered, unbounded stream to the one consumer that hands them to journal and reports.
#[derive(Clone)]
pub struct Events {
    inner: Arc<Inner>,
}

struct Inner {
    sender: UnboundedSender<Event>,
    next: AtomicU64,
    // Sequence number and place in the stream are taken under one lock, so that the stream is in order.
    order: std::sync::Mutex<()>,
    redactor: Redactor,
    // How many events are on disk; `NOBODY` while nobody writes a journal.
    journaled: watch::Sender<u64>,
}

const NOBODY: u64 = u64::MAX;

/// The journal's side of [`Events::record`]: says how far the stream is on disk. Dropping it releases everybody who waits.
#[derive(Debug)]
pub struct Acks {
    journaled: watch::Sender<u64>,
}

impl Acks {
    /// Everything up to and including event number `seq` is on disk.
    pub fn through(&self, seq: u64) {
        self.journaled.send_replace(seq + 1);
    }
}

impl Drop for Acks {
    fn drop(&mut self) {
        self.journaled.send_replace(NOBODY);
    }
}

impl Events {
    /// A stream and its receiving end.
    #[must_use]
    pub fn new(redactor: Redactor) -> (Self, UnboundedReceiver<Event>) {
        let (sender, receiver) = unbounded_channel();
        let (next, order, journaled) = (AtomicU64::new(0), std::sync::Mutex::new(()), watch::Sender::new(NOBODY));
        (Self { inner: Arc::new(Inner { sender, next, order, redactor, journaled }) }, receiver)
    }

    /// Announces a journal: from here on [`Events::record`] waits until the returned handle says the event is on disk.
    #[must_use]
    pub fn acks(&self) -> Acks {
        self.inner.journaled.send_replace(0);
        Acks { journaled: self.inner.journaled.clone() }
    }

    /// Sends an event, with every text of it redacted.
    pub fn send(&self, kind: EventKind) {
        self.place(kind);
    }

    /// Sends an event and returns when it is on disk: for what must be known after a kill. At once when nobody writes a journal.
    pub async fn record(&self, kind: EventKind) {
        let seq = self.place(kind);
        // The sending half lives in `self`, so waiting cannot fail.
        let _ = self.inner.journaled.subscribe().wait_for(|journaled| *journaled > seq).await;
    }

    fn place(&self, mut kind: EventKind) -> u64 {
        let mask = take_mask(&mut kind);
        if let Some(mask) = &mask {
            self.inner.redactor.register(&Secret::new(unescape_command(mask.expose())));
        }
        let kind = redacted(kind, &self.inner.redactor);
        let _order = self.inner.order.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let seq = self.inner.next.fetch_add(1, Ordering::Relaxed);
        // The receiver is gone only after the run is over: nobody is left to tell.
        let _ = self.inner.sender.send(Event { seq, time: OffsetDateTime::now_utc(), kind, mask });
        seq
    }

    /// The redactor every event passes.
    #[must_use]
    pub fn redactor(&self) -> &Redactor {
        &self.inner.redactor
    }

    /// A handle for what happens in `step`.
    #[must_use]
    pub fn progress(&self, step: Step) -> Progress {
        Progress { events: self.clone(), step }
    }
}

/// Takes the value out of a hook's `::add-mask::VALUE`, so that no report can show it by showing the line.
fn take_mask(kind: &mut EventKind) -> Option<Secret> {
    const COMMAND: &str = "::add-mask::";
    let EventKind::Log { step, line, .. } = kind else { return None };
    let value = line.trim_start().strip_prefix(COMMAND).filter(|value| step.stage.is_hook() && !value.is_empty())?;
    let value = Secret::new(value);
    *line = format!("{COMMAND}***");
    Some(value)
}

/// Undoes the escapes of a GitHub workflow command's value (`actions/toolkit`, `packages/core/src/command.ts`).
fn unescape_command(value: &str) -> String {
    value.replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%")
}

fn redacted(mut kind: EventKind, redactor: &Redactor) -> EventKind {
    let mask = |text: &mut String| *text = redactor.redact(text);
    match &mut kind {
        EventKind::Log { line: text, .. }
        | EventKind::Notice { message: text, .. }
        | EventKind::StepStarted { detail: text, .. }
        | EventKind::RackStatus { status: text, .. } => mask(text),
        EventKind::RunStarted { subject, branch, ci_url, .. } => {
            mask(subject);
            [branch, ci_url].into_iter().flatten().for_each(mask);
        }
        EventKind::BuildStep { name, error, .. } => {
            mask(name);
            if let Some(error) = error {
                mask(error);
            }
        }
        EventKind::TargetPlanned { reasons, .. } => reasons.iter_mut().for_each(mask),
        EventKind::StepFinished { outcome, .. } => match outcome {
            StepOutcome::Failed { message, hint, .. } => {
                mask(message);
                if let Some(hint) = hint {
                    mask(hint);
                }
            }
            StepOutcome::RolledBack { message } => mask(message),
            StepOutcome::Done | StepOutcome::Cancelled => {}
        },
        EventKind::TargetFinished { outcome, .. } => match outcome {
            TargetOutcome::Failed { message, hint, .. } => {
                mask(message);
                if let Some(hint) = hint {
                    mask(hint);
                }
            }
            TargetOutcome::RolledBack { message: text }
            | TargetOutcome::NotAttempted { why: text }
            | TargetOutcome::Blocked { by: text } => {
                mask(text);
            }
            _ => {}
        },
        _ => {}
    }
    kind
}

/// The handle through which an adapter tells about the step it is in.
#[derive(Clone)]
pub struct Progress {
    events: Events,
    step: Step,
}

impl Progress {
    /// A handle whose events nobody reads, for probes and tests.
    #[must_use]
    pub fn unheard(step: Step) -> Self {
        Events::new(Redactor::default()).0.progress(step)
    }

    /// The step.
    #[must_use]
    pub fn step(&self) -> &Step {
        &self.step
    }

    /// One line of output.
    pub fn log(&self, output: Output, line: impl Into<String>) {
        self.events.send(EventKind::Log { step: self.step.clone(), output, line: line.into() });
    }

    /// Something worth knowing.
    pub fn notice(&self, message: impl Into<String>) {
        self.events.send(EventKind::Notice { step: Some(self.step.clone()), message: message.into() });
    }

    /// How far a transfer is.
    pub fn transfer(&self, current: u64, total: Option<u64>) {
        self.events.send(EventKind::Transfer { step: self.step.clone(), current, total });
    }

    /// A BuildKit step changed.
    pub fn build_step(&self, name: impl Into<String>, cached: bool, took: Option<Duration>, done: bool, error: Option<String>) {
        let millis = took.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        self.events.send(EventKind::BuildStep { step: self.step.clone(), name: name.into(), cached, done, millis, error });
    }

    /// The status of the app on the rack, read while waiting for it.
    pub fn rack_status(&self, status: impl Into<String>, release: Option<ReleaseId>) {
        if let Some(rack) = &self.step.rack {
            let target = Target { app: self.step.app.clone(), rack: rack.clone() };
            self.events.send(EventKind::RackStatus { target, status: status.into(), release });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(stage: Stage) -> Step {
        Step { app: AppName::new("web").unwrap(), rack: Some(RackName::new("staging").unwrap()), service: None, stage }
    }

    /// One of every kind, and of every outcome.
    fn every_kind() -> Vec<EventKind> {
        let target = Target { app: AppName::new("web").unwrap(), rack: RackName::new("org/prod").unwrap() };
        let commit = CommitId::new("a".repeat(40)).unwrap();
        let (release, build) = (ReleaseId::new("RABC").unwrap(), BuildId::new("BABC").unwrap());
        let text = || "a \"text\"\n\u{1b}[1m".to_owned();
        let mut kinds = vec![
            EventKind::RunStarted {
                version: FORMAT_VERSION,
                run: RunId::new("20260102-030405-abcd").unwrap(),
                command: "deploy".to_owned(),
                commit: commit.clone(),
                subject: text(),
                branch: None,
                ci_url: Some(text()),
                by: "ann@host".to_owned(),
            },
            EventKind::TargetPlanned {
                target: target.clone(),
                verdict: "deploy".to_owned(),
                reasons: vec![text()],
                base: Some(commit.clone()),
                base_source: "rack".to_owned(),
                live_release: Some(release.clone()),
            },
            EventKind::ImagePlanned {
                app: target.app.clone(),
                service: ServiceName::new("web").unwrap(),
                fingerprint: Fingerprint::new("0".repeat(24)).unwrap(),
                action: "build".to_owned(),
                reference: text(),
            },
            EventKind::PlanReady { builds: 1, targets: 2, jobs: 3 },
            EventKind::StepStarted { step: step(Stage::Build), detail: text() },
            EventKind::Log { step: step(Stage::BeforeBuild), output: Output::Err, line: text() },
            EventKind::BuildStep {
                step: step(Stage::Build),
                name: text(),
                cached: true,
                done: true,
                millis: Some(u64::MAX),
                error: Some(text()),
            },
            EventKind::Transfer { step: step(Stage::Push), current: 1, total: None },
            EventKind::Notice { step: None, message: text() },
            EventKind::Notice { step: Some(step(Stage::Retag)), message: text() },
            EventKind::ImagePushed {
                app: target.app.clone(),
                service: ServiceName::new("web").unwrap(),
                reference: text(),
                digest: Digest::new(format!("sha256:{}", "1".repeat(64))).unwrap(),
                built: true,
            },
            EventKind::ReleaseStaged { target: target.clone(), build, release: release.clone() },
            EventKind::RackStatus { target: target.clone(), status: text(), release: None },
            EventKind::Interrupted { signal: "INT".to_owned(), now: false },
            EventKind::RunFinished { code: 130, millis: 7 },
        ];
        let failed = StepOutcome::Failed { class: FailureClass::HookTimeout, message: text(), hint: Some(text()) };
        for outcome in [StepOutcome::Done, failed, StepOutcome::RolledBack { message: text() }, StepOutcome::Cancelled] {
            kinds.push(EventKind::StepFinished { step: step(Stage::Promote), millis: 1, outcome });
        }
        for outcome in [
            TargetOutcome::Deployed { release: release.clone() },
            TargetOutcome::Staged { release },
            TargetOutcome::UpToDate,
            TargetOutcome::Failed { stage: Stage::OnFailure, class: FailureClass::Guard, message: text(), hint: None },
            TargetOutcome::RolledBack { message: text() },
            TargetOutcome::Blocked { by: text() },
            TargetOutcome::Held { from: None },
            TargetOutcome::Stale { live: commit },
            TargetOutcome::Cancelled,
            TargetOutcome::NotAttempted { why: text() },
        ] {
            kinds.push(EventKind::TargetFinished { target: target.clone(), millis: 1, outcome });
        }
        kinds
    }

    #[test]
    fn every_event_comes_back_from_json_as_it_was() {
        for (seq, kind) in (0..).zip(every_kind()) {
            let event = Event { seq, time: time::macros::datetime!(2026-01-02 03:04:05.123 UTC), kind, mask: None };
            let line = serde_json::to_string(&event).unwrap();
            assert!(!line.contains('\n'));
            assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event, "{line}");
        }
    }

    #[test]
    fn what_older_journals_lack_has_a_default() {
        let line = r#"{"seq":0,"time":"2026-01-02T03:04:05Z","event":"run-started","version":1,"run":"r1","command":"deploy",
            "commit":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","subject":"s","branch":null,"ci_url":null}"#;
        assert!(serde_json::from_str::<Event>(line).is_ok());
    }

    #[test]
    fn no_text_of_any_event_escapes_the_redactor() {
        let (events, mut receiver) = Events::new(Redactor::default());
        events.redactor().register(&Secret::new("a \"text\""));
        every_kind().into_iter().for_each(|kind| events.send(kind));
        while let Ok(event) = receiver.try_recv() {
            // References are made of checked names, so a secret cannot be in one.
            if !matches!(event.kind, EventKind::ImagePlanned { .. } | EventKind::ImagePushed { .. }) {
                assert!(!serde_json::to_string(&event).unwrap().contains("text"), "{event:?}");
            }
        }
    }

    #[test]
    fn a_value_a_hook_masks_is_masked_from_then_on_and_handed_to_the_runner_only() {
        let (events, mut receiver) = Events::new(Redactor::default());
        let log = |line: &str| events.progress(step(Stage::BeforeBuild)).log(Output::Out, line);
        log("::add-mask::hunter%25two");
        log("it is hunter%two");
        let first = receiver.try_recv().unwrap();
        assert_eq!(first.mask.as_ref().map(Secret::expose), Some("hunter%25two"));
        assert!(!serde_json::to_string(&first).unwrap().contains("hunter"));
        assert!(matches!(receiver.try_recv().unwrap().kind, EventKind::Log { line, .. } if line == "it is ***"));
    }

    #[tokio::test]
    async fn record_waits_for_the_journal_and_for_nobody_else() {
        let (events, receiver) = Events::new(Redactor::default());
        let kind = || EventKind::Notice { step: None, message: String::new() };
        events.record(kind()).await; // no journal: at once, even with an undrained receiver
        let acks = events.acks();
        acks.through(0);
        let waiting = tokio::spawn({
            let events = events.clone();
            async move { events.record(kind()).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        acks.through(1);
        waiting.await.unwrap();
        let waiting = tokio::spawn(async move { events.record(kind()).await });
        tokio::task::yield_now().await;
        drop((acks, receiver)); // the consumer is gone
        waiting.await.unwrap();
    }
}
