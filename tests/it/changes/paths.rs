//! What git can do to a path, beyond what the readers' own tests show: LFS pointers, repositories within and elsewhere, and
//! what a build would go without. Through the binary, as a user asks.

use super::{Repo, changed, dirty, git};
use crate::support::Offbuild;
use std::path::Path;

const POINTER: &str =
    "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n";

/// Two apps, whose builds read a library each by its own name.
pub(super) fn with_apps(options: &[&str]) -> Repo {
    let repo = Repo::with(options);
    repo.write("apps.yaml", "version: 1\ndiscover: {include: [\"apps/*\"]}\nregistry: {repository: \"127.0.0.1:9/{app}\"}\nracks: {staging: {host: 127.0.0.1:9, password: a}}\n");
    for app in ["api", "web"] {
        let manifest = format!("services:\n  main:\n    build: {{path: ../.., manifest: apps/{app}/Dockerfile}}\n");
        repo.write(&format!("apps/{app}/convox.yml"), &manifest);
        repo.write(&format!("apps/{app}/Dockerfile"), &format!("FROM scratch\nCOPY apps/{app} /app\nCOPY libs/{app} /lib\n"));
        repo.write(&format!("libs/{app}/x"), "x");
    }
    repo
}

pub(super) fn offbuild(dir: &Path, home: &Path) -> Offbuild {
    Offbuild::new(dir, home).env("GIT_CONFIG_GLOBAL", "/dev/null")
}

/// The names of the changed apps.
#[track_caller]
fn affected(repo: &Repo, dir: &Path, base: &str) -> Vec<String> {
    let done = offbuild(dir, repo.dir.path()).run(&["changed", "--base", base, "--format", "names"]).code(0);
    done.stdout.lines().map(str::to_owned).collect()
}

#[test]
fn an_lfs_pointer_is_what_git_has() {
    let repo = with_apps(&[]);
    repo.write(".gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n");
    repo.write("libs/web/model.bin", POINTER);
    let base = repo.commit("one");
    repo.write("libs/web/model.bin", &POINTER.replace("12345", "23456"));
    let head = repo.commit("two");
    changed(&repo.root, &base, &head, &["M libs/web/model.bin"]);
    dirty(&repo.root, &[]);
    assert_eq!(affected(&repo, &repo.root, base.as_str()), ["web"]);
    // A build would copy the pointer.
    let plan = |args: &[&str]| offbuild(&repo.root, repo.dir.path()).run(&[&["plan", "--base", base.as_str(), "--offline"], args].concat());
    plan(&[]).code(3).says("file `libs/web/model.bin` is an LFS pointer").says("`git lfs pull`");
    // Not for an app whose build does not read it, and not when it is hidden from the build.
    repo.write("apps/api/x", "1");
    repo.commit("three");
    plan(&["api"]).code(0);
    repo.write(".dockerignore", "**/*.bin\n");
    repo.commit("four");
    plan(&[]).code(0);
    // What is hidden from one of two builds is read by the other.
    std::fs::rename(repo.root.join(".dockerignore"), repo.root.join("apps/web/job.Dockerfile.dockerignore")).unwrap();
    repo.write("apps/web/job.Dockerfile", "FROM scratch\nCOPY libs/web /lib\n");
    let service = |name: &str, file: &str| format!("  {name}:\n    build: {{path: ../.., manifest: apps/web/{file}}}\n");
    repo.write("apps/web/convox.yml", &format!("services:\n{}{}", service("job", "job.Dockerfile"), service("main", "Dockerfile")));
    repo.commit("five");
    plan(&[]).code(3).says("file `libs/web/model.bin` is an LFS pointer");
    repo.write("apps/web/convox.yml", &format!("services:\n{}", service("job", "job.Dockerfile")));
    repo.commit("six");
    plan(&[]).code(0);
}

