//! Past runs, from their journals: `history`, `show`, `report`.

use super::world::here;
use crate::changes;
use crate::cli::{Global, ReportArgs, RunArgs};
use crate::error::{Error, Result};
use crate::journal::Journal;
use crate::report::state::RunState;
use crate::report::{self, summary};
use std::path::PathBuf;

fn root(global: &Global) -> Result<PathBuf> {
    Ok(changes::open(&here(global)?)?.root().to_owned())
}

fn state(global: &Global, run: &str) -> Result<RunState> {
    let file = Journal::find(&root(global)?, run)?;
    Ok(RunState::replay(&Journal::read(&file.path)?))
}

pub(super) fn history(global: &Global) -> Result<u8> {
    super::print(&report::history::history(&report::history::read(&root(global)?)?, super::columns()))
}

pub(super) fn show(global: &Global, args: &RunArgs) -> Result<u8> {
    let options = summary::Options { verbose: true, width: super::columns(), ..summary::Options::default() };
    super::print_data(&summary::render(&state(global, &args.run)?, &options))
}

pub(super) fn report(global: &Global, args: &ReportArgs) -> Result<u8> {
    let file = Journal::find(&root(global)?, &args.run)?;
    let page = report::html::render(&Journal::read(&file.path)?);
    // Not in the work tree by default: a file that git sees makes the tree dirty, and the next deploy refuse.
    let path = args.output.clone().unwrap_or_else(|| file.page());
    std::fs::write(&path, page).map_err(|error| Error::failed(format!("`{}` cannot be written", path.display())).because(error))?;
    super::print(&format!("wrote {}\n", path.display()))
}
