//! Many apps at once.

use crate::support::world::{Setup, most_at_once};
use offbuild::event::{EventKind, Stage};
use offbuild::sandbox::Version;

#[test]
fn builds_run_side_by_side_within_their_bound_and_a_rack_releases_one_app_at_a_time() {
    let names: Vec<String> = (1..=12).map(|number| format!("app{number:02}")).collect();
    let apps: Vec<&str> = names.iter().map(String::as_str).collect();
    let world = Setup::new(&apps).rack("production", Version::V3, "").start();
    for app in &apps {
        // Long enough to meet the others; the page before it makes each app's step its own.
        world.app(app, "RUN sleep 0.4");
    }
    world.repo.commit("slow steps");
    let expected: Vec<String> =
        apps.iter().flat_map(|app| [format!("{app}@production deployed"), format!("{app}@staging deployed")]).collect();
    let run = world.run(&["deploy", "-j", "3"]).code(0);
    let run = run.outcomes(&expected.iter().map(String::as_str).collect::<Vec<_>>());
    let builds = most_at_once(run.steps(Stage::Build).map(|(_, begins)| begins));
    assert!((2..=3).contains(&builds), "{builds} builds at once");
    let last_push = run.events.iter().filter(|event| matches!(&event.kind, EventKind::ImagePushed { .. })).map(|event| event.seq).max();
    let first_stage = run
        .events
        .iter()
        .find(|event| matches!(&event.kind, EventKind::StepStarted { step, .. } if step.stage == Stage::Stage))
        .map(|event| event.seq);
    // The gate: no release before every image is there.
    assert!(last_push < first_stage, "{last_push:?} {first_stage:?}");
    for rack in ["staging", "production"] {
        let of_rack = run.kinds().filter_map(|kind| match kind {
            EventKind::StepStarted { step, .. } if step.rack.as_ref().is_some_and(|known| known.as_str() == rack) => Some(true),
            EventKind::StepFinished { step, .. } if step.rack.as_ref().is_some_and(|known| known.as_str() == rack) => Some(false),
            _ => None,
        });
        assert_eq!(most_at_once(of_rack), 1, "{rack}");
        for app in &apps {
            assert_eq!(world.sandbox.promotes(rack, app), 1, "{app}@{rack}");
        }
    }
    let run = world.run(&["deploy"]).code(0);
    assert_eq!(run.begun(Stage::Build), Vec::<String>::new());
}

#[test]
fn two_racks_release_side_by_side() {
    let world = Setup::new(&["web"]).rack("production", Version::V3, "").start();
    // Each lane waits in the middle of its release for the other to be there too: one after the other would never end well.
    let meeting = world.aside("meeting");
    std::fs::create_dir(&meeting).unwrap();
    let script =
        "cd MEETING; touch $RACK_NAME; for _ in $(seq 1200); do [ -e staging ] && [ -e production ] && exit; sleep 0.05; done; exit 1";
    world.hook("web", "before_release", &script.replace("MEETING", meeting.to_str().unwrap())).repo.commit("hook");
    world.run(&["deploy"]).code(0).outcomes(&["web@production deployed", "web@staging deployed"]);
}
