//! Random secrets, spelled in every way, folded and cut anywhere, through the way output goes: bytes into lines, lines into events,
//! events into every report. No report may hold one.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};
use offbuild::event::{EventKind, Events, FORMAT_VERSION, FailureClass, Output, Stage, Step, StepOutcome, TargetOutcome};
use offbuild::journal::Journal;
use offbuild::names::{AppName, CommitId, RackName, RunId, Target};
use offbuild::report::github::Github;
use offbuild::report::json::{EventLines, Report};
use offbuild::report::plain::{Ci, Options, Plain, Verbosity};
use offbuild::report::{Sink, drive, html, summary};
use offbuild::secret::{Redactor, Secret};
use proptest::prelude::*;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// A writer whose bytes can be had afterwards.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn step(stage: Stage) -> Step {
    Step { app: AppName::new("web").unwrap(), rack: Some(RackName::new("staging").unwrap()), service: None, stage }
}

/// Everything the reports say of a run in which a hook printed `bytes`, in pieces of these sizes, and failed with `message`.
async fn reports(redactor: Redactor, bytes: &[u8], pieces: &[usize], message: &str, dir: &Path) -> Vec<(String, String)> {
    let outputs: Vec<(&str, Shared)> =
        ["quiet", "normal", "verbose", "live", "github", "gitlab", "events", "annotations"].map(|name| (name, Shared::default())).into();
    let out = |name: &str| outputs.iter().find(|(known, _)| *known == name).unwrap().1.clone();
    let plain = |name: &str, options| Box::new(Plain::new(out(name), options)) as Box<dyn Sink>;
    let files = [dir.join("summary.md"), dir.join("outputs")];
    let sinks: Vec<Box<dyn Sink>> = vec![
        plain("quiet", Options { verbosity: Verbosity::Quiet, ..Options::default() }),
        plain("normal", Options::default()),
        plain("verbose", Options { verbosity: Verbosity::Verbose, ..Options::default() }),
        plain("live", Options { live: true, ..Options::default() }),
        plain("github", Options { ci: Ci::Github, ..Options::default() }),
        plain("gitlab", Options { ci: Ci::Gitlab, ..Options::default() }),
        Box::new(EventLines::new(out("events"))),
        Box::new(Github::new(out("annotations"), Some(files[0].clone()), Some(files[1].clone()))),
    ];
    let run = RunId::new("20260102-030405-abcd").unwrap();
    let journal = Journal::create(dir, &run).unwrap();
    let path = journal.path().to_owned();
    let (events, received) = Events::new(redactor);
    let acks = events.acks();
    let shown = tokio::spawn(drive(received, Some((journal, acks)), sinks));
    let target = Target { app: AppName::new("web").unwrap(), rack: RackName::new("staging").unwrap() };
    events.send(EventKind::RunStarted {
        version: FORMAT_VERSION,
        run,
        command: "deploy".to_owned(),
        commit: CommitId::new("f".repeat(40)).unwrap(),
        subject: message.to_owned(),
        branch: Some(message.to_owned()),
        ci_url: Some(format!("https://ci.example/{message}")),
        by: message.to_owned(),
    });
    for stage in [Stage::BeforeRelease, Stage::Build] {
        let progress = events.progress(step(stage));
        events.send(EventKind::StepStarted { step: step(stage), detail: message.to_owned() });
        let mut lines = progress.lines();
        let (mut rest, mut sizes) = (bytes, pieces.iter().cycle());
        while !rest.is_empty() {
            let (piece, more) = rest.split_at((*sizes.next().unwrap()).min(rest.len()));
            lines.push(piece, &mut |line| progress.log(Output::Out, line));
            rest = more;
        }
        lines.finish(&mut |line| progress.log(Output::Out, line));
        progress.notice(message);
        progress.build_step(message, false, None, true, Some(message.to_owned()));
        let outcome = StepOutcome::Failed { class: FailureClass::Hook, message: message.to_owned(), hint: Some(message.to_owned()) };
        events.send(EventKind::StepFinished { step: step(stage), millis: 1, outcome });
    }
    let (stage, class) = (Stage::BeforeRelease, FailureClass::Hook);
    let outcome = TargetOutcome::Failed { stage, class, message: message.to_owned(), hint: Some(message.to_owned()) };
    events.send(EventKind::TargetFinished { target, millis: 1, outcome });
    events.record(EventKind::RunFinished { code: 1, millis: 2 }).await;
    drop(events);
    let state = shown.await.unwrap();
    let mut report = Vec::new();
    Report::of(&state).write(&mut report).unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut all: Vec<(String, String)> = outputs.iter().map(|(name, out)| ((*name).to_owned(), text(&out.0.lock().unwrap()))).collect();
    all.push(("json".to_owned(), text(&report)));
    all.push(("summary".to_owned(), summary::render(&state, &summary::Options { verbose: true, ..summary::Options::default() })));
    all.push(("html".to_owned(), html::render(&Journal::read(&path).unwrap())));
    for file in files.iter().chain([&path]) {
        all.push((file.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read_to_string(file).unwrap()));
    }
    all
}

