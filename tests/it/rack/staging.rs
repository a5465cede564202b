//! From a manifest to a release.

use super::*;

#[tokio::test]
async fn version_2_builds_from_the_manifest_and_one_release_carries_build_and_revision() {
    let script = building(build("complete", "RNEW")).on("POST /apps/web/releases", [ok(release("RREV", "BNEW", "", 6))]);
    let server = script.serve().await;
    let request = StageRequest { revision: Some(SHA.to_owned()), ..request(Deliver::Auto) };
    let (staged, told) = stage(&server, &request).await;
    assert_eq!(staged.unwrap(), "BNEW RREV Build");
    assert_eq!(told, ["rack `prod` (version 20260421192651) builds from the manifest and pulls the images", "Pulling grün", "Pushed"]);
    assert_eq!(server.changes(), ["POST /apps/web/objects/tmp/*", "POST /apps/web/builds", "POST /apps/web/releases"]);
    let form = server.only("POST /apps/web/builds").form();
    insta::assert_snapshot!(format!("{form:?}"), @r#"{"description": "deploy [tok-1]", "git-sha": "0123456789abcdef0123456789abcdef01234567", "manifest": "convox.yml", "url": "object://web/tmp/x.tgz"}"#);
    let form = server.only("POST /apps/web/releases").form();
    insta::assert_snapshot!(format!("{form:?}"), @r#"{"build": "BNEW", "description": "deploy [tok-1]", "env": "A=1\nREVISION=0123456789abcdef0123456789abcdef01234567"}"#);
    let upload = server.only("POST /apps/web/objects/tmp/*");
    assert_eq!(upload.headers["content-type"], "application/octet-stream");
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(upload.body.as_slice()));
    let names: Vec<_> = archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().into_owned()).collect();
    assert_eq!(names, [PathBuf::from("convox.yml")]);
    let socket = server.seen().into_iter().find(|seen| seen.route.starts_with("WS ")).unwrap();
    assert!(!socket.headers.contains_key("origin"), "{:?}", socket.headers);
    assert_eq!(socket.headers["authorization"], "Basic Y29udm94OnBhc3Mvd29yZCsx", "the password is sent decoded");
}

#[tokio::test]
async fn no_second_release_is_made_when_revision_is_right_already() {
    let server = building(build("complete", "RNEW")).serve().await;
    let request = StageRequest { revision: Some("old".to_owned()), ..request(Deliver::Build) };
    assert_eq!(stage(&server, &request).await.0.unwrap(), "BNEW RNEW Build");
    assert_eq!(server.changes(), ["POST /apps/web/objects/tmp/*", "POST /apps/web/builds"]);
}

#[tokio::test]
async fn a_failed_build_says_its_cause() {
    let stored = "Pulling grün\nPushed\nERROR: parse manifest: required env: DB\n";
    let mut end = build("failed", "");
    end["logs"] = json!("object://web/build/BNEW/logs");
    let server = building(end).on("GET /apps/web/objects/build/BNEW/logs", [Reply::Text(200, stored)]).serve().await;
    let (staged, told) = stage(&server, &request(Deliver::Build)).await;
    assert_eq!(staged.unwrap_err().to_string(), "the build on rack `prod` failed: parse manifest: required env: DB");
    assert_eq!(told, ["Pulling grün", "Pushed", "ERROR: parse manifest: required env: DB"]);
}

#[tokio::test]
async fn log_streams_do_not_decide() {
    let table: [(Vec<Message>, &[&str]); 4] = [
        (vec![Message::Text(b"one\n"), Message::Silence], &["one"]),
        (vec![Message::Text(b"one\n"), Message::Close], &["one"]),
        (
            vec![Message::Text(b"ERROR: unable to read logs for build: BNEW\n"), Message::End],
            &["notice: rack `prod` has no log of build `BNEW`"],
        ),
        (vec![Message::Text(b"\xff\n"), Message::End], &["\u{fffd}"]),
    ];
    for (messages, expected) in table {
        let script = building(build("complete", "RNEW")).on("WS /apps/web/builds/BNEW/logs", [Reply::Socket(messages)]);
        let server = script.serve().await;
        let (staged, told) = stage(&server, &request(Deliver::Build)).await;
        assert_eq!(staged.unwrap(), "BNEW RNEW Build");
        assert_eq!(told, expected);
    }
}

