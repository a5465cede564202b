//! What is untracked and what is ignored, as `git status` has it: both readers say the same, and no more than git.

use super::{Repo, dirty, git, readers, show};
use std::os::unix::fs::symlink;

/// A way to lay out a repository.
type Layout<'a> = (&'a str, &'a dyn Fn(&Repo), &'a [&'a str]);

fn each(table: &[Layout<'_>]) {
    for (name, lay_out, expected) in table {
        let repo = Repo::new();
        repo.commit("one");
        lay_out(&repo);
        let said = git(&repo.root, &["status", "--porcelain", "--untracked-files=all"]);
        let said: Vec<String> = said.lines().map(|line| line.replace("?? ", "A ").trim_end_matches('/').to_owned()).collect();
        assert_eq!(said, *expected, "git: {name}");
        for reader in readers(&repo.root) {
            assert_eq!(show(&reader.dirty().unwrap()), expected.join("\n"), "{name}");
        }
    }
}

#[test]
fn a_rule_that_takes_back_another_one_is_heard() {
    each(&[
        (
            "a deeper file takes it back",
            &|repo| {
                repo.write(".gitignore", "*.log\n");
                repo.write("web/.gitignore", "!keep.log\n");
                repo.write("web/keep.log", "");
                repo.write("web/other.log", "");
            },
            &["A .gitignore", "A web/.gitignore", "A web/keep.log"],
        ),
        (
            "the repository takes back what the user ignores",
            &|repo| {
                repo.git(&["config", "core.excludesFile", "../user"]);
                std::fs::write(repo.dir.path().join("user"), "*.log\n").unwrap();
                repo.write(".git/info/exclude", "!keep.log\n");
                repo.write("web/keep.log", "");
                repo.write("web/other.log", "");
            },
            &["A web/keep.log"],
        ),
        (
            "a file beside the files outdoes both",
            &|repo| {
                repo.write(".git/info/exclude", "keep.log\n");
                repo.write(".gitignore", "!/keep.log\n");
                repo.write("keep.log", "");
                repo.write("web/keep.log", "");
            },
            &["A .gitignore", "A keep.log"],
        ),
        (
            "a pattern takes back one directory of all",
            &|repo| {
                repo.write(".gitignore", "/*\n!/we*/\n");
                repo.write("web/x", "");
                repo.write("api/x", "");
            },
            &["A web/x"],
        ),
        (
            "what is in an ignored directory stays ignored",
            &|repo| {
                repo.write(".gitignore", "web/\n!web/x\n");
                repo.write("web/x", "");
            },
            &["A .gitignore"],
        ),
    ]);
}

#[test]
fn links_are_neither_rules_nor_directories() {
    each(&[
        (
            "a `.gitignore` that is a link",
            &|repo| {
                repo.write("rules", "*.log\n");
                symlink("rules", repo.root.join(".gitignore")).unwrap();
                repo.write("x.log", "");
            },
            &["A .gitignore", "A rules", "A x.log"],
        ),
        (
            "a link, where directories are ignored",
            &|repo| {
                repo.write(".gitignore", "out/\n");
                repo.write("web/out/x", "");
                std::fs::create_dir(repo.root.join("api")).unwrap();
                symlink("../web/out", repo.root.join("api/out")).unwrap();
            },
            &["A .gitignore", "A api/out"],
        ),
    ]);
}

#[test]
fn a_directory_is_a_repository_when_git_says_so() {
    let init = |repo: &Repo, dir: &str| {
        repo.git(&["init", "-q", dir]);
    };
    each(&[
        (
            "a repository with files is one path",
            &|repo| {
                init(repo, "inner");
                repo.write("inner/x", "");
            },
            &["A inner"],
        ),
        ("an empty one is, too", &|repo| init(repo, "inner"), &["A inner"]),
        (
            "its git directory lies elsewhere",
            &|repo| {
                init(repo, "../elsewhere");
                repo.write("inner/.git", "gitdir: ../../elsewhere/.git\n");
                repo.write("inner/x", "");
            },
            &["A inner"],
        ),
        (
            "its git directory is gone",
            &|repo| {
                repo.write("inner/.git", "gitdir: ../../elsewhere/.git\n");
                repo.write("inner/x", "");
            },
            &["A inner/x"],
        ),
        (
            "a git directory that is none",
            &|repo| {
                repo.write("inner/.git/config", "");
                repo.write("inner/x", "");
                repo.write("inner/y", "");
            },
            &["A inner/x", "A inner/y"],
        ),
        (
            "a link to nowhere",
            &|repo| {
                repo.write("inner/x", "");
                symlink("nowhere", repo.root.join("inner/.git")).unwrap();
            },
            &["A inner/x"],
        ),
    ]);
}

#[test]
fn rules_hold_in_the_middle_of_a_merge() {
    let repo = Repo::new();
    repo.write("web/x", "1");
    repo.write(".gitignore", "*.log\n!keep.log\nout/\n");
    repo.write("api/.gitignore", "!*.log\n");
    repo.commit("one");
    repo.git(&["checkout", "-q", "-b", "other"]);
    repo.write("web/x", "2");
    repo.commit("two");
    repo.git(&["checkout", "-q", "main"]);
    repo.write("web/x", "3");
    repo.commit("three");
    let merged = std::process::Command::new("git").current_dir(&repo.root).args(["merge", "-q", "other"]).output().unwrap();
    assert!(!merged.status.success(), "it is in conflict");
    for path in ["web/a.log", "web/keep.log", "api/a.log", "out/x", "api/out/x", "api/new"] {
        repo.write(path, "");
    }
    dirty(&repo.root, &["A api/a.log", "A api/new", "A web/keep.log", "M web/x"]);
}

#[test]
fn rules_outside_a_sparse_checkout_hold() {
    let repo = Repo::new();
    repo.write("web/.gitignore", "*.log\n");
    repo.write("web/old", "1");
    repo.write("api/x", "");
    repo.commit("one");
    repo.git(&["sparse-checkout", "set", "--no-sparse-index", "api"]);
    assert!(!repo.root.join("web").exists());
    repo.write("web/a.log", "");
    repo.write("web/new", "");
    dirty(&repo.root, &["A web/new"]);
    // The same where libgit2 compares.
    repo.write("web/old", "2");
    repo.write("api/planned", "");
    repo.git(&["add", "-N", "api/planned"]);
    dirty(&repo.root, &["A api/planned", "A web/new", "M web/old"]);
}
