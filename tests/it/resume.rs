//! Runs that are killed, and what goes on with them: `deploy --resume`, a plain `deploy`, `promote`; and the way back,
//! `rollback`. Racks of both versions, the real engine.

mod journals;
mod kills;
mod setup;

use crate::support::world::wait_for;
use setup::Setup;

/// Both hooks on both racks, once each, begun and ended.
const ALL: [&str; 8] = [
    "after_release web@three begin",
    "after_release web@three end",
    "after_release web@two begin",
    "after_release web@two end",
    "before_release web@three begin",
    "before_release web@three end",
    "before_release web@two begin",
    "before_release web@two end",
];

#[test]
fn a_run_killed_in_its_promotes_is_resumed_without_a_second_one() {
    let setup = Setup::new();
    setup.hold_promotes(true);
    setup.killed(&["deploy"], |setup| setup.promotes() == [1, 1]);
    setup.hold_promotes(false);
    let commit = setup.repo.git(&["rev-parse", "HEAD"]);
    setup.run(&["deploy", "--resume", "--summary", "summary.md"]).code(0).says("is taken over");
    assert!(std::fs::read_to_string(setup.repo.path("summary.md")).unwrap().starts_with("### `offbuild deploy` of `"));
    std::fs::remove_file(setup.repo.path("summary.md")).unwrap();
    setup.runs(&commit);
    assert_eq!(setup.promotes(), [1, 1]);
    assert_eq!(setup.marks(), ALL);
    // There is nothing left, neither for another resume nor for a deploy.
    setup.run(&["deploy", "--resume"]).code(0);
    setup.run(&["deploy"]).code(0);
    assert_eq!(setup.promotes(), [1, 1]);
    assert_eq!(setup.marks(), ALL);
}

#[test]
fn a_plain_deploy_after_a_kill_in_the_promotes_waits_for_them() {
    let setup = Setup::new();
    setup.run(&["deploy"]).code(0);
    let commit = setup.change("2");
    setup.hold_promotes(true);
    setup.killed(&["deploy"], |setup| setup.promotes() == [2, 2]);
    setup.hold_promotes(false);
    setup.run(&["deploy"]).code(0);
    setup.runs(&commit);
    assert_eq!(setup.promotes(), [2, 2]);
}

#[test]
fn what_was_staged_is_promoted_and_a_hook_that_was_cut_short_runs_again() {
    let setup = Setup::new();
    setup.hold("before_release", true);
    setup.killed(&["deploy"], |setup| setup.marks().len() == 2);
    let builds = ["two", "three"].map(|rack| setup.requests(rack, "POST", "/builds"));
    setup.hold("before_release", false);
    while setup.marks().len() < 4 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    setup.take_marks();
    // How far they got nobody knows, so somebody has to look first.
    let stuck = setup.run(&["deploy", "--resume"]).code(1);
    stuck.says("hook `before_release` of `web@two` was cut short in run ").says("offbuild deploy --resume --rerun-hooks web@three");
    assert_eq!((setup.promotes(), setup.marks().len()), ([0, 0], 0));
    let again = ["deploy", "--resume", "--rerun-hooks"];
    let plan = setup.run(&[again.as_slice(), &["--dry-run"]].concat()).code(0).stdout;
    assert!(
        plan.contains("is taken over, not staged again") && plan.contains("its hook `before_release` was cut short, and runs"),
        "{plan}"
    );
    setup.run(&again).code(0);
    setup.runs(&setup.repo.git(&["rev-parse", "HEAD"]));
    assert_eq!(["two", "three"].map(|rack| setup.requests(rack, "POST", "/builds")), builds, "staged again");
    assert_eq!(setup.promotes(), [1, 1]);
    assert_eq!(setup.marks(), ALL);
}

#[test]
fn a_plain_deploy_after_a_kill_before_the_promotes_ends_the_same() {
    let setup = Setup::new();
    setup.hold("before_release", true);
    setup.killed(&["deploy"], |setup| setup.marks().len() == 2);
    setup.hold("before_release", false);
    // What was staged is not staged again, and nobody is asked about the hooks: it is a deploy like any other.
    setup.run(&["deploy"]).code(0).says("its hook `before_release` was cut short, and runs again");
    setup.runs(&setup.repo.git(&["rev-parse", "HEAD"]));
    assert_eq!(setup.promotes(), [1, 1]);
    assert_eq!(["two", "three"].map(|rack| setup.requests(rack, "POST", "/builds")), [1, 1]);
}

