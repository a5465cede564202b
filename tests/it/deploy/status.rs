//! `status`: what is live where, what waits for it, and racks that do not answer.

use crate::support::repo::git;
use crate::support::services::Port;
use crate::support::sh;
use crate::support::world::{Setup, World};
use offbuild::sandbox::Version;
use serde_json::{Value, json};
use std::net::TcpListener;

fn two_racks() -> World {
    let world = Setup::new(&["api", "web"]).rack("production", Version::V3, "").start();
    world.run(&["deploy"]).code(0);
    world
}

fn status_json(world: &World, code: i32) -> Vec<Value> {
    let text = world.run(&["status", "--format", "json"]).code(code).done.stdout;
    serde_json::from_str::<Value>(&text).unwrap()["targets"].as_array().unwrap().clone()
}

#[test]
fn what_waits_is_counted_per_app_with_who_made_it() {
    let world = two_racks();
    let live = world.repo.git(&["rev-parse", "HEAD"]);
    world.page("web", "second").repo.commit("By Ada");
    world.page("web", "third").repo.git(&["add", "-A"]);
    sh(git(&world.repo.root(), &["commit", "-q", "-m", "By Bob"]).env("GIT_AUTHOR_NAME", "Bob"));
    world.repo.write("notes.md", "nothing to anybody\n").commit("Notes");
    for (columns, with_release) in [("80", false), ("200", true)] {
        let text = world.run_as(&world.offbuild().env("COLUMNS", columns), &["status"]).code(0).done.stdout;
        let width = columns.parse::<usize>().unwrap();
        assert!(text.lines().all(|line| line.chars().count() <= width), "{text}");
        let row = |target: &str| {
            let line = text.lines().find(|line| line.starts_with(target)).unwrap();
            let mut words: Vec<&str> = line.split_whitespace().collect();
            let release = words[2].starts_with('R').then(|| words.remove(2));
            (words.join(" "), release.is_some())
        };
        let short = &live[..12];
        for rack in ["production", "staging"] {
            assert_eq!(row(&format!("api@{rack}")).0, format!("api@{rack} running {short} now 0 everything"));
            let (words, release) = row(&format!("web@{rack}"));
            assert_eq!(words, format!("web@{rack} running {short} now 2 by 2 everything"));
            assert!(release || !with_release, "{text}");
        }
    }
    let targets = status_json(&world, 0);
    let waiting: Vec<(&str, usize, &Value)> = targets
        .iter()
        .map(|target| {
            let waiting = &target["waiting"];
            (target["target"].as_str().unwrap(), waiting["commits"].as_array().unwrap().len(), &waiting["authors"])
        })
        .collect();
    let (nobody, both) = (json!([]), json!(["Ada", "Bob"]));
    let expected = [("api@production", 0, &nobody), ("api@staging", 0, &nobody), ("web@production", 2, &both), ("web@staging", 2, &both)];
    assert_eq!(waiting, expected);
    // `why` tells the same.
    let why: Value = serde_json::from_str(&world.run(&["why", "web@staging", "--format", "json"]).code(0).done.stdout).unwrap();
    assert_eq!(why["targets"][0]["waiting"], targets[3]["waiting"]);
    assert_eq!((&targets[3]["author"], &targets[3]["held"]), (&json!("Ada"), &Value::Null));
}

#[test]
fn what_somebody_rolled_back_is_told_as_held() {
    let world = Setup::new(&["web"]).start();
    world.run(&["deploy"]).code(0);
    let good = world.sandbox.live("staging", "web");
    let bad = world.page("web", "bad").repo.commit("bad");
    world.run(&["deploy"]).code(0);
    world.sandbox.roll_back("staging", "web", &good.release);
    let text = world.run(&["status"]).code(0).done.stdout;
    let told =
        format!("web@staging is held: somebody rolled it back from {}\n  next: offbuild deploy --release-hold web@staging\n", &bad[..12]);
    assert!(text.contains(&told), "{text}");
    assert_eq!(status_json(&world, 0)[0]["held"], json!({"from": bad}));
}

#[test]
fn a_rack_that_says_nothing_costs_its_own_rows_only() {
    let world = two_racks();
    // It takes connections, and nobody ever reads from them.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("http://{}", listener.local_addr().unwrap());
    let nobody = Port::hold();
    let closed = format!("http://{}", nobody.host());
    for (host, why) in [(silent, "no answer within 5 seconds"), (closed, "Connection refused")] {
        let offbuild = world.offbuild().env("PRODUCTION_HOST", &host);
        let text = world.run_as(&offbuild, &["status"]).code(3).done.stdout;
        assert!(text.contains("api@production  unreachable  ") && text.contains("web@production  unreachable  "), "{text}");
        assert!(text.contains("api@staging     running      ") && text.contains("web@staging     running      "), "{text}");
        let told: Vec<&str> = text.lines().filter(|line| line.contains(why)).collect();
        assert!(matches!(told[..], [one] if one.starts_with("rack `production` cannot be reached: ")), "once for the rack:\n{text}");
        assert!(text.contains("\n  next: check "), "{text}");
        let json: Value = serde_json::from_str(&world.run_as(&offbuild, &["status", "--format", "json"]).code(3).done.stdout).unwrap();
        let [production, staging] = [&json["targets"][0], &json["targets"][1]];
        assert!(production["error"].as_str().unwrap().contains(why) && production["status"].is_null(), "{production}");
        assert_eq!((&staging["status"], &staging["error"]), (&json!("running"), &Value::Null));
    }
}
