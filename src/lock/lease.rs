//! Leases: that a run deploys to a target, for runners that share no disk.
//!
//! One small object per app, kept on the rack: who, since when, for which commit, and a heartbeat by the rack's clock. The
//! store has no compare-and-set, so a lease keeps runs polite and no more; that an older commit never goes over a newer one rests on
//! the look right before each promote. A store that fails is therefore a notice, and what it says is obeyed.
//!
//! 1. Read all. One that somebody else holds, or a lock set by hand ([`super::freeze`]), is waited for or refused.
//! 2. Write all, wait a moment, read all again. Who wrote last has it; who lost one gives the others back and begins anew.
//! 3. Refresh the heartbeat while the run lasts, and write `released` at its end.
//!
//! A lease whose heartbeat is older than its TTL is taken over, as is one whose process was of this machine and is gone, or whose
//! heartbeat did not move for a TTL while somebody watched it, whatever the clocks say.

use super::freeze::{self, Freeze};
use super::{Holder, TTL, ago, in_the_way, millis, plain};
use crate::error::{Error, Result};
use crate::names::{CommitId, Target};
use crate::rack::{Rack, RackError};
use crate::words::took;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use time::OffsetDateTime;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// The object's name.
const KEY: &str = "lease";
/// How exactly racks tell the time.
const SECOND: Duration = Duration::from_secs(1);
/// How long giving back may take: nobody who has stopped a run is to wait for a rack that does not answer.
const GIVE_BACK: Duration = Duration::from_secs(10);
/// How often a lease may be gone again right after it was written: whoever wrote over it may have given it back at once, but a store
/// that never shows what it took must not keep a run for ever.
const MOST_VANISHED: u32 = 3;
/// How often heartbeats are refreshed.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// A lease as the rack keeps it. Fields are only added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Who holds it.
    pub holder: Holder,
    /// The commit that is deployed.
    pub commit: CommitId,
    /// The last heartbeat, by the rack's clock.
    #[serde(with = "time::serde::rfc3339")]
    pub beat: OffsetDateTime,
    /// How many seconds it holds without another heartbeat.
    pub ttl: u64,
    /// Told apart from every other lease by this.
    pub token: String,
    /// It was given back: racks do not delete objects.
    #[serde(default)]
    pub released: bool,
}

impl Lease {
    /// `held by ada@ci for run … of commit 1234567 since …, 3m ago`.
    #[must_use]
    pub fn describe(&self, now: OffsetDateTime) -> String {
        let Holder { by, run, since, .. } = &self.holder;
        format!("held by {by} for run `{run}` of commit {} since {}", self.commit.short(), ago(*since, now))
    }

    fn ttl(&self) -> Duration {
        Duration::from_secs(self.ttl)
    }

    /// Why it holds no more, when it does not.
    fn is_over(&self, now: OffsetDateTime) -> Option<String> {
        if self.holder.is_gone() {
            return Some("its process is gone".to_owned());
        }
        let silent = self.silent(now);
        (silent > self.ttl()).then(|| format!("no sign of life for {}", took(millis(silent))))
    }

    /// How old its heartbeat is. One in the future is a clock that was set back: whoever watches it will see whether it moves.
    fn silent(&self, now: OffsetDateTime) -> Duration {
        Duration::try_from(now - self.beat).unwrap_or_default()
    }

    fn refusal(&self, target: &Target, now: OffsetDateTime) -> Error {
        let error = in_the_way(&format!("`{target}`"), self.describe(now), self.silent(now), &self.holder);
        error.hint(format!("wait for it: `--lock-wait 15m`; if that run is surely over: offbuild unlock --force {target}"))
    }
}

/// The lease of an app, by its name on the rack, when one is held, and the rack's time now.
pub async fn of(rack: &dyn Rack, app: &str) -> Result<(Option<Lease>, OffsetDateTime), RackError> {
    let (lease, now) = read(rack, app).await?;
    Ok((lease.filter(|lease| lease.is_over(now).is_none()), now))
}

