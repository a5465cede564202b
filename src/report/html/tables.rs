//! The tables: what each target ended as and why, and what became of each image.

use super::{begin, escape, list, safe};
use crate::event::{StepOutcome, TargetOutcome};
use crate::names::Target;
use crate::report::state::{RunState, TargetState};
use crate::report::summary::{live_words, outcome_word, why};
use crate::report::text::{count, took};
use std::fmt::Write as _;

/// More targets than this with nothing to do are folded: who reads a page of 200 apps looks for the others.
const IDLE_SHOWN: usize = 20;

fn mood(target: &TargetState) -> &'static str {
    match &target.outcome {
        Some(TargetOutcome::Deployed { .. } | TargetOutcome::Staged { .. }) => "good",
        Some(TargetOutcome::UpToDate) => "idle",
        Some(TargetOutcome::Failed { .. } | TargetOutcome::RolledBack { .. }) => "bad",
        _ => "left",
    }
}

/// Opens a table that can be scrolled with the keyboard, with its columns.
fn table(page: &mut String, name: &str, columns: &[&str]) {
    let _ = write!(page, "<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"table of {name}\"><table><thead><tr>");
    for column in columns {
        let _ = write!(page, "<th scope=\"col\">{column}</th>");
    }
    page.push_str("</tr></thead><tbody>\n");
}

const END: &str = "</tbody></table></div>\n";

pub(super) fn targets(state: &RunState, page: &mut String) {
    if state.targets.is_empty() {
        return;
    }
    begin(page, "targets");
    let idle = |known: &TargetState| known.outcome == Some(TargetOutcome::UpToDate);
    let (rest, more): (Vec<_>, Vec<_>) = state.targets_in_order().into_iter().partition(|(_, known)| !idle(known));
    if more.len() <= IDLE_SHOWN {
        rows(page, "targets", state, &state.targets_in_order());
    } else {
        if !rest.is_empty() {
            rows(page, "targets", state, &rest);
        }
        let _ = writeln!(page, "<details class=\"fold\"><summary>{} with nothing to do</summary>", count(more.len(), "target"));
        rows(page, "targets with nothing to do", state, &more);
        page.push_str("</details>\n");
    }
    page.push_str("</section>\n");
}

fn rows(page: &mut String, name: &str, state: &RunState, targets: &[(&Target, &TargetState)]) {
    table(page, name, &["target", "outcome", "live now", "took", "why"]);
    for (target, known) in targets {
        let [release, note] = live_words(target, state);
        let word = outcome_word(known, state.finished.is_some());
        let spent = if known.millis == 0 { String::new() } else { took(known.millis) };
        let _ = write!(page, "<tr data-row><th scope=\"row\">{target}</th><td class=\"word {}\">{}</td>", mood(known), escape(&word));
        let _ = write!(page, "<td><code>{release}</code> <span class=\"dim\">{}</span></td><td>{spent}</td>", escape(&note));
        let _ = write!(page, "<td><details><summary>{}</summary>", safe(why(known).lines().next().unwrap_or_default()));
        let base = known.base.as_ref().map_or_else(String::new, |base| format!(", compared with {}", base.short()));
        let source = if known.base_source.is_empty() { String::new() } else { format!(" ({})", safe(&known.base_source)) };
        let _ = write!(page, "<p class=\"dim\">verdict: {}{base}{source}</p>", safe(&known.verdict));
        list(page, &known.reasons);
        page.push_str("</details></td></tr>\n");
    }
    page.push_str(END);
}

pub(super) fn images(state: &RunState, page: &mut String) {
    if state.images.is_empty() {
        return;
    }
    begin(page, "images");
    table(page, "images", &["image", "what", "cache hits", "reference"]);
    for ((app, service), image) in state.images_in_order() {
        let build = state.build_of(app, service);
        let what = match build.map(|build| (&build.outcome, took(build.millis))) {
            Some((Some(StepOutcome::Done), spent)) => format!("built in {spent}"),
            Some((Some(StepOutcome::Failed { .. }), spent)) => format!("failed after {spent}"),
            Some((_, _)) => "cancelled".to_owned(),
            None if image.action == "build" && image.digest.is_none() => "not built".to_owned(),
            None => image.action.clone(),
        };
        let digest = image.digest.as_ref().map_or_else(|| "not pushed".to_owned(), ToString::to_string);
        let _ = write!(page, "<tr data-row><th scope=\"row\">{app}/{service}</th><td>{}</td><td>", safe(&what));
        if let Some(build) = build {
            let (steps, cached) = build.cache_hits();
            let share = (cached * 100).checked_div(steps).unwrap_or(0);
            let _ = write!(
                page,
                "<details><summary><span class=\"hits\" aria-hidden=\"true\"><i style=\"width:{share}%\"></i></span>{cached} of {steps}</summary><ul>"
            );
            for step in &build.build_steps {
                let end = match (&step.error, step.cached, step.done) {
                    (Some(error), _, _) => format!("<span class=\"bad\">{}</span>", safe(error)),
                    (None, true, _) => "<span class=\"good\">cached</span>".to_owned(),
                    (None, false, true) => took(step.millis.unwrap_or_default()),
                    (None, false, false) => "not finished".to_owned(),
                };
                let _ = write!(page, "<li><code>{}</code> {end}</li>", safe(&step.name));
            }
            page.push_str("</ul></details>");
        }
        let _ = writeln!(page, "</td><td><code>{}</code><br><code class=\"dim\">{digest}</code></td></tr>", safe(&image.reference));
    }
    page.push_str(END);
    page.push_str("</section>\n");
}
