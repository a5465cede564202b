//! A run as its events tell it: every report draws this one state, and resuming reads it.
//!
//! Folding is pure, so replaying a journal gives the state the run had. Output lines are counted and the last one is
//! kept; whoever wants all of them reads the events.

use crate::event::{Event, EventKind, Evidence, FailureClass, Stage, Step, StepOutcome, TargetOutcome};
use crate::names::{AppName, BuildId, CommitId, Digest, Fingerprint, ReleaseId, RunId, ServiceName, Target};
use std::collections::{BTreeMap, BTreeSet};
use time::OffsetDateTime;

/// Everything known about a run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunState {
    /// The facts it began with.
    pub run: Option<RunFacts>,
    /// What the plan came to.
    pub plan: Option<PlanFacts>,
    /// The targets.
    pub targets: BTreeMap<Target, TargetState>,
    /// The images.
    pub images: BTreeMap<(AppName, ServiceName), ImageState>,
    /// The steps that were begun.
    pub steps: BTreeMap<Step, StepState>,
    /// What was worth knowing, in order.
    pub notices: Vec<NoticeState>,
    /// The signal that stopped the run, the last one when there were two.
    pub interrupted: Option<Interruption>,
    /// How the run ended; `None` while it runs, or when it was killed.
    pub finished: Option<Finish>,
    /// When the last event was.
    pub last: Option<OffsetDateTime>,
}

/// What a run began with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFacts {
    /// The run.
    pub run: RunId,
    /// The command line's verb.
    pub command: String,
    /// HEAD.
    pub commit: CommitId,
    /// First line of HEAD's message.
    pub subject: String,
    /// The branch.
    pub branch: Option<String>,
    /// Where CI shows the run.
    pub ci_url: Option<String>,
    /// `user@host`.
    pub by: String,
    /// When it began.
    pub started: OffsetDateTime,
}

/// What the plan came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlanFacts {
    /// Distinct builds to run.
    pub builds: usize,
    /// Targets to deploy.
    pub targets: usize,
    /// Builds in flight at most.
    pub jobs: usize,
}

/// One target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TargetState {
    /// Its place in the plan, from 0.
    pub order: usize,
    /// `deploy`, `up-to-date`, …
    pub verdict: String,
    /// Why.
    pub reasons: Vec<String>,
    /// The commit it was compared with.
    pub base: Option<CommitId>,
    /// Where that commit came from.
    pub base_source: String,
    /// The release that was live before the run.
    pub live_release: Option<ReleaseId>,
    /// A newer release of another build that was there before the run and not live.
    pub trap_before: Option<ReleaseId>,
    /// The copy of a release that was made to go back or to heal.
    pub copied: Option<Copied>,
    /// What the rack showed of a promote that did not end well.
    pub evidence: Option<Box<Evidence>>,
    /// What this run staged or took over.
    pub staged: Option<(BuildId, ReleaseId)>,
    /// What `staged` is to go over, when that became active after the plan was made.
    pub over: Option<ReleaseId>,
    /// The run from which `staged` was taken over, and the hooks of it that had run to their end.
    pub adopted: Option<(RunId, Vec<Stage>)>,
    /// What the rack said during the promote, in order, repeats left out.
    pub statuses: Vec<StatusRead>,
    /// A promote was begun, and nobody saw how it ended.
    pub promoting: bool,
    /// How it ended.
    pub outcome: Option<TargetOutcome>,
    /// How long its steps in the lane took, milliseconds.
    pub millis: u64,
}

/// A copy of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// What it is a copy of.
    pub of: ReleaseId,
    /// The copy.
    pub release: ReleaseId,
    /// The group it went back with; `None` when it heals.
    pub group: Option<String>,
}

/// One reading of an app's status on a rack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusRead {
    /// When.
    pub time: OffsetDateTime,
    /// `running`, `updating`, …
    pub status: String,
    /// The active release.
    pub release: Option<ReleaseId>,
}

/// One image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageState {
    /// Its place in the plan, from 0.
    pub order: usize,
    /// The fingerprint, when it was planned.
    pub fingerprint: Option<Fingerprint>,
    /// `build`, `reuse`, `present`.
    pub action: String,
    /// The reference with tag.
    pub reference: String,
    /// The digest, once it is in its repository.
    pub digest: Option<Digest>,
    /// True when this run built it.
    pub built: bool,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepState {
    /// The number of steps begun before it.
    pub order: usize,
    /// What exactly.
    pub detail: String,
    /// When it was begun, the last time when more than once.
    pub started: OffsetDateTime,
    /// When it ended.
    pub ended: Option<OffsetDateTime>,
    /// How long it took, milliseconds, once it ended.
    pub millis: u64,
    /// How it ended; `None` while it runs, or when the run was killed in it.
    pub outcome: Option<StepOutcome>,
    /// The last line of its output.
    pub last_line: Option<String>,
    /// Lines of output.
    pub lines: u64,
    /// Bytes moved, and bytes in all when known.
    pub transfer: Option<(u64, Option<u64>)>,
    /// BuildKit's steps, in the order they were first seen.
    pub build_steps: Vec<BuildStepState>,
}

