//! Five apps on two racks, killed at any moment: with the real engine, real processes, real signals.
//!
//! A few moments here; `src/deploy/tests/kills.rs` has hundreds, against fakes. `OFFBUILD_KILLS` says how many otherwise.

use super::setup::Setup;
use offbuild::event::Stage;
use offbuild::journal::Journal;
use offbuild::names::{AppName, RackName, Target};
use offbuild::report::state::RunState;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const APPS: [&str; 5] = ["api", "jobs", "mail", "web", "work"];

fn fresh() -> Setup {
    let setup = Setup::of(&APPS);
    setup.configure("defaults: {hooks: {repeatable: [before_release, after_release]}, racks: [two, three]}\n");
    setup
}

/// How often a hook of a target was begun.
fn begun(setup: &Setup, stage: Stage, app: &str, rack: &str) -> usize {
    let mark = format!("{} {app}@{rack} begin", stage.name());
    setup.marks().iter().filter(|line| **line == mark).count()
}

#[test]
fn killed_at_any_moment_and_gone_on_with_ends_as_if_nothing_had_happened() {
    let kills: u32 = std::env::var("OFFBUILD_KILLS").ok().map_or(4, |kills| kills.parse().expect("OFFBUILD_KILLS is a number"));
    let whole = fresh();
    let began = Instant::now();
    whole.run(&["deploy"]).code(0);
    let took = began.elapsed();
    drop(whole);
    let mut cut = 0;
    for kill in 0..kills {
        // Neither the very start, where there is nothing to go on with, nor the very end.
        let moment = took * (2 * kill + 1) / (2 * kills);
        let how: &[&str] = if kill % 2 == 0 { &["deploy", "--resume"] } else { &["deploy"] };
        cut += usize::from(killed_and_gone_on(moment, how));
    }
    assert!(cut > 0, "no run of {kills} was cut short");
}

/// `false` when the run ended before it could be killed.
fn killed_and_gone_on(moment: Duration, how: &[&str]) -> bool {
    let setup = fresh();
    let mut child: Child = setup.offbuild().command(&["deploy"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(moment);
    let cut = child.try_wait().unwrap().is_none();
    child.kill().unwrap();
    child.wait().unwrap();
    let state = Journal::find(&setup.repo.root(), "latest").map(|file| RunState::replay(&Journal::read(&file.path).unwrap()));
    let state = state.unwrap_or_default();
    // Before it had a plan, there is nothing to go on with.
    let how = if state.plan.is_some() { how } else { &["deploy"] };
    let case = format!("killed after {moment:?}, then {how:?}");
    let done = setup.run(how);
    assert_eq!(done.code, 0, "{case}: {}", done.stderr);
    setup.runs(&setup.repo.git(&["rev-parse", "HEAD"]));
    for (rack, app) in ["two", "three"].into_iter().flat_map(|rack| APPS.map(|app| (rack, app))) {
        let promotes = setup.promotes_of(rack, app);
        assert_eq!(promotes, 1, "{case}: {app}@{rack} was promoted {promotes} times");
        let target = Target { app: AppName::new(app).unwrap(), rack: RackName::new(rack).unwrap() };
        let (done, _) = state.release_hooks(&target);
        for stage in [Stage::BeforeRelease, Stage::AfterRelease] {
            let times = begun(&setup, stage, app, rack);
            // One whose end is on record ran once; one that was begun, at most once more.
            assert!(times == 1 || times == 2 && !done.contains(&stage), "{case}: {} of {app}@{rack} ran {times} times", stage.name());
        }
    }
    setup.run(&["deploy"]).code(0).says("nothing to do: 10 targets are up to date");
    cut
}
