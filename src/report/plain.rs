//! The report for everything that is not a terminal, and the lines that scroll above the terminal's live rows.
//!
//! Each line says whom it is about (`web@staging`, `web/web`). A build's log comes out in one piece when the build ends:
//! whole when it failed, in one line when it went well. Hooks and racks stream, prefixed. On GitHub and GitLab, logs of good
//! builds are folded, failed ones never; on GitHub, workflow commands printed by hooks go through as they are. Whoever runs is not
//! silent for more than 30 seconds: [`Plain::tick`] is told the time and names the silent ones.

use super::Sink;
use super::kept::Kept;
use super::state::{RunState, StepState};
use super::summary;
use super::text::{Paint, clean, clip, count, took};
use crate::event::{Event, EventKind, Stage, Step, StepOutcome, TargetOutcome};
use crate::names::Target;
use std::collections::BTreeMap;
use std::io::{self, Write};
use time::{Duration, OffsetDateTime};

/// How much is told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Results and errors.
    Quiet,
    /// What happens.
    #[default]
    Normal,
    /// Everything.
    Verbose,
}

/// The CI whose log is written, where it reads more than text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Ci {
    /// None, or one that reads text.
    #[default]
    Other,
    /// GitHub Actions: groups, and commands at a line's start.
    Github,
    /// GitLab: sections (<https://docs.gitlab.com/ci/jobs/job_logs/#custom-collapsible-sections>).
    Gitlab,
}

impl Ci {
    /// As the CI's own variables say.
    #[must_use]
    pub fn from_env(var: impl Fn(&str) -> Option<String>) -> Self {
        let is = |name: &str| var(name).is_some_and(|value| value == "true");
        match (is("GITHUB_ACTIONS"), is("GITLAB_CI")) {
            (true, _) => Self::Github,
            (false, true) => Self::Gitlab,
            (false, false) => Self::Other,
        }
    }
}

/// How a plain report is drawn.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How much.
    pub verbosity: Verbosity,
    /// Colours.
    pub paint: Paint,
    /// Whose log it is.
    pub ci: Ci,
    /// Somebody else shows what runs (live rows): output is kept back until a step failed.
    pub live: bool,
    /// Columns of the summary.
    pub width: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { verbosity: Verbosity::Normal, paint: Paint::default(), ci: Ci::Other, live: false, width: 80 }
    }
}

/// How long a running step may be silent.
pub const SIGN_OF_LIFE: Duration = Duration::seconds(30);
/// More silent steps than this are counted.
const NAMED_RUNNING: usize = 6;
/// Workflow commands a hook may give to the runner. `group` is not one: hooks of several apps run at a time, and a group one
/// opens would fold the others. `stop-commands` is not one: it would silence our own.
const PASSED_COMMANDS: [&str; 5] = ["error", "warning", "notice", "debug", "add-mask"];

/// A plain report to `out`.
#[derive(Debug)]
pub struct Plain<W> {
    out: W,
    options: Options,
    kept: BTreeMap<Step, Kept>,
    heard: BTreeMap<Step, OffsetDateTime>,
}

impl<W: Write> Plain<W> {
    /// A report to `out`.
    pub fn new(out: W, options: Options) -> Self {
        Self { out, options, kept: BTreeMap::new(), heard: BTreeMap::new() }
    }

    /// What it writes to.
    pub fn out(&mut self) -> &mut W {
        &mut self.out
    }

    fn normal(&self) -> bool {
        self.options.verbosity >= Verbosity::Normal
    }

    fn verbose(&self) -> bool {
        self.options.verbosity == Verbosity::Verbose
    }

    /// True when a step's lines are written as they come.
    fn streams(&self, stage: Stage) -> bool {
        stage != Stage::Build && self.normal() && (self.verbose() || !self.options.live)
    }

    fn say(&mut self, subject: &str, text: &str) -> io::Result<()> {
        writeln!(self.out, "{}: {text}", self.options.paint.strong(subject))
    }

