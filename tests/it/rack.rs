//! The convox client against scripted racks on loopback sockets.

mod promoting;
mod reading;
mod server;
mod staging;

use offbuild::config::RackConfig;
use offbuild::event::{EventKind, Events, Evidence, LogOf, Progress, Received, Stage, Step, Suspect};
use offbuild::names::{AppName, CommitId, Digest, RackName, ReleaseId, Repository, ServiceName};
use offbuild::rack::convox::Convox;
use offbuild::rack::login::RackLogin;
use offbuild::rack::{AppStatus, Copying, Deliver, ImageMover, Promoted, Rack as _, RackError, RackRead as _, StageRequest, StagedImage};
use offbuild::registry::Login;
use offbuild::secret::{Redactor, Secret};
use serde_json::{Value, json};
use server::{Message, Reply, Script, Server};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;
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
        poll: Duration::from_millis(20),
        answer: Duration::from_secs(60),
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

fn progress(stage: Stage) -> (Progress, Received) {
    let (events, receiver) = Events::new(Redactor::default());
    (events.progress(Step { app: AppName::new("web").unwrap(), rack: Some(rack_name()), service: None, stage }), receiver)
}

/// What was told, one line each.
fn told(mut receiver: Received) -> Vec<String> {
    let mut lines = Vec::new();
    while let Some(event) = receiver.try_recv() {
        lines.push(match event.kind {
            EventKind::Log { line, .. } => line,
            EventKind::Notice { message, .. } => format!("notice: {message}"),
            EventKind::RackStatus { status, release, .. } => format!("status: {status} {}", release.map_or("-".to_owned(), String::from)),
            EventKind::PromoteEvidence { evidence, .. } => format!("evidence: {}", serde_json::to_string(&evidence).unwrap()),
            other => format!("{other:?}"),
        });
    }
    lines
}

/// The evidence among what was told.
fn evidence(told: &[String]) -> Evidence {
    let line = told.iter().find_map(|line| line.strip_prefix("evidence: "));
    serde_json::from_str(line.unwrap_or_else(|| panic!("no evidence in {told:?}"))).unwrap()
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

/// The release that is active before each promote.
fn over() -> Option<ReleaseId> {
    ReleaseId::new("ROLD").ok()
}

async fn promote(server: &Server) -> (Result<Promoted, RackError>, Vec<String>) {
    let (progress, receiver) = progress(Stage::Promote);
    let release = ReleaseId::new("RNEW").unwrap();
    let promoted =
        client(server).promote("web", &release, over().as_ref(), Duration::from_secs(60), &progress, &CancellationToken::new()).await;
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
