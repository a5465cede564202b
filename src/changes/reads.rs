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
        Read { reach, text, place, unseen: unseen.clone(), is_required: false }
    };
    let whole = |line: usize, why: &str| read(Reach::Path(build.context.clone()), format!("{} ({why})", build.context), line);
    if let Some((line, why)) = &found.whole_context {
        return Some(vec![whole(*line, why)]);
    }
    // A named context is an input as a whole (`also_reads`); stages and images read nothing here.
    let sources = found.sources.iter().filter(|source| source.from == Origin::Context);
    let one = |source: &SourceRead| match reach(&build.context, &source.pattern) {
        Some((path, reach)) if !has_link(files, &build.context, &source.pattern) => {
            Read { is_required: !source.later && !is_pattern(&source.pattern), ..read(reach, path.to_string(), source.line) }
        }
        Some(_) => whole(source.line, "a link leads elsewhere"),
        None => whole(source.line, "its pattern is not understood"),
    };
    Some(sources.map(one).collect())
}

/// A source as a path of the repository, with what it reaches.
fn reach(context: &RepoPath, pattern: &str) -> Option<(RepoPath, Reach)> {
    let path = context.join(pattern)?;
    if !is_pattern(pattern) {
        return Some((path.clone(), Reach::Path(path)));
    }
    let context = globset::escape(std::str::from_utf8(context.as_bytes()).ok()?);
    let pattern = as_glob(pattern)?;
    let glob = if context.is_empty() { pattern } else { format!("{context}/{pattern}") };
    Some((path, Reach::of(&glob).ok()?))
}

fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '[', '\\'])
}

/// A pattern of Docker's as a glob that matches at least the same; `None` when it ends in the middle.
///
/// `?` and classes are one character there and one byte in a glob; `!` negates in a glob alone, where `\` means nothing inside a
/// class; braces are plain to Docker.
fn as_glob(pattern: &str) -> Option<String> {
    let mut glob = String::new();
    let mut rest = pattern.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' => glob.push_str(&globset::escape(&rest.next()?.to_string())),
            '[' => {
                let mut members = String::new();
                loop {
                    match rest.next()? {
                        ']' if !members.is_empty() && members != "^" => break,
                        '\\' => members.extend(['\\', rest.next()?]),
                        member => members.push(member),
                    }
                }
                let plain = members.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
                glob.push_str(&if plain { format!("[{members}]") } else { "*".to_owned() });
            }
            '?' | '*' => glob.push('*'),
            '{' | '}' => glob.push_str(&format!("[{c}]")),
            c => glob.push(c),
        }
    }
    Some(glob)
}

/// True when a link is on the way to what a source means, or at its end: what it leads to is read.
fn has_link(files: &dyn Files, context: &RepoPath, pattern: &str) -> bool {
    let mut dirs = vec![context.clone()];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        if part == "**" {
            let mut at = 0;
            while let Some(dir) = dirs.get(at).cloned() {
                dirs.extend(files.list(&dir).unwrap_or_default().iter().filter(|entry| entry.is_dir).map(|entry| entry.below(&dir)));
                at += 1;
            }
            continue;
        }
        // A `!` it begins with is plain behind a slash.
        let names = DockerIgnore::from_patterns([format!("/{part}")]).ok().filter(|_| is_pattern(part));
        let Some(names) = names else {
            dirs = dirs.iter().filter_map(|dir| dir.join(part)).collect();
            if dirs.iter().any(|path| files.is_link(path)) {
                return true;
            }
            continue;
        };
        let mut found = Vec::new();
        for dir in &dirs {
            for entry in files.list(dir).unwrap_or_default().into_iter().filter(|entry| names.is_ignored(&entry.name)) {
                if entry.is_link {
                    return true;
                }
                found.extend(entry.is_dir.then(|| entry.below(dir)));
            }
        }
        dirs = found;
    }
    false
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

/// The pattern that hides a path from a build.
#[must_use]
pub fn hidden_by(build: &ServiceBuild, files: &dyn Files, path: &RepoPath) -> Option<Rule> {
    let (file, text) = ignore_file(build, files)?;
    hiding(&build.context, &file, &text, path)
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
            ("a pattern that meets a link", Some("FROM x\nCOPY l*/li?k /\n"), "", plus(&asked)),
            ("a pattern that may meet a link below", Some("FROM x\nCOPY --parents **/link /\n"), "", plus(&asked)),
            ("no Dockerfile", None, "", plus(&asked)),
        ];
        for (name, dockerfile, ignore, expected) in table {
            assert_eq!(inputs(dockerfile, ignore, &asked), expected, "{name}");
        }
    }

    #[test]
    fn what_links_of_a_build_lead_to_counts() {
        let root = tempfile::tempdir().unwrap();
        let link = |target: &str, path: &str| std::os::unix::fs::symlink(target, root.path().join(path)).unwrap();
        for dir in ["apps/web", "shared/context", "shared/named"] {
            std::fs::create_dir_all(root.path().join(dir)).unwrap();
        }
        std::fs::write(root.path().join("shared/Dockerfile"), "FROM x\nCOPY one /\n").unwrap();
        std::fs::write(root.path().join("shared/ignore"), "").unwrap();
        link("../../shared/Dockerfile", "apps/web/Dockerfile");
        link("../../shared/ignore", "apps/web/Dockerfile.dockerignore");
        link("../../shared/context", "apps/web/context");
        link("../../shared/named", "apps/web/named");
        let manifest = manifest("apps/web/context", "apps/web/Dockerfile", &["apps/web/named"]);
        let files = OnDisk::new(root.path());
        let reads = reads_of(&manifest, &files);
        let files: &dyn Files = &files;
        let inputs = inputs_of(&app(), &Arc::new(Shared::default()), Some(&manifest), &reads, &|path| files.through_links(path)).unwrap();
        for path in ["shared/Dockerfile", "shared/ignore", "shared/context/one", "shared/named/x", "apps/web/context"] {
            assert!(inputs.contain(&RepoPath::from(path)), "{path}");
        }
        assert!(!inputs.contain(&RepoPath::from("shared/other")));
    }

    #[test]
    fn a_pattern_of_dockers_is_a_glob_that_matches_no_less() {
        for (pattern, yes, no) in [
            ("a?c", &["abc", "a\u{e9}c"][..], &["a/c", "b"][..]),
            ("[!o]ne", &["one", "!ne"], &["two"]),
            ("[^o]x", &["ax", "\u{e9}x"], &["a/x"]),
            ("[a-c]x", &["bx"], &["dx"]),
            ("[\\]a]x", &["]x", "ax"], &["a/x"]),
            ("[{]b}", &["{b}"], &["b"]),
            ("\\*", &["*"], &["a"]),
            ("{a,b}*", &["{a,b}c"], &["a"]),
        ] {
            let (_, reach) = reach(&RepoPath::default(), pattern).unwrap();
            for path in yes {
                assert!(reach.contains(&RepoPath::from(*path)), "{pattern} {path}");
            }
            for path in no {
                assert!(!reach.contains(&RepoPath::from(*path)), "{pattern} {path}");
            }
        }
        assert!(reach(&RepoPath::default(), "a[b").is_none());
    }
}
