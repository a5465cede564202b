//! What webhooks are told of a run: composed here, sent by others.
//!
//! One message when the plan is made and one when the run is over, about the targets the listener asked for. The texts are
//! those of the events, so no secret is in them. A run that has nothing to do and goes well is not worth a message.

use super::Sink;
use super::failures::failures;
use super::state::{RunState, TargetState};
use super::summary::{outcome_name, why};
use super::text::{clean, clip, count, took};
use crate::event::{Event, EventKind, FORMAT_VERSION, TargetOutcome};
use crate::names::{RackName, Target};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io;
use tokio::sync::mpsc::UnboundedSender;

/// Who wants to be told what.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// As Slack reads it, not as JSON for programs.
    pub slack: bool,
    /// When the plan is made.
    pub start: bool,
    /// When the run is over.
    pub end: bool,
    /// When the run is over and did not go well.
    pub failure: bool,
    /// Only what concerns these racks; none: all.
    pub racks: BTreeSet<RackName>,
}

/// Composes the messages of one listener and hands them over.
pub struct Notify {
    wish: Wish,
    out: UnboundedSender<Message>,
}

/// A message to be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// True for the last one of a run.
    pub last: bool,
    /// What is sent.
    pub body: Value,
}

/// Slack refuses messages of more characters than 40000 and cuts them long before; people read less.
const SLACK_LIMIT: usize = 3000;
/// Failures that are told in full in a message to people.
const TOLD: usize = 8;

impl Notify {
    /// Messages for `wish` go to `out`.
    #[must_use]
    pub fn new(wish: Wish, out: UnboundedSender<Message>) -> Self {
        Self { wish, out }
    }

    fn tell(&self, state: &RunState, last: bool) {
        if let Some(body) = message(&self.wish, state, last) {
            // Who sends is gone only when the program ends.
            let _ = self.out.send(Message { last, body });
        }
    }
}

impl Sink for Notify {
    fn name(&self) -> &'static str {
        "`notify`"
    }

    fn event(&mut self, event: &Event, state: &RunState) -> io::Result<()> {
        if matches!(event.kind, EventKind::PlanReady { .. }) {
            self.tell(state, false);
        }
        Ok(())
    }

    fn finish(&mut self, state: &RunState) -> io::Result<()> {
        self.tell(state, true);
        Ok(())
    }
}

/// What `wish` is told now, at the run's end (`last`) or at its start; `None` when it does not want to hear of it.
#[must_use]
pub fn message(wish: &Wish, state: &RunState, last: bool) -> Option<Value> {
    let good = state.finished.is_some_and(|finish| finish.code == 0);
    if !(if last { wish.end || (wish.failure && !good) } else { wish.start }) {
        return None;
    }
    let concerned = |target: &Target| wish.racks.is_empty() || wish.racks.contains(&target.rack);
    let targets: Vec<(&Target, &TargetState)> =
        state.targets_in_order().into_iter().filter(|(target, known)| concerned(target) && known.verdict != "up-to-date").collect();
    let images = wish.racks.is_empty() && state.plan.is_some_and(|plan| plan.builds > 0);
    let went_wrong = last && !good && wish.racks.is_empty();
    if targets.is_empty() && !images && !went_wrong {
        return None;
    }
    Some(if wish.slack { json!({ "text": slack(state, &targets, last) }) } else { program(state, &targets, last) })
}

fn program(state: &RunState, targets: &[(&Target, &TargetState)], last: bool) -> Value {
    let run = state.run.as_ref();
    let row = |(target, known): &(&Target, &TargetState)| {
        json!({
            "app": target.app,
            "rack": target.rack,
            "verdict": known.verdict,
            "outcome": last.then(|| outcome_name(known, state.finished.is_some())),
            "why": why(known),
            "release": known.staged.as_ref().map(|(_, release)| release),
        })
    };
    json!({
        "version": FORMAT_VERSION,
        "event": if last { "end" } else { "start" },
        "text": headline(state, targets, last),
        "run": run.map(|run| &run.run),
        "command": run.map(|run| &run.command),
        "commit": run.map(|run| &run.commit),
        "subject": run.map(|run| &run.subject),
        "branch": run.map(|run| &run.branch),
        "by": run.map(|run| &run.by),
        "ci_url": run.map(|run| &run.ci_url),
        "ok": state.finished.filter(|_| last).map(|finish| finish.code == 0),
        "exit_code": state.finished.filter(|_| last).map(|finish| finish.code),
        "wall_millis": last.then(|| state.wall_millis()),
        "targets": targets.iter().map(row).collect::<Vec<_>>(),
    })
}

/// The run in one line.
fn headline(state: &RunState, targets: &[(&Target, &TargetState)], last: bool) -> String {
    let run = state.run.as_ref();
    let what =
        run.map_or_else(String::new, |run| format!("offbuild {} of {} \"{}\"", run.command, run.commit.short(), clean(&run.subject)));
    if !last {
        let builds = state.plan.map_or(0, |plan| plan.builds);
        return format!(
            "{what} by {}: {}, {} to build",
            run.map_or("", |run| &run.by),
            count(targets.len(), "target"),
            count(builds, "image")
        );
    }
    let number = |is: fn(&TargetOutcome) -> bool| targets.iter().filter(|(_, known)| known.outcome.as_ref().is_some_and(is)).count();
    let deployed = number(|outcome| matches!(outcome, TargetOutcome::Deployed { .. }));
    let failed = number(|outcome| matches!(outcome, TargetOutcome::Failed { .. } | TargetOutcome::RolledBack { .. }));
    let code = state.finished.map_or(1, |finish| finish.code);
    let end = if code == 0 { "went well".to_owned() } else { format!("failed (exit {code})") };
    format!("{what} {end}: {deployed} deployed, {failed} failed, {} in all, {}", count(targets.len(), "target"), took(state.wall_millis()))
}

