//! One page per run that needs nothing else: no network, no script to read it.
//!
//! What failed comes first, then the timeline, the verdicts with their reasons, the images with their cache hits, and every
//! log, folded. All text of others is escaped, and the page's own policy runs no script but the one it was made with, so
//! that a log line can be neither.

mod logs;
mod timeline;

use super::failures::{failures, go_on};
use super::state::{RunState, TargetState};
use super::summary::{live_words, outcome_word, why};
use super::text::{clean, count, took};
use crate::event::{Event, StepOutcome, TargetOutcome};
use base64::Engine as _;
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Draws the page of a run from its events.
#[must_use]
pub fn render(events: &[Event]) -> String {
    let state = RunState::replay(events);
    let mut page = String::new();
    head(&state, &mut page);
    failed(&state, &mut page);
    timeline::draw(&state, &mut page);
    targets(&state, &mut page);
    images(&state, &mut page);
    notices(&state, &mut page);
    logs::draw(events, &state, &mut page);
    let _ = write!(page, "<script>{SCRIPT}</script>\n</body>\n</html>\n");
    page
}

/// Text of others: safe as content and inside a quoted attribute.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// Escaped, with control characters gone and lines kept.
fn safe(text: &str) -> String {
    escape(&text.lines().map(clean).collect::<Vec<_>>().join("\n"))
}

fn head(state: &RunState, page: &mut String) {
    let hash = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(SCRIPT));
    let policy = format!("default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'");
    let run = state.run.as_ref();
    let title = run.map_or_else(|| "offbuild".to_owned(), |run| format!("offbuild {} {}", run.command, run.run));
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"referrer\" content=\"no-referrer\">\n\
         <title>{}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n",
        escape(&title)
    );
    let (mood, result) = match state.finished.map(|finish| finish.code) {
        Some(0) => ("good", "ok".to_owned()),
        Some(code @ (130 | 143)) => ("left", format!("interrupted (exit {code})")),
        Some(code) => ("bad", format!("failed (exit {code})")),
        None => ("left", "not finished".to_owned()),
    };
    let _ = write!(page, "<header>\n<h1>{} <span class=\"{mood}\">{result}</span></h1>\n", escape(&title));
    if let Some(run) = run {
        let _ = write!(page, "<p>{} <code>{}</code></p>\n<div class=\"facts\">", safe(&run.subject), run.commit.short());
        let started = run.started.format(&time::macros::format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC"));
        let branch = run.branch.as_ref().map_or_else(String::new, |branch| format!("<span>on {}</span>", safe(branch)));
        let _ = write!(page, "<span>{}</span><span>{}</span>", started.unwrap_or_default(), took(state.wall_millis()));
        let _ = write!(page, "{branch}<span>by {}</span>", safe(&run.by));
        // Anything else than a web address would be a script or a file of the reader's machine.
        match &run.ci_url {
            Some(url) if url.starts_with("https://") || url.starts_with("http://") => {
                let _ = write!(page, "<a href=\"{}\" rel=\"noreferrer\">CI run</a>", escape(url));
            }
            _ => {}
        }
        page.push_str("</div>\n");
    }
    let images = state.image_counts();
    let (steps, cached) = (count(images.steps, "build step"), images.cached);
    let built = count(images.built, "image");
    let _ = writeln!(page, "<p>{built} built, {} pushed, {} reused; {cached} of {steps} cached</p>", images.pushed, images.reused);
    for (when, command) in go_on(state) {
        let _ = writeln!(page, "<p>{}: <code>{}</code></p>", escape(&when), escape(&command));
    }
    page.push_str("</header>\n");
}

fn failed(state: &RunState, page: &mut String) {
    for failure in failures(state) {
        let _ = write!(page, "<section class=\"failure\">\n<h2>{} <span class=\"bad\">", safe(&failure.subject()));
        let _ = write!(page, "{}</span></h2>\n<pre>{}</pre>\n", escape(&failure.what()), safe(&failure.message));
        list(page, &failure.evidence);
        for section in &failure.sections {
            let text = safe(&section.lines.join("\n"));
            let _ = writeln!(page, "<details open><summary>{}</summary><pre>{text}</pre></details>", safe(&section.title));
        }
        let _ = write!(page, "<p>next: {}</p>\n</section>\n", safe(&failure.hint));
    }
}

fn list(page: &mut String, lines: &[String]) {
    if !lines.is_empty() {
        page.push_str("<ul>");
        lines.iter().for_each(|line| page.push_str(&format!("<li>{}</li>", safe(line))));
        page.push_str("</ul>\n");
    }
}

fn mood(target: &TargetState) -> &'static str {
    match &target.outcome {
        Some(TargetOutcome::Deployed { .. } | TargetOutcome::Staged { .. }) => "good",
        Some(TargetOutcome::UpToDate) => "idle",
        Some(TargetOutcome::Failed { .. } | TargetOutcome::RolledBack { .. }) => "bad",
        _ => "left",
    }
}

