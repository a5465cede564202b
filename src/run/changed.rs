//! `offbuild changed`: which apps changed, against the racks or, without them, against a base.

use super::answer::{self, GoneApp, VERSION};
use super::compare::{Comparison, compare, is_changed, removed};
use super::misses::misses_of_all;
use super::world::{self, AskedHead, Env};
use super::{read, rules};
use crate::changes::near::Miss;
use crate::changes::verdict::Decision;
use crate::changes::{Change, Head};
use crate::cli::{Changed, ChangedFormat, Global};
use crate::error::{Error, Result};
use crate::names::{AppName, CommitId, Target};
use crate::plan::Gone;
use crate::report::github;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// As many jobs as GitHub makes of a matrix.
const MOST_JOBS: usize = 256;

/// What there is to tell.
pub(super) struct Answer {
    /// The commit that is checked out, where it is told.
    pub(super) head: Option<Head>,
    env: Env,
    /// Every target with its verdict.
    pub(super) targets: Vec<(Target, Decision)>,
    /// The changed apps.
    pub(super) names: BTreeSet<AppName>,
    /// What came near each target, when [`wants_near`].
    pub(super) near: Vec<Vec<Miss>>,
    /// Apps that were there at a base and are gone.
    gone: Vec<Gone>,
    /// Changes that no app owns, committed since any of the bases or not.
    pub(super) unowned: BTreeSet<Change>,
    pub(super) notes: Vec<String>,
}

impl Answer {
    /// Verdicts alone.
    pub(super) fn new(env: Env, targets: Vec<(Target, Decision)>) -> Self {
        let names = targets.iter().filter(|(_, decision)| is_changed(decision)).map(|(target, _)| target.app.clone()).collect();
        Self { head: None, env, targets, names, near: Vec::new(), gone: Vec::new(), unowned: BTreeSet::new(), notes: Vec::new() }
    }

    /// The changed targets.
    fn changed(&self) -> Vec<&Target> {
        self.targets.iter().filter(|(_, decision)| is_changed(decision)).map(|(target, _)| target).collect()
    }
}

/// True when the nearest misses are shown, too.
pub(super) fn wants_near(global: &Global, args: &Changed) -> bool {
    args.format == ChangedFormat::Json || global.verbose && args.format == ChangedFormat::Text
}

/// Answers without asking a rack, and without reading everything; `None` when that does not do.
pub(super) fn offline(global: &Global, args: &Changed) -> Result<Option<u8>> {
    rules::answer(global, args)?.map(|answer| tell(&answer, global, args)).transpose()
}

/// Answers on standard output; with `--exit-code` 1 says that something changed.
pub(super) async fn changed(global: &Global, args: &Changed) -> Result<u8> {
    let head = AskedHead::of(args.head.as_deref(), &world::environment());
    let comparison = compare(global, &args.selection, &args.base, args.committed, head.as_ref()).await?;
    let near = if wants_near(global, args) { tokio::task::block_in_place(|| misses_of_all(&comparison, 0))? } else { Vec::new() };
    let Comparison { world, judgement, .. } = comparison;
    // Who asks for some apps gets those: a name that is no app's any more has been refused already.
    let gone = if args.selection.apps.is_empty() && args.selection.racks.is_empty() {
        tokio::task::block_in_place(|| removed(&world, &judgement))?
    } else {
        Vec::new()
    };
    let committed = judgement.compared.values().flat_map(|compared| &compared.affected.unowned);
    let unowned = committed.chain(&judgement.dirty_paths.unowned).cloned().collect();
    let targets = judgement.targets.into_iter().map(|judged| (judged.target, judged.decision)).collect();
    let answer = Answer { head: Some(world.head), near, gone, unowned, notes: judgement.notes, ..Answer::new(world.env, targets) };
    tell(&answer, global, args)
}

