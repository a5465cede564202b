//! The Docker Engine: [`Docker`] builds with the engine's own BuildKit and moves images.
//!
//! Ordinary calls (tags, pushes, pulls) go through bollard. A build is two HTTP/2 connections that begin as requests to the
//! engine's API: `/session`, where BuildKit asks us for files, secrets and logins ([`session`], [`sync`]), and `/grpc`, where we
//! ask it to build and read what it does ([`solve`], [`status`]). bollard's own BuildKit client sends contexts as archives,
//! whole each time; here only what a build reads and BuildKit does not have travels, straight from disk. In order:
//!
//! 1. [`endpoint`] finds the engine, [`dial`] connects to it;
//! 2. [`preflight`] looks at everything the build names, [`dockerfile`] at what its steps will ask for;
//! 3. [`request`] turns the build into BuildKit's words, [`solve`] runs it, [`status`] tells what happens;
//! 4. [`explain`] turns BuildKit's error into ours.
//!
//! There are no limits of time here but for the beginning of an answer: the caller has them, and cancels.

mod dial;
mod dockerfile;
mod endpoint;
mod explain;
mod failure;
mod follow;
mod images;
mod preflight;
mod request;
mod session;
mod solve;
mod status;
mod sync;
mod walk;

use super::{BuildError, Builder, EngineInfo, ImageBuild};
use crate::event::Progress;
use crate::names::{Digest, ImageId, Repository};
use crate::registry::{Login, Registry};
use endpoint::Endpoint;
use failure::{call, engine, repeated};
use request::Abilities;
use session::{Offer, Session};
use solve::{Control, Ended};
use status::Steps;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Looks up an environment variable.
pub type Env = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// A Docker Engine.
pub struct Docker {
    endpoint: Endpoint,
    client: bollard::Docker,
    env: Env,
    logins: Arc<dyn Registry>,
    root: Option<PathBuf>,
}

impl Docker {
    /// Finds the engine as the docker CLI does; nothing is connected yet. Builds take secrets and the ssh agent from `env`, and
    /// logins for private base images from `logins`.
    pub fn connect(env: Env, home: Option<&Path>, logins: Arc<dyn Registry>) -> Result<Self, BuildError> {
        let endpoint = endpoint::resolve(env.as_ref(), home)?;
        let client = dial::client(&endpoint)?;
        Ok(Self { endpoint, client, env, logins, root: None })
    }

    /// Waits so long for an answer to begin; transfers have no limit here.
    #[must_use]
    pub fn answering_within(self, answer: Duration) -> Self {
        Self { client: self.client.with_timeout(answer), endpoint: Endpoint { answer, ..self.endpoint }, ..self }
    }

    /// Lets errors name what a build is made of as the repository at `root` knows it: `apps/web/Dockerfile`.
    #[must_use]
    pub fn naming_from(self, root: &Path) -> Self {
        Self { root: Some(root.to_owned()), ..self }
    }

    /// Where the engine keeps images and its build cache, when it is reached through a socket of this machine and tells.
    pub async fn data_root(&self) -> Option<PathBuf> {
        let endpoint::Address::Unix(_) = self.endpoint.address else { return None };
        self.client.info().await.ok()?.docker_root_dir.map(PathBuf::from)
    }

    async fn version(&self) -> Result<bollard::models::SystemVersion, BuildError> {
        repeated(self.endpoint.answer, || self.client.version())
            .await
            .map_err(|error| call(&self.endpoint, "the engine does not tell its version", error))
    }

    async fn abilities(&self, control: &Control) -> Result<Abilities, BuildError> {
        let version = self.version().await?.version.unwrap_or_default();
        Ok(Abilities::of(&version, control.host_gateway().await))
    }

