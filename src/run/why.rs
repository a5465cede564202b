//! `offbuild why`: the verdict about a target with everything it rests on, and what waits since the live commit.
//!
//! `--what-if` answers from the rules alone, for paths that have not changed yet.

use super::answer::{self, Near, ReasonOf, VERSION, Waiting, WhatIf, WhatIfApp};
use super::compare::{Comparison, compare, is_changed};
use super::misses::{misses_of, misses_of_all};
use super::read::{self, Judged};
use super::waiting;
use super::world::{self, AskedHead, World, here};
use crate::changes::affected::Matcher;
use crate::changes::inputs::Inputs;
use crate::changes::near::Miss;
use crate::changes::verdict::{Reason, Verdict};
use crate::changes::{Change, ChangeKind, CommitInfo, Log};
use crate::cli::{Format, Global, Selection, WhyArgs};
use crate::error::{Error, Result};
use crate::names::RepoPath;
use crate::report::text::{age, clean, clip, count};
use serde_json::json;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use time::OffsetDateTime;

/// Commits and paths that the text lists without `-v`.
const SHOWN: usize = 10;
/// Paths outside of all rules that are told as near.
const NEAREST: usize = 5;

/// Answers on standard output.
pub(super) async fn why(global: &Global, args: &WhyArgs) -> Result<u8> {
    let selection = Selection { apps: args.apps.clone(), racks: Vec::new() };
    if !args.what_if.is_empty() {
        return tokio::task::block_in_place(|| what_if(global, args, &selection));
    }
    let head = AskedHead::of(args.head.as_deref(), &world::environment());
    let comparison = compare(global, &selection, &args.base, false, head.as_ref()).await?;
    tokio::task::block_in_place(|| explain(global, args, &comparison))
}

/// What is told about one target.
struct Told<'a> {
    judged: &'a Judged,
    inputs: &'a Inputs,
    near: Vec<Miss>,
    base: Option<CommitInfo>,
    log: Option<&'a Log>,
}

fn explain(global: &Global, args: &WhyArgs, comparison: &Comparison) -> Result<u8> {
    let Comparison { world, found, judgement } = comparison;
    let inputs = read::inputs(world, found)?;
    let near = misses_of_all(comparison, NEAREST)?;
    let logs = waiting::logs(world, &judgement.targets)?;
    let mut told = Vec::new();
    for (judged, near) in judgement.targets.iter().zip(near) {
        let Some(inputs) = inputs.iter().find(|inputs| inputs.app == judged.target.app) else { continue };
        let base = judged.decision.base.as_ref();
        told.push(Told {
            judged,
            inputs,
            near,
            base: base.map(|base| world.history.commit(base)).transpose()?,
            log: base.and_then(|base| logs.get(base)),
        });
    }
    match args.format {
        Format::Text => {
            for note in &judgement.notes {
                super::tell(format!("note: {note}"));
            }
            let now = OffsetDateTime::now_utc();
            let blocks: Vec<String> = told.iter().map(|told| text(told, global.verbose, now)).collect();
            super::print(&blocks.join("\n"))
        }
        Format::Json => {
            let targets = told.iter().map(target).collect();
            let answer = answer::Why { version: VERSION, head: &world.head, targets, notes: &judgement.notes };
            super::print_data(&format!("{:#}\n", json!(answer)))
        }
    }
}

fn target<'a>(told: &'a Told<'a>) -> answer::Target<'a> {
    let mut target = answer::Target::new(&told.judged.target, &told.judged.decision, &told.near);
    if let Some(base) = &mut target.base {
        base.info.clone_from(&told.base);
    }
    target.waiting = told.log.map(|log| waiting::of(log, told.inputs));
    target
}

/// A heading and indented parts: base, reasons, what came near, what waits.
fn text(told: &Told<'_>, verbose: bool, now: OffsetDateTime) -> String {
    let decision = &told.judged.decision;
    let mut out = String::new();
    let word = match &decision.verdict {
        Verdict::Refused { why } => format!("refused: {why}"),
        _ if is_changed(decision) => "changed".to_owned(),
        verdict => verdict.word().to_owned(),
    };
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{}: {word}", told.judged.target);
    match (&told.base, &decision.base_source) {
        (Some(base), Some(source)) => {
            let _ = writeln!(out, "  compared with {}", commit_line(base, now));
            let _ = writeln!(out, "    from {source}");
        }
        _ => out.push_str("  compared with nothing: no commit is known to be live\n"),
    }
    for note in &decision.notes {
        let _ = writeln!(out, "  note: {note}");
    }
    if decision.reasons.is_empty() {
        out.push_str("  because nothing it is made of changed\n");
    } else {
        out.push_str("  because\n");
        listing(&mut out, decision.reasons.iter().map(ToString::to_string), verbose);
    }
    if decision.reasons.is_empty() || verbose {
        nearest(&mut out, &told.near, verbose);
    }
    if let Some(log) = told.log {
        what_waits(&mut out, &waiting::of(log, told.inputs), verbose, now);
    }
    out
}

fn nearest(out: &mut String, near: &[Miss], verbose: bool) {
    if !near.is_empty() {
        out.push_str("  nearest, and not its inputs\n");
        listing(out, near.iter().map(ToString::to_string), verbose);
    }
}

