//! What is kept between runs never changes an answer: random edits, and after each of them `changed` with what is kept is asked
//! against `changed '*'`, which reads everything from disk, and `changed --committed` against a clone of HEAD.

use crate::support::Offbuild;
use crate::support::repo::Repo;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt as _;

#[derive(Debug, Clone)]
enum Step {
    Write(&'static str, &'static str),
    Delete(&'static str),
    Rename(&'static str, &'static str),
    Link(&'static str, &'static str),
    /// Everything, or the tracked files only.
    Commit(bool),
    Variable(&'static str),
    Run,
}

const CONVOX: [&str; 3] = [
    "services:\n  web:\n    build: .\n    port: 3000\n",
    "services:\n  web:\n    build: {path: ../.., manifest: docker/Dockerfile}\n    port: 3000\n",
    "services:\n  web:\n    image: busybox:1\n",
];
const DOCKERFILES: [&str; 4] = [
    "FROM x\nCOPY libs/one /one\n",
    "FROM x\nCOPY libs /libs\n",
    "ARG LIB=one\nFROM x\nARG LIB\nCOPY libs/${LIB} /lib\n",
    "FROM x\nCOPY . /\n",
];
const COMPOSE: [&str; 2] = ["web:\n  image: x/y:web\n  build: ../../libs/${LIB:-one}\n", "volumes: {}\n"];
const IGNORES: [&str; 3] = ["**/*.md\n", "libs/two\n", "apps\n!apps/a\n"];
const APPS: [&str; 4] = [
    "version: 1\ndiscover: {include: ['apps/*']}\nregistry: {repository: 'r.example/{app}'}\nracks: {one: {}}\n",
    "version: 1\ndiscover: {include: ['*', 'apps/*']}\nregistry: {repository: 'r.example/{app}'}\nracks: {one: {}, two: {}}\nglobal: ['ci/**']\n\
     apps: {a: {uses: [libs/two], ignore: ['*.md']}}\ndefaults: {racks: [one, two]}\n",
    "version: 1\ndiscover: {include: ['**']}\nregistry: {repository: 'r.example/{app}'}\nracks: {one: {}}\nignore: ['**/*.md']\nunowned: all\n",
    "version: 1\ndiscover: {include: ['apps/*']}\nregistry: {repository: 'r.example/{app}'}\nracks: {one: {}}\ndefaults: {precision: context}\n\
     shared: {common: ['libs/${LIB:-one}']}\napps: {apps/b: {uses: [common], hooks: {before_build: tools/hook.sh}}}\n",
];
const PLAIN: [&str; 9] = [
    "apps/a/x.txt",
    "apps/b/x.txt",
    "apps/b/readme.md",
    "libs/one/x.txt",
    "libs/two/x.txt",
    "libs/two/readme.md",
    "ci/run.txt",
    "top.txt",
    "apps/b/deploy/lib.txt",
];

fn some_step() -> impl Strategy<Value = Step> {
    let write = |paths: &'static [&'static str], texts: &'static [&'static str]| {
        (proptest::sample::select(paths), proptest::sample::select(texts)).prop_map(|(path, text)| Step::Write(path, text))
    };
    let manifests: &[&str] = &["apps/a/convox.yml", "apps/b/convox.yml", "apps/c/convox.yml", "convox.yml", "hidden/convox.yml"];
    let odd: &[&str] = &[
        "apps/a/convox.yml",
        "apps/b",
        "apps/b/deploy/before_build.sh",
        "apps/a/.dockerignore",
        "docker/Dockerfile",
        "apps/a/docker-compose.yml",
        "libs/one",
        "apps/a/Dockerfile",
        ".dockerignore",
        "apps/a/x.txt",
        "libs/one/x.txt",
        ".gitignore",
    ];
    prop_oneof![
        6 => write(&PLAIN, &["1", "2", "3"]),
        3 => write(&["apps.yaml"], &APPS),
        3 => write(manifests, &CONVOX),
        3 => write(&["apps/a/Dockerfile", "apps/b/Dockerfile", "docker/Dockerfile"], &DOCKERFILES),
        1 => write(&["apps/a/docker-compose.yml", "apps/d/docker-compose.yml"], &COMPOSE),
        1 => write(&["apps/a/.env", "apps/d/.env"], &["LIB=two\n", "LIB=one\n"]),
        2 => write(&[".dockerignore", "apps/a/.dockerignore", "docker/Dockerfile.dockerignore"], &IGNORES),
        1 => write(&["apps/a/deploy/before_build.sh", "apps/b/deploy/before_build.sh", "apps/b/tools/hook.sh"], &["#!/bin/sh\n"]),
        1 => write(&[".gitignore"], &["hidden\n", "apps/c\n.dockerignore\n", ""]),
        2 => proptest::sample::select(odd).prop_map(Step::Delete),
        1 => (proptest::sample::select(odd), proptest::sample::select(odd)).prop_map(|(from, to)| Step::Rename(from, to)),
        1 => proptest::sample::select(odd).prop_map(|path| Step::Link(path, "../../libs/two")),
        5 => any::<bool>().prop_map(Step::Commit),
        1 => proptest::sample::select(vec!["", "one", "two"]).prop_map(Step::Variable),
        6 => Just(Step::Run),
    ]
}

