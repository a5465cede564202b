//! Apps that go back together.

use crate::support::front::{Behind, Fault, Front, Head, Rule};
use crate::support::services::Running;
use crate::support::world::{Run, Setup, World, wait_for};
use offbuild::event::{EventKind, Stage};
use offbuild::sandbox::Version;
use serde_json::Value;
use std::process::Stdio;
use std::time::Duration;

const GROUP: &str = "apps:\n  api: {after: [worker]}\n  web: {after: [api]}\ngroups: {checkout: [worker, web]}\n";

/// Three apps on a rack of this version that were deployed once, in the order worker, api, web; worker and web are a group.
fn world(version: Version) -> (World, &'static str) {
    let apps = ["api", "web", "worker"];
    let (world, rack) = match version {
        Version::V2 => (Setup::new(&apps).settings(GROUP).start(), "staging"),
        Version::V3 => {
            let settings = GROUP.replace("{after", "{racks: [production], after");
            let settings = settings.replace("apps:\n", "apps:\n  worker: {racks: [production]}\n");
            (Setup::new(&apps).rack("production", Version::V3, "").settings(&settings).start(), "production")
        }
    };
    world.run(&["deploy"]).code(0);
    for app in apps {
        world.page(app, "second");
    }
    world.repo.commit("second");
    (world, rack)
}

/// Build and environment of what is live.
fn content(world: &World, rack: &str, app: &str) -> (String, String) {
    let release = world.sandbox.live(rack, app).release;
    let release: Value = serde_json::from_str(&world.sandbox.call("GET", rack, &format!("/apps/{app}/releases/{release}"), &[])).unwrap();
    (release["build"].as_str().unwrap().to_owned(), release["env"].as_str().unwrap().to_owned())
}

fn went_back(run: &Run) -> Vec<String> {
    run.kinds()
        .filter_map(|kind| match kind {
            EventKind::ReleaseCopied { target, group: Some(_), .. } => Some(target.to_string()),
            _ => None,
        })
        .collect()
}

#[test]
fn a_group_gets_back_exactly_what_it_had_and_the_next_deploy_tries_again() {
    for version in [Version::V2, Version::V3] {
        let (world, rack) = world(version);
        let before = ["worker", "web"].map(|app| content(&world, rack, app));
        let plan = world.run(&["plan"]).code(0).done.stdout;
        assert!(plan.contains("goes back with web (group `checkout`)"), "{plan}");
        world.sandbox.fault(&format!("{rack}:web:app-crashes"));
        let run = world.run(&["deploy"]).code(1).says("went back with its group `checkout` since `web@").outcomes(&[
            &format!("api@{rack} deployed"),
            &format!("web@{rack} rolled-back"),
            &format!("worker@{rack} rolled-back"),
        ]);
        // The rack took web back itself.
        assert_eq!(went_back(&run), [format!("worker@{rack}")]);
        assert_eq!(["worker", "web"].map(|app| content(&world, rack, app)), before);
        // What failed is left behind; what went back is topped by its own copy.
        let status: Value = serde_json::from_str(&world.run(&["status", "--format", "json"]).code(0).done.stdout).unwrap();
        let traps: Vec<bool> = status["targets"].as_array().unwrap().iter().map(|target| !target["trap"].is_null()).collect();
        assert_eq!(traps, [false, true, false], "{status}");
        world.sandbox.heal();
        let run = world.run(&["deploy"]).code(0);
        run.outcomes(&[&format!("api@{rack} up-to-date"), &format!("web@{rack} deployed"), &format!("worker@{rack} deployed")]);
    }
}