    async fn run(&self, build: &ImageBuild, labels: &BTreeMap<String, String>, progress: &Progress) -> Result<ImageId, BuildError> {
        let (wanted, env, root) = (build.clone(), Arc::clone(&self.env), self.root.clone());
        let checked = tokio::task::spawn_blocking(move || preflight::check(&wanted, &env, root.as_deref()))
            .await
            .map_err(|error| engine(format!("the build's files could not be checked: {error}")))??;
        let control = Control::connect(&self.endpoint).await?;
        let able = if request::is_demanding(build) { Some(self.abilities(&control).await?) } else { None };
        let offer = Offer {
            directories: checked.directories.clone(),
            secrets: Arc::new(checked.secrets.clone()),
            agents: Arc::new(checked.agents.clone()),
            logins: Arc::clone(&self.logins),
            progress: progress.clone(),
        };
        let session = Session::open(&self.endpoint, &build.context_key, offer).await?;
        let reference = session.id.clone();
        let request = request::request(build, labels, &checked, able.as_ref(), &session.id, &reference)?;
        let mut steps = Steps::new(progress.clone(), &checked.shown);
        let answer = match control.solve(request, &mut steps).await {
            Ok(answer) => answer,
            // Our own reason first: BuildKit only saw a transfer or a connection end.
            Err(_) if checked.directories.failure().is_some() => {
                let message = checked.directories.failure().unwrap_or_default();
                return Err(BuildError::Failed { message, log: Vec::new() });
            }
            Err(Ended::Lost(why)) => return Err(self.lost(&why)),
            Err(Ended::Failed(why)) if session.is_lost() => return Err(self.lost(&why)),
            Err(Ended::Failed(why)) => return Err(explain::explain(&why, steps.failed(), &checked.dockerfile, &checked.shown)),
        };
        // For BuildKit in the engine this is the image's id, not the digest of a manifest.
        let id = answer.exporter_response.get("containerimage.digest").cloned().unwrap_or_default();
        ImageId::new(id).map_err(|error| engine(format!("the engine's answer to a good build: {error}")))
    }

    fn lost(&self, why: &str) -> BuildError {
        let hint = "see that the engine still runs (`docker version`) and try again";
        BuildError::Engine {
            message: format!("the connection to the engine at {} was lost: {why}", self.endpoint),
            hint: Some(hint.to_owned()),
        }
    }
}

#[async_trait::async_trait]
impl Builder for Docker {
    async fn probe(&self) -> Result<EngineInfo, BuildError> {
        let version = self.version().await?;
        Control::connect(&self.endpoint).await?;
        Ok(EngineInfo {
            endpoint: self.endpoint.to_string(),
            version: version.version.unwrap_or_default(),
            platform: format!("{}/{}", version.os.unwrap_or_default(), version.arch.unwrap_or_default()),
        })
    }

    async fn build(
        &self,
        build: &ImageBuild,
        labels: &BTreeMap<String, String>,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<ImageId, BuildError> {
        // Dropping the run closes both connections, and with them BuildKit ends the steps nobody else waits for.
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(BuildError::Cancelled),
            built = self.run(build, labels, progress) => built,
        }
    }

    async fn tag(&self, image: &str, repository: &Repository, tag: &str) -> Result<(), BuildError> {
        self.add_tag(image, repository, tag).await
    }

    async fn image_id(&self, reference: &str) -> Result<Option<ImageId>, BuildError> {
        self.find_id(reference).await
    }

    async fn layers(&self, image: &str) -> Result<Vec<String>, BuildError> {
        self.layer_ids(image).await
    }

    async fn untag(&self, reference: &str) -> Result<(), BuildError> {
        self.remove_tag(reference).await
    }

    async fn push(
        &self,
        repository: &Repository,
        tag: &str,
        login: Option<&Login>,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<Digest, BuildError> {
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(BuildError::Cancelled),
            pushed = self.send(repository, tag, login, progress) => pushed,
        }
    }

    async fn pull(&self, repository: &Repository, digest: &Digest, login: Option<&Login>) -> Result<(), BuildError> {
        self.fetch(repository, digest, login).await
    }
}
