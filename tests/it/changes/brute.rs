//! The whole chain against brute force: generated histories, rules and work trees, and an oracle that asks plain git for every
//! file of both sides, matches it with a matcher of its own, and compares.
//!
//! Each case is a repository of five commits, compared pair by pair for three apps: forty cases are 1,200 answers.
//! `OFFBUILD_CASES=10000` asks for more.

use super::deciding::{app, shared};
use super::{Repo, readers};
use offbuild::changes::History;
use offbuild::changes::fingerprint::fingerprint;
use offbuild::changes::inputs::{Inputs, affected};
use offbuild::names::CommitId;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// A file's mode and content; a submodule's content is the digit its commit is made of.
type Files = BTreeMap<String, (u32, u8)>;

#[derive(Debug, Clone)]
enum Edit {
    Set(String, u32, u8),
    Delete(String),
    Rename(String, String),
}

fn some_path() -> impl Strategy<Value = String> {
    proptest::collection::vec(prop_oneof!["a", "b", "c", "d\\.md"], 1..4).prop_map(|parts| parts.join("/"))
}

fn some_edit(modes: &'static [u32]) -> impl Strategy<Value = Edit> {
    prop_oneof![
        6 => (some_path(), proptest::sample::select(modes), 0..4_u8).prop_map(|(path, mode, content)| Edit::Set(path, mode, content)),
        2 => some_path().prop_map(Edit::Delete),
        2 => (some_path(), some_path()).prop_map(|(from, to)| Edit::Rename(from, to)),
    ]
}

fn some_pattern() -> impl Strategy<Value = String> {
    let part = prop_oneof![5 => "a", 4 => "b", 3 => "c", 2 => "\\*", 2 => "\\*\\*", 1 => "\\*\\.md", 1 => "\\{a,b\\}", 1 => "[ab]"];
    let doubled = |parts: &Vec<String>| parts.windows(2).any(|pair| pair[0] == "**" && pair[1] == "**");
    proptest::collection::vec(part, 1..4).prop_filter("`**/**` is `**`", move |parts| !doubled(parts)).prop_map(|parts| parts.join("/"))
}

fn some_ignores() -> impl Strategy<Value = Vec<String>> {
    let signed = (any::<bool>(), some_pattern()).prop_map(|(not, text)| if not { format!("!{text}") } else { text });
    proptest::collection::vec(signed, 0..3)
}

fn apply(files: &mut Files, edit: &Edit) {
    match edit {
        Edit::Set(path, mode, content) => {
            // A file stands where no directory and no other file is.
            let (below, above) = (format!("{path}/"), |other: &str| path.starts_with(&format!("{other}/")));
            files.retain(|other, _| !other.starts_with(&below) && !above(other));
            files.insert(path.clone(), (*mode, *content));
        }
        Edit::Delete(path) => {
            files.remove(path);
        }
        Edit::Rename(from, to) => {
            if let Some((mode, content)) = files.remove(from) {
                apply(files, &Edit::Set(to.clone(), mode, content));
            }
        }
    }
}

