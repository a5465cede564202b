//! From a release to what is live.

use super::*;

/// A rack that accepts the promote and then shows these.
fn promoting(rack: Script, looks: impl IntoIterator<Item = (&'static str, &'static str)>) -> Script {
    let looks: Vec<Reply> = looks.into_iter().map(|(status, release)| app(status, release)).collect();
    rack.on(PROMOTE, [Reply::Text(200, "ok\n")]).after(PROMOTE, APP, looks).on(
        "GET /apps/web/processes",
        [ok(json!([
            {"id": "web-2", "name": "web", "release": "RNEW", "status": "crash", "ports": null},
            {"id": "web-1", "name": "web", "release": "ROLD", "status": "running"}
        ]))],
    )
}

#[tokio::test]
async fn a_promote_is_live_when_ours_runs() {
    type Looks = &'static [(&'static str, &'static str)];
    let table: [(u8, Looks); 4] = [
        // Stale looks first, the old id until the end.
        (2, &[("running", "ROLD"), ("updating", "ROLD"), ("updating", "ROLD"), ("running", "RNEW")]),
        // The update was over between two looks; a rollback while ours is active is somebody else's.
        (2, &[("running", "RNEW"), ("rollback", "RNEW"), ("running", "RNEW")]),
        // The new id at once, the status a little later.
        (3, &[("running", "RNEW"), ("running", "RNEW"), ("updating", "RNEW"), ("running", "RNEW")]),
        (3, &[("running", "RNEW")]),
    ];
    for (version, looks) in table {
        let rack = if version == 2 { v2() } else { v3() };
        let server = promoting(rack, looks.iter().copied()).serve().await;
        assert_eq!(promote(&server).await.0.unwrap(), Promoted::Live, "{looks:?}");
        assert_eq!(server.changes(), [PROMOTE]);
        // Version 3 is told to give up early enough for its rollback to be seen.
        let timeout = server.only(PROMOTE).form().remove("timeout");
        assert_eq!(timeout.as_deref(), (version == 3).then_some("45"));
    }
}

#[tokio::test]
async fn a_version_3_promote_is_not_live_before_the_roll_has_begun() {
    let looks = [("running", "RNEW"), ("running", "RNEW"), ("updating", "RNEW"), ("rollback", "RNEW"), ("running", "ROLD")];
    let server = promoting(v3(), looks).serve().await;
    assert!(matches!(promote(&server).await.0.unwrap(), Promoted::RolledBack { .. }));
}

#[tokio::test]
async fn a_rollback_is_told_with_its_evidence() {
    type Row<'a> = (fn() -> Script, &'static [(&'static str, &'static str)], &'a [&'a str]);
    let table: [Row; 3] = [
        (
            v2,
            &[("updating", "ROLD"), ("rollback", "ROLD"), ("running", "ROLD")],
            &["status: updating ROLD", "status: rollback ROLD", "status: running ROLD"],
        ),
        (
            v3,
            &[("updating", "RNEW"), ("rollback", "RNEW"), ("rollback", "ROLD"), ("running", "ROLD")],
            &["status: updating RNEW", "status: rollback RNEW", "status: rollback ROLD", "status: running ROLD"],
        ),
        // The status of the rollback fell between two looks.
        (v2, &[("updating", "ROLD"), ("running", "ROLD")], &["status: updating ROLD", "status: running ROLD"]),
    ];
    for (rack, looks, expected) in table {
        let log = vec![Message::Text(b"2026 service/web/1 boom\n2026 system/ecs stopping\n"), Message::End];
        let server = promoting(rack(), looks.iter().copied()).on("WS /apps/web/logs", [Reply::Socket(log)]).serve().await;
        let (promoted, told) = promote(&server).await;
        let Promoted::RolledBack { active } = promoted.unwrap() else { panic!("{looks:?}") };
        assert_eq!(active.unwrap().as_str(), "ROLD");
        let statuses: Vec<_> = told.iter().filter(|line| line.starts_with("status: ")).collect();
        assert_eq!(statuses, expected);
        assert!(told.contains(&"2026 system/ecs stopping".to_owned()), "{told:?}");
        assert!(!told.contains(&"2026 service/web/1 boom".to_owned()), "{told:?}");
        let evidence = evidence(&told);
        let processes: Vec<&str> = evidence.processes.iter().map(|seen| seen.id.as_str()).collect();
        assert_eq!(processes, ["web-2", "web-1"], "those of the new release first");
        assert_eq!(evidence.logs, [LogOf { source: "service/web/1".to_owned(), lines: vec!["boom".to_owned()] }]);
        assert_eq!(evidence.system, ["stopping"]);
        assert_eq!((evidence.timeline.len(), evidence.missing.len()), (looks.len(), 0), "{evidence:?}");
        assert_eq!(server.changes(), [PROMOTE]);
    }
}

