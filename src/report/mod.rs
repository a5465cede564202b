//! What people and programs get to see of a run.
//!
//! One task, [`drive`], consumes the events: first the journal has them on disk and whoever waits for that goes on, then
//! the one [`RunState`] takes them in, then every [`Sink`] draws. Events are taken in batches, so a slow disk or terminal
//! makes the batches longer and the run no slower. A sink that fails is dropped with one notice; no sink can fail a run.
//! Sinks know words, state and events only.

mod critical;
pub mod evidence;
pub mod failures;
pub mod github;
pub mod history;

pub mod html;
pub mod json;
pub mod junit;
mod kept;
mod limit;
pub mod live;
pub mod notify;
#[cfg(feature = "otlp")]
pub mod otlp;
pub mod plain;
#[cfg(test)]
pub(crate) mod samples;
pub mod state;
pub mod summary;

pub mod terminal;
pub mod text;
pub mod trace;
mod trap;

use crate::event::{Acks, Event, EventKind, Received};
use crate::journal::Journal;
use limit::Limit;
use plain::{Ci, Verbosity};
use state::RunState;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Duration;
use text::Paint;
use time::OffsetDateTime;

/// One report, drawn as the events come.
pub trait Sink: Send {
    /// What it is, for the notice that it failed.
    fn name(&self) -> &'static str;

    /// An event happened; `state` has it already.
    fn event(&mut self, event: &Event, state: &RunState) -> io::Result<()>;

    /// Time went by. Called a few times a second, so that nobody needs a clock.
    fn tick(&mut self, _now: OffsetDateTime, _state: &RunState) -> io::Result<()> {
        Ok(())
    }

    /// No more events will come.
    fn finish(&mut self, _state: &RunState) -> io::Result<()> {
        Ok(())
    }
}

/// How often [`Sink::tick`] is called.
const TICK: Duration = Duration::from_millis(100);
/// Events taken at a time.
const BATCH: usize = 4096;

/// Consumes a run's events up to [`EventKind::RunFinished`], or until every [`crate::event::Events`] handle is gone, and
/// returns the state they folded to.
///
/// `journal` comes with the handle ([`crate::event::Events::acks`]) that tells [`crate::event::Events::record`] what is on
/// disk; take it before the first event is sent. A journal that cannot be written is given up with a notice: the racks
/// themselves still know how to go on.
pub async fn drive(mut events: Received, journal: Option<(Journal, Acks)>, sinks: Vec<Box<dyn Sink>>) -> RunState {
    let mut reports = Reports { journal, limit: Limit::default(), sinks, state: RunState::default() };
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let mut batch = Vec::new();
        let open = tokio::select! {
            // Nothing comes after the last event; not waiting for the handles means that a forgotten one hangs nothing.
            taken = events.recv_many(&mut batch, BATCH) => taken > 0 && !batch.iter().any(is_last),
            _ = ticks.tick() => true,
        };
        // Disk and terminal may block: not on the threads that carry the run.
        let work = move || {
            reports.take(&batch);
            if open {
                reports.tick()
            } else {
                reports.finish()
            }
            reports
        };
        reports = match tokio::task::spawn_blocking(work).await {
            Ok(reports) => reports,
            // Sinks are caught one by one, so this is the runtime going down: there is nobody left to report to.
            Err(_) => return RunState::default(),
        };
        if !open {
            return reports.state;
        }
    }
}

fn is_last(event: &Event) -> bool {
    matches!(event.kind, EventKind::RunFinished { .. })
}

/// How many columns an output has: what `COLUMNS` says, or else the terminal that it is.
#[must_use]
pub fn width(output: impl AsFd + IsTerminal, var: impl Fn(&str) -> Option<String>) -> usize {
    // Less is no width anybody reads a table at: some terminals of CIs say 0.
    let wide = |columns: &usize| *columns >= 40;
    let told = var("COLUMNS").and_then(|columns| columns.parse().ok()).filter(wide);
    let seen = || rustix::termios::tcgetwinsize(&output).ok().map(|size| usize::from(size.ws_col)).filter(wide);
    // A CI's log has no width of its own; 120 columns are shown by all of them.
    told.or_else(seen).unwrap_or(if output.is_terminal() { 80 } else { 120 })
}

