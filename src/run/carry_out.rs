//! A plan carried out: what asks, locks, opens the journal and the reports, hears signals, and says how it ended.

use super::deploy::How;
use super::locks::{Locks, Taking};
use super::notify::Listeners;
use super::world::{World, environment};
use crate::build::docker::Docker;
use crate::build::{BuildError, Builder as _};
use crate::changes::{Ancestry, standing};
use crate::cli::{self, Format, Global, Stale};
use crate::config::values::Span;
use crate::deploy::{self, Ended, Limit, Ports, Signal};
use crate::error::{Error, Kind, Result};
use crate::event::{EventKind, Events, FORMAT_VERSION, TargetOutcome};
use crate::hooks::process::Processes;
use crate::journal::Journal;
use crate::lock::lease::Place;
use crate::lock::{self, Holder};
use crate::names::{CommitId, RackName, Target};
use crate::plan::{self, Origin, Plan, Until, show};
use crate::rack::Rack;
use crate::registry::Registry;
use crate::report::plain::Verbosity;
use crate::report::state::RunState;
use crate::report::text::{clean, clip};
use crate::report::{self, Sink};
use futures_util::future::LocalBoxFuture;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use time::OffsetDateTime;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// Asks before a protected rack is touched; without a terminal, `--yes` has to say it.
pub(super) fn confirm(world: &World, plan: &Plan, guards: &cli::Guards) -> Result<()> {
    let changed = plan.changed().map(|target| &target.target.rack).collect();
    let protected = world.racks().into_iter().filter(|rack| rack.protected).map(|rack| &rack.name).collect();
    let subject = |commit: &CommitId| world.history.commit(commit).ok().map(|commit| commit.subject);
    let columns = report::width(std::io::stderr(), |name| std::env::var(name).ok());
    let brief = show::brief(plan, &protected, &subject);
    let shown: String = brief.lines().map(|line| format!("{}\n", clip(&clean(line), columns))).collect();
    confirm_racks(world, &changed, &shown, "release to", guards.yes)
}

/// The same for what is `shown`; `doing` is what the question asks about.
pub(super) fn confirm_racks(world: &World, changed: &BTreeSet<&RackName>, shown: &str, doing: &str, yes: bool) -> Result<()> {
    let protected: Vec<String> = world
        .racks()
        .into_iter()
        .filter(|rack| rack.protected && changed.contains(&rack.name))
        .map(|rack| format!("`{}`", rack.name))
        .collect();
    if protected.is_empty() || yes {
        return Ok(());
    }
    let racks = protected.join(", ");
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(Error::refused(format!("rack {racks} is protected")).hint("deploy to it with --yes"));
    }
    let mut stderr = std::io::stderr();
    let asked = write!(stderr, "{}\n{doing} protected rack {racks}? [y/N] ", super::tell::safe(shown)).and_then(|()| stderr.flush());
    let mut answer = String::new();
    let answered = asked.and_then(|()| std::io::stdin().read_line(&mut answer));
    match (answered, answer.trim()) {
        (Ok(_), "y" | "Y" | "yes") => Ok(()),
        _ => Err(Error::refused(format!("rack {racks} is protected, and the answer was not yes"))),
    }
}

/// A plan and what it was made with.
pub(super) struct Planned {
    pub(super) world: World,
    pub(super) plan: Arc<Plan>,
    pub(super) racks: BTreeMap<RackName, Arc<dyn Rack>>,
    pub(super) registries: Arc<crate::registry::registries::Registries>,
}

/// Reads and plans once more.
pub(super) type Again<'a> = dyn Fn() -> LocalBoxFuture<'a, Result<Planned>> + 'a;

/// Carries a plan out. When another run has to be waited for, it is made anew with `again`; without that, what moved meanwhile is
/// found by the guards alone.
pub(super) async fn carry_out(
    global: &Global,
    planned: &mut Planned,
    how: &How,
    guards: Option<&cli::Guards>,
    began: Instant,
    again: Option<&Again<'_>>,
) -> Result<u8> {
    let mut builder = engine(planned).await?;
    // From here on a signal is heard: whoever waits for a lock gives back what it has.
    let mut signals = signals()?;
    let mut locks = Locks::none();
    let taken = tokio::select! {
        taken = take_locks(&mut locks, planned, guards, how, again) => taken,
        Some(signal) = signals.recv() => Err(interrupted(signal, "before anything was begun")),
    };
    let taken = match taken {
        Ok(true) => engine(planned).await.map(|of_new_plan| builder = of_new_plan),
        taken => taken.map(drop),
    };
    let ports = Ports {
        builder: Arc::new(builder),
        registry: Arc::clone(&planned.registries) as Arc<dyn Registry>,
        racks: planned.racks.clone(),
        hooks: Arc::new(Processes::default()),
        may_promote: locks.question(),
        stands: stands(&planned.world),
    };
    let ended = match taken {
        Ok(()) => locked(global, &planned.world, &planned.plan, ports, how, guards, signals, began).await,
        Err(error) => Err(error),
    };
    locks.give_back().await;
    ended
}

