//! Real racks, version 2 (ECS) and version 3 (Kubernetes), over their HTTP API.
//!
//! `http` makes calls, `failure` tells failures apart, `socket` reads log streams, `wire` has the objects. On top of them: `live`
//! (what runs), `stage` (from a manifest to a release; `build_log`, `deliver` and `release` are its parts) and `promote`
//! (from a release to what is live; `watch` looks what becomes of it, `evidence` gathers what one that failed leaves, `guess` says what that
//! looks like). Facts about racks are from the sources of `convox/rack` 20260421192651 and `convox/convox` 3.24.9.
//!
//! Deliberately absent: any decision about what to deploy, `force=true`, and retries of a change without a look in between.

mod build_log;
mod clock;
mod deliver;
mod evidence;
mod failure;
mod guess;
mod http;
mod live;
mod promote;
mod release;
mod socket;
mod stage;
mod tls;
mod watch;
mod wire;

pub use live::AppSummary;

use super::login::RackLogin;
use super::{Copying, Live, LiveRelease, Promoted, Rack, RackError, RackInfo, RackRead, StageRequest, Staged};
use crate::config::RackConfig;
use crate::event::{EnvChange, Progress};
use crate::names::{BuildId, RackName, ReleaseId};
use crate::secret::Secret;
use failure::CallError;
use http::{Body, Http};
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

/// Where an app's object store has what offbuild keeps there.
const NOTES: &str = "offbuild";

/// A rack.
pub struct Convox {
    name: RackName,
    login: RackLogin,
    http: Http,
    /// The time between two looks at an app or build; every other wait is a multiple of it.
    poll: Duration,
    info: OnceCell<RackInfo>,
}

impl Convox {
    /// Prepares a client for a rack; nothing is sent yet. `poll` is the time between two looks at an app or build
    /// ([`super::POLL`]); waits before retries scale with it.
    ///
    /// # Errors
    /// [`RackError::Unsupported`] when the `ca_file` cannot be read or the login cannot be sent.
    pub fn new(config: &RackConfig, login: RackLogin, poll: Duration) -> Result<Self, RackError> {
        let http = Http::new(&login, config.ca_file.as_deref(), poll / 5, config.answer)
            .map_err(|message| RackError::Unsupported { rack: config.name.clone(), message })?;
        Ok(Self { name: config.name.clone(), login, http, poll, info: OnceCell::new() })
    }

    /// The rack as one URL with its login in it (`RACK_URL`): what the convox CLI of a hook needs when the password is a
    /// token or the rack speaks plain HTTP, neither of which `CONVOX_HOST` can say.
    #[must_use]
    pub fn rack_url(&self) -> Secret {
        let mut url = self.login.url.clone();
        // Both setters only fail for URLs without a host; a login's URL has one.
        let _ = url.set_username(&self.login.user);
        let _ = url.set_password(Some(self.login.password.expose()));
        Secret::new(url.as_str().trim_end_matches('/'))
    }

    /// What a failed read means.
    fn unread(&self, what: &str, error: CallError) -> RackError {
        match error {
            CallError::Lost { message } => {
                RackError::Unreachable { rack: self.name.clone(), message: format!("{message} (asked for {what})"), hint: None }
            }
            error => self.fault(what, error),
        }
    }

    /// What a failed change means.
    fn fault(&self, what: &str, error: CallError) -> RackError {
        let rack = self.name.clone();
        match error {
            CallError::NotSent { message, certificate } => {
                let host = self.login.host();
                let port = if self.login.url.port().is_some() { "" } else { ":443" };
                let hint = if certificate {
                    format!(
                        "if the rack has a certificate of its own, save it with `openssl s_client -connect {host}{port} </dev/null | openssl x509 > rack.pem`, \
                         check that it is the rack's, and name the file in `racks.{rack}.ca_file`"
                    )
                } else {
                    format!("check `{host}` ({}) and whether this machine may connect to it", self.login.source)
                };
                RackError::Unreachable { rack, message, hint: Some(hint) }
            }
            CallError::Lost { message } => RackError::Unknown { rack, what: what.to_owned(), message },
            CallError::Answered { status: 401, message } => {
                let message = if message.is_empty() { "no reason given".to_owned() } else { message };
                let cure = if message.contains("unauthorized to access") {
                    "the token may only read; a deploy needs one that may write".to_owned()
                } else {
                    format!("user `{}`, host `{}`, from {}", self.login.user, self.login.host(), self.login.source)
                };
                RackError::Login { rack, message: format!("{message} ({cure})") }
            }
            CallError::Answered { status: 404, message } if message.starts_with("app not found: ") => {
                RackError::NoApp { rack, app: message["app not found: ".len()..].to_owned() }
            }
            CallError::Answered { status: 404, message } if message.is_empty() => {
                RackError::Unsupported { rack, message: format!("it does not know the call for {what}; it may be too old, or no rack") }
            }
            CallError::Answered { status: status @ 502..=504, message } => {
                let message = if message.is_empty() { "the rack does not answer its balancer".to_owned() } else { message };
                let hint = "the rack may be updating itself; try again when `convox rack` says `running`".to_owned();
                RackError::Unreachable { rack, message: format!("status {status}: {message} (asked for {what})"), hint: Some(hint) }
            }
            error @ CallError::Answered { .. } if error.is_throttled() => {
                let hint = "the rack, or AWS behind it, has too much to do just now: try again in some minutes".to_owned();
                let message = if error.message().is_empty() { "too many requests" } else { error.message() };
                RackError::Unreachable { rack, message: format!("{message} (asked for {what})"), hint: Some(hint) }
            }
            CallError::Answered { status, message } => {
                let message = if message.is_empty() { format!("status {status}") } else { message };
                RackError::Refused { rack, what: what.to_owned(), status, message }
            }
        }
    }

