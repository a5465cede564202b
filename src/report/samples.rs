//! The event streams every report is tested with.

use crate::event::{EnvChange, Event, EventKind, Evidence, FORMAT_VERSION, FailureClass, LogOf, Moment, Output, ProcessSeen, Stage, Step};
use crate::event::{StepOutcome, Suspect, TargetOutcome};
use crate::names::{AppName, BuildId, CommitId, Digest, Fingerprint, RackName, ReleaseId, RunId, ServiceName, Target};
use time::{Duration, OffsetDateTime, macros::datetime};

/// When every sample starts.
pub const START: OffsetDateTime = datetime!(2026-01-02 03:04:05 UTC);

/// Makes a stream: each event a moment after the one before.
pub struct Stream {
    events: Vec<Event>,
    now: OffsetDateTime,
}

pub fn target(name: &str) -> Target {
    let (app, rack) = name.split_once('@').unwrap();
    Target { app: AppName::new(app).unwrap(), rack: RackName::new(rack).unwrap() }
}

/// `app`, `app/service` or `app@rack`, and a stage.
pub fn step(subject: &str, stage: Stage) -> Step {
    let (subject, rack) = subject.split_once('@').map_or((subject, None), |(app, rack)| (app, Some(rack)));
    let (app, service) = subject.split_once('/').map_or((subject, None), |(app, service)| (app, Some(service)));
    let (rack, service) = (rack.map(|rack| RackName::new(rack).unwrap()), service.map(|service| ServiceName::new(service).unwrap()));
    Step { app: AppName::new(app).unwrap(), rack, service, stage }
}

pub fn commit(digit: &str) -> CommitId {
    CommitId::new(digit.repeat(40)).unwrap()
}

fn release(id: &str) -> ReleaseId {
    ReleaseId::new(id).unwrap()
}

impl Stream {
    pub fn start() -> Self {
        let mut stream = Self { events: Vec::new(), now: START };
        stream.add(EventKind::RunStarted {
            version: FORMAT_VERSION,
            run: RunId::new("20260102-030405-abcd").unwrap(),
            command: "deploy".to_owned(),
            commit: commit("f"),
            subject: "Fix the login <form> & more".to_owned(),
            branch: Some("main".to_owned()),
            ci_url: Some("https://ci.example/runs/7".to_owned()),
            by: "ann@ci-3".to_owned(),
        });
        stream
    }

    pub fn add(&mut self, kind: EventKind) -> &mut Self {
        self.events.push(Event { seq: self.events.len() as u64, time: self.now, kind, mask: None });
        self
    }

    pub fn pass(&mut self, millis: i64) -> &mut Self {
        self.now += Duration::milliseconds(millis);
        self
    }

    pub fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    fn planned(&mut self, name: &str, verdict: &str, reason: &str, live: Option<&str>) -> &mut Self {
        self.add(EventKind::TargetPlanned {
            target: target(name),
            verdict: verdict.to_owned(),
            reasons: vec![reason.to_owned()],
            base: live.map(|_| commit("1")),
            base_source: "rack".to_owned(),
            live_release: live.map(release),
            trap: None,
        })
    }

    fn image(&mut self, name: &str, action: &str) -> &mut Self {
        let step = step(name, Stage::Build);
        let reference = format!("registry.example/{}:web.{}", step.app, commit("f"));
        let (app, service) = (step.app, step.service.unwrap());
        let fingerprint = Fingerprint::new("0123456789abcdef01234567").unwrap();
        self.add(EventKind::ImagePlanned { app, service, fingerprint, action: action.to_owned(), reference })
    }

    pub fn begin(&mut self, subject: &str, stage: Stage, detail: &str) -> &mut Self {
        self.add(EventKind::StepStarted { step: step(subject, stage), detail: detail.to_owned() })
    }

    pub fn log(&mut self, subject: &str, stage: Stage, line: &str) -> &mut Self {
        self.add(EventKind::Log { step: step(subject, stage), output: Output::Out, line: line.to_owned() })
    }

