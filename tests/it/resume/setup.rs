//! Two apps' worth of world for one app: a repository, racks of both versions, a registry, and a run that can be killed.

use crate::support::engine::Base;
use crate::support::repo::Repo;
use crate::support::{Done, Offbuild};
use offbuild::sandbox::{Options, Pace, RackOptions, RegistryKind, RegistryOptions, Running, Version, serve};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// A hook that leaves a line, and stays while a file is there.
const HOOK: &str = "#!/bin/sh\necho \"$OFFBUILD_HOOK $OFFBUILD_APP@$OFFBUILD_RACK begin\" >> \"$MARKS\"\n\
                    while [ -e \"$MARKS.hold.$OFFBUILD_HOOK\" ]; do sleep 0.05; done\n\
                    echo \"$OFFBUILD_HOOK $OFFBUILD_APP@$OFFBUILD_RACK end\" >> \"$MARKS\"\n";

/// Apps on `two` (version 2) and `three` (version 3).
pub struct Setup {
    pub repo: Repo,
    pub apps: Vec<&'static str>,
    sandbox: Option<Running>,
    runtime: tokio::runtime::Runtime,
    _base: Base,
}

impl Setup {
    /// App `web`, with a first commit; nothing is deployed.
    pub fn new() -> Self {
        Self::of(&["web"])
    }

    /// Several apps that are alike.
    pub fn of(apps: &[&'static str]) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let repo = Repo::new();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let rack = |name: &str, version: Version, generation: u8| RackOptions {
            name: name.parse().unwrap(),
            version,
            port: 0,
            password: None,
            tokens: Vec::new(),
            apps: apps.iter().map(|app| ((*app).to_owned(), generation)).collect(),
        };
        let options = Options {
            state: repo.dir.path().join("sandbox"),
            racks: vec![rack("two", Version::V2, 2), rack("three", Version::V3, 3)],
            registry: Some(RegistryOptions { port: 0, kind: RegistryKind::Plain { login: None } }),
            control_port: 0,
            faults: Vec::new(),
            pace: Pace { build: Duration::from_millis(50), promote: Duration::from_millis(100) },
        };
        let sandbox = runtime.block_on(serve(options)).unwrap();
        let base = Base::import().and_images_of(sandbox.environment()["REGISTRY_HOST"].expose());
        let yaml = "version: 1\ndiscover: {include: [\"apps/*\"]}\nregistry: {repository: \"${REGISTRY_HOST}/{app}\"}\nracks:\n  \
                    two: {host: \"${TWO_HOST}\", password: \"${TWO_PASSWORD}\", poll: 100ms}\n  \
                    three: {host: \"${THREE_HOST}\", password: \"${THREE_PASSWORD}\", poll: 100ms}\n\
                    defaults: {racks: [two, three]}\n";
        repo.write("apps.yaml", yaml);
        for app in apps {
            repo.write(&format!("apps/{app}/convox.yml"), "services:\n  web:\n    build: .\n    port: 3000\n")
                .write(&format!("apps/{app}/Dockerfile"), format!("FROM {}\nCOPY a /a\n", base.name))
                .write(&format!("apps/{app}/a"), format!("1 {app}\n"))
                .write(&format!("apps/{app}/deploy/before_release.sh"), HOOK)
                .write(&format!("apps/{app}/deploy/after_release.sh"), HOOK);
        }
        repo.commit("First");
        Self { repo, apps: apps.to_vec(), sandbox: Some(sandbox), runtime, _base: base }
    }

    /// Replaces the configuration's defaults, and commits that.
    pub fn configure(&self, defaults: &str) {
        let yaml = std::fs::read_to_string(self.repo.path("apps.yaml")).unwrap();
        self.repo.write("apps.yaml", yaml.replace("defaults: {racks: [two, three]}\n", defaults));
        self.repo.commit("Other defaults");
    }

    /// Changes the app and commits that.
    pub fn change(&self, text: &str) -> String {
        self.repo.write("apps/web/a", text);
        self.repo.commit(&format!("Change to {text}"))
    }

    fn marks_file(&self) -> PathBuf {
        self.repo.dir.path().join("marks")
    }

