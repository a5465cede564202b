//! Submodules in the work tree: what differs in them is seen, whatever hides it from `git status`.

use super::{Repo, dirty, git, readers};
use std::path::PathBuf;

/// A repository with the submodule `vendor`, and another commit of the submodule's repository.
fn with_submodule() -> (Repo, Repo, PathBuf) {
    let library = Repo::new();
    library.write("code", "1");
    library.commit("one");
    let repo = Repo::new();
    repo.write("x", "");
    repo.git(&["submodule", "--quiet", "add", library.root.to_str().unwrap(), "vendor"]);
    repo.commit("one");
    let vendor = repo.root.join("vendor");
    (repo, library, vendor)
}

#[test]
fn a_changed_submodule_is_seen_whatever_is_set_to_be_ignored() {
    type Change<'a> = (&'a str, &'a dyn Fn(&Repo, &Repo), &'a [&'a str]);
    let changes: [Change<'_>; 7] = [
        ("nothing", &|_, _| {}, &[]),
        ("a file", &|repo, _| repo.write("vendor/code", "2"), &["M vendor"]),
        ("an untracked file", &|repo, _| repo.write("vendor/new", "2"), &["M vendor"]),
        (
            "another commit",
            &|repo, library| {
                library.write("code", "2");
                library.commit("two");
                git(&repo.root.join("vendor"), &["pull", "-q"]);
            },
            &["M vendor"],
        ),
        (
            "another commit, staged",
            &|repo, library| {
                library.write("code", "2");
                library.commit("two");
                git(&repo.root.join("vendor"), &["pull", "-q"]);
                repo.git(&["-c", "diff.ignoreSubmodules=none", "update-index", "vendor"]);
            },
            &["M vendor"],
        ),
        ("it is gone", &|repo, _| std::fs::remove_dir_all(repo.root.join("vendor")).unwrap(), &["D vendor"]),
        (
            "it is not checked out",
            &|repo, _| {
                repo.git(&["submodule", "--quiet", "deinit", "-f", "vendor"]);
            },
            &[],
        ),
    ];
    let hidden: [&dyn Fn(&Repo); 3] = [
        &|_| {},
        &|repo| {
            repo.git(&["config", "-f", ".gitmodules", "submodule.vendor.ignore", "all"]);
            repo.git(&["commit", "-q", "-a", "-m", "hidden"]);
        },
        &|repo| {
            repo.git(&["config", "submodule.vendor.ignore", "all"]);
            repo.git(&["config", "diff.ignoreSubmodules", "all"]);
        },
    ];
    for hide in hidden {
        for (name, change, expected) in changes {
            let (repo, library, _) = with_submodule();
            hide(&repo);
            change(&repo, &library);
            println!("{name}");
            dirty(&repo.root, expected);
            // The same where libgit2 compares.
            repo.write("planned", "");
            repo.git(&["add", "-N", "planned"]);
            dirty(&repo.root, &[&["A planned"], expected].concat());
        }
    }
}

#[test]
fn what_stands_in_a_submodules_place() {
    let (repo, _, vendor) = with_submodule();
    std::fs::remove_dir_all(&vendor).unwrap();
    std::fs::write(&vendor, "a file").unwrap();
    dirty(&repo.root, &["M vendor"]);
    // Git refuses to tell, too.
    let (repo, _, vendor) = with_submodule();
    std::fs::remove_dir_all(repo.root.join(".git/modules")).unwrap();
    assert!(vendor.join(".git").is_file());
    let [by_libgit2, by_git] = [0, 1].map(|reader| readers(&repo.root)[reader].dirty().unwrap_err());
    assert_eq!(by_libgit2.message, "submodule `vendor` cannot be read: its `.git` is not one");
    assert!(by_git.to_string().contains("not a git repository"), "{by_git}");
}

#[test]
fn a_submodule_that_only_git_reads_is_compared_all_the_same() {
    let (library, repo) = (Repo::new(), Repo::new());
    library.write("code", "1");
    library.commit("one");
    repo.git(&["submodule", "--quiet", "add", "--ref-format=reftable", library.root.to_str().unwrap(), "vendor"]);
    repo.commit("one");
    dirty(&repo.root, &[]);
    repo.write("vendor/code", "2");
    dirty(&repo.root, &["M vendor"]);
}
