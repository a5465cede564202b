//! The timeline: what is built and pushed, app by app, then one block per rack with its lane's targets.

use super::{begin, escape};
use crate::event::{Stage, Step, StepOutcome};
use crate::report::critical;
use crate::report::state::{RunState, StepState};
use crate::report::text::{clean, count, took};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use time::OffsetDateTime;

type Rows<'a> = BTreeMap<String, Vec<(&'a Step, &'a StepState)>>;

/// A block of more rows than this is folded at first.
const ROWS_SHOWN: usize = 60;

pub(super) fn draw(state: &RunState, page: &mut String) {
    let steps = state.steps_in_order();
    let starts = steps.iter().map(|(_, known)| known.started).min();
    let (Some(start), Some(end)) = (state.run.as_ref().map(|run| run.started).or(starts), state.last) else { return };
    if steps.is_empty() {
        return;
    }
    let scale = Scale { start, end, millis: u64::try_from((end - start).whole_milliseconds()).unwrap_or_default().max(1) };
    let path = critical::path(state);
    let critical: BTreeSet<&Step> = path.iter().map(|(step, _)| *step).collect();
    let mut apps = Rows::new();
    let mut racks: BTreeMap<&str, Rows<'_>> = BTreeMap::new();
    for (step, known) in steps {
        let rows = step.rack.as_ref().map_or(&mut apps, |rack| racks.entry(rack.as_str()).or_default());
        rows.entry(step.subject()).or_default().push((step, known));
    }
    begin(page, "timeline");
    let _ = writeln!(
        page,
        "<div class=\"scale\" aria-hidden=\"true\"><span></span><div><span>0.0s</span><span>{}</span></div></div>",
        took(scale.millis)
    );
    group(page, "images", &apps, &scale, &critical);
    for (rack, rows) in &racks {
        group(page, &format!("rack {}", escape(rack)), rows, &scale, &critical);
    }
    page.push_str("<p class=\"legend dim\" aria-hidden=\"true\">");
    for (name, colour) in [
        ("build", "build"),
        ("push", "push"),
        ("hook", "hook"),
        ("stage", "stage"),
        ("promote", "promote"),
        ("failed", "bad"),
        ("critical path", "ink"),
        ("cached", "hit"),
    ] {
        let _ = write!(page, "<span style=\"--c:var(--{colour})\">{name}</span>");
    }
    page.push_str("</p>\n");
    waited(page, &path, scale.millis);
    page.push_str("</section>\n");
}

/// The critical path as a list: the bars that lie on it are only marked.
fn waited(page: &mut String, path: &[(&Step, &StepState)], run: u64) {
    let spent: u64 = path.iter().map(|(_, known)| known.millis).sum();
    let _ =
        write!(page, "<details id=\"critical\"><summary>Critical path: {}, {} of {}", count(path.len(), "step"), took(spent), took(run));
    page.push_str("</summary>\n<p class=\"dim\">What the end of the run waited for: each began when the one before had ended.</p>\n<ol>");
    for (step, known) in path {
        let _ = write!(page, "<li data-row>{} {} <span class=\"dim\">{}", escape(&step.subject()), step.stage.name(), took(known.millis));
        if let Some(hits) = hits(known) {
            let _ = write!(page, ", {hits}");
        }
        page.push_str("</span></li>\n");
    }
    page.push_str("</ol></details>\n");
}

/// `1 of 3 cached`, for what was built.
fn hits(known: &StepState) -> Option<String> {
    let (steps, cached) = known.cache_hits();
    (steps > 0).then(|| format!("{cached} of {steps} cached"))
}

struct Scale {
    start: OffsetDateTime,
    end: OffsetDateTime,
    millis: u64,
}

impl Scale {
    /// A place in hundredths of a percent: fine enough for a screen, and whole numbers draw the same everywhere.
    fn place(&self, time: OffsetDateTime) -> u64 {
        let millis = u64::try_from((time - self.start).whole_milliseconds()).unwrap_or_default();
        (millis.min(self.millis) * 10_000) / self.millis
    }
}

fn group(page: &mut String, name: &str, rows: &Rows<'_>, scale: &Scale, critical: &BTreeSet<&Step>) {
    if rows.is_empty() {
        return;
    }
    let open = if rows.len() <= ROWS_SHOWN { " open" } else { "" };
    let _ = write!(page, "<details class=\"fold group\"{open}><summary>{name} <span class=\"dim\">{}", count(rows.len(), "row"));
    page.push_str("</span></summary>\n<ul class=\"rows\">\n");
    // A row stands where its first step does.
    let mut rows: Vec<_> = rows.iter().collect();
    rows.sort_by_key(|(_, steps)| steps.first().map(|(_, known)| known.order));
    for (subject, steps) in rows {
        let subject = escape(subject);
        let _ = write!(page, "<li class=\"row\" data-row><div class=\"name\" title=\"{subject}\">{subject}</div><div class=\"track\">");
        steps.iter().for_each(|(step, known)| bar(page, step, known, scale, critical.contains(step)));
        page.push_str("</div></li>\n");
    }
    page.push_str("</ul></details>\n");
}

fn bar(page: &mut String, step: &Step, known: &StepState, scale: &Scale, critical: bool) {
    let (left, right) = (scale.place(known.started), scale.place(known.ended.unwrap_or(scale.end)));
    let wide = right.saturating_sub(left);
    let (kind, word) = match &known.outcome {
        Some(StepOutcome::Failed { .. } | StepOutcome::RolledBack { .. }) => ("failed", "failed after "),
        Some(StepOutcome::Cancelled) => ("open", "cancelled after "),
        None => ("open", "not finished "),
        Some(StepOutcome::Done) => (class(step.stage), ""),
    };
    let name = step.stage.name();
    let spent = if known.outcome.is_some() { took(known.millis) } else { String::new() };
    let cached = hits(known).map_or_else(String::new, |hits| format!(", {hits}"));
    let on_path = if critical { ", on the critical path" } else { "" };
    let title = escape(&clean(&format!("{} {name}: {word}{spent}{cached}{on_path} {}", step.subject(), known.detail)));
    // A name that does not fit is in the tooltip and in the table of logs.
    let label = if wide > 600 { format!("{name} {spent}") } else { String::new() };
    let hundredths = |value: u64| format!("{}.{:02}%", value / 100, value % 100);
    let mark = if critical { " critical" } else { "" };
    let (left, wide) = (hundredths(left), hundredths(wide));
    let _ = write!(page, "<div class=\"bar {kind}{mark}\" style=\"left:{left};width:{wide}\" role=\"img\" aria-label=\"{title}\"");
    let _ = write!(page, " title=\"{title}\">{label}");
    let (steps, hit) = known.cache_hits();
    if let Some(share) = (hit * 100).checked_div(steps).filter(|share| *share > 0) {
        let _ = write!(page, "<i class=\"hit\" style=\"width:{share}%\"></i>");
    }
    page.push_str("</div>");
}

fn class(stage: Stage) -> &'static str {
    match stage {
        Stage::Build => "build",
        Stage::Push => "push",
        Stage::Retag => "retag",
        Stage::Stage => "stage",
        Stage::Promote | Stage::GoBack | Stage::Heal => "promote",
        Stage::BeforeBuild | Stage::AfterBuild | Stage::BeforeRelease | Stage::AfterRelease | Stage::OnFailure => "hook",
    }
}
