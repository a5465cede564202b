//! Images that come without a builder: an archive through the API, or from registry to registry (version 3).

use super::model::Build;
use super::{Ask, Rack, Refusal, Reply, manifest};
use crate::names::ImageRef;
use crate::registry::Login;
use crate::sandbox::pull::PullError;
use crate::sandbox::wire::{empty, typed};
use crate::secret::Secret;
use http_body_util::BodyExt as _;
use hyper::StatusCode;
use serde_json::Value;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;
use time::OffsetDateTime;
use tokio::io::AsyncWriteExt as _;

/// As many imports as one rack copies at a time.
const MOST_IMPORTS: usize = 4;

/// The `build.json` of an archive.
fn build_json(archive: &PathBuf) -> std::io::Result<Value> {
    let file = std::io::BufReader::new(std::fs::File::open(archive)?);
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
    for entry in archive.entries()? {
        let mut entry = entry?;
        if entry.path()?.to_string_lossy().trim_start_matches("./") == "build.json" {
            let mut text = String::new();
            entry.read_to_string(&mut text)?;
            return Ok(serde_json::from_str(&text)?);
        }
    }
    Err(std::io::Error::other("no build.json in archive"))
}

impl Rack {
    /// An archive is kept only as long as it takes to read its `build.json`. Its images are not taken over: a release made
    /// so is like one whose archive held none, and its promote rolls back until they are pushed.
    pub(super) async fn build_import(&self, ask: &mut Ask) -> Result<Reply, Refusal> {
        let name = ask.arg(0).to_owned();
        self.read(&name, |_| Ok(()))?;
        let path = self.object_path(&name, &format!("import-{:016x}", fastrand::u64(..)));
        if let Some(directory) = path.parent() {
            tokio::fs::create_dir_all(directory).await?;
        }
        let mut file = tokio::fs::File::create(&path).await?;
        if let Some(mut body) = ask.body.take() {
            while let Some(frame) = body.frame().await {
                if let Ok(data) = frame.map_err(|error| Refusal::server(error.to_string()))?.into_data() {
                    file.write_all(&data).await?;
                }
            }
        }
        file.flush().await?;
        let read = path.clone();
        let source = tokio::task::spawn_blocking(move || build_json(&read)).await.map_err(|error| Refusal::server(error.to_string()))?;
        let _ = tokio::fs::remove_file(&path).await;
        let source = source.map_err(|error| Refusal::server(error.to_string()))?;
        let text = |key: &str| source.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        // The commit is not taken over: that is how the real one has it.
        let mut build = Build::new("complete", text("description"), String::new());
        build.ended = Some(OffsetDateTime::now_utc());
        build.logs = text("logs");
        build.manifest = text("manifest");
        let build = self.change(&name, |app| {
            let id = build.id.clone();
            app.builds.push(build.clone());
            let release = self.new_release(app, Some(&id), None, None, None)?;
            build.release = release.id;
            if let Some(kept) = app.build_mut(&id) {
                *kept = build.clone();
            }
            Ok(build)
        })?;
        Ok(Reply::Json(self.build_shown(&name, &build)))
    }

