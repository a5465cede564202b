//! History through libgit2: commits, trees and refs, without the git program.
//!
//! A libgit2 handle may move between threads but not be shared, so [`Git`] keeps a few and lends one to each call; calls
//! from several threads run side by side. Two trees are compared by a walk of our own (`tree`), because libgit2's visits
//! subtrees that are equal; so is the work tree with HEAD, where nothing is out of the ordinary (`worktree`).
//!
//! It does not fetch, write objects or touch the index.

use super::gitcli::GitCli;
use super::{Change, CommitInfo, Head, History, Log, LoggedCommit, TreeEntry, tree, worktree};
use crate::error::{Error, Result};
use crate::names::{CommitId, RepoPath};
use git2::{ErrorClass, ErrorCode, Oid, Repository, RepositoryOpenFlags};
use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use time::OffsetDateTime;

/// A repository, read through libgit2.
pub struct Git {
    root: PathBuf,
    idle: Mutex<Vec<Repository>>,
}

impl Git {
    /// Opens the repository that `dir` lies in; `None` when it is of a kind that only the git program reads (reftable, SHA-256
    /// objects, a sparse or split index, a clone without trees, objects that others replace).
    ///
    /// Fails when there is none, when it has no work tree and when it belongs to another user, unless git trusts it all the same.
    pub fn open(dir: &Path) -> Result<Option<Self>> {
        // As git does: objects are read far more often than they break, and `git fsck` looks for those that did.
        git2::opts::strict_hash_verification(false);
        // Not `discover`, which forgets where a `.git` file stood: the work tree of a git directory elsewhere.
        let repo = match Repository::open_ext(dir, RepositoryOpenFlags::CROSS_FS, std::iter::empty::<&Path>()) {
            Ok(repo) if is_partial(&repo) || is_split(&repo) || has_replacements(&repo) => return Ok(None),
            Ok(repo) => repo,
            Err(error) if error.class() == ErrorClass::Repository && is_unreadable(&error) => return Ok(None),
            // Git knows more places where somebody may have said that it is to be trusted.
            Err(error) if error.code() == ErrorCode::Owner && GitCli::open(dir).is_ok() => return Ok(None),
            Err(error) => return Err(not_opened(dir, &error)),
        };
        let Some(root) = repo.workdir().map(Path::to_owned) else {
            return Err(Error::unusable(format!("`{}` is a bare repository; offbuild needs its files checked out", repo.path().display()))
                .hint("run it in a clone or in a worktree: `git worktree add ../deploy`"));
        };
        Ok(Some(Self { root, idle: Mutex::new(vec![repo]) }))
    }

    /// Runs `work` with a handle nobody else uses meanwhile.
    fn with<T>(&self, work: impl FnOnce(&Repository) -> Result<T>) -> Result<T> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let free = idle().pop();
        let repo = match free {
            Some(repo) => repo,
            None => Repository::open(&self.root).map_err(|error| not_opened(&self.root, &error))?,
        };
        let result = work(&repo);
        idle().push(repo);
        result
    }
}

impl History for Git {
    fn root(&self) -> &Path {
        &self.root
    }

    fn head(&self) -> Result<Head> {
        self.with(|repo| {
            let head = head(repo)?;
            let commit = head.peel_to_commit().map_err(|error| failed("HEAD names no commit", &error))?;
            let branch = head.is_branch().then(|| String::from_utf8_lossy(head.shorthand_bytes()).into_owned());
            Ok(Head { branch, describe: describe(&commit), source: source(repo), commit: info(&commit)? })
        })
    }

    fn tip(&self) -> Result<CommitId> {
        self.with(|repo| {
            let commit = head(repo)?.peel_to_commit().map_err(|error| failed("HEAD names no commit", &error))?;
            commit_id(commit.id())
        })
    }