/// The engine, which answers when there is something to build.
async fn engine(planned: &Planned) -> Result<Docker> {
    let Planned { world, plan, registries, .. } = planned;
    let env = environment();
    let home = super::world::home(&env);
    let builder = Docker::connect(env, home.as_deref(), Arc::clone(registries) as Arc<dyn Registry>).map_err(engine_error)?;
    let builder = builder.naming_from(world.history.root()).answering_within(world.config.limits.answer * 5);
    if !plan.builds.is_empty() {
        builder.probe().await.map_err(engine_error)?;
    }
    Ok(builder)
}

/// The run proper, while its locks are held.
async fn locked(
    global: &Global,
    world: &World,
    plan: &Arc<Plan>,
    ports: Ports,
    how: &How,
    guards: Option<&cli::Guards>,
    signals: UnboundedReceiver<Signal>,
    began: Instant,
) -> Result<u8> {
    let root = world.history.root();
    let unmasked = world.mask_secrets(&ports.racks, plan);
    // Before the journal: a file that cannot be written must not leave the journal of a run that never was.
    let mut sinks = sinks(global, world, how)?;
    let journal = Journal::create(root, &plan.run)?;
    let written = journal.path().to_owned();
    let (events, receiver) = Events::new(world.redactor.clone());
    let acks = events.acks();
    let (listeners, told) = Listeners::of(world, &events);
    sinks.extend(told);
    let shown = tokio::spawn(report::drive(receiver, Some((journal, acks)), sinks));
    tell_plan(plan, how, guards, &listeners.unheard, &events).await;
    unmasked.into_iter().for_each(|message| events.send(EventKind::Notice { step: None, message }));
    #[cfg(feature = "otlp")]
    let exporter = super::otlp::Exporter::of(world, &events);
    let limit = world.config.limits.run.map(|whole| Limit { whole, left: whole.saturating_sub(began.elapsed()) });
    let ended = deploy::run(Arc::clone(plan), ports, &events, signals, limit).await;
    let code = exit_code(plan, &ended, guards);
    events.record(EventKind::RunFinished { code, millis: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX) }).await;
    drop(events);
    let state = shown.await.unwrap_or_default();
    if let Err(error) = report_files(&state, &written, how) {
        // What was deployed is deployed, whatever became of the report.
        super::tell(format!("warning: {error}"));
    }
    #[cfg(feature = "otlp")]
    if let Some(exporter) = exporter {
        exporter.send(&state).await;
    }
    listeners.end().await;
    Ok(code)
}

/// How HEAD stands to a live commit. What cannot be read is not known.
fn stands(world: &World) -> Arc<dyn Fn(&CommitId, Option<OffsetDateTime>) -> Ancestry + Send + Sync> {
    let (history, head) = (Arc::clone(&world.history), world.head.commit.id.clone());
    Arc::new(move |live, committed| standing(&*history, &head, live, committed).unwrap_or(Ancestry::Unknown))
}

/// Takes the locks of everything the plan changes. `true` when somebody was in the way and there is another plan now: what was live
/// when the first one was made need not be live any more.
async fn take_locks(
    locks: &mut Locks,
    planned: &mut Planned,
    guards: Option<&cli::Guards>,
    how: &How,
    again: Option<&Again<'_>>,
) -> Result<bool> {
    // Images alone are named by their content: builds need no lock.
    let Some(guards) = guards else { return Ok(false) };
    let until = tokio::time::Instant::now() + how.lock_wait;
    let mut anew = false;
    loop {
        let Planned { world, plan, racks, .. } = &*planned;
        let place = |planned: &plan::TargetPlan| {
            let rack = Arc::clone(racks.get(&planned.target.rack)?);
            Some(Place { target: planned.target.clone(), app: planned.config.name.clone(), rack })
        };
        let taking = Taking {
            holder: Holder::this(plan.run.clone(), plan.ci_url.clone()),
            places: plan.changed().filter_map(place).collect(),
            wait: until.saturating_duration_since(tokio::time::Instant::now()),
            // Who goes back by hand has seen what is wrong.
            over_freezes: how.command == "rollback",
        };
        let in_the_way = locks.take(world, taking).await?;
        let Some(again) = again.filter(|_| in_the_way) else { return Ok(anew) };
        super::tell("another run was in the way: what is live is read again, and the plan is made anew");
        let next = again().await?;
        if next.world.head.commit.id != world.head.commit.id {
            let (was, is) = (world.head.commit.id.short(), next.world.head.commit.id.short());
            let error = Error::refused(format!("{is} was checked out while another run was waited for, and this run was of {was}"));
            return Err(error.hint("deploy what is checked out: offbuild deploy"));
        }
        let held: BTreeSet<&Target> = plan.changed().map(|planned| &planned.target).collect();
        let covered = next.plan.changed().all(|planned| held.contains(&planned.target));
        if !covered {
            confirm(&next.world, &next.plan, guards)?;
        }
        *planned = next;
        anew = true;
        if covered {
            return Ok(anew);
        }
        // The locks of both plans, in the order everybody takes them in.
        locks.give_back().await;
    }
}

