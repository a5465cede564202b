//! The JSON that `changed`, `why` and `lint` answer with; the README's "Machine output" lists the fields.
//!
//! These types are the contract with programs that read it, apart from the types the program works with: fields are added,
//! never renamed or taken away, within one [`VERSION`].

use super::compare::is_changed;
use crate::changes::near::{Miss, Missed};
use crate::changes::verdict::{Decision, Reason, Verdict};
use crate::changes::{Change, ChangeKind, CommitInfo, Head, Rule};
use crate::names::{AppName, CommitId, RackName, RepoPath};
use crate::plan::Gone;
use crate::yaml::Place;
use serde::Serialize;
use std::collections::BTreeSet;

/// The version of the JSON.
pub(super) const VERSION: u32 = 1;

/// `offbuild changed --format json`.
#[derive(Debug, Serialize)]
pub(super) struct Changed<'a> {
    pub(super) version: u32,
    /// The commit that is checked out.
    pub(super) head: Option<&'a Head>,
    /// True when something changed.
    pub(super) any: bool,
    /// The changed apps, by name.
    pub(super) affected: BTreeSet<&'a AppName>,
    /// Every selected target.
    pub(super) targets: Vec<Target<'a>>,
    /// Apps that were there at a base and are gone. Nothing is done to the rack.
    pub(super) removed: Vec<GoneApp<'a>>,
    /// Changed paths that no app owns and no pattern ignores.
    pub(super) unowned: Vec<&'a Change>,
    /// What people are told beside the answer.
    pub(super) notes: &'a [String],
}

/// `offbuild why --format json`.
#[derive(Debug, Serialize)]
pub(super) struct Why<'a> {
    pub(super) version: u32,
    /// The commit that is checked out.
    pub(super) head: &'a Head,
    /// The targets asked for.
    pub(super) targets: Vec<Target<'a>>,
    /// What people are told beside the answer.
    pub(super) notes: &'a [String],
}

/// A target with its verdict.
#[derive(Debug, Serialize)]
pub(super) struct Target<'a> {
    /// `app@rack`.
    pub(super) target: String,
    pub(super) app: &'a AppName,
    pub(super) rack: &'a RackName,
    /// True when a deploy would release it, were it not for a guard.
    pub(super) changed: bool,
    /// `deploy`, `up-to-date`, `held`, `stale`, `refused`.
    pub(super) verdict: &'static str,
    /// Why a guard refuses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) refusal: Option<String>,
    /// What it was compared with; absent when there is nothing to compare with.
    pub(super) base: Option<Base<'a>>,
    /// Every reason to deploy.
    pub(super) reasons: Vec<ReasonOf<'a>>,
    /// Changed paths that came near and do not count, with what kept them out.
    pub(super) near: Vec<Near<'a>>,
    /// The commits since the base that touch it (`why` only).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) waiting: Option<Waiting<'a>>,
    /// What else is worth knowing about the comparison.
    pub(super) notes: &'a [String],
}

/// What a target was compared with.
#[derive(Debug, Serialize)]
pub(super) struct Base<'a> {
    pub(super) commit: &'a CommitId,
    /// Where the commit came from, as text.
    pub(super) source: String,
    /// The commit itself (`why` only).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) info: Option<CommitInfo>,
}

/// A reason to deploy.
#[derive(Debug, Serialize)]
pub(super) struct ReasonOf<'a> {
    /// `path`, `never-deployed`, `config-changed`, `fingerprint-differs`, `base-unreachable`, `rack-unreachable`, `not-running`,
    /// `no-commit-recorded`, `all`.
    pub(super) reason: &'static str,
    /// The reason in one line.
    pub(super) text: String,
    /// The path, for `path`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) path: Option<&'a RepoPath>,
    /// `added`, `modified` or `deleted`, for `path`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) change: Option<ChangeKind>,
    /// True when it is not committed, for `path`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dirty: Option<bool>,
    /// The rule that makes it count, for `path`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rule: Option<RuleOf<'a>>,
}

/// A rule.
#[derive(Debug, Serialize)]
pub(super) struct RuleOf<'a> {
    /// `directory`, `uses`, `global`, `context`, `dockerfile`, `dockerignore`, `manifest`, `hook`, `build`, `ignore`, `unowned`.
    pub(super) kind: &'a str,
    /// The pattern or path.
    pub(super) matches: &'a str,
    /// Where it is written.
    pub(super) place: Option<&'a Place>,
    /// The sets it came through, outermost first.
    pub(super) through: &'a [String],
}

