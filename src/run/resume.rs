//! What earlier runs left: `deploy --resume` and `promote` read a run's journal, a plain `deploy` those of the same commit, and
//! ask the racks about every release in it.
//!
//! The journal only says where to look. Images are found by their tags like in any other run; a release is taken over when the
//! rack still has it and the planner finds that it is exactly what would be staged ([`crate::plan::adopt`]).

use super::read::AllLive;
use super::world::{World, rack_error};
use crate::changes::description::{fingerprint_in, run_in};
use crate::config::App;
use crate::error::{Error, Result};
use crate::event::{EventKind, Stage, TargetOutcome};
use crate::journal::{Journal, RunFile};
use crate::names::{BuildId, CommitId, RackName, ReleaseId, RunId, Target};
use crate::plan::adopt::{Candidate, Found};
use crate::rack::{Live, LiveRelease, Rack};
use crate::report::state::RunState;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// The runs of a commit that are gone on with.
pub(super) struct Earlier {
    /// Newest first. What any of them staged may be taken over; a run that went on with another and could not is none to stop at.
    runs: Vec<(RunId, RunState)>,
    /// The run that is gone on with: its targets, its commit. None when nobody named one.
    named: Option<(RunId, RunState)>,
    use_of: Use,
}

/// What is wanted of earlier runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// What they left half done (`offbuild deploy`).
    Left,
    /// To go on with one (`deploy --resume`).
    Resume {
        /// Hooks that were cut short run again, whatever the configuration says.
        rerun_hooks: bool,
    },
    /// Only what one staged (`offbuild promote`).
    Promote,
}

impl Earlier {
    /// What the kept runs of a commit left, for a run that nobody asked to go on with them: it must not repeat what they did.
    pub(super) fn left(root: &Path, commit: &CommitId) -> Self {
        Self { runs: runs_of(root, commit), named: None, use_of: Use::Left }
    }

    /// The run `deploy --resume` goes on with: the named one, or the last that got as far as a plan.
    pub(super) fn to_resume(root: &Path, which: Option<&str>, rerun_hooks: bool) -> Result<Self> {
        let use_of = Use::Resume { rerun_hooks };
        if let Some(which) = which {
            return Self::named(root, which, use_of);
        }
        for file in Journal::list(root)? {
            // One that cannot be read may be the one that is meant: going on with an older one would be a guess.
            let events = Journal::read_outline(&file.path)
                .map_err(|error| error.hint("name the run to go on with (`offbuild history`), or deploy anew: offbuild deploy"))?;
            let state = RunState::replay(&events);
            if state.run.as_ref().is_some_and(|run| releases(&run.command)) && state.plan.is_some() {
                return Ok(Self::of(root, file.run, state, use_of));
            }
        }
        Err(Error::config("there is no run to go on with").hint("offbuild deploy"))
    }

    /// The run whose releases `promote` makes live.
    pub(super) fn to_promote(root: &Path, which: &str) -> Result<Self> {
        let earlier = Self::named(root, which, Use::Promote)?;
        if let Some((run, state)) = &earlier.named
            && state.targets.values().all(|target| target.staged.is_none())
        {
            return Err(Error::config(format!("run `{run}` staged no release")).hint(format!("see what it did: offbuild show {run}")));
        }
        Ok(earlier)
    }

    fn named(root: &Path, which: &str, use_of: Use) -> Result<Self> {
        let file = Journal::find(root, which)?;
        let state = RunState::replay(&Journal::read_outline(&file.path)?);
        Ok(Self::of(root, file.run, state, use_of))
    }

    fn of(root: &Path, run: RunId, state: RunState, use_of: Use) -> Self {
        let runs = state.run.as_ref().map(|run| runs_of(root, &run.commit)).unwrap_or_default();
        Self { runs, named: Some((run, state)), use_of }
    }

    /// Refuses when another commit is checked out: configuration, hooks and manifests are read from the work tree.
    pub(super) fn check_commit(&self, world: &World) -> Result<()> {
        let head = &world.head.commit.id;
        let Some((run, state)) = &self.named else { return Ok(()) };
        match state.run.as_ref().map(|run| &run.commit) {
            Some(commit) if commit == head => Ok(()),
            Some(commit) => {
                let (was, is) = (commit.short(), head.short());
                let error = Error::refused(format!("run `{run}` was of commit {was}, and {is} is checked out"));
                Err(if self.use_of == Use::Promote {
                    error.hint(format!("git checkout {commit} && offbuild promote {run}"))
                } else {
                    error.hint("deploy what is checked out: offbuild deploy")
                })
            }
            None => Err(Error::config(format!("the journal of run `{run}` does not say which commit it was of")).hint("offbuild deploy")),
        }
    }