/// The reports people see of a run, as the environment (`var`) asks: live rows on a terminal, plain lines elsewhere, and what
/// GitHub Actions reads when it runs the program.
#[must_use]
pub fn for_people(verbosity: Verbosity, var: impl Fn(&str) -> Option<String>) -> Vec<Box<dyn Sink>> {
    let ci = Ci::from_env(&var);
    let live = ci == Ci::Other && verbosity != Verbosity::Quiet && terminal::suits(&var);
    let paint = Paint::from_env(io::stderr().is_terminal(), &var);
    let width = width(io::stderr(), &var);
    let options = plain::Options { verbosity, paint, ci, live, width };
    let mut sinks: Vec<Box<dyn Sink>> = Vec::new();
    if live {
        sinks.push(Box::new(terminal::Terminal::stderr(options)));
    } else {
        sinks.push(Box::new(plain::Plain::new(io::stderr(), options)));
    }
    if ci == Ci::Github {
        let file = |name: &str| var(name).filter(|path| !path.is_empty()).map(PathBuf::from);
        sinks.push(Box::new(github::Github::new(io::stderr(), file("GITHUB_STEP_SUMMARY"), file("GITHUB_OUTPUT"))));
    }
    sinks
}

struct Reports {
    journal: Option<(Journal, Acks)>,
    limit: Limit,
    sinks: Vec<Box<dyn Sink>>,
    state: RunState,
}

impl Reports {
    fn take(&mut self, batch: &[Event]) {
        let Some(last) = batch.last() else { return };
        let mut failed = None;
        if let Some((journal, acks)) = &mut self.journal {
            match journal.append_all(&self.limit.keep(batch)) {
                Ok(()) => acks.through(last.seq),
                Err(error) => {
                    failed = Some(format!("the journal `{}` cannot be written, so it ends here: {error}", journal.path().display()));
                }
            }
        }
        if let Some(message) = failed {
            self.journal = None;
            self.notice(message, last);
        }
        for event in batch {
            self.state.apply(event);
            self.show(last, |sink, state| sink.event(event, state));
        }
    }

    fn tick(&mut self) {
        let now = OffsetDateTime::now_utc();
        let event = Event { seq: 0, time: now, kind: EventKind::Notice { step: None, message: String::new() }, mask: None };
        self.show(&event, |sink, state| sink.tick(now, state));
    }

    fn finish(&mut self) {
        // Dropped first: whoever waits for the disk waits no longer.
        self.journal = None;
        let now = OffsetDateTime::now_utc();
        let event = Event { seq: 0, time: now, kind: EventKind::Notice { step: None, message: String::new() }, mask: None };
        self.show(&event, |sink, state| sink.finish(state));
    }

    /// Lets every sink draw and drops those that fail or panic.
    fn show(&mut self, at: &Event, mut draw: impl FnMut(&mut dyn Sink, &RunState) -> io::Result<()>) {
        let mut problems = Vec::new();
        let state = &self.state;
        self.sinks.retain_mut(|sink| {
            let drawn = catch_unwind(AssertUnwindSafe(|| draw(sink.as_mut(), state)));
            let error = match drawn {
                Ok(Ok(())) => return true,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "it broke".to_owned(),
            };
            problems.push(format!("{} ends here: {error}", sink.name()));
            false
        });
        problems.into_iter().for_each(|problem| self.notice(problem, at));
    }

