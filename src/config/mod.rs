//! The configuration, checked: what `apps.yaml` says after defaults, overlays and interpolation.
//!
//! `file` holds the types as they are written; this module turns them into what the program works with: `check` reads the
//! text against the schema of those types, `resolve`, `apps`, `settings` and `targets` fill in defaults and find what makes
//! no sense, each at its place; [`load()`] puts all problems into one error. `single` stands in for a missing file. A rack's
//! host and password are read only when the rack is needed, so that `changed --base` works without credentials.

mod apps;
mod check;
mod digest;
mod explain;
pub mod file;
mod groups;
mod interpolate;
mod load;
pub mod nearest;
mod notify;
mod removed;
mod resolve;
mod schema;
mod select;
mod sets;
mod settings;
mod single;
mod targets;
#[cfg(test)]
mod tests;
pub mod values;

pub use digest::digests;
pub use explain::{Resolved, Source, explain};
pub use load::{FILE_NAME, load, load_from, locate};
pub use removed::{Removed, left, removed};
pub use schema::{schema, shape};
pub use select::{Selected, select};

/// The configuration with every key explained, as `offbuild init` writes it.
pub const EXAMPLE: &str = include_str!("../../apps.example.yaml");

use crate::event::Stage;
use crate::names::{AppName, RackName, RepoPath};
use crate::rack::Deliver;
use crate::registry::CreateOptions;
use crate::secret::Secret;
use crate::yaml::Place;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

/// Everything the configuration says.
#[derive(Debug, Clone)]
pub struct Config {
    /// The directory that holds `apps.yaml`, or the app's own when there is none.
    pub root: PathBuf,
    /// The same directory, relative to the repository's root.
    pub prefix: RepoPath,
    /// `apps.yaml`, relative to the repository; `None` for one app without a file.
    pub file: Option<RepoPath>,
    /// Its text; empty without one.
    pub text: String,
    /// The racks, by name.
    pub racks: BTreeMap<RackName, RackConfig>,
    /// Where apps are looked for: globs of directories, relative to `root`.
    pub discover: Discover,
    /// Patterns that are every app's input; relative to the repository.
    pub global: Vec<Pattern>,
    /// Patterns that are no app's input; last match wins, `!` re-includes.
    pub ignore: Vec<Pattern>,
    /// What happens with changed paths that no app owns.
    pub unowned: Unowned,
    /// The apps, by name, in the order of the file (found ones without an entry after them, by path).
    pub apps: Vec<App>,
    /// Login and kind of registries that are not like their host name says, by host.
    pub registries: BTreeMap<String, RegistrySettings>,
    /// Builds in flight, when the file says it; a flag wins.
    pub jobs: Option<String>,
    /// Limits that belong to no app.
    pub limits: Limits,
    /// What the seed script's variables say.
    pub seed: Seed,
    /// Webhooks that are told of runs.
    pub notify: Vec<NotifyConfig>,
}

/// A webhook that is told of runs.
#[derive(Debug, Clone)]
pub struct NotifyConfig {
    /// Where it is written.
    pub place: Place,
    /// Its address, or why there is none.
    pub url: LazySecret,
    /// What it is sent.
    pub format: file::NotifyFormat,
    /// When.
    pub on: BTreeSet<file::NotifyOn>,
    /// Only of what concerns these racks; none: all.
    pub racks: BTreeSet<RackName>,
}

/// Which directories are looked at for apps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Discover {
    /// Globs that name them.
    pub include: Vec<String>,
    /// Globs of those that are left out.
    pub exclude: Vec<String>,
}

/// The seed script's variables that are not about one app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed {
    /// `SKIP_ECR_AUTH`: the login for ECR comes from Docker's config file.
    pub skip_ecr_auth: bool,
    /// `SILENT`: build and push output is shown only when they fail.
    pub silent: bool,
    /// `AWS_DEFAULT_REGION`, where nothing else tells the region; `us-east-1` by default.
    pub region: String,
}

impl Seed {
    /// Reads the variables. A switch is on when it has a value other than `0`, `false` and `no`.
    pub fn from_env(env: &dyn Fn(&str) -> Option<String>) -> Self {
        let value = |name: &str| env(name).filter(|value| !value.is_empty());
        let on = |name: &str| value(name).is_some_and(|value| !matches!(value.to_lowercase().as_str(), "0" | "false" | "no"));
        let region = value("AWS_DEFAULT_REGION").unwrap_or_else(|| "us-east-1".to_owned());
        Self { skip_ecr_auth: on("SKIP_ECR_AUTH"), silent: on("SILENT"), region }
    }
}

