//! What an app's builds read of the repository: its Dockerfiles' sources as paths of the repository, through `.dockerignore`.
//!
//! `dockerfile` tells what a Dockerfile says; this module brings it together with the context it is said about. What cannot
//! be followed widens to the whole context: no Dockerfile, a variable without a value, a link on the way to a source.

use super::Rule;
use super::dockerfile::{self, Origin, SourceRead};
use super::inputs::{InputRule, Reach, Read, Unseen, sibling};
use crate::build::dockerignore::DockerIgnore;
use crate::files::Files;
use crate::manifest::{Manifest, ServiceBuild};
use crate::names::{RepoPath, ServiceName};
use crate::yaml::Place;
use std::collections::BTreeMap;

/// What each built service reads, from its Dockerfile among `files`. A service whose Dockerfile cannot be read
/// is not among them, so its whole context counts.
#[must_use]
pub fn reads_of(manifest: &Manifest, files: &dyn Files) -> BTreeMap<ServiceName, Vec<Read>> {
    let built = manifest.services.iter().filter_map(|service| Some((service, service.build.as_ref()?)));
    built.filter_map(|(service, build)| Some((service.name.clone(), of_build(build, files)?))).collect()
}

fn of_build(build: &ServiceBuild, files: &dyn Files) -> Option<Vec<Read>> {
    let text = files.text(&build.dockerfile).ok()?;
    let found = dockerfile::reads(&text, &build.image.args);
    let unseen = unseen(build, files);
    let read = |reach: Reach, text: String, line: usize| {
        let place = Place { file: build.dockerfile.to_string(), line, column: 1 };
        Read { reach, text, place, unseen: unseen.clone() }
    };
    let whole = |line: usize, why: &str| read(Reach::Path(build.context.clone()), format!("{} ({why})", build.context), line);
    if let Some((line, why)) = &found.whole_context {
        return Some(vec![whole(*line, why)]);
    }
    // A named context is an input as a whole (`also_reads`); stages and images read nothing here.
    let sources = found.sources.iter().filter(|source| source.from == Origin::Context);
    let one = |source: &SourceRead| match reach(&build.context, &source.pattern) {
        Some((path, reach)) if !has_link(files, &build.context, &path) => read(reach, path.to_string(), source.line),
        Some(_) => whole(source.line, "a link leads elsewhere"),
        None => whole(source.line, "its pattern is not understood"),
    };
    Some(sources.map(one).collect())
}

/// A source as a path of the repository, with what it reaches.
fn reach(context: &RepoPath, pattern: &str) -> Option<(RepoPath, Reach)> {
    let path = context.join(pattern)?;
    if !pattern.contains(['*', '?', '[', '\\']) {
        return Some((path.clone(), Reach::Path(path)));
    }
    // Braces are plain characters to Docker, and so is everything in the context's own path.
    let pattern = pattern.replace('{', "[{]").replace('}', "[}]");
    let context = globset::escape(std::str::from_utf8(context.as_bytes()).ok()?);
    let glob = if context.is_empty() { pattern } else { format!("{context}/{pattern}") };
    Some((path, Reach::of(&glob).ok()?))
}

/// True when a directory on the way from the context to `path`, or `path` itself, is a link: what it leads to is read.
fn has_link(files: &dyn Files, context: &RepoPath, path: &RepoPath) -> bool {
    let above = std::iter::successors(Some(path.clone()), |path| (!path.is_root()).then(|| path.parent()));
    above.take_while(|at| at != context).any(|at| files.is_link(&at))
}

/// The ignore file a build obeys, with its text: the Dockerfile's own one before the context's.
#[must_use]
pub fn ignore_file(build: &ServiceBuild, files: &dyn Files) -> Option<(RepoPath, String)> {
    let both = [sibling(&build.dockerfile), build.context.join(".dockerignore")];
    both.into_iter().flatten().find_map(|file| Some((file.clone(), files.text(&file).ok()?)))
}

/// The pattern of an ignore file that hides a path of the repository from a build of its context.
#[must_use]
pub fn hiding(context: &RepoPath, file: &RepoPath, text: &str, path: &RepoPath) -> Option<Rule> {
    let rest = path.below(context).filter(|rest| !rest.is_empty())?;
    if !DockerIgnore::parse(text).ok()?.is_ignored(rest) {
        return None;
    }
    // The last match decides, and no `!` that comes after it can match.
    let hides = |line: &str| {
        !line.starts_with('#') && !line.trim().starts_with('!') && DockerIgnore::parse(line).is_ok_and(|one| one.is_ignored(rest))
    };
    let (at, line) = text.lines().enumerate().filter(|(_, line)| hides(line)).last()?;
    let place = Place { file: file.to_string(), line: at + 1, column: 1 };
    Some(Rule { kind: "dockerignore", matches: line.trim().to_owned(), place: Some(place), through: Vec::new() })
}

