//! What a failed run leaves on a rack, and how it is healed.

use crate::support::world::{Setup, World, wait_for};
use offbuild::event::{EventKind, Stage};
use offbuild::sandbox::Version;
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// What `convox env set` does: a new release with the whole environment and one variable more. Its build.
fn env_set(world: &World, rack: &str, variable: &str) -> String {
    let newest = json(&world.sandbox.call("GET", rack, "/apps/web/releases?limit=1", &[]))[0]["id"].as_str().unwrap().to_owned();
    let env = json(&world.sandbox.call("GET", rack, &format!("/apps/web/releases/{newest}"), &[]))["env"].as_str().unwrap().to_owned();
    let env = format!("{env}\n{variable}");
    json(&world.sandbox.call("POST", rack, "/apps/web/releases", &[("env", &env)]))["build"].as_str().unwrap().to_owned()
}

fn live_build(world: &World, rack: &str) -> String {
    let release = world.sandbox.live(rack, "web").release;
    json(&world.sandbox.call("GET", rack, &format!("/apps/web/releases/{release}"), &[]))["build"].as_str().unwrap().to_owned()
}

fn trap(world: &World) -> Value {
    json(&world.run(&["status", "--format", "json"]).code(0).done.stdout)["targets"][0]["trap"].clone()
}

/// A world whose last run left a release behind.
fn trapped(version: Version) -> (World, &'static str) {
    let (world, rack) = match version {
        Version::V2 => (Setup::new(&["web"]).start(), "staging"),
        Version::V3 => (
            Setup::new(&["web"]).rack("production", Version::V3, "").settings("apps: {web: {racks: [production]}}\n").start(),
            "production",
        ),
    };
    world.run(&["deploy"]).code(0);
    assert_eq!(trap(&world), Value::Null);
    world.page("web", "second").hook("web", "before_release", "exit 3").repo.commit("second");
    let heals = format!("offbuild heal web@{rack}");
    let run = world.run(&["deploy"]).code(1).outcomes(&[&format!("web@{rack} failed(hook)")]).says("is staged, not live").says(&heals);
    assert!(run.done.stderr.contains("so that no `env set` builds on what was left behind"), "{}", run.done.stderr);
    (world, rack)
}

#[test]
fn a_release_left_behind_is_shown_everywhere_and_healed() {
    for version in [Version::V2, Version::V3] {
        let (world, rack) = trapped(version);
        let (live, build) = (world.sandbox.live(rack, "web"), live_build(&world, rack));
        let left = trap(&world)["release"].as_str().unwrap().to_owned();
        let told = world.run(&["status"]).code(0).done.stdout;
        assert!(told.contains(&format!("{left} (commit ")) && told.contains(&format!("next: offbuild heal web@{rack}")), "{told}");
        let plan = world.run(&["plan"]).code(0).done.stdout;
        assert!(plan.contains(&left), "{plan}");
        let plan = json(&world.run(&["plan", "--format", "json"]).code(0).done.stdout);
        assert_eq!(plan["lanes"][0]["targets"][0]["trap"]["release"], left.as_str());

        let healed = world.run(&["heal"]).code(0).done.stdout;
        assert!(healed.contains(&format!("a copy of {}, is on top of {left}", live.release)), "{healed}");
        assert_eq!(trap(&world), Value::Null, "the copy is no trap itself");
        assert_eq!(world.sandbox.live(rack, "web"), live, "and not promoted");
        assert_eq!(env_set(&world, rack, "NEW=1"), build, "what is made next is made of what runs");
        assert!(world.run(&["heal"]).code(0).done.stdout.starts_with("nothing to heal"));
        // The same commit, mended elsewhere: it is nobody's rollback, so nothing holds it.
        world.hook("web", "before_release", "true").repo.commit("mended");
        world.run(&["deploy"]).code(0).outcomes(&[&format!("web@{rack} deployed")]);
    }
}

#[test]
fn without_healing_the_next_variable_brings_live_what_failed() {
    let (world, rack) = trapped(Version::V2);
    assert_ne!(env_set(&world, rack, "NEW=1"), live_build(&world, rack), "this is what healing is for");
}

#[test]
fn a_variable_that_healing_puts_aside_is_told_by_name_and_never_by_value() {
    for (args, version) in [(&["heal"][..], Version::V2), (&["deploy", "--heal"], Version::V3)] {
        let (world, rack) = trapped(version);
        env_set(&world, rack, "NEW_FLAG=the-new-value");
        let run = world.run(args);
        assert!(run.done.stderr.contains("`NEW_FLAG`") && run.done.stderr.contains("set anew what is wanted"), "{}", run.done.stderr);
        assert!(!run.done.stderr.contains("the-new-value") && !run.done.stdout.contains("the-new-value"), "{}", run.done.stderr);
    }
    // What a run leaves behind by itself differs in nothing that anybody set.
    let (world, _) = trapped(Version::V2);
    let run = world.run(&["heal"]).code(0);
    assert!(!run.done.stderr.contains("set anew"), "{}", run.done.stderr);
}

