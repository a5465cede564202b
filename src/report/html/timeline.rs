//! The timeline: what is built and pushed, app by app, then one block per rack with its lane's targets.

use super::escape;
use crate::event::{Stage, Step, StepOutcome};
use crate::report::state::{RunState, StepState};
use crate::report::text::{clean, took};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use time::OffsetDateTime;

type Rows<'a> = BTreeMap<String, Vec<(&'a Step, &'a StepState)>>;

pub(super) fn draw(state: &RunState, page: &mut String) {
    let steps = state.steps_in_order();
    let starts = steps.iter().map(|(_, known)| known.started).min();
    let (Some(start), Some(end)) = (state.run.as_ref().map(|run| run.started).or(starts), state.last) else { return };
    if steps.is_empty() {
        return;
    }
    let scale = Scale { start, end, millis: u64::try_from((end - start).whole_milliseconds()).unwrap_or_default().max(1) };
    let mut apps = Rows::new();
    let mut racks: BTreeMap<&str, Rows<'_>> = BTreeMap::new();
    for (step, known) in steps {
        let rows = step.rack.as_ref().map_or(&mut apps, |rack| racks.entry(rack.as_str()).or_default());
        rows.entry(step.subject()).or_default().push((step, known));
    }
    page.push_str("<section>\n<h2>Timeline</h2>\n");
    let _ = writeln!(page, "<div class=\"scale\"><span></span><div><span>0.0s</span><span>{}</span></div></div>", took(scale.millis));
    group(page, "images", &apps, &scale);
    for (rack, rows) in &racks {
        group(page, &format!("rack {}", escape(rack)), rows, &scale);
    }
    page.push_str("<p class=\"legend dim\">");
    for (name, colour) in
        [("build", "build"), ("push", "push"), ("hook", "hook"), ("stage", "stage"), ("promote", "promote"), ("failed", "bad")]
    {
        let _ = write!(page, "<span style=\"--c:var(--{colour})\">{name}</span>");
    }
    page.push_str("</p>\n</section>\n");
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

fn group(page: &mut String, name: &str, rows: &Rows<'_>, scale: &Scale) {
    if rows.is_empty() {
        return;
    }
    let _ = writeln!(page, "<div class=\"group\">{name}</div>");
    // A row stands where its first step does.
    let mut rows: Vec<_> = rows.iter().collect();
    rows.sort_by_key(|(_, steps)| steps.first().map(|(_, known)| known.order));
    for (subject, steps) in rows {
        let _ = write!(page, "<div class=\"row\"><div class=\"name\">{}</div><div class=\"track\">", escape(subject));
        steps.iter().for_each(|(step, known)| bar(page, step, known, scale));
        page.push_str("</div></div>\n");
    }
}

fn bar(page: &mut String, step: &Step, known: &StepState, scale: &Scale) {
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
    let title = escape(&clean(&format!("{} {name}: {word}{spent} {}", step.subject(), known.detail)));
    // A name that does not fit is in the tooltip and in the table of logs.
    let label = if wide > 600 { format!("{name} {spent}") } else { String::new() };
    let hundredths = |value: u64| format!("{}.{:02}%", value / 100, value % 100);
    let _ = write!(
        page,
        "<div class=\"bar {kind}\" style=\"left:{};width:{}\" title=\"{title}\">{label}</div>",
        hundredths(left),
        hundredths(wide)
    );
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