struct Case {
    repo: Repo,
    variable: &'static str,
    asked: usize,
}

impl Case {
    fn new() -> Self {
        let repo = Repo::new();
        repo.write("apps.yaml", APPS[0]).write("docker/Dockerfile", DOCKERFILES[0]);
        for app in ["a", "b"] {
            repo.write(&format!("apps/{app}/convox.yml"), CONVOX[0])
                .write(&format!("apps/{app}/Dockerfile"), "FROM x\nCOPY . /\n")
                .write(&format!("apps/{app}/x.txt"), "0");
        }
        repo.write("libs/one/x.txt", "0").write("libs/two/x.txt", "0");
        repo.commit("First");
        Self { repo, variable: "", asked: 0 }
    }

    /// A step that cannot be taken is none.
    fn take(&mut self, step: &Step) {
        let full = |path: &str| self.repo.path(path);
        let away = |path: &str| {
            let path = full(path);
            if path.is_dir() && !path.is_symlink() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }
        };
        let make_room = |path: &str| {
            let _ = away(path);
            std::fs::create_dir_all(full(path).parent().unwrap()).is_ok()
        };
        match step {
            Step::Write(path, text) => {
                let beside = full(path).parent().is_some_and(|dir| std::fs::create_dir_all(dir).is_ok());
                if beside && std::fs::write(full(path), text).is_ok() && path.ends_with(".sh") {
                    std::fs::set_permissions(full(path), std::fs::Permissions::from_mode(0o755)).unwrap();
                }
            }
            Step::Delete(path) => drop(away(path)),
            Step::Rename(from, to) => {
                let nested = from.starts_with(&format!("{to}/")) || to.starts_with(&format!("{from}/")) || from == to;
                if !nested && full(from).symlink_metadata().is_ok() && make_room(to) {
                    std::fs::rename(full(from), full(to)).unwrap();
                }
            }
            Step::Link(path, target) => {
                if make_room(path) {
                    std::os::unix::fs::symlink(target, full(path)).unwrap();
                }
            }
            Step::Commit(all) => {
                self.repo.git(&["add", if *all { "-A" } else { "-u" }]);
                self.repo.git(&["commit", "-q", "--allow-empty", "-m", "A step"]);
            }
            Step::Variable(value) => self.variable = value,
            Step::Run => self.ask(),
        }
    }

    fn changed(&self, dir: &std::path::Path, args: &[&str]) -> (i32, Value) {
        let offbuild = Offbuild::new(dir, self.repo.dir.path()).env("LIB", self.variable);
        let done = offbuild.run(&[&["changed", "--format", "json", "--base", "HEAD~1"], args].concat());
        // What is wrong is told in other words when apps are selected; it has no answer on standard output.
        let mut answer: Value = serde_json::from_str(&done.stdout).unwrap_or_default();
        // A selection tells nothing of apps that are gone.
        if let Some(answer) = answer.as_object_mut() {
            answer.remove("removed");
        }
        (done.code, answer)
    }

    fn ask(&mut self) {
        if self.repo.git(&["rev-list", "--count", "HEAD"]) == "1" {
            return;
        }
        self.asked += 1;
        let root = self.repo.root();
        let everything = self.changed(&root, &["*"]);
        assert_eq!(self.changed(&root, &[]), everything, "with what is kept");
        assert_eq!(self.changed(&root, &[]), everything, "asked again");
        let clone = self.repo.dir.path().join("clone");
        self.repo.git(&["worktree", "add", "-q", "--detach", clone.to_str().unwrap(), "HEAD"]);
        let committed = self.changed(&clone, &["*"]);
        self.repo.git(&["worktree", "remove", "--force", clone.to_str().unwrap()]);
        assert_eq!(branchless(self.changed(&root, &["--committed"])), branchless(committed), "of the commits alone");
    }
}

