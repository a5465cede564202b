//! A commit's files, read from tree objects: nothing is checked out, and only what is asked for is read.
//!
//! What was asked is kept ([`Asked`]): an answer derived from these files stays right for another commit, or for the work tree,
//! as long as nothing differs there that was asked for.

use super::{Change, History};
use crate::files::{Files, Kind, Listed, MOST_LINKS, OnDisk};
use crate::names::{CommitId, RepoPath};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

const FORMAT: u32 = 0o170_000;
const DIR: u32 = 0o040_000;
const LINK: u32 = 0o120_000;
const SUBMODULE: u32 = 0o160_000;

/// A commit's files.
pub struct InCommit {
    history: Arc<dyn History>,
    commit: CommitId,
    /// Directories that were read, by path.
    dirs: Mutex<HashMap<RepoPath, Arc<Dir>>>,
    asked: Mutex<Asked>,
    incomplete: AtomicBool,
}

type Dir = HashMap<Vec<u8>, Node>;

#[derive(Clone)]
struct Node {
    mode: u32,
    id: String,
}

impl Node {
    fn seen(&self) -> Seen {
        if self.mode & FORMAT == DIR { Seen::Dir } else { Seen::File { executable: self.mode & 0o111 != 0 } }
    }
}

/// The paths that were asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// What was there, links not followed (a link leads to another path that was asked for).
    seen: BTreeMap<RepoPath, Seen>,
    /// The names of directories and links in the directories that were listed.
    listed: BTreeMap<RepoPath, BTreeSet<RepoPath>>,
}

/// [`Asked`] as it is kept in a file: paths need not be text.
pub(super) type Kept = (Vec<(Vec<u8>, Seen)>, Vec<(Vec<u8>, Vec<Vec<u8>>)>);

/// What was at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Seen {
    Nothing,
    Dir,
    /// A file that was not read.
    File {
        executable: bool,
    },
    /// A link: the start of the SHA-256 of where it leads.
    Link([u8; 16]),
    /// A file that was read: the start of its SHA-256.
    Content([u8; 16]),
}

impl InCommit {
    /// The files of a commit of this repository.
    pub fn new(history: Arc<dyn History>, commit: CommitId) -> Self {
        Self { history, commit, dirs: Mutex::default(), asked: Mutex::default(), incomplete: AtomicBool::new(false) }
    }

    /// The paths that were asked for so far; `None` when one lies in a submodule, whose commits are another repository's.
    pub fn asked(&self) -> Option<Asked> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (!self.incomplete.load(Ordering::Relaxed)).then_some(asked)
    }

    fn note(&self, path: &RepoPath, seen: Seen) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).seen.entry(path.clone()).or_insert(seen);
    }

    fn dir(&self, path: &RepoPath, id: &str) -> io::Result<Arc<Dir>> {
        let known = || self.dirs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(dir) = known().get(path) {
            return Ok(Arc::clone(dir));
        }
        let entries = self.history.tree(id).map_err(io::Error::other)?;
        let dir: Dir = entries.into_iter().map(|entry| (entry.path.as_bytes().to_vec(), Node { mode: entry.mode, id: entry.id })).collect();
        Ok(Arc::clone(known().entry(path.clone()).or_insert(Arc::new(dir))))
    }

    /// What is at a path, the links on the way followed and the last one if `follow`; with the path it really has.
    fn find(&self, path: &RepoPath, follow: bool, links: usize) -> io::Result<Option<(RepoPath, Node)>> {
        let mut at = (RepoPath::default(), Node { mode: DIR, id: self.commit.to_string() });
        let parts: Vec<&[u8]> = path.parts().collect();
        for (index, part) in parts.iter().enumerate() {
            match at.1.mode & FORMAT {
                DIR => {}
                SUBMODULE => {
                    self.incomplete.store(true, Ordering::Relaxed);
                    return Ok(None);
                }
                _ => {
                    self.note(&at.0, at.1.seen());
                    return Ok(None);
                }
            }
            let mut full = at.0.as_bytes().to_vec();
            if !full.is_empty() {
                full.push(b'/');
            }
            full.extend_from_slice(part);
            let here = RepoPath::from_git(full);
            let Some(node) = self.dir(&at.0, &at.1.id)?.get(*part).cloned() else {
                self.note(&here, Seen::Nothing);
                return Ok(None);
            };
            let last = index + 1 == parts.len();
            if node.mode & FORMAT == LINK {
                let target = self.history.blob(&node.id).map_err(io::Error::other)?;
                self.note(&here, Seen::Link(digest(&target)));
                if last && !follow {
                    return Ok(Some((here, node)));
                }
                let Some(target) = inside(&at.0, &target).filter(|_| links < MOST_LINKS) else {
                    self.incomplete.store(true, Ordering::Relaxed);
                    return Ok(None);
                };
                let full = [target.as_bytes(), b"/", parts[index + 1..].join(&b'/').as_slice()].concat();
                return self.find(&RepoPath::from_git(full), follow, links + 1);
            }
            at = (here, node);
        }
        self.note(&at.0, at.1.seen());
        if at.1.mode & FORMAT == SUBMODULE {
            self.incomplete.store(true, Ordering::Relaxed);
        }
        Ok(Some(at))
    }
}

