//! The README's tables are what the program does.

use clap::CommandFactory as _;
use offbuild::cli::Cli;
use offbuild::error::Kind;
use std::collections::BTreeSet;

const README: &str = include_str!("../../../README.md");

/// The part below a heading.
fn section(heading: &str) -> &'static str {
    let (_, rest) = README.split_once(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("the README has no `{heading}`"));
    rest.split("\n## ").next().unwrap()
}

/// The rows of a section's tables, their cells.
fn rows(heading: &str) -> Vec<Vec<&'static str>> {
    let rows = section(heading).lines().filter(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

#[test]
fn every_exit_code_is_in_the_table() {
    let kinds = [Kind::Failed, Kind::Config, Kind::Unusable, Kind::Refused, Kind::Locked, Kind::Interrupted, Kind::Terminated];
    let codes: BTreeSet<u8> = kinds.into_iter().map(Kind::exit_code).chain([0]).collect();
    let told = rows("Exit codes").iter().flat_map(|row| row[0].split(", ").filter_map(|code| code.parse().ok())).collect();
    assert_eq!(codes, told);
}

#[test]
fn every_variable_of_a_hook_is_in_the_table() {
    let source = include_str!("../../../src/deploy/hook_env.rs");
    let names = regex::Regex::new(r#""([A-Z]+(?:_[A-Z]+)+_?)"#).unwrap();
    let set: BTreeSet<&str> = names.captures_iter(source).map(|found| found.get(1).unwrap().as_str()).collect();
    assert!(set.len() > 15, "{set:?}");
    let told: BTreeSet<&str> = rows("Hooks").iter().flat_map(|row| row[0].split('`').skip(1).step_by(2)).collect();
    let told: BTreeSet<&str> = told.iter().map(|name| name.trim_end_matches("<SERVICE>")).filter(|name| !name.ends_with(".sh")).collect();
    assert_eq!(set, told);
}

#[test]
fn every_command_is_in_the_help_or_the_readme() {
    let mut cli = Cli::command();
    let help = cli.render_help().to_string();
    for command in cli.get_subcommands() {
        let name = command.get_name();
        assert!(command.get_about().is_some(), "`{name}` has no help");
        assert!(help.contains(&format!("  {name} ")) || README.contains(&format!("offbuild {name}")), "`{name}` is told nowhere");
    }
}

#[test]
fn every_command_of_the_readme_is_one() {
    let cli = Cli::command();
    let known: BTreeSet<&str> = cli.get_subcommands().map(clap::Command::get_name).collect();
    for found in regex::Regex::new(r"offbuild ([a-z]+)").unwrap().captures_iter(README) {
        let name = found.get(1).unwrap().as_str();
        // Where it begins a command: in a code span, after `run:` or a prompt.
        let before = README[..found.get(0).unwrap().start()].chars().next_back();
        if matches!(before, Some('`' | '[' | '\'')) {
            assert!(known.contains(name), "`offbuild {name}` is no command");
        }
    }
}