#[tokio::test]
async fn a_lost_answer_to_a_build_is_found_in_the_list() {
    let mut other = build("running", "");
    other["id"] = json!("BOTHER");
    other["description"] = json!("deploy [tok-2]");
    let script = building(build("complete", "RNEW"))
        .on("POST /apps/web/builds", [Reply::Cut])
        .on("GET /apps/web/builds", [ok(json!([other.clone()])), ok(json!([other, build("running", "")]))]);
    let server = script.serve().await;
    assert_eq!(stage(&server, &request(Deliver::Build)).await.0.unwrap(), "BNEW RNEW Build");
    server.only("POST /apps/web/builds");
}

#[tokio::test]
async fn a_build_that_was_never_begun_is_sent_again() {
    let script = building(build("complete", "RNEW"))
        .on("POST /apps/web/builds", [Reply::Text(504, "<html>gateway</html>"), ok(build("created", ""))])
        .on("GET /apps/web/builds", [ok(json!([]))]);
    let server = script.serve().await;
    assert_eq!(stage(&server, &request(Deliver::Build)).await.0.unwrap(), "BNEW RNEW Build");
}

#[tokio::test]
async fn a_build_that_does_not_end_runs_out_of_time() {
    let server = building(build("running", "")).serve().await;
    let request = StageRequest { timeout: Duration::from_millis(200), ..request(Deliver::Build) };
    let error = stage(&server, &request).await.0.unwrap_err();
    assert!(matches!(error, RackError::Timeout { outcome_unknown: true, .. }), "{error}");
}

#[tokio::test]
async fn version_3_copies_the_images_with_a_short_lived_token() {
    let script = v3()
        .on("POST /apps/web/builds", [ok(build("created", ""))])
        .on("PUT /apps/web/builds/BNEW", [ok(build("created", ""))])
        .on(
            "POST /apps/web/builds/BNEW/image",
            [Reply::Json(409, json!({"error": "rack at concurrent-import cap (4 in flight); wait and retry"})), Reply::Text(202, "")],
        )
        .on("GET /apps/web/builds/BNEW", [ok(build("running", "")), ok(build("complete", ""))])
        .on("POST /apps/web/releases", [ok(release("RNEW", "BNEW", "", 5))]);
    let server = script.serve().await;
    let request = StageRequest { revision: Some(SHA.to_owned()), ..request(Deliver::Auto) };
    assert_eq!(stage(&server, &request).await.0.unwrap(), "BNEW RNEW Import");
    assert_eq!(
        server.changes(),
        [
            "POST /apps/web/builds",
            "PUT /apps/web/builds/BNEW",
            "POST /apps/web/builds/BNEW/image",
            "POST /apps/web/builds/BNEW/image",
            "POST /apps/web/releases",
            "PUT /apps/web/builds/BNEW"
        ]
    );
    let changes: Vec<_> = server.seen().into_iter().filter(|seen| seen.route.starts_with('P')).collect();
    assert_eq!(changes[0].form()["external"], "true");
    assert_eq!(changes[1].form()["manifest"], request.manifest);
    let import = changes[3].form();
    assert_eq!(import["image"], format!("r.example/web@sha256:{}", "1".repeat(64)));
    assert_eq!((import["src-creds-user"].as_str(), import["src-creds-pass"].as_str()), ("AWS", "ecr-token"));
    let release = changes[4].form();
    assert_eq!((release["env"].as_str(), release["parent-release"].as_str()), (format!("A=1\nREVISION={SHA}").as_str(), "RNEW"));
    assert_eq!(changes[5].form()["release"], "RNEW");
    assert!(!changes[5].form().contains_key("status"), "an imported build is complete by itself");
}

