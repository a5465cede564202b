//! Asks the history what a verdict needs to know, and each question once: targets with the same base share the comparison.
//!
//! A [`Survey`] is made once per run; [`Survey::facts`] answers for one target and may be asked from several threads. The live
//! commit's tree is compared with HEAD's directly: what counts is what differs from what runs, whoever's change it was.

use super::affected::{Affected, Matcher};
use super::base::{self, Choice, FetchCommand};
use super::description::recorded_in;
use super::fingerprint::Fingerprints;
use super::inputs::Inputs;
use super::verdict::{BaseSource, Basis, Facts, RolledBack, State};
use super::{Ancestry, Change, ChangeKind, History, PathReason, Rule, standing};
use crate::config::Unowned;
use crate::error::{Error, Result};
use crate::names::{AppName, CommitId, RepoPath, Target};
use crate::rack::{AppStatus, Live, NewerRelease, RackError};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use time::OffsetDateTime;

/// Reads the configuration digests of all targets at a commit; `None` when the configuration there cannot be read.
pub type Digests<'a> = Box<dyn Fn(&CommitId) -> Option<BTreeMap<Target, String>> + Send + Sync + 'a>;

/// Reads which directories were an app's at a commit and are no app's now, as far as changes since then tell.
pub type Left<'a> = Box<dyn Fn(&CommitId, &[Change]) -> BTreeSet<RepoPath> + Send + Sync + 'a>;

/// What is the same for all targets of a run.
pub struct Survey<'a> {
    /// The repository.
    pub history: &'a dyn History,
    /// The commit that is checked out.
    pub head: &'a CommitId,
    /// What is not committed.
    pub dirty: &'a [Change],
    /// The rules of all apps.
    pub matcher: &'a Matcher<'a>,
    /// Their fingerprints.
    pub fingerprints: &'a Fingerprints<'a>,
    /// What happens with paths no app owns.
    pub unowned: Unowned,
    /// The base of every target, instead of what is live: `--base`, or no rack was asked.
    pub given: Option<Choice>,
    /// Earlier configurations.
    pub digests: Option<Digests<'a>>,
    /// Earlier apps.
    pub left: Option<Left<'a>>,
    /// What was compared already.
    pub known: Known,
}

/// What was asked so far: comparisons by base, what is not committed, how HEAD stands to live commits.
#[derive(Default)]
pub struct Known(Answers<Arc<Compared>>, Slot<Arc<Compared>>, Answers<Ancestry>);

impl Known {
    /// Every comparison made, by base.
    #[must_use]
    pub fn all(&self) -> BTreeMap<CommitId, Arc<Compared>> {
        let slots = self.0.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let found = |slot: &Slot<Arc<Compared>>| slot.lock().unwrap_or_else(PoisonError::into_inner).clone();
        slots.iter().filter_map(|(base, slot)| Some((base.clone(), found(slot)?))).collect()
    }
}

/// An answer, once there is one.
type Slot<T> = Arc<Mutex<Option<T>>>;

/// Answers by commit, each found once: who asks while another finds it waits for that, and for no other commit.
struct Answers<T>(Mutex<BTreeMap<CommitId, Slot<T>>>);

impl<T> Default for Answers<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Answers<T> {
    /// The answer for `commit`; one that could not be found is looked for again.
    fn of(&self, commit: &CommitId, find: impl FnOnce() -> Result<T>) -> Result<T> {
        let slot = Arc::clone(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(commit.clone()).or_default());
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = &*slot {
            return Ok(found.clone());
        }
        Ok(slot.insert(find()?).clone())
    }
}

/// What differs between a base and HEAD.
#[derive(Debug, Default)]
pub struct Compared {
    /// The changed paths.
    pub changes: Vec<Change>,
    /// Whose they are.
    pub affected: Affected,
    /// The digests at the base, when the configuration file is among the changes; none where it cannot be read there.
    pub digests: Option<BTreeMap<Target, String>>,
}

