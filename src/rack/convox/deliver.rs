//! The two ways to give a version 3 rack an image without a build there.
//!
//! `import`: a build record, the manifest, and the rack copies each image from its registry with the login it is handed.
//! `external`: a build record, the manifest, and each image is pushed into the rack's own registry as `SERVICE.BUILD`.
//! A record that cannot be completed is marked failed, so that nobody waits for it. The answer that says where to push
//! holds the rack's password, and is never shown.

use super::http::Body;
use super::{CallError, Convox, go_on, wire};
use crate::event::Progress;
use crate::names::{BuildId, Repository, ServiceName};
use crate::rack::{ImageMover, RackError, StageRequest};
use crate::registry::Login;
use crate::secret::{Redactor, Secret};
use crate::yaml::Document;
use percent_encoding::percent_decode_str;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use url::Url;

impl Convox {
    /// Has the rack copy the images from their registry.
    pub(super) async fn import(
        &self,
        request: &StageRequest,
        deadline: Instant,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<BuildId, RackError> {
        let (id, _) = self.create_record(request, cancel).await?;
        match self.import_into(&id, request, deadline, progress, cancel).await {
            Ok(()) => Ok(id),
            Err(error) => {
                self.fail_build(&request.app, &id).await;
                Err(error)
            }
        }
    }

    async fn import_into(
        &self,
        id: &BuildId,
        request: &StageRequest,
        deadline: Instant,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<(), RackError> {
        let app = request.app.as_str();
        go_on(cancel)?;
        self.update_build(app, id, &[("manifest", &request.manifest)]).await?;
        // Each service's own `image:` is copied; this one names the registry the login is for.
        let image = request.images.first().map(|image| format!("{}@{}", image.repository, image.digest)).unwrap_or_default();
        let mut form = vec![("image", image.as_str())];
        if let Some(login) = &request.login {
            form.push(("src-creds-user", &login.user));
            form.push(("src-creds-pass", login.password.expose()));
        }
        let what = format!("the import of the images of app `{app}`");
        let mut tried = 0;
        loop {
            go_on(cancel)?;
            let error = match self.http.once(&["apps", app, "builds", id.as_str(), "image"], Body::Form(&form)).await {
                Ok(_) => break,
                Err(error) => error,
            };
            match &error {
                CallError::Answered { status: 409, message } if message.contains("already importing") => break,
                // The rack copies a few builds at a time.
                CallError::Answered { status: 409, message } if message.contains("concurrent-import cap") => {
                    progress.log(crate::event::Output::Out, format!("the rack is busy: {message}"));
                }
                error if error.is_unsure() => {
                    let status = self.build(app, id).await?.map(|build| build.status).unwrap_or_default();
                    if status != "created" {
                        break;
                    }
                    tried += 1;
                    if tried == super::release::LOOKS {
                        return Err(self.fault(&what, error.clone()));
                    }
                }
                _ => return Err(self.fault(&what, error)),
            }
            self.until_next_look(app, id, deadline, request.timeout, cancel).await?;
        }
        let mut missing = 0;
        loop {
            let build = match self.build(app, id).await {
                // The rack may be updating itself; the deadline ends this.
                Err(RackError::Unreachable { message, .. }) => {
                    if Instant::now() + self.poll > deadline {
                        return Err(self.build_late(app, id, request.timeout, &message));
                    }
                    wire::Build::default()
                }
                Ok(None) => {
                    // A single answer may come from a replica that lags behind.
                    missing += 1;
                    if missing == super::release::LOOKS {
                        let message = format!("the rack has its build `{id}` no more");
                        return Err(RackError::Unknown { rack: self.name.clone(), what, message });
                    }
                    wire::Build::default()
                }
                answer => {
                    missing = 0;
                    answer?.unwrap_or_default()
                }
            };
            match build.status.as_str() {
                "complete" => return Ok(()),
                "failed" => {
                    let message = if build.reason.is_empty() { "the rack gives no reason".to_owned() } else { build.reason };
                    return Err(RackError::Build { rack: self.name.clone(), message });
                }
                _ => self.until_next_look(app, id, deadline, request.timeout, cancel).await?,
            }
        }
    }

    /// Pushes the images into the rack's own registry.
    pub(super) async fn push_in(
        &self,
        request: &StageRequest,
        mover: &dyn ImageMover,
        deadline: Instant,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<BuildId, RackError> {
        if let Some(service) = unpushed(request) {
            let message =
                "its image is not one this run built, and the rack would pull nothing; use `deliver: import` or `build`".to_owned();
            return Err(RackError::Push { rack: self.name.clone(), service, message });
        }
        let (mut id, mut repository) = self.create_record(request, cancel).await?;
        if repository.is_none() {
            // The record was found in the list after a lost answer, and only the answer says where to push.
            self.fail_build(&request.app, &id).await;
            (id, repository) = self.create_record(request, cancel).await?;
        }
        match self.push_into(&id, repository, request, mover, deadline, progress, cancel).await {
            Ok(()) => Ok(id),
            Err(error) => {
                self.fail_build(&request.app, &id).await;
                Err(error)
            }
        }
    }

    async fn push_into(
        &self,
        id: &BuildId,
        repository: Option<Secret>,
        request: &StageRequest,
        mover: &dyn ImageMover,
        deadline: Instant,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<(), RackError> {
        let app = request.app.as_str();
        let (repository, login) = repository.as_ref().and_then(rack_registry).ok_or_else(|| RackError::Unsupported {
            rack: self.name.clone(),
            message: format!("it does not say where the images of app `{app}` can be pushed; use `deliver: build`"),
        })?;
        go_on(cancel)?;
        self.update_build(app, id, &[("manifest", &request.manifest)]).await?;
        for image in &request.images {
            go_on(cancel)?;
            let tag = format!("{}.{id}", image.service);
            progress.log(crate::event::Output::Out, format!("pushing {}@{} as {repository}:{tag}", image.repository, image.digest));
            let pushed = tokio::select! {
                biased;
                () = cancel.cancelled() => return Err(RackError::Cancelled),
                () = tokio::time::sleep_until(deadline) => {
                    return Err(self.timed_out(request.timeout, &format!("for the image of service `{}` to be pushed", image.service), false));
                }
                pushed = mover.push_to(image, &repository, &tag, &login) => pushed,
            };
            pushed.map_err(|message| RackError::Push { rack: self.name.clone(), service: image.service.clone(), message })?;
        }
        Ok(())
    }

    /// Creates a build without anything running for it, and tells where its images can be pushed.
    async fn create_record(&self, request: &StageRequest, cancel: &CancellationToken) -> Result<(BuildId, Option<Secret>), RackError> {
        let form = [("url", ""), ("external", "true"), ("description", request.description.as_str()), ("git-sha", request.commit.as_str())];
        let build = self.create_build(request, &form, cancel).await?;
        match build.id() {
            Some(id) => Ok((id, build.repository)),
            None => Err(RackError::Unknown {
                rack: self.name.clone(),
                what: format!("a build of app `{}`", request.app),
                message: "the answer names no build".to_owned(),
            }),
        }
    }
}

/// Where to push and with which login, out of `https://USER:PASSWORD@HOST/PATH`.
fn rack_registry(repository: &Secret) -> Option<(Repository, Login)> {
    let url = Url::parse(repository.expose()).ok()?;
    let host = url.port().map_or_else(|| url.host_str().map(str::to_owned), |port| Some(format!("{}:{port}", url.host_str()?)))?;
    let decode = |text: &str| percent_decode_str(text).decode_utf8().ok().map(|text| text.into_owned());
    let login = Login { user: decode(url.username())?, password: Secret::new(decode(url.password()?)?) };
    Redactor::of_process().register(&login.password);
    let path = url.path().trim_matches('/');
    Repository::parse(&format!("{host}/{path}")).ok().filter(|parsed| parsed.host == host).map(|parsed| (parsed, login))
}

/// A service of the manifest whose image this run has nothing to push for.
fn unpushed(request: &StageRequest) -> Option<ServiceName> {
    let document = Document::parse(&request.manifest_name, &request.manifest).ok()?;
    let services = document.at(&["services"])?.merged();
    let names = services.into_iter().filter_map(|entry| ServiceName::new(entry.key).ok());
    names.into_iter().find(|name| !request.images.iter().any(|image| image.service == *name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_racks_registry_is_read_out_of_its_answer() {
        let (repository, login) = rack_registry(&Secret::new("https://convox:p%2Fw@api.rack.example:5000/rack/web")).unwrap();
        assert_eq!(repository.to_string(), "api.rack.example:5000/rack/web");
        assert_eq!((login.user.as_str(), login.password.expose()), ("convox", "p/w"));
        assert!(rack_registry(&Secret::new("https://api.rack.example/rack/web")).is_none());
        assert!(rack_registry(&Secret::new("nonsense")).is_none());
    }
}