/// A worktree of its own is on no branch.
fn branchless((code, mut answer): (i32, Value)) -> (i32, Value) {
    if let Some(head) = answer.get_mut("head").and_then(Value::as_object_mut) {
        head.remove("branch");
    }
    (code, answer)
}

#[test]
fn what_is_kept_never_changes_an_answer() {
    let cases: u32 = std::env::var("OFFBUILD_CASES").ok().map_or(8, |cases| cases.parse().unwrap());
    let config = ProptestConfig { cases, max_shrink_iters: 40, failure_persistence: None, ..ProptestConfig::default() };
    let asked = std::cell::Cell::new(0);
    TestRunner::new(config)
        .run(&proptest::collection::vec(some_step(), 4..24), |steps| {
            let mut case = Case::new();
            steps.iter().for_each(|step| case.take(step));
            case.ask();
            asked.set(asked.get() + case.asked);
            Ok(())
        })
        .unwrap();
    assert!(asked.get() > 0, "nothing was asked");
}

#[test]
fn what_is_not_committed_counts_unless_commits_are_asked_for() {
    let repo = Repo::new();
    repo.write("apps.yaml", APPS[0]);
    for app in ["web", "api", "jobs"] {
        repo.write(&format!("apps/{app}/convox.yml"), CONVOX[2]).write(&format!("apps/{app}/a.txt"), "1\n");
    }
    repo.commit("All");
    repo.write("apps/web/a.txt", "2\n").commit("One");
    repo.write("apps/api/a.txt", "2\n").write("apps/jobs/new.txt", "new\n");
    let offbuild = Offbuild::new(&repo.root(), repo.dir.path());
    let changed = |more: &[&str]| offbuild.run(&[&["changed", "--base", "HEAD~1", "--format", "names"], more].concat()).code(0).stdout;
    for _ in 0..2 {
        assert_eq!(changed(&[]), "api\njobs\nweb\n");
        assert_eq!(changed(&["--committed"]), "web\n");
    }
    // What is kept is kept in two files, which may be deleted, and may be damaged.
    let cache = repo.path(".offbuild/cache");
    let files: Vec<_> = std::fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 2);
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        for damage in [&bytes[..bytes.len() / 2], &[0; 64], &[bytes.as_slice(), b"x"].concat()] {
            std::fs::write(&file, damage).unwrap();
            assert_eq!(changed(&[]), "api\njobs\nweb\n");
            std::fs::write(&file, damage).unwrap();
            assert_eq!(changed(&["--committed"]), "web\n");
        }
    }
    std::fs::remove_dir_all(cache).unwrap();
    assert_eq!(changed(&["--committed"]), "web\n");
    assert_eq!(repo.git(&["status", "--porcelain"]), " M apps/api/a.txt\n?? apps/jobs/new.txt");
    // Where nothing can be kept, the answer is the same, and `-v` says why it takes longer.
    let cache = repo.path(".offbuild/cache");
    std::fs::remove_dir_all(&cache).unwrap();
    std::fs::write(&cache, "").unwrap();
    for (more, times) in [(&["changed", "-v"][..], 1), (&["changed"], 0)] {
        let done = offbuild.run(&[more, &["--base", "HEAD~1", "--committed", "--format", "names"]].concat()).code(0);
        assert_eq!((done.stdout.as_str(), done.stderr.matches("cannot be kept in `.offbuild/cache`").count()), ("web\n", times));
    }
}

