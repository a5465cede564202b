//! A convox rack of version 2 or 3: what a deploy client sees of one, odd behaviours included.
//!
//! A request is matched against one table of routes, let in, and carried out by the file its object is named after; the
//! facts come from running the racks' own servers. A rack of the sandbox keeps images and makes releases; it runs no
//! containers, so a command "run" in one is answered from its text alone.

mod apps;
mod builder;
mod builds;
mod imports;
mod logs;
mod manifest;
mod model;
mod objects;
mod params;
mod processes;
mod releases;
mod routes;

use super::fault::Fault;
use super::pull::Puller;
use super::registry::Registry;
use super::state;
use super::wire::{Answer, Lost, Shared, basic, empty, header_text, text, typed, whole};
use crate::error::Result as Outcome;
use crate::names::RackName;
use crate::registry::Login;
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderValue};
use hyper::{Request, StatusCode};
use model::{App, Role, State};
use params::Params;
use routes::{Call, Found};
use serde_json::Value;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use time::OffsetDateTime;

/// The generation of a rack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// ECS, at release `20260421192651`.
    V2,
    /// Kubernetes, at release `3.24.9`.
    V3,
}

impl Version {
    /// What `GET /system` says.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::V2 => "20260421192651",
            Self::V3 => "3.24.9",
        }
    }
}

/// How long things take on a rack.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// A build, beside asking for manifests.
    pub build: Duration,
    /// Each half of a promote: rolling out, rolling back.
    pub promote: Duration,
}

impl Default for Pace {
    /// 200 ms and 300 ms: to be seen, and not to be waited for.
    fn default() -> Self {
        Self { build: Duration::from_millis(200), promote: Duration::from_millis(300) }
    }
}

/// A request that is not carried out: status and message.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    message: String,
}

impl Refusal {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// 500: what the rack answers unless the code that failed gave a status.
    fn server(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, message)
    }
}

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Self {
        Self::server(format!("the sandbox's disk failed: {error}"))
    }
}

/// What a call gives.
enum Reply {
    /// JSON.
    Json(Value),
    /// `ok`, for calls that return nothing.
    Ok,
    /// Anything else.
    Other(Answer),
}

/// A rack.
pub(super) struct Rack {
    name: RackName,
    version: Version,
    /// Host and port it listens on.
    address: String,
    pace: Pace,
    /// Where its objects are.
    directory: PathBuf,
    state: Mutex<State>,
    /// The rack's own registry: what is pushed through `/v2/` of version 3.
    registry: Registry,
    puller: Puller,
    /// The registry in the rack's own account, which it may pull from without being told: host, port and login.
    account_registry: Option<(String, Login)>,
    shared: Shared,
}

/// What a rack is made from.
pub(super) struct Setup {
    pub(super) name: RackName,
    pub(super) version: Version,
    pub(super) address: String,
    pub(super) pace: Pace,
    pub(super) directory: PathBuf,
    pub(super) password: Option<crate::secret::Secret>,
    pub(super) tokens: Vec<crate::secret::Secret>,
    pub(super) apps: std::collections::BTreeMap<String, u8>,
    pub(super) puller: Puller,
    pub(super) account_registry: Option<(String, Login)>,
    pub(super) shared: Shared,
}

/// A call, taken apart.
struct Ask {
    /// What the client calls the rack, without scheme.
    host: String,
    args: Vec<String>,
    params: Params,
    body: Option<Incoming>,
}

impl Ask {
    fn arg(&self, index: usize) -> &str {
        self.args.get(index).map_or("", String::as_str)
    }
}

impl Rack {
    /// A rack with what its directory remembers, and the apps and password of `setup`.
    pub(super) fn open(setup: Setup) -> Outcome<Self> {
        state::directory(&setup.directory)?;
        let mut state: State = state::load(&setup.directory.join("rack.json"))?.unwrap_or_default();
        if let Some(password) = &setup.password {
            password.expose().clone_into(&mut state.password);
        } else if state.password.is_empty() {
            state.password = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        }
        for token in &setup.tokens {
            state.tokens.insert(token.expose().to_owned(), Role::Write);
        }
        for (name, generation) in &setup.apps {
            let generation = if setup.version == Version::V3 { 3 } else { *generation };
            // Made long ago: an app a rack starts with is not `creating`.
            state.apps.entry(name.clone()).or_insert_with(|| App::new(generation, OffsetDateTime::UNIX_EPOCH)).generation = generation;
        }
        let store = super::registry::store::Store::open(setup.directory.join("registry"))?;
        let registry = Registry::new(store, false, setup.name.to_string(), setup.shared.faults.clone());
        let rack = Self {
            name: setup.name,
            version: setup.version,
            address: setup.address,
            pace: setup.pace,
            directory: setup.directory,
            state: Mutex::new(state),
            registry,
            puller: setup.puller,
            account_registry: setup.account_registry,
            shared: setup.shared,
        };
        let saved = rack.save(&rack.lock());
        saved.map_err(|error| crate::error::Error::unusable(format!("rack `{}` cannot write its state", rack.name)).because(error))?;
        Ok(rack)
    }

