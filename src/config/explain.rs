//! Each resolved value of a target and where it came from, for `offbuild config app@rack`.
//!
//! The configuration does not carry the origin of every value along; the file is read once more when somebody asks.

use super::digest::Entries;
use super::nearest;
use super::values::Span;
use super::{App, Config, HookConfig, Pattern, RackConfig, TargetConfig};
use crate::build::{SecretSource, SshSource};
use crate::error::{Error, Result};
use crate::names::Target;
use crate::yaml::{Document, Place};
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// A value after everything has had its say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Resolved {
    /// Its key: `timeouts.promote`, `rack.host`.
    pub key: String,
    /// The value as text; secrets are `***`, variables in build arguments stay as written.
    pub value: String,
    /// Where it came from.
    pub source: Source,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// Nobody said anything.
    BuiltIn,
    /// The app's directory: a file that is there.
    Directory,
    /// An environment variable.
    Environment(String),
    /// The file.
    File {
        /// Which part of it: `defaults`, `app`, `rack`, `overlay`, `registry` or `notify`.
        level: &'static str,
        /// The place.
        place: Place,
    },
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => f.write_str("built-in"),
            Self::Directory => f.write_str("found in the app's directory"),
            Self::Environment(name) => write!(f, "the variable {name}"),
            Self::File { level, place } => write!(f, "{place} ({level})"),
        }
    }
}

struct Explaining<'a> {
    document: Document,
    /// The app's key in the file.
    key: Option<String>,
    /// The position of the rack in the app's list.
    target: &'a TargetConfig,
    env: &'a dyn Fn(&str) -> Option<String>,
    single: bool,
    rows: Vec<Resolved>,
}

/// The resolved values of a target, in the order in which people would ask; an unknown target is an error.
pub fn explain(config: &Config, target: &Target, env: &dyn Fn(&str) -> Option<String>) -> Result<Vec<Resolved>> {
    let unknown = || {
        let all: Vec<String> =
            config.apps.iter().flat_map(|app| app.targets.iter().map(move |on| format!("{}@{}", app.name, on.rack))).collect();
        let known = nearest::known(&target.to_string(), all.iter().map(String::as_str), "no app goes to a rack");
        Error::config(format!("there is no target `{target}`")).hint(known)
    };
    let app = config.apps.iter().find(|app| app.name == target.app).ok_or_else(unknown)?;
    let on = app.targets.iter().find(|on| on.rack == target.rack).ok_or_else(unknown)?;
    let rack = config.racks.get(&target.rack).ok_or_else(unknown)?;
    let name = config.file.as_ref().map(ToString::to_string).unwrap_or_default();
    let document = Document::parse(&name, &config.text).map_err(|problem| Error::config(problem.message))?;
    let raw = super::check::check(&document, super::check::Variables::Keep).file;
    let key = Entries::new(&raw, &config.prefix).of(app).map(|(key, _)| key.to_owned());
    let mut explaining = Explaining { document, key, target: on, env, single: config.file.is_none(), rows: Vec::new() };
    explaining.app(app);
    explaining.target(on);
    explaining.limits(config.limits);
    explaining.build(app, &raw);
    explaining.rack(rack);
    for notify in config.notify.iter().filter(|notify| notify.concerns(&rack.name)) {
        let on = notify.on.iter().map(|moment| moment.name());
        let told = format!("{} on {}", notify.format.name(), brackets(on));
        explaining.row("notify", told, Source::File { level: "notify", place: notify.place.clone() });
    }
    Ok(explaining.rows)
}

