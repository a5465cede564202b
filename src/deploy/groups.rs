//! Apps that go back together: which targets of a rack, in which order, when one of their group fails in or after its promote.
//!
//! A value like the schedule it is a part of. The target that failed goes first, since what it promoted may be live all the
//! same (a hook that failed after it, a promote that ran out of time); then those promoted before it, the last one first.

use crate::event::{FailureClass, Stage, TargetOutcome};
use crate::names::{RackName, ReleaseId, Target};
use crate::plan::Plan;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A target that goes back with its group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoBack {
    /// The target.
    pub target: Target,
    /// The group.
    pub group: String,
    /// The release this run made live, or was to: only in its place anything is put back.
    pub ours: ReleaseId,
    /// What was live before; `None` when nothing was.
    pub to: Option<ReleaseId>,
    /// The target that failed.
    pub because: Target,
}

#[derive(Debug)]
struct Member {
    group: String,
    to: Option<ReleaseId>,
    ours: Option<ReleaseId>,
}

/// The groups of a run.
#[derive(Debug, Default)]
pub struct Groups {
    members: BTreeMap<Target, Member>,
    /// Members whose release is live, in the order in which it came to be.
    live: Vec<Target>,
    waiting: BTreeMap<RackName, VecDeque<GoBack>>,
    going: BTreeSet<RackName>,
    broken: BTreeSet<(RackName, String)>,
}

impl Groups {
    /// The groups of a plan.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        let members = plan.targets().filter_map(|target| {
            let group = target.group.clone()?;
            // What an earlier run had made live before this one went on with it.
            let ours = target.live.as_ref().map(|live| live.release.clone()).filter(|live| target.back_to.as_ref() != Some(live));
            Some((target.target.clone(), Member { group, to: target.back_to.clone(), ours }))
        });
        Self { members: members.collect(), ..Self::default() }
    }

    /// The release of a target is known.
    pub fn released(&mut self, target: &Target, release: ReleaseId) {
        if let Some(member) = self.members.get_mut(target) {
            member.ours = Some(release);
        }
    }

    /// A target ended: when it was promoted it may have to go back later, and when it failed the others do now.
    pub fn ended(&mut self, target: &Target, outcome: &TargetOutcome) {
        let Some(member) = self.members.get(target) else { return };
        let taken_over = member.ours.is_some() && member.to.is_some();
        match outcome {
            TargetOutcome::Deployed { .. } => self.live.push(target.clone()),
            // The run this one goes on with had promoted it.
            TargetOutcome::UpToDate if taken_over => self.live.push(target.clone()),
            _ if !breaks(outcome) => {}
            _ => {
                let group = member.group.clone();
                let promoted = self.live.iter().rev().filter(|other| other.rack == target.rack && *other != target);
                let back = std::iter::once(target).chain(promoted).filter_map(|other| {
                    let member = self.members.get(other).filter(|member| member.group == group)?;
                    let (ours, to) = (member.ours.clone()?, member.to.clone());
                    Some(GoBack { target: other.clone(), group: group.clone(), ours, to, because: target.clone() })
                });
                let back: VecDeque<GoBack> = back.collect();
                self.live.retain(|other| !back.iter().any(|back| back.target == *other));
                self.waiting.entry(target.rack.clone()).or_default().extend(back);
                self.broken.insert((target.rack.clone(), group));
            }
        }
    }

    /// The next target of a rack that goes back; it counts as begun. One at a time, as everything in a lane.
    pub fn next(&mut self, rack: &RackName) -> Option<GoBack> {
        if self.going.contains(rack) {
            return None;
        }
        let next = self.waiting.get_mut(rack)?.pop_front()?;
        self.going.insert(rack.clone());
        Some(next)
    }

    /// The one that was begun on this rack is over.
    pub fn went(&mut self, rack: &RackName) {
        self.going.remove(rack);
    }

    /// True while a target of the rack goes back or is to: its lane does nothing else.
    #[must_use]
    pub fn is_busy(&self, rack: &RackName) -> bool {
        self.going.contains(rack) || self.waiting.get(rack).is_some_and(|waiting| !waiting.is_empty())
    }

    /// The group of a target that is not begun any more, since another member failed.
    #[must_use]
    pub fn broken(&self, target: &Target) -> Option<&str> {
        let group = &self.members.get(target)?.group;
        self.broken.contains(&(target.rack.clone(), group.clone())).then_some(group.as_str())
    }
}

/// True for what happens in or after a promote. What a guard refused right before it was not promoted, and an app that somebody
/// else promoted meanwhile is theirs.
fn breaks(outcome: &TargetOutcome) -> bool {
    match outcome {
        TargetOutcome::RolledBack { group, .. } => group.is_none(),
        TargetOutcome::Failed { stage: Stage::Promote, class, .. } => !matches!(class, FailureClass::Guard | FailureClass::Overtaken),
        TargetOutcome::Failed { stage, .. } => *stage == Stage::AfterRelease,
        _ => false,
    }
}
