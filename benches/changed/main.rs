//! `cargo bench --bench changed`: how long "what changed" takes, against git itself and, with `-- --peers`, graph runners.
//!
//! For each size a repository is generated with `git fast-import` (apps with Dockerfile, manifest, hook and `uses`, shared
//! libraries, a long history) and kept below `target/bench-repositories` for the next time. Measured, in one run:
//!
//! - from commit to commit, over 1 and 50 commits: `offbuild changed --committed --base` against `git diff --name-only`;
//! - with the work tree, clean and with ten changed and untracked files: `offbuild changed --base` against
//!   `git status --porcelain`;
//! - the first call, without `.offbuild/cache`, and those after it, with it.
//!
//! Options, after `--`: `sizes=20,200,2000`, `runs=9`, `--peers`, `--cold` (drops the page cache before the first calls: needs
//! root, and slows down whatever else runs on the machine).

#[path = "../support/mod.rs"]
mod support;

mod peers;
mod repository;

use repository::Repository;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use support::{OFFBUILD, asked, cores, flag, git, median, option, stop, table, timed};

fn main() {
    if !asked() {
        return;
    }
    let sizes = option("sizes").unwrap_or_else(|| "20,200,2000".to_owned());
    println!("{} cores; medians in ms; ratio: offbuild / git; memory: peak resident, MB", cores());
    for size in sizes.split(',') {
        let apps = size.parse().unwrap_or_else(|_| stop(&format!("`{size}` is no number of apps")));
        let repository = Repository::of(apps);
        println!("\n{} apps, {} files, {} commits\n", apps, repository.files, repository.commits);
        table(&measure(&repository));
        if flag("--peers") {
            peers::compare(&repository);
        }
    }
}

fn measure(repository: &Repository) -> Vec<Vec<String>> {
    let root = &repository.root;
    let titles = ["", "git", "git, MB", "offbuild, first call", "offbuild", "offbuild, MB", "ratio"];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    for commits in [1, 50] {
        let base = format!("HEAD~{commits}");
        let offbuild = || changed(root, &["--committed", "--base", &base]);
        let diff = || git(root, &["diff", "--name-only", &base, "HEAD"]);
        rows.push(row(&format!("{commits} commits, commit to commit"), root, &diff, &offbuild));
    }
    for dirty in [false, true] {
        if dirty {
            repository.make_dirty();
        }
        let offbuild = || changed(root, &["--base", "HEAD~1"]);
        let status = || git(root, &["status", "--porcelain"]);
        rows.push(row(if dirty { "work tree, dirty" } else { "work tree, clean" }, root, &status, &offbuild));
        repository.make_clean();
    }
    let start = || {
        let mut command = Command::new(OFFBUILD);
        command.arg("--version");
        command
    };
    rows.push(row("start-up (`--version`)", root, &|| git(root, &["--version"]), &start));
    rows
}

/// `offbuild changed`, told nothing by the machine's own environment.
fn changed(root: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(OFFBUILD);
    command.arg("changed").args(args).args(["--format", "names"]).current_dir(root);
    for name in ["GITHUB_ACTIONS", "GITHUB_EVENT_PATH", "OFFBUILD_BASE", "OFFBUILD_CONFIG"] {
        command.env_remove(name);
    }
    command
}

fn row(title: &str, root: &Path, peer: &dyn Fn() -> Command, offbuild: &dyn Fn() -> Command) -> Vec<String> {
    let runs: usize = option("runs").and_then(|text| text.parse().ok()).unwrap_or(9);
    // Nothing remembered is as good as a directory that is not there.
    let _ = std::fs::remove_dir_all(root.join(".offbuild/cache"));
    drop_page_cache();
    let first = timed(&mut offbuild());
    drop_page_cache();
    timed(&mut peer());
    // Taking turns lets a busy moment of the machine meet both.
    let (git, ours): (Vec<Duration>, Vec<Duration>) = (0..runs).map(|_| (timed(&mut peer()), timed(&mut offbuild()))).unzip();
    let (git, ours) = (median(git), median(ours));
    let ms = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1000.0);
    let mb = |kib: Option<u64>| kib.map_or_else(|| "?".to_owned(), |kib| format!("{:.0}", kib as f64 / 1024.0));
    let ratio = format!("{:.2}", ours.as_secs_f64() / git.as_secs_f64());
    vec![title.to_owned(), ms(git), mb(peak(&peer())), ms(first), ms(ours), mb(peak(&offbuild())), ratio]
}

/// The most memory a command held, in KiB, as GNU time tells it.
fn peak(command: &Command) -> Option<u64> {
    let mut time = Command::new("/usr/bin/time");
    time.args(["-f", "%M"]).arg(command.get_program()).args(command.get_args());
    if let Some(directory) = command.get_current_dir() {
        time.current_dir(directory);
    }
    time.stdin(Stdio::null()).stdout(Stdio::null());
    let output = time.output().ok()?;
    String::from_utf8_lossy(&output.stderr).lines().last()?.trim().parse().ok()
}

fn drop_page_cache() {
    if flag("--cold") {
        support::run(&mut Command::new("sync"));
        if let Err(error) = std::fs::write("/proc/sys/vm/drop_caches", "3") {
            stop(&format!("the page cache cannot be dropped: {error}"));
        }
    }
}
