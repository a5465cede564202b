//! `--trace FILE`: where the time went, in Chrome's trace format, for <https://ui.perfetto.dev> and `chrome://tracing`.
//!
//! A process for the images with a track per app and image, and one per rack with a track per app; BuildKit's steps have
//! tracks below their image's, since some run at a time. Times count from the run's start. Format:
//! <https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU>.

use super::state::{BuildStepState, RunState, StepState};
use super::text::{clean, clean_lines};
use crate::event::{Step, StepOutcome};
use serde_json::{Value, json};
use time::OffsetDateTime;

/// The trace of a run.
#[must_use]
pub fn render(state: &RunState) -> String {
    let mut trace = Trace { start: state.run.as_ref().map_or(OffsetDateTime::UNIX_EPOCH, |run| run.started), ..Trace::default() };
    let end = state.last.unwrap_or(trace.start);
    if let Some(run) = &state.run {
        let track = trace.track("run", &format!("offbuild {}", run.command));
        let args = json!({"run": run.run, "commit": run.commit, "exit_code": state.finished.map(|finish| finish.code)});
        let whole = (trace.start, state.wall_millis());
        trace.span(track, &format!("offbuild {}", run.command), "run", whole, args);
    }
    for (step, known) in state.steps_in_order() {
        let process = step.rack.as_ref().map_or_else(|| "images".to_owned(), |rack| format!("rack {rack}"));
        let name = match &step.service {
            Some(service) => format!("{}/{service}", step.app),
            None => step.app.to_string(),
        };
        let track = trace.track(&process, &name);
        let over = (known.started, spent(known, end));
        trace.span(track, step.stage.name(), "stage", over, details(step, known));
        trace.build_steps(&process, &name, known, end);
    }
    // An event per line: the file can be read, compared and searched as it is.
    let lines: Vec<String> = trace.events.iter().map(Value::to_string).collect();
    format!("{{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n{}\n]}}\n", lines.join(",\n"))
}

/// How long a step took; one that has not ended, up to the last event.
pub(super) fn spent(step: &StepState, end: OffsetDateTime) -> u64 {
    if step.outcome.is_some() { step.millis } else { u64::try_from((end - step.started).whole_milliseconds()).unwrap_or_default() }
}

/// What is known of a step besides its times.
pub(super) fn details(step: &Step, known: &StepState) -> Value {
    let outcome = match &known.outcome {
        Some(StepOutcome::Done) => "done",
        Some(StepOutcome::Failed { .. }) => "failed",
        Some(StepOutcome::RolledBack { .. }) => "rolled-back",
        Some(StepOutcome::Cancelled) => "cancelled",
        None => "unfinished",
    };
    let mut args = json!({"subject": step.subject(), "detail": clean(&known.detail), "outcome": outcome});
    if let Some((bytes, _)) = known.transfer {
        args["bytes"] = json!(bytes);
    }
    if let Some(StepOutcome::Failed { class, message, .. }) = &known.outcome {
        args["class"] = json!(class.name());
        args["message"] = json!(clean_lines(message));
    }
    args
}

/// BuildKit's steps of a build, each with its beginning and its milliseconds; `end` is the last event's time.
pub(super) fn build_steps(build: &StepState, end: OffsetDateTime) -> impl Iterator<Item = (&BuildStepState, OffsetDateTime, u64)> {
    let end = build.ended.unwrap_or(end);
    build.build_steps.iter().map(move |step| {
        let running = || u64::try_from((end - step.seen).whole_milliseconds()).unwrap_or_default();
        let millis = step.millis.unwrap_or_else(|| if step.done { 0 } else { running() });
        // A step may be told of only when it is over; it cannot have gone on when its build was.
        let from = step.seen.min(end.saturating_sub(length(millis))).max(build.started);
        (step, from, millis)
    })
}

/// Milliseconds as a length of time.
pub(super) fn length(millis: u64) -> time::Duration {
    time::Duration::milliseconds(i64::try_from(millis).unwrap_or(i64::MAX))
}

/// A row of the picture: process and thread, as the format calls them.
type Track = (usize, usize);

struct Trace {
    start: OffsetDateTime,
    /// Processes with their tracks, in the order they were first seen.
    processes: Vec<(String, Vec<String>)>,
    events: Vec<Value>,
}

impl Default for Trace {
    fn default() -> Self {
        Self { start: OffsetDateTime::UNIX_EPOCH, processes: Vec::new(), events: Vec::new() }
    }
}

