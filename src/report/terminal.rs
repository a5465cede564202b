//! The live view of a terminal: one row per running step with its time and last line; what is finished scrolls above.
//!
//! The lines above are the plain report's own ([`super::plain`]); they are written while the rows are taken away, so neither
//! can spoil the other. What the rows say is a pure function of the state; indicatif only draws them. Use it when the output
//! is a terminal that can move its cursor ([`suits`]), else the plain report.

use super::Sink;
use super::plain::{Options, Plain};
use super::state::{RunState, StepState};
use super::text::{Paint, clean, clip, count, took};
use crate::event::{Event, Stage, Step, TargetOutcome};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{self, IsTerminal as _, Write};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// More running steps than this are counted instead of shown.
const ROWS: usize = 16;

/// True when standard error is a terminal that can show live rows.
#[must_use]
pub fn suits(var: impl Fn(&str) -> Option<String>) -> bool {
    // indicatif draws nothing on a terminal without a name, and then nobody would see what runs.
    let moves = var("TERM").is_some_and(|term| !term.is_empty() && term != "dumb");
    io::stderr().is_terminal() && moves && var("CI").is_none_or(|ci| ci.is_empty())
}

/// The live view.
pub struct Terminal {
    plain: Plain<Vec<u8>>,
    above: Box<dyn Write + Send>,
    rows: MultiProgress,
    bars: Vec<ProgressBar>,
    style: ProgressStyle,
    paint: Paint,
    width: usize,
}

impl Terminal {
    /// The live view on standard error.
    #[must_use]
    pub fn stderr(options: Options) -> Self {
        Self::new(options, ProgressDrawTarget::stderr(), Box::new(io::stderr()))
    }

    fn new(options: Options, target: ProgressDrawTarget, above: Box<dyn Write + Send>) -> Self {
        let style = ProgressStyle::with_template("{wide_msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
        let plain = Plain::new(Vec::new(), Options { live: true, ..options });
        Self {
            plain,
            above,
            rows: MultiProgress::with_draw_target(target),
            bars: Vec::new(),
            style,
            paint: options.paint,
            width: options.width,
        }
    }

    /// Moves what the plain report wrote above the rows.
    fn scroll(&mut self) -> io::Result<()> {
        let text = std::mem::take(self.plain.out());
        if text.is_empty() {
            return Ok(());
        }
        let above = &mut self.above;
        self.rows.suspend(|| above.write_all(&text).and_then(|()| above.flush()))
    }

    fn draw(&mut self, rows: Vec<String>) {
        while self.bars.len() > rows.len() {
            if let Some(bar) = self.bars.pop() {
                bar.finish_and_clear();
                self.rows.remove(&bar);
            }
        }
        while self.bars.len() < rows.len() {
            let bar = self.rows.add(ProgressBar::new_spinner());
            bar.set_style(self.style.clone());
            self.bars.push(bar);
        }
        for (bar, row) in self.bars.iter().zip(rows) {
            bar.set_message(row);
        }
    }
}

impl Sink for Terminal {
    fn name(&self) -> &'static str {
        "the live view"
    }

    fn event(&mut self, event: &Event, state: &RunState) -> io::Result<()> {
        self.plain.event(event, state)?;
        self.scroll()
    }

    fn tick(&mut self, now: OffsetDateTime, state: &RunState) -> io::Result<()> {
        self.draw(rows(now, state, self.paint, self.width));
        Ok(())
    }

    fn finish(&mut self, state: &RunState) -> io::Result<()> {
        self.draw(Vec::new());
        self.rows.clear()?;
        self.plain.finish(state)?;
        self.scroll()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A view that ends early (it failed, or the program panics) leaves no rows behind.
        self.draw(Vec::new());
    }
}

/// What the rows say at `now` on a terminal of `width` columns: how far the run is, then each running step.
fn rows(now: OffsetDateTime, state: &RunState, paint: Paint, width: usize) -> Vec<String> {
    let running = state.running();
    if running.is_empty() {
        return Vec::new();
    }
    let mut rows = vec![paint.dim(&progress(now, state))];
    let wide = |of: fn(&Step) -> usize| running.iter().take(ROWS).map(|(step, _)| of(step)).max().unwrap_or(0);
    let (subjects, stages) = (wide(|step| step.subject().chars().count()), wide(|step| step.stage.name().len()));
    for (step, known) in running.iter().take(ROWS) {
        let (subject, stage) = (format!("{:subjects$}", step.subject()), format!("{:stages$}", step.stage.name()));
        let spent = format!("{:>7}", took(since(now, known.started)));
        rows.push(format!("{}  {stage}  {}  {}", paint.strong(&subject), paint.warn(&spent), doing(known, width)));
    }
    if running.len() > ROWS {
        rows.push(paint.dim(&format!("and {} more", running.len() - ROWS)));
    }
    rows
}

