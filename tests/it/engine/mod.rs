//! Builds, pushes and pulls on the real engine, through the same door the rest of the program uses.

use crate::support::engine::{self, Base};
use crate::support::services::{PASSWORD, Port, Registry as RealRegistry, USER};
use crate::support::{sh, unique};
use offbuild::build::docker::{Docker, Env};
use offbuild::build::{BuildError, Builder as _, ImageBuild, NamedContext, SecretSource, SshSource};
use offbuild::event::{EventKind, Events, Progress, Received, Stage, Step};
use offbuild::names::{AppName, Digest, ImageId, ImageRef, Repository};
use offbuild::registry::{CreateOptions, Login, Registry, RegistryError};
use offbuild::secret::{Redactor, Secret};
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use tokio_util::sync::CancellationToken;

mod builds;
mod connection;
mod failures;
mod images;
mod inference;

/// Logins by host; everything else a registry does is not asked for here.
#[derive(Default)]
struct Logins(BTreeMap<String, Login>);

fn not_here<T>() -> Result<T, RegistryError> {
    Err(RegistryError::Failed { host: "test".to_owned(), message: "not asked for".to_owned() })
}

#[async_trait::async_trait]
impl Registry for Logins {
    async fn find(&self, _: &Repository, _: &[String]) -> Result<BTreeMap<String, Digest>, RegistryError> {
        not_here()
    }
    async fn ensure(&self, _: &Repository, _: Option<&CreateOptions>) -> Result<bool, RegistryError> {
        not_here()
    }
    async fn retag(&self, _: &Repository, _: &Digest, _: &str) -> Result<(), RegistryError> {
        not_here()
    }
    async fn labels(&self, _: &Repository, _: &Digest) -> Result<BTreeMap<String, String>, RegistryError> {
        not_here()
    }
    async fn login(&self, host: &str, _: bool) -> Result<Option<Login>, RegistryError> {
        Ok(self.0.get(host).cloned())
    }
}

fn login(password: &str) -> Login {
    Login { user: USER.to_owned(), password: Secret::new(password) }
}

/// An engine, a base image, a context, and the images that were built, which go when the test ends.
struct Bench {
    docker: Docker,
    base: Base,
    dir: tempfile::TempDir,
    built: Mutex<Vec<ImageId>>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        for id in self.built.lock().unwrap().iter() {
            let _ = Command::new("docker").args(["image", "rm", "-f", id.as_str()]).output();
        }
    }
}

/// Everything an adapter told about a step.
struct Told {
    progress: Progress,
    events: Received,
}

impl Told {
    fn new() -> Self {
        let (events, receiver) = Events::new(Redactor::default());
        let step = Step { app: AppName::new("web").unwrap(), rack: None, service: None, stage: Stage::Build };
        Self { progress: events.progress(step), events: receiver }
    }

    /// What was told since the last time, a line each.
    fn lines(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(event) = self.events.try_recv() {
            lines.push(line(event.kind));
        }
        lines
    }

    /// Waits until a line with this text is told.
    async fn until(&mut self, text: &str) {
        while let Some(event) = self.events.recv().await {
            if line(event.kind).contains(text) {
                return;
            }
        }
    }
}

fn line(kind: EventKind) -> String {
    match kind {
        EventKind::BuildStep { name, cached, done, error, .. } => format!("step cached={cached} done={done} {name} {error:?}"),
        EventKind::Log { output, line, .. } => format!("log {output:?} {line}"),
        EventKind::Notice { message, .. } => format!("notice {message}"),
        other => format!("{other:?}"),
    }
}

fn connect(vars: Vec<(String, String)>, logins: Logins) -> Result<Docker, BuildError> {
    let mut vars: BTreeMap<String, String> = vars.into_iter().collect();
    if let Ok(host) = std::env::var("DOCKER_HOST") {
        vars.entry("DOCKER_HOST".to_owned()).or_insert(host);
    }
    let env: Env = Arc::new(move |name| vars.get(name).cloned());
    Docker::connect(env, None, Arc::new(logins))
}

impl Bench {
    fn new() -> Self {
        Self::with(Vec::new(), Logins::default())
    }

    fn with(vars: Vec<(String, String)>, logins: Logins) -> Self {
        let docker = connect(vars, logins).unwrap();
        Self { docker, base: Base::import(), dir: tempfile::tempdir().unwrap(), built: Mutex::default() }
    }

    /// The engine's major version.
    async fn major(&self) -> u32 {
        self.docker.probe().await.unwrap().version.split('.').next().unwrap().parse().unwrap()
    }

    fn write(&self, path: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A build of the bench's directory with this Dockerfile, in which `BASE` is the base image.
    fn plan(&self, dockerfile: &str) -> ImageBuild {
        let dockerfile = self.write("Dockerfile", &dockerfile.replace("BASE", &self.base.name));
        ImageBuild { context: self.dir.path().to_owned(), dockerfile, context_key: unique(), ..ImageBuild::default() }
    }

    async fn build(&self, build: &ImageBuild, told: &Told) -> Result<ImageId, BuildError> {
        let labels = BTreeMap::from([("org.opencontainers.image.revision".to_owned(), "0123".to_owned())]);
        let built = self.docker.build(build, &labels, &told.progress, &CancellationToken::new()).await;
        if let Ok(id) = &built {
            self.built.lock().unwrap().push(id.clone());
        }
        built
    }

    /// Runs a shell line in an image.
    fn run(&self, id: &ImageId, line: &str) -> String {
        sh(Command::new("docker").args(["run", "--rm", "--network", "none", id.as_str(), "/bin/sh", "-c", line]))
    }
}
