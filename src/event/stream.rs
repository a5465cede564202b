//! The stream of events: from many senders, in order and redacted, to the one consumer that hands them to journal and reports.
//!
//! Sending never blocks and never fails; only [`Events::record`] waits, for the journal's word that the event is on disk.

use super::{Event, EventKind, Evidence, Output, Step, StepOutcome, TargetOutcome};
use crate::names::{ReleaseId, Target};
use crate::secret::{Redactor, Secret};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use time::OffsetDateTime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;

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
        let _order = self.inner.order.lock().unwrap_or_else(PoisonError::into_inner);
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
        Progress { events: self.clone(), step, at: Arc::default() }
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
        EventKind::PromoteEvidence { evidence, .. } => evidence.texts().for_each(mask),
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
            TargetOutcome::RolledBack { message: text, .. }
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
    /// What was told last, for whoever has to say what was waited for.
    at: Arc<Mutex<String>>,
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

    /// What the step was last heard to do, as the words go after a comma; empty when it was never heard.
    #[must_use]
    pub fn at(&self) -> String {
        self.at.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn heard(&self, what: String) {
        *self.at.lock().unwrap_or_else(PoisonError::into_inner) = what;
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
        let total_known = total.map_or(String::new(), |total| format!(" of {total}"));
        self.heard(format!("{current}{total_known} bytes on their way"));
        self.events.send(EventKind::Transfer { step: self.step.clone(), current, total });
    }

    /// A BuildKit step changed.
    pub fn build_step(&self, name: impl Into<String>, cached: bool, took: Option<Duration>, done: bool, error: Option<String>) {
        let millis = took.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        let name = name.into();
        if !done {
            self.heard(format!("at `{name}`"));
        }
        self.events.send(EventKind::BuildStep { step: self.step.clone(), name, cached, done, millis, error });
    }

    /// What the rack shows of a promote of `release` that did not end well.
    pub fn evidence(&self, release: ReleaseId, evidence: Evidence) {
        if let Some(rack) = &self.step.rack {
            let target = Target { app: self.step.app.clone(), rack: rack.clone() };
            self.events.send(EventKind::PromoteEvidence { target, release, evidence: Box::new(evidence) });
        }
    }

    /// The status of the app on the rack, read while waiting for it.
    pub fn rack_status(&self, status: impl Into<String>, release: Option<ReleaseId>) {
        if let Some(rack) = &self.step.rack {
            let target = Target { app: self.step.app.clone(), rack: rack.clone() };
            self.events.send(EventKind::RackStatus { target, status: status.into(), release });
        }
    }
}
