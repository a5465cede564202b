//! Promoting: from a release to what is live, or to knowing why not.
//!
//! 1. Wait until nothing else is under way for the app. When another release is active than the one the caller has judged, it is
//!    not promoted over.
//! 2. Send the promote once. An answer that leaves its fate open is followed by looks at the app; only when those show that it
//!    did not take is it sent again.
//! 3. Look until the app is in a known state again ([`super::watch`]).
//!
//! Once the promote is sent, `cancel` is not heeded: what is under way is awaited.

use super::evidence::{Ending, Trail};
use super::http::Body;
use super::watch::{Seen, Sent, Watch};
use super::{CallError, Convox, RackRead, go_on, wire};
use crate::event::Progress;
use crate::names::ReleaseId;
use crate::rack::{AppStatus, Promoted, RackError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often a promote is sent at most.
const MOST_SENT: u32 = 3;
/// How much of the limit is left for version 3 to go back within, at most.
const MOST_FOR_ROLLBACK: Duration = Duration::from_secs(300);

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
            if is_broken(&status) {
                return Err(self.broken(&format!("a promote of app `{app}`"), app, &status));
            }
            let word = status.word().to_owned();
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

    /// The error of who finds an app in a state that it does not leave by itself.
    pub(super) fn broken(&self, what: &str, app: &str, status: &AppStatus) -> RackError {
        let (word, rack) = (status.word(), self.name.clone());
        let message = format!("the app is `{word}`; bring it to `running` first (`convox apps info -a {app} --rack {rack}`)");
        RackError::Refused { rack, what: what.to_owned(), status: 403, message }
    }
}

/// True for the states that no app leaves by itself.
pub(super) fn is_broken(status: &AppStatus) -> bool {
    matches!(status.word(), "failed" | "deleting")
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
