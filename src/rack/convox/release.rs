//! Releases: made from a build and an env, once.
//!
//! The rack makes a release as a copy of its newest one and replaces what is given. Its env is only sent when `REVISION`
//! has to change, as the whole env of the newest release with that one line replaced; there is no lock on the rack's side,
//! so a variable somebody else sets in the same second can be lost. Env values are never shown.

use super::http::{Body, parse};
use super::{Convox, go_on, wire};
use crate::names::{BuildId, ReleaseId};
use crate::rack::{Copying, RackError};
use crate::secret::Secret;
use tokio_util::sync::CancellationToken;

/// How often a list is looked through for what a lost answer may have made.
pub(super) const LOOKS: u32 = 3;

/// A release to be made.
struct NewRelease<'a> {
    build: &'a BuildId,
    description: &'a str,
    /// The whole env; `None` copies the newest release's.
    env: Option<Secret>,
    /// The release the env was read from. Version 3 builds on it, version 2 ignores it.
    parent: Option<ReleaseId>,
}

impl Convox {
    /// The release that carries `build` and, when `revision` is wanted, `REVISION` with that value. `made` is the release
    /// the rack's builder made for the build, if it did; it is taken when nothing has to change.
    pub(super) async fn release_with(
        &self,
        app: &str,
        build: &BuildId,
        made: Option<ReleaseId>,
        revision: Option<&str>,
        description: &str,
        cancel: &CancellationToken,
    ) -> Result<ReleaseId, RackError> {
        // An env line cannot hold a newline.
        let revision = revision.and_then(|value| value.lines().next());
        let newest = match revision {
            None => None,
            Some(value) => {
                if let Some(id) = &made
                    && self.release(app, id).await?.is_some_and(|release| release.revision() == Some(value))
                {
                    return Ok(id.clone());
                }
                self.newest(app).await?
            }
        };
        let mut release = NewRelease { build, description, env: None, parent: newest.as_ref().and_then(wire::Release::id) };
        match (made, revision, newest) {
            (Some(id), None, _) => return Ok(id),
            (_, Some(value), Some(newest)) if newest.revision() != Some(value) => release.env = Some(newest.env_with_revision(value)),
            (_, Some(value), None) => release.env = Some(wire::Release::default().env_with_revision(value)),
            // The env that is copied carries the value already.
            _ => {}
        }
        self.create_release(app, release, cancel).await
    }

    /// Makes a new release that is a copy of an older one's build and env, to be promoted in its place: racks refuse to
    /// promote a release that is older than the active one. Nothing is live until the new one is promoted.
    ///
    /// # Errors
    /// [`RackError::Refused`] when the release is not there or was never built; otherwise as [`crate::rack::Rack::stage`].
    pub(super) async fn copy_of(
        &self,
        app: &str,
        release: &ReleaseId,
        why: &Copying,
        cancel: &CancellationToken,
    ) -> Result<ReleaseId, RackError> {
        let refused = |message: &str| RackError::Refused {
            rack: self.name.clone(),
            what: format!("a copy of release `{release}` of app `{app}`"),
            status: 404,
            message: message.to_owned(),
        };
        let old = self.release(app, release).await?.ok_or_else(|| refused("the rack has no such release"))?;
        let build = old.build().ok_or_else(|| refused("the release has no build"))?;
        let description = why.description(release);
        let copy = NewRelease { build: &build, description: &description, env: Some(old.env()), parent: Some(release.clone()) };
        self.create_release(app, copy, cancel).await
    }

    /// The newest release, promoted or not, with its env.
    async fn newest(&self, app: &str) -> Result<Option<wire::Release>, RackError> {
        // Version 2 leaves the env out of lists.
        match self.releases(app).await?.first().and_then(wire::Release::id) {
            Some(id) => self.release(app, &id).await,
            None => Ok(None),
        }
    }

    async fn create_release(&self, app: &str, release: NewRelease<'_>, cancel: &CancellationToken) -> Result<ReleaseId, RackError> {
        let what = format!("a release of build `{}` for app `{app}`", release.build);
        let before: Vec<ReleaseId> = self.releases(app).await?.iter().filter_map(wire::Release::id).collect();
        let mut form = vec![("build", release.build.as_str()), ("description", release.description)];
        if let Some(env) = &release.env {
            form.push(("env", env.expose()));
            if let Some(parent) = &release.parent
                && self.known().await?.major == 3
            {
                form.push(("parent-release", parent.as_str()));
            }
        }
        let mut tried = 0;
        loop {
            go_on(cancel)?;
            let error = match self.http.once(&["apps", app, "releases"], Body::Form(&form)).await {
                Ok(answer) => match parse::<wire::Release>(&answer).map(|release| release.id()) {
                    Ok(Some(id)) => return Ok(id),
                    Ok(None) => super::CallError::Lost { message: "the answer names no release".to_owned() },
                    Err(error) => error,
                },
                Err(error) => error,
            };
            tried += 1;
            if !error.is_unsure() || tried == 2 {
                return Err(self.fault(&what, error));
            }
            // The answer is lost; the release may be there: of this build, with this description, not there before.
            for _ in 0..LOOKS {
                let made = self.releases(app).await?.into_iter().find(|found| {
                    let fresh = found.id().is_some_and(|id| !before.contains(&id));
                    fresh && found.build().as_ref() == Some(release.build) && found.description == release.description
                });
                if let Some(id) = made.and_then(|made| made.id()) {
                    return Ok(id);
                }
                self.pause(cancel).await;
            }
            // It is not: a second one would be identical, and harmless.
        }
    }
}
