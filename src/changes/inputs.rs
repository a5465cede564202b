//! The inputs of an app as rules, and which apps a set of changed paths touches.
//!
//! 1. [`inputs_of`] turns an app's configuration and manifest into rules, each with the place it is written at.
//! 2. [`Matcher`] indexes the rules of all apps: literal paths by path, globs in one set.
//! 3. [`Matcher::affected`] looks every changed path up, directory by directory from the root, and applies the ignore rules
//!    only to what was found: the work grows with the changes and their depth, not with the number of apps.
//!
//! Git tells of a link only where it leads. So a path that is found through links is an input where it really is, too.
//!
//! Paths are bytes. Nothing here reads a disk or a repository; where links lead, [`Links`] tells.

use super::Rule;
use crate::build::dockerignore::DockerIgnore;
use crate::config::{App, Config, HookConfig, Pattern, Precision};
use crate::error::{Error, Result};
use crate::manifest::Manifest;
use crate::names::{AppName, RepoPath, ServiceName};
use crate::yaml::Place;
use globset::{Candidate, Glob, GlobBuilder, GlobSet};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

pub use super::affected::{Affected, Matcher, affected};

/// What of a build's context the build cannot see: its `.dockerignore`.
#[derive(Debug, Clone)]
pub struct Unseen {
    context: RepoPath,
    text: Arc<str>,
    ignore: Arc<DockerIgnore>,
}

impl Unseen {
    /// What an ignore file of a context hides. `None` when that is nothing: one that Docker refuses hides nothing either.
    #[must_use]
    pub fn new(context: RepoPath, text: &str) -> Option<Self> {
        let ignore = DockerIgnore::parse(text).ok().filter(|ignore| !ignore.is_empty())?;
        Some(Self { context, text: text.into(), ignore: Arc::new(ignore) })
    }

    /// True when the build cannot see a path of the repository that lies in its context.
    #[must_use]
    pub fn hides(&self, path: &RepoPath) -> bool {
        path.below(&self.context).is_some_and(|rest| !rest.is_empty() && self.ignore.is_ignored(rest))
    }

    /// The context and the ignore file's text, which make another of the same.
    pub(super) fn parts(&self) -> (&RepoPath, &str) {
        (&self.context, &self.text)
    }
}

/// Which paths a rule means.
#[derive(Debug, Clone)]
pub enum Reach {
    /// A path and everything below it.
    Path(RepoPath),
    /// Everything below a path, not the path itself.
    Below(RepoPath),
    /// What a glob matches, and everything below that.
    Glob(Arc<LazyGlob>),
}

/// A glob that is compiled when the first path asks: of two thousand apps few are asked, and [`Matcher`] has its own set.
#[derive(Debug)]
pub struct LazyGlob {
    glob: Glob,
    matcher: OnceLock<GlobSet>,
}

impl LazyGlob {
    /// The glob.
    #[must_use]
    pub fn glob(&self) -> &Glob {
        &self.glob
    }

    fn is_match(&self, path: &[u8]) -> bool {
        // A set of one needs no regular expression for `**/*.md` and its like.
        let set = || GlobSet::new([self.glob.clone()]).expect("a pattern of bounded length compiles");
        self.matcher.get_or_init(set).is_match_candidate(&Candidate::from_bytes(path))
    }
}

/// No honest pattern is longer (characters). Shorter ones always compile: globs have no counted repetition.
const LONGEST_PATTERN: usize = 4096;

impl Reach {
    /// Reads a pattern relative to the repository's root. A path without glob characters, and one that only ends in `/**`,
    /// needs no glob.
    pub fn of(pattern: &str) -> Result<Self, String> {
        let literal = |text: &str| RepoPath::default().join(text).ok_or_else(|| format!("`{pattern}` leaves the repository"));
        if !has_glob(pattern) {
            return Ok(Self::Path(literal(pattern)?));
        }
        if let Some(dir) = pattern.strip_suffix("/**").filter(|dir| !has_glob(dir) && !dir.is_empty()) {
            return Ok(Self::Below(literal(dir)?));
        }
        if pattern.len() > LONGEST_PATTERN {
            return Err(format!("it is longer than {LONGEST_PATTERN} characters"));
        }
        let clean = pattern.strip_prefix("./").unwrap_or(pattern).trim_end_matches('/');
        let glob = GlobBuilder::new(clean).literal_separator(true).build().map_err(|error| error.to_string())?;
        Ok(Self::Glob(Arc::new(LazyGlob { glob, matcher: OnceLock::new() })))
    }