/// What an app's inputs are derived from changes, and then a file that only the new rules make an input, or that only the old
/// ones did: committed, or not.
#[test]
fn what_rules_are_derived_from_is_noticed() {
    let compose = "web:\n  image: x/y:web\n  build: ../../libs/one\n";
    let elsewhere = "web:\n  image: x/y:web\n  build: ../../libs/${LIB:-three}\n";
    let table: [(&str, &[(&str, &str)], &str, &str); 12] = [
        ("nothing", &[], "libs/one/x.txt", "a\n"),
        ("a Dockerfile", &[("docker/Dockerfile", "FROM x\nCOPY libs/two /two\n")], "libs/two/x.txt", "a\n"),
        ("what a Dockerfile does no more", &[("docker/Dockerfile", "FROM x\nCOPY libs/two /two\n")], "libs/one/x.txt", ""),
        ("a manifest", &[("apps/b/convox.yml", CONVOX[1])], "libs/one/x.txt", "a\nb\n"),
        ("an ignore file that was not there", &[(".dockerignore", "libs/one/*.txt\n")], "libs/one/x.txt", ""),
        ("an ignore file that goes first", &[("docker/Dockerfile.dockerignore", "**/x.txt\n")], "libs/one/x.txt", ""),
        ("a new app", &[("apps/new/convox.yml", CONVOX[1])], "libs/one/x.txt", "a\nnew\n"),
        ("a new app of the other kind", &[("apps/new/compose.yml", compose)], "libs/one/x.txt", "a\nnew\n"),
        ("a variable's default", &[("apps/c/.env", "LIB=two\n")], "libs/two/x.txt", "c\n"),
        ("no app's file", &[("libs/one/more.txt", "more")], "libs/two/x.txt", ""),
        ("an app's own file", &[("apps/b/more.txt", "more")], "libs/two/x.txt", ""),
        ("a file where a directory was listed", &[("apps/plain", "no app")], "libs/one/x.txt", "a\n"),
    ];
    for (what, edits, probe, expected) in table {
        for committed in [true, false] {
            let repo = Repo::new();
            repo.write("apps.yaml", APPS[0]).write("docker/Dockerfile", DOCKERFILES[0]);
            repo.write("apps/a/convox.yml", CONVOX[1]).write("apps/b/convox.yml", CONVOX[2]).write("apps/c/docker-compose.yml", elsewhere);
            repo.write("libs/one/x.txt", "0").write("libs/two/x.txt", "0").commit("First");
            let offbuild = Offbuild::new(&repo.root(), repo.dir.path());
            let asked = |args: &[&str]| offbuild.run(&[&["changed", "--format", "names", "--base"], args].concat()).code(0).stdout;
            assert_eq!(asked(&["HEAD"]), "");
            for (path, text) in edits {
                repo.write(path, text);
            }
            if committed {
                repo.commit("What rules are derived from");
                repo.write(probe, "1").commit("The file");
                assert_eq!(asked(&["HEAD~1", "--committed"]), expected, "{what}, committed");
                assert_eq!(asked(&["HEAD~1"]), expected, "{what}, committed, with the work tree");
            } else {
                repo.write(probe, "1").git(&["commit", "-q", "-m", "The file", "--", probe]);
                let (kept, read) = (asked(&["HEAD~1"]), asked(&["HEAD~1", "*"]));
                assert_eq!(kept, read, "{what}, not committed");
                assert!(expected.lines().all(|app| kept.lines().any(|line| line == app)), "{what}, not committed: {kept}");
            }
        }
    }
}

