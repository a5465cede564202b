//! Every kind of event, written, read, redacted and streamed.

use super::*;
use crate::names::RackName;
use crate::secret::{Redactor, Secret};

fn step(stage: Stage) -> Step {
    Step { app: AppName::new("web").unwrap(), rack: Some(RackName::new("staging").unwrap()), service: None, stage }
}

/// Evidence with a text everywhere.
fn evidence(text: fn() -> String) -> Evidence {
    Evidence {
        timeline: vec![Moment { millis: 7, status: text(), release: None }],
        processes: vec![ProcessSeen { id: text(), service: text(), release: text(), status: text() }],
        logs: vec![LogOf { source: text(), lines: vec![text()] }],
        system: vec![text()],
        env: EnvChange { added: vec![text()], changed: vec![text()], removed: vec![text()] },
        manifest: vec![text()],
        suspect: Suspect::CrashLoop,
        because: text(),
        next: text(),
        missing: vec![text()],
    }
}

/// One of every kind, and of every outcome.
fn every_kind() -> Vec<EventKind> {
    let target = Target { app: AppName::new("web").unwrap(), rack: RackName::new("org/prod").unwrap() };
    let commit = CommitId::new("a".repeat(40)).unwrap();
    let (release, build) = (ReleaseId::new("RABC").unwrap(), BuildId::new("BABC").unwrap());
    let text: fn() -> String = || "a \"text\"\n\u{1b}[1m".to_owned();
    let mut kinds = vec![
        EventKind::RunStarted {
            version: FORMAT_VERSION,
            run: RunId::new("20260102-030405-abcd").unwrap(),
            command: "deploy".to_owned(),
            commit: commit.clone(),
            subject: text(),
            branch: None,
            ci_url: Some(text()),
            by: "ann@host".to_owned(),
        },
        EventKind::TargetPlanned {
            target: target.clone(),
            verdict: "deploy".to_owned(),
            reasons: vec![text()],
            base: Some(commit.clone()),
            base_source: "rack".to_owned(),
            live_release: Some(release.clone()),
            trap: Some(release.clone()),
        },
        EventKind::ReleaseCopied { target: target.clone(), of: release.clone(), release: release.clone(), group: Some("g".to_owned()) },
        EventKind::PromoteEvidence { target: target.clone(), release: release.clone(), evidence: Box::new(evidence(text)) },
        EventKind::ImagePlanned {
            app: target.app.clone(),
            service: ServiceName::new("web").unwrap(),
            fingerprint: Fingerprint::new("0".repeat(24)).unwrap(),
            action: "build".to_owned(),
            reference: text(),
        },
        EventKind::PlanReady { builds: 1, targets: 2, jobs: 3 },
        EventKind::StepStarted { step: step(Stage::Build), detail: text() },
        EventKind::Log { step: step(Stage::BeforeBuild), output: Output::Err, line: text() },
        EventKind::BuildStep {
            step: step(Stage::Build),
            name: text(),
            cached: true,
            done: true,
            millis: Some(u64::MAX),
            error: Some(text()),
        },
        EventKind::Transfer { step: step(Stage::Push), current: 1, total: None },
        EventKind::Notice { step: None, message: text() },
        EventKind::Notice { step: Some(step(Stage::Retag)), message: text() },
        EventKind::ImagePushed {
            app: target.app.clone(),
            service: ServiceName::new("web").unwrap(),
            reference: text(),
            digest: Digest::new(format!("sha256:{}", "1".repeat(64))).unwrap(),
            built: true,
        },
        EventKind::ReleaseStaged { target: target.clone(), build: build.clone(), release: release.clone(), over: Some(release.clone()) },
        EventKind::ReleaseAdopted {
            target: target.clone(),
            build,
            release: release.clone(),
            from: RunId::new("r0").unwrap(),
            done: vec![Stage::BeforeRelease],
            again: vec![Stage::AfterRelease],
        },
        EventKind::RackStatus { target: target.clone(), status: text(), release: None },
        EventKind::Interrupted { signal: "INT".to_owned(), now: false },
        EventKind::RunFinished { code: 130, millis: 7 },
    ];
    let failed = StepOutcome::Failed { class: FailureClass::HookTimeout, message: text(), hint: Some(text()) };
    for outcome in [StepOutcome::Done, failed, StepOutcome::RolledBack { message: text() }, StepOutcome::Cancelled] {
        kinds.push(EventKind::StepFinished { step: step(Stage::Promote), millis: 1, outcome });
    }
    for outcome in [
        TargetOutcome::Deployed { release: release.clone() },
        TargetOutcome::Staged { release },
        TargetOutcome::UpToDate,
        TargetOutcome::Failed { stage: Stage::OnFailure, class: FailureClass::Guard, message: text(), hint: None },
        TargetOutcome::RolledBack { message: text(), group: None },
        TargetOutcome::RolledBack { message: text(), group: Some("g".to_owned()) },
        TargetOutcome::Blocked { by: text() },
        TargetOutcome::Held { from: None },
        TargetOutcome::Stale { live: commit },
        TargetOutcome::Cancelled,
        TargetOutcome::NotAttempted { why: text() },
    ] {
        kinds.push(EventKind::TargetFinished { target: target.clone(), millis: 1, outcome });
    }
    kinds
}

