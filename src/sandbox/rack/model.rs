//! What a rack knows: apps, builds, releases, processes; and how a rollout moves on with time.
//!
//! A rollout is not a task but a start and a fate: what an app's status is follows from the clock, so that a sandbox that
//! was stopped in the middle of a promote goes on where the real rack would be.

use super::Version;
use crate::names::Digest;
use crate::sandbox::symptom::Symptom;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use time::OffsetDateTime;

/// As many log lines as an app keeps.
const LOG_LINES: usize = 2_000;

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Role {
    Read,
    Write,
}

/// The login for a registry, stored with `POST /registries`.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Credentials {
    pub(super) username: String,
    pub(super) password: String,
}

/// Everything a rack keeps.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) password: String,
    pub(super) tokens: BTreeMap<String, Role>,
    pub(super) registries: BTreeMap<String, Credentials>,
    pub(super) apps: BTreeMap<String, App>,
}

/// An app.
#[derive(Serialize, Deserialize)]
pub(super) struct App {
    pub(super) generation: u8,
    #[serde(with = "time::serde::rfc3339")]
    pub(super) created: OffsetDateTime,
    pub(super) locked: bool,
    pub(super) parameters: BTreeMap<String, String>,
    pub(super) active: Option<String>,
    pub(super) rollout: Option<Rollout>,
    /// In the order they were made.
    pub(super) builds: Vec<Build>,
    /// In the order they were made.
    pub(super) releases: Vec<Release>,
    pub(super) processes: BTreeMap<String, Process>,
    #[serde(skip)]
    pub(super) log: Log,
}

/// The last lines of an app's log, numbered so that a reader knows where it was.
#[derive(Default)]
pub(super) struct Log {
    pub(super) lines: VecDeque<LogLine>,
    /// The number of the first line that is kept.
    pub(super) first: usize,
}

/// A line of an app's log.
#[derive(Clone)]
pub(super) struct LogLine {
    pub(super) time: OffsetDateTime,
    pub(super) source: String,
    pub(super) text: String,
}

/// A build.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Build {
    pub(super) id: String,
    pub(super) description: String,
    pub(super) git_sha: String,
    pub(super) manifest: String,
    pub(super) entrypoint: String,
    pub(super) process: String,
    pub(super) release: String,
    pub(super) reason: String,
    pub(super) status: String,
    pub(super) logs: String,
    #[serde(with = "time::serde::rfc3339::option")]
    pub(super) started: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub(super) ended: Option<OffsetDateTime>,
    pub(super) external: bool,
    pub(super) importing: bool,
    /// What the rack copied into the app's own repository, by service.
    pub(super) images: BTreeMap<String, Digest>,
    /// The output so far, while a builder works.
    #[serde(skip)]
    pub(super) output: String,
}

/// A release.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Release {
    pub(super) id: String,
    pub(super) build: String,
    pub(super) env: String,
    pub(super) manifest: String,
    pub(super) description: String,
    #[serde(with = "time::serde::rfc3339")]
    pub(super) created: OffsetDateTime,
}

/// A one-off process.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Process {
    pub(super) service: String,
    pub(super) command: String,
    pub(super) release: String,
    #[serde(with = "time::serde::rfc3339")]
    pub(super) started: OffsetDateTime,
}

/// How a rollout is going to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Fate {
    Takes,
    RollsBack,
    Hangs,
}

/// A release on its way to being active.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Rollout {
    /// What was active before.
    pub(super) from: Option<String>,
    /// What is to be.
    pub(super) to: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    pub(super) started: OffsetDateTime,
    pub(super) fate: Fate,
    /// Why it rolls back, for the log.
    pub(super) reason: String,
    /// What is wrong with its processes.
    #[serde(default)]
    pub(super) symptom: Option<Symptom>,
    /// The last step the log has.
    pub(super) told: Option<Step>,
}

/// Where a rollout is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Step {
    Updating,
    /// Rolling back, and version 3 still names the new release.
    RollbackNew,
    RollbackOld,
    Done,
}

impl Rollout {
    /// Where it is at `now`; each half of the work takes `pace`.
    pub(super) fn step(&self, now: OffsetDateTime, pace: Duration) -> Step {
        let elapsed = now - self.started;
        match self.fate {
            Fate::Hangs => Step::Updating,
            _ if elapsed < pace => Step::Updating,
            Fate::Takes => Step::Done,
            Fate::RollsBack if elapsed < pace + pace / 2 => Step::RollbackNew,
            Fate::RollsBack if elapsed < pace * 2 => Step::RollbackOld,
            Fate::RollsBack => Step::Done,
        }
    }

