//! What the documentation and the command line say of themselves: configurations load, pipelines are right, and init, completions and the
//! manual page work.

use super::support::{Offbuild, repo::Repo};
use std::collections::BTreeSet;

#[test]
fn every_configuration_in_the_readme_loads() {
    let readme = include_str!("../../README.md");
    let configurations: Vec<String> = blocks(readme, "yaml").into_iter().filter(|block| block.starts_with("version: 1\n")).collect();
    assert!(!configurations.is_empty());
    for configuration in &configurations {
        let repo = Repo::new();
        repo.write("apps/web/convox.yml", "services:\n  web:\n    build: .\n").write("apps/web/Dockerfile", "FROM scratch\nCOPY . /\n");
        repo.write("apps.yaml", configuration);
        repo.commit("The README's configuration");
        let done = Offbuild::new(&repo.root(), repo.dir.path()).run(&["validate"]).code(0);
        assert!(done.stdout.starts_with("1 app, 1 target, "), "{}", done.stdout);
    }
}

/// The blocks of a page in a language, without the indentation of lists.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let begin = format!("```{language}\n");
    let found = page.split(&begin).skip(1).filter_map(|rest| rest.split_once("```"));
    found.map(|(block, _)| unindented(block)).collect()
}

/// The texts of a YAML value.
fn texts(value: &serde_yaml::Value, found: &mut Vec<String>) {
    match value {
        serde_yaml::Value::String(text) => found.push(text.clone()),
        serde_yaml::Value::Sequence(items) => items.iter().for_each(|item| texts(item, found)),
        serde_yaml::Value::Mapping(map) => map.values().for_each(|value| texts(value, found)),
        _ => {}
    }
}

/// The command lines of a shell's text that begin with `offbuild`, as words; what a CI fills in stands for nothing.
fn commands(shell: &str) -> Vec<Vec<String>> {
    let filled = regex::Regex::new(r"<<[^>]*>>").unwrap().replace_all(shell, "");
    let lines = filled.lines().flat_map(|line| line.split("&&").flat_map(|part| part.split(';'))).map(|line| line.trim().to_owned());
    let ours =
        lines.map(|line| line.strip_prefix("exec ").map_or(line.clone(), str::to_owned)).filter(|line| line.starts_with("offbuild "));
    ours.map(|line| line.split_whitespace().map(|word| word.trim_matches(['"', '\'']).to_owned()).collect()).collect()
}

#[test]
fn every_pipeline_of_the_documentation_is_yaml_and_its_command_lines_are_right() {
    use clap::Parser as _;
    let steps = regex::Regex::new(r"sh '([^']*)'").unwrap();
    let mut asked = BTreeSet::new();
    for (page, wanted) in [(include_str!("../../README.md"), 2), (include_str!("../../docs/ci.md"), 13)] {
        let mut shell = Vec::new();
        for block in blocks(page, "yaml") {
            let value: serde_yaml::Value = serde_yaml::from_str(&block).unwrap_or_else(|error| panic!("{error}\n{block}"));
            texts(&value, &mut shell);
        }
        shell.extend(
            blocks(page, "groovy").iter().flat_map(|block| steps.captures_iter(block).map(|step| step[1].to_owned()).collect::<Vec<_>>()),
        );
        let commands: Vec<Vec<String>> = shell.iter().flat_map(|text| commands(text)).collect();
        assert!(commands.len() >= wanted, "{commands:?}");
        for words in commands {
            let parsed = offbuild::cli::Cli::try_parse_from(&words);
            assert!(parsed.is_ok(), "`{}`: {}", words.join(" "), parsed.err().unwrap());
            asked.extend(words.get(1).cloned());
        }
    }
    assert!(asked.contains("deploy") && asked.contains("changed"), "{asked:?}");
    // What stands in the text is right, too.
    let page = include_str!("../../docs/ci.md");
    for span in
        page.split("\n```").step_by(2).flat_map(|text| text.split('`').skip(1).step_by(2)).filter(|span| span.starts_with("offbuild "))
    {
        let words = span.split_whitespace();
        assert!(offbuild::cli::Cli::try_parse_from(words).is_ok(), "`{span}`");
    }
}

#[test]
fn the_variables_of_cis_are_those_that_are_read() {
    let page = include_str!("../../docs/ci.md");
    let (_, compared) = page.split_once("**What is compared with.**").unwrap();
    let told: BTreeSet<&str> =
        compared.split("\n\n").next().unwrap().split('`').skip(1).step_by(2).filter(|word| word.contains('_')).collect();
    let (sources, _) = include_str!("../../src/changes/base.rs").split_once("#[cfg(test)]").unwrap();
    let names = regex::Regex::new(r#""([A-Z]+(?:_[A-Z]+)+)""#).unwrap();
    let read = names.captures_iter(sources).map(|found| found.get(1).unwrap().as_str());
    // These only say that a CI runs.
    let only_ci = ["CODEBUILD_BUILD_ID", "GITHUB_ACTIONS", "GITLAB_CI", "JENKINS_URL", "TEAMCITY_VERSION", "TF_BUILD"];
    let read: BTreeSet<&str> = read.filter(|name| !only_ci.contains(name)).collect();
    assert_eq!(told, read);
}

#[test]
fn what_the_documentation_links_to_is_there_and_its_pictures_are_small() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let links = regex::Regex::new(r"\]\(([^)#:]+)(#[^)]*)?\)").unwrap();
    let mut pictures = 0;
    for page in ["README.md", "docs/ci.md", "docs/reference.md"] {
        let text = std::fs::read_to_string(root.join(page)).unwrap();
        for link in links.captures_iter(&text) {
            let file = root.join(page).parent().unwrap().join(&link[1]);
            let size = file.metadata().unwrap_or_else(|error| panic!("`{}` of {page}: {error}", &link[1])).len();
            if file.extension().is_some_and(|ending| ending == "png" || ending == "svg") {
                assert!(size < 200_000, "`{}` has {size} bytes", &link[1]);
                pictures += 1;
            }
        }
    }
    assert_eq!(pictures, 2);
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
