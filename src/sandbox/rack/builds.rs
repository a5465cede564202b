//! Builds as records: made, listed, changed from outside.

use super::model::{App, Build, new_id};
use super::params::shown;
use super::{Ask, Rack, Refusal, Reply, Version};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use time::OffsetDateTime;

impl Build {
    /// A new build in this state.
    pub(super) fn new(status: &str, description: String, git_sha: String) -> Self {
        Self {
            id: new_id('B'),
            description,
            git_sha,
            manifest: String::new(),
            entrypoint: String::new(),
            process: String::new(),
            release: String::new(),
            reason: String::new(),
            status: status.to_owned(),
            logs: String::new(),
            started: Some(OffsetDateTime::now_utc()),
            ended: None,
            external: false,
            importing: false,
            images: BTreeMap::new(),
            output: String::new(),
        }
    }
}

impl Rack {
    /// The answer for a build nobody knows.
    pub(super) fn no_build(&self, id: &str) -> Refusal {
        match self.version {
            Version::V2 => Refusal::not_found(format!("build not found: {id}")),
            Version::V3 => Refusal::server(format!("builds.convox.com {:?} not found", id.to_lowercase())),
        }
    }

    /// Changes a build and keeps the change.
    pub(super) fn change_build<T>(&self, app: &str, id: &str, change: impl FnOnce(&mut Build) -> T) -> Result<T, Refusal> {
        self.change(app, |app| app.build_mut(id).map(change).ok_or_else(|| self.no_build(id)))
    }

    pub(super) fn build_shown(&self, app: &str, build: &Build) -> Value {
        let mut value = json!({
            "id": build.id,
            "app": app,
            "description": build.description,
            "ended": shown(build.ended),
            "entrypoint": build.entrypoint,
            "git-sha": build.git_sha,
            "logs": build.logs,
            "manifest": build.manifest,
            "process": build.process,
            "release": build.release,
            "reason": build.reason,
            "started": shown(build.started),
            "status": build.status,
        });
        match self.version {
            Version::V2 => value["wildcard-domain"] = json!(false),
            Version::V3 => value["repository"] = json!(""),
        }
        value
    }

    pub(super) fn build_create(self: &Arc<Self>, ask: &Ask) -> Result<Reply, Refusal> {
        let app = ask.arg(0).to_owned();
        let params = &ask.params;
        let arguments = params.text("build-args");
        if self.version == Version::V2 && !arguments.is_empty() && arguments.split(',').any(|item| !item.contains('=')) {
            return Err(Refusal::server("invalid build args"));
        }
        let external = self.version == Version::V3 && params.is_true("external");
        // Version 2 answers with the record's state from before its task began.
        let status = if external || self.version == Version::V2 { "created" } else { "running" };
        let mut build = Build::new(status, params.text("description"), params.text("git-sha"));
        build.external = external;
        if self.version == Version::V3 && !external {
            build.process = format!("build-{}", build.id.to_lowercase());
        }
        let mut reply = self.build_shown(&app, &build);
        let id = build.id.clone();
        let (generation, password) = {
            let password = self.lock().password.clone();
            let generation = self.change(&app, |record| {
                record.builds.push(build);
                Ok(record.generation)
            })?;
            (generation, password)
        };
        if external {
            let password = percent_encoding::utf8_percent_encode(&password, percent_encoding::NON_ALPHANUMERIC);
            reply["repository"] = json!(format!("https://convox:{password}@{}/{}", ask.host, self.own_repository(&app)));
        } else {
            let manifest = params.text("manifest");
            let manifest = match (manifest.as_str(), generation) {
                ("", 1) => "docker-compose.yml",
                ("", _) => "convox.yml",
                (named, _) => named,
            };
            let job = super::builder::Job { app, id, url: params.text("url"), manifest: manifest.to_owned() };
            self.shared.tasks.spawn(super::builder::run(Arc::clone(self), job));
        }
        Ok(Reply::Json(reply))
    }

    /// The app's repository in the rack's own registry.
    pub(super) fn own_repository(&self, app: &str) -> String {
        format!("{}/{app}", self.name.as_str().to_lowercase())
    }

    pub(super) fn build_get(&self, ask: &Ask) -> Result<Reply, Refusal> {
        let (name, id) = (ask.arg(0), ask.arg(1));
        self.read(name, |app| {
            let build = app.build(id).ok_or_else(|| self.no_build(id))?;
            Ok(Reply::Json(self.build_shown(name, build)))
        })
    }

    pub(super) fn build_list(&self, ask: &Ask) -> Result<Reply, Refusal> {
        let limit = ask.params.limit()?;
        let name = ask.arg(0);
        self.read(name, |app: &App| {
            Ok(Reply::Json(app.builds.iter().rev().take(limit).map(|build| self.build_shown(name, build)).collect()))
        })
    }

    pub(super) fn build_update(&self, ask: &Ask) -> Result<Reply, Refusal> {
        let (app, id, params) = (ask.arg(0), ask.arg(1), &ask.params);
        let (started, ended) = (params.time("started")?, params.time("ended")?);
        let build = self.change_build(app, id, |build| {
            let fields = [
                ("entrypoint", &mut build.entrypoint),
                ("logs", &mut build.logs),
                ("manifest", &mut build.manifest),
                ("release", &mut build.release),
                ("status", &mut build.status),
            ];
            for (name, field) in fields {
                if let Some(value) = params.form(name) {
                    value.clone_into(field);
                }
            }
            build.started = started.or(build.started);
            build.ended = ended.or(build.ended);
            build.clone()
        })?;
        Ok(Reply::Json(self.build_shown(app, &build)))
    }
}