/// As [`of`], those that are over among them.
async fn read(rack: &dyn Rack, app: &str) -> Result<(Option<Lease>, OffsetDateTime), RackError> {
    let bytes = rack.note(app, KEY).await?;
    // What is no lease is held by nobody.
    let mut lease: Option<Lease> = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    if let Some(Lease { holder, .. }) = &mut lease {
        (holder.by, holder.ci_url) = (plain(&holder.by), holder.ci_url.as_deref().map(plain));
    }
    Ok((lease.filter(|lease| !lease.released), freeze::now(rack)))
}

async fn write(rack: &dyn Rack, app: &str, lease: &Lease) -> Result<(), RackError> {
    // Strings, times and numbers: this cannot fail.
    rack.put_note(app, KEY, &serde_json::to_vec_pretty(lease).unwrap_or_default()).await
}

/// Takes a lease away from whoever holds it.
pub async fn take_away(rack: &dyn Rack, app: &str, lease: Lease) -> Result<(), RackError> {
    write(rack, app, &Lease { released: true, ..lease }).await
}

/// What is leased.
#[derive(Clone)]
pub struct Place {
    /// The target.
    pub target: Target,
    /// The app's name on the rack.
    pub app: String,
    /// The rack.
    pub rack: Arc<dyn Rack>,
}

/// How the leases of a run are taken.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// How long others are waited for.
    pub wait: Duration,
    /// The time between two looks at what others hold.
    pub look: Duration,
    /// The time between writing and reading again: longer than others need from reading to writing.
    pub settle: Duration,
    /// Locks set by hand are told, not obeyed: a person goes back by hand.
    pub over_freezes: bool,
}

/// The leases of a run. What was written is given back by [`Leases::release`], whatever became of the rest.
pub struct Leases {
    held: Arc<Held>,
    beating: Option<AbortHandle>,
}

struct Held {
    places: Vec<Place>,
    holder: Holder,
    commit: CommitId,
    token: String,
    over_freezes: bool,
    /// Targets whose object may say that this run holds it.
    written: Mutex<BTreeSet<Target>>,
}

/// What a look at a place found.
enum Seen {
    /// Nobody holds it; the text says whose lease it was, when it was not given back.
    Free(Option<String>),
    Lease(Lease, OffsetDateTime),
    Freeze(Freeze, OffsetDateTime),
    /// The store cannot be read.
    Broken(RackError),
}

impl Leases {
    /// Nothing is taken yet.
    #[must_use]
    pub fn new(places: Vec<Place>, holder: Holder, commit: CommitId) -> Self {
        let token = format!("{:032x}", fastrand::u128(..));
        let held = Held { places, holder, commit, token, over_freezes: false, written: Mutex::default() };
        Self { held: Arc::new(held), beating: None }
    }

    /// Takes the leases of all places. `notice` is told whom it waits for, whose it took over, and which store failed. `true` when
    /// another run was in the way.
    ///
    /// # Errors
    /// [`crate::error::Kind::Locked`] when one cannot be had in time; then [`Leases::release`] gives back what was written.
    pub async fn acquire(&mut self, manner: Manner, notice: &(dyn Fn(String) + Sync)) -> Result<bool> {
        if let Some(held) = Arc::get_mut(&mut self.held) {
            held.over_freezes = manner.over_freezes;
        }
        let in_the_way = self.held.acquire(manner, notice).await?;
        self.beating = Some(tokio::spawn(beat(Arc::clone(&self.held))).abort_handle());
        Ok(in_the_way)
    }

    /// A question to ask right before each promote: the error says who keeps the target from it by now.
    pub fn question(&self) -> impl Fn(Target) -> futures_util::future::BoxFuture<'static, Result<(), String>> + Send + Sync + 'static {
        let held = Arc::clone(&self.held);
        move |target| {
            let held = Arc::clone(&held);
            Box::pin(async move { held.may_promote(&target).await })
        }
    }

    /// Gives back what was written. What cannot be, or not within [`GIVE_BACK`], is over after its TTL.
    pub async fn release(&mut self) {
        if let Some(beating) = self.beating.take() {
            beating.abort();
        }
        let _ = tokio::time::timeout(GIVE_BACK, self.held.give_back()).await;
    }
}

