//! What GitHub Actions gets: one annotation per failed app, the step summary, and the step's outputs.
//!
//! Formats: <https://docs.github.com/actions/reference/workflow-commands-for-github-actions>. Files are appended to, since
//! other programs of the step write to them too.

use super::Sink;
use super::failures::{Failure, failures, go_on};
use super::state::{RunState, TargetState};
use super::summary::{live_words, outcome_word, why};
use super::text::{clean, clean_lines, clip, count, took};
use crate::event::{Event, TargetOutcome};
use crate::names::{AppName, Target};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// GitHub refuses a step's summary above this, bytes; room is left for what others add.
const SUMMARY_LIMIT: usize = (1 << 20) - (64 << 10);

/// Annotations to `out`, and the two files when they are asked for.
#[derive(Debug)]
pub struct Github<W> {
    out: W,
    summary: Option<PathBuf>,
    outputs: Option<PathBuf>,
}

impl<W: Write> Github<W> {
    /// `summary` is `GITHUB_STEP_SUMMARY`, `outputs` is `GITHUB_OUTPUT`.
    pub fn new(out: W, summary: Option<PathBuf>, outputs: Option<PathBuf>) -> Self {
        Self { out, summary, outputs }
    }
}

impl<W: Write + Send> Sink for Github<W> {
    fn name(&self) -> &'static str {
        "the report to GitHub"
    }

    fn event(&mut self, _event: &Event, _state: &RunState) -> io::Result<()> {
        Ok(())
    }

    fn finish(&mut self, state: &RunState) -> io::Result<()> {
        self.out.write_all(annotations(state).as_bytes())?;
        self.out.flush()?;
        self.summary.as_ref().map_or(Ok(()), |path| append(path, &markdown(state)))?;
        self.outputs.as_ref().map_or(Ok(()), |path| append(path, &outputs(state)))
    }
}

/// Adds `text` to one of the step's files, on a line of its own: what another program left there may end without a line feed,
/// and GitHub would read two outputs as one.
///
/// # Errors
/// When the file cannot be read, made or written.
pub fn append(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    let known = file.metadata()?;
    let open_line = known.is_file() && known.len() > 0 && {
        let mut last = [0];
        let mut written = File::open(path)?;
        written.seek(SeekFrom::End(-1))?;
        written.read_exact(&mut last)?;
        last != *b"\n"
    };
    file.write_all(format!("{}{text}", if open_line { "\n" } else { "" }).as_bytes())
}

/// One `::error` per failed app.
#[must_use]
pub fn annotations(state: &RunState) -> String {
    let mut told: Vec<Failure> = Vec::new();
    for failure in failures(state) {
        match told.iter_mut().find(|other| other.app == failure.app) {
            Some(other) => {
                other.racks.extend(failure.racks);
                other.message = format!("{}\n{}", other.message, failure.message);
            }
            None => told.push(failure),
        }
    }
    let line = |failure: &Failure| {
        let message = clean_lines(&failure.message);
        let title = escape_property(&format!("{} {}", failure.subject(), failure.what()));
        format!("::error title={title}::{}\n", escape_data(&format!("{message}\nnext: {}", failure.hint)))
    };
    told.iter().map(line).collect()
}

/// What a command's value must not hold (`actions/toolkit`, `packages/core/src/command.ts`).
fn escape_data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn escape_property(text: &str) -> String {
    escape_data(text).replace(':', "%3A").replace(',', "%2C")
}

/// What GitHub's `fromJSON` makes a job matrix of: one job per target.
#[must_use]
pub fn matrix(targets: &[&Target]) -> Value {
    let include: Vec<Value> =
        targets.iter().map(|target| json!({"app": target.app, "rack": target.rack, "target": target.to_string()})).collect();
    json!({ "include": include })
}

/// The outputs about what changed: `affected`, a JSON list of app names; `matrix`; `any`.
#[must_use]
pub fn changed_outputs(targets: &[&Target]) -> String {
    let apps: BTreeSet<&AppName> = targets.iter().map(|target| &target.app).collect();
    // Names and JSON in one line hold no line feed, so the simple form does.
    format!("affected={}\nmatrix={}\nany={}\n", json!(apps), matrix(targets), !apps.is_empty())
}