    /// True for a target of the run that is gone on with.
    pub(super) fn concerns(&self, target: &Target) -> bool {
        let Some((_, state)) = &self.named else { return true };
        state.targets.get(target).is_some_and(|known| self.use_of != Use::Promote || known.staged.is_some())
    }

    /// What they staged, and what the racks say about that now.
    pub(super) async fn staged(&self, world: &World, racks: &BTreeMap<RackName, Arc<dyn Rack>>, live: &AllLive) -> Result<Staged> {
        let mut staged = Staged::default();
        for (app, on) in world.targets() {
            let target = super::world::target(app, on);
            let (Some(rack), Some(Ok(now))) = (racks.get(&target.rack), live.get(&target)) else { continue };
            let Some((run, state, build, release)) = self.last_staged(&target) else {
                if let Some(candidate) = self.unrecorded(&world.head.commit.id, &on.name, now, rack).await {
                    staged.candidates.insert(target, candidate);
                }
                continue;
            };
            let Some(known) = state.targets.get(&target) else { continue };
            let is_live = now.release.as_ref().is_some_and(|live| live.id == *release);
            let deployed = matches!(known.outcome, Some(TargetOutcome::Deployed { .. }));
            // What somebody promoted by hand is left as it is, like what came to its end.
            let promoted = known.adopted.is_some() || state.step_of(&target, Stage::Promote).is_some();
            // A run that was killed may have been about to take a group back: whoever comes next has to be able to.
            let killed = state.finished.is_none();
            if is_live && promoted && (killed || self.use_of != Use::Left) {
                staged.before.extend(self.live_before(&target, release).map(|before| (target.clone(), before)));
            }
            // Whoever did not ask to go on was told how it ended.
            let told = self.use_of == Use::Left && !killed && !matches!(known.outcome, None | Some(TargetOutcome::Cancelled));
            if is_live && (deployed || !promoted || told) {
                if self.use_of != Use::Left {
                    staged.over.insert(target);
                }
                continue;
            }
            if deployed && self.use_of != Use::Promote {
                continue;
            }
            let mut found = match rack.release(&on.name, release).await {
                // Staging anew is as right, only slower.
                Err(_) if self.use_of == Use::Left => continue,
                found => found.map_err(rack_error)?,
            };
            let (done, cut_short) = self.hooks(&target, release);
            let mut before = known.over.clone().or_else(|| known.live_release.clone());
            let mut release = release.clone();
            if self.use_of != Use::Promote
                && let Some(renewed) = renewed(&on.name, found.as_ref(), now, rack).await
            {
                // Made in place of the one that was staged, to go over what is live now; its hooks are the same.
                before = now.release.as_ref().map(|live| live.id.clone());
                release = renewed.id.clone();
                found = Some(renewed);
            }
            let candidate = Candidate {
                from: run.clone(),
                build: build.clone(),
                newest: is_newest(now, &release),
                outdated: known.over.is_some() && now.newer.is_none() && before == now.release.as_ref().map(|live| live.id.clone()),
                before,
                release,
                found: found.and_then(found_of),
                stuck: self.stuck(app, &cut_short),
                done,
                cut_short,
                required: self.use_of == Use::Promote,
            };
            if is_live {
                staged.unfinished.insert(target.clone());
            }
            staged.candidates.insert(target, candidate);
        }
        Ok(staged)
    }

    /// A release of this commit on top of the active one that no journal here tells of: left on another machine, or by a run that
    /// was killed before it heard of it. None of its hooks is known to have run.
    async fn unrecorded(&self, head: &CommitId, app: &str, now: &Live, rack: &Arc<dyn Rack>) -> Option<Candidate> {
        let newer = now.newer.as_ref().filter(|newer| self.use_of != Use::Promote && newer.commit.as_ref() == Some(head))?;
        let from = run_in(&newer.build_description)?;
        // A rack that does not tell is no reason to fail: staging anew is as right, only slower.
        let found = found_of(rack.release(app, &newer.id).await.ok()??)?;
        Some(Candidate {
            from,
            build: found.build.clone(),
            release: newer.id.clone(),
            before: now.release.as_ref().map(|release| release.id.clone()),
            found: Some(found),
            newest: true,
            outdated: false,
            done: BTreeSet::new(),
            cut_short: BTreeSet::new(),
            stuck: BTreeSet::new(),
            required: false,
        })
    }

    /// What was live before a run made this release of the target live.
    fn live_before(&self, target: &Target, release: &ReleaseId) -> Option<ReleaseId> {
        let known = self.runs.iter().rev().filter_map(|(_, state)| state.targets.get(target));
        let ours = known.filter(|known| known.staged.as_ref().is_some_and(|(_, id)| id == release));
        ours.filter_map(|known| known.live_release.clone()).find(|before| before != release)
    }

