//! `apps.yaml` as it is written: the types its values are read into and its JSON Schema is made from.
//!
//! Every key is optional and nothing is checked beyond its shape; `resolve` fills in defaults and finds contradictions. The
//! documentation of the fields is the schema's: it is what editors show. `apps.example.yaml` explains the same keys at length.
//! `schema` makes the schemas of these types.

use super::schema::{groups, is_given, jobs};
use super::values::{Ordered, Span, Text, either};
use super::{Precision, Unowned};
use crate::rack::Deliver;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// The apps of this repository and the racks they are deployed to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(title = "apps.yaml of offbuild", extend("patternProperties" = { "^x-": true }))]
pub struct File {
    /// The version of this format: 1.
    #[schemars(extend("const" = 1))]
    pub version: Option<u32>,
    /// Where apps are looked for.
    pub discover: Option<Discover>,
    /// Where images without an `image:` of their own go.
    pub registry: Registry,
    /// What cannot be told from a registry's host name, by host.
    pub registries: Ordered<RegistryHost>,
    /// The racks, by the name they have here.
    pub racks: Ordered<Rack>,
    /// Named sets of paths that apps use.
    pub shared: Ordered<SharedSet>,
    /// Paths that are every app's input.
    pub global: Vec<String>,
    /// Paths that are no app's input; the last match wins, `!` re-includes.
    pub ignore: Vec<String>,
    /// What happens with changed paths that no app owns.
    pub unowned: Option<Unowned>,
    /// Builds in flight: a number, a percentage of the processors (`50%`), or `auto` (four per processor).
    #[schemars(schema_with = "jobs")]
    pub jobs: Option<Text>,
    /// Settings of all apps.
    pub defaults: Defaults,
    /// The apps, by directory name or path, where they need saying more about.
    pub apps: Ordered<App>,
    /// Names of apps that go back together on a rack when one of them fails in or after its promote.
    #[schemars(schema_with = "groups")]
    pub groups: Ordered<Vec<String>>,
    /// Webhooks that are told of runs.
    pub notify: Vec<Notify>,
}

/// A webhook that is told of runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("allOf" = [is_given("url")]))]
pub struct Notify {
    /// Its address, as `${VARIABLE}`: who knows it can post there.
    pub url: Option<String>,
    /// What it is sent; `json`.
    pub format: Option<NotifyFormat>,
    /// When; `[end]`.
    pub on: Option<Vec<NotifyOn>>,
    /// Only of what concerns these racks.
    pub racks: Vec<String>,
}

/// What a webhook is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NotifyFormat {
    /// The run as JSON, for programs.
    Json,
    /// A text, as Slack and what is compatible with it read.
    Slack,
}

/// When a webhook is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NotifyOn {
    /// The plan is made and the doing begins.
    Start,
    /// The run is over, however it went.
    End,
    /// The run is over and did not go well.
    Failure,
}

/// Where apps are looked for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Discover {
    /// Directories; one is an app when it holds a manifest.
    pub include: Option<Vec<String>>,
    /// Directories that are no apps, with everything below them.
    pub exclude: Vec<String>,
}

/// Where images without an `image:` of their own go.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Registry {
    /// Host and path; `{app}` and `{service}` are filled in.
    pub repository: Option<String>,
    /// What kind of registry it is, when its host name does not tell.
    #[serde(rename = "type")]
    pub kind: Option<RegistryKind>,
    /// Its AWS region, when its host name does not tell.
    pub region: Option<String>,
    /// Create missing repositories (ECR): `true`, or how.
    pub create: Option<Create>,
    /// It speaks plain HTTP.
    pub insecure: Option<bool>,
}

/// What cannot be told from a registry's host name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RegistryHost {
    /// What kind of registry it is: `ecr` behind a proxy or a VPC endpoint.
    #[serde(rename = "type")]
    pub kind: Option<RegistryKind>,
    /// Its AWS region.
    pub region: Option<String>,
    /// It speaks plain HTTP.
    pub insecure: Option<bool>,
}

/// Kinds of registries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RegistryKind {
    /// Amazon ECR: logins by the AWS credential chain.
    Ecr,
    /// Any other: logins by Docker's config file.
    Oci,
}

/// How missing repositories are made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CreateHow {
    /// Tags cannot be moved once set; goes with `latest: false`.
    pub immutable: bool,
    /// Images are scanned on push.
    pub scan_on_push: bool,
    /// A file with the lifecycle policy's JSON, relative to this one.
    pub lifecycle_policy: Option<String>,
}

