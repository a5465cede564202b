//! A sandbox: racks of both versions, an image registry and ECR's API on loopback, in this process.
//!
//! [`serve`] starts it from [`Options`] and gives a [`Running`] that knows every address and password. What a rack
//! answers follows the racks' own servers, errors included; a build on it asks the registry for each image. State lives in
//! one directory and outlives a restart. Nothing in the rest of the program knows that it talks to a sandbox: it is
//! reached through ordinary settings.
//!
//! ```text
//! rack/       one rack: API, builds, releases, websockets
//! registry/   the image registry, also the one inside racks of version 3
//! ecr         ECR's API over the registry
//! fault       what can be told to go wrong; control sets it at run time
//! pull        asking registries for manifests
//! state wire  files; sockets
//! ```

mod control;
mod ecr;
pub mod fault;
mod pull;
mod rack;
mod registry;
mod state;
pub mod symptom;
mod wire;

pub use rack::{Pace, Version};

use crate::error::{Error, Result};
use crate::names::RackName;
use crate::registry::Login;
use crate::secret::Secret;
use fault::{Fault, FaultAt, Faults, REGISTRY};
use registry::Registry;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use wire::{Answer, Handler, Shared};

/// What a sandbox is to be.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where its state is kept; made when it is not there.
    pub state: PathBuf,
    /// Its racks.
    pub racks: Vec<RackOptions>,
    /// Its registry, if it has one.
    pub registry: Option<RegistryOptions>,
    /// The port of the control endpoint; 0 for any.
    pub control_port: u16,
    /// Faults from the start.
    pub faults: Vec<FaultAt>,
    /// How long things take on its racks.
    pub pace: Pace,
}

/// What a rack is to be.
#[derive(Debug, Clone)]
pub struct RackOptions {
    /// Its name; not `registry`, `ecr` or `control`, which name other servers.
    pub name: RackName,
    /// Its version.
    pub version: Version,
    /// Its port; 0 for any.
    pub port: u16,
    /// Its password; made up, and then kept, when there is none.
    pub password: Option<Secret>,
    /// Tokens that user `jwt` may come in with, to read and write.
    pub tokens: Vec<Secret>,
    /// Apps it has, with their generation (1 or 2; version 3 makes it 3). Those it remembers stay.
    pub apps: BTreeMap<String, u8>,
}

/// What the registry is to be.
#[derive(Debug, Clone)]
pub struct RegistryOptions {
    /// Its port; 0 for any.
    pub port: u16,
    /// How it is entered.
    pub kind: RegistryKind,
}

/// How a registry is entered, and what it does about repositories nobody made.
#[derive(Debug, Clone)]
pub enum RegistryKind {
    /// As ECR: a login comes from the API, which has a port of its own (0 for any), and repositories must be created.
    Ecr {
        /// The API's port.
        api_port: u16,
    },
    /// With this login, or with none; repositories come into being with a push.
    Plain {
        /// The login.
        login: Option<Login>,
    },
}

/// A sandbox that runs. Dropping it stops it too, without waiting.
pub struct Running {
    /// Its racks, in the order of the options.
    pub racks: Vec<RunningRack>,
    /// Its registry.
    pub registry: Option<RunningRegistry>,
    /// The control endpoint's URL.
    pub control: String,
    /// The faults that are set; they can be changed here too.
    pub faults: Faults,
    log: PathBuf,
    tasks: TaskTracker,
    stop: DropGuard,
}

/// A rack that runs.
#[derive(Debug, Clone)]
pub struct RunningRack {
    /// Its name.
    pub name: RackName,
    /// Its version.
    pub version: Version,
    /// Its URL, `http://127.0.0.1:PORT`: what goes where a host is asked for.
    pub url: String,
    /// Its password.
    pub password: Secret,
}

/// A registry that runs.
#[derive(Debug, Clone)]
pub struct RunningRegistry {
    /// Its host and port, as images name it.
    pub host: String,
    /// The URL of ECR's API for it.
    pub ecr: Option<String>,
    /// The login an engine can use; `None` when none is asked for.
    pub login: Option<Login>,
}

/// What the registry keeps from run to run.
#[derive(Serialize, Deserialize)]
struct RegistrySecrets {
    password: String,
    layer_key: String,
}

