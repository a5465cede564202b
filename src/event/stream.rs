//! The stream of events: from many senders, in order and redacted, to the one consumer that hands them to journal and reports.
//!
//! Sending never blocks and never fails; only [`Events::record`] waits, for the journal's word that the event is on disk. Who reads
//! output faster than reports show it waits in [`Progress::keep_up`], as long as reports go on at all; where nobody waits, lines
//! beyond what memory should hold are left out, and a notice says how many. Nothing but lines is ever left out.

use super::{Event, EventKind, Evidence, Lines, Output, Step, StepOutcome, TargetOutcome};
use crate::names::{ReleaseId, Target};
use crate::secret::{Redactor, SHORTEST_MASKED, Secret};
use crate::words::count;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
    order: Mutex<()>,
    redactor: Redactor,
    // What may be the beginning of a folded value, by step: of its two outputs.
    carries: Mutex<HashMap<Step, [String; 2]>>,
    backlog: Arc<Backlog>,
    // How many events are on disk; `NOBODY` while nobody writes a journal.
    journaled: watch::Sender<u64>,
}

const NOBODY: u64 = u64::MAX;

/// What was sent and not taken yet.
#[derive(Debug)]
struct Backlog {
    /// Bytes, of lines only.
    bytes: watch::Sender<usize>,
    /// Nothing was taken for [`PATIENCE`], and nothing since.
    stuck: AtomicBool,
    /// Lines that were left out and not told of yet.
    left_out: AtomicU64,
}

/// Who can wait does, above this many bytes of lines.
const CALM: usize = 8 << 20;
/// Lines are left out above this many bytes of them.
const FULL: usize = 64 << 20;
/// How long reports may take nothing before nobody waits for them any more.
const PATIENCE: Duration = Duration::from_secs(5);

/// The receiving end of a run's events.
#[derive(Debug)]
pub struct Received {
    receiver: UnboundedReceiver<Event>,
    backlog: Arc<Backlog>,
}

impl Received {
    /// The next event; `None` when no more will come.
    pub async fn recv(&mut self) -> Option<Event> {
        let event = self.receiver.recv().await;
        self.taken(event.as_slice());
        event
    }

    /// Adds up to `limit` events to `batch` as soon as there are some; 0 when no more will come.
    pub async fn recv_many(&mut self, batch: &mut Vec<Event>, limit: usize) -> usize {
        let before = batch.len();
        let count = self.receiver.recv_many(batch, limit).await;
        self.taken(&batch[before..]);
        count
    }

    /// The next event, when there is one.
    pub fn try_recv(&mut self) -> Option<Event> {
        let event = self.receiver.try_recv().ok();
        self.taken(event.as_slice());
        event
    }

    fn taken(&self, events: &[Event]) {
        let size: usize = events.iter().map(|event| size(&event.kind)).sum();
        self.backlog.stuck.store(false, Ordering::Relaxed);
        if size > 0 {
            self.backlog.bytes.send_modify(|bytes| *bytes = bytes.saturating_sub(size));
        }
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        // Nobody will take anything: nobody is to wait.
        self.backlog.bytes.send_replace(0);
    }
}

