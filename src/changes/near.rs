//! Why not: the changed paths that came nearest to being an app's input, and what kept them from it.
//!
//! Three things do: an ignore rule, a `.dockerignore` that hides the path from the build that would read it, or no rule at all.
//! Of the last kind there is no end, so only those closest to one of the app's rules are told.

use super::inputs::{InputRule, Inputs};
use super::{Change, Rule};
use crate::names::RepoPath;
use serde::Serialize;
use std::cmp::Reverse;
use std::fmt;

/// A changed path that is not an input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Miss {
    /// The change.
    pub change: Change,
    /// What keeps it from being an input.
    pub why: Missed,
}

/// What keeps a path from being an input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Missed {
    /// A rule of the app means it, and this one takes it out.
    Ignored(Rule),
    /// A Dockerfile of the app reads it, and this pattern of `.dockerignore` hides it.
    Hidden(Rule),
    /// No rule of the app means it; this one is the closest.
    Outside(Rule),
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Change { path, kind, dirty } = &self.change;
        write!(f, "{}{kind} {path}: ", if *dirty { "dirty: " } else { "" })?;
        match &self.why {
            Missed::Ignored(rule) => write!(f, "taken out by {rule}"),
            Missed::Hidden(rule) => write!(f, "hidden from the build by {rule}"),
            Missed::Outside(rule) => write!(f, "outside of {rule}"),
        }
    }
}

/// The changes that are no inputs of an app, the nearest first: those taken out, those hidden, and `most` of those outside.
///
/// `hider` tells which pattern of a `.dockerignore` hides a path from a rule; without an answer the rule itself is named.
#[must_use]
pub fn misses(inputs: &Inputs, changes: &[Change], hider: &dyn Fn(&InputRule, &RepoPath) -> Option<Rule>, most: usize) -> Vec<Miss> {
    let (mut ignored, mut hidden, mut outside) = (Vec::new(), Vec::new(), Vec::new());
    for change in changes {
        let path = &change.path;
        let miss = |why| Miss { change: change.clone(), why };
        if inputs.all_rules().any(|rule| rule.contains(path)) {
            if let Some(pattern) = inputs.ignored_by(path) {
                ignored.push(miss(Missed::Ignored(super::affected::ignore_rule(pattern))));
            }
        } else if let Some(rule) = inputs.all_rules().find(|rule| rule.reach.contains(path)) {
            hidden.push(miss(Missed::Hidden(hider(rule, path).unwrap_or_else(|| rule.rule.clone()))));
        } else {
            let near = inputs.all_rules().map(|rule| (common(path, &rule.reach.start()), rule));
            // The first of several equally close rules: the directory comes before what was inferred.
            if let Some((shared, rule)) = near.max_by_key(|(shared, _)| *shared).filter(|(shared, _)| *shared > 0) {
                let first = inputs.all_rules().find(|other| common(path, &other.reach.start()) == shared).unwrap_or(rule);
                outside.push((Reverse(shared), miss(Missed::Outside(first.rule.clone()))));
            }
        }
    }
    outside.sort_by_key(|(shared, _)| *shared);
    ignored.into_iter().chain(hidden).chain(outside.into_iter().take(most).map(|(_, miss)| miss)).collect()
}

/// How many leading parts two paths have in common.
fn common(one: &RepoPath, two: &RepoPath) -> usize {
    one.parts().zip(two.parts()).take_while(|(one, two)| one == two).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::changes::affected::tests::{app, change, shared};
    use crate::changes::inputs::Unseen;

    #[test]
    fn the_nearest_paths_and_what_kept_them_out() {
        let common = shared(&[".tool-versions"], &["**/*.md"]);
        let mut web = app("web", &["apps/web", "libs/auth/**"], &["apps/web/docs"], &common);
        web.rules[1].unseen = Unseen::new(RepoPath::default(), "**/secret\n");
        let paths: [&[u8]; 8] = [
            b"apps/web/main.rb",
            b"apps/web/README.md",
            b"apps/web/docs/x",
            b"libs/auth/secret",
            b"libs/authx/a",
            b"apps/api/a",
            b"Makefile",
            b"libs/other/a",
        ];
        let changes: Vec<Change> = paths.iter().map(|path| change(path)).collect();
        let told: Vec<String> = misses(&web, &changes, &|_, _| None, 2).iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(told.join("\n"), @r"
        modified apps/web/README.md: taken out by ignore **/*.md, apps.yaml:1:3
        modified apps/web/docs/x: taken out by ignore apps/web/docs, apps.yaml:1:3
        modified libs/auth/secret: hidden from the build by uses libs/auth/**
        modified libs/authx/a: outside of uses libs/auth/**
        modified apps/api/a: outside of uses apps/web
        ");
    }
}
