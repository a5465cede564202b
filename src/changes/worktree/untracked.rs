//! What the index does not know, down to its files, without what is ignored. libgit2 knows which that is; an ignored directory
//! is not entered.

use super::walk::Listing;
use crate::names::RepoPath;
use git2::Repository;
use rustix::fs::{AtFlags, statat};
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Adds the untracked files at `path`, where a directory ends in a slash, to `found`. A repository of its own is one path.
/// `None` when libgit2 cannot tell what is ignored.
pub(super) fn untracked(repo: &Repository, root: &OwnedFd, path: &[u8], found: &mut Vec<RepoPath>) -> Option<()> {
    if repo.is_path_ignored(Path::new(OsStr::from_bytes(path))).ok()? {
        return Some(());
    }
    if !path.ends_with(b"/") {
        found.push(RepoPath::from_git(path));
        return Some(());
    }
    let Some((_, listing)) = Listing::of(root, path) else {
        // What is gone meanwhile holds nothing; what cannot be entered may hold anything.
        if statat(root, path, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
            found.push(RepoPath::from_git(path));
        }
        return Some(());
    };
    let mut inside = Vec::new();
    let into = if listing.is_repository { &mut inside } else { &mut *found };
    for listed in listing.iter().filter(|listed| !listed.odd) {
        untracked(repo, root, &[path, listed.name].concat(), into)?;
        if listing.is_repository && !into.is_empty() {
            break;
        }
    }
    // One that holds nothing git would keep is none, as an empty directory is none.
    if !inside.is_empty() {
        found.push(RepoPath::from_git(path));
    }
    Some(())
}