#[test]
fn a_hook_that_fails_after_the_release_takes_its_own_release_back_too() {
    let (world, rack) = world(Version::V2);
    let before = ["worker", "web"].map(|app| content(&world, rack, app));
    world.hook("web", "after_release", "exit 1").repo.commit("hook");
    let run = world.run(&["deploy", "--format", "json"]).code(1).outcomes(&[
        "api@staging deployed",
        "web@staging failed(hook)",
        "worker@staging rolled-back",
    ]);
    assert_eq!(went_back(&run), ["web@staging", "worker@staging"]);
    assert_eq!(["worker", "web"].map(|app| content(&world, rack, app)), before);
    let report: Value = serde_json::from_str(&run.done.stdout).unwrap();
    let rows: Vec<(&str, Option<&str>, &str)> = report["targets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["app"].as_str().unwrap(), row["group"].as_str(), row["live"].as_str().unwrap()))
        .collect();
    assert_eq!(rows, [("worker", Some("checkout"), "as-before"), ("api", None, "this-commit"), ("web", None, "as-before")]);
    assert_eq!(report["failures"].as_array().unwrap().len(), 1, "the group's is no failure of its own: {report}");
}

#[test]
fn members_that_were_not_begun_are_blocked() {
    let settings = "apps:\n  web: {after: [api]}\ngroups: {checkout: [api, web]}\n";
    let world = Setup::new(&["api", "web"]).settings(settings).start();
    world.run(&["deploy"]).code(0);
    world.page("api", "second").page("web", "second").repo.commit("second");
    world.sandbox.fault("staging:api:promote-rolls-back");
    let run = world.run(&["deploy", "--on-failure", "continue"]).code(1).says("its group `checkout` went back");
    run.outcomes(&["api@staging rolled-back", "web@staging blocked(group checkout)"]);
    assert_eq!(world.sandbox.builds("staging", "web"), 1);
}

#[test]
fn a_signal_in_the_middle_does_not_leave_half_a_group_and_a_kill_can_be_gone_on_from() {
    let world = Setup::new(&["api", "web"])
        .settings("apps:\n  web: {after: [api]}\ngroups: {checkout: [api, web]}\n")
        .promote(Duration::from_millis(700))
        .start();
    world.run(&["deploy"]).code(0);
    let before = ["api", "web"].map(|app| content(&world, "staging", app));
    world.page("api", "second").page("web", "second").repo.commit("second");
    let going_back = |kind: &EventKind| matches!(kind, EventKind::ReleaseCopied { .. });
    for signal in ["INT", "KILL"] {
        world.sandbox.fault("staging:web:promote-rolls-back");
        let mut run = world.start(&["deploy"]);
        world.until(&mut run, going_back);
        run.signal(signal);
        let run = world.ended(run);
        world.sandbox.heal();
        if signal == "INT" {
            run.code(130).outcomes(&["api@staging rolled-back", "web@staging rolled-back"]);
            assert_eq!(["api", "web"].map(|app| content(&world, "staging", app)), before);
        }
    }
    wait_for(|| ["api", "web"].iter().all(|app| world.sandbox.live("staging", app).status == "running"));
    // Whatever the kill left, going on brings both to this commit.
    world.run(&["deploy", "--resume"]).code(0);
    let head = world.repo.git(&["rev-parse", "HEAD"]);
    for app in ["api", "web"] {
        assert_eq!(world.sandbox.live("staging", app).commit, head, "{app}");
    }
    world.run(&["deploy"]).code(0).outcomes(&["api@staging up-to-date", "web@staging up-to-date"]);
}

#[test]
fn what_an_earlier_run_promoted_goes_back_when_the_run_that_goes_on_fails() {
    let world = Setup::new(&["api", "web"]).settings("apps:\n  web: {after: [api]}\ngroups: {checkout: [api, web]}\n").start();
    world.run(&["deploy"]).code(0);
    let before = ["api", "web"].map(|app| content(&world, "staging", app));
    let wait = world.aside("wait");
    let script = format!("while [ -e {} ]; do sleep 0.05; done", wait.display());
    std::fs::write(&wait, "").unwrap();
    world.page("api", "second").page("web", "second").hook("web", "before_release", &script).repo.commit("second");
    let mut run = world.start(&["deploy"]);
    world.until(&mut run, |kind| matches!(kind, EventKind::StepStarted { step, .. } if step.stage == Stage::BeforeRelease));
    run.signal("KILL");
    world.ended(run);
    std::fs::remove_file(&wait).unwrap();
    assert_ne!(content(&world, "staging", "api"), before[0]);
    world.sandbox.fault("staging:web:promote-rolls-back");
    world.run(&["deploy", "--resume", "--rerun-hooks"]).code(1).outcomes(&["api@staging rolled-back", "web@staging rolled-back"]);
    assert_eq!(["api", "web"].map(|app| content(&world, "staging", app)), before);
}

#[test]
fn a_group_is_checked_with_the_rest_of_the_configuration() {
    let world = Setup::new(&["api", "web"]).start();
    world.configure("groups:\n  one: [api, wbe]\n  two: [api]\n  t/o: [api, web]\n");
    let run = world.run(&["validate"]).code(2);
    for text in [
        "group `one` names the unknown app `wbe`",
        "did you mean `web`",
        "group `two` has fewer than two apps",
        "app `api` is in the groups `one` and `two`",
        "`t/o` is no name for a group",
    ] {
        assert!(run.done.stderr.contains(text), "{text}\n{}", run.done.stderr);
    }
    world.configure("groups:\n  one: [api, web]\n");
    assert!(world.run(&["config", "api@staging"]).code(0).done.stdout.lines().any(|line| line.contains("group") && line.contains("one")));
}

#[test]
fn a_group_whose_run_is_killed_as_it_goes_back_goes_back_with_the_next_one() {
    for how in [&["deploy", "--resume"][..], &["deploy"]] {
        let (world, rack) = world(Version::V2);
        let before = ["worker", "web"].map(|app| content(&world, rack, app));
        world.hook("web", "after_release", "exit 3").repo.commit("third");
        let front = Front::before(Behind::Tcp(world.sandbox.environment()["STAGING_HOST"].trim_start_matches("http://").to_owned()));
        // The promotes of the three, the one that takes web back, and no other.
        let to = |head: &Head, seen: &[Head]| {
            let promotes = |head: &Head| head.method == "POST" && head.path.ends_with("/promote");
            promotes(head) && seen.iter().filter(|head| promotes(head)).count() >= 4
        };
        let body = |status| (status, String::new(), "text/plain");
        front.rule(Rule { to: Box::new(to), fault: Fault::Endless, times: usize::MAX, body, retry_after: None });
        let offbuild = world.offbuild().env("STAGING_HOST", format!("http://{}", front.host));
        let mut run = Running(offbuild.command(&["deploy"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        wait_for(|| front.faulted() > 0);
        run.0.kill().unwrap();
        run.0.wait().unwrap();
        front.reset();
        let half = ["worker", "web"].map(|app| content(&world, rack, app) == before[usize::from(app == "web")]);
        assert_eq!(half, [false, true], "web is back, worker is not");

        let ends = ["api@staging up-to-date", "web@staging failed(hook)", "worker@staging rolled-back"];
        world.run(how).code(1).outcomes(&ends);
        assert_eq!(["worker", "web"].map(|app| content(&world, rack, app)), before, "{how:?}");
    }
}
