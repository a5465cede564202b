//! History through the git program, for repositories libgit2 cannot read: reftable, SHA-256 objects, a sparse or split index,
//! clones without trees (git fetches those as they are asked for), replaced objects.
//!
//! Its answers are those of [`super::git`]; the tests ask both. Each question is one run of git or two, of plumbing commands with
//! `-z`, without a pager, a prompt, or a write to the index.

use super::{Change, ChangeKind, CommitInfo, Head, History, Log, LoggedCommit, TreeEntry, worktree};
use crate::error::{Error, Result};
use crate::names::{CommitId, RepoPath};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{ErrorKind, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use time::OffsetDateTime;

/// Fields of a commit in `git log`: id, parents, author, time, subject.
const LOG_FORMAT: &str = "--format=%H%x00%P%x00%an%x00%ct%x00%s";

/// Commits asked about in one run: their ids fit the pipe's buffer, so that writing them never waits for reading the answers.
const AT_ONCE: usize = 500;

/// A repository, read by running git.
#[derive(Debug)]
pub struct GitCli {
    root: PathBuf,
}

impl GitCli {
    /// Opens the repository that `dir` lies in. Fails when git is not installed or does not accept it.
    pub fn open(dir: &Path) -> Result<Self> {
        let output = Self { root: dir.to_owned() }.output(&["rev-parse", "--show-toplevel"], &[], None)?;
        if !output.status.success() {
            return Err(Error::unusable(format!("git cannot use the repository of `{}`", dir.display())).because(said(&output)));
        }
        Ok(Self { root: PathBuf::from(OsString::from_vec(one_line(output.stdout))) })
    }

    /// A repository that libgit2 has opened already, with its root.
    pub(super) fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    fn output(&self, args: &[&str], paths: &[&OsStr], input: Option<&[u8]>) -> Result<Output> {
        let mut command = Command::new("git");
        command.arg("-C").arg(&self.root).args(["--no-pager", "--literal-pathspecs"]).args(args).args(paths);
        worktree::by_place_only(&mut command);
        command.env("LC_ALL", "C").env("GIT_OPTIONAL_LOCKS", "0").env("GIT_TERMINAL_PROMPT", "0");
        if args.first() == Some(&"rev-parse") {
            // "Is it here?" is not to be answered by fetching it.
            command.env("GIT_NO_LAZY_FETCH", "1");
        }
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() }).stdout(Stdio::piped()).stderr(Stdio::piped());
        let not_run = |error: std::io::Error| {
            let wrong =
                Error::unusable("the repository is of a kind that only the git program reads, and git could not be run").because(&error);
            if error.kind() == ErrorKind::NotFound {
                wrong.hint("install git, or clone with `--ref-format=files --object-format=sha1`")
            } else {
                wrong
            }
        };
        let mut child = command.spawn().map_err(not_run)?;
        if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
            // A program that ends early says why on its own.
            let _ = stdin.write_all(input);
        }
        child.wait_with_output().map_err(not_run)
    }

    /// The output of a command that has to end well.
    fn run(&self, args: &[&str], paths: &[&OsStr]) -> Result<Vec<u8>> {
        let output = self.output(args, paths, None)?;
        if output.status.success() { Ok(output.stdout) } else { Err(went_wrong(args, &output)) }
    }

    /// As [`GitCli::run`]; `None` when it ends with code 1, as git says "no".
    fn ask(&self, args: &[&str], paths: &[&OsStr]) -> Result<Option<Vec<u8>>> {
        let output = self.output(args, paths, None)?;
        match output.status.code() {
            Some(0) => Ok(Some(output.stdout)),
            Some(1) => Ok(None),
            _ => Err(went_wrong(args, &output)),
        }
    }

    /// Fills in the paths that commits changed.
    fn changed_by(&self, commits: &mut [LoggedCommit], shallow: bool) -> Result<()> {
        let mut args =
            vec!["diff-tree", "--stdin", "-r", "-z", "-c", "--always", "--no-renames", "--name-only", "--ignore-submodules=none"];
        if !shallow {
            args.push("--root");
        }
        let asked: String = commits.iter().map(|logged| format!("{}\n", logged.commit.id)).collect();
        let output = self.output(&args, &[], Some(asked.as_bytes()))?;
        if !output.status.success() {
            return Err(went_wrong(&args, &output));
        }
        // Each id in the order asked for, followed by its paths; no path is the id of the very commit that comes next.
        let mut records = records(&output.stdout).peekable();
        let ids: Vec<CommitId> = commits.iter().map(|logged| logged.commit.id.clone()).collect();
        for (at, logged) in commits.iter_mut().enumerate() {
            records.next();
            let next = ids.get(at + 1).map(|id| id.as_str().as_bytes());
            while let Some(path) = records.next_if(|record| Some(*record) != next) {
                logged.paths.push(RepoPath::from_git(path));
            }
            logged.paths.sort();
        }
        Ok(())
    }

    fn text(&self, args: &[&str]) -> Result<Option<String>> {
        Ok(self.ask(args, &[])?.map(|output| String::from_utf8_lossy(&one_line(output)).into_owned()))
    }

    fn hash_bytes(&self, bytes: &[u8]) -> Result<String> {
        let args = ["hash-object", "-t", "blob", "--no-filters", "--stdin"];
        let output = self.output(&args, &[], Some(bytes))?;
        if output.status.success() { Ok(id_text(output.stdout)) } else { Err(went_wrong(&args, &output)) }
    }

    /// Mode and object id of a path in the index.
    fn staged(&self, path: &RepoPath) -> Result<Option<TreeEntry>> {
        let listed = self.run(&["ls-files", "--stage", "-z", "--"], &[os(path)])?;
        Ok(records(&listed).find_map(|record| {
            let (facts, name) = split_at_tab(record)?;
            let mut words = facts.split(' ');
            let mode = u32::from_str_radix(words.next()?, 8).ok()?;
            let id = words.next()?.to_owned();
            (name == path.as_bytes()).then(|| TreeEntry { path: path.clone(), mode, id })
        }))
    }

    fn file_mode(&self, path: &RepoPath, executable: bool) -> Result<u32> {
        let untrusted = self.text(&["config", "--type=bool", "--get", "core.filemode"])?.as_deref() == Some("false");
        let known = if untrusted { self.staged(path)?.map(|entry| entry.mode).filter(|mode| is_file(*mode)) } else { None };
        let on_disk = if executable && !untrusted { 0o100_755 } else { 0o100_644 };
        Ok(known.unwrap_or(on_disk))
    }

    /// As `worktree` does it.
    fn hash_submodule(&self, path: &RepoPath) -> Result<Option<String>> {
        let full = path.under(&self.root);
        if !worktree::is_checked_out(path, &full)? {
            return Ok(self.staged(path)?.filter(|entry| entry.mode == worktree::SUBMODULE).map(|entry| entry.id));
        }
        let inner = Self { root: full };
        let zero = "0".repeat(40);
        let at = inner.resolve("HEAD")?.map_or(zero, |commit| commit.to_string());
        let changes = inner.dirty()?;
        if changes.is_empty() {
            return Ok(Some(at));
        }
        let text = worktree::submodule_state(&at, &changes, |path| inner.hash_on_disk(path))?;
        inner.hash_bytes(&text).map(Some)
    }
}

