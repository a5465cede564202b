//! The ways to roll out, each with a repository and with steps of its own.

use super::APPS;
use super::place::{Place, write};
use super::support::{OFFBUILD, git, option, run, timed};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// How it rolls out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Build,
    Deploy,
    Loop,
    AtOnce,
    Bake,
}

/// A way to roll out, with the repository it works on.
pub struct Contender<'p> {
    place: &'p Place,
    way: Way,
    /// The word that makes its steps its own, and its repositories.
    word: String,
    apps: usize,
    repo: PathBuf,
}

impl<'p> Contender<'p> {
    /// Everything there is to compare.
    pub fn all(place: &'p Place) -> Vec<Self> {
        let mut ways = vec![("build", Way::Build), ("deploy", Way::Deploy), ("loop", Way::Loop), ("once", Way::AtOnce)];
        if place.has_bake() {
            ways.push(("bake", Way::Bake));
        }
        let only = option("only");
        ways.retain(|(word, _)| only.as_ref().is_none_or(|only| only.split(',').any(|only| only == *word)));
        ways.into_iter().map(|(word, way)| Self::new(place, word, way, APPS)).collect()
    }

    /// One app and nothing else, built and pushed by the docker client: the critical path.
    pub fn alone(place: &'p Place) -> Self {
        Self::new(place, "alone", Way::Loop, 1)
    }

    fn new(place: &'p Place, word: &str, way: Way, apps: usize) -> Self {
        let contender =
            Self { place, way, word: format!("{word}{}", std::process::id()), apps, repo: place.directory().join("repos").join(word) };
        for app in contender.names() {
            contender.write_app(&app);
        }
        let discover = "version: 1\ndiscover: {include: ['apps/*']}\n";
        let registry = format!("registry: {{repository: '{}/{{app}}'}}\n", contender.prefix());
        let rack = "racks:\n  bench: {host: '${BENCH_HOST}', password: '${BENCH_PASSWORD}', poll: 100ms}\ndefaults: {racks: [bench]}\n";
        write(&contender.repo.join("apps.yaml"), &format!("{discover}{registry}{rack}"));
        write(&contender.repo.join("docker-bake.hcl"), &contender.bake_file());
        run(&mut git(&contender.repo, &["init", "-q", "-b", "main"]));
        contender.commit("All apps");
        contender
    }

