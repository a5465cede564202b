//! BuildKit's status stream, told through [`Progress`] and remembered for the build's own error.
//!
//! A vertex is a step of BuildKit's graph. It is sent again whenever something of it changes; its log comes in pieces that do
//! not end where lines do. Nothing here waits: the stream must be read as fast as it comes.

use crate::event::{Lines, Output, Progress};
use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1::{StatusResponse, Vertex, VertexLog, VertexWarning};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Lines of the failing step that an error carries.
const TAIL: usize = 20;

/// All steps of one build so far.
pub(super) struct Steps {
    progress: Progress,
    /// How the Dockerfile is called.
    dockerfile: String,
    steps: BTreeMap<String, Step>,
    /// Digests of the steps that failed, in the order they did.
    failed: Vec<String>,
}

struct Step {
    name: String,
    error: String,
    /// What was told last: started, done, cached.
    told: Option<(Option<Timestamp>, bool, bool)>,
    /// The line each output is in the middle of.
    open: [Lines; 2],
    tail: VecDeque<String>,
    clipped: bool,
}

/// The step that made the build fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FailedStep {
    pub(super) name: String,
    pub(super) error: String,
    pub(super) log: Vec<String>,
}

impl Steps {
    pub(super) fn new(progress: Progress, dockerfile: &str) -> Self {
        Self { progress, dockerfile: dockerfile.to_owned(), steps: BTreeMap::new(), failed: Vec::new() }
    }

    /// Takes in one message.
    pub(super) fn take(&mut self, status: StatusResponse) {
        // A step begins before its first line and ends after its last one, in whatever order they are sent.
        let (over, begun): (Vec<_>, Vec<_>) = status.vertexes.into_iter().partition(|vertex| vertex.completed.is_some());
        begun.into_iter().for_each(|vertex| self.vertex(vertex));
        status.logs.iter().for_each(|log| self.log(log));
        over.into_iter().for_each(|vertex| self.vertex(vertex));
        for warning in &status.warnings {
            self.progress.notice(warning_text(warning, &self.dockerfile));
        }
    }

    /// Tells the lines that were never ended.
    pub(super) fn finish(&mut self) {
        for step in self.steps.values_mut() {
            step.flush(&self.progress);
        }
    }

    /// The step the build failed at. Steps that only were stopped by another's failure do not count.
    pub(super) fn failed(&self) -> Option<FailedStep> {
        let failed = self.failed.iter().filter_map(|digest| self.steps.get(digest));
        let step = failed.clone().find(|step| !step.error.contains("context canceled")).or_else(|| failed.clone().next())?;
        Some(FailedStep { name: step.name.clone(), error: step.error.clone(), log: step.tail.iter().cloned().collect() })
    }

    fn vertex(&mut self, vertex: Vertex) {
        let step = Step::of(&mut self.steps, &vertex.digest, &self.progress);
        let done = vertex.completed.is_some();
        let failed = !vertex.error.is_empty();
        step.name = vertex.name;
        if done {
            step.flush(&self.progress);
        }
        // Neither waiting nor known before: nothing has happened yet.
        let begun = vertex.started.is_some() || vertex.cached || failed;
        let state = (vertex.started, done, vertex.cached);
        if !begun || (step.told == Some(state) && step.error == vertex.error) {
            return;
        }
        step.told = Some(state);
        step.error.clone_from(&vertex.error);
        let took = vertex.started.zip(vertex.completed).map(|(started, completed)| between(&started, &completed));
        if failed && let Some(from) = step.name.strip_prefix("importing cache manifest from ") {
            // BuildKit goes on without the cache, so this is no failure of the build.
            self.progress.build_step(step.name.as_str(), false, took, done, None);
            // Newer engines put words before the reference, and the same words after it.
            let why = vertex.error.split_once(&format!("{from}: ")).map_or(vertex.error.as_str(), |(_, why)| why);
            self.progress.notice(match why {
                // As it is for each image's first build.
                "not found" => format!("there is no cache at `{from}` yet"),
                why => format!("the build goes on without the cache at `{from}`: {why}"),
            });
            return;
        }
        if failed {
            if !self.failed.contains(&vertex.digest) {
                self.failed.push(vertex.digest);
            }
        } else if done {
            step.tail = VecDeque::new();
        }
        self.progress.build_step(step.name.as_str(), vertex.cached, took, done, failed.then_some(vertex.error));
    }