impl Compared {
    /// True when the base configures the target otherwise. One that was not configured there is a new one.
    pub fn configures_otherwise(&self, target: &Target, app_digest: &str) -> bool {
        let same = |digests: &BTreeMap<Target, String>| digests.get(target).is_some_and(|digest| digest == app_digest);
        self.digests.as_ref().is_some_and(|digests| !same(digests))
    }
}

/// What is asked about one target.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// The target.
    pub target: &'a Target,
    /// The app's inputs.
    pub inputs: &'a Inputs,
    /// The digest of its configuration.
    pub app_digest: &'a str,
    /// What the rack told; `None` when it was not asked.
    pub live: Option<&'a Result<Live, RackError>>,
    /// The newest release made *before* the active one whose build is another, later one: what the active one was put on top
    /// of. A rack promotes no older release, so a rollback is a new release of an old build; releases that were made
    /// after the active one were never live and are no rollback.
    pub topped: Option<&'a NewerRelease>,
}

impl Survey<'_> {
    /// All that is known of a target.
    pub fn facts(&self, asked: Asked<'_>) -> Result<Facts> {
        let app = &asked.inputs.app;
        let live = asked.live.and_then(|live| live.as_ref().ok());
        let named = live.map(|live| self.live_commit(live)).transpose()?.flatten();
        let state = self.state(asked.live, named.as_ref())?;
        let (basis, config_changed) = self.basis(asked, named.as_ref())?;
        let uncommitted = self.uncommitted()?;
        let mut dirty = of(&uncommitted.affected.reasons, app);
        dirty.extend(self.dirty_configuration(&uncommitted, asked));
        let here = named.as_ref().and_then(|named| named.commit.as_ref());
        let rolled_back = match (asked.topped, &state) {
            (Some(topped), State::Live { .. }) => self.rolled_back(asked, topped, here, &dirty)?,
            _ => None,
        };
        let mut facts =
            Facts { state, basis, dirty, rolled_back, app_digest: asked.app_digest.to_owned(), config_changed, fingerprint: None };
        if wants_fingerprint(&facts) {
            facts.fingerprint = Some(self.fingerprints.of(asked.inputs, asked.app_digest)?);
        }
        Ok(facts)
    }

    /// What differs between `base` and HEAD, compared once.
    pub fn compared(&self, base: &CommitId) -> Result<Arc<Compared>> {
        self.known.0.of(base, || self.compare(base))
    }

    fn compare(&self, base: &CommitId) -> Result<Arc<Compared>> {
        self.compared_with(base, self.history.changes(base, self.head)?)
    }

    /// What became of `changes` since `base`.
    fn compared_with(&self, base: &CommitId, changes: Vec<Change>) -> Result<Arc<Compared>> {
        let affected = self.affected(base, &changes)?;
        let digests = match &self.digests {
            // What cannot be read there is another configuration, of every app.
            Some(digests) if changes.iter().chain(self.dirty).any(|change| self.is_configuration(change)) => {
                Some(digests(base).unwrap_or_default())
            }
            _ => None,
        };
        Ok(Arc::new(Compared { changes, affected, digests }))
    }

    fn is_configuration(&self, change: &Change) -> bool {
        self.matcher.inputs().first().is_some_and(|app| app.shared.file.as_ref() == Some(&change.path))
    }

    /// The change of the configuration that is not committed, when the target is configured otherwise in HEAD.
    fn dirty_configuration(&self, uncommitted: &Compared, asked: Asked<'_>) -> Option<PathReason> {
        let change = self.dirty.iter().find(|change| self.is_configuration(change))?;
        let rule = Rule { kind: "configuration", matches: change.path.to_string(), place: None, through: Vec::new() };
        uncommitted.configures_otherwise(asked.target, asked.app_digest).then(|| PathReason { change: change.clone(), rule })
    }

    /// Whose the changes since `base` are. What an app left behind is deleted with it, and is not unowned.
    fn affected(&self, base: &CommitId, changes: &[Change]) -> Result<Affected> {
        let mut affected = self.matcher.affected(changes);
        let is_deleted = |change: &Change| change.kind == ChangeKind::Deleted;
        if let Some(left) = self.left.as_ref().filter(|_| affected.unowned.iter().any(is_deleted)) {
            let dirs = left(base, changes);
            let of_none = |change: &Change| !is_deleted(change) || !dirs.iter().any(|dir| change.path.is_in(dir));
            (affected.unowned, affected.left) = affected.unowned.into_iter().partition(of_none);
        }
        affected.apply(self.unowned, self.matcher.inputs())?;
        Ok(affected)
    }

    /// How HEAD stands to a live commit, asked once. `committed` is the time recorded with it.
    fn ancestry(&self, live: &CommitId, committed: Option<OffsetDateTime>) -> Result<Ancestry> {
        self.known.2.of(live, || standing(self.history, self.head, live, committed))
    }

    /// What differs between HEAD and the work tree, compared once. HEAD is no base for that: see [`Known::all`].
    pub fn uncommitted(&self) -> Result<Arc<Compared>> {
        let mut known = self.known.1.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(compared) = &*known {
            return Ok(compared.clone());
        }
        Ok(known.insert(self.compared_with(self.head, self.dirty.to_vec())?).clone())
    }

    fn state(&self, live: Option<&Result<Live, RackError>>, named: Option<&Named>) -> Result<State> {
        Ok(match live {
            None => State::Unasked,
            Some(Err(error @ RackError::NoApp { .. })) => State::NoApp(error.to_string()),
            Some(Err(error)) => State::Unreachable(error.to_string()),
            Some(Ok(live)) => match &live.release {
                None => State::NeverDeployed,
                Some(release) => {
                    let recorded = release.build.as_ref().and_then(|build| recorded_in(&build.description));
                    let committed = recorded.as_ref().and_then(|recorded| recorded.committed);
                    let commit = match (named, release.build.as_ref().and_then(|build| build.commit.as_ref())) {
                        (Some(Named { commit: Some(commit), .. }), _) => Some((commit.clone(), self.ancestry(commit, committed)?)),
                        // It is not here: only that it is newer, by its time, is more than is known without it.
                        (Some(_), Some(commit)) => {
                            let ancestry = self.ancestry(commit, committed)?;
                            (ancestry == Ancestry::Ancestor).then(|| (commit.clone(), ancestry))
                        }
                        _ => None,
                    };
                    let not_running = (live.status != AppStatus::Running).then(|| live.status.word().to_owned());
                    State::Live { not_running, recorded, commit }
                }
            },
        })
    }

    fn basis(&self, asked: Asked<'_>, named: Option<&Named>) -> Result<(Basis, bool)> {
        let (commit, source) = match (&self.given, named) {
            (Some(Choice::Found(base)), _) => (&base.commit, BaseSource::Given(base.source.clone())),
            (Some(Choice::Unreachable(missing)), _) => {
                let (wanted, why, fetch) = (missing.wanted.clone(), missing.why.clone(), missing.fetch.clone());
                return Ok((Basis::Missing { wanted, why, fetch }, false));
            }
            (None, None) => return Ok((Basis::Unnamed, false)),
            (None, Some(Named { commit: Some(commit), source, .. })) => (commit, source.clone()),
            (None, Some(Named { text, source, .. })) => {
                let shallow = self.history.is_shallow();
                let wanted = format!("{source}, `{text}`");
                let fetch = Some(FetchCommand::for_missing(text, shallow));
                return Ok((Basis::Missing { wanted, why: base::not_here(shallow).to_owned(), fetch }, false));
            }
        };
        let compared = self.compared(commit)?;
        let changed = of(&compared.affected.reasons, &asked.inputs.app);
        let config_changed = compared.configures_otherwise(asked.target, asked.app_digest);
        Ok((Basis::Commit { commit: commit.clone(), source, changed }, config_changed))
    }

    /// The commit a live release names, from the best place that names one.
    fn live_commit(&self, live: &Live) -> Result<Option<Named>> {
        let Some(release) = &live.release else { return Ok(None) };
        if let Some(commit) = release.build.as_ref().and_then(|build| build.commit.as_ref()) {
            let here = self.history.resolve(commit.as_str())?;
            return Ok(Some(Named { text: commit.to_string(), source: BaseSource::Build, commit: here }));
        }
        let revision = release.revision.as_deref().map(str::trim).filter(|text| is_abbreviated(text));
        let build = release.build.as_ref().map(|build| build.description.as_str()).unwrap_or_default();
        let words = build.split_whitespace().chain(release.description.split_whitespace());
        // A word of hex digits alone may be a word.
        let described = words.filter(|word| is_abbreviated(word) && word.bytes().any(|byte| byte.is_ascii_digit()));
        let weak =
            revision.map(|text| (text, BaseSource::Revision)).into_iter().chain(described.map(|text| (text, BaseSource::Description)));
        let mut missing = None;
        for (text, source) in weak {
            // Several objects may share the first digits; a hint that hints at two is none.
            let commit = self.history.resolve(text).unwrap_or(None);
            let named = Named { text: text.to_owned(), source, commit };
            if named.commit.is_some() {
                return Ok(Some(named));
            }
            missing.get_or_insert(named);
        }
        Ok(missing)
    }

    fn rolled_back(
        &self,
        asked: Asked<'_>,
        topped: &NewerRelease,
        live: Option<&CommitId>,
        dirty: &[PathReason],
    ) -> Result<Option<RolledBack>> {
        let recorded = recorded_in(&topped.build_description);
        let equal = match &recorded {
            Some(recorded) => self.fingerprints.of(asked.inputs, asked.app_digest)? == recorded.fingerprint,
            None => false,
        };
        let here = topped.commit.as_ref().map(|commit| self.history.resolve(commit.as_str())).transpose()?.flatten();
        let (Some(from), Some(live)) = (here, live) else {
            // The order of the two builds is not known, but HEAD would bring back exactly what was replaced.
            return Ok(equal.then(|| RolledBack { from: topped.commit.clone(), changed_since: false }));
        };
        if self.history.ancestry(live, &from)? != Ancestry::Ancestor {
            return Ok(None);
        }
        let since = self.compared(&from)?;
        // Where not only the commit was live, HEAD brings something else, whatever has changed since the commit.
        let other = since.configures_otherwise(asked.target, asked.app_digest) || recorded.is_some_and(|recorded| recorded.dirty);
        let changed = since.affected.reasons.contains_key(&asked.inputs.app) || other || !dirty.is_empty();
        Ok(Some(RolledBack { from: Some(from), changed_since: changed && !equal }))
    }
}

