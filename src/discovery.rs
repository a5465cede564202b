//! Finds app directories: those that the globs name and that hold a manifest.
//!
//! The tree is walked in parallel and only where a glob can still match, never into excluded directories, `.git` or
//! `node_modules`; links to directories are not followed, because git does not either. A directory is listed only when a glob
//! reaches further down; of any other it is asked whether it holds a manifest, and of which generation. No manifest is
//! parsed here.

use crate::files::Files;
use crate::names::RepoPath;
use globset::{GlobBuilder, GlobMatcher, GlobSet, GlobSetBuilder};
use rayon::prelude::*;
use std::path::Path;

/// Where apps are looked for when nobody says it.
pub const DEFAULT_INCLUDE: [&str; 3] = ["*", "apps/*", "services/*"];

/// Compose files by the names Docker looks for, the seed script's first.
pub const COMPOSE_NAMES: [&str; 4] = ["docker-compose.yml", "docker-compose.yaml", "compose.yml", "compose.yaml"];

/// True for a file that is an app's manifest by its name.
#[must_use]
pub fn is_manifest(path: &RepoPath) -> bool {
    let name = path.file_name();
    name == CONVOX_NAME || COMPOSE_NAMES.contains(&name.as_str())
}

/// The name of a generation 2 manifest.
pub const CONVOX_NAME: &str = "convox.yml";

/// Directories that are never entered.
const NEVER: [&str; 2] = [".git", "node_modules"];

/// What a directory holds that makes it an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The directory, relative to where the search began.
    pub dir: RepoPath,
    /// The manifest's name.
    pub manifest: &'static str,
    /// `1` for compose, `2` for `convox.yml`.
    pub generation: u8,
    /// The compose file that lies beside a `convox.yml`.
    pub compose: Option<&'static str>,
    /// It has a directory `deploy`, where hooks are.
    pub deploy: bool,
}

/// The apps below the directory `base` that an include glob names and no exclude glob, by path. The error names the directory
/// that could not be read, or the glob that is none.
pub fn discover(files: &dyn Files, base: &RepoPath, include: &[String], exclude: &[String]) -> Result<Vec<Found>, String> {
    let search = Search {
        files,
        base,
        include: globs(include)?,
        exclude: globs(exclude)?,
        branches: include.iter().map(|glob| branch(glob)).collect::<Result<_, _>>()?,
    };
    let mut found = search.walk(&RepoPath::default())?;
    found.sort_by(|a, b| a.dir.cmp(&b.dir));
    Ok(found)
}

/// What the directory `base`/`dir` holds; `None` when it is no app or cannot be read.
#[must_use]
pub fn probe(files: &dyn Files, base: &RepoPath, dir: &RepoPath) -> Option<Found> {
    let full = below(base, dir);
    let compose = COMPOSE_NAMES.into_iter().find(|name| files.is_file(&child(&full, name.as_bytes())));
    let (manifest, generation, compose) = match compose {
        _ if files.is_file(&child(&full, CONVOX_NAME.as_bytes())) => (CONVOX_NAME, 2, compose),
        Some(compose) if names_images(files, &child(&full, compose.as_bytes())) => (compose, 1, None),
        _ => return None,
    };
    let hooks = child(&full, b"deploy");
    Some(Found { dir: dir.clone(), manifest, generation, compose, deploy: files.is_dir(&hooks) })
}

/// A glob for paths: `*` stays within a directory, and a `/` at the end changes nothing.
pub fn glob(text: &str) -> Result<globset::Glob, String> {
    let text = text.strip_prefix("./").unwrap_or(text).trim_end_matches('/');
    GlobBuilder::new(text).literal_separator(true).build().map_err(|error| format!("`{text}` is no glob: {}", error.kind()))
}

struct Search<'a> {
    files: &'a dyn Files,
    base: &'a RepoPath,
    include: GlobSet,
    exclude: GlobSet,
    branches: Vec<Branch>,
}

