//! A lock that a person sets by hand (`offbuild lock`): for as long as it is there, nothing is deployed to the target.
//!
//! It is a small object kept with the app on the rack, so every runner sees it. It belongs to nobody's run, has no heartbeat, and
//! is over when it is taken away, or at its time. What is there and cannot be read counts as a lock: somebody wanted one.

use super::{ago, plain, until};
use crate::error::{Error, Kind};
use crate::names::Target;
use crate::rack::{Rack, RackError, RackRead};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// The object's name.
const KEY: &str = "freeze";

/// A lock set by hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freeze {
    /// `user@host`.
    pub by: String,
    /// Why.
    pub message: String,
    /// Since when, by the rack's clock.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
    /// Until when, by the rack's clock.
    #[serde(default, with = "time::serde::rfc3339::option")]
    pub until: Option<OffsetDateTime>,
    /// The page of the CI job it was set from.
    #[serde(default)]
    pub ci_url: Option<String>,
    /// It was taken away: racks do not delete objects.
    #[serde(default)]
    pub released: bool,
}

/// The lock set by hand on an app, by its name on the rack, and the rack's time now.
pub async fn of(rack: &dyn RackRead, app: &str) -> Result<(Option<Freeze>, OffsetDateTime), RackError> {
    let Some(bytes) = rack.note(app, KEY).await? else { return Ok((None, now(rack))) };
    let now = now(rack);
    let read = serde_json::from_slice(&bytes);
    let read = read.map(|read: Freeze| Freeze {
        by: plain(&read.by),
        message: plain(&read.message),
        ci_url: read.ci_url.as_deref().map(plain),
        ..read
    });
    let freeze = read.unwrap_or_else(|_| Freeze {
        by: "somebody".to_owned(),
        message: "a lock that this version cannot read".to_owned(),
        since: now,
        until: None,
        ci_url: None,
        released: false,
    });
    let over = freeze.released || freeze.until.is_some_and(|until| until <= now);
    Ok(((!over).then_some(freeze), now))
}

/// Sets or, when it is `released`, takes away the lock of an app.
pub async fn set(rack: &dyn Rack, app: &str, freeze: &Freeze) -> Result<(), RackError> {
    // Strings, times and a bool: this cannot fail.
    let bytes = serde_json::to_vec_pretty(freeze).unwrap_or_default();
    rack.put_note(app, KEY, &bytes).await
}

/// The time by the rack's clock, as its last answer told it: runners' clocks differ.
#[must_use]
pub fn now(rack: &dyn RackRead) -> OffsetDateTime {
    OffsetDateTime::now_utc().saturating_add(rack.clock_ahead().unwrap_or_default())
}

impl Freeze {
    /// `locked by ada@laptop since …, 3m ago: incident 12`.
    #[must_use]
    pub fn describe(&self, now: OffsetDateTime) -> String {
        let end = self.until.map(|at| format!(", until {}", until(at))).unwrap_or_default();
        format!("locked by {} since {}{end}: {}", self.by, ago(self.since, now), self.message)
    }

    /// Why nothing is deployed to `target`.
    #[must_use]
    pub fn refusal(&self, target: &Target, now: OffsetDateTime) -> Error {
        let mut error = Error::new(Kind::Locked, format!("`{target}` is {}", self.describe(now)));
        if let Some(url) = &self.ci_url {
            error = error.because(format!("it was set from {url}"));
        }
        error.hint(format!("when that is over: offbuild unlock {target}"))
    }
}