#[test]
fn what_git_ignores_is_noticed() {
    let repo = Repo::new();
    repo.write("apps.yaml", APPS[1]).write("docker/Dockerfile", DOCKERFILES[0]).write(".gitignore", "made\n.dockerignore\n");
    repo.write("apps/a/convox.yml", CONVOX[1]).write("made/x.txt", "").write("libs/one/x.txt", "0").commit("First");
    repo.write("libs/one/x.txt", "1").commit("Second");
    let offbuild = Offbuild::new(&repo.root(), repo.dir.path());
    let asked = || offbuild.run(&["changed", "--format", "names", "--base", "HEAD~1"]).code(0).stdout;
    assert_eq!(asked(), "a\n");
    repo.write("made/convox.yml", "services:\n  web:\n    build: {path: .., manifest: docker/Dockerfile}\n    port: 3000\n");
    assert_eq!(asked(), "a\nmade\n");
    std::fs::remove_file(repo.path("made/convox.yml")).unwrap();
    repo.write(".dockerignore", "libs\n");
    assert_eq!(asked(), "");
}

#[test]
fn a_hook_that_lost_its_executable_bit_is_told() {
    let repo = Repo::new();
    repo.write("apps.yaml", APPS[0]).write("apps/a/convox.yml", CONVOX[2]).write("apps/a/deploy/before_build.sh", "#!/bin/sh\n");
    repo.commit("First");
    let offbuild = Offbuild::new(&repo.root(), repo.dir.path());
    offbuild.run(&["changed", "--base", "HEAD"]).code(0);
    std::fs::set_permissions(repo.path("apps/a/deploy/before_build.sh"), std::fs::Permissions::from_mode(0o644)).unwrap();
    offbuild.run(&["changed", "--base", "HEAD"]).code(2).says("is not executable");
}

#[test]
fn variables_are_noticed() {
    let repo = Repo::new();
    let token = "defaults: {precision: context, build: {args: {TOKEN: '${TOKEN}'}}}";
    repo.write("apps.yaml", APPS[3].replace("defaults: {precision: context}", token))
        .write("apps/b/convox.yml", CONVOX[2])
        .write("apps/b/tools/hook.sh", "#!/bin/sh\n");
    repo.write("libs/one/x.txt", "0").write("libs/two/x.txt", "0").commit("First");
    repo.write("libs/two/x.txt", "1").commit("Second");
    let secret = "a-very-long-value-of-a-variable";
    let asked = |lib: &str| {
        let offbuild = Offbuild::new(&repo.root(), repo.dir.path()).env("LIB", lib).env("TOKEN", secret);
        offbuild.run(&["changed", "--format", "names", "--base", "HEAD~1"]).code(0).stdout
    };
    assert_eq!([asked("one"), asked("two"), asked("one"), asked("")], ["", "b\n", "", ""]);
    // What a variable holds is nowhere to be read.
    for entry in std::fs::read_dir(repo.path(".offbuild/cache")).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains(secret));
    }
}

/// A repository whose apps read `docker/Dockerfile` (`a`) and what a variable of `.env` says (`c`), with rules kept for it.
fn kept() -> Repo {
    let repo = Repo::new();
    let variable = "web:\n  image: x/y:web\n  build: ../../libs/${LIB:-one}\n";
    repo.write("apps.yaml", APPS[0]).write("docker/Dockerfile", DOCKERFILES[0]).write("apps/a/convox.yml", CONVOX[1]);
    repo.write("apps/c/docker-compose.yml", variable).write("libs/one/x.txt", "0").write("libs/two/x.txt", "0").commit("First");
    std::fs::create_dir(repo.dir.path().join("outside")).unwrap();
    std::fs::write(repo.dir.path().join("outside/env"), "LIB=two\n").unwrap();
    repo
}

fn link(repo: &Repo, path: &str, target: impl AsRef<std::path::Path>) {
    std::os::unix::fs::symlink(target, repo.path(path)).unwrap();
}