impl History for GitCli {
    fn root(&self) -> &Path {
        &self.root
    }

    fn head(&self) -> Result<Head> {
        let id = self.tip()?;
        let source = self.text(&["config", "--get", "remote.origin.url"])?;
        let describe = self.output(&["describe", "--tags", "--always", "--abbrev=7"], &[], None)?;
        Ok(Head {
            commit: self.commit(&id)?,
            branch: self.text(&["symbolic-ref", "--quiet", "--short", "HEAD"])?,
            describe: if describe.status.success() { id_text(describe.stdout) } else { id.as_str()[..7].to_owned() },
            source: source.and_then(|source| super::without_credentials(&source)),
        })
    }

    fn tip(&self) -> Result<CommitId> {
        self.resolve("HEAD")?.ok_or_else(super::no_commit_yet)
    }

    fn resolve(&self, revision: &str) -> Result<Option<CommitId>> {
        let asked = format!("{revision}^{{commit}}");
        let output = self.output(&["rev-parse", "--verify", "--quiet", "--end-of-options", &asked], &[], None)?;
        if !output.status.success() {
            return if said(&output).contains("ambiguous") {
                Err(Error::unusable(format!("revision `{revision}` cannot be read")).because(said(&output)))
            } else {
                Ok(None)
            };
        }
        commit_id(&id_text(output.stdout)).map(Some)
    }