    fn run_started(&mut self, state: &RunState) -> io::Result<()> {
        let Some(run) = state.run.as_ref().filter(|_| self.normal()) else { return Ok(()) };
        let branch = run.branch.as_ref().map_or_else(String::new, |branch| format!(" on {}", clean(branch)));
        let (subject, paint) = (clean(&run.subject), self.options.paint);
        writeln!(self.out, "{} {}{branch} \"{subject}\"", paint.strong(&format!("offbuild {}", run.command)), run.commit.short())?;
        writeln!(self.out, "{}", paint.dim(&format!("run {} by {}", run.run, run.by)))
    }

    fn planned(&mut self, target: &Target, state: &RunState) -> io::Result<()> {
        let Some(known) = state.targets.get(target) else { return Ok(()) };
        if !self.normal() || (known.verdict == "up-to-date" && !self.verbose()) {
            return Ok(());
        }
        let base = known.base.as_ref().map_or_else(String::new, |base| format!(" since {} ({})", base.short(), known.base_source));
        let shown = if self.verbose() { known.reasons.len() } else { 1 };
        let first = known.reasons.first().map_or_else(String::new, |reason| format!(": {}", clean(reason)));
        let more = if known.reasons.len() > shown { format!(" (and {} more)", known.reasons.len() - shown) } else { String::new() };
        self.say(&target.to_string(), &format!("{}{base}{first}{more}", known.verdict))?;
        for reason in known.reasons.iter().take(shown).skip(1) {
            writeln!(self.out, "    {}", clean(reason))?;
        }
        Ok(())
    }

    fn log(&mut self, step: &Step, event: &Event, line: &str) -> io::Result<()> {
        if self.options.ci == Ci::Github && step.stage.is_hook() && is_passed_command(line) {
            let line = line.trim_start();
            return match &event.mask {
                Some(mask) => writeln!(self.out, "::add-mask::{}", mask.expose()),
                None => writeln!(self.out, "{line}"),
            };
        }
        let line = clean(line);
        if self.streams(step.stage) {
            self.heard.insert(step.clone(), event.time);
            self.write_log(&step.subject(), &line)
        } else {
            self.kept.entry(step.clone()).or_default().push(line);
            Ok(())
        }
    }

    /// A prefixed line: with something before it, it cannot be a workflow command of the runner.
    fn write_log(&mut self, subject: &str, line: &str) -> io::Result<()> {
        writeln!(self.out, "{} {line}", self.options.paint.dim(&format!("{subject} |")))
    }

    fn build_step(&mut self, step: &Step, kind: &EventKind) {
        let EventKind::BuildStep { name, cached, done: true, millis, error, .. } = kind else { return };
        let end = match (error, cached) {
            (Some(error), _) => format!("error: {error}"),
            (None, true) => "cached".to_owned(),
            (None, false) => took(millis.unwrap_or_default()),
        };
        self.kept.entry(step.clone()).or_default().push(clean(&format!("=> {name} {end}")));
    }

    fn finished(&mut self, step: &Step, outcome: &StepOutcome, millis: u64, state: &RunState) -> io::Result<()> {
        self.heard.remove(step);
        let kept = self.kept.remove(step).unwrap_or_default();
        let (subject, stage, paint) = (step.subject(), step.stage.name(), self.options.paint);
        match outcome {
            StepOutcome::Done => {
                let result = format!("{stage} done in {}{}", took(millis), state.steps.get(step).map_or_else(String::new, results));
                let folds = self.options.ci != Ci::Other && step.stage == Stage::Build && self.normal();
                if let Some(known) = state.steps.get(step).filter(|_| folds) {
                    return self.folded(&subject, &result, kept, known);
                }
                if self.normal() {
                    self.say(&subject, &paint.good(&result))?;
                }
                if self.verbose() {
                    kept.lines().try_for_each(|line| self.write_log(&subject, &line))?;
                }
                Ok(())
            }
            StepOutcome::Failed { message, .. } => {
                kept.lines().try_for_each(|line| self.write_log(&subject, &line))?;
                let message = message.lines().map(clean).collect::<Vec<_>>().join("\n    ");
                self.say(&subject, &paint.bad(&format!("{stage} failed after {}: {message}", took(millis))))
            }
            StepOutcome::RolledBack { message } => {
                kept.lines().try_for_each(|line| self.write_log(&subject, &line))?;
                let message = message.lines().map(clean).collect::<Vec<_>>().join("\n    ");
                self.say(&subject, &paint.bad(&format!("{stage} rolled back after {}: {message}", took(millis))))
            }
            StepOutcome::Cancelled if self.normal() => {
                self.say(&subject, &paint.warn(&format!("{stage} cancelled after {}", took(millis))))
            }
            StepOutcome::Cancelled => Ok(()),
        }
    }