    fn resolve(&self, revision: &str) -> Result<Option<CommitId>> {
        self.with(|repo| match repo.revparse_single(revision).and_then(|object| object.peel_to_commit()) {
            Ok(commit) => commit_id(commit.id()).map(Some),
            // Behind the border of a shallow clone the class differs ("parent 0 does not exist"), the code does not.
            Err(error) if matches!(error.code(), ErrorCode::NotFound | ErrorCode::Peel | ErrorCode::InvalidSpec) => Ok(None),
            Err(error) => Err(failed(format!("revision `{revision}` cannot be read"), &error)),
        })
    }

    fn commit(&self, id: &CommitId) -> Result<CommitInfo> {
        self.with(|repo| info(&find(repo, id)?))
    }

    fn is_shallow(&self) -> bool {
        // A linked worktree of a shallow clone is as shallow as its clone, where the file lies.
        self.with(|repo| Ok(repo.is_shallow() || is_filled(&repo.commondir().join("shallow")))).unwrap_or(false)
    }

    fn changes(&self, base: &CommitId, head: &CommitId) -> Result<Vec<Change>> {
        self.with(|repo| tree::differences(repo, &tree_of(repo, base)?, &tree_of(repo, head)?))
    }

    fn dirty(&self) -> Result<Vec<Change>> {
        self.with(worktree::dirty)
    }

    fn merge_bases(&self, one: &CommitId, two: &CommitId) -> Result<Vec<CommitId>> {
        self.with(|repo| {
            let wrong =
                |error: &git2::Error| failed(format!("the merge base of {} and {} cannot be found", one.short(), two.short()), error);
            let clone = shallow_clone(repo).map_err(|error| wrong(&error))?;
            match clone.as_ref().unwrap_or(repo).merge_bases(oid(one)?, oid(two)?) {
                Ok(bases) => bases.iter().copied().map(commit_id).collect(),
                Err(error) if error.code() == ErrorCode::NotFound && error.class() == ErrorClass::Merge => Ok(Vec::new()),
                Err(error) => Err(wrong(&error)),
            }
        })
    }

    fn log(&self, base: &CommitId, head: &CommitId, limit: usize) -> Result<Log> {
        let wrong = |error: git2::Error| failed(format!("the commits from {} to {} cannot be read", base.short(), head.short()), &error);
        let shallow = self.is_shallow();
        self.with(|repo| {
            let clone = shallow_clone(repo).map_err(wrong)?;
            let repo = clone.as_ref().unwrap_or(repo);
            let mut walk = repo.revwalk().map_err(wrong)?;
            walk.set_sorting(git2::Sort::TIME | git2::Sort::TOPOLOGICAL).map_err(wrong)?;
            walk.push(oid(head)?).map_err(wrong)?;
            walk.hide(oid(base)?).map_err(wrong)?;
            let mut log = Log::default();
            for id in walk {
                if log.commits.len() == limit {
                    log.more = true;
                    break;
                }
                let commit = repo.find_commit(id.map_err(wrong)?).map_err(wrong)?;
                // What the commit at the border of a shallow clone changed is not known: its parents are not here.
                let border = shallow && commit.parent_count() == 0;
                log.more |= border;
                let paths = if border { Vec::new() } else { changed_by(repo, &commit)? };
                log.commits.push(LoggedCommit { commit: info(&commit)?, paths });
            }
            Ok(log)
        })
    }

    fn files(&self, commit: &CommitId, dir: &RepoPath) -> Result<Vec<TreeEntry>> {
        self.with(|repo| tree::files(repo, &tree_of(repo, commit)?, dir))
    }

    fn read(&self, commit: &CommitId, path: &RepoPath) -> Result<Option<Vec<u8>>> {
        self.with(|repo| {
            let Some(entry) = tree::entry(repo, &tree_of(repo, commit)?, path)? else { return Ok(None) };
            if entry.kind != git2::ObjectType::Blob {
                return Ok(None);
            }
            match repo.find_blob(entry.id) {
                Ok(blob) => Ok(Some(blob.content().to_owned())),
                // A clone without file contents fetches them as they are asked for, which only git can.
                Err(error) if error.code() == ErrorCode::NotFound => GitCli::at(&self.root).read(commit, path),
                Err(error) => Err(failed(format!("`{path}` of {} cannot be read", commit.short()), &error)),
            }
        })
    }

