//! The convox client against scripted racks on loopback sockets.

mod server;

use offbuild::config::RackConfig;
use offbuild::event::{Event, EventKind, Events, Progress, Stage, Step};
use offbuild::names::{AppName, CommitId, Digest, RackName, ReleaseId, Repository, ServiceName};
use offbuild::rack::convox::Convox;
use offbuild::rack::login::RackLogin;
use offbuild::rack::{AppStatus, Deliver, ImageMover, Promoted, Rack as _, RackError, RackRead as _, StageRequest, StagedImage};
use offbuild::registry::Login;
use offbuild::secret::{Redactor, Secret};
use serde_json::{Value, json};
use server::{Message, Reply, Script, Server};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;

const SHA: &str = "0123456789abcdef0123456789abcdef01234567";
const PASSWORD: &str = "pass/word+1";
const PROMOTE: &str = "POST /apps/web/releases/RNEW/promote";
const APP: &str = "GET /apps/web";

fn rack_name() -> RackName {
    RackName::new("prod").unwrap()
}

fn config(ca_file: Option<PathBuf>) -> RackConfig {
    RackConfig {
        name: rack_name(),
        place: offbuild::yaml::Place { file: "apps.yaml".to_owned(), line: 1, column: 1 },
        host: None,
        password: None,
        after: Vec::new(),
        protected: false,
        registry_cache: false,
        deliver: Deliver::Auto,
        env: "prod".to_owned(),
        ca_file,
    }
}

fn login(scheme: &str, host: &str) -> RackLogin {
    RackLogin {
        url: format!("{scheme}://{host}").parse().unwrap(),
        user: "convox".to_owned(),
        password: Secret::new(PASSWORD),
        relayed: None,
        source: "the test".to_owned(),
    }
}

fn client(server: &Server) -> Convox {
    Convox::new(&config(None), login("http", &server.host), Duration::from_millis(20)).unwrap()
}

fn progress(stage: Stage) -> (Progress, UnboundedReceiver<Event>) {
    let (events, receiver) = Events::new(Redactor::default());
    (events.progress(Step { app: AppName::new("web").unwrap(), rack: Some(rack_name()), service: None, stage }), receiver)
}

/// What was told, one line each.
fn told(mut receiver: UnboundedReceiver<Event>) -> Vec<String> {
    let mut lines = Vec::new();
    while let Ok(event) = receiver.try_recv() {
        lines.push(match event.kind {
            EventKind::Log { line, .. } => line,
            EventKind::Notice { message, .. } => format!("notice: {message}"),
            EventKind::RackStatus { status, release, .. } => format!("status: {status} {}", release.map_or("-".to_owned(), String::from)),
            other => format!("{other:?}"),
        });
    }
    lines
}

fn ok(value: Value) -> Reply {
    Reply::Json(200, value)
}

fn app(status: &str, release: &str) -> Reply {
    ok(json!({"name": "web", "generation": "2", "status": status, "release": release, "parameters": {}, "locked": false}))
}

fn release(id: &str, build: &str, env: &str, minute: u8) -> Value {
    json!({"id": id, "app": "web", "build": build, "env": env, "description": "", "manifest": "",
           "created": format!("2026-11-22T20:{minute:02}:00.5Z")})
}

fn build(status: &str, release: &str) -> Value {
    json!({"id": "BNEW", "app": "web", "status": status, "release": release, "git-sha": SHA, "description": "deploy [tok-1]",
           "manifest": "services: {}\n", "logs": "", "reason": "", "started": "0001-01-01T00:00:00Z", "ended": "0001-01-01T00:00:00Z"})
}

fn rack(version: &str) -> Script {
    Script::default()
        .on("GET /system", [ok(json!({"name": "rack1", "version": version, "status": "running", "rack-domain": "", "outputs": {}}))])
        .on(APP, [app("running", "ROLD")])
        .on("GET /apps/web/releases/ROLD", [ok(release("ROLD", "BOLD", "A=1\nREVISION=old", 1))])
        .on("GET /apps/web/releases/RNEW", [ok(release("RNEW", "BNEW", "A=1\nREVISION=old", 5))])
        .on("GET /apps/web/releases", [ok(json!([release("RNEW", "BNEW", "", 5), release("ROLD", "BOLD", "", 1)]))])
}

fn v2() -> Script {
    rack("20260421192651")
}

fn v3() -> Script {
    rack("3.24.9")
}