    /// True when `path` is meant.
    #[must_use]
    pub fn contains(&self, path: &RepoPath) -> bool {
        match self {
            Self::Path(dir) => path.is_in(dir),
            Self::Below(dir) => path.below(dir).is_some_and(|rest| !rest.is_empty()),
            Self::Glob(glob) => prefixes(path.as_bytes()).any(|part| glob.is_match(part)),
        }
    }

    /// The directory that everything meant lies in.
    pub(super) fn start(&self) -> RepoPath {
        match self {
            Self::Path(dir) | Self::Below(dir) => dir.clone(),
            Self::Glob(glob) => {
                let text = glob.glob().glob();
                let literal: Vec<&str> = text.split('/').take_while(|part| !has_glob(part)).collect();
                RepoPath::from(literal.join("/").as_str())
            }
        }
    }
}

fn has_glob(pattern: &str) -> bool {
    pattern.contains(['*', '?', '[', ']', '{', '}', '\\'])
}

/// The root (empty), every directory above a path, and the path itself.
pub(super) fn prefixes(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let inner = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| &path[..at]);
    let whole = (!path.is_empty()).then_some(path);
    std::iter::once(&path[..0]).chain(inner).chain(whole)
}

/// The paths that a path is taken for as the links on its way are followed, one after the other.
pub type Links<'a> = dyn Fn(&RepoPath) -> Vec<RepoPath> + Sync + 'a;

/// One rule that makes paths an input.
#[derive(Debug, Clone)]
pub struct InputRule {
    /// Which paths.
    pub reach: Reach,
    /// The rule, as a reason shows it.
    pub rule: Rule,
    /// What of them does not count after all.
    pub unseen: Option<Unseen>,
}

impl InputRule {
    /// True when the rule makes `path` an input.
    #[must_use]
    pub fn contains(&self, path: &RepoPath) -> bool {
        self.reach.contains(path) && self.sees(path)
    }

    /// True when nothing hides `path` from the rule.
    pub(super) fn sees(&self, path: &RepoPath) -> bool {
        self.unseen.as_ref().is_none_or(|unseen| !unseen.hides(path))
    }
}

/// A path that an app's build reads outside its directory, as its Dockerfile tells.
#[derive(Clone)]
pub struct Read {
    /// Which paths.
    pub reach: Reach,
    /// The instruction's word and argument as people read it: `COPY libs/auth`.
    pub text: String,
    /// Where it is written.
    pub place: Place,
    /// What the build cannot see of it.
    pub unseen: Option<Unseen>,
    /// It is read by its name: the build fails when nothing is there.
    pub is_required: bool,
}

/// Ignore patterns in order; the last one that matches a path decides.
#[derive(Debug, Default)]
pub struct Ignores(Vec<(Reach, Pattern)>);

impl Ignores {
    /// Takes the patterns; one that cannot be read is an error with its place.
    pub fn new(patterns: &[Pattern]) -> Result<Self> {
        patterns.iter().map(|pattern| Ok((reach(pattern)?, pattern.clone()))).collect::<Result<_>>().map(Self)
    }

    /// The patterns, in order.
    pub(super) fn patterns(&self) -> impl Iterator<Item = &Pattern> {
        self.0.iter().map(|(_, pattern)| pattern)
    }

    /// The last pattern that matches `path`; it ignores the path unless it is negated.
    #[must_use]
    pub fn last_match(&self, path: &RepoPath) -> Option<&Pattern> {
        self.0.iter().rev().find(|(reach, _)| reach.contains(path)).map(|(_, pattern)| pattern)
    }
}

/// What all apps have in common: the `global` and `ignore` patterns.
#[derive(Debug, Default)]
pub struct Shared {
    /// Rules that make a path every app's input.
    pub global: Vec<InputRule>,
    /// Patterns that are no app's input.
    pub ignore: Ignores,
    /// The configuration file: a change of it is judged app by app, by their resolved settings.
    pub file: Option<RepoPath>,
}

impl Shared {
    /// Reads the patterns of a configuration.
    pub fn of(config: &Config, links: &Links<'_>) -> Result<Arc<Self>> {
        let mut rules = Rules { whole: Vec::new(), links, found: Vec::new() };
        config.global.iter().try_for_each(|pattern| rules.pattern("global", pattern, &[]))?;
        Ok(Arc::new(Self { global: rules.found, ignore: Ignores::new(&config.ignore)?, file: config.file.clone() }))
    }
}

