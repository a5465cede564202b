//! `offbuild status`: what is live where and how old it is, what waits, and what keeps it from being deployed to.
//!
//! Racks are asked at once and have a few seconds to answer: one that does not costs its own rows, not those of the others.

use super::answer::Waiting;
use super::locks::{self, Standing};
use super::read::{self, AT_ONCE, AllLive, Ask, Judgement};
use super::waiting::{self, Logs};
use super::world::{World, target};
use crate::changes::inputs::Inputs;
use crate::changes::verdict::{Decision, Verdict};
use crate::changes::{CommitInfo, Log};
use crate::cli::{Format, Global, StatusArgs};
use crate::error::{Kind, Result};
use crate::names::{CommitId, RackName, Target};
use crate::plan::Trap;
use crate::rack::{Live, Rack, RackError};
use crate::report::text::{age_in_short, clean, table};
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt as _};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use time::OffsetDateTime;

/// The version of `status --format json`.
const VERSION: u32 = 1;
/// How long a rack may say nothing.
const PATIENCE: Duration = Duration::from_secs(5);
/// Columns that a subject is worth; with less, the release is left out for it.
const SUBJECT: usize = 20;

/// What a rack says about a target.
struct Seen {
    live: Result<Live, RackError>,
    /// Who keeps it from being deployed to. A store that cannot be read says nothing.
    standing: Option<Standing>,
}

/// Tells it on standard output; exit code 3 when a rack could not tell about all of its targets.
pub(super) async fn status(global: &Global, args: &StatusArgs) -> Result<u8> {
    let world = World::open(global, &args.selection)?;
    let seen = ask(&world).await?;
    let live: AllLive = seen.iter().map(|(target, seen)| (target.clone(), seen.live.clone())).collect();
    let waits = tokio::task::block_in_place(|| Waits::read(&world, &live)).unwrap_or_else(|error| {
        super::tell(format!("note: what waits is not known: {}", error.one_line()));
        Waits::default()
    });
    let rows: Vec<Row<'_>> = seen.iter().map(|(target, seen)| Row::new(&world, &waits, target, seen)).collect();
    match args.format {
        Format::Text => super::print(&text(&rows, super::columns()))?,
        Format::Json => super::print_data(&format!("{:#}\n", json(&rows)))?,
    };
    Ok(if live.values().any(std::result::Result::is_err) { Kind::Unusable.exit_code() } else { 0 })
}

/// Asks all racks at once. That none can be asked for want of settings is an error, that one cannot is its answer.
async fn ask(world: &World) -> Result<BTreeMap<Target, Seen>> {
    let racks = world.racks().into_iter().map(|rack| (&rack.name, world.rack_client(rack)));
    let mut clients: Vec<(&RackName, Result<_>)> = racks.collect();
    if clients.iter().all(|(_, client)| client.is_err())
        && let Some((_, client)) = clients.pop()
    {
        client?;
    }
    let asked = clients.into_iter().map(|(name, client)| async move {
        let here = world.targets().filter(|(_, on)| on.rack == *name);
        let targets: Vec<(Target, &str)> = here.map(|(app, on)| (target(app, on), on.name.as_str())).collect();
        match client {
            Ok(client) => of_rack(name, &client, targets).await,
            Err(error) => {
                let error = RackError::Unreachable { rack: name.clone(), message: error.one_line(), hint: error.hint };
                all(&targets, &error)
            }
        }
    });
    Ok(join_all(asked).await.into_iter().flatten().collect())
}

/// What a rack says about its targets. The time it has runs anew with each answer, so that many apps may take long.
async fn of_rack(name: &RackName, rack: &dyn Rack, mut targets: Vec<(Target, &str)>) -> Vec<(Target, Seen)> {
    let silent = RackError::Unreachable {
        rack: name.clone(),
        message: format!("no answer within {} seconds", PATIENCE.as_secs()),
        hint: Some(format!("check `racks.{name}.host` and the network, then: offbuild doctor")),
    };
    match tokio::time::timeout(PATIENCE, rack.info()).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => return all(&targets, &error),
        Err(_) => return all(&targets, &silent),
    }
    let mut answers = stream::iter(targets.clone())
        .map(|(target, app)| async move {
            let (live, standing) = tokio::join!(rack.live(app), locks::standing(rack, app));
            // Version 3 keeps objects of apps that it does not have.
            let standing = standing.ok().filter(|_| live.is_ok());
            (target, Seen { live, standing })
        })
        .buffer_unordered(AT_ONCE);
    let mut seen = Vec::new();
    while let Ok(Some(answer)) = tokio::time::timeout(PATIENCE, answers.next()).await {
        targets.retain(|(target, _)| *target != answer.0);
        seen.push(answer);
    }
    seen.extend(all(&targets, &silent));
    seen
}

