//! A monorepo with everything `offbuild deploy` needs: racks, a registry, the real engine, a base image. A run is checked as a
//! whole: whatever the test, no output of it may show a password.

use super::engine::Base;
use super::front::{Behind, Front};
use super::repo::Repo;
use super::sandbox::Sandbox;
use super::services::{PASSWORD, Registry, Running, USER};
use super::{Done, Offbuild};
use base64::Engine as _;
use offbuild::event::{Event, EventKind, Stage, Step, StepOutcome};
use offbuild::journal::Journal;
use offbuild::names::RunId;
use offbuild::sandbox::Version;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a test waits for what must come: not for a measurement, only so that it ends.
const PATIENCE: Duration = Duration::from_secs(120);

/// What an image's manifest may be: the engine pushes Docker's kind, or OCI's from a containerd image store.
const ACCEPT: &str = "Accept: application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json";

/// What a world is to have.
pub struct Setup {
    racks: Vec<(String, Version)>,
    rack_settings: BTreeMap<String, String>,
    apps: Vec<(String, u8)>,
    settings: String,
    defaults: String,
    ecr: bool,
    promote: Duration,
}

/// A monorepo and all around it.
pub struct World {
    // Its images go before the engine's other things of the test.
    base: Base,
    /// The monorepo.
    pub repo: Repo,
    /// The racks.
    pub sandbox: Sandbox,
    registry: Option<Registry>,
    setup: Setup,
}

/// A run of the binary and what it left.
pub struct Run {
    /// Exit code and outputs.
    pub done: Done,
    /// The journal; empty when the command made none.
    pub events: Vec<Event>,
}

/// A run that has not ended.
pub struct Started {
    child: Running,
    before: BTreeSet<RunId>,
}

impl Setup {
    /// Apps of one service each on rack `staging`, version 2, with the real registry.
    pub fn new(apps: &[&str]) -> Self {
        Self {
            racks: vec![("staging".to_owned(), Version::V2)],
            rack_settings: BTreeMap::new(),
            apps: apps.iter().map(|app| ((*app).to_owned(), 2)).collect(),
            settings: String::new(),
            defaults: String::new(),
            ecr: false,
            promote: Duration::from_millis(50),
        }
    }

    /// One more rack; `settings` are lines of its entry in `apps.yaml`.
    pub fn rack(mut self, name: &str, version: Version, settings: &str) -> Self {
        self.racks.retain(|(known, _)| known != name);
        self.racks.push((name.to_owned(), version));
        self.rack_settings.insert(name.to_owned(), settings.to_owned());
        self
    }

    /// The generation an app has on the racks.
    pub fn generation(mut self, app: &str, generation: u8) -> Self {
        self.apps.iter_mut().filter(|(name, _)| name == app).for_each(|(_, known)| *known = generation);
        self
    }

    /// More of `apps.yaml`.
    pub fn settings(mut self, yaml: &str) -> Self {
        self.settings.push_str(yaml);
        self
    }

    /// More of `defaults`, as it goes after `, `.
    pub fn defaults(mut self, yaml: &str) -> Self {
        self.defaults = format!(", {yaml}");
        self
    }

    /// The sandbox's ECR in place of the real registry.
    pub fn ecr(mut self) -> Self {
        self.ecr = true;
        self
    }

    /// How long each half of a promote takes.
    pub fn promote(mut self, pace: Duration) -> Self {
        self.promote = pace;
        self
    }

    /// Starts everything, writes the apps and commits them.
    pub fn start(self) -> World {
        let repo = Repo::new();
        let sandbox = Sandbox::serve(&repo.dir.path().join("sandbox"), &self.racks, &self.apps, self.ecr, self.promote);
        let registry = (!self.ecr).then(|| Registry::start(repo.dir.path()));
        let host = registry.as_ref().map(|registry| registry.host.clone()).or_else(|| sandbox.registry()).unwrap();
        let base = Base::import().and_images_of(&host);
        let world = World { base, repo, sandbox, registry, setup: self };
        if let Some(registry) = &world.registry {
            for (rack, version) in &world.setup.racks {
                // A rack of version 3 is handed the login with each import.
                if *version == Version::V2 {
                    let form = [("server", registry.host.as_str()), ("username", USER), ("password", PASSWORD)];
                    world.sandbox.call("POST", rack, "/registries", &form);
                }
            }
        }
        world.configure(&world.setup.settings);
        for (app, _) in &world.setup.apps {
            world.app(app, "");
        }
        world.repo.commit("everything");
        world
    }
}