#[tokio::test]
async fn a_failed_import_says_the_racks_reason() {
    let mut failed = build("failed", "");
    failed["reason"] = json!("skopeo: manifest unknown");
    let script = v3()
        .on("POST /apps/web/builds", [ok(build("created", ""))])
        .on("PUT /apps/web/builds/BNEW", [ok(build("created", ""))])
        .on("POST /apps/web/builds/BNEW/image", [Reply::Text(202, "")])
        .on("GET /apps/web/builds/BNEW", [ok(failed)]);
    let server = script.serve().await;
    let error = stage(&server, &request(Deliver::Import)).await.0.unwrap_err();
    assert_eq!(error.to_string(), "the build on rack `prod` failed: skopeo: manifest unknown");
}

#[tokio::test]
async fn an_import_whose_record_is_gone_is_given_up_and_one_that_was_missed_once_is_not() {
    let gone = || Reply::Json(500, json!({"error": "builds.convox.com \"bnew\" not found"}));
    let looks: [(Vec<Reply>, Result<&str, &str>); 2] = [
        (
            vec![ok(build("running", "")), gone(), gone(), ok(build("running", "")), gone(), ok(build("complete", ""))],
            Ok("BNEW RNEW Import"),
        ),
        (vec![ok(build("running", "")), gone()], Err("the rack has its build `BNEW` no more")),
    ];
    for (looks, expected) in looks {
        let script = v3()
            .on("POST /apps/web/builds", [ok(build("created", ""))])
            .on("PUT /apps/web/builds/BNEW", [ok(build("created", ""))])
            .on("POST /apps/web/builds/BNEW/image", [Reply::Text(202, "")])
            .on("GET /apps/web/builds/BNEW", looks)
            .on("POST /apps/web/releases", [ok(release("RNEW", "BNEW", "", 5))]);
        let server = script.serve().await;
        match (stage(&server, &request(Deliver::Import)).await.0, expected) {
            (Ok(staged), Ok(expected)) => assert_eq!(staged, expected),
            (Err(error), Err(expected)) => assert!(error.to_string().ends_with(expected), "{error}"),
            (ended, expected) => panic!("{ended:?}, and not {expected:?}"),
        }
    }
}

/// A version 3 rack that says where to push.
fn pushable() -> Script {
    let mut created = build("created", "");
    created["repository"] = json!("https://convox:pass%2Fword+1@api.rack.example/rack1/web");
    v3().on("POST /apps/web/builds", [ok(created)])
        .on("PUT /apps/web/builds/BNEW", [ok(build("created", ""))])
        .on("POST /apps/web/releases", [ok(release("RNEW", "BNEW", "", 5))])
}

#[tokio::test]
async fn version_3_is_pushed_the_images() {
    let server = pushable().serve().await;
    let mover = Mover::default();
    let (progress, receiver) = progress(Stage::Stage);
    let staged = client(&server).stage(&request(Deliver::External), &mover, &progress, &CancellationToken::new()).await.unwrap();
    assert_eq!(staged.release.as_str(), "RNEW");
    assert_eq!(*mover.pushed.lock().unwrap(), ["r.example/web -> api.rack.example/rack1/web:web.BNEW as convox:pass/word+1"]);
    let form = server.seen().into_iter().rfind(|seen| seen.route == "PUT /apps/web/builds/BNEW").unwrap().form();
    assert_eq!((form["release"].as_str(), form["status"].as_str()), ("RNEW", "complete"));
    assert!(!server.only("POST /apps/web/releases").form().contains_key("env"), "the env is copied by the rack");
    let told = told(receiver).join("\n");
    assert!(told.contains("as api.rack.example/rack1/web:web.BNEW") && !told.contains("word+1"), "{told}");
}