/// Where a link in a directory leads to; `None` when only the disk can tell: outside the repository, or up again from a name
/// that may be a link itself.
fn inside(dir: &RepoPath, target: &[u8]) -> Option<RepoPath> {
    let target = std::str::from_utf8(target).ok().filter(|target| !target.starts_with('/'))?;
    let mut named = target.split('/').skip_while(|part| matches!(*part, "" | "." | ".."));
    if named.any(|part| part == "..") { None } else { dir.join(target) }
}

impl Files for InCommit {
    fn kind(&self, path: &RepoPath) -> io::Result<Option<Kind>> {
        Ok(self.find(path, true, 0)?.map(|(_, node)| match node.mode & FORMAT {
            DIR => Kind::Dir,
            0o100_000 => Kind::File { executable: node.mode & 0o111 != 0 },
            _ => Kind::Other,
        }))
    }

    fn link(&self, path: &RepoPath) -> Option<Vec<u8>> {
        let (_, node) = self.find(path, false, 0).ok()?.filter(|(_, node)| node.mode & FORMAT == LINK)?;
        self.history.blob(&node.id).ok()
    }

    fn read(&self, path: &RepoPath) -> io::Result<Vec<u8>> {
        match self.find(path, true, 0)? {
            Some((path, node)) if node.mode & FORMAT == 0o100_000 => {
                let content = self.history.blob(&node.id).map_err(io::Error::other)?;
                self.asked.lock().unwrap_or_else(PoisonError::into_inner).seen.insert(path, Seen::Content(digest(&content)));
                Ok(content)
            }
            Some(_) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn list(&self, dir: &RepoPath) -> io::Result<Vec<Listed>> {
        let Some((path, node)) = self.find(dir, true, 0)? else { return Err(io::ErrorKind::NotFound.into()) };
        if node.mode & FORMAT != DIR {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let entries = self.dir(&path, &node.id)?;
        let kept = entries.iter().filter(|(_, node)| matches!(node.mode & FORMAT, DIR | LINK));
        let kept = kept.map(|(name, _)| RepoPath::from_git(name.clone()));
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).listed.entry(path).or_insert_with(|| kept.collect());
        Ok(entries
            .iter()
            .map(|(name, node)| {
                let kind = node.mode & FORMAT;
                Listed { name: name.clone(), is_dir: matches!(kind, DIR | SUBMODULE), is_link: kind == LINK }
            })
            .collect())
    }
}

fn digest(content: &[u8]) -> [u8; 16] {
    let hash = Sha256::digest(content);
    std::array::from_fn(|at| hash[at])
}

impl Asked {
    pub(super) fn kept(&self) -> Kept {
        let bytes = |path: &RepoPath| path.as_bytes().to_vec();
        let seen = self.seen.iter().map(|(path, seen)| (bytes(path), *seen));
        (seen.collect(), self.listed.iter().map(|(dir, names)| (bytes(dir), names.iter().map(bytes).collect())).collect())
    }

    pub(super) fn of_kept((seen, listed): Kept) -> Self {
        let names = |names: Vec<Vec<u8>>| names.into_iter().map(RepoPath::from_git).collect();
        Self {
            seen: seen.into_iter().map(|(path, seen)| (RepoPath::from_git(path), seen)).collect(),
            listed: listed.into_iter().map(|(dir, dirs)| (RepoPath::from_git(dir), names(dirs))).collect(),
        }
    }

    /// True when nothing that was asked for differs in `now`, another commit's files. `changes` are all paths in which those
    /// differ from the commit that was asked; when in doubt they count.
    #[must_use]
    pub fn holds(&self, changes: &[Change], now: &dyn Files) -> bool {
        changes.iter().all(|change| !self.touches(change, now))
    }

    /// True when everything that was asked for is the same on disk: not what git tells of it, which does not see what it ignores,
    /// what it was told to assume unchanged and what a filter makes of a file, but what is there.
    #[must_use]
    pub fn is_on(&self, disk: &OnDisk) -> bool {
        let same = |(path, seen): (&RepoPath, &Seen)| match seen {
            Seen::Nothing => disk.has(path, None),
            Seen::Dir => disk.has(path, Some(Kind::Dir)),
            Seen::File { executable } => disk.has(path, Some(Kind::File { executable: *executable })),
            Seen::Link(known) => disk.link(path).is_some_and(|target| digest(&target) == *known),
            Seen::Content(known) => disk.link(path).is_none() && disk.read(path).is_ok_and(|content| digest(&content) == *known),
        };
        self.seen.par_iter().all(same)
    }

    fn touches(&self, change: &Change, now: &dyn Files) -> bool {
        let path = &change.path;
        if self.seen.contains_key(path) {
            return true;
        }
        // Something that was below a directory is asked for, and the directory is a file now, or was one.
        let first_below = RepoPath::from_git([path.as_bytes(), b"/\0"].concat());
        if self.seen.range(first_below..).next().is_some_and(|(asked, _)| asked.is_in(path)) {
            return true;
        }
        // A file that comes or goes may make its directories come and go; one may become a link, or a submodule, which is listed as a
        // directory.
        let mut above = std::iter::successors(Some(path.clone()), |at| Some(at.parent())).take_while(|at| !at.is_root());
        above.any(|at| {
            let was_told = match (self.listed.get(&at.parent()), self.seen.get(&at)) {
                (_, Some(seen)) => *seen == Seen::Dir,
                (Some(names), None) => names.contains(&RepoPath::from_git(at.parts().last().unwrap_or_default())),
                (None, None) => return false,
            };
            was_told != (matches!(now.kind(&at), Ok(Some(Kind::Dir | Kind::Other))) || now.is_link(&at))
        })
    }
}
