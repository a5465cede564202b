//! What fails, what it stops, and what is live after it.

use crate::support::world::Setup;
use offbuild::event::{EventKind, Stage};
use offbuild::sandbox::Version;

#[test]
fn a_broken_build_releases_nothing_and_shows_its_line() {
    let world = Setup::new(&["api", "web"]).start();
    world.app("web", "RUN echo this is wrong >&2 && exit 7").repo.commit("broken");
    let run = world.run(&["deploy"]).code(1).says("RUN echo this is wrong").says("this is wrong").says("apps/web/Dockerfile:3");
    let run = run.outcomes(&["api@staging not-attempted", "web@staging failed(build)"]);
    // The other build was not stopped by it.
    assert_eq!(run.finished(Stage::Push), ["api/web"]);
    assert_eq!(run.begun(Stage::Stage), Vec::<String>::new());
    for app in ["api", "web"] {
        assert_eq!((world.sandbox.builds("staging", app), world.sandbox.promotes("staging", app)), (0, 0));
        assert_eq!(world.sandbox.live("staging", app).release, "");
    }
    // What was pushed is not built again.
    world.app("web", "").repo.commit("mended");
    let run = world.run(&["deploy"]).code(0).outcomes(&["api@staging deployed", "web@staging deployed"]);
    assert_eq!(run.images(), ["api/web reuse", "web/web build"]);
}

#[test]
fn with_gate_app_a_broken_build_keeps_only_its_own_app_back() {
    let world = Setup::new(&["api", "web"]).start();
    world.app("web", "RUN exit 7").repo.commit("broken");
    let run = world.run(&["deploy", "--gate", "app", "--on-failure", "continue"]).code(1);
    run.outcomes(&["api@staging deployed", "web@staging failed(build)"]);
    assert_eq!((world.sandbox.promotes("staging", "api"), world.sandbox.promotes("staging", "web")), (1, 0));
    assert_eq!(world.sandbox.live("staging", "web").release, "");
}

#[test]
fn a_failing_hook_stops_its_lane_and_on_failure_is_told() {
    let world = Setup::new(&["api", "web", "zoo"]).rack("production", Version::V3, "").start();
    let told = world.aside("told");
    world.hook("web", "before_release", "echo migrating $APP_NAME; test \"$RACK_NAME\" != staging");
    world.hook(
        "web",
        "on_failure",
        &format!("echo $APP_NAME $RACK_NAME $OFFBUILD_FAILED_STAGE $OFFBUILD_FAILURE >>{}; exit 9", told.display()),
    );
    world.repo.commit("hooks");
    let run = world.run(&["deploy"]).code(1).says("migrating web").outcomes(&[
        "api@production deployed",
        "api@staging deployed",
        "web@production deployed",
        "web@staging failed(hook)",
        "zoo@production deployed",
        "zoo@staging not-attempted",
    ]);
    assert_eq!(std::fs::read_to_string(told).unwrap(), "web staging before_release hook\n");
    assert_eq!(run.begun(Stage::OnFailure), ["web@staging"]);
    // Staged, and never asked to go live.
    assert_eq!((world.sandbox.builds("staging", "web"), world.sandbox.promotes("staging", "web")), (1, 0));
    assert_eq!(world.sandbox.live("staging", "web").release, "");
    assert_eq!(world.sandbox.builds("staging", "zoo"), 0);
    // The same command goes on where it stopped.
    world.hook("web", "before_release", "true").repo.commit("mended");
    world.run(&["deploy", "--rack", "staging"]).code(0).outcomes(&[
        "api@staging up-to-date",
        "web@staging deployed",
        "zoo@staging deployed",
    ]);
}

#[test]
fn with_on_failure_continue_the_lane_goes_on_but_not_for_those_that_come_after() {
    let world = Setup::new(&["api", "late", "web"]).settings("apps:\n  late: {after: [api]}\n").start();
    world.hook("api", "before_release", "exit 3").repo.commit("hook");
    let run = world.run(&["deploy", "--on-failure", "continue"]).code(1);
    run.outcomes(&["api@staging failed(hook)", "late@staging blocked(api@staging)", "web@staging deployed"]);
    assert_eq!(world.sandbox.builds("staging", "late"), 0);
}

#[test]
fn with_on_failure_stop_all_no_other_rack_starts_anything_new() {
    let world = Setup::new(&["api", "web"]).rack("production", Version::V3, "").start();
    let go = world.aside("go");
    let script = format!("test \"$RACK_NAME\" != staging || exit 3\nwhile [ ! -e {} ]; do sleep 0.05; done", go.display());
    world.hook("api", "before_release", &script).repo.commit("hook");
    let mut run = world.start(&["deploy", "--on-failure", "stop-all"]);
    // The other rack is in the middle of a release when this one fails: that one is heard out.
    let failed = |kind: &EventKind| matches!(kind, EventKind::TargetFinished { target, .. } if target.to_string() == "api@staging");
    world.until(&mut run, failed);
    std::fs::write(go, "").unwrap();
    let run = world.ended(run).code(1).says("which stops everything").outcomes(&[
        "api@production deployed",
        "api@staging failed(hook)",
        "web@production not-attempted",
        "web@staging not-attempted",
    ]);
    assert_eq!(run.begun(Stage::Stage), ["api@production", "api@staging"]);
    assert_eq!((world.sandbox.builds("production", "web"), world.sandbox.builds("staging", "web")), (0, 0));
}

