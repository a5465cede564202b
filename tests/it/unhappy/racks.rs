//! Racks that are down, busy, slow, forgetful, or refuse.

use super::bench::Bench;
use crate::support::services::Port;

#[test]
fn a_rack_that_is_down() {
    let mut bench = Bench::released();
    let nobody = Port::hold();
    bench.set("STAGING_HOST", format!("http://{}", nobody.host()));
    bench.called(nobody.host(), "DEAD");
    insta::assert_snapshot!(bench.says(&["deploy"]), @r#"
    exit 3
    error: rack `staging` cannot be reached: tcp connect error: Connection refused (os error 111)
      next: check `DEAD` (`racks.staging.host` in apps.yaml) and whether this machine may connect to it
    "#);
}

#[test]
fn one_rack_of_two_that_is_down_keeps_nobody_else() {
    let mut bench = Bench::released();
    let nobody = Port::hold();
    let host = nobody.host();
    let racks = format!(
        "racks: {{staging: {{host: \"${{STAGING_HOST}}\", password: \"${{STAGING_PASSWORD}}\", poll: 50ms}}, \
         gone: {{host: \"http://{host}\", password: x, poll: 50ms}}}}\ndefaults: {{racks: [staging, gone]}}"
    );
    bench.called(host, "DEAD");
    bench.configure(&racks);
    let said = bench.says(&["deploy"]);
    let summary = said.find("TARGET").map_or(said.as_str(), |at| &said[at..]);
    assert!(said.starts_with("exit 1\n"), "{said}");
    insta::assert_snapshot!(summary, @r#"
    TARGET  OUTCOME  RELEASE  TOOK  WHY
    web@gone  failed(rack-unreachable)  rack `gone` cannot be reached: tcp connect error: Connection refused (os error 111)
    web@staging  deployed  RELEASE  TIME  never deployed

    web@gone failed in stage
      rack `gone` cannot be reached: tcp connect error: Connection refused (os error 111)
      next: check `DEAD` (`racks.gone.host` in apps.yaml) and whether this machine may connect to it

    live now
      web@gone  -  not known: the rack could not be asked
      web@staging  RELEASE  this commit

    worth knowing
      the password of rack `gone` is too short (or much too long) to be masked: logs may show it

    1 deployed, 1 failed (TIME)
    to go on: offbuild deploy --resume
    "#);
    assert!(bench.offbuild().run(&["status", "--rack", "staging"]).code(0).stdout.contains("web@staging  running  R"));
}

#[test]
fn a_rack_that_closes_connections() {
    let bench = Bench::released();
    bench.fault("staging:down");
    // Which of the two it is depends on how far the request had come.
    let said = bench.says(&["deploy"]);
    let said = said.replace("connection closed before message completed", "CLOSED");
    let said = said.replace("connection error: Connection reset by peer (os error 104)", "CLOSED");
    insta::assert_snapshot!(said, @r#"
    exit 3
    error: rack `staging` cannot be reached: CLOSED (asked for its version)
      next: check `racks.staging.host` and the network, then: offbuild doctor
    "#);
}

#[test]
fn a_rack_that_fails_once_is_asked_again() {
    let bench = Bench::released();
    bench.fault("staging:500-once:/apps/web");
    insta::assert_snapshot!(bench.says(&["deploy"]), @r#"
    exit 0
    offbuild deploy COMMIT on main "Start"
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
    assert!(bench.is_live());
}

#[test]
fn a_rack_that_refuses_the_login() {
    let bench = Bench::released();
    bench.fault("staging:401");
    insta::assert_snapshot!(bench.says(&["deploy"]), @r#"
    exit 3
    error: rack `staging` refused the login: invalid authentication (user `convox`, host `RACK`, from `racks.staging.host` in apps.yaml)
      next: check `racks.staging.password` in apps.yaml, CONVOX_PASSWORD, or log in again: convox login HOST
    "#);
}

#[test]
fn an_app_that_the_rack_does_not_have() {
    let bench = Bench::released();
    bench.configure("apps: {web: {name: shop}}");
    insta::assert_snapshot!(bench.says(&["deploy"]), @r#"
    exit 1
    offbuild deploy COMMIT on main "Configure"
    run RUN
    web@staging: failed

    TARGET  OUTCOME  RELEASE  TOOK  WHY
    web@staging  failed(rack)  app `shop` does not exist on rack `staging`

    web@staging failed in stage
      app `shop` does not exist on rack `staging`
      next: create it: convox apps create shop --rack staging, or name it with `name: {staging: …}` in apps.yaml

    live now
      web@staging  -  nothing was ever deployed

    1 failed (TIME)
    to go on: offbuild deploy --resume
    "#);
    assert_eq!(bench.calls("POST"), [""; 0]);
}

#[test]
fn an_app_that_somebody_else_updates() {
    let bench = Bench::released();
    bench.configure("defaults: {racks: [staging], timeouts: {promote: 1s}}");
    bench.fault("staging:web:updating");
    insta::assert_snapshot!(bench.says(&["deploy"]), @r#"
    exit 1
    offbuild deploy COMMIT on main "Configure"
    run RUN
    web@staging: deploy: never deployed
    1 target to deploy, 0 images to build, 2 at a time
    web@staging: stage started (web)
    web@staging: stage failed after TIME: app `web` on rack `staging` is updating: another deploy or update is under way

    TARGET  OUTCOME  RELEASE  TOOK  WHY
    web@staging  failed(rack)  TIME  app `web` on rack `staging` is updating: another deploy or update is under way

    web@staging failed in stage
      app `web` on rack `staging` is updating: another deploy or update is under way
      next: wait for it (convox apps info -a web --rack staging), or: convox apps cancel web --rack staging

    live now
      web@staging  -  nothing was ever deployed

    1 failed (TIME)
    to go on: offbuild deploy --resume
    "#);
    assert_eq!(bench.changes("/promote"), [""; 0]);
}

#[test]
fn a_build_that_fails_on_the_rack() {
    let bench = Bench::released();
    bench.fault("staging:web:rack-build-fails");
    insta::assert_snapshot!(bench.says(&["deploy"]), @r#"
    exit 1
    offbuild deploy COMMIT on main "Start"
    run RUN
    web@staging: deploy: never deployed
    1 target to deploy, 0 images to build, 2 at a time
    web@staging: stage started (web)
    web@staging | rack `staging` (version 20260421192651) builds from the manifest and pulls the images
    web@staging | ERROR: the sandbox was told to fail this build
    web@staging: stage failed after TIME: the build on rack `staging` failed: the sandbox was told to fail this build

    TARGET  OUTCOME  RELEASE  TOOK  WHY
    web@staging  failed(rack-build)  TIME  the build on rack `staging` failed: the sandbox was told to fail this build

    web@staging failed in stage
      the build on rack `staging` failed: the sandbox was told to fail this build
      next: read the build log above; a missing variable is set with: convox env set NAME=VALUE -a APP --rack staging

    live now
      web@staging  -  nothing was ever deployed

    1 failed (TIME)
    when it is fixed and committed: offbuild deploy
    to try this commit again: offbuild deploy --resume
    "#);
    assert_eq!(bench.changes("/promote"), [""; 0]);
}

#[test]
fn a_promote_that_never_ends() {
    let bench = Bench::released();
    bench.configure("defaults: {racks: [staging], timeouts: {promote: 1s}}");
    bench.fault("staging:web:promote-hangs");
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
    web@staging: promote started (RELEASE)
    web@staging: promote failed after TIME: rack `staging`: timed out after 1s waiting for app `web` to run release `RELEASE` (it is `updating`, no active release; see `convox apps info -a web --rack staging`)

    TARGET  OUTCOME  RELEASE  TOOK  WHY
    web@staging  failed(promote-timeout)  TIME  rack `staging`: timed out after 1s waiting for app `web` to run release `RELEASE` (it is `updating`, no active release; see `convox apps info -a web --rack staging`)

    web@staging failed in promote
      rack `staging`: timed out after 1s waiting for app `web` to run release `RELEASE` (it is `updating`, no active release; see `convox apps info -a web --rack staging`)
      looks like:
        a roll that is slow, not broken: it was still going on when time ran out
      what the rack said:
        UPDATE_IN_PROGRESS: web RELEASE
      next: see whether it ends: convox apps info -a web --rack staging; if it does, raise `timeouts.promote`

    live now
      web@staging  -  not known: a promote was under way

    1 failed (TIME)
    to go on: offbuild deploy --resume
    to see what is live: offbuild status
    "#);
}

#[test]
fn a_promote_that_is_rolled_back() {
    let bench = Bench::released();
    bench.fault("staging:web:promote-rolls-back");
    insta::assert_snapshot!(bench.says(&["deploy"]), @r#"
    exit 1
    offbuild deploy COMMIT on main "Start"
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
    web@staging: promote rolled back after TIME: rack `staging` rolled `web` back: nothing is active, not RELEASE

    TARGET  OUTCOME  RELEASE  TOOK  WHY
    web@staging  rolled-back  TIME  rack `staging` rolled `web` back: nothing is active, not RELEASE

    web@staging rolled back
      rack `staging` rolled `web` back: nothing is active, not RELEASE
      looks like:
        nothing the rack or the app says explains it
      what the rack said:
        UPDATE_IN_PROGRESS: web RELEASE
        UPDATE_ROLLBACK_IN_PROGRESS: web the sandbox was told to roll this back
        UPDATE_ROLLBACK_COMPLETE: web
      next: see what the app said before it stopped: convox logs -a web --rack staging --since 30m

    live now
      web@staging  -  nothing was ever deployed; RELEASE is staged, not live

    1 rolled back (TIME)
    when it is fixed and committed: offbuild deploy
    to try this commit again: offbuild deploy --resume
    "#);
}

#[test]
fn a_promote_whose_answer_is_lost_is_sent_once() {
    let bench = Bench::released();
    bench.fault("staging:web:promote-answer-lost");
    insta::assert_snapshot!(bench.says(&["deploy"]), @r#"
    exit 0
    offbuild deploy COMMIT on main "Start"
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
    // The one call has no status: the rack closed the connection.
    assert_eq!(bench.changes("/promote"), ["/apps/web/releases/RELEASE/promote null"]);
    assert!(bench.is_live());
}

#[test]
fn a_build_whose_answer_is_lost_is_found_again() {
    let bench = Bench::released();
    bench.fault("staging:web:build-answer-lost");
    insta::assert_snapshot!(bench.says(&["deploy"]), @r#"
    exit 0
    offbuild deploy COMMIT on main "Start"
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
    assert_eq!(bench.changes("/builds"), ["/apps/web/builds null"]);
    assert!(bench.is_live());
}
