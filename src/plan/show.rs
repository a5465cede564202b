//! The plan as people and programs read it.

use super::{Decision, Gone, ImageAction, Origin, Plan, TargetPlan};
use crate::names::{CommitId, RackName};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// The version of the JSON.
pub const FORMAT_VERSION: u32 = 1;

/// What a question shows of a plan's notes and targets.
const MOST_NOTES: usize = 2;
const MOST_TARGETS: usize = 6;

/// The plan step by step, with its reasons. `verbose` shows every reason, not only the first ones.
#[must_use]
pub fn text(plan: &Plan, verbose: bool) -> String {
    let mut out = String::new();
    let branch = plan.head.branch.as_ref().map_or_else(String::new, |branch| format!(" ({branch})"));
    line(&mut out, &format!("commit {}{branch} {}", plan.head.commit.id.short(), plan.head.commit.subject));
    for note in &plan.notes {
        line(&mut out, &format!("note: {note}"));
    }
    let width = plan.targets().map(|target| target.target.app.as_str().len()).max().unwrap_or(0);
    for lane in &plan.lanes {
        let after: Vec<&str> = lane.after.iter().map(RackName::as_str).collect();
        let after = if after.is_empty() { String::new() } else { format!(" (after {})", after.join(", ")) };
        line(&mut out, &format!("\nrack {}{after}", lane.rack));
        for target in &lane.targets {
            target_text(&mut out, plan, target, width, verbose);
        }
    }
    if !plan.removed.is_empty() {
        line(&mut out, "\nremoved, nothing is done to the racks");
        for gone in &plan.removed {
            for target in gone.targets() {
                line(&mut out, &format!("  {target} since {}", gone.base.short()));
            }
        }
    }
    if plan.apps.is_empty() {
        line(&mut out, "\nnothing to build, nothing to release");
        return out;
    }
    line(&mut out, &format!("\nimages, {} at a time", plan.options.jobs));
    for app in plan.apps.values() {
        for image in &app.images {
            let why = match &image.action {
                ImageAction::Build { build } => {
                    let others: Vec<String> = plan.builds[*build]
                        .used_by
                        .iter()
                        .filter(|(name, service)| (name, service) != (&app.name, &image.service))
                        .map(|(name, service)| format!("{name}/{service}"))
                        .collect();
                    if others.is_empty() { String::new() } else { format!(", one build with {}", others.join(", ")) }
                }
                ImageAction::Reuse { .. } => ", an image of these inputs is in the registry".to_owned(),
                ImageAction::Present { .. } => ", it is there already".to_owned(),
                ImageAction::Conflict { message, .. } => format!(", {message}"),
            };
            line(&mut out, &format!("  {}/{} {} {}{why}", app.name, image.service, image.action.word(), image.reference()));
        }
        let hooks: Vec<&str> = app.hooks.keys().filter(|kind| app.builds() || !kind.is_of_build()).map(|kind| kind.name()).collect();
        if !hooks.is_empty() {
            line(&mut out, &format!("  {} hooks: {}", app.name, hooks.join(", ")));
        }
        if !app.builds() && app.hooks.keys().any(|kind| kind.is_of_build()) {
            line(&mut out, &format!("  {} is not built again, so its build hooks do not run", app.name));
        }
    }
    out
}

/// The plan in about ten lines, for a question: how much there is to do, and which targets it is for, those on `first` before the
/// others. `subject` tells a commit's, when it is here.
#[must_use]
pub fn brief(plan: &Plan, first: &BTreeSet<&RackName>, subject: &dyn Fn(&CommitId) -> Option<String>) -> String {
    let mut out = String::new();
    let head = &plan.head.commit;
    line(&mut out, &format!("commit {} {}", head.id.short(), head.subject));
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    plan.targets().for_each(|target| *counts.entry(target.decision.word()).or_default() += 1);
    let counts: Vec<String> = counts.iter().map(|(word, number)| format!("{number} {word}")).collect();
    let images = plan.apps.values().map(|app| app.images.len()).sum::<usize>();
    line(&mut out, &format!("targets: {}; images: {} to build of {images}", counts.join(", "), plan.builds.len()));
    for note in plan.notes.iter().take(MOST_NOTES) {
        line(&mut out, &format!("note: {note}"));
    }
    let mut changed: Vec<&TargetPlan> = plan.changed().collect();
    changed.sort_by_key(|target| !first.contains(&target.target.rack));
    let width = changed.iter().take(MOST_TARGETS).map(|target| target.target.to_string().len()).max().unwrap_or(0);
    for target in changed.iter().take(MOST_TARGETS) {
        let what = match (&target.origin, &target.base) {
            (Origin::Copy { .. }, _) => target.reasons.first().cloned().unwrap_or_default(),
            (_, Some(base)) => {
                let subject = subject(base).map_or_else(String::new, |subject| format!(" from \"{subject}\""));
                format!("{} → {}{subject}", base.short(), head.id.short())
            }
            (_, None) => format!("→ {}", head.id.short()),
        };
        line(&mut out, &format!("  {:width$}  {}  {what}", target.target.to_string(), target.decision.word()));
    }
    let more = changed.len().saturating_sub(MOST_TARGETS) + plan.notes.len().saturating_sub(MOST_NOTES);
    if more > 0 {
        line(&mut out, &format!("  … and {more} more (offbuild plan)"));
    }
    out
}

