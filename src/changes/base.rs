//! The commit to compare with when no rack tells it: `--base`, `OFFBUILD_BASE`, the CI's own event, the default branch.
//!
//! [`sources`] lists what the environment offers, in order; [`choose`] takes the first that exists here and answers with its
//! merge base with HEAD, or with the commit itself where a merge base would hide changes (there are several, or what ran before is
//! ahead of HEAD). A source that names nothing (a zero id, a commit that is not here) is passed over with a note.
//! It never answers "nothing changed" by accident: when a source was passed over and the next best base is HEAD itself, the base
//! is unreachable.

use super::History;
use crate::error::Result;
use crate::names::CommitId;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// The environment's variables, by name.
pub type Environment = BTreeMap<String, String>;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "base", rename_all = "kebab-case")]
pub enum Choice {
    /// A base.
    Found(Base),
    /// None that exists here.
    Unreachable(Unreachable),
}

/// A commit to compare with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Base {
    /// The commit.
    pub commit: CommitId,
    /// Where it came from: "`--base main`", "`push.before` of GitHub's event".
    pub source: String,
    /// The sources passed over, and other steps taken.
    pub notes: Vec<String>,
}

/// A base that is not here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unreachable {
    /// What was asked for, with its source.
    pub wanted: String,
    /// Why it cannot be had.
    pub why: String,
    /// What to run; `None` when no fetch can help.
    pub fetch: Option<FetchCommand>,
    /// The sources passed over.
    pub notes: Vec<String>,
}

/// A `git fetch` that brings a missing base: program and arguments.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct FetchCommand(pub Vec<String>);

impl FetchCommand {
    /// What brings `revision` to a repository that does not have it: the whole history for a shallow clone, the one commit or
    /// branch otherwise.
    #[must_use]
    pub fn for_missing(revision: &str, shallow: bool) -> Self {
        let mut words = vec!["git", "fetch"];
        if shallow {
            words.push("--unshallow");
        }
        words.push("origin");
        let mut words: Vec<String> = words.into_iter().map(str::to_owned).collect();
        match revision.strip_prefix("origin/") {
            Some("HEAD") => {}
            Some(branch) => words.push(format!("+refs/heads/{branch}:refs/remotes/origin/{branch}")),
            // Behind the border of a shallow clone it is the missing history that brings it; not every server hands out single commits.
            None if is_id(revision) && !shallow => words.push(revision.to_owned()),
            None if is_id(revision) || revision.contains(['~', '^', ':', '@']) => {}
            // A branch or a tag.
            None => words.extend(["--tags".to_owned(), "+refs/heads/*:refs/remotes/origin/*".to_owned()]),
        }
        Self(words)
    }
}

/// As typed into a shell.
impl fmt::Display for FetchCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |word: &str| word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./+:".contains(&byte));
        let words: Vec<String> =
            self.0.iter().map(|word| if plain(word) { word.clone() } else { format!("'{}'", word.replace('\'', "'\\''")) }).collect();
        f.write_str(&words.join(" "))
    }
}

/// A revision the environment offers as a base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Where it comes from.
    pub name: String,
    /// What to resolve; the first that exists is taken. None when a CI runs and tells nothing: on the default branch, what was
    /// pushed would look unchanged then.
    pub revisions: Vec<String>,
    /// A person asked for exactly this: nothing is put in its place.
    pub asked: bool,
}

/// Variables that each CI sets; some do not set `CI`, and builds set it to `false` for tools that read it.
const CIS: [&str; 8] =
    ["BUILDKITE", "CIRCLECI", "CODEBUILD_BUILD_ID", "GITHUB_ACTIONS", "GITLAB_CI", "JENKINS_URL", "TEAMCITY_VERSION", "TF_BUILD"];

