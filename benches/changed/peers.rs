//! Graph runners asked the same question: which projects does a range of commits touch?
//!
//! Installed by npm, in versions of their own, below `target/bench-peers`. One that cannot be installed or does not answer is
//! said to be missing.

use super::repository::Repository;
use super::support::{OFFBUILD, median, table, timed, works};
use std::path::Path;
use std::process::Command;

/// What npm installs.
const PACKAGES: [&str; 3] = ["turbo@2.11.11", "nx@24.0.6", "@moonrepo/cli@2.5.5"];

/// Prints how long each takes for one commit, beside offbuild.
pub fn compare(repository: &Repository) {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench-peers");
    let installed: Vec<&str> = PACKAGES.into_iter().filter(|package| install(&place, package)).collect();
    let root = &repository.root;
    let _ = std::os::unix::fs::symlink(place.join("node_modules"), root.join("node_modules"));
    let offbuild = {
        let mut command = Command::new(OFFBUILD);
        command.args(["changed", "--committed", "--base", "HEAD~1", "--format", "names"]);
        command
    };
    let mut all = vec![("offbuild", offbuild)];
    for package in &installed {
        let program = |name: &str| Command::new(place.join("node_modules/.bin").join(name));
        let (name, mut command) = match package.split('@').find(|part| !part.is_empty()) {
            Some("turbo") => ("turbo", program("turbo")),
            Some("nx") => ("nx", program("nx")),
            _ => ("moon", program("moon")),
        };
        match name {
            "turbo" => command.args(["ls", "--filter=...[HEAD~1...HEAD]"]),
            "nx" => command.args(["show", "projects", "--affected", "--base=HEAD~1", "--head=HEAD"]),
            _ => command.args(["query", "projects", "--affected"]).env("MOON_BASE", "HEAD~1").env("MOON_HEAD", "HEAD"),
        };
        command.env("NX_DAEMON", "false").env("TURBO_TELEMETRY_DISABLED", "1").env("CI", "1");
        all.push((name, command));
    }
    let mut rows = vec![vec!["1 commit".to_owned(), "ms".to_owned(), "× offbuild".to_owned()]];
    let mut ours = None;
    for (name, mut command) in all {
        command.current_dir(root);
        if !works(&mut command) {
            println!("{name} does not answer here: {command:?}");
            continue;
        }
        let took = median((0..5).map(|_| timed(&mut command)).collect()).as_secs_f64() * 1000.0;
        let first = *ours.get_or_insert(took);
        rows.push(vec![name.to_owned(), format!("{took:.0}"), format!("{:.1}", took / first)]);
    }
    println!();
    table(&rows);
    for package in PACKAGES.iter().filter(|package| !installed.contains(package)) {
        println!("{package} cannot be installed here");
    }
    let _ = std::fs::remove_file(root.join("node_modules"));
}

fn install(place: &Path, package: &str) -> bool {
    std::fs::create_dir_all(place).is_ok()
        && works(Command::new("npm").args(["install", "--no-audit", "--no-fund", "--no-package-lock", "--prefix"]).arg(place).arg(package))
}