/// A pattern and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pattern {
    /// The glob, relative to the repository's root. It matches a path or any directory above it.
    pub glob: String,
    /// A `!` before it: the pattern re-includes.
    pub negated: bool,
    /// Where it is written.
    pub place: Place,
}

/// What happens with changed paths that no app owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Unowned {
    /// They are listed.
    #[default]
    Report,
    /// They affect every app.
    All,
    /// They are an error.
    Error,
}

/// A rack of the configuration.
#[derive(Debug, Clone)]
pub struct RackConfig {
    /// Its name.
    pub name: RackName,
    /// Where it is written.
    pub place: Place,
    /// Host or URL; `None`: from the environment or the convox CLI's files.
    pub host: Option<Lazy>,
    /// Password; `None`: as the host.
    pub password: Option<LazySecret>,
    /// Racks whose lanes must have finished well before this one starts.
    pub after: Vec<RackName>,
    /// Asks on a terminal, needs `--yes` elsewhere.
    pub protected: bool,
    /// BuildKit's cache goes to and comes from the registry.
    pub registry_cache: bool,
    /// How images get there.
    pub deliver: Deliver,
    /// `APP_ENV` in hooks; the rack's name when not set.
    pub env: String,
    /// Time between two looks at an app or build of the rack.
    pub poll: Duration,
    /// The limit of one answer.
    pub answer: Duration,
    /// A CA certificate (PEM) for a rack with a certificate of its own.
    pub ca_file: Option<PathBuf>,
}

/// A value with variables in it that may not be set: an error only when it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lazy {
    /// The value, or which variable is missing and where it is named.
    pub value: Result<String, String>,
}

/// As [`Lazy`], for a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LazySecret {
    /// The value, or which variable is missing and where it is named.
    pub value: Result<Secret, String>,
}

/// A registry that needs saying something about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RegistrySettings {
    /// It is ECR behind another host name (a proxy, a VPC endpoint).
    pub ecr: bool,
    /// Its AWS region, when the host name does not tell.
    pub region: Option<String>,
    /// It speaks plain HTTP. Loopback hosts do without being asked.
    pub insecure: bool,
}

/// An app with its resolved settings.
#[derive(Debug, Clone)]
pub struct App {
    /// Its name.
    pub name: AppName,
    /// Its directory.
    pub dir: RepoPath,
    /// Where it is configured: its entry, or the pattern that found it.
    pub place: Place,
    /// Where it goes, in the order written, with what differs there.
    pub targets: Vec<TargetConfig>,
    /// More inputs, flattened, each with the chain of sets it came through.
    pub uses: Vec<UsedPattern>,
    /// Apps that come before it in a lane.
    pub after: Vec<AppName>,
    /// The group it belongs to: its apps go back together on a rack.
    pub group: Option<String>,
    /// Patterns that are not its inputs, relative to the repository; after the global ones, last match wins.
    pub ignore: Vec<Pattern>,
    /// The manifest's path relative to the app's directory.
    pub manifest: String,
    /// `1` for compose, `2` for `convox.yml`.
    pub generation: u8,
    /// A compose file that names image repositories and builds of a generation 2 app, relative to the app's directory.
    pub compose: Option<String>,
    /// Words to select it by.
    pub tags: BTreeSet<String>,
    /// The repository for images without an `image:` of their own; `{app}` and `{service}` are filled in.
    pub repository: Option<String>,
    /// Create missing ECR repositories, and how.
    pub create: Option<CreateOptions>,
    /// Move `.latest` after a good push.
    pub latest: bool,
    /// Settings of its builds.
    pub build: BuildConfig,
    /// Its hooks.
    pub hooks: BTreeMap<HookKind, HookConfig>,
    /// The hooks that may run again after a run was cut short in the middle of them.
    pub repeatable: BTreeSet<HookKind>,
    /// Inputs as precise as its Dockerfiles tell.
    pub precision: Precision,
    /// A digest over the resolved settings that decide what is deployed, uninterpolated: a change is a change of the app.
    pub digest: String,
}

/// A pattern an app uses, and how it came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UsedPattern {
    /// The pattern.
    pub pattern: Pattern,
    /// The sets it came through, outermost first: `auth` → `ruby`. Empty for a path written in the app's `uses`.
    pub through: Vec<String>,
}

