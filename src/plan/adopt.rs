//! Whether a release that an earlier run staged can be taken over: only when it is exactly what this run would stage, and the
//! rack can still promote it.

use super::planner::TargetFacts;
use super::{Adopted, AppPlan, ImageAction};
use crate::event::Stage;
use crate::manifest::Manifest;
use crate::names::{BuildId, CommitId, Fingerprint, ImageRef, ReleaseId, RunId, ServiceName};
use std::collections::{BTreeMap, BTreeSet};

/// A release that the journal of an earlier run tells of, and what the rack says about it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The run.
    pub from: RunId,
    /// Its build, by the journal.
    pub build: BuildId,
    /// The release.
    pub release: ReleaseId,
    /// What was live when that run made its plan.
    pub before: Option<ReleaseId>,
    /// The release as the rack has it; `None` when it has it no more.
    pub found: Option<Found>,
    /// True when the app has no release that was made after it.
    pub newest: bool,
    /// True when what is live now was made after it, and its run had decided to go over that: with a new release of its build.
    pub outdated: bool,
    /// The hooks of it that have run to their end.
    pub done: BTreeSet<Stage>,
    /// The hooks of it that were begun and not finished.
    pub cut_short: BTreeSet<Stage>,
    /// Those of them that must not run again unasked.
    pub stuck: BTreeSet<Stage>,
    /// Nothing else will do: without it the target fails (`offbuild promote`).
    pub required: bool,
}

/// What the rack says a release was built from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its build.
    pub build: BuildId,
    /// The commit recorded with it.
    pub commit: Option<CommitId>,
    /// The fingerprint recorded with it.
    pub fingerprint: Option<Fingerprint>,
    /// The manifest it was made with.
    pub manifest: String,
}

/// Takes the candidate over, or tells why not.
pub fn adopt(candidate: &Candidate, target: &TargetFacts, app: &AppPlan, manifest: &Manifest, head: &CommitId) -> Result<Adopted, String> {
    let found = candidate.found.as_ref().ok_or("the rack does not have it any more, or has lost its build")?;
    if found.build != candidate.build || found.commit.as_ref() != Some(head) {
        return Err("it is of another commit or build".to_owned());
    }
    if found.fingerprint.as_ref() != Some(&app.fingerprint) {
        return Err("it was built from other inputs".to_owned());
    }
    if pinned(app, manifest)? != found.manifest {
        return Err("it was made with another manifest or other images".to_owned());
    }
    let live = target.live.as_ref().map(|live| &live.release);
    if live != Some(&candidate.release) {
        if live != candidate.before.as_ref() {
            let now = live.map_or_else(|| "nothing".to_owned(), ToString::to_string);
            return Err(format!("{now} is active now, which it was not when it was staged"));
        }
        if !candidate.newest && !candidate.outdated {
            return Err("a release was made after it, whose environment it does not have".to_owned());
        }
    }
    let Candidate { from, build, release, outdated, done, cut_short, .. } = candidate.clone();
    Ok(Adopted { from, build, release, outdated, done, again: cut_short })
}

/// The manifest this run would stage, when all images are known.
fn pinned(app: &AppPlan, manifest: &Manifest) -> Result<String, String> {
    let mut images: BTreeMap<ServiceName, String> = BTreeMap::new();
    for image in &app.images {
        let (ImageAction::Present { digest } | ImageAction::Reuse { digest }) = &image.action else {
            return Err(format!("the image of `{}` is not in the registry any more", image.service));
        };
        let reference = ImageRef { repository: image.repository.clone(), tag: None, digest: Some(digest.clone()) };
        images.insert(image.service.clone(), reference.to_string());
    }
    manifest.rewrite(&images).map_err(|_| "its manifest cannot be rewritten".to_owned())
}

impl Candidate {
    /// What the plan says about it, a line each.
    #[must_use]
    pub fn told(&self, adopted: &Result<Adopted, String>) -> Vec<String> {
        let Self { release, from, .. } = self;
        match adopted {
            Ok(adopted) => {
                let mut told = vec![format!("release {release} of run {from} is taken over, not staged again")];
                told.extend(adopted.done.iter().map(|stage| format!("its hook `{}` has run, and does not run again", stage.name())));
                let again = adopted.again.difference(&self.stuck);
                told.extend(again.map(|stage| format!("its hook `{}` was cut short, and runs again", stage.name())));
                told
            }
            Err(why) => vec![format!("release {release} of run {from} is not taken over: {why}")],
        }
    }
}