/// Starts a sandbox.
///
/// # Errors
/// A port that is taken, a state directory that cannot be used, or a name that two servers share.
pub async fn serve(options: Options) -> Result<Running> {
    state::directory(&options.state)?;
    check_names(&options)?;
    let log = options.state.join("requests.jsonl");
    let faults = Faults::new(options.faults);
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    // From here on every way out stops what was started.
    let guard = stop.clone().drop_guard();
    let shared = Shared { faults: faults.clone(), log: Arc::new(state::RequestLog::open(&log)?), stop, tasks: tasks.clone() };
    let puller = pull::Puller::new()?;
    let registry = match &options.registry {
        Some(registry) => Some(serve_registry(registry, &options.state, &shared).await?),
        None => None,
    };
    let mut racks = Vec::new();
    for rack in options.racks {
        let (listener, address) = bind(rack.port, &format!("rack `{}`", rack.name)).await?;
        let account = registry.as_ref().and_then(|registry: &RunningRegistry| Some((registry.host.clone(), registry.login.clone()?)));
        let setup = rack::Setup {
            name: rack.name.clone(),
            version: rack.version,
            address: address.clone(),
            pace: options.pace,
            directory: options.state.join("racks").join(state::file_name(rack.name.as_str())),
            password: rack.password,
            tokens: rack.tokens,
            apps: rack.apps,
            puller: puller.clone(),
            account_registry: account,
            shared: shared.clone(),
        };
        let served = Arc::new(rack::Rack::open(setup)?);
        let password = served.password();
        let handler: Handler = Arc::new(move |request| Box::pin(Arc::clone(&served).serve(request)));
        wire::listen(listener, rack.name.to_string(), shared.clone(), handler);
        racks.push(RunningRack { name: rack.name, version: rack.version, url: format!("http://{address}"), password });
    }
    let (listener, address) = bind(options.control_port, "the control endpoint").await?;
    let set = faults.clone();
    let handler: Handler = Arc::new(move |request| {
        let set = set.clone();
        Box::pin(async move { Ok(control::answer(set, request).await) })
    });
    wire::listen(listener, "control".to_owned(), shared, handler);
    Ok(Running { racks, registry, control: format!("http://{address}"), faults, log, tasks, stop: guard })
}

/// Faults and the request log know each server by one name.
fn check_names(options: &Options) -> Result<()> {
    let mut taken = vec![REGISTRY, "ecr", "control"];
    for rack in &options.racks {
        let name = rack.name.as_str();
        if taken.contains(&name) {
            return Err(Error::config(format!("two servers of the sandbox would be called `{name}`")).hint("give the rack another name"));
        }
        taken.push(name);
    }
    Ok(())
}

async fn bind(port: u16, what: &str) -> Result<(TcpListener, String)> {
    let bound = async {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let address = listener.local_addr()?.to_string();
        Ok::<_, std::io::Error>((listener, address))
    };
    bound.await.map_err(|error| {
        Error::unusable(format!("{what} of the sandbox cannot listen on port {port}"))
            .because(error)
            .hint("choose another port, or 0 for any that is free")
    })
}

async fn serve_registry(options: &RegistryOptions, state: &Path, shared: &Shared) -> Result<RunningRegistry> {
    let directory = state.join("registry");
    let store = registry::store::Store::open(directory.clone())?;
    let is_ecr = matches!(options.kind, RegistryKind::Ecr { .. });
    let registry = Arc::new(Registry::new(store, is_ecr, REGISTRY.to_owned(), shared.faults.clone()));
    let (listener, host) = bind(options.port, "the registry").await?;
    let (login, api) = match &options.kind {
        RegistryKind::Plain { login } => (login.clone(), None),
        RegistryKind::Ecr { api_port } => {
            let secrets = registry_secrets(&directory.join("secrets.json"))?;
            let password = Secret::new(secrets.password);
            let (listener, address) = bind(*api_port, "the registry's API").await?;
            let api = ecr::Ecr {
                registry: Arc::clone(&registry),
                password: password.clone(),
                host: host.clone(),
                address: address.clone(),
                layer_key: secrets.layer_key,
            };
            let api = Arc::new(api);
            let handler: Handler = Arc::new(move |request| {
                let api = Arc::clone(&api);
                Box::pin(async move { Ok(api.answer(request).await) })
            });
            wire::listen(listener, "ecr".to_owned(), shared.clone(), handler);
            (Some(Login { user: ecr::USER.to_owned(), password }), Some(format!("http://{address}")))
        }
    };
    let (wanted, faults) = (login.clone(), shared.faults.clone());
    let handler: Handler = Arc::new(move |request| {
        let (registry, wanted, faults) = (Arc::clone(&registry), wanted.clone(), faults.clone());
        Box::pin(async move {
            let given = wire::basic(request.headers());
            let fits = wanted.is_none_or(|login| given.is_some_and(|(user, word)| user == login.user && word == login.password.expose()));
            let refused = faults.is_set(REGISTRY, None, &Fault::LoginRefused) || faults.is_set(REGISTRY, None, &Fault::Unauthorized);
            Ok(if fits && !refused { registry.answer(request).await } else { unauthorized() })
        })
    });
    wire::listen(listener, REGISTRY.to_owned(), shared.clone(), handler);
    Ok(RunningRegistry { host, ecr: api, login })
}