/// One commit after another, by one run of git.
fn import(repo: &Repo, states: &[Files]) -> Vec<CommitId> {
    let mut stream = Vec::new();
    for files in states {
        stream.extend_from_slice(b"commit refs/heads/main\ncommitter A <a@example.com> 1767323045 +0000\ndata 0\ndeleteall\n");
        for (path, (mode, content)) in files {
            if *mode == 0o160_000 {
                stream.extend_from_slice(format!("M 160000 {} {path}\n", (content + 1).to_string().repeat(40)).as_bytes());
            } else {
                stream.extend_from_slice(format!("M {mode:o} inline {path}\ndata 1\n{content}\n").as_bytes());
            }
        }
    }
    let mut command = Command::new("git");
    let mut child = command.current_dir(&repo.root).args(["fast-import", "--quiet"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&stream).unwrap();
    assert!(child.wait().unwrap().success());
    let listed = repo.git(&["rev-list", "--reverse", "main"]);
    listed.lines().map(|id| CommitId::new(id).unwrap()).collect()
}

/// Every file of a tree as plain git lists it: path → mode and id.
fn listed(repo: &Repo, tree: &str) -> BTreeMap<String, String> {
    let text = repo.git(&["ls-tree", "-r", tree]);
    text.lines().map(|line| line.split_once('\t').unwrap()).map(|(facts, path)| (path.to_owned(), facts.to_owned())).collect()
}

fn segment_matches(pattern: &str, name: &str) -> bool {
    match pattern {
        "*" => true,
        "*.md" => name.ends_with(".md"),
        "{a,b}" | "[ab]" => name == "a" || name == "b",
        literal => literal == name,
    }
}

fn glob_matches(pattern: &[&str], path: &[&str]) -> bool {
    match pattern {
        [] => path.is_empty(),
        ["**"] => !path.is_empty(),
        ["**", rest @ ..] => (0..=path.len()).any(|skipped| glob_matches(rest, &path[skipped..])),
        [first, rest @ ..] => path.split_first().is_some_and(|(name, below)| segment_matches(first, name) && glob_matches(rest, below)),
    }
}

/// A pattern means a path or everything below it.
fn matches(pattern: &str, path: &str) -> bool {
    let (pattern, path): (Vec<&str>, Vec<&str>) = (pattern.split('/').collect(), path.split('/').collect());
    (1..=path.len()).any(|length| glob_matches(&pattern, &path[..length]))
}

fn is_input(rules: &[String], ignores: &[String], path: &str) -> bool {
    // As an input, `a/**` means `a` too: it may turn into a link.
    let literal = |dir: &str| dir.split('/').all(|part| ["a", "b", "c"].contains(&part));
    let input = |rule: &String| matches(rule, path) || rule.strip_suffix("/**").is_some_and(|dir| literal(dir) && matches(dir, path));
    let last = ignores.iter().rev().find(|ignore| matches(ignore.trim_start_matches('!'), path));
    rules.iter().any(input) && last.is_none_or(|ignore| ignore.starts_with('!'))
}

#[derive(Debug, Clone)]
struct Rules {
    uses: Vec<String>,
    ignore: Vec<String>,
}

fn inputs(global: &[String], ignore: &[String], apps: &[Rules]) -> Vec<Inputs> {
    let text = |all: &[String]| all.iter().map(String::as_str).map(str::to_owned).collect::<Vec<_>>();
    fn plain(all: &[String]) -> Vec<&str> {
        all.iter().map(String::as_str).collect()
    }
    let common = shared(&plain(&widened(global)), &plain(&text(ignore)));
    apps.iter()
        .enumerate()
        .map(|(number, rules)| app(&format!("app{number}"), &plain(&widened(&rules.uses)), &plain(&rules.ignore), &common))
        .collect()
}

/// The rules as the configuration's reader makes them: see `is_input`.
fn widened(rules: &[String]) -> Vec<String> {
    let literal = |rule: &String| rule.strip_suffix("/**").filter(|dir| !dir.contains(['*', '{', '['])).map(str::to_owned);
    rules.iter().map(|rule| literal(rule).unwrap_or_else(|| rule.clone())).collect()
}

/// The work tree after uncommitted edits: written file by file. Not where a submodule stands: git refuses to look at such a tree.
fn edit_on_disk(root: &Path, head: &Files, edits: &[Edit]) {
    let submodules: Vec<&String> = head.iter().filter(|(_, (mode, _))| *mode == 0o160_000).map(|(path, _)| path).collect();
    let is_free = |path: &str| submodules.iter().all(|at| !Path::new(path).starts_with(at) && !Path::new(at).starts_with(path));
    let remove = |path: &Path| match path.symlink_metadata() {
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(path).unwrap(),
        Ok(_) => std::fs::remove_file(path).unwrap(),
        Err(_) => {}
    };
    for edit in edits {
        match edit {
            Edit::Set(path, mode, content) if is_free(path) => {
                let full = root.join(path);
                let above: Vec<&Path> = full.ancestors().skip(1).take_while(|dir| *dir != root).collect();
                above.iter().rev().filter(|dir| dir.symlink_metadata().is_ok_and(|found| !found.is_dir())).for_each(|dir| remove(dir));
                remove(&full);
                std::fs::create_dir_all(full.parent().unwrap()).unwrap();
                if *mode == 0o120_000 {
                    std::os::unix::fs::symlink(content.to_string(), &full).unwrap();
                } else {
                    std::fs::write(&full, content.to_string()).unwrap();
                    std::fs::set_permissions(&full, std::fs::Permissions::from_mode(mode & 0o777)).unwrap();
                }
            }
            Edit::Delete(path) => {
                let linked = Path::new(path).ancestors().skip(1).any(|dir| root.join(dir).is_symlink());
                if !linked {
                    remove(&root.join(path));
                }
            }
            Edit::Set(..) | Edit::Rename(..) => {}
        }
    }
}

const ANY: &[u32] = &[0o100_644, 0o100_644, 0o100_755, 0o120_000, 0o160_000];
const ON_DISK: &[u32] = &[0o100_644, 0o100_644, 0o100_755, 0o120_000];

#[test]
fn affected_is_what_hashing_every_input_says() {
    let cases = std::env::var("OFFBUILD_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(40);
    let config = ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 200, ..ProptestConfig::default() };
    let rules = (proptest::collection::vec(some_pattern(), 0..4), some_ignores()).prop_map(|(uses, ignore)| Rules { uses, ignore });
    let world = (
        proptest::collection::vec(proptest::collection::vec(some_edit(ANY), 1..8), 5),
        proptest::collection::vec(some_edit(ON_DISK), 0..5),
        (proptest::collection::vec(some_pattern(), 0..2), some_ignores(), proptest::collection::vec(rules, 3)),
    );
    let outcome = TestRunner::new(config).run(&world, |(history, uncommitted, (global, ignore, apps))| {
        let repo = Repo::new();
        let mut states: Vec<Files> = Vec::new();
        for edits in &history {
            let mut files = states.last().cloned().unwrap_or_default();
            edits.iter().for_each(|edit| apply(&mut files, edit));
            states.push(files);
        }
        let commits = import(&repo, &states);
        repo.git(&["reset", "-q", "--hard", "main"]);
        edit_on_disk(&repo.root, &states[states.len() - 1], &uncommitted);
        let inputs = inputs(&global, &ignore, &apps);
        let trees: Vec<_> = commits.iter().map(|commit| listed(&repo, commit.as_str())).collect();
        // What is on disk, as git itself would commit it.
        repo.git(&["add", "-A"]);
        let on_disk = listed(&repo, &repo.git(&["write-tree"]));
        repo.git(&["reset", "-q"]);
        let seen_by = |app: usize, tree: &BTreeMap<String, String>| -> BTreeMap<String, String> {
            let rules = [apps[app].uses.as_slice(), &global].concat();
            let ignores = [ignore.as_slice(), &apps[app].ignore].concat();
            tree.iter().filter(|(path, _)| is_input(&rules, &ignores, path)).map(|(path, facts)| (path.clone(), facts.clone())).collect()
        };
        // Running git for each answer takes its time: a part of the cases is enough for it.
        let both = history[0].len() % 3 == 0;
        for reader in readers(&repo.root).into_iter().take(if both { 2 } else { 1 }) {
            check(reader.as_ref(), &commits, &trees, &on_disk, &inputs, &seen_by)?;
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

type Tree = BTreeMap<String, String>;

fn check(
    reader: &dyn History,
    commits: &[CommitId],
    trees: &[Tree],
    on_disk: &Tree,
    inputs: &[Inputs],
    seen_by: &dyn Fn(usize, &Tree) -> Tree,
) -> Result<(), TestCaseError> {
    let dirty = reader.dirty().unwrap();
    let head = commits.len() - 1;
    for (old, base) in commits.iter().enumerate() {
        for (new, commit) in commits.iter().enumerate().skip(old) {
            let found = affected(inputs, &reader.changes(base, commit).unwrap());
            for (number, app) in inputs.iter().enumerate() {
                let (before, after) = (seen_by(number, &trees[old]), seen_by(number, &trees[new]));
                let paths: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
                let expected: BTreeSet<String> = paths.into_iter().filter(|path| before.get(*path) != after.get(*path)).cloned().collect();
                let reasons = found.reasons.get(&app.app).cloned().unwrap_or_default();
                let named: BTreeSet<String> = reasons.iter().map(|reason| reason.change.path.to_string()).collect();
                prop_assert_eq!(&named, &expected, "{} from {} to {}", app.app, old, new);
            }
        }
    }
    let found = affected(inputs, &dirty);
    for (number, app) in inputs.iter().enumerate() {
        let mut prints: BTreeMap<String, Tree> = BTreeMap::new();
        let now = seen_by(number, on_disk);
        let print = |at: usize, dirty: &[_]| fingerprint(reader, &commits[at], app, "digest", dirty).unwrap().to_string();
        let states = (0..commits.len()).map(|at| (print(at, &[]), seen_by(number, &trees[at]))).chain([(print(head, &dirty), now.clone())]);
        for (print, state) in states {
            let known = prints.entry(print).or_insert_with(|| state.clone());
            prop_assert_eq!(&*known, &state, "two states of {} with one fingerprint", app.app);
        }
        let distinct: BTreeSet<&Tree> = prints.values().collect();
        prop_assert_eq!(distinct.len(), prints.len(), "one state of {} with two fingerprints", app.app);
        prop_assert_eq!(found.reasons.contains_key(&app.app), now != seen_by(number, &trees[head]), "dirty {}", app.app);
    }
    Ok(())
}
