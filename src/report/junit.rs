//! `--junit FILE`: the run as test results, which every CI shows: a suite for the images and one per rack, a case per image
//! and target.
//!
//! There is no standard, only what readers agree on: `testsuites`, `testsuite`, `testcase` with at most one of `failure` (the
//! app's doing), `error` (something around it) and `skipped` (<https://github.com/testmoapp/junitxml>).

use super::failures::{Failure, failures};
use super::state::{RunState, StepState, TargetState};
use super::summary::why;
use super::text::clean;
use crate::event::{FailureClass, Stage, Step, StepOutcome, TargetOutcome};
use crate::names::{AppName, ServiceName, Target};
use std::fmt::Write as _;
use time::macros::format_description;

struct Suite {
    name: String,
    cases: Vec<Case>,
}

struct Case {
    name: String,
    millis: u64,
    verdict: Verdict,
}

/// How a case ended, in JUnit's words.
enum Verdict {
    Passed,
    Skipped(String),
    Bad { element: &'static str, class: String, message: String, body: String },
}

/// The run as JUnit XML.
#[must_use]
pub fn render(state: &RunState) -> String {
    let told = failures(state);
    let mut suites = vec![Suite { name: "images".to_owned(), cases: images(state) }];
    // Images alone (`offbuild build`) end without an outcome of any target: nothing was to be released.
    let ended = state.targets_in_order().into_iter().filter(|(_, known)| known.outcome.is_some() || state.finished.is_none());
    for (target, known) in ended {
        let case = Case { name: target.app.to_string(), millis: known.millis, verdict: verdict(target, known, &told) };
        suite(&mut suites, target.rack.as_str()).cases.push(case);
    }
    for (step, known) in state.steps_in_order() {
        // What is done after a target ended has a case of its own: the target's says what happened to the target.
        let after = matches!(step.stage, Stage::OnFailure | Stage::GoBack | Stage::Heal);
        if let (true, Some(rack), Some(bad)) = (after, &step.rack, failed(known)) {
            let case = Case { name: format!("{} {}", step.app, step.stage.name()), millis: known.millis, verdict: bad };
            suite(&mut suites, rack.as_str()).cases.push(case);
        }
    }
    suites.retain(|suite| !suite.cases.is_empty());
    draw(state, &suites)
}

fn suite<'a>(suites: &'a mut Vec<Suite>, name: &str) -> &'a mut Suite {
    let place = suites.iter().position(|suite| suite.name == name).unwrap_or_else(|| {
        suites.push(Suite { name: name.to_owned(), cases: Vec::new() });
        suites.len() - 1
    });
    &mut suites[place]
}

fn images(state: &RunState) -> Vec<Case> {
    let case = |(app, service): &(AppName, ServiceName), image: &super::state::ImageState| {
        let of = |step: &Step| step.app == *app && step.rack.is_none() && step.service.as_ref().is_none_or(|other| other == service);
        let steps: Vec<(&Step, &StepState)> = state.steps_in_order().into_iter().filter(|(step, _)| of(step)).collect();
        // The hooks of an app are not one image's, so their time is nobody's; but no image is good when one of them failed.
        let millis = steps.iter().filter(|(step, _)| step.service.is_some()).map(|(_, known)| known.millis).sum();
        let verdict = match steps.iter().find_map(|(_, known)| failed(known)) {
            Some(bad) => bad,
            None if image.digest.is_some() => Verdict::Passed,
            None if image.action == "build" => Verdict::Skipped("not built".to_owned()),
            None => Verdict::Skipped("in the registry already".to_owned()),
        };
        Case { name: format!("{app}/{service}"), millis, verdict }
    };
    state.images_in_order().into_iter().map(|(name, image)| case(name, image)).collect()
}

fn failed(step: &StepState) -> Option<Verdict> {
    match &step.outcome {
        Some(StepOutcome::Failed { class, message, hint }) => {
            let hint = hint.as_ref().map_or_else(String::new, |hint| format!("\nnext: {hint}"));
            Some(bad(*class, message, format!("{message}{hint}")))
        }
        _ => None,
    }
}

fn bad(class: FailureClass, message: &str, body: String) -> Verdict {
    Verdict::Bad { element: element(class), class: class.name().to_owned(), message: message.to_owned(), body }
}

/// `failure` for what the commit can be at fault for, `error` for what is around it.
fn element(class: FailureClass) -> &'static str {
    match class {
        FailureClass::Hook
        | FailureClass::HookTimeout
        | FailureClass::Build
        | FailureClass::BuildTimeout
        | FailureClass::RackBuild
        | FailureClass::RackBuildTimeout
        | FailureClass::Promote
        | FailureClass::PromoteTimeout => "failure",
        FailureClass::Push
        | FailureClass::TagConflict
        | FailureClass::Registry
        | FailureClass::Engine
        | FailureClass::RackLogin
        | FailureClass::RackUnreachable
        | FailureClass::Rack
        | FailureClass::Overtaken
        | FailureClass::PushTimeout
        | FailureClass::RunTimeout
        | FailureClass::Guard => "error",
    }
}

