//! What `deny.toml` says of the dependencies, held where cargo-deny is not installed: licences, banned crates, sources.

use super::support::sh;
use std::path::Path;
use std::process::Command;

/// The strings of a list in `deny.toml`: enough of TOML for one line.
fn list(deny: &str, key: &str) -> Vec<String> {
    let line = deny.lines().find(|line| line.starts_with(&format!("{key} = ["))).unwrap_or_else(|| panic!("deny.toml has no `{key}`"));
    line.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// True when an SPDX expression can be met with the allowed licences.
fn met(expression: &str, allowed: &[String]) -> bool {
    // The old way to write OR.
    let expression = expression.replace('/', " OR ");
    let expression = expression.trim();
    let split = |word: &str| -> Option<Vec<String>> {
        let (mut depth, mut parts) = (0, vec![Vec::new()]);
        for part in expression.replace('(', "( ").replace(')', " )").split_whitespace() {
            match part {
                "(" => depth += 1,
                ")" => depth -= 1,
                _ => {}
            }
            if depth == 0 && part == word { parts.push(Vec::new()) } else { parts.last_mut()?.push(part.to_owned()) }
        }
        (parts.len() > 1).then(|| parts.iter().map(|part| part.join(" ")).collect())
    };
    if let Some(parts) = split("OR") {
        parts.iter().any(|part| met(part, allowed))
    } else if let Some(parts) = split("AND") {
        parts.iter().all(|part| met(part, allowed))
    } else if let Some(inside) = expression.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
        met(inside, allowed)
    } else {
        allowed.iter().any(|licence| licence == expression)
    }
}

#[test]
fn expressions_are_met_as_spdx_means_them() {
    let allowed = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned);
    let table = [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0/MIT", true),
        ("GPL-3.0 AND MIT", false),
        ("(GPL-3.0 OR ISC) AND MIT", true),
        ("(GPL-3.0 OR ISC) AND (MIT AND BSD-3-Clause)", false),
        ("Apache-2.0 WITH LLVM-exception OR Apache-2.0", true),
    ];
    for (expression, expected) in table {
        assert_eq!(met(expression, &allowed), expected, "{expression}");
    }
}

#[test]
fn every_dependency_is_allowed_by_licence_name_and_source() {
    let deny = include_str!("../../deny.toml");
    let (allowed, banned) = (list(deny, "allow"), list(deny, "deny"));
    assert!(!allowed.is_empty() && !banned.is_empty());
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let mut command = Command::new(env!("CARGO"));
    command.args(["metadata", "--format-version=1", "--offline", "--locked", "--filter-platform=x86_64-unknown-linux-gnu"]);
    command.arg("--manifest-path").arg(manifest);
    let metadata: serde_json::Value = serde_json::from_str(&sh(&mut command)).unwrap();
    let resolved: Vec<&str> = metadata["resolve"]["nodes"].as_array().unwrap().iter().filter_map(|node| node["id"].as_str()).collect();
    let mut wrong = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let (name, licence) = (package["name"].as_str().unwrap(), package["license"].as_str().unwrap_or("none"));
        if !resolved.contains(&package["id"].as_str().unwrap()) {
            continue;
        }
        if !met(licence, &allowed) {
            wrong.push(format!("{name}: licence `{licence}`"));
        }
        if banned.iter().any(|banned| banned == name) {
            wrong.push(format!("{name}: banned"));
        }
        if package["source"].as_str().is_some_and(|source| !source.starts_with("registry+") || !source.ends_with("/crates.io-index")) {
            wrong.push(format!("{name}: from {}", package["source"]));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
