//! The guards that only hold when they are asked again: what is live may move while a run builds, stages and runs hooks.
//!
//! [`Guarded::look`] is asked before a release is staged and right before it is promoted. As long as what is active is what the target was
//! judged over, it says so. When somebody has released meanwhile, that is judged as a plan judges it: an older commit is gone
//! over, a newer one makes the target `stale`, the same inputs make it `up-to-date`, anything else is refused. A rack cannot
//! compare and set, so a run that was promoted over between its look and its promote hears of it from the rack and looks again.

use super::lanes::rack_stop;
use super::{Context, Stop};
use crate::changes::Ancestry;
use crate::changes::description::recorded_in;
use crate::event::{EventKind, FailureClass, Progress, Step, TargetOutcome};
use crate::names::{CommitId, Fingerprint, ReleaseId};
use crate::plan::{AppPlan, Origin, TargetPlan};
use crate::rack::{AppStatus, Live, LiveRelease, Rack};
use std::sync::Arc;
use time::OffsetDateTime;

/// A target in its lane, and what its release goes over.
pub(super) struct Guarded<'t> {
    pub(super) target: &'t TargetPlan,
    pub(super) app: &'t AppPlan,
    pub(super) rack: &'t Arc<dyn Rack>,
    pub(super) context: &'t Context,
    /// The release the target was last judged over; `None` when nothing was active.
    over: Option<ReleaseId>,
}

/// What a look found.
#[derive(Debug)]
pub(super) enum Found {
    /// What the target was judged over.
    AsJudged(Box<Live>),
    /// The release that is to be promoted is active: a run that was cut short had promoted it.
    Ours,
    /// A release of an older commit, or one of the same commit with other inputs. It is what the target is judged over from now on.
    MovedOn(LiveRelease),
}

impl<'t> Guarded<'t> {
    pub(super) fn new(target: &'t TargetPlan, app: &'t AppPlan, rack: &'t Arc<dyn Rack>, context: &'t Context) -> Self {
        let over = target.live.as_ref().map(|live| live.release.clone());
        Self { target, app, rack, context, over }
    }

    /// What the rack may promote over.
    pub(super) fn over(&self) -> Option<&ReleaseId> {
        self.over.as_ref()
    }

    /// Reads what is live, when it stands still, and judges it. `ours` is the release that is to be promoted, when there is one.
    pub(super) async fn look(&mut self, ours: Option<&ReleaseId>, step: &Step, progress: &Progress) -> Result<Found, Stop> {
        let name = &self.target.config.name;
        let mut live = self.rack.live(name).await.map_err(|error| rack_stop(error, FailureClass::Rack))?;
        if live.status != AppStatus::Running {
            let class = if ours.is_some() { FailureClass::Promote } else { FailureClass::Rack };
            let settled = self.rack.settled(name, self.target.config.timeouts.promote, progress, &self.context.cancel).await;
            live = settled.map_err(|error| rack_stop(error, class))?;
        }
        let active = live.release.as_ref().map(|release| &release.id);
        if active.is_some() && active == ours {
            return Ok(Found::Ours);
        }
        if active == self.over.as_ref() {
            return Ok(Found::AsJudged(Box::new(live)));
        }
        let release = self.judge(live).await?;
        let message = format!("{} became active on `{}` meanwhile, and is gone over", described(&release), self.target.target);
        self.context.events.record(EventKind::Notice { step: Some(step.clone()), message }).await;
        self.over = Some(release.id.clone());
        Ok(Found::MovedOn(release))
    }

    /// Judges what became active meanwhile; the release, when it may be gone over.
    async fn judge(&self, live: Live) -> Result<LiveRelease, Stop> {
        let target = &self.target.target;
        let rolled_back = live.replaced.is_some() && self.target.config.hold;
        let Some(release) = live.release else { return Err(self.moved("nothing is active now")) };
        let now = format!("{} is active now", described(&release));
        if matches!(self.target.origin, Origin::Copy { .. }) {
            // Whoever goes back judged what was live then.
            return Err(self.moved(&now));
        }
        if fingerprint(&release).as_ref() == Some(&self.app.fingerprint) {
            return Err(Stop::Ended(TargetOutcome::UpToDate));
        }
        if rolled_back {
            let message = format!("somebody rolled `{target}` back meanwhile: {now}");
            return Err(
                Stop::failed(FailureClass::Guard, message).hint(format!("to deploy all the same: offbuild deploy --release-hold {target}"))
            );
        }
        let Some(commit) = release.build.as_ref().and_then(|build| build.commit.clone()) else { return Err(self.moved(&now)) };
        let options = &self.context.plan.options;
        match self.standing(&commit, &release).await {
            Ancestry::Same | Ancestry::Descendant => Ok(release),
            Ancestry::Ancestor if options.allow_older => Ok(release),
            Ancestry::Ancestor => Err(Stop::Ended(TargetOutcome::Stale { live: commit })),
            Ancestry::Diverged if options.allow_diverged => Ok(release),
            Ancestry::Diverged => {
                let message = format!("the plan for `{target}` was made before {now}, and has diverged from this commit");
                Err(Stop::failed(FailureClass::Guard, message).hint("merge it, or deploy again with --allow-diverged"))
            }
            Ancestry::Unknown => Err(self.moved(&now)),
        }
    }

    /// How this run's commit stands to a live one. History may have to be read: not on a thread of the loop.
    async fn standing(&self, commit: &CommitId, release: &LiveRelease) -> Ancestry {
        let committed = recorded(release).and_then(|recorded| recorded.committed);
        let (stands, commit) = (Arc::clone(&self.context.ports.stands), commit.clone());
        tokio::task::spawn_blocking(move || stands(&commit, committed)).await.unwrap_or(Ancestry::Unknown)
    }

    fn moved(&self, now: &str) -> Stop {
        let planned = self.over.as_ref().map_or_else(|| "nothing".to_owned(), ToString::to_string);
        let message = format!("the plan for `{}` was made over {planned}, and {now}", self.target.target);
        Stop::failed(FailureClass::Guard, message).hint("somebody else released it meanwhile; deploy again to plan anew")
    }

    /// True when the rack would refuse the release as older than the active one.
    pub(super) async fn is_outdated(&self, ours: &ReleaseId, active: &LiveRelease) -> Result<bool, Stop> {
        let made = self.rack.release(&self.target.config.name, ours).await.map_err(|error| rack_stop(error, FailureClass::Rack))?;
        let made: Option<OffsetDateTime> = made.map(|made| made.created);
        Ok(made.is_none_or(|made| made < active.created))
    }
}

fn recorded(release: &LiveRelease) -> Option<crate::changes::description::Recorded> {
    release.build.as_ref().and_then(|build| recorded_in(&build.description))
}

fn fingerprint(release: &LiveRelease) -> Option<Fingerprint> {
    recorded(release).map(|recorded| recorded.fingerprint)
}

/// `RABC (commit 1234567)`.
fn described(release: &LiveRelease) -> String {
    let commit = release.build.as_ref().and_then(|build| build.commit.as_ref());
    commit.map_or_else(|| release.id.to_string(), |commit| format!("{} (commit {})", release.id, commit.short()))
}
