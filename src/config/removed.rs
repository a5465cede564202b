//! Apps of an earlier version of the configuration that are gone now.

use super::digest::Entries;
use super::{Config, Discover, apps, digest, file, targets};
use crate::discovery;
use crate::error::Result;
use crate::files::Files;
use crate::names::{AppName, RackName, RepoPath};
use globset::GlobMatcher;
use std::collections::{BTreeMap, BTreeSet};

/// An app that is gone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Removed {
    /// Its name.
    pub name: AppName,
    /// The directory it had.
    pub dir: RepoPath,
    /// The racks it went to. What is there stays there.
    pub racks: Vec<RackName>,
}

/// The apps that another version of the file had and this one has not, by name.
///
/// `emptied` are the directories that held a manifest then and do not now. An app that goes on under its name in another
/// directory has moved and is not gone. A text that cannot be read is an error.
pub fn removed(config: &Config, files: &dyn Files, text: &str, emptied: &BTreeSet<RepoPath>) -> Result<Vec<Removed>> {
    let file = &digest::read(config, text)?;
    let mut gone = BTreeMap::new();
    let mut add = |dir: RepoPath, name: String, entry: Option<&file::App>| {
        let known = config.apps.iter().any(|app| app.dir == dir || app.name.as_str() == name);
        let Ok(name) = AppName::new(name) else { return };
        if !known {
            let racks = targets::racks_of(file, entry).into_iter().filter_map(|(rack, _)| RackName::new(rack).ok()).collect();
            gone.entry(name.clone()).or_insert(Removed { name, dir, racks });
        }
    };
    let entries = Entries::new(file, &config.prefix);
    for (dir, key, entry) in entries.with_directory() {
        add(dir.clone(), digest::name_of(key, entry, dir), Some(entry));
    }
    let globs = Globs::of(file);
    let mut found: BTreeSet<RepoPath> = emptied.iter().filter(|dir| globs.find(dir, &config.prefix)).cloned().collect();
    if text != config.text {
        // What is still there, and is no longer looked for.
        let still = discovery::discover(files, &config.prefix, &globs.written, &globs.written_exclude).unwrap_or_default();
        found.extend(still.into_iter().filter_map(|found| config.prefix.join(&found.dir.to_string())));
    }
    for dir in found {
        let name = dir.file_name();
        let entry = entries.named(&name);
        add(dir, name, entry);
    }
    Ok(gone.into_values().collect())
}

/// The directories where another version of the file had an app and there is none now, whether it is gone or has moved.
pub fn left(config: &Config, text: &str, emptied: &BTreeSet<RepoPath>) -> Result<BTreeSet<RepoPath>> {
    let file = digest::read(config, text)?;
    let globs = Globs::of(&file);
    let found = emptied.iter().filter(|dir| globs.find(dir, &config.prefix));
    let entries = Entries::new(&file, &config.prefix);
    let dirs = entries.with_directory().map(|(dir, _, _)| dir).chain(found);
    Ok(dirs.filter(|dir| config.apps.iter().all(|app| app.dir != **dir)).cloned().collect())
}

/// Where apps were looked for.
pub(super) struct Globs {
    written: Vec<String>,
    written_exclude: Vec<String>,
    include: Vec<GlobMatcher>,
    exclude: Vec<GlobMatcher>,
}

impl Globs {
    pub(super) fn of(file: &file::File) -> Self {
        let Discover { include: written, exclude: written_exclude } = apps::globs(file);
        let compile = |globs: &[String]| {
            globs.iter().filter_map(|glob| discovery::glob(glob).ok()).map(|glob| glob.compile_matcher()).collect::<Vec<_>>()
        };
        Self { include: compile(&written), exclude: compile(&written_exclude), written, written_exclude }
    }

    /// True when a directory of the repository was looked at.
    pub(super) fn find(&self, dir: &RepoPath, prefix: &RepoPath) -> bool {
        let Some(inside) = dir.below(prefix).map(RepoPath::from_git) else { return false };
        let excluded = || std::iter::successors(Some(inside.clone()), |dir| (!dir.is_root()).then(|| dir.parent()));
        self.include.iter().any(|glob| glob.is_match(inside.to_string()))
            && !excluded().any(|dir| self.exclude.iter().any(|glob| glob.is_match(dir.to_string())))
    }
}