impl World {
    /// Writes `apps.yaml` with these settings after the ones every test has.
    pub fn configure(&self, settings: &str) -> &Self {
        let mut yaml = "version: 1\ndiscover: {include: [\"apps/*\"]}\nregistry:\n  repository: ${REGISTRY_HOST}/{app}\n".to_owned();
        if self.setup.ecr {
            yaml.push_str("  type: ecr\n  region: us-east-1\n  create: true\n");
        }
        yaml.push_str("racks:\n");
        let mut names = Vec::new();
        for (rack, _) in &self.setup.racks {
            let variable = rack.to_uppercase();
            yaml.push_str(&format!("  {rack}:\n    host: ${{{variable}_HOST}}\n    password: ${{{variable}_PASSWORD}}\n    poll: 20ms\n"));
            for line in self.setup.rack_settings.get(rack).map(String::as_str).unwrap_or_default().lines() {
                yaml.push_str(&format!("    {line}\n"));
            }
            names.push(rack.as_str());
        }
        yaml.push_str(&format!("ignore: [\"**/*.md\"]\ndefaults: {{racks: [{}]{}}}\n{settings}", names.join(", "), self.setup.defaults));
        self.repo.write("apps.yaml", yaml);
        self
    }

    /// Writes an app of one service `web`; `steps` are more lines of its Dockerfile.
    pub fn app(&self, app: &str, steps: &str) -> &Self {
        self.repo.write(&format!("apps/{app}/convox.yml"), "services:\n  web:\n    build: .\n");
        self.repo.write(&format!("apps/{app}/Dockerfile"), format!("FROM {}\nCOPY page /page\n{steps}\n", self.base.name));
        self.page(app, "first")
    }

    /// Writes what an app's image holds.
    pub fn page(&self, app: &str, text: &str) -> &Self {
        self.repo.write(&format!("apps/{app}/page"), format!("{app}: {text}\n"));
        self
    }

    /// Writes a hook of an app.
    pub fn hook(&self, app: &str, hook: &str, script: &str) -> &Self {
        self.repo.write(&format!("apps/{app}/deploy/{hook}.sh"), format!("#!/bin/sh\n{script}\n"));
        self
    }

    /// The name of the base image.
    pub fn base(&self) -> &str {
        &self.base.name
    }

    /// The registry's host and port.
    pub fn host(&self) -> String {
        self.registry.as_ref().map(|registry| registry.host.clone()).or_else(|| self.sandbox.registry()).unwrap()
    }

    /// A front before the rack `staging`.
    pub fn front(&self) -> Front {
        Front::before(Behind::Tcp(self.sandbox.environment()["STAGING_HOST"].trim_start_matches("http://").to_owned()))
    }

    /// A path outside the repository.
    pub fn aside(&self, name: &str) -> PathBuf {
        self.repo.dir.path().join(name)
    }

    /// The binary, told everything by its environment.
    pub fn offbuild(&self) -> Offbuild {
        Offbuild::new(&self.repo.root(), self.repo.dir.path())
            .envs(self.sandbox.environment())
            .env("REGISTRY_HOST", self.host())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
    }

