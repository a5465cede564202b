//! Makes the plan: a pure function of facts that were read before.
//!
//! 1. Every app that is released somewhere gets its images, each with what the registry already has of it.
//! 2. Equal builds become one.
//! 3. Each rack's targets are put in order: `after` first, then as configured.

use super::adopt::{Candidate, adopt};
use super::{AppPlan, BuildPlan, Decision, Gone, ImageAction, ImagePlan, LanePlan, Options, Origin, Plan, PlannedLive, TargetPlan, Trap};
use crate::build::ImageBuild;
use crate::changes::Head;
use crate::config::{App, HookConfig, HookKind, TargetConfig};
use crate::error::{Error, Result};
use crate::event::FailureClass;
use crate::manifest::{ImagePlace, Manifest, ServiceBuild, image_fingerprint, image_tags};
use crate::names::{AppName, CommitId, Digest, Fingerprint, RackName, ReleaseId, RepoPath, Repository, RunId, ServiceName, Target};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

/// What was read about an app.
#[derive(Debug, Clone)]
pub struct AppFacts {
    /// Its configuration.
    pub app: App,
    /// Its directory, absolute.
    pub dir: PathBuf,
    /// Its manifest.
    pub manifest: Arc<Manifest>,
    /// Its fingerprint; `None` for an app of which nothing is released.
    pub fingerprint: Option<Fingerprint>,
    /// The sha of its tags: the commit's, with `-dirty.<hash>` behind it when its inputs hold uncommitted changes.
    pub revision: String,
    /// The hooks it has.
    pub hooks: BTreeMap<HookKind, HookConfig>,
}

/// What was read and decided about a target.
#[derive(Debug, Clone)]
pub struct TargetFacts {
    /// The target.
    pub target: Target,
    /// Its settings.
    pub config: TargetConfig,
    /// The verdict.
    pub decision: Decision,
    /// Its reasons.
    pub reasons: Vec<String>,
    /// What it was compared with.
    pub base: Option<CommitId>,
    /// Where that came from.
    pub base_source: String,
    /// What is live.
    pub live: Option<PlannedLive>,
    /// What will be recorded with the rack's build.
    pub description: String,
    /// A release of an earlier run that may be taken over.
    pub staged: Option<Candidate>,
    /// A release that is newer than the active one and not live.
    pub trap: Option<Trap>,
    /// What was live before this run, or before the one it goes on with.
    pub before: Option<ReleaseId>,
}

/// A rack's place among the others.
#[derive(Debug, Clone)]
pub struct RackFacts {
    /// Its name.
    pub rack: RackName,
    /// Racks whose lanes come first.
    pub after: Vec<RackName>,
    /// BuildKit's cache goes to and comes from the registry.
    pub registry_cache: bool,
}

/// What the registry told about a repository: which of the asked tags exist, and what labels the images have whose commit
/// tag exists without the fingerprint's.
#[derive(Debug, Clone, Default)]
pub struct Existing {
    /// Tag → digest.
    pub tags: BTreeMap<(Repository, String), Digest>,
    /// The fingerprints an image says it has.
    pub fingerprints: BTreeMap<(Repository, Digest), BTreeSet<String>>,
}

/// Everything that was read.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The run.
    pub run: RunId,
    /// HEAD.
    pub head: Head,
    /// The apps, in the configuration's order.
    pub apps: Vec<AppFacts>,
    /// The racks, in the configuration's order.
    pub racks: Vec<RackFacts>,
    /// The targets.
    pub targets: Vec<TargetFacts>,
    /// What the registries have.
    pub existing: Existing,
    /// Apps that were there and are gone.
    pub removed: Vec<Gone>,
    /// Notes for the reader.
    pub notes: Vec<String>,
    /// The page of the CI job.
    pub ci_url: Option<String>,
}

/// The label that carries the fingerprints of the apps an image was built for and its own for each, separated by blanks.
pub const FINGERPRINT_LABEL: &str = "dev.offbuild.fingerprint";

