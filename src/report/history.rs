//! The table of runs, newest first, from what their journals fold to.

use super::state::RunState;
use super::text::{clean, table, took};
use crate::error::Result;
use crate::event::TargetOutcome;
use crate::journal::Journal;
use crate::names::RunId;
use std::path::Path;

/// Reads the runs of the repository at `root`, newest first. A journal that cannot be read is a run nothing is known of.
pub fn read(root: &Path) -> Result<Vec<(RunId, RunState)>> {
    let state = |path: &Path| Journal::read_outline(path).map(|events| RunState::replay(&events)).unwrap_or_default();
    Ok(Journal::list(root)?.into_iter().map(|file| (file.run, state(&file.path))).collect())
}

/// Draws the runs, one line each, in the order given.
#[must_use]
pub fn history(runs: &[(RunId, RunState)], width: usize) -> String {
    if runs.is_empty() {
        return "nothing was run here yet\n".to_owned();
    }
    let mut rows = vec![["RUN", "COMMAND", "COMMIT", "RESULT", "TOOK", "BY", "TARGETS"].map(str::to_owned)];
    for (run, state) in runs {
        let facts = state.run.as_ref();
        let command = facts.map_or_else(|| "-".to_owned(), |facts| facts.command.clone());
        let commit = facts.map_or_else(|| "-".to_owned(), |facts| facts.commit.short().to_owned());
        let by = facts.map_or_else(String::new, |facts| clean(&facts.by));
        rows.push([run.to_string(), command, commit, result(state).to_owned(), took(state.wall_millis()), by, targets(state)]);
    }
    table(&rows, Some(width)).iter().map(|line| format!("{line}\n")).collect()
}

/// One word for how a run ended: the exit codes' meaning (see [`crate::error::Kind`]).
fn result(state: &RunState) -> &'static str {
    match state.finished.map(|finish| finish.code) {
        None => "unfinished",
        Some(0) => "ok",
        Some(1) => "failed",
        Some(4) => "refused",
        Some(130 | 143) => "interrupted",
        Some(_) => "unusable",
    }
}

fn targets(state: &RunState) -> String {
    let done: Vec<String> = state
        .targets_in_order()
        .into_iter()
        .filter(|(_, known)| !matches!(known.outcome, None | Some(TargetOutcome::UpToDate | TargetOutcome::NotAttempted { .. })))
        .map(|(target, known)| match &known.outcome {
            Some(TargetOutcome::Deployed { .. }) => target.to_string(),
            Some(TargetOutcome::Blocked { .. }) => format!("{target} blocked"),
            outcome => format!("{target} {}", outcome.as_ref().map(TargetOutcome::word).unwrap_or_default()),
        })
        .collect();
    if done.is_empty() { "nothing".to_owned() } else { done.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    #[test]
    fn runs_are_one_line_each() {
        let run = |(index, (_, events)): (usize, (&str, Vec<crate::event::Event>))| {
            (RunId::new(format!("20260102-03040{index}-abcd")).unwrap(), RunState::replay(&events))
        };
        let mut runs: Vec<(RunId, RunState)> = samples::all().into_iter().enumerate().map(run).collect();
        runs.push((RunId::new("20260101-000000-dead").unwrap(), RunState::default()));
        insta::assert_snapshot!(history(&runs, 120), @r#"
        RUN                   COMMAND  COMMIT        RESULT       TOOK    BY        TARGETS
        20260102-030400-abcd  deploy   ffffffffffff  ok           2m 25s  ann@ci-3  api@staging, web@staging, worker@staging
        20260102-030401-abcd  deploy   ffffffffffff  ok           0.3s    ann@ci-3  nothing
        20260102-030402-abcd  deploy   ffffffffffff  failed       16.2s   ann@ci-3  web@staging failed(build)
        20260102-030403-abcd  deploy   ffffffffffff  failed       1m 02s  ann@ci-3  api@staging, web@staging failed(hook), work…
        20260102-030404-abcd  deploy   ffffffffffff  failed       3m 04s  ann@ci-3  api@staging, web@staging rolled-back
        20260102-030405-abcd  deploy   ffffffffffff  interrupted  2.1s    ann@ci-3  web@staging cancelled
        20260101-000000-dead  -        -             unfinished   0.0s              nothing
        "#);
        assert_eq!(history(&[], 80), "nothing was run here yet\n");
    }

    #[test]
    fn runs_are_read_from_their_journals() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunId::new("20260102-030405-abcd").unwrap();
        Journal::create(dir.path(), &run).unwrap().append_all(&samples::success()).unwrap();
        Journal::create(dir.path(), &RunId::new("20260101-000000-dead").unwrap()).unwrap();
        let runs = read(dir.path()).unwrap();
        assert_eq!(
            runs.iter().map(|(run, state)| (run.as_str(), state.finished.is_some())).collect::<Vec<_>>(),
            [("20260102-030405-abcd", true), ("20260101-000000-dead", false)]
        );
    }
}