#[tokio::test]
async fn a_refused_push_marks_the_build_failed() {
    let server = pushable().serve().await;
    let mover = Mover { refuse: true, ..Mover::default() };
    let (progress, _receiver) = progress(Stage::Stage);
    let error = client(&server).stage(&request(Deliver::External), &mover, &progress, &CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.to_string(), "pushing `web` into the registry of rack `prod` failed: denied");
    let form = server.seen().into_iter().rfind(|seen| seen.route == "PUT /apps/web/builds/BNEW").unwrap().form();
    assert_eq!(form["status"], "failed");
}

#[tokio::test]
async fn a_lost_answer_to_an_external_build_makes_a_new_record() {
    // Only the answer says where to push, so the record that was made is of no use.
    let mut created = build("created", "");
    created["repository"] = json!("https://convox:pw@api.rack.example/rack1/web");
    let script =
        pushable().on("POST /apps/web/builds", [Reply::Cut, ok(created)]).on("GET /apps/web/builds", [ok(json!([build("created", "")]))]);
    let server = script.serve().await;
    assert_eq!(stage(&server, &request(Deliver::External)).await.0.unwrap(), "BNEW RNEW External");
    let first = server.seen().into_iter().find(|seen| seen.route == "PUT /apps/web/builds/BNEW").unwrap().form();
    assert_eq!(first["status"], "failed");
}

#[tokio::test]
async fn an_image_that_nobody_would_push_stops_an_external_build() {
    let server = pushable().serve().await;
    let manifest = "services:\n  web:\n    image: r.example/web@sha256:1\n  cache:\n    image: redis\n".to_owned();
    let error = stage(&server, &StageRequest { manifest, ..request(Deliver::External) }).await.0.unwrap_err();
    assert!(matches!(&error, RackError::Push { service, .. } if service.as_str() == "cache"), "{error}");
    assert!(server.changes().is_empty());
}

#[tokio::test]
async fn a_lost_answer_to_a_release_is_found_in_the_list() {
    let mut made = release("RREV", "BNEW", "", 6);
    made["description"] = json!("deploy [tok-1]");
    let old = || ok(json!([release("RNEW", "BNEW", "", 5), release("ROLD", "BOLD", "", 1)]));
    let script = building(build("complete", "RNEW")).on("POST /apps/web/releases", [Reply::Cut]).after(
        "POST /apps/web/releases",
        "GET /apps/web/releases",
        [old(), ok(json!([made, release("RNEW", "BNEW", "", 5)]))],
    );
    let server = script.serve().await;
    let request = StageRequest { revision: Some(SHA.to_owned()), ..request(Deliver::Build) };
    assert_eq!(stage(&server, &request).await.0.unwrap(), "BNEW RREV Build");
    server.only("POST /apps/web/releases");
}

#[tokio::test]
async fn version_2_is_never_sent_an_external_build() {
    for deliver in [Deliver::External, Deliver::Import] {
        let server = v2().serve().await;
        let error = stage(&server, &request(deliver)).await.0.unwrap_err();
        assert!(matches!(&error, RackError::Unsupported { message, .. } if message.contains("use `deliver: build`")), "{error}");
        assert!(server.changes().is_empty());
    }
}

#[tokio::test]
async fn a_log_of_lines_without_end_is_shown_in_pieces() {
    const PIECE: &[u8] = &[b'x'; 60_000];
    let mut messages = vec![Message::Text(PIECE); 200];
    messages.extend([Message::Text(b"\nthe end\n"), Message::End]);
    let script = building(build("complete", "RNEW")).on("WS /apps/web/builds/BNEW/logs", [Reply::Socket(messages)]);
    let server = script.serve().await;
    let (staged, told) = stage(&server, &request(Deliver::Build)).await;
    assert_eq!(staged.unwrap(), "BNEW RNEW Build");
    assert_eq!(told.last().unwrap(), "the end");
    let pieces: Vec<usize> = told.iter().filter(|line| line.starts_with('x')).map(String::len).collect();
    assert_eq!(pieces.iter().sum::<usize>(), 200 * PIECE.len());
    assert!(pieces.iter().all(|length| *length <= 16 << 10), "{:?}", pieces.iter().max());
}