fn request(deliver: Deliver) -> StageRequest {
    StageRequest {
        app: "web".to_owned(),
        manifest_name: "convox.yml".to_owned(),
        manifest: "services:\n  web:\n    image: r.example/web@sha256:1\n".to_owned(),
        images: vec![StagedImage {
            service: ServiceName::new("web").unwrap(),
            repository: Repository::parse("r.example/web").unwrap(),
            digest: Digest::new(format!("sha256:{}", "1".repeat(64))).unwrap(),
        }],
        commit: CommitId::new(SHA).unwrap(),
        description: "deploy [tok-1]".to_owned(),
        token: "tok-1".to_owned(),
        revision: None,
        deliver,
        login: Some(Login { user: "AWS".to_owned(), password: Secret::new("ecr-token") }),
        timeout: Duration::from_secs(60),
    }
}

/// Takes every push, or refuses it.
#[derive(Default)]
struct Mover {
    refuse: bool,
    pushed: Mutex<Vec<String>>,
}

#[async_trait::async_trait]
impl ImageMover for Mover {
    async fn push_to(&self, image: &StagedImage, to: &Repository, tag: &str, login: &Login) -> Result<(), String> {
        let line = format!("{} -> {to}:{tag} as {}:{}", image.repository, login.user, login.password.expose());
        self.pushed.lock().unwrap().push(line);
        if self.refuse { Err("denied".to_owned()) } else { Ok(()) }
    }
}

async fn stage(server: &Server, request: &StageRequest) -> (Result<String, RackError>, Vec<String>) {
    let (progress, receiver) = progress(Stage::Stage);
    let staged = client(server).stage(request, &Mover::default(), &progress, &CancellationToken::new()).await;
    (staged.map(|staged| format!("{} {} {:?}", staged.build, staged.release, staged.deliver)), told(receiver))
}

async fn promote(server: &Server) -> (Result<Promoted, RackError>, Vec<String>) {
    let (progress, receiver) = progress(Stage::Promote);
    let release = ReleaseId::new("RNEW").unwrap();
    let promoted = client(server).promote("web", &release, Duration::from_secs(60), &progress, &CancellationToken::new()).await;
    (promoted, told(receiver))
}

/// A version 2 rack that takes an upload and builds it; the build ends as given.
fn building(end: Value) -> Script {
    v2().on("POST /apps/web/objects/tmp/*", [ok(json!({"Url": "object://web/tmp/x.tgz"}))])
        .on("POST /apps/web/builds", [ok(build("created", ""))])
        .on("GET /apps/web/builds/BNEW", [ok(build("created", "")), ok(build("running", "")), ok(end)])
        .on(
            "WS /apps/web/builds/BNEW/logs",
            [Reply::Socket(vec![Message::Text(b"Pulling gr\xc3"), Message::Text(b"\xbcn\nPushed"), Message::End])],
        )
}

