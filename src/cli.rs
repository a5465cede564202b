//! The command line: what can be asked for. What is done about it is `run`'s.

mod runs;

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

pub use runs::{BuildArgs, Deploy, Guards, Heal, LockArgs, Output, PlanArgs, Promote, Rollback, Stale, UnlockArgs, Work};

/// Deploys exactly the changed apps of a monorepo to Convox racks, building their images off the cluster.
#[derive(Debug, Parser)]
#[command(name = "offbuild", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 done · 1 something failed · 2 usage or configuration · 3 a needed service cannot be used · \
                        4 refused by a guard · 5 lock held · 130/143 interrupted")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// The configuration file
    #[arg(long, global = true, value_name = "FILE", env = "OFFBUILD_CONFIG", help_heading = "Options of every command")]
    pub config: Option<PathBuf>,
    /// Work in this directory
    #[arg(short = 'C', long = "directory", global = true, value_name = "DIR", help_heading = "Options of every command")]
    pub directory: Option<PathBuf>,
    /// Say more: whole build logs
    #[arg(short, long, global = true, help_heading = "Options of every command")]
    pub verbose: bool,
    /// Say only results and errors
    #[arg(short, long, global = true, help_heading = "Options of every command")]
    pub quiet: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build, push and release the changed apps
    Deploy(Deploy),
    /// Show which apps changed; with --base it needs no rack
    Changed(Changed),
    /// Tell why an app would be deployed or left alone, and what waits since the live commit
    Why(WhyArgs),
    /// Show what a deploy would do, step by step
    Plan(PlanArgs),
    /// Build and push images without releasing anything
    Build(BuildArgs),
    /// Make live what a run with --no-promote staged
    Promote(Promote),
    /// Put the release before the live one back, or another one
    Rollback(Rollback),
    /// Put a copy of what is live on top of releases that failed runs left behind
    Heal(Heal),
    /// Let nothing be deployed until `unlock`, or for a time
    Lock(LockArgs),
    /// Take away what `lock` set
    Unlock(UnlockArgs),
    /// Check everything a deploy needs, and say how to cure what is wrong
    Doctor(DoctorArgs),
    /// Check the configuration
    Validate,
    /// Compare what apps declare with what their builds read
    Lint(LintArgs),
    /// Show the resolved configuration of an app on a rack, with where each value comes from
    Config(ConfigArgs),
    /// Show what is live where
    Status(StatusArgs),
    /// Write an apps.yaml for the apps that are there
    Init(InitArgs),
    /// Print the JSON Schema of apps.yaml, of events or of the report
    Schema(SchemaArgs),
    /// List past runs
    History,
    /// Show a past run
    Show(RunArgs),
    /// Write the HTML page of a past run
    Report(ReportArgs),
    /// Serve racks of both versions and an image registry on loopback
    Sandbox(SandboxArgs),
    /// Deploy the example monorepo to a sandbox, with the real Docker Engine
    Demo(DemoArgs),
    /// Print a completion script
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or that of a command
    Man {
        /// The command
        command: Option<String>,
    },
}

/// Which apps and racks.
#[derive(Debug, Clone, Default, Args)]
pub struct Selection {
    /// Apps: a name, a glob, a path, `tag:NAME`, or `!…` to leave out
    #[arg(value_name = "APP")]
    pub apps: Vec<String>,
    /// Only this rack (may be given several times)
    #[arg(long = "rack", short = 'r', value_name = "RACK")]
    pub racks: Vec<String>,
}

/// What the apps are compared with.
#[derive(Debug, Clone, Default, Args)]
pub struct Base {
    /// Compare with this revision (its merge base with HEAD) instead of what runs on the racks
    #[arg(long, value_name = "REV")]
    pub base: Option<String>,
    /// Deepen a shallow clone when the base is not here
    #[arg(long)]
    pub fetch: bool,
    /// Exit 3 instead of deploying when the base is not here
    #[arg(long)]
    pub strict_base: bool,
}

