//! Which apps a set of changed paths touches: the rules of all apps in one index.

use super::inputs::{InputRule, Inputs, Reach, Shared, prefixes};
use super::{Change, PathReason, Rule};
use crate::config::{Pattern, Unowned};
use crate::error::{Error, Result};
use crate::names::{AppName, RepoPath};
use globset::{Candidate, Glob, GlobSet};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// What a set of changes touches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Affected {
    /// Every reason, by app.
    pub reasons: BTreeMap<AppName, Vec<PathReason>>,
    /// Paths of an app that an ignore rule took out, with that rule.
    pub near: BTreeMap<AppName, Vec<PathReason>>,
    /// Changes that no app owns and no pattern ignores.
    pub unowned: Vec<Change>,
    /// What was deleted with the app that owned it.
    pub left: Vec<Change>,
}

impl Affected {
    /// Applies the policy for paths no app owns: nothing, every app of `apps`, or an error that lists them.
    pub fn apply(&mut self, policy: Unowned, apps: &[Inputs]) -> Result<()> {
        match policy {
            Unowned::Report => {}
            Unowned::All => {
                for change in &self.unowned {
                    let rule = Rule { kind: "unowned", matches: change.path.to_string(), place: None, through: Vec::new() };
                    for app in apps {
                        let reason = PathReason { change: change.clone(), rule: rule.clone() };
                        self.reasons.entry(app.app.clone()).or_default().push(reason);
                    }
                }
            }
            Unowned::Error if self.unowned.is_empty() => {}
            Unowned::Error => {
                let paths: Vec<String> = self.unowned.iter().map(|change| format!("`{}`", change.path)).collect();
                return Err(Error::refused(format!("no app owns {}", paths.join(", ")))
                    .hint("add the path to an app's `uses`, to `global` or to `ignore`, or set `unowned: report`"));
            }
        }
        Ok(())
    }
}

/// Tells which apps' inputs `changes` touch, with every reason.
#[must_use]
pub fn affected(inputs: &[Inputs], changes: &[Change]) -> Affected {
    Matcher::new(inputs).affected(changes)
}

/// The rules of many apps, indexed; made once, asked for each set of changes.
pub struct Matcher<'a> {
    inputs: &'a [Inputs],
    /// Apps by what they share: usually one group.
    groups: Vec<(&'a Arc<Shared>, Vec<usize>)>,
    literal: HashMap<&'a [u8], Vec<Entry<'a>>>,
    /// Sets of globs, each with the number of its first one.
    globs: Vec<(usize, GlobSet)>,
    /// Whose rules the globs are, by number.
    owners: Vec<Vec<Entry<'a>>>,
}

#[derive(Clone, Copy)]
struct Entry<'a> {
    owner: Owner,
    rule: &'a InputRule,
}

#[derive(Clone, Copy)]
enum Owner {
    App(usize),
    Group(usize),
}

impl<'a> Matcher<'a> {
    /// Indexes the rules.
    #[must_use]
    pub fn new(inputs: &'a [Inputs]) -> Self {
        let mut groups: Vec<(&Arc<Shared>, Vec<usize>)> = Vec::new();
        let mut entries = Vec::new();
        for (at, app) in inputs.iter().enumerate() {
            match groups.iter_mut().find(|(shared, _)| Arc::ptr_eq(shared, &app.shared)) {
                Some((_, apps)) => apps.push(at),
                None => groups.push((&app.shared, vec![at])),
            }
            entries.extend(app.rules.iter().map(|rule| Entry { owner: Owner::App(at), rule }));
        }
        for (at, (shared, _)) in groups.iter().enumerate() {
            entries.extend(shared.global.iter().map(|rule| Entry { owner: Owner::Group(at), rule }));
        }
        let mut literal: HashMap<&[u8], Vec<Entry<'_>>> = HashMap::new();
        let mut by_glob: BTreeMap<&str, Vec<Entry<'_>>> = BTreeMap::new();
        for entry in entries {
            match &entry.rule.reach {
                Reach::Path(dir) | Reach::Below(dir) => literal.entry(dir.as_bytes()).or_default().push(entry),
                Reach::Glob(glob) => by_glob.entry(glob.glob().glob()).or_default().push(entry),
            }
        }
        let (mut list, mut owners) = (Vec::new(), Vec::new());
        for entries in by_glob.into_values() {
            if let Reach::Glob(glob) = &entries[0].rule.reach {
                list.push(glob.glob().clone());
                owners.push(entries);
            }
        }
        let mut globs = Vec::new();
        glob_sets(&list, 0, &mut globs);
        Self { inputs, groups, literal, globs, owners }
    }

