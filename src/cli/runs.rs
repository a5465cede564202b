//! The commands that make a run, would, or keep others from it: `deploy`, `build`, `plan`, `promote`, `rollback`, `lock`, `unlock`.

use super::{Base, Format, Selection};
use crate::plan::{Gate, OnFailure};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

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
    /// Deploy although the live commit is newer
    #[arg(long)]
    pub allow_older: bool,
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
    /// Write the results as JUnit XML: a suite for the images and one per rack
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Write where the time went as a Chrome trace, for ui.perfetto.dev
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
}

/// `offbuild deploy`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  offbuild deploy                         the changed apps, to all their racks\n  \
                        offbuild deploy api 'web-*' -r staging  some apps, to one rack\n  \
                        offbuild deploy --dry-run               only show what it would do\n  \
                        offbuild deploy --resume                go on with the last run")]
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
    /// With --resume: run a hook again that was cut short, also when `hooks.repeatable` does not name it
    #[arg(long, requires = "resume")]
    pub rerun_hooks: bool,
    /// Stage the releases and stop before their `before_release` hooks; `offbuild promote` goes on
    #[arg(long)]
    pub no_promote: bool,
    /// At the end, put a copy of what is live on top of releases that a failed run, this or an earlier one, left behind: racks
    /// build the next `env set` on their newest release, live or not
    #[arg(long, conflicts_with = "no_promote")]
    pub heal: bool,
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
#[command(after_help = "Examples:\n  offbuild rollback api@production                to what was live before\n  \
                        offbuild rollback api@production --to 0123456   to the newest release of this commit")]
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

/// `offbuild heal`.
#[derive(Debug, Args)]
pub struct Heal {
    /// Which apps and racks; APP may be a target, `app@rack`.
    #[command(flatten)]
    pub selection: Selection,
    /// Heal on a protected rack without asking
    #[arg(long, short = 'y')]
    pub yes: bool,
    /// Wait this long for another run of the same rack
    #[arg(long, value_name = "DURATION", default_value = "0s")]
    pub lock_wait: String,
}

/// `offbuild lock`.
#[derive(Debug, Args)]
pub struct LockArgs {
    /// Which apps and racks.
    #[command(flatten)]
    pub selection: Selection,
    /// Why, for those who are refused
    #[arg(long, short = 'm', value_name = "TEXT")]
    pub message: String,
    /// For this long; without it, until `unlock`
    #[arg(long = "for", value_name = "DURATION")]
    pub length: Option<String>,
    /// In place of a lock that is set already
    #[arg(long)]
    pub force: bool,
}

/// `offbuild unlock`.
#[derive(Debug, Args)]
pub struct UnlockArgs {
    /// Which apps and racks.
    #[command(flatten)]
    pub selection: Selection,
    /// Also take the leases of runs away, which may be under way
    #[arg(long)]
    pub force: bool,
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
