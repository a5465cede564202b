//! The walk of a context: which files travel, in the order BuildKit wants them.
//!
//! Entries come sorted by name, a directory before what is in it, and a directory only when it or something below it travels.
//! Directories that cannot hold anything that travels are not read at all. Nothing is opened here.

use crate::build::dockerignore::{DockerIgnore, Trail};
use bollard_buildkit_proto::fsutil::types::Stat;
use std::ffi::OsString;
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

/// Which paths travel: those that match `include` (all, when `None`) and not `exclude`.
#[derive(Debug, Clone)]
pub(super) struct Filter {
    pub(super) include: Option<DockerIgnore>,
    pub(super) exclude: DockerIgnore,
}

/// Go's `fs.FileMode` bits, which is how BuildKit sends modes (<https://pkg.go.dev/io/fs#FileMode>).
mod mode {
    pub(super) const DIR: u32 = 1 << 31;
    pub(super) const SYMLINK: u32 = 1 << 27;
    pub(super) const DEVICE: u32 = 1 << 26;
    pub(super) const PIPE: u32 = 1 << 25;
    pub(super) const SETUID: u32 = 1 << 23;
    pub(super) const SETGID: u32 = 1 << 22;
    pub(super) const CHAR_DEVICE: u32 = 1 << 21;
    pub(super) const STICKY: u32 = 1 << 20;
    /// Everything that is not a regular file.
    pub(super) const TYPE: u32 = DIR | SYMLINK | DEVICE | PIPE | CHAR_DEVICE;
}

/// True for what BuildKit may ask the content of.
pub(super) fn has_content(stat: &Stat) -> bool {
    stat.mode & mode::TYPE == 0
}

/// Walks `root` and hands out each entry that travels; stops at the first error, its own or `emit`'s.
pub(super) fn walk(root: &Path, filter: &Filter, emit: &mut dyn FnMut(Stat) -> Result<(), String>) -> Result<(), String> {
    let include = filter.include.as_ref().map(DockerIgnore::start);
    let mut walk = Walk { root, filter, pending: Vec::new(), emit };
    walk.directory(Path::new(""), include.as_ref(), &filter.exclude.start())
}

struct Walk<'a> {
    root: &'a Path,
    filter: &'a Filter,
    /// Directories on the way that have not been handed out, because nothing below them has been so far.
    pending: Vec<Stat>,
    emit: &'a mut dyn FnMut(Stat) -> Result<(), String>,
}

