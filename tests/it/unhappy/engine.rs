//! Engines that are not there, too old or full, and builds that cannot go well.

use super::bench::Bench;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;

#[test]
fn no_engine() {
    let mut bench = Bench::built();
    bench.set("DOCKER_HOST", "unix:///no/docker.sock");
    insta::assert_snapshot!(bench.says(&["deploy"]), @r#"
    exit 3
    error: cannot connect to the Docker Engine at unix:///no/docker.sock (from `DOCKER_HOST`): No such file or directory (os error 2)
      next: start the engine (`sudo systemctl start docker`), or set `DOCKER_HOST` to where it is
    "#);
    assert_eq!(bench.calls("POST"), [""; 0]);
}

#[test]
fn an_engine_without_buildkit() {
    let mut bench = Bench::built();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    bench.set("DOCKER_HOST", format!("tcp://{address}"));
    bench.called(address, "ENGINE");
    std::thread::spawn(move || answer_as_an_old_engine(&listener));
    insta::assert_snapshot!(bench.says(&["deploy"]), @r#"
    exit 3
    error: the engine at tcp://ENGINE (from `DOCKER_HOST`) has no BuildKit: `POST /grpc` was answered with 404 Not Found
      next: use Docker Engine 18.09 or newer on Linux; other engines (Podman, Windows containers) cannot build here
    "#);
    assert_eq!(bench.calls("POST"), [""; 0]);
}

/// `/_ping` and `/version` as an engine answers them, 404 for everything else.
fn answer_as_an_old_engine(listener: &TcpListener) {
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let Some(Ok(request)) = lines.next() else { continue };
        // The headers have to be read before the connection is closed.
        let _ = lines.map_while(Result::ok).find(String::is_empty);
        let path = request.split(' ').nth(1).unwrap_or_default();
        let (status, kind, body) = match path {
            path if path.ends_with("/_ping") => ("200 OK", "text/plain", "OK"),
            path if path.ends_with("/version") => {
                ("200 OK", "application/json", r#"{"Version":"17.03.2-ce","ApiVersion":"1.27","Os":"linux","Arch":"amd64"}"#)
            }
            _ => ("404 Not Found", "application/json", r#"{"message":"page not found"}"#),
        };
        let head = format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        // A client that has gone away needs no answer.
        let _ = stream.write_all(format!("{head}{body}").as_bytes());
    }
}

#[test]
fn a_docker_host_that_is_no_address() {
    let mut bench = Bench::built();
    bench.set("DOCKER_HOST", "carrier-pigeon://here");
    insta::assert_snapshot!(bench.says(&["deploy"]), @r#"
    exit 3
    error: the engine's address `carrier-pigeon://here` (from `DOCKER_HOST`) cannot be used: `carrier-pigeon` is not supported
      next: use `unix:///path/to/docker.sock`, `tcp://host:2376` or `ssh://user@host`
    "#);
}

#[test]
fn an_engine_whose_disk_is_full() {
    let bench = Bench::built();
    let base = crate::support::engine::Base::import();
    // A write to this device fails as one to a full disk does.
    bench.repo.write("apps/web/Dockerfile", format!("FROM {}\nRUN echo x > /dev/full\n", base.name)).commit("Fill");
    let said = bench.says(&["deploy"]).replace(&base.name, "BASE");
    insta::assert_snapshot!(said, @r#"
    exit 1
    offbuild deploy COMMIT on main "Fill"
    run RUN
    web@staging: deploy: never deployed
    1 target to deploy, 1 image to build, 2 at a time
    web/web: build started (apps/web/Dockerfile)
    web/web | sh: write error: No space left on device
    web/web | => [2/2] RUN echo x > /dev/full error: executor failed running [/bin/sh -c echo x > /dev/full]: exit code: 1
    web/web: build failed after TIME: build of `web/web`: the build failed: executor failed running [/bin/sh -c echo x > /dev/full]: exit code: 1: sh: write error: No space left on device

    TARGET  OUTCOME  RELEASE  TOOK  WHY
    web@staging  failed(engine)  build of `web/web`: the build failed: executor failed running [/bin/sh -c echo x > /dev/full]: exit code: 1: sh: write error: No space left on device

    web@staging failed in build
      build of `web/web`: the build failed: executor failed running [/bin/sh -c echo x > /dev/full]: exit code: 1: sh: write error: No space left on device
      next: the engine's disk is full: free it with `docker system prune` there, or give it more room

    live now
      web@staging  -  nothing was ever deployed

    1 failed (TIME)
    to go on: offbuild deploy --resume
    "#);
    assert_eq!(bench.calls("POST"), [""; 0]);
}

#[test]
fn a_build_that_fails() {
    let bench = Bench::built();
    let base = crate::support::engine::Base::import();
    bench.repo.write("apps/web/Dockerfile", format!("FROM {}\nRUN echo no such gem; exit 7\n", base.name)).commit("Break");
    let said = bench.says(&["deploy"]).replace(&base.name, "BASE");
    insta::assert_snapshot!(said, @r#"
    exit 1
    offbuild deploy COMMIT on main "Break"
    run RUN
    web@staging: deploy: never deployed
    1 target to deploy, 1 image to build, 2 at a time
    web/web: build started (apps/web/Dockerfile)
    web/web | no such gem
    web/web | => [2/2] RUN echo no such gem; exit 7 error: executor failed running [/bin/sh -c echo no such gem; exit 7]: exit code: 7
    web/web: build failed after TIME: build of `web/web` failed: executor failed running [/bin/sh -c echo no such gem; exit 7]: exit code: 7
         --> apps/web/Dockerfile:2
           1 | FROM BASE
         > 2 | RUN echo no such gem; exit 7

    TARGET  OUTCOME  RELEASE  TOOK  WHY
    web@staging  failed(build)  build of `web/web` failed: executor failed running [/bin/sh -c echo no such gem; exit 7]: exit code: 7

    web@staging failed in build
      build of `web/web` failed: executor failed running [/bin/sh -c echo no such gem; exit 7]: exit code: 7
      --> apps/web/Dockerfile:2
      1 | FROM BASE
      > 2 | RUN echo no such gem; exit 7
      next: see the build's log; build it alone: `offbuild build web`

    live now
      web@staging  -  nothing was ever deployed

    1 failed (TIME)
    when it is fixed and committed: offbuild deploy
    to try this commit again: offbuild deploy --resume
    "#);
    assert_eq!(bench.calls("POST"), [""; 0]);
}

#[test]
fn a_build_secret_that_nobody_provides() {
    let bench = Bench::built();
    bench.configure("apps: {web: {build: {secrets: {npm: {env: NPM_TOKEN}}}}}");
    bench.repo.write("apps/web/Dockerfile", "FROM scratch\nCOPY file /file\nRUN --mount=type=secret,id=npm x\n").commit("Secret");
    insta::assert_snapshot!(bench.says(&["deploy"]), @r#"
    exit 1
    offbuild deploy COMMIT on main "Secret"
    run RUN
    web@staging: deploy: never deployed
    1 target to deploy, 1 image to build, 2 at a time
    web/web: build started (apps/web/Dockerfile)
    web/web: build failed after TIME: build of `web/web`: secret `npm` comes from the environment variable `NPM_TOKEN`, which is not set

    TARGET  OUTCOME  RELEASE  TOOK  WHY
    web@staging  failed(build)  build of `web/web`: secret `npm` comes from the environment variable `NPM_TOKEN`, which is not set

    web@staging failed in build
      build of `web/web`: secret `npm` comes from the environment variable `NPM_TOKEN`, which is not set
      next: set `NPM_TOKEN`

    live now
      web@staging  -  nothing was ever deployed

    1 failed (TIME)
    when it is fixed and committed: offbuild deploy
    to try this commit again: offbuild deploy --resume
    "#);
    bench.repo.write("apps/web/Dockerfile", "FROM scratch\nCOPY file /file\nRUN --mount=type=secret,id=other x\n").commit("Other secret");
    bench.configure("apps: {}");
    insta::assert_snapshot!(bench.says(&["deploy"]), @r#"
    exit 1
    offbuild deploy COMMIT on main "Configure"
    run RUN
    web@staging: deploy: never deployed
    1 target to deploy, 1 image to build, 2 at a time
    web/web: build started (apps/web/Dockerfile)
    web/web: build failed after TIME: build of `web/web`: apps/web/Dockerfile:3 mounts secret `other`, which nobody provides
           2 | COPY file /file
         > 3 | RUN --mount=type=secret,id=other x

    TARGET  OUTCOME  RELEASE  TOOK  WHY
    web@staging  failed(build)  build of `web/web`: apps/web/Dockerfile:3 mounts secret `other`, which nobody provides

    web@staging failed in build
      build of `web/web`: apps/web/Dockerfile:3 mounts secret `other`, which nobody provides
      2 | COPY file /file
      > 3 | RUN --mount=type=secret,id=other x
      next: add `other` to the service's `build: secrets:`

    live now
      web@staging  -  nothing was ever deployed

    1 failed (TIME)
    when it is fixed and committed: offbuild deploy
    to try this commit again: offbuild deploy --resume
    "#);
}

#[test]
fn a_dockerfile_that_is_missing() {
    let bench = Bench::built();
    bench.repo.write("apps/web/convox.yml", "services:\n  web:\n    build: {path: ., manifest: Dockerfile.prod}\n").commit("Name another");
    insta::assert_snapshot!(bench.says(&["deploy"]), @r#"
    exit 1
    offbuild deploy COMMIT on main "Name another"
    run RUN
    web@staging: deploy: never deployed
    1 target to deploy, 1 image to build, 2 at a time
    web/web: build started (apps/web/Dockerfile.prod)
    web/web: build failed after TIME: build of `web/web`: the Dockerfile `apps/web/Dockerfile.prod` cannot be read: No such file or directory (os error 2)

    TARGET  OUTCOME  RELEASE  TOOK  WHY
    web@staging  failed(build)  build of `web/web`: the Dockerfile `apps/web/Dockerfile.prod` cannot be read: No such file or directory (os error 2)

    web@staging failed in build
      build of `web/web`: the Dockerfile `apps/web/Dockerfile.prod` cannot be read: No such file or directory (os error 2)
      next: write it, or name another with the manifest's `dockerfile:` or `manifest:` key

    live now
      web@staging  -  nothing was ever deployed

    1 failed (TIME)
    when it is fixed and committed: offbuild deploy
    to try this commit again: offbuild deploy --resume
    "#);
    assert_eq!(bench.calls("POST"), [""; 0]);
}

#[test]
fn a_context_that_is_missing() {
    let bench = Bench::built();
    bench.repo.write("apps/web/convox.yml", "services:\n  web:\n    build: ./server\n").commit("Move");
    insta::assert_snapshot!(bench.says(&["deploy"]), @r#"
    exit 1
    offbuild deploy COMMIT on main "Move"
    run RUN
    web@staging: deploy: never deployed
    1 target to deploy, 1 image to build, 2 at a time
    web/web: build started (apps/web/server/Dockerfile)
    web/web: build failed after TIME: build of `web/web`: the build context `REPO/apps/web/server` is no readable directory: No such file or directory (os error 2)

    TARGET  OUTCOME  RELEASE  TOOK  WHY
    web@staging  failed(build)  build of `web/web`: the build context `REPO/apps/web/server` is no readable directory: No such file or directory (os error 2)

    web@staging failed in build
      build of `web/web`: the build context `REPO/apps/web/server` is no readable directory: No such file or directory (os error 2)
      next: correct its path

    live now
      web@staging  -  nothing was ever deployed

    1 failed (TIME)
    when it is fixed and committed: offbuild deploy
    to try this commit again: offbuild deploy --resume
    "#);
    assert_eq!(bench.calls("POST"), [""; 0]);
}
