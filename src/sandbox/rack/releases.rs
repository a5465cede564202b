//! Releases: copies of the newest one with something changed, and their promotion.

use super::manifest::{self, parse_env};
use super::model::{App, Fate, Release, Rollout, new_id};
use super::params::shown;
use super::{Ask, Rack, Refusal, Reply, Version};
use crate::sandbox::fault::Fault;
use hyper::StatusCode;
use serde_json::{Value, json};
use time::OffsetDateTime;

impl Rack {
    fn no_release(&self, id: &str) -> Refusal {
        match self.version {
            Version::V2 => Refusal::not_found(format!("release not found: {id}")),
            Version::V3 => Refusal::server(format!("releases.convox.com {:?} not found", id.to_lowercase())),
        }
    }

    fn release_shown(&self, app: &str, release: &Release, in_list: bool) -> Value {
        // The env is left out of version 2's list: it is encrypted there, one call each.
        let env = if in_list && self.version == Version::V2 { "" } else { &release.env };
        json!({
            "id": release.id,
            "app": app,
            "build": release.build,
            "created": shown(Some(release.created)),
            "description": release.description,
            "env": env,
            "manifest": release.manifest,
        })
    }

    /// Makes a release: a copy of the newest (or of `parent`), with what is given in place of the copy's.
    pub(super) fn new_release(
        &self,
        app: &mut App,
        build: Option<&str>,
        env: Option<&str>,
        description: Option<&str>,
        parent: Option<&str>,
    ) -> Result<Release, Refusal> {
        let from = match parent {
            Some(id) => Some(app.release(id).ok_or_else(|| self.no_release(id))?),
            None => app.releases.last(),
        };
        let empty = || Release {
            id: String::new(),
            build: String::new(),
            env: String::new(),
            manifest: String::new(),
            description: String::new(),
            created: OffsetDateTime::UNIX_EPOCH,
        };
        let mut release = from.cloned().unwrap_or_else(empty);
        release.id = new_id('R');
        release.created = app.next_moment();
        release.description.clear();
        if let Some(id) = build {
            let build = app.build(id).ok_or_else(|| self.no_build(id))?;
            release.build.clone_from(&build.id);
            release.description.clone_from(&build.description);
            release.manifest.clone_from(&build.manifest);
        }
        if let Some(env) = env {
            release.description = env_change(&release.env, env);
            env.clone_into(&mut release.env);
        }
        if let Some(description) = description {
            description.clone_into(&mut release.description);
        }
        app.releases.push(release.clone());
        Ok(release)
    }

    pub(super) fn release_create(&self, ask: &Ask) -> Result<Reply, Refusal> {
        let name = ask.arg(0);
        let given = |key: &str| ask.params.form(key).filter(|value| !value.is_empty());
        let parent = given("parent-release").filter(|_| self.version == Version::V3);
        // An env that is given empty clears it; a build or description that is empty was not given.
        let release =
            self.change(name, |app| self.new_release(app, given("build"), ask.params.form("env"), given("description"), parent))?;
        Ok(Reply::Json(self.release_shown(name, &release, false)))
    }

    pub(super) fn release_get(&self, ask: &Ask) -> Result<Reply, Refusal> {
        let (name, id) = (ask.arg(0), ask.arg(1));
        let release = self.read(name, |app| Ok(app.release(id).cloned()))?;
        match release {
            Some(release) => Ok(Reply::Json(self.release_shown(name, &release, false))),
            None => Err(self.unknown_release(name, id)),
        }
    }

    /// Why an app has no such release: nobody has it, or another app does.
    fn unknown_release(&self, name: &str, id: &str) -> Refusal {
        let elsewhere = self.lock().apps.iter().any(|(other, app)| other != name && app.release(id).is_some());
        if elsewhere && self.version == Version::V2 { Refusal::server("mismatched app and release") } else { self.no_release(id) }
    }

    pub(super) fn release_list(&self, ask: &Ask) -> Result<Reply, Refusal> {
        let limit = ask.params.limit()?;
        let name = ask.arg(0);
        self.read(name, |app| {
            Ok(Reply::Json(app.releases.iter().rev().take(limit).map(|release| self.release_shown(name, release, true)).collect()))
        })
    }