/// Where an app's images go, before anything is known about what is there, and what makes them.
pub fn places(app: &AppFacts) -> Result<Vec<(ServiceName, &ServiceBuild, ImagePlace)>> {
    let mut places = Vec::new();
    for service in &app.manifest.services {
        let Some(build) = &service.build else { continue };
        let place = image_tags(&service.name, service.image.as_ref(), app.app.repository.as_deref(), &app.app.name, &app.revision)
            .map_err(|error| error.because(format!("the service is at {}", service.place)))?;
        places.push((service.name.clone(), build, place));
    }
    Ok(places)
}

/// Makes the plan.
///
/// # Errors
/// A configuration error for an image without a place or an order that cannot be kept.
pub fn plan(facts: Facts, options: Options) -> Result<Plan> {
    let released: BTreeSet<&AppName> =
        facts.targets.iter().filter(|target| target.decision == Decision::Release).map(|target| &target.target.app).collect();
    let mut builds = Builds::default();
    let mut apps = BTreeMap::new();
    for app in facts.apps.iter().filter(|app| released.contains(&app.app.name)) {
        apps.insert(app.app.name.clone(), app_plan(app, &facts, &mut builds)?);
    }
    let mut lanes = Vec::new();
    for rack in &facts.racks {
        let targets: Vec<&TargetFacts> = facts.targets.iter().filter(|target| target.target.rack == rack.rack).collect();
        if !targets.is_empty() {
            let mut targets = in_order(targets, &facts)?;
            targets.iter_mut().for_each(|target| take_over(target, &facts, &apps));
            lanes.push(LanePlan { rack: rack.rack.clone(), after: rack.after.clone(), targets });
        }
    }
    // What `take_over` refused is not released, so its images are not needed.
    apps.retain(|name, _| lanes.iter().flat_map(|lane| &lane.targets).any(|on| on.target.app == *name && on.decision == Decision::Release));
    // A rack that is not part of this run is nothing to wait for.
    let present: BTreeSet<RackName> = lanes.iter().map(|lane| lane.rack.clone()).collect();
    for lane in &mut lanes {
        lane.after.retain(|rack| present.contains(rack));
    }
    let lanes = in_turn(lanes);
    Ok(Plan {
        run: facts.run,
        head: facts.head,
        options,
        builds: builds.list,
        apps,
        lanes,
        removed: facts.removed,
        notes: facts.notes,
        ci_url: facts.ci_url,
    })
}

/// Lanes in the order in which they start; the configuration has refused circles.
fn in_turn(mut waiting: Vec<LanePlan>) -> Vec<LanePlan> {
    let mut lanes: Vec<LanePlan> = Vec::new();
    while !waiting.is_empty() {
        let placed = |rack: &RackName| lanes.iter().any(|lane| lane.rack == *rack);
        let next = waiting.iter().position(|lane| lane.after.iter().all(placed)).unwrap_or(0);
        lanes.push(waiting.remove(next));
    }
    lanes
}

#[derive(Default)]
struct Builds {
    list: Vec<BuildPlan>,
    index: BTreeMap<(Option<AppName>, ImageBuild), usize>,
}

impl Builds {
    /// The index of a build that is the same but for its context key, or a new one. An app whose `before_build` may change
    /// the context shares with nobody else.
    fn add(
        &mut self,
        app: &AppFacts,
        service: &ServiceName,
        build: &ImageBuild,
        dockerfile: &RepoPath,
        labels: BTreeMap<String, String>,
    ) -> usize {
        let alone = app.hooks.contains_key(&HookKind::BeforeBuild).then(|| app.app.name.clone());
        let key = (alone, ImageBuild { context_key: String::new(), cache_from: Vec::new(), ..build.clone() });
        let weight = app.app.build.weight.max(1) as usize;
        let index = *self.index.entry(key).or_insert_with(|| {
            self.list.push(BuildPlan {
                build: build.clone(),
                dockerfile: dockerfile.clone(),
                labels: BTreeMap::new(),
                used_by: Vec::new(),
                weight,
            });
            self.list.len() - 1
        });
        let shared = &mut self.list[index];
        shared.used_by.push((app.app.name.clone(), service.clone()));
        shared.build.cache_from.extend(build.cache_from.iter().cloned());
        shared.build.cache_from.sort();
        shared.build.cache_from.dedup();
        shared.weight = shared.weight.max(weight);
        for (name, value) in labels {
            match shared.labels.get_mut(&name) {
                Some(known) if name == FINGERPRINT_LABEL && !known.split(' ').any(|one| one == value) => {
                    *known = format!("{known} {value}");
                }
                Some(_) => {}
                None => {
                    shared.labels.insert(name, value);
                }
            }
        }
        index
    }
}