#[test]
fn every_event_comes_back_from_json_as_it_was() {
    for (seq, kind) in (0..).zip(every_kind()) {
        let event = Event { seq, time: time::macros::datetime!(2026-01-02 03:04:05.123 UTC), kind, mask: None };
        let line = serde_json::to_string(&event).unwrap();
        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event, "{line}");
    }
}

#[test]
fn every_event_is_as_its_schema_says_and_what_is_not_is_refused() {
    let schema = validating::Validator::new(schema());
    let line = |kind: EventKind| {
        let event = Event { seq: 7, time: time::macros::datetime!(2026-01-02 03:04:05.123 UTC), kind, mask: None };
        serde_json::to_value(event).unwrap()
    };
    for kind in every_kind() {
        let mut line = line(kind);
        assert_eq!(schema.refuses(&line), None, "{line}");
        // Whatever is always written is required, and no other type will do.
        let optional = ["hint", "group", "trap", "outcome"];
        let names: Vec<String> = line.as_object().unwrap().keys().filter(|name| !optional.contains(&name.as_str())).cloned().collect();
        for name in names {
            let kept = line[&name].take();
            let required = !kept.is_null();
            line[&name] = serde_json::json!({"neither": ["text", "nor number"]});
            assert!(schema.refuses(&line).is_some() || !required || kept.is_object(), "`{name}` of {line}");
            line[&name] = kept;
        }
    }
    let mut unknown = line(EventKind::PlanReady { builds: 1, targets: 1, jobs: 1 });
    unknown["event"] = "plan-unready".into();
    assert!(schema.refuses(&unknown).is_some());
    let mut without = line(EventKind::PlanReady { builds: 1, targets: 1, jobs: 1 });
    without.as_object_mut().unwrap().shift_remove("jobs");
    assert!(schema.refuses(&without).is_some());
    let mut outcome = line(EventKind::StepFinished { step: step(Stage::Push), millis: 1, outcome: StepOutcome::Done });
    outcome["outcome"] = "undone".into();
    assert!(schema.refuses(&outcome).is_some());
}

#[test]
fn what_older_journals_lack_has_a_default() {
    let line = r#"{"seq":0,"time":"2026-01-02T03:04:05Z","event":"run-started","version":1,"run":"r1","command":"deploy",
        "commit":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","subject":"s","branch":null,"ci_url":null}"#;
    assert!(serde_json::from_str::<Event>(line).is_ok());
}

#[test]
fn no_text_of_any_event_escapes_the_redactor() {
    let (events, mut receiver) = Events::new(Redactor::default());
    events.redactor().register(&Secret::new("a \"text\""));
    every_kind().into_iter().for_each(|kind| events.send(kind));
    while let Some(event) = receiver.try_recv() {
        // References are made of checked names, so a secret cannot be in one.
        if !matches!(event.kind, EventKind::ImagePlanned { .. } | EventKind::ImagePushed { .. }) {
            assert!(!serde_json::to_string(&event).unwrap().contains("text"), "{event:?}");
        }
    }
}

