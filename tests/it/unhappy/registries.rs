//! Registries that are down, refuse, or break off.

use super::bench::{Bench, wait_for};
use crate::support::services::{Port, Registry, login};

#[test]
fn a_registry_that_is_down() {
    let mut bench = Bench::built();
    let nobody = Port::hold();
    bench.set("REGISTRY_HOST", nobody.host());
    bench.called(nobody.host(), "DEAD");
    insta::assert_snapshot!(bench.says(&["deploy"]), @r#"
    exit 3
    error: registry `DEAD` cannot be reached: tcp connect error: Connection refused (os error 111)
      next: check that `DEAD` is the registry's address, and that this machine may connect to it
    "#);
    assert_eq!(bench.calls("POST"), [""; 0]);
}

#[test]
fn a_registry_that_refuses_the_login() {
    let mut bench = Bench::built();
    let home = bench.repo.dir.path().join("home");
    let registry = Registry::start(&home);
    login(&home, &registry.host, "wrong");
    bench.set("REGISTRY_HOST", &registry.host);
    bench.called(&registry.host, "PRIVATE");
    insta::assert_snapshot!(bench.says(&["deploy"]), @r#"
    exit 3
    error: registry `PRIVATE` refused access: HTTP 401
      next: the login in Docker's config file is wrong or may not do this: run `docker login PRIVATE`
    "#);
    assert_eq!(bench.calls("POST"), [""; 0]);
}

/// The registry answers until the images are built, and refuses from then on.
#[test]
fn a_registry_that_takes_no_pushes() {
    let bench = Bench::built();
    let above = bench.repo.dir.path().display().to_string();
    let hook = format!("#!/bin/sh\ntouch {above}/built\nwhile [ ! -e {above}/go ]; do sleep 0.02; done\n");
    bench.repo.write("apps/web/deploy/after_build.sh", hook).commit("Hook");
    let faults = bench.sandbox.faults.clone();
    let refuse = std::thread::spawn(move || {
        let above = std::path::PathBuf::from(above);
        wait_for(&above.join("built"));
        faults.add("registry:login-refused".parse().unwrap());
        std::fs::write(above.join("go"), "").unwrap();
    });
    insta::assert_snapshot!(bench.says(&["deploy"]), @r#"
    exit 1
    offbuild deploy COMMIT on main "Hook"
    run RUN
    web@staging: deploy: never deployed
    1 target to deploy, 1 image to build, 2 at a time
    web/web: build started (apps/web/Dockerfile)
    web/web: build done in TIME (1 step, 0 cached)
    web: after_build started (deploy/after_build.sh)
    web: after_build done in TIME
    web/web: push started (REGISTRY/web:web.COMMIT)
    web/web: push failed after TIME: push of `REGISTRY/web:web.COMMIT` failed: `REGISTRY/web:web.COMMIT`: no basic auth credentials

    TARGET  OUTCOME  RELEASE  TOOK  WHY
    web@staging  failed(push)  push of `REGISTRY/web:web.COMMIT` failed: `REGISTRY/web:web.COMMIT`: no basic auth credentials

    web@staging failed in push
      push of `REGISTRY/web:web.COMMIT` failed: `REGISTRY/web:web.COMMIT`: no basic auth credentials
      next: check the login: docker login REGISTRY

    live now
      web@staging  -  nothing was ever deployed

    1 failed (TIME)
    1 image built, 0 pushed, 0 reused; 0 of 1 build step cached
    to go on: offbuild deploy --resume
    "#);
    refuse.join().unwrap();
    assert_eq!(bench.calls("POST"), [""; 0]);
}
