//! `why`, `changed` and `lint` as a user runs them: without racks, over real histories.

use crate::support::Offbuild;
use crate::support::repo::Repo;
use offbuild::changes::git::Git;
use offbuild::changes::gitcli::GitCli;
use offbuild::changes::{History, Log};
use offbuild::names::CommitId;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Two apps built from the repository's root, a shared library, and an app that is alone.
pub(super) fn repo() -> Repo {
    let repo = Repo::new();
    repo.write(
        "apps.yaml",
        "version: 1\n\
         discover: {include: [\"apps/*\"]}\n\
         registry: {repository: \"127.0.0.1:9/{app}\"}\n\
         racks: {staging: {host: 127.0.0.1:9, password: a-password}}\n\
         ignore: [\"**/*.md\"]\n\
         apps:\n\
         \x20 api:\n\
         \x20   uses: [\"libs/auth/**\"]\n",
    );
    repo.write(".dockerignore", "libs/auth/tests\napps/api/notes.txt\n");
    for app in ["api", "web"] {
        repo.write(
            &format!("apps/{app}/convox.yml"),
            "services:\n  main:\n    build: {path: ../.., manifest: apps/APP/Dockerfile}\n".replace("APP", app),
        );
        repo.write(&format!("apps/{app}/main.rb"), "puts 1\n");
    }
    repo.write("apps/api/Dockerfile", "FROM scratch\nCOPY libs/auth /auth\nCOPY apps/api /app\n");
    repo.write("apps/web/Dockerfile", "FROM scratch\nCOPY apps/web /app\n");
    repo.write("apps/api/notes.txt", "none\n");
    repo.write("libs/auth/auth.rb", "1\n").write("libs/auth/tests/x.rb", "1\n").write("Makefile", "all:\n");
    repo.commit("Begin");
    repo
}

pub(super) fn offbuild(repo: &Repo) -> Offbuild {
    Offbuild::new(&repo.root(), repo.dir.path())
}

pub(super) fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn why_names_every_reason_with_its_rule_and_who_waits() {
    let repo = repo();
    let base = repo.git(&["rev-parse", "HEAD"]);
    repo.write("libs/auth/auth.rb", "2\n").commit("Ask for a password");
    repo.write("apps/web/main.rb", "puts 2\n").commit("Greet");
    repo.write("apps/api/README.md", "text\n").commit("Explain");
    let done = offbuild(&repo).run(&["why", "api", "--base", &base, "--format", "json"]).code(0);
    let answer = parsed(&done.stdout);
    assert_eq!(answer["version"], 1);
    let target = &answer["targets"][0];
    assert_eq!((&target["target"], &target["changed"]), (&json!("api@staging"), &json!(true)));
    assert_eq!(target["base"]["info"]["subject"], "Begin");
    let reasons: Vec<(&Value, &Value, &Value)> = target["reasons"]
        .as_array()
        .unwrap()
        .iter()
        .map(|reason| (&reason["path"], &reason["rule"]["kind"], &reason["rule"]["place"]["file"]))
        .collect();
    let path = json!("libs/auth/auth.rb");
    assert!(reasons.contains(&(&path, &json!("uses"), &json!("apps.yaml"))), "{reasons:?}");
    assert!(reasons.contains(&(&path, &json!("dockerfile"), &json!("apps/api/Dockerfile"))), "{reasons:?}");
    let waiting = &target["waiting"];
    assert_eq!((&waiting["since_base"], &waiting["more"], &waiting["authors"]), (&json!(3), &json!(false), &json!(["Ada"])));
    assert_eq!(waiting["commits"][0]["commit"]["subject"], "Ask for a password");
    assert_eq!(waiting["commits"].as_array().unwrap().len(), 1);
    let near: Vec<&Value> = target["near"].as_array().unwrap().iter().map(|near| &near["why"]).collect();
    assert_eq!(near, ["ignored", "outside"]);

    let text = offbuild(&repo).run(&["why", "api@staging", "--base", &base]).code(0).stdout;
    assert!(text.starts_with("api@staging: changed\n"), "{text}");
    assert!(text.contains("modified libs/auth/auth.rb (uses libs/auth/**, apps.yaml:8:12)"), "{text}");
    assert!(text.contains("waiting: 1 commit of 1 author (3 commits since)"), "{text}");
}

