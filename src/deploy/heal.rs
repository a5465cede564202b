//! No trap is left behind: a copy of the active release on top of one that is newer and not live.
//!
//! Racks make every release as a copy of their newest one. One that a failed run staged would so go live with the next
//! variable somebody sets. The copy is not promoted; nothing that runs is touched.

use super::lanes::{may_change, rack_stop};
use super::{Context, Stop};
use crate::event::{EnvChange, EventKind, FailureClass, Stage, Step, TargetOutcome};
use crate::names::{ReleaseId, Target};
use crate::plan::Decision;
use crate::rack::{AppStatus, Copying, Rack, RackError};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// How often a copy is made: somebody may promote or stage something between the look and the copy.
const TRIES: usize = 3;

/// What was put on top of what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Healed {
    /// What was left behind.
    pub over: ReleaseId,
    /// The active release.
    pub of: ReleaseId,
    /// The copy of it, the rack's newest release now.
    pub release: ReleaseId,
    /// How the environment of what was left behind differs from the active one's. Somebody may have set it, and the next variable
    /// that is set is not built on it any more.
    pub env: EnvChange,
}

impl Healed {
    /// What to say about variables that are hidden now, by their names; `None` when there are none.
    #[must_use]
    pub fn hidden(&self) -> Option<String> {
        let EnvChange { added, changed, removed } = &self.env;
        let kinds = [("set", added), ("changed", changed), ("taken away", removed)];
        let kinds = kinds.into_iter().filter(|(_, names)| !names.is_empty());
        let told: Vec<String> = kinds.map(|(kind, names)| format!("{kind}: `{}`", names.join("`, `"))).collect();
        let (over, told) = (&self.over, told.join("; "));
        (!told.is_empty()).then(|| {
            format!("{over} had other variables than what is live, and they are put aside with it ({told}): set anew what is wanted")
        })
    }
}

/// Puts a copy of the active release of `app` on top when another build's is there; `None` when there is nothing to heal.
///
/// # Errors
/// [`RackError::Updating`] while an update is under way: which release is the active one is not decided then.
pub async fn heal(rack: &dyn Rack, app: &str, cancel: &CancellationToken) -> Result<Option<Healed>, RackError> {
    let mut healed = None;
    for _ in 0..TRIES {
        let live = rack.live(app).await?;
        if live.status != AppStatus::Running {
            let status = live.status.word().to_owned();
            return Err(RackError::Updating { rack: rack.name().clone(), app: app.to_owned(), status });
        }
        let (Some(trap), Some(active)) = (live.trap(), &live.release) else { return Ok(healed) };
        let (over, of) = (trap.id.clone(), active.id.clone());
        let env = rack.env_change(app, &of, &over).await?;
        let release = rack.copy(app, &of, &Copying::Heal, cancel).await?;
        healed = Some(Healed { over, of, release, env });
    }
    Ok(healed)
}

/// Heals every target of the plan that needs it, one after the other. `true` when one could not be.
pub(crate) async fn all(context: &Context, outcomes: &BTreeMap<Target, TargetOutcome>) -> bool {
    let mut unhealed = false;
    for planned in context.plan.targets() {
        let target = &planned.target;
        // Also one that ended well: what somebody else had staged before may have been promoted after it was staged.
        let no_trap = matches!(
            outcomes.get(target),
            Some(TargetOutcome::Deployed { .. } | TargetOutcome::NotAttempted { .. } | TargetOutcome::Blocked { .. })
        );
        let staged = planned.decision == Decision::Release && !no_trap && planned.live.is_some();
        let Some(rack) = context.ports.racks.get(&target.rack).filter(|_| staged || planned.trap.is_some()) else { continue };
        // Looked at before a step is told of, for most have nothing to heal. What cannot be read is told by the step.
        let app = &planned.config.name;
        if rack.live(app).await.is_ok_and(|live| live.status == AppStatus::Running && live.trap().is_none()) {
            continue;
        }
        unhealed |= one(target, app, rack, context).await.is_err();
    }
    unhealed
}

async fn one(target: &Target, app: &str, rack: &Arc<dyn Rack>, context: &Context) -> Result<(), Stop> {
    let step = Step { app: target.app.clone(), rack: Some(target.rack.clone()), service: None, stage: Stage::Heal };
    let work = async {
        may_change(target, context).await?;
        let hint = |stop: Stop| stop.hint(format!("when the rack is ready: offbuild heal {target}"));
        let healed = heal(&**rack, app, &context.cancel).await.map_err(|error| hint(rack_stop(error, FailureClass::Rack)))?;
        if let Some(message) = healed.as_ref().and_then(Healed::hidden) {
            context.events.record(EventKind::Notice { step: Some(step.clone()), message }).await;
        }
        if let Some(Healed { of, release, .. }) = healed {
            context.events.record(EventKind::ReleaseCopied { target: target.clone(), of, release, group: None }).await;
        }
        Ok(())
    };
    context.step(&step, app.to_owned(), work).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_are_put_aside_are_told_by_name() {
        let id = |id: &str| ReleaseId::new(id).unwrap();
        let healed = |env: EnvChange| Healed { over: id("RLEFT"), of: id("ROLD"), release: id("RCOPY"), env };
        assert_eq!(healed(EnvChange::default()).hidden(), None);
        let env = EnvChange { added: vec!["A".into(), "B".into()], changed: vec![], removed: vec!["C".into()] };
        let told = healed(env).hidden().unwrap();
        assert!(
            told.starts_with("RLEFT had other variables than what is live") && told.contains("(set: `A`, `B`; taken away: `C`)"),
            "{told}"
        );
    }
}
