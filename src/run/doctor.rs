//! `offbuild doctor`: everything a deploy needs, one row each, and what cures what is wrong. Nothing is changed.

use super::read;
use super::world::{World, environment, here, home, rack_error};
use crate::build::Builder as _;
use crate::build::docker::Docker;
use crate::changes;
use crate::cli::{DoctorArgs, Format, Global, Selection};
use crate::config::RackConfig;
use crate::error::{Error, Kind, Result};
use crate::manifest::image_tags;
use crate::names::Repository;
use crate::rack::RackRead as _;
use crate::registry::Registry;
use crate::registry::host::EcrHost;
use crate::registry::registries::Registries;
use crate::report::text::table;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// The version of the JSON.
const FORMAT_VERSION: u32 = 1;
/// A tag nobody has: asking for it shows whether a registry can be asked.
const NO_TAG: &str = "offbuild-doctor";
/// AWS refuses requests whose time is further off than five minutes; this is well before.
const CLOCK: time::Duration = time::Duration::seconds(60);

const GIB: u64 = 1 << 30;
/// Room in which a few images can just be built.
const LITTLE: u64 = 5 * GIB;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Health {
    Ok,
    Warn,
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    check: String,
    health: Health,
    found: String,
    /// The command or change that cures it.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl Check {
    fn ok(check: impl Into<String>, found: impl Into<String>) -> Self {
        Self { check: check.into(), health: Health::Ok, found: found.into(), next: None }
    }

    fn warn(check: impl Into<String>, found: impl Into<String>, next: impl Into<String>) -> Self {
        Self { check: check.into(), health: Health::Warn, found: found.into(), next: Some(next.into()) }
    }

    fn fail(check: impl Into<String>, error: Error) -> Self {
        Self { check: check.into(), health: Health::Fail, found: error.one_line(), next: error.hint }
    }

    fn of(check: impl Into<String>, result: Result<String>) -> Self {
        match result {
            Ok(found) => Self::ok(check, found),
            Err(error) => Self::fail(check, error),
        }
    }
}

/// Looks at everything and tells; exit code 1 when something would keep a deploy from working.
pub(super) async fn doctor(global: &Global, args: &DoctorArgs) -> Result<u8> {
    let mut checks = Vec::new();
    if let Some(world) = tokio::task::block_in_place(|| local(global, &mut checks)) {
        let registries = world.registries();
        let (mut engine, mut others) = tokio::join!(engine(&registries), reached(&world, &registries));
        checks.append(&mut engine);
        checks.append(&mut others);
    } else {
        let registries = Arc::new(Registries::new(BTreeMap::new(), environment(), Default::default()));
        checks.append(&mut engine(&registries).await);
    }
    match args.format {
        Format::Json => super::print_data(&format!("{:#}\n", serde_json::json!({"version": FORMAT_VERSION, "checks": checks})))?,
        Format::Text => super::print(&text(&checks))?,
    };
    let failed = checks.iter().any(|check| check.health == Health::Fail);
    Ok(if failed { Kind::Failed.exit_code() } else { 0 })
}

/// Repository and configuration; `None` when the rest cannot be looked at.
fn local(global: &Global, checks: &mut Vec<Check>) -> Option<World> {
    let repository = here(global).and_then(|here| changes::open(&here)).and_then(|history| {
        let head = history.head()?;
        let branch = head.branch.map_or_else(|| "no branch".to_owned(), |branch| format!("branch {branch}"));
        Ok((history.is_shallow(), format!("{} at {}, {branch}", history.root().display(), head.commit.id.short())))
    });
    match repository {
        Ok((shallow, found)) => {
            checks.push(Check::ok("git repository", found));
            checks.push(if shallow {
                let found = "the clone is shallow: recorded fingerprints still decide, but reasons may name no paths";
                Check::warn("git history", found, "git fetch --unshallow")
            } else {
                Check::ok("git history", "complete")
            });
        }
        Err(error) => {
            checks.push(Check::fail("git repository", error));
            return None;
        }
    }
    let world = match World::open(global, &Selection::default()) {
        Ok(world) => world,
        Err(error) => {
            checks.push(Check::fail("configuration", error));
            return None;
        }
    };
    let file = world.config.file.as_ref().map_or_else(|| "one app, no apps.yaml".to_owned(), ToString::to_string);
    checks.push(Check::ok("configuration", format!("{file}: {} apps, {} targets", world.config.apps.len(), world.targets().count())));
    let (manifests, hooks) = read::problems(&world);
    checks.push(Check::of("manifests", manifests.map_or_else(|| Ok("all can be read".to_owned()), Err)));
    checks.push(Check::of("hooks", hooks.map_or_else(|| Ok("all can be run".to_owned()), Err)));
    Some(world)
}

