//! How much of a step's output the journal holds: its start and its end. A journal is for finding out what went wrong, and a program that
//! prints without end must not fill the disk.

use super::text::count;
use crate::event::{Event, EventKind, Step};
use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};

/// Bytes of a step's output that are kept as they come.
const HEAD: usize = 16 << 20;
/// Bytes of its end that are kept when there was more.
const TAIL: usize = 1 << 20;

/// What a line's event takes beside the line, about.
const AROUND: usize = 160;

/// What was seen of the output of the steps that run.
#[derive(Debug, Default)]
pub(super) struct Limit {
    steps: BTreeMap<Step, Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    head: usize,
    tail: VecDeque<Event>,
    tail_bytes: usize,
    left_out: usize,
}

impl Limit {
    /// Of a batch, the events that are to be kept now. The end of a step's output comes right before the end of the step, behind a
    /// notice that says how much is missing.
    pub(super) fn keep<'b>(&mut self, batch: &'b [Event]) -> Cow<'b, [Event]> {
        let mut kept: Option<Vec<Event>> = None;
        for (index, event) in batch.iter().enumerate() {
            match &event.kind {
                EventKind::Log { step, line, .. } if !self.fits(step, line) => {
                    kept.get_or_insert_with(|| batch[..index].to_vec());
                    if let Some(seen) = self.steps.get_mut(step) {
                        seen.push(event.clone(), line.len());
                    }
                    continue;
                }
                EventKind::StepFinished { step, .. } => {
                    if let Some(seen) = self.steps.remove(step).filter(|seen| !seen.tail.is_empty()) {
                        kept.get_or_insert_with(|| batch[..index].to_vec()).extend(seen.end());
                    }
                }
                _ => {}
            }
            if let Some(kept) = &mut kept {
                kept.push(event.clone());
            }
        }
        kept.map_or(Cow::Borrowed(batch), Cow::Owned)
    }

    /// True while a step's output has room at the start; counts it.
    fn fits(&mut self, step: &Step, line: &str) -> bool {
        if !self.steps.contains_key(step) {
            self.steps.insert(step.clone(), Seen::default());
        }
        self.steps.get_mut(step).is_some_and(|seen| {
            seen.head = seen.head.saturating_add(line.len() + AROUND);
            seen.head <= HEAD
        })
    }
}

impl Seen {
    fn push(&mut self, event: Event, size: usize) {
        self.tail_bytes += size + AROUND;
        self.tail.push_back(event);
        while self.tail_bytes > TAIL && self.tail.len() > 1 {
            let gone = self.tail.pop_front();
            self.left_out += 1;
            if let Some(Event { kind: EventKind::Log { line, .. }, .. }) = gone {
                self.tail_bytes -= line.len() + AROUND;
            }
        }
    }

    fn end(self) -> impl Iterator<Item = Event> {
        let notice = self.tail.front().filter(|_| self.left_out > 0).and_then(|first| {
            let EventKind::Log { step, .. } = &first.kind else { return None };
            let message = format!(
                "{} of {}'s output left out here: the journal holds the first {} MiB and the last {} MiB of a step",
                count(self.left_out, "line"),
                step.stage.name(),
                HEAD >> 20,
                TAIL >> 20
            );
            Some(Event { kind: EventKind::Notice { step: Some(step.clone()), message }, ..first.clone() })
        });
        notice.into_iter().chain(self.tail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Output, Stage, StepOutcome};
    use crate::names::AppName;

    fn step(app: &str) -> Step {
        Step { app: AppName::new(app).unwrap(), rack: None, service: None, stage: Stage::BeforeBuild }
    }

    fn event(seq: u64, kind: EventKind) -> Event {
        Event { seq, time: time::OffsetDateTime::UNIX_EPOCH, kind, mask: None }
    }

    fn log(seq: u64, app: &str, size: usize) -> Event {
        event(seq, EventKind::Log { step: step(app), output: Output::Out, line: format!("{seq:0size$}") })
    }

    fn end(seq: u64, app: &str) -> Event {
        event(seq, EventKind::StepFinished { step: step(app), millis: 0, outcome: StepOutcome::Done })
    }

    #[test]
    fn what_fits_is_kept_as_it_is() {
        let mut limit = Limit::default();
        let batch = [log(0, "web", 1000), log(1, "api", 1000), end(2, "web"), end(3, "api")];
        assert!(matches!(limit.keep(&batch), Cow::Borrowed(kept) if kept == batch));
        assert!(limit.steps.is_empty());
    }

    #[test]
    fn of_too_much_the_start_and_the_end_are_kept_and_a_notice_between_them() {
        let mut limit = Limit::default();
        let lines = 30 << 10;
        let mut kept = Vec::new();
        for batch in (0..lines).map(|seq| log(seq, "web", 1024 - AROUND)).collect::<Vec<_>>().chunks(777) {
            kept.extend(limit.keep(batch).into_owned());
        }
        assert_eq!(kept.len(), HEAD / 1024);
        // Another step's output goes on meanwhile.
        let rest = limit.keep(&[log(lines, "api", 10), end(lines + 1, "web"), end(lines + 2, "api")]).into_owned();
        assert_eq!(rest[0].seq, lines);
        let EventKind::Notice { message, .. } = &rest[1].kind else { panic!("{:?}", rest[1]) };
        assert_eq!(
            message,
            "13312 lines of before_build's output left out here: the journal holds the first 16 MiB and the last 1 MiB of a step"
        );
        assert_eq!(rest[2].seq, lines - (TAIL / 1024) as u64);
        assert_eq!(rest[rest.len() - 3].seq, lines - 1);
        assert_eq!((rest[rest.len() - 2].seq, rest[rest.len() - 1].seq), (lines + 1, lines + 2));
    }
}
