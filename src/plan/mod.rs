//! The plan: everything that will be done, and why. It leaves nothing to decide.
//!
//! [`planner::plan`] makes it from facts that were read before, without touching the outside; `deploy` carries it out;
//! `offbuild plan` prints it. What only the run can know (a digest of an image not built yet, the id of a release) is left
//! open as exactly that.

pub mod adopt;
pub mod planner;
pub mod show;

use crate::build::ImageBuild;
use crate::changes::Head;
use crate::changes::description::fingerprint_in;
use crate::config::{HookConfig, HookKind, Removed, TargetConfig, Timeouts};
use crate::event::{FailureClass, Stage};
use crate::manifest::Manifest;
use crate::names::{
    AppName, BuildId, CommitId, Digest, Fingerprint, RackName, ReleaseId, RepoPath, Repository, RunId, ServiceName, Target,
};
use crate::rack::{AppStatus, Live};
use crate::registry::CreateOptions;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// When a lane may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Gate {
    /// When every selected image is pushed: a broken build releases nothing.
    #[default]
    All,
    /// A target starts when its own images are pushed.
    App,
}

/// What a failed target stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// The rest of its rack's lane.
    #[default]
    StopRack,
    /// Nothing but what comes `after` it.
    Continue,
    /// Every lane.
    StopAll,
}

/// How the plan is to be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Options {
    /// When lanes start.
    pub gate: Gate,
    /// What a failed target stops.
    pub on_failure: OnFailure,
    /// One failed build stops the others.
    pub fail_fast: bool,
    /// Weight of the builds in flight at most.
    pub jobs: usize,
    /// How far the run goes.
    pub until: Until,
    /// At its end, releases left behind that are not live are topped with a copy of what is.
    pub heal: bool,
    /// A newer live commit is deployed over (`--allow-older`).
    pub allow_older: bool,
    /// A live commit this one does not descend from is deployed over (`--allow-diverged`).
    pub allow_diverged: bool,
}

/// How far a run goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Until {
    /// Images are built and pushed (`offbuild build`).
    Push,
    /// Releases are staged, not promoted (`--no-promote`).
    Stage,
    /// Releases are promoted.
    #[default]
    Promote,
}

/// Everything that will be done.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The run it is for.
    pub run: RunId,
    /// The commit that is deployed.
    pub head: Head,
    /// How it is carried out.
    pub options: Options,
    /// The distinct image builds; [`ImageAction::Build`] names them by index.
    pub builds: Vec<BuildPlan>,
    /// The apps of which something is released, by name.
    pub apps: BTreeMap<AppName, AppPlan>,
    /// One lane per rack, in the order of the configuration.
    pub lanes: Vec<LanePlan>,
    /// Apps that were there and are gone. Nothing is done about them.
    pub removed: Vec<Gone>,
    /// Notes for the reader: paths nobody owns, a base that could not be read.
    pub notes: Vec<String>,
    /// The page of the CI job, when there is one.
    pub ci_url: Option<String>,
}

/// An app that is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gone {
    /// The app, with the racks it went to.
    pub app: Removed,
    /// The commit it was still there at.
    pub base: CommitId,
}

impl Gone {
    /// The targets it had; its name alone when it went nowhere.
    pub fn targets(&self) -> impl Iterator<Item = String> {
        let Removed { name, racks, .. } = &self.app;
        let alone = racks.is_empty().then(|| name.to_string());
        racks.iter().map(move |rack| Target { app: name.clone(), rack: rack.clone() }.to_string()).chain(alone)
    }
}

/// As a notice of the run.
impl std::fmt::Display for Gone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let targets: Vec<String> = self.targets().map(|target| format!("`{target}`")).collect();
        write!(f, "{} was removed since {}: nothing is done about it", targets.join(", "), self.base.short())
    }
}

/// One distinct build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildPlan {
    /// What is built.
    pub build: ImageBuild,
    /// Its Dockerfile as people name it, relative to the repository.
    pub dockerfile: RepoPath,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
    /// Who uses it; the first one's progress shows it.
    pub used_by: Vec<(AppName, ServiceName)>,
    /// How much of the jobs it takes.
    pub weight: usize,
}