/// What flag, environment and the CI's event (GitHub's, the text of the file `GITHUB_EVENT_PATH` names) offer, in order.
#[must_use]
pub fn sources(flag: Option<&str>, environment: &Environment, event: Option<&str>) -> Vec<Source> {
    let mut found = Vec::new();
    let mut offer = |name: String, revisions: Vec<String>, asked: bool| {
        if revisions.iter().any(|revision| !revision.trim().is_empty()) {
            found.push(Source { name, revisions, asked });
        }
    };
    let one = |revision: &str| vec![revision.trim().to_owned()];
    if let Some(flag) = flag {
        offer(format!("`--base {flag}`"), either(flag), true);
    }
    let get = |name: &str| environment.get(name).map(|value| value.trim()).filter(|value| !value.is_empty());
    let commit = |name: &str| get(name).map(|value| (format!("`{name}`"), one(value)));
    let branch = |name: &str| get(name).map(|value| (format!("`{name}` ({value})"), branch_revisions(value)));
    if let Some(value) = get("OFFBUILD_BASE") {
        offer(format!("`OFFBUILD_BASE` ({value})"), either(value), false);
    }
    if get("GITHUB_ACTIONS").is_some() || get("GITHUB_EVENT_PATH").is_some() {
        for (field, revision) in event.map(github_event).unwrap_or_default() {
            offer(format!("`{field}` of GitHub's event"), one(&revision), false);
        }
    }
    // Where a CI knows the target of a pull request, that says more than what was pushed before.
    let others = [
        branch("GITHUB_BASE_REF"),
        commit("CI_MERGE_REQUEST_DIFF_BASE_SHA"),
        commit("CI_COMMIT_BEFORE_SHA"),
        branch("BUILDKITE_PULL_REQUEST_BASE_BRANCH"),
        get("CIRCLE_COMPARE_URL").and_then(circle_base).map(|base| ("`CIRCLE_COMPARE_URL`".to_owned(), one(base))),
        branch("CHANGE_TARGET"),
        commit("GIT_PREVIOUS_SUCCESSFUL_COMMIT"),
    ];
    for (name, revisions) in others.into_iter().flatten() {
        offer(name, revisions, false);
    }
    let in_ci = get("CI").is_some_and(|value| !matches!(value, "0" | "false")) || CIS.iter().any(|name| get(name).is_some());
    if found.is_empty() && in_ci {
        found.push(Source { name: "the CI".to_owned(), revisions: Vec::new(), asked: false });
    }
    found
}

/// The base commits in a GitHub event, the best first.
fn github_event(text: &str) -> Vec<(&'static str, String)> {
    let Ok(event) = serde_json::from_str::<serde_json::Value>(text) else { return Vec::new() };
    let [pull, queue, push] = [
        ("pull_request.base.sha", "/pull_request/base/sha"),
        ("merge_group.base_sha", "/merge_group/base_sha"),
        ("push.before", "/before"),
    ];
    // `before` in the event of a pull request is its own last state: what it changed until then would look unchanged.
    let told = if event.get("pull_request").is_some() { vec![pull] } else { vec![queue, push] };
    told.into_iter().filter_map(|(name, pointer)| Some((name, event.pointer(pointer)?.as_str()?.to_owned()))).collect()
}

/// `https://github.com/o/r/compare/abc123...def456` → `abc123`. For a new branch it is `abc123^...`: the first commit is one of
/// those that were pushed.
fn circle_base(url: &str) -> Option<&str> {
    let (_, range) = url.rsplit_once("/compare/")?;
    range.split_once("...").map(|(base, _)| base)
}

/// A revision as it is, else as a branch of the remote: a CI's clone often has no local ones.
fn either(revision: &str) -> Vec<String> {
    let revision = revision.trim();
    let may_be_branch = !is_id(revision) && !revision.starts_with("origin/") && !revision.contains(['~', '^', ':', '@']);
    let remote = may_be_branch.then(|| format!("origin/{revision}"));
    std::iter::once(revision.to_owned()).chain(remote).collect()
}

fn branch_revisions(branch: &str) -> Vec<String> {
    let branch = branch.strip_prefix("refs/heads/").unwrap_or(branch);
    vec![format!("origin/{branch}"), branch.to_owned()]
}

/// Finds the base for `head`: the first of `sources` that exists here, else the default branch; its merge base with `head` where there
/// is one that hides nothing.
pub fn choose(history: &dyn History, head: &CommitId, sources: &[Source]) -> Result<Choice> {
    let mut notes = Vec::new();
    let mut missing = None;
    for source in sources {
        match first(history, source)? {
            Ok((revision, commit)) => {
                // Of a branch or of what a person names, only what HEAD has and it has not is asked for.
                let told_by_ci = !source.asked && is_id(&revision);
                return joined(history, head, &commit, &source.name, &revision, told_by_ci, notes);
            }
            Err(passed) => {
                let wanted = Unreachable { wanted: source.name.clone(), why: passed.why, fetch: passed.fetch, notes: notes.clone() };
                if source.asked {
                    return Ok(Choice::Unreachable(wanted));
                }
                notes.push(format!("{} passed over: {}", source.name, wanted.why));
                missing.get_or_insert(wanted);
            }
        }
    }
    let defaults = ["origin/HEAD", "origin/main", "origin/master", "main", "master"];
    for revision in defaults {
        let Some(commit) = history.resolve(revision)? else { continue };
        let name = format!("merge base with `{revision}`");
        let choice = joined(history, head, &commit, &name, revision, false, notes.clone())?;
        return Ok(match (choice, missing) {
            // On the default branch its own tip is no base: what was pushed would look unchanged.
            (Choice::Found(base), Some(missing)) if base.commit == *head => Choice::Unreachable(Unreachable { notes, ..missing }),
            (choice, _) => choice,
        });
    }
    Ok(Choice::Unreachable(missing.unwrap_or_else(|| Unreachable {
        wanted: "the default branch".to_owned(),
        why: "neither `origin/HEAD` nor a branch `main` or `master` is here".to_owned(),
        fetch: Some(FetchCommand::for_missing("origin/HEAD", history.is_shallow())),
        notes,
    })))
}