    pub(super) fn build_export(&self, ask: &Ask) -> Result<Reply, Refusal> {
        let (name, id) = (ask.arg(0), ask.arg(1));
        let build = self.read(name, |app| app.build(id).cloned().ok_or_else(|| self.no_build(id)))?;
        let json = serde_json::to_vec(&self.build_shown(name, &build)).map_err(std::io::Error::from)?;
        let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default()));
        let mut header = tar::Header::new_gnu();
        header.set_size(json.len() as u64);
        header.set_mode(0o600);
        tar.append_data(&mut header, "build.json", json.as_slice())?;
        let archive = tar.into_inner()?.finish()?;
        Ok(Reply::Other(typed(StatusCode::OK, "application/octet-stream", archive)))
    }

    /// Starts copying each service's image; the build tells how it went.
    pub(super) fn image_import(self: &Arc<Self>, ask: &Ask) -> Result<Reply, Refusal> {
        let (name, id) = (ask.arg(0).to_owned(), ask.arg(1).to_owned());
        let unusable = |message: String| Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, message);
        let image = ask.params.text("image");
        if image.is_empty() {
            return Err(unusable("image param required".to_owned()));
        }
        let default = ImageRef::parse(&image).map_err(|error| unusable(format!("invalid image ref: {error}")))?;
        let login = ask
            .params
            .form("src-creds-user")
            .filter(|user| !user.is_empty())
            .map(|user| Login { user: user.to_owned(), password: Secret::new(ask.params.text("src-creds-pass")) });
        let under_way = self.lock().apps.values().flat_map(|app| &app.builds).filter(|build| build.importing).count();
        let conflict = |message: String| Refusal::new(StatusCode::CONFLICT, message);
        let services = self.change(&name, |app| {
            let generation = app.generation;
            let build = app.build_mut(&id).ok_or_else(|| self.no_build(&id))?;
            if build.manifest.is_empty() {
                return Err(unusable(format!("build {id} has no manifest; update the build with a manifest before importing")));
            }
            let services = manifest::read_without_env(&build.manifest, generation);
            let services = services.map_err(|error| unusable(format!("manifest parse failed: {error}")))?;
            if services.is_empty() {
                return Err(unusable("manifest has no services to relay".to_owned()));
            }
            if build.importing {
                return Err(conflict(format!("build {id} is already importing; wait for it to finish")));
            }
            if under_way >= MOST_IMPORTS {
                return Err(conflict(format!("rack at concurrent-import cap ({MOST_IMPORTS} in flight); wait and retry")));
            }
            build.importing = true;
            "running".clone_into(&mut build.status);
            Ok(services)
        })?;
        let rack = Arc::clone(self);
        self.shared.tasks.spawn(async move {
            let stop = rack.shared.stop.clone();
            tokio::select! {
                () = stop.cancelled() => {}
                () = rack.relay(&name, &id, services, &default, login) => {}
            }
        });
        Ok(Reply::Other(empty(StatusCode::ACCEPTED)))
    }

    async fn relay(&self, name: &str, id: &str, services: Vec<manifest::Service>, default: &ImageRef, login: Option<Login>) {
        tokio::time::sleep(self.pace.build).await;
        let mut images = std::collections::BTreeMap::new();
        let mut failed = None;
        if self.is(Some(name), &crate::sandbox::fault::Fault::RackBuildFails) {
            failed = Some("the sandbox was told to fail this build".to_owned());
        }
        for service in services {
            if failed.is_some() {
                break;
            }
            let source = match service.image.as_deref().map(ImageRef::parse) {
                Some(Ok(image)) => image,
                Some(Err(error)) => {
                    failed = Some(format!("import {}: {error}", service.name));
                    break;
                }
                None => default.clone(),
            };
            // The credentials given are for the host that `image=` names.
            let given = login.clone().filter(|_| source.repository.host == default.repository.host);
            let login = given.or_else(|| self.login_for(&source.repository.host));
            match self.puller.digest(&source, login.as_ref()).await {
                Ok(digest) => {
                    images.insert(service.name, digest);
                }
                Err(error) => failed = Some(format!("import {}: {}", service.name, skopeo_text(&source, &error))),
            }
        }
        // A disk that fails leaves the build `running`, as an API process that dies does.
        let _ = self.change_build(name, id, |build| {
            build.importing = false;
            build.ended = Some(OffsetDateTime::now_utc());
            match failed {
                Some(reason) => {
                    "failed".clone_into(&mut build.status);
                    build.reason = reason;
                }
                None => {
                    "complete".clone_into(&mut build.status);
                    build.images = images;
                }
            }
        });
    }
}

/// What skopeo says.
fn skopeo_text(image: &ImageRef, error: &PullError) -> String {
    let reference = image.digest.as_ref().map(crate::names::Digest::as_str).or(image.tag.as_deref()).unwrap_or("latest");
    let why = match error {
        PullError::NotFound => "manifest unknown".to_owned(),
        PullError::NoRepository(message) => format!("name unknown: {message}"),
        PullError::Denied => "authentication required".to_owned(),
        PullError::Broken(why) => why.clone(),
    };
    format!("initializing source docker://{image}: reading manifest {reference} in {}: {why}", image.repository)
}
