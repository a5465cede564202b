//! What an app declares against what its builds read.
//!
//! Pure: [`lint`] gets the app, its rules, what its Dockerfiles read and the tracked files. Errors are changes that would be
//! forgotten; warnings are declarations that cannot mean what they say; notes are what is right and could be clearer.

use super::Rule;
use super::inputs::{Inputs, Reach, Read, command_words};
use crate::config::{App, HookConfig, Precision};
use crate::manifest::{Manifest, ServiceBuild, image_tags};
use crate::names::{AppName, RepoPath, ServiceName};
use crate::yaml::Place;
use serde::Serialize;
use std::collections::BTreeMap;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// A deploy would fail, or forget a change.
    Error,
    /// It says something that cannot be meant.
    Warning,
    /// It works, and could be clearer.
    Note,
}

impl Level {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// Something found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// The check that found it: `undeclared-read`, `ignored-read`, `hidden-read`, `unmatched-read`, `unmatched-use`, `unread-use`, `hidden-file`,
    /// `no-repository`, `no-dockerfile`, `problem`, `manifest`.
    pub check: &'static str,
    /// The app.
    pub app: AppName,
    /// Where.
    pub place: Place,
    /// What.
    pub message: String,
    /// The line that cures it.
    pub cure: Option<String>,
}

/// What is known of an app.
pub struct Subject<'a> {
    /// The app.
    pub app: &'a App,
    /// The directory of `apps.yaml`, which its patterns start at.
    pub prefix: &'a RepoPath,
    /// Its manifest.
    pub manifest: &'a Manifest,
    /// Its rules.
    pub inputs: &'a Inputs,
    /// What its Dockerfiles read.
    pub reads: &'a BTreeMap<ServiceName, Vec<Read>>,
    /// Which pattern of which ignore file hides a path from a build.
    pub hiding: &'a dyn Fn(&ServiceBuild, &RepoPath) -> Option<Rule>,
    /// Its hooks may bring files into a context.
    pub has_build_hooks: bool,
}

/// Checks an app; `files` are the tracked files of the repository, sorted.
#[must_use]
pub fn lint(subject: &Subject<'_>, files: &[RepoPath]) -> Vec<Finding> {
    let mut lint = Lint { subject, files, found: Vec::new() };
    for service in &subject.manifest.services {
        let Some(build) = &service.build else { continue };
        let Some(reads) = subject.reads.get(&service.name) else {
            let message = format!("service `{}` has no Dockerfile `{}`, so its whole context counts", service.name, build.dockerfile);
            lint.add(Level::Warning, "no-dockerfile", &build.place, message, Some("add it, or name it with `dockerfile:`".to_owned()));
            continue;
        };
        for read in reads {
            lint.undeclared(build, read);
            lint.ignored(read);
            lint.absent(build, read);
        }
    }
    lint.uses();
    lint.hidden();
    lint.repositories();
    lint.found.sort();
    lint.found.dedup();
    lint.found
}

struct Lint<'a> {
    subject: &'a Subject<'a>,
    files: &'a [RepoPath],
    found: Vec<Finding>,
}

impl<'a> Lint<'a> {
    fn add(&mut self, level: Level, check: &'static str, place: &Place, message: String, cure: Option<String>) {
        let app = self.subject.app.name.clone();
        self.found.push(Finding { level, check, app, place: place.clone(), message, cure });
    }

    /// The tracked files a reach means.
    fn reached(&self, reach: &'a Reach) -> impl Iterator<Item = &'a RepoPath> + use<'a> {
        below(self.files, reach.start()).filter(|path| reach.contains(path))
    }

    /// What a build sees of a read.
    fn seen(&self, read: &'a Read) -> impl Iterator<Item = &'a RepoPath> + use<'a> {
        self.reached(&read.reach).filter(|path| read.unseen.as_ref().is_none_or(|unseen| !unseen.hides(path)))
    }

    /// A path as `apps.yaml` writes it.
    fn written(&self, path: &RepoPath) -> String {
        match path.below(self.subject.prefix) {
            Some(inside) if !inside.is_empty() => RepoPath::from_git(inside).to_string(),
            _ => path.to_string(),
        }
    }

