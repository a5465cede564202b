//! What the index does not know, down to its files, without what is ignored; an ignored directory is not entered.

use super::ignore::Ignores;
use super::walk::Listing;
use super::{SUBMODULE, is_repository};
use crate::names::RepoPath;
use git2::Index;
use rustix::fs::{AtFlags, statat};
use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::Path;

/// Finds what is untracked.
pub(super) struct Untracked<'a> {
    root: &'a OwnedFd,
    /// The same by its path.
    path: &'a Path,
    ignores: Ignores<'a>,
    /// What was found.
    pub(super) found: Vec<RepoPath>,
}

impl<'a> Untracked<'a> {
    /// Finds what is untracked below `root`, which is at `path`.
    pub(super) fn new(root: &'a OwnedFd, path: &'a Path, ignores: Ignores<'a>) -> Self {
        Self { root, path, ignores, found: Vec::new() }
    }

    /// Adds the files at `path`, where a directory ends in a slash and holds nothing that is tracked. A repository of its own is
    /// one path.
    pub(super) fn add(&mut self, path: &[u8]) {
        if self.ignores.is_ignored(path) {
            return;
        }
        let is_whole = !path.ends_with(b"/") || is_repository(&RepoPath::from_git(path).under(self.path));
        let Some((_, listing)) = (!is_whole).then(|| Listing::of(self.root, path)).flatten() else {
            // What is gone meanwhile holds nothing; what cannot be entered may hold anything.
            if is_whole || statat(self.root, path, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
                self.found.push(RepoPath::from_git(path));
            }
            return;
        };
        for listed in listing.iter().filter(|listed| !listed.odd) {
            self.add(&[path, listed.name].concat());
        }
    }

    /// Adds what lies beside what is `tracked` in the directory `prefix` (empty, or with a slash at its end), and below.
    pub(super) fn add_beside(&mut self, tracked: &Tracked, prefix: &[u8]) {
        let Some((_, listing)) = Listing::of(self.root, prefix) else {
            // As above: what is in it that is not tracked cannot be seen.
            self.found.push(RepoPath::from_git(prefix));
            return;
        };
        for listed in listing.iter() {
            let path = [prefix, listed.name].concat();
            match tracked.at(&path) {
                // A pipe in a file's place: libgit2 sees nothing there.
                Some(Kind::File) if listed.odd => self.found.push(RepoPath::from_git(path)),
                Some(Kind::Directory) => self.add_beside(tracked, &path),
                None if !listed.odd => self.add(&path),
                _ => {}
            }
        }
    }
}

/// What libgit2's index knows, by path: where its entries are not what the walk understands.
pub(super) struct Tracked {
    files: HashSet<Vec<u8>>,
    /// With a slash at their ends; a submodule's is none.
    directories: HashSet<Vec<u8>>,
    fold: bool,
}

enum Kind {
    /// A file or link, or a submodule.
    File,
    /// It holds some.
    Directory,
}

impl Tracked {
    /// What `index` knows, with `A` as `a` where the file system takes it so.
    pub(super) fn new(index: &Index, fold: bool) -> Self {
        let mut tracked = Self { files: HashSet::new(), directories: HashSet::new(), fold };
        for entry in index.iter() {
            let mut path = tracked.folded(&entry.path);
            if entry.mode == SUBMODULE {
                path.push(b'/');
            }
            for slash in (0..path.len() - 1).rev().filter(|place| path[*place] == b'/') {
                if !tracked.directories.insert(path[..=slash].to_vec()) {
                    break;
                }
            }
            tracked.files.insert(path);
        }
        tracked
    }

    /// What is known of a path, a directory's with a slash at its end.
    fn at(&self, path: &[u8]) -> Option<Kind> {
        let path = self.folded(path);
        if self.files.contains(&path) {
            return Some(Kind::File);
        }
        self.directories.contains(&path).then_some(Kind::Directory)
    }

    fn folded(&self, path: &[u8]) -> Vec<u8> {
        if self.fold { path.to_ascii_lowercase() } else { path.to_vec() }
    }
}
