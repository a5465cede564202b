//! What changed and whose it is.
//!
//! Git yields paths ([`History`], the port; `git` is its adapter); which apps they touch is a pure function of apps, rules
//! and paths (`inputs`). `base` finds the commit to compare with when no rack tells it, `fingerprint` says in one word what an
//! app's inputs are, `verdict` decides. Every verdict carries all its reasons, for the apps left out too.

pub mod affected;
pub mod base;
pub mod committed;
pub mod description;
pub mod dockerfile;
pub mod fingerprint;
pub mod git;
pub mod gitcli;
pub mod inputs;
pub mod lint;
pub mod near;
pub mod reads;
pub mod rulebook;
pub mod survey;
mod tree;
pub mod verdict;
mod worktree;

use crate::names::{CommitId, RepoPath};
use crate::yaml::Place;
use serde::Serialize;
use std::sync::Arc;
use time::OffsetDateTime;

/// Opens the repository that `dir` lies in, through libgit2 or, where that cannot read it, through the git program.
///
/// What is cached from history stays as it was when it was read: open again after a fetch.
pub fn open(dir: &std::path::Path) -> crate::error::Result<Arc<dyn History>> {
    match git::Git::open(dir)? {
        Some(git) => Ok(Arc::new(git)),
        None => Ok(Arc::new(gitcli::GitCli::open(dir)?)),
    }
}

/// How a path changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// Its content, mode, link target or submodule commit differs.
    Modified,
    /// It is gone.
    Deleted,
}

/// A changed path. A rename is two: the old path deleted, the new one added.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Change {
    /// The path.
    pub path: RepoPath,
    /// How.
    pub kind: ChangeKind,
    /// True when it is not committed (modified, staged or untracked).
    pub dirty: bool,
}

/// An entry of a commit's tree, or of the work tree over it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TreeEntry {
    /// The path.
    pub path: RepoPath,
    /// Git's mode: `0o100644`, `0o100755`, `0o120000` (link), `0o160000` (submodule).
    pub mode: u32,
    /// The object id, hex.
    pub id: String,
}

/// A commit, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CommitInfo {
    /// Its id.
    pub id: CommitId,
    /// The first line of its message.
    pub subject: String,
    /// Its author's name.
    pub author: String,
    /// When it was committed.
    #[serde(with = "time::serde::rfc3339")]
    pub time: OffsetDateTime,
}

/// A commit and what it changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedCommit {
    /// The commit.
    pub commit: CommitInfo,
    /// The paths it changed, sorted; of a merge those that differ from every parent.
    pub paths: Vec<RepoPath>,
}

/// The commits between two.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log {
    /// The newest first, children before their parents.
    pub commits: Vec<LoggedCommit>,
    /// True when there are more than were asked for, or history is cut off in between.
    pub more: bool,
}

/// HEAD.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Head {
    /// The commit.
    pub commit: CommitInfo,
    /// The branch, when HEAD is on one.
    pub branch: Option<String>,
    /// As `git describe --tags --always` tells it.
    pub describe: String,
    /// The remote `origin`'s URL without credentials, when there is one.
    pub source: Option<String>,
}

/// How two commits stand to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ancestry {
    /// They are the same.
    Same,
    /// The first is an ancestor of the second.
    Ancestor,
    /// The second is an ancestor of the first.
    Descendant,
    /// Neither.
    Diverged,
    /// The history here does not reach far enough to tell.
    Unknown,
}

/// A repository's history and work tree, read only. Calls block: run them off the async threads.
pub trait History: Send + Sync {
    /// The root of the work tree.
    fn root(&self) -> &std::path::Path;

    /// HEAD.
    fn head(&self) -> crate::error::Result<Head>;

    /// The commit HEAD is at: what [`History::head`] tells, without the rest.
    fn tip(&self) -> crate::error::Result<CommitId>;

    /// The commit a revision names; `None` when it does not exist here (see [`History::is_shallow`]).
    fn resolve(&self, revision: &str) -> crate::error::Result<Option<CommitId>>;

    /// A commit of this repository, for people.
    fn commit(&self, id: &CommitId) -> crate::error::Result<CommitInfo>;

    /// True when history is cut off.
    fn is_shallow(&self) -> bool;

    /// The paths that differ between the trees of two commits, sorted.
    fn changes(&self, base: &CommitId, head: &CommitId) -> crate::error::Result<Vec<Change>>;

    /// The paths that differ between HEAD and the work tree, untracked ones among them, ignored ones not, sorted.
    fn dirty(&self) -> crate::error::Result<Vec<Change>>;

    /// The best common ancestors: none when there is none here, several where two histories were merged crosswise.
    fn merge_bases(&self, one: &CommitId, two: &CommitId) -> crate::error::Result<Vec<CommitId>>;

    /// How `one` stands to `two`.
    fn ancestry(&self, one: &CommitId, two: &CommitId) -> crate::error::Result<Ancestry> {
        if one == two {
            return Ok(Ancestry::Same);
        }
        if self.resolve(one.as_str())?.is_none() || self.resolve(two.as_str())?.is_none() {
            return Ok(Ancestry::Unknown);
        }
        Ok(ancestry_of(one, two, self.merge_bases(one, two)?.first(), self.is_shallow()))
    }

    /// The commits that `head` has and `base` has not, at most `limit` of them, with the paths they changed.
    fn log(&self, base: &CommitId, head: &CommitId, limit: usize) -> crate::error::Result<Log>;

