//! Runs that are killed, between any two events and at any moment, and the run after: one that goes on with the journal, and one
//! that has no journal and only the racks' word.

use super::*;
use crate::plan::{Adopted, PlannedLive};
use crate::report::state::RunState;

const LANES: &[(&str, &[&str], &[(&str, &[&str])])] = &[
    ("east", &[], &[("a", &[]), ("c", &[]), ("b", &["c"]), ("d", &[]), ("e", &["a", "b"])]),
    ("west", &["east"], &[("a", &[]), ("b", &[]), ("d", &["b"]), ("e", &[])]),
];

/// When a run is killed.
#[derive(Debug, Clone, Copy)]
enum Kill {
    /// When event number this is on disk and the next one is not.
    After(u64),
    /// So long after its start, wherever it is.
    At(Duration),
    Never,
}

/// Carries a plan out until the kill, and drops the run there. The journal, and `true` when the run came to its end before.
async fn killed(plan: Plan, world: &World, kill: Kill) -> (Vec<Event>, bool) {
    let (events, mut receiver) = Events::new(Redactor::default());
    let acks = events.acks();
    let ports = world.ports(&plan);
    let (_keep, signals) = unbounded_channel();
    let mut journal = Vec::new();
    let moment = async {
        match kill {
            Kill::At(moment) => tokio::time::sleep(moment).await,
            Kill::After(_) | Kill::Never => std::future::pending().await,
        }
    };
    let ended = {
        let run = run(Arc::new(plan), ports, &events, signals, None);
        tokio::pin!(run, moment);
        loop {
            tokio::select! {
                biased;
                () = &mut moment => break false,
                Some(event) = receiver.recv() => {
                    let seq = event.seq;
                    if matches!(kill, Kill::After(last) if seq > last) {
                        break false;
                    }
                    journal.push(event);
                    acks.through(seq);
                }
                _ = &mut run => break true,
            }
        }
    };
    // Whatever was begun before the kill still comes to its end on the rack.
    tokio::time::sleep(Duration::from_millis(20)).await;
    (journal, ended)
}

/// Plans to take the images that are in the registry, as the planner does.
fn reuse_pushed(plan: &mut Plan, world: &World) {
    let pushed = world.pushed.lock().unwrap();
    for image in plan.apps.values_mut().flat_map(|app| &mut app.images) {
        if let Some(digest) = pushed.get(&format!("{}:{}", image.repository, image.fingerprint_tag)) {
            image.action = ImageAction::Reuse { digest: digest.clone() };
        }
    }
}

/// The plan of the run after, made as the composition root does: images by their tags, releases by what is live, and by the
/// journal when there is one.
fn going_on(world: &World, journal: Option<&RunState>) -> Plan {
    let mut plan = plan(LANES);
    reuse_pushed(&mut plan, world);
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
        let known = journal.and_then(|state| Some((state, state.targets.get(&target.target)?)));
        let deployed = known.is_some_and(|(_, known)| matches!(known.outcome, Some(TargetOutcome::Deployed { .. })));
        if deployed || journal.is_none() && active.is_some() {
            target.decision = Decision::UpToDate;
        } else if let Some((state, Some((build, release)))) = known.map(|(state, known)| (state, known.staged.clone())) {
            let (done, again) = state.release_hooks(&target.target);
            target.origin = Origin::Adopt(Adopted { from: RunId::new("r0").unwrap(), build, release, outdated: false, done, again });
        }
    }
    plan
}