    /// What it is called in the table.
    pub fn name(&self) -> &'static str {
        match self.way {
            Way::Build => "`offbuild build`",
            Way::Deploy => "`offbuild deploy` (12 releases on a rack too)",
            Way::Loop => "`docker build` + `docker push`, one by one",
            Way::AtOnce => "`docker build`s at once, then `docker push`es at once",
            Way::Bake => "`docker buildx bake --push`",
        }
    }

    fn names(&self) -> Vec<String> {
        (1..=self.apps).map(|app| format!("app{app:02}")).collect()
    }

    fn prefix(&self) -> String {
        format!("{}/{}", self.place.registry, self.word)
    }

    fn write_app(&self, app: &str) {
        let hash = |step: &str, file: &str, words: &str| {
            let work = if self.place.waits() {
                format!("sleep {}; echo {words}", self.place.seconds(step))
            } else {
                format!("echo {words}; dd if=/dev/zero bs=1M count={}", self.place.mebibytes(step))
            };
            // Some output each, which nothing but this step has: it has to be pushed.
            format!("RUN ({work}) 2>/dev/null | sha256sum > /{file} && (cat /{file}; head -c 1000000 /dev/urandom) > /{file}.data\n")
        };
        let mut dockerfile = format!("FROM {}\n", self.place.base);
        for step in ["shared1", "shared2", "shared3"] {
            dockerfile.push_str(&hash("shared", step, &format!("{} {step}", self.word)));
        }
        dockerfile.push_str("COPY main.txt /main.txt\n");
        for step in ["own1", "own2"] {
            dockerfile.push_str(&hash("own", step, &format!("{app} {step}")));
        }
        let dir = self.repo.join("apps").join(app);
        write(&dir.join("Dockerfile"), &dockerfile);
        write(&dir.join("main.txt"), &format!("{} {app}\n", self.word));
        write(&dir.join("convox.yml"), "services:\n  web:\n    build: .\n    command: sh\n");
    }

    fn bake_file(&self) -> String {
        let targets: Vec<String> = self.names().iter().map(|app| format!("\"{app}\"")).collect();
        let mut text = format!("group \"default\" {{ targets = [{}] }}\n", targets.join(", "));
        for app in self.names() {
            let (one, two) = self.tags(&app);
            text.push_str(&format!("target \"{app}\" {{\n  context = \"apps/{app}\"\n  tags = [\"{one}\", \"{two}\"]\n}}\n"));
        }
        text
    }

    fn tags(&self, app: &str) -> (String, String) {
        (format!("{}/{app}:web.v1", self.prefix()), format!("{}/{app}:web.latest", self.prefix()))
    }

    fn commit(&self, message: &str) {
        run(&mut git(&self.repo, &["add", "-A"]));
        run(&mut git(&self.repo, &["commit", "-q", "-m", message]));
    }

    /// Changes the source of one app.
    pub fn change_one(&self) {
        write(&self.repo.join("apps/app01/main.txt"), &format!("{} app01, changed\n", self.word));
        self.commit("One app");
    }

    /// Rolls out what was never built.
    pub fn cold(&self) -> Duration {
        self.again()
    }

    /// Rolls out.
    pub fn again(&self) -> Duration {
        match self.way {
            Way::Build => timed(&mut self.offbuild("build")),
            Way::Deploy => timed(&mut self.offbuild("deploy")),
            Way::Loop => timed(&mut self.shell(&self.one_by_one())),
            Way::AtOnce => timed(&mut self.shell(&self.at_once())),
            Way::Bake => timed(Command::new("docker").args(["buildx", "bake", "--push"]).current_dir(&self.repo)),
        }
    }

    fn offbuild(&self, command: &str) -> Command {
        let mut offbuild = Command::new(OFFBUILD);
        offbuild
            .arg(command)
            .args(option("jobs").map(|jobs| format!("--jobs={jobs}")))
            .current_dir(&self.repo)
            .envs(&self.place.variables)
            .env("GITHUB_ACTIONS", "");
        offbuild
    }

    fn shell(&self, script: &str) -> Command {
        let mut shell = Command::new("sh");
        shell.args(["-ec", script]).current_dir(&self.repo).env("DOCKER_BUILDKIT", "1");
        shell
    }

    fn commands(&self, app: &str) -> (String, String) {
        let (one, two) = self.tags(app);
        let docker = self.place.docker.display();
        (format!("{docker} build --progress plain -t {one} -t {two} apps/{app}"), format!("{docker} push {one} && {docker} push {two}"))
    }

    fn one_by_one(&self) -> String {
        self.names().iter().map(|app| self.commands(app)).map(|(build, push)| format!("{build}\n{push}\n")).collect()
    }

    fn at_once(&self) -> String {
        let (builds, pushes): (Vec<String>, Vec<String>) = self.names().iter().map(|app| self.commands(app)).unzip();
        // `wait` alone would forget how they ended.
        let all = |commands: Vec<String>| {
            let start: String = commands.iter().map(|command| format!("( {command} ) & all=\"$all $!\"\n")).collect();
            format!("all=\n{start}for one in $all; do wait $one; done\n")
        };
        format!("{}{}", all(builds), all(pushes))
    }

    /// Takes its images off the engine.
    pub fn clean(&self) {
        let docker = &self.place.docker;
        for app in self.names() {
            let pattern = format!("reference={}/{app}", self.prefix());
            let list = run(Command::new(docker).args(["image", "ls", "--format", "{{.ID}}", "--filter", &pattern]));
            for image in list.lines() {
                run(Command::new(docker).args(["image", "rm", "-f", image]));
            }
        }
    }
}