/// What is done once per app, whatever the number of racks.
#[derive(Debug, Clone)]
pub struct AppPlan {
    /// Its name.
    pub name: AppName,
    /// Its directory, absolute: the hooks' working directory.
    pub dir: PathBuf,
    /// Its fingerprint.
    pub fingerprint: Fingerprint,
    /// The sha of its tags: the commit's, with `-dirty.<hash>` behind it when its inputs hold uncommitted changes.
    pub revision: String,
    /// Its images, in the manifest's order.
    pub images: Vec<ImagePlan>,
    /// All its hooks; those of the build run only when an image is built.
    pub hooks: BTreeMap<HookKind, HookConfig>,
    /// The racks it goes to in this run.
    pub racks: Vec<RackName>,
    /// Limits of build, push and build hooks.
    pub timeouts: Timeouts,
}

impl AppPlan {
    /// True when an image of it is built, so that the build hooks run.
    #[must_use]
    pub fn builds(&self) -> bool {
        self.images.iter().any(|image| matches!(image.action, ImageAction::Build { .. }))
    }
}

/// One image of an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagePlan {
    /// The service.
    pub service: ServiceName,
    /// Where it goes.
    pub repository: Repository,
    /// The tag of this commit; that of its content where the commit's holds the image of another environment.
    pub tag: String,
    /// The tag of its content.
    pub fingerprint_tag: String,
    /// The tag that moves along, when one does.
    pub latest_tag: Option<String>,
    /// Create the repository when it is missing, and how.
    pub create: Option<CreateOptions>,
    /// What is done.
    pub action: ImageAction,
}

impl ImagePlan {
    /// `repository:tag`.
    #[must_use]
    pub fn reference(&self) -> String {
        format!("{}:{}", self.repository, self.tag)
    }
}

/// What is done about an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageAction {
    /// It is built and pushed.
    Build {
        /// Index in [`Plan::builds`].
        build: usize,
    },
    /// An image with this fingerprint is in the registry: it gets this commit's tag.
    Reuse {
        /// Its digest.
        digest: Digest,
    },
    /// This commit's tag is there already, with this fingerprint.
    Present {
        /// Its digest.
        digest: Digest,
    },
    /// This commit's tag is there with other content: the app stops.
    Conflict {
        /// What it points to.
        digest: Digest,
        /// What is wrong.
        message: String,
    },
}

impl ImageAction {
    /// The word of plan and events.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Build { .. } => "build",
            Self::Reuse { .. } => "reuse",
            Self::Present { .. } => "present",
            Self::Conflict { .. } => "conflict",
        }
    }
}

/// The serial queue of one rack.
#[derive(Debug, Clone)]
pub struct LanePlan {
    /// The rack.
    pub rack: RackName,
    /// Racks of this plan whose lanes must have finished well.
    pub after: Vec<RackName>,
    /// Its targets, in the order in which they are released.
    pub targets: Vec<TargetPlan>,
}

/// One app on one rack.
#[derive(Debug, Clone)]
pub struct TargetPlan {
    /// The target.
    pub target: Target,
    /// Its settings.
    pub config: TargetConfig,
    /// What is to be done.
    pub decision: Decision,
    /// Why, a line each.
    pub reasons: Vec<String>,
    /// What it was compared with, and where that came from.
    pub base: Option<CommitId>,
    /// Where the base came from (`rack`, `--base`, …).
    pub base_source: String,
    /// What is live now.
    pub live: Option<PlannedLive>,
    /// Apps of this lane that come first.
    pub after: Vec<AppName>,
    /// The manifest that will be rewritten.
    pub manifest: std::sync::Arc<Manifest>,
    /// What is recorded with the rack's build.
    pub description: String,
    /// Where its release comes from.
    pub origin: Origin,
    /// A release that is newer than the active one and not live.
    pub trap: Option<Trap>,
    /// The apps of this group go back together.
    pub group: Option<String>,
    /// What it goes back to with its group: what was live before this run, or before the one it goes on with.
    pub back_to: Option<ReleaseId>,
}

/// A release that the rack would build the next `env set` on, and that is not live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trap {
    /// The release.
    pub release: ReleaseId,
    /// The commit of its build.
    pub commit: Option<CommitId>,
}

