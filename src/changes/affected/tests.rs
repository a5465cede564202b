use super::*;
use crate::changes::ChangeKind;
use crate::changes::inputs::{Ignores, Unseen};
use crate::yaml::Place;
use proptest::prelude::*;

fn place(line: usize) -> Place {
    Place { file: "apps.yaml".into(), line, column: 3 }
}

fn pattern(text: &str, line: usize) -> Pattern {
    let (negated, glob) = text.strip_prefix('!').map_or((false, text), |glob| (true, glob));
    Pattern { glob: glob.into(), negated, place: place(line) }
}

fn patterns(all: &[&str]) -> Ignores {
    Ignores::new(&all.iter().enumerate().map(|(line, text)| pattern(text, line + 1)).collect::<Vec<_>>()).unwrap()
}

fn rule(kind: &'static str, text: &str) -> InputRule {
    let rule = Rule { kind, matches: text.into(), place: None, through: Vec::new() };
    InputRule { reach: Reach::of(text).unwrap(), rule, unseen: None }
}

pub(in crate::changes) fn shared(global: &[&str], ignore: &[&str]) -> Arc<Shared> {
    Arc::new(Shared {
        global: global.iter().map(|text| rule("global", text)).collect(),
        ignore: patterns(ignore),
        file: Some("apps.yaml".into()),
    })
}

pub(in crate::changes) fn app(name: &str, rules: &[&str], ignore: &[&str], shared: &Arc<Shared>) -> Inputs {
    Inputs {
        app: AppName::new(name).unwrap(),
        rules: rules.iter().map(|text| rule("uses", text)).collect(),
        ignore: Arc::new(patterns(ignore)),
        shared: shared.clone(),
    }
}

pub(in crate::changes) fn change(path: &[u8]) -> Change {
    Change { path: RepoPath::from_git(path), kind: ChangeKind::Modified, dirty: false }
}

/// `web: a, b; near web: c; unowned: d`.
fn show(found: &Affected) -> String {
    let one = |name: String, reasons: &[PathReason]| {
        let all: Vec<String> = reasons.iter().map(|reason| format!("{} ({})", reason.change.path, reason.rule.matches)).collect();
        format!("{name}: {}", all.join(", "))
    };
    let mut parts: Vec<String> = found.reasons.iter().map(|(app, reasons)| one(app.to_string(), reasons)).collect();
    parts.extend(found.near.iter().map(|(app, reasons)| one(format!("near {app}"), reasons)));
    parts.extend(found.unowned.iter().map(|change| format!("unowned {}", change.path)));
    parts.join("; ")
}

#[test]
fn paths_find_their_apps() {
    let common = shared(&[".tool-versions", "ci/**"], &["**/*.md", "!**/KEEP.md"]);
    let inputs = [
        app("web", &["apps/web", "libs/auth/**", "proto/*.proto"], &["apps/web/docs/**", "!apps/web/docs/api"], &common),
        app("admin", &["apps/web/admin", "libs/auth/**"], &[], &common),
    ];
    let table: [(&str, &str); 20] = [
        ("apps/web/x", "web: apps/web/x (apps/web)"),
        ("apps/web", "web: apps/web (apps/web)"),
        ("apps/web2/x", "unowned apps/web2/x"),
        ("apps/Web/x", "unowned apps/Web/x"),
        ("apps", "unowned apps"),
        ("apps/web/admin/x", "admin: apps/web/admin/x (apps/web/admin); web: apps/web/admin/x (apps/web)"),
        ("libs/auth/deep/x", "admin: libs/auth/deep/x (libs/auth/**); web: libs/auth/deep/x (libs/auth/**)"),
        ("libs/other", "unowned libs/other"),
        ("proto/a.proto", "web: proto/a.proto (proto/*.proto)"),
        ("proto/a.proto/now/a/directory", "web: proto/a.proto/now/a/directory (proto/*.proto)"),
        ("proto/deep/a.proto", "unowned proto/deep/a.proto"),
        ("ci/x", "admin: ci/x (ci/**); web: ci/x (ci/**)"),
        (".tool-versions", "admin: .tool-versions (.tool-versions); web: .tool-versions (.tool-versions)"),
        ("apps/web/README.md", "near web: apps/web/README.md (**/*.md)"),
        ("README.md", ""),
        ("KEEP.md", "unowned KEEP.md"),
        ("apps/web/KEEP.md", "web: apps/web/KEEP.md (apps/web)"),
        ("apps/web/docs/x", "near web: apps/web/docs/x (apps/web/docs/**)"),
        ("apps/web/docs/api/x.md", "web: apps/web/docs/api/x.md (apps/web)"),
        ("apps.yaml", ""),
    ];
    for (path, expected) in table {
        assert_eq!(show(&affected(&inputs, &[change(path.as_bytes())])), expected, "{path}");
    }
}

