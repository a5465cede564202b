//! What a guard refuses, and a rack that another run holds.

use super::bench::{Bench, wait_for};
use std::process::Stdio;

#[test]
fn uncommitted_changes() {
    let bench = Bench::released();
    bench.repo.write("apps/web/notes", "x");
    insta::assert_snapshot!(bench.says(&["deploy"]), @r#"
    exit 4
    error: nothing was deployed:
      `web@staging`: 1 of its inputs is not committed: commit it, or use `--allow-dirty`
          apps/web/notes
    "#);
    assert_eq!(bench.calls("POST"), [""; 0]);
}

#[test]
fn a_protected_rack_without_a_terminal() {
    let bench = Bench::released();
    bench.configure("racks: {staging: {host: \"${STAGING_HOST}\", password: \"${STAGING_PASSWORD}\", protected: true}}");
    insta::assert_snapshot!(bench.says(&["deploy"]), @r#"
    exit 4
    error: rack `staging` is protected
      next: deploy to it with --yes
    "#);
    assert_eq!(bench.calls("POST"), [""; 0]);
}

#[test]
fn a_commit_older_than_the_live_one() {
    let bench = Bench::released();
    bench.repo.write("apps/web/notes", "x").commit("Second");
    bench.offbuild().run(&["deploy"]).code(0);
    bench.repo.git(&["checkout", "-q", "HEAD~"]);
    insta::assert_snapshot!(bench.says(&["deploy"]), @r#"
    exit 4
    offbuild deploy COMMIT "Start"
    run RUN
    web@staging: stale since COMMIT (the live build's commit): deleted apps/web/notes (directory apps/web, apps.yaml:2:22)

    TARGET  OUTCOME  RELEASE  TOOK  WHY
    web@staging  stale  COMMIT is live and newer

    live now
      web@staging  RELEASE  as before, commit COMMIT

    1 stale (TIME)
    to count a newer live commit as done: offbuild deploy --stale ok
    "#);
    assert_eq!(bench.changes("/promote").len(), 1);
}

#[test]
fn a_rack_that_another_run_holds() {
    let bench = Bench::released();
    let above = bench.repo.dir.path().to_owned();
    let hook = format!("#!/bin/sh\ntouch {0}/held\nwhile [ ! -e {0}/go ]; do sleep 0.02; done\n", above.display());
    bench.repo.write("apps/web/deploy/before_release.sh", hook).commit("Hook");
    let mut first = bench.offbuild().command(&["deploy"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for(&above.join("held"));
    let said = bench.says(&["deploy"]);
    std::fs::write(above.join("go"), "").unwrap();
    assert!(first.wait().unwrap().success());
    insta::assert_snapshot!(said, @r#"
    exit 5
    error: another run deploys to rack `staging`
      because: held by WHO for run `RUN` since WHEN, TIME ago
      because: its last sign of life was TIME ago
      next: wait for it: `--lock-wait 15m`; if that run is surely over, remove the lock: `rm 'REPO/.offbuild/locks/staging.json'`
    "#);
    assert_eq!(bench.changes("/promote").len(), 1);
}
