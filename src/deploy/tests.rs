//! The loop, the lanes and the image phase against fakes that record their calls and fail when told to.

use super::*;
use crate::build::{BuildError, EngineInfo, ImageBuild};
use crate::changes::{CommitInfo, Head};
use crate::config::{HookConfig, HookKind, TargetConfig, Timeouts};
use crate::event::{EnvChange, Event, Progress};
use crate::hooks::{HookCommand, HookError};
use crate::manifest::{Manifest, Service};
use crate::names::*;
use crate::plan::{AppPlan, BuildPlan, Decision, Gate, ImageAction, ImagePlan, LanePlan, OnFailure, Options, Origin, TargetPlan};
use crate::rack::{
    AppStatus, Copying, Deliver, ImageMover, Live, LiveBuild, LiveRelease, NewerRelease, Promoted, RackError, RackInfo, RackRead,
    StageRequest, Staged,
};
use crate::registry::{CreateOptions, Login, RegistryError};
use crate::secret::{Redactor, Secret};
use crate::yaml::{Document, Place};
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;
use time::OffsetDateTime;
use tokio::sync::mpsc::unbounded_channel;

mod groups;
mod kills;
mod two;

type Log = Arc<Mutex<Vec<String>>>;

/// What the fakes do wrong: names of calls, as they appear in the log.
#[derive(Clone, Default)]
struct World {
    calls: Log,
    fail: Arc<BTreeSet<String>>,
    /// Builds running now, and the most there were.
    running: Arc<Mutex<(usize, usize)>>,
    pushed: Arc<Mutex<BTreeMap<String, Digest>>>,
    released: Arc<Mutex<BTreeMap<String, ReleaseId>>>,
    /// The lock of every rack was taken over.
    lock_lost: bool,
}

impl World {
    fn failing(calls: &[&str]) -> Self {
        Self { fail: Arc::new(calls.iter().map(|call| (*call).to_owned()).collect()), ..Self::default() }
    }

    /// Records a call; `true` when it is to fail.
    fn call(&self, call: String) -> bool {
        let fails = self.fail.contains(&call);
        self.calls.lock().unwrap().push(call);
        fails
    }

    fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    fn may_promote(&self) -> MayPromote {
        let lost = self.lock_lost;
        Arc::new(move |_| Box::pin(async move { if lost { Err("another run took over".to_owned()) } else { Ok(()) } }))
    }

    fn ports(&self, plan: &Plan) -> Ports {
        let racks = plan.lanes.iter().map(|lane| {
            let rack: Arc<dyn Rack> = Arc::new(FakeRack { world: self.clone(), name: lane.rack.clone() });
            (lane.rack.clone(), rack)
        });
        Ports {
            builder: Arc::new(self.clone()),
            registry: Arc::new(self.clone()),
            racks: racks.collect(),
            hooks: Arc::new(self.clone()),
            may_promote: self.may_promote(),
            stands: Arc::new(|_, _| Ancestry::Unknown),
        }
    }
}

fn digest(of: &str) -> Digest {
    use sha2::Digest as _;
    Digest::new(format!("sha256:{}", hex::encode(sha2::Sha256::digest(of)))).unwrap()
}

#[async_trait::async_trait]
impl Builder for World {
    async fn probe(&self) -> Result<EngineInfo, BuildError> {
        Ok(EngineInfo { endpoint: "fake".into(), version: "0".into(), platform: "linux/amd64".into() })
    }

    async fn build(
        &self,
        build: &ImageBuild,
        _: &BTreeMap<String, String>,
        _: &Progress,
        cancel: &CancellationToken,
    ) -> Result<ImageId, BuildError> {
        let fails = self.call(format!("build {}", build.context_key));
        {
            let mut running = self.running.lock().unwrap();
            running.0 += 1;
            running.1 = running.1.max(running.0);
        }
        let ended = tokio::select! {
            () = cancel.cancelled() => Err(BuildError::Cancelled),
            () = tokio::time::sleep(Duration::from_millis(5)) => Ok(ImageId::new(digest(&build.context_key).to_string()).unwrap()),
        };
        self.running.lock().unwrap().0 -= 1;
        if fails { Err(BuildError::Failed { message: "exit code 7".into(), log: vec![] }) } else { ended }
    }

