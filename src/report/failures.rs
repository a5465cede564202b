//! What failed in a run, said once per app, with what to do next: the same words for every report.

use super::evidence::{Section, sections};
use super::live::Live;
use super::state::{RunState, TargetState};
use super::text::{clean, took};
use crate::event::{FailureClass, Stage, StepOutcome, TargetOutcome};
use crate::names::{AppName, RackName};

/// One failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The app.
    pub app: AppName,
    /// The racks it failed on; none when it failed before it came to a rack and no rack is concerned.
    pub racks: Vec<RackName>,
    /// The step, when one failed.
    pub stage: Option<Stage>,
    /// The class; `None` for a roll back.
    pub class: Option<FailureClass>,
    /// What and why; may span lines.
    pub message: String,
    /// What to do next.
    pub hint: String,
    /// What else is known: what the rack said over time.
    pub evidence: Vec<String>,
    /// What the rack showed of a promote that did not end well.
    pub sections: Vec<Section>,
}

impl Failure {
    /// `web`, `web@staging`, `web (staging, production)`.
    #[must_use]
    pub fn subject(&self) -> String {
        match self.racks.as_slice() {
            [] => self.app.to_string(),
            [rack] => format!("{}@{rack}", self.app),
            racks => format!("{} ({})", self.app, racks.iter().map(RackName::as_str).collect::<Vec<_>>().join(", ")),
        }
    }

    /// `failed in before_release`, `rolled back`.
    #[must_use]
    pub fn what(&self) -> String {
        match (self.class, self.stage) {
            (None, _) => "rolled back".to_owned(),
            // Nothing was tried.
            (Some(FailureClass::Guard), _) => "stopped by a guard".to_owned(),
            (Some(_), Some(stage)) => format!("failed in {}", stage.name()),
            (Some(class), None) => format!("failed: {}", class.name()),
        }
    }

    /// All that is known of it, line by line: the message, what the rack said, and each section below its title.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.message.lines().chain(self.evidence.iter().map(String::as_str)).map(clean).collect();
        for section in &self.sections {
            lines.push(format!("{}:", clean(&section.title)));
            lines.extend(section.lines.iter().map(|line| format!("  {}", clean(line))));
        }
        lines
    }

    /// True when a guard asks for a decision that its hint has the command for: the same command again would be refused again.
    fn says_how_to_go_on(&self) -> bool {
        self.class == Some(FailureClass::Guard) && self.hint.contains("offbuild deploy --")
    }

    /// True when the same commit may go through at the next try; false when something has to be changed first.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        self.class.is_some_and(|class| class.may_pass())
    }
}

impl FailureClass {
    /// What to do next when nobody knew anything better.
    #[must_use]
    pub fn hint(self) -> &'static str {
        match self {
            Self::Hook => "see what the hook said; it is run again by the next try",
            Self::HookTimeout => "see what the hook waited for, or raise `timeouts.hook`",
            Self::Build => "see the build's log; build it alone: `offbuild build APP`",
            Self::BuildTimeout => "see where the build stood, or raise `timeouts.build`",
            Self::Push => "check that the registry can be reached and written to: `offbuild doctor`",
            Self::PushTimeout => "see how far the push was, or raise `timeouts.push`",
            Self::TagConflict => "the tag stays as it is; commit again to get a new one",
            Self::Registry => "check the registry's address and credentials: `offbuild doctor`",
            Self::Engine => "check the Docker Engine: `offbuild doctor`",
            Self::RackLogin => "check the rack's password and host: `offbuild doctor`",
            Self::RackUnreachable => "check that the rack can be reached: `offbuild doctor`",
            Self::Rack => "see what the rack answered: `offbuild status`",
            Self::RackBuild => "see the rack's build log; check that the rack may pull the image",
            Self::RackBuildTimeout => "see whether the rack's build still runs, or raise `timeouts.rack_build`",
            Self::Promote => "see what is live: `offbuild status`",
            Self::PromoteTimeout => "see what is live: `offbuild status`; or raise `timeouts.promote`",
            Self::Overtaken => "another release is live; deploy again to compare with it: `offbuild deploy`",
            Self::RunTimeout => "see what it stood at, or raise `timeouts.run`",
            Self::Guard => "the rack changed since the plan was made; make a new one: `offbuild deploy`",
        }
    }

    /// True when the same commit may go through at the next try.
    #[must_use]
    pub fn may_pass(self) -> bool {
        !matches!(self, Self::Hook | Self::Build | Self::TagConflict | Self::RackBuild)
    }
}

