//! A run that is killed between any two events, and the run that goes on with its journal.

use super::*;
use crate::plan::{Adopted, PlannedLive};
use crate::report::state::RunState;

const LANES: &[(&str, &[&str], &[(&str, &[&str])])] = &[("east", &[], &[("a", &[]), ("b", &[])]), ("west", &[], &[("a", &[])])];

/// Carries a plan out until event number `last` is in the journal, and drops the run there. The journal, and `true` when the
/// run came to its end before.
async fn killed_after(plan: Plan, world: &World, last: u64) -> (Vec<Event>, bool) {
    let (events, mut receiver) = Events::new(Redactor::default());
    let acks = events.acks();
    let ports = world.ports(&plan);
    let (_keep, signals) = unbounded_channel();
    let mut journal = Vec::new();
    let run = run(Arc::new(plan), ports, &events, signals);
    tokio::pin!(run);
    loop {
        tokio::select! {
            biased;
            Some(event) = receiver.recv() => {
                let seq = event.seq;
                if seq <= last {
                    journal.push(event);
                    // What is written after the last one is on no disk, and nobody goes on from it.
                    acks.through(seq);
                }
                if seq > last {
                    // Whatever was begun before the kill still comes to its end on the rack.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    return (journal, false);
                }
            }
            _ = &mut run => return (journal, true),
        }
    }
}

/// The plan of the run that goes on, made as the composition root does: images by their tags, releases by journal and rack.
fn going_on(world: &World, state: &RunState) -> Plan {
    let mut plan = plan(LANES);
    let pushed = world.pushed.lock().unwrap();
    for image in plan.apps.values_mut().flat_map(|app| &mut app.images) {
        if let Some(digest) = pushed.get(&format!("{}:{}", image.repository, image.fingerprint_tag)) {
            image.action = ImageAction::Reuse { digest: digest.clone() };
        }
    }
    let released = world.released.lock().unwrap();
    for target in plan.lanes.iter_mut().flat_map(|lane| &mut lane.targets) {
        let active = released.get(&target.target.to_string());
        target.live = active.map(|release| PlannedLive {
            release: release.clone(),
            commit: None,
            fingerprint: None,
            manifest: String::new(),
            running: true,
        });
        let Some(known) = state.targets.get(&target.target) else { continue };
        if matches!(known.outcome, Some(TargetOutcome::Deployed { .. })) {
            target.decision = Decision::UpToDate;
        } else if let Some((build, release)) = known.staged.clone() {
            let (done, _) = state.release_hooks(&target.target);
            target.origin = Origin::Adopt(Adopted { from: RunId::new("r0").unwrap(), build, release, done });
        }
    }
    plan
}

#[tokio::test]
async fn killed_after_any_event_and_gone_on_with_it_ends_the_same() {
    let whole = World::default();
    let (_, end) = killed_after(plan(LANES), &whole, u64::MAX).await;
    assert!(end);
    let mut last = 0;
    loop {
        let world = World::default();
        let (journal, ended) = killed_after(plan(LANES), &world, last).await;
        if ended {
            break;
        }
        let state = RunState::replay(&journal);
        let before = world.calls().len();
        let (words, _) = carried_out(going_on(&world, &state), &world).await;
        assert!(words.values().all(|word| word == "deployed" || word == "up-to-date"), "killed after {last}: {words:?}");
        assert_eq!(*world.released.lock().unwrap(), *whole.released.lock().unwrap(), "killed after {last}");
        let calls = world.calls();
        let count = |call: &str| calls.iter().filter(|made| *made == call).count();
        for (app, rack) in [("a", "east"), ("b", "east"), ("a", "west")] {
            let target = Target { app: app_name(app), rack: rack_name(rack) };
            assert_eq!(count(&format!("promote {target}")), 1, "killed after {last}: {calls:?}");
            let (done, _) = state.release_hooks(&target);
            for stage in [Stage::BeforeRelease, Stage::AfterRelease] {
                let call = format!("{} {target}", stage.name());
                let again = calls[before..].iter().filter(|made| **made == call).count();
                assert_eq!(again, usize::from(!done.contains(&stage)), "killed after {last}: `{call}` in {calls:?}");
            }
            let staged = state.targets.get(&target).is_some_and(|known| known.staged.is_some());
            assert!(!staged || !calls[before..].contains(&format!("stage {target}")), "killed after {last}: {calls:?}");
        }
        last += 1;
    }
    assert!(last > 30, "the run has more events than {last}");
}

#[tokio::test]
async fn without_the_lock_nothing_is_promoted() {
    let world = World { lock_lost: true, ..World::default() };
    let (ended, _) = carried_out(plan(&[("east", &[], &[("a", &[])])]), &world).await;
    assert_eq!(words(&ended), "a@east failed(guard)");
    assert!(!world.calls().iter().any(|call| call.starts_with("promote")));
}

#[tokio::test]
async fn what_is_staged_only_waits_with_its_hooks() {
    let world = World::default();
    let mut plan = plan(&[("east", &[], &[("a", &[])])]);
    plan.options.until = Until::Stage;
    let (ended, _) = carried_out(plan, &world).await;
    assert_eq!(words(&ended), "a@east staged");
    assert_eq!(world.calls().last().map(String::as_str), Some("stage a@east"));
}

#[tokio::test]
async fn an_older_release_comes_back_as_a_copy() {
    let world = World::default();
    let mut plan = plan(&[("east", &[], &[("a", &[])])]);
    let app = plan.apps.get_mut(&app_name("a")).unwrap();
    app.images.clear();
    app.hooks.clear();
    plan.lanes[0].targets[0].origin = Origin::Copy { of: ReleaseId::new("ROLD").unwrap(), build: BuildId::new("BOLD").unwrap() };
    let (ended, _) = carried_out(plan, &world).await;
    assert_eq!(words(&ended), "a@east deployed");
    assert_eq!(world.calls(), ["copy a@east ROLD", "promote a@east", "promoted a@east"]);
}

#[tokio::test]
async fn an_app_in_mid_update_is_waited_for_before_anything_is_staged() {
    let world = World::default();
    let mut plan = plan(&[("east", &[], &[("a", &[])])]);
    let release = ReleaseId::new("ROLD").unwrap();
    plan.lanes[0].targets[0].live =
        Some(PlannedLive { release: release.clone(), commit: None, fingerprint: None, manifest: String::new(), running: false });
    // The update that was under way ends with another release than the plan was made over.
    world.released.lock().unwrap().insert("a@east".to_owned(), ReleaseId::new("ROTHER").unwrap());
    let (ended, _) = carried_out(plan, &world).await;
    assert_eq!(words(&ended), "a@east failed(guard)");
    assert!(!world.calls().contains(&"stage a@east".to_owned()));
}