/// The pattern that hides a path from one of an app's builds.
#[must_use]
pub fn hidden_by(manifest: &Manifest, files: &dyn Files, path: &RepoPath) -> Option<Rule> {
    manifest.services.iter().filter_map(|service| service.build.as_ref()).find_map(|build| {
        let (file, text) = ignore_file(build, files)?;
        hiding(&build.context, &file, &text, path)
    })
}

/// The pattern that hides a path from the build that a rule was inferred from.
#[must_use]
pub fn hidden_from(rule: &InputRule, files: &dyn Files, path: &RepoPath) -> Option<Rule> {
    let (context, text) = rule.unseen.as_ref()?.parts();
    // What hides something stands in a Dockerfile, which may have an ignore file of its own.
    let dockerfile = RepoPath::from(rule.rule.place.as_ref()?.file.as_str());
    let own = sibling(&dockerfile).filter(|own| files.text(own).is_ok_and(|found| found == text));
    hiding(context, &own.or_else(|| context.join(".dockerignore"))?, text, path)
}

fn unseen(build: &ServiceBuild, files: &dyn Files) -> Option<Unseen> {
    Unseen::new(build.context.clone(), &ignore_file(build, files)?.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::changes::inputs::tests::{app, manifest};
    use crate::changes::inputs::{Shared, inputs_of};
    use crate::files::OnDisk;
    use std::sync::Arc;

    /// The paths of `asked` that are inputs of `apps/web`, whose image is built from the repository's root.
    fn inputs(dockerfile: Option<&str>, ignore: &str, asked: &[&str]) -> Vec<String> {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("libs/real")).unwrap();
        std::os::unix::fs::symlink("real", root.path().join("libs/link")).unwrap();
        if let Some(text) = dockerfile {
            std::fs::write(root.path().join("Dockerfile"), text).unwrap();
        }
        std::fs::write(root.path().join(".dockerignore"), ignore).unwrap();
        let manifest = manifest("", "Dockerfile", &[]);
        let reads = reads_of(&manifest, &OnDisk::new(root.path()));
        let inputs = inputs_of(&app(), &Arc::new(Shared::default()), Some(&manifest), &reads, &|_| Vec::new()).unwrap();
        asked.iter().filter(|path| inputs.contain(&RepoPath::from(**path))).map(|path| (*path).to_owned()).collect()
    }

    #[test]
    fn a_context_outside_counts_as_far_as_it_is_read() {
        let asked =
            ["apps/web/x", "apps/api/x", "libs/auth/x", "libs/auth/x.md", "libs/{a}/x", "libs/other", "Dockerfile", ".dockerignore"];
        let own = ["apps/web/x", "Dockerfile", ".dockerignore"];
        let plus = |more: &[&str]| -> Vec<String> {
            asked.iter().filter(|path| own.contains(path) || more.contains(path)).map(|path| (*path).to_owned()).collect()
        };
        let table: Vec<(&str, Option<&str>, &str, Vec<String>)> = vec![
            ("its app only", Some("FROM x\nCOPY apps/web /\n"), "", plus(&[])),
            ("a library", Some("FROM x\nCOPY libs/auth /\n"), "", plus(&["libs/auth/x", "libs/auth/x.md"])),
            ("a library, partly hidden", Some("FROM x\nCOPY libs/auth /\n"), "**/*.md\n", plus(&["libs/auth/x"])),
            ("a pattern", Some("FROM x\nCOPY libs/a* /\n"), "", plus(&["libs/auth/x", "libs/auth/x.md"])),
            ("braces are plain", Some("FROM x\nCOPY libs/{a}* /\n"), "", plus(&["libs/{a}/x"])),
            ("everything", Some("FROM x\nCOPY . /\n"), "", plus(&asked)),
            ("everything but", Some("FROM x\nCOPY . /\n"), "apps\nlibs/*\n!libs/other\n", plus(&["libs/other"])),
            ("a variable the base image may set", Some("FROM x\nCOPY libs/$WHAT /\n"), "", plus(&asked)),
            ("through a link", Some("FROM x\nCOPY libs/link /\n"), "", plus(&asked)),
            ("no Dockerfile", None, "", plus(&asked)),
        ];
        for (name, dockerfile, ignore, expected) in table {
            assert_eq!(inputs(dockerfile, ignore, &asked), expected, "{name}");
        }
    }
}
