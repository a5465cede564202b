//! Fingerprints: a digest over what an app is deployed from.
//!
//! A fingerprint covers the app's resolved configuration and, for every input file, its path, mode and git object id, with
//! what is on disk in place of what is not committed. Equal fingerprints mean equal inputs, with no history at hand. The
//! order in which rules and files are found does not matter. Where paths that no app owns are everybody's, they are everybody's here.

use super::affected::Matcher;
use super::inputs::Inputs;
use super::{Change, History, TreeEntry};
use crate::error::Result;
use crate::names::{CommitId, Fingerprint, RepoPath};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// The version of what is hashed. Fingerprints of different versions say nothing about each other.
pub const VERSION: u32 = 1;

/// Computes one app's fingerprint at `commit`, with the `dirty` paths as they are on disk.
///
/// For several apps [`Fingerprints`] lists what they share once.
pub fn fingerprint(history: &dyn History, commit: &CommitId, inputs: &Inputs, app_digest: &str, dirty: &[Change]) -> Result<Fingerprint> {
    Fingerprints::new(history, commit, dirty).of(inputs, app_digest)
}

/// Computes the fingerprints of many apps at one commit. May be asked from several threads.
pub struct Fingerprints<'a> {
    history: &'a dyn History,
    commit: &'a CommitId,
    dirty: &'a [Change],
    listed: Mutex<BTreeMap<RepoPath, Arc<Vec<TreeEntry>>>>,
    on_disk: Mutex<BTreeMap<RepoPath, Option<TreeEntry>>>,
    /// The rules of all apps, when what none of them owns is every app's.
    rules: Option<&'a Matcher<'a>>,
    /// What no app owns, committed.
    unowned: OnceLock<Vec<TreeEntry>>,
}

impl<'a> Fingerprints<'a> {
    /// Nothing is read yet.
    #[must_use]
    pub fn new(history: &'a dyn History, commit: &'a CommitId, dirty: &'a [Change]) -> Self {
        let (listed, on_disk) = (Mutex::default(), Mutex::default());
        Self { history, commit, dirty, listed, on_disk, rules: None, unowned: OnceLock::new() }
    }

    /// With the paths that no app owns, by the rules of all apps, as inputs of every app (`unowned: all`).
    #[must_use]
    pub fn with_unowned(self, rules: &'a Matcher<'a>) -> Self {
        Self { rules: Some(rules), ..self }
    }

    /// The fingerprint of an app with these inputs and this digest of its configuration.
    pub fn of(&self, inputs: &Inputs, app_digest: &str) -> Result<Fingerprint> {
        let mut hash = Sha256::new();
        hash.update(format!("offbuild inputs {VERSION}\n{} {app_digest}\n", app_digest.len()));
        for (path, entry) in self.entries(inputs)? {
            hash.update(format!("{:o} {} {}\0", entry.mode, entry.id, path.as_bytes().len()));
            hash.update(path.as_bytes());
        }
        Ok(Fingerprint::from_sha256(&hash.finalize()))
    }

    /// Tells the dirty inputs, and a dirty `configuration`, apart from the commit: 8 hex digits for a tag, `None` when nothing of the app
    /// is dirty.
    pub fn dirty_hash(&self, inputs: &Inputs, configuration: Option<&RepoPath>) -> Result<Option<String>> {
        let mut entries = BTreeMap::new();
        let counts = |path: &RepoPath| configuration == Some(path) || self.counts(inputs, path);
        for change in self.dirty.iter().filter(|change| counts(&change.path)) {
            entries.insert(change.path.clone(), self.on_disk(&change.path)?);
        }
        Ok((!entries.is_empty()).then(|| dirty_hash(&entries)))
    }

    /// Every input file: those of the commit, with the dirty ones replaced by what is on disk.
    fn entries(&self, inputs: &Inputs) -> Result<BTreeMap<RepoPath, TreeEntry>> {
        let mut entries = BTreeMap::new();
        for rule in inputs.all_rules() {
            for entry in self.listed(&rule.reach.start())?.iter() {
                if rule.contains(&entry.path) && !entries.contains_key(&entry.path) {
                    entries.insert(entry.path.clone(), entry.clone());
                }
            }
        }
        for entry in self.unowned()? {
            entries.insert(entry.path.clone(), entry.clone());
        }
        for change in self.dirty.iter().filter(|change| self.counts(inputs, &change.path)) {
            match self.on_disk(&change.path)? {
                Some(entry) => entries.insert(change.path.clone(), entry),
                None => entries.remove(&change.path),
            };
        }
        entries.retain(|path, _| inputs.ignored_by(path).is_none());
        Ok(entries)
    }

    fn counts(&self, inputs: &Inputs, path: &RepoPath) -> bool {
        inputs.contain(path) || self.rules.is_some_and(|rules| rules.is_nobodys(path))
    }

    fn unowned(&self) -> Result<&[TreeEntry]> {
        let Some(rules) = self.rules else { return Ok(&[]) };
        if let Some(known) = self.unowned.get() {
            return Ok(known);
        }
        let all = self.listed(&RepoPath::default())?;
        let nobodys = all.iter().filter(|entry| rules.is_nobodys(&entry.path)).cloned().collect();
        Ok(self.unowned.get_or_init(|| nobodys))
    }

    fn listed(&self, dir: &RepoPath) -> Result<Arc<Vec<TreeEntry>>> {
        let listed = || self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = listed().get(dir) {
            return Ok(known.clone());
        }
        // Not under the lock: two threads may list the same directory once each, but none waits for another's.
        let files = Arc::new(self.history.files(self.commit, dir)?);
        listed().insert(dir.clone(), files.clone());
        Ok(files)
    }

    fn on_disk(&self, path: &RepoPath) -> Result<Option<TreeEntry>> {
        let known = || self.on_disk.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = known().get(path) {
            return Ok(entry.clone());
        }
        let entry = self.history.hash_on_disk(path)?;
        known().insert(path.clone(), entry.clone());
        Ok(entry)
    }
}

/// The tail of a `-dirty.<hash>` tag: 8 hex digits over what the dirty paths are on disk (`None`: gone).
#[must_use]
pub fn dirty_hash(entries: &BTreeMap<RepoPath, Option<TreeEntry>>) -> String {
    let mut hash = Sha256::new();
    for (path, entry) in entries {
        let (mode, id) = entry.as_ref().map_or((0, "-"), |entry| (entry.mode, entry.id.as_str()));
        hash.update(format!("{mode:o} {id} {}\0", path.as_bytes().len()));
        hash.update(path.as_bytes());
    }
    hex::encode(hash.finalize())[..8].to_owned()
}
