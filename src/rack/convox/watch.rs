//! Looking after a promote: from the call to what became of it.
//!
//! [`Looks`] says what a row of looks means, and asks nobody; [`Watch`] looks, and tells.
//!
//! The generations differ in what `release` says meanwhile. Version 2 keeps the old id until the update is complete, so our
//! id there is proof. Version 3 shows the new id at once and may say `running` for some seconds before the roll begins, so
//! there `running` counts only after another status was seen, or when it stays.

use super::evidence::Trail;
use super::promote::is_broken;
use super::{CallError, Convox};
use crate::event::Progress;
use crate::names::ReleaseId;
use crate::rack::{AppStatus, Promoted, RackError};
use std::time::Duration;
use time::OffsetDateTime;
use tokio::time::Instant;

/// Looks in a row that make a verdict.
const STEADY: u32 = 2;
/// Looks in a row that show our release running on version 3 without any other status before: the roll was over at once.
const SETTLED: u32 = 4;
/// Looks in a row that show another release running after other states, none of them `rollback`: version 2 answers from
/// caches, so a stale look may follow a fresh one.
const GONE_BACK: u32 = 4;
/// Looks in a row without any change that end the wait for an accepted promote to show.
const NEVER_BEGAN: u32 = 12;
/// The same after a lost answer: the call may still be working.
const NOT_TAKEN: u32 = 6;
/// The same after an error answer that does not say whether anything was begun.
const REFUSED: u32 = 3;

/// What is known about a promote when the looks begin.
pub(super) enum Sent {
    /// The rack accepted it, or it was active before.
    Accepted,
    /// Nobody knows.
    Lost(CallError),
    /// The rack answered an error that may have come after the beginning.
    Refused(CallError),
}

impl Sent {
    /// How many looks without any change show that it will not begin any more.
    fn patience(&self) -> u32 {
        match self {
            Self::Accepted => NEVER_BEGAN,
            Self::Lost(_) => NOT_TAKEN,
            Self::Refused(_) => REFUSED,
        }
    }
}

/// What the looks ended with.
pub(super) enum Seen {
    Ended(Promoted),
    /// The rack shows no sign of the promote.
    NotTaken(CallError),
}

/// An app as one look shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Look {
    status: AppStatus,
    active: Option<ReleaseId>,
}

/// The looks so far.
struct Looks<'a> {
    release: &'a ReleaseId,
    major: u8,
    patience: u32,
    last: Option<Look>,
    /// How often in a row the last one was seen.
    same: u32,
    /// Another status than `running` was seen.
    moved: bool,
    /// The promote began, whatever was answered to it.
    began: bool,
    /// The rack goes back, or was left in a state that it does not leave by itself.
    back: bool,
}

/// What one more look says.
#[derive(Debug, PartialEq, Eq)]
enum Says {
    /// Nothing yet.
    Open,
    /// The rack begins to go back.
    GoesBack,
    /// Our release is live.
    Live,
    /// It is over, and ours is not live.
    Over,
}

impl<'a> Looks<'a> {
    fn new(release: &'a ReleaseId, major: u8, patience: u32) -> Self {
        Self { release, major, patience, last: None, same: 0, moved: false, began: false, back: false }
    }

    fn is_new(&self, look: &Look) -> bool {
        self.last.as_ref() != Some(look)
    }

    fn take(&mut self, look: Look) -> Says {
        self.same = if self.is_new(&look) { 1 } else { self.same + 1 };
        let look = self.last.insert(look);
        let ours = look.active.as_ref() == Some(self.release);
        self.began |= ours;
        let enough = match &look.status {
            AppStatus::Running if ours && !self.back => {
                // Only version 3 shows our id before the roll has begun.
                let live = self.same >= if self.moved || self.major == 2 { STEADY } else { SETTLED };
                return if live { Says::Live } else { Says::Open };
            }
            AppStatus::Running if self.back => STEADY,
            AppStatus::Running if self.moved => GONE_BACK,
            AppStatus::Running => self.patience,
            AppStatus::Rollback => {
                self.moved = true;
                // On version 2 our id is there only when our update was complete: this is somebody else's going back.
                let not_ours = ours && self.major == 2;
                return if not_ours || std::mem::replace(&mut self.back, true) { Says::Open } else { Says::GoesBack };
            }
            status if is_broken(status) => {
                self.back = true;
                STEADY
            }
            AppStatus::Updating => {
                self.moved = true;
                return Says::Open;
            }
            AppStatus::Other(_) => return Says::Open,
        };
        if self.same >= enough { Says::Over } else { Says::Open }
    }
}

/// A promote under way.
pub(super) struct Watch<'a> {
    pub(super) rack: &'a Convox,
    pub(super) app: &'a str,
    pub(super) release: &'a ReleaseId,
    pub(super) major: u8,
    pub(super) timeout: Duration,
    pub(super) progress: &'a Progress,
    pub(super) began: Instant,
}