    async fn tag(&self, image: &str, repository: &Repository, tag: &str) -> Result<(), BuildError> {
        self.pushed.lock().unwrap().insert(format!("local {repository}:{tag}"), Digest::new(image.to_owned()).unwrap());
        Ok(())
    }

    async fn image_id(&self, _: &str) -> Result<Option<ImageId>, BuildError> {
        Ok(None)
    }

    async fn layers(&self, image: &str) -> Result<Vec<String>, BuildError> {
        Ok(vec!["base".into(), image.to_owned()])
    }

    async fn untag(&self, _: &str) -> Result<(), BuildError> {
        Ok(())
    }

    async fn push(
        &self,
        repository: &Repository,
        tag: &str,
        _: Option<&Login>,
        _: &Progress,
        _: &CancellationToken,
    ) -> Result<Digest, BuildError> {
        if self.call(format!("push {repository}:{tag}")) {
            return Err(BuildError::Registry { message: "500".into(), login: false });
        }
        let mut pushed = self.pushed.lock().unwrap();
        let digest = pushed[&format!("local {repository}:{tag}")].clone();
        pushed.insert(format!("{repository}:{tag}"), digest.clone());
        Ok(digest)
    }

    async fn pull(&self, _: &Repository, _: &Digest, _: Option<&Login>) -> Result<(), BuildError> {
        Ok(())
    }
}

#[async_trait::async_trait]
impl Registry for World {
    async fn find(&self, repository: &Repository, tags: &[String]) -> Result<BTreeMap<String, Digest>, RegistryError> {
        let pushed = self.pushed.lock().unwrap();
        Ok(tags.iter().filter_map(|tag| Some((tag.clone(), pushed.get(&format!("{repository}:{tag}"))?.clone()))).collect())
    }

    async fn ensure(&self, _: &Repository, _: Option<&CreateOptions>) -> Result<bool, RegistryError> {
        Ok(false)
    }

    async fn retag(&self, repository: &Repository, digest: &Digest, tag: &str) -> Result<(), RegistryError> {
        self.call(format!("retag {repository}:{tag}"));
        self.pushed.lock().unwrap().insert(format!("{repository}:{tag}"), digest.clone());
        Ok(())
    }

    async fn labels(&self, _: &Repository, _: &Digest) -> Result<BTreeMap<String, String>, RegistryError> {
        Ok(BTreeMap::new())
    }

    async fn login(&self, _: &str, _: bool) -> Result<Option<Login>, RegistryError> {
        Ok(None)
    }
}

#[async_trait::async_trait]
impl HookRunner for World {
    async fn run(&self, hook: &HookCommand, _: &Progress, _: &CancellationToken) -> Result<(), HookError> {
        let rack = hook.env.get("OFFBUILD_RACK").map_or_else(String::new, |rack| format!("@{rack}"));
        let call = format!("{} {}{rack}", hook.env["OFFBUILD_HOOK"], hook.env["OFFBUILD_APP"]);
        if self.call(call) { Err(HookError::Exit { program: "hook".into(), code: 3, tail: vec![] }) } else { Ok(()) }
    }
}

struct FakeRack {
    world: World,
    name: RackName,
}

#[async_trait::async_trait]
impl RackRead for FakeRack {
    fn name(&self) -> &RackName {
        &self.name
    }

    async fn info(&self) -> Result<RackInfo, RackError> {
        Ok(RackInfo { major: 2, version: "20260421192651".into(), name: "fake".into() })
    }

