//! Manifests: `convox.yml` (generation 2) and `docker-compose.yml` (generation 1, and the builds and image repositories of
//! generation 2).
//!
//! Reading lists the services and their builds; every key of a `build:` is honoured or refused by name. Rewriting replaces
//! `build:` by `image:` in a copy of the text and leaves every other byte as the user wrote it. Nothing here reads a disk.

use crate::build::ImageBuild;
use crate::names::{ImageRef, RepoPath, ServiceName};
use crate::yaml::{Document, Place, Problem};

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
}

/// A service of a manifest.
#[derive(Debug, Clone)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// Where it is written.
    pub place: Place,
    /// The image it names: for a built service its repository and tag, for another what runs.
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
    pub labels: std::collections::BTreeMap<String, String>,
    /// Where the build is written.
    pub place: Place,
}

/// All that is wrong with a manifest.
pub type Problems = Vec<Problem>;