/// The same error for all targets.
fn all(targets: &[(Target, &str)], error: &RackError) -> Vec<(Target, Seen)> {
    targets.iter().map(|(target, _)| (target.clone(), Seen { live: Err(error.clone()), standing: None })).collect()
}

/// What waits for the targets, and what would become of them.
#[derive(Default)]
struct Waits {
    judgement: Option<Judgement>,
    inputs: Vec<Inputs>,
    logs: Logs,
}

impl Waits {
    fn read(world: &World, live: &AllLive) -> Result<Self> {
        let ask = Ask { allow_diverged: true, committed: true, verdicts_only: true, ..Ask::default() };
        let found = read::apps(world)?;
        let judgement = read::judge(world, &found, Some(live), &ask, None)?;
        let logs = waiting::logs(world, &judgement.targets)?;
        Ok(Self { inputs: read::inputs(world, &found)?, judgement: Some(judgement), logs })
    }

    fn decision(&self, target: &Target) -> Option<&Decision> {
        let mut judged = self.judgement.iter().flat_map(|judgement| &judgement.targets);
        judged.find(|judged| judged.target == *target).map(|judged| &judged.decision)
    }

    fn of(&self, target: &Target) -> Option<Waiting<'_>> {
        let log: &Log = self.logs.get(self.decision(target)?.base.as_ref()?)?;
        let inputs = self.inputs.iter().find(|inputs| inputs.app == target.app)?;
        Some(waiting::of(log, inputs))
    }
}

/// All that is told about a target.
struct Row<'a> {
    target: &'a Target,
    seen: &'a Seen,
    commit: Option<&'a CommitId>,
    /// The commit, when it is here.
    info: Option<CommitInfo>,
    decision: Option<&'a Decision>,
    waiting: Option<Waiting<'a>>,
}

impl<'a> Row<'a> {
    fn new(world: &World, waits: &'a Waits, target: &'a Target, seen: &'a Seen) -> Self {
        let release = seen.live.as_ref().ok().and_then(|live| live.release.as_ref());
        let commit = release.and_then(|release| release.build.as_ref()).and_then(|build| build.commit.as_ref());
        let info = commit.and_then(|commit| world.history.commit(commit).ok());
        Self { target, seen, commit, info, decision: waits.decision(target), waiting: waits.of(target) }
    }

    /// The commit it was rolled back from by hand, when that keeps it from being deployed.
    fn held(&self) -> Option<Option<&CommitId>> {
        match &self.decision?.verdict {
            Verdict::Held { from } => Some(from.as_ref()),
            _ => None,
        }
    }

    fn status(&self) -> &str {
        match &self.seen.live {
            Ok(live) => live.status.word(),
            Err(RackError::Unreachable { .. } | RackError::Timeout { .. }) => "unreachable",
            Err(RackError::NoApp { .. }) => "no app",
            Err(_) => "unknown",
        }
    }

    /// Target, status, release, commit, age, what waits, subject.
    fn cells(&self, now: OffsetDateTime) -> [String; 7] {
        let none = || "-".to_owned();
        let release = self.seen.live.as_ref().ok().and_then(|live| live.release.as_ref());
        let waiting = self.waiting.as_ref().map(|waiting| match waiting.commits.len() {
            0 => "0".to_owned(),
            commits => format!("{commits}{} by {}", if waiting.more { "+" } else { "" }, waiting.authors.len()),
        });
        [
            self.target.to_string(),
            self.status().to_owned(),
            release.map_or_else(none, |release| release.id.to_string()),
            self.commit.map_or_else(none, |commit| commit.short().to_owned()),
            self.info.as_ref().map_or_else(none, |info| age_in_short(info.time, now)),
            waiting.unwrap_or_else(none),
            self.info.as_ref().map_or_else(none, |info| clean(&info.subject)),
        ]
    }