    /// Runs a command.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Run {
        self.run_as(&self.offbuild(), args)
    }

    /// Runs a command in the directory and environment given.
    #[track_caller]
    pub fn run_as(&self, offbuild: &Offbuild, args: &[&str]) -> Run {
        let root = offbuild.directory.clone();
        let before = runs(&root);
        let files = [self.aside("events.jsonl"), self.aside("page.html")];
        let [events, html] = files.each_ref().map(|path| path.to_str().unwrap());
        let mut all = args.to_vec();
        if matches!(args.first(), Some(&("deploy" | "build"))) {
            all.extend(["--events", events, "--html", html]);
        }
        let done = offbuild.run(&all);
        self.check_secrets(&done.stdout);
        self.check_secrets(&done.stderr);
        for file in &files {
            self.check_secrets(&std::fs::read_to_string(file).unwrap_or_default());
            // What the next run shows is its own.
            let _ = std::fs::remove_file(file);
        }
        Run { done, events: self.journal(&root, &before) }
    }

    /// Runs a command on a terminal where somebody answers a question.
    #[track_caller]
    pub fn run_on_terminal(&self, args: &[&str], question: &str, answer: &str) -> Run {
        let before = runs(&self.repo.root());
        let done = super::terminal::run(self.offbuild().command(args), question, answer);
        self.check_secrets(&done.stderr);
        Run { done, events: self.journal(&self.repo.root(), &before) }
    }

    /// Starts a command and does not wait for it.
    pub fn start(&self, args: &[&str]) -> Started {
        self.start_as(&self.offbuild(), args)
    }

    /// Starts a command in the environment given.
    pub fn start_as(&self, offbuild: &Offbuild, args: &[&str]) -> Started {
        let before = runs(&self.repo.root());
        let child = offbuild.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Started { child: Running(child), before }
    }

    /// Waits until the run that was started has recorded something.
    #[track_caller]
    pub fn until(&self, started: &mut Started, what: impl Fn(&EventKind) -> bool) {
        wait_for(|| {
            let ended = started.child.0.try_wait().unwrap();
            let found = self.journal(&self.repo.root(), &started.before).iter().any(|event| what(&event.kind));
            assert!(found || ended.is_none(), "the run ended before that");
            found
        });
    }

    /// Waits for a run that was started.
    #[track_caller]
    pub fn ended(&self, started: Started) -> Run {
        use std::io::Read as _;
        let Started { mut child, before } = started;
        let (mut stdout, mut stderr) = (String::new(), String::new());
        child.0.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
        child.0.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        let code = child.0.wait().unwrap().code().unwrap_or(-1);
        self.check_secrets(&stdout);
        self.check_secrets(&stderr);
        Run { done: Done { code, stdout, stderr }, events: self.journal(&self.repo.root(), &before) }
    }

    /// The journal of the run that was not there before. Not the latest by name: two runs of one second have no order.
    fn journal(&self, root: &Path, before: &BTreeSet<RunId>) -> Vec<Event> {
        let Some(new) = Journal::list(root).unwrap().into_iter().find(|file| !before.contains(&file.run)) else { return Vec::new() };
        self.check_secrets(&std::fs::read_to_string(&new.path).unwrap());
        Journal::read(&new.path).unwrap()
    }

    /// No password is in the text, not even as the header that carries it.
    #[track_caller]
    fn check_secrets(&self, text: &str) {
        let mut secrets = self.sandbox.passwords();
        if self.registry.is_some() {
            secrets.push(PASSWORD.to_owned());
            secrets.push(base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}")));
        }
        for secret in secrets {
            assert!(!text.contains(&secret), "a password is in:\n{text}");
        }
    }

    /// Every tag of an app's repository in the real registry.
    pub fn tags(&self, app: &str) -> Vec<String> {
        let text = self.registry_call(&["-f"], &format!("{app}/tags/list"));
        let list: serde_json::Value = serde_json::from_str(&text).unwrap();
        let mut tags: Vec<String> = list["tags"].as_array().into_iter().flatten().map(|tag| tag.as_str().unwrap().to_owned()).collect();
        tags.sort();
        tags
    }

    /// Takes a tag away from the real registry.
    pub fn forget_tag(&self, app: &str, tag: &str) {
        self.registry.as_ref().unwrap().forget(app, tag);
    }

    /// The digest of an image's tag in the real registry.
    pub fn digest(&self, app: &str, tag: &str) -> String {
        let head = self.registry_call(&["-f", "-I", "-H", ACCEPT], &format!("{app}/manifests/{tag}"));
        let line = head.lines().find(|line| line.to_lowercase().starts_with("docker-content-digest:")).unwrap();
        line.split_once(':').unwrap().1.trim().to_owned()
    }

    /// The configuration of a tag's image in the real registry.
    pub fn image_config(&self, app: &str, tag: &str) -> serde_json::Value {
        let manifest: serde_json::Value =
            serde_json::from_str(&self.registry_call(&["-f", "-H", ACCEPT], &format!("{app}/manifests/{tag}"))).unwrap();
        let config = manifest["config"]["digest"].as_str().unwrap();
        serde_json::from_str(&self.registry_call(&["-f", "-L"], &format!("{app}/blobs/{config}"))).unwrap()
    }

    /// Makes a tag of the real registry point to another tag's image.
    pub fn move_tag(&self, app: &str, from: &str, to: &str) {
        let manifest = self.registry_call(&["-f", "-H", ACCEPT], &format!("{app}/manifests/{from}"));
        let media = serde_json::from_str::<serde_json::Value>(&manifest).unwrap()["mediaType"].as_str().unwrap().to_owned();
        let args = ["-f", "-X", "PUT", "-H", &format!("Content-Type: {media}"), "--data-binary", &manifest];
        self.registry_call(&args, &format!("{app}/manifests/{to}"));
    }

    #[track_caller]
    fn registry_call(&self, args: &[&str], path: &str) -> String {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--noproxy", "*", "-u", &format!("{USER}:{PASSWORD}")]).args(args);
        super::sh(curl.arg(format!("http://{}/v2/{path}", self.host())))
    }
}

impl Started {
    /// True when it is over.
    pub fn has_ended(&mut self) -> bool {
        self.child.0.try_wait().unwrap().is_some()
    }

