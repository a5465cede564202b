//! One history in every kind of repository: what only the git program can read is answered like what libgit2 reads.

use super::paths::{offbuild, with_apps};
use super::{Repo, git};
use offbuild::changes::git::Git;
use serde_json::Value;
use std::path::Path;

/// Everything a comparison has to look at: committed and not, owned and not, an app that goes.
fn history(repo: &Repo) {
    repo.write("docs/guide", "1");
    repo.write("apps/old/convox.yml", "services:\n  main:\n    image: scratch\n");
    repo.write("apps/web/gone", "1");
    repo.commit("one");
    repo.write("libs/web/x", "2");
    repo.git(&["mv", "apps/web/gone", "apps/api/moved"]);
    repo.git(&["rm", "-q", "-r", "apps/old"]);
    repo.commit("two");
    repo.write("Makefile", "x");
    repo.write("docs/guide", "2");
    repo.commit("three");
}

/// What is not committed, the same in every work tree.
fn edit(root: &Path) {
    std::fs::write(root.join("apps/web/new"), "x").unwrap();
    std::fs::remove_file(root.join("libs/api/x")).unwrap();
}

/// Answers without the ids, which differ from kind to kind.
fn answers(repo: &Repo, root: &Path) -> Vec<Value> {
    let ids = git(root, &["rev-parse", "HEAD~2", "HEAD~1", "HEAD"]);
    let ids: Vec<&str> = ids.lines().collect();
    let ask = |args: &[&str]| {
        let done = offbuild(root, repo.dir.path()).run(&[args, &["--base", "HEAD~2", "--format", "json"]].concat()).code(0);
        let named = ids
            .iter()
            .zip(["ONE", "TWO", "THREE"])
            .fold(done.stdout, |text, (id, name)| [*id, &id[..12], &id[..7]].into_iter().fold(text, |text, id| text.replace(id, name)));
        let mut answer: Value = serde_json::from_str(&named).unwrap_or_else(|error| panic!("{error}: {named}"));
        // A clone has an origin.
        if let Some(head) = answer.get_mut("head") {
            head["source"] = Value::Null;
        }
        answer
    };
    let mut all = vec![ask(&["changed"]), ask(&["why", "api", "web"])];
    all.push(ask(&["changed", "--head", "HEAD~1"]));
    all
}

#[test]
fn every_kind_of_repository_gives_the_same_answers() {
    let plain = with_apps(&[]);
    history(&plain);
    let origin = plain.root.clone();
    plain.git(&["config", "uploadpack.allowFilter", "true"]);
    plain.git(&["config", "uploadpack.allowAnySHA1InWant", "true"]);
    let treeless = plain.clone("treeless", &["--filter=tree:0"]);
    let blobless = plain.clone("blobless", &["--filter=blob:none"]);
    let sparse = plain.clone("sparse", &[]);
    git(&sparse, &["sparse-checkout", "set", "--sparse-index", "apps", "libs"]);
    assert!(!sparse.join("docs").exists());
    let split = plain.clone("split", &[]);
    git(&split, &["update-index", "--split-index"]);
    edit(&origin);
    let expected = answers(&plain, &origin);
    // That there is something to compare: committed, not committed, removed, unowned, and what waits.
    let text = expected[0].to_string();
    for word in ["apps/web/gone", "apps/api/moved", "apps/web/new", "libs/api/x", "\"old\"", "Makefile", "docs/guide"] {
        assert!(text.contains(word), "{word} is missing in {text}");
    }
    assert!(expected[1].to_string().contains("\"since_base\":2"), "{}", expected[1]);
    let reftable = with_apps(&["--ref-format=reftable"]);
    let sha256 = with_apps(&["--object-format=sha256"]);
    for (name, repo, root, readable) in [
        ("reftable", &reftable, reftable.root.as_path(), false),
        ("SHA-256", &sha256, sha256.root.as_path(), false),
        ("sparse index", &plain, sparse.as_path(), false),
        ("split index", &plain, split.as_path(), false),
        ("tree-less clone", &plain, treeless.as_path(), false),
        ("blob-less clone", &plain, blobless.as_path(), true),
    ] {
        if root == repo.root {
            history(repo);
        }
        edit(root);
        assert_eq!(Git::open(root).unwrap().is_some(), readable, "{name}");
        for (found, expected) in answers(repo, root).iter().zip(&expected) {
            assert_eq!(found, expected, "{name}");
        }
    }
}
