//! From repositories and what racks say to fingerprints and verdicts.

use super::{Repo, git, readers};
use offbuild::changes::affected::Matcher;
use offbuild::changes::base::{Base, Choice};
use offbuild::changes::description::{Recorded, describe};
use offbuild::changes::fingerprint::{Fingerprints, fingerprint};
use offbuild::changes::inputs::{Ignores, InputRule, Inputs, Reach, Shared};
use offbuild::changes::survey::{Asked, Digests, Survey};
use offbuild::changes::verdict::{Wishes, decide};
use offbuild::changes::{History, Rule};
use offbuild::config::{Pattern, Unowned};
use offbuild::names::{AppName, BuildId, CommitId, Fingerprint, RackName, ReleaseId, RunId, Target};
use offbuild::rack::{AppStatus, Live, LiveBuild, LiveRelease, NewerRelease, RackError};
use offbuild::yaml::Place;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

/// The digest every app has here.
const DIGEST: &str = "cafe0000cafe0000";

fn pattern(text: &str) -> Pattern {
    let (negated, glob) = text.strip_prefix('!').map_or((false, text), |glob| (true, glob));
    Pattern { glob: glob.to_owned(), negated, place: Place::default() }
}

pub(super) fn shared(global: &[&str], ignore: &[&str]) -> Arc<Shared> {
    let ignore: Vec<Pattern> = ignore.iter().map(|text| pattern(text)).collect();
    Arc::new(Shared {
        global: global.iter().map(|text| rule("global", text)).collect(),
        ignore: Ignores::new(&ignore).unwrap(),
        file: Some("apps.yaml".into()),
    })
}

pub(super) fn target(app: &AppName) -> Target {
    Target { app: app.clone(), rack: RackName::new("staging").unwrap() }
}

fn rule(kind: &'static str, text: &str) -> InputRule {
    let rule = Rule { kind, matches: text.to_owned(), place: None, through: Vec::new() };
    InputRule { reach: Reach::of(text).unwrap(), rule, unseen: None }
}

pub(super) fn app(name: &str, rules: &[&str], ignore: &[&str], shared: &Arc<Shared>) -> Inputs {
    let ignore: Vec<Pattern> = ignore.iter().map(|text| pattern(text)).collect();
    Inputs {
        app: AppName::new(name).unwrap(),
        rules: rules.iter().map(|text| rule("directory", text)).collect(),
        ignore: Arc::new(Ignores::new(&ignore).unwrap()),
        shared: shared.clone(),
    }
}

/// What is live: a build of `commit` with this description.
fn live(commit: Option<&CommitId>, description: &str) -> Live {
    let build = LiveBuild {
        id: BuildId::new("BAAAAAAAAAA").unwrap(),
        commit: commit.cloned(),
        description: description.to_owned(),
        manifest: String::new(),
    };
    let release = LiveRelease {
        id: ReleaseId::new("RAAAAAAAAAA").unwrap(),
        created: time::OffsetDateTime::UNIX_EPOCH,
        description: String::new(),
        build: Some(build),
        revision: None,
    };
    Live { status: AppStatus::Running, generation: 2, release: Some(release), newer: None, replaced: None }
}

fn ours(print: &Fingerprint) -> String {
    describe("subject", &Recorded::new(print.clone(), DIGEST, false), &RunId::new("20261122-213000-1f2e").unwrap(), None)
}

/// The verdicts over a repository, one `app: verdict: reasons` each, and that every reader leads to the same.
struct Case<'a> {
    dir: &'a Path,
    apps: &'a [Inputs],
    live: BTreeMap<&'static str, Result<Live, RackError>>,
    topped: BTreeMap<&'static str, NewerRelease>,
    given: Option<Choice>,
    old_digest: Option<&'static str>,
    unowned: Unowned,
    wishes: Wishes,
}

impl<'a> Case<'a> {
    fn new(dir: &'a Path, apps: &'a [Inputs]) -> Self {
        let wishes = Wishes { allow_dirty: true, ..Wishes::default() };
        Self { dir, apps, live: BTreeMap::new(), topped: BTreeMap::new(), given: None, old_digest: None, unowned: Unowned::Report, wishes }
    }

