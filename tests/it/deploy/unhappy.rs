//! What is wrong before anything is done: said with its place and a next step, and nothing is touched.

use crate::support::world::{Setup, World};
use offbuild::event::Stage;

/// Runs `deploy`, which must end with the code, say the texts, and send no rack anything but reads.
#[track_caller]
fn refuses(world: &World, code: i32, texts: &[&str]) {
    let before = world.sandbox.requests().len();
    let mut run = world.run(&["deploy"]).code(code);
    for text in texts {
        run = run.says(text);
    }
    assert!(run.events.is_empty(), "it recorded a run");
    let sent = world.sandbox.requests().split_off(before);
    assert!(sent.iter().all(|request| request.method == "GET"), "{sent:?}");
    // What is wrong with the files is known before anybody is asked.
    assert!(code != 2 || sent.is_empty(), "{sent:?}");
}

#[test]
fn what_is_wrong_in_the_files_is_said_with_its_line() {
    let world = Setup::new(&["web"]).start();
    let manifest = "services:\n  web:\n    build: .\n";
    let cases: &[(&str, &str, &[&str])] = &[
        ("no service", "services: {}\n", &["apps/web/convox.yml", "web"]),
        ("invalid YAML", "services:\n  web: [\n", &["apps/web/convox.yml:"]),
        (
            "an image that is none",
            "services:\n  web:\n    build: .\n    image: \"Not An Image\"\n",
            &["apps/web/convox.yml:4:", "Not An Image"],
        ),
        ("a context outside", "services:\n  web:\n    build: ../../..\n", &["apps/web/convox.yml:3:", "outside"]),
    ];
    for (what, text, said) in cases {
        world.repo.write("apps/web/convox.yml", text).commit(what);
        refuses(&world, 2, said);
    }
    world.repo.write("apps/web/convox.yml", manifest).write("apps/web/deploy/before_build", "").commit("whole again");

    // Several at once, each with its line.
    world.configure("timeout: 3\napps:\n  web: {useses: [x]}\n").repo.commit("two typos");
    refuses(&world, 2, &["apps.yaml:", "`timeout`", "`useses`", "`uses`", "2 problems"]);
    world.configure("").repo.commit("whole again");

    world.hook("web", "before_build", "true");
    world.repo.git(&["add", "-A"]);
    world.repo.git(&["update-index", "--chmod=-x", "apps/web/deploy/before_build.sh"]);
    world.repo.git(&["commit", "-q", "-m", "a hook that cannot run"]);
    world.repo.git(&["checkout", "-q", "-f", "HEAD~1"]);
    world.repo.git(&["checkout", "-q", "-f", "main"]);
    refuses(&world, 2, &["apps/web/deploy/before_build.sh", "not executable", "chmod +x"]);
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
fn without_an_engine_nothing_is_begun() {
    let world = Setup::new(&["web"]).start();
    let nowhere = format!("unix://{}", world.aside("no.sock").display());
    let run = world.run_as(&world.offbuild().env("DOCKER_HOST", nowhere), &["deploy"]).code(3).says("no.sock");
    assert!(run.events.is_empty());
    assert_eq!(world.sandbox.builds("staging", "web"), 0);
}

#[test]
fn without_the_registry_nothing_is_begun() {
    let world = Setup::new(&["web"]).start();
    let nowhere = format!("127.0.0.1:{}", crate::support::services::free_port());
    let run = world.run_as(&world.offbuild().env("REGISTRY_HOST", nowhere.clone()), &["deploy"]).code(3).says(&nowhere);
    assert!(run.events.is_empty());
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
fn a_rack_that_fails_once_is_asked_again() {
    let world = Setup::new(&["web"]).start();
    for path in ["/system", "/apps/web", "/apps/web/releases"] {
        world.sandbox.fault(&format!("staging:500-once:{path}"));
    }
    world.run(&["deploy"]).code(0).outcomes(&["web@staging deployed"]);
    assert_eq!((world.sandbox.builds("staging", "web"), world.sandbox.promotes("staging", "web")), (1, 1));
}