#[test]
fn why_not_names_what_came_nearest_and_what_kept_it_out() {
    let repo = repo();
    let base = repo.git(&["rev-parse", "HEAD"]);
    repo.write("apps/web/README.md", "text\n").write("apps/api/main.rb", "puts 2\n").write("Makefile", "all: x\n").commit("More");
    let text = offbuild(&repo).run(&["why", "web", "--base", &base]).code(0).stdout;
    let told: Vec<&str> = text.lines().filter(|line| !line.contains("just now") && !line.contains("--base")).collect();
    assert_eq!(
        told,
        [
            "web@staging: up-to-date",
            "  because nothing it is made of changed",
            "  nearest, and not its inputs",
            "    added apps/web/README.md: taken out by ignore **/*.md, apps.yaml:5:10",
            "    modified apps/api/main.rb: outside of directory apps/web, apps.yaml:2:22",
            "  nothing waits: of 1 commit since, none touches it",
        ]
    );
    offbuild(&repo).run(&["why", "wbe", "--base", &base]).code(2).says("web");
}

#[test]
fn what_if_needs_no_rack_no_base_and_no_change() {
    let repo = repo();
    let run = |args: &[&str]| offbuild(&repo).run(args).code(0).stdout;
    assert_eq!(
        run(&["why", "--what-if", "libs/auth/tests/x.rb", "libs/auth/new.rb", "Makefile"]),
        "api: would be deployed\n\
         \x20   added libs/auth/new.rb (dockerfile libs/auth, apps/api/Dockerfile:2:1)\n\
         \x20   added libs/auth/new.rb (uses libs/auth/**, apps.yaml:8:12)\n\
         \x20   modified libs/auth/tests/x.rb (uses libs/auth/**, apps.yaml:8:12)\n\
         web: would be left alone\n\
         no app owns Makefile\n"
    );
    let answer = parsed(&run(&["why", "web", "--what-if", "apps/web", "--format", "json"]));
    assert_eq!(answer["apps"].as_array().unwrap().len(), 1);
    assert_eq!(answer["apps"][0]["changed"], true);
    assert_eq!(answer["what_if"].as_array().unwrap().len(), 3);
    // From inside a directory, as a shell completes paths.
    let inside = offbuild(&repo).directory(&repo.path("apps/web")).run(&["why", "web", "--what-if", "../../apps/web/main.rb"]).code(0);
    assert!(inside.stdout.contains("modified apps/web/main.rb (directory apps/web"), "{}", inside.stdout);
    offbuild(&repo).run(&["why", "web", "--what-if", "../../x"]).code(2).says("outside the repository");
    offbuild(&repo).run(&["why"]).code(2);
}

/// Over a real history: without the paths that are named the app is left alone, with one of them it is not.
#[test]
fn putting_back_what_is_named_flips_the_verdict() {
    let repo = repo();
    let base = repo.git(&["rev-parse", "HEAD"]);
    for path in ["apps/api/main.rb", "libs/auth/auth.rb", "libs/auth/tests/x.rb", "Makefile", "apps/web/main.rb", "apps/api/notes.txt"] {
        repo.write(path, "changed\n");
    }
    repo.commit("Everything");
    let ask = || {
        let answer = parsed(&offbuild(&repo).run(&["why", "api", "--base", &base, "--format", "json"]).code(0).stdout);
        let target = answer["targets"][0].clone();
        let paths = target["reasons"].as_array().unwrap().iter().map(|reason| reason["path"].as_str().unwrap().to_owned());
        (target["changed"] == true, paths.collect::<BTreeSet<String>>())
    };
    let (changed, named) = ask();
    assert!(changed);
    assert_eq!(
        named.iter().map(String::as_str).collect::<Vec<_>>(),
        ["apps/api/main.rb", "apps/api/notes.txt", "libs/auth/auth.rb", "libs/auth/tests/x.rb"]
    );
    for path in &named {
        repo.git(&["checkout", "-q", &base, "--", path]);
    }
    repo.commit("Put back");
    assert_eq!(ask(), (false, BTreeSet::new()));
    for path in &named {
        repo.write(path, "changed\n").commit("One");
        assert_eq!(ask(), (true, BTreeSet::from([path.clone()])));
        repo.git(&["checkout", "-q", &base, "--", path]);
        repo.commit("Put back");
    }
}

