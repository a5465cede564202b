//! The work tree without libgit2's comparison: HEAD against the index (`staged`), the index against the disk (`walk`), contents
//! only where the index does not settle it, and the untracked rest (`untracked`).
//!
//! Whatever is out of the ordinary is refused, and libgit2 asked instead: it is slower by far, and knows more.

use super::ignore::Ignores;
use super::index::Index;
use super::untracked::Untracked;
use super::walk::{Trust, walk};
use super::{LINK, inner, is_cleaned_alike, link_target, staged};
use crate::changes::ChangeKind;
use crate::names::RepoPath;
use git2::{Config, ObjectType, Oid, Repository, Tree};
use rayon::prelude::*;
use rustix::fs::{Mode, OFlags, open};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// What differs between HEAD and the work tree; `None` when libgit2 should compare.
pub(super) fn status(repo: &Repository, head: Option<&Tree<'_>>) -> Option<BTreeMap<RepoPath, ChangeKind>> {
    let config = repo.config().and_then(|mut config| config.snapshot()).ok()?;
    let trust = trust(&config)?;
    let root = repo.workdir()?;
    let index = Index::read(&repo.path().join("index"))?;
    let mut changes = staged::staged(repo, head.map(Tree::id), &index)?;
    let dir = open(root, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut walked = walk(&index, &dir, trust)?;
    for place in index.submodules().iter().copied().filter(|place| index.entry(*place).is_looked_at()) {
        let id = Oid::from_bytes(index.entry(place).id()).ok()?.to_string();
        match inner::differs(root, &RepoPath::from_git(index.path(place)), &id).ok()? {
            Some(ChangeKind::Deleted) => walked.deleted.push(place),
            Some(_) => walked.modified.push(place),
            None => {}
        }
    }
    let mut attributes = Attributes::new(repo, &config, root, &index);
    let differing = settle(repo, root, &index, &mut attributes, &walked.unsure)?;
    for place in walked.modified.into_iter().chain(differing) {
        changes.entry(RepoPath::from_git(index.path(place))).or_insert(ChangeKind::Modified);
    }
    for place in walked.deleted {
        let path = RepoPath::from_git(index.path(place));
        // What is only in the index is in neither of the two.
        if changes.get(&path) == Some(&ChangeKind::Added) {
            changes.remove(&path);
        } else {
            changes.insert(path, ChangeKind::Deleted);
        }
    }
    changes.retain(|path, kind| {
        let alike = |head| attributes.may_apply(path) && is_cleaned_alike(repo, head, path).unwrap_or(false);
        *kind != ChangeKind::Modified || !head.is_some_and(alike)
    });
    let left_out = |path: &RepoPath| index.left_out(path.as_bytes());
    let mut untracked = Untracked::new(&dir, root, Ignores::new(repo, &dir, Box::new(left_out)));
    for path in walked.untracked {
        untracked.add(&path);
    }
    for path in untracked.found {
        super::add(&mut changes, path, ChangeKind::Added);
    }
    Some(changes)
}

/// The settings that say what counts; `None` where file names or links are not what they are on Linux.
fn trust(config: &Config) -> Option<Trust> {
    let is = |key: &str, otherwise: bool| config.get_bool(key).unwrap_or(otherwise);
    if is("core.ignorecase", false) || is("core.precomposeunicode", false) || !is("core.symlinks", true) {
        return None;
    }
    Some(Trust {
        mode: is("core.filemode", true),
        changed: is("core.trustctime", true),
        minimal: config.get_str("core.checkstat").is_ok_and(|value| value.eq_ignore_ascii_case("minimal")),
        sparse: is("core.sparsecheckout", false) && !is("sparse.expectfilesoutsideofpatterns", false),
    })
}

/// Those of the `unsure` entries whose content differs from what is on disk. `None` when one cannot be read.
fn settle(repo: &Repository, root: &Path, index: &Index, attributes: &mut Attributes<'_>, unsure: &[usize]) -> Option<Vec<usize>> {
    let (filtered, plain): (Vec<usize>, Vec<usize>) =
        unsure.iter().partition(|place| attributes.may_apply(&RepoPath::from_git(index.path(**place))));
    let hash = |path: &RepoPath, mode: u32| {
        let full = path.under(root);
        if mode == LINK {
            Oid::hash_object(ObjectType::Blob, &link_target(path, &full).ok()?)
        } else {
            Oid::hash_file(ObjectType::Blob, &full)
        }
        .ok()
    };
    let differs = |place: usize| {
        let entry = index.entry(place);
        let id = hash(&RepoPath::from_git(index.path(place)), entry.mode())?;
        Some((place, id.as_bytes() != entry.id()))
    };
    let hashed: Vec<(usize, bool)> = plain.into_par_iter().map(differs).collect::<Option<_>>()?;
    let mut differing: Vec<usize> = hashed.into_iter().filter(|(_, differs)| *differs).map(|(place, _)| place).collect();
    for place in filtered {
        let on_disk = super::hash(repo, &RepoPath::from_git(index.path(place))).ok()??;
        if on_disk.id != Oid::from_bytes(index.entry(place).id()).ok()?.to_string() {
            differing.push(place);
        }
    }
    Some(differing)
}

/// Whether attributes may apply to a path at all. To tell which, libgit2 reads the whole index; mostly there are none.
struct Attributes<'a> {
    /// They may apply to every path.
    everywhere: bool,
    root: &'a Path,
    index: &'a Index,
    below: HashMap<RepoPath, bool>,
}

impl<'a> Attributes<'a> {
    fn new(repo: &Repository, config: &Config, root: &'a Path, index: &'a Index) -> Self {
        let set = |key: &str| config.get_str(key).is_ok_and(|value| !value.eq_ignore_ascii_case("false"));
        let files = [
            Some(repo.commondir().join("info/attributes")),
            Some(repo.path().join("info/attributes")),
            super::user_config_dir().map(|dir| dir.join("attributes")),
            Some(PathBuf::from("/etc/gitattributes")),
        ];
        let everywhere =
            set("core.autocrlf") || config.get_entry("core.attributesfile").is_ok() || files.iter().flatten().any(|file| file.exists());
        Self { everywhere, root, index, below: HashMap::new() }
    }

    fn may_apply(&mut self, path: &RepoPath) -> bool {
        self.everywhere || self.are_in(path.parent())
    }

    /// True when there are some for what lies in a directory: a file of its own, or one further up.
    fn are_in(&mut self, dir: RepoPath) -> bool {
        if let Some(known) = self.below.get(&dir) {
            return *known;
        }
        let file = dir.join(".gitattributes").unwrap_or_default();
        // A file that is gone from disk is read from the index.
        let here = file.under(self.root).symlink_metadata().is_ok() || self.index.contains(file.as_bytes());
        let found = here || (!dir.is_root() && self.are_in(dir.parent()));
        self.below.insert(dir, found);
        found
    }
}