impl Watch<'_> {
    /// Looks at the app until it is in a known state.
    pub(super) async fn until_known(&self, sent: Sent, trail: &mut Trail) -> Result<Seen, RackError> {
        let deadline = self.began + self.timeout;
        let mut looks = Looks::new(self.release, self.major, sent.patience());
        let mut unread = false;
        loop {
            tokio::time::sleep(self.rack.poll).await;
            if Instant::now() >= deadline {
                return Err(self.out_of_time(looks.last));
            }
            let look = match self.rack.app(self.app).await {
                Ok(app) => Look { status: app.status(), active: app.release() },
                // It may be updating itself, or have too much to do: the roll goes on without its API, and looking harms nothing.
                Err(error) if may_pass(&error) => {
                    if !std::mem::replace(&mut unread, true) {
                        self.progress.notice(format!("{error}; looking on until the rack says what became of the promote"));
                    }
                    continue;
                }
                Err(error) => return Err(self.unknown(&error)),
            };
            if looks.is_new(&look) {
                trail.note(look.status.word(), look.active.as_ref());
                self.progress.rack_status(look.status.word(), look.active.clone());
            }
            match looks.take(look.clone()) {
                Says::Open => {}
                // What is failing now will be gone when the rack has gone back.
                Says::GoesBack => self.rack.catch(self.app, trail).await,
                Says::Live => return Ok(Seen::Ended(Promoted::Live)),
                Says::Over => return self.ended(sent, &looks, look).await,
            }
        }
    }

    /// What it means that ours is not live.
    async fn ended(&self, sent: Sent, looks: &Looks<'_>, look: Look) -> Result<Seen, RackError> {
        let Look { status, active } = look;
        if let Some(active) = active.as_ref().filter(|active| *active != self.release)
            && self.is_newer(active).await
        {
            return Ok(Seen::Ended(Promoted::Overtaken { active: active.clone() }));
        }
        if is_broken(&status) {
            return Err(self.rack.broken(&self.what(), self.app, &status));
        }
        match sent {
            Sent::Lost(error) | Sent::Refused(error) if !looks.back && !looks.began => Ok(Seen::NotTaken(error)),
            _ => Ok(Seen::Ended(Promoted::RolledBack { active })),
        }
    }

    /// True when `other` was made after our release: somebody promoted it meanwhile.
    async fn is_newer(&self, other: &ReleaseId) -> bool {
        let made = async |id: &ReleaseId| -> Option<OffsetDateTime> {
            let release = self.rack.release(self.app, id).await.ok().flatten()?;
            Some(release.created)
        };
        match (made(self.release).await, made(other).await) {
            (Some(ours), Some(theirs)) => theirs > ours,
            _ => false,
        }
    }

    fn what(&self) -> String {
        format!("the promote of release `{}` of app `{}`", self.release, self.app)
    }

    fn out_of_time(&self, last: Option<Look>) -> RackError {
        let state = last.map_or("never read".to_owned(), |Look { status, active }| {
            let active = active.map_or("no active release".to_owned(), |id| format!("active release `{id}`"));
            format!("it is `{}`, {active}", status.word())
        });
        let waiting_for = format!(
            "for app `{}` to run release `{}` ({state}; see `convox apps info -a {} --rack {}`)",
            self.app, self.release, self.app, self.rack.name
        );
        self.rack.timed_out(self.timeout, &waiting_for, true)
    }

    fn unknown(&self, error: &RackError) -> RackError {
        RackError::Unknown { rack: self.rack.name.clone(), what: self.what(), message: format!("it was sent, and then: {error}") }
    }
}

/// False for what no later look changes: the login, the app that is gone, a call the rack does not know.
fn may_pass(error: &RackError) -> bool {
    match error {
        RackError::Unreachable { .. } | RackError::Unknown { .. } => true,
        RackError::Refused { status, .. } => *status >= 500,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the looks end with, and after how many; `None` when they say nothing to the last.
    fn end(major: u8, patience: u32, looks: &[(&str, &str)]) -> Option<(usize, Says, bool)> {
        let release = ReleaseId::new("RNEW").unwrap();
        let mut seen = Looks::new(&release, major, patience);
        looks.iter().enumerate().find_map(|(at, (status, active))| {
            let status = match *status {
                "running" => AppStatus::Running,
                "updating" => AppStatus::Updating,
                "rollback" => AppStatus::Rollback,
                other => AppStatus::Other(other.to_owned()),
            };
            let says = seen.take(Look { status, active: ReleaseId::new(*active).ok() });
            matches!(says, Says::Live | Says::Over).then(|| (at + 1, says, seen.began || seen.back))
        })
    }

    #[test]
    fn a_row_of_looks_says_what_became_of_a_promote() {
        let (old, new) = (("running", "ROLD"), ("running", "RNEW"));
        let (to_new, to_old) = (("updating", "RNEW"), ("rollback", "ROLD"));
        let never = vec![old; 12];
        let short = [vec![new, to_new], vec![old; 4]].concat();
        let table: [(u8, &[(&str, &str)], Option<(usize, Says, bool)>); 9] = [
            (2, &[old, ("updating", "ROLD"), new, new], Some((4, Says::Live, true))),
            (2, &[new], None),
            (3, &[new, new, new, new], Some((4, Says::Live, true))),
            (3, &[new, new, to_new, new, new], Some((5, Says::Live, true))),
            (3, &[to_new, ("rollback", "RNEW"), to_old, old, old], Some((5, Says::Over, true))),
            (2, &[("converging", "ROLD"), old, ("failed", "ROLD"), ("failed", "ROLD")], Some((4, Says::Over, true))),
            (2, &never[..11], None),
            (2, &never, Some((12, Says::Over, false))),
            (3, &short, Some((6, Says::Over, true))),
        ];
        for (major, looks, expected) in table {
            assert_eq!(end(major, NEVER_BEGAN, looks), expected, "{major} {looks:?}");
        }
        assert_eq!(end(2, REFUSED, &never), Some((3, Says::Over, false)));
    }
}