either! {
    /// Create missing repositories, and how.
    Create, "a boolean, or a mapping of `immutable`, `scan_on_push` and `lifecycle_policy`" {
        /// Whether.
        Whether(bool) from boolean,
        /// With these options.
        How(CreateHow) from mapping,
    }
}

/// A rack.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rack {
    /// Its host or URL; without it `CONVOX_HOST`, or the convox CLI's own login files.
    pub host: Option<String>,
    /// Its password, as `${VARIABLE}`; without it `CONVOX_PASSWORD`, or the convox CLI's own login files.
    pub password: Option<String>,
    /// Racks whose releases must have gone well before this one's start.
    pub after: Vec<String>,
    /// Asks on a terminal, needs `--yes` elsewhere.
    pub protected: bool,
    /// How images get there.
    pub deliver: Option<Deliver>,
    /// `APP_ENV` in hooks; the rack's name when not set.
    pub env: Option<String>,
    /// A CA certificate (PEM) for a rack with a certificate of its own, relative to this file.
    pub ca_file: Option<String>,
    /// Time between two looks at an app or build of the rack; `5s`.
    pub poll: Option<Span>,
    /// Where build caches are kept.
    pub cache: Cache,
}

/// Where build caches are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Cache {
    /// In the registry, for workers that start empty.
    pub registry: bool,
}

/// A named set of paths, and the sets it is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SharedPaths {
    /// The paths.
    pub paths: Vec<String>,
    /// Other sets it contains.
    pub uses: Vec<String>,
}

either! {
    /// A named set of paths.
    SharedSet, "a list of paths, or a mapping of `paths` and `uses`" {
        /// Paths and names of other sets.
        Paths(Vec<String>) from list,
        /// Paths and other sets apart.
        Set(SharedPaths) from mapping,
    }
}

/// Settings of all apps.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Defaults {
    /// Where apps go that do not say it.
    pub racks: Option<Vec<String>>,
    /// The repository of their images; `{app}` and `{service}` are filled in.
    pub repository: Option<String>,
    /// Settings of their builds.
    pub build: Build,
    /// Limits of their phases, of the whole run, and of one answer.
    pub timeouts: AllTimeouts,
    /// Their hooks.
    pub hooks: Hooks,
    /// How images get to the rack.
    pub deliver: Option<Deliver>,
    /// Write `REVISION` into the release's environment.
    pub revision: Option<bool>,
    /// Respect a rollback made by hand.
    pub hold: Option<bool>,
    /// Move the tag `.latest` after a good push.
    pub latest: Option<bool>,
    /// What of their directories counts as input.
    pub precision: Option<Precision>,
}

/// An app.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct App {
    /// Its directory, relative to this file; by default the one that has the key as its name.
    pub path: Option<String>,
    /// Its name on the racks, or its name by rack; by default the key.
    pub name: Option<AppNames>,
    /// Where it goes, with what differs there.
    pub racks: Option<AppRacks>,
    /// More inputs: names of shared sets, and paths relative to this file.
    pub uses: Vec<String>,
    /// Apps that come before it on a rack.
    pub after: Vec<String>,
    /// Paths of its directory that are not its inputs; a leading `/` starts at this file's directory.
    pub ignore: Vec<String>,
    /// Its manifest, relative to its directory.
    pub manifest: Option<String>,
    /// A compose file that names repositories and builds of a `convox.yml` app, relative to its directory.
    pub compose: Option<String>,
    /// Words to select it by (`tag:…`).
    pub tags: Vec<String>,
    /// The repository of its images; `{app}` and `{service}` are filled in.
    pub repository: Option<String>,
    /// Settings of its builds.
    pub build: Build,
    /// Limits of its phases.
    pub timeouts: Timeouts,
    /// Its hooks.
    pub hooks: Hooks,
    /// How images get to the rack.
    pub deliver: Option<Deliver>,
    /// Write `REVISION` into the release's environment.
    pub revision: Option<bool>,
    /// Respect a rollback made by hand.
    pub hold: Option<bool>,
    /// Move the tag `.latest` after a good push.
    pub latest: Option<bool>,
    /// What of its directory counts as input.
    pub precision: Option<Precision>,
}

either! {
    /// An app's name on the racks.
    AppNames, "a name, or a mapping of racks to names" {
        /// The same on every rack.
        Same(String) from string,
        /// By rack.
        ByRack(BTreeMap<String, String>) from mapping,
    }
}

either! {
    /// Where an app goes.
    AppRacks, "a list of racks, or a mapping of racks to what differs there" {
        /// The racks.
        List(Vec<String>) from list,
        /// The racks with what differs there.
        Overlays(Ordered<Overlay>) from mapping,
    }
}

