//! Commands that only tell: `validate`, `config`, `status`.

use super::read;
use super::world::World;
use crate::cli::{ConfigArgs, Format, Global, Selection, StatusArgs};
use crate::config;
use crate::error::{Error, Result};
use crate::names::{AppName, RackName, Target};
use crate::plan::Trap;
use crate::rack::{Live, RackError};
use crate::report::text::{count, table};
use serde_json::{Value, json};

/// The version of `status --format json`.
const VERSION: u32 = 1;

/// `offbuild validate`: everything that can be wrong without asking anybody.
pub(super) fn validate(global: &Global) -> Result<u8> {
    let world = World::open(global, &Selection::default())?;
    let found = tokio::task::block_in_place(|| read::apps(&world))?;
    read::image_places(&world, &found)?;
    let targets = world.targets().count();
    for warning in found.iter().filter_map(|found| found.manifest.as_ref()).flat_map(|manifest| &manifest.warnings) {
        eprintln!("warning: {}: {}", warning.place, warning.message);
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

/// `offbuild status`: what is live where, and what would be with the next `env set`.
pub(super) async fn status(global: &Global, args: &StatusArgs) -> Result<u8> {
    let world = World::open(global, &args.selection)?;
    let racks = world.rack_clients()?;
    let live = read::live(&world, &racks).await;
    let code = if live.values().any(Result::is_err) { crate::error::Kind::Unusable.exit_code() } else { 0 };
    if args.format == Format::Json {
        super::print(&format!("{:#}\n", json!({"version": VERSION, "targets": live.iter().map(row_json).collect::<Vec<_>>()})))?;
        return Ok(code);
    }
    let mut rows = vec![["target", "status", "release", "commit"].map(str::to_owned)];
    for (target, live) in &live {
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
    super::print(&text)?;
    Ok(code)
}

fn row_json((target, live): (&Target, &Result<Live, RackError>)) -> Value {
    let mut row = json!({"target": target.to_string(), "app": target.app, "rack": target.rack});
    let (more, error) = match live {
        Ok(live) => {
            let release = live.release.as_ref();
            let commit = release.and_then(|release| release.build.as_ref()).and_then(|build| build.commit.as_ref());
            let (status, id) = (live.status.word(), release.map(|release| &release.id));
            (json!({"status": status, "release": id, "commit": commit, "trap": Trap::of(live)}), None)
        }
        Err(error) => (json!({"status": "unknown", "release": null, "commit": null, "trap": null}), Some(error.to_string())),
    };
    if let (Value::Object(row), Value::Object(more)) = (&mut row, more) {
        row.extend(more);
        row.insert("error".to_owned(), error.into());
    }
    row
}
