//! From what is written to what the program works with: racks, registries, patterns, and the pieces apps share.
//!
//! Every check notes its problem at the place of the value and goes on, so that one pass finds all of them. `apps` does the
//! same for the apps.

use super::file::{self, File};
use super::interpolate::interpolate;
use super::nearest::known;
use super::values::Span;
use super::{Config, Lazy, LazySecret, Limits, Pattern, RackConfig, RegistrySettings, Timeouts, apps, sets};
use crate::files::Files;
use crate::names::{RackName, RepoPath, Repository};
use crate::rack::Deliver;
use crate::registry::CreateOptions;
use crate::secret::Secret;
use crate::yaml::{Document, Node, Place, Problem};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A file on its way to a [`Config`].
pub(super) struct Loading<'a> {
    pub document: &'a Document,
    /// With variables filled in.
    pub file: &'a File,
    /// As written, for digests.
    pub raw: &'a File,
    /// The repository's files.
    pub files: &'a dyn Files,
    /// The directory of the file.
    pub root: &'a Path,
    /// The same, in the repository.
    pub prefix: &'a RepoPath,
    /// For what is read later: hosts and passwords of racks, addresses of webhooks.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Top-level keys whose value is missing because it was wrong.
    pub damaged: BTreeSet<String>,
    pub problems: Vec<Problem>,
}

/// A value of the document, or the nearest place there is.
#[derive(Clone)]
pub(super) struct At<'d> {
    document: &'d Document,
    node: Option<Arc<Node>>,
    offset: usize,
}

impl<'d> At<'d> {
    pub(super) fn root(document: &'d Document) -> Self {
        Self { document, node: Some(Arc::clone(&document.root)), offset: document.root.span.start }
    }

    /// The value of a key.
    pub(super) fn key(&self, key: &str) -> Self {
        let entry = self.node.as_ref().and_then(|node| node.entry(key));
        match entry {
            Some(entry) if entry.value.is_null() => Self { document: self.document, node: None, offset: entry.key_span.start },
            Some(entry) => Self { document: self.document, offset: entry.value.span.start, node: Some(entry.value) },
            None => Self { node: None, ..self.clone() },
        }
    }

    /// The key itself, with its value behind it.
    pub(super) fn named(&self, key: &str) -> Self {
        let entry = self.node.as_ref().and_then(|node| node.entry(key));
        match entry {
            Some(entry) => Self { document: self.document, offset: entry.key_span.start, node: Some(entry.value) },
            None => Self { node: None, ..self.clone() },
        }
    }

    /// All keys as [`At::named`] has them: for mappings that are long.
    pub(super) fn children(&self) -> BTreeMap<String, Self> {
        let entries = self.node.iter().flat_map(|node| node.merged());
        entries.map(|entry| (entry.key, Self { document: self.document, offset: entry.key_span.start, node: Some(entry.value) })).collect()
    }

    /// An item of a list.
    pub(super) fn item(&self, index: usize) -> Self {
        let item = self.node.as_ref().and_then(|node| node.items()?.get(index).cloned());
        match item {
            Some(item) => Self { document: self.document, offset: item.span.start, node: Some(item) },
            None => Self { node: None, ..self.clone() },
        }
    }

    /// An item of a list, or a key of a mapping: for values that may be either.
    pub(super) fn member(&self, index: usize, key: &str) -> Self {
        if self.node.as_ref().is_some_and(|node| node.items().is_some()) { self.item(index) } else { self.named(key) }
    }

    pub(super) fn is_there(&self) -> bool {
        self.node.is_some()
    }

    pub(super) fn place(&self) -> Place {
        self.document.place(self.offset)
    }
}

