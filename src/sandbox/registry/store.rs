//! The registry's disk: blobs by content, and per repository which of them it has, its manifests and its tags.
//!
//! ```text
//! blobs/HEX                          content, shared by all repositories
//! uploads/ID                         an upload under way
//! repositories/NAME/blobs/HEX        empty: the repository has the blob
//! repositories/NAME/manifests/HEX    the media type; the content is a blob
//! repositories/NAME/tags/TAG         a digest
//! repositories/NAME/settings.json    what ECR keeps with a repository
//! ```
//!
//! Everything but blobs is small, so it is read and written in place; blobs are streamed by the caller.

use crate::names::{Digest, is_tag};
use crate::sandbox::state;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::io::{ErrorKind, Result};
use std::path::{Path, PathBuf};
use time::OffsetDateTime;

/// What ECR keeps with a repository.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::sandbox) struct Settings {
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub(in crate::sandbox) created: OffsetDateTime,
    /// Tags cannot be moved.
    pub(in crate::sandbox) immutable: bool,
    /// Images are scanned on push.
    pub(in crate::sandbox) scan_on_push: bool,
    /// The lifecycle policy's JSON.
    pub(in crate::sandbox) lifecycle_policy: Option<String>,
}

/// A manifest: its exact bytes, and how they are to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sandbox) struct Manifest {
    pub(in crate::sandbox) digest: Digest,
    pub(in crate::sandbox) media_type: String,
    pub(in crate::sandbox) bytes: Vec<u8>,
}

/// A registry's disk.
#[derive(Debug, Clone)]
pub(in crate::sandbox) struct Store {
    root: PathBuf,
}

/// The digest of some bytes.
pub(in crate::sandbox) fn digest_of(bytes: &[u8]) -> Digest {
    finish(Sha256::new_with_prefix(bytes))
}

/// The digest of what went into a hasher.
pub(super) fn finish(hasher: Sha256) -> Digest {
    Digest::new(format!("sha256:{}", hex::encode(hasher.finalize()))).expect("64 hex digits after `sha256:` are a digest")
}

fn hex_of(digest: &Digest) -> &str {
    digest.as_str().trim_start_matches("sha256:")
}

impl Store {
    /// The store below `root`, made if it is not there. Uploads a former run left are dropped.
    pub(in crate::sandbox) fn open(root: PathBuf) -> crate::error::Result<Self> {
        let _ = std::fs::remove_dir_all(root.join("uploads"));
        for part in ["blobs", "uploads", "repositories"] {
            state::directory(&root.join(part))?;
        }
        Ok(Self { root })
    }

    fn repository(&self, name: &str) -> PathBuf {
        self.root.join("repositories").join(state::file_name(name))
    }

    /// The file an upload is written to.
    pub(super) fn upload_path(&self, id: &str) -> PathBuf {
        self.root.join("uploads").join(id)
    }

