//! Promoting: from a release to what is live, or to knowing why not.
//!
//! 1. Wait until nothing else is under way for the app. When another release is active than the one the caller has judged, it is
//!    not promoted over.
//! 2. Send the promote once. An answer that leaves its fate open is followed by looks at the app; only when those show that it
//!    did not take is it sent again.
//! 3. Look until the app is `running`: with our release on two looks in a row it is live, with another it was rolled back or
//!    overtaken.
//!
//! The generations differ in what `release` says meanwhile. Version 2 keeps the old id until the update is complete, so our
//! id there is proof. Version 3 shows the new id at once and may say `running` for some seconds before the roll begins, so
//! there `running` counts only after another status was seen, or when it stays.
//!
//! Once the promote is sent, `cancel` is not heeded: what is under way is awaited.

use super::evidence::{Ending, Trail};
use super::http::Body;
use super::{CallError, Convox, RackRead, go_on, wire};
use crate::event::Progress;
use crate::names::ReleaseId;
use crate::rack::{AppStatus, Promoted, RackError};
use std::time::Duration;
use time::OffsetDateTime;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

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
/// How often a promote is sent at most.
const MOST_SENT: u32 = 3;
/// How much of the limit is left for version 3 to go back within, at most.
const MOST_FOR_ROLLBACK: Duration = Duration::from_secs(300);

/// What is known about a promote when the looks begin.
enum Sent {
    /// The rack accepted it, or it was active before.
    Accepted,
    /// Nobody knows.
    Lost(CallError),
    /// The rack answered an error that may have come after the beginning.
    Refused(CallError),
}

/// What the looks ended with.
enum Seen {
    Ended(Promoted),
    /// The rack shows no sign of the promote.
    NotTaken(CallError),
}

/// What the answer to the call asks for.
enum Next {
    Watch(Sent),
    /// Another update was quicker: wait for it and send again. The rack has done nothing.
    WaitAndSend(CallError),
    /// A newer release is active.
    Older(CallError),
    Fail(CallError),
}