#[tokio::test]
async fn evidence_is_bounded_and_says_what_it_lacks() {
    let mut log: Vec<Message> =
        (0..400).map(|_| Message::Text(format!("2026 service/web/web-2 {}\n", "x".repeat(9000)).into_bytes().leak())).collect();
    log.push(Message::Text(b"2019-01-01T00:00:00Z service/web/web-2 of another time\n"));
    log.push(Message::Text(b"2026 service/web/web-1 not of this release\n2026 service/web/web-2 the last line\n"));
    log.push(Message::End);
    let looks = [("updating", "ROLD"), ("rollback", "ROLD"), ("running", "ROLD")];
    let server = promoting(v2(), looks).on("WS /apps/web/logs", [Reply::Socket(log)]).serve().await;
    let (promoted, told) = promote(&server).await;
    assert!(matches!(promoted.unwrap(), Promoted::RolledBack { .. }));
    let found = evidence(&told);
    assert!(serde_json::to_string(&found).unwrap().len() < 256 << 10);
    assert_eq!(found.logs.len(), 1, "only those of the new release");
    assert_eq!(found.logs[0].lines.last().map(String::as_str), Some("the last line"));
    assert!(!found.logs[0].lines.contains(&"of another time".to_owned()));

    // A part that cannot be read hides neither the others nor how the promote ended.
    let no_log = Reply::Socket(vec![Message::Text(b"ERROR: invalid authentication\n"), Message::End]);
    let refusal = Reply::Text(500, "required env: STRIPE_KEY\n");
    let script = v2().on(PROMOTE, [refusal]).on("GET /apps/web/processes", [Reply::Text(403, "no\n")]).on("WS /apps/web/logs", [no_log]);
    let (promoted, told) = promote(&script.serve().await).await;
    assert!(promoted.unwrap_err().to_string().contains("required env: STRIPE_KEY"));
    let found = evidence(&told);
    assert_eq!(found.suspect, Suspect::MissingEnv);
    assert_eq!(found.missing, ["the processes: no", "the log: ERROR: invalid authentication"]);
    assert!(found.next.starts_with("set it: convox env set STRIPE_KEY=VALUE -a web"), "{}", found.next);
}

#[tokio::test]
async fn a_later_release_of_somebody_else_is_no_rollback() {
    let looks = [("updating", "ROLD"), ("updating", "RNEW"), ("running", "RLATER")];
    let script = promoting(v2(), looks).on("GET /apps/web/releases/RLATER", [ok(release("RLATER", "BLATER", "", 9))]);
    let later = ReleaseId::new("RLATER").unwrap();
    assert_eq!(promote(&script.serve().await).await.0.unwrap(), Promoted::Overtaken { active: later });

    let refusal = Reply::Json(400, json!({"error": "can not promote an older release, try rollback"}));
    let script = v3().on(PROMOTE, [refusal]).on(APP, [app("running", "RLATER")]);
    assert!(matches!(promote(&script.serve().await).await.0.unwrap(), Promoted::Overtaken { .. }));
}

#[tokio::test]
async fn what_became_active_while_the_promote_waited_is_not_promoted_over() {
    let refusal = Reply::Text(403, "app is currently updating\n");
    let theirs = || [app("updating", "ROLD"), app("updating", "ROLD"), app("running", "RTHEIRS")];
    for script in [v2().on(APP, theirs()), v2().on(PROMOTE, [refusal, Reply::Text(200, "ok\n")]).after(PROMOTE, APP, theirs())] {
        let server = script.serve().await;
        let active = ReleaseId::new("RTHEIRS").unwrap();
        assert_eq!(promote(&server).await.0.unwrap(), Promoted::Overtaken { active });
        // Refused once at most, and never sent again.
        assert!(server.changes().len() <= 1);
    }
}

