//! `changed` and `plan`, and what hooks are told.

use crate::support::world::Setup;
use offbuild::sandbox::Version;
use serde_json::{Value, json};
use std::collections::BTreeMap;

#[test]
fn changed_answers_people_programs_and_ci_and_changes_nothing() {
    let world = Setup::new(&["api", "web"]).start();
    world.run(&["deploy"]).code(0);
    world.run(&["changed", "--exit-code"]).code(0);
    let base = world.repo.git(&["rev-parse", "HEAD"]);
    world.page("web", "second").repo.commit("second");
    let before = world.sandbox.requests().len();
    let text = world.run(&["changed"]).code(0).done.stdout;
    assert!(text.contains("apps/web/page") && text.contains(&base[..7]), "{text}");
    assert_eq!(world.run(&["changed", "--format", "names"]).code(0).done.stdout, "web\n");
    let matrix: Value = serde_json::from_str(&world.run(&["changed", "--format", "matrix"]).code(0).done.stdout).unwrap();
    assert_eq!(matrix, json!({"include": [{"app": "web", "rack": "staging", "target": "web@staging"}]}));
    let report: Value = serde_json::from_str(&world.run(&["changed", "--format", "json"]).code(0).done.stdout).unwrap();
    let changed: BTreeMap<&str, bool> = report["targets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|target| (target["target"].as_str().unwrap(), target["changed"].as_bool().unwrap()))
        .collect();
    assert_eq!(changed, BTreeMap::from([("api@staging", false), ("web@staging", true)]));
    world.run(&["changed", "--exit-code"]).code(1);
    // An error is neither "some" nor "none".
    world.run(&["changed", "--exit-code", "no-such-app"]).code(2);
    assert!(world.sandbox.requests().split_off(before).iter().all(|request| request.method == "GET"));
    // With a base no rack is asked.
    let before = world.sandbox.requests().len();
    assert_eq!(world.run(&["changed", "--base", &base, "--format", "names"]).code(0).done.stdout, "web\n");
    assert_eq!(world.sandbox.requests().len(), before);
}

#[test]
fn uncommitted_files_count_as_changed() {
    let world = Setup::new(&["api", "web"]).start();
    world.run(&["deploy"]).code(0);
    world.repo.write("apps/api/new-file", "untracked\n");
    let run = world.run(&["changed"]).code(0);
    assert!(run.done.stdout.contains("apps/api/new-file") && run.done.stdout.contains("dirty"), "{}", run.done.stdout);
    assert_eq!(world.run(&["changed", "--format", "names"]).code(0).done.stdout, "api\n");
}

#[test]
fn a_plan_says_what_will_be_done_and_does_nothing() {
    let world = Setup::new(&["api", "web"]).rack("production", Version::V3, "after: [staging]").start();
    world.run(&["deploy", "--rack", "staging"]).code(0);
    world.page("web", "second").repo.commit("second");
    let (requests, tags) = (world.sandbox.requests().len(), world.tags("web"));
    let text = world.run(&["plan"]).code(0).done.stdout;
    let head = world.repo.git(&["rev-parse", "HEAD"]);
    for part in ["rack staging", "rack production (after staging)", &format!("web/web build {}/web:web.{head}", world.host())] {
        assert!(text.contains(part), "`{part}` is missing:\n{text}");
    }
    assert_eq!(world.run(&["deploy", "--dry-run"]).code(0).done.stdout, text);
    let plan: Value = serde_json::from_str(&world.run(&["plan", "--format", "json"]).code(0).done.stdout).unwrap();
    assert!(plan.is_object());
    assert!(world.sandbox.requests().split_off(requests).iter().all(|request| request.method == "GET"));
    assert_eq!(world.tags("web"), tags);
}

#[test]
fn the_report_for_programs_says_the_same_as_the_table() {
    let world = Setup::new(&["web"]).start();
    let run = world.run(&["deploy", "--format", "json"]).code(0).outcomes(&["web@staging deployed"]);
    let report: Value = serde_json::from_str(&run.done.stdout).unwrap();
    assert_eq!((&report["exit_code"], &report["targets"][0]["outcome"]), (&json!(0), &json!("deployed")));
    assert_eq!(report["targets"][0]["release"], json!(world.sandbox.live("staging", "web").release));
    assert_eq!(report["counts"]["images_built"], json!(1));
}

/// The variables a hook dumped, without those it inherited.
fn dumped(path: &std::path::Path, inherited: &[&str]) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(path).unwrap();
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    // The shell's own.
    let own = |name: &str| matches!(name, "PWD" | "OLDPWD" | "SHLVL" | "_");
    pairs.filter(|(name, _)| !own(name) && !inherited.contains(name)).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[test]
fn hooks_are_told_exactly_what_is_documented() {
    let world = Setup::new(&["web"]).start();
    let hooks = ["before_build", "after_build", "before_release", "after_release"];
    for hook in hooks {
        // Said aloud too: what a hook prints of the rack's password is masked.
        world.hook("web", hook, &format!("env >{}\nenv", world.aside(hook).display()));
    }
    world.hook("web", "on_failure", "true").repo.commit("hooks");
    let variables = world.sandbox.environment();
    let mut inherited = vec!["PATH", "HOME", "DOCKER_CONFIG", "DOCKER_HOST", "NO_COLOR", "REGISTRY_HOST", "GIT_CONFIG_GLOBAL"];
    inherited.extend(variables.keys().map(String::as_str));
    let run = world.run(&["deploy"]).code(0).outcomes(&["web@staging deployed"]);
    // The lines were shown, and the value was not.
    let run = run.says("CONVOX_PASSWORD=***");
    let head = world.repo.git(&["rev-parse", "HEAD"]);
    let image = format!("{}/web:web.{head}", world.host());
    let live = world.sandbox.live("staging", "web");
    let rack_host = variables["STAGING_HOST"].trim_start_matches("http://").to_owned();
    let known = run.kinds().find_map(|kind| match kind {
        offbuild::event::EventKind::ImagePlanned { fingerprint, .. } => Some(fingerprint.to_string()),
        _ => None,
    });
    let run_id = run.kinds().find_map(|kind| match kind {
        offbuild::event::EventKind::RunStarted { run, .. } => Some(run.to_string()),
        _ => None,
    });
    for hook in hooks {
        let mut expected = BTreeMap::from([
            ("APP_ENV", "staging".to_owned()),
            ("APP_NAME", "web".to_owned()),
            ("DOCKER_TAG", image.clone()),
            ("DOCKER_TAG_WEB", image.clone()),
            ("GIT_BRANCH", "main".to_owned()),
            ("GIT_DESCRIPTION", world.repo.git(&["describe", "--always", "--tags"])),
            ("GIT_HASH", head.clone()),
            ("OFFBUILD_APP", "web".to_owned()),
            ("OFFBUILD_FINGERPRINT", known.clone().unwrap()),
            ("OFFBUILD_HOOK", hook.to_owned()),
            ("OFFBUILD_RACKS", "staging".to_owned()),
            ("OFFBUILD_REVISION", head.clone()),
            ("OFFBUILD_RUN", run_id.clone().unwrap()),
            ("RACK_NAME", "staging".to_owned()),
        ]);
        if hook.ends_with("release") {
            expected.insert("CONVOX_HOST", rack_host.clone());
            expected.insert("CONVOX_PASSWORD", variables["STAGING_PASSWORD"].clone());
            expected.insert("OFFBUILD_RACK", "staging".to_owned());
            expected.insert("RELEASE_ID", live.release.clone());
        }
        let expected = expected.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<BTreeMap<_, _>>();
        assert_eq!(dumped(&world.aside(hook), &inherited), expected, "{hook}");
    }
}
