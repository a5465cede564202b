//! Locks: those a run takes before it releases anything, and those a person sets and takes away (`lock`, `unlock`).
//!
//! A run takes the lock of each rack on this machine and a lease for each target on the rack itself; see [`crate::lock`].

use super::world::{World, rack_error, target as target_of};
use crate::cli::{self, Global, LockArgs, UnlockArgs};
use crate::config::values::Span;
use crate::error::{Error, Kind, Result};
use crate::lock::freeze::{self, Freeze};
use crate::lock::lease::{self, Lease, Leases, Manner, Place};
use crate::lock::{self, Holder, Lock};
use crate::names::{RackName, Target};
use crate::plan::Plan;
use crate::rack::{Rack, RackError};
use futures_util::future::join_all;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use time::OffsetDateTime;

/// The part of a rack's poll that others are given between reading a lease and writing it.
const SETTLE: u32 = 10;

/// The locks of a run.
pub(super) struct Locks {
    local: Arc<Vec<Lock>>,
    leases: Option<Leases>,
}

/// How locks are taken.
pub(super) struct Taking {
    pub(super) holder: Holder,
    /// The targets something is changed for.
    pub(super) places: Vec<Place>,
    pub(super) wait: Duration,
    /// Locks set by hand are told, not obeyed.
    pub(super) over_freezes: bool,
}

impl Locks {
    /// No locks: images alone are named by their content, so builds need none.
    pub(super) fn none() -> Self {
        Self { local: Arc::default(), leases: None }
    }

    /// Takes the locks of every target something is changed for. They have to be given back also when this fails. `true` when
    /// somebody was in the way: waited for, or taken over.
    pub(super) async fn take(&mut self, world: &World, taking: Taking) -> Result<bool> {
        let Taking { holder, places, wait, over_freezes } = taking;
        let told = AtomicBool::new(false);
        let notice = |text: String| {
            told.store(true, Ordering::Relaxed);
            super::tell(text);
        };
        let names: BTreeSet<RackName> = places.iter().map(|place| place.target.rack.clone()).collect();
        let began = tokio::time::Instant::now();
        self.local = Arc::new(lock::acquire(world.history.root(), &names, &holder, wait, &notice).await?);
        // The longest time between two looks at one of the racks.
        let poll = world.racks().iter().map(|rack| rack.poll).max().unwrap_or_default();
        let leases = Leases::new(places, holder, world.head.commit.id.clone());
        let manner = Manner { wait: wait.saturating_sub(began.elapsed()), look: poll, settle: poll / SETTLE, over_freezes };
        // What is told of leases may also be a store that fails.
        let leased_after = self.leases.insert(leases).acquire(manner, &|text| super::tell(text)).await?;
        Ok(told.into_inner() || leased_after)
    }

    /// What is asked right before each promote.
    pub(super) fn question(&self) -> crate::deploy::MayPromote {
        let local = Arc::clone(&self.local);
        let leased = self.leases.as_ref().map(|leases| Arc::new(leases.question()));
        Arc::new(move |target: &Target| {
            let held = local.iter().any(|lock| lock.rack() == &target.rack && lock.is_held());
            let (leased, target) = (leased.clone(), target.clone());
            Box::pin(async move {
                if !held {
                    return Err(format!("another run took over the lock of rack `{}`", target.rack));
                }
                match leased {
                    Some(leased) => leased(target).await,
                    None => Ok(()),
                }
            })
        })
    }

    /// Gives everything back.
    pub(super) async fn give_back(&mut self) {
        if let Some(mut leases) = self.leases.take() {
            leases.release().await;
        }
        self.local = Arc::default();
    }
}

/// Who keeps a target from being deployed to.
pub(super) struct Standing {
    pub(super) freeze: Option<Freeze>,
    pub(super) lease: Option<Lease>,
    /// The rack's time.
    pub(super) now: OffsetDateTime,
}

impl Standing {
    /// What to say about it, a line each.
    pub(super) fn told(&self) -> impl Iterator<Item = String> {
        let freeze = self.freeze.as_ref().map(|freeze| freeze.describe(self.now));
        let lease = self.lease.as_ref().map(|lease| format!("being deployed to, {}", lease.describe(self.now)));
        freeze.into_iter().chain(lease)
    }
}

/// What the rack says about the locks of an app.
pub(super) async fn standing(rack: &dyn Rack, app: &str) -> Result<Standing, RackError> {
    let ((freeze, _), (lease, now)) = tokio::try_join!(freeze::of(rack, app), lease::of(rack, app))?;
    Ok(Standing { freeze, lease, now })
}

/// What a plan says about locks: a deploy would wait or be refused. A store that cannot be read says nothing.
pub(super) async fn notes(plan: &Plan, racks: &BTreeMap<RackName, Arc<dyn Rack>>) -> Vec<String> {
    let asked = plan.releases().filter_map(|planned| Some((planned, racks.get(&planned.target.rack)?)));
    let notes = join_all(asked.map(|(planned, rack)| async move {
        let standing = standing(&**rack, &planned.config.name).await.ok()?;
        Some(standing.told().map(|told| format!("`{}` is {told}", planned.target)).collect::<Vec<_>>())
    }));
    notes.await.into_iter().flatten().flatten().collect()
}

