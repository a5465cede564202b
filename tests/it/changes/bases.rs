//! Which commit each CI's clone is compared with, over real repositories: what it tells, in every situation it runs in.

use super::{Repo, chosen, git};
use std::path::Path;

const ZERO: &str = "0000000000000000000000000000000000000000";
const GONE: &str = "1234567890123456789012345678901234567890";

/// `root` ← `before` ← `pushed` on the default branch, `topic` from `before`, and `merged`, as a CI checks a pull request out;
/// `older` at `before`; `theirs` and `crossed`, of which each has merged `topic` and `pushed` on its own.
struct Remote {
    repo: Repo,
    root: String,
    before: String,
    pushed: String,
    topic: String,
    theirs: String,
}

impl Remote {
    fn new() -> Self {
        let repo = Repo::new();
        let (root, before) = (repo.commit("root"), repo.commit("before"));
        repo.git(&["checkout", "-q", "-b", "topic"]);
        repo.write("topic", "1");
        let topic = repo.commit("topic");
        repo.git(&["checkout", "-q", "main"]);
        repo.write("main", "1");
        let pushed = repo.commit("pushed");
        repo.git(&["checkout", "-q", "-b", "merged", "topic"]);
        repo.git(&["merge", "-q", "--no-ff", "-m", "merged", "main"]);
        repo.git(&["branch", "-q", "older", before.as_str()]);
        repo.git(&["checkout", "-q", "-b", "crossed", "main"]);
        repo.git(&["merge", "-q", "--no-ff", "-m", "crossed", "topic"]);
        repo.git(&["checkout", "-q", "-b", "theirs", "topic"]);
        repo.git(&["merge", "-q", "--no-ff", "-m", "theirs", "main"]);
        let theirs = repo.id("HEAD").to_string();
        repo.git(&["checkout", "-q", "main"]);
        Self { theirs, repo, root: root.to_string(), before: before.to_string(), pushed: pushed.to_string(), topic: topic.to_string() }
    }

    /// A clone as a CI makes it: HEAD on a commit of `branch`, no branch of its own.
    fn clone(&self, name: &str, branch: &str, options: &[&str]) -> std::path::PathBuf {
        let options: Vec<&str> = ["--branch", branch].into_iter().chain(options.iter().copied()).collect();
        let clone = self.repo.clone(name, &options);
        git(&clone, &["checkout", "-q", "--detach"]);
        git(&clone, &["branch", "-q", "-D", branch]);
        clone
    }
}

/// A row: the situation, the variables, GitHub's event, and the answer.
type Row<'a> = (&'a str, &'a Path, Vec<(&'a str, &'a str)>, Option<String>, String);

