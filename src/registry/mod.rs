//! Image registries: what is there already, what a tag points to, and how to log in.
//!
//! [`Registry`] is the port, `registries` its adapter: one client per host, made when the host is first asked for. `ecr`
//! speaks AWS's API (`aws` makes its client and reads its errors), `oci` the distribution API every registry has (`auth`
//! does its logins, `http` its requests); `host` reads host names, `credentials` reads Docker's config file; `shared` lets callers share one fetch.
//! The layers themselves go through the engine ([`crate::build::Builder::push`]).

mod auth;
mod aws;
pub mod credentials;
pub mod ecr;
pub mod host;
mod http;
pub mod oci;
pub mod registries;
mod shared;

use crate::names::{Digest, Repository};
use crate::secret::Secret;
use std::collections::BTreeMap;

/// A user and password for a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The user; `AWS` for ECR, `<token>` for an identity token.
    pub user: String,
    /// The password or token.
    pub password: Secret,
}

/// How missing repositories are made (ECR only).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CreateOptions {
    /// Tags cannot be moved once set.
    pub immutable: bool,
    /// Scan images on push.
    pub scan_on_push: bool,
    /// The lifecycle policy's JSON.
    pub lifecycle_policy: Option<String>,
}

/// Why a registry could not be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RegistryError {
    /// It did not answer.
    #[error("registry `{host}` cannot be reached: {message}")]
    Unreachable {
        /// The host.
        host: String,
        /// Why.
        message: String,
    },
    /// It refused the login or what the login may do, or there is no login.
    #[error("registry `{host}` refused access: {message}")]
    Login {
        /// The host.
        host: String,
        /// Why.
        message: String,
        /// What to do about it.
        hint: String,
    },
    /// The repository is not there.
    #[error("repository `{repository}` does not exist")]
    NoRepository {
        /// The repository.
        repository: Repository,
    },
    /// Anything else it answered.
    #[error("registry `{host}` failed: {message}")]
    Failed {
        /// The host.
        host: String,
        /// Why.
        message: String,
    },
}

impl RegistryError {
    /// What to do about it, where something can be done.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Login { hint, .. } => Some(hint.clone()),
            Self::NoRepository { repository } => Some(match host::EcrHost::parse(&repository.host) {
                Some(ecr) => format!(
                    "set `create: true` under `registry:` in `apps.yaml`, or run `aws ecr create-repository --region {} --repository-name {}`",
                    ecr.region, repository.path
                ),
                None => "set `create: true` under `registry:` in `apps.yaml`, or create the repository".to_owned(),
            }),
            Self::Unreachable { host, .. } => {
                Some(format!("check that `{host}` is the registry's address, and that this machine may connect to it"))
            }
            Self::Failed { host, .. } => Some(format!("try again later, or see what `{host}` answers: offbuild doctor")),
        }
    }
}

/// One registry, or several behind one face.
#[async_trait::async_trait]
pub trait Registry: Send + Sync {
    /// Which of `tags` exist in the repository, with the digest each points to. One call where the registry's API has one.
    /// A repository that does not exist has none of them.
    async fn find(&self, repository: &Repository, tags: &[String]) -> Result<BTreeMap<String, Digest>, RegistryError>;

    /// Makes sure the repository exists; `true` when it was created. Creates only after "not found", and only where the
    /// registry's repositories have to be created (ECR).
    async fn ensure(&self, repository: &Repository, create: Option<&CreateOptions>) -> Result<bool, RegistryError>;

    /// Gives the image with this digest one more tag, without moving a layer.
    async fn retag(&self, repository: &Repository, digest: &Digest, tag: &str) -> Result<(), RegistryError>;

    /// The labels of the image with this digest.
    async fn labels(&self, repository: &Repository, digest: &Digest) -> Result<BTreeMap<String, String>, RegistryError>;

    /// A login for the host; `None` when it is to be used without one. `fresh` asks for a new token after a refusal.
    async fn login(&self, host: &str, fresh: bool) -> Result<Option<Login>, RegistryError>;
}
