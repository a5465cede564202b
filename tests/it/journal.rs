//! A run that is killed loses nothing it recorded.

use offbuild::event::{EventKind, Events, Stage, Step};
use offbuild::journal::Journal;
use offbuild::names::{AppName, RunId};
use offbuild::report;
use offbuild::report::state::RunState;
use offbuild::secret::Redactor;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};

const DIR: &str = "OFFBUILD_TEST_JOURNAL_DIR";

fn step(number: usize) -> Step {
    Step { app: AppName::new(format!("app{number}")).unwrap(), rack: None, service: None, stage: Stage::BeforeBuild }
}

/// What the killed process of the test below does: this binary again, with the variable set.
#[tokio::test]
async fn in_a_child_process() {
    let Some(dir) = std::env::var_os(DIR).map(PathBuf::from) else { return };
    let journal = Journal::create(&dir, &RunId::new("r1").unwrap()).unwrap();
    let (events, receiver) = Events::new(Redactor::default());
    tokio::spawn(report::drive(receiver, Some((journal, events.acks())), Vec::new()));
    for number in 0.. {
        events.record(EventKind::StepStarted { step: step(number), detail: String::new() }).await;
        // Past the test harness, which holds its own output back.
        std::io::stderr().write_all(format!("begun {number}\n").as_bytes()).unwrap();
    }
}

#[test]
fn what_was_recorded_is_there_after_a_kill_at_any_moment() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "journal::in_a_child_process", "--nocapture"])
        .env(DIR, dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    let told = said.by_ref().find_map(|line| line.unwrap().strip_prefix("begun 40").map(|_| 40)).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let later = said.filter_map(|line| line.ok()?.strip_prefix("begun ")?.parse::<usize>().ok()).max();
    let last = later.unwrap_or(told);
    let file = Journal::find(dir.path(), "latest").unwrap();
    let state = RunState::replay(&Journal::read(&file.path).unwrap());
    for number in 0..=last {
        assert!(state.steps.contains_key(&step(number)), "step {number} of {last} was recorded and is lost");
    }
}
