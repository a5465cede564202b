//! What both benchmarks need: running programs with a clock, medians, a table.

// Each benchmark takes what it needs of this.
#![allow(dead_code, reason = "the module is compiled into each benchmark")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The binary under measurement, built with the benchmark's profile.
pub const OFFBUILD: &str = env!("CARGO_BIN_EXE_offbuild");

/// True when cargo wants the measurements: `cargo test --benches` runs these programs too, and they have nothing to say then.
pub fn asked() -> bool {
    std::env::args().any(|arg| arg == "--bench")
}

/// True when the flag is on the command line, after `--`.
pub fn flag(name: &str) -> bool {
    std::env::args().any(|arg| arg == name)
}

/// The value of `NAME=VALUE` on the command line, after `--`.
pub fn option(name: &str) -> Option<String> {
    std::env::args().find_map(|arg| arg.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
}

/// Runs a command to its end and returns how long it took. A failure ends the benchmark, with what the program said.
pub fn timed(command: &mut Command) -> Duration {
    let began = Instant::now();
    run(command);
    began.elapsed()
}

/// Runs a command to its end and returns its standard output. A failure ends the benchmark, with what the program said.
pub fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| stop(&format!("{command:?} cannot be run: {error}")));
    if !output.status.success() {
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        stop(&format!("{command:?} ended with {}\n{out}{err}", output.status));
    }
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

/// True when the command can be run and says that all is well.
pub fn works(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Ends the benchmark: measuring on would measure something else.
pub fn stop(message: &str) -> ! {
    panic!("{message}")
}

/// A git command that sees nothing of the machine's configuration.
pub fn git(directory: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("git");
    command.args(args).current_dir(directory).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "Ada").env(format!("GIT_{who}_EMAIL"), "ada@example.com");
    }
    command
}

/// The middle of some measurements.
pub fn median(mut of: Vec<Duration>) -> Duration {
    of.sort();
    of.get(of.len() / 2).copied().unwrap_or_default()
}

/// Prints rows as a Markdown table; the first is the heading.
pub fn table(rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for (number, row) in rows.iter().enumerate() {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        println!("| {} |", cells.join(" | "));
        if number == 0 {
            println!("|{}|", widths.iter().map(|width| "-".repeat(width + 2)).collect::<Vec<_>>().join("|"));
        }
    }
}

/// The cores of this machine.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
}
