//! What a run leaves on a rack that is newer than what is live: racks build the next `env set` on it.

use super::live::Live;
use super::state::{Copied, TargetState};
use crate::event::TargetOutcome;
use crate::names::ReleaseId;

impl TargetState {
    /// The newest release, when it is another build's than the active one's and not live; as far as the events tell. Where
    /// nothing is live there is nothing it could take the place of.
    #[must_use]
    pub fn trap(&self) -> Option<&ReleaseId> {
        let deployed = matches!(self.outcome, Some(TargetOutcome::Deployed { .. }));
        if deployed || self.live_release.is_none() || self.healed().is_some() {
            return None;
        }
        let back = self.went_back();
        match (&self.copied, back) {
            (_, Some(_)) => return None,
            // It was made and did not get live.
            (Some(copied), None) => return Some(&copied.release),
            (None, None) => {}
        }
        let ours = self.staged.as_ref().map(|(_, release)| release);
        match (ours, self.live()) {
            (Some(ours), Live::This(Some(live))) if *ours == live => None,
            // It may be live in a moment.
            (Some(_), Live::Undecided) => None,
            (Some(ours), _) => Some(ours),
            (None, _) => self.trap_before.as_ref(),
        }
    }

    /// The copy that was put on top of what was left behind.
    #[must_use]
    pub fn healed(&self) -> Option<&Copied> {
        self.copied.as_ref().filter(|copied| copied.group.is_none())
    }

    /// The copy that is live since the target went back with its group.
    #[must_use]
    pub fn went_back(&self) -> Option<&Copied> {
        let copied = self.copied.as_ref().filter(|copied| copied.group.is_some())?;
        let read = self.statuses.last().and_then(|read| read.release.as_ref());
        let told = matches!(self.outcome, Some(TargetOutcome::RolledBack { group: Some(_), .. }));
        (told || read == Some(&copied.release)).then_some(copied)
    }

    /// A note on the newest release when it is not what is live; empty otherwise.
    #[must_use]
    pub fn left(&self) -> String {
        let ours = self.staged.as_ref().map(|(_, release)| release);
        match (self.healed(), self.trap()) {
            (Some(copied), _) => format!("; {}, a copy of it, is on top", copied.release),
            (None, Some(trap)) if Some(trap) == ours => format!("; {trap} is staged, not live"),
            (None, Some(trap)) => format!("; {trap} is newer, not live"),
            // Nothing was live before, and nothing is.
            (None, None) => match (ours, self.live()) {
                (Some(ours), Live::Nothing | Live::Unknown) => format!("; {ours} is staged, not live"),
                _ => String::new(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{FailureClass, Stage};
    use crate::names::BuildId;

    fn release(id: &str) -> ReleaseId {
        ReleaseId::new(id).unwrap()
    }

    fn failed() -> Option<TargetOutcome> {
        let (message, hint) = ("no".to_owned(), None);
        Some(TargetOutcome::Failed { stage: Stage::BeforeRelease, class: FailureClass::Hook, message, hint })
    }

    fn copied(group: Option<&str>) -> Option<Copied> {
        Some(Copied { of: release("ROLD"), release: release("RCOPY"), group: group.map(str::to_owned) })
    }

    #[test]
    fn what_is_newest_and_not_live_is_known_from_the_events() {
        let live = TargetState { live_release: Some(release("ROLD")), outcome: failed(), ..TargetState::default() };
        let staged = TargetState { staged: Some((BuildId::new("BNEW").unwrap(), release("RNEW"))), ..live.clone() };
        let earlier = TargetState { trap_before: Some(release("RLEFT")), outcome: Some(TargetOutcome::UpToDate), ..live.clone() };
        let back = Some(TargetOutcome::RolledBack { message: String::new(), group: Some("g".to_owned()) });
        let table = [
            ("nothing left", live.clone(), None, ""),
            ("staged and failed", staged.clone(), Some("RNEW"), "; RNEW is staged, not live"),
            ("of an earlier run", earlier.clone(), Some("RLEFT"), "; RLEFT is newer, not live"),
            ("healed", TargetState { copied: copied(None), ..earlier.clone() }, None, "; RCOPY, a copy of it, is on top"),
            ("back", TargetState { copied: copied(Some("g")), outcome: back, ..staged.clone() }, None, ""),
            ("going back failed", TargetState { copied: copied(Some("g")), ..staged.clone() }, Some("RCOPY"), "; RCOPY is newer, not live"),
            ("deployed over it", TargetState { outcome: Some(TargetOutcome::Deployed { release: release("RNEW") }), ..earlier }, None, ""),
            ("first release", TargetState { live_release: None, ..staged }, None, "; RNEW is staged, not live"),
        ];
        for (case, state, trap, note) in table {
            assert_eq!(state.trap().map(ReleaseId::as_str), trap, "{case}");
            assert_eq!(state.left(), note, "{case}");
        }
    }
}