#[test]
fn a_build_does_without_no_submodule() {
    let library = Repo::new();
    library.write("lib", "1");
    library.commit("lib one");
    let repo = with_apps(&[]);
    let base = repo.commit("one");
    repo.git(&["submodule", "--quiet", "add", library.root.to_str().unwrap(), "libs/web/vendor"]);
    repo.commit("two");
    let plan =
        |dir: &Path, args: &[&str]| offbuild(dir, repo.dir.path()).run(&[&["plan", "--base", base.as_str(), "--offline"], args].concat());
    assert_eq!(affected(&repo, &repo.root, base.as_str()), ["web"]);
    plan(&repo.root, &[]).code(0);
    // Not checked out: the verdict is the same, the build is refused.
    let clone = repo.clone("bare-vendor", &[]);
    assert_eq!(affected(&repo, &clone, base.as_str()), ["web"]);
    plan(&clone, &[]).code(3).says("submodule `libs/web/vendor` is not checked out").says("`git submodule update --init`");
    plan(&clone, &["api", "--all"]).code(0);
    git(&clone, &["submodule", "--quiet", "update", "--init"]);
    plan(&clone, &[]).code(0);
}

/// Git tells of a link where it leads, never what is there.
#[test]
fn what_an_app_reaches_through_links_is_its_input() {
    let repo = with_apps(&[]);
    let link = |path: &str, target: &str| {
        let path = repo.root.join(path);
        let _ = std::fs::remove_file(&path);
        std::os::unix::fs::symlink(target, path).unwrap();
    };
    repo.write("apps.yaml", "version: 1\ndiscover: {include: [\"apps/*\"]}\nregistry: {repository: \"127.0.0.1:9/{app}\"}\nracks: {staging: {host: 127.0.0.1:9, password: a}}\nglobal: [versions]\napps:\n  web: {uses: [libs/used]}\n  whole: {path: apps/whole}\n");
    let own = "services:\n  main:\n    build: .\n";
    repo.write("apps/whole/x", "");
    std::fs::remove_dir_all(repo.root.join("apps/whole")).unwrap();
    for (path, text) in [
        ("shared/manifest", own),
        ("shared/Dockerfile", "FROM scratch\nCOPY . /\n"),
        ("shared/ignore", "tmp\n"),
        ("shared/used/x", "1"),
        ("shared/versions", "1"),
        ("shared/real.sh", "#!/bin/sh\n"),
        ("apps/web/deploy/x", "1"),
        ("packages/whole/convox.yml", own),
        ("packages/whole/Dockerfile", "FROM scratch\n"),
        ("packages/whole/main", "1"),
    ] {
        repo.write(path, text);
    }
    let hook = repo.root.join("shared/real.sh");
    std::fs::set_permissions(hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for (path, target) in [
        ("apps/web/convox.yml", "../../shared/manifest"),
        ("apps/web/Dockerfile", "../../shared/Dockerfile"),
        ("apps/web/.dockerignore", "../../shared/ignore"),
        ("apps/web/deploy/before_build.sh", "../../../shared/hook.sh"),
        ("shared/hook.sh", "real.sh"),
        ("libs/used", "../shared/used"),
        ("versions", "shared/versions"),
        ("apps/whole", "../packages/whole"),
    ] {
        link(path, target);
    }
    repo.commit("one");
    let all = ["api", "web", "whole"];
    let table: [(&str, &[&str]); 9] = [
        ("shared/manifest", &["web"]),
        ("shared/Dockerfile", &["web"]),
        ("shared/ignore", &["web"]),
        ("shared/real.sh", &["web"]),
        ("shared/used/x", &["web"]),
        ("shared/versions", &all),
        ("packages/whole/main", &["whole"]),
        ("packages/whole/Dockerfile", &["whole"]),
        ("shared/other", &[]),
    ];
    let check = |what: &str, expected: &[&str]| {
        repo.commit(what);
        assert_eq!(affected(&repo, &repo.root, "HEAD~1"), expected, "{what}");
        let named = [&["changed", "--base", "HEAD~1", "--format", "names"][..], &all].concat();
        let done = offbuild(&repo.root, repo.dir.path()).run(&named).code(0);
        assert_eq!(done.stdout.lines().collect::<Vec<_>>(), expected, "{what}, asked by name");
    };
    for (path, expected) in table {
        let text = std::fs::read_to_string(repo.root.join(path)).unwrap_or_default();
        repo.write(path, &format!("{text}# more\n"));
        check(path, expected);
    }
    // A link between two, which leads elsewhere from now on: what it left is no input any more.
    std::fs::copy(repo.root.join("shared/real.sh"), repo.root.join("shared/new.sh")).unwrap();
    link("shared/hook.sh", "new.sh");
    check("the link in between", &["web"]);
    repo.write("shared/real.sh", "");
    check("where it led before", &[]);
    let why = offbuild(&repo.root, repo.dir.path()).run(&["why", "web", "--what-if", "shared/new.sh"]).code(0);
    let rule = "(hook shared/new.sh, apps.yaml:7:3, through apps/web/deploy/before_build.sh)";
    assert!(why.stdout.contains(rule), "{}", why.stdout);
}

/// What cannot be read at the base is not what is here now.
#[test]
fn a_configuration_that_the_base_does_not_have_is_another_one() {
    let repo = with_apps(&[]);
    let good = std::fs::read_to_string(repo.root.join("apps.yaml")).unwrap();
    let with_argument = |value: u8| format!("{good}apps: {{web: {{build: {{args: {{A: \"{value}\"}}}}}}}}\n");
    repo.write("apps.yaml", &with_argument(1));
    repo.commit("good");
    repo.write("apps.yaml", &with_argument(2));
    repo.commit("readable");
    assert_eq!(affected(&repo, &repo.root, "HEAD~1"), ["web"]);
    for (what, text) in [("no YAML", Some("x: [\n")), ("unknown key", Some("rackz: 1\n")), ("none", None)] {
        match text {
            Some(text) => repo.write("apps.yaml", text),
            None => std::fs::remove_file(repo.root.join("apps.yaml")).unwrap(),
        }
        repo.commit(what);
        repo.write("apps.yaml", &with_argument(3));
        repo.commit("good again");
        assert_eq!(affected(&repo, &repo.root, "HEAD~1"), ["api", "web"], "{what}");
    }
}

/// No file of an app differs: which directory an app is, what it is called and where it goes is the configuration's to say.
#[test]
fn an_app_that_only_the_configuration_makes_is_a_new_one() {
    let repo = with_apps(&[]);
    let file = std::fs::read_to_string(repo.root.join("apps.yaml")).unwrap();
    let other = "services:\n  main:\n    image: busybox\n";
    repo.write("other/new/convox.yml", other);
    repo.commit("one");
    let two_racks = file.replace("}}", "}, two: {host: 127.0.0.1:9, password: a}}");
    let both = format!("{two_racks}defaults: {{racks: [staging, two]}}\n");
    let cases = [
        ("as it was", file.clone(), vec![]),
        ("named", format!("{file}apps: {{new: {{path: other/new}}}}\n"), vec!["new@staging"]),
        ("looked for", file.replace("\"apps/*\"", "\"apps/*\", \"other/*\""), vec!["new@staging"]),
        ("another name", format!("{file}apps: {{site: {{path: apps/web}}}}\n"), vec!["site@staging"]),
        ("another directory", file.replace("apps/*", "other/*") + "apps: {web: {path: other/new}}\n", vec!["web@staging"]),
        ("each other's", format!("{file}apps: {{web: {{path: apps/api}}, api: {{path: apps/web}}}}\n"), vec!["api@staging", "web@staging"]),
        ("said once more", format!("{file}apps: {{web: {{path: apps/web}}, apps/api: {{}}}}\n"), vec![]),
        ("another rack", both, vec!["api@two", "web@two"]),
    ];
    for (what, text, expected) in cases {
        repo.write("apps.yaml", &text);
        let ask = |arguments: &[&str]| {
            let done = offbuild(&repo.root, repo.dir.path()).run(&[&["changed", "--format", "json", "--base"], arguments].concat()).code(0);
            let answer: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
            let changed = answer["targets"].as_array().unwrap().iter().filter(|target| target["verdict"] != "up-to-date");
            let mut changed: Vec<String> = changed.map(|target| target["target"].as_str().unwrap().to_owned()).collect();
            changed.sort();
            changed
        };
        assert_eq!(ask(&["HEAD"]), expected, "{what}, not committed");
        repo.git(&["commit", "-q", "-a", "--allow-empty", "-m", what]);
        assert_eq!(ask(&["HEAD~1"]), expected, "{what}");
        assert_eq!(ask(&["HEAD~1", "--committed"]), expected, "{what}, of commits alone");
        repo.git(&["reset", "-q", "--hard", "HEAD~1"]);
    }
}

/// A secret's file goes into a build wherever it lies, whether a compose file or the configuration names it.
#[test]
fn a_secret_in_the_repository_is_an_input() {
    let repo = with_apps(&[]);
    let file = std::fs::read_to_string(repo.root.join("apps.yaml")).unwrap();
    repo.write("apps.yaml", &format!("{file}defaults: {{build: {{secrets: {{k: {{file: key}}}}}}}}\napps:\n  api: {{precision: context}}\n  web: {{build: {{secrets: {{k: {{file: ../../keys/web}}}}}}}}\n"));
    for key in ["apps/api/key", "keys/web", "keys/other"] {
        repo.write(key, "1");
    }
    repo.commit("one");
    for (key, expected) in [("apps/api/key", vec!["api"]), ("keys/web", vec!["web"]), ("keys/other", vec![])] {
        repo.write(key, "2");
        repo.commit(key);
        assert_eq!(affected(&repo, &repo.root, "HEAD~1"), expected, "{key}");
    }
}

/// With `precision: context`: what an app goes without once it is deleted, and what its commands run.
#[test]
fn what_steers_an_app_counts_after_it_is_gone() {
    let convox = "services:\n  main:\n    image: 127.0.0.1:9/a:main\n    build: .\n";
    let compose = "services:\n  main:\n    build: {context: ., target: \"${STAGE:-one}\"}\n    image: 127.0.0.1:9/a:main\n";
    let (both, second) = (["convox.yml", "docker-compose.yml"], ["docker-compose.yml", "compose.yaml"]);
    let shell = "apps: {a: {hooks: {after_release: [sh, -c, 'bin/one && ../../bin/two']}}}";
    let cases: [(&str, &[&str], &str, &str); 11] = [
        ("another manifest", &both, "apps/a/convox.yml", ""),
        ("what lay beside it", &both, "apps/a/docker-compose.yml", ""),
        ("the first of two", &second, "apps/a/docker-compose.yml", ""),
        ("variables", &second, "apps/a/.env", ""),
        ("a hook", &second, "apps/a/deploy/after_release.sh", ""),
        ("an argument", &second, "apps/a/notify.sh", "apps: {a: {hooks: {after_release: [sh, notify.sh]}}}"),
        ("a shell's first", &second, "apps/a/bin/one", shell),
        ("a shell's second", &second, "bin/two", shell),
        ("the second of two", &second, "apps/a/compose.yaml", "none"),
        ("what the command does not name", &second, "apps/a/bin/one", "none"),
        ("what is not looked at", &both, "apps/a/compose.yaml", "none"),
    ];
    for (what, manifests, deleted, more) in cases {
        let repo = Repo::new();
        let counts = more != "none";
        let more = if counts { more } else { "" };
        let file = "version: 1\nracks: {staging: {host: 127.0.0.1:9, password: a}}\ndefaults: {precision: context}\n";
        repo.write("apps.yaml", &format!("{file}{more}\n"));
        repo.write("apps/a/Dockerfile", "FROM scratch AS one\nCOPY x /\nFROM scratch AS two\nCOPY x /\n");
        repo.write("apps/a/x", "x");
        for manifest in manifests {
            repo.write(&format!("apps/a/{manifest}"), if *manifest == "convox.yml" { convox } else { compose });
        }
        if !deleted.ends_with(".yml") {
            repo.write(deleted, "STAGE=two");
        }
        if deleted.contains("deploy/") {
            let script = repo.root.join(deleted);
            std::fs::set_permissions(script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        }
        repo.commit("one");
        assert_eq!(affected(&repo, &repo.root, "HEAD"), Vec::<String>::new(), "{what}");
        repo.git(&["rm", "-q", deleted]);
        let expected = if counts { vec!["a"] } else { vec![] };
        assert_eq!(affected(&repo, &repo.root, "HEAD"), expected, "{what}, not committed");
        repo.git(&["commit", "-q", "-m", "two"]);
        assert_eq!(affected(&repo, &repo.root, "HEAD~1"), expected, "{what}");
    }
}

/// Whatever happens with paths that no app owns: what a deleted app leaves is none of them.
#[test]
fn a_deleted_app_marks_no_other_app() {
    for policy in ["report", "all", "error"] {
        let repo = with_apps(&[]);
        let file = std::fs::read_to_string(repo.root.join("apps.yaml")).unwrap();
        repo.write("apps.yaml", &format!("{file}unowned: {policy}\napps: {{named: {{path: other/named, manifest: own.yml}}}}\n"));
        repo.write("other/named/own.yml", "services:\n  main:\n    image: busybox\n");
        repo.write("apps/web/src/x", "1");
        repo.commit("one");
        let ask = |arguments: &[&str]| offbuild(&repo.root, repo.dir.path()).run(&[&["changed", "-v", "--base"], arguments].concat());
        std::fs::remove_dir_all(repo.root.join("apps/web")).unwrap();
        let told = |base: &str| {
            let done = ask(&[base]).code(0);
            assert!(done.stdout.contains("web@staging    removed"), "{policy}: {}", done.stdout);
            assert!(!done.stdout.contains("unowned") && !done.stdout.contains("changed"), "{policy}: {}", done.stdout);
        };
        told("HEAD");
        repo.commit("two");
        told("HEAD~1");
        // One that only the configuration knows, and one that has moved.
        std::fs::remove_dir_all(repo.root.join("other")).unwrap();
        repo.write("apps.yaml", &format!("{file}unowned: {policy}\n"));
        repo.write("services/x", "");
        std::fs::remove_file(repo.root.join("services/x")).unwrap();
        std::fs::rename(repo.root.join("apps/api"), repo.root.join("services/api")).unwrap();
        repo.write("apps.yaml", &format!("{file}unowned: {policy}\napps: {{api: {{path: services/api}}}}\n"));
        let manifest = std::fs::read_to_string(repo.root.join("services/api/convox.yml")).unwrap();
        repo.write("services/api/convox.yml", &manifest.replace("apps/api", "services/api"));
        repo.commit("three");
        let done = ask(&["HEAD~1"]).code(0);
        assert!(!done.stdout.contains("unowned"), "{policy}: {}", done.stdout);
        // Others are what the policy says.
        std::fs::remove_dir_all(repo.root.join("libs/web")).unwrap();
        repo.commit("four");
        match policy {
            "report" => assert!(ask(&["HEAD~1"]).code(0).stdout.contains("unowned: deleted libs/web/x")),
            "all" => assert!(ask(&["HEAD~1"]).code(0).stdout.contains("(unowned libs/web/x)")),
            _ => drop(ask(&["HEAD~1"]).code(4).says("no app owns `libs/web/x`")),
        }
    }
}

#[test]
fn a_repository_within_and_one_whose_git_directory_is_elsewhere() {
    let repo = with_apps(&[]);
    let base = repo.commit("one");
    // Another repository in an app's directory, not a submodule: git looks into it no more than `git add` would.
    let nested = repo.root.join("apps/web/nested");
    std::fs::create_dir_all(&nested).unwrap();
    git(&nested, &["init", "-q"]);
    std::fs::write(nested.join("file"), "x").unwrap();
    git(&nested, &["add", "-A"]);
    git(&nested, &["commit", "-q", "-m", "nested"]);
    assert_eq!(affected(&repo, &repo.root, base.as_str()), ["web"]);
    std::fs::remove_dir_all(&nested).unwrap();
    assert_eq!(affected(&repo, &repo.root, base.as_str()), [""; 0]);
    // `.git` is a file that names the directory.
    let elsewhere = repo.dir.path().join("elsewhere.git");
    repo.git(&["init", "-q", "--separate-git-dir", elsewhere.to_str().unwrap()]);
    assert!(repo.root.join(".git").is_file());
    repo.write("apps/api/x", "2");
    dirty(&repo.root, &["A apps/api/x"]);
    assert_eq!(affected(&repo, &repo.root, base.as_str()), ["api"]);
    repo.commit("two");
    assert_eq!(affected(&repo, &repo.root, base.as_str()), ["api"]);
}

#[test]
fn every_way_to_touch_an_app_affects_that_app() {
    let all = ["api", "web"];
    type Edit<'a> = (&'a str, &'a dyn Fn(&Repo), &'a [&'a str]);
    let mv = |repo: &Repo, from: &str, to: &str| drop(repo.git(&["mv", from, to]));
    let chmod = |repo: &Repo| drop(repo.git(&["update-index", "--chmod=+x", "libs/web/x"]));
    let link = |repo: &Repo, to: &str| {
        std::fs::remove_file(repo.root.join("libs/web/x")).unwrap();
        std::os::unix::fs::symlink(to, repo.root.join("libs/web/x")).unwrap();
        repo.git(&["add", "-A"]);
    };
    let table: [Edit<'_>; 11] = [
        ("deleted", &|repo| drop(repo.git(&["rm", "-q", "libs/web/x"])), &["web"]),
        ("renamed across apps", &|repo| mv(repo, "libs/web/x", "libs/api/y"), &all),
        ("renamed within", &|repo| mv(repo, "libs/web/x", "libs/web/y"), &["web"]),
        ("renamed away", &|repo| mv(repo, "libs/web/x", "y"), &["web"]),
        ("mode", &chmod, &["web"]),
        ("a link in its place", &|repo| link(repo, "y"), &["web"]),
        (
            "a directory in its place",
            &|repo| {
                std::fs::remove_file(repo.root.join("libs/web/x")).unwrap();
                repo.write("libs/web/x/deep", "x");
                repo.git(&["add", "-A"]);
            },
            &["web"],
        ),
        ("case only", &|repo| mv(repo, "libs/web/x", "libs/web/X"), &["web"]),
        (
            "no UTF-8",
            &|repo| {
                let name = std::os::unix::ffi::OsStrExt::from_bytes(b"libs/web/caf\xe9".as_slice());
                std::fs::write(repo.root.join::<&std::ffi::OsStr>(name), "x").unwrap();
                repo.git(&["add", "-A"]);
            },
            &["web"],
        ),
        (
            "an app added",
            &|repo| {
                repo.write("apps/new/convox.yml", "services:\n  main:\n    build: .\n");
                repo.write("apps/new/Dockerfile", "FROM scratch\nCOPY . /\n");
                repo.git(&["add", "-A"]);
            },
            &["new"],
        ),
        (
            "what no app owns",
            &|repo| {
                repo.write("Makefile", "x");
                repo.git(&["add", "-A"]);
            },
            &[],
        ),
    ];
    for (name, edit, expected) in table {
        let repo = with_apps(&[]);
        let base = repo.commit("one");
        edit(&repo);
        // The mode is in the index alone: checked out, the work tree has it, too.
        repo.git(&["commit", "-q", "-m", "two"]);
        repo.git(&["reset", "-q", "--hard"]);
        assert_eq!(affected(&repo, &repo.root, base.as_str()), expected, "{name}");
        // And taken back: what was there before is a change from what is there now.
        let two = repo.id("HEAD");
        repo.git(&["checkout", "-q", base.as_str()]);
        let done = offbuild(&repo.root, repo.dir.path()).run(&["changed", "--base", two.as_str(), "--format", "names"]).code(0);
        assert_eq!(done.stdout, "", "{name}: the merge base of an older commit is itself");
        let done =
            offbuild(&repo.root, repo.dir.path()).run(&["changed", "--base", base.as_str(), "--head", two.as_str(), "--format", "json"]);
        let answer: serde_json::Value = serde_json::from_str(&done.code(0).stdout).unwrap();
        assert_eq!(answer["affected"], serde_json::json!(expected), "{name}: which apps there are is the other head's to say");
    }
}
