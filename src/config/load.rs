//! Finds the configuration, reads it, and puts everything that is wrong with it into one error.

use super::check::{Checked, Variables, check};
use super::resolve::Loading;
use super::{Config, single};
use crate::error::{Error, Result};
use crate::files::{Files, OnDisk};
use crate::names::RepoPath;
use crate::yaml::{Document, Problem, excerpt};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// The configuration's usual name.
pub const FILE_NAME: &str = "apps.yaml";

/// Reads the configuration for a run in the directory `here` of the repository whose work tree is `repository`, from disk.
///
/// `file` is `--config`. Without it, `apps.yaml` is looked for in `here` and upwards to the repository's root; when there is
/// none, `here` is one app, told by the seed script's variables. The error is one of configuration, with all problems in it.
pub fn load(here: &Path, repository: &Path, file: Option<&Path>, env: &dyn Fn(&str) -> Option<String>) -> Result<Config> {
    load_from(&OnDisk::new(repository), here, repository, file, env, env)
}

/// As [`load`], from other files of the same repository. `rack_env` has the variables of racks' hosts and passwords.
pub fn load_from(
    files: &dyn Files,
    here: &Path,
    repository: &Path,
    file: Option<&Path>,
    env: &dyn Fn(&str) -> Option<String>,
    rack_env: &dyn Fn(&str) -> Option<String>,
) -> Result<Config> {
    let (repository, here) = (real(repository)?, real(here)?);
    let Some(name) = locate(files, &here, &repository, file)? else { return single::config(files, &here, &repository, rack_env) };
    if files.is_link(&name) {
        let message = format!("the configuration `{name}` is a link: a change of what it leads to would not be seen");
        return Err(Error::config(message).hint("put the file itself in its place"));
    }
    let root = &*name.parent().under(&repository);
    let text = files.text(&name).map_err(|error| Error::config(format!("the configuration `{name}` cannot be read")).because(error))?;
    let document = parse(&name.to_string(), &text)?;
    let Checked { file, problems, damaged } = check(&document, Variables::Fill(env));
    // Without variables, what is written is what it means.
    let raw = if text.contains('$') { check(&document, Variables::Keep).file } else { file.clone() };
    let prefix = name.parent();
    let mut loading =
        Loading { document: &document, file: &file, raw: &raw, files, root, prefix: &prefix, env: rack_env, damaged, problems };
    let config = loading.config(&repository, name.clone());
    let problems = loading.problems;
    if problems.is_empty() { Ok(config) } else { Err(report(problems, &text, &name.to_string())) }
}

/// The configuration file for a run in `here`, relative to the repository; `None` when there is none.
pub fn locate(files: &dyn Files, here: &Path, repository: &Path, file: Option<&Path>) -> Result<Option<RepoPath>> {
    let (repository, here) = (real(repository)?, real(here)?);
    let Ok(inside) = here.strip_prefix(&repository) else {
        let message = format!("`{}` is outside the repository `{}`", here.display(), repository.display());
        return Err(Error::config(message).hint("run offbuild inside the repository"));
    };
    if let Some(file) = file {
        let named = |error: Error| error.hint("name a file that is there with `--config` or `OFFBUILD_CONFIG`");
        let path = real(&here.join(file)).map_err(named)?;
        let Ok(name) = path.strip_prefix(&repository) else {
            let message = format!("`{}` is outside the repository `{}`", path.display(), repository.display());
            return Err(Error::config(message).hint("keep the configuration in the repository: changes of it count"));
        };
        return Ok(Some(RepoPath::from_git(name.as_os_str().as_bytes())));
    }
    let inside = RepoPath::from_git(inside.as_os_str().as_bytes());
    let above = std::iter::successors(Some(inside), |dir| (!dir.is_root()).then(|| dir.parent()));
    Ok(above.filter_map(|dir| dir.join(FILE_NAME)).find(|path| files.is_file(path)))
}

/// The text as a tree.
pub(super) fn parse(file: &str, text: &str) -> Result<Document> {
    Document::parse(file, text).map_err(|mut problem| {
        let line = text.lines().nth(problem.place.line.saturating_sub(1)).unwrap_or_default();
        if line.contains("${") {
            problem.help = Some("between `{` and `}` or `[` and `]`, put quotes around a value with a variable: `\"${NAME}\"`".to_owned());
        }
        report(vec![problem], text, file)
    })
}

/// All problems as one error, in the order of their places.
pub(super) fn report(mut problems: Vec<Problem>, text: &str, file: &str) -> Error {
    problems.sort_by(|a, b| (a.place.file != file, &a.place, &a.message).cmp(&(b.place.file != file, &b.place, &b.message)));
    problems.dedup();
    let mut message: Vec<String> = problems
        .iter()
        // Only this file's lines can be shown.
        .map(|problem| excerpt(problem, if problem.place.file == file { text } else { "" }))
        .collect();
    let count = if problems.len() == 1 { "1 problem".to_owned() } else { format!("{} problems", problems.len()) };
    message.push(format!("{count} in the configuration `{file}`"));
    Error::config(message.join("\n\n"))
}

fn real(path: &Path) -> Result<PathBuf> {
    path.canonicalize().map_err(|error| Error::config(format!("`{}` cannot be used", path.display())).because(error))
}