fn app_plan(app: &AppFacts, facts: &Facts, builds: &mut Builds) -> Result<AppPlan> {
    let name = &app.app.name;
    let fingerprint = app
        .fingerprint
        .clone()
        .ok_or_else(|| Error::failed(format!("app `{name}` is to be released, and its fingerprint was not read")))?;
    let racks: Vec<RackName> = facts
        .targets
        .iter()
        .filter(|target| target.target.app == *name && target.decision == Decision::Release)
        .map(|target| target.target.rack.clone())
        .collect();
    let registry_cache = facts.racks.iter().any(|rack| rack.registry_cache && racks.contains(&rack.rack));
    let mut images = Vec::new();
    for (service, build, place) in places(app)? {
        let own = image_fingerprint(&fingerprint, build);
        let mut image = ImagePlan {
            service,
            fingerprint_tag: place.fingerprint_tag(&own),
            repository: place.repository,
            tag: place.commit_tag,
            latest_tag: app.app.latest.then_some(place.latest_tag),
            create: app.app.create.clone(),
            action: ImageAction::Build { build: 0 },
        };
        image.action = match known(&mut image, &fingerprint, &own, &facts.existing) {
            Some(action) => action,
            None => {
                let mut spec = build.image.clone();
                if registry_cache {
                    spec.inline_cache = true;
                    if let Some(latest) = &image.latest_tag {
                        let from = crate::names::ImageRef { repository: image.repository.clone(), tag: Some(latest.clone()), digest: None };
                        spec.cache_from.push(from);
                    }
                }
                let mut labels = labels(&facts.head, &format!("{fingerprint} {own}"));
                labels.extend(build.labels.clone());
                ImageAction::Build { build: builds.add(app, &image.service, &spec, &build.dockerfile, labels) }
            }
        };
        images.push(image);
    }
    Ok(AppPlan {
        name: name.clone(),
        dir: app.dir.clone(),
        fingerprint,
        revision: app.revision.clone(),
        images,
        hooks: app.hooks.clone(),
        racks,
        timeouts: app.app.build.timeouts,
    })
}

/// The OCI annotations' names as labels. `created` is the commit's time, not the clock's: the same commit makes the same image.
fn labels(head: &Head, fingerprints: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([
        ("org.opencontainers.image.revision".to_owned(), head.commit.id.to_string()),
        (FINGERPRINT_LABEL.to_owned(), fingerprints.to_owned()),
    ]);
    if let Some(source) = &head.source {
        labels.insert("org.opencontainers.image.source".to_owned(), source.clone());
    }
    if let Ok(created) = head.commit.time.format(&time::format_description::well_known::Rfc3339) {
        labels.insert("org.opencontainers.image.created".to_owned(), created);
    }
    labels
}

/// What the registry already has of an image; `None` when it has to be built.
///
/// Where this commit's tag holds the image of another environment, made of the same inputs with other arguments, the tag stays and this
/// one goes by the tag of its content alone.
fn known(image: &mut ImagePlan, fingerprint: &Fingerprint, own: &Fingerprint, existing: &Existing) -> Option<ImageAction> {
    let tag = |tag: &str| existing.tags.get(&(image.repository.clone(), tag.to_owned()));
    let (digest, same) = match (tag(&image.tag), tag(&image.fingerprint_tag)) {
        (None, None) => return None,
        (None, Some(digest)) => return Some(ImageAction::Reuse { digest: digest.clone() }),
        (Some(digest), Some(same)) if digest == same => return Some(ImageAction::Present { digest: digest.clone() }),
        (Some(digest), same) => (digest.clone(), same.cloned()),
    };
    let says = existing.fingerprints.get(&(image.repository.clone(), digest.clone())).filter(|says| !says.is_empty());
    let says_it = |fingerprint: &Fingerprint| says.is_some_and(|says| says.contains(fingerprint.as_str()));
    if says_it(own) {
        return Some(ImageAction::Present { digest });
    }
    if says_it(fingerprint) {
        image.tag = image.fingerprint_tag.clone();
        return same.map(|digest| ImageAction::Present { digest });
    }
    let says = says.map_or_else(
        || "no fingerprint at all".to_owned(),
        |says| format!("fingerprint {}", says.iter().cloned().collect::<Vec<_>>().join(" ")),
    );
    let message = format!(
        "`{}` is in the registry with {says} ({digest}); this commit's is {fingerprint}: a commit's tag is never overwritten",
        image.reference()
    );
    Some(ImageAction::Conflict { digest, message })
}

