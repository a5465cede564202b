use super::*;
use crate::changes::{Change, ChangeKind, Rule};

fn id(digit: char) -> CommitId {
    CommitId::new(digit.to_string().repeat(40)).unwrap()
}

fn print(byte: u8) -> Fingerprint {
    Fingerprint::from_sha256(&[byte; 32])
}

fn path(text: &str, dirty: bool) -> PathReason {
    let rule = Rule { kind: "directory", matches: "web".to_owned(), place: None, through: Vec::new() };
    PathReason { change: Change { path: text.into(), kind: ChangeKind::Modified, dirty }, rule }
}

/// An app that runs commit 1, made by offbuild, with HEAD one commit further and nothing of the app changed.
fn calm() -> Facts {
    Facts {
        state: State::Live {
            not_running: None,
            recorded: Some(Recorded::new(print(1), "cafe0000", false)),
            commit: Some((id('1'), Ancestry::Descendant)),
        },
        basis: Basis::Commit { commit: id('1'), source: BaseSource::Build, changed: vec![] },
        dirty: vec![],
        rolled_back: None,
        app_digest: "cafe0000ff".to_owned(),
        config_changed: false,
        fingerprint: None,
    }
}

fn changed() -> Facts {
    Facts {
        basis: Basis::Commit { commit: id('1'), source: BaseSource::Build, changed: vec![path("web/x", false)] },
        fingerprint: Some(print(2)),
        ..calm()
    }
}

fn missing() -> Basis {
    let fetch = Some(FetchCommand::for_missing(id('1').as_str(), true));
    Basis::Missing { wanted: "the live build's commit".to_owned(), why: "is not in this shallow clone".to_owned(), fetch }
}

fn live(edit: impl FnOnce(&mut Option<String>, &mut Option<Recorded>, &mut Option<(CommitId, Ancestry)>), mut facts: Facts) -> Facts {
    if let State::Live { not_running, recorded, commit } = &mut facts.state {
        edit(not_running, recorded, commit);
    }
    facts
}

fn ordered(ancestry: Ancestry, facts: Facts) -> Facts {
    live(|_, _, commit| *commit = Some((id('1'), ancestry)), facts)
}

fn said(facts: &Facts, wishes: Wishes) -> String {
    let decision = decide(facts, wishes);
    let reasons: Vec<String> = decision.reasons.iter().map(ToString::to_string).collect();
    let detail = match &decision.verdict {
        Verdict::Refused { why } => format!(" [{why}]"),
        _ => String::new(),
    };
    format!("{}{detail}: {}", decision.verdict.word(), reasons.join("; "))
}

