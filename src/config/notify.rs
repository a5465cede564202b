//! `notify`: who is told of runs, and when. It decides nothing that is deployed, so it is in no digest.

use super::file::{NotifyFormat, NotifyOn};
use super::nearest::known;
use super::resolve::Loading;
use super::{LazySecret, NotifyConfig};
use crate::names::RackName;
use crate::secret::Secret;
use std::collections::BTreeSet;

/// Checks and resolves the list.
pub(super) fn notify(loading: &mut Loading<'_>) -> Vec<NotifyConfig> {
    let file = loading.file;
    let list = loading.at(&["notify"]);
    let mut resolved = Vec::new();
    for (index, written) in file.notify.iter().enumerate() {
        let at = list.item(index);
        let Some(url) = &written.url else {
            // What is no mapping has been reported already.
            if at.is_there() {
                loading.problem(&at, "this has no `url`, so nobody is told", "write `url: ${VARIABLE}`, the address of a webhook");
            }
            continue;
        };
        let value = loading.later(url, &at.key("url"));
        let is_address = |url: &String| url::Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
        // The variable's value is a secret: the message does not repeat it.
        let value = value.and_then(|url| if is_address(&url) { Ok(url) } else { Err("it is no `https://` address".to_owned()) });
        let mut racks = BTreeSet::new();
        for (index, rack) in written.racks.iter().enumerate() {
            if file.racks.get(rack).is_some() {
                racks.extend(RackName::new(rack.as_str()));
            } else {
                let help = known(rack, file.racks.keys(), "there are no racks");
                loading.problem(&at.key("racks").item(index), format!("`notify` names the unknown rack `{rack}`"), help);
            }
        }
        resolved.push(NotifyConfig {
            place: at.place(),
            url: LazySecret { value: value.map(Secret::new) },
            format: written.format.unwrap_or(NotifyFormat::Json),
            on: written.on.clone().unwrap_or_else(|| vec![NotifyOn::End]).into_iter().collect(),
            racks,
        });
    }
    resolved
}

impl NotifyConfig {
    /// True when it is told of what happens on this rack.
    #[must_use]
    pub fn concerns(&self, rack: &RackName) -> bool {
        self.racks.is_empty() || self.racks.contains(rack)
    }
}

impl NotifyFormat {
    /// The format as the file spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Slack => "slack",
        }
    }
}

impl NotifyOn {
    /// The moment as the file spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::End => "end",
            Self::Failure => "failure",
        }
    }
}
