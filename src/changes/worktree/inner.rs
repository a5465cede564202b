//! Repositories inside the work tree: submodules, and those git knows nothing of.

use super::{SUBMODULE, metadata, native};
use crate::changes::git::failed;
use crate::changes::{Change, ChangeKind, TreeEntry};
use crate::error::{Error, Result};
use crate::names::RepoPath;
use git2::{ObjectType, Oid, Repository};
use rustix::fs::{Access, access};
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

/// A `.git` file of more bytes is none.
const LONGEST: u64 = 1 << 20;

/// True when git takes `dir` for a repository of its own. One whose `.git` leads nowhere is a directory like others.
pub(super) fn is_repository(dir: &Path) -> bool {
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

/// How a submodule on disk differs from commit `id`, which the index has; `None` when it does not. Settings that hide what is changed
/// in it, as `ignore = all` in `.gitmodules`, do not count: what is there is what an image is built from.
pub(super) fn differs(root: &Path, path: &RepoPath, id: &str) -> Result<Option<ChangeKind>> {
    let Some(metadata) = metadata(root, path)? else { return Ok(Some(ChangeKind::Deleted)) };
    let is_same = metadata.is_dir() && state(path, &path.under(root))?.is_none_or(|state| state == id);
    Ok((!is_same).then_some(ChangeKind::Modified))
}

/// The commit a submodule is at; when it has changes of its own, a hash over that commit and those changes, so that it never
/// passes for the commit. `None` for a directory that is no submodule.
pub(super) fn hash_submodule(outer: &Repository, path: &RepoPath, full: &Path) -> Result<Option<String>> {
    if let Some(state) = state(path, full)? {
        return Ok(Some(state));
    }
    // One that is not checked out is as the index has it.
    let known = outer.index().ok().and_then(|index| index.get_path(native(path.as_bytes()), 0));
    Ok(known.filter(|entry| entry.mode == SUBMODULE).map(|entry| entry.id.to_string()))
}

/// True when a submodule is checked out. Fails where its `.git` leads nowhere, as git does: nobody can tell what changed there.
pub(in crate::changes) fn is_checked_out(path: &RepoPath, full: &Path) -> Result<bool> {
    if full.join(".git").symlink_metadata().is_err() {
        return Ok(false);
    }
    if is_repository(full) {
        return Ok(true);
    }
    Err(Error::unusable(format!("submodule `{path}` cannot be read: its `.git` is not one"))
        .hint(format!("check it out again: `git submodule deinit -f {path} && git submodule update --init {path}`")))
}

/// The state of a repository inside; `None` where there is none.
fn state(path: &RepoPath, full: &Path) -> Result<Option<String>> {
    if !is_checked_out(path, full)? {
        return Ok(None);
    }
    let wrong = |error: Error| Error::unusable(format!("submodule `{path}` cannot be read")).because(error);
    let inner = crate::changes::open(full).map_err(wrong)?;
    let at = inner.tip().map_or_else(|_| Oid::ZERO_SHA1.to_string(), |commit| commit.to_string());
    let changes = inner.dirty()?;
    if changes.is_empty() {
        return Ok(Some(at));
    }
    let text = submodule_state(&at, &changes, |path| inner.hash_on_disk(path))?;
    let id = Oid::hash_object(ObjectType::Blob, &text);
    id.map(|id| Some(id.to_string())).map_err(|error| failed(format!("submodule `{path}` cannot be hashed"), &error))
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