    /// What is active once it is done.
    pub(super) fn outcome(&self) -> Option<String> {
        if self.fate == Fate::Takes { self.to.clone() } else { self.from.clone() }
    }

    /// Turns it around now.
    pub(super) fn cancel(&mut self, now: OffsetDateTime, pace: Duration) {
        self.fate = Fate::RollsBack;
        "User initiated".clone_into(&mut self.reason);
        self.started = now - pace;
    }

    /// What the log says when it comes to `step`.
    fn line(&self, version: Version, app: &str, step: Step) -> Option<String> {
        let to = self.to.as_deref().unwrap_or_default();
        let failed = self.fate == Fate::RollsBack;
        Some(match (version, step) {
            (Version::V2, Step::Updating) => format!("UPDATE_IN_PROGRESS: {app} {to}"),
            (Version::V2, Step::RollbackNew) => format!("UPDATE_ROLLBACK_IN_PROGRESS: {app} {}", self.reason),
            (Version::V2, Step::Done) if failed => format!("UPDATE_ROLLBACK_COMPLETE: {app}"),
            (Version::V2, Step::Done) => format!("UPDATE_COMPLETE: {app}"),
            (Version::V3, Step::Updating) => format!("Status: Running => Pending {to}"),
            (Version::V3, Step::RollbackNew) => format!("Status: Updating => Rollback {}", self.reason),
            (Version::V3, Step::Done) if failed => "Status: Rollback => Reverted".to_owned(),
            (Version::V3, Step::Done) => "Status: Updating => Running".to_owned(),
            (_, Step::RollbackOld) => return None,
        })
    }
}

impl App {
    /// A new app.
    pub(super) fn new(generation: u8, created: OffsetDateTime) -> Self {
        Self {
            generation,
            created,
            locked: false,
            parameters: BTreeMap::new(),
            active: None,
            rollout: None,
            builds: Vec::new(),
            releases: Vec::new(),
            processes: BTreeMap::new(),
            log: Log::default(),
        }
    }

    /// Starts a rollout that hung, as one that takes.
    pub(super) fn release_hung(&mut self, now: OffsetDateTime) {
        if let Some(rollout) = self.rollout.as_mut().filter(|rollout| rollout.fate == Fate::Hangs) {
            (rollout.fate, rollout.started) = (Fate::Takes, now);
        }
    }

    /// Lets a rollout get to where it is at `now`, and writes down the steps it took.
    pub(super) fn settle(&mut self, version: Version, name: &str, now: OffsetDateTime, pace: Duration) {
        let Some(rollout) = &mut self.rollout else { return };
        let step = rollout.step(now, pace);
        let mut lines = Vec::new();
        for passed in [Step::Updating, Step::RollbackNew, Step::RollbackOld, Step::Done] {
            // A rollout that takes never was in the two steps back.
            let taken = passed <= step && (rollout.fate == Fate::RollsBack || !matches!(passed, Step::RollbackNew | Step::RollbackOld));
            if taken && rollout.told.is_none_or(|told| told < passed) {
                lines.extend(rollout.line(version, name, passed));
                rollout.told = Some(passed);
            }
        }
        if step == Step::Done {
            self.active = rollout.outcome();
            self.rollout = None;
        }
        let source = match version {
            Version::V2 => "system/cloudformation",
            Version::V3 => "system/k8s/atom/app",
        };
        for text in lines {
            self.log.push(now, source, text);
        }
    }

    /// The status and release `GET /apps/NAME` shows. To be called on a settled app.
    pub(super) fn shown(&self, version: Version, now: OffsetDateTime, pace: Duration) -> (&'static str, Option<&str>) {
        let Some(rollout) = &self.rollout else {
            let creating = version == Version::V2 && now - self.created < pace;
            return (if creating { "creating" } else { "running" }, self.active.as_deref());
        };
        let (from, to) = (rollout.from.as_deref(), rollout.to.as_deref());
        match (rollout.step(now, pace), version) {
            (Step::Updating, Version::V2) => ("updating", from),
            (Step::Updating, Version::V3) => ("updating", to),
            (Step::RollbackNew, Version::V3) => ("rollback", to),
            (Step::RollbackNew | Step::RollbackOld, _) => ("rollback", from),
            (Step::Done, _) => ("running", if rollout.fate == Fate::Takes { to } else { from }),
        }
    }

    /// The build with this id.
    pub(super) fn build(&self, id: &str) -> Option<&Build> {
        self.builds.iter().find(|build| build.id == id)
    }

    /// As [`App::build`], to change it.
    pub(super) fn build_mut(&mut self, id: &str) -> Option<&mut Build> {
        self.builds.iter_mut().find(|build| build.id == id)
    }