/// A lane's targets with every `after` before what names it; else in the configuration's order.
fn in_order(targets: Vec<&TargetFacts>, facts: &Facts) -> Result<Vec<TargetPlan>> {
    let here: BTreeSet<&AppName> = targets.iter().map(|target| &target.target.app).collect();
    let mut waiting: Vec<(&TargetFacts, &AppFacts, Vec<AppName>)> = Vec::new();
    for target in targets {
        let Some(app) = facts.apps.iter().find(|app| app.app.name == target.target.app) else {
            return Err(Error::config(format!("target `{}` names an app that is not configured", target.target)));
        };
        let after = app.app.after.iter().filter(|name| here.contains(name)).cloned().collect();
        waiting.push((target, app, after));
    }
    waiting.sort_by_key(|(target, ..)| facts.apps.iter().position(|app| app.app.name == target.target.app));
    let mut placed: BTreeSet<AppName> = BTreeSet::new();
    let mut lane = Vec::new();
    while !waiting.is_empty() {
        let Some(next) = waiting.iter().position(|(.., after)| after.iter().all(|name| placed.contains(name))) else {
            let names: Vec<String> = waiting.iter().map(|(target, ..)| format!("`{}`", target.target.app)).collect();
            return Err(Error::config(format!("the apps {} come `after` each other in a circle", names.join(", "))));
        };
        let (target, app, after) = waiting.remove(next);
        placed.insert(target.target.app.clone());
        lane.push(TargetPlan {
            target: target.target.clone(),
            config: target.config.clone(),
            decision: target.decision.clone(),
            reasons: target.reasons.clone(),
            base: target.base.clone(),
            base_source: target.base_source.clone(),
            live: target.live.clone(),
            after,
            manifest: Arc::clone(&app.manifest),
            description: target.description.clone(),
            origin: Origin::Stage,
            trap: target.trap.clone(),
            group: app.app.group.clone(),
            back_to: target.before.clone().filter(|_| app.app.group.is_some()),
        });
    }
    Ok(lane)
}

/// Takes over what an earlier run staged for a target that is to be released, and says so among its reasons.
fn take_over(target: &mut TargetPlan, facts: &Facts, apps: &BTreeMap<AppName, AppPlan>) {
    let known = facts.targets.iter().find(|known| known.target == target.target);
    let (Some(known), Some(app)) = (known.filter(|known| known.decision == Decision::Release), apps.get(&target.target.app)) else {
        return;
    };
    let Some(candidate) = &known.staged else { return };
    let adopted = adopt(candidate, known, app, &target.manifest, &facts.head.commit.id);
    if let Some(stage) = candidate.stuck.first() {
        let (hook, run) = (stage.name(), &candidate.from);
        let message = format!("hook `{hook}` of `{}` was cut short in run {run}, and how far it got is not known", target.target);
        let hint = format!(
            "look what it did, then run it again: offbuild deploy --resume --rerun-hooks {}; one that may always run again belongs in \
             `hooks.repeatable`",
            target.target
        );
        target.decision = Decision::Failed { class: FailureClass::Guard, message, hint: Some(hint) };
        return;
    }
    target.reasons.extend(candidate.told(&adopted));
    match adopted {
        Ok(adopted) => target.origin = Origin::Adopt(adopted),
        Err(why) if candidate.required => {
            let message = format!("release {} of run {} cannot be promoted: {why}", candidate.release, candidate.from);
            let hint = Some(format!("release this commit anew: offbuild deploy {}", target.target));
            target.decision = Decision::Failed { class: FailureClass::Guard, message, hint };
        }
        Err(_) => {}
    }
}
