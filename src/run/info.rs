//! Commands that only tell: `validate`, `config`, `status`.

use super::locks::{self, Standing};
use super::read;
use super::world::{World, target};
use crate::cli::{ConfigArgs, Format, Global, Selection, StatusArgs};
use crate::config;
use crate::error::{Error, Result};
use crate::names::{AppName, RackName, Target};
use crate::plan::Trap;
use crate::rack::Rack;
use crate::report::text::{count, table};
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use time::OffsetDateTime;

/// The version of `status --format json`.
const VERSION: u32 = 1;

/// `offbuild validate`: everything that can be wrong without asking anybody.
pub(super) fn validate(global: &Global) -> Result<u8> {
    let world = World::open(global, &Selection::default())?;
    let found = tokio::task::block_in_place(|| read::apps(&world))?;
    read::image_places(&world, &found)?;
    let targets = world.targets().count();
    for warning in found.iter().filter_map(|found| found.manifest.as_ref()).flat_map(|manifest| &manifest.warnings) {
        super::tell(format!("warning: {}: {}", warning.place, warning.message));
    }
    super::print(&format!("{}, {}, no problems\n", count(found.len(), "app"), count(targets, "target")))
}

/// `offbuild config app@rack`: each value and where it comes from.
pub(super) fn config(global: &Global, args: &ConfigArgs) -> Result<u8> {
    let world = World::open(global, &Selection::default())?;
    let (app, rack) = match args.target.split_once('@') {
        Some((app, rack)) => (app, Some(rack)),
        None => (args.target.as_str(), None),
    };
    let name = AppName::new(app).map_err(|error| Error::config(error.to_string()))?;
    let racks: Vec<RackName> = match rack {
        Some(rack) => vec![RackName::new(rack).map_err(|error| Error::config(error.to_string()))?],
        None => {
            let app = world.config.apps.iter().find(|app| app.name == name);
            app.ok_or_else(|| {
                let known: Vec<&AppName> = world.config.apps.iter().map(|app| &app.name).collect();
                Error::config(format!("there is no app `{name}`")).hint(format!("there are {}", super::world::listed(known)))
            })?
            .targets
            .iter()
            .map(|on| on.rack.clone())
            .collect()
        }
    };
    let mut out = String::new();
    for rack in racks {
        let target = Target { app: name.clone(), rack };
        out.push_str(&format!("{target}\n"));
        let resolved = config::explain(&world.config, &target, &*world.env)?;
        let rows: Vec<[String; 3]> =
            resolved.into_iter().map(|value| [format!("  {}", value.key), value.value, value.source.to_string()]).collect();
        for line in table(&rows, None) {
            out.push_str(line.trim_end());
            out.push('\n');
        }
    }
    super::print(&out)
}

/// `offbuild status`: what is live where, what would be with the next `env set`, and who keeps it from being deployed to.
pub(super) async fn status(global: &Global, args: &StatusArgs) -> Result<u8> {
    let world = World::open(global, &args.selection)?;
    let racks = world.rack_clients()?;
    let live = read::live(&world, &racks).await;
    let locks = locks(&world, &racks, &live).await;
    match args.format {
        Format::Text => status_text(&world, &live, &locks)?,
        Format::Json => super::print(&format!("{:#}\n", status_json(&world, &live, &locks)))?,
    };
    Ok(if live.values().any(std::result::Result::is_err) { crate::error::Kind::Unusable.exit_code() } else { 0 })
}

/// What the racks say about locks, of every target that is there. A store that cannot be read says nothing.
async fn locks(world: &World, racks: &BTreeMap<RackName, Arc<dyn Rack>>, live: &read::AllLive) -> BTreeMap<Target, Standing> {
    let there =
        world.targets().map(|(app, on)| (target(app, on), on)).filter(|(target, _)| live.get(target).is_some_and(|live| live.is_ok()));
    let asked = there.filter_map(|(target, on)| Some((target, on.name.as_str(), racks.get(&on.rack)?)));
    let asked = asked.map(|(target, app, rack)| async move { Some((target, locks::standing(&**rack, app).await.ok()?)) });
    join_all(asked).await.into_iter().flatten().collect()
}

fn status_text(world: &World, live: &read::AllLive, locks: &BTreeMap<Target, Standing>) -> Result<u8> {
    let mut rows = vec![["target", "status", "release", "commit"].map(str::to_owned)];
    for (target, live) in live {
        let row = match live {
            Ok(live) => {
                let release = live.release.as_ref();
                let build = release.and_then(|release| release.build.as_ref());
                let commit = build.and_then(|build| build.commit.as_ref()).map(|commit| {
                    let subject = world.history.commit(commit).map(|commit| format!(" {}", commit.subject)).unwrap_or_default();
                    format!("{}{subject}", commit.short())
                });
                let release = release.map_or_else(|| "-".to_owned(), |release| release.id.to_string());
                [target.to_string(), live.status.word().to_owned(), release, commit.unwrap_or_else(|| "-".to_owned())]
            }
            Err(error) => [target.to_string(), "unknown".to_owned(), "-".to_owned(), error.to_string()],
        };
        rows.push(row);
    }
    let mut text: String = table(&rows, None).into_iter().map(|line| format!("{}\n", line.trim_end())).collect();
    let traps = live.iter().filter_map(|(target, live)| Some((target, Trap::of(live.as_ref().ok()?)?)));
    for (target, trap) in traps {
        text.push_str(&format!("\n{target}: {trap}\n  next: offbuild heal {target}\n"));
    }
    for (target, standing) in locks {
        text.extend(standing.told().map(|told| format!("{target} is {told}\n")));
    }
    super::print(&text)
}

fn status_json(world: &World, live: &read::AllLive, locks: &BTreeMap<Target, Standing>) -> Value {
    let targets = live.iter().map(|(target, live)| {
        let release = live.as_ref().ok().and_then(|live| live.release.as_ref());
        let build = release.and_then(|release| release.build.as_ref());
        let commit = build.and_then(|build| build.commit.as_ref());
        let standing = locks.get(target);
        json!({
            "target": target.to_string(),
            "app": target.app,
            "rack": target.rack,
            "status": live.as_ref().ok().map(|live| live.status.word()),
            "release": release.map(|release| &release.id),
            "commit": commit,
            "subject": commit.and_then(|commit| world.history.commit(commit).ok()).map(|commit| commit.subject),
            "trap": live.as_ref().ok().and_then(Trap::of),
            "error": live.as_ref().err().map(ToString::to_string),
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