    fn log(&mut self, log: &VertexLog) {
        let step = Step::of(&mut self.steps, &log.vertex, &self.progress);
        if !step.clipped && contains(&log.msg, b"[output clipped, log limit ") {
            step.clipped = true;
            self.progress.notice(format!("BuildKit clipped the log of `{}`; its last lines may be missing", step.name));
        }
        let output = usize::from(log.stream == 2);
        step.tell(output, &self.progress, |lines, tell| lines.push(&log.msg, tell));
    }
}

impl Step {
    /// The step of this digest, begun when it is new.
    fn of<'s>(steps: &'s mut BTreeMap<String, Self>, digest: &str, progress: &Progress) -> &'s mut Self {
        let begin = || Self {
            name: String::new(),
            error: String::new(),
            told: None,
            open: [progress.lines(), progress.lines()],
            tail: VecDeque::new(),
            clipped: false,
        };
        steps.entry(digest.to_owned()).or_insert_with(begin)
    }

    /// Tells the lines that `take` gets out of an output.
    fn tell(&mut self, output: usize, progress: &Progress, take: impl FnOnce(&mut Lines, &mut dyn FnMut(String))) {
        let Self { open, tail, .. } = self;
        take(&mut open[output], &mut |line| {
            if tail.len() == TAIL {
                tail.pop_front();
            }
            tail.push_back(line.clone());
            progress.log(if output == 1 { Output::Err } else { Output::Out }, line);
        });
    }

    fn flush(&mut self, progress: &Progress) {
        for output in [0, 1] {
            self.tell(output, progress, |lines, tell| lines.finish(tell));
        }
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// The warning with its place in the Dockerfile, and where more about it stands.
fn warning_text(warning: &VertexWarning, dockerfile: &str) -> String {
    let short = String::from_utf8_lossy(&warning.short);
    let Some(start) = warning.ranges.first().and_then(|range| range.start.as_ref()) else {
        return format!("BuildKit warns: {short}{}", more(warning));
    };
    // BuildKit repeats the line in its words.
    let short = short.strip_suffix(&format!(" (line {})", start.line)).unwrap_or(&short);
    format!("{dockerfile}:{}: BuildKit warns: {short}{}", start.line, more(warning))
}

/// The page that explains a warning, or the explanation when there is no page.
fn more(warning: &VertexWarning) -> String {
    if !warning.url.is_empty() {
        return format!("; see {}", warning.url);
    }
    warning.detail.iter().map(|detail| format!("; {}", String::from_utf8_lossy(detail))).collect()
}

fn between(start: &Timestamp, end: &Timestamp) -> Duration {
    let nanos = |at: &Timestamp| i128::from(at.seconds) * 1_000_000_000 + i128::from(at.nanos);
    Duration::from_nanos(u64::try_from(nanos(end) - nanos(start)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{EventKind, Events, Stage, Step as EventStep};
    use crate::names::AppName;
    use crate::secret::Redactor;
    use bollard_buildkit_proto::pb::{Position, Range};

    fn told(messages: Vec<StatusResponse>) -> (Vec<String>, Option<FailedStep>) {
        let (events, mut receiver) = Events::new(Redactor::default());
        let step = EventStep { app: AppName::new("web").unwrap(), rack: None, service: None, stage: Stage::Build };
        let mut steps = Steps::new(events.progress(step), "web/Dockerfile");
        messages.into_iter().for_each(|message| steps.take(message));
        steps.finish();
        let mut lines = Vec::new();
        while let Some(event) = receiver.try_recv() {
            lines.push(match event.kind {
                EventKind::Log { output, line, .. } => format!("{output:?} {line}"),
                EventKind::Notice { message, .. } => format!("notice {message}"),
                EventKind::BuildStep { name, cached, done, millis, error, .. } => {
                    format!("step {name} cached={cached} done={done} {millis:?} {error:?}")
                }
                other => panic!("{other:?}"),
            });
        }
        (lines, steps.failed())
    }

    fn vertex(digest: &str, name: &str, seconds: Option<(i64, Option<i64>)>, error: &str) -> StatusResponse {
        let at = |seconds| Timestamp { seconds, nanos: 0 };
        let vertex = Vertex {
            digest: digest.to_owned(),
            name: name.to_owned(),
            started: seconds.map(|(start, _)| at(start)),
            completed: seconds.and_then(|(_, end)| end).map(at),
            error: error.to_owned(),
            ..Vertex::default()
        };
        StatusResponse { vertexes: vec![vertex], ..StatusResponse::default() }
    }

    fn log(digest: &str, stream: i64, text: &str) -> StatusResponse {
        let log = VertexLog { vertex: digest.to_owned(), stream, msg: text.into(), ..VertexLog::default() };
        StatusResponse { logs: vec![log], ..StatusResponse::default() }
    }

    #[test]
    fn a_step_is_told_once_for_each_change_and_its_log_in_lines() {
        let (lines, failed) = told(vec![
            vertex("a", "[1/2] RUN x", None, ""),
            vertex("a", "[1/2] RUN x", Some((10, None)), ""),
            log("a", 1, "one\nt"),
            log("a", 2, "10%\r99%\n"),
            log("a", 1, "wo\nthree"),
            vertex("a", "[1/2] RUN x", Some((10, None)), ""),
            vertex("a", "[1/2] RUN x", Some((10, Some(12))), ""),
            vertex("a", "[1/2] RUN x", Some((10, Some(12))), ""),
        ]);
        let expected = [
            "step [1/2] RUN x cached=false done=false None None",
            "Out one",
            "Err 99%",
            "Out two",
            "Out three",
            "step [1/2] RUN x cached=false done=true Some(2000) None",
        ];
        assert_eq!(lines, expected);
        assert_eq!(failed, None);
    }

    #[test]
    fn the_step_that_failed_is_not_the_one_that_was_stopped() {
        let (_, failed) = told(vec![
            vertex("a", "[a 1/1] RUN x", Some((1, Some(2))), "context canceled"),
            log("b", 1, &(0..30).map(|number| format!("line {number}\n")).collect::<String>()),
            vertex("b", "[b 1/1] RUN y", Some((1, Some(2))), "exit code: 7"),
        ]);
        let failed = failed.unwrap();
        assert_eq!((failed.name.as_str(), failed.error.as_str()), ("[b 1/1] RUN y", "exit code: 7"));
        assert_eq!((failed.log.len(), failed.log[0].as_str(), failed.log[19].as_str()), (20, "line 10", "line 29"));
    }

    #[test]
    fn what_buildkit_keeps_to_itself_is_a_notice() {
        let (lines, failed) = told(vec![
            vertex("b", "importing cache manifest from r/web:first", Some((1, Some(1))), "r/web:first: not found"),
            vertex("n", "importing cache manifest from r/web:n", Some((1, Some(1))), "failed to configure x importer: r/web:n: not found"),
            vertex("c", "importing cache manifest from r/web:latest", Some((1, Some(1))), "connection refused"),
            log("d", 1, "x\n[output clipped, log limit 200KiB/s reached]\n"),
        ]);
        for first in ["r/web:first", "r/web:n"] {
            assert!(lines.contains(&format!("notice there is no cache at `{first}` yet")), "{lines:?}");
        }
        assert!(
            lines.contains(&"notice the build goes on without the cache at `r/web:latest`: connection refused".to_owned()),
            "{lines:?}"
        );
        assert!(lines.iter().any(|line| line.starts_with("notice BuildKit clipped")));
        assert_eq!(failed, None);
    }

    #[test]
    fn a_warning_has_its_place_once() {
        let at = |line| Range { start: Some(Position { line, character: 0 }), end: None };
        let warning = |short: &str, ranges: Vec<Range>, url: &str| VertexWarning {
            short: short.as_bytes().to_vec(),
            detail: vec![b"a long text".to_vec()],
            url: url.to_owned(),
            ranges,
            ..VertexWarning::default()
        };
        let warnings = vec![
            warning("LegacyKeyValueFormat: old (line 2)", vec![at(2)], "https://x.example/legacy"),
            warning("nowhere", Vec::new(), ""),
        ];
        let (lines, _) = told(vec![StatusResponse { warnings, ..StatusResponse::default() }]);
        let expected = [
            "notice web/Dockerfile:2: BuildKit warns: LegacyKeyValueFormat: old; see https://x.example/legacy",
            "notice BuildKit warns: nowhere; a long text",
        ];
        assert_eq!(lines, expected);
    }
}
