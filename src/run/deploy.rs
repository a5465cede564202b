//! `deploy`, `build` and `plan`: read → plan → act → reports.
//!
//! 1. Read ([`super::read`]); a base that is missing may be fetched, once.
//! 2. Guards, then the plan. `plan` and `--dry-run` print it and stop.
//! 3. Ask for protected racks, look whether the engine can be used, take the locks, open the journal. Who had to wait for a lock
//!    begins with 1 again: what was read before is old news.
//! 4. Carry the plan out; one task shows what happens. 3 and 4 are [`super::carry_out`]'s.

use super::carry_out::{Planned, carry_out, confirm, lock_wait};
use super::compare::removed;
use super::contexts::Contexts;
use super::fetch::fetch;
use super::read::{self, Ask, Found, Judgement};
use super::resume::Earlier;
use super::world::World;
use crate::changes::verdict::Verdict;
use crate::cli::{self, Format, Global, Output, Selection};
use crate::error::{Error, Result};
use crate::names::{ReleaseId, RunId, Target};
use crate::plan::adopt::Candidate;
use crate::plan::{Gate, Gone, OnFailure, Options, Plan, Until, planner, show};
use crate::registry::Registry;
use futures_util::FutureExt as _;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use time::OffsetDateTime;

/// `offbuild deploy`.
pub(super) async fn deploy(global: &Global, args: cli::Deploy) -> Result<u8> {
    let ask = Ask {
        all: args.all,
        base: args.base,
        allow_dirty: args.guards.allow_dirty,
        allow_diverged: args.guards.allow_diverged,
        allow_older: args.guards.allow_older,
        release_hold: args.guards.release_hold.clone(),
        ..Ask::default()
    };
    let from = match args.resume {
        None => From::Left,
        Some(run) => From::Resume { run, rerun_hooks: args.rerun_hooks },
    };
    let how = How {
        command: "deploy",
        gate: args.gate,
        on_failure: args.on_failure,
        until: if args.no_promote { Until::Stage } else { Until::Promote },
        work: args.work,
        output: args.output,
        lock_wait: lock_wait(&args.guards.lock_wait)?,
        dry_run: args.dry_run,
        offline: false,
        heal: args.heal,
        from,
    };
    run(global, &args.selection, ask, how, Some(&args.guards)).await
}

/// `offbuild promote`: the same run, of what an earlier one staged and nothing else.
pub(super) async fn promote(global: &Global, args: cli::Promote) -> Result<u8> {
    let ask = Ask {
        // What was staged is wanted, whatever it was staged for.
        all: true,
        allow_dirty: args.guards.allow_dirty,
        allow_diverged: args.guards.allow_diverged,
        allow_older: args.guards.allow_older,
        release_hold: args.guards.release_hold.clone(),
        ..Ask::default()
    };
    let how = How {
        command: "promote",
        gate: Gate::default(),
        on_failure: args.on_failure,
        until: Until::Promote,
        work: cli::Work { jobs: None, fail_fast: false },
        output: args.output,
        lock_wait: lock_wait(&args.guards.lock_wait)?,
        dry_run: false,
        offline: false,
        heal: false,
        from: From::Promote(args.run),
    };
    run(global, &Selection { apps: Vec::new(), racks: args.racks }, ask, how, Some(&args.guards)).await
}

/// `offbuild build`.
pub(super) async fn build(global: &Global, args: cli::BuildArgs) -> Result<u8> {
    let ask = Ask { all: args.all, base: args.base, allow_dirty: args.allow_dirty, allow_diverged: true, ..Ask::default() };
    let how = How {
        command: "build",
        gate: Gate::App,
        on_failure: OnFailure::Continue,
        until: Until::Push,
        work: args.work,
        output: args.output,
        lock_wait: Duration::ZERO,
        dry_run: false,
        offline: false,
        heal: false,
        from: From::Nothing,
    };
    run(global, &args.selection, ask, how, None).await
}

