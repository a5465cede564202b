//! Racks: what is live there, and how a release gets live.
//!
//! Planning is given [`RackRead`] only, so it cannot change anything. [`Rack`] adds staging and promoting. `convox` speaks
//! to real racks of both versions; wire words (endpoints, JSON keys) stay in there.

pub mod convox;
mod copying;
pub mod login;

pub use copying::Copying;

use crate::event::{EnvChange, Progress};
use crate::names::{BuildId, CommitId, Digest, RackName, ReleaseId, Repository, ServiceName};
use crate::registry::Login;
use std::time::Duration;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

/// How long to wait between two looks at an app or build when nothing else is said, as the convox CLI does.
pub const POLL: Duration = Duration::from_secs(5);

/// How long is spent at most on reading what a rack shows of a promote that did not end well.
pub const EVIDENCE_TIME: Duration = Duration::from_secs(20);

/// What a rack is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RackInfo {
    /// `2` (ECS) or `3` (Kubernetes).
    pub major: u8,
    /// Its version, as it says it.
    pub version: String,
    /// The name it has for itself.
    pub name: String,
}

/// The status of an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppStatus {
    /// Nothing is under way.
    Running,
    /// A promote or another update is under way.
    Updating,
    /// The rack is going back.
    Rollback,
    /// Anything else, as the rack says it (`creating`, `failed`, …).
    Other(String),
}

impl AppStatus {
    /// The rack's word.
    #[must_use]
    pub fn word(&self) -> &str {
        match self {
            Self::Running => "running",
            Self::Updating => "updating",
            Self::Rollback => "rollback",
            Self::Other(word) => word,
        }
    }
}

/// What is live for an app on a rack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    /// The app's status.
    pub status: AppStatus,
    /// The app's generation: 1, 2 or 3.
    pub generation: u8,
    /// The active release; `None` when nothing was ever promoted.
    pub release: Option<LiveRelease>,
    /// A release newer than the active one, with the build it is of: left behind by a failed run, or rolled back from.
    pub newer: Option<NewerRelease>,
    /// The release that a rollback by hand took the place of: made before the active one, of another build, while the active one's
    /// build had a release before it.
    pub replaced: Option<NewerRelease>,
}

impl Live {
    /// The release that the next `env set` would be built on and bring live in place of what runs: racks make a release as a copy
    /// of their newest one, and this newest one is of another build than the active one. While an update is under way there is
    /// none: what is newest then is on its way to be live. Without an active release there is nothing it could take the place of.
    #[must_use]
    pub fn trap(&self) -> Option<&NewerRelease> {
        let active = self.release.as_ref().filter(|_| self.status == AppStatus::Running)?;
        let newest = self.newer.as_ref()?;
        // A build the rack has lost cannot be told from another one.
        let other = newest.build.as_ref()? != &active.build.as_ref()?.id;
        other.then_some(newest)
    }
}

/// The active release, or another one, and the build behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveRelease {
    /// Its id.
    pub id: ReleaseId,
    /// When it was made.
    pub created: OffsetDateTime,
    /// Its description.
    pub description: String,
    /// The build it is of, when it has one that the rack still knows.
    pub build: Option<LiveBuild>,
    /// The value of `REVISION` in its env: a hint only.
    pub revision: Option<String>,
}

/// The build behind a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveBuild {
    /// Its id.
    pub id: BuildId,
    /// The commit it was made with, when it was recorded.
    pub commit: Option<CommitId>,
    /// Its description; offbuild's carry the fingerprint.
    pub description: String,
    /// The manifest it was made with.
    pub manifest: String,
}

/// A release of another build than the active one's: made after it and not live, or rolled back from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewerRelease {
    /// Its id.
    pub id: ReleaseId,
    /// Its build, when it has one.
    pub build: Option<BuildId>,
    /// The commit of its build, when known.
    pub commit: Option<CommitId>,
    /// The description of its build.
    pub build_description: String,
}

/// How an image gets from its repository to the rack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Deliver {
    /// By the rack's version: `build` on version 2 and on version 3 before 3.24.6, `import` from there on.
    #[default]
    Auto,
    /// The rack builds from a manifest that only names images: it pulls.
    Build,
    /// The rack copies registry to registry with a short-lived token (version 3 from 3.24.6).
    Import,
    /// The image is pushed into the rack's own registry (version 3).
    External,
}

/// What is to be staged.
#[derive(Debug, Clone)]
pub struct StageRequest {
    /// The app's name on the rack.
    pub app: String,
    /// The manifest's path inside the upload (`convox.yml`).
    pub manifest_name: String,
    /// The rewritten manifest.
    pub manifest: String,
    /// The images it names that this run pushed or found.
    pub images: Vec<StagedImage>,
    /// Recorded with the build.
    pub commit: CommitId,
    /// One line: subject, fingerprint, run; recorded with the build.
    pub description: String,
    /// A part of `description` that no other build has, to find the build again after a lost answer.
    pub token: String,
    /// The value for `REVISION` in the release's env; `None` leaves the env alone.
    pub revision: Option<String>,
    /// The way.
    pub deliver: Deliver,
    /// The login for the images' registry, for [`Deliver::Import`].
    pub login: Option<Login>,
    /// How long the rack's build may take.
    pub timeout: Duration,
}