/// The engine, its BuildKit, and the room it has.
async fn engine(registries: &Arc<Registries>) -> Vec<Check> {
    let env = environment();
    let name = "Docker Engine";
    let engine = match Docker::connect(Arc::clone(&env), home(&env).as_deref(), Arc::clone(registries) as Arc<dyn Registry>) {
        Ok(engine) => engine,
        Err(error) => return vec![Check::fail(name, super::carry_out::engine_error(error))],
    };
    let found = match engine.probe().await {
        Ok(info) => format!("{} ({}) at {}, BuildKit answers", info.version, info.platform, info.endpoint),
        Err(error) => return vec![Check::fail(name, super::carry_out::engine_error(error))],
    };
    // An engine elsewhere, or in a machine of its own, keeps its images where this one cannot look.
    let root = engine.data_root().await;
    let disk = root.and_then(|root| Some((rustix::fs::statvfs(&root).ok()?, root)));
    let room = disk.map(|(disk, root)| room(disk.f_bavail.saturating_mul(disk.f_frsize), &root));
    std::iter::once(Check::ok(name, found)).chain(room).collect()
}

fn room(free: u64, root: &Path) -> Check {
    let found = format!("{}.{} GiB free at {}", free / GIB, free % GIB * 10 / GIB, root.display());
    if free >= LITTLE { Check::ok("disk", found) } else { Check::warn("disk", found, "docker system prune, or docker builder prune") }
}

/// Everything over the network, all at once.
async fn reached(world: &World, registries: &Registries) -> Vec<Check> {
    let racks = futures_util::future::join_all(world.racks().into_iter().map(|rack| rack_checks(world, rack)));
    let hosts = repositories(world);
    let hosts = futures_util::future::join_all(hosts.iter().map(|(host, repository)| async move {
        let asked = registries.find(repository, &[NO_TAG.to_owned()]).await;
        let whose = EcrHost::parse(host).map_or_else(String::new, |ecr| {
            let account = ecr.account.map_or_else(String::new, |account| format!(" of account {account}"));
            format!(", ECR{account} in {}", ecr.region)
        });
        let found = asked.map(|_| format!("the login is good{whose}")).map_err(super::existing::registry_error);
        Check::of(format!("registry {host}"), found)
    }));
    let (hosts, racks) = tokio::join!(hosts, racks);
    hosts.into_iter().chain(racks.into_iter().flatten()).collect()
}

/// One repository of each registry that images go to.
fn repositories(world: &World) -> BTreeMap<String, Repository> {
    let mut hosts = BTreeMap::new();
    // What cannot be read was told with the manifests.
    let Ok(found) = read::apps(world) else { return hosts };
    for found in &found {
        let services = found.manifest.iter().flat_map(|manifest| &manifest.services).filter(|service| service.build.is_some());
        for service in services {
            let (app, commit) = (&found.app, world.head.commit.id.as_str());
            if let Ok(place) = image_tags(&service.name, service.image.as_ref(), app.repository.as_deref(), &app.name, commit) {
                hosts.entry(place.repository.host.clone()).or_insert(place.repository);
            }
        }
    }
    hosts
}

/// The rack itself, its clock, and whether it has every app that goes there.
async fn rack_checks(world: &World, rack: &RackConfig) -> Vec<Check> {
    let name = format!("rack {}", rack.name);
    let client = match world.rack_client(rack) {
        Ok(client) => client,
        Err(error) => return vec![Check::fail(name, error)],
    };
    let mut checks = match client.info().await {
        Ok(info) => vec![Check::ok(&name, format!("version {} ({})", info.major, info.version))],
        Err(error) => return vec![Check::fail(name, rack_error(error))],
    };
    if let Some(ahead) = client.clock_ahead() {
        let clock = format!("clock of {name}");
        checks.push(if ahead.abs() <= CLOCK {
            Check::ok(clock, "as this machine's")
        } else {
            let direction = if ahead.is_positive() { "ahead of" } else { "behind" };
            let found = format!("{} s {direction} this machine's", ahead.abs().whole_seconds());
            Check::warn(clock, found, "set this machine's clock: timedatectl set-ntp true")
        });
    }
    for (app, on) in world.targets().filter(|(_, on)| on.rack == rack.name) {
        let target = super::world::target(app, on);
        let live = client.live(&on.name).await.map_err(rack_error);
        let found = live.map(|live| {
            let release = live.release.map_or_else(|| "never deployed".to_owned(), |release| format!("{} is live", release.id));
            format!("{}, {release}", live.status.word())
        });
        checks.push(Check::of(format!("app {target}"), found));
    }
    checks
}

fn text(checks: &[Check]) -> String {
    let mut rows = Vec::new();
    for check in checks {
        let word = match check.health {
            Health::Ok => "ok",
            Health::Warn => "warn",
            Health::Fail => "FAIL",
        };
        let mut lines = check.found.lines();
        rows.push([word.to_owned(), check.check.clone(), lines.next().unwrap_or_default().to_owned()]);
        rows.extend(lines.map(|line| [String::new(), String::new(), line.to_owned()]));
        rows.extend(check.next.iter().map(|next| [String::new(), String::new(), format!("next: {next}")]));
    }
    table(&rows, None).into_iter().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_room_is_a_warning_with_its_cure() {
        for (free, health, found) in [
            (0, Health::Warn, "0.0 GiB free at /var/lib/docker"),
            (LITTLE - 1, Health::Warn, "4.9 GiB free at /var/lib/docker"),
            (LITTLE, Health::Ok, "5.0 GiB free at /var/lib/docker"),
        ] {
            let check = room(free, Path::new("/var/lib/docker"));
            assert_eq!((check.health, check.found.as_str(), check.next.is_some()), (health, found, health == Health::Warn));
        }
    }
}