#[tokio::test]
async fn a_promote_waits_for_somebody_elses_update() {
    let refusal = Reply::Text(403, "app is currently updating\n");
    let table = [
        (
            "before it is sent",
            v2().on(APP, [app("updating", "ROLD"), app("updating", "ROLD"), app("running", "ROLD")]),
            vec![Reply::Text(200, "ok\n")],
            1,
        ),
        ("when it is refused", v2(), vec![refusal, Reply::Text(200, "ok\n")], 2),
        (
            "when CloudFormation refuses it",
            v2(),
            vec![
                Reply::Text(500, "ValidationError: Stack:arn is in UPDATE_IN_PROGRESS state and can not be updated.\n\tstatus code: 400\n"),
                Reply::Text(200, "ok\n"),
            ],
            2,
        ),
    ];
    for (case, script, replies, sent) in table {
        let looks = [app("running", "ROLD"), app("updating", "ROLD"), app("running", "RNEW")];
        let server = script.on(PROMOTE, replies).after(PROMOTE, APP, looks).serve().await;
        assert_eq!(promote(&server).await.0.unwrap(), Promoted::Live, "{case}");
        assert_eq!(server.changes().len(), sent, "{case}");
    }
}

#[tokio::test]
async fn an_app_that_stays_in_another_update_is_told() {
    let server = v2().on(APP, [app("updating", "ROLD")]).serve().await;
    let (progress, _receiver) = progress(Stage::Promote);
    let release = ReleaseId::new("RNEW").unwrap();
    let limit = Duration::from_millis(60);
    let error = client(&server).promote("web", &release, over().as_ref(), limit, &progress, &CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.to_string(), "app `web` on rack `prod` is updating: another deploy or update is under way");
    assert!(server.changes().is_empty());
}

#[tokio::test]
async fn a_lost_answer_to_a_promote_is_looked_after_before_it_is_sent_again() {
    let took = [app("running", "ROLD"), app("updating", "ROLD"), app("running", "RNEW")];
    let server = v2().on(PROMOTE, [Reply::Cut]).after(PROMOTE, APP, took).serve().await;
    assert_eq!(promote(&server).await.0.unwrap(), Promoted::Live);
    assert_eq!(server.changes(), [PROMOTE]);

    // Version 3 shows our id as soon as it has taken it: that it is another one later is its going back, however short that was.
    let mut went_back = vec![app("running", "RNEW"), app("updating", "RNEW")];
    went_back.extend(vec![app("running", "ROLD"); 40]);
    let server = v3().on(PROMOTE, [Reply::Text(504, ""), Reply::Text(200, "ok\n")]).after(PROMOTE, APP, went_back).serve().await;
    assert!(matches!(promote(&server).await.0.unwrap(), Promoted::RolledBack { .. }));
    assert_eq!(server.changes(), [PROMOTE]);

    // It did not take: nothing moves, so it is sent again.
    let mut quiet = vec![app("running", "ROLD"); 8];
    quiet.extend([app("updating", "ROLD"), app("running", "RNEW")]);
    let server = v2().on(PROMOTE, [Reply::Text(502, ""), Reply::Text(200, "ok\n")]).after(PROMOTE, APP, quiet).serve().await;
    assert_eq!(promote(&server).await.0.unwrap(), Promoted::Live);
    assert_eq!(server.changes(), [PROMOTE, PROMOTE]);
}

#[tokio::test]
async fn a_rack_that_stumbles_while_a_promote_is_under_way_is_looked_at_on() {
    for stumble in [Reply::Text(500, "RequestError: send request failed\n"), Reply::Text(503, ""), Reply::Cut] {
        let looks = [app("updating", "ROLD")].into_iter().chain(vec![stumble; 8]).chain([app("running", "RNEW")]);
        let server = v2().on(PROMOTE, [Reply::Text(200, "ok\n")]).after(PROMOTE, APP, looks).serve().await;
        let (ended, notices) = promote(&server).await;
        assert_eq!(ended.unwrap(), Promoted::Live);
        assert!(notices.iter().any(|line| line.contains("; looking on until the rack says")), "{notices:?}");
    }
    // What no waiting cures is the end of it.
    let server = v2().on(PROMOTE, [Reply::Text(200, "ok\n")]).after(PROMOTE, APP, [Reply::Text(401, "")]).serve().await;
    let error = promote(&server).await.0.unwrap_err();
    assert!(matches!(&error, RackError::Unknown { message, .. } if message.contains("refused the login")), "{error}");
}

