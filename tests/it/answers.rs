//! What programs read: that the README lists exactly the keys that are printed, and what `changed`, `why` and `plan` say of
//! another head, of paths that came near, and of apps that are gone.

use super::explain::{offbuild, parsed, repo};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Keys, with what the README says is below them.
#[derive(Debug, Default)]
struct Shape(BTreeMap<String, Shape>);

impl Shape {
    /// Reads `{a, b: {c, d}, e: [{f}]}` from the first brace on.
    fn read(text: &str) -> Self {
        let mut stack = vec![Self::default()];
        let mut names: Vec<String> = Vec::new();
        let mut word = String::new();
        for c in text.chars().skip_while(|c| *c != '{') {
            match c {
                '{' => {
                    names.push(std::mem::take(&mut word));
                    stack.push(Self::default());
                }
                '}' | ',' if !word.is_empty() => {
                    stack.last_mut().unwrap().0.entry(std::mem::take(&mut word)).or_default();
                }
                _ => {}
            }
            match c {
                '}' => {
                    let (done, name) = (stack.pop().unwrap(), names.pop().unwrap());
                    stack.last_mut().unwrap().0.insert(name, done);
                    if stack.len() == 1 {
                        break;
                    }
                }
                c if c.is_alphanumeric() || c == '_' => word.push(c),
                _ => {}
            }
        }
        stack.swap_remove(0).0.remove("").unwrap_or_default()
    }

    /// The rows of the table whose head begins with `title`.
    fn table(readme: &str, title: &str) -> Self {
        let (_, rest) = readme.split_once(&format!("| {title} | |\n|---|---|\n")).unwrap();
        let mut shape = Self::default();
        for row in rest.lines().take_while(|line| line.starts_with("| ")) {
            let (keys, text) = row.trim_start_matches("| ").split_once(" | ").unwrap();
            for key in keys.split(", ") {
                shape.0.insert(key.trim_matches('`').trim_end_matches("[]").to_owned(), Self::read(text));
            }
        }
        shape
    }

    /// Notes what is printed and not documented, and takes off what was seen.
    fn compare(&self, value: &Value, at: &str, seen: &mut BTreeSet<String>, wrong: &mut BTreeSet<String>) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.compare(item, at, seen, wrong)),
            Value::Object(map) => {
                for (key, value) in map {
                    let here = format!("{at}.{key}");
                    match self.0.get(key) {
                        Some(shape) => {
                            seen.insert(here.clone());
                            if !shape.0.is_empty() {
                                shape.compare(value, &here, seen, wrong);
                            }
                        }
                        None => drop(wrong.insert(here)),
                    }
                }
            }
            _ => {}
        }
    }

    fn all(&self, at: &str) -> BTreeSet<String> {
        let below = |(key, shape): (&String, &Self)| {
            let here = format!("{at}.{key}");
            let mut all = shape.all(&here);
            all.insert(here);
            all
        };
        self.0.iter().flat_map(below).collect()
    }
}

#[test]
fn the_readme_lists_the_keys_that_are_printed() {
    let readme = include_str!("../../README.md");
    let repo = repo();
    let base = repo.git(&["rev-parse", "HEAD"]);
    repo.write("apps/api/main.rb", "puts 2\n").write("apps/api/README.md", "text\n").write("Makefile", "x\n");
    std::fs::remove_dir_all(repo.path("apps/web")).unwrap();
    repo.commit("Change");
    let ask = |args: &[&str]| parsed(&offbuild(&repo).run(args).code(0).stdout);
    let changed = ask(&["changed", "--base", &base, "--format", "json"]);
    let why = ask(&["why", "api", "--base", &base, "--format", "json"]);
    let what_if = ask(&["why", "--what-if", "Makefile", "--format", "json"]);
    let plan = ask(&["plan", "--base", &base, "--offline", "--format", "json"]);
    let (mut seen, mut wrong) = (BTreeSet::new(), BTreeSet::new());
    let (whole, target) = (Shape::table(readme, "`changed`"), Shape::table(readme, "a target"));
    whole.compare(&changed, "changed", &mut seen, &mut wrong);
    target.compare(&changed["targets"], "target", &mut seen, &mut wrong);
    target.compare(&why["targets"], "target", &mut seen, &mut wrong);
    let after = |mark: &str| Shape::read(&readme[readme.find(mark).unwrap()..]);
    let others = [("`why` answers", "why", why), ("`why --what-if`", "what-if", what_if), ("`plan`\n`{", "plan", plan)];
    let mut documented: BTreeSet<String> = whole.all("changed").into_iter().chain(target.all("target")).collect();
    for (mark, name, answer) in &others {
        after(mark).compare(answer, name, &mut seen, &mut wrong);
        documented.extend(after(mark).all(name));
    }
    for deep in ["changed.removed.racks", "target.reasons.rule.place.column", "target.waiting.commits.paths", "plan.lanes.targets"] {
        assert!(documented.contains(deep), "{deep}: {documented:?}");
    }
    // Only a rack can refuse here.
    seen.insert("target.refusal".to_owned());
    assert_eq!(wrong, BTreeSet::new(), "printed, and not in the README");
    assert_eq!(documented.difference(&seen).collect::<Vec<_>>(), Vec::<&String>::new(), "in the README, and not printed");
}