#[test]
fn a_name_that_is_no_text_matches_too() {
    let common = shared(&[], &[]);
    let inputs = [app("web", &["apps/web/*.rb"], &[], &common), app("api", &["apps/api"], &[], &common)];
    let found = affected(&inputs, &[change(b"apps/web/\xff.rb"), change(b"apps/api/\xfe/x"), change(b"apps/\xfd")]);
    assert_eq!(show(&found), "api: apps/api/\\xfe/x (apps/api); web: apps/web/\\xff.rb (apps/web/*.rb); unowned apps/\\xfd");
}

#[test]
fn every_rule_that_matches_is_a_reason() {
    let common = shared(&["**/*.lock"], &[]);
    let inputs = [app("web", &["", "apps", "apps/*/x.lock", "apps/*/x.lock"], &[], &common)];
    let found = affected(&inputs, &[change(b"apps/web/x.lock")]);
    let kinds: Vec<&str> = found.reasons[&inputs[0].app].iter().map(|reason| reason.rule.matches.as_str()).collect();
    assert_eq!(kinds, ["", "apps", "**/*.lock", "apps/*/x.lock", "apps/*/x.lock"]);
}

#[test]
fn what_a_build_cannot_see_is_no_input_of_it() {
    let common = shared(&[], &[]);
    let mut web = app("web", &["libs"], &[], &common);
    web.rules[0].unseen = Unseen::new(RepoPath::default(), "libs/docs\n");
    let found = affected(&[web], &[change(b"libs/docs/x"), change(b"libs/x")]);
    assert_eq!(show(&found), "web: libs/x (libs); unowned libs/docs/x");
}

#[test]
fn unowned_paths_have_a_consequence() {
    let common = shared(&[], &[]);
    let inputs = [app("web", &["web"], &[], &common)];
    let found = affected(&inputs, &[change(b"x")]);
    let mut all = found.clone();
    all.apply(Unowned::All, &inputs).unwrap();
    assert_eq!(show(&all), "web: x (x); unowned x");
    assert_eq!(found.clone().apply(Unowned::Error, &inputs).unwrap_err().message, "no app owns `x`");
    let mut report = found.clone();
    report.apply(Unowned::Report, &inputs).unwrap();
    assert_eq!(report, found);
}

/// A few names and few glob forms, so that rules and paths meet often.
fn some_path() -> impl Strategy<Value = String> {
    proptest::collection::vec(prop_oneof!["a", "b", "c", "a\\.md"], 1..5).prop_map(|parts| parts.join("/"))
}

fn some_pattern() -> impl Strategy<Value = String> {
    let part = prop_oneof![4 => "a", 4 => "b", 2 => "c", 2 => "\\*", 2 => "\\*\\*", 1 => "\\*\\.md", 1 => "\\{a,b\\}", 1 => "[ab]"];
    proptest::collection::vec(part, 1..4).prop_map(|parts| parts.join("/"))
}

fn some_ignores() -> impl Strategy<Value = Vec<String>> {
    let signed = (any::<bool>(), some_pattern()).prop_map(|(not, text)| if not { format!("!{text}") } else { text });
    proptest::collection::vec(signed, 0..3)
}

/// The rule in the plainest words: some pattern matches the path or a directory above it, and the last ignore pattern that
/// does so, if any, is negated.
fn plainly(rules: &[String], ignores: &[String], path: &str) -> bool {
    let matches = |pattern: &str| {
        let glob = globset::GlobBuilder::new(pattern).literal_separator(true).build().unwrap().compile_matcher();
        let parts: Vec<&str> = path.split('/').collect();
        (1..=parts.len()).any(|length| glob.is_match(parts[..length].join("/")))
    };
    // As an input, a directory's pattern means the directory too.
    let input = |pattern: &String| {
        matches(pattern) || pattern.strip_suffix("/**").is_some_and(|dir| !dir.contains(['*', '{', '[']) && matches(dir))
    };
    let last = ignores.iter().rev().find(|pattern| matches(pattern.trim_start_matches('!')));
    rules.iter().any(input) && last.is_none_or(|pattern| pattern.starts_with('!'))
}

fn configured(global: &[String], apps: &[(Vec<String>, Vec<String>)], ignore: &[String]) -> Vec<Inputs> {
    let lines = |all: &[String]| all.iter().enumerate().map(|(line, text)| pattern(text, line)).collect::<Vec<_>>();
    let rules =
        |kind, all: &[String]| all.iter().map(|text| crate::changes::inputs::input(kind, &pattern(text, 1), &[]).unwrap()).collect();
    let common = Arc::new(Shared { global: rules("global", global), ignore: Ignores::new(&lines(ignore)).unwrap(), file: None });
    let make = |(number, (uses, ignore)): (usize, &(Vec<String>, Vec<String>))| Inputs {
        app: AppName::new(format!("app{number}")).unwrap(),
        rules: rules("uses", uses),
        ignore: Arc::new(Ignores::new(&lines(ignore)).unwrap()),
        shared: common.clone(),
    };
    apps.iter().enumerate().map(make).collect()
}