#[tokio::test]
async fn a_promote_that_is_live_already_is_not_an_error() {
    // The rack refuses to update what is up to date: ours became live between two looks.
    let refusal = Reply::Text(500, "ValidationError: No updates are to be performed.\n\tstatus code: 400, request id: 1\n");
    let server = v2().on(PROMOTE, [refusal]).after(PROMOTE, APP, [app("running", "RNEW")]).serve().await;
    assert_eq!(promote(&server).await.0.unwrap(), Promoted::Live);

    let server = v2().on(APP, [app("running", "RNEW")]).serve().await;
    assert_eq!(promote(&server).await.0.unwrap(), Promoted::Live);
    assert!(server.changes().is_empty());
}

#[tokio::test]
async fn a_refused_promote_says_why() {
    let table = [
        (
            Reply::Text(500, "yaml: line 3: mapping values\n"),
            "rack `prod` refused the promote of release `RNEW` of app `web`: yaml: line 3: mapping values",
        ),
        (
            Reply::Json(409, json!({"error": "budget cap exceeded for app web"})),
            "rack `prod` refused the promote of release `RNEW` of app `web`: budget cap exceeded for app web",
        ),
    ];
    for (reply, expected) in table {
        let server = v3().on(PROMOTE, [reply]).serve().await;
        assert_eq!(promote(&server).await.0.unwrap_err().to_string(), expected);
        assert_eq!(server.changes(), [PROMOTE]);
    }
}

#[tokio::test]
async fn an_app_that_breaks_is_not_said_to_have_gone_back() {
    for active in ["ROLD", "RNEW"] {
        let server = promoting(v2(), [("updating", "ROLD"), ("rollback", "ROLD"), ("failed", active)]).serve().await;
        let (promoted, told) = promote(&server).await;
        let expected = "rack `prod` refused the promote of release `RNEW` of app `web`: the app is `failed`; bring it to `running` first \
                        (`convox apps info -a web --rack prod`)";
        assert_eq!(promoted.unwrap_err().to_string(), expected);
        assert!(!evidence(&told).timeline.is_empty());
        assert_eq!(server.changes(), [PROMOTE]);
    }
}

#[tokio::test]
async fn a_promote_that_does_not_end_says_what_is_live() {
    let server = promoting(v2(), [("updating", "ROLD")]).serve().await;
    let (progress, _receiver) = progress(Stage::Promote);
    let release = ReleaseId::new("RNEW").unwrap();
    let limit = Duration::from_millis(300);
    let error = client(&server).promote("web", &release, over().as_ref(), limit, &progress, &CancellationToken::new()).await.unwrap_err();
    assert!(matches!(error, RackError::Timeout { outcome_unknown: true, .. }), "{error:?}");
    assert!(error.to_string().contains("it is `updating`, active release `ROLD`"), "{error}");
}

#[tokio::test]
async fn a_cancelled_run_changes_nothing_more() {
    let (progress, _receiver) = progress(Stage::Promote);
    let cancel = CancellationToken::new();
    cancel.cancel();
    let server = building(build("complete", "RNEW")).serve().await;
    let release = ReleaseId::new("RNEW").unwrap();
    let promoted = client(&server).promote("web", &release, over().as_ref(), Duration::from_secs(60), &progress, &cancel).await;
    assert!(matches!(promoted, Err(RackError::Cancelled)));
    let staged = client(&server).stage(&request(Deliver::Build), &Mover::default(), &progress, &cancel).await;
    assert!(matches!(staged, Err(RackError::Cancelled)));
    assert!(server.changes().is_empty());
}

#[tokio::test]
async fn a_promote_under_way_is_awaited_although_the_run_is_cancelled() {
    let cancel = CancellationToken::new();
    let server = promoting(v2(), [("updating", "ROLD"), ("updating", "ROLD"), ("updating", "ROLD"), ("running", "RNEW")]).serve().await;
    let (progress, mut receiver) = progress(Stage::Promote);
    let release = ReleaseId::new("RNEW").unwrap();
    let client = client(&server);
    let over = over();
    let promoting = client.promote("web", &release, over.as_ref(), Duration::from_secs(60), &progress, &cancel);
    let cancelling = async {
        // The first status is told after the promote was sent.
        receiver.recv().await;
        cancel.cancel();
    };
    let (promoted, ()) = tokio::join!(promoting, cancelling);
    assert_eq!(promoted.unwrap(), Promoted::Live);
}