async fn beat(held: Arc<Held>) {
    loop {
        tokio::time::sleep(HEARTBEAT).await;
        join_all(held.places.iter().map(|place| held.refresh(place))).await;
    }
}

/// What became of leases that were written.
enum Claim {
    Ours,
    /// Another run wrote over one.
    Lost,
    /// Nobody has this one.
    Vanished(Target),
}

impl Held {
    async fn acquire(&self, manner: Manner, notice: &(dyn Fn(String) + Sync)) -> Result<bool> {
        let until = Instant::now() + manner.wait;
        let (mut told, mut failed) = (BTreeSet::new(), BTreeSet::new());
        let tell = |seen: &mut BTreeSet<String>, text: String| {
            if seen.insert(text.clone()) {
                notice(text);
            }
        };
        let mut watched = BTreeMap::new();
        let (mut vanished, mut in_the_way) = (0, false);
        loop {
            let looks = join_all(self.places.iter().map(|place| self.look(place))).await;
            let mut free = Vec::new();
            let mut refusal = None;
            for (place, seen) in self.places.iter().zip(looks) {
                let target = &place.target;
                let (error, text) = match seen {
                    Seen::Free(took_over) => {
                        free.push((place, took_over));
                        continue;
                    }
                    Seen::Broken(error) => {
                        tell(&mut failed, unleased(target, &error));
                        continue;
                    }
                    Seen::Lease(lease, now) => {
                        let (beat, since) =
                            watched.entry(target.clone()).or_insert_with(|| ((lease.token.clone(), lease.beat), Instant::now()));
                        if (&beat.0, beat.1) != (&lease.token, lease.beat) {
                            (*beat, *since) = ((lease.token.clone(), lease.beat), Instant::now());
                        } else if since.elapsed() > lease.ttl() {
                            free.push((place, Some(taken_over(target, &lease, now, "its heartbeat stands still"))));
                            continue;
                        }
                        (lease.refusal(target, now), format!("{} is {}", target, lease.describe(now)))
                    }
                    Seen::Freeze(freeze, now) if manner.over_freezes => {
                        tell(&mut told, format!("`{target}` is {}; going on all the same", freeze.describe(now)));
                        free.push((place, None));
                        continue;
                    }
                    Seen::Freeze(freeze, now) => (freeze.refusal(target, now), format!("{} is {}", target, freeze.describe(now))),
                };
                refusal.get_or_insert((error, target.clone(), text));
            }
            if let Some((error, target, text)) = refusal {
                in_the_way = true;
                if Instant::now() >= until {
                    return Err(error);
                }
                // Once for each: the age in the text is another one each time.
                if told.insert(target.to_string()) {
                    notice(format!("waiting: {text}"));
                }
                tokio::time::sleep_until(until.min(Instant::now() + manner.look)).await;
                continue;
            }
            let places: Vec<&Place> = free.iter().map(|(place, _)| *place).collect();
            match self.claim(&places, manner.settle, |text| tell(&mut failed, text)).await {
                Claim::Lost => (vanished, in_the_way) = (0, true),
                Claim::Vanished(_) if vanished < MOST_VANISHED => vanished += 1,
                claimed => {
                    if let Claim::Vanished(target) = claimed {
                        tell(&mut failed, unleased(&target, &"what is written there cannot be read"));
                    }
                    for took_over in free.into_iter().filter_map(|(_, took_over)| took_over) {
                        in_the_way = true;
                        notice(took_over);
                    }
                    return Ok(in_the_way);
                }
            }
            // Somebody wrote later. Not at once, or the two would meet again.
            self.give_back().await;
            tokio::time::sleep(jittered(manner.settle)).await;
        }
    }

    async fn look(&self, place: &Place) -> Seen {
        let (freeze, lease) = tokio::join!(freeze::of(&*place.rack, &place.app), read(&*place.rack, &place.app));
        match (freeze, lease) {
            (Ok((Some(freeze), now)), _) => Seen::Freeze(freeze, now),
            (Err(error), _) | (_, Err(error)) => Seen::Broken(error),
            (_, Ok((None, _))) => Seen::Free(None),
            (_, Ok((Some(lease), _))) if lease.token == self.token => Seen::Free(None),
            (_, Ok((Some(lease), now))) => match lease.is_over(now) {
                Some(why) => Seen::Free(Some(taken_over(&place.target, &lease, now, &why))),
                None => Seen::Lease(lease, now),
            },
        }
    }