    /// Tells which apps' inputs `changes` touch, with every reason.
    #[must_use]
    pub fn affected(&self, changes: &[Change]) -> Affected {
        let mut result = Affected::default();
        let mut matched: BTreeMap<usize, Vec<&InputRule>> = BTreeMap::new();
        for change in changes {
            matched.clear();
            self.matching(&change.path, &mut |owner, rule| {
                let mut note = |app: usize| matched.entry(app).or_default().push(rule);
                match owner {
                    Owner::App(app) => note(app),
                    Owner::Group(group) => self.groups[group].1.iter().copied().for_each(note),
                }
            });
            if matched.is_empty() && self.is_unowned(&change.path) {
                result.unowned.push(change.clone());
            }
            // What the shared patterns say is the same for every app of a group.
            let shared: Vec<Option<&Pattern>> = if matched.is_empty() {
                Vec::new()
            } else {
                self.groups.iter().map(|(shared, _)| shared.ignore.last_match(&change.path)).collect()
            };
            for (at, rules) in &mut matched {
                let app = &self.inputs[*at];
                let group = self.groups.iter().position(|(group, _)| Arc::ptr_eq(group, &app.shared));
                let last = app.ignore.last_match(&change.path).or_else(|| group.and_then(|group| shared[group]));
                match last.filter(|pattern| !pattern.negated) {
                    Some(pattern) => {
                        let reason = PathReason { change: change.clone(), rule: ignore_rule(pattern) };
                        result.near.entry(app.app.clone()).or_default().push(reason);
                    }
                    None => {
                        let all = result.reasons.entry(app.app.clone()).or_default();
                        all.extend(rules.iter().map(|rule| PathReason { change: change.clone(), rule: rule.rule.clone() }));
                    }
                }
            }
        }
        result
    }

    /// True when no app owns `path` and no pattern ignores it.
    pub(super) fn is_nobodys(&self, path: &RepoPath) -> bool {
        let mut owned = false;
        self.matching(path, &mut |_, _| owned = true);
        !owned && self.is_unowned(path)
    }

    /// The apps, in the order they were given.
    #[must_use]
    pub fn inputs(&self) -> &'a [Inputs] {
        self.inputs
    }

    /// Calls `found` for each rule that makes `path` an input, once.
    fn matching(&self, path: &RepoPath, found: &mut dyn FnMut(Owner, &'a InputRule)) {
        let mut globs = BTreeSet::new();
        let mut hits = Vec::new();
        for part in prefixes(path.as_bytes()) {
            for entry in self.literal.get(part).into_iter().flatten() {
                if entry.rule.contains(path) {
                    found(entry.owner, entry.rule);
                }
            }
            for (first, set) in &self.globs {
                set.matches_candidate_into(&Candidate::from_bytes(part), &mut hits);
                globs.extend(hits.iter().map(|at| first + at));
            }
        }
        for glob in globs {
            for entry in self.owners[glob].iter().filter(|entry| entry.rule.sees(path)) {
                found(entry.owner, entry.rule);
            }
        }
    }

    fn is_unowned(&self, path: &RepoPath) -> bool {
        !self
            .groups
            .iter()
            .any(|(shared, _)| shared.file.as_ref() == Some(path) || shared.ignore.last_match(path).is_some_and(|pattern| !pattern.negated))
    }
}

/// One set when it compiles within the limit of its size, else as few as do.
fn glob_sets(globs: &[Glob], first: usize, sets: &mut Vec<(usize, GlobSet)>) {
    if globs.is_empty() {
        return;
    }
    match GlobSet::new(globs.iter().cloned()) {
        Ok(set) => sets.push((first, set)),
        Err(error) => {
            assert!(globs.len() > 1, "a pattern of bounded length compiles: {error}");
            let half = globs.len() / 2;
            glob_sets(&globs[..half], first, sets);
            glob_sets(&globs[half..], first + half, sets);
        }
    }
}

pub(super) fn ignore_rule(pattern: &Pattern) -> Rule {
    Rule { kind: "ignore", matches: pattern.glob.clone(), place: Some(pattern.place.clone()), through: Vec::new() }
}

#[cfg(test)]
pub(super) mod tests;
