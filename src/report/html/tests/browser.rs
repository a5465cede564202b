//! The page in a browser without a screen (Debian: `chromium-headless-shell`): its script runs without an error, nothing is asked
//! for, what is looked for is there, and it can be looked at: `OFFBUILD_PICTURES=DIR` keeps the screenshots.

use super::render;
use crate::event::{EventKind, Stage, StepOutcome, TargetOutcome};
use crate::report::samples::{self, Stream};
use std::path::{Path, PathBuf};
use std::process::Command;

const BROWSER: &str = "chromium-headless-shell";
const LIGHT: &str = "--blink-settings=preferredColorScheme=1";
const DARK: &str = "--blink-settings=preferredColorScheme=0";

/// A page on disk, and what a browser makes of it.
struct Shown {
    dir: tempfile::TempDir,
    page: PathBuf,
}

impl Shown {
    fn new(page: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("page.html");
        std::fs::write(&path, page).unwrap();
        Self { page: path, dir }
    }

    /// Opens the page at `place` (`#…` or nothing) and returns the document after its script ran.
    fn open(&self, place: &str, flags: &[&str]) -> String {
        let requests = self.dir.path().join("requests.json");
        let output = Command::new(BROWSER)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--enable-logging=stderr", "--v=0"])
            .args(["--host-resolver-rules=MAP * ~NOTFOUND", "--dump-dom"])
            .arg(format!("--user-data-dir={}", self.dir.path().join("profile").display()))
            .arg(format!("--log-net-log={}", requests.display()))
            .args(flags)
            .arg(format!("file://{}{place}", self.page.display()))
            .output()
            .unwrap_or_else(|error| panic!("`{BROWSER}` is needed (Debian: `apt-get install {BROWSER}`): {error}"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        // What the page's script or policy complains of; the rest is about the machine.
        let complaints: Vec<&str> = said.lines().filter(|line| line.contains(":CONSOLE:")).collect();
        assert!(complaints.is_empty(), "{complaints:#?}");
        // A file is read past the network, so any address that the network was asked for is one too many.
        let requests = std::fs::read_to_string(&requests).unwrap();
        assert!(requests.contains("\"events\""), "no log of requests: {requests}");
        let asked: Vec<&str> = requests.split("\"url\":\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert!(asked.is_empty(), "{asked:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The picture of the page.
    fn picture(&self, name: &str, flags: &[&str]) -> Vec<u8> {
        let path = std::env::var_os("OFFBUILD_PICTURES").map_or_else(|| self.dir.path().to_owned(), PathBuf::from).join(name);
        self.open("", &[flags, &[&format!("--screenshot={}", path.display())]].concat());
        let picture = std::fs::read(Path::new(&path)).unwrap();
        assert!(picture.starts_with(b"\x89PNG"), "{name} is no picture");
        picture
    }
}

/// The share of the document between the tags with this id and the next `</section>`.
fn part<'a>(document: &'a str, id: &str) -> &'a str {
    let (_, rest) = document.split_once(&format!("<section id=\"{id}\"")).unwrap_or_else(|| panic!("no part `{id}`"));
    rest.split("</section>").next().unwrap()
}

#[test]
fn every_sample_opens_without_an_error_or_a_request() {
    for (name, events) in samples::all() {
        let document = Shown::new(&render(&events)).open("", &[]);
        assert!(document.contains("20260102-030405-abcd"), "{name}");
        assert!(document.contains("<div id=\"find\" role=\"search\">"), "{name}: the script did not show the search");
        let folds = part(&document, "targets").matches("data-row=").count();
        assert_eq!(folds, crate::report::state::RunState::replay(&events).targets.len(), "{name}");
    }
    let document = Shown::new(&render(&samples::rolled_back())).open("", &[]);
    for text in ["Readiness probe failed", "Critical path: ", "web.1 failed its health check", "unfold all"] {
        assert!(document.contains(text), "{text}");
    }
}

/// 200 apps on two racks: every tenth is built and goes live, one fails, the others have nothing to do.
fn many() -> String {
    let mut run = Stream::start();
    let names: Vec<String> = (0..200).map(|number| format!("app{number:03}")).collect();
    let changed = |number: usize| number % 10 == 7;
    for (number, name) in names.iter().enumerate() {
        for rack in ["production", "staging"] {
            run.add(EventKind::TargetPlanned {
                target: samples::target(&format!("{name}@{rack}")),
                verdict: if changed(number) { "deploy" } else { "up-to-date" }.to_owned(),
                reasons: vec![format!("apps/{name}/main.rb changed (apps/{name}/**)")],
                base: Some(samples::commit("1")),
                base_source: "rack".to_owned(),
                live_release: None,
                trap: None,
            });
        }
    }
    for (number, name) in names.iter().enumerate().filter(|(number, _)| changed(*number)) {
        let image = format!("{name}/web");
        run.begin(&image, Stage::Build, "Dockerfile").build_step(&image, "[1/2] FROM ruby:3.4", true, Some(0), None);
        run.build_step(&image, "[2/2] COPY . .", number % 20 == 7, Some(300), None);
        for line in 0..40 {
            run.log(&image, Stage::Build, &format!("line {line} of the build of {name}")).pass(20);
        }
        run.end(&image, Stage::Build, 800, StepOutcome::Done);
        run.begin(&image, Stage::Push, "registry.example").pass(300).end(&image, Stage::Push, 300, StepOutcome::Done);
    }
    for rack in ["staging", "production"] {
        for (number, name) in names.iter().enumerate() {
            let subject = format!("{name}@{rack}");
            let mut outcome = TargetOutcome::UpToDate;
            if changed(number) {
                run.begin(&subject, Stage::Stage, "convox.yml").pass(500).end(&subject, Stage::Stage, 500, StepOutcome::Done);
                run.begin(&subject, Stage::Promote, "R1").pass(2000);
                outcome = TargetOutcome::Deployed { release: crate::names::ReleaseId::new("R1").unwrap() };
                let mut ended = StepOutcome::Done;
                if subject == "app197@production" {
                    let (class, message) = (crate::event::FailureClass::Promote, "the rack refused the promote".to_owned());
                    outcome = TargetOutcome::Failed { stage: Stage::Promote, class, message: message.clone(), hint: None };
                    ended = StepOutcome::Failed { class, message, hint: None };
                }
                run.end(&subject, Stage::Promote, 2000, ended);
            }
            run.add(EventKind::TargetFinished { target: samples::target(&subject), millis: 2500, outcome });
        }
    }
    run.add(EventKind::RunFinished { code: 1, millis: 60_000 });
    render(&run.events())
}

#[test]
fn two_hundred_apps_on_two_racks_can_be_searched() {
    let shown = Shown::new(&many());
    let document = shown.open("", &[]);
    let targets = part(&document, "targets");
    assert_eq!(targets.matches("data-row=").count(), 400);
    assert!(targets.contains("360 targets with nothing to do") && document.contains("the rack refused the promote"));
    let found = shown.open("#find=app117", &[]);
    // What is left: two targets, their rows in both lanes, the image's row and log; and those of them on the critical path.
    let left = part(&found, "targets").matches("<tr data-row=\"\">").count();
    assert_eq!(left, 2, "{}", part(&found, "targets"));
    assert_eq!(part(&found, "logs").matches("<details data-row=\"\">").count(), 1);
    assert!(found.contains(" rows</output>"), "the search says nothing of what it found");
    let line = shown.open("#find=line+39+app047", &[]);
    assert_eq!(part(&line, "logs").matches("<details data-row=\"\">").count(), 1, "a line of a log is not found");
}

#[test]
fn it_looks_different_in_light_in_dark_and_in_little_room() {
    let (few, many) = (Shown::new(&render(&samples::hook_failing())), Shown::new(&many()));
    for (name, page) in [("few", &few), ("many", &many)] {
        let pictures = [("light", LIGHT, "1280,1400"), ("dark", DARK, "1280,1400"), ("narrow", LIGHT, "560,1400")]
            .map(|(look, flag, size)| page.picture(&format!("{name}-{look}.png"), &[flag, &format!("--window-size={size}")]));
        assert!(pictures[0] != pictures[1] && pictures[0] != pictures[2], "{name}");
    }
}

#[test]
#[should_panic(expected = "nothing.example")]
fn a_request_would_be_seen() {
    Shown::new("<!doctype html><title>page</title><img src=\"http://nothing.example/picture.png\">").open("", &[]);
}

#[test]
#[should_panic(expected = "a complaint")]
fn an_error_would_be_seen() {
    Shown::new("<!doctype html><title>page</title><script>throw new Error('a complaint')</script>").open("", &[]);
}
