//! What a Dockerfile reads: the paths of its context that can change the image.
//!
//! 1. [`lines`] makes instructions of the text: directives, continuations, comments, heredocs.
//! 2. [`reads`] walks them with the variables of each stage and collects the sources of `COPY`, `ADD` and bind mounts of every
//!    stage, whether the target needs it or not.
//! 3. [`words`] splits and expands words as BuildKit's shell lexer does.
//!
//! Whatever cannot be resolved widens to the whole context; nothing is narrowed: `--exclude` is not looked at, `ONBUILD` counts
//! as if it ran here, too. Two things stand in images and are not seen: `ONBUILD COPY` of a base image, and an `ENV` of a base image
//! that gives an `ARG` of the same name the value it lacks. Facts: <https://docs.docker.com/reference/dockerfile/>.

mod lines;
mod words;

use std::collections::BTreeMap;
use words::{Failed, Variable};

/// What a Dockerfile reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reads {
    /// Each source, in the order of the file.
    pub sources: Vec<SourceRead>,
    /// Set when the whole context counts: the line and why.
    pub whole_context: Option<(usize, String)>,
    /// Images that stages start from or copy from, as written where a variable is unknown. A named context of the same name
    /// takes an image's place.
    pub base_images: Vec<String>,
}

/// One source of a `COPY`, `ADD` or bind mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceRead {
    /// A path or pattern from the root of [`SourceRead::from`], cleaned of `.`, `..` and slashes at the ends; it means what it
    /// matches and everything below. `*`, `?` and `[…]` stay in one part, `**` (with `--parents`) does not. Empty: everything.
    pub pattern: String,
    /// The line its instruction starts at, from 1.
    pub line: usize,
    /// What it is read from.
    pub from: Origin,
    /// Read by builds that start from this one, if at all: it stands in an `ONBUILD`.
    pub later: bool,
}

/// What a source is read from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The build context.
    Context,
    /// What has this name: a named context when the build has one, else a stage or an image, which read nothing here.
    Named(String),
}

/// Arguments whose values the builder sets itself.
const AUTOMATIC: [&str; 9] =
    ["BUILDPLATFORM", "BUILDOS", "BUILDARCH", "BUILDVARIANT", "TARGETPLATFORM", "TARGETOS", "TARGETARCH", "TARGETVARIANT", "TARGETSTAGE"];

/// Reads a Dockerfile built with these arguments.
#[must_use]
pub fn reads(dockerfile: &str, args: &BTreeMap<String, String>) -> Reads {
    let file = lines::parse(dockerfile);
    let mut walk = Walk {
        given: args,
        escape: file.escape,
        line: 1,
        global: Variables::new(),
        stages: BTreeMap::new(),
        stage: None,
        variables: Variables::new(),
        later: false,
        triggers: Vec::new(),
        found: Reads::default(),
    };
    if let Some((line, why)) = file.doubt {
        walk.widen(line, why);
    }
    for instruction in &file.instructions {
        walk.line = instruction.line;
        walk.instruction(&instruction.text);
    }
    walk.found
}

/// Variables by name. Whatever Docker's documentation says of `ENV` and `ARG` of one name: in a `COPY` the later one wins.
type Variables = BTreeMap<String, Variable>;

struct Walk<'a> {
    given: &'a BTreeMap<String, String>,
    escape: char,
    line: usize,
    /// Arguments before the first `FROM`.
    global: Variables,
    /// The stages, by number and by lower-case name: variables as they ended, and what waits in `ONBUILD` with its line.
    stages: BTreeMap<String, (Variables, Vec<(usize, String)>)>,
    /// The stage being read: its number and its name. `None` before the first `FROM`.
    stage: Option<(usize, Option<String>)>,
    variables: Variables,
    /// In an `ONBUILD`.
    later: bool,
    /// What the stage has in `ONBUILD`.
    triggers: Vec<(usize, String)>,
    found: Reads,
}