    /// The release with this id.
    pub(super) fn release(&self, id: &str) -> Option<&Release> {
        self.releases.iter().find(|release| release.id == id)
    }

    /// A time for a new release: now, and later than every other's.
    pub(super) fn next_moment(&self) -> OffsetDateTime {
        let last = self.releases.last().map(|release| release.created + Duration::from_nanos(1));
        last.into_iter().fold(OffsetDateTime::now_utc(), OffsetDateTime::max)
    }

    /// The env of the newest release: what a build is checked against.
    pub(super) fn latest_env(&self) -> &str {
        self.releases.last().map_or("", |release| &release.env)
    }
}

impl Log {
    /// Adds a line, and drops the oldest when there are too many.
    pub(super) fn push(&mut self, time: OffsetDateTime, source: &str, text: impl Into<String>) {
        self.lines.push_back(LogLine { time, source: source.to_owned(), text: text.into() });
        if self.lines.len() > LOG_LINES {
            self.lines.pop_front();
            self.first += 1;
        }
    }

    /// The lines from number `next` on, and the number after the last.
    pub(super) fn since(&self, next: usize) -> (Vec<LogLine>, usize) {
        let skip = next.saturating_sub(self.first);
        (self.lines.iter().skip(skip).cloned().collect(), self.first + self.lines.len())
    }
}

/// A new id: `kind` and ten capitals.
pub(super) fn new_id(kind: char) -> String {
    std::iter::once(kind).chain((0..10).map(|_| char::from(fastrand::u8(b'A'..=b'Z')))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Duration = Duration::from_secs(10);

    /// The sequence of status and release that a client would see, without repeats.
    fn sequence(version: Version, fate: Fate) -> Vec<String> {
        let start = OffsetDateTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let mut app = App::new(2, OffsetDateTime::UNIX_EPOCH);
        app.active = Some("old".to_owned());
        app.rollout = Some(Rollout {
            from: app.active.clone(),
            to: Some("new".to_owned()),
            started: start,
            fate,
            reason: "it broke".to_owned(),
            symptom: None,
            told: None,
        });
        let mut seen: Vec<String> = Vec::new();
        for second in 0..30 {
            let now = start + Duration::from_secs(second);
            app.settle(version, "web", now, PACE);
            let (status, release) = app.shown(version, now, PACE);
            let line = format!("{status}/{}", release.unwrap_or_default());
            if seen.last() != Some(&line) {
                seen.push(line);
            }
        }
        seen
    }

    #[test]
    fn status_and_release_follow_the_sequences_of_each_version() {
        assert_eq!(sequence(Version::V2, Fate::Takes), ["updating/old", "running/new"]);
        assert_eq!(sequence(Version::V2, Fate::RollsBack), ["updating/old", "rollback/old", "running/old"]);
        assert_eq!(sequence(Version::V3, Fate::Takes), ["updating/new", "running/new"]);
        assert_eq!(sequence(Version::V3, Fate::RollsBack), ["updating/new", "rollback/new", "rollback/old", "running/old"]);
        assert_eq!(sequence(Version::V3, Fate::Hangs), ["updating/new"]);
    }

    #[test]
    fn the_log_has_every_step_however_late_it_is_asked() {
        let start = OffsetDateTime::UNIX_EPOCH;
        let mut app = App::new(2, start);
        let rollout = Rollout {
            from: None,
            to: Some("RNEW".to_owned()),
            started: start,
            fate: Fate::RollsBack,
            reason: "no such image".to_owned(),
            symptom: None,
            told: None,
        };
        app.rollout = Some(rollout);
        app.settle(Version::V2, "web", start + PACE * 5, PACE);
        let (lines, next) = app.log.since(0);
        let texts: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(
            texts,
            ["UPDATE_IN_PROGRESS: web RNEW", "UPDATE_ROLLBACK_IN_PROGRESS: web no such image", "UPDATE_ROLLBACK_COMPLETE: web"]
        );
        assert_eq!((next, app.active.clone()), (3, None));
        app.settle(Version::V2, "web", start + PACE * 6, PACE);
        assert_eq!(app.log.since(next).0.len(), 0);
    }

    #[test]
    fn releases_are_made_one_after_another() {
        let mut app = App::new(2, OffsetDateTime::UNIX_EPOCH);
        for _ in 0..50 {
            let created = app.next_moment();
            assert!(app.releases.last().is_none_or(|last| last.created < created));
            app.releases.push(Release {
                id: new_id('R'),
                build: String::new(),
                env: String::new(),
                manifest: String::new(),
                description: String::new(),
                created,
            });
        }
    }
}
