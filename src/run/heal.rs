//! `offbuild heal`: a copy of what is live on top of releases that were left behind, and nothing else.
//!
//! `deploy --heal` does the same at the end of a run; this is for whoever wants no deploy. Nothing that runs is touched, so there is
//! no journal: the rack keeps the copy, and its description says what it is.

use super::carry_out::{confirm_racks, interrupted, lock_wait, signals};
use super::locks::{Locks, Taking};
use super::read;
use super::world::{World, rack_error, target as target_of};
use crate::cli::{self, Global};
use crate::deploy::heal::{Healed, heal as heal_one};
use crate::error::{Kind, Result};
use crate::lock::Holder;
use crate::lock::lease::Place;
use crate::names::{RackName, RunId, Target};
use crate::plan::Trap;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

/// Heals every selected target that needs it.
pub(super) async fn heal(global: &Global, args: &cli::Heal) -> Result<u8> {
    let world = World::open(global, &args.selection)?;
    let wait = lock_wait(&args.lock_wait)?;
    let racks = world.rack_clients()?;
    let live = read::live(&world, &racks).await;
    if let Some(error) = read::no_rack(&live) {
        return Err(error);
    }
    let mut code = 0;
    let mut traps: BTreeMap<Target, Trap> = BTreeMap::new();
    for (target, live) in &live {
        match live {
            Ok(live) => traps.extend(Trap::of(live).map(|trap| (target.clone(), trap))),
            Err(error) => {
                super::tell(format!("{target}: {error}"));
                code = Kind::Unusable.exit_code();
            }
        }
    }
    if traps.is_empty() {
        let asked = if code == 0 { "" } else { ", where the racks told" };
        super::print(&format!("nothing to heal: no release is newer than what is live{asked}\n"))?;
        return Ok(code);
    }
    let on: BTreeSet<RackName> = traps.keys().map(|target| target.rack.clone()).collect();
    let shown: String = traps.iter().map(|(target, trap)| format!("{target}: {trap}\n")).collect();
    confirm_racks(&world, &on.iter().collect(), &shown, "put copies of what is live on", args.yes)?;
    let run = RunId::starting(OffsetDateTime::now_utc());
    let places = world.targets().filter_map(|(app, on)| {
        let target = target_of(app, on);
        let rack = racks.get(&target.rack).filter(|_| traps.contains_key(&target))?;
        Some(Place { target, app: on.name.clone(), rack: Arc::clone(rack) })
    });
    let places: Vec<Place> = places.collect();
    // What runs stays as it is, so a lock that was set by hand is nothing to obey.
    let taking = Taking { holder: Holder::this(run, world.ci_url()), places: places.clone(), wait, over_freezes: true };
    // From here on a signal is heard: what is held is given back.
    let mut signals = signals()?;
    let mut locks = Locks::none();
    let healing = async {
        locks.take(&world, taking).await?;
        heal_all(&places).await
    };
    let healed = tokio::select! {
        healed = healing => healed,
        Some(signal) = signals.recv() => Err(interrupted(signal, "before everything was healed").hint("see what is left: offbuild status")),
    };
    locks.give_back().await;
    Ok(code.max(healed?))
}

async fn heal_all(places: &[Place]) -> Result<u8> {
    let mut code = 0;
    for Place { target, app, rack } in places {
        match heal_one(&**rack, app, &CancellationToken::new()).await {
            Ok(Some(healed)) => {
                let Healed { over, of, release, .. } = &healed;
                super::print(&format!("{target}: {release}, a copy of {of}, is on top of {over}\n"))?;
                if let Some(hidden) = healed.hidden() {
                    super::tell(format!("warning: {target}: {hidden}"));
                }
            }
            // Somebody released it meanwhile.
            Ok(None) => drop(super::print(&format!("{target}: nothing to heal any more\n"))?),
            Err(error) => {
                super::tell(rack_error(error));
                code = Kind::Failed.exit_code();
            }
        }
    }
    Ok(code)
}