/// The inputs of an app.
#[derive(Debug, Clone)]
pub struct Inputs {
    /// The app.
    pub app: AppName,
    /// The rules that make a path its input, in order, without those of [`Shared`].
    pub rules: Vec<InputRule>,
    /// Patterns that take paths out again, after the shared ones.
    pub ignore: Arc<Ignores>,
    /// What all apps have in common.
    pub shared: Arc<Shared>,
}

impl Inputs {
    /// The ignore pattern that takes `path` out; `None` when it stays.
    #[must_use]
    pub fn ignored_by(&self, path: &RepoPath) -> Option<&Pattern> {
        self.ignore.last_match(path).or_else(|| self.shared.ignore.last_match(path)).filter(|pattern| !pattern.negated)
    }

    /// Every rule, the shared ones last.
    pub fn all_rules(&self) -> impl Iterator<Item = &InputRule> {
        self.rules.iter().chain(&self.shared.global)
    }

    /// True when `path` is an input: what [`Matcher`] answers for many paths and apps at once.
    #[must_use]
    pub fn contain(&self, path: &RepoPath) -> bool {
        self.all_rules().any(|rule| rule.contains(path)) && self.ignored_by(path).is_none()
    }
}

/// The rules of an app's inputs.
///
/// `reads` holds, by service, what its Dockerfile reads from outside the app's directory (with [`Precision::Context`]: from
/// anywhere). A built service that is not in it widens to its whole context, never narrows.
pub fn inputs_of(
    app: &App,
    shared: &Arc<Shared>,
    manifest: Option<&Manifest>,
    reads: &BTreeMap<ServiceName, Vec<Read>>,
    links: &Links<'_>,
) -> Result<Inputs> {
    let mut rules = Rules { whole: Vec::new(), links, found: Vec::new() };
    if app.precision == Precision::Directory {
        rules.path("directory", Some(app.dir.clone()), &app.place);
        rules.whole = std::iter::once(app.dir.clone()).chain(links(&app.dir)).collect();
    }
    let manifest_path = manifest.map(|manifest| manifest.path.clone()).or_else(|| app.dir.join(&app.manifest));
    rules.path("manifest", manifest_path, &app.place);
    for file in manifest.into_iter().flat_map(|manifest| &manifest.files) {
        rules.path("manifest", Some(file.clone()), &app.place);
    }
    rules.path("manifest", app.compose.as_ref().and_then(|compose| app.dir.join(compose)), &app.place);
    // The whole directory holds them anyway, and looking for each is not for nothing.
    if app.precision == Precision::Context {
        for name in app.manifests_before() {
            rules.path("manifest", app.dir.join(name), &app.place);
        }
        for hook in app.usual_hooks_without() {
            rules.path("hook", app.dir.join(&hook), &app.place);
        }
    }
    for hook in app.hooks.values() {
        hook_rules(app, hook, &mut rules);
    }
    for service in manifest.into_iter().flat_map(|manifest| &manifest.services) {
        let Some(build) = &service.build else { continue };
        rules.path("dockerfile", Some(build.dockerfile.clone()), &build.place);
        rules.path("dockerignore", sibling(&build.dockerfile), &build.place);
        rules.path("dockerignore", build.context.join(".dockerignore"), &build.place);
        for path in &build.also_reads {
            rules.path("build", Some(path.clone()), &build.place);
        }
        match reads.get(&service.name) {
            None => rules.path("context", Some(build.context.clone()), &build.place),
            Some(reads) => reads.iter().for_each(|read| rules.read(read)),
        }
    }
    for used in &app.uses {
        rules.pattern("uses", &used.pattern, &used.through)?;
    }
    Ok(Inputs { app: app.name.clone(), rules: rules.found, ignore: Arc::new(Ignores::new(&app.ignore)?), shared: shared.clone() })
}

/// Rules as they are found, without those that the app's whole directory covers.
struct Rules<'a> {
    whole: Vec<RepoPath>,
    links: &'a Links<'a>,
    found: Vec<InputRule>,
}