#[test]
fn each_ci_in_each_situation() {
    let remote = Remote::new();
    let Remote { root, before, pushed, topic, theirs, .. } = &remote;
    let (main, branch) = (remote.clone("main", "main", &[]), remote.clone("branch", "topic", &[]));
    let merged = remote.clone("pull", "merged", &[]);
    let (older, crossed) = (remote.clone("older", "older", &[]), remote.clone("crossed", "crossed", &[]));
    let (main, branch, merged) = (main.as_path(), branch.as_path(), merged.as_path());
    let (taken_back, crossed) = (older.as_path(), crossed.as_path());
    let (github, ci) = (("GITHUB_ACTIONS", "true"), ("CI", "true"));
    let push = |id: &str| Some(format!(r#"{{"before": "{id}", "after": "x"}}"#));
    let pull = |id: &str| Some(format!(r#"{{"pull_request": {{"base": {{"sha": "{id}"}}}}}}"#));
    let queue = |id: &str| Some(format!(r#"{{"merge_group": {{"base_sha": "{id}"}}}}"#));
    let compare = |range: &str| format!("https://github.com/o/r/compare/{range}");
    let (usual, first) = (compare(&format!("{before}...{pushed}")), compare(&format!("{topic}^...{topic}")));
    let zero = |source: &str| {
        format!("before from merge base with `origin/HEAD` | {source} passed over: it is the zero id: there was nothing before")
    };
    let gone = |source: &str| {
        let why = format!("`{GONE}` is not in this repository (force push, or not fetched)");
        format!("unreachable {source}: {why}; git fetch origin {GONE} | {source} passed over: {why}")
    };
    let forced = |source: &str| {
        format!(
            "before from merge base with `origin/HEAD` | {source} passed over: `{GONE}` is not in this repository (force push, or not fetched)"
        )
    };
    let behind = |source: &str| {
        format!("before from {source} | {} is no ancestor of HEAD: their merge base {} is used", &pushed[..12], &before[..12])
    };
    let back = |source: &str| format!("pushed from {source} | {} is ahead of HEAD: the two are compared directly", &pushed[..12]);
    let across =
        |source: &str| format!("theirs from {source} | {} and HEAD have 2 merge bases: the two are compared directly", &theirs[..12]);
    let silent = "the CI passed over: it does not tell which commit came before";
    let table: Vec<Row<'_>> = vec![
        ("GitHub push", main, vec![github, ci], push(before), "before from `push.before` of GitHub's event".into()),
        ("GitHub push of several commits", main, vec![github, ci], push(root), "root from `push.before` of GitHub's event".into()),
        ("GitHub first push of a branch", branch, vec![github, ci], push(ZERO), zero("`push.before` of GitHub's event")),
        ("GitHub force push of a branch", branch, vec![github, ci], push(GONE), forced("`push.before` of GitHub's event")),
        ("GitHub push that takes commits back", taken_back, vec![github, ci], push(pushed), back("`push.before` of GitHub's event")),
        ("GitHub push of a branch merged crosswise", crossed, vec![github, ci], push(theirs), across("`push.before` of GitHub's event")),
        (
            "GitHub pull request of a shallow clone that has only its last state",
            branch,
            vec![github, ci],
            Some(format!(r#"{{"before": "{topic}", "pull_request": {{"base": {{"sha": "{GONE}"}}}}}}"#)),
            forced("`pull_request.base.sha` of GitHub's event"),
        ),
        ("GitHub force push of the default branch", main, vec![github, ci], push(GONE), gone("`push.before` of GitHub's event")),
        (
            "GitHub first push of the default branch",
            main,
            vec![github, ci],
            push(ZERO),
            "unreachable `push.before` of GitHub's event: it is the zero id: there was nothing before \
             | `push.before` of GitHub's event passed over: it is the zero id: there was nothing before"
                .into(),
        ),
        (
            "GitHub pull request",
            merged,
            vec![github, ci, ("GITHUB_BASE_REF", "main")],
            pull(pushed),
            "pushed from `pull_request.base.sha` of GitHub's event".into(),
        ),
        (
            "GitHub pull request, its own commit checked out",
            branch,
            vec![github, ci],
            pull(pushed),
            behind("`pull_request.base.sha` of GitHub's event"),
        ),
        (
            "GitHub pull request without its event",
            branch,
            vec![github, ("GITHUB_BASE_REF", "main")],
            None,
            behind("`GITHUB_BASE_REF` (main)"),
        ),
        ("GitHub merge queue", merged, vec![github, ci], queue(pushed), "pushed from `merge_group.base_sha` of GitHub's event".into()),
        (
            "GitHub by hand, on a branch",
            branch,
            vec![github, ci],
            Some("{}".into()),
            format!("before from merge base with `origin/HEAD` | {silent}"),
        ),
        (
            "GitHub by hand, on the default branch",
            main,
            vec![github, ci],
            Some("{}".into()),
            format!("unreachable the CI: it does not tell which commit came before | {silent}"),
        ),
        ("GitLab push", main, vec![ci, ("CI_COMMIT_BEFORE_SHA", before)], None, "before from `CI_COMMIT_BEFORE_SHA`".into()),
        ("GitLab first push of a branch", branch, vec![ci, ("CI_COMMIT_BEFORE_SHA", ZERO)], None, zero("`CI_COMMIT_BEFORE_SHA`")),
        ("GitLab force push of a branch", branch, vec![ci, ("CI_COMMIT_BEFORE_SHA", GONE)], None, forced("`CI_COMMIT_BEFORE_SHA`")),
        (
            "GitLab merge request",
            branch,
            vec![ci, ("CI_MERGE_REQUEST_DIFF_BASE_SHA", before), ("CI_COMMIT_BEFORE_SHA", ZERO)],
            None,
            "before from `CI_MERGE_REQUEST_DIFF_BASE_SHA`".into(),
        ),
        (
            "Buildkite pull request",
            branch,
            vec![ci, ("BUILDKITE_PULL_REQUEST_BASE_BRANCH", "main")],
            None,
            behind("`BUILDKITE_PULL_REQUEST_BASE_BRANCH` (main)"),
        ),
        (
            "Buildkite push of the default branch",
            main,
            vec![ci, ("BUILDKITE", "true"), ("BUILDKITE_PULL_REQUEST_BASE_BRANCH", "")],
            None,
            format!("unreachable the CI: it does not tell which commit came before | {silent}"),
        ),
        ("CircleCI push", main, vec![ci, ("CIRCLE_COMPARE_URL", &usual)], None, "before from `CIRCLE_COMPARE_URL`".into()),
        (
            "CircleCI first push of a branch",
            branch,
            vec![ci, ("CIRCLE_COMPARE_URL", &first)],
            None,
            "before from `CIRCLE_COMPARE_URL`".into(),
        ),
        (
            "Jenkins",
            main,
            vec![("JENKINS_URL", "https://ci"), ("GIT_PREVIOUS_SUCCESSFUL_COMMIT", root)],
            None,
            "root from `GIT_PREVIOUS_SUCCESSFUL_COMMIT`".into(),
        ),
        (
            "Jenkins, an older commit than the last one",
            taken_back,
            vec![("JENKINS_URL", "https://ci"), ("GIT_PREVIOUS_SUCCESSFUL_COMMIT", pushed)],
            None,
            back("`GIT_PREVIOUS_SUCCESSFUL_COMMIT`"),
        ),
        (
            "GitHub pull request of nothing, behind its target",
            taken_back,
            vec![github, ci, ("GITHUB_BASE_REF", "main")],
            None,
            behind("`GITHUB_BASE_REF` (main)"),
        ),
        (
            "Jenkins change request",
            branch,
            vec![("JENKINS_URL", "https://ci"), ("CHANGE_TARGET", "main"), ("GIT_PREVIOUS_SUCCESSFUL_COMMIT", root)],
            None,
            behind("`CHANGE_TARGET` (main)"),
        ),
        (
            "Jenkins' first build",
            main,
            vec![("JENKINS_URL", "https://ci")],
            None,
            format!("unreachable the CI: it does not tell which commit came before | {silent}"),
        ),
        ("no CI, on the default branch", main, vec![], None, "pushed from merge base with `origin/HEAD`".into()),
        ("no CI, on a branch", branch, vec![], None, "before from merge base with `origin/HEAD`".into()),
        (
            "the variable goes before the CI",
            main,
            vec![github, ("OFFBUILD_BASE", root)],
            push(before),
            format!("root from `OFFBUILD_BASE` ({root})"),
        ),
    ];
    for (name, clone, variables, event, expected) in table {
        assert_eq!(chosen(clone, None, &variables, event.as_deref()), expected, "{name}");
    }
    let flag = chosen(main, Some(root), &[("OFFBUILD_BASE", before), ci], None);
    assert_eq!(flag, format!("root from `--base {root}`"), "the flag goes before everything");
}

#[test]
fn a_clone_of_depth_1_names_the_one_command_that_cures_it() {
    let remote = Remote::new();
    let clone = remote.clone("shallow", "topic", &["--depth", "1"]);
    let before = remote.before.as_str();
    let not_here = format!("`{before}` is not in this shallow clone");
    for (variables, source) in [
        (vec![("CI_COMMIT_BEFORE_SHA", before)], "`CI_COMMIT_BEFORE_SHA`"),
        (vec![("GIT_PREVIOUS_SUCCESSFUL_COMMIT", before)], "`GIT_PREVIOUS_SUCCESSFUL_COMMIT`"),
    ] {
        let answer = chosen(&clone, None, &variables, None);
        assert!(answer.starts_with(&format!("unreachable {source}: {not_here}; git fetch --unshallow origin")), "{answer}");
    }
    let answer = chosen(&clone, None, &[("GITHUB_BASE_REF", "main")], None);
    let command = "git fetch --unshallow origin +refs/heads/main:refs/remotes/origin/main";
    assert!(
        answer.starts_with(&format!("unreachable `GITHUB_BASE_REF` (main): `origin/main` is not in this shallow clone; {command}")),
        "{answer}"
    );
    // The named branch is here and the commit both come from is not.
    git(&clone, &["fetch", "-q", "--depth", "1", "origin", "+refs/heads/main:refs/remotes/origin/main"]);
    let answer = chosen(&clone, None, &[("GITHUB_BASE_REF", "main")], None);
    assert!(answer.starts_with("unreachable `GITHUB_BASE_REF` (main): its history does not reach back to a common commit"), "{answer}");
    // What is said cures it.
    let words: Vec<&str> = command.split(' ').skip(1).collect();
    git(&clone, &words);
    assert!(chosen(&clone, None, &[("GITHUB_BASE_REF", "main")], None).starts_with("before from `GITHUB_BASE_REF` (main)"));
}