    async fn live(&self, app: &str) -> Result<Live, RackError> {
        let moved = self.world.fail.contains(&format!("moved {app}@{}", self.name));
        let released = self.world.released.lock().unwrap().get(&format!("{app}@{}", self.name)).cloned();
        let id = if moved { Some(ReleaseId::new("RSOMEBODY").unwrap()) } else { released };
        let (manifest, description) = (String::new(), String::new());
        let build = LiveBuild { id: BuildId::new("BABC").unwrap(), commit: None, description: description.clone(), manifest };
        let release = id.map(|id| LiveRelease { id, created: OffsetDateTime::UNIX_EPOCH, description, build: Some(build), revision: None });
        let copied = self.world.calls().iter().any(|call| call.starts_with(&format!("copy {app}@")));
        let left = self.world.fail.contains(&format!("trapped {app}@{}", self.name)) && !copied;
        let newer = left.then(|| NewerRelease {
            id: ReleaseId::new("RLEFT").unwrap(),
            build: Some(BuildId::new("BLEFT").unwrap()),
            commit: None,
            build_description: String::new(),
        });
        Ok(Live { status: AppStatus::Running, generation: 2, release, newer, replaced: None })
    }

    async fn release(&self, _: &str, _: &ReleaseId) -> Result<Option<LiveRelease>, RackError> {
        Ok(None)
    }

    async fn releases(&self, _: &str) -> Result<Vec<LiveRelease>, RackError> {
        Ok(Vec::new())
    }

    async fn env_change(&self, _: &str, _: &ReleaseId, _: &ReleaseId) -> Result<EnvChange, RackError> {
        Ok(EnvChange { added: vec!["NEW".into()], ..EnvChange::default() })
    }

    async fn note(&self, _: &str, _: &str) -> Result<Option<Vec<u8>>, RackError> {
        Ok(None)
    }

    fn clock_ahead(&self) -> Option<time::Duration> {
        None
    }
}

#[async_trait::async_trait]
impl Rack for FakeRack {
    async fn stage(&self, request: &StageRequest, _: &dyn ImageMover, _: &Progress, _: &CancellationToken) -> Result<Staged, RackError> {
        if self.world.call(format!("stage {}@{}", request.app, self.name)) {
            return Err(RackError::Build { rack: self.name.clone(), message: "ERROR: required env: X".into() });
        }
        Ok(Staged {
            build: BuildId::new("BABC").unwrap(),
            release: ReleaseId::new(format!("R{}", request.app)).unwrap(),
            deliver: Deliver::Build,
        })
    }

    async fn copy(&self, app: &str, release: &ReleaseId, _: &Copying, _: &CancellationToken) -> Result<ReleaseId, RackError> {
        self.world.call(format!("copy {app}@{} {release}", self.name));
        Ok(ReleaseId::new(format!("RCOPY{app}")).unwrap())
    }

    async fn renew(&self, app: &str, _: &BuildId, _: Option<&str>, _: &str, _: &CancellationToken) -> Result<ReleaseId, RackError> {
        self.world.call(format!("renew {app}@{}", self.name));
        Ok(ReleaseId::new(format!("RNEW{app}")).unwrap())
    }

    async fn put_note(&self, _: &str, _: &str, _: &[u8]) -> Result<(), RackError> {
        Ok(())
    }

    async fn settled(&self, app: &str, _: Duration, _: &Progress, _: &CancellationToken) -> Result<Live, RackError> {
        self.world.call(format!("settled {app}@{}", self.name));
        self.live(app).await
    }

