//! Commands that only tell of the configuration: `validate`, `config`.

use super::read;
use super::world::{World, target};
use crate::cli::{ConfigArgs, Global, Selection};
use crate::config;
use crate::error::Result;
use crate::report::text::{count, table};

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
    let world = World::open(global, &Selection { apps: vec![args.target.clone()], racks: Vec::new() })?;
    let mut out = String::new();
    for target in world.targets().map(|(app, on)| target(app, on)) {
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
