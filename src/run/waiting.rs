//! What waits: the commits since a target's base that touch it. `why` and `status` tell the same.

use super::answer::{Commit, Waiting};
use super::read::Judged;
use super::world::World;
use crate::changes::Log;
use crate::changes::inputs::Inputs;
use crate::error::Result;
use crate::names::CommitId;
use std::collections::{BTreeMap, BTreeSet};

/// Commits looked at.
const MOST_COMMITS: usize = 1000;

/// The commits since each base.
pub(super) type Logs = BTreeMap<CommitId, Log>;

/// The commits since each base of the targets; targets mostly share theirs.
pub(super) fn logs(world: &World, targets: &[Judged]) -> Result<Logs> {
    let bases: BTreeSet<&CommitId> = targets.iter().filter_map(|judged| judged.decision.base.as_ref()).collect();
    let log = |base: &CommitId| Ok((base.clone(), world.history.log(base, &world.head.commit.id, MOST_COMMITS)?));
    bases.into_iter().map(log).collect()
}

/// The commits of a log that touch an app, each with the paths that do, and who made them.
pub(super) fn of<'a>(log: &'a Log, inputs: &Inputs) -> Waiting<'a> {
    let touched = log.commits.iter().map(|logged| {
        let paths = logged.paths.iter().filter(|path| inputs.contain(path)).collect();
        Commit { commit: &logged.commit, paths }
    });
    let commits: Vec<Commit<'_>> = touched.filter(|commit| !commit.paths.is_empty()).collect();
    let authors = commits.iter().map(|commit| commit.commit.author.as_str()).collect();
    Waiting { since_base: log.commits.len(), more: log.more, commits, authors }
}
