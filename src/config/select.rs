//! Selectors: which apps, and which of their racks, a command is about.
//!
//! `api` is a name, `api-*` a glob over names, `apps/api`, `apps/*` and `./` are paths, `tag:ruby` a tag; `@rack` behind any
//! of them narrows it to one rack (or a glob of racks), `!` before it takes away. Nothing selects everything.

use super::nearest::known;
use super::{App, Config};
use crate::error::{Error, Result};
use crate::names::{RackName, RepoPath};
use globset::{GlobBuilder, GlobMatcher};

/// An app and the targets of it that are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    /// Its index in [`Config::apps`].
    pub app: usize,
    /// Indices in [`App::targets`]; none for an app that goes to no rack.
    pub targets: Vec<usize>,
}

struct Selector {
    text: String,
    negated: bool,
    apps: Apps,
    rack: Option<Match>,
}

enum Apps {
    Name(Match),
    Tag(String),
    /// Directories: the app's own, or one it lies in.
    Path(RepoPath),
    Glob(GlobMatcher),
}

enum Match {
    Word(String),
    Glob(GlobMatcher),
}

/// The selected apps and targets, in the order of the configuration.
///
/// Selectors add up, negated ones take away from that whatever their order, and with only negated ones everything else is
/// selected. `racks` (`--rack`, names or globs) narrows it down. Paths are relative to `here`, the current directory in the
/// repository. A selector or rack that matches nothing is an error: a typing mistake must not look like "nothing to do".
pub fn select(config: &Config, selectors: &[String], racks: &[String], here: &RepoPath) -> Result<Vec<Selected>> {
    let racks: Vec<Match> = racks.iter().map(|rack| rack_filter(config, rack)).collect::<Result<_>>()?;
    let selectors: Vec<Selector> = selectors.iter().map(|text| parse(text, here)).collect::<Result<_>>()?;
    for selector in &selectors {
        if let Some(Match::Word(rack)) = &selector.rack {
            rack_filter(config, rack)?;
        }
        if !config.apps.iter().any(|app| selector.apps.matches(app)) {
            return Err(nothing(config, selector));
        }
        let on_rack = |app: &App| app.targets.iter().any(|target| selector.on(&target.rack));
        if selector.rack.is_some() && !config.apps.iter().any(|app| selector.apps.matches(app) && on_rack(app)) {
            let message = format!("`{}` selects nothing: no such app goes to that rack", selector.text);
            return Err(Error::config(message).hint("`offbuild config` lists the targets"));
        }
    }
    let all = selectors.iter().all(|selector| selector.negated);
    let meant = |app: &App, rack: Option<&RackName>| {
        let matches = |selector: &Selector| selector.apps.matches(app) && rack.map_or(selector.rack.is_none(), |rack| selector.on(rack));
        let chosen = all || selectors.iter().any(|selector| !selector.negated && matches(selector));
        chosen && !selectors.iter().any(|selector| selector.negated && matches(selector))
    };
    let wanted = |rack: &RackName| racks.is_empty() || racks.iter().any(|filter| filter.matches(rack.as_str()));
    let mut selected = Vec::new();
    for (index, app) in config.apps.iter().enumerate() {
        let on = app.targets.iter().enumerate().filter(|(_, target)| wanted(&target.rack) && meant(app, Some(&target.rack)));
        let targets: Vec<usize> = on.map(|(index, _)| index).collect();
        let homeless = app.targets.is_empty() && racks.is_empty() && meant(app, None);
        if homeless || !targets.is_empty() {
            selected.push(Selected { app: index, targets });
        }
    }
    Ok(selected)
}

impl Selector {
    fn on(&self, rack: &RackName) -> bool {
        self.rack.as_ref().is_none_or(|filter| filter.matches(rack.as_str()))
    }
}

impl Apps {
    fn matches(&self, app: &App) -> bool {
        match self {
            Self::Name(name) => name.matches(app.name.as_str()),
            Self::Tag(tag) => app.tags.contains(tag),
            Self::Path(path) => app.dir.is_in(path),
            Self::Glob(glob) => glob.is_match(app.dir.to_string()),
        }
    }
}

impl Match {
    fn parse(text: &str) -> Result<Self> {
        if is_glob(text) { Ok(Self::Glob(glob(text)?)) } else { Ok(Self::Word(text.to_owned())) }
    }

    fn matches(&self, word: &str) -> bool {
        match self {
            Self::Word(known) => known == word,
            Self::Glob(glob) => glob.is_match(word),
        }
    }
}

fn is_glob(text: &str) -> bool {
    text.contains(['*', '?', '[', '{'])
}

fn glob(text: &str) -> Result<GlobMatcher> {
    let glob = GlobBuilder::new(text).literal_separator(true).build();
    glob.map(|glob| glob.compile_matcher()).map_err(|error| Error::config(format!("`{text}` is no glob: {}", error.kind())))
}

fn parse(text: &str, here: &RepoPath) -> Result<Selector> {
    let (negated, rest) = match text.strip_prefix('!') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (what, rack) = match rest.rsplit_once('@') {
        Some((what, rack)) => (what, Some(Match::parse(rack)?)),
        None => (rest, None),
    };
    let apps = if let Some(tag) = what.strip_prefix("tag:") {
        Apps::Tag(tag.to_owned())
    } else if what.contains('/') || what == "." || what == ".." {
        let outside = || Error::config(format!("`{text}` leaves the repository")).hint("name an app, or a directory of this repository");
        let path = here.join(what).ok_or_else(outside)?;
        if is_glob(what) { Apps::Glob(glob(&path.to_string())?) } else { Apps::Path(path) }
    } else {
        Apps::Name(Match::parse(what)?)
    };
    Ok(Selector { text: text.to_owned(), negated, apps, rack })
}

fn rack_filter(config: &Config, text: &str) -> Result<Match> {
    let filter = Match::parse(text)?;
    if config.racks.keys().any(|rack| filter.matches(rack.as_str())) {
        return Ok(filter);
    }
    let hint = known(text, config.racks.keys().map(RackName::as_str), "no rack is configured");
    Err(Error::config(format!("there is no rack `{text}`")).hint(hint))
}

fn nothing(config: &Config, selector: &Selector) -> Error {
    let names = || config.apps.iter().map(|app| app.name.as_str());
    let (what, hint) = match &selector.apps {
        Apps::Name(Match::Word(name)) => ("no app has this name", known(name, names(), "there are no apps")),
        Apps::Name(Match::Glob(_)) => ("no app's name matches", known("", names(), "there are no apps")),
        Apps::Tag(tag) => {
            let mut tags: Vec<&str> = config.apps.iter().flat_map(|app| app.tags.iter().map(String::as_str)).collect();
            tags.sort_unstable();
            tags.dedup();
            ("no app has this tag", known(tag, tags.iter().copied(), "no app has tags"))
        }
        Apps::Path(path) => {
            let dirs: Vec<String> = config.apps.iter().map(|app| app.dir.to_string()).collect();
            ("no app lies there", known(&path.to_string(), dirs.iter().map(String::as_str), "there are no apps"))
        }
        Apps::Glob(_) => ("no app's directory matches", "quote globs, so that the shell leaves them alone".to_owned()),
    };
    Error::config(format!("`{}` selects nothing: {what}", selector.text)).hint(hint)
}
