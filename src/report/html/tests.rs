//! The page as text, and as a browser shows it.

mod browser;

use super::*;
use crate::event::{EventKind, Stage, TargetOutcome};
use crate::report::samples;

#[test]
fn every_text_of_others_is_escaped_and_nothing_is_fetched() {
    let evil = "</pre></script><script>alert('x')</script><img src=x onerror=\"y\">&";
    let text = || evil.to_owned();
    for (name, events) in samples::all() {
        let events: Vec<Event> = events
            .into_iter()
            .map(|mut event| {
                match &mut event.kind {
                    EventKind::RunStarted { subject, branch, ci_url, by, .. } => {
                        (*subject, *by) = (text(), text());
                        (*branch, *ci_url) = (Some(text()), Some(format!("javascript:{evil}")));
                    }
                    EventKind::TargetPlanned { verdict, reasons, base_source, .. } => {
                        (*verdict, *reasons, *base_source) = (text(), vec![text()], text());
                    }
                    EventKind::ImagePlanned { action, reference, .. } => (*action, *reference) = (text(), text()),
                    EventKind::StepStarted { detail: it, .. }
                    | EventKind::Log { line: it, .. }
                    | EventKind::Notice { message: it, .. }
                    | EventKind::RackStatus { status: it, .. } => *it = text(),
                    EventKind::PromoteEvidence { evidence, .. } => {
                        (evidence.because, evidence.next, evidence.system[0], evidence.logs[0].source) = (text(), text(), text(), text());
                        (evidence.processes[0].status, evidence.manifest[0], evidence.env.added[0]) = (text(), text(), text());
                    }
                    EventKind::BuildStep { name, error, .. } => (*name, *error) = (text(), error.as_ref().map(|_| text())),
                    EventKind::TargetFinished {
                        outcome:
                            TargetOutcome::Failed { message: it, .. }
                            | TargetOutcome::RolledBack { message: it, .. }
                            | TargetOutcome::Blocked { by: it }
                            | TargetOutcome::NotAttempted { why: it },
                        ..
                    } => *it = text(),
                    _ => {}
                }
                event
            })
            .collect();
        let page = render(&events);
        assert_eq!(page.matches("<script>").count(), 1, "{name}");
        assert!(!page.contains("<img") && !page.contains("javascript:") && !page.contains("onerror=\""), "{name}");
        for outside in ["src=", "url(", "@import", "<link", "http-equiv=\"refresh"] {
            assert!(!page.replace(&escape(evil), "").contains(outside), "{name}: {outside}");
        }
    }
}

#[test]
fn every_tag_that_opens_closes() {
    for (name, events) in samples::all() {
        let page = render(&events);
        for tag in [
            "section", "details", "summary", "table", "tr", "td", "th", "ul", "ol", "li", "pre", "p", "div", "span", "code", "i", "h2",
            "h3", "article", "nav", "main",
        ] {
            let opened = page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{name}: <{tag}>");
        }
    }
}

#[test]
fn the_page_says_what_a_reader_looks_for() {
    let page = render(&samples::hook_failing());
    for text in [
        "failed (exit 1)",
        "web@staging <span class=\"bad\">failed in before_release</span>",
        "when it is fixed and committed: <code>offbuild deploy</code>",
        "built in 9.3s",
        "1 of 3</summary>",
        "<code>RWEB1</code>",
        "RWEB2 is staged, not live",
        "href=\"https://ci.example/runs/7\"",
        "Fix the login &lt;form&gt; &amp; more",
    ] {
        assert!(page.contains(text), "{text}");
    }
    let open: Vec<&str> = page.split("<details data-row open>").skip(1).map(|rest| rest.split("</details>").next().unwrap()).collect();
    assert_eq!(open.len(), 1);
    assert!(open[0].contains(Stage::BeforeRelease.name()) && open[0].contains("migrating"));
}