#[test]
fn a_release_that_the_rack_rolls_back_is_said_to_be() {
    let world = Setup::new(&["web"]).start();
    world.run(&["deploy"]).code(0);
    let live = world.sandbox.live("staging", "web");
    world.page("web", "second").repo.commit("second");
    world.sandbox.fault("staging:web:promote-rolls-back");
    let run = world.run(&["deploy"]).code(1).says(&live.release).outcomes(&["web@staging rolled-back"]);
    assert_eq!(world.sandbox.promotes("staging", "web"), 2);
    let statuses: Vec<&str> = run
        .kinds()
        .filter_map(|kind| match kind {
            EventKind::RackStatus { status, .. } => Some(status.as_str()),
            _ => None,
        })
        .collect();
    assert!(statuses.contains(&"updating") && statuses.last() == Some(&"running"), "{statuses:?}");
    assert_eq!(world.sandbox.live("staging", "web"), live);
}

#[test]
fn a_promote_whose_answer_is_lost_is_not_sent_again() {
    let world = Setup::new(&["web"]).start();
    world.sandbox.fault("staging:web:promote-answer-lost");
    world.run(&["deploy"]).code(0).outcomes(&["web@staging deployed"]);
    assert_eq!(world.sandbox.promotes("staging", "web"), 1);
}

#[test]
fn a_rack_that_comes_after_another_starts_when_that_one_has_finished_well() {
    let world = Setup::new(&["api", "web"]).rack("production", Version::V3, "after: [staging]").start();
    world.sandbox.fault("staging:web:rack-build-fails");
    world.run(&["deploy"]).code(1).outcomes(&[
        "api@production blocked(rack staging)",
        "api@staging deployed",
        "web@production blocked(rack staging)",
        "web@staging failed(rack-build)",
    ]);
    assert_eq!(world.sandbox.builds("production", "api"), 0);
    world.sandbox.heal();
    let run = world.run(&["deploy"]).code(0).outcomes(&[
        "api@production deployed",
        "api@staging up-to-date",
        "web@production deployed",
        "web@staging deployed",
    ]);
    let first = |rack: &str, last: bool| {
        let of = |kind: &EventKind| match kind {
            EventKind::StepStarted { step, .. } if !last => step.rack.as_ref().is_some_and(|known| known.as_str() == rack),
            EventKind::TargetFinished { target, .. } if last => target.rack.as_str() == rack,
            _ => false,
        };
        let mut found = run.events.iter().filter(|event| of(&event.kind)).map(|event| event.seq);
        if last { found.next_back() } else { found.next() }
    };
    assert!(first("staging", true).unwrap() < first("production", false).unwrap());
}

#[test]
fn without_any_rack_nothing_is_begun() {
    let world = Setup::new(&["web"]).start();
    world.sandbox.fault("*:down");
    let run = world.run(&["deploy"]).code(3).says("staging");
    assert!(run.events.is_empty());
    assert!(!world.repo.path(".offbuild/runs").exists());
}

#[test]
fn with_one_rack_down_the_others_are_deployed_to() {
    let world = Setup::new(&["web"]).rack("production", Version::V3, "").start();
    world.sandbox.fault("staging:down");
    world.run(&["deploy"]).code(1).outcomes(&["web@production deployed", "web@staging failed(rack-unreachable)"]);
    assert_eq!(world.sandbox.live("production", "web").status, "running");
}

#[test]
fn an_app_the_rack_does_not_have_fails_alone_and_says_how_to_create_it() {
    let world = Setup::new(&["api"]).start();
    world.app("web", "").repo.commit("a new app");
    let run = world.run(&["deploy", "--on-failure", "continue"]).code(1).says("convox apps create");
    let failed = run.kinds().any(
        |kind| matches!(kind, EventKind::TargetFinished { target, outcome, .. } if target.app.as_str() == "web" && !outcome.is_good()),
    );
    assert!(failed, "{}", run.done.stderr);
    assert_eq!(world.sandbox.live("staging", "api").status, "running");
}

#[test]
fn a_hook_that_fails_before_the_build_builds_nothing() {
    let world = Setup::new(&["web"]).start();
    world.hook("web", "before_build", "echo no licence; exit 1").repo.commit("hook");
    let run = world.run(&["deploy"]).code(1).says("no licence").outcomes(&["web@staging failed(hook)"]);
    assert_eq!(run.begun(Stage::Build), Vec::<String>::new());
    assert_eq!(world.sandbox.builds("staging", "web"), 0);
}

#[test]
fn a_hook_that_fails_after_the_release_is_a_failure_and_the_release_is_live() {
    let world = Setup::new(&["web"]).start();
    world.hook("web", "after_release", "exit 1").repo.commit("hook");
    world.run(&["deploy"]).code(1).outcomes(&["web@staging failed(hook)"]);
    let live = world.sandbox.live("staging", "web");
    assert_eq!((live.status.as_str(), live.commit), ("running", world.repo.git(&["rev-parse", "HEAD"])));
}

#[test]
fn with_fail_fast_or_stop_all_a_broken_build_stops_the_others() {
    let world = Setup::new(&["api", "web"]).start();
    // Would outlast any test.
    world.app("api", "RUN sleep 3000").app("web", "RUN exit 7").repo.commit("broken");
    for flag in ["--fail-fast", "--on-failure=stop-all"] {
        let run = world.run(&["deploy", flag, "-j", "2"]).code(1);
        assert_eq!(run.begun(Stage::Push), Vec::<String>::new(), "{flag}");
        let ended = run.kinds().filter(|kind| matches!(kind, EventKind::TargetFinished { .. })).count();
        assert_eq!(ended, 2, "{flag}");
    }
}