/// One step of BuildKit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildStepState {
    /// BuildKit's name of it.
    pub name: String,
    /// True when it came from the cache.
    pub cached: bool,
    /// True when it is over.
    pub done: bool,
    /// How long it took, milliseconds.
    pub millis: Option<u64>,
    /// The error.
    pub error: Option<String>,
    /// When it was first seen.
    pub seen: OffsetDateTime,
}

impl BuildStepState {
    /// True for a Dockerfile's own steps (`[2/4] …`, `[build 2/4] …`), false for BuildKit's housekeeping (`[internal] …`).
    #[must_use]
    pub fn is_instruction(&self) -> bool {
        let count = self.name.strip_prefix('[').and_then(|rest| rest.split_once(']')).and_then(|(inside, _)| inside.split(' ').next_back());
        count.and_then(|count| count.split_once('/')).is_some_and(|(at, of)| at.parse::<u32>().is_ok() && of.parse::<u32>().is_ok())
    }
}

/// Something worth knowing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoticeState {
    /// The step it belongs to.
    pub step: Option<Step>,
    /// What.
    pub message: String,
}

/// A signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interruption {
    /// `INT` or `TERM`.
    pub signal: String,
    /// True for the second one.
    pub now: bool,
}

/// The end of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finish {
    /// The exit code.
    pub code: u8,
    /// How long the run took, milliseconds.
    pub millis: u64,
}

/// What the images of a run came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImageCounts {
    /// Built by this run.
    pub built: usize,
    /// In their repository now, built by this run or not.
    pub pushed: usize,
    /// In the registry already, so not built.
    pub reused: usize,
    /// Dockerfile steps that ran or came from the cache.
    pub steps: usize,
    /// Those of them that came from the cache.
    pub cached: usize,
}