    /// Keeps a hook from ending; `false` lets it go.
    pub fn hold(&self, hook: &str, held: bool) {
        let file = self.marks_file().with_extension(format!("hold.{hook}"));
        if held { std::fs::write(file, "").unwrap() } else { std::fs::remove_file(file).unwrap() }
    }

    /// Keeps promotes from ending; `false` lets them go.
    pub fn hold_promotes(&self, held: bool) {
        self.fault("promote-hangs", held);
    }

    /// Keeps the racks' builds from ending; `false` lets them go.
    pub fn hold_builds(&self, held: bool) {
        self.fault("rack-build-hangs", held);
    }

    fn fault(&self, fault: &str, held: bool) {
        let faults = &self.sandbox.as_ref().unwrap().faults;
        for rack in ["two", "three"] {
            let fault = format!("{rack}:{fault}").parse().unwrap();
            if held { faults.add(fault) } else { assert!(faults.remove(&fault)) }
        }
    }

    /// What the hooks left, sorted; then it is forgotten.
    pub fn take_marks(&self) -> Vec<String> {
        let marks = self.marks();
        let _ = std::fs::remove_file(self.marks_file());
        marks
    }

    pub fn marks(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.marks_file()).unwrap_or_default();
        let mut marks: Vec<String> = text.lines().map(str::to_owned).collect();
        marks.sort();
        marks
    }

    pub fn offbuild(&self) -> Offbuild {
        let sandbox = self.sandbox.as_ref().unwrap();
        let vars = sandbox.environment().into_iter().map(|(name, value)| (name, value.expose().to_owned()));
        Offbuild::new(&self.repo.root(), &self.repo.dir.path().join("home"))
            .envs(vars)
            .env("MARKS", self.marks_file().display().to_string())
    }

    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Done {
        self.offbuild().run(args)
    }

    /// Starts a run, waits until `at` holds, and kills it.
    #[track_caller]
    pub fn killed(&self, args: &[&str], at: impl Fn(&Self) -> bool) {
        let mut command = self.offbuild().command(args);
        let mut child: Child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let began = Instant::now();
        while !at(self) {
            assert!(child.try_wait().unwrap().is_none(), "the run ended before it could be killed");
            assert!(began.elapsed() < Duration::from_secs(120), "the run did not get there");
            std::thread::sleep(Duration::from_millis(10));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// How often an app was promoted on a rack.
    pub fn promotes_of(&self, rack: &str, app: &str) -> usize {
        self.answered(rack, "POST", |path| path.starts_with(&format!("/apps/{app}/")) && path.ends_with("/promote"))
    }

    /// How many requests of a rack were answered well whose path has this end.
    pub fn requests(&self, rack: &str, method: &str, end: &str) -> usize {
        self.answered(rack, method, |path| path.ends_with(end))
    }

    fn answered(&self, rack: &str, method: &str, of: impl Fn(&str) -> bool) -> usize {
        let log = std::fs::read_to_string(self.sandbox.as_ref().unwrap().request_log()).unwrap();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let wanted = |line: &Value| line["rack"] == rack && line["method"] == method && of(line["path"].as_str().unwrap());
        lines.filter(|line| wanted(line) && line["status"] == 200).count()
    }

    /// Promotes so far: rack `two`, rack `three`.
    pub fn promotes(&self) -> [usize; 2] {
        ["two", "three"].map(|rack| self.requests(rack, "POST", "/promote"))
    }

    /// The id of the last run.
    pub fn last_run(&self) -> String {
        let history = self.run(&["history"]).code(0).stdout;
        history.lines().nth(1).and_then(|line| line.split(' ').next()).unwrap().to_owned()
    }

    /// What is live, as the racks tell.
    pub fn status(&self) -> String {
        self.run(&["status"]).code(0).stdout
    }

    /// Asserts that both racks run this commit of every app.
    #[track_caller]
    pub fn runs(&self, commit: &str) {
        let (status, targets) = (self.status(), 2 * self.apps.len());
        assert_eq!(status.matches(&commit[..12]).count(), targets, "{status}");
        assert_eq!(status.matches(" running ").count(), targets, "{status}");
    }
}

impl Drop for Setup {
    fn drop(&mut self) {
        if let Some(sandbox) = self.sandbox.take() {
            self.runtime.block_on(sandbox.stop());
        }
    }
}
