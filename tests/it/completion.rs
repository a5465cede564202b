//! Completion in a real bash: the script is sourced as a person's profile does, and asked as the key does.

use crate::support::Offbuild;
use crate::support::repo::Repo;
use std::path::Path;

const APPS_YAML: &str = "version: 1
discover: {include: [\"apps/*\"]}
registry: {repository: \"${NOT_SET_HERE}/{app}\"}
racks:
  production: {host: \"${NOT_SET_EITHER}\", password: \"${NOR_THIS}\"}
  staging: {host: \"${NOT_SET_EITHER}\", password: \"${NOR_THIS}\"}
defaults: {racks: [staging]}
apps: {web: {racks: [staging, production]}}
";

fn repo() -> Repo {
    let repo = Repo::new();
    for app in ["api", "web", "web-admin"] {
        repo.write(&format!("apps/{app}/convox.yml"), "services:\n  web:\n    build: .\n");
    }
    repo.write("apps.yaml", APPS_YAML).commit("apps");
    repo
}

/// What bash would offer for the last word of a line.
#[track_caller]
fn offered(repo: &Repo, line: &str) -> Vec<String> {
    let words: Vec<&str> = line.split(' ').collect();
    let bin = Path::new(env!("CARGO_BIN_EXE_offbuild")).parent().unwrap().display().to_string();
    let script = format!(
        r#"source <(offbuild completions bash); COMP_WORDS=({quoted}); COMP_CWORD={at}; COMP_TYPE=9
        [[ "$COMP_WORDBREAKS" != *@* ]] || echo "words are cut at @"
        $(complete -p offbuild | sed 's/.*-F \([^ ]*\) .*/\1/') offbuild {last} {before}; printf '%s\n' "${{COMPREPLY[@]}}""#,
        quoted = words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" "),
        at = words.len() - 1,
        last = format_args!("\"{}\"", words[words.len() - 1]),
        before = words[words.len() - 2],
    );
    let offbuild = Offbuild::new(&repo.root(), repo.dir.path()).env("SCRIPT", script);
    let done = offbuild.shell(&format!("PATH={bin}:$PATH exec bash -c \"$SCRIPT\""));
    assert_eq!((done.code, done.stderr.as_str()), (0, ""), "{line}: {}", done.stdout);
    done.stdout.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[test]
fn bash_knows_commands_apps_racks_and_targets() {
    let repo = repo();
    let table: [(&str, &[&str]); 10] = [
        ("offbuild dep", &["deploy"]),
        ("offbuild deploy web", &["web", "web-admin"]),
        ("offbuild deploy api we", &["web", "web-admin"]),
        ("offbuild deploy web@", &["web@staging", "web@production"]),
        ("offbuild deploy --rack s", &["staging"]),
        ("offbuild status -r p", &["production"]),
        ("offbuild rollback web", &["web@staging", "web@production", "web-admin@staging"]),
        ("offbuild config web@p", &["web@production"]),
        ("offbuild show la", &["latest"]),
        ("offbuild deploy nothing", &[]),
    ];
    for (line, expected) in table {
        assert_eq!(offered(&repo, line), expected, "{line}");
    }
}

#[test]
fn what_cannot_be_read_has_no_names_and_says_nothing() {
    let repo = repo();
    repo.write("apps.yaml", "version: [");
    assert_eq!(offered(&repo, "offbuild deploy w"), [""; 0]);
    assert_eq!(offered(&repo, "offbuild dep"), ["deploy"]);
}

#[test]
fn every_shell_has_a_script_that_asks_the_binary() {
    let repo = repo();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let done = Offbuild::new(&repo.root(), repo.dir.path()).run(&["completions", shell]);
        assert!(done.code == 0 && done.stdout.contains("OFFBUILD_COMPLETE"), "{shell}: {}{}", done.stdout, done.stderr);
    }
}

#[test]
fn each_command_has_a_page() {
    let repo = repo();
    let offbuild = Offbuild::new(&repo.root(), repo.dir.path());
    let done = offbuild.run(&["man", "rollback"]);
    assert!(done.code == 0 && done.stdout.contains(".TH offbuild-rollback 1"), "{}", done.stdout);
    assert!(done.stdout.contains("offbuild rollback api@production") && done.stdout.contains("APP@RACK"), "{}", done.stdout);
    assert!(offbuild.run(&["man"]).stdout.contains(".TH offbuild 1"));
    let done = offbuild.run(&["man", "rolback"]);
    assert_eq!((done.code, done.stderr.as_str()), (2, "error: there is no command `rolback`\n  next: did you mean `rollback`?\n"));
}