#[test]
fn changed_answers_in_every_format_and_to_github() {
    let repo = repo();
    let base = repo.git(&["rev-parse", "HEAD"]);
    let outputs = repo.dir.path().join("outputs");
    let run = |args: &[&str]| {
        let all: Vec<&str> = ["changed", "--base", &base].into_iter().chain(args.iter().copied()).collect();
        offbuild(&repo).env("GITHUB_ACTIONS", "true").env("GITHUB_OUTPUT", outputs.display().to_string()).run(&all)
    };
    // Nothing has changed.
    assert_eq!(run(&["--format", "matrix", "--exit-code"]).code(0).stdout, "{\"include\":[]}\n");
    assert_eq!(std::fs::read_to_string(&outputs).unwrap(), "affected=[]\nmatrix={\"include\":[]}\nany=false\n");
    assert_eq!(run(&["--format", "names"]).code(0).stdout, "");

    repo.write("apps/web/main.rb", "puts 2\n").write("Makefile", "x\n");
    repo.commit("Change");
    // What the step wrote before stays an output of its own.
    std::fs::write(&outputs, "mine=1").unwrap();
    let matrix = "{\"include\":[{\"app\":\"web\",\"rack\":\"staging\",\"target\":\"web@staging\"}]}";
    assert_eq!(run(&["--format", "matrix", "--exit-code"]).code(1).stdout, format!("{matrix}\n"));
    assert_eq!(std::fs::read_to_string(&outputs).unwrap(), format!("mine=1\naffected=[\"web\"]\nmatrix={matrix}\nany=true\n"));
    assert_eq!(run(&["--format", "names"]).code(0).stdout, "web\n");
    let answer = parsed(&run(&["--format", "json"]).code(0).stdout);
    let keys: Vec<&str> = answer.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["version", "head", "any", "affected", "targets", "removed", "unowned", "notes"]);
    assert_eq!(answer["affected"], json!(["web"]));
    assert_eq!(answer["unowned"], json!([{"path": "Makefile", "kind": "modified", "dirty": false}]));
    let text = run(&["-v"]).code(0).stdout;
    assert!(text.contains("unowned: modified Makefile"), "{text}");
    run(&["--format", "csv", "--exit-code"]).code(2);
    // More than GitHub takes is said, the answer is the same.
    let manifest = std::fs::read_to_string(repo.root().join("apps/web/convox.yml")).unwrap();
    for number in 0..256 {
        repo.write(&format!("apps/more{number}/convox.yml"), &manifest);
    }
    let done = run(&["--format", "matrix"]).code(0).says("note: the matrix has 257 jobs, and GitHub takes 256");
    assert_eq!(parsed(&done.stdout)["include"].as_array().unwrap().len(), 257);
}

#[test]
fn an_app_that_is_gone_is_removed_and_marks_no_other() {
    let repo = repo();
    let base = repo.git(&["rev-parse", "HEAD"]);
    let removed = || {
        let answer = parsed(&offbuild(&repo).run(&["changed", "--base", &base, "--format", "json"]).code(0).stdout);
        (answer["removed"].clone(), answer["affected"].clone())
    };
    let gone = json!([{"app": "web", "dir": "apps/web", "racks": ["staging"], "base": base}]);
    // Not committed yet, and then committed.
    std::fs::remove_dir_all(repo.path("apps/web")).unwrap();
    assert_eq!(removed(), (gone.clone(), json!([])));
    repo.commit("Remove web");
    assert_eq!(removed(), (gone.clone(), json!([])));
    let text = offbuild(&repo).run(&["changed", "--base", &base]).code(0).stdout;
    assert!(text.contains("web@staging  removed  since"), "{text}");

    // No longer looked for, its directory still there.
    repo.git(&["checkout", "-q", &base, "--", "apps/web"]);
    let file = std::fs::read_to_string(repo.path("apps.yaml")).unwrap();
    repo.write("apps.yaml", file.replace("{include: [\"apps/*\"]}", "{include: [\"apps/*\"], exclude: [\"apps/web\"]}"));
    repo.commit("Leave web out");
    assert_eq!(removed(), (gone, json!([])));

    // Moved: it is changed, not removed.
    repo.write("apps.yaml", file.replace("\"apps/*\"", "\"apps/*\", \"services/*\""));
    std::fs::create_dir(repo.path("services")).unwrap();
    repo.git(&["mv", "apps/web", "services/web"]);
    let manifest = std::fs::read_to_string(repo.path("services/web/convox.yml")).unwrap();
    repo.write("services/web/convox.yml", manifest.replace("apps/web", "services/web"));
    repo.commit("Move web");
    assert_eq!(removed(), (json!([]), json!(["web"])));
}

