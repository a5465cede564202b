//! Repositories inside the work tree: submodules, and those git knows nothing of.

use super::{SUBMODULE, dirty, hash, native};
use crate::changes::git::failed;
use crate::changes::{Change, TreeEntry};
use crate::error::Result;
use crate::names::RepoPath;
use git2::{ObjectType, Oid, Repository};
use rustix::fs::{Access, access};
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

/// A `.git` file of more bytes is none.
const LONGEST: u64 = 1 << 20;

/// True when git takes `dir` for a repository of its own. One whose `.git` leads nowhere is a directory like others.
pub(in crate::changes) fn is_repository(dir: &Path) -> bool {
    let at = dir.join(".git");
    let Ok(metadata) = at.metadata() else { return false };
    if !metadata.is_file() {
        return is_git_directory(&at);
    }
    // Git takes one it may not read for one.
    let Ok(text) = std::fs::read(&at) else { return true };
    let to = text.strip_prefix(b"gitdir: ").map(<[u8]>::trim_ascii_end).filter(|to| !to.is_empty());
    metadata.len() <= LONGEST && to.is_some_and(|to| is_git_directory(&dir.join(OsStr::from_bytes(to))))
}

/// True when `dir` has what every git directory has: a valid HEAD, objects and refs.
fn is_git_directory(dir: &Path) -> bool {
    let common = match std::fs::read(dir.join("commondir")) {
        Ok(text) => dir.join(OsStr::from_bytes(text.trim_ascii_end())),
        Err(_) => dir.to_owned(),
    };
    let is_usable = |dir: PathBuf| access(dir, Access::EXEC_OK).is_ok();
    has_head(dir) && is_usable(common.join("objects")) && is_usable(common.join("refs"))
}

/// True when HEAD names a ref or an object.
fn has_head(dir: &Path) -> bool {
    let file = dir.join("HEAD");
    if let Ok(to) = std::fs::read_link(&file) {
        return to.into_os_string().into_vec().starts_with(b"refs/");
    }
    let Ok(text) = std::fs::read(&file) else { return false };
    match text.strip_prefix(b"ref:") {
        Some(to) => to.trim_ascii_start().starts_with(b"refs/"),
        None => text.len() >= 40 && text[..40].iter().all(u8::is_ascii_hexdigit),
    }
}

/// The commit a submodule is at; when it has changes of its own, a hash over that commit and those changes, so that it never
/// passes for the commit. `None` for a directory that is no repository.
pub(super) fn hash_submodule(outer: &Repository, path: &RepoPath, full: &Path) -> Result<Option<Oid>> {
    let wrong = |error: git2::Error| failed(format!("submodule `{path}` cannot be read"), &error);
    if full.join(".git").symlink_metadata().is_err() {
        // A submodule that is not checked out is an empty directory: it is as the index has it.
        let known = outer.index().ok().and_then(|index| index.get_path(native(path.as_bytes()), 0));
        return Ok(known.filter(|entry| entry.mode == SUBMODULE).map(|entry| entry.id));
    }
    let inner = Repository::open(full).map_err(wrong)?;
    let at = inner.head().ok().and_then(|head| head.target()).unwrap_or(Oid::ZERO_SHA1);
    let changes = dirty(&inner)?;
    if changes.is_empty() {
        return Ok(Some(at));
    }
    let text = submodule_state(&at.to_string(), &changes, |path| hash(&inner, path))?;
    Oid::hash_object(ObjectType::Blob, &text).map(Some).map_err(wrong)
}

/// What stands for a submodule that is at commit `at` and has changes of its own.
pub(in crate::changes) fn submodule_state(
    at: &str,
    changes: &[Change],
    mut hash: impl FnMut(&RepoPath) -> Result<Option<TreeEntry>>,
) -> Result<Vec<u8>> {
    let mut text = format!("{at}\n").into_bytes();
    for change in changes {
        let entry = hash(&change.path)?;
        text.extend_from_slice(entry.map_or_else(|| "-".to_owned(), |entry| format!("{:o} {}", entry.mode, entry.id)).as_bytes());
        text.push(b' ');
        text.extend_from_slice(change.path.as_bytes());
        text.push(0);
    }
    Ok(text)
}