/// A commit a rack names.
struct Named {
    text: String,
    source: BaseSource,
    /// `None` when it is not here.
    commit: Option<CommitId>,
}

fn of(all: &BTreeMap<AppName, Vec<PathReason>>, app: &AppName) -> Vec<PathReason> {
    all.get(app).cloned().unwrap_or_default()
}

fn is_abbreviated(text: &str) -> bool {
    (7..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// A fingerprint lists every input, so it is made only where it can decide something.
fn wants_fingerprint(facts: &Facts) -> bool {
    let State::Live { not_running: None, recorded: Some(recorded), .. } = &facts.state else { return false };
    match &facts.basis {
        Basis::Commit { source: BaseSource::Given(_), .. } => false,
        Basis::Commit { changed, .. } => recorded.dirty || !changed.is_empty() || !facts.dirty.is_empty() || facts.config_changed,
        Basis::Missing { .. } | Basis::Unnamed => true,
    }
}

/// An error for a base that is not here, for `--strict-base`.
#[must_use]
pub fn strict_base(reason: &super::verdict::Reason) -> Error {
    let error = Error::unusable(reason.to_string());
    match reason {
        super::verdict::Reason::BaseUnreachable { fetch: Some(fetch), .. } => error.hint(format!("run `{fetch}`, or use `--fetch`")),
        _ => error.hint("without `--strict-base` such an app counts as changed"),
    }
}