    fn commit(&self, id: &CommitId) -> Result<CommitInfo> {
        let format = "--format=%an%x00%ct%x00%s";
        let text = self.run(&["log", "-1", "--no-show-signature", "--no-color", "--encoding=UTF-8", format, id.as_str(), "--"], &[])?;
        let text = String::from_utf8_lossy(&one_line(text)).into_owned();
        let mut parts = text.splitn(3, '\0');
        let author = parts.next().unwrap_or_default().to_owned();
        let seconds = parts.next().and_then(|seconds| seconds.parse().ok()).unwrap_or_default();
        let subject = parts.next().unwrap_or_default().to_owned();
        let time = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        Ok(CommitInfo { id: id.clone(), subject, author, time })
    }

    fn is_shallow(&self) -> bool {
        self.text(&["rev-parse", "--is-shallow-repository"]).is_ok_and(|answer| answer.as_deref() == Some("true"))
    }

    fn changes(&self, base: &CommitId, head: &CommitId) -> Result<Vec<Change>> {
        let args = ["diff-tree", "-r", "-z", "--no-renames", "--name-status", "--ignore-submodules=none", base.as_str(), head.as_str()];
        let listed = self.run(&args, &[])?;
        let mut records = records(&listed);
        let mut found = Vec::new();
        while let (Some(status), Some(path)) = (records.next(), records.next()) {
            let kind = match status {
                b"A" => ChangeKind::Added,
                b"D" => ChangeKind::Deleted,
                _ => ChangeKind::Modified,
            };
            found.push(Change { path: RepoPath::from_git(path), kind, dirty: false });
        }
        found.sort();
        Ok(found)
    }

    fn dirty(&self) -> Result<Vec<Change>> {
        let args = ["status", "--porcelain=v2", "-z", "--untracked-files=all", "--no-renames", "--ignore-submodules=none"];
        let listed = self.run(&args, &[])?;
        let mut found = BTreeMap::new();
        for record in records(&listed) {
            let Some((kind, path)) = status_of(record) else { continue };
            found.entry(RepoPath::from_git(path)).and_modify(|known| *known = ChangeKind::Modified).or_insert(kind);
        }
        Ok(found.into_iter().map(|(path, kind)| Change { path, kind, dirty: true }).collect())
    }

    fn merge_bases(&self, one: &CommitId, two: &CommitId) -> Result<Vec<CommitId>> {
        let found = self.text(&["merge-base", "--all", one.as_str(), two.as_str()])?.unwrap_or_default();
        found.lines().map(commit_id).collect()
    }

    fn log(&self, base: &CommitId, head: &CommitId, limit: usize) -> Result<Log> {
        let range = format!("{}..{}", base.as_str(), head.as_str());
        let most = format!("-n{}", limit.saturating_add(1));
        let args = ["log", "-z", "-s", "--date-order", "--no-show-signature", "--no-color", "--encoding=UTF-8", LOG_FORMAT, &most, &range];
        let listed = self.run(&[&args[..], &["--"]].concat(), &[])?;
        let listed = listed.strip_suffix(b"\0").unwrap_or(&listed);
        let fields: Vec<&[u8]> = if listed.is_empty() { Vec::new() } else { listed.split(|byte| *byte == 0).collect() };
        let shallow = self.is_shallow();
        let mut log = Log::default();
        for record in fields.chunks_exact(5) {
            let text = |at: usize| String::from_utf8_lossy(record[at]).into_owned();
            // What the commit at the border of a shallow clone changed is not known.
            log.more |= shallow && record[1].is_empty();
            let time = OffsetDateTime::from_unix_timestamp(text(3).parse().unwrap_or_default()).unwrap_or(OffsetDateTime::UNIX_EPOCH);
            let commit = CommitInfo { id: commit_id(&text(0))?, subject: text(4), author: text(2), time };
            log.commits.push(LoggedCommit { commit, paths: Vec::new() });
        }
        log.more |= log.commits.len() > limit;
        log.commits.truncate(limit);
        for part in log.commits.chunks_mut(AT_ONCE) {
            self.changed_by(part, shallow)?;
        }
        Ok(log)
    }

    fn files(&self, commit: &CommitId, dir: &RepoPath) -> Result<Vec<TreeEntry>> {
        let paths: &[&OsStr] = if dir.is_root() { &[] } else { &[os(dir)] };
        let listed = self.run(&["ls-tree", "-r", "-z", "--full-tree", commit.as_str(), "--"], paths)?;
        let mut found: Vec<TreeEntry> = records(&listed).filter_map(tree_entry).collect();
        found.sort();
        Ok(found)
    }

