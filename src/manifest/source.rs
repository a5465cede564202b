//! A manifest file being read: its tree, the variables of its values, and what was found wrong so far.
//!
//! The readers of both kinds of manifest go through here, so that every value is expanded, every path stays in the
//! repository, and every complaint has its place.

use super::interpolate::{dotenv, expand};
use super::{Problems, Reading, ServiceBuild};
use crate::build::{ImageBuild, SecretSource};
use crate::names::{ImageRef, RepoPath};
use crate::yaml::{Document, Entry, Node, Place, Problem};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Whose rules a file follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// `convox.yml`.
    Convox,
    /// A compose file.
    Compose,
}

/// A file being read.
pub(super) struct Source<'a> {
    pub(super) reading: &'a Reading<'a>,
    pub(super) path: RepoPath,
    pub(super) document: Document,
    pub(super) files: Vec<RepoPath>,
    pub(super) problems: Problems,
    pub(super) warnings: Problems,
    pub(super) dialect: Dialect,
    /// The file's own directory: what relative paths start from.
    pub(super) dir: RepoPath,
    dotenv: BTreeMap<String, String>,
}

/// One `NAME=value`, `NAME: value` or bare `NAME`.
pub(super) struct Pair {
    pub(super) name: String,
    pub(super) value: Option<String>,
    /// Where it stands, in bytes.
    pub(super) at: usize,
}

impl<'a> Source<'a> {
    /// Opens and parses the file `name`, relative to the app's directory.
    pub(super) fn open(reading: &'a Reading<'a>, name: &str, dialect: Dialect) -> Result<Self, Problems> {
        let start = |file: String| Place { file, line: 1, column: 1 };
        let whole = |place: Place, message: String, help: Option<String>| vec![Problem { place, message, help }];
        let Some(path) = reading.dir.join(name) else {
            let message = format!("the manifest `{name}` of app `{}` lies outside the repository", reading.app);
            return Err(whole(start(name.to_owned()), message, None));
        };
        let file = path.to_string();
        let text = match (reading.read)(&path) {
            Ok(Some(text)) => text,
            Ok(None) => {
                let help = format!("create it, or set `apps.{}.manifest` in apps.yaml", reading.app);
                return Err(whole(start(file), format!("app `{}` has no `{name}`", reading.app), Some(help)));
            }
            Err(error) => return Err(whole(start(file), format!("cannot be read: {error}"), None)),
        };
        let mut document = Document::parse(&file, &text).map_err(|problem| vec![problem])?;
        let problems = std::mem::take(&mut document.problems);
        let mut files = vec![path.clone()];
        let mut variables = BTreeMap::new();
        if let (Dialect::Compose, Some(beside)) = (dialect, reading.dir.join(".env")) {
            // An unreadable `.env` is as good as none: the variables it would set are reported where they are missing.
            if let Ok(Some(text)) = (reading.read)(&beside) {
                variables = dotenv(&text, reading.env);
                files.push(beside);
            }
        }
        let dir = path.parent();
        Ok(Self { reading, path, document, files, problems, warnings: Vec::new(), dialect, dir, dotenv: variables })
    }

    /// Reports a problem at a byte of the file.
    pub(super) fn problem(&mut self, at: usize, message: impl Into<String>, help: Option<String>) {
        self.problems.push(Problem { place: self.document.place(at), message: message.into(), help });
    }

    /// Reports something that is no error.
    pub(super) fn warn(&mut self, at: usize, message: impl Into<String>, help: Option<String>) {
        let warning = Problem { place: self.document.place(at), message: message.into(), help };
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    /// A variable: the environment's, then the `.env` file's.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        (self.reading.env)(name).or_else(|| self.dotenv.get(name).cloned())
    }

    /// Fills in variables; `None` after reporting why it does not work.
    pub(super) fn expand(&mut self, text: &str, at: usize) -> Option<String> {
        match expand(text, self.dialect, &|name| self.variable(name)) {
            Ok(expanded) => {
                for name in expanded.unset {
                    let help = format!("set it, or write `${{{name}:-}}` if nothing is meant");
                    let help = (self.dialect == Dialect::Compose).then_some(help);
                    self.warn(at, format!("variable `{name}` is not set, so it is empty here"), help);
                }
                Some(expanded.text)
            }
            Err(message) => {
                self.problem(at, message, None);
                None
            }
        }
    }