#[test]
fn what_came_near_is_told_alike_by_changed_and_why() {
    let repo = repo();
    let base = repo.git(&["rev-parse", "HEAD"]);
    // The library counts for `api` by its `uses`; `web` starts to read it, but for what `.dockerignore` hides.
    repo.write("apps/web/Dockerfile", "FROM scratch\nCOPY libs/auth /auth\nCOPY apps/web /app\n").commit("Read the library");
    let base_of_web = repo.git(&["rev-parse", "HEAD"]);
    repo.write("libs/auth/tests/x.rb", "2\n").write("apps/web/README.md", "text\n").commit("Change");
    repo.write("apps/web/NOTES.md", "not committed\n");
    let near = |args: &[&str]| {
        let answer = parsed(&offbuild(&repo).run(&[args, &["--base", &base_of_web, "--format", "json"]].concat()).code(0).stdout);
        let web = answer["targets"].as_array().unwrap().iter().find(|target| target["app"] == "web").cloned().unwrap();
        assert_eq!(web["changed"], false);
        let near = web["near"].as_array().unwrap().iter();
        near.map(|near| format!("{} {} {} {}", near["why"], near["path"], near["dirty"], near["rule"]["place"]["file"])).collect::<Vec<_>>()
    };
    let expected = [
        "\"ignored\" \"apps/web/NOTES.md\" true \"apps.yaml\"",
        "\"ignored\" \"apps/web/README.md\" false \"apps.yaml\"",
        "\"hidden\" \"libs/auth/tests/x.rb\" false \".dockerignore\"",
    ];
    assert_eq!(near(&["changed"]), expected);
    assert_eq!(near(&["why", "web"]), expected);
    let text = offbuild(&repo).run(&["changed", "web", "--base", &base_of_web, "-v"]).code(0).stdout;
    let told: Vec<&str> = text.lines().skip(1).map(str::trim).filter(|line| line.starts_with("not counted")).collect();
    assert_eq!(
        told,
        [
            "not counted: dirty: added apps/web/NOTES.md: taken out by ignore **/*.md, apps.yaml:5:10",
            "not counted: added apps/web/README.md: taken out by ignore **/*.md, apps.yaml:5:10",
            "not counted: modified libs/auth/tests/x.rb: hidden from the build by dockerignore libs/auth/tests, .dockerignore:1:1",
        ]
    );
    let short = offbuild(&repo).run(&["changed", "web", "--base", &base]).code(0).stdout;
    assert!(!short.contains("not counted"), "{short}");
}