#[test]
fn verdicts() {
    let none = Wishes::default();
    let all = Wishes { all: true, ..none };
    let rolled_back = |changed_since| Some(RolledBack { from: Some(id('2')), changed_since });
    let weak = Basis::Commit { commit: id('1'), source: BaseSource::Revision, changed: vec![] };
    let given = Basis::Commit { commit: id('3'), source: BaseSource::Given("`--base x`".to_owned()), changed: vec![path("web/x", false)] };
    let one = "modified web/x (directory web)";
    let table: Vec<(&str, Facts, Wishes, String)> = vec![
        ("nothing changed", calm(), none, "up-to-date: ".into()),
        ("nothing changed, all", calm(), all, "deploy: `--all`".into()),
        ("a path", changed(), none, format!("deploy: {one}")),
        ("a path, all", changed(), all, format!("deploy: {one}; `--all`")),
        ("a path, but the same fingerprint", Facts { fingerprint: Some(print(1)), ..changed() }, none, "up-to-date: ".into()),
        ("never deployed", Facts { state: State::NeverDeployed, basis: Basis::Unnamed, ..calm() }, none, "deploy: never deployed".into()),
        (
            "no such app",
            Facts { state: State::NoApp("app `web` does not exist on rack `r`".into()), ..calm() },
            all,
            "refused [app `web` does not exist on rack `r`: create it with `convox apps create`]: `--all`".into(),
        ),
        (
            "rack down",
            Facts { state: State::Unreachable("no route".into()), basis: Basis::Unnamed, ..calm() },
            none,
            "deploy: rack unreachable: no route".into(),
        ),
        (
            "not running",
            live(|status, _, _| *status = Some("rollback".into()), Facts { fingerprint: Some(print(1)), ..calm() }),
            none,
            "deploy: not running: the rack says `rollback`".into(),
        ),
        ("another configuration", Facts { app_digest: "beef0000".into(), ..calm() }, none, "deploy: its configuration changed".into()),
        ("another configuration then", Facts { config_changed: true, ..calm() }, none, "deploy: its configuration changed".into()),
        (
            "deployed from a dirty tree",
            live(
                |_, recorded, _| *recorded = Some(Recorded::new(print(1), "cafe0000", true)),
                Facts { fingerprint: Some(print(2)), ..calm() },
            ),
            none,
            format!("deploy: fingerprint differs: {} is live, {} is here", print(1), print(2)),
        ),
        (
            "base missing, same fingerprint",
            Facts { basis: missing(), fingerprint: Some(print(1)), ..calm() },
            none,
            "up-to-date: ".into(),
        ),
        (
            "base missing, other fingerprint",
            Facts { basis: missing(), fingerprint: Some(print(2)), ..calm() },
            none,
            format!("deploy: fingerprint differs: {} is live, {} is here", print(1), print(2)),
        ),
        (
            "base missing, none recorded",
            live(|_, recorded, _| *recorded = None, Facts { basis: missing(), ..calm() }),
            none,
            "deploy: base unreachable: the live build's commit: is not in this shallow clone; run `git fetch --unshallow origin`".into(),
        ),
        (
            "nothing recorded",
            live(|_, recorded, _| *recorded = None, Facts { basis: Basis::Unnamed, ..calm() }),
            none,
            "deploy: the rack has no commit recorded for what is live".into(),
        ),
        ("weak source", Facts { basis: weak, ..calm() }, none, "up-to-date: ".into()),
        ("a base by hand", Facts { basis: given.clone(), fingerprint: Some(print(1)), ..calm() }, none, format!("deploy: {one}")),
        ("offline", Facts { state: State::Unasked, basis: given, ..calm() }, none, format!("deploy: {one}")),
        ("older than live", ordered(Ancestry::Ancestor, changed()), none, format!("stale: {one}")),
        ("older than live, all", ordered(Ancestry::Ancestor, changed()), all, format!("stale: {one}; `--all`")),
        ("older than live, nothing changed", ordered(Ancestry::Ancestor, calm()), none, "up-to-date: ".into()),
        (
            "older, wanted",
            ordered(Ancestry::Ancestor, changed()),
            Wishes { allow_older: true, ..none },
            format!("deploy: {one}"),
        ),
        (
            "diverged",
            ordered(Ancestry::Diverged, changed()),
            none,
            format!(
                "refused [live commit 111111111111 has diverged from HEAD: deploying would take back what only it has; merge it, or use `--allow-diverged`]: {one}"
            ),
        ),
        ("diverged, nothing changed", ordered(Ancestry::Diverged, calm()), none, "up-to-date: ".into()),
        (
            "diverged, wanted",
            ordered(Ancestry::Diverged, changed()),
            Wishes { allow_diverged: true, ..none },
            format!("deploy: {one}"),
        ),
        ("order unknown", ordered(Ancestry::Unknown, changed()), none, format!("deploy: {one}")),
        ("rolled back", Facts { rolled_back: rolled_back(false), ..changed() }, none, format!("held: {one}")),
        ("rolled back, changed since", Facts { rolled_back: rolled_back(true), ..changed() }, none, format!("deploy: {one}")),
        (
            "rolled back, released",
            Facts { rolled_back: rolled_back(false), ..changed() },
            Wishes { release_hold: true, ..none },
            format!("deploy: {one}"),
        ),
        (
            "dirty",
            Facts { dirty: vec![path("web/y", true), path("web/y", true)], ..calm() },
            none,
            "refused [1 of its inputs is not committed: commit it, or use `--allow-dirty`]: dirty: modified web/y (directory web); dirty: modified web/y (directory web)".into(),
        ),
        (
            "dirty, wanted",
            Facts { dirty: vec![path("web/y", true)], ..calm() },
            Wishes { allow_dirty: true, ..none },
            "deploy: dirty: modified web/y (directory web)".into(),
        ),
        (
            "dirty and never deployed",
            Facts { state: State::NeverDeployed, dirty: vec![path("web/y", true)], ..calm() },
            none,
            "refused [1 of its inputs is not committed: commit it, or use `--allow-dirty`]: never deployed; dirty: modified web/y (directory web)".into(),
        ),
    ];
    for (name, facts, wishes, expected) in table {
        assert_eq!(said(&facts, wishes), expected, "{name}");
    }
}

#[test]
fn what_could_not_be_checked_is_noted() {
    let facts = Facts { basis: missing(), fingerprint: Some(print(2)), ..calm() };
    insta::assert_snapshot!(decide(&facts, Wishes::default()).notes.join("\n"), @"compared by fingerprint: the live build's commit: is not in this shallow clone, so whether it is older than HEAD is not checked; run `git fetch --unshallow origin`");
    let weak = Basis::Commit { commit: id('1'), source: BaseSource::Revision, changed: vec![] };
    insta::assert_snapshot!(decide(&Facts { basis: weak, ..calm() }, Wishes::default()).notes.join("\n"), @"compared with `REVISION` of the live release (weak: its build records no commit)");
}