impl Explaining<'_> {
    fn row(&mut self, key: &str, value: impl fmt::Display, source: Source) {
        self.rows.push(Resolved { key: key.to_owned(), value: value.to_string(), source });
    }

    /// The first of these paths that the file has.
    fn first(&self, paths: &[(&'static str, Vec<&str>)]) -> Option<Source> {
        let (level, node) = paths.iter().find_map(|(level, path)| {
            // Values are scalars and lists; a mapping of names by rack is no name.
            let node = self.document.at(path).filter(|node| !node.is_null() && node.entries().is_none())?;
            Some((*level, node))
        })?;
        Some(Source::File { level, place: self.document.place(node.span.start) })
    }

    /// Where a setting of the overlay, the app or the defaults was written.
    fn source(&self, key: &str) -> Source {
        let parts: Vec<&str> = key.split('.').collect();
        let mut paths = Vec::new();
        if let Some(app) = &self.key {
            let overlay = ["apps", app, "racks", self.target.rack.as_str()];
            paths.push(("overlay", overlay.iter().chain(&parts).copied().collect()));
            paths.push(("app", ["apps", app].iter().chain(&parts).copied().collect()));
        }
        if matches!(key, "deliver" | "env") {
            paths.push(("rack", vec!["racks", self.target.rack.as_str(), key]));
        }
        paths.push(("defaults", ["defaults"].iter().chain(&parts).copied().collect()));
        if key == "repository" {
            paths.push(("registry", vec!["registry", "repository"]));
        }
        self.first(&paths).unwrap_or(Source::BuiltIn)
    }

    /// The same; with no file, or nothing in it, a variable that is set.
    fn source_or(&self, key: &str, variable: &str) -> Source {
        match self.source(key) {
            Source::BuiltIn if self.single && self.is_set(variable) => Source::Environment(variable.to_owned()),
            source => source,
        }
    }

    fn is_set(&self, variable: &str) -> bool {
        (self.env)(variable).is_some_and(|value| !value.is_empty())
    }

    fn app(&mut self, app: &App) {
        let path = self.source("path");
        let path = if path == Source::BuiltIn { Source::Directory } else { path };
        self.row("path", &app.dir, path);
        let found = |source: Source| if source == Source::BuiltIn { Source::Directory } else { source };
        self.row("manifest", &app.manifest, found(self.source("manifest")));
        if let Some(compose) = &app.compose {
            self.row("compose", compose, found(self.source_or("compose", "DOCKER_COMPOSE")));
        }
        if let Some(repository) = &app.repository {
            self.row("repository", repository, self.source("repository"));
        }
        let uses: Vec<&str> = app.uses.iter().map(|used| used.pattern.glob.as_str()).collect();
        self.row("uses", brackets(uses), self.source("uses"));
        self.row("ignore", brackets(app.ignore.iter().map(written)), self.source("ignore"));
        self.row("after", brackets(&app.after), self.source("after"));
        if let Some(group) = &app.group {
            let at = self.first(&[("group", vec!["groups", group])]).unwrap_or(Source::BuiltIn);
            self.row("group", group, at);
        }
        self.row("tags", brackets(&app.tags), self.source("tags"));
        let precision = serde_json::to_value(app.precision).ok();
        self.row("precision", precision.as_ref().and_then(|value| value.as_str()).unwrap_or_default(), self.source("precision"));
        self.row("latest", app.latest, self.source("latest"));
        for (kind, hook) in &app.hooks {
            let key = format!("hooks.{}", kind.name());
            match hook {
                HookConfig::File { path, named: true } => self.row(&key, path, self.source(&key)),
                HookConfig::File { path, named: false } => self.row(&key, path, Source::Directory),
                HookConfig::Command(command) => self.row(&key, brackets(command), self.source(&key)),
            }
        }
        if !app.repeatable.is_empty() {
            self.row("hooks.repeatable", brackets(app.repeatable.iter().map(|kind| kind.name())), self.source("hooks.repeatable"));
        }
    }

    fn target(&mut self, on: &TargetConfig) {
        let by_rack = self.key.as_ref().and_then(|app| {
            let overlay = vec!["apps", app, "racks", on.rack.as_str(), "name"];
            self.first(&[("overlay", overlay), ("app", vec!["apps", app, "name", on.rack.as_str()]), ("app", vec!["apps", app, "name"])])
        });
        let name = by_rack.unwrap_or_else(|| self.source_or("name", "APP_NAME"));
        self.row("name", &on.name, name);
        self.row("env", &on.env, self.source_or("env", "APP_ENV"));
        let deliver = serde_json::to_value(on.deliver).ok();
        self.row("deliver", deliver.as_ref().and_then(|value| value.as_str()).unwrap_or_default(), self.source("deliver"));
        self.row("revision", on.revision, self.source("revision"));
        self.row("hold", on.hold, self.source("hold"));
        let limits: [(&str, Duration); 5] = [
            ("timeouts.build", on.timeouts.build),
            ("timeouts.push", on.timeouts.push),
            ("timeouts.hook", on.timeouts.hook),
            ("timeouts.rack_build", on.timeouts.rack_build),
            ("timeouts.promote", on.timeouts.promote),
        ];
        for (key, limit) in limits {
            self.row(key, Span::of(limit).0, self.source(key));
        }
    }

    fn build(&mut self, app: &App, raw: &super::file::File) {
        let build = &app.build;
        self.row("build.weight", build.weight, self.source("build.weight"));
        let own = self.key.as_ref().and_then(|key| raw.apps.get(key));
        for (name, value) in &build.args {
            // A variable in an argument may hold a secret: it is shown as written.
            let written = own.and_then(|app| app.build.args.get(name)).or(raw.defaults.build.args.get(name));
            let shown = written.map_or(value, |text| &text.0).clone();
            let key = format!("build.args.{name}");
            self.row(&key, shown, self.keyed("args", name));
        }
        for (id, secret) in &build.secrets {
            let shown = match secret {
                SecretSource::File(path) => format!("the file {}", path.display()),
                SecretSource::Env(name) => format!("the variable {name}"),
            };
            self.row(&format!("build.secrets.{id}"), shown, self.keyed("secrets", id));
        }
        for (id, ssh) in &build.ssh {
            let shown = match ssh {
                SshSource::Agent => "agent".to_owned(),
                SshSource::Socket(path) => path.display().to_string(),
            };
            self.row(&format!("build.ssh.{id}"), shown, self.keyed("ssh", id));
        }
        if let Some(platform) = &build.platform {
            self.row("build.platform", platform, self.source("build.platform"));
        }
        self.row("build.no_cache", build.no_cache, self.source("build.no_cache"));
        self.row("build.pull", build.pull, self.source("build.pull"));
    }

    /// As [`Self::source`], for keys that may have dots in them.
    fn keyed(&self, map: &'static str, key: &str) -> Source {
        let mut paths = Vec::new();
        if let Some(app) = &self.key {
            paths.push(("app", vec!["apps", app.as_str(), "build", map, key]));
        }
        paths.push(("defaults", vec!["defaults", "build", map, key]));
        self.first(&paths).unwrap_or(Source::BuiltIn)
    }

    fn limits(&mut self, limits: super::Limits) {
        let run = limits.run.map_or_else(|| "none".to_owned(), |run| Span::of(run).0);
        for (name, value) in [("run", run), ("answer", Span::of(limits.answer).0)] {
            let source = self.first(&[("defaults", vec!["defaults", "timeouts", name])]).unwrap_or(Source::BuiltIn);
            self.row(&format!("timeouts.{name}"), value, source);
        }
    }

    fn rack(&mut self, rack: &RackConfig) {
        let name = rack.name.as_str();
        let source = |this: &Self, path: &[&str]| {
            let path = ["racks", name].iter().chain(path).copied().collect();
            this.first(&[("rack", path)]).unwrap_or(Source::BuiltIn)
        };
        let login = |this: &Self, key: &'static str, variable: &str| match source(this, &[key]) {
            Source::BuiltIn if this.is_set(variable) => Source::Environment(variable.to_owned()),
            source => source,
        };
        let from_env = |variable: &str| (self.env)(variable).filter(|value| !value.is_empty());
        let files = || "from the convox CLI's login files".to_owned();
        let host = match &rack.host {
            Some(host) => host.value.clone().unwrap_or_else(|missing| missing),
            None => from_env("CONVOX_HOST").unwrap_or_else(files),
        };
        let password = match &rack.password {
            Some(password) => password.value.as_ref().map_or_else(Clone::clone, |_| "***".to_owned()),
            None => from_env("CONVOX_PASSWORD").map_or_else(files, |_| "***".to_owned()),
        };
        self.row("rack.host", host, login(self, "host", "CONVOX_HOST"));
        self.row("rack.password", password, login(self, "password", "CONVOX_PASSWORD"));
        self.row("rack.after", brackets(&rack.after), source(self, &["after"]));
        self.row("rack.protected", rack.protected, source(self, &["protected"]));
        self.row("rack.cache.registry", rack.registry_cache, source(self, &["cache", "registry"]));
        self.row("rack.poll", Span::of(rack.poll).0, source(self, &["poll"]));
        if let Some(path) = &rack.ca_file {
            self.row("rack.ca_file", path.display(), source(self, &["ca_file"]));
        }
    }
}

fn written(pattern: &Pattern) -> String {
    format!("{}{}", if pattern.negated { "!" } else { "" }, pattern.glob)
}

fn brackets<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    format!("[{}]", items.join(", "))
}