/// How exact an app's inputs are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// Its whole directory.
    #[default]
    Directory,
    /// What its Dockerfiles read, its manifest, its hooks.
    Context,
}

/// An app on one rack.
#[derive(Debug, Clone)]
pub struct TargetConfig {
    /// The rack.
    pub rack: RackName,
    /// The app's name there.
    pub name: String,
    /// `APP_ENV` in hooks.
    pub env: String,
    /// How images get there.
    pub deliver: Deliver,
    /// Limits of its phases.
    pub timeouts: Timeouts,
    /// Write `REVISION` into the release's env.
    pub revision: bool,
    /// Respect a rollback made by hand.
    pub hold: bool,
}

/// Limits of the phases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// One image build.
    pub build: Duration,
    /// One push.
    pub push: Duration,
    /// One hook.
    pub hook: Duration,
    /// The rack's own build.
    pub rack_build: Duration,
    /// A promote, until the app runs.
    pub promote: Duration,
}

impl Default for Timeouts {
    /// 30 min, 30 min, 10 min, 60 min, 35 min: the last two are what the convox CLI waits.
    fn default() -> Self {
        let minutes = |n: u64| Duration::from_secs(n * 60);
        Self { build: minutes(30), push: minutes(30), hook: minutes(10), rack_build: minutes(60), promote: minutes(35) }
    }
}

/// Limits that belong to no app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The whole run; `None` for no limit.
    pub run: Option<Duration>,
    /// One answer of a rack, a registry or the engine.
    pub answer: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { run: None, answer: Duration::from_secs(60) }
    }
}

/// Settings of an app's builds that its manifest does not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildConfig {
    /// How much of `-j` one build takes.
    pub weight: u32,
    /// Build arguments for all services, over those of the manifest.
    pub args: BTreeMap<String, String>,
    /// Secrets by id, over those of the manifest.
    pub secrets: BTreeMap<String, crate::build::SecretSource>,
    /// SSH agents by id, over those of the manifest.
    pub ssh: BTreeMap<String, crate::build::SshSource>,
    /// `os/arch[/variant]`.
    pub platform: Option<String>,
    /// Do not use the cache.
    pub no_cache: bool,
    /// Ask the registry for newer base images.
    pub pull: bool,
    /// Limits of build, push and the hooks around them.
    pub timeouts: Timeouts,
}

impl Default for BuildConfig {
    /// What holds where nothing is said.
    fn default() -> Self {
        Self {
            weight: 1,
            args: BTreeMap::new(),
            secrets: BTreeMap::new(),
            ssh: BTreeMap::new(),
            platform: None,
            no_cache: false,
            pull: false,
            timeouts: Timeouts::default(),
        }
    }
}

/// The five hooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HookKind {
    /// Before the app's images are built.
    BeforeBuild,
    /// After they are built, before they are pushed.
    AfterBuild,
    /// After the release is staged, before it is promoted.
    BeforeRelease,
    /// After the release is live.
    AfterRelease,
    /// After something of the app failed.
    OnFailure,
}

impl HookKind {
    /// All of them, in order.
    pub const ALL: [Self; 5] = [Self::BeforeBuild, Self::AfterBuild, Self::BeforeRelease, Self::AfterRelease, Self::OnFailure];

    /// The key in `hooks:` and the name of the file in `deploy/`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.stage().name()
    }

    /// True for the hooks that run with the build: once per app, and only when an image is built.
    #[must_use]
    pub fn is_of_build(self) -> bool {
        matches!(self, Self::BeforeBuild | Self::AfterBuild)
    }

    /// The stage it is.
    #[must_use]
    pub fn stage(self) -> Stage {
        match self {
            Self::BeforeBuild => Stage::BeforeBuild,
            Self::AfterBuild => Stage::AfterBuild,
            Self::BeforeRelease => Stage::BeforeRelease,
            Self::AfterRelease => Stage::AfterRelease,
            Self::OnFailure => Stage::OnFailure,
        }
    }
}

/// What a hook runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum HookConfig {
    /// A file of the app's directory; the default ones only when they exist.
    File {
        /// Relative to the app's directory.
        path: String,
        /// True when `hooks:` names it: then it has to exist.
        named: bool,
    },
    /// A program and its arguments.
    Command(Vec<String>),
}
