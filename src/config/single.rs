//! One app without a file: the current directory, told by the seed script's variables.
//!
//! The variables are written into the same types a file is read into, and go the same way from there.

use super::file::{self, AppNames, File, Rack};
use super::load::{FILE_NAME, report};
use super::resolve::Loading;
use super::values::Ordered;
use super::{App, Config};
use crate::discovery::{self, COMPOSE_NAMES, CONVOX_NAME};
use crate::error::{Error, Result};
use crate::files::Files;
use crate::names::{AppName, RackName, RepoPath};
use crate::yaml::Document;
use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// What stands for the file's name in messages.
const ENVIRONMENT: &str = "environment";

/// The configuration of the app in `here`.
pub(super) fn config(files: &dyn Files, here: &Path, repository: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Config> {
    let value = |name: &str| env(name).filter(|value| !value.is_empty());
    let dir = here.strip_prefix(repository).map(|dir| RepoPath::from_git(dir.as_os_str().as_bytes())).unwrap_or_default();
    let compose = value("DOCKER_COMPOSE");
    let found = discovery::probe(files, &RepoPath::default(), &dir);
    let generation = match (value("APP_GEN").as_deref(), &found, &compose) {
        (Some("1"), ..) => 1,
        (Some("2"), ..) => 2,
        (Some(other), ..) => {
            return Err(Error::config(format!("`APP_GEN` is `{other}`")).hint("set it to `1` (compose) or `2` (`convox.yml`)"));
        }
        (None, Some(found), _) => found.generation,
        (None, None, Some(_)) => 1,
        (None, None, None) => {
            let message = format!("there is no `{}` in `{}` or above, and no manifest either", FILE_NAME, here.display());
            let hint = "run `offbuild init` at the repository's root, or change to an app's directory";
            return Err(Error::config(message).hint(hint));
        }
    };
    let compose = compose
        .or_else(|| COMPOSE_NAMES.into_iter().find(|name| dir.join(name).is_some_and(|path| files.is_file(&path))).map(str::to_owned));
    let (manifest, compose) = match generation {
        1 => (compose.unwrap_or_else(|| COMPOSE_NAMES[0].to_owned()), None),
        _ => (CONVOX_NAME.to_owned(), compose),
    };
    let name = value("APP_NAME").unwrap_or_else(|| here.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default());
    if let Err(error) = AppName::new(name.as_str()) {
        return Err(Error::config(error.to_string()).hint("set `APP_NAME` to the app's name on the rack"));
    }
    let rack = value("RACK_NAME").unwrap_or_else(|| "default".to_owned());
    if let Err(error) = RackName::new(rack.as_str()) {
        return Err(Error::config(error.to_string()).hint("set `RACK_NAME` to the rack's name"));
    }
    // What a variable holds is taken as it is: it is no text with variables.
    let plain = |text: String| text.replace('$', "$$");
    let rack_settings = Rack {
        host: value("CONVOX_HOST").map(plain),
        password: value("CONVOX_PASSWORD").map(plain),
        env: value("APP_ENV"),
        ..Rack::default()
    };
    let app = file::App {
        path: Some(".".to_owned()),
        name: Some(AppNames::Same(name.clone())),
        manifest: Some(manifest),
        compose,
        ..file::App::default()
    };
    let file = File {
        discover: Some(file::Discover { include: Some(Vec::new()), exclude: Vec::new() }),
        racks: Ordered(vec![(rack, rack_settings)]),
        apps: Ordered(vec![(name, app)]),
        ..File::default()
    };
    let document = Document::parse(ENVIRONMENT, "").map_err(|problem| Error::config(problem.message))?;
    let mut loading = Loading {
        document: &document,
        file: &file,
        raw: &file,
        files,
        root: here,
        prefix: &dir,
        env,
        damaged: BTreeSet::new(),
        problems: Vec::new(),
    };
    let config = loading.config(repository, RepoPath::default());
    if !loading.problems.is_empty() {
        return Err(report(loading.problems, "", ENVIRONMENT));
    }
    let apps = config.apps.into_iter().map(|app| App { generation, ..app }).collect();
    Ok(Config { file: None, apps, ..config })
}