    fn live(mut self, app: &'static str, live: Live) -> Self {
        self.live.insert(app, Ok(live));
        self
    }

    fn verdicts(&self) -> String {
        let answers: Vec<String> = readers(self.dir).iter().map(|reader| self.through(reader.as_ref())).collect();
        assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:#?}");
        answers[0].clone()
    }

    fn through(&self, history: &dyn History) -> String {
        let head = history.head().unwrap().commit.id;
        let dirty = history.dirty().unwrap();
        let matcher = Matcher::new(self.apps);
        let mut fingerprints = Fingerprints::new(history, &head, &dirty);
        if self.unowned == Unowned::All {
            fingerprints = fingerprints.with_unowned(&matcher);
        }
        let digests = self.old_digest.map(|old| -> Digests<'_> {
            Box::new(move |_| Some(self.apps.iter().map(|app| (target(&app.app), old.to_owned())).collect()))
        });
        let survey = Survey {
            history,
            head: &head,
            dirty: &dirty,
            matcher: &matcher,
            fingerprints: &fingerprints,
            unowned: self.unowned,
            given: self.given.clone(),
            digests,
            left: None,
            known: Default::default(),
        };
        let one = |inputs: &Inputs| {
            let name = inputs.app.as_str();
            let target = target(&inputs.app);
            let asked = Asked { target: &target, inputs, app_digest: DIGEST, live: self.live.get(name), topped: self.topped.get(name) };
            let decision = decide(&survey.facts(asked).unwrap(), self.wishes);
            let reasons: Vec<String> = decision.reasons.iter().map(ToString::to_string).collect();
            let notes: String = decision.notes.iter().map(|note| format!(" | {note}")).collect();
            (decision.base, format!("{name}: {}: {}{notes}", decision.verdict.word(), reasons.join("; ")))
        };
        let (bases, answers): (Vec<Option<CommitId>>, Vec<String>) = self.apps.iter().map(one).unzip();
        if self.topped.is_empty() {
            // Who is gone is looked for at these: HEAD is none of them because something is not committed.
            assert!(survey.known.all().keys().all(|base| bases.contains(&Some(base.clone()))));
        }
        answers.join("\n")
    }
}

fn two_apps() -> [Inputs; 2] {
    let common = shared(&[], &["**/*.md"]);
    [app("a", &["apps/a"], &[], &common), app("b", &["apps/b"], &[], &common)]
}

/// Commits that touch `a`, `b` and `a` again.
fn three_commits(repo: &Repo) -> [CommitId; 3] {
    repo.write("apps/a/x", "1");
    repo.write("apps/b/x", "1");
    let one = repo.commit("one");
    repo.write("apps/b/x", "2");
    let two = repo.commit("two");
    repo.write("apps/a/x", "2");
    let three = repo.commit("three");
    [one, two, three]
}

fn prints(repo: &Repo, commit: &CommitId, apps: &[Inputs]) -> Vec<Fingerprint> {
    let reader = offbuild::changes::open(&repo.root).unwrap();
    apps.iter().map(|app| fingerprint(reader.as_ref(), commit, app, DIGEST, &[]).unwrap()).collect()
}

#[test]
fn what_failed_before_is_not_lost_at_the_next_commit() {
    let repo = Repo::new();
    let apps = two_apps();
    let [one, two, _] = three_commits(&repo);
    // `b` did not get its second commit: the third, which touches only `a`, brings both.
    let case = Case::new(&repo.root, &apps).live("a", live(Some(&two), "")).live("b", live(Some(&one), ""));
    assert_eq!(case.verdicts(), "a: deploy: modified apps/a/x (directory apps/a)\nb: deploy: modified apps/b/x (directory apps/b)");
    let case = Case::new(&repo.root, &apps).live("a", live(Some(&two), "")).live("b", live(Some(&two), ""));
    assert_eq!(case.verdicts(), "a: deploy: modified apps/a/x (directory apps/a)\nb: up-to-date: ");
}