    /// Tells the sinks that are left, and the state, what went wrong with a report. It is about this process only, so it is no
    /// event of the run and is in no journal.
    fn notice(&mut self, message: String, at: &Event) {
        let event = Event { seq: at.seq, time: at.time, kind: EventKind::Notice { step: None, message }, mask: None };
        self.state.apply(&event);
        let state = &self.state;
        // A sink that fails here fails again at the next event, and is dropped then.
        self.sinks.iter_mut().for_each(|sink| {
            let _ = catch_unwind(AssertUnwindSafe(|| sink.event(&event, state)));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Events;
    use crate::names::RunId;
    use crate::secret::Redactor;
    use std::sync::{Arc, Mutex};

    struct Recorder(Arc<Mutex<Vec<String>>>);

    impl Sink for Recorder {
        fn name(&self) -> &'static str {
            "the recorder"
        }
        fn event(&mut self, event: &Event, _: &RunState) -> io::Result<()> {
            if let EventKind::Notice { message, .. } = &event.kind {
                self.0.lock().unwrap().push(message.clone());
            }
            Ok(())
        }
        fn finish(&mut self, _: &RunState) -> io::Result<()> {
            self.0.lock().unwrap().push("finished".to_owned());
            Ok(())
        }
    }

    struct Broken(bool);

    impl Sink for Broken {
        fn name(&self) -> &'static str {
            "the broken report"
        }
        fn event(&mut self, _: &Event, _: &RunState) -> io::Result<()> {
            assert!(!self.0, "this one breaks");
            Err(io::Error::other("no room"))
        }
    }

    fn notice(message: &str) -> EventKind {
        EventKind::Notice { step: None, message: message.to_owned() }
    }

    #[tokio::test]
    async fn what_is_recorded_is_in_the_journal_when_the_wait_ends() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::create(dir.path(), &RunId::new("r1").unwrap()).unwrap();
        let path = journal.path().to_owned();
        let (events, receiver) = Events::new(Redactor::default());
        let driving = tokio::spawn(drive(receiver, Some((journal, events.acks())), Vec::new()));
        for number in 0..20 {
            events.send(notice("sent"));
            events.record(notice(&number.to_string())).await;
            assert!(Journal::read(&path).unwrap().iter().any(|event| event.kind == notice(&number.to_string())));
        }
        drop(events);
        assert_eq!(driving.await.unwrap(), RunState::replay(&Journal::read(&path).unwrap()));
    }

    #[tokio::test]
    async fn the_last_event_ends_it_though_a_handle_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::create(dir.path(), &RunId::new("r1").unwrap()).unwrap();
        let (events, receiver) = Events::new(Redactor::default());
        let driving = tokio::spawn(drive(receiver, Some((journal, events.acks())), Vec::new()));
        events.record(EventKind::RunFinished { code: 0, millis: 1 }).await;
        assert!(driving.await.unwrap().finished.is_some());
        events.record(notice("too late, but nobody hangs")).await;
    }

    #[test]
    fn github_gets_its_own_report_and_no_live_rows() {
        let names = |vars: &[(&str, &str)]| -> Vec<&'static str> {
            let var = |name: &str| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            for_people(Verbosity::Normal, var).iter().map(|sink| sink.name()).collect()
        };
        assert_eq!(names(&[("GITHUB_ACTIONS", "true")]), ["the plain report", "the report to GitHub"]);
        assert_eq!(names(&[("TERM", "dumb")]), ["the plain report"]);
    }

    #[tokio::test]
    async fn a_sink_that_fails_is_dropped_with_one_notice_and_the_others_go_on() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let sinks: Vec<Box<dyn Sink>> = vec![Box::new(Broken(false)), Box::new(Recorder(heard.clone())), Box::new(Broken(true))];
        let (events, receiver) = Events::new(Redactor::default());
        let driving = tokio::spawn(drive(receiver, None, sinks));
        events.record(notice("one")).await;
        events.record(notice("two")).await;
        drop(events);
        driving.await.unwrap();
        assert_eq!(
            *heard.lock().unwrap(),
            ["one", "the broken report ends here: no room", "the broken report ends here: it broke", "two", "finished"]
        );
    }

    #[tokio::test]
    async fn a_journal_that_cannot_be_written_neither_stops_nor_hangs_the_run() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::unwritable(dir.path());
        let (events, receiver) = Events::new(Redactor::default());
        let driving = tokio::spawn(drive(receiver, Some((journal, events.acks())), Vec::new()));
        events.record(notice("one")).await;
        events.record(notice("two")).await;
        drop(events);
        let state = driving.await.unwrap();
        assert!(state.notices.iter().any(|notice| notice.message.contains("cannot be written")));
        assert_eq!(state.notices.len(), 3);
    }
}
