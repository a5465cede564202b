//! The rack itself, its apps, their services, and the registries it may pull from.

use super::model::{App, Credentials, Fate, Rollout};
use super::params::map;
use super::{Ask, Rack, Refusal, Reply, Role, Version, manifest};
use crate::registry::Login;
use crate::secret::Secret;
use hyper::StatusCode;
use serde_json::{Value, json};
use time::OffsetDateTime;

impl Rack {
    pub(super) fn system(&self) -> Value {
        let v2 = self.version == Version::V2;
        let mut system = json!({
            "count": if v2 { 3 } else { 0 },
            "domain": self.address,
            "name": self.name.as_str(),
            "outputs": {},
            "parameters": {},
            "provider": "aws",
            "rack-domain": if v2 { "" } else { self.address.as_str() },
            "region": if v2 { super::super::ecr::REGION } else { "" },
            "status": "running",
            "type": if v2 { "t3.medium" } else { "" },
            "version": self.version.text(),
        });
        if !v2 {
            system["router-internal"] = json!("");
        }
        system
    }

    pub(super) fn token(&self, ask: &Ask) -> Result<Reply, Refusal> {
        let role = match ask.params.text("role").as_str() {
            "read" => Role::Read,
            "write" => Role::Write,
            "admin" if self.version == Version::V3 => Role::Write,
            other => return Err(Refusal::server(format!("invalid role: {other}"))),
        };
        let part = || format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        let token = format!("{}.{}.{}", part(), part(), part());
        let mut state = self.lock();
        state.tokens.insert(token.clone(), role);
        self.save(&state)?;
        Ok(Reply::Json(json!({"token": token})))
    }

    fn app_shown(&self, name: &str, app: &App) -> Value {
        let (status, release) = self.shown(name, app);
        json!({
            "generation": app.generation.to_string(),
            "locked": app.locked,
            "name": name,
            "release": release.unwrap_or_default(),
            "router": "",
            "status": status,
            "parameters": app.parameters,
        })
    }

    pub(super) fn apps(&self) -> Reply {
        let mut state = self.lock();
        let shown = state.apps.iter_mut().map(|(name, app)| {
            self.settle(name, app);
            self.app_shown(name, app)
        });
        Reply::Json(shown.collect())
    }

    pub(super) fn app(&self, ask: &Ask) -> Result<Reply, Refusal> {
        let name = ask.arg(0);
        self.read(name, |app| Ok(Reply::Json(self.app_shown(name, app))))
    }

    pub(super) fn app_create(&self, ask: &Ask) -> Result<Reply, Refusal> {
        let name = ask.params.text("name");
        let fits = name.len() >= 2
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && name.as_bytes()[0].is_ascii_lowercase();
        let reserved = matches!(name.as_str(), "rack" | "system");
        match self.version {
            Version::V2 if !fits || reserved => {
                return Err(Refusal::server(
                    "App name can contain only lowercase alphanumeric characters and dashes and must start with a letter",
                ));
            }
            Version::V3 if reserved => return Err(Refusal::new(StatusCode::BAD_REQUEST, "app name is reserved")),
            Version::V3 if !fits => return Err(Refusal::new(StatusCode::BAD_REQUEST, format!("app name is invalid: {name}"))),
            _ => {}
        }
        let generation = match (self.version, ask.params.text("generation").as_str()) {
            (Version::V3, _) => 3,
            (Version::V2, "" | "2") => 2,
            (Version::V2, "1") => 1,
            (Version::V2, other) => return Err(Refusal::server(format!("unknown generation: {other}"))),
        };
        let mut state = self.lock();
        if state.apps.contains_key(&name) {
            let status = if self.version == Version::V3 { StatusCode::CONFLICT } else { StatusCode::INTERNAL_SERVER_ERROR };
            return Err(Refusal::new(status, format!("app already exists: {name}")));
        }
        let app = App::new(generation, OffsetDateTime::now_utc());
        let shown = self.app_shown(&name, &app);
        state.apps.insert(name, app);
        self.save(&state)?;
        Ok(Reply::Json(shown))
    }

    pub(super) fn app_update(&self, ask: &Ask) -> Result<Reply, Refusal> {
        self.change(ask.arg(0), |app| {
            if let Some(lock) = ask.params.form("lock") {
                app.locked = lock == "true";
            }
            app.parameters.extend(map(&ask.params.text("parameters")));
            if app.rollout.is_none() {
                app.rollout = Some(Rollout {
                    from: app.active.clone(),
                    to: app.active.clone(),
                    started: OffsetDateTime::now_utc(),
                    fate: Fate::Takes,
                    reason: String::new(),
                    symptom: None,
                    told: None,
                });
            }
            Ok(Reply::Ok)
        })
    }

    pub(super) fn app_cancel(&self, ask: &Ask) -> Result<Reply, Refusal> {
        self.change(ask.arg(0), |app| {
            let now = OffsetDateTime::now_utc();
            let (status, _) = app.shown(self.version, now, self.pace.promote);
            match &mut app.rollout {
                Some(rollout) if status == "updating" => rollout.cancel(now, self.pace.promote),
                _ => return Err(Refusal::forbidden("app is not updating")),
            }
            Ok(Reply::Ok)
        })
    }

    pub(super) fn services(&self, ask: &Ask) -> Result<Reply, Refusal> {
        self.read(ask.arg(0), |app| {
            let Some(release) = app.active.as_deref().and_then(|id| app.release(id)) else { return Ok(Reply::Json(json!([]))) };
            let services =
                manifest::read(&release.manifest, app.generation, &manifest::parse_env(&release.env)).map_err(Refusal::server)?;
            let shown = services.iter().map(|service| {
                let ports = service.port.map(|port| json!({"balancer": 443, "certificate": "", "container": port}));
                json!({
                    "count": 1,
                    "cpu": 256,
                    "domain": format!("{}.{}.{}", service.name, ask.arg(0), self.address),
                    "memory": 512,
                    "name": service.name,
                    "ports": ports.into_iter().collect::<Vec<_>>(),
                })
            });
            Ok(Reply::Json(shown.collect()))
        })
    }

    pub(super) async fn registry_add(&self, ask: &Ask) -> Result<Reply, Refusal> {
        let (server, username, password) = (ask.params.text("server"), ask.params.text("username"), ask.params.text("password"));
        if self.version == Version::V2 {
            if self.account_registry.as_ref().is_some_and(|(host, _)| *host == server) {
                return Err(Refusal::server(format!("can't add the rack's internal registry: {server}")));
            }
            let login = Login { user: username.clone(), password: Secret::new(password.clone()) };
            if !self.puller.accepts(&server, &login).await {
                return Err(Refusal::server("unable to authenticate"));
            }
        }
        let shown = json!({"server": server, "username": username, "password": password});
        let mut state = self.lock();
        state.registries.insert(server, Credentials { username, password });
        self.save(&state)?;
        Ok(Reply::Json(shown))
    }

    pub(super) fn registries(&self) -> Reply {
        let state = self.lock();
        let shown = state.registries.iter();
        let shown = shown.map(|(server, login)| json!({"server": server, "username": login.username, "password": login.password}));
        Reply::Json(shown.collect())
    }

    pub(super) fn registry_remove(&self, ask: &Ask) -> Result<Reply, Refusal> {
        let mut state = self.lock();
        if state.registries.remove(ask.arg(0)).is_none() {
            return Err(Refusal::server(format!("no such registry: {}", ask.arg(0))));
        }
        self.save(&state)?;
        Ok(Reply::Ok)
    }
}