fn verdict(target: &Target, known: &TargetState, told: &[Failure]) -> Verdict {
    let about = |message: &str| {
        let failure = told.iter().find(|failure| failure.app == target.app && failure.racks.contains(&target.rack));
        failure.map_or_else(|| message.to_owned(), body)
    };
    let aside = |element: &'static str, class: &str, message: &str| Verdict::Bad {
        element,
        class: class.to_owned(),
        message: message.to_owned(),
        body: about(message),
    };
    match &known.outcome {
        Some(TargetOutcome::Deployed { .. } | TargetOutcome::Staged { .. }) => Verdict::Passed,
        Some(TargetOutcome::Failed { class, message, .. }) => bad(*class, message, about(message)),
        Some(TargetOutcome::RolledBack { message, .. }) => aside("failure", "rolled-back", message),
        Some(TargetOutcome::Cancelled) => aside("error", "cancelled", "stopped while something of it ran"),
        Some(TargetOutcome::UpToDate) => Verdict::Skipped("up to date".to_owned()),
        Some(outcome) => Verdict::Skipped(format!("{}: {}", outcome.word(), why(known))),
        None => aside("error", "unfinished", "the run was killed before this ended"),
    }
}

/// Everything known of a failure, in lines.
fn body(failure: &Failure) -> String {
    let mut lines = failure.lines();
    lines.push(format!("next: {}", failure.hint));
    lines.join("\n")
}

fn draw(state: &RunState, suites: &[Suite]) -> String {
    let run = state.run.as_ref();
    let name = run.map_or_else(|| "offbuild".to_owned(), |run| format!("offbuild {}", run.command));
    // JUnit's times have no zone; they are UTC, as those of all reports.
    let form = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]");
    let started = run.and_then(|run| run.started.format(form).ok());
    let started = started.map_or_else(String::new, |time| format!(" timestamp=\"{time}\""));
    let all = || suites.iter().flat_map(|suite| &suite.cases);
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(text, "<testsuites name=\"{}\" {} time=\"{}\">", escape(&name), counts(all()), seconds(state.wall_millis()));
    for suite in suites {
        let spent = suite.cases.iter().map(|case| case.millis).sum();
        let (name, counts) = (escape(&suite.name), counts(suite.cases.iter()));
        let _ = writeln!(text, "  <testsuite name=\"{name}\" {counts} time=\"{}\"{started}>", seconds(spent));
        for case in &suite.cases {
            let head = format!("<testcase classname=\"{name}\" name=\"{}\" time=\"{}\"", escape(&case.name), seconds(case.millis));
            let _ = match &case.verdict {
                Verdict::Passed => writeln!(text, "    {head}/>"),
                Verdict::Skipped(why) => writeln!(text, "    {head}>\n      <skipped message=\"{}\"/>\n    </testcase>", first(why)),
                Verdict::Bad { element, class, message, body } => {
                    let (class, message) = (escape(class), first(message));
                    let body = body.lines().map(escape).collect::<Vec<_>>().join("\n");
                    writeln!(
                        text,
                        "    {head}>\n      <{element} type=\"{class}\" message=\"{message}\">{body}</{element}>\n    </testcase>"
                    )
                }
            };
        }
        text.push_str("  </testsuite>\n");
    }
    text.push_str("</testsuites>\n");
    text
}

fn counts<'a>(cases: impl Iterator<Item = &'a Case>) -> String {
    let (mut tests, mut failures, mut errors, mut skipped) = (0, 0, 0, 0);
    for case in cases {
        tests += 1;
        match &case.verdict {
            Verdict::Passed => {}
            Verdict::Skipped(_) => skipped += 1,
            Verdict::Bad { element: "failure", .. } => failures += 1,
            Verdict::Bad { .. } => errors += 1,
        }
    }
    format!("tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\" skipped=\"{skipped}\"")
}

fn seconds(millis: u64) -> String {
    format!("{}.{:03}", millis / 1000, millis % 1000)
}

/// The first line that says something, as an attribute.
fn first(text: &str) -> String {
    escape(text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default())
}