#[test]
fn lint_names_place_and_cure() {
    let repo = repo();
    let run = |args: &[&str]| offbuild(&repo).run(&[&["lint"], args].concat());
    let answer = parsed(&run(&["--format", "json"]).code(0).stdout);
    assert_eq!((&answer["errors"], &answer["warnings"], &answer["notes"]), (&json!(0), &json!(0), &json!(1)));
    assert_eq!(answer["findings"][0]["check"], "hidden-file");

    repo.write("apps/web/Dockerfile", "FROM scratch\nCOPY libs/auth /auth\nCOPY docs/API.md /\n").write("docs/API.md", "1\n");
    repo.write("apps/api/Dockerfile", "FROM scratch\nCOPY apps/api /app\n");
    let file = std::fs::read_to_string(repo.path("apps.yaml")).unwrap();
    repo.write("apps.yaml", file.replace("[\"libs/auth/**\"]", "[\"libs/auth/**\", \"libs/gone\"]").replace("registry:", "#"));
    let hook = repo.path("apps/web/deploy/after_release.sh");
    std::fs::create_dir_all(hook.parent().unwrap()).unwrap();
    std::fs::write(&hook, "#!/bin/sh\n").unwrap();
    repo.commit("Break");
    let done = run(&[]).code(1);
    let told: Vec<&str> = done.stdout.lines().filter(|line| !line.starts_with("   help: ")).collect();
    for (place, check) in [
        ("apps/web/Dockerfile:2:1: note: ", "[undeclared-read]"),
        ("apps/web/Dockerfile:3:1: error: ", "[ignored-read]"),
        ("apps.yaml:8:12: note: ", "[unread-use]"),
        ("apps.yaml:8:28: warning: ", "[unmatched-use]"),
        (".dockerignore:2:1: note: ", "[hidden-file]"),
        ("apps/web/convox.yml:2:3: error: ", "[no-repository]"),
        ("apps.yaml:2:22: error: hook `after_release` of app `web` is not executable", "[problem]"),
    ] {
        assert!(told.iter().any(|line| line.starts_with(place) && line.ends_with(check)), "{place}{check} is missing in:\n{}", done.stdout);
    }
    for cure in [
        "apps: {web: {uses: [\"libs/auth/**\"]}}",
        "apps: {web: {ignore: [\"!/docs/API.md\"]}}",
        "apps: {api: {ignore: [\"/apps/api/notes.txt\"]}}",
        "chmod +x apps/web/deploy/after_release.sh",
    ] {
        assert!(done.stdout.contains(cure), "{cure} is missing in:\n{}", done.stdout);
    }
    // The cures cure.
    let cured = std::fs::read_to_string(repo.path("apps.yaml")).unwrap().replace("#", "registry:").replace(", \"libs/gone\"", "").replace(
        "    uses: [\"libs/auth/**\"]\n",
        "    ignore: [\"/apps/api/notes.txt\"]\n  web: {uses: [\"libs/auth/**\", \"docs/API.md\"], ignore: [\"!/docs/API.md\"]}\n",
    );
    repo.write("apps.yaml", cured);
    std::fs::remove_dir_all(repo.path("apps/web/deploy")).unwrap();
    let done = run(&[]).code(0);
    assert_eq!(done.stdout, "", "{}", done.stderr);
}