/// What an event adds to the backlog, about.
fn size(kind: &EventKind) -> usize {
    if let EventKind::Log { line, .. } = kind { line.len() + 256 } else { 0 }
}

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
    pub fn new(redactor: Redactor) -> (Self, Received) {
        let (sender, receiver) = unbounded_channel();
        let backlog = Backlog { bytes: watch::Sender::new(0), stuck: AtomicBool::new(false), left_out: AtomicU64::new(0) };
        let backlog = Arc::new(backlog);
        let inner = Inner {
            sender,
            next: AtomicU64::new(0),
            order: Mutex::default(),
            redactor,
            carries: Mutex::default(),
            backlog: Arc::clone(&backlog),
            journaled: watch::Sender::new(NOBODY),
        };
        (Self { inner: Arc::new(inner) }, Received { receiver, backlog })
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

    /// True when nobody takes events any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.inner.sender.is_closed()
    }

    /// Sends an event and returns when it is on disk: for what must be known after a kill. At once when nobody writes a journal.
    pub async fn record(&self, kind: EventKind) {
        let seq = self.place(kind);
        // The sending half lives in `self`, so waiting cannot fail.
        let _ = self.inner.journaled.subscribe().wait_for(|journaled| *journaled > seq).await;
    }

    fn place(&self, mut kind: EventKind) -> u64 {
        let mask = take_mask(&mut kind);
        let mut unmasked = None;
        if let Some(mask) = &mask
            && !self.inner.redactor.register(&Secret::new(unescape_command(mask.expose())))
            && let EventKind::Log { step, .. } = &kind
        {
            let message = format!("the value of `::add-mask::` is not masked: it has less than {SHORTEST_MASKED} bytes, or very many");
            unmasked = Some(EventKind::Notice { step: Some(step.clone()), message });
        }
        let seq = self.put(self.redacted(kind), mask);
        unmasked.map_or(seq, |notice| self.put(notice, None))
    }

    /// Puts a redacted event into the stream.
    fn put(&self, kind: EventKind, mask: Option<Secret>) -> u64 {
        let Inner { sender, next, order, backlog, .. } = &*self.inner;
        let _order = order.lock().unwrap_or_else(PoisonError::into_inner);
        let size = size(&kind);
        // The receiver is gone only after the run is over: nobody is left to tell.
        let send = |kind, mask| {
            let seq = next.fetch_add(1, Ordering::Relaxed);
            let _ = sender.send(Event { seq, time: OffsetDateTime::now_utc(), kind, mask });
            seq
        };
        if size > 0 && sender.is_closed() {
            return next.load(Ordering::Relaxed);
        }
        if size > 0 && *backlog.bytes.borrow() > FULL {
            backlog.left_out.fetch_add(1, Ordering::Relaxed);
            return next.load(Ordering::Relaxed);
        }
        let left_out = backlog.left_out.swap(0, Ordering::Relaxed);
        if left_out > 0 {
            let message = format!(
                "{} of output left out: the reports did not keep up",
                count(usize::try_from(left_out).unwrap_or(usize::MAX), "line")
            );
            send(EventKind::Notice { step: None, message }, None);
        }
        if size > 0 {
            backlog.bytes.send_modify(|bytes| *bytes += size);
        }
        send(kind, mask)
    }

    /// The event with every text of it redacted; a line of output together with what the lines before it left open.
    fn redacted(&self, mut kind: EventKind) -> EventKind {
        let redactor = &self.inner.redactor;
        match &mut kind {
            EventKind::Log { step, output, line } => {
                let mut carries = self.inner.carries.lock().unwrap_or_else(PoisonError::into_inner);
                let of = usize::from(*output == Output::Err);
                let mut carry = carries.get_mut(step).map(|carries| std::mem::take(&mut carries[of])).unwrap_or_default();
                if let Cow::Owned(masked) = redactor.redact_line(line, &mut carry) {
                    *line = masked;
                }
                // Most lines leave nothing open.
                if !carry.is_empty() {
                    carries.entry(step.clone()).or_default()[of] = carry;
                }
            }
            EventKind::StepFinished { step, .. } => {
                self.inner.carries.lock().unwrap_or_else(PoisonError::into_inner).remove(step);
            }
            _ => {}
        }
        redacted(kind, redactor)
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
    let mask = |text: &mut String| {
        if let Cow::Owned(masked) = redactor.redact(text) {
            *text = masked;
        }
    };
    match &mut kind {
        EventKind::Notice { message: text, .. }
        | EventKind::StepStarted { detail: text, .. }
        | EventKind::RackStatus { status: text, .. } => mask(text),
        EventKind::RunStarted { subject, branch, ci_url, by, .. } => {
            mask(subject);
            mask(by);
            [branch, ci_url].into_iter().flatten().for_each(mask);
        }
        EventKind::BuildStep { name, error, .. } => {
            mask(name);
            if let Some(error) = error {
                mask(error);
            }
        }
        EventKind::PromoteEvidence { evidence, .. } => {
            // Lines of logs for the most part: a value may go from one to the next.
            let mut carry = String::new();
            for text in evidence.texts() {
                if let Cow::Owned(masked) = redactor.redact_line(text, &mut carry) {
                    *text = masked;
                }
            }
        }
        EventKind::TargetPlanned { reasons, base_source, .. } => {
            mask(base_source);
            reasons.iter_mut().for_each(mask);
        }
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

    /// Cuts output into lines for [`Progress::log`].
    #[must_use]
    pub fn lines(&self) -> Lines {
        Lines::new(self.events.redactor().clone())
    }

    /// Waits until reports have shown most of the lines there are. Not for a report that is stuck: nothing may hold up a run for ever.
    pub async fn keep_up(&self) {
        let backlog = &self.events.inner.backlog;
        let mut bytes = backlog.bytes.subscribe();
        while *bytes.borrow_and_update() > CALM && !backlog.stuck.load(Ordering::Relaxed) && !self.events.inner.sender.is_closed() {
            if tokio::time::timeout(PATIENCE, bytes.changed()).await.is_err() {
                backlog.stuck.store(true, Ordering::Relaxed);
            }
        }
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