impl Walk<'_> {
    /// The whole context counts; the first reason stays.
    fn widen(&mut self, line: usize, why: String) {
        self.found.whole_context.get_or_insert((line, why));
    }

    fn instruction(&mut self, text: &str) {
        let (name, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let rest = rest.trim();
        match name.to_ascii_uppercase().as_str() {
            "FROM" => self.from(rest),
            "ARG" => self.arg(rest),
            "ENV" => self.env(rest),
            "COPY" => self.copy(rest, false),
            "ADD" => self.copy(rest, true),
            "RUN" => self.run(rest),
            "ONBUILD" => self.onbuild(rest),
            _ => {}
        }
    }

    /// An instruction for the stages that start from this one. What it reads counts here, too; variables it sets are not set here.
    fn onbuild(&mut self, rest: &str) {
        let name = rest.split_whitespace().next().unwrap_or_default();
        // Docker refuses both.
        if name.eq_ignore_ascii_case("FROM") || name.eq_ignore_ascii_case("ONBUILD") {
            return;
        }
        let before = self.variables.clone();
        self.later = true;
        self.instruction(rest);
        self.later = false;
        self.variables = before;
        self.triggers.push((self.line, rest.to_owned()));
    }

    fn expand(&self, word: &str) -> Result<String, Failed> {
        self.expand_with(word, &self.variables)
    }

    /// As [`Walk::expand`], with the arguments before the first `FROM`: all that a `FROM` sees.
    fn expand_global(&self, word: &str) -> Result<String, Failed> {
        self.expand_with(word, &self.global)
    }

    fn expand_with(&self, word: &str, variables: &Variables) -> Result<String, Failed> {
        words::expand(word, self.escape, &|name| variables.get(name).cloned().unwrap_or(Variable::Unknown))
    }

    fn from(&mut self, rest: &str) {
        let (_, rest) = words::flags(rest, self.escape);
        let mut parts = rest.split_whitespace();
        let Some(written) = parts.next() else { return };
        let name = match (parts.next(), parts.next()) {
            (Some(word), Some(name)) if word.eq_ignore_ascii_case("as") => Some(name.to_ascii_lowercase()),
            _ => None,
        };
        let number = self.end_stage();
        let image = self.expand_global(written).unwrap_or_else(|_| written.to_owned());
        let base = self.stages.get(&image.to_ascii_lowercase()).cloned();
        self.found.sources.push(SourceRead { pattern: String::new(), line: self.line, from: Origin::Named(image.clone()), later: false });
        self.image(&image);
        let (variables, triggers) = base.unwrap_or_default();
        self.variables = variables;
        self.stage = Some((number, name));
        for (line, trigger) in triggers {
            self.line = line;
            self.instruction(&trigger);
        }
    }

    /// Remembers the stage that ends; returns the number of the next one.
    fn end_stage(&mut self) -> usize {
        let Some((number, name)) = self.stage.take() else { return 0 };
        let ended = (std::mem::take(&mut self.variables), std::mem::take(&mut self.triggers));
        if let Some(name) = name {
            self.stages.insert(name, ended.clone());
        }
        self.stages.insert(number.to_string(), ended);
        number + 1
    }

    /// Notes an image, unless the name is a stage's.
    fn image(&mut self, name: &str) {
        if !self.stages.contains_key(&name.to_ascii_lowercase())
            && name != "scratch"
            && !self.found.base_images.iter().any(|known| known == name)
        {
            self.found.base_images.push(name.to_owned());
        }
    }

    fn arg(&mut self, rest: &str) {
        let (in_stage, before) = (self.stage.is_some(), self.known().clone());
        for word in words::split(rest, self.escape) {
            let (name, default) = match word.split_once('=') {
                Some((name, default)) => (name.to_owned(), Some(default.to_owned())),
                None => (word, None),
            };
            let value = match (self.given.get(&name), default) {
                (Some(given), _) => Variable::Value(given.clone()),
                // Whether the names before it in one `ARG` have their new values depends on the version of BuildKit.
                (None, Some(default)) => match (self.expand_with(&default, &before), self.expand_with(&default, self.known())) {
                    (Ok(one), Ok(other)) if one == other => Variable::Value(one),
                    _ => Variable::Unknown,
                },
                (None, None) if AUTOMATIC.contains(&name.as_str()) => Variable::Unknown,
                (None, None) if in_stage => self.global.get(&name).cloned().unwrap_or(Variable::Unset),
                (None, None) => Variable::Unset,
            };
            let known = if in_stage { &mut self.variables } else { &mut self.global };
            if value == Variable::Unset {
                // It takes away no value.
                known.entry(name).or_insert(value);
            } else {
                known.insert(name, value);
            }
        }
    }

    /// The variables an instruction here sees.
    fn known(&self) -> &Variables {
        if self.stage.is_some() { &self.variables } else { &self.global }
    }

    fn value(&self, word: &str) -> Variable {
        self.expand(word).map_or(Variable::Unknown, Variable::Value)
    }

    fn env(&mut self, rest: &str) {
        let words = words::split(rest, self.escape);
        // The old form, `ENV NAME the rest`, is told by the first word.
        let pairs: Vec<(String, Variable)> = match words.first() {
            Some(first) if !first.contains('=') => {
                let value = rest[first.len()..].trim_start();
                vec![(first.clone(), self.value(value))]
            }
            _ => words.iter().filter_map(|word| word.split_once('=')).map(|(k, v)| (k.to_owned(), self.value(v))).collect(),
        };
        self.variables.extend(pairs);
    }

    fn copy(&mut self, rest: &str, remote: bool) {
        let (flags, rest) = words::flags(rest, self.escape);
        let origin = match flags.iter().find_map(|flag| flag.strip_prefix("--from=")) {
            Some(from) => match self.expand(from) {
                // As if it were not there.
                Ok(from) if from.is_empty() => Origin::Context,
                Ok(from) => Origin::Named(from),
                Err(failed) => return self.widen(self.line, format!("`--from={from}` cannot be resolved: {failed}")),
            },
            None => Origin::Context,
        };
        if let Origin::Named(name) = &origin {
            self.image(name);
        }
        let list = serde_json::from_str::<Vec<String>>(rest).ok();
        let is_list = list.is_some();
        let mut sources = list.unwrap_or_else(|| rest.split_whitespace().map(str::to_owned).collect());
        // The last one is the destination.
        sources.pop();
        for source in sources {
            if !is_list && lines::heredoc(&source).is_some() {
                continue;
            }
            match self.expand(&source) {
                Ok(source) if remote && (source.contains("://") || source.starts_with("git@")) => {}
                Ok(path) => self.source(&path, &source, origin.clone()),
                Err(failed) => self.widen(self.line, format!("`{source}` cannot be resolved: {failed}")),
            }
        }
    }

    fn source(&mut self, path: &str, written: &str, from: Origin) {
        let pattern = clean(path);
        if pattern.is_empty() && from == Origin::Context {
            self.widen(self.line, format!("`{written}` is the whole context"));
        }
        self.found.sources.push(SourceRead { pattern, line: self.line, from, later: self.later });
    }

    fn run(&mut self, rest: &str) {
        let (flags, _) = words::flags(rest, self.escape);
        for flag in &flags {
            if let Some(mount) = flag.strip_prefix("--mount=") {
                self.mount(mount);
            }
        }
    }

    fn mount(&mut self, mount: &str) {
        let field = |names: &[&str]| {
            // Written twice, the last one counts.
            mount.split(',').rev().find_map(|field| {
                let (key, value) = field.trim_matches(['"', '\'']).split_once('=')?;
                names.contains(&key.to_ascii_lowercase().as_str()).then_some(value)
            })
        };
        let resolved = |value: Option<&str>| value.map(|value| self.expand(value)).transpose();
        let (kind, from, source) = (resolved(field(&["type"])), resolved(field(&["from"])), resolved(field(&["source", "src"])));
        let (Ok(kind), Ok(from), Ok(source)) = (kind, from, source) else {
            return self.widen(self.line, format!("`--mount={mount}` cannot be resolved"));
        };
        match (kind.as_deref(), from.filter(|from| !from.is_empty())) {
            (Some("bind") | None | Some("cache"), Some(from)) => {
                self.image(&from);
                self.source(source.as_deref().unwrap_or_default(), mount, Origin::Named(from));
            }
            (Some("bind") | None, None) => {
                let path = source.unwrap_or_default();
                // A mount's source is a path, not a pattern.
                if path.contains(['*', '?', '[', '\\']) {
                    return self.widen(self.line, format!("`{path}` looks like a pattern and is a path"));
                }
                self.source(&path, &format!("--mount={mount}"), Origin::Context);
            }
            // Secrets, ssh, tmpfs and caches of nothing read no context.
            _ => {}
        }
    }
}

/// The path from the context's root: `/a`, `./a/` and `../a` are all `a`, as BuildKit has it.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests;
