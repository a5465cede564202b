//! The work tree: what is not committed, and the object a file on disk would become.
//!
//! What is not committed is listed by a comparison of our own (`status`: one read of the index, one walk of the directories);
//! what that refuses is compared by libgit2. Four things libgit2 does not know are put right here: paths outside
//! a sparse checkout are no deletions, a file behind a filter program (Git LFS, git-crypt) is compared as that program
//! cleans it, a submodule with changes of its own is not the commit it is at, and what is ignored is for git's rules to say.

mod ignore;
mod index;
mod inner;
mod staged;
mod status;
#[cfg(test)]
mod tests;
mod untracked;
mod walk;
mod wildmatch;

pub(super) use inner::{is_checked_out, submodule_state};

use self::ignore::Ignores;
use self::inner::{hash_submodule, is_repository};
use self::untracked::{Tracked, Untracked};
use super::git::failed;
use super::{Change, ChangeKind, TreeEntry, tree};
use crate::error::{Error, Result};
use crate::names::RepoPath;
use git2::{AttrCheckFlags, AttrValue, Delta, DiffOptions, ObjectType, Oid, Repository};
use rustix::fs::{Mode, OFlags, open};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::Metadata;
use std::io::{ErrorKind, Read as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Git's mode of a link.
pub(super) const LINK: u32 = 0o120_000;

/// Git's mode of a submodule.
pub(super) const SUBMODULE: u32 = 0o160_000;

/// The index's bits for the side of a conflict.
const STAGE: u16 = 3 << 12;

/// The index's flag for paths that are said to be as it has them.
const ASSUME_VALID: u16 = 1 << 15;

/// The index's flag for paths outside a sparse checkout.
const SKIP_WORKTREE: u16 = 1 << 14;

/// The index's flag for paths that are only intended (`git add -N`).
const INTENT_TO_ADD: u16 = 1 << 13;

/// The paths that differ between HEAD and the work tree, sorted: staged, modified, deleted and untracked.
pub(super) fn dirty(repo: &Repository) -> Result<Vec<Change>> {
    let head = match repo.head() {
        Ok(head) => Some(head.peel_to_tree().map_err(|error| not_compared(&error))?),
        Err(_) => None,
    };
    let found = match status::status(repo, head.as_ref()) {
        Some(found) => found,
        None => compared_by_libgit2(repo, head.as_ref())?,
    };
    Ok(found.into_iter().map(|(path, kind)| Change { path, kind, dirty: true }).collect())
}

/// The same by libgit2. What is untracked is not left to it (see `ignore`), and of what is in submodules it sees less than all.
fn compared_by_libgit2(repo: &Repository, head: Option<&git2::Tree<'_>>) -> Result<BTreeMap<RepoPath, ChangeKind>> {
    let wrong = |error: git2::Error| not_compared(&error);
    let mut index = repo.index().map_err(wrong)?;
    // A handle keeps the index it once read; git may have written it since.
    index.read(false).map_err(wrong)?;
    let mut options = DiffOptions::new();
    // Where names on disk are composed in another way than in the index, only libgit2 tells which is which.
    let composed = repo.config().and_then(|config| config.get_bool("core.precomposeunicode")).unwrap_or(false);
    let is_composed = |path: &[u8]| composed && !path.is_ascii();
    options.include_untracked(composed).recurse_untracked_dirs(composed).include_typechange(true);
    let diff = repo.diff_tree_to_workdir_with_index(head, Some(&mut options)).map_err(wrong)?;
    let mut found = BTreeMap::new();
    for delta in diff.deltas() {
        let file = if delta.status() == Delta::Deleted { delta.old_file() } else { delta.new_file() };
        let Some(bytes) = file.path_bytes() else { continue };
        let path = RepoPath::from_git(bytes);
        let kind = match delta.status() {
            Delta::Unmodified | Delta::Ignored => continue,
            Delta::Untracked if !is_composed(bytes) => continue,
            Delta::Deleted => match index.get_path(native(bytes), 0) {
                Some(entry) if entry.flags_extended & SKIP_WORKTREE != 0 => continue,
                _ => ChangeKind::Deleted,
            },
            Delta::Added | Delta::Untracked => ChangeKind::Added,
            _ => {
                if head.is_some_and(|head| is_cleaned_alike(repo, head, &path).unwrap_or(false)) {
                    continue;
                }
                ChangeKind::Modified
            }
        };
        add(&mut found, path, kind);
    }
    for path in differing_outside(repo, &index)? {
        found.entry(path).or_insert(ChangeKind::Modified);
    }
    for (path, kind) in differing_submodules(repo, &index)? {
        found.entry(path).or_insert(kind);
    }
    for path in gone_of_intended(repo, &index)? {
        found.entry(path).or_insert(ChangeKind::Deleted);
    }
    for path in gone_by_name(repo, head, &index)? {
        found.entry(path).or_insert(ChangeKind::Deleted);
    }
    let untracked = untracked_beside(repo, &index)?;
    for path in untracked.into_iter().filter(|path| !is_composed(path.as_bytes())) {
        add(&mut found, path, ChangeKind::Added);
    }
    Ok(found)
}

/// Adds a difference. A path can come twice: deleted from the index, and there as an untracked file or a repository.
fn add(found: &mut BTreeMap<RepoPath, ChangeKind>, path: RepoPath, kind: ChangeKind) {
    found.entry(path).and_modify(|known| *known = ChangeKind::Modified).or_insert(kind);
}

/// The paths that are only intended (`git add -N`) and are not there: of one below what is now a link libgit2 says nothing.
fn gone_of_intended(repo: &Repository, index: &git2::Index) -> Result<Vec<RepoPath>> {
    let Some(root) = repo.workdir() else { return Ok(Vec::new()) };
    let mut gone = Vec::new();
    for entry in index.iter().filter(|entry| entry.flags_extended & INTENT_TO_ADD != 0) {
        let path = RepoPath::from_git(entry.path.as_slice());
        if metadata(root, &path)?.is_none() {
            gone.push(path);
        }
    }
    Ok(gone)
}

/// The files that are not there by their name. Where `core.ignoreCase` is set, libgit2 takes one whose name differs in upper and lower
/// case for them; in a repository that was made on another file system that one is another file, and git says so.
fn gone_by_name(repo: &Repository, head: Option<&git2::Tree<'_>>, index: &git2::Index) -> Result<Vec<RepoPath>> {
    let fold = repo.config().and_then(|config| config.get_bool("core.ignorecase")).unwrap_or(false);
    let (Some(root), Some(head), true) = (repo.workdir(), head, fold) else { return Ok(Vec::new()) };
    let looked_at = |entry: &git2::IndexEntry| {
        entry.mode != SUBMODULE && entry.flags & (STAGE | ASSUME_VALID) == 0 && entry.flags_extended & SKIP_WORKTREE == 0
    };
    let mut gone = Vec::new();
    for entry in index.iter().filter(looked_at) {
        let path = RepoPath::from_git(entry.path);
        if metadata(root, &path)?.is_none() && tree::entry(repo, head, &path)?.is_some() {
            gone.push(path);
        }
    }
    Ok(gone)
}

/// The files outside a sparse checkout that are there all the same, and are not what the index has: libgit2 does not look.
fn differing_outside(repo: &Repository, index: &git2::Index) -> Result<Vec<RepoPath>> {
    let is = |key: &str| repo.config().and_then(|config| config.get_bool(key)).unwrap_or(false);
    if !is("core.sparsecheckout") || is("sparse.expectfilesoutsideofpatterns") {
        return Ok(Vec::new());
    }
    let mut differing = Vec::new();
    for entry in index.iter().filter(|entry| entry.flags_extended & SKIP_WORKTREE != 0) {
        let path = RepoPath::from_git(entry.path);
        if hash(repo, &path)?.is_some_and(|on_disk| (on_disk.mode, on_disk.id) != (entry.mode, entry.id.to_string())) {
            differing.push(path);
        }
    }
    Ok(differing)
}

/// The submodules that are not what the index has.
fn differing_submodules(repo: &Repository, index: &git2::Index) -> Result<Vec<(RepoPath, ChangeKind)>> {
    let Some(root) = repo.workdir() else { return Ok(Vec::new()) };
    let looked_at = |entry: &git2::IndexEntry| entry.flags & (STAGE | ASSUME_VALID) == 0 && entry.flags_extended & SKIP_WORKTREE == 0;
    let mut differing = Vec::new();
    for entry in index.iter().filter(|entry| entry.mode == SUBMODULE && looked_at(entry)) {
        let path = RepoPath::from_git(entry.path);
        differing.extend(inner::differs(root, &path, &entry.id.to_string())?.map(|kind| (path, kind)));
    }
    Ok(differing)
}

/// What is untracked beside libgit2's index.
fn untracked_beside(repo: &Repository, index: &git2::Index) -> Result<Vec<RepoPath>> {
    let Some(root) = repo.workdir() else { return Ok(Vec::new()) };
    let not_read = |error: rustix::io::Errno| Error::unusable("the work tree cannot be read").because(error);
    let dir = open(root, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(not_read)?;
    let left_out = |path: &RepoPath| {
        let entry = index.get_path(native(path.as_bytes()), 0)?;
        (entry.flags_extended & SKIP_WORKTREE != 0).then_some(entry.id)
    };
    let fold = repo.config().and_then(|config| config.get_bool("core.ignorecase")).unwrap_or(false);
    let tracked = Tracked::new(index, fold);
    let mut untracked = Untracked::new(&dir, root, Ignores::new(repo, &dir, Box::new(left_out)));
    untracked.add_beside(&tracked, b"");
    Ok(untracked.found)
}

fn not_compared(error: &git2::Error) -> Error {
    failed("the work tree cannot be compared with HEAD", error)
}

/// True when a filter program makes of the file on disk what HEAD has. libgit2 does not run such programs.
fn is_cleaned_alike(repo: &Repository, head: &git2::Tree<'_>, path: &RepoPath) -> Result<bool> {
    if !matches!(filter_of(repo, path), Filter::Program) {
        return Ok(false);
    }
    let committed = tree::entry(repo, head, path)?;
    Ok(match (committed, hash(repo, path)?) {
        (Some(old), Some(new)) => old.mode == new.mode && old.id.to_string() == new.id,
        _ => false,
    })
}

/// The entry `path` would get if what is on disk were committed; `None` when nothing is there that git would keep.
pub(super) fn hash(repo: &Repository, path: &RepoPath) -> Result<Option<TreeEntry>> {
    let Some(root) = repo.workdir() else { return Ok(None) };
    let Some(metadata) = metadata(root, path)? else { return Ok(None) };
    let full = path.under(root);
    let (mode, id) = if metadata.is_symlink() {
        let target = link_target(path, &full)?;
        let id = Oid::hash_object(ObjectType::Blob, &target).map_err(|error| failed(format!("`{path}` cannot be hashed"), &error))?;
        (LINK, id.to_string())
    } else if metadata.is_file() {
        (file_mode(repo, path, &metadata), hash_file(repo, path, &full)?.to_string())
    } else if metadata.is_dir() {
        match hash_submodule(repo, path, &full)? {
            Some(id) => (SUBMODULE, id),
            None => return Ok(None),
        }
    } else {
        return Ok(None);
    };
    Ok(Some(TreeEntry { path: path.clone(), mode, id }))
}

/// What is at `path`, or `None`. What lies behind a link is not in the repository, so a link on the way counts as nothing.
pub(super) fn metadata(root: &Path, path: &RepoPath) -> Result<Option<Metadata>> {
    let mut current = root.to_owned();
    let mut found = None;
    for part in path.parts() {
        if found.as_ref().is_some_and(|dir: &Metadata| !dir.is_dir()) {
            return Ok(None);
        }
        current.push(OsStr::from_bytes(part));
        found = match current.symlink_metadata() {
            Ok(metadata) => Some(metadata),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
            Err(error) => return Err(Error::unusable(format!("`{path}` cannot be read")).because(error)),
        };
    }
    Ok(found)
}

/// Where the link at `path` points to, as it is stored.
pub(super) fn link_target(path: &RepoPath, full: &Path) -> Result<Vec<u8>> {
    let target = std::fs::read_link(full).map_err(|error| Error::unusable(format!("`{path}` cannot be read")).because(error))?;
    Ok(target.into_os_string().into_vec())
}

/// True when git would store the file as executable.
pub(super) fn is_executable(metadata: &Metadata) -> bool {
    metadata.permissions().mode() & 0o100 != 0
}

fn file_mode(repo: &Repository, path: &RepoPath, metadata: &Metadata) -> u32 {
    let trusted = repo.config().and_then(|config| config.get_bool("core.filemode")).unwrap_or(true);
    if trusted {
        return if is_executable(metadata) { 0o100_755 } else { 0o100_644 };
    }
    let known = repo.index().ok().and_then(|index| index.get_path(native(path.as_bytes()), 0));
    known.map(|entry| entry.mode).filter(|mode| mode & 0o170_000 == 0o100_000).unwrap_or(0o100_644)
}

/// What git does to a file's content before it is stored.
enum Filter {
    /// Nothing.
    None,
    /// Line ends or `$Id$`, which libgit2 does too.
    Text {
        /// `$Id$` is among it.
        ident: bool,
    },
    /// A program or an encoding that only git knows.
    Program,
}

fn filter_of(repo: &Repository, path: &RepoPath) -> Filter {
    let path = native(path.as_bytes());
    let attribute = |name: &str| {
        let value = repo.get_attr_bytes(path, name, AttrCheckFlags::FILE_THEN_INDEX).ok().flatten();
        match AttrValue::from_bytes(value) {
            AttrValue::Bytes(value) => Some(String::from_utf8_lossy(value).into_owned()),
            AttrValue::String(value) => Some(value.to_owned()),
            AttrValue::True => Some("true".to_owned()),
            AttrValue::False => Some("false".to_owned()),
            AttrValue::Unspecified => None,
        }
    };
    let config = |key: &str| repo.config().and_then(|config| config.get_string(key)).ok();
    if let Some(driver) = attribute("filter") {
        let has = |what: &str| config(&format!("filter.{driver}.{what}")).is_some();
        if has("clean") || has("process") {
            return Filter::Program;
        }
    }
    if attribute("working-tree-encoding").is_some_and(|encoding| encoding != "false") {
        return Filter::Program;
    }
    let ident = attribute("ident").as_deref() == Some("true");
    let text = attribute("text").or_else(|| attribute("crlf"));
    let line_ends = match text.as_deref() {
        Some("false") => false,
        Some(_) => true,
        None => attribute("eol").is_some() || config("core.autocrlf").is_some_and(|value| value != "false"),
    };
    if ident || line_ends { Filter::Text { ident } } else { Filter::None }
}

fn hash_file(repo: &Repository, path: &RepoPath, full: &Path) -> Result<Oid> {
    let wrong = |error: git2::Error| failed(format!("`{path}` cannot be hashed"), &error);
    let filtered = match filter_of(repo, path) {
        Filter::None => false,
        Filter::Text { ident } => ident || has_carriage_return(full),
        Filter::Program => {
            if let Some(id) = hash_with_program(repo, path, full) {
                return Ok(id);
            }
            // Without the program the bytes as they are still tell one state of the file from another.
            true
        }
    };
    if !filtered {
        return Oid::hash_file(ObjectType::Blob, full).map_err(wrong);
    }
    // libgit2 filters only what it stores: it stores into memory, through a handle that is dropped right after.
    let apart = Repository::open(repo.path()).map_err(wrong)?;
    if let Some(root) = repo.workdir() {
        apart.set_workdir(root, false).map_err(wrong)?;
    }
    apart.odb().map_err(wrong)?.add_new_mempack_backend(1000).map_err(wrong)?;
    apart.blob_path(full).map_err(wrong)
}

fn has_carriage_return(file: &Path) -> bool {
    let Ok(mut file) = std::fs::File::open(file) else { return false };
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match file.read(&mut buffer) {
            Ok(0) | Err(_) => return false,
            Ok(length) if buffer[..length].contains(&b'\r') => return true,
            Ok(_) => {}
        }
    }
}

/// Asks the git program, which runs filter programs; `None` when it is not there or fails.
fn hash_with_program(repo: &Repository, path: &RepoPath, full: &Path) -> Option<Oid> {
    let mut hinted = std::ffi::OsString::from("--path=");
    hinted.push(std::ffi::OsStr::from_bytes(path.as_bytes()));
    let mut command = std::process::Command::new("git");
    command.arg("-C").arg(repo.workdir()?).arg("hash-object").arg(hinted).arg("--").arg(full);
    by_place_only(&mut command);
    let output = command.stdin(std::process::Stdio::null()).output().ok().filter(|output| output.status.success())?;
    Oid::from_str(std::str::from_utf8(&output.stdout).ok()?.trim()).ok()
}

/// A path of git's as the system has it.
pub(super) fn native(path: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(path))
}

/// The user's directory for git's configuration files.
fn user_config_dir() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("XDG_CONFIG_HOME").or_else(|| variable("HOME").map(|home| home.join(".config"))).map(|dir| dir.join("git"))
}

/// Makes git look at the repository it is started in: inside a git hook these variables name another one.
pub(super) fn by_place_only(command: &mut std::process::Command) {
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_OBJECT_DIRECTORY"] {
        command.env_remove(name);
    }
}