/// A selected target that is on its rack.
struct Selected {
    target: Target,
    app: String,
    rack: Arc<dyn Rack>,
    standing: Standing,
}

/// The selected targets that exist. One that is not on its rack is named and left out.
async fn selected(global: &Global, selection: &cli::Selection) -> Result<(World, Vec<Selected>)> {
    let world = World::open(global, selection)?;
    let racks = world.rack_clients()?;
    let asked = world.targets().filter_map(|(app, on)| Some((target_of(app, on), on.name.clone(), Arc::clone(racks.get(&on.rack)?))));
    let looked = join_all(asked.map(|(target, app, rack)| async move {
        // Version 3 keeps objects of apps that it does not have.
        let found = match rack.live(&app).await {
            Ok(_) => standing(&*rack, &app).await,
            Err(error) => Err(error),
        };
        (target, app, rack, found)
    }));
    let mut selected = Vec::new();
    for (target, app, rack, found) in looked.await {
        match found {
            Ok(standing) => selected.push(Selected { target, app, rack, standing }),
            Err(RackError::NoApp { .. }) => super::tell(format!("`{target}` is not on its rack, and is left out")),
            Err(error) => return Err(rack_error(error)),
        }
    }
    if selected.is_empty() { Err(Error::config("none of the selected apps is on its rack")) } else { Ok((world, selected)) }
}

/// `offbuild lock`: nothing is deployed until `unlock`, or for a time.
pub(super) async fn lock(global: &Global, args: LockArgs) -> Result<u8> {
    let length = args.length.map(|text| {
        let length = Span(text.clone()).duration();
        length.ok_or_else(|| Error::config(format!("`--for {text}` is no length of time")).hint("write it as `90s`, `15m` or `2h`"))
    });
    let length = length.transpose()?;
    let message = args.message.trim();
    if message.is_empty() {
        return Err(Error::config("`--message` says nothing").hint("say why: offbuild lock -m \"incident 12\""));
    }
    let (world, selected) = selected(global, &args.selection).await?;
    if !args.force {
        let locked = selected.iter().find_map(|one| Some((one, one.standing.freeze.as_ref()?)));
        if let Some((one, theirs)) = locked {
            let error =
                Error::new(Kind::Locked, format!("nothing was locked: `{}` is {} already", one.target, theirs.describe(one.standing.now)));
            return Err(error.hint("to put this lock in its place: --force"));
        }
    }
    for one in &selected {
        let since = freeze::now(&*one.rack);
        let until = length.map(|length| since.saturating_add(length.try_into().unwrap_or(time::Duration::MAX)));
        let freeze = Freeze { by: lock::this_user(), message: message.to_owned(), since, until, ci_url: world.ci_url(), released: false };
        freeze::set(&*one.rack, &one.app, &freeze).await.map_err(rack_error)?;
        // At once: the next one may fail, and this one is locked then all the same.
        super::print(&format!("{} {}\n", one.target, freeze.describe(since)))?;
        if let Some(lease) = &one.standing.lease {
            let lease = lease.describe(one.standing.now);
            super::tell(format!("a run deploys to `{}` at the moment, {lease}: what it has not promoted yet, it will not", one.target));
        }
    }
    Ok(0)
}

/// `offbuild unlock`: takes away what `lock` set and, with `--force`, the leases of runs.
pub(super) async fn unlock(global: &Global, args: UnlockArgs) -> Result<u8> {
    let (_, selected) = selected(global, &args.selection).await?;
    let mut busy = None;
    for Selected { target, app, rack, standing } in selected {
        let now = standing.now;
        if let Some(freeze) = &standing.freeze {
            freeze::set(&*rack, &app, &Freeze { released: true, ..freeze.clone() }).await.map_err(rack_error)?;
            super::print(&format!("{target} is unlocked; it was {}\n", freeze.describe(now)))?;
        }
        match standing.lease {
            Some(lease) if args.force => {
                let was = lease.describe(now);
                lease::take_away(&*rack, &app, lease).await.map_err(rack_error)?;
                super::print(&format!("{target} is free; it was {was}\n"))?;
            }
            Some(lease) if standing.freeze.is_none() => {
                busy.get_or_insert(
                    Error::new(Kind::Locked, format!("a run deploys to `{target}`, which `lock` did not set")).because(lease.describe(now)),
                );
            }
            Some(lease) => super::tell(format!("`{target}` is still {}", lease.describe(now))),
            None if standing.freeze.is_none() => drop(super::print(&format!("{target} was not locked\n"))?),
            None => {}
        }
    }
    match busy {
        Some(error) => Err(error.hint("if that run is surely over, take its lease away: --force")),
        None => Ok(0),
    }
}
