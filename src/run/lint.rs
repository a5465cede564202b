//! `offbuild lint`: what apps declare against what their builds read, and what would stop a deploy.

use super::answer::VERSION;
use super::read;
use super::world::World;
use crate::build::dockerignore::DockerIgnore;
use crate::changes::lint::{self, Finding, Level, Subject, counted};
use crate::changes::reads::{hiding, ignore_file, reads_of};
use crate::changes::{Change, ChangeKind};
use crate::cli::{Format, Global, LintArgs};
use crate::config::HookKind;
use crate::error::{Kind, Result};
use crate::files::Files;
use crate::manifest::ServiceBuild;
use crate::names::{AppName, RepoPath};
use crate::report::text::count;
use crate::yaml::Problem;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Answers on standard output; exit code 1 when there is an error, 0 with warnings and notes alone.
pub(super) fn lint(global: &Global, args: &LintArgs) -> Result<u8> {
    let world = World::open(global, &args.selection)?;
    let findings = tokio::task::block_in_place(|| findings(&world))?;
    let [errors, warnings, notes] = counted(&findings);
    match args.format {
        Format::Text => {
            super::print(&text(&findings))?;
            if !global.quiet {
                super::tell(format!("{}, {}, {}", count(errors, "error"), count(warnings, "warning"), count(notes, "note")));
            }
        }
        Format::Json => {
            let answer = json!({"version": VERSION, "errors": errors, "warnings": warnings, "notes": notes, "findings": findings});
            super::print_data(&format!("{answer:#}\n"))?;
        }
    }
    Ok(if errors > 0 { Kind::Failed.exit_code() } else { 0 })
}

fn findings(world: &World) -> Result<Vec<Finding>> {
    let selected: BTreeSet<&AppName> = world.apps().map(|app| &app.name).collect();
    let mut found = Vec::new();
    let mut all = Vec::new();
    for (app, problems) in read::apps_and_problems(world) {
        if selected.contains(&app.app.name) {
            found.extend(problems.into_iter().map(|problem| finding(&app.app.name, Level::Error, "problem", problem)));
            let warnings = app.manifest.iter().flat_map(|manifest| &manifest.warnings);
            found.extend(warnings.map(|problem| finding(&app.app.name, Level::Warning, "manifest", problem.clone())));
            all.push(app);
        }
    }
    let files = tracked(world)?;
    for (app, inputs) in all.iter().zip(read::inputs(world, &all)?) {
        let Some(manifest) = app.manifest.as_deref() else { continue };
        let reads = reads_of(manifest, &*world.files);
        let builds = manifest.services.iter().filter_map(|service| service.build.as_ref());
        let ignored: BTreeMap<(&RepoPath, &RepoPath), Ignored> =
            builds.filter_map(|build| Some(((&build.context, &build.dockerfile), Ignored::read(build, &*world.files)?))).collect();
        let hidden = |build: &ServiceBuild, path: &RepoPath| {
            let Ignored { file, text, patterns } = ignored.get(&(&build.context, &build.dockerfile))?;
            let rest = path.below(&build.context)?;
            if patterns.is_ignored(rest) { hiding(&build.context, file, text, path) } else { None }
        };
        let subject = Subject {
            app: &app.app,
            prefix: &world.config.prefix,
            manifest,
            inputs: &inputs,
            reads: &reads,
            hiding: &hidden,
            has_build_hooks: app.hooks.keys().any(|hook| *hook == HookKind::BeforeBuild),
        };
        found.extend(lint::lint(&subject, &files));
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// An ignore file, read and parsed once for all paths.
struct Ignored {
    file: RepoPath,
    text: String,
    patterns: DockerIgnore,
}

impl Ignored {
    fn read(build: &ServiceBuild, files: &dyn Files) -> Option<Self> {
        let (file, text) = ignore_file(build, files)?;
        let patterns = DockerIgnore::parse(&text).ok()?;
        Some(Self { file, text, patterns })
    }
}

/// The files of HEAD as the work tree would commit them, sorted.
fn tracked(world: &World) -> Result<Vec<RepoPath>> {
    let head = world.history.files(&world.head.commit.id, &RepoPath::default())?;
    let mut files: BTreeSet<RepoPath> = head.into_iter().map(|entry| entry.path).collect();
    for Change { path, kind, .. } in world.history.dirty()? {
        match kind {
            ChangeKind::Deleted => drop(files.remove(&path)),
            ChangeKind::Added | ChangeKind::Modified => drop(files.insert(path)),
        }
    }
    Ok(files.into_iter().collect())
}

fn finding(app: &AppName, level: Level, check: &'static str, problem: Problem) -> Finding {
    let Problem { place, message, help } = problem;
    Finding { level, check, app: app.clone(), place, message, cure: help }
}

/// `place: level: message [check]`, with the cure below it.
fn text(findings: &[Finding]) -> String {
    let mut out = String::new();
    for finding in findings {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{}: {}: {} [{}]", finding.place, finding.level.word(), finding.message, finding.check);
        if let Some(cure) = &finding.cure {
            let _ = writeln!(out, "   help: {cure}");
        }
    }
    out
}
