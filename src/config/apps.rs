//! The apps: those found in directories and those written in the file, brought together and resolved.
//!
//! An entry's key is a directory's name or a path; with `path:` it is a name of its own. What an entry does not say comes from
//! `defaults`, what a rack's overlay says goes over both.

use super::file;
use super::nearest::known;
use super::resolve::{At, Loading};
use super::settings::{build_config, check_settings, hooks};
use super::{App, Discover, RackConfig, Timeouts, UsedPattern, digest, groups, sets, targets};
use crate::discovery::{self, DEFAULT_INCLUDE, Found};
use crate::names::{AppName, RackName, RepoPath};
use crate::registry::CreateOptions;
use crate::yaml::Place;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// An app before its settings are resolved.
pub(super) struct Draft<'a> {
    pub name: AppName,
    /// Relative to the repository.
    pub dir: RepoPath,
    pub found: Found,
    pub place: Place,
    /// Its entry and where that stands.
    pub entry: Option<(&'a file::App, At<'a>)>,
    /// The same entry with its variables as written.
    pub raw: Option<&'a file::App>,
}

/// What is the same for all apps.
pub(super) struct Common<'a> {
    pub repository: &'a Path,
    pub racks: &'a BTreeMap<RackName, RackConfig>,
    pub create: Option<&'a CreateOptions>,
    pub timeouts: Timeouts,
}

/// The apps in the order of the file, then those found besides by path.
pub(super) fn apps<'a>(
    loading: &mut Loading<'a>,
    repository: &Path,
    racks: &BTreeMap<RackName, RackConfig>,
    create: Option<&CreateOptions>,
) -> Vec<App> {
    let found = discover(loading);
    let drafts = drafts(loading, found);
    let at = loading.at(&["defaults"]);
    check_settings(loading, &loading.file.defaults.build, loading.file.defaults.repository.as_deref(), &at);
    let timeouts = loading.timeouts(Timeouts::default(), &loading.file.defaults.timeouts.phases(), &at.key("timeouts"));
    let common = Common { repository, racks, create, timeouts };
    targets::check_defaults(loading, &common);
    let written: BTreeSet<&str> = loading.file.apps.keys().collect();
    let names: BTreeSet<AppName> = drafts.iter().map(|draft| draft.name.clone()).collect();
    let mut apps: Vec<App> = drafts.iter().map(|draft| app(loading, &common, draft, &names, &written)).collect();
    groups::assign(loading, &drafts, &mut apps);
    order(loading, &drafts, &apps);
    targets::check(loading, &drafts, &apps);
    apps
}

/// Where the file, or the lack of one, lets apps be looked for.
pub(super) fn globs(file: &file::File) -> Discover {
    let written = file.discover.as_ref();
    let include = match written.and_then(|discover| discover.include.as_ref()) {
        Some(include) => include.clone(),
        None => DEFAULT_INCLUDE.iter().map(|glob| (*glob).to_owned()).collect(),
    };
    Discover { include, exclude: written.map(|discover| discover.exclude.clone()).unwrap_or_default() }
}

/// The directories that hold apps, with the place of the glob that names each.
fn discover(loading: &mut Loading<'_>) -> Vec<(Found, Option<Place>)> {
    let at = loading.at(&["discover"]);
    let Discover { include, exclude } = globs(loading.file);
    let before = loading.problems.len();
    for (key, globs) in [("include", &include), ("exclude", &exclude)] {
        for (index, glob) in globs.iter().enumerate() {
            let item = at.key(key).item(index);
            if glob.starts_with('/') || glob.split('/').any(|part| part == "..") {
                let help = "directories are looked for below the one of this file, and named from there";
                loading.problem(&item, format!("`{glob}` leaves the directory of this file"), help);
            } else if let Err(error) = discovery::glob(glob) {
                loading.problem(&item, error, "write a path, with `*` within and `**` across directories");
            }
        }
    }
    if loading.problems.len() > before {
        return Vec::new();
    }
    let found = match discovery::discover(loading.files, loading.prefix, &include, &exclude) {
        Ok(found) => found,
        Err(error) => {
            loading.problem(&at, error, "make it readable, or leave it out with `discover.exclude`");
            return Vec::new();
        }
    };
    // Only written globs have a place.
    let include = if at.key("include").is_there() { include } else { Vec::new() };
    let matchers: Vec<_> = include.iter().map(|glob| discovery::glob(glob).map(|glob| glob.compile_matcher())).collect();
    let by = |dir: &RepoPath| {
        let index = matchers.iter().position(|matcher| matcher.as_ref().is_ok_and(|matcher| matcher.is_match(dir.to_string())))?;
        Some(at.key("include").item(index).place())
    };
    found.into_iter().map(|found| (by(&found.dir), found)).map(|(place, found)| (found, place)).collect()
}