/// An image a manifest names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagedImage {
    /// The service.
    pub service: ServiceName,
    /// Where it is.
    pub repository: Repository,
    /// Its digest.
    pub digest: Digest,
}

/// A release that is not live yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staged {
    /// The rack's build.
    pub build: BuildId,
    /// The release.
    pub release: ReleaseId,
    /// The way that was taken, never [`Deliver::Auto`].
    pub deliver: Deliver,
}

/// How a promote ended, when the rack told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Promoted {
    /// The release is active and the app runs.
    Live,
    /// The rack went back.
    RolledBack {
        /// What is active now.
        active: Option<ReleaseId>,
    },
    /// Somebody promoted another release meanwhile.
    Overtaken {
        /// What is active now.
        active: ReleaseId,
    },
}

/// Why a rack could not do something. The three that matter are told apart: refused, unreachable, outcome unknown.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RackError {
    /// 401: password or token.
    #[error("rack `{rack}` refused the login: {message}")]
    Login {
        /// The rack.
        rack: RackName,
        /// What it said.
        message: String,
    },
    /// No connection, no DNS, TLS refused.
    #[error("rack `{rack}` cannot be reached: {message}")]
    Unreachable {
        /// The rack.
        rack: RackName,
        /// Why.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// The app is not on the rack.
    #[error("app `{app}` does not exist on rack `{rack}`")]
    NoApp {
        /// The rack.
        rack: RackName,
        /// The app's name there.
        app: String,
    },
    /// The app is being updated by somebody else.
    #[error("app `{app}` on rack `{rack}` is {status}: another deploy or update is under way")]
    Updating {
        /// The rack.
        rack: RackName,
        /// The app's name there.
        app: String,
        /// Its status.
        status: String,
    },
    /// The rack answered an error.
    #[error("rack `{rack}` refused {what}: {message}")]
    Refused {
        /// The rack.
        rack: RackName,
        /// What was asked (`promote of RABC`).
        what: String,
        /// The status of the HTTP answer.
        status: u16,
        /// What it said.
        message: String,
    },
    /// The rack's build failed.
    #[error("the build on rack `{rack}` failed: {message}")]
    Build {
        /// The rack.
        rack: RackName,
        /// The cause: the last `ERROR:` line of its log, or its reason.
        message: String,
    },
    /// Something took longer than it may.
    #[error("rack `{rack}`: timed out after {}s {waiting_for}", limit.as_secs())]
    Timeout {
        /// The rack.
        rack: RackName,
        /// The limit.
        limit: Duration,
        /// What it was waiting for.
        waiting_for: String,
        /// True when it was a promote or build whose outcome is not known.
        outcome_unknown: bool,
    },
    /// The rack is older than what offbuild can talk to, or not a rack.
    #[error("rack `{rack}` cannot be used: {message}")]
    Unsupported {
        /// The rack.
        rack: RackName,
        /// Why.
        message: String,
    },
    /// The call was sent, and nobody knows whether it took.
    #[error("rack `{rack}`: the outcome of {what} is not known: {message}")]
    Unknown {
        /// The rack.
        rack: RackName,
        /// What was asked.
        what: String,
        /// Why.
        message: String,
    },
    /// The image could not be pushed into the rack's registry ([`Deliver::External`]).
    #[error("pushing `{service}` into the registry of rack `{rack}` failed: {message}")]
    Push {
        /// The rack.
        rack: RackName,
        /// The service.
        service: ServiceName,
        /// Why.
        message: String,
    },
    /// The run was asked to stop.
    #[error("cancelled")]
    Cancelled,
}