impl<'a> Loading<'a> {
    pub(super) fn at(&self, path: &[&str]) -> At<'a> {
        path.iter().fold(At::root(self.document), |at, key| at.key(key))
    }

    pub(super) fn problem(&mut self, at: &At<'_>, message: impl Into<String>, help: impl Into<String>) {
        self.problem_at(at.place(), message, help);
    }

    pub(super) fn problem_at(&mut self, place: Place, message: impl Into<String>, help: impl Into<String>) {
        self.problems.push(Problem { place, message: message.into(), help: Some(help.into()) });
    }

    /// Everything resolved; problems are in [`Loading::problems`].
    pub(super) fn config(&mut self, repository: &Path, path: RepoPath) -> Config {
        let limits = self.limits();
        let racks = self.racks(limits.answer);
        let registries = self.registries();
        let create = self.create();
        if let Some(repository) = &self.file.registry.repository {
            self.repository_template(repository, &self.at(&["registry", "repository"]));
        }
        self.shared();
        let global = self.patterns(&self.file.global, &self.at(&["global"]), &RepoPath::default(), false);
        let ignore = self.patterns(&self.file.ignore, &self.at(&["ignore"]), &RepoPath::default(), true);
        if let Some(jobs) = &self.file.jobs
            && !valid_jobs(&jobs.0)
        {
            let help = "write a number (`4`), a percentage of the processors (`50%`), or `auto`";
            self.problem(&self.at(&["jobs"]), format!("`{}` is no number of jobs", jobs.0), help);
        }
        let apps = apps::apps(self, repository, &racks, create.as_ref());
        Config {
            root: self.root.to_owned(),
            prefix: self.prefix.clone(),
            file: Some(path),
            text: self.document.text.clone(),
            racks,
            discover: apps::globs(self.file),
            global,
            ignore,
            unowned: self.file.unowned.unwrap_or_default(),
            apps,
            registries,
            jobs: self.file.jobs.as_ref().map(|jobs| jobs.0.clone()),
            limits,
            seed: super::Seed::from_env(self.env),
            notify: super::notify::notify(self),
        }
    }

    fn limits(&mut self) -> Limits {
        let (written, at) = (&self.file.defaults.timeouts, self.at(&["defaults", "timeouts"]));
        let run = written.run.is_some().then(|| self.span(Duration::ZERO, written.run.as_ref(), &at.key("run")));
        Limits { run, answer: self.span(Limits::default().answer, written.answer.as_ref(), &at.key("answer")) }
    }

    fn racks(&mut self, answer: Duration) -> BTreeMap<RackName, RackConfig> {
        let file = self.file;
        let at = self.at(&["racks"]);
        let mut racks = BTreeMap::new();
        let mut graph = BTreeMap::new();
        for (key, written) in file.racks.iter() {
            let here = at.key(key);
            let named = at.named(key);
            let name = match RackName::new(key) {
                Ok(name) => name,
                Err(error) => {
                    self.problem(&named, error.to_string(), "give the rack another name here; it is only used by offbuild");
                    continue;
                }
            };
            let mut after = Vec::new();
            for (index, other) in written.after.iter().enumerate() {
                if file.racks.get(other).is_some() {
                    after.extend(RackName::new(other.as_str()));
                } else {
                    let help = known(other, file.racks.keys(), "there are no racks");
                    self.problem(&here.key("after").item(index), format!("rack `{key}` comes after the unknown rack `{other}`"), help);
                }
            }
            let poll = match &written.poll {
                None => crate::rack::POLL,
                Some(text) => text.duration().unwrap_or_else(|| {
                    let help = "write it as `5s` or `500ms`";
                    self.problem(&here.key("poll"), format!("`{}` is no length of time", text.0), help);
                    crate::rack::POLL
                }),
            };
            graph.insert(key, written.after.iter().map(String::as_str).collect::<Vec<_>>());
            let host = written.host.as_deref().map(|host| Lazy { value: self.later(host, &here.key("host")) });
            let password = written.password.as_deref().map(|password| {
                let value = self.later(password, &here.key("password"));
                LazySecret { value: value.map(Secret::new) }
            });
            let rack = RackConfig {
                place: named.place(),
                host,
                password,
                after,
                protected: written.protected,
                registry_cache: written.cache.registry,
                deliver: written.deliver.unwrap_or(Deliver::Auto),
                env: written.env.clone().unwrap_or_else(|| key.to_owned()),
                poll,
                answer,
                ca_file: written.ca_file.as_ref().map(|path| self.root.join(path)),
                name: name.clone(),
            };
            racks.insert(name, rack);
        }
        for cycle in sets::cycles(&graph) {
            let place = at.key(cycle[0]).key("after");
            self.problem(&place, format!("racks come after each other: {}", sets::arrows(&cycle)), "take one `after` away");
        }
        racks
    }

    /// A value whose variables count only when it is asked for.
    pub(super) fn later(&self, text: &str, at: &At<'_>) -> Result<String, String> {
        interpolate(text, self.env).map_err(|bad| format!("{} ({})", bad.message, at.place()))
    }

    fn registries(&mut self) -> BTreeMap<String, RegistrySettings> {
        let mut registries = BTreeMap::new();
        for (host, written) in self.file.registries.iter() {
            if host.contains('/') {
                let help = "a registry is named by its host, with its port if it has one: `registry.example.com:5000`";
                self.problem(&self.at(&["registries"]).named(host), format!("`{host}` is no registry's host"), help);
            }
            let ecr = written.kind == Some(file::RegistryKind::Ecr);
            let insecure = written.insecure.unwrap_or(false);
            registries.insert(host.to_owned(), RegistrySettings { ecr, region: written.region.clone(), insecure });
        }
        let main = &self.file.registry;
        if main.kind.is_some() || main.region.is_some() || main.insecure.is_some() {
            match main.repository.as_deref().and_then(|template| Repository::parse(&filled(template)).ok()) {
                Some(repository) => {
                    let settings: &mut RegistrySettings = registries.entry(repository.host).or_default();
                    settings.ecr |= main.kind == Some(file::RegistryKind::Ecr);
                    settings.region = main.region.clone().or(settings.region.take());
                    settings.insecure |= main.insecure.unwrap_or(false);
                }
                None if main.repository.is_some() => {}
                None => {
                    let help = "set `registry.repository`, or say it of a host under `registries`";
                    self.problem(&self.at(&["registry"]), "this says nothing without a `repository`", help);
                }
            }
        }
        registries
    }

    fn create(&mut self) -> Option<CreateOptions> {
        match self.file.registry.create.as_ref()? {
            file::Create::Whether(create) => create.then(CreateOptions::default),
            file::Create::How(how) => {
                let lifecycle_policy = how.lifecycle_policy.as_ref().and_then(|path| {
                    // Outside the repository it is no commit's, and on disk only.
                    let text = match self.prefix.join(path) {
                        Some(inside) => self.files.text(&inside),
                        None => std::fs::read_to_string(self.root.join(path)),
                    };
                    let text = text.map_err(|error| error.to_string());
                    let valid = text.and_then(|text| match serde_json::from_str::<serde_json::Value>(&text) {
                        Ok(_) => Ok(text),
                        Err(error) => Err(format!("it is no JSON: {error}")),
                    });
                    valid
                        .map_err(|why| {
                            let at = self.at(&["registry", "create", "lifecycle_policy"]);
                            self.problem(&at, format!("`{path}` cannot be used: {why}"), "name a file with the policy's JSON");
                        })
                        .ok()
                });
                Some(CreateOptions { immutable: how.immutable, scan_on_push: how.scan_on_push, lifecycle_policy })
            }
        }
    }

    /// Checks a repository with placeholders.
    pub(super) fn repository_template(&mut self, template: &str, at: &At<'_>) {
        let text = filled(template);
        if text.contains(['{', '}']) {
            self.problem(at, format!("`{template}` has an unknown placeholder"), "`{app}` and `{service}` are filled in");
        } else if template.split('/').next().is_some_and(|host| host.contains('{')) {
            self.problem(at, format!("`{template}` has a placeholder in its host"), "write the registry's host out");
        } else if let Err(error) = Repository::parse(&text) {
            self.problem(at, format!("`{template}` is not {}", error.expected), "leave the tag out: offbuild makes it");
        }
    }

    fn shared(&mut self) {
        let file = self.file;
        let at = self.at(&["shared"]);
        let mut graph = BTreeMap::new();
        for (name, set) in file.shared.iter() {
            if name.contains(['/', '*', '.']) {
                self.problem(&at.named(name), format!("`{name}` is no name for a set"), "leave out `/`, `*` and `.`: those make a path");
            }
            let references = sets::references(set).iter().map(String::as_str).filter(|word| file.shared.get(word).is_some());
            graph.insert(name, references.collect::<Vec<_>>());
            // Sets that no app uses are checked like the others.
            let only = [name.to_owned()];
            for leaf in sets::expand(file, &only).iter().filter(|leaf| leaf.set.is_some_and(|(set, _)| set == name)) {
                self.leaf_word(leaf, &at);
            }
        }
        for cycle in sets::cycles(&graph) {
            let message = format!("sets use each other: {}", sets::arrows(&cycle));
            self.problem(&at.named(cycle[0]), message, "take one of them out of the other");
        }
    }

    /// Where a leaf of a `uses` is written; `list` is the `uses` itself.
    pub(super) fn leaf_at(&self, leaf: &sets::Leaf<'_>, list: &At<'a>) -> At<'a> {
        match leaf.set {
            None => list.item(leaf.index),
            Some((set, keys)) => keys.iter().fold(self.at(&["shared", set]), |at, key| at.key(key)).item(leaf.index),
        }
    }

    /// Checks that a leaf is a path, or looks like one, or exists; `false` when it is a mistyped set.
    pub(super) fn leaf_word(&mut self, leaf: &sets::Leaf<'_>, list: &At<'a>) -> bool {
        let path = leaf.word.contains(['/', '*', '.', '?', '[', '{']);
        let paths_only = leaf.set.is_some_and(|(_, keys)| keys == ["paths"]);
        if !leaf.only_set
            && (path || paths_only || leaf.word.is_empty() || self.prefix.join(leaf.word).is_some_and(|path| self.files.exists(&path)))
        {
            return true;
        }
        if !self.damaged.contains("shared") {
            let help = known(leaf.word, self.file.shared.keys(), "there are no sets under `shared`; a path has a `/`, or exists");
            let what = if leaf.only_set { "no set" } else { "neither a set nor a path that exists" };
            self.problem(&self.leaf_at(leaf, list), format!("`{}` is {what}", leaf.word), help);
        }
        false
    }

    /// Patterns as written in a directory of the file's (`base`), relative to the repository.
    pub(super) fn patterns(&mut self, words: &[String], at: &At<'_>, base: &RepoPath, negate: bool) -> Vec<Pattern> {
        let patterns = words.iter().enumerate().map(|(index, word)| self.pattern(word, &at.item(index), base, negate));
        patterns.collect::<Vec<_>>().into_iter().flatten().collect()
    }

    /// One pattern; `base` is relative to the file's directory, and a leading `/` stands for that one.
    pub(super) fn pattern(&mut self, word: &str, at: &At<'_>, base: &RepoPath, negate: bool) -> Option<Pattern> {
        let (negated, glob) = match word.strip_prefix('!') {
            Some(glob) => (true, glob),
            None => (false, word),
        };
        if negated && !negate {
            self.problem(at, format!("`{word}` takes a path away, but this list only adds"), "put it into `ignore` without the `!`");
            return None;
        }
        if glob.is_empty() {
            // What was left out because it was wrong has been reported already.
            if !word.is_empty() || at.is_there() && self.problems.iter().all(|known| known.place != at.place()) {
                self.problem(at, "a pattern is empty", "name a path, or take it away");
            }
            return None;
        }
        let (base, glob) = match glob.strip_prefix('/') {
            Some(glob) => (RepoPath::default(), glob),
            None => (base.clone(), glob),
        };
        // What stands before the pattern is a name, not a glob.
        let directory = self.prefix.join(&base.to_string()).unwrap_or_default();
        let escaped =
            if directory.is_root() { RepoPath::default() } else { RepoPath::from(globset::escape(&directory.to_string()).as_str()) };
        let Some(joined) = escaped.join(glob) else {
            self.problem(at, format!("`{word}` leaves the repository"), "inputs are files of this repository");
            return None;
        };
        let joined = String::from_utf8_lossy(joined.as_bytes()).into_owned();
        if let Err(error) = crate::discovery::glob(&joined) {
            self.problem(at, error, "write a path, with `*` within and `**` across directories");
            return None;
        }
        Some(Pattern { glob: joined, negated, place: at.place() })
    }

    /// The limits as written, over those below them.
    pub(super) fn timeouts(&mut self, below: Timeouts, written: &file::Timeouts, at: &At<'_>) -> Timeouts {
        Timeouts {
            build: self.span(below.build, written.build.as_ref(), &at.key("build")),
            push: self.span(below.push, written.push.as_ref(), &at.key("push")),
            hook: self.span(below.hook, written.hook.as_ref(), &at.key("hook")),
            rack_build: self.span(below.rack_build, written.rack_build.as_ref(), &at.key("rack_build")),
            promote: self.span(below.promote, written.promote.as_ref(), &at.key("promote")),
        }
    }

    fn span(&mut self, below: Duration, written: Option<&Span>, at: &At<'_>) -> Duration {
        let Some(span) = written else { return below };
        span.duration().unwrap_or_else(|| {
            let help = "write hours, minutes and seconds, like `90s`, `30m` or `1h30m`";
            self.problem(at, format!("`{}` is no length of time", span.0), help);
            below
        })
    }
}

/// A repository with its placeholders filled in by words that are valid there.
fn filled(template: &str) -> String {
    template.replace("{app}", "app").replace("{service}", "service")
}

/// `auto`, a number of at least one, or a percentage.
fn valid_jobs(text: &str) -> bool {
    let number = text.strip_suffix('%').unwrap_or(text);
    text == "auto" || number.parse::<u32>().is_ok_and(|number| number > 0)
}
