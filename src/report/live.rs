//! What is live on a target after a run, as far as the run's events tell.

use super::state::TargetState;
use crate::event::{FailureClass, TargetOutcome};
use crate::names::ReleaseId;

/// What is live on a target after a run, as far as the events tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Live {
    /// The release this run made, or one of the same content.
    This(Option<ReleaseId>),
    /// What was live before.
    Before(Option<ReleaseId>),
    /// A release the rack named last that is neither.
    Other(ReleaseId),
    /// Nothing was ever live.
    Nothing,
    /// A promote was under way when nobody looked any more.
    Undecided,
    /// The rack could not be asked.
    Unknown,
}

impl TargetState {
    /// What is live there, as far as the events tell.
    #[must_use]
    pub fn live(&self) -> Live {
        let ours = self.staged.as_ref().map(|(_, release)| release);
        if self.promoting {
            return Live::Undecided;
        }
        if let Some(back) = self.went_back() {
            return Live::Before(Some(back.release.clone()));
        }
        match (&self.outcome, self.statuses.last().and_then(|read| read.release.as_ref())) {
            (Some(TargetOutcome::Deployed { release }), _) => Live::This(Some(release.clone())),
            (Some(TargetOutcome::UpToDate), _) => Live::This(self.live_release.clone()),
            (_, Some(last)) if Some(last) == ours => Live::This(Some(last.clone())),
            (_, Some(last)) if Some(last) != self.live_release.as_ref() => Live::Other(last.clone()),
            (Some(TargetOutcome::Failed { class: FailureClass::RackUnreachable | FailureClass::RackLogin, .. }), None)
                if self.live_release.is_none() =>
            {
                Live::Unknown
            }
            _ if self.live_release.is_none() && self.base.is_none() => Live::Nothing,
            _ => Live::Before(self.live_release.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;
    use crate::report::state::RunState;

    #[test]
    fn what_is_live_follows_the_rack_not_the_wish() {
        let state = RunState::replay(&samples::rolled_back());
        let lives: Vec<Live> = state.targets_in_order().iter().map(|(_, target)| target.live()).collect();
        let release = |id: &str| Some(ReleaseId::new(id).unwrap());
        assert_eq!(lives, [Live::This(release("RAPI2")), Live::Before(release("RWEB1")), Live::Nothing]);
    }
}
