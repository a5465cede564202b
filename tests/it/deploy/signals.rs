//! A run that is asked to stop.

use crate::support::front::{Fault, Head, Rule};
use crate::support::unique;
use crate::support::world::{Setup, World, wait_for};
use offbuild::event::{EventKind, Stage};

/// True when a process of this machine has the text in its command line.
fn runs(marker: &str) -> bool {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok()).any(|line| String::from_utf8_lossy(&line).contains(marker))
}

fn no_lock(world: &World) {
    let locks = std::fs::read_dir(world.repo.path(".offbuild/locks")).into_iter().flatten().flatten();
    let left: Vec<_> = locks.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "json")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn an_interrupt_stops_the_builds_and_leaves_nothing_behind() {
    let world = Setup::new(&["api", "web"]).start();
    let marker = format!("sleep-of-{}", unique());
    world.app("web", &format!("RUN sleep 600; echo {marker}")).repo.commit("slow");
    let mut run = world.start(&["deploy", "-j", "2"]);
    world.until(&mut run, |kind| matches!(kind, EventKind::BuildStep { name, .. } if name.contains("RUN sleep 600")));
    wait_for(|| runs(&marker));
    run.signal("INT");
    let run = world.ended(run).code(130);
    assert!(run.kinds().any(|kind| matches!(kind, EventKind::Interrupted { now: false, .. })));
    assert!(matches!(run.kinds().last(), Some(EventKind::RunFinished { code: 130, .. })));
    assert_eq!(run.begun(Stage::Stage), Vec::<String>::new());
    // The engine lets go of what it ran for the build.
    wait_for(|| !runs(&marker));
    no_lock(&world);
    assert_eq!(world.sandbox.builds("staging", "web"), 0);
    // Nothing stands in the way of the next run.
    world.app("web", "").repo.commit("quick");
    world.run(&["deploy"]).code(0).outcomes(&["api@staging deployed", "web@staging deployed"]);
}

#[test]
fn an_interrupt_ends_a_hook_with_all_it_started() {
    let world = Setup::new(&["web"]).start();
    let marker = format!("hook-of-{}", unique());
    world.hook("web", "before_release", &format!("sh -c 'sleep 600; echo {marker}'")).repo.commit("slow");
    let mut run = world.start(&["deploy"]);
    world.until(&mut run, |kind| matches!(kind, EventKind::StepStarted { step, .. } if step.stage == Stage::BeforeRelease));
    wait_for(|| runs(&marker));
    run.signal("TERM");
    world.ended(run).code(143).outcomes(&["web@staging cancelled"]);
    assert!(!runs(&marker));
    no_lock(&world);
    assert_eq!(world.sandbox.promotes("staging", "web"), 0);
}

#[test]
fn in_whatever_it_is_interrupted_nothing_runs_on_and_the_next_deploy_ends_well() {
    let world = Setup::new(&["web"]).start();
    let cases = [(Stage::BeforeBuild, "INT"), (Stage::AfterBuild, "TERM"), (Stage::BeforeRelease, "INT"), (Stage::AfterRelease, "TERM")];
    for (stage, signal) in cases {
        let marker = format!("{}-of-{}", stage.name(), unique());
        world.hook("web", stage.name(), &format!("sh -c 'sleep 600; echo {marker}'")).page("web", &marker).repo.commit("slow");
        let mut run = world.start(&["deploy"]);
        world.until(&mut run, |kind| matches!(kind, EventKind::StepStarted { step, .. } if step.stage == stage));
        wait_for(|| runs(&marker));
        run.signal(signal);
        let run = world.ended(run).code(if signal == "INT" { 130 } else { 143 });
        let run = run.outcomes(&["web@staging cancelled"]);
        assert!(matches!(run.kinds().last(), Some(EventKind::RunFinished { .. })), "{stage:?}");
        assert!(!runs(&marker), "{stage:?}");
        no_lock(&world);
        // Of what it did, the table tells; what is live is not in doubt.
        let live = world.sandbox.live("staging", "web");
        assert_eq!(live.commit == world.repo.git(&["rev-parse", "HEAD"]), stage == Stage::AfterRelease, "{stage:?}");
        world.hook("web", stage.name(), "true").repo.commit("quick");
        world.run(&["deploy"]).code(0).outcomes(&["web@staging deployed"]);
    }
}

#[test]
fn a_hook_that_ignores_its_end_is_killed_with_all_it_started_at_the_first_signal_and_at_the_second() {
    for signals in [["INT"].as_slice(), &["TERM", "TERM"]] {
        let world = Setup::new(&["web"]).start();
        let marker = format!("deaf-of-{}", unique());
        let script = format!("trap '' TERM INT\nsh -c 'trap \"\" TERM INT; while true; do sleep 1; done; echo {marker}' &\nwait\nwait");
        world.hook("web", "before_release", &script).repo.commit("deaf");
        let mut run = world.start(&["deploy"]);
        world.until(&mut run, |kind| matches!(kind, EventKind::StepStarted { step, .. } if step.stage == Stage::BeforeRelease));
        wait_for(|| runs(&marker));
        for signal in signals {
            run.signal(signal);
            world.until(&mut run, |kind| matches!(kind, EventKind::Interrupted { .. }));
        }
        world.ended(run).code(if signals == ["INT"] { 130 } else { 143 }).outcomes(&["web@staging cancelled"]);
        wait_for(|| !runs(&marker));
        no_lock(&world);
        assert_eq!(world.sandbox.promotes("staging", "web"), 0);
    }
}

