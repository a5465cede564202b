//! Groups that go back, and what is healed at the end.

use super::*;
use crate::plan::{PlannedLive, Trap};

const EAST: &[(&str, &[&str], &[(&str, &[&str])])] = &[("east", &[], &[("a", &[]), ("b", &[]), ("c", &[]), ("d", &[])])];

pub(super) fn old(app: &str) -> ReleaseId {
    ReleaseId::new(format!("ROLD{app}")).unwrap()
}

/// Four apps that ran before; all but `b` go back together.
pub(super) fn grouped(world: &World) -> Plan {
    let mut plan = plan(EAST);
    plan.options.on_failure = OnFailure::Continue;
    for target in plan.lanes.iter_mut().flat_map(|lane| &mut lane.targets) {
        let app = target.target.app.as_str();
        let manifest = String::new();
        target.live = Some(PlannedLive { release: old(app), commit: None, fingerprint: None, manifest, running: true });
        world.released.lock().unwrap().entry(target.target.to_string()).or_insert_with(|| old(app));
        target.back_to = Some(old(app)).filter(|_| app != "b");
        target.group = Some("checkout".to_owned()).filter(|_| app != "b");
    }
    plan
}

fn live(world: &World) -> Vec<String> {
    world.released.lock().unwrap().values().map(ToString::to_string).collect()
}

fn on_rack(world: &World) -> Vec<String> {
    let calls = world.calls().into_iter();
    calls.filter(|call| ["stage ", "copy ", "promote "].iter().any(|verb| call.starts_with(verb))).collect()
}