    /// The password that opens it.
    pub(super) fn password(&self) -> crate::secret::Secret {
        crate::secret::Secret::new(self.lock().password.clone())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn save(&self, state: &State) -> std::io::Result<()> {
        state::save(&self.directory.join("rack.json"), state)
    }

    fn is(&self, app: Option<&str>, fault: &Fault) -> bool {
        self.shared.faults.is_set(self.name.as_str(), app, fault)
    }

    fn take(&self, app: &str, fault: &Fault) -> bool {
        self.shared.faults.take(self.name.as_str(), Some(app), fault)
    }

    /// Reads an app, its rollout where it is now.
    fn read<T>(&self, name: &str, read: impl FnOnce(&App) -> Result<T, Refusal>) -> Result<T, Refusal> {
        let mut state = self.lock();
        let app = state.apps.get_mut(name).ok_or_else(|| Refusal::not_found(format!("app not found: {name}")))?;
        self.settle(name, app);
        read(app)
    }

    /// Changes an app and keeps the change, unless it is refused.
    fn change<T>(&self, name: &str, change: impl FnOnce(&mut App) -> Result<T, Refusal>) -> Result<T, Refusal> {
        let mut state = self.lock();
        let app = state.apps.get_mut(name).ok_or_else(|| Refusal::not_found(format!("app not found: {name}")))?;
        self.settle(name, app);
        let changed = change(app)?;
        self.save(&state)?;
        Ok(changed)
    }

    /// Lets an app's rollout get to where it is now; one that hung goes on when its fault is gone.
    fn settle(&self, name: &str, app: &mut App) {
        let now = OffsetDateTime::now_utc();
        if !self.is(Some(name), &Fault::PromoteHangs) {
            app.release_hung(now);
        }
        app.settle(self.version, name, now, self.pace.promote);
    }

    /// The status and release an app shows.
    fn shown(&self, name: &str, app: &App) -> (&'static str, Option<String>) {
        let (status, release) = app.shown(self.version, OffsetDateTime::now_utc(), self.pace.promote);
        let status = if self.is(Some(name), &Fault::Updating) { "updating" } else { status };
        (status, release.map(str::to_owned))
    }

    /// What the login of a request may do.
    fn role(&self, headers: &HeaderMap) -> Result<Role, Refusal> {
        let invalid = |detail: &str| Refusal::new(StatusCode::UNAUTHORIZED, format!("invalid authentication{detail}"));
        if self.is(None, &Fault::Unauthorized) {
            return Err(invalid(""));
        }
        let Some((user, password)) = basic(headers) else { return Err(invalid("")) };
        let state = self.lock();
        if user == "jwt" {
            let known = state.tokens.get(&password).copied();
            return known.ok_or_else(|| invalid(": token is malformed: token contains an invalid number of segments"));
        }
        if password == state.password { Ok(Role::Write) } else { Err(invalid("")) }
    }

    /// Serves a request.
    pub(super) async fn serve(self: Arc<Self>, request: Request<Incoming>) -> Result<Answer, Lost> {
        if self.version == Version::V3 && (request.uri().path() == "/v2" || request.uri().path().starts_with("/v2/")) {
            return Ok(match self.role(request.headers()) {
                Ok(Role::Write) => self.registry.answer(request).await,
                Ok(Role::Read) => self.refused(&HeaderMap::new(), unauthorized()),
                Err(refusal) => self.refused(&HeaderMap::new(), refusal),
            });
        }
        let headers = request.headers().clone();
        let (call, args) = match routes::find(self.version, request.method(), request.uri().path()) {
            Found::Call(call, args) => (call, args),
            Found::OtherMethod if self.version == Version::V3 => return Ok(empty(StatusCode::METHOD_NOT_ALLOWED)),
            Found::OtherMethod | Found::Nothing => return Ok(empty(StatusCode::NOT_FOUND)),
        };
        if call.is_socket() {
            // Matched exactly, as the servers do: asked without it, the path does not exist.
            if header_text(&headers, "upgrade") != Some("websocket") {
                return Ok(empty(StatusCode::NOT_FOUND));
            }
            return Ok(logs::open(self, request, call, args));
        }
        if call == Call::Check {
            return Ok(text(StatusCode::OK, "ok"));
        }
        let admitted = self.role(&headers).and_then(|role| match role {
            Role::Read if request.method() != hyper::Method::GET => Err(unauthorized()),
            _ => Ok(()),
        });
        let reply = match admitted {
            Ok(()) => self.carry_out(call, args, request).await?,
            Err(refusal) => Err(refusal),
        };
        let mut answer = match reply {
            Ok(Reply::Json(value)) => typed(StatusCode::OK, "application/json", format!("{}\n", pretty(&value))),
            Ok(Reply::Ok) => text(StatusCode::OK, "ok\n"),
            Ok(Reply::Other(answer)) => answer,
            Err(refusal) => self.refused(&headers, refusal),
        };
        if let Ok(id) = HeaderValue::from_str(&format!("{:012x}", fastrand::u64(..1 << 48))) {
            answer.headers_mut().insert("request-id", id);
        }
        Ok(answer)
    }

    fn refused(&self, headers: &HeaderMap, refusal: Refusal) -> Answer {
        let listed = |value: &str| value.split(',').any(|part| part.trim() == "application/json");
        let as_json = self.version == Version::V3 && header_text(headers, "accept").is_some_and(listed);
        let mut answer = if as_json {
            typed(refusal.status, "application/json", format!("{}\n", serde_json::json!({"error": refusal.message})))
        } else {
            text(refusal.status, format!("{}\n", refusal.message))
        };
        if refusal.status == StatusCode::UNAUTHORIZED && self.version == Version::V3 {
            answer.headers_mut().insert("www-authenticate", HeaderValue::from_static("Basic realm=\"convox\""));
        }
        answer
    }

    async fn carry_out(
        self: &Arc<Self>,
        call: Call,
        args: Vec<String>,
        request: Request<Incoming>,
    ) -> Result<Result<Reply, Refusal>, Lost> {
        let (parts, body) = request.into_parts();
        let is_form = header_text(&parts.headers, "content-type").is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"));
        let (form, body) = if is_form && !call.takes_bytes() {
            match whole(body).await {
                Ok(form) => (form, None),
                Err(error) => return Ok(Err(Refusal::server(error))),
            }
        } else {
            (hyper::body::Bytes::new(), Some(body))
        };
        let host = header_text(&parts.headers, "host").unwrap_or(&self.address).to_owned();
        let mut ask = Ask { host, args, params: Params::new(&form, parts.uri.query(), parts.headers), body };
        let reply = match call {
            Call::Auth => Ok(Reply::Ok),
            Call::System => Ok(Reply::Json(self.system())),
            Call::Token => self.token(&ask),
            Call::Apps => Ok(self.apps()),
            Call::App => self.app(&ask),
            Call::AppCreate => self.app_create(&ask),
            Call::AppUpdate => self.app_update(&ask),
            Call::AppCancel => self.app_cancel(&ask),
            Call::ObjectStore => self.object_store(&mut ask).await,
            Call::ObjectFetch => self.object_fetch(&ask),
            Call::ObjectExists => Ok(Reply::Other(empty(StatusCode::OK))),
            Call::BuildCreate => self.build_create(&ask),
            Call::Build => self.build_get(&ask),
            Call::Builds => self.build_list(&ask),
            Call::BuildUpdate => self.build_update(&ask),
            Call::BuildImport => self.build_import(&mut ask).await,
            Call::BuildExport => self.build_export(&ask),
            Call::ImageImport => self.image_import(&ask),
            Call::ReleaseCreate => self.release_create(&ask),
            Call::Release => self.release_get(&ask),
            Call::Releases => self.release_list(&ask),
            Call::Promote => self.promote(&ask),
            Call::Services => self.services(&ask),
            Call::Processes => self.process_list(&ask),
            Call::ProcessRun => self.process_run(&ask),
            Call::Process => self.process_get(&ask),
            Call::ProcessStop => self.process_stop(&ask),
            Call::RegistryAdd => self.registry_add(&ask).await,
            Call::Registries => Ok(self.registries()),
            Call::RegistryRemove => self.registry_remove(&ask),
            Call::Event => Ok(Reply::Ok),
            Call::Check | Call::AppLogs | Call::BuildLogs | Call::ProcessExec => Ok(Reply::Other(empty(StatusCode::NOT_FOUND))),
        };
        let lost = match call {
            Call::Promote => Some(Fault::PromoteAnswerLost),
            Call::BuildCreate => Some(Fault::BuildAnswerLost),
            _ => None,
        };
        match lost {
            Some(fault) if reply.is_ok() && self.take(ask.arg(0), &fault) => Err(Lost),
            _ => Ok(reply),
        }
    }
}

fn unauthorized() -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, "you are unauthorized to access this")
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}
