//! Verdicts: what is to become of a target, and every reason for it.
//!
//! [`decide`] is pure: `survey` asks the history and hands over [`Facts`]. In order:
//!
//! 1. Reasons to deploy: never deployed, not running, changed inputs, changed configuration, another fingerprint, `--all`.
//!    What is equal by its fingerprint is up to date, history or not.
//! 2. No reason: up to date. Guards stop a change, never the lack of one.
//! 3. Guards: HEAD older than what is live, diverged from it, rolled back by hand, uncommitted inputs.

use super::base::FetchCommand;
use super::description::{Recorded, short_digest};
use super::{Ancestry, PathReason};
use crate::names::{CommitId, Fingerprint};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt;

/// What is to become of a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
pub enum Verdict {
    /// It is deployed.
    Deploy,
    /// What runs there is what HEAD asks for.
    UpToDate,
    /// Somebody rolled it back, and its inputs have not changed since.
    Held {
        /// The commit it was rolled back from.
        from: Option<CommitId>,
    },
    /// What is live is newer than HEAD.
    Stale {
        /// What is live.
        live: CommitId,
    },
    /// A guard refuses.
    Refused {
        /// Why.
        why: Refusal,
    },
    /// Its directory is gone; nothing is done to the rack.
    Removed,
}

impl Verdict {
    /// The word for it.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Deploy => "deploy",
            Self::UpToDate => "up-to-date",
            Self::Held { .. } => "held",
            Self::Stale { .. } => "stale",
            Self::Refused { .. } => "refused",
            Self::Removed => "removed",
        }
    }
}

/// Why a guard refuses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "refusal", rename_all = "kebab-case")]
pub enum Refusal {
    /// HEAD and what is live have both gone on from a common commit.
    Diverged {
        /// What is live.
        live: CommitId,
    },
    /// Inputs are not committed.
    Dirty {
        /// How many of them.
        paths: usize,
    },
    /// The app is not on the rack.
    NoApp {
        /// What the rack said.
        message: String,
    },
}

/// Lower case, ends with what to do next.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Diverged { live } => write!(
                f,
                "live commit {} has diverged from HEAD: deploying would take back what only it has; merge it, or use `--allow-diverged`",
                live.short()
            ),
            Self::Dirty { paths: 1 } => f.write_str("1 of its inputs is not committed: commit it, or use `--allow-dirty`"),
            Self::Dirty { paths } => write!(f, "{paths} of its inputs are not committed: commit them, or use `--allow-dirty`"),
            Self::NoApp { message } => write!(f, "{message}: create it with `convox apps create`"),
        }
    }
}

/// One reason to deploy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum Reason {
    /// The app has no release on the rack.
    NeverDeployed,
    /// The rack could not be asked.
    RackUnreachable {
        /// What happened.
        message: String,
    },
    /// The app is not `running`, so what its release says is not trusted.
    NotRunning {
        /// Its status.
        status: String,
    },
    /// Nothing on the rack tells which commit is live.
    NoCommitRecorded,
    /// The commit to compare with is not here.
    BaseUnreachable {
        /// What was to be compared with, and where that came from.
        wanted: String,
        /// Why it cannot be had.
        why: String,
        /// What brings it.
        fetch: Option<FetchCommand>,
    },
    /// The app's resolved configuration is another one.
    ConfigChanged,
    /// The live build was made from other inputs.
    FingerprintDiffers {
        /// What its description records.
        recorded: Fingerprint,
        /// What HEAD has.
        now: Fingerprint,
    },
    /// An input changed.
    Path(PathReason),
    /// `--all`.
    All,
}

impl Reason {
    /// The word for it.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::NeverDeployed => "never-deployed",
            Self::RackUnreachable { .. } => "rack-unreachable",
            Self::NotRunning { .. } => "not-running",
            Self::NoCommitRecorded => "no-commit-recorded",
            Self::BaseUnreachable { .. } => "base-unreachable",
            Self::ConfigChanged => "config-changed",
            Self::FingerprintDiffers { .. } => "fingerprint-differs",
            Self::Path(_) => "path",
            Self::All => "all",
        }
    }
}