    /// Sends a signal, `INT` or `TERM`.
    pub fn signal(&self, name: &str) {
        super::sh(Command::new("kill").arg(format!("-{name}")).arg(self.child.0.id().to_string()));
    }
}

impl Run {
    /// Asserts the exit code.
    #[track_caller]
    pub fn code(self, code: i32) -> Self {
        assert_eq!(self.done.code, code, "stdout:\n{}\nstderr:\n{}", self.done.stdout, self.done.stderr);
        self
    }

    /// Asserts that standard error has this text.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.done.stderr.contains(text), "`{text}` is missing in stderr:\n{}", self.done.stderr);
        self
    }

    /// Asserts how every target ended (one that goes back with its group ends twice: the last counts), in the journal and, where there is one, in the table; as `web@staging deployed`.
    #[track_caller]
    pub fn outcomes(self, expected: &[&str]) -> Self {
        let ends = self.kinds().filter_map(|kind| match kind {
            EventKind::TargetFinished { target, outcome, .. } => Some((target.to_string(), outcome.word())),
            _ => None,
        });
        let ended: BTreeMap<String, String> = ends.collect();
        let ended: Vec<String> = ended.into_iter().map(|(target, word)| format!("{target} {word}")).collect();
        assert_eq!(ended, expected, "stderr:\n{}", self.done.stderr);
        if self.done.stderr.lines().any(|line| line.starts_with("TARGET")) {
            for row in expected {
                let (target, word) = row.split_once(' ').unwrap();
                // Who blocked a target stands in another column.
                let word = if word.starts_with("blocked(") { "blocked" } else { word };
                let drawn = self.done.stderr.lines().any(|line| line.split_whitespace().take(2).eq([target, word]));
                assert!(drawn, "the table has no row `{target} {word}`:\n{}", self.done.stderr);
            }
        }
        self
    }

    /// What happened, in order.
    pub fn kinds(&self) -> impl Iterator<Item = &EventKind> {
        self.events.iter().map(|event| &event.kind)
    }

    /// Who had a step of this stage that ended well: `web`, `web/web`, `web@staging`; sorted.
    pub fn finished(&self, stage: Stage) -> Vec<String> {
        let done = |kind: &EventKind| match kind {
            EventKind::StepFinished { step, outcome: StepOutcome::Done, .. } if step.stage == stage => Some(step.subject()),
            _ => None,
        };
        let mut done: Vec<String> = self.kinds().filter_map(done).collect();
        done.sort();
        done
    }

    /// Who had a step of this stage at all; sorted.
    pub fn begun(&self, stage: Stage) -> Vec<String> {
        let mut begun: Vec<String> = self.steps(stage).map(|(step, _)| step.subject()).collect();
        begun.sort();
        begun.dedup();
        begun
    }

    /// The beginnings (`true`) and ends of the steps of a stage, in order.
    pub fn steps(&self, stage: Stage) -> impl Iterator<Item = (&Step, bool)> {
        self.kinds().filter_map(move |kind| match kind {
            EventKind::StepStarted { step, .. } if step.stage == stage => Some((step, true)),
            EventKind::StepFinished { step, .. } if step.stage == stage => Some((step, false)),
            _ => None,
        })
    }

    /// What each image was planned to be: `web/web build`, `reuse`, `present`; sorted.
    pub fn images(&self) -> Vec<String> {
        let image = |kind: &EventKind| match kind {
            EventKind::ImagePlanned { app, service, action, .. } => Some(format!("{app}/{service} {action}")),
            _ => None,
        };
        let mut images: Vec<String> = self.kinds().filter_map(image).collect();
        images.sort();
        images
    }

    /// The reasons of a target's verdict.
    pub fn reasons(&self, of: &str) -> Vec<String> {
        let found = self.kinds().find_map(|kind| match kind {
            EventKind::TargetPlanned { target, reasons, .. } if target.to_string() == of => Some(reasons.clone()),
            _ => None,
        });
        found.unwrap_or_default()
    }
}

/// The runs there are.
fn runs(root: &Path) -> BTreeSet<RunId> {
    Journal::list(root).unwrap().into_iter().map(|file| file.run).collect()
}

/// Waits until something is so; it must become so, however long it takes.
#[track_caller]
pub fn wait_for(mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "it did not happen");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The most that were open at once, of beginnings (`true`) and ends.
pub fn most_at_once(steps: impl Iterator<Item = bool>) -> usize {
    let (mut open, mut most) = (0_usize, 0);
    for begins in steps {
        open = if begins { open + 1 } else { open - 1 };
        most = most.max(open);
    }
    most
}
