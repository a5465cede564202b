//! Follow-paths: the paths of a build's `COPY`s, through symbolic links and wildcards, as include patterns.
//!
//! BuildKit names the paths a build reads and leaves it to the client to find out which links lie on the way (fsutil's
//! `FollowLinks`). A link's target is taken inside the context: `/x` and `../../x` both end at its root.

use crate::build::dockerignore::DockerIgnore;
use std::collections::BTreeSet;
use std::io;
use std::path::{Component, Path, PathBuf};

/// The include patterns for these paths; `None` when one of them is the whole context.
pub(super) fn follow(root: &Path, paths: &[String]) -> io::Result<Option<Vec<String>>> {
    let mut found = BTreeSet::new();
    for path in paths {
        resolve(root, &inside(Path::new(path)), &mut found)?;
    }
    if found.contains(Path::new("")) {
        return Ok(None);
    }
    Ok(Some(found.iter().filter_map(|path| path.to_str().map(str::to_owned)).collect()))
}

/// The path without `.` and `..`, which stop at the root.
fn inside(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => clean.push(part),
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    clean
}

fn resolve(root: &Path, path: &Path, found: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    let parts: Vec<_> = path.components().collect();
    let mut current = PathBuf::new();
    for (at, part) in parts.iter().enumerate() {
        current.push(part);
        let targets = links(root, &current)?;
        if targets.is_empty() {
            continue;
        }
        // The link itself travels too. One that is known was followed already, which also ends a ring of links.
        let rest: PathBuf = parts[at + 1..].iter().collect();
        if !found.insert(current.clone()) && rest.as_os_str().is_empty() {
            return Ok(());
        }
        for target in targets {
            let next = inside(&target.join(&rest));
            if !found.contains(&next) {
                resolve(root, &next, found)?;
            }
        }
        return Ok(());
    }
    found.insert(current);
    Ok(())
}

/// What the links this path names point to; a wildcard in its last part may name several.
fn links(root: &Path, path: &Path) -> io::Result<Vec<PathBuf>> {
    let parent = path.parent().unwrap_or(Path::new(""));
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if !name.contains(['*', '?', '[', '\\']) {
        return Ok(link(root, path)?.into_iter().collect());
    }
    let Ok(pattern) = DockerIgnore::from_patterns([name]) else { return Ok(Vec::new()) };
    let entries = match std::fs::read_dir(root.join(parent)) {
        Ok(entries) => entries,
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut targets = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        if pattern.is_ignored(name.as_encoded_bytes()) {
            targets.extend(link(root, &parent.join(name))?);
        }
    }
    targets.sort();
    Ok(targets)
}

/// Where a link points, from the context's root; `None` when the path is no link.
fn link(root: &Path, path: &Path) -> io::Result<Option<PathBuf>> {
    match std::fs::symlink_metadata(root.join(path)) {
        Ok(data) if data.is_symlink() => {
            let target = std::fs::read_link(root.join(path))?;
            let from = path.parent().unwrap_or(Path::new(""));
            Ok(Some(inside(&if target.is_absolute() { target } else { from.join(target) })))
        }
        Ok(_) => Ok(None),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_and_wildcards_are_followed_inside_the_context() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        std::fs::create_dir_all(root.join("real/deep")).unwrap();
        std::fs::write(root.join("real/deep/file"), "").unwrap();
        symlink("real", root.join("alias")).unwrap();
        symlink("/real/deep/file", root.join("absolute")).unwrap();
        symlink("../../../real", root.join("outside")).unwrap();
        symlink("b", root.join("a")).unwrap();
        symlink("a", root.join("b")).unwrap();
        symlink("real/deep/file", root.join("one.txt")).unwrap();
        let table: &[(&[&str], &[&str])] = &[
            (&["real/deep"], &["real/deep"]),
            (&["alias/deep/file"], &["alias", "real/deep/file"]),
            (&["absolute"], &["absolute", "real/deep/file"]),
            (&["outside"], &["outside", "real"]),
            (&["a"], &["a", "b"]),
            (&["*.txt"], &["*.txt", "real/deep/file"]),
            (&["nothing/here"], &["nothing/here"]),
            (&["/real/", "./alias"], &["alias", "real"]),
        ];
        for (paths, expected) in table {
            let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
            assert_eq!(follow(root, &paths).unwrap().unwrap(), *expected, "{paths:?}");
        }
        assert_eq!(follow(root, &[".".to_owned(), "x".to_owned()]).unwrap(), None);
    }
}