/// The commit a person's revision names: as it is, else as a branch of the remote.
pub fn resolve(history: &dyn History, revision: &str) -> Result<Option<CommitId>> {
    for revision in either(revision) {
        if let Some(commit) = history.resolve(&revision)? {
            return Ok(Some(commit));
        }
    }
    Ok(None)
}

struct Passed {
    why: String,
    fetch: Option<FetchCommand>,
}

fn first(history: &dyn History, source: &Source) -> Result<Result<(String, CommitId), Passed>> {
    for revision in &source.revisions {
        if is_zero(revision) {
            let why = "it is the zero id: there was nothing before".to_owned();
            return Ok(Err(Passed { why, fetch: None }));
        }
        if let Some(commit) = history.resolve(revision)? {
            return Ok(Ok((revision.clone(), commit)));
        }
    }
    let Some(revision) = source.revisions.first().cloned() else {
        return Ok(Err(Passed { why: "it does not tell which commit came before".to_owned(), fetch: None }));
    };
    let shallow = history.is_shallow();
    let why = format!("`{revision}` {}", not_here(shallow));
    Ok(Err(Passed { why, fetch: Some(FetchCommand::for_missing(&revision, shallow)) }))
}

/// Why a commit is not in the repository, as far as that can be told.
#[must_use]
pub fn not_here(shallow: bool) -> &'static str {
    if shallow { "is not in this shallow clone" } else { "is not in this repository (force push, or not fetched)" }
}

fn joined(
    history: &dyn History,
    head: &CommitId,
    commit: &CommitId,
    source: &str,
    revision: &str,
    told_by_ci: bool,
    mut notes: Vec<String>,
) -> Result<Choice> {
    let shallow = history.is_shallow();
    let bases = history.merge_bases(commit, head)?;
    let Some(base) = bases.first().cloned() else {
        let (why, fetch) = if shallow {
            ("its history does not reach back to a common commit in this shallow clone", Some(FetchCommand::for_missing(revision, true)))
        } else {
            ("it has no commit in common with HEAD", None)
        };
        return Ok(Choice::Unreachable(Unreachable { wanted: source.to_owned(), why: why.to_owned(), fetch, notes }));
    };
    let hides = if bases.len() > 1 {
        // Against one of several, what HEAD took back of the others would look unchanged.
        Some(format!("{} and HEAD have {} merge bases", commit.short(), bases.len()))
    } else {
        // What was pushed or deployed before and is ahead of HEAD was taken back: that is a change, too.
        (told_by_ci && base == *head && base != *commit).then(|| format!("{} is ahead of HEAD", commit.short()))
    };
    if let Some(why) = hides {
        notes.push(format!("{why}: the two are compared directly"));
        return Ok(Choice::Found(Base { commit: commit.clone(), source: source.to_owned(), notes }));
    }
    if base != *commit && !source.starts_with("merge base") {
        notes.push(format!("{} is no ancestor of HEAD: their merge base {} is used", commit.short(), base.short()));
    }
    Ok(Choice::Found(Base { commit: base, source: source.to_owned(), notes }))
}