#[test]
fn a_build_of_the_rack_that_was_not_awaited_is_promoted_by_the_next_run() {
    let world = Setup::new(&["web"]).start();
    world.sandbox.fault("staging:web:rack-build-hangs");
    let run = world.start(&["deploy"]);
    wait_for(|| world.sandbox.builds("staging", "web") == 1);
    run.signal("INT");
    world.ended(run).code(130).outcomes(&["web@staging cancelled"]);
    no_lock(&world);
    world.sandbox.heal();
    wait_for(|| world.run(&["plan"]).done.stdout.contains("is taken over"));
    world.run(&["deploy"]).code(0).outcomes(&["web@staging deployed"]);
    assert_eq!((world.sandbox.builds("staging", "web"), world.sandbox.promotes("staging", "web")), (1, 1));
}

#[test]
fn a_promote_that_is_under_way_is_awaited() {
    let world = Setup::new(&["api", "web"]).start();
    world.sandbox.fault("staging:api:promote-hangs");
    let mut run = world.start(&["deploy"]);
    world.until(&mut run, |kind| matches!(kind, EventKind::RackStatus { status, .. } if status == "updating"));
    run.signal("INT");
    world.until(&mut run, |kind| matches!(kind, EventKind::Interrupted { now: false, .. }));
    world.sandbox.heal();
    let run = world.ended(run).code(130);
    let run = run.outcomes(&["api@staging deployed", "web@staging not-attempted"]);
    assert_eq!(run.finished(Stage::Promote), ["api@staging"]);
    let live = world.sandbox.live("staging", "api");
    assert_eq!((live.status.as_str(), live.commit), ("running", world.repo.git(&["rev-parse", "HEAD"])));
    assert_eq!((world.sandbox.promotes("staging", "api"), world.sandbox.builds("staging", "web")), (1, 0));
    no_lock(&world);
}

#[test]
fn a_second_interrupt_waits_for_nothing() {
    let world = Setup::new(&["web"]).start();
    world.sandbox.fault("staging:web:promote-hangs");
    let mut run = world.start(&["deploy"]);
    world.until(&mut run, |kind| matches!(kind, EventKind::RackStatus { status, .. } if status == "updating"));
    run.signal("INT");
    world.until(&mut run, |kind| matches!(kind, EventKind::Interrupted { now: false, .. }));
    run.signal("INT");
    let run = world.ended(run).code(130);
    assert!(run.kinds().any(|kind| matches!(kind, EventKind::Interrupted { now: true, .. })));
    assert_eq!(world.sandbox.promotes("staging", "web"), 1);
    no_lock(&world);
}

#[test]
fn a_run_that_was_killed_stands_in_nobodys_way() {
    let world = Setup::new(&["api", "web"]).start();
    let marker = format!("kill-of-{}", unique());
    world.app("web", &format!("RUN sleep 600; echo {marker}")).repo.commit("slow");
    let mut run = world.start(&["deploy", "-j", "2"]);
    world.until(&mut run, |kind| matches!(kind, EventKind::ImagePushed { app, .. } if app.as_str() == "api"));
    wait_for(|| runs(&marker));
    run.signal("KILL");
    let killed = world.ended(run).code(-1);
    assert_eq!(killed.finished(Stage::Push), ["api/web"]);
    // With its connection gone, the engine stops what it built.
    wait_for(|| !runs(&marker));
    world.app("web", "").repo.commit("quick");
    let run = world.run(&["deploy"]).code(0).outcomes(&["api@staging deployed", "web@staging deployed"]);
    assert_eq!(run.images(), ["api/web reuse", "web/web build"]);
}

#[test]
fn a_promote_whose_run_was_killed_is_found_done() {
    let world = Setup::new(&["web"]).start();
    world.sandbox.fault("staging:web:promote-hangs");
    let mut run = world.start(&["deploy"]);
    world.until(&mut run, |kind| matches!(kind, EventKind::RackStatus { status, .. } if status == "updating"));
    run.signal("KILL");
    world.ended(run).code(-1);
    // The rack goes on without the run.
    world.sandbox.heal();
    wait_for(|| world.sandbox.live("staging", "web").status == "running");
    // What is left of that run is to say so, and its last hook.
    world.run(&["deploy"]).code(0).outcomes(&["web@staging deployed"]);
    world.run(&["deploy"]).code(0).outcomes(&["web@staging up-to-date"]);
    assert_eq!((world.sandbox.builds("staging", "web"), world.sandbox.promotes("staging", "web")), (1, 1));
}

#[test]
fn a_second_signal_ends_a_run_whose_rack_does_not_answer_any_more() {
    let world = Setup::new(&["web"]).defaults("timeouts: {answer: 10h}").start();
    let front = world.front();
    let promoted = |_: &Head, before: &[Head]| before.iter().any(|head| head.path.ends_with("/promote"));
    let body = |status| (status, String::new(), "text/plain");
    front.rule(Rule { to: Box::new(promoted), fault: Fault::Timeout, times: usize::MAX, body, retry_after: None });
    let mut run = world.start_as(&world.offbuild().env("STAGING_HOST", format!("http://{}", front.host)), &["deploy"]);
    wait_for(|| front.faulted() > 0);
    run.signal("INT");
    world.until(&mut run, |kind| matches!(kind, EventKind::Interrupted { now: false, .. }));
    run.signal("INT");
    wait_for(|| run.has_ended());
    let run = world.ended(run).code(130).outcomes(&["web@staging cancelled"]).says("not known: a promote was under way");
    assert!(run.kinds().any(|kind| matches!(kind, EventKind::Interrupted { now: true, .. })));
}
