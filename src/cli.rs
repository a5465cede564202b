//! The command line: what can be asked for. What is done about it is `run`'s.

use crate::plan::{Gate, OnFailure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

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
    /// Check everything a deploy needs, and say how to cure what is wrong
    Doctor(DoctorArgs),
    /// Check the configuration
    Validate,
    /// Compare what apps declare with what their builds read
    Lint(LintArgs),
    /// Show the resolved configuration of an app on a rack, with where each value comes from
    Config(ConfigArgs),
    /// Show what is live where
    Status(Selection),
    /// Write an apps.yaml for the apps that are there
    Init(InitArgs),
    /// Print the JSON Schema of apps.yaml
    Schema,
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
    /// Print the manual page
    Man,
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

/// Guards and how to pass them.
#[derive(Debug, Clone, Default, Args)]
pub struct Guards {
    /// Deploy to protected racks without asking
    #[arg(long, short = 'y')]
    pub yes: bool,
    /// Deploy uncommitted changes; the tag gets `-dirty.HASH`
    #[arg(long)]
    pub allow_dirty: bool,
    /// Deploy over a commit this one does not descend from
    #[arg(long)]
    pub allow_diverged: bool,
    /// What to do when the live commit is newer: `refuse` (exit 4) or `ok` (exit 0)
    #[arg(long, value_enum, default_value_t)]
    pub stale: Stale,
    /// Deploy this app although somebody rolled it back (may be given several times)
    #[arg(long, value_name = "APP")]
    pub release_hold: Vec<String>,
    /// Wait this long for another run of the same rack
    #[arg(long, value_name = "DURATION", default_value = "0s")]
    pub lock_wait: String,
}

/// What a stale target means for the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Stale {
    /// Exit 4.
    #[default]
    Refuse,
    /// Exit 0: a newer commit is live, which is as good.
    Ok,
}

/// How work is carried out.
#[derive(Debug, Clone, Args)]
pub struct Work {
    /// Builds in flight: a number, a percentage of the cores, or `auto`
    #[arg(short, long, value_name = "N|P%|auto")]
    pub jobs: Option<String>,
    /// Stop all builds when one fails
    #[arg(long)]
    pub fail_fast: bool,
}

/// How the run tells about itself.
#[derive(Debug, Clone, Default, Args)]
pub struct Output {
    /// `text`, or `json` for a report on standard output
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// Write the events as JSON lines
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
    /// Write the run's HTML page
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Write the summary as Markdown, as GitHub's step summary has it
    #[arg(long, value_name = "FILE")]
    pub summary: Option<PathBuf>,
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

/// `offbuild deploy`.
#[derive(Debug, Args)]
pub struct Deploy {
    /// Which apps and racks.
    #[command(flatten)]
    pub selection: Selection,
    /// Every selected app, changed or not
    #[arg(long)]
    pub all: bool,
    /// What to compare with.
    #[command(flatten)]
    pub base: Base,
    /// Show the plan and stop
    #[arg(long)]
    pub dry_run: bool,
    /// Continue the last run, or the named one: what is built, pushed, staged or promoted is adopted, finished release hooks do
    /// not run again. APPs come before it; without any, it is the run's own targets. Other options are not remembered
    #[arg(long, value_name = "RUN", num_args = 0..=1)]
    pub resume: Option<Option<String>>,
    /// Stage the releases and stop before their `before_release` hooks; `offbuild promote` goes on
    #[arg(long)]
    pub no_promote: bool,
    /// When lanes start: when `all` images are pushed, or each `app`'s own
    #[arg(long, value_enum, default_value_t)]
    pub gate: Gate,
    /// What a failed target stops
    #[arg(long, value_enum, default_value_t)]
    pub on_failure: OnFailure,
    /// Guards.
    #[command(flatten)]
    pub guards: Guards,
    /// How.
    #[command(flatten)]
    pub work: Work,
    /// Output.
    #[command(flatten)]
    pub output: Output,
}

/// `offbuild promote`.
#[derive(Debug, Args)]
pub struct Promote {
    /// The run: its id, the beginning of it, or `latest`
    #[arg(value_name = "RUN")]
    pub run: String,
    /// Only this rack (may be given several times)
    #[arg(long = "rack", short = 'r', value_name = "RACK")]
    pub racks: Vec<String>,
    /// What a failed target stops
    #[arg(long, value_enum, default_value_t)]
    pub on_failure: OnFailure,
    /// Guards.
    #[command(flatten)]
    pub guards: Guards,
    /// Output.
    #[command(flatten)]
    pub output: Output,
}

/// `offbuild rollback`.
#[derive(Debug, Args)]
pub struct Rollback {
    /// The target, `app@rack`
    #[arg(value_name = "APP@RACK")]
    pub target: String,
    /// To this release, or to the newest release of this commit; without it, to what was live before the last deploy
    #[arg(long, value_name = "RELEASE|SHA")]
    pub to: Option<String>,
    /// Roll back on a protected rack without asking
    #[arg(long, short = 'y')]
    pub yes: bool,
    /// Wait this long for another run of the same rack
    #[arg(long, value_name = "DURATION", default_value = "0s")]
    pub lock_wait: String,
    /// Output.
    #[command(flatten)]
    pub output: Output,
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

/// `offbuild plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Which apps and racks.
    #[command(flatten)]
    pub selection: Selection,
    /// Every selected app, changed or not
    #[arg(long)]
    pub all: bool,
    /// What to compare with.
    #[command(flatten)]
    pub base: Base,
    /// Plan with uncommitted changes
    #[arg(long)]
    pub allow_dirty: bool,
    /// Ask neither racks nor registries: compare with --base, the CI's event or the default branch
    #[arg(long)]
    pub offline: bool,
    /// `text` or `json`
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// `offbuild build`.
#[derive(Debug, Args)]
pub struct BuildArgs {
    /// Which apps and racks.
    #[command(flatten)]
    pub selection: Selection,
    /// Every selected app, changed or not
    #[arg(long)]
    pub all: bool,
    /// What to compare with.
    #[command(flatten)]
    pub base: Base,
    /// Build uncommitted changes; the tag gets `-dirty.HASH`
    #[arg(long)]
    pub allow_dirty: bool,
    /// How.
    #[command(flatten)]
    pub work: Work,
    /// Output.
    #[command(flatten)]
    pub output: Output,
}

/// `offbuild config`.
#[derive(Debug, Args)]
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