    /// What else there is to say, a line each.
    fn remarks(&self) -> Vec<String> {
        let target = self.target;
        let mut remarks = Vec::new();
        if let Some(trap) = self.seen.live.as_ref().ok().and_then(Trap::of) {
            remarks.push(format!("{target}: {trap}\n  next: offbuild heal {target}"));
        }
        if let Some(from) = self.held() {
            let from = from.map_or_else(String::new, |from| format!(" from {}", from.short()));
            remarks.push(format!("{target} is held: somebody rolled it back{from}\n  next: offbuild deploy --release-hold {target}"));
        }
        let standing = self.seen.standing.iter().flat_map(Standing::told);
        remarks.extend(standing.map(|told| format!("{target} is {told}")));
        remarks
    }
}

fn text(rows: &[Row<'_>], width: usize) -> String {
    let now = OffsetDateTime::now_utc();
    let heading = ["target", "status", "release", "commit", "age", "waiting", "subject"].map(str::to_owned);
    let cells: Vec<[String; 7]> = std::iter::once(heading).chain(rows.iter().map(|row| row.cells(now))).collect();
    let wide = |column: usize| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let before: usize = (0..6).map(|column| wide(column) + 2).sum();
    let mut lines = if before + SUBJECT.min(wide(6)) > width {
        let narrow: Vec<[String; 6]> = cells
            .into_iter()
            .map(|[target, status, _, commit, age, waiting, subject]| [target, status, commit, age, waiting, subject])
            .collect();
        table(&narrow, Some(width))
    } else {
        table(&cells, Some(width))
    };
    // A rack that cannot be asked is told once for all its targets.
    let errors: BTreeSet<(String, Option<String>)> =
        rows.iter().filter_map(|row| row.seen.live.as_ref().err()).map(|error| (error.to_string(), error.hint())).collect();
    let errors = errors.into_iter().map(|(error, next)| next.map_or_else(|| error.clone(), |next| format!("{error}\n  next: {next}")));
    let remarks: Vec<String> = errors.chain(rows.iter().flat_map(Row::remarks)).collect();
    if !remarks.is_empty() {
        lines.push(String::new());
    }
    lines.extend(remarks);
    lines.into_iter().map(|line| format!("{line}\n")).collect()
}

fn json(rows: &[Row<'_>]) -> Value {
    let targets = rows.iter().map(|row| {
        let live = row.seen.live.as_ref();
        let standing = row.seen.standing.as_ref();
        json!({
            "target": row.target.to_string(),
            "app": row.target.app,
            "rack": row.target.rack,
            "status": live.ok().map(|live| live.status.word()),
            "release": live.ok().and_then(|live| live.release.as_ref()).map(|release| &release.id),
            "commit": row.commit,
            "subject": row.info.as_ref().map(|info| &info.subject),
            "author": row.info.as_ref().map(|info| &info.author),
            "committed": row.info.as_ref().and_then(|info| time(info.time)),
            "waiting": row.waiting,
            "held": row.held().map(|from| json!({"from": from})),
            "trap": live.ok().and_then(Trap::of),
            "error": live.err().map(ToString::to_string),
            "locked": standing.and_then(|standing| standing.freeze.as_ref()).map(|freeze| json!({
                "by": freeze.by,
                "message": freeze.message,
                "since": time(freeze.since),
                "until": freeze.until.map(time),
                "ci_url": freeze.ci_url,
            })),
            "deploying": standing.and_then(|standing| standing.lease.as_ref()).map(|lease| json!({
                "by": lease.holder.by,
                "run": lease.holder.run,
                "commit": lease.commit,
                "since": time(lease.holder.since),
                "beat": time(lease.beat),
                "ci_url": lease.holder.ci_url,
            })),
        })
    });
    json!({"version": VERSION, "targets": targets.collect::<Vec<_>>()})
}

fn time(at: OffsetDateTime) -> Option<String> {
    at.format(&time::format_description::well_known::Rfc3339).ok()
}
