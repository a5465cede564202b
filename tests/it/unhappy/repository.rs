//! Repositories that are none, have no commit, or cannot be written.

use super::bench::{Bench, offbuild, told};
use crate::support::repo::Repo;

#[test]
fn no_repository() {
    let repo = Repo::new();
    std::fs::remove_dir_all(repo.path(".git")).unwrap();
    repo.write("convox.yml", "services: {web: {image: redis}}\n");
    insta::assert_snapshot!(told(&repo, &offbuild(&repo).run(&["deploy"])), @r#"
    exit 3
    error: `REPO` is not in a git repository
      next: offbuild compares commits: run it in a clone
    "#);
}

#[test]
fn a_repository_without_a_commit() {
    let repo = Repo::new();
    repo.write("convox.yml", "services: {web: {image: redis}}\n");
    insta::assert_snapshot!(told(&repo, &offbuild(&repo).run(&["deploy"])), @r#"
    exit 3
    error: the repository has no commit yet
      next: commit what is to be deployed: `git add -A && git commit`
    "#);
}

#[test]
fn an_unborn_branch_beside_others() {
    let bench = Bench::released();
    bench.repo.git(&["checkout", "-q", "--orphan", "fresh"]);
    insta::assert_snapshot!(bench.says(&["changed"]), @r#"
    exit 3
    error: the repository has no commit yet
      next: commit what is to be deployed: `git add -A && git commit`
    "#);
}

#[test]
fn a_detached_head_deploys() {
    let bench = Bench::released();
    bench.repo.git(&["checkout", "-q", "--detach"]);
    insta::assert_snapshot!(bench.says(&["deploy"]), @r#"
    exit 0
    offbuild deploy COMMIT "Start"
    run RUN
    web@staging: deploy: never deployed
    1 target to deploy, 0 images to build, 2 at a time
    web@staging: stage started (web)
    web@staging | rack `staging` (version 20260421192651) builds from the manifest and pulls the images
    web@staging | Running: docker pull REGISTRY/base:1
    web@staging | Digest: sha256:c512d672400a70f985a0b560012538262a2d5803ecde325dcf0162d3616cddeb
    web@staging | Status: Downloaded newer image for REGISTRY/base:1
    web@staging | Running: docker tag REGISTRY/base:1 staging/web:web.BUILD
    web@staging | Injecting: convox-env
    web@staging | Running: docker build -t staging/web:web.BUILD .
    web@staging | Running: docker push staging/web:web.BUILD
    web@staging: stage done in TIME
    web@staging: release RELEASE is staged
    web@staging: promote started (RELEASE)
    web@staging: promote done in TIME
    web@staging: deployed, RELEASE is live

    TARGET  OUTCOME  RELEASE  TOOK  WHY
    web@staging  deployed  RELEASE  TIME  never deployed

    live now
      web@staging  RELEASE  this commit

    1 deployed (TIME)
    "#);
}

#[test]
fn a_base_that_is_no_revision() {
    let bench = Bench::released();
    insta::assert_snapshot!(bench.says(&["changed", "--base", "nope"]), @r#"
    exit 0
    stdout:
    web@staging  changed
                   base unreachable: `--base nope`: `nope` is not in this repository (force push, or not fetched); run `git fetch origin --tags '+refs/heads/*:refs/remotes/origin/*'`
    "#);
}

#[test]
fn a_directory_that_is_not_there() {
    let bench = Bench::released();
    insta::assert_snapshot!(bench.says(&["-C", "nowhere", "validate"]), @r#"
    exit 2
    error: directory `nowhere` cannot be opened
      because: No such file or directory (os error 2)
    "#);
}

/// A file stands where the directory belongs: a directory that is read-only would not keep root out.
#[test]
fn a_state_directory_that_cannot_be_written() {
    let bench = Bench::released();
    bench.repo.write(".offbuild", "");
    insta::assert_snapshot!(bench.says(&["deploy", "--allow-dirty"]), @r#"
    exit 3
    error: the lock of rack `staging` cannot be used
      because: `REPO/.offbuild/locks`: File exists (os error 17)
      next: make `.offbuild` in the repository's root writable
    "#);
    assert_eq!(bench.calls("POST"), [""; 0]);
}
