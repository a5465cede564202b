//! What an earlier run left: `deploy --resume` and `promote` read its journal, and ask the racks about every release in it.
//!
//! The journal only says where to look. Images are found by their tags like in any other run; a release is taken over when the
//! rack still has it and the planner finds that it is exactly what would be staged ([`crate::plan::adopt`]).

use super::read::AllLive;
use super::world::{World, rack_error};
use crate::changes::description::fingerprint_in;
use crate::error::{Error, Result};
use crate::event::{Stage, Step, StepOutcome, TargetOutcome};
use crate::journal::Journal;
use crate::names::{RackName, RunId, Target};
use crate::plan::adopt::{Candidate, Found};
use crate::rack::{Live, LiveRelease, Rack};
use crate::report::state::{RunState, TargetState};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// A run that is gone on with.
pub(super) struct Earlier {
    run: RunId,
    state: RunState,
    /// Only what it staged is wanted (`offbuild promote`).
    promote: bool,
}

impl Earlier {
    /// The run `deploy --resume` goes on with: the named one, or the last that got as far as a plan.
    pub(super) fn to_resume(root: &Path, which: Option<&str>) -> Result<Self> {
        if let Some(which) = which {
            return Self::read(root, which, false);
        }
        for file in Journal::list(root)? {
            // A journal that cannot be read is no run to go on with; named, it is an error.
            let Ok(events) = Journal::read_outline(&file.path) else { continue };
            let state = RunState::replay(&events);
            let releases = state.run.as_ref().is_some_and(|run| matches!(run.command.as_str(), "deploy" | "promote"));
            if releases && state.plan.is_some() {
                return Ok(Self { run: file.run, state, promote: false });
            }
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
        Ok(Self { run: file.run, state, promote })
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

    /// What it staged and did not finish, and what the racks say about that now.
    pub(super) async fn candidates(
        &self,
        world: &World,
        racks: &BTreeMap<RackName, Arc<dyn Rack>>,
        live: &AllLive,
    ) -> Result<BTreeMap<Target, Candidate>> {
        let mut candidates = BTreeMap::new();
        for (app, on) in world.targets() {
            let target = super::world::target(app, on);
            let Some(known) = self.state.targets.get(&target) else { continue };
            let (Some((build, release)), Some(rack), Some(Ok(now))) = (&known.staged, racks.get(&target.rack), live.get(&target)) else {
                continue;
            };
            if matches!(known.outcome, Some(TargetOutcome::Deployed { .. } | TargetOutcome::UpToDate)) {
                continue;
            }
            let found = rack.release(&on.name, release).await.map_err(rack_error)?;
            let hooks = |wanted: fn(Option<&StepOutcome>) -> bool| -> BTreeSet<Stage> {
                let ran = [Stage::BeforeRelease, Stage::AfterRelease].into_iter();
                ran.filter(|stage| self.step(&target, *stage).is_some_and(wanted)).collect()
            };
            let earlier: BTreeSet<Stage> = known.adopted.iter().flat_map(|(_, done)| done.iter().copied()).collect();
            candidates.insert(
                target.clone(),
                Candidate {
                    from: self.run.clone(),
                    build: build.clone(),
                    release: release.clone(),
                    before: known.live_release.clone(),
                    newest: is_newest(now, release),
                    found: found.and_then(found_of),
                    done: hooks(|outcome| outcome == Some(&StepOutcome::Done)).union(&earlier).copied().collect(),
                    cut_short: hooks(|outcome| matches!(outcome, None | Some(StepOutcome::Cancelled))),
                    required: self.promote,
                },
            );
        }
        Ok(candidates)
    }

    /// The targets whose release is live already, promoted by that run, which did not get to their end.
    pub(super) fn unfinished(&self, candidates: &BTreeMap<Target, Candidate>, live: &AllLive) -> BTreeSet<Target> {
        let is_live = |target: &Target, candidate: &Candidate| {
            let now = live.get(target).and_then(|live| live.as_ref().ok()).and_then(|live| live.release.as_ref());
            now.is_some_and(|release| release.id == candidate.release)
        };
        let promoted = |target: &Target| {
            let taken_over = self.state.targets.get(target).is_some_and(|known: &TargetState| known.adopted.is_some());
            taken_over || self.step(target, Stage::Promote).is_some()
        };
        let unfinished = candidates.iter().filter(|(target, candidate)| is_live(target, candidate) && promoted(target));
        unfinished.map(|(target, _)| target.clone()).collect()
    }

    /// A step of a target that was begun, and how it ended, if it did.
    fn step(&self, target: &Target, stage: Stage) -> Option<Option<&StepOutcome>> {
        let step = Step { app: target.app.clone(), rack: Some(target.rack.clone()), service: None, stage };
        self.state.steps.get(&step).map(|known| known.outcome.as_ref())
    }
}

fn is_newest(live: &Live, release: &crate::names::ReleaseId) -> bool {
    let newest = live.newer.as_ref().map(|newer| &newer.id).or(live.release.as_ref().map(|release| &release.id));
    newest == Some(release)
}

fn found_of(release: LiveRelease) -> Option<Found> {
    let build = release.build?;
    Some(Found { build: build.id, commit: build.commit, fingerprint: fingerprint_in(&build.description), manifest: build.manifest })
}
