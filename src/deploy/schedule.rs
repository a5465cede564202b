//! What may start now: the run's state as a value, without clocks, tasks or ports.
//!
//! The loop in `deploy` asks [`Schedule::ready`] what to start, carries it out, and tells how it ended. Apps wait for
//! nothing; a target waits for its gate, for the racks and apps it comes after, and for its lane, which has room for one.

use super::groups::{GoBack, Groups};
use crate::event::{FailureClass, Stage, TargetOutcome};
use crate::names::{AppName, Digest, RackName, ReleaseId, Repository, ServiceName, Target};
use crate::plan::{Decision, Gate, OnFailure, Plan, TargetPlan, Until};
use std::collections::BTreeMap;

/// The images of an app, by service: what a release of it runs.
pub type AppImages = BTreeMap<ServiceName, (Repository, Digest)>;

/// A step that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The stage.
    pub stage: Stage,
    /// The class.
    pub class: FailureClass,
    /// What and why.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

/// How the image phase of an app ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImagesOutcome {
    /// Everything is in its repository.
    Ready(AppImages),
    /// A step failed.
    Failed(Failure),
    /// It was asked to stop.
    Cancelled,
}

/// Something to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// The image phase of an app.
    Images(AppName),
    /// A target, with the images it is to run.
    Release(Target, AppImages),
    /// A target ended without anything having been done: tell it.
    Ended(Target, TargetOutcome),
    /// A target goes back with its group.
    GoBack(GoBack),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum AppState {
    Waiting,
    Running,
    Ended(ImagesOutcome),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum TargetState {
    Waiting,
    Running,
    Ended(TargetOutcome),
}

struct LaneState {
    rack: RackName,
    after: Vec<RackName>,
    targets: Vec<(Target, Vec<AppName>)>,
}

/// Why nothing new starts any more.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stopped {
    No,
    BySignal,
    OutOfTime,
    ByFailure(String),
}

/// The state of a run.
pub struct Schedule {
    gate: Gate,
    on_failure: OnFailure,
    fail_fast: bool,
    until: Until,
    apps: BTreeMap<AppName, AppState>,
    lanes: Vec<LaneState>,
    targets: BTreeMap<Target, TargetState>,
    stopped: Stopped,
    /// Racks whose lane takes no more targets, and because of what.
    closed: BTreeMap<RackName, String>,
    groups: Groups,
}

