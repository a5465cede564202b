//! Walking and comparing the trees of commits; a subtree that is equal on both sides is never opened.

use super::git::failed;
use super::{Change, ChangeKind, TreeEntry};
use crate::error::Result;
use crate::names::RepoPath;
use git2::{ObjectType, Oid, Repository, Tree};
use std::cmp::Ordering;

/// An entry of one tree.
pub(super) struct Entry {
    pub(super) kind: ObjectType,
    pub(super) mode: u32,
    pub(super) id: Oid,
}

impl Entry {
    fn of(entry: &git2::TreeEntry<'_>) -> Self {
        let mode = u32::try_from(entry.filemode()).unwrap_or_default();
        // A submodule's commit is not in this repository: its kind is told by the mode alone.
        let kind = match mode & 0o170_000 {
            0o040_000 => ObjectType::Tree,
            0o160_000 => ObjectType::Commit,
            _ => ObjectType::Blob,
        };
        Self { kind, mode, id: entry.id() }
    }

    fn is_tree(&self) -> bool {
        self.kind == ObjectType::Tree
    }
}

/// The paths that differ between two trees, sorted. A rename is two.
pub(super) fn differences(repo: &Repository, old: &Tree<'_>, new: &Tree<'_>) -> Result<Vec<Change>> {
    let mut found = Vec::new();
    if old.id() != new.id() {
        compare(repo, old, new, &mut Vec::new(), &mut found)?;
    }
    found.sort();
    Ok(found)
}

fn compare(repo: &Repository, old: &Tree<'_>, new: &Tree<'_>, path: &mut Vec<u8>, found: &mut Vec<Change>) -> Result<()> {
    let (mut left, mut right) = (old.iter().peekable(), new.iter().peekable());
    loop {
        let order = match (left.peek(), right.peek()) {
            (None, None) => return Ok(()),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(one), Some(two)) => git_order(one, two),
        };
        let one = if order.is_le() { left.next() } else { None };
        let two = if order.is_ge() { right.next() } else { None };
        let Some(name) = one.as_ref().or(two.as_ref()) else { return Ok(()) };
        let length = enter(path, name.name_bytes());
        match (one.as_ref().map(Entry::of), two.as_ref().map(Entry::of)) {
            (Some(one), Some(two)) if one.id == two.id && one.mode == two.mode => {}
            (Some(one), Some(two)) if one.is_tree() && two.is_tree() => {
                compare(repo, &subtree(repo, one.id, path)?, &subtree(repo, two.id, path)?, path, found)?;
            }
            // Only entries of one kind sort alike, so neither is a tree here.
            (Some(_), Some(_)) => found.push(change(path, ChangeKind::Modified)),
            (Some(one), None) => every(repo, &one, path, &mut |path, _| found.push(change(path, ChangeKind::Deleted)))?,
            (None, Some(two)) => every(repo, &two, path, &mut |path, _| found.push(change(path, ChangeKind::Added)))?,
            (None, None) => {}
        }
        path.truncate(length);
    }
}

/// The entry at `path`; the root has none.
pub(super) fn entry(repo: &Repository, root: &Tree<'_>, path: &RepoPath) -> Result<Option<Entry>> {
    let mut current = Entry { kind: ObjectType::Tree, mode: 0o040_000, id: root.id() };
    for part in path.parts() {
        if !current.is_tree() {
            return Ok(None);
        }
        let tree = subtree(repo, current.id, path.as_bytes())?;
        let Some(next) = tree.get_name_bytes(part) else { return Ok(None) };
        current = Entry::of(&next);
    }
    Ok(Some(current))
}

/// The files below `dir`, or the file `dir` itself, sorted.
pub(super) fn files(repo: &Repository, root: &Tree<'_>, dir: &RepoPath) -> Result<Vec<TreeEntry>> {
    let mut found = Vec::new();
    if let Some(start) = entry(repo, root, dir)? {
        every(repo, &start, &mut dir.as_bytes().to_vec(), &mut |path, entry| {
            found.push(TreeEntry { path: RepoPath::from_git(path), mode: entry.mode, id: entry.id.to_string() });
        })?;
    }
    found.sort();
    Ok(found)
}

/// What a tree holds; the paths are names.
pub(super) fn entries(tree: &Tree<'_>) -> Vec<TreeEntry> {
    let entry = |entry: git2::TreeEntry<'_>| TreeEntry {
        path: RepoPath::from_git(entry.name_bytes()),
        mode: u32::try_from(entry.filemode()).unwrap_or_default(),
        id: entry.id().to_string(),
    };
    tree.iter().map(entry).collect()
}

/// Calls `seen` for the entry at `path`, or for everything below it when it is a tree.
fn every(repo: &Repository, entry: &Entry, path: &mut Vec<u8>, seen: &mut dyn FnMut(&[u8], &Entry)) -> Result<()> {
    if !entry.is_tree() {
        seen(path, entry);
        return Ok(());
    }
    for child in subtree(repo, entry.id, path)?.iter() {
        let length = enter(path, child.name_bytes());
        every(repo, &Entry::of(&child), path, seen)?;
        path.truncate(length);
    }
    Ok(())
}

fn subtree<'repo>(repo: &'repo Repository, id: Oid, path: &[u8]) -> Result<Tree<'repo>> {
    repo.find_tree(id).map_err(|error| failed(format!("the tree of `{}` cannot be read", RepoPath::from_git(path)), &error))
}

/// Adds a name to a path and tells how long the path was.
fn enter(path: &mut Vec<u8>, name: &[u8]) -> usize {
    let length = path.len();
    if length > 0 {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    length
}

/// Git sorts a directory as if its name ended in a slash.
fn git_order(one: &git2::TreeEntry<'_>, two: &git2::TreeEntry<'_>) -> Ordering {
    fn key<'a>(entry: &'a git2::TreeEntry<'_>) -> impl Iterator<Item = u8> + use<'a> {
        let slash = (entry.filemode() & 0o170_000 == 0o040_000).then_some(b'/');
        entry.name_bytes().iter().copied().chain(slash)
    }
    key(one).cmp(key(two))
}

fn change(path: &[u8], kind: ChangeKind) -> Change {
    Change { path: RepoPath::from_git(path), kind, dirty: false }
}
