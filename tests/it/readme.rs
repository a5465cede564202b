//! What the README and the command line say of themselves: its configurations load, and init, completions and manual page work.

use super::support::{Offbuild, repo::Repo};

#[test]
fn every_configuration_in_the_readme_loads() {
    let readme = include_str!("../../README.md");
    let blocks: Vec<String> = readme
        .split("```yaml\n")
        .skip(1)
        // A block in a list is indented like the list.
        .filter_map(|rest| rest.split_once("```").map(|(block, _)| unindented(block)))
        .collect();
    let configurations: Vec<&String> = blocks.iter().filter(|block| block.starts_with("version: 1\n")).collect();
    assert!(!configurations.is_empty());
    for configuration in configurations {
        let repo = Repo::new();
        repo.write("apps/web/convox.yml", "services:\n  web:\n    build: .\n").write("apps/web/Dockerfile", "FROM scratch\nCOPY . /\n");
        repo.write("apps.yaml", configuration);
        repo.commit("The README's configuration");
        let done = Offbuild::new(&repo.root(), repo.dir.path()).run(&["validate"]).code(0);
        assert!(done.stdout.starts_with("1 app, 1 target, "), "{}", done.stdout);
    }
}

#[test]
fn init_writes_a_file_that_validates_and_never_writes_over_one() {
    let repo = Repo::new();
    repo.write("services/api/convox.yml", "services:\n  web:\n    build: .\n").write("services/api/Dockerfile", "FROM scratch\nCOPY . /\n");
    repo.commit("One app");
    let offbuild = Offbuild::new(&repo.root(), repo.dir.path());
    let shown = offbuild.run(&["init", "--dry-run"]).code(0);
    assert!(!repo.path("apps.yaml").exists());
    offbuild.run(&["init"]).code(0);
    assert_eq!(std::fs::read_to_string(repo.path("apps.yaml")).unwrap(), shown.stdout);
    offbuild.run(&["validate"]).code(0);
    offbuild.run(&["init"]).code(2).says("is there already");
    assert_eq!(offbuild.run(&["init", "--full"]).code(0).stdout, include_str!("../../apps.example.yaml"));
}

/// The text without the indentation of its first line.
fn unindented(text: &str) -> String {
    let indent = text.len() - text.trim_start_matches(' ').len();
    text.lines().map(|line| format!("{}\n", line.get(indent..).unwrap_or_default())).collect()
}