impl Schedule {
    /// The state before anything was done.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let lanes = plan.lanes.iter().map(|lane| LaneState {
            rack: lane.rack.clone(),
            after: lane.after.clone(),
            targets: lane.targets.iter().map(|target| (target.target.clone(), target.after.clone())).collect(),
        });
        Self {
            gate: plan.options.gate,
            on_failure: plan.options.on_failure,
            fail_fast: plan.options.fail_fast,
            until: plan.options.until,
            apps: plan.apps.keys().map(|app| (app.clone(), AppState::Waiting)).collect(),
            lanes: lanes.collect(),
            targets: plan.targets().map(|target| (target.target.clone(), TargetState::Waiting)).collect(),
            stopped: Stopped::No,
            closed: BTreeMap::new(),
            groups: Groups::of(plan),
        }
    }

    /// What to start now. Everything that is returned counts as started (or ended).
    pub fn ready(&mut self, plan: &Plan) -> Vec<Work> {
        let mut work = Vec::new();
        if self.stopped == Stopped::No {
            for (app, state) in self.apps.iter_mut().filter(|(_, state)| **state == AppState::Waiting) {
                *state = AppState::Running;
                work.push(Work::Images(app.clone()));
            }
        }
        // One target's end can decide others, in this lane and in lanes after it: go on until nothing moves.
        loop {
            let before = work.len();
            for lane in 0..self.lanes.len() {
                self.advance(lane, plan, &mut work);
            }
            if work.len() == before {
                return work;
            }
        }
    }

    /// The image phase of an app ended. `true` when the other builds should stop.
    pub fn images_ended(&mut self, app: &AppName, outcome: ImagesOutcome) -> bool {
        let failed = matches!(outcome, ImagesOutcome::Failed(_));
        self.apps.insert(app.clone(), AppState::Ended(outcome));
        let stop = failed && (self.fail_fast || self.on_failure == OnFailure::StopAll);
        if stop && self.stopped == Stopped::No {
            self.stopped = Stopped::ByFailure(format!("app `{app}` failed"));
        }
        stop
    }

    /// The release of a target is known: what may have to go back later.
    pub fn released(&mut self, target: &Target, release: ReleaseId) {
        self.groups.released(target, release);
    }

    /// A target has gone back with its group, or was to. The one whose failure began it keeps that as its outcome; what becomes
    /// of the others is told: `true`.
    pub fn went_back(&mut self, target: &Target, outcome: TargetOutcome) -> bool {
        self.groups.went(&target.rack);
        let another = self.targets.get(target) == Some(&TargetState::Running);
        if another {
            self.targets.insert(target.clone(), TargetState::Ended(outcome));
        }
        another
    }

    /// A target ended. `true` when everything else should stop.
    pub fn target_ended(&mut self, target: &Target, outcome: TargetOutcome) -> bool {
        let mut stop = false;
        if matches!(outcome, TargetOutcome::Failed { .. } | TargetOutcome::RolledBack { .. } | TargetOutcome::Cancelled) {
            match self.on_failure {
                OnFailure::Continue => {}
                OnFailure::StopRack => {
                    self.closed.entry(target.rack.clone()).or_insert_with(|| format!("`{target}` {}", outcome.word()));
                }
                OnFailure::StopAll => {
                    stop = self.stopped == Stopped::No;
                    if stop {
                        self.stopped = Stopped::ByFailure(format!("`{target}` {}", outcome.word()));
                    }
                }
            }
        }
        self.groups.ended(target, &outcome);
        self.targets.insert(target.clone(), TargetState::Ended(outcome));
        stop
    }

    /// A signal came: nothing new starts.
    pub fn interrupt(&mut self) {
        self.stopped = Stopped::BySignal;
    }

    /// The run has had its time: nothing new starts.
    pub fn out_of_time(&mut self) {
        if self.stopped == Stopped::No {
            self.stopped = Stopped::OutOfTime;
        }
    }

    /// How each target ended, so far.
    pub fn outcomes(&self) -> impl Iterator<Item = (&Target, &TargetOutcome)> {
        self.targets.iter().filter_map(|(target, state)| match state {
            TargetState::Ended(outcome) => Some((target, outcome)),
            _ => None,
        })
    }

    /// How a target ends that has no outcome when everything is dropped.
    #[must_use]
    pub fn cut_short(&self, planned: &TargetPlan) -> TargetOutcome {
        // Also one with nothing to do may be on its way back with its group.
        if self.targets.get(&planned.target) == Some(&TargetState::Running) {
            return TargetOutcome::Cancelled;
        }
        let builds = self.apps.get(&planned.target.app) == Some(&AppState::Running);
        let open = || if builds { TargetOutcome::Cancelled } else { TargetOutcome::NotAttempted { why: self.stopped.why() } };
        decided(&planned.decision).unwrap_or_else(open)
    }

    /// The apps whose image phase did not end well, for runs without lanes.
    pub fn failed_apps(&self) -> impl Iterator<Item = &AppName> {
        self.apps.iter().filter(|(_, state)| !matches!(state, AppState::Ended(ImagesOutcome::Ready(_)))).map(|(app, _)| app)
    }

    /// Moves one lane on: ends what is decided, starts its next target when it may start.
    fn advance(&mut self, lane: usize, plan: &Plan, work: &mut Vec<Work>) {
        let rack = self.lanes[lane].rack.clone();
        // Whatever stops: half a group is what must not stay.
        if let Some(back) = self.groups.next(&rack) {
            if matches!(self.targets.get(&back.target), Some(TargetState::Ended(outcome)) if outcome.is_good()) {
                self.targets.insert(back.target.clone(), TargetState::Running);
            }
            work.push(Work::GoBack(back));
        }
        if self.groups.is_busy(&rack) {
            return;
        }
        for index in 0..self.lanes[lane].targets.len() {
            let (target, after) = self.lanes[lane].targets[index].clone();
            match self.targets.get(&target) {
                Some(TargetState::Waiting) => {}
                Some(TargetState::Running) => return,
                _ => continue,
            }
            match self.next(&rack, &target, &after, plan, lane) {
                Next::Wait => return,
                Next::Skip => {}
                Next::End(outcome) => {
                    self.target_ended(&target, outcome.clone());
                    work.push(Work::Ended(target, outcome));
                }
                Next::Start(images) => {
                    self.targets.insert(target.clone(), TargetState::Running);
                    work.push(Work::Release(target, images));
                    return;
                }
            }
        }
    }

    fn next(&self, rack: &RackName, target: &Target, after: &[AppName], plan: &Plan, lane: usize) -> Next {
        let Some(planned) = plan.targets().find(|planned| planned.target == *target) else { return Next::Skip };
        if let Some(outcome) = decided(&planned.decision) {
            return Next::End(outcome);
        }
        let images = match self.apps.get(&target.app) {
            Some(AppState::Ended(ImagesOutcome::Failed(failure))) => {
                let Failure { stage, class, message, hint } = failure.clone();
                return Next::End(TargetOutcome::Failed { stage, class, message, hint });
            }
            Some(AppState::Ended(ImagesOutcome::Cancelled)) => return Next::End(TargetOutcome::Cancelled),
            Some(AppState::Ended(ImagesOutcome::Ready(images))) => Some(images.clone()),
            Some(AppState::Running) => None,
            Some(AppState::Waiting) | None => match &self.stopped {
                Stopped::No => None,
                stopped => return Next::End(TargetOutcome::NotAttempted { why: stopped.why() }),
            },
        };
        match self.obstacle(rack, target, after, lane) {
            // A build that still runs is heard out first: it may fail, and then that is what happened to the target.
            Obstacle::Ends(_) if images.is_none() => Next::Skip,
            Obstacle::Ends(outcome) => Next::End(outcome),
            Obstacle::Open => Next::Wait,
            Obstacle::None => images.map_or(Next::Wait, Next::Start),
        }
    }

    /// What keeps a target from starting, its own images apart.
    fn obstacle(&self, rack: &RackName, target: &Target, after: &[AppName], lane: usize) -> Obstacle {
        let not_attempted = |why: String| Obstacle::Ends(TargetOutcome::NotAttempted { why });
        if self.stopped != Stopped::No {
            return not_attempted(self.stopped.why());
        }
        if self.until == Until::Push {
            return not_attempted("only builds were asked for".to_owned());
        }
        if let Some(group) = self.groups.broken(target) {
            return Obstacle::Ends(TargetOutcome::Blocked { by: format!("group {group}") });
        }
        if let Some(why) = self.closed.get(rack) {
            return not_attempted(format!("{why}, which stops the lane of `{rack}`"));
        }
        for earlier in &self.lanes[lane].after {
            match self.lane_end(earlier) {
                LaneEnd::Open => return Obstacle::Open,
                LaneEnd::Good => {}
                LaneEnd::Bad => return Obstacle::Ends(TargetOutcome::Blocked { by: format!("rack {earlier}") }),
            }
        }
        for app in after {
            let earlier = Target { app: app.clone(), rack: rack.clone() };
            match self.targets.get(&earlier) {
                Some(TargetState::Ended(outcome)) if !outcome.is_good() => {
                    return Obstacle::Ends(TargetOutcome::Blocked { by: earlier.to_string() });
                }
                Some(TargetState::Ended(_)) | None => {}
                Some(_) => return Obstacle::Open,
            }
        }
        if self.gate == Gate::All {
            let failed =
                self.apps.iter().find(|(_, state)| matches!(state, AppState::Ended(ImagesOutcome::Failed(_) | ImagesOutcome::Cancelled)));
            if let Some((app, _)) = failed.filter(|(app, _)| **app != target.app) {
                return not_attempted(format!("the images of `{app}` failed, and `--gate all` releases nothing then"));
            }
            if self.apps.values().any(|state| !matches!(state, AppState::Ended(_))) {
                return Obstacle::Open;
            }
        }
        Obstacle::None
    }

    fn lane_end(&self, rack: &RackName) -> LaneEnd {
        if self.groups.is_busy(rack) {
            return LaneEnd::Open;
        }
        let mut end = LaneEnd::Good;
        for (_, state) in self.targets.iter().filter(|(target, _)| target.rack == *rack) {
            match state {
                TargetState::Ended(outcome) if outcome.is_good() => {}
                TargetState::Ended(_) => end = LaneEnd::Bad,
                _ => return LaneEnd::Open,
            }
        }
        end
    }
}

/// The outcome of a verdict that asks for nothing: it holds whatever else happens.
fn decided(decision: &Decision) -> Option<TargetOutcome> {
    match decision {
        Decision::Release => None,
        Decision::UpToDate => Some(TargetOutcome::UpToDate),
        Decision::Held { from } => Some(TargetOutcome::Held { from: from.clone() }),
        Decision::Stale { live } => Some(TargetOutcome::Stale { live: live.clone() }),
        Decision::Failed { class, message, hint } => {
            let (class, message, hint) = (*class, message.clone(), hint.clone());
            Some(TargetOutcome::Failed { stage: Stage::Stage, class, message, hint })
        }
    }
}

enum Next {
    Wait,
    Skip,
    End(TargetOutcome),
    Start(AppImages),
}

enum Obstacle {
    None,
    Open,
    Ends(TargetOutcome),
}

enum LaneEnd {
    Open,
    Good,
    Bad,
}

impl Stopped {
    fn why(&self) -> String {
        match self {
            Self::No => String::new(),
            Self::OutOfTime => "the run had no time left".to_owned(),
            Self::BySignal => "the run was interrupted".to_owned(),
            Self::ByFailure(why) => format!("{why}, which stops everything"),
        }
    }
}