/// The error of who was stopped where there is no run that would tell it.
pub(super) fn interrupted(signal: Signal, when: &str) -> Error {
    let kind = if signal == Signal::Int { Kind::Interrupted } else { Kind::Terminated };
    Error::new(kind, format!("interrupted {when}"))
}

/// `0`, or a length of time as the configuration writes it.
pub(super) fn lock_wait(text: &str) -> Result<Duration> {
    let wait = if matches!(text, "0" | "0s") { Some(Duration::ZERO) } else { Span(text.to_owned()).duration() };
    wait.ok_or_else(|| Error::config(format!("`--lock-wait {text}` is no length of time")).hint("write it as `90s`, `15m` or `1h`"))
}

/// The guards that flags switch off, as the journal and people are told.
fn overridden(guards: &cli::Guards) -> Option<String> {
    let flags = [
        (guards.allow_older, "--allow-older".to_owned()),
        (guards.allow_diverged, "--allow-diverged".to_owned()),
        (guards.allow_dirty, "--allow-dirty".to_owned()),
        (guards.stale == Stale::Ok, "--stale ok".to_owned()),
    ];
    let flags = flags.into_iter().filter_map(|(given, flag)| given.then_some(flag));
    let holds = guards.release_hold.iter().map(|app| format!("--release-hold {app}"));
    let given: Vec<String> = flags.chain(holds).map(|flag| format!("`{flag}`")).collect();
    (!given.is_empty()).then(|| format!("guards are switched off by {}", given.join(", ")))
}

async fn tell_plan(plan: &Plan, how: &How, guards: Option<&cli::Guards>, unheard: &[String], events: &Events) {
    events
        .record(EventKind::RunStarted {
            version: FORMAT_VERSION,
            run: plan.run.clone(),
            by: lock::this_user(),
            command: how.command.to_owned(),
            commit: plan.head.commit.id.clone(),
            subject: plan.head.commit.subject.clone(),
            branch: plan.head.branch.clone(),
            ci_url: plan.ci_url.clone(),
        })
        .await;
    let notes = plan.notes.iter().chain(unheard).cloned();
    for message in guards.and_then(overridden).into_iter().chain(notes).chain(plan.removed.iter().map(ToString::to_string)) {
        events.send(EventKind::Notice { step: None, message });
    }
    for target in plan.targets() {
        events.send(EventKind::TargetPlanned {
            target: target.target.clone(),
            verdict: target.decision.word().to_owned(),
            reasons: target.reasons.clone(),
            base: target.base.clone(),
            base_source: target.base_source.clone(),
            live_release: target.live.as_ref().map(|live| live.release.clone()),
            trap: target.trap.as_ref().map(|trap| trap.release.clone()),
        });
        if let Origin::Adopt(adopted) = &target.origin {
            events.send(EventKind::ReleaseAdopted {
                target: target.target.clone(),
                build: adopted.build.clone(),
                release: adopted.release.clone(),
                from: adopted.from.clone(),
                done: adopted.done.iter().copied().collect(),
                again: adopted.again.iter().copied().collect(),
            });
        }
    }
    for app in plan.apps.values() {
        for image in &app.images {
            events.send(EventKind::ImagePlanned {
                app: app.name.clone(),
                service: image.service.clone(),
                fingerprint: app.fingerprint.clone(),
                action: image.action.word().to_owned(),
                reference: image.reference(),
            });
        }
    }
    events.record(EventKind::PlanReady { builds: plan.builds.len(), targets: plan.releases().count(), jobs: plan.options.jobs }).await;
}

