//! Locks set by hand, and what other machines' runs left on the rack.

use crate::support::front::{Fault, Head, Rule};
use crate::support::world::{Setup, World};
use offbuild::sandbox::Version;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

#[test]
fn what_is_locked_by_hand_is_not_deployed_to_until_it_is_unlocked() {
    let world = Setup::new(&["api", "web"]).rack("production", Version::V3, "").start();
    world.run(&["lock", "-m", " "]).code(2);
    // Longer than there are years, which is no reason to break.
    let long = world.run(&["lock", "web@production", "-m", "why", "--for", "99999999999h"]).code(0).done.stdout;
    assert!(long.contains(", until 9999-12-31"), "{long}");
    world.run(&["unlock", "web@production"]).code(0);
    world.run(&["lock", "-m", "why", "--for", "soon"]).code(2).says("`--for soon` is no length of time");
    let locked = world.run(&["lock", "--rack", "production", "-m", "incident 12"]).code(0);
    let lines: Vec<&str> = locked.done.stdout.lines().collect();
    assert!(lines.len() == 2 && lines[0].starts_with("api@production locked by ") && lines[1].ends_with(" ago: incident 12"), "{lines:?}");

    let refused = world.run(&["deploy"]).code(5).says("incident 12").says("offbuild unlock api@production");
    assert!(refused.events.is_empty());
    world.run(&["deploy", "--rack", "staging"]).code(0);
    let plan = world.run(&["plan"]).code(0).done.stdout;
    assert!(plan.contains("note: `web@production` is locked by ") && !plan.contains("`web@staging` is locked"), "{plan}");
    let status = world.run(&["status"]).code(0).done.stdout;
    assert!(status.contains("web@production is locked by ") && !status.contains("web@staging is "), "{status}");
    let status: Value = serde_json::from_str(&world.run(&["status", "--format", "json"]).code(0).done.stdout).unwrap();
    let locked: Vec<(&str, &Value)> = status["targets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|target| (target["target"].as_str().unwrap(), &target["locked"]["message"]))
        .collect();
    let incident = json!("incident 12");
    let expected =
        [("api@production", &incident), ("api@staging", &Value::Null), ("web@production", &incident), ("web@staging", &Value::Null)];
    assert_eq!(locked, expected);

    world.run(&["lock", "web@production", "-m", "another"]).code(5).says("nothing was locked: `web@production` is locked by ");
    world.run(&["lock", "web@production", "-m", "another", "--force"]).code(0);
    let unlocked = world.run(&["unlock", "--rack", "production"]).code(0).done.stdout;
    assert!(unlocked.starts_with("api@production is unlocked; it was locked by ") && unlocked.contains(": another"), "{unlocked}");
    assert_eq!(world.run(&["unlock", "web@production"]).code(0).done.stdout, "web@production was not locked\n");
    world.run(&["deploy"]).code(0);
}

#[test]
fn a_lock_by_hand_ends_at_its_time_and_lets_people_go_back() {
    let world = Setup::new(&["web"]).start();
    world.run(&["deploy"]).code(0);
    world.page("web", "second").repo.commit("second");
    world.run(&["lock", "-m", "for a moment", "--for", "1s"]).code(0);
    world.run(&["deploy", "--lock-wait", "10m"]).code(0);
    world.run(&["lock", "-m", "incident 13", "--for", "2h"]).code(0);
    world.run(&["rollback", "web@staging"]).code(0).says("incident 13; going on all the same");
    world.page("web", "third").repo.commit("third");
    world.run(&["deploy"]).code(5).says(", until ");
}

/// A lease of a run on another machine, whose last heartbeat was some seconds ago.
fn lease(world: &World, seconds: i64) {
    let at = (OffsetDateTime::now_utc() - time::Duration::seconds(seconds)).format(&Rfc3339).unwrap();
    let lease = json!({
        "holder": {"by": "bob@ci", "run": "20261122-213000-1f2e", "ci_url": "https://ci.example/7", "since": at, "pid": 1, "machine": "elsewhere"},
        "commit": "2".repeat(40), "beat": at, "ttl": 120, "token": "theirs",
    });
    world.sandbox.put_object("staging", "web", "offbuild/lease", &lease.to_string());
}

fn kept(world: &World) -> Value {
    serde_json::from_str(&world.sandbox.call("GET", "staging", "/apps/web/objects/offbuild/lease", &[])).unwrap()
}

#[test]
fn a_run_on_another_machine_is_waited_for_taken_over_or_freed() {
    let world = Setup::new(&["web"]).start();
    lease(&world, 5);
    let refused = world.run(&["deploy"]).code(5).says("another run deploys to `web@staging`").says("https://ci.example/7");
    assert!(
        refused.events.is_empty() && refused.done.stderr.contains("held by bob@ci for run `20261122-213000-1f2e` of commit 222222222222")
    );
    let status = world.run(&["status"]).code(0).done.stdout;
    assert!(status.contains("web@staging is being deployed to, held by bob@ci "), "{status}");
    world.run(&["unlock"]).code(5).says("--force");
    assert_eq!(kept(&world)["token"], "theirs");
    world.run(&["unlock", "--force"]).code(0);
    world.run(&["deploy"]).code(0).outcomes(&["web@staging deployed"]);
    assert_eq!(kept(&world)["released"], true);

    lease(&world, 600);
    world.page("web", "second").repo.commit("second");
    world.run(&["deploy"]).code(0).says("took over `web@staging`, held by bob@ci ").says("no sign of life for ");
}

#[test]
fn what_was_locked_before_a_rack_failed_is_told() {
    let world = Setup::new(&["api", "web"]).start();
    let front = world.front();
    let body = |status| (status, "no room".to_owned(), "text/plain");
    let refused = |head: &Head, _: &[Head]| head.method == "POST" && head.path.starts_with("/apps/web/objects/");
    front.rule(Rule { to: Box::new(refused), fault: Fault::Status(403), times: usize::MAX, body, retry_after: None });
    let offbuild = world.offbuild().env("STAGING_HOST", format!("http://{}", front.host));
    let lock = world.run_as(&offbuild, &["lock", "-m", "incident 14"]).code(3).says("no room").done.stdout;
    assert!(lock.starts_with("api@staging locked by ") && lock.lines().count() == 1, "{lock}");
    world.run(&["lock", "web@staging", "-m", "incident 14"]).code(0);
    let unlock = world.run_as(&offbuild, &["unlock"]).code(3).says("no room").done.stdout;
    assert!(unlock.starts_with("api@staging is unlocked") && unlock.lines().count() == 1, "{unlock}");
}