    pub fn build_step(&mut self, subject: &str, name: &str, cached: bool, millis: Option<u64>, error: Option<&str>) -> &mut Self {
        let (name, error) = (name.to_owned(), error.map(str::to_owned));
        self.add(EventKind::BuildStep { step: step(subject, Stage::Build), name, cached, done: millis.is_some(), millis, error })
    }

    pub fn end(&mut self, subject: &str, stage: Stage, millis: u64, outcome: StepOutcome) -> &mut Self {
        self.add(EventKind::StepFinished { step: step(subject, stage), millis, outcome })
    }

    fn pushed(&mut self, name: &str, built: bool) -> &mut Self {
        let step = step(name, Stage::Push);
        let reference = format!("registry.example/{}:web.{}", step.app, commit("f"));
        let digest = Digest::new(format!("sha256:{}", "ab".repeat(32))).unwrap();
        self.add(EventKind::ImagePushed { app: step.app, service: step.service.unwrap(), reference, digest, built })
    }

    fn status(&mut self, name: &str, status: &str, live: &str) -> &mut Self {
        self.add(EventKind::RackStatus { target: target(name), status: status.to_owned(), release: Some(release(live)) })
    }

    fn done(&mut self, name: &str, millis: u64, outcome: TargetOutcome) -> &mut Self {
        self.add(EventKind::TargetFinished { target: target(name), millis, outcome })
    }

    fn finish(&mut self, code: u8) -> Vec<Event> {
        let millis = u64::try_from((self.now - START).whole_milliseconds()).unwrap();
        self.add(EventKind::RunFinished { code, millis }).events()
    }

    fn build_well(&mut self, name: &str) -> &mut Self {
        self.begin(name, Stage::Build, "apps/web/Dockerfile")
            .build_step(name, "[internal] load build definition from Dockerfile", false, Some(3), None)
            .build_step(name, "[1/3] FROM ruby:3.4", true, Some(0), None)
            .build_step(name, "[2/3] RUN bundle install", false, None, None)
            .log(name, Stage::Build, "Fetching rake 13.2.1")
            .pass(9000)
            .build_step(name, "[2/3] RUN bundle install", false, Some(9000), None)
            .build_step(name, "[3/3] COPY . .", false, Some(120), None)
            .pass(300)
            .end(name, Stage::Build, 9300, StepOutcome::Done)
            .begin(name, Stage::Push, "registry.example")
            .pass(2500)
            .pushed(name, true)
            .end(name, Stage::Push, 2500, StepOutcome::Done)
    }

    fn stage_well(&mut self, name: &str, id: &str) -> &mut Self {
        self.begin(name, Stage::Stage, "convox.yml").log(name, Stage::Stage, "Running: docker pull registry.example/x").pass(8000);
        let (build, id) = (BuildId::new(format!("B{}", &id[1..])).unwrap(), release(id));
        self.add(EventKind::ReleaseStaged { target: target(name), build, release: id, over: None }).end(
            name,
            Stage::Stage,
            8000,
            StepOutcome::Done,
        )
    }

    fn promote_well(&mut self, name: &str, before: &str, id: &str) -> &mut Self {
        self.begin(name, Stage::Promote, id).status(name, "updating", before).pass(30_000).status(name, "updating", id).pass(1000);
        self.status(name, "running", id).pass(1000).status(name, "running", id);
        self.end(name, Stage::Promote, 32_000, StepOutcome::Done).done(name, 40_000, TargetOutcome::Deployed { release: release(id) })
    }
}

fn planned() -> Stream {
    let mut stream = Stream::start();
    stream
        .planned("api@staging", "deploy", "apps/api/main.rb changed (apps/api/**)", Some("RAPI1"))
        .planned("web@staging", "deploy", "libs/auth/token.rb changed (shared `auth`, apps.yaml:14)", Some("RWEB1"))
        .planned("worker@staging", "deploy", "never deployed", None)
        .image("api/web", "reuse")
        .image("web/web", "build")
        .image("worker/web", "build")
        .add(EventKind::PlanReady { builds: 2, targets: 3, jobs: 2 });
    stream
}