    /// Read from outside the app's directory, and no `uses` or `global` names it.
    fn undeclared(&mut self, build: &ServiceBuild, read: &'a Read) {
        let Subject { app, inputs, .. } = self.subject;
        let declared = |path: &RepoPath| inputs.all_rules().any(|rule| matches!(rule.rule.kind, "uses" | "global") && rule.contains(path));
        // What the manifest names, like the Dockerfile itself, is declared there.
        let named = |path: &RepoPath| *path == build.dockerfile || self.subject.manifest.files.contains(path);
        let missing: Vec<&RepoPath> = self
            .seen(read)
            .filter(|path| !path.is_in(&app.dir) && !named(path) && !declared(path) && inputs.ignored_by(path).is_none())
            .collect();
        let Some(first) = missing.first() else { return };
        let whole = matches!(&read.reach, Reach::Path(path) if *path == build.context);
        let message = format!(
            "the build reads `{}`, and no `uses` names {} of it outside `{}` (`{first}`{}): counted all the same, because the Dockerfile says so",
            read.text,
            files(missing.len()),
            app.dir,
            if missing.len() > 1 { ", …" } else { "" }
        );
        let cure = if whole {
            format!("copy what is needed by its name, or hide the rest in `{}`", ignore_name(&build.context))
        } else {
            let directory = matches!(&read.reach, Reach::Path(path) if !self.files.contains(path));
            let pattern = format!("{}{}", self.written(&RepoPath::from(read.text.as_str())), if directory { "/**" } else { "" });
            format!("apps: {{{}: {{uses: [\"{pattern}\"]}}}}", app.name)
        };
        self.add(Level::Note, "undeclared-read", &read.place, message, Some(cure));
    }

    /// Read by its name, and an ignore rule takes all of it out: a change there would not deploy.
    fn ignored(&mut self, read: &'a Read) {
        let Subject { app, inputs, .. } = self.subject;
        let Reach::Path(path) = &read.reach else { return };
        let mut seen = self.seen(read).peekable();
        if seen.peek().is_none() {
            return;
        }
        let mut pattern = None;
        for file in seen {
            match inputs.ignored_by(file) {
                Some(found) => pattern = Some(found),
                None => return,
            }
        }
        let Some(pattern) = pattern else { return };
        let message =
            format!("the build reads `{path}`, and `{}` at {} ignores it: a change there deploys nothing", pattern.glob, pattern.place);
        let cure = format!("apps: {{{}: {{ignore: [\"!/{}\"]}}}}", app.name, self.written(path));
        self.add(Level::Error, "ignored-read", &read.place, message, Some(cure));
    }

    /// Read by its name, and the build will not find it: git has no such file, or an ignore file hides all of it.
    fn absent(&mut self, build: &ServiceBuild, read: &'a Read) {
        let (Reach::Path(path), true, false) = (&read.reach, read.is_required, self.subject.has_build_hooks) else { return };
        let Some(first) = self.reached(&read.reach).next() else {
            // What is below a submodule or a link is told where that is.
            let mut above = std::iter::successors(Some(path.parent()), |dir| (!dir.is_root()).then(|| dir.parent()));
            if !above.any(|dir| self.files.binary_search(&dir).is_ok()) {
                let message = format!(
                    "the build reads `{path}`, and git has no such file: a fresh checkout lacks it, a change there deploys nothing"
                );
                let cure = "commit it, correct the path, or make it in `deploy/before_build.sh`".to_owned();
                self.add(Level::Warning, "unmatched-read", &read.place, message, Some(cure));
            }
            return;
        };
        if self.seen(read).next().is_some() {
            return;
        }
        let Some(Rule { matches, place: Some(place), .. }) = (self.subject.hiding)(build, first) else { return };
        let message = format!("the build reads `{path}`, and `{matches}` at {place} hides it: the build fails, or gets nothing");
        let inside = path.below(&build.context).map(RepoPath::from_git).unwrap_or_default();
        let cure = format!("write `!{inside}` as the last line of `{}`", place.file);
        self.add(Level::Warning, "hidden-read", &read.place, message, Some(cure));
    }

    /// `uses` that mean no file, and those whose files no build can read.
    fn uses(&mut self) {
        let Subject { app, manifest, reads, .. } = self.subject;
        let builds: Vec<&ServiceBuild> = manifest.services.iter().filter_map(|service| service.build.as_ref()).collect();
        // A hook may copy files into a context; then nothing can be told.
        let tellable = !builds.is_empty() && !self.subject.has_build_hooks && reads.len() == builds.len();
        for used in &app.uses {
            let Ok(reach) = Reach::of(&used.pattern.glob) else { continue };
            let Reached { any, read } = self.use_of(&reach, &builds);
            let through = match used.through.last() {
                Some(set) => format!(" (of the set `{set}`)"),
                None => String::new(),
            };
            if !any {
                let message = format!("`{}`{through} matches no tracked file", used.pattern.glob);
                let cure = "correct the path, or take the line away".to_owned();
                self.add(Level::Warning, "unmatched-use", &used.pattern.place, message, Some(cure));
            } else if tellable && !read {
                let message =
                    format!("`{}`{through} deploys app `{}` when it changes, and none of its builds reads it", used.pattern.glob, app.name);
                let cure = "take the line away, unless the app needs it at run time in another way".to_owned();
                self.add(Level::Note, "unread-use", &used.pattern.place, message, Some(cure));
            }
        }
    }

    fn use_of(&self, reach: &Reach, builds: &[&ServiceBuild]) -> Reached {
        let mut reached = Reached { any: false, read: false };
        let reads = || self.subject.reads.values().flatten();
        for path in below(self.files, reach.start()).filter(|path| reach.contains(path)) {
            reached.any = true;
            reached.read = reads().any(|read| read.reach.contains(path) && read.unseen.as_ref().is_none_or(|unseen| !unseen.hides(path)))
                || self.subject.manifest.files.contains(path)
                || builds.iter().any(|build| build.dockerfile == *path || build.also_reads.iter().any(|also| path.is_in(also)));
            if reached.read {
                break;
            }
        }
        reached
    }

