//! Ignore rules, read as git reads them: `.gitignore` beside the files, `info/exclude`, `core.excludesFile`.
//!
//! libgit2 has rules of its own where a file negates what another one says, where a `.gitignore` is a link, and where a rule for
//! directories meets one; what it takes for ignored would be a change nobody sees.

use super::wildmatch::{self, Mode};
use crate::names::RepoPath;
use git2::{ErrorCode, Oid, Repository};
use rustix::fs::{FileType, OFlags, fstat, openat};
use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// Where the blob of a file is that a sparse checkout left out.
pub(super) type LeftOut<'a> = Box<dyn Fn(&RepoPath) -> Option<Oid> + 'a>;

/// The rules of a work tree; a directory's are read when they are first asked for.
pub(super) struct Ignores<'a> {
    repo: &'a Repository,
    root: &'a OwnedFd,
    left_out: LeftOut<'a>,
    fold: bool,
    /// `info/exclude`, then `core.excludesFile`.
    everywhere: [Vec<Pattern>; 2],
    /// By path, with a slash at its end; the root's is empty.
    directories: HashMap<Vec<u8>, Directory>,
}

struct Directory {
    /// It is ignored with all that is in it, whatever rules say of that.
    ignored: bool,
    /// Those of its own file, in order.
    patterns: Vec<Pattern>,
}

impl<'a> Ignores<'a> {
    /// The rules of the work tree at `root`.
    pub(super) fn new(repo: &'a Repository, root: &'a OwnedFd, left_out: LeftOut<'a>) -> Self {
        let fold = repo.config().and_then(|config| config.get_bool("core.ignorecase")).unwrap_or(false);
        let exclude = std::fs::read(repo.commondir().join("info/exclude")).unwrap_or_default();
        let user = excludes_file(repo).and_then(|file| std::fs::read(file).ok()).unwrap_or_default();
        let everywhere = [exclude, user].map(|text| patterns(&text));
        Self { repo, root, left_out, fold, everywhere, directories: HashMap::new() }
    }

    /// True when what lies at `path`, a directory with a slash at its end, is ignored, or a directory it is in.
    pub(super) fn is_ignored(&mut self, path: &[u8]) -> bool {
        let parent = parent(path);
        self.know(parent);
        self.directories.get(parent).is_some_and(|directory| directory.ignored) || self.says(path) == Some(true)
    }

    /// Reads the rules of a directory, and of those it is in.
    fn know(&mut self, prefix: &[u8]) {
        if self.directories.contains_key(prefix) {
            return;
        }
        let ignored = !prefix.is_empty() && self.is_ignored(prefix);
        let patterns = if ignored { Vec::new() } else { patterns(&self.file_in(prefix).unwrap_or_default()) };
        self.directories.insert(prefix.to_vec(), Directory { ignored, patterns });
    }

    /// What the last rule that means `path` says: the nearest file's, and in it the last line.
    fn says(&self, path: &[u8]) -> Option<bool> {
        let mut prefix = parent(path);
        let last = |patterns: &[Pattern], base: &[u8]| {
            patterns.iter().rev().find(|pattern| pattern.means(path, base.len(), self.fold)).map(|pattern| !pattern.negative)
        };
        loop {
            if let Some(said) = self.directories.get(prefix).and_then(|directory| last(&directory.patterns, prefix)) {
                return Some(said);
            }
            if prefix.is_empty() {
                return self.everywhere.iter().find_map(|patterns| last(patterns, b""));
            }
            prefix = parent(prefix);
        }
    }