impl RunState {
    /// Folds the events of a run.
    pub fn replay<'a>(events: impl IntoIterator<Item = &'a Event>) -> Self {
        let mut state = Self::default();
        events.into_iter().for_each(|event| state.apply(event));
        state
    }

    /// Takes one more event in.
    pub fn apply(&mut self, event: &Event) {
        self.last = Some(event.time);
        match &event.kind {
            EventKind::RunStarted { run, command, commit, subject, branch, ci_url, by, .. } => {
                let (run, command, commit, subject) = (run.clone(), command.clone(), commit.clone(), subject.clone());
                let (branch, ci_url, by) = (branch.clone(), ci_url.clone(), by.clone());
                self.run = Some(RunFacts { run, command, commit, subject, branch, ci_url, by, started: event.time });
            }
            EventKind::TargetPlanned { target, verdict, reasons, base, base_source, live_release, trap } => {
                let known = self.target(target);
                (known.verdict, known.reasons) = (verdict.clone(), reasons.clone());
                (known.base, known.base_source) = (base.clone(), base_source.clone());
                (known.live_release, known.trap_before) = (live_release.clone(), trap.clone());
            }
            EventKind::ImagePlanned { app, service, fingerprint, action, reference } => {
                let image = self.image(app, service);
                (image.action, image.reference) = (action.clone(), reference.clone());
                image.fingerprint = Some(fingerprint.clone());
            }
            EventKind::PlanReady { builds, targets, jobs } => {
                self.plan = Some(PlanFacts { builds: *builds, targets: *targets, jobs: *jobs });
            }
            EventKind::StepStarted { step, detail } => {
                let order = self.steps.get(step).map_or(self.steps.len(), |earlier| earlier.order);
                self.steps.insert(step.clone(), StepState::begun(order, detail.clone(), event.time));
                self.promotes(step, true);
            }
            EventKind::Log { step, line, .. } => {
                let known = self.step(step, event.time);
                known.lines += 1;
                if !line.trim().is_empty() {
                    known.last_line = Some(line.clone());
                }
            }
            EventKind::BuildStep { step, name, cached, done, millis, error } => {
                let known = self.step(step, event.time);
                // What it said is not what the next one does.
                known.last_line = known.last_line.take().filter(|_| !*done);
                let place = known.build_steps.iter().rposition(|seen| seen.name == *name);
                let seen = place.map_or(event.time, |place| known.build_steps[place].seen);
                let (name, error) = (name.clone(), error.clone());
                let now = BuildStepState { name, cached: *cached, done: *done, millis: *millis, error, seen };
                match place {
                    Some(place) => known.build_steps[place] = now,
                    None => known.build_steps.push(now),
                }
            }
            EventKind::Transfer { step, current, total } => self.step(step, event.time).transfer = Some((*current, *total)),
            EventKind::Notice { step, message } => self.notices.push(NoticeState { step: step.clone(), message: message.clone() }),
            EventKind::ImagePushed { app, service, reference, digest, built } => {
                let image = self.image(app, service);
                image.reference.clone_from(reference);
                (image.digest, image.built) = (Some(digest.clone()), *built);
            }
            EventKind::ReleaseStaged { target, build, release, over } => {
                // What was taken over stays known: a release of the same build may take its place, and its hooks have run.
                let known = self.target(target);
                (known.staged, known.over) = (Some((build.clone(), release.clone())), over.clone());
            }
            EventKind::ReleaseAdopted { target, build, release, from, done, .. } => {
                let known = self.target(target);
                (known.staged, known.adopted) = (Some((build.clone(), release.clone())), Some((from.clone(), done.clone())));
            }
            EventKind::ReleaseCopied { target, of, release, group } => {
                self.target(target).copied = Some(Copied { of: of.clone(), release: release.clone(), group: group.clone() });
            }
            EventKind::PromoteEvidence { target, evidence, .. } => self.target(target).evidence = Some(evidence.clone()),
            EventKind::RackStatus { target, status, release } => {
                let known = &mut self.target(target).statuses;
                if known.last().is_none_or(|last| last.status != *status || last.release != *release) {
                    known.push(StatusRead { time: event.time, status: status.clone(), release: release.clone() });
                }
            }
            EventKind::StepFinished { step, millis, outcome } => {
                let known = self.step(step, event.time);
                (known.ended, known.millis, known.outcome) = (Some(event.time), *millis, Some(outcome.clone()));
                self.promotes(step, matches!(outcome, StepOutcome::Failed { class: FailureClass::PromoteTimeout, .. }));
            }
            EventKind::TargetFinished { target, millis, outcome } => {
                let known = self.target(target);
                (known.millis, known.outcome) = (*millis, Some(outcome.clone()));
            }
            EventKind::Interrupted { signal, now } => self.interrupted = Some(Interruption { signal: signal.clone(), now: *now }),
            EventKind::RunFinished { code, millis } => self.finished = Some(Finish { code: *code, millis: *millis }),
        }
    }

    fn target(&mut self, target: &Target) -> &mut TargetState {
        let order = self.targets.len();
        self.targets.entry(target.clone()).or_insert_with(|| TargetState { order, ..TargetState::default() })
    }

    /// Takes down whether a promote is under way, when that is what the step does.
    fn promotes(&mut self, step: &Step, promoting: bool) {
        if let (Some(rack), Stage::Promote | Stage::GoBack) = (&step.rack, step.stage) {
            self.target(&Target { app: step.app.clone(), rack: rack.clone() }).promoting = promoting;
        }
    }

    fn image(&mut self, app: &AppName, service: &ServiceName) -> &mut ImageState {
        let order = self.images.len();
        self.images.entry((app.clone(), service.clone())).or_insert_with(|| ImageState {
            order,
            fingerprint: None,
            action: String::new(),
            reference: String::new(),
            digest: None,
            built: false,
        })
    }

    fn step(&mut self, step: &Step, time: OffsetDateTime) -> &mut StepState {
        let order = self.steps.len();
        self.steps.entry(step.clone()).or_insert_with(|| StepState::begun(order, String::new(), time))
    }

    /// The targets in the plan's order.
    #[must_use]
    pub fn targets_in_order(&self) -> Vec<(&Target, &TargetState)> {
        let mut targets: Vec<_> = self.targets.iter().collect();
        targets.sort_by_key(|(_, state)| state.order);
        targets
    }

    /// The images in the plan's order.
    #[must_use]
    pub fn images_in_order(&self) -> Vec<(&(AppName, ServiceName), &ImageState)> {
        let mut images: Vec<_> = self.images.iter().collect();
        images.sort_by_key(|(_, state)| state.order);
        images
    }

    /// The steps in the order they were begun.
    #[must_use]
    pub fn steps_in_order(&self) -> Vec<(&Step, &StepState)> {
        let mut steps: Vec<_> = self.steps.iter().collect();
        steps.sort_by_key(|(_, state)| state.order);
        steps
    }

    /// The hooks of a target's release that have run to their end, and those that were begun and did not, for who goes on
    /// with this run. A hook that failed is neither: it runs again without a word.
    #[must_use]
    pub fn release_hooks(&self, target: &Target) -> (BTreeSet<Stage>, BTreeSet<Stage>) {
        let known = self.targets.get(target).and_then(|known| known.adopted.as_ref());
        let mut done: BTreeSet<Stage> = known.into_iter().flat_map(|(_, done)| done.iter().copied()).collect();
        let mut cut_short = BTreeSet::new();
        for stage in [Stage::BeforeRelease, Stage::AfterRelease] {
            match self.step_of(target, stage).map(|step| &step.outcome) {
                Some(Some(StepOutcome::Done)) => drop(done.insert(stage)),
                Some(None | Some(StepOutcome::Cancelled)) => drop(cut_short.insert(stage)),
                Some(Some(_)) | None => {}
            }
        }
        (done, cut_short)
    }

    /// A step of a target's lane, when it was begun.
    #[must_use]
    pub fn step_of(&self, target: &Target, stage: Stage) -> Option<&StepState> {
        self.steps.get(&Step { app: target.app.clone(), rack: Some(target.rack.clone()), service: None, stage })
    }

    /// The steps that were begun and have not ended, in the order they were begun.
    #[must_use]
    pub fn running(&self) -> Vec<(&Step, &StepState)> {
        self.steps_in_order().into_iter().filter(|(_, state)| state.outcome.is_none()).collect()
    }

    /// The build step of an image, when it was begun.
    #[must_use]
    pub fn build_of(&self, app: &AppName, service: &ServiceName) -> Option<&StepState> {
        let step = Step { app: app.clone(), rack: None, service: Some(service.clone()), stage: Stage::Build };
        self.steps.get(&step)
    }

    /// What the images came to.
    #[must_use]
    pub fn image_counts(&self) -> ImageCounts {
        let mut counts = ImageCounts::default();
        for image in self.images.values() {
            counts.pushed += usize::from(image.digest.is_some() && image.built);
            counts.reused += usize::from(!image.built && (image.action == "reuse" || image.action == "present"));
        }
        for (step, state) in &self.steps {
            if step.stage == Stage::Build && state.outcome == Some(StepOutcome::Done) {
                counts.built += 1;
                let (steps, cached) = state.cache_hits();
                counts.steps += steps;
                counts.cached += cached;
            }
        }
        counts
    }

    /// How long the run took, milliseconds: as it said itself, or up to the last event when it could not say.
    #[must_use]
    pub fn wall_millis(&self) -> u64 {
        let spent = || {
            let run = self.run.as_ref()?;
            u64::try_from((self.last? - run.started).whole_milliseconds()).ok()
        };
        self.finished.map(|finish| finish.millis).or_else(spent).unwrap_or_default()
    }
}

