//! Completion in shells: `completions` prints a script that asks this binary at each key, which knows the apps, racks and runs of
//! the directory it is asked in. Who completes sees no error: what cannot be read has no names.

use crate::changes;
use crate::cli::Cli;
use crate::config;
use crate::error::{Error, Result};
use crate::files::OnDisk;
use crate::journal::Journal;
use clap::{Arg, Command, CommandFactory as _};
use clap_complete::CompleteEnv;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::Shells;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::PathBuf;

/// The variable by which a shell's script asks.
const ASKED: &str = "OFFBUILD_COMPLETE";
/// Bash would cut words at the `@` of `app@rack`, and complete each half by itself.
const BASH: &str = "COMP_WORDBREAKS=${COMP_WORDBREAKS//@/}\n";

/// Answers a shell's script and ends the process, when it is one that asks.
pub(super) fn answer() {
    CompleteEnv::with_factory(command).var(ASKED).complete();
}

/// `offbuild completions SHELL`.
pub(super) fn script(shell: clap_complete::Shell) -> Result<u8> {
    let name = shell.to_string();
    let unknown = || Error::config(format!("there is no completion for `{name}`"));
    let (shells, mut script) = (Shells::builtins(), Vec::new());
    let completer = shells.completer(&name).ok_or_else(unknown)?;
    completer.write_registration(ASKED, "offbuild", "offbuild", "offbuild", &mut script).map_err(|error| unknown().because(error))?;
    let before = if shell == clap_complete::Shell::Bash { BASH } else { "" };
    super::print_data(&format!("{before}{}", String::from_utf8_lossy(&script)))
}

/// The command line, whose arguments know what can be named.
fn command() -> Command {
    Cli::command().mut_subcommands(|command| command.mut_args(named))
}

fn named(arg: Arg) -> Arg {
    let value = arg.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
    let names: fn(&Names, &str) -> Vec<String> = match value.as_deref() {
        Some("APP" | "APP[@RACK]") => |names, typed| if typed.contains('@') { names.targets() } else { names.apps() },
        Some("APP@RACK") => |names, _| names.targets(),
        Some("RACK") => |names, _| names.racks(),
        Some("RUN") => |names, _| names.runs(),
        _ => return arg,
    };
    arg.add(ArgValueCompleter::new(move |typed: &OsStr| {
        let Some((typed, known)) = typed.to_str().zip(Names::here()) else { return Vec::new() };
        let fitting = names(&known, typed).into_iter().filter(|name| name.starts_with(typed));
        fitting.map(CompletionCandidate::new).collect()
    }))
}

/// What can be named in the current directory.
struct Names {
    root: PathBuf,
    config: Option<config::Config>,
}

impl Names {
    fn here() -> Option<Self> {
        let here = std::env::current_dir().ok()?.canonicalize().ok()?;
        let history = changes::open(&here).ok()?;
        // Names need no values, and a shell seldom has all variables of a deploy.
        let env = |name: &str| Some(std::env::var(name).unwrap_or_else(|_| "unset".to_owned()));
        let file = std::env::var_os("OFFBUILD_CONFIG").map(PathBuf::from);
        let root = history.root().to_owned();
        let config = config::load_from(&OnDisk::new(&root), &here, &root, file.as_deref(), &env, &env).ok();
        Some(Self { root, config })
    }

    fn apps(&self) -> Vec<String> {
        self.config.iter().flat_map(|config| &config.apps).map(|app| app.name.to_string()).collect()
    }

    fn targets(&self) -> Vec<String> {
        let apps = self.config.iter().flat_map(|config| &config.apps);
        apps.flat_map(|app| app.targets.iter().map(|on| format!("{}@{}", app.name, on.rack))).collect()
    }

    fn racks(&self) -> Vec<String> {
        let racks: BTreeSet<String> = self.config.iter().flat_map(|config| config.racks.keys()).map(ToString::to_string).collect();
        racks.into_iter().collect()
    }

    fn runs(&self) -> Vec<String> {
        let runs = Journal::list(&self.root).unwrap_or_default().into_iter().map(|file| file.run.to_string());
        std::iter::once("latest".to_owned()).chain(runs).collect()
    }
}
