//! Rollouts that go well.

use crate::support::services::{Running, lines_until};
use crate::support::sh;
use crate::support::world::{Setup, World};
use offbuild::event::{EventKind, Stage};
use offbuild::sandbox::Version;
use std::collections::BTreeMap;

fn head(world: &World) -> String {
    world.repo.git(&["rev-parse", "HEAD"])
}

/// The environment of an app's active release on a rack.
fn release_env(world: &World, rack: &str, app: &str) -> String {
    let live = world.sandbox.live(rack, app);
    let release = world.sandbox.call("GET", rack, &format!("/apps/{app}/releases/{}", live.release), &[]);
    let release: serde_json::Value = serde_json::from_str(&release).unwrap();
    release["env"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn the_first_rollout_brings_everything_to_the_rack_once() {
    let world = Setup::new(&["api", "web"]).start();
    let run = world.run(&["deploy"]).code(0).outcomes(&["api@staging deployed", "web@staging deployed"]);
    assert_eq!(run.finished(Stage::Build), ["api/web", "web/web"]);
    assert_eq!(run.finished(Stage::Push), ["api/web", "web/web"]);
    assert_eq!(run.finished(Stage::Promote), ["api@staging", "web@staging"]);
    for app in ["api", "web"] {
        assert_eq!((world.sandbox.builds("staging", app), world.sandbox.promotes("staging", app)), (1, 1));
        let live = world.sandbox.live("staging", app);
        assert_eq!((live.status.as_str(), live.commit), ("running", head(&world)));
        let digest = world.digest(app, &format!("web.{}", head(&world)));
        // By digest, and to be pulled only.
        assert!(live.manifest.contains(&format!("image: {}/{app}@{digest}", world.host())), "{}", live.manifest);
        assert!(!live.manifest.contains("build:"), "{}", live.manifest);
        assert_eq!(world.digest(app, "web.latest"), digest);
        assert!(release_env(&world, "staging", app).contains(&format!("REVISION={}", head(&world))));
    }
    assert!(matches!(run.kinds().last(), Some(EventKind::RunFinished { code: 0, .. })));
    // Nothing of the user's was touched.
    assert_eq!(world.repo.git(&["status", "--porcelain"]), "");
}

#[test]
fn when_one_app_changes_only_it_is_built_pushed_and_released() {
    let world = Setup::new(&["api", "web"]).start();
    world.run(&["deploy"]).code(0);
    let before = world.sandbox.live("staging", "api");
    let tags = world.tags("api");
    world.page("web", "second").repo.commit("web");
    let run = world.run(&["deploy"]).code(0).outcomes(&["api@staging up-to-date", "web@staging deployed"]);
    assert_eq!(run.begun(Stage::Build), ["web/web"]);
    assert_eq!(run.begun(Stage::Push), ["web/web"]);
    assert!(run.reasons("web@staging").iter().any(|reason| reason.contains("apps/web/page")), "{:?}", run.reasons("web@staging"));
    assert_eq!((world.sandbox.live("staging", "api"), world.tags("api")), (before, tags));
    assert_eq!((world.sandbox.builds("staging", "api"), world.sandbox.promotes("staging", "api")), (1, 1));
    assert_eq!((world.sandbox.builds("staging", "web"), world.sandbox.promotes("staging", "web")), (2, 2));
    assert_eq!(world.sandbox.live("staging", "web").commit, head(&world));
}

#[test]
fn ecr_repositories_are_created_when_missing_and_not_even_asked_when_nothing_changed() {
    let world = Setup::new(&["api", "web"]).ecr().start();
    world.run(&["deploy"]).code(0).outcomes(&["api@staging deployed", "web@staging deployed"]);
    let operations = || -> Vec<String> { world.sandbox.requests().into_iter().filter_map(|request| request.operation).collect() };
    let count = |name: &str| operations().iter().filter(|operation| operation.as_str() == name).count();
    assert_eq!(count("CreateRepository"), 2, "{:?}", operations());
    assert!(count("BatchGetImage") >= 2, "{:?}", operations());

    let before = world.sandbox.requests().len();
    let run = world.run(&["deploy"]).code(0).outcomes(&["api@staging up-to-date", "web@staging up-to-date"]);
    assert_eq!(run.begun(Stage::Build), Vec::<String>::new());
    assert_eq!(run.begun(Stage::Push), Vec::<String>::new());
    let asked = world.sandbox.requests().split_off(before);
    assert!(!asked.is_empty());
    // The rack is read, and that is all.
    let strangers: Vec<_> = asked.iter().filter(|request| request.place != "staging" || request.method != "GET").collect();
    assert!(strangers.is_empty(), "{strangers:?}");
}

#[test]
fn on_ecr_an_app_that_went_back_gets_its_old_image_without_a_build() {
    let world = Setup::new(&["web"]).ecr().start();
    world.run(&["deploy"]).code(0);
    let first = world.sandbox.live("staging", "web");
    world.page("web", "second").repo.commit("second");
    world.run(&["deploy"]).code(0);
    world.page("web", "first").repo.commit("back");
    let run = world.run(&["deploy"]).code(0).outcomes(&["web@staging deployed"]);
    assert_eq!(run.images(), ["web/web reuse"]);
    assert_eq!(run.begun(Stage::Build), Vec::<String>::new());
    let live = world.sandbox.live("staging", "web");
    assert_eq!((live.commit, live.manifest), (head(&world), first.manifest));
    let created = world.sandbox.requests().into_iter().filter(|request| request.operation.as_deref() == Some("CreateRepository")).count();
    assert_eq!(created, 1);
}

#[test]
fn racks_with_different_live_commits_are_each_compared_with_their_own() {
    let world = Setup::new(&["api", "web"]).rack("production", Version::V3, "").start();
    world.run(&["deploy"]).code(0);
    world.page("web", "second").repo.commit("web");
    world.run(&["deploy", "--rack", "staging"]).code(0).outcomes(&["api@staging up-to-date", "web@staging deployed"]);
    world.page("api", "second").repo.commit("api");
    let run = world.run(&["deploy"]).code(0).outcomes(&[
        "api@production deployed",
        "api@staging deployed",
        "web@production deployed",
        "web@staging up-to-date",
    ]);
    // The image staging runs serves production too.
    assert_eq!(run.images(), ["api/web build", "web/web reuse"]);
    assert_eq!(run.begun(Stage::Build), ["api/web"]);
    for (rack, app) in [("staging", "api"), ("production", "api"), ("production", "web")] {
        assert_eq!(world.sandbox.live(rack, app).commit, head(&world), "{app}@{rack}");
    }
}

#[test]
fn what_was_staged_with_no_promote_goes_live_with_the_next_deploy() {
    let world = Setup::new(&["web"]).start();
    world.run(&["deploy", "--no-promote"]).code(0).outcomes(&["web@staging staged"]);
    assert_eq!((world.sandbox.live("staging", "web").release, world.sandbox.promotes("staging", "web")), (String::new(), 0));
    let run = world.run(&["deploy"]).code(0).outcomes(&["web@staging deployed"]);
    assert_eq!(run.images(), ["web/web present"]);
    assert_eq!(run.begun(Stage::Build), Vec::<String>::new());
    assert_eq!((world.sandbox.live("staging", "web").commit, world.sandbox.promotes("staging", "web")), (head(&world), 1));
}

#[test]
fn a_version_3_rack_copies_the_image_with_the_login_it_is_handed_or_gets_it_pushed() {
    let world =
        Setup::new(&["web"]).rack("production", Version::V3, "deliver: import").rack("edge", Version::V3, "deliver: external").start();
    world.run(&["deploy"]).code(0).outcomes(&["web@edge deployed", "web@production deployed", "web@staging deployed"]);
    for rack in ["staging", "production", "edge"] {
        let live = world.sandbox.live(rack, "web");
        assert_eq!((live.status.as_str(), live.commit), ("running", head(&world)), "{rack}");
    }
    let requests = world.sandbox.requests();
    let imports = |rack: &str| requests.iter().filter(|request| request.place == rack && request.path.ends_with("/image")).count();
    let pushes = |rack: &str| requests.iter().filter(|request| request.place == rack && request.path.contains("/manifests/")).count();
    assert_eq!((imports("production"), imports("edge"), imports("staging")), (1, 0, 0));
    assert!(pushes("edge") > 0, "{requests:?}");
    assert_eq!(pushes("production"), 0);
}

#[test]
fn a_generation_1_app_is_released_from_its_compose_file() {
    let world = Setup::new(&["old"]).generation("old", 1).start();
    std::fs::remove_file(world.repo.path("apps/old/convox.yml")).unwrap();
    let compose =
        "version: \"2\"\nservices:\n  web:\n    build: .\n    image: ${REGISTRY_HOST}/legacy:front\n    ports:\n      - 80:3000\n";
    world.repo.write("apps/old/docker-compose.yml", compose).commit("compose");
    world.run(&["deploy"]).code(0).outcomes(&["old@staging deployed"]);
    // The tag is the one the seed script gave it.
    let digest = world.digest("legacy", &format!("front.{}", head(&world)));
    let live = world.sandbox.live("staging", "old");
    assert!(live.manifest.contains(&format!("{}/legacy@{digest}", world.host())), "{}", live.manifest);
    assert!(live.manifest.contains("- 80:3000") && !live.manifest.contains("build:"), "{}", live.manifest);
}

#[test]
fn one_app_without_a_configuration_file_is_told_everything_by_the_seeds_variables() {
    let world = Setup::new(&["web"]).start();
    let manifest = format!("services:\n  web:\n    build: .\n    image: {}/single:web\n", world.host());
    world.repo.git(&["rm", "-q", "apps.yaml"]);
    world.repo.write("apps/web/convox.yml", manifest).commit("alone");
    let variables = world.sandbox.environment();
    let offbuild = world
        .offbuild()
        .directory(&world.repo.path("apps/web"))
        .env("APP_NAME", "web")
        .env("RACK_NAME", "staging")
        .env("CONVOX_HOST", variables["STAGING_HOST"].clone())
        .env("CONVOX_PASSWORD", variables["STAGING_PASSWORD"].clone());
    world.run_as(&offbuild, &["deploy"]).code(0).says("deployed");
    let live = world.sandbox.live("staging", "web");
    let digest = world.digest("single", &format!("web.{}", head(&world)));
    assert!(live.manifest.contains(&format!("{}/single@{digest}", world.host())), "{}", live.manifest);
    assert_eq!(live.commit, head(&world));
}

#[test]
fn only_the_selected_apps_are_deployed() {
    let world = Setup::new(&["api", "jobs", "web"]).settings("apps:\n  jobs: {tags: [slow]}\n").start();
    world.run(&["deploy", "web"]).code(0).outcomes(&["web@staging deployed"]);
    world.run(&["deploy", "tag:slow"]).code(0).outcomes(&["jobs@staging deployed"]);
    world.run(&["deploy", "*", "!api"]).code(0).outcomes(&["jobs@staging up-to-date", "web@staging up-to-date"]);
    assert_eq!(world.sandbox.live("staging", "api").release, "");
}

#[test]
fn a_sandbox_of_its_own_is_reached_by_what_it_prints() {
    let world = Setup::new(&["web"]).start();
    let state = world.aside("state");
    let args = ["sandbox", "--rack", "staging=3", "--app", "staging/web", "--plain-registry", "--promote", "50ms", "--state"];
    let mut command = world.offbuild().command(&[&args[..], &[state.to_str().unwrap()]].concat());
    let mut sandbox = Running(command.stdout(std::process::Stdio::piped()).spawn().unwrap());
    let lines = lines_until(&mut sandbox.0, "# ready");
    let exported = lines.iter().filter_map(|line| line.strip_prefix("export ")?.split_once('='));
    let exported: BTreeMap<String, String> = exported.map(|(name, value)| (name.to_owned(), value.trim_matches('\'').to_owned())).collect();
    let control = lines.iter().find_map(|line| line.strip_prefix("# control: ")).unwrap();
    // The registry stays the one with the login: a rack of version 3 is handed it.
    let offbuild = world.offbuild().envs(exported.clone()).env("REGISTRY_HOST", world.host());
    let run = world.run_as(&offbuild, &["deploy"]).code(0).outcomes(&["web@staging deployed"]);
    assert!(!run.done.stderr.contains(&exported["STAGING_PASSWORD"]));
    sh(std::process::Command::new("curl").args(["-sSf", "--noproxy", "*", "-d", "staging:web:promote-rolls-back", control]));
    world.page("web", "second").repo.commit("second");
    world.run_as(&offbuild, &["deploy"]).code(1).outcomes(&["web@staging rolled-back"]);
    // The world's own rack has seen nothing of it.
    assert_eq!(world.sandbox.builds("staging", "web"), 0);
    sh(std::process::Command::new("kill").args(["-TERM", &sandbox.0.id().to_string()]));
    assert!(sandbox.0.wait().unwrap().success());
}

#[test]
fn where_the_system_trusts_no_certificate_loopback_and_plain_http_work() {
    let world = Setup::new(&["web"]).rack("production", Version::V3, "").ecr().start();
    let nobody = world.aside("nobody");
    std::fs::create_dir(&nobody).unwrap();
    let bare = || ["FILE", "DIR"].map(|what| (format!("SSL_CERT_{what}"), nobody.display().to_string()));
    world.run_as(&world.offbuild().envs(bare()), &["deploy"]).code(0).outcomes(&["web@production deployed", "web@staging deployed"]);
    let world = Setup::new(&["web"]).start();
    world.run_as(&world.offbuild().envs(bare()), &["deploy"]).code(0).outcomes(&["web@staging deployed"]);
}