/// How deep a glob reaches, and by which parts.
struct Branch {
    /// One matcher for each part before the last, up to the first `**`.
    parts: Vec<GlobMatcher>,
    /// Below the parts, everything can match.
    endless: bool,
}

impl Search<'_> {
    fn walk(&self, dir: &RepoPath) -> Result<Vec<Found>, String> {
        let included = !dir.is_root() && self.include.is_match(lossy(dir));
        let app = if included { probe(self.files, self.base, dir) } else { None };
        if !self.may_match(dir, true) {
            return Ok(app.into_iter().collect());
        }
        let full = below(self.base, dir);
        let listed = self.files.list(&full).map_err(|error| format!("the directory `{full}` cannot be read: {error}"))?;
        let mut children: Vec<RepoPath> = listed
            .into_iter()
            .filter(|entry| entry.is_dir && !NEVER.iter().any(|never| never.as_bytes() == entry.name.as_slice()))
            .map(|entry| child(dir, &entry.name))
            .filter(|path| self.may_match(path, false) && !self.exclude.is_match(lossy(path)))
            .collect();
        children.sort();
        let found: Vec<Vec<Found>> = children.par_iter().map(|path| self.walk(path)).collect::<Result<_, _>>()?;
        Ok(app.into_iter().chain(found.into_iter().flatten()).collect())
    }

    /// True when a directory can be what a glob names, or (alone when `below`) one below it can.
    fn may_match(&self, dir: &RepoPath, below: bool) -> bool {
        let parts: Vec<String> = dir.parts().map(|part| String::from_utf8_lossy(part).into_owned()).collect();
        self.branches.iter().any(|branch| {
            let deep_enough = branch.endless || parts.len() + usize::from(below) <= branch.parts.len();
            deep_enough && branch.parts.iter().zip(&parts).all(|(matcher, part)| matcher.is_match(part))
        })
    }
}

/// True when a compose file says what runs. Some only hold volumes or overrides; a look at the words is enough to tell.
fn names_images(files: &dyn Files, path: &RepoPath) -> bool {
    files.text(path).is_ok_and(|text| text.contains("image:") || text.contains("build:"))
}

fn below(base: &RepoPath, dir: &RepoPath) -> RepoPath {
    if base.is_root() {
        dir.clone()
    } else if dir.is_root() {
        base.clone()
    } else {
        child(base, dir.as_bytes())
    }
}

fn child(dir: &RepoPath, name: &[u8]) -> RepoPath {
    let mut path = dir.as_bytes().to_vec();
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    RepoPath::from_git(path)
}

fn lossy(path: &RepoPath) -> &Path {
    use std::os::unix::ffi::OsStrExt as _;
    Path::new(std::ffi::OsStr::from_bytes(path.as_bytes()))
}

fn globs(texts: &[String]) -> Result<GlobSet, String> {
    let mut set = GlobSetBuilder::new();
    for text in texts {
        set.add(glob(text)?);
    }
    set.build().map_err(|error| error.to_string())
}

