//! One page per run that needs nothing else: no network, no script to read it.
//!
//! What failed comes first, then the timeline with the critical path, the verdicts with their reasons, the images with their
//! cache hits, and every log, folded. All text of others is escaped, and the page's own policy runs no script but the one it
//! was made with, so that a log line can be neither. What the search may hide is marked `data-row`; `#find=words` in the
//! address searches at once.

mod logs;
mod tables;
mod timeline;

use super::failures::{failures, go_on};
use super::state::RunState;
use super::text::{clean_lines, count, took};
use crate::event::Event;
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
    let mut main = String::new();
    failed(&state, &mut main);
    timeline::draw(&state, &mut main);
    tables::targets(&state, &mut main);
    tables::images(&state, &mut main);
    notices(&state, &mut main);
    logs::draw(events, &state, &mut main);
    parts(&main, &mut page);
    let _ = write!(page, "<main id=\"main\">\n{main}</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n");
    page
}

/// The parts of the page, in order: the name in its address, and the heading.
const PARTS: [(&str, &str); 6] = [
    ("failures", "Failures"),
    ("timeline", "Timeline"),
    ("targets", "Targets"),
    ("images", "Images"),
    ("notices", "Worth knowing"),
    ("logs", "Logs"),
];

/// Begins a part: a landmark with its heading as its name.
fn begin(page: &mut String, part: &str) {
    let title = PARTS.iter().find(|(id, _)| *id == part).map_or(part, |(_, title)| title);
    let _ = write!(page, "<section id=\"{part}\" aria-labelledby=\"{part}-title\">\n<h2 id=\"{part}-title\">{title}</h2>\n");
}

/// The way to the parts that are there, and the search, which only the script shows.
fn parts(main: &str, page: &mut String) {
    page.push_str("<nav aria-label=\"Parts of this page\">\n<ul>");
    for (part, title) in PARTS.iter().filter(|(part, _)| main.contains(&format!("<section id=\"{part}\""))) {
        let _ = write!(page, "<li><a href=\"#{part}\">{title}</a></li>");
    }
    page.push_str(
        "</ul>\n<div id=\"find\" role=\"search\" hidden><label for=\"query\">Find</label>\
         <input id=\"query\" type=\"search\" autocomplete=\"off\" placeholder=\"app, rack, outcome, log line\" aria-keyshortcuts=\"/\">\
         <output id=\"found\" for=\"query\"></output></div>\n</nav>\n",
    );
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
    escape(&clean_lines(text))
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
         <title>{}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<a class=\"skip\" href=\"#main\">Skip to the report</a>\n",
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
    let failures = failures(state);
    if failures.is_empty() {
        return;
    }
    begin(page, "failures");
    for failure in failures {
        let _ = write!(page, "<article class=\"failure\" data-row>\n<h3>{} <span class=\"bad\">", safe(&failure.subject()));
        let _ = write!(page, "{}</span></h3>\n<pre tabindex=\"0\">{}</pre>\n", escape(&failure.what()), safe(&failure.message));
        list(page, &failure.evidence);
        for section in &failure.sections {
            let text = safe(&section.lines.join("\n"));
            let _ = writeln!(page, "<details open><summary>{}</summary><pre tabindex=\"0\">{text}</pre></details>", safe(&section.title));
        }
        let _ = write!(page, "<p>next: {}</p>\n</article>\n", safe(&failure.hint));
    }
    page.push_str("</section>\n");
}

fn list(page: &mut String, lines: &[String]) {
    if !lines.is_empty() {
        page.push_str("<ul>");
        lines.iter().for_each(|line| page.push_str(&format!("<li>{}</li>", safe(line))));
        page.push_str("</ul>\n");
    }
}

fn notices(state: &RunState, page: &mut String) {
    if state.notices.is_empty() {
        return;
    }
    let line = |notice: &super::state::NoticeState| {
        let of = notice.step.as_ref().map_or_else(String::new, |step| format!("{}: ", step.subject()));
        format!("{of}{}", notice.message)
    };
    begin(page, "notices");
    list(page, &state.notices.iter().map(line).collect::<Vec<_>>());
    page.push_str("</section>\n");
}

#[cfg(test)]
mod tests;
