//! Reads everything a plan is made of: manifests and hooks from the work tree, history from git, what is live from the racks,
//! what is there from the registries. Changes nothing.

use super::world::{Env, World, rack_error, target};
use crate::changes::affected::{Affected, Matcher};
use crate::changes::base::{self, Choice};
use crate::changes::description::{Recorded, describe};
use crate::changes::fingerprint::Fingerprints;
use crate::changes::inputs::{Inputs, Shared, inputs_of};
use crate::changes::reads::reads_of;
use crate::changes::survey::{Asked, Compared, Survey, strict_base};
use crate::changes::verdict::{self, Reason, Refusal, Verdict, Wishes};
use crate::changes::{Change, History};
use crate::config::{App, HookConfig, HookKind, TargetConfig, Unowned};
use crate::error::{Error, Kind, Result};
use crate::event::FailureClass;
use crate::files;
use crate::manifest::{self, Manifest, Reading, image_tags};
use crate::names::{AppName, CommitId, Fingerprint, RackName, ReleaseId, RepoPath, RunId, Target};
use crate::plan::adopt::Candidate;
use crate::plan::planner::{AppFacts, Existing, Facts, RackFacts, TargetFacts};
use crate::plan::{Decision, PlannedLive, Trap};
use crate::rack::{Live, Rack, RackError};
use crate::yaml::{Problem, excerpt};
use futures_util::stream::{self, StreamExt as _};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Reads of racks and registries under way at once.
pub(super) const AT_ONCE: usize = 16;

/// What was asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Ask {
    pub(super) all: bool,
    pub(super) base: crate::cli::Base,
    pub(super) allow_dirty: bool,
    pub(super) allow_diverged: bool,
    pub(super) allow_older: bool,
    /// Only commits count: the work tree is not searched for what is not committed.
    pub(super) committed: bool,
    /// Only verdicts are asked for: no fingerprints, for which every input of a changed app is listed.
    pub(super) verdicts_only: bool,
    pub(super) release_hold: Vec<String>,
    /// Targets whose release is live and whose last steps are missing: they are gone through although nothing changed.
    pub(super) unfinished: BTreeSet<Target>,
    /// Targets whose release is live and complete, whatever else is asked for.
    pub(super) over: BTreeSet<Target>,
}

/// An app as the work tree has it.
pub(super) struct Found {
    pub(super) app: App,
    pub(super) manifest: Option<Arc<Manifest>>,
    pub(super) hooks: BTreeMap<HookKind, HookConfig>,
}

/// A target with its verdict.
pub(super) struct Judged {
    pub(super) target: Target,
    pub(super) config: TargetConfig,
    pub(super) live: Option<Result<Live, RackError>>,
    pub(super) decision: verdict::Decision,
}

/// What became of all targets, and what it was judged by.
pub(super) struct Judgement {
    pub(super) targets: Vec<Judged>,
    pub(super) notes: Vec<String>,
    pub(super) fingerprints: BTreeMap<AppName, Fingerprint>,
    pub(super) dirty: BTreeMap<AppName, String>,
    pub(super) dirty_paths: Affected,
    /// What was compared, by base.
    pub(super) compared: BTreeMap<CommitId, Arc<Compared>>,
}

/// What is live for every selected target.
pub(super) type AllLive = BTreeMap<Target, Result<Live, RackError>>;

/// Reads manifest and hooks of every app. What is wrong with a selected one is an error, all of it at once.
pub(super) fn apps(world: &World) -> Result<Vec<Found>> {
    let selected: BTreeSet<&AppName> = world.apps().map(|app| &app.name).collect();
    let read = apps_and_problems(world);
    let mut problems = Vec::new();
    let mut found = Vec::new();
    for (app, wrong) in read {
        if selected.contains(&app.app.name) {
            problems.extend(wrong);
        }
        found.push(app);
    }
    if problems.is_empty() { Ok(found) } else { Err(problem_error(world, problems)) }
}

/// Reads manifest and hooks of every app, with what is wrong with each.
pub(super) fn apps_and_problems(world: &World) -> Vec<(Found, Vec<Problem>)> {
    world.config.apps.par_iter().map(|app| read_app(world, app)).collect()
}

