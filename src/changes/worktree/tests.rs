//! What differs from HEAD, asked three ways, on repositories and work trees made by chance: by the walk, by libgit2, and by
//! `git status`.
//!
//! `OFFBUILD_CASES=10000` asks for more.

use super::compared_by_libgit2;
use super::status::status;
use crate::changes::{ChangeKind, History as _, gitcli::GitCli};
use crate::names::RepoPath;
use git2::Repository;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

type Found = BTreeMap<String, ChangeKind>;

struct Repo {
    _dir: tempfile::TempDir,
    root: PathBuf,
}

impl Repo {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap().join("repo");
        std::fs::create_dir(&root).unwrap();
        let repo = Self { _dir: dir, root };
        repo.git(&["init", "-q", "-b", "main"]);
        repo
    }

    /// Runs git, which may refuse.
    fn git(&self, args: &[&str]) {
        git(&self.root, args);
    }

    fn open(&self) -> Repository {
        Repository::open(&self.root).unwrap()
    }

    fn write(&self, path: &str, content: &str) {
        let full = self.root.join(path);
        // A file takes the place of whatever is on its way.
        for dir in Path::new(path).ancestors().skip(1).filter(|dir| !dir.as_os_str().is_empty()) {
            if self.root.join(dir).symlink_metadata().is_ok_and(|found| !found.is_dir()) {
                std::fs::remove_file(self.root.join(dir)).unwrap();
            }
        }
        std::fs::create_dir_all(full.parent().unwrap()).unwrap();
        self.remove_unless_file(path);
        std::fs::write(full, content).unwrap();
    }

    fn remove_unless_file(&self, path: &str) {
        let full = self.root.join(path);
        match full.symlink_metadata() {
            Ok(found) if found.is_dir() => std::fs::remove_dir_all(full).unwrap(),
            Ok(found) if !found.is_file() => std::fs::remove_file(full).unwrap(),
            _ => {}
        }
    }

    fn remove(&self, path: &str) {
        self.remove_unless_file(path);
        let _ = std::fs::remove_file(self.root.join(path));
    }
}

