//! Limits of time, and waits that somebody asks for.

use crate::support::front::{Behind, Fault, Front, Head, Rule};
use crate::support::services::{self, OTHER, PASSWORD, USER};
use crate::support::world::Setup;
use crate::support::{engine, unique};
use base64::Engine as _;
use offbuild::event::{EventKind, Stage};
use std::sync::Mutex;
use std::time::{Duration, Instant};

fn text(status: u16) -> (u16, String, &'static str) {
    (status, "too many requests\n".to_owned(), "text/plain")
}

#[test]
fn a_run_that_has_had_its_time_says_what_it_waited_for() {
    let world = Setup::new(&["late", "web"]).defaults("timeouts: {run: 12s}").start();
    let begun = world.aside("begun");
    world.hook("late", "before_release", &format!("touch {}; sleep 3000", begun.display())).repo.commit("hook");
    let run = world.run(&["deploy"]).code(1).says("the run timed out after 12s, waiting for before_release of `late@staging`");
    let run = run.says("`timeouts: {run: …}`").outcomes(&["late@staging failed(run-timeout)", "web@staging not-attempted"]);
    assert!(begun.exists());
    assert_eq!(world.sandbox.promotes("staging", "late"), 0);
    assert!(!run.kinds().any(|kind| matches!(kind, EventKind::Interrupted { .. })));
    world.hook("late", "before_release", "true").repo.commit("mended");
    world.run(&["deploy"]).code(0);
}

#[test]
fn a_build_that_runs_out_of_time_says_which_step_it_was_at() {
    let world = Setup::new(&["web"]).defaults("timeouts: {build: 8s}").start();
    world.app("web", "RUN sleep 3000").repo.commit("slow");
    let run = world.run(&["deploy"]).code(1).says("timed out after 8s waiting for the engine, at `").says("RUN sleep 3000`");
    run.outcomes(&["web@staging failed(build-timeout)"]);
}

#[test]
fn a_rack_that_asks_to_be_left_alone_is_left_alone_so_long() {
    let world = Setup::new(&["web"]).start();
    let front = world.front();
    // With the waits of this configuration alone, all tries are over long before.
    let first = Mutex::new(None);
    let early = move |head: &Head, _: &[Head]| {
        let mut first = first.lock().unwrap();
        head.path == "/system" && first.get_or_insert_with(Instant::now).elapsed() < Duration::from_secs(2)
    };
    let rule = Rule { to: Box::new(early), fault: Fault::Status(429), times: usize::MAX, body: text, retry_after: Some("2") };
    front.rule(rule);
    let offbuild = world.offbuild().env("STAGING_HOST", format!("http://{}", front.host));
    world.run_as(&offbuild, &["deploy"]).code(0).outcomes(&["web@staging deployed"]);
    assert_eq!(front.faulted(), 1);
}

#[test]
fn an_answer_that_never_ends_is_given_up() {
    let world = Setup::new(&["web"]).defaults("timeouts: {answer: \"${ANSWER:-30s}\"}").start();
    world.run(&["deploy"]).code(0);
    let rack = world.sandbox.environment()["STAGING_HOST"].clone();
    let engine = || Behind::Unix(engine::socket());
    let (rack, registry) = (Behind::Tcp(rack.trim_start_matches("http://").to_owned()), Behind::Tcp(world.host()));
    let table = [
        (rack, "STAGING_HOST", "http://", "/system", 3, "no answer in time"),
        (registry, "REGISTRY_HOST", "", "/v2/", 3, "timed out"),
        (engine(), "DOCKER_HOST", "tcp://", "/version", 3, "did not answer in time"),
        (engine(), "DOCKER_HOST", "tcp://", "/json", 1, "did not answer in time"),
    ];
    for (behind, variable, scheme, path, code, said) in table {
        world.page("web", &unique()).repo.commit("more");
        let front = Front::before(behind);
        let host = if variable == "REGISTRY_HOST" { front.host.clone() } else { world.host() };
        services::login(world.repo.dir.path(), &host, PASSWORD);
        let to = move |head: &Head, _: &[Head]| head.path.contains(path) && head.method != "POST";
        front.rule(Rule { to: Box::new(to), fault: Fault::Endless, times: usize::MAX, body: text, retry_after: None });
        let offbuild = world.offbuild().env("ANSWER", "400ms").env(variable, format!("{scheme}{}", front.host));
        world.run_as(&offbuild, &["deploy"]).code(code).says(said);
        assert!(front.faulted() > 1, "{path} is asked again");
    }
    services::login(world.repo.dir.path(), &world.host(), PASSWORD);
    world.run(&["deploy"]).code(0).outcomes(&["web@staging deployed"]);
}

#[test]
fn a_login_that_ends_in_mid_push_is_asked_for_again() {
    let world = Setup::new(&["web"]).start();
    let front = Front::before(Behind::Tcp(world.host()));
    let home = world.repo.dir.path().to_owned();
    services::login(&home, &front.host, PASSWORD);
    world.sandbox.call("POST", "staging", "/registries", &[("server", &front.host), ("username", USER), ("password", PASSWORD)]);
    let (host, old) = (front.host.clone(), base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}")));
    let ended = move |head: &Head, before: &[Head]| {
        let uploads = before.iter().any(|head| head.method == "POST" && head.path.contains("/blobs/uploads/"));
        let refused = uploads && head.agent.contains("docker/") && head.login.ends_with(&old);
        if refused {
            // What a credential helper would do: from now on there is another login.
            services::login_as(&home, &host, OTHER, PASSWORD);
        }
        refused
    };
    let unauthorized = |status| {
        let body = "{\"errors\":[{\"code\":\"UNAUTHORIZED\",\"message\":\"authentication required\"}]}";
        (status, body.to_owned(), "application/json")
    };
    front.rule(Rule { to: Box::new(ended), fault: Fault::Status(401), times: usize::MAX, body: unauthorized, retry_after: None });
    let run = world.run_as(&world.offbuild().env("REGISTRY_HOST", front.host.clone()), &["deploy"]).code(0);
    assert_eq!(run.finished(Stage::Push), ["web/web"]);
    assert!(front.faulted() > 0, "the push never met the end of the login");
}