/// The message for people: the line, what failed, and where to read on.
fn slack(state: &RunState, targets: &[(&Target, &TargetState)], last: bool) -> String {
    let mut lines = vec![escape(&headline(state, targets, last))];
    let concerned = |failure: &super::failures::Failure| {
        failure.racks.is_empty() || targets.iter().any(|(target, _)| target.app == failure.app && failure.racks.contains(&target.rack))
    };
    let told: Vec<_> = failures(state).into_iter().filter(|failure| last && concerned(failure)).collect();
    for failure in told.iter().take(TOLD) {
        let message = clip(&clean(failure.message.lines().next().unwrap_or_default()), 300);
        lines.push(format!("• *{}* {}: {}", escape(&failure.subject()), failure.what(), escape(&message)));
    }
    if told.len() > TOLD {
        lines.push(format!("• and {} more", told.len() - TOLD));
    }
    if let Some(url) = state.run.as_ref().and_then(|run| run.ci_url.as_ref()) {
        lines.push(escape(url));
    }
    clip(&lines.join("\n"), SLACK_LIMIT)
}

/// What Slack reads as more than text (<https://docs.slack.dev/messaging/formatting-message-text#escaping>): with it, nobody can be
/// mentioned and no link disguised.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    fn at_plan(events: &[Event]) -> RunState {
        let until = events.iter().position(|event| matches!(event.kind, EventKind::PlanReady { .. })).unwrap();
        RunState::replay(&events[..=until])
    }

    fn all(slack: bool) -> Wish {
        Wish { slack, start: true, end: true, failure: true, racks: BTreeSet::new() }
    }

    #[test]
    fn what_programs_are_told() {
        let events = samples::hook_failing();
        let start = message(&all(false), &at_plan(&events), false).unwrap();
        assert_eq!(
            start["text"],
            "offbuild deploy of ffffffffffff \"Fix the login <form> & more\" by ann@ci-3: 3 targets, 2 images to build"
        );
        assert_eq!((&start["event"], &start["ok"], &start["targets"][0]["outcome"]), (&json!("start"), &Value::Null, &Value::Null));
        let end = message(&all(false), &RunState::replay(&events), true).unwrap();
        insta::assert_snapshot!(format!("{end:#}"), @r#"
        {
          "version": 1,
          "event": "end",
          "text": "offbuild deploy of ffffffffffff \"Fix the login <form> & more\" failed (exit 1): 1 deployed, 1 failed, 3 targets in all, 1m 02s",
          "run": "20260102-030405-abcd",
          "command": "deploy",
          "commit": "ffffffffffffffffffffffffffffffffffffffff",
          "subject": "Fix the login <form> & more",
          "branch": "main",
          "by": "ann@ci-3",
          "ci_url": "https://ci.example/runs/7",
          "ok": false,
          "exit_code": 1,
          "wall_millis": 62200,
          "targets": [
            {
              "app": "api",
              "rack": "staging",
              "verdict": "deploy",
              "outcome": "deployed",
              "why": "apps/api/main.rb changed (apps/api/**)",
              "release": "RAPI2"
            },
            {
              "app": "web",
              "rack": "staging",
              "verdict": "deploy",
              "outcome": "failed",
              "why": "`deploy/before_release.sh` ended with 3: column `email` is missing",
              "release": "RWEB2"
            },
            {
              "app": "worker",
              "rack": "staging",
              "verdict": "deploy",
              "outcome": "blocked",
              "why": "comes after web@staging",
              "release": null
            }
          ]
        }
        "#);
    }

    #[test]
    fn what_people_are_told() {
        let text = |events: &[Event]| message(&all(true), &RunState::replay(events), true).unwrap()["text"].as_str().unwrap().to_owned();
        insta::assert_snapshot!(text(&samples::rolled_back()), @r#"
        offbuild deploy of ffffffffffff "Fix the login &lt;form&gt; &amp; more" failed (exit 1): 1 deployed, 1 failed, 3 targets in all, 3m 04s
        • *web@staging* rolled back: the rack went back to `RWEB1`: web.1 failed its health check `/up` (502)
        https://ci.example/runs/7
        "#);
        insta::assert_snapshot!(text(&samples::success()), @r#"
        offbuild deploy of ffffffffffff "Fix the login &lt;form&gt; &amp; more" went well: 3 deployed, 0 failed, 3 targets in all, 2m 25s
        https://ci.example/runs/7
        "#);
    }

    #[test]
    fn who_is_told_when() {
        let (good, bad, idle) = (samples::success(), samples::hook_failing(), samples::nothing_to_do());
        let (start, end, failure) =
            (Wish { start: true, ..Wish::default() }, Wish { end: true, ..Wish::default() }, Wish { failure: true, ..Wish::default() });
        let elsewhere = Wish { racks: BTreeSet::from([RackName::new("production").unwrap()]), ..all(false) };
        let cases = [
            ("start", &start, [(true, false), (true, false), (false, false)]),
            ("end", &end, [(false, true), (false, true), (false, false)]),
            ("failure", &failure, [(false, false), (false, true), (false, false)]),
            ("other racks", &elsewhere, [(false, false), (false, false), (false, false)]),
        ];
        for (name, wish, wanted) in cases {
            for (events, wanted) in [&good, &bad, &idle].into_iter().zip(wanted) {
                let told = (message(wish, &at_plan(events), false).is_some(), message(wish, &RunState::replay(events), true).is_some());
                assert_eq!(told, wanted, "{name}");
            }
        }
    }
}
