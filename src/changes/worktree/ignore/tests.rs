//! What rules made by chance leave of one work tree, held against `git ls-files --others --exclude-standard`.
//!
//! `OFFBUILD_CASES=10000` asks for more.

use super::Ignores;
use crate::changes::worktree::by_place_only;
use crate::changes::worktree::untracked::{Tracked, Untracked};
use git2::Repository;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use rustix::fs::{Mode, OFlags, open};
use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

struct Tree {
    _dir: tempfile::TempDir,
    root: PathBuf,
}

impl Tree {
    /// Files, directories and links of names that look like each other, patterns, and what patterns are written with.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap().join("repo");
        let places = ["", "a/", "b/", "a/b/", "a/b/a/", "ab/", "A/", "[a]/"];
        for place in places {
            std::fs::create_dir_all(root.join(place)).unwrap();
        }
        for place in places {
            for name in ["a.x", "b", "ab", "aab", "B", "a b", "b ", "!b", "#b", "*", "\\b", "-", "]b"] {
                // Some are directories already.
                let _ = std::fs::write(root.join(place).join(name), "");
            }
            symlink("nowhere", root.join(place).join("link")).unwrap();
        }
        let tree = Self { _dir: dir, root };
        tree.git(&["init", "-q"]);
        tree.git(&["config", "core.excludesFile", "../user"]);
        tree
    }

    fn git(&self, args: &[&str]) -> Vec<u8> {
        let mut command = Command::new("git");
        by_place_only(&mut command);
        let output = command.current_dir(&self.root).args(args).env("GIT_CONFIG_NOSYSTEM", "1").output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    fn said_by_git(&self) -> BTreeSet<String> {
        let listed = self.git(&["ls-files", "--others", "--exclude-standard", "-z"]);
        listed.split(|byte| *byte == 0).filter(|path| !path.is_empty()).map(|path| String::from_utf8(path.to_vec()).unwrap()).collect()
    }

    fn found(&self) -> BTreeSet<String> {
        let repo = Repository::open(&self.root).unwrap();
        let dir = open(&self.root, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let mut untracked = Untracked::new(&dir, &self.root, Ignores::new(&repo, &dir, Box::new(|_| None)));
        untracked.add_beside(&Tracked::new(&repo.index().unwrap(), false), b"");
        untracked.found.iter().map(ToString::to_string).collect()
    }

    fn write(&self, path: &Path, text: &str) {
        let path = self.root.join(path);
        let _ = std::fs::remove_file(&path);
        std::fs::write(path, text).unwrap();
    }
}

/// The places rules stand in.
const FILES: [&str; 5] = [".gitignore", "a/.gitignore", "a/b/.gitignore", ".git/info/exclude", "../user"];

fn some_rule() -> impl Strategy<Value = String> {
    let whole = prop_oneof![
        Just("a/"),
        Just("/a/"),
        Just("a/b"),
        Just("!a/b"),
        Just("b"),
        Just("!b"),
        Just("*"),
        Just("!*/"),
        Just("**"),
        Just("a/**"),
        Just("**/b"),
        Just("a/**/b"),
        Just("!/a/**/a/"),
        Just("link/"),
        Just("!link"),
        Just("a**/b"),
        Just("*/"),
        Just("/*"),
        Just("!ab"),
        Just("*b"),
        Just("!a*"),
        Just("\\!b"),
        Just("\\#b"),
        Just("#b"),
        Just("a\\ b"),
        Just("b\\ "),
        Just("b  "),
        Just("b\r"),
        Just("/"),
        Just("!"),
        Just("[[:upper:]]"),
        Just("[!a-b]*"),
        Just("[a"),
        Just("\\"),
        Just("[]b]"),
        Just("[^]]b"),
        Just("[a\\]]b"),
        Just("[[:x:]]"),
    ];
    let piece = prop_oneof![
        6 => Just("a"), 6 => Just("b"), 5 => Just("/"), 5 => Just("*"), 3 => Just("**"), 2 => Just("?"), 2 => Just("[ab]"), 1 => Just("[!a]"),
        1 => Just("[+--]"), 1 => Just("\\"), 1 => Just(" "), 1 => Just("."), 1 => Just("["), 1 => Just("]"), 1 => Just("-"), 1 => Just("!"),
        1 => Just("[[:alpha:]b]"), 1 => Just("link"),
    ];
    let pieces = (any::<bool>(), proptest::collection::vec(piece, 1..7));
    prop_oneof![
        1 => whole.prop_map(str::to_owned),
        1 => pieces.prop_map(|(negative, pieces)| format!("{}{}", if negative { "!" } else { "" }, pieces.concat())),
    ]
}

#[test]
fn what_is_ignored_is_what_git_ignores() {
    let cases = std::env::var("OFFBUILD_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(300);
    let tree = Tree::new();
    let mut runner = TestRunner::new(ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() });
    let rules = proptest::collection::vec((proptest::sample::select(FILES.to_vec()), some_rule()), 1..8);
    let result = runner.run(&(rules, any::<bool>(), any::<bool>()), |(rules, fold, at_end)| {
        tree.git(&["config", "core.ignoreCase", if fold { "true" } else { "false" }]);
        for file in FILES {
            let lines: Vec<&str> = rules.iter().filter(|(of, _)| *of == file).map(|(_, rule)| rule.as_str()).collect();
            tree.write(Path::new(file), &format!("{}{}", lines.join("\n"), if at_end { "\n" } else { "" }));
        }
        prop_assert_eq!(tree.found(), tree.said_by_git());
        Ok(())
    });
    result.unwrap();
}

#[test]
fn files_of_rules_that_are_none_or_odd() {
    let tree = Tree::new();
    let all = tree.said_by_git();
    assert_eq!(tree.found(), all);
    let table: [(&str, &dyn Fn(&Path)); 6] = [
        ("a link is not followed", &|file| {
            std::fs::write(tree.root.join("../user"), "").unwrap();
            std::fs::write(tree.root.join("rules"), "b\n").unwrap();
            symlink("rules", file).unwrap();
        }),
        ("a directory", &|file| std::fs::create_dir(file).unwrap()),
        ("an empty one", &|file| std::fs::write(file, "").unwrap()),
        ("a mark of UTF-8", &|file| std::fs::write(file, "\u{feff}b\n!/a/b\n").unwrap()),
        ("line ends of Windows", &|file| std::fs::write(file, "b\r\n!/a/b\r\n").unwrap()),
        ("a zero in a line", &|file| std::fs::write(file, "b\0x\nab\n").unwrap()),
    ];
    for (name, make) in table {
        let file = tree.root.join(".gitignore");
        make(&file);
        assert_eq!(tree.found(), tree.said_by_git(), "{name}");
        assert!(std::fs::remove_file(&file).or_else(|_| std::fs::remove_dir(&file)).is_ok());
    }
}