/// What shows the run: what the environment asks for, and what flags do.
fn sinks(global: &Global, world: &World, how: &How) -> Result<Vec<Box<dyn Sink>>> {
    let verbosity = match (global.quiet || world.config.seed.silent, global.verbose) {
        (true, _) => Verbosity::Quiet,
        (_, true) => Verbosity::Verbose,
        _ => Verbosity::Normal,
    };
    let mut sinks = report::for_people(verbosity, |name| (world.env)(name));
    let create = |flag: &str, path: &Path| {
        let unwritten = |error| Error::config(format!("`{flag} {}` cannot be written", path.display())).because(error);
        std::fs::File::create(path).map_err(|error| unwritten(error).hint("name a file in a directory that is there and may be written"))
    };
    let cli::Output { html, summary, junit, trace, .. } = &how.output;
    for (flag, path) in [("--html", html), ("--summary", summary), ("--junit", junit), ("--trace", trace)] {
        // Made when the run is over; that it cannot be is better known before.
        path.as_ref().map(|path| create(flag, path)).transpose()?;
    }
    if let Some(path) = &how.output.events {
        let file = create("--events", path)?;
        sinks.push(Box::new(report::json::EventLines::new(std::io::BufWriter::new(file))));
    }
    Ok(sinks)
}

/// What is written when the run is over.
fn report_files(state: &RunState, journal: &Path, how: &How) -> Result<()> {
    let write = |flag: &str, path: &Path, text: String| {
        std::fs::write(path, text).map_err(|error| Error::failed(format!("`{flag} {}` cannot be written", path.display())).because(error))
    };
    if let Some(path) = &how.output.html {
        write("--html", path, report::html::render(&Journal::read(journal)?))?;
    }
    if let Some(path) = &how.output.summary {
        write("--summary", path, report::github::markdown(state))?;
    }
    if let Some(path) = &how.output.junit {
        write("--junit", path, report::junit::render(state))?;
    }
    if let Some(path) = &how.output.trace {
        write("--trace", path, report::trace::render(state))?;
    }
    if how.output.format == Format::Json {
        let mut text = Vec::new();
        report::json::Report::of(state).write(&mut text).map_err(|error| Error::failed("the report cannot be made").because(error))?;
        super::print_data(&String::from_utf8_lossy(&text))?;
    }
    Ok(())
}

pub(super) fn engine_error(error: BuildError) -> Error {
    match error {
        BuildError::Engine { message, hint: Some(hint) } => Error::unusable(message).hint(hint),
        error => Error::unusable(error.to_string()).hint("start the Docker Engine, or point DOCKER_HOST at one"),
    }
}

/// INT and TERM as they come.
pub(super) fn signals() -> Result<UnboundedReceiver<Signal>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (sender, receiver) = unbounded_channel();
    for (kind, told) in [(SignalKind::interrupt(), Signal::Int), (SignalKind::terminate(), Signal::Term)] {
        let mut stream = signal(kind).map_err(|error| Error::unusable("signals cannot be received").because(error))?;
        let sender = sender.clone();
        tokio::spawn(async move { while stream.recv().await.is_some() && sender.send(told).is_ok() {} });
    }
    Ok(receiver)
}

/// One code for the whole run, the worst first.
fn exit_code(plan: &plan::Plan, ended: &Ended, guards: Option<&cli::Guards>) -> u8 {
    match ended.signal {
        Some(Signal::Int) => return Kind::Interrupted.exit_code(),
        Some(Signal::Term) => return Kind::Terminated.exit_code(),
        None => {}
    }
    if plan.options.until == Until::Push {
        return if ended.failed_apps.is_empty() { 0 } else { Kind::Failed.exit_code() };
    }
    let stale_is_fine = guards.is_none_or(|guards| guards.stale == Stale::Ok);
    let mut code = if ended.unhealed { Kind::Failed.exit_code() } else { 0 };
    for outcome in ended.targets.values() {
        match outcome {
            TargetOutcome::Deployed { .. } | TargetOutcome::Staged { .. } | TargetOutcome::UpToDate | TargetOutcome::Held { .. } => {}
            TargetOutcome::Stale { .. } if stale_is_fine => {}
            TargetOutcome::Stale { .. } if code == 0 => code = Kind::Refused.exit_code(),
            TargetOutcome::Stale { .. } => {}
            TargetOutcome::Failed { .. }
            | TargetOutcome::RolledBack { .. }
            | TargetOutcome::Blocked { .. }
            | TargetOutcome::Cancelled
            | TargetOutcome::NotAttempted { .. } => code = Kind::Failed.exit_code(),
        }
    }
    code
}