    /// The log of a step that went well, under one line that opens.
    fn folded(&mut self, subject: &str, result: &str, kept: Kept, step: &StepState) -> io::Result<()> {
        let head = format!("{}: {}", self.options.paint.strong(subject), self.options.paint.good(result));
        // GitLab shows how long a section took by its two times; its name must not come twice in a log.
        let name = format!("offbuild_{}", step.order);
        let (began, ended) = (step.started.unix_timestamp(), step.ended.unwrap_or(step.started).unix_timestamp());
        match self.options.ci {
            Ci::Gitlab => writeln!(self.out, "\u{1b}[0Ksection_start:{began}:{name}[collapsed=true]\r\u{1b}[0K{head}")?,
            Ci::Github | Ci::Other => writeln!(self.out, "::group::{subject}: {result}")?,
        }
        kept.lines().try_for_each(|line| self.write_log(subject, &line))?;
        match self.options.ci {
            Ci::Gitlab => writeln!(self.out, "\u{1b}[0Ksection_end:{ended}:{name}\r\u{1b}[0K"),
            Ci::Github | Ci::Other => writeln!(self.out, "::endgroup::"),
        }
    }

    fn status(&mut self, target: &Target, event: &Event, state: &RunState) -> io::Result<()> {
        // Only what changed; the state has left the repeats out.
        let new = state.targets.get(target).and_then(|known| known.statuses.last()).filter(|last| last.time == event.time);
        let Some(read) = new.filter(|_| self.normal() && !self.options.live) else { return Ok(()) };
        let release = read.release.as_ref().map_or_else(String::new, |release| format!(", {release} active"));
        let text = format!("the rack says {}{release}", clean(&read.status));
        self.say(&target.to_string(), &text)
    }

    fn write(&mut self, event: &Event, state: &RunState) -> io::Result<()> {
        match &event.kind {
            EventKind::RunStarted { .. } => self.run_started(state),
            EventKind::TargetPlanned { target, .. } => self.planned(target, state),
            EventKind::PlanReady { builds, targets, jobs } if self.normal() && *targets + *builds > 0 => {
                let text = format!("{} to deploy, {} to build, {jobs} at a time", count(*targets, "target"), count(*builds, "image"));
                writeln!(self.out, "{text}")
            }
            EventKind::StepStarted { step, detail } => {
                self.heard.insert(step.clone(), event.time);
                if !self.normal() || self.options.live {
                    return Ok(());
                }
                let detail = if detail.is_empty() { String::new() } else { format!(" ({})", clean(detail)) };
                self.say(&step.subject(), &format!("{} started{detail}", step.stage.name()))
            }
            EventKind::Log { step, line, .. } => self.log(step, event, line),
            kind @ EventKind::BuildStep { step, .. } => {
                self.build_step(step, kind);
                Ok(())
            }
            EventKind::Notice { step, message } if self.normal() => {
                let subject = step.as_ref().map_or_else(|| "notice".to_owned(), Step::subject);
                self.say(&subject, &self.options.paint.warn(&clean(&message.replace('\n', " "))))
            }
            EventKind::ImagePushed { app, service, reference, digest, .. } if self.normal() && !self.options.live => {
                self.say(&format!("{app}/{service}"), &format!("{reference} is {digest}"))
            }
            EventKind::ReleaseStaged { target, release, over, .. } if self.normal() => {
                let over = over.as_ref().map_or_else(String::new, |over| format!(", to go over {over}"));
                self.say(&target.to_string(), &format!("release {release} is staged{over}"))
            }
            EventKind::ReleaseAdopted { target, release, from, again, .. } if self.normal() => {
                self.say(&target.to_string(), &format!("release {release} of run {from} is taken over"))?;
                let mut hooks = again.iter().map(|stage| format!("its hook `{}` was cut short, and runs again", stage.name()));
                hooks.try_for_each(|hook| self.say(&target.to_string(), &hook))
            }
            EventKind::ReleaseCopied { target, of, release, group: None } if self.normal() => {
                self.say(&target.to_string(), &format!("{release}, a copy of {of}, is on top of what was left behind"))
            }
            EventKind::TargetFinished { target, outcome: TargetOutcome::RolledBack { message, group: Some(_) }, .. } => {
                self.say(&target.to_string(), &self.options.paint.warn(&clean(message)))
            }
            EventKind::RackStatus { target, .. } => self.status(target, event, state),
            EventKind::StepFinished { step, millis, outcome } => self.finished(step, outcome, *millis, state),
            // Failures were told by their step; what was left alone is told by the summary.
            EventKind::TargetFinished { target, outcome: TargetOutcome::Deployed { release }, .. } if self.normal() => {
                self.say(&target.to_string(), &self.options.paint.good(&format!("deployed, {release} is live")))
            }
            EventKind::Interrupted { signal, now } => {
                let text = if *now {
                    "stopping now; a rack goes on with what it was told"
                } else {
                    "nothing new starts, a promote under way is awaited; again to stop at once"
                };
                writeln!(self.out, "{}", self.options.paint.warn(&format!("{signal}: {text}")))
            }
            _ => Ok(()),
        }
    }
}

