//! The whole chain against brute force: generated histories, rules and work trees, and an oracle that asks plain git for every
//! file of both sides, matches it with a matcher of its own, and compares.
//!
//! The rules are written as an `apps.yaml` and read by the program: sets within sets, `global`, `ignore` with `!`, patterns of an
//! app's directory and of the root. Each case is a history of five commits and a work tree, compared pair by pair for three
//! apps: eighteen answers of affected paths and as many fingerprints.
//!
//! `OFFBUILD_CASES` sets the number of cases: three hundred when it is not set, ten thousand every night. Cases share a
//! repository and the two git processes that write and list it, so that one takes a few hundredths of a second.

use super::{Repo, git, readers};
use offbuild::changes::History;
use offbuild::changes::fingerprint::fingerprint;
use offbuild::changes::inputs::{Inputs, Shared, affected, inputs_of};
use offbuild::config;
use offbuild::names::CommitId;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::json;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A file's mode and content; a submodule's content is the digit its commit is made of.
pub(super) type Files = BTreeMap<String, (u32, u8)>;

#[derive(Debug, Clone)]
pub(super) enum Edit {
    Set(String, u32, u8),
    Delete(String),
    Rename(String, String),
}

fn some_path() -> impl Strategy<Value = String> {
    proptest::collection::vec(prop_oneof!["a", "b", "c", "d\\.md"], 1..4).prop_map(|parts| parts.join("/"))
}