proptest! {
    #[test]
    fn the_index_finds_what_trying_every_rule_finds(
        global in proptest::collection::vec(some_pattern(), 0..2),
        ignore in some_ignores(),
        apps in proptest::collection::vec((proptest::collection::vec(some_pattern(), 0..4), some_ignores()), 1..5),
        paths in proptest::collection::btree_set(some_path(), 1..12),
    ) {
        let inputs = configured(&global, &apps, &ignore);
        let changes: Vec<Change> = paths.iter().map(|path| change(path.as_bytes())).collect();
        let found = affected(&inputs, &changes);
        for (app, (uses, own)) in inputs.iter().zip(&apps) {
            let rules = [uses.as_slice(), &global].concat();
            let ignores = [ignore.as_slice(), own].concat();
            let expected: BTreeSet<&String> = paths.iter().filter(|path| plainly(&rules, &ignores, path)).collect();
            let reasons = found.reasons.get(&app.app).cloned().unwrap_or_default();
            let paths_of = |all: &[PathReason]| all.iter().map(|reason| reason.change.path.to_string()).collect::<BTreeSet<_>>();
            prop_assert_eq!(paths_of(&reasons), expected.iter().map(|path| (*path).clone()).collect::<BTreeSet<_>>());
            // The one-app question has the same answer, and near misses are what the ignore rules took out.
            for change in &changes {
                prop_assert_eq!(app.contain(&change.path), expected.contains(&change.path.to_string()));
            }
            let near = found.near.get(&app.app).cloned().unwrap_or_default();
            let owned: BTreeSet<String> = paths.iter().filter(|path| plainly(&rules, &[], path)).cloned().collect();
            prop_assert_eq!(&paths_of(&near) | &paths_of(&reasons), owned);
            // Without the paths it names, nothing is left.
            let others: Vec<Change> = changes.iter().filter(|change| !reasons.iter().any(|reason| reason.change == **change)).cloned().collect();
            prop_assert!(!affected(&inputs, &others).reasons.contains_key(&app.app));
        }
    }
}

/// Paths of a small tree, so that rules and changes meet.
fn small_path() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec!["a", "b", "c.md", "d"]);
    prop::collection::vec(part, 1..4).prop_map(|parts| parts.join("/"))
}

fn small_pattern() -> impl Strategy<Value = String> {
    prop_oneof![
        small_path(),
        small_path().prop_map(|path| format!("{path}/**")),
        small_path().prop_map(|path| format!("{path}/*")),
        Just("**/*.md".to_owned())
    ]
}

proptest! {
    /// What a verdict names is all that it rests on: without the paths it names the app is left alone, with any one of them it
    /// is not, and no other path changes anything.
    #[test]
    fn the_reasons_are_exactly_what_matters(
        rules in prop::collection::vec(small_pattern(), 1..4),
        global in prop::collection::vec(small_pattern(), 0..2),
        taken in prop::collection::vec((any::<bool>(), small_pattern()), 0..3),
        paths in prop::collection::btree_set(small_path(), 1..12),
    ) {
        let taken: Vec<String> = taken.into_iter().map(|(back, pattern)| if back { format!("!{pattern}") } else { pattern }).collect();
        let list = |texts: &[String]| -> Vec<&'static str> { texts.iter().map(|text| &*String::leak(text.clone())).collect() };
        let common = shared(&list(&global), &[]);
        let web = app("web", &list(&rules), &list(&taken), &common);
        let inputs = [web];
        let matcher = Matcher::new(&inputs);
        let name = inputs[0].app.clone();
        let changes: Vec<Change> = paths.iter().map(|path| change(path.as_bytes())).collect();
        let reasons = matcher.affected(&changes).reasons.remove(&name).unwrap_or_default();
        let named: BTreeSet<&RepoPath> = reasons.iter().map(|reason| &reason.change.path).collect();
        let affects = |changes: &[Change]| matcher.affected(changes).reasons.contains_key(&name);
        let (listed, unlisted): (Vec<Change>, Vec<Change>) = changes.iter().cloned().partition(|change| named.contains(&change.path));
        prop_assert!(!affects(&unlisted), "left over: {unlisted:?}");
        for one in &listed {
            prop_assert!(affects(std::slice::from_ref(one)), "alone: {one:?}");
            let with_others: Vec<Change> = unlisted.iter().chain([one]).cloned().collect();
            prop_assert_eq!(matcher.affected(&with_others).reasons, matcher.affected(std::slice::from_ref(one)).reasons);
        }
        // What is not named is told as a near miss when a rule means it, never both.
        let near = super::super::near::misses(&inputs[0], &changes, &|_, _| None, usize::MAX);
        for miss in &near {
            prop_assert!(!named.contains(&miss.change.path));
        }
    }
}