    fn read(&self, commit: &CommitId, path: &RepoPath) -> Result<Option<Vec<u8>>> {
        if path.is_root() {
            return Ok(None);
        }
        let listed = self.run(&["ls-tree", "-z", "--full-tree", commit.as_str(), "--"], &[os(path)])?;
        let entry = records(&listed).filter_map(tree_entry).find(|entry| entry.path == *path);
        match entry.filter(|entry| is_file(entry.mode) || entry.mode == worktree::LINK) {
            Some(entry) => self.run(&["cat-file", "blob", &entry.id], &[]).map(Some),
            None => Ok(None),
        }
    }

    fn tree(&self, id: &str) -> Result<Vec<TreeEntry>> {
        Ok(records(&self.run(&["ls-tree", "-z", "--full-tree", id], &[])?).filter_map(tree_entry).collect())
    }

    fn blob(&self, id: &str) -> Result<Vec<u8>> {
        self.run(&["cat-file", "blob", id], &[])
    }

    fn hash_on_disk(&self, path: &RepoPath) -> Result<Option<TreeEntry>> {
        let Some(metadata) = worktree::metadata(&self.root, path)? else { return Ok(None) };
        let full = path.under(&self.root);
        let (mode, id) = if metadata.is_symlink() {
            (worktree::LINK, self.hash_bytes(&worktree::link_target(path, &full)?)?)
        } else if metadata.is_file() {
            let mut hinted = OsString::from("--path=");
            hinted.push(os(path));
            let id = self.run(&["hash-object"], &[&hinted, OsStr::new("--"), full.as_os_str()])?;
            (self.file_mode(path, worktree::is_executable(&metadata))?, id_text(id))
        } else if metadata.is_dir() {
            match self.hash_submodule(path)? {
                Some(id) => (worktree::SUBMODULE, id),
                None => return Ok(None),
            }
        } else {
            return Ok(None);
        };
        Ok(Some(TreeEntry { path: path.clone(), mode, id }))
    }
}

/// The kind and path of a record of `git status --porcelain=v2 -z`; `None` for what is no difference to HEAD.
fn status_of(record: &[u8]) -> Option<(ChangeKind, &[u8])> {
    // `1 XY sub mH mI mW hH hI path`, `u XY sub m1 m2 m3 mW h1 h2 h3 path`, `? path`.
    let path_after = |fields: usize| record.splitn(fields + 1, |byte| *byte == b' ').nth(fields);
    match record.first()? {
        b'?' => Some((ChangeKind::Added, path_after(1)?)),
        b'u' => Some((ChangeKind::Modified, path_after(10)?)),
        b'1' => {
            let kind = match (record.get(2)?, record.get(3)?) {
                (b'A', b'D') => return None,
                (b'A', _) | (_, b'A') => ChangeKind::Added,
                (b'D', _) | (_, b'D') => ChangeKind::Deleted,
                _ => ChangeKind::Modified,
            };
            Some((kind, path_after(8)?))
        }
        _ => None,
    }
}

/// `mode type id<tab>path`.
fn tree_entry(record: &[u8]) -> Option<TreeEntry> {
    let (facts, path) = split_at_tab(record)?;
    let mut words = facts.split(' ');
    let mode = u32::from_str_radix(words.next()?, 8).ok()?;
    // Repositories from git's first days hold group-writable modes; git reads them as the plain ones.
    let mode = if is_file(mode) { if mode & 0o100 != 0 { 0o100_755 } else { 0o100_644 } } else { mode };
    Some(TreeEntry { path: RepoPath::from_git(path), mode, id: words.nth(1)?.to_owned() })
}

fn is_file(mode: u32) -> bool {
    mode & 0o170_000 == 0o100_000
}

fn split_at_tab(record: &[u8]) -> Option<(&str, &[u8])> {
    let tab = record.iter().position(|byte| *byte == b'\t')?;
    Some((std::str::from_utf8(&record[..tab]).ok()?, &record[tab + 1..]))
}

fn records(output: &[u8]) -> impl Iterator<Item = &[u8]> {
    output.split(|byte| *byte == 0).filter(|record| !record.is_empty())
}

fn os(path: &RepoPath) -> &OsStr {
    OsStr::from_bytes(path.as_bytes())
}

fn one_line(mut output: Vec<u8>) -> Vec<u8> {
    if output.last() == Some(&b'\n') {
        output.pop();
    }
    output
}

fn id_text(output: Vec<u8>) -> String {
    String::from_utf8_lossy(&output).trim().to_owned()
}

fn commit_id(text: &str) -> Result<CommitId> {
    CommitId::new(text).map_err(|error| Error::unusable(error.to_string()))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

fn went_wrong(args: &[&str], output: &Output) -> Error {
    Error::unusable(format!("`git {}` failed ({})", args.join(" "), output.status)).because(said(output))
}
