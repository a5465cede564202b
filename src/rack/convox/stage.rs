//! Staging: from a rewritten manifest to a release that is not live.
//!
//! `build` (here): upload the manifest, have the rack build it (it only pulls), follow its log, decide by the build itself.
//! `import` and `external` are in `deliver`. Either way the release's id comes from the build's own answer or from the
//! release's, never from a list's first entry, and one release carries both the build and `REVISION`.

use super::http::{Body, parse};
use super::release::LOOKS;
use super::{CallError, Convox, go_on, live, wire};
use crate::event::{Output, Progress};
use crate::names::BuildId;
use crate::rack::{Deliver, ImageMover, RackError, RackInfo, StageRequest, Staged};
use reqwest::Method;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The first version 3 release that copies images from registry to registry.
const IMPORTS_SINCE: (u32, u32, u32) = (3, 24, 6);

impl Convox {
    pub(super) async fn stage_release(
        &self,
        request: &StageRequest,
        mover: &dyn ImageMover,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<Staged, RackError> {
        let info = self.known().await?;
        let deliver = way(info, request).map_err(|message| RackError::Unsupported { rack: self.name.clone(), message })?;
        if deliver != request.deliver {
            let word = match deliver {
                Deliver::Import => "copies the images from their registry",
                Deliver::External => "is pushed the images",
                Deliver::Build | Deliver::Auto => "builds from the manifest and pulls the images",
            };
            progress.log(Output::Out, format!("rack `{}` (version {}) {word}", self.name, info.version));
        }
        let deadline = Instant::now() + request.timeout;
        // A version 3 rack stores an upload for an app it does not have without a word.
        self.app(&request.app).await?;
        let (build, made) = match deliver {
            Deliver::Import => (self.import(request, deadline, progress, cancel).await?, None),
            Deliver::External => (self.push_in(request, mover, deadline, progress, cancel).await?, None),
            Deliver::Build | Deliver::Auto => {
                let id = self.start_build(request, cancel).await?;
                let build = self.follow_build(&request.app, &id, deadline, request.timeout, progress, cancel).await?;
                let made = build.release();
                if made.is_none() {
                    let what = format!("build `{id}` of app `{}`", request.app);
                    let message = "it is complete but names no release; look with `convox builds`".to_owned();
                    return Err(RackError::Unknown { rack: self.name.clone(), what, message });
                }
                (id, made)
            }
        };
        let built_by_rack = made.is_some();
        let revision = request.revision.as_deref();
        let release = match self.release_with(&request.app, &build, made, revision, &request.description, cancel).await {
            Ok(release) => release,
            Err(error) => {
                if deliver == Deliver::External {
                    self.fail_build(&request.app, &build).await;
                }
                return Err(error);
            }
        };
        if !built_by_rack {
            let form =
                [("release", release.as_str()), ("status", "complete"), ("ended", &wire::form_time(time::OffsetDateTime::now_utc()))];
            // An imported build is complete already, and says when it was.
            let form = if deliver == Deliver::Import { &form[..1] } else { &form[..] };
            self.update_build(&request.app, &build, form).await?;
        }
        Ok(Staged { build, release, deliver })
    }

    /// Uploads the manifest and has the rack build it.
    async fn start_build(&self, request: &StageRequest, cancel: &CancellationToken) -> Result<BuildId, RackError> {
        let app = request.app.as_str();
        let archive = wire::manifest_archive(&request.manifest_name, &request.manifest).map_err(|error| RackError::Unsupported {
            rack: self.name.clone(),
            message: format!("the manifest of app `{app}` cannot be packed as `{}`: {error}", request.manifest_name),
        })?;
        go_on(cancel)?;
        let key = format!("{}.tgz", &hex::encode(fastrand::u128(..).to_be_bytes())[..30]);
        let what = format!("the upload of the manifest of app `{app}`");
        let answer = self.http.repeat(Method::POST, &["apps", app, "objects", "tmp", &key], Body::Raw(&archive)).await;
        let object: wire::Object = answer.and_then(|answer| parse(&answer)).map_err(|error| self.unread(&what, error))?;
        let form = [
            ("url", object.url.as_str()),
            ("description", &request.description),
            ("git-sha", request.commit.as_str()),
            ("manifest", &request.manifest_name),
        ];
        let build = self.create_build(request, &form, cancel).await?;
        build.id().ok_or_else(|| RackError::Unknown {
            rack: self.name.clone(),
            what: format!("the build of app `{app}`"),
            message: "the answer names no build".to_owned(),
        })
    }

    /// Creates a build. After a lost answer the rack's list is looked through for it; only when it is not there the call is
    /// sent again, once.
    pub(super) async fn create_build(
        &self,
        request: &StageRequest,
        form: &[(&str, &str)],
        cancel: &CancellationToken,
    ) -> Result<wire::Build, RackError> {
        let app = request.app.as_str();
        let what = format!("a build of app `{app}`");
        let mut tried = 0;
        loop {
            go_on(cancel)?;
            let answer = self.http.once(&["apps", app, "builds"], Body::Form(form)).await;
            let error = match answer.and_then(|answer| parse(&answer)) {
                Ok(build) => return Ok(build),
                Err(error) => error,
            };
            tried += 1;
            if !error.is_unsure() || tried == 2 {
                return Err(self.fault(&what, error));
            }
            for _ in 0..LOOKS {
                if let Some(build) = self.find_build(request).await? {
                    return Ok(build);
                }
                self.pause(cancel).await;
            }
        }
    }

    /// The build that carries the request's token and commit, when the rack has it. A failed one is of an earlier try.
    async fn find_build(&self, request: &StageRequest) -> Result<Option<wire::Build>, RackError> {
        let answer: Result<Vec<wire::Build>, CallError> = self.http.get(&["apps", &request.app, "builds"], &[("limit", "20")]).await;
        let builds = answer.map_err(|error| self.unread(&format!("the builds of app `{}`", request.app), error))?;
        let ours = |build: &wire::Build| {
            build.description.contains(&request.token) && build.commit().as_ref() == Some(&request.commit) && build.status != "failed"
        };
        Ok(builds.into_iter().find(ours))
    }

    pub(super) async fn update_build(&self, app: &str, build: &BuildId, form: &[(&str, &str)]) -> Result<(), RackError> {
        let answer = self.http.repeat(Method::PUT, &["apps", app, "builds", build.as_str()], Body::Form(form)).await;
        answer.map(drop).map_err(|error| self.unread(&format!("an update of build `{build}` of app `{app}`"), error))
    }

    /// Marks a build failed that nothing will complete, so that nobody waits for it. What goes wrong in that is not the news.
    pub(super) async fn fail_build(&self, app: &str, build: &BuildId) {
        let ended = wire::form_time(time::OffsetDateTime::now_utc());
        let _ = self.update_build(app, build, &[("status", "failed"), ("ended", &ended)]).await;
    }

    /// The rack does not answer any more, and the build has had its time.
    pub(super) fn build_late(&self, app: &str, build: &BuildId, limit: std::time::Duration, why: &str) -> RackError {
        self.timed_out(limit, &format!("for build `{build}` of app `{app}` to end (the rack does not answer: {why})"), true)
    }

    /// Waits for the next look at a build, no longer than to its deadline. The error says why not.
    pub(super) async fn until_next_look(
        &self,
        app: &str,
        build: &BuildId,
        deadline: Instant,
        limit: std::time::Duration,
        cancel: &CancellationToken,
    ) -> Result<(), RackError> {
        if Instant::now() + self.poll > deadline {
            return Err(self.timed_out(limit, &format!("for build `{build}` of app `{app}` to end"), true));
        }
        if self.pause(cancel).await { Ok(()) } else { Err(RackError::Cancelled) }
    }
}

/// The way to take, never [`Deliver::Auto`]; the error says why the configured one cannot be taken.
fn way(info: &RackInfo, request: &StageRequest) -> Result<Deliver, String> {
    let imports = info.major == 3 && live::v3_version(&info.version).is_some_and(|version| version >= IMPORTS_SINCE);
    let refuse = |word: &str, since: &str| {
        Err(format!("`deliver: {word}` needs version {since}, and it is version {}; use `deliver: build` or `auto`", info.version))
    };
    match request.deliver {
        // Nothing was built here: the manifest's images are the rack's to pull.
        _ if request.images.is_empty() => Ok(Deliver::Build),
        Deliver::Build => Ok(Deliver::Build),
        Deliver::Auto => Ok(if imports { Deliver::Import } else { Deliver::Build }),
        Deliver::Import if imports || (info.major == 3 && info.version == "dev") => Ok(Deliver::Import),
        Deliver::Import => refuse("import", "3.24.6"),
        Deliver::External if info.major == 3 => Ok(Deliver::External),
        Deliver::External => refuse("external", "3"),
    }
}
