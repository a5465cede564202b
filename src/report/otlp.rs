//! A run as OpenTelemetry's spans, in OTLP's JSON: the run, in it a span per image and target, in those their steps, and BuildKit's
//! steps in a build's.
//!
//! Ids are made of the run's id and the names, so the same events give the same spans. Format:
//! <https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>.

use super::state::{RunState, StepState};
use super::text::{clean, clean_lines};
use super::trace::{build_steps, details, length, spent};
use crate::event::{Step, StepOutcome};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

/// The span that the run belongs into, as W3C's `traceparent` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    trace: String,
    span: String,
}

impl Parent {
    /// Reads `00-TRACE-SPAN-FLAGS`; `None` when it is something else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let hex =
            |part: &str, length: usize| part.len() == length && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let id = |part: &str, length: usize| hex(part, length) && part.bytes().any(|b| b != b'0');
        // A later version may have more parts; `ff` is none.
        let known = hex(version, 2) && version != "ff" && (version != "00" || parts.next().is_none());
        (known && id(trace, 32) && id(span, 16) && hex(flags, 2)).then(|| Self { trace: trace.to_owned(), span: span.to_owned() })
    }
}

/// The spans of a run, as they are sent; `None` for events without a run.
#[must_use]
pub fn render(state: &RunState, service: &str, parent: Option<&Parent>) -> Option<Value> {
    let run = state.run.as_ref()?;
    let end = state.last.unwrap_or(run.started);
    let seed = run.run.as_str();
    let mut spans = Spans { trace: parent.map_or_else(|| id(seed, &["trace"], 16), |parent| parent.trace.clone()), seed, all: Vec::new() };
    let attributes = json!({
        "offbuild.run": run.run, "offbuild.command": run.command, "offbuild.by": run.by, "offbuild.ci_url": run.ci_url,
        "offbuild.exit_code": state.finished.map(|finish| finish.code),
        "vcs.ref.head.revision": run.commit, "vcs.ref.head.name": run.branch,
    });
    let wrong = state.finished.filter(|finish| finish.code != 0).map(|finish| format!("ended with {}", finish.code));
    let whole = Over { from: run.started, millis: state.wall_millis() };
    let root =
        spans.add(parent.map(|parent| parent.span.as_str()), &["run"], &format!("offbuild {}", run.command), whole, attributes, wrong);
    for (subject, steps) in subjects(state) {
        let begun = steps.iter().map(|(_, known)| known.started).min().unwrap_or(run.started);
        let over = steps.iter().map(|(_, known)| known.started.saturating_add(length(spent(known, end)))).max().unwrap_or(begun);
        let (step, _) = steps[0];
        let attributes = json!({ "offbuild.app": step.app, "offbuild.rack": step.rack, "offbuild.service": step.service });
        let wrong = steps.iter().find_map(|(_, known)| failure(known));
        let whole = Over { from: begun, millis: u64::try_from((over - begun).whole_milliseconds()).unwrap_or_default() };
        let around = spans.add(Some(&root), &[&subject], &subject, whole, attributes, wrong);
        for (step, known) in steps {
            let name = step.stage.name();
            let over = Over { from: known.started, millis: spent(known, end) };
            let own = spans.add(Some(&around), &[&subject, name], name, over, prefixed(details(step, known)), failure(known));
            for (index, (inner, from, millis)) in build_steps(known, end).enumerate() {
                let attributes = json!({ "offbuild.cached": inner.cached });
                let path = [subject.as_str(), name, &index.to_string()];
                spans.add(Some(&own), &path, &inner.name, Over { from, millis }, attributes, inner.error.clone());
            }
        }
    }
    let resource = json!({ "service.name": service, "service.version": env!("CARGO_PKG_VERSION") });
    let scope = json!({ "name": "offbuild", "version": env!("CARGO_PKG_VERSION") });
    Some(json!({ "resourceSpans": [{
        "resource": { "attributes": attributes_of(resource) },
        "scopeSpans": [{ "scope": scope, "spans": spans.all }],
    }] }))
}

/// The steps of each image, app and target, in the order the first of each was begun.
fn subjects(state: &RunState) -> Vec<(String, Vec<(&Step, &StepState)>)> {
    let mut subjects: Vec<(String, Vec<(&Step, &StepState)>)> = Vec::new();
    for (step, known) in state.steps_in_order() {
        let subject = step.subject();
        match subjects.iter_mut().find(|(name, _)| *name == subject) {
            Some((_, steps)) => steps.push((step, known)),
            None => subjects.push((subject, vec![(step, known)])),
        }
    }
    subjects
}

