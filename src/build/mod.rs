//! Building images: what the rest of the program sees of the engine.
//!
//! [`Builder`] is the port; `docker` is its one adapter that touches the outside. A build is a value, [`ImageBuild`]:
//! the planner makes it, and two equal values are one build.

pub mod docker;
pub mod dockerignore;

use crate::event::Progress;
use crate::names::{Digest, ImageId, ImageRef, Repository};
use crate::registry::Login;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Everything that decides what an image holds, and nothing else. Equal values (labels apart) are built once.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ImageBuild {
    /// The directory BuildKit may read, absolute.
    pub context: PathBuf,
    /// The Dockerfile, absolute; it may lie outside the context.
    pub dockerfile: PathBuf,
    /// The stage to stop at; the last one when `None`.
    pub target: Option<String>,
    /// Build arguments.
    pub args: BTreeMap<String, String>,
    /// `os/arch[/variant]`, when it is not the engine's own.
    pub platform: Option<String>,
    /// Secrets its `RUN --mount=type=secret` may ask for, by id.
    pub secrets: BTreeMap<String, SecretSource>,
    /// SSH agents its `RUN --mount=type=ssh` may use, by id (`default`).
    pub ssh: BTreeMap<String, SshSource>,
    /// Named contexts (`additional_contexts`), by name.
    pub contexts: BTreeMap<String, NamedContext>,
    /// References whose inline cache BuildKit may use.
    pub cache_from: Vec<ImageRef>,
    /// Write the cache's metadata into the image, so that others can use it with `cache_from`.
    pub inline_cache: bool,
    /// Do not use the cache.
    pub no_cache: bool,
    /// Ask the registry for newer base images.
    pub pull: bool,
    /// `host` or `none`; the engine's default otherwise.
    pub network: Option<String>,
    /// Extra lines of `/etc/hosts`: name → address.
    pub extra_hosts: BTreeMap<String, String>,
    /// Size of `/dev/shm` in bytes.
    pub shm_size: Option<u64>,
    /// Resource limits, as `name` → `soft:hard`.
    pub ulimits: BTreeMap<String, String>,
    /// Names the copy of the context that BuildKit keeps between builds: one per context root and app.
    pub context_key: String,
}

/// Where a secret's value is found when BuildKit asks for it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecretSource {
    /// The content of a file, absolute.
    File(PathBuf),
    /// The value of an environment variable.
    Env(String),
}

/// What stands behind an `ssh` mount.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SshSource {
    /// The agent at `SSH_AUTH_SOCK`.
    Agent,
    /// The agent that listens on a socket, absolute.
    Socket(PathBuf),
}

/// A named context of a build.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NamedContext {
    /// A directory, absolute.
    Directory(PathBuf),
    /// An image.
    Image(String),
}

/// What the engine told about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineInfo {
    /// Where it was found, as text for people.
    pub endpoint: String,
    /// Its version.
    pub version: String,
    /// `os/arch`.
    pub platform: String,
}

/// Why the engine could not do something.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BuildError {
    /// The build itself failed; the message is BuildKit's, with the Dockerfile's line where it is known.
    #[error("{message}")]
    Failed {
        /// What BuildKit said.
        message: String,
        /// The last lines of the failing step.
        log: Vec<String>,
    },
    /// The engine could not be reached, or has no BuildKit.
    #[error("{message}")]
    Engine {
        /// What happened.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// Something the build names is missing: Dockerfile, secret, ssh socket.
    #[error("{message}")]
    Missing {
        /// What.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// The registry refused or failed a push or pull.
    #[error("{message}")]
    Registry {
        /// What the engine said.
        message: String,
        /// True when other credentials could help (401, 403, expired token).
        login: bool,
    },
    /// It took longer than it may.
    #[error("timed out after {}s {waiting_for}", limit.as_secs())]
    Timeout {
        /// The limit.
        limit: Duration,
        /// What it was waiting for.
        waiting_for: String,
    },
    /// It was asked to stop.
    #[error("cancelled")]
    Cancelled,
}

/// A container engine that builds, tags and pushes images.
#[async_trait::async_trait]
pub trait Builder: Send + Sync {
    /// Asks the engine who it is and whether its BuildKit answers.
    async fn probe(&self) -> Result<EngineInfo, BuildError>;

    /// Builds an image with these labels and tells its id. Several may run at once.
    async fn build(
        &self,
        build: &ImageBuild,
        labels: &BTreeMap<String, String>,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<ImageId, BuildError>;

    /// Gives an image (an id or a reference) one more name on the engine.
    async fn tag(&self, image: &str, repository: &Repository, tag: &str) -> Result<(), BuildError>;

    /// The id a reference has on the engine; `None` when it is not there.
    async fn image_id(&self, reference: &str) -> Result<Option<ImageId>, BuildError>;

    /// The layers of an image (an id or a reference) by their diff ids, lowest first.
    async fn layers(&self, image: &str) -> Result<Vec<String>, BuildError>;

    /// Removes a name from the engine; the image goes with its last name. Not being there is no error.
    async fn untag(&self, reference: &str) -> Result<(), BuildError>;

    /// Pushes `repository:tag` and returns the digest the engine says it pushed.
    async fn push(
        &self,
        repository: &Repository,
        tag: &str,
        login: Option<&Login>,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<Digest, BuildError>;

    /// Pulls an image by digest.
    async fn pull(&self, repository: &Repository, digest: &Digest, login: Option<&Login>) -> Result<(), BuildError>;
}