impl Trap {
    /// The one a rack told of.
    #[must_use]
    pub fn of(live: &Live) -> Option<Self> {
        live.trap().map(|newer| Self { release: newer.id.clone(), commit: newer.commit.clone() })
    }
}

/// As plan and status say it.
impl std::fmt::Display for Trap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let commit = self.commit.as_ref().map_or_else(String::new, |commit| format!(" (commit {})", commit.short()));
        write!(f, "{}{commit} is newer and not live: the next `env set` would be built on it", self.release)
    }
}

/// Where a release comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Origin {
    /// It is made of this commit.
    #[default]
    Stage,
    /// An earlier run staged it.
    Adopt(Adopted),
    /// It is a copy of an older release (`offbuild rollback`).
    Copy {
        /// The release.
        of: ReleaseId,
        /// Its build.
        build: BuildId,
    },
}

/// A release that an earlier run staged and that is exactly what this one would stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adopted {
    /// The run.
    pub from: RunId,
    /// The rack's build.
    pub build: BuildId,
    /// The release.
    pub release: ReleaseId,
    /// What is live was made after it, so that a new release of its build goes live in its place.
    pub outdated: bool,
    /// The hooks of this release that have run to their end; they do not run again.
    pub done: BTreeSet<Stage>,
    /// The hooks of this release that were begun and did not come to their end; they run again.
    pub again: BTreeSet<Stage>,
}

/// What was live when the plan was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedLive {
    /// The release, which must still be active right before the promote.
    pub release: ReleaseId,
    /// The commit of its build.
    pub commit: Option<CommitId>,
    /// The fingerprint of its build.
    pub fingerprint: Option<Fingerprint>,
    /// The manifest of its build.
    pub manifest: String,
    /// True when the app was running.
    pub running: bool,
}

impl PlannedLive {
    /// What a rack told; `None` when nothing was ever promoted.
    #[must_use]
    pub fn of(live: &Live) -> Option<Self> {
        let release = live.release.as_ref()?;
        let build = release.build.as_ref();
        Some(Self {
            release: release.id.clone(),
            commit: build.and_then(|build| build.commit.clone()),
            fingerprint: build.and_then(|build| fingerprint_in(&build.description)),
            manifest: build.map(|build| build.manifest.clone()).unwrap_or_default(),
            running: live.status == AppStatus::Running,
        })
    }
}

/// What is to be done with a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Release it.
    Release,
    /// Leave it alone: nothing of it changed.
    UpToDate,
    /// Leave it alone: somebody rolled it back.
    Held {
        /// The commit it was rolled back from.
        from: Option<CommitId>,
    },
    /// Leave it alone: what is live is newer.
    Stale {
        /// What is live.
        live: CommitId,
    },
    /// It cannot be planned: the rack refused, the app is not there, the guard says no.
    Failed {
        /// The class.
        class: FailureClass,
        /// What and why.
        message: String,
        /// What to do next.
        hint: Option<String>,
    },
}

impl Decision {
    /// The word of plan and events.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Release => "deploy",
            Self::UpToDate => "up-to-date",
            Self::Held { .. } => "held",
            Self::Stale { .. } => "stale",
            Self::Failed { .. } => "failed",
        }
    }
}

impl Plan {
    /// All targets, lane by lane.
    pub fn targets(&self) -> impl Iterator<Item = &TargetPlan> {
        self.lanes.iter().flat_map(|lane| &lane.targets)
    }

    /// The other targets of this run that go back with a target.
    pub fn goes_back_with<'p>(&'p self, target: &'p TargetPlan) -> impl Iterator<Item = &'p TargetPlan> {
        let same = move |other: &&TargetPlan| {
            target.group.is_some()
                && other.group == target.group
                && other.target != target.target
                && other.target.rack == target.target.rack
        };
        self.releases().filter(same)
    }

    /// The targets something is changed for: those that are released, and those that are healed at the end.
    pub fn changed(&self) -> impl Iterator<Item = &TargetPlan> {
        let heal = self.options.heal;
        self.targets().filter(move |target| target.decision == Decision::Release || heal && target.trap.is_some())
    }

    /// The targets that are to be released.
    pub fn releases(&self) -> impl Iterator<Item = &TargetPlan> {
        self.targets().filter(|target| target.decision == Decision::Release)
    }
}

#[cfg(test)]
mod tests;
