//! `docs/reference.md`: every command, key, variable, exit code, event and failure class once, made from the code.
//!
//! Commands come from the command line's own definition, keys from the schema, events and classes from the types' documentation.
//! Variables stand here, in tables that are held against the sources: one that is read and not told, or told and not read, fails.

mod commands;
mod keys;
mod types;
mod variables;

use std::path::{Path, PathBuf};

const FILE: &str = "docs/reference.md";
const COMMAND: &str = "OFFBUILD_WRITE_DOCS=1 cargo test --locked --test it -- reference::";

#[test]
fn the_reference_says_what_the_code_does() {
    let mut text = format!(
        "# Reference\n\nMade from the code by `{COMMAND}`,\nand held by the same test: do not edit it by hand. `README.md` tells what it is all for.\n\n\
         [Commands](#commands) · [Keys of apps.yaml](#keys-of-appsyaml) · [Variables](#variables) · [Exit codes](#exit-codes) ·\n\
         [Events](#events) · [Failure classes](#failure-classes)\n"
    );
    commands::write(&mut text);
    keys::write(&mut text);
    variables::write(&mut text);
    types::write(&mut text);
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(FILE);
    if std::env::var_os("OFFBUILD_WRITE_DOCS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = text.lines().zip(known.lines()).find(|(now, then)| now != then);
    assert!(text == known, "`{FILE}` is not what the code says; write it anew with\n  {COMMAND}\nfirst difference: {differs:#?}");
}

/// A row of a table; what would end a cell is escaped.
fn row(text: &mut String, cells: &[&str]) {
    for cell in cells {
        text.push_str(&format!("| {} ", cell.replace('|', "\\|").replace('\n', " ")));
    }
    text.push_str("|\n");
}

fn heading(text: &mut String, cells: &[&str]) {
    row(text, cells);
    text.push_str(&"|---".repeat(cells.len()));
    text.push_str("|\n");
}

/// The sources of the product without their tests, by path below `src`.
fn sources() -> Vec<(String, String)> {
    fn collect(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, found);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    collect(&root, &mut paths);
    paths.sort();
    let for_tests = |path: &str| path.split(['/', '.']).any(|part| matches!(part, "tests" | "samples"));
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
        (path.strip_prefix(&root).unwrap().display().to_string(), product)
    };
    paths.into_iter().map(read).filter(|(path, _)| !for_tests(path)).collect()
}