impl Walk<'_> {
    fn directory(&mut self, dir: &Path, include: Option<&Trail>, exclude: &Trail) -> Result<(), String> {
        let read = |error: std::io::Error| unreadable(dir, &error);
        let mut names: Vec<OsString> = std::fs::read_dir(self.root.join(dir))
            .map_err(read)?
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<Result<_, _>>()
            .map_err(read)?;
        names.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
        for name in names {
            self.entry(&dir.join(name), include, exclude)?;
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, include: Option<&Trail>, exclude: &Trail) -> Result<(), String> {
        let bytes = path.as_os_str().as_bytes();
        let exclude = self.filter.exclude.step(exclude, bytes);
        let excluded = self.filter.exclude.ignores(&exclude);
        let include = self.filter.include.as_ref().zip(include).map(|(matcher, above)| (matcher, matcher.step(above, bytes)));
        // An include pattern is one that would ignore: the same matcher, read the other way round.
        let included = include.as_ref().is_none_or(|(matcher, trail)| matcher.ignores(trail));
        if (excluded && self.filter.exclude.may_skip(bytes))
            || (!included && include.as_ref().is_some_and(|(matcher, _)| !matcher.may_match_below(bytes)))
        {
            return Ok(());
        }
        let data = std::fs::symlink_metadata(self.root.join(path)).map_err(|error| unreadable(path, &error))?;
        let travels = included && !excluded;
        if data.is_dir() {
            self.pending.push(stat(self.root, path, &data)?);
            let depth = self.pending.len();
            if travels {
                self.flush()?;
            }
            let include = include.map(|(_, trail)| trail);
            self.directory(path, include.as_ref(), &exclude)?;
            self.pending.truncate(depth - 1);
            return Ok(());
        }
        // A socket has no content and cannot be made in an image.
        if travels && !data.file_type().is_socket() {
            let stat = stat(self.root, path, &data)?;
            self.flush()?;
            (self.emit)(stat)?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), String> {
        for stat in &mut self.pending {
            // Handed out once: an empty path marks it.
            if !stat.path.is_empty() {
                (self.emit)(std::mem::take(stat))?;
            }
        }
        Ok(())
    }
}

/// What BuildKit is told of a file. Owners are root's, as the docker CLI sends them; extended attributes and hard links stay
/// behind: git has neither, and they would make one commit build differently on two machines.
fn stat(root: &Path, path: &Path, data: &Metadata) -> Result<Stat, String> {
    let Some(text) = path.to_str() else {
        return Err(format!(
            "the name of `{}` is no UTF-8, which BuildKit cannot take; rename it or name it in `.dockerignore`",
            path.display()
        ));
    };
    let kind = data.file_type();
    let (go_kind, linkname, size) = if kind.is_dir() {
        (mode::DIR, String::new(), 0)
    } else if kind.is_symlink() {
        let target = std::fs::read_link(root.join(path)).map_err(|error| unreadable(path, &error))?;
        let target = target.into_os_string().into_string().map_err(|_| format!("the target of the link `{text}` is no UTF-8"))?;
        (mode::SYMLINK, target, data.len())
    } else if kind.is_fifo() {
        (mode::PIPE, String::new(), 0)
    } else if kind.is_char_device() {
        (mode::DEVICE | mode::CHAR_DEVICE, String::new(), 0)
    } else if kind.is_block_device() {
        (mode::DEVICE, String::new(), 0)
    } else {
        (0, String::new(), data.len())
    };
    let unix = data.mode();
    let special = [(0o4000, mode::SETUID), (0o2000, mode::SETGID), (0o1000, mode::STICKY)];
    let special = special.iter().filter(|(bit, _)| unix & bit != 0).fold(0, |bits, (_, bit)| bits | bit);
    let device = if kind.is_char_device() || kind.is_block_device() { data.rdev() } else { 0 };
    Ok(Stat {
        path: text.to_owned(),
        mode: (unix & 0o777) | special | go_kind,
        size: i64::try_from(size).unwrap_or(i64::MAX),
        mod_time: data.mtime().saturating_mul(1_000_000_000).saturating_add(data.mtime_nsec()),
        linkname,
        devmajor: i64::from(rustix::fs::major(device)),
        devminor: i64::from(rustix::fs::minor(device)),
        ..Stat::default()
    })
}

/// The message for a path of the context that cannot be read.
pub(super) fn unreadable(path: &Path, error: &std::io::Error) -> String {
    let name = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let name = name.display();
    match error.kind() {
        std::io::ErrorKind::NotFound => format!("`{name}` disappeared from the build context while it was sent"),
        _ => format!("cannot read `{name}` in the build context: {error}; make it readable or name it in `.dockerignore`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walked(root: &Path, include: Option<&[&str]>, exclude: &[&str]) -> Vec<String> {
        let filter = Filter {
            include: include.map(|patterns| DockerIgnore::from_patterns(patterns).unwrap()),
            exclude: DockerIgnore::from_patterns(exclude).unwrap(),
        };
        let mut paths = Vec::new();
        walk(root, &filter, &mut |stat| {
            paths.push(stat.path);
            Ok(())
        })
        .unwrap();
        paths
    }

    #[test]
    fn only_what_is_asked_for_travels_with_its_directories_first() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["a/x", "a/b/y", "a.b", "c/d/z", "c/d/q.log", "e/f"] {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let root = dir.path();
        let all = ["a", "a/b", "a/b/y", "a/x", "a.b", "c", "c/d", "c/d/q.log", "c/d/z", "e", "e/f"];
        assert_eq!(walked(root, None, &[]), all);
        assert_eq!(walked(root, Some(&["c/d/z"]), &[]), ["c", "c/d", "c/d/z"]);
        assert_eq!(walked(root, Some(&["a*"]), &["a/b"]), ["a", "a/x", "a.b"]);
        assert_eq!(walked(root, Some(&["c", "*/f"]), &["**/*.log"]), ["c", "c/d", "c/d/z", "e", "e/f"]);
        assert_eq!(walked(root, None, &["*", "!c/d/z"]), ["c", "c/d", "c/d/z"]);
        assert_eq!(walked(root, Some(&["gone"]), &[]), Vec::<String>::new());
    }

    #[test]
    fn modes_are_gos() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "12345").unwrap();
        std::fs::set_permissions(dir.path().join("file"), std::fs::Permissions::from_mode(0o4755)).unwrap();
        std::os::unix::fs::symlink("file", dir.path().join("link")).unwrap();
        let filter = Filter { include: None, exclude: DockerIgnore::default() };
        let mut seen = Vec::new();
        walk(dir.path(), &filter, &mut |stat| {
            seen.push((stat.path.clone(), stat.mode & !0o777, stat.size, stat.linkname.clone(), has_content(&stat)));
            Ok(())
        })
        .unwrap();
        let file = ("file".to_owned(), mode::SETUID, 5, String::new(), true);
        let link = ("link".to_owned(), mode::SYMLINK, 4, "file".to_owned(), false);
        assert_eq!(seen, [file, link]);
    }

    #[test]
    fn an_unreadable_name_is_an_error_unless_it_is_excluded() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(std::ffi::OsStr::from_bytes(b"\xff.txt")), "").unwrap();
        let filter = |exclude: &[&str]| Filter { include: None, exclude: DockerIgnore::from_patterns(exclude).unwrap() };
        assert!(walk(dir.path(), &filter(&[]), &mut |_| Ok(())).unwrap_err().contains("is no UTF-8"));
        walk(dir.path(), &filter(&["*.txt"]), &mut |_| Ok(())).unwrap();
    }
}