/// `run_id`; `deployed` and `failed`, JSON lists of `app@rack`; and what [`changed_outputs`] says of what was to be deployed.
#[must_use]
pub fn outputs(state: &RunState) -> String {
    let list = |is: fn(&TargetState) -> bool| {
        let names: Vec<String> =
            state.targets_in_order().into_iter().filter(|(_, known)| is(known)).map(|(target, _)| target.to_string()).collect();
        Value::from(names).to_string()
    };
    let run = state.run.as_ref().map_or_else(String::new, |run| run.run.to_string());
    let deployed = list(|known| matches!(known.outcome, Some(TargetOutcome::Deployed { .. })));
    let failed = list(|known| matches!(known.outcome, Some(TargetOutcome::Failed { .. } | TargetOutcome::RolledBack { .. })));
    // As `changed` counts: what a guard stopped has changed, what is held or stale is not this commit's to change.
    let changed = |known: &TargetState| matches!(known.verdict.as_str(), "deploy" | "failed");
    let targets: Vec<&Target> =
        state.targets_in_order().into_iter().filter(|(_, known)| changed(known)).map(|(target, _)| target).collect();
    format!("run_id={run}\ndeployed={deployed}\nfailed={failed}\n{}", changed_outputs(&targets))
}

/// The step summary: what `--summary FILE` writes too.
#[must_use]
pub fn markdown(state: &RunState) -> String {
    let mut text = String::new();
    let head = state.run.as_ref().map_or_else(String::new, |run| {
        format!("`offbuild {}` of `{}` {}", run.command, run.commit.short(), escape_markdown(&clean(&run.subject)))
    });
    let _ = writeln!(text, "### {head}\n");
    let mut untold = 0;
    for failure in failures(state) {
        let section = failure_section(&failure);
        // Half of the room is the table's: it has a line for every failure, too.
        if text.len() + section.len() > SUMMARY_LIMIT / 2 { untold += 1 } else { text.push_str(&section) }
    }
    if untold > 0 {
        let _ = writeln!(text, "and {} that had no room here; the log has them\n", count(untold, "failure"));
    }
    for (when, command) in go_on(state) {
        // One of them may name every target.
        let _ = writeln!(text, "{}: `{}`\n", capital(&when), clip(&command, 8000));
    }
    let _ = writeln!(text, "| target | outcome | live now | took | why |\n|---|---|---|---|---|");
    let targets = state.targets_in_order();
    let (idle, rows): (Vec<_>, Vec<_>) = targets.into_iter().partition(|(_, known)| known.outcome == Some(TargetOutcome::UpToDate));
    let mut left_out = 0;
    for (target, known) in rows {
        let row = target_row(target, known, state);
        if text.len() + row.len() > SUMMARY_LIMIT { left_out += 1 } else { text.push_str(&row) }
    }
    if left_out > 0 {
        let _ = writeln!(text, "\nand {} that had no room here", count(left_out, "target"));
    }
    if !idle.is_empty() {
        let _ = writeln!(text, "\n{} up to date", count(idle.len(), "target"));
    }
    let images = state.image_counts();
    let _ = writeln!(
        text,
        "\n{} built ({} of {} cached), {} pushed, {} reused; {} in all",
        count(images.built, "image"),
        images.cached,
        count(images.steps, "step"),
        images.pushed,
        images.reused,
        took(state.wall_millis())
    );
    for notice in &state.notices {
        let of = notice.step.as_ref().map_or_else(String::new, |step| format!("{}: ", step.subject()));
        let line = format!("- {}\n", escape_markdown(&clip(&clean(&format!("{of}{}", notice.message)), 500)));
        if text.len() + line.len() <= SUMMARY_LIMIT {
            text.push_str(&line);
        }
    }
    text
}

fn failure_section(failure: &Failure) -> String {
    let (subject, what, quoted) = (escape_markdown(&failure.subject()), failure.what(), fenced(&clip(&failure.lines().join("\n"), 8000)));
    format!("**{subject} {what}**\n\n{quoted}\n\nNext: {}\n\n", escape_markdown(&failure.hint))
}

fn target_row(target: &Target, known: &TargetState, state: &RunState) -> String {
    let cell = |text: &str| escape_markdown(&clip(&clean(text.lines().next().unwrap_or_default()), 300)).replace('|', "\\|");
    let [release, note] = live_words(target, state);
    let spent = if known.millis == 0 { String::new() } else { took(known.millis) };
    format!("| {target} | {} | {release} {note} | {spent} | {} |\n", outcome_word(known, state.finished.is_some()), cell(&why(known)))
}

/// A code block whose fence is longer than any in it.
fn fenced(text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{fence}text\n{text}\n{fence}")
}