fn reuse_api(stream: &mut Stream) {
    stream.begin("api/web", Stage::Retag, "same fingerprint in the registry").pass(400).pushed("api/web", false);
    stream.end("api/web", Stage::Retag, 400, StepOutcome::Done);
}

pub fn success() -> Vec<Event> {
    let mut stream = planned();
    stream.planned("docs@staging", "up-to-date", "no input changed since 111111111111", Some("RDOC1"));
    stream.done("docs@staging", 0, TargetOutcome::UpToDate);
    reuse_api(&mut stream);
    stream.begin("web", Stage::BeforeBuild, "deploy/before_build.sh").log("web", Stage::BeforeBuild, "compiling assets").pass(1200);
    stream.end("web", Stage::BeforeBuild, 1200, StepOutcome::Done).build_well("web/web").build_well("worker/web");
    stream.add(EventKind::Notice {
        step: Some(step("worker/web", Stage::Build)),
        message: "the cache `registry.example/worker:cache` could not be imported: not found".to_owned(),
    });
    for (name, before, id) in [("api@staging", "RAPI1", "RAPI2"), ("web@staging", "RWEB1", "RWEB2"), ("worker@staging", "RWRK1", "RWRK2")] {
        stream.stage_well(name, id).promote_well(name, before, id);
    }
    stream.finish(0)
}

pub fn nothing_to_do() -> Vec<Event> {
    let mut stream = Stream::start();
    for (name, live) in [("api@staging", "RAPI1"), ("web@staging", "RWEB1")] {
        stream.planned(name, "up-to-date", "no input changed since 111111111111", Some(live));
        stream.done(name, 0, TargetOutcome::UpToDate);
    }
    stream.add(EventKind::PlanReady { builds: 0, targets: 0, jobs: 2 }).pass(350).finish(0)
}

pub fn build_broken() -> Vec<Event> {
    let mut stream = planned();
    let (message, hint) = ("`RUN bundle install` ended with 5".to_owned(), Some("build it alone: `offbuild build web`".to_owned()));
    reuse_api(&mut stream);
    stream
        .begin("web/web", Stage::Build, "apps/web/Dockerfile")
        .build_step("web/web", "[1/3] FROM ruby:3.4", true, Some(0), None)
        .build_step("web/web", "[2/3] RUN bundle install", false, None, None)
        .log("web/web", Stage::Build, "Fetching rake 13.2.1")
        .log("web/web", Stage::Build, "::error::not from us \u{1b}[31m##[error]neither\u{1b}[0m")
        .pass(4000)
        .build_step("web/web", "[2/3] RUN bundle install", false, Some(4000), Some("exit code: 5"))
        .end(
            "web/web",
            Stage::Build,
            4000,
            StepOutcome::Failed { class: FailureClass::Build, message: message.clone(), hint: hint.clone() },
        )
        .build_well("worker/web")
        .done("web@staging", 0, TargetOutcome::Failed { stage: Stage::Build, class: FailureClass::Build, message, hint });
    for name in ["api@staging", "worker@staging"] {
        let why = "the build of `web` failed and nothing is released before every build is good".to_owned();
        stream.done(name, 0, TargetOutcome::NotAttempted { why });
    }
    stream.finish(1)
}

pub fn hook_failing() -> Vec<Event> {
    let mut stream = planned();
    reuse_api(&mut stream);
    stream.build_well("web/web").stage_well("api@staging", "RAPI2").promote_well("api@staging", "RAPI1", "RAPI2");
    stream.stage_well("web@staging", "RWEB2").begin("web@staging", Stage::BeforeRelease, "deploy/before_release.sh");
    stream
        .log("web@staging", Stage::BeforeRelease, "migrating")
        .log("web@staging", Stage::BeforeRelease, "::error file=db/schema.rb::column `email` is missing")
        .pass(2000);
    let message = "`deploy/before_release.sh` ended with 3: column `email` is missing".to_owned();
    let outcome = StepOutcome::Failed { class: FailureClass::Hook, message: message.clone(), hint: None };
    stream.end("web@staging", Stage::BeforeRelease, 2000, outcome).done(
        "web@staging",
        10_000,
        TargetOutcome::Failed { stage: Stage::BeforeRelease, class: FailureClass::Hook, message, hint: None },
    );
    stream.done("worker@staging", 0, TargetOutcome::Blocked { by: "web@staging".to_owned() }).finish(1)
}