fn target_text(out: &mut String, plan: &Plan, target: &TargetPlan, width: usize, verbose: bool) {
    let base = target.base.as_ref().map_or_else(String::new, |base| format!(" compared with {} ({})", base.short(), target.base_source));
    line(out, &format!("  {:width$}  {}{base}", target.target.app, target.decision.word()));
    if let Decision::Failed { message, hint, .. } = &target.decision {
        line(out, &format!("  {:width$}    {message}", ""));
        if let Some(hint) = hint {
            line(out, &format!("  {:width$}    next: {hint}", ""));
        }
    }
    let shown = if verbose { target.reasons.len() } else { 3 };
    for reason in target.reasons.iter().take(shown) {
        line(out, &format!("  {:width$}    {reason}", ""));
    }
    if target.reasons.len() > shown {
        line(out, &format!("  {:width$}    and {} more (-v shows all)", "", target.reasons.len() - shown));
    }
    let with: Vec<&str> = plan.goes_back_with(target).map(|other| other.target.app.as_str()).collect();
    if let Some(group) = target.group.as_ref().filter(|_| target.decision == Decision::Release && !with.is_empty()) {
        line(out, &format!("  {:width$}    goes back with {} (group `{group}`)", "", with.join(", ")));
    }
    if let Some(trap) = &target.trap {
        line(out, &format!("  {:width$}    {trap}", ""));
        if target.decision != Decision::Release {
            line(out, &format!("  {:width$}    next: offbuild heal {}", "", target.target));
        }
    }
}

fn line(out: &mut String, text: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{}", text.trim_end());
}

/// The plan for programs; see [`FORMAT_VERSION`].
#[must_use]
pub fn json(plan: &Plan) -> Value {
    let targets = |lane: &super::LanePlan| -> Vec<Value> {
        let target = |target: &TargetPlan| {
            json!({
                "target": target.target.to_string(),
                "app": target.target.app,
                "rack": target.target.rack,
                "verdict": target.decision.word(),
                "reasons": target.reasons,
                "base": target.base,
                "base_source": target.base_source,
                "live_release": target.live.as_ref().map(|live| &live.release),
                "after": target.after,
                "group": target.group,
                "trap": target.trap,
            })
        };
        lane.targets.iter().map(target).collect()
    };
    let images = plan.apps.values().flat_map(|app| {
        app.images.iter().map(move |image| {
            json!({
                "app": app.name,
                "service": image.service,
                "action": image.action.word(),
                "reference": image.reference(),
                "fingerprint": app.fingerprint,
                "revision": app.revision,
            })
        })
    });
    json!({
        "version": FORMAT_VERSION,
        "commit": plan.head.commit,
        "options": plan.options,
        "notes": plan.notes,
        "lanes": plan.lanes.iter().map(|lane| json!({"rack": lane.rack, "after": lane.after, "targets": targets(lane)})).collect::<Vec<_>>(),
        "removed": plan.removed.iter().map(|Gone { app, base }| {
            json!({"app": app.name, "dir": app.dir, "racks": app.racks, "base": base})
        }).collect::<Vec<_>>(),
        "images": images.collect::<Vec<_>>(),
        "builds": plan.builds.iter().map(|build| json!({
            "used_by": build.used_by.iter().map(|(app, service)| format!("{app}/{service}")).collect::<Vec<_>>(),
            "context": build.build.context,
            "dockerfile": build.build.dockerfile,
            "target": build.build.target,
        })).collect::<Vec<_>>(),
    })
}