#[test]
fn a_value_a_hook_masks_is_masked_from_then_on_and_handed_to_the_runner_only() {
    let (events, mut receiver) = Events::new(Redactor::default());
    let log = |line: &str| events.progress(step(Stage::BeforeBuild)).log(Output::Out, line);
    log("::add-mask::hunter%25two");
    log("it is hunter%two");
    let first = receiver.try_recv().unwrap();
    assert_eq!(first.mask.as_ref().map(Secret::expose), Some("hunter%25two"));
    assert!(!serde_json::to_string(&first).unwrap().contains("hunter"));
    assert!(matches!(receiver.try_recv().unwrap().kind, EventKind::Log { line, .. } if line == "it is ***"));
}

#[tokio::test]
async fn record_waits_for_the_journal_and_for_nobody_else() {
    let (events, receiver) = Events::new(Redactor::default());
    let kind = || EventKind::Notice { step: None, message: String::new() };
    events.record(kind()).await; // no journal: at once, even with an undrained receiver
    let acks = events.acks();
    acks.through(0);
    let waiting = tokio::spawn({
        let events = events.clone();
        async move { events.record(kind()).await }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    acks.through(1);
    waiting.await.unwrap();
    let waiting = tokio::spawn(async move { events.record(kind()).await });
    tokio::task::yield_now().await;
    drop((acks, receiver)); // the consumer is gone
    waiting.await.unwrap();
}

#[test]
fn lines_nobody_takes_are_left_out_and_counted_and_nothing_else_is() {
    let (events, mut receiver) = Events::new(Redactor::default());
    let progress = events.progress(step(Stage::BeforeBuild));
    // Twice what may wait.
    for _ in 0..2048 {
        progress.log(Output::Out, "x".repeat(64 << 10));
    }
    progress.notice("kept");
    let mut batch = Vec::new();
    while let Some(event) = receiver.try_recv() {
        batch.push(event);
    }
    let lines = batch.iter().filter(|event| matches!(event.kind, EventKind::Log { .. })).count();
    assert!((1000..=1030).contains(&lines), "{lines}");
    assert!(batch.iter().enumerate().all(|(at, event)| event.seq == at as u64));
    let told: Vec<String> = batch[lines..]
        .iter()
        .map(|event| match &event.kind {
            EventKind::Notice { message, .. } => message.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(told, [format!("{} lines of output left out: the reports did not keep up", 2048 - lines), "kept".to_owned()]);
    // What was taken makes room.
    progress.log(Output::Out, "more");
    assert!(matches!(receiver.try_recv().unwrap().kind, EventKind::Log { line, .. } if line == "more"));
}

#[tokio::test]
async fn who_can_wait_waits_for_reports_that_go_on_and_for_no_others() {
    let (events, mut receiver) = Events::new(Redactor::default());
    let progress = events.progress(step(Stage::BeforeBuild));
    progress.keep_up().await;
    let much = || (0..200).for_each(|_| progress.log(Output::Out, "x".repeat(64 << 10)));
    much();
    let waiting = tokio::spawn({
        let progress = progress.clone();
        async move { progress.keep_up().await }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    while receiver.try_recv().is_some() {}
    waiting.await.unwrap();
    much();
    drop(receiver); // nobody will take anything
    progress.keep_up().await;
}

#[test]
fn a_value_folded_over_lines_is_masked_per_output() {
    let (events, mut receiver) = Events::new(Redactor::default());
    events.redactor().register(&Secret::new("correct-horse-battery-staple"));
    let progress = events.progress(step(Stage::BeforeBuild));
    let mut lines = progress.lines();
    // The other output comes in between.
    for piece in ["it: correct-ho", "rse-bat\n  tery-staple end\n", "corr\n"] {
        lines.push(piece.as_bytes(), &mut |line| {
            progress.log(Output::Out, line);
            progress.log(Output::Err, "error output");
        });
    }
    let mut told = Vec::new();
    while let Some(event) = receiver.try_recv() {
        if let EventKind::Log { output: Output::Out, line, .. } = event.kind {
            told.push(line);
        }
    }
    assert_eq!(told, ["it: ***", "  *** end", "corr"]);
}