    async fn promote(
        &self,
        app: &str,
        release: &ReleaseId,
        over: Option<&ReleaseId>,
        _: Duration,
        _: &Progress,
        _: &CancellationToken,
    ) -> Result<Promoted, RackError> {
        match self.world.released.lock().unwrap().get(&format!("{app}@{}", self.name)) {
            Some(active) if active == release => return Ok(Promoted::Live),
            Some(active) if Some(active) != over => return Ok(Promoted::Overtaken { active: active.clone() }),
            _ => {}
        }
        if self.world.call(format!("promote {app}@{}", self.name)) {
            return Ok(Promoted::RolledBack { active: None });
        }
        let (world, target, release) = (self.world.clone(), format!("{app}@{}", self.name), release.clone());
        // A rack goes on with what it was told, whoever waits for it.
        let rolling = tokio::spawn(async move {
            // Long enough that a second promote on this rack would be seen in between.
            tokio::time::sleep(Duration::from_millis(3)).await;
            world.released.lock().unwrap().insert(target.clone(), release);
            world.calls.lock().unwrap().push(format!("promoted {target}"));
            if world.fail.contains(&format!("overtaken {target}")) {
                world.released.lock().unwrap().insert(target, ReleaseId::new("RSOMEBODY").unwrap());
            }
        });
        rolling.await.unwrap();
        Ok(Promoted::Live)
    }

    fn hook_login(&self) -> (String, Secret) {
        ("rack.example".into(), Secret::new("rack-password"))
    }
}

fn app_name(name: &str) -> AppName {
    AppName::new(name).unwrap()
}

fn rack_name(name: &str) -> RackName {
    RackName::new(name).unwrap()
}

/// A plan: racks with the racks they come after, and their apps with the apps they come after. Every app has all hooks.
fn plan(lanes: &[(&str, &[&str], &[(&str, &[&str])])]) -> Plan {
    let text = "services:\n  web:\n    build: .\n";
    let place = Place::default();
    let web = ServiceName::new("web").unwrap();
    let service = Service { name: web.clone(), place: place.clone(), image: None, build: None };
    let manifest = Arc::new(Manifest {
        generation: 2,
        path: RepoPath::from("convox.yml"),
        document: Document::parse("convox.yml", text).unwrap(),
        services: vec![service],
        files: vec![],
        warnings: vec![],
    });
    let commit = CommitInfo {
        id: CommitId::new("1".repeat(40)).unwrap(),
        subject: "s".into(),
        author: "a".into(),
        time: OffsetDateTime::UNIX_EPOCH,
    };
    let mut plan = Plan {
        run: RunId::new("run").unwrap(),
        head: Head { commit, branch: Some("main".into()), describe: "1111111".into(), source: None },
        options: Options {
            gate: Gate::All,
            on_failure: OnFailure::StopRack,
            fail_fast: false,
            jobs: 2,
            until: Until::Promote,
            heal: false,
            allow_older: false,
            allow_diverged: false,
        },
        builds: vec![],
        apps: BTreeMap::new(),
        lanes: vec![],
        removed: vec![],
        notes: vec![],
        ci_url: None,
    };
    for (rack, after, apps) in lanes {
        let mut targets = Vec::new();
        for (app, after) in *apps {
            let target = Target { app: app_name(app), rack: rack_name(rack) };
            targets.push(TargetPlan {
                config: TargetConfig {
                    rack: target.rack.clone(),
                    name: (*app).to_owned(),
                    env: "production".into(),
                    deliver: Deliver::Build,
                    timeouts: Timeouts::default(),
                    revision: true,
                    hold: true,
                },
                target,
                decision: Decision::Release,
                reasons: vec![],
                base: None,
                base_source: "rack".into(),
                live: None,
                after: after.iter().map(|app| app_name(app)).collect(),
                manifest: Arc::clone(&manifest),
                description: "d".into(),
                origin: Origin::Stage,
                trap: None,
                group: None,
                back_to: None,
            });
            let builds = &mut plan.builds;
            let entry = plan.apps.entry(app_name(app)).or_insert_with(|| {
                builds.push(BuildPlan {
                    build: ImageBuild { context_key: (*app).to_owned(), ..ImageBuild::default() },
                    dockerfile: RepoPath::from("Dockerfile"),
                    labels: BTreeMap::new(),
                    used_by: vec![(app_name(app), web.clone())],
                    weight: 1,
                });
                AppPlan {
                    name: app_name(app),
                    dir: "/nowhere".into(),
                    fingerprint: Fingerprint::new("a".repeat(24)).unwrap(),
                    revision: "1".repeat(40),
                    images: vec![ImagePlan {
                        service: web.clone(),
                        repository: Repository::parse(&format!("r.example/{app}")).unwrap(),
                        tag: "web.1".into(),
                        fingerprint_tag: "web.in-a".into(),
                        latest_tag: Some("web.latest".into()),
                        create: None,
                        action: ImageAction::Build { build: builds.len() - 1 },
                    }],
                    hooks: HookKind::ALL
                        .into_iter()
                        .map(|kind| (kind, HookConfig::File { path: format!("deploy/{}.sh", kind.name()), named: false }))
                        .collect(),
                    racks: vec![],
                    timeouts: Timeouts::default(),
                }
            });
            entry.racks.push(rack_name(rack));
        }
        plan.lanes.push(LanePlan { rack: rack_name(rack), after: after.iter().map(|rack| rack_name(rack)).collect(), targets });
    }
    plan
}