/// A text as tools echo it.
fn spelled(way: u8, text: &str) -> String {
    match way {
        0 => text.to_owned(),
        1 => STANDARD.encode(text),
        2 => URL_SAFE.encode(text),
        3 => hex::encode(text),
        4 => hex::encode_upper(text),
        5 => url::form_urlencoded::byte_serialize(text.as_bytes()).collect(),
        6 => text.bytes().map(|byte| format!("%{byte:02x}")).collect(),
        7 => serde_json::to_string(text).unwrap(),
        8 => serde_json::to_string(&serde_json::to_string(text).unwrap()).unwrap(),
        9 => format!("'{}'", text.replace('\'', "'\\''")),
        10 => text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_string() } else { format!("\\{c}") }).collect(),
        _ => text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect(),
    }
}

/// What gives a value away, wherever it stands: itself, and what each way makes of it whatever its neighbours are.
fn traces(value: &str) -> Vec<String> {
    let mut traces: Vec<String> = [0, 3, 4, 5, 6, 11].map(|way| spelled(way, value)).into();
    let json = spelled(7, value);
    traces.push(json[1..json.len() - 1].to_owned());
    for lead in 0..3 {
        let text = STANDARD_NO_PAD.encode(format!("{}{value}", "x".repeat(lead)));
        traces.push(text[(lead * 8).div_ceil(6)..(lead + value.len()) * 8 / 6].to_owned());
    }
    traces
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(std::env::var("OFFBUILD_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(48)))]

    #[test]
    fn no_report_holds_a_secret(
        values in prop::collection::vec("[!-~][ -~]{6,60}[!-~]", 1..4),
        said in prop::collection::vec((0usize..4, 0u8..=11, "[a-z]{0,5}", prop::option::of(8usize..90)), 1..8),
        pieces in prop::collection::vec(1usize..300, 1..6),
        filler in 0usize..3,
    ) {
        let redactor = Redactor::default();
        for value in &values {
            prop_assert!(redactor.register(&Secret::new(value.clone())));
        }
        // With enough before it, a value lies where a line that is too long is cut.
        let mut bytes = "z".repeat([0, 16_370, 32_700][filler]).into_bytes();
        let mut message = String::new();
        for (which, way, before, fold) in &said {
            let text = spelled(*way, &format!("{before}{}", values[which % values.len()]));
            match fold.filter(|_| *way < 7 && text.is_ascii()) {
                Some(width) => text.as_bytes().chunks(width).for_each(|line| bytes.extend_from_slice(&[line, b"\n"].concat())),
                None => bytes.extend_from_slice(format!("{text}\n").as_bytes()),
            }
            message.push_str(&format!("{text}\n"));
        }
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for (name, text) in runtime.block_on(reports(redactor, &bytes, &pieces, &message, dir.path())) {
            // What was folded, put together again.
            let joined: String = text.lines().map(|line| line.strip_prefix("web@staging | ").unwrap_or(line)).collect();
            for value in &values {
                for trace in traces(value) {
                    prop_assert!(!text.contains(&trace), "{trace} is in {name}:\n{text}");
                    prop_assert!(!joined.contains(&trace), "{trace} is folded in {name}:\n{text}");
                }
            }
            prop_assert!(name == "outputs" || name == "quiet" || text.contains("***"), "nothing was masked in {name}:\n{text}");
        }
    }
}