impl Convox {
    pub(super) async fn promote_release(
        &self,
        app: &str,
        release: &ReleaseId,
        over: Option<&ReleaseId>,
        timeout: Duration,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<Promoted, RackError> {
        let mut trail = Trail::begin(RackRead::clock_ahead(self));
        let ended = self.promote_along((app, release, over), timeout, progress, cancel, &mut trail).await;
        let ending = match &ended {
            Ok(Promoted::RolledBack { .. }) => Ending::RolledBack,
            Err(RackError::Timeout { .. }) => Ending::OutOfTime,
            Err(RackError::Refused { message, .. } | RackError::Unknown { message, .. }) => Ending::Refused(message),
            // Well, somebody else's, or nobody there to be asked.
            _ => return ended,
        };
        let evidence = self.evidence(app, release, trail, ending).await;
        progress.evidence(release.clone(), evidence);
        ended
    }

    async fn promote_along(
        &self,
        (app, release, over): (&str, &ReleaseId, Option<&ReleaseId>),
        timeout: Duration,
        progress: &Progress,
        cancel: &CancellationToken,
        trail: &mut Trail,
    ) -> Result<Promoted, RackError> {
        let what = format!("the promote of release `{release}` of app `{app}`");
        let major = self.known().await?.major;
        // Version 3 undoes a roll that takes longer than it is told; that has to be seen within our own limit.
        let rack_limit = (timeout - (timeout / 4).min(MOST_FOR_ROLLBACK)).as_secs().max(1).to_string();
        let form = [("timeout", rack_limit.as_str())];
        let body = if major == 3 { Body::Form(&form) } else { Body::Empty };
        let deadline = Instant::now() + timeout;
        let mut tried = 0;
        loop {
            let mut before = self.app(app).await?;
            if before.status() != AppStatus::Running {
                before = self.until_idle(app, deadline, progress, cancel).await?;
            }
            let active = before.release();
            trail.before = active.clone().filter(|active| active != release).or(trail.before.take());
            let ours = active.as_ref() == Some(release);
            if let Some(active) = active.filter(|active| !ours && over != Some(active)) {
                return Ok(Promoted::Overtaken { active });
            }
            let next = if ours {
                // A run that was cut short promoted it.
                Next::Watch(Sent::Accepted)
            } else {
                go_on(cancel)?;
                tried += 1;
                match self.http.once(&["apps", app, "releases", release.as_str(), "promote"], body).await {
                    Ok(_) => Next::Watch(Sent::Accepted),
                    Err(error) => next_after(error),
                }
            };
            let error = match next {
                Next::Fail(error) => return Err(self.fault(&what, error)),
                Next::Older(error) => {
                    return match self.app(app).await?.release() {
                        Some(active) => Ok(Promoted::Overtaken { active }),
                        None => Err(self.fault(&what, error)),
                    };
                }
                Next::WaitAndSend(error @ CallError::NotSent { .. }) => {
                    if tried >= MOST_SENT {
                        return Err(self.fault(&what, error));
                    }
                    self.http.back_off(tried).await;
                    continue;
                }
                Next::WaitAndSend(_) => {
                    // Not one of the tries: the rack says that it did nothing.
                    tried -= 1;
                    if Instant::now() >= deadline {
                        let status = self.app(app).await?.status().word().to_owned();
                        return Err(RackError::Updating { rack: self.name.clone(), app: app.to_owned(), status });
                    }
                    if !self.pause(cancel).await {
                        return Err(RackError::Cancelled);
                    }
                    continue;
                }
                Next::Watch(sent) => {
                    let watch = Watch { rack: self, app, release, major, timeout, progress, began: Instant::now() };
                    let seen = tokio::select! {
                        seen = watch.until_known(sent, trail) => seen?,
                        never = self.tell_progress(app, progress) => match never {},
                    };
                    match seen {
                        Seen::Ended(promoted) => return Ok(promoted),
                        Seen::NotTaken(error) => error,
                    }
                }
            };
            if !error.is_unsure() {
                return Err(self.fault(&what, error));
            }
            if tried >= MOST_SENT {
                let message = format!("{}; sent {tried} times without effect", error.message());
                return Err(RackError::Unknown { rack: self.name.clone(), what, message });
            }
        }
    }

    /// Waits until the app is `running`, so that a promote can be sent.
    pub(super) async fn until_idle(
        &self,
        app: &str,
        deadline: Instant,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<wire::App, RackError> {
        let mut last = None;
        loop {
            let found = self.app(app).await?;
            let status = found.status();
            if status == AppStatus::Running {
                return Ok(found);
            }
            let word = status.word().to_owned();
            if matches!(word.as_str(), "failed" | "deleting") {
                let message = format!("the app is `{word}`; bring it to `running` first (`convox apps info {app}`)");
                let what = format!("a promote of app `{app}`");
                return Err(RackError::Refused { rack: self.name.clone(), what, status: 403, message });
            }
            let updating = RackError::Updating { rack: self.name.clone(), app: app.to_owned(), status: word.clone() };
            if last.replace(word.clone()) != Some(word.clone()) {
                progress.rack_status(word, found.release());
            }
            if Instant::now() >= deadline {
                return Err(updating);
            }
            if !self.pause(cancel).await {
                return Err(RackError::Cancelled);
            }
        }
    }
}

/// What to do after an error answer to a promote.
fn next_after(error: CallError) -> Next {
    let CallError::Answered { status, message } = &error else {
        return match error {
            CallError::NotSent { certificate: true, .. } => Next::Fail(error),
            CallError::NotSent { .. } => Next::WaitAndSend(error),
            error => Next::Watch(Sent::Lost(error)),
        };
    };
    let says = |text: &str| message.contains(text);
    if (*status == 403 && says("updating")) || (says("IN_PROGRESS") && says("can not be updated")) {
        Next::WaitAndSend(error)
    } else if says("can not promote an older release") {
        Next::Older(error)
    } else if error.is_unsure() {
        Next::Watch(Sent::Lost(error))
    } else if *status >= 500 && !error.is_not_found() && !says("empty manifest") && !says("required env") {
        // `No updates are to be performed.` among them: then it may be live already.
        Next::Watch(Sent::Refused(error))
    } else {
        Next::Fail(error)
    }
}

/// A promote under way.
struct Watch<'a> {
    rack: &'a Convox,
    app: &'a str,
    release: &'a ReleaseId,
    major: u8,
    timeout: Duration,
    progress: &'a Progress,
    began: Instant,
}

impl Watch<'_> {
    /// Looks at the app until it is in a known state.
    async fn until_known(&self, sent: Sent, trail: &mut Trail) -> Result<Seen, RackError> {
        let deadline = self.began + self.timeout;
        let mut last: Option<(AppStatus, Option<ReleaseId>)> = None;
        let (mut same, mut moved, mut rollback, mut unread) = (0, false, false, false);
        loop {
            tokio::time::sleep(self.rack.poll).await;
            if Instant::now() >= deadline {
                return Err(self.out_of_time(last));
            }
            let look = match self.rack.app(self.app).await {
                Ok(app) => (app.status(), app.release()),
                Err(RackError::Unreachable { message, .. }) => {
                    // It may be updating itself, and the roll goes on without its API.
                    if !std::mem::replace(&mut unread, true) {
                        self.progress.notice(format!("rack `{}` does not answer, waiting on: {message}", self.rack.name));
                    }
                    continue;
                }
                Err(error) => return Err(self.unknown(&error)),
            };
            if last.as_ref() == Some(&look) {
                same += 1;
            } else {
                same = 1;
                trail.note(look.0.word(), look.1.as_ref());
                self.progress.rack_status(look.0.word(), look.1.clone());
            }
            last = Some(look.clone());
            let (status, active) = look;
            let ours = active.as_ref() == Some(self.release);
            let over = match &status {
                AppStatus::Running if ours && !rollback => {
                    // Only version 3 shows our id before the roll has begun.
                    if same >= if moved || self.major == 2 { STEADY } else { SETTLED } {
                        return Ok(Seen::Ended(Promoted::Live));
                    }
                    false
                }
                AppStatus::Running if rollback => same >= STEADY,
                AppStatus::Running if moved => same >= GONE_BACK,
                AppStatus::Running => {
                    same >= match sent {
                        Sent::Accepted => NEVER_BEGAN,
                        Sent::Lost(_) => NOT_TAKEN,
                        Sent::Refused(_) => REFUSED,
                    }
                }
                AppStatus::Rollback => {
                    moved = true;
                    // On version 2 our id is there only when our update was complete: this is somebody else's going back.
                    let not_ours = ours && self.major == 2;
                    if !not_ours && !rollback {
                        rollback = true;
                        // What is failing now will be gone when the rollback is over.
                        self.rack.catch(self.app, trail).await;
                    }
                    false
                }
                AppStatus::Other(word) if matches!(word.as_str(), "failed" | "deleting") => {
                    rollback = true;
                    same >= STEADY
                }
                AppStatus::Updating => {
                    moved = true;
                    false
                }
                AppStatus::Other(_) => false,
            };
            if !over {
                continue;
            }
            if let Some(active) = &active
                && !ours
                && self.is_newer(active).await
            {
                return Ok(Seen::Ended(Promoted::Overtaken { active: active.clone() }));
            }
            return match sent {
                Sent::Lost(error) | Sent::Refused(error) if !rollback => Ok(Seen::NotTaken(error)),
                _ => Ok(Seen::Ended(Promoted::RolledBack { active })),
            };
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

    fn out_of_time(&self, last: Option<(AppStatus, Option<ReleaseId>)>) -> RackError {
        let state = last.map_or("never read".to_owned(), |(status, active)| {
            let active = active.map_or("no active release".to_owned(), |id| format!("active release `{id}`"));
            format!("it is `{}`, {active}", status.word())
        });
        let waiting_for =
            format!("for app `{}` to run release `{}` ({state}; see `convox apps info {}`)", self.app, self.release, self.app);
        self.rack.timed_out(self.timeout, &waiting_for, true)
    }

    fn unknown(&self, error: &RackError) -> RackError {
        RackError::Unknown { rack: self.rack.name.clone(), what: self.what(), message: format!("it was sent, and then: {error}") }
    }
}