/// What a step that went well came to, for the end of its line.
fn results(step: &StepState) -> String {
    match step.cache_hits() {
        (0, _) => String::new(),
        (steps, cached) => format!(" ({}, {cached} cached)", count(steps, "step")),
    }
}

/// A workflow command as the runner reads it: `::name::` or `::name key=value::` at a line's start.
fn is_passed_command(line: &str) -> bool {
    let Some((command, _)) = line.trim_start().strip_prefix("::").and_then(|rest| rest.split_once("::")) else { return false };
    PASSED_COMMANDS.contains(&command.split(' ').next().unwrap_or_default())
}

impl<W: Write + Send> Sink for Plain<W> {
    fn name(&self) -> &'static str {
        "the plain report"
    }

    fn event(&mut self, event: &Event, state: &RunState) -> io::Result<()> {
        self.write(event, state)
    }

    fn tick(&mut self, now: OffsetDateTime, state: &RunState) -> io::Result<()> {
        if !self.normal() || self.options.live {
            return Ok(());
        }
        let silent: Vec<(&Step, &StepState)> = state
            .running()
            .into_iter()
            .filter(|(step, known)| now - *self.heard.get(step).unwrap_or(&known.started) >= SIGN_OF_LIFE)
            .collect();
        if silent.is_empty() {
            return Ok(());
        }
        let mut parts = Vec::new();
        for (step, known) in &silent {
            self.heard.insert((*step).clone(), now);
            let spent = u64::try_from((now - known.started).whole_milliseconds()).unwrap_or_default();
            parts.push(format!("{} {} {} ({})", step.subject(), step.stage.name(), took(spent), clip(&clean(&known.doing()), 60)));
        }
        let more = parts.len().saturating_sub(NAMED_RUNNING);
        parts.truncate(NAMED_RUNNING);
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        writeln!(self.out, "still running: {}{more}", parts.join("; "))?;
        self.out.flush()
    }

    fn finish(&mut self, state: &RunState) -> io::Result<()> {
        let drawn = summary::Options { paint: self.options.paint, width: self.options.width, verbose: self.verbose() };
        if self.normal() {
            writeln!(self.out)?;
        }
        self.out.write_all(summary::render(state, &drawn).as_bytes())?;
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    fn drawn(events: &[Event], options: Options) -> String {
        let mut plain = Plain::new(Vec::new(), options);
        let mut state = RunState::default();
        for event in events {
            state.apply(event);
            plain.event(event, &state).unwrap();
        }
        String::from_utf8(plain.out).unwrap()
    }

    #[test]
    fn success() {
        insta::assert_snapshot!(drawn(&samples::success(), Options::default()), @r#"
        offbuild deploy ffffffffffff on main "Fix the login <form> & more"
        run 20260102-030405-abcd by ann@ci-3
        api@staging: deploy since 111111111111 (rack): apps/api/main.rb changed (apps/api/**)
        web@staging: deploy since 111111111111 (rack): libs/auth/token.rb changed (shared `auth`, apps.yaml:14)
        worker@staging: deploy: never deployed
        3 targets to deploy, 2 images to build, 2 at a time
        api/web: retag started (same fingerprint in the registry)
        api/web: registry.example/api:web.ffffffffffffffffffffffffffffffffffffffff is sha256:abababababababababababababababababababababababababababababababab
        api/web: retag done in 0.4s
        web: before_build started (deploy/before_build.sh)
        web | compiling assets
        web: before_build done in 1.2s
        web/web: build started (apps/web/Dockerfile)
        web/web: build done in 9.3s (3 steps, 1 cached)
        web/web: push started (registry.example)
        web/web: registry.example/web:web.ffffffffffffffffffffffffffffffffffffffff is sha256:abababababababababababababababababababababababababababababababab
        web/web: push done in 2.5s
        worker/web: build started (apps/web/Dockerfile)
        worker/web: build done in 9.3s (3 steps, 1 cached)
        worker/web: push started (registry.example)
        worker/web: registry.example/worker:web.ffffffffffffffffffffffffffffffffffffffff is sha256:abababababababababababababababababababababababababababababababab
        worker/web: push done in 2.5s
        worker/web: the cache `registry.example/worker:cache` could not be imported: not found
        api@staging: stage started (convox.yml)
        api@staging | Running: docker pull registry.example/x
        api@staging: release RAPI2 is staged
        api@staging: stage done in 8.0s
        api@staging: promote started (RAPI2)
        api@staging: the rack says updating, RAPI1 active
        api@staging: the rack says updating, RAPI2 active
        api@staging: the rack says running, RAPI2 active
        api@staging: promote done in 32.0s
        api@staging: deployed, RAPI2 is live
        web@staging: stage started (convox.yml)
        web@staging | Running: docker pull registry.example/x
        web@staging: release RWEB2 is staged
        web@staging: stage done in 8.0s
        web@staging: promote started (RWEB2)
        web@staging: the rack says updating, RWEB1 active
        web@staging: the rack says updating, RWEB2 active
        web@staging: the rack says running, RWEB2 active
        web@staging: promote done in 32.0s
        web@staging: deployed, RWEB2 is live
        worker@staging: stage started (convox.yml)
        worker@staging | Running: docker pull registry.example/x
        worker@staging: release RWRK2 is staged
        worker@staging: stage done in 8.0s
        worker@staging: promote started (RWRK2)
        worker@staging: the rack says updating, RWRK1 active
        worker@staging: the rack says updating, RWRK2 active
        worker@staging: the rack says running, RWRK2 active
        worker@staging: promote done in 32.0s
        worker@staging: deployed, RWRK2 is live
        "#);
    }

    #[test]
    fn nothing_to_do() {
        insta::assert_snapshot!(drawn(&samples::nothing_to_do(), Options::default()), @r#"
        offbuild deploy ffffffffffff on main "Fix the login <form> & more"
        run 20260102-030405-abcd by ann@ci-3
        "#);
    }

    #[test]
    fn build_broken() {
        insta::assert_snapshot!(drawn(&samples::build_broken(), Options::default()), @r#"
        offbuild deploy ffffffffffff on main "Fix the login <form> & more"
        run 20260102-030405-abcd by ann@ci-3
        api@staging: deploy since 111111111111 (rack): apps/api/main.rb changed (apps/api/**)
        web@staging: deploy since 111111111111 (rack): libs/auth/token.rb changed (shared `auth`, apps.yaml:14)
        worker@staging: deploy: never deployed
        3 targets to deploy, 2 images to build, 2 at a time
        api/web: retag started (same fingerprint in the registry)
        api/web: registry.example/api:web.ffffffffffffffffffffffffffffffffffffffff is sha256:abababababababababababababababababababababababababababababababab
        api/web: retag done in 0.4s
        web/web: build started (apps/web/Dockerfile)
        web/web | => [1/3] FROM ruby:3.4 cached
        web/web | Fetching rake 13.2.1
        web/web | ::error::not from us # #[error]neither
        web/web | => [2/3] RUN bundle install error: exit code: 5
        web/web: build failed after 4.0s: `RUN bundle install` ended with 5
        worker/web: build started (apps/web/Dockerfile)
        worker/web: build done in 9.3s (3 steps, 1 cached)
        worker/web: push started (registry.example)
        worker/web: registry.example/worker:web.ffffffffffffffffffffffffffffffffffffffff is sha256:abababababababababababababababababababababababababababababababab
        worker/web: push done in 2.5s
        "#);
    }

    #[test]
    fn hook_failing_on_github() {
        insta::assert_snapshot!(drawn(&samples::hook_failing(), Options { ci: Ci::Github, ..Options::default() }), @r#"
        offbuild deploy ffffffffffff on main "Fix the login <form> & more"
        run 20260102-030405-abcd by ann@ci-3
        api@staging: deploy since 111111111111 (rack): apps/api/main.rb changed (apps/api/**)
        web@staging: deploy since 111111111111 (rack): libs/auth/token.rb changed (shared `auth`, apps.yaml:14)
        worker@staging: deploy: never deployed
        3 targets to deploy, 2 images to build, 2 at a time
        api/web: retag started (same fingerprint in the registry)
        api/web: registry.example/api:web.ffffffffffffffffffffffffffffffffffffffff is sha256:abababababababababababababababababababababababababababababababab
        api/web: retag done in 0.4s
        web/web: build started (apps/web/Dockerfile)
        ::group::web/web: build done in 9.3s (3 steps, 1 cached)
        web/web | => [internal] load build definition from Dockerfile 0.0s
        web/web | => [1/3] FROM ruby:3.4 cached
        web/web | Fetching rake 13.2.1
        web/web | => [2/3] RUN bundle install 9.0s
        web/web | => [3/3] COPY . . 0.1s
        ::endgroup::
        web/web: push started (registry.example)
        web/web: registry.example/web:web.ffffffffffffffffffffffffffffffffffffffff is sha256:abababababababababababababababababababababababababababababababab
        web/web: push done in 2.5s
        api@staging: stage started (convox.yml)
        api@staging | Running: docker pull registry.example/x
        api@staging: release RAPI2 is staged
        api@staging: stage done in 8.0s
        api@staging: promote started (RAPI2)
        api@staging: the rack says updating, RAPI1 active
        api@staging: the rack says updating, RAPI2 active
        api@staging: the rack says running, RAPI2 active
        api@staging: promote done in 32.0s
        api@staging: deployed, RAPI2 is live
        web@staging: stage started (convox.yml)
        web@staging | Running: docker pull registry.example/x
        web@staging: release RWEB2 is staged
        web@staging: stage done in 8.0s
        web@staging: before_release started (deploy/before_release.sh)
        web@staging | migrating
        ::error file=db/schema.rb::column `email` is missing
        web@staging: before_release failed after 2.0s: `deploy/before_release.sh` ended with 3: column `email` is missing
        "#);
    }

    #[test]
    fn rolled_back_quietly() {
        insta::assert_snapshot!(drawn(&samples::rolled_back(), Options { verbosity: Verbosity::Quiet, ..Options::default() }), @r#"web@staging: promote rolled back after 2m 04s: the rack went back to `RWEB1`: web.1 failed its health check `/up` (502)"#);
    }

    #[test]
    fn interrupted_under_live_rows() {
        insta::assert_snapshot!(drawn(&samples::interrupted(), Options { live: true, ..Options::default() }), @r#"
        offbuild deploy ffffffffffff on main "Fix the login <form> & more"
        run 20260102-030405-abcd by ann@ci-3
        api@staging: deploy since 111111111111 (rack): apps/api/main.rb changed (apps/api/**)
        web@staging: deploy since 111111111111 (rack): libs/auth/token.rb changed (shared `auth`, apps.yaml:14)
        worker@staging: deploy: never deployed
        3 targets to deploy, 2 images to build, 2 at a time
        api/web: retag done in 0.4s
        INT: nothing new starts, a promote under way is awaited; again to stop at once
        web/web: build cancelled after 1.7s
        "#);
    }

    #[test]
    fn a_failed_build_is_whole_and_in_no_group_and_gives_the_runner_no_commands() {
        for verbosity in [Verbosity::Quiet, Verbosity::Normal, Verbosity::Verbose] {
            let text = drawn(&samples::build_broken(), Options { ci: Ci::Github, verbosity, ..Options::default() });
            let mut folded = false;
            for line in text.lines() {
                folded = line.starts_with("::group::") || (folded && line != "::endgroup::");
                assert!(!(folded && line.contains("web/web |")), "{text}");
                assert!(!line.starts_with("::error") && !line.contains("##["), "{line}");
            }
            assert!(text.contains("web/web | Fetching rake 13.2.1\nweb/web | ::error::not from us # #[error]neither\n"), "{text}");
        }
    }

    #[test]
    fn gitlab_folds_good_builds_and_no_failed_one() {
        let text = drawn(&samples::hook_failing(), Options { ci: Ci::Gitlab, ..Options::default() });
        let start =
            "\u{1b}[0Ksection_start:1767323045:offbuild_1[collapsed=true]\r\u{1b}[0Kweb/web: build done in 9.3s (3 steps, 1 cached)\n";
        let (before, rest) = text.split_once(start).expect(&text);
        let (inside, after) = rest.split_once("\u{1b}[0Ksection_end:1767323054:offbuild_1\r\u{1b}[0K\n").expect(&text);
        assert!(inside.lines().all(|line| line.starts_with("web/web | ")) && inside.contains("Fetching rake"), "{inside}");
        assert!(!format!("{before}{after}").contains("section_"), "{text}");
        // A hook's command is a line of its log where nobody reads commands.
        assert!(after.contains("web@staging | ::error file=db/schema.rb::column"), "{after}");
        for verbosity in [Verbosity::Quiet, Verbosity::Normal, Verbosity::Verbose] {
            let text = drawn(&samples::build_broken(), Options { ci: Ci::Gitlab, verbosity, ..Options::default() });
            let mut folded = false;
            for line in text.lines() {
                folded = line.contains("section_start:") || (folded && !line.contains("section_end:"));
                assert!(!(folded && line.contains("web/web |")), "{text}");
            }
            assert_eq!(text.contains("section_start:"), verbosity != Verbosity::Quiet, "{text}");
            assert!(text.contains("web/web | Fetching rake 13.2.1\n"), "{text}");
        }
    }

    #[test]
    fn commands_of_hooks_reach_the_runner_and_a_mask_keeps_its_value() {
        let mut stream = samples::Stream::start();
        for line in ["::add-mask::***", "::error file=a,line=1::x", "::group::mine", "::stop-commands::x", "::save-state name=a::b"] {
            stream.log("web", Stage::BeforeBuild, line);
        }
        stream.log("web/web", Stage::Push, "::error::no hook");
        let mut events = stream.pass(0).add(EventKind::RunFinished { code: 0, millis: 0 }).events();
        events[1].mask = Some(crate::secret::Secret::new("hunter22"));
        let text = drawn(&events, Options { ci: Ci::Github, ..Options::default() });
        let lines: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "::add-mask::hunter22",
                "::error file=a,line=1::x",
                "web | ::group::mine",
                "web | ::stop-commands::x",
                "web | ::save-state name=a::b",
                "web/web | ::error::no hook"
            ]
        );
        assert!(!drawn(&events, Options::default()).contains("hunter22"));
    }

    #[test]
    fn whoever_runs_is_named_every_thirty_seconds() {
        let mut stream = samples::Stream::start();
        stream.begin("web/web", Stage::Build, "Dockerfile").build_step("web/web", "[2/3] RUN make", false, None, None);
        let events = stream.pass(20_000).begin("api", Stage::BeforeBuild, "deploy/before_build.sh").events();
        let mut state = RunState::default();
        let mut plain = Plain::new(Vec::new(), Options::default());
        events.iter().for_each(|event| {
            state.apply(event);
            plain.event(event, &state).unwrap();
        });
        plain.out.clear();
        for second in 0..=65 {
            plain.tick(samples::START + Duration::seconds(second), &state).unwrap();
        }
        insta::assert_snapshot!(String::from_utf8(plain.out).unwrap(), @r#"
        still running: web/web build 30.0s ([2/3] RUN make)
        still running: api before_build 30.0s (deploy/before_build.sh)
        still running: web/web build 1m 00s ([2/3] RUN make)
        "#);
    }
}