    /// Writes all places, and looks after a moment whether they still say so. A store that fails does not count.
    async fn claim(&self, places: &[&Place], settle: Duration, mut failed: impl FnMut(String)) -> Claim {
        if places.is_empty() {
            return Claim::Ours;
        }
        let wrote = join_all(places.iter().map(|place| self.write(place))).await;
        for (place, error) in places.iter().zip(wrote).filter_map(|(place, wrote)| Some((place, wrote.err()?))) {
            failed(unleased(&place.target, &error));
        }
        tokio::time::sleep(jittered(settle)).await;
        let written = places.iter().filter(|place| self.is_written(&place.target));
        let looks = join_all(written.map(async |place| (place, read(&*place.rack, &place.app).await))).await;
        let mut claim = Claim::Ours;
        for (place, look) in looks {
            match look {
                Ok((Some(lease), _)) if lease.token != self.token => return Claim::Lost,
                Ok((None, _)) => claim = Claim::Vanished(place.target.clone()),
                _ => {}
            }
        }
        claim
    }

    async fn write(&self, place: &Place) -> Result<(), RackError> {
        // Before it is sent: a run that is stopped meanwhile gives it back all the same.
        self.written().insert(place.target.clone());
        let wrote = write(&*place.rack, &place.app, &self.lease(place)).await;
        if wrote.is_err() {
            self.written().remove(&place.target);
        }
        wrote
    }

    fn lease(&self, place: &Place) -> Lease {
        Lease {
            holder: self.holder.clone(),
            commit: self.commit.clone(),
            beat: freeze::now(&*place.rack),
            ttl: TTL.as_secs(),
            token: self.token.clone(),
            released: false,
        }
    }

    fn written(&self) -> std::sync::MutexGuard<'_, BTreeSet<Target>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_written(&self, target: &Target) -> bool {
        self.written().contains(target)
    }

    /// Refreshes the heartbeat of a lease that is still this run's. One that cannot be written now may be next time.
    async fn refresh(&self, place: &Place) {
        if self.is_ours(place).await {
            let _ = write(&*place.rack, &place.app, &self.lease(place)).await;
        }
    }

    async fn is_ours(&self, place: &Place) -> bool {
        self.is_written(&place.target)
            && read(&*place.rack, &place.app).await.is_ok_and(|(lease, _)| lease.is_some_and(|lease| lease.token == self.token))
    }

    async fn give_back(&self) {
        let give_back = async |place: &Place| {
            if self.is_ours(place).await {
                let _ = take_away(&*place.rack, &place.app, self.lease(place)).await;
            }
        };
        join_all(self.places.iter().map(give_back)).await;
        self.written().clear();
    }

    async fn may_promote(&self, target: &Target) -> Result<(), String> {
        let Some(place) = self.places.iter().find(|place| place.target == *target) else { return Ok(()) };
        match self.look(place).await {
            Seen::Lease(lease, now) => Err(format!("another run took `{target}` over, {}", lease.describe(now))),
            // What was over when the run began may seem not to be for a moment more.
            Seen::Freeze(freeze, now) if !self.over_freezes && freeze.until.is_none_or(|until| until - now > SECOND) => {
                Err(format!("`{target}` is {}", freeze.describe(now)))
            }
            // Nobody else claims it, or nobody can tell.
            _ => Ok(()),
        }
    }
}

fn taken_over(target: &Target, lease: &Lease, now: OffsetDateTime, why: &str) -> String {
    format!("took over `{target}`, {}: {why}", lease.describe(now))
}

fn unleased(target: &Target, error: &dyn std::fmt::Display) -> String {
    format!("`{target}` cannot be leased, so other runners do not see this run, nor does it see a lock set by hand: {error}")
}

/// Up to half as long again: two that begin at once do not end at once.
fn jittered(time: Duration) -> Duration {
    time + time.mul_f64(fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests;