impl Trace {
    /// The track of that name, announced when it is new.
    fn track(&mut self, process: &str, name: &str) -> Track {
        // Numbers from 1: Perfetto takes process 0 for the idle one.
        let place = self.processes.iter().position(|(known, _)| known == process).unwrap_or_else(|| {
            self.processes.push((process.to_owned(), Vec::new()));
            let pid = self.processes.len();
            self.events.push(json!({"ph": "M", "name": "process_name", "pid": pid, "args": {"name": process}}));
            self.events.push(json!({"ph": "M", "name": "process_sort_index", "pid": pid, "args": {"sort_index": pid}}));
            pid - 1
        });
        let (pid, tracks) = (place + 1, &mut self.processes[place].1);
        let place = tracks.iter().position(|known| known == name).unwrap_or_else(|| {
            tracks.push(name.to_owned());
            let tid = tracks.len();
            self.events.push(json!({"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": name}}));
            self.events.push(json!({"ph": "M", "name": "thread_sort_index", "pid": pid, "tid": tid, "args": {"sort_index": tid}}));
            tid - 1
        });
        (pid, place + 1)
    }

    fn span(&mut self, (pid, tid): Track, name: &str, category: &str, (from, millis): (OffsetDateTime, u64), args: Value) {
        // Of a clock that was set back in the meantime, the start is as good as anything.
        let ts = i64::try_from((from - self.start).whole_microseconds()).unwrap_or_default().max(0);
        self.events.push(json!({
            "ph": "X", "name": clean(name), "cat": category, "pid": pid, "tid": tid, "ts": ts, "dur": millis.saturating_mul(1000), "args": args,
        }));
    }

    /// BuildKit's steps, each on the first track below its image's that is free at the time.
    fn build_steps(&mut self, process: &str, image: &str, build: &StepState, end: OffsetDateTime) {
        let mut free: Vec<OffsetDateTime> = Vec::new();
        for (step, from, millis) in build_steps(build, end) {
            let lane = free.iter().position(|until| *until <= from).unwrap_or_else(|| {
                free.push(from);
                free.len() - 1
            });
            free[lane] = from.saturating_add(length(millis));
            let track = self.track(process, &format!("{image} steps {}", lane + 1));
            self.span(track, &step.name, "build-step", (from, millis), json!({"cached": step.cached, "error": step.error}));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Stage;
    use crate::report::samples;

    #[test]
    fn the_trace_of_a_failing_hook() {
        insta::assert_snapshot!(render(&RunState::replay(&samples::hook_failing())), @r#"
        {"displayTimeUnit":"ms","traceEvents":[
        {"ph":"M","name":"process_name","pid":1,"args":{"name":"run"}},
        {"ph":"M","name":"process_sort_index","pid":1,"args":{"sort_index":1}},
        {"ph":"M","name":"thread_name","pid":1,"tid":1,"args":{"name":"offbuild deploy"}},
        {"ph":"M","name":"thread_sort_index","pid":1,"tid":1,"args":{"sort_index":1}},
        {"ph":"X","name":"offbuild deploy","cat":"run","pid":1,"tid":1,"ts":0,"dur":62200000,"args":{"run":"20260102-030405-abcd","commit":"ffffffffffffffffffffffffffffffffffffffff","exit_code":1}},
        {"ph":"M","name":"process_name","pid":2,"args":{"name":"images"}},
        {"ph":"M","name":"process_sort_index","pid":2,"args":{"sort_index":2}},
        {"ph":"M","name":"thread_name","pid":2,"tid":1,"args":{"name":"api/web"}},
        {"ph":"M","name":"thread_sort_index","pid":2,"tid":1,"args":{"sort_index":1}},
        {"ph":"X","name":"retag","cat":"stage","pid":2,"tid":1,"ts":0,"dur":400000,"args":{"subject":"api/web","detail":"same fingerprint in the registry","outcome":"done"}},
        {"ph":"M","name":"thread_name","pid":2,"tid":2,"args":{"name":"web/web"}},
        {"ph":"M","name":"thread_sort_index","pid":2,"tid":2,"args":{"sort_index":2}},
        {"ph":"X","name":"build","cat":"stage","pid":2,"tid":2,"ts":400000,"dur":9300000,"args":{"subject":"web/web","detail":"apps/web/Dockerfile","outcome":"done"}},
        {"ph":"M","name":"thread_name","pid":2,"tid":3,"args":{"name":"web/web steps 1"}},
        {"ph":"M","name":"thread_sort_index","pid":2,"tid":3,"args":{"sort_index":3}},
        {"ph":"X","name":"[internal] load build definition from Dockerfile","cat":"build-step","pid":2,"tid":3,"ts":400000,"dur":3000,"args":{"cached":false,"error":null}},
        {"ph":"M","name":"thread_name","pid":2,"tid":4,"args":{"name":"web/web steps 2"}},
        {"ph":"M","name":"thread_sort_index","pid":2,"tid":4,"args":{"sort_index":4}},
        {"ph":"X","name":"[1/3] FROM ruby:3.4","cat":"build-step","pid":2,"tid":4,"ts":400000,"dur":0,"args":{"cached":true,"error":null}},
        {"ph":"X","name":"[2/3] RUN bundle install","cat":"build-step","pid":2,"tid":4,"ts":400000,"dur":9000000,"args":{"cached":false,"error":null}},
        {"ph":"X","name":"[3/3] COPY . .","cat":"build-step","pid":2,"tid":3,"ts":9400000,"dur":120000,"args":{"cached":false,"error":null}},
        {"ph":"X","name":"push","cat":"stage","pid":2,"tid":2,"ts":9700000,"dur":2500000,"args":{"subject":"web/web","detail":"registry.example","outcome":"done"}},
        {"ph":"M","name":"process_name","pid":3,"args":{"name":"rack staging"}},
        {"ph":"M","name":"process_sort_index","pid":3,"args":{"sort_index":3}},
        {"ph":"M","name":"thread_name","pid":3,"tid":1,"args":{"name":"api"}},
        {"ph":"M","name":"thread_sort_index","pid":3,"tid":1,"args":{"sort_index":1}},
        {"ph":"X","name":"stage","cat":"stage","pid":3,"tid":1,"ts":12200000,"dur":8000000,"args":{"subject":"api@staging","detail":"convox.yml","outcome":"done"}},
        {"ph":"X","name":"promote","cat":"stage","pid":3,"tid":1,"ts":20200000,"dur":32000000,"args":{"subject":"api@staging","detail":"RAPI2","outcome":"done"}},
        {"ph":"M","name":"thread_name","pid":3,"tid":2,"args":{"name":"web"}},
        {"ph":"M","name":"thread_sort_index","pid":3,"tid":2,"args":{"sort_index":2}},
        {"ph":"X","name":"stage","cat":"stage","pid":3,"tid":2,"ts":52200000,"dur":8000000,"args":{"subject":"web@staging","detail":"convox.yml","outcome":"done"}},
        {"ph":"X","name":"before_release","cat":"stage","pid":3,"tid":2,"ts":60200000,"dur":2000000,"args":{"subject":"web@staging","detail":"deploy/before_release.sh","outcome":"failed","class":"hook","message":"`deploy/before_release.sh` ended with 3: column `email` is missing"}}
        ]}
        "#);
    }

    /// A run whose names are of others, and whose clock was set back in the middle.
    fn hostile() -> Vec<crate::event::Event> {
        let nasty = "\"},{\"ph\":\"B\"\u{0}\u{1b}]0;x\u{7}\u{2028}</script>\\";
        let mut stream = samples::Stream::start();
        stream.begin("api/web", Stage::Build, nasty).build_step("api/web", nasty, false, Some(5), Some(nasty)).pass(-60_000);
        let failed = StepOutcome::Failed { class: crate::event::FailureClass::Build, message: nasty.to_owned(), hint: None };
        stream.end("api/web", Stage::Build, 10, failed).begin("web@staging", Stage::Stage, nasty).pass(5);
        stream.events()
    }

    #[test]
    fn every_trace_is_json_with_named_tracks_and_no_two_spans_of_one_overlap() {
        for (name, events) in samples::all().into_iter().chain([("hostile", hostile())]) {
            let trace: Value = serde_json::from_str(&render(&RunState::replay(&events))).unwrap();
            let mut spans: Vec<(u64, u64, i64, i64)> = Vec::new();
            let mut named = Vec::new();
            for event in trace["traceEvents"].as_array().unwrap() {
                let number = |key: &str| event[key].as_i64().unwrap_or_else(|| panic!("{name}: no `{key}`: {event}"));
                match event["ph"].as_str().unwrap() {
                    "M" => {
                        let what = event["name"].as_str().unwrap();
                        assert!(what.ends_with("sort_index") || !event["args"]["name"].as_str().unwrap().is_empty(), "{name}: {event}");
                        named.push((what.to_owned(), number("pid"), event["tid"].as_i64()));
                        continue;
                    }
                    kind => assert_eq!(kind, "X", "{name}: {event}"),
                }
                // Announced before it is used, process and track.
                for (what, tid) in [("process_name", None), ("thread_name", Some(number("tid")))] {
                    assert!(named.contains(&(what.to_owned(), number("pid"), tid)), "{name}: {what} of {event}");
                }
                assert!(!event["name"].as_str().unwrap().is_empty(), "{name}: {event}");
                assert!(number("ts") >= 0 && number("dur") >= 0, "{name}: {event}");
                spans.push((event["pid"].as_u64().unwrap(), event["tid"].as_u64().unwrap(), number("ts"), number("ts") + number("dur")));
            }
            spans.sort_unstable();
            assert!(!spans.is_empty(), "{name}");
            for pair in spans.windows(2) {
                let ((p, t, _, until), (other_p, other_t, from, _)) = (pair[0], pair[1]);
                assert!((p, t) != (other_p, other_t) || until <= from, "{name}: {pair:?}");
            }
        }
    }
}
