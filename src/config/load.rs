//! Finds the configuration, reads it, and puts everything that is wrong with it into one error.

use super::check::{Checked, Variables, check};
use super::resolve::Loading;
use super::{Config, single};
use crate::error::{Error, Result};
use crate::names::RepoPath;
use crate::yaml::{Document, Problem, excerpt};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// The configuration's usual name.
pub const FILE_NAME: &str = "apps.yaml";

/// Reads the configuration for a run in the directory `here` of the repository whose work tree is `repository`.
///
/// `file` is `--config`. Without it, `apps.yaml` is looked for in `here` and upwards to the repository's root; when there is
/// none, `here` is one app, told by the seed script's variables. The error is one of configuration, with all problems in it.
pub fn load(here: &Path, repository: &Path, file: Option<&Path>, env: &dyn Fn(&str) -> Option<String>) -> Result<Config> {
    let repository = real(repository)?;
    let here = real(here)?;
    if !here.starts_with(&repository) {
        let message = format!("`{}` is outside the repository `{}`", here.display(), repository.display());
        return Err(Error::config(message).hint("run offbuild inside the repository"));
    }
    let path = match file {
        Some(file) => {
            Some(real(&here.join(file)).map_err(|error| error.hint("name a file that is there with `--config` or `OFFBUILD_CONFIG`"))?)
        }
        None => here.ancestors().take_while(|dir| dir.starts_with(&repository)).map(|dir| dir.join(FILE_NAME)).find(|path| path.is_file()),
    };
    let Some(path) = path else { return single::config(&here, &repository, env) };
    let (root, name) = match (path.parent(), path.strip_prefix(&repository)) {
        (Some(root), Ok(name)) => (root, RepoPath::from_git(name.as_os_str().as_bytes())),
        _ => {
            let message = format!("`{}` is outside the repository `{}`", path.display(), repository.display());
            return Err(Error::config(message).hint("keep the configuration in the repository: changes of it count"));
        }
    };
    let text = std::fs::read_to_string(&path)
        .map_err(|error| Error::config(format!("the configuration `{}` cannot be read", path.display())).because(error))?;
    let document = parse(&name.to_string(), &text)?;
    let Checked { file, problems, damaged } = check(&document, Variables::Fill(env));
    // Without variables, what is written is what it means.
    let raw = if text.contains('$') { check(&document, Variables::Keep).file } else { file.clone() };
    let prefix = name.parent();
    let mut loading = Loading { document: &document, file: &file, raw: &raw, root, prefix: &prefix, env, damaged, problems };
    let config = loading.config(&repository, name.clone());
    let problems = loading.problems;
    if problems.is_empty() { Ok(config) } else { Err(report(problems, &text, &name.to_string())) }
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