    /// Waits until the next look. `false` when `cancel` fired meanwhile.
    async fn pause(&self, cancel: &CancellationToken) -> bool {
        tokio::select! {
            biased;
            () = cancel.cancelled() => false,
            () = tokio::time::sleep(self.poll) => true,
        }
    }

    fn timed_out(&self, limit: Duration, waiting_for: &str, outcome_unknown: bool) -> RackError {
        RackError::Timeout { rack: self.name.clone(), limit, waiting_for: format!("waiting {waiting_for}"), outcome_unknown }
    }
}

#[async_trait::async_trait]
impl RackRead for Convox {
    fn name(&self) -> &RackName {
        &self.name
    }

    async fn info(&self) -> Result<RackInfo, RackError> {
        self.known().await.cloned()
    }

    async fn live(&self, app: &str) -> Result<Live, RackError> {
        self.read_live(app).await
    }

    async fn release(&self, app: &str, release: &ReleaseId) -> Result<Option<LiveRelease>, RackError> {
        self.read_release(app, release).await
    }

    async fn releases(&self, app: &str) -> Result<Vec<LiveRelease>, RackError> {
        self.read_releases(app).await
    }

    async fn env_change(&self, app: &str, from: &ReleaseId, to: &ReleaseId) -> Result<EnvChange, RackError> {
        let (from, to) = tokio::try_join!(self.release(app, from), self.release(app, to))?;
        Ok(from.unwrap_or_default().env_change(&to.unwrap_or_default()))
    }

    async fn note(&self, app: &str, name: &str) -> Result<Option<Vec<u8>>, RackError> {
        self.read_note(app, name).await
    }

    fn clock_ahead(&self) -> Option<time::Duration> {
        self.http.ahead()
    }
}

#[async_trait::async_trait]
impl Rack for Convox {
    async fn stage(
        &self,
        request: &StageRequest,
        mover: &dyn super::ImageMover,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<Staged, RackError> {
        self.stage_release(request, mover, progress, cancel).await
    }

    async fn copy(&self, app: &str, release: &ReleaseId, why: &Copying, cancel: &CancellationToken) -> Result<ReleaseId, RackError> {
        self.copy_of(app, release, why, cancel).await
    }

    async fn renew(
        &self,
        app: &str,
        build: &BuildId,
        revision: Option<&str>,
        description: &str,
        cancel: &CancellationToken,
    ) -> Result<ReleaseId, RackError> {
        self.release_with(app, build, None, revision, description, cancel).await
    }

    async fn put_note(&self, app: &str, name: &str, text: &[u8]) -> Result<(), RackError> {
        let path = ["apps", app, "objects", NOTES, name];
        let answer = self.http.repeat(reqwest::Method::POST, &path, Body::Raw(text)).await;
        answer.map(drop).map_err(|error| self.fault(&format!("the object `{NOTES}/{name}` of app `{app}`"), error))
    }

    async fn settled(&self, app: &str, timeout: Duration, progress: &Progress, cancel: &CancellationToken) -> Result<Live, RackError> {
        self.until_idle(app, tokio::time::Instant::now() + timeout, progress, cancel).await?;
        self.read_live(app).await
    }

    async fn promote(
        &self,
        app: &str,
        release: &ReleaseId,
        over: Option<&ReleaseId>,
        timeout: Duration,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<Promoted, RackError> {
        self.promote_release(app, release, over, timeout, progress, cancel).await
    }

    fn hook_login(&self) -> (String, Secret) {
        (self.login.host(), self.login.password.clone())
    }
}

/// Ends with [`RackError::Cancelled`] when the run was asked to stop; stands before every change.
fn go_on(cancel: &CancellationToken) -> Result<(), RackError> {
    if cancel.is_cancelled() { Err(RackError::Cancelled) } else { Ok(()) }
}
