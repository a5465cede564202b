//! The nearest misses behind a comparison, the same for `changed` and `why`: changed paths that are no input of an app, and
//! what keeps them from it.

use super::compare::Comparison;
use super::read::{self, Judged};
use crate::changes::Change;
use crate::changes::affected::Affected;
use crate::changes::inputs::Inputs;
use crate::changes::near::{Miss, misses};
use crate::changes::reads::hidden_from;
use crate::error::Result;
use crate::files::Files;
use std::collections::BTreeSet;

/// The misses of every target, in the order of the judgement: what a rule takes out, what `.dockerignore` hides, and at most
/// `outside` of those that no rule means.
pub(super) fn misses_of_all(comparison: &Comparison, outside: usize) -> Result<Vec<Vec<Miss>>> {
    let Comparison { world, found, judgement } = comparison;
    let inputs = read::inputs(world, found)?;
    let of = |judged: &Judged| {
        let Some(inputs) = inputs.iter().find(|inputs| inputs.app == judged.target.app) else { return Vec::new() };
        let compared = judged.decision.base.as_ref().and_then(|base| judgement.compared.get(base));
        let committed = compared.iter().flat_map(|compared| &compared.changes);
        misses_of(&*world.files, inputs, &changes(committed, &judgement.dirty_paths), outside)
    };
    Ok(judgement.targets.iter().map(of).collect())
}

/// The misses of an app among `changes`.
pub(super) fn misses_of(files: &dyn Files, inputs: &Inputs, changes: &[Change], outside: usize) -> Vec<Miss> {
    misses(inputs, changes, &|rule, path| hidden_from(rule, files, path), outside)
}

/// What changed since a base, committed or not, each once.
pub(super) fn changes<'c>(committed: impl Iterator<Item = &'c Change>, dirty: &'c Affected) -> Vec<Change> {
    let owned = dirty.reasons.values().chain(dirty.near.values()).flatten().map(|reason| &reason.change);
    let all: BTreeSet<&Change> = committed.chain(owned).chain(&dirty.unowned).chain(&dirty.left).collect();
    all.into_iter().cloned().collect()
}