fn branch(text: &str) -> Result<Branch, String> {
    let text = text.strip_prefix("./").unwrap_or(text).trim_end_matches('/');
    // Alternatives may hold slashes (`{apps,services/core}/*`): the parts cannot be told apart, so everything is walked.
    if text.contains('{') || text.contains('[') {
        return Ok(Branch { parts: Vec::new(), endless: true });
    }
    let parts: Vec<&str> = text.split('/').take_while(|part| !part.contains("**")).collect();
    let endless = parts.len() < text.split('/').count();
    let parts = parts.iter().map(|part| glob(part).map(|glob| glob.compile_matcher())).collect::<Result<_, _>>()?;
    Ok(Branch { parts, endless })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::OnDisk;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    fn found(root: &Path, include: &[&str], exclude: &[&str]) -> Vec<String> {
        let owned = |globs: &[&str]| globs.iter().map(|glob| (*glob).to_owned()).collect::<Vec<_>>();
        let found = discover(&OnDisk::new(root), &RepoPath::default(), &owned(include), &owned(exclude)).unwrap();
        found.iter().map(|app| format!("{} {} {}", app.dir, app.manifest, app.generation)).collect()
    }

    #[test]
    fn a_directory_with_a_manifest_is_an_app() {
        let dir = tree(&[
            ("web/convox.yml", "services: {}"),
            ("apps/api/convox.yml", ""),
            ("apps/api/docker-compose.yml", "image: x"),
            ("apps/old/docker-compose.yaml", "web:\n  image: repo:web\n"),
            ("apps/built/compose.yml", "services: {web: {build: .}}"),
            ("apps/volumes/docker-compose.yml", "volumes: {}"),
            ("apps/lib/src/main.rs", ""),
            ("apps/api/nested/convox.yml", ""),
            ("services/mail/convox.yml", ""),
            ("services/node_modules/convox.yml", ""),
            ("libs/auth/convox.yml", ""),
            ("convox.yml", ""),
        ]);
        std::os::unix::fs::symlink(dir.path().join("web"), dir.path().join("link")).unwrap();
        assert_eq!(
            found(dir.path(), &DEFAULT_INCLUDE, &[]),
            [
                "apps/api convox.yml 2",
                "apps/built compose.yml 1",
                "apps/old docker-compose.yaml 1",
                "services/mail convox.yml 2",
                "web convox.yml 2"
            ]
        );
    }

    #[test]
    fn globs_decide_where_to_look() {
        let dir = tree(&[
            ("a/b/c/convox.yml", ""),
            ("a/_template/convox.yml", ""),
            ("a/x/convox.yml", ""),
            ("z/convox.yml", ""),
            ("a/node_modules/m/convox.yml", ""),
        ]);
        let all = |include: &[&str], exclude: &[&str]| {
            let found = found(dir.path(), include, exclude);
            found.iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(all(&["a/*"], &["a/_*"]), ["a/x"]);
        assert_eq!(all(&["./a/*/"], &[]), ["a/_template", "a/x"]);
        assert_eq!(all(&["**"], &["a/_template"]), ["a/b/c", "a/x", "z"]);
        assert_eq!(all(&["a/**"], &["a/b"]), ["a/_template", "a/x"]);
        assert_eq!(all(&["{a/x,z}"], &[]), ["a/x", "z"]);
        assert_eq!(all(&["a/b/c"], &[]), ["a/b/c"]);
        assert_eq!(all(&[], &[]), Vec::<String>::new());
    }

    #[test]
    fn a_bad_glob_is_named() {
        let dir = tree(&[]);
        assert_eq!(
            discover(&OnDisk::new(dir.path()), &RepoPath::default(), &["a{".to_owned()], &[]).unwrap_err(),
            "`a{` is no glob: unclosed alternate group; missing '}' (maybe escape '{' with '[{]'?)"
        );
    }

    #[test]
    fn a_directory_is_probed_with_its_hooks() {
        let dir = tree(&[("x/convox.yml", ""), ("x/compose.yml", "image: y"), ("x/deploy/before_build.sh", ""), ("z/convox.yml", "")]);
        std::os::unix::fs::symlink("../x/deploy", dir.path().join("z/deploy")).unwrap();
        let app = probe(&OnDisk::new(dir.path()), &RepoPath::default(), &"x".into()).unwrap();
        assert_eq!((app.manifest, app.generation, app.compose, app.deploy), (CONVOX_NAME, 2, Some("compose.yml"), true));
        assert!(probe(&OnDisk::new(dir.path()), &RepoPath::default(), &"z".into()).unwrap().deploy, "hooks may lie elsewhere");
        assert_eq!(probe(&OnDisk::new(dir.path()), &RepoPath::default(), &"y".into()), None);
    }
}