/// What went wrong with a step.
fn failure(step: &StepState) -> Option<String> {
    match &step.outcome {
        Some(StepOutcome::Done) => None,
        Some(StepOutcome::Failed { message, .. } | StepOutcome::RolledBack { message, .. }) => Some(message.clone()),
        Some(StepOutcome::Cancelled) => Some("cancelled".to_owned()),
        None => Some("the run was killed before this ended".to_owned()),
    }
}

/// A stretch of time.
struct Over {
    from: OffsetDateTime,
    millis: u64,
}

struct Spans<'a> {
    trace: String,
    seed: &'a str,
    all: Vec<Value>,
}

impl Spans<'_> {
    /// Adds a span and returns its id, which is made of `path`.
    fn add(&mut self, parent: Option<&str>, path: &[&str], name: &str, over: Over, attributes: Value, wrong: Option<String>) -> String {
        /// OTLP's number for a span inside of a program.
        const INTERNAL: u8 = 1;
        /// OTLP's number for a span that failed.
        const FAILED: u8 = 2;
        let span = id(self.seed, path, 8);
        let from = over.from.unix_timestamp_nanos().max(0);
        let mut made = json!({
            "traceId": self.trace, "spanId": span, "name": clean(name), "kind": INTERNAL,
            "startTimeUnixNano": from.to_string(), "endTimeUnixNano": (from + i128::from(over.millis) * 1_000_000).to_string(),
            "attributes": attributes_of(attributes),
        });
        if let Some(parent) = parent {
            made["parentSpanId"] = parent.into();
        }
        if let Some(wrong) = wrong {
            made["status"] = json!({ "code": FAILED, "message": clean_lines(&wrong) });
        }
        self.all.push(made);
        span
    }
}

/// An id of so many bytes, in hex.
fn id(seed: &str, path: &[&str], bytes: usize) -> String {
    let sum = Sha256::digest([&[seed], path].concat().join("\0"));
    hex::encode(&sum[..bytes])
}

/// The same attributes with our own prefix.
fn prefixed(attributes: Value) -> Value {
    let Value::Object(map) = attributes else { return attributes };
    map.into_iter().map(|(key, value)| (format!("offbuild.{key}"), value)).collect()
}

