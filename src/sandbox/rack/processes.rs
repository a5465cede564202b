//! Processes: one for each service of the active release, those of a release that does not come to run, and one-off commands.
//!
//! No container runs. A command ends with the code it asks for in so many words (`exit 3`), else with 0.

use super::model::{App, Process, Release, new_id};
use super::params::shown;
use super::{Ask, Rack, Refusal, Reply, Version, manifest};
use serde_json::{Value, json};
use time::OffsetDateTime;

impl Rack {
    /// The answer for a process nobody knows.
    pub(super) fn no_process(&self, id: &str) -> Refusal {
        match self.version {
            Version::V2 => Refusal::not_found(format!("process not found: {id}")),
            Version::V3 => Refusal::server(format!("pods {id:?} not found")),
        }
    }

    fn process_shown(&self, app: &str, id: &str, process: &Process, image: &str, status: &str) -> Value {
        json!({
            "id": id,
            "app": app,
            "command": process.command,
            "cpu": 0.0,
            "host": "",
            "image": image,
            "instance": "i-00000000000000000",
            "memory": 0.0,
            "name": process.service,
            // Version 3 says null where there are none.
            "ports": if self.version == Version::V3 { Value::Null } else { json!([]) },
            "release": process.release,
            "started": shown(Some(process.started)),
            "status": status,
        })
    }

    /// All processes of an app, by id.
    fn processes_of(&self, name: &str, app: &App) -> Vec<(String, Process)> {
        let mut all: Vec<(String, Process)> = app.processes.iter().map(|(id, process)| (id.clone(), process.clone())).collect();
        if let Some(release) = app.active.as_deref().and_then(|id| app.release(id)) {
            all.extend(self.processes_of_release(name, app, release));
        }
        // Those that do not come to run are there as long as the rack tries.
        let tried =
            app.rollout.as_ref().filter(|rollout| rollout.symptom.is_some()).and_then(|rollout| app.release(rollout.to.as_deref()?));
        all.extend(tried.into_iter().flat_map(|release| self.processes_of_release(name, app, release)));
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    fn processes_of_release(&self, name: &str, app: &App, release: &Release) -> Vec<(String, Process)> {
        let services = manifest::read(&release.manifest, app.generation, &manifest::parse_env(&release.env)).unwrap_or_default();
        let process = |service: manifest::Service| {
            let id = process_id(name, &service.name, &release.id);
            (id, Process { service: service.name, command: String::new(), release: release.id.clone(), started: release.created })
        };
        services.into_iter().map(process).collect()
    }

    /// What is said of a process that does not come to run: by itself and by the rack.
    pub(super) fn tell_symptom(&self, name: &str, app: &mut App, service: &str, release: &str) {
        let Some(symptom) = app.rollout.as_ref().and_then(|rollout| rollout.symptom) else { return };
        let (id, now) = (process_id(name, service, release), OffsetDateTime::now_utc());
        let shown = symptom.shown(self.version, service, &id);
        for line in shown.app {
            app.log.push(now, &format!("service/{service}/{id}"), *line);
        }
        let system = if self.version == Version::V2 { "system/ecs" } else { "system/k8s" };
        app.log.push(now, &format!("{system}/{service}"), shown.system);
    }

    fn state_of(&self, app: &App, id: &str, process: &Process) -> &'static str {
        let rollout = app.rollout.as_ref().filter(|rollout| rollout.to.as_deref() == Some(process.release.as_str()));
        let symptom = rollout.and_then(|rollout| rollout.symptom);
        symptom.map_or("running", |symptom| symptom.shown(self.version, &process.service, id).status)
    }

    fn image_of(&self, name: &str, app: &App, process: &Process) -> String {
        let build = app.release(&process.release).map_or("", |release| &release.build);
        format!("{}/{}:{}.{build}", self.address, self.own_repository(name), process.service)
    }

    pub(super) fn process_list(&self, ask: &Ask) -> Result<Reply, Refusal> {
        let name = ask.arg(0);
        let wanted = |key: &str, value: &str| ask.params.query(key).is_none_or(|asked| asked.is_empty() || asked == value);
        self.read(name, |app| {
            let all = self.processes_of(name, app).into_iter();
            let chosen = all.filter(|(_, process)| wanted("release", &process.release) && wanted("service", &process.service));
            Ok(Reply::Json(
                chosen
                    .map(|(id, process)| {
                        let status = self.state_of(app, &id, &process);
                        self.process_shown(name, &id, &process, &self.image_of(name, app, &process), status)
                    })
                    .collect(),
            ))
        })
    }

    pub(super) fn process_get(&self, ask: &Ask) -> Result<Reply, Refusal> {
        let (name, id) = (ask.arg(0), ask.arg(1));
        self.read(name, |app| {
            let found = self.processes_of(name, app).into_iter().find(|(known, _)| known == id);
            let (id, process) = found.ok_or_else(|| self.no_process(id))?;
            let status = self.state_of(app, &id, &process);
            Ok(Reply::Json(self.process_shown(name, &id, &process, &self.image_of(name, app, &process), status)))
        })
    }

    pub(super) fn process_run(&self, ask: &Ask) -> Result<Reply, Refusal> {
        let (name, service) = (ask.arg(0), ask.arg(1));
        let header = |key: &str| ask.params.header(key).map(str::to_owned);
        self.change(name, |app| {
            let release = match header("release").filter(|release| !release.is_empty()) {
                Some(id) => id,
                None => app.active.clone().ok_or_else(|| Refusal::server(format!("no releases for app: {name}")))?,
            };
            if app.release(&release).is_none() {
                return Err(Refusal::server(format!("release not found: {release}")));
            }
            let process = Process {
                service: service.to_owned(),
                command: header("command").unwrap_or_default(),
                release,
                started: OffsetDateTime::now_utc(),
            };
            let id = new_id('P').to_lowercase();
            let shown = self.process_shown(name, &id, &process, &self.image_of(name, app, &process), "running");
            app.processes.insert(id, process);
            Ok(Reply::Json(shown))
        })
    }

    pub(super) fn process_stop(&self, ask: &Ask) -> Result<Reply, Refusal> {
        let id = ask.arg(1);
        self.change(ask.arg(0), |app| app.processes.remove(id).map(|_| Reply::Ok).ok_or_else(|| self.no_process(id)))
    }

    /// True when the app has the process.
    pub(super) fn has_process(&self, name: &str, id: &str) -> Result<bool, Refusal> {
        self.read(name, |app| Ok(self.processes_of(name, app).iter().any(|(known, _)| known == id)))
    }
}

fn process_id(app: &str, service: &str, release: &str) -> String {
    format!("{app}-{service}-{}", release.to_lowercase())
}

/// The code a command ends with.
pub(super) fn exit_code(command: &str) -> u8 {
    let words: Vec<&str> = command.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let asked = words.windows(2).find_map(|pair| (pair[0] == "exit").then(|| pair[1].parse().ok()).flatten());
    asked.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_ends_as_it_says() {
        for (command, code) in [("rake db:migrate", 0), ("sh -c 'exit 3'", 3), ("exit 12", 12), ("exit", 0), ("my-exit-code 4", 0)] {
            assert_eq!(exit_code(command), code, "{command}");
        }
    }
}
