//! A digest over what the file says about an app, as far as it decides what is deployed.
//!
//! It is taken of the text as written, variables not filled in: a build number in an argument must not make every run a
//! change. How much an app weighs, how long it may take, how it is selected and in which order it comes is left out, and so
//! are the patterns of `global` and `ignore`, which are applied to the whole difference anyway. A rack added to an app is a
//! new target and no change for the others: of a rack only what differs there counts.

use super::check::{Variables, check};
use super::file::{self, AppNames, File};
use super::removed::Globs;
use super::settings::over;
use super::{App, Config, load, sets, targets};
use crate::error::Result;
use crate::names::{RackName, RepoPath, Target};
use crate::rack::Deliver;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

#[derive(Serialize)]
struct Decisive<'f> {
    dir: String,
    manifest: Option<&'f str>,
    compose: Option<&'f str>,
    repository: Option<&'f str>,
    name: Option<&'f str>,
    args: BTreeMap<&'f String, &'f str>,
    secrets: BTreeMap<&'f String, &'f file::SecretFrom>,
    ssh: BTreeMap<&'f String, &'f String>,
    platform: Option<&'f str>,
    pull: Option<bool>,
    hooks: BTreeMap<&'static str, &'f file::Hook>,
    uses: Vec<&'f str>,
    ignore: &'f [String],
    deliver: Option<Deliver>,
    revision: Option<bool>,
    racks: BTreeMap<&'f str, OnRack<'f>>,
}

#[derive(Serialize, PartialEq, Default)]
struct OnRack<'f> {
    name: Option<&'f str>,
    env: Option<&'f str>,
    deliver: Option<Deliver>,
    revision: Option<bool>,
}

/// The digest of an app; `raw` is the file with its variables as written.
pub(super) fn digest(raw: &File, entry: Option<&file::App>, dir: &RepoPath) -> String {
    let nothing = file::App::default();
    let app = entry.unwrap_or(&nothing);
    let defaults = &raw.defaults;
    let mut uses: Vec<&str> = sets::expand(raw, &app.uses).iter().map(|leaf| leaf.word).collect();
    uses.sort_unstable();
    let none = file::Overlay::default();
    let racks = targets::racks_of(raw, entry).into_iter().map(|(rack, overlay)| {
        let overlay = overlay.unwrap_or(&none);
        let general = raw.racks.get(rack);
        let on = OnRack {
            name: match &app.name {
                Some(AppNames::Same(_)) | None => overlay.name.as_deref(),
                Some(AppNames::ByRack(_)) => targets::name(app, rack, overlay),
            },
            env: overlay.env.as_deref().or(general.and_then(|general| general.env.as_deref())),
            deliver: overlay.deliver.or(general.and_then(|general| general.deliver)),
            revision: overlay.revision,
        };
        (rack, on)
    });
    let decisive = Decisive {
        dir: dir.to_string(),
        manifest: app.manifest.as_deref(),
        compose: app.compose.as_deref(),
        repository: app.repository.as_ref().or(defaults.repository.as_ref()).or(raw.registry.repository.as_ref()).map(String::as_str),
        name: match &app.name {
            Some(AppNames::Same(name)) => Some(name),
            _ => None,
        },
        args: over(&defaults.build.args, &app.build.args).map(|(key, value)| (key, value.0.as_str())).collect(),
        secrets: over(&defaults.build.secrets, &app.build.secrets).collect(),
        ssh: over(&defaults.build.ssh, &app.build.ssh).collect(),
        platform: app.build.platform.as_deref().or(defaults.build.platform.as_deref()),
        pull: app.build.pull.or(defaults.build.pull),
        hooks: super::HookKind::ALL
            .into_iter()
            .filter_map(|kind| Some((kind.name(), app.hooks.get(kind).or(defaults.hooks.get(kind))?)))
            .collect(),
        uses,
        ignore: &app.ignore,
        deliver: app.deliver.or(defaults.deliver),
        revision: app.revision.or(defaults.revision),
        racks: racks.filter(|(_, on)| *on != OnRack::default()).collect(),
    };
    // The types hold nothing that JSON cannot: strings, lists and maps with string keys.
    let json = serde_json::to_vec(&decisive).unwrap_or_default();
    hex::encode(Sha256::digest(json))
}

