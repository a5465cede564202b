//! What a command works on: the repository, the configuration, the selected apps and the way to the racks.

use super::{read, tell};
use crate::build::SecretSource;
use crate::changes::base::{self, FetchCommand};
use crate::changes::committed::InCommit;
use crate::changes::{self, Head, History};
use crate::cli::{Global, Selection};
use crate::config::{self, App, Config, RackConfig, Selected, TargetConfig};
use crate::error::{Error, Result};
use crate::files::{Files, OnDisk};
use crate::names::{RackName, RepoPath, Target};
use crate::plan::Plan;
use crate::rack::convox::Convox;
use crate::rack::{Rack, RackError, login};
use crate::registry::registries::Registries;
use crate::secret::{Redactor, Secret};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Looks up an environment variable.
pub(super) type Env = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// What a command works on.
pub(super) struct World {
    pub(super) env: Env,
    pub(super) history: Arc<dyn History>,
    /// What configuration, manifests and Dockerfiles are read from.
    pub(super) files: Arc<dyn Files>,
    pub(super) head: Head,
    pub(super) config: Arc<Config>,
    pub(super) selected: Vec<Selected>,
    /// What no output may show; registries add their logins as they come up.
    pub(super) redactor: Redactor,
}

/// The environment of the process.
pub(super) fn environment() -> Env {
    Arc::new(|name: &str| std::env::var(name).ok())
}

/// The user's home directory.
pub(super) fn home(env: &Env) -> Option<PathBuf> {
    env("HOME").filter(|home| !home.is_empty()).map(PathBuf::from)
}

/// The directory the command works in.
pub(super) fn here(global: &Global) -> Result<PathBuf> {
    let dir = match &global.directory {
        Some(dir) => dir.clone(),
        None => std::env::current_dir().map_err(|error| Error::unusable("the current directory cannot be read").because(error))?,
    };
    dir.canonicalize().map_err(|error| Error::config(format!("directory `{}` cannot be opened", dir.display())).because(error))
}

/// Another commit than the one that is checked out: `--head`, or `OFFBUILD_HEAD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AskedHead {
    revision: String,
    /// Who asks for it.
    pub(super) name: String,
}

impl AskedHead {
    /// What flag or environment ask for; the flag goes first.
    pub(super) fn of(flag: Option<&str>, env: &Env) -> Option<Self> {
        if let Some(flag) = flag {
            return Some(Self { revision: flag.to_owned(), name: format!("`--head {flag}`") });
        }
        let value = env("OFFBUILD_HEAD").map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())?;
        Some(Self { name: format!("`OFFBUILD_HEAD` ({value})"), revision: value })
    }

    fn find(&self, history: &dyn History) -> Result<Head> {
        let Self { revision, name } = self;
        let Some(commit) = base::resolve(history, revision)? else {
            let shallow = history.is_shallow();
            let fetch = FetchCommand::for_missing(revision, shallow);
            return Err(Error::unusable(format!("{name}: `{revision}` {}", base::not_here(shallow))).hint(format!("run `{fetch}`")));
        };
        Ok(Head { describe: commit.short().to_owned(), commit: history.commit(&commit)?, branch: None, source: history.head()?.source })
    }
}

impl World {
    /// Opens the repository and reads the configuration.
    pub(super) fn open(global: &Global, selection: &Selection) -> Result<Self> {
        let env = environment();
        let here = here(global)?;
        let history = changes::open(&here)?;
        let head = history.head()?;
        let files = Arc::new(OnDisk::new(history.root()));
        Self::of(env, &here, history, head, files, global, selection)
    }

    /// As [`World::open`], of a commit's files: what is not committed is not there. The commit is `asked`, or what is checked out.
    pub(super) fn committed(global: &Global, selection: &Selection, asked: Option<&AskedHead>) -> Result<Self> {
        let env = environment();
        let here = here(global)?;
        let history = changes::open(&here)?;
        let head = match asked {
            Some(asked) => asked.find(&*history)?,
            None => history.head()?,
        };
        let files = Arc::new(InCommit::new(Arc::clone(&history), head.commit.id.clone()));
        let world = Self::of(Arc::clone(&env), &here, Arc::clone(&history), head.clone(), Arc::clone(&files) as _, global, selection);
        if let Ok(world) = &world {
            // Whether a commit tells everything is known when everything was asked for; what is wrong is told by who asks again.
            let _ = read::apps(world).and_then(|found| read::inputs(world, &found));
        }
        match files.asked() {
            Some(_) => world,
            // What submodules hold, and what lies behind links out of the repository, is on disk only.
            None => Self::of(env, &here, Arc::clone(&history), head, Arc::new(OnDisk::new(history.root())), global, selection),
        }
    }