    /// The `.gitignore` of a directory. A link is not followed; what a sparse checkout left out is read from the index.
    fn file_in(&self, prefix: &[u8]) -> Option<Vec<u8>> {
        let path = [prefix, b".gitignore"].concat();
        // Not to wait at a pipe for what nobody writes into it.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let Ok(file) = openat(self.root, path.as_slice(), flags, rustix::fs::Mode::empty()) else {
            let blob = self.repo.find_blob((self.left_out)(&RepoPath::from_git(path))?).ok()?;
            return Some(blob.content().to_owned());
        };
        if FileType::from_raw_mode(fstat(&file).ok()?.st_mode) != FileType::RegularFile {
            return None;
        }
        let mut text = Vec::new();
        File::from(file).read_to_end(&mut text).ok()?;
        Some(text)
    }
}

/// The directory a path lies in, with a slash at its end; the root is empty.
fn parent(path: &[u8]) -> &[u8] {
    let name = path.strip_suffix(b"/").unwrap_or(path);
    &path[..name.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1)]
}

/// The user's own rules: `core.excludesFile`, else a file in the place for configuration.
fn excludes_file(repo: &Repository) -> Option<PathBuf> {
    match repo.config().and_then(|config| config.get_path("core.excludesfile")) {
        Ok(file) => Some(repo.workdir()?.join(file)),
        Err(error) if error.code() == ErrorCode::NotFound => super::user_config_dir().map(|dir| dir.join("ignore")),
        Err(_) => None,
    }
}

/// A line of a file.
struct Pattern {
    text: Vec<u8>,
    /// How much of it is to be taken as it stands.
    literal: usize,
    /// `!`: what it means is not ignored.
    negative: bool,
    /// It means directories only.
    only_dirs: bool,
    /// It means names in every directory below, not a path.
    name: bool,
}

/// The rules a file holds, in order.
fn patterns(text: &[u8]) -> Vec<Pattern> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    text.split(|byte| *byte == b'\n').filter_map(Pattern::of).collect()
}

impl Pattern {
    /// Reads a line; `None` for one that says nothing.
    fn of(line: &[u8]) -> Option<Self> {
        if line.starts_with(b"#") {
            return None;
        }
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        // Lines are words of C, which end at a zero.
        let line = line.split(|byte| *byte == 0).next().unwrap_or_default();
        let line = without_blanks(line);
        let (negative, line) = line.strip_prefix(b"!").map_or((false, line), |rest| (true, rest));
        let (only_dirs, line) = line.strip_suffix(b"/").map_or((false, line), |rest| (true, rest));
        let name = !line.contains(&b'/');
        let line = line.strip_prefix(b"/").unwrap_or(line);
        let literal = line.iter().position(|byte| wildmatch::is_special(*byte)).unwrap_or(line.len());
        (!line.is_empty()).then(|| Self { text: line.to_owned(), literal, negative, only_dirs, name })
    }

    /// True when it means `path`, seen from the directory of its file, whose path is `base` long.
    fn means(&self, path: &[u8], base: usize, fold: bool) -> bool {
        let (is_dir, path) = path.strip_suffix(b"/").map_or((false, path), |path| (true, path));
        if self.only_dirs && !is_dir {
            return false;
        }
        let from = if self.name { parent(path).len() } else { base };
        let Some((begin, rest)) = path.get(from..).and_then(|seen| seen.split_at_checked(self.literal)) else { return false };
        let literal = &self.text[..self.literal];
        if begin != literal && !(fold && begin.eq_ignore_ascii_case(literal)) {
            return false;
        }
        // Only what follows the literal beginning is matched, and `**` there may stand for directories where it otherwise could not: so git has it.
        wildmatch::matches(&self.text[self.literal..], rest, Mode { path: !self.name, fold })
    }
}

/// A line without the blanks at its end, but for one that a backslash keeps.
fn without_blanks(line: &[u8]) -> &[u8] {
    let mut end = 0;
    let mut place = 0;
    while place < line.len() {
        match line[place] {
            b' ' => {}
            b'\\' => {
                place += 1;
                end = place + 1;
            }
            _ => end = place + 1,
        }
        place += 1;
    }
    &line[..end.min(line.len())]
}

#[cfg(test)]
mod tests;
