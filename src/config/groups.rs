//! Groups: apps that go back together. An app belongs to one at most, so that going back is one decision, not a chain of them.

use super::nearest::known;
use super::resolve::Loading;
use super::{App, apps::Draft};
use crate::names::AppName;
use std::collections::BTreeMap;

/// The group of each app that is in one.
fn groups(loading: &mut Loading<'_>, drafts: &[Draft<'_>]) -> BTreeMap<AppName, String> {
    let file = loading.file;
    let at = loading.at(&["groups"]);
    let mut member_of: BTreeMap<AppName, String> = BTreeMap::new();
    for (group, members) in file.groups.iter() {
        let named = at.named(group);
        // The name is said in outcomes and in the description of releases.
        if group.is_empty() || !group.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
            loading.problem(&named, format!("`{group}` is no name for a group"), "use letters, digits, `-`, `_` and `.`");
            continue;
        }
        if members.len() < 2 {
            loading.problem(
                &named,
                format!("group `{group}` has fewer than two apps"),
                "name the apps that go back together, or take it away",
            );
        }
        for (index, member) in members.iter().enumerate() {
            let here = at.key(group).item(index);
            let Some(draft) = drafts.iter().find(|draft| draft.name.as_str() == member) else {
                // An entry that is wrong in itself has its own problem.
                if file.apps.get(member).is_none() {
                    let help = known(member, drafts.iter().map(|draft| draft.name.as_str()), "there are no apps");
                    loading.problem(&here, format!("group `{group}` names the unknown app `{member}`"), help);
                }
                continue;
            };
            if let Some(other) = member_of.insert(draft.name.clone(), group.to_owned()) {
                let message = if other == group {
                    format!("group `{group}` names app `{member}` twice")
                } else {
                    format!("app `{member}` is in the groups `{other}` and `{group}`")
                };
                loading.problem(&here, message, "an app is in one group; make one of the two, or take it out");
            }
        }
    }
    member_of
}

/// Tells every app its group.
pub(super) fn assign(loading: &mut Loading<'_>, drafts: &[Draft<'_>], apps: &mut [App]) {
    let mut groups = groups(loading, drafts);
    for app in apps {
        app.group = groups.remove(&app.name);
    }
}