/// `offbuild plan`.
pub(super) async fn plan(global: &Global, args: cli::PlanArgs) -> Result<u8> {
    let ask = Ask { all: args.all, base: args.base, allow_dirty: args.allow_dirty, ..Ask::default() };
    let work = cli::Work { jobs: None, fail_fast: false };
    let how = How {
        command: "plan",
        gate: Gate::default(),
        on_failure: OnFailure::default(),
        until: Until::Promote,
        work,
        output: Output { format: args.format, ..Output::default() },
        lock_wait: Duration::ZERO,
        dry_run: true,
        offline: args.offline,
        heal: false,
        from: From::Left,
    };
    run(global, &args.selection, ask, how, None).await
}

pub(super) struct How {
    pub(super) command: &'static str,
    pub(super) gate: Gate,
    pub(super) on_failure: OnFailure,
    pub(super) until: Until,
    pub(super) work: cli::Work,
    pub(super) output: Output,
    /// How long another run of the same rack is waited for.
    pub(super) lock_wait: Duration,
    pub(super) dry_run: bool,
    /// Neither racks nor registries are asked.
    pub(super) offline: bool,
    /// What was left behind is topped with a copy of what is live.
    pub(super) heal: bool,
    pub(super) from: From,
}

/// The earlier run that is gone on with.
pub(super) enum From {
    Nothing,
    /// Not asked for: what the runs of this commit left.
    Left,
    Resume {
        run: Option<String>,
        rerun_hooks: bool,
    },
    Promote(String),
}

/// Opens what the run works on, and the earlier run it goes on with.
fn open(global: &Global, selection: &Selection, how: &How) -> Result<(World, Option<Earlier>)> {
    let mut world = World::open(global, selection)?;
    let root = world.history.root();
    let earlier = match &how.from {
        From::Nothing => None,
        From::Left => {
            let left = Earlier::left(root, &world.head.commit.id);
            return Ok((world, Some(left)));
        }
        From::Resume { run, rerun_hooks } => Some(Earlier::to_resume(root, run.as_deref(), *rerun_hooks)?),
        From::Promote(which) => Some(Earlier::to_promote(root, which)?),
    };
    if let Some(earlier) = &earlier {
        earlier.check_commit(&world)?;
        let asked = !selection.apps.is_empty() || !selection.racks.is_empty();
        if !asked || matches!(how.from, From::Promote(_)) {
            world.keep(|target| earlier.concerns(target));
        }
    }
    Ok((world, earlier))
}

async fn run(global: &Global, selection: &Selection, ask: Ask, how: How, guards: Option<&cli::Guards>) -> Result<u8> {
    let began = Instant::now();
    let run = RunId::starting(OffsetDateTime::now_utc());
    let again = || planned(global, selection, &ask, &how, &run).boxed_local();
    let mut planned = again().await?;
    if how.dry_run {
        let mut plan = Arc::unwrap_or_clone(planned.plan);
        plan.notes.extend(super::locks::notes(&plan, &planned.racks).await);
        return match how.output.format {
            Format::Text => super::print(&show::text(&plan, global.verbose)),
            Format::Json => super::print_data(&format!("{:#}\n", show::json(&plan))),
        };
    }
    if let Some(guards) = guards {
        confirm(&planned.world, &planned.plan, guards)?;
    }
    carry_out(global, &mut planned, &how, guards, began, Some(&again)).await
}

