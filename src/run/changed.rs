//! `offbuild changed`: which apps changed, against the racks or, without them, against a base.

use super::read::{self, Ask, Judged, Judgement};
use super::world::World;
use crate::changes::base::Choice;
use crate::changes::verdict::Verdict;
use crate::cli::{Changed, ChangedFormat, Global};
use crate::error::Result;
use crate::names::AppName;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// The version of the JSON.
const FORMAT_VERSION: u32 = 1;

/// Answers on standard output; with `--exit-code` 1 says that something changed.
pub(super) async fn changed(global: &Global, args: &Changed) -> Result<u8> {
    let mut world = World::open(global, &args.selection)?;
    let ask = Ask { base: args.base.clone(), allow_dirty: true, allow_diverged: true, ..Ask::default() };
    let mut found = tokio::task::block_in_place(|| read::apps(&world))?;
    let mut note = None;
    let live = match &args.base.base {
        Some(_) => None,
        None => {
            let live = match world.rack_clients() {
                Ok(racks) if !racks.is_empty() => Ok(read::live(&world, &racks).await),
                Ok(_) => Err("no rack is configured".to_owned()),
                Err(error) => Err(error.one_line()),
            };
            match live.and_then(|live| read::no_rack(&live).map_or(Ok(live), |error| Err(error.one_line()))) {
                Ok(live) => Some(live),
                Err(why) => {
                    note = Some(format!("no rack can be asked what is live ({why}); compared with a base instead"));
                    None
                }
            }
        }
    };
    let judge = |world: &World, found: &[read::Found]| {
        let given = match &live {
            Some(_) => None,
            None => Some(read::chosen_base(world, args.base.base.as_deref())?),
        };
        Ok::<_, crate::error::Error>((read::judge(world, found, live.as_ref(), &ask, given.clone())?, given))
    };
    let (mut judgement, mut given) = tokio::task::block_in_place(|| judge(&world, &found))?;
    if ask.base.fetch && tokio::task::block_in_place(|| read::fetch(&world, &judgement))? {
        world = World::open(global, &args.selection)?;
        found = tokio::task::block_in_place(|| read::apps(&world))?;
        (judgement, given) = tokio::task::block_in_place(|| judge(&world, &found))?;
    }
    judgement.notes.extend(note);
    if let Some(Choice::Found(base)) = &given {
        judgement.notes.push(format!("base {} from {}", base.commit.short(), base.source));
        judgement.notes.extend(base.notes.iter().cloned());
    }
    let names: BTreeSet<&AppName> = judgement.targets.iter().filter(|judged| is_changed(judged)).map(|judged| &judged.target.app).collect();
    match args.format {
        ChangedFormat::Text => {
            for note in &judgement.notes {
                eprintln!("note: {note}");
            }
            super::print(&text(&judgement, global.verbose))?;
        }
        ChangedFormat::Names => {
            let lines: String = names.iter().map(|name| format!("{name}\n")).collect();
            super::print(&lines)?;
        }
        ChangedFormat::Json => drop(super::print(&format!("{:#}\n", report(&world, &judgement)))?),
        ChangedFormat::Matrix => {
            let include: Vec<Value> = judgement
                .targets
                .iter()
                .filter(|judged| is_changed(judged))
                .map(|judged| json!({"app": judged.target.app, "rack": judged.target.rack, "target": judged.target.to_string()}))
                .collect();
            super::print(&format!("{}\n", json!({"include": include})))?;
        }
    }
    Ok(u8::from(args.exit_code && !names.is_empty()))
}

fn is_changed(judged: &Judged) -> bool {
    matches!(judged.decision.verdict, Verdict::Deploy | Verdict::Refused { .. })
}

/// A block per target: verdict, base, reasons; the nearest misses of what is left alone.
fn text(judgement: &Judgement, verbose: bool) -> String {
    let mut out = String::new();
    let width = judgement.targets.iter().map(|judged| judged.target.to_string().len()).max().unwrap_or(0);
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
                let _ = writeln!(out, "{:width$}    not counted: {} ({})", "", near.change.path, near.rule.matches);
            }
        }
    }
    out
}

fn report(world: &World, judgement: &Judgement) -> Value {
    let targets: Vec<Value> = judgement
        .targets
        .iter()
        .map(|judged| {
            json!({
                "app": judged.target.app,
                "rack": judged.target.rack,
                "target": judged.target.to_string(),
                "changed": is_changed(judged),
                "decision": judged.decision,
            })
        })
        .collect();
    json!({"version": FORMAT_VERSION, "head": world.head, "notes": judgement.notes, "targets": targets})
}
