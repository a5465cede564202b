//! Runs that share no disk, on one rack: they wait for each other, and the newer commit is what runs in the end.

use crate::support::Done;
use crate::support::front::{Behind, Fault, Front, Head, Rule};
use crate::support::repo::git;
use crate::support::services::Running;
use crate::support::sh;
use crate::support::world::{Setup, World, wait_for};
use offbuild::event::{EventKind, Stage, StepOutcome};
use offbuild::journal::Journal;
use offbuild::sandbox::Version;
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use time::OffsetDateTime;

/// A clone of the world's repository at a commit.
fn clone(world: &World, name: &str, commit: &str) -> PathBuf {
    let place = world.aside(name);
    let from = format!("file://{}", world.repo.root().display());
    sh(&mut git(world.repo.dir.path(), &["clone", "-q", &from, place.to_str().unwrap()]));
    sh(&mut git(&place, &["checkout", "-q", commit]));
    place
}

/// Starts the binary in a directory of its own.
fn start(world: &World, root: &Path, args: &[&str], env: &[(&str, &Path)]) -> Running {
    let mut offbuild = world.offbuild().directory(root);
    for (name, value) in env {
        offbuild = offbuild.env(name, value.to_str().unwrap());
    }
    Running(offbuild.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

fn ended(mut run: Running) -> Done {
    let (mut stdout, mut stderr) = (String::new(), String::new());
    run.0.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    run.0.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    Done { code: run.0.wait().unwrap().code().unwrap_or(-1), stdout, stderr }
}

/// How the target of the latest run in a clone ended, and when its promote began and ended, when it had one.
fn latest(root: &Path) -> (String, Option<(OffsetDateTime, OffsetDateTime)>) {
    let file = Journal::list(root).unwrap().into_iter().next().unwrap();
    let events = Journal::read(&file.path).unwrap();
    let (mut word, mut began, mut done) = (String::new(), None, None);
    for event in &events {
        match &event.kind {
            EventKind::TargetFinished { outcome, .. } => word = outcome.word(),
            EventKind::StepStarted { step, .. } if step.stage == Stage::Promote => began = Some(event.time),
            EventKind::StepFinished { step, outcome: StepOutcome::Done, .. } if step.stage == Stage::Promote => done = Some(event.time),
            _ => {}
        }
    }
    (word, began.zip(done))
}

/// A world whose hook waits where it is told to.
fn world(version: Version) -> World {
    let world = Setup::new(&["web"]).rack("staging", version, "").start();
    let wait = "[ -z \"$HOLD\" ] || { touch \"$HOLD.at\"; while [ ! -e \"$HOLD.go\" ]; do sleep 0.05; done; }";
    world.hook("web", "before_release", wait).repo.commit("slowly");
    world
}

/// A world whose racks are given time to settle: what real ones are given, and not a test's fraction of it.
fn settling() -> World {
    let world = world(Version::V2);
    let yaml = std::fs::read_to_string(world.repo.path("apps.yaml")).unwrap();
    world.repo.write("apps.yaml", yaml.replace("poll: 20ms", "poll: 1s")).commit("slower");
    world
}

#[test]
fn of_runs_that_race_one_promotes_at_a_time_and_the_newest_commit_is_live() {
    let world = settling();
    world.run(&["deploy"]).code(0);
    let commits: Vec<String> = (1..=4).map(|number| world.page("web", &number.to_string()).repo.commit(&number.to_string())).collect();
    let clones: Vec<PathBuf> = commits.iter().map(|commit| clone(&world, &commit[..8], commit)).collect();
    let args = ["deploy", "--lock-wait", "10m", "--stale", "ok"];
    let runs: Vec<Running> = clones.iter().map(|clone| start(&world, clone, &args, &[])).collect();
    for run in runs {
        let done = ended(run);
        assert_eq!(done.code, 0, "{}", done.stderr);
    }
    let mut promotes = Vec::new();
    for (number, clone) in clones.iter().enumerate() {
        let (word, promote) = latest(clone);
        assert!(word == "deployed" || (word == "stale" && number < 3), "commit {number}: {word}");
        promotes.extend(promote.map(|(began, done)| (began, done, number)));
    }
    promotes.sort();
    assert!(promotes.is_sorted_by(|one, two| one.1 <= two.0 && one.2 < two.2), "{promotes:?}");
    assert_eq!(world.sandbox.promotes("staging", "web"), 1 + promotes.len());
    assert_eq!(world.sandbox.live("staging", "web").commit, commits[3]);
}

#[test]
fn of_runs_of_one_commit_one_promotes() {
    let world = settling();
    world.run(&["deploy"]).code(0);
    let commit = world.page("web", "second").repo.commit("second");
    let clones: Vec<PathBuf> = (0..4).map(|number| clone(&world, &format!("clone{number}"), &commit)).collect();
    let runs: Vec<Running> = clones.iter().map(|clone| start(&world, clone, &["deploy", "--lock-wait", "10m"], &[])).collect();
    for run in runs {
        let done = ended(run);
        assert_eq!(done.code, 0, "{}", done.stderr);
    }
    let mut words: Vec<String> = clones.iter().map(|clone| latest(clone).0).collect();
    words.sort();
    assert_eq!(words, ["deployed", "up-to-date", "up-to-date", "up-to-date"]);
    assert_eq!(world.sandbox.promotes("staging", "web"), 2);
}

#[test]
fn whichever_run_is_overtaken_the_newer_commit_is_live() {
    for version in [Version::V2, Version::V3] {
        for newer_waits in [false, true] {
            let world = world(version);
            world.run(&["deploy"]).code(0);
            let older = world.page("web", "older").repo.commit("older");
            let newer = world.page("web", "newer").repo.commit("newer");
            let (waits, runs) = if newer_waits { (&newer, &older) } else { (&older, &newer) };
            let (waiting, running) = (clone(&world, "waiting", waits), clone(&world, "running", runs));
            let hold = world.aside("hold");
            let run = start(&world, &waiting, &["deploy"], &[("HOLD", &hold)]);
            wait_for(|| hold.with_extension("at").exists());
            let other = world.offbuild().directory(&running);
            // Polite as long as nobody takes the lease away.
            world.run_as(&other, &["deploy"]).code(5).says("another run deploys to `web@staging`").says("unlock --force web@staging");
            let freed = world.run_as(&other, &["unlock", "--force", "web"]).code(0);
            assert!(freed.done.stdout.starts_with("web@staging is free; it was held by "), "{}", freed.done.stdout);
            world.run_as(&other, &["deploy"]).code(0).outcomes(&["web@staging deployed"]);
            std::fs::write(hold.with_extension("go"), "").unwrap();
            let done = ended(run);
            let (word, _) = latest(&waiting);
            let expected = if newer_waits { (0, "deployed") } else { (4, "stale") };
            assert_eq!((done.code, word.as_str()), expected, "{}", done.stderr);
            let live = world.sandbox.live("staging", "web");
            assert_eq!(live.commit, newer);
            let release = world.sandbox.call("GET", "staging", &format!("/apps/web/releases/{}", live.release), &[]);
            assert!(release.contains(&format!("REVISION={newer}")), "{release}");
            // A newer run that was interleaved is no rollback: the next deploy finds nothing to do.
            let next = world.offbuild().directory(if newer_waits { &waiting } else { &running });
            world.run_as(&next, &["deploy"]).code(0).outcomes(&["web@staging up-to-date"]);
        }
    }
}

#[test]
fn a_run_that_was_killed_keeps_nobody() {
    let world = world(Version::V2);
    world.run(&["deploy"]).code(0);
    let commit = world.page("web", "second").repo.commit("second");
    let (killed, next) = (clone(&world, "killed", &commit), clone(&world, "next", &commit));
    let hold = world.aside("hold");
    let mut run = start(&world, &killed, &["deploy"], &[("HOLD", &hold)]);
    wait_for(|| hold.with_extension("at").exists());
    run.0.kill().unwrap();
    run.0.wait().unwrap();
    std::fs::write(hold.with_extension("go"), "").unwrap();
    let offbuild = world.offbuild().directory(&next);
    let run = world.run_as(&offbuild, &["deploy"]).code(0).outcomes(&["web@staging deployed"]);
    run.says("took over `web@staging`").says("its process is gone");
}

#[test]
fn a_run_that_is_interrupted_while_it_waits_gives_back_what_it_has() {
    let world = world(Version::V2);
    world.run(&["deploy"]).code(0);
    let commit = world.page("web", "second").repo.commit("second");
    let (first, second) = (clone(&world, "first", &commit), clone(&world, "second", &commit));
    let hold = world.aside("hold");
    let holds = start(&world, &first, &["deploy"], &[("HOLD", &hold)]);
    wait_for(|| hold.with_extension("at").exists());
    let waits = start(&world, &second, &["deploy", "--lock-wait", "10m"], &[]);
    wait_for(|| second.join(".offbuild/locks/staging.json").exists());
    std::thread::sleep(Duration::from_millis(100));
    sh(std::process::Command::new("kill").args(["-TERM", &waits.0.id().to_string()]));
    let done = ended(waits);
    assert_eq!(done.code, 143, "{}", done.stderr);
    assert!(!second.join(".offbuild/locks/staging.json").exists());
    std::fs::write(hold.with_extension("go"), "").unwrap();
    assert_eq!(ended(holds).code, 0);
}

#[test]
fn who_waited_for_another_run_looks_again_before_it_builds() {
    // The run that is waited for is of the same commit, or of a newer one.
    for (same, expected) in [(true, (0, "up-to-date")), (false, (4, "stale"))] {
        let world = world(Version::V2);
        world.run(&["deploy"]).code(0);
        let older = world.page("web", "older").repo.commit("older");
        let newer = world.page("web", "newer").repo.commit("newer");
        let (holding, waiting) = (clone(&world, "holding", &newer), clone(&world, "waiting", if same { &newer } else { &older }));
        let hold = world.aside("hold");
        let holds = start(&world, &holding, &["deploy"], &[("HOLD", &hold)]);
        wait_for(|| hold.with_extension("at").exists());
        let mut waits = start(&world, &waiting, &["deploy", "--lock-wait", "10m"], &[]);
        let mut said = BufReader::new(waits.0.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("waiting: ") {
            line.clear();
            assert!(said.read_line(&mut line).unwrap() > 0, "it did not wait");
        }
        std::fs::write(hold.with_extension("go"), "").unwrap();
        assert_eq!(ended(holds).code, 0);
        let mut rest = String::new();
        said.read_to_string(&mut rest).unwrap();
        assert!(rest.contains("the plan is made anew"), "{rest}");
        let code = waits.0.wait().unwrap().code().unwrap();
        assert_eq!((code, latest(&waiting).0.as_str()), expected, "{rest}");
        let events = Journal::read(&Journal::list(&waiting).unwrap()[0].path).unwrap();
        let begun = events.iter().any(|event| matches!(event.kind, EventKind::StepStarted { .. }));
        assert!(!begun, "nothing is built or staged for what is live or outdated: {rest}");
        assert_eq!((world.sandbox.live("staging", "web").commit, world.sandbox.promotes("staging", "web")), (newer, 2));
    }
}

#[test]
fn a_run_killed_as_it_renews_its_release_goes_on_with_that_one() {
    // The new release is on record, only the rack knows of it, or it was not made any more.
    let table = [
        ("/promote", Fault::Endless, &["deploy", "--resume"][..], true),
        ("/releases", Fault::Timeout, &["deploy"], true),
        ("/releases", Fault::Endless, &["deploy", "--resume"], false),
    ];
    for (call, fault, how, made) in table {
        let world = Setup::new(&["web"]).start();
        world.run(&["deploy"]).code(0);
        let ours = world.sandbox.live("staging", "web");
        let (marks, hold) = (world.aside("marks"), world.aside("hold"));
        std::fs::write(&hold, "").unwrap();
        let hook = format!("echo begun >> {}; while [ -e {} ]; do sleep 0.05; done", marks.display(), hold.display());
        world.hook("web", "before_release", &hook).page("web", "second").repo.commit("second");
        let front = Front::before(Behind::Tcp(world.sandbox.environment()["STAGING_HOST"].trim_start_matches("http://").to_owned()));
        let offbuild = world.offbuild().env("STAGING_HOST", format!("http://{}", front.host));
        let mut run = Running(offbuild.command(&["deploy"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        wait_for(|| marks.exists());
        // An older commit becomes live meanwhile, with a release that is newer than the staged one.
        world.sandbox.release_by_hand("staging", "web", &ours.manifest, &ours.commit, "by hand");
        let releases = || {
            let all: Value = serde_json::from_str(&world.sandbox.call("GET", "staging", "/apps/web/releases", &[])).unwrap();
            all.as_array().unwrap().len()
        };
        let (before, builds) = (releases(), world.sandbox.builds("staging", "web"));
        let to = move |head: &Head, _: &[Head]| head.method == "POST" && head.path.ends_with(call);
        let body = |status| (status, String::new(), "text/plain");
        front.rule(Rule { to: Box::new(to), fault, times: usize::MAX, body, retry_after: None });
        std::fs::remove_file(&hold).unwrap();
        wait_for(|| front.faulted() > 0 && (releases() > before) == made);
        run.0.kill().unwrap();
        run.0.wait().unwrap();
        front.reset();

        world.run(how).code(0).says("is taken over").outcomes(&["web@staging deployed"]);
        assert_eq!(world.sandbox.live("staging", "web").commit, world.repo.git(&["rev-parse", "HEAD"]));
        assert_eq!(std::fs::read_to_string(&marks).unwrap(), "begun\n", "{call}: its hook has run");
        assert_eq!((releases(), world.sandbox.builds("staging", "web")), (before + 1, builds), "{call}: it was staged once");
    }
}