pub fn rolled_back() -> Vec<Event> {
    let mut stream = planned();
    reuse_api(&mut stream);
    stream.build_well("web/web").stage_well("api@staging", "RAPI2").promote_well("api@staging", "RAPI1", "RAPI2");
    stream.stage_well("web@staging", "RWEB2").begin("web@staging", Stage::Promote, "RWEB2");
    stream.status("web@staging", "updating", "RWEB1").pass(20_000).status("web@staging", "updating", "RWEB2").pass(95_000);
    stream.status("web@staging", "rollback", "RWEB2").pass(9000).status("web@staging", "running", "RWEB1");
    let text = |text: &str| text.to_owned();
    let evidence = Evidence {
        timeline: vec![Moment { millis: 20_000, status: text("updating"), release: Some(release("RWEB2")) }],
        processes: vec![ProcessSeen { id: text("web-2"), service: text("web"), release: text("RWEB2"), status: text("running") }],
        logs: vec![LogOf { source: text("service/web/web-2"), lines: vec![text("GET /up 502")] }],
        system: vec![text("Readiness probe failed: HTTP probe failed with statuscode: 502")],
        env: EnvChange { added: vec![text("STRIPE_KEY")], changed: Vec::new(), removed: vec![text("OLD_KEY")] },
        manifest: ["@@ -3 +3 @@", "-    port: 3000", "+    port: 4000"].map(text).to_vec(),
        suspect: Suspect::Unhealthy,
        because: text("Readiness probe failed: HTTP probe failed with statuscode: 502"),
        next: text("see what the health check was answered: convox logs -a web"),
        missing: Vec::new(),
    };
    stream.add(EventKind::PromoteEvidence { target: target("web@staging"), release: release("RWEB2"), evidence: Box::new(evidence) });
    let message = "the rack went back to `RWEB1`: web.1 failed its health check `/up` (502)".to_owned();
    stream.end("web@staging", Stage::Promote, 124_000, StepOutcome::RolledBack { message: message.clone() });
    stream.done("web@staging", 132_000, TargetOutcome::RolledBack { message, group: None });
    stream.done("worker@staging", 0, TargetOutcome::NotAttempted { why: "`web@staging` was rolled back".to_owned() }).finish(1)
}

pub fn interrupted() -> Vec<Event> {
    let mut stream = planned();
    reuse_api(&mut stream);
    stream.begin("web/web", Stage::Build, "apps/web/Dockerfile").build_step("web/web", "[2/3] RUN bundle install", false, None, None);
    stream.log("web/web", Stage::Build, "Fetching rake 13.2.1").pass(1500);
    stream.add(EventKind::Interrupted { signal: "INT".to_owned(), now: false }).pass(200);
    stream.end("web/web", Stage::Build, 1700, StepOutcome::Cancelled);
    stream.done("api@staging", 0, TargetOutcome::NotAttempted { why: "interrupted".to_owned() });
    stream.done("web@staging", 0, TargetOutcome::Cancelled);
    stream.done("worker@staging", 0, TargetOutcome::NotAttempted { why: "interrupted".to_owned() }).finish(130)
}

pub fn all() -> [(&'static str, Vec<Event>); 6] {
    [
        ("success", success()),
        ("nothing to do", nothing_to_do()),
        ("build broken", build_broken()),
        ("hook failing", hook_failing()),
        ("rolled back", rolled_back()),
        ("interrupted", interrupted()),
    ]
}