#[test]
fn what_git_does_not_tell_of_is_noticed() {
    use std::os::unix::ffi::OsStrExt as _;
    let table: [(&str, &dyn Fn(&Repo), &str); 8] = [
        ("a link out of the repository", &|repo| link(repo, "apps/c/.env", "../../../outside/env"), "c\n"),
        ("an absolute link", &|repo| link(repo, "apps/c/.env", repo.dir.path().join("outside/env")), "c\n"),
        (
            "a link whose target is no text",
            &|repo| {
                let name = std::ffi::OsStr::from_bytes(b"env\xff");
                std::fs::write(repo.root().join(name), "LIB=two\n").unwrap();
                link(repo, "apps/c/.env", std::path::Path::new("../..").join(name));
            },
            "c\n",
        ),
        (
            "a link that goes up from another",
            &|repo| {
                repo.write("deep/x/y", "").write("deep/env", "LIB=two\n").write("env", "LIB=one\n");
                link(repo, "lnk", "deep/x");
                link(repo, "apps/c/.env", "../../lnk/../env");
            },
            "c\n",
        ),
        (
            "a file that git was told not to look at",
            &|repo| {
                repo.git(&["update-index", "--assume-unchanged", "docker/Dockerfile"]);
                repo.write("docker/Dockerfile", "FROM x\nCOPY libs/two /two\n");
            },
            "a\n",
        ),
        (
            "a file outside of a sparse checkout",
            &|repo| {
                repo.git(&["update-index", "--skip-worktree", "docker/Dockerfile"]);
                std::fs::remove_file(repo.path("docker/Dockerfile")).unwrap();
            },
            "a\n",
        ),
        (
            "a file that a filter makes another",
            &|repo| {
                repo.git(&["config", "filter.lib.clean", "sed s/two/one/"]);
                repo.git(&["config", "filter.lib.smudge", "sed s/one/two/"]);
                repo.write(".gitattributes", "docker/Dockerfile filter=lib\n").write("docker/Dockerfile", "FROM x\nCOPY libs/two /two\n");
            },
            "a\n",
        ),
        (
            "a submodule that is an app",
            &|repo| {
                let commit = repo.git(&["rev-parse", "HEAD"]);
                repo.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},apps/s")]);
                repo.write("apps/s/convox.yml", "services:\n  web:\n    build: {path: ../.., manifest: docker/Two}\n    port: 3000\n");
                repo.write("docker/Two", "FROM x\nCOPY libs/two /two\n").git(&["add", "docker"]);
                repo.git(&["commit", "-q", "-m", "A submodule"]);
            },
            "s\n",
        ),
    ];
    for (what, make, expected) in table {
        let repo = kept();
        let offbuild = Offbuild::new(&repo.root(), repo.dir.path());
        let asked = |args: &[&str]| offbuild.run(&[&["changed", "--format", "names", "--base", "HEAD~1"], args].concat());
        offbuild.run(&["changed", "--base", "HEAD"]).code(0);
        make(&repo);
        if what != "a submodule that is an app" {
            repo.git(&["add", "-A"]);
            repo.git(&["commit", "-q", "--allow-empty", "-m", what]);
        }
        repo.write("libs/two/x.txt", "1").git(&["commit", "-q", "-m", "The file", "--", "libs/two/x.txt"]);
        assert_eq!(asked(&["*"]).code(0).stdout, expected, "{what}, everything read");
        assert_eq!(asked(&[]).code(0).stdout, expected, "{what}");
        if !what.contains("git was told") && !what.contains("sparse") && !what.contains("filter") {
            assert_eq!(asked(&["--committed"]).code(0).stdout, expected, "{what}, commits alone");
        }
    }
}

#[test]
fn a_configuration_is_the_one_of_the_commits_and_no_link() {
    let repo = kept();
    repo.write("sub/apps.yaml", APPS[0]).write("sub/apps/z/convox.yml", CONVOX[2]).commit("A configuration of its own");
    repo.write("sub/apps/z/x.txt", "1").commit("Its app");
    let sub = Offbuild::new(&repo.path("sub"), repo.dir.path());
    let root = Offbuild::new(&repo.root(), repo.dir.path());
    assert_eq!(root.run(&["changed", "--format", "names", "--base", "HEAD~1"]).code(0).stdout, "");
    std::fs::remove_file(repo.path("sub/apps.yaml")).unwrap();
    assert_eq!(sub.run(&["changed", "--format", "names", "--base", "HEAD~1", "--committed"]).code(0).stdout, "z\n");
    std::fs::rename(repo.path("apps.yaml"), repo.path("real.yaml")).unwrap();
    link(&repo, "apps.yaml", "real.yaml");
    root.run(&["changed", "--base", "HEAD~1"]).code(2).says("the configuration `apps.yaml` is a link");
}
