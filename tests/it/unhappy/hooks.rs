//! Hooks that cannot run, and hooks that fail.

use super::bench::Bench;
use std::os::unix::fs::PermissionsExt as _;

#[test]
fn a_hook_that_is_not_executable_stops_the_plan() {
    let bench = Bench::released();
    bench.repo.write("apps/web/deploy/before_release.sh", "#!/bin/sh\n");
    let hook = bench.repo.path("apps/web/deploy/before_release.sh");
    std::fs::set_permissions(hook, std::fs::Permissions::from_mode(0o644)).unwrap();
    bench.repo.commit("Hook");
    insta::assert_snapshot!(bench.says(&["deploy"]), @r#"
    exit 2
    error: apps.yaml:2:22: hook `before_release` of app `web` is not executable: `apps/web/deploy/before_release.sh`
     2 | discover: {include: ["apps/*"]}
       |                      ^
       help: chmod +x apps/web/deploy/before_release.sh && git add --chmod=+x apps/web/deploy/before_release.sh
    1 problem
    "#);
    assert_eq!((bench.calls("GET"), bench.calls("POST")), (vec![], vec![]));
}

#[test]
fn a_hook_whose_interpreter_is_missing() {
    let bench = Bench::released();
    bench.repo.write("apps/web/deploy/before_release.sh", "#!/usr/bin/no-such-shell\n").commit("Hook");
    insta::assert_snapshot!(bench.says(&["deploy"]), @r#"
    exit 1
    offbuild deploy COMMIT on main "Hook"
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
    web@staging: before_release started (deploy/before_release.sh)
    web@staging: before_release failed after TIME: hook `before_release` of `web@staging`: cannot start `REPO/apps/web/deploy/before_release.sh`: its first line `#!/usr/bin/no-such-shell` names an interpreter that is not installed

    TARGET  OUTCOME  RELEASE  TOOK  WHY
    web@staging  failed(hook)  TIME  hook `before_release` of `web@staging`: cannot start `REPO/apps/web/deploy/before_release.sh`: its first line `#!/usr/bin/no-such-shell` names an interpreter that is not installed

    web@staging failed in before_release
      hook `before_release` of `web@staging`: cannot start `REPO/apps/web/deploy/before_release.sh`: its first line `#!/usr/bin/no-such-shell` names an interpreter that is not installed
      next: run it by hand: (cd REPO/apps/web && deploy/before_release.sh)

    live now
      web@staging  -  nothing was ever deployed; RELEASE is staged, not live

    1 failed (TIME)
    when it is fixed and committed: offbuild deploy
    to try this commit again: offbuild deploy --resume
    "#);
    assert!(!bench.is_live());
}

#[test]
fn a_hook_that_fails() {
    let bench = Bench::released();
    bench.repo.write("apps/web/deploy/before_release.sh", "#!/bin/sh\necho migrating\nexit 3\n").commit("Hook");
    insta::assert_snapshot!(bench.says(&["deploy"]), @r#"
    exit 1
    offbuild deploy COMMIT on main "Hook"
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
    web@staging: before_release started (deploy/before_release.sh)
    web@staging | migrating
    web@staging: before_release failed after TIME: hook `before_release` of `web@staging`: `REPO/apps/web/deploy/before_release.sh` exited with code 3

    TARGET  OUTCOME  RELEASE  TOOK  WHY
    web@staging  failed(hook)  TIME  hook `before_release` of `web@staging`: `REPO/apps/web/deploy/before_release.sh` exited with code 3

    web@staging failed in before_release
      hook `before_release` of `web@staging`: `REPO/apps/web/deploy/before_release.sh` exited with code 3
      next: run it by hand: (cd REPO/apps/web && deploy/before_release.sh)

    live now
      web@staging  -  nothing was ever deployed; RELEASE is staged, not live

    1 failed (TIME)
    when it is fixed and committed: offbuild deploy
    to try this commit again: offbuild deploy --resume
    "#);
    assert!(!bench.is_live());
}

#[test]
fn a_hook_that_takes_too_long() {
    let bench = Bench::released();
    bench.repo.write("apps/web/deploy/before_release.sh", "#!/bin/sh\nexec sleep 1000\n");
    bench.configure("defaults: {racks: [staging], timeouts: {hook: 1s}}");
    insta::assert_snapshot!(bench.says(&["deploy"]), @r#"
    exit 1
    offbuild deploy COMMIT on main "Configure"
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
    web@staging: before_release started (deploy/before_release.sh)
    web@staging: before_release failed after TIME: hook `before_release` of `web@staging`: `REPO/apps/web/deploy/before_release.sh` did not end within 1s

    TARGET  OUTCOME  RELEASE  TOOK  WHY
    web@staging  failed(hook-timeout)  TIME  hook `before_release` of `web@staging`: `REPO/apps/web/deploy/before_release.sh` did not end within 1s

    web@staging failed in before_release
      hook `before_release` of `web@staging`: `REPO/apps/web/deploy/before_release.sh` did not end within 1s
      next: give it more time with `timeouts: {hook: …}` in apps.yaml, or make it quicker

    live now
      web@staging  -  nothing was ever deployed; RELEASE is staged, not live

    1 failed (TIME)
    to go on: offbuild deploy --resume
    "#);
    assert!(!bench.is_live());
}

#[test]
fn a_failure_hook_that_fails_hides_nothing() {
    let bench = Bench::released();
    bench
        .repo
        .write("apps/web/deploy/on_failure.sh", "#!/bin/sh\necho \"$OFFBUILD_FAILED_STAGE $OFFBUILD_FAILURE\"\nexit 9\n")
        .commit("Hook");
    bench.fault("staging:web:rack-build-fails");
    insta::assert_snapshot!(bench.says(&["deploy"]), @r#"
    exit 1
    offbuild deploy COMMIT on main "Hook"
    run RUN
    web@staging: deploy: never deployed
    1 target to deploy, 0 images to build, 2 at a time
    web@staging: stage started (web)
    web@staging | rack `staging` (version 20260421192651) builds from the manifest and pulls the images
    web@staging | ERROR: the sandbox was told to fail this build
    web@staging: stage failed after TIME: the build on rack `staging` failed: the sandbox was told to fail this build
    web@staging: on_failure started (deploy/on_failure.sh)
    web@staging | stage rack-build
    web@staging: on_failure failed after TIME: hook `on_failure` of `web@staging`: `REPO/apps/web/deploy/on_failure.sh` exited with code 9

    TARGET  OUTCOME  RELEASE  TOOK  WHY
    web@staging  failed(rack-build)  TIME  the build on rack `staging` failed: the sandbox was told to fail this build

    web@staging failed in stage
      the build on rack `staging` failed: the sandbox was told to fail this build
      next: read the build log above; a missing variable is set with: convox env set NAME=VALUE -a APP --rack staging

    web@staging failed in on_failure
      hook `on_failure` of `web@staging`: `REPO/apps/web/deploy/on_failure.sh` exited with code 9
      next: run it by hand: (cd REPO/apps/web && deploy/on_failure.sh)

    live now
      web@staging  -  nothing was ever deployed

    1 failed (TIME)
    when it is fixed and committed: offbuild deploy
    to try this commit again: offbuild deploy --resume
    "#);
}
