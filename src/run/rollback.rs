//! `offbuild rollback app@rack`: an older release, live again.
//!
//! Racks refuse to promote a release that is older than the active one, so a copy of it is made and promoted, in a run like any
//! other: lock, journal, guards, and the same wait. No hooks run: those of the work tree belong to another commit than the one
//! that comes back. The next deploy leaves the target alone (`held`) until its inputs change.

use super::carry_out::{Planned, carry_out, confirm, lock_wait};
use super::deploy::{From, How};
use super::world::{World, rack_error, target as target_of};
use crate::cli::{self, Global, Selection};
use crate::config::{App, TargetConfig};
use crate::error::{Error, Result};
use crate::event::TargetOutcome;
use crate::manifest::Manifest;
use crate::names::{AppName, Fingerprint, RackName, ReleaseId, RepoPath, RunId, Target};
use crate::plan::{AppPlan, Decision, Gate, LanePlan, OnFailure, Options, Origin, Plan, TargetPlan, Until};
use crate::rack::{Live, LiveRelease, Rack};
use crate::report::state::RunState;
use crate::yaml::Document;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;
use time::OffsetDateTime;

/// Rolls a target back.
pub(super) async fn rollback(global: &Global, args: cli::Rollback) -> Result<u8> {
    let began = Instant::now();
    let wrong = || Error::config(format!("`{}` is no target", args.target)).hint("write it as `app@rack`; `offbuild status` lists them");
    let (app, rack) = args.target.split_once('@').ok_or_else(wrong)?;
    let target = Target { app: AppName::new(app).map_err(|_| wrong())?, rack: RackName::new(rack).map_err(|_| wrong())? };
    let selection = Selection { apps: vec![target.app.to_string()], racks: vec![target.rack.to_string()] };
    let mut world = World::open(global, &selection)?;
    world.keep(|one| *one == target);
    let (app, on) = world.targets().next().map(|(app, on)| (app.clone(), on.clone())).ok_or_else(wrong)?;
    let racks = world.rack_clients()?;
    let client = racks.get(&target.rack).ok_or_else(wrong)?;
    client.info().await.map_err(rack_error)?;
    let live = client.live(&on.name).await.map_err(rack_error)?;
    let releases = client.releases(&on.name).await.map_err(rack_error)?;
    let active = live
        .release
        .clone()
        .ok_or_else(|| Error::refused(format!("nothing is live on `{target}`, so there is nothing to go back from")))?;
    let (chosen, why) = match &args.to {
        Some(wanted) => (named(&target, client, &on.name, &releases, wanted).await?, "`--to`".to_owned()),
        None => {
            let runs = crate::report::history::read(world.history.root())?;
            let before = before(&runs, &target, &active.id);
            before_active(&target, &releases, &active, before)?
        }
    };
    if chosen.id == active.id {
        super::print(&format!("{target} runs {} already\n", active.id))?;
        return Ok(0);
    }
    let plan = Arc::new(plan(&world, &app, &on, &live, &chosen, &why)?);
    let guards = cli::Guards { yes: args.yes, lock_wait: args.lock_wait, ..cli::Guards::default() };
    confirm(&world, &plan, &guards)?;
    let how = How {
        lock_wait: lock_wait(&guards.lock_wait)?,
        command: "rollback",
        gate: Gate::All,
        on_failure: OnFailure::StopAll,
        until: Until::Promote,
        work: cli::Work { jobs: None, fail_fast: false },
        output: args.output,
        dry_run: false,
        offline: false,
        heal: false,
        from: From::Nothing,
    };
    let json = how.output.format == cli::Format::Json;
    let registries = world.registries();
    let rack = Arc::clone(client);
    let mut planned = Planned { world, plan, racks, registries };
    // Whoever goes back judged what was live then; what moved while another run was waited for is the guards' to find.
    let code = carry_out(global, &mut planned, &how, Some(&guards), began, None).await?;
    let world = planned.world;
    if !json {
        // Asked once more: what is live is the rack's to say, however the run ended.
        match rack.live(&on.name).await {
            Ok(now) => {
                let now = now.release.map_or_else(|| "nothing".to_owned(), |now| described(&world, &now));
                super::print(&format!("{target} runs {now}\n"))?;
            }
            // How it ended is known, and is what the exit code says.
            Err(error) => super::tell(format!("warning: what runs on `{target}` now cannot be read: {error}")),
        }
    }
    Ok(code)
}

/// The release that was active before the run that made `active` live.
fn before(runs: &[(RunId, RunState)], target: &Target, active: &ReleaseId) -> Option<(ReleaseId, RunId)> {
    let made = |state: &RunState| {
        let known = state.targets.get(target)?;
        let ours = match &known.outcome {
            Some(TargetOutcome::Deployed { release }) => Some(release),
            // A run that was killed after its promote did not say so.
            _ => known.staged.as_ref().map(|(_, release)| release),
        };
        // Going back twice goes back further, not forth again.
        let forward = state.run.as_ref().is_none_or(|run| run.command != "rollback");
        (forward && ours == Some(active)).then(|| known.live_release.clone()).flatten()
    };
    // A run that went on after a promote found its own release live: the earlier one knows what was before.
    runs.iter().find_map(|(run, state)| made(state).filter(|before| before != active).map(|before| (before, run.clone())))
}

