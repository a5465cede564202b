//! What a run tells: reports that are made again from its events to the byte, and webhooks.

use crate::support::front::Head;
use crate::support::services::Port;
use crate::support::world::Setup;
use offbuild::event::Event;
use offbuild::journal::Journal;
use offbuild::report::state::RunState;
use offbuild::report::{github, html, json, junit, trace};
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};

fn json_of(state: &RunState) -> String {
    let mut text = Vec::new();
    json::Report::of(state).write(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

#[test]
fn every_report_of_a_run_is_made_again_from_its_events() {
    let world = Setup::new(&["api", "web"]).start();
    world.hook("web", "before_release", "echo '<migrating> & \"so on\"'; printf '\\033[31mred\\033[0m\\n'; exit 3").repo.commit("a hook");
    let kinds = ["events.jsonl", "page.html", "summary.md", "results.xml", "trace.json"];
    let files = kinds.map(|name| world.aside(name));
    let [events, page, summary, results, times] = files.each_ref().map(|path| path.to_str().unwrap());
    let flags = ["--events", events, "--html", page, "--summary", summary, "--junit", results, "--trace", times];
    let done = world.offbuild().run(&[&["deploy", "--format", "json"], flags.as_slice()].concat()).code(1);

    let lines: Vec<Event> = std::fs::read_to_string(events).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let id = RunState::replay(&lines).run.unwrap().run;
    let journal = Journal::read(&Journal::find(&world.repo.root(), id.as_str()).unwrap().path).unwrap();
    for events in [&lines, &journal] {
        let state = RunState::replay(events);
        let again = [html::render(events), github::markdown(&state), junit::render(&state), trace::render(&state), json_of(&state)];
        let read = |path: &str| std::fs::read_to_string(path).unwrap();
        let written = [read(page), read(summary), read(results), read(times), done.stdout.clone()];
        for ((kind, again), written) in ["page", "summary", "results", "trace", "report"].iter().zip(again).zip(written) {
            assert!(again == written, "{kind}:\n{again}\nis not what was written:\n{written}");
        }
    }
    let results = std::fs::read_to_string(results).unwrap();
    assert!(results.contains("<failure type=\"hook\" message=\"") && !results.contains('\u{1b}'), "{results}");
}

/// A webhook that answers 200 to everything, and what it was sent.
fn webhook() -> (String, Receiver<Value>) {
    let (address, heard) = listener();
    let (out, bodies) = channel();
    std::thread::spawn(move || heard.iter().try_for_each(|(_, body)| out.send(body)));
    (format!("http://{address}/hooks/T0-very-secret"), bodies)
}

/// A server that answers 200 to everything, and what it was sent: the head as it came, and the body.
fn listener() -> (std::net::SocketAddr, Receiver<(String, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (out, heard) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let (mut length, mut head) = (0, String::new());
            loop {
                let mut line = String::new();
                stream.read_line(&mut line).unwrap();
                head.push_str(&line);
                if line.trim().is_empty() {
                    break;
                }
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
            if out.send((head, serde_json::from_slice(&body).unwrap())).is_err() {
                return;
            }
        }
    });
    (address, heard)
}

#[test]
fn webhooks_are_told_of_start_and_end_and_their_address_is_shown_nowhere() {
    let (url, heard) = webhook();
    let world = Setup::new(&["web"])
        .settings("notify: [{url: '${HOOK}', on: [start, end]}, {url: '${HOOK}', format: slack, on: [failure]}]\n")
        .start();
    world.hook("web", "before_release", "echo \"$HOOK\"; exit 3").repo.commit("a hook");
    let run = world.run_as(&world.offbuild().env("HOOK", &url), &["deploy", "-v"]).code(1);
    let told: Vec<Value> = heard.iter().take(3).collect();
    let start = told.iter().find(|body| body["event"] == "start").unwrap();
    assert_eq!((&start["targets"][0]["app"], &start["targets"][0]["outcome"]), (&"web".into(), &Value::Null));
    let end = told.iter().find(|body| body["event"] == "end").unwrap();
    assert_eq!((&end["ok"], &end["exit_code"], &end["targets"][0]["outcome"]), (&false.into(), &1.into(), &"failed".into()));
    let people = told.iter().find(|body| body["event"].is_null()).unwrap()["text"].as_str().unwrap();
    assert!(people.contains("failed (exit 1)") && people.contains("*web@staging* failed in before_release"), "{people}");
    let journal = std::fs::read_to_string(Journal::find(&world.repo.root(), "latest").unwrap().path).unwrap();
    for text in [&run.done.stdout, &run.done.stderr, &journal] {
        assert!(!text.contains("T0-very-secret"), "{text}");
    }
    assert!(run.done.stderr.contains("web@staging | ***"), "{}", run.done.stderr);
    // Nothing to do is not worth a message, and a listener does not make an app changed.
    world.hook("web", "before_release", "exit 0").repo.commit("a hook that works");
    world.run_as(&world.offbuild().env("HOOK", &url), &["deploy"]).code(0);
    assert_eq!(heard.iter().take(2).filter(|body| body["ok"] == true).count(), 1);
    let yaml = std::fs::read_to_string(world.repo.path("apps.yaml")).unwrap();
    world.repo.write("apps.yaml", yaml.replace("on: [failure]", "on: [end]")).commit("who is told");
    world.run_as(&world.offbuild().env("HOOK", &url), &["deploy"]).code(0).outcomes(&["web@staging up-to-date"]);
    assert!(heard.try_recv().is_err());
}

#[test]
fn a_webhook_that_is_gone_silent_or_not_set_fails_no_deploy() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_url = format!("http://{}/never-answers", silent.local_addr().unwrap());
    let nobody = Port::hold();
    let gone = format!("http://{}/is-gone", nobody.host());
    let listeners = "- {url: '${GONE}', on: [start]}\n- {url: '${SILENT}'}\n- {url: '${SILENT}', on: [start]}\n- {url: '${UNSET}'}\n";
    let world = Setup::new(&["web"]).settings(&format!("notify:\n{listeners}")).start();
    let offbuild = world.offbuild().env("GONE", &gone).env("SILENT", &silent_url);
    let run = world.run_as(&offbuild, &["deploy"]).code(0).outcomes(&["web@staging deployed"]);
    let told = &run.done.stderr;
    assert!(told.contains("could not be told of the run's start: error sending request"), "{told}");
    // Known when the run is long over.
    assert!(told.contains("could not be told of the run's start: no answer within 5 s"), "{told}");
    assert!(told.contains("asks: the variable `UNSET` is not set (apps.yaml:"), "{told}");
    assert!(told.contains("warning: `notify` "), "{told}");
    assert!(!told.contains("is-gone") && !told.contains("never-answers"), "{told}");
    // Without variables, what needs no racks still answers.
    world.run(&["changed", "--base", "HEAD"]).code(0);
}