/// Reads everything and makes the plan. A run that had to wait for another one does so once more.
async fn planned(global: &Global, selection: &Selection, ask: &Ask, how: &How, run: &RunId) -> Result<Planned> {
    let mut ask = ask.clone();
    let (mut world, earlier) = open(global, selection, how)?;
    let mut found = tokio::task::block_in_place(|| read::apps(&world))?;
    read::image_places(&world, &found)?;
    let jobs = jobs(how.work.jobs.as_deref().or(world.config.jobs.as_deref()))?;
    let racks = if how.offline { BTreeMap::new() } else { world.rack_clients()? };
    let live = if how.offline { None } else { Some(read::live(&world, &racks).await) };
    if let Some(error) = live.as_ref().and_then(read::no_rack) {
        return Err(error);
    }
    let (mut candidates, mut before) = (BTreeMap::new(), BTreeMap::new());
    if let (Some(earlier), Some(live)) = (&earlier, &live) {
        let staged = earlier.staged(&world, &racks, live).await?;
        (candidates, before) = (staged.candidates, staged.before);
        (ask.unfinished, ask.over) = (staged.unfinished, staged.over);
    }
    let judge = |world: &World, found: &[Found]| {
        let base = ask.base.base.as_deref();
        let given = (base.is_some() || how.offline)
            .then(|| read::chosen_base(&*world.history, &world.head.commit.id, &world.env, base))
            .transpose()?;
        read::judge(world, found, live.as_ref(), &ask, given)
    };
    let mut judgement = tokio::task::block_in_place(|| judge(&world, &found))?;
    if ask.base.fetch && tokio::task::block_in_place(|| fetch(&world, &judgement))? {
        // What was fetched is seen by a repository that is opened anew.
        world = open(global, selection, how)?.0;
        found = tokio::task::block_in_place(|| read::apps(&world))?;
        judgement = tokio::task::block_in_place(|| judge(&world, &found))?;
    }
    if !how.dry_run {
        read::guard(&judgement)?;
    }
    let registries = world.registries();
    // Who names apps or racks asks about those.
    let named = !selection.apps.is_empty() || !selection.racks.is_empty();
    let removed = if named { Vec::new() } else { tokio::task::block_in_place(|| removed(&world, &judgement))? };
    let contexts = tokio::task::block_in_place(|| Contexts::of(&world, &found, &judgement))?;
    let options = Options {
        gate: how.gate,
        on_failure: how.on_failure,
        fail_fast: how.work.fail_fast,
        jobs,
        until: how.until,
        heal: how.heal,
        allow_older: ask.allow_older,
        allow_diverged: ask.allow_diverged,
    };
    let plan = make_plan(&world, found, judgement, removed, run.clone(), options, how.offline, &*registries, candidates, before).await?;
    tokio::task::block_in_place(|| contexts.check(&world, &plan))?;
    Ok(Planned { world, plan: Arc::new(plan), racks, registries })
}

async fn make_plan(
    world: &World,
    found: Vec<Found>,
    judgement: Judgement,
    removed: Vec<Gone>,
    run: RunId,
    options: Options,
    offline: bool,
    registry: &dyn Registry,
    staged: BTreeMap<Target, Candidate>,
    before: BTreeMap<Target, ReleaseId>,
) -> Result<Plan> {
    let deploys = judgement.targets.iter().any(|judged| judged.decision.verdict == Verdict::Deploy);
    let mut facts = read::facts(world, found, judgement, run, staged, before)?;
    facts.removed = removed;
    if deploys && !offline {
        // No login where nothing is pushed.
        facts.existing = super::existing::existing(&facts, registry).await?;
    }
    planner::plan(facts, options)
}

/// Builds in flight per core, when nobody says how many: much of a build is waiting for containers, downloads and pushes. In the
/// rollout benchmark two builds on two cores took 1.6 times as long as eight where steps wait, and as long where they compute.
const JOBS_PER_CORE: usize = 4;

/// The number of builds in flight: `N`, `P%` of the cores, or `auto`.
fn jobs(text: Option<&str>) -> Result<usize> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let wrong = |text: &str| {
        Error::config(format!("`{text}` is no number of jobs"))
            .hint("give a number (`-j 4`), a percentage of the cores (`-j 50%`), or `auto`")
    };
    match text {
        None | Some("auto") => Ok(cores * JOBS_PER_CORE),
        Some(text) => match text.strip_suffix('%') {
            Some(percent) => percent.parse::<usize>().ok().filter(|p| *p > 0).map(|p| (cores * p / 100).max(1)).ok_or_else(|| wrong(text)),
            None => text.parse::<usize>().ok().filter(|jobs| *jobs > 0).ok_or_else(|| wrong(text)),
        },
    }
}
