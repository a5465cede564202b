//! The builder: what a rack does with an uploaded source.
//!
//! It unpacks the tar, reads the manifest, checks the env, asks for each service's image and makes the release. A
//! service that would have to be compiled fails as it does on a rack whose upload lacks the Dockerfile: that is what a
//! client forgets when it rewrites a manifest.

use super::manifest::{self, Service};
use super::{Rack, Version};
use crate::names::{Digest, ImageRef};
use crate::registry::Login;
use crate::sandbox::fault::Fault;
use crate::sandbox::pull::{PullError, manifest_url};
use crate::secret::Secret;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use time::OffsetDateTime;

/// The longest manifest a builder reads, in bytes.
const LONGEST_MANIFEST: u64 = 4 << 20;

/// A build to be done.
pub(super) struct Job {
    pub(super) app: String,
    pub(super) id: String,
    /// Where the source is: `object://APP/KEY`.
    pub(super) url: String,
    /// The manifest's path in it.
    pub(super) manifest: String,
}

/// Carries out a build and records how it went. A sandbox that stops leaves the build `running`, as a builder that dies does.
pub(super) async fn run(rack: Arc<Rack>, job: Job) {
    let stop = rack.shared.stop.clone();
    let work = async {
        let built = build(&rack, &job).await;
        rack.finish_build(&job.app, &job.id, built);
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}

/// What a builder hands in.
pub(super) struct Built {
    pub(super) images: BTreeMap<String, Digest>,
}

async fn build(rack: &Arc<Rack>, job: &Job) -> Result<Built, String> {
    // Half the pace before the work and half after it, so that `created` and `running` can both be seen.
    tokio::time::sleep(rack.pace.build / 2).await;
    rack.change_build(&job.app, &job.id, |build| "running".clone_into(&mut build.status)).map_err(|refusal| refusal.message)?;
    let Some(source) = job.url.strip_prefix("object://").and_then(|path| path.split_once('/')) else {
        return Err(format!("only object:// sources are supported (got {})", job.url));
    };
    let path = rack.object_path(source.0, source.1);
    let name = job.manifest.clone();
    let unpacked = tokio::task::spawn_blocking(move || unpack(&path, &name)).await.map_err(|error| error.to_string())?;
    let (text, files) = unpacked.map_err(|error| error.to_string())?;
    let Some(text) = text else {
        let file = &job.manifest;
        return Err(match rack.version {
            Version::V2 => format!("reading manifest {file}: open {file}: no such file or directory"),
            Version::V3 => format!("open /tmp/{:09}/{file}: no such file or directory", fastrand::u32(..1_000_000_000)),
        });
    };
    let read = rack.change(&job.app, |app| {
        let read = manifest::read(&text, app.generation, &manifest::parse_env(app.latest_env()));
        if let Some(build) = app.build_mut(&job.id) {
            build.manifest = text;
        }
        Ok((read, app.generation))
    });
    let (services, generation) = read.map_err(|refusal| refusal.message)?;
    let services = services.map_err(|error| if rack.version == Version::V2 { format!("parse manifest: {error}") } else { error })?;
    if rack.is(Some(&job.app), &Fault::RackBuildFails) {
        return Err("the sandbox was told to fail this build".to_owned());
    }
    while rack.is(Some(&job.app), &Fault::RackBuildHangs) {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let mut images = BTreeMap::new();
    for service in &services {
        let digest = copy(rack, job, service, generation, &files).await?;
        images.insert(service.name.clone(), digest);
    }
    tokio::time::sleep(rack.pace.build / 2).await;
    Ok(Built { images })
}

/// The manifest's text, if it is there, and the paths of all files. Only regular files count: a rack drops links.
fn unpack(source: &Path, manifest: &str) -> std::io::Result<(Option<String>, BTreeSet<String>)> {
    let file = std::fs::File::open(source).map_err(|_| std::io::Error::other("key not found"))?;
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(std::io::BufReader::new(file)));
    let wanted = manifest.trim_start_matches("./");
    let (mut text, mut files) = (None, BTreeSet::new());
    for entry in archive.entries()? {
        let entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = entry.path()?.to_string_lossy().trim_start_matches("./").to_owned();
        if path == wanted {
            let mut content = String::new();
            entry.take(LONGEST_MANIFEST).read_to_string(&mut content)?;
            text = Some(content);
        }
        files.insert(path);
    }
    Ok((text, files))
}

/// Gets a service's image into the app's own repository.
async fn copy(rack: &Arc<Rack>, job: &Job, service: &Service, generation: u8, files: &BTreeSet<String>) -> Result<Digest, String> {
    let say = |line: String| rack.say(&job.app, &job.id, &line);
    let own = format!("{}:{}.{}", rack.own_repository(&job.app), service.name, job.id);
    let Some(image) = &service.image else {
        let file = &service.dockerfile;
        say(format!("Building: {}", service.name));
        return Err(match (files.contains(file), rack.version) {
            (true, _) => format!("the sandbox builds no images: service {} has no image", service.name),
            (false, Version::V2) => {
                format!(
                    "unable to prepare context: unable to evaluate symlinks in Dockerfile path: lstat {file}: no such file or directory"
                )
            }
            (false, Version::V3) => {
                say(format!("error: failed to solve: failed to read dockerfile: open {file}: no such file or directory"));
                "exit status 1".to_owned()
            }
        });
    };
    let reference = ImageRef::parse(image).map_err(|_| format!("invalid reference format: {image}"))?;
    match rack.version {
        Version::V2 => say(format!("Running: docker pull {image}")),
        Version::V3 => say(format!("Building: {own}\n#1 [internal] load metadata for {image}")),
    }
    match rack.puller.digest(&reference, rack.login_for(&reference.repository.host).as_ref()).await {
        Ok(digest) => {
            match rack.version {
                Version::V2 => {
                    say(format!("Digest: {digest}\nStatus: Downloaded newer image for {image}\nRunning: docker tag {image} {own}"));
                    if generation == 2 {
                        say(format!("Injecting: convox-env\nRunning: docker build -t {own} ."));
                    }
                    say(format!("Running: docker push {own}"));
                }
                Version::V3 => {
                    say(format!("#1 DONE 0.1s\n#2 exporting to image\n#2 pushing manifest for {own}@{digest} done\n#2 DONE 0.2s"))
                }
            }
            Ok(digest)
        }
        Err(error) if rack.version == Version::V2 => Err(docker_text(image, &reference, &error)),
        Err(error) => {
            let text = buildkit_text(image, &reference, &error);
            say(format!(
                "#1 ERROR: {text}\n------\n > [internal] load metadata for {image}:\n------\nerror: failed to solve: {image}: {text}"
            ));
            Err("exit status 1".to_owned())
        }
    }
}

/// What `docker pull` says.
fn docker_text(image: &str, reference: &ImageRef, error: &PullError) -> String {
    let url = manifest_url(reference);
    let repository = &reference.repository;
    format!(
        "Error response from daemon: {}",
        match error {
            PullError::NotFound => format!("manifest for {image} not found: manifest unknown: manifest unknown"),
            PullError::NoRepository(message) => format!("repository {repository} not found: name unknown: {message}"),
            PullError::Denied => format!("Head \"{url}\": no basic auth credentials"),
            PullError::Broken(why) => format!("Get \"{url}\": {why}"),
        }
    )
}

/// What BuildKit says.
fn buildkit_text(image: &str, reference: &ImageRef, error: &PullError) -> String {
    let url = manifest_url(reference);
    match error {
        PullError::NotFound | PullError::NoRepository(_) => format!("{image}: not found"),
        PullError::Denied => format!("unexpected status from HEAD request to {url}: 401 Unauthorized"),
        PullError::Broken(why) => format!("failed to do request: Head \"{url}\": {why}"),
    }
}

impl Rack {
    /// The login the rack has for a registry: that of its own account, or what was added.
    pub(super) fn login_for(&self, host: &str) -> Option<Login> {
        if let Some((own, login)) = &self.account_registry
            && own == host
        {
            return Some(login.clone());
        }
        let state = self.lock();
        let stored = state.registries.get(host)?;
        Some(Login { user: stored.username.clone(), password: Secret::new(stored.password.clone()) })
    }

    /// Adds lines to a build's output.
    pub(super) fn say(&self, app: &str, id: &str, lines: &str) {
        let mut state = self.lock();
        if let Some(build) = state.apps.get_mut(app).and_then(|app| app.build_mut(id)) {
            build.output.push_str(lines);
            build.output.push('\n');
        }
    }

    /// Ends a build: its log is stored, and a good one gets its release before it is `complete`.
    fn finish_build(&self, app: &str, id: &str, built: Result<Built, String>) {
        if let Err(error) = &built {
            self.say(app, id, &format!("ERROR: {error}"));
        }
        let key = format!("build/{id}/logs");
        let output = self.read(app, |app| Ok(app.build(id).map(|build| build.output.clone()).unwrap_or_default()));
        let stored = output.and_then(|output| Ok(self.object_write(app, &key, output.as_bytes())?));
        let ended = stored.and_then(|()| {
            self.change(app, |record| {
                let release = built.as_ref().ok().map(|_| self.new_release(record, Some(id), None, None, None)).transpose()?;
                if let Some(build) = record.build_mut(id) {
                    build.logs = format!("object://{app}/{key}");
                    build.ended = Some(OffsetDateTime::now_utc());
                    match (built, release) {
                        (Ok(built), Some(release)) => {
                            build.images = built.images;
                            build.release = release.id;
                            "complete".clone_into(&mut build.status);
                        }
                        _ => "failed".clone_into(&mut build.status),
                    }
                }
                Ok(())
            })
        });
        // A disk that fails kills the builder, and its build stays `running`: the client's deadline is for that.
        drop(ended);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_holds_regular_files_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("source.tgz");
        let gz = flate2::write::GzEncoder::new(std::fs::File::create(&path).unwrap(), flate2::Compression::fast());
        let mut tar = tar::Builder::new(gz);
        for (name, content) in [("./convox.yml", "services: {}\n"), ("web/Dockerfile", "FROM x\n")] {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, content.as_bytes()).unwrap();
        }
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_size(0);
        tar.append_link(&mut link, "Dockerfile", "web/Dockerfile").unwrap();
        tar.into_inner().unwrap().finish().unwrap();

        let (text, files) = unpack(&path, "convox.yml").unwrap();
        assert_eq!(text.as_deref(), Some("services: {}\n"));
        assert_eq!(files.into_iter().collect::<Vec<_>>(), ["convox.yml", "web/Dockerfile"]);
        assert_eq!(unpack(&path, "other.yml").unwrap().0, None);
    }

    #[test]
    fn a_missing_image_is_told_as_docker_and_buildkit_tell_it() {
        let image = "127.0.0.1:5000/web:v1";
        let reference = ImageRef::parse(image).unwrap();
        assert_eq!(
            docker_text(image, &reference, &PullError::NotFound),
            "Error response from daemon: manifest for 127.0.0.1:5000/web:v1 not found: manifest unknown: manifest unknown"
        );
        assert_eq!(buildkit_text(image, &reference, &PullError::NotFound), "127.0.0.1:5000/web:v1: not found");
    }
}
