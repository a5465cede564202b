//! Where apps go, and what differs there.

use super::apps::{Common, Draft};
use super::file::{self, AppNames};
use super::nearest::known;
use super::resolve::{At, Loading};
use super::{App, RackConfig, TargetConfig, Timeouts};
use crate::names::{AppName, RackName};
use crate::rack::Deliver;
use std::collections::BTreeMap;

/// Checks the racks of `defaults`, once for all apps.
pub(super) fn check_defaults(loading: &mut Loading<'_>, common: &Common<'_>) {
    let at = loading.at(&["defaults", "racks"]);
    for (index, rack) in loading.file.defaults.racks.iter().flatten().enumerate() {
        known_rack(loading, common, rack, &at.item(index));
    }
}

/// The racks a file gives an app, before anything is checked: its own, the defaults', or the only one there is.
pub(super) fn racks_of<'f>(file: &'f file::File, entry: Option<&'f file::App>) -> Vec<(&'f str, Option<&'f file::Overlay>)> {
    match (entry.and_then(|entry| entry.racks.as_ref()), &file.defaults.racks) {
        (Some(racks), _) => racks.entries(),
        (None, Some(racks)) => racks.iter().map(|rack| (rack.as_str(), None)).collect(),
        (None, None) if file.racks.0.len() == 1 => file.racks.keys().map(|rack| (rack, None)).collect(),
        (None, None) => Vec::new(),
    }
}

/// The app's targets in the order written.
pub(super) fn targets(
    loading: &mut Loading<'_>,
    common: &Common<'_>,
    draft: &Draft<'_>,
    entry: &file::App,
    at: &At<'_>,
    timeouts: Timeouts,
) -> Vec<TargetConfig> {
    let file = loading.file;
    let defaults = &file.defaults;
    let nothing = file::Overlay::default();
    let mut targets: Vec<TargetConfig> = Vec::new();
    for (index, (written, overlay)) in racks_of(file, Some(entry)).into_iter().enumerate() {
        let own = entry.racks.is_some();
        let here = at.key("racks").member(index, written);
        let Some(rack) = (if own {
            known_rack(loading, common, written, &here)
        } else {
            RackName::new(written).ok().and_then(|name| common.racks.get(&name))
        }) else {
            continue;
        };
        if targets.iter().any(|target| target.rack == rack.name) {
            if own {
                loading.problem(&here, format!("rack `{written}` is here twice"), "name it once");
            }
            continue;
        }
        let overlay = overlay.unwrap_or(&nothing);
        let named = name(entry, written, overlay);
        let name = named.unwrap_or(draft.name.as_str()).to_owned();
        if let Err(error) = AppName::new(name.as_str()) {
            let place = if overlay.name.is_some() { here.key("name") } else { at.key("name") };
            loading.problem(&place, error.to_string(), "name the app as it is called on the rack");
        }
        let limits = file::Timeouts {
            hook: overlay.timeouts.hook.clone(),
            rack_build: overlay.timeouts.rack_build.clone(),
            promote: overlay.timeouts.promote.clone(),
            ..file::Timeouts::default()
        };
        targets.push(TargetConfig {
            rack: rack.name.clone(),
            name,
            env: overlay.env.clone().unwrap_or_else(|| rack.env.clone()),
            deliver: deliver(overlay, entry, file.racks.get(written), defaults),
            timeouts: loading.timeouts(timeouts, &limits, &here.key("timeouts")),
            revision: overlay.revision.or(entry.revision).or(defaults.revision).unwrap_or(true),
            hold: overlay.hold.or(entry.hold).or(defaults.hold).unwrap_or(true),
        });
    }
    if let Some(AppNames::ByRack(names)) = &entry.name {
        for rack in names.keys().filter(|rack| !targets.iter().any(|target| target.rack.as_str() == rack.as_str())) {
            if loading.damaged.contains("racks") {
                continue;
            }
            let message = format!("app `{}` has a name on rack `{rack}`, but does not go there", draft.name);
            let help = known(rack, targets.iter().map(|target| target.rack.as_str()), "it goes to no rack");
            loading.problem(&at.key("name").named(rack), message, help);
        }
    }
    targets
}

/// The name an app is given on a rack, where it is given one.
pub(super) fn name<'f>(entry: &'f file::App, rack: &str, overlay: &'f file::Overlay) -> Option<&'f str> {
    let own = match &entry.name {
        Some(AppNames::Same(name)) => Some(name.as_str()),
        Some(AppNames::ByRack(names)) => names.get(rack).map(String::as_str),
        None => None,
    };
    overlay.name.as_deref().or(own)
}

/// The way to a rack: what is said of this app goes before what is said of the rack, and that before what is said of all apps.
fn deliver(overlay: &file::Overlay, entry: &file::App, rack: Option<&file::Rack>, defaults: &file::Defaults) -> Deliver {
    overlay.deliver.or(entry.deliver).or(rack.and_then(|rack| rack.deliver)).or(defaults.deliver).unwrap_or_default()
}

fn known_rack<'r>(loading: &mut Loading<'_>, common: &Common<'r>, rack: &str, at: &At<'_>) -> Option<&'r RackConfig> {
    let found = RackName::new(rack).ok().and_then(|name| common.racks.get(&name));
    if found.is_none() && loading.file.racks.get(rack).is_none() && !loading.damaged.contains("racks") && !rack.is_empty() {
        let help = known(rack, loading.file.racks.keys(), "there are no racks; add it under `racks`");
        loading.problem(at, format!("unknown rack `{rack}`"), help);
    }
    found
}

/// Checks what only shows when all apps are there: two apps with one name on a rack, apps that go nowhere.
pub(super) fn check(loading: &mut Loading<'_>, drafts: &[Draft<'_>], apps: &[App]) {
    let mut taken: BTreeMap<(&RackName, &str), &App> = BTreeMap::new();
    for app in apps {
        for target in &app.targets {
            let Some(other) = taken.insert((&target.rack, &target.name), app).filter(|other| other.name != app.name) else { continue };
            let message = format!(
                "apps `{}` ({}) and `{}` are both called `{}` on rack `{}`",
                other.name, other.place, app.name, target.name, target.rack
            );
            loading.problem_at(app.place.clone(), message, "give one of them another `name` there");
        }
    }
    let file = loading.file;
    let silent = |draft: &&Draft<'_>| draft.entry.as_ref().is_none_or(|(entry, _)| entry.racks.is_none());
    if file.racks.0.len() < 2 || file.defaults.racks.is_some() || loading.damaged.contains("racks") {
        return;
    }
    let nowhere: Vec<String> = drafts.iter().filter(silent).map(|draft| format!("`{}`", draft.name)).collect();
    if !nowhere.is_empty() {
        let verb = if nowhere.len() == 1 { "app does" } else { "apps do" };
        let message = format!("{} {verb} not say where to go: {}", nowhere.len(), nowhere.join(", "));
        loading.problem(&loading.at(&[]).named("racks"), message, "set `defaults.racks`, or `racks` of the app (`[]` for no rack)");
    }
}
