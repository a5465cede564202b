//! The composition root: each command read from the command line, wired to its adapters, and turned into an exit code.
//!
//! Nothing else names an adapter. `world` opens what a command works on, `read` gathers the facts for a plan, `deploy` carries
//! plans out; the rest answers from what was read.

mod answer;
mod carry_out;
mod changed;
mod compare;
mod complete;
mod contexts;
mod demo;
mod deploy;
mod doctor;
mod existing;
mod fetch;
mod heal;
mod info;
mod init;
mod lint;
mod locks;
mod misses;
mod notify;
#[cfg(feature = "otlp")]
mod otlp;
mod past;
mod read;
mod resume;
mod rollback;
mod rules;
mod sandbox;
mod status;
mod tell;
mod waiting;
mod why;
mod world;

use crate::cli::{Cli, Command, SchemaOf};
use crate::error::{Error, Kind, Result};
use clap::{CommandFactory as _, Parser as _};
use std::borrow::Cow;
use std::process::ExitCode;
use tell::{print, print_data, tell};

/// Runs the program with the process's arguments and environment.
#[must_use]
pub fn main() -> ExitCode {
    complete::answer();
    tell::report_panics();
    tell::mask_environment();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return misread(&error),
    };
    if let Command::Changed(args) = &cli.command
        && let Some(result) = changed::offline(&cli.global, args).transpose()
    {
        return ended(result, args.exit_code);
    }
    // Two crates use rustls; one provider serves both. It is only set here, so this cannot fail.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tell(format!("error: the runtime cannot be started: {error}"));
            return ExitCode::from(Kind::Unusable.exit_code());
        }
    };
    let (exit_code_mode, result) = runtime.block_on(async {
        let mode = matches!(&cli.command, Command::Changed(changed) if changed.exit_code);
        (mode, dispatch(cli).await)
    });
    // A hook or engine call that a second signal dropped may still hold a thread.
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    ended(result, exit_code_mode)
}

/// What clap says of the command line: help, the version, or what is wrong, which repeats words of it.
fn misread(error: &clap::Error) -> ExitCode {
    let words = error.render().to_string();
    if let Cow::Owned(masked) = crate::secret::Redactor::of_process().redact(&words) {
        tell(masked);
    } else {
        // As clap does it itself, colours and pager-friendly outputs included. Nobody is left to tell when it fails.
        let _ = error.print();
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// `changed --exit-code` has 1 for "some changed", so with `one_is_an_answer` errors are all 2.
fn ended(result: Result<u8>, one_is_an_answer: bool) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            tell(format!("error: {error}"));
            ExitCode::from(if one_is_an_answer { 2 } else { error.kind.exit_code() })
        }
    }
}

async fn dispatch(cli: Cli) -> Result<u8> {
    let Cli { command, global } = cli;
    match command {
        Command::Deploy(args) => deploy::deploy(&global, args).await,
        Command::Promote(args) => deploy::promote(&global, args).await,
        Command::Rollback(args) => rollback::rollback(&global, args).await,
        Command::Lock(args) => locks::lock(&global, args).await,
        Command::Unlock(args) => locks::unlock(&global, args).await,
        Command::Build(args) => deploy::build(&global, args).await,
        Command::Plan(args) => deploy::plan(&global, args).await,
        Command::Changed(args) => changed::changed(&global, &args).await,
        Command::Why(args) => why::why(&global, &args).await,
        Command::Lint(args) => lint::lint(&global, &args),
        Command::Heal(args) => heal::heal(&global, &args).await,
        Command::Status(args) => status::status(&global, &args).await,
        Command::Doctor(args) => doctor::doctor(&global, &args).await,
        Command::Validate => info::validate(&global),
        Command::Config(args) => info::config(&global, &args),
        Command::Init(args) => init::init(&global, &args),
        Command::Schema(args) => {
            let schema = match args.of {
                SchemaOf::Config => crate::config::schema(),
                SchemaOf::Events => crate::event::schema(),
                SchemaOf::Report => crate::report::json::schema(),
            };
            print_data(&format!("{schema:#}\n"))
        }
        Command::History => past::history(&global),
        Command::Show(args) => past::show(&global, &args),
        Command::Report(args) => past::report(&global, &args),
        Command::Sandbox(args) => sandbox::sandbox(&args).await,
        Command::Demo(args) => demo::demo(&args).await,
        Command::Completions { shell } => complete::script(shell),
        Command::Man { command } => man(command.as_deref()),
    }
}

/// `offbuild man`: the page of the program, or of one of its commands.
fn man(command: Option<&str>) -> Result<u8> {
    let mut program = Cli::command();
    // Commands get their whole names and the options that all have.
    program.build();
    let command = match command {
        None => program,
        Some(name) => program.find_subcommand(name).cloned().ok_or_else(|| {
            let names: Vec<&str> = program.get_subcommands().map(clap::Command::get_name).collect();
            Error::config(format!("there is no command `{name}`")).hint(crate::config::nearest::known(
                name,
                names.into_iter(),
                "see offbuild help",
            ))
        })?,
    };
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page).map_err(|error| Error::failed("the manual page cannot be made").because(error))?;
    print_data(&String::from_utf8_lossy(&page))
}

/// The columns of standard output.
fn columns() -> usize {
    crate::report::width(std::io::stdout(), |name| std::env::var(name).ok())
}