/// The inputs of every app.
pub(super) fn inputs(world: &World, found: &[Found]) -> Result<Vec<Inputs>> {
    let links = |path: &RepoPath| world.files.through_links(path);
    let shared = Shared::of(&world.config, &links)?;
    let inputs = |found: &Found| {
        let reads = found.manifest.as_deref().map(|manifest| reads_of(manifest, &*world.files)).unwrap_or_default();
        inputs_of(&found.app, &shared, found.manifest.as_deref(), &reads, &links)
    };
    found.par_iter().map(inputs).collect()
}

fn read_app(world: &World, app: &App) -> (Found, Vec<Problem>) {
    let root = world.history.root();
    let mut problems = Vec::new();
    let mut hooks = BTreeMap::new();
    for (kind, hook) in &app.hooks {
        match usable_hook(world, app, *kind, hook) {
            Ok(true) => drop(hooks.insert(*kind, hook.clone())),
            Ok(false) => {}
            Err(problem) => problems.push(problem),
        }
    }
    let read = |path: &RepoPath| match world.files.text(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    let reading = Reading {
        root,
        app: &app.name,
        dir: &app.dir,
        manifest: &app.manifest,
        generation: app.generation,
        compose: app.compose.as_deref(),
        read: &read,
        env: &*world.env,
        build: &app.build,
    };
    let manifest = match manifest::read(&reading) {
        Ok(manifest) => Some(Arc::new(manifest)),
        Err(mut wrong) => {
            problems.append(&mut wrong);
            None
        }
    };
    (Found { app: app.clone(), manifest, hooks }, problems)
}

/// True when the app has the hook; an error when it cannot run.
fn usable_hook(world: &World, app: &App, kind: HookKind, hook: &HookConfig) -> Result<bool, Problem> {
    let HookConfig::File { path, named } = hook else { return Ok(true) };
    let problem = |message: String, help: String| Problem { place: app.place.clone(), message, help: Some(help) };
    let Some(relative) = app.dir.join(path) else {
        let message = format!("hook `{}` of app `{}` is outside the repository: `{path}`", kind.name(), app.name);
        return Err(problem(message, "name a file of the app's directory".to_owned()));
    };
    let unreadable = |why: &str| {
        let message = format!("hook `{}` of app `{}` cannot be read: `{relative}`: {why}", kind.name(), app.name);
        Err(problem(message, "correct `hooks:`, or add the file".to_owned()))
    };
    match world.files.kind(&relative) {
        Ok(None) | Err(_) if !named => Ok(false),
        Ok(None) => unreadable("it is not there"),
        Err(error) => unreadable(&error.to_string()),
        Ok(Some(files::Kind::Dir | files::Kind::File { executable: false })) => {
            let message = format!("hook `{}` of app `{}` is not executable: `{relative}`", kind.name(), app.name);
            Err(problem(message, format!("chmod +x {relative} && git add --chmod=+x {relative}")))
        }
        Ok(Some(_)) => Ok(true),
    }
}

/// That every selected app's images have a place to go. What is wrong is an error, all of it at once.
pub(super) fn image_places(world: &World, found: &[Found]) -> Result<()> {
    let selected: BTreeSet<&AppName> = world.apps().map(|app| &app.name).collect();
    let mut problems = Vec::new();
    for found in found.iter().filter(|found| selected.contains(&found.app.name)) {
        let app = &found.app;
        let services = found.manifest.iter().flat_map(|manifest| &manifest.services);
        for service in services.filter(|service| service.build.is_some()) {
            let (image, repository) = (service.image.as_ref(), app.repository.as_deref());
            if let Err(error) = image_tags(&service.name, image, repository, &app.name, world.head.commit.id.as_str()) {
                problems.push(Problem { place: service.place.clone(), message: error.one_line(), help: error.hint });
            }
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problem_error(world, problems)) }
}

/// What is wrong with the selected apps: their manifests, and their hooks.
pub(super) fn problems(world: &World) -> (Option<Error>, Option<Error>) {
    let (mut manifests, mut hooks) = (Vec::new(), Vec::new());
    for app in world.apps() {
        let wrong = app.hooks.iter().filter_map(|(kind, hook)| usable_hook(world, app, *kind, hook).err());
        let wrong: Vec<Problem> = wrong.collect();
        manifests.extend(read_app(world, app).1.into_iter().filter(|problem| !wrong.contains(problem)));
        hooks.extend(wrong);
    }
    let error = |problems: Vec<Problem>| (!problems.is_empty()).then(|| problem_error(world, problems));
    (error(manifests), error(hooks))
}

/// All problems as one error, each with its line.
fn problem_error(world: &World, mut problems: Vec<Problem>) -> Error {
    problems.sort_by(|a, b| a.place.cmp(&b.place));
    problems.dedup();
    let text = |file: &str| std::fs::read_to_string(world.history.root().join(file)).unwrap_or_default();
    let lines: Vec<String> = problems.iter().map(|problem| excerpt(problem, &text(&problem.place.file))).collect();
    let count = if problems.len() == 1 { "1 problem".to_owned() } else { format!("{} problems", problems.len()) };
    Error::config(format!("{}\n{count}", lines.join("\n")))
}

/// Asks the racks what is live for every selected target, all at once. A rack that cannot be used answers for all its targets.
pub(super) async fn live(world: &World, racks: &BTreeMap<RackName, Arc<dyn Rack>>) -> AllLive {
    let asked = world.targets().filter_map(|(app, on)| Some((target(app, on), on.name.clone(), Arc::clone(racks.get(&on.rack)?))));
    let infos: BTreeMap<RackName, Result<(), RackError>> = stream::iter(racks.clone())
        .map(|(name, rack)| async move { (name, rack.info().await.map(drop)) })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    stream::iter(asked)
        .map(|(target, name, rack)| {
            let usable = infos.get(&target.rack).cloned().unwrap_or(Ok(()));
            async move {
                let live = match usable {
                    Ok(()) => rack.live(&name).await,
                    Err(error) => Err(error),
                };
                (target, live)
            }
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await
}

/// The first rack error when no rack at all could be asked.
pub(super) fn no_rack(live: &AllLive) -> Option<Error> {
    let unusable = |error: &RackError| !matches!(error, RackError::NoApp { .. });
    let mut errors = live.values().map(|live| live.as_ref().err().filter(|error| unusable(error)));
    let first = errors.next()??;
    errors.all(|error| error.is_some()).then(|| rack_error(first.clone()))
}

/// The base that flag, environment, CI or default branch name.
pub(super) fn chosen_base(history: &dyn History, head: &CommitId, env: &Env, flag: Option<&str>) -> Result<Choice> {
    let environment: base::Environment =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect();
    let event = env("GITHUB_EVENT_PATH").and_then(|path| std::fs::read_to_string(path).ok());
    let sources = base::sources(flag, &environment, event.as_deref());
    base::choose(history, head, &sources)
}

/// Judges every selected target. `live` is `None` when the racks are not asked.
pub(super) fn judge(world: &World, found: &[Found], live: Option<&AllLive>, ask: &Ask, given: Option<Choice>) -> Result<Judgement> {
    let history: &dyn History = &*world.history;
    let head = &world.head.commit.id;
    let dirty = if ask.committed { Vec::new() } else { history.dirty()? };
    let inputs = inputs(world, found)?;
    let matcher = Matcher::new(&inputs);
    let mut fingerprints = Fingerprints::new(history, head, &dirty);
    if world.config.unowned == Unowned::All {
        fingerprints = fingerprints.with_unowned(&matcher);
    }
    let file = world.config.file.clone();
    let digests = file.map(|file| {
        let config = Arc::clone(&world.config);
        let digests: crate::changes::survey::Digests<'_> = Box::new(move |commit| {
            let text = history.read(commit, &file).ok()??;
            crate::config::digests(&config, std::str::from_utf8(&text).ok()?).ok()
        });
        digests
    });
    let survey = Survey {
        history,
        head,
        dirty: &dirty,
        matcher: &matcher,
        fingerprints: &fingerprints,
        unowned: world.config.unowned,
        given,
        digests,
        left: Some(super::compare::left(world)),
        known: Default::default(),
    };
    let inputs_by: BTreeMap<&AppName, &Inputs> = inputs.iter().map(|inputs| (&inputs.app, inputs)).collect();
    let asked: Vec<(&App, &TargetConfig)> = world.targets().collect();
    let targets: Vec<Judged> = asked
        .par_iter()
        .map(|(app, on)| {
            let target = target(app, on);
            let live = live.and_then(|live| live.get(&target));
            let replaced = live.and_then(|live| live.as_ref().ok()).and_then(|live| live.replaced.as_ref());
            let facts =
                survey.facts(Asked { target: &target, inputs: inputs_by[&app.name], app_digest: &app.digest, live, topped: replaced })?;
            let wishes = Wishes {
                all: ask.all,
                allow_diverged: ask.allow_diverged,
                allow_older: ask.allow_older,
                allow_dirty: ask.allow_dirty,
                release_hold: !on.hold || ask.release_hold.iter().any(|name| *name == app.name.as_str() || *name == target.to_string()),
            };
            let mut decision = verdict::decide(&facts, wishes);
            if decision.verdict == Verdict::UpToDate && ask.unfinished.contains(&target) {
                decision.verdict = Verdict::Deploy;
            } else if ask.over.contains(&target) {
                decision.verdict = Verdict::UpToDate;
            }
            Ok(Judged { target, config: (*on).clone(), live: live.cloned(), decision })
        })
        .collect::<Result<_>>()?;
    let unreachable = targets.iter().find_map(|target| target.decision.unreachable_base());
    if let Some(reason) = unreachable.filter(|_| ask.base.strict_base) {
        return Err(strict_base(reason));
    }
    let deployed: BTreeSet<&AppName> =
        targets.iter().filter(|judged| judged.decision.verdict == Verdict::Deploy).map(|judged| &judged.target.app).collect();
    let uncommitted = survey.uncommitted()?;
    let prints: Vec<(AppName, Fingerprint, Option<String>)> = found
        .par_iter()
        .filter(|found| !ask.verdicts_only && deployed.contains(&found.app.name))
        .map(|found| {
            let inputs = inputs_by[&found.app.name];
            let fingerprint = fingerprints.of(inputs, &found.app.digest)?;
            // An image does not depend on the rack: a rack that is new here makes none dirty.
            let otherwise = |on: &TargetConfig| uncommitted.configures_otherwise(&target(&found.app, on), &found.app.digest);
            let configuration = world.config.file.as_ref().filter(|_| found.app.targets.iter().all(otherwise));
            Ok((found.app.name.clone(), fingerprint, fingerprints.dirty_hash(inputs, configuration)?))
        })
        .collect::<Result<_>>()?;
    let mut notes: BTreeSet<String> = targets.iter().flat_map(|judged| judged.decision.notes.iter().cloned()).collect();
    notes.extend(warnings(found, &deployed));
    let dirty_paths = uncommitted.affected.clone();
    notes.extend(unowned(&dirty_paths.unowned, world.config.unowned));
    Ok(Judgement {
        notes: notes.into_iter().collect(),
        fingerprints: prints.iter().map(|(app, fingerprint, _)| (app.clone(), fingerprint.clone())).collect(),
        dirty: prints.into_iter().filter_map(|(app, _, dirty)| Some((app, dirty?))).collect(),
        dirty_paths,
        compared: survey.known.all(),
        targets,
    })
}

/// Tells of what is left out; where it is everybody's, it is among the reasons.
pub(super) fn unowned(changes: &[Change], policy: Unowned) -> Option<String> {
    let first = changes.first().filter(|_| policy != Unowned::All)?;
    let more = if changes.len() > 1 { format!(" and {} more", changes.len() - 1) } else { String::new() };
    Some(format!("uncommitted, and no app's input: `{}`{more}", first.path))
}

fn warnings(found: &[Found], deployed: &BTreeSet<&AppName>) -> Vec<String> {
    found.iter().filter(|found| deployed.contains(&found.app.name)).flat_map(warnings_of).collect()
}

/// What an app's manifest warns of, a line each.
pub(super) fn warnings_of(found: &Found) -> impl Iterator<Item = String> {
    let warnings = found.manifest.iter().flat_map(|manifest| &manifest.warnings);
    warnings.map(|problem| format!("{}: {}", problem.place, problem.message))
}

/// Refuses what a guard refuses, all targets in one error.
pub(super) fn guard(judgement: &Judgement) -> Result<()> {
    let mut refused = Vec::new();
    for judged in &judgement.targets {
        let Verdict::Refused { why } = &judged.decision.verdict else { continue };
        if matches!(why, Refusal::NoApp { .. }) {
            continue;
        }
        refused.push(format!("`{}`: {why}", judged.target));
        if matches!(why, Refusal::Dirty { .. }) {
            let dirty = judged.decision.reasons.iter().filter_map(|reason| match reason {
                Reason::Path(reason) if reason.change.dirty => Some(&reason.change.path),
                _ => None,
            });
            let paths: BTreeSet<&RepoPath> = dirty.collect();
            refused.extend(paths.iter().take(3).map(|path| format!("    {path}")));
        }
    }
    if refused.is_empty() { Ok(()) } else { Err(Error::new(Kind::Refused, format!("nothing was deployed:\n  {}", refused.join("\n  ")))) }
}

/// The facts for a plan, without what the registries have.
///
/// `staged` are releases of an earlier run that may be taken over, `before` what was live before it made its own live.
pub(super) fn facts(
    world: &World,
    found: Vec<Found>,
    judgement: Judgement,
    run: RunId,
    mut staged: BTreeMap<Target, Candidate>,
    mut before: BTreeMap<Target, ReleaseId>,
) -> Result<Facts> {
    let ci_url = world.ci_url();
    let head = &world.head;
    let mut apps = Vec::new();
    for found in found {
        let Some(manifest) = found.manifest else { continue };
        let dirty = judgement.dirty.get(&found.app.name);
        apps.push(AppFacts {
            dir: found.app.dir.under(world.history.root()),
            fingerprint: judgement.fingerprints.get(&found.app.name).cloned(),
            revision: dirty.map_or_else(|| head.commit.id.to_string(), |dirty| format!("{}-dirty.{dirty}", head.commit.id)),
            hooks: found.hooks,
            manifest,
            app: found.app,
        });
    }
    let mut targets = Vec::new();
    for judged in judgement.targets {
        let Some(app) = apps.iter().find(|app| app.app.name == judged.target.app) else { continue };
        let Some(decision) = decision(&judged) else { continue };
        let dirty = judgement.dirty.contains_key(&judged.target.app);
        let description = app.fingerprint.clone().map(|fingerprint| {
            let recorded = Recorded::new(fingerprint, &app.app.digest, dirty).committed(head.commit.time);
            describe(&head.commit.subject, &recorded, &run, ci_url.as_deref())
        });
        let base_source = judged.decision.base_source.as_ref().map(ToString::to_string).unwrap_or_default();
        let live = judged.live.as_ref().and_then(|live| live.as_ref().ok());
        targets.push(TargetFacts {
            decision,
            reasons: reasons(&judged.decision),
            base: judged.decision.base.clone(),
            base_source,
            live: live.and_then(PlannedLive::of),
            trap: live.and_then(Trap::of),
            before: before.remove(&judged.target).or_else(|| live.and_then(|live| Some(live.release.as_ref()?.id.clone()))),
            description: description.unwrap_or_default(),
            staged: staged.remove(&judged.target),
            target: judged.target,
            config: judged.config,
        });
    }
    let racks = world.racks().into_iter();
    let racks = racks.map(|rack| RackFacts { rack: rack.name.clone(), after: rack.after.clone(), registry_cache: rack.registry_cache });
    Ok(Facts {
        run,
        head: head.clone(),
        apps,
        racks: racks.collect(),
        targets,
        existing: Existing::default(),
        removed: Vec::new(),
        notes: judgement.notes,
        ci_url,
    })
}

/// The reasons of a decision, a line each.
pub(super) fn reasons(decision: &verdict::Decision) -> Vec<String> {
    decision.reasons.iter().map(ToString::to_string).collect()
}

/// What the verdict means for a plan; `None` for an app that is gone.
fn decision(judged: &Judged) -> Option<Decision> {
    // Whatever the verdict: a rack that cannot be asked cannot be released to.
    if let Some(Err(error)) = &judged.live {
        let class = match error {
            RackError::Login { .. } => FailureClass::RackLogin,
            RackError::Unreachable { .. } | RackError::Timeout { .. } => FailureClass::RackUnreachable,
            _ => FailureClass::Rack,
        };
        return Some(Decision::Failed { class, message: error.to_string(), hint: error.hint() });
    }
    Some(match &judged.decision.verdict {
        Verdict::Deploy => Decision::Release,
        Verdict::UpToDate => Decision::UpToDate,
        Verdict::Held { from } => Decision::Held { from: from.clone() },
        Verdict::Stale { live } => Decision::Stale { live: live.clone() },
        Verdict::Refused { why } => Decision::Failed { class: FailureClass::Guard, message: why.to_string(), hint: None },
        Verdict::Removed => return None,
    })
}