#[test]
fn a_variable_set_after_healing_does_not_look_like_a_rollback_by_hand() {
    for version in [Version::V2, Version::V3] {
        let (world, rack) = trapped(version);
        world.run(&["heal"]).code(0);
        env_set(&world, rack, "NEW=1");
        let newest = json(&world.sandbox.call("GET", rack, "/apps/web/releases?limit=1", &[]))[0]["id"].as_str().unwrap().to_owned();
        world.sandbox.begin_promote(rack, "web", &newest);
        wait_for(|| world.sandbox.live(rack, "web").release == newest && world.sandbox.live(rack, "web").status == "running");
        // The commit that failed, its hook mended from outside: no input differs from those of the release left behind.
        world.hook("web", "before_release", "exit 0").repo.commit("mended");
        world.run(&["deploy"]).code(0).outcomes(&[&format!("web@{rack} deployed")]);
    }
}

#[test]
fn a_run_heals_at_its_end_what_it_and_others_left() {
    let (world, rack) = trapped(Version::V2);
    let live = world.sandbox.live(rack, "web");
    let run = world.run(&["deploy", "--heal", "--format", "json"]).code(1).outcomes(&["web@staging failed(hook)"]);
    assert_eq!(run.begun(Stage::Heal), ["web@staging"]);
    let report = json(&run.done.stdout);
    let row = &report["targets"][0];
    assert_eq!((&row["trap"], row["live_release"].as_str()), (&Value::Null, Some(live.release.as_str())));
    assert!(row["healed_by"].is_string() && !report["next"].to_string().contains("heal"), "{report}");
    assert_eq!(trap(&world), Value::Null);
    // What an earlier run left, where nothing is to be deployed.
    let build = live_build(&world, rack);
    world.sandbox.stage_by_hand(rack, "web", &live.manifest, &live.commit, "somebody's");
    world.repo.git(&["revert", "--no-edit", "HEAD"]);
    let run =
        world.run(&["deploy"]).code(0).outcomes(&["web@staging up-to-date"]).says("is newer, not live").says("offbuild heal web@staging");
    assert!(run.begun(Stage::Heal).is_empty());
    let run = world.run(&["deploy", "--heal"]).code(0).outcomes(&["web@staging up-to-date"]).says("is on top");
    assert!(run.kinds().any(|kind| matches!(kind, EventKind::ReleaseCopied { group: None, .. })));
    assert_eq!((trap(&world), env_set(&world, rack, "NEW=1")), (Value::Null, build));
    world.run(&["deploy", "--heal"]).code(0).outcomes(&["web@staging up-to-date"]);
}

#[test]
fn healing_a_protected_rack_needs_a_yes() {
    let world = Setup::new(&["web"]).rack("production", Version::V2, "protected: true").start();
    world.run(&["deploy", "--yes"]).code(0);
    let live = world.sandbox.live("production", "web");
    world.sandbox.stage_by_hand("production", "web", &live.manifest, &live.commit, "somebody's");
    world.run(&["heal"]).code(4).says("production").says("--yes");
    world.run(&["deploy", "--heal"]).code(4).says("production");
    world.run(&["heal", "--yes", "web@production"]).code(0);
    assert!(world.run(&["heal"]).code(0).done.stdout.starts_with("nothing to heal"));
}

#[test]
fn healing_that_is_interrupted_gives_back_what_it_holds() {
    let (world, rack) = trapped(Version::V2);
    // Another runner's lease: it is waited for with this machine's own lock in hand.
    let now = time::OffsetDateTime::now_utc().format(&time::format_description::well_known::Rfc3339).unwrap();
    let lease = serde_json::json!({
        "holder": {"by": "bob@ci", "run": "20261122-213000-1f2e", "since": now, "pid": 1, "machine": "elsewhere"},
        "commit": "2".repeat(40), "beat": now, "ttl": 120, "token": "theirs",
    });
    world.sandbox.put_object(rack, "web", "offbuild/lease", &lease.to_string());
    let lock = world.repo.path(&format!(".offbuild/locks/{rack}.json"));
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let run = world.start(&["heal", "--lock-wait", "10m"]);
        wait_for(|| lock.exists());
        run.signal(signal);
        let _ = world.ended(run).code(code).says("interrupted before everything was healed").says("offbuild status");
        assert!(!lock.exists(), "{signal}");
    }
}