/// Runs a plan against a world and tells the targets' words and all events.
async fn carried_out(plan: Plan, world: &World) -> (BTreeMap<String, String>, Vec<Event>) {
    let (events, mut receiver) = Events::new(Redactor::default());
    let ports = world.ports(&plan);
    let (_keep, signals) = unbounded_channel();
    // Someone has to acknowledge what is recorded.
    let sink = tokio::spawn(async move {
        let mut seen = Vec::new();
        while let Some(event) = receiver.recv().await {
            seen.push(event);
        }
        seen
    });
    let ended = run(Arc::new(plan), ports, &events, signals, None).await;
    drop(events);
    let words = ended.targets.iter().map(|(target, outcome)| (target.to_string(), outcome.word())).collect();
    (words, sink.await.unwrap())
}

fn words(words: &BTreeMap<String, String>) -> String {
    words.iter().map(|(target, word)| format!("{target} {word}")).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn an_app_goes_through_its_stages_in_order() {
    let world = World::default();
    let (ended, _) = carried_out(plan(&[("east", &[], &[("api", &[])])]), &world).await;
    assert_eq!(words(&ended), "api@east deployed");
    insta::assert_snapshot!(world.calls().join("\n"), @r"
    before_build api
    build api
    after_build api
    push r.example/api:web.1
    retag r.example/api:web.in-a
    retag r.example/api:web.latest
    stage api@east
    before_release api@east
    promote api@east
    promoted api@east
    after_release api@east
    ");
}

#[tokio::test]
async fn a_broken_build_releases_nothing_and_breaks_no_other_build() {
    let world = World::failing(&["build api"]);
    let (ended, _) = carried_out(plan(&[("east", &[], &[("api", &[]), ("web", &[])])]), &world).await;
    assert_eq!(words(&ended), "api@east failed(build)\nweb@east not-attempted");
    assert!(world.calls().contains(&"push r.example/web:web.1".to_owned()));
    assert!(world.calls().contains(&"on_failure api".to_owned()));
    assert!(!world.calls().iter().any(|call| call.starts_with("stage")));
}

#[tokio::test]
async fn with_the_app_gate_others_are_released_although_one_is_broken() {
    let world = World::failing(&["build api"]);
    let mut plan = plan(&[("east", &[], &[("web", &[]), ("api", &[])])]);
    plan.options.gate = Gate::App;
    let (ended, _) = carried_out(plan, &world).await;
    assert_eq!(words(&ended), "api@east failed(build)\nweb@east deployed");
}

#[tokio::test]
async fn a_failure_stops_its_lane_blocks_what_comes_after_and_leaves_other_racks_alone() {
    let lanes: &[(&str, &[&str], &[(&str, &[&str])])] =
        &[("east", &[], &[("a", &[]), ("b", &["a"]), ("c", &[])]), ("west", &[], &[("c", &[])]), ("prod", &["east"], &[("c", &[])])];
    let world = World::failing(&["before_release a@east"]);
    let (ended, _) = carried_out(plan(lanes), &world).await;
    insta::assert_snapshot!(words(&ended), @r"
    a@east failed(hook)
    b@east not-attempted
    c@east not-attempted
    c@prod blocked(rack east)
    c@west deployed
    ");

    let mut plan = plan(lanes);
    plan.options.on_failure = OnFailure::Continue;
    let (ended, _) = carried_out(plan, &World::failing(&["before_release a@east"])).await;
    insta::assert_snapshot!(words(&ended), @r"
    a@east failed(hook)
    b@east blocked(a@east)
    c@east deployed
    c@prod blocked(rack east)
    c@west deployed
    ");
}

#[tokio::test]
async fn stop_all_lets_nothing_new_start() {
    let lanes: &[(&str, &[&str], &[(&str, &[&str])])] = &[("east", &[], &[("a", &[])]), ("prod", &["east"], &[("a", &[])])];
    let mut plan = plan(lanes);
    plan.options.on_failure = OnFailure::StopAll;
    let (ended, _) = carried_out(plan, &World::failing(&["stage a@east"])).await;
    assert_eq!(words(&ended), "a@east failed(rack-build)\na@prod not-attempted");
}

#[tokio::test]
async fn a_rollback_is_told_as_one() {
    let world = World::failing(&["promote a@east"]);
    let (ended, events) = carried_out(plan(&[("east", &[], &[("a", &[])])]), &world).await;
    assert_eq!(words(&ended), "a@east rolled-back");
    assert!(world.calls().contains(&"on_failure a@east".to_owned()));
    assert!(events.iter().any(|event| matches!(&event.kind, EventKind::StepFinished { outcome: StepOutcome::RolledBack { .. }, .. })));
}

#[tokio::test]
async fn somebody_elses_release_is_not_promoted_over() {
    let world = World::failing(&["moved a@east"]);
    let (ended, _) = carried_out(plan(&[("east", &[], &[("a", &[])])]), &world).await;
    assert_eq!(words(&ended), "a@east failed(guard)");
    assert!(!world.calls().iter().any(|call| call.starts_with("promote")));
}

#[tokio::test]
async fn builds_in_flight_keep_to_the_bound_and_promotes_to_one_per_rack() {
    let apps = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let listed: Vec<(&str, &[&str])> = apps.iter().map(|app| (*app, &[] as &[&str])).collect();
    let world = World::default();
    let mut plan = plan(&[("east", &[], &listed), ("west", &[], &listed)]);
    plan.options.jobs = 3;
    let (ended, _) = carried_out(plan, &world).await;
    assert!(ended.values().all(|word| word == "deployed"), "{ended:?}");
    assert_eq!(world.running.lock().unwrap().1, 3, "as many as may, and no more");
    for rack in ["east", "west"] {
        let mut open = None;
        for call in world.calls().iter().filter(|call| call.ends_with(&format!("@{rack}"))) {
            if let Some(app) = call.strip_prefix("promote ") {
                assert_eq!(open.replace(app.to_owned()), None, "two promotes at once on {rack}");
            } else if let Some(app) = call.strip_prefix("promoted ") {
                assert_eq!(open.take().as_deref(), Some(app));
            }
        }
    }
}

#[tokio::test]
async fn an_interrupted_run_starts_nothing_new() {
    let world = World::default();
    let (events, mut receiver) = Events::new(Redactor::default());
    let plan = plan(&[("east", &[], &[("a", &[]), ("b", &[])])]);
    let ports = world.ports(&plan);
    let (signal, signals) = unbounded_channel();
    signal.send(Signal::Int).unwrap();
    tokio::spawn(async move { while receiver.recv().await.is_some() {} });
    let ended = run(Arc::new(plan), ports, &events, signals, None).await;
    assert_eq!(ended.signal, Some(Signal::Int));
    assert!(ended.targets.values().all(|outcome| *outcome == TargetOutcome::Cancelled), "{:?}", ended.targets);
    assert!(!world.calls().iter().any(|call| call.starts_with("stage")));
}

#[test]
fn what_is_dropped_is_told_by_how_far_it_was() {
    let mut plan = plan(&[("east", &[], &[("a", &[]), ("b", &[]), ("c", &[])]), ("west", &[], &[("d", &[])])]);
    plan.options.gate = crate::plan::Gate::App;
    plan.lanes[0].targets[1].decision = Decision::UpToDate;
    let mut schedule = Schedule::new(&plan);
    schedule.ready(&plan);
    for app in ["a", "b", "c"] {
        schedule.images_ended(&app_name(app), ImagesOutcome::Ready(BTreeMap::new()));
    }
    assert!(schedule.ready(&plan).iter().any(|work| matches!(work, Work::Release(target, _) if target.app == app_name("a"))));
    schedule.interrupt();
    let words: Vec<String> = plan.targets().map(|planned| format!("{} {}", planned.target, schedule.cut_short(planned).word())).collect();
    assert_eq!(words, ["a@east cancelled", "b@east up-to-date", "c@east not-attempted", "d@west cancelled"]);
}

#[tokio::test]
async fn what_is_not_built_runs_no_build_hook() {
    let world = World::default();
    let mut plan = plan(&[("east", &[], &[("a", &[])])]);
    plan.apps.get_mut(&app_name("a")).unwrap().images[0].action = ImageAction::Reuse { digest: digest("a") };
    let (ended, _) = carried_out(plan, &world).await;
    assert_eq!(words(&ended), "a@east deployed");
    insta::assert_snapshot!(world.calls().join("\n"), @r"
    retag r.example/a:web.1
    retag r.example/a:web.latest
    stage a@east
    before_release a@east
    promote a@east
    promoted a@east
    after_release a@east
    ");
}

#[test]
fn a_hook_is_told_exactly_what_is_documented() {
    let plan = plan(&[("east", &[], &[("api", &[])])]);
    let app = &plan.apps[&app_name("api")];
    let target = plan.targets().next().unwrap();
    let build = hook_env::build_hook(&plan, app, HookKind::BeforeBuild).unwrap();
    let names = |hook: &HookCommand| {
        let names: BTreeSet<String> = hook.env.keys().chain(hook.secret_env.keys()).cloned().collect();
        names.into_iter().collect::<Vec<_>>().join(" ")
    };
    insta::assert_snapshot!(names(&build), @"APP_ENV APP_NAME DOCKER_TAG DOCKER_TAG_WEB GIT_BRANCH GIT_DESCRIPTION GIT_HASH OFFBUILD_APP OFFBUILD_FINGERPRINT OFFBUILD_HOOK OFFBUILD_RACKS OFFBUILD_REVISION OFFBUILD_RUN RACK_NAME");
    let login = Some(("rack.example".to_owned(), Secret::new("password")));
    let release = ReleaseId::new("RABC").unwrap();
    let release = hook_env::release_hook(&plan, app, target, HookKind::BeforeRelease, Some(&release), login).unwrap();
    insta::assert_snapshot!(names(&release), @"APP_ENV APP_NAME CONVOX_HOST CONVOX_PASSWORD DOCKER_TAG DOCKER_TAG_WEB GIT_BRANCH GIT_DESCRIPTION GIT_HASH OFFBUILD_APP OFFBUILD_FINGERPRINT OFFBUILD_HOOK OFFBUILD_RACK OFFBUILD_RACKS OFFBUILD_REVISION OFFBUILD_RUN RACK_NAME RELEASE_ID");
    assert_eq!(release.env["DOCKER_TAG"], "r.example/api:web.1");
}