impl RackError {
    /// What to do next, where there is something to do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Login { rack, .. } => {
                Some(format!("check `racks.{rack}.password` in apps.yaml, CONVOX_PASSWORD, or log in again: convox login HOST"))
            }
            Self::Unreachable { hint, rack, .. } => {
                Some(hint.clone().unwrap_or_else(|| format!("check `racks.{rack}.host` and the network, then: offbuild doctor")))
            }
            Self::NoApp { app, rack } => {
                Some(format!("create it: convox apps create {app} --rack {rack}, or name it with `name: {{{rack}: …}}` in apps.yaml"))
            }
            Self::Updating { app, rack, .. } => {
                Some(format!("wait for it (convox apps info -a {app} --rack {rack}), or: convox apps cancel {app} --rack {rack}"))
            }
            Self::Build { rack, .. } => {
                Some(format!("read the build log above; a missing variable is set with: convox env set NAME=VALUE -a APP --rack {rack}"))
            }
            Self::Timeout { outcome_unknown: true, .. } | Self::Unknown { .. } => {
                Some("see what is live (offbuild status), then deploy again: it looks before it acts".to_owned())
            }
            Self::Timeout { .. } => Some("give it more time with `timeouts:` in apps.yaml".to_owned()),
            Self::Refused { status: 403, .. } => {
                Some("check what this login may do, and whether the app is locked: offbuild doctor".to_owned())
            }
            Self::Refused { status: 429, .. } => Some("the rack has too much to do just now: try again later".to_owned()),
            Self::Refused { status: 500.., rack, .. } => {
                Some(format!("see what the rack says of it (convox rack logs --rack {rack}), then try again: it looks before it acts"))
            }
            Self::Unsupported { rack, .. } => Some(format!("check `racks.{rack}` in apps.yaml: offbuild doctor")),
            Self::Push { rack, .. } => {
                Some(format!("check that the engine may reach the registry of rack `{rack}`, or use `deliver: build`"))
            }
            Self::Refused { .. } => Some("see what the rack has: offbuild status".to_owned()),
            Self::Cancelled => None,
        }
    }
}

/// Pushes an image that is in its repository to another place; [`Deliver::External`] needs it.
#[async_trait::async_trait]
pub trait ImageMover: Send + Sync {
    /// Pushes `image` as `to:tag` with this login.
    async fn push_to(&self, image: &StagedImage, to: &Repository, tag: &str, login: &Login) -> Result<(), String>;
}

/// What planning may ask a rack.
#[async_trait::async_trait]
pub trait RackRead: Send + Sync {
    /// The rack's name in `apps.yaml`.
    fn name(&self) -> &RackName;

    /// Who the rack is; refuses racks the contract does not cover.
    async fn info(&self) -> Result<RackInfo, RackError>;

    /// What is live for `app`, its name on the rack.
    async fn live(&self, app: &str) -> Result<Live, RackError>;

    /// A release of `app`, live or not; `None` when the rack has it no more.
    async fn release(&self, app: &str, release: &ReleaseId) -> Result<Option<LiveRelease>, RackError>;

    /// The latest releases of `app`, newest first, each with its build. `revision` may be left out.
    async fn releases(&self, app: &str) -> Result<Vec<LiveRelease>, RackError>;

    /// How the environment of one release of `app` differs from another's, by the names of variables; what every deploy sets itself
    /// is left out. A release that the rack has no more has no variables.
    async fn env_change(&self, app: &str, from: &ReleaseId, to: &ReleaseId) -> Result<EnvChange, RackError>;

    /// A small text that was kept with `app` under this name; `None` when none is.
    async fn note(&self, app: &str, name: &str) -> Result<Option<Vec<u8>>, RackError>;

    /// How far the rack's clock is at least ahead of this machine's, as its answers told; `None` when they do not tell.
    fn clock_ahead(&self) -> Option<time::Duration>;
}

/// What releasing may do on a rack.
#[async_trait::async_trait]
pub trait Rack: RackRead {
    /// Creates a release without making it live, streams the rack's build log, and tells the ids from the build's own answer.
    async fn stage(
        &self,
        request: &StageRequest,
        mover: &dyn ImageMover,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<Staged, RackError>;

    /// Makes a new release that is a copy of another one's build and env, without making it live: racks refuse to promote a
    /// release that is older than the active one.
    async fn copy(&self, app: &str, release: &ReleaseId, why: &Copying, cancel: &CancellationToken) -> Result<ReleaseId, RackError>;

    /// Makes a new release of a build that is on the rack, from the environment the newest release has, without making it live:
    /// for a release that was staged before the active one was.
    async fn renew(
        &self,
        app: &str,
        build: &BuildId,
        revision: Option<&str>,
        description: &str,
        cancel: &CancellationToken,
    ) -> Result<ReleaseId, RackError>;

    /// Keeps a small text with `app` under this name, in place of what was there. Racks can neither compare nor delete.
    async fn put_note(&self, app: &str, name: &str, text: &[u8]) -> Result<(), RackError>;

    /// Waits until no update of `app` is under way, and tells what is live then.
    async fn settled(&self, app: &str, timeout: Duration, progress: &Progress, cancel: &CancellationToken) -> Result<Live, RackError>;

    /// Makes a release live and waits for a known state. What is active must be `over`, or the release itself, or it is not
    /// sent ([`Promoted::Overtaken`]). When `cancel` fires the wait goes on: a promote under way is
    /// always awaited; before it is sent, it is not sent. Never sent twice without reading the rack in between. What the rack
    /// shows of one that does not end well is told through `progress`, within [`EVIDENCE_TIME`].
    async fn promote(
        &self,
        app: &str,
        release: &ReleaseId,
        over: Option<&ReleaseId>,
        timeout: Duration,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<Promoted, RackError>;

    /// The environment with which `convox run` and the API can be used from a hook: host and password (or token).
    fn hook_login(&self) -> (String, crate::secret::Secret);
}
