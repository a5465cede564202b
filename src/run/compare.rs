//! The comparison behind `changed` and `why`: with what runs on the racks or, when none can be asked, with a base.

use super::fetch::fetch;
use super::read::{self, AllLive, Ask, Found, Judgement};
use super::world::{AskedHead, World};
use crate::changes::affected::Affected;
use crate::changes::base::{self, Choice};
use crate::changes::survey::Left;
use crate::changes::verdict::{Decision, Verdict};
use crate::changes::{Change, ChangeKind};
use crate::cli::{Base, Global, Selection};
use crate::config::{self, Removed};
use crate::discovery::is_manifest;
use crate::error::{Error, Result};
use crate::names::{CommitId, RepoPath};
use crate::plan::Gone;
use std::collections::{BTreeMap, BTreeSet};

/// What was compared, and what came of it.
pub(super) struct Comparison {
    pub(super) world: World,
    pub(super) found: Vec<Found>,
    pub(super) judgement: Judgement,
}

/// Judges the selected targets, with `committed` by commits alone, with `head` of another commit than the one that is checked out.
/// Nothing is refused here: what is not committed, diverged or held is an answer, too.
pub(super) async fn compare(
    global: &Global,
    selection: &Selection,
    base: &Base,
    committed: bool,
    head: Option<&AskedHead>,
) -> Result<Comparison> {
    let committed = committed || head.is_some();
    let open = || if committed { World::committed(global, selection, head) } else { World::open(global, selection) };
    let mut world = open()?;
    let ask = Ask { base: base.clone(), allow_dirty: true, allow_diverged: true, committed, verdicts_only: true, ..Ask::default() };
    let mut found = tokio::task::block_in_place(|| read::apps(&world))?;
    let (live, note) = match &base.base {
        Some(_) => (None, None),
        None => match live(&world).await {
            Ok(live) => (Some(live), None),
            Err(why) => (None, Some(format!("no rack can be asked what is live ({why}); compared with a base instead"))),
        },
    };
    let judge = |world: &World, found: &[Found]| {
        let given = match &live {
            Some(_) => None,
            None => Some(read::chosen_base(&*world.history, &world.head.commit.id, &world.env, base.base.as_deref())?),
        };
        Ok::<_, Error>((read::judge(world, found, live.as_ref(), &ask, given.clone())?, given))
    };
    let (mut judgement, mut given) = tokio::task::block_in_place(|| judge(&world, &found))?;
    if base.fetch && tokio::task::block_in_place(|| fetch(&world, &judgement))? {
        world = open()?;
        found = tokio::task::block_in_place(|| read::apps(&world))?;
        (judgement, given) = tokio::task::block_in_place(|| judge(&world, &found))?;
    }
    judgement.notes.extend(note);
    judgement.notes.extend(head.map(|head| format!("head {} from {}", world.head.commit.id.short(), head.name)));
    if let Some(Choice::Found(base)) = &given {
        judgement.notes.extend(base_notes(base));
    }
    Ok(Comparison { world, found, judgement })
}

/// Where a base comes from, and what was passed over for it.
pub(super) fn base_notes(base: &base::Base) -> impl Iterator<Item = String> {
    std::iter::once(format!("base {} from {}", base.commit.short(), base.source)).chain(base.notes.iter().cloned())
}

/// What is live, or why no rack at all can tell.
async fn live(world: &World) -> Result<AllLive, String> {
    let racks = world.rack_clients().map_err(|error| error.one_line())?;
    if racks.is_empty() {
        return Err("no rack is configured".to_owned());
    }
    let live = read::live(world, &racks).await;
    read::no_rack(&live).map_or(Ok(live), |error| Err(error.one_line()))
}

/// True for a target that a deploy would release, were it not for a guard.
pub(super) fn is_changed(decision: &Decision) -> bool {
    matches!(decision.verdict, Verdict::Deploy | Verdict::Refused { .. })
}

/// The directories that were an app's and are none's now.
pub(super) fn left(world: &World) -> Left<'_> {
    Box::new(|base, changes| {
        let read = || {
            let text = world.history.read(base, world.config.file.as_ref()?).ok()??;
            config::left(&world.config, std::str::from_utf8(&text).ok()?, &emptied(changes)).ok()
        };
        read().unwrap_or_default()
    })
}

/// The directories that lost their manifest.
fn emptied<'c>(changes: impl IntoIterator<Item = &'c Change>) -> BTreeSet<RepoPath> {
    let lost = changes.into_iter().filter(|change| change.kind == ChangeKind::Deleted && is_manifest(&change.path));
    lost.map(|change| change.path.parent()).collect()
}

/// The apps that were there at a base and are gone, each with the base; nothing is done about them.
///
/// Only directories that lost their manifest and entries of an earlier `apps.yaml` are looked at, never the whole tree.
pub(super) fn removed(world: &World, judgement: &Judgement) -> Result<Vec<Gone>> {
    let Some(file) = &world.config.file else { return Ok(Vec::new()) };
    let Affected { reasons, unowned, left, .. } = &judgement.dirty_paths;
    let dirty: Vec<&Change> = reasons.values().flatten().map(|reason| &reason.change).chain(unowned).chain(left).collect();
    let mut gone: BTreeMap<Removed, CommitId> = BTreeMap::new();
    for (base, compared) in &judgement.compared {
        let changes = || compared.changes.iter().chain(dirty.iter().copied());
        let emptied = emptied(changes());
        if emptied.is_empty() && !changes().any(|change| change.path == *file) {
            continue;
        }
        let Some(text) = world.history.read(base, file)? else { continue };
        // A configuration that cannot be read had no apps that anybody could have deployed.
        let former = config::removed(&world.config, &*world.files, &String::from_utf8_lossy(&text), &emptied).unwrap_or_default();
        for app in former {
            gone.entry(app).or_insert_with(|| base.clone());
        }
    }
    Ok(gone.into_iter().map(|(app, base)| Gone { app, base }).collect())
}
