//! Which images are built, and what is done with those that are there.

use crate::support::world::{Run, Setup, World};
use offbuild::event::{EventKind, Stage};
use offbuild::sandbox::Version;

fn head(world: &World) -> String {
    world.repo.git(&["rev-parse", "HEAD"])
}

#[test]
fn a_commit_that_changes_no_input_is_released_with_the_image_that_is_there() {
    let world = Setup::new(&["web"]).start();
    world.hook("web", "before_build", "echo built").repo.commit("a hook");
    world.run(&["deploy"]).code(0);
    let first = head(&world);
    world.repo.write("apps/web/NOTES.md", "ignored\n").commit("notes");
    world.run(&["deploy"]).code(0).outcomes(&["web@staging up-to-date"]);
    let run = world.run(&["build", "--all"]).code(0);
    assert_eq!(run.images(), ["web/web reuse"]);
    assert_eq!(run.begun(Stage::Build), Vec::<String>::new());
    // What is not built again runs no build hook.
    assert_eq!(run.begun(Stage::BeforeBuild), Vec::<String>::new());
    let digest = |commit: &str| world.digest("web", &format!("web.{commit}"));
    assert_eq!(digest(&head(&world)), digest(&first));
}

#[test]
fn a_revert_brings_the_earlier_image_back_without_a_build() {
    let world = Setup::new(&["web"]).start();
    world.run(&["deploy"]).code(0);
    let first = world.sandbox.live("staging", "web");
    world.page("web", "second").repo.commit("second");
    world.run(&["deploy"]).code(0);
    world.repo.git(&["revert", "--no-edit", "HEAD"]);
    let run = world.run(&["deploy"]).code(0).outcomes(&["web@staging deployed"]);
    assert_eq!(run.images(), ["web/web reuse"]);
    assert_eq!(run.begun(Stage::Build), Vec::<String>::new());
    assert_eq!(world.sandbox.live("staging", "web").manifest, first.manifest);
    assert_eq!(world.digest("web", &format!("web.{}", head(&world))), world.digest("web", &format!("web.{}", first.commit)));
}

#[test]
fn a_commits_tag_that_holds_something_else_is_never_overwritten() {
    let world = Setup::new(&["api", "web"]).start();
    world.run(&["deploy"]).code(0);
    let live = world.sandbox.live("staging", "web");
    world.page("web", "second").page("api", "second").repo.commit("second");
    let tag = format!("web.{}", head(&world));
    world.move_tag("web", &format!("web.{}", live.commit), &tag);
    let before = world.digest("web", &tag);
    let run = world.run(&["deploy", "--gate", "app", "--on-failure", "continue"]).code(1).says(&tag);
    let run = run.outcomes(&["api@staging deployed", "web@staging failed(tag-conflict)"]);
    assert_eq!(run.begun(Stage::Build), ["api/web"]);
    assert_eq!(world.digest("web", &tag), before);
    assert_eq!(world.sandbox.live("staging", "web"), live);
}

#[test]
fn an_environment_never_gets_the_image_of_another_one() {
    let world = Setup::new(&["web"]).defaults("build: {args: {STAGE: \"${STAGE}\"}}").start();
    world.app("web", "ARG STAGE\nRUN echo $STAGE > /stage\n").repo.commit("a stage");
    let deploy = |stage: &str| {
        let run = world.run_as(&world.offbuild().env("STAGE", stage), &["deploy", "--all"]).code(0);
        let manifest = world.sandbox.live("staging", "web").manifest;
        (run.images(), manifest.split("@sha256:").nth(1).unwrap()[..64].to_owned())
    };
    let (done, one) = deploy("one");
    assert_eq!(done, ["web/web build"]);
    let of_commit = world.digest("web", &format!("web.{}", head(&world)));
    assert_eq!(of_commit, format!("sha256:{one}"));
    let (done, two) = deploy("two");
    assert_eq!(done, ["web/web build"]);
    assert_ne!(one, two);
    // Both are found again, and the commit's tag is what it was.
    assert_eq!(deploy("two"), (vec!["web/web present".to_owned()], two));
    assert_eq!(deploy("one"), (vec!["web/web present".to_owned()], one));
    assert_eq!(world.digest("web", &format!("web.{}", head(&world))), of_commit);
}

#[test]
fn equal_builds_of_two_apps_run_once_and_are_pushed_for_both() {
    let world = Setup::new(&["api", "web"]).start();
    for app in ["api", "web"] {
        let manifest = "services:\n  web:\n    build:\n      path: ../../shared\n";
        world.repo.write(&format!("apps/{app}/convox.yml"), manifest);
    }
    world.repo.write("shared/Dockerfile", format!("FROM {}\nCOPY page /page\n", world.base()));
    world.repo.write("shared/page", "one for all\n").commit("one image");
    let run = world.run(&["deploy"]).code(0).outcomes(&["api@staging deployed", "web@staging deployed"]);
    assert_eq!(run.begun(Stage::Build).len(), 1);
    assert_eq!(run.finished(Stage::Push), ["api/web", "web/web"]);
    let tag = format!("web.{}", head(&world));
    assert_eq!(world.digest("api", &tag), world.digest("web", &tag));
}