#[test]
fn how_a_rollback_ended_is_told_though_the_rack_is_gone_then() {
    let world = Setup::new(&["web"]).start();
    world.run(&["deploy"]).code(0);
    let first = world.sandbox.live("staging", "web").commit;
    world.page("web", "second").repo.commit("second");
    world.run(&["deploy"]).code(0);
    let front = world.front();
    // Gone with the last thing a run does: it gives its lease back.
    let last = |head: &Head, before: &[Head]| {
        let lease = |head: &Head| head.method == "POST" && head.path.ends_with("/objects/offbuild/lease");
        lease(head) && before.iter().any(|head| head.path.ends_with("/promote"))
    };
    front.refuse_after(Some(Box::new(last)));
    let offbuild = world.offbuild().env("STAGING_HOST", format!("http://{}", front.host));
    let run = world.run_as(&offbuild, &["rollback", "web@staging"]).code(0);
    run.says("warning: what runs on `web@staging` now cannot be read: rack `staging` cannot be reached");
    assert_eq!(world.sandbox.live("staging", "web").commit, first);
}

#[cfg(feature = "otlp")]
#[test]
fn a_collector_is_sent_the_spans_of_a_run_and_no_log_its_key() {
    let (address, heard) = listener();
    let world = Setup::new(&["web"]).start();
    world.hook("web", "before_release", "echo \"$OTEL_EXPORTER_OTLP_HEADERS\"; echo very-secret-7; exit 3").repo.commit("a hook");
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let traced = |address: &str| {
        let offbuild = world.offbuild().env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}/"));
        let offbuild = offbuild.env("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20very-secret-7,x-set=staging");
        offbuild.env("OTEL_SERVICE_NAME", "deploys").env("TRACEPARENT", parent)
    };
    let run = world.run_as(&traced(&address.to_string()), &["deploy", "-v"]).code(1);
    let (head, body) = heard.recv().unwrap();
    assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
    let lower = head.to_lowercase();
    assert!(lower.contains("\r\nauthorization: bearer very-secret-7\r\n") && lower.contains("\r\nx-set: staging\r\n"), "{head}");
    assert!(lower.contains("\r\ncontent-type: application/json\r\n"), "{head}");
    let state = RunState::replay(&Journal::read(&Journal::find(&world.repo.root(), "latest").unwrap().path).unwrap());
    let parent = offbuild::report::otlp::Parent::parse(parent);
    assert_eq!(Some(body), offbuild::report::otlp::render(&state, "deploys", parent.as_ref()));
    let journal = std::fs::read_to_string(Journal::find(&world.repo.root(), "latest").unwrap().path).unwrap();
    for text in [&run.done.stdout, &run.done.stderr, &journal] {
        assert!(!text.contains("very-secret-7"), "{text}");
    }
    // The plain word among the headers is a name, and stays readable.
    assert!(run.done.stderr.contains("web@staging | ***"), "{}", run.done.stderr);
    // Nobody there, and nobody asked for.
    world.hook("web", "before_release", "exit 0").repo.commit("a hook that works");
    let nobody = Port::hold();
    let run = world.run_as(&traced(&nobody.host()), &["deploy"]).code(0).outcomes(&["web@staging deployed"]);
    let told = "warning: the run's trace could not be sent to the OpenTelemetry collector: error sending request";
    assert!(run.done.stderr.contains(told), "{}", run.done.stderr);
    let run = world.run(&["deploy"]).code(0);
    assert!(!run.done.stderr.contains("OpenTelemetry") && heard.try_recv().is_err(), "{}", run.done.stderr);
}