/// Kills a run, goes on, and holds the end against that of a run nobody killed. `false` when the run ended before the kill.
async fn killed_and_gone_on(kill: Kill, whole: Arc<BTreeMap<String, ReleaseId>>) -> bool {
    for with_journal in [true, false] {
        let world = World::default();
        let (journal, ended) = killed(plan(LANES), &world, kill).await;
        if ended {
            return false;
        }
        let state = RunState::replay(&journal);
        let before = world.calls().len();
        let (words, _) = carried_out(going_on(&world, with_journal.then_some(&state)), &world).await;
        let case = format!("killed {kill:?}, going on {} its journal", if with_journal { "with" } else { "without" });
        assert!(words.values().all(|word| word == "deployed" || word == "up-to-date"), "{case}: {words:?}");
        assert_eq!(*world.released.lock().unwrap(), *whole, "{case}");
        let calls = world.calls();
        let count = |calls: &[String], call: &str| calls.iter().filter(|made| *made == call).count();
        for target in plan(LANES).targets().map(|target| target.target.clone()) {
            assert_eq!(count(&calls, &format!("promote {target}")), 1, "{case}: {calls:?}");
            if !with_journal {
                continue;
            }
            let (done, _) = state.release_hooks(&target);
            for stage in [Stage::BeforeRelease, Stage::AfterRelease] {
                let call = format!("{} {target}", stage.name());
                assert_eq!(count(&calls[before..], &call), usize::from(!done.contains(&stage)), "{case}: `{call}` in {calls:?}");
            }
            let staged = state.targets.get(&target).is_some_and(|known| known.staged.is_some());
            assert!(!staged || !calls[before..].contains(&format!("stage {target}")), "{case}: {calls:?}");
        }
        for app in ["a", "b", "c", "d", "e"] {
            // What is in the registry is neither built nor pushed again, and its build hooks do not run.
            let pushed = calls[..before].contains(&format!("retag r.example/{app}:web.in-a"));
            for call in ["build", "before_build", "after_build"].map(|call| format!("{call} {app}")) {
                assert!(!pushed || !calls[before..].contains(&call), "{case}: `{call}` again in {calls:?}");
            }
        }
    }
    true
}

/// How long a run takes that nobody kills, and what is live after it.
async fn whole() -> (Duration, u64, Arc<BTreeMap<String, ReleaseId>>) {
    let (world, began) = (World::default(), Instant::now());
    let (journal, ended) = killed(plan(LANES), &world, Kill::Never).await;
    assert!(ended);
    let released = world.released.lock().unwrap().clone();
    assert_eq!(released.len(), 9);
    (began.elapsed(), journal.last().unwrap().seq, Arc::new(released))
}

#[tokio::test]
async fn killed_after_any_event_and_gone_on_with_ends_the_same() {
    let (_, last, whole) = whole().await;
    assert!(last > 100, "the run has {last} events");
    let mut runs = JoinSet::new();
    for after in 0..last {
        runs.spawn(killed_and_gone_on(Kill::After(after), Arc::clone(&whole)));
    }
    // The last events are told when all is done.
    let cut = runs.join_all().await.into_iter().filter(|cut| *cut).count();
    assert!(cut > 100, "{cut} of {last} runs were cut short");
}

#[tokio::test]
async fn killed_at_any_moment_and_gone_on_with_ends_the_same() {
    let (took, _, whole) = whole().await;
    let mut runs = JoinSet::new();
    for moment in 0..200 {
        runs.spawn(killed_and_gone_on(Kill::At(took * moment / 200), Arc::clone(&whole)));
    }
    let cut = runs.join_all().await.into_iter().filter(|cut| *cut).count();
    assert!(cut > 50, "{cut} of 200 runs were cut short");
}

/// What is done to the world when a run of a group is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meanwhile {
    Nothing,
    /// What made the group go back is mended.
    Mended,
    /// Somebody promotes a release of the first app.
    Somebody,
}