    /// The file that holds a blob.
    pub(super) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join(hex_of(digest))
    }

    /// True when something was pushed to the repository or it was created.
    pub(in crate::sandbox) fn has_repository(&self, name: &str) -> bool {
        self.repository(name).is_dir()
    }

    /// The names of all repositories, sorted.
    pub(in crate::sandbox) fn repositories(&self) -> Vec<String> {
        let decode = |name: String| percent_encoding::percent_decode_str(&name).decode_utf8_lossy().into_owned();
        let mut names: Vec<String> = file_names(&self.root.join("repositories")).into_iter().map(decode).collect();
        names.sort();
        names
    }

    /// What ECR keeps with a repository; `None` when it was not created through its API.
    pub(in crate::sandbox) fn settings(&self, name: &str) -> Option<Settings> {
        state::load(&self.repository(name).join("settings.json")).ok().flatten()
    }

    /// Sets what ECR keeps with a repository, and makes the repository.
    pub(in crate::sandbox) fn set_settings(&self, name: &str, settings: &Settings) -> Result<()> {
        let directory = self.repository(name);
        std::fs::create_dir_all(&directory)?;
        state::save(&directory.join("settings.json"), settings)
    }

    /// True when the repository has the blob.
    pub(in crate::sandbox) fn has_blob(&self, name: &str, digest: &Digest) -> bool {
        self.repository(name).join("blobs").join(hex_of(digest)).is_file()
    }

    /// The size of a blob of the repository in bytes.
    pub(in crate::sandbox) fn blob_size(&self, name: &str, digest: &Digest) -> Option<u64> {
        if !self.has_blob(name, digest) {
            return None;
        }
        std::fs::metadata(self.blob_path(digest)).ok().map(|metadata| metadata.len())
    }

    /// Gives the repository a blob that another one has; `false` when nobody has it.
    pub(super) fn mount(&self, name: &str, digest: &Digest, from: &str) -> Result<bool> {
        if !self.has_blob(from, digest) {
            return Ok(false);
        }
        self.link(name, digest)?;
        Ok(true)
    }

    /// Takes a finished upload into the store and gives it to the repository.
    pub(super) fn adopt(&self, name: &str, upload: &Path, digest: &Digest) -> Result<()> {
        std::fs::rename(upload, self.blob_path(digest))?;
        self.link(name, digest)
    }

    fn link(&self, name: &str, digest: &Digest) -> Result<()> {
        let links = self.repository(name).join("blobs");
        std::fs::create_dir_all(&links)?;
        std::fs::write(links.join(hex_of(digest)), b"")
    }

    /// The digests of blobs and manifests that a manifest names and the repository does not have.
    pub(in crate::sandbox) fn missing(&self, name: &str, manifest: &serde_json::Value) -> Vec<String> {
        let list = |key: &str| manifest.get(key).and_then(|items| items.as_array()).cloned().unwrap_or_default();
        // A layer with `urls` lives elsewhere and need not be here.
        let layers = list("layers").into_iter().filter(|layer| layer.get("urls").is_none());
        let blobs = manifest.get("config").cloned().into_iter().chain(layers);
        let digest = |part: &serde_json::Value| part.get("digest").and_then(|d| d.as_str()).unwrap_or_default().to_owned();
        let known = |text: &str, has: &dyn Fn(&Digest) -> bool| Digest::new(text).is_ok_and(|digest| has(&digest));
        let blobs = blobs.map(|part| digest(&part)).filter(|text| !known(text, &|digest| self.has_blob(name, digest)));
        let manifests = list("manifests").into_iter().map(|part| digest(&part));
        let manifests = manifests.filter(|text| !known(text, &|digest| self.manifest_path(name, digest).is_file()));
        blobs.chain(manifests).collect()
    }

    fn manifest_path(&self, name: &str, digest: &Digest) -> PathBuf {
        self.repository(name).join("manifests").join(hex_of(digest))
    }

    /// Stores a manifest.
    pub(in crate::sandbox) fn put_manifest(&self, name: &str, media_type: &str, bytes: &[u8]) -> Result<Digest> {
        let digest = digest_of(bytes);
        state::replace(&self.blob_path(&digest), bytes)?;
        let path = self.manifest_path(name, &digest);
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        state::replace(&path, media_type.as_bytes())?;
        Ok(digest)
    }

    /// Points a tag to a manifest.
    pub(in crate::sandbox) fn set_tag(&self, name: &str, tag: &str, digest: &Digest) -> Result<()> {
        let tags = self.repository(name).join("tags");
        std::fs::create_dir_all(&tags)?;
        state::replace(&tags.join(tag), digest.as_str().as_bytes())
    }

    /// What a tag points to.
    pub(in crate::sandbox) fn tag(&self, name: &str, tag: &str) -> Option<Digest> {
        if !is_tag(tag) {
            return None;
        }
        let text = std::fs::read_to_string(self.repository(name).join("tags").join(tag)).ok()?;
        Digest::new(text).ok()
    }

    /// The tags of a repository, sorted.
    pub(in crate::sandbox) fn tags(&self, name: &str) -> Vec<String> {
        let mut tags = file_names(&self.repository(name).join("tags"));
        // A tag that is just being replaced has a file aside, whose name can be a tag's too.
        tags.retain(|tag| self.tag(name, tag).is_some());
        tags.sort();
        tags
    }

    /// The manifest a tag or digest names.
    pub(in crate::sandbox) fn manifest(&self, name: &str, reference: &str) -> Result<Option<Manifest>> {
        let Some(digest) = Digest::new(reference).ok().or_else(|| self.tag(name, reference)) else { return Ok(None) };
        let media_type = match std::fs::read_to_string(self.manifest_path(name, &digest)) {
            Ok(media_type) => media_type,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let bytes = std::fs::read(self.blob_path(&digest))?;
        Ok(Some(Manifest { digest, media_type, bytes }))
    }
}

fn file_names(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_found_by_tag_and_digest_and_only_in_its_repository() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().to_owned()).unwrap();
        let digest = store.put_manifest("team/web", "application/json", b"{}").unwrap();
        store.set_tag("team/web", "v1", &digest).unwrap();
        for reference in ["v1", digest.as_str()] {
            assert_eq!(store.manifest("team/web", reference).unwrap().unwrap().bytes, b"{}");
        }
        assert_eq!(store.manifest("team/web", "v2").unwrap(), None);
        assert_eq!(store.manifest("team/api", digest.as_str()).unwrap(), None);
        assert_eq!((store.repositories(), store.tags("team/web")), (vec!["team/web".to_owned()], vec!["v1".to_owned()]));
    }

    #[test]
    fn a_tag_cannot_leave_its_directory() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().to_owned()).unwrap();
        assert_eq!(store.tag("../..", "../settings.json"), None);
        assert_eq!(store.tag("x", ".."), None);
        assert!(!store.has_repository(".."));
    }
}
