//! The logs of all steps, folded; those of failed steps are open.

use super::{begin, escape};
use crate::event::{Event, EventKind, Step, StepOutcome};
use crate::report::state::RunState;
use crate::report::text::{clean, count, took};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Lines of one step that a page shows at most, at the log's start and at its end: a browser has to open it.
const SHOWN_HEAD: usize = 2000;
const SHOWN_TAIL: usize = 4000;

pub(super) fn draw(events: &[Event], state: &RunState, page: &mut String) {
    let mut logs: BTreeMap<&Step, Vec<&str>> = BTreeMap::new();
    for event in events {
        if let EventKind::Log { step, line, .. } = &event.kind {
            logs.entry(step).or_default().push(line);
        }
    }
    if logs.is_empty() {
        return;
    }
    begin(page, "logs");
    for (step, known) in state.steps_in_order() {
        let Some(lines) = logs.get(step) else { continue };
        let (open, mood, word) = match &known.outcome {
            Some(StepOutcome::Done) => ("", "dim", took(known.millis)),
            Some(StepOutcome::Cancelled) => ("", "left", format!("cancelled after {}", took(known.millis))),
            Some(StepOutcome::RolledBack { .. }) => (" open", "bad", format!("rolled back after {}", took(known.millis))),
            Some(StepOutcome::Failed { .. }) => (" open", "bad", format!("failed after {}", took(known.millis))),
            None => ("", "left", "not finished".to_owned()),
        };
        let _ = write!(page, "<details data-row{open}><summary>{} {} ", escape(&step.subject()), step.stage.name());
        let _ = write!(page, "<span class=\"{mood}\">{word}, {}</span></summary><pre tabindex=\"0\">", count(lines.len(), "line"));
        let left_out = lines.len().saturating_sub(SHOWN_HEAD + SHOWN_TAIL);
        let (head, tail) = if left_out == 0 { (lines.len(), 0) } else { (SHOWN_HEAD, SHOWN_TAIL) };
        lines[..head].iter().for_each(|line| put(page, line));
        if left_out > 0 {
            let _ = writeln!(page, "… {} left out; the run's journal has them", count(left_out, "line"));
            lines[lines.len() - tail..].iter().for_each(|line| put(page, line));
        }
        let _ = writeln!(page, "</pre></details>");
    }
    page.push_str("</section>\n");
}

fn put(page: &mut String, line: &str) {
    page.push_str(&escape(&clean(line)));
    page.push('\n');
}
