//! What an earlier run left: `deploy --resume` and `promote` read its journal, and ask the racks about every release in it.
//!
//! The journal only says where to look. Images are found by their tags like in any other run; a release is taken over when the
//! rack still has it and the planner finds that it is exactly what would be staged ([`crate::plan::adopt`]).

use super::read::AllLive;
use super::world::{World, rack_error};
use crate::changes::description::fingerprint_in;
use crate::error::{Error, Result};
use crate::event::{Stage, TargetOutcome};
use crate::journal::Journal;
use crate::names::{RackName, ReleaseId, RunId, Target};
use crate::plan::adopt::{Candidate, Found};
use crate::rack::{Live, LiveRelease, Rack};
use crate::report::history;
use crate::report::state::RunState;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// A run that is gone on with.
pub(super) struct Earlier {
    run: RunId,
    state: RunState,
    /// The runs since, newest first.
    later: Vec<(RunId, RunState)>,
    /// Only what it staged is wanted (`offbuild promote`).
    promote: bool,
}

impl Earlier {
    /// The run `deploy --resume` goes on with: the named one, or the last that got as far as a plan.
    pub(super) fn to_resume(root: &Path, which: Option<&str>) -> Result<Self> {
        if let Some(which) = which {
            return Self::read(root, which, false);
        }
        let mut later = Vec::new();
        // A journal that cannot be read is no run to go on with; named, it is an error.
        for (run, state) in history::read(root)? {
            let releases = state.run.as_ref().is_some_and(|run| matches!(run.command.as_str(), "deploy" | "promote"));
            if releases && state.plan.is_some() {
                return Ok(Self { run, state, later, promote: false });
            }
            later.push((run, state));
        }
        Err(Error::config("there is no run to go on with").hint("offbuild deploy"))
    }

    /// The run whose releases `promote` makes live.
    pub(super) fn to_promote(root: &Path, which: &str) -> Result<Self> {
        let earlier = Self::read(root, which, true)?;
        if earlier.state.targets.values().all(|target| target.staged.is_none()) {
            return Err(Error::config(format!("run `{}` staged no release", earlier.run))
                .hint(format!("see what it did: offbuild show {}", earlier.run)));
        }
        Ok(earlier)
    }

    fn read(root: &Path, which: &str, promote: bool) -> Result<Self> {
        let file = Journal::find(root, which)?;
        let state = RunState::replay(&Journal::read_outline(&file.path)?);
        let later = history::read(root)?.into_iter().take_while(|(run, _)| *run != file.run).collect();
        Ok(Self { run: file.run, state, later, promote })
    }

    /// Refuses when another commit is checked out: configuration, hooks and manifests are read from the work tree.
    pub(super) fn check_commit(&self, world: &World) -> Result<()> {
        let head = &world.head.commit.id;
        match self.state.run.as_ref().map(|run| &run.commit) {
            Some(commit) if commit == head => Ok(()),
            Some(commit) => {
                let (was, is) = (commit.short(), head.short());
                let error = Error::refused(format!("run `{}` was of commit {was}, and {is} is checked out", self.run));
                Err(if self.promote {
                    error.hint(format!("git checkout {commit} && offbuild promote {}", self.run))
                } else {
                    error.hint("deploy what is checked out: offbuild deploy")
                })
            }
            None => {
                Err(Error::config(format!("the journal of run `{}` does not say which commit it was of", self.run)).hint("offbuild deploy"))
            }
        }
    }

    /// True for a target this run is gone on with.
    pub(super) fn concerns(&self, target: &Target) -> bool {
        self.state.targets.get(target).is_some_and(|known| !self.promote || known.staged.is_some())
    }

    /// What it staged, and what the racks say about that now.
    pub(super) async fn staged(&self, world: &World, racks: &BTreeMap<RackName, Arc<dyn Rack>>, live: &AllLive) -> Result<Staged> {
        let mut staged = Staged::default();
        for (app, on) in world.targets() {
            let target = super::world::target(app, on);
            let Some((build, release)) = self.state.targets.get(&target).and_then(|known| known.staged.as_ref()) else { continue };
            let (Some(rack), Some(Ok(now))) = (racks.get(&target.rack), live.get(&target)) else { continue };
            let (run, state) = self.last_with(&target, release);
            let Some(known) = state.targets.get(&target) else { continue };
            let is_live = now.release.as_ref().is_some_and(|live| live.id == *release);
            let deployed = matches!(known.outcome, Some(TargetOutcome::Deployed { .. }));
            // What somebody promoted by hand is left as it is, like what came to its end.
            let promoted = known.adopted.is_some() || state.step_of(&target, Stage::Promote).is_some();
            if is_live && (deployed || !promoted) {
                staged.over.insert(target);
                continue;
            }
            if deployed && !self.promote {
                continue;
            }
            let found = rack.release(&on.name, release).await.map_err(rack_error)?;
            let (done, cut_short) = state.release_hooks(&target);
            let candidate = Candidate {
                from: run.clone(),
                build: build.clone(),
                release: release.clone(),
                before: known.live_release.clone(),
                newest: is_newest(now, release),
                found: found.and_then(found_of),
                done,
                cut_short,
                required: self.promote,
            };
            if is_live {
                staged.unfinished.insert(target.clone());
            }
            staged.candidates.insert(target, candidate);
        }
        Ok(staged)
    }

    /// The last run that had this release of the target in hand: the one that staged it, or one that took it over.
    fn last_with(&self, target: &Target, release: &ReleaseId) -> (&RunId, &RunState) {
        let has = |state: &RunState| state.targets.get(target).and_then(|known| known.staged.as_ref()).is_some_and(|(_, id)| id == release);
        let later = self.later.iter().find(|(_, state)| has(state)).map(|(run, state)| (run, state));
        later.unwrap_or((&self.run, &self.state))
    }
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
}

fn is_newest(live: &Live, release: &ReleaseId) -> bool {
    let newest = live.newer.as_ref().map(|newer| &newer.id).or(live.release.as_ref().map(|release| &release.id));
    newest == Some(release)
}

fn found_of(release: LiveRelease) -> Option<Found> {
    let build = release.build?;
    Some(Found { build: build.id, commit: build.commit, fingerprint: fingerprint_in(&build.description), manifest: build.manifest })
}
