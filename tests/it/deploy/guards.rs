//! What is refused, and what is deployed all the same.

use crate::support::repo::git;
use crate::support::sh;
use crate::support::world::{Setup, World, wait_for};
use offbuild::event::{EventKind, Stage};
use offbuild::sandbox::Version;
use std::time::Duration;

/// A clone of the world's repository with only its last commit.
fn shallow(world: &World) -> std::path::PathBuf {
    let place = world.aside("clone");
    let from = format!("file://{}", world.repo.root().display());
    sh(&mut git(world.repo.dir.path(), &["clone", "-q", "--depth", "1", &from, place.to_str().unwrap()]));
    place
}

#[test]
fn uncommitted_inputs_are_refused_and_tagged_as_dirty_when_allowed() {
    let world = Setup::new(&["api", "web"]).start();
    world.page("web", "uncommitted");
    let before = world.sandbox.requests().len();
    let run = world.run(&["deploy"]).code(4).says("web@staging").says("apps/web/page");
    assert!(run.events.is_empty());
    let sent = world.sandbox.requests().split_off(before);
    assert!(sent.iter().all(|request| request.method == "GET"), "{sent:?}");

    let run = world.run(&["deploy", "--allow-dirty"]).code(0).outcomes(&["api@staging deployed", "web@staging deployed"]);
    let pushed: Vec<&str> = run
        .kinds()
        .filter_map(|kind| match kind {
            EventKind::ImagePushed { reference, .. } => Some(reference.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(pushed.len(), 2);
    // Only the app whose inputs are dirty.
    assert_eq!(pushed.iter().filter(|reference| reference.contains("-dirty.")).count(), 1, "{pushed:?}");
    assert!(world.tags("web").iter().any(|tag| tag.contains("-dirty.")), "{:?}", world.tags("web"));
}

#[test]
fn a_configuration_that_is_not_committed_is_dirty_for_those_it_changes() {
    let world = Setup::new(&["api", "web"]).start();
    world.run(&["deploy"]).code(0);
    world.configure("apps: {web: {build: {args: {A: \"1\"}}, timeouts: {build: 1h}}, api: {timeouts: {build: 1h}}}\n");
    let told = world.offbuild().run(&["changed", "--format", "text"]).code(0).stdout;
    assert_eq!(told.matches("dirty: modified apps.yaml (configuration apps.yaml)").count(), 1, "{told}");
    world.page("api", "second").repo.git(&["commit", "-qm", "second", "apps/api"]);
    let refused = "`web@staging`: 1 of its inputs is not committed: commit it, or use `--allow-dirty`";
    world.run(&["deploy"]).code(4).says(refused).says("apps.yaml");
    let run = world.run(&["deploy", "--allow-dirty"]).code(0).outcomes(&["api@staging deployed", "web@staging deployed"]);
    assert_eq!(run.images(), ["api/web build", "web/web build"]);
    let commit = world.repo.git(&["rev-parse", "HEAD"]);
    assert!(world.tags("web").iter().any(|tag| tag.starts_with(&format!("web.{commit}-dirty."))));
    assert!(world.tags("api").contains(&format!("web.{commit}")));
    // Committed, the same is found again by its content.
    world.repo.commit("the configuration");
    let run = world.run(&["deploy", "--all"]).code(0).outcomes(&["api@staging up-to-date", "web@staging up-to-date"]);
    assert_eq!(run.images(), ["api/web reuse", "web/web reuse"]);
}

#[test]
fn a_clone_of_depth_1_still_deploys_only_what_changed() {
    let world = Setup::new(&["api", "web"]).start();
    world.run(&["deploy"]).code(0);
    world.page("web", "second").repo.commit("second");
    let clone = shallow(&world);
    let offbuild = world.offbuild().directory(&clone);
    let run = world.run_as(&offbuild, &["deploy"]).code(0).outcomes(&["api@staging up-to-date", "web@staging deployed"]);
    assert_eq!(run.begun(Stage::Build), ["web/web"]);
    assert_eq!(world.sandbox.promotes("staging", "api"), 1);
}

#[test]
fn a_base_that_is_missing_is_deployed_over_with_the_command_that_brings_it() {
    let world = Setup::new(&["web"]).start();
    world.run(&["deploy"]).code(0);
    let ours = world.sandbox.live("staging", "web");
    // Somebody else's release: of a commit that is not in the clone, and without a fingerprint.
    world.sandbox.release_by_hand("staging", "web", &ours.manifest, &ours.commit, "by hand");
    let theirs = world.sandbox.live("staging", "web");
    world.page("web", "second").repo.commit("second");
    let clone = shallow(&world);
    let offbuild = world.offbuild().directory(&clone);
    world.run_as(&offbuild, &["deploy", "--strict-base"]).code(3).says("git fetch");
    assert_eq!(world.sandbox.live("staging", "web"), theirs);
    let changed = world.run_as(&offbuild, &["changed", "--format", "json"]).code(0).done.stdout;
    assert!(changed.contains("\"base-unreachable\""), "{changed}");
    let run = world.run_as(&offbuild, &["deploy"]).code(0).outcomes(&["web@staging deployed"]);
    let reasons = run.reasons("web@staging").join("\n");
    assert!(reasons.contains("base unreachable") && reasons.contains("git fetch --unshallow origin"), "{reasons}");
}

#[test]
fn fetch_brings_the_missing_base_and_the_reason_is_the_path_again() {
    let world = Setup::new(&["api", "web"]).start();
    world.run(&["deploy"]).code(0);
    for app in ["api", "web"] {
        let ours = world.sandbox.live("staging", app);
        world.sandbox.release_by_hand("staging", app, &ours.manifest, &ours.commit, "by hand");
    }
    world.page("web", "second").repo.commit("second");
    let offbuild = world.offbuild().directory(&shallow(&world)).env("GIT_ALLOW_PROTOCOL", "file");
    let run = world.run_as(&offbuild, &["deploy", "--fetch"]).code(0).says("$ git fetch --unshallow origin");
    let run = run.outcomes(&["api@staging up-to-date", "web@staging deployed"]);
    assert!(run.reasons("web@staging").join("\n").contains("apps/web/page"), "{:?}", run.reasons("web@staging"));
}

#[test]
fn what_somebody_rolled_back_stays_until_its_inputs_change() {
    let world = Setup::new(&["api", "web"]).start();
    world.run(&["deploy"]).code(0);
    let good = world.sandbox.live("staging", "web");
    world.page("web", "bad").repo.commit("bad");
    world.run(&["deploy"]).code(0).outcomes(&["api@staging up-to-date", "web@staging deployed"]);
    world.sandbox.roll_back("staging", "web", &good.release);
    world.page("api", "second").repo.commit("api");
    world.run(&["deploy"]).code(0).outcomes(&["api@staging deployed", "web@staging held"]);
    assert_eq!(world.sandbox.live("staging", "web").manifest, good.manifest);
    world.page("web", "mended").repo.commit("mended");
    world.run(&["deploy"]).code(0).outcomes(&["api@staging up-to-date", "web@staging deployed"]);
}

#[test]
fn a_hold_is_released_by_name() {
    let world = Setup::new(&["web"]).start();
    world.run(&["deploy"]).code(0);
    let first = world.sandbox.live("staging", "web");
    world.page("web", "second").repo.commit("second");
    world.run(&["deploy"]).code(0);
    world.sandbox.roll_back("staging", "web", &first.release);
    world.run(&["deploy"]).code(0).outcomes(&["web@staging held"]);
    let run = world.run(&["deploy", "--release-hold", "web"]).code(0).outcomes(&["web@staging deployed"]);
    assert_eq!(run.images(), ["web/web present"]);
}

#[test]
fn a_diverged_commit_takes_nothing_back_unless_told_to() {
    let world = Setup::new(&["web"]).start();
    world.page("web", "theirs").repo.commit("theirs");
    world.run(&["deploy"]).code(0);
    let live = world.sandbox.live("staging", "web");
    world.repo.git(&["checkout", "-q", "-b", "mine", "HEAD~1"]);
    world.page("web", "mine").repo.commit("mine");
    let run = world.run(&["deploy"]).code(4).says("diverged").says("--allow-diverged");
    assert!(run.events.is_empty());
    assert_eq!(world.sandbox.live("staging", "web"), live);
    world.run(&["deploy", "--allow-diverged"]).code(0).outcomes(&["web@staging deployed"]);
}

#[test]
fn a_wrong_password_is_said_by_name_and_nothing_is_begun() {
    let world = Setup::new(&["web"]).start();
    let run = world.run_as(&world.offbuild().env("STAGING_PASSWORD", "not-the-password"), &["deploy"]).code(3).says("staging");
    assert!(run.events.is_empty() && !run.done.stderr.contains("not-the-password"), "{}", run.done.stderr);
    crate::support::services::login(world.repo.dir.path(), &world.host(), "not-the-registrys");
    let run = world.run(&["deploy"]).code(3).says(&world.host());
    assert!(run.events.is_empty() && !run.done.stderr.contains("not-the-registrys"), "{}", run.done.stderr);
    assert_eq!(world.sandbox.builds("staging", "web"), 0);
}

#[test]
fn a_protected_rack_needs_a_yes() {
    let world = Setup::new(&["web"]).rack("production", Version::V3, "protected: true").start();
    let before = world.sandbox.requests().len();
    let run = world.run(&["deploy"]).code(4).says("production").says("--yes");
    assert!(run.events.is_empty());
    assert!(world.sandbox.requests().split_off(before).iter().all(|request| request.method == "GET"));
    world.run(&["deploy", "--rack", "staging"]).code(0);
    world.run(&["deploy", "--yes"]).code(0).outcomes(&["web@production deployed", "web@staging up-to-date"]);
    // Nothing is to be released there now, so nothing is asked.
    world.run(&["deploy"]).code(0);
}

#[test]
fn on_a_terminal_a_protected_rack_is_asked_for_with_the_plan_in_sight() {
    let world = Setup::new(&["web"]).rack("production", Version::V3, "protected: true").start();
    let question = "release to protected rack `production`? [y/N] ";
    let before = world.sandbox.requests().len();
    for no in ["n", "", "yess"] {
        let run = world.run_on_terminal(&["deploy"], question, no).code(4).says("the answer was not yes");
        // What is agreed to is shown first.
        let asked = run.done.stderr.split(question).next().unwrap();
        let head = world.repo.git(&["rev-parse", "--short=12", "HEAD"]);
        let plan =
            format!("targets: 2 deploy; images: 1 to build of 1\n  web@production  deploy  → {head}\n  web@staging     deploy  → {head}\n");
        assert!(asked.ends_with(&format!("commit {head} everything\n{plan}\n")), "{asked}");
        assert!(run.events.is_empty());
    }
    assert!(world.sandbox.requests().split_off(before).iter().all(|request| request.method == "GET"));
    let run = world.run_on_terminal(&["deploy"], question, "y").code(0);
    run.outcomes(&["web@production deployed", "web@staging deployed"]);
    // Nothing is to be released there now, so nothing is asked.
    let run = world.run_on_terminal(&["deploy"], question, "n").code(0);
    assert!(!run.done.stderr.contains("protected"), "{}", run.done.stderr);
    // Going back touches the rack like going forward does.
    world.page("web", "second").repo.commit("second");
    world.run(&["deploy", "--yes"]).code(0);
    let question = "protected rack `production`? [y/N] ";
    world.page("web", "third").repo.commit("third");
    let asked = world.run_on_terminal(&["deploy", "-r", "production"], question, "n").code(4).done.stderr;
    let [from, to] = ["HEAD^", "HEAD"].map(|revision| world.repo.git(&["rev-parse", "--short=12", revision]));
    assert!(asked.contains(&format!("\n  web@production  deploy  {from} → {to} from \"second\"\n")), "{asked}");
    world.run_on_terminal(&["rollback", "web@production"], question, "n").code(4);
    assert_eq!(world.sandbox.promotes("production", "web"), 2);
    world.run_on_terminal(&["rollback", "web@production"], question, "yes").code(0);
    assert_eq!(world.sandbox.promotes("production", "web"), 3);
}

#[test]
fn a_question_shows_the_protected_racks_first_and_about_ten_lines() {
    let apps = ["one", "two", "three", "four", "five"];
    let world = Setup::new(&apps).rack("alpha", Version::V2, "").rack("production", Version::V3, "protected: true").start();
    let asked = world.run_on_terminal(&["deploy"], "[y/N] ", "n").code(4).done.stderr;
    let shown: Vec<&str> = asked.split("release to").next().unwrap().trim_end().lines().collect();
    let targets: Vec<&str> =
        shown.iter().filter_map(|line| line.strip_prefix("  ")?.split_once("  ").map(|(target, _)| target.trim())).collect();
    assert_eq!(targets[..5].iter().filter(|target| target.ends_with("@production")).count(), 5, "{asked}");
    assert_eq!(shown.last(), Some(&"  … and 9 more (offbuild plan)"), "{asked}");
    assert!(shown.len() <= 10 && targets.len() == 6, "{asked}");
}

#[test]
fn on_a_terminal_rows_come_and_go_and_the_table_stays() {
    let world = Setup::new(&["web"]).start();
    let run = world.run_on_terminal(&["deploy"], "never asked", "").code(0).outcomes(&["web@staging deployed"]);
    let shown = &run.done.stderr;
    assert!(shown.contains("0 of 1 build, 0 of 1 target"), "{shown}");
    let cleared = shown.rfind("\u{1b}[").unwrap();
    assert!(cleared < shown.rfind("TARGET ").unwrap(), "something is drawn over the table:\n{shown}");
    let (_, end) = shown.rsplit_once("build steps cached\n").unwrap_or_else(|| panic!("no steps were counted:\n{shown}"));
    // Where the time went is the last word: nothing is left to do.
    assert!(end.starts_with("critical path: ") && end.contains("promote") && !end.contains("offbuild"), "{shown}");
}

#[test]
fn while_one_run_holds_the_rack_another_is_told_who() {
    let world = Setup::new(&["web"]).start();
    let go = world.aside("go");
    world.hook("web", "before_release", &format!("while [ ! -e {} ]; do sleep 0.05; done", go.display())).repo.commit("hook");
    let mut first = world.start(&["deploy"]);
    world.until(&mut first, |kind| matches!(kind, EventKind::StepStarted { step, .. } if step.stage == Stage::BeforeRelease));
    let second = world.run(&["deploy"]).code(5).says("staging");
    assert!(second.events.is_empty());
    std::fs::write(go, "").unwrap();
    world.ended(first).code(0).outcomes(&["web@staging deployed"]);
    assert_eq!((world.sandbox.builds("staging", "web"), world.sandbox.promotes("staging", "web")), (1, 1));
    // And the lock is free again.
    world.run(&["deploy"]).code(0);
}

#[test]
fn an_older_commit_is_stale_and_left_alone() {
    let world = Setup::new(&["web"]).start();
    world.page("web", "second").repo.commit("second");
    world.run(&["deploy"]).code(0);
    let live = world.sandbox.live("staging", "web");
    world.repo.git(&["checkout", "-q", "HEAD~1"]);
    world.run(&["deploy"]).code(4).outcomes(&["web@staging stale"]);
    world.run(&["deploy", "--stale", "ok"]).code(0).outcomes(&["web@staging stale"]);
    assert_eq!(world.sandbox.live("staging", "web"), live);
}

#[test]
fn what_somebody_promotes_while_the_run_is_under_way_is_judged() {
    let table = [("older", 0, "deployed"), ("unknown", 1, "failed"), ("newer", 4, "stale")];
    for (theirs, code, word) in table {
        let world = Setup::new(&["web"]).promote(Duration::from_millis(700)).start();
        world.run(&["deploy"]).code(0);
        let live = world.sandbox.live("staging", "web");
        let (staged, go) = (world.aside("staged"), world.aside("go"));
        let script = format!("touch {}; while [ ! -e {} ]; do sleep 0.05; done", staged.display(), go.display());
        world.page("web", "second").hook("web", "before_release", &script).repo.commit("second");
        let commit = match theirs {
            "older" => live.commit.clone(),
            "unknown" => "f".repeat(40),
            _ => {
                let newer = world.page("web", "third").repo.commit("third");
                world.repo.git(&["checkout", "-q", "HEAD~1"]);
                newer
            }
        };
        // Staged before this run's own, so that the rack itself would let this run's go live after it.
        let release = world.sandbox.stage_by_hand("staging", "web", &live.manifest, &commit, "by hand");
        let run = world.start(&["deploy"]);
        wait_for(|| staged.exists());
        world.sandbox.begin_promote("staging", "web", &release);
        std::fs::write(go, "").unwrap();
        let run = world.ended(run).code(code);
        // Seen before the promote, or while it waits for theirs to end.
        let ended = run.kinds().find_map(|kind| match kind {
            EventKind::TargetFinished { outcome, .. } => Some(outcome.word()),
            _ => None,
        });
        assert!(ended.as_ref().is_some_and(|ended| ended.starts_with(word)), "{theirs}: {ended:?}");
        wait_for(|| world.sandbox.live("staging", "web").status == "running");
        let now = world.sandbox.live("staging", "web");
        assert_eq!(now.release == release, word != "deployed", "{theirs}");
        assert_eq!(run.finished(Stage::BeforeRelease).len(), 1, "{theirs}");
        assert_eq!(world.sandbox.promotes("staging", "web"), if word == "deployed" { 3 } else { 2 }, "{theirs}");
    }
}

#[test]
fn an_older_commit_is_deployed_over_a_newer_one_when_it_is_asked_for() {
    let world = Setup::new(&["web"]).start();
    let first = world.repo.git(&["rev-parse", "HEAD"]);
    world.page("web", "second").repo.commit("second");
    world.run(&["deploy"]).code(0);
    world.repo.git(&["checkout", "-q", &first]);
    world.run(&["deploy"]).code(4).outcomes(&["web@staging stale"]);
    let run = world.run(&["deploy", "--allow-older"]).code(0).outcomes(&["web@staging deployed"]);
    assert_eq!(world.sandbox.live("staging", "web").commit, first);
    // In the journal, so in every report of the run.
    let told = |kind: &EventKind| matches!(kind, EventKind::Notice { message, .. } if message.contains("`--allow-older`"));
    assert!(run.kinds().any(told));
}

#[test]
fn a_clone_without_the_newer_live_commit_knows_it_by_its_time() {
    let world = Setup::new(&["web"]).start();
    let old = world.aside("old");
    let from = format!("file://{}", world.repo.root().display());
    sh(&mut git(world.repo.dir.path(), &["clone", "-q", &from, old.to_str().unwrap()]));
    let later = ["-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "-q", "-a", "-m", "second"];
    world.page("web", "second");
    sh(git(&world.repo.root(), &later).env("GIT_COMMITTER_DATE", "2040-01-01T00:00:00Z"));
    world.run(&["deploy"]).code(0);
    let live = world.sandbox.live("staging", "web");
    // A job that was queued before the newer one ran.
    let offbuild = world.offbuild().directory(&old);
    world.run_as(&offbuild, &["deploy"]).code(4).outcomes(&["web@staging stale"]).says("told by its time");
    world.run_as(&offbuild, &["deploy", "--stale", "ok"]).code(0).outcomes(&["web@staging stale"]);
    assert_eq!(world.sandbox.live("staging", "web"), live);
    world.run_as(&offbuild, &["deploy", "--allow-older"]).code(0).outcomes(&["web@staging deployed"]);
}