/// Brings found directories and written entries together.
fn drafts<'a>(loading: &mut Loading<'a>, found: Vec<(Found, Option<Place>)>) -> Vec<Draft<'a>> {
    let mut unclaimed: BTreeMap<RepoPath, (Found, Option<Place>)> = BTreeMap::new();
    let mut by_name: BTreeMap<String, Vec<RepoPath>> = BTreeMap::new();
    for (found, place) in found {
        let dir = loading.prefix.join(&found.dir.to_string()).unwrap_or_default();
        by_name.entry(dir.file_name()).or_default().push(dir.clone());
        unclaimed.insert(dir, (found, place));
    }
    let found_names: Vec<String> = by_name.keys().cloned().collect();
    let file = loading.file;
    let entries = loading.at(&["apps"]);
    let children = entries.children();
    let mut drafts: Vec<Draft<'a>> = Vec::new();
    let mut claimed: BTreeMap<RepoPath, (&str, usize)> = BTreeMap::new();
    for (index, (key, written)) in file.apps.iter().enumerate() {
        let at = children.get(key).unwrap_or(&entries).clone();
        let Some(dir) = directory(loading, key, written, &at, &by_name, &found_names) else {
            // Which of several was meant has been asked; that they share a name is the same question.
            if written.path.is_none() {
                by_name.get(key).into_iter().flatten().for_each(|dir| drop(unclaimed.remove(dir)));
            }
            continue;
        };
        let line = at.place().line;
        if let Some((other, line)) = claimed.insert(dir.clone(), (key, line)) {
            let message = format!("the directory `{dir}` is the app `{other}` already (line {line})");
            loading.problem(&at, message, "keep one of the two entries");
            continue;
        }
        let found = match unclaimed.remove(&dir) {
            Some((found, _)) => found,
            None => match manifest(loading, &dir, key, written, &at) {
                Some(found) => found,
                None => continue,
            },
        };
        match AppName::new(digest::name_of(key, written, &dir)) {
            Ok(name) => {
                let raw = loading.raw.apps.0.get(index).map(|(_, raw)| raw);
                drafts.push(Draft { name, dir, found, place: at.place(), entry: Some((written, at)), raw });
            }
            Err(error) => loading.problem(&at, error.to_string(), "give the entry a name as its key, and the directory as its `path`"),
        }
    }
    for (dir, (found, place)) in unclaimed {
        let place = place.unwrap_or_else(|| Place { file: format!("{dir}/{}", found.manifest), line: 1, column: 1 });
        match AppName::new(dir.file_name()) {
            Ok(name) => drafts.push(Draft { name, dir, found, place, entry: None, raw: None }),
            Err(error) => {
                let help = format!("leave it out with `discover.exclude`, or name it: `apps: {{NAME: {{path: {dir}}}}}`");
                loading.problem_at(place, format!("the directory `{dir}` cannot name an app: {error}"), help);
            }
        }
    }
    let mut names: BTreeMap<AppName, RepoPath> = BTreeMap::new();
    for draft in &drafts {
        if let Some(other) = names.insert(draft.name.clone(), draft.dir.clone()) {
            let message = format!("two apps are called `{}`: `{other}` and `{}`", draft.name, draft.dir);
            let help = format!("give one of them a name of its own: `apps: {{NAME: {{path: {}}}}}`", draft.dir);
            loading.problem_at(draft.place.clone(), message, help);
        }
    }
    drafts
}