#[test]
fn a_clone_of_one_commit_deploys_only_what_changed() {
    let repo = Repo::new();
    let apps = two_apps();
    let [_, two, _] = three_commits(&repo);
    let before = prints(&repo, &two, &apps);
    let clone = repo.clone("shallow", &["--depth", "1"]);
    let case = Case::new(&clone, &apps).live("a", live(Some(&two), &ours(&before[0]))).live("b", live(Some(&two), &ours(&before[1])));
    let now = prints(&repo, &repo.id("HEAD"), &apps);
    let note = format!(
        " | compared by fingerprint: the live build's commit, `{two}`: is not in this shallow clone, so whether it is older than HEAD is not checked; run `git fetch --unshallow origin`"
    );
    assert_eq!(
        case.verdicts(),
        format!("a: deploy: fingerprint differs: {} is live, {} is here{note}\nb: up-to-date: {note}", before[0], now[0])
    );
    // Builds of the convox CLI record none.
    let case = Case::new(&clone, &apps[1..]).live("b", live(Some(&two), "build abc"));
    assert_eq!(
        case.verdicts(),
        format!(
            "b: deploy: base unreachable: the live build's commit, `{two}`: is not in this shallow clone; run `git fetch --unshallow origin`"
        )
    );
}

#[test]
fn an_older_or_a_diverged_commit_does_not_replace_what_is_live() {
    let repo = Repo::new();
    let apps = two_apps();
    let [one, two, three] = three_commits(&repo);
    repo.git(&["checkout", "-q", two.as_str()]);
    let case = Case::new(&repo.root, &apps).live("a", live(Some(&three), "")).live("b", live(Some(&three), ""));
    assert_eq!(case.verdicts(), "a: stale: modified apps/a/x (directory apps/a)\nb: up-to-date: ");
    repo.git(&["checkout", "-q", "-b", "side", one.as_str()]);
    repo.write("apps/a/y", "side");
    repo.commit("side");
    let case = Case::new(&repo.root, &apps[1..]).live("b", live(Some(&two), ""));
    assert_eq!(case.verdicts(), "b: refused: modified apps/b/x (directory apps/b)");
    let case = Case::new(&repo.root, &apps[1..]).live("b", live(Some(&one), ""));
    assert_eq!(case.verdicts(), "b: up-to-date: ");
}

#[test]
fn a_rollback_by_hand_is_respected_until_the_app_changes() {
    let repo = Repo::new();
    let apps = two_apps();
    let [one, two, _] = three_commits(&repo);
    let topped = |commit: &CommitId, description: &str| NewerRelease {
        id: ReleaseId::new("RBBBBBBBBBB").unwrap(),
        build: None,
        commit: Some(commit.clone()),
        build_description: description.to_owned(),
    };
    // `b` was rolled back from the second commit to the first; only `a` has changed since.
    let mut case = Case::new(&repo.root, &apps[1..]).live("b", live(Some(&one), ""));
    case.topped.insert("b", topped(&two, ""));
    assert_eq!(case.verdicts(), "b: held: modified apps/b/x (directory apps/b)");
    // With no history at hand, what would be brought back is known by its fingerprint.
    let clone = repo.clone("shallow", &["--depth", "1"]);
    let print = prints(&repo, &two, &apps)[1].clone();
    let mut shallow = Case::new(&clone, &apps[1..]).live("b", live(Some(&one), ""));
    shallow.topped.insert("b", topped(&two, &ours(&print)));
    assert!(shallow.verdicts().starts_with("b: held: base unreachable"), "{}", shallow.verdicts());
    // What was rolled back was more than its commit; then only its configuration is another one.
    let run = RunId::new("20261122-213000-1f2e").unwrap();
    let mut dirty = Case::new(&repo.root, &apps[1..]).live("b", live(Some(&one), ""));
    dirty
        .topped
        .insert("b", topped(&two, &describe("subject", &Recorded::new(Fingerprint::from_sha256(&[7; 32]), DIGEST, true), &run, None)));
    assert_eq!(dirty.verdicts(), "b: deploy: modified apps/b/x (directory apps/b)");
    repo.write("apps.yaml", "version: 1\n");
    repo.commit("configure");
    for (then, expected) in [(DIGEST, "held: "), ("another", "deploy: ")] {
        let mut case = Case::new(&repo.root, &apps[1..]).live("b", live(Some(&one), ""));
        case.topped.insert("b", topped(&two, ""));
        case.old_digest = Some(then);
        assert!(case.verdicts().starts_with(&format!("b: {expected}modified apps/b/x")), "{}", case.verdicts());
    }
    // The fix arrives.
    repo.write("apps/b/x", "3");
    repo.commit("fix");
    let mut case = Case::new(&repo.root, &apps[1..]).live("b", live(Some(&one), ""));
    case.topped.insert("b", topped(&two, ""));
    assert_eq!(case.verdicts(), "b: deploy: modified apps/b/x (directory apps/b)");
    // Going forward is no rollback.
    let mut case = Case::new(&repo.root, &apps[1..]).live("b", live(Some(&two), ""));
    case.topped.insert("b", topped(&one, ""));
    assert_eq!(case.verdicts(), "b: deploy: modified apps/b/x (directory apps/b)");
}