fn tell(answer: &Answer, global: &Global, args: &Changed) -> Result<u8> {
    match args.format {
        ChangedFormat::Text => {
            for note in &answer.notes {
                super::tell(format!("note: {note}"));
            }
            super::print(&text(answer, global.verbose))?;
        }
        ChangedFormat::Names => {
            let lines: String = answer.names.iter().map(|name| format!("{name}\n")).collect();
            super::print(&lines)?;
        }
        ChangedFormat::Json => drop(super::print_data(&format!("{:#}\n", report(answer)))?),
        ChangedFormat::Matrix => drop(super::print_data(&format!("{}\n", github::matrix(&answer.changed())))?),
    }
    let told = tell_github(answer)?;
    let jobs = answer.changed().len();
    if jobs > MOST_JOBS && (told || args.format == ChangedFormat::Matrix) {
        super::tell(format!(
            "note: the matrix has {jobs} jobs, and GitHub takes {MOST_JOBS}: ask for some apps at a time, or deploy in one job"
        ));
    }
    Ok(u8::from(args.exit_code && !answer.names.is_empty()))
}

/// The outputs of a GitHub Actions step: `affected`, `matrix` and `any`. False outside of one.
fn tell_github(answer: &Answer) -> Result<bool> {
    let env = |name: &str| (answer.env)(name).filter(|value| !value.is_empty());
    let (Some("true"), Some(path)) = (env("GITHUB_ACTIONS").as_deref(), env("GITHUB_OUTPUT")) else { return Ok(false) };
    github::append(path.as_ref(), &github::changed_outputs(&answer.changed()))
        .map_err(|error| Error::failed(format!("`GITHUB_OUTPUT` names `{path}`, which cannot be written")).because(error))
        .map(|()| true)
}

/// A block per target: verdict, base, reasons; the nearest misses of what is left alone.
fn text(answer: &Answer, verbose: bool) -> String {
    let lost: Vec<(String, &CommitId)> = answer.gone.iter().flat_map(|gone| gone.targets().map(|target| (target, &gone.base))).collect();
    let names = answer.targets.iter().map(|(target, _)| target.to_string()).chain(lost.iter().map(|(target, _)| target.clone()));
    let width = names.map(|name| name.len()).max().unwrap_or(0);
    let mut out = String::new();
    for (at, (target, decision)) in answer.targets.iter().enumerate() {
        let word = if is_changed(decision) { "changed" } else { decision.verdict.word() };
        let base = match (&decision.base, &decision.base_source) {
            (Some(base), Some(source)) => format!("  since {} ({source})", base.short()),
            _ => String::new(),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{:width$}  {word}{base}", target);
        let reasons = read::reasons(decision);
        let shown = if verbose { reasons.len() } else { 3 };
        for reason in reasons.iter().take(shown) {
            let _ = writeln!(out, "{:width$}    {reason}", "");
        }
        if reasons.len() > shown {
            let _ = writeln!(out, "{:width$}    and {} more (-v shows all)", "", reasons.len() - shown);
        }
        for miss in answer.near.get(at).into_iter().flatten() {
            let _ = writeln!(out, "{:width$}    not counted: {miss}", "");
        }
    }
    for (target, base) in lost {
        let _ = writeln!(out, "{target:width$}  removed  since {} (nothing is done to the rack)", base.short());
    }
    if verbose {
        for change in &answer.unowned {
            let _ = writeln!(out, "unowned: {} {}", change.kind, change.path);
        }
    }
    out
}

fn report(answer: &Answer) -> Value {
    let targets = answer.targets.iter().zip(&answer.near);
    json!(answer::Changed {
        version: VERSION,
        head: answer.head.as_ref(),
        any: !answer.names.is_empty(),
        affected: answer.names.iter().collect(),
        targets: targets.map(|((target, decision), near)| answer::Target::new(target, decision, near)).collect(),
        removed: answer.gone.iter().map(GoneApp::new).collect(),
        unowned: answer.unowned.iter().collect(),
        notes: &answer.notes,
    })
}