    /// A scalar's text, expanded; `what` names it in the complaint.
    pub(super) fn text(&mut self, node: &Node, at: usize, what: &str) -> Option<String> {
        match node.as_str().filter(|_| !node.is_null()).map(str::to_owned) {
            Some(text) => self.expand(&text, at),
            None => {
                self.problem(at, format!("`{what}` must be a string, not {}", node.kind()), None);
                None
            }
        }
    }

    /// The text of an entry, which must not be empty.
    pub(super) fn word(&mut self, entry: &Entry) -> Option<String> {
        let text = self.text(&entry.value, entry.key_span.start, &entry.key)?;
        if text.is_empty() {
            self.problem(entry.key_span.start, format!("`{}` is empty", entry.key), None);
            return None;
        }
        Some(text)
    }

    /// As [`Source::word`], with where it stands; `default` when there is no entry, or after reporting that it is no good.
    pub(super) fn word_or(&mut self, entry: Option<&Entry>, default: &str, at: usize) -> (String, usize) {
        let word = entry.and_then(|entry| self.word(entry)).unwrap_or_else(|| default.to_owned());
        (word, entry.map_or(at, |entry| entry.key_span.start))
    }

    /// A boolean entry; a variable may stand for it.
    pub(super) fn boolean(&mut self, entry: &Entry) -> Option<bool> {
        let text = self.text(&entry.value, entry.key_span.start, &entry.key)?;
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "y" | "1" => Some(true),
            "false" | "no" | "off" | "n" | "0" => Some(false),
            _ => {
                self.problem(entry.key_span.start, format!("`{}` must be true or false, not `{text}`", entry.key), None);
                None
            }
        }
    }

    /// The strings of a list; one string is a list of one.
    pub(super) fn list(&mut self, entry: &Entry) -> Vec<(String, usize)> {
        let Some(items) = entry.value.items().map(<[_]>::to_vec) else {
            return self.word(entry).map(|text| (text, entry.value.span.start)).into_iter().collect();
        };
        items.iter().filter_map(|item| self.text(item, item.span.start, &entry.key).map(|text| (text, item.span.start))).collect()
    }

    /// The pairs of a list (`NAME=value`, split at the first of `separators`) or of a mapping.
    pub(super) fn pairs(&mut self, entry: &Entry, separators: &[char]) -> Vec<Pair> {
        let mut pairs = Vec::new();
        if entry.value.entries().is_some() {
            for pair in entry.value.merged() {
                let at = pair.key_span.start;
                if pair.value.is_null() {
                    pairs.push(Pair { name: pair.key, value: None, at });
                } else if let Some(value) = self.text(&pair.value, at, &pair.key) {
                    pairs.push(Pair { name: pair.key, value: Some(value), at });
                }
            }
        } else if entry.value.items().is_some() {
            for (text, at) in self.list(entry) {
                match text.split_once(separators) {
                    Some((name, value)) => pairs.push(Pair { name: name.to_owned(), value: Some(value.to_owned()), at }),
                    None => pairs.push(Pair { name: text, value: None, at }),
                }
            }
        } else if !entry.value.is_null() {
            let message = format!("`{}` must be a list or a mapping, not {}", entry.key, entry.value.kind());
            self.problem(entry.key_span.start, message, None);
        }
        pairs
    }

    /// Build arguments: a name without a value takes the variable's, and is left out when there is none.
    pub(super) fn args(&mut self, entry: &Entry) -> BTreeMap<String, String> {
        let mut args = BTreeMap::new();
        for pair in self.pairs(entry, &['=']) {
            if let Some(value) = pair.value.or_else(|| self.variable(&pair.name)) {
                args.insert(pair.name, value);
            }
        }
        args
    }

    /// Where `path` leads from `base`, in the repository; `what` is named in the complaint when it leaves it.
    pub(super) fn inside(&mut self, base: &RepoPath, path: &str, at: usize, what: &str) -> Option<RepoPath> {
        let found = match std::path::Path::new(path).strip_prefix(self.reading.root) {
            Ok(below) => below.to_str().and_then(|below| RepoPath::default().join(below)),
            Err(_) => base.join(path),
        };
        if found.is_none() {
            let help = "everything a build reads must be in the repository, or its changes could not be seen";
            self.problem(at, format!("{what} outside the repository: `{path}`"), Some(help.to_owned()));
        }
        found
    }

    /// A file that may lie anywhere on this machine, absolute.
    pub(super) fn anywhere(&self, path: &str) -> PathBuf {
        match (path.strip_prefix("~/"), (self.reading.env)("HOME")) {
            (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
            _ => match self.dir.join(path) {
                Some(inside) => inside.under(self.reading.root),
                None => self.dir.under(self.reading.root).join(path),
            },
        }
    }

    /// The image of a service. What is not built is the rack's to resolve: with variables in it, it is `None` here.
    pub(super) fn image(&mut self, entry: &Entry, built: bool) -> Option<ImageRef> {
        let at = entry.key_span.start;
        if !built && entry.value.as_str().is_some_and(|text| text.contains('$')) {
            return None;
        }
        let text = self.word(entry)?;
        match ImageRef::parse(&text) {
            Ok(image) => Some(image),
            Err(error) => {
                self.problem(at, error.to_string(), None);
                None
            }
        }
    }

    /// A build of the directory `context` with `dockerfile`, a path from there, each with where it is written; nothing else
    /// said yet. With a path that is no good the rest is still read, so that all problems come at once.
    pub(super) fn plain_build(&mut self, context: (String, usize), dockerfile: (String, usize), at: usize) -> ServiceBuild {
        let dir = self.dir.clone();
        let context = self.inside(&dir, &context.0, context.1, "build context").unwrap_or(dir);
        let dockerfile = self.inside(&context, &dockerfile.0, dockerfile.1, "Dockerfile").unwrap_or_default();
        let image = ImageBuild {
            context: context.under(self.reading.root),
            dockerfile: dockerfile.under(self.reading.root),
            context_key: format!("{}:{context}", self.reading.app),
            ..ImageBuild::default()
        };
        let place = self.document.place(at);
        ServiceBuild { image, context, dockerfile, also_reads: Vec::new(), labels: BTreeMap::new(), place }
    }

    /// Puts the settings of `apps.yaml` over a build.
    pub(super) fn settle(&self, build: &mut ServiceBuild) {
        let settings = self.reading.build;
        let image = &mut build.image;
        image.args.extend(settings.args.clone());
        image.secrets.extend(settings.secrets.clone());
        let files = settings.secrets.values().filter_map(|secret| match secret {
            SecretSource::File(path) => RepoPath::default().join(path.strip_prefix(self.reading.root).ok()?.to_str()?),
            SecretSource::Env(_) => None,
        });
        build.also_reads.extend(files);
        image.ssh.extend(settings.ssh.clone());
        if settings.platform.is_some() {
            image.platform.clone_from(&settings.platform);
        }
        image.no_cache |= settings.no_cache;
        image.pull |= settings.pull;
        // The classic spelling of an inline cache: the engine reads it from the arguments, BuildKit alone does not.
        image.inline_cache |= image.args.get("BUILDKIT_INLINE_CACHE").is_some_and(|value| value == "1" || value == "true");
        build.also_reads.sort();
        build.also_reads.dedup();
    }

    /// Reports a key that is not known, with the nearest one that is.
    pub(super) fn unknown_key(&mut self, entry: &Entry, known: &[&str]) {
        let nearest = known.iter().map(|key| (strsim::jaro_winkler(key, &entry.key), key)).filter(|(score, _)| *score > 0.75);
        let nearest = nearest.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, key)| format!("did you mean `{key}`?"));
        let help = nearest.unwrap_or_else(|| format!("known keys: `{}`", known.join("`, `")));
        self.problem(entry.key_span.start, format!("`{}` is not a key of `build`", entry.key), Some(help));
    }
}