/// One line as XML 1.0 may hold it: without control characters and what is no character.
fn escape(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    for c in clean(line).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\u{fffe}' | '\u{ffff}' => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    #[test]
    fn the_results_of_a_failing_hook() {
        insta::assert_snapshot!(render(&RunState::replay(&samples::hook_failing())), @r#"
        <?xml version="1.0" encoding="UTF-8"?>
        <testsuites name="offbuild deploy" tests="6" failures="1" errors="0" skipped="2" time="62.200">
          <testsuite name="images" tests="3" failures="0" errors="0" skipped="1" time="12.200" timestamp="2026-01-02T03:04:05">
            <testcase classname="images" name="api/web" time="0.400"/>
            <testcase classname="images" name="web/web" time="11.800"/>
            <testcase classname="images" name="worker/web" time="0.000">
              <skipped message="not built"/>
            </testcase>
          </testsuite>
          <testsuite name="staging" tests="3" failures="1" errors="0" skipped="1" time="50.000" timestamp="2026-01-02T03:04:05">
            <testcase classname="staging" name="api" time="40.000"/>
            <testcase classname="staging" name="web" time="10.000">
              <failure type="hook" message="`deploy/before_release.sh` ended with 3: column `email` is missing">`deploy/before_release.sh` ended with 3: column `email` is missing
        next: see what the hook said; it is run again by the next try</failure>
            </testcase>
            <testcase classname="staging" name="worker" time="0.000">
              <skipped message="blocked(web@staging): comes after web@staging"/>
            </testcase>
          </testsuite>
        </testsuites>
        "#);
    }

    #[test]
    fn the_results_of_a_broken_build_and_of_a_signal() {
        insta::assert_snapshot!(render(&RunState::replay(&samples::build_broken())), @r#"
        <?xml version="1.0" encoding="UTF-8"?>
        <testsuites name="offbuild deploy" tests="6" failures="2" errors="0" skipped="2" time="16.200">
          <testsuite name="images" tests="3" failures="1" errors="0" skipped="0" time="16.200" timestamp="2026-01-02T03:04:05">
            <testcase classname="images" name="api/web" time="0.400"/>
            <testcase classname="images" name="web/web" time="4.000">
              <failure type="build" message="`RUN bundle install` ended with 5">`RUN bundle install` ended with 5
        next: build it alone: `offbuild build web`</failure>
            </testcase>
            <testcase classname="images" name="worker/web" time="11.800"/>
          </testsuite>
          <testsuite name="staging" tests="3" failures="1" errors="0" skipped="2" time="0.000" timestamp="2026-01-02T03:04:05">
            <testcase classname="staging" name="api" time="0.000">
              <skipped message="not-attempted: the build of `web` failed and nothing is released before every build is good"/>
            </testcase>
            <testcase classname="staging" name="web" time="0.000">
              <failure type="build" message="`RUN bundle install` ended with 5">`RUN bundle install` ended with 5
        next: build it alone: `offbuild build web`</failure>
            </testcase>
            <testcase classname="staging" name="worker" time="0.000">
              <skipped message="not-attempted: the build of `web` failed and nothing is released before every build is good"/>
            </testcase>
          </testsuite>
        </testsuites>
        "#);
        insta::assert_snapshot!(render(&RunState::replay(&samples::interrupted())), @r#"
        <?xml version="1.0" encoding="UTF-8"?>
        <testsuites name="offbuild deploy" tests="6" failures="0" errors="1" skipped="4" time="2.100">
          <testsuite name="images" tests="3" failures="0" errors="0" skipped="2" time="2.100" timestamp="2026-01-02T03:04:05">
            <testcase classname="images" name="api/web" time="0.400"/>
            <testcase classname="images" name="web/web" time="1.700">
              <skipped message="not built"/>
            </testcase>
            <testcase classname="images" name="worker/web" time="0.000">
              <skipped message="not built"/>
            </testcase>
          </testsuite>
          <testsuite name="staging" tests="3" failures="0" errors="1" skipped="2" time="0.000" timestamp="2026-01-02T03:04:05">
            <testcase classname="staging" name="api" time="0.000">
              <skipped message="not-attempted: interrupted"/>
            </testcase>
            <testcase classname="staging" name="web" time="0.000">
              <error type="cancelled" message="stopped while something of it ran">stopped while something of it ran</error>
            </testcase>
            <testcase classname="staging" name="worker" time="0.000">
              <skipped message="not-attempted: interrupted"/>
            </testcase>
          </testsuite>
        </testsuites>
        "#);
    }

    #[test]
    fn a_roll_back_tells_its_evidence() {
        let text = render(&RunState::replay(&samples::rolled_back()));
        assert!(text.contains("<failure type=\"rolled-back\" message=\"the rack went back to `RWEB1`: web.1 failed"), "{text}");
        assert!(text.contains("  added: STRIPE_KEY") && text.contains("next: see what the health check was answered"), "{text}");
    }

    /// A run in which everything that others write is meant to break the page.
    fn hostile() -> Vec<crate::event::Event> {
        let nasty =
            "]]></failure></testcase><testcase name=\"x\"/>&amp;&#0;<!-- \u{1b}[31m\u{0}\u{ffff}\u{202e} \"'\n\n  second line\u{7} ]]>";
        let mut stream = samples::Stream::start();
        for (subject, stage) in [("api/web", Stage::Build), ("api@staging", Stage::OnFailure), ("web@staging", Stage::Heal)] {
            let outcome = StepOutcome::Failed { class: FailureClass::Build, message: nasty.to_owned(), hint: Some(nasty.to_owned()) };
            stream.begin(subject, stage, nasty).end(subject, stage, 1500, outcome);
        }
        let target = samples::target("api@staging");
        let outcome = TargetOutcome::RolledBack { message: nasty.to_owned(), group: Some(nasty.to_owned()) };
        stream.add(crate::event::EventKind::TargetFinished { target, millis: 7, outcome });
        let target = samples::target("web@staging");
        stream.add(crate::event::EventKind::TargetFinished { target, millis: 7, outcome: TargetOutcome::Blocked { by: nasty.to_owned() } });
        stream.events()
    }

    #[test]
    fn another_reader_finds_the_suites_and_their_counts_add_up() {
        for (name, events) in samples::all().into_iter().chain([("hostile", hostile())]) {
            let text = render(&RunState::replay(&events));
            let document = roxmltree::Document::parse(&text).unwrap_or_else(|error| panic!("{name}: {error}\n{text}"));
            let root = document.root_element();
            let elements =
                |node: roxmltree::Node<'_, '_>| node.children().filter(|node| node.is_element()).map(|node| node.id()).collect::<Vec<_>>();
            let read = |id| document.get_node(id).unwrap();
            let number = |node: roxmltree::Node<'_, '_>, key: &str| node.attribute(key).unwrap().parse::<f64>().unwrap();
            let counts = ["tests", "failures", "errors", "skipped"];
            assert_eq!(root.tag_name().name(), "testsuites", "{name}");
            let mut sums = [0.0; 4];
            for suite in elements(root).into_iter().map(read) {
                assert_eq!(suite.tag_name().name(), "testsuite", "{name}");
                let mut found = [0.0; 4];
                let mut spent = 0.0;
                for case in elements(suite).into_iter().map(read) {
                    assert_eq!((case.tag_name().name(), case.attribute("classname")), ("testcase", suite.attribute("name")), "{name}");
                    assert!(!case.attribute("name").unwrap().is_empty(), "{name}");
                    spent += number(case, "time");
                    found[0] += 1.0;
                    // One verdict at most, and nothing else but text in it.
                    let inside = elements(case);
                    assert!(inside.len() <= 1, "{name}: {text}");
                    for verdict in inside.into_iter().map(read) {
                        let place = ["", "failure", "error", "skipped"].iter().position(|known| *known == verdict.tag_name().name());
                        found[place.unwrap_or_else(|| panic!("{name}: {}", verdict.tag_name().name()))] += 1.0;
                        assert!(elements(verdict).is_empty() && verdict.has_attribute("message"), "{name}: {text}");
                    }
                }
                assert_eq!(counts.map(|key| number(suite, key)), found, "{name}: {text}");
                assert!((number(suite, "time") - spent).abs() < 0.0005, "{name}: {text}");
                sums = std::array::from_fn(|at| sums[at] + found[at]);
            }
            assert_eq!(counts.map(|key| number(root, key)), sums, "{name}: {text}");
        }
        let text = render(&RunState::replay(&hostile()));
        let document = roxmltree::Document::parse(&text).unwrap();
        let told = document.descendants().find(|node| node.has_tag_name("failure")).unwrap();
        assert!(told.attribute("message").unwrap().starts_with("]]></failure></testcase><testcase name=\"x\"/>&amp;&#0;<!-- "), "{text}");
        assert!(told.text().unwrap().contains("second line"), "{text}");
    }

    #[test]
    fn what_others_wrote_is_text() {
        let cases =
            [("a < b && \"c\" > d", "a &lt; b &amp;&amp; &quot;c&quot; &gt; d"), ("\u{1b}[31mred\u{0}\u{ffff}", "red"), ("]]>", "]]&gt;")];
        for (line, wanted) in cases {
            assert_eq!(escape(line), wanted, "{line:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_is_escaped_ends_an_attribute_or_opens_a_tag(line in ".*") {
            let text = escape(&line);
            proptest::prop_assert!(!text.chars().any(|c| c.is_control() || matches!(c, '<' | '>' | '"')));
        }
    }
}