fn registry_secrets(path: &Path) -> Result<RegistrySecrets> {
    if let Some(secrets) = state::load(path)? {
        return Ok(secrets);
    }
    let random = || format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
    let secrets = RegistrySecrets { password: random(), layer_key: random() };
    let saved = state::save(path, &secrets);
    saved.map_err(|error| Error::unusable(format!("the sandbox cannot write `{}`", path.display())).because(error))?;
    Ok(secrets)
}

fn unauthorized() -> Answer {
    let mut answer = registry::Refusal::new(hyper::StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "authentication required").answer();
    answer.headers_mut().insert("www-authenticate", hyper::header::HeaderValue::from_static("Basic realm=\"offbuild sandbox\""));
    answer
}

impl Running {
    /// The rack with this name.
    #[must_use]
    pub fn rack(&self, name: &str) -> Option<&RunningRack> {
        self.racks.iter().find(|rack| rack.name.as_str() == name)
    }

    /// Where the log of all requests is: JSON lines with `time`, `rack` (or `registry`, `ecr`, `control`), `method`, `path`,
    /// `status` (null when no answer was sent) and, for ECR, `operation`.
    #[must_use]
    pub fn request_log(&self) -> &Path {
        &self.log
    }

    /// The variables that make ordinary settings lead to the sandbox: for each rack `NAME_HOST` and `NAME_PASSWORD`, for
    /// the registry `REGISTRY_HOST`, and for ECR's API the SDK's own.
    #[must_use]
    pub fn environment(&self) -> BTreeMap<String, Secret> {
        let mut variables = BTreeMap::new();
        for rack in &self.racks {
            let name = variable(&rack.name);
            variables.insert(format!("{name}_HOST"), Secret::new(rack.url.clone()));
            variables.insert(format!("{name}_PASSWORD"), rack.password.clone());
        }
        if let Some(registry) = &self.registry {
            variables.insert("REGISTRY_HOST".to_owned(), Secret::new(registry.host.clone()));
            if let Some(api) = &registry.ecr {
                let keys = [
                    ("AWS_ENDPOINT_URL_ECR", api.as_str()),
                    ("AWS_REGION", ecr::REGION),
                    // Signatures are not checked; the SDK only wants to have keys.
                    ("AWS_ACCESS_KEY_ID", "sandbox"),
                    ("AWS_SECRET_ACCESS_KEY", "sandbox"),
                ];
                variables.extend(keys.map(|(key, value)| (key.to_owned(), Secret::new(value))));
            }
        }
        variables
    }

    /// [`Running::environment`] for a shell to read, passwords in the clear: it is printed for the user who asked for it.
    #[must_use]
    pub fn exports(&self) -> String {
        let quoted = |value: &Secret| value.expose().replace('\'', "'\\''");
        self.environment().iter().map(|(name, value)| format!("export {name}='{}'\n", quoted(value))).collect()
    }

    /// The part of `apps.yaml` that leads to the sandbox, given [`Running::environment`].
    #[must_use]
    pub fn apps_yaml(&self) -> String {
        let mut yaml = String::new();
        if let Some(registry) = &self.registry {
            yaml.push_str("registry:\n  repository: ${REGISTRY_HOST}/{app}\n");
            if registry.ecr.is_some() {
                let _ = writeln!(yaml, "  type: ecr\n  region: {}\n  create: true", ecr::REGION);
            }
        }
        yaml.push_str("racks:\n");
        for rack in &self.racks {
            let name = variable(&rack.name);
            let _ = writeln!(yaml, "  {}:\n    host: ${{{name}_HOST}}\n    password: ${{{name}_PASSWORD}}", rack.name);
        }
        yaml
    }

    /// Stops every server, waits until they are gone and their ports are free. Builds under way stay `running`, as when a
    /// builder dies; promotes go on with the clock.
    pub async fn stop(self) {
        drop(self.stop);
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// A rack's name as the start of a variable's.
fn variable(rack: &RackName) -> String {
    let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    rack.as_str().chars().map(letter).collect()
}