#[test]
fn lint_tells_what_a_build_will_not_find() {
    let repo = repo();
    let dockerfile = "FROM scratch AS base\nONBUILD COPY later /\nCOPY none* /x/\nFROM scratch\nCOPY apps/web/notes.log /\nCOPY dist/app /app\n\
        COPY --from=base /bin/x /bin/x\nCOPY apps/web /web\nCOPY --link apps/web/kept.log /\n";
    repo.write("apps/web/Dockerfile", dockerfile).write("apps/web/notes.log", "1\n").write("apps/web/kept.log", "1\n");
    repo.write(".dockerignore", "apps/api\n**/*.log\n!apps/web/kept.log\n").write(".gitignore", "dist\n").write("dist/app", "1\n");
    repo.commit("Hide");
    let told = || {
        let answer = parsed(&offbuild(&repo).run(&["lint", "web", "--format", "json"]).code(0).stdout);
        let findings = answer["findings"].as_array().unwrap().iter();
        let text = |finding: &Value| {
            let place = format!("{}:{}", finding["place"]["file"].as_str().unwrap(), finding["place"]["line"]);
            format!("{place} {}: {}; {}", finding["check"], finding["message"], finding["cure"]).replace('"', "")
        };
        findings.map(text).collect::<Vec<_>>()
    };
    let found = told();
    let expected = [
        "apps/web/Dockerfile:5 hidden-read: the build reads `apps/web/notes.log`, and `**/*.log` at .dockerignore:2:1 hides it: \
         the build fails, or gets nothing; write `!apps/web/notes.log` as the last line of `.dockerignore`",
        "apps/web/Dockerfile:6 unmatched-read: the build reads `dist/app`, and git has no such file: a fresh checkout lacks it, \
         a change there deploys nothing; commit it, correct the path, or make it in `deploy/before_build.sh`",
    ];
    assert_eq!(found, expected);
    repo.write(".dockerignore", "apps/api\n**/*.log\n!apps/web/kept.log\n!apps/web/notes.log\n")
        .write("apps/web/deploy/before_build.sh", "#!/bin/sh\n");
    crate::support::sh(std::process::Command::new("chmod").arg("+x").arg(repo.path("apps/web/deploy/before_build.sh")));
    repo.commit("Cure");
    assert_eq!(told(), [""; 0]);
}

/// The log of both readers.
fn logs(repo: &Repo, base: &str, limit: usize) -> [Log; 2] {
    let (base, head) = (CommitId::new(base).unwrap(), CommitId::new(repo.git(&["rev-parse", "HEAD"])).unwrap());
    let git = Git::open(&repo.root()).unwrap().unwrap();
    [git.log(&base, &head, limit).unwrap(), GitCli::open(&repo.root()).unwrap().log(&base, &head, limit).unwrap()]
}

#[test]
fn both_readers_tell_the_same_log() {
    let repo = Repo::new();
    repo.write("a", "1").write("b", "1");
    let base = repo.commit("one");
    repo.git(&["checkout", "-q", "-b", "side"]);
    repo.write("a", "2").commit("two");
    repo.git(&["checkout", "-q", "main"]);
    repo.write("b", "2").write("é x", "1").commit("three");
    repo.git(&["merge", "-q", "--no-ff", "--no-commit", "side"]);
    repo.write("c", "1").commit("merged, with one more");
    repo.git(&["mv", "a", "d"]);
    repo.commit("moved");
    let show = |log: &Log| {
        let mut lines: Vec<String> = log
            .commits
            .iter()
            .map(|logged| {
                let paths: Vec<String> = logged.paths.iter().map(ToString::to_string).collect();
                format!("{}: {}", logged.commit.subject, paths.join(", "))
            })
            .collect();
        // Commits of one second on two branches have no order.
        lines.sort();
        (lines, log.more)
    };
    let [one, two] = logs(&repo, &base, 100);
    assert_eq!(show(&one), show(&two));
    assert_eq!(show(&one).0, ["merged, with one more: c", "moved: a, d", "three: b, é x", "two: a"]);
    let [one, two] = logs(&repo, &base, 1);
    assert_eq!((one.commits.len(), one.more), (1, true));
    assert_eq!(one, two);
    let head = repo.git(&["rev-parse", "HEAD"]);
    assert_eq!(logs(&repo, &head, 5), [Log::default(), Log::default()]);

    // A clone whose history is cut off says so, and blames nothing on the commit at its border.
    let clone = repo.dir.path().join("clone");
    repo.git(&["clone", "-q", "--depth", "2", &format!("file://{}", repo.root().display()), &clone.display().to_string()]);
    let head = CommitId::new(head).unwrap();
    let absent = CommitId::new(crate::support::sh(&mut crate::support::repo::git(&clone, &["rev-parse", "HEAD~1"]))).unwrap();
    for history in [&Git::open(&clone).unwrap().unwrap() as &dyn History, &GitCli::open(&clone).unwrap()] {
        assert_eq!(history.log(&absent, &head, 9).unwrap().commits.len(), 1);
        assert!(!history.log(&absent, &head, 9).unwrap().more);
    }
}