/// Text of others as text: no markup, no mention of anybody. Back quotes stay, so that literals read as such.
fn escape_markdown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '@' => out.push_str("&#64;"),
            '*' | '_' | '[' | ']' | '#' | '~' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            '\n' => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    #[test]
    fn one_error_per_failed_app() {
        for (name, events) in samples::all() {
            let text = annotations(&RunState::replay(&events));
            let wanted = usize::from(["build broken", "hook failing", "rolled back"].contains(&name));
            assert_eq!(text.lines().count(), wanted, "{name}: {text}");
        }
        insta::assert_snapshot!(annotations(&RunState::replay(&samples::rolled_back())), @r#"::error title=web@staging rolled back::the rack went back to `RWEB1`: web.1 failed its health check `/up` (502)%0Anext: see what the health check was answered: convox logs -a web"#);
    }

    #[test]
    fn the_step_summary_of_a_roll_back() {
        insta::assert_snapshot!(markdown(&RunState::replay(&samples::rolled_back())), @r#"
        ### `offbuild deploy` of `ffffffffffff` Fix the login &lt;form&gt; &amp; more

        **web&#64;staging rolled back**

        ```text
        the rack went back to `RWEB1`: web.1 failed its health check `/up` (502)
        after 0.0s: updating with RWEB1 active
        after 20.0s: updating with RWEB2 active
        after 1m 55s: rollback with RWEB2 active
        after 2m 04s: running with RWEB1 active
        looks like:
          a failing health check
          Readiness probe failed: HTTP probe failed with statuscode: 502
        processes:
          web-2 of web, release RWEB2: running
        last lines of service/web/web-2:
          GET /up 502
        what the rack said:
          Readiness probe failed: HTTP probe failed with statuscode: 502
        environment, by name:
          added: STRIPE_KEY
          removed: OLD_KEY
        manifest:
          @@ -3 +3 @@
          -    port: 3000
          +    port: 4000
        ```

        Next: see what the health check was answered: convox logs -a web

        When it is fixed and committed: `offbuild deploy`

        To try this commit again: `offbuild deploy --resume`

        So that no `env set` builds on what was left behind: `offbuild heal web@staging`

        | target | outcome | live now | took | why |
        |---|---|---|---|---|
        | api@staging | deployed | RAPI2 this commit | 40.0s | apps/api/main.rb changed (apps/api/\*\*) |
        | web@staging | rolled-back | RWEB1 as before, commit 111111111111; RWEB2 is staged, not live | 2m 12s | the rack went back to `RWEB1`: web.1 failed its health check `/up` (502) |
        | worker@staging | not-attempted | - nothing was ever deployed |  | `web&#64;staging` was rolled back |

        1 image built (1 of 3 steps cached), 1 pushed, 1 reused; 3m 04s in all
        "#);
    }

    #[test]
    fn outputs_and_summary_are_added_to_their_files() {
        let dir = tempfile::tempdir().unwrap();
        let (summary, outputs) = (dir.path().join("summary"), dir.path().join("outputs"));
        std::fs::write(&outputs, "mine=1\n").unwrap();
        let mut out = Vec::new();
        Github::new(&mut out, Some(summary.clone()), Some(outputs.clone())).finish(&RunState::replay(&samples::hook_failing())).unwrap();
        assert!(std::fs::read_to_string(summary).unwrap().contains("| api@staging | deployed | RAPI2 this commit |"));
        assert_eq!(
            std::fs::read_to_string(outputs).unwrap(),
            "mine=1\nrun_id=20260102-030405-abcd\ndeployed=[\"api@staging\"]\nfailed=[\"web@staging\"]\n\
             affected=[\"api\",\"web\",\"worker\"]\nmatrix={\"include\":[\
             {\"app\":\"api\",\"rack\":\"staging\",\"target\":\"api@staging\"},\
             {\"app\":\"web\",\"rack\":\"staging\",\"target\":\"web@staging\"},\
             {\"app\":\"worker\",\"rack\":\"staging\",\"target\":\"worker@staging\"}]}\nany=true\n"
        );
    }

    #[test]
    fn the_summary_keeps_below_the_limit_and_text_stays_text() {
        let mut state = RunState::replay(&samples::hook_failing());
        for number in 0..6000 {
            let why = format!("<script> | @team *{}*", "x".repeat(400));
            let known = TargetState { outcome: Some(TargetOutcome::NotAttempted { why }), ..TargetState::default() };
            state.targets.insert(samples::target(&format!("app{number}@staging")), known);
        }
        let text = markdown(&state);
        assert!(text.len() < 1 << 20 && text.contains("that had no room here"));
        assert!(text.contains(" \\| ") && !text.contains("failures that had no room"), "{}", &text[..2000]);
        // Messages as large as they come, in characters that take four bytes each, from as many apps.
        for number in 0..300 {
            let (message, class) = (format!("{number} {}", "\u{1f4a5}".repeat(20_000)), crate::event::FailureClass::Promote);
            let outcome = TargetOutcome::Failed { stage: crate::event::Stage::Promote, class, message, hint: None };
            state
                .targets
                .insert(samples::target(&format!("bad{number}@staging")), TargetState { outcome: Some(outcome), ..TargetState::default() });
        }
        let large = markdown(&state);
        assert!(large.len() < 1 << 20 && large.contains("failures that had no room here; the log has them"), "{}", large.len());
        assert!(large.contains("| bad299@staging | failed(promote)") || large.contains("targets that had no room here"));
        assert!(!text.contains("<script>") && !text.contains("@team") && text.contains(" \\| "));
    }
}