/// A flat object as OTLP has attributes; what is null is left out.
fn attributes_of(values: Value) -> Value {
    let Value::Object(map) = values else { return json!([]) };
    let typed = |value: Value| match value {
        Value::Bool(value) => Some(json!({ "boolValue": value })),
        // Numbers of 64 bits are text in protobuf's JSON.
        Value::Number(value) => Some(json!({ "intValue": value.to_string() })),
        Value::String(value) => Some(json!({ "stringValue": value })),
        _ => None,
    };
    map.into_iter().filter_map(|(key, value)| Some(json!({ "key": key, "value": typed(value)? }))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;
    use std::collections::BTreeMap;

    fn spans(rendered: &Value) -> &Vec<Value> {
        rendered.pointer("/resourceSpans/0/scopeSpans/0/spans").unwrap().as_array().unwrap()
    }

    #[test]
    fn the_spans_of_a_failing_hook() {
        let state = RunState::replay(&samples::hook_failing());
        let rendered = render(&state, "offbuild", None).unwrap();
        let names: BTreeMap<&str, &str> =
            spans(&rendered).iter().map(|span| (span["spanId"].as_str().unwrap(), span["name"].as_str().unwrap())).collect();
        let lines = spans(&rendered).iter().map(|span| {
            let nanos = |key: &str| span[key].as_str().unwrap().parse::<u64>().unwrap();
            let (from, until) = (nanos("startTimeUnixNano"), nanos("endTimeUnixNano"));
            let parent = span["parentSpanId"].as_str().map_or("-", |id| names[id]);
            let status = span["status"]["message"].as_str().map_or_else(String::new, |why| format!(" FAILED {why}"));
            format!("{parent} > {} +{} ms{status}", names[span["spanId"].as_str().unwrap()], (until - from) / 1_000_000)
        });
        insta::assert_snapshot!(lines.collect::<Vec<_>>().join("\n"), @r#"
        - > offbuild deploy +62200 ms FAILED ended with 1
        offbuild deploy > api/web +400 ms
        api/web > retag +400 ms
        offbuild deploy > web/web +11800 ms
        web/web > build +9300 ms
        build > [internal] load build definition from Dockerfile +3 ms
        build > [1/3] FROM ruby:3.4 +0 ms
        build > [2/3] RUN bundle install +9000 ms
        build > [3/3] COPY . . +120 ms
        web/web > push +2500 ms
        offbuild deploy > api@staging +40000 ms
        api@staging > stage +8000 ms
        api@staging > promote +32000 ms
        offbuild deploy > web@staging +10000 ms FAILED `deploy/before_release.sh` ended with 3: column `email` is missing
        web@staging > stage +8000 ms
        web@staging > before_release +2000 ms FAILED `deploy/before_release.sh` ended with 3: column `email` is missing
        "#);
        insta::assert_snapshot!(serde_json::to_string_pretty(&spans(&rendered)[0]).unwrap(), @r#"
        {
          "traceId": "c8678a221f6741f681dd016af4986e4e",
          "spanId": "306891b38c8aa6df",
          "name": "offbuild deploy",
          "kind": 1,
          "startTimeUnixNano": "1767323045000000000",
          "endTimeUnixNano": "1767323107200000000",
          "attributes": [
            {
              "key": "offbuild.run",
              "value": {
                "stringValue": "20260102-030405-abcd"
              }
            },
            {
              "key": "offbuild.command",
              "value": {
                "stringValue": "deploy"
              }
            },
            {
              "key": "offbuild.by",
              "value": {
                "stringValue": "ann@ci-3"
              }
            },
            {
              "key": "offbuild.ci_url",
              "value": {
                "stringValue": "https://ci.example/runs/7"
              }
            },
            {
              "key": "offbuild.exit_code",
              "value": {
                "intValue": "1"
              }
            },
            {
              "key": "vcs.ref.head.revision",
              "value": {
                "stringValue": "ffffffffffffffffffffffffffffffffffffffff"
              }
            },
            {
              "key": "vcs.ref.head.name",
              "value": {
                "stringValue": "main"
              }
            }
          ],
          "status": {
            "code": 2,
            "message": "ended with 1"
          }
        }
        "#);
        assert_eq!(
            rendered["resourceSpans"][0]["resource"]["attributes"][0],
            json!({"key": "service.name", "value": {"stringValue": "offbuild"}})
        );
    }

    #[test]
    fn spans_lie_within_their_parents_and_ids_are_each_once_and_always_the_same() {
        for (name, events) in samples::all() {
            let state = RunState::replay(&events);
            let rendered = render(&state, "offbuild", None).unwrap();
            assert_eq!(rendered, render(&state, "offbuild", None).unwrap(), "{name}");
            let nanos = |span: &Value, key: &str| span[key].as_str().unwrap().parse::<u64>().unwrap();
            let mut known: BTreeMap<&str, &Value> = BTreeMap::new();
            for span in spans(&rendered) {
                let (id, trace) = (span["spanId"].as_str().unwrap(), span["traceId"].as_str().unwrap());
                assert!(
                    id.len() == 16 && trace.len() == 32 && (id.to_owned() + trace).bytes().all(|b| b.is_ascii_hexdigit()),
                    "{name}: {span}"
                );
                assert!(nanos(span, "endTimeUnixNano") >= nanos(span, "startTimeUnixNano"), "{name}: {span}");
                if let Some(parent) = span["parentSpanId"].as_str() {
                    // A parent stands before what is in it, in the same trace.
                    let parent = known[parent];
                    assert!(nanos(parent, "startTimeUnixNano") <= nanos(span, "startTimeUnixNano"), "{name}: {span}");
                    assert_eq!(parent["traceId"], span["traceId"], "{name}");
                }
                assert!(known.insert(id, span).is_none(), "{name}: {id} is there twice");
            }
            assert_eq!(spans(&rendered).iter().filter(|span| span["parentSpanId"].is_null()).count(), 1, "{name}");
        }
        assert_eq!(render(&RunState::default(), "offbuild", None), None);
    }

    #[test]
    fn a_ci_that_traces_itself_is_the_parent() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let parent = Parent::parse(text).unwrap();
        let rendered = render(&RunState::replay(&samples::success()), "deploys", Some(&parent)).unwrap();
        let root = &spans(&rendered)[0];
        assert_eq!((root["traceId"].as_str(), root["parentSpanId"].as_str()), (Some(&text[3..35]), Some(&text[36..52])));
        assert!(spans(&rendered).iter().all(|span| span["traceId"] == root["traceId"]));
        for wrong in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
        ] {
            assert_eq!(Parent::parse(wrong), None, "{wrong}");
        }
    }
}