fn git(dir: &Path, args: &[&str]) {
    let common = ["-c", "user.name=A Person", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false", "-c", "gc.auto=0"];
    let mut command = Command::new("git");
    super::by_place_only(&mut command);
    command.current_dir(dir).args(common).args(args).env("GIT_CONFIG_NOSYSTEM", "1").output().unwrap();
}

/// What happens to a repository.
#[derive(Debug, Clone)]
enum Event {
    Write(String, u8),
    Remove(String),
    Rename(String, String),
    Link(String),
    Executable(String),
    Touch(String, i8),
    Pipe(String),
    Ignore(String, &'static str),
    Attributes(String, &'static str),
    /// A repository inside, or what looks like one.
    Nested(String, u8),
    Git(Vec<String>),
}

fn some_path() -> impl Strategy<Value = String> {
    // `a-b` sorts between the file `a` and the directory `a/`.
    let part = prop_oneof![4 => "a", 3 => "b", 2 => "a-b", 1 => "c\\.log"];
    proptest::collection::vec(part, 1..4).prop_map(|parts| parts.join("/"))
}

fn some_dir() -> impl Strategy<Value = String> {
    prop_oneof![2 => Just(String::new()), 3 => some_path().prop_map(|path| format!("{path}/"))]
}

fn some_event() -> impl Strategy<Value = Event> {
    let ignores = ["*.log", "a/", "/a", "b", "!a", "!c.log", "a/b", "**/b/", "a/*", "!/a/b", "*", "!*/", "/a/**"];
    let attributes = ["* text=auto", "*.log text", "a ident", "b eol=crlf", "c.log filter=upper"];
    let of_path: &[&[&str]] = &[
        &["add", "-A", "--"],
        &["add", "-f", "--"],
        &["rm", "-r", "-q", "--cached", "--ignore-unmatch", "--"],
        &["reset", "-q", "--"],
        &["checkout", "-q", "--"],
    ];
    let rarely: &[&[&str]] = &[
        &["add", "-N", "--"],
        &["update-index", "--skip-worktree", "--"],
        &["update-index", "--no-skip-worktree", "--"],
        &["sparse-checkout", "set", "--no-sparse-index"],
    ];
    let plain: &[&[&str]] = &[
        &["add", "-A"],
        &["commit", "-q", "-m", "x"],
        &["commit", "-q", "-a", "-m", "x"],
        &["status"],
        &["reset", "-q"],
        &["reset", "-q", "--soft", "HEAD~1"],
        &["reset", "-q", "--hard"],
        &["stash", "-q"],
        &["read-tree", "HEAD"],
        &["sparse-checkout", "disable"],
        &["update-index", "--index-version", "4"],
        &["update-index", "--index-version", "2"],
        &["config", "core.fileMode", "false"],
        &["config", "core.trustctime", "false"],
        &["config", "core.checkStat", "minimal"],
    ];
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let with_path = move |(command, path): (&[&str], String)| {
        let mut command = words(command);
        command.push(path);
        Event::Git(command)
    };
    prop_oneof![
        12 => (some_path(), 0..6_u8).prop_map(|(path, content)| Event::Write(path, content)),
        4 => some_path().prop_map(Event::Remove),
        3 => (some_path(), some_path()).prop_map(|(from, to)| Event::Rename(from, to)),
        2 => some_path().prop_map(Event::Link),
        2 => some_path().prop_map(Event::Executable),
        2 => (some_path(), -2..3_i8).prop_map(|(path, seconds)| Event::Touch(path, seconds)),
        1 => some_path().prop_map(Event::Pipe),
        4 => (some_dir(), proptest::sample::select(ignores.to_vec())).prop_map(|(dir, rule)| Event::Ignore(format!("{dir}.gitignore"), rule)),
        1 => proptest::sample::select(ignores.to_vec()).prop_map(|rule| Event::Ignore(".git/info/exclude".to_owned(), rule)),
        1 => proptest::sample::select(ignores.to_vec()).prop_map(|rule| Event::Ignore("../user".to_owned(), rule)),
        1 => some_dir().prop_map(|dir| Event::Link(format!("{dir}.gitignore"))),
        1 => (some_dir(), proptest::sample::select(attributes.to_vec())).prop_map(|(dir, rule)| Event::Attributes(dir, rule)),
        2 => (some_path(), 0..6_u8).prop_map(|(path, kind)| Event::Nested(path, kind)),
        8 => (proptest::sample::select(of_path.to_vec()), some_path()).prop_map(with_path),
        1 => (proptest::sample::select(rarely.to_vec()), some_path()).prop_map(with_path),
        8 => proptest::sample::select(plain.to_vec()).prop_map(move |command| Event::Git(words(command))),
    ]
}

fn happen(repo: &Repo, event: &Event) {
    let at = |path: &str| repo.root.join(path);
    match event {
        Event::Write(path, content) => repo.write(path, ["0\n", "1\n", "2\n", "3\r\n", "", "longer\n"][usize::from(*content)]),
        Event::Remove(path) => repo.remove(path),
        Event::Rename(from, to) => {
            // Whether it can be is not the question.
            let _ = std::fs::rename(at(from), at(to));
        }
        Event::Link(path) => {
            repo.write(path, "");
            repo.remove(path);
            // To nothing, ever: `git sparse-checkout` deletes what lies behind a link in a directory's place.
            symlink("nowhere", at(path)).unwrap();
        }
        Event::Executable(path) => {
            if let Ok(found) = at(path).symlink_metadata()
                && found.is_file()
            {
                std::fs::set_permissions(at(path), Permissions::from_mode(found.permissions().mode() ^ 0o111)).unwrap();
            }
        }
        Event::Touch(path, seconds) => {
            if let Ok(found) = at(path).symlink_metadata()
                && found.is_file()
            {
                let now = SystemTime::now();
                let distance = Duration::from_secs(u64::from(seconds.unsigned_abs()));
                let time = if *seconds < 0 { now - distance } else { now + distance };
                std::fs::File::options().append(true).open(at(path)).unwrap().set_modified(time).unwrap();
            }
        }
        Event::Pipe(path) => {
            repo.write(path, "");
            repo.remove(path);
            assert!(Command::new("mkfifo").arg(at(path)).status().unwrap().success());
        }
        Event::Ignore(file, rule) => append(repo, file, rule),
        Event::Attributes(dir, rule) => append(repo, &format!("{dir}.gitattributes"), rule),
        Event::Nested(path, kind) => {
            repo.write(&format!("{path}/inside"), "x");
            match kind {
                0 => git(&at(path), &["init", "-q"]),
                1 => {
                    repo.remove(&format!("{path}/inside"));
                    git(&at(path), &["init", "-q"]);
                }
                2 => repo.write(&format!("{path}/.git/config"), ""),
                // One with a commit can be added as a submodule.
                3 | 4 => {
                    [&["init", "-q"][..], &["add", "-A"], &["commit", "-q", "-m", "inside"]].iter().for_each(|args| git(&at(path), args))
                }
                _ => repo.write(&format!("{path}/.git"), "gitdir: nowhere\n"),
            }
        }
        Event::Git(args) => repo.git(&args.iter().map(String::as_str).collect::<Vec<_>>()),
    }
}

fn append(repo: &Repo, path: &str, line: &str) {
    let known = std::fs::read_to_string(repo.root.join(path)).unwrap_or_default();
    repo.write(path, &format!("{known}{line}\n"));
}

/// By the walk alone, by libgit2 alone, and by git.
fn three_ways(repo: &Repo) -> (Option<Found>, Found, Found) {
    let walked = {
        let repo = repo.open();
        let head = repo.head().ok().map(|head| head.peel_to_tree().unwrap());
        status(&repo, head.as_ref()).map(shown)
    };
    let listed = {
        let repo = repo.open();
        let head = repo.head().ok().map(|head| head.peel_to_tree().unwrap());
        shown(compared_by_libgit2(&repo, head.as_ref()).unwrap())
    };
    let said = match GitCli::open(&repo.root).unwrap().dirty() {
        Ok(said) => shown(said.into_iter().map(|change| (change.path, change.kind))),
        // Of a link in a submodule's place git tells nothing at all.
        Err(error) if error.causes.iter().any(|cause| cause.contains("not to be a symbolic link")) => listed.clone(),
        Err(error) => panic!("{error}: {:?}", error.causes),
    };
    (walked, listed, said)
}

fn shown(found: impl IntoIterator<Item = (RepoPath, ChangeKind)>) -> Found {
    found.into_iter().map(|(path, kind)| (path.to_string(), kind)).collect()
}

#[test]
fn the_walk_libgit2_and_git_agree() {
    let cases = std::env::var("OFFBUILD_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(60);
    let (walked, asked) = (Cell::new(0), Cell::new(0));
    let mut runner = TestRunner::new(ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() });
    let history = (proptest::collection::vec(some_event(), 4..24), proptest::collection::vec(some_event(), 0..12));
    let result = runner.run(&history, |(before, after)| {
        let attributes = before.iter().chain(&after).any(|event| matches!(event, Event::Attributes(..)));
        // What is staged outside a sparse checkout libgit2 takes for nothing.
        let sparse = before.iter().chain(&after).any(|event| matches!(event, Event::Git(words) if words[0] == "sparse-checkout"));
        let repo = Repo::new();
        repo.git(&["config", "filter.upper.clean", "tr a-z A-Z"]);
        repo.git(&["config", "core.excludesFile", "../user"]);
        for event in before {
            happen(&repo, &event);
        }
        repo.git(&["add", "-A"]);
        repo.git(&["commit", "-q", "-m", "before"]);
        for event in after {
            happen(&repo, &event);
        }
        let (by_walk, by_libgit2, by_git) = three_ways(&repo);
        // Of a repository in the place of a staged file git says only that the file is gone, which may be nothing.
        let index = repo.open().index().unwrap();
        let is_told = |path: &String| index.get_path(Path::new(path), 0).is_none() || !repo.root.join(path).join(".git").exists();
        let told = |found: Found| found.into_iter().filter(|(path, _)| is_told(path)).collect::<Found>();
        asked.set(asked.get() + 1);
        if let Some(by_walk) = by_walk {
            walked.set(walked.get() + 1);
            // Whether an unchanged file is as new attributes want it, git finds when it looks into it, which depends on the second.
            let is_same =
                |path: &String| by_walk.get(path) == by_git.get(path) || (attributes && by_walk.get(path) == by_libgit2.get(path));
            let odd: Vec<&String> = by_walk.keys().chain(by_git.keys()).filter(|path| is_told(path) && !is_same(path)).collect();
            prop_assert!(odd.is_empty(), "{:?}: {:?} by the walk, {:?} by libgit2, {:?} by git", odd, by_walk, by_libgit2, by_git);
        }
        if attributes || sparse {
            return Ok(());
        }
        // What stands in a file's place it may call by another word.
        let paths = |found: Found| told(found).into_keys().collect::<Vec<String>>();
        prop_assert_eq!(paths(by_libgit2), paths(by_git), "by libgit2 and by git");
        Ok(())
    });
    result.unwrap();
    assert!(walked.get() * 3 > asked.get() * 2, "only {} of {} were not left to libgit2", walked.get(), asked.get());
}

/// `core.ignoreCase` comes along with a repository that was made on another file system.
#[test]
fn a_name_in_another_case_is_another_name() {
    let repo = Repo::new();
    for path in ["dir/one", "dir/two", "three"] {
        repo.write(path, path);
    }
    repo.git(&["add", "-A"]);
    repo.git(&["commit", "-q", "-m", "one"]);
    repo.git(&["config", "core.ignoreCase", "true"]);
    std::fs::rename(repo.root.join("dir/one"), repo.root.join("dir/One")).unwrap();
    let (walk, libgit2, git) = three_ways(&repo);
    assert_eq!((walk, &libgit2), (None, &git));
    assert_eq!(libgit2, Found::from([("dir/one".to_owned(), ChangeKind::Deleted)]));
}

#[test]
fn a_link_in_a_submodules_place_is_seen() {
    let repo = Repo::new();
    happen(&repo, &Event::Nested("a/a".to_owned(), 3));
    repo.git(&["add", "-A"]);
    repo.git(&["commit", "-q", "-m", "one"]);
    happen(&repo, &Event::Link("a/a".to_owned()));
    let (by_walk, by_libgit2, _) = three_ways(&repo);
    let seen = Found::from([("a/a".to_owned(), ChangeKind::Modified)]);
    assert_eq!((by_walk, by_libgit2), (Some(seen.clone()), seen));
}

/// A file whose entry is not older than the index may have changed after it, in the same moment: only its content tells.
#[test]
fn a_change_in_the_moment_the_index_was_written_is_seen() {
    let moment = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 500_000_000);
    let set = |path: &Path, time: SystemTime| std::fs::File::options().append(true).open(path).unwrap().set_modified(time).unwrap();
    for (index_written, name) in [
        (moment, "in the same nanosecond"),
        (moment - Duration::from_nanos(1), "before the file"),
        (moment - Duration::from_millis(500), "in whole seconds, as some file systems keep them"),
    ] {
        let repo = Repo::new();
        let (file, index) = (repo.root.join("a"), repo.root.join(".git/index"));
        // Else the time of the change to the inode would tell.
        repo.git(&["config", "core.trustctime", "false"]);
        repo.write("a", "1");
        set(&file, moment);
        repo.git(&["add", "-A"]);
        repo.git(&["commit", "-q", "-m", "one"]);
        repo.write("a", "2");
        set(&file, moment);
        set(&index, index_written);
        let (by_walk, by_libgit2, by_git) = three_ways(&repo);
        let seen = Found::from([("a".to_owned(), ChangeKind::Modified)]);
        assert_eq!((by_walk, by_libgit2, by_git), (Some(seen.clone()), seen.clone(), seen), "{name}");
    }
}