/// The directory an entry means.
fn directory(
    loading: &mut Loading<'_>,
    key: &str,
    written: &file::App,
    at: &At<'_>,
    by_name: &BTreeMap<String, Vec<RepoPath>>,
    names: &[String],
) -> Option<RepoPath> {
    let path = written.path.as_deref().or(key.contains('/').then_some(key));
    if let Some(path) = path {
        let place = if written.path.is_some() { at.key("path") } else { at.clone() };
        let joined = loading.prefix.join(path);
        if joined.is_none() {
            loading.problem(&place, format!("`{path}` leaves the repository"), "an app is a directory of this repository");
        }
        return joined;
    }
    match by_name.get(key).map(Vec::as_slice) {
        Some([dir]) => Some(dir.clone()),
        Some(several) => {
            let dirs: Vec<String> = several.iter().map(|dir| format!("`{dir}`")).collect();
            let message = format!("`{key}` is the name of {} directories: {}", dirs.len(), dirs.join(" and "));
            loading.problem(at, message, "say which with `path`, and leave the others out or name them, too");
            None
        }
        None => {
            let help = known(key, names.iter().map(String::as_str), "no app was found; say where it is with `path`");
            loading.problem(at, format!("no app `{key}` was found"), help);
            None
        }
    }
}

/// The manifest of an entry that discovery did not find.
fn manifest(loading: &mut Loading<'_>, dir: &RepoPath, key: &str, written: &file::App, at: &At<'_>) -> Option<Found> {
    let place = if written.path.is_some() { at.key("path") } else { at.clone() };
    if !loading.files.is_dir(dir) {
        loading.problem(&place, format!("the directory `{dir}` of app `{key}` does not exist"), "correct it, or take the app away");
        return None;
    }
    if let Some(found) = discovery::probe(loading.files, &RepoPath::default(), dir) {
        return Some(found);
    }
    if written.manifest.is_some() {
        // Whether the file exists is checked with the other settings.
        let deploy = dir.join("deploy").is_some_and(|deploy| loading.files.is_dir(&deploy));
        return Some(Found { dir: dir.clone(), manifest: discovery::CONVOX_NAME, generation: 2, compose: None, deploy });
    }
    let help = "add a `convox.yml` or a `docker-compose.yml` with an image, or name the manifest with `manifest`";
    loading.problem(&place, format!("the directory `{dir}` of app `{key}` has no manifest"), help);
    None
}