fn what_waits(out: &mut String, waiting: &Waiting<'_>, verbose: bool, now: OffsetDateTime) {
    let since = format!("{}{}", count(waiting.since_base, "commit"), if waiting.more { " and more" } else { "" });
    let heading = match waiting.commits.len() {
        0 if waiting.since_base == 0 => "nothing waits: no commit since".to_owned(),
        0 => format!("nothing waits: of {since} since, none touches it"),
        touching => format!("waiting: {} of {} ({since} since)", count(touching, "commit"), count(waiting.authors.len(), "author")),
    };
    let _ = writeln!(out, "  {heading}");
    listing(out, waiting.commits.iter().map(|commit| commit_line(commit.commit, now)), verbose);
}

/// Indented lines; without `verbose` only the first ones.
fn listing(out: &mut String, lines: impl ExactSizeIterator<Item = String>, verbose: bool) {
    let left = if verbose { 0 } else { lines.len().saturating_sub(SHOWN) };
    let shown = lines.len() - left;
    for line in lines.take(shown) {
        let _ = writeln!(out, "    {line}");
    }
    if left > 0 {
        let _ = writeln!(out, "    and {left} more (-v shows all)");
    }
}

/// `0123456789ab Fix the login (Ada, 3 days ago)`; what a commit says is text, never escape sequences.
fn commit_line(commit: &CommitInfo, now: OffsetDateTime) -> String {
    let subject = clip(&clean(&commit.subject), 72);
    format!("{} {subject} ({}, {})", commit.id.short(), clip(&clean(&commit.author), 40), age(commit.time, now))
}

fn what_if(global: &Global, args: &WhyArgs, selection: &Selection) -> Result<u8> {
    let world = World::open(global, selection)?;
    let found = read::apps(&world)?;
    let inputs = read::inputs(&world, &found)?;
    let here = here(global)?;
    let mut changes = BTreeSet::new();
    for path in &args.what_if {
        changes.extend(as_if_changed(&world, &here, path)?);
    }
    let changes: Vec<Change> = changes.into_iter().collect();
    let mut affected = Matcher::new(&inputs).affected(&changes);
    affected.apply(world.config.unowned, &inputs)?;
    let mut notes = Vec::new();
    if let Some(file) = world.config.file.as_ref().filter(|file| changes.iter().any(|change| change.path == **file)) {
        notes.push(format!("a change of `{file}` deploys the apps whose settings it changes, and no others"));
    }
    let mut apps = Vec::new();
    for app in world.apps() {
        let Some(inputs) = inputs.iter().find(|inputs| inputs.app == app.name) else { continue };
        let reasons: Vec<Reason> = affected.reasons.get(&app.name).into_iter().flatten().cloned().map(Reason::Path).collect();
        apps.push((app, reasons, misses_of(&*world.files, inputs, &changes, NEAREST)));
    }
    match args.format {
        Format::Text => {
            for note in &notes {
                super::tell(format!("note: {note}"));
            }
            let mut out = String::new();
            for (app, reasons, near) in &apps {
                let word = if reasons.is_empty() { "would be left alone" } else { "would be deployed" };
                let _ = writeln!(out, "{}: {word}", app.name);
                listing(&mut out, reasons.iter().map(ToString::to_string), global.verbose);
                // Asked about every app, what is near to each of those left alone would bury the answer.
                if reasons.is_empty() && (!args.apps.is_empty() || global.verbose) {
                    nearest(&mut out, near, global.verbose);
                }
            }
            for change in &affected.unowned {
                let _ = writeln!(out, "no app owns {}", change.path);
            }
            super::print(&out)
        }
        Format::Json => {
            let answer = WhatIf {
                version: VERSION,
                what_if: &changes,
                apps: apps
                    .iter()
                    .map(|(app, reasons, near)| WhatIfApp {
                        app: &app.name,
                        racks: app.targets.iter().map(|on| &on.rack).collect(),
                        changed: !reasons.is_empty(),
                        reasons: reasons.iter().map(ReasonOf::new).collect(),
                        near: near.iter().map(Near::new).collect(),
                    })
                    .collect(),
                unowned: affected.unowned.iter().collect(),
                notes: &notes,
            };
            super::print_data(&format!("{:#}\n", json!(answer)))
        }
    }
}

/// A path as if it had changed: modified when HEAD has it, added when not; a directory stands for the files HEAD has in it.
fn as_if_changed(world: &World, here: &Path, path: &Path) -> Result<Vec<Change>> {
    let outside = || Error::config(format!("`{}` is outside the repository", path.display()));
    let root = world.history.root().canonicalize().unwrap_or_else(|_| world.history.root().to_owned());
    let full = cleaned(&here.join(path)).ok_or_else(outside)?;
    let inside = full.strip_prefix(&root).map_err(|_| outside())?;
    let path = RepoPath::from_git(inside.as_os_str().as_bytes());
    let files = world.history.files(&world.head.commit.id, &path)?;
    if files.is_empty() {
        return Ok(vec![Change { path, kind: ChangeKind::Added, dirty: false }]);
    }
    Ok(files.into_iter().map(|entry| Change { path: entry.path, kind: ChangeKind::Modified, dirty: false }).collect())
}

/// An absolute path without `.` and `..`, by its text: what it names need not exist.
fn cleaned(path: &Path) -> Option<PathBuf> {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                if !out.pop() {
                    return None;
                }
            }
            part => out.push(part),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_by_their_text() {
        let table = [("/a/./b/../c", Some("/a/c")), ("/a/..", Some("/")), ("/..", None)];
        for (path, clean) in table {
            assert_eq!(cleaned(Path::new(path)), clean.map(PathBuf::from), "{path}");
        }
    }
}