/// One line.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverDeployed => f.write_str("never deployed"),
            Self::RackUnreachable { message } => write!(f, "rack unreachable: {message}"),
            Self::NotRunning { status } => write!(f, "not running: the rack says `{status}`"),
            Self::NoCommitRecorded => f.write_str("the rack has no commit recorded for what is live"),
            Self::BaseUnreachable { wanted, why, fetch } => {
                write!(f, "base unreachable: {wanted}: {why}")?;
                fetch.as_ref().map_or(Ok(()), |fetch| write!(f, "; run `{fetch}`"))
            }
            Self::ConfigChanged => f.write_str("its configuration changed"),
            Self::FingerprintDiffers { recorded, now } => write!(f, "fingerprint differs: {recorded} is live, {now} is here"),
            Self::Path(reason) => reason.fmt(f),
            Self::All => f.write_str("`--all`"),
        }
    }
}

/// Where the commit of the comparison came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BaseSource {
    /// The commit recorded with the live build.
    Build,
    /// `REVISION` in the live release's env: a hint, it can be older or newer than what runs.
    Revision,
    /// A commit named in a description.
    Description,
    /// Not the rack: `--base`, the CI's event, the default branch.
    Given(String),
}

impl fmt::Display for BaseSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Build => f.write_str("the live build's commit"),
            Self::Revision => f.write_str("`REVISION` of the live release (weak: its build records no commit)"),
            Self::Description => f.write_str("a commit in the live release's description (weak: its build records no commit)"),
            Self::Given(source) => f.write_str(source),
        }
    }
}

/// What HEAD is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Basis {
    /// A commit that is here.
    Commit {
        /// The commit.
        commit: CommitId,
        /// Where it came from.
        source: BaseSource,
        /// The app's inputs that differ between it and HEAD.
        changed: Vec<PathReason>,
    },
    /// A commit that is not here.
    Missing {
        /// Which, and where it came from.
        wanted: String,
        /// Why.
        why: String,
        /// What brings it.
        fetch: Option<FetchCommand>,
    },
    /// Nobody names one.
    Unnamed,
}

/// What the rack told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It was not asked.
    Unasked,
    /// It could not be asked.
    Unreachable(String),
    /// It does not have the app.
    NoApp(String),
    /// The app has no release.
    NeverDeployed,
    /// A release is live.
    Live {
        /// Its status, when that is not `running`.
        not_running: Option<String>,
        /// What the live build's description records.
        recorded: Option<Recorded>,
        /// Its commit, when it is here or newer by its time, and how HEAD stands to it.
        commit: Option<(CommitId, Ancestry)>,
    },
}

/// A rollback by hand: a newer build was live, or meant to be, and an older one was put on top of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolledBack {
    /// The commit it was rolled back from.
    pub from: Option<CommitId>,
    /// True when the app's inputs have changed since.
    pub changed_since: bool,
}

/// All that is known of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// What the rack told.
    pub state: State,
    /// What HEAD is compared with.
    pub basis: Basis,
    /// The app's inputs that are not committed.
    pub dirty: Vec<PathReason>,
    /// The rollback found on the rack.
    pub rolled_back: Option<RolledBack>,
    /// The digest of the app's configuration.
    pub app_digest: String,
    /// True when the configuration at the basis is known to be another one.
    pub config_changed: bool,
    /// The app's fingerprint, when one is recorded that it could be compared with.
    pub fingerprint: Option<Fingerprint>,
}

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wishes {
    /// `--all`: changed or not.
    pub all: bool,
    /// `--allow-diverged`.
    pub allow_diverged: bool,
    /// `--allow-older`.
    pub allow_older: bool,
    /// Uncommitted inputs are wanted (`changed`, `plan`, `--allow-dirty`).
    pub allow_dirty: bool,
    /// Rollbacks by hand are not respected (`--release-hold`, `hold: off`).
    pub release_hold: bool,
}

/// A verdict with everything that led to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// The verdict.
    pub verdict: Verdict,
    /// Every reason to deploy, those a guard overruled among them.
    pub reasons: Vec<Reason>,
    /// The commit that was compared with.
    pub base: Option<CommitId>,
    /// Where it came from.
    pub base_source: Option<BaseSource>,
    /// What else is worth knowing: order that could not be checked, weak sources.
    pub notes: Vec<String>,
}

impl Decision {
    /// The decision for an app whose directory is gone.
    #[must_use]
    pub fn removed() -> Self {
        Self { verdict: Verdict::Removed, reasons: Vec::new(), base: None, base_source: None, notes: Vec::new() }
    }

    /// The reason that `--strict-base` makes an error of.
    #[must_use]
    pub fn unreachable_base(&self) -> Option<&Reason> {
        self.reasons.iter().find(|reason| matches!(reason, Reason::BaseUnreachable { .. } | Reason::RackUnreachable { .. }))
    }
}