pub(super) fn some_edit(modes: &'static [u32]) -> impl Strategy<Value = Edit> {
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

pub(super) fn apply(files: &mut Files, edit: &Edit) {
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

/// A git process that is asked again and again.
struct Asked {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Asked {
    fn start(root: &Path, args: &[&str]) -> Self {
        let mut command = Command::new("git");
        let mut child = command.current_dir(root).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (to, from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, to, from }
    }

    /// Sends `text`, and reads lines up to and without the one that is `last`.
    fn ask(&mut self, text: &str, last: &str) -> Vec<String> {
        self.to.write_all(text.as_bytes()).unwrap();
        self.to.flush().unwrap();
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            assert!(self.from.read_line(&mut line).unwrap() > 0, "git went away");
            match line.trim_end_matches('\n') {
                line if line == last => return lines,
                line => lines.push(line.to_owned()),
            }
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        // What it still holds in memory goes away with the repository.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The tree without entries, which every repository has.
const EMPTY: &str = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";

/// A repository for many histories, one after the other, and a directory with the rules.
pub(super) struct Workshop {
    import: Asked,
    differ: Asked,
    pub(super) repo: Repo,
    rules: tempfile::TempDir,
    left: u32,
}

impl Workshop {
    pub(super) fn open() -> Self {
        let repo = Repo::new();
        let rules = tempfile::tempdir().unwrap();
        for dir in DIRS {
            std::fs::create_dir_all(rules.path().join(dir)).unwrap();
            std::fs::write(rules.path().join(dir).join("convox.yml"), "services: {main: {image: scratch}}\n").unwrap();
        }
        // Packs, as `unpack-objects` would be one more process for each case.
        let import = Asked::start(&repo.root, &["-c", "fastimport.unpackLimit=1", "fast-import", "--quiet", "--force"]);
        let differ = Asked::start(&repo.root, &["diff-tree", "--stdin", "-r", "--no-renames"]);
        Self { import, differ, repo, rules, left: 64 }
    }

    /// Makes room for a new case: in a new repository when there are many in this one.
    pub(super) fn next(&mut self) {
        if self.left == 0 {
            *self = Self::open();
        }
        self.left -= 1;
    }

    /// One commit after another, and the branch on the last one: each commit's id, and its tree's.
    pub(super) fn import(&mut self, states: &[Files]) -> Vec<(CommitId, String)> {
        let mut stream = "reset refs/heads/main\n".to_owned();
        for (number, files) in states.iter().enumerate() {
            let _ = write!(stream, "commit refs/heads/main\nmark :{}\ncommitter A <a@example.com> 1767323045 +0000\n", number + 1);
            stream.push_str("data 0\ndeleteall\n");
            for (path, (mode, content)) in files {
                let _ = if *mode == 0o160_000 {
                    writeln!(stream, "M 160000 {} {path}", (content + 1).to_string().repeat(40))
                } else {
                    writeln!(stream, "M {mode:o} inline {path}\ndata 1\n{content}")
                };
            }
        }
        stream.push_str("checkpoint\n\n");
        for number in 1..=states.len() {
            let _ = writeln!(stream, "get-mark :{number}\nls :{number} \"\"");
        }
        stream.push_str("progress done\n\n");
        let told = self.import.ask(&stream, "progress done");
        let tree = |line: &str| line.split_whitespace().nth(2).unwrap().to_owned();
        told.chunks(2).map(|lines| (CommitId::new(lines[0].as_str()).unwrap(), tree(&lines[1]))).collect()
    }

    /// Every file of a tree as plain git lists it: path → mode and id.
    fn listed(&mut self, tree: &str) -> Tree {
        let lines = self.differ.ask(&format!("{EMPTY} {tree}\nend\n"), "end");
        let file = |line: &str| {
            let (facts, path) = line.strip_prefix(':')?.split_once('\t')?;
            let facts: Vec<&str> = facts.split(' ').collect();
            Some((path.to_owned(), format!("{} {}", facts[1], facts[3])))
        };
        lines.iter().filter_map(|line| file(line)).collect()
    }

    /// Checks the branch out over whatever the case before left behind.
    fn check_out(&self) {
        for entry in std::fs::read_dir(&self.repo.root).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().is_some_and(|name| name != ".git") {
                remove(&path);
            }
        }
        self.repo.git(&["reset", "-q", "--hard", "main"]);
    }

    /// The inputs of every app, as the program reads them from a file.
    pub(super) fn inputs(&self, rules: &Rules) -> Vec<Inputs> {
        let root = self.rules.path();
        std::fs::write(root.join("apps.yaml"), rules.file()).unwrap();
        let config =
            config::load(root, root, None, &|_| None).unwrap_or_else(|error| panic!("{error}: {:?}: {}", error.causes, rules.file()));
        let shared = Shared::of(&config, &|_| Vec::new()).unwrap();
        let inputs: BTreeMap<String, Inputs> = config
            .apps
            .iter()
            .map(|app| (app.name.to_string(), inputs_of(app, &shared, None, &BTreeMap::new(), &|_| Vec::new()).unwrap()))
            .collect();
        (0..rules.apps.len()).map(|number| inputs[&format!("app{number}")].clone()).collect()
    }
}

fn remove(path: &Path) {
    match path.symlink_metadata() {
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(path).unwrap(),
        Ok(_) => std::fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
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

/// True when a rule means the path and the last ignore pattern that matches it, if any, lets it in.
fn is_input(rules: &[String], ignores: &[String], path: &str) -> bool {
    // As an input, `a/**` means `a` too: it may turn into a link.
    let literal = |dir: &str| dir.split('/').all(|part| ["a", "b", "c"].contains(&part));
    let input = |rule: &String| matches(rule, path) || rule.strip_suffix("/**").is_some_and(|dir| literal(dir) && matches(dir, path));
    let last = ignores.iter().rev().find(|ignore| matches(ignore.trim_start_matches('!'), path));
    rules.iter().any(input) && last.is_none_or(|ignore| ignore.starts_with('!'))
}

/// Where apps may be; one may lie in another.
const DIRS: [&str; 5] = ["a", "b", "c", "a/b", "b/c/a"];

#[derive(Debug, Clone)]
pub(super) struct Rules {
    /// Sets of `shared`: the second one uses the first one.
    sets: [Vec<String>; 2],
    global: Vec<String>,
    ignore: Vec<String>,
    apps: Vec<AppRules>,
}

#[derive(Debug, Clone)]
struct AppRules {
    dir: &'static str,
    uses: Vec<String>,
    sets: [bool; 2],
    /// As written: from the app's directory, or with `/` from the root.
    ignore: Vec<String>,
}

pub(super) fn some_rules() -> impl Strategy<Value = Rules> {
    let patterns = |most: usize| proptest::collection::vec(some_pattern(), 0..most);
    let own = (any::<bool>(), any::<bool>(), some_pattern())
        .prop_map(|(not, rooted, text)| format!("{}{}{text}", if not { "!" } else { "" }, if rooted { "/" } else { "" }));
    let app = (patterns(3), any::<[bool; 2]>(), proptest::collection::vec(own, 0..3));
    let dirs = proptest::sample::subsequence(DIRS.to_vec(), 3);
    let everything = (patterns(3), patterns(2), patterns(2), some_ignores(), dirs, proptest::collection::vec(app, 3));
    everything.prop_map(|(first, second, global, ignore, dirs, apps)| Rules {
        sets: [first, second],
        global,
        ignore,
        apps: apps.into_iter().zip(dirs).map(|((uses, sets, ignore), dir)| AppRules { dir, uses, sets, ignore }).collect(),
    })
}

impl Rules {
    /// As a user writes them.
    fn file(&self) -> String {
        // A word without a slash would have to be a set, or there.
        let rooted = |patterns: &[String]| -> Vec<String> { patterns.iter().map(|pattern| format!("/{pattern}")).collect() };
        let apps: serde_json::Map<String, serde_json::Value> = self
            .apps
            .iter()
            .enumerate()
            .map(|(number, app)| {
                let sets = ["first", "second"].into_iter().zip(app.sets).filter(|(_, used)| *used).map(|(name, _)| name.to_owned());
                let uses: Vec<String> = sets.chain(rooted(&app.uses)).collect();
                (format!("app{number}"), json!({"path": app.dir, "uses": uses, "ignore": app.ignore}))
            })
            .collect();
        let shared = json!({"first": rooted(&self.sets[0]), "second": {"paths": rooted(&self.sets[1]), "uses": ["first"]}});
        json!({"version": 1, "discover": {"include": []}, "shared": shared, "global": self.global, "ignore": self.ignore, "apps": apps})
            .to_string()
    }

    /// What of a tree is an app's input.
    fn seen_by(&self, app: usize, tree: &Tree) -> Tree {
        let app = &self.apps[app];
        let [first, second] = &self.sets;
        let mut rules = [&[app.dir.to_owned()], &app.uses[..], &self.global].concat();
        if app.sets[0] || app.sets[1] {
            rules.extend_from_slice(first);
        }
        if app.sets[1] {
            rules.extend_from_slice(second);
        }
        let own = app.ignore.iter().map(|text| {
            let (not, pattern) = text.strip_prefix('!').map_or(("", text.as_str()), |pattern| ("!", pattern));
            pattern.strip_prefix('/').map_or_else(|| format!("{not}{}/{pattern}", app.dir), |pattern| format!("{not}{pattern}"))
        });
        let ignores: Vec<String> = self.ignore.iter().cloned().chain(own).collect();
        tree.iter().filter(|(path, _)| is_input(&rules, &ignores, path)).map(|(path, facts)| (path.clone(), facts.clone())).collect()
    }
}

/// The work tree after uncommitted edits: written file by file. Not where a submodule stands: git refuses to look at such a tree.
fn edit_on_disk(root: &Path, head: &Files, edits: &[Edit]) {
    let submodules: Vec<&String> = head.iter().filter(|(_, (mode, _))| *mode == 0o160_000).map(|(path, _)| path).collect();
    let is_free = |path: &str| submodules.iter().all(|at| !Path::new(path).starts_with(at) && !Path::new(at).starts_with(path));
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

pub(super) const ANY: &[u32] = &[0o100_644, 0o100_644, 0o100_755, 0o120_000, 0o160_000];
const ON_DISK: &[u32] = &[0o100_644, 0o100_644, 0o100_755, 0o120_000];

/// As many as `OFFBUILD_CASES` says.
pub(super) fn cases(usual: u32) -> u32 {
    std::env::var("OFFBUILD_CASES").map_or(usual, |cases| cases.parse().expect("`OFFBUILD_CASES` is a number"))
}

#[test]
fn affected_is_what_hashing_every_input_says() {
    let config = ProptestConfig { cases: cases(300), failure_persistence: None, max_shrink_iters: 500, ..ProptestConfig::default() };
    let history = proptest::collection::vec(proptest::collection::vec(some_edit(ANY), 1..8), 5);
    let world = (history, proptest::collection::vec(some_edit(ON_DISK), 0..5), some_rules());
    let workshop = RefCell::new(Workshop::open());
    let outcome = TestRunner::new(config).run(&world, |(history, uncommitted, rules)| {
        let mut workshop = workshop.borrow_mut();
        workshop.next();
        let mut states: Vec<Files> = Vec::new();
        for edits in &history {
            let mut files = states.last().cloned().unwrap_or_default();
            edits.iter().for_each(|edit| apply(&mut files, edit));
            states.push(files);
        }
        let (commits, trees): (Vec<CommitId>, Vec<String>) = workshop.import(&states).into_iter().unzip();
        workshop.check_out();
        let root: PathBuf = workshop.repo.root.clone();
        edit_on_disk(&root, &states[states.len() - 1], &uncommitted);
        let inputs = workshop.inputs(&rules);
        let trees: Vec<Tree> = trees.iter().map(|tree| workshop.listed(tree)).collect();
        // What is on disk, as git itself would commit it.
        git(&root, &["add", "-A"]);
        let written = git(&root, &["write-tree"]);
        let on_disk = workshop.listed(&written);
        git(&root, &["reset", "-q"]);
        // Running git for each answer takes its time: a part of the cases is enough for it.
        let both = history.iter().map(Vec::len).sum::<usize>() % 8 == 0;
        for reader in readers(&root).into_iter().take(if both { 2 } else { 1 }) {
            check(reader.as_ref(), &commits, &trees, &on_disk, &inputs, &rules)?;
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
    rules: &Rules,
) -> Result<(), TestCaseError> {
    let dirty = reader.dirty().unwrap();
    let head = commits.len() - 1;
    for (old, base) in commits.iter().enumerate() {
        for (new, commit) in commits.iter().enumerate().skip(old) {
            let found = affected(inputs, &reader.changes(base, commit).unwrap());
            for (number, app) in inputs.iter().enumerate() {
                let (before, after) = (rules.seen_by(number, &trees[old]), rules.seen_by(number, &trees[new]));
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
        let now = rules.seen_by(number, on_disk);
        let print = |at: usize, dirty: &[_]| fingerprint(reader, &commits[at], app, "digest", dirty).unwrap().to_string();
        let states =
            (0..commits.len()).map(|at| (print(at, &[]), rules.seen_by(number, &trees[at]))).chain([(print(head, &dirty), now.clone())]);
        for (print, state) in states {
            let known = prints.entry(print).or_insert_with(|| state.clone());
            prop_assert_eq!(&*known, &state, "two states of {} with one fingerprint", app.app);
        }
        let distinct: BTreeSet<&Tree> = prints.values().collect();
        prop_assert_eq!(distinct.len(), prints.len(), "one state of {} with two fingerprints", app.app);
        prop_assert_eq!(found.reasons.contains_key(&app.app), now != rules.seen_by(number, &trees[head]), "dirty {}", app.app);
    }
    Ok(())
}