#[test]
fn a_release_that_no_journal_tells_of_is_taken_over_from_the_racks_word() {
    for how in [["deploy", "web@two"].as_slice(), &["deploy", "--resume"]] {
        let setup = Setup::new();
        let builds = || setup.requests("two", "POST", "/builds");
        setup.hold_builds(true);
        setup.killed(&["deploy", "web@two"], |_| builds() == 1);
        setup.hold_builds(false);
        // The rack goes on without the run, which never heard of this release.
        wait_for(|| setup.run(&["plan", "web@two"]).code(0).stdout.contains("is taken over"));
        setup.run(how).code(0).says("is taken over");
        assert!(setup.status().contains(&setup.repo.git(&["rev-parse", "HEAD"])[..12]));
        assert_eq!((builds(), setup.promotes()), (1, [1, 0]), "{how:?}");
        assert_eq!(setup.marks(), ALL.into_iter().filter(|mark| mark.contains("@two")).collect::<Vec<_>>(), "{how:?}");
    }
}

#[test]
fn a_hook_that_is_repeatable_runs_again_and_one_that_ended_does_not_also_in_a_plain_deploy() {
    for how in [["deploy"].as_slice(), &["deploy", "--resume"]] {
        let setup = Setup::new();
        setup.configure("defaults: {hooks: {repeatable: [after_release]}, racks: [two, three]}\n");
        setup.hold("after_release", true);
        setup.killed(&["deploy"], |setup| setup.marks().iter().filter(|mark| mark.starts_with("after_release")).count() == 2);
        setup.hold("after_release", false);
        while setup.marks().len() < 8 {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        setup.take_marks();
        setup.run(how).code(0);
        assert_eq!(setup.promotes(), [1, 1]);
        assert_eq!(setup.marks(), &ALL[..4], "{how:?}: the hook after the release, and no other");
        setup.take_marks();
        setup.run(&["deploy"]).code(0);
        assert!(setup.marks().is_empty(), "{how:?}: nothing is left");
    }
}

#[test]
fn only_the_hook_after_the_release_is_left() {
    let setup = Setup::new();
    setup.hold("after_release", true);
    setup.killed(&["deploy"], |setup| setup.marks().iter().filter(|mark| mark.starts_with("after_release")).count() == 2);
    setup.hold("after_release", false);
    while setup.marks().len() < 8 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    setup.take_marks();
    setup.run(&["deploy", "--resume"]).code(1).says("hook `after_release` of `web@two` was cut short");
    setup.run(&["deploy", "--resume", "--rerun-hooks"]).code(0);
    assert_eq!(setup.promotes(), [1, 1]);
    assert_eq!(setup.marks(), &ALL[..4]);
}

#[test]
fn another_commit_is_not_resumed() {
    let setup = Setup::new();
    setup.run(&["deploy", "--resume"]).code(2).says("there is no run to go on with");
    setup.run(&["deploy", "--no-promote"]).code(0);
    setup.change("2");
    setup.run(&["deploy", "--resume"]).code(4).says("next: deploy what is checked out: offbuild deploy");
    setup.run(&["promote", "latest"]).code(4).says("git checkout");
    assert_eq!(setup.promotes(), [0, 0]);
}

#[test]
fn what_no_promote_staged_is_promoted_with_its_hooks() {
    let setup = Setup::new();
    setup.run(&["deploy", "--no-promote"]).code(0).says("offbuild promote ");
    let run = setup.last_run();
    assert_eq!((setup.promotes(), setup.marks().len()), ([0, 0], 0));
    setup.run(&["promote", "latest", "--rack", "two"]).code(0);
    assert_eq!((setup.promotes(), setup.marks().len()), ([1, 0], 4));
    setup.run(&["promote", &run]).code(0);
    setup.runs(&setup.repo.git(&["rev-parse", "HEAD"]));
    assert_eq!(setup.promotes(), [1, 1]);
    assert_eq!(setup.marks(), ALL);
}

#[test]
fn a_release_that_was_overtaken_is_not_promoted() {
    let setup = Setup::new();
    setup.run(&["deploy", "web@two"]).code(0);
    setup.change("2");
    setup.run(&["deploy", "web@two"]).code(0);
    setup.change("3");
    setup.run(&["deploy", "web@two", "--no-promote"]).code(0);
    let run = setup.last_run();
    // Somebody else releases meanwhile.
    setup.run(&["rollback", "web@two"]).code(0);
    let before = setup.promotes();
    setup.run(&["promote", &run, "--release-hold", "web"]).code(1).says("cannot be promoted");
    assert_eq!(setup.promotes(), before);
}

#[test]
fn a_rollback_brings_back_what_was_live_and_the_next_deploy_leaves_it() {
    let setup = Setup::new();
    let first = setup.repo.git(&["rev-parse", "HEAD"]);
    setup.run(&["deploy"]).code(0);
    let second = setup.change("2");
    setup.run(&["deploy"]).code(0);
    let third = setup.change("3");
    setup.run(&["deploy"]).code(0);
    setup.take_marks();
    for rack in ["two", "three"] {
        let target = format!("web@{rack}");
        let done = setup.run(&["rollback", &target]).code(0);
        assert!(done.stdout.contains(&format!("{target} runs R")) && done.stdout.contains(&second[..12]), "{}", done.stdout);
    }
    setup.runs(&second);
    // Twice goes back further, not forth again.
    for rack in ["two", "three"] {
        setup.run(&["rollback", &format!("web@{rack}")]).code(0);
    }
    setup.runs(&first);
    assert!(setup.marks().is_empty(), "hooks are of another commit");
    setup.run(&["deploy"]).code(0);
    setup.runs(&first);
    setup.run(&["rollback", "web@two", "--to", &third[..10]]).code(0);
    assert!(setup.status().contains(&third[..12]));
    setup.run(&["rollback", "web@two", "--to", "RNOTTHERE"]).code(2).says("its latest: R");
    setup.run(&["rollback", "web"]).code(2).says("write it as `app@rack`");
}

#[test]
fn the_doctor_tells_what_is_wrong_and_what_cures_it() {
    let setup = Setup::new();
    let done = setup.run(&["doctor"]).code(0);
    for part in ["git repository", "Docker Engine", "registry 127.0.0.1", "rack two", "clock of rack three", "app web@two"] {
        assert!(done.stdout.contains(part), "{part} is not in\n{}", done.stdout);
    }
    // Only an engine of this machine has a disk that can be looked at.
    let elsewhere = std::env::var("DOCKER_HOST").is_ok_and(|host| !host.starts_with("unix:"));
    assert!(elsewhere || done.stdout.contains(" GiB free at /"), "{}", done.stdout);
    let done = setup
        .offbuild()
        .env("TWO_PASSWORD", "wrong-password")
        .env("DOCKER_HOST", "unix:///nowhere.sock")
        .run(&["doctor", "--format", "json"]);
    assert_eq!(done.code, 1, "{}", done.stderr);
    let report: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    let failed: Vec<&str> = report["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["health"] == "fail")
        .map(|check| {
            assert!(check["next"].is_string(), "{check}");
            check["check"].as_str().unwrap()
        })
        .collect();
    assert_eq!(failed, ["Docker Engine", "rack two"]);
}

#[test]
fn the_values_of_build_secrets_are_masked() {
    let setup = Setup::new();
    let dockerfile = std::fs::read_to_string(setup.repo.path("apps/web/Dockerfile")).unwrap();
    setup.repo.write("apps/web/Dockerfile", format!("{dockerfile}RUN --mount=type=secret,id=token cat /run/secrets/token\n"));
    let yaml = std::fs::read_to_string(setup.repo.path("apps.yaml")).unwrap();
    setup.repo.write("apps.yaml", format!("{yaml}apps:\n  web: {{build: {{secrets: {{token: {{env: TOKEN}}}}}}}}\n"));
    setup.repo.commit("A secret");
    let done = setup.offbuild().env("TOKEN", "build-secret-0815").run(&["build", "-v", "--html", "page.html"]).code(0);
    assert!(!format!("{}{}", done.stdout, done.stderr).contains("0815"), "{}", done.stderr);
    assert!(!std::fs::read_to_string(setup.repo.path("page.html")).unwrap().contains("0815"));
}
