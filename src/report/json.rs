//! What leaves the program for other programs: the final report (`--format json`) and the stream of events (`--events FILE`).
//!
//! Both carry a version. The report has types of its own, so that the inside can change and the outside does not; within one
//! version fields are only added. The events are the journal's lines, and every report can be made again from them.

use super::Sink;
use super::failures::{failures, go_on};
use super::live::Live;
use super::state::{RunState, TargetState};
use super::summary::{outcome_name, why};
use crate::event::{Event, FORMAT_VERSION, StepOutcome, TargetOutcome};
use schemars::JsonSchema;
use serde::Serialize;
use std::io::{self, Write};

/// The final report of a run.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(title = "the report of an offbuild run")]
pub struct Report {
    version: u32,
    run: Option<String>,
    command: Option<String>,
    commit: Option<String>,
    subject: Option<String>,
    branch: Option<String>,
    ci_url: Option<String>,
    by: Option<String>,
    started: Option<String>,
    wall_millis: u64,
    exit_code: Option<u8>,
    interrupted: Option<String>,
    counts: Counts,
    targets: Vec<TargetRow>,
    images: Vec<ImageRow>,
    failures: Vec<FailureRow>,
    notices: Vec<NoticeRow>,
    next: Vec<NextRow>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Counts {
    deployed: usize,
    failed: usize,
    images_built: usize,
    images_pushed: usize,
    images_reused: usize,
    build_steps: usize,
    build_steps_cached: usize,
}

#[derive(Debug, Serialize, JsonSchema)]
struct TargetRow {
    app: String,
    rack: String,
    verdict: String,
    reasons: Vec<String>,
    base: Option<String>,
    base_source: String,
    outcome: String,
    class: Option<&'static str>,
    stage: Option<&'static str>,
    why: String,
    release: Option<String>,
    build: Option<String>,
    live_release: Option<String>,
    live: &'static str,
    /// The newest release, when it is another build's than what is live.
    trap: Option<String>,
    /// The copy that was put on top of it.
    healed_by: Option<String>,
    /// The group it went back with.
    group: Option<String>,
    /// What the rack showed of a promote that did not end well.
    promote: Option<Box<crate::event::Evidence>>,
    millis: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
struct ImageRow {
    app: String,
    service: String,
    action: String,
    reference: String,
    digest: Option<String>,
    fingerprint: Option<String>,
    built: bool,
    build_millis: Option<u64>,
    steps: usize,
    steps_cached: usize,
}

#[derive(Debug, Serialize, JsonSchema)]
struct FailureRow {
    app: String,
    racks: Vec<String>,
    stage: Option<&'static str>,
    class: Option<&'static str>,
    message: String,
    hint: String,
    evidence: Vec<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct NoticeRow {
    subject: Option<String>,
    message: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct NextRow {
    when: String,
    command: String,
}

impl Report {
    /// The report of a run.
    #[must_use]
    pub fn of(state: &RunState) -> Self {
        let run = state.run.as_ref();
        let images = state.image_counts();
        let deployed = |target: &&TargetState| matches!(target.outcome, Some(TargetOutcome::Deployed { .. }));
        let failed =
            |target: &&TargetState| matches!(target.outcome, Some(TargetOutcome::Failed { .. } | TargetOutcome::RolledBack { .. }));
        Self {
            version: FORMAT_VERSION,
            run: run.map(|run| run.run.to_string()),
            command: run.map(|run| run.command.clone()),
            commit: run.map(|run| run.commit.to_string()),
            subject: run.map(|run| run.subject.clone()),
            branch: run.and_then(|run| run.branch.clone()),
            ci_url: run.and_then(|run| run.ci_url.clone()),
            by: run.map(|run| run.by.clone()),
            started: run.and_then(|run| run.started.format(&time::format_description::well_known::Rfc3339).ok()),
            wall_millis: state.wall_millis(),
            exit_code: state.finished.map(|finish| finish.code),
            interrupted: state.interrupted.as_ref().map(|signal| signal.signal.clone()),
            counts: Counts {
                deployed: state.targets.values().filter(deployed).count(),
                failed: state.targets.values().filter(failed).count(),
                images_built: images.built,
                images_pushed: images.pushed,
                images_reused: images.reused,
                build_steps: images.steps,
                build_steps_cached: images.cached,
            },
            targets: target_rows(state),
            images: image_rows(state),
            failures: failure_rows(state),
            notices: state
                .notices
                .iter()
                .map(|notice| NoticeRow { subject: notice.step.as_ref().map(crate::event::Step::subject), message: notice.message.clone() })
                .collect(),
            next: go_on(state).into_iter().map(|(when, command)| NextRow { when, command }).collect(),
        }
    }

    /// Writes it, indented, with a line feed at its end.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut *out, self)?;
        writeln!(out)?;
        out.flush()
    }
}

/// The JSON Schema of the report.
#[must_use]
pub fn schema() -> serde_json::Value {
    let settings = schemars::generate::SchemaSettings::draft2020_12().for_serialize();
    settings.into_generator().into_root_schema_for::<Report>().to_value()
}

fn target_rows(state: &RunState) -> Vec<TargetRow> {
    let row = |(target, known): (&crate::names::Target, &TargetState)| {
        let (class, stage) = match &known.outcome {
            Some(TargetOutcome::Failed { class, stage, .. }) => (Some(class.name()), Some(stage.name())),
            _ => (None, None),
        };
        let (live_release, live) = match known.live() {
            Live::This(release) => (release, "this-commit"),
            Live::Before(release) => (release, "as-before"),
            Live::Other(release) => (Some(release), "other"),
            Live::Nothing => (None, "nothing"),
            Live::Unknown | Live::Undecided => (None, "unknown"),
        };
        TargetRow {
            app: target.app.to_string(),
            rack: target.rack.to_string(),
            verdict: known.verdict.clone(),
            reasons: known.reasons.clone(),
            base: known.base.as_ref().map(ToString::to_string),
            base_source: known.base_source.clone(),
            outcome: outcome_name(known, state.finished.is_some()),
            class,
            stage,
            why: why(known),
            release: known.staged.as_ref().map(|(_, release)| release.to_string()),
            build: known.staged.as_ref().map(|(build, _)| build.to_string()),
            live_release: live_release.map(|release| release.to_string()),
            live,
            trap: known.trap().map(ToString::to_string),
            healed_by: known.healed().map(|copied| copied.release.to_string()),
            group: match &known.outcome {
                Some(TargetOutcome::RolledBack { group, .. }) => group.clone(),
                _ => None,
            },
            promote: known.evidence.clone(),
            millis: known.millis,
        }
    };
    state.targets_in_order().into_iter().map(row).collect()
}

fn image_rows(state: &RunState) -> Vec<ImageRow> {
    let mut rows = Vec::new();
    for ((app, service), image) in state.images_in_order() {
        let build = state.build_of(app, service);
        let (steps, steps_cached) = build.map(super::state::StepState::cache_hits).unwrap_or_default();
        rows.push(ImageRow {
            app: app.to_string(),
            service: service.to_string(),
            action: image.action.clone(),
            reference: image.reference.clone(),
            digest: image.digest.as_ref().map(ToString::to_string),
            fingerprint: image.fingerprint.as_ref().map(ToString::to_string),
            built: image.built,
            build_millis: build.filter(|build| build.outcome == Some(StepOutcome::Done)).map(|build| build.millis),
            steps,
            steps_cached,
        });
    }
    rows
}

fn failure_rows(state: &RunState) -> Vec<FailureRow> {
    let row = |failure: super::failures::Failure| FailureRow {
        app: failure.app.to_string(),
        racks: failure.racks.iter().map(ToString::to_string).collect(),
        stage: failure.stage.map(crate::event::Stage::name),
        class: failure.class.map(crate::event::FailureClass::name),
        message: failure.message,
        hint: failure.hint,
        evidence: failure.evidence,
    };
    failures(state).into_iter().map(row).collect()
}

/// `--events FILE`: one JSON line per event as it comes.
#[derive(Debug)]
pub struct EventLines<W> {
    out: W,
}

impl<W: Write> EventLines<W> {
    /// Lines to `out`.
    pub fn new(out: W) -> Self {
        Self { out }
    }
}

impl<W: Write + Send> Sink for EventLines<W> {
    fn name(&self) -> &'static str {
        "`--events`"
    }