    /// Reads the configuration from `files`. Variables are looked up in `env`, but for those of racks' hosts and passwords.
    pub(super) fn of(
        env: Env,
        here: &Path,
        history: Arc<dyn History>,
        head: Head,
        files: Arc<dyn Files>,
        global: &Global,
        selection: &Selection,
    ) -> Result<Self> {
        let config = config::load_from(&*files, here, history.root(), global.config.as_deref(), &*env, &*environment())?;
        if config.apps.is_empty() {
            let file = config.file.as_ref().map_or_else(|| config::FILE_NAME.to_owned(), ToString::to_string);
            return Err(Error::config(format!("there is no app: no directory that `discover.include` of `{file}` names has a manifest"))
                .hint("an app is a directory with a `convox.yml` or a `docker-compose.yml`; correct `discover`, or name it under `apps`"));
        }
        let root = history.root().canonicalize().unwrap_or_else(|_| history.root().to_owned());
        let inside = here.strip_prefix(&root).unwrap_or(Path::new(""));
        let inside = RepoPath::from_git(std::os::unix::ffi::OsStrExt::as_bytes(inside.as_os_str()));
        let selected = config::select(&config, &selection.apps, &selection.racks, &inside)?;
        Ok(Self { env, history, files, head, config: Arc::new(config), selected, redactor: Redactor::of_process() })
    }

    /// Keeps of the selection the targets that are wanted.
    pub(super) fn keep(&mut self, wanted: impl Fn(&Target) -> bool) {
        let config = Arc::clone(&self.config);
        for selected in &mut self.selected {
            let app = &config.apps[selected.app];
            selected.targets.retain(|on| wanted(&target(app, &app.targets[*on])));
        }
        self.selected.retain(|selected| !selected.targets.is_empty());
    }

    /// The selected apps.
    pub(super) fn apps(&self) -> impl Iterator<Item = &App> {
        self.selected.iter().map(|selected| &self.config.apps[selected.app])
    }

    /// The selected targets.
    pub(super) fn targets(&self) -> impl Iterator<Item = (&App, &TargetConfig)> {
        self.selected.iter().flat_map(|selected| {
            let app = &self.config.apps[selected.app];
            selected.targets.iter().map(move |target| (app, &app.targets[*target]))
        })
    }

    /// The racks of the selected targets, in the order of the configuration.
    pub(super) fn racks(&self) -> Vec<&RackConfig> {
        self.config.racks.values().filter(|rack| self.targets().any(|(_, target)| target.rack == rack.name)).collect()
    }

    /// The registries, found through their ordinary settings.
    pub(super) fn registries(&self) -> Arc<Registries> {
        Arc::new(
            Registries::new(self.config.registries.clone(), Arc::clone(&self.env), self.redactor.clone())
                .answering_within(self.config.limits.answer),
        )
    }

    /// Masks the passwords of racks and the values of the secrets that builds are given, and tells which cannot be.
    pub(super) fn mask_secrets(&self, racks: &BTreeMap<RackName, Arc<dyn Rack>>, plan: &Plan) -> Vec<String> {
        let passwords = racks.iter().map(|(name, rack)| (format!("the password of rack `{name}`"), Some(rack.hook_login().1)));
        let secrets: BTreeMap<_, _> = plan.builds.iter().flat_map(|build| &build.build.secrets).collect();
        let secrets = secrets.into_iter().map(|(id, source)| {
            let value = match source {
                SecretSource::Env(name) => (self.env)(name),
                // One that cannot be read is the build's own error.
                SecretSource::File(path) => std::fs::read(path).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
            };
            (format!("build secret `{id}`"), value.map(Secret::new))
        });
        let all = passwords.chain(secrets);
        all.filter_map(|(what, value)| tell::mask(&self.redactor, &what, &value?)).collect()
    }

    /// A client for each of the selected racks; nothing is sent yet.
    pub(super) fn rack_clients(&self) -> Result<BTreeMap<RackName, Arc<dyn Rack>>> {
        let client =
            |rack: &&RackConfig| -> Result<(RackName, Arc<dyn Rack>)> { Ok((rack.name.clone(), Arc::new(self.rack_client(rack)?))) };
        self.racks().iter().map(client).collect()
    }

    /// A client for a rack; nothing is sent yet.
    pub(super) fn rack_client(&self, rack: &RackConfig) -> Result<Convox> {
        let login = login::resolve(rack, &*self.env, home(&self.env).as_deref())?;
        self.redactor.register(&login.password);
        // Nothing was sent: only the settings can be wrong.
        Convox::new(rack, login, rack.poll)
            .map_err(|error| Error::config(error.to_string()).hint(format!("correct `racks.{}` in {}", rack.name, rack.place.file)))
    }

    /// The page of the CI job, as the CI's own variables tell it.
    pub(super) fn ci_url(&self) -> Option<String> {
        let env = |name: &str| (self.env)(name).filter(|value| !value.is_empty());
        if let (Some(server), Some(repository), Some(run)) = (env("GITHUB_SERVER_URL"), env("GITHUB_REPOSITORY"), env("GITHUB_RUN_ID")) {
            return Some(format!("{server}/{repository}/actions/runs/{run}"));
        }
        ["CI_JOB_URL", "BUILDKITE_BUILD_URL", "CIRCLE_BUILD_URL", "BUILD_URL"].into_iter().find_map(env)
    }
}

/// A rack's error outside of a run: the rack cannot be used.
pub(super) fn rack_error(error: RackError) -> Error {
    let hint = error.hint();
    let error = Error::unusable(error.to_string());
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// The target of an app and one of its racks.
pub(super) fn target(app: &App, on: &TargetConfig) -> Target {
    Target { app: app.name.clone(), rack: on.rack.clone() }
}