#[test]
fn weak_sources_are_used_and_named() {
    let repo = Repo::new();
    let apps = two_apps();
    let [one, two, _] = three_commits(&repo);
    let mut by_revision = live(None, "");
    by_revision.release.as_mut().unwrap().revision = Some(two.to_string());
    let described = live(None, &format!("build {} one", &one.as_str()[..10]));
    let case = Case::new(&repo.root, &apps).live("a", by_revision).live("b", described);
    assert_eq!(
        case.verdicts(),
        "a: deploy: modified apps/a/x (directory apps/a) | compared with `REVISION` of the live release (weak: its build records no commit)\n\
         b: deploy: modified apps/b/x (directory apps/b) | compared with a commit in the live release's description (weak: its build records no commit)"
    );
    let case = Case::new(&repo.root, &apps[1..]).live("b", live(None, "made by hand"));
    assert_eq!(case.verdicts(), "b: deploy: the rack has no commit recorded for what is live");
}

#[test]
fn racks_that_do_not_answer_and_apps_that_are_not_there() {
    let repo = Repo::new();
    let apps = two_apps();
    let [_, _, three] = three_commits(&repo);
    let rack = RackName::new("staging").unwrap();
    let mut case = Case::new(&repo.root, &apps);
    case.live.insert("a", Err(RackError::Unreachable { rack: rack.clone(), message: "no route".to_owned(), hint: None }));
    case.live.insert("b", Err(RackError::NoApp { rack, app: "b".to_owned() }));
    assert_eq!(case.verdicts(), "a: deploy: rack unreachable: rack `staging` cannot be reached: no route\nb: refused: ");
    let never = Live { status: AppStatus::Running, generation: 2, release: None, newer: None, replaced: None };
    let updating = Live { status: AppStatus::Updating, ..live(Some(&three), "") };
    let case = Case::new(&repo.root, &apps).live("a", never).live("b", updating);
    assert_eq!(case.verdicts(), "a: deploy: never deployed\nb: deploy: not running: the rack says `updating`");
}

#[test]
fn a_changed_configuration_is_a_change_of_its_app() {
    let repo = Repo::new();
    let apps = two_apps();
    repo.write("apps.yaml", "version: 1\n");
    let [_, _, three] = three_commits(&repo);
    repo.write("apps.yaml", "version: 1\napps: {}\n");
    repo.commit("configure");
    let mut case = Case::new(&repo.root, &apps).live("a", live(Some(&three), "")).live("b", live(Some(&three), ""));
    case.old_digest = Some(DIGEST);
    assert_eq!(case.verdicts(), "a: up-to-date: \nb: up-to-date: ");
    case.old_digest = Some("another");
    assert_eq!(case.verdicts(), "a: deploy: its configuration changed\nb: deploy: its configuration changed");
    repo.write("apps.yaml", "version: 1\n");
    let dirty = "dirty: modified apps.yaml (configuration apps.yaml); its configuration changed";
    assert_eq!(case.verdicts(), format!("a: deploy: {dirty}\nb: deploy: {dirty}"));
    case.old_digest = Some(DIGEST);
    assert_eq!(case.verdicts(), "a: up-to-date: \nb: up-to-date: ");
}