#[tokio::test]
async fn a_group_goes_back_in_reverse_order_when_one_fails_after_its_promote() {
    let world = World::failing(&["after_release c@east"]);
    let (ended, events) = carried_out(grouped(&world), &world).await;
    insta::assert_snapshot!(words(&ended), @"
    a@east rolled-back
    b@east deployed
    c@east failed(hook)
    d@east blocked(group checkout)
    ");
    assert_eq!(live(&world), ["RCOPYa", "Rb", "RCOPYc", "ROLDd"]);
    assert_eq!(on_rack(&world)[6..], ["copy c@east ROLDc", "promote c@east", "copy a@east ROLDa", "promote a@east"], "{:?}", world.calls());
    let told = events.iter().find_map(|event| match &event.kind {
        EventKind::TargetFinished { outcome: TargetOutcome::RolledBack { message, group }, .. } => Some((message.clone(), group.clone())),
        _ => None,
    });
    let (message, group) = told.unwrap();
    assert_eq!(group.as_deref(), Some("checkout"));
    assert_eq!(message, "went back with its group `checkout` since `c@east` failed: RCOPYa, a copy of ROLDa, is live");
}

#[tokio::test]
async fn what_the_rack_rolled_back_itself_is_left_and_the_others_go_back() {
    let world = World::failing(&["promote c@east"]);
    let (ended, _) = carried_out(grouped(&world), &world).await;
    assert_eq!(words(&ended), "a@east rolled-back\nb@east deployed\nc@east rolled-back\nd@east blocked(group checkout)");
    assert_eq!(live(&world), ["RCOPYa", "Rb", "ROLDc", "ROLDd"]);
    assert!(!world.calls().contains(&"copy c@east ROLDc".to_owned()));
}

#[tokio::test]
async fn a_failure_before_its_promote_takes_nothing_back() {
    for call in ["stage c@east", "before_release c@east"] {
        let world = World::failing(&[call]);
        let (ended, _) = carried_out(grouped(&world), &world).await;
        assert!(words(&ended).contains("a@east deployed") && words(&ended).contains("d@east deployed"), "{call}: {}", words(&ended));
    }
}

#[tokio::test]
async fn somebody_elses_release_is_not_taken_back() {
    let world = World::failing(&["after_release c@east", "overtaken a@east"]);
    let (ended, events) = carried_out(grouped(&world), &world).await;
    assert_eq!(words(&ended), "a@east failed(overtaken)\nb@east deployed\nc@east failed(hook)\nd@east blocked(group checkout)");
    assert_eq!(live(&world)[0], "RSOMEBODY");
    assert!(!world.calls().contains(&"copy a@east ROLDa".to_owned()));
    let told = |kind: &EventKind| matches!(kind, EventKind::StepFinished { step, outcome: StepOutcome::Failed { .. }, .. } if step.stage == Stage::GoBack);
    assert!(events.iter().any(|event| told(&event.kind)));
}

#[tokio::test]
async fn an_app_that_had_nothing_before_stays() {
    let world = World::failing(&["after_release c@east"]);
    let mut plan = grouped(&world);
    world.released.lock().unwrap().remove("a@east");
    (plan.lanes[0].targets[0].live, plan.lanes[0].targets[0].back_to) = (None, None);
    let (ended, _) = carried_out(plan, &world).await;
    assert!(words(&ended).starts_with("a@east deployed\n"), "{}", words(&ended));
    assert_eq!(live(&world), ["Ra", "Rb", "RCOPYc", "ROLDd"]);
}

#[tokio::test]
async fn the_first_signal_does_not_leave_half_a_group() {
    let world = World::failing(&["after_release c@east"]);
    let plan = grouped(&world);
    let (ports, (signal, signals)) = (world.ports(&plan), unbounded_channel());
    let (events, mut receiver) = Events::new(Redactor::default());
    tokio::spawn(async move {
        while let Some(event) = receiver.recv().await {
            if matches!(event.kind, EventKind::ReleaseCopied { .. }) {
                let _ = signal.send(Signal::Int);
            }
        }
    });
    // The second copy would be a second signal, so the group is of two.
    let mut plan = plan;
    plan.lanes[0].targets[2].back_to = None;
    let ended = run(Arc::new(plan), ports, &events, signals, None).await;
    assert_eq!(ended.signal, Some(Signal::Int));
    assert_eq!(live(&world), ["RCOPYa", "Rb", "Rc", "ROLDd"]);
    let a = Target { app: app_name("a"), rack: rack_name("east") };
    assert!(matches!(ended.targets[&a], TargetOutcome::RolledBack { group: Some(_), .. }));
}

#[tokio::test]
async fn what_an_earlier_run_promoted_goes_back_to_what_that_one_found() {
    let world = World::failing(&["after_release c@east"]);
    let mut plan = grouped(&world);
    // `a` is live already, and `back_to` knows what was before.
    world.released.lock().unwrap().insert("a@east".to_owned(), ReleaseId::new("Ra").unwrap());
    let target = &mut plan.lanes[0].targets[0];
    target.decision = Decision::UpToDate;
    target.live.as_mut().unwrap().release = ReleaseId::new("Ra").unwrap();
    let (ended, _) = carried_out(plan, &world).await;
    assert!(words(&ended).starts_with("a@east rolled-back\n"), "{}", words(&ended));
    assert_eq!(live(&world), ["RCOPYa", "Rb", "RCOPYc", "ROLDd"]);
}

#[tokio::test]
async fn what_was_left_behind_is_topped_when_asked_for() {
    let trap = || Some(Trap { release: ReleaseId::new("RLEFT").unwrap(), commit: None });
    for heal in [false, true] {
        let world = World::failing(&["trapped b@east"]);
        let mut plan = grouped(&world);
        plan.options.heal = heal;
        plan.lanes[0].targets[1].decision = Decision::UpToDate;
        plan.lanes[0].targets[1].trap = trap();
        let (ended, events) = carried_out(plan, &world).await;
        assert!(words(&ended).contains("b@east up-to-date"), "{}", words(&ended));
        let copied: Vec<&EventKind> =
            events.iter().map(|event| &event.kind).filter(|kind| matches!(kind, EventKind::ReleaseCopied { .. })).collect();
        assert_eq!(copied.len(), usize::from(heal), "{copied:?}");
        assert_eq!(world.calls().contains(&"copy b@east ROLDb".to_owned()), heal);
        assert_eq!(live(&world)[1], "ROLDb", "a copy is not promoted");
    }
}