/// Decides about a target.
#[must_use]
pub fn decide(facts: &Facts, wishes: Wishes) -> Decision {
    let mut decision = Decision::removed();
    collect(facts, &mut decision);
    decision.verdict = judge(facts, wishes, &decision.reasons);
    if wishes.all {
        decision.reasons.push(Reason::All);
    }
    decision
}

/// Gathers the reasons, without those that only a wish makes.
fn collect(facts: &Facts, decision: &mut Decision) {
    let reasons = &mut decision.reasons;
    let mut recorded = None;
    match &facts.state {
        State::Unasked => {}
        State::Unreachable(message) => reasons.push(Reason::RackUnreachable { message: message.clone() }),
        State::NoApp(_) => return,
        State::NeverDeployed => {
            reasons.push(Reason::NeverDeployed);
            reasons.extend(facts.dirty.iter().cloned().map(Reason::Path));
            return;
        }
        State::Live { not_running: Some(status), .. } => reasons.push(Reason::NotRunning { status: status.clone() }),
        State::Live { recorded: found, .. } => recorded = found.as_ref(),
    }
    // `--base` asks for a range: what runs does not count then.
    let given = matches!(&facts.basis, Basis::Commit { source: BaseSource::Given(_), .. });
    let recorded = recorded.filter(|_| !given);
    let exact = recorded.zip(facts.fingerprint.as_ref());
    let equal = exact.is_some_and(|(recorded, now)| recorded.fingerprint == *now);
    match &facts.basis {
        Basis::Commit { commit, source, changed } => {
            decision.base = Some(commit.clone());
            decision.base_source = Some(source.clone());
            if matches!(source, BaseSource::Revision | BaseSource::Description) {
                decision.notes.push(format!("compared with {source}"));
            }
            if !equal {
                reasons.extend(changed.iter().cloned().map(Reason::Path));
            }
        }
        Basis::Missing { wanted, why, fetch } => match exact {
            Some(_) => {
                let run = fetch.as_ref().map(|fetch| format!("; run `{fetch}`")).unwrap_or_default();
                let newer = matches!(&facts.state, State::Live { commit: Some((_, Ancestry::Ancestor)), .. });
                let order =
                    if newer { "that it is newer than HEAD is told by its time" } else { "whether it is older than HEAD is not checked" };
                decision.notes.push(format!("compared by fingerprint: {wanted}: {why}, so {order}{run}"));
            }
            None => reasons.push(Reason::BaseUnreachable { wanted: wanted.clone(), why: why.clone(), fetch: fetch.clone() }),
        },
        Basis::Unnamed if exact.is_none() => {
            if matches!(facts.state, State::Live { .. }) {
                reasons.push(Reason::NoCommitRecorded);
            }
        }
        Basis::Unnamed => {}
    }
    if equal {
        return;
    }
    reasons.extend(facts.dirty.iter().cloned().map(Reason::Path));
    let other_config = recorded.is_some_and(|recorded| !recorded.config.is_empty() && recorded.config != short_digest(&facts.app_digest));
    if other_config || facts.config_changed {
        reasons.push(Reason::ConfigChanged);
    }
    // Paths and configuration explain a difference better, when they can.
    if reasons.is_empty()
        && let Some((recorded, now)) = exact
    {
        reasons.push(Reason::FingerprintDiffers { recorded: recorded.fingerprint.clone(), now: now.clone() });
    }
}

fn judge(facts: &Facts, wishes: Wishes, reasons: &[Reason]) -> Verdict {
    if let State::NoApp(message) = &facts.state {
        return Verdict::Refused { why: Refusal::NoApp { message: message.clone() } };
    }
    if reasons.is_empty() {
        return if wishes.all { Verdict::Deploy } else { Verdict::UpToDate };
    }
    if let State::Live { commit: Some((live, ancestry)), .. } = &facts.state {
        match ancestry {
            Ancestry::Ancestor if !wishes.allow_older => return Verdict::Stale { live: live.clone() },
            Ancestry::Diverged if !wishes.allow_diverged => return Verdict::Refused { why: Refusal::Diverged { live: live.clone() } },
            _ => {}
        }
    }
    if let Some(RolledBack { from, changed_since: false }) = &facts.rolled_back
        && !wishes.release_hold
    {
        return Verdict::Held { from: from.clone() };
    }
    let dirty: BTreeSet<_> = facts.dirty.iter().map(|reason| &reason.change.path).collect();
    if !dirty.is_empty() && !wishes.allow_dirty {
        return Verdict::Refused { why: Refusal::Dirty { paths: dirty.len() } };
    }
    Verdict::Deploy
}

#[cfg(test)]
mod tests;