fn is_id(revision: &str) -> bool {
    matches!(revision.len(), 40 | 64) && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_zero(revision: &str) -> bool {
    is_id(revision) && revision.bytes().all(|byte| byte == b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "1234567890123456789012345678901234567890";

    fn offered(flag: Option<&str>, variables: &[(&str, &str)], event: Option<&str>) -> Vec<String> {
        let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        sources(flag, &environment, event).into_iter().map(|source| format!("{}: {}", source.name, source.revisions.join(" or "))).collect()
    }

    #[test]
    fn each_ci_tells_its_base() {
        let github = ("GITHUB_ACTIONS", "true");
        let push = format!(r#"{{"before": "{ID}", "after": "f"}}"#);
        let pull = format!(r#"{{"before": null, "pull_request": {{"base": {{"sha": "{ID}"}}}}}}"#);
        let pushed = format!(r#"{{"before": "f", "pull_request": {{"base": {{"sha": "{ID}"}}}}}}"#);
        let queue = format!(r#"{{"merge_group": {{"base_sha": "{ID}"}}}}"#);
        type Row<'a> = (&'a str, Vec<(&'a str, &'a str)>, Option<&'a str>, Vec<String>);
        let table: Vec<Row<'_>> = vec![
            ("nothing", vec![], None, vec![]),
            ("empty", vec![("OFFBUILD_BASE", " "), ("GITHUB_BASE_REF", "")], None, vec![]),
            ("GitHub push", vec![github], Some(&push), vec![format!("`push.before` of GitHub's event: {ID}")]),
            (
                "GitHub pull request",
                vec![github, ("GITHUB_BASE_REF", "main")],
                Some(&pull),
                vec![
                    format!("`pull_request.base.sha` of GitHub's event: {ID}"),
                    "`GITHUB_BASE_REF` (main): origin/main or main".to_owned(),
                ],
            ),
            (
                "GitHub pull request that was pushed to",
                vec![github],
                Some(&pushed),
                vec![format!("`pull_request.base.sha` of GitHub's event: {ID}")],
            ),
            ("GitHub merge queue", vec![github], Some(&queue), vec![format!("`merge_group.base_sha` of GitHub's event: {ID}")]),
            ("GitHub, no JSON", vec![github], Some("?"), vec!["the CI: ".to_owned()]),
            ("AWS CodeBuild", vec![("CODEBUILD_BUILD_ID", "a:b")], None, vec!["the CI: ".to_owned()]),
            ("a build that unsets `CI`", vec![("CI", "false"), ("BUILDKITE", "true")], None, vec!["the CI: ".to_owned()]),
            ("an event without GitHub", vec![], Some(&push), vec![]),
            ("GitLab branch", vec![("CI_COMMIT_BEFORE_SHA", ID)], None, vec![format!("`CI_COMMIT_BEFORE_SHA`: {ID}")]),
            (
                "GitLab merge request",
                vec![("CI_COMMIT_BEFORE_SHA", "0000000000000000000000000000000000000000"), ("CI_MERGE_REQUEST_DIFF_BASE_SHA", ID)],
                None,
                vec![
                    format!("`CI_MERGE_REQUEST_DIFF_BASE_SHA`: {ID}"),
                    "`CI_COMMIT_BEFORE_SHA`: 0000000000000000000000000000000000000000".to_owned(),
                ],
            ),
            (
                "Buildkite",
                vec![("BUILDKITE_PULL_REQUEST_BASE_BRANCH", "release/1")],
                None,
                vec!["`BUILDKITE_PULL_REQUEST_BASE_BRANCH` (release/1): origin/release/1 or release/1".to_owned()],
            ),
            (
                "CircleCI",
                vec![("CIRCLE_COMPARE_URL", "https://github.com/o/r/compare/abcdef0^...1234567")],
                None,
                vec!["`CIRCLE_COMPARE_URL`: abcdef0^".to_owned()],
            ),
            ("a CI that tells nothing", vec![("CI", "true")], None, vec!["the CI: ".to_owned()]),
            ("Jenkins' first build", vec![("JENKINS_URL", "https://ci")], None, vec!["the CI: ".to_owned()]),
            ("no CI", vec![("CI", "false")], None, vec![]),
            ("GitHub, started by hand", vec![github, ("CI", "true")], Some("{}"), vec!["the CI: ".to_owned()]),
            (
                "Jenkins",
                vec![("GIT_PREVIOUS_SUCCESSFUL_COMMIT", ID), ("CHANGE_TARGET", "main")],
                None,
                vec!["`CHANGE_TARGET` (main): origin/main or main".to_owned(), format!("`GIT_PREVIOUS_SUCCESSFUL_COMMIT`: {ID}")],
            ),
            (
                "asked for",
                vec![("OFFBUILD_BASE", ID), ("CI_COMMIT_BEFORE_SHA", ID)],
                None,
                vec![format!("`OFFBUILD_BASE` ({ID}): {ID}"), format!("`CI_COMMIT_BEFORE_SHA`: {ID}")],
            ),
        ];
        for (name, variables, event, expected) in table {
            assert_eq!(offered(None, &variables, event), expected, "{name}");
        }
        assert_eq!(offered(Some("dev"), &[("OFFBUILD_BASE", "x")], None)[0], "`--base dev`: dev or origin/dev");
        assert_eq!(offered(Some("HEAD~3"), &[], None)[0], "`--base HEAD~3`: HEAD~3");
    }

    #[test]
    fn the_command_that_cures() {
        let table = [
            (ID, true, "git fetch --unshallow origin".to_owned()),
            (ID, false, format!("git fetch origin {ID}")),
            ("origin/main", true, "git fetch --unshallow origin +refs/heads/main:refs/remotes/origin/main".to_owned()),
            ("origin/HEAD", false, "git fetch origin".to_owned()),
            ("HEAD~30", true, "git fetch --unshallow origin".to_owned()),
            ("v1.2", false, "git fetch origin --tags '+refs/heads/*:refs/remotes/origin/*'".to_owned()),
        ];
        for (revision, shallow, expected) in table {
            assert_eq!(FetchCommand::for_missing(revision, shallow).to_string(), expected);
        }
    }
}