fn doing(step: &StepState, width: usize) -> String {
    let doing = clean(without_time(&step.doing()));
    // A build's row has BuildKit's step, and what that step said last behind it: the longest command leaves room for that.
    match &step.last_line {
        Some(line) if !step.build_steps.is_empty() && clean(line) != doing => {
            format!("{}: {}", clip(&doing, (width / 3).max(20)), clean(line))
        }
        _ => doing,
    }
}

/// A rack's line without the time it begins with: the row has a clock of its own, and little room.
fn without_time(line: &str) -> &str {
    let timed = |(time, rest)| OffsetDateTime::parse(time, &Rfc3339).is_ok().then_some(rest);
    line.split_once(' ').and_then(timed).unwrap_or(line)
}

fn progress(now: OffsetDateTime, state: &RunState) -> String {
    let mut parts = Vec::new();
    if let Some(plan) = &state.plan {
        let built = state.steps.iter().filter(|(step, known)| step.stage == Stage::Build && known.outcome.is_some()).count();
        // Identical builds run once and are told for each image, so there can be more of them than planned.
        if plan.builds > 0 {
            parts.push(format!("{} of {}", built.min(plan.builds), count(plan.builds, "build")));
        }
        let ended = |outcome: &TargetOutcome| *outcome != TargetOutcome::UpToDate;
        let done = state.targets.values().filter(|target| target.outcome.as_ref().is_some_and(ended)).count();
        if plan.targets > 0 {
            parts.push(format!("{done} of {}", count(plan.targets, "target")));
        }
    }
    if state.interrupted.is_some() {
        parts.push("stopping".to_owned());
    }
    let spent = state.run.as_ref().map_or(0, |run| since(now, run.started));
    parts.push(took(spent));
    parts.join(", ")
}

fn since(now: OffsetDateTime, start: OffsetDateTime) -> u64 {
    u64::try_from((now - start).whole_milliseconds()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{samples, summary};
    use std::sync::{Arc, Mutex};
    use time::Duration;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_scrolls_above_is_the_plain_report_byte_for_byte() {
        for (name, events) in samples::all() {
            let above = Shared::default();
            let mut terminal = Terminal::new(Options::default(), ProgressDrawTarget::hidden(), Box::new(above.clone()));
            let mut plain = Plain::new(Vec::new(), Options { live: true, ..Options::default() });
            let mut state = RunState::default();
            for event in &events {
                state.apply(event);
                terminal.event(event, &state).unwrap();
                terminal.tick(event.time, &state).unwrap();
                plain.event(event, &state).unwrap();
            }
            terminal.finish(&state).unwrap();
            plain.finish(&state).unwrap();
            let (above, plain) = (above.0.lock().unwrap().clone(), plain.out().clone());
            assert_eq!(String::from_utf8(above).unwrap(), String::from_utf8(plain).unwrap(), "{name}");
            assert!(terminal.bars.is_empty());
            assert!(!summary::render(&state, &summary::Options::default()).is_empty());
        }
    }

    #[test]
    fn a_row_per_running_step() {
        let mut stream = samples::Stream::start();
        stream.begin("web/web", Stage::Build, "Dockerfile").build_step("web/web", "[2/3] RUN make", false, None, None);
        stream.log("web/web", Stage::Build, "\u{1b}[2Kcompiling\r 10%\r 20%").pass(20_000);
        stream.begin("api", Stage::BeforeBuild, "deploy/before_build.sh");
        stream.begin("api@staging", Stage::Promote, "RAPI2");
        stream.log("api@staging", Stage::Promote, "2026-01-02T03:04:05Z system/cloudformation UPDATE_IN_PROGRESS: api");
        stream.begin("job/web", Stage::Build, "Dockerfile").build_step("job/web", "[7/7] RUN make every thing there is", false, None, None);
        stream.log("job/web", Stage::Build, "cc -o thing");
        let mut state = RunState::replay(&stream.events());
        let now = samples::START + Duration::seconds(83);
        insta::assert_snapshot!(rows(now, &state, Paint::default(), 80).join("\n"), @r#"
        1m 23s
        web/web      build          1m 23s  [2/3] RUN make:  20%
        api          before_build   1m 03s  deploy/before_build.sh
        api@staging  promote        1m 03s  system/cloudformation UPDATE_IN_PROGRESS: api
        job/web      build          1m 03s  [7/7] RUN make every thin…: cc -o thing
        "#);
        for number in 0..20 {
            let mut stream = samples::Stream::start();
            stream.begin(&format!("app{number}"), Stage::Push, "");
            stream.events().iter().skip(1).for_each(|event| state.apply(event));
        }
        assert_eq!(rows(now, &state, Paint::default(), 80).last().unwrap(), "and 8 more");
        assert!(rows(now, &RunState::replay(&samples::success()), Paint::default(), 80).is_empty());
    }
}