/// What to go back to when nothing is named, and where that is from.
fn before_active(
    target: &Target,
    releases: &[LiveRelease],
    active: &LiveRelease,
    before: Option<(ReleaseId, RunId)>,
) -> Result<(LiveRelease, String)> {
    if let Some((id, run)) = before
        && let Some(found) = releases.iter().find(|release| release.id == id && release.build.is_some())
    {
        return Ok((found.clone(), format!("it was live before run {run}")));
    }
    let build = |release: &LiveRelease| release.build.as_ref().map(|build| build.id.clone());
    // After a rollback the active build's first release is the older one, and what lies between is what was left.
    let first = releases.iter().filter(|release| build(release) == build(active)).map(|release| release.created).min();
    let first = first.unwrap_or(active.created).min(active.created);
    let older = releases.iter().find(|release| release.created < first && release.build.is_some() && build(release) != build(active));
    older
        .map(|found| {
            (found.clone(), "the newest release of another build before it; the rack does not tell whether it was ever live".to_owned())
        })
        .ok_or_else(|| {
            Error::refused(format!("there is no release of another build before {} on `{target}`", active.id))
                .hint(format!("name one: offbuild rollback {target} --to RELEASE"))
        })
}

/// The release with this id, or the newest one of the commit that begins so.
async fn named(target: &Target, rack: &Arc<dyn Rack>, app: &str, releases: &[LiveRelease], wanted: &str) -> Result<LiveRelease> {
    let commit = |release: &&LiveRelease| {
        let of = release.build.as_ref().and_then(|build| build.commit.as_ref());
        wanted.len() >= 7 && of.is_some_and(|commit| commit.as_str().starts_with(&wanted.to_lowercase()))
    };
    let listed = releases.iter().find(|release| release.id.as_str() == wanted).or_else(|| releases.iter().find(commit));
    if let Some(found) = listed {
        return Ok(found.clone());
    }
    // One that is older than the list goes back.
    let found = match ReleaseId::new(wanted) {
        Ok(id) => rack.release(app, &id).await.map_err(rack_error)?,
        Err(_) => None,
    };
    found.ok_or_else(|| {
        let known: Vec<String> = releases
            .iter()
            .take(10)
            .map(|release| {
                let commit = release.build.as_ref().and_then(|build| build.commit.as_ref());
                commit.map_or_else(|| release.id.to_string(), |commit| format!("{} ({})", release.id, commit.short()))
            })
            .collect();
        Error::config(format!("`{target}` has no release `{wanted}`, and none of such a commit"))
            .hint(format!("its latest: {}", known.join(", ")))
    })
}

fn described(world: &World, release: &LiveRelease) -> String {
    let commit = release.build.as_ref().and_then(|build| build.commit.as_ref()).map(|commit| {
        let subject = world.history.commit(commit).map(|commit| format!(" {}", commit.subject)).unwrap_or_default();
        format!(" (commit {}{subject})", commit.short())
    });
    format!("{}{}", release.id, commit.unwrap_or_default())
}

fn plan(world: &World, app: &App, on: &TargetConfig, live: &Live, chosen: &LiveRelease, why: &str) -> Result<Plan> {
    let target = target_of(app, on);
    let build = chosen.build.clone().ok_or_else(|| {
        Error::refused(format!("release {} of `{target}` has no build, so it cannot be live again", chosen.id))
            .hint("name another one with --to")
    })?;
    let fingerprint = crate::changes::description::fingerprint_in(&build.description).unwrap_or_else(|| Fingerprint::from_sha256(&[0; 32]));
    // What comes back is the build's own manifest; that of the work tree belongs to another commit.
    let document = Document::parse(&app.manifest, &build.manifest).or_else(|_| Document::parse(&app.manifest, ""));
    let document = document.map_err(|_| Error::failed("an empty manifest cannot be read"))?;
    let (path, generation) = (RepoPath::from(app.manifest.as_str()), live.generation);
    let manifest = Manifest { generation, path, document, services: Vec::new(), files: Vec::new(), warnings: Vec::new() };
    let name = app.name.clone();
    let app_plan = AppPlan {
        name: name.clone(),
        dir: app.dir.under(world.history.root()),
        fingerprint,
        revision: build.commit.as_ref().map(ToString::to_string).unwrap_or_default(),
        images: Vec::new(),
        hooks: BTreeMap::new(),
        racks: vec![on.rack.clone()],
        timeouts: on.timeouts,
    };
    let target_plan = TargetPlan {
        target,
        config: on.clone(),
        decision: Decision::Release,
        reasons: vec![format!("back to {}: {why}", described(world, chosen))],
        base: live.release.as_ref().and_then(|release| release.build.as_ref()).and_then(|build| build.commit.clone()),
        base_source: "the live build's commit".to_owned(),
        live: crate::plan::PlannedLive::of(live),
        after: Vec::new(),
        manifest: Arc::new(manifest),
        description: String::new(),
        origin: Origin::Copy { of: chosen.id.clone(), build: build.id },
        trap: crate::plan::Trap::of(live),
        group: None,
        back_to: None,
    };
    Ok(Plan {
        run: RunId::starting(OffsetDateTime::now_utc()),
        head: world.head.clone(),
        options: Options {
            gate: Gate::All,
            on_failure: OnFailure::StopAll,
            fail_fast: false,
            jobs: 1,
            until: Until::Promote,
            heal: false,
            allow_older: false,
            allow_diverged: false,
        },
        builds: Vec::new(),
        apps: BTreeMap::from([(name, app_plan)]),
        lanes: vec![LanePlan { rack: on.rack.clone(), after: Vec::new(), targets: vec![target_plan] }],
        removed: Vec::new(),
        notes: Vec::new(),
        ci_url: world.ci_url(),
    })
}
