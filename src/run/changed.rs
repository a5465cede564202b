//! `offbuild changed`: which apps changed, against the racks or, without them, against a base.

use super::answer::{self, Gone, VERSION};
use super::compare::{Comparison, compare, is_changed, removed};
use super::read;
use crate::changes::Change;
use crate::changes::near::{Miss, Missed};
use crate::cli::{Changed, ChangedFormat, Global};
use crate::config::Removed;
use crate::error::{Error, Result};
use crate::names::{AppName, CommitId, Target};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;

/// Answers on standard output; with `--exit-code` 1 says that something changed.
pub(super) async fn changed(global: &Global, args: &Changed) -> Result<u8> {
    let comparison = compare(global, &args.selection, &args.base).await?;
    // Who asks for some apps gets those: a name that is no app's any more has been refused already.
    let gone = if args.selection.apps.is_empty() && args.selection.racks.is_empty() {
        tokio::task::block_in_place(|| removed(&comparison.world, &comparison.judgement))?
    } else {
        Vec::new()
    };
    let judgement = &comparison.judgement;
    let names: BTreeSet<&AppName> = judgement.targets.iter().filter(|judged| is_changed(judged)).map(|judged| &judged.target.app).collect();
    match args.format {
        ChangedFormat::Text => {
            for note in &judgement.notes {
                eprintln!("note: {note}");
            }
            super::print(&text(&comparison, &gone, global.verbose))?;
        }
        ChangedFormat::Names => {
            let lines: String = names.iter().map(|name| format!("{name}\n")).collect();
            super::print(&lines)?;
        }
        ChangedFormat::Json => drop(super::print(&format!("{:#}\n", report(&comparison, &gone, &names)))?),
        ChangedFormat::Matrix => drop(super::print(&format!("{}\n", matrix(&comparison)))?),
    }
    tell_github(&comparison, &names)?;
    Ok(u8::from(args.exit_code && !names.is_empty()))
}

/// What GitHub's `fromJSON` makes a job matrix of: one job per changed target.
fn matrix(comparison: &Comparison) -> Value {
    let changed = comparison.judgement.targets.iter().filter(|judged| is_changed(judged));
    let include: Vec<Value> =
        changed.map(|judged| json!({"app": judged.target.app, "rack": judged.target.rack, "target": judged.target.to_string()})).collect();
    json!({ "include": include })
}

/// The outputs of a GitHub Actions step: `affected`, a JSON list of app names; `matrix`; `any`.
fn tell_github(comparison: &Comparison, names: &BTreeSet<&AppName>) -> Result<()> {
    let env = |name: &str| (comparison.world.env)(name).filter(|value| !value.is_empty());
    let (Some("true"), Some(path)) = (env("GITHUB_ACTIONS").as_deref(), env("GITHUB_OUTPUT")) else { return Ok(()) };
    // Names and JSON in one line hold no line feed, so the simple form does.
    let text = format!("affected={}\nmatrix={}\nany={}\n", json!(names), matrix(comparison), !names.is_empty());
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| Error::failed(format!("`GITHUB_OUTPUT` names `{path}`, which cannot be written")).because(error))
}

/// Changes that no app owns, committed since any of the bases or not.
fn unowned(comparison: &Comparison) -> BTreeSet<&Change> {
    let judgement = &comparison.judgement;
    let committed = judgement.compared.values().flat_map(|compared| &compared.affected.unowned);
    committed.chain(&judgement.dirty_paths.unowned).collect()
}

/// A block per target: verdict, base, reasons; the nearest misses of what is left alone.
fn text(comparison: &Comparison, gone: &[(Removed, CommitId)], verbose: bool) -> String {
    let judgement = &comparison.judgement;
    let lost: Vec<(String, &CommitId)> = gone.iter().flat_map(|(app, base)| targets(app).map(move |target| (target, base))).collect();
    let names = judgement.targets.iter().map(|judged| judged.target.to_string()).chain(lost.iter().map(|(target, _)| target.clone()));
    let width = names.map(|name| name.len()).max().unwrap_or(0);
    let mut out = String::new();
    for judged in &judgement.targets {
        let decision = &judged.decision;
        let word = if is_changed(judged) { "changed" } else { decision.verdict.word() };
        let base = match (&decision.base, &decision.base_source) {
            (Some(base), Some(source)) => format!("  since {} ({source})", base.short()),
            _ => String::new(),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{:width$}  {word}{base}", judged.target);
        let reasons = read::reasons(decision);
        let shown = if verbose { reasons.len() } else { 3 };
        for reason in reasons.iter().take(shown) {
            let _ = writeln!(out, "{:width$}    {reason}", "");
        }
        if reasons.len() > shown {
            let _ = writeln!(out, "{:width$}    and {} more (-v shows all)", "", reasons.len() - shown);
        }
        if verbose {
            for near in &decision.near {
                let _ = writeln!(out, "{:width$}    not counted: {} ({})", "", near.change.path, near.rule);
            }
        }
    }
    for (target, base) in lost {
        let _ = writeln!(out, "{target:width$}  removed  since {} (nothing is done to the rack)", base.short());
    }
    if verbose {
        for change in unowned(comparison) {
            let _ = writeln!(out, "unowned: {} {}", change.kind, change.path);
        }
    }
    out
}

/// The targets an app had; its name alone when it went nowhere.
fn targets(app: &Removed) -> impl Iterator<Item = String> {
    let alone = app.racks.is_empty().then(|| app.name.to_string());
    let on = app.racks.iter().map(|rack| Target { app: app.name.clone(), rack: rack.clone() }.to_string());
    on.chain(alone)
}

fn report(comparison: &Comparison, gone: &[(Removed, CommitId)], names: &BTreeSet<&AppName>) -> Value {
    let Comparison { world, judgement, .. } = comparison;
    let near: Vec<Vec<Miss>> = judgement
        .targets
        .iter()
        .map(|judged| {
            let near = judged.decision.near.iter();
            near.map(|near| Miss { change: near.change.clone(), why: Missed::Ignored(near.rule.clone()) }).collect()
        })
        .collect();
    json!(answer::Changed {
        version: VERSION,
        head: &world.head,
        any: !names.is_empty(),
        affected: names.clone(),
        targets: judgement.targets.iter().zip(&near).map(|(judged, near)| answer::Target::new(judged, near)).collect(),
        removed: gone.iter().map(|(app, base)| Gone::new(app, base)).collect(),
        unowned: unowned(comparison).into_iter().collect(),
        notes: &judgement.notes,
    })
}