impl Rules<'_> {
    /// A path outside the repository is not git's business, and none of ours.
    fn path(&mut self, kind: &'static str, path: Option<RepoPath>, place: &Place) {
        let Some(path) = path else { return };
        let rule = Rule { kind, matches: path.to_string(), place: Some(place.clone()), through: Vec::new() };
        self.one(path.clone(), &rule);
        self.linked(&path, &rule);
    }

    fn read(&mut self, read: &Read) {
        let rule = Rule { kind: "dockerfile", matches: read.text.clone(), place: Some(read.place.clone()), through: Vec::new() };
        // Two contexts may hide different parts of one path: then both rules stand.
        let known = |known: &InputRule| known.rule == rule && known.unseen.is_none();
        let start = read.reach.start();
        if !self.covers(&start) && !self.found.iter().any(known) {
            self.found.push(InputRule { reach: read.reach.clone(), rule: rule.clone(), unseen: read.unseen.clone() });
        }
        self.linked(&start, &rule);
    }

    fn pattern(&mut self, kind: &'static str, pattern: &Pattern, through: &[String]) -> Result<()> {
        let rule = input(kind, pattern, through)?;
        self.found.push(rule.clone());
        self.linked(&rule.reach.start(), &rule.rule);
        Ok(())
    }

    /// A rule for where each link on the way to `path` leads.
    fn linked(&mut self, path: &RepoPath, rule: &Rule) {
        for target in (self.links)(path) {
            let through = rule.through.iter().cloned().chain([path.to_string()]).collect();
            self.one(target.clone(), &Rule { matches: target.to_string(), through, ..rule.clone() });
        }
    }

    fn one(&mut self, path: RepoPath, rule: &Rule) {
        let known = |known: &InputRule| known.rule.kind == rule.kind && matches!(&known.reach, Reach::Path(known) if *known == path);
        if !self.covers(&path) && !self.found.iter().any(known) {
            self.found.push(InputRule { reach: Reach::Path(path), rule: rule.clone(), unseen: None });
        }
    }

    fn covers(&self, path: &RepoPath) -> bool {
        self.whole.iter().any(|dir| path.is_in(dir))
    }
}

fn hook_rules(app: &App, hook: &HookConfig, rules: &mut Rules<'_>) {
    match hook {
        HookConfig::File { path, .. } => {
            let Some(file) = app.dir.join(path) else { return };
            // A hook sources its neighbours; the app's own directory would be all of it, though.
            let dir = file.parent();
            let whole = if dir.is_in(&app.dir) && dir != app.dir { dir } else { file.clone() };
            rules.path("hook", Some(whole), &app.place);
            // The file may be a link out of that directory.
            rules.linked(&file, &Rule { kind: "hook", matches: file.to_string(), place: Some(app.place.clone()), through: Vec::new() });
        }
        HookConfig::Command(words) => {
            for word in command_words(words) {
                rules.path("hook", app.dir.join(word).filter(|path| !path.is_root()), &app.place);
            }
        }
    }
}

/// The words of a command that may be a path. It runs in the app's directory: an argument may be a script there, and so may a word
/// of what a shell is given.
pub(super) fn command_words(words: &[String]) -> impl Iterator<Item = &str> {
    let shell = |c: char| "\"'`;&|()<>".contains(c);
    let words = words.iter().flat_map(move |word| {
        // A path may hold blanks.
        let whole = Some(word.as_str()).filter(|word| !word.contains(shell));
        whole.into_iter().chain(word.split(move |c: char| c.is_whitespace() || shell(c)))
    });
    words.filter(|word| !word.starts_with(['-', '/']) && !matches!(*word, "" | ".."))
}

/// `Dockerfile.dockerignore`, which goes before the context's `.dockerignore`.
pub(super) fn sibling(dockerfile: &RepoPath) -> Option<RepoPath> {
    let mut bytes = dockerfile.as_bytes().to_vec();
    bytes.extend_from_slice(b".dockerignore");
    Some(RepoPath::from_git(bytes))
}

pub(super) fn input(kind: &'static str, pattern: &Pattern, through: &[String]) -> Result<InputRule> {
    if pattern.negated {
        return Err(Error::config(format!("{}: `!{}`: `!` has a meaning in `ignore` only", pattern.place, pattern.glob))
            .hint(format!("write `{}` under the app's `ignore`", pattern.glob)));
    }
    let reach = match reach(pattern)? {
        // A directory that becomes a link or a submodule changes what is below it.
        Reach::Below(dir) => Reach::Path(dir),
        other => other,
    };
    let rule = Rule { kind, matches: pattern.glob.clone(), place: Some(pattern.place.clone()), through: through.to_vec() };
    Ok(InputRule { reach, rule, unseen: None })
}

fn reach(pattern: &Pattern) -> Result<Reach> {
    Reach::of(&pattern.glob)
        .map_err(|why| Error::config(format!("{}: pattern `{}` cannot be used", pattern.place, pattern.glob)).because(why))
}

#[cfg(test)]
pub(super) mod tests;