    pub(super) fn promote(&self, ask: &Ask) -> Result<Reply, Refusal> {
        let (name, id) = (ask.arg(0), ask.arg(1));
        let unknown = self.read(name, |app| Ok(app.release(id).is_none()))?.then(|| self.unknown_release(name, id));
        let force = ask.params.is_true("force");
        // The empty and the too old are the client's fault on version 3 only.
        let wrong = |message: &str| {
            let status = if self.version == Version::V3 { StatusCode::BAD_REQUEST } else { StatusCode::INTERNAL_SERVER_ERROR };
            Refusal::new(status, message)
        };
        self.change(name, |app| {
            let (status, _) = self.shown(name, app);
            if status != "running" && !force {
                return Err(Refusal::forbidden("app is currently updating"));
            }
            if let Some(unknown) = unknown {
                return Err(unknown);
            }
            let release = app.release(id).ok_or_else(|| self.no_release(id))?;
            if release.manifest.is_empty() {
                return Err(wrong("can not promote a release with an empty manifest"));
            }
            let active = app.active.as_deref().and_then(|active| app.release(active));
            if active.is_some_and(|active| release.created < active.created) {
                return Err(wrong("can not promote an older release, try rollback"));
            }
            let services = manifest::read(&release.manifest, app.generation, &parse_env(&release.env)).map_err(Refusal::server)?;
            if self.version == Version::V2 {
                if status != "running" {
                    return Err(Refusal::server(format!(
                        "ValidationError: Stack:arn:aws:cloudformation:{}:{}:stack/{}-{name}/{:08x} is in UPDATE_IN_PROGRESS state and can not be updated.\n\tstatus code: 400, request id: {:016x}",
                        crate::sandbox::ecr::REGION,
                        crate::sandbox::ecr::ACCOUNT,
                        self.name,
                        fastrand::u32(..),
                        fastrand::u64(..)
                    )));
                }
                if app.active.as_deref() == Some(id) {
                    return Err(Refusal::server(format!(
                        "ValidationError: No updates are to be performed.\n\tstatus code: 400, request id: {:016x}",
                        fastrand::u64(..)
                    )));
                }
            }
            let (fate, reason) = self.fate(name, app, release, &services);
            let symptom = self.shared.faults.symptom(self.name.as_str(), name).filter(|_| fate == Fate::RollsBack);
            // On version 3 a newer promote takes the place of the one under way; what was good before stays the way back.
            let from = app.rollout.as_ref().map_or_else(|| app.active.clone(), |rollout| rollout.from.clone());
            app.rollout = Some(Rollout { from, to: Some(id.to_owned()), started: OffsetDateTime::now_utc(), fate, reason, symptom, told: None });
            for service in symptom.iter().flat_map(|_| &services) {
                self.tell_symptom(name, app, &service.name, id);
            }
            self.settle(name, app);
            Ok(Reply::Ok)
        })
    }

    /// How a promote will end: a service whose image nobody put into the app's repository cannot start.
    fn fate(&self, name: &str, app: &App, release: &Release, services: &[manifest::Service]) -> (Fate, String) {
        if self.is(Some(name), &Fault::PromoteRollsBack) {
            return (Fate::RollsBack, "the sandbox was told to roll this back".to_owned());
        }
        if self.shared.faults.symptom(self.name.as_str(), name).is_some() {
            return (Fate::RollsBack, "a service did not get stable".to_owned());
        }
        if self.is(Some(name), &Fault::PromoteHangs) {
            return (Fate::Hangs, String::new());
        }
        let copied = app.build(&release.build).map(|build| &build.images);
        let repository = self.own_repository(name);
        let missing = services.iter().find(|service| {
            let tag = format!("{}.{}", service.name, release.build);
            copied.is_none_or(|images| !images.contains_key(&service.name)) && self.registry.store.tag(&repository, &tag).is_none()
        });
        match missing {
            Some(service) => {
                (Fate::RollsBack, format!("CannotPullContainerError: {repository}:{}.{} not found", service.name, release.build))
            }
            None => (Fate::Takes, String::new()),
        }
    }
}

/// The description of a release that changes the env: `env add:A change:B remove:C`.
fn env_change(old: &str, new: &str) -> String {
    let (old, new) = (parse_env(old), parse_env(new));
    let list = |word: &str, names: Vec<&str>| (!names.is_empty()).then(|| format!(" {word}:{}", names.join(",")));
    let added = new.keys().filter(|key| !old.contains_key(*key)).map(String::as_str).collect();
    let changed = new.iter().filter(|(key, value)| old.get(*key).is_some_and(|was| was != *value)).map(|(key, _)| key.as_str()).collect();
    let removed = old.keys().filter(|key| !new.contains_key(*key)).map(String::as_str).collect();
    let parts = [list("add", added), list("change", changed), list("remove", removed)];
    format!("env{}", parts.into_iter().flatten().collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_env_is_described() {
        assert_eq!(env_change("B=1\nC=1\nK=1", "A=1\nB=2\nK=1"), "env add:A change:B remove:C");
        assert_eq!(env_change("A=1", "A=1"), "env");
    }
}