/// What failed, in the plan's order, one entry per app and cause.
#[must_use]
pub fn failures(state: &RunState) -> Vec<Failure> {
    let mut found: Vec<Failure> = Vec::new();
    for (target, known) in state.targets_in_order() {
        let (stage, class, message, hint) = match &known.outcome {
            Some(TargetOutcome::Failed { stage, class, message, hint }) => {
                let hint = hint.clone().unwrap_or_else(|| default_hint(*class, &target.app));
                (Some(*stage), Some(*class), message, hint)
            }
            // It went back with its group, whose failure is another's.
            Some(TargetOutcome::RolledBack { group: Some(_), .. }) => continue,
            Some(TargetOutcome::RolledBack { message, group: None }) => {
                let hint =
                    format!("see what the app said before it stopped: `convox logs -a {} --rack {}`, then fix it", target.app, target.rack);
                (None, None, message, hint)
            }
            _ => continue,
        };
        let shown = known.evidence.as_ref().filter(|_| matches!(stage, None | Some(Stage::Promote)));
        let hint = shown.map(|shown| shown.next.clone()).filter(|next| !next.is_empty()).unwrap_or(hint);
        let sections = shown.map(|shown| sections(shown)).unwrap_or_default();
        let evidence = timeline(known);
        let twin = |other: &&mut Failure| other.app == target.app && other.message == *message && other.evidence == evidence;
        match found.iter_mut().find(twin) {
            // A build that failed concerns every rack the app goes to; it is told once.
            Some(twin) => twin.racks.push(target.rack.clone()),
            None => {
                let (app, racks, message) = (target.app.clone(), vec![target.rack.clone()], message.clone());
                found.push(Failure { app, racks, stage, class, message, hint, evidence, sections });
            }
        }
    }
    for (step, known) in state.steps_in_order() {
        let Some(StepOutcome::Failed { class, message, hint }) = &known.outcome else { continue };
        // A step's failure is its target's, told above, unless there is no target (`offbuild build`) or it came after.
        let after = matches!(step.stage, Stage::OnFailure | Stage::GoBack | Stage::Heal);
        let told = |failure: &&Failure| failure.app == step.app && (!after || failure.stage == Some(step.stage));
        if !found.iter().any(|failure| told(&failure)) {
            let hint = hint.clone().unwrap_or_else(|| default_hint(*class, &step.app));
            let (app, racks, message) = (step.app.clone(), step.rack.iter().cloned().collect(), message.clone());
            found.push(Failure {
                app,
                racks,
                stage: Some(step.stage),
                class: Some(*class),
                message,
                hint,
                evidence: Vec::new(),
                sections: Vec::new(),
            });
        }
    }
    found
}

fn default_hint(class: FailureClass, app: &AppName) -> String {
    class.hint().replace("APP", app.as_str())
}

/// What the rack said over time, when it said more than one thing.
fn timeline(target: &TargetState) -> Vec<String> {
    let Some(first) = target.statuses.first().filter(|_| target.statuses.len() > 1) else { return Vec::new() };
    let said = target.statuses.iter().map(|read| {
        let after = u64::try_from((read.time - first.time).whole_milliseconds()).unwrap_or_default();
        let release = read.release.as_ref().map_or(String::new(), |release| format!(" with {release} active"));
        format!("after {}: {}{release}", took(after), read.status)
    });
    said.collect()
}