    fn tree(&self, id: &str) -> Result<Vec<TreeEntry>> {
        let wrong = |error: git2::Error| failed(format!("tree {id} cannot be read"), &error);
        self.with(|repo| {
            let tree = repo.find_object(Oid::from_str(id).map_err(wrong)?, None).and_then(|object| object.peel_to_tree()).map_err(wrong)?;
            Ok(tree::entries(&tree))
        })
    }

    fn blob(&self, id: &str) -> Result<Vec<u8>> {
        self.with(|repo| match Oid::from_str(id).and_then(|id| repo.find_blob(id)) {
            Ok(blob) => Ok(blob.content().to_owned()),
            Err(error) if error.code() == ErrorCode::NotFound => GitCli::at(&self.root).blob(id),
            Err(error) => Err(failed(format!("object {id} cannot be read"), &error)),
        })
    }

    fn hash_on_disk(&self, path: &RepoPath) -> Result<Option<TreeEntry>> {
        self.with(|repo| worktree::hash(repo, path))
    }
}

fn head(repo: &Repository) -> Result<git2::Reference<'_>> {
    repo.head().map_err(|error| match error.code() {
        ErrorCode::UnbornBranch | ErrorCode::NotFound => super::no_commit_yet(),
        _ => failed("HEAD cannot be read", &error),
    })
}

/// A libgit2 error with what was attempted.
pub(super) fn failed(what: impl Into<String>, error: &git2::Error) -> Error {
    Error::unusable(what).because(error.message())
}

/// An id as libgit2 has it.
pub(super) fn oid(id: &CommitId) -> Result<Oid> {
    Oid::from_str(id.as_str()).map_err(|error| failed(format!("`{id}` is no id of this repository"), &error))
}

fn commit_id(id: Oid) -> Result<CommitId> {
    CommitId::new(id.to_string()).map_err(|error| Error::unusable(error.to_string()))
}

fn find<'repo>(repo: &'repo Repository, id: &CommitId) -> Result<git2::Commit<'repo>> {
    repo.find_commit(oid(id)?).map_err(|error| failed(format!("commit {} cannot be read", id.short()), &error))
}

fn tree_of<'repo>(repo: &'repo Repository, id: &CommitId) -> Result<git2::Tree<'repo>> {
    find(repo, id)?.tree().map_err(|error| failed(format!("the tree of commit {} cannot be read", id.short()), &error))
}

/// The clone of a linked worktree whose history is cut off: the worktree does not see where, and would walk past it.
fn shallow_clone(repo: &Repository) -> std::result::Result<Option<Repository>, git2::Error> {
    let hidden = repo.is_worktree() && is_filled(&repo.commondir().join("shallow"));
    if hidden { Repository::open(repo.commondir()).map(Some) } else { Ok(None) }
}

/// The paths a commit changed: those that differ from every parent, so that a merge brings only what is its own.
fn changed_by(repo: &Repository, commit: &git2::Commit<'_>) -> Result<Vec<RepoPath>> {
    let wrong = |error: git2::Error| failed(format!("commit {} cannot be read", commit.id()), &error);
    let new = commit.tree().map_err(wrong)?;
    let mut changed: Option<BTreeSet<RepoPath>> = None;
    for parent in commit.parents() {
        let differs = tree::differences(repo, &parent.tree().map_err(wrong)?, &new)?;
        let differs: BTreeSet<RepoPath> = differs.into_iter().map(|change| change.path).collect();
        changed = Some(match changed {
            Some(known) => known.intersection(&differs).cloned().collect(),
            None => differs,
        });
    }
    match changed {
        Some(changed) => Ok(changed.into_iter().collect()),
        None => Ok(tree::files(repo, &new, &RepoPath::default())?.into_iter().map(|entry| entry.path).collect()),
    }
}