#[test]
fn another_head_than_the_one_checked_out() {
    let repo = repo();
    let one = repo.git(&["rev-parse", "HEAD"]);
    repo.write("apps/web/main.rb", "puts 2\n").commit("Greet");
    let two = repo.git(&["rev-parse", "HEAD"]);
    let file = std::fs::read_to_string(repo.path("apps.yaml")).unwrap();
    repo.write("apps.yaml", format!("{file}\x20 web:\n\x20   build: {{args: {{LEVEL: \"1\"}}}}\n")).commit("Configure");
    let three = repo.git(&["rev-parse", "HEAD"]);
    repo.write("apps.yaml", file).write("apps/api/main.rb", "puts 2\n").commit("Take it back");
    repo.write("apps/api/new.rb", "not committed\n");
    let ask = |args: &[&str], env: &[(&str, &str)]| {
        let offbuild = env.iter().fold(offbuild(&repo), |offbuild, (name, value)| offbuild.env(name, *value));
        let done = offbuild.run(&[&["changed", "--format", "json"], args].concat()).code(0);
        let answer = parsed(&done.stdout);
        let reasons = |target: &Value| -> Vec<Value> {
            target["reasons"].as_array().unwrap().iter().map(|reason| reason.get("path").unwrap_or(&reason["reason"]).clone()).collect()
        };
        let targets = answer["targets"].as_array().unwrap();
        let told: Vec<Value> =
            targets.iter().filter(|target| target["changed"] == true).map(|target| json!([target["app"], reasons(target)])).collect();
        (answer["head"]["commit"]["id"].as_str().unwrap().to_owned(), told, answer["notes"].to_string())
    };
    // Commits only: what is on disk belongs to neither.
    let (head, told, notes) = ask(&["--base", &one, "--head", &two], &[]);
    assert_eq!((head.as_str(), told), (two.as_str(), vec![json!(["web", ["apps/web/main.rb"]])]));
    assert!(notes.contains("`--head"), "{notes}");
    // The settings are those of the head, not the ones on disk, which are the first commit's again.
    assert_eq!(ask(&["--base", &two, "--head", &three], &[]).1, [json!(["web", ["config-changed"]])]);
    assert_eq!(ask(&["--base", &two, "--head", "HEAD"], &[]).1, [json!(["api", ["apps/api/main.rb"]])]);
    // The variable does the same, and the flag goes before it.
    assert_eq!(ask(&["--base", &one], &[("OFFBUILD_HEAD", &two)]), {
        let (head, told, notes) = ask(&["--base", &one, "--head", &two], &[]);
        (head, told, notes.replace(&format!("`--head {two}`"), &format!("`OFFBUILD_HEAD` ({two})")))
    });
    assert_eq!(ask(&["--base", &one, "--head", &two], &[("OFFBUILD_HEAD", &three)]).0, two);
    assert_eq!(ask(&[], &[("OFFBUILD_HEAD", &two), ("OFFBUILD_BASE", &one)]).1, [json!(["web", ["apps/web/main.rb"]])]);
    // The base is the merge base with that head.
    assert_eq!(ask(&["--base", "HEAD", "--head", &two], &[]).1, Vec::<Value>::new());
    offbuild(&repo)
        .run(&["changed", "--base", &one, "--head", "nowhere"])
        .code(3)
        .says("`nowhere` is not in this repository")
        .says("git fetch");
    let text = offbuild(&repo).run(&["why", "web", "--base", &one, "--head", &two]).code(0).stdout;
    assert!(text.starts_with("web@staging: changed\n") && text.contains("waiting: 1 commit of 1 author (1 commit since)"), "{text}");
}

#[test]
fn a_plan_lists_what_is_gone() {
    let repo = repo();
    let base = repo.git(&["rev-parse", "HEAD"]);
    std::fs::remove_dir_all(repo.path("apps/web")).unwrap();
    repo.commit("Remove web");
    let text = offbuild(&repo).run(&["plan", "--base", &base, "--offline"]).code(0).stdout;
    assert!(text.contains(&format!("\nremoved, nothing is done to the racks\n  web@staging since {}\n", &base[..12])), "{text}");
    let plan = parsed(&offbuild(&repo).run(&["plan", "--base", &base, "--offline", "--format", "json"]).code(0).stdout);
    assert_eq!(plan["removed"], json!([{"app": "web", "dir": "apps/web", "racks": ["staging"], "base": base}]));
    // Who asks for an app is told of that one.
    let text = offbuild(&repo).run(&["plan", "api", "--base", &base, "--offline"]).code(0).stdout;
    assert!(!text.contains("removed"), "{text}");
}

#[test]
fn a_path_that_no_app_owns_is_the_policys() {
    let repo = repo();
    let base = repo.git(&["rev-parse", "HEAD"]);
    repo.write("Makefile", "all: x\n").commit("Change what nobody owns");
    let file = std::fs::read_to_string(repo.path("apps.yaml")).unwrap();
    let with = |policy: &str| {
        // Not committed: the file itself is never unowned.
        repo.write("apps.yaml", format!("{file}unowned: {policy}\n"));
        offbuild(&repo).run(&["changed", "--base", &base, "--format", "names"])
    };
    assert_eq!(with("report").code(0).stdout, "");
    assert_eq!(with("all").code(0).stdout, "api\nweb\n");
    with("error").code(4).says("no app owns `Makefile`").says("`ignore`");
}