fn app<'a>(loading: &mut Loading<'a>, common: &Common<'_>, draft: &Draft<'a>, names: &BTreeSet<AppName>, written: &BTreeSet<&str>) -> App {
    let file = loading.file;
    let nothing = file::App::default();
    let (entry, at) = match &draft.entry {
        Some((entry, at)) => (*entry, at.clone()),
        None => (&nothing, loading.at(&["apps", ""])),
    };
    check_settings(loading, &entry.build, entry.repository.as_deref(), &at);
    let timeouts = loading.timeouts(common.timeouts, &entry.timeouts, &at.key("timeouts"));
    let mut uses = Vec::new();
    for leaf in sets::expand(file, &entry.uses) {
        let list = at.key("uses");
        // Words inside sets are checked with the sets.
        if (leaf.set.is_none() && !loading.leaf_word(&leaf, &list)) || leaf.only_set {
            continue;
        }
        let place = loading.leaf_at(&leaf, &list);
        let known = loading.problems.len();
        if let Some(pattern) = loading.pattern(leaf.word, &place, &RepoPath::default(), false) {
            uses.push(UsedPattern { pattern, through: leaf.through });
        }
        // A bad pattern of a set is one problem, however many apps use it.
        if loading.problems.len() > known && loading.problems[..known].contains(&loading.problems[known]) {
            loading.problems.truncate(known);
        }
    }
    let mut after = Vec::new();
    for (index, other) in entry.after.iter().enumerate() {
        match AppName::new(other.as_str()).ok().filter(|name| names.contains(name)) {
            Some(name) => after.push(name),
            // An entry that is wrong in itself has its own problem.
            None if written.contains(other.as_str()) => {}
            None => {
                let help = known(other, names.iter().map(AppName::as_str), "there are no other apps");
                let message = format!("app `{}` comes after the unknown app `{other}`", draft.name);
                loading.problem(&at.key("after").item(index), message, help);
            }
        }
    }
    let inside = draft.dir.below(loading.prefix).map(RepoPath::from_git).unwrap_or_default();
    let ignore = loading.patterns(&entry.ignore, &at.key("ignore"), &inside, true);
    let (manifest, generation) = match &entry.manifest {
        Some(manifest) => {
            existing(loading, draft, manifest, &at.key("manifest"));
            (manifest.clone(), if manifest.contains("compose") { 1 } else { 2 })
        }
        None => (draft.found.manifest.to_owned(), draft.found.generation),
    };
    let defaults = &file.defaults;
    let repository = entry.repository.as_ref().or(defaults.repository.as_ref()).or(file.registry.repository.as_ref()).cloned();
    let compose = match &entry.compose {
        Some(compose) => {
            existing(loading, draft, compose, &at.key("compose"));
            if generation == 1 {
                let help = "take it away, or name a `convox.yml` as `manifest`";
                loading.problem(&at.key("compose"), format!("the manifest of app `{}` is a compose file itself", draft.name), help);
            }
            Some(compose.clone())
        }
        // As the seed script did: with no repository configured, the compose file beside `convox.yml` names it.
        None if repository.is_none() && generation == 2 => draft.found.compose.map(str::to_owned),
        None => None,
    };
    let immutable = common.create.is_some_and(|create| create.immutable);
    App {
        targets: targets::targets(loading, common, draft, entry, &at, timeouts),
        hooks: hooks(loading, draft, &defaults.hooks, &entry.hooks, &at),
        repeatable: entry.hooks.repeatable.iter().chain(&defaults.hooks.repeatable).take(1).flatten().map(|hook| hook.kind()).collect(),
        build: build_config(&defaults.build, &entry.build, &draft.dir.under(common.repository), timeouts),
        digest: digest::digest(loading.raw, draft.raw, &draft.dir),
        name: draft.name.clone(),
        dir: draft.dir.clone(),
        place: draft.place.clone(),
        uses,
        after,
        group: None,
        ignore,
        manifest,
        generation,
        compose,
        tags: entry.tags.iter().cloned().collect(),
        repository,
        create: common.create.cloned(),
        // A tag that moves cannot live in a repository of tags that do not.
        latest: entry.latest.or(defaults.latest).unwrap_or(!immutable),
        precision: entry.precision.or(defaults.precision).unwrap_or_default(),
    }
}

/// Checks that a file an app names is there.
pub(super) fn existing(loading: &mut Loading<'_>, draft: &Draft<'_>, file: &str, at: &At<'_>) -> bool {
    match draft.dir.join(file) {
        None => loading.problem(at, format!("`{file}` leaves the repository"), "name a file of the app's directory"),
        Some(path) if loading.files.is_file(&path) => return true,
        Some(path) => {
            let message = format!("the file `{path}` that app `{}` names does not exist", draft.name);
            loading.problem(at, message, "it is looked for in the app's directory; correct the name, or add the file");
        }
    }
    false
}

/// Cycles in the order of apps.
fn order(loading: &mut Loading<'_>, drafts: &[Draft<'_>], apps: &[App]) {
    let graph = apps.iter().map(|app| (app.name.as_str(), app.after.iter().map(AppName::as_str).collect::<Vec<_>>())).collect();
    for cycle in sets::cycles(&graph) {
        let first = drafts.iter().find(|draft| draft.name.as_str() == cycle[0]).and_then(|draft| draft.entry.as_ref());
        if let Some((_, at)) = first {
            loading.problem(&at.key("after"), format!("apps come after each other: {}", sets::arrows(&cycle)), "take one `after` away");
        }
    }
}