/// `unowned: all`, with what runs recorded: its fingerprint does not say that nothing changed.
#[test]
fn what_no_app_owns_can_be_every_apps() {
    let repo = Repo::new();
    let apps = [two_apps()[0].clone()];
    let [_, _, three] = three_commits(&repo);
    repo.write("Makefile", "1");
    let four = repo.commit("four");
    let print = |dir: &Path, commit: &CommitId, dirty: bool| {
        let history = offbuild::changes::open(dir).unwrap();
        let matcher = Matcher::new(&apps);
        let dirty = if dirty { history.dirty().unwrap() } else { Vec::new() };
        let fingerprints = Fingerprints::new(&*history, commit, &dirty).with_unowned(&matcher);
        let hash = fingerprints.dirty_hash(&apps[0], None).unwrap();
        (fingerprints.of(&apps[0], DIGEST).unwrap(), hash)
    };
    let verdict = |dir: &Path, commit: &CommitId, (print, dirty): &(Fingerprint, Option<String>)| {
        let run = RunId::new("20261122-213000-1f2e").unwrap();
        let description = describe("subject", &Recorded::new(print.clone(), DIGEST, dirty.is_some()), &run, None);
        let mut case = Case::new(dir, &apps).live("a", live(Some(commit), &description));
        case.unowned = Unowned::All;
        case.verdicts()
    };
    let clone = repo.clone("shallow", &["--depth", "1"]);
    let (before, now) = (print(&repo.root, &three, false), print(&repo.root, &four, false));
    assert_eq!(verdict(&repo.root, &three, &before), "a: deploy: added Makefile (unowned Makefile)");
    assert!(verdict(&clone, &three, &before).starts_with("a: deploy: fingerprint differs: "));
    assert_eq!(verdict(&repo.root, &four, &now), "a: up-to-date: ");
    assert!(verdict(&clone, &three, &now).starts_with("a: up-to-date: "));
    // Deployed as it is on disk, then taken back.
    repo.write("Makefile", "2");
    let dirty = print(&repo.root, &four, true);
    assert_eq!(verdict(&repo.root, &four, &now), "a: deploy: dirty: modified Makefile (unowned Makefile)");
    assert_eq!(verdict(&repo.root, &four, &dirty), "a: up-to-date: ");
    repo.write("Makefile", "1");
    assert!(verdict(&repo.root, &four, &dirty).starts_with("a: deploy: fingerprint differs: "));
}

#[test]
fn what_is_not_committed_counts_until_it_is_live() {
    let repo = Repo::new();
    let apps = two_apps();
    let [_, _, three] = three_commits(&repo);
    repo.write("apps/a/new", "x");
    repo.write("apps/a/NOTES.md", "x");
    let case = |description: &str| Case::new(&repo.root, &apps[..1]).live("a", live(Some(&three), description)).verdicts();
    assert_eq!(case(""), "a: deploy: dirty: added apps/a/new (directory apps/a)");
    // Deployed with `--allow-dirty`: the same files again are no change, their absence is one.
    let reader = offbuild::changes::open(&repo.root).unwrap();
    let dirty = reader.dirty().unwrap();
    let print = fingerprint(reader.as_ref(), &three, &apps[0], DIGEST, &dirty).unwrap();
    let recorded = Recorded::new(print.clone(), DIGEST, true);
    let description = describe("", &recorded, &RunId::new("r").unwrap(), None);
    assert_eq!(case(&description), "a: up-to-date: ");
    std::fs::remove_file(repo.root.join("apps/a/new")).unwrap();
    let clean = prints(&repo, &three, &apps)[0].clone();
    assert_eq!(case(&description), format!("a: deploy: fingerprint differs: {print} is live, {clean} is here"));
    // Committed as it was deployed.
    repo.write("apps/a/new", "x");
    let four = repo.commit("as deployed");
    assert_eq!(case(&description), "a: up-to-date: ");
    assert_eq!(prints(&repo, &four, &apps)[0], print);
}