/// A changed path that does not count.
#[derive(Debug, Serialize)]
pub(super) struct Near<'a> {
    pub(super) path: &'a RepoPath,
    pub(super) change: ChangeKind,
    pub(super) dirty: bool,
    /// `ignored`, `hidden` (by `.dockerignore`) or `outside` (of the closest rule).
    pub(super) why: &'static str,
    /// The rule that took it out, hides it, or is the closest.
    pub(super) rule: RuleOf<'a>,
    /// All of it in one line.
    pub(super) text: String,
}

/// What waits to be deployed.
#[derive(Debug, Serialize)]
pub(super) struct Waiting<'a> {
    /// All commits since the base, whatever they touch.
    pub(super) since_base: usize,
    /// True when there are more than were looked at, or history is cut off.
    pub(super) more: bool,
    /// Those that touch the app, the newest first.
    pub(super) commits: Vec<Commit<'a>>,
    /// Who made them, each once.
    pub(super) authors: BTreeSet<&'a str>,
}

/// A commit that touches an app.
#[derive(Debug, Serialize)]
pub(super) struct Commit<'a> {
    pub(super) commit: &'a CommitInfo,
    /// The app's inputs among what it changed.
    pub(super) paths: Vec<&'a RepoPath>,
}

/// An app that is gone.
#[derive(Debug, Serialize)]
pub(super) struct GoneApp<'a> {
    pub(super) app: &'a AppName,
    /// The directory it had.
    pub(super) dir: &'a RepoPath,
    /// The racks it went to.
    pub(super) racks: &'a [RackName],
    /// The commit it was still there at.
    pub(super) base: &'a CommitId,
}

/// `offbuild why --what-if … --format json`.
#[derive(Debug, Serialize)]
pub(super) struct WhatIf<'a> {
    pub(super) version: u32,
    /// The paths that were asked about, as files: directories stand for what is in them.
    pub(super) what_if: &'a [Change],
    /// Every selected app.
    pub(super) apps: Vec<WhatIfApp<'a>>,
    /// Those that no app owns and no pattern ignores.
    pub(super) unowned: Vec<&'a Change>,
    pub(super) notes: &'a [String],
}

/// What would become of an app.
#[derive(Debug, Serialize)]
pub(super) struct WhatIfApp<'a> {
    pub(super) app: &'a AppName,
    pub(super) racks: Vec<&'a RackName>,
    /// True when it would be deployed.
    pub(super) changed: bool,
    pub(super) reasons: Vec<ReasonOf<'a>>,
    pub(super) near: Vec<Near<'a>>,
}

impl<'a> Target<'a> {
    pub(super) fn new(target: &'a crate::names::Target, decision: &'a Decision, near: &'a [Miss]) -> Self {
        let base = decision.base.as_ref().zip(decision.base_source.as_ref());
        Self {
            target: target.to_string(),
            app: &target.app,
            rack: &target.rack,
            changed: is_changed(decision),
            verdict: decision.verdict.word(),
            refusal: match &decision.verdict {
                Verdict::Refused { why } => Some(why.to_string()),
                _ => None,
            },
            base: base.map(|(commit, source)| Base { commit, source: source.to_string(), info: None }),
            reasons: decision.reasons.iter().map(ReasonOf::new).collect(),
            near: near.iter().map(Near::new).collect(),
            waiting: None,
            notes: &decision.notes,
        }
    }
}

impl<'a> ReasonOf<'a> {
    pub(super) fn new(reason: &'a Reason) -> Self {
        let path = match reason {
            Reason::Path(path) => Some(path),
            _ => None,
        };
        Self {
            reason: reason.word(),
            text: reason.to_string(),
            path: path.map(|path| &path.change.path),
            change: path.map(|path| path.change.kind),
            dirty: path.map(|path| path.change.dirty),
            rule: path.map(|path| RuleOf::new(&path.rule)),
        }
    }
}

impl<'a> RuleOf<'a> {
    fn new(rule: &'a Rule) -> Self {
        Self { kind: rule.kind, matches: &rule.matches, place: rule.place.as_ref(), through: &rule.through }
    }
}

impl<'a> Near<'a> {
    pub(super) fn new(miss: &'a Miss) -> Self {
        let (why, rule) = match &miss.why {
            Missed::Ignored(rule) => ("ignored", rule),
            Missed::Hidden(rule) => ("hidden", rule),
            Missed::Outside(rule) => ("outside", rule),
        };
        let Change { path, kind, dirty } = &miss.change;
        Self { path, change: *kind, dirty: *dirty, why, rule: RuleOf::new(rule), text: miss.to_string() }
    }
}

impl<'a> GoneApp<'a> {
    pub(super) fn new(gone: &'a Gone) -> Self {
        Self { app: &gone.app.name, dir: &gone.app.dir, racks: &gone.app.racks, base: &gone.base }
    }
}