impl StepState {
    fn begun(order: usize, detail: String, started: OffsetDateTime) -> Self {
        let (ended, millis, outcome, last_line, lines, transfer) = (None, 0, None, None, 0, None);
        Self { order, detail, started, ended, millis, outcome, last_line, lines, transfer, build_steps: Vec::new() }
    }

    /// The Dockerfile's steps that are over, and those of them that came from the cache.
    #[must_use]
    pub fn cache_hits(&self) -> (usize, usize) {
        let over = || self.build_steps.iter().filter(|step| step.done && step.is_instruction());
        (over().count(), over().filter(|step| step.cached).count())
    }

    /// What it is doing: BuildKit's newest step that runs, else its last line, else how far a transfer is, else its detail.
    #[must_use]
    pub fn doing(&self) -> String {
        let building = self.build_steps.iter().rev().find(|step| !step.done).map(|step| step.name.clone());
        let moved = || self.transfer.map(|(current, total)| super::text::transferred(current, total));
        building.or_else(|| self.last_line.clone()).or_else(moved).unwrap_or_else(|| self.detail.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    #[test]
    fn replaying_the_journal_gives_the_state_the_run_had() {
        for (name, events) in samples::all() {
            let mut live = RunState::default();
            let mut lines = String::new();
            for event in &events {
                live.apply(event);
                lines.push_str(&serde_json::to_string(event).unwrap());
                lines.push('\n');
            }
            let read: Vec<Event> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            assert_eq!(RunState::replay(&read), live, "{name}");
            assert!(live.finished.is_some(), "{name}");
        }
    }

    #[test]
    fn only_a_dockerfiles_own_steps_count() {
        let is = |name: &str| {
            let (seen, name) = (OffsetDateTime::UNIX_EPOCH, name.to_owned());
            BuildStepState { name, cached: false, done: true, millis: None, error: None, seen }.is_instruction()
        };
        assert!(is("[2/4] RUN bundle install") && is("[build 1/3] FROM x") && is("[linux/amd64 build 1/3] COPY . ."));
        assert!(!is("[internal] load metadata for x") && !is("exporting to image") && !is("[auth] a/b:pull") && !is("[x"));
    }
}
