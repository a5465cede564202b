//! The demo, as a newcomer runs it: everything is shown, and nothing stays.

use super::support::services::Running;
use super::support::{Offbuild, engine, sh};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

/// One test for both, since demos share the name of their base image.
#[test]
fn the_demo_shows_everything_and_leaves_nothing_whether_it_ends_or_is_stopped() {
    let home = tempfile::tempdir().unwrap();
    let place = home.path().join("tmp");
    std::fs::create_dir(&place).unwrap();
    let offbuild = Offbuild::new(home.path(), home.path()).env("TMPDIR", place.to_str().unwrap());
    let empty = |place: &Path| std::fs::read_dir(place).unwrap().next().is_none();
    let before = engine::images("offbuild-demo-base");

    let done = offbuild.run(&["demo"]).code(0).says("5 deployed (").says("2 deployed, 3 up to date (");
    let done = done.says("nothing to do: 5 targets are up to date (");
    assert_eq!(done.stderr.matches("\n$ offbuild deploy\n").count(), 3, "{}", done.stderr);
    // What `offbuild changed` and `offbuild status` answered.
    let affected = |app: &str| done.stdout.lines().any(|line| line.starts_with(&format!("{app}@staging ")) && line.contains(" changed "));
    assert_eq!(["api", "billing", "jobs", "shop"].map(affected), [true, false, true, false], "{}", done.stdout);
    assert!(done.stdout.contains("shop@production  running"), "{}", done.stdout);
    assert!(empty(&place));

    let mut demo = Running(offbuild.command(&["demo"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(demo.0.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.ends_with("build started (apps/shop/Dockerfile)")), "it ended before that");
    sh(Command::new("kill").arg("-INT").arg(demo.0.id().to_string()));
    let rest: Vec<String> = lines.collect();
    assert_eq!(demo.0.wait().unwrap().code(), Some(130), "{}", rest.join("\n"));
    assert!(empty(&place));
    assert_eq!(engine::images("offbuild-demo-base"), before);
}