    /// The hooks of a release that have run to their end, and those that were begun and did not: of each, the last run that began it
    /// decides.
    fn hooks(&self, target: &Target, release: &ReleaseId) -> (BTreeSet<Stage>, BTreeSet<Stage>) {
        let (mut done, mut cut_short, mut begun) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for (_, state) in &self.runs {
            if state.targets.get(target).and_then(|known| known.staged.as_ref()).is_none_or(|(_, id)| id != release) {
                continue;
            }
            let (ended, cut) = state.release_hooks(target);
            done.extend(ended);
            cut_short.extend(cut.difference(&begun));
            begun.extend([Stage::BeforeRelease, Stage::AfterRelease].into_iter().filter(|stage| state.step_of(target, *stage).is_some()));
        }
        (done, cut_short)
    }

    /// The hooks among those that were cut short that must not run again unasked. A run that nobody asked to go on with another
    /// one begins anew with them, as it would on another machine.
    fn stuck(&self, app: &App, cut_short: &BTreeSet<Stage>) -> BTreeSet<Stage> {
        if matches!(self.use_of, Use::Left | Use::Resume { rerun_hooks: true }) {
            return BTreeSet::new();
        }
        let repeatable = |stage: &Stage| app.repeatable.iter().any(|hook| hook.stage() == *stage);
        cut_short.iter().filter(|stage| !repeatable(stage)).copied().collect()
    }

    /// The last run that had a release of the target in hand (the one that staged it, or one that took it over), and that release.
    fn last_staged(&self, target: &Target) -> Option<(&RunId, &RunState, &BuildId, &ReleaseId)> {
        let staged = |state: &'_ RunState| state.targets.get(target).and_then(|known| known.staged.clone());
        // `promote` is about that run's release, whatever was staged since.
        let only = (self.use_of == Use::Promote).then(|| self.named.as_ref().and_then(|(_, state)| staged(state)));
        self.runs.iter().find_map(|(run, state)| {
            let (build, release) = state.targets.get(target)?.staged.as_ref()?;
            let wanted = only.as_ref().is_none_or(|only| only.as_ref().is_some_and(|(_, id)| id == release));
            wanted.then_some((run, state, build, release))
        })
    }
}

/// The kept runs of a commit that release, newest first. A journal that cannot be read tells nothing; the racks tell enough.
fn runs_of(root: &Path, commit: &CommitId) -> Vec<(RunId, RunState)> {
    let of_commit = |file: &RunFile| match Journal::read_first(&file.path).map(|event| event.kind) {
        Some(EventKind::RunStarted { commit: of, command, .. }) => of == *commit && releases(&command),
        _ => false,
    };
    let read = |file: RunFile| Some((file.run, RunState::replay(&Journal::read_outline(&file.path).ok()?)));
    Journal::list(root).unwrap_or_default().into_iter().filter(of_commit).filter_map(read).collect()
}

/// True for the commands whose runs release something.
fn releases(command: &str) -> bool {
    matches!(command, "deploy" | "promote")
}

/// What became of the releases an earlier run staged.
#[derive(Default)]
pub(super) struct Staged {
    /// Those that may be taken over.
    pub(super) candidates: BTreeMap<Target, Candidate>,
    /// Targets whose release is live, and whose last steps are missing.
    pub(super) unfinished: BTreeSet<Target>,
    /// Targets whose release is live, and nothing is missing.
    pub(super) over: BTreeSet<Target>,
    /// What was live before the earlier run made its own release live.
    pub(super) before: BTreeMap<Target, ReleaseId>,
}

/// The newest release, when it is what a run made in place of the one it had staged, since another one had become active meanwhile
/// ([`Rack::renew`]), and it was killed before it could tell: of the same build, with the same words, made after what is active.
async fn renewed(app: &str, staged: Option<&LiveRelease>, now: &Live, rack: &Arc<dyn Rack>) -> Option<LiveRelease> {
    let (staged, active) = (staged?, now.release.as_ref()?);
    let build = &staged.build.as_ref()?.id;
    let newer = now.newer.as_ref().filter(|newer| newer.id != staged.id && newer.build.as_ref() == Some(build))?;
    // A rack that does not tell is no reason to fail: staging anew is as right, only slower.
    let newest = rack.release(app, &newer.id).await.ok()??;
    let same = !staged.description.is_empty() && newest.description == staged.description;
    (same && staged.created < active.created).then_some(newest)
}

fn is_newest(live: &Live, release: &ReleaseId) -> bool {
    let newest = live.newer.as_ref().map(|newer| &newer.id).or(live.release.as_ref().map(|release| &release.id));
    newest == Some(release)
}

fn found_of(release: LiveRelease) -> Option<Found> {
    let build = release.build?;
    Some(Found { build: build.id, commit: build.commit, fingerprint: fingerprint_in(&build.description), manifest: build.manifest })
}
