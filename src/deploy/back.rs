//! A target goes back to what it had before the run, since an app of its group failed.
//!
//! Racks promote no older release, so a copy of it is made and promoted. Right before each, what is active is looked at: only
//! this run's own release gives way. A signal does not stop it: half a group is what must not stay.

use super::groups::GoBack;
use super::lanes::{may_change, rack_stop};
use super::{Context, Stop, failure};
use crate::event::{EventKind, FailureClass, Stage, Step, TargetOutcome};
use crate::names::ReleaseId;
use crate::plan::TargetPlan;
use crate::rack::{Copying, Live, Promoted, Rack};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Puts back what was live before and tells how the target ended.
pub(crate) async fn go_back(back: &GoBack, context: &Context) -> TargetOutcome {
    let GoBack { target, group, ours, because, .. } = back;
    let step = Step { app: target.app.clone(), rack: Some(target.rack.clone()), service: None, stage: Stage::GoBack };
    let planned = context.plan.targets().find(|planned| planned.target == *target);
    let (Some(planned), Some(rack)) = (planned, context.ports.racks.get(&target.rack)) else {
        return TargetOutcome::Deployed { release: ours.clone() };
    };
    let Some(to) = &back.to else {
        let message = format!("group `{group}` goes back since `{because}` failed, and nothing was live here before: {ours} stays");
        context.events.record(EventKind::Notice { step: Some(step), message }).await;
        return TargetOutcome::Deployed { release: ours.clone() };
    };
    let detail = format!("to {to}, with group {group}");
    match context.step(&step, detail, put_back(back, to, planned, rack, &step, context)).await {
        Ok(now) => {
            let message = format!("went back with its group `{group}` since `{because}` failed: {now} is live");
            TargetOutcome::RolledBack { message, group: Some(group.clone()) }
        }
        Err(stop) => match failure(Stage::GoBack, stop) {
            Some(failed) => {
                let hint = failed
                    .hint
                    .unwrap_or_else(|| format!("see what is live (offbuild status), then: offbuild rollback {target} --to {to}"));
                TargetOutcome::Failed { stage: Stage::GoBack, class: failed.class, message: failed.message, hint: Some(hint) }
            }
            None => TargetOutcome::Cancelled,
        },
    }
}

/// Tells what is live then.
async fn put_back(
    back: &GoBack,
    to: &ReleaseId,
    planned: &TargetPlan,
    rack: &Arc<dyn Rack>,
    step: &Step,
    context: &Context,
) -> Result<String, Stop> {
    let GoBack { target, group, ours, .. } = back;
    let on_rack = |error| rack_stop(error, FailureClass::Promote);
    let (app, limit) = (&planned.config.name, planned.config.timeouts.promote);
    let (progress, unstopped) = (context.events.progress(step.clone()), CancellationToken::new());
    // A promote that ran out of time may still go on: what becomes of it is awaited.
    let live = rack.settled(app, limit, &progress, &unstopped).await.map_err(on_rack)?;
    if active(&live) == Some(to) {
        return Ok(to.to_string());
    }
    only_ours(back, &live)?;
    may_change(target, context).await?;
    let why = Copying::Group { group: group.clone(), run: context.plan.run.clone() };
    let copy = rack.copy(app, to, &why, &unstopped).await.map_err(on_rack)?;
    let (of, release) = (to.clone(), copy.clone());
    context.events.record(EventKind::ReleaseCopied { target: target.clone(), of, release, group: Some(group.clone()) }).await;
    only_ours(back, &rack.live(app).await.map_err(on_rack)?)?;
    match rack.promote(app, &copy, Some(ours), limit, &progress, &unstopped).await.map_err(on_rack)? {
        Promoted::Live => Ok(format!("{copy}, a copy of {to},")),
        Promoted::RolledBack { .. } => {
            let message = format!("rack `{}` rolled {copy}, a copy of {to}, back: {ours} is live for `{target}` still", target.rack);
            Err(Stop::failed(FailureClass::Promote, message))
        }
        Promoted::Overtaken { active } => Err(theirs(back, active.as_ref())),
    }
}

fn active(live: &Live) -> Option<&ReleaseId> {
    live.release.as_ref().map(|release| &release.id)
}

/// Nothing is put in the place of a release that somebody else promoted.
fn only_ours(back: &GoBack, live: &Live) -> Result<(), Stop> {
    match active(live) {
        Some(active) if *active == back.ours => Ok(()),
        active => Err(theirs(back, &active.map_or_else(|| "nothing".to_owned(), ToString::to_string))),
    }
}

fn theirs(back: &GoBack, active: &str) -> Stop {
    let GoBack { target, group, ours, .. } = back;
    let message = format!("`{target}` does not go back with its group `{group}`: {active} is active, which is not this run's {ours}");
    Stop::failed(FailureClass::Overtaken, message).hint("somebody else released it meanwhile; see what is live: offbuild status")
}