    fn event(&mut self, event: &Event, _state: &RunState) -> io::Result<()> {
        // In one write, so that whoever follows the file sees whole lines.
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        self.out.write_all(&line)?;
        if event.kind.is_lifecycle() { self.out.flush() } else { Ok(()) }
    }

    fn finish(&mut self, _state: &RunState) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    fn json(state: &RunState) -> String {
        let mut out = Vec::new();
        Report::of(state).write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_report_of_a_failing_hook() {
        insta::assert_snapshot!(json(&RunState::replay(&samples::hook_failing())), @r#"
        {
          "version": 1,
          "run": "20260102-030405-abcd",
          "command": "deploy",
          "commit": "ffffffffffffffffffffffffffffffffffffffff",
          "subject": "Fix the login <form> & more",
          "branch": "main",
          "ci_url": "https://ci.example/runs/7",
          "by": "ann@ci-3",
          "started": "2026-01-02T03:04:05Z",
          "wall_millis": 62200,
          "exit_code": 1,
          "interrupted": null,
          "counts": {
            "deployed": 1,
            "failed": 1,
            "images_built": 1,
            "images_pushed": 1,
            "images_reused": 1,
            "build_steps": 3,
            "build_steps_cached": 1
          },
          "targets": [
            {
              "app": "api",
              "rack": "staging",
              "verdict": "deploy",
              "reasons": [
                "apps/api/main.rb changed (apps/api/**)"
              ],
              "base": "1111111111111111111111111111111111111111",
              "base_source": "rack",
              "outcome": "deployed",
              "class": null,
              "stage": null,
              "why": "apps/api/main.rb changed (apps/api/**)",
              "release": "RAPI2",
              "build": "BAPI2",
              "live_release": "RAPI2",
              "live": "this-commit",
              "trap": null,
              "healed_by": null,
              "group": null,
              "promote": null,
              "millis": 40000
            },
            {
              "app": "web",
              "rack": "staging",
              "verdict": "deploy",
              "reasons": [
                "libs/auth/token.rb changed (shared `auth`, apps.yaml:14)"
              ],
              "base": "1111111111111111111111111111111111111111",
              "base_source": "rack",
              "outcome": "failed",
              "class": "hook",
              "stage": "before_release",
              "why": "`deploy/before_release.sh` ended with 3: column `email` is missing",
              "release": "RWEB2",
              "build": "BWEB2",
              "live_release": "RWEB1",
              "live": "as-before",
              "trap": "RWEB2",
              "healed_by": null,
              "group": null,
              "promote": null,
              "millis": 10000
            },
            {
              "app": "worker",
              "rack": "staging",
              "verdict": "deploy",
              "reasons": [
                "never deployed"
              ],
              "base": null,
              "base_source": "rack",
              "outcome": "blocked",
              "class": null,
              "stage": null,
              "why": "comes after web@staging",
              "release": null,
              "build": null,
              "live_release": null,
              "live": "nothing",
              "trap": null,
              "healed_by": null,
              "group": null,
              "promote": null,
              "millis": 0
            }
          ],
          "images": [
            {
              "app": "api",
              "service": "web",
              "action": "reuse",
              "reference": "registry.example/api:web.ffffffffffffffffffffffffffffffffffffffff",
              "digest": "sha256:abababababababababababababababababababababababababababababababab",
              "fingerprint": "0123456789abcdef01234567",
              "built": false,
              "build_millis": null,
              "steps": 0,
              "steps_cached": 0
            },
            {
              "app": "web",
              "service": "web",
              "action": "build",
              "reference": "registry.example/web:web.ffffffffffffffffffffffffffffffffffffffff",
              "digest": "sha256:abababababababababababababababababababababababababababababababab",
              "fingerprint": "0123456789abcdef01234567",
              "built": true,
              "build_millis": 9300,
              "steps": 3,
              "steps_cached": 1
            },
            {
              "app": "worker",
              "service": "web",
              "action": "build",
              "reference": "registry.example/worker:web.ffffffffffffffffffffffffffffffffffffffff",
              "digest": null,
              "fingerprint": "0123456789abcdef01234567",
              "built": false,
              "build_millis": null,
              "steps": 0,
              "steps_cached": 0
            }
          ],
          "failures": [
            {
              "app": "web",
              "racks": [
                "staging"
              ],
              "stage": "before_release",
              "class": "hook",
              "message": "`deploy/before_release.sh` ended with 3: column `email` is missing",
              "hint": "see what the hook said; it is run again by the next try",
              "evidence": []
            }
          ],
          "notices": [],
          "next": [
            {
              "when": "when it is fixed and committed",
              "command": "offbuild deploy"
            },
            {
              "when": "to try this commit again",
              "command": "offbuild deploy --resume"
            },
            {
              "when": "so that no `env set` builds on what was left behind",
              "command": "offbuild heal web@staging"
            }
          ]
        }
        "#);
    }

    /// The events as a program reads them from `--events`.
    fn read_back(events: &[Event]) -> Vec<Event> {
        let mut lines = EventLines::new(Vec::new());
        events.iter().for_each(|event| lines.event(event, &RunState::default()).unwrap());
        let text = String::from_utf8(lines.out).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn every_report_is_made_again_from_the_event_lines() {
        use crate::report::{github, html, junit, trace};
        let drawn = |events: &[Event]| {
            let state = RunState::replay(events);
            [
                json(&state),
                github::markdown(&state),
                github::outputs(&state),
                junit::render(&state),
                trace::render(&state),
                html::render(events),
            ]
        };
        for (name, events) in samples::all() {
            assert!(drawn(&events) == drawn(&read_back(&events)), "{name}");
        }
    }

    #[test]
    fn every_report_and_event_is_as_its_schema_says() {
        use crate::event::validating::Validator;
        let (reports, lines) = (Validator::new(schema()), Validator::new(crate::event::schema()));
        for (name, events) in samples::all() {
            let mut report: serde_json::Value = serde_json::from_str(&json(&RunState::replay(&events))).unwrap();
            assert_eq!(reports.refuses(&report), None, "{name}");
            for event in &events {
                assert_eq!(lines.refuses(&serde_json::to_value(event).unwrap()), None, "{name}");
            }
            report.as_object_mut().unwrap().shift_remove("targets");
            report["counts"]["failed"] = "none".into();
            let why = reports.refuses(&report).unwrap();
            assert!(why.contains("targets") && why.contains("/counts/failed"), "{name}: {why}");
        }
    }
}
