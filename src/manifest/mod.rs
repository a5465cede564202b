//! Manifests: `convox.yml` (generation 2) and `docker-compose.yml` (generation 1, and the builds and image repositories of
//! generation 2).
//!
//! [`read`] lists the services and their builds; every key of a `build:` is honoured or refused by name, all problems in one
//! pass. [`Manifest::rewrite`] replaces `build:` by `image:` in a copy of the text and leaves every other byte as the user wrote
//! it. [`image_tags`] says where a service's image goes. Nothing here reads a disk: files come through [`Reading::read`].

mod compose;
mod convox;
mod interpolate;
mod rewrite;
mod source;
mod tags;

pub use tags::{ImagePlace, image_fingerprint, image_tags};

use crate::build::ImageBuild;
use crate::config::BuildConfig;
use crate::names::{AppName, ImageRef, RepoPath, ServiceName};
use crate::yaml::{Document, Place, Problem};
use source::{Dialect, Source};
use std::collections::BTreeMap;
use std::path::Path;

/// An app's manifest, read.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// `1` or `2`.
    pub generation: u8,
    /// The file, relative to the repository.
    pub path: RepoPath,
    /// Its text and tree: what [`Manifest::rewrite`] edits a copy of.
    pub document: Document,
    /// Its services, in the order of the file.
    pub services: Vec<Service>,
    /// Every file that was read, the manifest first: inputs of the app, wherever they lie.
    pub files: Vec<RepoPath>,
    /// What is no error but should be seen: a variable that is not set, a build that nothing deploys.
    pub warnings: Vec<Problem>,
}

/// A service of a manifest.
#[derive(Debug, Clone)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// Where it is written.
    pub place: Place,
    /// The image it names: for a built service its repository and tag, for another what runs (`None` when only the rack's
    /// variables tell).
    pub image: Option<ImageRef>,
    /// How it is built, when it is.
    pub build: Option<ServiceBuild>,
}

/// A service's build.
#[derive(Debug, Clone)]
pub struct ServiceBuild {
    /// The build itself, without labels.
    pub image: ImageBuild,
    /// The context's directory in the repository.
    pub context: RepoPath,
    /// The Dockerfile in the repository.
    pub dockerfile: RepoPath,
    /// Directories of named contexts and files of secrets, in the repository: inputs too.
    pub also_reads: Vec<RepoPath>,
    /// Labels the manifest asks for.
    pub labels: BTreeMap<String, String>,
    /// Where the build is written.
    pub place: Place,
}

/// All that is wrong with a manifest.
pub type Problems = Vec<Problem>;

/// What reading a manifest needs to know.
pub struct Reading<'a> {
    /// The work tree, absolute: where the paths of an [`ImageBuild`] start.
    pub root: &'a Path,
    /// The app.
    pub app: &'a AppName,
    /// Its directory.
    pub dir: &'a RepoPath,
    /// The manifest, relative to the app's directory.
    pub manifest: &'a str,
    /// `1` for compose, `2` for `convox.yml`.
    pub generation: u8,
    /// A compose file with builds and image repositories of a generation 2 app, relative to the app's directory.
    pub compose: Option<&'a str>,
    /// Reads a file of the repository as text; `None` when it is not there.
    pub read: &'a dyn Fn(&RepoPath) -> std::io::Result<Option<String>>,
    /// An environment variable. In compose files the app's `.env` is asked after it.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Settings that go over the manifest's.
    pub build: &'a BuildConfig,
}

/// Reads an app's manifest, and its compose file when generation 2 has one beside it.
///
/// The error holds every problem found, each at its place. A variable without a value and without a default is empty, as it is
/// for docker compose and the rack, and stands in [`Manifest::warnings`].
pub fn read(reading: &Reading<'_>) -> Result<Manifest, Problems> {
    let dialect = if reading.generation == 1 { Dialect::Compose } else { Dialect::Convox };
    let mut main = Source::open(reading, reading.manifest, dialect)?;
    let mut services = match dialect {
        Dialect::Compose => compose::services(&mut main),
        Dialect::Convox => convox::services(&mut main),
    };
    let mut problems = std::mem::take(&mut main.problems);
    let mut warnings = std::mem::take(&mut main.warnings);
    let mut files = main.files;
    if let (Dialect::Convox, Some(name)) = (dialect, reading.compose) {
        match Source::open(reading, name, Dialect::Compose) {
            Ok(mut beside) => {
                compose::lend(&mut beside, &mut services);
                problems.append(&mut beside.problems);
                warnings.append(&mut beside.warnings);
                files.append(&mut beside.files);
            }
            Err(mut unreadable) => problems.append(&mut unreadable),
        }
    }
    problems.extend(clashes(&services));
    if !problems.is_empty() {
        problems.sort_by(|a, b| a.place.cmp(&b.place));
        problems.dedup();
        return Err(problems);
    }
    Ok(Manifest { generation: reading.generation, path: main.path, document: main.document, services, files, warnings })
}

/// Different builds that would push to one tag: the later push would win, for both services.
fn clashes(services: &[Service]) -> Problems {
    let mut seen: BTreeMap<(String, &str), &Service> = BTreeMap::new();
    let mut problems = Problems::new();
    for service in services {
        let (Some(build), Some(image)) = (&service.build, &service.image) else { continue };
        let Some(tag) = image.tag.as_deref() else { continue };
        let Some(first) = seen.get(&(image.repository.to_string(), tag)) else {
            seen.insert((image.repository.to_string(), tag), service);
            continue;
        };
        if first.build.as_ref().is_some_and(|other| (&other.image, &other.labels) != (&build.image, &build.labels)) {
            problems.push(Problem {
                place: service.place.clone(),
                message: format!("services `{}` and `{}` are built differently but both are `{image}`", first.name, service.name),
                help: Some(format!("give each a tag of its own: `{}:{}`", image.repository, service.name)),
            });
        }
    }
    problems
}

#[cfg(test)]
mod tests;