/// The form of what goes to standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// `offbuild status`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  offbuild status                  every app on every rack\n  offbuild status api -r staging   one of them"
)]
pub struct StatusArgs {
    /// Which apps and racks.
    #[command(flatten)]
    pub selection: Selection,
    /// `text` or `json`
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// `offbuild doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// `text` or `json`
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// `offbuild changed`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  offbuild changed                       compared with what is live\n  \
                        offbuild changed --base origin/main    compared with a branch, no rack is asked\n  \
                        offbuild changed --format names        a name per line, for scripts")]
pub struct Changed {
    /// Which apps and racks.
    #[command(flatten)]
    pub selection: Selection,
    /// What to compare with.
    #[command(flatten)]
    pub base: Base,
    /// Look at commits only: what is not committed is not searched for
    #[arg(long)]
    pub committed: bool,
    /// Look at this revision (or `OFFBUILD_HEAD`) instead of what is checked out; implies commits only
    #[arg(long, value_name = "REV")]
    pub head: Option<String>,
    /// The form of the answer
    #[arg(long, value_enum, default_value_t)]
    pub format: ChangedFormat,
    /// Exit 1 when something changed, 0 when not, 2 on an error
    #[arg(long)]
    pub exit_code: bool,
}

/// The forms of `changed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ChangedFormat {
    /// Targets with verdict and reasons.
    #[default]
    Text,
    /// The names of the changed apps, a line each.
    Names,
    /// Everything, for programs.
    Json,
    /// A matrix for GitHub's `fromJSON`.
    Matrix,
}

/// `offbuild why`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  offbuild why api@production           why it would be deployed, and what waits\n  \
                        offbuild why --what-if libs/db.rb     which apps a change of this file would deploy")]
pub struct WhyArgs {
    /// Which apps and racks: `APP` or `APP@RACK`; a name, a glob, a path, `tag:NAME`
    #[arg(value_name = "APP[@RACK]", required_unless_present = "what_if")]
    pub apps: Vec<String>,
    /// Answer for these paths as if they had changed; needs no rack and no base
    #[arg(long, value_name = "PATH", num_args = 1.., conflicts_with_all = ["base", "head", "fetch", "strict_base"])]
    pub what_if: Vec<PathBuf>,
    /// What to compare with.
    #[command(flatten)]
    pub base: Base,
    /// Look at this revision (or `OFFBUILD_HEAD`) instead of what is checked out; implies commits only
    #[arg(long, value_name = "REV")]
    pub head: Option<String>,
    /// `text` or `json`
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// `offbuild lint`.
#[derive(Debug, Args)]
pub struct LintArgs {
    /// Which apps and racks.
    #[command(flatten)]
    pub selection: Selection,
    /// `text` or `json`
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// `offbuild config`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  offbuild config api@production   every value and where it comes from")]
pub struct ConfigArgs {
    /// The target, `app@rack`, or an app for all its racks
    #[arg(value_name = "APP[@RACK]")]
    pub target: String,
}

/// `offbuild init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Print the example that explains every key, and write nothing
    #[arg(long)]
    pub full: bool,
    /// Print it, write nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `offbuild schema`.
#[derive(Debug, Args)]
pub struct SchemaArgs {
    /// Of what
    #[arg(long, value_enum, default_value_t)]
    pub of: SchemaOf,
}

/// What there is a schema of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum SchemaOf {
    /// apps.yaml.
    #[default]
    Config,
    /// One line of `--events`, and of a journal.
    Events,
    /// What `--format json` of a run prints.
    Report,
}

/// A past run.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Its id, the beginning of it, or `latest`
    #[arg(default_value = "latest")]
    pub run: String,
}

/// `offbuild report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Its id, the beginning of it, or `latest`
    #[arg(default_value = "latest")]
    pub run: String,
    /// Where to write it; without this, beside the run's journal below `.offbuild`, where git does not see it
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// `offbuild sandbox`.
#[derive(Debug, Args)]
pub struct SandboxArgs {
    /// A rack, as NAME=VERSION or NAME=VERSION:PORT, VERSION 2 or 3 (may be given several times)
    #[arg(long = "rack", value_name = "NAME=VERSION[:PORT]", default_values = ["staging=2", "production=3"])]
    pub racks: Vec<String>,
    /// An app of a rack, as RACK/NAME or RACK/NAME:GENERATION (may be given several times)
    #[arg(long = "app", value_name = "RACK/NAME[:GENERATION]")]
    pub apps: Vec<String>,
    /// Something to go wrong (may be given several times); `help` lists what can
    #[arg(long = "fault", value_name = "FAULT")]
    pub faults: Vec<String>,
    /// Where its state is kept
    #[arg(long, value_name = "DIR", default_value = ".offbuild/sandbox")]
    pub state: PathBuf,
    /// The registry's port; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub registry_port: u16,
    /// A plain registry instead of ECR: repositories need not be created
    #[arg(long)]
    pub plain_registry: bool,
    /// How long a build takes on a rack
    #[arg(long, value_name = "DURATION", default_value = "200ms")]
    pub build: String,
    /// How long a promote takes
    #[arg(long, value_name = "DURATION", default_value = "300ms")]
    pub promote: String,
}

/// `offbuild demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Keep the repository and the sandbox's state, and say where
    #[arg(long)]
    pub keep: bool,
}