/// The commands that go on from here, each with when to use it; empty when nothing is left to do.
#[must_use]
pub fn go_on(state: &RunState) -> Vec<(String, String)> {
    let Some(run) = &state.run else { return Vec::new() };
    let again = if run.command == "deploy" { "offbuild deploy --resume".to_owned() } else { format!("offbuild {}", run.command) };
    let mut next = Vec::new();
    let failed = failures(state);
    let outcomes = || state.targets.values().filter_map(|target| target.outcome.as_ref());
    if outcomes().any(|outcome| matches!(outcome, TargetOutcome::Staged { .. })) {
        next.push(("to make live what is staged".to_owned(), format!("offbuild promote {}", run.run)));
    }
    if failed.iter().any(|failure| !failure.may_pass()) {
        next.push(("when it is fixed and committed".to_owned(), format!("offbuild {}", run.command)));
        next.push(("to try this commit again".to_owned(), again));
    } else if state.interrupted.is_some() || state.finished.is_none() || failed.iter().any(|failure| !failure.says_how_to_go_on()) {
        next.push(("to go on".to_owned(), again));
    } else if !failed.is_empty() && outcomes().any(|outcome| !outcome.is_good() && !matches!(outcome, TargetOutcome::Failed { .. })) {
        next.push(("then, for the rest".to_owned(), again));
    }
    if state.finished.is_none() || state.targets.values().any(|target| target.live() == Live::Undecided) {
        next.push(("to see what is live".to_owned(), "offbuild status".to_owned()));
    }
    let held: Vec<String> = state
        .targets
        .iter()
        .filter(|(_, target)| matches!(target.outcome, Some(TargetOutcome::Held { .. })))
        .map(|(target, _)| format!(" --release-hold {target}"))
        .collect();
    if !held.is_empty() {
        next.push(("to deploy what is held".to_owned(), format!("offbuild deploy{}", held.concat())));
    }
    let traps: Vec<String> = state
        .targets_in_order()
        .into_iter()
        // A release that was staged on purpose is waited for.
        .filter(|(_, target)| target.trap().is_some() && !matches!(target.outcome, None | Some(TargetOutcome::Staged { .. })))
        .map(|(target, _)| format!(" {target}"))
        .collect();
    if !traps.is_empty() {
        next.push(("so that no `env set` builds on what was left behind".to_owned(), format!("offbuild heal{}", traps.concat())));
    }
    let refused = state.finished.is_some_and(|finish| finish.code == crate::error::Kind::Refused.exit_code());
    if refused && outcomes().any(|outcome| matches!(outcome, TargetOutcome::Stale { .. })) {
        next.push(("to count a newer live commit as done".to_owned(), "offbuild deploy --stale ok".to_owned()));
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    #[test]
    fn a_build_that_fails_is_told_once_for_all_racks() {
        let mut events = samples::build_broken();
        let again = events.iter().find_map(|event| match &event.kind {
            crate::event::EventKind::TargetFinished { outcome: outcome @ TargetOutcome::Failed { .. }, .. } => Some(outcome.clone()),
            _ => None,
        });
        let (kind, last) = (again.unwrap(), events.last().unwrap().clone());
        let kind = crate::event::EventKind::TargetFinished { target: samples::target("web@production"), millis: 0, outcome: kind };
        events.push(crate::event::Event { kind, ..last });
        let found = failures(&RunState::replay(&events));
        assert_eq!(found.iter().map(Failure::subject).collect::<Vec<_>>(), ["web (staging, production)"]);
    }

    #[test]
    fn a_roll_back_tells_what_the_rack_said() {
        let found = failures(&RunState::replay(&samples::rolled_back()));
        assert_eq!(
            found[0].evidence,
            [
                "after 0.0s: updating with RWEB1 active",
                "after 20.0s: updating with RWEB2 active",
                "after 1m 55s: rollback with RWEB2 active",
                "after 2m 04s: running with RWEB1 active"
            ]
        );
    }

    #[test]
    fn a_command_that_would_be_refused_again_is_not_offered() {
        use crate::event::EventKind;
        let guard = |hint: &str| TargetOutcome::Failed {
            stage: Stage::Stage,
            class: FailureClass::Guard,
            message: "no".to_owned(),
            hint: Some(hint.to_owned()),
        };
        let blocked = TargetOutcome::Blocked { by: "rack staging".to_owned() };
        let decides = "look, then: offbuild deploy --resume --rerun-hooks web@staging";
        let table = [
            (guard("deploy again"), TargetOutcome::UpToDate, Some("to go on")),
            (guard(decides), TargetOutcome::UpToDate, None),
            (guard(decides), blocked, Some("then, for the rest")),
        ];
        for (one, other, when) in table {
            let mut events = samples::nothing_to_do();
            let (kinds, last) = ([("web@staging", one), ("web@production", other)], events.last().unwrap().clone());
            for (target, outcome) in kinds {
                let kind = EventKind::TargetFinished { target: samples::target(target), millis: 0, outcome };
                events.push(crate::event::Event { kind, ..last.clone() });
            }
            let state = RunState::replay(&events);
            assert_eq!(go_on(&state).first().map(|(when, _)| when.as_str()), when, "{:?}", go_on(&state));
            assert_eq!(failures(&state)[0].what(), "stopped by a guard");
        }
    }

    #[test]
    fn a_failed_step_without_a_target_is_told_too() {
        let events: Vec<_> = samples::build_broken()
            .into_iter()
            .filter(|event| !matches!(event.kind, crate::event::EventKind::TargetFinished { .. }))
            .collect();
        let found = failures(&RunState::replay(&events));
        assert_eq!((found.len(), found[0].subject(), found[0].stage), (1, "web".to_owned(), Some(Stage::Build)));
    }
}