#[tokio::test]
async fn version_2_builds_from_the_manifest_and_one_release_carries_build_and_revision() {
    let script = building(build("complete", "RNEW")).on("POST /apps/web/releases", [ok(release("RREV", "BNEW", "", 6))]);
    let server = script.serve().await;
    let request = StageRequest { revision: Some(SHA.to_owned()), ..request(Deliver::Auto) };
    let (staged, told) = stage(&server, &request).await;
    assert_eq!(staged.unwrap(), "BNEW RREV Build");
    assert_eq!(
        told,
        ["notice: rack `prod` (version 20260421192651) builds from the manifest and pulls the images", "Pulling grün", "Pushed"]
    );
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
        let Promoted::RolledBack { active, evidence } = promoted.unwrap() else { panic!("{looks:?}") };
        assert_eq!(active.unwrap().as_str(), "ROLD");
        let statuses: Vec<_> = told.iter().filter(|line| line.starts_with("status: ")).collect();
        assert_eq!(statuses, expected);
        assert!(told.contains(&"2026 system/ecs stopping".to_owned()), "{told:?}");
        assert!(!told.contains(&"2026 service/web/1 boom".to_owned()), "{told:?}");
        let evidence = evidence.join("\n");
        assert!(evidence.contains("process web-2 of service web, release RNEW: crash\nprocess web-1"), "{evidence}");
        assert!(evidence.contains("log 2026 service/web/1 boom"), "{evidence}");
        assert_eq!(server.changes(), [PROMOTE]);
    }
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
async fn a_promote_waits_for_somebody_elses_update() {
    let refusal = Reply::Text(403, "app is currently updating\n");
    let table = [
        ("before it is sent", v2().on(APP, [app("updating", "ROLD"), app("running", "ROLD")]), vec![Reply::Text(200, "ok\n")], 1),
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
    let error = client(&server).promote("web", &release, limit, &progress, &CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.to_string(), "app `web` on rack `prod` is updating: another deploy or update is under way");
    assert!(server.changes().is_empty());
}

#[tokio::test]
async fn a_lost_answer_to_a_promote_is_looked_after_before_it_is_sent_again() {
    let took = [app("running", "ROLD"), app("updating", "ROLD"), app("running", "RNEW")];
    let server = v2().on(PROMOTE, [Reply::Cut]).after(PROMOTE, APP, took).serve().await;
    assert_eq!(promote(&server).await.0.unwrap(), Promoted::Live);
    assert_eq!(server.changes(), [PROMOTE]);

    // It did not take: nothing moves, so it is sent again.
    let mut quiet = vec![app("running", "ROLD"); 8];
    quiet.extend([app("updating", "ROLD"), app("running", "RNEW")]);
    let server = v2().on(PROMOTE, [Reply::Text(502, ""), Reply::Text(200, "ok\n")]).after(PROMOTE, APP, quiet).serve().await;
    assert_eq!(promote(&server).await.0.unwrap(), Promoted::Live);
    assert_eq!(server.changes(), [PROMOTE, PROMOTE]);
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
async fn a_promote_that_does_not_end_says_what_is_live() {
    let server = promoting(v2(), [("updating", "ROLD")]).serve().await;
    let (progress, _receiver) = progress(Stage::Promote);
    let release = ReleaseId::new("RNEW").unwrap();
    let limit = Duration::from_millis(300);
    let error = client(&server).promote("web", &release, limit, &progress, &CancellationToken::new()).await.unwrap_err();
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
    let promoted = client(&server).promote("web", &release, Duration::from_secs(60), &progress, &cancel).await;
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
    let promoting = client.promote("web", &release, Duration::from_secs(60), &progress, &cancel);
    let cancelling = async {
        // The first status is told after the promote was sent.
        receiver.recv().await;
        cancel.cancel();
    };
    let (promoted, ()) = tokio::join!(promoting, cancelling);
    assert_eq!(promoted.unwrap(), Promoted::Live);
}

#[tokio::test]
async fn what_is_live_is_walked_from_app_to_commit() {
    let mut old = build("complete", "ROLD");
    old["id"] = json!("BOLD");
    let server =
        v3().on("GET /apps/web/builds/BOLD", [ok(old)]).on("GET /apps/web/builds/BNEW", [ok(build("complete", "RNEW"))]).serve().await;
    let live = client(&server).live("web").await.unwrap();
    assert_eq!(server.only("GET /apps/web/releases").query, "limit=20");
    assert_eq!((live.status, live.generation), (AppStatus::Running, 2));
    let active = live.release.unwrap();
    assert_eq!((active.id.as_str(), active.revision.as_deref(), active.created.minute()), ("ROLD", Some("old"), 1));
    assert_eq!(active.build.unwrap().commit.unwrap().as_str(), SHA);
    let newer = live.newer.unwrap();
    assert_eq!((newer.id.as_str(), newer.build_description.as_str()), ("RNEW", "deploy [tok-1]"));
}

#[tokio::test]
async fn what_a_rack_has_deleted_is_no_error() {
    let gone = |what: &'static str| Reply::Json(500, json!({"error": what}));
    let server = v3()
        .on("GET /apps/web/releases/ROLD", [gone("releases.convox.com \"rold\" not found")])
        .on("GET /apps/web/builds/BNEW", [gone("builds.convox.com \"bnew\" not found")])
        .serve()
        .await;
    let live = client(&server).live("web").await.unwrap();
    let active = live.release.unwrap();
    assert_eq!((active.id.as_str(), active.build), ("ROLD", None));
    assert_eq!(live.newer.unwrap().commit, None);

    let server = v2().on(APP, [app("running", "")]).on("GET /apps/web/releases", [ok(json!([]))]).serve().await;
    let live = client(&server).live("web").await.unwrap();
    assert_eq!((live.release, live.newer), (None, None));
}

#[tokio::test]
async fn errors_are_told_apart() {
    let live = async |script: Script| client(&script.serve().await).live("web").await.map(|_| ()).map_err(|error| error.to_string());
    let refused = v2().on(APP, [Reply::Text(401, "invalid authentication\n")]);
    let expected = "rack `prod` refused the login: invalid authentication (user `convox`, host `";
    assert!(live(refused).await.unwrap_err().starts_with(expected));
    let none = v3().on(APP, [Reply::Json(404, json!({"error": "app not found: web"}))]);
    assert_eq!(live(none).await.unwrap_err(), "app `web` does not exist on rack `prod`");
    let unknown = live(v2().on(APP, [Reply::Text(404, "")])).await.unwrap_err();
    assert!(unknown.contains("does not know the call for app `web`"), "{unknown}");
    let flaky = |replies: Vec<Reply>| {
        v2().on(APP, replies)
            .on("GET /apps/web/builds/BOLD", [ok(build("complete", "ROLD"))])
            .on("GET /apps/web/builds/BNEW", [ok(build("complete", "RNEW"))])
    };
    let mut once = vec![Reply::Text(500, "Throttling: Rate exceeded"), Reply::Text(503, "<html>"), Reply::Cut];
    once.push(app("running", "ROLD"));
    assert_eq!(live(flaky(once)).await, Ok(()));
    let gone = live(flaky(vec![Reply::Text(503, "<html>")])).await.unwrap_err();
    assert!(gone.starts_with("rack `prod` cannot be reached: app `web`: status 503"), "{gone}");
}

#[tokio::test]
async fn a_rack_is_known_by_its_answer() {
    let info = async |script: Script| client(&script.serve().await).info().await;
    assert_eq!(info(v2()).await.unwrap().major, 2);
    assert_eq!(info(v3()).await.unwrap().major, 3);
    let apps = |generation: &str| [ok(json!([{"name": "web", "generation": generation, "status": "running", "release": ""}]))];
    assert_eq!(info(rack("dev").on("GET /apps", apps("3"))).await.unwrap().major, 3);
    assert_eq!(info(rack("dev").on("GET /apps", apps("2"))).await.unwrap().major, 2);
    for script in [rack("20170101000000"), Script::default(), Script::default().on("GET /system", [Reply::Text(200, "<html>")])] {
        let error = info(script).await.unwrap_err();
        assert!(matches!(error, RackError::Unsupported { .. }), "{error}");
    }
    let nobody = Convox::new(&config(None), login("http", "127.0.0.1:1"), Duration::from_millis(5)).unwrap();
    assert!(matches!(nobody.info().await.unwrap_err(), RackError::Unreachable { .. }));
}

#[tokio::test]
async fn a_rollback_is_a_new_release_with_the_old_build_and_env() {
    let server = v3().on("POST /apps/web/releases", [ok(release("RBACK", "BOLD", "", 9))]).serve().await;
    let id = client(&server).roll_back_to("web", &ReleaseId::new("ROLD").unwrap(), &CancellationToken::new()).await.unwrap();
    assert_eq!(id.as_str(), "RBACK");
    let form = server.only("POST /apps/web/releases").form();
    assert_eq!((form["build"].as_str(), form["env"].as_str()), ("BOLD", "A=1\nREVISION=old"));
}

/// A key and a certificate that signed itself, for `name`, in a directory that ends with the value.
fn self_signed(name: &str) -> (tempfile::TempDir, PathBuf, rustls::ServerConfig) {
    use rustls::pki_types::pem::PemObject as _;
    let dir = tempfile::tempdir().unwrap();
    let (key, cert) = (dir.path().join("key.pem"), dir.path().join("cert.pem"));
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", &format!("/CN={name}"), "-addext", &format!("subjectAltName=DNS:{name}"), "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let chain = vec![rustls::pki_types::CertificateDer::from_pem_file(&cert).unwrap()];
    let key = rustls::pki_types::PrivateKeyDer::from_pem_file(&key).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    (dir, cert, builder.with_no_client_auth().with_single_cert(chain, key).unwrap())
}

#[tokio::test]
async fn a_certificate_of_its_own_is_refused_until_it_is_known() {
    let (_dir, cert, tls) = self_signed("rack.internal");
    let (_other_dir, other, _) = self_signed("rack.internal");
    let log = vec![Message::Text(b"over tls\n"), Message::End];
    let script = building(build("complete", "RNEW")).on("WS /apps/web/builds/BNEW/logs", [Reply::Socket(log)]);
    let server = script.serve_tls(tls).await;
    for ca_file in [None, Some(other)] {
        let stranger = Convox::new(&config(ca_file), login("https", &server.host), Duration::from_millis(20)).unwrap();
        let error = stranger.info().await.unwrap_err();
        let RackError::Unreachable { hint: Some(hint), .. } = &error else { panic!("{error:?}") };
        assert!(hint.contains("racks.prod.ca_file"), "{hint}");
    }
    assert!(server.seen().is_empty(), "nothing is sent to a rack that is not known");
    let friend = Convox::new(&config(Some(cert)), login("https", &server.host), Duration::from_millis(20)).unwrap();
    let (progress, receiver) = progress(Stage::Stage);
    let staged = friend.stage(&request(Deliver::Build), &Mover::default(), &progress, &CancellationToken::new()).await;
    assert_eq!(staged.unwrap().release.as_str(), "RNEW");
    assert_eq!(told(receiver), ["over tls"]);
    let missing = Convox::new(&config(Some("/nowhere/ca.pem".into())), login("https", &server.host), Duration::from_millis(20));
    assert!(missing.err().unwrap().to_string().contains("/nowhere/ca.pem"));
}