/// The digests that another version of the file gives to the targets of this one: one whose digest differs has changed, and one
/// that has none is new. An app of another name or directory is another app, whatever else is said of it.
///
/// A text that cannot be read, or has problems of shape, is an error: whoever asks then has to take every app as changed.
pub fn digests(config: &Config, text: &str) -> Result<BTreeMap<Target, String>> {
    let file = &read(config, text)?;
    let entries = Entries::new(file, &config.prefix);
    let globs = Globs::of(file);
    let mut digests = BTreeMap::new();
    for app in &config.apps {
        let found = || app.name.as_str() == app.dir.file_name() && globs.find(&app.dir, &config.prefix);
        let was_one = entries.by_dir.get(&app.dir).map_or_else(found, |(key, entry)| app.name.as_str() == name_of(key, entry, &app.dir));
        if !was_one {
            continue;
        }
        let entry = entries.of(app).map(|(_, entry)| entry);
        let digest = digest(file, entry, &app.dir);
        let racks = targets::racks_of(file, entry).into_iter().filter_map(|(rack, _)| RackName::new(rack).ok());
        digests.extend(racks.map(|rack| (Target { app: app.name.clone(), rack }, digest.clone())));
    }
    Ok(digests)
}

/// Another version of the file.
pub(super) fn read(config: &Config, text: &str) -> Result<File> {
    let name = config.file.as_ref().map(ToString::to_string).unwrap_or_else(|| load::FILE_NAME.to_owned());
    let checked = check(&load::parse(&name, text)?, Variables::Keep);
    if checked.problems.is_empty() { Ok(checked.file) } else { Err(load::report(checked.problems, text, &name)) }
}

/// The name that an entry gives to an app in a directory.
pub(super) fn name_of(key: &str, entry: &file::App, dir: &RepoPath) -> String {
    if entry.path.is_some() || !key.contains('/') { key.to_owned() } else { dir.file_name() }
}

/// The entries of a file by what they mean.
pub(super) struct Entries<'f> {
    by_dir: BTreeMap<RepoPath, (&'f str, &'f file::App)>,
    by_name: BTreeMap<&'f str, &'f file::App>,
}

impl<'f> Entries<'f> {
    pub(super) fn new(file: &'f File, prefix: &RepoPath) -> Self {
        let mut entries = Self { by_dir: BTreeMap::new(), by_name: BTreeMap::new() };
        for (key, entry) in file.apps.iter() {
            let path = entry.path.as_deref().or(key.contains('/').then_some(key));
            match path.map(|path| prefix.join(path)) {
                Some(Some(dir)) => drop(entries.by_dir.insert(dir, (key, entry))),
                Some(None) => {}
                None => drop(entries.by_name.insert(key, entry)),
            }
        }
        entries
    }

    /// The entries that name their directory: the directory, the key and the entry.
    pub(super) fn with_directory(&self) -> impl Iterator<Item = (&RepoPath, &'f str, &'f file::App)> {
        self.by_dir.iter().map(|(dir, (key, entry))| (dir, *key, *entry))
    }

    /// The entry that names an app and no directory.
    pub(super) fn named(&self, name: &str) -> Option<&'f file::App> {
        self.by_name.get(name).copied()
    }

    /// The key and the entry of an app.
    pub(super) fn of(&self, app: &App) -> Option<(&'f str, &'f file::App)> {
        let by_name = || self.by_name.get_key_value(app.dir.file_name().as_str()).map(|(key, entry)| (*key, *entry));
        self.by_dir.get(&app.dir).copied().or_else(by_name)
    }
}