#[test]
fn a_base_by_hand_stands_in_for_what_is_live() {
    let repo = Repo::new();
    let apps = two_apps();
    let [one, _, three] = three_commits(&repo);
    let mut case = Case::new(&repo.root, &apps).live("a", live(Some(&three), ""));
    case.given = Some(Choice::Found(Base { commit: one, source: "`--base x`".to_owned(), notes: vec![] }));
    assert_eq!(case.verdicts(), "a: deploy: modified apps/a/x (directory apps/a)\nb: deploy: modified apps/b/x (directory apps/b)");
}

#[test]
fn a_fingerprint_covers_content_mode_path_and_configuration() {
    let repo = Repo::new();
    let common = shared(&["tools"], &["**/*.md"]);
    let plain = app("a", &["apps/a", "libs/*.rb", "libs"], &["libs/skip"], &common);
    let turned = app("other", &["libs", "apps/a", "libs/*.rb"], &["libs/skip"], &common);
    for file in ["apps/a/x", "apps/b/x", "libs/l.rb", "libs/skip/x", "libs/README.md", "tools"] {
        repo.write(file, file);
    }
    let first = repo.commit("one");
    let print = |inputs: &Inputs| {
        let answers: Vec<Fingerprint> = readers(&repo.root)
            .iter()
            .map(|reader| {
                let dirty = reader.dirty().unwrap();
                fingerprint(reader.as_ref(), &first, inputs, DIGEST, &dirty).unwrap()
            })
            .collect();
        assert_eq!(answers[0], answers[1]);
        answers[0].clone()
    };
    let clean = print(&plain);
    assert_eq!(clean, print(&turned), "the order of rules and the app's name do not matter");
    for (path, matters) in
        [("apps/b/x", false), ("libs/skip/x", false), ("libs/README.md", false), ("apps/a/x", true), ("tools", true), ("libs/n", true)]
    {
        repo.write(path, "changed");
        assert_eq!(print(&plain) != clean, matters, "{path}");
        repo.git(&["checkout", "-q", "."]);
        repo.git(&["clean", "-qfd"]);
        assert_eq!(print(&plain), clean, "{path}");
    }
    let script = repo.root.join("apps/a/x");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let executable = print(&plain);
    std::fs::remove_file(&script).unwrap();
    let gone = print(&plain);
    let reader = offbuild::changes::open(&repo.root).unwrap();
    let configured = fingerprint(reader.as_ref(), &first, &plain, "beef", &[]).unwrap();
    let all = std::collections::BTreeSet::from([clean, executable, gone, configured]);
    assert_eq!(all.len(), 4);
}

#[test]
fn the_tail_of_a_dirty_tag_tells_states_apart() {
    let repo = Repo::new();
    let [_, _, head] = three_commits(&repo);
    let apps = two_apps();
    let tail = || {
        let reader = offbuild::changes::open(&repo.root).unwrap();
        let dirty = reader.dirty().unwrap();
        Fingerprints::new(reader.as_ref(), &head, &dirty).dirty_hash(&apps[0], None).unwrap()
    };
    assert_eq!(tail(), None);
    repo.write("apps/b/x", "of another app");
    assert_eq!(tail(), None);
    repo.write("apps/a/x", "3");
    let three = tail().unwrap();
    repo.write("apps/a/x", "4");
    let four = tail().unwrap();
    repo.write("apps/a/x", "3");
    assert_eq!((tail().unwrap() == three, three == four, three.len()), (true, false, 8));
    git(&repo.root, &["add", "-A"]);
    assert_eq!(tail().unwrap(), three, "staged or not is the same on disk");
}