    /// The files below `dir` in a commit (the file itself when it is one), sorted; none when it is not there.
    fn files(&self, commit: &CommitId, dir: &RepoPath) -> crate::error::Result<Vec<TreeEntry>>;

    /// A file's content in a commit.
    fn read(&self, commit: &CommitId, path: &RepoPath) -> crate::error::Result<Option<Vec<u8>>>;

    /// What a tree, or a commit's root, holds by object id; the paths are names.
    fn tree(&self, id: &str) -> crate::error::Result<Vec<TreeEntry>>;

    /// A blob's content by object id.
    fn blob(&self, id: &str) -> crate::error::Result<Vec<u8>>;

    /// The entry a path of the work tree would get if it were committed: mode and object id of what is on disk.
    fn hash_on_disk(&self, path: &RepoPath) -> crate::error::Result<Option<TreeEntry>>;
}

/// Why a path is an app's input, or is not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Rule {
    /// What the rule is: `directory`, `uses`, `global`, `context`, `dockerfile`, `manifest`, `ignore`, …
    pub kind: &'static str,
    /// The pattern or path it matches, as people write it.
    pub matches: String,
    /// Where it stands (`apps.yaml:31:9`, `apps/web/convox.yml:4:5`); `None` for what needs no rule.
    pub place: Option<Place>,
    /// The chain from the rule to the app: `auth` → `ruby`.
    pub through: Vec<String>,
}

/// One reason for a verdict: a path and the rule that makes it count.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct PathReason {
    /// The change.
    pub change: Change,
    /// The rule.
    pub rule: Rule,
}

/// `modified services/api/a.rb (directory services/api, apps.yaml:12:3)`; what is not committed is `dirty`.
impl std::fmt::Display for PathReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { change, rule } = self;
        write!(f, "{}{} {} ({rule})", if change.dirty { "dirty: " } else { "" }, change.kind, change.path)
    }
}

/// `uses Gemfile, apps.yaml:31:9, through auth → ruby`.
impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind, self.matches)?;
        if let Some(place) = &self.place {
            write!(f, ", {place}")?;
        }
        if !self.through.is_empty() {
            write!(f, ", through {}", self.through.join(" → "))?;
        }
        Ok(())
    }
}

impl std::fmt::Display for ChangeKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Added => "added",
            Self::Modified => "modified",
            Self::Deleted => "deleted",
        })
    }
}

fn no_commit_yet() -> crate::error::Error {
    crate::error::Error::unusable("the repository has no commit yet").hint("commit what is to be deployed: `git add -A && git commit`")
}

/// How HEAD stands to a live commit.
///
/// Where the history here does not reach (a shallow clone, or one made before what is live was pushed), the times of the two
/// commits tell, unless they are equal: that of the live one is `committed`, as its build records it, or its own when it is here.
pub fn standing(
    history: &dyn History,
    head: &CommitId,
    live: &CommitId,
    committed: Option<OffsetDateTime>,
) -> crate::error::Result<Ancestry> {
    let known = history.ancestry(head, live)?;
    if known != Ancestry::Unknown {
        return Ok(known);
    }
    let ours = history.commit(head)?.time;
    // A commit that is not here has no time but the recorded one.
    Ok(match committed.or_else(|| history.commit(live).ok().map(|live| live.time)) {
        Some(theirs) if theirs > ours => Ancestry::Ancestor,
        Some(theirs) if theirs < ours => Ancestry::Descendant,
        _ => Ancestry::Unknown,
    })
}

/// How `one` stands to another commit `two`, told by their best common ancestor.
fn ancestry_of(one: &CommitId, two: &CommitId, base: Option<&CommitId>, shallow: bool) -> Ancestry {
    match base {
        _ if one == two => Ancestry::Same,
        Some(base) if base == one => Ancestry::Ancestor,
        Some(base) if base == two => Ancestry::Descendant,
        // Behind the border of a shallow clone they may still meet.
        None if shallow => Ancestry::Unknown,
        _ => Ancestry::Diverged,
    }
}

/// A remote's URL without user and password; `None` when it cannot be told where those are. The user of `git@host:path`
/// is no secret and stays.
fn without_credentials(url: &str) -> Option<String> {
    if !url.contains("://") {
        return (!url.is_empty()).then(|| url.to_owned());
    }
    let mut url = url::Url::parse(url).ok()?;
    // Both fail for URLs that can hold no user, which then have none.
    let _ = url.set_password(None);
    if url.scheme() != "ssh" {
        let _ = url.set_username("");
    }
    Some(url.into())
}

#[cfg(test)]
mod tests {
    use super::without_credentials;

    #[test]
    fn a_url_is_shown_without_its_credentials() {
        let table = [
            ("https://someone:hunter2@example.com/a/b.git", Some("https://example.com/a/b.git")),
            ("https://token@example.com/a/b", Some("https://example.com/a/b")),
            ("ssh://git:pw@example.com:2222/a", Some("ssh://git@example.com:2222/a")),
            ("git@example.com:a/b.git", Some("git@example.com:a/b.git")),
            ("file:///srv/repo", Some("file:///srv/repo")),
            ("../repo", Some("../repo")),
            ("https://u:p/w@example.com/x", None),
            ("", None),
        ];
        for (url, shown) in table {
            assert_eq!(without_credentials(url).as_deref(), shown, "{url}");
        }
    }
}
