//! Asks the registries what they have of the images that are to be released. Changes nothing.

use super::read::AT_ONCE;
use crate::error::{Error, Result};
use crate::manifest::image_fingerprint;
use crate::names::{Digest, Repository};
use crate::plan::Decision;
use crate::plan::planner::{self, Existing, FINGERPRINT_LABEL, Facts};
use crate::registry::{Registry, RegistryError};
use futures_util::stream::{self, StreamExt as _};
use std::collections::{BTreeMap, BTreeSet};

/// What the registries have of the images that are to be released: one question per repository.
pub(super) async fn existing(facts: &Facts, registry: &dyn Registry) -> Result<Existing> {
    let mut wanted: BTreeMap<Repository, BTreeSet<String>> = BTreeMap::new();
    let mut pairs = Vec::new();
    for app in facts.apps.iter() {
        let released = facts.targets.iter().any(|target| target.target.app == app.app.name && target.decision == Decision::Release);
        let Some(fingerprint) = app.fingerprint.as_ref().filter(|_| released) else { continue };
        for (_, build, place) in planner::places(app)? {
            let content = place.fingerprint_tag(&image_fingerprint(fingerprint, build));
            wanted.entry(place.repository.clone()).or_default().extend([place.commit_tag.clone(), content.clone()]);
            pairs.push((place.repository, place.commit_tag, content));
        }
    }
    let answers: Vec<(Repository, Result<_, RegistryError>)> = stream::iter(wanted)
        .map(|(repository, tags)| async move {
            let tags: Vec<String> = tags.into_iter().collect();
            let found = registry.find(&repository, &tags).await;
            (repository, found)
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let mut existing = Existing::default();
    for (repository, found) in answers {
        let found: BTreeMap<String, Digest> = found.map_err(registry_error)?;
        for (tag, digest) in found {
            existing.tags.insert((repository.clone(), tag), digest);
        }
    }
    for (repository, commit, content) in pairs {
        let tag = |tag: String| existing.tags.get(&(repository.clone(), tag));
        let Some(digest) = tag(commit).cloned() else { continue };
        if tag(content) != Some(&digest) {
            let labels = registry.labels(&repository, &digest).await.map_err(registry_error)?;
            let says = labels.get(FINGERPRINT_LABEL).map(|says| says.split(' ').map(str::to_owned).collect()).unwrap_or_default();
            existing.fingerprints.insert((repository, digest), says);
        }
    }
    Ok(existing)
}

/// A registry's error outside of a run: the registry cannot be used.
pub(super) fn registry_error(error: RegistryError) -> Error {
    let hint = error.hint();
    let error = Error::unusable(error.to_string());
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}