    /// Files of the app's directory that no build sees: they deploy for nothing.
    fn hidden(&mut self) {
        let Subject { app, manifest, inputs, hiding, .. } = self.subject;
        if app.precision == Precision::Context {
            return;
        }
        let builds: Vec<&ServiceBuild> = manifest.services.iter().filter_map(|service| service.build.as_ref()).collect();
        let mut groups: BTreeMap<(Place, String), Vec<&RepoPath>> = BTreeMap::new();
        for path in below(self.files, app.dir.clone()) {
            if self.is_needed(path, &builds) || inputs.ignored_by(path).is_some() || self.is_read_by_name(path) {
                continue;
            }
            let mut patterns = builds.iter().filter(|build| path.is_in(&build.context)).map(|build| hiding(build, path)).peekable();
            if patterns.peek().is_none() {
                continue;
            }
            let Some(patterns) = patterns.collect::<Option<Vec<Rule>>>() else { continue };
            if let Some(Rule { matches, place: Some(place), .. }) = patterns.into_iter().next() {
                groups.entry((place, matches)).or_default().push(path);
            }
        }
        for ((place, pattern), paths) in groups {
            let message = format!(
                "`{pattern}` hides {} of app `{}` from every build (`{}`{}), and a change there deploys it for nothing",
                files(paths.len()),
                app.name,
                paths[0],
                if paths.len() > 1 { ", …" } else { "" }
            );
            let cure = match &paths[..] {
                [one] => format!("apps: {{{}: {{ignore: [\"/{}\"]}}}}", app.name, self.written(one)),
                _ => format!("apps: {{{}: {{precision: context}}}}, or name the files under its `ignore`", app.name),
            };
            self.add(Level::Note, "hidden-file", &place, message, Some(cure));
        }
    }

    /// True when a build asks for the path, so that hiding it is what is wrong.
    fn is_read_by_name(&self, path: &RepoPath) -> bool {
        self.subject.reads.values().flatten().any(|read| read.is_required && matches!(&read.reach, Reach::Path(asked) if asked == path))
    }

    /// True for files that steer the build or the release without being in an image.
    fn is_needed(&self, path: &RepoPath, builds: &[&ServiceBuild]) -> bool {
        let Subject { app, manifest, .. } = self.subject;
        let hook = |hook: &HookConfig| match hook {
            HookConfig::File { path: file, .. } => app.dir.join(file).is_some_and(|file| {
                let dir = file.parent();
                if dir == app.dir { *path == file } else { path.is_in(&dir) }
            }),
            HookConfig::Command(words) => command_words(words).filter_map(|word| app.dir.join(word)).any(|file| file == *path),
        };
        manifest.files.contains(path)
            || app.dir.join(&app.manifest).as_ref() == Some(path)
            || path.file_name().ends_with(".dockerignore")
            || app.compose.as_ref().and_then(|compose| app.dir.join(compose)).as_ref() == Some(path)
            || builds.iter().any(|build| build.dockerfile == *path || build.also_reads.contains(path))
            || app.hooks.values().any(hook)
            // Compose reads it for variables.
            || path.file_name() == ".env"
    }

    /// Services that are built and have nowhere to go.
    fn repositories(&mut self) {
        let Subject { app, manifest, .. } = self.subject;
        let commit = "0".repeat(40);
        for service in manifest.services.iter().filter(|service| service.build.is_some()) {
            if let Err(error) = image_tags(&service.name, service.image.as_ref(), app.repository.as_deref(), &app.name, &commit) {
                self.add(Level::Error, "no-repository", &service.place, error.one_line(), error.hint);
            }
        }
    }
}

struct Reached {
    any: bool,
    read: bool,
}

/// The files at or below a directory; sorted as they are, they stand together.
fn below(files: &[RepoPath], dir: RepoPath) -> impl Iterator<Item = &RepoPath> {
    let start = files.partition_point(|path| *path < dir);
    // `a-b` sorts between `a` and `a/b`: the end is where nothing begins with the directory's name any more.
    files[start..]
        .iter()
        .take_while({
            let dir = dir.clone();
            move |path| path.as_bytes().starts_with(dir.as_bytes())
        })
        .filter(move |path| path.is_in(&dir))
}

fn ignore_name(context: &RepoPath) -> String {
    context.join(".dockerignore").unwrap_or_default().to_string()
}

fn files(count: usize) -> String {
    if count == 1 { "1 file".to_owned() } else { format!("{count} files") }
}

/// How many errors, warnings and notes there are.
#[must_use]
pub fn counted(findings: &[Finding]) -> [usize; 3] {
    [Level::Error, Level::Warning, Level::Note].map(|level| findings.iter().filter(|finding| finding.level == level).count())
}