/// The plan of the run after one of a group that was killed, made as the composition root does.
fn group_going_on(world: &World, state: &RunState) -> Plan {
    let mut plan = groups::grouped(world);
    reuse_pushed(&mut plan, world);
    let released = world.released.lock().unwrap();
    for target in plan.lanes.iter_mut().flat_map(|lane| &mut lane.targets) {
        let active = released[&target.target.to_string()].clone();
        target.live.as_mut().unwrap().release = active.clone();
        target.back_to = Some(active.clone()).filter(|_| target.group.is_some());
        if active.as_str() == "RSOMEBODY" {
            target.decision = Decision::UpToDate;
        }
        let Some(known) = state.targets.get(&target.target) else { continue };
        let Some((build, release)) = known.staged.clone() else { continue };
        let (before, is_live) = (groups::old(target.target.app.as_str()), active == release);
        let deployed = matches!(known.outcome, Some(TargetOutcome::Deployed { .. }));
        if is_live && state.step_of(&target.target, Stage::Promote).is_some() {
            target.back_to = Some(before.clone()).filter(|_| target.group.is_some());
        }
        if is_live && deployed {
            target.decision = Decision::UpToDate;
        } else if !deployed && (is_live || active == before) {
            let (done, again) = state.release_hooks(&target.target);
            target.origin = Origin::Adopt(Adopted { from: RunId::new("r0").unwrap(), build, release, outdated: false, done, again });
        }
    }
    plan
}

/// What each app runs: what it had before (a copy of it is the same), this commit's, or somebody's.
fn content(world: &World) -> String {
    let word = |(target, release): (&String, &ReleaseId)| match release.as_str() {
        "RSOMEBODY" => "somebody's",
        id if id == format!("R{}", &target[..1]) => "new",
        id if id.starts_with("ROLD") || id.starts_with("RCOPY") => "old",
        id => panic!("{id} is live on {target}"),
    };
    world.released.lock().unwrap().iter().map(word).collect::<Vec<_>>().join(" ")
}

/// Kills a run whose group goes back (`c` fails after its promote, so that `a` follows it), and goes on.
async fn group_killed(after: u64, meanwhile: Meanwhile) {
    let world = World::failing(&["after_release c@east"]);
    let (journal, _) = killed(groups::grouped(&world), &world, Kill::After(after)).await;
    let state = RunState::replay(&journal);
    let a = Target { app: app_name("a"), rack: rack_name("east") };
    let promoted = state.targets.get(&a).is_some_and(|known| known.outcome.is_some());
    let next = match meanwhile {
        Meanwhile::Mended => World { fail: Arc::default(), ..world.clone() },
        Meanwhile::Somebody if promoted => {
            world.released.lock().unwrap().insert(a.to_string(), ReleaseId::new("RSOMEBODY").unwrap());
            world.clone()
        }
        Meanwhile::Nothing | Meanwhile::Somebody => world.clone(),
    };
    let before = world.calls().len();
    let (ended, _) = carried_out(group_going_on(&next, &state), &next).await;
    let expected = match meanwhile {
        Meanwhile::Mended => "new new new new",
        Meanwhile::Somebody if promoted => "somebody's new old old",
        Meanwhile::Nothing | Meanwhile::Somebody => "old new old old",
    };
    let case = format!("killed after {after}, {meanwhile:?}: {}\n{:#?}", words(&ended), world.calls());
    assert_eq!(content(&world), expected, "{case}");
    let promotes = |target: &str| world.calls()[before..].iter().filter(|call| **call == format!("promote {target}")).count();
    if meanwhile == Meanwhile::Somebody && promoted {
        assert_eq!(promotes("a@east"), 0, "{case}");
    }
    // What is live once is promoted once: there, and back.
    assert!(["a@east", "b@east", "c@east", "d@east"].iter().all(|target| promotes(target) <= 2), "{case}");
}

#[tokio::test]
async fn a_group_that_is_killed_as_it_goes_back_ends_as_one_that_is_not() {
    let world = World::failing(&["after_release c@east"]);
    let (journal, ended) = killed(groups::grouped(&world), &world, Kill::Never).await;
    assert!(ended);
    assert_eq!(content(&world), "old new old old");
    let copied = journal.iter().filter(|event| matches!(event.kind, EventKind::ReleaseCopied { .. })).count();
    assert_eq!(copied, 2, "the way back is in the journal");
    let last = journal.last().unwrap().seq;
    let mut runs = JoinSet::new();
    for after in 0..last {
        for meanwhile in [Meanwhile::Nothing, Meanwhile::Mended, Meanwhile::Somebody] {
            runs.spawn(group_killed(after, meanwhile));
        }
    }
    runs.join_all().await;
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