impl AppRacks {
    /// The racks, each with what differs there.
    #[must_use]
    pub fn entries(&self) -> Vec<(&str, Option<&Overlay>)> {
        match self {
            Self::List(racks) => racks.iter().map(|rack| (rack.as_str(), None)).collect(),
            Self::Overlays(racks) => racks.iter().map(|(rack, overlay)| (rack, Some(overlay))).collect(),
        }
    }
}

/// What differs for an app on one rack.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Overlay {
    /// Its name there.
    pub name: Option<String>,
    /// `APP_ENV` in its hooks there.
    pub env: Option<String>,
    /// How images get there.
    pub deliver: Option<Deliver>,
    /// Limits of its phases there. Builds and pushes happen once for all racks.
    pub timeouts: RackTimeouts,
    /// Write `REVISION` into the release's environment.
    pub revision: Option<bool>,
    /// Respect a rollback made by hand.
    pub hold: Option<bool>,
}

/// Settings of builds that a manifest does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Build {
    /// How many of the builds in flight one build counts for.
    #[schemars(range(min = 1, max = u32::MAX))]
    pub weight: Option<u32>,
    /// Build arguments, over those of the manifest.
    pub args: BTreeMap<String, Text>,
    /// Secrets by id, over those of the manifest.
    pub secrets: BTreeMap<String, SecretFrom>,
    /// SSH agents by id: `agent`, or the path of a socket.
    pub ssh: BTreeMap<String, String>,
    /// `os/arch`, with a `/variant` where there is one.
    #[schemars(extend("pattern" = r"^[^/]+/[^/]+(/[^/]+)?$|\$\{"))]
    pub platform: Option<String>,
    /// Do not use the cache.
    pub no_cache: Option<bool>,
    /// Ask the registry for newer base images.
    pub pull: Option<bool>,
}

/// Where a build's secret comes from: one of the two.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("allOf" = [{ "oneOf": [is_given("file"), is_given("env")] }]))]
pub struct SecretFrom {
    /// The content of a file, relative to the app's directory.
    pub file: Option<String>,
    /// The value of an environment variable.
    pub env: Option<String>,
}

/// Limits of the phases, as `30m`, `90s` or `1h30m`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// One image build.
    pub build: Option<Span>,
    /// One push.
    pub push: Option<Span>,
    /// One hook.
    pub hook: Option<Span>,
    /// The rack's own build.
    pub rack_build: Option<Span>,
    /// A promote, until the app runs.
    pub promote: Option<Span>,
}

/// Limits of the phases of every app, of the whole run, and of one answer, as `30m`, `90s` or `1h30m`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AllTimeouts {
    /// One image build.
    pub build: Option<Span>,
    /// One push.
    pub push: Option<Span>,
    /// One hook.
    pub hook: Option<Span>,
    /// The rack's own build.
    pub rack_build: Option<Span>,
    /// A promote, until the app runs.
    pub promote: Option<Span>,
    /// The whole run; without it there is no limit.
    pub run: Option<Span>,
    /// One answer of a rack, a registry or the engine.
    pub answer: Option<Span>,
}

impl AllTimeouts {
    /// Those of the phases.
    #[must_use]
    pub fn phases(&self) -> Timeouts {
        let Self { build, push, hook, rack_build, promote, .. } = self.clone();
        Timeouts { build, push, hook, rack_build, promote }
    }
}

/// Limits of the phases that happen on a rack, as `30m`, `90s` or `1h30m`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RackTimeouts {
    /// One hook.
    pub hook: Option<Span>,
    /// The rack's own build.
    pub rack_build: Option<Span>,
    /// A promote, until the app runs.
    pub promote: Option<Span>,
}

/// Hooks: files of the app's directory, or commands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Hooks {
    /// Before the app's images are built.
    pub before_build: Option<Hook>,
    /// After they are built, before they are pushed.
    pub after_build: Option<Hook>,
    /// After the release is staged, before it is promoted.
    pub before_release: Option<Hook>,
    /// After the release is live.
    pub after_release: Option<Hook>,
    /// After something of the app failed.
    pub on_failure: Option<Hook>,
    /// Those that `deploy --resume` may run again when a run was cut short in the middle of them.
    pub repeatable: Option<Vec<ReleaseHook>>,
}

/// A hook of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseHook {
    /// After the release is staged, before it is promoted.
    BeforeRelease,
    /// After the release is live.
    AfterRelease,
}

either! {
    /// What a hook runs.
    Hook, "a file of the app's directory, or a list of a program and its arguments" {
        /// A file of the app's directory.
        File(String) from string,
        /// A program and its arguments.
        Command(Vec<String>) from list,
    }
}
