//! Carries out a plan: images in parallel, one serial lane per rack.
//!
//! One loop owns the run's state ([`schedule::Schedule`]): it starts what may start, hears how it ended, and takes the
//! signals. `images` is what is done once per app, `lanes` what is done per target; both speak to the ports only, and tell
//! what they do as events. What they start they record before doing it.

mod back;
pub mod groups;
mod guard;
pub mod heal;
pub mod hook_env;
pub mod images;
pub mod lanes;
mod pushes;
pub mod schedule;

use crate::build::Builder;
use crate::changes::Ancestry;
use crate::event::{EventKind, Events, FailureClass, Stage, Step, StepOutcome, TargetOutcome};
use crate::hooks::HookRunner;
use crate::names::{AppName, CommitId, RackName, ReleaseId, Target};
use crate::plan::{Plan, Until};
use crate::rack::Rack;
use crate::registry::Registry;
use futures_util::future::BoxFuture;
use schedule::{Failure, ImagesOutcome, Schedule, Work};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use time::OffsetDateTime;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Answers whether the run may still promote a target: its locks are held and nobody locked it by hand. The error says who keeps it
/// from it.
pub type MayPromote = Arc<dyn Fn(&Target) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// Everything that touches the outside.
#[derive(Clone)]
pub struct Ports {
    /// The engine.
    pub builder: Arc<dyn Builder>,
    /// The registries.
    pub registry: Arc<dyn Registry>,
    /// The racks, by name.
    pub racks: BTreeMap<RackName, Arc<dyn Rack>>,
    /// The hooks.
    pub hooks: Arc<dyn HookRunner>,
    /// Asked right before each promote.
    pub may_promote: MayPromote,
    /// How the run's commit stands to a live one, of which the time it was committed may be recorded. Blocks.
    pub stands: Arc<dyn Fn(&CommitId, Option<OffsetDateTime>) -> Ancestry + Send + Sync>,
}

/// A signal that asks the run to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT.
    Int,
    /// SIGTERM.
    Term,
}

/// The time a run may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// How long that is.
    pub whole: Duration,
    /// How much of it is left.
    pub left: Duration,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Each target's outcome.
    pub targets: BTreeMap<Target, TargetOutcome>,
    /// Apps whose images are not all in their repositories.
    pub failed_apps: Vec<AppName>,
    /// The signal that ended it, when one did.
    pub signal: Option<Signal>,
    /// True when something left behind could not be healed.
    pub unhealed: bool,
}

/// What every task of a run shares.
pub(crate) struct Context {
    pub(crate) plan: Arc<Plan>,
    pub(crate) ports: Ports,
    pub(crate) events: Events,
    pub(crate) cancel: CancellationToken,
    /// Fires with the first failure under `--fail-fast`, and with `cancel`.
    pub(crate) stop_builds: CancellationToken,
    pub(crate) builds: images::Builds,
    pub(crate) pushes: Arc<pushes::Pushes>,
    /// The limit of the run, once it is over.
    pub(crate) limit: OnceLock<Duration>,
}

enum Done {
    Images(AppName, ImagesOutcome),
    Target(Target, TargetOutcome, Option<ReleaseId>, u64),
    Back(Target, TargetOutcome, u64),
}

/// Carries out the plan and tells how each target ended. The first signal lets nothing new start, stops builds and hooks, and
/// awaits a promote under way; the second one drops everything. The end of the run's time does what the first signal does, and
/// is the failure of what it stopped.
pub async fn run(plan: Arc<Plan>, ports: Ports, events: &Events, mut signals: UnboundedReceiver<Signal>, limit: Option<Limit>) -> Ended {
    let out_of_time = tokio::time::sleep(limit.map_or(Duration::ZERO, |limit| limit.left));
    tokio::pin!(out_of_time);
    let cancel = CancellationToken::new();
    let context = Arc::new(Context {
        builds: images::Builds::new(&plan),
        pushes: Arc::default(),
        limit: OnceLock::new(),
        plan: Arc::clone(&plan),
        ports,
        events: events.clone(),
        stop_builds: cancel.child_token(),
        cancel: cancel.clone(),
    });
    let mut schedule = Schedule::new(&plan);
    let mut tasks: JoinSet<Done> = JoinSet::new();
    let mut signal = None;
    let mut signals_open = true;
    loop {
        for work in schedule.ready(&plan) {
            start(work, &context, &mut tasks).await;
        }
        if tasks.is_empty() {
            break;
        }
        tokio::select! {
            Some(done) = tasks.join_next() => match done {
                Ok(Done::Images(app, outcome)) => {
                    if schedule.images_ended(&app, outcome) {
                        context.stop_builds.cancel();
                    }
                }
                Ok(Done::Target(target, outcome, release, millis)) => {
                    if let Some(release) = release {
                        schedule.released(&target, release);
                    }
                    events.record(EventKind::TargetFinished { target: target.clone(), millis, outcome: outcome.clone() }).await;
                    if schedule.target_ended(&target, outcome) {
                        context.stop_builds.cancel();
                    }
                }
                Ok(Done::Back(target, outcome, millis)) => {
                    if schedule.went_back(&target, outcome.clone()) {
                        events.record(EventKind::TargetFinished { target, millis, outcome }).await;
                    }
                }
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Err(_) => {}
            },
            () = &mut out_of_time, if limit.is_some() && context.limit.get().is_none() => {
                let whole = limit.map_or(Duration::ZERO, |limit| limit.whole);
                let _ = context.limit.set(whole);
                let message = format!("the run has had its {}: nothing new starts, and a promote under way is awaited", span(whole));
                events.send(EventKind::Notice { step: None, message });
                cancel.cancel();
                schedule.out_of_time();
            }
            received = signals.recv(), if signals_open => match received {
                None => signals_open = false,
                Some(received) => {
                    let now = signal.is_some();
                    signal = Some(received);
                    events.record(interrupted(received, now)).await;
                    cancel.cancel();
                    schedule.interrupt();
                    if now {
                        tasks.shutdown().await;
                        break;
                    }
                }
            },
        }
    }
    let mut targets: BTreeMap<Target, TargetOutcome> =
        schedule.outcomes().map(|(target, outcome)| (target.clone(), outcome.clone())).collect();
    for target in plan.targets() {
        if !targets.contains_key(&target.target) {
            // Only a second signal leaves a target without an outcome.
            let outcome = schedule.cut_short(target);
            events.record(EventKind::TargetFinished { target: target.target.clone(), millis: 0, outcome: outcome.clone() }).await;
            targets.insert(target.target.clone(), outcome);
        }
    }
    let mut unhealed = false;
    if plan.options.heal && signal.is_none() {
        let healing = heal::all(&context, &targets);
        tokio::pin!(healing);
        unhealed = loop {
            tokio::select! {
                unhealed = &mut healing => break unhealed,
                received = signals.recv(), if signals_open => match received {
                    None => signals_open = false,
                    Some(received) => {
                        let now = signal.replace(received).is_some();
                        events.record(interrupted(received, now)).await;
                        cancel.cancel();
                        if now {
                            break true;
                        }
                    }
                },
            }
        };
    }
    Ended { targets, failed_apps: schedule.failed_apps().cloned().collect(), signal, unhealed }
}

