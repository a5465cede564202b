//! The files of a repository by their paths in it: on disk, or as a commit has them.
//!
//! Whoever finds and reads configuration, manifests and Dockerfiles does it through [`Files`], so that the same code answers
//! for the work tree and for a commit that is not checked out.

use crate::names::RepoPath;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Dir,
    /// A file.
    File {
        /// Somebody may run it.
        executable: bool,
    },
    /// A device, a pipe, a submodule.
    Other,
}

/// An entry of a directory, links not followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: Vec<u8>,
    /// It is a directory.
    pub is_dir: bool,
    /// It is a link.
    pub is_link: bool,
}

impl Listed {
    /// Its path, when it was listed in `dir`.
    #[must_use]
    pub fn below(&self, dir: &RepoPath) -> RepoPath {
        RepoPath::from_git(if dir.is_root() { self.name.clone() } else { [dir.as_bytes(), b"/", &self.name].concat() })
    }
}

/// Files by their paths in the repository.
pub trait Files: Send + Sync {
    /// What is at a path, links followed; `None` when there is nothing.
    fn kind(&self, path: &RepoPath) -> io::Result<Option<Kind>>;

    /// Where the link at a path leads, as it is written; `None` when there is no link.
    fn link(&self, path: &RepoPath) -> Option<Vec<u8>>;

    /// What a file holds, links followed.
    fn read(&self, path: &RepoPath) -> io::Result<Vec<u8>>;

    /// What a directory holds, in any order.
    fn list(&self, dir: &RepoPath) -> io::Result<Vec<Listed>>;
}

/// As many links as the kernel follows.
pub(crate) const MOST_LINKS: usize = 40;

impl dyn Files + '_ {
    /// True when a link is at the path itself.
    #[must_use]
    pub fn is_link(&self, path: &RepoPath) -> bool {
        self.link(path).is_some()
    }

    /// The paths that `path` is taken for as the links on its way are followed, one after the other, as long as they stay
    /// in the repository. What is there need not exist.
    #[must_use]
    pub fn through_links(&self, path: &RepoPath) -> Vec<RepoPath> {
        let after_first = |path: &RepoPath| {
            let ends = path.as_bytes().iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
            ends.chain([path.as_bytes().len()]).find_map(|end| {
                let (link, rest) = path.as_bytes().split_at(end);
                let link = RepoPath::from_git(link);
                let target = String::from_utf8(self.link(&link)?).ok()?;
                let full = [link.parent().join(&target)?.as_bytes(), rest].concat();
                Some(RepoPath::from_git(full.strip_prefix(b"/").unwrap_or(&full)))
            })
        };
        std::iter::successors(after_first(path), after_first).take(MOST_LINKS).collect()
    }

    /// A file's text.
    pub fn text(&self, path: &RepoPath) -> io::Result<String> {
        String::from_utf8(self.read(path)?).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
    }

    /// True when there is a file, and that can be told.
    #[must_use]
    pub fn is_file(&self, path: &RepoPath) -> bool {
        matches!(self.kind(path), Ok(Some(Kind::File { .. })))
    }

    /// True when there is a directory.
    #[must_use]
    pub fn is_dir(&self, path: &RepoPath) -> bool {
        matches!(self.kind(path), Ok(Some(Kind::Dir)))
    }

    /// True when there is anything.
    #[must_use]
    pub fn exists(&self, path: &RepoPath) -> bool {
        matches!(self.kind(path), Ok(Some(_)))
    }
}

/// The files on disk.
#[derive(Debug, Clone)]
pub struct OnDisk {
    root: PathBuf,
}

impl OnDisk {
    /// Those below `root`, the repository's.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// True when just this is at a path itself: a link, which is of kind `Other` here, is not what it leads to.
    #[must_use]
    pub fn has(&self, path: &RepoPath, kind: Option<Kind>) -> bool {
        kind_of(std::fs::symlink_metadata(path.under(&self.root))).is_ok_and(|found| found == kind)
    }
}

fn kind_of(found: io::Result<std::fs::Metadata>) -> io::Result<Option<Kind>> {
    match found {
        Ok(meta) if meta.is_dir() => Ok(Some(Kind::Dir)),
        Ok(meta) if meta.is_file() => Ok(Some(Kind::File { executable: meta.permissions().mode() & 0o111 != 0 })),
        Ok(_) => Ok(Some(Kind::Other)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Files for OnDisk {
    fn kind(&self, path: &RepoPath) -> io::Result<Option<Kind>> {
        kind_of(std::fs::metadata(path.under(&self.root)))
    }

    fn link(&self, path: &RepoPath) -> Option<Vec<u8>> {
        std::fs::read_link(path.under(&self.root)).ok().map(|target| target.into_os_string().into_vec())
    }

    fn read(&self, path: &RepoPath) -> io::Result<Vec<u8>> {
        std::fs::read(path.under(&self.root))
    }

    fn list(&self, dir: &RepoPath) -> io::Result<Vec<Listed>> {
        let listed = |entry: std::fs::DirEntry| {
            let kind = entry.file_type()?;
            Ok(Listed { name: entry.file_name().into_vec(), is_dir: kind.is_dir(), is_link: kind.is_symlink() })
        };
        std::fs::read_dir(dir.under(&self.root))?.map(|entry| entry.and_then(listed)).collect()
    }
}
