//! What is shown of a promote that did not end well.

use crate::support::world::{Run, Setup};
use offbuild::event::{EventKind, Evidence, Suspect};
use offbuild::sandbox::Version;
use std::time::Duration;

#[track_caller]
fn evidence(run: &Run) -> &Evidence {
    let found = run.kinds().find_map(|kind| match kind {
        EventKind::PromoteEvidence { evidence, .. } => Some(evidence),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("no evidence:\n{}", run.done.stderr))
}

#[test]
fn every_way_to_fail_leaves_its_evidence_on_both_racks() {
    let world = Setup::new(&["web"]).rack("production", Version::V3, "").promote(Duration::from_millis(1200)).start();
    world.run(&["deploy"]).code(0);
    let table = [
        ("app-crashes", Suspect::CrashLoop, true),
        ("app-oom", Suspect::OutOfMemory, true),
        ("app-unhealthy", Suspect::Unhealthy, true),
        ("app-wrong-port", Suspect::WrongPort, true),
        ("app-missing-env", Suspect::MissingEnv, true),
        ("app-bad-command", Suspect::BadCommand, false),
        ("no-capacity", Suspect::NoCapacity, false),
        ("promote-rolls-back", Suspect::Unknown, false),
    ];
    for rack in ["staging", "production"] {
        for (fault, suspect, writes) in table {
            world.page("web", fault).repo.commit(fault);
            world.sandbox.fault(&format!("{rack}:web:{fault}"));
            let run = world.run(&["deploy", "--rack", rack]).code(1).outcomes(&[&format!("web@{rack} rolled-back")]);
            world.sandbox.heal();
            let evidence = evidence(&run);
            assert_eq!(evidence.suspect, suspect, "{rack} {fault}: {evidence:?}");
            assert_eq!(evidence.missing, Vec::<String>::new(), "{rack} {fault}");
            assert_eq!(!evidence.logs.is_empty(), writes, "{rack} {fault}: {evidence:?}");
            assert!(evidence.timeline.iter().any(|moment| moment.status == "rollback"), "{rack} {fault}: {evidence:?}");
            assert!(evidence.manifest.iter().any(|line| line.starts_with("+") && line.contains("sha256:")), "{evidence:?}");
            let ours = evidence.processes.iter().filter(|seen| Some(&seen.release) != evidence.processes.last().map(|last| &last.release));
            assert_eq!(ours.count() > 0, fault != "promote-rolls-back", "{rack} {fault}: {evidence:?}");
            // The summary breaks long lines.
            let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            let told = words(&run.done.stderr);
            assert!(told.contains(suspect.words()) && told.contains(&words(&evidence.next)), "{}", run.done.stderr);
        }
    }
}

#[test]
fn changed_variables_are_told_by_name_and_every_report_has_the_evidence() {
    let world = Setup::new(&["web"]).start();
    world.run(&["deploy"]).code(0);
    let live = world.sandbox.live("staging", "web");
    let env = "REVISION=x\nSTRIPE_KEY=never-to-be-shown";
    world.sandbox.call("POST", "staging", "/apps/web/releases", &[("env", env)]);
    world.page("web", "second").repo.commit("second");
    world.sandbox.fault("staging:web:app-missing-env");
    let (html, markdown) = (world.aside("evidence.html"), world.aside("summary.md"));
    let args = ["deploy", "--format", "json", "--summary", markdown.to_str().unwrap()];
    let run = world.run(&args).code(1).says(&live.release);
    let found = evidence(&run);
    assert_eq!(found.env.added, ["STRIPE_KEY"]);
    assert!(found.next.starts_with("set it: convox env set DATABASE_URL=VALUE -a web"), "{}", found.next);
    world.run(&["report", "-o", html.to_str().unwrap()]).code(0);
    let page = std::fs::read_to_string(html).unwrap();
    let texts = [page, std::fs::read_to_string(markdown).unwrap(), run.done.stdout.clone(), run.done.stderr.clone()];
    for text in &texts {
        assert!(text.contains("STRIPE_KEY") && text.contains("KeyError") && !text.contains("never-to-be-shown"), "{text}");
    }
    let report: serde_json::Value = serde_json::from_str(&run.done.stdout).unwrap();
    assert_eq!(report["targets"][0]["promote"]["suspect"], "missing-env");
}

#[test]
fn a_promote_that_runs_out_of_time_is_called_slow_not_broken() {
    let world = Setup::new(&["web"]).settings("apps: {web: {timeouts: {promote: 1s}}}\n").start();
    world.sandbox.fault("staging:web:promote-hangs");
    let run = world.run(&["deploy"]).code(1).outcomes(&["web@staging failed(promote-timeout)"]);
    assert_eq!(evidence(&run).suspect, Suspect::StillGoing);
    assert!(run.done.stderr.contains("still going on when time ran out"), "{}", run.done.stderr);
}