fn info(commit: &git2::Commit<'_>) -> Result<CommitInfo> {
    let subject = commit.summary_bytes().unwrap_or_default();
    Ok(CommitInfo {
        id: commit_id(commit.id())?,
        subject: String::from_utf8_lossy(subject).into_owned(),
        author: String::from_utf8_lossy(commit.author().name_bytes()).into_owned(),
        time: OffsetDateTime::from_unix_timestamp(commit.time().seconds()).unwrap_or(OffsetDateTime::UNIX_EPOCH),
    })
}

fn describe(commit: &git2::Commit<'_>) -> String {
    let mut options = git2::DescribeOptions::new();
    options.describe_tags().show_commit_oid_as_fallback(true);
    // A clone may hold a tag without the history that leads to it; the short id is what `--always` gives then.
    // Of the commit, not of the repository: for that libgit2 compares the whole work tree, to know whether to add `-dirty`.
    commit.as_object().describe(&options).and_then(|found| found.format(None)).unwrap_or_else(|_| commit.id().to_string()[..7].to_owned())
}

fn source(repo: &Repository) -> Option<String> {
    let origin = repo.find_remote("origin").ok()?;
    super::without_credentials(&String::from_utf8_lossy(origin.url_bytes()))
}

fn is_filled(file: &Path) -> bool {
    file.metadata().is_ok_and(|file| file.len() > 0)
}

fn not_opened(dir: &Path, error: &git2::Error) -> Error {
    let shown = dir.display();
    match error.code() {
        ErrorCode::NotFound => {
            Error::unusable(format!("`{shown}` is not in a git repository")).hint("offbuild compares commits: run it in a clone")
        }
        ErrorCode::Owner => {
            let root = dir.ancestors().find(|dir| dir.join(".git").exists()).unwrap_or(dir);
            Error::unusable(format!("the repository at `{}` belongs to another user", root.display()))
                .because(error.message())
                .hint(format!("if you trust it: `git config --global --add safe.directory {}`", root.display()))
        }
        _ => failed(format!("the repository of `{shown}` cannot be opened"), error),
    }
}

/// True for what the git program reads and libgit2 does not: reftable, SHA-256 objects, extensions to come.
fn is_unreadable(error: &git2::Error) -> bool {
    let text = error.message();
    text.contains("unsupported extension") || text.contains("unknown object format") || text.contains("repository version")
}

/// True when the index is split into one that is shared and what differs from it. The shared one lies beside it, and may stay there
/// when the index is whole again.
fn is_split(repo: &Repository) -> bool {
    let Ok(beside) = repo.path().read_dir() else { return false };
    let shared = beside.flatten().any(|entry| entry.file_name().as_bytes().starts_with(b"sharedindex."));
    shared && repo.index().is_err()
}

/// True when git takes some objects for others (`git replace`): libgit2 would see another history.
fn has_replacements(repo: &Repository) -> bool {
    let loose = repo.commondir().join("refs/replace").read_dir().is_ok_and(|mut entries| entries.next().is_some());
    let packed = || std::fs::read(repo.commondir().join("packed-refs")).unwrap_or_default();
    loose || packed().split(|byte| *byte == b'\n').any(|line| line.get(40..).is_some_and(|name| name.starts_with(b" refs/replace/")))
}

/// True when libgit2 opens it but would stumble later: over directories in the index, or over trees that were never fetched.
fn is_partial(repo: &Repository) -> bool {
    let Ok(config) = repo.config() else { return false };
    if config.get_bool("index.sparse").unwrap_or(false) && config.get_bool("core.sparsecheckout").unwrap_or(false) {
        return true;
    }
    let Ok(mut filters) = config.entries(Some(r"^remote\..*\.partialclonefilter$")) else { return false };
    while let Some(Ok(filter)) = filters.next() {
        if filter.value().is_ok_and(|value| value.contains("tree:")) {
            return true;
        }
    }
    false
}