fn interrupted(signal: Signal, now: bool) -> EventKind {
    let name = if signal == Signal::Int { "INT" } else { "TERM" };
    EventKind::Interrupted { signal: name.to_owned(), now }
}

async fn start(work: Work, context: &Arc<Context>, tasks: &mut JoinSet<Done>) {
    let context = Arc::clone(context);
    match work {
        Work::Images(app) => {
            tasks.spawn(async move {
                let outcome = images::make(&app, &context).await;
                Done::Images(app, outcome)
            });
        }
        Work::Release(target, images) => {
            tasks.spawn(async move {
                let began = Instant::now();
                let (outcome, release) = lanes::release(&target, &images, &context).await;
                Done::Target(target, outcome, release, millis(began))
            });
        }
        Work::GoBack(back) => {
            tasks.spawn(async move {
                let began = Instant::now();
                let outcome = back::go_back(&back, &context).await;
                Done::Back(back.target, outcome, millis(began))
            });
        }
        Work::Ended(target, outcome) => {
            // A build-only run has no lanes to tell about.
            if context.plan.options.until != Until::Push {
                context.events.record(EventKind::TargetFinished { target, millis: 0, outcome }).await;
            }
        }
    }
}

/// A limit as `apps.yaml` writes it.
fn span(limit: Duration) -> String {
    crate::config::values::Span::of(limit).0
}

pub(crate) fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// How a step ended that did not end well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It failed.
    Failed { class: FailureClass, message: String, hint: Option<String> },
    /// The rack went back.
    RolledBack(String),
    /// There is nothing left to do: what became live meanwhile is as new or newer.
    Ended(TargetOutcome),
    /// It was asked to stop.
    Cancelled,
}

impl Stop {
    pub(crate) fn failed(class: FailureClass, message: impl Into<String>) -> Self {
        Self::Failed { class, message: message.into(), hint: None }
    }

    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        match self {
            Self::Failed { class, message, .. } => Self::Failed { class, message, hint: Some(hint.into()) },
            other => other,
        }
    }
}

impl Context {
    /// A step that was stopped because the run has had its time is a failure that says so.
    pub(crate) fn why(&self, subject: &str, stage: Stage, stop: Stop) -> Stop {
        match (stop, self.limit.get()) {
            (Stop::Cancelled, Some(limit)) => {
                let message = format!("the run timed out after {}, waiting for {} of `{subject}`", span(*limit), stage.name());
                Stop::failed(FailureClass::RunTimeout, message).hint("give it more time with `timeouts: {run: …}` in apps.yaml")
            }
            (stop, _) => stop,
        }
    }

    /// Runs one step: its start is on record before `work` begins, its end before anything else does.
    pub(crate) async fn step<T, F>(&self, step: &Step, detail: impl Into<String>, work: F) -> Result<T, Stop>
    where
        F: Future<Output = Result<T, Stop>>,
    {
        self.events.record(EventKind::StepStarted { step: step.clone(), detail: detail.into() }).await;
        let began = Instant::now();
        let result = work.await.map_err(|stop| self.why(&step.subject(), step.stage, stop));
        let outcome = match &result {
            Ok(_) => StepOutcome::Done,
            Err(Stop::Failed { class, message, hint }) => {
                StepOutcome::Failed { class: *class, message: message.clone(), hint: hint.clone() }
            }
            Err(Stop::RolledBack(message)) => StepOutcome::RolledBack { message: message.clone() },
            // Neither done nor failed: the target's outcome says why.
            Err(Stop::Ended(_) | Stop::Cancelled) => StepOutcome::Cancelled,
        };
        self.events.record(EventKind::StepFinished { step: step.clone(), millis: millis(began), outcome }).await;
        result
    }
}

pub(crate) fn failure(stage: Stage, stop: Stop) -> Option<Failure> {
    match stop {
        Stop::Failed { class, message, hint } => Some(Failure { stage, class, message, hint }),
        Stop::RolledBack(message) => Some(Failure { stage, class: FailureClass::Promote, message, hint: None }),
        Stop::Ended(_) | Stop::Cancelled => None,
    }
}

#[cfg(test)]
mod tests;