#[test]
fn an_app_of_two_services_has_two_images_and_one_release() {
    let world = Setup::new(&["shop"]).start();
    let manifest = "services:\n  web:\n    build: .\n  worker:\n    build:\n      path: .\n      manifest: Dockerfile.worker\n";
    world.repo.write("apps/shop/Dockerfile.worker", format!("FROM {}\nCOPY page /work\n", world.base()));
    world.repo.write("apps/shop/convox.yml", manifest).commit("two services");
    let run = world.run(&["deploy"]).code(0).outcomes(&["shop@staging deployed"]);
    assert_eq!(run.finished(Stage::Build), ["shop/web", "shop/worker"]);
    assert_eq!(run.finished(Stage::Push), ["shop/web", "shop/worker"]);
    assert_eq!(world.sandbox.promotes("staging", "shop"), 1);
    let live = world.sandbox.live("staging", "shop");
    for service in ["web", "worker"] {
        let digest = world.digest("shop", &format!("{service}.{}", head(&world)));
        assert!(live.manifest.contains(&digest), "{service}: {}", live.manifest);
    }
}

#[test]
fn images_alone_are_built_and_pushed_and_the_rack_is_only_read() {
    let world = Setup::new(&["web"]).start();
    let before = world.sandbox.requests().len();
    let run = world.run(&["build"]).code(0);
    assert_eq!(run.finished(Stage::Push), ["web/web"]);
    let sent = world.sandbox.requests().split_off(before);
    assert!(sent.iter().all(|request| request.method == "GET"), "{sent:?}");
    assert!(world.tags("web").contains(&format!("web.{}", head(&world))));
    let run = world.run(&["deploy"]).code(0).outcomes(&["web@staging deployed"]);
    assert_eq!(run.images(), ["web/web present"]);
}

#[test]
fn what_after_build_makes_of_the_tag_is_what_is_pushed_and_released() {
    let world = Setup::new(&["web"]).start();
    let script =
        "set -e\nid=$(docker create \"$DOCKER_TAG\")\ndocker commit -c 'LABEL patched=yes' \"$id\" \"$DOCKER_TAG\"\ndocker rm \"$id\"";
    world.hook("web", "after_build", script).repo.commit("hook");
    world.run(&["deploy"]).code(0).outcomes(&["web@staging deployed"]);
    let tag = format!("web.{}", head(&world));
    let digest = world.digest("web", &tag);
    assert!(world.sandbox.live("staging", "web").manifest.contains(&digest));
    let mut inspect = std::process::Command::new("docker");
    inspect.args(["image", "inspect", "--format", "{{.Config.Labels.patched}} {{.RepoDigests}}"]);
    let said = crate::support::sh(inspect.arg(format!("{}/web:{tag}", world.host())));
    assert!(said.starts_with("yes ") && said.contains(&digest), "{said}");
}

#[test]
fn a_dockerfile_that_is_not_there_when_it_is_needed_fails_its_build() {
    let world = Setup::new(&["web"]).start();
    world.repo.write("apps/web/convox.yml", "services:\n  web:\n    build: {path: ., manifest: Dockerfile.none}\n").commit("none");
    let run = world.run(&["deploy"]).code(1).says("Dockerfile.none").outcomes(&["web@staging failed(build)"]);
    assert_eq!(run.begun(Stage::Push), Vec::<String>::new());
    // A hook may write it: that is why it is not missed before.
    world.hook("web", "before_build", &format!("printf 'FROM {}\\n' >Dockerfile.none", world.base()));
    world.repo.write("apps/web/.gitignore", "Dockerfile.none\n").commit("written by a hook");
    world.run(&["deploy"]).code(0).outcomes(&["web@staging deployed"]);
}

#[test]
fn a_registry_that_does_not_give_what_was_pushed_fails_the_app_and_the_next_run_goes_on() {
    let world = Setup::new(&["web"]).ecr().start();
    world.sandbox.fault("registry:manifest-missing");
    let run = world.run(&["deploy"]).code(1).says(&world.host()).outcomes(&["web@staging failed(push)"]);
    assert_eq!(run.begun(Stage::Stage), Vec::<String>::new());
    world.sandbox.heal();
    world.run(&["deploy"]).code(0).outcomes(&["web@staging deployed"]);
}

#[test]
fn with_a_registry_cache_the_next_build_reads_what_the_last_one_wrote() {
    let world = Setup::new(&["web"]).rack("staging", Version::V2, "cache: {registry: true}").start();
    let imports = |run: &Run| -> Vec<(String, Option<String>)> {
        let import = |kind: &EventKind| match kind {
            EventKind::BuildStep { name, error, done: true, .. } if name.starts_with("importing cache manifest") => {
                Some((name.clone(), error.clone()))
            }
            _ => None,
        };
        run.kinds().filter_map(import).collect()
    };
    world.run(&["deploy"]).code(0).says(&format!("web/web: there is no cache at `{}/web:web.latest` yet", world.host()));
    let head = head(&world);
    assert!(world.image_config("web", &format!("web.{head}"))["moby.buildkit.cache.v0"].is_string());
    world.page("web", "second").repo.commit("second");
    let run = world.run(&["deploy"]).code(0).outcomes(&["web@staging deployed"]);
    assert_eq!(imports(&run), [(format!("importing cache manifest from {}/web:web.latest", world.host()), None)]);
    assert!(!run.done.stderr.contains("cache at"), "{}", run.done.stderr);
}