fn targets(state: &RunState, page: &mut String) {
    if state.targets.is_empty() {
        return;
    }
    page.push_str("<section>\n<h2>Targets</h2>\n<div class=\"wide\"><table><thead><tr><th>target</th><th>outcome</th><th>live now</th>");
    page.push_str("<th>took</th><th>why</th></tr></thead><tbody>\n");
    for (target, known) in state.targets_in_order() {
        let [release, note] = live_words(known);
        let word = outcome_word(known, state.finished.is_some());
        let spent = if known.millis == 0 { String::new() } else { took(known.millis) };
        let _ = write!(page, "<tr><td>{target}</td><td class=\"word {}\">{}</td>", mood(known), escape(&word));
        let _ = write!(page, "<td><code>{release}</code> <span class=\"dim\">{}</span></td><td>{spent}</td>", escape(&note));
        let _ = write!(page, "<td><details><summary>{}</summary>", safe(why(known).lines().next().unwrap_or_default()));
        let base = known.base.as_ref().map_or_else(String::new, |base| format!(", compared with {}", base.short()));
        let source = if known.base_source.is_empty() { String::new() } else { format!(" ({})", safe(&known.base_source)) };
        let _ = write!(page, "<p class=\"dim\">verdict: {}{base}{source}</p>", safe(&known.verdict));
        list(page, &known.reasons);
        page.push_str("</details></td></tr>\n");
    }
    page.push_str("</tbody></table></div>\n</section>\n");
}

fn images(state: &RunState, page: &mut String) {
    if state.images.is_empty() {
        return;
    }
    page.push_str("<section>\n<h2>Images</h2>\n<div class=\"wide\"><table><thead><tr><th>image</th><th>what</th><th>cache hits</th>");
    page.push_str("<th>reference</th></tr></thead><tbody>\n");
    for ((app, service), image) in state.images_in_order() {
        let build = state.build_of(app, service);
        let what = match build.map(|build| (&build.outcome, took(build.millis))) {
            Some((Some(StepOutcome::Done), spent)) => format!("built in {spent}"),
            Some((Some(StepOutcome::Failed { .. }), spent)) => format!("failed after {spent}"),
            Some((_, _)) => "cancelled".to_owned(),
            None if image.action == "build" && image.digest.is_none() => "not built".to_owned(),
            None => image.action.clone(),
        };
        let digest = image.digest.as_ref().map_or_else(|| "not pushed".to_owned(), ToString::to_string);
        let _ = write!(page, "<tr><td>{app}/{service}</td><td>{}</td><td>", safe(&what));
        if let Some(build) = build {
            let (steps, cached) = build.cache_hits();
            let share = (cached * 100).checked_div(steps).unwrap_or(0);
            let _ = write!(
                page,
                "<details><summary><span class=\"hits\"><i style=\"width:{share}%\"></i></span>{cached} of {steps}</summary><ul>"
            );
            for step in &build.build_steps {
                let end = match (&step.error, step.cached, step.done) {
                    (Some(error), _, _) => format!("<span class=\"bad\">{}</span>", safe(error)),
                    (None, true, _) => "<span class=\"good\">cached</span>".to_owned(),
                    (None, false, true) => took(step.millis.unwrap_or_default()),
                    (None, false, false) => "not finished".to_owned(),
                };
                let _ = write!(page, "<li><code>{}</code> {end}</li>", safe(&step.name));
            }
            page.push_str("</ul></details>");
        }
        let _ = writeln!(page, "</td><td><code>{}</code><br><code class=\"dim\">{digest}</code></td></tr>", safe(&image.reference));
    }
    page.push_str("</tbody></table></div>\n</section>\n");
}

fn notices(state: &RunState, page: &mut String) {
    if state.notices.is_empty() {
        return;
    }
    let line = |notice: &super::state::NoticeState| {
        let of = notice.step.as_ref().map_or_else(String::new, |step| format!("{}: ", step.subject()));
        format!("{of}{}", notice.message)
    };
    page.push_str("<section>\n<h2>Worth knowing</h2>\n");
    list(page, &state.notices.iter().map(line).collect::<Vec<_>>());
    page.push_str("</section>\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{EventKind, Stage};
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
                            (evidence.because, evidence.next, evidence.system[0], evidence.logs[0].source) =
                                (text(), text(), text(), text());
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
            for tag in ["section", "details", "summary", "table", "tr", "td", "ul", "li", "pre", "p", "div", "span", "code", "i", "h2"] {
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
        let open: Vec<&str> = page.split("<details open>").skip(1).map(|rest| rest.split("</details>").next().unwrap()).collect();
        assert_eq!(open.len(), 1);
        assert!(open[0].contains(Stage::BeforeRelease.name()) && open[0].contains("migrating"));
    }
}
