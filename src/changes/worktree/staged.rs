//! What is staged: HEAD's tree against the index. Where the index knows which tree a directory would be committed as, equal
//! directories are passed over without a look at their entries.

use super::index::{Cached, Index};
use crate::changes::ChangeKind;
use crate::names::RepoPath;
use git2::{Oid, Repository};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Range;

/// Git's mode of a directory.
const DIRECTORY: u32 = 0o040_000;

/// The paths that differ between HEAD and the index; `None` when HEAD cannot be read.
pub(super) fn staged(repo: &Repository, head: Option<Oid>, index: &Index) -> Option<BTreeMap<RepoPath, ChangeKind>> {
    if head.is_some() && index.tree() == head {
        return Some(BTreeMap::new());
    }
    let mut comparing = Comparing { repo, index, found: BTreeMap::new() };
    comparing.directory(head, index.cached().as_ref(), b"", index.all())?;
    Some(comparing.found)
}

struct Comparing<'a> {
    repo: &'a Repository,
    index: &'a Index,
    found: BTreeMap<RepoPath, ChangeKind>,
}

/// What is at a name: in HEAD mode and id, in the index the places it takes.
struct Child<T> {
    /// With a slash at its end when it is a directory, which is how git sorts.
    name: Vec<u8>,
    what: T,
}

impl Comparing<'_> {
    /// Compares the directory `prefix` (empty, or with a slash at its end): `tree` in HEAD, `range` in the index.
    fn directory(&mut self, tree: Option<Oid>, cached: Option<&Cached<'_>>, prefix: &[u8], range: Range<usize>) -> Option<()> {
        let known = cached.and_then(|cached| cached.tree).filter(|(_, count)| *count == range.len());
        if tree.is_some() && known.map(|(id, _)| id) == tree {
            return Some(());
        }
        let mut old = self.committed(tree)?.into_iter().peekable();
        let mut at = range.start;
        loop {
            let new = self.indexed(prefix, at..range.end);
            let order = match (old.peek(), &new) {
                (None, None) => return Some(()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(old), Some(new)) => old.name.as_slice().cmp(new.name.as_slice()),
            };
            let old = if order.is_le() { old.next() } else { None };
            let new = new.filter(|_| order.is_ge());
            let Some(name) = old.as_ref().map(|old| &old.name).or(new.as_ref().map(|new| &new.name)) else { return Some(()) };
            let path = [prefix, name].concat();
            let places = new.as_ref().map_or(at..at, |new| new.what.clone());
            at = places.end;
            if name.ends_with(b"/") {
                let below = cached.and_then(|cached| cached.child(&name[..name.len() - 1]));
                self.directory(old.map(|old| old.what.1), below, &path, places)?;
                continue;
            }
            let entry = new.map(|new| self.index.entry(new.what.start));
            let old = old.map(|old| old.what);
            if old.is_some_and(|(mode, id)| entry.is_some_and(|entry| entry.mode() == mode && entry.id() == id.as_bytes())) {
                continue;
            }
            let kind = match (old, entry) {
                (Some(_), Some(_)) => ChangeKind::Modified,
                (Some(_), None) => ChangeKind::Deleted,
                (None, _) => ChangeKind::Added,
            };
            self.found.insert(RepoPath::from_git(path), kind);
        }
    }

    /// What a tree holds, in git's order.
    fn committed(&self, tree: Option<Oid>) -> Option<Vec<Child<(u32, Oid)>>> {
        let Some(tree) = tree else { return Some(Vec::new()) };
        let tree = self.repo.find_tree(tree).ok()?;
        let children = tree.iter().map(|entry| {
            let mode = u32::try_from(entry.filemode()).unwrap_or_default();
            let mut name = entry.name_bytes().to_vec();
            if mode == DIRECTORY {
                name.push(b'/');
            }
            Child { name, what: (mode, entry.id()) }
        });
        Some(children.collect())
    }

    /// What the first entry of a range is, seen from the directory `prefix`.
    fn indexed(&self, prefix: &[u8], range: Range<usize>) -> Option<Child<Range<usize>>> {
        if range.is_empty() {
            return None;
        }
        let path = self.index.path(range.start);
        let name = path.get(prefix.len()..)?;
        let Some(slash) = name.iter().position(|byte| *byte == b'/') else {
            return Some(Child { name: name.to_vec(), what: range.start..range.start + 1 });
        };
        let end = self.index.end_of(&path[..=prefix.len() + slash], range.clone());
        Some(Child { name: name[..=slash].to_vec(), what: range.start..end })
    }
}
